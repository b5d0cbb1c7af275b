"""Parameters and multiply-adds of the networks of Table 6, each at its published width.

    python -m experiments.mtds2021.costs

prints the table that stands in README.md.
"""

import sys
from collections.abc import Iterator
from typing import NamedTuple

from keras_medseg import recipe, registry
from keras_medseg.data.datasets.brats import MODALITIES
from keras_medseg.inference.complexity import multiply_adds

from .recipe import EXPERIMENT

NAMES = {
    "mtds": "MTDS",
    "unet": "U-Net",
    "dresunet": "D-ResUNet",
    "resunetpp": "ResUNet++",
    "deeplabv3plus": "DeepLabV3+",
    "pspnet": "PSPNet",
}


class Cost(NamedTuple):
    """Of one network in use, without the heads of the deep supervision.

    Attributes:
        name: as the paper writes it.
        parameters: moving statistics included.
        multiply_adds: for one slice, in 10^9.
    """

    name: str
    parameters: int
    multiply_adds: float


def costs() -> Iterator[Cost]:
    """The networks of the profile paper-compare, each as its recipe builds it."""
    for variant, changes in EXPERIMENT.profiles["paper-compare"].variants.items():
        chosen = recipe.override(EXPERIMENT.recipe, changes)
        options = dict(chosen.model.options)
        if variant == "mtds":
            options["supervision"] = "none"
        shape = (*chosen.data.input_size, len(MODALITIES))
        network = registry.build(chosen.model.name, input_shape=shape, **options)
        yield Cost(NAMES[variant], network.count_params(), multiply_adds(network) / 1e9)


def table() -> str:
    """The networks in Markdown, the cheapest first."""
    lines = ["| network | parameters | multiply-adds (10^9) |", "|---|--:|--:|"]
    for name, parameters, operations in sorted(costs(), key=lambda cost: cost.multiply_adds):
        lines.append(f"| {name} | {parameters:,} | {operations:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")

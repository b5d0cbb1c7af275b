"""Fewer parameters, shortest training: what the compared methods cost, and what follows from it.

    python -m experiments.dcabes2020.cost_claim [RUN]

prints the table of README.md: parameters and multiply-adds of the methods at full size, and with
the folder of a run with --compare also its times of training under one recipe and the verdicts.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from keras_medseg import recipe, registry
from keras_medseg.data.datasets.brats import MODALITIES
from keras_medseg.inference.complexity import multiply_adds
from keras_medseg.recipe import Recipe, Segments, Slices
from keras_medseg.reporting.figures import style
from keras_medseg.runs import papers
from keras_medseg.runs.run_folder import RunFolder

from .rivals import ENSEMBLES, IN_ONE_RECIPE

OWN = "with_edge_loss"
NAMES = {
    "emma": "EMMA",
    "mc": "MC",
    "omnet": "OM-Net",
    "cunet": "CU-Net",
    "unet": "U-Net",
    "attention_unet": "Attention U-Net",
    "resunet": "ResUNet",
    OWN: "Ours",
}
CONFIRMED, REFUTED = "confirmed", "refuted"


class Cost(NamedTuple):
    """Of all networks of a method together.

    Attributes:
        networks: their number.
        parameters: trainable ones.
        multiply_adds: for each voxel that is labeled once, in 10^3.
    """

    networks: int
    parameters: int
    multiply_adds: float


def costs(chosen: Recipe) -> Cost:
    """What the networks of a recipe cost at its sizes."""
    parameters, operations = 0, 0
    for targets in chosen.model.targets:
        network = registry.build(
            chosen.model.name,
            input_shape=(*chosen.data.input_size, len(MODALITIES)),
            classes=len(targets),
            **chosen.model.options,
        )
        parameters += sum(math.prod(weight.shape) for weight in network.trainable_weights)
        operations += multiply_adds(network)
    return Cost(len(chosen.model.targets), parameters, operations / labeled(chosen) / 1e3)


def labeled(chosen: Recipe) -> int:
    """Voxels that one network labels for one input."""
    data = chosen.data
    if isinstance(data, Segments):
        return math.prod(data.segment)
    return math.prod(data.window[:2] if isinstance(data, Slices) else data.input_size)


def together(parts: Iterable[Cost]) -> Cost:
    """The costs of an ensemble."""
    return Cost(*(sum(values) for values in zip(*parts)))


def full_size() -> dict[str, Cost]:
    """Method -> its costs in the profile paper-compare."""
    # Not imported: the recipe imports the figures, and these import this file.
    declared = papers.find("dcabes2020")
    variants = declared.profiles["paper-compare"].variants

    def of(variant: str) -> Cost:
        return costs(recipe.override(declared.recipe, variants[variant]))

    return {name: together(of(member) for member in ENSEMBLES.get(name, (name,))) for name in NAMES}


def judge(own: float, others: Mapping[str, float]) -> tuple[str, list[str]]:
    """Whether a number is smaller than all others, and whose are not larger.

    Returns:
        CONFIRMED or REFUTED, and the names of those others, the smallest first.
    """
    smaller = sorted((name for name in others if others[name] <= own), key=others.__getitem__)
    return (REFUTED if smaller else CONFIRMED), smaller


def sentence(claim: str, own: float, others: Mapping[str, float]) -> str:
    """The verdict on a claim in one sentence."""
    verdict, smaller = judge(own, others)
    if verdict == CONFIRMED:
        return f"{claim}: {verdict} against {', '.join(others)}."
    return f"{claim}: {verdict} by {', '.join(smaller)}."


def one_recipe_costs(run: RunFolder) -> pd.DataFrame:
    """Parameters and seconds of training of the methods under one recipe, by their names."""
    table = pd.read_csv(run.path / "networks.csv").set_index("variant")
    rows = {
        NAMES[own]: table.loc[same] for own, same in IN_ONE_RECIPE.items() if same in table.index
    }
    return pd.DataFrame(rows).T[["networks", "parameters", "training_seconds"]]


def verdicts(table: pd.DataFrame) -> list[str]:
    """What a table of `one_recipe_costs` says of the paper's two sentences."""
    claims = {"parameters": "Fewer parameters", "training_seconds": "Shortest training"}
    found = []
    for column, says in claims.items():
        others = {str(name): float(value) for name, value in table[column].items()}
        found.append(sentence(says, others.pop(NAMES[OWN]), others))
    return found


@style.styled
def draw(table: pd.DataFrame) -> Figure:
    """Bars of parameters and of seconds of training, on logarithmic axes."""
    figure = Figure(figsize=(7.5, 2.8))
    columns = {"parameters": "parameters", "training_seconds": "training (s)"}
    for place, (column, label) in enumerate(columns.items(), 1):
        axes = figure.add_subplot(1, 2, place)
        values = table[column].to_numpy(float)
        colors = ["#D55E00" if name == NAMES[OWN] else "#0072B2" for name in table.index]
        bars = axes.barh(np.arange(len(values)), values, color=colors)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3)
        axes.set(xscale="log", xlabel=label, xlim=(values.min() / 2, values.max() * 4))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if values.max() < 30 * values.min():  # less than two powers of ten: one label says little
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.set_yticks(np.arange(len(values)), list(table.index))
        axes.invert_yaxis()
    return figure


def page(run: RunFolder | None = None) -> str:
    """The table in Markdown, and the verdicts."""
    found = full_size()
    one: Mapping[Any, float] = {}
    if run:
        one = one_recipe_costs(run)["training_seconds"].to_dict()
    lines = [
        "| method | networks | parameters | multiply-adds a voxel (10^3) | one recipe (s) |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, cost in found.items():
        label = NAMES[name]
        seconds = f"{one[label]:,.0f}" if label in one else "–"
        lines.append(
            f"| {label} | {cost.networks} | {cost.parameters:,} | {cost.multiply_adds:,.0f} | "
            f"{seconds} |"
        )
    sizes = {NAMES[name]: float(cost.parameters) for name, cost in found.items()}
    own = sizes.pop(NAMES[OWN])
    lines += ["", sentence("Fewer parameters, at full size, three networks", own, sizes)]
    single = own / found[OWN].networks
    lines.append(sentence("Fewer parameters, at full size, one of the three", single, sizes))
    lines += verdicts(one_recipe_costs(run)) if run else []
    return "\n".join(lines)


if __name__ == "__main__":
    given = RunFolder(Path(sys.argv[1])) if len(sys.argv) > 1 else None
    sys.stdout.write(f"{page(given)}\n")

"""What a trained prediction consists of, from raw intensities to labels, as data.

A task describes the prediction of its cases with these classes; `graph_functions.py` makes one
graph of it, and `runs/scan_export.py` a folder for other programs. Everything outside the graph is
named: nothing is left out silently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras

from keras_medseg.data.transforms.images import Preparation
from keras_medseg.inference.outputs import THRESHOLD, merging_steps

LABELS, PROBABILITIES = "labels", "probabilities"

Networks = Mapping[tuple[str, ...], keras.Model]


class Merging(NamedTuple):
    """How the probabilities of regions become one label map; see `transforms.label_map`.

    Attributes:
        regions: region -> its label codes.
        nesting: as `Dataset.nesting`.
        written: label code -> the code that is written.
    """

    regions: Mapping[str, Sequence[int]]
    nesting: Mapping[str, int]
    written: Mapping[int, int]


class Step(NamedTuple):
    """One step of a prediction: its name, and what is done in words."""

    name: str
    how: str


class Input(NamedTuple):
    """An input of a graph; None is a size that may be any."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class SlicePlan:
    """Volumes that 2-D networks predict slice by slice, as `SliceTask` does.

    Attributes:
        window: (x, y, z) voxels of the center window.
        normalization: see `volumes.slice_scaling`.
        batch_size: slices at a time.
        merging: of the regions of all networks.
    """

    window: tuple[int, int, int]
    normalization: str
    batch_size: int
    merging: Merging


@dataclass(frozen=True)
class PatchPlan:
    """Patches of a scan, whose numbers of normalization are given.

    Attributes:
        normalization: see `volumes.scaling`.
    """

    normalization: str


@dataclass(frozen=True)
class ImagePlan:
    """Images that networks see in one size, as `ImageTask` predicts them.

    Attributes:
        size: (rows, columns).
        fit: see `resize.FITS`.
        preparation: of the intensities.
        merging: of the regions, which exclude each other.
    """

    size: tuple[int, int]
    fit: str
    preparation: Preparation
    merging: Merging


@dataclass(frozen=True)
class ScanGraph:
    """A prediction as far as it can be one graph, and what is left to its caller.

    Attributes:
        networks: whose weights the graph has.
        plan: what the graph computes.
        inputs: the first is the image, (N, C, *axes).
        axes: names of the axes after N and C, such as ("x", "y", "z").
        trial_shape: of a scan or image, (X, Y, Z) or (H, W), on which to compare it.
        inside: what the graph does, in this order.
        before: what the caller does before it.
        after: what the caller does after it.
    """

    networks: Networks
    plan: SlicePlan | PatchPlan | ImagePlan
    inputs: tuple[Input, ...]
    axes: tuple[str, ...]
    trial_shape: tuple[int, ...]
    inside: tuple[Step, ...]
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()

    @property
    def is_patch(self) -> bool:
        """Whether the image is a patch of a scan; then there are no labels yet."""
        return isinstance(self.plan, PatchPlan)


ORIENTATION = Step(
    "orientation",
    "the axes x, y and z run left, posterior and superior (LPS); reorder and flip those of the "
    "file",
)
OWN_ORIENTATION = Step("orientation", "undo it, for the axes of the file")
NORMALIZATION = {
    "z_score": "each channel minus the mean, divided by the standard deviation, of the scan's "
    "non-zero voxels in that channel; 0 stays 0",
    "min_max": "each channel of the scan to 0..1, with 0 among its values",
    "window_min_max": "each channel to 0..1 by the extremes of the window, with 0 among its values",
}
"""What the normalizations of volumes do, in words."""


def merging_words(networks: Networks, merging: Merging) -> str:
    """How the maps of regions are merged, in words."""
    names = regions_of(networks)
    if not merging.nesting:
        listed = ", ".join(f"{name}: {merging.written[merging.regions[name][0]]}" for name in names)
        rule = f"the most likely region wins where its probability is above {THRESHOLD}"
        return f"{rule}; codes {listed}"
    words = []
    for step in merging_steps(names, merging.regions, merging.nesting):
        rule = f"{step.name} is {merging.written[step.code]} where it is above {THRESHOLD}"
        if step.parent:
            rule += f" within {step.parent}"
        for other, _ in step.rivals:
            rule += f" and not less likely than {other}"
        words.append(rule)
    return "later rules write over earlier ones: " + "; ".join(words)


def regions_of(networks: Networks) -> tuple[str, ...]:
    """The regions of all networks, each once, in the order of their channels."""
    return tuple(dict.fromkeys(name for names in networks for name in names))

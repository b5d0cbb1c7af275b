"""Open trained networks, and combine their outputs into one label map."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_medseg.errors import DataError
from keras_medseg.files import require_file

THRESHOLD = 0.5
"""A voxel belongs to a region where its probability is above this."""


def load_network(path: Path) -> keras.Model:
    """Open a trained network. Keras' safe mode refuses files that contain code, such as a Lambda.

    Raises:
        DataError: the file is missing or damaged, or Keras does not open it.
    """
    remedy = "Train first; the command that started the run goes on with it."
    require_file(path, expected="a trained network", remedy=remedy)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds, and quotes the whole configuration
        text = " ".join(str(error).split())
        raise DataError(
            path,
            found=f"a file that Keras does not open ({type(error).__name__}: {text[:200]})",
            expected="the model.keras of a training",
            remedy="Delete it and give the command that started the run again; it writes it anew.",
        ) from error


def main_output(network: keras.Model) -> keras.Model:
    """A network with its main (first) output alone; `network` itself if it has no other."""
    if len(network.outputs) == 1:
        return network
    return keras.Model(network.input, network.outputs[0], name=network.name)


def by_region(regions: Sequence[str], predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Region -> its map, from the output (..., R) of a network for R regions.

    Raises:
        ValueError: the number of channels is not that of the regions.
    """
    if predicted.shape[-1] != len(regions):
        raise ValueError(
            f"networks[{'+'.join(regions)!r}]: found {predicted.shape[-1]} output channels, "
            f"expected {len(regions)}: one for each region."
        )
    return dict(zip(regions, np.moveaxis(predicted, -1, 0)))


def merge_regions(
    probabilities: Mapping[str, np.ndarray],
    regions: Mapping[str, Sequence[int]],
    nesting: Mapping[str, int],
    *,
    threshold: float = THRESHOLD,
) -> np.ndarray:
    """One label map from independent maps of nested regions, such as ET in TC in WT of BraTS.

    Networks that were trained separately may disagree. A voxel counts for a region only if every
    larger region was predicted there too (intersection): core voxels outside the predicted whole
    tumor become background, enhancing voxels outside the predicted core become edema or background.
    The networks find WT most reliably (Table II of the DCABES 2020 paper: Dice 90.6 for WT, 86.6
    for TC, 77.5 for ET); voxels that only the networks of the smaller regions find are mostly
    vessels outside WT, which enhance too. WT stays exactly as predicted. The union, in which the
    smaller region wins (nnU-Net's order of labels), would keep ET as predicted instead. That paper
    neither says whether its networks are scored one by one nor how their maps are merged;
    `tasks.slices` also scores each map alone.

    Of regions side by side, outside all others or within one, the most likely one wins: of the
    resection cavity and the whole tumor, or of cyst and enhancing tumor in the tumor core.

    Args:
        probabilities: region -> map; all maps have the same shape. Regions may be left out: WT
            alone gives edema everywhere. Score only the regions that were given.
        regions: region -> its label codes.
        nesting: region -> the label code of those of its voxels that are in no region inside it; a
            region that is not named gets its first code.
        threshold: a voxel belongs to a region if its probability is above it.

    Returns:
        uint8 label codes, in the shape of the maps.

    Raises:
        ValueError: no region is given, one is unknown, or the maps have different shapes.
    """
    labels = np.zeros(_one_shape(probabilities, regions), np.uint8)
    inside: dict[str, np.ndarray] = {}
    for step in merging_steps(list(probabilities), regions, nesting):
        likely = probabilities[step.name]
        won = likely > threshold
        for other, wins_ties in step.rivals:
            larger = np.greater_equal if wins_ties else np.greater
            won &= larger(likely, probabilities[other])
        inside[step.name] = won if step.parent is None else won & inside[step.parent]
        labels[inside[step.name]] = step.code
    return labels


class MergingStep(NamedTuple):
    """How one region enters a merged label map; `merge_regions` says why.

    Attributes:
        name: of the region.
        code: written where the region is; later steps may write over it.
        parent: the smallest region around it, outside which it is not written.
        rivals: (name, whether this region wins where both are equal) of the regions beside it.
    """

    name: str
    code: int
    parent: str | None
    rivals: tuple[tuple[str, bool], ...]


def merging_steps(
    names: Sequence[str], regions: Mapping[str, Sequence[int]], nesting: Mapping[str, int]
) -> list[MergingStep]:
    """The steps of `merge_regions`, from the outermost region inward.

    Args:
        names: of the regions that are merged.
        regions: as in `merge_regions`.
        nesting: as in `merge_regions`.
    """
    codes = {name: frozenset(regions[name]) for name in names}
    parents = {name: _parent(name, codes) for name in names}
    order = {name: place for place, name in enumerate(names)}
    return [
        MergingStep(
            name,
            nesting.get(name, regions[name][0]),
            parents[name],
            # Of equals the first one wins, as in `most_likely`.
            tuple(
                (other, order[name] < order[other])
                for other in names
                if other != name and parents[other] == parents[name]
            ),
        )
        for name in sorted(names, key=lambda name: -len(codes[name]))
    ]


def _parent(name: str, codes: Mapping[str, frozenset[int]]) -> str | None:
    """The smallest region around a region."""
    around = [other for other in codes if codes[name] < codes[other]]
    return min(around, key=lambda other: len(codes[other]), default=None)


def most_likely(
    probabilities: Mapping[str, np.ndarray],
    regions: Mapping[str, Sequence[int]],
    *,
    threshold: float = THRESHOLD,
) -> np.ndarray:
    """One label map from maps of regions that exclude each other: the most likely region wins.

    Args:
        probabilities: region -> map; all maps have the same shape.
        regions: region -> its label codes, the first of which is written.
        threshold: where no probability is above it, the label is background.

    Returns:
        uint8 label codes, in the shape of the maps.

    Raises:
        ValueError: no region is given, one is unknown, or the maps have different shapes.
    """
    _one_shape(probabilities, regions)
    codes = np.array([regions[name][0] for name in probabilities], np.uint8)
    maps = np.stack(list(probabilities.values()))
    return np.where(maps.max(axis=0) > threshold, codes[maps.argmax(axis=0)], 0).astype(np.uint8)


def check_maps(predicted: np.ndarray, expected: tuple[int, ...], case_id: str) -> None:
    """Refuse predicted maps that do not have the shape of their inputs, or are not finite.

    Args:
        predicted: the maps, expected to be (N, H, W, R).
        expected: (N, H, W).
        case_id: the case of the slices or the image, for the message.

    Raises:
        ValueError: naming the shapes, or the case.
    """
    if predicted.ndim != 4 or predicted.shape[:3] != expected:
        raise ValueError(
            f"model: found an output of shape {predicted.shape}, "
            f"expected {(*expected, 'regions')} for inputs of this size."
        )
    if not np.isfinite(predicted).all():
        raise ValueError(
            f"model: found probabilities that are not finite for case {case_id}, "
            "expected numbers. The training diverged; train again with a lower rate."
        )


def _one_shape(probabilities: Mapping[str, np.ndarray], known: Mapping) -> tuple[int, ...]:
    unknown = sorted(set(probabilities) - set(known))
    if unknown or not probabilities:
        raise ValueError(
            f"probabilities: found regions {sorted(probabilities)}, "
            f"expected one or more of {list(known)}."
        )
    shapes = {region: array.shape for region, array in probabilities.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"probabilities: found shapes {shapes}, expected one shape.")
    return next(iter(shapes.values()))

"""From the outputs of networks to one label map."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np


def main_output(network: keras.Model) -> keras.Model:
    """A network without its auxiliary outputs, which follow the main one; else `network` itself."""
    if len(network.outputs) == 1:
        return network
    return keras.Model(network.input, network.outputs[0], name=network.name)


def by_region(regions: Sequence[str], predicted: np.ndarray) -> dict[str, np.ndarray]:
    """The maps (..., R) of a network by the regions that it predicts.

    Raises:
        ValueError: for another number of channels than regions.
    """
    if predicted.shape[-1] != len(regions):
        raise ValueError(
            f"networks[{'+'.join(regions)!r}]: found {predicted.shape[-1]} output channels, "
            f"expected {len(regions)}: one for each region."
        )
    return dict(zip(regions, np.moveaxis(predicted, -1, 0)))


def merge_nested(
    probabilities: Mapping[str, np.ndarray],
    nesting: Mapping[str, int],
    *,
    threshold: float = 0.5,
) -> np.ndarray:
    """One label map from independent maps of nested regions, such as ET in TC in WT of BraTS.

    Networks that were trained alone need not agree. A voxel counts for a region only where every
    larger region was predicted too (intersection): core voxels outside the predicted whole tumor
    become background, enhancing voxels outside the predicted core become edema or background.
    WT is what the networks find most reliably (Table II of the DCABES 2020 paper: Dice 90.6 for
    WT, 86.6 for TC, 77.5 for ET), and what only the smaller regions' networks see, mostly
    vessels that enhance too, lies outside it. WT stays exactly as predicted. The union, which
    lets the smaller region win (nnU-Net's order of labels), would keep ET as predicted instead.
    The paper scores its networks one by one and says nothing about merging.

    Args:
        probabilities: region -> map of any one shape. With regions left out the rest is merged
            alike: WT alone gives edema everywhere. Score only the regions that were given.
        nesting: the regions from the outermost in, each with the label code that remains of it
            outside of the next one.
        threshold: a voxel belongs to a region when its probability is above it.

    Returns:
        uint8 label codes, of the maps' shape.

    Raises:
        ValueError: for no region, an unknown one, or maps of different shapes.
    """
    shape = _one_shape(probabilities, nesting)
    labels, inside = np.zeros(shape, np.uint8), np.ones(shape, bool)
    for region, code in nesting.items():
        if region in probabilities:
            inside &= probabilities[region] > threshold
            labels[inside] = code
    return labels


def most_likely(
    probabilities: Mapping[str, np.ndarray],
    regions: Mapping[str, Sequence[int]],
    *,
    threshold: float = 0.5,
) -> np.ndarray:
    """One label map from maps of regions that exclude each other: the likeliest one wins.

    Args:
        probabilities: region -> map of any one shape.
        regions: region -> its label codes, the first of which is written.
        threshold: where no probability is above it, the label is background.

    Returns:
        uint8 label codes, of the maps' shape.

    Raises:
        ValueError: for no region, an unknown one, or maps of different shapes.
    """
    _one_shape(probabilities, regions)
    codes = np.array([regions[name][0] for name in probabilities], np.uint8)
    maps = np.stack(list(probabilities.values()))
    return np.where(maps.max(axis=0) > threshold, codes[maps.argmax(axis=0)], 0).astype(np.uint8)


def check_slices(predicted: np.ndarray, expected: tuple[int, ...], case_id: str) -> None:
    """Refuse maps of slices that do not fit the slices, or are not finite.

    Args:
        predicted: what should be (N, H, W, R).
        expected: (N, H, W).
        case_id: whose slices they are, for the message.

    Raises:
        ValueError: naming the shapes, or the case.
    """
    if predicted.ndim != 4 or predicted.shape[:3] != expected:
        raise ValueError(
            f"model: found an output of shape {predicted.shape}, "
            f"expected {(*expected, 'regions')} for slices of this window."
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

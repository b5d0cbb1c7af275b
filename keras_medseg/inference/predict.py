"""From trained networks to a label map in the input's own convention and axis order.

The steps follow the data: predict_window, paste, merge_regions, write_prediction.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_medseg.data.datasets import brats
from keras_medseg.data.formats import nifti
from keras_medseg.data.store import StoredCase
from keras_medseg.data.transforms import volumes
from keras_medseg.inference import sliding_window

if TYPE_CHECKING:
    import keras

# Outer to inner; each region's own code is what remains of it outside the next one.
NESTED_REGIONS = {"WT": brats.EDEMA, "TC": brats.NECROTIC, "ET": brats.ENHANCING}


def predict_case(
    networks: Mapping[str, "keras.Model"],
    stored_case: StoredCase,
    *,
    window: tuple[int, int, int],
    normalisation: str,
    channels: tuple[int, ...] | None = None,
    batch_size: int,
    threshold: float = 0.5,
) -> np.ndarray:
    """Label map of one case by 2-D networks; no segmentation is needed.

    Args:
        networks: region ("WT", "TC", "ET"; not all need be there) -> its binary network
            (N, H, W, C) -> (N, H, W, 1) of probabilities. A network with several outputs has
            their regions in its name, in the channels' order: "WT+TC+ET".
        window: voxels of the centre window that the networks see. What lies outside is
            background in the label map, so a tumour there counts as missed.
        normalisation, channels: as in training, see `volumes.scaling`.
        batch_size: slices that a network sees at once; does not change the result.
        threshold: a voxel belongs to a region when its probability is above it.

    Returns:
        (X, Y, Z) uint8 canonical codes on the case's full grid, LPS.

    Raises:
        ValueError: as `predict_window` and `merge_regions`.
    """
    probabilities = {}
    for names, network in networks.items():
        predicted = predict_window(
            network,
            stored_case,
            window=window,
            normalisation=normalisation,
            channels=channels,
            batch_size=batch_size,
        )
        probabilities |= _by_region(names, predicted)
    labels = merge_regions(probabilities, threshold=threshold)
    return volumes.paste(labels, stored_case.full_shape)


def predict_case_by_patches(
    networks: Mapping[str, "keras.Model"],
    stored_case: StoredCase,
    *,
    patch: tuple[int, int, int],
    normalisation: str,
    channels: tuple[int, ...] | None = None,
    overlap: float,
    test_time_flips: bool,
) -> np.ndarray:
    """Label map of one case by 3-D networks, as `predict_case`; (X, Y, Z) uint8 on the full grid.

    Args:
        networks: as in `predict_case`, (N, *patch, C) -> (N, *patch, R).
        normalisation, channels: as in training, see `volumes.scaling`.
        overlap, test_time_flips: see `sliding_window.predict_volume`.

    Raises:
        ValueError: as `sliding_window.predict_volume` and `merge_regions`.
    """
    volume = volumes.read_volume(stored_case, normalisation, channels)
    probabilities = {}
    for names, network in networks.items():
        options = dict(overlap=overlap, test_time_flips=test_time_flips)
        predicted = sliding_window.predict_volume(network, volume, patch=patch, **options)
        probabilities |= _by_region(names, predicted)
    return volumes.uncrop(merge_regions(probabilities), stored_case)


def main_output(network: "keras.Model") -> "keras.Model":
    """A network without its auxiliary outputs, which follow the main one; else `network` itself."""
    import keras

    if len(network.outputs) == 1:
        return network
    return keras.Model(network.input, network.outputs[0], name=network.name)


def predict_window(
    model: "keras.Model",
    stored_case: StoredCase,
    *,
    window: tuple[int, int, int],
    normalisation: str,
    channels: tuple[int, ...] | None = None,
    batch_size: int,
) -> np.ndarray:
    """Probabilities of a 2-D network for every axial slice of the centre window.

    Slices are read as in training, without augmentation. Every batch has `batch_size` slices,
    the last one filled up with any whose result is dropped, so a network is compiled once.

    Args:
        model: (N, H, W, C) -> (N, H, W, R) with H = x and W = y.
        window: (x, y, z) voxels.
        channels: which of the image's channels the network sees; by default all.

    Returns:
        (x, y, z, R) float32.

    Raises:
        ValueError: for a batch size below 1, and for a network whose output has another shape
            or is not finite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: found {batch_size}, expected 1 or more.")
    width, height, depth = window
    scaling = volumes.scaling(stored_case.statistics, normalisation, channels)
    batch = np.zeros((batch_size, width, height, len(scaling.channels)), np.float32)
    probabilities = None
    for start in range(0, depth, batch_size):
        count = min(batch_size, depth - start)
        for i in range(count):
            volumes.read_slice(stored_case, start + i, window, scaling, batch[i])
        predicted = np.asarray(model.predict_on_batch(batch))
        _check_output(predicted, batch.shape[:3], stored_case.id)
        if probabilities is None:
            probabilities = np.empty((width, height, depth, predicted.shape[-1]), np.float32)
        probabilities[:, :, start : start + count] = np.moveaxis(predicted[:count], 0, 2)
    return probabilities


def predict_slice(
    model: "keras.Model",
    stored_case: StoredCase,
    z: int,
    *,
    window: tuple[int, int, int],
    normalisation: str,
    channels: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Probabilities of a 2-D network for one axial slice of the full grid; 0 outside the window.

    Args:
        model: as in `predict_window`, or one with several outputs: theirs follow one another.
        z: number of the slice, which lies within the window.
        channels: as in `predict_window`.

    Returns:
        (X, Y, R) float32.
    """
    first = volumes.window_origin(stored_case.full_shape, window)[2]
    scaling = volumes.scaling(stored_case.statistics, normalisation, channels)
    image = np.zeros((1, *window[:2], len(scaling.channels)), np.float32)
    volumes.read_slice(stored_case, z - first, window, scaling, image[0])
    predicted = model.predict_on_batch(image)
    outputs = predicted if isinstance(predicted, list | tuple) else [predicted]
    maps = np.concatenate([np.asarray(output)[0] for output in outputs], axis=-1)
    return volumes.paste(maps, stored_case.full_shape[:2])


def merge_regions(probabilities: Mapping[str, np.ndarray], *, threshold: float = 0.5) -> np.ndarray:
    """One label map from independent maps of the nested regions ET in TC in WT.

    Networks trained alone need not agree. A voxel counts for a region only where every larger
    region was predicted too (intersection): core voxels outside the predicted whole tumour
    become background, enhancing voxels outside the predicted core become edema or background.
    WT is what the networks find most reliably (Table II of the DCABES 2020 paper: Dice 90.6 for
    WT, 86.6 for TC, 77.5 for ET), and what only the smaller regions' networks see, mostly
    vessels that enhance too, lies outside it. WT stays exactly as predicted. The union, which
    lets the smaller region win (nnU-Net's order of labels), would keep ET as predicted instead.
    The paper scores its networks one by one and says nothing about merging.

    Args:
        probabilities: region -> map of any one shape. With regions left out the rest is merged
            alike: WT alone gives edema everywhere. Score only the regions that were given.
        threshold: a voxel belongs to a region when its probability is above it.

    Returns:
        uint8 canonical codes, of the maps' shape.

    Raises:
        ValueError: for no region, an unknown one, or maps of different shapes.
    """
    unknown = sorted(set(probabilities) - set(NESTED_REGIONS))
    if unknown or not probabilities:
        raise ValueError(
            f"probabilities: found regions {sorted(probabilities)}, "
            f"expected one or more of {list(NESTED_REGIONS)}."
        )
    shapes = {region: array.shape for region, array in probabilities.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"probabilities: found shapes {shapes}, expected one shape.")
    shape = next(iter(shapes.values()))
    labels, inside = np.zeros(shape, np.uint8), np.ones(shape, bool)
    for region, code in NESTED_REGIONS.items():
        if region in probabilities:
            inside &= probabilities[region] > threshold
            labels[inside] = code
    return labels


def write_prediction(path: Path, labels: np.ndarray, stored_case: StoredCase) -> None:
    """Write canonical labels as NIfTI that overlays the case's own files.

    The codes are those of the case's data set, the axis order and affine those of its files,
    the type is uint8. The file appears whole or not at all.

    Args:
        path: a new or existing .nii or .nii.gz.
        labels: (X, Y, Z) uint8 canonical codes on the case's full grid, LPS.

    Raises:
        ValueError: for labels that are not on the full grid.
        OSError: when the file cannot be written.
    """
    if labels.shape != tuple(stored_case.full_shape):
        raise ValueError(
            f"labels: found shape {labels.shape}, expected {tuple(stored_case.full_shape)}, "
            f"the full grid of {stored_case.id}."
        )
    codes = brats.to_dataset_labels(labels, stored_case.dataset)
    on_disk = nifti.restore(codes, stored_case.axis_codes)
    nifti.write_volume(path, on_disk, stored_case.affine, dtype=np.uint8)


def _by_region(names: str, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """A network's maps (..., R) by the regions in its name, "WT+TC"."""
    regions = names.split("+")
    if predicted.shape[-1] != len(regions):
        raise ValueError(
            f"networks[{names!r}]: found {predicted.shape[-1]} output channels, "
            f"expected {len(regions)}: one for each region."
        )
    return dict(zip(regions, np.moveaxis(predicted, -1, 0)))


def _check_output(predicted: np.ndarray, expected: tuple[int, int, int], case_id: str) -> None:
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

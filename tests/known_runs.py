"""Run folders whose networks have known answers, and cases whose voxels are known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_medseg import recipe
from keras_medseg.data.formats import image_files, nifti
from keras_medseg.recipe import Recipe
from keras_medseg.runs.run_folder import RunFolder, Variant

from .recipes import small_recipe

SHAPE, WINDOW = (12, 10, 8), (8, 6, 4)
CENTER = (slice(2, 10), slice(2, 8), slice(2, 6))
"""The center window of SHAPE: it starts at ((12 - 8) / 2, (10 - 6) / 2, (8 - 4) / 2)."""

RAS = np.array([[1.0, 0, 0, -7], [0, 1, 0, 11], [0, 0, 1, 5], [0, 0, 0, 1]])
"""Of the files of the cases; the package turns them to LPS: x and y run the other way."""

SLICES = small_recipe(
    {"data.normalization": "none", "data.window": WINDOW, "model.targets": (("WT",),)}
)
PATCHES = recipe.override(
    SLICES,
    {
        "data": recipe.Patches("brats", (8, 6, 4), "none", 0.5, 0.5),
    },
)
IMAGES = recipe.override(
    SLICES,
    {
        "data": recipe.Images("image_folders", (16, 24), {"polyp": ()}, "unit_range", 0.5),
        "model.targets": (("polyp",),),
    },
)
AS_THEY_ARE = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
"""What `unit_range` takes from the training images: the network sees gray value / 255."""


def constant(*probabilities: float, dimensions: int = 2, channels: int = 4) -> keras.Model:
    """The same probability everywhere, one for each region."""
    kernel = np.zeros((*[1] * dimensions, channels, len(probabilities)), "f4")
    return _convolution(kernel, np.float32(probabilities))


def next_voxel(dimensions: int = 2, channels: int = 4, scale: float = 1 / 16) -> keras.Model:
    """The first channel of the next voxel along the first axis, times `scale`; 0 at the end.

    Convolutions correlate: of three rows of the kernel, the last one sees the next voxel. With
    integers and 1/16 the arithmetic is exact.
    """
    kernel = np.zeros((*[3] * dimensions, channels, 1), "f4")
    kernel[(2, *[1] * (dimensions - 1), 0, 0)] = scale
    return _convolution(kernel, np.zeros(1, "f4"))


def _convolution(kernel: np.ndarray, bias: np.ndarray) -> keras.Model:
    dimensions = kernel.ndim - 2
    convolution = {2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[dimensions]
    image = keras.Input((*[None] * dimensions, kernel.shape[-2]))
    layer = convolution(len(bias), kernel.shape[0], padding="same", name="Convolution")
    network = keras.Model(image, layer(image))
    layer.set_weights([kernel, bias])
    return network


def write_run(
    path: Path,
    network: keras.Model | Mapping[tuple[str, ...], keras.Model],
    chosen: Recipe = SLICES,
    variants: Sequence[str] = ("main",),
    fitted: Mapping[str, Any] = {},
    facts: Mapping[str, Any] = {},
) -> RunFolder:
    """A run folder as a training leaves it; all variants have the same recipe and network."""
    networks = network if isinstance(network, Mapping) else {chosen.model.targets[0]: network}
    chosen = recipe.override(chosen, {"model.targets": tuple(networks)})
    run = RunFolder(path)
    run.create(chosen, {name: Variant(chosen, name, fitted) for name in variants}, facts)
    for name in variants:
        for targets, trained in networks.items():
            folder = run.training(name, targets)
            folder.mkdir(parents=True)
            trained.save(folder / "model.keras")
    return run


def write_volumes(
    folder: Path, count: int, *, first: int = 0, labelled: bool = False
) -> list[np.ndarray]:
    """BraTS-like cases of integers from 1 to 16; their FLAIR images, (X, Y, Z) in LPS.

    Edema is where FLAIR is above 12, if they are labelled.
    """
    flairs = []
    for number in range(first, first + count):
        name = f"BraTS2021_{number:05}"
        (folder / name).mkdir(parents=True)
        for order, modality in enumerate(("flair", "t1", "t1ce", "t2")):
            voxels = np.random.default_rng([number, order]).integers(1, 17, SHAPE, dtype=np.int16)
            nifti.write_volume(folder / name / f"{name}_{modality}.nii.gz", voxels, RAS)
            if modality == "flair":
                flairs.append(voxels[::-1, ::-1])
                if labelled:
                    edema = np.uint8(2) * (voxels > 12)
                    nifti.write_volume(folder / name / f"{name}_seg.nii.gz", edema, RAS)
    return flairs


def write_images(folder: Path, count: int, size: tuple[int, int] = (32, 40)) -> list[np.ndarray]:
    """Color images of random values, (H, W, 3) uint8."""
    found = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        image_files.write(folder / "images" / f"{number}.png", pixels)
        found.append(pixels)
    return found


def read_map(path: Path) -> np.ndarray:
    """A NIfTI file that overlays a case, with its header's scale, (X, Y, Z) in LPS."""
    import nibabel

    volume = nibabel.load(path)
    np.testing.assert_array_equal(volume.affine, RAS)
    return volume.get_fdata()[::-1, ::-1]

"""What the pipeline has to know of two-dimensional pictures; volumes.py has the same names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_medseg.data import splits
from keras_medseg.data.batches.images import ImageBatches
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets import image_folders
from keras_medseg.data.formats import image_files, masks
from keras_medseg.data.store import Store, StoredCase
from keras_medseg.data.transforms import resize
from keras_medseg.data.transforms.images import Preparation, fit_preparation, read_image
from keras_medseg.errors import DataError
from keras_medseg.evaluation import image_scores
from keras_medseg.recipe import Recipe

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

SUFFIX = ".png"
check = image_folders.check
read_case = image_folders.read_case
THRESHOLD = 0.5


def find_cases(folder: Path, *, labelled: bool = True) -> list[Case]:
    """The pictures of `folder`.

    Raises:
        DataError: where files are missing or not as they should be.
    """
    return image_folders.find_cases(folder, labelled=labelled)


def write_phantom(folder: Path, **options) -> None:
    """Write a synthetic data set, see `images.write_pictures`."""
    from keras_medseg.phantoms import images

    images.write_pictures(folder, **options)


def reader(run: Recipe) -> Callable[[Case], CaseArrays]:
    """What decodes a picture for this recipe, at the recipe's size."""
    named = {name: codes for name, codes in run.data.classes.items() if codes}
    return partial(
        image_folders.read_case, size=run.data.size, fit=run.data.fit, classes=named or None
    )


def split(folder: Path, cases: Sequence[Case], run: Recipe) -> splits.Sides:
    """(training, held-out): as the folder's manifest says, else as the recipe does."""
    return image_folders.find_split(folder, cases) or splits.split_by(
        cases, run.data.held_out, run.train.seed, run.data.split
    )


def settle(run: Recipe, decoded: Store, training: Sequence[str]) -> Recipe:
    """The recipe with what it leaves to the training pictures: their mean and deviation."""
    fitted = fit_preparation(
        decoded,
        training,
        run.data.normalisation,
        smoothing_px=run.data.smoothing_px,
        equalization=run.data.equalisation,
    )
    return replace(run, data=replace(run.data, mean=fitted.mean, std=fitted.std))


def targets(run: Recipe) -> dict[str, tuple[int, ...]]:
    """What a network can be trained for: name -> label codes."""
    named = [name for name in run.data.classes if name != masks.BACKGROUND]
    return {name: (code,) for code, name in enumerate(named, 1)}


regions = targets


def batches(
    run: Recipe, decoded: Store, case_ids: Sequence[str], names: Sequence[str], *, training: bool
) -> ImageBatches:
    """The recipe's batches, one channel of targets per name; shuffled and changed for training."""
    codes = targets(run)
    return ImageBatches(
        decoded,
        case_ids,
        targets=tuple((name, codes[name]) for name in names),
        preparation=_preparation(run),
        size=run.data.size,
        batch_size=run.train.batch_size,
        seed=run.train.seed,
        flips=run.data.flips if training else (),
        brightness=run.data.brightness if training else 0.0,
        shuffle=training,
    )


def predict(
    networks: Mapping[str, "keras.Model"], case: StoredCase, run: Recipe
) -> dict[str, np.ndarray]:
    """Probabilities (H, W) float32 of every class, at the size that the networks see.

    networks: names of their classes, "polyp" or "a+b" -> network.
    """
    picture = read_image(case, _preparation(run))[None]
    found: dict[str, np.ndarray] = {}
    for names, network in networks.items():
        maps = np.asarray(network.predict_on_batch(picture))[0]
        found |= zip(names.split("+"), np.moveaxis(maps, -1, 0))
    return found


def write(
    path: Path,
    probabilities: Mapping[str, np.ndarray],
    run: Recipe,
    case: StoredCase,
    *,
    source: Case | None = None,
) -> None:
    """Write a mask as 8-bit grey PNG.

    One class alone is 255; several have the codes of `targets`. Background is 0.

    Args:
        source: the picture on disk, whose own size the mask then has; without it, the size that
            the networks see.
    """
    labels = _labels(probabilities, run)
    if source is not None:
        own_size = image_folders.read_case(replace(source, labels=None)).image.shape[:2]
        labels = resize.restore(labels, own_size, run.data.fit)
    image_files.write(path, labels * np.uint8(255) if len(targets(run)) == 1 else labels)


def score(
    probabilities: Mapping[str, np.ndarray], case: StoredCase, run: Recipe
) -> list[dict[str, str | float | int]]:
    """One row of scores per class, at the size that the networks see, as the papers do."""
    codes = {name: targets(run)[name] for name in probabilities}
    maps = np.stack(list(probabilities.values()), axis=-1)
    return image_scores.score_picture(maps, case.full_labels()[:, :, 0], codes, THRESHOLD)


def score_file(path: Path, case: Case, names: Sequence[str]) -> list[dict[str, str | float | int]]:
    """Scores of a mask on disk against a picture's own; whatever is not 0 counts as object.

    names: not used; a mask does not say which classes it knows.

    Raises:
        DataError: for a mask that is missing, damaged or of another size.
    """
    truth = image_folders.read_case(case).labels[:, :, 0] > 0
    mask = image_files.read_mask(path).pixels[..., 0] > 0
    if mask.shape != truth.shape:
        raise DataError(
            path,
            found=f"{mask.shape[0]} x {mask.shape[1]} pixels",
            expected=f"{truth.shape[0]} x {truth.shape[1]}, those of {case.images[0].name}",
            remedy="Predict at the picture's own size.",
        )
    maps, labels = mask[..., None].astype(np.float32), truth.astype(np.uint8)
    rows = image_scores.score_picture(maps, labels, {"object": (1,)})
    without_probabilities = ("cross_entropy", "mae")
    return [{k: v for k, v in row.items() if k not in without_probabilities} for row in rows]


def overlay(
    path: Path, case: StoredCase, run: Recipe, *, title: str, dice: Mapping[str, float]
) -> tuple["Figure", str]:
    """A picture with the outlines of its mask and of the one at `path`."""
    from keras_medseg.reporting import figures

    drawn = figures.picture_overlay(
        case.full_image()[:, :, 0],
        case.full_labels()[:, :, 0] > 0,
        image_files.read_mask(path).pixels[..., 0] > 0,
        title=title,
        dice=dice,
    )
    return drawn, "outlines of annotation and prediction."


def _preparation(run: Recipe) -> Preparation:
    data = run.data
    return Preparation(data.smoothing_px, data.equalisation, data.mean, data.std)


def _labels(probabilities: Mapping[str, np.ndarray], run: Recipe) -> np.ndarray:
    """(H, W) uint8: the likeliest class where it is likelier than not, else background."""
    codes = np.array([targets(run)[name][0] for name in probabilities], np.uint8)
    maps = np.stack(list(probabilities.values()))
    return np.where(maps.max(axis=0) > THRESHOLD, codes[maps.argmax(axis=0)], 0).astype(np.uint8)

"""What the pipeline has to know of volumes: BraTS cases, seen slice by slice or patch by patch.

The pipeline goes the same way for every kind of data; what differs stands here, for pictures in
pictures.py under the same names.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_medseg.data import splits
from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.data.batches.patches import PatchBatches
from keras_medseg.data.batches.slices import SliceBatches
from keras_medseg.data.cases import Case, CaseArrays, lps_spacing_mm
from keras_medseg.data.datasets import brats
from keras_medseg.data.formats import nifti
from keras_medseg.data.store import Store, StoredCase
from keras_medseg.errors import DataError
from keras_medseg.evaluation import scoring
from keras_medseg.phantoms import brats as phantom
from keras_medseg.recipe import Recipe, Slices

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

SUFFIX = ".nii.gz"
write_phantom = phantom.write_brats
check = brats.check
read_case = brats.read_case


def find_cases(folder: Path, *, labelled: bool = True) -> list[Case]:
    """The BraTS cases of `folder`.

    Raises:
        DataError: where files are missing or not as they should be.
    """
    return brats.find_cases(folder, labelled=labelled)


def reader(run: Recipe) -> Callable[[Case], CaseArrays]:
    """What decodes a case for this recipe."""
    return brats.read_case


def split(folder: Path, cases: Sequence[Case], run: Recipe) -> splits.Sides:
    """(training, held-out), all cases of a patient on one side."""
    return splits.split_by(cases, run.data.held_out, run.train.seed)


def settle(run: Recipe, decoded: Store, training: Sequence[str]) -> Recipe:
    """The recipe as it is: nothing in it is left to the data."""
    return run


def regions(run: Recipe) -> dict[str, tuple[int, ...]]:
    """What is predicted and scored: name -> label codes."""
    return brats.REGIONS


def targets(run: Recipe) -> dict[str, tuple[int, ...]]:
    """What an auxiliary output can be trained for: name -> label codes."""
    return brats.TARGETS


def channels(run: Recipe) -> tuple[int, ...]:
    """Which of a case's channels the network sees, in its order."""
    return tuple(brats.MODALITIES.index(name) for name in run.data.modalities)


def batches(
    run: Recipe, decoded: Store, case_ids: Sequence[str], names: Sequence[str], *, training: bool
) -> CaseBatches:
    """The recipe's batches, one channel of targets per name; shuffled and changed for training."""
    shared = dict(
        targets=tuple((name, brats.TARGETS[name]) for name in names),
        batch_size=run.train.batch_size,
        seed=run.train.seed,
        normalization=run.data.normalisation,
        channels=channels(run),
        shuffle=training,
    )
    if isinstance(run.data, Slices):
        return SliceBatches(
            decoded,
            case_ids,
            window=run.data.window,
            flips=run.data.flips if training else (),
            slice_step=run.data.slice_step,
            **shared,
        )
    return PatchBatches(
        decoded,
        case_ids,
        patch=run.data.patch,
        foreground_probability=run.data.foreground_probability,
        augmentation=run.data.augmentation if training else {},
        crops="random" if training else "center",
        augment=not run.data.augment_on_device,
        **shared,
    )


def predict(networks: Mapping[str, "keras.Model"], case: StoredCase, run: Recipe) -> np.ndarray:
    """(X, Y, Z) uint8 canonical label map of a case, as the recipe reads and cleans it, LPS.

    networks: names of their regions, "WT" or "WT+TC+ET" -> network.
    """
    from keras_medseg.inference import postprocess, predict

    read = dict(normalisation=run.data.normalisation, channels=channels(run))
    if isinstance(run.data, Slices):
        labels = predict.predict_case(
            networks, case, window=run.data.window, batch_size=run.train.batch_size, **read
        )
    else:
        labels = predict.predict_case_by_patches(
            networks,
            case,
            patch=run.data.patch,
            overlap=run.data.overlap,
            test_time_flips=run.data.test_time_flips,
            **read,
        )
    return postprocess.drop_small_components(labels, run.predict.smallest_component)


def write(
    path: Path, labels: np.ndarray, run: Recipe, case: StoredCase, *, source: Case | None = None
) -> None:
    """Write a label map as NIfTI in the case's own codes, axis order and affine."""
    from keras_medseg.inference import predict

    predict.write_prediction(path, labels, case)


def score(labels: np.ndarray, case: StoredCase, run: Recipe) -> list[dict]:
    """One row of scores per region that the recipe trains for."""
    chosen = {name: brats.REGIONS[name] for names in run.model.networks for name in names}
    return scoring.score_case(labels, case.full_labels(), chosen, case.spacing_mm)


def score_file(path: Path, case: Case, names: Sequence[str]) -> list[dict]:
    """As `score`, of a label map on disk against a case on disk.

    Raises:
        DataError: for a label map on another grid, or one with codes that its data set lacks.
    """
    _check_grid(path, case.labels)
    truth, labels = (brats.read_labels(file, case.dataset) for file in (case.labels, path))
    chosen = {name: brats.REGIONS[name] for name in names}
    affine = nifti.read_header(case.labels).affine
    spacing_mm = lps_spacing_mm(affine, nifti.axis_codes(affine))
    return scoring.score_case(labels, truth, chosen, spacing_mm)


def overlay(
    path: Path, case: StoredCase, run: Recipe, *, title: str, dice: Mapping[str, float]
) -> tuple["Figure", str]:
    """Annotation and the label map at `path` on one slice of a case, and what the slice is."""
    from keras_medseg.reporting import figures

    drawn = figures.case_overlay(
        case.full_image(),
        case.full_labels(),
        brats.read_labels(path, case.dataset),
        title=title,
        dice=dice,
        spacing_mm=case.spacing_mm,
        backgrounds=_backgrounds(run.data.modalities),
    )
    return drawn, "the slice with the largest annotated tumour."


def _backgrounds(seen: Sequence[str]) -> tuple[str, ...]:
    """FLAIR where the network saw it, else the first modality; and T1ce where it saw that."""
    first = "flair" if "flair" in seen else seen[0]
    return tuple(dict.fromkeys((first, *(name for name in seen if name == "t1ce"))))


def _check_grid(path: Path, reference: Path) -> None:
    ours, theirs = nifti.read_header(path), nifti.read_header(reference)
    found = f"shape {ours.shape}"
    apart = np.inf
    if ours.shape == theirs.shape:
        apart = nifti.corner_distance_mm(ours.affine, theirs.affine, ours.shape)
        found = f"a grid {apart:.3g} mm away at a corner"
    if not apart <= nifti.TOLERANCE_MM:
        raise DataError(
            path,
            found=found,
            expected=f"the grid of {reference}",
            remedy="Predict on the case's own grid.",
        )

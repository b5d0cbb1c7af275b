"""Trained networks as one function from an array or files to labels, for other programs."""

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.formats import nifti
from keras_medseg.errors import DataError
from keras_medseg.files import require_file
from keras_medseg.inference.outputs import THRESHOLD
from keras_medseg.runs import installed, packages
from keras_medseg.runs.members import Member, Pooled, decode, members, pool
from keras_medseg.runs.predict_folder import Options, prepared
from keras_medseg.tasks.base import Task

_AS_TRAINED = Options()

Source = str | Path
Affine = np.ndarray | Sequence[Sequence[float]]


class Prediction(NamedTuple):
    """The prediction of one case, in the axis order of its files or of the given array.

    Attributes:
        labels: (X, Y, Z) or (H, W) uint8; `Predictor.labels` says what the codes mean.
        probabilities: region -> (X, Y, Z) or (H, W) float32.
        affine: (4, 4) voxel -> mm; the identity for images.
    """

    labels: np.ndarray
    probabilities: dict[str, np.ndarray]
    affine: np.ndarray


def load(
    *sources: Source,
    flips: str | None = None,
    threshold: float = THRESHOLD,
    overlap: float | None = None,
) -> "Predictor":
    """Load trained networks once, for any number of predictions.

    Args:
        *sources: weights by name ("dcabes2020/brats2017-fold0"), the path of an archive, or a run
            folder, RUN or RUN:VARIANT. The probabilities of several are averaged, and those of all
            folds and seeds of one run.
        flips: average over inputs mirrored along all sets of these axes; see `Options`.
        threshold: a voxel or pixel belongs to a region where its probability is above it.
        overlap: of the sliding window; by default that of the recipe.

    Raises:
        DataError: weights are damaged or do not fit this version; a run is not complete.
        ValueError: an unknown name or variant, or options that do not fit.
    """
    if not sources:
        raise ValueError("load: found no name or path, expected at least one.")
    with ExitStack() as opened:
        loaded = [member for source in sources for member in open_members(str(source), opened)]
        return Predictor(loaded, Options(flips=flips, threshold=threshold, overlap=overlap))


class Predictor:
    """Predicts single cases: what `keras-medseg predict` writes, with the same bits.

    Nothing is written to disk. Threads may call it at the same time; their cases are predicted one
    after the other.

    Attributes:
        labels: code in `Prediction.labels` -> name, without background (0).
        channels: names of the channels that a case must have, in their order; empty for images,
            which are gray or color as the networks were trained.
        regions: keys of `Prediction.probabilities`.
    """

    def __init__(self, all_members: Sequence[Member], options: Options = _AS_TRAINED) -> None:
        """Load the networks; see `load`."""
        self._members = prepared(all_members, options)
        self._options = options
        self._lock = threading.Lock()
        first = self._members[0]
        self._task: Task = first.task
        self._release: str = next(iter(first.run.run["datasets"]), "")
        dataset = self._task.dataset
        self._volumes = dataset.elements == "voxels"
        self.channels: tuple[str, ...] = tuple(dataset.channels)
        self.regions: tuple[str, ...] = first.regions
        self.labels = dataset.labels_on_disk(self._release)

    def __call__(
        self,
        case: np.ndarray | Mapping[str, Source] | Source,
        *,
        affine: Affine | None = None,
        spacing_mm: Sequence[float] | None = None,
    ) -> Prediction:
        """Predict one case.

        Args:
            case: one of

                * an array as it lies in files: (X, Y, Z, C), the channels in the order of
                  `channels`, or (H, W[, 1 or 3]) uint8;
                * {channel: path} of a volume;
                * the path of an image, or of a volume with all channels;
                * a folder with one case, in the layout that the run reads.
            affine: of a volume in an array, (4, 4) voxel -> mm, as NIfTI has it. Images need none.
            spacing_mm: instead of `affine`, if the axes run left, posterior and superior.

        Raises:
            DataError: files that cannot be read.
            ValueError: something else than the above.
        """
        if hasattr(case, "__array__"):
            return self._predict_array(np.asarray(case), affine, spacing_mm)
        if affine is not None or spacing_mm is not None:
            raise ValueError("affine, spacing_mm: found one beside files, which have their own.")
        if isinstance(case, Mapping):
            paths = {name: Path(path) for name, path in case.items()}
            return self._predict(self._task.dataset.case_of(paths, self._release))
        path = Path(case)
        if not path.is_dir():
            require_file(path, expected="a file or a folder", remedy="Give its path.")
            return self._predict(self._task.dataset.case_of(path, self._release))
        found = self._task.dataset.find_complete(path)
        if found[1]:
            raise found[1][0]
        if len(found[0].cases) != 1:
            raise ValueError(
                f"{path}: found {len(found[0].cases)} cases, expected one. Call predictor.cases."
            )
        return self._predict(found[0].cases[0])

    def cases(self, folder: Source) -> Iterator[tuple[str, Prediction]]:
        """(id, prediction) of every case of a folder, one after the other.

        Raises:
            DataError: the folder has no cases; or, after all others, the first one that cannot be
                read.
        """
        listing, refused = self._task.dataset.find_complete(Path(folder))
        for case in listing.cases:
            try:
                prediction = self._predict(case)
            except DataError as error:
                refused.append(error)
                continue
            yield case.id, prediction
        if refused:
            raise refused[0]

    def _predict_array(
        self, image: np.ndarray, affine: Affine | None, spacing_mm: Sequence[float] | None
    ) -> Prediction:
        grid = _affine(affine, spacing_mm) if self._volumes else np.eye(4)
        case = Case("array", self._release, (), None, "array")
        return self._predict(case, image, grid)

    def _predict(
        self, case: Case, image: np.ndarray | None = None, affine: np.ndarray | None = None
    ) -> Prediction:
        def read(task: Task) -> CaseArrays:
            if image is not None and affine is not None:
                return task.read_array(image, affine)
            arrays = task.read_image(case)
            self._require_channels(case, arrays)
            return arrays

        with self._lock:
            decoded = decode(self._members, case, read)
            pooled = pool(self._members, decoded, flips=self._options.flips)
        return self._finished(pooled)

    def _require_channels(self, case: Case, arrays: CaseArrays) -> None:
        found = arrays.image.shape[-1]
        if self.channels and found != len(self.channels):
            raise ValueError(
                f"{case.images[0]}: found {found} channels, expected {len(self.channels)}: "
                f"{', '.join(self.channels)}. Give {{channel: path}}."
            )

    def _finished(self, pooled: Pooled) -> Prediction:
        task, case = self._task, pooled.case
        labels = task.label_map(pooled.maps, case, threshold=self._options.threshold)
        labels = task.dataset.codes_on_disk(labels, case.dataset)
        maps = task.on_own_grid(pooled.maps, case)
        if not self._volumes:
            return Prediction(labels[..., 0], maps, case.affine)

        def restored(values: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(nifti.restore(values, case.axis_codes))

        probabilities = {name: restored(values) for name, values in maps.items()}
        return Prediction(restored(labels), probabilities, case.affine)


def open_members(source: str, opened: ExitStack) -> Sequence[Member]:
    """The members that a source names; an archive stays unpacked until `opened` is closed.

    Args:
        source: as in `load`.
        opened: keeps the folder of an unpacked archive.

    Raises:
        DataError: as `load`.
        ValueError: as `load`.
    """
    path = installed.locate(source)
    if path.is_file():
        archive, path = path, Path(opened.enter_context(tempfile.TemporaryDirectory())) / "weights"
        with packages.named_after(source, path):
            packages.unpack(archive, path)
    if (path / packages.MANIFEST).exists():
        with packages.named_after(source, path):
            return [packages.open_weights(path)]
    try:
        return members([source])
    except DataError as error:
        if path.exists() or ":" in source:
            raise
        known = ", ".join(installed.names()) or "none"
        raise ValueError(
            f"{source}: found no such weights, run folder or archive, expected a path or one of: "
            f"{known}."
        ) from error


def _affine(affine: Affine | None, spacing_mm: Sequence[float] | None) -> np.ndarray:
    """The affine of a volume in an array."""
    if (affine is None) == (spacing_mm is None):
        raise ValueError("affine, spacing_mm: found both or none, expected one for an array.")
    if spacing_mm is None:
        return np.asarray(affine, float)
    sizes = np.asarray(spacing_mm, float)
    if sizes.shape != (3,) or not (sizes > 0).all():
        raise ValueError(f"spacing_mm: found {spacing_mm!r}, expected three lengths in mm.")
    # The affine of NIfTI runs right and anterior, the opposite of LPS.
    return np.diag([-sizes[0], -sizes[1], sizes[2], 1])

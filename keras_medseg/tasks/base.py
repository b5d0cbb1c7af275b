"""The contract of a task: how the cases of a data set are sampled, predicted and scored."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_medseg.data import splits
from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets.base import Codes, Dataset, Listing
from keras_medseg.data.splits import Split
from keras_medseg.data.store import Reader, Store, StoredCase
from keras_medseg.errors import require_choice
from keras_medseg.inference.outputs import THRESHOLD
from keras_medseg.inference.scan_plan import Merging, ScanGraph, regions_of
from keras_medseg.recipe import Recipe

Networks = Mapping[tuple[str, ...], keras.Model]
"""Regions that a network predicts, in the order of its output channels -> the network."""

Maps = dict[str, np.ndarray]
"""Region -> its probabilities: (X, Y, Z) float32 in LPS, or (H, W) of an image."""

Targets = tuple[tuple[str, Codes], ...]
"""(name, label codes) of each channel of y; a name may occur twice."""


class Scored(NamedTuple):
    """A prediction with its scores.

    Attributes:
        prediction: as `Task.predict` returns it.
        rows: as `Task.score` returns them, so they follow from the prediction.
        further: rows with the column `region` and scores that do not follow from it, such as those
            of maps before they were merged.
    """

    prediction: Any
    rows: list[dict[str, Any]]
    further: Sequence[dict[str, Any]] = ()


class Task(ABC):
    """How the cases of a recipe are sampled for training, predicted and scored.

    Data flow through a task in the order of its methods: `reader` decodes a case into the store,
    `splits` chooses the sides, `fit` measures numbers on the training cases, `batches` feeds the
    training, `predict` turns a stored case into a prediction, which `write` and `score` take. Its
    two halves can be called alone: `probabilities`, and `label_map`, which decides by them.

    Attributes:
        axes: letters of the axes along which a case can be mirrored.
        needs_auxiliary: whether predictions need the auxiliary outputs of the networks, too.
        recipe: the recipe; `recipe.data` has the settings of the task.
        dataset: the data set that the recipe names.
        fitted: numbers that `fit` measured, as JSON; empty if nothing is measured.
    """

    axes: ClassVar[str] = "xyz"
    needs_auxiliary: ClassVar[bool] = False

    def __init__(self, recipe: Recipe, fitted: Mapping[str, Any] | None = None) -> None:
        """Check the recipe against its data set.

        Args:
            recipe: of this kind of task.
            fitted: what `fit` measured earlier, for example from a run folder.

        Raises:
            ValueError: a target, channel or data set does not exist; the message names it.
        """
        self.recipe = recipe
        self.dataset = self._dataset()
        self.fitted = dict(fitted or {})
        self._check_targets()

    def _check_targets(self) -> None:
        """Check that the data set has all targets of the recipe."""
        for name in self.regions:
            require_choice("model.targets", name, self.dataset.regions)
        for name in self.recipe.model.auxiliary:
            require_choice("model.auxiliary", name, self.dataset.targets)

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that are predicted and scored; by default the targets of the networks."""
        return tuple(name for names in self.recipe.model.targets for name in names)

    @abstractmethod
    def _dataset(self) -> Dataset:
        """The data set that the recipe names."""

    @property
    @abstractmethod
    def reader(self) -> Reader:
        """The function that decodes a case for the store; equal readers give equal voxels."""

    def read_image(self, case: Case) -> CaseArrays:
        """A case to predict as `reader` decodes it, without its labels."""
        return self.dataset.read_image(case)

    def read_array(self, image: np.ndarray, affine: np.ndarray) -> CaseArrays:
        """As `read_image`, for an image in memory; see `Dataset.of_array`."""
        return self.dataset.of_array(image, affine)

    @abstractmethod
    def channels(self, stored: int) -> int:
        """Number of channels that the network sees, if a stored case has `stored` channels."""

    @property
    def split_way(self) -> str:
        """What stays on one side, see `data.splits.split_by`."""
        return "group"

    def splits(self, listing: Listing, cases: Sequence[Case]) -> tuple[Split, ...]:
        """The split of `cases`, or one for each of `data.folds`.

        A split is the data set's own, otherwise one by fractions and seed of the recipe.

        Args:
            listing: what the data set found.
            cases: all or some of its cases.

        Raises:
            ValueError: the recipe wants folds, or a test side, and the data set has a split of its
                own, or one without a test side.
        """
        data, seed = self.recipe.data, self.split_seed
        ids = {case.id for case in cases}
        sides = {id: side for id, side in listing.sides.items() if id in ids}
        if sides and data.folds:
            raise ValueError(
                f"data.folds: found {data.folds}, but the data set has its own split, expected 0. "
                "Remove its column split, or give the folds as a file (--splits)."
            )
        if sides:
            return (self._own_split(sides, cases),)
        if data.folds:
            test, way = data.test > 0, self.split_way
            return splits.split_in_folds(cases, data.folds, data.validation, test, seed, way)
        return (splits.split_in_three(cases, data.validation, data.test, seed, self.split_way),)

    @property
    def split_seed(self) -> int:
        """The seed of the split."""
        given = self.recipe.data.split_seed
        return self.recipe.train.seed if given is None else given

    def fit(self, store: Store, case_ids: Sequence[str]) -> "Task":
        """This task with the numbers measured on the training cases; itself if there are none."""
        return self

    def batches(
        self, store: Store, case_ids: Sequence[str], regions: Sequence[str], *, training: bool
    ) -> CaseBatches:
        """Batches of these cases: y has one channel per region, then one per auxiliary output.

        Args:
            store: decoded by `reader`.
            case_ids: the cases, in any order.
            regions: predicted by the network.
            training: whether samples are shuffled and augmented.

        Raises:
            ValueError: the recipe does not fit the cases.
        """
        names = (*regions, *self.recipe.model.auxiliary)
        targets = tuple((name, self.dataset.targets[name]) for name in names)
        return self._batches(store, case_ids, targets, training=training)

    @abstractmethod
    def _batches(
        self, store: Store, case_ids: Sequence[str], targets: Targets, *, training: bool
    ) -> CaseBatches:
        """As `batches`, with the label codes of each channel of y."""

    def wrap(self, model: keras.Model) -> keras.Model:
        """The model to fit: `model`, or one that first augments its batches on the device."""
        return model

    @abstractmethod
    def probabilities(
        self, networks: Networks, case: StoredCase, *, flips: str | None = None
    ) -> Maps:
        """The probabilities of a case on the grid of the store.

        Args:
            networks: of this recipe.
            case: of the store.
            flips: letters of `axes`; the result is the mean over the case mirrored along every set
                of these axes, see `inference.flips`. A 2-D network sees no order of slices, so for
                it "z" changes nothing. By default as the recipe says.

        Returns:
            Region -> its map; 0 where the networks do not look.

        Raises:
            ValueError: a network's output has another shape or is not finite.
        """

    @abstractmethod
    def on_own_grid(self, maps: Mapping[str, np.ndarray], case: StoredCase) -> Maps:
        """Maps from `probabilities` on the grid of the case's own files, interpolated linearly.

        They are `maps` themselves unless the store has resampled or resized the case.
        """

    @abstractmethod
    def label_map(
        self, maps: Mapping[str, np.ndarray], case: StoredCase, *, threshold: float = THRESHOLD
    ) -> np.ndarray:
        """The label map that follows from probabilities, merged and postprocessed.

        Args:
            maps: by region, on the grid of the store or on that of the case's own files.
            case: the predicted case.
            threshold: a voxel or pixel belongs to a region where its probability is above it.

        Returns:
            (X, Y, Z) uint8 on the grid of the case's own files, as `Dataset.write_labels` takes it.
        """

    @abstractmethod
    def scan_graph(self, networks: Networks, release: str) -> ScanGraph:
        """The prediction of a case as one graph, with what cannot be in it named.

        Args:
            networks: of this recipe.
            release: `Case.dataset` of cases whose label codes are written.
        """

    @abstractmethod
    def scan_inputs(self, arrays: CaseArrays) -> dict[str, np.ndarray]:
        """What the graph of `scan_graph` takes for a case: name of an input -> array, with N = 1.

        Args:
            arrays: the case as `dataset.read_image` or `dataset.of_array` gives it.
        """

    def _merging(self, networks: Networks, release: str) -> Merging:
        """How the graph of a prediction merges regions, with the codes of a release."""
        regions = {name: self.dataset.regions[name] for name in regions_of(networks)}
        nesting = self.dataset.nesting
        codes = sorted({nesting.get(name, codes[0]) for name, codes in regions.items()})
        on_disk = self.dataset.codes_on_disk(np.array(codes, np.uint8), release)
        return Merging(regions, nesting, dict(zip(codes, map(int, on_disk))))

    @abstractmethod
    def predict(self, networks: Networks, case: StoredCase) -> Any:
        """The prediction for a case, in the form that `write` and `score` take."""

    @abstractmethod
    def write(self, path: Path, prediction: Any, case: StoredCase) -> None:
        """Write the label map of a prediction atomically.

        Args:
            path: ends in `dataset.suffix`.
            prediction: from `predict`.
            case: the predicted case.
        """

    @abstractmethod
    def score(self, prediction: Any, case: StoredCase) -> list[dict[str, Any]]:
        """One row of scores for each region that the recipe trains for."""

    def score_maps(self, maps: Mapping[str, np.ndarray], case: StoredCase) -> "Scored":
        """Score the prediction that follows from probabilities, given as to `label_map`."""
        predicted = self.label_map(maps, case)
        return Scored(predicted, self.score(predicted, case))

    @abstractmethod
    def overlay(
        self, path: Path, case: StoredCase, *, title: str, dice: Mapping[str, float]
    ) -> tuple[Figure, str]:
        """The figure of a case with the label map that `write` wrote to `path`, and its caption."""

    def _own_split(self, sides: Mapping[str, str], cases: Sequence[Case]) -> Split:
        """The data set's own split, which has a test side if the recipe wants one."""
        given = splits.assign("the data set's own split", sides, cases)
        wanted = self.recipe.data.test
        if wanted and not given.test:
            raise ValueError(
                f"data.test: found {wanted}, but the data set's own split has no test "
                "cases, expected some. Name them in its column split, or give data.test=0."
            )
        return given

"""The task for two-dimensional images: the network sees whole images, resized."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_medseg.data import datasets
from keras_medseg.data.batches.images import ImageBatches
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets.base import Dataset
from keras_medseg.data.formats import image_files
from keras_medseg.data.store import Reader, Store, StoredCase
from keras_medseg.data.transforms import resize
from keras_medseg.data.transforms.images import Preparation, fit_preparation
from keras_medseg.evaluation.scores import score_probabilities
from keras_medseg.inference import scan_plan
from keras_medseg.inference.flips import mirrored_mean
from keras_medseg.inference.outputs import THRESHOLD, by_region, check_maps, most_likely
from keras_medseg.recipe import Images
from keras_medseg.reporting.figures import images as figures
from keras_medseg.tasks.base import Maps, Networks, Scored, Targets, Task

FURTHER_METRICS = (
    "cross_entropy", "mae", "mae_mask", "brier", "ece", "mean_dice", "mean_iou", "weighted_f",
    "s_measure", "e_measure",
)  # fmt: skip
"""Metrics in addition to those of the data set: of probabilities, and the last of masks."""


class ImageTask(Task):
    """Batches of whole images; a prediction is {class: probabilities (H, W) float32}.

    `fit` measures mean and standard deviation of the training images if the normalization needs
    them.
    """

    axes = "xy"

    @property
    def settings(self) -> Images:
        """`recipe.data`."""
        data = self.recipe.data
        assert isinstance(data, Images)
        return data

    def _dataset(self) -> Dataset:
        return datasets.get(self.settings.dataset, classes=self.settings.classes)

    @property
    def reader(self) -> Reader:
        return partial(
            resize.read_resized,
            dataset=self.dataset,
            size=self.settings.size,
            fit=self.settings.fit,
        )

    def read_image(self, case: Case) -> CaseArrays:
        arrays = self.dataset.read_image(case)
        return resize.resized(arrays, self.settings.size, self.settings.fit)

    def read_array(self, image: np.ndarray, affine: np.ndarray) -> CaseArrays:
        arrays = self.dataset.of_array(image, affine)
        return resize.resized(arrays, self.settings.size, self.settings.fit)

    def channels(self, stored: int) -> int:
        return stored

    @property
    def split_way(self) -> str:
        return self.settings.split

    def fit(self, store: Store, case_ids: Sequence[str]) -> "ImageTask":
        preparation = fit_preparation(
            store,
            case_ids,
            self.settings.normalization,
            smoothing_px=self.settings.smoothing_px,
            equalization=self.settings.equalization,
        )
        mean, std = preparation.mean, preparation.std
        numbers = {} if mean is None or std is None else {"mean": [*mean], "std": [*std]}
        return ImageTask(self.recipe, numbers)

    @property
    def preparation(self) -> Preparation:
        """The preparation of the intensities of every image.

        Raises:
            ValueError: before `fit`, if the normalization needs the training images.
        """
        mean, std = (self.fitted.get(name) for name in ("mean", "std"))
        if self.settings.normalization != "mean_std_per_image" and mean is None:
            raise ValueError(
                f"data.normalization: found {self.settings.normalization!r} without mean and "
                "deviation of the training images, expected a task that was fitted. Call fit first."
            )
        return Preparation(
            self.settings.smoothing_px,
            self.settings.equalization,
            None if mean is None else tuple(mean),
            None if std is None else tuple(std),
        )

    def _batches(
        self, store: Store, case_ids: Sequence[str], targets: Targets, *, training: bool
    ) -> ImageBatches:
        return ImageBatches(
            store,
            case_ids,
            targets,
            preparation=self.preparation,
            size=self.settings.size,
            batch_size=self.recipe.train.batch_size,
            seed=self.recipe.train.seed,
            flips=self.settings.flips if training else (),
            brightness=self.settings.brightness if training else 0.0,
            shuffle=training,
        )

    def probabilities(
        self, networks: Networks, case: StoredCase, *, flips: str | None = None
    ) -> Maps:
        image = self.preparation.apply(case.pixels)[None]
        axes = [1 + self.axes.index(name) for name in flips or ""]
        maps: Maps = {}
        for regions, network in networks.items():
            predicted = mirrored_mean(network.predict_on_batch, image, axes)
            check_maps(predicted, image.shape[:3], case.id)
            maps |= by_region(regions, predicted[0])
        return maps

    def scan_inputs(self, arrays: CaseArrays) -> dict[str, np.ndarray]:
        return {"image": np.moveaxis(arrays.image[:, :, 0], 2, 0)[None]}

    def scan_graph(self, networks: Networks, release: str) -> scan_plan.ScanGraph:
        settings, preparation = self.settings, self.preparation
        channels = next(iter(networks.values())).input_shape[-1]
        merging = self._merging(networks, release)
        rows, columns = settings.size
        steps = {
            "size": f"{settings.fit} to {rows} x {columns} pixels (keras_medseg.data.transforms."
            "resize); bilinear with antialiasing, rounded to 8 bits as Pillow does",
            "preparation": _words(preparation),
            "networks": "the whole image at once",
            "merging": scan_plan.merging_words(networks, merging),
            "grid": "labels by the nearest pixel, probabilities bilinear, at the size of the image",
        }
        return scan_plan.ScanGraph(
            networks,
            scan_plan.ImagePlan(settings.size, settings.fit, preparation, merging),
            (scan_plan.Input("image", (None, channels, None, None), "uint8"),),
            ("rows", "columns"),
            trial_shape=(rows + 11, columns + 30),
            inside=tuple(scan_plan.Step(*step) for step in steps.items()),
        )

    def predict(self, networks: Networks, case: StoredCase) -> Maps:
        return self.probabilities(networks, case)

    def on_own_grid(self, maps: Mapping[str, np.ndarray], case: StoredCase) -> Maps:
        size, fit = case.source_shape[:2], self.settings.fit
        return {name: resize.restore_map(values, size, fit) for name, values in maps.items()}

    def label_map(
        self, maps: Mapping[str, np.ndarray], case: StoredCase, *, threshold: float = THRESHOLD
    ) -> np.ndarray:
        labels = most_likely(maps, self.dataset.regions, threshold=threshold)
        return resize.restore(labels, case.source_shape[:2], self.settings.fit)[..., None]

    def score_maps(self, maps: Mapping[str, np.ndarray], case: StoredCase) -> Scored:
        """Score probabilities at the size of the network's input."""
        return Scored(maps, self.score(maps, case))

    def write(self, path: Path, prediction: Mapping[str, np.ndarray], case: StoredCase) -> None:
        """Write the label map at the size of the network's input, at which it is scored."""
        labels = most_likely(prediction, self.dataset.regions, threshold=THRESHOLD)
        self.dataset.write_labels(path, labels[..., None], case)

    def score(self, prediction: Mapping[str, np.ndarray], case: StoredCase) -> list[dict[str, Any]]:
        """Score at the size of the network's input, as the papers do."""
        return score_probabilities(
            np.stack(list(prediction.values()), axis=-1),
            case.mask,
            {name: self.dataset.regions[name] for name in prediction},
            metrics=(*self.dataset.metrics, *FURTHER_METRICS),
            threshold=THRESHOLD,
        )

    def overlay(
        self, path: Path, case: StoredCase, *, title: str, dice: Mapping[str, float]
    ) -> tuple[Figure, str]:
        drawn = figures.image_overlay(
            case.pixels,
            case.mask > 0,
            image_files.read_mask(path).pixels[..., 0] > 0,
            title=title,
            dice=dice,
        )
        return drawn, "outlines of annotation and prediction."


def _words(preparation: Preparation) -> str:
    """What is done to the intensities of an image, in words."""
    words = []
    if preparation.smoothing_px:
        sigma = f"a Gaussian filter of {preparation.smoothing_px:g} pixels"
        words.append(f"{sigma}, rounded to 8 bits")
    if preparation.equalization:
        words.append("the histogram of each channel equalized")
    if preparation.mean and preparation.std:
        mean, std = ([round(n, 6) for n in part] for part in (preparation.mean, preparation.std))
        words.append(f"divided by 255, minus {mean}, divided by {std}")
    else:
        words.append("divided by 255, minus the mean of each channel, divided by its deviation")
    return "; ".join(words)

"""What the tasks for volumes share: channels by name, label maps on the full grid, overlays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_medseg.data import datasets
from keras_medseg.data.cases import CaseArrays
from keras_medseg.data.datasets.base import Dataset
from keras_medseg.data.store import Reader, StoredCase
from keras_medseg.data.transforms.resample import resample_labels, resample_map
from keras_medseg.errors import require_choice
from keras_medseg.evaluation.scores import Rules, score_labels
from keras_medseg.inference import outputs
from keras_medseg.inference.postprocess import drop_small_components
from keras_medseg.inference.scan_plan import ORIENTATION, OWN_ORIENTATION, Step
from keras_medseg.recipe import Images
from keras_medseg.reporting.figures import volumes as figures
from keras_medseg.tasks.base import Maps, Networks, Task


class VolumeTask(Task):
    """A task whose prediction is one label map, (X, Y, Z) uint8 canonical codes, LPS.

    Attributes:
        modalities: names of the network's input channels, in their order.
    """

    def __init__(self, recipe: Any, fitted: Mapping[str, Any] | None = None) -> None:
        super().__init__(recipe, fitted)
        self.modalities = recipe.data.modalities or self.dataset.channels
        if not self.modalities:
            raise ValueError(
                "data.options: found no channels, expected those of the data set. Give the folder "
                "of the cases, whose files name them, or --set data.options.channels=..."
            )
        for name in self.modalities:
            require_choice("data.modalities", name, self.dataset.channels)
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"data.modalities: found {self.modalities}, expected each once.")

    def _dataset(self) -> Dataset:
        data = self.recipe.data
        assert not isinstance(data, Images)
        return datasets.get(data.dataset, **data.options)

    @property
    def reader(self) -> Reader:
        return self.dataset.read

    @property
    def channel_indices(self) -> tuple[int, ...]:
        """Indices of the channels of a case that the network sees, in their order."""
        return tuple(self.dataset.channels.index(name) for name in self.modalities)

    def channels(self, stored: int) -> int:
        return len(self.modalities)

    def scan_inputs(self, arrays: CaseArrays) -> dict[str, np.ndarray]:
        seen = arrays.image[..., self.channel_indices].astype(np.float32)
        return {"image": np.moveaxis(seen, 3, 0)[None]}

    def _steps_around(self) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
        """What a caller does before and after the graph of a volume, see `scan_plan.ScanGraph`."""
        before, after = [ORIENTATION], [OWN_ORIENTATION]
        if smallest := self.recipe.predict.smallest_component:
            how = (
                "connected components (26 neighbors, whatever their labels) of less than "
                f"{smallest:g} of the voxels of the largest one become 0"
            )
            after.insert(0, Step("components", how))
        if sizes := self.dataset.spacing_mm:
            how = (
                f"resample the image to voxels of {' x '.join(f'{mm:g}' for mm in sizes)} mm over "
                "the same box: cubic splines, clipped to the range of the non-zero voxels, 0 where "
                "more than half is background (keras_medseg.data.transforms.resample)"
            )
            before.append(Step("resampling", how))
            how = "bring the label map back to the grid of the file (resample_labels there)"
            after.insert(-1, Step("resampling", how))
        return tuple(before), tuple(after)

    def predict(self, networks: Networks, case: StoredCase) -> np.ndarray:
        """(X, Y, Z) uint8 label map of a case, after postprocessing.

        It has the grid of the case's own files, also if the store has resampled them.
        """
        return self.label_map(self.probabilities(networks, case), case)

    def on_own_grid(self, maps: Mapping[str, np.ndarray], case: StoredCase) -> Maps:
        return {name: resample_map(values, case.source_shape) for name, values in maps.items()}

    def label_map(
        self,
        maps: Mapping[str, np.ndarray],
        case: StoredCase,
        *,
        threshold: float = outputs.THRESHOLD,
    ) -> np.ndarray:
        labels = self._merged(maps, threshold)
        labels = drop_small_components(labels, self.recipe.predict.smallest_component)
        return resample_labels(labels, case.source_shape)

    def _merged(self, maps: Mapping[str, np.ndarray], threshold: float) -> np.ndarray:
        """The label map of some maps, in their shape."""
        regions, nesting = self.dataset.regions, self.dataset.nesting
        if nesting:
            return outputs.merge_regions(maps, regions, nesting, threshold=threshold)
        return outputs.most_likely(maps, regions, threshold=threshold)

    def write(self, path: Path, prediction: np.ndarray, case: StoredCase) -> None:
        self.dataset.write_labels(path, prediction, case)

    def score(self, prediction: np.ndarray, case: StoredCase) -> list[dict[str, Any]]:
        return score_labels(
            prediction,
            case.own_labels(),
            {name: self.dataset.regions[name] for name in self.regions},
            metrics=self.dataset.metrics,
            spacing=case.own_spacing_mm,
            elements=self.dataset.elements,
            rules=Rules(self.dataset.lesion_rule(case)),
        )

    def overlay(
        self, path: Path, case: StoredCase, *, title: str, dice: Mapping[str, float]
    ) -> tuple[Figure, str]:
        image = case.full_image()
        drawn = figures.volume_overlay(
            {name: image[..., self.dataset.channels.index(name)] for name in self._backgrounds()},
            case.full_labels(),
            resample_labels(self.dataset.read_labels(path, case), case.full_shape),
            labels=self.dataset.labels,
            regions=self.dataset.regions,
            title=title,
            dice=dice,
            spacing_mm=case.spacing_mm,
        )
        return drawn, "the slice with the largest annotated object."

    def _backgrounds(self) -> tuple[str, ...]:
        """FLAIR if the network sees it, otherwise the first modality; and T1ce if it sees that."""
        first = "flair" if "flair" in self.modalities else self.modalities[0]
        return tuple(dict.fromkeys((first, *(name for name in self.modalities if name == "t1ce"))))

"""The task for volumes in patches: 3-D crops in training, a sliding window in prediction."""

from collections.abc import Iterator, Sequence
from typing import cast

import keras
import numpy as np

from keras_medseg.data.batches.crop_slices import CropSliceBatches
from keras_medseg.data.batches.patches import PatchBatches
from keras_medseg.data.cases import CaseArrays
from keras_medseg.data.store import Store, StoredCase
from keras_medseg.data.transforms import volumes
from keras_medseg.inference import scan_plan
from keras_medseg.inference.outputs import by_region
from keras_medseg.inference.sliding_window import predict_volume
from keras_medseg.recipe import Patches
from keras_medseg.tasks.base import Maps, Networks, Targets
from keras_medseg.tasks.volumes import VolumeTask
from keras_medseg.training.augmented_model import AugmentedModel

# Of all windows in a batch: more takes memory, fewer takes calls. A window of 128x128x128 is alone.
_VOXELS_AT_ONCE = 64**3


class PatchTask(VolumeTask):
    """Batches of crops, one per case and epoch; a volume is predicted by overlapping windows.

    With `data.slices` the network is 2-D, and crops and windows are its slices one by one.
    """

    @property
    def settings(self) -> Patches:
        """`recipe.data`."""
        data = self.recipe.data
        assert isinstance(data, Patches)
        return data

    def _batches(
        self, store: Store, case_ids: Sequence[str], targets: Targets, *, training: bool
    ) -> PatchBatches:
        kind = CropSliceBatches if self.settings.slices else PatchBatches
        return kind(
            store,
            case_ids,
            targets,
            patch=self.settings.patch,
            batch_size=self.recipe.train.batch_size,
            normalization=self.settings.normalization,
            seed=self.recipe.train.seed,
            foreground_probability=self.settings.foreground_probability,
            augmentation=self.settings.augmentation if training else {},
            crops=self.settings.crops if training else "center",
            augment=not self.settings.augment_on_device,
            channels=self.channel_indices,
            shuffle=training,
        )

    def wrap(self, model: keras.Model) -> keras.Model:
        """With `augment_on_device`, a model that augments its crops within the training step."""
        if not self.settings.augment_on_device:
            return model
        return AugmentedModel(model, self.settings.augmentation)

    def probabilities(
        self, networks: Networks, case: StoredCase, *, flips: str | None = None
    ) -> Maps:
        if flips is None:
            flips = self.axes if self.settings.test_time_flips else ""
        volume = volumes.read_volume(case, self.settings.normalization, self.channel_indices)
        maps: Maps = {}
        x, y, z = self.settings.patch
        for regions, network in networks.items():
            predicted = predict_volume(
                cast(keras.Model, _OfSlices(network)) if self.settings.slices else network,
                volume,
                patch=(x, y, 1 if self.settings.slices else z),
                overlap=self.settings.overlap,
                batch_size=max(1, _VOXELS_AT_ONCE // (x * y * (1 if self.settings.slices else z))),
                flips=[self.axes.index(name) for name in flips],
            )
            maps |= by_region(regions, volumes.uncrop(predicted, case))
        return maps

    def scan_inputs(self, arrays: CaseArrays) -> dict[str, np.ndarray]:
        """As of a whole scan; where the network is 2-D, of its first slice."""
        inputs = super().scan_inputs(arrays)
        image = inputs["image"]
        if self.settings.slices:
            inputs["image"] = image[..., 0]
        if self.settings.normalization == "none":
            return inputs
        channels = [values[values != 0].astype(np.float64) for values in image[0]]
        if self.settings.normalization == "z_score":
            pairs = [(values.mean(), values.std()) for values in channels]
        else:
            pairs = [(min(v.min(), 0), max(v.max(), 0) - min(v.min(), 0)) for v in channels]
        center, spread = np.array(pairs).T
        return {**inputs, "center": center[None], "spread": spread[None]}

    def scan_graph(self, networks: Networks, release: str) -> scan_plan.ScanGraph:
        settings, channels = self.settings, len(self.modalities)
        names = () if settings.normalization == "none" else ("center", "spread")
        numbers = tuple(scan_plan.Input(name, (None, channels), "float64") for name in names)
        size = settings.input_size
        image = scan_plan.Input("image", (None, channels, *size), "float32")
        before, after = self._steps_around()
        scaling = f"{scan_plan.NORMALIZATION.get(settings.normalization)} (center, spread)"
        return scan_plan.ScanGraph(
            networks,
            scan_plan.PatchPlan(settings.normalization),
            (image, *numbers),
            ("x", "y", "z")[: len(size)],
            trial_shape=(*size, 1)[:3],
            inside=(
                *((scan_plan.Step("normalization", scaling),) if names else ()),
                scan_plan.Step("networks", "probabilities of a patch"),
            ),
            before=(*before, *self._steps_to_patches(names)),
            after=(*self._steps_from_patches(self._merging(networks, release), networks), *after),
        )

    def _steps_to_patches(self, names: Sequence[str]) -> Iterator[scan_plan.Step]:
        settings = self.settings
        x, y, z = settings.patch
        yield scan_plan.Step(
            "box", "crop the scan to the box outside which all channels of the case are 0"
        )
        if names:
            how = (
                "mean and standard deviation of the non-zero voxels of each channel of the scan"
                if settings.normalization == "z_score"
                else "smallest value, and largest minus smallest, of each channel, 0 among them"
            )
            yield scan_plan.Step("center, spread", f"{how}, in float64")
        how = (
            f"patches of {x} x {y} x {1 if settings.slices else z} voxels that overlap by "
            f"{settings.overlap:g} along each axis (keras_medseg.inference.sliding_window); a box "
            "that is smaller is padded on both sides with what is 0 after normalization"
        )
        yield scan_plan.Step("sliding window", how)

    def _steps_from_patches(
        self, merging: scan_plan.Merging, networks: Networks
    ) -> Iterator[scan_plan.Step]:
        how = (
            "the mean of overlapping patches, weighted by a Gaussian whose standard deviation is "
            "an eighth of the patch along each axis (0.001 at least)"
        )
        yield scan_plan.Step("sliding window", how)
        if self.settings.test_time_flips:
            how = "the mean over the box mirrored along every set of x, y and z, mirrored back"
            yield scan_plan.Step("mirrors", how)
        yield scan_plan.Step("merging", scan_plan.merging_words(networks, merging))
        yield scan_plan.Step("box", "put the box back into the grid; 0 outside")


class _OfSlices:
    """A 2-D network as one for patches of a single axial slice."""

    def __init__(self, network: keras.Model) -> None:
        self.network = network

    def predict_on_batch(self, patches: np.ndarray) -> np.ndarray:
        """(N, X, Y, 1, C) -> (N, X, Y, 1, R)."""
        return np.asarray(self.network.predict_on_batch(patches[:, :, :, 0]))[:, :, :, None]

"""The task for volumes in patches: 3-D crops in training, a sliding window in prediction."""

from collections.abc import Sequence
from typing import cast

import keras
import numpy as np

from keras_medseg.data.batches.crop_slices import CropSliceBatches
from keras_medseg.data.batches.patches import PatchBatches
from keras_medseg.data.store import Store, StoredCase
from keras_medseg.data.transforms import volumes
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


class _OfSlices:
    """A 2-D network as one for patches of a single axial slice."""

    def __init__(self, network: keras.Model) -> None:
        self.network = network

    def predict_on_batch(self, patches: np.ndarray) -> np.ndarray:
        """(N, X, Y, 1, C) -> (N, X, Y, 1, R)."""
        return np.asarray(self.network.predict_on_batch(patches[:, :, :, 0]))[:, :, :, None]

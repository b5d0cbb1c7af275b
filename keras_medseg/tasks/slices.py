"""The task for volumes in slices: 2-D networks see axial slices of a center window."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_medseg.data.batches.slices import SliceBatches
from keras_medseg.data.store import Store, StoredCase
from keras_medseg.data.transforms import volumes
from keras_medseg.data.transforms.resample import resample_labels
from keras_medseg.evaluation.metrics import dice
from keras_medseg.inference import scan_plan
from keras_medseg.inference.flips import mirrored_mean
from keras_medseg.inference.outputs import THRESHOLD, by_region, check_maps
from keras_medseg.recipe import Slices
from keras_medseg.tasks.base import Maps, Networks, Scored, Targets
from keras_medseg.tasks.volumes import VolumeTask


class SliceTask(VolumeTask):
    """Batches of axial slices; a volume is predicted slice by slice.

    Outside the window the label map is background, so objects there are missed.
    """

    @property
    def settings(self) -> Slices:
        """`recipe.data`."""
        data = self.recipe.data
        assert isinstance(data, Slices)
        return data

    def _batches(
        self, store: Store, case_ids: Sequence[str], targets: Targets, *, training: bool
    ) -> SliceBatches:
        return SliceBatches(
            store,
            case_ids,
            targets,
            window=self.settings.window,
            batch_size=self.recipe.train.batch_size,
            normalization=self.settings.normalization,
            seed=self.recipe.train.seed,
            flips=self.settings.flips if training else (),
            slice_step=self.settings.slice_step,
            channels=self.channel_indices,
            shuffle=training,
        )

    def probabilities(
        self, networks: Networks, case: StoredCase, *, flips: str | None = None
    ) -> Maps:
        maps: Maps = {}
        for regions, network in networks.items():
            window = self.predict_window(network, case, flips or "")
            maps |= by_region(regions, volumes.paste(window, case.full_shape))
        return maps

    def scan_graph(self, networks: Networks, release: str) -> scan_plan.ScanGraph:
        settings = self.settings
        merging = self._merging(networks, release)
        size = " x ".join(map(str, settings.window))
        steps = {
            "window": f"the center {size} voxels of the scan, padded with 0",
            "normalization": scan_plan.NORMALIZATION.get(settings.normalization, ""),
            "networks": f"axial slices of the window, {self.recipe.train.batch_size} at a time",
            "merging": scan_plan.merging_words(networks, merging),
            "grid": "probabilities and labels on the grid of the scan, 0 outside the window",
        }
        before, after = self._steps_around()
        width, height, depth = settings.window
        return scan_plan.ScanGraph(
            networks,
            scan_plan.SlicePlan(
                settings.window, settings.normalization, self.recipe.train.batch_size, merging
            ),
            (scan_plan.Input("image", (None, len(self.modalities), *[None] * 3), "float32"),),
            ("x", "y", "z"),
            trial_shape=(width + 5, max(height - 3, 1), depth + 3),
            inside=tuple(scan_plan.Step(*step) for step in steps.items() if step[1]),
            before=before,
            after=after,
        )

    def score_maps(self, maps: Mapping[str, np.ndarray], case: StoredCase) -> Scored:
        """Score the prediction that follows from probabilities, given as to `label_map`.

        Where regions are nested, the further rows have `dice_alone`: the Dice of the voxels where
        the region's own network has a probability above 1/2, before the maps are merged and
        postprocessed.
        """
        predicted = self.label_map(maps, case)
        truth, further = case.own_labels(), []
        for region, found in maps.items() if self.dataset.nesting else ():
            alone = resample_labels((found > THRESHOLD).astype(np.uint8), case.source_shape)
            true = np.isin(truth, list(self.dataset.regions[region]))
            further.append({"region": region, "dice_alone": dice(alone.astype(bool), true)})
        return Scored(predicted, self.score(predicted, case), further)

    def predict_window(self, network: keras.Model, case: StoredCase, flips: str = "") -> np.ndarray:
        """Probabilities of a network for every slice of the center window.

        Slices are read as in training, without augmentation. Every batch has the recipe's
        `batch_size` slices, so that a network is compiled once: the last batch is filled up with
        slices whose result is dropped. The batch size does not change the result.

        Args:
            network: (N, H, W, C) -> (N, H, W, R) with H = x and W = y.
            case: of the store.
            flips: as in `probabilities`.

        Returns:
            (x, y, z, R) float32.

        Raises:
            ValueError: the output has another shape or is not finite.
        """
        batch_size = self.recipe.train.batch_size
        width, height, depth = self.settings.window
        scaling = self._scaling(case)
        axes = [1 + "xy".index(name) for name in flips if name in "xy"]
        batch = np.zeros((batch_size, width, height, len(scaling.channels)), np.float32)
        parts = []
        for start in range(0, depth, batch_size):
            count = min(batch_size, depth - start)
            for i in range(count):
                volumes.read_slice(case, start + i, self.settings.window, scaling, batch[i])
            predicted = mirrored_mean(network.predict_on_batch, batch, axes)
            check_maps(predicted, batch.shape[:3], case.id)
            parts.append(np.moveaxis(predicted[:count], 0, 2))
        return np.concatenate(parts, axis=2, dtype=np.float32)

    def predict_slice(self, network: keras.Model, case: StoredCase, z: int) -> np.ndarray:
        """Probabilities of a network for one axial slice of the full grid; 0 outside the window.

        Args:
            network: as in `predict_window`; several outputs are concatenated.
            case: of the store.
            z: index of the slice, which must lie within the window.

        Returns:
            (X, Y, R) float32.
        """
        window = self.settings.window
        first = volumes.window_origin(case.full_shape, window)[2]
        scaling = self._scaling(case)
        image = np.zeros((1, *window[:2], len(scaling.channels)), np.float32)
        volumes.read_slice(case, z - first, window, scaling, image[0])
        predicted = network.predict_on_batch(image)
        outputs = predicted if isinstance(predicted, list | tuple) else [predicted]
        maps = np.concatenate([np.asarray(output)[0] for output in outputs], axis=-1)
        return volumes.paste(maps, case.full_shape[:2])

    def _scaling(self, case: StoredCase) -> volumes.Scaling:
        settings = self.settings
        return volumes.slice_scaling(
            case, settings.normalization, settings.window, self.channel_indices
        )

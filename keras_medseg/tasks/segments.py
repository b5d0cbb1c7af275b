"""The task for networks of exclusive classes: segments drawn by class, volumes in tiles.

A target is a class: a label of the data set ("NCR"), "rest" for all voxels of no other class of its
task, or "outside" for those of the rest where the image is 0. Tasks after the first have their
number behind the name ("ET_3"). The tasks of a network are its targets and, of further tasks, its
auxiliary outputs, as in OM-Net; a cascade as MC has a network for each.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import keras
import numpy as np

from keras_medseg import registry
from keras_medseg.data.batches.segments import INSIDE, OUTSIDE, Kind, SegmentBatches
from keras_medseg.data.datasets.base import Codes
from keras_medseg.data.store import Store, StoredCase
from keras_medseg.data.transforms import volumes
from keras_medseg.errors import require_choice
from keras_medseg.inference.outputs import THRESHOLD
from keras_medseg.inference.scan_plan import ScanGraph
from keras_medseg.inference.sliding_window import predict_volume
from keras_medseg.recipe import Segments
from keras_medseg.tasks.base import Maps, Networks, Targets
from keras_medseg.tasks.volumes import VolumeTask
from keras_medseg.training import fit

REST = "rest"


class SegmentTask(VolumeTask):
    """Batches of segments; a volume is predicted in tiles.

    The maps of a case are those of the data set's nested regions. One task gives all of them, and
    the label map has the most likely class of each voxel. Of several tasks the first gives the
    outermost region, the second the next one, and the label map is merged from these, so that each
    counts within the one before.
    """

    needs_auxiliary = True

    def _check_targets(self) -> None:
        recipe, count = self.recipe, len(self.settings.centers)
        targets = [*(name for names in recipe.model.targets for name in names)]
        for name in (*targets, *recipe.model.auxiliary):
            label, task = _parsed(name)
            known = (REST, OUTSIDE, *self.dataset.targets)
            require_choice("model.targets, auxiliary: class", label, known)
            numbers = [str(number) for number in range(1, count + 1)]
            require_choice(f"model.targets: task of {name}", str(task), numbers)
        for task in range(1, count + 1):
            self._check_classes(task)
        codes = [set(self.dataset.regions[name]) for name in self.regions]
        if any(not inner < outer for outer, inner in pairwise(codes)):
            raise ValueError(
                f"data.dataset: found the regions {', '.join(self.regions)}, expected each within "
                "the one before, as WT, TC and ET of BraTS."
            )
        if count > 1 and count != len(self.regions):
            raise ValueError(
                f"data.centers: found {count} tasks, expected 1 or {len(self.regions)}, one for "
                f"each of {', '.join(self.regions)}."
            )
        for weights in self.settings.centers:
            for name in weights:
                require_choice("data.centers", name, (REST, *self.dataset.targets))

    def _check_classes(self, task: int) -> None:
        labels = [label for label in self._classes(task) if label not in (REST, OUTSIDE)]
        codes = [code for label in labels for code in self.dataset.targets[label]]
        if len(codes) != len(set(codes)) or REST not in self._classes(task):
            raise ValueError(
                f"model.targets: found the classes {', '.join(self._classes(task)) or 'none'} in "
                f"task {task}, expected rest and labels that exclude each other."
            )

    @property
    def settings(self) -> Segments:
        """`recipe.data`."""
        data = self.recipe.data
        assert isinstance(data, Segments)
        return data

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(self.dataset.nesting) or tuple(self.dataset.regions)

    def batches(
        self, store: Store, case_ids: Sequence[str], regions: Sequence[str], *, training: bool
    ) -> SegmentBatches:
        names = (*regions, *self.recipe.model.auxiliary)
        targets = tuple((name, self._codes(name)) for name in names)
        return self._batches(store, case_ids, targets, training=training)

    def _batches(
        self, store: Store, case_ids: Sequence[str], targets: Targets, *, training: bool
    ) -> SegmentBatches:
        settings = self.settings
        tasks = [_parsed(name)[1] for name, _ in targets]
        order = list(dict.fromkeys(tasks))
        return SegmentBatches(
            store,
            case_ids,
            targets,
            segment=settings.segment,
            normalization=settings.normalization,
            centers=[self._kinds(settings.centers[task - 1]) for task in order],
            sizes=tuple(tasks.count(task) for task in order),
            sides=tuple(self._side(name) for name, _ in targets),
            segments_per_case=settings.segments_per_case,
            batch_size=self.recipe.train.batch_size,
            seed=self.recipe.train.seed,
            margin=settings.margin,
            transfer=settings.transfer,
            stages=settings.stages if training else (),
            flips=settings.flips if training else (),
            channels=self.channel_indices,
            shuffle=training,
        )

    def probabilities(
        self, networks: Networks, case: StoredCase, *, flips: str | None = None
    ) -> Maps:
        volume = volumes.read_volume(case, self.settings.normalization, self.channel_indices)
        size = self.settings.tile or self.settings.segment
        channels: dict[str, np.ndarray] = {}
        for targets, network in networks.items():
            predicted = predict_volume(
                self._tiled(network, len(targets)),
                volume,
                patch=size,
                overlap=self.settings.overlap,
                flips=[self.axes.index(name) for name in flips or ""],
                margin=self.settings.margin,
            )
            names = (*targets, *self.recipe.model.auxiliary)
            channels |= dict(zip(names, np.moveaxis(predicted, -1, 0)))
        return {
            region: volumes.uncrop(self._of_region(region, task, channels), case)
            for task, region in enumerate(self.regions, 1)
        }

    def scan_graph(self, networks: Networks, release: str) -> ScanGraph:
        """Refused.

        Raises:
            ValueError: always; no graph has the tiles and classes of this task.
        """
        raise ValueError(
            "data.task: found Segments, expected Slices, Patches or Images, which a graph of scans "
            "can have. Export one network (its model.keras) alone, or use keras-medseg predict."
        )

    def _of_region(self, region: str, task: int, channels: Mapping[str, np.ndarray]) -> np.ndarray:
        """The probability of a region: the sum over its classes of the task that gives it."""
        codes = self.dataset.regions[region]
        task = min(task, len(self.settings.centers))
        own = [
            values
            for name, values in channels.items()
            if _parsed(name)[1] == task and set(self._codes(name)) <= set(codes)
        ]
        return np.asarray(np.sum(own, axis=0, dtype=np.float32))

    def _merged(self, maps: Mapping[str, np.ndarray], threshold: float) -> np.ndarray:
        if len(self.settings.centers) > 1 or threshold != THRESHOLD:
            return super()._merged(maps, threshold)
        # What is in a region and in none within it: the classes, whose probabilities were added.
        names = [name for name in self.regions if name in maps]
        inner = [*(maps[name] for name in names[1:]), np.float32(0)]
        classes = [maps[name] - within for name, within in zip(names, inner)]
        classes.insert(0, 1 - maps[names[0]])
        regions, nesting = self.dataset.regions, self.dataset.nesting
        codes = [0, *(nesting.get(name, regions[name][0]) for name in names)]
        return np.array(codes, np.uint8)[np.argmax(classes, axis=0)]

    def _tiled(self, network: keras.Model, classes: int) -> keras.Model:
        """The network for tiles, with all of its outputs as one."""
        size = self.settings.tile or self.settings.segment
        read = tuple(length + 2 * self.settings.margin for length in size)
        if id(network) not in self._for_tiles:
            tiled = network
            if network.input_shape[1:-1] not in (read, (None, None, None)):
                with fit.precision(_policy(network)):
                    tiled = registry.build(
                        self.recipe.model.name,
                        input_shape=(*read, network.input_shape[-1]),
                        classes=classes,
                        **self.recipe.model.options,
                    )
                tiled.set_weights(network.get_weights())
            if len(tiled.outputs) > 1:
                joined = keras.layers.Concatenate(dtype="float32")(tiled.outputs)
                tiled = keras.Model(tiled.input, joined)
            # Kept together, so that the id stays that of this network.
            self._for_tiles[id(network)] = (network, tiled)
        return self._for_tiles[id(network)][1]

    @cached_property
    def _for_tiles(self) -> dict[int, tuple[keras.Model, keras.Model]]:
        """By the id of a network: it, and the one for tiles."""
        return {}

    def _classes(self, task: int) -> list[str]:
        """The classes of a task, without its number."""
        model = self.recipe.model
        names = [*(name for names in model.targets for name in names), *model.auxiliary]
        return [_parsed(name)[0] for name in names if _parsed(name)[1] == task]

    def _codes(self, name: str) -> Codes:
        """The label codes of a class."""
        label, task = _parsed(name)
        if label not in (REST, OUTSIDE):
            return self.dataset.targets[label]
        named = [other for other in self._classes(task) if other not in (REST, OUTSIDE)]
        taken = {code for other in named for code in self.dataset.targets[other]}
        free = {0, *self.dataset.labels} - taken
        return (0,) if label == OUTSIDE else tuple(sorted(free))

    def _side(self, name: str) -> str:
        """What a class is confined to, where its task has a class for what is outside."""
        label, task = _parsed(name)
        if OUTSIDE not in self._classes(task):
            return ""
        return {OUTSIDE: OUTSIDE, REST: INSIDE}.get(label, "")

    def _kinds(self, weights: Mapping[str, float]) -> list[tuple[Kind, float]]:
        """The middle voxels of a task, by their label codes."""
        return [
            (() if name == REST else self.dataset.targets[name], weight)
            for name, weight in weights.items()
        ]


def _policy(network: keras.Model) -> str:
    """The dtype policy in which a network computes: that of its first convolution."""
    [first, *_] = [layer for layer in network.layers if hasattr(layer, "kernel")]
    return str(first.dtype_policy.name)


def _parsed(name: str) -> tuple[str, int]:
    """The class and the task of a target: ("ET", 3) of "ET_3", ("ET", 1) of "ET"."""
    label, _, task = name.rpartition("_")
    return (label, int(task)) if label and task.isdecimal() else (name, 1)

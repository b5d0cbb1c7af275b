"""A prediction as a TensorFlow function, and the two file formats of it."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_medseg.errors import require_choice
from keras_medseg.inference import graph_transforms as transforms
from keras_medseg.inference.outputs import main_output
from keras_medseg.inference.scan_plan import (
    LABELS,
    PROBABILITIES,
    ImagePlan,
    Merging,
    Networks,
    PatchPlan,
    ScanGraph,
    SlicePlan,
    regions_of,
)

SAVEDMODEL, ONNX = "savedmodel", "onnx"
FILES = {SAVEDMODEL: "1", ONNX: "model.onnx"}
"""Format -> what lies in the folder of an export. TensorFlow Serving takes the folder as a model
whose version is 1."""

Arrays = Mapping[str, np.ndarray]
Outputs = dict[str, tf.Tensor]


def function_of(graph: ScanGraph) -> Callable[..., Outputs]:
    """The inputs of a graph, in their order -> LABELS, (N, 1, *axes) uint8, and PROBABILITIES.

    The probabilities are (N, R, *axes) float32. Patches have no labels.
    """
    plan = graph.plan
    if isinstance(plan, SlicePlan):
        return partial(_of_slices, graph.networks, plan)
    if isinstance(plan, ImagePlan):
        return partial(_of_images, graph.networks, plan)
    return partial(_of_patches, graph.networks, plan)


def _of_slices(networks: Networks, plan: SlicePlan, image: tf.Tensor) -> Outputs:
    """Of (N, C, X, Y, Z) float32, as `SliceTask` predicts it."""
    (width, height, depth), channels = plan.window, image.shape[1]
    place = transforms.placement(tf.shape(image)[2:], plan.window, of_window=True)
    inside = tf.ensure_shape(transforms.framed(image, place), (None, channels, *plan.window))
    if plan.normalization != "none":
        kind = "z_score" if plan.normalization == "z_score" else "min_max"
        measured = inside if plan.normalization == "window_min_max" else image
        inside = transforms.scaled(inside, *transforms.center_and_spread(measured, kind), kind)
    slices = tf.reshape(tf.transpose(inside, (0, 4, 2, 3, 1)), (-1, width, height, channels))
    count = tf.shape(slices)[0]
    # Whole batches, as `predict` has them: kernels may round by the size of a batch.
    # The remainder of a negative number is another one in ONNX.
    missing = (plan.batch_size - count % plan.batch_size) % plan.batch_size
    slices = tf.pad(slices, [[0, missing], [0, 0], [0, 0], [0, 0]])
    batches = tf.reshape(slices, (-1, plan.batch_size, width, height, channels))
    found = tf.map_fn(
        _all_of(networks), batches, fn_output_signature=tf.float32, parallel_iterations=1
    )
    found = tf.reshape(found, (-1, width, height, found.shape[-1]))[:count]
    found = tf.reshape(found, (-1, depth, width, height, found.shape[-1]))
    maps = transforms.unframed(tf.transpose(found, (0, 4, 2, 3, 1)), place)
    return {LABELS: _labels(maps, networks, plan.merging), PROBABILITIES: maps}


def _of_patches(
    networks: Networks, plan: PatchPlan, image: tf.Tensor, *numbers: tf.Tensor
) -> Outputs:
    """Of (N, C, *axes) float32 and, unless nothing is normalized, center and spread (N, C)."""
    if numbers:
        image = transforms.scaled(image, numbers[0], numbers[1], plan.normalization)
    return {PROBABILITIES: _channels_first(_all_of(networks)(_channels_last(image)))}


def _of_images(networks: Networks, plan: ImagePlan, image: tf.Tensor) -> Outputs:
    """Of (N, C, H, W) uint8, as `ImageTask` predicts it."""
    full = tf.shape(image)[2:]
    between = transforms.scaled_size(full, plan.size, plan.fit)
    place = transforms.placement(between, plan.size, of_window=False)
    pixels = transforms.resized_pixels(tf.cast(image, tf.float64), between)
    pixels = tf.ensure_shape(transforms.framed(pixels, place), (None, image.shape[1], *plan.size))
    values = transforms.prepared(pixels, plan.size, plan.preparation)
    maps = _channels_first(_all_of(networks)(_channels_last(values)))
    # As int32: ONNX Runtime gathers and pads no uint8 everywhere.
    labels = tf.cast(_labels(maps, networks, plan.merging), tf.int32)
    labels = transforms.resized_labels(transforms.unframed(labels, place), full)
    own = transforms.resized_map(transforms.unframed(maps, place), full)
    return {LABELS: tf.cast(labels, tf.uint8), PROBABILITIES: own}


def _all_of(networks: Networks) -> Callable[[tf.Tensor], tf.Tensor]:
    """(N, *axes, C) -> (N, *axes, R), the regions in the order of `regions_of`."""
    main = [(names, main_output(network)) for names, network in networks.items()]

    def run(batch: tf.Tensor) -> tf.Tensor:
        maps: dict[str, tf.Tensor] = {}
        for names, network in main:
            found = tf.cast(network(batch, training=False), tf.float32)
            # A region of two networks has the map of the later one, as in the tasks.
            maps |= dict(zip(names, tf.unstack(found, num=len(names), axis=-1)))
        return tf.stack([maps[name] for name in regions_of(networks)], -1)

    return run


def _labels(maps: tf.Tensor, networks: Networks, merging: Merging) -> tf.Tensor:
    """(N, 1, *axes) uint8 from (N, R, *axes)."""
    by_region = {name: maps[:, channel] for channel, name in enumerate(regions_of(networks))}
    return transforms.label_map(by_region, *merging)[:, None]


def _channels_last(image: tf.Tensor) -> tf.Tensor:
    return tf.transpose(image, (0, *range(2, image.shape.rank), 1))


def _channels_first(maps: tf.Tensor) -> tf.Tensor:
    return tf.transpose(maps, (0, maps.shape.rank - 1, *range(1, maps.shape.rank - 1)))


class _Served(keras.Model):
    """A graph in the form that Keras exports."""

    def __init__(self, graph: ScanGraph) -> None:
        super().__init__(name="scan")
        self._networks = list(graph.networks.values())
        self._function = function_of(graph)
        self.built = True

    def call(self, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._function(*tensors)


def write_graph(graph: ScanGraph, folder: Path, format: str) -> Path:
    """Write a graph into a folder, under the name in FILES.

    Raises:
        ValueError: an unknown format, or another backend of Keras than TensorFlow.
        ImportError: the packages for ONNX are not installed.
    """
    require_choice("format", format, FILES)
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"KERAS_BACKEND: found {keras.backend.backend()!r}, expected 'tensorflow', of which "
            "the graph is made."
        )
    path = folder / FILES[format]
    served = _Served(graph)
    signature = [tf.TensorSpec(*one[1:], one.name) for one in graph.inputs]
    if format == ONNX:
        served.export(str(path), format="onnx", input_signature=signature, verbose=False)
        return path
    archive = keras.export.ExportArchive()
    archive.track(served)
    # The only endpoint is also the signature "serving_default", which TensorFlow Serving calls.
    archive.add_endpoint("serve", served.call, signature)
    archive.write_out(str(path), verbose=False)
    return path


def open_graph(path: Path) -> Callable[[Arrays], dict[str, np.ndarray]]:
    """A written graph as a function of {input: array}, as another program would run it."""
    if path.is_dir():
        loaded = tf.saved_model.load(str(path))

        def serve(arrays: Arrays) -> dict[str, np.ndarray]:
            tensors = {name: tf.constant(array) for name, array in arrays.items()}
            found: dict[str, Any] = loaded.signatures["serving_default"](**tensors)
            return {name: tensor.numpy() for name, tensor in found.items()}

        return serve
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda arrays: dict(zip(names, session.run(None, dict(arrays))))

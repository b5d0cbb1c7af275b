"""Export a trained network for use without this package, and compare it with the original."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_medseg.errors import require_choice

if TYPE_CHECKING:
    import keras

TOLERANCE = 3e-4


def export(model: Path, out: Path, format: str = "savedmodel") -> str:
    """Export `model.keras` and compare the outputs of the result with the original's.

    Args:
        model: path of the model.keras of a trained network.
        out: folder of the SavedModel, or the .onnx file.
        format: "savedmodel", or "onnx" (needs `pip install keras_medseg[export]`).

    Returns:
        One line with the largest difference on a batch of noise.

    Raises:
        DataError: the file is missing or damaged.
        ValueError, ImportError: as `export_network`.
    """
    from keras_medseg.inference.outputs import load_network

    return export_network(load_network(model), out, format)


def export_network(network: "keras.Model", out: Path, format: str = "savedmodel") -> str:
    """Export a network and compare the outputs of the result with its own.

    The exported network takes normalized images (N, H, W, C), as `data/transforms/` makes them, or
    volumes (N, X, Y, Z, C) if the network is three-dimensional. Auxiliary outputs are left out.

    The largest difference must not exceed TOLERANCE times the largest magnitude of the original
    output. The tolerance is relative because the same rounding error is 150 times as large in
    logits that reach 150 as in probabilities. ONNX Runtime sums in another order than TensorFlow:
    the difference is 3e-7 to 3e-6 in the narrow networks of tests/models/test_all_models.py, 1e-5
    in Swin-Unet, whose layer norms divide by small deviations, and 8e-6 to 1.7e-4 in OM-Net with
    attention, whose normalization divides by small sums. A batch norm with the epsilon of another
    framework (1e-3 instead of 1e-5, variance 1) would differ by 5e-4.

    Args:
        network: the network.
        out: folder of the SavedModel, or the .onnx file.
        format: "savedmodel", or "onnx" (needs `pip install keras_medseg[export]`).

    Returns:
        One line with the largest difference on a batch of noise.

    Raises:
        ValueError: the format is unknown, or the exported network computes something else.
        ImportError: the packages for ONNX are not installed.
    """
    import keras

    from keras_medseg.inference.outputs import main_output

    require_choice("format", format, FORMATS)
    network = main_output(network)
    # Two samples, to detect a batch size that was fixed by the export.
    batch = np.random.default_rng(0).standard_normal((2, *network.input_shape[1:]), np.float32)
    expected = keras.ops.convert_to_numpy(network(batch, training=False))
    write, run = FORMATS[format]
    write(network, out)
    found = run(out, batch)
    if found.shape != expected.shape:
        raise ValueError(f"{out}: found an output {found.shape}, expected {expected.shape}.")
    difference, largest = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    if not difference <= TOLERANCE * largest:
        raise ValueError(
            f"{out}: found a difference of {difference:.3g}, expected at most {TOLERANCE} times "
            f"the largest output, {largest:.3g}. Report it, with the model file."
        )
    return f"{out}: {format}, largest difference {difference:.2g} where outputs reach {largest:.2g}"


def _write_savedmodel(network: "keras.Model", out: Path) -> None:
    import keras

    # network.export() also writes every layer beside the graph: twice the size, twice the time.
    archive = keras.export.ExportArchive()
    signature = [keras.InputSpec(shape=network.input_shape, dtype=network.inputs[0].dtype)]
    archive.add_endpoint("serve", lambda x: network(x, training=False), signature)
    archive.write_out(str(out), verbose=False)


def _run_savedmodel(out: Path, batch: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(out))  # kept in a variable: it owns the weights
    return loaded.serve(batch).numpy()


def _write_onnx(network: "keras.Model", out: Path) -> None:
    network.export(str(out), format="onnx", verbose=False)


def _run_onnx(out: Path, batch: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


FORMATS = {
    "savedmodel": (_write_savedmodel, _run_savedmodel),
    "onnx": (_write_onnx, _run_onnx),
}

import keras
import numpy as np
import pytest

from keras_medseg import registry
from keras_medseg.inference import export

SCALE = 1000.0


@pytest.fixture
def model(tmp_path):
    """SCALE times the image, so that outputs reach thousands, as logits can."""
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 1)])
    network.set_weights([np.full((1, 1, 1, 1), SCALE, "float32"), np.zeros(1, "float32")])
    network.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


@pytest.fixture
def exported_as(monkeypatch):
    """What the exported network seems to put out, as a function of the batch."""

    def use(run):
        write, _ = export.FORMATS["savedmodel"]
        monkeypatch.setitem(export.FORMATS, "savedmodel", (write, lambda out, batch: run(batch)))

    return use


@pytest.mark.slow
@pytest.mark.parametrize("format", export.FORMATS)
def test_auxiliary_outputs_are_left_out(tmp_path, format):
    network = registry.build("mtds_r2unet", input_shape=(16, 16, 4), filters=4)
    assert len(network.outputs) == 4
    network.save(tmp_path / "model.keras")
    export.export(tmp_path / "model.keras", tmp_path / "exported", format)
    batch = np.random.default_rng(1).random((3, 16, 16, 4), "float32")
    _, run = export.FORMATS[format]
    main = keras.ops.convert_to_numpy(network(batch, training=False)[0])
    np.testing.assert_allclose(run(tmp_path / "exported", batch), main, atol=1e-5)


def test_the_difference_is_measured_in_parts_of_the_largest_output(model, tmp_path, exported_as):
    """Of a thousand and more, 0.05 is within the tolerance and 5 % is not."""
    exported_as(lambda batch: SCALE * batch + 0.05)
    line = export.export(model, tmp_path / "saved")
    assert "savedmodel, largest difference 0.05 where outputs reach" in line
    exported_as(lambda batch: SCALE * batch * 1.05)
    with pytest.raises(ValueError, match=r"expected at most 0\.0003 times the largest output"):
        export.export(model, tmp_path / "saved")


@pytest.mark.parametrize("wrong", [lambda y: y[:1], lambda y: y[..., 0], lambda y: y * np.nan])
def test_another_shape_or_no_number_is_refused(model, tmp_path, exported_as, wrong):
    exported_as(lambda batch: wrong(SCALE * batch))
    with pytest.raises(ValueError, match="found"):
        export.export(model, tmp_path / "saved")


def test_an_unknown_format_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="savedmodel, onnx"):
        export.export(model, tmp_path / "x", "onyx")

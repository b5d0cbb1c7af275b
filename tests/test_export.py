import keras
import numpy as np
import pytest

from keras_medseg import export, registry


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    registry.build("residual_attention_unet", input_shape=(16, 16, 4), filters=4).save(path)
    return path


def test_savedmodel_computes_the_same(model, tmp_path):
    assert "largest difference" in export.export(model, tmp_path / "saved", "savedmodel")


def test_onnx_computes_the_same(model, tmp_path):
    for package in ("tf2onnx", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    assert "largest difference" in export.export(model, tmp_path / "model.onnx", "onnx")


def test_auxiliary_outputs_are_left_out(tmp_path):
    network = registry.build("mtds_r2unet", input_shape=(16, 16, 4), filters=4)
    network.save(tmp_path / "model.keras")
    assert "largest difference" in export.export(tmp_path / "model.keras", tmp_path / "saved")


def test_another_result_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        export, "_run_savedmodel", lambda out, batch: np.zeros((1, 16, 16, 1), np.float32)
    )
    with pytest.raises(ValueError, match=r"expected 0\.0001"):
        export.export(model, tmp_path / "saved", "savedmodel")


def test_an_unknown_format_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="savedmodel"):
        export.export(model, tmp_path / "x", "onyx")


def test_the_model_file_opens_with_keras_alone(model):
    assert keras.saving.load_model(model, compile=False).output_shape == (None, 16, 16, 1)

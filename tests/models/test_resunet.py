"""Zhang, Liu, Wang 2018: the parameters that the article counts."""

import math

import pytest

from keras_medseg import registry


def test_parameters():
    model = registry.build("resunet")
    # Without shortcuts, biases and norms these are the 7.8 M of the article.
    kernels = {weight.path: weight for weight in model.weights if weight.path.endswith("kernel")}
    main = [weight.shape for path, weight in kernels.items() if "shortcut" not in path]
    assert sum(h * w * c * f for h, w, c, f in main) == 7_780_096
    assert len(kernels) - len(main) == 7
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == 8_220_993
    # Units of strides 1, 2, 2, the bridge of 2, and back: table I for 224 pixels.
    for name, size, width in [
        ("Stem", 224, 64),
        ("Encode1", 112, 128),
        ("Encode2", 56, 256),
        ("Bridge", 28, 512),
        ("Decode1", 56, 256),
        ("Decode2", 112, 128),
        ("Decode3", 224, 64),
    ]:
        assert model.get_layer(f"{name}_add").output.shape[1:] == (size, size, width)


def test_unknown_shortcut_is_refused():
    with pytest.raises(ValueError, match="shortcut: found '1', expected one of: 1x1, 3x3"):
        registry.build("resunet", shortcut="1")

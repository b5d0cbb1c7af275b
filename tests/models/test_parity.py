"""The same weights in our networks and in their originals give the same outputs."""

import keras
import numpy as np
import pytest

from keras_medseg import registry
from keras_medseg.porting import load_state_dict

# Golden -> network and the options that make it the original.
GOLDENS = {
    "unet": ("unet", {}),
    "attention_unet": ("attention_unet", {}),
    "r2unet_t2": ("r2unet", {"t": 2}),
    "r2attention_unet_t2": ("r2attention_unet", {"t": 2}),
    "resunet_3x3_shortcut": (
        "resunet",
        {"shortcut": "3x3", "upsampling": "transposed_conv", "framework": "pytorch"},
    ),
    "resunetpp_torch": ("resunetpp", {"framework": "pytorch", "activation": "linear"}),
    "unext": ("unext", {}),
    "swin_unet": ("swin_unet", {}),
    "swin_unet_small": (
        "swin_unet",
        {"classes": 2, "filters": 24, "heads": (3, 6, 12, 24), "window": 4},
    ),
    "frunet": ("frunet", {}),
    "pspnet50": ("pspnet", {}),
    "fmnet": ("fmnet", {"activation": "linear"}),
    "fmnet_unet3d": (
        "fmnet",
        {
            "attention": False,
            "bottleneck_blocks": 0,
            "supervision_heads": 0,
            "activation": "linear",
        },
    ),
    "oktay_attention_unet": ("oktay_attention_unet", {}),
    "mc_5class": ("mc_fusionnet", {}),
    "mc_2class": ("mc_fusionnet", {"classes": 2, "task": 3}),
    "omnet": ("omnet", {}),
    "omnet_cga": ("omnet", {"attention": "cga"}),
    "deepmedic_segments": ("deepmedic", {"form": "segments"}),
    "deepmedic_image": ("deepmedic", {"form": "valid"}),
    "dltk_resnetfcn": ("dltk_resnetfcn", {}),
    "dltk_resunet": ("dltk_resunet", {}),
    "cunet_unofficial": ("cunet", {}),
    "nvidia_unet_small": ("nvidia_unet", {"levels": 4, "filters": 16}),
    "nvidia_unet_2d_small": ("nvidia_unet", {"dimensions": 2, "levels": 4, "filters": 16}),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_output_is_the_originals(name, read_golden):
    golden, (network, options) = read_golden(name), GOLDENS[name]
    images = golden.images()
    model = registry.build(network, input_shape=images[0].shape[1:], **options)
    load_state_dict(model, golden.state_dict())
    outputs = keras.tree.flatten(model(images if images[1:] else images[0], training=False))
    assert max(golden.errors([keras.ops.convert_to_numpy(y) for y in outputs])) <= 1
    called = sum(
        int(np.prod(shape))
        for key, shape in golden.keys
        if not key.endswith(("running_mean", "running_var"))
        and not key.startswith(tuple(f"{module}." for module in golden.never_called))
    )
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == called


def test_every_card_that_claims_a_golden_has_one():
    proven = {network for network, _ in GOLDENS.values()}
    claimed = {name for name in registry.list_models() if registry.card(name).parity == "golden"}
    assert claimed <= proven

"""Residual-attention U-Net of the DCABES 2020 paper; Table I, section II."""

import keras
from keras import layers

from keras_medseg import stacks
from keras_medseg.layers.attention import cbam
from keras_medseg.layers.convolution import conv, conv_bn_relu
from keras_medseg.layers.residual import RESIDUAL_BLOCKS
from keras_medseg.layers.resampling import down, require_multiple, up
from keras_medseg.registry import Card, register


@register(
    Card(
        name="residual_attention_unet",
        paper="dcabes2020",
        title="residual-attention U-Net with CBAM on the skips",
        input_shape=(176, 176, 4),
        parameters=570_265,
        dimensions=2,
        output="sigmoid",
        source="DCABES 2020, Table I and section II, doi 10.1109/DCABES50732.2020.00048",
        parity="count",
        compared_in=("dcabes2020",),
    )
)
def residual_attention_unet(
    input_shape: tuple[int | None, int | None, int] = (176, 176, 4),
    classes: int = 1,
    residual_block: str = "separable",
    attention: bool = True,
    filters: int = 32,
    downsampling: str = "max_pool",
    upsampling: str | None = None,
    stack: str | stacks.Stack = "keras_2_2",
) -> keras.Model:
    require_multiple(input_shape, 16)
    stack = stacks.get(stack)
    upsampling = upsampling or stack.upsampling
    residual = RESIDUAL_BLOCKS[residual_block]

    def encode(x, width, number):
        x = down(x, downsampling, stack=stack, name=f"Down{number}")
        return residual(x, width, stack=stack, name=f"ResBlock{number}")

    def join(x, skip, number):
        x = up(x, upsampling, stack=stack, name=f"Up{number}")
        if attention:
            skip = cbam(skip, stack=stack, name=f"CBAM{number}")
        return layers.Concatenate(name=f"Concat{number}")([x, skip])

    image = keras.Input(input_shape, name="Input")
    c = conv_bn_relu(image, filters, 3, stack=stack, name="Conv1")
    r1 = encode(c, filters, 1)
    r2 = encode(r1, 2 * filters, 2)
    r3 = encode(r2, 4 * filters, 3)
    r4 = encode(r3, 8 * filters, 4)
    x = residual(r4, 8 * filters, stack=stack, name="ResBlock5")
    x = residual(join(x, r3, 6), 8 * filters, stack=stack, name="ResBlock6")
    x = residual(join(x, r2, 7), 4 * filters, stack=stack, name="ResBlock7")
    x = residual(join(x, r1, 8), 2 * filters, stack=stack, name="ResBlock8")
    x = conv_bn_relu(join(x, c, 9), filters, 3, stack=stack, name="Conv2")
    x = conv(x, classes, 1, stack=stack, name="Output", activation="sigmoid", dtype="float32")
    return keras.Model(image, x, name="residual_attention_unet")

"""U-Net++ of Zhou, Siddiquee, Tajbakhsh, Liang 2018 (DLMIA, arXiv 1807.10165), figure 1.

The network of the authors' Keras code: node X(i, j) lies on level i and takes the one below it,
transposed-convolved, and all earlier nodes of its level. No norms; Dropout and an L2 penalty
instead. The article prints 9.04 M parameters, as counted there: one input channel, one head.
"""

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.resampling import require_multiple, transposed_conv
from keras_medseg.registry import Card, register

LEVELS = 5


@register(
    Card(
        name="unetpp",
        paper="zhou2018",
        title="U-Net++, nested U-Nets with dense skips",
        input_shape=(96, 96, 1),
        parameters=9_041_601,
        dimensions=2,
        output="sigmoid",
        source="MrGiovanni/UNetPlusPlus, keras/segmentation_models, Nest_Net",
        parity="count",
        compared_in=("csam_knee",),
        notes="Follows the authors' Keras code: no norms; Dropout and an L2 penalty instead. The "
        "article's 9.04 M parameters are its, with one input channel and one head.",
    )
)
def unetpp(
    input_shape: tuple[int | None, int | None, int] = (96, 96, 1),
    classes: int = 1,
    deep_supervision: bool = False,
    filters: int = 32,
    dropout: float = 0.5,
    l2: float = 1e-4,
    activation: str = "sigmoid",
    stack: str | frameworks.Stack = "keras_2_2",
) -> keras.Model:
    """Probabilities (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); H and W divisible by 16, or None for any such size.
        classes: output channels.
        deep_supervision: whether X(0, 1) to X(0, 4) have a head each; then there are four outputs.
        filters: channels of the first level; 32 grow to 512 at the bottom.
        dropout: share of the values set to zero after every convolution of a node.
        l2: weight of the penalty on the kernels of nodes and heads.
        activation: of the outputs; "sigmoid", "softmax", or "linear" for logits.
        stack: name of the framework whose silent defaults apply, or a Stack.

    Raises:
        ValueError: H or W not divisible by 16; the message gives the next valid shape.
    """
    require_multiple(input_shape, 2 ** (LEVELS - 1))
    stack = frameworks.get(stack)

    def penalised(x, width, size, name, **options):
        options |= dict(
            kernel_initializer="he_normal", kernel_regularizer=keras.regularizers.L2(l2)
        )
        return conv(x, width, size, stack=stack, name=name, **options)

    def node(x, width, name):
        for part in ("conv1", "conv2"):
            x = penalised(x, width, 3, f"{name}_{part}", activation="relu")
            x = layers.Dropout(dropout, name=f"{name}_{part}_dropout")(x)
        return x

    image = keras.Input(input_shape, name="Input")
    nodes = {}
    for level in range(LEVELS):
        below = layers.MaxPooling2D(2, name=f"Down{level}")(nodes[level - 1, 0]) if level else image
        nodes[level, 0] = node(below, 2**level * filters, f"X{level}0")
    for column in range(1, LEVELS):
        for level in range(LEVELS - column):
            name, width = f"X{level}{column}", 2**level * filters
            raised = transposed_conv(
                nodes[level + 1, column - 1], width, stack=stack, name=f"{name}_up"
            )
            earlier = [nodes[level, before] for before in range(column)]
            joined = layers.Concatenate(name=f"{name}_concat")([raised, *earlier])
            nodes[level, column] = node(joined, width, name)
    head = dict(activation=activation, dtype="float32")
    columns = range(1 if deep_supervision else LEVELS - 1, LEVELS)
    outputs = [penalised(nodes[0, j], classes, 1, f"Output{j}", **head) for j in columns]
    return keras.Model(image, outputs if deep_supervision else outputs[0], name="unetpp")

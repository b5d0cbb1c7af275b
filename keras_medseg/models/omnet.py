"""OM-Net, one network for the three tasks of MC, without or with cross-task guided attention.

Zhou, Ding, Wang, Lu, Tao 2020 (IEEE Transactions on Image Processing, arXiv 1906.01796), as in the
prototxts of their repository. The tasks share the 3-D FusionNet (`_fusionnet.py`) and have a head
each: 1 the tumor, coarse, 2 its classes, 3 the enhancing tumor.

With attention="cga", the heads of tasks 2 and 3 are guided by the output of the task before:

    p = softmax(scores of the task before), without gradient
    P1 = p of the classes of the tumor (task 2) or its core (task 3), P0 = p of the others
    m_k = sum over the voxels of P_k F, one number per channel of F;   m_k /= sum |m_k|
    scores = conv(P0 conv(F m_0) + P1 conv(F m_1)), all 1x1x1 with bias

Classes: 1, 2 and 3 are tumor, 1 and 3 its core, 3 is enhancing; 0 and 4 are neither.
"""

from collections.abc import Sequence
from functools import partial, reduce
from operator import add

import keras
from keras import layers, ops

from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.resampling import require_multiple
from keras_medseg.models._fusionnet import FUSIONNET_NAMES, LEVELS, fusionnet, head, of_caffe
from keras_medseg.registry import Card, register

CLASSES = 5
TUMOR, CORE = (1, 2, 3), (1, 3)
ORIGINAL_NAMES = FUSIONNET_NAMES | {
    "Task1_complete": "score_complete_xin",
    "Task2_outside": "score_core_fei_tumor",
    "Task2_inside": "score_core_tumor",
    "Task2_final": "score_core_final",
    "Task3_outside": "score_enh_fei_core",
    "Task3_inside": "score_enh_core",
    "Task3_final": "score_enh_final",
}


@register(
    Card(
        name="omnet",
        paper="zhou2020",
        title="3-D FusionNet with a head for each of three tasks, or guided attention",
        input_shape=(16, 32, 32, 4),
        parameters=13_886_868,
        moving_statistics=7_656,
        dimensions=3,
        output="logits",
        source="chenhong-zhou/OM-Net, OM_Net_deploy.prototxt, OM_Net_CGA_deploy.prototxt",
        parity="golden",
        compared_in=("dcabes2020",),
        notes="Outputs: tasks 1, 2, 3. Caffe did not run: the goldens are the prototxts' layers "
        "with the semantics of BVLC Caffe, re-stated in PyTorch. Inferred: attention='cga' divides "
        "m by its sum over the channels; the layer L1MatrixNormalize was not released, and if it "
        "has the other axis, the outputs of tasks 2 and 3 are wrong. That of task 1 does not "
        "depend on it, nor does anything with attention=None.",
    )
)
def omnet(
    input_shape: tuple[int | None, int | None, int | None, int] = (16, 32, 32, 4),
    classes: int = CLASSES,
    attention: str | None = None,
    filters: int = 32,
    activation: str = "linear",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits of three tasks in float32 from patches (N, D, H, W, C).

    The outputs are a list of (N, D, H, W, classes) twice and (N, D, H, W, 2).

    Args:
        input_shape: (D, H, W, C), the original's order of axes; sizes divisible by 8, or None for
            any such size. The network treats the axes alike, so that (X, Y, Z, C) does as well.
        classes: of tasks 1 and 2; with attention the original's five, of which it knows the tumor.
        attention: None, or "cga" for cross-task guided attention in tasks 2 and 3.
        filters: channels of the first level; 32 grow to 256 at the bottom.
        activation: of the outputs; "linear" for the original's logits, "softmax", or "sigmoid".
        framework: name or FrameworkDefaults; prototxt and Caffe decide all that it would.

    Raises:
        ValueError: a size not divisible by 8 (the message gives the next valid shape), an unknown
            attention, or attention with other than five classes.
    """
    require_multiple(input_shape, 2 ** (LEVELS - 1), dimensions=3)
    if attention is not None:
        require_choice("attention", attention, ("cga",))
        if classes != CLASSES:
            raise ValueError(f"classes: found {classes}, expected {CLASSES} with attention.")
    framework = of_caffe(framework)
    image = keras.Input(input_shape, name="Input")
    features = fusionnet(image, filters, framework)
    heads = _guided_heads if attention else _separate_heads
    outputs = [
        layers.Activation(activation, dtype="float32", name=f"Task{task}")(scores)
        for task, scores in enumerate(heads(features, classes, framework), 1)
    ]
    return keras.Model(image, outputs, name="omnet")


def _separate_heads(
    features: keras.KerasTensor, classes: int, framework: FrameworkDefaults
) -> list[keras.KerasTensor]:
    """Logits of the three tasks, each with its own unit."""
    return [
        head(features, count, framework=framework, name=f"Task{task}", score="score")
        for task, count in enumerate((classes, classes, 2), 1)
    ]


def _guided_heads(
    features: keras.KerasTensor, classes: int, framework: FrameworkDefaults
) -> list[keras.KerasTensor]:
    """Logits of the three tasks, those of 2 and 3 guided by the task before."""
    guided = partial(_guided, features, framework=framework)
    first = head(features, classes, framework=framework, name="Task1", score="complete")
    second = guided(first, TUMOR, classes, name="Task2")
    return [first, second, guided(second, CORE, 2, name="Task3")]


def _guided(
    features: keras.KerasTensor,
    scores: keras.KerasTensor,
    region: Sequence[int],
    classes: int,
    *,
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """Logits (N, D, H, W, classes) from the two pathways, outside and inside the region.

    Args:
        features: (N, D, H, W, C).
        scores: (N, D, H, W, 5), logits of the task before.
        region: its classes.
        classes: of this task.
        framework: gives initializers.
        name: prefix of the layers.
    """
    p = ops.stop_gradient(ops.softmax(scores, axis=-1))
    others = [k for k in range(scores.shape[-1]) if k not in region]
    pathways = []
    for part, members in (("outside", others), ("inside", region)):
        probability = reduce(add, (p[..., k : k + 1] for k in members))
        y = features * _importance(features, probability, name=f"{name}_{part}")
        y = conv(y, classes, 1, framework=framework, name=f"{name}_{part}", dtype="float32")
        pathways.append(y * probability)
    y = layers.Add(name=f"{name}_add", dtype="float32")(pathways)
    return conv(y, classes, 1, framework=framework, name=f"{name}_final", dtype="float32")


def _importance(
    features: keras.KerasTensor, probability: keras.KerasTensor, *, name: str
) -> keras.KerasTensor:
    """m: how much each channel responds where the probability is high, in parts of all channels.

    A matrix product in float32, for float16 ends at 65,504 and there are thousands of voxels.
    (N, D, H, W, C) and (N, D, H, W, 1) -> (N, 1, 1, 1, C).
    """
    channels = features.shape[-1]
    voxels = layers.Reshape((-1, channels), dtype="float32", name=f"{name}_features")(features)
    weights = layers.Reshape((1, -1), dtype="float32", name=f"{name}_weights")(probability)
    m = ops.matmul(weights, voxels)
    # Features are not negative. Where all are 0, m stays 0.
    m = m / ops.maximum(ops.sum(ops.abs(m), axis=-1, keepdims=True), keras.config.epsilon())
    return layers.Reshape((1, 1, 1, channels), dtype="float32", name=f"{name}_importance")(m)

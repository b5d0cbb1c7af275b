"""One network of MC, the model cascade that OM-Net's paper compares itself with (3-D FusionNet).

Zhou, Ding, Wang, Lu, Tao 2020 (IEEE Transactions on Image Processing, arXiv 1906.01796). MC trains
an independent network for each of three tasks: 1 the tumor, coarse, 2 its classes, 3 the enhancing
tumor. The authors released no prototxt of it, but by their README each "task is implemented by an
independent basic network", and that is OM-Net with the head of one task.
"""

import keras
from keras import layers

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.resampling import require_multiple
from keras_medseg.models._fusionnet import FUSIONNET_NAMES, LEVELS, fusionnet, head, of_caffe
from keras_medseg.registry import Card, register

ORIGINAL_NAMES = FUSIONNET_NAMES


@register(
    Card(
        name="mc_fusionnet",
        paper="zhou2020",
        title="3-D FusionNet, one network of the model cascade MC",
        input_shape=(16, 32, 32, 4),
        parameters=13_831_019,
        moving_statistics=7_526,
        dimensions=3,
        output="logits",
        source="chenhong-zhou/OM-Net, OM_Net_deploy.prototxt with one head; arXiv 1906.01796",
        parity="golden",
        compared_in=("dcabes2020",),
        notes="Inferred: that a network of MC is OM-Net's with one head, from the authors' README; "
        "they released none. Caffe did not run: the golden is the prototxt's layers with the "
        "semantics of BVLC Caffe, re-stated in PyTorch. classes=2 is the network of task 3.",
    )
)
def mc_fusionnet(
    input_shape: tuple[int | None, int | None, int | None, int] = (16, 32, 32, 4),
    classes: int = 5,
    task: int = 1,
    filters: int = 32,
    activation: str = "linear",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits (N, D, H, W, classes) in float32 from patches (N, D, H, W, C).

    Args:
        input_shape: (D, H, W, C), the original's order of axes; sizes divisible by 8, or None for
            any such size. The network treats the axes alike, so that (X, Y, Z, C) does as well.
        classes: 5 in networks 1 and 2 of the cascade, 2 in network 3.
        task: 1, 2 or 3, whose head it is: the names of two layers.
        filters: channels of the first level; 32 grow to 256 at the bottom.
        activation: of the output; "linear" for the original's logits, "softmax", or "sigmoid".
        framework: name or FrameworkDefaults; prototxt and Caffe decide all that it would.

    Raises:
        ValueError: a size not divisible by 8 (the message gives the next valid shape), or a task
            that is not 1, 2 or 3.
    """
    require_multiple(input_shape, 2 ** (LEVELS - 1), dimensions=3)
    if task not in (1, 2, 3):
        raise ValueError(f"task: found {task!r}, expected 1, 2 or 3.")
    framework = of_caffe(framework)
    image = keras.Input(input_shape, name="Input")
    x = fusionnet(image, filters, framework)
    x = head(x, classes, framework=framework, name=f"Task{task}", score="score")
    x = layers.Activation(activation, dtype="float32", name="Output")(x)
    return keras.Model(image, x, name="mc_fusionnet")

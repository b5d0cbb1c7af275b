"""The methods of Table II as changes to the recipe: under their own recipes, and under one.

Each own recipe follows its authors' code as far as it is known; what is not known is chosen here,
and each choice has its entry in ledger.toml (rivals-..., emma-..., mc-..., omnet-..., cunet-...).

    mc          one network of the model cascade, because the row MC is MC1
    omnet       with cross-task guided attention and postprocessing, because the row is of a later
                variant than the ones of its first paper
    emma        two DeepMedics, three FCNs and two U-Nets, the mean of their probabilities
    cunet       an unofficial reading
    ..._same    one recipe for all: the same crops, voxels, loss, optimizer and epochs. 2-D networks
                see the slices of the crops
"""

from dataclasses import replace
from typing import Any

from keras_medseg.recipe import Changes, Model, Patches, Predict, Segments, Train

VALIDATION = 0.15
CLASSES = ("rest", "NCR", "ED", "ET")
OMNET_CLASSES = ("rest", "NCR", "ED", "ET", "outside")
OMNET_FURTHER = (*(f"{name}_2" for name in OMNET_CLASSES), "rest_3", "ET_3")
HALVES = {"rest": 0.5, "WT": 0.5}
EQUAL = {"rest": 0.25, "NCR": 0.25, "ED": 0.25, "ET": 0.25}
NESTED = (("WT", "TC", "ET"),)
CROSS_ENTROPY: dict[str, Any] = {
    "loss": "categorical_cross_entropy",
    "loss_options": {"from_logits": True},
}
DEEPMEDIC_WIDTHS = (30, 30, 40, 40, 40, 40, 50, 50)
STEPWISE: dict[str, Any] = {"schedule": "steps", "precision": "float32", "seed": 0}


def _segments(size: int, **options: Any) -> Segments:
    """Cubes, which EMMA's FCNs and U-Nets draw with equal probability for each label."""
    given: dict[str, Any] = {"centers": (EQUAL,), "segments_per_case": 8, "overlap": 0.5, **options}
    return Segments("brats", (size,) * 3, "z_score", validation=VALIDATION, **given)


def _deepmedic(widths: tuple[int, ...], fc_widths: tuple[int, int], size: int) -> Changes:
    """DeepMedic v0.6: 35 epochs of 20,000 segments, which are 83 of each of 242 cases.

    Args:
        widths: of the pathways.
        fc_widths: of the classifier.
        size: of the segments that are labeled: 16 less than those of the normal pathway.
    """
    schedule = {"after": (12, 16, 19, 22, 25, 28, 31, 34), "factor": 0.5}
    return {
        "data": _segments(
            size,
            centers=(HALVES,),
            segments_per_case=83,
            margin=24,
            flips=("x",),
            tile=(29, 29, 29),
            overlap=0.0,
        ),
        "model": Model(
            "deepmedic",
            (CLASSES,),
            {"form": "valid", "widths": widths, "fc_widths": fc_widths, "activation": "softmax"},
        ),
        "train": Train(
            epochs=35,
            batch_size=10,
            optimizer="rmsprop_deepmedic",
            learning_rate=1e-3,
            optimizer_options={"l1": 1e-6, "l2": 1e-4},
            schedule_options=schedule,
            **CROSS_ENTROPY,
            **STEPWISE,
        ),
        "predict": Predict(),
    }


def _member(name: str, size: int, train: Changes, **options: Any) -> Changes:
    """An FCN or U-Net of EMMA, whose epochs, batches and rates are not known."""
    settings: dict[str, Any] = {
        "epochs": 35,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "optimizer": "adam",
    }
    settings |= {
        "schedule": "constant",
        "precision": "float32",
        "seed": 0,
        **CROSS_ENTROPY,
        **train,
    }
    return {
        "data": _segments(size),
        "model": Model(name, (CLASSES,), {"activation": "softmax", **options}),
        "train": Train(**settings),
        "predict": Predict(),
    }


EMMA: dict[str, Changes] = {
    "emma_deepmedic": _deepmedic(DEEPMEDIC_WIDTHS, (150, 150), 9),
    "emma_deepmedic_wide": _deepmedic(tuple(2 * w for w in DEEPMEDIC_WIDTHS), (300, 300), 18),
    "emma_fcn": _member(
        "dltk_resnetfcn",
        64,
        {"loss": "soft_iou_loss", "loss_options": {}},
        widths=(16, 32, 64, 128, 256),
    ),
    "emma_fcn_residual": _member("dltk_resnetfcn", 80, {}, units=2),
    "emma_fcn_shallow": _member("dltk_resnetfcn", 80, {}, strides=(1, 2, 2, 1, 1), units=2),
    "emma_unet_sum": _member("mc_fusionnet", 64, {"optimizer": "adadelta", "learning_rate": 1.0}),
    "emma_unet_concat": _member("dltk_resunet", 64, {}),
}


def _caffe(batch_size: int, epochs: int, after: tuple[int, ...], loss: Changes) -> Train:
    """OM-Net's solver: 400,000 iterations, of which an epoch here has 2,000."""
    return Train(
        epochs=epochs,
        batch_size=batch_size,
        optimizer="sgd_caffe",
        learning_rate=1e-3,
        optimizer_options={"momentum": 0.99, "l2": 5e-4},
        schedule_options={"after": after, "factor": 0.5},
        **loss,
        **STEPWISE,
    )


MC: Changes = {
    "data": replace(_segments(32, centers=(HALVES,), segments_per_case=165), segment=(32, 32, 16)),
    "model": Model("mc_fusionnet", (OMNET_CLASSES,), {"activation": "softmax"}),
    "train": _caffe(20, 200, (40, 80, 120, 160), CROSS_ENTROPY),
    "predict": Predict(),
}
OMNET_CENTERS = (HALVES, {"WT": 1.0}, {"TC": 1.0})
OMNET: Changes = {
    "data": replace(
        _segments(32, centers=OMNET_CENTERS, segments_per_case=496, transfer=True, stages=(20, 40)),
        segment=(32, 32, 16),
    ),
    "model": Model(
        "omnet", (OMNET_CLASSES,), {"attention": "cga", "activation": "softmax"}, OMNET_FURTHER
    ),
    "train": _caffe(
        60,
        240,
        (80, 120, 160, 200),
        {
            "loss": "cross_entropy_by_task",
            "loss_options": {"classes": (5, 5, 2), "from_logits": True},
        },
    ),
    "predict": Predict(smallest_component=0.1),
}
CUNET: Changes = {
    "data": Patches("brats", (160, 192, 128), "z_score", 0.0, VALIDATION, overlap=0.5),
    "model": Model("cunet", NESTED, {"activation": "sigmoid"}),
    "train": Train(
        epochs=200,
        batch_size=1,
        optimizer="adam_l2",
        learning_rate=1e-4,
        optimizer_options={"l2": 1e-4},
        loss="cross_entropy_and_dice",
        loss_options={"output_weights": (1.0, 1.0, 1.0)},
        schedule="constant",
        precision="float32",
        seed=0,
    ),
    "predict": Predict(),
}
OWN: dict[str, Changes] = {"mc": MC, "omnet": OMNET, "cunet": CUNET, **EMMA}


PLANAR = ("ours_same", "unet_same", "attention_unet_same", "resunet_same")
NETWORKS = {
    "ours_same": "residual_attention_unet",
    "unet_same": "unet",
    "attention_unet_same": "attention_unet",
    "resunet_same": "resunet",
    "mc_same": "mc_fusionnet",
    "cunet_same": "cunet",
    "deepmedic_same": "deepmedic",
    "fcn_same": "dltk_resnetfcn",
    "unet3d_same": "dltk_resunet",
}
"""The networks under the one recipe; the first four see slices."""
ENSEMBLES = {
    "emma": tuple(EMMA),
    "emma_same": ("deepmedic_same", "fcn_same", "unet3d_same", "mc_same"),
}
IN_ONE_RECIPE = {
    "with_edge_loss": "ours_same",
    "unet": "unet_same",
    "attention_unet": "attention_unet_same",
    "resunet": "resunet_same",
    "mc": "mc_same",
    "cunet": "cunet_same",
    "emma": "emma_same",
}
"""Variant under its own recipe -> the one under the recipe of all."""
SAME_TRAIN = Train(
    epochs=20,
    batch_size=4,
    optimizer="sgd",
    learning_rate=0.005,
    loss="cross_entropy",
    schedule="plateau",
    schedule_options={"monitor": "val_dice", "factor": 0.1, "patience": 5},
    precision="float32",
    seed=0,
)


def one_recipe(own_options: Changes) -> dict[str, Changes]:
    """The networks of NETWORKS under one recipe: the paper's rate, and crops instead of slices.

    Four crops of 64 x 64 x 64 have about as many voxels as the paper's 32 slices of 176 x 176.

    Args:
        own_options: of the paper's own network.
    """
    changes: dict[str, Changes] = {}
    for variant, network in NETWORKS.items():
        options = own_options if variant == "ours_same" else {"activation": "sigmoid"}
        crops = Patches("brats", (64, 64, 64), "z_score", 0.5, VALIDATION, slices=variant in PLANAR)
        changes[variant] = {
            "data": crops,
            "model": Model(network, NESTED, dict(options)),
            "train": SAME_TRAIN,
            "predict": Predict(),
        }
    return changes


# What fits into 25 minutes on two CPU cores, on voxels of 2 mm: an eighth of every width
# (recipe.py has the paper's own network). Plain gradient descent and Caffe's hardly change the
# weights in so few steps, so the optimizer is Adam where it is not RMSProp or AdaDelta.
_ADAM: dict[str, Any] = {
    "train.optimizer": "adam",
    "train.optimizer_options": {},
    "train.learning_rate": 0.001,
}
_STEADY: dict[str, Any] = {"train.schedule": "constant", "train.schedule_options": {}}
_DENSE: dict[str, Any] = {"data.tile": (64, 64, 64), "data.overlap": 0.0}
_SMALL_CUBES: dict[str, Any] = {
    "data.segment": (32, 32, 32),
    "data.segments_per_case": 4,
    "train.epochs": 4,
    **_DENSE,
}
_SMALL_DEEPMEDIC: dict[str, Any] = {
    "data.segments_per_case": 10,
    "data.tile": (36, 36, 36),
    "train.epochs": 4,
    **_STEADY,
}
_NARROW = (4, 4, 5, 5, 5, 5, 6, 6)
_FCN: dict[str, Any] = {"model.options.widths": (4, 8, 16, 32, 64), "model.options.units": 1}
QUICK_OWN: dict[str, Changes] = {
    "mc": {
        "data.segments_per_case": 8,
        "model.options.filters": 4,
        "train.epochs": 6,
        "train.batch_size": 4,
        **_DENSE,
        **_ADAM,
        **_STEADY,
    },
    "omnet": {
        "data.segments_per_case": 12,
        "data.stages": (1, 2),
        "model.options.filters": 4,
        "train.epochs": 8,
        "train.batch_size": 6,
        **_DENSE,
        **_ADAM,
        **_STEADY,
    },
    "cunet": {
        "data.patch": (48, 48, 48),
        "data.overlap": 0.0,
        "model.options.filters": 3,
        "train.epochs": 6,
        "train.learning_rate": 0.003,
    },
    "emma_deepmedic": {
        **_SMALL_DEEPMEDIC,
        "model.options.widths": _NARROW,
        "model.options.fc_widths": (18, 18),
    },
    "emma_deepmedic_wide": {
        **_SMALL_DEEPMEDIC,
        "data.segments_per_case": 3,
        "train.batch_size": 4,
        "model.options.widths": tuple(2 * width for width in _NARROW),
        "model.options.fc_widths": (36, 36),
    },
    "emma_fcn": {**_SMALL_CUBES, **_FCN, "data.segments_per_case": 10},
    "emma_fcn_residual": {**_SMALL_CUBES, **_FCN, "data.segments_per_case": 10},
    "emma_fcn_shallow": {**_SMALL_CUBES, **_FCN, "data.segments_per_case": 10},
    "emma_unet_sum": {**_SMALL_CUBES, "model.options.filters": 4},
    "emma_unet_concat": {**_SMALL_CUBES, "model.options.widths": (4, 8, 16, 32)},
}
_SMALL_SAME: dict[str, Any] = {
    "data.patch": (64, 64, 16),
    "data.overlap": 0.0,
    "train.epochs": 10,
    "train.batch_size": 2,
    "train.optimizer": "adam",
    "train.learning_rate": 0.002,
    **_STEADY,
}
_SMALL_NETWORKS: dict[str, Changes] = {
    "ours_same": {"model.options.filters": 4},
    **{name: {"model.options.filters": 8} for name in PLANAR[1:]},
    "mc_same": {"model.options.filters": 4},
    "cunet_same": {"model.options.filters": 3},
    "deepmedic_same": {"model.options.widths": _NARROW, "model.options.fc_widths": (18, 18)},
    "fcn_same": _FCN,
    "unet3d_same": {"model.options.widths": (4, 8, 16, 32)},
}
QUICK_SAME = {name: {**_SMALL_SAME, **changes} for name, changes in _SMALL_NETWORKS.items()}

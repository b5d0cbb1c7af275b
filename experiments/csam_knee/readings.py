"""Other readings of the chosen entries, for `python -m experiments.sensitivity csam_knee`."""

from ..readings import Alternative, Readings

OPEN_READINGS = Readings(
    own="res_csam_unet",
    region="ligament",
    cases=240,
    size=None,
    small={
        "data.validation": 0.1,
        "data.test": 0.2,
        "data.size": (64, 64),
        "model.options.filters": 8,
        "model.options.norm": "batch",
        "train.batch_size": 8,
        "train.epochs": 30,
        "train.learning_rate": 1e-3,
        "train.schedule_options.after": (18,),
    },
    why_small=(
        "The rate is fifty times that of the paper, and the base has batch norm, which the recipe "
        "has not: without it so few steps find no ligament. So the row of the norm shows the "
        "recipe's own reading beside the base, and all others are changes of a network with the "
        "norm. There are 630 steps, because after 294 several alternatives had not found any "
        "ligament yet. The images have an eighth of the recipe's pixels a side, so 1 px of "
        "smoothing blurs more."
    ),
    alternatives={
        "no_norm": Alternative(
            ("norm",),
            "batch norm (not the recipe's)",
            "none (the recipe's)",
            {"model.options.norm": "none"},
        ),
        "literal": Alternative(
            ("decoder", "residual"),
            "consistent: two 3x3 convolutions a level, the sum around both",
            "literal: 1x1 in the encoder, one convolution a level, the sum around each",
            {"model.options.variant": "literal"},
        ),
        "csam_after_blocks": Alternative(
            ("csam-place",),
            "on the skips",
            "after every block",
            {"model.options.csam_place": "blocks"},
        ),
        "csam_in_decoder": Alternative(
            ("csam-place",),
            "on the skips",
            "after the decoder's blocks",
            {"model.options.csam_place": "decoder"},
        ),
        "ratio_4": Alternative(("ratio",), "16", "4", {"model.options.ratio": 4}),
        "smoothing_2_px": Alternative(("smoothing",), "1 px", "2 px", {"data.smoothing_px": 2.0}),
        "mean_std": Alternative(
            ("normalisation",),
            "divided by 255",
            "mean and standard deviation of the training images",
            {"data.normalization": "mean_std"},
        ),
        "flips": Alternative(
            ("augmentation",), "none", "mirrored along both axes", {"data.flips": ("x", "y")}
        ),
        "best_epoch": Alternative(
            ("last-weights",),
            "weights of the last epoch",
            "of the epoch with the lowest validation loss",
            {"train.keep": "best"},
        ),
    },
    not_varied={
        "classes": "the synthetic knees have one ligament, which is the class",
        "input-size": "the images are decoded another way, so scores would be of other masks",
        "split": "it says which images are scored, and all variants share those",
        "skips": "the code has no switch: skips are concatenated",
        "output": "a softmax of two classes is the same function of the difference of its logits",
        "one-output": "the network has no auxiliary output, and images have no postprocessing",
        "mae": "how an error is measured, not what is trained",
        "rivals": "which other networks are compared",
        "csam-effect": "an ablation, which the paper profile has as the variant without_csam",
        "precision": "the rounding of float32; TF32 exists on GPUs alone",
        "seed": "varied in every row: the spread between the seeds",
    },
)

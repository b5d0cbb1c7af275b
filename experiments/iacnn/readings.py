"""Other readings of the chosen entries, for `python -m experiments.sensitivity iacnn`."""

from ..readings import Alternative, Readings

OPEN_READINGS = Readings(
    own="iacnn",
    region="tumour",
    cases=320,
    size=None,
    small={
        "data.validation": 0.1,
        "data.test": 0.2,
        "data.size": (64, 64),
        "model.options.filters": 8,
        "train.batch_size": 8,
        "train.epochs": 10,
        "train.learning_rate": 1e-3,
    },
    why_small=(
        "The rate is ten times that of the paper, and the lowest maps have 2x2 pixels. The base "
        "has half of the recipe's filters: the row of the filters shows the recipe's own beside it."
    ),
    alternatives={
        "per_image": Alternative(
            ("normalisation",),
            "mean and standard deviation of the training images",
            "of each image",
            {"data.normalization": "mean_std_per_image"},
        ),
        "equalization": Alternative(
            ("conditioning",), "none", "histogram equalization", {"data.equalization": True}
        ),
        "filters_16": Alternative(
            ("filters",),
            "8 to 128 (not the recipe's)",
            "16 to 256 (the recipe's)",
            {"model.options.filters": 16},
        ),
        "sfa_on_stages": Alternative(
            ("sfa-place",), "at the bottom", "on every stage", {"model.options.sfa_place": "stages"}
        ),
        "sfa_on_skip": Alternative(
            ("sfa-place",),
            "at the bottom",
            "on the second skip",
            {"model.options.sfa_place": "skip"},
        ),
        "ca_after_skips": Alternative(
            ("attention-place",),
            "SA and CA on the skips",
            "CA after the concatenation",
            {"model.options.attention_place": "split"},
        ),
        "sa_over_channels": Alternative(
            ("sa-reading",),
            "x x^T over channels on the third stage, over pixels below",
            "over channels on all",
            {"model.options.spatial_reading": "channels"},
        ),
        "sa_over_pixels": Alternative(
            ("sa-reading",),
            "x x^T over channels on the third stage, over pixels below",
            "over pixels on all",
            {"model.options.spatial_reading": "positions"},
        ),
        "sa_over_rows": Alternative(
            ("sa-reading",),
            "x x^T over channels on the third stage, over pixels below",
            "over the rows of each map",
            {"model.options.spatial_reading": "rows"},
        ),
        "ratio_4": Alternative(("ratio",), "16", "4", {"model.options.ratio": 4}),
        "dice_by_image": Alternative(
            ("dice",), "sums over the batch", "image by image", {"train.loss_options.per": "sample"}
        ),
        "lambda_1": Alternative(
            ("dice",), "lambda 1e-7", "lambda 1", {"train.loss_options.smooth": 1.0}
        ),
        "falling_rate": Alternative(
            ("learning-rate",),
            "constant",
            "falling to 0, polynomial of power 0.9",
            {"train.schedule": "polynomial", "train.schedule_options": {"power": 0.9}},
        ),
        "best_epoch": Alternative(
            ("epochs",),
            "weights of the last epoch",
            "of the epoch with the lowest validation loss",
            {"train.keep": "best"},
        ),
    },
    not_varied={
        "split": "it says which frames are scored, and all variants share those",
        "stages": "the code has no switch: five halvings",
        "stage": "the code has no switch: the stage of U-Net",
        "skips": "the code has no switch: skips are concatenated",
        "output": "binary cross entropy needs a sigmoid",
        "one-output": "the network has no auxiliary output, and images have no postprocessing",
        "gains": "a contradiction between the paper's text and its table",
        "rivals": "which other networks are compared",
        "precision": "the rounding of float32; TF32 exists on GPUs alone",
        "seed": "varied in every row: the spread between the seeds",
    },
)

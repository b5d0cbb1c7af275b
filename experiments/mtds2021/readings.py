"""Other readings of the chosen entries, for `python -m experiments.sensitivity mtds2021`."""

from ..readings import Alternative, Readings

OPEN_READINGS = Readings(
    own="mtds",
    region="WT",
    cases=44,
    size=(120, 120, 77),
    small={
        "data.window": (72, 88, 77),
        "data.validation": 0.1,
        "data.test": 0.4,
        "data.slice_step": 4,
        "model.options.filters": 8,
        "train.batch_size": 4,
        "train.epochs": 5,
        "train.learning_rate": 1e-3,
    },
    why_small=(
        "Patients are as large as those of the profile heads, and the window is that one: the "
        "brain reaches beyond it, and tumor there is missed by all. The rate is ten times that of "
        "the paper, and every fourth slice is trained on. With 8 filters the ratio of 16 leaves "
        "SE one hidden unit on the upper levels."
    ),
    alternatives={
        "flips_x": Alternative(
            ("flips",), "along x and y", "along x alone", {"data.flips": ("x",)}
        ),
        "shortcut_activated": Alternative(
            ("shortcut",),
            "1x1 convolution of the input itself",
            "behind the unit's first norm and ReLU",
            {"model.options.shortcut": "activated"},
        ),
        "gate_element": Alternative(
            ("gate",),
            "one weight a pixel",
            "one a pixel and channel",
            {"model.options.gate": "element"},
        ),
        "skips_added": Alternative(
            ("skips",), "concatenated", "added, as in LinkNet", {"model.options.skips": "add"}
        ),
        "se_ratio_4": Alternative(("se",), "ratio 16", "ratio 4", {"model.options.se_ratio": 4}),
        "se_dropout_50": Alternative(
            ("se-dropout",), "rate 0.2", "rate 0.5", {"model.options.se_dropout": 0.5}
        ),
        "heads_decoder": Alternative(
            ("supervision",),
            "heads on the encoder",
            "on the decoder, the finest level first",
            {"model.options.supervision": "decoder"},
        ),
        "heads_coarse_to_fine": Alternative(
            ("supervision",),
            "heads on the encoder",
            "on the decoder, coarse to fine",
            {"model.options.supervision": "coarse_to_fine"},
        ),
        "heads_branches": Alternative(
            ("supervision",),
            "heads on the encoder",
            "a decoder for each task",
            {"model.options.supervision": "branches"},
        ),
        "order_of_caption": Alternative(
            ("supervision-order",),
            "ET, NCR, ED",
            "ED, ET, NCR",
            {"model.auxiliary": ("ED", "ET", "NCR")},
        ),
        "strided": Alternative(
            ("down",),
            "max pooling",
            "strided convolution",
            {"model.options.downsampling": "strided_conv"},
        ),
        "bilinear": Alternative(
            ("up",), "nearest neighbor", "bilinear", {"model.options.upsampling": "bilinear"}
        ),
        "transposed": Alternative(
            ("up",),
            "nearest neighbor",
            "transposed convolution",
            {"model.options.upsampling": "transposed_conv"},
        ),
        "auxiliary_mean": Alternative(
            ("output-weights",),
            "auxiliary losses added up",
            "their mean",
            {"train.loss_options.output_weights": (1.0, 1 / 3, 1 / 3, 1 / 3)},
        ),
        "best_epoch": Alternative(
            ("last-weights",),
            "weights of the last epoch",
            "of the epoch with the lowest validation loss",
            {"train.keep": "best"},
        ),
    },
    not_varied={
        "input-axes": "which part of the brain is seen; the small window is another one anyway",
        "slices": "the code has no switch that leaves out slices without tumor",
        "normalisation-background": "the code has no switch for the brain's own minimum",
        "patients": "synthetic cases are of one year and one patient each",
        "network-order": "the code has no switch: SE behind every module",
        "recurrence": "the code has no recurrent convolution",
        "decoder-block": "the code has no switch: two convolutions without shortcut",
        "post-processing": "the code has no switch for the neighborhood of a component",
        "threshold": "the code has no switch: above 0.5",
        "batches": "the code has no switch: shuffled, with a smaller last batch",
        "table-5": "which methods lost rows belong to",
        "rivals": "which other networks are compared",
        "table-1-network": "an ablation, which the profile paper-table-1 has",
        "precision": "the rounding of float32 against that of half precision",
        "seed": "varied in every row: the spread between the seeds",
    },
)

"""Other readings of the chosen entries, for `python -m experiments.sensitivity dcabes2020`."""

from ..readings import Alternative, Readings

OPEN_READINGS = Readings(
    own="with_edge_loss",
    region="WT",
    cases=44,
    size=(64, 64, 48),
    small={
        "data.window": (64, 64, 48),
        "data.validation": 0.1,
        "data.test": 0.4,
        "data.slice_step": 2,
        "model.targets": (("WT",),),
        "model.options.filters": 8,
        "train.batch_size": 8,
        "train.epochs": 10,
        "train.learning_rate": 0.1,
    },
    why_small=(
        "Gradient descent has twenty times the paper's rate, because the paper's epochs have far "
        "more steps. In ten epochs the plateau rule can act once. The network finds WT alone."
    ),
    alternatives={
        "min_max": Alternative(
            ("preprocessing",), "z-score of the brain", "0 to 1", {"data.normalization": "min_max"}
        ),
        "flips": Alternative(
            ("augmentation",), "none", "mirrored along x and y", {"data.flips": ("x", "y")}
        ),
        "bottleneck": Alternative(
            ("residual-block", "parameters"),
            "separable convolution",
            "He's bottleneck",
            {"model.options.residual_block": "bottleneck"},
        ),
        "separable_pair": Alternative(
            ("residual-block", "parameters"),
            "separable convolution",
            "a pair of them",
            {"model.options.residual_block": "separable_pair"},
        ),
        "shortcut_norm": Alternative(
            ("shortcut-norm",),
            "no norm on shortcuts",
            "batch norm",
            {"model.options.shortcut_norm": True},
        ),
        "cbam_ratio_4": Alternative(
            ("cbam",), "ratio 16", "ratio 4", {"model.options.cbam_ratio": 4}
        ),
        "cbam_norm": Alternative(
            ("cbam",),
            "spatial gate without norm",
            "with batch norm, as in the code of CBAM's authors",
            {"model.options.cbam_norm": True},
        ),
        "strided": Alternative(
            ("down",),
            "max pooling",
            "strided convolution",
            {"model.options.downsampling": "strided_conv"},
        ),
        "transposed": Alternative(
            ("up",),
            "nearest neighbor",
            "transposed convolution",
            {"model.options.upsampling": "transposed_conv"},
        ),
        "one_network": Alternative(
            ("networks",),
            "a network for WT",
            "one network for WT, TC and ET",
            {"model.targets": (("WT", "TC", "ET"),)},
        ),
        "learned_edges": Alternative(
            ("edge-network",),
            "fixed Gaussian and Sobel filters",
            "a network that learns edges and is frozen",
            {"train.loss": "cross_entropy_and_learned_edge", "train.loss_options": {}},
        ),
        "sobel_divided": Alternative(
            ("edge-scale",),
            "Sobel kernels as printed",
            "divided by 8: a 64th of the loss",
            {"train.loss_options.edge_weight": 1 / 64},
        ),
        "edge_weight_10": Alternative(
            ("edge-weight",), "weight 1", "weight 10", {"train.loss_options.edge_weight": 10.0}
        ),
        "gaussian_3": Alternative(
            ("gaussian",),
            "5x5 pixels, sigma 1",
            "3x3 pixels, sigma 0.8",
            {"train.loss_options.gaussian_size": 3, "train.loss_options.gaussian_sigma": 0.8},
        ),
        "edge_magnitude": Alternative(
            ("edge-response",),
            "responses along x and y",
            "their magnitude",
            {"train.loss_options.response": "magnitude"},
        ),
        "adam": Alternative(
            ("optimizer",),
            "plain gradient descent",
            "Adam at its usual 0.001",
            {"train.optimizer": "adam", "train.learning_rate": 1e-3},
        ),
        "rate_by_accuracy": Alternative(
            ("learning-rate-rule",),
            "rate falls when the Dice stagnates",
            "when the accuracy of pixels does",
            {"train.schedule_options.monitor": "val_accuracy"},
        ),
        "best_epoch": Alternative(
            ("last-weights",),
            "weights of the last epoch",
            "of the epoch with the lowest validation loss",
            {"train.keep": "best"},
        ),
        "large_components": Alternative(
            ("post-processing",),
            "none",
            "components below a tenth of the largest removed",
            {"predict.smallest_component": 0.1},
        ),
    },
    not_varied={
        "outside-window": "every synthetic brain is inside the window; of real ones some are not",
        "slices": "the code has no switch that leaves out slices without tumor",
        "batches": "the code has no switch: shuffled, with a smaller last batch",
        "cross-validation": "it says which cases are scored, and all variants share those",
        "held-out-unit": "it says which cases are scored, and all variants share those",
        "table-cases": "it says which cases are scored, and all variants share those",
        "kernels": "the code has no switch: 3x3",
        "bn-relu": "the code has no switch for the place of the last ReLU",
        "merging": "WT is the largest region, which merging leaves as it is",
        "threshold": "the code has no switch: above 0.5",
        "cross-entropy": "one channel of sigmoid has no other cross entropy",
        "precision": "the rounding of float32 against that of half precision",
        "seed": "varied in every row: the spread between the seeds",
        "metric": "how a result is measured, not what is trained",
        "et-cases": "about another region than the one that is scored here",
        "fewer-parameters": "a count",
        "shortest-time": "a time",
        "rivals-one-recipe": "which other networks are compared, and how",
        "rivals-quick": "which other networks are compared, and how",
        "mc-row": "of another network: MC",
        "mc-schedule": "of another network: MC",
        "mc-patches": "of another network: MC",
        "mc-classes": "of another network: MC",
        "mc-inference": "of another network: MC",
        "omnet-row": "of another network: OM-Net",
        "omnet-curriculum": "of another network: OM-Net",
        "omnet-fusion": "of another network: OM-Net",
        "emma-members": "of other networks: EMMA",
        "emma-training": "of other networks: EMMA",
        "emma-mean": "of other networks: EMMA",
        "cunet-reading": "of another network: CU-Net",
    },
)

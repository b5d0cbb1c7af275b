"""Other readings of the chosen entries, for `python -m experiments.sensitivity fmnet2023`."""

from ..readings import Alternative, Readings

OPEN_READINGS = Readings(
    own="fmnet",
    region="WT",
    cases=44,
    size=(56, 56, 40),
    small={
        "data.validation": 0.1,
        "data.test": 0.4,
        "data.patch": (32, 32, 32),
        "data.augment_on_device": False,
        "model.options.filters": 8,
        "model.options.levels": 4,
        "train.batch_size": 2,
        "train.epochs": 40,
        "train.learning_rate": 6e-3,
        "train.precision": "float32",
    },
    why_small=(
        "The crops have a quarter of the recipe's length, so the network has four levels of five, "
        "from a quarter of the filters. The rate is twenty times that of the recipe, twice that of "
        "the text. The network learns all three regions, of which the whole tumor is scored."
    ),
    alternatives={
        "center_crops": Alternative(
            ("patch",), "a new crop in every epoch", "the center for good", {"data.crops": "center"}
        ),
        "no_overlap": Alternative(
            ("whole-volumes",), "windows overlap by half", "side by side", {"data.overlap": 0.0}
        ),
        "mirrored_volumes": Alternative(
            ("whole-volumes",),
            "each volume as it is",
            "mean with the mirrored ones",
            {"data.test_time_flips": True},
        ),
        "network_of_the_text": Alternative(
            ("supervision",),
            "network of the code",
            "of the text, with other heads, norms, pooling, gates and up-sampling",
            {"model.options.variant": "paper"},
        ),
        "network_of_figure_6": Alternative(
            ("decoder-widths", "last-stage", "head-convolution"),
            "network of the code",
            "of Figure 6, which has no norms either",
            {"model.options.variant": "figure"},
        ),
        "loss_of_the_text": Alternative(
            ("table-2",),
            "Dice and focal loss, weights 1, 1/2, 1/4 (code)",
            "cross entropy and Dice, equal weights (text)",
            {
                "train.loss": "cross_entropy_and_dice",
                "train.loss_options": {
                    "output_weights": (1.0, 1.0, 1.0),
                    "squared": True,
                    "from_logits": True,
                },
            },
        ),
    },
    not_varied={
        "kernels": "the paper's own experiment, which the paper profile repeats",
        "number-of-heads": "the paper's own experiment, which the paper profile repeats",
        "number-of-blocks": "the paper's own experiment, which the paper profile repeats",
        "checkpointing": "it gives the same weights with less memory",
        "precision-results": "the paper's own experiment: half precision is slow on a CPU",
        "single-modalities": "the paper's own experiment, which the paper profile repeats",
        "figures-3-and-4": "how many epochs two figures of one network have",
        "figure-7": "what a figure shows of the trained network",
        "figures-8-and-9": "what figures show of the trained network",
        "seed": "varied in every row: the spread between the seeds",
        "outputs": "the regions overlap, so a sigmoid each; the code has no other way of merging",
    },
)

"""FM-Net: 3-D attention U-Net with deep supervision (Yilmaz, Arslan; Bilkent University 2023).

    make reproduce-fmnet2023 DATA=/path/to/BraTS2021    the authors' recipe, ablations; needs a GPU
    make reproduce-fmnet2023                            synthetic data, quick profile

Published (Table II), by the authors' own score (see crop_scores.py): Dice WT 0.925, TC 0.914,
ET 0.893, loss 0.325. The recipe is that of the authors' code (fuat-arslan/MRI-Segmentation), which
gave these numbers; the variant "paper" follows the text instead. Every choice below has its entry
in ledger.toml.
"""

from dataclasses import replace
from pathlib import Path

from experiments.fmnet2023.crop_scores import crop_scores
from experiments.fmnet2023.figures import head_figures
from keras_medseg.data.datasets.brats import MODALITIES
from keras_medseg.recipe import Changes, Model, Patches, Recipe, Slices, Train
from keras_medseg.reporting.figures.style import channel_title
from keras_medseg.reporting.tables import Column, Reference, Row, TableSpec
from keras_medseg.runs.experiment import (
    Expected,
    ExpectedOrder,
    Experiment,
    Phantom,
    Profile,
    with_comparison,
)

RECIPE = Recipe(
    name="fmnet2023",
    data=Patches(
        dataset="brats",
        patch=(128, 128, 128),
        normalization="z_score",
        foreground_probability=0.4,
        # Four to one of what is left when a tenth is set apart to be scored.
        validation=0.18,
        test=0.1,
        augmentation={
            "zoom": {"probability": 0.15, "scale": (0.7, 1.0)},
            "flips": {"probability": 0.5},
            "noise": {"probability": 0.15, "sigma": (0.0, 0.33)},
            "blur": {"probability": 0.15, "sigma_voxels": (0.5, 1.5)},
            "brightness": {"probability": 0.15, "factor": (0.7, 1.3)},
            "contrast": {"probability": 0.15, "factor": (0.65, 1.5)},
        },
        augment_on_device=True,
        overlap=0.5,
        test_time_flips=False,
        modalities=MODALITIES,
    ),
    model=Model(
        name="fmnet",
        targets=(("WT", "TC", "ET"),),
        options={
            "variant": "code",
            "dimensions": 3,
            "attention": True,
            "bottleneck_blocks": 2,
            "supervision_heads": 2,
            "filters": 32,
            "activation": "sigmoid",
            "checkpointing": False,
            "framework": "pytorch",
        },
    ),
    train=Train(
        epochs=70,
        batch_size=4,
        optimizer="nadam_pytorch",
        optimizer_options={
            "beta_1": 0.9,
            "beta_2": 0.999,
            "epsilon": 1e-8,
            "momentum_decay": 4e-3,
        },
        learning_rate=3e-4,
        loss="dice_and_focal",
        loss_options={
            "output_weights": (1.0, 0.5, 0.25),
            "gamma": 2.0,
            "smooth": 1e-5,
            "from_logits": True,
        },
        schedule="constant",
        precision="mixed_float16",
        seed=0,
        keep="best",
    ),
)

# What the text says where the code departs from it: Figure 6's network, section V-E's settings.
AS_THE_TEXT_SAYS = {
    "model.options.variant": "paper",
    "train.learning_rate": 0.003,
    "train.loss": "cross_entropy_and_dice",
    "train.loss_options": {
        "output_weights": (1.0, 1.0, 1.0),
        "squared": True,
        "from_logits": True,
    },
}


def heads(count: int) -> Changes:
    """Changes that give `count` supervision heads, each with half the weight of the one before."""
    weights = tuple(0.5**number for number in range(count + 1))
    return {
        "model.options.supervision_heads": count,
        "train.loss_options.output_weights": weights,
    }


def bottleneck(blocks: int) -> Changes:
    """Changes that put `blocks` blocks below the encoder."""
    return {"model.options.bottleneck_blocks": blocks}


NO_ATTENTION = {"model.options.attention": False}

# Figure 4, from the bottom of its legend to the top.
STEPS = {
    "unet": {**NO_ATTENTION, **heads(0), **bottleneck(0)},
    "attention_unet": {**heads(0), **bottleneck(0)},
    "with_supervision": bottleneck(0),
}

# Section V-A. In two dimensions the data are slices of the crop's size; Figure 3 shows 40 epochs.
SLICES = Slices(
    dataset="brats",
    window=(128, 128, 128),
    normalization="z_score",
    flips=("x", "y"),
    validation=0.18,
    test=0.1,
    modalities=MODALITIES,
)
BASIC = {**STEPS["unet"], "train.epochs": 40}
IN_SLICES = {**BASIC, "data": SLICES, "model.options.dimensions": 2}
BINARY = {**IN_SLICES, "model.targets": (("WT",),)}
MODALITY_VARIANTS = {
    "binary_all_four": BINARY,
    **{f"binary_{name}": {**BINARY, "data.modalities": (name,)} for name in MODALITIES},
}

# 128 voxels along every axis need a GPU. What ten minutes on two CPU cores allow: cases at two
# fifths of the resolution with crops to match, a quarter of the filters, 432 steps at the learning
# rate of the text. Six of 30 cases are too few to be divided, so they choose the epoch and are
# scored.
QUICK = {
    "data.validation": 0.2,
    "data.test": 0.0,
    "data.patch": (48, 48, 32),
    "data.augment_on_device": False,
    "model.options.filters": 8,
    "train.batch_size": 2,
    "train.epochs": 36,
    "train.learning_rate": 3e-3,
    "train.precision": "float32",
}

# The benchmark network of section VI-A, under the recipe of FM-Net; it has two heads as well.
NVIDIA = {"model.name": "nvidia_unet", "model.options": {"activation": "sigmoid"}}
QUICK_NVIDIA = {"model.options.filters": 8, "model.options.levels": 5}

LOSS = Column("", "loss")
CROPS = tuple(Column(region, "crop_dice") for region in ("WT", "TC", "ET"))
CASES = tuple(Column(region) for region in ("WT", "TC", "ET"))

OF_THE_TEXT = "the text's range"

EXPERIMENT = Experiment(
    recipe=RECIPE,
    folder=Path(__file__).parent,
    reference=Reference(
        title="FM-Net: 3-D attention U-Net with deep supervision (2023)",
        citation="Yilmaz, Arslan; Bilkent University 2023",
        recipe=RECIPE,
        data="BraTS2021",
        cases=1251,
    ),
    profiles=with_comparison(
        {
            "paper": Profile(
                {},
                {
                    "fmnet": {},
                    "as_the_text_says": AS_THE_TEXT_SAYS,
                    **STEPS,
                    **{f"heads_{n}": heads(n) for n in (0, 1, 3)},
                    **{f"bottleneck_{n}": bottleneck(n) for n in (1, 3, 4)},
                    "two_dimensions": IN_SLICES,
                    "three_dimensions": BASIC,
                    **MODALITY_VARIANTS,
                },
                (
                    ("unet", "attention_unet"),
                    ("attention_unet", "with_supervision"),
                    ("with_supervision", "fmnet"),
                    ("as_the_text_says", "fmnet"),
                    ("two_dimensions", "three_dimensions"),
                    *((f"binary_{name}", "binary_all_four") for name in MODALITIES),
                ),
            ),
            "quick": Profile(QUICK, {"fmnet": {}, "unet": STEPS["unet"]}, (("unet", "fmnet"),)),
        },
        own="fmnet",
        baselines={
            "paper": {"nvidia_unet": NVIDIA},
            "quick": {"nvidia_unet": NVIDIA | QUICK_NVIDIA},
        },
    ),
    tables=(
        TableSpec(
            "Table II",
            "Test results: the authors' loss and soft Dice of crops, and the field's Dice of cases",
            columns=(LOSS, *CROPS, *CASES),
            rows=(
                Row("FM-Net", measured="fmnet"),
                Row("FM-Net", "as the text says", "as_the_text_says"),
            ),
        ),
        TableSpec(
            "Section VI-A",
            "The benchmark network",
            columns=(LOSS, *CROPS, *CASES),
            rows=(Row("NVIDIA's optimized U-Net", measured="nvidia_unet"),),
        ),
        TableSpec(
            "Figure 3",
            "Validation loss after 40 epochs, read off the plot",
            columns=(LOSS,),
            rows=(
                Row("2-D", measured="two_dimensions"),
                Row("3-D", measured="three_dimensions"),
            ),
        ),
        TableSpec(
            "Section V-A",
            "One modality against all four, in two dimensions: the ranges of the text, and each",
            columns=(Column("WT", "dice_loss"),),
            rows=(
                Row("One modality", "from", otherwise=OF_THE_TEXT),
                Row("One modality", "to", otherwise=OF_THE_TEXT),
                *(
                    Row("One modality", f"{channel_title(name)} alone", f"binary_{name}")
                    for name in MODALITIES
                ),
                Row("All four", "from", otherwise=OF_THE_TEXT),
                Row("All four", "to", otherwise=OF_THE_TEXT),
                Row("All four", measured="binary_all_four"),
            ),
        ),
        TableSpec(
            "Figure 4",
            "Order of the validation losses",
            columns=(LOSS, *CASES),
            rows=(
                Row("U-Net", measured="unet"),
                Row("Attention U-Net", measured="attention_unet"),
                Row("With deep supervision", measured="with_supervision"),
                Row("With bottleneck", measured="fmnet"),
            ),
        ),
    ),
    # The run on synthetic cases gave 0.750; the best single threshold gives 0.56.
    expected=(Expected("phantom", "quick", "fmnet", "WT", "dice", minimum=0.65),),
    notes=(
        "The paper's Dice is the authors' own score: soft, pooled over a batch, of random, "
        "augmented crops that contain a tumor more often than chance. It is shown beside the same "
        "score here (crop_dice, loss). Only the thresholded Dice of whole cases, by the rule of "
        "the challenge, can be compared with other papers; this paper does not have it.",
        "Table I is measured by `python benchmarks/fmnet_loading.py`.",
    ),
    phantom=Phantom("BraTS2021", cases=30, size=(96, 96, 64)),
    figures=head_figures,
    further_scores=crop_scores,
)

# What section V states of its variants. It speaks of losses and "results"; a loss belongs to no
# single case, so the Dice of cases is tested.
ONE_MODALITY = (
    "Combining all modalities significantly reduced the Dice Loss to 0.08-0.1, while using only "
    "one modality resulted in a Dice Loss stuck at 0.2-0.25."
)
IN_THREE_DIMENSIONS = (
    "3D data achieved notably lower validation losses than 2D data when using the basic UNet model."
)
ATTENTION = (
    "the addition of the attention gate to the networks has a positive impact on the results."
)
SUPERVISION = (
    "The addition of deep supervision leads to a noticeable improvement in overall results."
)
TWO_HEADS = (
    "In the graph depicting the results obtained for the optimal number of deep supervision, which "
    "is 2, it becomes evident that increasing the number beyond this threshold has a detrimental "
    "effect"
)
TWO_BLOCKS = (
    "Having 1 or 2 bottleneck layers improves the results, with 2 yielding the best outcome."
)


def _order(better: str, worse: str, where: str, says: str) -> ExpectedOrder:
    return ExpectedOrder(better, worse, "dice", None, where, says)


ORDERS = (
    *(
        ExpectedOrder("binary_all_four", f"binary_{name}", "dice", "WT", "V-A", ONE_MODALITY)
        for name in MODALITIES
    ),
    _order("three_dimensions", "two_dimensions", "V-A, Figure 3", IN_THREE_DIMENSIONS),
    _order("attention_unet", "unet", "V-D, Figure 4", ATTENTION),
    _order("with_supervision", "attention_unet", "V-D, Figure 4", SUPERVISION),
    _order("fmnet", "heads_3", "V-D", TWO_HEADS),
    _order("bottleneck_1", "with_supervision", "V-D", TWO_BLOCKS),
    *(
        _order("fmnet", worse, "V-D", TWO_BLOCKS)
        for worse in ("with_supervision", "bottleneck_1", "bottleneck_3", "bottleneck_4")
    ),
)
EXPERIMENT = replace(EXPERIMENT, orders=ORDERS)
EXPERIMENTS = {"BraTS2021": EXPERIMENT}

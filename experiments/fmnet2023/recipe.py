"""FM-Net: 3-D attention U-Net with deep supervision (Yilmaz, Arslan; Bilkent University 2023).

    make reproduce-fmnet2023 DATA=/path/to/BraTS2021    the authors' recipe, ablations; needs a GPU
    make reproduce-fmnet2023                            synthetic data, quick profile

Published (Table II), by the authors' own score (see crop_scores.py): Dice WT 0.925, TC 0.914,
ET 0.893, loss 0.325. The recipe is that of the authors' code (fuat-arslan/MRI-Segmentation), whose
loss alone fits them (ledger, `table-2`); the variants "as_the_text_says" and "as_figure_6_shows"
follow the paper instead. Every choice below has its entry in ledger.toml.
"""

from dataclasses import replace
from pathlib import Path

from keras_medseg.data.datasets.brats import MODALITIES
from keras_medseg.recipe import Changes, Model, Patches, Recipe, Train
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

from .figures import CURVES, paper_figures
from .further_scores import further_scores
from .readings import OPEN_READINGS

AUGMENTATION = {
    "zoom": {"probability": 0.15, "scale": (0.7, 1.0)},
    "flips": {"probability": 0.5},
    "noise": {"probability": 0.15, "sigma": (0.0, 0.33)},
    "blur": {"probability": 0.15, "sigma_voxels": (0.5, 1.5)},
    "brightness": {"probability": 0.15, "factor": (0.7, 1.3)},
    "contrast": {"probability": 0.15, "factor": (0.65, 1.5)},
}

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
        augmentation=AUGMENTATION,
        augment_on_device=True,
        overlap=0.5,
        test_time_flips=False,
        modalities=MODALITIES,
        crops="random",
        slices=False,
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
            "levels": 5,
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

# What the text says where the code departs from it: the settings of sections III, V-C and V-E.
AS_THE_TEXT_SAYS = {
    "model.options.variant": "paper",
    "data.crops": "center",
    "data.augmentation": {name: AUGMENTATION[name] for name in AUGMENTATION if name != "contrast"},
    "train.learning_rate": 0.003,
    "train.loss": "cross_entropy_and_dice",
    "train.loss_options": {
        "output_weights": (1.0, 1.0, 1.0),
        "squared": True,
        "from_logits": True,
    },
}
AS_FIGURE_6_SHOWS = {**AS_THE_TEXT_SAYS, "model.options.variant": "figure"}


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


UNET = {"model.options.attention": False, **heads(0), **bottleneck(0)}
ATTENTION_UNET = {**heads(0), **bottleneck(0)}

# The curves of Figure 4 have 30 epochs. Its steps, from the bottom of its legend to the top, and
# the other experiments of section V-D: the heads were counted before there was a bottleneck.
ABLATION = {"train.epochs": 30}
STEPS = {
    "unet": {**UNET, **ABLATION},
    "attention_unet": {**ATTENTION_UNET, **ABLATION},
    "with_supervision": {**bottleneck(0), **ABLATION},
    "with_bottleneck": ABLATION,
}
FURTHER_STEPS = {
    **{f"heads_{n}": {**heads(n), **bottleneck(0), **ABLATION} for n in (1, 3)},
    **{f"bottleneck_{n}": {**bottleneck(n), **ABLATION} for n in (1, 3, 4)},
    "kernels_32_64": {**STEPS["attention_unet"], "model.options.levels": 2},
    "kernels_8_to_64": {
        **STEPS["attention_unet"],
        "model.options.levels": 4,
        "model.options.filters": 8,
    },
}

# Section V-A. The slices are those of the same crops with the same augmentation, which is then not
# done in the training step; Figure 3 shows 40 epochs.
BASIC = {**UNET, "train.epochs": 40}
IN_SLICES = {
    **BASIC,
    "data.augment_on_device": False,
    "data.slices": True,
    "model.options.dimensions": 2,
}
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

REGIONS = ("WT", "TC", "ET")
LOSS = Column("", "loss")
CROPS = tuple(Column(region, "crop_dice") for region in REGIONS)
CASES = tuple(Column(region) for region in REGIONS)
CURVE_END, LOWEST = Column("", "val_loss_at_30"), Column("", "val_loss_lowest")
OUTSIDE = tuple(
    Column(region, f"outside_{output}")
    for output in ("first_ds", "second_ds", "prediction")
    for region in REGIONS
)

OF_THE_TEXT = "the text's range"
NO_MEMORY = '"infeasible due to GPU RAM limitations"'

PAIRS = (
    ("unet", "attention_unet"),
    ("attention_unet", "with_supervision"),
    ("with_supervision", "with_bottleneck"),
    ("attention_unet", "heads_1"),
    ("heads_1", "with_supervision"),
    ("with_supervision", "heads_3"),
    ("with_supervision", "bottleneck_1"),
    ("bottleneck_1", "with_bottleneck"),
    ("with_bottleneck", "bottleneck_3"),
    ("bottleneck_3", "bottleneck_4"),
    ("kernels_32_64", "attention_unet"),
    ("kernels_8_to_64", "attention_unet"),
    ("as_the_text_says", "fmnet"),
    ("as_figure_6_shows", "as_the_text_says"),
    ("float32", "fmnet"),
    ("fmnet", "gated_skip_and_up"),
    ("two_dimensions", "three_dimensions"),
    *((f"binary_{name}", "binary_all_four") for name in MODALITIES),
)


def _rows_of(figure: str) -> tuple[Row, ...]:
    return tuple(Row(label, measured=variant) for label, variant in CURVES[figure].items())


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
                    "as_figure_6_shows": AS_FIGURE_6_SHOWS,
                    "float32": {"train.precision": "float32"},
                    "gated_skip_and_up": {"model.options.variant": "code_with_up"},
                    **STEPS,
                    **FURTHER_STEPS,
                    "two_dimensions": IN_SLICES,
                    "three_dimensions": BASIC,
                    **MODALITY_VARIANTS,
                },
                PAIRS,
            ),
            "quick": Profile(QUICK, {"fmnet": {}, "unet": UNET}, (("unet", "fmnet"),)),
            "sensitivity": OPEN_READINGS.profile,
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
                Row("FM-Net", "as Figure 6 shows", "as_figure_6_shows"),
                Row("FM-Net", "[gated skip, up] in the code's network", "gated_skip_and_up"),
            ),
        ),
        TableSpec(
            "Section VI-A",
            "The benchmark network",
            columns=(LOSS, *CROPS, *CASES),
            rows=(Row("NVIDIA's optimized U-Net", measured="nvidia_unet"),),
        ),
        TableSpec(
            "Section V-B",
            "Mixed precision against float32, in results",
            columns=(LOSS, *CROPS, *CASES),
            rows=(Row("AMP", measured="fmnet"), Row("float32", measured="float32")),
        ),
        TableSpec(
            "Figure 3",
            "Validation loss of an epoch, read off the plot (of the log here); then the loss of "
            "the kept weights on augmented crops, pooled over crops and slice by slice",
            columns=(
                CURVE_END,
                Column("", "val_loss_at_40"),
                LOSS,
                Column("", "loss_by_slice"),
                *CASES,
            ),
            rows=_rows_of("Figure 3"),
        ),
        TableSpec(
            "Section V-A",
            "One modality against all four, in two dimensions: the ranges of the text, and each",
            columns=(Column("WT", "dice_loss_by_slice"),),
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
            "Validation loss of an epoch and the lowest of 30, read off the plot (of the log "
            "here); then the loss of the main output alone on augmented crops, for all the same",
            columns=(
                Column("", "val_loss_at_5"),
                CURVE_END,
                LOWEST,
                Column("", "main_loss"),
                *CASES,
            ),
            rows=_rows_of("Figure 4"),
        ),
        *(
            TableSpec(
                f"Section V-D, {what}",
                f"The number of {what}, after 30 epochs; the text has no numbers",
                columns=(LOWEST, Column("", "main_loss"), *CASES),
                rows=rows,
            )
            for what, rows in {
                "supervision heads": (
                    Row("0", measured="attention_unet"),
                    Row("1", measured="heads_1"),
                    Row("2", measured="with_supervision"),
                    Row("3", measured="heads_3"),
                ),
                "bottleneck blocks": (
                    Row("0", measured="with_supervision"),
                    Row("1", measured="bottleneck_1"),
                    Row("2", measured="with_bottleneck"),
                    Row("3", measured="bottleneck_3"),
                    Row("4", measured="bottleneck_4"),
                ),
                "kernels": (
                    Row("[32, 64]", measured="kernels_32_64"),
                    Row("[8, 16, 32, 64]", measured="kernels_8_to_64"),
                    Row("[32, 64, 128, 256, 512]", measured="attention_unet"),
                    Row("[32, 64, 128, 256, 512, 1024, 2048]", otherwise=NO_MEMORY),
                ),
            }.items()
        ),
        TableSpec(
            "Figure 5",
            "The lowest validation loss and its epoch, and the validation Dice of that epoch (of "
            "the log here)",
            columns=(
                LOWEST,
                Column("", "lowest_epoch"),
                *(Column(region, "val_dice") for region in REGIONS),
            ),
            rows=_rows_of("Figure 5"),
        ),
        TableSpec(
            "Figure 7",
            "Slices of the brain without tumor: share that is left empty, and voxels predicted "
            "in one, the mean of each case",
            columns=(
                *(Column(region, "left_empty", "%") for region in REGIONS),
                *(Column(region, "false_voxels") for region in REGIONS),
            ),
            rows=(
                Row("FM-Net", measured="fmnet"),
                Row("U-Net", measured="unet"),
                Row("NVIDIA's optimized U-Net", measured="nvidia_unet"),
            ),
        ),
        TableSpec(
            "Figure 11",
            "Share of the probability outside of the mask, on augmented crops, in the order of "
            "the figure: its first output is the head at full resolution, its second the coarser",
            columns=OUTSIDE,
            rows=(Row("FM-Net", measured="fmnet"),),
        ),
    ),
    # The run on synthetic cases gave 0.750; the best single threshold gives 0.56.
    expected=(Expected("phantom", "quick", "fmnet", "WT", "dice", minimum=0.65),),
    notes=(
        "The paper's Dice is the authors' own score: soft, pooled over a batch, of random, "
        "augmented crops that contain a tumor more often than chance. It is shown beside the same "
        "score here (crop_dice, loss). Only the thresholded Dice of whole cases, by the rule of "
        "the challenge, can be compared with other papers; this paper does not have it.",
        "Figures 3 and 4 show the same network, the basic 3-D U-Net, with validation losses of "
        "0.47 and 0.66 at epoch 30. They differ by 0.19, where the whole ablation of Figure 4 "
        "gains 0.25; its final 0.41 is what the plain U-Net reaches in Figure 3.",
        "A loss of slices and a loss of crops are not on one scale: a batch of slices that lacks a "
        "region costs about 1 for it, whatever is predicted. The column loss_by_slice has both "
        "networks on the scale of slices, the column loss both on that of crops.",
        "The validation losses of the paper's curves are of augmented random crops, those of the "
        "logs here of center crops without augmentation.",
        "Table I is measured by `python -m benchmarks.fmnet_loading`.",
    ),
    phantom=Phantom("BraTS2021", cases=30, size=(96, 96, 64)),
    figures=paper_figures,
    further_scores=further_scores,
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
    _order("with_supervision", "heads_3", "V-D", TWO_HEADS),
    _order("bottleneck_1", "with_supervision", "V-D", TWO_BLOCKS),
    *(
        _order("with_bottleneck", worse, "V-D", TWO_BLOCKS)
        for worse in ("with_supervision", "bottleneck_1", "bottleneck_3", "bottleneck_4")
    ),
)
EXPERIMENT = replace(EXPERIMENT, orders=ORDERS)
EXPERIMENTS = {"BraTS2021": EXPERIMENT}

"""The figures of fmnet2023: validation losses (3 to 5), no tumor (7), supervised outputs (11)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_medseg.data.datasets.base import Dataset
from keras_medseg.data.store import StoredCase
from keras_medseg.reporting.figures import style, volumes
from keras_medseg.reporting.report import ReportFigure
from keras_medseg.reporting.tables import read_published
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort

from .crop_scores import (
    as_list,
    in_order_of_figure_11,
    outside,
    validation_crops,
)

VARIANT = "fmnet"
CURVES = {
    "Figure 3": {"2-D": "two_dimensions", "3-D": "three_dimensions"},
    "Figure 4": {
        "U-Net": "unet",
        "Attention U-Net": "attention_unet",
        "With deep supervision": "with_supervision",
        "With bottleneck": "with_bottleneck",
    },
    "Figure 5": {"FM-Net": VARIANT},
}
"""Figure -> its rows in published.csv -> the variant of each."""
READING_ERROR = 0.03
"""Of a value that was read off a plotted curve."""
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
EXAMPLES = 4  # slices in the figure of absent tumors

Panel = tuple[str, np.ndarray]
"""Title, and (X, Y) map from 0 to 1."""


def paper_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """The figures that this run has the networks for."""
    return [*curve_figures(run), *head_figures(run, cohort), *absence_figures(run, cohort)]


# Figures 3, 4 and 5


def curve_figures(run: RunFolder) -> list[ReportFigure]:
    """The validation losses that Figures 3, 4 and 5 lay over each other, with the points read off.

    Variants that the run does not have are left out, and so is a figure without any.
    """
    logs = {}
    for name, variant in run.variants.items():
        (targets,) = variant.recipe.model.targets
        logs[name] = run.logs()[run.training(variant.trained_as, targets).name]
    shown = {
        figure: {label: logs[name] for label, name in rows.items() if name in logs}
        for figure, rows in CURVES.items()
    }
    shown = {figure: curves for figure, curves in shown.items() if curves}
    if not shown:
        return []
    path = style.save(draw_curves(shown), run.figure("validation_losses"))
    caption = (
        "Validation losses of center crops without augmentation; points: what was read off the "
        f"paper's curves, of augmented random crops, to within {READING_ERROR}. The loss of two "
        "dimensions is that of slices, and is not on the scale of the others; that of a network "
        "with supervision heads is a weighted mean over its outputs. Figure 5, right: soft Dice "
        "of each region."
    )
    return [ReportFigure("Figures 3, 4 and 5", caption, path)]


@style.styled
def draw_curves(shown: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """One panel a figure, and one with the Dice of Figure 5.

    Args:
        shown: figure -> label of the curve -> log.
    """
    published = read_published(Path(__file__).with_name("published.csv"))
    figure = Figure(figsize=(3.6 * (len(shown) + ("Figure 5" in shown)), 3.4))
    panels = iter(figure.subplots(1, len(shown) + ("Figure 5" in shown), squeeze=False)[0])
    for name, curves in shown.items():
        panel = next(panels)
        points = published[published["table"] == name]
        for (label, log), color in zip(curves.items(), COLORS):
            panel.plot(log["epoch"], log["val_loss"], color=color, label=label)
            if name == "Figure 5":
                panel.plot(log["epoch"], log["loss"], color=color, ls=":", label="training")
            _points(panel, points[points["row"] == label], color)
        panel.set(title=name, xlabel="epoch", ylabel="validation loss")
        panel.legend()
    if "Figure 5" in shown:
        panel = next(panels)
        (log,) = shown["Figure 5"].values()
        columns = [str(name) for name in log if str(name).startswith("val_dice_")]
        regions = [name.removeprefix("val_dice_") for name in columns]
        for region, color in style.region_colors(regions).items():
            panel.plot(log["epoch"], log[f"val_dice_{region}"], color=color, label=region)
        panel.set(title="Figure 5, right", xlabel="epoch", ylabel="soft Dice", ylim=(0, 1))
        panel.legend()
    return figure


def _points(panel: Axes, published: pd.DataFrame, color: str) -> None:
    """The published values of one curve, at their epochs."""
    values = published.set_index("metric")["value"].dropna()
    points = {str(m).rpartition("_")[2]: v for m, v in values.items() if "_at_" in str(m)}
    if "lowest_epoch" in values:
        points[values["lowest_epoch"]] = values["val_loss_lowest"]
    for epoch, value in points.items():
        panel.errorbar(float(epoch), value, READING_ERROR, color=color, marker="o", capsize=3)


# Figure 11


def head_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """Annotation, supervision heads and prediction of one slice, in the order of Figure 11."""
    chosen = run.variant(VARIANT)
    (targets,) = chosen.recipe.model.targets
    network = run.network(VARIANT, targets, auxiliary=True)
    batches = validation_crops(cohort, chosen, targets, as_in_training=False)
    x, y = (np.asarray(array) for array in batches.batch(0, 0))
    outputs = [np.asarray(output, np.float32) for output in as_list(network.predict_on_batch(x))]
    z = volumes.largest_slice(y[0, ..., 0], y[0, ..., 0])
    maps = in_order_of_figure_11([output[0, :, :, z] for output in outputs])
    rows = []
    for number, region in enumerate(targets):
        truth = y[0, :, :, z, number]
        row: list[Panel] = [(f"{style.region_title(region)}, annotation", truth)]
        for name, values in maps.items():
            share = float(outside(truth[..., None], values[..., number : number + 1])[0])
            title = name.removeprefix("outside_").replace("_ds", " DS output")
            row.append((f"{title}\n{share:.0%} outside", values[..., number]))
        row.append(("prediction > 1/2", (maps["outside_prediction"][..., number] > 0.5) * 1.0))
        rows.append(row)
    path = style.save(draw_grid(rows), run.figure("supervision"))
    caption = (
        "A crop around the center of the first scored case, the slice with most tumor. The "
        'order is that of the paper, whose "first" output is the head at full resolution, on the '
        'features of the main output, and whose "second" is the coarser one: the order in which '
        '"the non-segmented parts are further masked out" runs against the decoder. The paper '
        "draws responses before the sigmoid, each panel with a gray scale of its own; here "
        "probabilities from 0 to 1, with the share of their sum outside of the annotation in this "
        "slice."
    )
    return [ReportFigure("Figure 11: what the supervised stages see", caption, path)]


# Figure 7


def absence_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """Slices without tumor, with what is predicted in them; none if every slice has some."""
    chosen = run.variant(VARIANT)
    dataset = chosen.task.dataset
    (targets,) = chosen.recipe.model.targets
    found = []
    for case_id in cohort.scored:
        case = cohort.store.cases[case_id]
        labels = dataset.read_labels(run.prediction(VARIANT, case_id), case)
        z = worst_empty_slice(case.full_labels(), labels, case)
        if z is not None:
            found.append((int(np.count_nonzero(labels[..., z])), case_id, z, labels[..., z]))
    if not found:
        return []
    found.sort(key=lambda entry: (-entry[0], entry[1]))
    half = EXAMPLES // 2
    examples = found if len(found) <= EXAMPLES else [*found[:half], *found[-half:]]
    rows = [
        _example(dataset, cohort.store.cases[name], z, labels, targets)
        for _, name, z, labels in examples
    ]
    path = style.save(draw_grid(rows), run.figure("absence"))
    caption = (
        "Of each case the slice without tumor, but with brain, in which most voxels are predicted; "
        "the cases with the most and with the fewest of them. The table Figure 7 counts all slices."
    )
    return [ReportFigure("Figure 7: slices without tumor", caption, path)]


def worst_empty_slice(truth: np.ndarray, found: np.ndarray, case: StoredCase) -> int | None:
    """z of the slice of the brain's box without any label and with most predicted voxels.

    (X, Y, Z) label codes twice; the first such slice, None if there is none.
    """
    first = case.origin[2]
    inside = range(first, first + case.image.shape[0])
    empty = [z for z in inside if not truth[..., z].any()]
    counts = [np.count_nonzero(found[..., z]) for z in empty]
    return empty[int(np.argmax(counts))] if empty else None


def _example(
    dataset: Dataset, case: StoredCase, z: int, labels: np.ndarray, targets: Sequence[str]
) -> list[Panel]:
    """A row as in the authors' Figures 7 to 9: image, then annotation and prediction by region."""
    image = case.full_image()[:, :, z, dataset.channels.index("flair")]
    row: list[Panel] = [(f"{case.id}\nz = {z}", image / (np.percentile(image, 99.5) or 1))]
    for region in targets:
        for what, mask in (("annotation", case.full_labels()[..., z]), ("prediction", labels)):
            inside = np.isin(mask, dataset.regions[region])
            row.append((f"{region}, {what}\n{inside.sum()} voxels", inside * 1.0))
    return row


@style.styled
def draw_grid(rows: Sequence[Sequence[Panel]]) -> Figure:
    """Gray panels from 0 to 1, anterior on top, the patient's right on the left."""
    _, first = rows[0][0]
    width = 1.7
    height = width * first.shape[1] / first.shape[0]
    size = {"width": width, "height": height, "gap": 0.4, "extra": 0.5}
    figure, axes = style.image_panels(len(rows), len(rows[0]), **size)
    for row, panels in zip(rows, axes):
        for (title, image), panel in zip(row, panels):
            panel.set_title(title, fontsize=8)
            panel.imshow(image.T, cmap="gray", vmin=0, vmax=1)
            panel.spines[:].set(visible=True, color="#999999", linewidth=0.5)
    return figure

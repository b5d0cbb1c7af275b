"""The scores of the authors of fmnet2023 on crops: soft Dice and loss, pooled over batches.

This is not the usual Dice: nothing is thresholded, a batch counts as one image, and the scored
samples are random, augmented crops that contain a tumor more often than chance. It is computed so
that a run can be compared with Table II; `evaluation/scores.py` scores whole cases.

The authors score 3-D networks on batches of crops and 2-D networks on batches of single slices. The
two are not on one scale: a batch of slices that lacks a region costs about 1 for it, whatever is
predicted. So both are computed for every network, on the same crops.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_medseg import losses
from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.recipe import override
from keras_medseg.runs.run_folder import RunFolder, Variant
from keras_medseg.runs.steps import Cohort

SMOOTH = 1e-5  # MONAI's DiceLoss, above and below
MAIN_LOSS = losses.get("dice_and_focal", output_weights=(1.0,))
"""The code's loss of one output, the same for every network."""

Loss = Callable[[np.ndarray, np.ndarray], Any]
Values = dict[tuple[str, str], float]
"""(metric, region or "") -> value."""


def crop_scores(run: RunFolder, cohort: Cohort) -> pd.DataFrame:
    """Score the scored cases as the authors do: augmented random crops, in batches.

    The rows are as in scores.csv, one per variant and region, with the metrics of `score_batch`
    and dice_loss_by_slice (1 - crop_dice_by_slice); the region "" has the losses. They are also
    written to crop_scores.csv.
    """
    rows = []
    for name, variant in run.variants.items():
        (targets,) = variant.recipe.model.targets
        network = run.network(name, targets, auxiliary=True)
        if variant.recipe.model.options.get("dimensions") == 2:
            network = SliceBySlice(network)
        batches = validation_crops(cohort, variant, targets, as_in_training=True)
        train = variant.recipe.train
        # Training takes logits; the network that it leaves puts out probabilities.
        options = {**train.loss_options, "from_logits": False}
        found = score_crops(network, batches, losses.get(train.loss, **options))
        for region in (*targets, ""):
            row = {metric: value for (metric, of), value in found.items() if of == region}
            if region:
                row["dice_loss_by_slice"] = 1 - row["crop_dice_by_slice"]
            rows.append({"variant": name, "case": "augmented crops", "region": region, **row})
        keras.utils.clear_session()
    table = pd.DataFrame(rows)
    run.write_table("crop_scores", table)
    return table


def validation_crops(
    cohort: Cohort, variant: Variant, targets: tuple[str, ...], *, as_in_training: bool
) -> CaseBatches:
    """Crops of the scored cases: placed, augmented and shuffled as in training, or plain.

    They are whole crops where the network of the variant sees slices, too.
    """
    whole = {"data.augment_on_device": False, "data.slices": False}
    chosen = replace(variant, recipe=override(variant.recipe, whole))
    return chosen.task.batches(cohort.store, cohort.scored, targets, training=as_in_training)


class SliceBySlice:
    """A 2-D network that is shown crops: it sees the same slice of all crops of a batch at once."""

    def __init__(self, network: keras.Model) -> None:
        self.network = network

    def predict_on_batch(self, crops: np.ndarray) -> list[np.ndarray]:
        """(N, X, Y, Z, C) -> (N, X, Y, Z, R) of each output."""
        slices = [as_list(self.network.predict_on_batch(part)) for part in _slices(crops)]
        return [np.stack(output, axis=3) for output in zip(*slices)]


def score_crops(network: Any, batches: CaseBatches, loss: Loss) -> Values:
    """`score_batch`, the mean over the batches of the first epoch, weighted by samples.

    Args:
        network: predicts crops; its main output comes first and has one channel for each target.
        batches: the authors score PatchBatches with their augmentation, in batches of 4 (2 in
            validation), and only the training part, 80 %, of their test folder.
        loss: of the targets and all outputs side by side, such as `losses.get(...)`.
    """
    names = [name for name, _ in batches.targets]
    sums: Values = {}
    samples = 0
    for step in range(batches.steps_per_epoch):
        x, y = batches.batch(0, step)
        outputs = [
            np.asarray(output, np.float32) for output in as_list(network.predict_on_batch(x))
        ]
        for key, value in score_batch(y, outputs, names, loss).items():
            sums[key] = sums.get(key, 0.0) + value * len(y)
        samples += len(y)
    return {key: total / samples for key, total in sums.items()}


def score_batch(
    y: np.ndarray, outputs: Sequence[np.ndarray], names: Sequence[str], loss: Loss
) -> Values:
    """Scores of a batch of crops.

    Args:
        y: (N, X, Y, Z, R).
        outputs: (N, X, Y, Z, R) probabilities of each output, the main one first, then the heads
            from the coarsest on; or all of them side by side in one array.
        names: of the R targets; of those with the same name the first counts.
        loss: as in `score_crops`.

    Returns:
        loss (of all outputs), loss_by_slice, main_loss (`MAIN_LOSS` of the main output alone), and
        for each region crop_dice, (2 sum p q + 1e-5) / (sum p + sum q + 1e-5) over the batch,
        crop_dice_by_slice, and `outside` of the outputs, in the order of Figure 11. "By slice" is
        the mean over the axial slices of the batch, each of which is scored as a batch of its own.
    """
    together = np.concatenate(outputs, axis=-1)
    outputs = np.split(together, together.shape[-1] // y.shape[-1], axis=-1)
    main = outputs[0]
    values = {
        ("loss", ""): _number(loss(y, together)),
        ("main_loss", ""): _number(MAIN_LOSS(y, main)),
        ("loss_by_slice", ""): _mean(
            _number(loss(q, p)) for q, p in zip(_slices(y), _slices(together))
        ),
    }
    per_region = {
        "crop_dice": soft_dice(y, main),
        "crop_dice_by_slice": np.mean(
            [soft_dice(q, p) for q, p in zip(_slices(y), _slices(main))], axis=0
        ),
        **{name: outside(y, output) for name, output in in_order_of_figure_11(outputs).items()},
    }
    for metric, found in per_region.items():
        for name, value in zip(names, found):
            values.setdefault((metric, name), float(value))
    return values


def in_order_of_figure_11(outputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs from left to right of Figure 11, by the names of their scores.

    The authors' script (sample_out_viz.py, img_plot_deep_supervision2) calls outputs[2], the head
    at full resolution, the first, and outputs[1], the coarser one, the second. So the order in
    which "the non-segmented parts are further masked out" runs against that of the decoder.
    """
    main, *heads = outputs
    ordinals = ("first", "second", "third")
    named = {f"outside_{ordinals[n]}_ds": head for n, head in enumerate(reversed(heads))}
    return {**named, "outside_prediction": main}


def outside(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N, ..., R) twice -> (R,): share of the sum of probabilities that lies outside of the mask.

    Of a map of zeros nothing does.
    """
    axes = tuple(range(truth.ndim - 1))
    whole = np.asarray(np.sum(probabilities, axis=axes, dtype=np.float64))
    inside = np.asarray(np.sum(truth * probabilities, axis=axes, dtype=np.float64))
    return np.divide(whole - inside, whole, out=np.zeros_like(whole), where=whole > 0)


def soft_dice(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N, ..., R) twice -> (R,): Dice of the probabilities over the whole batch, smoothed."""
    axes = tuple(range(truth.ndim - 1))
    both = np.asarray(np.sum(truth * probabilities, axis=axes, dtype=np.float64))
    sizes = np.asarray(np.sum(truth, axis=axes, dtype=np.float64))
    sizes = sizes + np.asarray(np.sum(probabilities, axis=axes, dtype=np.float64))
    return (2 * both + SMOOTH) / (sizes + SMOOTH)


def as_list(predicted: Any) -> list[np.ndarray]:
    """The outputs of a network: one array, or a list of them."""
    return list(predicted) if isinstance(predicted, list | tuple) else [predicted]


def _slices(crops: np.ndarray) -> list[np.ndarray]:
    """(N, X, Y, Z, C) -> Z arrays (N, X, Y, C)."""
    return [crops[:, :, :, z] for z in range(crops.shape[3])]


def _number(value: Any) -> float:
    return float(keras.ops.convert_to_numpy(value))


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))

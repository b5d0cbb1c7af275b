"""crop_scores.py by arithmetic on paper and against the loss that the authors trained with."""

from dataclasses import dataclass

import numpy as np
import pytest

from experiments.fmnet2023.crop_scores import (
    SliceBySlice,
    in_order_of_figure_11,
    outside,
    score_batch,
    score_crops,
    soft_dice,
)
from keras_medseg import losses


@dataclass
class Crops:
    """Two batches, of two crops and of one."""

    targets: tuple = (("WT", (1, 2, 3)), ("ET", (3,)))
    steps_per_epoch: int = 2

    def batch(self, epoch, step):
        generator = np.random.default_rng((epoch, step))
        x = generator.random((2 - step, 4, 3, 5, 6), "float32")
        return x, np.float32(generator.random((2 - step, 4, 3, 5, 2)) > 0.5)


class Network:
    """Gives its input back: three outputs of two regions, side by side or apart."""

    def __init__(self, apart=False):
        self.apart = apart

    def predict_on_batch(self, x):
        return [x[..., :2], x[..., 2:4], x[..., 4:]] if self.apart else x


def test_soft_dice_by_hand():
    # sum p q = 0.8 + 0.5, sum p = 0.8 + 0.4 + 0.5, sum q = 2, over both samples of the batch.
    truth = np.array([[1.0, 0.0], [1.0, 0.0]])[..., None]
    probabilities = np.array([[0.8, 0.4], [0.5, 0.0]])[..., None]
    expected = (2 * 1.3 + 1e-5) / (1.7 + 2 + 1e-5)
    np.testing.assert_allclose(soft_dice(truth, probabilities), [expected])


def test_soft_dice_of_nothing_is_one():
    np.testing.assert_array_equal(soft_dice(np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 1))), [1])


def test_soft_dice_is_one_minus_the_loss():
    x, y = Crops().batch(0, 0)
    options = dict(squared=False, smooth=1e-5, smooth_numerator=1e-5)
    expected = 1 - np.asarray(losses.dice_loss(y, x[..., :2], **options))
    np.testing.assert_allclose(soft_dice(y, x[..., :2]), expected, rtol=1e-6)


@pytest.mark.parametrize("apart", [False, True])
def test_batches_count_by_their_samples(apart):
    loss = losses.get("dice_and_focal", output_weights=(1.0, 0.5, 0.25))
    found = score_crops(Network(apart), Crops(), loss)
    (x, y), (x_last, y_last) = (Crops().batch(0, step) for step in (0, 1))
    each = soft_dice(y, x[..., :2]), soft_dice(y_last, x_last[..., :2])
    expected = (2 * each[0] + each[1]) / 3
    np.testing.assert_allclose([found["crop_dice", name] for name in ("WT", "ET")], expected)
    expected = (2 * float(loss(y, x)) + float(loss(y_last, x_last))) / 3
    assert found["loss", ""] == pytest.approx(expected, rel=1e-6)


def test_of_targets_with_one_name_the_first_counts():
    crops = Crops(targets=(("WT", (1, 2, 3)), ("WT", (1, 2, 3))))
    found = score_crops(Network(), crops, lambda y, p: 0.0)
    once = score_crops(Network(), Crops(), lambda y, p: 0.0)
    assert found["crop_dice", "WT"] == once["crop_dice", "WT"]


def test_loss_and_dice_slice_by_slice():
    """Each of the five slices is scored as a batch of its own, with the loss of three outputs."""
    loss = losses.get("dice_and_focal", output_weights=(1.0, 0.5, 0.25))
    x, y = Crops().batch(0, 0)
    found = score_batch(y, [x], ("WT", "ET"), loss)
    parts = [(y[:, :, :, z], x[:, :, :, z]) for z in range(5)]
    expected = np.mean([float(loss(*part)) for part in parts])
    assert found["loss_by_slice", ""] == pytest.approx(expected, rel=1e-6)
    expected = np.mean([soft_dice(q, p[..., :2]) for q, p in parts], axis=0)
    np.testing.assert_allclose(
        [found["crop_dice_by_slice", name] for name in ("WT", "ET")], expected
    )


def test_a_slice_without_a_region_costs_one_whatever_is_predicted():
    """Why the losses of 2-D and 3-D networks are not on one scale: one of two slices has a voxel,
    and p = 0.999 and 0.001 is nearly perfect.

    Dice of the crop: 1 - 2 * 0.999 / (0.999 + 7 * 0.001 + 1); of the empty slice of 4 voxels
    1 - 1e-5 / (4 * 0.001 + 1e-5). The focal part is below 1e-6 in both.
    """
    y = np.zeros((1, 2, 2, 2, 1), "float32")
    y[0, 0, 0, 0] = 1
    p = np.where(y > 0, 0.999, 0.001).astype("float32")
    loss = losses.get("dice_and_focal")
    found = score_batch(y, [p], ("WT",), loss)
    assert found["loss", ""] == pytest.approx(1 - 1.998 / 2.006, abs=1e-4)
    full, empty = 1 - 1.998 / 2.002, 1 - 1e-5 / 0.00401
    assert found["loss_by_slice", ""] == pytest.approx((full + empty) / 2, abs=1e-4)
    assert empty > 0.99


def test_the_loss_of_the_main_output_is_the_same_for_all_networks():
    """Whatever the network was trained with: one output of the code, of weight 1."""
    x, y = Crops().batch(0, 0)
    found = score_batch(y, [x[..., :2], x[..., 2:4]], ("WT", "ET"), lambda q, p: 7.0)
    expected = float(losses.get("dice_and_focal")(y, x[..., :2]))
    assert found["main_loss", ""] == pytest.approx(expected, rel=1e-6)
    assert found["loss", ""] == found["loss_by_slice", ""] == 7


def test_outside_is_what_lies_beyond_the_mask():
    # WT: 0.2 + 0.1 of 1.0; ET: nothing is predicted.
    truth = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    probabilities = np.array([[0.7, 0.0], [0.2, 0.0], [0.1, 0.0]])
    np.testing.assert_allclose(outside(truth, probabilities), [0.3, 0.0])


def test_the_first_output_of_figure_11_is_the_last_head():
    """sample_out_viz.py draws outputs[2], then outputs[1], then the main output."""
    found = in_order_of_figure_11([np.full(1, float(n)) for n in range(3)])
    assert {name: value.item() for name, value in found.items()} == {
        "outside_first_ds": 2,
        "outside_second_ds": 1,
        "outside_prediction": 0,
    }
    assert list(found) == ["outside_first_ds", "outside_second_ds", "outside_prediction"]


def test_a_network_of_slices_sees_one_of_each_crop():
    class OfSlices:
        def predict_on_batch(self, x):
            assert x.shape == (2, 4, 3, 6)
            return [x[..., :2], 2 * x[..., :2]]

    x, _ = Crops().batch(0, 0)
    first, second = SliceBySlice(OfSlices()).predict_on_batch(x)
    np.testing.assert_array_equal(first, x[..., :2])
    np.testing.assert_array_equal(second, 2 * x[..., :2])

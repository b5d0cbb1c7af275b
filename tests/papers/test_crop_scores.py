"""crop_scoring.py by arithmetic on paper and against the loss that the authors trained with."""

from dataclasses import dataclass

import numpy as np
import pytest

from experiments.fmnet2023.crop_scores import score_crops, soft_dice
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
    assert list(found) == ["WT", "ET", "loss"]
    np.testing.assert_allclose([found["WT"], found["ET"]], expected)
    expected = (2 * float(loss(y, x)) + float(loss(y_last, x_last))) / 3
    assert found["loss"] == pytest.approx(expected, rel=1e-6)


def test_of_targets_with_one_name_the_first_counts():
    crops = Crops(targets=(("WT", (1, 2, 3)), ("WT", (1, 2, 3))))
    found = score_crops(Network(), crops, lambda y, p: 0.0)
    assert list(found) == ["WT", "loss"]
    assert found["WT"] == score_crops(Network(), Crops(), lambda y, p: 0.0)["WT"]

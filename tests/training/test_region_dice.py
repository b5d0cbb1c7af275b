"""The soft Dice of each region in the log of a training."""

import numpy as np
import pytest

from keras_medseg.training.metrics import RegionDice


def test_dice_of_a_batch_as_a_whole_weighted_by_samples():
    """Channel 1 of three. Two samples: 2 * 1.3 / (1.7 + 2) with 1e-5 above and below, as by the
    code of fmnet2023; then one sample: nothing annotated, nothing predicted, which is 1."""
    truth, found = np.zeros((2, 1, 2, 3), "float32"), np.zeros((2, 1, 2, 3), "float32")
    truth[:, 0, 0, 1] = 1
    found[..., 1] = [[[0.8, 0.4]], [[0.5, 0.0]]]
    found[..., 0] = 0.9
    metric = RegionDice(1, 3, name="dice_TC")
    metric.update_state(truth, found)
    first = (2.6 + 1e-5) / (3.7 + 1e-5)
    assert float(metric.result()) == pytest.approx(first, rel=1e-6)
    metric.update_state(np.zeros((1, 1, 2, 3), "float32"), np.zeros((1, 1, 2, 3), "float32"))
    assert float(metric.result()) == pytest.approx((2 * first + 1) / 3, rel=1e-6)
    again = RegionDice.from_config(metric.get_config())
    assert (again.channel, again.name) == (1, "dice_TC")


def test_logits_of_exclusive_classes_become_probabilities_together():
    """Softmax of (0, log 3) is (1/4, 3/4); auxiliary channels behind them do not matter."""
    logits = np.full((1, 1, 1, 4), 100.0, "float32")
    logits[..., :2] = [0, np.log(3)]
    metric = RegionDice(1, 2, "softmax", name="dice_ligament")
    metric.update_state(np.array([[[[0.0, 1.0]]]], "float32"), logits)
    assert float(metric.result()) == pytest.approx((1.5 + 1e-5) / (1.75 + 1e-5), rel=1e-6)

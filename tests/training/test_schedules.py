"""Learning-rate rules by hand; what they do in a training is test_fit.py's."""

import keras
import pytest

from keras_medseg.training import schedules

from ..recipes import small_recipe


def train(schedule, options, epochs=4):
    changes = {"train.schedule": schedule, "train.schedule_options": options}
    return small_recipe({**changes, "train.epochs": epochs}).train


def test_the_polynomial_rule_by_hand():
    """Myronenko's rule with power 0.9 over 4 epochs: 0.01 * (1 - e / 4) ** 0.9."""
    found = [schedules.polynomial(train("polynomial", {"power": 0.9}), e) for e in range(4)]
    assert found == pytest.approx([0.01, 0.01 * 0.75**0.9, 0.01 * 0.5**0.9, 0.01 * 0.25**0.9])


def test_the_cosine_by_hand():
    """Half a cosine over 4 epochs: 1, (1 + sqrt(1/2)) / 2, 1/2, (1 - sqrt(1/2)) / 2 of the rate."""
    found = [schedules.cosine(train("cosine", {}), epoch) for epoch in range(5)]
    assert found == pytest.approx([0.01, 0.01 * 0.8535534, 0.005, 0.01 * 0.1464466, 0])
    longer = train("cosine", {"period": 8, "minimum": 0.002})
    found = [schedules.cosine(longer, epoch) for epoch in (0, 4, 8)]
    assert found == pytest.approx([0.01, 0.006, 0.002])


def test_the_rule_of_steps_by_hand():
    """Epochs are counted from 0: after=(2, 3) lowers the rate from the third and the fourth on."""
    chosen = train("steps", {"after": (2, 3), "factor": 0.5})
    found = [schedules.step_decay(chosen, epoch) for epoch in range(4)]
    assert found == pytest.approx([0.01, 0.01, 0.005, 0.0025])
    default = train("steps", {"after": (1,)})
    assert schedules.step_decay(default, 1) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("monitor", "values", "expected"),
    [
        # Patience 1, min_delta 0.05: a rise is progress, two epochs without one are not.
        ("val_accuracy", (0.5, 0.6, 0.7, 0.8), 0.01),
        ("val_accuracy", (0.8, 0.7, 0.6), 0.01 * 0.1 * 0.1),
        ("val_accuracy", (0.7, 0.8, 0.8), 0.01 * 0.1),
        ("val_loss", (0.8, 0.7, 0.6), 0.01),
        ("val_loss", (0.5, 0.6, 0.7), 0.01 * 0.1 * 0.1),
        # Up, then down: the other direction would give 0.1^3 of it, and 0.1 of it.
        ("val_dice", (0.5, 0.7, 0.6, 0.7), 0.01 * 0.1 * 0.1),
        ("val_dice", (0.7, 0.5, 0.6), 0.01 * 0.1 * 0.1),
        ("val_accuracy", (0.5, 0.7, 0.6, 0.7), 0.01 * 0.1 * 0.1),
    ],
)
def test_a_plateau_of_the_accuracy_is_one_that_does_not_rise(monitor, values, expected):
    options = {"monitor": monitor, "factor": 0.1, "patience": 1, "min_delta": 0.05}
    chosen = train("plateau", options)
    others = {"val_loss": 0.5, "val_accuracy": 0.5, "val_dice": 0.5}
    log = [{**others, monitor: value} for value in values]
    assert rate_after(chosen, log) == pytest.approx(expected)


def rate_after(chosen, log):
    """The learning rate after the epochs of a log."""
    [callback] = schedules.schedule_callbacks(chosen, log)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(chosen.learning_rate))
    callback.set_model(model)
    callback.on_train_begin()
    return float(model.optimizer.learning_rate)


@pytest.mark.parametrize(("patience", "reductions"), [(10, 1), (9, 2), (5, 3), (2, 9)])
def test_in_twenty_epochs_only_a_patience_below_ten_acts_again(patience, reductions):
    """A quantity stands still: the rate falls after epochs 1 + patience, 1 + 2 patience, ..."""
    options = {"monitor": "val_dice", "factor": 0.5, "patience": patience}
    found = rate_after(train("plateau", options, epochs=20), [{"val_dice": 0.5}] * 20)
    assert found == pytest.approx(0.01 * 0.5**reductions)


@pytest.mark.parametrize(
    ("schedule", "options", "words"),
    [
        ("plateu", {}, "train.schedule: found 'plateu'.*mean 'plateau'"),
        ("plateau", {}, "expected 'monitor' among them for the schedule 'plateau'"),
        ("plateau", {"monitor": "loss", "power": 1}, "options of plateau: found 'power'"),
        ("plateau", {"monitor": "val_dise"}, "monitor: found 'val_dise'.*mean 'val_dice'"),
        ("steps", {}, "expected 'after'"),
    ],
)
def test_wrong_rules_and_options_are_named(schedule, options, words):
    with pytest.raises(ValueError, match=words):
        schedules.check_schedule(train(schedule, options))

"""Learning-rate rules by hand; what they do in a training is test_fit.py's."""

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


def test_the_rule_of_steps_by_hand():
    """Epochs are counted from 0: after=(2, 3) lowers the rate from the third and the fourth on."""
    chosen = train("steps", {"after": (2, 3), "factor": 0.5})
    found = [schedules.step_decay(chosen, epoch) for epoch in range(4)]
    assert found == pytest.approx([0.01, 0.01, 0.005, 0.0025])
    default = train("steps", {"after": (1,)})
    assert schedules.step_decay(default, 1) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("schedule", "options", "words"),
    [
        ("plateu", {}, "train.schedule: found 'plateu'.*mean 'plateau'"),
        ("plateau", {}, "expected 'monitor' among them for the schedule 'plateau'"),
        ("plateau", {"monitor": "loss", "power": 1}, "options of plateau: found 'power'"),
        ("steps", {}, "expected 'after'"),
    ],
)
def test_wrong_rules_and_options_are_named(schedule, options, words):
    with pytest.raises(ValueError, match=words):
        schedules.check_schedule(train(schedule, options))

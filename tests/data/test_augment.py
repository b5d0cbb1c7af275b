"""augment.py: what a sample gets depends on (seed, epoch, index) alone."""

import subprocess
import sys

import numpy as np
import pytest

from keras_medseg.data.transforms import augment


def test_a_sample_keeps_its_flips_when_others_are_added():
    assert np.array_equal(augment.draw_flips(3, 5, 10), augment.draw_flips(3, 5, 1000)[:10])


def test_flips_are_the_same_in_another_process():
    code = (
        "from keras_medseg.data.transforms import augment;"
        "print(augment.draw_flips(3, 5, 8).tolist())"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == str(augment.draw_flips(3, 5, 8).tolist())


@pytest.mark.parametrize("other", [(4, 5), (3, 6), (5, 3)])
def test_another_seed_or_epoch_flips_otherwise(other):
    assert not np.array_equal(augment.draw_flips(3, 5, 100), augment.draw_flips(*other, 100))


def test_all_four_combinations_are_equally_likely():
    drawn = augment.draw_flips(0, 0, 40_000)
    counts = np.bincount(drawn @ [1, 2], minlength=4)
    # Binomial (40,000, 1/4): mean 10,000, standard deviation 87.
    assert np.all(np.abs(counts - 10_000) < 5 * 87)


def test_what_is_cached_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        augment.draw_flips(0, 0, 4)[0] = True

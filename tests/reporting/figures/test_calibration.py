import numpy as np
import pytest

from keras_medseg.evaluation.calibration import Reliability, reliability
from keras_medseg.reporting.figures import calibration, style


def test_points_are_the_shares_of_the_bins(tmp_path):
    bins = Reliability(np.array([6, 0, 2]), np.array([0.6, 0.0, 1.8]), np.array([3, 0, 2]))
    figure = calibration.reliability_curves({"WT": bins, "with_edge": bins})
    above, below = figure.axes
    diagonal, curve, other = above.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert curve.get_xydata().tolist() == [[pytest.approx(0.1), 0.5], [0.9, 1.0]]  # no empty bin
    assert below.lines[0].get_ydata().tolist() == [0.75, 0.25]
    # |3 - 0.6| + |2 - 1.8| = 2.6 of 8.
    labels = [text.get_text() for text in above.get_legend().get_texts()]
    assert labels == ["calibrated", "WT, ECE 0.3250", "with edge, ECE 0.3250"]
    assert curve.get_color() == style.REGION_COLORS["WT"] != other.get_color()
    assert curve.get_marker() != other.get_marker()
    assert style.save(figure, tmp_path / "reliability.png").stat().st_size > 10_000


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="bins: found none"):
        calibration.reliability_curves({})
    empty = reliability(np.zeros(0), np.zeros(0, bool))
    with pytest.raises(ValueError, match="bins: found no elements of WT"):
        calibration.reliability_curves({"WT": empty})

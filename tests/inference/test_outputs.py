"""From maps of probabilities to one label map."""

import numpy as np
import pytest

from keras_medseg.data.datasets.brats import (
    BACKGROUND,
    CYST,
    EDEMA,
    ENHANCING,
    NECROTIC,
    REGIONS,
    RESECTION,
    Brats,
)
from keras_medseg.inference.outputs import by_region, merge_regions, most_likely

NESTING = Brats().nesting


def test_merge_regions_for_every_combination():
    # Columns: WT, TC, ET predicted or not; last the label by intersection with the larger.
    table = [
        (0, 0, 0, BACKGROUND),
        (1, 0, 0, EDEMA),
        (1, 1, 0, NECROTIC),
        (1, 1, 1, ENHANCING),
        (1, 0, 1, EDEMA),
        (0, 1, 0, BACKGROUND),
        (0, 0, 1, BACKGROUND),
        (0, 1, 1, BACKGROUND),
    ]
    whole, core, enhancing, expected = np.array(table).T
    # The order of the mapping does not matter.
    labels = merge_regions({"ET": enhancing, "WT": whole, "TC": core}, REGIONS, NESTING)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)
    # The regions of the merged map are nested, and WT is as it was predicted.
    in_region = {name: np.isin(labels, codes) for name, codes in REGIONS.items()}
    np.testing.assert_array_equal(in_region["WT"], whole == 1)
    np.testing.assert_array_equal(in_region["TC"], (whole & core) == 1)
    np.testing.assert_array_equal(in_region["ET"], (whole & core & enhancing) == 1)


def test_merge_regions_threshold_is_exclusive():
    probability = np.array([0.2, 0.3, 0.31, 0.5, 0.51])
    assert merge_regions({"WT": probability}, REGIONS, NESTING).tolist() == [0, 0, 0, 0, 2]
    assert merge_regions({"WT": probability}, REGIONS, NESTING, threshold=0.3).tolist() == [
        0,
        0,
        2,
        2,
        2,
    ]


def test_regions_side_by_side_compete_at_each_level():
    """The resection cavity beside WT; cyst, enhancing and rest within the core of children."""
    cavity = Brats(release="BraTS2024-GLI")
    maps = {
        "WT": np.array([0.9, 0.6, 0.9, 0.2, 0.7]),
        "ET": np.array([0.9, 0.9, 0.9, 0.9, 0.1]),
        "RC": np.array([0.8, 0.7, 0.4, 0.6, 0.7]),
    }
    # Likelier as tumor; as cavity (whose enhancing core is then none); tumor; cavity alone; a tie,
    # which the first in order wins, as edema.
    merged = merge_regions(maps, cavity.regions, cavity.nesting)
    assert merged.tolist() == [ENHANCING, RESECTION, ENHANCING, RESECTION, EDEMA]
    children = Brats(release="BraTS2024-PED")
    maps = {
        "CC": np.array([0.8, 0.6, 0.9, 0.1]),
        "ET": np.array([0.7, 0.9, 0.9, 0.1]),
        "TC": np.array([0.9, 0.9, 0.4, 0.9]),
        "WT": np.array([0.9, 0.9, 0.9, 0.9]),
    }
    merged = merge_regions(maps, children.regions, children.nesting)
    assert merged.tolist() == [CYST, ENHANCING, EDEMA, NECROTIC]


def test_merge_regions_refuses_what_it_cannot_merge():
    one = np.ones((2, 2))
    with pytest.raises(ValueError, match=r"found regions \['NCR', 'WT'\], expected one or more"):
        merge_regions({"WT": one, "NCR": one}, REGIONS, NESTING)
    with pytest.raises(ValueError, match=r"found regions \[\]"):
        merge_regions({}, REGIONS, NESTING)
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 3\)"):
        merge_regions({"WT": one, "TC": np.ones((2, 3))}, REGIONS, NESTING)


def test_most_likely_by_hand():
    # Columns: probabilities of a and b, and the label: 2 for a, 5 for b, 0 below the threshold.
    table = [(0.9, 0.2, 2), (0.6, 0.7, 5), (0.5, 0.4, 0), (0.51, 0.51, 2), (0.0, 0.8, 5)]
    a, b, expected = np.array(table).T
    labels = most_likely({"a": a, "b": b}, {"b": (5, 6), "a": (2,)})
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)
    with pytest.raises(ValueError, match=r"found regions \['c'\]"):
        most_likely({"c": a}, {"a": (1,)})


def test_outputs_are_named_in_the_order_of_their_channels():
    maps = np.arange(12).reshape(2, 3, 2)
    found = by_region(("WT", "TC"), maps)
    np.testing.assert_array_equal(found["TC"], maps[..., 1])
    with pytest.raises(ValueError, match=r"networks\['WT'\]: found 2 output channels, expected 1"):
        by_region(("WT",), maps)

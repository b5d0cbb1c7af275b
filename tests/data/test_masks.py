"""masks.py: gray codes of a mask -> label codes."""

from pathlib import Path

import numpy as np
import pytest

from keras_medseg.data.formats import masks
from keras_medseg.errors import DataError

PATH = Path("m.png")


def _mask(**counts: int) -> np.ndarray:
    """(40, 50) with so many pixels of each value (v7=3: three sevens), the rest 0."""
    flat = np.zeros(2000, np.uint8)
    values = [int(name[1:]) for name, count in counts.items() for _ in range(count)]
    flat[: len(values)] = values
    return flat.reshape(40, 50)


@pytest.mark.parametrize("value", [1, 7, 128, 255])
def test_zero_and_one_other_value(value):
    codes = _mask(**{f"v{value}": 30})
    labels, remark = masks.labels_of_object(codes, PATH)
    np.testing.assert_array_equal(labels, codes > 0)
    assert (labels.dtype, remark) == (np.uint8, "")


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (1, 1), (255, 1)])
def test_constant_masks_that_make_sense(value, expected):
    labels, _ = masks.labels_of_object(np.full((4, 5), value, np.uint8), PATH)
    assert np.unique(labels).tolist() == [expected]


def test_gray_edges_are_cut_at_127():
    # 60 of 2000 pixels, 3 %, lie between 32 and 223; 31 and 224 count to the ends.
    codes = _mask(v255=300, v127=30, v128=30, v31=100, v224=100)
    labels, remark = masks.labels_of_object(codes, PATH)
    assert labels.sum() == 300 + 30 + 100
    np.testing.assert_array_equal(labels, codes > 127)
    assert remark == (
        "m.png: found 6 gray values, expected 0 and one other. Those over 127 count as object."
    )


@pytest.mark.parametrize(
    "codes",
    [
        _mask(v255=300, v127=30, v128=31, v31=100, v224=100),  # 61 pixels between, over 3 %
        _mask(v51=100, v102=100),  # classes
        _mask(v1=100, v2=100, v3=5, v4=5),  # classes counted from 1
        _mask(v1=20, v255=20),  # three values are no edge
        np.full((4, 5), 7, np.uint8),
    ],
)
def test_masks_that_are_not_binary(codes):
    with pytest.raises(DataError, match=r"m\.png: found gray values .*, expected 0 and one other"):
        masks.labels_of_object(codes, PATH)


@pytest.mark.parametrize("codes", [_mask(v254=90, v255=300), _mask(v1=50, v254=90, v255=300)])
def test_the_noise_of_the_best_jpeg_is_no_class(codes):
    labels, remark = masks.labels_of_object(codes, PATH)
    np.testing.assert_array_equal(labels, codes > 127)
    assert "over 127 count as object" in remark


def test_message_counts_the_commonest_values():
    with pytest.raises(DataError) as caught:
        masks.labels_of_object(_mask(v5=1, v50=9, v60=2, v70=3, v80=4), PATH)
    found = "0 (1981 pixels), 50 (9 pixels), 80 (4 pixels), 70 (3 pixels), ..."
    assert f"found gray values {found}, expected" in str(caught.value)


def test_first_class_is_label_1():
    table = masks.code_table({"background": (10,), "femur": (102, 103), "patella": (153,)})
    assert table.codes == (0, 10, 102, 103, 153)
    assert table.labels.tolist() == [0, 0, 1, 1, 2]
    labels, remark = masks.labels_of_classes(_mask(v10=3, v103=4, v153=5), table, PATH)
    assert np.bincount(labels.ravel()).tolist() == [1991, 4, 5]
    assert remark == ""


def test_zero_may_be_a_class():
    table = masks.code_table({"all": (0,), "rest": (255,)})
    assert (table.codes, table.labels.tolist()) == ((0, 255), [1, 2])


def test_colors_and_gray_values_beside_them():
    table = masks.code_table({"polyp": ("#ff0000",), "tool": ("#00FF01",), "background": (128,)})
    # Red is 255 * 65536, (0, 255, 1) is 255 * 256 + 1, and gray 128 is (128, 128, 128).
    assert table.codes == (0, 65281, 8421504, 16711680)
    assert table.labels.tolist() == [0, 2, 0, 1]
    codes = np.zeros((4, 5, 3), np.uint8)
    codes[:2] = (255, 0, 0)
    codes[2] = (0, 255, 1)
    codes[3] = 128
    labels, remark = masks.labels_of_classes(codes, table, PATH)
    assert labels.tolist() == [[1] * 5, [1] * 5, [2] * 5, [0] * 5]
    assert remark == ""
    codes[0, 0] = (254, 0, 0)  # 1 of 20 pixels, 5 %
    labels, remark = masks.labels_of_classes(codes, table, PATH)
    assert labels[0].tolist() == [1] * 5
    assert "found colors #fe0000 (1 pixels), expected #000000, #00ff01, #808080, #ff0000" in remark
    codes[0, 1] = (254, 0, 0)
    with pytest.raises(DataError, match=r"found colors #fe0000 \(2 pixels\).*Name all classes"):
        masks.labels_of_classes(codes, table, PATH)


def test_code_between_two_classes_takes_the_nearest_pixels():
    codes = np.zeros((10, 10), np.uint8)
    codes[:, 4:] = 153
    codes[:, 4] = 104  # nearer in value to 102, but a neighbour of 153 and as near to 0
    codes[5, 9] = 60
    table = masks.code_table({"femur": (102,), "patella": (153,)})
    codes[:5, 4] = 0
    codes[:, 3] = 0
    codes[6:, 4] = 153
    labels, remark = masks.labels_of_classes(codes, table, PATH)
    assert labels[5, 9] == 2
    assert labels[5, 4] in (0, 2)
    assert 1 not in labels
    assert "found gray codes 60 (1 pixels), 104 (1 pixels), expected 0, 102, 153." in remark


@pytest.mark.parametrize(("count", "accepted"), [(100, True), (101, False)])
def test_off_grid_codes_are_limited(count, accepted):
    # 100 of 2000 pixels are 5 %.
    codes, table = _mask(v51=count, v153=500), masks.code_table({"patella": (153,)})
    if accepted:
        assert masks.labels_of_classes(codes, table, PATH)[1]
        return
    with pytest.raises(DataError, match=r"51 \(101 pixels\), expected 0, 153\. Name all classes"):
        masks.labels_of_classes(codes, table, PATH)


@pytest.mark.parametrize(
    "classes",
    [
        {},
        {"background": (1,)},
        {"a": ()},
        {"a": (256,)},
        {"a": (-1,)},
        {"a": (1,), "b": (1, 2)},
        {"a": ("red",)},
        {"a": ("#f00",)},
        {"a": (1.0,)},
        {"a": (True,)},
        {"a": ("#ffffff", 255)},
    ],
)
def test_classes_that_make_no_sense(classes):
    with pytest.raises(ValueError, match="classes: found"):
        masks.code_table(classes)

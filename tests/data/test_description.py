"""dataset.json, labels.json and the head of cases.csv: read as they are meant, or refused."""

import json

import pytest

from keras_medseg.data.formats.description import nesting_of, read_description
from keras_medseg.errors import DataError

TWO = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "tumor": 1}}
REGIONS = {
    "channel_names": {"0": "T1"},
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
    "regions_class_order": [1, 2, 3],
}
# As the Decathlon's brain tumors describe themselves, in part.
VERSION_1 = {
    "name": "BRATS",
    "modality": {"0": "FLAIR", "1": "T1w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor"},
}


def write(folder, content, name="dataset.json"):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text)
    return folder


def test_labels_of_version_2(tmp_path):
    described = read_description(write(tmp_path, TWO))
    assert described.name == tmp_path.name
    assert described.channels == ("T1", "FLAIR")
    assert described.label_codes == {"tumor": 1}
    assert described.region_codes == {"tumor": (1,)}
    assert described.nesting == {}


def test_labels_of_version_1(tmp_path):
    described = read_description(write(tmp_path, VERSION_1))
    assert described.name == "BRATS"
    assert described.channels == ("FLAIR", "T1w")
    assert described.label_codes == {"edema": 1, "non-enhancing tumor": 2}


def test_regions_and_their_class_order(tmp_path):
    """The order is the code that nnU-Net writes for what is in a region and in none inside it."""
    described = read_description(write(tmp_path, REGIONS))
    assert described.region_codes == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert described.nesting == {"whole": 1, "core": 2, "enhancing": 3}
    assert described.label_codes == {"whole, rest": 1, "core, rest": 2, "enhancing": 3}


def test_channels_with_one_name_are_numbered(tmp_path):
    """nnU-Net chooses the normalization by the name, so names repeat."""
    same = {**TWO, "channel_names": {"0": "noNorm", "1": "noNorm", "2": "CT"}}
    described = read_description(write(tmp_path, same))
    assert described.channels == ("noNorm 0", "noNorm 1", "CT")


def test_labels_json_beside_a_table(tmp_path):
    (tmp_path / "cases.csv").write_text("id,t1,flair,label,group\n1,a.nii,b.nii,c.nii,p\n")
    labels = {
        "labels": {"edema": 2, "core": 1},
        "regions": {"whole": ["edema", 1], "core": ["core"]},
        "missing_modalities": ["flair"],
    }
    described = read_description(write(tmp_path, labels, "labels.json"))
    assert described.channels == ("t1", "flair")
    assert described.label_codes == {"edema": 2, "core": 1}
    assert described.region_codes == {"whole": (2, 1), "core": (1,)}
    assert described.nesting == {"whole": 2, "core": 1}
    assert described.may_miss == ("flair",)


def test_labels_json_adds_regions_to_dataset_json(tmp_path):
    write(tmp_path, VERSION_1)
    write(tmp_path, {"regions": {"whole": [1, 2]}}, "labels.json")
    described = read_description(tmp_path)
    assert described.label_codes == {"edema": 1, "non-enhancing tumor": 2}
    assert described.region_codes == {"whole": (1, 2)}
    write(tmp_path, {"missing_modalities": ["T1w"]}, "labels.json")
    described = read_description(tmp_path)
    assert described.region_codes == {"edema": (1,), "non-enhancing tumor": (2,)}
    assert described.may_miss == ("T1w",)


def test_a_rest_that_is_not_clear_is_asked_for(tmp_path):
    regions = {"whole": (1, 2, 3), "core": (3,), "air": (4,)}
    with pytest.raises(DataError, match=r"voxels of 'whole' .*\"nesting\": .*one of \[1, 2\]"):
        nesting_of(tmp_path, regions, {})
    assert nesting_of(tmp_path, regions, {"whole": 2}) == {"whole": 2, "core": 3, "air": 4}
    # Both sides of a tree; the inner regions cover the outer one.
    tree = {"liver": (1, 2), "a": (1,), "b": (2,)}
    with pytest.raises(DataError, match=r"one of \[1, 2\]"):
        nesting_of(tmp_path, tree, {})
    assert nesting_of(tmp_path, tree, {"liver": 1})["liver"] == 1
    assert nesting_of(tmp_path, {"a": (1,), "b": (2, 3)}, {}) == {}


DAMAGED = [
    ("", r"no JSON \(Expecting value: line 1 column 1"),
    ("{'labels': 1}", "no JSON"),
    ('{"labels": {}, "labels": {}}', "the key 'labels' twice"),
    ("[1]", r"found \[1\], expected a JSON object"),
    ({"labels": TWO["labels"]}, "found no channel_names"),
    ({**TWO, "channel_names": ["T1"]}, r"channel_names \[\"T1\"\].*numbered from 0"),
    ({**TWO, "channel_names": {"1": "T1"}}, "numbered from 0"),
    ({**TWO, "channel_names": {"0": "T1", "2": "T2"}}, "numbered from 0"),
    ({**TWO, "channel_names": {"0": ""}}, "channel_names"),
    ({**TWO, "channel_names": {"0": "T1\nT2"}}, "channel_names"),
    ({**TWO, "labels": {"background": 0, "tumor\n": 1}}, "labels"),
    ({**TWO, "labels": {"background": 0}}, "a background and at least one label"),
    ({**TWO, "labels": None}, "labels null"),
    ({**TWO, "labels": {"tumor": 1, "cyst": 2}}, "background None among the labels"),
    ({**TWO, "labels": {"background": 0, "tumor": 1.5}}, "'tumor' with the code 1.5"),
    ({**TWO, "labels": {"background": 0, "tumor": 256}}, "code 256, expected a whole number from"),
    ({**TWO, "labels": {"background": 0, "tumor": 0}}, "code 0, expected"),
    ({**TWO, "labels": {"background": 0, "tumor": True}}, "code True"),
    ({**TWO, "labels": {"background": 0, "a": 1, "b": 1}}, "the code 1 for a and b"),
    ({**TWO, "labels": {"background": 0, "a": 1, "ignore": 2}}, 'label "ignore"'),
    ({**TWO, "labels": {"0": "background", "1": ""}}, "label 1 named ''"),
    ({**TWO, "labels": {"0": "background", "1": "a", "2": "a"}}, "label 2 named 'a'"),
    ({**TWO, "file_ending": ".png"}, r"file_ending '\.png', expected one of \.nii\.gz"),
    (
        {**REGIONS, "regions_class_order": [1, 2]},
        r"regions_class_order \[1, 2\], expected for each",
    ),
    ({**REGIONS, "regions_class_order": None}, "regions_class_order null"),
    ({**REGIONS, "regions_class_order": [3, 2, 1]}, r"\[3, 2, 1\]"),
    ({**REGIONS, "regions_class_order": [2, 2, 3]}, r"\[2, 2, 3\]"),
    (
        {
            **REGIONS,
            "labels": {"background": 0, "a": [1, 2], "b": [2, 3]},
            "regions_class_order": [1, 2],
        },
        "all codes",
    ),
]


@pytest.mark.parametrize(("content", "message"), DAMAGED)
def test_damaged_dataset_json(content, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        read_description(write(tmp_path, content))
    assert str(caught.value).startswith(str(tmp_path / "dataset.json"))
    assert "\n" not in str(caught.value)


GOOD = {"labels": {"edema": 2, "core": 1, "air": 3}}
DAMAGED_LABELS = [
    (None, r"no such file.*\"labels\": \{\"tumor\": 1\}"),
    ({}, "no labels"),
    ({**GOOD, "region": {}}, r"entry 'region'.*Did you mean 'regions'\?"),
    ({"labels": {"edema": "2"}}, "code '2'"),
    ({"labels": {"edema": [2]}}, "code"),
    ({"labels": {"background": 1, "edema": 2}}, "background is 0"),
    ({"labels": {"background": 0}}, "names with their codes"),
    ({"labels": ["edema"]}, "as a JSON object"),
    ({**GOOD, "regions": {"whole": "edema"}}, "region 'whole' as \"edema\", expected a list"),
    ({**GOOD, "regions": {"whole": []}}, "expected a list of its labels"),
    ({**GOOD, "regions": {}}, "no regions"),
    ({**GOOD, "regions": {"whole": ["oedema"]}}, r"label 'oedema'.*Did you mean 'edema'\?"),
    ({**GOOD, "regions": {"whole": [7]}}, "label 7"),
    ({**GOOD, "regions": {"a": [1, 2], "b": [2, 3]}}, r"overlapping regions 'a' \[1, 2\] and 'b'"),
    ({**GOOD, "regions": {"a": [1, 2], "b": [2, 1]}}, "equal regions 'a'"),
    ({**GOOD, "regions": {"a": [1, 2, 3], "b": [1]}}, r"'a' that are in no .*one of \[2, 3\]"),
    ({**GOOD, "regions": {"a": [1, 2], "b": [1]}, "nesting": {"a": 3}}, "voxels of 'a'"),
    ({**GOOD, "regions": {"a": [1, 2], "b": [1]}, "nesting": {"c": 1}}, "nesting 'c'"),
    ({**GOOD, "missing_modalities": "t1"}, "a list of their names"),
    ({**GOOD, "missing_modalities": ["T1"]}, r"missing_modalities 'T1', expected one of: t1, fl"),
]


@pytest.mark.parametrize(("content", "message"), DAMAGED_LABELS)
def test_damaged_labels_json(content, message, tmp_path):
    (tmp_path / "cases.csv").write_text("id,t1,flair,label\n1,a.nii,b.nii,c.nii\n")
    if content is not None:
        write(tmp_path, content, "labels.json")
    with pytest.raises(DataError, match=message) as caught:
        read_description(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "labels.json"))
    assert "\n" not in str(caught.value)


def test_a_folder_without_any(tmp_path):
    with pytest.raises(DataError, match=r"found no dataset\.json and no cases\.csv"):
        read_description(tmp_path)

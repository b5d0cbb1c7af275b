import json

import pytest

from keras_medseg import recipe as r

from .recipes import small_recipe

SLICES = {
    "task": "Slices",
    "dataset": "brats",
    "window": (4, 4, 2),
    "normalization": "none",
    "flips": (),
    "validation": 0.5,
}
PATCHES = {
    "task": "Patches",
    "dataset": "brats",
    "patch": [8, 8, 4],
    "normalization": "none",
    "foreground_probability": 0,
    "validation": 0.25,
}


def set_fields(recipe, *assignments):
    """As --set does."""
    return r.override(recipe, r.parse_assignments(assignments))


@pytest.fixture
def recipe():
    return small_recipe({"data.flips": ("x",), "model.options": {"width": 4}, "train.epochs": 3})


def test_json_round_trip_is_equal_tuples_included(recipe):
    assert r.from_json(r.to_json(recipe)) == recipe


def test_override_sets_nested_values_and_leaves_the_rest(recipe):
    changes = {
        "train.epochs": 5,
        "data.window": (16, 16, 2),
        "model.options.depth": 2,
        "data.flips": "y",
    }
    new = r.override(recipe, changes)
    assert (new.train.epochs, new.data.window, new.data.flips) == (5, (16, 16, 2), ("y",))
    assert new.model.options == {"width": 4, "depth": 2}
    assert recipe.train.epochs == 3
    assert set(r.differences(new, recipe)) == {
        "train.epochs",
        "data.window",
        "data.flips",
        "model.options.depth",
    }


def test_text_of_the_command_line_gives_the_same_changes(recipe):
    texts = ["train.epochs=5", "data.window=(16,16,2)", "model.options.depth=2", "data.flips='y'"]
    assert r.parse_assignments(texts) == {
        "train.epochs": 5,
        "data.window": (16, 16, 2),
        "model.options.depth": 2,
        "data.flips": "y",
    }
    assert r.parse_assignments(["model.name=unet"]) == {"model.name": "unet"}


def test_floats_stay_floats_whichever_way_a_number_comes_in(recipe):
    """Code, the command line and JSON."""
    tree = r.to_tree(recipe)
    tree["train"]["learning_rate"] = 1
    for changed in (
        r.override(recipe, {"train.learning_rate": 1}),
        set_fields(recipe, "train.learning_rate=1"),
        r.from_json(json.dumps(tree)),
    ):
        assert type(changed.train.learning_rate) is float
        assert changed.train.learning_rate == 1.0


def test_lists_anywhere_come_back_from_json_as_they_were_set(recipe):
    """Else the same command could not resume its own run."""
    new = set_fields(
        recipe, "train.loss_options.weights=[1, 2]", "model.options={'sizes': [[1], {'a': [2]}]}"
    )
    assert new.train.loss_options == {"weights": (1, 2)}
    assert new.model.options == {"sizes": ((1,), {"a": (2,)})}
    assert r.from_json(r.to_json(new)) == new


@pytest.mark.parametrize("as_text", [False, True])
def test_other_data_can_take_the_place_of_a_recipes(recipe, as_text):
    data = {**PATCHES, "modalities": ("t2",)}
    changes = {"data": data, "data.overlap": 0.25, "train.epochs": 5}
    if as_text:
        changes = r.parse_assignments([f"{name}={value!r}" for name, value in changes.items()])
    new = r.override(recipe, changes)
    expected = r.Patches("brats", (8, 8, 4), "none", 0.0, 0.25, overlap=0.25, modalities=("t2",))
    assert new.data == expected == r.override(recipe, {"data": expected}).data
    assert type(new.data.foreground_probability) is float
    assert (new.train.epochs, new.model) == (5, recipe.model)
    assert r.from_json(r.to_json(new)) == new


def test_data_of_the_same_kind_begin_with_the_defaults(recipe):
    changed = r.override(recipe, {"data.slice_step": 3, "data": SLICES})
    assert changed.data == r.Slices("brats", (4, 4, 2), "none", (), 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"task": "Slice"}}, "data.task: found 'Slice', expected one of: Slices, Patches"),
        ({"data": {"window": (1, 1, 1)}}, "data.task: found None"),
        ({"data": {**PATCHES, "window": (1, 1, 1)}}, "data: field of Patches: found 'window'"),
        ({"data": {**PATCHES, "validation": "half"}}, "data.validation: found 'half', expected fl"),
        ({"data": {**PATCHES, "modalities": (1,)}}, r"data.modalities: found \(1,\), expected tup"),
        (
            {"data": {**PATCHES, "augment_on_device": 1}},
            "augment_on_device: found 1, expected bool",
        ),
        (
            {"data": "Slices"},
            "data: found 'Slices', expected Slices or Patches or Segments or Images",
        ),
        ({"data.size": (1, 1)}, "data.size: field: found 'size'"),
        ({"data.window": (16, 16)}, r"data.window: found \(16, 16\), expected tuple\[int, int, in"),
        ({"data.window": (16, 16, 0)}, r"data.window: found \(16, 16, 0\), expected sizes of 1"),
        ({"data.flips": ("z",)}, "data.flips: found 'z', expected one of: x, y"),
        ({"data.validation": 0}, "data.validation: found 0.0, expected a share between 0 and 1"),
        ({"data.test": 0.9}, "data.test: found 0.9, expected a share from 0 to less than 0"),
        ({"data.test": -0.1}, "data.test: found -0.1, expected a share from 0"),
        ({"data.slice_step": 0}, "data.slice_step: found 0, expected 1 or more"),
        ({"data.normalization": "z"}, "data.normalization: found 'z', expected one of: z_score"),
        ({"train": {"epochs": 2}}, "train: found no batch_size, optimizer, .* fields of Train"),
        ({"train.epoch": 2}, "Did you mean 'epochs'"),
        ({"train.epochs": "many"}, "train.epochs: found 'many', expected int"),
        ({"train.epochs": 2.5}, "train.epochs: found 2.5, expected int"),
        ({"train.epochs": 0}, "train.epochs: found 0, expected 1 or more"),
        ({"train.batch_size": 0}, "train.batch_size: found 0, expected 1 or more"),
        ({"train.seed": True}, "train.seed: found True, expected int"),
        ({"train.keep": "first"}, "train.keep: found 'first', expected one of: last, best"),
        ({"model.targets": "WT"}, "model.targets: found 'WT', expected tuple"),
        ({"model.targets": ("WT",)}, r"model.targets: found \('WT',\), expected tuple"),
        ({"model.targets": "((WT,),)"}, "model.targets: found .*, expected tuple"),
        ({"model.targets": ()}, r"model.targets: found \(\), expected the regions"),
        ({"model.targets": ((),)}, r"model.targets: found \(\(\),\), expected the regions"),
        ({"model.auxiliary": (1, 2)}, r"model.auxiliary: found \(1, 2\), expected tuple\[str"),
        ({"predict.smallest_component": "x"}, "predict.smallest_component: found 'x'"),
        ({"train.epochs.more": 1}, "train.epochs is a value, not a group"),
        ({"optim.x": 1}, "optim.x: field: found 'optim'"),
    ],
)
def test_whatever_is_wrong_is_named_by_code_and_command_line_alike(recipe, changes, words):
    with pytest.raises(ValueError, match=words):
        r.override(recipe, changes)
    texts = [f"{name}={value!r}" for name, value in changes.items()]
    with pytest.raises(ValueError, match=words):
        set_fields(recipe, *texts)


@pytest.mark.parametrize(
    ("section", "field", "value", "words"),
    [
        ("train", "epochs", "twenty", "train.epochs: found 'twenty', expected int"),
        ("predict", "smallest_component", "x", "predict.smallest_component: found 'x'"),
        ("data", "window", [8, 8], r"data.window: found \[8, 8\]"),
        ("model", "targets", [], "model.targets"),
        ("train", "epoch", 2, "train: field of Train: found 'epoch'.*Did you mean 'epochs'"),
    ],
)
def test_json_is_checked_as_everything_else_is(recipe, section, field, value, words):
    tree = r.to_tree(recipe)
    tree[section][field] = value
    with pytest.raises(ValueError, match=words):
        r.from_json(json.dumps(tree))


def test_a_recipe_in_code_is_checked_when_it_is_made():
    with pytest.raises(ValueError, match=r"data.validation: found 1.5"):
        r.Slices("brats", (8, 8, 4), "z_score", (), 1.5)
    with pytest.raises(ValueError, match=r"data.size: found"):
        r.Images("image_folders", (8, 8, 8), {}, "unit_range", 0.5)


def test_assignments_without_a_value_are_named():
    with pytest.raises(ValueError, match=r"--set train.epochs: found no '=', expected FIELD=VALUE"):
        r.parse_assignments(["train.epochs"])


def test_from_json_names_a_missing_section(recipe):
    tree = r.to_tree(recipe)
    del tree["train"]
    with pytest.raises(ValueError, match=r"found no train, expected the fields of Recipe"):
        r.from_json(json.dumps(tree))


@pytest.mark.parametrize("text", ["[]", "3", '{"data": 1}', "{}"])
def test_json_of_something_else_is_refused(text):
    with pytest.raises(ValueError, match=r"recipe"):
        r.from_json(text)


def test_a_recipe_written_before_a_field_existed_has_its_default(recipe):
    tree = json.loads(r.to_json(recipe))
    del tree["predict"], tree["model"]["auxiliary"], tree["train"]["init"]
    assert r.from_json(json.dumps(tree)) == recipe


def test_fields_of_version_0_1_are_read_under_their_new_names(recipe):
    """From JSON without a word, from the command line with one."""
    old = {
        "paper": "test",
        "data": {
            "kind": "Slices",
            "window": [48, 48, 24],
            "normalisation": "z_score",
            "flips": ["x"],
            "held_out": 0.3,
            "slice_step": 6,
        },
        "model": {
            "name": "residual_attention_unet",
            "networks": [["WT"], ["TC"], ["ET"]],
            "overrides": {"width": 4},
        },
        "train": r.to_tree(recipe)["train"],
    }
    assert r.from_json(json.dumps(old)) == recipe
    with pytest.warns(FutureWarning, match="model.overrides.stack is called model.options.framew"):
        changes = r.parse_assignments(["model.overrides.stack=pytorch"])
    assert changes == {"model.options.framework": "pytorch"}
    with pytest.warns(FutureWarning, match=r"model.overrides.filters is called model.options.filt"):
        assert r.parse_assignments(["model.overrides.filters=8"]) == {"model.options.filters": 8}


def test_images_of_version_0_1_lose_the_numbers_that_a_run_had_measured():
    old = {
        "kind": "Pictures",
        "size": [8, 8],
        "classes": {"polyp": []},
        "normalisation": "mean_std",
        "held_out": 0.5,
        "mean": [0.5],
        "std": [0.1],
    }
    tree = {**r.to_tree(small_recipe()), "data": old}
    expected = r.Images("image_folders", (8, 8), {"polyp": ()}, "mean_std", 0.5)
    assert r.from_tree(tree).data == expected


def test_slices_of_crops_are_augmented_before_the_training_step():
    options = {"normalization": "none", "foreground_probability": 0.0, "validation": 0.25}
    data = r.Patches("brats", (8, 6, 4), slices=True, **options)
    assert data.input_size == (8, 6)
    with pytest.raises(ValueError, match=r"augment_on_device: found True.*data.slices is True"):
        r.Patches("brats", (8, 6, 4), slices=True, augment_on_device=True, **options)
    with pytest.raises(ValueError, match=r"data.crops"):
        r.Patches("brats", (8, 6, 4), crops="middle", **options)

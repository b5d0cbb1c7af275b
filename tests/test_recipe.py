import json

import pytest

from keras_medseg import recipe as r


@pytest.fixture
def recipe():
    return r.Recipe(
        paper="example",
        data=r.Slices((8, 8, 4), "z_score", ("x",), 0.25),
        model=r.Model("net", (("WT",), ("TC",)), {"width": 4}),
        train=r.Train(3, 2, "sgd", 0.1, "cross_entropy", "plateau", "float32", 7),
    )


def test_json_round_trip_is_equal_tuples_included(recipe):
    assert r.from_json(r.to_json(recipe)) == recipe


def test_override_sets_nested_values_and_leaves_the_rest(recipe):
    new = r.override(
        recipe,
        ["train.epochs=5", "data.window=(16,16,2)", "model.overrides.depth=2", "data.flips='y'"],
    )
    assert (new.train.epochs, new.data.window, new.data.flips) == (5, (16, 16, 2), ("y",))
    assert new.model.overrides == {"width": 4, "depth": 2}
    assert recipe.train.epochs == 3
    assert set(r.differences(new, recipe)) == {
        "train.epochs",
        "data.window",
        "data.flips",
        "model.overrides.depth",
    }


def test_override_keeps_floats_floats(recipe):
    assert r.override(recipe, ["train.learning_rate=1"]).train.learning_rate == 1.0


def test_lists_anywhere_come_back_from_json_as_they_were_set(recipe):
    """Else the same command could not resume its own run."""
    new = r.override(
        recipe,
        ["train.loss_options.weights=[1, 2]", "model.overrides={'sizes': [[1], {'a': [2]}]}"],
    )
    assert new.train.loss_options == {"weights": (1, 2)}
    assert new.model.overrides == {"sizes": ((1,), {"a": (2,)})}
    assert r.from_json(r.to_json(new)) == new


PATCHES = "data={'kind': 'Patches', 'patch': [8, 8, 4], 'normalisation': 'none', "


def test_other_data_can_take_the_place_of_a_recipes(recipe):
    rest = "'foreground_probability': 0, 'held_out': 0.25, 'modalities': ('t2',)}"
    new = r.override(recipe, [PATCHES + rest, "data.overlap=0.25", "train.epochs=5"])
    expected = r.Patches((8, 8, 4), "none", 0.0, 0.25, overlap=0.25, modalities=("t2",))
    assert new.data == expected
    assert type(new.data.foreground_probability) is float
    assert (new.train.epochs, new.model) == (5, recipe.model)
    assert r.from_json(r.to_json(new)) == new


def test_data_of_the_same_kind_begin_with_the_defaults(recipe):
    other = "{'kind': 'Slices', 'window': (4, 4, 2), 'normalisation': 'none', 'flips': ()"
    changes = ["data.slice_step=3", f"data={other}, 'held_out': 0.5}}"]
    assert r.override(recipe, changes).data == r.Slices((4, 4, 2), "none", (), 0.5)


def test_the_network_sees_the_chosen_modalities(recipe):
    assert r.input_channels(recipe, 4) == 4
    assert r.input_channels(r.override(recipe, ["data.modalities=t1ce"]), 4) == 1
    pictures = "data={'kind': 'Pictures', 'size': (8, 8), 'classes': {}, 'normalisation': 'none'"
    assert r.input_channels(r.override(recipe, [pictures + ", 'held_out': 0.5}"]), 3) == 3


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("data={'kind': 'Slice'}", "data.kind: found 'Slice', expected one of Slices, Patches"),
        ("data={'window': (1, 1, 1)}", "data.kind: found None"),
        (PATCHES + "'held_out': 0.5}", "missing .*foreground_probability.* The fields of Patches"),
        (PATCHES + "'window': (1, 1, 1)}", "unexpected .*'window'"),
        (PATCHES + "'held_out': 'half'}", "data.held_out: found 'half', expected float"),
        (PATCHES + "'modalities': 't2'}", r"data.modalities: found 't2', expected tuple\[str"),
        (PATCHES + "'modalities': (1,)}", "data.modalities: found"),
        (PATCHES + "'augment_on_device': 1}", "data.augment_on_device: found 1, expected bool"),
        ("data=Slices", "found 'Slices', expected Slices"),
        ("train={'epochs': 2}", "expected Train"),
        ("train.epoch=2", "epochs"),
        ("train.epochs", "FIELD=VALUE"),
        ("train.epochs=many", "expected int"),
        ("train.epochs=2.5", "expected int"),
        ("train.seed=True", "expected int"),
        ("model.networks=WT", "expected tuple"),
        ("model.networks=((WT,),)", "expected tuple"),
        ("train.epochs.more=1", "not a group"),
        ("optim.x=1", "no field 'optim'"),
    ],
)
def test_override_names_what_is_wrong(recipe, assignment, words):
    with pytest.raises(ValueError, match=words):
        r.override(recipe, [assignment])


def test_from_json_names_a_missing_field():
    with pytest.raises(ValueError, match="'train'"):
        r.from_json(
            '{"paper": "x", "data": {"window": [1, 1, 1], "normalisation": "none", '
            '"flips": [], "held_out": 0.5}, "model": {"name": "n", "networks": []}}'
        )


def test_a_recipe_written_before_a_field_existed_has_its_default(recipe):
    tree = json.loads(r.to_json(recipe))
    del tree["predict"], tree["model"]["auxiliary"]
    assert r.from_json(json.dumps(tree)) == recipe

"""Names, options, errors and the version check."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_medseg
from keras_medseg import registry
from keras_medseg.reporting import model_table

ROOT = Path(__file__).parents[1]
SETUP = ROOT / "setup.cfg"
CARD = registry.Card(
    name="test_net",
    paper="test",
    title="a test",
    input_shape=(8, 8, 1),
    parameters=9,
    moving_statistics=2,
    dimensions=2,
    output="logits",
    source="here",
    parity="rebuilt",
)


@pytest.fixture
def entries(monkeypatch):
    """The networks imported so far, to be changed at will."""
    copy = dict(registry._entries)
    monkeypatch.setattr(registry, "_entries", copy)
    return copy


def test_public_names():
    assert keras_medseg.list_models() == registry.list_models()
    model = keras_medseg.build("residual_attention_unet", input_shape=(16, 16, 4), filters=4)
    assert isinstance(model, keras.Model)


def test_list_models_by_pattern():
    assert "residual_attention_unet" in registry.list_models("*unet*")
    assert registry.list_models("no_such_*") == []
    assert registry.list_models() == sorted(registry.list_models())


def test_every_network_lies_in_the_file_of_its_name():
    files = (Path(keras_medseg.__file__).parent / "models").glob("[!_]*.py")
    assert {file.stem for file in files} == set(registry.list_models())
    for name in registry.list_models():
        assert registry.card(name).name == name
        assert registry._find(name).builder.__module__ == f"keras_medseg.models.{name}"


def test_a_network_is_imported_when_it_is_asked_for():
    code = (
        "import sys\nfrom keras_medseg import registry\n"
        "assert 'unext' in registry.list_models()\n"
        "assert 'keras' not in sys.modules\n"
        "registry.card('unext')\n"
        "imported = [name for name in sys.modules if name.startswith('keras_medseg.models.')]\n"
        "assert imported == ['keras_medseg.models.unext'], imported\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.fixture
def folder_of_networks(entries, monkeypatch, tmp_path):
    """In the place of models/: a network, a file with an error, a file without a network."""
    import keras_medseg.models

    entries.clear()
    good = Path(keras_medseg.__file__).parent / "models" / "unext.py"
    (tmp_path / "good.py").write_text(good.read_text().replace('name="unext"', 'name="good"'))
    (tmp_path / "typo.py").write_text("import no_such_package")
    (tmp_path / "empty.py").write_text("")
    monkeypatch.setattr(registry, "_files", lambda folder: {"good", "typo", "empty"})
    monkeypatch.setattr(keras_medseg.models, "__path__", [str(tmp_path)])
    yield
    for name in ("good", "typo", "empty"):
        sys.modules.pop(f"keras_medseg.models.{name}", None)


def test_a_broken_file_names_itself_and_hides_no_other(folder_of_networks):
    assert registry.list_models() == ["empty", "good", "typo"]
    assert registry.card("good").paper == "valanarasu2022"
    with pytest.raises(ImportError, match=r"models/typo\.py: .*no_such_package"):
        registry.build("typo")
    with pytest.raises(ImportError, match=r"models/empty\.py: found no network 'empty'"):
        registry.card("empty")
    networks, *broken = model_table.table().split("\n\n")
    assert networks.splitlines()[2].startswith("| good ")
    assert len(networks.splitlines()) == 3
    assert [line.split(":")[0] for line in broken] == ["models/empty.py", "models/typo.py"]


def test_unknown_name_answers_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'residual_attention_unet'"):
        keras_medseg.build("residual_atention_unet")


def test_unknown_option_answers_with_the_accepted():
    with pytest.raises(ValueError, match=r"found 'filter', expected one of: input_shape,.*filters"):
        keras_medseg.build("residual_attention_unet", filter=8)


@pytest.mark.parametrize("option", ["classes", "filters"])
@pytest.mark.parametrize("value", [0, -1, 1.5, None, "2", True])
def test_a_number_of_channels_is_one(option, value):
    with pytest.raises(ValueError, match=f"^{option}: found {value!r}, expected a whole number"):
        keras_medseg.build("unet", **{option: value})


def test_duplicate_name_is_an_error(entries):
    @registry.register(CARD)
    def first():
        """First."""

    with pytest.raises(ValueError, match=r"second: the model name 'test_net' is taken by .*first"):

        @registry.register(CARD)
        def second():
            """Second."""


def test_registered_builder_is_built_and_described(entries):
    @registry.register(CARD)
    def builder(input_shape=(8, 8, 1), width=3):
        """Words of the builder."""
        return input_shape, width

    assert registry.build("test_net", width=5) == ((8, 8, 1), 5)
    assert registry.options("test_net") == {"input_shape": (8, 8, 1), "width": 3}
    text = registry.describe("test_net")
    for part in (
        "test_net: a test",
        "8x8x1 (2-D)",
        "parameters   9, of which 7 are trainable",
        "fidelity     rebuilt from the paper",
        "width = 3",
        "Words of the builder.",
    ):
        assert part in text


@pytest.mark.parametrize("name", registry.list_models())
def test_every_card_says_which_reading_was_followed(name):
    """It is printed; what only the docstring of the file says is not."""
    notes = registry.card(name).notes
    assert notes
    assert "the module" not in notes
    text = registry.describe(name)
    assert notes in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100


def test_minimum_versions_are_those_of_setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(SETUP)
    required = parser["options"]["install_requires"]
    for package, minimum in registry.MINIMUM_VERSIONS.items():
        bound = re.search(rf"^{package} >= ([\d.]+)", required, re.MULTILINE)
        assert tuple(map(int, bound[1].split("."))) == minimum


@pytest.mark.parametrize(
    ("package", "found"), [("keras", "2.15.0"), ("keras", "3.11.3"), ("tensorflow", "2.19.1")]
)
def test_old_version_is_named_with_its_remedy(monkeypatch, package, found):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(registry, "version", {"keras": "3.15.1", package: found}.get)
    with pytest.raises(ImportError, match=f"{package}: found version {found}, expected") as error:
        registry.card("unet")
    assert "pip install --upgrade" in str(error.value)
    assert "\n" not in str(error.value)


def test_tensorflow_does_not_matter_on_another_backend(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(registry, "version", {"keras": "3.12.0", "tensorflow": "2.1"}.get)
    registry.check_versions()


def test_speed_table_has_networks_in_both_precisions_and_its_text_counts_them():
    """The first table of the page, printed by benchmarks/networks.py, which takes hours.

    So a new network may wait for its row (CONTRIBUTING.md), but a row may not wait for its pair.
    """
    page = (ROOT / "benchmarks" / "README.md").read_text()
    table = page.partition("\n| network | input | precision |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    precisions = ("float32", "bfloat16")
    names = [row[0] for row in rows[::2]]
    assert set(names) <= set(registry.list_models())
    assert [(row[0], row[2]) for row in rows] == [(n, p) for n in names for p in precisions]
    assert names == sorted(set(names))
    # Less than 0.3 of PyTorch's time is an artifact that the page names and does not count.
    counts = [
        sum(0.3 < float(row[column]) <= 1 for row in rows if row[2] == precision)
        for column in (5, 8)
        for precision in precisions
    ]
    train, train_16, infer, infer_16 = counts
    text = " ".join(page.split())
    assert f"in training in {train} (float32) and {train_16} (bfloat16) of {len(names)}" in text
    assert f"in inference in {infer} and {infer_16};" in text


def test_most_networks_to_compare_with_are_checked_as_the_readme_says():
    cards = [registry.card(name) for name in registry.list_models()]
    others = [card for card in cards if card.paper not in card.compared_in]
    assert len([card for card in others if card.compared_in]) > len(others) / 2
    assert len([card for card in others if card.parity != "rebuilt"]) > len(others) / 2
    text = " ".join((ROOT / "README.md").read_text().split())
    assert "networks that the papers compare themselves with are included too, and some" in text
    assert "Most of them were checked against their originals" in text


@pytest.mark.parametrize(
    ("backend", "verdict"),
    [
        ("tf", r"KERAS_BACKEND: found 'tf', expected one of tensorflow, jax, torch\. Unset it"),
        ("theano", r"KERAS_BACKEND: found 'theano', expected one of"),
        ("openvino", r"KERAS_BACKEND: found 'openvino', which is not installed, .*pip install ope"),
    ],
)
def test_a_backend_that_is_not_there_is_named(backend, verdict, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=verdict) as caught:
        registry.card("unet")
    assert "\n" not in str(caught.value)


def test_a_backend_of_the_file_of_settings_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    registry.check_versions()
    for text in ("", "[]", "{}"):
        (tmp_path / "keras.json").write_text(text)
        registry.check_versions()
    (tmp_path / "keras.json").write_text('{"backend": "theano"}')
    with pytest.raises(ImportError, match=r"keras\.json: found 'theano', expected one of"):
        registry.check_versions()


def test_the_command_line_says_it_in_one_line(capsys, monkeypatch):
    from keras_medseg import cli

    monkeypatch.setenv("KERAS_BACKEND", "tf")
    for command in (["models"], ["predict", "run", "data", "out"], ["export", "a", "b"]):
        assert cli.main(command) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_channels_first_is_refused_by_its_setting():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(
            ValueError, match=r"image_data_format: found 'channels_first' .*keras\.j"
        ):
            keras_medseg.build("unet")
    finally:
        keras.config.set_image_data_format("channels_last")

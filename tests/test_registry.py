"""Names, options, errors and the version check."""

import configparser
import re
from pathlib import Path

import keras
import pytest

import keras_medseg
from keras_medseg import registry

SETUP = Path(__file__).parents[1] / "setup.cfg"
CARD = registry.Card(
    name="test_net",
    paper="test",
    title="a test",
    input_shape=(8, 8, 1),
    parameters=0,
    dimensions=2,
    output="logits",
    source="here",
    parity="rebuilt",
)


@pytest.fixture
def entries(monkeypatch):
    """The registered models, to be changed at will."""
    registry.list_models()
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


def test_every_file_in_models_registers_a_network():
    files = (Path(keras_medseg.__file__).parent / "models").glob("[!_]*.py")
    modules = {registry._find(name).builder.__module__ for name in registry.list_models()}
    assert {f"keras_medseg.models.{file.stem}" for file in files} == modules


def test_unknown_name_answers_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'residual_attention_unet'"):
        keras_medseg.build("residual_atention_unet")


def test_unknown_override_answers_with_the_accepted():
    with pytest.raises(ValueError, match=r"found 'filter', expected one of: input_shape,.*filters"):
        keras_medseg.build("residual_attention_unet", filter=8)


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
        "rebuilt",
        "width = 3",
        "Words of the builder.",
    ):
        assert part in text


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
        registry.list_models()
    assert "pip install --upgrade" in str(error.value)
    assert "\n" not in str(error.value)


def test_tensorflow_does_not_matter_on_another_backend(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(registry, "version", {"keras": "3.12.0", "tensorflow": "2.1"}.get)
    registry.check_versions()

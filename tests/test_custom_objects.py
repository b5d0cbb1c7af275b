"""What a run wrote is opened by keras.models.load_model after `import keras_medseg` alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keras_medseg.custom_objects import CLASSES, PACKAGE

ROOT = Path(__file__).parents[1]
MAKE = """
import itertools, sys, keras, keras_medseg
from keras_medseg import losses, optimizers
from keras_medseg.layers.interpolation import Resize
from keras_medseg.layers.rematerialization import rematerialized
from keras_medseg.layers.transformer import WindowAttention
from keras_medseg.training.metrics import MainAccuracy
image = keras.Input((8, 8, 6))
x = Resize((4, 4), "bilinear")(WindowAttention(1, 4)(image))
x = rematerialized(lambda x, name: keras.layers.Conv2D(1, 1, name=name)(x), x, name="block")
net = keras.Model(image, keras.layers.Activation("sigmoid")(x))
net.save(sys.argv[1] + "/uncompiled.keras")
kinds = [kind for kind in optimizers.OPTIMIZERS.values() if kind.__module__ == optimizers.__name__]
pairs = zip(losses.LOSSES, itertools.cycle(kinds))
for name, optimizer in pairs:
    net.compile(optimizer(1e-3), losses.get(name), [MainAccuracy(1)])
    net.save(f"{sys.argv[1]}/{name}.keras")
"""
LOAD = """
import sys
{imports}
for path in sys.argv[1:]:
    for compile in (True, False):
        network = keras.models.load_model(path, compile=compile)
        compiled = compile and "uncompiled" not in path
        assert (getattr(network, "optimizer", None) is not None) == compiled, path
"""


def _run(code, *arguments, backend="tensorflow"):
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    _run(MAKE, folder)
    return sorted(folder.glob("*.keras"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "imports"),
    [
        ("tensorflow", "import keras_medseg, keras"),
        ("tensorflow", "import keras, keras_medseg"),
        ("jax", "import keras_medseg, keras"),
    ],
)
def test_a_new_process_opens_networks_with_their_losses_and_optimizers(saved, backend, imports):
    assert len(saved) == 8
    _run(LOAD.format(imports=imports), *saved, backend=backend)


def test_every_registered_class_has_a_stand_in():
    decorated = re.compile(r"@keras\.saving\.register_keras_serializable\(.*\)\nclass (\w+)")
    found = {
        name: ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
        for path in (ROOT / PACKAGE).rglob("*.py")
        for name in decorated.findall(path.read_text())
    }
    assert found == CLASSES


def test_the_package_alone_does_not_import_keras():
    heavy = "{'keras', 'tensorflow', 'numpy'} & set(sys.modules)"
    code = f"import sys, keras_medseg, keras_medseg.cli; print({heavy})"
    assert _run(code).strip() == "set()"


@pytest.mark.slow
def test_keras_keeps_its_own_loader():
    code = (
        "import sys, keras_medseg, keras\n"
        "print(type(keras.__spec__.loader).__name__, type(keras.__loader__).__name__,"
        "      *(f for f in sys.meta_path if type(f).__module__ == 'keras_medseg.custom_objects'))"
    )
    assert _run(code).split() == ["SourceFileLoader"] * 2

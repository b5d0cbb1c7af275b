"""What a saved network names of this package, known to Keras from `import keras_medseg` on.

Keras looks the classes of a saved network up by name, among those that were registered. A class is
registered when its module is imported, which needs Keras, and the command line's --help must not
wait for that. So Keras is given, as soon as somebody imports it, a stand-in for each class, which
imports the module when a saved network asks for the class. The class then takes its place.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "keras_medseg"
CLASSES = {
    "AdamL2": "optimizers",
    "BatchNorm": "layers.normalization",
    "CategoricalCrossEntropy": "losses",
    "ChannelBias": "layers.bias",
    "CrossEntropy": "losses",
    "CrossEntropyAndDice": "losses",
    "CrossEntropyAndEdge": "losses",
    "CrossEntropyAndLearnedEdge": "losses",
    "CrossEntropyByTask": "losses",
    "DebiasedBatchNorm": "layers.normalization",
    "DiceAndFocal": "losses",
    "Dropout": "layers.dropout",
    "MainAccuracy": "training.metrics",
    "MainDice": "training.metrics",
    "NadamPyTorch": "optimizers",
    "RegionDice": "training.metrics",
    "Rematerialized": "layers.rematerialization",
    "Resize": "layers.interpolation",
    "RmsPropDeepMedic": "optimizers",
    "SgdCaffe": "optimizers",
    "SoftIouLoss": "losses",
    "SpatialDropout2D": "layers.dropout",
    "WindowAttention": "layers.transformer",
    "WindowBatchNorm": "layers.normalization",
}
"""Class -> its module; a test compares them with what is registered."""


class _StandIn:
    """Makes objects of a class that is imported when the first one is made."""

    def __init__(self, name: str) -> None:
        self.name = name

    def from_config(self, config: dict[str, Any]) -> Any:
        """What the class makes of `config`."""
        module = importlib.import_module(f"{PACKAGE}.{CLASSES[self.name]}")
        return getattr(module, self.name).from_config(config)


class _Loader(importlib.abc.Loader):
    """Keras' own loader, and the stand-ins after it."""

    def __init__(self, own: importlib.abc.Loader) -> None:
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self.own  # nobody meets this one again
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
        self.own.exec_module(module)
        _register(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Stands before the other finders until Keras is imported."""

    searching = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras" or self.searching:
            return None
        self.searching = True
        try:
            spec = importlib.util.find_spec("keras")
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def announce() -> None:
    """Give Keras the stand-ins: now, or when it is imported."""
    if "keras" in sys.modules:
        _register(sys.modules["keras"])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register(keras: ModuleType) -> None:
    known = keras.saving.get_custom_objects()
    for name in CLASSES:
        known.setdefault(f"{PACKAGE}>{name}", _StandIn(name))

"""keras_medseg: papers on medical image segmentation, reproduced as their authors did it."""

from importlib import import_module
from typing import Any

from keras_medseg import custom_objects

__version__ = "0.2.0"

_FUNCTIONS = {name: "registry" for name in ("build", "describe", "list_models")}
_FUNCTIONS["load"] = "runs.predictor"
_MODULES = ("losses", "optimizers", "porting", "recipe")

# So that keras.models.load_model opens whatever a run wrote.
custom_objects.announce()


def __getattr__(name: str) -> Any:
    # Keras takes seconds to import; the command line's --help must not wait for it.
    if name in _FUNCTIONS:
        return getattr(import_module(f"keras_medseg.{_FUNCTIONS[name]}"), name)
    if name in _MODULES:
        return import_module(f"keras_medseg.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(["__version__", *_FUNCTIONS, *_MODULES])

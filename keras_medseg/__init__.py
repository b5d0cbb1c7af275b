"""keras_medseg: papers on medical image segmentation, reproduced as their authors did it."""

__version__ = "0.1.0"


def __getattr__(name: str):
    # Keras takes seconds to import; the command line's --help must not wait for it.
    if name in ("build", "list_models", "describe"):
        from keras_medseg import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", "build", "describe", "list_models"]

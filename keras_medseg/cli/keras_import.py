"""The import of Keras by commands that need it."""

import logging
import os
import re
import sys
import tempfile

_BEFORE_LOGGING = re.compile(r"WARNING: All log messages before absl|I0000 ")


def _of_interest(record: logging.LogRecord) -> bool:
    """Not that a function is traced again and again.

    TensorFlow counts the traces of all networks together, because they come from one line of Keras.
    A command that predicts with five of them is warned, though each is traced once.
    """
    return "triggered tf.function retracing" not in record.getMessage()


def import_frameworks() -> None:
    """Import Keras, without what TensorFlow prints about devices before it reads its log level.

    A wrong version is named in one line, where the imports would say it in many. With
    another TF_CPP_MIN_LOG_LEVEL than 3, everything is printed.

    Raises:
        ImportError: a package is missing or too old.
    """
    from keras_medseg import registry

    registry.check_versions()
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3":
        return
    logging.getLogger("tensorflow").addFilter(_of_interest)
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import keras  # noqa: F401
        finally:
            os.dup2(shown, 2)
            os.close(shown)
            caught.seek(0)
            lines = caught.read().decode(errors="replace").splitlines(keepends=True)
            sys.stderr.writelines(line for line in lines if not _BEFORE_LOGGING.match(line))

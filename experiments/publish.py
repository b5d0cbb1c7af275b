"""Keep what a page needs of a finished run: `python -m experiments.publish RUN FOLDER`.

Copies settings, versions, scores, tables and logs, which are small, and the figures that are named.
Absolute paths lose their folders (`--data /disk/CVC-ClinicDB` becomes `--data CVC-ClinicDB`): they
say nothing to a reader. A figure with pixels of patients is published only if their terms allow it.
"""

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_medseg.errors import DataError
from keras_medseg.files import read_file, write_atomic
from keras_medseg.runs.run_folder import RunFolder

NEEDED = (
    "provenance.json",
    "recipe.json",
    "run.json",
    "log.csv",
    "networks.csv",
    "scores.csv",
    "table.csv",
    "table.md",
)
FURTHER = ("further_scores.csv", "tests.csv", "splits_final.json")
"""Which only some runs have."""
_FINISH = "Finish the run: give its command again."


def publish(run: Path, folder: Path, figures: Sequence[str] = ()) -> None:
    """Copy the small files of a finished run into `folder`.

    Args:
        run: a run folder.
        folder: in results/ of a paper; files that are there are replaced.
        figures: names in `figures/` of the run, such as "dice.png".

    Raises:
        DataError: the folder has no run, or lacks a file; nothing has been written then.
    """
    run_folder = RunFolder(run)
    names = [*NEEDED, *(name for name in FURTHER if (run / name).exists())]
    names += [f"variants/{name}.json" for name in run_folder.variants]
    texts = {name: read_file(run / name, _kept_text(name), _FINISH) for name in names}
    pictures = [run_folder.figure(Path(name).stem) for name in figures]
    for picture in pictures:
        if not picture.exists():
            have = ", ".join(sorted(path.name for path in picture.parent.glob("*.png")))
            remedy = f"Choose among {have}." if have else _FINISH
            raise DataError(picture, found="no file", expected="a figure", remedy=remedy)
    shutil.rmtree(folder / "variants", ignore_errors=True)
    for name in {*FURTHER} - texts.keys():
        (folder / name).unlink(missing_ok=True)
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
    for picture in pictures:
        shutil.copyfile(picture, folder / picture.name)


def _kept_text(name: str) -> Callable[[str], str]:
    """What is written for what is read."""
    if not name.endswith(".json"):
        return str
    return lambda text: json.dumps(without_folders(json.loads(text)), indent=2) + "\n"


def without_folders(content: Any) -> Any:
    """JSON whose absolute paths, alone or in commands, are the last parts of them."""
    if isinstance(content, dict):
        return {
            key: _command(value) if key == "command" else without_folders(value)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [without_folders(value) for value in content]
    return _last_part(content) if isinstance(content, str) else content


def _command(text: str) -> str:
    """The same of a command, whose paths are words, or follow "=" in one."""
    words = [word.rpartition("=/") for word in shlex.split(text)]
    return shlex.join(
        f"{option}={_last_part('/' + path)}" if path_follows else _last_part(path)
        for option, path_follows, path in words
    )


def _last_part(text: str) -> str:
    """Of a path, which stands in quotes where a value of `--set` is kept as Python writes it."""
    bare = text.strip("'\"")
    return text.replace(bare, Path(bare).name) if bare.startswith("/") else text


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0; errors are raised."""
    parser = argparse.ArgumentParser(prog="python -m experiments.publish")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("folder", type=Path, help="such as experiments/iacnn/results/cvc-long")
    parser.add_argument("--figures", nargs="+", default=(), metavar="NAME")
    arguments = parser.parse_args(argv)
    publish(arguments.run, arguments.folder, arguments.figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Weights in one archive: the networks of a run with all that is needed to use and to judge them.

An archive is a zip file, not compressed, of a small run folder: `run.json`, `recipe.json`, the file
of one variant, its networks, `scores.csv`. Beside them stand a card for readers, card.md, and
package.json with the facts for programs and the sha256 of every file. Unpacked it is a run folder,
so whatever reads run folders reads it. docs/sharing.md describes the format.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_medseg import __version__, registry
from keras_medseg.errors import DataError, require_choice
from keras_medseg.files import is_file_name, read_bytes, require_file, sha256_of, write_atomic
from keras_medseg.runs.members import Member, members
from keras_medseg.runs.run_folder import RunFolder, Variant

AGAIN = "Fetch or pack the weights again."
FORMAT = 1
MANIFEST = "package.json"
CARD = "card.md"
LIMIT_BYTES = 4 * 2**30
"""Of an archive; FM-Net's networks for one fold take 0.2 GB."""

_LIMIT_FILES = 100
_LIMIT_MANIFEST_BYTES = 16 * 2**20
_PART = "[a-z0-9][a-z0-9_.-]*"
_NAME = re.compile(f"{_PART}/{_PART}")


def is_name(text: object) -> bool:
    """Whether a text can be the name of weights, which becomes the path of a folder."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def seal(manifest: Mapping[str, Any]) -> str:
    """The sha256 of a manifest, without that entry."""
    text = json.dumps(manifest, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def network_file(chosen: Variant, targets: tuple[str, ...]) -> str:
    """The path of a network in the folder of weights."""
    home = RunFolder(Path()).training(chosen.trained_as, targets)
    return (home / "model.keras").as_posix()


def unpack(path: Path, folder: Path) -> None:
    """Unpack an archive into a new folder; its content is checked by `read_manifest`.

    Nothing in an archive is compressed, so no small file becomes a large one.

    Raises:
        DataError: no zip file or a damaged one; a name that leads out of the folder; or more or
            larger files than an archive of weights has.
    """
    require_file(path, expected="an archive of weights", remedy=AGAIN)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _require_bounded(path, entries)
            for entry in entries:
                write_atomic(folder / entry.filename, archive.read(entry))
    except DataError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError) as error:
        found = f"a damaged or foreign file ({error})"
        raise DataError(
            path, found=found, expected="an archive of keras-medseg pack", remedy=AGAIN
        ) from error


def _require_bounded(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    def refuse(found: str, expected: str) -> DataError:
        return DataError(path, found=found, expected=expected, remedy=AGAIN)

    if len(entries) > _LIMIT_FILES:
        raise refuse(f"{len(entries)} files", f"{_LIMIT_FILES} at most")
    for entry in entries:
        if not _is_inner_path(entry.filename):
            raise refuse(f"the name {entry.filename!r}", "names that stay in the archive")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise refuse(f"{entry.filename} compressed or encrypted", "files stored as they are")
    if len({entry.filename.casefold() for entry in entries}) < len(entries):
        raise refuse("one name twice", "each file once")
    total = sum(entry.file_size for entry in entries)
    if total > min(path.stat().st_size, LIMIT_BYTES):
        raise refuse(f"files of {total} bytes", f"at most those of the archive, and {LIMIT_BYTES}")


def _is_inner_path(text: object) -> bool:
    """Whether a path leads to a file below its folder on every system."""
    return isinstance(text, str) and ":" not in text and all(map(is_file_name, text.split("/")))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The facts of unpacked weights, after a check of every file.

    Raises:
        DataError: weights of a later version; a damaged manifest; a file that is missing, too many,
            or does not have its sha256.
    """
    path = folder / MANIFEST
    require_file(path, expected="unpacked weights", remedy=AGAIN)
    if path.stat().st_size > _LIMIT_MANIFEST_BYTES:
        found, expected = f"{path.stat().st_size} bytes", f"{_LIMIT_MANIFEST_BYTES} at most"
        raise DataError(path, found=found, expected=expected, remedy=AGAIN)
    try:
        manifest = json.loads(read_bytes(path, remedy=AGAIN))
        _require_version(path, manifest)
        sealed = manifest.pop("sha256")
        sound = seal(manifest) == sealed and _is_manifest(manifest)
    except DataError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        found = f"no readable manifest ({type(error).__name__})"
        raise DataError(path, found=found, expected="that of weights", remedy=AGAIN) from error
    if not sound:
        raise DataError(path, found="a wrong sha256", expected=str(sealed), remedy=AGAIN)
    _require_files(folder, manifest["files"])
    return manifest


def _require_version(path: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse what a later version wrote; a version of the third digit changes no format."""
    wrote = str(manifest["keras_medseg"])
    minor, own = (tuple(map(int, text.split(".")[:2])) for text in (wrote, __version__))
    if manifest["format"] != FORMAT or minor > own:
        raise DataError(
            path,
            found=f"weights in format {manifest['format']} of keras_medseg {wrote}",
            expected=f"format {FORMAT} of {__version__} or earlier",
            remedy="Run: python -m pip install --upgrade keras_medseg",
        )


def _is_manifest(manifest: Mapping[str, Any]) -> bool:
    facts = manifest["network"]["name"], manifest["data"]["name"], manifest["keras"]
    return (
        is_name(manifest["name"])
        and all(isinstance(text, str) for text in facts)
        and isinstance(manifest["input"]["channels_seen"], list)
        and all(isinstance(entry["regions"], list) for entry in manifest["output"]["networks"])
        and all(isinstance(entry["sha256"], str) for entry in manifest["files"].values())
        and all(map(_is_inner_path, manifest["files"]))
    )


def _require_files(folder: Path, listed: Mapping[str, Any]) -> None:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    # A file manager may leave hidden files in a folder.
    inside = {p.relative_to(folder).as_posix() for p in paths if not p.name.startswith(".")}
    for name in sorted(inside ^ {*listed, MANIFEST}):
        found, expected = ("a file", "none") if name in inside else ("no file", "one")
        raise DataError(
            folder / name, found=f"{found} of this name", expected=expected, remedy=AGAIN
        )
    for name, facts in listed.items():
        digest = sha256_of(folder / name)
        if digest != facts["sha256"]:
            found, expected = f"sha256 {digest}", str(facts["sha256"])
            raise DataError(folder / name, found=found, expected=expected, remedy=AGAIN)


def open_weights(folder: Path) -> Member:
    """Check unpacked weights, and open their networks.

    Raises:
        DataError: as `read_manifest`; or a network that this version does not have or Keras does
            not open, or one with other numbers of channels than the recipe says.
        ValueError: a recipe that is not valid in this version.
    """
    manifest = read_manifest(folder)
    run = RunFolder(folder)
    facts = run.run
    if len(facts["variants"]) != 1 or not facts["datasets"] or "parts" in facts:
        found = f"variants {facts['variants']} on {facts['datasets']}"
        raise DataError(folder, found=found, expected="one training on some data", remedy=AGAIN)
    [member] = members([folder])
    chosen = member.chosen
    require_choice("network", chosen.recipe.model.name, registry.list_models())
    for targets in chosen.recipe.model.targets:
        path = network_file(chosen, targets)
        if path not in manifest["files"]:
            raise DataError(folder / path, found="no such file", expected="one", remedy=AGAIN)
        _require_small(folder / path)
    try:
        networks = member.networks
    except DataError as error:
        remedy = f"They were saved by Keras {manifest['keras']}; here is {keras.__version__}."
        raise DataError(
            error.where, found=error.found, expected=error.expected, remedy=remedy
        ) from error
    seen = len(manifest["input"]["channels_seen"])
    for targets, network in networks.items():
        channels = (network.input_shape[-1], network.outputs[0].shape[-1])
        wanted = (member.task.channels(seen), len(targets))
        if channels != wanted:
            raise DataError(
                folder / network_file(chosen, targets),
                found=f"a network with {channels[0]} input and {channels[1]} output channels",
                expected=f"{wanted[0]} and {wanted[1]}, as in its recipe",
                remedy=AGAIN,
            )
    return member


def _require_small(path: Path) -> None:
    """Refuse a network whose compressed parts would not fit into an archive."""
    try:
        with zipfile.ZipFile(path) as inside:
            total = sum(entry.file_size for entry in inside.infolist())
    except (zipfile.BadZipFile, OSError):  # which opening it explains
        return
    if total > LIMIT_BYTES:
        found, expected = f"{total} bytes when unpacked", f"{LIMIT_BYTES} at most"
        raise DataError(path, found=found, expected=expected, remedy=AGAIN)


@contextmanager
def named_after(source: str | Path, folder: Path) -> Iterator[None]:
    """Errors name the source of weights, not the temporary folder into which it was unpacked."""
    try:
        yield
    except DataError as error:
        where = Path(error.where)
        inner = where.relative_to(folder).as_posix() if where.is_relative_to(folder) else "."
        raise DataError(
            source if inner == "." else f"{source}/{inner}",
            found=error.found,
            expected=error.expected,
            remedy=error.remedy,
        ) from error
    except ValueError as error:
        expected = "weights that fit this version"
        raise DataError(source, found=str(error), expected=expected, remedy=AGAIN) from error

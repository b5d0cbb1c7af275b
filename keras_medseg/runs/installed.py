"""Weights by name: a folder of the user with those that were installed, and how they get there."""

import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from keras_medseg.errors import DataError
from keras_medseg.files import locked, require_file, sha256_of
from keras_medseg.runs import packages

HOME = "KERAS_MEDSEG_HOME"
"""Variable with the folder of the weights; without it, ~/.keras_medseg, as Keras has ~/.keras."""

SHIPPED = Path(__file__).parents[1] / "weights"
"""The weights that come with the package."""

_INCOMING = ".incoming-"
_TIMEOUT_S = 60
_BLOCK_BYTES = 2**20


def home() -> Path:
    """The folder of the installed weights, `<home>/<paper>/<data>/`."""
    chosen = os.environ.get(HOME)
    return Path(chosen).expanduser() if chosen else Path.home() / ".keras_medseg"


def install(source: str, *, sha256: str = "", replace: bool = False) -> str:
    """Install weights by their own name, completely or not at all.

    Of processes that install at the same time, the later ones wait.

    Args:
        source: an archive of `packages.pack`, the folder of an unpacked one, or the http(s) address
            of an archive.
        sha256: of the archive; required for an address, because checksums within an archive say
            nothing of who wrote it.
        replace: whether other weights of this name are replaced.

    Returns:
        One line: the name and where the weights are.

    Raises:
        DataError: the source is damaged, too large, or does not fit this version of the package;
            or other weights have this name; or an address has no sha256.
    """
    place = home()
    with locked(place, "installs weights"):
        for left in place.glob(f"{_INCOMING}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_INCOMING, dir=place) as staging:
            folder = Path(staging) / "weights"
            with packages.named_after(source, folder):
                _fetch(source, folder, sha256)
                manifest = packages.read_manifest(folder)
                packages.open_weights(folder)
            target = place / manifest["name"]
            if target.exists():
                if _same(target, manifest):
                    return f"{manifest['name']}: already in {target}"
                _require_replace(target, replace)
                os.replace(target, Path(staging) / "former")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder, target)
    return f"{manifest['name']}: installed in {target}"


def locate(source: str | Path) -> Path:
    """The folder of a run or of weights: a path that exists, otherwise weights by their name.

    A name of which there are none is returned as the path that it may have been meant for.
    """
    path = Path(source)
    if path.exists() or not packages.is_name(str(source)):
        return path
    places = (place / str(source) for place in (home(), SHIPPED))
    return next((folder for folder in places if (folder / packages.MANIFEST).exists()), path)


def checked(source: str | Path) -> Path:
    """As `locate`; the files of weights are compared with their checksums.

    Raises:
        DataError: weights are damaged.
    """
    path = locate(source)
    if (path / packages.MANIFEST).exists():
        packages.read_manifest(path)
    return path


def names() -> list[str]:
    """Names of all weights, installed and shipped."""
    return sorted({name for name, _ in _folders()})


def listing() -> str:
    """All weights, a line each: name, network, data, folder."""
    lines = []
    for name, folder in _folders():
        try:
            manifest = packages.read_manifest(folder)
            facts = f"{manifest['network']['name']} on {manifest['data']['name']}"
        except DataError as error:
            facts = f"damaged: {error}"
        lines.append(f"{name:40} {facts}\n{'':40} {folder}")
    return "\n".join(lines) or f"{home()}: no weights."


def _folders() -> Iterator[tuple[str, Path]]:
    """(name, folder) of installed weights, then of the shipped ones that are not installed."""
    seen = set()
    for place in (home(), SHIPPED):
        for path in sorted(place.glob(f"*/*/{packages.MANIFEST}")):
            name = path.parent.relative_to(place).as_posix()
            if name not in seen and not name.startswith("."):
                seen.add(name)
                yield name, path.parent


def _same(target: Path, manifest: dict[str, Any]) -> bool:
    try:
        return packages.read_manifest(target) == manifest
    except DataError:  # damaged: to be replaced
        return False


def _require_replace(target: Path, replace: bool) -> None:
    if not replace:
        raise DataError(
            target,
            found="other or damaged weights of this name",
            expected="none",
            remedy="Give --replace to replace them.",
        )


def _fetch(source: str, folder: Path, sha256: str) -> None:
    """Bring weights into `folder`, which does not exist yet."""
    address = urlsplit(source).scheme in ("http", "https")
    if address and not sha256:
        raise DataError(
            source,
            found="an address without a checksum",
            expected="--sha256 HEX",
            remedy="Ask for what `keras-medseg pack` printed.",
        )
    if not address and Path(source).is_dir():
        if sha256:
            found, remedy = "a folder with --sha256", "Leave it out."
            raise DataError(source, found=found, expected="an archive", remedy=remedy)
        _copy(Path(source), folder)
        return
    with _archive(source, address) as archive:
        _require_sha256(archive, sha256)
        packages.unpack(archive, folder)


def _copy(source: Path, folder: Path) -> None:
    if not (source / packages.MANIFEST).exists():
        raise DataError(
            source / packages.MANIFEST,
            found="no such file",
            expected="unpacked weights",
            remedy=f"Pack a run first: keras-medseg pack {source} weights.zip",
        )
    for path in [*packages.read_manifest(source)["files"], packages.MANIFEST]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, folder / path)


@contextmanager
def _archive(source: str, address: bool) -> Iterator[Path]:
    """The path of an archive, fetched if it is elsewhere."""
    if not address:
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.zip"
        _download(source, path)
        yield path


def _download(url: str, path: Path) -> None:
    remedy = "Try again, or fetch the file yourself and install it."
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer, open(path, "wb") as file:
            total = 0
            while block := answer.read(_BLOCK_BYTES):
                total += len(block)
                if total > packages.LIMIT_BYTES:
                    found, expected = f"more than {total} bytes", f"{packages.LIMIT_BYTES} at most"
                    raise DataError(url, found=found, expected=expected, remedy=remedy)
                file.write(block)
    except (OSError, urllib.error.URLError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        found = f"the error {str(error)!r}"
        raise DataError(url, found=found, expected="an archive", remedy=remedy) from error


def _require_sha256(archive: Path, sha256: str) -> None:
    require_file(archive, expected="an archive of weights", remedy="Give its path.")
    if not sha256:
        return
    digest = sha256_of(archive)
    if digest != sha256.lower():
        remedy = "It is damaged, or not the archive that was meant: do not use it."
        raise DataError(archive, found=f"sha256 {digest}", expected=sha256, remedy=remedy)

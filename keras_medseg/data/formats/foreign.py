"""Files that are not read: what they are, by the endings of their names, and what to do."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

NIFTI = (".nii.gz", ".nii")
"""What is read as a volume."""

ARCHIVES = (
    ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar", ".tgz", ".tbz2", ".txz", ".zip", ".7z",
    ".rar",
)  # fmt: skip
UNFINISHED = (".part", ".partial", ".filepart", ".crdownload", ".download", ".aria2", ".tmp")
"""Downloads that did not end."""

_PACKED = tuple(f".nii.{name}" for name in ("bz2", "xz", "zst", "lz4", "z", "zip", "7z", "lzma"))
_PAIRS = (".hdr.gz", ".img.gz", ".hdr", ".img")
_OTHER = (
    ".mgz", ".mgh", ".mgh.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".raw", ".raw.gz", ".zraw", ".mnc",
    ".dcm", ".dicom", ".ima", ".par", ".rec", ".gipl", ".vtk", ".head", ".brik", ".brik.gz", ".h5",
    ".hdf5", ".npy", ".npz", ".pkl", ".pt", ".pth", ".mat", ".tfrecord", ".tfrecords", ".zarr",
)  # fmt: skip
_ENDINGS = (*NIFTI, *ARCHIVES, *UNFINISHED, *_PACKED, *_PAIRS, *_OTHER)
_TEXTS = (
    ".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".pdf", ".ini", ".db", ".xml", ".html", ".htm",
    ".xlsx", ".xls", ".docx", ".doc", ".log", ".yaml", ".yml", ".toml", ".py", ".ipynb", ".sh",
    ".m", ".bval", ".bvec", ".png", ".jpg", ".jpeg", ".gif", ".bib", "",
)  # fmt: skip


def ending(name: str) -> str:
    """The ending that says what a file is, in lower case: the longest that is known, or the last.

    A download that did not end is `.part`, whatever it would have been.
    """
    lower = name.casefold()
    known = [known for known in _ENDINGS if lower.endswith(known)]
    return max(known, key=len) if known else Path(lower).suffix


def without_ending(name: str) -> str:
    """The name without its ending: x of x.nii.gz and of x.PNG."""
    return name[: len(name) - len(ending(name))]


def stem(name: str) -> str:
    """The name without all of its endings: x_flair of x_flair.nii.gz.part."""
    while (last := ending(name)) in _ENDINGS and len(last) < len(name):
        name = name[: -len(last)]
    return name


def is_archive(path: Path) -> bool:
    """Whether a name is that of an archive."""
    return ending(path.name) in ARCHIVES


def is_volume(path: Path) -> bool:
    """Whether a name is that of a volume in another format, or of a download that did not end."""
    return ending(path.name) in (*UNFINISHED, *_PACKED, *_PAIRS, *_OTHER)


def is_text(path: Path) -> bool:
    """Whether a name is that of a text, a table or a preview, which no data set is made of."""
    return ending(path.name) in _TEXTS


def nifti_stem(name: str) -> str | None:
    """A file's name without the ending of NIfTI, or None if it has another one."""
    for suffix in NIFTI:
        if name.casefold().endswith(suffix):
            return name[: -len(suffix)]
    return None


def counted(paths: Iterable[Path]) -> str:
    """'4 files .mgz, 1 file .tar': how many files have which ending, the most frequent first."""
    counts = Counter(ending(path.name) or "without an ending" for path in paths)
    listed = [
        f"{count} {'file' if count == 1 else 'files'} {name}"
        for name, count in counts.most_common(5)
    ]
    return ", ".join(listed) + (", ..." if len(counts) > 5 else "")


def remedies(paths: Iterable[Path], suffix: str = ".nii.gz") -> str:
    """What to do so that files such as these are read: they should end in `suffix`."""
    found = {ending(path.name) for path in paths}
    words = []
    if found & {*ARCHIVES}:
        words.append("Unpack the archives.")
    if found & {*UNFINISHED}:
        words.append("Fetch again what did not arrive whole.")
    if found & {*_PACKED}:
        words.append("Unpack what is not compressed with gzip.")
    if found & {*_PAIRS, *_OTHER}:
        words.append(f"Convert other formats to {suffix}.")
    return " ".join(words) or "Convert them, or move them elsewhere."

"""What a folder holds, for the tests of everything that writes one."""

from pathlib import Path


def written(folder: Path) -> dict[str, bytes]:
    """Path relative to `folder` -> content of every file in it."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

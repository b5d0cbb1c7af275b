"""The navigation, from the pages that there are."""

from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Any

# In this order, as far as they exist. A page of docs/ that is not named comes last in "Guides".
SECTIONS = {
    "Start": ("start.md", "own_data.md", "commands.md", "run_folder.md", "python.md"),
    "Guides": (
        "training.md",
        "protocol.md",
        "prediction.md",
        "scoring.md",
        "metrics.md",
        "sharing.md",
        "export.md",
        "terminal.md",
        "scaling.md",
        "growth.md",
    ),
    "Data": ("data.md", "brats.md", "datasets/README.md"),
    "Papers": ("papers/index.md",),
    "Reference": ("networks.md", "fidelity.md", "benchmarks.md", "limits.md", "api/index.md"),
    "Questions": ("faq.md", "coming_from.md"),
    "Project": (
        *("contributing.md", "architecture.md", "dependencies.md", "fuzzing.md"),
        *("versions.md", "changelog.md", "citing.md"),
    ),
}
_TITLES = {
    "start.md": "Ten minutes",
    "own_data.md": "Your own volumes",
    "run_folder.md": "What comes out",
    "papers/index.md": "All papers",
    "datasets/README.md": "All data sets",
    "changelog.md": "Changelog",
    "coming_from.md": "From nnU-Net or MONAI",
}


def navigation(addresses: Collection[str]) -> list[Any]:
    """The `nav` of mkdocs.yml.

    Args:
        addresses: of all pages of the site.
    """
    named = {page for pages in SECTIONS.values() for page in pages} | {"index.md"}
    sections: list[Any] = [{"Home": "index.md"}]
    for title, pages in SECTIONS.items():
        entries: list[Any] = [_entry(page) for page in pages if page in addresses]
        if title == "Guides":
            others = sorted(page for page in addresses if "/" not in page and page not in named)
            entries += [_entry(page) for page in others]
        elif title == "Data":
            entries += sorted(page for page in _inside("datasets", addresses) if page not in named)
        elif title == "Papers":
            entries += _papers(addresses)
        elif title == "Reference":
            entries[-1:] = [{"API": ["api/index.md", *_api(addresses)]}]
        if entries:
            sections.append({title: entries})
    return sections


def _entry(page: str) -> Any:
    return {_TITLES[page]: page} if page in _TITLES else page


def _inside(folder: str, addresses: Collection[str]) -> list[str]:
    return [page for page in addresses if page.startswith(f"{folder}/")]


def _api(addresses: Collection[str]) -> list[Any]:
    names = sorted(PurePosixPath(page).stem for page in _inside("api", addresses))
    return [{name: f"api/{name}.md"} for name in names if name != "index"]


def _papers(addresses: Collection[str]) -> list[Any]:
    names = sorted(
        {page.split("/")[1] for page in _inside("papers", addresses) if page.count("/") > 1}
    )
    return [
        {
            name: [
                f"papers/{name}/index.md",
                {"Ledger": f"papers/{name}/ledger.md"},
                {"Tests": f"papers/{name}/tests.md"},
            ]
        }
        for name in names
    ]

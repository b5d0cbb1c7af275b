"""What setup.cfg cannot say: the papers' place in a wheel, and README for readers elsewhere."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

# Modules of experiments/ that only a checkout needs: they break, measure or tabulate.
TOOLS = {
    "__main__",
    "arms",
    "by_sequence",
    "costs",
    "cropping",
    "few_cases",
    "gradients",
    "heads",
    "leak",
    "memorize",
    "metafiles",
    "mutations",
    "overfit",
    "phantom_weights",
    "pieces",
    "publish",
    "sensitivity",
    "tables",
}


class BuildModules(build_py):
    """Leaves out TOOLS."""

    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        papers = package.startswith("keras_medseg.papers")
        return [module for module in found if not (papers and module[1] in TOOLS)]


def version():
    """That of the package, which need not be importable."""
    source = Path("keras_medseg/__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"', source, re.MULTILINE)[1]


def for_registry(page, repository):
    """A page whose links and pictures lead somewhere from outside the repository.

    Without its address, links become their words and pictures are left out.
    """

    def link(match):
        picture, words, target = match.groups()
        if "://" in target or target.startswith("#"):
            return match[0]
        if not repository:
            return "" if picture else words
        kind = "raw" if picture else "blob"
        return f"{picture}[{words}]({repository}/{kind}/v{version()}/{target})"

    return re.sub(r"(!?)\[([^\]\[]*)\]\(([^)\s]+)\)", link, page)


def metadata(repository):
    """The page and the addresses; `repository` is where it is published, "" if nowhere yet."""
    own = {
        "Homepage": repository,
        "Source": repository,
        "Issues": f"{repository}/issues",
        "Changelog": f"{repository}/blob/v{version()}/CHANGELOG.md",
    }
    papers = {
        "Paper dcabes2020": "https://doi.org/10.1109/DCABES50732.2020.00048",
        "Paper mtds2021": "https://doi.org/10.3389/fonc.2021.704850",
    }
    page = Path("README.md").read_text(encoding="utf-8")
    return {
        "long_description": for_registry(page, repository),
        "project_urls": {**(own if repository else {}), **papers},
    }


def packages():
    """`keras_medseg`, and the papers under their name in a wheel."""
    papers = find_packages(include=["experiments", "experiments.*"])
    return [
        *find_packages(include=["keras_medseg", "keras_medseg.*"]),
        *(name.replace("experiments", "keras_medseg.papers", 1) for name in papers),
    ]


if __name__ == "__main__":
    setup(
        packages=packages(),
        package_dir={"keras_medseg.papers": "experiments"},
        cmdclass={"build_py": BuildModules},
        **metadata(os.environ.get("REPOSITORY", "").rstrip("/")),
    )

"""Everything that is on the site: pages of the repository, of its README, and generated ones."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from website import api, ledgers
from website.links import Link, relative_links, replace_links

# The README stays in one piece for those who read the repository; here each section is a page.
README_SECTIONS = {
    "What comes out": "run_folder.md",
    "In Python": "python.md",
    "Networks": "networks.md",
    "The command line": "commands.md",
    "Data": "data.md",
    "Limits": "limits.md",
    "How fidelity is checked": "fidelity.md",
    "Citing": "citing.md",
}
INCLUDED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
LARGEST_SHOWN = 100_000  # bytes of a text file; larger ones are only linked
TEXTS = (".py", ".toml", ".csv", ".json", ".cff", ".cfg", ".html", "")


@dataclass(frozen=True)
class Page:
    """One page of Markdown.

    Attributes:
        address: in the site, such as "papers/iacnn/index.md".
        source: file of the repository to which its links are relative.
        text: the page, with the links of the repository.
    """

    address: str
    source: str
    text: str


class Site:
    """The pages and files of the site, and where each file of the repository is in it.

    Attributes:
        root: the repository.
        pages: address -> page.
        files: address -> file that is copied as it is, such as an image.
        addresses: path in the repository, with "#heading" for a section -> address.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pages: dict[str, Page] = {}
        self.files: dict[str, Path] = {}
        self.addresses: dict[str, str] = {}
        for page in _pages(root):
            self._add(page)
        for path in (root / "docs").rglob("*.*"):  # images; mkdocs itself copies them
            inside = path.relative_to(root / "docs").as_posix()
            self.addresses.setdefault(f"docs/{inside}", inside)
        self.addresses |= {"README.md": "index.md", "experiments": "papers/index.md"}
        self.addresses |= {f"README.md#{slug(name)}": at for name, at in README_SECTIONS.items()}
        waiting = list(self.pages.values())
        while waiting:  # what is linked is on the site too, and so is what that links
            page = waiting.pop()
            for link in relative_links(page.text, page.source):
                if self._address(link) is None:
                    waiting += self._take(link, page)

    def with_links_of_site(self, markdown: str, address: str) -> str:
        """A page with the links of the site in place of those of the repository.

        Args:
            markdown: the page, with or without its front matter.
            address: where it is on the site.
        """
        source = self.pages[address].source
        return replace_links(markdown, source, lambda link: self._target(link, address))

    def _add(self, page: Page) -> None:
        self.pages[page.address] = page
        self.addresses.setdefault(page.source, page.address)

    def _address(self, link: Link) -> str | None:
        section = self.addresses.get(f"{link.path}#{link.anchor}")
        return section or self.addresses.get(link.path)

    def _target(self, link: Link, address: str) -> str:
        to = self._address(link)
        assert to is not None, link
        anchor = "" if f"{link.path}#{link.anchor}" in self.addresses else link.anchor
        if posixpath.basename(link.path) == "ledger.toml" and re.fullmatch(r"`[\w-]+`", link.label):
            anchor = link.label.strip("`")  # [`data`](ledger.toml) names an entry
        path = posixpath.relpath(to, posixpath.dirname(address) or ".")
        return f"{path}#{anchor}" if anchor else path

    def _take(self, link: Link, page: Page) -> list[Page]:
        """Put a file that a page links on the site; the pages that this adds."""
        path = self.root / link.path
        if link.path.startswith("..") or not path.exists():
            raise LookupError(
                f"{page.source}: found a link to {link.path}, expected a file of the repository."
            )
        source = link.path
        if path.is_dir() and (path / "README.md").is_file():
            source = f"{link.path}/README.md"
        elif path.is_file() and not _shown(path):
            self.files[f"source/{source}"] = path
            self.addresses[source] = f"source/{source}"
            return []
        text = _source_text(self.root / source, source)
        new = Page(f"source/{source.removesuffix('.md')}.md", source, text)
        self.addresses[link.path] = new.address
        self._add(new)
        return [new]


def _pages(root: Path) -> Iterator[Page]:
    """All pages but those that only a link leads to."""
    for path in sorted((root / "docs").rglob("*.md")):
        address = path.relative_to(root / "docs").as_posix()
        yield Page(address, f"docs/{address}", path.read_text())
    for source, address in INCLUDED.items():
        yield Page(address, source, (root / source).read_text())
    readme = (root / "README.md").read_text()
    for heading, address in README_SECTIONS.items():
        yield Page(address, "README.md", section(readme, heading))
    papers = _PAPERS + _between(readme, "papers")
    if "<!-- results:" in readme:
        papers += "\nMeasured so far:\n\n" + _between(readme, "results")
    yield Page("papers/index.md", "README.md", papers)
    for ledger in sorted((root / "experiments").glob("*/ledger.toml")):
        yield from _paper_pages(ledger.parent, root)
    for address, text in api.api_pages(root / "keras_medseg").items():
        yield Page(address, address, text)


_PAPERS = """# Papers

A paper's page tells what the paper says, where it contradicts itself or is silent, how that was
decided, what is proven and what has been run. The ledger has every decision with its proof, and the
tests are the code of these proofs.

"""


def _paper_pages(folder: Path, root: Path) -> Iterator[Page]:
    source = f"experiments/{folder.name}"
    at = f"papers/{folder.name}"
    yield Page(f"{at}/index.md", f"{source}/README.md", (folder / "README.md").read_text())
    yield Page(f"{at}/ledger.md", f"{source}/ledger.toml", ledgers.ledger_page(folder))
    yield Page(f"{at}/tests.md", f"{source}/tests", ledgers.tests_page(folder, root))


def section(markdown: str, heading: str) -> str:
    """A section "## heading" as a page of its own, with its headings one level up.

    Raises:
        LookupError: the page has no such section.
    """
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", markdown, re.MULTILINE | re.DOTALL
    )
    if found is None:
        raise LookupError(f"README.md: found no section '## {heading}', which the site shows.")
    inside = re.sub(r"^#(#+ )", r"\1", found[1], flags=re.MULTILINE)
    return f"# {heading}\n{inside}"


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


def _between(readme: str, name: str) -> str:
    """The table that `make tables` writes between two comments."""
    found = re.search(rf"<!-- {name}:.*?-->\n(.*?)<!-- {name} end -->", readme, re.DOTALL)
    if found is None:
        raise LookupError(f"README.md: found no end of its {name}, which the site shows.")
    return found[1]


def _shown(path: Path) -> bool:
    return path.suffix == ".md" or (path.suffix in TEXTS and path.stat().st_size <= LARGEST_SHOWN)


def _source_text(path: Path, source: str) -> str:
    """A file of the repository as a page, a folder as the list of what is in it."""
    if path.suffix == ".md":
        return path.read_text()
    head = f"---\ntitle: {path.name}\nsearch:\n  exclude: true\n---\n\n# {source}\n\n"
    if path.is_dir():
        names = sorted(inside.name for inside in path.iterdir() if inside.name[0] not in "._")
        return head + "".join(f"* [{name}]({path.name}/{name})\n" for name in names)
    language = path.suffix[1:] if path.suffix in (".py", ".toml", ".json") else "text"
    fence = "`" * 5
    return f"{head}{fence}{language}\n{path.read_text()}\n{fence}\n"

"""Links of the built site that lead nowhere, and what it would fetch from elsewhere.

python -m website.check build/site
"""

import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches without being asked; it follows other links only when a reader does.
_FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "link": "href",
}
_CSS_URL = re.compile(r"(?:url\(|@import )\s*['\"]?((?:https?:)?//[^'\")\s]+)")


def problems(site: Path) -> list[str]:
    """One line for each link to nothing and each file from elsewhere; empty if there are none.

    Args:
        site: folder of the built site.
    """
    site = site.resolve()
    pages = {path: _read(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name}: fetches {url}" for url in page.fetched if _is_elsewhere(url)]
        found += [
            f"{name}: found a link to {link}, expected {wanted}."
            for link in dict.fromkeys([*page.links, *page.fetched])
            if not _is_elsewhere(link) and (wanted := _missing(link, path, pages, site))
        ]
    for path in sorted(site.rglob("*.css")):
        urls = _CSS_URL.findall(path.read_text())
        found += [f"{path.relative_to(site)}: fetches {url}" for url in urls]
    return found


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif values.get(_FETCHED.get(tag, "")) and values.get("rel") != "canonical":
            self.fetched.append(values[_FETCHED[tag]])


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text())
    return page


def _is_elsewhere(url: str) -> bool:
    return bool(urlsplit(url).netloc) or urlsplit(url).scheme in ("mailto", "data")


def _missing(link: str, path: Path, pages: dict[Path, _Page], site: Path) -> str:
    """What a link within the site lacks; "" if it leads to something."""
    parts = urlsplit(link)
    # The page of the server for unknown addresses links from the top.
    base = site if parts.path.startswith("/") else path.parent
    inside = unquote(parts.path).lstrip("/")
    target = Path(os.path.normpath(base / inside)) if parts.path else path
    target = target if target.suffix else target / "index.html"
    page = pages.get(target)
    if page is None and not target.is_file():
        return "a file of the site"
    anchor = unquote(parts.fragment)
    if page is None or not anchor or anchor in page.anchors or anchor.startswith(":~:"):
        return ""
    return f"a heading or another element with the id {anchor}"


def main() -> int:
    """Print the problems of a site; exit code 1 if there are any."""
    [site] = sys.argv[1:]
    found = problems(Path(site))
    print("\n".join(found) or f"{site}: every link leads somewhere, nothing comes from elsewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

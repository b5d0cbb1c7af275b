"""What mkdocs calls while it builds the site; mkdocs.yml names this file."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website.navigation import navigation
from website.pages import Site

HERE = Path(__file__).parent
_sites: list[Site] = []  # the one that is being built


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/, and make the navigation of all.

    Args:
        files: those in docs/.
        config: mkdocs.yml.
    """
    site = Site(HERE.parent)
    _sites[:] = [site]
    for address, page in site.pages.items():
        if files.get_file_from_path(address) is None:
            files.append(File.generated(config, address, content=page.text))
    copied = {f"assets/{path.name}": path for path in (HERE / "assets").iterdir()} | site.files
    for address, path in copied.items():
        files.append(File.generated(config, address, abs_src_path=str(path)))
    config.nav = navigation(site.pages)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between files of the repository into links between pages.

    The front page hides the navigation, and pages without sections the table of contents, so that
    their tables are wide. The pages do not ask for it themselves: on GitHub that would show.

    Args:
        markdown: the page without its front matter.
        page: where it lies.
    """
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]
    elif not re.search(r"^(##|:::)", markdown, re.MULTILINE):
        page.meta["hide"] = ["toc"]
    return _sites[0].with_links_of_site(markdown, page.file.src_uri)

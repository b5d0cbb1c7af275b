"""Relative links of a Markdown page, found and replaced."""

import posixpath
import re
from collections.abc import Callable
from typing import NamedTuple

# Code, inline or in a block, comes first: what looks like a link in it is none.
_TOKENS = re.compile(
    r"(?P<block>^ *(?P<fence>`{3,}|~{3,}).*?^ *(?P=fence)[ \t]*$)"
    r"|(?P<code>(?P<ticks>`+)[^`].*?(?P=ticks))"
    r"|(?P<label>\[(?:`[^`]*`|[^\[\]`]|\[[^\[\]]*\])*\])"
    r"\((?P<target>[^()\s]+)(?P<title> +\"[^\"]*\")?\)",
    re.MULTILINE | re.DOTALL,
)


class Link(NamedTuple):
    """One link of a page.

    Attributes:
        label: the words that are shown, in Markdown.
        path: of the file, from the top of the repository; of the page itself for its headings.
        anchor: the heading, without "#"; "" if none is named.
    """

    label: str
    path: str
    anchor: str


def relative_links(markdown: str, source: str) -> list[Link]:
    """The links of a page to files of the repository, in order.

    Args:
        markdown: the page.
        source: its path in the repository; links are relative to it.
    """
    found: list[Link] = []

    def collect(link: Link) -> str:
        found.append(link)
        return ""

    replace_links(markdown, source, collect)
    return found


def replace_links(markdown: str, source: str, target_of: Callable[[Link], str]) -> str:
    """The page with other targets for its relative links; code and links elsewhere stay.

    Args:
        markdown: the page.
        source: its path in the repository; links are relative to it.
        target_of: the new target of a link.
    """

    def replaced(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or re.match(r"[a-z]+:", target):
            return match[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        link = Link(match["label"][1:-1], path if target[0] != "#" else source, anchor)
        return f"{match['label']}({target_of(link)}{match['title'] or ''})"

    return _TOKENS.sub(replaced, markdown)

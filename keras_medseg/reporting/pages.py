"""What all self-contained pages share: filling a template, and files as a part of the page."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, view: Mapping[str, Any]) -> bytes:
    """A template of this package, filled; text is escaped in HTML.

    Args:
        template: the name of its file.
        view: name -> value; the template may use no other names.
    """
    made = environment(escape=template.endswith(".html"))
    return made.get_template(template).render(view).encode()


def environment(*, escape: bool) -> jinja2.Environment:
    """Templates, which may include those of this package."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def embedded(path: Path) -> str:
    """The bytes of a file in base64, for a data URL."""
    return base64.b64encode(path.read_bytes()).decode()

"""Templates of reports: Markdown, and pages of one file with our style and scripts alone."""

import base64
import hashlib
import json
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from .text import figure, printable

_PARTS = Path(__file__).parent / "page"


def render(template: str, *, scripted: bool = False, **values: Any) -> str:
    """Fill a template of `page/`, as text that is to be written as UTF-8.

    Every value is made printable and escaped, and a content security policy lets no script run but
    our own, which only a `scripted` page has, and nothing load.
    """
    style, script = (_shipped(_PARTS / name) for name in ("page.css", "page.js"))
    policy = f"'{_digest(script)}'" if scripted else "'none'"
    return fill(template, **values, style=style, script=script, policy=policy)


def fill(template: str, **values: Any) -> str:
    """Fill a template of `page/`; every value is made printable, and in HTML escaped."""
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> Environment:
    """Make what compiles templates, once: compiling one takes longer than rendering a page."""
    environment = Environment(
        loader=FileSystemLoader(_PARTS),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pretty = partial(json.dumps, indent=1, ensure_ascii=False)
    environment.filters |= {"figure": figure, "pretty": pretty, "printable": printable}
    return environment


def _finalize(value: Any) -> Any:
    """Make every text that a template puts out printable, before it is escaped."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


@cache
def _shipped(file: Path) -> Markup:
    """Read our script or style; nothing in it may end its element."""
    text = file.read_text(encoding="utf-8")
    return Markup(re.sub("</(?=script|style)", "<\\\\/", text, flags=re.IGNORECASE))  # noqa: S704 - shipped with the package


@cache
def _digest(script: Any) -> str:
    digest = hashlib.sha256(str(script).encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"

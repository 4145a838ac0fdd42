"""The shell of every page: one file, our style and scripts, and no text that acts."""

import base64
import hashlib
import importlib.resources
import json
import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .text import figure, printable

_PARTS = Path(__file__).parent / "page"


def render(template: str, *, charts: Mapping[str, Any] | None = None, **values: Any) -> str:
    """Fill a template of `page/`, as text that is to be written as UTF-8.

    `charts` maps the id of an element to the figure that it shows, in plotly's JSON form. Every
    value is made printable and escaped, and a content security policy lets no script run but the
    page's own two, none on a page without charts, and nothing load.
    """
    scripts = {}
    if charts is not None:
        plotly: Any = importlib.resources.files("plotly") / "package_data" / "plotly.min.js"
        scripts = {"plotly": _shipped(plotly), "page": _shipped(_PARTS / "page.js")}
    return (
        _templates()
        .get_template(template)
        .render(
            **values,
            charts=charts,
            style=_shipped(_PARTS / "page.css"),
            scripts=scripts,
            policy=" ".join(f"'{_digest(script)}'" for script in scripts.values()) or "'none'",
        )
    )


@cache
def _templates() -> Environment:
    """Make what compiles templates, once: compiling one takes longer than rendering a page."""
    environment = Environment(
        loader=FileSystemLoader(_PARTS),
        autoescape=True,
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
def _shipped(file: Any) -> Any:
    """Read a script or style that a package ships; nothing in it may end its element."""
    text = file.read_text(encoding="utf-8")
    return Markup(re.sub("</(?=script|style)", "<\\\\/", text, flags=re.IGNORECASE))  # noqa: S704 - shipped with the package


@cache
def _digest(script: Any) -> str:
    digest = hashlib.sha256(str(script).encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"

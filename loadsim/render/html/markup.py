"""HTML elements with escaped content, and the file around a page: style, script, data, and a strict policy.

Plain text is escaped when it becomes part of an element. The Content-Security-Policy forbids every request.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from loadsim import __version__
from loadsim.render.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Elements without content and end tag.
_VOID = {"meta", "link", "br", "col"}
#: Three rising bars.
_ICON = (
    "data:image/svg+xml,"
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='3' fill='%2322577a'/%3E"
    "%3Cpath d='M3 13V9h2v4zm4 0V6h2v7zm4 0V3h2v10z' fill='white'/%3E%3C/svg%3E"
)


class Markup(str):
    """Text that is already HTML. Plain text is escaped when it becomes part of it."""

    __slots__ = ()


def tag(name: str, /, *content: str | None, **attributes: str | float | bool | None) -> Markup:
    """Return an element.

    In attribute names, `class_` is class and `data_x` is data-x. An attribute that is None or False is left out; one
    that is True has no value. Content that is None is left out; text is escaped.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(content)}</{name}>")


def joined(content: Iterable[str | None]) -> Markup:
    """Return the pieces joined; text is escaped, None is left out."""
    return Markup("".join(escaped(piece) for piece in content if piece is not None))


def escaped(text: str) -> Markup:
    """Return text as HTML, with control characters shown escaped; Markup stays as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(printable(text)))


def document(title: str, body: Sequence[str], *, data: dict[str, Any]) -> str:
    """Return a complete HTML file; `data` holds the values of its charts."""
    library, script = asset("uPlot.iife.min.js"), asset("page.js")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(library, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"loadsim {__version__}"),
        tag("title", title),
        tag("link", rel="icon", href=_ICON),
        tag("style", Markup(asset("uPlot.min.css") + asset("page.css"))),
    )
    page = tag(
        "html",
        head,
        tag(
            "body",
            tag("main", *body),
            _footer(),
            data_block("data", data),
            tag("script", Markup(library)),
            tag("script", Markup(script)),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def data_block(identity: str, values: dict[str, Any]) -> Markup:
    """Return values as JSON for a script; no value can end the element."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return tag("script", Markup(text), type="application/json", id=identity)


@functools.cache
def asset(name: str) -> str:
    """Return the text of a file in the assets folder."""
    return resources.files("loadsim.render.html").joinpath("assets", name).read_text(encoding="utf-8")


def _attribute(key: str, value: str | float | bool) -> str:  # noqa: FBT001 -- the value of an attribute
    if value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{html.escape(printable(str(value)))}"'


def _policy(*scripts: str) -> str:
    """Return the policy: only inline style, these two scripts, and embedded images."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _footer() -> Markup:
    licence = asset("uPlot.LICENSE").strip()
    return tag(
        "footer",
        tag("p", f"Made by loadsim {__version__}. This page is self-contained: it loads nothing and sends nothing."),
        tag(
            "details",
            tag("summary", "Charts: uPlot 1.6.32, MIT licence"),
            tag("pre", joined([Markup("\n"), Markup("\n".join(escaped(line) for line in licence.splitlines()))])),
        ),
    )

"""HTML that cannot be broken by what stands in it: plain text is escaped wherever it meets an element.

Knows nothing of runs.
"""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

from loadsim.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Elements that have no content and no end.
_VOID = {"meta", "link", "br", "col"}


class Markup(str):
    """Text that is HTML already; every other text is escaped when it becomes a part of it."""

    __slots__ = ()


def tag(name: str, /, *content: str | None, **attributes: str | float | bool | None) -> Markup:
    """Return an element.

    Attributes: `class_` is class, `data_x` is data-x; None and False leave one out, True gives it no value. Content
    that is None is left out, text is escaped.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(content)}</{name}>")


def joined(content: Iterable[str | None]) -> Markup:
    """Return pieces one after the other; text is escaped, None left out."""
    return Markup("".join(escaped(piece) for piece in content if piece is not None))


def escaped(text: str) -> Markup:
    """Return text as HTML that shows it, control characters included; what is HTML already stays as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(printable(text)))


def data_block(identity: str, values: dict[str, Any]) -> Markup:
    """Return values as JSON for a script to read; nothing in it can end the element."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return tag("script", Markup(text), type="application/json", id=identity)


def _attribute(key: str, value: str | float | bool) -> str:  # noqa: FBT001 -- the value of an attribute
    if value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{html.escape(printable(str(value)))}"'

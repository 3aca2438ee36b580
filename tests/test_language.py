"""What people read is plain technical English: marker words of translated prose are counted and held down."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
#: Words and turns that plain technical English hardly needs. A few are right now and then, so a rate is held, not zero.
MARKERS = re.compile(
    r"\b(?:who(?!')|whom|whose|whoever|whatever|nobody|those who|so that|anew|for ever|of which|in vain|"
    r"so (?:many|long|much|large|few)|let in|comes in|those (?:of|that)|alone|(?:is|are|was|were) no\b)",
    re.IGNORECASE,
)
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
#: Marker words per 1,000 words, at most.
HIGHEST = 2.0


def prose_of_markdown(path: Path) -> str:
    """Return a Markdown file without its code blocks and inline code."""
    return re.sub(r"`[^`]*`", "", re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL))


def docstrings_and_comments(path: Path) -> str:
    """Return all docstrings and comments of a module."""
    source = path.read_text(encoding="utf-8")
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, nodes)]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return "\n".join([*texts, *(token.string for token in tokens if token.type == tokenize.COMMENT)])


def visible_strings(path: Path) -> str:
    """Return the string literals of a module that are sentences: several words, and no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]
    return "\n".join(text for text in texts if len(WORD.findall(text)) > 3)


def rate(text: str) -> float:
    """Return the marker words per 1,000 words."""
    return 1000 * len(MARKERS.findall(text)) / max(len(WORD.findall(text)), 1)


SOURCES = sorted((ROOT / "loadsim").rglob("*.py"))
TEXTS: dict[str, Callable[[], str]] = {
    "README.md": lambda: prose_of_markdown(ROOT / "README.md"),
    "docs": lambda: "\n".join(map(prose_of_markdown, sorted((ROOT / "docs").rglob("*.md")))),
    "scenarios": lambda: "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "scenarios").iterdir())),
    "docstrings and comments": lambda: "\n".join(map(docstrings_and_comments, SOURCES)),
    "strings that people see": lambda: "\n".join(map(visible_strings, SOURCES)),
    "docstrings and comments of the tests": lambda: "\n".join(
        map(docstrings_and_comments, sorted((ROOT / "tests").rglob("*.py")))
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_marker_words_are_rare(name: str) -> None:
    """Translated turns stay below 2 per 1,000 words in everything that people read."""
    text = TEXTS[name]()
    found = ", ".join(sorted({match.group().lower() for match in MARKERS.finditer(text)}))
    print(f"{name}: {rate(text):.1f} per 1,000 of {len(WORD.findall(text)):,} words")  # noqa: T201 -- pytest -s shows it
    assert rate(text) <= HIGHEST, f"{rate(text):.1f} per 1,000 words: {found}"

"""Scenario files that nobody means well with: shipped ones changed at random, and noise; and how one is read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from loadsim.analysis.outlook import outlook_of
from loadsim.errors import LoadsimError
from loadsim.report import check, outlook
from loadsim.scenario.budget import Host
from loadsim.scenario.plan import make_plan
from loadsim.scenario.toml import load_matrix, shipped_paths

if TYPE_CHECKING:
    from pathlib import Path

    from hypothesis.strategies import SearchStrategy

#: As long as reading, planning and showing one may take.
SLOW_S = 2.0
SHIPPED = [path.read_bytes() for path in shipped_paths()]
_LINES = sorted({line for text in SHIPPED for line in text.splitlines() if b"=" in line and not line.startswith(b"#")})
_KEYS = sorted({line.partition(b"=")[0].strip() for line in _LINES})
_VALUES = [
    b"0", b"-1", b"1e400", b"nan", b"-inf", b"9" * 30, b"0x7fffffffffffffff", b"1.0e-320", b"true", b'""', b'"\\u0000"',
    b'"0s"', b'"1e9h"', b'"0.0000001ns"', b'"99999999999999999/s"', b'"1/s..1e300/s"', b'"-5s"', b'"inf/s"', b'"\xff"',
    b"[]", b"{}", b"[1, 2, 3]", b"[[[[]]]]", b"[{}]", b"{a = {b = {c = 1}}}", b"1979-05-27T07:32:00Z", b"'''\n'''",
    b'"' + b"x" * 5000 + b'"', b"[" * 200 + b"]" * 200, b"[" + b"1," * 3000 + b"]", b'"../../etc/passwd"',
    b'"/dev/zero"', b'["{port}", "--", "\\u001b[2J"]', b'[{at = "1s", release = 1.0}, {at = "0s", nofile = 1}]',
    b'"127.0.0.1:99999"', b'"[::1]:80"', b'"8.8.8.8:53"', '"\u202e\u0007"'.encode(), b'"server.backlog > 0"',
]  # fmt: skip
_TABLES = [b"[server]", b"[client]", b"[sweep]", b"[timeline]", b"[canary]", b"[network]", b"[sysctl]", b"[thresholds]"]


@st.composite
def _changed(draw: st.DrawFn) -> bytes:
    """Return a shipped scenario of which some lines are gone, twice there, elsewhere, or have another value."""
    lines = list(draw(st.sampled_from(SHIPPED)).splitlines())
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(lines)))
        what = draw(st.integers(0, 5))
        if what == 0 and lines:
            del lines[min(at, len(lines) - 1)]
        elif what == 1:
            lines.insert(at, draw(st.sampled_from(_LINES)))
        elif what == 2:
            lines.insert(at, draw(st.sampled_from(_KEYS)) + b" = " + draw(st.sampled_from(_VALUES)))
        elif what == 3 and lines:
            key = lines[min(at, len(lines) - 1)].partition(b"=")[0]
            lines[min(at, len(lines) - 1)] = key + b"= " + draw(st.sampled_from(_VALUES))
        elif what == 4:
            lines.insert(at, draw(st.sampled_from(_TABLES)))
        else:
            lines.insert(at, draw(st.binary(max_size=40)).replace(b"\n", b""))
    return b"\n".join(lines)


@st.composite
def _bitten(draw: st.DrawFn) -> bytes:
    """Return a shipped scenario of which some bytes are others, or are missing."""
    text = bytearray(draw(st.sampled_from(SHIPPED)))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(text) - 1))
        if draw(st.booleans()):
            text[at] = draw(st.integers(0, 255))
        else:
            del text[at : at + draw(st.integers(1, 30))]
        if not text:
            break
    return bytes(text)


@st.composite
def _made_up(draw: st.DrawFn) -> bytes:
    """Return tables and keys as scenarios have them, with any value."""
    pairs = st.tuples(st.sampled_from(_KEYS), st.sampled_from(_VALUES) | st.sampled_from(_LINES).map(_value_of))
    lines = [b"schema = 1"]
    for table in draw(st.lists(st.sampled_from(_TABLES), unique=True, max_size=6)):
        lines += [table, *(key + b" = " + value for key, value in draw(st.lists(pairs, max_size=8)))]
    return b"\n".join(lines)


def _value_of(line: bytes) -> bytes:
    return line.partition(b"=")[2].strip() or b"1"


def texts() -> SearchStrategy[bytes]:
    """Return what to read: three in four begin with a valid scenario or its words."""
    noise = st.binary(max_size=2000) | st.text(max_size=500).map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(_changed(), _bitten(), _made_up(), noise)


def read(text: bytes, folder: Path) -> tuple[str, float]:
    """Read a scenario as `loadsim check` does; return "valid" or its error, and the seconds that it took.

    Any other exception than the errors that loadsim raises on purpose comes through.
    """
    path = folder / "hostile.toml"
    path.write_bytes(text)
    begun = time.monotonic()
    try:
        matrix = load_matrix(str(path))
        plans = [make_plan(cell.scenario, Host()) for cell in matrix.cells]
        if matrix.is_single:
            shown = check.render(plans[0], width=80, color=False, unicode=True)
        else:
            shown = outlook.render(outlook_of(matrix, plans), width=80, color=False, unicode=True)
        said = "valid"
    except LoadsimError as error:
        said = shown = str(error)
    assert "\x1b" not in shown
    return said, time.monotonic() - begun

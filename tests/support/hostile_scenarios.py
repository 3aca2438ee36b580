"""Hostile scenario files (shipped ones changed at random, huge ones, and noise), and a function that reads one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from loadsim.commands import check
from loadsim.compare.text import preview_of
from loadsim.errors import LoadsimError
from loadsim.render.drawing import Terminal
from loadsim.scenario.budget import Host
from loadsim.scenario.plan import make_plans
from loadsim.scenario.shipped import shipped_paths
from loadsim.scenario.toml import load_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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
    """Return a shipped scenario with some lines removed, inserted or changed."""
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
def _corrupted(draw: st.DrawFn) -> bytes:
    """Return a shipped scenario with some bytes changed or removed."""
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
    """Return tables and keys of scenarios, with any values."""
    pairs = st.tuples(st.sampled_from(_KEYS), st.sampled_from(_VALUES) | st.sampled_from(_LINES).map(_value_of))
    lines = [b"schema = 1"]
    for table in draw(st.lists(st.sampled_from(_TABLES), unique=True, max_size=6)):
        lines += [table, *(key + b" = " + value for key, value in draw(st.lists(pairs, max_size=8)))]
    return b"\n".join(lines)


@st.composite
def _heavy(draw: st.DrawFn) -> bytes:
    """Return a scenario of excessive size: long arrays, keys, texts and lines, and many cells."""
    texts = [draw(st.sampled_from(_HEAVY))(2 ** draw(st.integers(0, 14))) for _ in range(draw(st.integers(1, 3)))]
    return b"\n".join([_PLAIN, *sorted(texts, key=lambda text: text.startswith(b"["))])


def _many(head: str, each: str, between: str = ", ", end: str = "]") -> Callable[[int], bytes]:
    """Return a function of n that repeats a text n times; {n} in the text is the index."""
    return lambda n: (head + between.join(each.replace("{n}", str(i)) for i in range(n)) + end).encode()


_PLAIN = b'schema = 1\nclient.rate = "4000/s"\nclient.duration = "45s"'
_HEAVY: list[Callable[[int], bytes]] = [
    _many("timeline.steps = [", '{at = "1s", nofile = 9}'),
    _many("timeline.steps = [", '{at = "1s", nofle = 9}'),
    _many("timeline.steps = [{", "a{n} = {n}", end="}]"),
    _many("client.stages = [", '{for = "1s", rate = "3/s"}'),
    _many("[[client.stages]]\n", 'for = "1s"\nrat = "3/s"\n', "[[client.stages]]\n", ""),
    _many("thresholds.expect = [", '"accept.p99 < 5ms"'),
    _many("thresholds.expect = [", '"acept.p{n} < 5ms"'),
    _many("thresholds.abort = [", '"é{n}é"'),
    _many("", 'sysctl."net.core.somaxcon{n}" = {n}', "\n", ""),
    _many('sysctl."net.core.', "a", "", '" = 1'),
    _many("", "server.x{n} = {n}", "\n", ""),
    _many("server.command = [", '"x{n}"'),
    _many("server.command = [", "{n}"),
    _many('server.command = ["', "{port} é", "", '"]'),
    _many('client.path = "/', "é", "", '"'),
    _many('client.exchange = "raw"\nclient.send = "', "x", "", '"'),
    _many('"', "k", "", '" = 1'),
    _many("[", "k", "", "]"),
    _many("[a", ".b", "", "]"),
    _many("", "[t{n}]", "\n", ""),
    _many("x = ", "[", "", ""),
    _many("x = {", "a = {", "", ""),
    _many('sweep."server.backlog" = [', "{n}"),
    _many('sweep."server.nofile" = [', "1"),
    _many("sweep.server.nofle = [", "{n}"),
    _many('sweep."client.hold" = [', '"{n}ms"'),
    _many('sweep."client.path" = ["/', "x", "", '", "/", ""]'),
    _many("", 'sweep."sysctl.net.core.a{n}" = [1]', "\n", ""),
    _many("", 'sweep."sysctl.net.core.a{n}" = [1, 2]', "\n", ""),
    _many('sweep."server.backlog" = [1, 2, 3, 4, 5, 6, 7, 8]\nsweep."server.nofile" = [', "{n}"),
    _many('sweep."server.backlog" = [1, 2, 3, 4, 5, 6, 7, 8]\nsweep.exclude = [', '{"server.backlog" = {n}}'),
    _many('sweep."client.hold" = ["1s", "2s", "3s"]\nsweep.exclude = [', '{"client.hold" = "{n}s"}'),
]  # fmt: skip


def _value_of(line: bytes) -> bytes:
    return line.partition(b"=")[2].strip() or b"1"


def texts() -> SearchStrategy[bytes]:
    """Return texts to read: four in five begin with a valid scenario or its words."""
    noise = st.binary(max_size=2000) | st.text(max_size=500).map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(_changed(), _corrupted(), _made_up(), _heavy(), noise)


def overrides() -> SearchStrategy[list[str]]:
    """Return arguments of --set: keys and values of scenarios, and noise."""
    keys = st.sampled_from([key.decode() for key in _KEYS]) | st.text(max_size=40) | st.just("a." * 1000 + "a")
    key = st.lists(keys, min_size=1, max_size=4).map(".".join)
    value = st.sampled_from(_VALUES).map(lambda value: value.decode(errors="surrogateescape")) | st.text(max_size=200)
    pair = st.tuples(key, st.lists(value, min_size=1, max_size=3).map(",".join)).map("=".join)
    return st.lists(pair | st.text(max_size=500), min_size=1, max_size=3)


def read(text: bytes, folder: Path, overrides: Sequence[str] = ()) -> tuple[str, float]:
    """Read a scenario as `loadsim check` does; return "valid" or its error, and the seconds of CPU time that it took.

    Any other exception than the errors that loadsim raises on purpose is passed on.
    """
    path = folder / "hostile.toml"
    path.write_bytes(text)
    begun = time.process_time()
    try:
        matrix = load_matrix(str(path), overrides)
        plans = make_plans([cell.scenario for cell in matrix.cells], lambda _: Host())
        if matrix.is_single:
            shown = check.render_plan(plans[0], Terminal(width=80, color=False, unicode=True))
        else:
            shown = check.render_preview(preview_of(matrix, plans), Terminal(width=80, color=False, unicode=True))
        said = "valid"
    except LoadsimError as error:
        said = shown = str(error)
    assert "\x1b" not in shown
    return said, time.process_time() - begun

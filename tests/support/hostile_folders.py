"""Result folders with accidental or malicious damage, and the reaction of the commands.

A seeded generator chooses the damage to a copy of a kept folder. Each command runs in its own process with bounds on
memory and time.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadsim.commands import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: A path in a JSON document.
Keys = tuple[str | int, ...]

KEPT = Path(__file__).parent.parent / "data" / "results-1"
KINDS = ("simulated", "command", "sweep", "verdict")
MEMORY_BYTES = 3 << 30
HUNG_S, SLOW_S = 20, 5.0
LARGEST_BYTES = 1_000_000  # the largest file that is damaged; a damage may have made a hole of a terabyte
ESCAPES = "\x1b[31mESC\x1b]0;OSC\x07\x9b2J\u202ebidi<script>alert(1)</script>|`](http://x)]]>"
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63 - 1, -(2**63), 2**64, 10**30, 1e308, -1e308, 1e-320, float("inf"), float("nan"),
    "", "x" * 10_000, ESCAPES, "\ud800", [], {}, [[]], {"a": {}}, [1] * 1000, "../../etc/passwd",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The reaction of a command; `code` is negative if a signal ended it."""

    code: int
    text: str
    took_s: float

    @property
    def is_clean(self) -> bool:
        """Whether it ended in time, with a documented exit code and without a traceback."""
        return self.code in (0, 2) and "Traceback" not in self.text and self.took_s < HUNG_S


def damaged(seed: int, into: Path) -> tuple[Path, str]:
    """Copy a kept folder, damage the copy, and return it with a description of the damage."""
    rng = random.Random(seed)  # noqa: S311 -- the same damage every time
    kind = rng.choice(KINDS)
    folder = into / f"{seed}-{kind}"
    shutil.copytree(KEPT / kind, folder)
    done = [f"{kind}:"]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not (files := sorted(filter(_is_small_file, folder.rglob("*")))):
            break
        path = rng.choice(files)
        harm = rng.choice(_JSON_HARMS if path.suffix == ".json" and rng.random() < 0.7 else _HARMS)
        harm(path, rng)
        done.append(f"{harm.__name__.strip('_')} {path.relative_to(folder)}")
    return folder, " ".join(done)


def texts_in(folder: Path) -> list[tuple[Path, Keys]]:
    """Return the place of each text in the JSON documents of a folder: its file and its path."""
    return [
        (path, keys) for path in sorted(folder.rglob("*.json")) for keys in _texts(json.loads(path.read_text()), ())
    ]


def _texts(value: object, keys: Keys) -> Iterator[Keys]:
    if isinstance(value, str):
        yield keys
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(inner, (*keys, key))


def tainted_report(kind: str, path: Path, keys: Keys, scratch: Path) -> tuple[Answer, list[str]]:
    """Report on a copy with one text and the server's output tainted; return the answer and the obeyed texts."""
    folder = shutil.copytree(KEPT / kind, scratch / "tainted")
    _taint(folder / path.relative_to(KEPT / kind), keys)
    for run in folder.rglob("manifest.json"):
        for name in ("target.stdout", "target.stderr"):
            (run.parent / name).write_text(ESCAPES + "\n", encoding="utf-8")
    answer = ask(["report", str(folder)], scratch)
    found = _obeyed(answer.text, folder)
    shutil.rmtree(folder)
    return answer, found


def _taint(path: Path, keys: Keys) -> None:
    """Append to a text what a terminal, a page, Markdown and XML would obey."""
    document = inner = json.loads(path.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] += ESCAPES
    path.write_text(json.dumps(document))


def _obeyed(printed: str, folder: Path) -> list[str]:
    """Return the dangerous texts on the terminal, and in the files written from the folder."""
    found = [f"{char!r} on the terminal" for char in "\x1b\x07\x9b\u202e" if char in printed]
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".html", ".md", ".xml", ".csv"}:
            text = path.read_text()
            found += [f"{harm!r} in {path.name}" for harm in ("\x1b", "\x9b", "<script>alert(1)") if harm in text]
    return found


def _is_small_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size < LARGEST_BYTES


def ask(arguments: list[str], scratch: Path) -> Answer:
    """Run a loadsim command in a child of this process, bounded in memory and time."""
    output, begun = scratch / "output.txt", time.monotonic()
    child = os.fork()
    if child == 0:
        _be_loadsim(arguments, output)
    _, status = os.waitpid(child, 0)
    text = output.read_bytes().decode(errors="backslashreplace")
    return Answer(code=os.waitstatus_to_exitcode(status), text=text, took_s=time.monotonic() - begun)


def _be_loadsim(arguments: list[str], output: Path) -> None:
    """Run the command in this child process and end it; never returns."""
    code = 99
    try:
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(HUNG_S)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        code = _run(arguments)
    finally:
        os._exit(code)


def _run(arguments: list[str]) -> int:
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8", write_through=True)
    sys.argv = ["loadsim", *arguments]
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 -- the test looks for any exception
        traceback.print_exc()
        return 1
    return 0


def _truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size + 1))


def _flip(path: Path, rng: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 8, 64))):
        if raw:
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def _noise(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.choice((0, 3, 5000))))


def _remove(path: Path, _: random.Random) -> None:
    path.unlink()


def _link(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(rng.choice(("/dev/zero", "/etc/passwd", path.name, "..", "/nowhere", "/dev/full")))


def _fifo(path: Path, _: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _huge(path: Path, rng: random.Random) -> None:
    """Announce far more records than the file has; a file that is not an array becomes a hole of a terabyte."""
    if path.suffix != ".npy":
        os.truncate(path, 1 << 40)  # a hole
        return
    header = path.read_bytes()
    count = str(rng.choice((10**6, 10**12, 2**62, -1))).encode()
    begin = header.find(b"'shape': (") + len(b"'shape': (")
    end = header.find(b",", begin)
    path.write_bytes(header[:begin] + count + header[end : 128 - len(count)] + header[128:])


def _journal(path: Path, rng: random.Random) -> None:
    """Replace an array by a journal with absurd numbers in its header."""
    name = path.stem
    kind = {"canary": "attempt", "held": "attempt"}.get(name, name.removesuffix("s"))
    odd = (0, 1, 64, 1000, 2**32, 2**63, 2**64 - 1)
    head = struct.pack("=8s16sQQ", b"LOADSIM1", kind.encode()[:16], rng.choice((40, 64, 152)), rng.choice(odd))
    counters = struct.pack("=QQ", rng.choice(odd), rng.choice(odd))
    path.unlink()
    path.with_suffix(".journal").write_bytes(
        (head.ljust(64, b"\0") + counters).ljust(4096, b"\0") + rng.randbytes(6400)
    )


def _odd_value(path: Path, rng: random.Random) -> None:
    """Put odd values in a document."""
    try:
        values = json.loads(path.read_text())
    except (ValueError, RecursionError):  # damaged before
        return
    places = list(_places(values))
    if not places:
        return
    for _ in range(rng.choice((1, 1, 3))):
        holder, key = rng.choice(places)
        holder[key] = rng.choice(_ODD)
    path.write_text(json.dumps(values))


def _lost_key(path: Path, rng: random.Random) -> None:
    try:
        values = json.loads(path.read_text())
    except (ValueError, RecursionError):  # damaged before
        return
    places = [(holder, key) for holder, key in _places(values) if isinstance(holder, dict)]
    if places:
        holder, key = rng.choice(places)
        holder.pop(key, None)
    path.write_text(json.dumps(values))


def _nested(path: Path, rng: random.Random) -> None:
    depth = rng.choice((500, 100_000))
    path.write_text(rng.choice(("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth)))


def _other_version(path: Path, rng: random.Random) -> None:
    try:
        values = json.loads(path.read_text())
        values["format"] = rng.choice((0, -1, 2, 10**20, "1", None, 1.5))
    except (ValueError, TypeError, RecursionError):
        return
    path.write_text(json.dumps(values))


def _places(values: Any) -> Any:  # noqa: ANN401 -- any JSON value
    """Yield every place in a document as its container and its key."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in list(pairs):
        yield values, key
        yield from _places(value)


_HARMS: tuple[Callable[[Path, random.Random], None], ...] = (
    _truncate, _flip, _flip, _flip, _noise, _remove, _link, _fifo, _folder, _huge, _journal,
)  # fmt: skip
_JSON_HARMS = (_odd_value, _odd_value, _odd_value, _lost_key, _nested, _other_version)

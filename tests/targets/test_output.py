"""What a command writes: all of it counted, its beginning and its end kept."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import trio

from loadsim.targets.command import KEPT, Meter, Output

if TYPE_CHECKING:
    from pathlib import Path


async def pumped(path: Path, pieces: list[bytes]) -> Output:
    """Write pieces into an output and read them all."""
    output = Output(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.pump)
        for piece in pieces:
            await trio.to_thread.run_sync(os.write, output.end, piece)
        os.close(output.end)
    await output.aclose()
    return output


def test_little_is_kept_whole(tmp_path: Path) -> None:
    """Byte by byte, with its last lines at hand."""
    output = trio.run(pumped, tmp_path / "out", [b"one\n", b"two\n"])
    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"
    assert output.written == 8
    assert output.last_words() == "\n  one\n  two"


def test_much_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    """Up to twice the share nothing is missing; beyond, the file says how much."""
    whole = bytes(range(256)) * (2 * KEPT // 256)
    trio.run(pumped, tmp_path / "whole", [whole[at : at + 50_000] for at in range(0, len(whole), 50_000)])
    assert (tmp_path / "whole").read_bytes() == whole

    output = trio.run(pumped, tmp_path / "cut", [*[b"x" * 50_000] * 50, b"the end"])
    kept = (tmp_path / "cut").read_bytes()
    assert output.written == 2_500_007
    assert kept.endswith(b"the end")
    assert b"[loadsim: 500,007 bytes are left out here]" in kept


def test_a_meter_keeps_some_hundred_readings() -> None:
    """The first and the newest always, those between ever further apart, each with what was written by then."""
    written = iter(range(1000, 11_001, 10))
    meter = Meter(lambda: next(written))
    for _ in range(1000):
        meter.read()

    amounts = [amount for _, amount in meter.readings]
    assert 200 <= len(amounts) <= 401
    assert (amounts[0], amounts[-1], meter.total) == (0, 10_000, 10_000)
    assert amounts == sorted(amounts)
    assert max(later - earlier for earlier, later in itertools.pairwise(amounts)) <= 80

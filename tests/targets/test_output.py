"""The output of a command is counted, and its beginning and its end are saved."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import trio

from loadsim.targets.command import KEPT, Meter, Output

if TYPE_CHECKING:
    from pathlib import Path


async def pumped(path: Path, pieces: list[bytes]) -> Output:
    """Write pieces to an output and read them all."""
    output = Output(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.pump)
        for piece in pieces:
            await trio.to_thread.run_sync(os.write, output.end, piece)
        os.close(output.end)
    await output.aclose()
    return output


def test_a_short_output_is_saved_unchanged(tmp_path: Path) -> None:
    """Every byte is in the file, and the last lines are available."""
    output = trio.run(pumped, tmp_path / "out", [b"one\n", b"two\n"])
    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"
    assert output.written == 8
    assert output.last_words() == "\n  one\n  two"


def test_a_long_output_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    """Up to 2 x KEPT bytes the file is complete; beyond that it states the size of the gap."""
    complete = bytes(range(256)) * (2 * KEPT // 256)
    trio.run(pumped, tmp_path / "complete", [complete[at : at + 50_000] for at in range(0, len(complete), 50_000)])
    assert (tmp_path / "complete").read_bytes() == complete

    output = trio.run(pumped, tmp_path / "cut", [*[b"x" * 50_000] * 50, b"the end"])
    kept = (tmp_path / "cut").read_bytes()
    assert output.written == 2_500_007
    assert kept.endswith(b"the end")
    assert b"[loadsim: 500,007 bytes are left out here]" in kept


def test_a_meter_keeps_some_hundred_readings() -> None:
    """The first and the newest reading stay, and the readings between them get further apart."""
    written = iter(range(1000, 11_001, 10))
    meter = Meter(lambda: next(written))
    for _ in range(1000):
        meter.read()

    amounts = [amount for _, amount in meter.readings]
    assert 200 <= len(amounts) <= 401
    assert (amounts[0], amounts[-1], meter.total) == (0, 10_000, 10_000)
    assert amounts == sorted(amounts)
    assert max(later - earlier for earlier, later in itertools.pairwise(amounts)) <= 80

"""A synthetic run, and its derived files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from recordings import accept, attempt, failure, ns, recording, sample

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.judge import summary_of
from loadsim.record.result import Bundle
from loadsim.render.files import write_files

if TYPE_CHECKING:
    from pathlib import Path


#: 2026-11-22 09:41:07.250 UTC
WALL_CLOCK = 1_795_340_467.25


LATENCIES_NS = np.random.default_rng(7).lognormal(10.3, 1.7, 500).astype(np.int64)


def made_up() -> Dataset:
    """Return a run of 500 clients in 2.5 s, with samples and one failure."""
    rows = [
        attempt(n + 1, at := n / 200, started=at, connected=at + int(took) / 1e9) for n, took in enumerate(LATENCIES_NS)
    ]
    samples = [
        sample(-0.05, open_fds=8, fd_limit=64, fd_size=256),
        sample(0.0100000007, open_fds=9, queue=0, queue_capacity=128, rss=2**40),
    ]
    accepts = [accept(row, 0.0002 * index % 0.009) for index, row in enumerate(rows)]
    return Dataset.of(recording(rows, accepts, [failure(1.0)], samples, load_end_ns=ns(2.6), start_unix_s=WALL_CLOCK))


def written(folder: Path) -> Dataset:
    """Write the files of the run into a folder and return the run."""
    data = made_up()
    write_files(Bundle(folder), data, summary_of(data))
    return data

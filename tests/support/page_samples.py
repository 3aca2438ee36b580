"""Runs and comparisons for the tests of pages and of the lines in their charts."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
from recordings import START_NS, ns, recording, sample

from loadsim.analysis.series import Curve
from loadsim.compare.comparison import Answer, Column, Comparison, Difference, Estimate, Gate, Group, Pair, Row, Says
from loadsim.fates import Outcome
from loadsim.record.recording import Recording, empty
from loadsim.record.records import ACCEPT, ATTEMPT

#: Every character that could end an attribute, an element or a script.
NASTY = "<script>document.title='owned'</script>\"'&\u2028\u2029<!--]]>"


def million(count: int = 1_000_000) -> Recording:
    """Return a run of a million attempts in 20 s, all accepted."""
    samples = [sample(0.01 * n, open_fds=8 + n, queue=0, cpu_ns=n, fd_size=64) for n in range(2000)]
    base = recording(samples=samples, load_end_ns=ns(20.0), judged_ns=ns(20.1), server_nofile_soft=5000)
    attempts, accepts = empty(ATTEMPT, count), empty(ACCEPT, count)
    started = START_NS + np.arange(count, dtype=np.uint64) * 20_000
    attempts["number"] = np.arange(1, count + 1)
    attempts["port"] = np.arange(count) % 50_000 + 10_000
    attempts["source"] = np.arange(count) // 50_000 % 20
    attempts["outcome"] = Outcome.OK
    for name, after in (
        ("intended", 0),
        ("started", 1_000),
        ("connected", 31_000),
        ("replied", 500_000),
        ("ended", 10**6),
    ):
        attempts[name] = started + after
    accepts["accepted"] = started + 31_000 + np.arange(count, dtype=np.uint64) % 9_000
    accepts["closed"] = started + 2 * 10**6
    accepts["open_fds"] = 9 + np.arange(count) % 4000
    accepts["fd"], accepts["state"], accepts["port"] = 8, 1, attempts["port"]
    accepts["peer"][:, 0] = 127 + ((attempts["source"].astype(np.uint32) + 1) << 24)
    return dataclasses.replace(base, attempts=attempts, accepts=accepts)


def backlog_sweep(**changes: Any) -> Comparison:  # noqa: ANN401 -- any field of a comparison
    """Return a sweep of five backlogs with six runs each; 256 is enough."""
    labels = ["backlog 1", "backlog 8", "backlog 128", "backlog 256", "backlog 4,096"]
    backlogs = [1, 8, 128, 256, 4096]
    rows = [
        _row("queue.max", "", "lower", [2, 9, 129, 212, 216], 3),
        _row("queue.capacity", "", "neither", [2, 9, 129, 257, 4097], 0),
        _row("attempts.served", "share", "higher", [0.761, 0.857, 1.0, 1.0, 1.0], 0),
        _row("attempts.late", "", "lower", [1557, 1123, 389, 0, 0], 12),
        _row("fate.phantom", "", "lower", [1136, 808, 0, 0, 0], 9),
        _row("reply.p99", "s", "lower", [1.01, 1.02, 1.03, 0.097, 0.098], 0.002),
        dataclasses.replace(_row("server.cpu", "cores", "lower", [0.1, 0.11, 0.12, 0.12, 0.12], 0.01), pairs=[]),
    ]
    comparison = Comparison(
        kind="sweep",
        title="backlog-sweep",
        description="2,000 clients/s for 3 s; the server pauses 100 ms twice a second.",
        seed=7,
        axes=["server.backlog"],
        repeat=6,
        complete=True,
        duration_s=137.0,
        min_effect=0.05,
        groups=[
            Group(
                label=label,
                values={"server.backlog": backlog},
                runs=[f"runs/backlog-{backlog}-{n}" for n in range(1, 7)],
                statuses=["HEALTHY" if backlog > 200 else "REPRODUCED"] * 6,
                refused=[],
            )
            for label, backlog in zip(labels, backlogs, strict=True)
        ],
        columns=[
            Column(metric="queue.max", heading="queue peak", of="queue.capacity"),
            Column(metric="attempts.served", heading="served"),
            Column(metric="attempts.late", heading="1 s late", legend="their first SYN was lost and sent again"),
            Column(metric="fate.phantom", heading="phantom", legend="connected at the client only"),
            Column(metric="reply.p99", heading="reply p99"),
        ],
        rows=rows,
        answer=Answer(
            group=3,
            sentence="backlog 256 is enough; so would 218 be. 4,096 is not better than 256.",
            evidence=["The queue never held more than 219 clients (202-219 in the 12 runs that did not overflow)."],
            costs=["128 looks perfect, 100 % served, but 389 of 6,000 clients (6.5 %) waited one second more."],
            advice=["Set both: listen(fd, 256) and net.core.somaxconn >= 256 (here 4,096: fine)."],
        ),
        settings=[Difference(name="client.hold", values=["0.0", "0.0", "0.0", "0.0", "1.0"])],
        hosts=[],
        unlike_hosts=False,
        curves=[
            Curve(
                group=group,
                family=family,
                percentiles=[0.0, 50.0, 90.0, 99.0, 99.9, 100.0],
                values_s=[scale * worse * value for value in (0.0001, 0.0002, 0.001, 0.01, 0.02, 0.03)],
                count=6000,
            )
            for family, scale in (("connect", 1.0), ("reply", 2.0))
            for group, worse in enumerate((30.0, 20.0, 10.0, 1.0, 1.1))
        ],
        gates=[Gate(text="reply.p99 +10%", ok=False, measured="+34 % (worse)")],
    )
    return dataclasses.replace(comparison, **changes)


def _row(metric: str, unit: str, better: str, medians: list[float], apart: float) -> Row:  # noqa: PLR0917 -- a line of a table
    """Return a row with these medians; groups with disjoint ranges differ."""
    spread = [-1.0, -0.6, -0.1, 0.1, 0.5, 1.0]
    values = [[max(median + apart * one, 0.0) for one in spread] if median else [0.0] * 6 for median in medians]
    estimates: list[Estimate | None] = [
        Estimate(values=v, median=m, low=min(v), high=max(v), ci_low=sorted(v)[1], ci_high=sorted(v)[4])
        for m, v in zip(medians, values, strict=True)
    ]
    return Row(
        metric=metric,
        unit=unit,
        better=better,
        estimates=estimates,
        pairs=[_pair(a, b, medians, better, 2 * apart) for a, b in itertools.combinations(range(len(medians)), 2)],
    )


def _pair(a: int, b: int, medians: list[float], better: str, apart: float) -> Pair:  # noqa: PLR0917 -- one pair
    first, second = medians[a], medians[b]
    differs = abs(first - second) > apart
    says = Says.SAME
    if differs and better == "neither":
        says = Says.HIGHER if second > first else Says.LOWER
    elif differs:
        says = Says.BETTER if (second < first) == (better == "lower") else Says.WORSE
    return Pair(
        a=a,
        b=b,
        p=0.002 if differs else 0.6,
        p_holm=0.02 if differs else 1.0,
        effect=(second - first) / first if first else None,
        says=says,
        repeats_needed=None,
    )

"""Realistic comparisons for the tests of `loadsim.render` and `loadsim.compare`."""

from __future__ import annotations

from dataclasses import replace

from loadsim.analysis.series import Curve
from loadsim.compare.comparison import Answer, Column, Comparison, Difference, Estimate, Gate, Group, Pair, Row, Says
from loadsim.metrics import METRICS

BACKLOGS = (1, 8, 128, 256, 4096)
_COLUMNS = [
    Column(metric="queue.max", heading="queue peak", of="queue.capacity"),
    Column(metric="attempts.served", heading="served"),
    Column(metric="attempts.late", heading="1 s late", legend="served, but the first SYN was lost and sent again"),
    Column(metric="fate.phantom", heading="phantom", legend="connected at the client only"),
    Column(metric="fate.dropped", heading="dropped", legend="connect timed out"),
    Column(metric="reply.p99", heading="reply p99"),
]
_MEDIANS = {
    "queue.max": (2, 9, 129, 212, 216),
    "queue.capacity": (2, 9, 129, 257, 4097),
    "attempts.served": (0.761, 0.857, 1.0, 1.0, 1.0),
    "attempts.late": (1557, 1123, 389, 0, 0),
    "fate.phantom": (1136, 808, 0, 0, 0),
    "fate.dropped": (322, 62, 0, 0, 0),
    "reply.p99": (1.01, 1.02, 1.03, 0.097, 0.098),
    "server.cpu": (0.21, 0.22, 0.24, 0.24, 0.24),
}
_COST_OF_128 = (
    "128 looks perfect, 100 % served, but 389 of 6,000 clients (6.5 %) waited a second more: their first SYN was "
    "dropped and sent again."
)
_COST_OF_8 = (
    "With 8, 1,123 of 6,000 clients (19 %) waited a second more; 808 of 6,000 clients (13 %) were phantoms: "
    '"connected", no socket at the server, no error.'
)


def backlog_sweep() -> Comparison:
    """Return a sweep of five backlogs with six runs each; 256 is enough."""
    return Comparison(
        kind="sweep",
        title="backlog-sweep",
        description="2,000 clients/s; the server pauses 100 ms twice a second. Which backlog is enough?",
        seed=7,
        axes=["server.backlog"],
        repeat=6,
        complete=True,
        duration_s=137.0,
        min_effect=0.05,
        groups=[
            Group(
                label=f"backlog {value:,}",
                values={"server.backlog": value},
                runs=[f"runs/{cell + 1:02d}-backlog-{value}-{number + 1}" for number in range(6)],
                statuses=["REPRODUCED"] * 6,
                refused=[],
            )
            for cell, value in enumerate(BACKLOGS)
        ],
        columns=_COLUMNS,
        rows=[_row(metric, medians) for metric, medians in _MEDIANS.items()],
        answer=Answer(
            group=3,
            sentence="backlog 256 is enough; so would 218 be. 4,096 is not better than 256.",
            evidence=[
                "The queue never held more than 219 clients (202-219 in the 12 runs that did not overflow).",
                "Rule: backlog >= rate x longest pause = 2,000/s x 100 ms = 200.",
            ],
            costs=[_COST_OF_128, _COST_OF_8],
            advice=["Set both: listen(fd, 256) and net.core.somaxconn >= 256 (here it is)."],
        ),
        settings=[],
        hosts=[],
        unlike_hosts=False,
        curves=[
            Curve(group=cell, family="reply", percentiles=[0, 50, 90, 99, 100], values_s=_curve(cell), count=36_000)
            for cell in range(len(BACKLOGS))
        ],
    )


def two_builds() -> Comparison:
    """Return a comparison of two groups on different hosts, with one passed and one failed gate."""
    sweep = backlog_sweep()
    return replace(
        sweep,
        kind="compare",
        title="main and branch",
        description="",
        axes=[],
        groups=[
            replace(group, label=label, values={})
            for group, label in zip(sweep.groups[2:4], ("main", "branch"), strict=True)
        ],
        rows=[_row(metric, medians[2:4]) for metric, medians in _MEDIANS.items()],
        answer=None,
        settings=[Difference(name="server.backlog", values=["128", "256"])],
        hosts=[Difference(name="kernel", values=["6.1.0", "6.18.44"])],
        unlike_hosts=True,
        curves=[replace(curve, group=curve.group - 2) for curve in sweep.curves[2:4]],
        gates=[
            Gate(text="reply.p99 +10%", ok=True, measured="-91 % (better)"),
            Gate(text="queue.max +10%", ok=False, measured="+64 % (worse)"),
        ],
        notices=["The runs are from different hosts: only counts are judged. Use --force to judge times and CPU too."],
    )


def _curve(cell: int) -> list[float]:
    slow = _MEDIANS["reply.p99"][cell]
    return [0.0001, 0.0004, 0.03, slow, slow * 1.1]


def _row(metric: str, medians: tuple[float, ...]) -> Row:
    """Return a row whose runs are close to these medians."""
    about = METRICS[metric]
    estimates: list[Estimate | None] = []
    for median in medians:
        values = [median * (1 + 0.01 * step) for step in (-3, -2, -1, 1, 2, 3)]
        estimates.append(
            Estimate(values=values, median=median, low=values[0], high=values[-1], ci_low=values[1], ci_high=values[-2])
        )
    count = len(medians)
    pairs = [_pair(metric, medians, a, b) for a in range(count) for b in range(a + 1, count)]
    return Row(metric=metric, unit=about.unit, better=str(about.better), estimates=estimates, pairs=pairs)


def _pair(metric: str, medians: tuple[float, ...], a: int, b: int) -> Pair:
    before, after = medians[a], medians[b]
    same = abs(after - before) <= 0.05 * before
    up = {"higher": Says.BETTER, "lower": Says.WORSE, "neither": Says.HIGHER}[str(METRICS[metric].better)]
    down = {Says.BETTER: Says.WORSE, Says.WORSE: Says.BETTER, Says.HIGHER: Says.LOWER}[up]
    return Pair(
        a=a,
        b=b,
        p=0.8 if same else 0.0022,
        p_holm=1.0 if same else 0.022,
        effect=(after - before) / before if before else (0.0 if same else None),
        says=Says.SAME if same else up if after > before else down,
        repeats_needed=None,
    )

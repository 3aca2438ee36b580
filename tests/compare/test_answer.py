"""The answer of a sweep: the smallest value that is enough, the value needed, the cost of smaller values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from report_samples import healthy

from loadsim.analysis.latency import Histogram
from loadsim.analysis.summary import Judged
from loadsim.compare.compare import Question, compare_groups, curves_of, merged
from loadsim.compare.comparison import RunGroup

if TYPE_CHECKING:
    from loadsim.compare.comparison import Comparison

SETTINGS = {
    "server": {"backlog": 1, "pause": 0.1, "nofile": 64},
    "client": {"rate": 2000.0, "hold": 0.5},
}


def run_group(name: str, value: Any, *runs: dict[str, float], status: str = "HEALTHY", **changes: Any) -> RunGroup:  # noqa: ANN401
    """Return a cell with a run for each of these metrics."""
    base = {"attempts.count": 6000.0, "attempts.served": 1.0}
    summaries = [replace(healthy(), metrics={**base, **run}, settings=SETTINGS, status=status) for run in runs]
    label = f"{name.rpartition('.')[2]} {value}"
    parts = {"label": label, "values": {name: value}, "runs": [label] * len(runs), "summaries": summaries}
    return RunGroup(**{**parts, **changes})


def compared(*run_groups: RunGroup, axes: tuple[str, ...] | None = None, repeat: int = 6, **changes: Any) -> Comparison:  # noqa: ANN401
    """Return the comparison of these cells."""
    names = tuple(run_groups[0].values) if axes is None else axes
    return compare_groups(list(run_groups), Question(kind="sweep", title="x", axes=names, repeat=repeat, **changes))


def queue(peak: float, limit: float, overflows: float = 0, **more: float) -> dict[str, float]:
    """Return the metrics of a run with this peak and limit of its queue."""
    names = {name.replace("_", ".", 1): value for name, value in more.items()}
    return {"queue.max": peak, "queue.capacity": limit, "listen.overflows": overflows, **names}


def backlogs(**changes: Any) -> tuple[RunGroup, ...]:  # noqa: ANN401
    """Return three backlogs with six runs each: 128 loses clients, 256 is enough, 4096 gains nothing."""
    lossy = queue(129, 129, 900, attempts_late=389.0, fate_phantom=0.0, fate_dropped=0.0)
    enough = [queue(200 + n, 257, attempts_late=0.0, fate_phantom=0.0, fate_dropped=0.0) for n in range(6)]
    plenty = [queue(201 + n, 4097, attempts_late=0.0, fate_phantom=0.0, fate_dropped=0.0) for n in range(6)]
    cells = [("server.backlog", 128, [lossy] * 6), ("server.backlog", 256, enough), ("server.backlog", 4096, plenty)]
    return tuple(run_group(name, value, *runs, **changes) for name, value, runs in cells)


def test_the_smallest_value_that_held() -> None:
    """The answer names it, the value that was needed, and whether a larger value is better."""
    answer = compared(*backlogs()).answer

    assert answer is not None
    assert answer.group == 1
    assert answer.sentence == "backlog 256 is enough; so would 205 be. 4096 is not better than 256."
    assert answer.evidence == [
        "The queue never held more than 206 clients (200-206 in the 12 runs that did not overflow).",
        "Rule: backlog >= rate x longest pause = 2,000/s x 100 ms = 200.",
    ]
    [cost] = answer.costs
    assert cost.startswith("128 looks perfect, 100 % served, but 389 of 6,000 clients (6.5 %) waited a second more: ")
    assert answer.advice == ["Set both: listen(fd, 256) and net.core.somaxconn >= 256 (it is here)."]


def test_advice_is_the_value_that_was_enough_even_if_a_larger_one_needed_more() -> None:
    """A longer queue behind a larger backlog does not contradict the answer: it is said as such."""
    low, enough, plenty = backlogs()
    longer = [replace(one, metrics={**one.metrics, "queue.max": 300.0}) for one in plenty.summaries]
    answer = compared(low, enough, replace(plenty, summaries=longer)).answer

    assert answer is not None
    assert answer.sentence == "backlog 256 is enough. 4096 is not better than 256."
    assert answer.advice == [
        "Set both: listen(fd, 256) and net.core.somaxconn >= 256 (it is here).",
        "backlog 299 is safer: a run with a larger backlog needed that much.",
    ]


def test_one_client_is_one_client() -> None:
    """A queue that held one client at most has a sentence in the singular."""
    answer = compared(*(run_group("server.backlog", value, queue(1, value + 1)) for value in (4, 8))).answer

    assert answer is not None
    assert (
        answer.evidence[0] == "The queue never held more than 1 client (the same in the 2 runs that did not overflow)."
    )


def test_order_of_the_cells_does_not_matter() -> None:
    """Values are ordered as numbers, in any order of the cells."""
    low, enough, plenty = backlogs()
    answer = compared(plenty, low, enough).answer

    assert answer is not None
    assert (answer.group, answer.sentence[:22]) == (2, "backlog 256 is enough;")


def test_one_bad_run_is_enough_to_doubt_a_value() -> None:
    """A value is enough only if all its runs, and all larger values, held."""
    low, enough, plenty = backlogs()
    first, *others = enough.summaries
    runs = [*others, replace(first, metrics={**first.metrics, "listen.overflows": 1})]
    answer = compared(low, replace(enough, summaries=runs), plenty).answer

    assert answer is not None
    assert answer.group == 2


def test_nothing_held() -> None:
    """Then no value is chosen; the answer has the least that was needed, and advises larger values."""
    answer = compared(
        *(run_group("server.backlog", value, queue(value + 1, value + 1, 5)) for value in (8, 128))
    ).answer

    assert answer is not None
    assert (answer.group, answer.sentence) == (None, "No tested backlog is enough: even 128 was too small.")
    assert answer.evidence == ["At least 129 were needed."]
    assert answer.advice == ["Sweep larger values: --set server.backlog=..."]


def test_a_cell_that_could_not_run_is_not_enough() -> None:
    """A cell that was refused or has no run is not evidence."""
    low, enough, plenty = backlogs()
    refused = replace(plenty, summaries=[], runs=[], refused=["no; do this"] * 6)
    answer = compared(low, enough, refused).answer

    assert answer is not None
    assert answer.group is None


def test_descriptors() -> None:
    """The answer for nofile has the peak, the rule by Little's law, and the cost of a smaller limit."""
    few = {"fds.max": 64.0, "emfile.count": 70.0, "attempts.served": 0.31, "fate.queued": 12.0}
    few |= {"fds.baseline": 11.0, "reply.p99_s": 1.0}
    many = {"fds.max": 1011.0, "emfile.count": 0.0, "fds.baseline": 11.0}
    answer = compared(run_group("server.nofile", 64, few), run_group("server.nofile", 2048, many)).answer

    assert answer is not None
    assert answer.sentence == "nofile 2048 is enough; so would 1,011 be."
    assert answer.evidence == [
        "The server never had more than 1,011 descriptors (one run).",
        "Rule: nofile >= own descriptors + rate x hold time = 11 + 2,000/s x 500 ms = 1,011.",
    ]
    [cost] = answer.costs
    assert cost.startswith('With 64, 31 % were served, reply p99 1.0 s; 70 calls failed with "Too many open files"; ')
    assert cost.endswith('; 12 of 6,000 clients (0.2 %) were "connected" and never accepted.')


def test_a_number_that_is_not_a_limit() -> None:
    """A setting that is not a limit has no value that is enough."""
    cells = [
        run_group("server.pause", value, {}, status=status) for value, status in ((0.1, "HEALTHY"), (0.5, "REPRODUCED"))
    ]
    answer = compared(*cells).answer

    assert answer is not None
    assert (answer.group, answer.sentence) == (None, "No significant difference was found.")


def test_words_instead_of_numbers() -> None:
    """A sweep of words has no recommended value: the answer is the clearest difference in the columns."""
    cpu = {"sleep": 0.01, "spin": 0.99}
    cells = [
        run_group("server.on_emfile", name, *({"server.cpu_at_limit": value + n / 1000} for n in range(6)))
        for name, value in cpu.items()
    ]
    answer = compared(*cells).answer

    assert answer is not None
    assert answer.group is None
    assert answer.sentence == (
        "The clearest difference is in CPU at limit: least with sleep (0.01 cores), most with spin (0.99 cores)."
    )


def test_equal_cells_have_no_difference() -> None:
    """The answer for equal cells says that no difference was found."""
    cells = [run_group("server.on_emfile", name, *[{"server.cpu_at_limit": 0.1}] * 6) for name in ("sleep", "backoff")]
    answer = compared(*cells).answer

    assert answer is not None
    assert answer.sentence == "No significant difference was found."


@pytest.mark.parametrize(
    ("run_groups", "repeat", "says"),
    [
        (backlogs()[:2], 7, "2 planned runs were not made: --resume makes them."),
        (
            backlogs(status="INCONCLUSIVE"),
            6,
            "6 of 6 runs of backlog 128 are INCONCLUSIVE: ",
        ),
        (
            tuple(replace(one, summaries=one.summaries[:2], runs=one.runs[:2]) for one in backlogs()),
            2,
            "2 runs of each cannot tell even a large difference from chance: 5 are needed (--repeat 5).",
        ),
        (
            tuple(
                replace(one, hosts=[{"kernel": kernel}] * 6)
                for one, kernel in zip(backlogs()[:2], ("6.1", "6.18"), strict=True)
            ),
            6,
            "The runs are from different hosts: only counts are judged. Use --force to judge times and CPU too.",
        ),
    ],
)
def test_notices(run_groups: tuple[RunGroup, ...], repeat: int, says: str) -> None:
    """Missing or inconclusive runs, too few runs, and different hosts have a notice."""
    assert any(notice.startswith(says) for notice in compared(*run_groups, repeat=repeat).notices)


def test_failed_thresholds_have_a_notice() -> None:
    """The reason for exit status 99 is a notice with the cell and the number of its failed runs."""
    low, enough, _ = backlogs()
    missed = Judged(text="fate.dropped == 0", ok=False, measured="7")
    runs = [replace(one, thresholds=[replace(missed, ok=place > 1)]) for place, one in enumerate(low.summaries)]
    notices = compared(replace(low, summaries=runs), enough).notices

    assert notices == ["FAILED: expected fate.dropped == 0, measured 7 in 2 of 6 runs of backlog 128."]


def test_one_run_of_another_host_is_enough_to_doubt_times() -> None:
    """The hosts of all runs count, not only that of the first; a group without runs differs in nothing."""
    low, enough, plenty = backlogs()
    hosts = [{"kernel": "6.18"}] * 5
    comparison = compared(
        replace(low, hosts=[*hosts, {"kernel": "6.1"}]),
        replace(enough, hosts=[*hosts, {"kernel": "6.18"}]),
        replace(plenty, summaries=[], runs=[], refused=["no; do this"] * 6),
    )

    assert comparison.unlike_hosts
    assert (comparison.hosts, comparison.settings) == ([], [])


def test_latencies_are_merged_not_averaged() -> None:
    """The curve of a group has all its latencies: if half are 1 ms and half 3 ms, none is 2 ms."""
    fast, slow = ({"reply": Histogram.of(np.full(100, ms * 1_000_000))} for ms in (1, 3))
    [curve] = curves_of([merged([fast, slow])])

    assert (curve.group, curve.family, curve.count) == (0, "reply", 200)
    assert {round(value, 4) for value in curve.values_s} == {0.001, 0.003}
    assert (curve.percentiles[0], curve.percentiles[-1]) == (0, 100)
    assert merged([]) == {}

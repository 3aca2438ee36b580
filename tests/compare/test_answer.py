"""What a sweep says: the smallest value that held, what was needed, what less costs; and what it cannot say."""

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


def asked(*run_groups: RunGroup, axes: tuple[str, ...] | None = None, repeat: int = 6, **changes: Any) -> Comparison:  # noqa: ANN401
    """Return what these cells say together."""
    names = tuple(run_groups[0].values) if axes is None else axes
    return compare_groups(list(run_groups), Question(kind="sweep", title="x", axes=names, repeat=repeat, **changes))


def queue(peak: float, limit: float, overflows: float = 0, **more: float) -> dict[str, float]:
    """Return the metrics of a run whose queue went that far."""
    names = {name.replace("_", ".", 1): value for name, value in more.items()}
    return {"queue.max": peak, "queue.capacity": limit, "listen.overflows": overflows, **names}


def backlogs(**changes: Any) -> tuple[RunGroup, ...]:  # noqa: ANN401
    """Return three backlogs of six runs, of which 128 loses clients, 256 holds and 4096 gains nothing."""
    lossy = queue(129, 129, 900, attempts_late=389.0, fate_phantom=0.0, fate_dropped=0.0)
    enough = [queue(200 + n, 257, attempts_late=0.0, fate_phantom=0.0, fate_dropped=0.0) for n in range(6)]
    plenty = [queue(201 + n, 4097, attempts_late=0.0, fate_phantom=0.0, fate_dropped=0.0) for n in range(6)]
    cells = [("server.backlog", 128, [lossy] * 6), ("server.backlog", 256, enough), ("server.backlog", 4096, plenty)]
    return tuple(run_group(name, value, *runs, **changes) for name, value, runs in cells)


def test_the_smallest_value_that_held() -> None:
    """It is marked, with what would really have been enough, and whether more gains anything."""
    answer = asked(*backlogs()).answer

    assert answer is not None
    assert answer.group == 1
    assert answer.sentence == "backlog 256 is enough; 205 would be. 4096 is no better than 256."
    assert answer.evidence == [
        "The queue never held more than 206 clients (200-206 in the 12 runs that did not overflow).",
        "Rule: backlog >= rate x longest pause = 2,000/s x 100 ms = 200.",
    ]
    [cost] = answer.costs
    assert cost.startswith("128 looks perfect, 100 % served, but 389 of 6,000 clients (6.5 %) waited a second more: ")
    assert answer.advice == ["Set both: listen(fd, 256) and net.core.somaxconn >= 256 (here it is)."]


def test_order_of_the_cells_does_not_matter() -> None:
    """Values are compared as numbers, however the sweep lists them."""
    low, enough, plenty = backlogs()
    answer = asked(plenty, low, enough).answer

    assert answer is not None
    assert (answer.group, answer.sentence[:22]) == (2, "backlog 256 is enough;")


def test_one_bad_run_is_enough_to_doubt_a_value() -> None:
    """A value held when every one of its runs did, and all larger ones."""
    low, enough, plenty = backlogs()
    first, *others = enough.summaries
    runs = [*others, replace(first, metrics={**first.metrics, "listen.overflows": 1})]
    answer = asked(low, replace(enough, summaries=runs), plenty).answer

    assert answer is not None
    assert answer.group == 2


def test_nothing_held() -> None:
    """Then nothing is chosen: what was needed at least, and where to look on."""
    answer = asked(*(run_group("server.backlog", value, queue(value + 1, value + 1, 5)) for value in (8, 128))).answer

    assert answer is not None
    assert (answer.group, answer.sentence) == (None, "No tested backlog is enough: even 128 was too small.")
    assert answer.evidence == ["At least 129 were needed."]
    assert answer.advice == ["Sweep larger values: --set server.backlog=..."]


def test_a_cell_that_could_not_run_is_not_enough() -> None:
    """What was refused, or has no run, is no evidence."""
    low, enough, plenty = backlogs()
    refused = replace(plenty, summaries=[], runs=[], refused=["no; do this"] * 6)
    answer = asked(low, enough, refused).answer

    assert answer is not None
    assert answer.group is None


def test_descriptors() -> None:
    """The same of a limit: peak, rule by Little's law, and what less costs."""
    few = {"fds.max": 64.0, "emfile.count": 70.0, "attempts.served": 0.31, "fate.queued": 12.0}
    few |= {"fds.baseline": 11.0, "reply.p99_s": 1.0}
    many = {"fds.max": 1011.0, "emfile.count": 0.0, "fds.baseline": 11.0}
    answer = asked(run_group("server.nofile", 64, few), run_group("server.nofile", 2048, many)).answer

    assert answer is not None
    assert answer.sentence == "nofile 2048 is enough; 1,011 would be."
    assert answer.evidence == [
        "The server never had more than 1,011 descriptors (the same in one run).",
        "Rule: nofile >= own descriptors + rate x time each is held = 11 + 2,000/s x 500 ms = 1,011.",
    ]
    [cost] = answer.costs
    assert cost.startswith('With 64, 31 % were served, reply p99 1.0 s; 70 calls failed with "Too many open files"; ')
    assert cost.endswith('; 12 of 6,000 clients (0.2 %) were "connected" and never accepted.')


def test_a_number_without_a_rule_of_its_own() -> None:
    """More of it is no room, and nothing can be enough."""
    cells = [
        run_group("server.pause", value, {}, status=status) for value, status in ((0.1, "HEALTHY"), (0.5, "REPRODUCED"))
    ]
    answer = asked(*cells).answer

    assert answer is not None
    assert (answer.group, answer.sentence) == (None, "No difference was found that could be told from chance.")


def test_words_instead_of_numbers() -> None:
    """Nothing is to be chosen: where they differ most plainly, by the metrics that people read first."""
    cpu = {"sleep": 0.01, "spin": 0.99}
    cells = [
        run_group("server.on_emfile", name, *({"server.cpu_at_limit": value + n / 1000} for n in range(6)))
        for name, value in cpu.items()
    ]
    answer = asked(*cells).answer

    assert answer is not None
    assert answer.group is None
    assert answer.sentence == (
        "They differ most plainly in CPU at limit: least with sleep (0.01 cores), most with spin (0.99 cores)."
    )


def test_no_difference_is_said_to_be_none() -> None:
    """Cells that are alike are not made to differ."""
    cells = [run_group("server.on_emfile", name, *[{"server.cpu_at_limit": 0.1}] * 6) for name in ("sleep", "backoff")]
    answer = asked(*cells).answer

    assert answer is not None
    assert answer.sentence == "No difference was found that could be told from chance."


@pytest.mark.parametrize(
    ("run_groups", "repeat", "says"),
    [
        (backlogs()[:2], 7, "2 planned runs did not take place: --resume goes on with them."),
        (
            backlogs(status="INCONCLUSIVE"),
            6,
            "6 of 6 runs of backlog 128 are INCONCLUSIVE: ",
        ),
        (
            tuple(replace(one, summaries=one.summaries[:2], runs=one.runs[:2]) for one in backlogs()),
            2,
            "2 runs of each cannot tell a difference from chance, however large: 5 are needed (--repeat 5).",
        ),
        (
            tuple(
                replace(one, hosts=[{"kernel": kernel}] * 6)
                for one, kernel in zip(backlogs()[:2], ("6.1", "6.18"), strict=True)
            ),
            6,
            "These are not the runs of one machine: counts are judged, times and CPU only shown (--force judges).",
        ),
    ],
)
def test_what_a_reader_has_to_know_first(run_groups: tuple[RunGroup, ...], repeat: int, says: str) -> None:
    """Runs that are missing, doubtful, too few, or of unlike machines are named before the numbers."""
    assert any(notice.startswith(says) for notice in asked(*run_groups, repeat=repeat).notices)


def test_failed_thresholds_are_told() -> None:
    """Exit status 99 has its reason where people look first, with the cell and in how many of its runs."""
    low, enough, _ = backlogs()
    missed = Judged(text="fate.dropped == 0", ok=False, measured="7")
    runs = [replace(one, thresholds=[replace(missed, ok=place > 1)]) for place, one in enumerate(low.summaries)]
    notices = asked(replace(low, summaries=runs), enough).notices

    assert notices == ["FAILED: expected fate.dropped == 0, measured 7 in 2 of 6 runs of backlog 128."]


def test_one_run_of_another_host_is_enough_to_doubt_times() -> None:
    """Every run's host counts, not the first one's alone; a group without runs differs in nothing."""
    low, enough, plenty = backlogs()
    hosts = [{"kernel": "6.18"}] * 5
    comparison = asked(
        replace(low, hosts=[*hosts, {"kernel": "6.1"}]),
        replace(enough, hosts=[*hosts, {"kernel": "6.18"}]),
        replace(plenty, summaries=[], runs=[], refused=["no; do this"] * 6),
    )

    assert comparison.unlike_hosts
    assert (comparison.hosts, comparison.settings) == ([], [])


def test_latencies_are_merged_not_averaged() -> None:
    """The curve of a group is that of all its latencies: half of them 1 ms and half 3 ms have no 2 ms."""
    fast, slow = ({"reply": Histogram.of(np.full(100, ms * 1_000_000))} for ms in (1, 3))
    [curve] = curves_of([merged([fast, slow])])

    assert (curve.group, curve.family, curve.count) == (0, "reply", 200)
    assert {round(value, 4) for value in curve.values_s} == {0.001, 0.003}
    assert (curve.percentiles[0], curve.percentiles[-1]) == (0, 100)
    assert merged([]) == {}

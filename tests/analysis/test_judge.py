"""A recording becomes a summary with one verdict, and everything that can be asked about is explained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import scenes
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_model import World
from recordings import recording, summarise
from recordings import settings as scenario_settings

from loadsim.analysis.findings.registry import FINDINGS, explain, ids
from loadsim.analysis.summary import Summary
from loadsim.metrics import FAMILIES, METRICS

if TYPE_CHECKING:
    from recordings import Row

    from loadsim.record.recording import Recording


def expecting(*texts: str) -> Row:
    """Return settings that expect these thresholds."""
    return scenario_settings(thresholds={"expect": list(texts), "abort": []})


VERDICTS: list[tuple[Recording, str, str]] = [
    (scenes.healthy(), "HEALTHY", "Every client was served, and nothing went wrong."),
    (scenes.exhausted(), "REPRODUCED", '"Too many open files" after 280 ms, because nothing is closed.'),
    (
        scenes.exhausted(settings=expecting("emfile.count > 0", "fds.max == 64")),
        "REPRODUCED",
        '"Too many open files" after 280 ms, because nothing is closed.',
    ),
    (
        scenes.healthy(settings=expecting("emfile.count > 0")),
        "FAILED",
        "Expected emfile.count > 0, measured 0.",
    ),
    (
        scenes.healthy(settings=expecting("emfile.count > 0"), complete=False, interrupted="SIGINT"),
        "INCONCLUSIVE",
        "The run was interrupted (SIGINT).",
    ),
    (scenes.healthy(settings={}), "HEALTHY", "Every client was served, and nothing went wrong."),
]


@pytest.mark.parametrize(("made", "verdict", "sentence"), VERDICTS)
def test_a_run_has_one_verdict_and_one_sentence(made: Recording, verdict: str, sentence: str) -> None:
    """Doubt before failure, failure before fault, fault before health."""
    summary = summarise(made)
    assert (summary.status, summary.sentence) == (verdict, sentence)


def test_further_missed_expectations_are_counted() -> None:
    """The first is told, the others are in the list."""
    summary = summarise(scenes.healthy(settings=expecting("emfile.count > 0", "fds.max == 9", "accept.p999 < 1s")))
    assert summary.sentence == "Expected emfile.count > 0, measured 0, and 1 more."
    assert [(one.ok, one.measured) for one in summary.thresholds] == [(False, "0"), (True, "9"), (False, "no data")]


def test_a_summary_holds_the_run() -> None:
    """Counts, margins, curve, map and settings of one run."""
    summary = summarise(scenes.exhausted(end_fd_map="fffesseLWW", notices=["Beware."], lost_records={"failures": 1200}))
    assert (summary.scenario, summary.clients, summary.seed, summary.duration_s) == ("made-up", 300, 7, 5.0)
    assert {fate: count for fate, count in summary.ledger.items() if count} == {
        "accepted": 56,
        "queued": 129,
        "dropped": 115,
    }
    assert summary.outcomes["reply_timeout"] == 129
    assert summary.fate_by_outcome["queued"] == {"reply_timeout": 129}
    assert (summary.balanced, summary.foreign, summary.ambiguous) == (True, 0, 0)
    assert summary.growth[-1].label == "64 = the limit"
    assert summary.fd_map == "fffesseLWW"
    assert summary.namespace == "private"
    assert summary.settings["server"]["backlog"] == 128
    assert summary.notices == ["Beware.", "1,200 failure records found no space: numbers from them are lower bounds."]


def test_a_summary_survives_json() -> None:
    """What is written can be read back, and is plain JSON."""
    for made in (scenes.exhausted(), scenes.dying(), recording()):
        summary = summarise(made)
        assert Summary.from_json(json.loads(json.dumps(summary.to_json()))) == summary


@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.3]), changes=st.sampled_from([{}, {"end": None}]))
@settings(deadline=None, max_examples=20)
def test_any_history_can_be_summarised(seed: int, share: float, changes: dict[str, Any]) -> None:
    """Phantoms, drops, foreign clients and reuse together never break the analysis, and its ledger adds up."""
    history = World(seed=seed, phantom=share, dropped=share, foreign=share).run()
    summary = summarise(recording(history.attempts, history.accepts, **changes))
    assert sum(summary.ledger.values()) == sum(summary.outcomes.values()) == len(history.attempts)
    assert summary.findings


@pytest.mark.parametrize("asked", ids())
def test_everything_can_be_explained(asked: str) -> None:
    """Each id has an explanation that is a sentence, in words."""
    explanation = explain(asked)
    assert explanation is not None
    assert explanation.id == asked
    assert explanation.means.rstrip(")").endswith((".", "better", "count", "cores", "seconds", "second", "bytes", "1"))


def test_names_that_are_fate_and_outcome_are_explained_together() -> None:
    """Or one by one, by the name of the metric."""
    both, fate, outcome = explain("refused"), explain("fate.refused"), explain("outcome.refused")
    assert both is not None
    assert fate is not None
    assert outcome is not None
    assert (both.kind, fate.kind, outcome.kind) == ("fate and outcome", "fate", "outcome")
    assert both.means == f"{fate.means} {outcome.means}"


def test_metrics_are_known_by_their_key_in_json_too() -> None:
    """Expectations use the keys of summary.json."""
    by_key = explain("accept.p99_s")
    assert by_key == explain("accept.p99")
    assert by_key is not None
    assert by_key.means.endswith("(seconds, lower is better)")
    neutral = explain("fds.limit")
    assert neutral is not None
    assert neutral.means.endswith("(a count)")


def test_what_does_not_exist_is_not_explained() -> None:
    """Unknown ids have no explanation."""
    assert explain("no-such-thing") is None


def test_the_texts_cover_the_tables() -> None:
    """Every family of metrics has its text, and no text is of something else."""
    families = {metric.family for metric in METRICS.values()} - {"fate", "outcome"}
    assert set(FAMILIES) == families


def test_texts_name_findings_that_exist() -> None:
    """A pointer from one explanation to another leads somewhere."""
    explained = [known for name in ids() if (known := explain(name)) is not None]
    told = " ".join(f"{one.look_at} {one.do}" for one in explained if one.kind != "finding")
    words = {word.strip(".,:`") for word in told.split()}
    named = {word for word in words if "-" in word and word.replace("-", "").islower()}
    assert named - set(FINDINGS) == {"-ltn", "-tan", "-tn", "-az", "syn-sent"}

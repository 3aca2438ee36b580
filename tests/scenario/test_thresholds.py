"""Expectations on metrics: valid and invalid spellings, and their judgement."""

from __future__ import annotations

import pytest

from loadsim.metrics import METRICS
from loadsim.scenario.thresholds import ThresholdError, judge, parse


@pytest.mark.parametrize(
    ("text", "metric", "operator", "value"),
    [
        ("emfile.count > 0", "emfile.count", ">", 0.0),
        ("accept.p99<50ms", "accept.p99", "<", 0.05),
        ("fds.max == 10_000", "fds.max", "==", 10_000.0),
        ("attempts.rate >= 2/ms", "attempts.rate", ">=", 2000.0),
        ("queue.full_share <= 20 %", "queue.full_share", "<=", 0.2),
        ("queue.full_share != 0.5", "queue.full_share", "!=", 0.5),
        ("server.cpu < 0.9", "server.cpu", "<", 0.9),
        ("server.rss_max < 64 MiB", "server.rss_max", "<", 64 * 2**20),
        ("server.exit == -9", "server.exit", "==", -9.0),
    ],
)
def test_a_threshold_is_metric_operator_and_value_in_the_unit_of_the_metric(
    text: str, metric: str, operator: str, value: float
) -> None:
    """Each kind of metric is compared in its own unit."""
    parsed = parse(text)

    assert (metric, operator) == (parsed.metric, parsed.operator)
    assert parsed.value == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("emfile.count", "a threshold is a metric", None),
        ("emfile.count => 0", "a threshold is a metric", None),
        ("emfile.cout > 0", "no metric is called emfile.cout", "emfile.count > 0"),
        ("accept.p99_s < 1s", "no metric is called accept.p99_s", "accept.p99 < 1s"),
        ("baseline < 9", "no metric is called baseline", "fds.baseline < 9"),
        ("idle > 9", "no metric is called idle", "emfile.idle > 9"),
        ("queue.limit > 9", "no metric is called queue.limit", "queue.capacity > 9"),
        ("p99 < 1s", "no metric is called p99", None),
        ("accept.p99 < 50", "accept.p99: a duration needs a number and a unit", None),
        ("attempts.rate > 50", "attempts.rate: a rate needs a number and a unit", None),
        ("server.rss_max < 50", "server.rss_max: the value needs a unit (B, kB", None),
        ("queue.full_share < 50ms", "queue.full_share: the value needs a fraction", None),
        ("emfile.count > 0s", 'emfile.count is compared with a plain number, not with "0s"', None),
        ("emfile.count > nan", 'emfile.count is compared with a plain number, not with "nan"', None),
        ("server.cpu < 90%", 'server.cpu is compared with a number of cores, not with "90%"', None),
    ],
)
def test_a_threshold_that_cannot_be_read_says_what_is_wrong(text: str, says: str, hint: str | None) -> None:
    """The message names the metric and the unit that it needs, with a suggestion."""
    with pytest.raises(ThresholdError) as caught:
        parse(text)

    assert str(caught.value).startswith(says)
    assert hint == caught.value.hint


@pytest.mark.parametrize(
    ("text", "metrics", "ok", "measured"),
    [
        ("emfile.count > 0", {"emfile.count": 48.0}, True, "48"),
        ("emfile.count == 0", {"emfile.count": 48.0}, False, "48"),
        ("accept.p99 < 50ms", {"accept.p99_s": 0.0012}, True, "1.2 ms"),
        ("accept.p99 < 50ms", {}, False, "no data"),
        ("accept.p99 > 0s", {"accept.p99": 1.0}, False, "no data"),
        ("server.cpu < 0.9", {"server.cpu": 0.983}, False, "0.98 cores"),
        ("queue.full_share > 5 %", {"queue.full_share": 0.125}, True, "12.5 %"),
        ("server.rss_max < 64 MB", {"server.rss_max": 12_345_678.0}, True, "12.3 MB"),
        ("emfile.rate < 100/s", {"emfile.rate": 412_345.0}, False, "412,345/s"),
        ("emfile.rate > 100/s", {"emfile.rate": 1.25}, False, "1.2/s"),
    ],
)
def test_a_threshold_is_judged_by_the_measured_value(
    text: str, metrics: dict[str, float], *, ok: bool, measured: str
) -> None:
    """The measured value is shown with its unit; a metric without data fails."""
    assert (ok, measured) == judge(parse(text), metrics)


def test_every_metric_can_have_a_threshold() -> None:
    """An expectation can be written on each metric, and its own value meets it."""
    spelled = {"s": "1s", "/s": "1/s", "share": "1", "bytes": "1 B", "bytes/s": "1 B/s"}
    texts = {name: f"{name} == {spelled.get(metric.unit, '1')}" for name, metric in METRICS.items()}

    assert [name for name, text in texts.items() if not judge(parse(text), {METRICS[name].json_key: 1.0}).ok] == []

"""The table of metrics is complete, its names are unique, and its definitions agree with the code."""

from __future__ import annotations

import pytest

from loadsim import metrics
from loadsim.analysis import latency
from loadsim.analysis import metrics as analysis_metrics
from loadsim.metrics import METRICS, Metric
from loadsim.units import format_duration


def test_times_carry_their_unit_in_json() -> None:
    """Only a metric in seconds has a key other than its name."""
    assert METRICS["accept.p99"].json_key == "accept.p99_s"
    assert [m.name for m in METRICS.values() if m.unit != "s" and m.json_key != m.name] == []


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_every_metric_is_defined_in_sentences(metric: Metric) -> None:
    """A definition is a sentence of more than a few words, and a unit is one of seven."""
    assert metric.unit in {"", "s", "/s", "cores", "bytes", "bytes/s", "share"}
    assert metric.definition.endswith(".")
    assert len(metric.definition.split()) > 4


def test_names_are_unique() -> None:
    """No metric of the table hides another."""
    assert len(METRICS) == len([*metrics._SINGLE, *metrics._families()])


def test_definitions_state_the_limits_of_the_code() -> None:
    """They are the samples that a percentile needs, and the lag and CPU of a limited generator."""
    for statistic, enough in latency._ENOUGH.items():
        assert enough == 1 or f"shown from {enough:,} samples on" in METRICS[f"accept.{statistic}"].definition
    limited = METRICS["generator.limited"].definition
    assert f"more than {format_duration(analysis_metrics.LAG_S).replace('.0 ', ' ')}" in limited
    assert analysis_metrics.LATE_SHARE == 0.1
    assert "more than one attempt in ten" in limited
    assert f"{analysis_metrics.LAG_SHARE * 100:.0f} % of the interval" in limited
    assert f"more than {analysis_metrics.CPU_CORES} cores" in limited
    assert f"above {analysis_metrics.CPU_CORES} it is" in METRICS["generator.cpu"].definition

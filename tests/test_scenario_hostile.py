"""Whatever a scenario file holds: no traceback, no wait, nothing run; it is valid, or an error says what is wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hostile_scenarios import SLOW_S, read, texts
from hypothesis import HealthCheck, given, settings


@settings(max_examples=700, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(texts())
def test_any_text_is_a_scenario_or_an_error(text: bytes) -> None:
    """Within two seconds, and without an escape sequence in what is said."""
    with tempfile.TemporaryDirectory() as folder:
        said, took_s = read(text, Path(folder))
    assert said
    assert took_s < SLOW_S

"""Whatever a scenario file holds: no traceback, no wait, nothing run; it is valid, or an error says what is wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hostile_scenarios import SLOW_S, read, texts
from hypothesis import HealthCheck, given, settings


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(texts())
def test_any_text_is_a_scenario_or_an_error(text: bytes) -> None:
    """Within two seconds, and without an escape sequence in what is said."""
    with tempfile.TemporaryDirectory() as folder:
        said, took_s = read(text, Path(folder))
    assert said
    assert took_s < SLOW_S


HEAD = 'schema = 1\nname = "it"\n'
CLIENT = '[client]\nrate = "10/s"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "a." * 20_000 + "a = 1", "hostile.toml:3:1: this is nested too deeply"),
        (HEAD + "[" + "sysctl." * 20_000 + "a]", "hostile.toml:3:2: this is nested too deeply"),
        (HEAD + "x = " + "[" * 60 + "]" * 60, "nested too deeply"),
        ('extends = "\\u0000"\n' + HEAD + CLIENT, "no path has a NUL in it"),
        (HEAD + CLIENT + f'[sweep]\n"server.backlog" = {list(range(5_000))}', "these are 5,000 values"),
        (
            HEAD + CLIENT + "[sweep]\n" + "".join(f'"sysctl.net.core.a{n}" = {list(range(900))}\n' for n in range(7)),
            "sweeps 478,296,900,000,000,000,000 combinations",
        ),
        (HEAD + CLIENT + "[server]\n" + "".join(f"x{n} = 1\n" for n in range(3_000)), "2,900 more are not shown"),
    ],
)
def test_what_would_take_for_ever_is_refused_with_a_sentence(text: str, says: str, tmp_path: Path) -> None:
    """Keys of twenty thousand parts, products of sweeps without end, thousands of errors."""
    said, took_s = read(text.encode(), tmp_path)
    assert says in said, said[:500]
    assert took_s < SLOW_S

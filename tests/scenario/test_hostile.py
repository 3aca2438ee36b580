"""Any scenario file is valid or an error: no traceback, no long wait, and nothing is run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hostile_scenarios import SHIPPED, SLOW_S, overrides, read, texts
from hypothesis import HealthCheck, given, settings

from loadsim.errors import ScenarioError
from loadsim.scenario.plan import Host, make_plans
from loadsim.scenario.toml import load_matrix


@pytest.mark.slow
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(texts())
def test_any_text_is_a_scenario_or_an_error(text: bytes) -> None:
    """The answer takes less than two seconds of CPU time and contains no escape sequence."""
    with tempfile.TemporaryDirectory() as folder:
        said, took_s = read(text, Path(folder))
    assert said
    assert took_s < SLOW_S


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(overrides())
def test_any_override_is_a_setting_or_an_error(given_: list[str]) -> None:
    """Any text of --set is read within the same time as a file."""
    with tempfile.TemporaryDirectory() as folder:
        said, took_s = read(SHIPPED[0], Path(folder), given_)
    assert said
    assert took_s < SLOW_S


WIDE = list(range(1, 1000))
BAD_KEYS = "".join(f"x{n} = 1\n" for n in range(90))
HEAD = 'schema = 1\nname = "it"\n'
CLIENT = '[client]\nrate = "10/s"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "a." * 20_000 + "a = 1", "hostile.toml:3:1: this is nested too deeply"),
        (HEAD + "[" + "sysctl." * 10_000 + "a]", "hostile.toml:3:2: this is nested too deeply"),
        (HEAD + "x = " + "[" * 60 + "]" * 60, "nested too deeply"),
        ('extends = "\\u0000"\n' + HEAD + CLIENT, "a path cannot contain NUL"),
        (HEAD + CLIENT + f'[sweep]\n"server.backlog" = {list(range(5_000))}', "this array has 5,000 values"),
        (
            HEAD + CLIENT + "[sweep]\n" + "".join(f'"sysctl.net.core.a{n}" = {list(range(900))}\n' for n in range(7)),
            "sweeps 478,296,900,000,000,000,000 combinations",
        ),
        (HEAD + CLIENT + "[server]\n" + "".join(f"x{n} = 1\n" for n in range(3_000)), "2,900 more are not shown"),
        (HEAD + CLIENT + "#" * 100_000, "is larger than 100,000 bytes"),
        (HEAD + CLIENT + f"[thresholds]\nexpect = {['acept.p99 < 1ms'] * 3_000}", "this array has 3,000 values"),
        (HEAD + CLIENT + f'path = "{"é" * 40_000}"', "a path begins with"),
        (HEAD + CLIENT + f"[server]\nx = [{', '.join(['[1, é]'] * 9_000)}]", "Invalid value"),
        (HEAD + CLIENT + f"[server]\nx = {['é'] * 900}", "unknown key x"),
        (HEAD + CLIENT + "[sweep]\n" + "".join(f'"sysctl.net.a.a{n}" = [1]\n' for n in range(21)), "sweeps 21 keys"),
        (HEAD + CLIENT + '[sweep]\n"client.path" = ["/' + "x" * 101 + '"]', "text of up to 100 characters"),
        (
            HEAD + CLIENT + f"[sweep]\nserver.backlog = {WIDE}\n[sysctl]\n"
            "" + "".join(f'"net.core.a{n}" = 1\n' for n in range(300)),
            "sweeps 999 combinations of 30",
        ),
        (
            HEAD
            + CLIENT
            + f"[sweep]\nserver.backlog = {WIDE[:99]}\nserver.nofile = {WIDE[20:119]}\n"
            + "exclude = ["
            + '{"server.backlog" = 1}, ' * 200
            + "]",
            "these are 200 exclusions from 9,801 combinations",
        ),
        (HEAD + CLIENT + f"[sweep]\nserver.backlog = {WIDE}\n[server]\n" + BAD_KEYS, "unknown key x0 in [server]"),
    ],
)
def test_a_scenario_that_would_take_too_long_is_refused_with_a_sentence(text: str, says: str, tmp_path: Path) -> None:
    """The cases are keys of 20,000 parts, huge products of sweeps, and thousands of errors."""
    said, took_s = read(text.encode(), tmp_path)
    assert says in said, said[:500]
    assert took_s < SLOW_S


def test_many_cells_of_large_loads_are_planned_in_time(tmp_path: Path) -> None:
    """Large loads of a hundred cells are not predicted, because that would take too long."""
    text = f'{HEAD}[client]\nrate = "4000/s"\nduration = "45s"\n[sweep]\nserver.backlog = {WIDE[:100]}\n'
    said, took_s = read(text.encode(), tmp_path)
    assert said == "valid"
    assert took_s < SLOW_S
    plans = make_plans([cell.scenario for cell in load_matrix(str(tmp_path / "hostile.toml")).cells], lambda _: Host())
    assert {plan.prediction.unpredicted[0] for plan in plans} == {
        "180,000 attempts are more than the 1,000 that are computed"
    }


def test_a_chain_of_parents_ends(tmp_path: Path) -> None:
    """Sixteen parents are read; the seventeenth is an error."""
    for number in range(20):
        (tmp_path / f"{number}.toml").write_text(f'extends = "{number + 1}.toml"\n', encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"16\.toml:1:11: extends has more than 16 parents in a row: merge some"):
        load_matrix(str(tmp_path / "0.toml"))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("a." * 2000 + "a=1", "an override is one setting"),
        ("server.backlog=" + "1" * 20_000, "an override is one setting"),
        ("x=" + "[" * 60 + "]" * 60, "nested too deeply"),
    ],
)
def test_an_override_has_its_bounds(override: str, says: str, tmp_path: Path) -> None:
    """Both length and depth of an override are limited."""
    said, took_s = read((HEAD + CLIENT).encode(), tmp_path, [override])
    assert says in said, said[:500]
    assert took_s < SLOW_S

"""Rules of --fail-on: syntax, failures, and cases that must not pass."""

from __future__ import annotations

import pytest

from loadsim.compare.compare import judge_gates, parse_gate
from loadsim.compare.statistics import rows_of
from loadsim.errors import ScenarioError

BASE, MORE, SLIGHTLY = [10, 11, 12, 13, 14], [20, 21, 22, 23, 24], [10, 12, 11, 14, 13]


def gate(rule: str, *groups: list[int], unlike_hosts: bool = False) -> tuple[bool, str]:
    """Return the result of a rule for groups of runs with fds.leaked and accept.p99."""
    runs = [[{"fds.leaked": n, "accept.p99_s": n / 1000} for n in group] for group in groups]
    pairs = [(0, index) for index in range(1, len(groups))]
    [judged] = judge_gates([parse_gate(rule)], rows_of(runs, pairs=pairs, unlike_hosts=unlike_hosts))
    return judged.ok, judged.measured


@pytest.mark.parametrize(
    ("rule", "groups", "ok", "measured"),
    [
        ("fds.leaked +10%", (BASE, MORE), False, "+83 % (worse)"),
        ("fds.leaked +90%", (BASE, MORE), True, "+83 % (worse)"),
        ("fds.leaked +10%", (MORE, BASE), True, "-45 % (better)"),
        ("fds.leaked -10 %", (MORE, BASE), False, "-45 % (better)"),
        ("fds.leaked +0%", (BASE, SLIGHTLY), True, "+0 % (cannot tell)"),
        ("fds.leaked +500%", ([0] * 4, [1, 2, 3, 4]), False, "from zero (worse)"),
        ("fds.leaked +10%", (BASE, SLIGHTLY, MORE), False, "+83 % (worse)"),
        ("fds.leaked +10%", (BASE, MORE, MORE[:2]), False, "+83 % (worse)"),
        ("fds.leaked +10%", (BASE[:2], MORE[:2]), False, "cannot tell: 4 repeats needed"),
        ("fds.max +10%", (BASE, MORE), False, "no data"),
    ],
)
def test_rules(rule: str, groups: tuple[list[int], ...], *, ok: bool, measured: str) -> None:
    """A significant change above the limit breaks a rule; a rule without data or with too few runs never passes."""
    assert gate(rule, *groups) == (ok, measured)


def judged(rule: str, pairs: list[tuple[int, int]] | None, *groups: list[float]) -> tuple[bool, str]:
    """Return the result of a rule for groups of runs with fds.leaked, compared in these pairs."""
    rows = rows_of([[{"fds.leaked": n} for n in group] for group in groups], pairs=pairs)
    [gate] = judge_gates([parse_gate(rule)], rows)
    return gate.ok, gate.measured


def test_each_cell_is_compared_with_its_namesake() -> None:
    """Between two sweeps all cells count, not only those compared with the first group."""
    few, many = [10.0, 11, 12, 13, 14, 15], [90.0, 91, 92, 93, 94, 95]

    assert judged("fds.leaked +10%", [(0, 2), (1, 3)], few, few, few, many) == (False, "+640 % (worse)")
    assert judged("fds.leaked +10%", [(0, 2), (1, 3)], few, many, few, many)[0]


def test_later_groups_are_not_compared_with_each_other() -> None:
    """If each group is compared with each, the first is the baseline of a rule."""
    few, many = [10.0, 11, 12, 13, 14, 15], [90.0, 91, 92, 93, 94, 95]

    assert judged("fds.leaked +10%", None, many, few, many)[0]
    assert judged("fds.leaked +10%", None, few, many, few) == (False, "+640 % (worse)")


@pytest.mark.parametrize(
    ("groups", "measured"),
    [
        (([], [10.0] * 6, [10.0] * 6), "no data in 1 of 3 groups"),
        (([10.0] * 6, [10.0] * 6, []), "no data in 1 of 3 groups"),
        (([10.0] * 6, []), "no data"),
    ],
)
def test_a_group_without_data_does_not_pass(groups: tuple[list[float], ...], measured: str) -> None:
    """A rule does not pass if any group, first or later, has no data."""
    assert judged("fds.leaked +10%", None, *groups) == (False, measured)


@pytest.mark.parametrize(
    ("rule", "ok", "measured"),
    [
        ("fds.leaked +0%", False, "cannot tell: 4 repeats needed"),
        ("fds.leaked +2%", False, "cannot tell: 4 repeats needed"),
        ("fds.leaked +10%", False, "cannot tell: 4 repeats needed"),
        ("fds.leaked -2%", False, "cannot tell: 4 repeats needed"),
    ],
)
def test_too_few_runs_pass_no_rule_that_they_exceed(rule: str, ok: bool, measured: str) -> None:  # noqa: FBT001
    """A difference that does not matter can exceed a rule; with too few runs to break it, the rule does not pass."""
    assert judged(rule, None, [100.0], [104.0]) == (ok, measured)
    assert judged("fds.leaked +0%", None, [0.0], [0.0]) == (True, "+0 % (same)")


def test_below_zero_from_zero_has_fallen() -> None:
    """A change from zero has a direction, though it has no relative size."""
    none, less = [0.0] * 4, [-1.0, -2, -3, -4]

    assert judged("fds.leaked -10%", None, none, less) == (False, "from zero (better)")
    assert judged("fds.leaked +10%", None, none, less) == (True, "from zero (better)")


def test_unlike_hosts_do_not_pass_a_rule_on_time() -> None:
    """A time that is not judged fails its rule and names --force; a count is judged nevertheless."""
    ok, measured = gate("accept.p99 +10%", BASE, BASE, unlike_hosts=True)

    assert not ok
    assert "--force" in measured
    assert gate("fds.leaked +10%", BASE, BASE, unlike_hosts=True)[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("accept.p99", 'a rule is a metric, + or -, and a share, such as "accept.p99 +10%"'),
        ("accept.p99 10%", "a rule is a metric"),
        ("accept.p9 +10%", "there is no metric accept.p9; did you mean accept.p99?"),
        ("nonsense +10%", "there is no metric nonsense; `loadsim explain` lists them"),
    ],
)
def test_wrong_rules(text: str, says: str) -> None:
    """The message quotes the rule, and suggests the nearest metric."""
    with pytest.raises(ScenarioError) as caught:
        parse_gate(text)
    assert str(caught.value).startswith(f'--fail-on "{text}": ')
    assert says in str(caught.value)

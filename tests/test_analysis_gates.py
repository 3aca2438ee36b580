"""Rules of --fail-on: what they say, what breaks them, and what never passes by accident."""

from __future__ import annotations

import pytest

from loadsim.analysis.compare import rows_of
from loadsim.analysis.gates import judge_gates, parse_gate
from loadsim.errors import ScenarioError

BASE, MORE, SLIGHTLY = [10, 11, 12, 13, 14], [20, 21, 22, 23, 24], [10, 12, 11, 14, 13]


def gate(rule: str, *groups: list[int], unlike_hosts: bool = False) -> tuple[bool, str]:
    """Return what a rule says of groups of runs that have fds.leaked and accept.p99."""
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
        ("fds.leaked +10%", (BASE[:2], MORE[:2]), False, "cannot tell: 4 repeats needed"),
        ("fds.max +10%", (BASE, MORE), False, "no data"),
    ],
)
def test_rules(rule: str, groups: tuple[list[int], ...], *, ok: bool, measured: str) -> None:
    """More than that and not by chance breaks it; no data, or too few runs to tell, never passes."""
    assert gate(rule, *groups) == (ok, measured)


def test_unlike_hosts_do_not_pass_a_rule_on_time() -> None:
    """A time that is not judged fails its rule with the way out; a count is judged all the same."""
    ok, measured = gate("accept.p99 +10%", BASE, BASE, unlike_hosts=True)

    assert not ok
    assert "--force" in measured
    assert gate("fds.leaked +10%", BASE, BASE, unlike_hosts=True)[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("accept.p99", 'a rule is a metric, + or -, and a share, such as "accept.p99 +10%"'),
        ("accept.p99 10%", "a rule is a metric"),
        ("accept.p9 +10%", "no metric is called accept.p9; did you mean accept.p99?"),
        ("nonsense +10%", "no metric is called nonsense; `loadsim explain` lists them"),
    ],
)
def test_wrong_rules(text: str, says: str) -> None:
    """What was written is named, and what was perhaps meant."""
    with pytest.raises(ScenarioError) as caught:
        parse_gate(text)
    assert str(caught.value).startswith(f'--fail-on "{text}": ')
    assert says in str(caught.value)

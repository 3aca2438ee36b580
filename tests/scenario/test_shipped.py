"""The scenarios that come with loadsim: each is complete and short, and has a comment for learners."""

from __future__ import annotations

import tomllib

import pytest

from loadsim.scenario.model import Scenario
from loadsim.scenario.plan import Host, make_plan
from loadsim.scenario.shipped import Shipped, shipped
from loadsim.scenario.toml import load_matrix, load_text_matrix, to_toml

#: A small machine: two CPUs, a low hard limit, the port range of a private namespace.
SMALL = Host(nofile_soft=1024, nofile_hard=20_000, port_first=1024, port_last=65_535, cpus=2)
NAMES = {
    "healthy",
    "too-many-open-files",
    "leak-in-handler",
    "emfile-spin",
    "backlog-overflow",
    "slow-acceptor",
    "fd-table-growth",
    "phantom-connections",
    "reconnect-storm",
    "ten-thousand-clients",
    "backlog-sweep",
    "nofile-sweep",
    "emfile-policies",
    "recovery",
    "limit-lowered-live",
    "reserve-fd-lost",
    "real-http-server",
    "real-nginx",
}

each_scenario = pytest.mark.parametrize("each", shipped(), ids=lambda each: each.name)


def test_all_are_there() -> None:
    """All scenarios are in the package."""
    assert {each.name for each in shipped()} == NAMES


@each_scenario
def test_each_opens_with_what_it_teaches_and_what_to_see(each: Shipped) -> None:
    """Each begins with a comment in three parts that fits a narrow editor."""
    comment = each.path.read_text().split("\n\n")[0].split("\n")

    assert all(line.startswith("#") and len(line) <= 120 for line in comment)
    assert all(any(line.startswith(f"# {word}") for line in comment) for word in ("Teaches", "See:", "Try:"))


@each_scenario
def test_each_is_called_like_its_file_and_expects_something(each: Shipped) -> None:
    """The name finds the results, and without expectations a run could not fail."""
    scenario = load_matrix(each.name).scenario

    assert scenario.name == each.name
    assert scenario.description.endswith(".")
    assert scenario.thresholds.expect


@each_scenario
def test_each_fits_a_small_machine_and_ends_within_15_seconds(each: Shipped) -> None:
    """The plan has no warning, no clamp and no long run."""
    for cell in load_matrix(each.name).cells:
        plan = make_plan(cell.scenario, SMALL)

        assert plan.warnings == []
        assert plan.driver_fds.is_met
        assert plan.length_s < 15


@each_scenario
def test_each_reads_back_as_the_same_once_resolved(each: Shipped) -> None:
    """The resolved file beside a result is the scenario that was run."""
    matrix = load_matrix(each.name)

    assert Scenario.model_validate(tomllib.loads(to_toml(matrix.scenario))) == matrix.scenario
    assert load_text_matrix(to_toml(matrix.scenario, matrix)) == matrix


@each_scenario
def test_what_each_says_to_try_can_be_tried(each: Shipped) -> None:
    """The overrides in the comment are valid on top of the scenario."""
    comment = each.path.read_text().split("\n\n")[0].replace("\n# ", " ")
    tries = [word.rstrip(",.;") for word in comment.replace("--set ", "--set=").split() if word.startswith("--set=")]

    assert tries
    for override in tries:
        load_matrix(each.name, [override.removeprefix("--set=")])

"""The output of `loadsim check` and `loadsim list`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from report_samples import golden
from rich.cells import cell_len

from loadsim.commands import check
from loadsim.commands import list as listing
from loadsim.render.drawing import Terminal
from loadsim.scenario.model import Scenario
from loadsim.scenario.plan import Host, Need, Plan, PlanWarning, Prediction, make_plan
from loadsim.scenario.toml import load_text

if TYPE_CHECKING:
    from collections.abc import Callable

LEAK: dict[str, object] = {
    "schema": 1,
    "name": "too-many-open-files",
    "description": "A server that forgets close() meets RLIMIT_NOFILE = 64.",
    "seed": 7,
    "server": {"nofile": 64, "leak": 1.0, "backlog": 128},
    "client": {"rate": "200/s", "duration": "3s", "exchange": "hello"},
}
SCENARIOS = [
    ("healthy", "A server that closes every connection: the reference for all other scenarios."),
    ("too-many-open-files", "A server that forgets close() meets RLIMIT_NOFILE = 64."),
]


class Listed:
    """A scenario in a list."""

    def __init__(self, name: str, summary: str) -> None:
        self.name = name
        self.summary = summary


def leaking() -> Plan:
    """Return the plan of a server that leaks, with fixed numbers: their computation is tested elsewhere."""
    return dataclasses.replace(
        make_plan(Scenario.model_validate(LEAK), Host()),
        server_fds=Need(610, 64),
        driver_fds=Need(628, 20_000),
        ports=Need(600, 28_232),
        queue_capacity=129,
        expected_s=4.93,
        length_s=7.0,
        reserved_bytes=346_000,
        prediction=Prediction(
            emfile_at_s=0.28, queue_full_at_s=0.925, fates={"accepted": 56, "queued": 129, "dropped": 415}
        ),
        warnings=[],
    )


def storming() -> Plan:
    """Return a plan that this host cannot carry out unchanged."""
    return dataclasses.replace(
        leaking(),
        scenario=Scenario.model_validate(
            {
                **LEAK,
                "name": "storm",
                "description": "",
                "client": {"rate": "9/s", "processes": 2},
            }
        ),
        expected_attempts=400_000,
        expected_is_mean=True,
        processes=3,
        server_fds=Need(None, 1024),
        driver_fds=Need(20_028, 20_000),
        ports=Need(40_000, 28_232),
        expected_s=34.0,
        length_s=34.0,
        reserved_bytes=52_400_000,
        prediction=Prediction(
            never=["emfile"], unpredicted=["above 5,000/s the result depends on the speed of the server"]
        ),
        warnings=[
            PlanWarning(
                sentence="each driver may need 20,028 descriptors, and its hard limit is 20,000: it will start no more "
                "than that allows",
                remedy="set client.processes to 2, raise the hard limit (ulimit -Hn), or lower the load",
            )
        ],
    )


def checked(plan: Plan, *, width: int = 80, unicode: bool = True) -> str:
    """Return the output of `loadsim check`."""
    return check.render_plan(plan, Terminal(width=width, color=False, unicode=unicode))


def listed(results: list[tuple[str, str]], *, width: int = 80) -> str:
    """Return the output of `loadsim list`."""
    scenarios = [Listed(*one) for one in SCENARIOS]
    return listing.render(scenarios, results, Terminal(width=width, color=False, unicode=True))


@pytest.mark.parametrize("sample", [leaking, storming])
def test_a_plan_is_printed(sample: Callable[[], Plan]) -> None:
    """The text shows needs, prediction and warnings, as in the golden file."""
    text = checked(sample())
    assert golden(f"check-{sample.__name__}-80.txt", text) == text


@pytest.mark.parametrize("width", [1, 40, 80, 120, 200])
def test_a_plan_fits(width: int) -> None:
    """No line is wider than the terminal."""
    odd = dataclasses.replace(
        leaking(),
        scenario=Scenario.model_validate({**LEAK, "description": "記述子 " * 80}),
        server_fds=Need(None, 10**12),
        prediction=Prediction(fates={"accepted": 1e18, "half_open": 0.0, "unheard_of": 1.0}, unpredicted=["x" * 300]),
    )
    for plan in (leaking(), storming(), odd):
        assert max(cell_len(line) for line in checked(plan, width=width).splitlines()) <= width
        assert checked(plan, width=width, unicode=False).isascii()


def test_a_lack_of_the_server_is_the_test_and_a_lack_of_the_driver_is_not() -> None:
    """The words for too few descriptors differ between server and driver; an unbounded need is not called enough."""
    assert "about 610         64   not enough: this is the test" in checked(leaking())
    close = dataclasses.replace(leaking(), server_fds=Need(60, 64, 5))
    assert "about 60         64   may be too few" in checked(close)
    assert "20,028     20,000   NOT ENOUGH" in checked(storming())
    assert "unbounded      1,024   may be too few" in checked(storming())


def test_a_limit_that_is_never_reached_is_printed() -> None:
    """The prediction "never" is printed."""
    assert "first EMFILE                  never" in checked(storming())


def test_a_plan_without_a_prediction_is_marked() -> None:
    """An empty section would look like "nothing happens"."""
    plan = dataclasses.replace(leaking(), prediction=Prediction())
    assert "  nothing is predicted" in checked(plan).splitlines()


def test_sizes_have_units() -> None:
    """Space for records is shown with a unit."""
    plan = leaking()
    sizes = [checked(dataclasses.replace(plan, reserved_bytes=octets)) for octets in (5_000, 7_000_000, 3_200_000_000)]
    assert all(size in text for size, text in zip(("5 kB", "7.0 MB", "3.2 GB"), sizes, strict=True))


def test_a_list_is_printed() -> None:
    """The list shows scenarios with descriptions, then results with their status."""
    text = listed([("20261122T094107Z-too-many-open-files-3f2a", "REPRODUCED"), ("20261122T094500Z-healthy-00ff", "")])
    assert golden("list-80.txt", text) == text


def test_an_empty_list_is_marked() -> None:
    """An empty list of results is shown as "none yet"."""
    assert "  none yet" in listed([]).splitlines()


@pytest.mark.parametrize("width", [1, 40, 80, 200])
def test_a_list_fits(width: int) -> None:
    """No line is wider than the terminal, for any name of a folder."""
    text = listed([("\x1b[2J" + "n" * 300, "REPRODUCED"), ("n", "\x07")], width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "\x1b" not in text


def test_changes_during_the_run_are_listed() -> None:
    """The steps are listed in order of time, then the canary; the section is missing without them."""
    text = """
schema = 1
[client]
rate = "10/s"
exchange = "echo"
[server]
close_after = "client"
[timeline]
steps = [{at = "2s", release = 0.5}, {at = "1s", nofile = 2048}]
[canary]
every = "100ms"
held = 2
"""
    plan = make_plan(load_text(text), Host())
    shown = check.render_plan(plan, Terminal(width=80, color=False, unicode=True))
    told = [" ".join(line.split()) for line in shown.splitlines()]

    at = told.index("what changes during the run")
    assert told[at + 1 : at + 4] == [
        "after 1 s nofile = 2,048",
        "after 2 s 50 % of the clients leave",
        "canary asks every 100 ms, and on 2 held connections",
    ]
    assert "processes 4" in told
    calm = make_plan(load_text('schema = 1\n[client]\nrate = "1/s"\n'), Host())
    assert "changes during the run" not in check.render_plan(calm, Terminal(width=80, color=False, unicode=True))

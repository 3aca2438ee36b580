"""Commands to try after a run can be typed as they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from report_samples import too_many_open_files

from loadsim.render.terminal import next_steps


@pytest.mark.parametrize(
    ("server", "last"),
    [
        ({}, "loadsim run too-many-open-files --set server.leak=0"),
        ({"pid": 7}, "loadsim explain fd-leak"),
        ({"command": ["sh", "-c", "a\nb"]}, "loadsim explain fd-leak"),
    ],
)
def test_the_cure_fits_the_kind_of_server(server: dict[str, Any], last: str) -> None:
    """The simulated server has all settings, a command only its limit, a running server none."""
    summary = dataclasses.replace(too_many_open_files(), settings={"server": server})

    assert next_steps(summary)[-1] == last


def test_a_command_is_repeated() -> None:
    """The command may be from the command line: without it the next run would start another server."""
    finding = dataclasses.replace(too_many_open_files().findings[0], id="fd-limit")
    settings = {"server": {"command": ["./my server", "--port={port}", "{port}"]}}
    summary = dataclasses.replace(too_many_open_files(), findings=[finding], settings=settings)

    assert next_steps(summary)[-1] == (
        "loadsim run too-many-open-files --set server.nofile=1024 -- './my server' '--port={port}' {port}"
    )

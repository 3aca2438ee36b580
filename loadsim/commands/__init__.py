"""What can be typed? One file per command, with its options, its help and what it does.

    run      run a scenario or a sweep
    check    validate, plan and predict; start nothing
    report   show a result again
    compare  compare results
    verdict  class and grade of any server
    inspect  what a live process holds
    serve    only the simulated server
    list     scenarios and results
    explain  the meaning of any id
    schema   JSON Schemas
    options  options and parameter types that commands share
    output   errors as sentences, and what is printed where

Heavy imports are inside functions, which keeps the start of `loadsim --help` fast.
"""

from __future__ import annotations

import importlib
from typing import cast

import click

from loadsim import __version__
from loadsim.commands import output

#: In the order of use for a newcomer.
NAMES = ("run", "check", "verdict", "report", "compare", "serve", "inspect", "list", "explain", "schema")


class Commands(click.Group):
    """The commands; each one is in the module with its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the names in the order in which help shows them."""
        return [*NAMES]  # list(NAMES) would call the module `list` once that command was imported

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- as above
        """Return a command, None for an unknown name."""
        if cmd_name not in NAMES:
            return None
        return cast("click.Command", importlib.import_module(f"{__name__}.{cmd_name}").command)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: loadsim run too-many-open-files",
)
@click.version_option(__version__, prog_name="loadsim")
def main() -> None:
    """Show what a TCP server does when its file descriptors run out or its listen queue overflows.

    Runs on the real Linux kernel, over loopback, in a private network namespace.
    """
    output.occupy_standard_descriptors()

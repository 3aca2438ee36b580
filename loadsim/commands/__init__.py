"""The command line: one file per command, with its options, its help and what it does.

    run      run a scenario or a sweep
    check    say what a scenario needs and will do
    verdict  say what any server does without descriptors
    report   show a result again
    compare  say what differs between results
    serve    run only the simulated server
    inspect  show what a live process holds
    list     list scenarios and results
    explain  explain a finding, fate, outcome or metric
    schema   print a JSON Schema
    options  options of several commands, the types of their values, and the question before a command is run
    output   errors as sentences, and what standard output can show

A command's module is imported only when that command is called, and heavy packages only inside its functions:
`loadsim list` and `loadsim check` answer at once.
"""

from __future__ import annotations

import importlib
from typing import cast

import click

from loadsim import __version__
from loadsim.commands import output

#: In the order in which a newcomer needs them.
NAMES = ("run", "check", "verdict", "report", "compare", "serve", "inspect", "list", "explain", "schema")


class Commands(click.Group):
    """The commands, each in a module with its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the names in the order in which help shows them."""
        return [*NAMES]  # `list` is a module here once that command was imported

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

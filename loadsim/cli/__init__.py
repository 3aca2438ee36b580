"""The command line: parse, call, show, exit code. Decides nothing.

    running    run, check, serve
    verdict    verdict
    inspecting inspect
    consent    the question before a command of a scenario is run for the first time
    reading    report, compare, list, explain, schema
    shared     options that several commands have, errors as sentences, what standard output can show

Heavy imports stand inside the commands, so that `loadsim --help` answers at once.
"""

from __future__ import annotations

import click

from loadsim import __version__
from loadsim.cli import inspecting, reading, running, shared
from loadsim.cli.verdict import verdict


class Group(click.Group):
    """Commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the names in the order in which they were added."""
        return list(self.commands)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: loadsim run too-many-open-files",
)
@click.version_option(__version__, prog_name="loadsim")
def main() -> None:
    """Show what a TCP server does when its file descriptors run out or its listen queue overflows.

    On the real Linux kernel, over loopback, in a network namespace of its own.
    """
    shared.occupy_standard_descriptors()


for _command in (
    running.run,
    running.check,
    verdict,
    reading.report,
    reading.compare,
    running.serve,
    inspecting.inspect,
    reading.list_,
    reading.explain,
    reading.schema,
):
    main.add_command(_command)

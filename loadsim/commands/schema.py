"""`loadsim schema`: print a JSON Schema."""

from __future__ import annotations

import click

from loadsim.commands import options, output

_DOCUMENTS = ("scenario", "summary", "comparison", "inspect", "overview")


@click.command("schema", cls=options.Command, short_help="Print the JSON Schema of a scenario or of JSON output.")
@click.argument("document", type=click.Choice(_DOCUMENTS), default="scenario")
def command(*, document: str) -> None:
    """Print a JSON Schema: of a scenario (for editors), or of a JSON document that loadsim writes (for programs).

    summary and comparison are files of a result. inspect and overview are printed by `loadsim inspect --json` with and
    without a target.

    \b
    Exit status:
      0  it was printed
      2  the command line is wrong

    \b
    Examples:
      loadsim schema > scenario.schema.json
      loadsim schema summary
    """
    with output.explained():
        from loadsim.analysis.summary import summary_schema
        from loadsim.compare.comparison import comparison_schema
        from loadsim.inspect.document import overview_schema, process_schema
        from loadsim.scenario.sweep import schema as scenario_schema

        schemas = (scenario_schema, summary_schema, comparison_schema, process_schema, overview_schema)
        output.print_json(schemas[_DOCUMENTS.index(document)]())

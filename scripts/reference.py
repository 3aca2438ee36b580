"""Writes the reference pages in docs/ and the house table from the objects that the program itself uses.

python scripts/reference.py           write the pages
python scripts/reference.py --check   exit with 1 if a page is not current, and name it
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadsim.analysis.findings.registry import FINDINGS
from loadsim.fates import FATES, OUTCOMES
from loadsim.metrics import METRICS
from loadsim.scenario.shipped import shipped
from loadsim.scenario.sweep import schema
from loadsim.verdict.classify import MEANINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py. Edit the objects it reads, then run it. -->\n\n"
#: Families whose statistics are one row of the table of metrics.
STATISTICS = ("p50", "p90", "p99", "p999", "max", "mean")


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heads)
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [heads, *map(list, rows)]]
    return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]]) + "\n"


def findings() -> str:
    """Return the page of findings, in the order of `loadsim explain`."""
    parts = ["# Findings\n\nA finding is a sentence on what happened in a run, with its evidence and a remedy. "]
    parts.append("`loadsim explain ID` prints the same text.\n")
    for finding in FINDINGS.values():
        parts.append(f"\n## {finding.id}\n\n{finding.means}\n")
        parts += [
            f"\n**{head}:** {text}\n" for head, text in (("Look at", finding.look_at), ("Do", finding.do)) if text
        ]
    return "".join(parts)


def fates_and_outcomes() -> str:
    """Return the page of fates and outcomes."""
    fates = table(
        ["fate", "where the attempt ended at the server"], ([f"`{n}`", row.row.means] for n, row in FATES.items())
    )
    outcomes = table(
        ["outcome", "what the client saw"], ([f"`{name}`", row.row.means] for name, row in OUTCOMES.items())
    )
    return (
        "# Fates and outcomes\n\nEvery attempt has exactly one fate and one outcome. "
        f"[The ledger](../explanation/ledger.md) explains how they are found.\n\n{fates}\n{outcomes}"
    )


def metrics() -> str:
    """Return the page of metrics: one row for each, and one for the statistics of a family."""
    return (
        "# Metrics\n\nThresholds, `summary.json`, reports and `loadsim explain` use these names. Times are in seconds "
        "in JSON, with `_s` appended to the name. A metric without samples is absent, and a threshold on it fails.\n\n"
        + table(["metric", "unit", "meaning"], _metric_rows())
    )


def _metric_rows() -> Iterator[list[str]]:
    seen = set()
    for name, metric in METRICS.items():
        family, _, last = name.rpartition(".")
        if family in {"fate", "outcome"}:
            if family not in seen:
                seen.add(family)
                yield [f"`{family}.<{family}>`", "count", f"Attempts with this {family}."]
        elif last in STATISTICS and all(f"{family}.{one}" in METRICS for one in STATISTICS):
            if family not in seen:
                seen.add(family)
                yield [
                    f"`{family}.{{{','.join(STATISTICS)}}}`",
                    "s",
                    metric.definition.partition("; ")[0].rstrip(".") + ".",
                ]
        else:
            yield [f"`{name}`", metric.unit or "count", metric.definition]


def scenario() -> str:
    """Return the page of all keys of a scenario file, from its JSON Schema."""
    whole = schema()
    parts = [
        (
            "# Scenario files\n\nA scenario is a TOML file. Durations and rates carry their unit. An unknown key is an "
            'error. `extends = "base.toml"` takes over another file: tables are merged, arrays are replaced. '
            "`--set server.backlog=8` goes through the same checks. `loadsim schema` prints the JSON Schema for "
            "editors.\n"
        ),
        "\n## Top level\n\n"
        + _keys({k: v for k, v in whole["properties"].items() if _table_of(v, whole) is None}, whole),
    ]
    for name, value in whole["properties"].items():
        inner = _table_of(value, whole)
        if inner:
            means = value.get("description", inner.get("description", ""))
            parts.append(f"\n## [{name}]\n\n{means}\n\n{_keys(inner['properties'], whole)}")
            for key, sub in inner["properties"].items():
                item = _resolve(sub.get("items", {}), whole)
                if item.get("properties"):
                    parts.append(f"\nEach element of `{key}`:\n\n{_keys(item['properties'], whole)}")
    example = (REFERENCE / "example.toml").read_text(encoding="utf-8")
    parts.append(f"\n## Example\n\nEvery table and key, in [one file](example.toml):\n\n```toml\n{example}```\n")
    return "".join(parts)


def _resolve(value: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in value:
        return {**whole["$defs"][value["$ref"].rpartition("/")[2]], **{k: v for k, v in value.items() if k != "$ref"}}
    choices = [one for one in value.get("anyOf", []) if one.get("type") != "null"]
    return (
        _resolve({**choices[0], **{k: v for k, v in value.items() if k != "anyOf"}}, whole)
        if len(choices) == 1
        else dict(value)
    )


def _table_of(value: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any] | None:
    found = _resolve(value, whole)
    return found if found.get("properties") else None


def _keys(properties: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    return table(
        ["key", "value", "default", "meaning"],
        (
            [f"`{name}`", _kind(_resolve(value, whole)), _default(value), _resolve(value, whole).get("description", "")]
            for name, value in properties.items()
        ),
    )


def _kind(value: Mapping[str, Any]) -> str:
    if "enum" in value:
        return " or ".join(f"`{one}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_kind(one) for one in value["anyOf"] if one.get("type") != "null"))
    if "pattern" in value:
        return "rate" if "/" in value["pattern"] else "duration"
    low, high = value.get("minimum", value.get("exclusiveMinimum")), value.get("maximum")
    span = f", {low:,} to {high:,}" if low is not None and high is not None else ""
    kind = str(value.get("type", ""))
    return {"string": "text", "array": "list", "object": "table"}.get(kind, kind) + span


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    return (
        "" if default in (None, [], {}, "") else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    )


def scenarios() -> str:
    """Return the table of shipped scenarios."""
    return table(["scenario", "what it shows"], ([f"`{one.name}`", one.summary] for one in shipped()))


def classes() -> str:
    """Return the table of the classes of a verdict."""
    return table(["class", "meaning"], ([class_.value, means] for class_, means in MEANINGS.items()))


def house() -> str:
    """Return the table of folders: the question that each one answers, in the words of its docstring."""
    rows = []
    for init in sorted((ROOT / "loadsim").glob("*/__init__.py")):
        docstring = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        rows.append([f"`{init.parent.name}/`", docstring.partition("\n\n")[0].replace("\n", " ")])
    return table(["folder", "the question it answers"], rows)


PAGES = {
    REFERENCE / "findings.md": findings,
    REFERENCE / "fates-and-outcomes.md": fates_and_outcomes,
    REFERENCE / "metrics.md": metrics,
    REFERENCE / "scenario.md": scenario,
}
#: Tables inside pages that people write: between two comments with this name.
TABLES = {
    ROOT / "README.md": {"scenarios": scenarios},
    ROOT / "docs" / "explanation" / "design.md": {"folders": house},
    REFERENCE / "verdicts.md": {"classes": classes},
}


def current() -> dict[Path, str]:
    """Return the text that each generated page should have."""
    pages = {path: NOTE + page() for path, page in PAGES.items()}
    for path, tables in TABLES.items():
        text = path.read_text(encoding="utf-8")
        for name, rows in tables.items():
            begin, end = f"<!-- {name}: written by scripts/reference.py -->", f"<!-- end of {name} -->"
            pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
            made = f"{begin}\n{rows()}{end}"
            text = pattern.sub(made.replace("\\", "\\\\"), text)
        pages[path] = text
    return pages


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say which ones are not current."""
    stale = [path for path, text in current().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not current: run scripts/reference.py", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(current()[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The page of a sweep or a comparison: the answer first, then its evidence, then every number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.compare.comparison import Says
from loadsim.compare.page_table import groups_table, in_words, intervals, matrix, medians, reference, runs
from loadsim.render.html.markup import Markup, document, joined, tag
from loadsim.render.html.parts import count_of, facts, fold, navigation, notices, prose, section, table
from loadsim.render.html.script_data import group_curves, places
from loadsim.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadsim.compare.comparison import Answer, Comparison, Difference, Gate

#: Height of the percentile curves, in CSS pixels.
_CURVES = 330
_TABLE_NOTE = "Median of the runs of each group, with the range below. The signs compare each group with {reference}."
_INTERVALS_NOTE = (
    "A large dot is the median, its line the 95 % confidence interval; each small dot is a run. Groups differ where "
    "neither lines nor dots overlap."
)
_TAIL_NOTE = "All latencies of all runs of a group together, never averaged. Each step to the right is ten times rarer."
#: Word on the badge of an answer -> the status with the same colours.
_COLOURS = {"answer": "healthy", "no answer": "inconclusive", "differences": "reproduced"}


def comparison_page(comparison: Comparison) -> str:
    """Return the page as one HTML file; its links to runs are relative to the folder of comparison.json."""
    chosen = comparison.answer.group if comparison.answer else None
    curves = group_curves(comparison.curves, [group.label for group in comparison.groups], chosen=chosen)
    parts = list(_parts(comparison, curves))
    body = [_head(comparison), navigation([(identity, title) for identity, title, _ in parts])]
    title = f"{comparison.title}: {'a sweep' if comparison.kind == 'sweep' else 'a comparison'}"
    return document(title, [*body, *(part for _, _, part in parts)], data={"curves": curves})


def _head(comparison: Comparison) -> Markup:
    groups = comparison.groups
    known = [
        ("runs", f"{sum(len(group.runs) for group in groups):,}"),
        ("planned", f"{count_of(len(groups), 'group')} of {count_of(comparison.repeat, 'run')}"),
        *((("swept", ", ".join(comparison.axes)),) if comparison.axes else ()),
        ("load", format_duration(comparison.duration_s)),
        ("seed", str(comparison.seed)),
        ("smallest difference that matters", f"{100 * comparison.min_effect:.3g} %"),
    ]
    return tag(
        "header",
        tag("p", "loadsim ", tag("span", "a sweep" if comparison.kind == "sweep" else "a comparison"), class_="kicker"),
        tag("h1", comparison.title),
        tag("p", comparison.description, class_="description") if comparison.description else None,
        _answer(comparison.answer) if comparison.answer else _words(comparison),
        _gates(comparison.gates),
        notices([*_unfinished(comparison), *comparison.notices]),
        facts(known),
    )


def _unfinished(comparison: Comparison) -> list[str]:
    return [] if comparison.complete else ["Some planned runs are missing: the answer is based on the others."]


def _answer(answer: Answer) -> Markup:
    """Return the answer with its evidence, the cost of smaller values, and the settings to make."""
    chosen = "answer" if answer.group is not None else "no answer" if answer.advice else "differences"
    lists = [
        tag("ul", *(tag("li", prose(text)) for text in texts), class_=f"reasons {name}")
        for name, texts in (("evidence", answer.evidence), ("costs", answer.costs), ("advice", answer.advice))
        if texts
    ]
    word = tag("span", chosen.upper(), class_=f"badge badge-{_COLOURS[chosen]}")
    return joined([tag("div", word, tag("p", prose(answer.sentence)), class_="verdict"), *lists])


def _words(comparison: Comparison) -> Markup | None:
    """Return how the groups compare in words, the first thing to read on a page without an answer."""
    sentences = in_words(comparison)
    if len(sentences) == 1:
        return tag("div", tag("p", sentences[0]), class_="verdict")
    return tag("ul", *(tag("li", text) for text in sentences), class_="reasons lead") if sentences else None


def _gates(gates: Sequence[Gate]) -> Markup | None:
    rows = [
        [
            joined(
                [
                    tag("b", "\u2713" if gate.ok else "\u2717", class_="good" if gate.ok else "bad"),
                    " ",
                    tag("code", gate.text),
                ]
            ),
            gate.measured,
            "passed" if gate.ok else "FAILED",
        ]
        for gate in gates
    ]
    return table(["--fail-on", "measured", ""], rows, class_="gates") if rows else None


def _parts(comparison: Comparison, curves: Sequence[dict[str, object]]) -> Iterator[tuple[str, str, Markup]]:
    """Yield each part of the page: its id, its name in the navigation, and the part itself."""

    def part(identity: str, title: str, *content: str | None, note: str | None = None) -> tuple[str, str, Markup]:
        return identity, title, section(identity, title, *content, note=note)

    if comparison.columns and comparison.groups:
        label = comparison.groups[reference(comparison)].label
        yield part("groups", "Side by side", groups_table(comparison), note=_TABLE_NOTE.format(reference=label))
        yield part("intervals", "Medians with confidence intervals", intervals(comparison), note=_INTERVALS_NOTE)
    if curves:
        yield part("latencies", "How long it took", places(curves, height=_CURVES), note=_TAIL_NOTE)
    if comparison.settings or comparison.hosts:
        title = "What else differs" if comparison.kind == "sweep" else "What differs"
        yield part("differences", title, *_differences(comparison))
    yield part("runs", "Every run", runs(comparison))
    yield part("details", "Every number", *_details(comparison))


def _differences(comparison: Comparison) -> Iterator[Markup]:
    for title, found in (("Settings", comparison.settings), ("Hosts", comparison.hosts)):
        if found:
            yield tag("h3", title)
            yield _difference_table(comparison, found)
    if comparison.unlike_hosts:
        yield tag("p", "The hosts differ: without --force, times and CPU are shown and not judged.")


def _difference_table(comparison: Comparison, found: Sequence[Difference]) -> Markup:
    heads = ["", *(group.label for group in comparison.groups)]
    return table(heads, [[tag("code", one.name), *one.values] for one in found])


def _details(comparison: Comparison) -> Iterator[Markup]:
    yield fold(count_of(len(comparison.rows), "metric") + " by group", medians(comparison.rows, comparison.groups))
    compared = [row for row in comparison.rows if row.pairs]
    if not compared:
        return
    differ = [row for row in compared if any(pair.says != Says.SAME for pair in row.pairs)]
    matrices = [
        tag("details", tag("summary", tag("code", row.metric)), matrix(row, comparison.groups), class_="inner")
        for row in differ
    ]
    same = ", ".join(row.metric for row in compared if row not in differ)
    alike = tag("p", "No difference that matters: ", tag("code", same), class_="note") if same else None
    yield fold("Which groups differ, metric by metric, with p-values", *matrices, alike)

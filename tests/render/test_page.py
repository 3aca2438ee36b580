"""The pages of a run and of a sweep as files: required content, and content that foreign text cannot add."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import time
from functools import partial
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_samples import NASTY, backlog_sweep, million
from report_samples import generator_limited, golden, healthy, phantoms, too_many_open_files
from scenes import dying, exhausted, stalling

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.judge import summary_of
from loadsim.analysis.series import Series, series_of
from loadsim.analysis.summary import Finding, Judged, Mark, Summary, Timeline
from loadsim.compare.comparison import Comparison, Group, Says
from loadsim.compare.page import comparison_page
from loadsim.compare.page_table import pair_of
from loadsim.render.html.markup import Markup, asset, data_block, escaped, tag
from loadsim.render.html.page import run_page
from loadsim.render.html.parts import number, plain, prose
from loadsim.render.html.svg import Scale, fd_map, log_ticks, steps
from loadsim.render.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES = [too_many_open_files, healthy, phantoms, generator_limited]
HOST = {"kernel": "6.18.44", "cpus": 2, "load_average": [0.5, 0.25], "sysctls": {"net.core.somaxconn": "4096"}}
#: The files of uPlot 1.6.32 as its authors published them.
VENDORED = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}
VOID = {"meta", "link", "br", "col"}
BLOCKS = {"p", "li", "tr", "h1", "h2", "h3", "section", "summary", "header", "dl", "ul", "figcaption", "title"}


class Page(HTMLParser):
    """A page as a browser parses it: its elements, its text without script and style, its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag in BLOCKS:
            self.text += "\n"
        if tag in {"td", "th", "dd", "dt", "a", "b", "span", "code", "small", "text"}:
            self.text += " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep text that can be seen, and scripts."""
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif "head" not in self.open:
            self.text += data

    def lines(self) -> list[str]:
        """Return the visible text line by line."""
        return [line for raw in self.text.splitlines() if (line := " ".join(raw.split()))]

    def all_of(self, name: str, **having: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements with this name and these attributes."""
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in having.items()}
        return [given for found, given in self.elements if found == name and wanted.items() <= given.items()]

    def data(self) -> dict[str, Any]:
        """Return the values of the charts."""
        values: dict[str, Any] = json.loads(self.scripts[0])
        return values


def lines_of(scene: Callable[[], Any] = exhausted) -> Series:
    """Return the lines of a run made by hand."""
    return series_of(Dataset.of(scene()))


def page_of(summary: Summary, series: Series | None = None) -> Page:
    """Return the parsed page of a run."""
    return Page(run_page(summary, series or lines_of(), host=HOST))


def nothing() -> Summary:
    """Return a run without clients, samples and findings."""
    base = too_many_open_files()
    empty = Timeline(step_s=0.1, open_fds=[], fd_limit=None, queue=[], queue_capacity=None, marks=[])
    changes: dict[str, Any] = {
        "clients": 0, "metrics": {}, "ledger": dict.fromkeys(base.ledger, 0), "fate_by_outcome": {}, "growth": [],
        "outcomes": {}, "findings": [], "thresholds": [], "prediction": [], "timeline": empty, "fd_map": "",
        "settings": {}, "complete": False, "interrupted": None,
    }  # fmt: skip
    return dataclasses.replace(base, **changes)


def of_sample(sample: Callable[[], Summary]) -> str:
    """Return the page of a sample."""
    return run_page(sample(), lines_of(), host=HOST)


def hostile() -> Summary:
    """Return a run in which every text tries to end its element."""
    base = too_many_open_files()
    changes: dict[str, Any] = {
        "scenario": NASTY, "description": NASTY, "sentence": NASTY, "status": NASTY, "interrupted": NASTY,
        "complete": False, "imbalance": [NASTY], "notices": [NASTY], "fd_map": "ff" + NASTY + "W" * 20,
        "findings": [Finding(id=NASTY, title=NASTY, evidence=NASTY, remedy=NASTY, fault=True)],
        "thresholds": [Judged(text=NASTY, ok=False, measured=NASTY)],
        "settings": {NASTY: {NASTY: NASTY}, "name": NASTY}, "metrics": {**base.metrics, NASTY: 1.0},
        "growth": [dataclasses.replace(band, label=NASTY, growth_point=True) for band in base.growth],
        "prediction": [dataclasses.replace(one, name=NASTY) for one in base.prediction],
        "timeline": dataclasses.replace(base.timeline, marks=[Mark(at_s=1.0, label=NASTY)]),
        "ledger": {**base.ledger, NASTY: 1}, "outcomes": {**base.outcomes, NASTY: 1},
        "fate_by_outcome": {**base.fate_by_outcome, NASTY: {NASTY: 1}},
    }  # fmt: skip
    return dataclasses.replace(base, **changes)


def hostile_sweep() -> Comparison:
    """Return a sweep in which every text tries to end its element."""
    base = backlog_sweep()
    assert base.answer is not None
    changes: dict[str, Any] = {
        "title": NASTY, "description": NASTY, "axes": [NASTY], "notices": [NASTY],
        "groups": [Group(label=NASTY, values={}, runs=[NASTY], statuses=[NASTY], refused=[NASTY]) for _ in base.groups],
        "columns": [dataclasses.replace(c, heading=NASTY, legend=NASTY) for c in base.columns],
        "rows": [dataclasses.replace(row, unit=NASTY) for row in base.rows],
        "answer": dataclasses.replace(base.answer, sentence=NASTY, evidence=[NASTY], costs=[NASTY], advice=[NASTY]),
        "settings": [dataclasses.replace(d, name=NASTY, values=[NASTY] * 5) for d in base.settings],
        "curves": [dataclasses.replace(c, family=NASTY) for c in base.curves[:1]],
        "gates": [dataclasses.replace(g, text=NASTY, measured=NASTY) for g in base.gates],
    }  # fmt: skip
    return dataclasses.replace(base, **changes)


def bare(*groups: Group) -> Comparison:
    """Return a comparison without rows, columns and answer."""
    return backlog_sweep(groups=[*groups], rows=[], columns=[], curves=[], settings=[], answer=None)


ALL: dict[str, Callable[[], str]] = {
    **{sample.__name__: partial(of_sample, sample) for sample in SAMPLES},
    "nothing": lambda: run_page(nothing(), lines_of(), host={}),
    "hostile": lambda: run_page(hostile(), lines_of(), host={NASTY: NASTY, "sysctls": {NASTY: NASTY}}),
    "stalling": lambda: run_page(summary_of(Dataset.of(stalling())), lines_of(stalling), host=HOST),
    "dying": lambda: run_page(summary_of(Dataset.of(dying())), lines_of(dying), host=HOST),
    "sweep": lambda: comparison_page(backlog_sweep()),
    "hostile sweep": lambda: comparison_page(hostile_sweep()),
    "no groups": lambda: comparison_page(bare()),
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_every_page_is_well_formed(name: str) -> None:
    """Elements are nested, ids are unique, links have targets, and only the two scripts run."""
    page = Page(ALL[name]())
    ids = [given["id"] for _, given in page.elements if "id" in given]
    assert sorted(set(ids), key=str) == sorted(ids, key=str)
    links = [given["href"] or "" for given in page.all_of("a")]
    assert [link for link in links if link.startswith("#") and link[1:] not in ids] == []
    assert [given.get("type") for given in page.all_of("script")] == ["application/json", None, None]
    assert page.scripts[1:] == [asset("uPlot.iife.min.js"), asset("page.js")]
    charts = [panel["id"] for panel in (page.data().get("time") or {"panels": []})["panels"]]
    charts += [chart["id"] for chart in page.data()["curves"]]
    assert {f"chart-{chart}" for chart in charts} == {i for i in ids if (i or "").startswith("chart-")}


@pytest.mark.parametrize("name", ALL)
def test_no_page_loads_anything(name: str) -> None:
    """No element refers to a file or an address; links lead into the page or to the page of a run below it."""
    text = ALL[name]()
    page = Page(text)
    for element, has in page.elements:
        assert not {"src", "srcset", "action", "data", "poster", "xlink:href"} & has.keys(), element
        assert not any(key.startswith("on") for key in has), element
    assert [(given["href"] or "")[:19] for given in page.all_of("link")] == ["data:image/svg+xml,"]
    assert all((given["href"] or "").startswith(("#", "runs/", "%3C")) for given in page.all_of("a"))
    style = asset("uPlot.min.css") + asset("page.css")
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_only_the_two_scripts() -> None:
    """A browser runs a script only if its digest is in the policy of the page."""
    page = page_of(healthy())
    policy = page.all_of("meta", http_equiv="Content-Security-Policy")[0]["content"] or ""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts[1:]]
    assert policy.startswith("default-src 'none'; ")
    assert re.findall(r"script-src ([^;]+)", policy) == [" ".join(f"'sha256-{digest}'" for digest in digests)]


@pytest.mark.parametrize("name", VENDORED)
def test_the_library_is_as_it_was_published(name: str) -> None:
    """The vendored files of uPlot are unchanged."""
    assert hashlib.sha256(asset(name).encode()).hexdigest() == VENDORED[name]


@pytest.mark.parametrize("name", ["hostile", "hostile sweep"])
def test_foreign_text_stays_text(name: str) -> None:
    """A name that looks like an element is shown as text everywhere."""
    text = ALL[name]()
    page = Page(text)
    assert text.count("<script") == 3
    assert page.text.count(printable(NASTY)) > 8
    assert "\u2028" not in text
    assert "<" not in page.scripts[0]


@given(text=st.text())
def test_any_text_survives_as_text(text: str) -> None:
    """Text is unchanged after parsing, in content, in an attribute and in a data block."""
    page = Page(tag("p", text, title=text) + data_block("data", {"text": text}))
    assert page.text.removeprefix("\n") == printable(text)
    assert page.elements[0][1]["title"] == printable(text)
    assert page.data() == {"text": text}


def test_markup_is_not_escaped_twice() -> None:
    """Markup stays as it is; None and False leave an attribute out, True gives it no value."""
    assert tag("b", escaped("<"), Markup("<i></i>"), None) == "<b>&lt;<i></i></b>"
    assert tag("th", "x", class_=None, hidden=False, id="a", data_b=True) == '<th id="a" data-b>x</th>'


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_status_comes_first(sample: Callable[[], Summary]) -> None:
    """The order is name, status, sentence, findings, ledger, and all of them are in the page without scripts."""
    summary = sample()
    text = "\n".join(page_of(summary).lines())
    wanted = [summary.scenario, summary.status, summary.sentence, "What happened", summary.findings[0].title, "ended"]
    places = [text.index(" ".join(part.split())) for part in wanted]
    assert places == sorted(places)
    for one in summary.thresholds:
        assert one.text in text
    for band in summary.growth:
        assert band.label in text
    for finding in summary.findings:
        assert finding.id in text


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("page-too-many-open-files.txt", lambda: page_of(too_many_open_files())),
        ("page-backlog-sweep.txt", lambda: Page(comparison_page(backlog_sweep()))),
    ],
)
def test_pages_read_as_text(name: str, page: Callable[[], Page]) -> None:
    """The text of a page without style and script matches its golden file."""
    # definitions, settings and the licence of the chart library follow; they are tested elsewhere
    lines = page().lines()
    end = next(place for place, line in enumerate(lines) if line == "Everything else" or line.endswith("by group"))
    text = "\n".join(lines[:end]) + "\n"
    assert text == golden(name, text)


def test_the_bar_adds_up() -> None:
    """The widths of the bar's parts add up to the number of clients, and the table has both sums."""
    summary = too_many_open_files()
    page = page_of(summary)
    parts = [given for _, given in page.elements if "part " in (given.get("class") or "")]
    assert sum(int((given["style"] or "").removeprefix("flex-grow:")) for given in parts) == summary.clients
    assert "sum 600 56 415 129" in page.lines()
    assert any(line.startswith("\u2713 adds up") for line in page.lines())


def test_a_ledger_that_does_not_add_up_says_so() -> None:
    """It shows the sign, the word and the reason."""
    broken = dataclasses.replace(too_many_open_files(), balanced=False, imbalance=["One is missing."], foreign=2)
    lines = page_of(broken).lines()
    assert "\u2717 does not add up" in lines
    assert "One is missing." in lines
    assert "2 foreign: accepted connections that match no attempt." in lines


def test_interrupted_runs_say_so_at_the_top() -> None:
    """A notice at the top gives the cause."""
    cut = dataclasses.replace(healthy(), complete=False, interrupted="SIGINT")
    assert "The run was interrupted (SIGINT). The numbers cover the time until then." in page_of(cut).lines()


def test_missed_expectations_are_words() -> None:
    """Met and missed thresholds differ in sign and word, not only in colour."""
    lines = page_of(generator_limited()).lines()
    assert "\u2717 fate.accepted == 40000 17,207 NOT MET" in lines
    assert "\u2713 emfile.count == 0 0 met" in lines


def test_growth_points_are_marked_in_drawing_and_table() -> None:
    """Each band that begins with a larger table has a line in the drawing and a sign in the table."""
    summary = summary_of(Dataset.of(stalling()))
    page = page_of(summary, lines_of(stalling))
    grown = sum(band.growth_point for band in summary.growth)
    assert grown == 3
    assert len(page.all_of("line", class_="grew")) == grown
    assert len(page.all_of("span", class_="grown", title="the kernel enlarged the fd table")) == grown
    assert len(page.all_of("line", class_="p50")) == sum(band.accepted > 0 for band in summary.growth)


def test_losses_are_drawn_only_where_there_are_any() -> None:
    """The drawing of a healthy server has no row for EMFILE."""
    assert page_of(healthy()).all_of("rect", class_="lost") == []
    assert len(page_of(too_many_open_files()).all_of("rect", class_="lost")) == 2


def test_a_small_fd_table_has_a_square_for_each_descriptor() -> None:
    """Each square has the letter of its descriptor, and the legend counts them."""
    page = Page(fd_map("fffesseL" + 56 * "W"))
    assert len(page.all_of("i", class_="fd-W")) == 56 + 1
    assert len(page.all_of("div", class_="fd-row")) == 1
    assert "W CLOSE_WAIT: the client has left, the server never closed 56" in page.lines()


def test_a_large_fd_table_has_a_square_for_several_descriptors() -> None:
    """A square of a large table stands for a power of two of descriptors, and a note gives the number."""
    page = Page(fd_map("fL" + 100_000 * "E" + 3 * "."))
    assert len(page.all_of("div", class_="fd-row")) <= 33
    assert "One square stands for 64 descriptors and shows the most frequent kind." in page.lines()
    assert "E ESTABLISHED: a client is connected 100,000" in page.lines()


def test_panels_have_only_lines_with_data() -> None:
    """Lines and panels without data are left out."""
    page = page_of(too_many_open_files())
    panels = {panel["id"]: panel for panel in page.data()["time"]["panels"]}
    assert list(panels) == ["fds", "queue", "waits", "cpu"]
    assert [line["label"] for line in panels["queue"]["lines"]] == ["queue", "SYNs lost"]
    assert (panels["fds"]["limit"], panels["queue"]["limit"]) == (64, 129)
    assert page.data()["time"]["marks"][0] == {"at": 0.276, "label": "first EMFILE"}
    assert page.data()["curves"][0]["lines"][0]["label"].startswith("connect")


@pytest.mark.slow
def test_a_million_attempts_make_a_small_page() -> None:
    """The page is below a megabyte and made in less than three seconds."""
    data = Dataset.of(million())
    summary = summary_of(data)
    began = time.monotonic()
    page = run_page(summary, series_of(data), host=HOST)
    assert time.monotonic() - began < 3
    assert len(page.encode()) < 1_000_000


def test_the_answer_leads_and_its_row_is_marked() -> None:
    """The sentence comes before the table, and the row of its group is marked."""
    comparison = backlog_sweep()
    page = Page(comparison_page(comparison))
    lines = page.lines()
    assert lines.index("backlog 256 is enough; so would 218 be. 4,096 is not better than 256.") < 6
    assert len(page.all_of("tr", class_="chosen")) == 1
    assert any(line.startswith("\u25b6backlog 256 6 runs 212 of 257") for line in lines)


def test_cells_are_judged_by_sign_and_word() -> None:
    """Worse cells have a cross and equal ones an equals sign; a peak under another limit has no sign."""
    lines = Page(comparison_page(backlog_sweep())).lines()
    row = next(line for line in lines if line.startswith("backlog 8 6 runs"))
    assert row.startswith("backlog 8 6 runs 9 of 9 FULL")
    assert row.count("\u2717") == 4
    assert next(line for line in lines if line.startswith("backlog 4,096 6 runs")).count("=") == 4
    assert "\u2717 worse" in lines


def test_groups_without_an_answer_are_compared_in_words() -> None:
    """Without an answer, the first sentence compares the groups with the first one."""
    page = Page(comparison_page(backlog_sweep(answer=None, kind="compare")))
    lines = page.lines()
    assert lines[3] == (
        "Compared with backlog 1, backlog 8 is worse in reply p99 and better in served, 1 s late, phantom."
    )
    same = dataclasses.replace(backlog_sweep().groups[0], label="twin")
    row = backlog_sweep().rows[3]
    even = dataclasses.replace(
        row, estimates=row.estimates[:2], pairs=[dataclasses.replace(row.pairs[0], says=Says.SAME)]
    )
    pair = backlog_sweep(answer=None, kind="compare", groups=[backlog_sweep().groups[0], same], rows=[even], curves=[])
    text = Page(comparison_page(dataclasses.replace(pair, settings=[]))).lines()
    assert "Compared with backlog 1, twin makes no difference that matters." in text


def test_pairs_read_from_both_ends() -> None:
    """A swapped pair turns better into worse and keeps the same; groups that were not compared have no pair."""
    row = backlog_sweep().rows[3]
    ends = [pair_of(row, 0, 3), pair_of(row, 3, 0), pair_of(row, 4, 3), pair_of(row, 1, 1)]
    assert [end and end[1] for end in ends] == [Says.WORSE, Says.BETTER, Says.SAME, None]


def test_every_run_is_a_link_that_stays_beside_the_page() -> None:
    """Links are relative, and a name cannot become an address of another kind."""
    group = Group(
        label="a", values={}, runs=["javascript:alert(1)", "runs/x y#1"], statuses=["HEALTHY"] * 2, refused=[]
    )
    page = Page(
        comparison_page(backlog_sweep(groups=[group], rows=[], columns=[], curves=[], settings=[], answer=None))
    )
    links = [given["href"] for given in page.all_of("a") if not (given["href"] or "").startswith("#")]
    assert links == ["javascript%3Aalert%281%29/report.html", "runs/x%20y%231/report.html"]


def test_missing_and_refused_runs_are_reported() -> None:
    """The page has sentences on missing runs, on a group without runs, and on different hosts."""
    refused = dataclasses.replace(backlog_sweep().groups[0], runs=[], statuses=[], refused=["nofile 1 is too few."])
    groups = [refused, *backlog_sweep().groups[1:]]
    lines = Page(comparison_page(backlog_sweep(groups=groups, complete=False, unlike_hosts=True))).lines()
    assert "nofile 1 is too few." in lines
    assert "This group has no complete run." in lines
    assert "Some planned runs are missing: the answer is based on the others." in lines
    assert any(line.startswith("The hosts differ") for line in lines)


def test_only_metrics_that_differ_have_a_matrix() -> None:
    """A metric that differs has every pair with its p-value; the others are listed by name."""
    base = backlog_sweep()
    even = [dataclasses.replace(pair, says=Says.SAME) for pair in base.rows[0].pairs]
    rows = [dataclasses.replace(base.rows[0], pairs=even), *base.rows[1:]]
    page = Page(comparison_page(dataclasses.replace(base, rows=rows)))
    assert len(page.all_of("table", class_="matrix")) == 5
    assert any(line.endswith("No difference that matters: queue.max") for line in page.lines())
    assert any("= same" in line and "p = 0.6 (corrected 1)" in line for line in page.lines())


def test_intervals_show_every_run() -> None:
    """Each run is a small dot, each group a larger one."""
    page = Page(comparison_page(backlog_sweep()))
    assert len(page.all_of("circle", class_="run")) == 5 * 5 * 6
    assert len(page.all_of("circle", class_="median")) == 5 * 5


@given(values=st.lists(st.floats(1e-9, 1e5), min_size=1, max_size=20))
def test_logarithmic_axes_reach_around_their_values(values: list[float]) -> None:
    """The ticks enclose all values, with a tolerance of two per cent."""
    ticks = log_ticks(values)
    assert 2 <= len(ticks) <= 20
    assert ticks == sorted(ticks)
    assert ticks[0] <= max(min(values), 1e-6) * 1.02
    assert ticks[-1] >= max(values) * 0.98
    assert log_ticks([]) == []


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_steps_are_few_and_inside(low: float, width: float) -> None:
    """An even axis has two to nine round ticks within its ends."""
    ticks = steps(low, low + width)
    assert 1 <= len(ticks) <= 9
    assert all(low - width * 1e-6 <= tick <= low + width * (1 + 1e-6) for tick in ticks)


def test_scales_clip_values_at_their_ends() -> None:
    """A value is mapped to a pixel between both ends, also on a logarithmic axis."""
    even = Scale(low=0, high=10, start=100, end=0)
    assert [even.at(value) for value in (-1, 0, 5, 10, 11)] == [100, 100, 50, 0, 0]
    log = Scale(low=1e-6, high=1e-2, start=0, end=400, log=True)
    assert [log.at(value) for value in (0, 1e-6, 1e-4, 1e-2, 1)] == [0, 0, 200, 400, 400]
    assert Scale(low=3, high=3, start=0, end=10).at(3) == 5


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0012, "s", "1.2 ms"), (0, "s", "0 s"), (0.857, "share", "85.7 %"), (1, "share", "100 %"), (3, "", "3"),
        (4310, "", "4,310"), (0.984, "cores", "0.98 cores"), (20 << 20, "bytes", "20 MiB"),
        (436093.2, "/s", "436,093/s"),
    ],
)  # fmt: skip
def test_numbers_carry_their_unit(value: float, unit: str, text: str) -> None:
    """Each unit of a metric has its format."""
    assert number(value, unit) == text


def test_numbers_stay_with_their_units() -> None:
    """No line breaks inside "266 ms" or "5 min 28 s", and markup is still escaped."""
    assert prose("after 266 ms, in 5 min 28 s <b>") == "after 266&nbsp;ms, in 5&nbsp;min&nbsp;28&nbsp;s &lt;b&gt;"
    assert prose("18 % of 3 servers") == "18&nbsp;% of 3 servers"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not set"), (True, "yes"), (0.7000000000000001, "0.7"), (65536, "65,536"), (80, "80"), ([], "none"),
        ([0.5, "a"], "0.5, a"), ({"for": 1.0}, "for = 1"), ("x", "x"),
    ],
)  # fmt: skip
def test_settings_read_as_people_write_them(value: object, text: str) -> None:
    """Settings show no None, no True, and no digits of rounding errors."""
    assert plain(value) == text

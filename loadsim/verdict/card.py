"""The card of a verdict: how a command behaves when its descriptors run out, its class and its grade.

Each line is one question, each column one trial; several runs of a trial are shown as a range. Must not judge.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from loadsim.render.drawing import ALARM, BAD, GOOD, QUIET, STRONG, WARN, Line, Terminal, both_ends, line, paint
from loadsim.render.terminal import LABEL, in_shell, labelled
from loadsim.render.text import left, pieces, widest, wrap
from loadsim.units import format_bytes, format_count, format_duration, some
from loadsim.verdict.classify import BURNS_CORES, FLOODS_BYTES_PER_S, MEANINGS, PROMPT_S, Class, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from loadsim.render.drawing import Part
    from loadsim.verdict.classify import Observed, Verdict

_UNKNOWN = "-"
_HEAD = "trial"
_MARGIN = 4  # two columns before a question, two after it
_GRADES = {"A": GOOD, "B": GOOD, "C": WARN, "D": BAD, "E": ALARM, "F": ALARM}


def render(
    verdict: Verdict,
    seen: Sequence[Observed],
    command: Sequence[str],
    terminal: Terminal,
    *,
    nofile: int,
    saved: str | None = None,
) -> str:
    """Return the card as text that ends in a newline; no line is wider than the terminal."""
    trials = {one.trial: [other for other in seen if other.trial == one.trial] for one in seen}
    times = (
        f"{some(len(trials), 'trial')} x {some(max(map(len, trials.values())), 'run')}, nofile {format_count(nofile)}"
    )
    name = shlex.join(command).replace("'{port}'", "{port}")
    width = max(terminal.edge - len(times) - 2, 20)
    head = both_ends(line((terminal.clip(name, width), STRONG)), line((times, QUIET)), terminal)
    lines = [*head, line(), *_table(trials, terminal), line(), *_verdict(verdict, terminal)]
    for one in seen:
        if one.refusal:
            lines += [line(("  " + text, QUIET)) for text in wrap(terminal.prose(one.refusal), terminal.edge - 2)]
            break
    if saved:
        lines += [line(), *labelled("saved in", pieces(terminal.prose(saved), terminal.edge - LABEL))]
        by_hand = f"bash {shlex.quote(saved)}/reproduce.sh"
        lines += labelled("reproduce", in_shell(terminal.prose(by_hand), terminal.edge - LABEL))
    return paint(lines, terminal)


def _verdict(verdict: Verdict, terminal: Terminal) -> list[Line]:
    first, *more = wrap(f"{verdict.grade}: {verdict.rule}", terminal.edge - 9)
    lines = [line(("VERDICT  ", STRONG), (first, _GRADES.get(verdict.grade, STRONG)))]
    lines += [line(" " * 9, (text, STRONG)) for text in more]
    class_ = f"class: {verdict.class_.value} ({MEANINGS[verdict.class_]}). Seen here: {verdict.because}."
    return lines + [line(" " * 9, text) for text in wrap(terminal.prose(class_), terminal.edge - 9)]


def _table(trials: dict[str, list[Observed]], terminal: Terminal) -> list[Line]:
    rows = [(question, [answer(runs) for runs in trials.values()]) for question, answer in _QUESTIONS]
    label = widest([_HEAD, *(question for question, _ in rows)]) + _MARGIN
    each = max((terminal.edge - label) // len(trials), 8)
    heads = "".join(left(terminal.clip(trial, each - 1), each) for trial in trials)
    lines = [line((left(f"  {_HEAD}", label), QUIET), (heads, QUIET))]
    for question, cells in rows:
        row: list[str | Part] = [left(f"  {question}", label)]
        for text, style in cells:
            row.append((left(terminal.clip(text, each - 1), each), style))
        lines.append(line(*row))
    return lines


Cell = tuple[str, str]


def _alive(runs: Sequence[Observed]) -> Cell:
    if any(one.refusal is not None for one in runs):
        return "does not start", ALARM
    died = [one.exit_status for one in runs if one.exit_status is not None]
    if died:
        return f"no: {_exit(died[0])}", ALARM
    lost = max(one.restarts for one in runs)
    return (f"{some(lost, 'worker')} died", BAD) if lost else ("yes", GOOD)


def _exit(status: int) -> str:
    return f"exit {status}" if status >= 0 else f"signal {-status}"


def _connected_clients(runs: Sequence[Observed]) -> Cell:
    known = [one for one in runs if one.held]
    if not known:
        return _UNKNOWN, QUIET
    if any(one.held_unanswered for one in known):
        return "not answered", BAD
    if any(one.held_cut for one in known):
        return "disconnected", WARN
    late = [one.held_late_s for one in known if one.held_late_s is not None]
    prompt = max(late, default=0.0) < PROMPT_S / 10
    return ("served at once", GOOD) if prompt else (f"{format_duration(max(late))} late", WARN)


def _cpu(runs: Sequence[Observed]) -> Cell:
    cores = [one.cpu_cores for one in runs if one.cpu_cores is not None]
    if not cores:
        return _UNKNOWN, QUIET
    text = _range([100 * one for one in cores], lambda value: f"{value:.0f}") + " %"
    return (f"{text}  BURNS", BAD) if max(cores) >= BURNS_CORES else (text, "")


def _failures(runs: Sequence[Observed]) -> Cell:
    rates = [one.emfile_per_s for one in runs if one.emfile_per_s is not None]
    if not rates:
        return "not visible", QUIET
    return _range(rates, lambda rate: format_count(round(rate)) if rate >= 10 else f"{rate:.1f}") + "/s", ""


def _log(runs: Sequence[Observed]) -> Cell:
    rates = [one.log_bytes_per_s for one in runs if one.log_bytes_per_s is not None]
    if not rates:
        return _UNKNOWN, QUIET
    text = _range(rates, format_bytes) + "/s"
    return (f"{text}  FLOOD", BAD) if max(rates) >= FLOODS_BYTES_PER_S else (text, "")


def _new_clients(runs: Sequence[Observed]) -> Cell:
    seen = {
        "answered": (sum(one.new_ok for one in runs), GOOD),
        "no reply": (sum(one.new_silent for one in runs), BAD),
        "no connection": (sum(one.new_unreachable for one in runs), BAD),
        "turned away": (sum(one.new_turned_away for one in runs), WARN),
        "an error": (sum(one.new_failed for one in runs), WARN),
    }
    most = max(seen, key=lambda name: seen[name][0])
    return (most, seen[most][1]) if seen[most][0] else (_UNKNOWN, QUIET)


def _recovery(runs: Sequence[Observed]) -> Cell:
    back = [one.recovery_s for one in runs if one.recovery_s is not None]
    if len(back) < len(runs):
        watched_s = min(one.watched_s for one in runs if one.recovery_s is None)
        none = f"none in {format_duration(watched_s)}" if watched_s else "never"
        return (none if not back else f"{none}, {len(runs) - len(back)} of {len(runs)}"), ALARM
    if not max(back):
        return "no outage", GOOD
    if any(one.needs_close for one in runs):
        return f"{_range(back, format_duration)}, after clients left", WARN
    return _range(back, format_duration), (GOOD if max(back) <= PROMPT_S else WARN)


def _leftover(runs: Sequence[Observed]) -> Cell:
    left_over = [one.leftover_fds for one in runs if one.leftover_fds is not None]
    if not left_over:
        return _UNKNOWN, QUIET
    text = _range(left_over, format_count)
    return f"{text} fds", (WARN if max(left_over) > 0 else "")


def _class(runs: Sequence[Observed]) -> Cell:
    classes = {classify(one)[0] for one in runs}
    return " / ".join(sorted(classes)), (QUIET if classes == {Class.NOT_EXHAUSTED} else "")


def _range(values: Iterable[float], shown: Callable[[float], str]) -> str:
    ordered = sorted(values)
    low, high = shown(ordered[0]), shown(ordered[-1])
    return low if low == high else f"{low}-{high}" if low.isdecimal() else f"{low} - {high}"


#: The lines of the card, from top to bottom.
_QUESTIONS: tuple[tuple[str, Callable[[Sequence[Observed]], Cell]], ...] = (
    ("stays alive", _alive),
    ("connected clients", _connected_clients),
    ("CPU at the limit", _cpu),
    ("accept() fails", _failures),
    ("log output", _log),
    ("new clients", _new_clients),
    ("first answer after", _recovery),
    ("still open at end", _leftover),
    ("class", _class),
)

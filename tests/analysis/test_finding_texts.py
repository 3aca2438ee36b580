"""The texts of findings agree with the code: every number has a source, and every name exists."""

from __future__ import annotations

import ast
import inspect
import re
from typing import TYPE_CHECKING

import pytest

from loadsim.analysis.findings import acceptor, descriptors, exhaustion, generator, queue, recovery, run
from loadsim.analysis.findings.queue import LINEAR, retransmit_times
from loadsim.analysis.findings.registry import FINDINGS
from loadsim.analysis.metrics import GAP
from loadsim.fates import FATES, OUTCOMES
from loadsim.kernel.limits import HOST_SYSCTLS, NAMESPACE_SYSCTLS
from loadsim.metrics import METRICS
from loadsim.record.records import TABLE_HZ
from loadsim.scenario.client import Client
from loadsim.scenario.model import Canary, Network
from loadsim.scenario.server import Server
from loadsim.simulated.policy import BACKOFF_LIMIT_NS
from loadsim.targets.observed import _TABLE_S
from loadsim.units import format_duration

if TYPE_CHECKING:
    from types import ModuleType

    from loadsim.analysis.findings.case import Definition
    from loadsim.scenario.fields import Table

_WORDS = "two three four five six seven eight nine ten twenty thirty fifty hundred thousand twice half"
_NUMBER = re.compile(rf"(?<![\w.$])\d+(?:[.,]\d+)*(?!\d|-?[a-z])|\b(?:{_WORDS.replace(' ', '|')})\b", re.IGNORECASE)


def numbers(text: str) -> set[str]:
    """Return the numbers of a text, in digits or in words."""
    return {found.lower() for found in _NUMBER.findall(text)}


def seconds(times: list[float]) -> set[str]:
    """Return times in the form that texts use."""
    return {f"{time:.0f}" for time in times}


#: Numbers of texts that are also in the code, computed from the code.
FROM_CODE = {
    "emfile-spin": {Server.model_fields["emfile_delay"].default.removesuffix("ms")},
    "queue-overflow": seconds(retransmit_times({})[:1]),
    "syn-delay": seconds(retransmit_times({LINEAR: "4"})[:7]) | seconds(retransmit_times({})[:4]) | {"4"},
    "prediction-gap": {f"{GAP * 100:.0f}"},
    "fates-unknown": {f"{TABLE_HZ}"},
}
#: Numbers of other programs and of the kernel, which this code does not contain.
FACTS = {
    "fd-leak": {"twice"},  # counts by hand
    "emfile-handler": {"0", "500"},  # failures with headroom; the HTTP status
    "emfile-spin": {"0.2", "100"},  # us of a failing accept(); per cent of a core
    "false-connect": {"1"},  # a full queue holds backlog + 1
    "fd-table-stall": {"64", "128", "256", "6.18", "7", "18", "0.2", "20", "70"},  # the kernel's sizes; measured
    "limit-raised": {"1.19"},  # of Go
    "queue-overflow": {"1"},  # a full queue holds backlog + 1
    "phantom-connections": {"0"},  # of a sysctl
    "queue-abort": {"0", "1"},  # of a sysctl
    "syn-delay": {"6.5"},  # of Linux
    "recovery": {"10", "100"},  # ms, measured
    "target-ended": {"9"},  # SIGKILL
    "prediction-gap": {"two"},  # columns
}
#: Numbers that the sentences of rules contain literally, by module.
IN_RULES = {
    acceptor: {"half", "two"},  # the median; two calls of accept()
    run: {"two"},  # between two samples
    exhaustion: {"100", "1.19", "1", "10", "twice"},  # ms to wait; Go; retries a second of nginx, Go and trio
    generator: {"hundred", "ten", "half", "3"},  # p99, p90, p50; errno(3)
    descriptors: set[str](),
    queue: {"0", "1", "half"},  # sysctls; half open
    recovery: {"1", "2"},
}


@pytest.mark.parametrize("finding", FINDINGS.values(), ids=lambda finding: finding.id)
def test_every_number_that_explain_states_has_a_source(finding: Definition) -> None:
    """The source is a constant of the code or a fact about another program, and every listed number is in use."""
    stated = numbers(f"{finding.means} {finding.look_at} {finding.do}")
    assert stated == FROM_CODE.get(finding.id, set()) | FACTS.get(finding.id, set())


@pytest.mark.parametrize("module", IN_RULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_number_in_the_sentences_of_a_rule_has_a_source(module: ModuleType) -> None:
    """A sentence gets its numbers from the run or from a constant; the few literal ones are listed here."""
    written = {number for text in sentences_of(module) for number in numbers(text)}
    assert written - IN_RULES[module] == set()


def sentences_of(module: ModuleType) -> list[str]:
    """Return the literal parts of the texts of a module of rules, without docstrings, formats and its findings."""
    tree = ast.parse(inspect.getsource(module))
    skipped = {id(node) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "FINDINGS" for target in node.targets):
            skipped |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.Expr):
            skipped |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            skipped |= {id(inner) for inner in ast.walk(node.format_spec)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in skipped]
    return [text.value for text in texts if isinstance(text.value, str) and " " in text.value]


def test_constants_agree_with_the_mechanisms_that_texts_name() -> None:
    """The constants are the rate of TCP table samples, a stall, a pause, and the longest backoff of Go."""
    assert _TABLE_S == 1 / TABLE_HZ
    assert 0.0002 < exhaustion._STALL_S < 0.007, "between a growth with one thread and one with two"
    assert format_duration(acceptor._PAUSE_NS / 1e9) == acceptor._PAUSE
    assert BACKOFF_LIMIT_NS == 1_000_000_000
    assert "up to a second (Go)" in FINDINGS["emfile-spin"].do


def texts() -> list[str]:
    """Return every sentence about a finding, of `loadsim explain` and of the rules."""
    explained = [text for finding in FINDINGS.values() for text in (finding.means, finding.look_at, finding.do)]
    return explained + [text for module in IN_RULES for text in sentences_of(module)]


def test_dotted_names_exist() -> None:
    """Every dotted name in a text is a metric, a setting, a sysctl or a file of the result."""
    tables: dict[str, type[Table]] = {"client": Client, "server": Server, "network": Network, "canary": Canary}
    settings = {f"{name}.{key}" for name, table in tables.items() for key in table.model_fields}
    known = set(METRICS) | settings | set(NAMESPACE_SYSCTLS) | set(HOST_SYSCTLS)
    known |= {"target.stderr", "driver-n.stderr", "client.duration"}
    named = {name for text in texts() for name in re.findall(r"\b[a-z][a-z0-9_-]*(?:\.[a-z0-9_]+)+", text.lower())}
    assert named - known == set()


def test_quoted_words_are_fates_or_outcomes() -> None:
    """Every word in backticks is a fate, an outcome or a command."""
    quoted = {word for text in texts() for word in re.findall(r"`([a-z_]+)`", text)}
    assert quoted - set(FATES) - set(OUTCOMES) == {"nstat", "dmesg", "uptime", "top"}


def test_findings_that_texts_name_exist() -> None:
    """Every finding that another one refers to exists."""
    words = {word.strip(".,:;()`") for text in texts() for word in text.split()}
    named = {word for word in words if re.fullmatch(r"[a-z]+(?:-[a-z]+)+", word)}
    english = {"time-out", "time-outs", "close-wait", "false-negative"}
    assert named - set(FINDINGS) - english == set()

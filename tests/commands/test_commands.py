"""The command line: exit statuses, one JSON document, errors with the remedy."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from report_samples import too_many_open_files

from loadsim.commands import NAMES, main
from loadsim.commands.options import Duration
from loadsim.commands.output import exit_status, open_page, publish
from loadsim.errors import RecordingError

if TYPE_CHECKING:
    from pathlib import Path


def call(*arguments: str) -> Result:
    """Return the output and exit status of a command line."""
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_an_invalid_scenario_starts_nothing(tmp_path: Path) -> None:
    """All errors are on stderr with their places, the exit status is 2, and no result folder is made."""
    (tmp_path / "bad.toml").write_text('[server]\nbacklg = 8\n[client]\nrate = "fast"\n')
    result = call("run", str(tmp_path / "bad.toml"), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "bad.toml:2:1: unknown key backlg" in result.stderr
    assert "bad.toml:4:8" in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


CLOSED = ("--set", "client.rate=", "--set", "client.clients=5")
RUNNING = 'schema = 1\nname = "it"\n[client]\nrate = "10/s"\nattempts = 1\n'


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--address", "10.1.2.3:80"], "add --allow-remote"),
        (["--address", "10.1.2.3:80", "--repeat", "2"], "add --allow-remote"),
        (["--address", "10.1.2.3:80", "--allow-public"], "add --allow-remote"),
        (["--address", "8.8.8.8:53", "--allow-remote"], "add --allow-public"),
        (["--address", "[::ffff:8.8.8.8]:53", "--allow-remote"], "add --allow-public"),
        (
            ["--address", "10.1.2.3:80", "--allow-remote", "--set", "client.rate=1001/s"],
            "this load has 1,001 clients/s",
        ),
        (["--address", "10.1.2.3:80", "--allow-remote", "--set", "client.attempts=601"], "this load lasts 60 s"),
        (
            ["--address", "10.1.2.3:80", "--allow-remote", *CLOSED],
            "a closed loop has no rate limit",
        ),
        (["--address", "no host:80"], "has no IPv4 address"),
        (["--pid", "1", "--", "server"], "COMMAND cannot be combined with --pid or --address."),
        (["--pid", "1", "--set", "server.nofile=64"], "are read, never set"),
    ],
)
def test_a_load_goes_nowhere_unless_the_command_line_permits_it(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    """The exit status is 2, the message names the missing option, and nothing was started."""
    (tmp_path / "it.toml").write_text(RUNNING)
    out = ["--out", str(tmp_path / "out")]
    result = call("run", str(tmp_path / "it.toml"), *out, *arguments)
    assert (result.exit_code, says in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_check_shows_no_limits_of_a_running_server(tmp_path: Path) -> None:
    """Only the needs of the generator are known before a run."""
    (tmp_path / "it.toml").write_text(RUNNING)
    shown = call("check", str(tmp_path / "it.toml"), "--set", "server.pid=1").stdout
    assert "descriptors, driver" in shown
    assert "descriptors, server" not in shown


def test_an_unknown_scenario_names_the_shipped_ones() -> None:
    """The error for a misspelled name lists the shipped scenarios."""
    result = call("check", "too-many-files")
    assert (result.exit_code, "too-many-open-files" in result.stderr) == (2, True)


def test_check_predicts_and_starts_nothing() -> None:
    """The JSON of check is one document with needs, prediction and warnings."""
    plan = json.loads(call("check", "too-many-open-files", "--json").stdout)
    assert plan["prediction"]["fates"] == {"accepted": 53, "queued": 129, "dropped": 418}
    assert plan["scenario"]["server"]["nofile"] == 64


def test_a_setting_that_cannot_be_applied_is_refused_with_its_remedy(tmp_path: Path) -> None:
    """A limit above the hard one ends with status 3 and names the setting; nothing is written."""
    result = call("run", "healthy", "--set", "server.nofile=1000000000", "--out", str(tmp_path / "out"))
    assert result.exit_code == 3
    assert "server.nofile = 1000000000 is above this host's hard limit" in result.stderr
    assert "--allow-degraded" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["report", "list"])
def test_a_folder_that_cannot_be_read_is_named(command: str) -> None:
    """An error of the file system is a sentence; a name that is too long fails also for root."""
    result = call(command, "--out", "x" * 300)
    assert result.exit_code == RecordingError.exit_code
    assert "File name too long; choose another folder with --out DIR" in result.stderr


def test_a_report_without_a_result_says_how_to_make_one(tmp_path: Path) -> None:
    """The error for an empty folder names the command that makes a result."""
    result = call("report", "--out", str(tmp_path))
    assert (result.exit_code, "loadsim run too-many-open-files" in result.stderr) == (2, True)


@pytest.mark.parametrize("asked", ["fd-leak", "phantom", "outcome.refused", "accept.p99", "emfile.count"])
def test_every_kind_of_id_is_explained(asked: str) -> None:
    """The cases are a finding, a fate, an outcome, a percentile and a count."""
    assert call("explain", asked).stdout.startswith(asked)


def test_an_unknown_id_suggests_the_nearest() -> None:
    """The error for a misspelled id suggests the closest one."""
    result = call("explain", "fd-leek")
    assert (result.exit_code, 'did you mean "fd-leak"?' in result.stderr) == (2, True)


HEAVY = ("hdrh", "numpy", "psutil", "pydantic", "rich", "tree_sitter", "trio")


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        (["--help"], []),
        (["list", "--out", "OUT"], []),
        (["check", "healthy"], ["pydantic"]),
        (["explain"], ["numpy"]),
        (["explain", "fd-leak"], ["numpy"]),
    ],
)
def test_fast_commands_import_little(arguments: list[str], imported: list[str], tmp_path: Path) -> None:
    """Only check imports pydantic, only explain imports numpy, also with a run and a sweep in the list."""
    for name in ("run", "sweep"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    (tmp_path / "sweep" / "sweep.json").write_text('{"labels": ["a"], "order": [[0, 0], [0, 1]]}')
    code = (
        "import sys\nfrom loadsim.commands import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    typed = [word.replace("OUT", str(tmp_path)) for word in arguments]
    done = subprocess.run([sys.executable, "-c", code, *typed], capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr.strip() == str(imported)


def test_the_help_of_all_commands_is_one_line_each_at_80_columns() -> None:
    """No sentence is clipped or wrapped, and each ends with a full stop."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["--help"], prog_name="loadsim")
    lines = result.stdout.split("Commands:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []
    assert "Start with: loadsim run too-many-open-files" in result.stdout


def test_every_command_has_help() -> None:
    """Each help ends with the exit statuses and examples of the command."""
    for name in NAMES:
        shown = call(name, "--help").stdout
        assert shown.startswith("Usage: main " + name)
        end = shown.split("-h, --help")[1]
        assert re.search(rf"\n  Exit status:\n    0 .*\n *\n  Examples:\n(    loadsim {name}.*\n)+$", end, re.DOTALL)


def test_the_exit_status_tells_success_failure_and_loss_apart() -> None:
    """It is 0 as expected, 99 after a failed or aborting threshold, 1 if loadsim itself lost a process."""
    fine = too_many_open_files()
    failed = dataclasses.replace(fine, thresholds=[dataclasses.replace(fine.thresholds[0], ok=False)])
    aborted = dataclasses.replace(fine, complete=False, interrupted="aborted: emfile.count > 0")
    broken = dataclasses.replace(fine, complete=False, interrupted="driver 1 ended with status -9")
    assert [exit_status(one) for one in (fine, failed, aborted, broken)] == [0, 99, 99, 1]


@pytest.mark.slow
def test_a_sweep_is_checked_before_it_starts() -> None:
    """Text and JSON show its cells, its length, and whether the repeats can tell cells apart."""
    enough = call("check", "backlog-sweep")
    few = call("check", "backlog-sweep", "--set", "server.backlog=1,2,4,8,16,32,64,128")
    values = json.loads(call("check", "backlog-sweep", "--repeat", "2", "--json").stdout)

    assert "30 runs, about 3 min" in enough.stdout
    assert "6 runs of each can tell any two cells apart" in enough.stdout
    assert "cannot tell: 7 repeats needed, 6 planned" in few.stdout
    assert (values["runs"], values["repeats_needed"], len(values["cells"])) == (10, 6, 5)


def test_a_job_gets_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is appended to the file that GitHub names; an unwritable file is not fatal."""
    (tmp_path / "summary.md").write_text("## it")
    page = tmp_path / "page.md"
    page.write_text("before\n")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    publish(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    publish(tmp_path)
    assert page.read_text() == "before\n## it\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    publish(tmp_path)


@pytest.mark.parametrize("name", ["scenario", "summary", "comparison", "inspect", "overview"])
def test_every_schema_is_printed(name: str) -> None:
    """Each schema is one JSON document."""
    assert json.loads(call("schema", name).stdout)["title"].startswith("loadsim ")


def test_rules_are_read_before_anything_else(tmp_path: Path) -> None:
    """A misspelled metric in --fail-on gets a suggestion and exit status 2."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    result = call("compare", "a", "b", "--out", str(tmp_path), "--fail-on", "accept.p9 +10%")
    assert (result.exit_code, "did you mean accept.p99?" in result.stderr) == (2, True)


def test_serve_refuses_a_sweep() -> None:
    """One server has one value of each setting."""
    result = call("serve", "backlog-sweep")
    assert (result.exit_code, "--set server.backlog=1" in result.stderr) == (2, True)


def test_without_a_browser_the_page_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over ssh and in a container no browser opens, but the address can be copied."""
    page = tmp_path / "report.html"
    page.write_text("<p>")
    said: list[str] = []
    monkeypatch.setattr(click, "echo", lambda text, **_: said.append(text))
    monkeypatch.setattr(click, "launch", lambda _: 1)
    open_page(page)
    monkeypatch.setattr(click, "launch", lambda _: 0)
    open_page(page)
    assert said == [f"loadsim: no browser could be started; open file://{page} yourself"]


def test_nan_is_not_a_smallest_effect() -> None:
    """It is refused, because no difference can be compared with it."""
    result = call("run", "backlog-sweep", "--min-effect", "nan")
    assert (result.exit_code, "nan is not a number: write a fraction from 0 to 1" in result.stderr) == (2, True)


def test_durations_need_a_unit() -> None:
    """A number without a unit, a word and a duration out of range are errors that name the right form."""
    typed = {
        "5": "5 has no unit: write 5s",
        "2.5": "2.5 has no unit: write 2.5s",
        "soon": '"soon" is not a duration: write a number with a unit, such as 10s or 250ms.',
        "1s": "1s is out of range: write a duration from 2s to 10min.",
    }
    for text, says in typed.items():
        result = call("verdict", "--at-limit", text, "--", "true", "{port}")
        assert (result.exit_code, says in " ".join(result.stderr.split())) == (2, True)


def test_durations_become_seconds() -> None:
    """Each unit of a scenario is a unit of the command line."""
    convert = partial(Duration("0s").convert, param=None, ctx=None)
    assert [convert(text) for text in ("250ms", "10s", "1.5 min", "0s")] == [0.25, 10.0, 90.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "quoted"),
    [
        (["--pid", "7"], "--pid 7"),
        (["--address", "127.0.0.1:0"], "--address 127.0.0.1:0"),
        (["--repeat", "3", "--set", "sweep.exclude=1"], None),
        (["--", "./my server", "{port}"], "COMMAND './my server' '{port}'"),
    ],
)
def test_an_error_quotes_the_option_that_was_typed(arguments: list[str], quoted: str | None) -> None:
    """It shows neither --set nor the key of the setting, because the user did not type them."""
    result = call("run", "healthy", "--set", "server.backlog=8", *arguments)
    assert result.exit_code == 2
    assert quoted is None or f"  {quoted}\n" in result.stderr
    assert ("--set server." in result.stderr.replace("--set server.backlog=8", "")) is False


def test_options_that_cannot_be_combined() -> None:
    """The sentence names both options, and nothing is started."""
    for arguments in (("--pid", "1"), ("--address", "127.0.0.1:80")):
        result = call("run", "healthy", *arguments, "--", "server")
        assert (result.exit_code, result.stderr) == (
            2,
            "loadsim: COMMAND cannot be combined with --pid or --address.\n",
        )


def completed(*arguments: str, incomplete: str = "") -> list[str]:
    """Return the completions that the shell offers for the next word."""
    complete = ShellComplete(main, {}, "loadsim", "_LOADSIM_COMPLETE")
    return [item.value for item in complete.get_completions(list(arguments), incomplete) if item.type == "plain"]


def test_shells_complete_names(tmp_path: Path) -> None:
    """Commands, scenarios, results (the newest first) and ids are completed; an unreadable folder has none."""
    for name in ("20260101T000000Z-a-0001", "20260102T000000Z-b-0002"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    results = ["latest", "20260102T000000Z-b-0002", "20260101T000000Z-a-0001"]
    out = ("--out", str(tmp_path))

    assert completed(incomplete="re") == ["report"]
    assert completed("run", incomplete="heal") == ["healthy"]
    assert completed("check", incomplete="too-") == ["too-many-open-files"]
    assert completed("report", *out) == results
    assert completed("compare", *out, "latest", incomplete="20260101") == results[2:]
    assert set(results) < set(completed("run", *out, "--resume"))
    assert completed("report", "--out", "x" * 300) == []
    assert completed("explain", incomplete="phan") == ["phantom-connections", "phantom"]
    assert {"fd-leak", "dropped", "reply_timeout", "accept.p99"} < set(completed("explain"))


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("bash", {"COMP_WORDS": "loadsim explain fd-l", "COMP_CWORD": "2"}),
        ("zsh", {"COMP_WORDS": "loadsim explain fd-l", "COMP_CWORD": "2"}),
        ("fish", {"COMP_WORDS": "loadsim explain", "COMP_CWORD": "fd-l"}),
    ],
)
def test_each_shell_gets_its_form(shell: str, words: dict[str, str]) -> None:
    """bash, zsh and fish ask the command itself, through an environment variable."""
    result = CliRunner(env={"_LOADSIM_COMPLETE": f"{shell}_complete", **words}).invoke(main, prog_name="loadsim")
    assert "fd-leak" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"manifest.json": "{}"}, "no status"),
        ({"manifest.json": "{}", "summary.json": '{"status": "HEALTHY"}'}, "HEALTHY"),
        ({"manifest.json": "{}", "summary.json": '{"status": 7}'}, "no status"),
        ({"verdict.json": "{}"}, "verdict"),
        ({"sweep.json": "[]"}, "no status"),
        ({"sweep.json": '{"labels": ["a b"], "order": [[0, 0], [0, 1]]}'}, "1 of 2 runs"),
        ({"sweep.json": '{"labels": ["a b"], "order": [[0, 0]]}'}, "1 runs"),
        ({"sweep.json": json.dumps({"labels": ["a b"], "order": [[0, 0]] * 86_401})}, "no status"),
    ],
)
def test_a_list_shows_the_status_of_each_result(files: dict[str, str], status: str, tmp_path: Path) -> None:
    """A run without a summary and a damaged one have none; a sweep counts its complete runs."""
    done = tmp_path / "it" / "runs" / "01-a-b-1"
    done.mkdir(parents=True)
    (done / "summary.json").write_text('{"complete": true}')
    for name, text in files.items():
        (tmp_path / "it" / name).write_text(text)
    last = call("list", "--out", str(tmp_path)).stdout.splitlines()[-1]
    assert last.rsplit(maxsplit=1) == [f"  {status}", "it"]

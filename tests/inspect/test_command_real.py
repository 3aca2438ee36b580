"""`loadsim inspect` on the command line: targets, filters, errors, JSON."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from inspected import ZOO, Running, running, wait_until
from jsonschema import Draft202012Validator

from loadsim.commands import main
from loadsim.inspect.document import overview_schema, process_schema
from loadsim.inspect.snapshot import take
from loadsim.inspect.targets import find

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.real

#: Takes a name and a number; sets its name and opens that many descriptors.
NAMED = """
import json, os, sys
with open("/proc/self/comm", "w") as comm: comm.write(sys.argv[1])
many = [os.open("/dev/null", os.O_RDONLY) for _ in range(int(sys.argv[2]))]
print(json.dumps({}), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def zoo(tmp_path: Path) -> Iterator[Running]:
    """Yield a server with sockets of every kind."""
    with running(ZOO, cwd=str(tmp_path)) as ready:
        wait_until(lambda: any(row.state == "CLOSE_WAIT" for row in take(ready.pid).rows))
        yield ready


def inspect(*arguments: str) -> Result:
    """Run `loadsim inspect` and return its result."""
    return CliRunner().invoke(main, ["inspect", *arguments], env={"COLUMNS": "100"}, catch_exceptions=False)


def test_the_documents_match_their_schemas(zoo: Running) -> None:
    """The JSON of one process and the JSON of the overview match their schemas."""
    for arguments, schema in (((str(zoo.pid),), process_schema()), ((), overview_schema())):
        result = inspect(*arguments, "--json")
        assert result.exit_code == 0
        assert [one.message for one in Draft202012Validator(schema).iter_errors(json.loads(result.stdout))] == []


def test_without_a_target_all_processes_are_listed(zoo: Running) -> None:
    """The overview lists every listener with its queue and holders, and processes by share of their limit."""
    overview = json.loads(inspect("--json").stdout)
    ours = {one["port"]: one for one in overview["listeners"]}
    queues = [(ours[port]["queue"], ours[port]["backlog"]) for port in zoo.report["ports"]]
    assert queues == [(2, 7), (1, 5), (0, 3)]
    assert {holder["pid"] for port in zoo.report["ports"] for holder in ours[port]["holders"]} == {zoo.pid}
    shares = [one["open_fds"] / one["soft"] for one in overview["processes"]]
    assert shares == sorted(shares, reverse=True)
    assert zoo.pid in [one["pid"] for one in overview["processes"]]
    text = inspect().stdout
    assert "PROCESSES by share of their limit" in text
    assert f":{zoo.report['ports'][0]}" in text


def test_a_name_selects_the_process_nearest_to_its_limit() -> None:
    """Part of a name finds all processes, nearest to their limit first; --exact matches only the full name."""
    with running(NAMED, "zebra-one", "5") as few, running(NAMED, "zebra-two", "50") as many:
        assert find("zebra").pids == [many.pid, few.pid]
        assert find("zebra-one", exact=True).pids == [few.pid]
        result = inspect("zebra", "--over", "0s")
        assert f"zebra-two[{many.pid}]" in result.stdout
        assert f"zebra matches 2 processes; this is the one nearest to its limit. Others: {few.pid}" in result.stderr
        assert inspect("zebra", "--exact").exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("no-such-name-here",), 3, 'no process is called "no-such-name-here"'),
        ((":99999",), 2, "is not a port: write a colon and 1 to 65535"),
        ((":http",), 2, "is not a port"),
        (("4194304000",), 3, "process 4194304000 does not exist: loadsim inspect lists all"),
        (("1", "--over", "soon"), 2, '"soon" is not a duration: write a number with a unit, such as 10s or 250ms'),
        (("1", "--watch", "--json"), 2, "--watch cannot be combined with --json or --save."),
        (("1", "--over", "5"), 2, "5 has no unit: write 5s"),
        (("1", "--for", "5s"), 2, "--for needs --watch."),
        (("--watch",), 2, "--watch and --save need a target"),
    ],
)
def test_errors_name_the_remedy(arguments: tuple[str, ...], code: int, says: str) -> None:
    """Each error names the argument, the mistake and the remedy."""
    result = inspect(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr


def test_a_port_without_a_listener() -> None:
    """The error names the command that waits for a listener."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    result = inspect(f":{port}")
    assert result.exit_code == 3
    assert f"loadsim inspect :{port} --watch waits for one" in result.stderr


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (("--state", "CLOSE_WAIT"), {"left", "half"}),
        (("--kind", "epoll"), {"epoll"}),
        (("--kind", "UDP"), {"udp"}),
        (("--state", "QUEUED"), set()),
        (("--state", "LISTENING"), {"v4", "v6", "dual", "unix"}),
    ],
)
def test_rows_can_be_filtered(zoo: Running, choice: tuple[str, ...], names: set[str]) -> None:
    """--kind and --state filter the rows, in text and in JSON."""
    rows = json.loads(inspect(str(zoo.pid), *choice, "--json").stdout)["rows"]
    assert {row["fds"][0] for row in rows} == {zoo.report[name] for name in names}
    text = inspect(str(zoo.pid), *choice).stdout
    assert ("connected, in the accept queue" in text) == (choice == ("--state", "QUEUED"))


def test_all_rows_of_a_large_process() -> None:
    """A process with 40 descriptors or more gets a summary with its change; --fds lists each descriptor."""
    with running(NAMED, "zebra", "60") as ready:
        summary = inspect(str(ready.pid), "--over", "100ms").stdout
        assert "held by" in summary
        assert "±0" in summary
        assert "/dev/null" not in summary
        assert "device /dev/null (also fd " in inspect(str(ready.pid), "--fds", "--over", "0s").stdout

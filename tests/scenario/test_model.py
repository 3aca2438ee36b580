"""The typed scenario: ranges, contradictions, and both conversions to plain values."""

from __future__ import annotations

import math
import re
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loadsim.exchange import Exchange
from loadsim.scenario.fields import Ramp, show_duration, show_rate
from loadsim.scenario.model import Scenario
from loadsim.scenario.sweep import schema as json_schema
from loadsim.scenario.thresholds import parse
from loadsim.scenario.toml import load_text, to_toml
from loadsim.units import parse_duration, parse_rate

OPEN = {"rate": "200/s"}
HERE = "127.0.0.1:80"


def scenario(**tables: Any) -> Scenario:  # noqa: ANN401 -- the tables of a file hold anything
    """Return a scenario of an open loop with these tables."""
    return Scenario.model_validate({"client": OPEN, **tables})


def complaints(**tables: Any) -> list[tuple[str, str]]:  # noqa: ANN401 -- as above
    """Return place and message of every error in these tables."""
    with pytest.raises(ValidationError) as caught:
        scenario(**tables)
    return [(".".join(map(str, error["loc"])), error["msg"]) for error in caught.value.errors()]


@pytest.mark.parametrize(
    ("table", "key", "bad"),
    [
        ("server", "backlog", [-1, 2**31, 1.0, "8", True]),
        ("server", "nofile", [0, 2**30 + 1, 64.0]),
        ("server", "leak", [-0.1, 1.1, math.nan, math.inf, "1", False]),
        ("server", "extra_fds", [-1, 1001]),
        ("server", "close_after", ["25h", "server", 3, "-1s"]),
        ("server", "pause_every", ["0s"]),
        ("server", "emfile_delay", ["0ms"]),
        ("server", "idle_threads", [65]),
        ("server", "prewarm_fds", [2**20 + 1]),
        ("server", "command", [[], [""], "nginx", ["x", 1], ["a\0"]]),
        ("client", "path", ["", "x", "/a b", "/\r\n", 1]),
        ("client", "rate", ["0/s", "1001/ms", 200, "200", "fast", None, True]),
        ("client", "max_in_flight", [0, 1_000_001]),
        ("client", "duration", ["0s", "1441min", 3]),
        ("client", "connect_timeout", ["0s", "61min"]),
        ("client", "processes", [0, 65]),
        ("client", "sources", [0, 65_001]),
        ("client", "exchange", ["https", 1]),
        ("network", "address", ["10.0.0.1", "0.0.0.0", "localhost", "", 1]),  # noqa: S104 -- refused
        ("network", "port", [-1, 65_536]),
        ("sysctl", "net.core.somaxconn", [True, 1.5, "", " ", "a\nb\0", "x" * 201, []]),
        ("sysctl", "vm.swappiness", [1]),
        ("sysctl", "net..core", [1]),
        ("sysctl", "net.core", [1]),
        ("thresholds", "expect", ["emfile.count > 0", [3], ["emfile.count > 0", "x"]]),
    ],
)
def test_values_out_of_range_or_of_another_type_are_refused(table: str, key: str, bad: list[object]) -> None:
    """Every key has its range, and nothing is converted silently."""
    base = OPEN if table == "client" else {}
    for value in bad:
        places = [place for place, _ in complaints(**{table: {**base, key: value}})]
        assert places, value
        assert all(place.startswith((f"{table}.{key}", table)) for place in places), value


@pytest.mark.parametrize(
    ("key", "value"), [("seed", -1), ("seed", 2**63), ("name", "a/b"), ("name", ""), ("schema", 2), ("schema", "1")]
)
def test_the_top_level_has_ranges_too(key: str, value: object) -> None:
    """A name can be part of the name of a folder, and a seed fits into 63 bits."""
    assert [key] == [place for place, _ in complaints(**{key: value})]


@pytest.mark.parametrize(
    ("tables", "place", "says"),
    [
        ({"client": {}}, "client", "no key sets how clients arrive"),
        ({"client": {"rate": "1/s", "clients": 5}}, "client.clients", "rate and clients exclude each other"),
        (
            {"client": {**OPEN, "request": "half", "hold": "1s"}},
            "client.request",
            'exchange = "hello" has no',
        ),
        (
            {"client": {**OPEN, "request": "none", "exchange": "none", "hold": "1s"}},
            "client.request",
            'exchange = "none"',
        ),
        ({"client": {**OPEN, "exchange": "raw"}}, "client.exchange", 'exchange = "raw" has no request of its own'),
        ({"client": {**OPEN, "send": "PING"}}, "client.send", 'send belongs to exchange = "raw"'),
        ({"client": {**OPEN, "exchange": "http", "expect": "H"}}, "client.expect", "expect belongs to exchange"),
        ({"client": {**OPEN, "request": "half", "exchange": "http"}}, "client.request", "a client that sends half of"),
        ({"client": {"rate": "1/s", "stages": [{"for": "1s", "rate": "1/s"}]}}, "client.stages", "rate and stages"),
        ({"client": {"clients": 1, "stages": [{"for": "1s", "rate": "1/s"}]}}, "client.clients", "stages and clients"),
        ({"client": {"rate": "1/s", "duration": "1s", "attempts": 5}}, "client.attempts", "duration and attempts"),
        ({"client": {"stages": [{"for": "1s", "rate": "1/s"}], "duration": "1s"}}, "client.duration", "stages and dur"),
        ({"client": {"stages": [{"for": "1s", "rate": "1/s"}], "attempts": 1}}, "client.attempts", "stages and attem"),
        ({"client": {"stages": [{"for": "1s", "rate": "0/s"}]}}, "client.stages", "this plans no attempt at all"),
        ({"client": {"stages": []}}, "client.stages", "stages are 1 to 1,000 tables"),
        ({"client": {"rate": "1000/ms", "duration": "1min"}}, "client.duration", "this plans 60,000,000 attempts"),
        ({"client": {"clients": 5, "arrivals": "poisson"}}, "client.arrivals", "a closed loop has no arrivals"),
        ({"client": {"clients": 2, "processes": 3}}, "client.processes", "2 clients cannot be shared by 3"),
        ({"client": {"clients": 5, "max_in_flight": 4}}, "client.max_in_flight", "5 clients may be in flight"),
        ({"server": {"pause": "500ms"}}, "server.pause", "the server would never accept"),
        ({"server": {"leak": 0.5, "leak_of": "extra"}}, "server.leak_of", "nothing would leak"),
        ({"server": {"command": ["x", "{port}"], "backlog": 5}}, "server.backlog", "backlog is a setting of the sim"),
        ({"server": {"command": ["x"]}}, "server.command", "the port of this command is unknown"),
        ({"server": {"start_timeout": "5s"}}, "server.start_timeout", "start_timeout belongs to a command"),
        ({"server": {"command": ["x", "{port}"]}, "sysctl": {"net.core.somaxconn": 5}}, "network.namespace", "sysctls"),
        ({"sysctl": {"net.core.somaxconn": 5}, "network": {"namespace": "host"}}, "network.namespace", "sysctls are"),
        ({"client": {**OPEN, "sources": 2}, "network": {"address": "::1"}}, "client.sources", "several source"),
        ({"server": {"pid": 7, "nofile": 64}}, "server.nofile", "the limits of a running server are read, never set"),
        ({"server": {"address": HERE, "backlog": 8}}, "server.backlog", "backlog is a setting of the simulated"),
        ({"server": {"pid": 7, "start_timeout": "1s"}}, "server.start_timeout", "start_timeout belongs to a command"),
        ({"server": {"pid": 7, "command": ["x", "{port}"]}}, "server.pid", "command and pid exclude each other"),
        ({"server": {"address": HERE, "command": ["x", "{port}"]}}, "server.address", "command and address exclude"),
        (
            {"server": {"pid": 7}, "network": {"namespace": "private"}},
            "network.namespace",
            "a running server cannot move",
        ),
        ({"server": {"pid": 7}, "network": {"port": 80}}, "network.port", "a running server already has its port"),
        (
            {"server": {"pid": 7}, "network": {"address": "::1"}},
            "network.address",
            "a running server already has its address",
        ),
        ({"server": {"pid": 7}, "timeline": {"steps": [{"at": "1s", "nofile": 8}]}}, "timeline.steps", "the limits of"),
        ({"server": {"pid": 7}, "timeline": {"steps": [{"at": "1s", "backlog": 8}]}}, "timeline.steps", "only the sim"),
        ({"server": {"address": "[::1]:80"}, "canary": {}}, "network.address", "the canary has its own source address"),
        ({"server": {"address": "10.0.0.1:80"}, "client": {**OPEN, "sources": 2}}, "client.sources", "several source"),
    ],
)
def test_contradictions_are_refused(tables: dict[str, Any], place: str, says: str) -> None:
    """Settings that make each other meaningless are an error, not a surprise."""
    [(at, message)] = complaints(**tables)

    assert at == place
    assert message.startswith(says)


@pytest.mark.parametrize(
    "bad",
    ["", "80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "localhost:80", "::1:80", "[127.0.0.1]:80",
     "0.0.0.0:80", "[::]:80", "224.0.0.1:80", ":80", "[fe80::1%eth0]:80"],
)  # fmt: skip
def test_the_address_of_a_running_server_is_one_that_clients_can_connect_to(bad: str) -> None:
    """It is numeric, because a name could later send the load to another host."""
    assert [place for place, _ in complaints(server={"address": bad})] == ["server.address"]


def test_a_running_server_has_only_the_settings_that_locate_it() -> None:
    """Its namespace is that of the host, and its TOML reads back as the same scenario."""
    made = scenario(server={"pid": 7, "address": "[::1]:80"}, timeline={"steps": [{"at": "1s", "release": 1.0}]})

    assert made.settings()["server"] == {"pid": 7, "address": "[::1]:80"}
    assert (made.network.namespace, made.destination, made.server.is_simulated) == ("host", "::1", False)
    assert Scenario.model_validate(tomllib.loads(to_toml(made))) == made


def test_contradictions_are_reported_beside_the_errors_of_single_keys() -> None:
    """All errors are reported together."""
    places = [place for place, _ in complaints(client={"rate": "1", "clients": 0, "hold": 3}, server={"pause": "1s"})]

    assert places == ["server.pause", "client.rate", "client.clients", "client.hold", "client.clients"]


def test_more_clients_than_the_default_stop_are_no_contradiction() -> None:
    """The default of `max_in_flight` follows the number of clients."""
    assert scenario(client={"clients": 30_000}).client.max_in_flight == 30_000


def test_a_parsed_threshold_can_be_given_by_code() -> None:
    """As well as its text."""
    [kept] = scenario(thresholds={"expect": (parse("emfile.count > 0"),)}).thresholds.expect

    assert kept == parse("emfile.count > 0")


def test_a_scenario_cannot_be_changed() -> None:
    """What was validated stays so."""
    with pytest.raises(ValidationError, match="frozen"):
        scenario().server.backlog = 5


def test_settings_are_plain_values_under_the_names_of_the_file() -> None:
    """Seconds and rates per second are floats, what is absent is None, a ramp has two ends."""
    stages = [{"for": "5s", "rate": "60/min"}, {"for": "500ms", "rate": "50/s..500/s"}]
    settings = scenario(
        client={"stages": stages, "exchange": "echo"},
        server={"close_after": "client", "accept_delay": "10ms"},
        sysctl={"net": {"core": {"somaxconn": 7}}},
        thresholds={"expect": ["emfile.count>0"]},
    ).settings()

    assert settings["schema"] == 1
    assert settings["client"]["stages"] == [{"for": 5.0, "rate": [1.0, 1.0]}, {"for": 0.5, "rate": [50.0, 500.0]}]
    assert (settings["client"]["rate"], settings["client"]["exchange"]) == (None, "echo")
    assert (settings["server"]["close_after"], settings["server"]["accept_delay"]) == (None, 0.01)
    assert settings["sysctl"] == {"net.core.somaxconn": "7"}
    assert settings["thresholds"] == {"expect": ["emfile.count>0"], "abort": []}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TIMES = st.floats(1e-9, 86_400).map(show_duration)
RATES = st.floats(1e-3, 1e5).map(show_rate)
SERVERS = st.fixed_dictionaries(
    {},
    optional={
        "backlog": st.integers(0, 2**31 - 1),
        "nofile": st.integers(1, 2**30),
        "leak": st.floats(0, 1),
        "close_after": st.one_of(st.just("client"), TIMES),
        "accept_delay": TIMES,
        "on_emfile": st.sampled_from(["sleep", "exit"]),
    },
)
CLIENTS = st.one_of(
    st.fixed_dictionaries({"rate": RATES, "attempts": st.integers(1, 10**6)}, optional={"hold": TIMES}),
    st.fixed_dictionaries(
        {"clients": st.integers(1, 10**6)}, optional={"exchange": st.sampled_from(list(Exchange)[:4])}
    ),
    st.fixed_dictionaries(
        {"rate": RATES, "exchange": st.just("raw"), "send": TEXT.filter(bool)}, optional={"expect": TEXT}
    ),
    st.fixed_dictionaries(
        {
            "stages": st.lists(
                st.fixed_dictionaries({"for": st.just("1.5s"), "rate": st.tuples(RATES, RATES).map("..".join)}),
                min_size=1,
                max_size=3,
            )
        }
    ),
)


@settings(deadline=None)  # other tests may have the CPU
@given(
    tables=st.fixed_dictionaries(
        {
            "server": SERVERS,
            "client": CLIENTS,
            "description": TEXT,
            "sysctl": st.dictionaries(st.sampled_from(["net.core.somaxconn", "net.ipv4.tcp_rmem"]), st.integers(0, 9)),
            "thresholds": st.fixed_dictionaries(
                {"expect": st.lists(st.sampled_from(["emfile.count > 0", "accept.p99 < 50ms"]), max_size=2)}
            ),
        }
    )
)
def test_a_resolved_scenario_reads_back_as_the_same(tables: dict[str, Any]) -> None:
    """`scenario.resolved.toml` runs again what was run, to the last bit of every duration."""
    before = Scenario.model_validate(tables)

    assert Scenario.model_validate(tomllib.loads(to_toml(before))) == before


def test_a_description_may_hold_any_character() -> None:
    """Control characters are escaped, DEL included."""
    before = scenario(description='\x7f\x00\t\n"\\\N{BLACK HEART SUIT}')

    assert Scenario.model_validate(tomllib.loads(to_toml(before))) == before


@settings(deadline=None)  # other tests may have the CPU
@given(st.floats(0, 86_400), st.floats(0, 1e6))
def test_quantities_are_spelled_exactly(seconds: float, per_second: float) -> None:
    """No digit is lost on the way to TOML and back."""
    assert parse_duration(show_duration(seconds)) == seconds
    assert parse_rate(show_rate(per_second)) == per_second


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.25, "250ms"), (3600.0, "1h"), (90.0, "90s"), (0.0015, "1500us"), (1e-9, "1ns")],
)
def test_quantities_are_spelled_as_people_write_them(seconds: float, text: str) -> None:
    """A whole number of the largest unit."""
    assert show_duration(seconds) == text


def test_the_schema_describes_a_file_as_it_is_written() -> None:
    """Durations are text with a unit, unknown keys are refused, and `extends` is known."""
    schema = json_schema()
    client = schema["$defs"]["Client"]

    assert {"schema", "extends", "server", "client", "sysctl", "network", "thresholds"} <= set(schema["properties"])
    assert (schema["additionalProperties"], client["additionalProperties"]) == (False, False)
    assert client["properties"]["hold"] == {
        "default": "0s",
        "description": "Time for which a client keeps its connection after the reply, or after connecting without one.",
        "pattern": r"^\s*\d+(_\d+)*(\.\d+)?\s*(ns|us|µs|ms|s|min|h)\s*$",
        "title": "Hold",
        "type": "string",
    }
    assert {"const": "client"} in schema["$defs"]["Server"]["properties"]["close_after"]["anyOf"]


def test_every_key_is_described() -> None:
    """`loadsim schema` and editors have a sentence for each."""
    schema = json_schema()
    tables = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]

    assert [key for table in tables for key, value in table["properties"].items() if "description" not in value] == []


def test_a_ramp_is_a_pair_of_rates() -> None:
    """A single rate is a ramp between equal rates."""
    stages = scenario(
        client={"stages": [{"for": "1s", "rate": "5/s"}, {"for": "1s", "rate": "0/s .. 5/s"}]}
    ).client.stages

    assert stages is not None
    assert [stage.rate for stage in stages] == [Ramp(5.0, 5.0), Ramp(0.0, 5.0)]


def test_abort_names_only_what_is_known_while_a_run_goes_on() -> None:
    """A percentile exists only at the end, so a threshold on it could never end a run."""
    ((place, says),) = complaints(thresholds={"abort": ["accept.p99 > 1s"]})
    assert place == "thresholds.abort"
    assert says.startswith("accept.p99 is not known during a run; abort can use attempts.count, ")
    assert scenario(thresholds={"abort": ["emfile.count > 9"]}).thresholds.abort[0].value == 9


def test_a_command_runs_on_the_host_unless_asked_otherwise() -> None:
    """Its network namespace is the host's by default, as a real server's would be."""
    command = {"command": ["x", "{port}"]}
    assert scenario(server=command).network.namespace == "host"
    assert scenario(server=command, network={"port": 80}).network.namespace == "host"
    assert scenario(server=command, network={"namespace": "private"}).network.namespace == "private"
    assert scenario().network.namespace == "private"


def test_settings_are_those_of_the_kind_of_server() -> None:
    """A command has none of the simulated server's, and reading them back gives the same scenario."""
    command = scenario(server={"command": ["x", "{port}"], "nofile": 64})
    assert set(command.settings()["server"]) == {"command", "nofile", "start_timeout"}
    assert not {"command", "start_timeout"} & set(scenario().settings()["server"])
    assert load_text(to_toml(command)) == command


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("net.core.somaxconn", "abc", "net.core.somaxconn is a number of 0 or more, found abc"),
        ("net.core.somaxconn", -1, "net.core.somaxconn is a number of 0 or more, found -1"),
        ("net.ipv4.ip_local_port_range", "40000", 'is two port numbers, such as "1024 65535", found 40000'),
        ("net.ipv4.ip_local_port_range", "50000 40000", "the first port of net.ipv4.ip_local_port_range is above"),
    ],
)
def test_a_sysctl_that_no_plan_can_compute_with_is_an_error(name: str, value: object, says: str) -> None:
    """A number that is none is reported before anything is planned."""
    with pytest.raises(ValidationError, match=re.escape(says)):
        Scenario.model_validate({"client": {"rate": "10/s"}, "sysctl": {name: value}})

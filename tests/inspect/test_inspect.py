"""What a look at a process means: groups, suspects, remedies, lessons, events, and how all of it is shown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from inspect_samples import file, identity, incident, listener, look, netcats, tcp
from jsonschema import Draft202012Validator
from report_samples import golden

from loadsim.inspect.diagnosis import by_hand, closing, growth, lessons, more_than, remedies, suspects
from loadsim.inspect.document import document, overview_schema, process_schema
from loadsim.inspect.groups import Choice, groups_of
from loadsim.inspect.incident import incident as incident_of
from loadsim.inspect.incident import to_toml
from loadsim.inspect.model import OtherEnd, Row, Snapshot
from loadsim.inspect.text import render
from loadsim.inspect.watch import Trend, events
from loadsim.kernel.processes import Holder, parse_unit
from loadsim.kernel.sockets import unix_name
from loadsim.render.drawing import Terminal
from loadsim.scenario.toml import load_text


def page(now: Snapshot, before: Snapshot | None = None, *, width: int = 80, unicode: bool = True) -> str:
    """Return what a terminal of this width shows."""
    shown = Terminal(width=width, color=False, unicode=unicode)
    return render(now, before, shown, choice=Choice())


def two_looks() -> tuple[Snapshot, Snapshot]:
    """Return an incident now, and the look two seconds before."""
    return replace(incident(), at_s=2.0), incident(779)


@pytest.mark.parametrize("width", [80, 120])
def test_an_incident_looks_as_it_should(width: int) -> None:
    """The summary of a service at its limit, in both widths."""
    text = page(*two_looks(), width=width)
    assert golden(f"inspect-incident-{width}.txt", text) == text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_five_netcats_look_as_they_should(width: int) -> None:
    """The rows of a small process, those in its queue, and those outside."""
    text = page(netcats(), width=width)
    assert golden(f"inspect-netcats-{width}.txt", text) == text
    assert max(map(len, text.splitlines())) <= width


def test_ascii_says_the_same() -> None:
    """A terminal without Unicode gets every word."""
    text = page(netcats(), unicode=False)
    assert text.isascii()
    words = page(netcats()).replace("<──>", "<-->").replace("──x", "--x").replace("·", "-").split()
    assert text.split() == words


def test_colour_adds_nothing_but_colour() -> None:
    """Without its escapes the coloured text is the plain one."""
    now, before = two_looks()
    coloured = render(now, before, Terminal(width=80, color=True, unicode=True), choice=Choice())
    plain = page(now, before)
    for code in ("0", "1", "2", "31", "32", "33", "36", "1;31"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert [line.rstrip() for line in coloured.splitlines()] == plain.splitlines()


def test_groups_add_up() -> None:
    """All groups together are all descriptors, and their changes are the change."""
    now, before = two_looks()
    groups = groups_of(now, before)
    assert sum(group.fds for group in groups) == now.open_fds
    assert sum(group.change or 0 for group in groups) == now.open_fds - before.open_fds


def test_many_peers_are_folded() -> None:
    """A process with 300 peers has a dozen groups and one for the rest, which still add up."""
    rows = [tcp(i, remote=f"10.1.{i}.1:80") for i in range(300)]
    groups = groups_of(look(rows), look(rows[:200]))
    assert len(groups) == 13
    assert sum(group.fds for group in groups) == 300
    assert sum(group.change or 0 for group in groups) == 100


def test_a_group_that_is_gone_shows_as_a_change() -> None:
    """What was closed between two looks is not forgotten."""
    before = look([tcp(3), tcp(4, remote="10.0.0.1:6379")])
    after = look([tcp(3)])
    assert sum(group.change or 0 for group in groups_of(after, before)) == -1


def test_a_leak_is_named_with_its_peer_and_age() -> None:
    """Connections that the other side closed are the first suspect."""
    now, before = two_looks()
    first = suspects(now, groups_of(now, before))[0]
    assert first.leaks
    assert "781 connections to 10.0.3.7:5432 were closed by the other side and never by checkout-api" in first.sentence
    assert "the oldest idle for 14 h" in first.sentence


def test_a_few_that_are_about_to_be_closed_are_no_leak() -> None:
    """Two connections in CLOSE_WAIT that do not grow are on their way."""
    now = look([tcp(3, "CLOSE_WAIT"), tcp(4, "CLOSE_WAIT")])
    assert suspects(now, groups_of(now, now)) == []
    assert remedies(now, None, []) == []


def test_a_crowd_is_no_leak() -> None:
    """A limit nearly used up by connections in use is named as that, with the remedies."""
    now = look([tcp(fd) for fd in range(60)], soft=64)
    found = suspects(now, groups_of(now, now))
    assert [one.leaks for one in found] == [False]
    assert "(4 left), mostly by TCP ESTABLISHED to 10.0.3.7:5432: 60" in found[0].sentence
    assert [when for when, _ in remedies(now, None, found)] == ["NOW", "LATER", "NOT"]


def test_remedies_name_pid_limit_time_and_unit() -> None:
    """NOW buys time and says how much, LATER is for the unit, NOT rules the machine out."""
    now, before = two_looks()
    found = remedies(now, growth(before, now), suspects(now, groups_of(now, before)))
    texts = dict(found)
    assert texts["NOW"].startswith("sudo prlimit --pid 4242 --nofile=8192:524288 (about 1 h 59 min at 1.0/s")
    assert "systemctl edit checkout-api.service -> [Service] LimitNOFILE=8192" in texts["LATER"]
    assert "fs.file-nr 9,120" in texts["NOT"]
    assert "inotify (12 of 128 instances)" in texts["NOT"]


@pytest.mark.parametrize(("limit", "asked"), [(64, 1024), (1024, 8192), (1000, 8192), (1_048_576, 8_388_608)])
def test_the_next_limit(limit: int, asked: int) -> None:
    """Eight times as much, as a power of two, and 1,024 at least."""
    assert more_than(limit) == asked


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (listener(3, 80), "frees port 80"),
        (listener(3, 80, queued=1, recv_q=1), "frees port 80 and resets the one that waits"),
        (
            listener(3, 80, queued=7, recv_q=7, rivals=1),
            "leaves port 80 to 1 other listener and resets the 7 that wait",
        ),
        (tcp(3), "ends the connection"),
        (tcp(3, recv_q=12), "ends the connection, by RST: 12 bytes unread"),
        (tcp(3, others=(Holder(7, "nc", 3),)), "ends nothing yet: 1 more holder found"),
        (tcp(3, fds=(3, 4, 5)), "ends nothing yet: 2 more holders found"),
        (tcp(3, "CLOSE_WAIT"), "gives the descriptor back: the other side has left already"),
        (file(3, "/tmp/x (deleted)", held_bytes=4000), "frees 4 kB"),  # noqa: S108 - never opened
        (file(3, "/etc/hosts"), ""),
        (Row(fds=(), inode=0, kind="TCP", role="QUEUED"), ""),
    ],
)
def test_what_closing_does(row: Row, says: str) -> None:
    """Frees a port and resets who waits, ends a connection, or nothing yet."""
    assert closing(row) == says


def test_lessons_teach_what_is_there() -> None:
    """Two to five sentences, and those about what is on the screen."""
    taught = lessons(netcats())
    assert 2 <= len(taught) <= 5
    text = " ".join(taught)
    assert "fd 3 is the door, fd 4 is one guest" in text
    assert "inode 12134646 here, 12159488 at the other end" in text
    assert "listen(fd, 1) holds 2 (backlog + 1)" in text
    assert "close(3) frees port 9999 and resets the 2 that wait; fd 4 lives on" in text
    assert lessons(look([])) != []


def test_by_hand_names_the_three_commands() -> None:
    """The commands are those that show the same, entered where the process is."""
    assert by_hand(netcats(), None) == [
        "ls -l /proc/3211711/fd",
        "ss -tanpe 'sport = :9999 or dport = :9999'",
        "lsof -nPi :9999",
    ]
    assert by_hand(replace(netcats(), enter="nsenter -t 3211711 -n"), None)[1].startswith("nsenter -t 3211711 -n ss ")
    assert by_hand(incident(), None)[1] == "ss -tanpe | grep pid=4242,"


def test_events_are_what_happened() -> None:
    """Opened, closed, changed, a queue that grew, the limit reached: each once."""
    door = listener(3, 80)
    before = look([door, tcp(4, local_port=80), file(5, "/etc/hosts")], soft=5)
    grown = replace(door, recv_q=3)
    now = look([grown, tcp(4, "CLOSE_WAIT", local_port=80), tcp(5), tcp(6), file(0, "/dev/null", fds=(0, 1))], soft=5)
    happened = [(one.kind, one.fd) for one in events(before, now)]
    assert happened == [
        ("closed", 5),
        ("changed", 4),
        ("opened", 5),
        ("opened", 6),
        ("opened", 0),
        ("opened", 1),
        ("queue", 3),
    ]
    full = look([door, *(tcp(fd) for fd in (0, 1, 2, 4))], soft=5)
    assert [one.kind for one in events(before, full)][-1] == "limit"
    assert [one.kind for one in events(full, before)][-1] == "relief"
    assert events(now, now) == []


def test_a_number_given_out_again_is_two_events() -> None:
    """Another inode under the same number is another descriptor."""
    before, now = look([tcp(4, inode=1)]), look([tcp(4, inode=2)])
    assert [(one.kind, one.fd) for one in events(before, now)] == [("closed", 4), ("opened", 4)]


def test_the_pace_begins_with_the_growth() -> None:
    """A process that was quiet for a while and then leaks ten a second is full when it will be."""
    trend = Trend()
    for step in range(20):
        trend.add(step * 0.2, 6)
    assert (pace := trend.pace(58)) is not None
    assert (round(pace.per_s, 3), pace.left_s) == (0.0, None)
    for step in range(1, 11):
        trend.add(3.8 + step * 0.2, 6 + 2 * step)
    pace = trend.pace(38)
    assert pace is not None
    assert pace.left_s == pytest.approx(3.8, rel=0.1)
    assert Trend().pace(1) is None


@pytest.mark.parametrize(
    ("choice", "fds"),
    [
        (Choice(kind="tcp"), [3, 4]),
        (Choice(kind="socket"), [3, 4]),
        (Choice(kind="terminal"), [0]),
        (Choice(state="close-wait"), []),
        (Choice(state="established"), [4]),
        (Choice(state="LISTENING"), [3]),
        (Choice(port=39010), []),
        (Choice(port=9999), [3, 4]),
        (Choice(sort="queue"), [3, 0, 4]),
        (Choice(sort="idle"), [4, 0, 3]),
    ],
)
def test_rows_are_chosen_and_ordered(choice: Choice, fds: list[int]) -> None:
    """By kind, by state or role in either spelling, by port at either end; in any order."""
    assert [row.fds[0] for row in choice.of(netcats().rows)] == fds


@pytest.mark.parametrize("now", [incident(), netcats(), look([])])
def test_the_document_is_as_its_schema_says(now: Snapshot) -> None:
    """`--json` prints what the schema describes, and nothing else."""
    for before in (None, replace(now, at_s=-2.0)):
        made = json.loads(json.dumps(document(now, before, Choice())))
        Draft202012Validator.check_schema(process_schema())
        assert [error.message for error in Draft202012Validator(process_schema()).iter_errors(made)] == []
    Draft202012Validator.check_schema(overview_schema())


def test_the_document_says_what_closing_does() -> None:
    """The rows of the document carry it as a field."""
    rows = document(netcats(), None, Choice(sort="fd"))["rows"]
    assert rows[1]["closing"] == "frees port 9999 and resets the 2 that wait"


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", "x.service"),
        ("12:pids:/system.slice/docker-4f.scope\n0::/\n", "docker-4f.scope"),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_the_unit_is_the_innermost_of_the_cgroup(cgroup: str, unit: str) -> None:
    """A service, a scope, or none."""
    assert parse_unit(cgroup) == unit


@pytest.mark.parametrize(
    ("raw", "name"), [(b"/run/x.sock\0", "/run/x.sock"), (b"\0abs", "@abs"), (b"\0a\0b", "@a@b"), (b"\xff", "\\xff")]
)
def test_unix_names(raw: bytes, name: str) -> None:
    """A path ends at its zero byte, an abstract name begins with one."""
    assert unix_name(raw) == name


def test_names_by_which_a_process_is_found() -> None:
    """comm, argv[0] with and without folder, the unit with and without its suffix."""
    called = identity(argv=("/usr/bin/python3", "-m", "x"), unit="api.service", name="python3").called
    assert called == {"python3", "/usr/bin/python3", "api.service", "api"}


def test_a_phantom_has_no_other_end() -> None:
    """A connection to this machine without a socket at its other end says so."""
    now = look([tcp(4, remote="127.0.0.1:9", remote_port=9, other=OtherEnd(where="none"))])
    assert "no socket at the other end" in page(now)


def grown(leaked: int, *, other_listeners: int, opens: int) -> list[Snapshot]:
    """Return two looks, two seconds apart, between which so many connections stayed and so many came in."""
    left = [
        tcp(10 + i, "CLOSE_WAIT", local_port=8080, remote=f"10.0.0.1:{i + 1}", idle_s=9.0 - i) for i in range(leaked)
    ]
    first = look([listener(3, 8080)], soft=64, other_listeners=other_listeners)
    last = look([listener(3, 8080), *left], soft=64, other_listeners=other_listeners)
    return [first, replace(last, at_s=2.0, passive_opens=opens)]


@pytest.mark.parametrize(("other_listeners", "leak"), [(0, 0.25), (1, 1.0)])
def test_the_share_that_leaks(other_listeners: int, leak: float) -> None:
    """Handshakes of the namespace are those of a process that listens alone there; else what was found is all."""
    found = incident_of(grown(10, other_listeners=other_listeners, opens=40), 11)
    assert (found.leak, found.leak_of, found.growth_per_s) == (leak, "connection", 5.0)
    assert found.backlog == 128


def test_growth_from_the_age_of_what_was_left() -> None:
    """A process at rest at its limit tells by idle times how fast it came there."""
    now = grown(9, other_listeners=1, opens=0)[1]
    found = incident_of([replace(now, at_s=0.0), now], 11)
    assert found.growth_per_s == pytest.approx(1.0)
    assert "nobody got in meanwhile" in to_toml(found, now, {}, 11)


def test_what_leaks_besides_connections() -> None:
    """Files, and connections that the process made itself, leak as extras of a request."""
    before = look([listener(3, 80)])
    files = [file(10 + i, f"/srv/{i}") for i in range(6)]
    found = incident_of([before, replace(look([listener(3, 80), *files]), at_s=2.0, passive_opens=12)], 11)
    assert (found.leak_of, found.leak) == ("extra", 0.5)
    text = to_toml(found, before, {"net.core.somaxconn": "4096", "net.ipv4.tcp_rmem": "1 2 3"}, 11)
    scenario = load_text(text)
    assert (scenario.server.extra_fds, scenario.server.leak_of) == (1, "extra")
    assert scenario.sysctl["net.ipv4.tcp_rmem"] == "1 2 3"


def test_names_do_not_break_the_file() -> None:
    """Whatever a process is called, the scenario can be read."""
    looks = grown(10, other_listeners=0, opens=10)
    for name in ('"]\n[x', "\x1b[31m", "", "\u202eabc"):
        now = replace(looks[1], process=identity(name=name, unit=f"{name}.service"))
        text = to_toml(incident_of(looks, 11), now, {}, 11)
        assert load_text(text).server.leak == 1.0
        assert text.isascii()
        assert {char for char in text if not char.isprintable()} == {"\n"}

"""Reading scenarios: merging, precedence, and the report of all errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsim.errors import ScenarioError
from loadsim.scenario.layers import Layer, merge, override
from loadsim.scenario.problems import places_in
from loadsim.scenario.shipped import shipped
from loadsim.scenario.toml import find, load, load_matrix, load_text

MINIMAL = '[client]\nrate = "200/s"\n'


class Write(Protocol):
    """Writes a scenario into an empty working directory and returns its name."""

    def __call__(self, text: str | bytes, name: str = ...) -> str:
        """Write it."""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a scenario into an empty working directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str | bytes, name: str = "it.toml") -> str:
        Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
        return name

    return write_file


def account(name: str, *overrides: str) -> str:
    """Return the text of the errors in a scenario."""
    with pytest.raises(ScenarioError) as caught:
        load(name, overrides)
    return str(caught.value)


def places(text: str) -> list[str]:
    """Return the first line of each problem in a text of errors."""
    return [block.split("\n")[0] for block in text.split("\n\n")[:-1]]


# values


def test_a_minimal_scenario_sets_only_how_clients_arrive(write: Write) -> None:
    """Everything else has a default, and the name is that of the file."""
    scenario = load(write(MINIMAL, "my first.toml"))

    assert (
        scenario.name,
        scenario.client.duration,
        scenario.client.rate,
        scenario.server.backlog,
        scenario.server.nofile,
        scenario.server.leak,
    ) == ("my-first", 3.0, 200.0, 128, None, 0.0)


def test_overrides_are_toml_if_possible_and_else_text(write: Write) -> None:
    """--set client.rate=5/s needs no quotes, --set thresholds.expect=[...] is an array."""
    scenario = load(
        write(MINIMAL),
        ["client.rate=5/s", "server.backlog = 8", 'name="x"', 'thresholds.expect=["emfile.count > 0"]'],
    )

    assert (scenario.client.rate, scenario.server.backlog, scenario.name) == (5.0, 8, "x")
    assert [each.text for each in scenario.thresholds.expect] == ["emfile.count > 0"]


def test_an_empty_override_removes_a_setting(write: Write) -> None:
    """An open loop can become a closed one from the command line."""
    scenario = load(write(MINIMAL), ["client.rate=", "client.clients=3"])

    assert (scenario.client.rate, scenario.client.clients) == (None, 3)


def test_sysctls_may_be_bare_or_quoted(write: Write) -> None:
    """Dotted names mean the same in both spellings, in files and overrides."""
    text = MINIMAL + '[sysctl]\nnet.core.somaxconn = 16\n"net.ipv4.tcp_syncookies" = 0\n'
    scenario = load(write(text), ["sysctl.net.core.somaxconn=99", "sysctl.'net.ipv4.tcp_syn_retries'=3"])

    expected = {"net.core.somaxconn": "99", "net.ipv4.tcp_syncookies": "0", "net.ipv4.tcp_syn_retries": "3"}
    assert expected == scenario.sysctl


def test_a_sysctl_can_be_removed_in_either_spelling(write: Write) -> None:
    """Bare and quoted names are one key, also across files and overrides."""
    name = write(MINIMAL + '[sysctl]\n"net.core.somaxconn" = 16\nnet.ipv4.tcp_syncookies = 0\n')

    assert load(name, ["sysctl.net.core.somaxconn=", 'sysctl."net.ipv4.tcp_syncookies"=']).sysctl == {}


def test_merging_leaves_the_layers_as_they_are() -> None:
    """Errors still need the layers to find the place of a setting."""
    layers = [override("server.backlog=5"), override("server.nofile=64")]
    kept = [layer for layer in layers if isinstance(layer, Layer)]

    assert merge(kept) == {"server": {"backlog": 5, "nofile": 64}}
    assert [layer.data for layer in kept] == [{"server": {"backlog": 5}}, {"server": {"nofile": 64}}]


def test_a_child_inherits_tables_and_replaces_arrays(write: Write) -> None:
    """Tables merge over several generations; arrays, names and descriptions are not passed on."""
    write('name = "g"\nseed = 9\n[server]\nbacklog = 5\nnofile = 77\n' + MINIMAL, "grand.toml")
    write('extends = "grand.toml"\ndescription = "p"\n[thresholds]\nexpect = ["fds.max > 1", "fds.max < 9"]', "p.toml")
    child = load(
        write('extends = "p.toml"\n[server]\nbacklog = 6\n[thresholds]\nexpect = ["emfile.count > 0"]', "c.toml")
    )

    assert (child.name, child.description, child.seed) == ("c", "", 9)
    assert (child.server.backlog, child.server.nofile, child.client.rate) == (6, 77, 200.0)
    assert [each.text for each in child.thresholds.expect] == ["emfile.count > 0"]


def test_a_parent_is_found_beside_its_child(write: Write) -> None:
    """`extends` is relative to the file that contains it, not to the working directory."""
    Path("deep").mkdir()
    write(MINIMAL, "deep/base.toml")

    assert load(write('extends = "base.toml"\n', "deep/child.toml")).client.rate == 200.0


@pytest.mark.parametrize("by_link", [False, True])
def test_a_parent_in_another_folder_needs_an_option(write: Write, *, by_link: bool) -> None:
    """This holds also for a link to another folder."""
    Path("here").mkdir()
    Path("here/link.toml").symlink_to(Path(write(MINIMAL, "base.toml")).resolve())
    child = write(f'extends = "{"link.toml" if by_link else "../base.toml"}"\n', "here/child.toml")

    with pytest.raises(ScenarioError, match=r"extends leaves the folder of the scenario: .*--allow-outside"):
        load(child)
    assert load_matrix(child, allow_outside=True).scenario.client.rate == 200.0


def test_a_shipped_scenario_can_be_a_parent(write: Write) -> None:
    """The name of the shipped scenario is enough."""
    assert load(write('extends = "too-many-open-files"\n')).server.nofile == 64


def test_an_empty_text_in_a_child_removes_a_setting_of_its_parent(write: Write) -> None:
    """The empty text stands for null, which TOML lacks."""
    write(MINIMAL, "base.toml")

    assert load(write('extends = "base.toml"\n[client]\nrate = ""\nclients = 5\n')).client.clients == 5


def test_a_file_wins_over_a_shipped_scenario_of_the_same_name(write: Write) -> None:
    """An installed scenario never hides a file of the user."""
    write(MINIMAL, "healthy")

    assert Path("healthy") == find("healthy")
    assert load("healthy").name == "healthy"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(write: Write) -> None:
    """Places are right in such files, too."""
    name = write(b'\xef\xbb\xbf[client]\r\nrate = "5/s"\r\nrat = 1\r\n')

    assert places(account(name)) == ["it.toml:3:1: unknown key rat in [client]"]


def test_shipped_scenarios_are_listed_with_a_description() -> None:
    """Each description is not empty."""
    assert {"healthy", "too-many-open-files"} <= {each.name for each in shipped()}
    assert [each.name for each in shipped() if not each.summary] == []


# errors


def test_everything_wrong_is_reported_at_once_with_place_caret_and_hint(write: Write) -> None:
    """The text covers an unknown key, a wrong type, a missing unit and an unknown value."""
    name = write(
        '[server]\nbacklg = 3\nnofile = "64"\non_emfile = "slep"   # oops\n\n[client]\nrate = 200\nexchange = "tls"\n'
    )

    expected = """\
it.toml:2:1: unknown key backlg in [server]
  2 | backlg = 3
    | ^^^^^^ did you mean backlog?

it.toml:3:10: server.nofile must be a whole number, found "64"
  3 | nofile = "64"
    |          ^^^^ did you mean 64?

it.toml:4:13: server.on_emfile must be one of "sleep", "backoff", "spin", "shed", "until_close", "exit", found "slep"
  4 | on_emfile = "slep"   # oops
    |             ^^^^^^ did you mean "sleep"?

it.toml:7:8: client.rate: a rate needs a number and a unit (/ms, /s, /min, /h), for example "200/s", found 200
  7 | rate = 200
    |        ^^^ did you mean "200/s"?

it.toml:8:12: client.exchange must be one of "none", "hello", "echo", "http", "raw", found "tls"
  8 | exchange = "tls"
    |            ^^^^^

5 errors; nothing was started"""
    assert expected == account(name)


def test_errors_of_an_override_point_into_its_text(write: Write) -> None:
    """The column counts in the argument of --set, and the caret is under it."""
    expected = """\
--set, column 8: unknown key backlg in [server]
  --set server.backlg=8
               ^^^^^^ did you mean backlog?

--set, column 15: client.rate: a rate needs a number and a unit (/ms, /s, /min, /h), for example "200/s", found "x"
  --set client.rate = x
                      ^

--set, column 1: an override is a key, an equals sign and a value, such as server.backlog=8
  --set client.rate
        ^^^^^^^^^^^

3 errors; nothing was started"""
    assert expected == account(write(MINIMAL), "server.backlg=8", "client.rate = x", "client.rate")


def test_contradictions_point_at_the_last_setting_and_name_the_other_place(write: Write) -> None:
    """The error points at an override that contradicts the file, and names the place in the file."""
    expected = """\
--set, column 8: rate and clients exclude each other: an open loop has a rate, a closed loop has clients
  --set client.clients=3
               ^^^^^^^
        = rate is set at it.toml:2:1

1 error; nothing was started"""
    assert expected == account(write(MINIMAL), "client.clients=3")
    closed = write("[client]\nclients = 3\n", "closed.toml")
    assert account(closed, "client.rate=5/s").startswith("--set, column 8: rate and clients exclude each other")


def test_a_problem_of_a_parent_is_shown_in_the_parent(write: Write) -> None:
    """Each place is in the file with the setting; the eldest file comes first."""
    write("[server]\nbacklog = -1\n[client]\nhold = 3\n" + MINIMAL.removeprefix("[client]\n"), "base.toml")
    name = write('extends = "base.toml"\n[client]\nhold = "3s"\nclose = 5\n')

    expected = [
        "base.toml:2:11: server.backlog must be at least 0, found -1",
        'it.toml:4:9: client.close must be one of "fin", "rst", found 5',
    ]
    assert expected == places(account(name))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rate = 200/s", ["it.toml:1:8: text needs quotes"]),
        ('a = "x', ["it.toml:1:7: Unterminated string: close it with a quote"]),
        ("[client", ["it.toml:1:8: Expected ']' at the end of a table declaration: close the bracket"]),
        (
            "[client]\na = 1\na = 2",
            ["it.toml:3:6: Cannot overwrite a value: this key is written twice, keep one of them"],
        ),
        ("= 3", ["it.toml:1:1: Invalid statement: this is not TOML, see https://toml.io"]),
        ("a = " + "[" * 5000, ["it.toml:1:1: this is nested too deeply: two levels are enough"]),
        (b'a = "\xe9"', ["it.toml:1:6: the byte 0xe9 is not UTF-8: save this file as UTF-8"]),
        (b"# caf\xc3\xa9\nb = \xff", ["it.toml:2:5: the byte 0xff is not UTF-8: save this file as UTF-8"]),
    ],
)
def test_a_syntax_error_has_a_place_too(write: Write, text: str | bytes, expected: list[str]) -> None:
    """Syntax errors, files in another encoding and absurd nesting are errors like all others."""
    assert expected == places(account(write(text)))


def test_a_syntax_error_does_not_hide_a_broken_override(write: Write) -> None:
    """Errors that do not depend on the values of the file are reported with it."""
    expected = [
        "it.toml:1:8: text needs quotes",
        "--set, column 1: an override is a key, an equals sign and a value, such as server.backlog=8",
    ]
    assert expected == places(account(write("rate = 200/s"), "what"))


def test_a_number_of_thousands_of_digits_is_only_an_error(write: Write) -> None:
    """Python refuses to parse the number, and the error is reported."""
    assert "1 error; nothing was started" in account(write(f"seed = {'9' * 5000}\n{MINIMAL}"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('extends = "bse.toml"\n', "it.toml:1:11: bse.toml is neither a file nor a shipped scenario"),
        ("extends = 3\n", 'it.toml:1:11: extends must be the path of a file, such as "base.toml", found 3'),
        (
            'extends = "it.toml"\n',
            "it.toml:1:11: extends leads in a circle back to it.toml: remove one extends",
        ),
        ('extends = "."\n', "it.toml:1:11: . cannot be read (Is a directory): name a file that you may read"),
    ],
)
def test_a_parent_that_cannot_be_read_is_reported_with_the_rest(write: Write, text: str, expected: str) -> None:
    """Other errors of the file are reported, unless they depend on the parent."""
    write(MINIMAL, "base.toml")
    found = places(account(write(text + "seeed = 1\n")))

    assert found[0].startswith(expected)
    assert found[1:] == ["it.toml:2:1: unknown key seeed at the top level"]


def test_a_longer_circle_is_found(write: Write) -> None:
    """A circle is found for every spelling of the paths."""
    write('extends = "./b.toml"\n', "a.toml")
    write(f'extends = "../{Path.cwd().name}/a.toml"\n', "b.toml")

    expected = ["b.toml:1:11: extends leads in a circle back to a.toml: remove one extends"]
    assert expected == places(account("a.toml"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("healty", "healty is neither a file nor a shipped scenario; did you mean healthy?"),
        (
            "nothing/like/it.toml",
            "nothing/like/it.toml is neither a file nor a shipped scenario; loadsim list",
        ),
        (".", ". cannot be read (Is a directory): name a file that you may read"),
        ("/dev/zero", "/dev/zero is larger than 100,000 bytes: name a scenario, which is a page of text"),
        ("a\0b", "a\0b cannot be read (embedded null byte): name a file that you may read"),
        ("x" * 300, "x" * 300),
    ],
)
def test_a_scenario_that_cannot_be_read_is_one_sentence_with_the_remedy(write: Write, name: str, says: str) -> None:
    """The cases are misspelled names, folders, endless files and impossible names."""
    assert write
    assert account(name).startswith(says)


def test_a_path_through_a_file_is_an_error(write: Write) -> None:
    """The reason is the kernel's."""
    expected = "it.toml/x cannot be read (Not a directory): name a file that you may read"
    assert account(f"{write(MINIMAL)}/x") == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything: run as another user")
def test_an_unreadable_file_is_an_error(write: Write) -> None:
    """The reason is the kernel's."""
    name = write(MINIMAL)
    Path(name).chmod(0)

    assert account(name) == "it.toml cannot be read (Permission denied): name a file that you may read"


def test_escape_sequences_are_not_printed(write: Write) -> None:
    """An escape sequence in a file or an override stays text; undecodable bytes of an argument do not crash."""
    in_file = account(write(b"[client]\n\x1b[31mrate = 3"))
    in_override = account(write(MINIMAL), "server.leak_of=\x1b[31m", "description=\udcff")

    assert "\x1b" not in in_file + in_override
    (in_file + in_override).encode()


def test_an_undecodable_path_does_not_crash_the_report(write: Write) -> None:
    """A file name need not be UTF-8."""
    assert write
    account("caf\udcff").encode()
    Path("caf\udcff.toml").write_text("[client]\n")
    account("caf\udcff.toml").encode()


def test_columns_count_characters_not_bytes(write: Write) -> None:
    """Columns are right after umlauts."""
    name = write('[client]\nstages = [{for = "é", rate = "5/s"}, {for = "1", rate = "5/s"}]\n')

    assert [each.split(" ")[0] for each in places(account(name))] == ["it.toml:2:18:", "it.toml:2:45:"]


def test_carets_are_right_after_tabs_and_wide_characters(write: Write) -> None:
    """A tab takes four columns, a character of East Asia two."""
    name = write('[server]\n\tbacklg = 1\n[client]\nrate = "1/s"\nclose = "日本fn"\n')

    assert "  2 |     backlg = 1\n    |     ^^^^^^ did" in account(name)
    assert '  5 | close = "日本fn"\n    |         ^^^^^^^^' in account(name)


def test_long_lines_are_cut_around_the_place(write: Write) -> None:
    """The caret stays visible."""
    name = write(f"x = {{{', '.join(f'a{i} = {i}' for i in range(100))}, bad = 1}}\n{MINIMAL}")
    lines = account(name, "client.close=x").split("\n")

    assert max(map(len, lines)) < 240
    assert "^" in lines[2]


def test_the_error_for_a_key_in_the_wrong_table_names_the_right_one(write: Write) -> None:
    """`hold` belongs to [client], `backlog` to [server]."""
    name = write('hold = "1s"\n[server]\nhold = "1s"\n[client]\nrate = "1/s"\nbacklog = 4\n')

    expected = [
        "it.toml:1:1: hold does not belong at the top level: move it to [client]",
        "it.toml:3:1: hold does not belong in [server]: move it to [client]",
        "it.toml:6:1: backlog does not belong in [client]: move it to [server]",
    ]
    assert expected == places(account(name))


def test_places_inside_arrays_and_inline_tables_are_found(write: Write) -> None:
    """An error in a stage points at the line of that stage."""
    name = write(
        '[client]\nstages = [\n  {for = "5s", rate = "50/s"},  # fine\n'
        '  {for = "5", rate = "5/s"},\n  {fro = "5s"},\n]\n'
    )

    needs = 'a duration needs a number and a unit (ns, us, µs, ms, s, min, h), for example "250ms"'
    expected = [
        f'it.toml:4:10: client.stages[1].for: {needs}, found "5"',
        "it.toml:5:3: the key for is missing: add it",
        "it.toml:5:3: the key rate is missing: add it",
        "it.toml:5:4: unknown key fro in [client.stages[2]]",
    ]
    assert expected == places(account(name))


def test_stages_may_be_tables_of_their_own(write: Write) -> None:
    """Errors point into these tables."""
    name = write('[[client.stages]]\nfor = "1s"\nrate = "5/s"\n[[client.stages]]\n"for" = "1s"\n"rate" = "5"\n')

    assert places(account(name))[0].startswith("it.toml:6:10: client.stages[1].rate: a rate needs a number and a unit")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("server=3", "server must be a table, found 3 |"),
        ("server.backlog=[1]", "server.backlog must be a whole number, found an array |"),
        ("server.backlog={a=1}", "server.backlog must be a whole number, found a table |"),
        ("server.backlog=8.0", "server.backlog must be a whole number, found 8.0 | did you mean 8?"),
        ("server.backlog='8.5'", 'server.backlog must be a whole number, found "8.5" |'),
        ("server.backlog=many", 'server.backlog must be a whole number, found "many" |'),
        ("server.leak='0.5'", 'server.leak must be a number, found "0.5" | did you mean 0.5?'),
        ("server.leak='nan'", 'server.leak must be a number, found "nan" |'),
        ("server.leak=true", "server.leak must be a number, found true |"),
        ("server.leak=inf", "server.leak must be a finite number, found inf |"),
        ("name=5", 'name must be text in quotes, found 5 | did you mean "5"?'),
        (
            "thresholds.expect=x",
            'thresholds.expect must be an array, in square brackets, found "x" | did you mean ["x"]?',
        ),
        (f"description={'x' * 2001}", f'description must be at most 2,000 characters long, found "{"x" * 57}..." |'),
        (f"seed={'1' * 70}", f"seed must be at most 9,223,372,036,854,775,807, found {'1' * 57}... |"),
        ("sysctl.vm.swappiness=1", "only sysctls of a network namespace can be set, by their full names, such as"),
    ],
)
def test_the_error_for_a_wrong_type_names_the_expected_type_and_the_value(
    write: Write, override: str, says: str
) -> None:
    """The value is in the spelling of TOML, shortened, with a suggestion if only the type is wrong."""
    head, _, caret, *_ = account(write(MINIMAL), override).split("\n")

    assert f"{head.partition(': ')[2]} | {caret.strip(' ^')}".startswith(says)


def test_a_missing_key_inside_an_override_is_reported_at_the_key_of_the_override(write: Write) -> None:
    """The value of an override has no places of its own."""
    found = account(write("[client]\n"), "client.stages=[{rate='5/s'}]")

    assert found.startswith("--set, column 8: the key for is missing: add it\n")


def test_an_error_in_an_array_of_an_override_points_at_the_override(write: Write) -> None:
    """Arrays replace, so the array of the file does not matter."""
    name = write('[thresholds]\nexpect = ["emfile.count > 0"]\n' + MINIMAL)

    found = account(name, 'thresholds.expect=["emfile.cnt > 0"]')

    assert found.startswith("--set, column 19: thresholds.expect[0]: no metric is called emfile.cnt")


def test_a_key_missing_in_an_array_of_a_child_is_reported_in_the_child(write: Write) -> None:
    """Arrays replace, so a key in the array of the parent does not help."""
    write("[client]\nstages = [{for = '5s', rate = '5/s'}]\n", "base.toml")
    name = write("extends = 'base.toml'\n[client]\nstages = [{rate = '5/s'}]\n")

    assert account(name).startswith(f"{name}:3:11: the key for is missing: add it\n")


def test_the_error_for_a_sysctl_without_its_table_names_the_table(write: Write) -> None:
    """People write these names without the table."""
    found = account(write(MINIMAL), "net.core.somaxconn=8")

    assert "a sysctl belongs in [sysctl]" in found
    assert found.splitlines()[2].endswith("^^^ did you mean sysctl.net?")


def test_a_text_is_read_like_a_file() -> None:
    """Errors use its name like that of a file."""
    assert load_text(MINIMAL, ["server.backlog=5"]).server.backlog == 5
    with pytest.raises(ScenarioError, match=r"^my text:1:1: unknown key x at the top level"):
        load_text("x = 1\n" + MINIMAL, name="my text")


@pytest.mark.parametrize("override", ["=3", "a b=3", "a..b=3", "a.=3", "", "a[0]=3"])
def test_an_override_without_a_dotted_key_is_an_error(write: Write, override: str) -> None:
    """Each override must name a key."""
    assert "an override is a key, an equals sign and a value" in account(write(MINIMAL), override)


def test_the_value_of_an_override_cannot_smuggle_in_more(write: Write) -> None:
    """A line break does not end the value of an override."""
    assert "server.backlog must be a whole number" in account(write(MINIMAL), "server.backlog=1\nseed = 5")


COMPLETE = """\
name = "x"
[server]
leak = 0.5
[client]
stages = [
  {for = "1s", rate = "50/s"},
  {for = "1s", rate = "0/s..5/s"},
]
[sysctl]
net.core."somaxconn" = 3
[[thresholds.expect]]
"""
EDITS = st.lists(
    st.tuples(st.integers(0, len(COMPLETE)), st.integers(0, 6), st.text('[]{}=.,"\n# ax1é\0', max_size=4)), max_size=6
)


@settings(max_examples=60, deadline=None)
@given(edits=EDITS)
def test_any_text_is_valid_or_an_error(edits: list[tuple[int, int, str]]) -> None:
    """Any text is a scenario or an error with places; no other exception is raised."""
    text = COMPLETE
    for at, removed, inserted in edits:
        text = text[:at] + inserted + text[at + removed :]

    places_in(text)
    with pytest.raises(ScenarioError, match="nothing was started"):
        load_text(text, ["server.backlog=-1"])


@settings(max_examples=60, deadline=None)
@given(overrides=st.lists(st.text('server.backlogclient=[]{}"12345/s \n\\', max_size=30), min_size=1, max_size=3))
def test_any_override_is_valid_or_an_error(overrides: list[str]) -> None:
    """Any text of --set is a setting or an error."""
    with pytest.raises(ScenarioError, match="nothing was started"):
        load_text("[client]\nrate = '5/s'\nrat = 1", overrides)


def test_tables_of_later_versions_are_unknown_keys(write: Write) -> None:
    """No table is ignored silently."""
    assert places(account(write(MINIMAL + "[weather]\nsteps = []\n")))[0].startswith(
        "it.toml:3:2: unknown key weather at the top level; known are schema, name"
    )


def test_the_error_for_another_version_of_the_format_names_the_remedy(write: Write) -> None:
    """Schema 2 was written for a newer loadsim."""
    expected = ["it.toml:1:10: this loadsim reads schema 1, found 2: update loadsim, or write schema = 1"]
    assert expected == places(account(write("schema = 2\n" + MINIMAL)))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "it.toml:1:1"),
        ("seed = 4\n\n", "it.toml:1:9"),
        ("[client]\nhold = '1s'\n[server]\n", "it.toml:1:2"),
        ("client.hold = '1s'", "it.toml:1:1"),
    ],
)
def test_a_missing_key_is_reported_where_it_belongs(write: Write, text: str, place: str) -> None:
    """The place is the table that lacks it, or the end of the file."""
    assert account(write(text)).startswith(f"{place}: no key sets how clients arrive: add rate")

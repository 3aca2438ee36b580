"""Many runs of one scenario: cells, overrides that sweep, errors at the value that causes them, random order."""

from __future__ import annotations

from collections import Counter

import pytest

from loadsim.errors import ScenarioError
from loadsim.scenario.sweep import Job, Matrix, order, short
from loadsim.scenario.toml import load_text, load_text_matrix, to_toml

PLAIN = """
schema = 1
name = "plain"
seed = 7
[client]
rate = "200/s"
"""
SWEPT = (
    PLAIN
    + """
[sweep]
server.backlog = [1, 128]
"client.hold" = ["0s", "1s"]
repeat = 3
"""
)


def labels(matrix: Matrix) -> list[str]:
    """Return the labels of the cells."""
    return [cell.label for cell in matrix.cells]


def refused(text: str, *overrides: str) -> str:
    """Return the error of a scenario."""
    with pytest.raises(ScenarioError) as caught:
        load_text_matrix(text, overrides, name="x.toml")
    return str(caught.value)


def test_product_of_all_values() -> None:
    """Each combination is a cell: the scenario with those values, and the same checks."""
    matrix = load_text_matrix(SWEPT)

    assert labels(matrix) == [
        "backlog 1, hold 0s",
        "backlog 1, hold 1s",
        "backlog 128, hold 0s",
        "backlog 128, hold 1s",
    ]
    assert [(cell.scenario.server.backlog, cell.scenario.client.hold) for cell in matrix.cells] == [
        (1, 0),
        (1, 1),
        (128, 0),
        (128, 1),
    ]
    assert matrix.cells[3].values == {"server.backlog": 128, "client.hold": 1.0}
    assert (matrix.repeat, matrix.is_single) == (3, False)


def test_without_a_sweep() -> None:
    """A file without a sweep is one run; --repeat makes several runs of one cell."""
    single, repeated = load_text_matrix(PLAIN), load_text_matrix(PLAIN, ["sweep.repeat=4"])

    assert (labels(single), single.repeat, single.is_single) == (["plain"], 1, True)
    assert (labels(repeated), repeated.repeat, repeated.is_single) == (["plain"], 4, False)


def test_values_with_commas_are_swept() -> None:
    """An override with several values is an axis, one with a single value removes the axis."""
    several = load_text_matrix(PLAIN, ["server.backlog=8,128, 4096", "client.rate=10/s,20/s"])

    assert labels(several)[::2] == ["backlog 8, rate 10/s", "backlog 128, rate 10/s", "backlog 4,096, rate 10/s"]
    assert several.repeat == 6
    assert labels(load_text_matrix(SWEPT, ["server.backlog=64"])) == ["hold 0s", "hold 1s"]
    assert labels(load_text_matrix(SWEPT, ["server.backlog=2,3", "client.hold=0s"])) == ["backlog 2", "backlog 3"]


def test_sysctls_are_swept_by_their_full_names() -> None:
    """Sysctls can be swept as well, and an empty value means the default."""
    matrix = load_text_matrix(PLAIN, ["sysctl.net.core.somaxconn=8,128", "server.nofile=,64"])

    assert labels(matrix)[1:3] == ["somaxconn 8, nofile 64", "somaxconn 128, nofile unset"]
    assert matrix.cells[1].scenario.sysctl == {"net.core.somaxconn": "8"}
    assert [cell.scenario.server.nofile for cell in matrix.cells] == [None, 64, None, 64]


def test_commas_elsewhere_are_text() -> None:
    """Keys that cannot be swept keep their commas, and so do arrays and quoted text."""
    scenario = load_text(PLAIN, ["description=a, b", 'thresholds.expect=["fds.max > 1", "fds.end > 1"]'])

    assert scenario.description == "a, b"
    assert len(scenario.thresholds.expect) == 2


def test_exclude_leaves_combinations_out() -> None:
    """A combination is excluded if all named values match; bare dotted names are read as well."""
    text = SWEPT + "exclude = [{server.backlog = 1, client.hold = '1s'}, {'client.hold' = '0s'}]\n"

    assert labels(load_text_matrix(text)) == ["backlog 128, hold 1s"]


def test_exclude_knows_a_value_in_any_spelling() -> None:
    """One second equals 1000 ms, also in an exclusion."""
    text = SWEPT + "exclude = [{server.backlog = 1, client.hold = '1000ms'}]\n"

    assert labels(load_text_matrix(text)) == ["backlog 1, hold 0s", "backlog 128, hold 0s", "backlog 128, hold 1s"]


@pytest.mark.parametrize(
    ("text", "overrides", "place", "says"),
    [
        (SWEPT.replace("[1, 128]", '[1, "a"]'), (), "x.toml:9:22", 'server.backlog must be a whole number, found "a"'),
        (SWEPT.replace("backlog", "backlg"), (), "x.toml:9:8", "unknown key backlg in [server]"),
        (SWEPT.replace("[1, 128]", "8"), (), "x.toml:9:18", "an array of the values to try"),
        (SWEPT.replace("[1, 128]", "[1, 1]"), (), "x.toml:9:22", "this value is written twice"),
        (SWEPT.replace("repeat = 3", "repeat = 0"), (), "x.toml:11:10", "repeat must be at least 1, found 0"),
        (SWEPT.replace('["0s", "1s"]', '["1s", "1000ms"]'), (), "x.toml:10:24", "this value is written twice"),
        (PLAIN, ("client.rate=200/s,12000/min",), "--set, column 19", "this value is written twice"),
        (PLAIN, ("server.backlog=8,",), "--set, column 17", "a value is missing after the last comma"),
        (
            SWEPT + "exclude = [{server.backlog = 2}]\n",
            (),
            "x.toml:12:1",
            "backlog = 2, which is not one of its values",
        ),
        (SWEPT + "exclude = [{server.nofile = 8}]\n", (), "x.toml:12:1", "exclude names server.nofile"),
        (PLAIN, ("server.leak=0.1,3",), "--set, column 17", "server.leak must be at most 1.0, found 3"),
        (PLAIN, ("server.bcklog=1,2",), "--set, column 1", "did you mean backlog?"),
        (PLAIN, ("sweep.name=[1]",), "--set, column 7", "name cannot be swept"),
        (SWEPT, ("client.clients=1,2",), "--set, column 16", "rate and clients exclude each other"),
    ],
)
def test_errors_are_at_the_value_that_makes_them(text: str, overrides: tuple[str, ...], place: str, says: str) -> None:
    """Every cell is checked before anything starts, and the place is the one in [sweep] or of the override."""
    account = refused(text, *overrides)

    assert place in account
    assert says in account
    assert account.endswith("nothing was started")


def test_each_error_is_told_once() -> None:
    """A value that is wrong in every cell that has it is one error."""
    assert refused(SWEPT.replace("[1, 128]", "[1, -1]")).endswith("\n1 error; nothing was started")


def test_too_many_cells() -> None:
    """A huge product is refused before its cells are made."""
    many = ",".join(map(str, range(1, 102)))

    says = refused(PLAIN, f"server.backlog={many}", "server.nofile=10,20,30,40,50,60,70,80,90,100")

    assert "this sweeps 1,010 combinations, 1 to 1,000 are possible" in says


def test_a_sweep_is_no_single_scenario() -> None:
    """A command that needs one scenario names the --set options that choose it."""
    with pytest.raises(ScenarioError, match=r"choose one value with --set server\.backlog=1 --set client\.hold=0s"):
        load_text(SWEPT)


def test_every_round_has_every_cell_once() -> None:
    """Every repeat is shuffled differently, and the same seed gives the same order."""
    jobs = order(5, 6, seed=7)
    rounds = [tuple(job.cell for job in jobs[start : start + 5]) for start in range(0, 30, 5)]

    assert Counter(jobs) == Counter((cell, repeat) for cell in range(5) for repeat in range(6))
    assert all(sorted(each) == [0, 1, 2, 3, 4] for each in rounds)
    assert len(set(rounds)) > 1
    assert jobs == order(5, 6, seed=7) != order(5, 6, seed=8)


def test_repeats_have_seeds_of_their_own() -> None:
    """The n-th runs of all cells share a seed, so all cells meet the same arrivals."""
    matrix = load_text_matrix(SWEPT)
    seeds = {job: job.scenario(matrix).seed for job in order(len(matrix.cells), matrix.repeat, seed=1)}

    assert {seed for job, seed in seeds.items() if job.repeat == 2} == {9}
    assert sorted(set(seeds.values())) == [7, 8, 9]


def test_each_run_says_which_it_is() -> None:
    """Its description names the cell and the number of the run, in the live view, page and folder."""
    matrix = load_text_matrix(SWEPT, ["description=Why?"])

    assert Job(2, 1).scenario(matrix).description == "backlog 128, hold 0s, run 2 of 3. Why?"


def test_what_is_kept_reads_back_as_the_same() -> None:
    """The resolved file of a sweep plans the same cells again."""
    matrix = load_text_matrix(SWEPT + "exclude = [{server.backlog = 1, client.hold = '1s'}]\n")

    assert load_text_matrix(to_toml(matrix.scenario, matrix)) == matrix


@pytest.mark.parametrize(
    ("name", "called"),
    [("server.backlog", "backlog"), ("sysctl.net.core.somaxconn", "somaxconn"), ("seed", "seed")],
)
def test_short_names(name: str, called: str) -> None:
    """The short name of a swept key is its last part."""
    assert short(name) == called

"""`herd replay` and `herd plan`: from a database alone, readable at 80 columns, with what is not known said."""

import json
import re

import pytest

from herd.commands.listing import REPLAYED, SIMULATED
from herd.planning.compare import POLICIES
from tests.planning.lived import kept

SINCE = "2020-01-01"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where two nodes and sixty requests are on record."""
    return kept(tmp_path_factory.mktemp("plan"))


def run(inside, *words):
    return inside(*words, "--since", SINCE)


def test_a_plan_says_what_changes_how_sure_that_is_and_what_is_not_known(data_dir, inside):
    """A figure without its error is a promise."""
    told = run(inside, "plan", "--data-dir", data_dir, "--add-node", "RTX 3090, 24 GB", "--traffic", "x2").stdout
    assert told.startswith("Plan: add RTX 3090, 24 GB, traffic × 2\n60 requests since ")
    assert re.search(r"first token, p95 +250 ms .*±", told)
    assert re.search(r"llama3.2:3b +60 +120 ", told)
    assert re.search(r"rtx-3090 +- +\d", told)
    assert "Back-test: the simulated p95 is" in told
    assert "no longer known (gone) go to the other nodes" in told
    assert "Not measured yet" in told


def test_the_tables_of_plan_and_replay_fit_a_terminal_of_80_columns(data_dir, inside):
    """That is what a shell beside an editor has."""
    for command in (("plan", "--slots", "8"), ("replay",)):
        told = run(inside, *command, "--data-dir", data_dir).stdout
        tables = [line for line in told.splitlines() if re.search(r" {3}", line)]
        assert tables
        assert max(map(len, tables)) <= 80


def test_a_plan_for_programs_has_the_same_figures(data_dir, inside):
    """The page shows this."""
    found = json.loads(run(inside, "plan", "--data-dir", data_dir, "--remove-node", "bob", "--json").stdout)
    assert found["change"] == ["remove bob"]
    assert found["window"]["request_count"] == found["before"]["requests"] == found["after"]["requests"] == 60
    assert [each["node_id"] for each in found["nodes"]] == ["ada", "bob"]
    assert found["nodes"][1]["busy_after"] is None
    assert {each["tag"] for each in found["tags"]} == {"a", "b"}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 64, "nothing to plan"),
        (("--add-node", "RTX 3090"), 64, "names no memory"),
        (("--add-node", "RTX 3091, 24 GB"), 64, "is not in the catalogue of machines; there are rtx 3090"),
        (("--add-model", "nobody:1b"), 64, "is not in the catalogue of models"),
        (("--traffic", "twice"), 64, "a factor such as x2"),
        (("--slots", "many"), 64, "NODE=NUMBER"),
        (("--remove-node", "nope"), 1, "there is no node nope; there are ada, bob"),
    ],
)
def test_a_change_that_cannot_be_is_one_sentence(data_dir, inside, words, code, says):
    """It says what would be right."""
    told = run(inside, "plan", "--data-dir", data_dir, *words)
    assert (told.returncode, told.stdout) == (code, "")
    assert says in told.stderr


def test_a_database_with_too_few_requests_plans_nothing(data_dir, inside, tmp_path):
    """Twenty are the least of which there is a 95th percentile."""
    told = inside("plan", "--data-dir", data_dir, "--slots", "8")  # of the last day
    assert told.returncode == 1
    assert "0 requests" in told.stderr
    assert inside("replay", "--data-dir", str(tmp_path)).returncode == 1


def test_a_replay_says_what_would_have_moved_and_what_it_left_out(data_dir, inside):
    """Served by a node that is gone, they are served by others here."""
    told = run(inside, "replay", "--data-dir", data_dir, "--policy", "round robin").stdout
    assert "under round robin" in told
    assert re.search(r"\d+ of 60 would have gone to another node", told)
    assert re.search(r"ada +bob +\d+", told)
    assert "3 were served by nodes that are no longer known" in told


def test_a_replay_takes_the_settings_that_a_router_goes_by_and_no_others(data_dir, inside):
    """One that changes nothing in virtual time would look as if it had no effect."""
    told = run(inside, "replay", "--data-dir", data_dir, "--set", "queue_limit=1", "--json")
    assert json.loads(told.stdout)["policy"] == "herd"
    wrong = run(inside, "replay", "--data-dir", data_dir, "--set", "port=1")
    assert (wrong.returncode, "queue_limit=" in wrong.stderr) == (64, True)


def test_the_policies_of_the_command_line_are_those_of_the_simulator():
    """The command line names them without importing it."""
    assert set(SIMULATED) == set(POLICIES)
    assert set(REPLAYED) < set(POLICIES)

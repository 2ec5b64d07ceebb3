"""`herd explain`: one request's life and its decision, and whether the decision can be made again."""

import json
import re
import sqlite3
from contextlib import closing

import pytest

from herd.core.events import Usage
from herd.core.routing import Predicted
from herd.core.signals import SIGNALS
from herd.store.writer import Writer
from tests.store.builders import NOON, finished, fleet, node
from tests.store.waiting import written


@pytest.fixture
def stored(tmp_path):
    """A database with a few requests that nobody served, for what a router would have to be made to do."""
    data_dir = tmp_path / "data"

    def store(*events):
        writer = Writer(data_dir / "latency.db", retention_days=36500)
        writer.start()
        for event in events:
            writer.take(event)
        assert written(writer)
        writer.close(10)
        return str(data_dir)

    return store


def test_explain_tells_the_life_the_candidates_and_the_replay(served):
    """It is the promise of the whole: for any request, where it went and why."""
    told = served.herd("explain", "retried-1")
    assert told.returncode == 0
    life = told.stdout[told.stdout.index("Life") : told.stdout.index("Decision")]
    for step in ("received from 127.0.0.1", "attempt 1 failed, upstream_5xx", "attempt 2", "end: completed"):
        assert step in life
    assert "→  small" in told.stdout
    assert "The previous attempt failed" in told.stdout
    assert told.stdout.endswith("replayed: same plan\n")


def test_every_node_left_out_is_named_with_its_reason_in_words(served, inside):
    """Why a request did not go somewhere is asked more often than why it did."""
    told = inside("explain", "qwen-1", "--url", served.url).stdout
    assert "small  qwen3:8b  does not have the model" in told
    assert "big was the only node that could take the request." in told


def test_a_fallback_is_explained_by_what_was_missing(served, inside):
    """An answer by another model than the one asked for needs its reason."""
    told = inside("explain", "fallback-1", "--url", served.url).stdout
    assert "No node could serve absent:1b; llama3.2:3b is the client's first fallback" in told


def test_a_rejected_request_is_explained_too(served, inside):
    """It has no node, no attempt and no score; what it has is why."""
    told = inside("explain", "unknown-1", "--url", served.url)
    assert told.returncode == 0
    assert "No node could take the request." in told.stdout
    assert "first content" not in told.stdout


def test_the_first_content_of_a_stream_stands_between_attempt_and_end(served, inside):
    """Where the time went is read off the order of the lines."""
    told = inside("explain", "chat-3", "--url", served.url).stdout
    assert told.index("attempt 1: llama3.2:3b") < told.index("first content") < told.index("end: completed")


def test_router_and_database_tell_the_same(served, inside):
    """A machine that was shut down is explained from its files."""
    by_file = inside("explain", "chat-2", "--data-dir", str(served.router.data_dir))
    assert by_file.returncode == 0
    assert by_file.stdout == inside("explain", "chat-2", "--url", served.url).stdout


def test_json_has_all_seven_signals_of_each_candidate(served, inside):
    """Programs compare nodes by them."""
    told = json.loads(inside("explain", "chat-2", "--json", "--url", served.url).stdout)
    plan = told["decision"]["plan"]
    assert len(plan) == 2
    assert all(entry["signals"].keys() == SIGNALS.keys() for entry in plan)
    assert told["decision"]["replays"] is True


@pytest.mark.parametrize("source", ["router", "database"])
def test_the_unique_beginning_of_an_id_is_enough(served, inside, source):
    """Nobody types 32 digits."""
    place = ("--url", served.url) if source == "router" else ("--data-dir", str(served.router.data_dir))
    assert inside("explain", "qwe", *place).stdout.startswith("Request qwen-1\n")
    assert inside("explain", "wen-1", *place).returncode == 1


@pytest.mark.parametrize("source", ["router", "database"])
def test_a_beginning_of_several_ids_is_not_guessed_at(served, inside, source):
    """The explanation of another request would be worse than none."""
    place = ("--url", served.url) if source == "router" else ("--data-dir", str(served.router.data_dir))
    told = inside("explain", "chat-", *place)
    assert (told.returncode, told.stdout) == (1, "")
    assert "(chat-0, chat-1, chat-2, chat-3)" in told.stderr


@pytest.mark.parametrize("wanted", ["never-seen", "", "%", "../chat-0", "chat-0?x=1"])
def test_an_unknown_request_is_one_sentence(served, inside, wanted):
    """It may still run, or be too old; that is what the sentence says."""
    told = inside("explain", wanted, "--url", served.url)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.count("\n") == 1


def test_a_decision_that_comes_out_differently_is_shown_and_fails(stored, inside):
    """A replay that could not disagree would prove nothing."""
    data_dir = stored(finished("r-1"))
    with closing(sqlite3.connect(f"{data_dir}/latency.db")) as database, database:
        (text,) = database.execute("SELECT decision FROM request_traces").fetchone()
        changed = text.replace('"total":', '"total":1', 1)
        database.execute("UPDATE request_traces SET decision = ?", (changed,))
    told = inside("explain", "r-1", "--data-dir", data_dir)
    assert told.returncode == 1
    assert "NOT the same plan" in told.stdout
    assert "  plan: " in told.stdout
    assert "  rejected: " not in told.stdout


def test_a_wait_for_a_slot_stands_in_the_life(stored, inside):
    """Most slow requests waited, and the table of attempts does not say so."""
    event = finished("r-1", latency_s=9.0, queued_at=NOON + 0.5, admitted_at=NOON + 4.5)
    told = inside("explain", "r-1", "--data-dir", stored(event)).stdout
    assert "waiting for a slot, 4.00 s in total" in told


def test_each_part_stands_as_it_was_predicted_and_as_it_was(stored, inside):
    """Whether routing was wrong, and in what, is told of one request too."""
    event = finished("r-1", ttft_s=0.5, predicted=Predicted(0.0, 1.5, 0.25, 1.0))
    told = inside("explain", "r-1", "--data-dir", stored(event)).stdout
    assert re.search(r"load +1\.50 s +- +-\n", told)
    assert re.search(r"first token +1\.75 s +500 ms +-1\.25 s\n", told)


def test_tokens_from_the_cache_are_told_beside_the_prompts(stored, inside):
    """A first token that came soon, or did not, is explained by them."""
    told = Usage(2000, 40, cached_tokens=1900, reasoning_tokens=30, source="reported")
    words = inside("explain", "r-1", "--data-dir", stored(finished("r-1", usage=told))).stdout
    assert "2000 in, 1900 of them from the cache, 40 out, 30 of them of thought (reported)" in words


def test_a_second_choice_is_explained_by_the_firsts_missing_slot(stored, inside):
    """The best node did not get it; that must not look like a mistake."""
    seen = fleet(node("ada"), node("bob"))
    told = inside("explain", "r-1", "--data-dir", stored(finished("r-1", node_id="ada", seen=seen))).stdout
    assert "bob was first in the plan but had no free slot; ada was the next with one." in " ".join(told.split())


def test_a_decision_of_another_version_does_not_hide_the_rest(stored, inside):
    """An old row keeps its life when its decision can no longer be read."""
    data_dir = stored(finished("r-1"))
    with closing(sqlite3.connect(f"{data_dir}/latency.db")) as database, database:
        database.execute("""UPDATE request_traces SET decision = '{"version": 99}'""")
    told = inside("explain", "r-1", "--data-dir", data_dir)
    assert "end: completed" in told.stdout
    assert "version 99" in told.stdout
    assert "replayed" not in told.stdout

"""What a restarted router learns from its store, what an audit reads there, and what an empty store answers."""

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest

from herd.core.events import Status
from herd.store import rollups, schema
from herd.store.audit import CHUNK, Kept
from herd.store.queries import Reader, StoreUnreadable
from herd.store.traces import Page
from tests.store import builders
from tests.store.tables import apps, apps_daily, usage

NOW = builders.NOON
MINUTE, HOUR, WEEK = 60.0, 3600.0, 7 * 86_400.0


def minutes(node_id, first, last, **sample):
    """A sample a minute, from so many minutes before now until so many."""
    return [builders.sample(node_id, NOW - back * MINUTE, **sample) for back in range(first, last, -1)]


def test_a_node_that_was_always_there_has_been_up(reader, keep):
    """The best value must be reachable."""
    keep(*minutes("ada", 100, 0))
    assert reader.availability(NOW)["ada"] == 1.0


def test_minutes_offline_and_minutes_without_a_sample_count_as_down(reader, keep):
    """A node that left in order is sampled no more; that is not the same as being there."""
    keep(*minutes("ada", 100, 0))
    keep(*minutes("bob", 100, 50), *minutes("bob", 50, 25, status="offline"))
    assert reader.availability(NOW)["bob"] == pytest.approx(0.5)


def test_a_degraded_node_is_there(reader, keep):
    """It answers, late; its signals say the rest."""
    keep(*minutes("ada", 10, 0, status="degraded"))
    assert reader.availability(NOW)["ada"] == 1.0


def test_a_new_node_is_not_blamed_for_the_time_before_it_came(reader, keep):
    """It would lose requests all day for having been bought today."""
    keep(*minutes("ada", 100, 0), *minutes("new", 10, 0))
    assert reader.availability(NOW)["new"] == 1.0


def test_the_routers_own_absence_is_nobodys_fault(reader, keep):
    """While the router was away, nobody looked."""
    keep(*minutes("ada", 600, 590), *minutes("ada", 10, 0))
    assert reader.availability(NOW)["ada"] == 1.0


def test_only_the_last_day_counts(reader, keep):
    """A repaired machine is forgiven after a day."""
    keep(*minutes("ada", 2000, 1500, status="offline"), *minutes("ada", 60, 0), *minutes("gone", 2000, 1500))
    history = reader.availability(NOW)
    assert (history["ada"], history["gone"]) == (1.0, 0.0)


def prompts_s(reader):
    """How long the prompts took, by node."""
    return {node: [seen.prompt_s for seen in answers] for (node, _), answers in reader.recent_answers(NOW).items()}


def test_recent_answers_are_the_latest_streams_the_oldest_first(reader, keep):
    """A restarted router predicts from its first request on, and what came last counts most."""
    keep(*(builders.finished(at=NOW - 1000 - number, ttft_s=9.0, latency_s=60.0) for number in range(5)))
    keep(*(builders.finished(at=NOW - 100 - number, ttft_s=0.25 + number, latency_s=60.0) for number in range(20)))
    keep(builders.finished(at=NOW - 100, node_id="bob", ttft_s=2.0, latency_s=60.0))
    assert prompts_s(reader) == {
        "ada": pytest.approx([19.25 - number for number in range(20)]), "bob": pytest.approx([2.0]),
    }  # fmt: skip


def test_a_recent_answer_has_its_tokens_less_those_from_the_cache(reader, keep):
    """A prompt that was in the cache took no time, and says nothing of how long one takes."""
    usage = replace(builders.finished().usage, prompt_tokens=100, cached_tokens=60, completion_tokens=20)
    keep(builders.finished(at=NOW - 10, usage=usage, asked=builders.request(prompt_tokens=50)))
    ((answer,),) = reader.recent_answers(NOW).values()
    assert (answer.prompt_tokens, answer.answer_tokens) == (20, 20), "in the tokens of the estimate"


def test_recent_answers_leave_out_loads_waits_and_failures(reader, keep):
    """They are predicted on their own; counted here they would be counted twice."""
    usual = builders.finished()
    keep(
        builders.finished(at=NOW - 10, ttft_s=6.0, latency_s=60.0, usage=replace(usual.usage, load_s=5.5)),
        builders.finished(at=NOW - 10, ttft_s=8.0, latency_s=60.0, status=Status.INCOMPLETE),
        builders.finished(at=NOW - 2 * WEEK, ttft_s=8.0, latency_s=60.0),
        builders.finished(at=NOW - 10, ttft_s=8.0, latency_s=60.0, asked=builders.request(stream=False)),
    )
    assert prompts_s(reader) == {"ada": pytest.approx([0.5])}


def test_a_recent_answer_without_a_load_says_nothing_of_how_long_one_takes(reader, keep):
    """Engines report some milliseconds of loading with every answer: a restarted router took them for a cold start."""
    usual = builders.finished()
    for load_s in (0.02, 4.0):
        keep(builders.finished(at=NOW - load_s, ttft_s=6.0, latency_s=60.0, usage=replace(usual.usage, load_s=load_s)))
    ((warm_or_cold),) = reader.recent_answers(NOW).values()
    assert sorted(each.load_s or 0.0 for each in warm_or_cold) == [0.0, 4.0]


def test_a_recent_answer_that_came_in_one_piece_says_nothing_of_speeds(reader, keep):
    """Tool calls are held back to their end."""
    keep(builders.finished(at=NOW - 10, ttft_s=1.499, latency_s=1.5))
    assert reader.recent_answers(NOW) == {}


def test_demand_is_what_was_asked_for_and_recent_requests_count_most(reader, keep):
    """Last week's experiment must not hold the memory that today's work needs."""
    keep(
        *(builders.finished(at=NOW - 60, model="now:1b") for _ in range(4)),
        *(builders.finished(at=NOW - 25 * HOUR, model="yesterday:1b") for _ in range(4)),
        builders.finished(at=NOW - 1.01 * WEEK, model="long-ago:1b"),
    )
    assert reader.demand(NOW) == {"now:1b": 4.0, "yesterday:1b": pytest.approx(2.0, rel=0.05)}


def test_demand_counts_the_model_asked_for_however_the_request_ended(reader, keep):
    """A model that fell back, or failed, for being cold is the one that should be warm."""
    keep(
        builders.finished(at=NOW - 60, model="large:70b", served="small:8b"),
        builders.failed(at=NOW - 60, model="large:70b"),
        builders.refused(at=NOW - 60),
    )
    assert reader.demand(NOW) == {"large:70b": 2.0}


def test_demand_is_the_same_from_the_rows_and_from_their_hourly_sums(reader, keep, database):
    """A busy week is too many rows to read every two minutes."""
    keep(*(builders.finished(at=NOW - hours * HOUR, model=f"m:{hours % 3}") for hours in range(1, 100)))
    from_rows = reader.demand(NOW)
    assert len(from_rows) == 3
    with closing(schema.open_for_writing(database)) as connection:
        while rollups.step(connection):
            pass
        connection.execute("DELETE FROM request_traces WHERE timestamp < ?", (NOW - 12 * HOUR,))
    assert reader.demand(NOW) == pytest.approx(from_rows)


def test_ended_requests_come_each_once_in_the_order_of_their_ends(reader, keep):
    """Also where more of them end at one moment than are read at once."""
    keep(*(builders.finished(at=NOW, latency_s=float(number // 4000)) for number in range(CHUNK + 1000)))
    found = list(reader.ended())
    assert len({entry.span_id for entry in found}) == len(found) == CHUNK + 1000
    assert [entry.finished_at for entry in found] == sorted(entry.finished_at for entry in found)
    assert len(list(reader.ended(NOW + 1, NOW + 1.5))) == CHUNK + 1000 - 4000


def test_an_ended_request_has_what_an_audit_compares(reader, keep):
    """The fields by which a row is found in the log, and by which the two are compared."""
    event = builders.finished("r", at=NOW, latency_s=2.0, tokens=(3, 4))
    keep(event)
    (entry,) = reader.ended()
    assert entry._asdict() == {
        "request_id": "r", "span_id": event.ids.span_id, "timestamp": NOW, "finished_at": NOW + 2,
        "endpoint": "/api/chat", "status": "completed", "model": "llama3.2:3b", "node_id": "ada",
        "prompt_tokens": 3, "completion_tokens": 4,
    }  # fmt: skip


def test_the_store_tells_from_when_on_it_tells(reader, keep):
    """A log line from before the oldest row is no missing row."""
    assert reader.kept() == Kept()
    keep(builders.finished(at=NOW), builders.finished(at=NOW - 5), builders.sample(at=NOW - 60))
    assert reader.kept() == Kept(NOW - 5, 1, NOW - 60)


def test_a_store_in_which_nothing_was_kept_answers_as_an_empty_one(reader):
    """A fresh router's page must open, and `herd status` must not print a traceback."""
    assert reader.traces() == Page()
    assert reader.trace("r") is None
    assert apps(reader, 7) == apps_daily(reader, 7) == usage(reader, 7) == []
    assert list(reader.ended()) == []
    assert reader.availability(NOW) == reader.recent_answers(NOW) == reader.demand(NOW) == {}
    assert not reader.path.exists(), "reading must not make a database"


def test_a_reader_sees_what_is_kept_after_it_began(reader, keep):
    """Readers hold no snapshot between two questions."""
    assert reader.trace("r") is None
    keep(builders.finished("r"))
    assert reader.trace("r") is not None


def test_a_file_that_is_no_database_is_said_to_be_unreadable(reader, database):
    """The callers know one error, and it names the file."""
    database.parent.mkdir()
    database.write_bytes(b"something else " * 100)
    with pytest.raises(StoreUnreadable, match=r"latency\.db cannot be read: file is not a database"):
        reader.traces()


async def test_questions_are_answered_off_the_event_loop(reader, keep):
    """A long query on the loop would stop every stream."""
    await asyncio.to_thread(keep, builders.finished("r"))
    assert await reader.ask(threading.get_ident) != threading.get_ident()
    assert (await reader.ask(reader.trace, "r")).row["request_id"] == "r"


def test_many_threads_may_ask_at_once(reader, keep):
    """Each has a connection of its own; the last one out closes them all."""
    keep(*(builders.finished() for _ in range(50)))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: len(reader.traces().traces), range(64)))
    assert found == [50] * 64


def test_a_writer_is_not_held_up_by_a_reader(keep, database, reader):
    """A page that is open, or a query that takes minutes, must cost no record."""
    keep(builders.finished("before"))
    slow = sqlite3.connect(database, isolation_level=None)
    slow.execute("BEGIN")
    slow.execute("SELECT * FROM request_traces").fetchall()
    keep(builders.finished("after"))
    assert reader.trace("after") is not None
    slow.rollback()
    slow.close()


def test_a_closed_reader_has_let_go_of_its_connections(database, keep):
    """Whoever deletes the data directory after a stop must find nothing that holds it."""
    keep(builders.finished("r"))
    reader = Reader(database)
    assert asyncio.run(reader.ask(reader.trace, "r"))
    reader.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        asyncio.run(reader.ask(reader.trace, "r"))

"""kill -9 of the router, of its recorder and of its reader, under load: which records are there afterwards."""

import asyncio
import itertools
import os
import signal

import httpx
import psutil
import pytest

from herd.sim import SimConfig, SimModel
from tests.e2e.conftest import Fleet
from tests.harness import Nodes, Router, free_port, until
from tests.resilience.processes import recorder_of

MODEL = "llama3.2:3b"
NUMBERS = itertools.count()
PATIENCE_S = 30


@pytest.fixture
def fleet(tmp_path):
    """A router with one node that answers at once."""
    running = Fleet(Router(tmp_path / "home", free_port()), Nodes())
    running.router.start()
    node = SimModel(MODEL, size_gb=0.1)
    running.join(SimConfig("only", models=(node,), preload=(MODEL,), memory_gb=16, slots=64))
    yield running
    running.nodes.stop()
    running.router.stop()


async def ask(url, count, at_once=8, after=lambda _: None):
    """Ask so many times; the ids of those that were answered, `after` called with each."""
    answered, left = [], iter(range(count))

    async def client(session):
        for _ in left:
            name = f"k{next(NUMBERS)}"
            body = {"model": MODEL, "prompt": "Write 2 words.", "stream": False}
            answer = await session.post("/api/generate", json=body, headers={"X-Request-Id": name})
            assert answer.status_code == 200
            answered.append(name)
            after(answered)

    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as session:
        await asyncio.gather(*(client(session) for _ in range(at_once)))
    return answered


def written(router):
    return sorted(line["request_id"] for line in router.lines())


def kept(router):
    return sorted(row["request_id"] for row in router.rows())


@pytest.mark.parametrize("turn", range(3))
def test_a_killed_router_keeps_rows_and_lines_of_all_requests_that_had_ended(fleet, turn):
    """What a client has in hand happened; 50 ms of it were lost where the router itself wrote."""
    router = fleet.router
    recorder = recorder_of(router)
    names = asyncio.run(ask(router.url, 100 + 30 * turn))
    # Whether the last of them ended two milliseconds ago is the router's to know: it answered this question since.
    assert httpx.get(router.url + "/healthz").status_code == 200
    router.process.kill()
    router.process.wait(PATIENCE_S)
    until(lambda: not recorder.is_running(), "the recorder has written what it got, and has ended")
    assert kept(router) == written(router) == sorted(names)


def test_kills_of_the_recorder_under_load_lose_no_row_and_no_line_and_write_none_twice(fleet):
    """It is replaced, and gets what the one before had not told of; no client notices."""
    router, killed = fleet.router, []

    def kill_now_and_then(answered):
        if len(answered) % 120 == 60:
            killed.append(recorder_of_alive(router))
            os.kill(killed[-1], signal.SIGKILL)

    names = asyncio.run(ask(router.url, 480, after=kill_now_and_then))
    until(lambda: len(kept(router)) == len(names), "rows are written")
    until(lambda: len(written(router)) == len(names), "lines are written")
    assert kept(router) == written(router) == sorted(names)
    assert len(set(killed)) == len(killed) == 4
    until(lambda: router.metric("herd_trace_rows_total", outcome="written") == len(names), "each is counted once")
    assert router.metric("herd_trace_rows_total") == len(names)
    assert router.metric("herd_log_dropped_total") == 0
    assert router.metric("herd_requests_finished_total", status="completed") == len(names)


def recorder_of_alive(router):
    """The recorder, waited for where it was just killed."""

    def there():
        try:
            return recorder_of(router).pid
        except (ValueError, psutil.NoSuchProcess):
            return None

    return until(there, "a recorder runs")


def test_a_killed_reader_costs_no_answer_of_the_page(fleet):
    """A reader that dies of a damaged file must not take requests, nor the page, with it."""
    names = asyncio.run(ask(fleet.router.url, 5))
    until(lambda: len(kept(fleet.router)) == len(names), "rows are written")
    for _ in range(2):
        children = psutil.Process(fleet.router.process.pid).children()
        (reader,) = [each for each in children if "herd.store.reading" in each.cmdline()]
        reader.kill()
        found = fleet.router.get("/dashboard/api/traces")["traces"]
        assert sorted(row["request_id"] for row in found) == sorted(names)


def test_a_router_that_ends_in_order_leaves_no_process_behind(fleet):
    """A process that nobody knows of holds files and memory until the machine is switched off."""
    asyncio.run(ask(fleet.router.url, 5))
    children = psutil.Process(fleet.router.process.pid).children(recursive=True)
    assert len(children) == 2
    assert fleet.router.stop() == 0
    assert not [each for each in children if each.is_running()]

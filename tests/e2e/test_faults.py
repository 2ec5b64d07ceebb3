"""What clients and records see when nodes fail: the next node answers, or the truth is told."""

import asyncio
import json
from contextlib import suppress

import aiohttp
import httpx
import pytest

from herd.sim import Fault, FaultKind, SimConfig, SimModel
from tests.e2e.conftest import started
from tests.harness import eventually, until

TEXT = "Hello there, tell me something."
MODEL = SimModel("llama3.2:3b")
SLOW = SimModel("slow:1b", size_gb=1.0)
# Slow enough that what breaks in the middle breaks behind bytes that went out.
PACED = SimModel("paced:1b", size_gb=1.0, tokens_per_s=30)
ASKS = {
    "/api/chat": {"messages": [{"role": "user", "content": TEXT}]},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": TEXT}]},
    "/v1/messages": {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 60},
}
BEFORE_CONTENT = (FaultKind.RESET, FaultKind.HTTP_500, FaultKind.BUSY_503, FaultKind.REFUSED, FaultKind.HTTP_404_MODEL)
BROKEN_STREAMS = (FaultKind.NO_DONE, FaultKind.CUT, FaultKind.ERROR_LINE)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two equal nodes, so that one can stand in for the other."""
    home = tmp_path_factory.mktemp("pair")
    pace = {"tokens_per_s": 3000, "load_bytes_per_s": 0, "prefill_tokens_per_s": 0}
    loaded = ("llama3.2:3b", "paced:1b")
    machines = [SimConfig(name, models=(MODEL, PACED), preload=loaded, **pace) for name in ("a", "b")]
    running = started(home, *machines, HERD_RETRIES="1")
    yield running
    running.nodes.stop()
    running.router.stop()


@pytest.fixture(autouse=True)
def healthy(request):
    """Each test begins with nodes that are well."""
    if "pair" in request.fixturenames:
        request.getfixturevalue("pair").nodes.clear()


def post(pair, path, stream, model="llama3.2:3b"):
    body = {"model": model, "stream": stream, **ASKS[path]}
    return httpx.post(pair.url + path, content=json.dumps(body), timeout=30)


def struck(pair, fault, path, stream, tried=1):
    """The node that a fault struck, the client's answer, and its row: the first one with a failed attempt.

    Both nodes are equal, so which is tried first hangs on what was measured last: the fault waits at the last one and
    at the other one in turn.
    """
    for number in range(50):
        last = post(pair, path, stream=False).headers["x-herd-node"]
        node = pair.nodes.nodes[last if number % 2 == 0 else {"a": "b", "b": "a"}[last]]
        pair.nodes.script(node.node_id, fault)
        answer = post(pair, path, stream)
        pair.nodes.clear()
        row = pair.router.row(answer.headers["x-request-id"])
        if row["retry_count"] == tried:
            return node, answer, row
    raise AssertionError("fifty requests in turn went to the node without the fault")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("kind", BEFORE_CONTENT)
def test_a_failure_before_the_first_content_is_answered_by_the_next_node(pair, kind, path, stream):
    """The client notices nothing, and the records say what happened."""
    node, answer, row = struck(pair, Fault(kind, times=2 if kind is FaultKind.RESET else 1), path, stream)
    assert answer.status_code == 200
    assert answer.headers["x-herd-node"] != node.node_id
    assert (row["status"], row["retry_count"], json.loads(row["excluded_nodes"])) == ("completed", 1, [node.node_id])


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("kind", BROKEN_STREAMS)
def test_a_stream_that_breaks_in_its_middle_says_so_to_the_client_and_in_the_records(pair, kind, path):
    """A truncated answer that passes for a whole one is the worst of all errors."""
    for node_id in pair.nodes.nodes:
        pair.nodes.script(node_id, Fault(kind, after=900 if kind is FaultKind.CUT else 3, model="paced:1b"))
    answer = post(pair, path, stream=True, model="paced:1b")
    last = answer.content.strip().split(b"\n")
    if path == "/api/chat":
        assert json.loads(last[-1])["error"]
    elif path == "/v1/messages":
        assert last[-2] == b"event: error"
    else:
        assert last[-1] == b"data: [DONE]"
        assert b'"error"' in answer.content
    row = pair.router.row(answer.headers["x-request-id"])
    assert (row["status"], row["http_status"], row["error_type"]) == ("incomplete", 200, "stream_aborted")
    assert any(line["event"].startswith("Stream error ") for line in pair.router.told(row["request_id"]))


def test_when_every_node_fails_the_client_hears_it_once_and_a_failed_row_is_written(pair):
    """502 with x-should-retry false: the router has tried the others already."""
    for node_id in pair.nodes.nodes:
        pair.nodes.script(node_id, Fault(FaultKind.HTTP_500))
    answer = post(pair, "/v1/chat/completions", stream=True)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (502, "false")
    assert answer.json()["error"]["code"] == "upstream_5xx"
    row = pair.router.row(answer.headers["x-request-id"])
    assert (row["status"], row["retry_count"], row["error_type"]) == ("failed", 1, "upstream_5xx")
    assert pair.router.metric("herd_retries_exhausted_total") >= 1


@pytest.mark.parametrize("kind", [FaultKind.MALFORMED_JSON, FaultKind.WRONG_CONTENT_LENGTH])
def test_a_whole_answer_that_is_broken_is_fetched_from_the_next_node(pair, kind):
    """Nothing went to the client yet, so nothing is lost."""
    node, answer, _ = struck(pair, Fault(kind), "/api/chat", stream=False)
    assert answer.status_code == 200
    assert answer.json()["done"] is True
    assert answer.headers["x-herd-node"] != node.node_id


def test_a_pooled_connection_that_the_node_closed_is_no_failure_of_the_node(pair):
    """llama.cpp does it after every stream; one fresh connection to the same node mends it."""
    for name in pair.nodes.nodes:
        pair.nodes.script(name, Fault(FaultKind.CLOSE_IDLE))
    answer = post(pair, "/api/chat", stream=False)
    assert answer.status_code == 200
    row = pair.router.row(answer.headers["x-request-id"])
    assert (row["retry_count"], row["node_id"]) == (0, answer.headers["x-herd-node"])


@pytest.mark.parametrize("when", ["prefill", "load", "mid_stream", "queue"])
def test_a_client_that_leaves_frees_its_slot_at_once(tmp_path, when):
    """Queue, load and prefill are exactly where impatient clients leave, and where slots leaked."""
    speeds = {
        "prefill": {"tokens_per_s": 50, "prefill_tokens_per_s": 0.1, "load_bytes_per_s": 0},
        "load": {"tokens_per_s": 50, "load_bytes_per_s": 1e7},
        "mid_stream": {"tokens_per_s": 5, "load_bytes_per_s": 0},
        "queue": {"tokens_per_s": 2, "load_bytes_per_s": 0},
    }
    fleet = started(tmp_path / "fleet", SimConfig("only", models=(SLOW,), slots=1, **speeds[when]))
    try:
        asyncio.run(leave(fleet, when))
        until(lambda: active(fleet) == 0, "nothing is in flight")
        node = fleet.nodes.nodes["only"]
        until(lambda: not sum(node.state()["in_flight"].values()), "the node works on nothing")
        rows = until(lambda: len(found := fleet.router.rows()) >= 1 + (when == "queue") and found, "the rows are there")
        assert {row["status"] for row in rows} == {"client_disconnected"}
        assert fleet.router.get("/fleet/status")["queues"] == {}
    finally:
        fleet.nodes.stop()
        fleet.router.stop()


def active(fleet):
    return fleet.router.get("/fleet/status")["fleet"]["requests_active"]


async def leave(fleet, when):
    body = json.dumps({"model": "slow:1b", "messages": [{"role": "user", "content": TEXT}]})
    wanted = 2 if when == "queue" else 1

    async def ask(session):
        async with session.post(fleet.url + "/api/chat", data=body) as answer:
            await answer.content.readany()
            arrived.set()
            await asyncio.Event().wait()

    arrived = asyncio.Event()
    async with aiohttp.ClientSession() as session:
        asks = [asyncio.create_task(ask(session)) for _ in range(wanted)]
        await eventually(lambda: active(fleet) == wanted, "the router has the requests")
        if when == "mid_stream":
            await arrived.wait()
        for task in reversed(asks):
            task.cancel()
        for task in asks:
            with suppress(asyncio.CancelledError):
                await task

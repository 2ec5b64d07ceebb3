"""Queues as clients see them: bounded, fair, never longer than they need be; and records that fail without them."""

import asyncio
import json
import sqlite3

import aiohttp
import httpx
import pytest

from herd.sim import Fault, FaultKind, SimConfig, SimModel
from tests.e2e.conftest import started
from tests.e2e.traffic import asking
from tests.harness import eventually, until

HELLO = [{"role": "user", "content": "Hello"}]
MODEL, OTHER = SimModel("slow:1b", size_gb=1.0), SimModel("other:1b", size_gb=1.0)


def fleet_of(tmp_path, *machines, **environment):
    return started(tmp_path / "fleet", *machines, **environment)


@pytest.fixture
def ended():
    """Fleets that end with the test."""
    running = []
    yield running
    for fleet in running:
        fleet.nodes.stop()
        fleet.router.stop()


async def ask_all(fleet, bodies):
    """All at once; gives each answer's status, Retry-After and request id in the order of the asks."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(body):
            asked = {"model": "slow:1b", "messages": HELLO, "stream": False, **body}
            key = {"Authorization": f"Bearer {body['user']}"} if "user" in body else {}
            async with session.post(fleet.url + "/api/chat", json=asked, headers=key) as answer:
                await answer.read()
                return answer.status, answer.headers.get("retry-after"), answer.headers["x-request-id"]

        return await asyncio.gather(*(one(body) for body in bodies))


async def ask_behind_one(fleet, bodies):
    """The same, where all but the first wait before that one is answered."""
    fleet.nodes.script("only", Fault(FaultKind.HANG_BEFORE_HEADERS))
    asking_all = asyncio.create_task(ask_all(fleet, bodies))
    await eventually(lambda: waiting(fleet) == len(bodies) - 1, "the others wait")
    fleet.nodes.clear()
    return await asking_all


def waiting(fleet):
    return sum(queue["depth"] for queue in fleet.router.get("/fleet/status")["queues"].values())


def test_a_full_queue_is_429_and_a_long_wait_is_503_both_with_a_time_to_come_back(tmp_path, ended):
    """A bounded queue tells its clients; an unbounded one tells nobody until memory is gone."""
    fleet = fleet_of(tmp_path, SimConfig("only", models=(MODEL,), slots=1), HERD_QUEUE_LIMIT="2",
                     HERD_QUEUE_TIMEOUT_S="2")  # fmt: skip
    ended.append(fleet)
    fleet.nodes.script("only", Fault(FaultKind.HANG_BEFORE_HEADERS, seconds=5))
    answers = asyncio.run(ask_all(fleet, [{}] * 5))
    assert sorted(status for status, _, _ in answers) == [200, 429, 429, 503, 503]
    assert all(1 <= int(retry) <= 60 for status, retry, _ in answers if status != 200)
    types = {fleet.router.row(request_id)["error_type"] for status, _, request_id in answers if status != 200}
    assert types == {"queue_full", "queue_timeout"}
    assert fleet.router.metric("herd_queue_rejected_total") == 4


def test_clients_take_turns_by_their_tag(tmp_path, ended):
    """One batch job must not starve a person."""
    fleet = fleet_of(tmp_path, SimConfig("only", models=(MODEL,), slots=1))
    ended.append(fleet)
    tagged = [{"metadata": {"tags": [tag]}} for tag in ["batch"] * 8 + ["person"]]
    asyncio.run(ask_behind_one(fleet, tagged))
    rows = until(lambda: len(found := fleet.router.rows()) == 9 and found, "nine rows")
    order = [json.loads(row["tags"])[0] for row in sorted(rows, key=lambda row: row["finished_at"])]
    assert order.index("person") <= 2


def test_clients_take_turns_by_their_key_though_none_has_a_tag(tmp_path, ended):
    """Behind a proxy all have one address; and `user` is a tag only by accident of this test, as is its order."""
    fleet = fleet_of(tmp_path, SimConfig("only", models=(MODEL,), slots=1))
    ended.append(fleet)
    same = {"metadata": {"tags": ["same"]}}
    asyncio.run(ask_behind_one(fleet, [{**same, "user": name} for name in ["batch"] * 8 + ["person"]]))
    rows = until(lambda: len(found := fleet.router.rows()) == 9 and found, "nine rows")
    order = [json.loads(row["tags"])[1] for row in sorted(rows, key=lambda row: row["finished_at"])]
    assert order.index("user:person") <= 2


def test_a_busy_model_is_waited_for_and_not_replaced(tmp_path, ended):
    """Equivalents spare a cold load; a queue is no reason to answer with another model, and to load that besides."""
    machine = SimConfig("only", models=(MODEL, OTHER), preload=("slow:1b",), slots=1)
    fleet = fleet_of(tmp_path, machine, HERD_EQUIVALENT_MODELS="slow:1b = other:1b")
    ended.append(fleet)
    asyncio.run(ask_behind_one(fleet, [{}, {}, {"fallback_models": ["other:1b"]}, {}]))
    rows = until(lambda: len(found := fleet.router.rows()) == 4 and found, "four rows")
    assert {(row["status"], row["model"], row["fallback_used"]) for row in rows} == {("completed", "slow:1b", 0)}


def test_what_a_client_breaks_off_says_nothing_of_the_node(tmp_path, ended):
    """Impatient clients would otherwise keep a broken node open to everybody."""
    fleet = fleet_of(tmp_path, SimConfig("a", models=(MODEL,), preload=("slow:1b",)))
    ended.append(fleet)
    for fault in (FaultKind.HTTP_500, FaultKind.HANG_BEFORE_HEADERS, FaultKind.HTTP_500):
        fleet.nodes.script("a", Fault(fault, times=4 if fault is FaultKind.HTTP_500 else 1))
    for _ in range(4):
        asyncio.run(ask_all(fleet, [{}]))
    with asking(fleet.router.port, "/api/chat", model="slow:1b", messages=HELLO):
        until(lambda: fleet.nodes.nodes["a"].state()["faults_applied"] == 5, "the node has it")
    until(lambda: fleet.router.rows("status = 'client_disconnected'"), "it has left")
    asyncio.run(ask_all(fleet, [{}]))
    (node,) = fleet.router.get("/fleet/status")["nodes"]
    assert node["breaker"] in {"open", "half_open"}


def test_a_second_try_does_not_go_to_a_node_that_is_drained_by_then(tmp_path, ended):
    """Who drains a machine is about to switch it off."""
    machines = [SimConfig(name, models=(MODEL,), preload=("slow:1b",)) for name in "ab"]
    fleet = fleet_of(tmp_path, *machines)
    ended.append(fleet)
    fleet.nodes.script("a", Fault(FaultKind.HANG_BEFORE_HEADERS))

    async def drained_meanwhile():
        asked = asyncio.create_task(ask_all(fleet, [{"stream": True}]))
        await eventually(lambda: fleet.nodes.nodes["a"].state()["faults_applied"], "a has it")
        async with aiohttp.ClientSession() as session:
            await (await session.post(f"{fleet.url}/fleet/nodes/b/drain")).read()
        await asyncio.to_thread(fleet.nodes.call, fleet.nodes.nodes["a"].kill())
        return await asked

    ((status, _, request_id),) = asyncio.run(drained_meanwhile())
    row = fleet.router.row(request_id)
    assert (status, row["error_type"], row["retry_count"], row["node_id"]) == (502, "connection_lost", 0, "a")


def test_many_requests_for_a_cold_model_cause_one_load(tmp_path, ended):
    """A load on every machine would push out what others use."""
    machines = [SimConfig(name, models=(MODEL,), slots=8, load_bytes_per_s=2e9, tokens_per_s=2000) for name in "ab"]
    fleet = fleet_of(tmp_path, *machines)
    ended.append(fleet)
    answers = asyncio.run(ask_all(fleet, [{"stream": True}] * 4))
    assert {status for status, _, _ in answers} == {200}
    assert sum(node.state()["loads"] for node in fleet.nodes.nodes.values()) == 1


def test_a_node_that_says_it_is_busy_gets_fewer_requests_and_another_answers(tmp_path, ended):
    """It knows its limit better than a setting does."""
    machines = [SimConfig(name, models=(MODEL,), preload=("slow:1b",)) for name in "ab"]
    fleet = fleet_of(tmp_path, *machines)
    ended.append(fleet)
    fleet.nodes.script("a", Fault(FaultKind.BUSY_503))
    ((status, _, request_id),) = asyncio.run(ask_all(fleet, [{}]))
    assert (status, fleet.router.row(request_id)["node_id"]) == (200, "b")
    told = until(lambda: fleet.router.lines("slots_limited"), "the log tells")
    assert [(line["node_id"], line["data"]["slots"]) for line in told] == [("a", 2)]


def test_five_failures_open_a_breaker_and_the_node_is_left_alone(tmp_path, ended):
    """A node that fails every request must not get every request."""
    machines = [SimConfig(name, models=(MODEL,), preload=("slow:1b",)) for name in "ab"]
    fleet = fleet_of(tmp_path, *machines)
    ended.append(fleet)
    fleet.nodes.script("a", Fault(FaultKind.HTTP_500, times=None))
    for _ in range(8):
        ((status, _, _),) = asyncio.run(ask_all(fleet, [{}]))
        assert status == 200
    nodes = {node["node_id"]: node for node in fleet.router.get("/fleet/status")["nodes"]}
    assert nodes["a"]["breaker"] in {"open", "half_open"} or fleet.nodes.nodes["a"].state()["faults_applied"] < 5
    assert fleet.nodes.nodes["a"].state()["faults_applied"] <= 6


def test_the_request_that_tries_out_a_node_is_retried_though_the_budget_is_spent(tmp_path, ended):
    """It was sent there for the good of all others."""
    node = {"models": (MODEL, OTHER), "load_bytes_per_s": 0, "prefill_tokens_per_s": 0}
    machines = [SimConfig("a", preload=("slow:1b", "other:1b"), **node), SimConfig("b", preload=("slow:1b",), **node)]
    fleet = fleet_of(tmp_path, *machines, HERD_RETRIES="1", HERD_FIRST_BYTE_TIMEOUT_S="60")
    ended.append(fleet)
    fleet.nodes.script("a", Fault(FaultKind.HTTP_500, times=None))
    fleet.nodes.script("b", Fault(FaultKind.HTTP_500, times=5, model="other:1b"))
    fails = [asyncio.run(ask_all(fleet, [{"model": "other:1b"}]))[0][0] for _ in range(5)]
    assert fails == [502] * 5
    until(lambda: {node["breaker"] for node in fleet.router.get("/fleet/status")["nodes"]} == {"half_open"},
          "both are tried out")  # fmt: skip
    fleet.nodes.script("b", Fault(FaultKind.HANG_BEFORE_HEADERS, times=3, model="slow:1b", seconds=30))

    async def with_a_spent_budget():
        retried = []
        for number in (6, 7, 8):  # one by one: of two at once the second would go to b from the first
            retried.append(asyncio.create_task(ask_all(fleet, [{}])))
            await eventually(lambda n=number: fleet.nodes.nodes["b"].state()["faults_applied"] == n, "it is retried")
        ((probe, _, request_id),) = await ask_all(fleet, [{"model": "other:1b"}])
        ((usual, _, _),) = await ask_all(fleet, [{}])
        for task in retried:
            task.cancel()
        return probe, request_id, usual

    probe, request_id, usual = asyncio.run(with_a_spent_budget())
    row = fleet.router.row(request_id)
    assert (probe, row["node_id"], row["retry_count"]) == (200, "b", 1)
    assert usual == 502, "the budget is spent"


@pytest.mark.parametrize("trouble", ["newer", "directory"])
def test_a_database_that_cannot_be_written_costs_no_request(tmp_path, ended, trouble):
    """Records serve requests, not the other way round; and the loss is counted."""
    home = tmp_path / "fleet" / ".fleet-manager"
    home.mkdir(parents=True)
    if trouble == "directory":
        (home / "latency.db").mkdir()
    else:
        with sqlite3.connect(home / "latency.db") as connection:
            connection.execute("PRAGMA user_version = 999")
    fleet = fleet_of(tmp_path, SimConfig("only", models=(MODEL,)))
    ended.append(fleet)
    answers = asyncio.run(ask_all(fleet, [{}] * 10))
    assert {status for status, _, _ in answers} == {200}
    until(lambda: fleet.router.metric("herd_trace_store_up") == 0, "the store says that it is down")
    assert httpx.get(fleet.url + "/dashboard/api/traces").status_code in {200, 503}
    assert len(until(lambda: len(found := fleet.router.lines()) == 10 and found, "ten lines")) == 10

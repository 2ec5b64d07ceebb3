"""Preload: what lately was asked for is in memory before it is asked for again, and nothing else is."""

import signal
import threading
import time

import httpx
import pytest

from herd.sim import Fault, FaultKind, SimConfig, SimModel
from tests.e2e.conftest import started
from tests.e2e.traffic import HELLO
from tests.harness import until

USUAL, FAULTY = (SimModel(f"{name}:1b", size_gb=0.1) for name in ("usual", "faulty"))
RUSH = SimModel("rush:1b", size_gb=1.0)
TEXT, VECTOR = SimModel("text:1b", size_gb=1.0), SimModel("vector:1b", size_gb=0.3, capabilities=("embedding",))
LARGE = SimModel("large:70b", size_gb=40.0)
OFTEN = 4  # requests: a little more than what counts as wanted
QUICK = {"HERD_PRELOAD_INTERVAL_S": "1"}
GENERATE = "/api/generate"


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Two equal nodes that load a gigabyte a second, and a router with the setting as it is from the start."""
    models = {"models": (USUAL, RUSH, FAULTY), "load_bytes_per_s": 1e9, "interval_s": 0.5}
    machines = [SimConfig(name, memory_gb=64, **models) for name in "ab"]
    running = started(tmp_path_factory.mktemp("twins"), *machines, **QUICK)
    yield running
    running.nodes.stop()
    running.router.stop()


@pytest.fixture(scope="module")
def tight(tmp_path_factory):
    """One small node, and a router that preloads; all three models were asked for, the large one most often."""
    machine = SimConfig("small", memory_gb=16, models=(TEXT, VECTOR, LARGE), interval_s=0.5)
    running = started(tmp_path_factory.mktemp("tight"), machine, HERD_PRELOAD="true", **QUICK)
    for _ in range(OFTEN):
        chat(running, "text:1b")
        post(running, "/api/embed", model="vector:1b", input="a")
    answers = [chat(running, "large:70b") for _ in range(2 * OFTEN)]
    assert {answer.status_code for answer in answers} == {503}
    until(lambda: len(running.router.rows()) == 4 * OFTEN, "all rows are there")
    yield running
    running.nodes.stop()
    running.router.stop()


def post(fleet, path, **body):
    return httpx.post(fleet.url + path, json=body, timeout=30)


def chat(fleet, model, **body):
    return post(fleet, "/api/chat", model=model, messages=HELLO, stream=False, **body)


def switch(fleet, on):
    post(fleet, "/dashboard/api/settings", preload=on).raise_for_status()


def want(fleet, model):
    """Ask for a model until it counts as wanted, then have no node hold it in memory."""
    for _ in range(OFTEN):
        assert chat(fleet, model).status_code == 200
    until(lambda: len(fleet.router.rows("original_model = ?", model)) >= OFTEN, "its rows are there")
    unload(fleet, model)


def unload(fleet, model):
    for node in fleet.nodes.nodes.values():
        httpx.post(node.url + GENERATE, json={"model": model, "keep_alive": 0}).raise_for_status()
    until(lambda: model not in seen(fleet), "the router knows that it is gone")


def seen(fleet):
    """The models that the router sees in a memory."""
    return {each["name"] for each in fleet.router.get("/api/ps")["models"]}


def holding(fleet, model):
    """The nodes that have a model in memory, or are loading it."""
    states = [node.state() for node in fleet.nodes.nodes.values()]
    return [state["node_id"] for state in states if model in [each["name"] for each in state["loaded"]]]


def sensors(fleet, node_id, **values):
    """Let a node report these sensors, and as it is where None."""

    async def told(node):
        node.hardware.set(**values)
        assert await node.report()

    fleet.nodes.call(told(fleet.nodes.nodes[node_id]))


def beats(fleet, more):
    """Wait for so many heartbeats of a node: half a second each."""
    node = next(iter(fleet.nodes.nodes.values()))
    before = node.state()["heartbeats"]["sent"]
    until(lambda: node.state()["heartbeats"]["sent"] >= before + more, f"{more} heartbeats")


def told(fleet, event, model):
    return [line for line in fleet.router.lines(event) if line["model"] == model]


@pytest.fixture
def off_again(twins):
    """The setting is off when the test is over, and no load is under way."""
    yield twins
    switch(twins, on=False)
    until(lambda: twins.router.get("/fleet/status")["fleet"]["requests_active"] == 0, "no load is under way")
    for node_id in twins.nodes.nodes:
        sensors(twins, node_id, memory_available_gb=None)
    twins.nodes.clear()


def test_a_model_is_loaded_ahead_only_once_the_setting_is_on_and_again_after_a_restart(off_again):
    """Nobody's memory is filled unasked; and on Monday morning the first request does not wait."""
    fleet = off_again
    want(fleet, "usual:1b")
    beats(fleet, 5)
    assert (holding(fleet, "usual:1b"), told(fleet, "preload", "usual:1b")) == ([], [])
    switch(fleet, on=True)
    (line,) = until(lambda: told(fleet, "preload", "usual:1b"), "it was loaded ahead")
    assert (line["level"], line["data"]["demand"] >= OFTEN - 1, line["data"]["seconds"] > 0) == ("INFO", True, True)
    assert holding(fleet, "usual:1b") == [line["node_id"]]
    assert fleet.router.stop(signal.SIGTERM) == 0
    for node in fleet.nodes.nodes.values():
        httpx.post(node.url + GENERATE, json={"model": "usual:1b", "keep_alive": 0})
    fleet.router.start()
    until(lambda: len(told(fleet, "preload", "usual:1b")) == 2, "it was loaded again")
    before = sum(node.engine.loads for node in fleet.nodes.nodes.values())
    assert chat(fleet, "usual:1b").status_code == 200
    assert sum(node.engine.loads for node in fleet.nodes.nodes.values()) == before, "the request caused no load"


def test_a_request_in_the_meantime_waits_for_that_load_and_causes_no_second_one(off_again):
    """Two machines loading one model is what preloading is meant to spare."""
    fleet = off_again
    want(fleet, "rush:1b")
    switch(fleet, on=True)
    (node_id,) = until(lambda: holding(fleet, "rush:1b"), "it is being loaded")
    sensors(fleet, node_id, memory_available_gb=3)  # by points the other would now be the better one
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(chat(fleet, "rush:1b"))) for _ in range(3)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(30)
    assert [(answer.status_code, answer.headers["x-herd-node"]) for answer in answers] == [(200, node_id)] * 3
    assert holding(fleet, "rush:1b") == [node_id]
    (line,) = until(lambda: told(fleet, "preload", "rush:1b"), "the log tells of it")
    assert line["node_id"] == node_id


def test_a_node_that_failed_to_load_a_model_is_left_alone_and_the_next_is_asked(off_again):
    """It would fail every two minutes, and its memory may be what is wrong."""
    fleet = off_again
    want(fleet, "faulty:1b")
    for node_id in "ab":  # each would load it if it were asked again
        fleet.nodes.script(node_id, Fault(FaultKind.HTTP_500, model="faulty:1b", path=GENERATE))
    switch(fleet, on=True)
    failed = until(lambda: len(lines := told(fleet, "preload_failed", "faulty:1b")) == 2 and lines, "both failed")
    assert {line["node_id"] for line in failed} == {"a", "b"}, "no node is tried twice"
    assert all("model runner has unexpectedly stopped" in line["data"]["reason"] for line in failed)
    assert {line["level"] for line in failed} == {"WARNING"}


def test_a_model_is_not_loaded_where_it_does_not_fit(tight):
    """The machine would swap, and everything on it would wait."""
    until(lambda: {"text:1b", "vector:1b"} <= seen(tight), "those that fit are loaded")
    beats(tight, 5)
    assert told(tight, "preload", "large:70b") == told(tight, "preload_failed", "large:70b") == []
    assert holding(tight, "large:70b") == []


def test_a_model_that_only_embeds_is_loaded_in_its_own_way(tight):
    """Ollama loads by a prompt that is empty, and such a model takes no prompt."""
    until(lambda: "vector:1b" in seen(tight), "it is loaded")
    before = len(told(tight, "preload", "vector:1b"))
    unloaded = {"model": "vector:1b", "input": [], "keep_alive": 0}
    httpx.post(tight.nodes.nodes["small"].url + "/api/embed", json=unloaded).raise_for_status()
    until(lambda: len(told(tight, "preload", "vector:1b")) > before, "it is loaded again")
    assert told(tight, "preload_failed", "vector:1b") == []


def test_a_wanted_model_is_kept_beyond_its_last_requests_keep_alive(tight):
    """To let it go and fetch it again two minutes later would serve nobody."""
    until(lambda: "text:1b" in seen(tight), "it is loaded")
    assert chat(tight, "text:1b", keep_alive="4s").status_code == 200
    node = tight.nodes.nodes["small"]
    before = node.engine.loads

    def stays_long():
        found = [each["expires_at"] for each in node.state()["loaded"] if each["name"] == "text:1b"]
        return found and found[0] is not None and found[0] > time.time() + 600

    until(stays_long, "its stay is prolonged")
    assert node.engine.loads == before, "it was never away"

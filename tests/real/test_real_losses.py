"""Real engines that die in the middle of their work: the client is told, the records say it, the other node serves on.

Both engines hold `slow`; `onolla` and `oncpp` are names of the same on one of them alone.
"""

import json
import signal
from functools import partial

import psutil
import pytest

from tests.harness import until
from tests.real.asks import TALK, post
from tests.real.conftest import ONE_THREAD, Fleet
from tests.real.test_real_disconnects import ENDLESS, Leaver

pytestmark = pytest.mark.real
STALL_S = 4
BRIEF = {"stream": False, "max_tokens": 2, "max_output_tokens": 2}
OPENAI_PATHS = [path for path in ENDLESS if path.startswith("/v1/")]


@pytest.fixture(scope="module")
def pair(tmp_path_factory, slow_model):
    """An Ollama and a llama.cpp server with the same model, and a router that waits only a little for a silent one."""
    running = Fleet(tmp_path_factory.mktemp("pair"), HERD_STALL_TIMEOUT_S=str(STALL_S))
    try:
        start_ollama(running)
        for name in ("slow", "onolla"):
            running.ollama.create(name, slow_model, ONE_THREAD, "PARAMETER num_ctx 2048")
        running.model = slow_model
        running.llama("cpp")
        start_llama(running)
        running.router.start()
        running.join()
        yield running
        audit = running.audit()
        assert audit.returncode == 0, audit.stdout
    finally:
        running.stop()


def start_ollama(pair):
    pair.ollama.start(OLLAMA_NUM_PARALLEL="2")


def start_llama(pair):
    pair.llamas["cpp"].start(pair.model, "oncpp", "slow:latest")


@pytest.fixture
def whole(pair):
    """The pair with both engines well and known to be, before the test and after it."""
    yield pair
    for server, start in ((pair.ollama, start_ollama), (pair.llamas["cpp"], start_llama)):
        if not server.family():
            start(pair)
    until(lambda: pair.router.online() == 2, "both engines are back")
    until(pair.at_rest, "nothing is in flight")


@pytest.fixture
def ask(whole):
    """Makes clients in the middle of an endless answer."""
    clients = []

    def begin(path, model, **body):
        clients.append(Leaver(whole.url, path, model, body or ENDLESS[path]))
        return clients[-1]

    yield begin
    for each in clients:
        each.leave()


def told(path, seen):
    """Whether the end of an answer says in the path's dialect that it broke off."""
    lines = seen.strip().split(b"\n")
    if path.startswith("/api/"):
        return bool(json.loads(lines[-1]).get("error"))
    if path in {"/v1/messages", "/v1/responses"}:
        return lines[-2] == b"event: error" and b"error" in lines[-1]
    return lines[-1] == b"data: [DONE]" and b'data: {"error":' in lines[-3]


def heard(client, path):
    """Wait for the end that the router makes of the answer."""
    until(lambda: not client.thread.is_alive(), "the answer has ended")
    assert told(path, client.seen), client.seen[-600:]


def whose(kind, pair):
    return [event["node_id"] for event in pair.events(kind)]


def incomplete(pair, client, *kinds):
    row = pair.router.row(client.id)
    assert (row["status"], row["http_status"]) == ("incomplete", 200)
    assert row["error_type"] in kinds
    assert row["completion_tokens"] is not None
    return row


@pytest.mark.parametrize("path", OPENAI_PATHS)
def test_a_killed_llamacpp_server_is_told_of_in_mid_stream_and_the_other_node_serves_on(whole, ask, path):
    """A crash of one machine costs the answers that it was giving, and nothing more."""
    lost = len(whose("engine_lost", whole))
    client = ask(path, "oncpp")
    until(lambda: client.seen, "the answer has begun")
    whole.llamas["cpp"].kill()
    heard(client, path)
    incomplete(whole, client, "stream_aborted")
    answer = post(whole.url, path, "slow", **{**ENDLESS[path], **BRIEF})
    assert (answer.status_code, answer.headers["x-herd-node"]) == (200, "olla")
    until(lambda: whose("engine_lost", whole)[lost:] == ["cpp"], "the loss is on record")
    refused = post(whole.url, path, "oncpp", **ENDLESS[path])
    assert (refused.status_code, "engine unreachable" in refused.text) == (503, True)


@pytest.mark.parametrize("path", ENDLESS)
def test_a_killed_ollama_is_told_of_in_mid_stream_and_the_other_node_serves_what_it_can(whole, ask, path):
    """The other node does not speak /api/*; for those the answer says who could not help, and why."""
    lost = len(whose("engine_lost", whole))
    client = ask(path, "onolla")
    until(lambda: client.seen, "the answer has begun")
    whole.ollama.kill()
    heard(client, path)
    incomplete(whole, client, "stream_aborted")
    until(lambda: whose("engine_lost", whole)[lost:] == ["olla"], "the loss is on record")
    answer = post(whole.url, path, "slow", **{**ENDLESS[path], **BRIEF})
    if path.startswith("/api/"):
        assert answer.status_code == 503
        assert "olla: engine unreachable" in answer.json()["error"]
        assert "cpp: engine does not support this endpoint" in answer.json()["error"]
    else:
        assert (answer.status_code, answer.headers["x-herd-node"]) == (200, "cpp")


@pytest.mark.parametrize("path", ENDLESS)
def test_a_killed_runner_of_ollama_is_told_of_though_ollama_hides_it(whole, ask, path):
    """The server lives on and ends the answer in good order: in its /v1 dialects without any word of the failure."""
    client = ask(path, "onolla")
    until(lambda: client.seen, "the answer has begun")
    kill_runners(whole)
    heard(client, path)
    incomplete(whole, client, "stream_aborted")
    brief = {"messages": TALK, "stream": False, "options": {"num_predict": 1}}
    assert post(whole.url, "/api/chat", "onolla", **brief).json()["done"] is True


def test_a_request_without_a_word_of_its_answer_is_served_by_the_other_node(whole, ask):
    """Nothing reached the client yet, so it need not know that a machine died."""
    client = ask("/v1/chat/completions", "slow", messages=TALK, max_tokens=400, stream=False)
    busy = until(lambda: [node for node in ("olla", "cpp") if active(whole, node)], "a node works on it")[0]
    (whole.ollama if busy == "olla" else whole.llamas["cpp"]).kill()
    until(lambda: not client.thread.is_alive(), "the answer is here", 60)
    assert json.loads(client.seen)["usage"]["completion_tokens"] == 400
    row = whole.router.row(client.id)
    assert (row["status"], row["retry_count"], json.loads(row["excluded_nodes"])) == ("completed", 1, [busy])
    assert row["node_id"] == ("cpp" if busy == "olla" else "olla")


def test_streams_that_ollama_leaves_hanging_when_their_runner_dies_are_ended_by_the_stall_limit(whole, ask):
    """Of several streams on one runner it may end one and forget the others; they would hang for ever."""
    clients = [ask("/v1/chat/completions", "onolla") for _ in range(2)]
    until(lambda: all(client.seen for client in clients), "both answers have begun")
    kill_runners(whole)
    for client in clients:
        heard(client, "/v1/chat/completions")
    kinds = sorted(incomplete(whole, client, "stream_aborted", "stall_timeout")["error_type"] for client in clients)
    assert "stream_aborted" in kinds


def test_a_llamacpp_server_that_is_asked_to_stop_goes_silent_and_its_stream_is_ended_by_the_stall_limit(whole, ask):
    """It refuses new connections at once and holds the running ones without a byte; no client must hang on that."""
    client = ask("/v1/chat/completions", "oncpp")
    until(lambda: client.seen, "the answer has begun")
    whole.llamas["cpp"].running.send_signal(signal.SIGTERM)
    heard(client, "/v1/chat/completions")
    incomplete(whole, client, "stream_aborted", "stall_timeout")
    whole.llamas["cpp"].kill()


def test_an_engine_that_comes_back_is_used_again(whole):
    """Nobody has to tell the router that the machine was mended."""
    back = len(whose("engine_back", whole))
    whole.llamas["cpp"].kill()
    until(lambda: not whole.node("cpp")["ollama"]["reachable"], "the loss is known")
    start_llama(whole)
    until(lambda: "cpp" in whose("engine_back", whole)[back:], "its return is known")
    # On a busy machine its agent may miss it once more before it is there for good.
    brief = {"prompt": "Once", "max_tokens": 2}
    ask_it = partial(post, whole.url, "/v1/completions", "oncpp", **brief)
    answer = until(lambda: (got := ask_it()).is_success and got, "it is used again")
    assert answer.json()["usage"]["completion_tokens"] == 2


def active(pair, node_id):
    return pair.node(node_id)["ollama"]["requests_active"]


def kill_runners(pair):
    runners = [psutil.Process(pid) for pid in pair.ollama.runners()]
    assert runners
    for runner in runners:
        runner.kill()

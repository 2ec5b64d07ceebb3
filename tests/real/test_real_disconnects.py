"""A client that leaves frees its slot, and the real engine stops working for it."""

import json
import socket
import threading
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from uuid import uuid4

import pytest

from tests.harness import until
from tests.real.asks import TALK, post

pytestmark = pytest.mark.real
LONG = [{"role": "user", "content": "sheep " * 600}]
ENDLESS = {
    "/api/chat": {"messages": TALK, "options": {"num_predict": -1}},
    "/api/generate": {"prompt": "Once", "options": {"num_predict": -1}},
    "/v1/chat/completions": {"messages": TALK, "stream": True},
    "/v1/completions": {"prompt": "Once", "stream": True},
    "/v1/messages": {"messages": TALK, "max_tokens": 100_000, "stream": True},
    "/v1/responses": {"input": "Once", "stream": True},
}


class Leaver:
    """A client in a thread of its own that asks for an answer without an end, and can leave at any moment."""

    def __init__(self, url, path, model, body):
        self.connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
        self.seen, self.id = b"", uuid4().hex
        self.connection.request("POST", path, json.dumps({"model": model, **body}), {"X-Request-Id": self.id})
        self.socket = self.connection.sock
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self):
        with suppress(HTTPException, OSError):  # it leaves in the middle of something
            answer = self.connection.getresponse()
            while chunk := answer.read1():
                self.seen += chunk

    def leave(self):
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(20)
        self.connection.close()


@pytest.fixture
def client(fleet):
    """Makes clients that leave at the latest when the test is over."""
    clients = []

    def enter(path, model, **body):
        clients.append(Leaver(fleet.url, path, model, body or ENDLESS[path]))
        return clients[-1]

    yield enter
    for each in clients:
        each.leave()
    until(fleet.at_rest, "nothing is in flight")


@pytest.mark.parametrize("path", [path for path in ENDLESS if path.startswith("/v1/")])
def test_a_client_that_leaves_in_mid_stream_stops_llamacpp(fleet, client, path):
    """Its slot would otherwise work to the end of an answer that nobody reads."""
    reader = client(path, "slowcpp")
    until(lambda: reader.seen, "the answer has begun")
    assert fleet.llamas["slowcpp"].working() == 1
    reader.leave()
    until(lambda: fleet.llamas["slowcpp"].working() == 0, "the engine has stopped")
    row = fleet.router.row(reader.id)
    assert (row["status"], row["http_status"], row["error_type"]) == ("client_disconnected", 499, None)
    assert row["time_to_first_token_ms"] is not None


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_the_first_token_stops_llamacpp(fleet, client, stream):
    """A long prompt, or an answer that is not streamed: nothing came yet, and impatient clients leave just then."""
    reader = client("/v1/chat/completions", "slowcpp", messages=LONG if stream else TALK, stream=stream)
    until(fleet.llamas["slowcpp"].working, "the engine works")
    reader.leave()
    assert reader.seen == b""
    # Not by /slots: every answer there puts off the moment at which the server looks whether its client is still there.
    until(fleet.llamas["slowcpp"].is_idle, "the engine has stopped")
    assert fleet.llamas["slowcpp"].working() == 0
    row = fleet.router.row(reader.id)
    assert (row["status"], row["time_to_first_token_ms"]) == ("client_disconnected", None)


@pytest.mark.parametrize("path", ENDLESS)
def test_clients_that_leave_in_mid_stream_free_both_slots_of_ollama(fleet, client, path):
    """Both slots are taken by answers without an end: if one went on, the next request would wait for ever."""
    readers = [client(path, "slow") for _ in range(2)]
    until(lambda: all(reader.seen for reader in readers), "both answers have begun")
    for reader in readers:
        reader.leave()
    ask = {"messages": TALK, "stream": False, "options": {"temperature": 0, "num_predict": 1}}
    assert [post(fleet.ollama.url, "/api/chat", "slow", **ask).json()["eval_count"] for _ in range(2)] == [1, 1]
    assert {fleet.router.row(reader.id)["status"] for reader in readers} == {"client_disconnected"}


def test_a_client_that_leaves_while_it_waits_never_reaches_the_engine(fleet, client):
    """Two have the slots of llama.cpp, the third waits at the router; its leaving must not cost a slot."""
    readers = [client("/v1/completions", "slowcpp") for _ in range(3)]
    until(lambda: sum(bool(reader.seen) for reader in readers) == 2, "two answers have begun")
    until(lambda: fleet.router.get("/fleet/status")["queues"], "one waits")
    next(reader for reader in readers if not reader.seen).leave()
    until(lambda: not fleet.router.get("/fleet/status")["queues"], "none waits")
    assert fleet.llamas["slowcpp"].working() == 2
    for reader in readers:
        reader.leave()
    rows = [fleet.router.row(reader.id) for reader in readers]
    assert {row["status"] for row in rows} == {"client_disconnected"}
    assert sorted((row["queue_ms"] or 0) > 0 for row in rows) == [False, False, True]
    until(lambda: fleet.llamas["slowcpp"].working() == 0, "the engine has stopped")

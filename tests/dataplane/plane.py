"""A data plane with a real cell and keeper, scripted nodes, and clients of its ASGI surface; all in virtual time."""

import asyncio
import json
from contextlib import asynccontextmanager

from herd.core.clock import Clock, moment
from herd.core.dialects import ENDPOINTS
from herd.core.events import Attempt, AttemptFailed, Finished
from herd.dataplane.request_ids import RequestIds
from herd.dataplane.serve import DataPlane
from herd.dataplane.trace_ids import new_ids
from herd.fleet.cell import Cell
from herd.fleet.keeper import Keeper
from herd.settings.load import load
from tests.dataplane.scripted_upstream import ScriptedUpstream
from tests.fleet.test_cell import beat

M = "llama:8b"
CHAT, COMPLETIONS, MESSAGES, RESPONSES = "/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses"


def line(**document):
    """A line of Ollama's."""
    return json.dumps(document).encode() + b"\n"


def said(text):
    """A line of Ollama's with content."""
    return line(message={"content": text}, done=False)


DONE = line(message={"content": ""}, done=True, done_reason="stop", prompt_eval_count=3, eval_count=2)
HELLO = [said("Hel"), said("lo"), DONE]


def event(**document):
    """An event of OpenAI's streams."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def delta(text, **choice):
    """An event with content."""
    return event(choices=[{"index": 0, "delta": {"content": text}, **choice}])


END = b"data: [DONE]\n\n"
STOP = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])


def settings(**changes):
    """The settings of the table, with these."""
    return load({"data_dir": "/nonexistent", **changes}, {})


class Caller:
    """One client: its request as ASGI has it, and what it was sent. It leaves when `left` is set."""

    def __init__(self, body, path=CHAT, headers=(), method="POST", query="", parts=None):
        self.scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in dict(headers).items()],
            "client": ("127.0.0.1", 5000),
        }  # fmt: skip
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.parts = [self.body] if parts is None else list(parts)
        self.left, self.reads = asyncio.Event(), asyncio.Event()
        self.reads.set()  # cleared, or after so many messages as it `takes`, it reads nothing more
        self.messages, self.offered, self.takes = [], 0, 1_000_000

    async def receive(self):
        """The body in its parts, then nothing until the client leaves."""
        if self.parts:
            part = self.parts.pop(0)
            if isinstance(part, bytes):
                return {"type": "http.request", "body": part, "more_body": bool(self.parts)}
            await part.wait()
            return await self.receive()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        """What the server sends."""
        self.offered += 1
        if self.offered > self.takes:
            self.reads.clear()
        await self.reads.wait()
        self.messages.append(message)

    @property
    def status(self):
        """The status that came."""
        return self.messages[0]["status"] if self.messages else None

    @property
    def headers(self):
        """The headers that came."""
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def answer(self):
        """The bytes that came."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def whole(self):
        """Whether the answer came to its end."""
        return bool(self.messages) and not self.messages[-1].get("more_body", True)

    @property
    def error(self):
        """The document of an error answer."""
        return json.loads(self.answer)


class Plane:
    """Nodes by name, each with its scripts; two of them hold the model in memory unless `beats` say otherwise."""

    def __init__(self, beats=None, queue_limit=10, with_settings=(), **scripts):
        self.settings = settings(**dict(with_settings))
        self.events = []
        self.upstream = ScriptedUpstream(**scripts)
        self.keeper = Keeper(Cell(queue_limit=queue_limit), self.events.append, 30.0)
        self.cell = self.keeper.cell
        self.beats = beats or [node(name) for name in scripts]
        self.hear()
        self.serving = DataPlane(
            self.settings, self.keeper, self.upstream, self.events.append, new_ids, RequestIds(),
            new_clock=lambda: Clock(asyncio.get_running_loop().time),
        )  # fmt: skip

    async def ask(self, caller=None):
        """One request to its end: its Finished, and the client with what it has."""
        caller = caller or chat()
        before = len(self.finished)
        await self.serve(caller)
        (finished,) = self.finished[before:]
        assert (self.cell.slots.in_flight(), len(self.serving.flights), self.upstream.open) == ({}, 0, 0)
        return finished, caller

    async def serve(self, caller):
        """Serve one request."""
        await self.serving.serve(ENDPOINTS[caller.scope["path"]], caller.scope, caller.receive, caller.send)

    @asynccontextmanager
    async def asking(self, caller=None):
        """A request under way while the block runs; its end is awaited then."""
        caller = caller or chat()
        task = asyncio.create_task(self.serve(caller))
        yield caller
        await task

    def hear(self):
        """A heartbeat of every node."""
        for each in self.beats:
            self.keeper.heard(each)

    @asynccontextmanager
    async def kept(self):
        """While the block runs, the keeper looks once a second for requests that are stuck, and the nodes are there."""

        def tick():
            self.serving.reap()
            self.hear()

        self.keeper.on_tick = tick
        keeping = asyncio.create_task(self.keeper.run())
        yield
        keeping.cancel()

    def of(self, kind):
        """The events of one class."""
        return [each for each in self.events if isinstance(each, kind)]

    def changes(self, kind):
        """The changes of the fleet of one kind."""
        return [each for each in self.events if getattr(each, "kind", None) == kind]

    @property
    def finished(self):
        """How requests ended."""
        return self.of(Finished)

    @property
    def failures(self):
        """Node, kind and whether another was tried, for each attempt that failed."""
        return [(each.attempt.node_id, each.attempt.error_type, each.will_retry) for each in self.of(AttemptFailed)]

    def judged(self, node_id, model=M):
        """What the breaker of a node and model has seen: True for each failure."""
        return self.cell.entries[node_id].service(model).breaker.recent

    def break_open(self, node_id, ago_s=0.0, model=M):
        """Five failures, so long ago, have opened the breaker of a node."""
        failed = Attempt(1, node_id, model, "", "", 0.0, 0.0, error_type="connect")
        for _ in range(5):
            self.cell.attempted(failed, moment().after(-ago_s))


def node(node_id, loaded=(M,), **changes):
    """The heartbeat of a node at an address of its own, with the model in memory."""
    return beat(node_id, **{"loaded": loaded, "url": f"http://{node_id}:11434", **changes})


def chat(path=CHAT, headers=(), **body):
    """A client that asks for an answer."""
    document = {"model": M, "messages": [{"role": "user", "content": "Hi"}], **body}
    return Caller(document, path, headers)


async def until(condition):
    """Give the loop turns until this is true; no time passes meanwhile."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to that")

"""Management requests (show, pull, delete, …): handed to one node, bytes passed through both ways, one Managed event.

They take no slot and are never retried: most of them change something.
"""

import asyncio
import json
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from dataclasses import replace
from urllib.parse import parse_qs

from herd.core import errors
from herd.core.clock import Clock, moment
from herd.core.dialects import PASSED, dialect_of, error_body
from herd.core.errors import NO_NODE_RETRY_S
from herd.core.events import Attempt, Event, Managed, TraceIds
from herd.core.fleet import Fleet, Node
from herd.core.placement import all_holders, can_manage, place
from herd.core.room import Room
from herd.dataplane.client import Client, ClientGone, RawHeaders, Receive, Scope, Send
from herd.dataplane.coding import unpacked
from herd.dataplane.commands import Command, Told, also, named, spokesman
from herd.dataplane.document import read
from herd.dataplane.exchange import Answer, Call, Upstream
from herd.dataplane.flights import LAST_WORDS_S, STOPPED, STOPPING, STOPPING_RETRY_S
from herd.dataplane.headers import request_headers, response_headers
from herd.dataplane.passed import model_named, node_for
from herd.dataplane.phases import CLIENT_CLOSED
from herd.dataplane.replies import error_headers, no_nodes, not_spoken
from herd.dataplane.request_ids import RequestIds
from herd.dataplane.trace_ids import new_span_id, traceresponse
from herd.fleet.keeper import Keeper
from herd.settings.values import Settings

CHANGES_MODELS = frozenset({"/api/pull", "/api/create", "/api/copy", "/api/delete"})
LISTING_TIMEOUT_S = 2.0
LISTING_LIMIT = 16 * 2**20
DELETE = "/api/delete"
MODEL_FIELDS = ("model", "name", "source")


class Management:
    """What every management request needs; one for the router's life."""

    def __init__(
        self,
        settings: Settings,
        keeper: Keeper,
        upstream: Upstream,
        emit: Callable[[Event], None],
        new_ids: Callable[[str | None], TraceIds],
        request_ids: RequestIds,
        room: Room | None = None,
    ) -> None:
        self.settings = settings
        self.keeper = keeper
        self.upstream = upstream
        self.stopping = False
        self._emit = emit
        self._new_ids = new_ids
        self._request_ids = request_ids
        self._room = room
        self._under_way: dict[asyncio.Task[object], Client] = {}

    async def serve(self, endpoint: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one management request; `endpoint` is its path without a digest."""
        client, clock = Client(scope, receive, send, self._room), Clock()
        request_id = self._request_ids.take(client.named.get("x-request-id", ""))
        ids = self._new_ids(client.named.get("traceparent"))
        errand = Errand(self, client, endpoint, ids, request_id, clock)
        received_at, error, status = clock.now(), None, 500
        task = asyncio.current_task()
        assert task is not None
        self._under_way[task] = client
        try:
            status = await errand.run()
        except ClientGone:
            status = CLIENT_CLOSED
        except errors.HerdError as failure:
            error, status = failure, failure.status
        finally:
            del self._under_way[task]
            client.let_go()
            self._emit(
                Managed(request_id, ids, endpoint, errand.model, errand.node_id, status, received_at, clock.now(),
                        error.error_type if error else None, error.message if error else None,
                        client.method, client.path, client.address or None, errand.attempt)
            )  # fmt: skip
            for each in errand.others:
                self._emit(also(request_id, ids, endpoint, each, client))
        if error and not client.gone:
            with suppress(ClientGone):
                await _tell(client, errand, endpoint, error)

    async def drain(self, grace_s: float) -> None:
        """Take no more requests, let the running ones end, and after `grace_s` end those that are left."""
        self.stopping = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=grace_s)
        ended = [task for task, client in tuple(self._under_way.items()) if client.end(errors.Internal(STOPPED))]
        if ended:
            await asyncio.wait(ended, timeout=LAST_WORDS_S)


class Errand:
    """One management request on its way to its node."""

    def __init__(
        self, management: Management, client: Client, endpoint: str, ids: TraceIds, request_id: str, clock: Clock
    ) -> None:
        self._management = management
        self._clock = clock
        self._client = client
        self._endpoint = endpoint
        self._ids = ids
        self._request_id = request_id
        self.model: str | None = None
        self.node_id: str | None = None
        self.attempt: Attempt | None = None
        self.others: list[Told] = []

    async def run(self) -> int:
        """Hand the request on and its answer back; returns the status that the node answered."""
        if self._management.stopping:
            raise errors.NoNode(STOPPING, STOPPING_RETRY_S)
        if self._endpoint == "/api/blobs":
            sends = self._client.method == "POST"
            with self._client.endable():
                return await self._relay(self._choose(), self._client.chunks() if sends else None)
        limit = self._management.settings.count("body_limit_mb") * 2**20
        body = await self._client.body(limit)
        if self._endpoint in PASSED:
            return await self._pass(unpacked(body, self._client.named.get("content-encoding", ""), limit))
        document = read(body).document
        as_asked = next((value for key in MODEL_FIELDS if (value := document.get(key))), None)
        if not isinstance(as_asked, str):
            raise errors.BadRequest("model is required")
        spelled = self._management.keeper.cell.spelled
        self.model = spelled(as_asked)
        if self._endpoint == DELETE and not self._wanted():
            async with self._client.watched():
                return await self._delete_everywhere(as_asked, body)
        source = document.get("from")
        node = self._choose(as_asked, spelled(source) if isinstance(source, str) else None)
        async with self._client.watched():
            return await self._relay(node, body)

    async def _pass(self, body: bytes) -> int:
        """Hand on what only some engines answer."""
        client, cell = self._client, self._management.keeper.cell
        as_asked = model_named(body, client.named.get("content-type", ""), client.query)
        self.model = cell.spelled(as_asked) if as_asked else None
        fleet, wanted = cell.fleet(moment()), self._wanted()
        node = _named(fleet, wanted, self._endpoint) if wanted else node_for(fleet, self._endpoint, self.model)
        if not fleet.nodes:
            raise no_nodes()
        if node is None and self.model and not cell.knows(self.model):
            raise errors.ModelMissing(f"model '{as_asked}' not found")
        if node is None:
            holding = f" that holds '{as_asked}'" if as_asked else ""
            raise errors.NotSpoken(f"no engine of the fleet{holding} supports {self._endpoint} now")
        self.node_id = node.node_id
        async with client.watched():
            return await self._relay(node, body if client.method == "POST" else None)

    def headers(self) -> RawHeaders:
        """The headers that describe where the request went."""
        node = [(b"x-herd-node", self.node_id.encode())] if self.node_id else []
        ids = [(b"x-request-id", self._request_id.encode()), (b"traceresponse", traceresponse(self._ids).encode())]
        return ids + node

    def _choose(self, as_asked: str = "", source: str | None = None) -> Node:
        cell = self._management.keeper.cell
        fleet = cell.fleet(moment())
        wanted = self._wanted()
        node = _named(fleet, wanted, self._endpoint) if wanted else place(fleet, self._endpoint, self.model, source)
        if not fleet.nodes:
            raise no_nodes()
        if node is None and self.model and not cell.knows(self.model):
            raise errors.ModelMissing(f"model '{as_asked}' not found")
        if node is None and (kinds := not_spoken(fleet, self._endpoint, [self.model or ""])):
            raise errors.NotSpoken(f"model '{as_asked}' is only on {kinds}, which does not support {self._endpoint}")
        if node is None:
            raise errors.NoNode(f"no node can take {self._endpoint} now; `herd status` shows why", NO_NODE_RETRY_S)
        self.node_id = node.node_id
        return node

    def _wanted(self) -> str | None:
        """The node that the client names."""
        return parse_qs(self._client.query.decode("latin-1")).get("node_id", [None])[0]

    async def _delete_everywhere(self, as_asked: str, body: bytes) -> int:
        """Delete a model from every node that holds it; the answer names them, and is an error where one failed."""
        management, client = self._management, self._client
        nodes = all_holders(management.keeper.cell.fleet(moment()), self._endpoint, self.model or "")
        if not nodes:
            return await self._relay(self._choose(as_asked), body)
        due_s = management.settings.number("total_timeout_s")
        command = Command(client.method, client.raw_path, client.headers, body, self.model or "", self._ids,
                          self._clock, due_s)  # fmt: skip
        told = await command.carry_out(management.upstream, nodes)
        await asyncio.gather(*(self._list_again(each.node) for each in told if each.done))
        speaks = spokesman(told, all_must=True)
        self.attempt, self.node_id = speaks.attempt, speaks.node.node_id
        self.others = [each for each in told if each is not speaks]
        if speaks.answer is None:
            assert speaks.error is not None
            done = ", ".join(each.node.node_id for each in told if each.done)
            raise type(speaks.error)(f"node {self.node_id}: {speaks.error.message}; deleted from: {done or 'none'}")
        status, headers, said = speaks.answer
        length = (b"content-length", str(len(said)).encode())
        await client.start(status, [*headers, *named(self.headers(), told), length])
        await client.finish(said)
        return status

    async def _relay(self, node: Node, body: bytes | AsyncIterable[bytes] | None) -> int:
        url, span_id, began = node.url + self._client.raw_path, new_span_id(), self._clock.now()
        headers = request_headers(self._client.headers, self._ids, span_id)
        if self._endpoint in PASSED:
            kind = self._client.named.get("content-type", "application/json").encode("latin-1")
            headers = [(name, kind if name == b"content-type" else value) for name, value in headers]
            url += "?" + self._client.query.decode("latin-1") if self._client.query else ""
        call = Call(self._client.method, url, headers, body)
        self.attempt = Attempt(1, node.node_id, self.model or "", url, span_id, began, began)
        error: errors.AttemptError | None = None
        try:
            async with self._management.upstream.exchange(call, self._due()) as answer:
                self.attempt = replace(self.attempt, http_status=answer.status, reconnected=answer.reconnected)
                await self._hand_back(node, answer)
                return answer.status
        except errors.AttemptError as failure:
            error = failure
            raise
        finally:
            self.attempt = replace(
                self.attempt,
                ended_at=self._clock.now(),
                error_type=error.error_type if error else None,
                error_message=error.message if error else None,
            )

    async def _hand_back(self, node: Node, answer: Answer) -> None:
        changed = self._endpoint in CHANGES_MODELS and answer.status < 400
        whole = answer.content_length is not None  # what begins so is done; progress is chunked
        if changed and whole:
            await self._list_again(node)
        length = [(b"content-length", str(answer.content_length).encode())] if whole else []
        await self._client.start(answer.status, [*response_headers(answer.headers), *self.headers(), *length])
        answer.content_seen = True
        answer.due_at = self._due()
        while chunk := await answer.read():
            self._client.broken_line = not chunk.endswith(b"\n")
            await self._client.write(chunk)
            answer.due_at = self._due()
        if changed and not whole:
            await self._list_again(node)
        await self._client.finish()

    async def _list_again(self, node: Node) -> None:
        # The next heartbeat would tell, but the client's next command may be sooner than that.
        due_at = asyncio.get_running_loop().time() + LISTING_TIMEOUT_S
        with suppress(errors.AttemptError, ValueError, KeyError, TypeError):
            async with self._management.upstream.exchange(Call("GET", f"{node.url}/api/tags", ()), due_at) as answer:
                body, _ = await answer.read_limited(LISTING_LIMIT)
            listed = [entry for entry in json.loads(body)["models"] if isinstance(entry, dict)]
            self._management.keeper.relisted(node.node_id, listed)

    def _due(self) -> float:
        """The event loop's time by which the node's next bytes must be here."""
        return asyncio.get_running_loop().time() + self._management.settings.number("total_timeout_s")


async def _tell(client: Client, errand: Errand, endpoint: str, error: errors.HerdError) -> None:
    """An error answer if nothing went out yet, else a last line of progress; what had a length is cut."""
    body = error_body(dialect_of(endpoint), error)
    if not client.started:
        length = (b"content-length", str(len(body)).encode())
        await client.start(error.status, [*errand.headers(), *error_headers(error), length])
        await client.finish(body)
    elif not client.promised:
        await client.finish(b"\n" * client.broken_line + body + b"\n")


def _named(fleet: Fleet, node_id: str, endpoint: str) -> Node:
    node = next((node for node in fleet.nodes if node.node_id == node_id), None)
    if node is None:
        raise errors.BadRequest(f"no node {node_id!r} in the fleet; `herd status` lists all nodes")
    if not can_manage(node, endpoint):
        raise errors.NoNode(f"node {node_id} is offline, or its engine does not support {endpoint}", NO_NODE_RETRY_S)
    return node

"""Management requests (show, pull, delete, …): handed to one node, bytes passed through both ways, one Managed event.

They take no slot and are never retried: most of them change something.
"""

import asyncio
from collections.abc import AsyncIterable
from contextlib import suppress
from urllib.parse import parse_qs

import aiohttp

from herd import errors
from herd.clock import Clock
from herd.core.events import Attempt, Managed, TraceIds
from herd.core.fleet import Fleet, Node
from herd.core.placement import can_manage, place
from herd.dataplane.answer import error_headers, no_nodes
from herd.dataplane.client import Client, ClientGone, RawHeaders, Receive, Scope, Send
from herd.dataplane.dialects import dialect_of, error_body
from herd.dataplane.flights import STOPPING, STOPPING_RETRY_S
from herd.dataplane.parse import read_document
from herd.dataplane.serve import CLIENT_CLOSED, DataPlane
from herd.dataplane.upstream import CLIENT_ERRORS, as_attempt_error, request_headers, response_headers
from herd.telemetry.trace_ids import new_span_id, traceresponse

CHANGES_MODELS = frozenset({"/api/pull", "/api/create", "/api/copy", "/api/delete"})
LISTING_TIMEOUT_S = 2.0
MODEL_FIELDS = ("model", "name", "source")


class Management:
    """What every management request needs; one for the router's life."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def serve(self, endpoint: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one management request; `endpoint` is its path without a digest."""
        client, clock = Client(scope, receive, send), Clock()
        request_id = self._plane.request_ids.take(client.named.get("x-request-id", ""))
        ids = self._plane.new_ids(client.named.get("traceparent"))
        errand = Errand(self._plane, client, endpoint, ids, request_id, clock)
        received_at, error, status = clock.now(), None, 500
        task = asyncio.current_task()
        assert task is not None
        self._plane.errands[task] = client
        try:
            status = await errand.run()
        except ClientGone:
            status = CLIENT_CLOSED
        except errors.HerdError as failure:
            error, status = failure, failure.status
        finally:
            del self._plane.errands[task]
            self._plane.emit(
                Managed(request_id, ids, endpoint, errand.model, errand.node_id, status, received_at, clock.now(),
                        error.error_type if error else None, error.message if error else None,
                        client.method, client.path, client.address or None, errand.attempt)
            )  # fmt: skip
        if error and not client.gone:
            with suppress(ClientGone):
                await _tell(client, errand, endpoint, error)


class Errand:
    """One management request on its way to its node."""

    def __init__(
        self, plane: DataPlane, client: Client, endpoint: str, ids: TraceIds, request_id: str, clock: Clock
    ) -> None:
        self._plane = plane
        self._clock = clock
        self._client = client
        self._endpoint = endpoint
        self._ids = ids
        self._request_id = request_id
        self.model: str | None = None
        self.node_id: str | None = None
        self.attempt: Attempt | None = None

    async def run(self) -> int:
        """Hand the request on and its answer back; returns the status that the node answered."""
        if self._plane.stopping:
            raise errors.NoNode(STOPPING, STOPPING_RETRY_S)
        if self._endpoint == "/api/blobs":
            sends = self._client.method == "POST"
            with self._client.endable():
                return await self._relay(self._choose(), self._client.chunks() if sends else None)
        body = await self._client.body(self._plane.settings.count("body_limit_mb") * 2**20)
        document = read_document(body)
        named = next((value for key in MODEL_FIELDS if (value := document.get(key))), None)
        if not isinstance(named, str):
            raise errors.BadRequest("model is required")
        self.model = self._plane.roster.spelled(named)
        source = document.get("from")
        node = self._choose(named, self._plane.roster.spelled(source) if isinstance(source, str) else None)
        async with self._client.watched():
            return await self._relay(node, body)

    def headers(self) -> RawHeaders:
        """The headers that describe where the request went."""
        node = [(b"x-herd-node", self.node_id.encode())] if self.node_id else []
        ids = [(b"x-request-id", self._request_id.encode()), (b"traceresponse", traceresponse(self._ids).encode())]
        return ids + node

    def _choose(self, as_asked: str = "", source: str | None = None) -> Node:
        fleet = self._plane.roster.fleet(Clock().now())
        wanted = parse_qs(self._client.query.decode("latin-1")).get("node_id", [None])[0]
        node = _named(fleet, wanted, self._endpoint) if wanted else place(fleet, self._endpoint, self.model, source)
        if not fleet.nodes:
            raise no_nodes()
        if node is None and self.model and not self._plane.roster.knows(self.model):
            raise errors.ModelMissing(f"model '{as_asked}' not found")
        if node is None:
            raise errors.NoNode(f"no node can take {self._endpoint} now; `herd status` shows why", retry_after_s=10)
        self.node_id = node.node_id
        return node

    async def _relay(self, node: Node, body: bytes | AsyncIterable[bytes] | None) -> int:
        url, span_id, began = node.url + self._client.raw_path, new_span_id(), self._clock.now()
        headers = request_headers(self._client.headers, self._ids, span_id)
        opened, error = None, None
        try:
            opened = await self._plane.upstream.open(self._client.method, url, headers, body)
            try:
                changed = self._endpoint in CHANGES_MODELS and opened.response.status < 400
                whole = opened.response.content_length is not None  # what begins so is done; progress is chunked
                if changed and whole:
                    await self._list_again(node)
                await self._pass_on(opened.response)
                if changed and not whole:
                    await self._list_again(node)
                await self._client.finish()
                return opened.response.status
            finally:
                opened.response.close()
        except CLIENT_ERRORS as failure:
            error = as_attempt_error(failure, self._client.started, self._client.started)
            raise error from failure
        finally:
            self.attempt = Attempt(
                1, node.node_id, self.model or "", url, span_id, began, self._clock.now(),
                http_status=opened.response.status if opened else None,
                error_type=error.error_type if error else None,
                error_message=error.message if error else None,
                reconnected=opened is not None and opened.reconnected,
            )  # fmt: skip

    async def _list_again(self, node: Node) -> None:
        # The next heartbeat would tell, but the client's next command may be sooner than that.
        with suppress(*CLIENT_ERRORS, ValueError):
            async with asyncio.timeout(LISTING_TIMEOUT_S):
                opened = await self._plane.upstream.open("GET", f"{node.url}/api/tags", {}, None)
                try:
                    listed = [entry for entry in (await opened.response.json())["models"] if isinstance(entry, dict)]
                finally:
                    opened.response.close()
            self._plane.changed(self._plane.roster.relist(node.node_id, listed, Clock().now()))

    async def _pass_on(self, response: aiohttp.ClientResponse) -> None:
        lengths = [(b"content-length", value.encode()) for value in response.headers.getall("Content-Length", ())]
        await self._client.start(response.status, response_headers(response) + self.headers() + lengths)
        stall_s = self._plane.settings.number("total_timeout_s")
        while True:
            async with asyncio.timeout(stall_s):
                chunk = await response.content.readany()
            if not chunk:
                break
            self._client.broken_line = not chunk.endswith(b"\n")
            await self._client.write(chunk)


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
        raise errors.BadRequest(f"there is no node {node_id!r} in the fleet; `herd status` lists them")
    if not can_manage(node, endpoint):
        raise errors.NoNode(f"node {node_id} is not there, or its engine does not speak {endpoint}", retry_after_s=10)
    return node

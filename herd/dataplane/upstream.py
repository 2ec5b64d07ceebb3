"""Bytes to and from a node: the one module that knows the HTTP client.

Every exception of the client's is mapped to the error tree here, in `as_attempt_error`, and nowhere else.
"""

import asyncio
import errno
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import NamedTuple

import aiohttp

from herd import errors
from herd.core.events import TraceIds
from herd.telemetry.trace_ids import traceparent

HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
                        "te", "trailer", "transfer-encoding", "upgrade"})  # fmt: skip
# Host is the node's; credentials and cookies are between client and herd; Origin and Referer would meet the node's CORS
# rules; X-Conversation-Id makes llama.cpp go on working for a client that left.
NOT_FORWARDED = HOP_BY_HOP | {"host", "content-length", "accept-encoding", "authorization", "x-api-key", "cookie",
                              "origin", "referer", "expect", "traceparent", "tracestate", "x-herd-tags", "x-request-id",
                              "x-conversation-id"}  # fmt: skip
NOT_RETURNED = HOP_BY_HOP | {"content-length", "date", "server", "set-cookie", "access-control-allow-origin"}
ERROR_BODY_LIMIT = 64 * 1024
# What engines call a failure of their own, with 500, and is none: one client would close a node to all others.
CLIENTS_MISTAKES = (
    "must be of type", "invalid format:", "unqualified name",  # Ollama
    "json.exception.", "Failed to parse messages", "' is required", "is too large to process",  # llama.cpp
)  # fmt: skip
CANNOT = ("missing data required for image input", "image input is not supported")

Body = bytes | AsyncIterable[bytes] | None


class Opened(NamedTuple):
    """A response whose headers are here, and whether it took a fresh connection after a closed one."""

    response: aiohttp.ClientResponse
    reconnected: bool


class Upstream:
    """Connections to the nodes: a pool, and fresh ones for a retry after a pooled one was found closed."""

    def __init__(self, connect_timeout_s: float) -> None:
        self.set_connect_timeout(connect_timeout_s)
        self._pooled: aiohttp.ClientSession
        self._fresh: aiohttp.ClientSession

    def set_connect_timeout(self, seconds: float) -> None:
        """Wait so long for a node to take a connection from now on."""
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=None)

    async def start(self) -> None:
        """Make the pools; they belong to the running event loop."""
        self._pooled = self._session(aiohttp.TCPConnector(limit=0, keepalive_timeout=30))
        self._fresh = self._session(aiohttp.TCPConnector(limit=0, force_close=True))

    @staticmethod
    def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._pooled.close()
        await self._fresh.close()

    async def open(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> Opened:
        """Send a request and give the response once its headers are here; whoever gets it closes it.

        A pooled connection may have been closed by the node while the request was on its way: nothing was received, so
        the request goes once more, on a fresh connection.
        """
        try:
            return Opened(await self._send(self._pooled, method, url, headers, body), reconnected=False)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) or not isinstance(body, bytes | None):
                raise
        return Opened(await self._send(self._fresh, method, url, headers, body), reconnected=True)

    async def _send(
        self, session: aiohttp.ClientSession, method: str, url: str, headers: Mapping[str, str], body: Body
    ) -> aiohttp.ClientResponse:
        return await session.request(
            method, url, data=body, headers=headers, allow_redirects=False, timeout=self._timeout
        )


def request_headers(client_headers: Iterable[tuple[str, str]], ids: TraceIds, span_id: str) -> dict[str, str]:
    """The headers for a node: the client's less those that are not its business, and the trace's place.

    `span_id` is the attempt's. A `tracestate` belongs to the client's trace, and goes along with no other.
    """
    headers = tuple(client_headers)
    kept = {name: value for name, value in headers if name not in NOT_FORWARDED}
    state = ",".join(value for name, value in headers if name == "tracestate")
    if state and ids.parent_span_id is not None:
        kept["tracestate"] = state
    kept["content-type"] = "application/json"  # herd reads bodies as JSON whatever they are called; so must the node
    kept["traceparent"] = traceparent(ids, span_id)
    return kept


def response_headers(response: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    """The headers for the client: the node's less those of its own connection."""
    found = ((name.lower(), value) for name, value in response.raw_headers)
    return [(name, value) for name, value in found if name.decode("latin-1") not in NOT_RETURNED]


def as_attempt_error(error: BaseException, content_seen: bool, answered: bool) -> errors.AttemptError:
    """The error of the tree for an exception of the client's, by how far the answer had come: headers, or content."""
    text = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientPayloadError):
        text = "its connection closed before the end"
    if isinstance(error, errors.AttemptError):
        return error
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return errors.OutOfFiles("herd has too many files open to reach a node; `ulimit -n` where it starts is too low")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return errors.ConnectTimeout("the node did not take the connection in time")
    if isinstance(error, TimeoutError):
        if content_seen:
            return errors.StallTimeout("the node went silent in the middle of its answer")
        return errors.FirstByteTimeout("the node sent no content in time")
    if answered or isinstance(error, aiohttp.ClientPayloadError):
        return errors.StreamAborted(f"the node's answer broke off: {text}")
    if isinstance(error, aiohttp.ClientResponseError):
        return errors.BadResponse(f"the node's answer is not HTTP: {text}")
    return errors.ConnectFailed(f"the node could not be reached: {text}")


def status_error(status: int, message: str) -> errors.AttemptError:
    """The error of the tree for a status of 400 or more that a node answered."""
    if status == 404 and "not found" in message and "model" in message:
        return errors.NodeLacksModel(message, status)
    if status in {429, 503}:
        return errors.UpstreamBusy(message, status)
    if status == 501 or (status == 500 and any(words in message for words in CANNOT)):
        return errors.NodeCannot(message, status)
    if status == 500 and any(words in message for words in CLIENTS_MISTAKES):
        return errors.Upstream4xx(message, status)
    if status >= 500:
        return errors.Upstream5xx(message, status)
    return errors.Upstream4xx(message, status)


async def read_limited(response: aiohttp.ClientResponse, limit: int, silence_s: float) -> tuple[bytes, bool]:
    """The body up to a limit, and whether that is all of it; TimeoutError where it stops for so many seconds."""
    chunks: list[bytes] = []
    size = 0
    while True:
        async with asyncio.timeout(silence_s):
            chunk = await response.content.readany()
        if not chunk:
            return b"".join(chunks), True
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            return b"".join(chunks), False


CLIENT_ERRORS = (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError)

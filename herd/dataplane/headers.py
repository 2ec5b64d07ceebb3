"""Which headers go from a client to a node, and which back; it knows names and values, no connection."""

from collections.abc import Iterable

from herd.core.events import TraceIds
from herd.dataplane.trace_ids import traceparent

RawHeaders = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
                        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"})  # fmt: skip
# Host is the node's; credentials and cookies are between client and herd; Origin and Referer would meet the node's CORS
# rules; X-Conversation-Id makes llama.cpp go on working for a client that left. Content-Type is always herd's own, and
# a body that came packed goes on unpacked.
NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"content-type", b"accept-encoding", b"authorization",
                              b"x-api-key", b"cookie", b"origin", b"referer", b"expect", b"traceparent", b"tracestate",
                              b"x-herd-tags", b"x-request-id", b"x-conversation-id", b"content-encoding", b"api-key",
                              b"x-goog-api-key", b"cf-access-token"}  # fmt: skip
# What an engine tells of its answer. Nothing that speaks for herd (`X-Herd-…`, `X-Request-Id`), sends the client
# elsewhere (`Location`) or makes a browser act (`Clear-Site-Data`): a node may be anybody's.
RETURNED = frozenset({b"content-type", b"content-encoding", b"content-language", b"content-disposition",
                      b"content-range", b"accept-ranges", b"cache-control", b"expires", b"etag", b"last-modified",
                      b"vary", b"retry-after", b"retry-after-ms", b"x-should-retry"})  # fmt: skip
RETURNED_FAMILIES = (b"x-ratelimit-", b"openai-", b"anthropic-", b"ollama-")
PLAIN_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})
JSON = (b"content-type", b"application/json")  # herd reads bodies as JSON whatever they are called; so must the node


def request_headers(client_headers: Iterable[tuple[bytes, bytes]], ids: TraceIds, span_id: str) -> RawHeaders:
    """The headers for a node: the client's less those that are not its business, and the trace's place.

    Names are in lower case, as ASGI has them; `span_id` is the attempt's. A `tracestate` belongs to the client's trace,
    and goes along with no other.
    """
    kept, states = [], []
    own: list[bytes] = []  # what the client's connection to herd names as its own
    for header in client_headers:
        if header[0] not in NOT_FORWARDED:
            kept.append(header)
        elif header[0] == b"tracestate" and header[1]:
            states.append(header[1])
        elif header[0] == b"connection" and header[1] not in PLAIN_CONNECTION:
            own += (name.strip() for name in header[1].lower().split(b","))
    if own:
        kept = [header for header in kept if header[0] not in own]
    if states and ids.parent_span_id is not None:
        kept.append((b"tracestate", b",".join(states)))
    kept.append(JSON)
    kept.append((b"traceparent", traceparent(ids, span_id).encode()))
    return kept


def response_headers(node_headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers for the client: of the node's, names in lower case, those that it may send."""
    return [header for header in node_headers if header[0] in RETURNED or header[0].startswith(RETURNED_FAMILIES)]

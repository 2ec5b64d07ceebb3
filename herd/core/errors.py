"""Every way in which a request can fail, as one tree.

    HerdError
    ├── Refused                   herd did not take the request; no node saw it
    │   ├── BadRequest            400  bad_request
    │   ├── HeadTimeout           408  bad_request
    │   ├── BodyTooLarge          413  bad_request
    │   ├── UrlTooLong            414  bad_request
    │   ├── TooManyConnections    429  bad_request        Retry-After
    │   ├── HeadTooLarge          431  bad_request
    │   ├── Unauthorized          401  unauthorized
    │   ├── Forbidden             403  unauthorized
    │   ├── ModelMissing          404  model_missing
    │   ├── QueueFull             429  queue_full         Retry-After
    │   ├── QueueTimeout          503  queue_timeout      Retry-After
    │   └── NoNode                503  no_node            Retry-After
    ├── AttemptError              a node failed the request
    │   ├── ConnectFailed         502  connect            retryable
    │   ├── ConnectTimeout        504  connect_timeout    retryable
    │   ├── FirstByteTimeout      504  first_byte_timeout retryable
    │   ├── StallTimeout          504  stall_timeout      retryable
    │   ├── Stuck                 504  stall_timeout      ended from outside; its client is told nothing
    │   ├── Upstream4xx           the node's own, handed on
    │   ├── NodeCannot            501  upstream_4xx       retryable
    │   ├── NodeLacksModel        404  model_missing      retryable
    │   ├── Upstream5xx           502  upstream_5xx       retryable
    │   ├── UpstreamBusy          503  upstream_busy      retryable
    │   ├── StreamAborted         502  stream_aborted     retryable
    │   ├── BadResponse           502  bad_response       retryable
    │   ├── EngineGaveUp          502  repetition         the model repeats itself; nobody is to blame
    │   └── OutOfFiles            503  internal           herd's own limit: no fault of the node's
    └── Internal                  500  internal

Retryable holds only until the first content byte went to the client. Foreign exceptions are mapped here by
`dataplane.exchange`, nowhere else.
"""

from typing import ClassVar, Final, NamedTuple


class HerdError(Exception):
    """A failure that knows its HTTP status, its `error_type` and whether another node may be tried."""

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Refused(HerdError):
    """Herd did not take the request; `retry_after_s` is a hint for the client where waiting helps."""

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BadRequest(Refused):
    """The body or a parameter is unreadable or of the wrong type."""

    status, error_type = 400, "bad_request"


class HeadTimeout(Refused):
    """The client did not send the whole head of its request in time."""

    status, error_type = 408, "bad_request"


class BodyTooLarge(Refused):
    """The body is over the limit."""

    status, error_type = 413, "bad_request"


class UrlTooLong(Refused):
    """The URL is over the limit."""

    status, error_type = 414, "bad_request"


class TooManyConnections(Refused):
    """The address has as many connections as it may, and none of them is idle."""

    status, error_type = 429, "bad_request"


class HeadTooLarge(Refused):
    """The head of the request has too many bytes or lines."""

    status, error_type = 431, "bad_request"


class Unauthorized(Refused):
    """A credential is needed and was not given, or is wrong."""

    status, error_type = 401, "unauthorized"


class Forbidden(Refused):
    """The Host or the Origin is not one that may ask this."""

    status, error_type = 403, "unauthorized"


class ModelMissing(Refused):
    """No node of the fleet has the model."""

    status, error_type = 404, "model_missing"


class QueueFull(Refused):
    """Too many requests wait for this model already."""

    status, error_type = 429, "queue_full"


class QueueTimeout(Refused):
    """The request waited as long as it may, and no slot came free."""

    status, error_type = 503, "queue_timeout"


NO_NODE_RETRY_S: Final = 10  # two heartbeats: by then a node that comes back has said so


class NoNode(Refused):
    """Nodes have the model, but none can take the request now."""

    status, error_type = 503, "no_node"


class NodeAnswer(NamedTuple):
    """A node's own error answer, which is handed on as it is."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class AttemptError(HerdError):
    """A node failed one attempt; `http_status` is what it answered, if it did; `answer` is handed on if given."""

    def __init__(self, message: str, http_status: int | None = None, answer: NodeAnswer | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.answer = answer


class ConnectFailed(AttemptError):
    """The node refused or reset the connection before it answered."""

    status, error_type, retryable = 502, "connect", True


class ConnectTimeout(AttemptError):
    """The node did not take the connection in time."""

    status, error_type, retryable = 504, "connect_timeout", True


class FirstByteTimeout(AttemptError):
    """The node took the request and sent no content in time."""

    status, error_type, retryable = 504, "first_byte_timeout", True


class StallTimeout(AttemptError):
    """The node's answer stopped in its middle."""

    status, error_type, retryable = 504, "stall_timeout", True


class Stuck(AttemptError):
    """Neither node nor client moved for longer than any limit allows, so the request was ended from outside."""

    status, error_type = 504, "stall_timeout"


class Upstream4xx(AttemptError):
    """The node calls the request wrong; its answer is handed on as it is."""

    status, error_type = 400, "upstream_4xx"


class NodeCannot(AttemptError):
    """The node's engine does not do what is asked (embeddings, pictures), whatever the client changes about it."""

    status, error_type, retryable = 501, "upstream_4xx", True


class NodeLacksModel(AttemptError):
    """The node no longer has the model that its last heartbeat named."""

    status, error_type, retryable = 404, "model_missing", True


class Upstream5xx(AttemptError):
    """The node failed on its side."""

    status, error_type, retryable = 502, "upstream_5xx", True


class UpstreamBusy(AttemptError):
    """The node has no room in its own queue."""

    status, error_type, retryable = 503, "upstream_busy", True


class StreamAborted(AttemptError):
    """The node's answer broke off before its proper end."""

    status, error_type, retryable = 502, "stream_aborted", True


class BadResponse(AttemptError):
    """The node answered something that is not of the dialect."""

    status, error_type, retryable = 502, "bad_response", True


class EngineGaveUp(AttemptError):
    """The engine stopped a model that repeats itself; the client has all that it would have without herd."""

    status, error_type = 502, "repetition"


class OutOfFiles(AttemptError):
    """Herd, or its machine, may open no more files, so no connection could be made; the node knows nothing of it."""

    status, error_type = 503, "internal"


class Internal(HerdError):
    """A defect of herd's own."""


def error_types() -> tuple[str, ...]:
    """The closed list of `error_type` values, in the tree's order."""
    seen: dict[str, None] = {}
    pending: list[type[HerdError]] = [HerdError]
    while pending:
        kind = pending.pop(0)
        pending.extend(kind.__subclasses__())
        seen.setdefault(kind.error_type)
    return tuple(seen)

"""Every way in which a request can fail, as one tree.

    HerdError
    ├── Refused                   Herd rejected the request; no node saw it
    │   ├── BadRequest            400  bad_request
    │   ├── HeadTimeout           408  bad_request
    │   ├── BodyTooLarge          413  bad_request
    │   ├── UrlTooLong            414  bad_request
    │   ├── TooManyConnections    429  bad_request        Retry-After
    │   ├── HeadTooLarge          431  bad_request
    │   ├── Unauthorized          401  unauthorized
    │   ├── Forbidden             403  unauthorized
    │   ├── NameTaken             409  unauthorized
    │   ├── AllowanceUsed         429  key_limit          Retry-After
    │   ├── ModelMissing          404  model_missing
    │   ├── QueueFull             429  queue_full         Retry-After
    │   ├── QueueTimeout          503  queue_timeout      Retry-After
    │   ├── NoRoom                503  no_room            Retry-After
    │   ├── LoopDetected          508  bad_request        the request has been here already
    │   ├── NotSpoken             501  no_node            the engines that have the model do not speak the path
    │   ├── Quarantined           422  quarantined        the same body killed nodes a while ago
    │   └── NoNode                503  no_node            Retry-After
    ├── AttemptError              a node failed the request
    │   ├── ConnectFailed         502  connect            retryable
    │   ├── ConnectionLost        502  connection_lost    retryable; the node had the request, and is gone
    │   ├── RequestKills          502  connection_lost    so many nodes in a row that no other is tried
    │   ├── ConnectTimeout        504  connect_timeout    retryable
    │   ├── FirstByteTimeout      504  first_byte_timeout retryable
    │   ├── StallTimeout          504  stall_timeout      retryable
    │   ├── Stuck                 504  stall_timeout      ended by the reaper; its client gets no error
    │   ├── Upstream4xx           the node's own, passed through
    │   ├── NodeCannot            501  upstream_4xx       retryable
    │   ├── NodeLacksModel        404  model_missing      retryable
    │   ├── Upstream5xx           502  upstream_5xx       retryable
    │   ├── UpstreamBusy          503  upstream_busy      retryable
    │   ├── StreamAborted         502  stream_aborted     retryable
    │   ├── BadResponse           502  bad_response       retryable
    │   ├── EngineGaveUp          502  repetition         the model repeats itself; nobody's fault
    │   └── OutOfFiles            503  internal           Herd's own limit, not the node's fault
    ├── Cancelled                 503  cancelled          an operator ended it; nobody's fault
    └── Internal                  500  internal

Retryable applies only until the first content byte went to the client. Foreign exceptions are mapped here by
`dataplane.exchange`, nowhere else.
"""

from typing import ClassVar, Final, NamedTuple


class HerdError(Exception):
    """A failure with its HTTP status, its `error_type` and whether another node may be tried."""

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Refused(HerdError):
    """Herd rejected the request; `retry_after_s` is a hint for the client if waiting helps."""

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BadRequest(Refused):
    """The body or a parameter is unreadable or has the wrong type."""

    status, error_type = 400, "bad_request"


class HeadTimeout(Refused):
    """The client did not send the complete request head in time."""

    status, error_type = 408, "bad_request"


class BodyTooLarge(Refused):
    """The body is over the limit."""

    status, error_type = 413, "bad_request"


class UrlTooLong(Refused):
    """The URL is over the limit."""

    status, error_type = 414, "bad_request"


class TooManyConnections(Refused):
    """The client address is at its connection limit, and none of its connections is idle."""

    status, error_type = 429, "bad_request"


class HeadTooLarge(Refused):
    """The request head has too many bytes or lines."""

    status, error_type = 431, "bad_request"


class Unauthorized(Refused):
    """A credential is required and is missing or wrong."""

    status, error_type = 401, "unauthorized"


class Forbidden(Refused):
    """The Host, the Origin or the credential is not one that may ask this."""

    status, error_type = 403, "unauthorized"


class NameTaken(Refused):
    """A node's name belongs to another key, or its heartbeat is not the next one."""

    status, error_type = 409, "unauthorized"


class AllowanceUsed(Refused):
    """A key has used what it may, or an address has shown too many wrong credentials."""

    status, error_type = 429, "key_limit"


class ModelMissing(Refused):
    """No node in the fleet has the model."""

    status, error_type = 404, "model_missing"


class QueueFull(Refused):
    """Too many requests are waiting for this model."""

    status, error_type = 429, "queue_full"


class QueueTimeout(Refused):
    """No slot came free within the queue timeout."""

    status, error_type = 503, "queue_timeout"


class NoRoom(Refused):
    """The bodies of the requests in flight leave no memory for another one."""

    status, error_type = 503, "no_room"


class LoopDetected(Refused):
    """The request passed through this router before: one of its nodes leads back to it."""

    status, error_type = 508, "bad_request"


class NotSpoken(Refused):
    """Nodes have the model, but the engine of none of them supports the endpoint."""

    status, error_type = 501, "no_node"


class Quarantined(Refused):
    """Nodes died while they worked on a request with the same body, so it is refused for a while."""

    status, error_type = 422, "quarantined"


NO_NODE_RETRY_S: Final = 10  # two heartbeats: a node that comes back has reported by then


class NoNode(Refused):
    """Nodes have the model, but none can take the request now."""

    status, error_type = 503, "no_node"


class NodeAnswer(NamedTuple):
    """A node's own error response, passed through unchanged."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class AttemptError(HerdError):
    """A node failed one attempt; `http_status` is its response status, if any; `answer` is passed through if given.

    `own` is the node's answer, which is passed through once another node has confirmed it. `died`: the connection was
    lost while the node worked. `budgeted`: trying another node repeats work, so the retry budget applies.
    """

    budgeted: ClassVar[bool] = True
    died: bool = False
    own: NodeAnswer | None = None

    def __init__(self, message: str, http_status: int | None = None, answer: NodeAnswer | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.answer = answer


class ConnectFailed(AttemptError):
    """The node refused the connection."""

    status, error_type, retryable, budgeted = 502, "connect", True, False


class ConnectionLost(AttemptError):
    """The node had the request, and its connection ended before it answered: it died, or was cut off."""

    status, error_type, retryable, budgeted = 502, "connection_lost", True, False
    died = True


class RequestKills(ConnectionLost):
    """As many nodes in a row as the operator allows were lost while they worked on this request."""

    retryable = False


class ConnectTimeout(AttemptError):
    """The node did not accept the connection in time."""

    status, error_type, retryable = 504, "connect_timeout", True


class FirstByteTimeout(AttemptError):
    """The node accepted the request but sent no content in time."""

    status, error_type, retryable = 504, "first_byte_timeout", True


class StallTimeout(AttemptError):
    """The node's answer stalled."""

    status, error_type, retryable = 504, "stall_timeout", True


class Stuck(AttemptError):
    """Neither node nor client made progress within any time limit, so the reaper ended the request."""

    status, error_type = 504, "stall_timeout"


class Upstream4xx(AttemptError):
    """The node rejected the request; its response is passed through unchanged."""

    status, error_type = 400, "upstream_4xx"


class NodeCannot(AttemptError):
    """The node's engine does not support this kind of request (such as embeddings or images)."""

    status, error_type, retryable = 501, "upstream_4xx", True


class NodeLacksModel(AttemptError):
    """The node no longer has the model that its last heartbeat listed."""

    status, error_type, retryable, budgeted = 404, "model_missing", True, False


class Upstream5xx(AttemptError):
    """The node returned a server error."""

    status, error_type, retryable = 502, "upstream_5xx", True


class UpstreamBusy(AttemptError):
    """The node's own queue is full."""

    status, error_type, retryable = 503, "upstream_busy", True


class StreamAborted(AttemptError):
    """The node's answer ended before its end marker."""

    status, error_type, retryable = 502, "stream_aborted", True


class BadResponse(AttemptError):
    """The node's response does not follow the dialect."""

    status, error_type, retryable = 502, "bad_response", True


class EngineGaveUp(AttemptError):
    """The engine stopped a model that repeats itself; the client got all it would have got from the engine."""

    status, error_type = 502, "repetition"


class OutOfFiles(AttemptError):
    """Herd or its host is out of file descriptors, so it could not connect to the node."""

    status, error_type = 503, "internal"


class Cancelled(HerdError):
    """An operator cancelled the request."""

    status, error_type = 503, "cancelled"


class Internal(HerdError):
    """A bug in Herd."""


def error_types() -> tuple[str, ...]:
    """The closed list of `error_type` values, in the tree's order."""
    seen: dict[str, None] = {}
    pending: list[type[HerdError]] = [HerdError]
    while pending:
        kind = pending.pop(0)
        pending.extend(kind.__subclasses__())
        seen.setdefault(kind.error_type)
    return tuple(seen)

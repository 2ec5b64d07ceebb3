"""What is to be seen of every fault, as data: by the client, in the row, the metrics, the log and the spans.

`OUTCOMES` says it once for each way in which a request can end here, `FAULTS` which fault ends in which way. Nothing is
worked out in this file, so that an operator can read it.
"""

from dataclasses import dataclass
from typing import Literal

from herd.sim import Fault, FaultKind
from tests.resilience.proxy import Rule

View = Literal["error", "broken", "whole"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way to end, at one node that fails and with no other to try.

    `client`: the status that the client gets, and an `error` body in its dialect, a stream that is `broken` by exactly
    one error frame of its dialect, or the `whole` answer. `row`: status and error_type. `node_status`: what the node
    answered, None where that never came. `counters`: what rises by one, besides the node's and the model's own labels.
    `log`: level and event of each line that has the request's id, in order; `{node}` is the node. `span_error`: whether
    the SERVER span is an error; the CLIENT span of the attempt always is one where the row has an error_type.
    """

    client: tuple[int, View]
    row: tuple[str, str | None]
    node_status: int | None
    counters: dict[str, dict[str, str]]
    log: tuple[tuple[str, str], ...]
    span_error: bool


FAILED_LOG = (("WARNING", "attempt_failed"), ("ERROR", "request_finished"))


def _failed(status: int, error_type: str, node_status: int | None, code_class: str) -> Outcome:
    return Outcome(
        client=(status, "error"),
        row=("failed", error_type),
        node_status=node_status,
        counters={
            "herd_requests_total": {"status": "failed"},
            "herd_request_errors_total": {"error_type": error_type},
            "herd_upstream_requests_total": {"code_class": code_class},
            "herd_retries_exhausted_total": {"reason": error_type},
        },
        log=FAILED_LOG,
        span_error=True,
    )


def _incomplete(error_type: str) -> Outcome:
    return Outcome(
        client=(200, "broken"),
        row=("incomplete", error_type),
        node_status=200,
        counters={
            "herd_requests_total": {"status": "incomplete"},
            "herd_request_errors_total": {"error_type": error_type},
            "herd_upstream_requests_total": {"code_class": "2xx"},
        },
        log=(
            ("WARNING", "attempt_failed"),
            ("ERROR", f"Stream error from {{node}}: {error_type}"),
            ("ERROR", "request_finished"),
        ),
        span_error=True,
    )


OUTCOMES = {
    #                       client  error_type            the node's status and its class
    "unreachable": _failed(502, "connect", None, "none"),
    "lost": _failed(502, "connection_lost", None, "none"),
    "silent": _failed(504, "first_byte_timeout", None, "none"),
    "silent after its headers": _failed(504, "first_byte_timeout", 200, "2xx"),
    "broke off unseen": _failed(502, "stream_aborted", 200, "2xx"),
    "server error": _failed(502, "upstream_5xx", 500, "5xx"),
    "server error under 200": _failed(502, "upstream_5xx", 200, "2xx"),
    "busy": _failed(503, "upstream_busy", 503, "5xx"),
    "unreadable": _failed(502, "bad_response", 200, "2xx"),
    "stalled": _incomplete("stall_timeout"),
    "broke off": _incomplete("stream_aborted"),
    "well": Outcome(
        client=(200, "whole"),
        row=("completed", None),
        node_status=200,
        counters={
            "herd_requests_total": {"status": "completed"},
            "herd_upstream_requests_total": {"code_class": "2xx"},
        },
        log=(("INFO", "request_finished"),),
        span_error=False,
    ),
}
# Where another node could answer instead, because nothing had gone to the client: every end but these.
FINAL = frozenset({"stalled", "broke off", "well"})

# Behind a first content frame in every dialect, and within every whole answer.
MIDDLE = 1000
# Streams break once their client has content; otherwise it would depend on the moment which end they come to.
HOLD = b"-stream-"
FRAME = 12  # of content; it lies behind MIDDLE in every dialect


@dataclass(frozen=True, slots=True)
class Faulty:
    """A fault: what the node plays, what the wire does, and how a stream and a whole answer end.

    `v1_stream` is how a stream of the OpenAI and Anthropic dialects ends, where that differs.
    """

    stream: str
    whole: str
    played: Fault | None = None
    wire: Rule | None = None
    refuses: bool = False
    v1_stream: str | None = None


FAULTS = {
    "refused": Faulty("unreachable", "unreachable", wire=Rule(), refuses=True),
    "reset": Faulty("lost", "lost", wire=Rule("reset")),
    "hang-before-headers": Faulty("silent", "silent", Fault(FaultKind.HANG_BEFORE_HEADERS, times=None)),
    "hang-in-the-middle": Faulty("stalled", "silent after its headers", wire=Rule("partition", MIDDLE, HOLD)),
    "reset-in-the-middle": Faulty("broke off", "broke off unseen", wire=Rule("reset", MIDDLE, HOLD)),
    "cut-at-byte-n": Faulty("broke off", "broke off unseen", wire=Rule("cut", MIDDLE, HOLD)),
    "half-close": Faulty("broke off", "broke off unseen", wire=Rule("half_close", MIDDLE, HOLD)),
    "500": Faulty("server error", "server error", Fault(FaultKind.HTTP_500, times=None)),
    "503-busy": Faulty("busy", "busy", Fault(FaultKind.BUSY_503, times=None)),
    "malformed-json": Faulty(
        "broke off", "unreadable",
        Fault(FaultKind.MALFORMED_JSON, times=None, after=FRAME), Rule("flow", MIDDLE, HOLD),
    ),
    # Ollama reports what goes wrong under status 200 in streams alone; a whole answer is a 500.
    "error-line-under-200": Faulty(
        "broke off", "server error", Fault(FaultKind.ERROR_LINE, times=None, after=FRAME), Rule("flow", MIDDLE, HOLD)
    ),
    # In its other dialects Ollama's stream then just ends: no error, no finish_reason, no [DONE].
    "error-line-before-content": Faulty(
        "server error under 200", "server error",
        Fault(FaultKind.ERROR_LINE, times=None, after=0), v1_stream="broke off unseen",
    ),
    "wrong-content-length": Faulty(
        "broke off", "broke off unseen", Fault(FaultKind.WRONG_CONTENT_LENGTH, times=None), Rule("flow", MIDDLE, HOLD)
    ),
    "slow-drip": Faulty("well", "well", Fault(FaultKind.SLOW_DRIP, times=None, after=300, seconds=0.002)),
}  # fmt: skip

MEANS = {
    "refused": "takes no connection",
    "reset": "resets the connection instead of an answer",
    "hang-before-headers": "takes the request and stays silent",
    "hang-in-the-middle": "goes silent in the middle (a pulled cable)",
    "reset-in-the-middle": "resets the connection in the middle",
    "cut-at-byte-n": "closes the connection at some byte of the answer",
    "half-close": "ends its side of the connection in the middle",
    "500": "answers 500",
    "503-busy": "answers 503: its own queue is full",
    "malformed-json": "sends what is no JSON, in the middle or as the whole answer",
    "error-line-under-200": "reports an error in the middle of a stream under status 200; a whole answer is a 500",
    "error-line-before-content": "the same before any content",
    "wrong-content-length": "announces more bytes than it sends",
    "slow-drip": "sends its answer a few bytes at a time",
}

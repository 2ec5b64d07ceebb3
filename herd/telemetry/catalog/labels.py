"""Every label with its closed list of values, which are the core's own enums, or with whose names it takes."""

from typing import Final

from herd.core.breaker import BreakerState
from herd.core.doors import DOORS, REASONS
from herd.core.errors import AttemptError, error_types
from herd.core.events import Status
from herd.core.finding import Severity
from herd.core.health.checks import CHECKS
from herd.core.routing import Reason, RejectionReason
from herd.core.signals import SIGNALS
from herd.telemetry.catalog.shapes import Label
from herd.telemetry.semconv import OPERATIONS

UNKNOWN: Final = "_unknown"  # a name that the fleet does not know, or one too many
NO_NODE: Final = "_none"  # the request ended before a node was chosen
MAX_MODELS: Final = 200
MAX_NODES: Final = 64
# Series made before their first use stop here. Up to 10 nodes with 20 models all of them are made, and with everything
# in use the exposition stays under 5,000 samples; in a larger fleet what is used comes on top, as it is used.
EAGER_LINES: Final = 4500

RETRYABLE: Final = tuple(dict.fromkeys(kind.error_type for kind in AttemptError.__subclasses__() if kind.retryable))
STATUSES: Final = tuple(status.value for status in Status)
CODE_CLASSES: Final = ("2xx", "3xx", "4xx", "5xx", "none")
TOKEN_TYPES: Final = ("input", "output", "cached_input", "reasoning")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
QUEUE_FULL: Final = ("queue_full", "queue_timeout")

NODE: Final = Label(
    "node", f"node_id; `{NO_NODE}` where there is none, `{UNKNOWN}` for one that is not of the fleet",
    names="node", other=NO_NODE)  # fmt: skip
MODEL: Final = Label(
    "model", f"model that answered or was asked for; `{UNKNOWN}` if the fleet does not know it",
    names="model", other=UNKNOWN)  # fmt: skip
FROM_MODEL: Final = Label("from_model", "model asked for", names="model", other=UNKNOWN)
TO_MODEL: Final = Label("to_model", "model that answered", names="model", other=UNKNOWN)
TAG: Final = Label(
    "tag", f"a caller's tag; `{UNKNOWN}` for one more than the setting metric_tags lets in", names="tag", once=True
)
ENDPOINT: Final = Label("endpoint", "path of the request", (*OPERATIONS, UNKNOWN), other=UNKNOWN)
STATUS: Final = Label("status", "how the request ended, as in its row", STATUSES)
STREAM: Final = Label("stream", "whether the answer was streamed", ("true", "false"))
ERROR_TYPE: Final = Label("error_type", "as in the row", error_types(), other="internal")
TOKEN_TYPE: Final = Label("type", "which tokens", TOKEN_TYPES)
# An attempt that was followed by another failed retryably; anything else would be a defect, and is counted as one.
RETRY_REASON: Final = Label("reason", "`error_type` of the attempt that failed", RETRYABLE, other="bad_response")
GIVEN_UP: Final = Label("reason", "`error_type` of the last attempt", RETRYABLE)
REASON: Final = Label("reason", "why this node", tuple(reason.value for reason in Reason))
REJECTION: Final = Label("reason", "why not", tuple(reason.value for reason in RejectionReason))
SIGNAL: Final = Label("signal", "one of the seven", tuple(SIGNALS))
QUEUE_REASON: Final = Label("reason", "full, or waited too long", QUEUE_FULL)
FALLBACK_REASON: Final = Label("reason", "as in the row", ("loaded_alternative", "model_unavailable", "retry"))
DOOR: Final = Label("door", "which door", DOORS)
REFUSED_FOR: Final = Label("reason", "why it was closed", REASONS, other="not_allowed")
ACTION: Final = Label("action", "what was done about num_ctx", ("stripped", "moved", "warned"))
BREAKER_TO: Final = Label("to", "what it became", (BreakerState.OPEN.value, BreakerState.CLOSED.value))
CODE_CLASS: Final = Label("code_class", "class of the node's HTTP status; none without an answer", CODE_CLASSES)
OUTCOME: Final = Label("outcome", "what became of the row", ("written", "dropped", "failed"))
LEVEL: Final = Label("level", "level of the line", LEVELS)
OVERFLOWN: Final = Label("label", "which label", ("model", "node", "tag"))
MEMORY_KIND: Final = Label("kind", "which bytes", ("total", "used", "available"))
GPU: Final = Label("gpu", "index of the accelerator")
GPU_KIND: Final = Label("kind", "which bytes", ("total", "used"))
VERSION: Final = Label("version", "version of the software")
ENGINE: Final = Label("engine", "kind of the inference server")
ENGINE_VERSION: Final = Label("engine_version", "version of the inference server")
CHECK: Final = Label("check_id", "the health check", tuple(check.check_id for check in CHECKS))
SEVERITY: Final = Label("severity", "how bad", tuple(severity.value for severity in Severity))

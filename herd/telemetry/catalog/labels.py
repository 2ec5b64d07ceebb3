"""Every label with its closed list of values (mostly enums of the core) or the kind of names that it takes."""

from typing import Final

from herd.core.breaker import BreakerState
from herd.core.doors import DOORS, REASONS
from herd.core.errors import AttemptError, error_types
from herd.core.events import Status
from herd.core.finding import Severity
from herd.core.health.checks import CHECKS
from herd.core.routing import Predicted, Reason, RejectionReason
from herd.core.signals import SIGNALS
from herd.telemetry.catalog.shapes import Label
from herd.telemetry.semconv import OPERATIONS

UNKNOWN: Final = "_unknown"  # a name that the fleet does not know, or one beyond the cap
NO_NODE: Final = "_none"  # the request ended before a node was chosen
MAX_MODELS: Final = 200
MAX_NODES: Final = 64
# Limit of the series created before first use. Up to 10 nodes with 20 models all are created, and with everything
# in use the exposition stays under 5,000 samples; in a larger fleet further series appear when first used.
EAGER_LINES: Final = 4500

RETRYABLE: Final = tuple(dict.fromkeys(kind.error_type for kind in AttemptError.__subclasses__() if kind.retryable))
STATUSES: Final = tuple(status.value for status in Status)
CODE_CLASSES: Final = ("2xx", "3xx", "4xx", "5xx", "none")
TOKEN_TYPES: Final = ("input", "output", "cached_input", "reasoning")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
QUEUE_FULL: Final = ("queue_full", "queue_timeout")

NODE: Final = Label(
    "node", f"node_id; `{NO_NODE}` if there is none, `{UNKNOWN}` if it is not in the fleet",
    names="node", other=NO_NODE)  # fmt: skip
MODEL: Final = Label(
    "model", f"model that answered or was requested; `{UNKNOWN}` if the fleet does not know it",
    names="model", other=UNKNOWN)  # fmt: skip
FROM_MODEL: Final = Label("from_model", "requested model", names="model", other=UNKNOWN)
TO_MODEL: Final = Label("to_model", "model that answered", names="model", other=UNKNOWN)
TAG: Final = Label(
    "tag", f"a client's tag; `{UNKNOWN}` beyond the limit of the setting metric_tags", names="tag", once=True
)
ENDPOINT: Final = Label("endpoint", "path of the request", (*OPERATIONS, UNKNOWN), other=UNKNOWN)
STATUS: Final = Label("status", "final status, as in the row", STATUSES)
STREAM: Final = Label("stream", "whether the answer was streamed", ("true", "false"))
ERROR_TYPE: Final = Label("error_type", "as in the row", error_types(), other="internal")
TOKEN_TYPE: Final = Label("type", "kind of tokens", TOKEN_TYPES)
# An attempt is followed by another only after a retryable failure; anything else is a bug, counted as bad_response.
RETRY_REASON: Final = Label("reason", "`error_type` of the attempt that failed", RETRYABLE, other="bad_response")
GIVEN_UP: Final = Label("reason", "`error_type` of the last attempt", RETRYABLE)
REASON: Final = Label("reason", "reason the node was chosen", tuple(reason.value for reason in Reason))
REJECTION: Final = Label("reason", "reason the node was excluded", tuple(reason.value for reason in RejectionReason))
PHASE: Final = Label("phase", "part of the request", tuple(name.removesuffix("_s") for name in Predicted._fields))
SIGNAL: Final = Label("signal", "one of the seven signals", tuple(SIGNALS))
QUEUE_REASON: Final = Label("reason", "queue full, or wait too long", QUEUE_FULL)
FALLBACK_REASON: Final = Label("reason", "as in the row", ("loaded_alternative", "model_unavailable", "retry"))
DOOR: Final = Label("door", "access check that refused the request", tuple(DOORS))
REFUSED_FOR: Final = Label("reason", "reason for the refusal", REASONS, other="not_allowed")
ACTION: Final = Label("action", "action taken on num_ctx", ("stripped", "moved", "warned"))
BREAKER_TO: Final = Label("to", "new state", (BreakerState.OPEN.value, BreakerState.CLOSED.value))
CODE_CLASS: Final = Label("code_class", "class of the node's HTTP status; `none` if it did not answer", CODE_CLASSES)
OUTCOME: Final = Label("outcome", "written, or lost", ("written", "dropped", "failed"))
LEVEL: Final = Label("level", "log level", LEVELS)
OVERFLOWN: Final = Label("label", "the label", ("model", "node", "tag"))
MEMORY_KIND: Final = Label("kind", "kind of memory", ("total", "used", "available"))
GPU: Final = Label("gpu", "index of the GPU")
GPU_KIND: Final = Label("kind", "kind of memory", ("total", "used"))
VERSION: Final = Label("version", "software version")
ENGINE: Final = Label("engine", "engine")
ENGINE_VERSION: Final = Label("engine_version", "version of the engine")
CHECK: Final = Label("check_id", "the health check", tuple(check.check_id for check in CHECKS))
SEVERITY: Final = Label("severity", "severity", tuple(severity.value for severity in Severity))

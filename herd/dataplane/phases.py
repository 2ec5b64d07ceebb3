"""The phases of one request as frozen values: received, asked, decided, attempted; the last one becomes a Finished.

    Received ──parse──▶ Asked ──decide──▶ Decided ──attempt──▶ Attempted ──end──▶ Finished
                                             ▲   wait              │ retry
                                             └─────────────────────┘

Each holds the one before it, so what is not known yet cannot be asked for. Times are unix seconds of the request's
clock.
"""

from dataclasses import field, replace
from typing import Any

from herd.core.access import NOBODY, Caller
from herd.core.clock import Clock
from herd.core.dialects import Endpoint
from herd.core.errors import AttemptError, HerdError, Refused
from herd.core.events import Attempt, ContextAction, Finished, Status, TraceIds, Usage
from herd.core.request import Request
from herd.core.routing import Candidate, Policy, Predicted
from herd.core.value import value
from herd.dataplane.parse import Parsed
from herd.fleet.slots import Choice

CLIENT_CLOSED = 499  # nginx's number for a client that left; nobody receives it


@value
class Received:
    """A request's head is here."""

    request_id: str
    ids: TraceIds
    endpoint: Endpoint
    client_ip: str
    policy: Policy
    clock: Clock
    at: float
    caller: Caller = NOBODY

    @property
    def received(self) -> "Received":
        """Itself: every phase knows how it began."""
        return self


@value
class Asked:
    """Its body was read; `request` is what was parsed, with the fallbacks that the operator adds."""

    received: Received
    request: Request
    body: bytes
    parsed: Parsed


@value
class Waits:
    """Waits for a slot or for a model to be pulled; one may follow the other. `requeued_s` is before later attempts."""

    queued_at: float | None = None
    admitted_at: float | None = None
    requeued_s: float = 0.0

    def ended(self, began: float, now: float, attempted: bool) -> "Waits":
        """With one more wait, that began then and is over now."""
        if attempted:
            return replace(self, requeued_s=self.requeued_s + now - began)
        return Waits(self.queued_at or began, now, self.requeued_s)


NO_WAITS = Waits()


@value
class Decided:
    """It was decided where it goes, in `decision_s` seconds; the plan may be empty.

    `predicted` is what was foreseen when it began to wait for a slot: a decision made later knows less of the wait.
    """

    asked: Asked
    choice: Choice
    decision_s: float
    waits: Waits = NO_WAITS
    predicted: Predicted | None = None

    @property
    def received(self) -> Received:
        """How it began."""
        return self.asked.received

    @property
    def decided(self) -> "Decided":
        """Itself, as an attempt has it."""
        return self

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """None so far."""
        return ()

    def redecided(self, decided: "Decided") -> "Decided":
        """The same request after a newer decision."""
        return decided


@value
class Reading:
    """What was read of a node's answer so far: usage, when content came, and whether it was more than thinking."""

    usage: Usage = field(default_factory=Usage)
    first_content_at: float | None = None
    last_content_at: float | None = None
    content_frames: int = 0
    spoken: bool = True


@value
class Attempted:
    """A node was tried, the last one of `attempts`; `context` is what was done about its num_ctx."""

    decided: Decided
    candidate: Candidate
    attempts: tuple[Attempt, ...]
    reading: Reading = Reading()
    context: ContextAction | None = None

    @property
    def received(self) -> Received:
        """How it began."""
        return self.decided.asked.received

    def redecided(self, decided: Decided) -> "Attempted":
        """The same request after a newer decision; what was tried stays tried."""
        return replace(self, decided=decided)


Planned = Decided | Attempted
Phase = Received | Asked | Planned


@value
class Ending:
    """How a request ended, and what its client got or would have got."""

    status: Status
    http_status: int
    error: HerdError | None = None


COMPLETED = Ending(Status.COMPLETED, 200)
LEFT = Ending(Status.CLIENT_DISCONNECTED, CLIENT_CLOSED)


def ended_by(error: HerdError, phase: Phase, started: bool) -> Ending:
    """The ending that an error makes; `started`: the client has part of an answer."""
    attempted = isinstance(phase, Attempted)
    if isinstance(error, Refused) and not attempted:
        status = Status.REJECTED
    else:
        status = Status.INCOMPLETE if started else Status.FAILED
    if started:
        return Ending(status, 200, error)
    answer = error.answer if isinstance(error, AttemptError) else None
    return Ending(status, answer.status if answer else error.status, error)


def finished(phase: Phase, ending: Ending) -> Finished:
    """The whole life as one event."""
    received, error = phase.received, ending.error
    attempted = phase if isinstance(phase, Attempted) else None
    decided = attempted.decided if attempted else phase if isinstance(phase, Decided) else None
    asked = decided.asked if decided else phase if isinstance(phase, Asked) else None
    facts: dict[str, Any] = {}
    if asked:
        parsed = asked.parsed
        facts |= {"request": asked.request, "parameters": parsed.parameters, "dropped_tags": parsed.dropped_tags}
    if decided:
        choice, waits = decided.choice, decided.waits
        facts |= {
            "fleet": choice.fleet, "decision": choice.decision, "decision_s": decided.decision_s,
            "queued_at": waits.queued_at, "admitted_at": waits.admitted_at, "requeued_s": waits.requeued_s,
        }  # fmt: skip
    if attempted:
        reading = attempted.reading
        facts |= {
            "chosen": attempted.candidate, "attempts": attempted.attempts, "context": attempted.context,
            "predicted": attempted.decided.predicted or attempted.candidate.predicted,
            "usage": reading.usage, "first_content_at": reading.first_content_at,
            "last_content_at": reading.last_content_at, "content_frames": reading.content_frames,
        }  # fmt: skip
    return Finished(
        request_id=received.request_id,
        ids=received.ids,
        endpoint=received.endpoint.path,
        original_format=received.endpoint.dialect.value,
        status=ending.status,
        http_status=ending.http_status,
        received_at=received.at,
        finished_at=received.clock.now(),
        policy=received.policy,
        error_type=error.error_type if error else None,
        error_message=error.message if error else _remark(attempted, ending.status),
        client_ip=received.client_ip,
        api_key_id=received.caller.key_id or None,
        **facts,
    )


def _remark(attempted: Attempted | None, status: Status) -> str | None:
    """What an operator should know of an answer that came whole."""
    if attempted is None or status is not Status.COMPLETED:
        return None
    if attempted.reading.usage.finish_reason == "length" and not attempted.reading.spoken:
        return "no content: the token limit ended the answer while the model was thinking"
    return None

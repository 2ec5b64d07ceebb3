"""What becomes known of one request while it lives; at its end it is frozen into a Finished.

The only mutable record of a request. It decides nothing and sends nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from herd.clock import Clock
from herd.core.events import Attempt, ContextAction, Finished, Status, TraceIds, Usage
from herd.core.fleet import Fleet
from herd.core.observed import Mark
from herd.core.request import NOTHING_SAID, Parameters, Request
from herd.core.routing import Candidate, Decision, Policy
from herd.dataplane.dialects import Endpoint
from herd.errors import AttemptError, HerdError, Refused


@dataclass(slots=True)
class Life:
    """One request from receipt to end. Times are unix seconds of its own clock.

    `due_at` is when it must have moved on, by the limit that holds where it is; None where something else sees to that.
    """

    request_id: str
    ids: TraceIds
    endpoint: Endpoint
    client_ip: str
    policy: Policy
    clock: Clock = field(default_factory=Clock)
    received_at: float = 0.0
    request: Request | None = None
    dropped_tags: int = 0
    parameters: Parameters = NOTHING_SAID
    fleet: Fleet | None = None
    decision: Decision | None = None
    decision_s: float | None = None
    queued_at: float | None = None
    admitted_at: float | None = None
    requeued_s: float = 0.0
    chosen: Candidate | None = None
    attempts: list[Attempt] = field(default_factory=list)
    first_content_at: float | None = None
    last_content_at: float | None = None
    content_frames: int = 0
    usage: Usage = field(default_factory=Usage)
    spoken: bool = True
    context: ContextAction | None = None
    due_at: float | None = None
    retrying: bool = False
    budget_spent: bool = False
    on_first: Callable[[float], None] | None = None
    mark: Mark | None = None
    busy: float = 0.0

    def __post_init__(self) -> None:
        self.received_at = self.clock.now()

    def begin_attempt(self, candidate: Candidate, url: str, span_id: str) -> None:
        """An attempt at a node begins; what an earlier one learned of the answer is void."""
        self.chosen = candidate
        self.first_content_at = self.last_content_at = None
        self.usage, self.content_frames = Usage(), 0
        now = self.clock.now()
        self.attempts.append(
            Attempt(len(self.attempts) + 1, candidate.node_id, candidate.model, url, span_id, now, ended_at=now)
        )

    def answered(self, http_status: int, reconnected: bool) -> None:
        """The node's headers are here."""
        self.attempts[-1] = replace(self.attempts[-1], http_status=http_status, reconnected=reconnected)

    def content(self) -> None:
        """Content came from the node just now."""
        self.last_content_at = self.clock.now()
        if self.first_content_at is None:
            self.first_content_at = self.last_content_at
            if self.on_first:
                self.on_first(self.first_content_at)

    def end_attempt(self, error: HerdError | None) -> Attempt:
        """The attempt is over, with this error if it failed."""
        attempt = replace(
            self.attempts[-1],
            ended_at=self.clock.now(),
            first_content_at=self.first_content_at,
            error_type=error.error_type if error else None,
            error_message=error.message if error else None,
        )
        self.attempts[-1] = attempt
        return attempt

    def waited(self, began: float) -> None:
        """The wait for a slot, or for a model to be pulled, that began then is over; one may follow the other."""
        now = self.clock.now()
        if self.attempts:
            self.requeued_s += now - began
        else:
            self.queued_at, self.admitted_at = self.queued_at or began, now

    def status_of(self, error: HerdError | None, started: bool) -> Status:
        """How a request ended that ended with this error, or with none; `started`: the client has part of an answer."""
        if error is None:
            return Status.COMPLETED
        if isinstance(error, Refused) and not self.attempts:
            return Status.REJECTED
        return Status.INCOMPLETE if started else Status.FAILED

    def _remark(self, status: Status) -> str | None:
        """What an operator should know of an answer that came whole."""
        if status is Status.COMPLETED and self.usage.finish_reason == "length" and not self.spoken:
            return "no content: the token limit ended the answer while the model was thinking"
        return None

    def finished(self, status: Status, http_status: int, error: HerdError | None) -> Finished:
        """The whole life as a frozen value."""
        return Finished(
            request_id=self.request_id,
            ids=self.ids,
            endpoint=self.endpoint.path,
            original_format=self.endpoint.dialect.value,
            status=status,
            http_status=http_status,
            received_at=self.received_at,
            finished_at=self.clock.now(),
            request=self.request,
            fleet=self.fleet,
            policy=self.policy,
            decision=self.decision,
            chosen=self.chosen,
            attempts=tuple(self.attempts),
            usage=self.usage,
            error_type=error.error_type if error else None,
            error_message=error.message if error else self._remark(status),
            decision_s=self.decision_s,
            queued_at=self.queued_at,
            admitted_at=self.admitted_at,
            requeued_s=self.requeued_s,
            first_content_at=self.first_content_at,
            last_content_at=self.last_content_at,
            content_frames=self.content_frames,
            context=self.context,
            dropped_tags=self.dropped_tags,
            parameters=self.parameters,
            client_ip=self.client_ip,
        )


def http_status_of(error: HerdError | None, started: bool) -> int:
    """The status that the client gets for an error, or for none."""
    if error is None or started:
        return 200
    return error.answer.status if isinstance(error, AttemptError) and error.answer else error.status

"""What the doors refuse, as events: a request that was refused is on record like any other.

It knows events and no sink. What is no inference request is told once in a while for each door and client, with how
often: whoever knocks a thousand times a second must not fill the log.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from herd.core.access import NOBODY, Caller
from herd.core.dialects import ENDPOINTS
from herd.core.doors import reason_of
from herd.core.errors import HerdError
from herd.core.events import AccessRefused, Event, Finished, FleetChanged, Status, TraceIds

REPEAT_S = 10.0
MOST_KNOWN = 1000
LONGEST = 256  # of what a stranger said


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was not let in: by which of `core.doors.DOORS`, from where, and why.

    `reason` is a word of `core.doors.REASONS` where the error's class alone does not say it. `observed`: it was let in
    all the same, as the setting `auth` says.
    """

    door: str
    error: HerdError
    client: str
    method: str = ""
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    reason: str = ""
    caller: Caller = NOBODY
    observed: bool = False


class Report(Protocol):
    """Whoever puts refusals on record."""

    def __call__(self, refusal: Refusal, /) -> str | None:
        """Record a refusal; the request's id where it is one that has a row."""


def unrecorded(_: Refusal) -> str | None:
    """For a server that has no records."""
    return None


class Refusals:
    """Makes events of refusals; `new_ids` and `request_ids` are those of the requests that are let in."""

    def __init__(
        self,
        emit: Callable[[Event], None],
        new_ids: Callable[[str | None], TraceIds],
        request_ids: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._emit = emit
        self._new_ids = new_ids
        self._request_ids = request_ids
        self._clock = clock
        self._untold: dict[tuple[str, str], tuple[float, int]] = {}

    def __call__(self, refusal: Refusal) -> str | None:
        """Record a refusal; the request's id where it is one that has a row."""
        self._emit(AccessRefused(refusal.door, refusal.reason or reason_of(refusal.error)))
        if refusal.path in ENDPOINTS and refusal.method == "POST" and not refusal.observed:
            event = self._finished(refusal)
            self._emit(event)
            return event.request_id
        self._tell(refusal)
        return None

    def _finished(self, refusal: Refusal) -> Finished:
        endpoint, error, now = ENDPOINTS[refusal.path], refusal.error, time.time()
        return Finished(
            request_id=self._request_ids(refusal.headers.get("x-request-id", "")),
            ids=self._new_ids(refusal.headers.get("traceparent")),
            endpoint=endpoint.path,
            original_format=endpoint.dialect.value,
            status=Status.REJECTED,
            http_status=error.status,
            received_at=now,
            finished_at=now,
            error_type=error.error_type,
            error_message=error.message,
            client_ip=refusal.client,
            api_key_id=refusal.caller.key_id or None,
        )

    def _tell(self, refusal: Refusal) -> None:
        who = f"{refusal.client} {refusal.caller.key_id} {refusal.observed}"
        key, now = (refusal.door, who), self._clock()
        told_at, untold = self._untold.get(key, (-REPEAT_S, 0))
        if now - told_at < REPEAT_S:
            self._untold[key] = told_at, untold + 1
            return
        if len(self._untold) >= MOST_KNOWN:
            self._untold.clear()
        self._untold[key] = now, 0
        data: dict[str, str | int | float | bool | None] = {
            "door": refusal.door,
            "reason": refusal.error.message[:LONGEST],
            "http_status": refusal.error.status,
            "client": refusal.client,
            "method": refusal.method,
            "path": refusal.path[:LONGEST],
            "times": untold + 1,
        }
        if refusal.caller.key_id:
            data |= {"api_key_id": refusal.caller.key_id, "key_name": refusal.caller.name}
        self._emit(FleetChanged(time.time(), "door_would_close" if refusal.observed else "door_closed", data=data))

"""What a request in flight is doing now, as a document: its phase, where, how far, and when it should end.

Reads flights, changes nothing. An answer that is not streamed shows no token before its end, so its prefill and decode
cannot be told apart: that phase is called `working`.
"""

from collections.abc import Callable
from typing import Any

from herd.core.events import Attempt
from herd.core.request import Request
from herd.dataplane.flights import Flight
from herd.dataplane.phases import Asked, Attempted, Decided, Phase, Reading

Document = dict[str, Any]
IsLoaded = Callable[[str, str], bool]
PHASES = ("receiving", "queued", "loading", "prefill", "decode", "working")


def under_way(flight: Flight, is_loaded: IsLoaded) -> Document:
    """One request in flight; times in seconds, `predicted_end` in unix seconds. What is not known yet is None.

    `is_loaded(node_id, model)`: whether a model is in a node's memory now.
    """
    phase, received = flight.phase, flight.phase.received
    now, request, reading = received.clock.now(), _request(phase), flight.reading()
    attempt = _attempt(flight)
    decided = _decided(phase)
    return {
        "request_id": received.request_id,
        "endpoint": received.endpoint.path,
        "client_ip": received.client_ip,
        "tags": list(request.tags) if request else [],
        "model": attempt.model if attempt else request.model if request else None,
        "original_model": request.model if request else None,
        "node_id": attempt.node_id if attempt else None,
        "phase": _phase(flight, attempt, reading, is_loaded),
        "received_at": received.at,
        "age_s": round(max(0.0, now - received.at), 3),
        "queued_s": round(_queued(decided, attempt, now), 3),
        "stream": request.stream if request else None,
        "attempts": len(decided.attempts) if decided else 0,
        "prompt_tokens": request.prompt_tokens if request else None,
        "completion_tokens": reading.content_frames if attempt and request and request.stream else None,
        "predicted_end": _predicted_end(phase, attempt, reading, now),
    }


def _request(phase: Phase) -> Request | None:
    if isinstance(phase, Asked):
        return phase.request
    return phase.decided.asked.request if isinstance(phase, Decided | Attempted) else None


def _decided(phase: Phase) -> Decided | Attempted | None:
    return phase if isinstance(phase, Decided | Attempted) else None


def _attempt(flight: Flight) -> Attempt | None:
    """The attempt that goes on now; None while the request waits for its next slot."""
    return flight.phase.attempts[-1] if isinstance(flight.phase, Attempted) and flight.trying else None


def _phase(flight: Flight, attempt: Attempt | None, reading: Reading, is_loaded: IsLoaded) -> str:
    request = _request(flight.phase)
    if request is None:
        return "receiving"
    if attempt is None:
        return "queued"
    if reading.first_content_at is not None:
        return "decode"
    assert isinstance(flight.phase, Attempted)
    if not flight.phase.candidate.loaded and not is_loaded(attempt.node_id, attempt.model):
        return "loading"
    return "prefill" if request.stream else "working"


def _queued(decided: Decided | Attempted | None, attempt: Attempt | None, now: float) -> float:
    """Seconds for which it has waited for slots."""
    if decided is None:
        return 0.0
    waits = decided.decided.waits
    first = (waits.admitted_at or now) - waits.queued_at if waits.queued_at is not None else 0.0
    if attempt is None and waits.queued_at is None:
        first = now - decided.received.at
    return max(0.0, first + waits.requeued_s)


def _predicted_end(phase: Phase, attempt: Attempt | None, reading: Reading, now: float) -> float | None:
    """By the prediction at its start; while it streams, by the pace that it has."""
    if attempt is None or not isinstance(phase, Attempted):
        return None
    expected = phase.decided.choice.fleet.answer_tokens.get(attempt.model)
    if reading.first_content_at is not None and reading.content_frames > 1 and expected:
        pace = (now - reading.first_content_at) / reading.content_frames
        return round(now + max(0.0, expected - reading.content_frames) * pace, 3)
    predicted = phase.candidate.predicted
    if predicted is None:
        return None
    return round(max(now, attempt.started_at + predicted.load_s + predicted.prefill_s + predicted.decode_s), 3)

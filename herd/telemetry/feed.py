"""The live feed: sends events to listeners as server-sent events.

It knows which events a page wants to hear of and how a frame looks, not who listens or over what. `take` never waits:
each listener has a bounded backlog, from which the oldest frames go when its client is slow, and are counted.
"""

import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from herd.core.events import Event, FindingChanged, Finished, FleetChanged
from herd.core.record import record

LISTENERS: Final = 32
BACKLOG: Final = 256  # frames of one listener
TOLD: Final = (
    "request_id", "timestamp", "finished_at", "endpoint", "model", "original_model", "node_id", "score", "status",
    "http_status", "error_type", "error_message", "stream", "latency_ms", "time_to_first_token_ms", "queue_ms",
    "load_ms", "prompt_tokens", "completion_tokens", "retry_count", "fallback_used", "tags",
)  # fmt: skip


def frame(kind: str, data: Mapping[str, Any]) -> bytes:
    """One event of the stream; ASCII, so that no separator of lines can stand in a text."""
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode("ascii")


class Listener:
    """The frames that one client has not received yet."""

    def __init__(self, capacity: int = BACKLOG) -> None:
        self._frames: deque[bytes] = deque(maxlen=capacity)
        self._offered = self._sent = 0

    def offer(self, new: bytes) -> None:
        """Queue a frame; the oldest is dropped if there are too many."""
        self._frames.append(new)
        self._offered += 1

    def taken(self) -> bytes:
        """All queued frames, in order, after a note about dropped ones; empty if there are none."""
        frames = list(self._frames)
        self._frames.clear()
        dropped = self._offered - self._sent - len(frames)
        self._sent = self._offered
        return b"".join([frame("dropped", {"count": dropped}), *frames] if dropped else frames)


class Feed:
    """The sink. Called on the event loop only, like its listeners."""

    def __init__(self, limit: int = LISTENERS) -> None:
        self._limit = limit
        self._listeners: list[Listener] = []

    def __len__(self) -> int:
        return len(self._listeners)

    def join(self) -> Listener | None:
        """A new listener, or None if there are too many."""
        if len(self._listeners) >= self._limit:
            return None
        self._listeners.append(Listener())
        return self._listeners[-1]

    def leave(self, listener: Listener) -> None:
        """Remove a listener."""
        self._listeners.remove(listener)

    def take(self, event: Event) -> None:
        """Send an event to all listeners, if it is of a kind that the page shows."""
        if self._listeners and (new := _framed(event)):
            for listener in self._listeners:
                listener.offer(new)


def _framed(event: Event) -> bytes:
    """The frame of an event; empty for kinds that the page does not show."""
    match event:
        case Finished():
            told = record(event)
            return frame("request", {name: told[name] for name in TOLD})
        case FleetChanged():
            changed = {"at": event.at, "kind": event.kind, "node_id": event.node_id, "model": event.model}
            return frame("fleet", {**changed, "data": dict(event.data)})
        case FindingChanged() if event.change != "seen":
            found = event.episode.finding
            named = {"check_id": found.check_id, "severity": found.severity, "title": found.title}
            return frame("finding", {"at": event.at, "change": event.change, **named, "node_id": found.node_id})
    return b""

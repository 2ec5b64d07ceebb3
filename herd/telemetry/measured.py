"""What the router measures of itself beside events: it is counted like an event, and no other record has it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopDelayed:
    """The event loop came so many seconds late."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit of the trace store took so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Overflown:
    """A name was used for which this label has no room."""

    label: str

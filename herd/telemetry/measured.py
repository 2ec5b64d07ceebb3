"""What the router measures of itself beside events: it is counted like an event, and no other record has it."""

from herd.core.value import value


@value
class LoopDelayed:
    """The event loop came so many seconds late."""

    seconds: float


@value
class Committed:
    """A commit of the trace store took so many seconds."""

    seconds: float


@value
class Overflown:
    """A name was used for which this label has no room."""

    label: str

"""The faults that a node can be told to have, and which request gets which. Decides; does not carry out."""

import asyncio
import random
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from herd.wire import canonical_name


class FaultKind(StrEnum):
    """What goes wrong. `after` counts answer bytes for `cut` and `half_close`, frames of content elsewhere."""

    REFUSED = "refused"  # nothing listens, idle connections are closed; until `seconds` are over or it is cleared
    RESET = "reset"  # a TCP reset instead of an answer
    CLOSE_IDLE = "close_idle"  # a reused connection is closed when the next request arrives on it
    HANG_BEFORE_HEADERS = "hang_before_headers"  # silence, for `seconds` or until cleared
    HANG_MID_STREAM = "hang_mid_stream"  # the same after some frames
    SLOW_DRIP = "slow_drip"  # a few bytes at a time, `seconds` apart
    CUT = "cut"  # the connection closes in the middle of the body
    HALF_CLOSE = "half_close"  # the node's sending side closes in the middle, its receiving side stays
    WRONG_CONTENT_LENGTH = "wrong_content_length"  # more bytes announced than sent
    HTTP_500 = "http_500"
    BUSY_503 = "busy_503"
    HTTP_404_MODEL = "http_404_model"  # the node lost the model that it listed
    MALFORMED_JSON = "malformed_json"  # one frame, or the whole body, is not JSON
    ERROR_LINE = "error_line"  # an error under status 200, as the engine says it in this dialect
    NO_DONE = "no_done"  # the answer ends in order, without its proper end
    NO_USAGE = "no_usage"  # a whole answer comes without its token counts, as some engines always do


DEFAULT_AFTER = {FaultKind.CUT: 100, FaultKind.HALF_CLOSE: 100, FaultKind.HANG_MID_STREAM: 1}


@dataclass(frozen=True, slots=True)
class Fault:
    """One scripted fault: for the next `times` requests that match (None: all), each with `probability`.

    `path` None matches the inference endpoints only, so that a look at the state uses no fault up. `seconds` are wall
    time.
    """

    kind: FaultKind
    times: int | None = 1
    after: int | None = None
    model: str | None = None
    path: str | None = None
    probability: float = 1.0
    seconds: float | None = None

    @property
    def position(self) -> int:
        """Where in the answer it strikes, in the kind's own unit."""
        return DEFAULT_AFTER.get(self.kind, 0) if self.after is None else self.after

    def matches(self, path: str, model: str | None, inference: bool) -> bool:
        """Whether the request is one that this fault is for."""
        if self.model is not None and (model is None or canonical_name(model) != canonical_name(self.model)):
            return False
        return path == self.path if self.path is not None else inference


class Script:
    """The faults that are still to come, in the order in which they were set."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._entries: list[tuple[Fault, int | None]] = []
        self._cleared = asyncio.Event()
        self.applied = 0

    def __bool__(self) -> bool:
        """Whether anything is still to come."""
        return bool(self._entries)

    def add(self, fault: Fault) -> None:
        """Set a fault behind those that are set already."""
        self._entries.append((fault, fault.times))

    def clear(self) -> None:
        """Forget all faults and let go what hangs."""
        self._entries.clear()
        self._cleared.set()
        self._cleared = asyncio.Event()

    def take(self, path: str, model: str | None, *, inference: bool, reused: bool) -> Fault | None:
        """The fault for this request, used up by one; None for nearly all."""
        for index, (fault, left) in enumerate(self._entries):
            if fault.kind is FaultKind.REFUSED or (fault.kind is FaultKind.CLOSE_IDLE and not reused):
                continue
            if not fault.matches(path, model, inference) or self._random.random() >= fault.probability:
                continue
            if left is not None:
                self._entries[index : index + 1] = [(fault, left - 1)] if left > 1 else []
            self.applied += 1
            return fault
        return None

    async def hang(self, fault: Fault) -> None:
        """Wait until the script is cleared or the fault's seconds are over."""
        try:
            async with asyncio.timeout(fault.seconds):
                await self._cleared.wait()
        except TimeoutError:
            return

    def describe(self) -> list[dict[str, Any]]:
        """What is still to come, as JSON."""
        return [{**asdict(fault), "times": left} for fault, left in self._entries]

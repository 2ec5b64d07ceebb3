"""Reads a copy of an answer as it flows: content, usage, and whether it came to its proper end.

Pure: bytes in, values out. A 200 proves nothing: Ollama reports errors as a line of the stream, and its /v1 streams
just end. Chunks are not lines: lines are cut at LF only, with a cap on their length.

Most frames differ from the one before in their text alone. Such a frame is known by its form (`forms`) and is not
parsed; every other line is, by json and the shape's reader. The form proves that the line is JSON and what its reader
would say of it, so nothing goes undetected that parsing would detect.
"""

import json
from collections import deque
from typing import NamedTuple

from herd.core.dialects import Shape
from herd.core.events import Usage
from herd.core.value import value
from herd.dataplane.document import object_in
from herd.dataplane.forms import Form, learn
from herd.dataplane.frames import GAVE_UP, READERS, Frame, ended_by, usage_of

LINE_LIMIT = 8 * 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
VAIN_LESSONS = 8  # a stream whose frames have no form (probabilities, many choices) is parsed, not learned for ever
# Ollama counts how often a piece of text follows itself (less the space around it), and gives up at the 31st time
# without sending that one: 31 frames alike have gone out. The first may have been joined to what was before it.
REPEATS = 30
LONGEST_TEXT = 1000  # of those that may be repetitions; a token is never as long, and thirty of them are kept


class Seen(NamedTuple):
    """What one chunk brought.

    `forward` is for the client; `content` counts the frames with content; `passable` is something that must reach the
    client now though it is no content. `ended`, `error` and `malformed` hold for the answer so far.
    """

    forward: bytes
    content: int
    passable: bool
    ended: bool
    error: str | None
    malformed: str | None

    @property
    def failed(self) -> bool:
        """Whether the answer itself says that it failed."""
        return self.error is not None or self.malformed is not None


@value
class Summary:
    """What is known of the whole answer.

    `broken_line`: what went to the client ends within a line or an event. `cut_by_engine`: the engine gave a model up
    that repeats itself; the client has what it would have got without herd, and nobody is to blame.
    """

    usage: Usage
    content_frames: int
    spoken: bool
    broken_line: bool
    cut_by_engine: bool


class Scanner:
    """One answer. `feed` each chunk, send what it returns, `close` at the end of the body.

    Whoever reads many asks `known` first, which most chunks are, and else has it `read`: that is `feed`, too.
    """

    __slots__ = (
        "_called", "_closed", "_ended", "_error", "_finish_reason", "_form", "_frames", "_held", "_held_size",
        "_lessons", "_malformed", "_mid_event", "_mid_line", "_parsed", "_passable", "_recent", "_shape", "_skipping",
        "_spoken", "_strip_usage", "_swallow_blank", "_taught", "_usage",
    )  # fmt: skip

    def __init__(self, shape: Shape, strip_usage: bool = False) -> None:
        self._shape = shape
        self._strip_usage = strip_usage
        self._ended = self._spoken = self._called = self._passable = self._closed = False
        self._error: str | None = None
        self._malformed: str | None = None
        self._finish_reason: str | None = None
        self._usage: dict[str, int | float] = {}
        self._frames = self._parsed = 0  # frames of content, and those of them that were parsed
        self._recent: deque[bytes | str] = deque(maxlen=REPEATS)  # texts: as JSON where not parsed
        self._form: Form | None = None
        self._lessons, self._taught = VAIN_LESSONS, 0
        self._held: list[bytes] = []
        self._held_size = 0
        self._skipping = False  # the rest of a line over the cap
        self._mid_line = self._mid_event = False  # of what went to the client
        self._swallow_blank = False

    def known(self, chunk: bytes) -> bool:
        """Read a chunk if it is one frame of content as there were before, and no more: it may go on as it is."""
        form = self._form
        if form is None or self._held or self._error is not None or self._malformed is not None:
            return False
        found = form.match(chunk, 0)
        if found is None or found[0] != len(chunk):
            return False
        self._frames += 1
        if len(found[1]) <= LONGEST_TEXT:  # as _count, without the call
            self._recent.append(found[1])
        else:
            self._recent.clear()
        self._swallow_blank = self._mid_event = False
        return True

    def feed(self, chunk: bytes) -> Seen:
        """Read a chunk."""
        return Seen(chunk, 1, False, self._ended, None, None) if self.known(chunk) else self.read(chunk)

    def close(self) -> Seen:
        """The body is over; `forward` is what was held back."""
        before, rest = self._frames, b"".join(self._held)
        self._passable, self._held, self._held_size, self._closed = False, [], 0, True
        kept = not rest.strip() or self._keep(rest, 0, len(rest))
        if self._shape is Shape.OPENAI and self._finish_reason:
            self._ended = True  # some engines send no [DONE]; a finish_reason is as good
        forward = rest if self._strip_usage and kept else b""
        self._mid_line = self._mid_line or bool(forward)
        return self._seen(forward, before)

    def summary(self) -> Summary:
        """What is known of the answer now; it may be asked at any time."""
        return Summary(
            usage=usage_of(self._usage, ended_by(self._finish_reason, self._called), self._frames),
            content_frames=self._frames,
            spoken=self._spoken,
            broken_line=self._mid_line or self._mid_event,
            cut_by_engine=self._cut_by_engine(),
        )

    def _seen(self, forward: bytes, before: int) -> Seen:
        content = self._frames - before
        return Seen(forward, content, self._passable, self._ended, self._error, self._malformed)

    def read(self, chunk: bytes) -> Seen:
        """Read a chunk that is not `known`."""
        before, self._passable = self._frames, False
        if self._skipping:
            end = chunk.find(b"\n") + 1
            self._skipping = not end
            read = chunk[:end] + self._read(chunk[end:]) if end else chunk
        else:
            read = self._read(chunk)
        forward = read if self._strip_usage else chunk
        if forward:
            self._mid_line = not forward.endswith(b"\n")
        return self._seen(forward, before)

    def _read(self, chunk: bytes) -> bytes:
        """Read the lines that end in this chunk and hold back the half line after them; returns what may go on."""
        kept, rest, size = b"", chunk, self._held_size + len(chunk)
        if b"\n" in chunk:
            data = b"".join([*self._held, chunk])
            kept, end = self._read_lines(data)
            self._held, rest, size = [], data[end:], len(data) - end
        if size > LINE_LIMIT:
            kept += b"".join([*self._held, rest])
            self._held, rest, size = [], b"", 0
            self._skipping, self._form, self._mid_event = True, None, self._shape is not Shape.OLLAMA
        if rest:
            self._held.append(rest)
        self._held_size = size
        return kept

    def _read_lines(self, data: bytes) -> tuple[bytes, int]:
        """Read all whole lines; returns them, less a usage frame that only herd asked for, and where they end."""
        kept: list[bytes] = []
        since = at = 0
        while at < len(data):
            found = self._form.match(data, at) if self._form is not None else None
            if found is not None:
                self._count(found[1])
                self._swallow_blank = self._mid_event = False
                at = found[0]
                continue
            end = data.find(b"\n", at) + 1
            if not end:
                break
            if not self._keep(data, at, end):
                kept.append(data[since:at])
                since = end
            at = end
        return (b"".join([*kept, data[since:at]]) if kept else data[:at]), at

    def _keep(self, data: bytes, start: int, end: int) -> bool:
        """Read one line; whether it goes to the client."""
        line = data[start:end].removesuffix(b"\n").removeprefix(BYTE_ORDER_MARK)
        if self._shape is Shape.OLLAMA:
            self._parse(line, data, start, end)
            return True
        blank = not line.strip()
        if blank and self._swallow_blank:
            self._swallow_blank = False
            return False
        if line.startswith(b"data:") and not self._keep_data(line[5:].strip(), data, start, end):
            return False
        self._passable = self._passable or line.startswith(b":")
        self._mid_event = not blank or data.startswith(BYTE_ORDER_MARK, start)  # which ends no event
        return True

    def _keep_data(self, payload: bytes, data: bytes, start: int, end: int) -> bool:
        if payload == b"[DONE]":
            self._ended = True
            return True
        frame = self._parse(payload, data, start, end)
        self._swallow_blank = self._strip_usage and frame is not None and frame.usage_only
        return not self._swallow_blank

    def _parse(self, payload: bytes, data: bytes, start: int, end: int) -> Frame | None:
        if not payload.strip():
            return None
        document = object_in(payload)
        if document is None:
            self._malformed = f"the node sent a line that is no JSON object: {payload[:80]!r}"
            return None
        frame = READERS[self._shape](document)
        self._add(frame)
        if frame.content:
            self._learn(frame, payload, data, start, end)
        return frame

    def _add(self, frame: Frame) -> None:
        self._spoken = self._spoken or frame.spoken
        self._called = self._called or frame.called
        self._ended = self._ended or frame.end
        self._error = self._error or frame.error
        self._finish_reason = frame.finish_reason or self._finish_reason
        self._passable = self._passable or frame.progress
        self._usage.update(frame.usage)
        if frame.content:
            self._parsed += 1
            self._count(frame.said)

    def _count(self, text: bytes | str) -> None:
        self._frames += 1
        if 0 < len(text) <= LONGEST_TEXT:
            self._recent.append(text)
        else:
            self._recent.clear()

    def _learn(self, frame: Frame, payload: bytes, data: bytes, start: int, end: int) -> None:
        """Keep the form of this frame for those that follow; its event's name and its blank line belong to it."""
        of_form = self._frames - self._parsed
        self._lessons = self._lessons - 1 if of_form == self._taught else VAIN_LESSONS
        self._taught = of_form
        if self._lessons <= 0:
            self._form = None
            return
        begin = data.index(payload, start)
        if self._shape is not Shape.OLLAMA:
            blank = next((mark for mark in (b"\n", b"\r\n") if data.startswith(mark, end)), None)
            if blank is None:
                return
            line_before = data.rfind(b"\n", 0, max(start - 1, 0)) + 1
            if data.startswith(b"event:", line_before):
                start = line_before
            end += len(blank)
        self._form = learn(
            data[start:begin], payload, data[begin + len(payload) : end], READERS[self._shape], frame
        )  # fmt: skip

    def _cut_by_engine(self) -> bool:
        if self._error is not None:
            return GAVE_UP in self._error
        if self._ended or self._malformed or not self._closed or len(self._recent) < REPEATS:
            return False
        return len({_plain(text).strip() for text in self._recent}) == 1


def _plain(text: bytes | str) -> str:
    return text if isinstance(text, str) else str(json.loads(b'"' + text + b'"'))

"""Frames that differ in their text alone: what a reader said of one holds for all of its form.

A stream repeats one frame hundreds of times with another word in it. `learn` takes a frame that was parsed and cuts the
texts out of it; a later frame of the same form has the same bytes outside of these holes, and in each hole exactly what
JSON allows there, so it is the same document with other texts. Readers ask of these texts only whether they are empty,
and a hole is never filled with nothing: what was read of the first frame is true of each, and nothing is guessed. A
frame that differs in any other byte is not of the form, and is parsed.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from herd.dataplane.frames import Frame, Reader

# What json.loads takes between the quotes of a string: no control characters, whole escapes, well-formed UTF-8.
_PLAIN = rb"[ !#-\[\]-\x7f]*"
_ESCAPE = rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})'
_BEYOND_ASCII = (
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_INSIDE = _PLAIN + rb"(?:(?:" + _ESCAPE + rb"|" + _BEYOND_ASCII + rb")" + _PLAIN + rb")*"
_COUNT = rb"(?:[1-9][0-9]{0,14}|0)"
TEXT, COUNT = re.compile(_INSIDE), re.compile(_COUNT)
# The keys whose strings may differ. Readers look at the first nine for emptiness only, wherever they stand, and at the
# last two not at all: Ollama dates its lines, and events of /v1/responses are numbered.
HOLE = re.compile(
    rb'"(?:(?:content|reasoning_content|reasoning|thinking|text|response|delta|partial_json|arguments|created_at)"'
    rb': ?"(?P<text>' + _INSIDE + rb')"|sequence_number": ?(?P<count>' + _COUNT + rb"))"
)
MOST_HOLES = 4
Fill = Callable[[bytes, int], re.Match[bytes] | None]


@dataclass(frozen=True, slots=True)
class Form:
    """A frame without its texts: what stands before the first hole, and for each hole what fills it and what follows.

    `spoken_at` is the number of the hole that holds the content's text.
    """

    head: bytes
    skip: int
    holes: tuple[tuple[Fill, bytes, int], ...]
    spoken_at: int

    def match(self, data: bytes, start: int) -> tuple[int, bytes] | None:
        """Where the frame of this form that begins at `start` ends, and its text as it stands in the JSON; or None."""
        if not data.startswith(self.head, start):
            return None
        begin = start + self.skip
        text = b""
        number = self.spoken_at
        for fill, after, length in self.holes:
            filled = fill(data, begin)
            if filled is None:
                return None
            end = filled.end()
            if end == begin or not data.startswith(after, end):
                return None
            if not number:
                text = data[begin:end]
            number -= 1
            begin = end + length
        return begin, text


def learn(before: bytes, payload: bytes, after: bytes, read: Reader, frame: Frame) -> Form | None:
    """The form of a frame that was read; None where it says more than its text, or its text is not in one place.

    `payload` is its JSON, `before` and `after` are the bytes around it (`data: ` and the blank line).
    """
    if not _says_nothing_else(frame):
        return None
    holes = [found for found in HOLE.finditer(payload) if found["text"] != b""]
    if not 0 < len(holes) <= MOST_HOLES:
        return None
    spans = [found.span("count" if found["text"] is None else "text") for found in holes]
    probes = [b"%d" % (10**12 + number) for number in range(len(holes))]
    told = read(json.loads(_filled(payload, spans, probes)))
    if replace(told, said=frame.said) != frame or (probe := told.said.encode()) not in probes:
        return None
    ends = [*(start for start, _ in spans[1:]), len(payload)]
    fixed = [payload[end:following] for (_, end), following in zip(spans, ends, strict=True)]
    fixed[-1] += after
    fills = [COUNT.match if found["text"] is None else TEXT.match for found in holes]
    head = before + payload[: spans[0][0]]
    return Form(
        head=head,
        skip=len(head),
        holes=tuple((fill, text, len(text)) for fill, text in zip(fills, fixed, strict=True)),
        spoken_at=probes.index(probe),
    )


def _says_nothing_else(frame: Frame) -> bool:
    more = (frame.usage, frame.end, frame.error, frame.finish_reason, frame.usage_only, frame.progress)
    return frame.content and bool(frame.said) and not any(more)


def _filled(payload: bytes, spans: list[tuple[int, int]], fillings: list[bytes]) -> bytes:
    parts, done = [], 0
    for (start, end), filling in zip(spans, fillings, strict=True):
        parts += [payload[done:start], filling]
        done = end
    return b"".join([*parts, payload[done:]])

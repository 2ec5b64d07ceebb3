"""Frames that differ in their text alone: what a reader said of one holds for all of its form.

A stream repeats one frame hundreds of times with another word in it. `learn` takes a frame that was parsed and cuts the
texts out of it; a later frame of the same form has the same bytes outside of these holes, and in each hole exactly what
JSON allows there, so it is the same document with other texts. Readers ask of these texts only whether they are empty,
and a hole is never filled with nothing: what was read of the first frame is true of each, and nothing is guessed. A
frame that differs in any other byte is not of the form, and is parsed.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from herd.dataplane.frames import Frame, Reader

# What json.loads takes between the quotes of a string: no control characters, whole escapes, well-formed UTF-8.
_PLAIN = rb"[ !#-\[\]-\x7f]*"
_ESCAPE = rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})'
_BEYOND_ASCII = (
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_TEXT = rb'(?!")' + _PLAIN + rb"(?:(?:" + _ESCAPE + rb"|" + _BEYOND_ASCII + rb")" + _PLAIN + rb")*"
_DATE = rb"[0-9A-Za-z:.+-]+"
_COUNT = rb"(?:[1-9][0-9]{0,14}|0)"
# Where values may differ: texts, of which readers ask whether they are empty, wherever they stand, and nothing else;
# and two keys that no reader looks at: Ollama dates its lines, and the events of /v1/responses are numbered.
HOLE = re.compile(
    rb'"(?:(?:content|reasoning_content|reasoning|thinking|text|response|delta|partial_json|arguments)"'
    rb': ?"(?P<text>' + _TEXT + rb')"|created_at": ?"(?P<date>' + _DATE + rb')"|sequence_number": ?'
    rb"(?P<count>" + _COUNT + rb"))"
)  # fmt: skip
Fill = Callable[[bytes, int], re.Match[bytes] | None]
FILLS: dict[str | None, Fill] = {
    "text": re.compile(_TEXT).match, "date": re.compile(_DATE).match, "count": re.compile(_COUNT).match,
}  # fmt: skip
NUMBER = re.compile(rb"[0-9]")
MOST_HOLES = 4
Hole = tuple[Fill, bytes, int]


@dataclass(frozen=True, slots=True)
class Form:
    """A frame without its texts: what it begins with, and for each hole what fills it, and what follows (and its size).

    `spoken` is the hole of the content's text, `group` the text in what fills it; `before` and `after` are the others.
    """

    head: bytes
    size: int
    before: tuple[Hole, ...]
    spoken: Hole
    group: int
    after: tuple[Hole, ...]

    def match(self, data: bytes, start: int) -> tuple[int, bytes] | None:
        """Where the frame of this form that begins at `start` ends, and its text as it stands in the JSON; or None."""
        if not data.startswith(self.head, start):
            return None
        begin = start + self.size
        for fill, fixed, size in self.before:
            filled = fill(data, begin)
            if filled is None or not data.startswith(fixed, end := filled.end()):
                return None
            begin = end + size
        fill, fixed, size = self.spoken
        filled = fill(data, begin)
        if filled is None or not data.startswith(fixed, end := filled.end()):
            return None
        text, begin = filled[self.group], end + size
        for fill, fixed, size in self.after:
            filled = fill(data, begin)
            if filled is None or not data.startswith(fixed, end := filled.end()):
                return None
            begin = end + size
        return begin, text


def learn(lead: bytes, payload: bytes, trail: bytes, read: Reader, frame: Frame) -> Form | None:
    """The form of a frame that was read; None where it says more than its text, or its text is not in one place.

    `payload` is its JSON, `lead` and `trail` are the bytes around it (`data: ` and the blank line).
    """
    if not _says_nothing_else(frame):
        return None
    found = list(HOLE.finditer(payload))
    if not 0 < len(found) <= MOST_HOLES:
        return None
    spans = [each.span(each.lastgroup or 0) for each in found]
    probes = [b"%d" % (10**12 + number) for number in range(len(found))]
    told = read(json.loads(_filled(payload, spans, probes)))
    if replace(told, said=frame.said) != frame or (probe := told.said.encode()) not in probes:
        return None
    ends = [*(start for start, _ in spans[1:]), len(payload)]
    fixed = [payload[end:following] for (_, end), following in zip(spans, ends, strict=True)]
    fixed[-1] += trail
    holes = [(FILLS[each.lastgroup], text, len(text)) for each, text in zip(found, fixed, strict=True)]
    head, spoken = lead + payload[: spans[0][0]], probes.index(probe)
    before, hole, after = holes[:spoken], holes[spoken], holes[spoken + 1 :]
    joined = found[0].lastgroup == "date" and spoken == 1 and not NUMBER.search(fixed[0])
    if joined:
        before, hole = [], (_dated(fixed[0]), *hole[1:])
    return Form(head, len(head), tuple(before), hole, int(joined), tuple(after))


def _dated(gap: bytes) -> Fill:
    """A date, what follows it in every line of such an engine, and the text: one match costs less than two.

    The compiled expression is kept by `re`, so a gap must be the same in many streams: it holds no number of one.
    """
    return re.compile(_DATE + re.escape(gap) + rb"(" + _TEXT + rb")").match


def _says_nothing_else(frame: Frame) -> bool:
    more = (frame.usage, frame.end, frame.error, frame.finish_reason, frame.usage_only, frame.progress)
    return frame.content and bool(frame.said) and not any(more)


def _filled(payload: bytes, spans: Sequence[tuple[int, int]], fillings: Sequence[bytes]) -> bytes:
    parts, done = [], 0
    for (start, end), filling in zip(spans, fillings, strict=True):
        parts += [payload[done:start], filling]
        done = end
    return b"".join([*parts, payload[done:]])

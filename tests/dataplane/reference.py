"""The scanner's promise kept the slow way: json and the shape's reader for every line, and nothing remembered of any.

It knows no cap on a line.
"""

import json

from herd.core.dialects import Shape
from herd.dataplane.frames import GAVE_UP, READERS, ended_by, usage_of
from herd.dataplane.scan import LONGEST_TEXT, REPEATS, Seen, Summary


class Reference:
    """What `Scanner` is compared with."""

    def __init__(self, shape, strip_usage=False):
        self.shape, self.strip = shape, strip_usage
        self.frames, self.usage, self.rest = [], {}, b""
        self.done = self.dropped = self.closed = False
        self.malformed = None
        self.sent = []  # lines, the last one perhaps a half

    def feed(self, chunk):
        self.new, self.comment = len(self.frames), False
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        kept = [line + b"\n" for line in lines if self.kept(line)]
        self.sent += kept
        return self.seen(b"".join(kept) if self.strip else chunk)

    def close(self):
        self.new, self.comment, self.closed = len(self.frames), False, True
        kept = not self.rest.strip() or self.kept(self.rest)
        if kept and self.rest:
            self.sent.append(self.rest)
        forward, self.rest = self.rest if kept and self.strip else b"", b""
        return self.seen(forward)

    def seen(self, forward):
        new = self.frames[self.new :]
        passable = self.comment or any(frame.progress for frame in new)
        return Seen(forward, sum(frame.content for frame in new), passable, self.ended, self.error, self.malformed)

    @property
    def error(self):
        return next((frame.error for frame in self.frames if frame.error), None)

    @property
    def reason(self):
        return next((frame.finish_reason for frame in reversed(self.frames) if frame.finish_reason), None)

    @property
    def ended(self):
        late = self.closed and self.shape is Shape.OPENAI and self.reason is not None
        return self.done or late or any(frame.end for frame in self.frames)

    def summary(self):
        content = [frame for frame in self.frames if frame.content]
        called = any(frame.called for frame in self.frames)
        last = self.sent[-1] if self.sent else b"\n"
        half = not last.endswith(b"\n") or bool(self.rest and not self.strip)
        return Summary(
            usage=usage_of(self.usage, ended_by(self.reason, called), len(content)),
            content_frames=len(content),
            spoken=any(frame.spoken for frame in self.frames),
            broken_line=half or (self.shape is not Shape.OLLAMA and bool(last.strip())),
            cut_by_engine=self.cut([frame.said for frame in content][-REPEATS:]),
        )

    def cut(self, texts):
        if self.error:
            return GAVE_UP in self.error
        short = len(texts) == REPEATS and all(0 < len(text) <= LONGEST_TEXT for text in texts)
        alike = short and len({text.strip() for text in texts}) == 1
        return alike and self.closed and not self.ended and self.malformed is None

    def kept(self, line):
        line = line.removeprefix(b"\xef\xbb\xbf")
        if self.shape is Shape.OLLAMA:
            self.read(line)
            return True
        if not line.strip() and self.dropped:
            self.dropped = False
            return False
        self.comment |= line.startswith(b":")
        if not line.startswith(b"data:"):
            return True
        if line[5:].strip() == b"[DONE]":
            self.done = True
            return True
        frame = self.read(line[5:].strip())
        self.dropped = self.strip and frame is not None and frame.usage_only
        return not self.dropped

    def read(self, data):
        if not data.strip():
            return None
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            self.malformed = f"the node sent a line that is no JSON object: {data[:80]!r}"
            return None
        frame = READERS[self.shape](document)
        self.frames.append(frame)
        self.usage.update(frame.usage)
        return frame

"""Reads a copy of an answer as it flows: content, usage, and whether it came to its proper end.

Pure: bytes in, bytes out, and what was learned in attributes. A 200 proves nothing: Ollama reports errors as a line of
the stream, and its /v1 streams just end. Chunks are not lines: lines are cut at LF only, with a cap on their length.
"""

import json
import re

from herd.core.events import Usage
from herd.dataplane.dialects import Shape
from herd.dataplane.frames import READERS, Frame

LINE_LIMIT = 8 * 1024 * 1024
WHOLE_LIMIT = 8 * 1024 * 1024
EMBEDDING_TAIL = 4096  # an embedding's usage stands behind its vectors, so its end is all that is read of a large one
ALWAYS_WHOLE = frozenset({Shape.EMBEDDING, Shape.RESPONSES})
LATE_USAGE = re.compile(rb'"(prompt_eval_count|prompt_tokens|load_duration)"\s*:\s*(\d{1,18})')


class Tap:
    """What is known of one answer so far. `feed` each chunk, send what it returns, `close` at the end of the body."""

    def __init__(self, shape: Shape, strip_usage: bool = False) -> None:
        self.shape = shape
        self.content_frames = 0
        self.spoken = False
        self.called = False
        self.ended = False
        self.commented = False
        self.error: str | None = None
        self.malformed: str | None = None
        self.finish_reason: str | None = None
        self._usage: dict[str, int | float] = {}
        self._strip_usage = strip_usage
        self._swallow_blank = False
        self._pending = b""
        self._skipping = False

    @property
    def broken_line(self) -> bool:
        """Whether what went to the client ends within a line."""
        return bool(self._pending) and not self._strip_usage

    @property
    def failed(self) -> bool:
        """Whether the answer itself says that it failed."""
        return self.error is not None or self.malformed is not None

    def feed(self, chunk: bytes) -> bytes:
        """Read a chunk; returns the bytes for the client: the same, less a usage frame that only herd asked for."""
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        if self._skipping and lines:
            self._skipping, lines = False, lines[1:]
        kept = [line for line in lines if self._keep(line)]
        if len(self._pending) > LINE_LIMIT:
            self._pending, self._skipping = b"", True
        if self._strip_usage:
            return b"".join(line + b"\n" for line in kept)
        return chunk

    def close(self) -> bytes:
        """The body is over; returns what is still held back."""
        rest, self._pending = self._pending, b""
        if rest.strip():
            self._keep(rest)
        if self.shape is Shape.OPENAI and self.finish_reason:
            self.ended = True  # some engines send no [DONE]; a finish_reason is as good
        return rest if self._strip_usage else b""

    def usage(self) -> Usage:
        """What the node said of tokens; else the frames of content that were counted; else missing."""
        return _usage(self._usage, _ended_by(self.finish_reason, self.called), self.content_frames)

    def _keep(self, line: bytes) -> bool:
        if self.shape is Shape.OLLAMA:
            self._read(line)
            return True
        if line.startswith(b":"):
            self.commented = True
        elif line.startswith(b"data:"):
            return self._keep_data(line[5:].strip())
        elif not line.strip() and self._swallow_blank:
            self._swallow_blank = False
            return False
        return True

    def _keep_data(self, data: bytes) -> bool:
        if data == b"[DONE]":
            self.ended = True
            return True
        frame = self._read(data)
        self._swallow_blank = self._strip_usage and frame is not None and frame.usage_only
        return not self._swallow_blank

    def _read(self, data: bytes) -> Frame | None:
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
        self.content_frames += frame.content
        self.spoken = self.spoken or frame.spoken
        self.called = self.called or frame.called
        self.ended = self.ended or frame.end
        self.error = self.error or frame.error
        self.finish_reason = frame.finish_reason or self.finish_reason
        self._usage.update(frame.usage)
        return frame


class WholeTap:
    """Reads an answer that does not stream, once it is all there."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.error: str | None = None
        self.malformed: str | None = None
        self.ended = True
        self.spoken = False
        self.only_loaded = False
        self._finish_reason: str | None = None
        self._usage: dict[str, int | float] = {}

    def read(self, body: bytes) -> None:
        """Read a whole body; `error` and `malformed` say what is wrong with it."""
        if self.shape is Shape.EMBEDDING and len(body) > 2 * EMBEDDING_TAIL:
            self._read_tail(body)
            return
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            self.malformed = f"the node's answer is no JSON object: {body[:80]!r}"
            return
        frame = READERS[self.shape](document)
        self.error = frame.error
        # Ollama stops a model that repeats itself, and then answers `"done": false` or no reason to end under 200.
        self.ended = frame.end or frame.finish_reason is not None or self.shape in ALWAYS_WHOLE
        self.spoken = frame.spoken
        self.only_loaded = frame.finish_reason in {"load", "unload"}
        self._finish_reason = _ended_by(frame.finish_reason, frame.called)
        self._usage = dict(frame.usage)

    def usage(self) -> Usage:
        """What the node said of tokens, or that it said nothing."""
        return _usage(self._usage, self._finish_reason, 0)

    def _read_tail(self, body: bytes) -> None:
        if not body.lstrip().startswith(b"{") or not body.rstrip().endswith(b"}"):
            self.malformed = "the node's answer is no JSON object"
        for name, number in LATE_USAGE.findall(body[-EMBEDDING_TAIL:]):
            value = int(number)
            if name == b"load_duration":
                self._usage["load_s"] = value / 1e9
            else:
                self._usage["prompt_tokens"] = value


def _ended_by(finish_reason: str | None, called: bool) -> str | None:
    """Ollama and /v1/responses say that an answer which calls a tool just ended; others say why."""
    return "tool_calls" if called and finish_reason == "stop" else finish_reason


def _usage(found: dict[str, int | float], finish_reason: str | None, frames: int) -> Usage:
    def count(name: str) -> int | None:
        return int(found[name]) if name in found else None

    prompt, completion = count("prompt_tokens"), count("completion_tokens")
    reported = prompt is not None or completion is not None
    counted = completion is None and frames > 0
    if counted:
        completion = frames
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=count("cached_tokens"),
        reasoning_tokens=count("reasoning_tokens"),
        source="counted" if counted else "reported" if reported else "missing",
        finish_reason=finish_reason,
        load_s=found.get("load_s"),
        prompt_eval_s=found.get("prompt_eval_s"),
        eval_s=found.get("eval_s"),
    )

"""Reads an answer that does not stream, once it is all there. Pure: bytes in, a value out."""

import re
from dataclasses import field

from herd.core.dialects import Shape
from herd.core.events import Usage
from herd.core.value import value
from herd.dataplane.document import object_in
from herd.dataplane.frames import READERS, ended_by, usage_of

WHOLE_LIMIT = 8 * 1024 * 1024
EMBEDDING_TAIL = 4096  # an embedding's usage stands behind its vectors, so its end is all that is read of a large one
ALWAYS_WHOLE = frozenset({Shape.EMBEDDING, Shape.RESPONSES})
LATE_USAGE = re.compile(rb'"(prompt_eval_count|prompt_tokens|load_duration)"\s*:\s*(\d{1,18})')


@value
class Whole:
    """What an answer says of itself.

    `ended` is false where it says that it is not done: Ollama stops a model that repeats itself, and then answers
    `"done": false`, or without a reason to end, under 200. `only_loaded`: a model was loaded or unloaded, no more.
    """

    usage: Usage = field(default_factory=Usage)
    spoken: bool = False
    ended: bool = True
    only_loaded: bool = False
    error: str | None = None
    malformed: str | None = None


def read_whole(shape: Shape, body: bytes) -> Whole:
    """Read a body; of a long embedding's, only its beginning and its end."""
    if shape is Shape.EMBEDDING and len(body) > 2 * EMBEDDING_TAIL:
        return _read_embedding(body)
    document = object_in(body)
    if document is None:
        return Whole(malformed=f"the node's answer is no JSON object: {body[:80]!r}")
    frame = READERS[shape](document)
    return Whole(
        usage=usage_of(frame.usage, ended_by(frame.finish_reason, frame.called), 0),
        spoken=frame.spoken,
        ended=frame.end or frame.finish_reason is not None or shape in ALWAYS_WHOLE,
        only_loaded=frame.finish_reason in {"load", "unload"},
        error=frame.error,
    )


def _read_embedding(body: bytes) -> Whole:
    tail = body[-EMBEDDING_TAIL:]
    if not body.lstrip().startswith(b"{") or not tail.rstrip().endswith(b"}"):
        return Whole(malformed="the node's answer is no JSON object")
    found: dict[str, int | float] = {}
    for name, number in LATE_USAGE.findall(tail):
        if name == b"load_duration":
            found["load_s"] = int(number) / 1e9
        else:
            found["prompt_tokens"] = int(number)
    return Whole(usage=usage_of(found, None, 0))

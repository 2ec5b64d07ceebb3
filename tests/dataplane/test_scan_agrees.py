"""What the scanner knows by a frame's form is what parsing every line would say, chunk for chunk."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.core.dialects import Shape
from herd.dataplane.scan import Scanner
from tests.dataplane.recorded import RECORDED
from tests.dataplane.reference import Reference

SHAPES = (Shape.OLLAMA, Shape.OPENAI, Shape.RESPONSES, Shape.MESSAGES)
CUTS = st.lists(st.integers(1, 200), max_size=40)


def agree(shape, chunks, strip=False):
    """Feed both; all that they return must be equal. Returns the scanner."""
    scanner, reference = Scanner(shape, strip), Reference(shape, strip)
    for chunk in chunks:
        assert scanner.feed(chunk) == reference.feed(chunk)
        assert scanner.summary() == reference.summary()
    assert scanner.close() == reference.close()
    assert scanner.summary() == reference.summary()
    return scanner


def cut(stream, sizes):
    """The stream in pieces of these sizes, again and again."""
    chunks, at, turn = [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)] if sizes else len(stream)
        chunks.append(stream[at : at + size])
        at, turn = at + size, turn + 1
    return chunks


@pytest.mark.parametrize(("shape", "chunks"), RECORDED)
@pytest.mark.parametrize("strip", [False, True])
def test_streams_of_real_engines_are_read_alike(shape, chunks, strip):
    """One frame a chunk, as engines send them, and all of them in one chunk, as networks may join them."""
    agree(shape, chunks, strip)
    agree(shape, [b"".join(chunks)], strip)
    agree(shape, [chunk.replace(b"\n", b"\r\n") for chunk in chunks], strip)


WORD = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
OLD = b'data: {"choices":[{"delta":{"content":"Hi"}}],"usage":{"prompt_tokens":3}}\n\n'
COUNTED = b'data: {"choices":[],"usage":{"prompt_tokens":5}}\n'
EVENT = b'event: content_block_delta\ndata: {"delta":{"text":"Hi"}}\n\n'


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        (Shape.OPENAI, [WORD, COUNTED, WORD, b"\n", WORD]),
        (Shape.OPENAI, [WORD, COUNTED + WORD, b"\n", WORD]),
        (Shape.OPENAI, [WORD, b": ping\n", WORD]),
        (Shape.OPENAI, [WORD, b"\xef\xbb\xbf\n"]),
        (Shape.OPENAI, [WORD, b": ping\n" + WORD]),
        (Shape.OPENAI, [OLD, COUNTED + b"\n", OLD]),
        (Shape.OPENAI, [OLD, COUNTED + b"\n" + OLD]),
        (Shape.OPENAI, [WORD, WORD + b"data: [DONE]", b"\n\n"]),
        (Shape.OPENAI, [WORD, WORD[:20], WORD, WORD[20:], WORD]),
        (Shape.OPENAI, [b"\xef\xbb\xbf" + WORD, WORD]),
        (Shape.OPENAI, [WORD[:-1] + WORD] * 3),
        (Shape.OLLAMA, [b'{"response":"Hi"}\n', b'{"response":"Hi"}']),
        (Shape.OPENAI, [WORD.replace(b"Hi", b"Hi" * 20_000)] * 3),
        (Shape.MESSAGES, [EVENT[:20], EVENT[20:], EVENT, EVENT + EVENT]),
        (Shape.MESSAGES, [b"id: 7\n" + EVENT, EVENT, b"id: 8\n" + EVENT]),
        (Shape.MESSAGES, [EVENT.replace(b"event", b"retry: 3\nevent"), EVENT]),
    ],
)
@pytest.mark.parametrize("strip", [False, True])
def test_what_stands_between_frames_is_read_alike(shape, chunks, strip):
    """A frame of a known form changes what the next line means as any frame does."""
    agree(shape, chunks, strip)


@given(recorded=st.sampled_from(RECORDED), sizes=CUTS, strip=st.booleans())
def test_streams_that_are_cut_anywhere_are_read_alike(recorded, sizes, strip):
    """A chunk is not a frame, nor a line, nor a character."""
    shape, chunks = recorded
    agree(shape, cut(b"".join(chunks), sizes), strip)


BYTES = st.sampled_from([
    b'"', b"\\", b"\n", b"\r", b"\r\n", b"\n\n", b"{", b"}", b",", b":", b" ", b"\x00", b"\x1f", b"\x7f", b"\x80",
    b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x80\xa8", b"\xef\xbb\xbf",
    b"0", b"1", b"-", b".", b"e5",
    b"null", b"true", b"[DONE]", b'\\"', b"\\u", b"\\u12", b"\\ud800", b"\\x", b'""', b',"error":"x"', b',"content":""',
    b',"done":true', b',"usage":{"prompt_tokens":3}', b'"finish_reason":"stop",', b',"type":"error"', b"data:",
    b": ping\n",     b',"choices":[]', b',"delta":{}', b'"message":{},', b'\xff\xfe{\x00}\x00', b',"tool_calls":[{}]',
])  # fmt: skip
SHARE = st.floats(0, 1)
HITS = st.lists(st.tuples(SHARE, SHARE, st.integers(0, 4), BYTES | st.binary(max_size=3)), min_size=1, max_size=6)


@settings(max_examples=250)
@given(
    recorded=st.sampled_from(RECORDED),
    start=st.integers(0, 12),
    hits=HITS,
    sizes=CUTS,
    strip=st.booleans(),
    whole=st.booleans(),
)
def test_streams_with_bytes_lost_and_added_are_read_alike(recorded, start, hits, sizes, strip, whole):
    """What is nearly a frame is where a shortcut goes wrong: a key more, a quote less, half a character."""
    shape, chunks = recorded
    spoilt = chunks[start : start + 12]
    for frame, byte, lost, added in hits:
        at = int(frame * (len(spoilt) - 1))
        cut_at = int(byte * len(spoilt[at]))
        spoilt[at] = spoilt[at][:cut_at] + added + spoilt[at][cut_at + lost :]
    agree(shape, spoilt if whole else cut(b"".join(spoilt), sizes), strip)


@settings(max_examples=250)
@given(data=st.data(), strip=st.booleans(), sizes=CUTS, texts=st.lists(st.text(max_size=8), max_size=6))
def test_frames_that_no_engine_sends_are_read_alike(data, strip, sizes, texts):
    """Duplicate keys, nested names, odd spaces, numbers for texts: the form of an object is right or does not exist."""
    shape, frame = data.draw(st.sampled_from(NEARLY))
    while "MORE" in frame:
        frame = frame.replace("MORE", data.draw(pairs(depth=2)), 1)
    lines = [frame.replace("MARK", data.draw(st.sampled_from(WORDED))(text)) for text in ("one", *texts, "two")]
    lead, trail = ("", "\n") if shape is Shape.OLLAMA else ("data: ", "\n\n")
    chunks = [f"{lead}{line}{trail}".encode("utf-8", "surrogatepass") for line in lines]
    agree(shape, chunks if data.draw(st.booleans()) else cut(b"".join(chunks), sizes), strip)


NAMES = st.sampled_from([
    "choices", "content", "delta", "message", "usage", "response", "tool_calls", "thinking", "type", "done", "error",
    "finish_reason", "content_block", "stop_reason", "status", "done_reason", "text", "output", "reasoning", "function",
    "arguments", "created_at", "sequence_number", "prompt_tokens", "prompt_progress", "partial_json", "timings", "id",
    'a\\"content', "cont\\u0065nt", "delta\\\\", "reasoning_content", "images", "refusal", "function_call", "index",
])  # fmt: skip
VALUES = st.sampled_from([
    '"MARK"', '"MARK"', '"MARK"', '""', "null", "true", "false", "0", "12", "-1.5e3", "[]", "{}", '"stop"', '"error"',
    '"content_block_delta"', '"text_delta"', '"tool_use"', '"message_start"', '"response.output_text.delta"',
    '"MARK MARK"', '"response.reasoning_text.delta"', '"2026-02-03T09:51:12.0123456Z"', '"\\"content\\":\\"MARK\\""',
    '"message"',
])  # fmt: skip
SPACES = st.sampled_from(["", "", "", " ", "  ", "\t"])
WORDED = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: text,
)


NEARLY = (
    (Shape.OLLAMA, '{"model":"m"MORE,"message":{"role":"assistant"MORE,"content":"MARK"MORE},"done":false}'),
    (Shape.OLLAMA, '{"created_at":"2026-02-03T09:51:12.01Z","response":"MARK"MORE,"done":falseMORE}'),
    (Shape.OPENAI, '{"id":"x"MORE,"choices":[{"index":0,"delta":{"role":""MORE,"content":"MARK"MORE}MORE}]MORE}'),
    (Shape.OPENAI, '{"id":"x"MORE,"choices":[{"text":"MARK"MORE,"finish_reason":nullMORE}]MORE}'),
    (Shape.RESPONSES, '{"type":"response.output_text.delta"MORE,"delta":"MARK"MORE,"sequence_number":7MORE}'),
    (Shape.MESSAGES, '{"type":"content_block_delta"MORE,"delta":{"type":"text_delta","text":"MARK"MORE}MORE}'),
    *((shape, '{"id":"x"MORE}') for shape in SHAPES),
)


@st.composite
def pairs(draw, depth):
    """More pairs for a JSON object, keys as they come: some twice, some escaped."""
    written = ""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 4]))):
        written += f'{draw(SPACES)},{draw(SPACES)}"{draw(NAMES)}"{draw(SPACES)}:{draw(SPACES)}{draw(values(depth))}'
    return written


@st.composite
def values(draw, depth):
    if not depth or draw(st.booleans()):
        return draw(VALUES)
    inner = '{"id":1' + draw(pairs(depth - 1)) + "}"
    return draw(st.sampled_from([inner, f"[{inner}]", f"[{inner},{inner}]"]))

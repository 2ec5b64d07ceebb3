"""The form of a frame: what is of it, what is not, and what has none."""

import json
import re

import pytest

from herd.core.dialects import Shape
from herd.dataplane.forms import learn
from herd.dataplane.frames import READERS
from tests.dataplane.recorded import LM_STUDIO, MLX, VLLM, VOICES, WORDS, spoken

EVENT = '{"type":"response.output_text.delta","delta":"Hi","item_id":"m","sequence_number":7}'
LINE = '{"created_at":"2026-02-03T09:51:12.01Z","message":{"role":"assistant","content":"Hi"},"done":false}'
CHAT = '{"id":"x","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}'


def form_of(shape, frame):
    payload = frame.encode()
    return learn(b"", payload, b"\n", READERS[shape], READERS[shape](json.loads(payload)))


@pytest.mark.parametrize(
    ("shape", "learned", "seen"),
    [
        (Shape.OLLAMA, LINE, LINE.replace("Hi", " there")),
        (Shape.OLLAMA, LINE, LINE.replace("12.01Z", "13+01:00")),
        (Shape.OLLAMA, LINE, LINE.replace("Hi", '\\n\\u2028\\"error\\":\\\\ 東京\u2028🙂')),
        (Shape.RESPONSES, EVENT, EVENT.replace("7", "18")),
        (Shape.RESPONSES, EVENT, EVENT.replace("7", "0")),
    ],
)
def test_a_frame_with_another_text_is_of_the_form(shape, learned, seen):
    """Such frames are nearly all of a stream."""
    form, frame = form_of(shape, learned), seen.encode() + b"\n"
    end, text = form.match(b"..." + frame + b"...", 3)
    assert end == 3 + len(frame)
    assert b'"' + text + b'"' in frame


@pytest.mark.parametrize(
    ("shape", "learned", "seen"),
    [
        (Shape.OLLAMA, LINE, LINE.replace("false", "true")),
        (Shape.OLLAMA, LINE, LINE.replace("Hi", "")),
        (Shape.OLLAMA, LINE, LINE.replace("2026-02-03T09:51:12.01Z", "")),
        (Shape.OLLAMA, LINE, LINE.replace("2026", "\\u0032")),
        (Shape.OLLAMA, LINE, LINE.replace("Hi", "\x1f")),
        (Shape.OLLAMA, LINE, LINE.replace("Hi", "\\x41")),
        (Shape.OLLAMA, LINE, LINE.replace("Hi", "\\u12g4")),
        (Shape.OLLAMA, LINE, LINE.replace("Hi", "Hi\\")),
        (Shape.OLLAMA, LINE, LINE.replace("Hi", 'Hi"')),
        (Shape.OLLAMA, LINE, LINE.replace('"Hi"', '"Hi","thinking":"Hm"')),
        (Shape.OLLAMA, LINE, LINE.replace('"done"', '"error":"x","done"')),
        (Shape.OLLAMA, LINE, LINE.replace(":", ": ")),
        (Shape.OPENAI, CHAT, CHAT.replace("null", '"stop"')),
        (Shape.OPENAI, CHAT, CHAT.replace("0", "1")),
        (Shape.RESPONSES, EVENT, EVENT.replace("7", "07")),
        (Shape.RESPONSES, EVENT, EVENT.replace("7", "-7")),
        (Shape.RESPONSES, EVENT, EVENT.replace("7", "7" * 5000)),
        (Shape.RESPONSES, EVENT, EVENT.replace("output_text", "reasoning_text")),
    ],
)
def test_a_frame_that_differs_elsewhere_or_is_no_json_is_not_of_the_form(shape, learned, seen):
    """It may say anything, so it is parsed."""
    assert form_of(shape, learned).match(seen.encode() + b"\n", 0) is None


@pytest.mark.parametrize("inside", [b"\xff", b"\x80", b"\xc0\xaf", b"\xe6\x9d", b"\xf5\x80\x80\x80", b"\xe0\x80\x80"])
def test_bytes_that_are_no_characters_are_not_of_the_form(inside):
    """Parsers of clients refuse them."""
    frame = LINE.encode().replace(b"Hi", inside) + b"\n"
    assert form_of(Shape.OLLAMA, LINE).match(frame, 0) is None


@pytest.mark.parametrize(
    ("shape", "frame"),
    [
        (Shape.OLLAMA, LINE.replace("Hi", "")),
        (Shape.OLLAMA, LINE.replace("false", "true")),
        (Shape.OLLAMA, LINE.replace('"done"', '"done_reason":"stop","done"')),
        (Shape.OPENAI, CHAT.replace("null", '"stop"')),
        (Shape.OPENAI, CHAT[:-1] + ',"usage":{"prompt_tokens":3}}'),
        (Shape.OPENAI, CHAT[:-1] + ',"prompt_progress":{}}'),
        (Shape.OPENAI, CHAT[:-1] + ',"error":"x"}'),
        (Shape.OPENAI, CHAT.replace('"content":"Hi"', '"tool_calls":[{}]')),
        (Shape.OPENAI, CHAT.replace("content", "cont\\u0065nt")),
        (Shape.RESPONSES, EVENT.replace('"Hi"', '["Hi"]')),
    ],
)
def test_a_frame_that_says_more_than_its_text_has_no_form(shape, frame):
    """What it says besides counts each time that it comes."""
    assert form_of(shape, frame) is None


PLAIN = [(shape, spoken(voice, content=WORDS)) for shape, voice in VOICES]
ENGINES = [*PLAIN, (Shape.OPENAI, VLLM), (Shape.OPENAI, LM_STUDIO), (Shape.OPENAI, LM_STUDIO[10:]), (Shape.OPENAI, MLX)]


@pytest.mark.parametrize(("shape", "chunks"), ENGINES)
def test_each_engine_repeats_a_form(shape, chunks):
    """Parsing every frame was a quarter of a streamed request's cost; here are the frames that need none of it."""
    first, second = chunks[4:6]
    lead, payload, trail = re.fullmatch(rb"((?:event: .*\n)?(?:data: )?)(\{.*\})(\n+)", first).groups()
    form = learn(lead, payload, trail, READERS[shape], READERS[shape](json.loads(payload)))
    assert form.match(second, 0)[0] == len(second)

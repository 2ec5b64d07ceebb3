"""What is read from a copy of an answer: content, usage and the proper end, whatever the chunks look like."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.dialects import Shape
from herd.dataplane.scan import LINE_LIMIT, Scanner, Seen, Summary
from herd.dataplane.whole import read_whole

OLLAMA = (
    b'{"model":"m","message":{"role":"assistant","content":"Hi"},"done":false}\n'
    b'{"model":"m","message":{"role":"assistant","content":" you"},"done":false}\n'
    b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",'
    b'"load_duration":2000000000,"prompt_eval_count":7,"eval_count":2}\n'
)
CHAT = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Scan:
    """One answer, scanned to its end: what went to the client, what the last chunk told, and the summary."""

    sent: bytes
    passable: bool
    last: Seen
    summary: Summary


def scan(shape, *chunks, strip=False):
    scanner = Scanner(shape, strip)
    seen = [*(scanner.feed(chunk) for chunk in chunks), scanner.close()]
    sent, passable = b"".join(each.forward for each in seen), any(each.passable for each in seen)
    assert sum(each.content for each in seen) == scanner.summary().content_frames
    return Scan(sent, passable, seen[-1], scanner.summary())


@given(st.lists(st.integers(1, 40), max_size=30))
def test_chunks_that_cut_lines_anywhere_are_read_and_passed_on_alike(sizes):
    """A chunk is not a line: networks cut where they like."""
    chunks, rest = [], OLLAMA
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    found = scan(Shape.OLLAMA, *chunks, rest)
    assert found.sent == OLLAMA
    assert (found.last.ended, found.summary.content_frames, found.summary.usage.completion_tokens) == (True, 2, 2)


def test_native_usage_and_engine_timings_come_from_the_last_line():
    """Cold loads are seen by load_duration, so it must arrive."""
    usage = scan(Shape.OLLAMA, OLLAMA).summary.usage
    assert (usage.prompt_tokens, usage.source, usage.finish_reason, usage.load_s) == (7, "reported", "stop", 2.0)


def test_a_native_stream_that_just_ends_has_not_ended_properly():
    """Ollama cuts a stream under status 200, and the client would take it for success."""
    assert not scan(Shape.OLLAMA, OLLAMA.splitlines(keepends=True)[0]).last.ended


def test_an_error_line_under_200_is_an_error():
    """A 200 proves nothing."""
    found = scan(Shape.OLLAMA, b'{"error":"unexpected EOF"}\n')
    assert (found.last.error, found.last.failed, found.summary.content_frames) == ("unexpected EOF", True, 0)
    assert found.sent == b'{"error":"unexpected EOF"}\n'


def test_a_line_that_is_no_json_object_is_malformed():
    """A client that gets it stumbles; the router must know."""
    for line in (b"{not json}\n", b"[1]\n", b'"text"\n'):
        assert scan(Shape.OLLAMA, line).last.malformed


def test_thinking_and_tool_calls_are_content():
    """The first token of a reasoning model is a thought, and of an agent a call."""
    for message in ({"content": "", "thinking": "Hm"}, {"content": "", "tool_calls": [{"function": {"name": "f"}}]}):
        line = json.dumps({"message": message, "done": False}).encode() + b"\n"
        assert scan(Shape.OLLAMA, line).summary.content_frames == 1


def test_a_role_alone_is_no_content():
    """Some engines send the role before the prompt is worked on; TTFT must not end there."""
    role = b'data: {"choices":[{"delta":{"role":"assistant","content":null},"finish_reason":null}]}\n\n'
    assert scan(Shape.OPENAI, role).summary.content_frames == 0


def test_a_comment_is_noticed_and_is_no_content():
    """Engines send comments to keep the line open while they prefill."""
    found = scan(Shape.OPENAI, b": ping\n\n")
    assert (found.passable, found.summary.content_frames, found.sent) == (True, 0, b": ping\n\n")


def test_done_ends_an_openai_stream_and_so_does_a_finish_reason_alone():
    """Some engines send no [DONE]."""
    assert scan(Shape.OPENAI, CHAT, DONE).last.ended
    assert scan(Shape.OPENAI, CHAT, STOP).last.ended
    assert not scan(Shape.OPENAI, CHAT).last.ended


@given(st.lists(st.integers(1, 60), max_size=30))
def test_the_usage_frame_that_only_herd_asked_for_is_taken_out_and_nothing_else(sizes):
    """The client gets what it would have got from the node."""
    stream, chunks = CHAT + b": ping\n\n" + STOP + USAGE + DONE, []
    for size in sizes:
        chunks.append(stream[:size])
        stream = stream[size:]
    found = scan(Shape.OPENAI, *chunks, stream, strip=True)
    assert found.sent == CHAT + b": ping\n\n" + STOP + DONE
    assert (found.summary.usage.prompt_tokens, found.summary.usage.completion_tokens) == (7, 2)


def test_a_usage_frame_that_the_client_asked_for_stays():
    """It is the client's."""
    assert scan(Shape.OPENAI, CHAT, STOP, USAGE, DONE).sent == CHAT + STOP + USAGE + DONE


def test_carriage_returns_at_line_ends_change_nothing():
    """SSE allows CRLF."""
    stream = (CHAT + STOP + USAGE + DONE).replace(b"\n", b"\r\n")
    found = scan(Shape.OPENAI, stream, strip=True)
    assert found.last.ended
    assert found.sent == (CHAT + STOP + DONE).replace(b"\n", b"\r\n")


def test_without_reported_usage_the_frames_of_content_are_counted_and_called_so():
    """A count is better than nothing, and must not pass for a report."""
    usage = scan(Shape.OPENAI, CHAT, CHAT, STOP, DONE).summary.usage
    assert (usage.completion_tokens, usage.prompt_tokens, usage.source) == (2, None, "counted")


def test_an_anthropic_stream_ends_with_message_stop_and_adds_its_usage_up():
    """input_tokens come at the start, output_tokens in the delta before the end."""
    counts = {"input_tokens": 7, "output_tokens": 5}
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 0}}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": counts},
        {"type": "message_stop"},
    ]
    stream = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)
    found = scan(Shape.MESSAGES, stream)
    usage = found.summary.usage
    assert found.sent == stream
    assert (found.last.ended, found.summary.content_frames) == (True, 1)
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 5)
    assert usage.finish_reason == "stop"


def test_a_responses_stream_ends_with_response_completed():
    """It has no [DONE]."""
    delta = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n'
    usage = b'{"input_tokens":4,"output_tokens":1}'
    done = b'data: {"type":"response.completed","response":{"status":"completed","usage":' + usage + b"}}\n\n"
    assert not scan(Shape.RESPONSES, delta).last.ended
    found = scan(Shape.RESPONSES, delta, done)
    assert (found.last.ended, found.summary.content_frames, found.summary.usage.prompt_tokens) == (True, 1, 4)


def event(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def chat_end(reason):
    return {"choices": [{"index": 0, "delta": {}, "message": {}, "finish_reason": reason}]}


def message_end(reason):
    end = event("message_delta", delta={"stop_reason": reason}) + event("message_stop")
    return Shape.MESSAGES, end, {"type": "message", "content": [], "stop_reason": reason}


def response_end(status, **fields):
    response = {"status": status, **fields}
    return Shape.RESPONSES, event(f"response.{status}", response=response), response


CALL = {"message": {"tool_calls": [{"function": {"name": "weather", "arguments": {}}}]}}
ITEM = {"type": "function_call", "name": "weather", "arguments": "{}"}
CUT = {"incomplete_details": {"reason": "max_output_tokens"}}
OLLAMAS = [({"done": True, "done_reason": reason},) * 2 + (reason,) for reason in ("stop", "length", "load")]
CHATS = [(chat_end(reason),) * 2 + (reason,) for reason in ("stop", "length", "tool_calls", "content_filter")]
MESSAGES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
            "refusal": "content_filter"}  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "stream", "whole", "reason"),
    [
        *((Shape.OLLAMA, json.dumps(end).encode() + b"\n", whole, reason) for end, whole, reason in OLLAMAS),
        (Shape.OLLAMA, json.dumps(CALL).encode() + b'\n{"done":true,"done_reason":"stop"}\n',
         {**CALL, "done": True, "done_reason": "stop"}, "tool_calls"),
        *((Shape.OPENAI, f"data: {json.dumps(end)}\n\n".encode(), whole, reason) for end, whole, reason in CHATS),
        *((*message_end(theirs), ours) for theirs, ours in MESSAGES.items()),
        (*response_end("completed", output=[]), "stop"),
        (*response_end("completed", output=[ITEM]), "tool_calls"),
        (*response_end("completed", output=7), "stop"),
        (*response_end("incomplete", **CUT), "length"),
    ],
)  # fmt: skip
def test_an_answer_ends_for_the_same_reason_in_every_dialect(shape, stream, whole, reason):
    """`WHERE finish_reason = 'length'` must find every answer that was cut off; the client's bytes keep their word."""
    found = scan(shape, stream)
    assert (found.summary.usage.finish_reason, found.sent) == (reason, stream)
    assert read_whole(shape, json.dumps(whole).encode()).usage.finish_reason == reason


def test_a_line_over_the_cap_is_passed_on_and_not_kept():
    """An endless line must not become the router's memory."""
    scanner = Scanner(Shape.OLLAMA)
    half = b"x" * (LINE_LIMIT // 2 + 1)
    assert [scanner.feed(half).forward for _ in range(3)] == [half] * 3
    assert scanner.summary().broken_line
    seen = scanner.feed(b"\n" + OLLAMA)
    assert seen.forward == b"\n" + OLLAMA
    assert (seen.ended, seen.malformed) == (True, None)
    assert not scanner.summary().broken_line


@pytest.mark.parametrize("strip", [False, True])
def test_a_line_over_the_cap_reaches_the_client_whole(strip):
    """What is not read is passed on all the same."""
    stream = [CHAT, b"data: " + b"x" * LINE_LIMIT, b"y" * 9, b"z\n\n", CHAT + STOP, DONE]
    found = scan(Shape.OPENAI, *stream, strip=strip)
    assert found.sent == b"".join(stream)
    assert (found.last.ended, found.last.malformed, found.summary.content_frames) == (True, None, 2)


def test_what_looks_like_a_frame_within_a_line_over_the_cap_is_none():
    """The chunk's first line is the end of that line."""
    scanner, endless = Scanner(Shape.OPENAI), b"data: " + b"x" * LINE_LIMIT
    assert [scanner.feed(chunk).content for chunk in (CHAT, endless, CHAT, CHAT)] == [1, 0, 0, 1]
    for chunk, broken in ((endless, True), (b"x\n", True), (b"\n", False)):
        scanner.feed(chunk)
        assert scanner.summary().broken_line is broken


def test_a_usage_frame_without_its_line_end_is_taken_out_too():
    """An engine may close the connection right behind it."""
    assert scan(Shape.OPENAI, CHAT, STOP, USAGE.rstrip(), strip=True).sent == CHAT + STOP


@pytest.mark.parametrize(
    ("shape", "stream", "broken"),
    [
        (Shape.OLLAMA, OLLAMA, False),
        (Shape.OLLAMA, OLLAMA[:-9], True),
        (Shape.OPENAI, CHAT, False),
        (Shape.OPENAI, CHAT[:-9], True),
        (Shape.OPENAI, CHAT[:-1], True),
        (Shape.OPENAI, CHAT + b": ping\n", True),
        (Shape.OPENAI, b"", False),
    ],
)
def test_an_answer_that_breaks_off_within_a_line_or_an_event_is_broken_there(shape, stream, broken):
    """The router's own error event would otherwise become part of the node's last one."""
    scanner = Scanner(shape)
    scanner.feed(stream)
    assert scanner.summary().broken_line is broken
    scanner.close()
    assert scanner.summary().broken_line is broken


def test_what_is_held_back_from_the_client_breaks_no_line():
    """Where a usage frame may have to be taken out, half a line waits; the client has whole ones."""
    scanner = Scanner(Shape.OPENAI, strip_usage=True)
    assert scanner.feed(CHAT + USAGE[:-9]).forward == CHAT
    assert not scanner.summary().broken_line


def test_a_long_line_in_many_chunks_is_one_frame():
    """A picture or a file in one answer comes so."""
    text = b"x" * (LINE_LIMIT - 200)
    stream = b'data: {"choices":[{"delta":{"content":"' + text + b'"}}]}\n\n'
    found = scan(Shape.OPENAI, *(stream[at : at + 65536] for at in range(0, len(stream), 65536)), strip=True)
    assert (found.sent, found.summary.content_frames) == (stream, 1)

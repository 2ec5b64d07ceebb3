"""The way of an answer: its limits in seconds and bytes, what is held back and what is passed on at once."""

import asyncio

import pytest

from herd.core.events import Status
from herd.dataplane.exchange import ERROR_BODY_LIMIT
from herd.dataplane.flights import REAP_AFTER_S
from herd.dataplane.relay import HELD_LIMIT
from herd.dataplane.whole import WHOLE_LIMIT
from tests.dataplane.plane import (
    COMPLETIONS,
    DONE,
    END,
    HELLO,
    STOP,
    M,
    Plane,
    chat,
    delta,
    event,
    line,
    node,
    said,
    until,
)
from tests.dataplane.scripted_upstream import EVENTS, HANG, JSON, SILENCE, STREAM, Head

HEL, NOTHING = said("Hel"), said("")
LIMITS = {"first_byte_timeout_s": 10.0, "stall_timeout_s": 20.0, "total_timeout_s": 100.0, "load_timeout_s": 50.0}
WHOLE = line(message={"content": "Hello"}, done=True, done_reason="stop")
MIB = 2**20


def one(script, **limits):
    """A fleet of one node, with limits that are easy to tell apart."""
    return Plane(beats=[node("a", slots=1)], with_settings={**LIMITS, **limits}, a=[script])


def lasted(finished):
    """Seconds that the last attempt took."""
    return finished.attempts[-1].ended_at - finished.attempts[-1].started_at


# Limits in seconds


@pytest.mark.parametrize(
    ("stream", "script", "after_s", "error_type"),
    [
        (True, [SILENCE], 10, "first_byte_timeout"),
        (True, [STREAM, SILENCE], 10, "first_byte_timeout"),
        (True, [STREAM, 4.0, NOTHING, 4.0, NOTHING, SILENCE], 10, "first_byte_timeout"),
        (True, [HEL, SILENCE], 20, "stall_timeout"),
        (True, [9.0, HEL, 19.0, said("lo"), SILENCE], 48, "stall_timeout"),
        (True, [HEL, *([19.0, HEL] * 6)], 100, "stall_timeout"),
        (False, [SILENCE], 100, "first_byte_timeout"),
        (False, [50.0, JSON, SILENCE], 70, "first_byte_timeout"),
        (False, [50.0, JSON, 15.0, b"{", SILENCE], 85, "first_byte_timeout"),
        (False, [90.0, JSON, b"{", SILENCE], 100, "first_byte_timeout"),
        (True, [Head(500), SILENCE], 20, "first_byte_timeout"),
        (True, [Head(500), 15.0, b"x", SILENCE], 35, "first_byte_timeout"),
    ],
    ids=["before the head", "before content", "nothing that is content", "after content", "each content anew",
         "the whole attempt", "not streamed", "after its head", "within it", "the whole of it", "an error's body",
         "within an error's body"],
)  # fmt: skip
async def test_an_attempt_ends_at_the_limit_of_where_it_is(stream, script, after_s, error_type):
    """Patience before the first content, impatience within an answer, and an end to everything."""
    finished, _ = await one(script).ask(chat(stream=stream))
    assert (finished.error_type, lasted(finished)) == (error_type, pytest.approx(after_s, abs=1e-4))


async def test_the_limit_of_the_whole_attempt_holds_before_its_first_content_too():
    """The smaller of two limits is the one."""
    finished, _ = await one([SILENCE], total_timeout_s=5.0).ask()
    assert (finished.error_type, lasted(finished)) == ("first_byte_timeout", pytest.approx(5.0, abs=1e-4))


async def test_a_cold_models_load_is_added_to_the_limit_of_the_first_content_alone():
    """Once it speaks, it is like any other."""
    plane = Plane(beats=[node("a", loaded=())], with_settings=LIMITS, a=[[SILENCE], [HEL, SILENCE]])
    assert [lasted((await plane.ask())[0]) for _ in range(2)] == pytest.approx([60.0, 20.0], abs=1e-4)


@pytest.mark.parametrize(
    ("stream", "script", "limit_s"),
    [
        (True, [HANG], 10),
        (True, [STREAM, HANG], 10),
        (True, [STREAM, NOTHING, HANG], 10),
        (True, [HEL, HANG], 20),
        (True, [5.0, HEL, 15.0, said("lo"), HANG], 40),
        (True, [Head(500), HANG], 20),
        (False, [HANG], 100),
        (False, [JSON, HANG], 20),
        (False, [JSON, 10.0, b"{", HANG], 30),
        (False, [JSON, b"[" * (WHOLE_LIMIT + 1), 10.0, b"x", HANG], 30),
    ],
)
async def test_an_exchange_that_misses_its_own_limit_is_ended_from_outside(stream, script, limit_s):
    """The last net under every wait for a node, wherever it is."""
    plane, clock = one(script), asyncio.get_running_loop().time
    began = clock()
    async with plane.kept():
        await plane.serve(chat(stream=stream))
    assert limit_s + REAP_AFTER_S < clock() - began <= limit_s + REAP_AFTER_S + 2.0
    assert (plane.finished[0].error_type, plane.cell.slots.in_flight()) == ("stall_timeout", {})


# What is held back


async def test_nothing_goes_to_the_client_before_the_first_content_and_then_all_of_it():
    """Until then another node may still answer."""
    gate = asyncio.Event()
    plane = one([NOTHING, NOTHING, gate, HEL, DONE])
    async with plane.asking() as caller:
        await until(lambda: plane.upstream.open == 1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert caller.offered == 0
        gate.set()
    assert caller.answer == NOTHING + NOTHING + HEL + DONE


@pytest.mark.parametrize(
    "first", [b": still working\n\n", event(choices=[], prompt_progress={"total": 9, "processed": 3})]
)
async def test_what_tells_of_progress_goes_to_the_client_at_once(first):
    """A client that hears nothing for minutes of prefill gives up; and then no other node may answer."""
    gate = asyncio.Event()
    plane = one([EVENTS, first, gate, delta("Hi"), STOP, END])
    async with plane.asking(chat(COMPLETIONS, stream=True)) as caller:
        await until(lambda: len(caller.messages) == 2)
        assert (caller.answer, plane.upstream.open) == (first, 1)
        gate.set()
    (finished,) = plane.finished
    assert (finished.status, caller.answer) == (Status.COMPLETED, first + delta("Hi") + STOP + END)
    assert finished.content_frames == 1


async def test_progress_is_no_content_and_does_not_shorten_the_wait_for_it():
    """A prefill of minutes stays within the limit of the first content, however often the engine says where it is."""
    plane = one([EVENTS, b": 1\n\n", 6.0, b": 2\n\n", SILENCE], first_byte_timeout_s=30.0)
    finished, _ = await plane.ask(chat(COMPLETIONS, stream=True))
    assert (finished.error_type, lasted(finished)) == ("first_byte_timeout", pytest.approx(30.0, abs=1e-4))
    assert (finished.status, finished.first_content_at) == (Status.INCOMPLETE, None)


async def test_a_prefill_that_tells_of_itself_once_is_not_taken_for_stuck():
    """What was passed on has its client's limit while it is written, and then the first content's again."""
    plane = one([EVENTS, b": 1\n\n", 60.0, delta("Hi"), STOP, END], first_byte_timeout_s=90.0)
    async with plane.kept():
        finished, _ = await plane.ask(chat(COMPLETIONS, stream=True))
    assert (finished.status, lasted(finished)) == (Status.COMPLETED, pytest.approx(60.0, abs=1e-4))


@pytest.mark.parametrize(("over", "tried"), [(0, ["a"]), (1, ["a", "b"])])
async def test_a_mebibyte_without_content_is_held_back_and_more_is_no_answer(over, tried):
    """A node that sends rubbish must not fill the router's memory."""
    size = HELD_LIMIT // 4
    rubbish = [NOTHING[:-1] + b" " * (size - len(NOTHING)) + b"\n" for _ in range(4)]
    rubbish[-1] = b" " * over + rubbish[-1]
    plane = Plane(a=[[*rubbish, *HELLO]], b=[HELLO])
    finished, caller = await plane.ask()
    assert (finished.status, plane.upstream.tried) == (Status.COMPLETED, tried)
    assert caller.answer == b"".join([*(() if over else rubbish), *HELLO])
    assert [each.error_type for each in finished.attempts] == ["bad_response"] * over + [None]


async def test_a_stream_of_nothing_but_its_end_is_an_answer():
    """A model may have nothing to say; a load and an unload say nothing else. Nothing more is waited for."""
    gate = asyncio.Event()
    plane = one([DONE, gate])
    async with plane.asking() as caller:
        await until(lambda: len(caller.messages) == 2)
        gate.set()
    (finished,) = plane.finished
    assert (finished.status, caller.answer, finished.first_content_at) == (Status.COMPLETED, DONE, None)


async def test_an_end_without_its_line_break_is_read_all_the_same():
    """Engines differ; what came is what counts."""
    finished, caller = await one([WHOLE.rstrip()]).ask()
    assert (finished.status, caller.answer, finished.content_frames) == (Status.COMPLETED, WHOLE.rstrip(), 1)
    assert finished.first_content_at is not None


# Answers that fail under a status of 200


@pytest.mark.parametrize(
    ("script", "error_type"),
    [
        ([line(error="out of memory")], "upstream_5xx"),
        ([line(error="out of memory").rstrip()], "upstream_5xx"),
        ([HEL + line(error="out of memory")], "upstream_5xx"),
        ([b"<html>\n"], "bad_response"),
        ([b"<html>"], "bad_response"),
        ([NOTHING], "stream_aborted"),
        ([], "stream_aborted"),
    ],
)
async def test_a_stream_that_fails_before_anything_went_out_is_made_good_elsewhere(script, error_type):
    """A 200 proves nothing."""
    plane = Plane(a=[[STREAM, *script]], b=[HELLO])
    finished, caller = await plane.ask()
    assert (finished.status, caller.answer) == (Status.COMPLETED, b"".join(HELLO))
    assert [(each.error_type, each.http_status) for each in finished.attempts] == [(error_type, 200), (None, 200)]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ([], "the node's stream ended without an end marker"),
        ([b"<html>"], "the node's stream ended without an end marker"),
        ([b"<html>\n"], "the node's answer failed: the node sent a line that is no JSON object: b'<html>'"),
        ([line(error="ran out")], "the node's answer failed: ran out"),
    ],
)
async def test_a_stream_that_fails_in_its_middle_is_incomplete_and_says_why(end, words):
    """A client library would take it for a whole answer."""
    finished, caller = await one([HEL, *end]).ask()
    assert (finished.status, finished.error_type, finished.error_message) == (
        Status.INCOMPLETE, "stream_aborted", words,
    )  # fmt: skip
    assert b"error" in caller.answer


# Answers that do not stream


async def test_a_whole_answer_has_its_length_and_no_header_of_streams():
    """Clients reuse a connection whose answer says how long it is."""
    plane = one([JSON, WHOLE[:10], WHOLE[10:]])
    finished, caller = await plane.ask(chat(stream=False))
    assert (caller.answer, caller.headers["content-length"]) == (WHOLE, str(len(WHOLE)))
    assert ("x-accel-buffering" in caller.headers, caller.headers["x-herd-node"]) == (False, "a")
    assert finished.usage.finish_reason == "stop"


@pytest.mark.parametrize("kind", [{}, {"content-type": "text/plain"}])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_an_answer_calls_itself_decides_nothing_but_that_json_is_one_document(stream, kind):
    """Engines call their streams many names, or none; a request that asked for one answer gets one."""
    finished, caller = await one([Head(headers=kind), WHOLE]).ask(chat(stream=stream))
    assert (finished.status, caller.answer) == (Status.COMPLETED, WHOLE)
    assert ("content-length" in caller.headers, "x-accel-buffering" in caller.headers) == (not stream, stream)


async def test_an_answer_of_one_document_to_a_request_for_a_stream_is_read_as_one():
    """Ollama answers a load so, whatever was asked."""
    loaded = line(done=True, done_reason="load")
    finished, caller = await one([JSON, loaded]).ask()
    assert (caller.answer, caller.headers["content-length"]) == (loaded, str(len(loaded)))
    assert (finished.status, finished.usage.finish_reason, finished.first_content_at) == (
        Status.COMPLETED, "load", None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "error_type"),
    [(line(error="out of memory"), "upstream_5xx"), (b"<html>", "bad_response"), (b"", "bad_response")],
)
async def test_a_whole_answer_that_is_none_is_made_good_elsewhere(body, error_type):
    """Nothing went out yet: the client need not know."""
    plane = Plane(a=[[JSON, body]], b=[[JSON, WHOLE]])
    finished, caller = await plane.ask(chat(stream=False))
    assert (caller.answer, [each.error_type for each in finished.attempts]) == (WHOLE, [error_type, None])
    assert finished.attempts[0].http_status == 200


async def test_a_whole_answer_that_says_it_is_not_done_is_handed_on_and_incomplete():
    """Ollama gives a model up that repeats itself; the client has what it would have had without herd."""
    cut = line(message={"content": "x x x"}, done=False)
    finished, caller = await one([JSON, cut]).ask(chat(stream=False))
    assert (finished.status, finished.error_type, finished.http_status) == (Status.INCOMPLETE, "repetition", 200)
    assert (caller.answer, caller.whole) == (cut, True)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_ended_while_the_model_was_thinking_says_so(stream):
    """Its user sees an empty answer and no reason for it."""
    thought = line(message={"thinking": "Hm", "content": ""}, done=True, done_reason="length")
    finished, _ = await one([STREAM if stream else JSON, thought]).ask(chat(stream=stream))
    assert (finished.status, finished.error_type) == (Status.COMPLETED, None)
    assert finished.error_message.startswith("no content: the token limit")
    spoken = line(message={"thinking": "Hm", "content": "Hi"}, done=True, done_reason="length")
    ended = line(message={"thinking": "Hm", "content": ""}, done=True, done_reason="stop")
    for answer in (spoken, ended):
        finished, _ = await one([STREAM if stream else JSON, answer]).ask(chat(stream=stream))
        assert finished.error_message is None


# Answers that are large


async def test_an_answer_up_to_the_limit_is_read_whole():
    """Its usage stands at its end."""
    head = b'{"message":{"content":"Hi"},"done":true,"done_reason":"stop","eval_count":7}'
    padding = [b" " * MIB] * (WHOLE_LIMIT // MIB - 1) + [b" " * (MIB - len(head))]
    finished, caller = await one([JSON, head, *padding]).ask(chat(stream=False))
    assert (caller.headers["content-length"], finished.usage.completion_tokens) == (str(WHOLE_LIMIT), 7)
    assert len(caller.messages) == 2


async def test_an_answer_over_the_limit_is_passed_on_as_it_comes_and_not_read():
    """A thousand embeddings must not be in memory twice, nor hold up every stream while they are parsed."""
    gate, parts = asyncio.Event(), [b"[" * (WHOLE_LIMIT // 2), b"," * (WHOLE_LIMIT // 2 + 1), b"1" * MIB, b"]"]
    plane = one([JSON, *parts[:2], gate, *parts[2:]])
    async with plane.asking(chat(stream=False)) as caller:
        await until(lambda: len(caller.messages) == 2)
        assert (len(caller.answer), plane.upstream.open) == (WHOLE_LIMIT + 1, 1)
        gate.set()
    (finished,) = plane.finished
    assert (finished.status, finished.usage.source) == (Status.COMPLETED, "missing")
    assert (caller.answer == b"".join(parts), "content-length" in caller.headers, caller.whole) == (True, False, True)
    assert finished.first_content_at is not None


async def test_a_large_answer_that_goes_silent_is_incomplete_after_the_limit_of_silence():
    """It began to go out: the rest of it cannot come from elsewhere."""
    plane = Plane(with_settings=LIMITS, a=[[JSON, b"[" * (WHOLE_LIMIT + 1), 15.0, b"x", SILENCE]], b=[HELLO])
    finished, _ = await plane.ask(chat(stream=False))
    assert (finished.status, finished.error_type, plane.upstream.tried) == (Status.INCOMPLETE, "stall_timeout", ["a"])
    assert lasted(finished) == pytest.approx(35.0, abs=1e-4)


@pytest.mark.parametrize("takes", [1, 2])
async def test_a_client_that_does_not_take_the_rest_of_a_large_answer_is_ended_from_outside(takes):
    """A slot must not be held for a reader that has gone to sleep."""
    plane, caller = one([JSON, 9.0, b"[" * (WHOLE_LIMIT + 1), 9.0, b"x", b"y"]), chat(stream=False)
    caller.takes, clock = takes, asyncio.get_running_loop().time
    began = clock()
    async with plane.kept():
        await plane.serve(caller)
    stalled = takes * 9.0 + 20.0 + REAP_AFTER_S
    assert stalled < clock() - began <= stalled + 2.0
    assert (plane.finished[0].error_type, plane.changes("zombie_reaped")[0].model) == ("stall_timeout", M)


async def test_of_a_large_error_only_the_beginning_is_read():
    """An error page of a gigabyte is an error page."""
    part = b"x" * (ERROR_BODY_LIMIT // 2 + 1)
    finished, caller = await one([Head(400), part, part, part, SILENCE]).ask()
    assert (finished.error_type, caller.status, caller.answer) == ("upstream_4xx", 400, part + part)
    assert len(finished.error_message) <= 1000

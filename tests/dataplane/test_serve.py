"""Serving one request: answers, the loop that retries, its budget, waits, fallbacks and what is changed in a body."""

import asyncio
import gzip
import json
from dataclasses import replace

import pytest

from herd import wire
from herd.core import errors
from herd.core.clock import moment
from herd.core.events import AttemptFailed, ContextProtected, Status, StreamBroken
from herd.core.request import Dialect, Request
from herd.core.room import Room
from herd.core.routing import Policy, Reason
from herd.fleet.slots import Bid
from tests.dataplane.plane import (
    CHAT,
    COMPLETIONS,
    DONE,
    END,
    HELLO,
    MESSAGES,
    RESPONSES,
    STOP,
    Caller,
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
from tests.dataplane.scripted_upstream import EVENTS, JSON, STREAM, Head

HEL, NOTHING = said("Hel"), said("")
GIB, OTHER = 1024**3, "other:8b"
TREE = (
    errors.ConnectFailed, errors.ConnectTimeout, errors.FirstByteTimeout, errors.StallTimeout, errors.UpstreamBusy,
    errors.Upstream4xx, errors.NodeCannot, errors.NodeLacksModel, errors.Upstream5xx, errors.StreamAborted,
    errors.BadResponse, errors.OutOfFiles,
)  # fmt: skip
RETRYABLE = [kind for kind in TREE if kind.retryable]
FINAL = [kind for kind in TREE if not kind.retryable]
BEFORE_CONTENT = pytest.mark.parametrize("came", [[], [STREAM], [NOTHING]], ids=["nothing", "head", "no content"])
TINY = "tiny:1b"


def lost():
    return [errors.ConnectFailed("the node could not be reached")]


def lacking():
    """A failure that may be retried within the budget and is no fault of the node's, so that no breaker opens."""
    return [errors.NodeCannot("this server does not do embeddings")]


def killed():
    """The end of a node that worked on a request."""
    return [errors.ConnectionLost("the node's connection was lost before it answered")]


def queued(*waits):
    return pytest.approx(waits, abs=1e-5)


# Answers


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_passes_untouched_and_is_recorded_with_what_it_used(stream):
    """The everyday case: the client has the node's bytes, the records have the tokens and the times."""
    whole = line(message={"content": "Hello"}, done=True, done_reason="stop", prompt_eval_count=3, eval_count=2)
    script = [0.5, HEL, 1.0, said("lo"), DONE] if stream else [JSON, 2.0, whole]
    plane = Plane(a=[script], b=[HELLO])
    finished, caller = await plane.ask(chat(stream=stream, headers={"x-request-id": "mine"}))
    assert caller.answer == b"".join(step for step in script if isinstance(step, bytes))
    assert (finished.status, finished.http_status, finished.error_type) == (Status.COMPLETED, 200, None)
    assert (caller.status, caller.whole) == (200, True)
    assert (finished.request_id, finished.endpoint, finished.original_format) == ("mine", CHAT, "ollama")
    assert (finished.usage.prompt_tokens, finished.usage.completion_tokens) == (3, 2)
    first, last = (0.5, 1.5) if stream else (2.0, 2.0)
    assert (finished.decision_s, finished.latency_s) == queued(0.0, last)
    assert finished.first_content_at - finished.received_at == pytest.approx(first, abs=1e-5)
    assert finished.last_content_at - finished.received_at == pytest.approx(last, abs=1e-5)
    assert finished.content_frames == (2 if stream else 0)
    assert (finished.queued_at, finished.admitted_at, finished.requeued_s, finished.client_ip) == (
        None, None, 0.0, "127.0.0.1",
    )  # fmt: skip
    assert (plane.judged("a"), plane.failures) == ((False,), [])


async def test_an_answer_says_which_node_gave_it_and_how():
    """A user who asks why something is slow has the answer in the headers."""
    finished, caller = await Plane(a=[[Head(headers={"content-type": "x", "openai-version": "1"}), HEL, DONE]]).ask()
    wanted = {"x-herd-node": "a", "x-herd-model": M, "x-herd-fallback": "false", "x-herd-retries": "0"}
    wanted["openai-version"] = "1"
    assert {name: caller.headers.get(name) for name in wanted} == wanted
    assert caller.headers["x-request-id"] == finished.request_id
    assert finished.ids.trace_id in caller.headers["traceresponse"]
    assert float(caller.headers["x-herd-score"]) == round(finished.chosen.score, 2)
    assert caller.headers["x-accel-buffering"] == "no"


async def test_an_attempt_is_recorded_as_it_was():
    """Spans are made of this: which node, under which span, whether a kept connection had to be renewed."""
    plane = Plane(a=[[replace(STREAM, reconnected=True), 3.0, HEL, DONE]])
    finished, _ = await plane.ask()
    (attempt,) = finished.attempts
    assert (attempt.number, attempt.node_id, attempt.model, attempt.url) == (1, "a", M, "http://a:11434")
    assert (attempt.http_status, attempt.reconnected, attempt.error_type) == (200, True, None)
    assert attempt.ended_at - attempt.started_at == pytest.approx(3.0, abs=1e-5)
    (call,) = plane.upstream.calls
    assert (call.method, call.url) == ("POST", "http://a:11434/api/chat")
    sent = dict(call.headers)[b"traceparent"].decode()
    assert (finished.ids.trace_id in sent, attempt.span_id in sent) == (True, True)


async def test_the_fleet_knows_when_a_request_has_its_first_content():
    """Who still prefills and who decodes load a machine differently; predictions for others are made from it."""
    before, after = asyncio.Event(), asyncio.Event()
    plane = Plane(beats=[node("a")], a=[[before, HEL, after, DONE]])
    async with plane.asking() as caller:
        await until(lambda: plane.upstream.open == 1)
        (mark,) = plane.cell.entries["a"].workload.marks.values()
        assert mark.first_at is None
        before.set()
        await until(lambda: len(caller.messages) == 2)
        assert mark.first_at is not None
        after.set()
    assert plane.cell.entries["a"].workload.marks == {}


@pytest.mark.parametrize(("end", "learned"), [(DONE, True), (errors.StreamAborted("broke"), False)])
async def test_only_an_answer_that_came_whole_tells_how_fast_its_node_is(end, learned):
    """A node that breaks off early is not quick."""
    plane = Plane(beats=[node("a")], a=[[2.0, HEL, 3.0, end]])
    untaught = plane.cell.entries["a"].service(M).learned
    await plane.ask()
    assert (plane.cell.entries["a"].service(M).learned > untaught) == learned


async def test_a_request_keeps_the_rules_that_it_began_with():
    """A setting that changes while a request waits must not make its decision unexplainable."""
    gate = asyncio.Event()
    plane = Plane(beats=[node("a", slots=1)], a=[[gate, *HELLO], HELLO])
    async with plane.asking(), plane.asking():
        await until(lambda: plane.cell.slots.depths() == {M: 1})
        plane.settings.change({"loaded_fallback": False})
        gate.set()
    await plane.ask()
    assert [each.policy.loaded_fallback for each in plane.finished] == [True, True, False]


# Retries


@BEFORE_CONTENT
@pytest.mark.parametrize("kind", RETRYABLE, ids=lambda kind: kind.error_type)
async def test_a_failure_before_content_is_made_good_by_another_node(kind, came):
    """The client sees one answer, and the records both attempts."""
    plane = Plane(a=[[*came, kind("no")]], b=[HELLO])
    finished, caller = await plane.ask()
    assert (caller.answer, caller.status, finished.status, finished.http_status) == (
        b"".join(HELLO), 200, Status.COMPLETED, 200,
    )  # fmt: skip
    assert [(each.number, each.node_id, each.error_type) for each in finished.attempts] == [
        (1, "a", kind.error_type), (2, "b", None),
    ]  # fmt: skip
    assert (finished.error_type, finished.retry_count, finished.reason) == (None, 1, Reason.RETRY)
    assert (caller.headers["x-herd-node"], caller.headers["x-herd-retries"]) == ("b", "1")
    assert plane.failures == [("a", kind.error_type, True)]


@BEFORE_CONTENT
@pytest.mark.parametrize("kind", FINAL, ids=lambda kind: kind.__name__)
async def test_a_failure_that_another_node_would_not_mend_is_told_at_once(kind, came):
    """A wrong request is wrong everywhere."""
    plane = Plane(a=[[*came, kind("no")]], b=[HELLO])
    finished, caller = await plane.ask()
    assert (finished.status, finished.http_status, finished.error_type) == (Status.FAILED, kind.status, kind.error_type)
    assert (caller.status, caller.error, plane.upstream.tried) == (kind.status, {"error": "node a: no"}, ["a"])
    assert plane.failures == [("a", kind.error_type, False)]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
async def test_a_failure_after_content_is_told_in_the_stream_and_never_retried(kind):
    """A second answer behind half of a first would be neither."""
    plane = Plane(a=[[HEL, kind("broke")]], b=[HELLO])
    finished, caller = await plane.ask()
    assert (finished.status, finished.http_status, finished.error_type) == (Status.INCOMPLETE, 200, kind.error_type)
    assert (caller.status, caller.whole, plane.upstream.tried) == (200, True, ["a"])
    assert caller.answer == HEL + b'{"error":"node a: broke"}\n'
    (broken,) = plane.of(StreamBroken)
    assert (broken.request_id, broken.node_id, broken.model) == (finished.request_id, "a", M)
    assert (broken.error_type, broken.error_message) == (kind.error_type, "broke")
    assert plane.failures == [("a", kind.error_type, False)]


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        (CHAT, HEL, b'{"error":"node a: broke"}\n'),
        (COMPLETIONS, delta("Hel"), b'data: {"error":{"message":"node a: broke","type":"api_error","param":null,'
                                    b'"code":"stream_aborted"}}\n\ndata: [DONE]\n\n'),
        (MESSAGES, event(type="content_block_delta", delta={"text": "Hel"}),
         b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"node a: broke"}}\n\n'),
        (RESPONSES, event(type="response.output_text.delta", delta="Hel"),
         b'event: error\ndata: {"type":"error","code":"stream_aborted","message":"node a: broke","param":null}\n\n'),
    ],
)  # fmt: skip
async def test_each_dialect_has_its_own_way_to_tell_of_a_failure_in_a_stream(path, content, told):
    """A client library that cannot read it takes half an answer for a whole one."""
    plane = Plane(a=[[EVENTS, content, errors.StreamAborted("broke")]])
    finished, caller = await plane.ask(chat(path, stream=True))
    assert (finished.status, caller.answer, caller.whole) == (Status.INCOMPLETE, content + told, True)


async def test_a_frame_of_error_is_a_line_of_its_own_where_the_stream_broke_within_one():
    """Glued to half a line, the error would not be JSON either."""
    plane = Plane(a=[[HEL + b'{"mess', errors.StreamAborted("broke")]])
    _, caller = await plane.ask()
    assert caller.answer.split(b"\n")[1:] == [b'{"mess', b'{"error":"node a: broke"}', b""]


async def test_an_error_frame_of_the_nodes_own_is_not_told_twice():
    """Ollama's /v1 streams end after their error; only the mark of the end is added."""
    failed = event(error={"message": "ran out"})
    plane = Plane(a=[[EVENTS, delta("Hel"), failed]])
    finished, caller = await plane.ask(chat(COMPLETIONS, stream=True))
    assert caller.answer == delta("Hel") + failed + END
    assert (finished.error_type, finished.error_message) == ("stream_aborted", "the node's answer failed: ran out")
    plane = Plane(a=[[HEL, line(error="ran out")]])
    _, caller = await plane.ask()
    assert (caller.answer, caller.whole) == (HEL + line(error="ran out"), True)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (CHAT, {"error": "node b: no"}),
        (COMPLETIONS, {"error": {"message": "node b: no", "type": "api_error", "param": None, "code": "connect"}}),
        (RESPONSES, {"error": {"message": "node b: no", "type": "api_error", "param": None, "code": "connect"}}),
        (MESSAGES, {"type": "error", "error": {"type": "api_error", "message": "node b: no"}}),
    ],
)
async def test_when_every_node_fails_the_client_is_told_in_its_dialect_of_the_last(path, wanted):
    """And that it need not try again by itself, for that was done."""
    plane = Plane(a=[[errors.ConnectFailed("no")]], b=[[errors.ConnectFailed("no")]])
    finished, caller = await plane.ask(chat(path))
    assert (finished.status, finished.http_status, finished.error_type) == (Status.FAILED, 502, "connect")
    assert (caller.status, caller.error, caller.headers["x-should-retry"]) == (502, wanted, "false")
    assert (caller.headers["x-herd-node"], caller.headers["x-herd-retries"]) == ("b", "1")
    assert plane.failures == [("a", "connect", True), ("b", "connect", False)]
    assert [(each.error_message, each.http_status, each.reconnected) for each in finished.attempts] == [
        ("no", None, False),
    ] * 2  # fmt: skip
    assert (plane.judged("a"), plane.judged("b"), plane.of(StreamBroken)) == ((True,), (True,), [])


async def test_a_nodes_own_refusal_is_handed_on_as_it_is():
    """The engine knows best what is wrong with a request."""
    body = b'{"error":"temperature must be of type float32"}'
    plane = Plane(a=[[Head(422, {"content-type": "text/x", "server": "s"}), body]], b=[HELLO])
    finished, caller = await plane.ask()
    assert (caller.status, caller.answer, caller.headers["content-type"]) == (422, body, "text/x")
    assert ("server" in caller.headers, caller.headers["content-length"]) == (False, str(len(body)))
    assert (finished.status, finished.http_status, finished.error_type) == (Status.FAILED, 422, "upstream_4xx")
    assert (finished.error_message, finished.attempts[0].http_status) == ("temperature must be of type float32", 422)
    assert (plane.upstream.tried, plane.judged("a")) == (["a"], ())


@pytest.mark.parametrize(
    ("status", "body", "error_type", "client_status"),
    [
        (500, b"crashed", "upstream_4xx", 500),
        (502, b"bad gateway", "upstream_5xx", 502),
        (503, b"busy", "upstream_busy", 503),
        (404, b'{"error":"model not found"}', "model_missing", 404),
        (501, b"cannot", "upstream_4xx", 501),
    ],
)
async def test_a_status_of_failure_is_retried_and_told_if_no_node_is_better(status, body, error_type, client_status):
    """Statuses of engines become errors of the tree, whatever their bodies."""
    script = [Head(status), body]
    good, bad = Plane(a=[script], b=[HELLO]), Plane(a=[script], b=[script])
    assert [(await plane.ask())[0].status for plane in (good, bad)] == [Status.COMPLETED, Status.FAILED]
    (finished,) = bad.finished
    assert [each.http_status for each in finished.attempts] == [status, status]
    assert (finished.error_type, finished.http_status) == (error_type, client_status)


MISTAKE = b'{"error":"the input length exceeds the context length of 4096, see 127.0.0.1:%d"}'


@pytest.mark.parametrize("in_band", [False, True], ids=["with its status", "under 200"])
async def test_what_two_healthy_nodes_answer_alike_is_the_requests_own_fault(in_band):
    """Engines call clients' mistakes a 500; five of them closed a fleet of two, and each client got herd's 502."""
    heads = [JSON if in_band else Head(500)] * 3
    a, b, c = ([[head, MISTAKE % port]] for head, port in zip(heads, (1234, 5678, 9), strict=True))
    plane = Plane(a=a, b=b, c=c)
    for _ in range(12):
        finished, caller = await plane.ask(chat(stream=False))
        assert (caller.status, caller.answer in {a[0][1], b[0][1], c[0][1]}) == (200 if in_band else 500, True)
        assert caller.headers["x-should-retry"] == "false"
        assert (finished.status, finished.error_type, len(finished.attempts)) == (Status.FAILED, "upstream_4xx", 2)
        assert {attempt.error_type for attempt in finished.attempts} == {"upstream_4xx"}
    assert [plane.judged(name) for name in "abc"] == [(), (), ()]


@pytest.mark.parametrize(
    "other",
    [HELLO, [Head(500), b'{"error":"CUDA error: out of memory"}'], [Head(503), b"busy"], [errors.ConnectFailed("no")]],
    ids=["answers", "says something else", "is busy", "is away"],
)
async def test_what_one_node_alone_answers_is_its_own_fault(other):
    """A broken driver is not the request's doing, and the breaker must know."""
    plane = Plane(a=[[Head(500), b'{"error":"CUDA error: no device"}']], b=[other], c=[HELLO])
    finished, _ = await plane.ask()
    assert (finished.status, plane.judged("a")) == (Status.COMPLETED, (True,))
    assert finished.attempts[0].error_type == "upstream_5xx"
    alone = Plane(a=[[Head(500), MISTAKE]])
    finished, caller = await alone.ask()
    assert (finished.error_type, caller.status, alone.judged("a")) == ("upstream_5xx", 502, (True,))


async def test_a_node_that_is_known_to_be_ill_confirms_nothing():
    """Two nodes with the same broken driver: one of them has failed so often that its breaker is open."""
    plane = Plane(a=[[Head(500), MISTAKE]], b=[[Head(500), MISTAKE]])
    plane.break_open("a", ago_s=6.0)
    finished, _ = await plane.ask()
    assert (finished.error_type, plane.judged("b")) == ("upstream_5xx", (True,))


async def test_a_request_that_kills_two_nodes_in_a_row_is_not_tried_on_a_third_and_refused_for_a_while():
    """`"context":[999999]` ended one engine after the other, and its client sent it again."""
    plane = Plane(a=[killed()], b=[killed()], c=[killed()])
    plane.upstream.dead = {"a", "b", "c"}
    finished, caller = await plane.ask(chat(context=[999999]))
    assert (finished.error_type, caller.status, len(finished.attempts)) == ("connection_lost", 502, 2)
    assert ("died in a row on this body" in caller.error["error"], caller.headers["x-should-retry"]) == (True, "false")
    (told,) = plane.changes("request_quarantined")
    assert (told.data["request_id"], told.data["seconds"]) == (finished.request_id, 600.0)
    assert sorted(str(told.data["nodes"]).split(", ")) == sorted(plane.upstream.tried)
    again, caller = await plane.ask(chat(context=[999999]))
    assert (again.status, again.error_type, caller.status) == (Status.REJECTED, "quarantined", 422)
    assert ("quarantine_s" in caller.error["error"], len(plane.upstream.calls)) == (True, 2)
    plane.upstream.scripts = {name: [HELLO] for name in "abc"}
    finished, _ = await plane.ask(chat(context=[1]))
    assert finished.status is Status.COMPLETED, "another body is another request"


async def test_an_operator_may_have_no_death_followed_by_another():
    """Where each engine is worth more than a request."""
    plane = Plane(a=[killed()], b=[killed()], with_settings={"deaths_per_request": 1})
    plane.upstream.dead = {"a", "b"}
    finished, caller = await plane.ask()
    assert (len(finished.attempts), caller.status) == (1, 502)
    assert [each.deaths[0].node_id for each in plane.serving.quarantine.view(moment().tick)] == plane.upstream.tried


async def test_a_lost_connection_to_a_node_that_lives_is_no_death():
    """A proxy in between that is restarted cuts every connection, and kills nobody."""
    plane = Plane(a=[killed()], b=[killed()], c=[HELLO])
    assert [(await plane.ask())[0].status for _ in range(3)] == [Status.COMPLETED] * 3
    assert not plane.serving.quarantine


async def test_all_that_a_dying_node_worked_on_is_answered_by_the_others_whatever_the_budget():
    """It had as many requests in flight as it had slots; the budget is against overload, not against a death."""
    gate = asyncio.Event()
    plane = Plane(beats=[node("a", slots=8), node("b", slots=8, loaded=())], with_settings={"retry_budget_pct": 0},
                  a=[[gate, *killed()]], b=[HELLO])  # fmt: skip
    tasks = [asyncio.create_task(plane.serve(chat())) for _ in range(8)]
    await until(lambda: plane.upstream.asked["a"] == 8)
    plane.upstream.dead = {"a"}
    gate.set()
    await asyncio.gather(*tasks)
    assert [each.status for each in plane.finished] == [Status.COMPLETED] * 8
    assert not plane.serving.quarantine, "an answer clears the body"


async def test_a_loop_is_told_as_what_it_is_and_another_node_answers_where_there_is_one():
    """The router's own address was given to an agent: its node leads back here."""
    loop = [Head(508), b'{"error":"passed through"}']
    assert (await Plane(a=[loop], b=[HELLO]).ask())[0].status is Status.COMPLETED
    _, caller = await Plane(a=[loop]).ask()
    assert (caller.status, caller.error) == (508, {"error": "passed through"})


async def test_bodies_that_take_too_much_memory_together_are_refused_and_given_back_at_their_end():
    """Twenty bodies of 100 MiB at once took 5.5 GB, each of them within its limit."""
    gate, refused = asyncio.Event(), []
    plane = Plane(a=[[gate, *HELLO]])
    room = plane.serving._room = Room(3000, lambda: refused.append(1))
    large = chat(padding="x" * 2000)
    async with plane.asking(large):
        await until(lambda: plane.upstream.open == 1)
        second = chat(padding="y" * 2000)
        await plane.serve(second)
        assert (second.status, second.headers["retry-after"], refused) == (503, "5", [1])
        packed = gzip.compress(json.dumps({"model": M, "messages": [], "padding": "z" * 2000}).encode())
        third = Caller(packed, headers={"content-encoding": "gzip"})
        await plane.serve(third)
        assert (third.status, plane.finished[-1].error_type, room.taken) == (503, "no_room", len(large.body))
        gate.set()
    assert (large.status, room.taken) == (200, 0)


async def test_a_busy_fleet_says_when_to_come_back():
    """An engine's full queue empties in seconds."""
    _, caller = await Plane(a=[[errors.UpstreamBusy("full")]]).ask()
    assert (caller.status, caller.headers["retry-after"], caller.headers["x-should-retry"]) == (503, "5", "false")


@pytest.mark.parametrize("retries", [0, 1, 2])
async def test_no_more_nodes_are_tried_than_the_setting_says(retries):
    """A request that kills engines must not go through all of them."""
    scripts = {name: [lost()] for name in "abcd"}
    plane = Plane(with_settings={"retries": retries}, **scripts)
    finished, _ = await plane.ask()
    assert (finished.status, plane.upstream.tried) == (Status.FAILED, list("abcd")[: retries + 1])
    assert [will for _, _, will in plane.failures] == [True] * retries + [False]


async def test_a_node_is_tried_once_though_the_plan_has_it_for_two_models():
    """A node that just failed is no better for another model."""
    both = {"models": (M, TINY), "loaded": (M, TINY)}
    plane = Plane(beats=[node("a", **both), node("b", **both)], a=[lost()], b=[lost()])
    finished, _ = await plane.ask(chat(fallback_models=[TINY]))
    assert [(each.node_id, each.model) for each in finished.attempts] == [("a", M), ("b", M)]


async def test_a_node_that_was_drained_since_the_decision_is_not_retried_on():
    """An operator who drained it waits for it to become idle."""
    gate = asyncio.Event()
    plane = Plane(a=[[gate, *lost()]], b=[HELLO], c=[HELLO])
    async with plane.asking():
        await until(lambda: plane.upstream.tried == ["a"])
        plane.keeper.drain("b", draining=True)
        gate.set()
    assert (plane.upstream.tried, plane.finished[0].status) == (["a", "c"], Status.COMPLETED)


async def test_where_all_others_are_gone_since_the_failure_is_final():
    """There is nowhere left to go, and waiting for a drained node would be for nothing."""
    gate = asyncio.Event()
    plane = Plane(a=[[gate, *lost()]], b=[HELLO])
    async with plane.asking() as caller:
        await until(lambda: plane.upstream.tried == ["a"])
        plane.keeper.heard(node("b", leaving=True))
        gate.set()
    assert (caller.status, plane.failures) == (502, [("a", "connect", False)])


async def test_a_node_that_joined_since_the_decision_does_not_change_the_plan_of_a_retry():
    """What was decided is what is recorded, so it is what happens."""
    gate = asyncio.Event()
    plane = Plane(beats=[node("a"), node("b")], a=[[gate, *lost()]], b=[lost()], c=[HELLO])
    async with plane.asking():
        await until(lambda: plane.upstream.tried == ["a"])
        plane.keeper.heard(node("c"))
        gate.set()
    assert plane.upstream.tried == ["a", "b"]


# The budget of retries


async def retried_at_once(plane, number, **gates):
    """So many requests that failed at `a` and wait at `b`."""
    tasks = []
    for so_far in range(1, number + 1):
        tasks.append(asyncio.create_task(plane.serve(chat())))
        await until(lambda so_far=so_far: plane.upstream.asked["b"] == so_far)
    return tasks


def tight(*more, slots=16, **changes):
    """Two nodes, the first of which lacks the model; retries at the second wait for a gate."""
    gate = asyncio.Event()
    beats = [node("a", slots=slots), node("b", slots=slots), *more]
    scripts = {"a": [lacking()], "b": [[gate, *HELLO]], **changes.pop("scripts", {})}
    return Plane(beats=beats, with_settings=changes, **scripts), gate


async def test_three_requests_may_be_retried_at_once_however_few_there_are_and_the_next_is_not():
    """When everything fails, retries would multiply the load just when there is least room."""
    plane, gate = tight(retry_budget_pct=0)
    tasks = await retried_at_once(plane, 3)
    finished, caller = None, chat()
    await plane.serve(caller)
    (finished,) = plane.finished
    assert (finished.status, finished.error_type, caller.status) == (Status.FAILED, "upstream_4xx", 501)
    spent = [each for each in plane.events if getattr(each, "budget_spent", False)]
    assert [(each.request_id, each.will_retry) for each in spent] == [(finished.request_id, False)]
    gate.set()
    await asyncio.gather(*tasks)
    assert [each.status for each in plane.finished[1:]] == [Status.COMPLETED] * 3


async def test_a_failure_that_is_final_anyway_is_not_put_down_to_the_budget():
    """The operator who reads that the budget was spent would raise it for nothing."""
    scripts = {"a": [lacking(), lacking(), lacking(), [errors.Upstream4xx("no")]]}
    plane, gate = tight(retry_budget_pct=0, scripts=scripts)
    tasks = await retried_at_once(plane, 3)
    await plane.serve(chat())
    last = plane.of(AttemptFailed)[-1]
    assert (last.attempt.error_type, last.will_retry, last.budget_spent) == ("upstream_4xx", False, False)
    gate.set()
    await asyncio.gather(*tasks)


async def test_a_budget_that_was_spent_is_there_again_when_the_retries_have_ended():
    """It bounds what happens at once, not what happens in a day."""
    plane, gate = tight(node("c", loaded=()), retry_budget_pct=0, scripts={"c": [HELLO]})
    tasks = await retried_at_once(plane, 3)
    gate.set()
    await asyncio.gather(*tasks)
    plane.keeper.drain("b", draining=True)  # it would be first now
    finished, _ = await plane.ask()
    assert (finished.status, finished.retry_count) == (Status.COMPLETED, 1)


@pytest.mark.parametrize(("percent", "allowed"), [(50, 5), (40, 4), (0, 3)])
async def test_a_busy_router_may_retry_a_share_of_its_requests(percent, allowed):
    """Of ten requests under way, half may be on a retry where the setting says so."""
    plane, gate = tight(retry_budget_pct=percent)
    idle = [Caller(b"", parts=[b"{", asyncio.Event()]) for _ in range(9 - allowed)]
    uploads = [asyncio.create_task(plane.serve(each)) for each in idle]
    tasks = await retried_at_once(plane, allowed)
    await plane.serve(chat())
    (finished,) = plane.finished
    assert (finished.status, finished.retry_count) == (Status.FAILED, 0)
    gate.set()
    await asyncio.gather(*tasks)
    for each in uploads:
        each.cancel()
    await asyncio.gather(*uploads, return_exceptions=True)


async def test_a_request_on_its_second_retry_does_not_stand_in_its_own_way():
    """It is one of those that are being retried, and counts itself out."""
    gate, others = asyncio.Event(), asyncio.Event()
    scripts = {"b": [[others, *HELLO], [others, *HELLO], [gate, *lacking()]], "c": [HELLO]}
    plane, _ = tight(node("c", loaded=()), retry_budget_pct=0, scripts=scripts)
    tasks = await retried_at_once(plane, 3)
    gate.set()
    await tasks[-1]
    (finished,) = plane.finished
    assert (finished.status, [each.node_id for each in finished.attempts]) == (Status.COMPLETED, ["a", "b", "c"])
    others.set()
    await asyncio.gather(*tasks)


async def test_the_request_that_probes_a_node_is_retried_whatever_the_budget():
    """It tries the node out for all others, and shall not pay for that."""
    plane, gate = tight(retry_budget_pct=0)
    tasks = await retried_at_once(plane, 3)
    plane.break_open("a", ago_s=6.0)
    probe = asyncio.create_task(plane.serve(chat()))
    await until(lambda: plane.upstream.asked["b"] == 4)
    gate.set()
    await asyncio.gather(*tasks, probe)
    assert {each.status for each in plane.finished} == {Status.COMPLETED}
    assert plane.failures[-1] == ("a", "upstream_4xx", True)


# Waits


async def test_a_wait_for_a_slot_is_recorded_apart_from_the_work():
    """Queueing and prefilling have different remedies."""
    plane = Plane(beats=[node("a", slots=1)], a=[[7.0, *HELLO], [1.0, *HELLO]])
    async with plane.asking(), plane.asking():
        await until(lambda: plane.cell.slots.depths() == {M: 1})
    first, second = plane.finished
    assert (first.queued_at, first.queue_s) == (None, 0.0)
    assert (second.queued_at - second.received_at, second.admitted_at - second.queued_at) == queued(0.0, 7.0)
    assert (second.queue_s, second.requeued_s, second.latency_s, second.upstream_s) == queued(7.0, 0.0, 8.0, 1.0)


async def test_a_request_that_waited_is_held_against_what_was_foreseen_when_it_began_to():
    """The decision that ends a wait knows that it is over: a prediction without the wait would always look wrong."""
    plane = Plane(beats=[node("a", slots=1)], a=[[7.0, *HELLO]], b=[HELLO])
    async with plane.asking(), plane.asking():
        await until(lambda: plane.cell.slots.depths() == {M: 1})
        plane.keeper.heard(node("b"))
    second, first = plane.finished
    assert first.predicted == first.chosen.predicted
    assert (second.chosen.node_id, second.chosen.predicted.queue_s) == ("b", 0.0)
    assert second.predicted.queue_s > 1.0


async def test_a_wait_before_a_retry_is_recorded_apart_from_the_first():
    """A queue that is met twice is not one long queue."""
    beats = [node("a", slots=1), node("b", slots=1)]
    plane = Plane(beats=beats, a=[[2.0, *HELLO], [1.0, *lost()]], b=[[10.0, *HELLO], HELLO])
    async with plane.asking(), plane.asking(), plane.asking():
        await until(lambda: plane.cell.slots.depths() == {M: 1})
    last = plane.finished[-1]
    assert [each.node_id for each in last.attempts] == ["a", "b"]
    assert (last.admitted_at - last.queued_at, last.requeued_s, last.queue_s) == queued(2.0, 7.0, 9.0)
    assert last.latency_s == pytest.approx(10.0, abs=1e-5)


def swapping(**more):
    """A node with room for one of its two models."""
    memory = wire.Memory(total_bytes=16 * GIB, used_bytes=13 * GIB, available_bytes=3 * GIB)
    return Plane(beats=[node("a", models=(M, OTHER), loaded=(M,), memory=memory)], **more)


async def test_the_wait_until_a_model_in_use_may_be_put_out_is_recorded():
    """Its node has slots free for it all the time, and it waits nevertheless."""
    plane = swapping(a=[[7.0, *HELLO], [1.0, *HELLO]])
    async with plane.asking():
        await until(lambda: plane.upstream.tried == ["a"])
        async with plane.asking(chat(model=OTHER)):
            await until(lambda: plane.cell.slots.depths() == {OTHER: 1})
    second = plane.finished[-1]
    assert (second.status, [each.model for each in second.attempts]) == (Status.COMPLETED, [OTHER])
    assert (second.queued_at - second.received_at, second.admitted_at - second.queued_at) == queued(0.0, 7.0)
    assert (second.queue_s, second.upstream_s) == queued(7.0, 1.0)


async def test_a_full_queue_refuses_also_who_would_wait_until_a_model_in_use_may_be_put_out():
    """A limit that holds for one kind of wait alone is none."""
    plane = swapping(queue_limit=1, a=[[7.0, *HELLO], [1.0, *HELLO]])
    async with plane.asking():
        await until(lambda: plane.upstream.tried == ["a"])
        async with plane.asking(chat(model=OTHER)):
            await until(lambda: plane.cell.slots.depths() == {OTHER: 1})
            caller = chat(model=OTHER)
            await plane.serve(caller)
    assert caller.status == 429


async def test_who_waits_longer_than_the_setting_is_refused_with_a_time_to_come_back():
    """Nobody waits for ever, and no record of the wait is lost."""
    plane = Plane(beats=[node("a", slots=1)], a=[[100.0, *HELLO]])
    async with plane.asking():
        await until(lambda: plane.upstream.tried == ["a"])
        caller = chat()
        await plane.serve(caller)
    refused, completed = plane.finished
    assert (refused.status, refused.http_status, refused.error_type) == (Status.REJECTED, 503, "queue_timeout")
    assert (caller.status, caller.headers["retry-after"], completed.status) == (503, "1", Status.COMPLETED)
    assert (refused.queue_s, refused.admitted_at - refused.queued_at) == queued(30.0, 30.0)
    assert (refused.attempts, refused.chosen, refused.decision.reason) == ((), None, Reason.ONLY_CANDIDATE)


async def test_a_queue_timeout_after_an_attempt_is_a_failure_and_no_refusal():
    """A node had it: that the last error was a full house does not make it a request that nobody took."""
    beats = [node("a", slots=1), node("b", slots=1)]
    plane = Plane(beats=beats, a=[[1.0, *lost()]], b=[[100.0, *HELLO]])
    held = plane.cell.ask(99, *occupying(plane, "a"), moment())
    async with plane.asking():
        await until(lambda: plane.upstream.tried == ["b"])
        plane.keeper.give_back(held)
        finished, caller = await ask_beside(plane)
    assert (finished.status, finished.http_status, finished.error_type) == (Status.FAILED, 503, "queue_timeout")
    assert (caller.status, len(finished.attempts), finished.queued_at) == (503, 1, None)
    assert finished.requeued_s == pytest.approx(30.0, abs=1e-5)


async def test_a_full_queue_refuses_with_a_time_made_from_what_slots_take():
    """A client that knows when to come back does not hammer."""
    plane = Plane(beats=[node("a", slots=1)], queue_limit=1, a=[[8.0, *HELLO]])
    await plane.ask()
    async with plane.asking(), plane.asking():
        await until(lambda: plane.cell.slots.depths() == {M: 1})
        finished, caller = await ask_beside(plane)
    assert (finished.status, finished.http_status, finished.error_type) == (Status.REJECTED, 429, "queue_full")
    assert (caller.status, caller.headers["retry-after"]) == (429, "16")
    assert caller.error == {"error": f"1 requests are already waiting for {M}"}


async def test_a_slot_that_frees_at_another_node_is_taken_with_the_decision_that_found_it():
    """A node that joins takes in those who wait, and their records know it."""
    plane = Plane(beats=[node("a", slots=1)], a=[[100.0, *HELLO]], b=[HELLO])
    async with plane.asking():
        async with plane.asking():
            await until(lambda: plane.cell.slots.depths() == {M: 1})
            plane.keeper.heard(node("b"))
        (finished,) = plane.finished
        assert (finished.chosen.node_id, [each.node_id for each in finished.fleet.nodes]) == ("b", ["a", "b"])


async def test_when_the_last_node_goes_a_waiting_request_is_refused():
    """Two minutes of silence would be the alternative."""
    plane = Plane(beats=[node("a", slots=1)], a=[[100.0, *HELLO]])
    async with plane.asking():
        async with plane.asking() as caller:
            await until(lambda: plane.cell.slots.depths() == {M: 1})
            plane.keeper.heard(node("a", slots=1, leaving=True))
        (finished,) = plane.finished
        assert (finished.status, finished.error_type, caller.status) == (Status.REJECTED, "no_node", 503)
        assert caller.headers["retry-after"] == str(errors.NO_NODE_RETRY_S)


async def ask_beside(plane):
    """One request to its end while others are under way."""
    caller, before = chat(), len(plane.finished)
    await plane.serve(caller)
    return plane.finished[before], caller


def occupying(plane, node_id):
    """What asks for a slot at one node."""
    request = Request(CHAT, Dialect.OLLAMA, M)
    choice = plane.cell.decide(request, Policy(), moment())
    others = frozenset(plane.cell.entries) - {node_id}
    return Bid(request, Policy(), others), choice


# Models


async def test_a_fallback_that_the_client_named_answers_and_says_so():
    """The client said that it would rather have that answer than wait for a load."""
    beats = [node("a", models=(M, TINY), loaded=(TINY,))]
    plane = Plane(beats=beats, a=[HELLO])
    finished, caller = await plane.ask(chat(fallback_models=[TINY]))
    assert (caller.headers["x-herd-fallback"], caller.headers["x-herd-model"]) == ("true", TINY)
    assert (finished.model, finished.fallback_used, finished.fallback_reason) == (TINY, True, "loaded_alternative")
    sent = json.loads(plane.upstream.calls[0].body)
    assert (sent["model"], "fallback_models" in sent) == (TINY, False)


async def test_a_fallback_answers_where_the_node_of_the_wanted_model_fails():
    """That is a retry, and the record says so."""
    beats = [node("a"), node("b", models=(TINY,), loaded=(TINY,))]
    plane = Plane(beats=beats, a=[lost()], b=[HELLO])
    finished, caller = await plane.ask(chat(fallback_models=[TINY]))
    assert (finished.status, finished.model, finished.fallback_reason) == (Status.COMPLETED, TINY, "retry")
    assert (caller.headers["x-herd-fallback"], caller.headers["x-herd-retries"]) == ("true", "1")


@pytest.mark.parametrize(("fallbacks", "model"), [(None, TINY), ([], M)])
async def test_the_operators_equivalents_count_unless_the_client_said_that_no_other_model_will_do(fallbacks, model):
    """An empty list is an answer."""
    beats = [node("a", models=(M, TINY), loaded=(TINY,))]
    plane = Plane(beats=beats, with_settings={"equivalent_models": f"{M} = {TINY}"}, a=[HELLO])
    named = {} if fallbacks is None else {"fallback_models": fallbacks}
    finished, _ = await plane.ask(chat(**named))
    assert finished.model == model


async def test_a_model_that_must_be_loaded_first_has_more_time_for_its_first_content():
    """A load of ten minutes is no failure of the node."""
    limits = {"first_byte_timeout_s": 10.0, "load_timeout_s": 50.0}
    cold = Plane(beats=[node("a", loaded=())], with_settings=limits, a=[[59.0, *HELLO]])
    warm = Plane(beats=[node("a")], with_settings=limits, a=[[10.1, *HELLO]])
    assert [(await plane.ask())[0].error_type for plane in (cold, warm)] == [None, "first_byte_timeout"]


async def test_a_second_request_of_a_conversation_goes_where_its_beginning_is_cached():
    """What a request taught is used for the next one."""
    plane = Plane(a=[lost(), HELLO], b=[HELLO])
    long = [{"role": "user", "content": "Why is the sky blue, and not violet? " * 20}]
    await plane.ask(chat(messages=long))
    finished, _ = await plane.ask(chat(messages=long))
    assert (finished.chosen.node_id, plane.upstream.tried) == ("b", ["a", "b", "b"])


# What is changed in a body


@pytest.mark.parametrize(
    ("mode", "num_ctx", "action", "sent"),
    [("strip", 2048, "stripped", 4096), ("warn", 2048, "warned", 2048), ("strip", 8192, "warned", 8192),
     ("off", 2048, None, 2048), ("strip", 4096, None, 4096)],
)  # fmt: skip
async def test_a_num_ctx_that_would_reload_the_model_is_replaced_and_told(mode, num_ctx, action, sent):
    """The client has its answer in a second instead of after a load, and the operator knows why."""
    plane = Plane(with_settings={"context_protection": mode}, a=[HELLO])
    finished, _ = await plane.ask(chat(options={"num_ctx": num_ctx}))
    told = plane.of(ContextProtected)
    assert [(each.request_id, each.action.action) for each in told] == [(finished.request_id, action)] * bool(action)
    assert (finished.context and finished.context.action) == action
    assert json.loads(plane.upstream.calls[0].body)["options"]["num_ctx"] == sent


USAGE = event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 1})


@pytest.mark.parametrize(
    ("own", "setting", "kind", "asked", "passed"),
    [
        ({}, True, "ollama", True, False),
        ({}, False, "ollama", False, True),
        ({}, True, "llamacpp", False, True),
        ({"stream_options": {"include_usage": True}}, True, "ollama", True, True),
    ],
)
async def test_usage_is_asked_for_on_herds_own_account_and_kept_from_the_client(own, setting, kind, asked, passed):
    """Streams are counted, and a client that did not ask for a frame without choices does not stumble over it."""
    beat = node("a")
    beat = beat.model_copy(update={"engine": beat.engine.model_copy(update={"kind": kind})})
    plane = Plane(
        beats=[beat], with_settings={"usage_in_streams": setting}, a=[[EVENTS, delta("Hi"), STOP, USAGE, END]]
    )
    finished, caller = await plane.ask(chat(COMPLETIONS, stream=True, **own))
    assert (b"include_usage" in plane.upstream.calls[0].body, USAGE in caller.answer) == (asked, passed)
    assert (finished.usage.prompt_tokens, finished.usage.completion_tokens) == (3, 1)


# A model that has to come first


class Supply:
    """Brings the model to node `a` after so many seconds, or raises."""

    def __init__(self, plane, seconds, failure=None, slots=4):
        self.plane, self.seconds, self.failure, self.slots, self.asked = plane, seconds, failure, slots, []
        plane.serving.supply = self.supply

    def supply(self, decided):
        self.asked.append(decided.asked.request.model)
        return self.come(decided.asked)

    async def come(self, asked):
        await asyncio.sleep(self.seconds)
        if self.failure:
            raise self.failure
        self.plane.keeper.heard(node("a", loaded=(), slots=self.slots))
        return asked


async def test_a_model_that_no_node_has_is_waited_for_where_something_brings_it():
    """One request waits for the download, and is answered by it."""
    plane = Plane(beats=[node("a", models=(), loaded=())], a=[[1.0, *HELLO]])
    supply = Supply(plane, 12.0)
    finished, caller = await plane.ask()
    assert (finished.status, supply.asked, caller.answer) == (Status.COMPLETED, [M], b"".join(HELLO))
    assert (finished.admitted_at - finished.queued_at, finished.latency_s) == queued(12.0, 13.0)
    assert (finished.decision.reason, finished.fleet.nodes[0].holds(M)) == (Reason.ONLY_CANDIDATE, True)


async def test_a_wait_for_a_slot_behind_one_for_the_model_is_one_wait_from_the_first_ones_beginning():
    """The client waited all the while, and the record says since when."""
    plane = Plane(beats=[node("a", models=(), loaded=())], a=[[20.0, *HELLO], HELLO])
    Supply(plane, 12.0, slots=1)
    async with plane.asking(), plane.asking():
        await until(lambda: len(plane.serving.flights) == 2)
    first, second = plane.finished
    assert tuple(each.queued_at - each.received_at for each in (first, second)) == queued(0.0, 0.0)
    assert tuple(each.admitted_at - each.received_at for each in (first, second)) == queued(12.0, 32.0)


async def test_a_model_that_does_not_come_is_a_refusal_in_the_words_of_the_reason_with_its_wait():
    """Twelve seconds for nothing are worth a record."""
    plane = Plane(beats=[node("a", models=(), loaded=())], a=[HELLO])
    Supply(plane, 12.0, errors.ModelMissing("there is no such model"))
    finished, caller = await plane.ask()
    assert (finished.status, finished.http_status, finished.error_type) == (Status.REJECTED, 404, "model_missing")
    assert (caller.error, finished.attempts) == ({"error": "there is no such model"}, ())
    assert finished.admitted_at - finished.queued_at == pytest.approx(12.0, abs=1e-5)


async def test_a_model_that_came_and_fits_no_node_is_refused_after_all():
    """A supply that says it is done may be wrong about the fleet."""
    plane = Plane(beats=[node("a", models=(), loaded=())], a=[HELLO])
    supply = Supply(plane, 3.0)
    plane.keeper.drain("a", draining=True)
    finished, _ = await plane.ask()
    assert (finished.status, finished.error_type, supply.asked) == (Status.REJECTED, "no_node", [M])
    assert finished.queue_s == pytest.approx(3.0, abs=1e-5)


async def test_nothing_is_brought_for_a_request_that_has_a_node():
    """A model that is there must not be downloaded again."""
    plane = Plane(a=[HELLO])
    supply = Supply(plane, 1.0)
    finished, _ = await plane.ask()
    assert (finished.status, supply.asked, finished.queued_at) == (Status.COMPLETED, [], None)


# Refusals


@pytest.mark.parametrize(
    ("beats", "ask", "status", "error_type", "words"),
    [
        ([], {}, 503, "no_node", "no node has joined yet"),
        ([node("a", leaving=True)], {}, 503, "no_node", "no engine is reachable (a: "),
        ([node("a", reachable=False)], {}, 503, "no_node", "no engine is reachable (a: "),
        ([node("a", models=("x:1b",), loaded=())], {}, 404, "model_missing",
         "model 'llama:8b' not found"),
        ([node("a", models=(), loaded=())], {}, 404, "model_missing",
         "model 'llama:8b' not found: no node has any model yet, try `ollama pull llama:8b`"),
        ([node("a", draining=True), node("b", models=("x:1b",), loaded=())], {}, 503, "no_node",
         "no node can serve model 'llama:8b' now (a: "),
        ([node("a")], {"model": 3}, 400, "bad_request", "model must be a string"),
    ],
)  # fmt: skip
async def test_a_request_that_no_node_can_take_is_refused_in_words_that_say_what_to_do(
    beats, ask, status, error_type, words
):
    """Who sets a fleet up meets each of these once."""
    plane = Plane(beats=beats or [node("gone")], a=[HELLO])
    if not beats:
        plane.keeper.heard(node("gone", leaving=True))
        plane.keeper.forget("gone")
    finished, caller = await plane.ask(chat(**ask))
    assert (finished.status, finished.http_status, finished.error_type) == (Status.REJECTED, status, error_type)
    assert (caller.status, caller.error["error"].startswith(words)) == (status, True), caller.error
    assert ("retry-after" in caller.headers) == (status == 503)
    assert plane.upstream.calls == []


async def test_an_embedding_of_a_model_that_is_missing_is_refused_in_the_words_that_engines_use_there():
    """Client libraries know an engine's errors by their words, and these differ by endpoint."""
    finished, caller = await Plane(beats=[node("a", models=("x:1b",), loaded=())]).ask(chat("/api/embed", input="Hi"))
    assert caller.error == {"error": 'model "llama:8b" not found, try pulling it first'}
    assert (finished.error_type, finished.model) == ("model_missing", M)


async def test_a_body_over_the_limit_is_refused_before_it_is_read():
    """A hundred gigabytes must not be taken in to be refused."""
    plane = Plane(with_settings={"body_limit_mb": 1}, a=[HELLO])
    announced = Caller(b"", headers={"content-length": str(2**20 + 1)}, parts=[asyncio.Event()])
    finished, caller = await plane.ask(announced)
    assert (finished.status, caller.status, finished.request) == (Status.REJECTED, 413, None)
    finished, caller = await plane.ask(Caller(b"", parts=[b"x" * 2**20, b"x", asyncio.Event()]))
    assert (finished.error_type, caller.status) == ("bad_request", 413)

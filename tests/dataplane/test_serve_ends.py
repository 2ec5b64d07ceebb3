"""Ends that are no answer: clients that leave, a router that stops, requests that are stuck, defects; and one law."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core import errors
from herd.core.breaker import FAULTS_OF_THE_NODE
from herd.core.events import Status
from herd.dataplane.flights import LAST_WORDS_S, REAP_AFTER_S, STOPPED, STOPPING
from tests.dataplane.plane import (
    COMPLETIONS,
    DONE,
    END,
    HELLO,
    Caller,
    M,
    Plane,
    chat,
    delta,
    line,
    node,
    said,
    until,
)
from tests.dataplane.scripted_upstream import EVENTS, JSON, SILENCE, STREAM, Head
from tests.virtual_time import VirtualLoop

HEL = said("Hel")


def one(**changes):
    """A fleet of one node with one slot."""
    return Plane(beats=[node("a", slots=1)], **changes)


async def leaving(plane, caller, when):
    """A client that leaves when this is so; the record of its request."""
    async with plane.asking(caller):
        await until(when)
        caller.left.set()
    assert (plane.cell.slots.in_flight(), plane.cell.slots.depths(), plane.upstream.open) == ({}, {}, 0)
    assert len(plane.serving.flights) == 0
    (finished,) = plane.finished
    return finished


# Clients that leave


async def test_a_client_that_leaves_while_it_sends_its_body_is_recorded_and_no_node_hears_of_it():
    """A broken upload is no request yet, and still a row."""
    plane, caller = one(a=[HELLO]), Caller(b"", parts=[b'{"model":'])
    caller.parts.append(caller.left)
    finished = await leaving(plane, caller, lambda: not caller.parts)
    assert (finished.status, finished.http_status, finished.error_type) == (Status.CLIENT_DISCONNECTED, 499, None)
    assert (finished.request, finished.decision, finished.attempts, plane.upstream.calls) == (None, None, (), [])


async def test_a_client_that_leaves_the_queue_gives_its_place_up():
    """Otherwise a slot leaks with every impatient client."""
    plane = one(a=[[50.0, *HELLO]])
    async with plane.asking():
        async with plane.asking() as caller:
            await until(lambda: plane.cell.slots.depths() == {M: 1})
            caller.left.set()
        (finished,) = plane.finished
        assert (finished.status, finished.attempts, caller.messages) == (Status.CLIENT_DISCONNECTED, (), [])
        assert (finished.queued_at is not None, plane.cell.slots.depths()) == (True, {})
    assert len(plane.upstream.calls) == 1


@pytest.mark.parametrize("came", [[], [STREAM], [STREAM, said("")]], ids=["nothing", "head", "no content"])
async def test_a_client_that_leaves_before_content_ends_the_work_at_the_node(came):
    """Prefill of a long prompt for nobody is what makes others wait."""
    plane, caller = one(a=[[*came, SILENCE]]), chat()
    finished = await leaving(plane, caller, lambda: plane.upstream.open == 1)
    assert (finished.status, finished.http_status, caller.messages) == (Status.CLIENT_DISCONNECTED, 499, [])
    assert [each.error_type for each in finished.attempts] == [None]
    assert (plane.judged("a"), plane.failures) == ((), [])


async def test_a_client_that_leaves_in_the_middle_ends_the_stream_with_what_it_used():
    """Its tokens were made, and are counted."""
    plane, caller = one(a=[[HEL, said("lo"), SILENCE]]), chat()
    finished = await leaving(plane, caller, lambda: len(caller.messages) == 3)
    assert (finished.status, finished.content_frames) == (Status.CLIENT_DISCONNECTED, 2)
    assert (finished.usage.completion_tokens, finished.usage.source) == (2, "counted")
    assert (finished.first_content_at is not None, plane.judged("a")) == (True, ())
    assert caller.answer == HEL + said("lo")


async def test_a_client_that_has_all_of_its_answer_may_leave():
    """Many do not wait for the last, empty chunk."""
    plane = one(a=[[JSON, line(message={"content": "Hello"}, done=True)]])
    caller, sent = chat(stream=False), []

    async def send(message):
        sent.append(message)
        if message["type"] == "http.response.body":
            caller.left.set()
            await asyncio.sleep(1)

    caller.send = send
    finished, _ = await plane.ask(caller)
    assert (finished.status, len(sent)) == (Status.COMPLETED, 2)


async def test_a_client_whose_leaving_shows_only_in_the_writing_is_recorded_as_gone():
    """The second of two pipelined requests is never told that its client left."""

    async def send(message):
        if message["type"] == "http.response.body":
            raise RuntimeError("Cannot write to closing transport: the handler is closed")

    plane, caller = one(a=[HELLO]), chat()
    caller.send = send
    finished, _ = await plane.ask(caller)
    assert (finished.status, finished.http_status, plane.judged("a")) == (Status.CLIENT_DISCONNECTED, 499, ())


async def test_a_client_that_leaves_while_its_node_fails_is_not_tried_elsewhere():
    """Nobody is there for a second node's answer."""
    plane, caller = Plane(a=[[errors.ConnectFailed("no")]], b=[[SILENCE]]), chat()
    finished = await leaving(plane, caller, lambda: plane.upstream.tried == ["a", "b"])
    assert (finished.status, [each.error_type for each in finished.attempts]) == (
        Status.CLIENT_DISCONNECTED, ["connect", None],
    )  # fmt: skip


# The router stops


async def test_a_stopping_router_takes_nothing_new():
    """Clients are sent elsewhere while the running answers end."""
    plane = one(a=[HELLO])
    await plane.serving.drain(0.0)
    finished, caller = await plane.ask()
    assert (finished.status, finished.http_status, finished.error_type) == (Status.REJECTED, 503, "no_node")
    assert (caller.error, caller.headers["retry-after"], plane.upstream.calls) == ({"error": STOPPING}, "5", [])
    assert (finished.model, finished.decision) == (M, None)


async def test_what_ends_within_the_grace_ends_well():
    """A restart costs nobody an answer that was nearly there."""
    plane, clock = one(a=[[20.0, *HELLO]]), asyncio.get_running_loop().time
    async with plane.asking() as caller:
        await until(lambda: plane.upstream.open == 1)
        began = clock()
        await plane.serving.drain(30.0)
        assert clock() - began == pytest.approx(20.0)
    assert (plane.finished[0].status, caller.answer) == (Status.COMPLETED, b"".join(HELLO))


async def drained(plane, caller, when):
    """A request that is under way when the router stops, and does not end within the grace."""
    async with plane.asking(caller):
        await until(when)
        began = asyncio.get_running_loop().time()
        await plane.serving.drain(3.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(3.0)
    assert (plane.cell.slots.in_flight(), plane.upstream.open) == ({}, 0)
    return plane.finished[0]


async def test_a_body_that_is_still_coming_at_the_stop_is_refused():
    """No node has seen it: the client may send it again elsewhere."""
    plane, caller = one(a=[HELLO]), Caller(b"", parts=[b"{", asyncio.Event()])
    finished = await drained(plane, caller, lambda: len(caller.parts) == 0)
    assert (finished.status, finished.http_status, finished.error_type) == (Status.REJECTED, 503, "no_node")
    assert (caller.status, caller.error) == (503, {"error": STOPPING})


async def test_a_request_in_the_queue_at_the_stop_is_refused():
    """As one that came later: no node has seen it."""
    plane = one(a=[[SILENCE]])
    async with plane.asking() as first, plane.asking() as second:
        await until(lambda: plane.cell.slots.depths() == {M: 1})
        await plane.serving.drain(3.0)
    ended = {each.error_type: each for each in plane.finished}
    assert (ended["no_node"].status, second.status) == (Status.REJECTED, 503)
    assert ended["no_node"].queue_s == pytest.approx(3.0, abs=1e-5)
    assert (ended["internal"].status, ended["internal"].http_status, first.status) == (Status.FAILED, 500, 500)


async def test_a_request_at_a_node_at_the_stop_is_a_failure_of_the_routers_own():
    """A node worked on it, and is not to blame."""
    plane, caller = one(a=[[SILENCE]]), chat()
    finished = await drained(plane, caller, lambda: plane.upstream.open == 1)
    assert (finished.status, finished.http_status, finished.error_message) == (Status.FAILED, 500, STOPPED)
    assert (caller.status, caller.error, plane.judged("a")) == (500, {"error": STOPPED}, ())
    assert caller.headers["x-herd-node"] == "a"


async def test_a_stream_that_the_stop_cuts_says_so():
    """Half an answer must not look like a whole one."""
    plane, caller = one(a=[[EVENTS, delta("Hel"), SILENCE]]), chat(COMPLETIONS, stream=True)
    finished = await drained(plane, caller, lambda: len(caller.messages) == 2)
    assert (finished.status, finished.http_status, finished.error_type) == (Status.INCOMPLETE, 200, "internal")
    assert (STOPPED.encode() in caller.answer, caller.answer.endswith(END), caller.whole) == (True, True, True)


async def test_a_client_that_reads_nothing_does_not_hold_the_stop_up():
    """It has one second for the last words."""
    plane, caller, clock = one(a=[[HEL, SILENCE]]), chat(), asyncio.get_running_loop().time
    caller.reads.clear()
    async with plane.asking(caller):
        await until(lambda: caller.offered == 1)
        began = clock()
        await plane.serving.drain(3.0)
        assert clock() - began <= 3.0 + LAST_WORDS_S
        assert [each.status for each in plane.finished] == [Status.INCOMPLETE]
        caller.reads.set()


async def test_a_request_that_the_server_cancels_is_recorded_and_the_cancel_goes_on():
    """A server that ends its tasks must not be held up, and the row is written."""
    plane = one(a=[[SILENCE]])
    task = asyncio.create_task(plane.serve(chat()))
    await until(lambda: plane.upstream.open == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (finished,) = plane.finished
    assert (finished.status, finished.http_status, finished.error_message) == (Status.FAILED, 500, STOPPED)
    assert (plane.cell.slots.in_flight(), plane.judged("a")) == ({}, ())


# Stuck requests


async def reaped(plane, caller):
    """The keeper looks once a second; a request that nothing else ends, and when it was ended."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with plane.kept():
        await plane.serve(caller)
    (finished,) = plane.finished
    assert (plane.cell.slots.in_flight(), plane.upstream.open, len(plane.serving.flights)) == ({}, 0, 0)
    return finished, clock() - began


@pytest.mark.parametrize("takes", [0, 1, 2])
async def test_a_client_that_takes_nothing_any_more_is_ended_from_outside(takes):
    """It would hold a slot for ever: nothing that herd waits for has a limit there."""
    plane, caller = one(with_settings={"stall_timeout_s": 20.0}, a=[HELLO]), chat()
    caller.takes = takes
    finished, after_s = await reaped(plane, caller)
    assert (finished.status, finished.error_type, finished.http_status) == (Status.INCOMPLETE, "stall_timeout", 200)
    assert 20.0 + REAP_AFTER_S < after_s <= 22.0 + REAP_AFTER_S
    (event,) = plane.changes("zombie_reaped")
    assert (event.node_id, event.model, event.data["request_id"]) == ("a", M, finished.request_id)
    assert event.data["trace_id"] == finished.ids.trace_id
    assert (len(caller.messages), plane.failures, plane.judged("a")) == (takes, [], ())


async def test_a_request_that_moves_is_not_ended_from_outside_however_long_it_takes():
    """A long answer is the normal case."""
    steps = [step for _ in range(100) for step in (19.0, HEL)]
    plane = one(with_settings={"stall_timeout_s": 20.0}, a=[[*steps, DONE]])
    finished, after_s = await reaped(plane, chat())
    assert (finished.status, after_s, plane.changes("zombie_reaped")) == (Status.COMPLETED, pytest.approx(1900.0), [])


async def test_a_wait_in_the_queue_is_the_queues_to_end():
    """It has a limit of its own, which may be longer than any of a node's."""
    beats, limits = [node("a", slots=1), node("b", slots=1)], {"first_byte_timeout_s": 10.0}
    plane = Plane(beats=beats, with_settings=limits, a=[[HEL, 35.0, DONE], HELLO], b=[[SILENCE]])
    async with plane.kept(), plane.asking(), plane.asking():
        await until(lambda: plane.upstream.open == 2)
    first, second = plane.finished
    assert (first.status, second.status, plane.changes("zombie_reaped")) == (Status.COMPLETED, Status.COMPLETED, [])
    assert [each.error_type for each in second.attempts] == ["first_byte_timeout", None]
    assert second.requeued_s == pytest.approx(25.0, abs=1e-5)


# Defects


async def test_a_defect_of_ours_costs_neither_the_record_nor_the_client_its_answer(caplog):
    """The one broad except of the data plane: what is wrong stands in the log, under the request's id."""
    plane = Plane(beats=[node("a", models=(), loaded=())], a=[HELLO])
    plane.serving.supply = lambda _: 1 // 0
    finished, caller = await plane.ask()
    assert (finished.status, finished.http_status, finished.error_type) == (Status.FAILED, 500, "internal")
    assert caller.error == {"error": f"internal error (ZeroDivisionError); the log has request {finished.request_id}"}
    (record,) = [each for each in caplog.records if each.exc_info]
    assert (finished.request_id in record.getMessage(), record.exc_info[0]) == (True, ZeroDivisionError)


async def test_a_defect_at_a_node_gives_the_slot_back():
    """Otherwise each such request would cost the node a slot until the router's end."""
    plane = one(a=[[STREAM, "this is no step of a script"]])
    finished, caller = await plane.ask()
    assert (finished.status, finished.error_type, caller.status) == (Status.FAILED, "internal", 500)
    assert (plane.judged("a"), len(finished.attempts)) == ((), 1)


async def test_an_error_of_the_servers_own_is_not_taken_for_a_client_that_left():
    """What it raises in writing says that the client is gone only where it says so."""

    async def send(_):
        raise RuntimeError("ASGI callable returned without completing response")

    plane, caller = one(a=[HELLO]), chat()
    caller.send = send
    with pytest.raises(RuntimeError):  # once more, in telling the client
        await plane.ask(caller)
    (finished,) = plane.finished
    assert (finished.status, finished.error_type, plane.cell.slots.in_flight()) == (Status.INCOMPLETE, "internal", {})


# Whatever happens

KINDS = (
    errors.ConnectFailed, errors.ConnectTimeout, errors.FirstByteTimeout, errors.StallTimeout, errors.UpstreamBusy,
    errors.Upstream4xx, errors.NodeCannot, errors.NodeLacksModel, errors.Upstream5xx, errors.StreamAborted,
    errors.BadResponse, errors.OutOfFiles,
)  # fmt: skip
STEPS = st.one_of(
    st.sampled_from([HEL, said(""), DONE, b'{"mess', b"no json\n", line(error="ran out"), SILENCE, 1.0, 50.0]),
    st.sampled_from(KINDS).map(lambda kind: kind("no")),
)
HEADS = st.sampled_from([STREAM, JSON, Head(500), Head(400), Head(503)])
SCRIPTS = st.tuples(HEADS, st.lists(STEPS, max_size=4)).map(lambda parts: [parts[0], *parts[1]]) | st.lists(
    STEPS, max_size=4
)
LIMITS = {"first_byte_timeout_s": 40.0, "stall_timeout_s": 20.0, "total_timeout_s": 100.0}
ASKS = st.tuples(st.booleans(), st.none() | st.sampled_from([0.0, 0.5, 10.0, 45.0]))


async def played(scripts, asks, stops_after):
    """Some clients, of whom some leave, at nodes that do anything; perhaps the router stops in the middle."""
    beats = [node(name, slots=1) for name in scripts]
    plane, loop = Plane(beats=beats, with_settings=LIMITS, **scripts), asyncio.get_running_loop()
    tasks = []
    for stream, leaves_after in asks:
        caller = chat(stream=stream)
        tasks.append(asyncio.create_task(plane.serve(caller)))
        if leaves_after is not None:
            loop.call_later(leaves_after, caller.left.set)
    if stops_after is not None:
        await asyncio.sleep(stops_after)
        await plane.serving.drain(5.0)
    await asyncio.gather(*tasks)
    return plane


@given(
    st.lists(st.lists(SCRIPTS, min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(ASKS, min_size=1, max_size=4),
    st.none() | st.sampled_from([0.0, 1.0, 30.0]),
)
def test_whatever_happens_each_request_ends_once_and_every_slot_is_given_back(scripts, asks, stops_after):
    """The law of the heart: one Finished for each request, nothing in flight at the end, no node blamed for others."""
    loop = VirtualLoop()
    try:
        plane = loop.run_until_complete(played(dict(zip("abc", scripts, strict=False)), asks, stops_after))
    finally:
        loop.close()
    assert len(plane.finished) == len(asks) == len({each.request_id for each in plane.finished})
    slots = plane.cell.slots
    assert (slots.in_flight(), slots.depths(), len(plane.serving.flights), plane.upstream.open) == ({}, {}, 0, 0)
    for each in plane.finished:
        assert (each.status is Status.COMPLETED) == (each.error_type is None and each.http_status == 200)
        assert len({attempt.node_id for attempt in each.attempts}) == len(each.attempts)
    attempts = [attempt for each in plane.finished for attempt in each.attempts]
    for name in plane.cell.entries:
        faults = [each for each in attempts if each.node_id == name and each.error_type in FAULTS_OF_THE_NODE]
        assert sum(plane.judged(name)) == len(faults)

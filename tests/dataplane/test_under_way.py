"""Requests in flight as an operator sees them, and their cancellation."""

import asyncio

import pytest

from herd.core.events import Status
from herd.dataplane.under_way import under_way
from tests.dataplane.plane import DONE, HELLO, Caller, M, Plane, chat, node, said


def seen(plane, loaded=True):
    """All requests in flight, the oldest first."""
    found = (under_way(flight, lambda *_: loaded) for flight in plane.serving.flights)
    return sorted(found, key=lambda each: -each["age_s"])


async def test_a_stream_is_in_prefill_until_its_first_token_and_then_in_decode():
    """Where the time goes is the first question about a slow request."""
    plane = Plane(a=[[10.0, said("Hel"), said("lo"), 50.0, DONE]])
    async with plane.asking(chat(metadata={"tags": ["ci"]})) as caller:
        await asyncio.sleep(4)
        (early,) = seen(plane)
        await asyncio.sleep(8)
        (late,) = seen(plane)
        caller.left.set()
    assert (early["phase"], early["node_id"], early["model"], early["tags"]) == ("prefill", "a", M, ["ci"])
    assert (early["age_s"], early["completion_tokens"]) == (pytest.approx(4, abs=0.9), 0)
    assert (late["phase"], late["completion_tokens"], late["age_s"]) == ("decode", 2, pytest.approx(12, abs=0.9))
    assert late["predicted_end"] is None or late["predicted_end"] >= late["received_at"]


async def test_a_model_that_is_not_in_memory_is_being_loaded_until_the_node_reports_it():
    """A cold load explains a minute of silence, and no other phase does."""
    plane = Plane(beats=[node("a", loaded=())], a=[[30.0, *HELLO]])
    async with plane.asking() as caller:
        await asyncio.sleep(1)
        phases = [seen(plane, loaded)[0]["phase"] for loaded in (False, True)]
        caller.left.set()
    assert phases == ["loading", "prefill"]


async def test_an_answer_that_does_not_stream_is_being_worked_on():
    """Nothing tells its prefill from its decode, so nothing pretends to."""
    plane = Plane(a=[[30.0, *HELLO]])
    async with plane.asking(chat(stream=False)) as caller:
        await asyncio.sleep(1)
        (told,) = seen(plane)
        caller.left.set()
    assert (told["phase"], told["stream"], told["completion_tokens"]) == ("working", False, None)


async def test_a_request_without_a_slot_is_queued_at_no_node():
    """Its wait is counted, so that one can see who waits longest."""
    plane = Plane(beats=[node("a", slots=1)], a=[[30.0, *HELLO]])
    async with plane.asking() as first, plane.asking() as second:
        await asyncio.sleep(3)
        found = seen(plane)
        first.left.set()
        second.left.set()
    assert sorted((each["phase"], each["node_id"]) for each in found) == [("prefill", "a"), ("queued", None)]
    assert next(each["queued_s"] for each in found if each["phase"] == "queued") == pytest.approx(3, abs=0.9)


async def test_a_request_whose_body_still_comes_is_seen():
    """A slow upload holds a connection and no slot."""
    plane, caller = Plane(a=[HELLO]), Caller(b"", parts=[b'{"model":'])
    caller.parts.append(caller.left)
    async with plane.asking(caller):
        await asyncio.sleep(2)
        (told,) = seen(plane)
        caller.left.set()
    assert (told["phase"], told["model"], told["node_id"]) == ("receiving", None, None)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cancelled_request_ends_with_an_error_that_says_so_and_blames_no_node(stream):
    """An operator who stops a runaway answer frees the slot at once."""
    plane = Plane(a=[[30.0, *HELLO]])
    async with plane.asking(chat(headers={"x-request-id": "runaway"}, stream=stream)) as caller:
        await asyncio.sleep(1)
        assert plane.serving.flights.cancel("runaway")
    (finished,) = plane.finished
    assert (finished.status, finished.error_type, finished.http_status) == (Status.FAILED, "cancelled", 503)
    assert (caller.status, caller.headers["x-should-retry"]) == (503, "false")
    assert "operator cancelled" in caller.error["error"]
    assert (plane.cell.slots.in_flight(), plane.upstream.open, plane.judged("a")) == ({}, 0, ())
    assert len(plane.upstream.calls) == 1, "it is not tried on another node"


async def test_a_stream_that_is_cancelled_breaks_off_and_a_queued_request_never_starts():
    """Both are ended wherever they wait."""
    plane = Plane(beats=[node("a", slots=1)], a=[[said("Hel"), 30.0, DONE]])
    async with plane.asking(chat(headers={"x-request-id": "one"})), plane.asking(chat(headers={"x-request-id": "two"})):
        await asyncio.sleep(1)
        assert plane.serving.flights.cancel("two")
        assert plane.serving.flights.cancel("one")
    assert {(each.request_id, each.status, each.error_type) for each in plane.finished} == {
        ("one", Status.INCOMPLETE, "cancelled"), ("two", Status.FAILED, "cancelled")}  # fmt: skip
    assert len(plane.upstream.calls) == 1


async def test_what_is_not_in_flight_cannot_be_cancelled():
    """It may have ended while the operator read its line."""
    assert not Plane(a=[]).serving.flights.cancel("gone")

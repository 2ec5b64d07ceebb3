"""`GET /dashboard/events`: what listeners hear, and that none of them can hold up the router."""

import json
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from herd.core.events import FindingChanged, FleetChanged, NodeSampled
from herd.core.finding import Episode, Finding, Severity
from herd.sim import SimConfig
from herd.telemetry.feed import Feed, Listener
from tests.e2e.conftest import started
from tests.harness import until


@pytest.fixture(scope="module")
def heard_fleet(tmp_path_factory):
    """A router with one node."""
    running = started(tmp_path_factory.mktemp("heard"), SimConfig("one"))
    yield running
    running.nodes.stop()
    running.router.stop()


@contextmanager
def listening(url):
    """The events of a stream, one by one, as (kind, data)."""
    with httpx.stream("GET", f"{url}/dashboard/events", timeout=20) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events_in(answer)


def events_in(answer):
    kind = None
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


def first(events, wanted):
    """The first event of a kind."""
    return next(data for kind, data in events if kind == wanted)


def ask(fleet, request_id):
    body = {"model": "llama3.2:3b", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    headers = {"X-Request-Id": request_id, "X-Herd-Tags": "prod"}
    return httpx.post(f"{fleet.url}/api/chat", json=body, headers=headers, timeout=20)


def changed(number=0):
    return FleetChanged(float(number), "model_loaded", "one", "m:latest", {"number": number})


def test_a_request_that_ends_is_told_with_its_outcome(heard_fleet):
    """The page shows it without asking for it."""
    with listening(heard_fleet.url) as events:
        assert first(events, "hello")["version"]
        ask(heard_fleet, "heard-1")
        told = first(events, "request")
    assert told["request_id"] == "heard-1"
    assert (told["status"], told["node_id"], told["tags"]) == ("completed", "one", ["prod"])
    assert told["latency_ms"] > 0


def test_a_change_of_the_fleet_is_told(heard_fleet):
    """A node that is drained by somebody else must not look as it did."""
    with listening(heard_fleet.url) as events:
        first(events, "hello")
        httpx.post(f"{heard_fleet.url}/fleet/nodes/one/drain")
        try:
            told = first(events, "fleet")
        finally:
            httpx.post(f"{heard_fleet.url}/fleet/nodes/one/drain?draining=false")
    assert (told["kind"], told["node_id"]) == ("drain_changed", "one")


def test_a_listener_beyond_the_limit_is_told_to_ask_later_and_one_that_leaves_makes_room(heard_fleet):
    """A page that is left open on every screen of an office must not cost the router its sockets."""
    with ExitStack() as stack:
        streams = [stack.enter_context(listening(heard_fleet.url)) for _ in range(31)]
        with listening(heard_fleet.url) as last:
            for events in [*streams, last]:
                first(events, "hello")
            refused = httpx.get(f"{heard_fleet.url}/dashboard/events")
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0

        def takes_another():
            with httpx.stream("GET", f"{heard_fleet.url}/dashboard/events") as answer:
                return answer.status_code == 200

        until(takes_another, "there is room again")


def test_the_router_stops_although_somebody_listens(tmp_path):
    """A page left open must not delay a restart, and its stream ends in order."""
    fleet = started(tmp_path / "stopping")
    with listening(fleet.url) as events:
        first(events, "hello")
        code = fleet.router.stop()
        assert {event["kind"] for _, event in events} <= {"router_stopping"}  # to its end, without a broken connection
    fleet.nodes.stop()
    assert code == 0


def test_a_slow_listener_gets_the_newest_and_the_number_of_those_it_missed():
    """Whoever reads too slowly must neither fill the memory nor believe that it saw everything."""
    listener = Listener(capacity=3)
    for number in range(5):
        listener.offer(f"event: x\ndata: {number}\n\n".encode())
    frames = listener.taken().decode().split("\n\n")[:-1]
    assert frames[0] == 'event: dropped\ndata: {"count":2}'
    assert [frame[-1] for frame in frames[1:]] == ["2", "3", "4"]
    assert listener.taken() == b""


def test_nothing_is_made_for_nobody_and_what_no_page_wants_is_not_told():
    """Thousands of requests a second must cost nothing here while no page is open."""
    feed = Feed()
    feed.take(changed())
    listener = feed.join()
    assert listener
    assert listener.taken() == b""
    feed.take(NodeSampled(1.0, "one", "online", 0.1, 1, 2, "normal", (), 0, 4))
    assert listener.taken() == b""
    feed.take(changed(7))
    assert b'"number":7' in listener.taken()


def test_a_finding_is_told_when_it_begins_and_not_each_time_it_is_seen_again():
    """The page reads the findings anew when there is something new to read."""
    feed = Feed()
    listener = feed.join()
    found = Finding("node_offline", Severity.CRITICAL, "one is offline", "", "", node_id="one")
    for change in ("opened", "seen"):
        feed.take(FindingChanged(1.0, change, Episode("e1", found, 1.0, 1.0)))
    frames = listener.taken().decode()
    assert frames.count("event: finding") == 1
    assert '"change":"opened","check_id":"node_offline","severity":"critical"' in frames


def test_a_listener_that_left_gets_nothing_more_and_its_place_is_free():
    """Closed tabs must not pile up."""
    feed = Feed(limit=1)
    listener = feed.join()
    assert feed.join() is None
    feed.leave(listener)
    feed.take(changed())
    assert listener.taken() == b""
    assert feed.join() is not None


def test_no_text_of_an_event_can_end_its_frame():
    """A model's name with line ends in it would otherwise forge events."""
    feed = Feed()
    listener = feed.join()
    feed.take(FleetChanged(1.0, "model_loaded", "one", "a\n\nevent: fleet\ndata: {}\u2028\r", {}))
    assert listener.taken().count(b"\n") == 3

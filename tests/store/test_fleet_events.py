"""What happened to the fleet, as readers ask for it."""

import pytest

from herd.core.events import FleetChanged
from herd.store.fleet_events import EventFilter
from tests.store.builders import NOON


@pytest.fixture
def happened(keep):
    """A router that started, a node that joined and was lost, and a fallback of one request."""
    keep(
        FleetChanged(NOON, "router_started", data={"version": "1.0"}),
        FleetChanged(NOON + 10, "node_joined", "ada"),
        FleetChanged(NOON + 15, "pull_progress", "ada", "m:1b", {"completed": 5}),
        FleetChanged(NOON + 20, "node_lost", "ada"),
    )


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ({}, ["node_lost", "node_joined", "router_started"]),
        ({"kinds": ["pull_progress"]}, ["pull_progress"]),
        ({"kinds": ["router_started", "node_lost"]}, ["node_lost", "router_started"]),
        ({"since": NOON + 10}, ["node_lost", "node_joined"]),
        ({"until": NOON + 10}, ["router_started"]),
        ({"node_id": "ada"}, ["node_lost", "node_joined"]),
        ({"node_id": "bob"}, []),
    ],
)
def test_events_come_the_latest_first_without_those_that_come_with_single_requests(happened, reader, which, expected):
    """A list with an event for each step of a download tells nothing of the night."""
    assert [event["kind"] for event in reader.events(EventFilter(**which))] == expected


def test_an_event_has_what_belongs_to_it_and_a_limit_keeps_the_latest(happened, reader):
    """The version of a router that started is half of the story of an upgrade."""
    assert reader.events(EventFilter(), limit=1)[0]["kind"] == "node_lost"
    assert reader.events(EventFilter())[-1]["data"] == {"version": "1.0"}

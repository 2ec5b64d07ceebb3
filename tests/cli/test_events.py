"""`herd events`: what happened, from a router or from the database that it left."""

import json

from tests.harness import Router, free_port


def test_events_tell_of_the_routers_start_and_of_each_node(served, inside):
    """After a night, the first question is what changed."""
    told = inside("events", "--url", served.url, "--limit", "1000")
    assert told.returncode == 0
    assert any("router started" in line and "version" in line for line in told.stdout.splitlines())
    assert {line.split()[4] for line in told.stdout.splitlines() if "node joined" in line} == {"big", "small"}


def test_events_are_filtered_alike_by_a_router_and_by_its_database(served, inside):
    """The same filters must mean the same."""
    filters = ("--json", "--kind", "router_started", "--kind", "node_joined", "--node", "big")
    by_router = json.loads(inside("events", "--url", served.url, *filters).stdout)
    by_file = json.loads(inside("events", "--data-dir", str(served.router.data_dir), *filters).stdout)
    assert [event["kind"] for event in by_router["events"]] == ["node_joined"]
    assert by_file == by_router
    assert inside("events", "--url", served.url, "--since", "2099-01-01").stdout == "No matching events.\n"


def test_a_stop_leaves_its_signal_and_what_was_in_flight(tmp_path, inside):
    """Somebody restarted the router at night; the record says how."""
    router = Router(tmp_path / "home", free_port())
    router.start()
    router.stop()
    told = json.loads(inside("events", "--json", "--data-dir", str(router.data_dir)).stdout)["events"]
    assert [event["kind"] for event in told] == ["router_stopping", "router_started"]
    assert told[0]["data"] == {"version": told[1]["data"]["version"], "signal": "SIGTERM", "in_flight": 0}

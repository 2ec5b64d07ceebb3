"""The file that tells Prometheus where the agents' metrics are, as a running router keeps it."""

import json
import time

import httpx

from herd import wire
from tests.harness import until

BEAT = wire.Heartbeat(
    node_id="box",
    sent_at=0,
    cpu=wire.Cpu(cores=1),
    memory=wire.Memory(total_bytes=1, used_bytes=0, available_bytes=1),
    engine=wire.Engine(kind="ollama", url="http://127.0.0.1:1", reachable=True, endpoints=[]),
)


def beat(router, node_id, address=None, leaving=False):
    """A node's word."""
    fields = {"node_id": node_id, "sent_at": time.time(), "metrics_address": address, "leaving": leaving}
    body = BEAT.model_copy(update=fields).model_dump_json(exclude_none=True)  # without an address as older agents are
    assert router.beat(body).status_code == 200


def file(router):
    """Where it is."""
    return router.data_dir / "prometheus" / "agents.json"


def targets(router):
    """Its content, by node."""
    if not file(router).exists():
        return None
    return {group["labels"]["node"]: group["targets"] for group in json.loads(file(router).read_text())}


def becomes(router, wanted):
    """Wait until the file says so."""
    until(lambda: targets(router) == wanted, f"{wanted}")


def looked(router):
    """Wait until the router has looked for changes again: its own clock, a timer of 10 ms, counts two seconds."""
    ticks = router.metric("herd_event_loop_lag_seconds_count")
    until(lambda: router.metric("herd_event_loop_lag_seconds_count") > ticks + 200, "two seconds of the router's time")


def test_agents_that_say_where_their_metrics_are_stand_in_the_file(router):
    """Nobody edits Prometheus's configuration for a new machine; one that has nothing to scrape would be an alert."""
    becomes(router, {})  # it is there before any agent is, since Prometheus watches the folder
    beat(router, "box", "10.0.0.5:11436")
    beat(router, "six", "[fd00::5]:11436")
    beat(router, "older")
    becomes(router, {"box": ["10.0.0.5:11436"], "six": ["[fd00::5]:11436"]})
    beat(router, "box", "10.0.0.9:11436")
    beat(router, "six")
    becomes(router, {"box": ["10.0.0.9:11436"]})


def test_a_node_that_left_goes_and_one_that_is_lost_stays_also_over_a_restart(tmp_path, router):
    """What was switched off is not missed; what fell silent has to be seen to be down."""
    beat(router, "lost", "10.0.0.5:11436")
    beat(router, "left", "10.0.0.6:11436")
    becomes(router, {"lost": ["10.0.0.5:11436"], "left": ["10.0.0.6:11436"]})
    beat(router, "left", "10.0.0.6:11436", leaving=True)
    becomes(router, {"lost": ["10.0.0.5:11436"]})
    router.stop()
    file(router).unlink()
    router.start()
    becomes(router, {"lost": ["10.0.0.5:11436"]})
    assert httpx.delete(f"{router.url}/fleet/nodes/lost").status_code == 200
    becomes(router, {})


def test_the_file_is_written_when_something_changes_and_only_then(router):
    """Prometheus reads it anew each time, and so does every backup."""
    beat(router, "box", "10.0.0.5:11436")
    becomes(router, {"box": ["10.0.0.5:11436"]})
    before = file(router).stat()
    beat(router, "box", "10.0.0.5:11436")
    looked(router)
    assert (file(router).stat().st_ino, file(router).stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_that_cannot_be_written_is_a_line_in_the_log_and_nothing_else(router):
    """A full disk must not cost a node its place in the fleet."""
    becomes(router, {})
    file(router).with_suffix(".new").mkdir()  # nobody, not even root, writes a text there
    beat(router, "box", "10.0.0.5:11436")
    told = "Prometheus cannot be told where the agents' metrics are"
    until(lambda: [line for line in router.lines(None) if line["event"].startswith(told)], "a line")
    looked(router)
    assert router.online() == 1
    assert targets(router) == {}
    file(router).with_suffix(".new").rmdir()
    becomes(router, {"box": ["10.0.0.5:11436"]})
    assert len([line for line in router.lines(None) if line["event"].startswith(told)]) == 1


def test_an_address_that_is_none_is_refused_by_name(router):
    """What stands in the file is asked by Prometheus as it is."""
    for address in ("box", "http://box:1", "user@box:1", "box:1/x", "b ox:1", "box:123456"):
        answer = router.beat(json.dumps(BEAT.model_dump() | {"metrics_address": address}))
        assert (answer.status_code, answer.json()["fields"][0]["field"]) == (422, "metrics_address"), address

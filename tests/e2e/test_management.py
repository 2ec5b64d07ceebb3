"""`/api/pull` and `/api/delete` through the router: to the node that is named or to the best one, told as they go."""

import json
import sqlite3
from contextlib import closing

import httpx
import pytest

from herd.sim import Fault, FaultKind, SimConfig, SimModel
from tests.e2e.conftest import started
from tests.e2e.traffic import asking
from tests.harness import until

PULL, DELETE = "/api/pull", "/api/delete"
BOTH = SimModel("both:1b", size_gb=1.0)
SLOW = SimModel("slow:1b", size_gb=1.0)
MACHINES = (
    SimConfig("roomy", memory_gb=64, models=(BOTH,), pull_bytes_per_s=1e11),
    SimConfig("small", memory_gb=16, models=(BOTH,), library=(SLOW,), pull_bytes_per_s=4e8),
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A node with much room and one with little."""
    running = started(tmp_path_factory.mktemp("managed"), *MACHINES)
    yield running
    running.nodes.stop()
    running.router.stop()


def ask(fleet, method, path, **body):
    return httpx.request(method, fleet.url + path, json=body, timeout=20)


def held(fleet, model):
    """Which nodes hold a model, as the router lists it."""
    listed = fleet.router.get("/api/tags")["models"]
    return next((entry["nodes"] for entry in listed if entry["name"] == model), [])


def give(fleet, model, *node_ids):
    """Have nodes hold a model."""
    for node_id in node_ids:
        assert ask(fleet, "POST", f"{PULL}?node_id={node_id}", model=model, stream=False).status_code == 200
    assert sorted(held(fleet, model)) == sorted(node_ids)


def test_a_pull_goes_to_the_node_that_is_named_though_another_has_more_room(pair):
    """The operator knows which machine is for what."""
    answer = ask(pair, "POST", f"{PULL}?node_id=small", model="named:1b", stream=False)
    assert (answer.status_code, answer.headers["x-herd-node"]) == (200, "small")
    assert answer.json() == {"status": "success"}
    assert held(pair, "named:1b") == ["small"], "it can be asked for at once"


def test_a_pull_without_a_name_goes_to_the_node_with_the_best_room(pair):
    """The operator need not look."""
    answer = ask(pair, "POST", PULL, model="unnamed:1b")
    assert answer.headers["x-herd-node"] == "roomy"
    assert json.loads(answer.content.splitlines()[-1]) == {"status": "success"}
    assert held(pair, "unnamed:1b") == ["roomy"]


def test_the_progress_of_a_pull_comes_while_it_is_made_and_byte_for_byte(pair):
    """`ollama pull` draws its bar from it."""
    node = pair.nodes.nodes["small"]
    with httpx.stream("POST", f"{pair.url}{PULL}?node_id=small", json={"model": "slow:1b"}, timeout=20) as answer:
        lines = answer.iter_lines()
        first = [json.loads(next(lines)) for _ in range(3)]
        assert "slow:1b" not in node.state()["models"], "it is not there yet"
        rest = [json.loads(line) for line in lines]
    assert first[0] == {"status": "pulling manifest"}
    assert [line["completed"] for line in [*first, *rest] if "completed" in line] == [
        *(10**9 * step // 16 for step in range(1, 16)), 10**9,
    ]  # fmt: skip
    assert rest[-1] == {"status": "success"}


def test_a_client_that_leaves_a_pull_ends_it_at_the_node(pair):
    """As with Ollama itself: Ctrl-C stops the download."""
    node = pair.nodes.nodes["roomy"]
    pair.nodes.script("roomy", Fault(FaultKind.HANG_BEFORE_HEADERS, path=PULL))
    with asking(pair.router.port, PULL, model="left:1b"):
        until(lambda: node.state()["in_flight"].get(PULL), "the node has it")
    until(lambda: node.state()["aborted"].get(PULL), "the node stopped")
    pair.nodes.clear()
    assert held(pair, "left:1b") == []


def test_a_pull_whose_node_breaks_off_ends_with_an_error_as_its_last_line(pair):
    """Progress that just stops looks like a slow network."""
    pair.nodes.script("small", Fault(FaultKind.CUT, after=300, path=PULL))
    answer = httpx.post(f"{pair.url}{PULL}?node_id=small", json={"model": "cut:1b"}, timeout=20)
    assert answer.status_code == 200
    assert json.loads(answer.content.splitlines()[-1])["error"]


def test_what_the_node_says_of_a_model_that_there_is_not_is_handed_on(pair):
    """Clients know Ollama's words."""
    direct = httpx.post(pair.nodes.nodes["roomy"].url + PULL, json={"model": "nonexistent:1b", "stream": False})
    routed = ask(pair, "POST", PULL, model="nonexistent:1b", stream=False)
    assert (routed.status_code, routed.content) == (direct.status_code, direct.content)
    assert "file does not exist" in routed.text


def test_a_model_is_deleted_from_the_node_that_is_named_and_from_no_other(pair):
    """Room is made on one machine; the model is still served by the others."""
    give(pair, "shared:1b", "roomy", "small")
    answer = ask(pair, "DELETE", f"{DELETE}?node_id=roomy", model="shared:1b")
    assert (answer.status_code, answer.headers["x-herd-node"], answer.content) == (200, "roomy", b"")
    assert held(pair, "shared:1b") == ["small"]


def test_a_deletion_without_a_name_reaches_every_node_that_has_the_model_and_no_other(pair):
    """What was deleted from the fleet must not answer from its other half."""
    give(pair, "gone:1b", "small")
    answer = ask(pair, "DELETE", DELETE, name="gone:1b")
    assert (answer.status_code, answer.headers["x-herd-node"]) == (200, "small")
    give(pair, "gone:1b", "small", "roomy")
    answer = ask(pair, "DELETE", DELETE, name="gone:1b")
    assert (answer.status_code, sorted(answer.headers["x-herd-node"].split(", "))) == (200, ["roomy", "small"])
    assert held(pair, "gone:1b") == []


@pytest.mark.parametrize("path", [DELETE, f"{DELETE}?node_id=roomy"])
def test_a_model_that_is_not_there_cannot_be_deleted(pair, path):
    """The words are Ollama's, whoever says them."""
    answer = ask(pair, "DELETE", path, model="never:1b")
    assert (answer.status_code, answer.json()) == (404, {"error": "model 'never:1b' not found"})


@pytest.mark.parametrize(("method", "path"), [("POST", PULL), ("DELETE", DELETE)])
def test_a_node_that_there_is_not_is_said_to_be_unknown_and_nothing_happens(pair, method, path):
    """A mistyped name must not pull to, or delete from, another machine."""
    answer = ask(pair, method, f"{path}?node_id=smal", model="both:1b")
    assert answer.status_code == 400
    assert answer.json() == {"error": "no node 'smal' in the fleet; `herd status` lists all nodes"}
    assert sorted(held(pair, "both:1b")) == ["roomy", "small"]


def test_each_is_in_the_log_and_in_the_store_with_its_node_and_its_model(pair):
    """Whoever misses a model can see where it went."""
    give(pair, "told:1b", "small")
    ask(pair, "DELETE", DELETE, model="told:1b")
    both = [(PULL, "small", 200), (DELETE, "small", 200)]

    def logged():
        lines = pair.router.lines("management_request")
        return [
            (line["endpoint"], line["node_id"], line["http_status"]) for line in lines if line["model"] == "told:1b"
        ]

    def stored():
        with closing(sqlite3.connect(f"file:{pair.router.database}?mode=ro", uri=True)) as database:
            return database.execute(
                """SELECT data ->> 'endpoint', node_id, data ->> 'http_status' FROM fleet_events
                   WHERE kind = 'managed' AND model = 'told:1b' ORDER BY id"""
            ).fetchall()

    until(lambda: logged() == stored() == both, "both tell of both")


def test_a_named_node_that_is_away_is_no_reason_to_take_another(lonely):
    """The operator meant that one."""
    lonely.join(*MACHINES)
    lonely.nodes.call(lonely.nodes.nodes["small"].stop())
    until(lambda: lonely.router.online() == 1, "it has left")
    answer = ask(lonely, "POST", f"{PULL}?node_id=small", model="other:1b")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert "node small is offline" in answer.json()["error"]
    assert held(lonely, "other:1b") == []

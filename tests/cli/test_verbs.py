"""The verbs of an operator, each against a running router."""

import json
import threading

import httpx
import pytest

from herd.cli import suggesting
from herd.commands.act import progress, typed
from herd.sim import Fault, FaultKind, SimConfig
from tests.cli.conftest import HELLO, LLAMA
from tests.harness import Nodes, Router, free_port, until


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A router with one node, for every verb of this module."""
    router = Router(tmp_path_factory.mktemp("small"), free_port())
    router.start()
    nodes = Nodes()
    nodes.start(SimConfig("ada", models=(LLAMA,), preload=("llama3.2:3b",), router_url=router.url, interval_s=0.5))
    until(lambda: router.online() == 1, "the node is online")
    yield router, nodes
    nodes.stop()
    router.stop()


@pytest.fixture
def say(small, inside):
    """A command at that router: its status, and what it printed."""

    def told(*arguments):
        done = inside(*arguments, "--url", small[0].url)
        return done.returncode, done.stdout + done.stderr

    return told


def node(small):
    return small[0].get("/fleet/status")["nodes"][0]


def test_a_node_is_drained_and_takes_requests_again(small, say):
    """What one does before and after an upgrade."""
    assert say("drain", "ada") == (0, "Node ada is draining: it gets no new requests.\n")
    assert node(small)["draining"]
    assert say("undrain", "ada") == (0, "Node ada accepts requests again.\n")
    assert not node(small)["draining"]
    code, text = say("drain", "nope")
    assert (code, "nope" in text) == (1, True)


def test_a_node_that_is_there_cannot_be_forgotten(say):
    """The router would hear of it again within seconds."""
    code, text = say("forget", "ada")
    assert (code, "ada" in text) == (1, True)


def test_a_setting_is_changed_and_a_wrong_one_is_refused(small, say):
    """The same rules as on the page."""
    assert say("set", "retries", "1") == (0, "retries changed from 2 to 1.\n")
    assert say("set", "retries", "1") == (0, "retries is unchanged.\n")
    for wrong in (("retries", "many"), ("retires", "1")):
        assert say("set", *wrong)[0] == 1
    rows = {row["name"]: row["value"] for row in small[0].get("/dashboard/api/settings")["settings"]}
    assert rows["retries"] == 1


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("on", "boolean", True), ("No", "boolean", False), ("7", "integer", 7), ("0.5", "number", 0.5),
     ("7", "string", "7"), ("seven", "integer", "seven")],
)  # fmt: skip
def test_a_settings_value_is_read_by_its_type(text, kind, value):
    """What is no number is sent as it is, so that the router says what is wrong with it."""
    assert typed(text, kind) == value


def test_a_model_is_pulled_to_a_node_and_deleted_there(small, say):
    """Progress on the way, and the fleet knows it afterwards."""
    code, text = say("pull", "qwen3:0.6b", "--node", "ada")
    assert (code, text.splitlines()[-1]) == (0, "qwen3:0.6b is pulled."), text
    until(lambda: "qwen3:0.6b" in node(small)["ollama"]["models_available"], "the fleet knows the model")
    assert say("rm", "qwen3:0.6b", "--node", "ada") == (0, "qwen3:0.6b is deleted from ada.\n")
    until(lambda: "qwen3:0.6b" not in node(small)["ollama"]["models_available"], "the fleet knows that it is gone")
    code, text = say("rm", "qwen3:0.6b", "--node", "ada")
    assert (code, "was not deleted" in text) == (1, True)


def test_progress_is_told_in_tenths():
    """A line for every megabyte would scroll the terminal away."""
    assert progress({"status": "pulling", "total": 1000, "completed": 459}) == "pulling: 40%"
    assert progress({"status": "verifying"}) == "verifying"


def test_reports_print_who_used_what(small, say):
    """The page's tables, for a terminal."""
    assert say("apps")[1] == "No requests in the last 7 days.\n"
    body = {"model": "llama3.2:3b", "messages": HELLO, "stream": False, "metadata": {"tags": ["ci"]}}
    httpx.post(f"{small[0].url}/api/chat", json=body, timeout=20).raise_for_status()
    until(lambda: small[0].get("/dashboard/api/apps")["data"], "the row is there")
    for command, name in (("apps", "ci"), ("usage", "ada"), ("models", "llama3.2:3b")):
        code, text = say(command, "--days", "1")
        head, row = text.splitlines()
        assert (code, "REQUESTS" in head, name in row.split()) == (0, True, True)


def test_a_request_in_flight_is_listed_and_cancelled(small, say):
    """From the terminal to the client, which is told that somebody ended its request."""
    assert say("top")[1] == "0 requests in flight, 0 of them queued; by age\n"
    small[1].script("ada", Fault(FaultKind.HANG_BEFORE_HEADERS, seconds=60, times=1))
    answers = []
    body = {"model": "llama3.2:3b", "messages": HELLO}
    asking = threading.Thread(target=lambda: answers.append(httpx.post(
        f"{small[0].url}/api/chat", json=body, headers={"x-request-id": "runaway"}, timeout=60)))  # fmt: skip
    asking.start()
    (seen,) = until(lambda: [each for each in flying(say) if each["phase"] == "prefill"], "it is in prefill")
    assert (seen["request_id"], seen["node_id"], seen["model"]) == ("runaway", "ada", "llama3.2:3b")
    assert "runaway" in say("top")[1]
    assert say("cancel", "runaway") == (0, "Request runaway is cancelled.\n")
    asking.join(30)
    assert (answers[0].status_code, "cancelled" in answers[0].json()["error"]) == (503, True)
    code, text = say("cancel", "runaway")
    assert (code, "in flight" in text) == (1, True)
    assert small[0].row("runaway")["error_type"] == "cancelled"


def flying(say):
    return json.loads(say("top", "--json")[1])["requests"]


def test_a_wrong_verb_names_the_right_one(inside):
    """Thirty choices in a line help nobody who mistyped one."""
    told = inside("drian", "ada")
    assert (told.returncode, told.stderr.splitlines()[-1]) == (
        64, "herd: error: no such choice: drian. Did you mean drain?")  # fmt: skip
    assert inside("ps").stderr.splitlines()[-1].endswith("Did you mean top?")


def test_a_word_that_resembles_nothing_lists_the_choices():
    """A wrong guess would be worse than none."""
    message = "argument command: invalid choice: 'xyzzy' (choose from 'drain', 'top')"
    assert suggesting(message) == message
    assert suggesting("the following arguments are required: NODE") == "the following arguments are required: NODE"

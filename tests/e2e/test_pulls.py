"""Auto-pull: a model that no node has comes once, for all who ask for it, or everyone is told why it does not."""

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from herd.sim import Fault, FaultKind, SimConfig, SimModel
from tests.e2e.conftest import started
from tests.e2e.traffic import HELLO, asking
from tests.harness import until

PULL = "/api/pull"
HERE = SimModel("llama3.2:3b")
HUGE = SimModel("huge:400b", size_gb=248.0)
PACE = {"interval_s": 0.5, "pull_bytes_per_s": 2e11}  # a second for the huge one, nothing for the others
MACHINES = (
    SimConfig("roomy", memory_gb=64, models=(HERE,), library=(HUGE,), **PACE),
    SimConfig("small", memory_gb=16, models=(), **PACE),
)
HOLD = Fault(FaultKind.HANG_BEFORE_HEADERS, times=None, path=PULL)  # until the script is cleared


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A node with much room and one with little."""
    running = started(tmp_path_factory.mktemp("pulls"), *MACHINES)
    yield running
    running.nodes.stop()
    running.router.stop()


def change(fleet, **settings):
    httpx.post(f"{fleet.url}/dashboard/api/settings", json=settings).raise_for_status()


def hardware(fleet, **values):
    """Let every node report these sensors, and its disk as it is where None."""

    async def told(node):
        node.hardware.set(**values)
        assert await node.report()

    for node in fleet.nodes.nodes.values():
        fleet.nodes.call(told(node))


@pytest.fixture
def pulling(pair):
    """The fleet with the setting on, well, and as it was before once the test is over."""
    change(pair, auto_pull=True)
    yield pair
    pair.nodes.clear()
    until(lambda: under_way(pair) == [] and not at_nodes(pair), "no pull is under way")
    hardware(pair, disk_free_gb=None)
    change(pair, auto_pull=False, auto_pull_timeout_s=3600)


def chat(fleet, model, request_id=None, path="/api/chat", **body):
    headers = {"X-Request-Id": request_id} if request_id else {}
    document = {"model": model, "messages": HELLO, "stream": False, **body}
    return httpx.post(fleet.url + path, json=document, headers=headers, timeout=30)


def under_way(fleet):
    return fleet.router.get("/fleet/status")["pulls"]


def at_nodes(fleet):
    return sum(node.state()["in_flight"].get(PULL, 0) for node in fleet.nodes.nodes.values())


def asked(fleet):
    """How often the nodes were asked to pull, whatever became of it."""
    tallies = [node.state() for node in fleet.nodes.nodes.values()]
    return sum(tally[kind].get(PULL, 0) for tally in tallies for kind in ("served", "refused", "aborted", "faulted"))


def told(fleet, model):
    """The log lines of a model's pull."""
    lines = fleet.router.lines(None)
    return [line for line in lines if line["event"].startswith("pull_") and line.get("model") == model]


def hold(fleet):
    for node_id in fleet.nodes.nodes:
        fleet.nodes.script(node_id, HOLD)


@contextmanager
def waiting(fleet, *asks):
    """Clients that ask, each in its thread, while the pull is held; gives what they will have got."""
    with ThreadPoolExecutor(len(asks)) as pool:
        try:
            yield [pool.submit(each) for each in asks]
        finally:
            fleet.nodes.clear()


def test_without_the_setting_an_unknown_model_is_unknown(pair):
    """A mistyped name must not fill a disk that nobody offered."""
    before = asked(pair)
    answer = chat(pair, "wanted:1b")
    assert (answer.status_code, answer.json()) == (404, {"error": "model 'wanted:1b' not found"})
    assert (asked(pair), under_way(pair), told(pair, "wanted:1b")) == (before, [], [])


def test_the_setting_counts_as_soon_as_it_is_changed(pulling):
    """Whoever finds a disk filling up does not want to restart anything."""
    assert chat(pulling, "switched:1b").status_code == 200
    change(pulling, auto_pull=False)
    assert chat(pulling, "switched:2b").status_code == 404
    assert chat(pulling, "switched:1b").status_code == 200, "what came stays"


def test_a_model_is_pulled_once_for_all_who_wait_and_all_are_answered(pulling):
    """Eight clients that start together must not cause eight downloads."""
    before, paths = asked(pulling), ["/api/chat", "/v1/chat/completions"]
    hold(pulling)
    asks = [lambda n=n: chat(pulling, "team:2b", f"team-{n}", paths[n % 2], stream=n > 3) for n in range(8)]
    with waiting(pulling, *asks) as answers:
        (pull,) = until(lambda: [each for each in under_way(pulling) if each["waiting"] == 8], "all eight wait")
        assert (pull["model"], pull["node_id"], pull["completed"]) == ("team:2b", "roomy", 0)
    assert {answer.result().status_code for answer in answers} == {200}
    assert {answer.result().headers["x-herd-node"] for answer in answers} == {"roomy"}
    assert asked(pulling) == before + 1
    rows = until(lambda: len(found := pulling.router.rows("request_id LIKE 'team-%'")) == 8 and found, "eight rows")
    assert {(row["status"], row["model"], row["node_id"]) for row in rows} == {("completed", "team:2b", "roomy")}
    assert all(0 < row["queue_ms"] < row["latency_ms"] for row in rows), "the wait is told as a wait"


def test_who_writes_the_name_in_other_letters_waits_for_the_same_pull(pulling):
    """Engines mind no case: the second download would bring what is there already."""
    before = asked(pulling)
    hold(pulling)

    def late():
        until(lambda: under_way(pulling), "the pull is under way")
        return chat(pulling, "Letters:2B")

    with waiting(pulling, lambda: chat(pulling, "letters:2b"), late) as answers:
        until(lambda: [each for each in under_way(pulling) if each["waiting"] == 2], "both wait")
    assert {answer.result().status_code for answer in answers} == {200}
    assert asked(pulling) == before + 1


def test_progress_is_told_in_the_log_and_to_the_page(pulling):
    """An hour's download without a word looks like a hang."""
    with httpx.stream("GET", f"{pulling.url}/dashboard/events", timeout=20) as page:
        lines = page.iter_lines()
        next(lines)
        assert chat(pulling, "news:8b").status_code == 200
        heard = (json.loads(line[6:]) for line in lines if line.startswith("data: "))
        kinds = []
        while "pull_finished" not in kinds:
            frame = next(heard)
            kinds += [frame["kind"]] if frame.get("model") == "news:8b" and frame["kind"].startswith("pull") else []
    logged = until(lambda: (found := told(pulling, "news:8b")) and found[-1]["event"] == "pull_finished" and found,
                   "the log tells its end")  # fmt: skip
    assert [line["event"] for line in logged] == kinds == ["pull_started", *["pull_progress"] * 10, "pull_finished"]
    percents = [line["data"]["percent"] for line in logged[1:-1]]
    assert percents == sorted(set(percents))
    end = logged[-1]
    assert (end["level"], end["node_id"], end["data"]["waiting"]) == ("INFO", "roomy", 1)
    assert end["data"]["completed"] == end["data"]["total"] == 4_960_000_000


def test_a_pull_under_way_is_told_on_the_terminal(pulling):
    """Where an operator looks first when a request takes for ever."""
    hold(pulling)
    with waiting(pulling, lambda: chat(pulling, "shown:1b")):
        until(lambda: [each for each in under_way(pulling) if each["waiting"]], "a client waits")
        command = [sys.executable, "-m", "herd", "status", "--url", pulling.url]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert "Being pulled:\n  shown:1b to roomy: starting, 1 waiting\n" in told


def test_a_model_that_fits_no_memory_is_given_up_and_the_client_is_told_the_figures(pulling):
    """It would come for an hour and then never load."""
    answer = chat(pulling, "huge:400b", "huge-1", "/v1/chat/completions")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "model_missing")
    assert error["message"].startswith("model 'huge:400b' not found, and it cannot be pulled: its 231.0 GiB do not fit")
    assert "the memory of roomy" in error["message"]
    row = pulling.router.row("huge-1")
    assert (row["status"], row["error_type"], row["node_id"]) == ("rejected", "model_missing", None)
    assert row["error_message"] == error["message"]
    until(lambda: not at_nodes(pulling), "the node stopped the download")
    assert "huge:400b" not in pulling.nodes.nodes["roomy"].state()["models"]


def test_a_model_that_fits_no_disk_is_given_up(pulling):
    """A full disk takes down more than this request."""
    hardware(pulling, disk_free_gb=9)
    answer = chat(pulling, "wide:13b")
    assert answer.status_code == 404
    assert "do not fit the disk of roomy, which has 9.0 GiB free, of which 5.0 GiB are spoken for" in answer.text


def test_where_no_node_may_take_anything_none_is_asked_and_each_has_its_reason(pulling):
    """An operator must see at once which of the machines to make room on."""
    hardware(pulling, disk_free_gb=4)
    before = asked(pulling)
    answer = chat(pulling, "full:1b", "full-1")
    assert answer.json()["error"] == (
        "model 'full:1b' not found, and it cannot be pulled: no node has room for it (roomy: its disk has less than "
        "5.0 GiB free; small: its disk has less than 5.0 GiB free)"
    )
    assert (asked(pulling), pulling.router.row("full-1")["status"]) == (before, "rejected")


def test_a_model_that_the_library_does_not_have_is_asked_for_once(pulling):
    """Clients try a wrong name again and again; the library must not hear of it each time."""
    before = asked(pulling)
    answers = [chat(pulling, "nonexistent:1b", f"wrong-{turn}") for turn in range(3)]
    assert {answer.status_code for answer in answers} == {404}
    (text,) = {answer.json()["error"] for answer in answers}
    assert "cannot be pulled: pull model manifest: file does not exist" in text
    assert asked(pulling) == before + 1
    assert pulling.router.row("wrong-2")["status"] == "rejected"
    lines = until(lambda: len(found := told(pulling, "nonexistent:1b")) > 1 and found, "the log tells of both")
    assert [(line["event"], line["level"]) for line in lines] == [("pull_started", "INFO"), ("pull_failed", "WARNING")]


def test_a_pull_that_breaks_off_is_begun_again_by_the_next_request(pulling):
    """A node that was restarted in the middle is no reason to refuse the model."""
    pulling.nodes.script("roomy", Fault(FaultKind.CUT, path=PULL))
    answer = chat(pulling, "broken:1b")
    assert answer.status_code == 404
    assert "cannot be pulled: the node's answer broke off" in answer.json()["error"]
    assert chat(pulling, "broken:1b").status_code == 200


def test_a_client_that_leaves_while_it_waits_does_not_end_the_pull(pulling):
    """The next one asks in a minute, and then it should be there."""
    before = asked(pulling)
    hold(pulling)
    with asking(pulling.router.port, "/api/chat", "left-1", model="left:1b", messages=HELLO):
        until(lambda: [each for each in under_way(pulling) if each["waiting"]], "it waits")
    row = pulling.router.row("left-1")
    assert (row["status"], row["http_status"], row["node_id"]) == ("client_disconnected", 499, None)
    assert row["queue_ms"] > 0
    (pull,) = until(lambda: [each for each in under_way(pulling) if not each["waiting"]], "nobody waits any more")
    assert pull["model"] == "left:1b"
    pulling.nodes.clear()
    until(lambda: under_way(pulling) == [], "the pull ended")
    assert chat(pulling, "left:1b").status_code == 200
    assert asked(pulling) == before + 1


def test_a_pull_that_takes_too_long_is_given_up_with_the_settings_name(pulling):
    """Whoever reads it knows what to change."""
    change(pulling, auto_pull_timeout_s=0.3)
    hold(pulling)
    answer = chat(pulling, "late:1b")
    assert answer.status_code == 404
    assert "it took longer than 0.3 s (setting auto_pull_timeout_s)" in answer.json()["error"]


def test_no_more_than_four_models_are_pulled_at_once(pulling):
    """Each is gigabytes, begun by whoever writes a name."""
    hold(pulling)
    asks = [lambda n=n: chat(pulling, f"many:{n}b") for n in range(1, 5)]
    with waiting(pulling, *asks) as answers:
        until(lambda: len(under_way(pulling)) == 4, "four pulls are under way")
        fifth = chat(pulling, "many:5b", "many-5")
        assert (fifth.status_code, fifth.headers["retry-after"]) == (429, "60")
        assert pulling.router.row("many-5")["error_type"] == "queue_full"
    assert {answer.result().status_code for answer in answers} == {200}


def test_a_request_that_another_model_may_answer_does_not_wait_for_a_pull(pulling):
    """The client has said what it takes instead, and that is here."""
    before = asked(pulling)
    answer = chat(pulling, "absent:1b", fallback_models=["llama3.2:3b"])
    assert (answer.status_code, answer.headers["x-herd-model"]) == (200, "llama3.2:3b")
    assert asked(pulling) == before


@pytest.mark.parametrize("model", ["evil.example/some/model:1b", "../../etc/passwd", "/models/llama.gguf"])
def test_a_client_cannot_make_a_node_fetch_from_elsewhere(pulling, model):
    """The setting offers Ollama's library, not the internet."""
    before = asked(pulling)
    assert chat(pulling, model).status_code == 404
    assert asked(pulling) == before


def test_a_stop_during_a_pull_ends_in_time_and_says_so(tmp_path):
    """A restart must not wait for an hour's download; the engine goes on from there when asked again."""
    environment = {"HERD_AUTO_PULL": "true", "HERD_SHUTDOWN_GRACE_S": "0.5"}
    fleet = started(tmp_path / "stopping", SimConfig("only", models=()), **environment)
    hold(fleet)
    node = fleet.nodes.nodes["only"]
    with waiting(fleet, lambda: chat(fleet, "slow:1b", "stopped-1")) as answers:
        until(lambda: [each for each in under_way(fleet) if each["waiting"]], "a client waits")
        until(lambda: node.state()["in_flight"].get(PULL), "the node was asked")
        fleet.router.process.send_signal(signal.SIGTERM)
        assert fleet.router.process.wait(12) == 0
        answer = answers[0].result()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        until(lambda: node.state()["aborted"].get(PULL) == 1, "the node was told to stop")
    fleet.nodes.stop()
    (row,) = fleet.router.rows()
    assert (row["status"], row["error_type"]) == ("rejected", "no_node")
    assert [(line["event"], line["data"].get("reason")) for line in told(fleet, "slow:1b")] == [
        ("pull_started", None), ("pull_failed", "the router stopped"),
    ]  # fmt: skip

"""Pulls of models that no node has: one for all who wait, its progress, its bounds, and every way in which it fails."""

import asyncio
import json

import pytest

from herd import wire
from herd.core import errors
from herd.core.events import Status
from herd.jobs.pulls import (
    FAILED_FOR_S,
    LINE_LIMIT,
    LISTED_WITHIN_S,
    MOST_AT_ONCE,
    MOST_FAILED,
    RETRY_AFTER_S,
    SILENCE_S,
    Pulls,
)
from tests.dataplane.plane import HELLO, Plane, chat, line, node, until
from tests.dataplane.scripted_upstream import SILENCE, STREAM, Head

GIB, TENTH = 2**30, 2**30 // 10
NEW = "new:8b"
SUCCESS = line(status="success")


def layer(completed, total=100, digest="sha256:a"):
    """A line of progress, in tenths of a GiB."""
    return line(status="pulling", digest=digest, completed=completed * TENTH, total=total * TENTH)


def roomy(node_id="a", free_gib=100, models=(), **changes):
    disk = wire.Disk(total_bytes=1000 * GIB, free_bytes=free_gib * GIB)
    return node(node_id, models=models, loaded=(), disk=disk, **changes)


class Pulling(Plane):
    """A data plane that may pull; a node lists what it pulled `listed_s` after its success."""

    def __init__(self, *beats, with_settings=(), listed_s=1.0, **scripts):
        beats = list(beats) or [roomy()]
        super().__init__(beats=beats, with_settings={"auto_pull": True, **dict(with_settings)}, **scripts)
        self.pulls = Pulls(self.settings, self.cell, self.upstream, self.emit)
        self.serving.supply = self.pulls.supply
        self.listed_s = listed_s
        self.pulled = {}

    def emit(self, event):
        """Keep the event; a pull that is as good as done will be listed."""
        self.events.append(event)
        if event.kind == "pull_started" and self.listed_s is not None:
            self.pulled.setdefault(event.node_id, []).append(event.model)
            asyncio.get_running_loop().call_later(self.listed_s, self.list_again, event.node_id)

    def list_again(self, node_id):
        """A heartbeat that names what was pulled."""
        self.keeper.heard(roomy(node_id, models=tuple(self.pulled[node_id])))

    def told(self):
        """The events of pulls."""
        return [each for each in self.events if getattr(each, "kind", "").startswith("pull_")]

    def asked_to_pull(self):
        """The models that nodes were asked to pull."""
        return [json.loads(call.body)["model"] for call in self.upstream.calls if call.url.endswith("/api/pull")]


def new(model=NEW, **body):
    return chat(model=model, **body)


async def failed(plane, caller=None):
    """The words in which a request is refused whose model does not come."""
    finished, caller = await plane.ask(caller or new())
    assert (finished.status, finished.error_type, caller.status) == (Status.REJECTED, "model_missing", 404)
    words = caller.error["error"]
    assert words.startswith(f"model '{finished.request.model}' not found, and it cannot be pulled: "), words
    return words.partition("pulled: ")[2]


async def closed(plane, *tasks):
    """The router stops; what the drain before it did not end, ends with the pulls."""
    await plane.pulls.close()
    assert (plane.pulls.view(), plane.upstream.open) == ([], 0)
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_pull_that_is_cancelled_before_its_first_step_is_shown_no_more():
    """A router that stops in this very moment told of a pull under way, for ever."""
    plane = Pulling(a=[[STREAM, SUCCESS]])
    pull = plane.pulls._start(NEW)
    pull.task.cancel()
    await asyncio.gather(pull.task, return_exceptions=True)
    assert plane.pulls.view() == []


# A pull that goes well


async def test_a_model_that_no_node_has_comes_and_answers_and_each_step_is_told():
    """One request is enough to bring a model; the page shows how far it is."""
    steps = [2.0, layer(0), 3.0, layer(5), layer(12), layer(19), layer(25), 4.0, layer(100), SUCCESS]
    plane = Pulling(a=[[STREAM, *steps], HELLO], listed_s=9.5)
    finished, caller = await plane.ask(new())
    assert (finished.status, caller.answer, finished.model) == (Status.COMPLETED, b"".join(HELLO), NEW)
    call = plane.upstream.calls[0]
    assert (call.method, call.url, json.loads(call.body)) == (
        "POST", "http://a:11434/api/pull", {"model": NEW, "stream": True},
    )  # fmt: skip
    assert [(each.kind, each.data.get("percent")) for each in plane.told()] == [
        ("pull_started", None), ("pull_progress", 12), ("pull_progress", 25), ("pull_progress", 100),
        ("pull_finished", None),
    ]  # fmt: skip
    last = plane.told()[-1]
    assert (last.node_id, last.model, last.data["completed"], last.data["total"], last.data["waiting"]) == (
        "a", NEW, 100 * TENTH, 100 * TENTH, 1,
    )  # fmt: skip
    assert last.data["seconds"] == pytest.approx(9.5, abs=0.1), "a model is there once its node lists it"
    assert finished.queue_s == pytest.approx(last.data["seconds"], abs=0.1)
    assert plane.pulls.view() == []


async def test_the_bytes_of_all_layers_count_together():
    """Small layers that are done at once are not the whole model."""
    done, open_ = layer(10, 10, "sha256:a"), layer(0, 90, "sha256:b")
    gate = asyncio.Event()
    plane = Pulling(a=[[STREAM, done, open_, gate, SUCCESS], HELLO])
    async with plane.asking(new()):
        await until(lambda: plane.pulls.view() and plane.pulls.view()[0]["total"] == 100 * TENTH)
        assert plane.pulls.view() == [
            {
                "model": NEW,
                "node_id": "a",
                "completed": 10 * TENTH,
                "total": 100 * TENTH,
                "status": "pulling",
                "waiting": 1,
            }
        ]
        gate.set()


async def test_one_pull_serves_all_who_wait_however_they_write_its_name():
    """Eight clients that start together must not cause eight downloads."""
    plane = Pulling(a=[[STREAM, 5.0, SUCCESS], HELLO])
    async with plane.asking(new()), plane.asking(new("NEW:8B")), plane.asking(new()):
        await until(lambda: plane.pulls.view() and plane.pulls.view()[0]["waiting"] == 3)
    assert (plane.asked_to_pull(), {each.status for each in plane.finished}) == ([NEW], {Status.COMPLETED})
    assert {each.model for each in plane.finished} == {NEW}


async def test_who_leaves_ends_its_own_waiting_only():
    """The model comes for the next one; gigabytes are not thrown away with an impatient client."""
    plane = Pulling(a=[[STREAM, 5.0, SUCCESS], HELLO])
    async with plane.asking(new()) as leaver:
        await until(lambda: plane.pulls.view() and plane.pulls.view()[0]["waiting"] == 1)
        leaver.left.set()
    assert [each.status for each in plane.finished] == [Status.CLIENT_DISCONNECTED]
    assert [each["waiting"] for each in plane.pulls.view()] == [0]
    finished, _ = await plane.ask(new())
    assert (finished.status, plane.asked_to_pull()) == (Status.COMPLETED, [NEW])


async def test_a_line_may_come_in_pieces_and_the_last_one_without_its_end():
    """Chunks are not lines."""
    first = layer(50)
    plane = Pulling(a=[[STREAM, first[:9], first[9:] + SUCCESS[:5], SUCCESS[5:-1]], HELLO])
    finished, _ = await plane.ask(new())
    assert finished.status is Status.COMPLETED
    assert [each.data["percent"] for each in plane.told() if each.kind == "pull_progress"] == [50]


# When there is none


@pytest.mark.parametrize(
    ("beats", "changes", "model", "error_type"),
    [
        ([roomy()], {"auto_pull": False}, NEW, "model_missing"),
        ([roomy()], {}, "evil.example/x/new:8b", "model_missing"),
        ([roomy(models=(NEW,), draining=True), roomy("b")], {}, NEW, "no_node"),
        ([roomy(leaving=True)], {}, NEW, "no_node"),
    ],
    ids=["not allowed", "no name of the library's", "there, but not to be had", "no node"],
)
async def test_nothing_is_pulled_where_that_is_not_what_is_missing(beats, changes, model, error_type):
    """A mistyped name must not fill a disk that nobody offered."""
    plane = Pulling(*beats, with_settings=changes, a=[[STREAM, SUCCESS]])
    finished, _ = await plane.ask(new(model))
    assert (finished.status, finished.error_type) == (Status.REJECTED, error_type)
    assert (plane.upstream.calls, plane.told()) == ([], [])


async def test_so_many_models_are_pulled_at_once_and_no_more():
    """Each is a download of gigabytes, started by whoever writes a name."""
    plane = Pulling(a=[[STREAM, SILENCE]])
    waiting = [asyncio.create_task(plane.serve(new(f"m{number}:1b"))) for number in range(MOST_AT_ONCE)]
    await until(lambda: plane.upstream.open == MOST_AT_ONCE)
    caller = new("one-more:1b")
    await plane.serve(caller)
    assert (caller.status, caller.headers["retry-after"]) == (429, str(RETRY_AFTER_S))
    assert caller.error == {"error": f"{MOST_AT_ONCE} other models are already being pulled"}
    assert "one-more:1b" not in plane.asked_to_pull()
    await closed(plane, *waiting)


async def test_no_more_wait_for_a_pull_than_for_a_model():
    """A queue is a queue."""
    plane = Pulling(with_settings={"queue_limit": 1}, a=[[STREAM, 5.0, SUCCESS], HELLO])
    async with plane.asking(new()):
        await until(lambda: plane.pulls.view() and plane.pulls.view()[0]["waiting"] == 1)
        caller = new()
        await plane.serve(caller)
        assert (caller.status, caller.headers["retry-after"]) == (429, str(RETRY_AFTER_S))
        assert caller.error == {"error": f"1 requests already wait for the pull of {NEW}"}
    assert [each.status for each in plane.finished] == [Status.REJECTED, Status.COMPLETED]


async def test_where_no_node_has_room_each_says_why():
    """The client learns in these words what to do about it."""
    plane = Pulling(roomy("a", free_gib=4), roomy("b", draining=True), a=[], b=[])
    words = await failed(plane)
    assert words == "no node has room for it (a: its disk has less than 5.0 GiB free; b: it is draining)"
    assert (plane.told(), plane.upstream.calls) == ([], [])


# A pull that fails


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([STREAM, line(error="pull model manifest: file does not exist")], "pull model manifest: file does not exist"),
        ([STREAM, layer(50)], "the pull ended before the model was complete"),
        ([STREAM, b"<html>\n"], "unexpected pull progress from the node: b'<html>'"),
        ([STREAM, b"[1]\n"], "unexpected pull progress from the node: b'[1]'"),
        ([STREAM, b"x" * (LINE_LIMIT + 1)], "the node's answer is not line-delimited"),
        ([STREAM, layer(0, 5000)], "its 500.0 GiB do not fit the disk of a, which has 100.0 GiB free, "
                                   "of which 5.0 GiB are spoken for"),
    ],
    ids=["no such model", "it ends", "no json", "no object", "no lines", "no room"],
)  # fmt: skip
async def test_a_pull_that_fails_for_good_is_not_tried_again_for_a_minute(script, words):
    """Clients ask again and again, and the answer would be the same."""
    plane = Pulling(a=[script], listed_s=None)
    assert await failed(plane) == words
    assert [(each.kind, each.data.get("reason")) for each in plane.told()][-1] == ("pull_failed", words)
    await asyncio.sleep(FAILED_FOR_S - 1.0)
    assert (await failed(plane), len(plane.asked_to_pull())) == (words, 1)
    await asyncio.sleep(2.0)
    assert (await failed(plane), len(plane.asked_to_pull())) == (words, 2)
    assert plane.pulls.view() == []


@pytest.mark.parametrize(
    ("script", "words", "after_s"),
    [
        ([errors.ConnectFailed("no route")], "no route", 0.0),
        ([Head(500), b"{}"], "the pull ended before the model was complete", None),
        ([SILENCE], "the node sent no content in time", SILENCE_S),
        ([STREAM, SILENCE], "the node sent no content in time", SILENCE_S),
        ([STREAM, 500.0, layer(5), SILENCE], "the node went silent in the middle of its answer", 500.0 + SILENCE_S),
        ([STREAM, *([500.0, layer(5)] * 9)], "it took longer than 3600 s (setting auto_pull_timeout_s)", 3600.0),
    ],
    ids=["unreachable", "a status", "silent", "silent after its head", "silent after progress", "endless"],
)
async def test_what_may_be_better_in_a_moment_is_tried_again_at_once(script, words, after_s):
    """A node that was restarted must not be held against the model."""
    plane, clock = Pulling(a=[script], listed_s=None), asyncio.get_running_loop().time
    began = clock()
    assert await failed(plane) == words
    if after_s is not None:
        assert clock() - began == pytest.approx(after_s, abs=0.1)
        assert (await failed(plane), len(plane.asked_to_pull())) == (words, 2)


async def test_a_model_that_its_node_does_not_list_has_not_come():
    """No node would be chosen for it; the page says what is waited for."""
    plane, loop = Pulling(a=[[STREAM, SUCCESS]], listed_s=None), asyncio.get_running_loop()
    began, seen = loop.time(), []
    loop.call_later(10, lambda: seen.extend(plane.pulls.view()))
    assert await failed(plane) == "a pulled the model but does not list it"
    assert [each["status"] for each in seen] == ["waiting for the node's heartbeat"]
    assert loop.time() - began == pytest.approx(LISTED_WITHIN_S, abs=0.2)


async def test_the_limit_of_a_pull_counts_the_wait_for_its_listing_too():
    """The setting is the longest wait of a client."""
    plane = Pulling(a=[[STREAM, 5.0, SUCCESS]], listed_s=None, with_settings={"auto_pull_timeout_s": 10.0})
    assert await failed(plane) == "it took longer than 10 s (setting auto_pull_timeout_s)"


async def test_what_other_pulls_will_still_write_is_no_room():
    """Two models that fit one by one would fill the disk together."""
    first, gate = [STREAM, layer(50, 300), SILENCE], asyncio.Event()
    second = [STREAM, layer(0, 90), gate, layer(0, 200), SILENCE]
    plane = Pulling(roomy(free_gib=40), a=[first, second], listed_s=None)
    tasks = [asyncio.create_task(plane.serve(new("big:70b")))]
    await until(lambda: plane.pulls.view() and plane.pulls.view()[0]["total"] == 300 * TENTH)
    caller = new()
    tasks.append(asyncio.create_task(plane.serve(caller)))
    await until(lambda: len(plane.pulls.view()) == 2 and plane.pulls.view()[1]["total"] == 90 * TENTH)
    gate.set()
    await tasks[1]
    assert "of which 30.0 GiB are spoken for" in caller.error["error"], (
        "5 that stay free, and 25 that are still to come"
    )
    await closed(plane, *tasks)


async def test_the_room_is_what_the_nodes_last_heartbeat_says():
    """A disk fills up while a model comes, also with what herd does not write."""
    gate = asyncio.Event()
    plane = Pulling(a=[[STREAM, gate, layer(0, 100), SILENCE]], listed_s=None)
    async with plane.asking(new()) as caller:
        await until(lambda: plane.upstream.open == 1)
        plane.keeper.heard(roomy(free_gib=12))
        gate.set()
    assert "do not fit the disk of a, which has 12.0 GiB free" in caller.error["error"]


async def test_a_node_that_is_forgotten_during_its_pull_is_judged_by_what_was_known_of_it():
    """The pull ends as it may; it must not end in a defect."""
    gate = asyncio.Event()
    plane = Pulling(a=[[STREAM, gate, layer(0, 5000), SILENCE]], listed_s=None)
    async with plane.asking(new()) as caller:
        await until(lambda: plane.upstream.open == 1)
        plane.keeper.heard(roomy(leaving=True))
        plane.keeper.forget("a")
        gate.set()
    assert "do not fit the disk of a, which has 100.0 GiB free" in caller.error["error"]


async def test_a_pull_goes_where_others_leave_room():
    """The best room is what is left of it."""
    plane = Pulling(roomy("a", 60), roomy("b", 40), a=[[STREAM, layer(0, 300), SILENCE]], b=[[STREAM, SILENCE]])
    tasks = [asyncio.create_task(plane.serve(new("big:70b")))]
    await until(lambda: plane.pulls.view() and plane.pulls.view()[0]["total"] == 300 * TENTH)
    tasks.append(asyncio.create_task(plane.serve(new())))
    await until(lambda: plane.upstream.open == 2)
    assert [each["node_id"] for each in plane.pulls.view()] == ["a", "b"]
    await closed(plane, *tasks)


async def test_at_the_routers_stop_every_pull_is_ended_and_told():
    """The engine keeps what came; the event says why it is not all."""
    plane = Pulling(a=[[STREAM, SILENCE]])
    task = asyncio.create_task(plane.serve(new()))
    await until(lambda: plane.pulls.view() and plane.upstream.open == 1)
    await closed(plane, task)
    assert [(each.kind, each.data.get("reason")) for each in plane.told()] == [
        ("pull_started", None), ("pull_failed", "the router stopped"),
    ]  # fmt: skip
    assert (plane.pulls.view(), plane.upstream.open) == ([], 0)
    assert [(each.status, each.error_type) for each in plane.finished] == [(Status.REJECTED, "no_node")]


async def test_a_defect_in_a_pull_is_told_as_one_and_leaves_nothing_under_way(caplog):
    """A model that could never be asked for again would be the other way."""
    plane = Pulling(a=[[STREAM, "no step of a script"]])
    finished, _ = await plane.ask(new())
    assert (finished.status, finished.error_type, plane.pulls.view()) == (Status.FAILED, "internal", [])
    assert plane.told()[-1].data["reason"] == "internal error; the log has it"
    assert any(each.exc_info for each in caplog.records)


async def test_so_many_failures_are_remembered_and_no_more():
    """Names are invented by clients, memory is not."""
    plane = Pulling(a=[[STREAM, line(error="no such model")]], listed_s=None)
    for number in range(MOST_FAILED):
        plane.pulls._remember(f"m{number}:1b", "no")
    assert [await failed(plane), len(plane.asked_to_pull())] == ["no such model", 1]
    assert [await failed(plane), len(plane.asked_to_pull())] == ["no such model", 2], "it was one too many"
    await asyncio.sleep(FAILED_FOR_S)
    await failed(plane)
    await failed(plane)
    assert len(plane.asked_to_pull()) == 3, "those of a minute ago made room"

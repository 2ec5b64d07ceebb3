"""Management requests: where they go, how they pass through, and the one event that each of them ends in."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from herd.core import errors
from herd.core.events import Managed
from herd.dataplane.flights import LAST_WORDS_S, STOPPED, STOPPING
from herd.dataplane.manage import LISTING_TIMEOUT_S, Management
from herd.dataplane.request_ids import RequestIds
from herd.dataplane.trace_ids import new_ids
from herd.fleet.cell import Cell
from herd.fleet.keeper import Keeper
from tests.dataplane.plane import Caller, M, line, node, settings, until
from tests.dataplane.scripted_upstream import JSON, SILENCE, STREAM, Head, ScriptedUpstream

SHOW, PULL, DELETE, COPY, CREATE, PUSH, BLOBS = (
    "/api/show", "/api/pull", "/api/delete", "/api/copy", "/api/create", "/api/push", "/api/blobs",
)  # fmt: skip
OK = Head(headers={"content-type": "application/json", "openai-version": "1"}, length=2)
DONE = [OK, b"{}"]
PROGRESS = [line(status="pulling"), line(status="success")]
LISTING = [JSON, b'{"models": [3, {"name":', b' "new:1b", "size": 5}]}']


class Managing:
    """Management over scripted nodes, two that hold the model unless `beats` say otherwise."""

    def __init__(self, beats=None, with_settings=(), **scripts):
        self.events = []
        self.upstream = ScriptedUpstream(**scripts)
        self.keeper = Keeper(Cell(), self.events.append, 30.0)
        for each in beats if beats is not None else [node(name) for name in scripts]:
            self.keeper.heard(each)
        self.serving = Management(
            settings(**dict(with_settings)), self.keeper, self.upstream, self.events.append, new_ids, RequestIds()
        )

    async def ask(self, path=SHOW, body=None, endpoint=None, **how):
        """One request to its end: its event, and its client."""
        caller = Caller({"model": M} if body is None else body, path, **how)
        await self.serving.serve(endpoint or path, caller.scope, caller.receive, caller.send)
        assert self.upstream.open == 0
        return self.managed[-1], caller

    @asynccontextmanager
    async def asking(self, caller):
        """A request under way while the block runs."""
        path = caller.scope["path"]
        endpoint = BLOBS if path.startswith(BLOBS) else path
        task = asyncio.create_task(self.serving.serve(endpoint, caller.scope, caller.receive, caller.send))
        yield task
        await task

    @property
    def managed(self):
        """Their events."""
        return [each for each in self.events if isinstance(each, Managed)]

    def knows(self, model):
        """Whether the fleet knows a model now."""
        return self.keeper.cell.knows(model)


def asked(path=SHOW, **how):
    return Caller(how.pop("body", {"model": M}), path, **how)


# What passes


async def test_a_request_and_its_answer_pass_untouched_and_are_recorded_once():
    """Whoever manages models over herd must not notice it."""
    fleet = Managing(a=[DONE], b=[DONE])
    body = b'{"model": "LLAMA:8b",  "verbose":true}'
    event, caller = await fleet.ask(body=body, headers={"x-request-id": "mine", "x-own": "2"})
    (call,) = fleet.upstream.calls
    assert (call.method, call.url, call.body, dict(call.headers)[b"x-own"]) == (
        "POST", "http://a:11434/api/show", body, b"2",
    )  # fmt: skip
    assert (caller.status, caller.answer, caller.whole) == (200, b"{}", True)
    wanted = {"openai-version": "1", "x-herd-node": "a", "x-request-id": "mine", "content-length": "2"}
    assert {name: caller.headers[name] for name in wanted} == wanted
    assert event.ids.trace_id in caller.headers["traceresponse"]
    assert (event.request_id, event.endpoint, event.path, event.method) == ("mine", SHOW, SHOW, "POST")
    assert (event.model, event.node_id, event.http_status, event.client_ip) == (M, "a", 200, "127.0.0.1")
    assert (event.error_type, event.error_message, len(fleet.managed)) == (None, None, 1)
    assert (event.attempt.node_id, event.attempt.model, event.attempt.http_status) == ("a", M, 200)
    assert event.received_at <= event.attempt.started_at <= event.attempt.ended_at <= event.finished_at
    assert event.attempt.span_id in dict(call.headers)[b"traceparent"].decode()


async def test_progress_is_passed_on_as_it_comes():
    """A pull of an hour shows its bar."""
    gate = asyncio.Event()
    fleet, caller = Managing(a=[[STREAM, PROGRESS[0], gate, PROGRESS[1]], LISTING]), asked(PULL)
    async with fleet.asking(caller):
        await until(lambda: len(caller.messages) == 2)
        assert caller.answer == PROGRESS[0]
        gate.set()
    assert (caller.answer, caller.whole) == (b"".join(PROGRESS), True)
    assert "content-length" not in caller.headers


async def test_a_client_without_an_address_is_recorded_without_one_and_nothing_is_kept_of_a_request():
    """A server on a socket file knows no addresses; a router runs for months."""
    fleet, caller = Managing(a=[DONE]), asked()
    caller.scope["client"] = None
    async with fleet.asking(caller):
        pass
    assert (fleet.managed[0].client_ip, fleet.serving._under_way) == (None, {})


async def test_an_error_of_the_engines_is_handed_on_with_its_status():
    """It is the engine's answer, and no failure of herd's."""
    fleet = Managing(a=[[Head(400, length=3), b"no!"]])
    event, caller = await fleet.ask()
    assert (caller.status, caller.answer, event.http_status, event.error_type) == (400, b"no!", 400, None)


@pytest.mark.parametrize("key", ["model", "name", "source"])
async def test_a_model_is_named_by_any_of_the_keys_that_engines_take(key):
    """`copy` has a source, older clients a name."""
    event, _ = await Managing(a=[DONE]).ask(COPY, {key: M, "destination": "x"})
    assert (event.model, event.http_status) == (M, 200)


async def test_blobs_go_through_piece_by_piece_without_a_model():
    """A file of gigabytes fits no memory."""
    fleet = Managing(a=[[Head(201, {}, length=0)]])
    path = f"{BLOBS}/sha256:abc"
    event, caller = await fleet.ask(path, b"", BLOBS, parts=[b"one", b"two"])
    (call,) = fleet.upstream.calls
    assert fleet.upstream.bodies == [[b"one", b"two"]]
    assert (call.url, event.endpoint, event.path, event.model) == (f"http://a:11434{path}", BLOBS, path, None)
    assert event.attempt.model == ""
    assert (caller.status, event.http_status) == (201, 201)
    event, _ = await fleet.ask(path, b"", BLOBS, method="HEAD")
    assert (fleet.upstream.calls[-1].body, fleet.upstream.calls[-1].method) == (None, "HEAD")


# Where it goes


async def test_the_caller_may_name_the_node():
    """Deleting a model from one machine is not deleting it from all."""
    fleet = Managing(a=[DONE], b=[DONE])
    event, _ = await fleet.ask(DELETE, method="DELETE", query="node_id=b&x=1")
    assert (event.node_id, fleet.upstream.tried[0], event.method) == ("b", "b", "DELETE")


@pytest.mark.parametrize(
    ("beats", "path", "query", "status", "error_type", "words"),
    [
        ([node("a")], SHOW, "node_id=zz", 400, "bad_request", "no node 'zz' in the fleet"),
        ([node("a", reachable=False)], SHOW, "node_id=a", 503, "no_node", "node a is offline"),
        ([], SHOW, "", 503, "no_node", "no node has joined yet"),
        ([node("a", models=(), loaded=())], DELETE, "", 404, "model_missing", "model 'LLAMA:8b' not found"),
        ([node("a", leaving=True)], DELETE, "", 503, "no_node", "no node can take /api/delete now"),
    ],
)
async def test_a_request_that_no_node_can_take_is_refused_in_words_that_say_what_to_do(
    beats, path, query, status, error_type, words
):
    """And it is recorded like one that was taken."""
    fleet = Managing(beats=beats, a=[DONE])
    event, caller = await fleet.ask(path, {"model": "LLAMA:8b"}, query=query)
    assert (event.http_status, event.error_type, event.attempt) == (status, error_type, None)
    assert (caller.status, caller.error["error"].startswith(words)) == (status, True), caller.error
    assert (caller.headers.get("retry-after"), fleet.upstream.calls) == ("10" if status == 503 else None, [])


async def test_a_blob_that_no_node_can_take_is_no_missing_model():
    """There is no model yet: that is what the blob is for."""
    event, caller = await Managing(beats=[node("a", leaving=True)], a=[DONE]).ask(f"{BLOBS}/sha256:a", b"x", BLOBS)
    assert (event.http_status, event.error_type, caller.status) == (503, "no_node", 503)


@pytest.mark.parametrize("body", [{}, {"model": 3}, {"model": ""}, b"no json", b""])
async def test_a_request_that_names_no_model_is_wrong(body):
    """It would go to any node and change there what nobody meant."""
    fleet = Managing(a=[DONE])
    event, caller = await fleet.ask(DELETE, body)
    assert (caller.status, event.error_type, fleet.upstream.calls) == (400, "bad_request", [])


async def test_a_create_goes_where_its_source_is():
    """Elsewhere the engine would fetch the source from its library."""
    fleet = Managing(beats=[node("a", models=("x:1b",), loaded=()), node("b")], a=[DONE], b=[DONE])
    event, _ = await fleet.ask(CREATE, {"model": "mine", "from": "LLAMA:8b"})
    assert (event.node_id, event.model) == ("b", "mine:latest")


# What it changes


@pytest.mark.parametrize("path", [PULL, CREATE, COPY, DELETE])
@pytest.mark.parametrize("answer", [DONE, [STREAM, *PROGRESS]], ids=["whole", "progress"])
async def test_after_a_change_the_fleet_knows_the_nodes_models_before_the_client_does(path, answer):
    """The next command comes sooner than the next heartbeat."""
    fleet, seen = Managing(a=[answer, [1.0, *LISTING]]), []
    caller = asked(path)
    take = caller.send

    async def send(message):
        seen.append((message["type"], message.get("more_body"), fleet.knows("new:1b")))
        await take(message)

    caller.send = send
    async with fleet.asking(caller):
        pass
    assert [call.url.rpartition("/")[2] for call in fleet.upstream.calls] == [path.rpartition("/")[2], "tags"]
    assert seen[-1] == ("http.response.body", False, True)
    whole = answer is DONE or path == DELETE
    assert seen[0][2] == whole, "what is whole is done before it is told"


@pytest.mark.parametrize(
    ("path", "answer"),
    [(SHOW, DONE), (PUSH, [STREAM, *PROGRESS]), (DELETE, [Head(400, length=2), b"{}"]), (PULL, [Head(400), b"{}"])],
    ids=["show", "push", "a refusal", "a refusal in chunks"],
)
async def test_what_changes_nothing_asks_for_no_listing(path, answer):
    """A listing is a request that the node could do without."""
    fleet = Managing(a=[answer, LISTING])
    await fleet.ask(path)
    assert (len(fleet.upstream.calls), fleet.knows("new:1b")) == (1, False)


@pytest.mark.parametrize(
    "listing",
    [
        [errors.ConnectFailed("no")], [JSON, b"no json"], [JSON, b"[]"], [JSON, b"{}"], [JSON, b'{"models": 3}'],
        [SILENCE], [JSON, b'{"models": [{"name": ""}]}'],
    ],
    ids=["lost", "no json", "a list", "no models", "a number", "silence", "a nameless model"],
)  # fmt: skip
async def test_a_listing_that_does_not_come_costs_the_client_nothing(listing):
    """The change was made; the next heartbeat will tell of it."""
    fleet, clock = Managing(a=[DONE, listing]), asyncio.get_running_loop().time
    began = clock()
    event, caller = await fleet.ask(DELETE)
    assert (caller.status, caller.answer, event.http_status, event.error_type) == (200, b"{}", 200, None)
    assert clock() - began <= LISTING_TIMEOUT_S


# How it fails


async def test_a_node_that_cannot_be_reached_is_not_replaced_by_another():
    """Most of these requests change something, and half of them twice is not one."""
    fleet = Managing(a=[[errors.ConnectFailed("no route")]], b=[DONE])
    event, caller = await fleet.ask()
    assert (fleet.upstream.tried, event.http_status, event.error_type) == (["a"], 502, "connect")
    assert (caller.status, caller.error, caller.headers["x-herd-node"]) == (502, {"error": "no route"}, "a")
    assert (event.error_message, event.attempt.error_type, event.attempt.error_message) == (
        "no route", "connect", "no route",
    )  # fmt: skip
    assert event.attempt.http_status is None


@pytest.mark.parametrize(("came", "gap"), [(PROGRESS[0], b""), (PROGRESS[0][:-4], b"\n")])
async def test_progress_that_breaks_off_ends_with_a_line_that_says_so(came, gap):
    """A pull that just stops looks like one that is done."""
    fleet = Managing(a=[[STREAM, came, errors.StreamAborted("broke")]])
    event, caller = await fleet.ask(PULL)
    assert (caller.status, caller.whole, caller.answer) == (200, True, came + gap + b'{"error":"broke"}\n')
    assert (event.http_status, event.error_type, event.attempt.http_status) == (502, "stream_aborted", 200)


async def test_an_answer_of_a_given_length_that_breaks_off_is_cut():
    """An error behind a promised length would be read as the answer."""
    fleet = Managing(a=[[Head(length=10), b"half", errors.StreamAborted("broke")]])
    event, caller = await fleet.ask()
    assert (caller.answer, caller.whole, event.error_type) == (b"half", False, "stream_aborted")


@pytest.mark.parametrize(
    ("script", "error_type", "after_s"),
    [([SILENCE], "first_byte_timeout", 50), ([40.0, STREAM, SILENCE], "stall_timeout", 90),
     ([STREAM, 40.0, PROGRESS[0], SILENCE], "stall_timeout", 90)],
)  # fmt: skip
async def test_a_node_has_the_whole_limit_for_each_of_its_words(script, error_type, after_s):
    """A digest of a large model is checked in silence."""
    fleet, clock = Managing(with_settings={"total_timeout_s": 50.0}, a=[script]), asyncio.get_running_loop().time
    began = clock()
    event, _ = await fleet.ask(PULL)
    assert (event.error_type, clock() - began) == (error_type, pytest.approx(after_s))


# Clients that leave, and a router that stops


@pytest.mark.parametrize(
    ("path", "parts", "sent"),
    [(PULL, None, 2), (PULL, None, 0), (f"{BLOBS}/sha256:a", [b"one"], 0)],
    ids=["in the progress", "before it", "in its upload"],
)
async def test_a_client_that_leaves_ends_its_request_at_the_node(path, parts, sent):
    """An interrupted pull stops, as it would without herd."""
    fleet, caller = Managing(a=[[*([STREAM, PROGRESS[0]] if sent else ()), SILENCE]]), asked(path)
    if parts:
        caller.parts = [*parts, caller.left]
    async with fleet.asking(caller):
        await until(lambda: fleet.upstream.open == 1 and len(caller.messages) == sent)
        caller.left.set()
    (event,) = fleet.managed
    assert len(caller.messages) == sent
    assert (event.http_status, event.error_type, fleet.upstream.open) == (499, None, 0)
    assert (event.node_id, event.attempt.error_type) == ("a", None)


async def test_a_stopping_router_takes_no_management_request():
    """As for all others."""
    fleet = Managing(a=[DONE])
    await fleet.serving.drain(5.0)
    event, caller = await fleet.ask()
    assert (caller.status, caller.error, caller.headers["retry-after"]) == (503, {"error": STOPPING}, "5")
    assert (event.error_type, fleet.upstream.calls) == ("no_node", [])


@pytest.mark.parametrize("path", [PULL, f"{BLOBS}/sha256:a"])
async def test_a_request_that_outlasts_the_grace_is_ended_and_says_so(path):
    """A pull of an hour cannot hold a restart up."""
    fleet, caller = Managing(a=[[STREAM, PROGRESS[0], SILENCE]]), asked(path)
    async with fleet.asking(caller):
        await until(lambda: len(caller.messages) == 2)
        began = asyncio.get_running_loop().time()
        await fleet.serving.drain(5.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)
    (event,) = fleet.managed
    assert (event.error_type, event.error_message, event.http_status) == ("internal", STOPPED, 500)
    assert caller.answer == PROGRESS[0] + json.dumps({"error": STOPPED}, separators=(",", ":")).encode() + b"\n"


async def test_a_request_that_ends_within_the_grace_ends_well():
    """The grace is for this."""
    fleet, caller = Managing(a=[[STREAM, PROGRESS[0], 4.0, PROGRESS[1]], LISTING]), asked(PULL)
    async with fleet.asking(caller):
        await until(lambda: len(caller.messages) == 2)
        began = asyncio.get_running_loop().time()
        await fleet.serving.drain(30.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(4.0)
    assert (fleet.managed[0].error_type, caller.answer) == (None, b"".join(PROGRESS))


async def test_a_client_that_reads_nothing_has_a_second_at_the_stop():
    """The last words are for those who listen."""
    fleet, caller = Managing(a=[[STREAM, PROGRESS[0], SILENCE]]), asked(PULL)
    caller.takes = 2
    async with fleet.asking(caller):
        await until(lambda: len(caller.messages) == 2)
        began = asyncio.get_running_loop().time()
        await fleet.serving.drain(5.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(5.0 + LAST_WORDS_S)
        caller.takes = 100
        caller.reads.set()

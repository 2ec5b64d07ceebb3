"""Spans as a collector receives them, over real OTLP/HTTP."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from herd.core.events import Attempt, ContextAction, Finished, Managed, Status, TraceIds, Usage
from herd.core.request import Parameters
from herd.core.routing import Candidate, Decision, Reason
from herd.core.signals import SIGNALS
from herd.telemetry.catalog import ATTRIBUTES
from herd.telemetry.control_plane import instrument_control_plane
from herd.telemetry.span_fields import span_count
from herd.telemetry.spans import SpanSink
from tests.store import builders
from tests.telemetry.exposition import MODEL, OTHER, at_nodes, gave_up, retried, script, tried_again
from tests.telemetry.otlp import OtlpReceiver, ReceivedSpan

PARAMETERS = Parameters(0.5, 1.0, 40.0, -1, ("END",), 0.0, 0.25, 2, ("float",))
CALLER = TraceIds("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", parent_span_id="1" * 16)


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as listening:
        yield listening


@contextmanager
def exporting(receiver: OtlpReceiver) -> Iterator[SpanSink]:
    """A sink that exports to the receiver, which forgets what it had."""
    receiver.spans.clear()
    sink = SpanSink(receiver.url, "1.2.3")
    yield sink
    assert sink.close(10)


def received(receiver: OtlpReceiver, *events: Finished | Managed) -> list[ReceivedSpan]:
    """What a collector has of these events."""
    with exporting(receiver) as sink:
        for event in events:
            sink.take(event)
    return list(receiver.spans)


def only(spans: list[ReceivedSpan], kind: str) -> ReceivedSpan:
    found = [span for span in spans if span.kind == kind]
    assert len(found) == 1
    return found[0]


def managed(**changes) -> Managed:
    """A deletion that a node carried out."""
    call = Attempt(1, "ada", MODEL, "http://ada:11434/api/delete", "2" * 16, builders.NOON, builders.NOON + 0.9, 200)
    usual = Managed(
        "m1", CALLER, "/api/delete", MODEL, "ada", 200, builders.NOON, builders.NOON + 1, method="DELETE",
        path="/api/delete", client_ip="127.0.0.1", attempt=call,
    )  # fmt: skip
    return replace(usual, **changes)


def test_a_request_is_one_server_span_with_the_ids_of_its_row(receiver):
    """From a row or a log line one looks the trace up by these ids."""
    event = builders.finished()
    server = only(received(receiver, event), "SERVER")
    assert (server.trace_id, server.span_id, server.parent) == (event.ids.trace_id, event.ids.span_id, "")
    assert server.name == "POST /api/chat"
    assert server.attributes["herd.request_id"] == event.request_id
    assert server.attributes["herd.status"] == "completed"
    assert server.resource["service.name"] == "herd"
    assert server.resource["service.version"] == "1.2.3"
    assert server.resource["service.instance.id"]


def test_the_whole_tree_hangs_together(receiver):
    """Route, wait and each attempt stand under the request, in its time."""
    event = retried()
    spans = received(receiver, event)
    server = only(spans, "SERVER")
    assert sorted(span.name for span in spans) == [
        "POST /api/chat", f"chat {MODEL}", f"chat {MODEL}", "herd.queue", "herd.route"]  # fmt: skip
    for span in spans:
        assert span.trace_id == event.ids.trace_id
        assert span is server or span.parent == server.span_id
        assert server.started_at <= span.started_at <= span.ended_at <= server.ended_at
    assert len({span.span_id for span in spans}) == len(spans) == span_count(event)


def test_an_attempt_s_span_has_the_id_that_the_node_was_told(receiver):
    """The node's own spans name it as their parent."""
    event = retried()
    spans = {span.span_id: span for span in received(receiver, event) if span.kind == "CLIENT"}
    assert list(spans) == [attempt.span_id for attempt in event.attempts]
    for attempt in event.attempts:
        assert abs(spans[attempt.span_id].started_at - attempt.started_at) < 1e-5
        assert spans[attempt.span_id].attributes["herd.attempt"] == attempt.number


def test_the_caller_s_span_is_the_parent(receiver):
    """The application's trace goes through herd without a break."""
    event = replace(builders.finished(), ids=CALLER)
    server = only(received(receiver, event), "SERVER")
    assert (server.trace_id, server.parent) == (CALLER.trace_id, "1" * 16)


def test_a_trace_that_its_caller_does_not_record_is_not_exported(receiver):
    """Half a trace is worse than none."""
    assert received(receiver, replace(builders.finished(), ids=replace(CALLER, sampled=False))) == []


def test_a_failure_that_a_retry_made_good_is_an_error_of_its_attempt_only(receiver):
    """The client got its answer; an error on the request would page somebody."""
    spans = received(receiver, retried())
    first, second = (span for span in spans if span.kind == "CLIENT")
    assert (first.is_error, first.attributes["error.type"], first.message) == (True, "connect", "connection refused")
    assert (second.is_error, second.attributes["http.request.resend_count"]) == (False, 1)
    assert not only(spans, "SERVER").is_error


@pytest.mark.parametrize(
    ("status", "http_status", "is_error"),
    [
        (Status.COMPLETED, 200, False),
        (Status.FAILED, 502, True),
        (Status.INCOMPLETE, 200, True),
        (Status.CLIENT_DISCONNECTED, 499, False),
        (Status.REJECTED, 404, False),
        (Status.REJECTED, 429, False),
        (Status.REJECTED, 503, True),
    ],
)
def test_the_request_s_span_is_an_error_only_where_herd_failed(receiver, status, http_status, is_error):
    """A client that leaves or asks wrong must not count against the service."""
    error_type = None if status in {Status.COMPLETED, Status.CLIENT_DISCONNECTED} else "stream_aborted"
    event = builders.finished(status=status, http_status=http_status, error_type=error_type)
    server = only(received(receiver, event), "SERVER")
    assert server.is_error is is_error
    assert server.attributes.get("error.type") == ("stream_aborted" if is_error else None)
    assert server.attributes.get("herd.error_type") == error_type


def test_usage_stands_on_the_attempt_that_answered_and_nowhere_else(receiver):
    """Backends add token attributes up; on two spans they would count double."""
    spans = received(receiver, retried())
    counted = [span for span in spans if any(name.startswith("gen_ai.usage.") for name in span.attributes)]
    assert len(counted) == 1
    found = counted[0].attributes
    assert (found["herd.attempt"], found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (
        2,
        20,
        40,
    )
    assert (found["gen_ai.usage.cache_read.input_tokens"], found["gen_ai.usage.reasoning.output_tokens"]) == (8, 16)
    assert (found["herd.ollama.load_s"], found["gen_ai.response.finish_reasons"]) == (4.0, ["stop"])


def test_an_attempt_says_what_was_asked_of_whom(receiver):
    """The names of the GenAI conventions, so that any backend understands them."""
    found = only(received(receiver, builders.finished()), "CLIENT").attributes
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.provider.name"] == "ollama"
    assert found["gen_ai.request.model"] == MODEL
    assert (found["server.address"], found["server.port"]) == ("ada", 11434)
    assert found["http.response.status_code"] == 200
    assert found["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.25, abs=1e-6)


def test_an_attempt_says_how_the_client_wanted_its_answer(receiver):
    """A strange answer is often a strange temperature; the names are the conventions', the types too."""
    found = only(received(receiver, builders.finished(parameters=PARAMETERS)), "CLIENT").attributes
    asked = {name.removeprefix("gen_ai.request."): said for name, said in found.items() if "gen_ai.request." in name}
    assert asked == {
        "model": MODEL, "stream": True, "temperature": 0.5, "top_p": 1.0, "top_k": 40.0, "seed": -1,
        "stop_sequences": ["END"], "presence_penalty": 0.0, "frequency_penalty": 0.25, "choice.count": 2,
        "encoding_formats": ["float"],
    }  # fmt: skip
    assert {type(asked[name]) for name in ("temperature", "top_p", "top_k", "presence_penalty")} == {float}


def test_a_single_choice_is_not_told(receiver):
    """The conventions leave out what every request has."""
    found = only(received(receiver, builders.finished(parameters=Parameters(choice_count=1))), "CLIENT").attributes
    assert "gen_ai.request.choice.count" not in found


def test_the_provider_is_the_engine_of_the_node_that_answered(receiver):
    """A fleet may mix Ollama with llama.cpp."""
    seen = builders.fleet(builders.node("ada", engine="llamacpp"))
    found = only(received(receiver, builders.finished(seen=seen)), "CLIENT").attributes
    assert found["gen_ai.provider.name"] == "llamacpp"


def test_the_route_tells_every_candidate_s_signals_and_every_refusal(receiver):
    """Why this node: in the trace as in the row."""
    seen = builders.fleet(builders.node("ada"), builders.node("off", status="offline"))
    event = builders.finished(seen=seen)
    route = next(span for span in received(receiver, event) if span.name == "herd.route")
    (name, winner), (_, loser) = route.events
    assert name == "candidate"
    assert {key: winner[f"herd.signal.{key}"] for key in SIGNALS} == event.chosen.signals
    assert (winner["herd.node"], winner["herd.total"]) == ("ada", event.chosen.total)
    assert (loser["herd.node"], loser["herd.rejection"]) == ("off", "offline")
    assert route.attributes["herd.reason"] == "only_candidate"
    assert (route.attributes["herd.candidates"], route.attributes["herd.rejected"]) == (1, 1)


def test_a_large_fleet_s_route_shows_sixteen_candidates(receiver):
    """Sixteen are enough for a trace; the row has them all."""
    points = dict.fromkeys(SIGNALS, 1.0)
    plan = tuple(Candidate(f"n{number:02}", MODEL, points, 7.0, True, 0.1) for number in range(40))
    event = replace(builders.finished(), decision=Decision(plan, (), Reason.LEAST_LOADED))
    route = next(span for span in received(receiver, event) if span.name == "herd.route")
    assert [found["herd.node"] for _, found in route.events] == [f"n{number:02}" for number in range(16)]
    assert route.attributes["herd.candidates"] == 40


def test_a_request_that_did_not_wait_has_no_queue_span(receiver):
    """A span of no length on every request would hide those that waited."""
    assert [span for span in received(receiver, builders.finished()) if span.name == "herd.queue"] == []


def test_a_request_that_was_refused_before_it_was_understood_is_one_span(receiver):
    """No model, no decision, no attempt: nothing is made up."""
    span = only(received(receiver, builders.refused()), "SERVER")
    assert span.attributes["herd.error_type"] == "bad_request"
    assert "gen_ai.request.model" not in span.attributes


def test_a_management_request_is_a_server_span_without_a_status(receiver):
    """It is no inference, so it must not be counted as one."""
    span = only(received(receiver, managed()), "SERVER")
    assert (span.name, span.is_error, span.trace_id) == ("DELETE /api/delete", False, CALLER.trace_id)
    assert "herd.status" not in span.attributes


def test_a_blob_s_digest_is_not_in_the_span_s_name(receiver):
    """Names are what backends group by."""
    path = "/api/blobs/sha256:29fdb9"
    call = Attempt(
        1, "ada", "", f"http://ada:11434{path}", "3" * 16, builders.NOON, builders.NOON, None, None, "connect"
    )
    broken = managed(
        endpoint="/api/blobs", path=path, method="HEAD", http_status=502, error_type="connect",
        error_message="refused", attempt=call,
    )  # fmt: skip
    spans = received(receiver, broken)
    span = only(spans, "SERVER")
    assert (span.name, span.is_error, span.message) == ("HEAD /api/blobs/{digest}", True, "refused")
    assert (span.attributes["url.path"], span.attributes["http.route"]) == (path, "/api/blobs/{digest}")
    call_span = only(spans, "CLIENT")
    assert (call_span.name, call_span.attributes["error.type"]) == ("HEAD /api/blobs/{digest}", "connect")


def test_a_management_request_s_call_to_the_node_is_a_span_of_its_own(receiver):
    """How long the node took, and which one: a pull of minutes is otherwise one bar without a cause."""
    event = managed(attempt=replace(managed().attempt, http_status=500), http_status=500)
    spans = received(receiver, event)
    server, call = only(spans, "SERVER"), only(spans, "CLIENT")
    assert (server.attributes["url.path"], server.attributes["client.address"]) == ("/api/delete", "127.0.0.1")
    assert (call.parent, call.span_id, call.trace_id) == (server.span_id, "2" * 16, server.trace_id)
    assert server.started_at <= call.started_at <= call.ended_at <= server.ended_at
    assert call.attributes["url.full"] == "http://ada:11434/api/delete"
    assert (call.attributes["server.address"], call.attributes["server.port"]) == ("ada", 11434)
    assert (call.is_error, call.attributes["error.type"]) == (True, "500")
    assert len(spans) == span_count(event)


def test_a_management_request_that_no_node_could_take_has_no_call(receiver):
    """A span of something that did not happen would be looked for at the node."""
    event = managed(attempt=None, node_id=None, http_status=503, error_type="no_node")
    assert [span.kind for span in received(receiver, event)] == ["SERVER"]
    assert span_count(event) == 1


def test_a_retry_says_so_on_the_route_and_each_attempt_says_why_it_went_there(receiver):
    """The reasons of the spans are those that the metric counts; the plan's own word stays on the first attempt."""
    event = tried_again()
    spans = received(receiver, event)
    route = next(span for span in spans if span.name == "herd.route")
    first, second = (span for span in spans if span.kind == "CLIENT")
    assert (route.attributes["herd.node"], route.attributes["herd.reason"]) == (event.attempts[1].node_id, "retry")
    planned = event.decision.reason.value
    assert [span.attributes["herd.reason"] for span in (first, second)] == [planned, "retry"]


def test_a_node_that_was_second_in_the_plan_has_its_own_reason(receiver):
    """The first had no free slot; to say of the second why the first was the first would be wrong."""
    event = builders.finished(node_id="ada")
    event = replace(event, chosen=event.decision.plan[1], attempts=at_nodes(event, event.decision.plan[1].node_id))
    spans = received(receiver, event)
    assert {
        span.attributes.get("herd.reason") for span in spans if span.kind == "CLIENT" or span.name == "herd.route"
    } == {"least_loaded"}


def test_texts_and_numbers_that_protobuf_refuses_do_not_cost_the_batch(receiver):
    """One client's lone surrogate would lose the spans of everybody else in the batch."""
    odd = builders.finished(model="m\udcff:1", tags=("t\ud800",), usage=Usage(2**63, 1, source="reported"))
    spans = received(receiver, replace(odd, error_message="\udc80"), builders.finished())
    assert len([span for span in spans if span.kind == "SERVER"]) == 2
    assert only([span for span in spans if "?" in span.name], "CLIENT").name == "chat m?:1"


def test_every_attribute_is_declared_and_every_declaration_is_true(receiver):
    """The catalog is the documentation; neither may run ahead of the other."""
    context = ContextAction("stripped", "ada", MODEL, 32_768, 8192)
    again = retried()
    reconnected = tuple(replace(attempt, reconnected=True) for attempt in again.attempts)
    capped = builders.finished(asked=builders.request(max_tokens=64), context=context, parameters=PARAMETERS)
    events = [event for event in script() if isinstance(event, Finished)]
    spans = received(receiver, *events, capped, replace(again, attempts=reconnected), managed(), gave_up())
    where = {"herd.route": "herd.route", "herd.queue": "herd.queue"}
    seen = {(name, where.get(span.name, span.kind)) for span in spans for name in span.attributes}
    seen |= {(name, "candidate event") for span in spans for _, found in span.events for name in found}
    assert seen == {(entry.name, entry.where) for entry in ATTRIBUTES}


def test_exported_spans_are_counted_exactly(receiver):
    """`herd audit` and the alert on losses stand on this number."""
    events = [builders.finished(), retried(), managed()]
    with exporting(receiver) as sink:
        for event in events:
            sink.take(event)
        assert sink.flush(10)
        assert sink.stats().exported == len(receiver.spans) == sum(map(span_count, events))
        assert sink.stats().dropped == 0


def test_without_an_endpoint_there_are_ids_but_no_spans(monkeypatch):
    """Herd needs no collector, and costs nothing where there is none."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    sink = SpanSink()
    sink.take(builders.finished())
    assert sink.provider is None
    assert (sink.stats().exported, sink.stats().dropped) == (0, 0)
    assert len(sink.new_ids().trace_id) == 32
    assert sink.flush(1)
    assert sink.close(1)


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_the_standard_variables_name_the_endpoint_too(receiver, monkeypatch, variable):
    """Whoever runs a collector has these set already."""
    monkeypatch.setenv(variable, receiver.url + ("/v1/traces" if "TRACES" in variable else ""))
    receiver.spans.clear()
    sink = SpanSink()
    sink.take(builders.finished())
    assert sink.close(10)
    assert receiver.named("POST /api/chat")


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_the_standard_variables_switch_export_off(receiver, monkeypatch, name, value):
    """A switch that one service ignores is none."""
    monkeypatch.setenv(name, value)
    assert SpanSink(receiver.url).provider is None


def test_the_standard_variables_name_the_service(receiver, monkeypatch):
    """Two routers in one backend are told apart by their owner."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "herd-office")
    assert received(receiver, builders.finished())[0].resource["service.name"] == "herd-office"


@pytest.mark.parametrize(("sampler", "spans"), [("always_off", 0), ("parentbased_always_on", 3)])
def test_the_standard_sampler_decides_what_is_recorded(receiver, monkeypatch, sampler, spans):
    """A busy fleet keeps one trace in a hundred, and says so by the usual variable."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    assert len(received(receiver, builders.finished())) == spans


def test_a_new_trace_is_marked_as_the_sampler_will_decide(receiver, monkeypatch):
    """Nodes would otherwise record halves of traces that herd leaves out."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    with exporting(receiver) as sink:
        made = [sink.new_ids() for _ in range(40)]
        for ids in made:
            sink.take(replace(builders.refused(), ids=ids))
    assert {span.trace_id for span in receiver.spans} == {ids.trace_id for ids in made if ids.sampled}
    assert 0 < len(receiver.spans) < 40


@pytest.mark.parametrize(
    ("sampler", "flags"), [("always_on", "00"), ("always_off", "01"), ("parentbased_always_on", "00")]
)
def test_a_caller_s_trace_is_marked_as_the_sampler_decides_too(receiver, monkeypatch, sampler, flags):
    """A sampler that does not ask the caller overrules its flag; exemplars and nodes must hear the same."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    with exporting(receiver) as sink:
        ids = sink.new_ids(f"00-{'a' * 32}-{'b' * 16}-{flags}")
        sink.take(replace(builders.refused(), ids=ids))
    assert ids.sampled is (sampler == "always_on")
    assert bool(receiver.spans) is ids.sampled


async def test_the_control_plane_has_spans_and_the_data_plane_only_those_made_by_hand(receiver):
    """The instrumentation makes a span of every chunk; on a stream that is hundreds."""
    app = FastAPI()
    paths = (
        "/fleet/status",
        "/dashboard/api/traces",
        "/v1/models",
        "/api/tags",
        "/metrics",
        "/healthz",
        "/heartbeat",
        "/",
        "/dashboard",
        "/dashboard/static/app.js",
    )
    for path in paths:
        app.add_api_route(path, lambda: {"ok": True})
    receiver.spans.clear()
    sink = SpanSink(receiver.url)
    instrument_control_plane(app, sink)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 - uvicorn has a flag only
            await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for path in paths:
            asked = f"{path}?q=secret&tag=team" if path.endswith("traces") else path
            assert (await client.get(asked, headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})).is_success
    server.should_exit = True
    await serving
    assert await asyncio.to_thread(sink.close, 10)
    assert sorted(span.name for span in receiver.spans) == ["GET /dashboard/api/traces", "GET /fleet/status"]
    assert {(span.trace_id, span.parent) for span in receiver.spans} == {("a" * 32, "b" * 16)}
    for span in receiver.spans:
        assert (span.attributes["http.response.status_code"], span.attributes["server.address"]) == (200, "127.0.0.1")
    searched = next(span for span in receiver.spans if span.name.endswith("traces"))
    assert searched.attributes["url.query"] == "q=REDACTED&tag=REDACTED"
    assert "secret" not in str(searched.attributes)


def test_an_application_is_left_alone_where_nothing_is_exported(monkeypatch):
    """The instrumentation costs time on every request."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    app = FastAPI()
    instrument_control_plane(app, SpanSink())
    assert not getattr(app, "_is_instrumented_by_opentelemetry", False)


def test_a_fallback_is_told_on_the_route(receiver):
    """The answer of another model than the one asked for must be visible as such."""
    spans = received(receiver, builders.finished(model="gone:1b", served=OTHER))
    route = next(span for span in spans if span.name == "herd.route")
    assert route.attributes["herd.fallback"] is True
    assert (route.attributes["herd.model.requested"], route.attributes["herd.model.served"]) == ("gone:1b", OTHER)


def test_an_attempt_marks_its_first_token(receiver):
    """Where a trace's wait ends and its answer begins is what its reader looks for."""
    event = builders.finished()
    (call,) = (span for span in received(receiver, event) if span.kind == "CLIENT")
    assert [name for name, _ in call.events] == ["first token"]
    silent = replace(event, attempts=tuple(replace(each, first_content_at=None) for each in event.attempts))
    (call,) = (span for span in received(receiver, silent) if span.kind == "CLIENT")
    assert call.events == []

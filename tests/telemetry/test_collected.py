"""Spans of a running router and a running agent, as a collector that nobody here wrote has taken and handed them on."""

import asyncio
from collections import Counter

import httpx
import pytest

from herd import __version__
from herd.core.signals import SIGNALS
from herd.sim import Fault, FaultKind, SimConfig
from tests.e2e.conftest import LLAMA, QWEN, SLOW, started
from tests.e2e.traffic import HELLO, Ask, ask, send
from tests.harness import Agent, until
from tests.telemetry.collector import Collector
from tests.telemetry.otlp import OtlpReceiver

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"  # and then 1 for recorded, 0 for not
QUICKLY = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
MACHINES = (
    SimConfig("warm", models=(LLAMA, QWEN), preload=("llama3.2:3b",)),
    SimConfig("cold", models=(LLAMA,)),
    SimConfig(**{**{name: getattr(SLOW, name) for name in SLOW.__slots__}, "slots": 1, "tokens_per_s": 20}),
)
ENGINE = SimConfig("engine", models=(QWEN,))  # it has no agent: the real one is started beside it


def chat(model="llama3.2:3b", trace=None, **parameters):
    """A streamed chat, within this trace of its caller's."""
    headers = {"traceparent": trace} if trace else {}
    return ask("/v1/chat/completions", model=model, messages=HELLO, stream=True, headers=headers, **parameters)


class Collected:
    """A router whose spans go through the collector, and what came of them."""

    def __init__(self, home):
        self.sink = OtlpReceiver()
        self.sink.start()
        self.collector = Collector(home, self.sink.url)
        self.collector.start()
        self.fleet = started(home / "home", *MACHINES, OTEL_EXPORTER_OTLP_ENDPOINT=self.collector.url, **QUICKLY)
        self.engine = self.fleet.nodes.start(ENGINE)
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.url, **QUICKLY}
        self.agent = Agent(home / "agent", "real", self.engine.url, self.fleet.url, **endpoint)
        self.agent.start()

    def ask(self, *asks, at_once=1):
        """The spans of each of these requests' traces, in the requests' order of arrival."""
        before = len(self.fleet.router.rows())
        asyncio.run(send(self.fleet.url, list(asks), at_once))
        until(lambda: len(self.fleet.router.rows()) == before + len(asks), "every request has its row")
        return [self.tree(row["trace_id"]) for row in self.fleet.router.rows()[before:]]

    def tree(self, trace_id):
        """The spans of a trace, once its SERVER span is there and nothing is on its way."""
        self.sink.wait_for(lambda sink: any(s.kind == "SERVER" and s.trace_id == trace_id for s in sink.spans))
        until(self.has_all, "the collector has what the router has exported")
        return [span for span in self.sink.spans if span.trace_id == trace_id]

    def has_all(self):
        """Whether the router counts as exported what came out of the collector."""
        here = sum(span.resource["service.name"] == "herd" for span in self.sink.spans)
        return self.fleet.router.metric("herd_spans_exported_total") == here

    def of_the_agent(self):
        """The agent's spans so far."""
        return [span for span in self.sink.spans if span.resource["service.name"] == "herd-node"]

    def stop(self):
        """End everything, senders first."""
        self.agent.stop()
        self.fleet.nodes.stop()
        self.fleet.router.stop()
        self.collector.stop()
        self.sink.stop()


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """One router, its nodes, a real agent and a real collector for all of these."""
    running = Collected(tmp_path_factory.mktemp("collected"))
    yield running
    running.stop()


def the(spans, kind):
    """The only span of a kind, or with a name."""
    (found,) = [span for span in spans if kind in {span.kind, span.name}]
    return found


@pytest.fixture(scope="module")
def tried_twice(collected):
    """The spans of a request that its first node failed."""
    collected.fleet.nodes.script("warm", Fault(FaultKind.HTTP_500))
    (spans,) = collected.ask(chat())
    return spans


def test_a_request_that_was_tried_twice_is_one_tree(tried_twice):
    """What a collector cannot join is not a trace."""
    spans = tried_twice
    root = the(spans, "SERVER")
    shape = [("POST /v1/chat/completions", "SERVER"), ("chat llama3.2:3b", "CLIENT"), ("chat llama3.2:3b", "CLIENT")]
    assert Counter((span.name, span.kind) for span in spans) == Counter([*shape, ("herd.route", "INTERNAL")])
    assert {span.parent for span in spans if span is not root} == {root.span_id}
    tries = sorted((span for span in spans if span.kind == "CLIENT"), key=lambda span: span.attributes["herd.attempt"])
    assert [span.is_error for span in tries] == [True, False]
    assert [span.attributes["herd.node"] for span in tries] == ["warm", "cold"]
    assert not root.is_error


def test_a_retry_is_told_alike_by_row_metric_and_spans(collected, tried_twice):
    """Whoever asks one of the records why this node answered must not hear another reason from the next."""
    spans = tried_twice
    row = next(row for row in collected.fleet.router.rows() if row["trace_id"] == spans[0].trace_id)
    assert (row["node_id"], row["retry_count"], row["excluded_nodes"]) == ("cold", 1, '["warm"]')
    assert (
        "The previous attempt failed"
        in collected.fleet.router.get(f"/dashboard/api/traces/{row['request_id']}")["decision"]["why"]
    )
    route = the(spans, "herd.route").attributes
    assert (route["herd.node"], route["herd.reason"]) == ("cold", "retry")
    assert the(spans, "SERVER").attributes["herd.retries"] == 1
    answered = next(span.attributes for span in spans if span.attributes.get("herd.attempt") == 2)
    assert (answered["herd.reason"], answered["http.request.resend_count"]) == ("retry", 1)
    assert collected.fleet.router.metric("herd_routing_decisions_total", node="cold", reason="retry") == 1


def test_a_management_request_and_its_call_to_the_node_are_two_spans(collected):
    """What a node did with its `traceparent` hangs under the call, and the call under what the client sent."""
    trace_id = "ab" * 16
    headers = {"traceparent": f"00-{trace_id}-{'cd' * 8}-01"}
    answer = httpx.post(f"{collected.fleet.url}/api/show", json={"model": "llama3.2:3b"}, headers=headers)
    spans = collected.tree(trace_id)
    server, call = the(spans, "SERVER"), the(spans, "CLIENT")
    assert (server.name, server.parent, call.parent) == ("POST /api/show", "cd" * 8, server.span_id)
    assert (server.attributes["url.path"], server.attributes["client.address"]) == ("/api/show", "127.0.0.1")
    node = collected.fleet.nodes.nodes[answer.headers["x-herd-node"]]
    assert call.attributes["url.full"] == f"{node.url}/api/show"
    assert call.attributes["http.response.status_code"] == 200


def test_each_span_has_the_attributes_of_its_kind(collected):
    """Queries and dashboards ask for these names, under these values' types."""
    (spans,) = collected.ask(chat(temperature=0.5, seed=7, stop="END"))
    server, route, attempt = the(spans, "SERVER").attributes, the(spans, "herd.route"), the(spans, "CLIENT").attributes
    assert server.items() >= {
        "http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": 200,
        "gen_ai.request.model": "llama3.2:3b", "gen_ai.request.stream": True, "herd.status": "completed",
        "herd.retries": 0,
    }.items()  # fmt: skip
    assert attempt.items() >= {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "ollama", "gen_ai.request.model": "llama3.2:3b",
        "gen_ai.response.finish_reasons": ["stop"], "http.response.status_code": 200, "herd.attempt": 1,
        "gen_ai.request.temperature": 0.5, "gen_ai.request.seed": 7, "gen_ai.request.stop_sequences": ["END"],
    }.items()  # fmt: skip
    assert attempt["gen_ai.usage.output_tokens"] > 0
    chosen = next(fields for name, fields in route.events if fields["herd.node"] == route.attributes["herd.node"])
    assert chosen["herd.total"] == -route.attributes["herd.score"]
    assert chosen.keys() >= {f"herd.signal.{name}" for name in SIGNALS}


def test_only_a_request_that_waited_has_a_span_of_its_wait(collected):
    """A span of no length for every request would be noise."""
    trees = collected.ask(chat("slow:1b"), chat("slow:1b"), at_once=2)
    waits = [[span for span in spans if span.name == "herd.queue"] for spans in trees]
    assert sorted(map(len, waits)) == [0, 1]


def test_a_refused_request_has_one_span_and_no_node(collected):
    """A refusal is found by its trace as any other answer, and nobody looks for the node that it never met."""
    (spans,) = collected.ask(Ask("/api/chat", b"{not json"))
    assert [(span.kind, span.attributes["herd.status"]) for span in spans] == [("SERVER", "rejected")]


def test_a_caller_s_trace_goes_on_and_one_that_is_not_recorded_does_not(collected):
    """Half of somebody's trace, or one that they did not want, is worse than none."""
    collected.ask(chat(trace=f"{CALLER}1"))
    spans = collected.tree(CALLER.split("-")[1])
    assert the(spans, "SERVER").parent == CALLER.split("-")[2]
    silent = CALLER.replace("4bf9", "0000")
    before = len(collected.fleet.router.rows())
    asyncio.run(send(collected.fleet.url, [chat(trace=f"{silent}0")], 1))
    until(lambda: len(collected.fleet.router.rows()) > before, "its row")
    collected.ask(chat())  # what came later has arrived, so what came before would have, too
    assert not [span for span in collected.sink.spans if span.trace_id == silent.split("-")[1]]


def test_router_and_agent_are_told_apart_by_their_resource(collected):
    """One collector takes the spans of all machines."""
    collected.ask(chat())
    until(collected.of_the_agent, "the agent's spans")
    names = {span.resource["service.name"]: span.resource for span in collected.sink.spans}
    assert names.keys() == {"herd", "herd-node"}
    assert {resource["service.version"] for resource in names.values()} == {__version__}
    assert names["herd-node"]["service.instance.id"] == "real"


def test_the_agent_s_heartbeats_and_looks_at_its_engine_are_spans(collected):
    """How long an engine takes to say what it holds is in no request's trace."""
    names = ("POST /heartbeat", "herd.look")
    until(lambda: {span.name for span in collected.of_the_agent()} == set(names), "one of each")
    beat, look = (next(span for span in collected.of_the_agent() if span.name == name) for name in names)
    assert (beat.kind, look.kind) == ("CLIENT", "INTERNAL")
    assert beat.attributes == {
        "http.request.method": "POST", "url.full": f"{collected.fleet.url}/heartbeat", "server.address": "127.0.0.1",
        "server.port": collected.fleet.router.port, "http.response.status_code": 200,
    }  # fmt: skip
    port = int(collected.engine.url.rpartition(":")[2])
    assert look.attributes == {"herd.engine": "ollama", "server.address": "127.0.0.1", "server.port": port}
    assert not beat.is_error
    assert not look.is_error


def test_the_router_counts_as_exported_what_the_collector_has(collected):
    """A count that is not true of another program's count is decoration."""
    collected.ask(chat())
    until(collected.has_all, "the two agree")
    assert collected.fleet.router.metric("herd_spans_dropped_total") == 0

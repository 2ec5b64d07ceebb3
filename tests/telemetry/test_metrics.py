"""Counting: every event once, under labels that nobody outside can invent."""

import threading
from dataclasses import replace

import pytest

from herd.core.events import Attempt, AttemptFailed, Status, Usage
from herd.core.routing import Predicted
from herd.telemetry.metrics import OPENMETRICS, MetricsSink, prefers_openmetrics
from tests.store import builders
from tests.telemetry.exposition import (
    MODEL,
    OTHER,
    gave_up,
    open_families,
    retried,
    script,
    sink_with,
    text_families,
    total,
    tried_again,
    value,
)


def test_a_finished_request_is_counted_once_by_endpoint_model_and_status():
    """The counter that dashboards and alerts stand on."""
    sink = sink_with(MODEL)
    sink.take(builders.finished())
    assert value(sink, "herd_requests_total", endpoint="/api/chat", model=MODEL, status="completed") == 1
    assert total(sink, "herd_requests_total") == 1


@pytest.mark.parametrize("status", list(Status))
def test_every_status_is_counted_under_its_own_name(status):
    """A status that fell into another's count would make the four records differ."""
    sink = sink_with(MODEL)
    sink.take(builders.finished(status=status))
    assert value(sink, "herd_requests_finished_total", status=status.value) == 1
    assert total(sink, "herd_requests_finished_total") == 1


def test_what_failed_on_our_side_is_counted_by_model_and_a_client_s_mistake_is_not():
    """The alert about one failing model would fire for one client that asks wrong."""
    sink = sink_with(MODEL)
    for status, error_type in ((Status.FAILED, "upstream_5xx"), (Status.INCOMPLETE, "stream_aborted"),
                               (Status.FAILED, "upstream_4xx"), (Status.REJECTED, "queue_full")):  # fmt: skip
        sink.take(builders.finished(status=status, error_type=error_type))
    assert value(sink, "herd_requests_failed_total", model=MODEL) == 2


def test_tokens_are_counted_by_type_node_and_model():
    """Usage panels and the audit read the same numbers as the rows."""
    sink = sink_with(MODEL)
    sink.take(retried())
    counts = {kind: value(sink, "herd_tokens_total", model=MODEL, node="ada", type=kind)
              for kind in ("input", "output", "cached_input", "reasoning")}  # fmt: skip
    assert counts == {"input": 20, "output": 40, "cached_input": 8, "reasoning": 16}
    assert value(sink, "herd_tokens_finished_total", type="output") == 40


def test_nonsense_token_counts_neither_raise_nor_spoil_the_counter():
    """An engine's bug must not end in a NaN, an exception or a counter that falls."""
    sink = sink_with(MODEL)
    sink.take(builders.finished(usage=Usage(-5, 2**63 - 1, source="reported")))
    assert value(sink, "herd_tokens_finished_total", type="input") == 0
    assert value(sink, "herd_tokens_finished_total", type="output") == 2**53


def test_a_model_that_the_fleet_does_not_know_gets_no_series():
    """Whoever may send a request could otherwise fill the exposition with names."""
    sink = sink_with(MODEL)
    for number in range(50):
        sink.take(replace(builders.finished(model=f"made-up-{number}:latest"), chosen=None))
    assert total(sink, "herd_requests_total", model="_unknown") == 50
    assert b"made-up" not in sink.render()[0]


def test_an_unknown_endpoint_node_and_error_type_get_no_series_either():
    """Closed lists stay closed, whatever an event carries."""
    sink = sink_with(MODEL)
    stray = replace(builders.finished(node_id="stranger"), endpoint="/evil", error_type="novel")
    sink.take(stray)
    body = sink.render()[0]
    assert b"/evil" not in body
    assert b"stranger" not in body
    assert value(sink, "herd_request_errors_total", error_type="internal", node="_unknown") == 1


def test_series_stand_at_zero_as_soon_as_a_node_and_its_model_register():
    """A counter born at 1 hides its first increase from Prometheus."""
    sink = sink_with(MODEL)
    assert value(sink, "herd_requests_total", endpoint="/v1/messages", model=MODEL, status="failed") == 0
    assert value(sink, "herd_routing_decisions_total", node="ada", reason="cold") == 0
    assert value(sink, "herd_tokens_total", model=MODEL, node="ada", type="output") == 0
    assert value(sink, "herd_time_to_first_token_seconds_count", model=MODEL) == 0


def test_series_of_closed_lists_stand_at_zero_before_there_is_any_node():
    """An alert on refusals must see the first of them."""
    sink = MetricsSink("1.2.3")
    assert value(sink, "herd_requests_finished_total", status="rejected") == 0
    assert value(sink, "herd_queue_rejected_total", reason="queue_full") == 0
    assert value(sink, "herd_request_errors_total", error_type="no_node", node="_none") == 0


def test_series_go_with_the_model_and_the_node_that_left():
    """A departed node's series would be scraped for ever."""
    sink = MetricsSink("1.2.3")
    sink.set_known({"ada": [MODEL, OTHER], "bob": [MODEL]})
    sink.take(builders.finished(model="gone:1b", served=OTHER))
    sink.set_known({"bob": [MODEL]})
    body = sink.render()[0].decode()
    assert OTHER not in body
    assert '"ada"' not in body
    assert '"bob"' in body
    assert MODEL in body


def test_nothing_is_lost_from_the_audit_s_counters_when_a_model_leaves():
    """`herd audit` compares sums with rows, and rows do not leave with their model."""
    sink = sink_with(MODEL)
    sink.take(builders.finished())
    sink.set_known({})
    assert total(sink, "herd_requests_total") == 0
    assert value(sink, "herd_requests_finished_total", status="completed") == 1
    assert value(sink, "herd_tokens_finished_total", type="input") == 20


def test_a_request_that_outlives_its_model_still_counts():
    """In flight while the model was deleted: it must not raise, nor bring the series back."""
    sink = sink_with(MODEL)
    sink.set_known({"ada": []})
    sink.take(builders.finished())
    assert total(sink, "herd_requests_total", model="_unknown") == 1
    assert total(sink, "herd_requests_total", model=MODEL) == 0


def test_a_node_that_comes_back_starts_at_zero_again():
    """A counter reset is what Prometheus understands; a half-remembered one is not."""
    sink = sink_with(MODEL)
    sink.take(builders.finished())
    sink.set_known({})
    sink.set_known({"ada": [MODEL]})
    assert value(sink, "herd_upstream_requests_total", node="ada", code_class="2xx") == 0


def test_a_model_beyond_the_cap_is_unknown_and_counted_as_overflow():
    """The cap bounds the exposition; the counter says that it bit."""
    sink = sink_with("a:1", "b:1", "c:1", max_models=2)
    sink.take(builders.finished(model="c:1"))
    assert total(sink, "herd_requests_total", model="_unknown") == 1
    counted = value(sink, "herd_label_overflow_total", label="model")
    assert counted > 0
    assert value(sink, "herd_label_overflow_total", label="node") == 0
    assert value(sink, "herd_label_overflow_total", label="model") == counted, "to look is not to use"


def test_a_request_for_a_model_beyond_the_cap_is_one_overflow_however_many_metrics_it_is_in():
    """The counter says how many requests were lumped together; a metric more must not change that."""
    sink = sink_with("a:1", "b:1", "c:1", max_models=2)
    for number in range(1, 4):
        sink.take(builders.finished(model="c:1"))
        assert value(sink, "herd_label_overflow_total", label="model") == number


@pytest.mark.parametrize(
    ("usage", "prefills", "decodes"),
    [
        (Usage(1, 1, source="reported", prompt_eval_s=0.25, eval_s=3.0), 1, 1),
        (Usage(1, 1, source="reported", prompt_eval_s=0.0), 1, 0),
        (Usage(1, 1, source="counted"), 0, 0),
        (Usage(1, 1, source="reported", prompt_eval_s=float("nan"), eval_s=-1.0), 0, 0),
        (Usage(1, 1, source="reported", prompt_eval_s=float("inf"), eval_s=1e6), 0, 0),
    ],
)
def test_prefill_and_decode_are_what_an_engine_reports_of_them(usage, prefills, decodes):
    """Where an engine says nothing, a zero would make its machine the fastest of the fleet."""
    sink = sink_with(MODEL)
    sink.take(builders.finished(usage=usage))
    assert value(sink, "herd_prefill_seconds_count", node="ada") == prefills
    assert value(sink, "herd_decode_seconds_count", node="ada") == decodes
    assert value(sink, "herd_decode_seconds_sum", node="ada") == 3.0 * decodes


def test_a_node_s_first_token_is_counted_from_its_own_attempt_s_start():
    """A wait in the queue or at the node that failed before is not this node's slowness."""
    first, second = tried_again().attempts
    second = replace(second, first_content_at=second.started_at + 0.5)
    sink = MetricsSink("1.2.3")
    sink.set_known({first.node_id: [MODEL], second.node_id: [MODEL]})
    sink.take(replace(tried_again(), attempts=(first, second)))
    name = "herd_upstream_time_to_first_token_seconds"
    assert value(sink, f"{name}_count", node=first.node_id) == 0
    assert value(sink, f"{name}_sum", node=second.node_id) == pytest.approx(0.5)


def test_a_node_s_time_per_token_is_the_request_s_that_it_answered():
    """The same figure by model and by node: one of the two says what has become slow."""
    sink, event = sink_with(MODEL), builders.finished()
    sink.take(event)
    names = ("herd_time_per_output_token_seconds_sum", "herd_upstream_time_per_output_token_seconds_sum")
    sums = [value(sink, names[0], model=MODEL), value(sink, names[1], node="ada")]
    assert sums == pytest.approx([event.time_per_output_token_s] * 2)


def test_a_whole_answer_says_nothing_of_a_node_s_tokens():
    """All of its tokens come at once, whatever the node did."""
    sink = sink_with(MODEL)
    sink.take(builders.finished(asked=builders.request(stream=False)))
    for what in ("time_to_first_token", "time_per_output_token"):
        assert value(sink, f"herd_upstream_{what}_seconds_count", node="ada") == 0


def test_a_request_that_waited_for_nothing_is_in_the_bucket_zero():
    """Within the first bucket a percentile is a guess: no wait would be shown as one of milliseconds."""
    sink = sink_with(MODEL)
    sink.take(builders.finished())
    assert value(sink, "herd_queue_wait_seconds_bucket", model=MODEL, le="0.0") == 1


def test_tags_are_no_labels_unless_the_operator_lets_them_in():
    """Callers choose tags, and each one would be a series for ever."""
    sink = sink_with(MODEL)
    sink.take(builders.finished(tags=("prod",)))
    assert total(sink, "herd_tag_requests_total") == 0
    assert value(sink, "herd_label_overflow_total", label="tag") == 0


def test_as_many_tags_as_are_let_in_are_counted_and_the_others_together():
    """A bill by team needs the teams, not whatever a script invents."""
    sink = sink_with(MODEL, max_tags=2)
    for tags in (("prod", "team-a"), ("prod", "oops-1"), ("oops-2", "oops-3")):
        sink.take(builders.finished(tags=tags))
    counted = {tag: value(sink, "herd_tag_requests_total", tag=tag) for tag in ("prod", "team-a", "_unknown")}
    assert counted == {"prod": 2, "team-a": 1, "_unknown": 2}
    assert value(sink, "herd_tag_requests_total", tag="oops-1") is None
    assert value(sink, "herd_label_overflow_total", label="tag") == 3
    assert value(sink, "herd_tag_tokens_total", tag="prod", type="output") > 0


def test_an_unknown_model_is_not_an_overflow():
    """The alert on overflow is about the fleet's size, not about clients' typing errors."""
    sink = sink_with("a:1", max_models=2)
    sink.take(builders.finished(model="typo:1"))
    assert value(sink, "herd_label_overflow_total", label="model") == 0


def test_a_model_that_is_in_stays_in_when_the_fleet_outgrows_the_cap():
    """Series that changed owner with each heartbeat would be worthless."""
    sink = sink_with("m:1", "n:1", max_models=2)
    sink.set_known({"ada": ["a:1", "b:1", "m:1", "n:1"]})
    assert set(sink.models.known) == {"m:1", "n:1"}
    sink.set_known({"ada": ["a:1", "b:1", "n:1"]})
    assert set(sink.models.known) == {"a:1", "n:1"}


def test_a_node_beyond_the_cap_is_unknown():
    """Sixty-four nodes have their own series; the sixty-fifth does not."""
    sink = MetricsSink("1.2.3", max_nodes=1)
    sink.set_known({"ada": [MODEL], "bob": [MODEL]})
    sink.take(builders.finished(node_id="bob"))
    assert value(sink, "herd_upstream_requests_total", node="_unknown", code_class="2xx") == 1


def test_a_first_attempt_counts_for_its_reason_and_a_later_one_as_a_retry():
    """`reason` tells the plan's choice from its second thoughts."""
    event = tried_again()
    first, second = (attempt.node_id for attempt in event.attempts)
    sink = MetricsSink("1.2.3")
    sink.set_known({first: [MODEL], second: [MODEL]})
    sink.take(event)
    assert value(sink, "herd_routing_decisions_total", node=first, reason=event.decision.reason.value) == 1
    assert value(sink, "herd_routing_decisions_total", node=second, reason="retry") == 1
    assert value(sink, "herd_retries_total", reason="connect") == 1
    assert total(sink, "herd_retries_exhausted_total") == 0


def test_a_request_that_failed_for_want_of_another_node_is_exhausted_not_retried():
    """The two counters answer different questions: was it tried again, was it given up."""
    sink = sink_with(MODEL)
    sink.take(gave_up())
    assert value(sink, "herd_retries_exhausted_total", reason="connect") == 1
    assert total(sink, "herd_retries_total") == 0


def test_a_retry_that_the_budget_forbade_counts_by_what_it_was_for():
    """Whether nodes refuse or break is the first question when everything is tried again."""
    sink = sink_with(MODEL)
    for error_type in ("upstream_5xx", "connect", "connect"):
        attempt = replace(tried_again().attempts[0], error_type=error_type)
        for spent in (True, False):
            sink.take(AttemptFailed("r1", "0" * 31 + "1", attempt, will_retry=False, budget_spent=spent))
    assert value(sink, "herd_retry_budget_exhausted_total", reason="connect") == 2
    assert value(sink, "herd_retry_budget_exhausted_total", reason="upstream_5xx") == 1
    assert value(sink, "herd_retry_budget_exhausted_total", reason="stream_aborted") == 0


@pytest.mark.parametrize(
    ("http_status", "code_class"), [(200, "2xx"), (404, "4xx"), (503, "5xx"), (None, "none"), (99, "none")]
)
def test_attempts_count_by_the_class_of_the_node_s_answer(http_status, code_class):
    """A connection refused has no code, and must not look like one."""
    sink = sink_with(MODEL)
    attempt = Attempt(1, "ada", MODEL, "http://ada:11434", "1" * 16, builders.NOON, builders.NOON + 1, http_status)
    sink.take(replace(builders.finished(), attempts=(attempt,)))
    assert value(sink, "herd_upstream_requests_total", node="ada", code_class=code_class) == 1


@pytest.mark.parametrize(("load_s", "loads"), [(0.4, 0), (0.6, 1), (None, 0), (float("nan"), 0), (float("inf"), 0)])
def test_only_a_load_over_half_a_second_is_a_cold_one(load_s, loads):
    """Ollama reports some milliseconds of load for every request, loaded or not."""
    sink = sink_with(MODEL)
    sink.take(builders.finished(usage=Usage(1, 1, source="reported", load_s=load_s)))
    assert value(sink, "herd_model_loads_total", node="ada", model=MODEL) == loads
    assert value(sink, "herd_model_load_seconds_count", node="ada") == loads


@pytest.mark.parametrize(
    ("endpoint", "status", "missing"),
    [("/api/chat", Status.COMPLETED, 1), ("/api/chat", Status.FAILED, 0), ("/api/embeddings", Status.COMPLETED, 0)],
)
def test_missing_usage_is_told_only_where_usage_belongs(endpoint, status, missing):
    """An alert that fires for failures, or for an endpoint that never counts, is switched off by its owner."""
    sink = sink_with(MODEL)
    sink.take(replace(builders.finished(usage=Usage(), status=status), endpoint=endpoint))
    assert value(sink, "herd_usage_missing_total", model=MODEL) == missing


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_a_request_that_only_loads_a_model_is_not_asked_for_tokens(reason):
    """Clients that keep a model warm would set off the alert about engines that do not count."""
    sink = sink_with(MODEL)
    sink.take(builders.finished(usage=Usage(finish_reason=reason)))
    assert value(sink, "herd_usage_missing_total", model=MODEL) == 0


def test_a_fallback_from_an_unknown_model_does_not_name_it():
    """The model that was asked for is a user's string."""
    sink = sink_with(OTHER)
    sink.take(builders.finished(model="gone:1b", served=OTHER))
    assert total(sink, "herd_fallbacks_total", from_model="_unknown", to_model=OTHER) == 1
    assert b"gone:1b" not in sink.render()[0]


def test_the_prediction_s_ratio_leaves_out_requests_that_were_tried_twice():
    """Nobody predicted the failed attempt."""
    sink = sink_with(MODEL)
    sink.take(retried())
    assert value(sink, "herd_predicted_ttft_error_ratio_count") == 0
    sink.take(builders.finished())
    assert value(sink, "herd_predicted_ttft_error_ratio_count") == 1


def test_whole_answers_have_no_time_to_first_token():
    """A whole answer's first byte is its last; averaging the two would hide slow prefill."""
    sink = sink_with(MODEL)
    sink.take(builders.finished(asked=builders.request(stream=False)))
    assert value(sink, "herd_time_to_first_token_seconds_count", model=MODEL) == 0
    assert value(sink, "herd_request_duration_seconds_count", model=MODEL, stream="false") == 1


def test_a_request_that_never_reached_the_queue_is_no_wait_of_zero():
    """Refusals would pull the percentiles of waiting down."""
    sink = sink_with(MODEL)
    sink.take(builders.refused())
    assert total(sink, "herd_queue_wait_seconds_count") == 0
    sink.take(builders.finished())
    assert value(sink, "herd_queue_wait_seconds_count", model=MODEL) == 1


def test_openmetrics_exemplars_carry_the_trace_id():
    """From a spike on the latency panel to its trace in one click."""
    sink, event = sink_with(MODEL), builders.finished()
    sink.take(event)
    for name in ("herd_request_duration_seconds", "herd_time_to_first_token_seconds"):
        exemplars = [sample.exemplar for sample in open_families(sink)[name].samples if sample.exemplar]
        assert [exemplar.labels for exemplar in exemplars] == [{"trace_id": event.ids.trace_id}]


@pytest.mark.parametrize(
    ("spans_exported", "sampled", "linked"), [(True, True, True), (True, False, False), (False, False, True)]
)
def test_an_exemplar_names_a_trace_that_somebody_has(spans_exported, sampled, linked):
    """A point that leads to a trace which was left out is a dead link; without spans it leads to row and log line."""
    sink, event = sink_with(MODEL, spans_exported=spans_exported), builders.finished()
    sink.take(replace(event, ids=replace(event.ids, sampled=sampled)))
    for name in ("herd_request_duration_seconds", "herd_time_to_first_token_seconds"):
        exemplars = [sample.exemplar for sample in open_families(sink)[name].samples if sample.exemplar]
        assert bool(exemplars) is linked
        assert value(sink, f"{name}_count", model=MODEL, **({"stream": "true"} if "duration" in name else {})) == 1


def test_prometheus_text_has_no_exemplars_and_neither_format_has_created_series():
    """The text format cannot carry exemplars; `_created` would nearly double the lines."""
    sink = sink_with(MODEL)
    for event in script():
        sink.take(event)
    text, openmetrics = sink.render("")[0], sink.render(OPENMETRICS)[0]
    assert b"trace_id" not in text
    assert b"_created" not in text + openmetrics
    assert openmetrics.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", True),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.8", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nonsense", False),
        (",;,;q=,application", False),
    ],
)
def test_the_format_follows_the_accept_header(accept, openmetrics):
    """Prometheus weighs several formats; garbage gets the plain one, never an error."""
    assert prefers_openmetrics(accept) is openmetrics
    assert ("openmetrics" in sink_with(MODEL).render(accept)[1]) is openmetrics


def test_a_name_that_utf_8_cannot_carry_does_not_break_the_exposition():
    """One lone surrogate in one model's name would take every metric down."""
    sink = sink_with("evil\udcff:latest")
    sink.take(builders.finished(model="evil\udcff:latest"))
    assert total(sink, "herd_requests_total", model="evil?:latest") == 1


def test_rendering_in_a_thread_survives_a_fleet_that_changes_meanwhile():
    """Scrapes run beside the event loop, not in turn with it."""
    sink, failures = MetricsSink("1.2.3"), []

    def scrape():
        try:
            for _ in range(10):
                text_families(sink)
        except (RuntimeError, KeyError, ValueError) as error:
            failures.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    while thread.is_alive():
        sink.set_known({f"node-{number}": [f"m{number}:1"] for number in range(10)})
        sink.take(builders.finished(model="m1:1", node_id="node-1"))
        sink.set_known({})
    thread.join()
    assert failures == []


def test_the_seconds_that_were_predicted_stand_beside_those_that_were_seen_by_node_and_part():
    """Their quotient over time says which node routing is wrong about, and in what."""
    sink = sink_with(MODEL)
    sink.take(builders.finished(predicted=Predicted(0.5, 1.0, 0.25, 2.0), ttft_s=0.25, latency_s=1.5))
    sink.take(retried())
    for phase, predicted, seen in (("queue", 0.5, 0.0), ("load", 1.0, 0.0), ("decode", 2.0, 1.25)):
        labels = {"node": "ada", "phase": phase}
        assert total(sink, "herd_predicted_seconds_total", **labels) == predicted
        assert total(sink, "herd_actual_seconds_total", **labels) == seen

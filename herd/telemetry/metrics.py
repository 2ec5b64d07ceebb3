"""The metrics of every event, counted in the caller: an increment costs less than handing the event to a thread.

`take` and `set_known` are called on the event loop, `render` in any thread. The catalog says what each metric means.
"""

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from herd.core.events import Attempt, AttemptFailed, ContextProtected, Event, Finished, FleetChanged, Status, Usage
from herd.telemetry import catalog
from herd.telemetry.catalog import COLD_LOAD_S, NO_NODE, STALL_S, TOKEN_TYPES, UNKNOWN
from herd.telemetry.instruments import Instruments
from herd.telemetry.labels import FirstCome, Names
from herd.telemetry.scrape import ScrapeView, families, family

OPENMETRICS = "application/openmetrics-text"
MOST_TOKENS = 2**53  # what a float counts exactly; an engine that reports more reports nonsense
LONGEST_LOAD_S = 86_400.0
ERROR_TYPES = frozenset(catalog.ERROR_TYPE.values or ())
ENDPOINTS = frozenset(catalog.ENDPOINT.values or ())
QUEUE_REASONS = frozenset(catalog.QUEUE_REASON.values or ())
FALLBACK_REASONS = frozenset(catalog.FALLBACK_REASON.values or ())
BREAKER_TO = frozenset(catalog.BREAKER_TO.values or ())
ACTIONS = frozenset(catalog.ACTION.values or ())
RETRYABLE = frozenset(catalog.RETRYABLE)
# OpenMetrics wants neither `_sum` nor `_count` where values may be negative; the client leaves out only the first.
SIGNED = frozenset(metric.name for metric in catalog.METRICS if metric.buckets and metric.buckets[0] < 0)


class MetricsSink:
    """Counts events, and renders what it counted together with what a scrape reads."""

    def __init__(
        self,
        version: str,
        started_at: float | None = None,
        max_models: int = catalog.MAX_MODELS,
        max_nodes: int = catalog.MAX_NODES,
        max_tags: int = 0,
        spans_exported: bool = False,
    ) -> None:
        self._version, self._spans_exported = version, spans_exported
        self._started_at = time.time() if started_at is None else started_at
        made = self._made = Instruments()
        self._requests = made.counter("herd_requests_total")
        self._finished_total = made.counter("herd_requests_finished_total")
        self._errors = made.counter("herd_request_errors_total")
        self._duration = made.histogram("herd_request_duration_seconds")
        self._ttft = made.histogram("herd_time_to_first_token_seconds")
        self._per_token = made.histogram("herd_time_per_output_token_seconds")
        self._tokens = made.counter("herd_tokens_total")
        self._tokens_total = made.counter("herd_tokens_finished_total")
        self._usage_missing = made.counter("herd_usage_missing_total")
        self._decisions = made.counter("herd_routing_decisions_total")
        self._rejected = made.counter("herd_candidates_rejected_total")
        self._signals = made.histogram("herd_signal_seconds")
        self._decision_time = made.histogram("herd_routing_decision_duration_seconds").of()
        self._overhead = made.histogram("herd_overhead_seconds").of()
        self._prediction = made.histogram("herd_predicted_ttft_error_ratio").of()
        self._queue_wait = made.histogram("herd_queue_wait_seconds")
        self._queue_rejected = made.counter("herd_queue_rejected_total")
        self._retries = made.counter("herd_retries_total")
        self._exhausted = made.counter("herd_retries_exhausted_total")
        self._fallbacks = made.counter("herd_fallbacks_total")
        self._context = made.counter("herd_context_protection_total")
        self._budget = made.counter("herd_retry_budget_exhausted_total")
        self._zombies = made.counter("herd_zombies_reaped_total")
        self._breakers = made.counter("herd_breaker_transitions_total")
        self._upstream = made.counter("herd_upstream_requests_total")
        self._upstream_time = made.histogram("herd_upstream_duration_seconds")
        self._loads = made.counter("herd_model_loads_total")
        self._load_time = made.histogram("herd_model_load_seconds")
        self._lag, self._stalls = (
            made.histogram("herd_event_loop_lag_seconds").of(), made.counter("herd_event_loop_stalls_total").of()
        )  # fmt: skip
        self._commit = made.histogram("herd_trace_store_commit_seconds").of()
        self._overflow = made.counter("herd_label_overflow_total")
        self.models = Names(max_models, self._overflow.of("model").inc)
        self.nodes = Names(max_nodes, self._overflow.of("node").inc)
        self._tags = Tagged(made, FirstCome(max_tags, self._overflow.of("tag").inc))
        self._pairs: set[tuple[str, str]] = set()
        made.prepare({})
        for error_type in catalog.ERROR_TYPE.values or ():
            self._errors.of(error_type, NO_NODE)

    def take(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, Finished):
            self._finished(event)
        elif isinstance(event, ContextProtected) and event.action.action in ACTIONS:
            self._context.of(event.action.action).inc()
        elif isinstance(event, AttemptFailed) and event.budget_spent:
            self._budget.of(_retry_reason(event.attempt)).inc()
        elif isinstance(event, FleetChanged) and event.kind == "zombie_reaped":
            self._zombies.of(self.nodes.of(event.node_id) if event.node_id else NO_NODE).inc()
        elif isinstance(event, FleetChanged) and event.kind == "breaker_changed" and event.data["to"] in BREAKER_TO:
            self._breakers.of(self.nodes.of(event.node_id), str(event.data["to"])).inc()

    def set_known(self, nodes: Mapping[str, Collection[str]]) -> None:
        """Take the fleet's nodes with the models of each: series come at zero, and go with who left."""
        nodes_come, nodes_gone = self.nodes.update(nodes.keys())
        models_come, models_gone = self.models.update({model for held in nodes.values() for model in held})
        for node in nodes_gone:
            self._made.forget_node(node)
        for model in models_gone:
            self._made.forget_model(model)
        for node in sorted(nodes_come):
            self._made.prepare({"node": node})
        for model in sorted(models_come):
            self._made.prepare({"model": model})
        self._prepare_pairs(nodes)

    def observe_commit(self, seconds: float) -> None:
        """Record the length of one commit of the trace store; may be called from its thread."""
        self._commit.observe(seconds)

    def observe_lag(self, seconds: float) -> None:
        """Record how late the event loop came."""
        self._lag.observe(seconds)
        if seconds > STALL_S:
            self._stalls.inc()

    def render(self, accept: str = "", view: ScrapeView | None = None) -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics if `accept` prefers it, else Prometheus text.

        Takes milliseconds: run it in a thread, with a view that was made on the event loop.
        """
        everything = _Everything(chain(self._made.registry.collect(), self._read(view or ScrapeView())))
        if prefers_openmetrics(accept):
            body: bytes = openmetrics.generate_latest(everything)  # type: ignore[no-untyped-call]
            return body, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(everything), CONTENT_TYPE_PLAIN_0_0_4

    def _read(self, view: ScrapeView) -> Iterator[Metric]:
        yield from families(view, self.models, self.nodes)
        yield family("herd_build_info", [((self._version,), 1)])
        yield family("herd_start_time_seconds", [((), self._started_at)])

    def _prepare_pairs(self, nodes: Mapping[str, Collection[str]]) -> None:
        models, names = set(self.models.known), set(self.nodes.known)
        self._pairs = {(node, model) for node, model in self._pairs if node in names and model in models}
        for node, held in nodes.items():
            for pair in ((node, model) for model in sorted(models.intersection(held)) if node in names):
                if pair not in self._pairs:
                    if not self._made.prepare({"node": node, "model": pair[1]}):
                        return
                    self._pairs.add(pair)

    def _finished(self, event: Finished) -> None:
        model = self.models.of(event.model)
        node = self.nodes.of(event.chosen.node_id) if event.chosen else NO_NODE
        self._outcome(event, model, node)
        self._times(event, model)
        self._usage(event, model, node)
        self._decision(event)
        for attempt in event.attempts:
            self._attempt(event, attempt)
        self._retried(event)
        self._tags.take(event)

    def _outcome(self, event: Finished, model: str, node: str) -> None:
        endpoint = event.endpoint if event.endpoint in ENDPOINTS else UNKNOWN
        self._requests.of(endpoint, model, event.status).inc()
        self._finished_total.of(event.status).inc()
        if event.error_type is not None:
            self._errors.of(event.error_type if event.error_type in ERROR_TYPES else "internal", node).inc()
        if event.error_type in QUEUE_REASONS:
            self._queue_rejected.of(event.error_type).inc()
        if (reason := event.fallback_reason) in FALLBACK_REASONS and event.request:
            self._fallbacks.of(self.models.of(event.request.model), model, reason).inc()

    def _times(self, event: Finished, model: str) -> None:
        # Where spans go out, an exemplar is a link to one; without them it still leads to the row and the log line.
        linked = event.ids.sampled or not self._spans_exported
        exemplar = {"trace_id": event.ids.trace_id} if linked else None
        stream = "true" if event.request and event.request.stream else "false"
        self._duration.of(model, stream).observe(event.latency_s, exemplar)
        self._overhead.observe(event.overhead_s)
        ttft_s, per_token_s = event.ttft_s, event.time_per_output_token_s
        if ttft_s is not None:
            self._ttft.of(model).observe(ttft_s, exemplar)
            self._predicted(event, ttft_s)
        if per_token_s is not None:
            self._per_token.of(model).observe(per_token_s)
        if event.attempts or event.queued_at is not None:
            self._queue_wait.of(model).observe(event.queue_s)

    def _predicted(self, event: Finished, ttft_s: float) -> None:
        # A second attempt's wait was nobody's prediction.
        if event.chosen and len(event.attempts) == 1 and ttft_s > 0:
            self._prediction.observe(event.chosen.predicted_ttft_s / ttft_s)

    def _usage(self, event: Finished, model: str, node: str) -> None:
        usage = event.usage
        for kind, count in _tokens(usage):
            self._tokens.of(model, node, kind).inc(count)
            self._tokens_total.of(kind).inc(count)
        uncounted = event.endpoint in catalog.NO_USAGE or usage.finish_reason in catalog.NO_ANSWER
        if usage.source == "missing" and event.status is Status.COMPLETED and not uncounted:
            self._usage_missing.of(model).inc()
        if usage.load_s and COLD_LOAD_S < usage.load_s < LONGEST_LOAD_S:
            self._loads.of(node, model).inc()
            self._load_time.of(node).observe(usage.load_s)

    def _decision(self, event: Finished) -> None:
        if event.decision_s is not None:
            self._decision_time.observe(event.decision_s)
        for entry in event.decision.rejected if event.decision else ():
            self._rejected.of(entry.reason).inc()
        for signal, seconds in event.chosen.signals.items() if event.chosen else ():
            self._signals.of(signal).observe(seconds)

    def _attempt(self, event: Finished, attempt: Attempt) -> None:
        node = self.nodes.of(attempt.node_id)
        if reason := event.reason_of(attempt):
            self._decisions.of(node, reason).inc()
        self._upstream.of(node, _code_class(attempt.http_status)).inc()
        self._upstream_time.of(node).observe(attempt.ended_at - attempt.started_at)

    def _retried(self, event: Finished) -> None:
        for attempt in event.attempts[:-1]:
            self._retries.of(_retry_reason(attempt)).inc()
        if event.status is Status.FAILED and event.attempts and event.attempts[-1].error_type in RETRYABLE:
            self._exhausted.of(_retry_reason(event.attempts[-1])).inc()


class Tagged:
    """Counts requests and tokens by the callers' tags, as far as the operator lets tags in."""

    def __init__(self, made: Instruments, names: FirstCome) -> None:
        self._names = names
        self._requests = made.counter("herd_tag_requests_total")
        self._tokens = made.counter("herd_tag_tokens_total")

    def take(self, event: Finished) -> None:
        """Count a request once for each of its tags."""
        tags = event.request.tags if self._names.cap and event.request else ()
        for tag in {self._names.of(tag) for tag in tags}:
            self._requests.of(tag).inc()
            for kind, count in _tokens(event.usage):
                self._tokens.of(tag, kind).inc(count)


class _Everything(Collector):
    """One scrape's families, as the client's renderers want them."""

    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        for metric in self._found:
            if metric.name in SIGNED:
                metric.samples = [sample for sample in metric.samples if sample.name.endswith("_bucket")]
            yield metric


def prefers_openmetrics(accept: str) -> bool:
    """Whether an Accept header asks for OpenMetrics at least as much as for plain text."""
    return (quality := _quality(accept, OPENMETRICS)) > 0 and quality >= _quality(accept, "text/plain")


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header names gzip."""
    return _quality(accept_encoding, "gzip") > 0


def _quality(accept: str, wanted: str) -> float:
    """The highest `q` that an Accept header, of types or encodings, gives this one; 0 where it does not name it."""
    best = 0.0
    for entry in accept.lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        if name == wanted:
            q = next((part[2:] for part in parameters if part.startswith("q=")), "1")
            try:
                best = max(best, float(q)) if math.isfinite(float(q)) else best
            except ValueError:
                continue
    return best


def _tokens(usage: Usage) -> Iterator[tuple[str, int]]:
    """The counts that there are, by type."""
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens)
    for kind, count in zip(TOKEN_TYPES, counts, strict=True):
        if count and count > 0:
            yield kind, min(count, MOST_TOKENS)


def _code_class(http_status: int | None) -> str:
    return f"{http_status // 100}xx" if http_status and 200 <= http_status < 600 else "none"


def _retry_reason(attempt: Attempt) -> str:
    # An attempt that was followed by another failed retryably; anything else would be a defect, and is counted as one.
    return attempt.error_type if attempt.error_type in RETRYABLE else "bad_response"

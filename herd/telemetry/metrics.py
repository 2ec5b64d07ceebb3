"""The metrics of every event, counted in the caller: an increment costs less than handing the event to a thread.

`take` and `set_known` are called on the event loop, `render` in any thread. The catalog says what each metric counts.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from herd.core.events import Event
from herd.telemetry import gauges
from herd.telemetry.catalog import METRICS
from herd.telemetry.catalog.labels import MAX_MODELS, MAX_NODES
from herd.telemetry.catalog.shapes import Metric
from herd.telemetry.counting import Counting
from herd.telemetry.labels import FirstCome, Known, Names
from herd.telemetry.measured import Committed, LoopDelayed, Overflown
from herd.telemetry.scrape import ScrapeView
from herd.telemetry.text import END

OPENMETRICS = "application/openmetrics-text"
# A thread that computes keeps the interpreter from the event loop for 5 ms at a time, each time that the loop wakes. So
# a scrape pauses after so many lines, a fraction of a millisecond, for long enough that the loop is let in.
STRETCH: Final = 250
PAUSE_S: Final = 0.0001


class MetricsSink:
    """Counts events, and renders what it counted together with what a scrape reads."""

    def __init__(
        self,
        version: str,
        started_at: float | None = None,
        max_models: int = MAX_MODELS,
        max_nodes: int = MAX_NODES,
        max_tags: int = 0,
        spans_exported: bool = False,
        metrics: Iterable[Metric] = METRICS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._version, self._metrics, self._pause = version, tuple(metrics), pause
        self._started_at = time.time() if started_at is None else started_at
        self.models = Names(max_models, lambda: self._counting.count(Overflown("model")))
        self.nodes = Names(max_nodes, lambda: self._counting.count(Overflown("node")))
        names: dict[str, Known] = {"node": self.nodes, "model": self.models}
        if max_tags:
            names["tag"] = FirstCome(max_tags, lambda: self._counting.count(Overflown("tag")))
        self._counting = Counting(self._metrics, names, _sampled if spans_exported else _any)
        self._pairs: set[tuple[str, str]] = set()

    def take(self, event: Event) -> None:
        """Count an event."""
        self._counting.take(event)

    def set_known(self, nodes: Mapping[str, Collection[str]]) -> None:
        """Take the fleet's nodes with the models of each: series come at zero, and go with who left."""
        nodes_come, nodes_gone = self.nodes.update(nodes.keys())
        models_come, models_gone = self.models.update({model for held in nodes.values() for model in held})
        for node in nodes_gone:
            self._counting.forget("node", node)
        for model in models_gone:
            self._counting.forget("model", model)
        for node in sorted(nodes_come):
            self._counting.prepare({"node": node})
        for model in sorted(models_come):
            self._counting.prepare({"model": model})
        self._prepare_pairs(nodes)

    def observe_commit(self, seconds: float) -> None:
        """Record the length of one commit of the trace store; may be called from its thread."""
        self._counting.count(Committed(seconds))

    def observe_lag(self, seconds: float) -> None:
        """Record how late the event loop came."""
        self._counting.count(LoopDelayed(seconds))

    def render(self, accept: str = "", view: ScrapeView | None = None) -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics if `accept` prefers it, else Prometheus text.

        Takes milliseconds: run it in a thread, with a view that was made on the event loop.
        """
        seen = dataclasses.replace(view or ScrapeView(), version=self._version, started_at=self._started_at)
        names = {"node": self.nodes, "model": self.models}
        openmetrics = prefers_openmetrics(accept)
        pieces = chain(
            self._counting.written(openmetrics), gauges.written(self._metrics, seen, names, openmetrics),
            [(1, END)] if openmetrics else (),
        )  # fmt: skip
        body = "".join(self._unhurried(pieces)).encode()
        return body, CONTENT_TYPE_LATEST if openmetrics else CONTENT_TYPE_PLAIN_0_0_4

    def _unhurried(self, pieces: Iterable[tuple[int, str]]) -> Iterator[str]:
        """The texts of these pieces, with pauses that leave the interpreter to others."""
        since = 0
        for lines, text in pieces:
            since += lines
            if since >= STRETCH:
                since = 0
                self._pause(PAUSE_S)
            yield text

    def _prepare_pairs(self, nodes: Mapping[str, Collection[str]]) -> None:
        models, names = set(self.models.known), set(self.nodes.known)
        self._pairs = {(node, model) for node, model in self._pairs if node in names and model in models}
        for node, held in nodes.items():
            for pair in ((node, model) for model in sorted(models.intersection(held)) if node in names):
                if pair not in self._pairs:
                    if not self._counting.prepare({"node": node, "model": pair[1]}):
                        return
                    self._pairs.add(pair)


def _any(event: Any) -> str:
    """The trace that an exemplar leads to: without exported spans it still leads to the row and the log line."""
    return str(event.ids.trace_id)


def _sampled(event: Any) -> str | None:
    """The same where spans go out: a trace that was left out would be a dead link."""
    return event.ids.trace_id if event.ids.sampled else None


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

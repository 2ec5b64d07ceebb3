"""What the agent tells of itself: metrics that are served where `--metrics-bind` says, spans where `OTEL_*` does.

The one place of the agent that knows `prometheus_client` and `opentelemetry`. It decides nothing.
"""

from dataclasses import dataclass, field

from .metrics import AgentMetrics
from .spans import NoSpans, Spans


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Both, for whoever does something that they tell of; by itself it is read by nobody."""

    metrics: AgentMetrics = field(default_factory=AgentMetrics)
    spans: Spans = field(default_factory=NoSpans)

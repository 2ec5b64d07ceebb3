"""The tables of docs/observability.md, made from what they are about: the panels, the alerts, the agents' metrics."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from grafana.panels import Row
from node.telemetry.catalog import METRICS, Metric
from otel.alerts import Alert

BEGIN: Final = "<!-- From here to the end: made by `make pack`. -->\n"


def document(text: str, dashboards: Mapping[str, tuple[str, str, tuple[Row, ...]]], alerts: Iterable[Alert]) -> str:
    """The document with its tables as they are now; what stands before them is kept. ValueError without their mark."""
    kept, mark, _ = text.partition(BEGIN)
    if not mark:
        raise ValueError(f"the document has lost the line {BEGIN!r}")
    return "\n".join((kept + mark, *_dashboards(dashboards), *_alerts(alerts), *_agents_metrics()))


def _dashboards(dashboards: Mapping[str, tuple[str, str, tuple[Row, ...]]]) -> Iterable[str]:
    yield "## The panels\n"
    for title, description, rows in dashboards.values():
        yield f"### {title}\n\n{description}\n"
        panels = [panel for row in rows for panel in row.panels]
        yield _table(("panel", "shows"), ((panel.title, panel.description) for panel in panels))


def _alerts(alerts: Iterable[Alert]) -> Iterable[str]:
    yield "## The alerts\n"
    yield _table(
        ("alert", "severity", "when", "for"),
        ((f"[`{alert.name}`](runbook.md#{alert.name.lower()})", alert.severity, f"`{alert.expr}`", alert.hold)
         for alert in alerts),
    )  # fmt: skip


def _agents_metrics() -> Iterable[str]:
    yield "## The agents' metrics\n"
    yield _table(("metric", "type", "labels", "meaning"), map(_metric_row, METRICS))


def _metric_row(metric: Metric) -> tuple[str, ...]:
    labels = [f"`{label.name}`" + (f" ({', '.join(label.values)})" if label.values else "") for label in metric.labels]
    return f"`{metric.name}`", metric.kind, ", ".join(labels), metric.help


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(re.sub(r'[|]', chr(92) + '|', cell) for cell in line)} |\n" for line in lines)

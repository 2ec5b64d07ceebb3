"""The catalog as a document: `docs/metrics.md` is this, word for word, so it cannot say what the code does not do."""

from collections.abc import Iterable, Sequence

from herd.telemetry.catalog import ATTRIBUTES, LOG_FIELDS, METRICS, Entry, Metric

HEAD = """# Metrics, spans and log fields

Generated from `herd/telemetry/catalog/` by `herd docs --write`; change it there.
"""


def metrics_markdown(metrics: Sequence[Metric] = METRICS) -> str:
    """The whole of `docs/metrics.md`."""
    parts = (
        HEAD,
        "## Metrics\n\nAt `/metrics`, as Prometheus text or OpenMetrics; exemplars carry the `trace_id`.\n",
        _table(("metric", "type", "labels", "meaning"), map(_metric_row, metrics)),
        "### Buckets\n",
        _table(("metric", "upper bounds"), map(_bucket_row, (metric for metric in metrics if metric.buckets))),
        "### Labels\n\nA label has no other values than these; open lists are the names of the fleet, capped.\n",
        _table(("label", "of", "meaning", "values"), _label_rows(metrics)),
        "## Span attributes\n\nExported by OTLP/HTTP where an endpoint is configured.\n",
        _table(("attribute", "where", "meaning"), map(_entry_row, ATTRIBUTES)),
        "## Log fields\n\nOne JSON object a line in `logs/herd.jsonl`.\n",
        _table(("field", "where", "meaning"), map(_entry_row, LOG_FIELDS)),
    )
    return "\n".join(parts)


def _metric_row(metric: Metric) -> tuple[str, ...]:
    notes = [metric.help, "Has exemplars." if metric.exemplar else "", "Spare." if metric.spare else ""]
    labels = ", ".join(f"`{label.name}`" for label in metric.labels)
    return f"`{metric.name}`", metric.kind, labels, " ".join(filter(None, notes))


def _bucket_row(metric: Metric) -> tuple[str, ...]:
    return f"`{metric.name}`", ", ".join(f"{bound:g}" for bound in metric.buckets)


def _label_rows(metrics: Sequence[Metric]) -> Iterable[tuple[str, ...]]:
    """Every label once, in the order of the metrics."""
    for label in dict.fromkeys(label for metric in metrics for label in metric.labels):
        users = [f"`{metric.name}`" for metric in metrics if label in metric.labels]
        values = "open" if label.values is None else ", ".join(f"`{value}`" for value in label.values)
        yield f"`{label.name}`", ", ".join(users) if len(users) <= 3 else f"{len(users)} metrics", label.help, values


def _entry_row(entry: Entry) -> tuple[str, ...]:
    return f"`{entry.name}`", entry.where, entry.help


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)

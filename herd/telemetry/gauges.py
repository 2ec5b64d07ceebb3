"""Metrics read at scrape time: from a frozen view to lines, by the catalog's declarations.

A node beyond the cap is left out; samples that fall together, as those of models beyond it do, are added up.
"""

from collections.abc import Iterable, Iterator, Mapping

from herd.telemetry.catalog.labels import MODEL, UNKNOWN
from herd.telemetry.catalog.shapes import Label, Metric, Sample
from herd.telemetry.labels import Names, clean
from herd.telemetry.scrape import NodeSeen, ScrapeView
from herd.telemetry.text import Writing

Amounts = dict[tuple[str, ...], float]


def written(
    metrics: Iterable[Metric], view: ScrapeView, names: Mapping[str, Names], openmetrics: bool
) -> Iterator[tuple[int, str]]:
    """The exposition of these metrics in the order of the table, piece by piece with the number of lines."""
    labelled = [(names["node"].peek(node.beat.node_id), node) for node in view.nodes]
    shown = [(label, node) for label, node in labelled if label != UNKNOWN]
    for metric in metrics:
        if metric.reads is not None:
            of_nodes = metric.reads.source is NodeSeen
            amounts = _of_nodes(metric, shown, names) if of_nodes else _of_router(metric, view, names)
            writing = Writing(metric, openmetrics)
            yield 2, writing.head()
            for values, amount in amounts.items():
                yield 1, writing.amount(values, 1.0 if metric.kind == "info" else amount)


def _of_nodes(metric: Metric, shown: Iterable[tuple[str, NodeSeen]], names: Mapping[str, Names]) -> Amounts:
    amounts: Amounts = {}
    for node, seen in shown:
        _add(amounts, (node,), metric.labels[1:], metric.reads.samples(seen) if metric.reads else (), names)
    return amounts


def _of_router(metric: Metric, view: ScrapeView, names: Mapping[str, Names]) -> Amounts:
    """What is read by model alone is 0 for a model that the view does not mention."""
    amounts: Amounts = {(model,): 0.0 for model in names["model"].known} if metric.labels == (MODEL,) else {}
    _add(amounts, (), metric.labels, metric.reads.samples(view) if metric.reads else (), names)
    return amounts


def _add(
    amounts: Amounts, first: tuple[str, ...], labels: tuple[Label, ...], samples: Iterable[Sample],
    names: Mapping[str, Names],
) -> None:  # fmt: skip
    for values, amount in samples:
        if amount is not None:
            rest = (_shown(label, value or "", names) for label, value in zip(labels, values, strict=True))
            key = (*first, *rest)
            amounts[key] = amounts.get(key, 0.0) + amount


def _shown(label: Label, value: str, names: Mapping[str, Names]) -> str:
    return names[label.names].peek(value) if label.names else clean(value)

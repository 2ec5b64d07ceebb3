"""Every metric, span attribute and log field, declared once in tables. Nothing else is recorded.

The sinks and `docs/metrics.md` are built from it. It holds no state.
"""

from typing import Final

from herd.telemetry.catalog import nodes, requests, router
from herd.telemetry.catalog.labels import LEVELS
from herd.telemetry.catalog.log import LOG_FIELDS
from herd.telemetry.catalog.shapes import Entry, Label, Metric
from herd.telemetry.catalog.spans import ATTRIBUTES

__all__ = ["ATTRIBUTES", "BY_NAME", "LEVELS", "LOG_FIELDS", "METRICS", "Entry", "Label", "Metric"]

METRICS: Final = (*requests.METRICS, *nodes.METRICS, *router.METRICS)
BY_NAME: Final = {metric.name: metric for metric in METRICS}

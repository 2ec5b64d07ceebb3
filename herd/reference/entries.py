"""The reference as data: settings, metrics, errors, signals and the operator's commands, from the router's own tables.

A topic is a list of entries of one shape; `pages` makes documents of them.
"""

import re
from collections.abc import Iterable
from inspect import getdoc
from pathlib import Path
from typing import Any, Final

from herd.core.errors import AttemptError, HerdError, OutOfFiles
from herd.core.health.checks import CHECKS
from herd.core.signals import SIGNALS
from herd.routes.runbook import RUNBOOK
from herd.settings.table import TABLE
from herd.telemetry.catalog import METRICS, Metric

Entries = list[dict[str, Any]]
TYPES: Final = {bool: "true or false", int: "whole number", float: "number", str: "text"}
OPERATIONS: Final = Path(__file__).with_name("operations.md")
BLOCK: Final = re.compile(r"(^```sh\n.*?^```$)", re.MULTILINE | re.DOTALL)


def settings() -> Entries:
    """Every setting with its type, default and meaning."""
    return [
        {
            "name": setting.name,
            "type": TYPES[type(setting.default)],
            "choices": list(setting.choices),
            **({"minimum": setting.minimum, "maximum": setting.maximum} if setting.is_number else {}),
            "default": setting.default,
            "runtime": setting.runtime,
            "option": f"--{setting.name.replace('_', '-')}",
            "environment": f"HERD_{setting.name.upper()}",
            "help": setting.help,
        }
        for setting in TABLE
    ]


def metrics(table: Iterable[Metric] = METRICS) -> Entries:
    """Every metric with its kind, labels and meaning."""
    return [
        {
            "name": metric.name,
            "type": metric.kind,
            "labels": [label.name for label in metric.labels],
            "buckets": list(metric.buckets),
            "exemplars": metric.exemplar,
            "help": metric.help,
        }
        for metric in table
    ]


def errors() -> Entries:
    """Every error of the tree that a request can end with."""
    return [
        {
            "error": kind.__name__,
            "error_type": kind.error_type,
            "status": kind.status,
            "retryable": kind.retryable,
            "where": "node" if issubclass(kind, AttemptError) and kind is not OutOfFiles else "herd",
            "help": getdoc(kind) or "",
        }
        for kind in _leaves(HerdError)
    ]


def signals() -> Entries:
    """The seven signals and the seconds that each of them is."""
    return [{"name": name, "help": getdoc(signal) or ""} for name, signal in SIGNALS.items()]


def operations() -> Entries:
    """The operator's commands, each with the task that it belongs to."""
    found: Entries = []
    heading = ""
    for part in BLOCK.split(OPERATIONS.read_text(encoding="utf-8")):
        if not part.startswith("```sh\n"):
            heading = next((line[3:] for line in reversed(part.splitlines()) if line.startswith("## ")), heading)
        else:
            found.append({"task": heading, "command": part.removeprefix("```sh\n").removesuffix("```").rstrip()})
    return found


def runbook() -> Entries:
    """Every health check with its thresholds and its section of the runbook."""
    text = RUNBOOK.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^#{2,3} |\Z)", text, re.MULTILINE | re.DOTALL))
    return [
        {
            "check_id": check.check_id,
            "finds": check.finds,
            "severities": [severity.value for severity in check.severities],
            "thresholds": list(check.thresholds),
            "section": sections.get(check.check_id, "").strip(),
        }
        for check in CHECKS
    ]


def _leaves(kind: type[HerdError]) -> list[type[HerdError]]:
    below = kind.__subclasses__()
    return [leaf for child in below for leaf in _leaves(child)] if below else [kind]

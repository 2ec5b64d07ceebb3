"""What the pack consists of, read back from the files that operators get, and the names that are used in it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from herd.telemetry import catalog as router
from node.telemetry import catalog as agent

ROOT = Path(__file__).parent.parent.parent
RULES = [ROOT / "otel" / "rules" / "recording.yml", ROOT / "otel" / "rules" / "alerts.yml"]
DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
OPTIONAL = sorted((ROOT / "grafana" / "optional").glob("*.json"))
METRICS = (*router.METRICS, *agent.METRICS)
BY_NAME = {metric.name: metric for metric in METRICS}
METRIC = re.compile(r"(?<![\w:])herd_[a-z0-9_]+\b(?!:)")  # not the middle of what is recorded, level:metric:operation
RECORDED = re.compile(r"\binstance(?:_model)?:\w+:\w+")
SELECTOR = re.compile(r"\b(herd_[a-z0-9_]+)\{([^}]*)\}")
LABEL = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\"")
BY = re.compile(r"\b(?:by|group_left|on)\s*\(([^)]*)\)")
HISTOGRAM_SUFFIX = re.compile(r"_(bucket|sum|count)$")
# What is left of a sentence with a word missing, or of a template that was not filled in.
HOLE = re.compile(r"\s[.,:;)]|\(\s*\)|\s\s|``|^\s|\s$|\{\{|<no value>|%!")
FREE_LABELS = {"le", "alertname", "alertstate", "severity", "job", "instance", ""}


def dashboard(path: Path) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    return dict(json.loads(path.read_text()))


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard, rows left out."""
    return [panel for panel in dashboard(path)["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str, str]]:
    """Every PromQL query of every panel: dashboard, panel, expression."""
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                if "expr" in target:
                    yield path.stem, panel["title"], target["expr"]


def rules() -> list[dict[str, Any]]:
    """Every rule of every rule file."""
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """The alerting rules."""
    return [rule for rule in rules() if "alert" in rule]


def metrics_in(text: str) -> set[str]:
    """The catalog's names of what is used in a text; a histogram's series stand for the histogram."""
    found = set()
    for name in METRIC.findall(text):
        base = HISTOGRAM_SUFFIX.sub("", name)
        found.add(base if name not in BY_NAME and base in BY_NAME else name)
    return found


def labels_in(expr: str) -> set[tuple[str, str]]:
    """The labels that each metric is asked for by."""
    return {
        (next(iter(metrics_in(name))), label)
        for name, inside in SELECTOR.findall(expr)
        for label in LABEL.findall(inside)
    }


def labels_of(metric: str) -> set[str]:
    """The labels that a metric has in Prometheus; an agent's has its node's name from the router's file of targets."""
    return {label.name for label in BY_NAME[metric].labels} | ({"node"} if metric in agent.BY_NAME else set())


def grouped_by(expr: str) -> set[str]:
    """The labels that results are grouped or joined by."""
    return {label.strip() for inside in BY.findall(expr) for label in inside.split(",")} - FREE_LABELS


def filled_in(expr: str, window: str, node: str = ".+", model: str = ".+", instance: str = ".+") -> str:
    """A panel's expression with Grafana's variables replaced as Grafana would."""
    for name, value in {
        "$__rate_interval": window, "$__range": window, "$__interval": window, "$node": node, "$model": model,
        "$instance": instance, "$page": "localhost",
    }.items():  # fmt: skip
        expr = expr.replace(name, value)
    assert "$" not in expr, f"a variable is left: {expr}"
    return expr

"""Writes the dashboards and the tables about them: `python -m grafana.build` (or `make pack`).

A test holds the files up to date.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from grafana import health, latency, rows, usage
from grafana.panels import DATABASE, PROMETHEUS, Row, laid_out
from grafana.queries import of
from grafana.reference import document
from otel.alerts import PAGE, alerts
from otel.build import write

Json = dict[str, Any]
HERE: Final = Path(__file__).parent
DOCUMENT: Final = HERE.parent / "docs" / "observability.md"
TAG: Final = "herd"
RUNBOOK: Final = f"http://$page{PAGE}"  # the text as the router itself serves it
Dashboards = Mapping[str, tuple[str, str, tuple[Row, ...]]]
DASHBOARDS: Final[Dashboards] = {
    "health": ("Herd / Health", "Is everything well, and if not, what is it?", health.ROWS),
    "latency": ("Herd / Latency", "How long do answers take, and where does the time go?", latency.ROWS),
    "usage": ("Herd / Usage", "Who asks for what, which nodes answer, and what room is left?", usage.ROWS),
}
# Needs a plugin that Grafana does not come with, so it is not among those that are provisioned.
OPTIONAL: Final[Dashboards] = {"rows": ("Herd / Rows", "What happened to single requests?", rows.ROWS)}


def dashboard(name: str) -> Json:
    """One dashboard as Grafana reads it."""
    optional = name in OPTIONAL
    title, description, found = {**DASHBOARDS, **OPTIONAL}[name]
    return {
        "uid": f"herd-{name}",
        "title": title,
        "description": description,
        "tags": [TAG],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": [] if optional else [_restarts()]},
        "links": [_siblings(), _link("Runbook", RUNBOOK)],
        "templating": {"list": [_database()] if optional else _variables()},
        "panels": laid_out(found, RUNBOOK),
    }


def _variables() -> list[Json]:
    return [
        _source("datasource", "Prometheus", "prometheus"),
        _source("tempo", "Tempo", "tempo"),
        _names("instance", "Router", "label_values(herd_build_info, instance)"),
        _page(),
        _names("node", "Node", f"label_values({of('herd_node_up')}, node)"),
        _names("model", "Model", f"label_values({of('herd_requests_total')}, model)"),
    ]


def _source(name: str, label: str, kind: str) -> Json:
    return {"type": "datasource", "name": name, "label": label, "query": kind, "hide": 0, "refresh": 1}


def _database() -> Json:
    return _source("database", "Database", DATABASE["type"])


def _names(name: str, label: str, query: str) -> Json:
    """A choice of names; all of them is a pattern, so that `_none` and `_unknown` are in it too."""
    return {
        "type": "query", "name": name, "label": label, "datasource": dict(PROMETHEUS), "hide": 0,
        "query": {"query": query, "refId": "Names"}, "definition": query, "refresh": 2, "sort": 1, "multi": True,
        "includeAll": True, "allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


def _page() -> Json:
    """The router that links lead to: the first of those that are chosen."""
    query = f"label_values({of('herd_build_info')}, instance)"
    return {
        "type": "query", "name": "page", "label": "Links lead to", "datasource": dict(PROMETHEUS), "hide": 2,
        "query": {"query": query, "refId": "Page"}, "definition": query, "refresh": 2, "sort": 1, "multi": False,
        "includeAll": False,
    }  # fmt: skip


def _siblings() -> Json:
    """Links to the other dashboards, with the time and the choices taken along."""
    return {
        "type": "dashboards", "title": "Herd", "tags": [TAG], "asDropdown": False, "includeVars": True,
        "keepTime": True, "targetBlank": False, "icon": "external link", "url": "", "tooltip": "",
    }  # fmt: skip


def _link(title: str, url: str) -> Json:
    return {
        "type": "link", "title": title, "url": url, "icon": "doc", "targetBlank": True, "tags": [],
        "asDropdown": False, "includeVars": False, "keepTime": False, "tooltip": "",
    }  # fmt: skip


def _restarts() -> Json:
    """A mark where the router began anew: its counters did too."""
    return {
        "name": "Router started", "enable": True, "hide": False, "iconColor": "purple", "datasource": dict(PROMETHEUS),
        "expr": f"{of('herd_start_time_seconds')} * 1000", "useValueForTime": True,
        "titleFormat": "Router started", "step": "1m",
    }  # fmt: skip


def files() -> dict[Path, str]:
    """Every generated file with its content."""
    folders = {"dashboards": DASHBOARDS, "optional": OPTIONAL}
    found = {
        HERE / folder / f"{name}.json": json.dumps(dashboard(name), indent=2, ensure_ascii=False) + "\n"
        for folder, names in folders.items()
        for name in names
    }
    everything = {**DASHBOARDS, **OPTIONAL}
    return {**found, DOCUMENT: document(DOCUMENT.read_text(encoding="utf-8"), everything, alerts())}


if __name__ == "__main__":
    write(files())

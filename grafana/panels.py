"""What a panel is and how it looks as Grafana's classic JSON. It knows Grafana's format, and nothing of herd's metrics.

Panels flow from left to right on a grid of 24 columns; a row of its own heads each group.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Json = dict[str, Any]
Kind = Literal["timeseries", "stat", "table", "heatmap", "bargauge", "piechart", "state-timeline"]
COLUMNS: Final = 24
PROMETHEUS: Final[Mapping[str, str]] = {"type": "prometheus", "uid": "${datasource}"}
TEMPO: Final[Mapping[str, str]] = {"type": "tempo", "uid": "${tempo}"}
DATABASE: Final[Mapping[str, str]] = {"type": "frser-sqlite-datasource", "uid": "${database}"}
TOKENS_A_SECOND: Final = "suffix:tok/s"  # Grafana has no unit for it; after `suffix:` it takes any
GREEN, YELLOW, RED = "green", "yellow", "red"
# A series that a label's value names has the colour of what the value means, wherever it is drawn.
MEANINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "status": {"completed": GREEN, "client_disconnected": "#8e8e8e", "incomplete": "orange", "failed": RED,
               "rejected": "purple"},
    "severity": {"info": "blue", "warning": YELLOW, "critical": RED},
}  # fmt: skip
# Without one Grafana's axis over nothing but zeros ends at 100, and a healthy fleet looks broken.
SOFT_MAXIMA: Final[Mapping[str, float]] = {"percentunit": 0.02, "s": 0.1}
TABLE_LEGEND: Final[Json] = {
    "displayMode": "table", "placement": "right", "showLegend": True, "calcs": ["lastNotNull", "max"],
    "sortBy": "Max", "sortDesc": True,
}  # fmt: skip
LIST_LEGEND: Final[Json] = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}


@dataclass(frozen=True, slots=True)
class Target:
    """One query. `instant` asks for the latest value alone; `shape` is Prometheus's, Tempo's `traceql`, or `sql`."""

    expr: str
    legend: str = ""
    instant: bool = False
    shape: Literal["time_series", "table", "heatmap", "traceql", "sql"] = "time_series"
    exemplar: bool = False

    @property
    def source(self) -> Json:
        """The data source that is asked."""
        return dict({"traceql": TEMPO, "sql": DATABASE}.get(self.shape, PROMETHEUS))

    def as_json(self, ref: str) -> Json:
        """The query as Grafana has it."""
        if self.shape == "sql":
            return {
                "refId": ref, "datasource": self.source, "queryType": "table", "queryText": self.expr,
                "rawQueryText": self.expr, "timeColumns": ["time"],
            }  # fmt: skip
        if self.shape == "traceql":
            return {
                "refId": ref, "datasource": self.source, "queryType": "traceql", "query": self.expr,
                "tableType": "spans", "limit": 50,
            }  # fmt: skip
        return {
            "refId": ref, "datasource": self.source, "editorMode": "code", "expr": self.expr,
            "legendFormat": self.legend or "__auto", "format": self.shape, "instant": self.instant,
            "range": not self.instant, "exemplar": self.exemplar,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading, its unit, words and colours for values, and where a click on a cell leads."""

    name: str
    unit: str = ""
    words: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    link: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `runbook` is the anchor of the section that says what to do, `bounds` where its colour changes.

    `stack` lays the series of a graph on top of each other; `columns` are a table's fields in their order, by the
    names that Grafana gives them, `hidden` those that are not shown; `words` stand for values.
    """

    title: str
    description: str
    unit: str
    targets: tuple[Target, ...]
    runbook: str
    kind: Kind = "timeseries"
    width: int = 12
    height: int = 8
    bounds: tuple[tuple[float | None, str], ...] = ()
    stack: bool = False
    maximum: float | None = None
    legend: Json = field(default_factory=lambda: LIST_LEGEND)
    columns: Mapping[str, Column] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    sort_by: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading, and the panels under it."""

    title: str
    panels: tuple[Panel, ...]


def laid_out(rows: Iterable[Row], runbook: str) -> list[Json]:
    """All panels as JSON with their places and ids."""
    found: list[Json] = []
    top = 0
    for row in rows:
        found.append({"type": "row", "title": row.title, "collapsed": False, "panels": [], "id": len(found) + 1,
                      "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top}})  # fmt: skip
        top, left, tallest = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            found.append({"id": len(found) + 1, "gridPos": place, **as_json(panel, runbook)})
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return found


def as_json(panel: Panel, runbook: str) -> Json:
    """A panel without its place."""
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": panel.targets[0].source,
        "targets": [target.as_json(chr(ord("A") + number)) for number, target in enumerate(panel.targets)],
        "links": [{"title": "Runbook", "url": f"{runbook}#{panel.runbook}", "targetBlank": True}],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
        "transformations": _transformations(panel),
    }


def _defaults(panel: Panel) -> Json:
    steps = [{"value": value, "color": colour} for value, colour in panel.bounds]
    found: Json = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps or [{"value": None, "color": GREEN}]},
        "color": {
            "mode": "thresholds" if panel.kind in {"stat", "bargauge", "state-timeline"} else "palette-classic-by-name"
        },
        "custom": _custom(panel),
        "mappings": _mappings(panel.words),
    }
    if panel.kind in {"timeseries", "bargauge"}:
        found["min"] = 0
    if panel.maximum is not None:
        found["max"] = panel.maximum
    return found


def _custom(panel: Panel) -> Json:
    if panel.kind != "timeseries":
        return {}
    return {
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stack else 5,
        "showPoints": "never",
        "spanNulls": False,
        "axisSoftMin": 0,
        "axisSoftMax": SOFT_MAXIMA.get(panel.unit, 1),
        "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if panel.bounds else "off"},
    }


def _mappings(words: Mapping[str, tuple[str, str]]) -> list[Json]:
    return [
        {"type": "value", "options": {value: {"text": text, "color": colour, "index": index}}}
        for index, (value, (text, colour)) in enumerate(words.items())
    ]


def _overrides(panel: Panel) -> list[Json]:
    found = [
        {"matcher": {"id": "byName", "options": value},
         "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}
        for label, colours in MEANINGS.items() if any(f"{{{{{label}}}}}" == each.legend for each in panel.targets)
        for value, colour in colours.items()
    ]  # fmt: skip
    for column in panel.columns.values():
        properties: list[Json] = [{"id": "unit", "value": column.unit}] if column.unit else []
        if column.words:
            properties += [
                {"id": "mappings", "value": _mappings(column.words)},
                {"id": "custom.cellOptions", "value": {"type": "color-text"}},
            ]
        if column.link:
            link = {"title": "Look closer", "url": column.link, "targetBlank": False}
            properties.append({"id": "links", "value": [link]})
        if properties:
            found.append({"matcher": {"id": "byName", "options": column.name}, "properties": properties})
    return found


def _options(panel: Panel) -> Json:
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "stat":
            return {"reduceOptions": reduced, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
        case "bargauge":
            return {"reduceOptions": reduced, "displayMode": "gradient", "orientation": "horizontal"}
        case "piechart":
            return {"reduceOptions": reduced, "pieType": "donut", "legend": {**TABLE_LEGEND, "values": ["percent"]}}
        case "heatmap":
            return {
                "calculate": False, "yAxis": {"unit": panel.unit}, "cellGap": 1, "legend": {"show": True},
                "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
                "exemplars": {"color": "rgba(31, 96, 196, 0.9)"}, "tooltip": {"mode": "single", "yHistogram": True},
            }  # fmt: skip
        case "table":
            sort = [{"displayName": panel.sort_by, "desc": True}] if panel.sort_by else []
            return {"showHeader": True, "cellHeight": "sm", "sortBy": sort}
        case "state-timeline":
            return {"mergeValues": True, "showValue": "auto", "legend": LIST_LEGEND}
        case _:
            return {"legend": panel.legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def _transformations(panel: Panel) -> list[Json]:
    """A table's queries become one table, with names that people read."""
    if panel.kind != "table" or not panel.columns:
        return []
    renamed = {name: column.name for name, column in panel.columns.items()}
    order = {name: index for index, name in enumerate(panel.columns)}
    left_out = dict.fromkeys(("Time", *panel.hidden), True)
    organize: Json = {"excludeByName": left_out, "indexByName": order, "renameByName": renamed}
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]

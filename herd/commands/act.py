"""The verbs that change something at a running router: nodes, requests, settings and models."""

import argparse
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

from herd.commands import CommandError
from herd.commands.output import show, show_json
from herd.commands.places import router_url
from herd.commands.router import ask, stream, tell

Document = dict[str, Any]


def run(arguments: argparse.Namespace) -> int:
    """Do what the verb says; raises CommandError where the router refuses."""
    document, text = VERBS[arguments.command](arguments, router_url(arguments.url))
    if arguments.json:
        show_json(document)
    else:
        show(text)
    return 0


def _drain(arguments: argparse.Namespace, url: str) -> tuple[Document, str]:
    return _draining(arguments.node, url, True), f"Node {arguments.node} is draining: it gets no new requests."


def _undrain(arguments: argparse.Namespace, url: str) -> tuple[Document, str]:
    return _draining(arguments.node, url, False), f"Node {arguments.node} accepts requests again."


def _draining(node: str, url: str, wanted: bool) -> Document:
    return tell(url, f"{_node(node)}/drain?draining={str(wanted).lower()}", {}, "draining")


def _forget(arguments: argparse.Namespace, url: str) -> tuple[Document, str]:
    return tell(url, _node(arguments.node), {}, "forgotten", "DELETE"), f"Node {arguments.node} is forgotten."


def _node(name: str) -> str:
    return f"/fleet/nodes/{quote(name, safe='')}"


def _cancel(arguments: argparse.Namespace, url: str) -> tuple[Document, str]:
    path = f"/fleet/requests/{quote(arguments.request_id, safe='')}/cancel"
    return tell(url, path, {}, "cancelled"), f"Request {arguments.request_id} is cancelled."


def _set(arguments: argparse.Namespace, url: str) -> tuple[Document, str]:
    rows = ask(url, "/dashboard/api/settings", "settings")["settings"]
    row = next((row for row in rows if row["name"] == arguments.name), None)
    kind = row["type"] if row else "string"
    document = tell(url, "/dashboard/api/settings", {arguments.name: typed(arguments.value, kind)}, "changed")
    change = document["changed"].get(arguments.name)
    if change is None:
        return document, f"{arguments.name} is unchanged."
    note = "" if change["kept"] else f"; lost at a restart: {change['note']}"
    return document, f"{arguments.name} changed from {change['before']} to {change['value']}{note}."


def typed(text: str, kind: str) -> str | int | float | bool:
    """A setting's value as JSON has it; the text itself where it is none of its type, for the router to refuse."""
    words = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
    if kind == "boolean":
        return words.get(text.lower(), text)
    with suppress(ValueError):
        if kind == "integer":
            return int(text)
        if kind == "number":
            return float(text)
    return text


def _pull(arguments: argparse.Namespace, url: str) -> tuple[Document, str]:
    last: Document = {}
    before = ""
    for last in stream(url, "/api/pull", _at(arguments), {"model": arguments.model}):
        if "error" in last:
            raise CommandError(f"{arguments.model} was not pulled: {last['error']}")
        line = progress(last)
        if line != before and not arguments.json:
            show(line)
        before = line
    return last, f"{arguments.model} is pulled."


def progress(document: Mapping[str, Any]) -> str:
    """A line of Ollama's about a pull, in steps of a tenth."""
    total, done = document.get("total"), document.get("completed", 0)
    status = str(document.get("status", ""))
    return f"{status}: {10 * (10 * done // total)}%" if total else status


def _rm(arguments: argparse.Namespace, url: str) -> tuple[Document, str]:
    for answer in stream(url, "/api/delete", _at(arguments), {"model": arguments.model}, "DELETE"):
        if "error" in answer:
            raise CommandError(f"{arguments.model} was not deleted: {answer['error']}")
    return {"model": arguments.model, "node_id": arguments.node, "deleted": True}, (
        f"{arguments.model} is deleted from {arguments.node}."
    )


def _at(arguments: argparse.Namespace) -> dict[str, str]:
    return {"node_id": arguments.node} if arguments.node else {}


VERBS: Final[Mapping[str, Callable[[argparse.Namespace, str], tuple[Document, str]]]] = {
    "drain": _drain, "undrain": _undrain, "forget": _forget, "cancel": _cancel, "set": _set, "pull": _pull, "rm": _rm,
}  # fmt: skip

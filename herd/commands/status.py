"""`herd status`: the fleet at a glance, as the router sees it now."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from herd.commands.moments import duration
from herd.commands.output import cell, show, show_json, table
from herd.commands.places import router_url
from herd.commands.router import ask

Document = Mapping[str, Any]
HEAD: Final = ("NODE", "STATUS", "IN FLIGHT", "CPU", "MEMORY", "PRESSURE", "GPU", "LAST SEEN", "LOADED")
PRIORITY: Final = ("NODE", "STATUS", "IN FLIGHT", "LOADED", "MEMORY", "CPU", "GPU", "PRESSURE", "LAST SEEN")
RIGHT: Final = ("IN FLIGHT", "CPU", "LAST SEEN")
NO_NODE: Final = """\
No node has joined yet. On each machine with Ollama:
  herd-node                       on this machine, or where multicast DNS reaches it
  herd-node --router-url {url}    anywhere else (with an address of this machine that is reachable from there)
  herd nodes                      then here: a node of another machine waits until `herd node accept NAME`"""


def run(arguments: argparse.Namespace) -> int:
    """Ask a router and print; raises CommandError where it cannot."""
    url = router_url(arguments.url)
    document = ask(url, "/fleet/status", "fleet")
    if arguments.json:
        show_json(document)
        return 0
    show(_headline(document, url))
    if document["nodes"]:
        show("", table(HEAD, [_row(node) for node in document["nodes"]], RIGHT, PRIORITY))
    else:
        show("", NO_NODE.format(url=url))
    _below("Needs attention:", [note for node in document["nodes"] for note in _notes(node)])
    _below("Being pulled:", [_pull(pull) for pull in document["pulls"]])
    _below("Quarantined requests (nodes died on them):", [_suspect(suspect) for suspect in document["quarantine"]])
    _below("Waiting for a slot:", [f"{model}: {queue['depth']}" for model, queue in document["queues"].items()])
    return 0


def _headline(document: Document, url: str) -> str:
    fleet = document["fleet"]
    counts = (
        f"{fleet['nodes_online']}/{fleet['nodes_total']} nodes online",
        f"{fleet['models_loaded']} models loaded",
        f"{fleet['requests_active']} requests active",
    )
    return f"{', '.join(counts)} at {url}"


def _below(title: str, lines: Sequence[str]) -> None:
    if lines:
        show("", title, *(f"  {line}" for line in lines))


def _row(node: Document) -> tuple[object, ...]:
    engine, memory = node["ollama"], node["memory"]
    loaded = ", ".join(model["name"] for model in engine["models_loaded"])
    return (
        node["node_id"],
        _status(node),
        f"{engine['requests_active']}/{engine['slots']}",
        f"{node['cpu']['utilization_pct']:.0f}%",
        f"{memory['used_gb']:.1f}/{memory['total_gb']:.1f} GiB",
        memory["pressure"],
        ", ".join(map(_gpu, node["gpus"])) or None,
        duration(node["last_seen_s"]),
        loaded or None,
    )


def _status(node: Document) -> Text:
    extra = [word for word, holds in (("left", node["left"]), ("draining", node["draining"])) if holds]
    found: str = node["status"]
    return cell(found).append_text(cell("".join(f", {word}" for word in extra), ""))


def _gpu(gpu: Document) -> str:
    used = "" if gpu["utilization_pct"] is None else f" {gpu['utilization_pct']:.0f}%"
    return f"{gpu['memory_used_gb']:.1f}/{gpu['memory_total_gb']:.1f} GiB{used}"


def _pull(pull: Document) -> str:
    done = f"{100 * pull['completed'] // pull['total']}%" if pull["total"] else pull["status"]
    return f"{pull['model']} to {pull['node_id']}: {done}, {pull['waiting']} waiting"


def _suspect(suspect: Document) -> str:
    nodes, request_id = " and ".join(suspect["nodes"]), suspect["request_id"]
    return f"{suspect['model']}, request {request_id} ({nodes}): another {duration(suspect['ends_in_s'])}"


def _notes(node: Document) -> list[str]:
    """What about a node an operator should look into, each with what to do."""
    engine, name = node["ollama"], node["node_id"]
    found = []
    if node["status"] == "offline" and not node["left"]:
        found.append(f"{name}: no heartbeat for {duration(node['last_seen_s'])}; is herd-node running?")
    if node["status"] != "offline" and not engine["reachable"]:
        found.append(f"{name}: engine unreachable ({engine['error'] or 'no reason given'}); is it running?")
    if node["status"] != "offline" and engine["reachable"] and not engine["models_available"]:
        found.append(f"{name}: no models yet; run `ollama pull llama3.2:3b` on it")
    if node["breaker"] != "closed":
        found.append(f"{name}: circuit breaker {node['breaker']} after failed attempts; `herd traces --node {name}`")
    return found

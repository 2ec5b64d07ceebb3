"""The table of commands and their options, as argparse takes them; which file does a command's work is named here.

Nothing heavy is imported: every command line reads this.
"""

import argparse
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from herd.commands.moments import AGO, UNITS, lasting, moment

STATUSES: Final = ("completed", "failed", "incomplete", "client_disconnected", "rejected")


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command, as argparse takes it."""

    flag: str
    keywords: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its module, whose `run` is called, a line of help, its options, and more help."""

    module: str
    help: str
    options: tuple[Option, ...] = ()
    more: str = ""


def count(least: int, most: int) -> Any:
    """An option's type: a whole number within bounds."""

    def number(text: str) -> int:
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")

    return number


def seconds(text: str) -> float:
    """An option's type: seconds above 0."""
    with suppress(ValueError):
        if 0 < (found := float(text)) < float("inf"):
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


def hours(text: str) -> float:
    """An option's type: hours from 0 to a year."""
    with suppress(ValueError):
        if 0 <= (found := float(text)) <= 24 * 365:
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours from 0 to {24 * 365}")


def share(text: str) -> float:
    """An option's type: a share above 0, at most 1."""
    with suppress(ValueError):
        if 0 < (found := float(text)) <= 1:
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")


def lifetime(text: str) -> float:
    """An option's type: seconds of `12h`, `90d` or `52w`, from now."""
    if (found := AGO.fullmatch(text.strip().lower())) and (length := float(found[1]) * UNITS[found[2]]) > 0:
        return length
    raise argparse.ArgumentTypeError(f"{text!r} is not like 12h, 90d or 52w")


URL = Option("--url", {"metavar": "URL", "help": "the router (default: HERD_URL, else this machine's)"})
DATA_DIR = Option("--data-dir", {"metavar": "DIR", "help": "read the files of DIR (default: ~/.fleet-manager)"})
HOME = Option("--data-dir", {"metavar": "DIR", "help": "the router's data directory (default: ~/.fleet-manager)"})
JSON = Option("--json", {"action": "store_true", "help": "for programs: JSON with stable keys, no colour"})
SINCE = Option("--since", {"metavar": "WHEN", "type": moment, "help": "only since then: 10m, 2h, 3d or ISO 8601"})
LIMIT = Option("--limit", {"metavar": "N", "type": count(1, 1000), "default": 20, "help": "limit (default: 20)"})
DAY = Option("--since", {"metavar": "WHEN", "type": moment, "help": "requests since then (default: 1d)"})
MOST = Option("--limit", {"metavar": "N", "type": count(20, 1_000_000), "default": 10_000,
                          "help": "at most the latest N (default: 10000)"})  # fmt: skip
DAYS = Option("--days", {"metavar": "N", "type": count(1, 365), "default": 7, "help": "the last N days (default: 7)"})
NODE = Option("node", {"metavar": "NODE", "help": "the node, as `herd status` names it"})
EITHER = Option("--data-dir", {"metavar": "DIR", "help": "read the database of DIR instead of asking a router"})
HEALTH_ENDS: Final = """\
exit status:
   0  no findings, or only info
   1  at least one warning
   2  at least one critical finding
   3  no router responds
  64  usage error
With ack, silence and --past: 0 success, 1 failure, 3 and 64 as above.
"""

SIMULATED: Final = ("random", "round robin", "least loaded", "power of two", "clairvoyant", "herd", "herd, fresh",
                    "herd, fresh, speeds", "herd, all known")  # fmt: skip
REPLAYED: Final = (*SIMULATED[:5], "herd")
PLAN_ENDS: Final = """\
Herd simulates the recorded requests before and after the change. The error comes from a back-test: each part of the
recorded time is simulated and compared with what happened. Changes can be combined, and options repeated.

herd plan --add-node "RTX 3090, 24 GB" --traffic x2
herd plan --remove-node mini --since 7d
herd plan --add-model qwen3:32b --share 0.2 --slots 8
"""
SIMULATE_ENDS: Final = """\
policies:
  random, round robin, least loaded, power of two   simple load balancers
  herd                  as in production: lengths unknown, speeds learned, heartbeats every 5 s
  herd, fresh           also knows each node's models immediately
  herd, fresh, speeds   also knows every machine's true speed
  herd, all known       also knows the length of every answer
  clairvoyant           simulates every machine ahead with all lengths known, and picks the earliest first token

traces: github.com/Azure/AzurePublicDataset (LLM inference, .csv), github.com/kvcache-ai/Mooncake (FAST25, .jsonl)
"""

COMMANDS: Final[Mapping[str, Command]] = {
    "demo": Command("herd.commands.demo", "a router with simulated nodes and traffic", (
        Option("--port", {"metavar": "PORT", "type": count(1, 65535), "default": 11435, "help": "default: 11435"}),
        Option("--data-dir", {"metavar": "DIR", "help": "data directory (default: one of its own)"}),
        Option("--observe", {"action": "store_true", "help": "also start Prometheus with Herd's rules, if installed"}),
        Option("--seconds", {"metavar": "S", "type": seconds, "help": "stop after S seconds (default: until Ctrl-C)"}),
    )),
    "status": Command("herd.commands.status", "the fleet at a glance: nodes, memory, models, queues", (URL, JSON)),
    "nodes": Command("herd.commands.node", "the nodes that this machine's router knows by their keys", (HOME, JSON)),
    "node": Command("herd.commands.node", "accept, revoke or reset a node, or say where its engine is", (
        Option("action", {"metavar": "accept|revoke|reset|direct|list",
                          "choices": ("accept", "revoke", "reset", "direct", "list"),
                          "help": "let a node in; keep it out; forget its key; name its engine's address; list all"}),
        Option("name", {"metavar": "NAME", "nargs": "?", "help": "the node's name, or the beginning of its key"}),
        Option("engine_url", {"metavar": "URL", "nargs": "?",
                              "help": "with direct: where the router reaches the engine (none: the node's address)"}),
        HOME, JSON,
    )),
    "top": Command("herd.commands.top", "the requests in flight, live; cancel them with a key", (URL, JSON)),
    "traces": Command("herd.commands.traces", "the latest requests, newest first, with filters", (
        LIMIT,
        Option("--status", {"metavar": "STATUS", "choices": (*STATUSES, "errors"),
                            "help": f"one of {', '.join(STATUSES)}, errors (failed or incomplete)"}),
        Option("--model", {"metavar": "MODEL", "help": "answered by MODEL"}),
        Option("--node", {"metavar": "NODE", "help": "answered by NODE"}),
        Option("--tag", {"metavar": "TAG", "help": "with this tag"}),
        Option("--tried", {"metavar": "NODE", "help": "with a failed attempt at NODE, whichever node answered"}),
        Option("--retried", {"action": "store_true", "help": "with more than one attempt"}),
        Option("--slower-than", {"metavar": "TIME", "type": lasting, "help": "slower than this: 500ms, 5s, 2m"}),
        SINCE,
        Option("--q", {"metavar": "TEXT", "help": "TEXT in a model, node, tag or error, or at the start of an id"}),
        URL, EITHER, JSON,
    )),
    "events": Command("herd.commands.events", "fleet and router events, newest first", (
        LIMIT, SINCE,
        Option("--kind", {"metavar": "KIND", "action": "append",
                          "help": "of this kind, as router_started (repeatable)"}),
        Option("--node", {"metavar": "NODE", "help": "about NODE"}),
        URL, EITHER, JSON,
    )),
    "apps": Command("herd.commands.reports", "requests, errors and tokens by tag", (DAYS, URL, JSON)),
    "usage": Command("herd.commands.reports", "requests, errors and tokens by day, node and model", (DAYS, URL, JSON)),
    "models": Command("herd.commands.reports", "requests, errors and tokens by model", (DAYS, URL, JSON)),
    "drain": Command("herd.commands.act", "send no new requests to a node", (NODE, URL, JSON)),
    "undrain": Command("herd.commands.act", "send requests to a node again", (NODE, URL, JSON)),
    "forget": Command("herd.commands.act", "remove an offline node from the fleet", (NODE, URL, JSON)),
    "cancel": Command("herd.commands.act", "cancel a request in flight; `herd top` lists them", (
        Option("request_id", {"metavar": "REQUEST_ID", "help": "its whole id"}), URL, JSON,
    )),
    "set": Command("herd.commands.act", "change a setting of the running router", (
        Option("name", {"metavar": "NAME", "help": "the setting; `herd docs settings` lists them"}),
        Option("value", {"metavar": "VALUE", "help": "its new value; on or off for a switch"}), URL, JSON,
    )),
    "pull": Command("herd.commands.act", "pull a model to a node", (
        Option("model", {"metavar": "MODEL", "help": "the model"}),
        Option("--node", {"metavar": "NODE", "help": "the node (default: the one with the most room)"}), URL, JSON,
    )),
    "rm": Command("herd.commands.act", "delete a model from a node", (
        Option("model", {"metavar": "MODEL", "help": "the model"}),
        Option("--node", {"metavar": "NODE", "required": True, "help": "the node"}), URL, JSON,
    )),
    "explain": Command("herd.commands.explain", "one request: timeline, decision and candidates", (
        Option("request_id", {"metavar": "REQUEST_ID", "help": "the id, or a unique prefix of it"}),
        URL, EITHER, JSON,
    )),
    "logs": Command("herd.commands.logs", "the last log lines, formatted", (
        Option("--level", {"metavar": "LEVEL", "type": str.upper, "help": "at least this level: WARNING, ERROR, …",
                           "choices": ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}),
        Option("--grep", {"metavar": "TEXT", "help": "only lines that contain TEXT, ignoring case"}),
        LIMIT, DATA_DIR, JSON,
    )),
    "health": Command("herd.commands.health", "health findings; exit status for cron and scripts", (
        Option("action", {"metavar": "ack|silence", "nargs": "?", "choices": ("ack", "silence"),
                          "help": "acknowledge or silence a finding"}),
        Option("finding", {"metavar": "ID", "nargs": "?", "help": "the finding's id, as `herd health` shows it"}),
        Option("--note", {"metavar": "TEXT", "help": "with ack: a note for other operators"}),
        Option("--hours", {"metavar": "H", "type": hours,
                           "help": "with silence: duration in hours (default: 8; 0 unsilences)"}),
        Option("--past", {"action": "store_true", "help": "resolved findings, newest first"}),
        URL, JSON,
    ), HEALTH_ENDS),
    "audit": Command("herd.commands.audit", "check that database, log and metrics agree on every request",
                     (SINCE, URL, DATA_DIR, JSON)),
    "simulate": Command("herd.commands.simulate", "simulate routing policies on a synthetic fleet, in virtual time", (
        Option("--machines", {"metavar": "N", "type": int, "choices": (3, 5, 10), "default": 5,
                              "help": "synthetic fleet: 3, 5 or 10 machines (default: 5)"}),
        Option("--traffic", {"metavar": "KIND", "choices": ("conversation", "code", "long"), "default": "conversation",
                             "help": "synthetic traffic: conversation, code or long (default: conversation)"}),
        Option("--trace", {"metavar": "FILE", "type": Path,
                           "help": "a trace instead: Azure's .csv or Mooncake's .jsonl; see below"}),
        Option("--rate", {"metavar": "R", "type": seconds, "help": "requests per second (default: a medium load)"}),
        Option("--requests", {"metavar": "N", "type": count(1, 10_000_000), "default": 2000,
                              "help": "number of requests (default: 2000)"}),
        Option("--policy", {"metavar": "POLICY", "action": "append", "choices": SIMULATED,
                            "help": "one of the policies below; repeatable (default: all)"}),
        Option("--seed", {"metavar": "N", "type": count(0, 2**31), "default": 1,
                          "help": "random seed (default: 1)"}),
        JSON,
    ), SIMULATE_ENDS),
    "replay": Command("herd.commands.replay", "replay recorded requests with another policy or settings", (
        Option("--policy", {"metavar": "POLICY", "choices": REPLAYED, "default": "herd",
                            "help": f"one of {', '.join(REPLAYED)} (default: herd)"}),
        Option("--set", {"metavar": "NAME=VALUE", "action": "append",
                         "help": "queue_limit, queue_timeout_s or loaded_fallback; repeatable"}),
        DAY, MOST, DATA_DIR, JSON,
    )),
    "plan": Command("herd.commands.plan", "what another node, model, traffic or number of slots would do", (
        Option("--add-node", {"metavar": "MACHINE", "action": "append", "help": 'such as "RTX 3090, 24 GB"'}),
        Option("--remove-node", {"metavar": "NODE", "action": "append", "help": "remove a node"}),
        Option("--add-model", {"metavar": "MODEL", "action": "append", "help": "move requests to this model"}),
        Option("--share", {"metavar": "SHARE", "type": share, "default": 0.1,
                           "help": "share of requests for each added model (default: 0.1)"}),
        Option("--traffic", {"metavar": "FACTOR", "help": "multiply the number of requests: x2, 0.5"}),
        Option("--slots", {"metavar": "[NODE=]N", "action": "append", "help": "slots of every node, or of one node"}),
        DAY, MOST, DATA_DIR, JSON,
    ), PLAN_ENDS),
    "key": Command("herd.commands.key", "keys for programs: create one, list them, revoke one", (
        Option("action", {"metavar": "create|list|revoke", "choices": ("create", "list", "revoke"),
                          "help": "what to do"}),
        Option("name", {"metavar": "NAME|ID", "nargs": "?", "help": "the new key's name; to revoke, a name or an id"}),
        Option("--scope", {"metavar": "SCOPE", "choices": ("inference", "read", "admin"), "default": "inference",
                           "help": "inference (default): ask models; read: records and metrics; admin: everything"}),
        Option("--models", {"metavar": "PATTERNS", "help": "only these models, as 'qwen3:*, llama3.2'"}),
        Option("--rpm", {"metavar": "N", "type": count(1, 1_000_000), "help": "at most N requests per minute"}),
        Option("--tokens-per-day", {"metavar": "N", "type": count(1, 10**12), "help": "at most N tokens per UTC day"}),
        Option("--expires", {"metavar": "WHEN", "type": lifetime, "help": "after 12h, 90d, 52w (default: never)"}),
        Option("--to", {"metavar": "FILE", "help": "write the key to FILE (mode 0600) instead of printing it"}),
        DATA_DIR, JSON,
    )),
    "docs": Command("herd.commands.docs", "settings, metrics, errors, signals, endpoints, operations", (
        Option("topic", {"metavar": "TOPIC", "nargs": "?", "help": "topic to print (default: list all topics)"}),
        Option("--write", {"metavar": "DIR", "help": "write all topics to DIR as Markdown"}),
        JSON,
    )),
}  # fmt: skip

"""The command line `herd`: its commands and options, and the module that runs each.

It imports nothing heavy and prints only help and error messages; a command's module is imported
when the command is run.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, NoReturn

from herd import __version__
from herd.commands import CommandError, WrongUse
from herd.commands.moments import lasting, moment
from herd.security.files import prepare_process
from herd.settings.load import SettingError, load
from herd.settings.table import TABLE, Setting, Value

DESCRIPTION = """\
Herd is one address for all your Ollama and llama.cpp servers. It sends each request to the best node, and records
where each request went and why.

quick start, in two terminals:
  herd                 the router, at http://127.0.0.1:11435; point any OpenAI, Anthropic or Ollama client at it
  herd-node            the agent: run it on each machine with Ollama; it reports to the router
Without Ollama: herd demo

where data lives:
  ~/.fleet-manager/latency.db          one row per request; readable with sqlite3 at any time
  ~/.fleet-manager/logs/herd.jsonl     one JSON object per line
  ~/.fleet-manager/config.toml         optional: any router option, such as `log_level = "DEBUG"`
Each router option is also an environment variable: --log-level is HERD_LOG_LEVEL.

`herd docs operations` lists everyday commands, `herd docs` all topics.
"""
STATUSES: Final = ("completed", "failed", "incomplete", "client_disconnected", "rejected")
BROKEN_PIPE: Final = 141  # a shell's status for a program ended by a closed pipe
WRONG_CHOICE: Final = re.compile(r"argument .*?: invalid choice: '(.*?)' \(choose from (.*)\)$", re.DOTALL)
SYNONYMS: Final = {"ps": "top", "delete": "rm", "kill": "cancel", "resume": "undrain",
                   "config": "set", "tags": "apps", "requests": "traces", "run": "demo"}  # fmt: skip
USAGE: Final = 64  # EX_USAGE of sysexits.h; argparse's own 2 means a critical finding in `herd health`


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
    "docs": Command("herd.commands.docs", "settings, metrics, errors, signals, endpoints, operations", (
        Option("topic", {"metavar": "TOPIC", "nargs": "?", "help": "topic to print (default: list all topics)"}),
        Option("--write", {"metavar": "DIR", "help": "write all topics to DIR as Markdown"}),
        JSON,
    )),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code: 64 for a wrong command line or setting, 1 for a failure."""
    prepare_process()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a signal meant for another program must not end this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a model's name may be invalid Unicode
    try:
        code = _do(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough; the interpreter must not complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return 130
    return code


def _do(argv: Sequence[str] | None) -> int:
    try:
        arguments = parser().parse_args(argv)
        if arguments.command is None:
            settings = load(given_settings(arguments))
            return int(import_module("herd.commands.start").run(settings))
        return _command(arguments)
    except (SettingError, WrongUse) as error:
        return _say(str(error), USAGE)
    except CommandError as error:
        return _say(str(error), 1)
    except SystemExit as end:  # argparse's own, after help or an error
        return end.code if isinstance(end.code, int) else 1


def _command(arguments: argparse.Namespace) -> int:
    if wrong := given_settings(arguments):
        flag, command = _flag(next(iter(wrong))), arguments.command
        return _say(f"{flag} is an option of the router; those of `herd {command}` stand behind its name", USAGE)
    module = import_module(COMMANDS[arguments.command].module)
    if arguments.command == "demo":
        return int(module.run_demo(arguments.port, arguments.data_dir, arguments.seconds, arguments.observe))
    return int(module.run(arguments))


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    made = _Parser(
        prog="herd",
        usage="herd [router options]\n       herd COMMAND [options]        (herd COMMAND --help)",
        description=DESCRIPTION,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"herd {__version__}")
    commands = made.add_subparsers(dest="command", title="commands", metavar="", prog="herd")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name, help=command.help, description=_sentence(command.help), epilog=command.more, allow_abbrev=False,
            formatter_class=_Help,
        )  # fmt: skip
        for option in command.options:
            sub.add_argument(option.flag, **option.keywords)
    basics = made.add_argument_group("router options")
    judging = made.add_argument_group("router options: what the health checks call too much")
    for setting in TABLE:
        group = judging if setting.name.startswith("health_") else basics
        group.add_argument(_flag(setting.name), dest=f"setting {setting.name}", **_keywords(setting))
    return made


def given_settings(arguments: argparse.Namespace) -> dict[str, Value]:
    """The settings that the command line names, by name; `config.load` checks those that are of the wrong type."""
    found = {key.partition(" ")[2]: value for key, value in vars(arguments).items() if key.startswith("setting ")}
    return {setting.name: _typed(setting, found[setting.name]) for setting in TABLE if setting.name in found}


def _typed(setting: Setting, value: Value) -> Value:
    if isinstance(value, str) and not isinstance(setting.default, bool):
        with suppress(ValueError):
            return type(setting.default)(value)
    return value


def _keywords(setting: Setting) -> dict[str, Any]:
    text = f"{setting.help.rstrip('.')} (default: {shown(setting.default)})".replace("%", "%%")
    if isinstance(setting.default, bool):
        return {"action": argparse.BooleanOptionalAction, "default": argparse.SUPPRESS, "help": text}
    number = "SECONDS" if setting.name.endswith("_s") else "N"
    metavar = "|".join(setting.choices) or ("TEXT" if isinstance(setting.default, str) else number)
    return {"metavar": metavar, "default": argparse.SUPPRESS, "help": text}


def shown(value: Value) -> str:
    """A setting's value as help and documents write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('?') else '.'}"


def _say(text: str, code: int) -> int:
    print(f"herd: {text}", file=sys.stderr)
    return code


def suggesting(message: str) -> str:
    """argparse's word about a wrong choice, with the likely one; any other as it is."""
    found = WRONG_CHOICE.match(message)
    if not found:
        return message
    wrong, known = found[1], re.findall(r"[\w-]+", found[2])
    meant = SYNONYMS.get(wrong)
    close = [meant] if meant in known else get_close_matches(wrong, known, 1)
    return f"no such choice: {wrong}. Did you mean {close[0]}?" if close else message


class _Parser(argparse.ArgumentParser):
    """A parser whose errors end with a status of their own; those of the commands are made of it, too."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong with the command line."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: error: {suggesting(message)}\n")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help with room for the options' names, at most 110 wide."""

    def __init__(self, prog: str) -> None:
        try:
            width = min(110, os.get_terminal_size().columns)
        except OSError:
            width = 110
        super().__init__(prog, max_help_position=34, width=width)

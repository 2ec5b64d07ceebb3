"""The command line `herd`: which commands and options there are, and which file does the work.

It imports nothing heavy and prints nothing but help and sentences about what went wrong; a command's file is imported
when that command is given.
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
Herd is one address in front of all your Ollama and llama.cpp servers: it sends each request to the machine that
answers it best, and keeps a record from which you can tell, for any request ever served, where it went and why.

quick start, in two terminals:
  herd                 the router, at http://127.0.0.1:11435; point any OpenAI, Anthropic or Ollama client at it
  herd-node            beside each Ollama: tells the router what that machine has and does
Without any Ollama at hand: herd demo

where data lives:
  ~/.fleet-manager/latency.db          one row a request; read it with sqlite3 whenever you like
  ~/.fleet-manager/logs/herd.jsonl     one JSON object a line
  ~/.fleet-manager/config.toml         yours to write: any router option, as `log_level = "DEBUG"`
A router option is also an environment variable: --log-level is HERD_LOG_LEVEL.

`herd docs operations` has the commands of every day, `herd docs` all else.
"""
STATUSES: Final = ("completed", "failed", "incomplete", "client_disconnected", "rejected")
BROKEN_PIPE: Final = 141  # what a shell reports of a program that a closed pipe ended
WRONG_CHOICE: Final = re.compile(r"argument .*?: invalid choice: '(.*?)' \(choose from (.*)\)$", re.DOTALL)
SYNONYMS: Final = {"ps": "top", "delete": "rm", "kill": "cancel", "resume": "undrain",
                   "config": "set", "tags": "apps", "requests": "traces", "run": "demo"}  # fmt: skip
USAGE: Final = 64  # EX_USAGE of sysexits.h; argparse's own 2 is what `herd health` says of something critical


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command, as argparse takes it."""

    flag: str
    keywords: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """One command: the module whose `run` does it, a line about it, its options, and what else its help says."""

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


URL = Option("--url", {"metavar": "URL", "help": "the router (default: HERD_URL, else this machine's)"})
DATA_DIR = Option("--data-dir", {"metavar": "DIR", "help": "read the files of DIR (default: ~/.fleet-manager)"})
HOME = Option("--data-dir", {"metavar": "DIR", "help": "the router's data directory (default: ~/.fleet-manager)"})
JSON = Option("--json", {"action": "store_true", "help": "for programs: JSON with stable keys, no colour"})
SINCE = Option("--since", {"metavar": "WHEN", "type": moment, "help": "only from then on: 10m, 2h, 3d or ISO 8601"})
LIMIT = Option("--limit", {"metavar": "N", "type": count(1, 1000), "default": 20, "help": "how many (default: 20)"})
DAY = Option("--since", {"metavar": "WHEN", "type": moment, "help": "the requests from then on (default: 1d)"})
MOST = Option("--limit", {"metavar": "N", "type": count(20, 1_000_000), "default": 10_000,
                          "help": "the latest N of them at most (default: 10000)"})  # fmt: skip
DAYS = Option("--days", {"metavar": "N", "type": count(1, 365), "default": 7, "help": "the last N days (default: 7)"})
NODE = Option("node", {"metavar": "NODE", "help": "the node, as `herd status` names it"})
EITHER = Option("--data-dir", {"metavar": "DIR", "help": "read the database of DIR instead of asking a router"})
HEALTH_ENDS: Final = """\
exit status:
   0  nothing needs attention, or only to know
   1  a warning
   2  something critical
   3  no router answers
  64  the command line is wrong
With ack, silence and --past: 0 done, 1 not done, 3 and 64 as above.
"""

SIMULATED: Final = ("random", "round robin", "least loaded", "power of two", "clairvoyant", "herd", "herd, fresh",
                    "herd, fresh, speeds", "herd, all known")  # fmt: skip
REPLAYED: Final = (*SIMULATED[:5], "herd")
SIMULATE_ENDS: Final = """\
policies:
  random, round robin, least loaded, power of two   what simple balancers do
  herd                  decides as it does live: lengths unknown, speeds learned, heartbeats every 5 s
  herd, fresh           with what each node holds known at once
  herd, fresh, speeds   with every machine's true speeds as well
  herd, all known       with the length of every answer as well
  clairvoyant           runs a copy of each machine ahead, all lengths known, and takes the soonest first token

traces: github.com/Azure/AzurePublicDataset (LLM inference, .csv), github.com/kvcache-ai/Mooncake (FAST25, .jsonl)
"""

COMMANDS: Final[Mapping[str, Command]] = {
    "demo": Command("herd.commands.demo", "a router with simulated nodes and traffic, to look at everything", (
        Option("--port", {"metavar": "PORT", "type": count(1, 65535), "default": 11435, "help": "default: 11435"}),
        Option("--data-dir", {"metavar": "DIR", "help": "keep its data in DIR (default: a directory of its own)"}),
        Option("--observe", {"action": "store_true", "help": "start Prometheus too, with herd's rules (if installed)"}),
        Option("--seconds", {"metavar": "S", "type": seconds, "help": "end after S seconds (default: Ctrl-C ends it)"}),
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
        Option("--tried", {"metavar": "NODE", "help": "with a failed attempt at NODE, whoever answered in the end"}),
        Option("--retried", {"action": "store_true", "help": "that needed more than one attempt"}),
        Option("--slower-than", {"metavar": "TIME", "type": lasting, "help": "that took longer: 500ms, 5s, 2m"}),
        SINCE,
        Option("--q", {"metavar": "TEXT", "help": "with TEXT in a model, node, tag or error, or an id that begins so"}),
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
    "explain": Command("herd.commands.explain", "one request's life, and why it went where it went", (
        Option("request_id", {"metavar": "REQUEST_ID", "help": "its id, or as much of its beginning as is unique"}),
        URL, EITHER, JSON,
    )),
    "logs": Command("herd.commands.logs", "the last lines of the log, readable", (
        Option("--level", {"metavar": "LEVEL", "type": str.upper, "help": "at least this level: WARNING, ERROR, …",
                           "choices": ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}),
        Option("--grep", {"metavar": "TEXT", "help": "only lines that contain TEXT, whatever its case"}),
        LIMIT, DATA_DIR, JSON,
    )),
    "health": Command("herd.commands.health", "what needs attention; its exit status is for cron and scripts", (
        Option("action", {"metavar": "ack|silence", "nargs": "?", "choices": ("ack", "silence"),
                          "help": "say that a finding is known, or hear nothing of it for a while"}),
        Option("finding", {"metavar": "ID", "nargs": "?", "help": "the finding's id, as `herd health` shows it"}),
        Option("--note", {"metavar": "TEXT", "help": "with ack: what to remember about it"}),
        Option("--hours", {"metavar": "H", "type": hours,
                           "help": "with silence: for so long (default: 8; 0 ends it)"}),
        Option("--past", {"action": "store_true", "help": "the findings that are over, the latest first"}),
        URL, JSON,
    ), HEALTH_ENDS),
    "audit": Command("herd.commands.audit", "do database, log and metrics agree about every request?",
                     (SINCE, URL, DATA_DIR, JSON)),
    "simulate": Command("herd.commands.simulate", "traffic on a made fleet in virtual time, under several policies", (
        Option("--machines", {"metavar": "N", "type": int, "choices": (3, 5, 10), "default": 5,
                              "help": "the made fleet: 3, 5 or 10 machines (default: 5)"}),
        Option("--traffic", {"metavar": "KIND", "choices": ("conversation", "code", "long"), "default": "conversation",
                             "help": "made traffic: conversation, code or long (default: conversation)"}),
        Option("--trace", {"metavar": "FILE", "type": Path,
                           "help": "a trace instead: Azure's .csv or Mooncake's .jsonl; see below"}),
        Option("--rate", {"metavar": "R", "type": seconds, "help": "requests a second (default: a medium load)"}),
        Option("--requests", {"metavar": "N", "type": count(1, 10_000_000), "default": 2000,
                              "help": "how many (default: 2000)"}),
        Option("--policy", {"metavar": "POLICY", "action": "append", "choices": SIMULATED,
                            "help": "one of the policies below; may be given several times (default: all)"}),
        Option("--seed", {"metavar": "N", "type": count(0, 2**31), "default": 1,
                          "help": "for lengths, models and thinning (default: 1)"}),
        JSON,
    ), SIMULATE_ENDS),
    "replay": Command("herd.commands.replay", "yesterday's requests under today's policy, another, or other settings", (
        Option("--policy", {"metavar": "POLICY", "choices": REPLAYED, "default": "herd",
                            "help": f"one of {', '.join(REPLAYED)} (default: herd)"}),
        Option("--set", {"metavar": "NAME=VALUE", "action": "append",
                         "help": "queue_limit, queue_timeout_s or loaded_fallback; may be given several times"}),
        DAY, MOST, DATA_DIR, JSON,
    )),
    "docs": Command("herd.commands.docs", "settings, metrics, errors, signals, endpoints, operations", (
        Option("topic", {"metavar": "TOPIC", "nargs": "?", "help": "what to print (default: list the topics)"}),
        Option("--write", {"metavar": "DIR", "help": "write all of them as Markdown files to DIR"}),
        JSON,
    )),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code: 64 for a wrong command line or setting, 1 for a failure."""
    prepare_process()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # whoever means another program by it must not end this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a model's name may be no valid text
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

"""The command line `herd`: its commands and options, and the module that runs each.

It imports nothing heavy and prints only help and error messages; a command's module is imported
when the command is run.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from typing import Any, Final, NoReturn

from herd import __version__
from herd.commands import CommandError, WrongUse
from herd.commands.listing import COMMANDS
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
BROKEN_PIPE: Final = 141  # a shell's status for a program ended by a closed pipe
WRONG_CHOICE: Final = re.compile(r"argument .*?: invalid choice: '(.*?)' \(choose from (.*)\)$", re.DOTALL)
SYNONYMS: Final = {"ps": "top", "delete": "rm", "kill": "cancel", "resume": "undrain",
                   "config": "set", "tags": "apps", "requests": "traces", "run": "demo"}  # fmt: skip
USAGE: Final = 64  # EX_USAGE of sysexits.h; argparse's own 2 means a critical finding in `herd health`


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
    basics.add_argument(
        "--insecure", dest="setting auth", action="store_const", const="off", default=argparse.SUPPRESS,
        help="let everybody do everything: --auth off",
    )  # fmt: skip
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

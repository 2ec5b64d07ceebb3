"""`herd logs`: the last lines of the log that match, for people or for programs."""

import argparse
import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final

from rich.text import Text

from herd.commands import CommandError
from herd.commands.output import cell, harmless, show
from herd.commands.places import data_dir
from herd.telemetry.log_files import Line, backwards, log_files, parsed

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
HEAD: Final = frozenset({"timestamp", "level", "logger", "event"})
# The canonical line has every column of the row; these are the ones by which a person finds the request.
OF_A_REQUEST: Final = ("status", "model", "node_id", "latency_ms", "error_type", "error_message", "request_id")


def run(arguments: argparse.Namespace) -> int:
    """Print the matching lines, oldest first; raises CommandError where there is no log."""
    folder = data_dir(arguments.data_dir) / "logs"
    if not log_files(folder):
        raise CommandError(f"no log in {folder}; set the router's data directory with --data-dir")
    found = list(islice(matching(folder, arguments.level, arguments.grep), arguments.limit))
    for line in reversed(found):
        if arguments.json:
            print(json.dumps(line))
        else:
            show(readable(line))
    return 0


def matching(folder: Path, level: str | None, text: str | None) -> Iterator[Line]:
    """The lines of at least a level that contain a text, newest first, without those that are no JSON object."""
    levels = frozenset(LEVELS[LEVELS.index(level) :]) if level else None
    wanted = text.casefold() if text else None
    for path in reversed(log_files(folder)):
        for raw in _lines_of(path):
            line = parsed(raw)
            if line is None or (levels and line.get("level") not in levels):
                continue
            # Compared as people read it: the file has escapes for everything beyond ASCII.
            if wanted is None or wanted in json.dumps(line, ensure_ascii=False).casefold():
                yield line


def readable(line: Line) -> Text:
    """A line for people: local time, level, who, what, then the fields; a traceback below it."""
    text = Text(f"{_clock(line.get('timestamp'))} ")
    text.append_text(cell(line.get("level"))).append(" " * max(1, 9 - len(str(line.get("level")))))
    text.append(harmless(f"{line.get('event')}"), "bold").append(harmless(f"  {_fields(line)}"))
    for key in ("exception", "stack"):
        if line.get(key):
            text.append("\n" + harmless(str(line[key])), "dim")
    return text


def _fields(line: Line) -> str:
    names = OF_A_REQUEST if line.get("event") == "request_finished" else tuple(line)
    told = [(name, line.get(name)) for name in names if name not in HEAD and name not in {"exception", "stack"}]
    return " ".join(f"{name}={_value(value)}" for name, value in told if value is not None)


def _value(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if " " in value or not value else value
    return json.dumps(value, ensure_ascii=False)


def _clock(timestamp: object) -> str:
    try:
        return datetime.fromisoformat(str(timestamp)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return str(timestamp)


def _lines_of(path: Path) -> Iterator[bytes]:
    try:
        yield from backwards(path)
    except FileNotFoundError:  # rotated away just now; it was the oldest
        return
    except OSError as error:
        raise CommandError(f"{path} cannot be read ({error.strerror})") from error

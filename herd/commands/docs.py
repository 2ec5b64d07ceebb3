"""`herd docs`: prints a topic of the reference, or writes all of them as files."""

import argparse
import sys
from pathlib import Path
from shutil import get_terminal_size

from rich.markdown import Markdown

from herd.commands import CommandError
from herd.commands.output import show, show_json, table
from herd.reference.pages import TOPICS, Topic


def run(arguments: argparse.Namespace) -> int:
    """Print or write; raises CommandError for a topic that does not exist or a folder that cannot be written."""
    if arguments.write is not None:
        return _write(Path(arguments.write))
    if arguments.topic is None:
        return _list(arguments.json)
    topic = TOPICS.get(arguments.topic)
    if topic is None:
        raise CommandError(f"unknown topic {arguments.topic!r}; choose from {', '.join(TOPICS)}")
    _print(topic, arguments.json)
    return 0


def _print(topic: Topic, as_json: bool) -> None:
    if as_json:
        show_json({"topic": topic.name, "about": topic.about, "entries": topic.entries()})
    elif sys.stdout.isatty():
        show(Markdown(topic.markdown()), width=min(120, get_terminal_size().columns))
    else:
        print(topic.markdown(), end="")


def _list(as_json: bool) -> int:
    if as_json:
        show_json({"topics": [{"topic": topic.name, "about": topic.about} for topic in TOPICS.values()]})
    else:
        show(table(("TOPIC", "CONTENTS"), [(topic.name, topic.about) for topic in TOPICS.values()]))
        show("", "`herd docs TOPIC` prints a topic; `herd docs --write DIR` writes all topics as Markdown.")
    return 0


def _write(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for topic in TOPICS.values():
            path = folder / f"{topic.name}.md"
            path.write_text(topic.markdown(), encoding="utf-8")
            print(path)
    except OSError as error:
        raise CommandError(f"{folder} cannot be written ({error.strerror})") from error
    return 0

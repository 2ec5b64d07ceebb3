"""`herd top`: the requests in flight, live: sorted, with keys to move, to sort and to cancel.

Without a terminal it prints one table and ends.
"""

import argparse
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from rich.text import Text

from herd.commands import CommandError
from herd.commands.moments import duration
from herd.commands.output import cell, show, show_json, table
from herd.commands.places import router_url
from herd.commands.records import short
from herd.commands.router import ask, tell

Document = Mapping[str, Any]
HEAD: Final = ("PHASE", "MODEL", "NODE", "AGE", "TOKENS", "ENDS IN", "REQUEST", "CLIENT", "TAGS")
RIGHT: Final = ("AGE", "TOKENS", "ENDS IN")
PRIORITY: Final = ("PHASE", "MODEL", "AGE", "NODE", "REQUEST", "TOKENS", "ENDS IN", "CLIENT", "TAGS")
EVERY_S: Final = 1.0
ORDERS: Final = ("age", "node", "model", "tokens", "phase")
KEYS: Final = "q quit   ↑↓ select   s sort   c cancel the selected request"
CHROME: Final = 6  # lines of the screen that are no request
UP, DOWN = ("\x1b[A", "k"), ("\x1b[B", "j")


@dataclass(frozen=True, slots=True)
class Screen:
    """What the user chose: the order, the selected request, and whether its cancellation awaits a yes."""

    order: str = "age"
    selected: str | None = None
    asking: bool = False
    note: str = ""


def run(arguments: argparse.Namespace) -> int:
    """Show until q or Ctrl-C; raises CommandError where the router does not answer at the start."""
    url = router_url(arguments.url)
    document = ask(url, "/fleet/requests", "requests")
    if arguments.json:
        show_json(document)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        _live(url, document)
    else:
        _print(document, Screen())
    return 0


def _live(url: str, document: Document) -> None:
    before = termios.tcgetattr(sys.stdin)
    screen: Screen | None = Screen()
    try:
        tty.setcbreak(sys.stdin)
        sys.stdout.write("\x1b[?1049h\x1b[?25l")
        due = 0.0
        while screen is not None:
            if time.monotonic() >= due:
                document, screen = _asked(url, document, screen)
                due = time.monotonic() + EVERY_S
            sys.stdout.write("\x1b[H\x1b[J")
            _print(document, screen)
            sys.stdout.flush()
            if select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
                key = os.read(sys.stdin.fileno(), 8).decode(errors="replace")
                screen = _pressed(key, screen, in_order(document["requests"], screen.order), url)
                due = due if screen and not screen.note else 0.0
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _asked(url: str, before: Document, screen: Screen) -> tuple[Document, Screen]:
    """The requests of now; where the router does not answer, those of before and why."""
    try:
        return ask(url, "/fleet/requests", "requests"), replace(screen, note="")
    except CommandError as error:
        return before, replace(screen, note=str(error))


def _pressed(key: str, screen: Screen, rows: Sequence[Document], url: str) -> Screen | None:
    """The screen after a key; None for the end."""
    after = pressed(key, screen, [row["request_id"] for row in rows])
    if after is not None and screen.asking and key == "y" and screen.selected:
        try:
            tell(url, f"/fleet/requests/{quote(screen.selected, safe='')}/cancel", {}, "cancelled")
        except CommandError as error:
            return replace(after, note=str(error))
    return after


def pressed(key: str, screen: Screen, ids: Sequence[str]) -> Screen | None:
    """The screen after a key, with these requests in their order; None for the end."""
    if screen.asking:
        return replace(screen, asking=False)
    if key in ("q", "\x1b"):
        return None
    if key == "s":
        return replace(screen, order=ORDERS[(ORDERS.index(screen.order) + 1) % len(ORDERS)])
    if key == "c":
        return replace(screen, asking=screen.selected in ids)
    if key in (*UP, *DOWN) and ids:
        step = 1 if key in DOWN else -1
        at = ids.index(screen.selected) + step if screen.selected in ids else 0
        return replace(screen, selected=ids[max(0, min(len(ids) - 1, at))])
    return screen


def in_order(rows: Sequence[Document], order: str) -> list[Document]:
    """The requests by age or tokens, the most first, else by name."""
    if order in ("age", "tokens"):
        name = {"age": "age_s", "tokens": "completion_tokens"}[order]
        return sorted(rows, key=lambda row: -(row[name] or 0))
    name = {"node": "node_id", "model": "model", "phase": "phase"}[order]
    return sorted(rows, key=lambda row: (row[name] or "", -row["age_s"]))


def _print(document: Document, screen: Screen) -> None:
    rows = in_order(document["requests"], screen.order)
    waiting = sum(row["phase"] == "queued" for row in rows)
    live = sys.stdin.isatty() and sys.stdout.isatty()
    room = max(1, shutil.get_terminal_size().lines - CHROME) if live else len(rows)
    show(f"{len(rows)} requests in flight, {waiting} of them queued; by {screen.order}")
    if rows:
        shown = [_row(row, document["timestamp"], screen.selected) for row in rows[:room]]
        show("", table(HEAD, shown, RIGHT, priority=PRIORITY))
    if len(rows) > room:
        show(f"and {len(rows) - room} more")
    if live:
        asked = f"Cancel {screen.selected}? y for yes, any other key for no" if screen.asking else ""
        show("", cell(screen.note or asked or KEYS, "bold red" if screen.note or asked else "dim"))


def _row(row: Document, now: float, selected: str | None) -> list[Text]:
    left = None if row["predicted_end"] is None else duration(max(0.0, row["predicted_end"] - now))
    phase = f"{row['phase']}, attempt {row['attempts']}" if row["attempts"] > 1 else row["phase"]
    values = (
        phase, row["model"], row["node_id"], duration(row["age_s"]), row["completion_tokens"], left,
        short(row["request_id"]), row["client_ip"], ", ".join(row["tags"]) or None,
    )  # fmt: skip
    return [cell(value, "reverse" if row["request_id"] == selected else None) for value in values]

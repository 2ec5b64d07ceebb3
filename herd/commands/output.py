"""How commands print: tables and lines for people, JSON for programs. Knows nothing of what it prints.

On a terminal a table breaks its lists and long texts at words to keep to the width. Where it has priorities, the least
important columns are left out and then the longest texts shortened; otherwise, and where there is no terminal, all of
it stays whole, so that it can be copied. Colour is for terminals, and for none with NO_COLOR.
"""

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

UNBOUNDED: Final = 100_000
LOOSE: Final = frozenset({"LOADED", "TAGS", "WHY", "MODELS", "ERROR", ""})  # columns that may break at words
GAP, FEWEST, SHORTEST, LOOSE_LEAST = 2, 3, 8, 12
TRAILING: Final = re.compile(r"(?: |\x1b\[[0-9;]*m)+$")  # the blanks that fill a column, not the end of its colour
STYLES: Final = {
    "online": "green", "degraded": "yellow", "offline": "red", "normal": "green", "warn": "yellow", "critical": "red",
    "completed": "green", "failed": "red", "incomplete": "red", "rejected": "yellow", "client_disconnected": "yellow",
    "DEBUG": "dim", "INFO": "", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red",
    "yes": "green", "NO": "red",
}  # fmt: skip


def show(*parts: RenderableType, width: int | None = None) -> None:
    """Print texts and tables, one after the other; a string is taken as it is, never as markup."""
    own = terminal_width()
    console = Console(
        width=width or own,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )
    with console.capture() as capture:
        for part in parts:
            if isinstance(part, Table):
                console.width = UNBOUNDED
                console.width = max(width or own, console.measure(part).minimum)
                console.print(part)
            elif isinstance(part, str | Text):
                console.print(cell(part) if isinstance(part, str) else part, soft_wrap=True)
            else:
                console.print(part)
    for line in capture.get().split("\n")[:-1]:
        print(TRAILING.sub(lambda found: found[0].replace(" ", ""), line))


def show_json(document: object) -> None:
    """Print a document for programs: ASCII, indented, its keys in their own order."""
    print(json.dumps(document, indent=2))


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Iterable[str] = (),
    priority: Sequence[str] = (),
    width: int | None = None,
) -> Table:
    """A table without lines; `right` names the columns of numbers. A heading may have several lines."""
    cells = [[value if isinstance(value, Text) else cell(value) for value in row] for row in rows]
    if priority:
        head, cells = fitting(head, cells, priority, width or terminal_width())
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    numbers, tall = set(right), any("\n" in name for name in head)
    for place, name in enumerate(head):
        rigid = max(map(cell_len, (*name.split("\n"), *(row[place].plain for row in cells))))
        made.add_column(
            name,
            justify="right" if name in numbers else "left",
            vertical="bottom" if tall else "top",
            min_width=None if name in LOOSE and not priority else rigid,
            no_wrap=bool(priority) or name not in LOOSE,
        )
    for row in cells:
        made.add_row(*row)
    return made


def terminal_width() -> int:
    """The columns of the terminal; without one, as many as anything needs."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNBOUNDED


def fitting(
    head: Sequence[str], rows: Sequence[Sequence[Text]], priority: Sequence[str], width: int
) -> tuple[list[str], list[list[Text]]]:
    """The columns that fit into a width, in their order: the least important go first, then the longest are cut.

    `priority` names all columns, the most important first; three of them stay in any case.
    """
    needs = {
        name: max(map(cell_len, (*name.split("\n"), *(row[place].plain for row in rows))))
        for place, name in enumerate(head)
    }
    room = {name: min(need, LOOSE_LEAST) if name in LOOSE else need for name, need in needs.items()}
    for name in reversed(priority):
        if _total(room) <= width or len(room) <= FEWEST:
            break
        del room[name]
    while (over := _total(room) - width) > 0 and max(room.values()) > SHORTEST:
        longest = max(room, key=lambda name: room[name])
        second = max((size for name, size in room.items() if name != longest), default=0)
        room[longest] = max(SHORTEST, room[longest] - over, min(second, room[longest] - 1))
    for name in LOOSE & room.keys():
        room[name] += max(0, min(needs[name] - room[name], width - _total(room)))
    places = [place for place, name in enumerate(head) if name in room]
    cut = [[_cut(row[place], room[head[place]]) for place in places] for row in rows]
    return [head[place] for place in places], cut


def _total(room: Mapping[str, int]) -> int:
    return sum(room.values()) + GAP * (len(room) - 1)


def _cut(text: Text, room: int) -> Text:
    if cell_len(text.plain) <= room:
        return text
    short = text.copy()
    short.truncate(room, overflow="ellipsis")
    return short


def cell(value: object, style: str | None = None) -> Text:
    """A value as text, with the colour of its word if it is one of `STYLES`; `-` for None."""
    text = "-" if value is None else harmless(str(value))
    return Text(text, STYLES.get(text, "") if style is None else style)


def harmless(text: str) -> str:
    """The text without what would steer a terminal: clients choose model names, tags and parts of error messages."""
    if text.isprintable():
        return text
    return "".join(char if char == "\n" or unicodedata.category(char)[0] != "C" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")

"""Tables on terminals of any width."""

import pytest
from rich.cells import cell_len
from rich.text import Text

from herd.commands.output import cell, fitting

HEAD = ("TIME", "REQUEST", "MODEL", "NODE", "TAGS")
PRIORITY = ("REQUEST", "MODEL", "NODE", "TIME", "TAGS")
LONG = ("2026-12-01 01:02:03", "8f3a2b1c9d0e", "llama3.3:70b-instruct-q4_K_M", "mac-studio", "nightly-batch, " * 4)
ROWS = [list(map(cell, LONG)), list(map(cell, ("2026-12-01 01:02:04", "short", "qwen3:8b", "mini", None)))]


def lines(rows):
    return [sum(map(cell_len, (text.plain for text in row))) + 2 * (len(row) - 1) for row in rows]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_row_is_wider_than_the_terminal(width):
    """A row that wraps cannot be read as a table."""
    head, rows = fitting(HEAD, ROWS, PRIORITY, width)
    assert max(lines(rows)) <= width
    assert {len(row) for row in rows} == {len(head)}


def test_the_least_important_columns_go_first_and_the_order_stays():
    """Narrow or wide, the request and its model are there."""
    assert fitting(HEAD, ROWS, PRIORITY, 90)[0] == ["TIME", "REQUEST", "MODEL", "NODE", "TAGS"]
    assert fitting(HEAD, ROWS, PRIORITY, 80)[0] == ["TIME", "REQUEST", "MODEL", "NODE"]
    assert fitting(HEAD, ROWS, PRIORITY, 60)[0] == ["REQUEST", "MODEL", "NODE"]


def test_a_name_that_does_not_fit_ends_in_an_ellipsis_and_what_fits_is_whole():
    """A name that is cut without a sign is another name."""
    _, rows = fitting(HEAD, ROWS, PRIORITY, 40)
    assert [text.plain for text in rows[0]] == ["8f3a2b1c9d0e", "llama3.3:70b-…", "mac-studio"]
    assert rows[1][1].plain == "qwen3:8b"
    _, whole = fitting(HEAD, ROWS, PRIORITY, 100_000)
    assert [[text.plain for text in row] for row in whole] == [[text.plain for text in row] for row in ROWS]


def test_a_style_survives_the_cut():
    """A selected row is still marked."""
    _, rows = fitting(("A", "B", "C"), [[Text("x" * 50, "reverse")] * 3], ("A", "B", "C"), 40)
    assert {text.style for text in rows[0]} == {"reverse"}

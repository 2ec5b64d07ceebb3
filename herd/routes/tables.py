"""A report as an answer: JSON, or CSV for a spreadsheet. Knows formats, and not what the figures mean."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import Query
from fastapi.responses import JSONResponse, Response

Document = dict[str, Any]
Format = Annotated[Literal["json", "csv"], Query(description="JSON, or CSV with a header row")]

# A spreadsheet takes a cell that begins so for a formula; names of models and tags are whatever a client sent.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class AsciiJSON(JSONResponse):
    """JSON with escapes: a model's name may hold a lone surrogate, which UTF-8 has no bytes for."""

    def render(self, content: Any) -> bytes:
        """The bytes of an answer."""
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def as_csv(name: str, rows: Iterable[Document], columns: Sequence[str]) -> Response:
    """Rows as a file of that name; lists within a cell are separated by spaces, objects are JSON, None is empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return Response(
        text.getvalue().encode("utf-8", "backslashreplace"),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="herd-{name}.csv"'},
    )


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    elif isinstance(value, dict | bool):
        value = json.dumps(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value

"""What the store or a table makes, as an answer of the application: JSON, or CSV for a spreadsheet."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from fastapi import Query
from fastapi.responses import JSONResponse, Response

from herd.store.answers import Answer, as_json, csv_answer

Document = dict[str, Any]
Format = Annotated[Literal["json", "csv"], Query(description="JSON, or CSV with a header row")]


class AsciiJSON(JSONResponse):
    """JSON with escapes: a model's name may hold a lone surrogate, which UTF-8 has no bytes for."""

    def render(self, content: Any) -> bytes:
        """The bytes of an answer."""
        return as_json(content)


def response(answer: Answer) -> Response:
    """An answer that was written out already."""
    return Response(answer.body, answer.status, dict(answer.headers), answer.media_type)


def as_csv(name: str, rows: Iterable[Document], columns: Sequence[str]) -> Response:
    """Rows as a file of that name."""
    return response(csv_answer(name, rows, columns))

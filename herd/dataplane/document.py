"""From bytes to the JSON object that a body holds, read as Ollama's server reads it, and back where one member changes.

Pure. Go matches keys in any case and takes the last one; what is not valid UTF-8 becomes U+FFFD; what follows the
object is not read. Whether an engine takes the body is the engine's to say: what one of them reads, herd reads.

Beyond that there are limits of herd's own: values, since each costs time in which nobody else is served, nesting (about
a thousand levels) and the digits of whole numbers (4,300), which are the interpreter's.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from herd.core.errors import BadRequest

Document = dict[str, Any]

# What reading a body may cost, in values outside of strings; an object or a list costs about as much as four others.
# 750,000 take about a tenth of a second.
MOST_VALUES: Final = 750_000
CONTAINER: Final = 4
SPACE: Final = " \t\n\r"
ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7]")
SPACES: Final = re.compile(f"[{SPACE}]*")


class Reading(NamedTuple):
    """A body's document, its keys in lower case; `whole`: nothing but space follows it."""

    document: Document
    whole: bool


class Member(NamedTuple):
    """A member of the object at the top level, and the part of the text that it is."""

    key: str
    value: Any
    begin: int
    end: int


def read(body: bytes) -> Reading:
    """The JSON object that a body holds; the content type does not matter. Raises BadRequest."""
    if not body.strip():
        raise BadRequest("missing request body")
    _check_values(body)
    text = text_of(body)
    try:
        document, end = DECODER.raw_decode(text, _start(text))
        if not isinstance(document, dict):
            raise BadRequest(f"the request body must be a JSON object, not {json_type(document)}")
        if not _is_plain(document, body):
            document = _folded(members(text))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request body is not valid JSON: {str(error)[:200]}") from error
    return Reading(document, not text[end:].strip(SPACE))


def text_of(body: bytes) -> str:
    """The body as text; a byte that is of no character becomes U+FFFD, as in Go."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("utf-8", "replace")


def members(text: str) -> Iterator[Member]:
    """The members of the object in a text, in their order, repeated ones too. Raises ValueError where it is not one."""
    at = _after_space(text, _start(text) + 1)
    while text[at : at + 1] == '"':
        begin = at
        key, at = DECODER.raw_decode(text, at)
        at = _after_space(text, at)
        if text[at : at + 1] != ":":
            raise ValueError(f"no colon at character {at}")
        value, at = DECODER.raw_decode(text, _after_space(text, at + 1))
        yield Member(key, value, begin, at)
        at = _after_space(text, at)
        if text[at : at + 1] != ",":
            return
        at = _after_space(text, at + 1)


def changed(body: bytes, changes: Mapping[str, Any]) -> bytes:
    """The body with other values for some of its keys, taken out where the value is None; all else byte for byte.

    Raises ValueError for a value that JSON cannot say, such as an infinite number.
    """
    text = text_of(body)
    kept = [text[each.begin : each.end] for each in members(text) if fold(each.key) not in changes]
    kept += [_written(key, value) for key, value in changes.items() if value is not None]
    return f"{{{','.join(kept)}}}".encode("utf-8", "surrogatepass")


def extended(body: bytes, additions: Mapping[str, Any]) -> bytes:
    """The body with further members at its end; it holds nothing but an object that is not empty, without these."""
    tail = ",".join(_written(key, value) for key, value in additions.items())
    return b"%b,%b}" % (body.rstrip()[:-1], tail.encode())


def fold(key: str) -> str:
    """A key in the one case in which Go compares it: letter by letter, so that `ß` stays one."""
    return key.lower() if key.isascii() else "".join(low if len(low := each.casefold()) == 1 else each for each in key)


def json_type(value: object) -> str:
    """What JSON calls a value's type."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _written(key: str, value: Any) -> str:
    return f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'), allow_nan=False)}"


def _check_values(body: bytes) -> None:
    """Refuse what would hold up every other stream for long. Text is quick, however much; commas in it are none."""
    if len(body) <= MOST_VALUES or _cost(body) <= MOST_VALUES:
        return
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A string is a value or a key; to tell inside from outside, the text is cut at each of them.
    if bare.count(b'"') > 2 * MOST_VALUES or _cost(b"".join(bare.split(b'"')[::2])) > MOST_VALUES:
        raise BadRequest(f"the request body holds more than {MOST_VALUES} values (a list or an object counts as 4)")


def _cost(outside: bytes) -> int:
    return outside.count(b",") + CONTAINER * (outside.count(b"{") + outside.count(b"["))


def object_in(text: bytes | str) -> Document | None:
    """The object that a node's line, a whole answer or an operator's body is; None where it is no JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_plain(document: Document, body: bytes) -> bool:
    """Whether every key can mean but one thing: nearly always, and then there is nothing to fold."""
    keys = "".join(document)
    if not keys.isascii() or keys != keys.lower() or body.count(b'"model"') != 1:
        return False
    return b"\\u00" not in body or not ESCAPED_LETTER.search(body)


def _folded(found: Iterator[Member]) -> Document:
    """The members as Go reads them: the last of a key counts, whatever its case, and options are added up."""
    document: Document = {}
    for member in found:
        key, value = fold(member.key), member.value
        if key == "model" and key in document:
            raise BadRequest("model appears twice in the request body")  # engines differ on which one counts
        before = document.get(key) if key == "options" else None
        document[key] = before | value if isinstance(before, dict) and isinstance(value, dict) else value
    return document


def _start(text: str) -> int:
    # A byte order mark is no JSON, but llama.cpp reads past it.
    return 0 if text.startswith("{") else len(text) - len(text.lstrip(SPACE + "\ufeff"))


def _after_space(text: str, at: int) -> int:
    found = SPACES.match(text, at)
    return found.end() if found else at


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)

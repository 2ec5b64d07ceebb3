"""Takes secrets out of log lines: whole values under telling keys, and what looks like a credential within any text.

It would rather blot out a harmless word than let a key pass. Pure; linear in the length of a text.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"
MOST_DEPTH = 6
HARMLESS = frozenset({type(None), bool, int, float})
SECRET_KEYS = frozenset({
    "authorization", "proxy_authorization", "cookie", "set_cookie", "api_key", "apikey", "x_api_key", "token",
    "access_token", "refresh_token", "id_token", "secret", "client_secret", "password", "passwd", "credentials",
})  # fmt: skip
# Two glances that spare most values the patterns: no credential is without one of the first and one of the second.
SHAPE = re.compile(r"[\s:=,]|sk-|hf_")
HINT = re.compile(r"://|bearer|basic|authorization|cookie|key|token|passw|secret|\bsk-|\bhf_", re.IGNORECASE)
HEADER = r"((?:authorization|cookie)[\"']?\s{0,4}[:=,]\s{0,4}b?[\"']?)[^\"'\r\n]+"
ASSIGNED = r"((?:api[-_]?key|token|passw(?:or)?d|secret)[\"']?\s{0,4}[:=]\s{0,4}[\"']?)[^\s\"'&,;}]+"
PATTERNS = (
    (re.compile(HEADER, re.IGNORECASE), rf"\1{REDACTED}"),  # its value may hold spaces, so the line goes
    (re.compile(ASSIGNED, re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"\b(bearer)\s{1,4}[^\s\"',;]{6,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"\b(Basic)\s{1,4}(?=[A-Za-z0-9+/]{0,64}[0-9=])[A-Za-z0-9+/=]{6,}"), rf"\1 {REDACTED}"),
    (re.compile(r"(?<=://)[^/\s@?#\"']+@"), f"{REDACTED}@"),
    (re.compile(r"\b(sk-|hf_)[A-Za-z0-9_-]{8,}"), rf"\1{REDACTED}"),
)


def redact(value: Any, depth: int = 0) -> Any:
    """The value without its secrets; mappings and sequences are gone through, other objects are left alone."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, (list, tuple)) and depth < MOST_DEPTH:
        return [redact(inner, depth + 1) for inner in value]
    if isinstance(value, Mapping) and depth < MOST_DEPTH:
        return {
            name: inner if type(inner) in HARMLESS and not _is_secret(name) else _under(name, inner, depth + 1)
            for name, inner in value.items()
        }
    return value


def redact_text(text: str) -> str:
    """The text with everything blotted out that looks like a credential."""
    if SHAPE.search(text) and HINT.search(text):
        for pattern, replacement in PATTERNS:
            text = pattern.sub(replacement, text)
    return text


def _under(name: object, value: Any, depth: int) -> Any:
    return REDACTED if value is not None and _is_secret(name) else redact(value, depth)


@lru_cache(maxsize=1024)
def _is_secret(name: object) -> bool:
    return isinstance(name, str) and name.lower().replace("-", "_") in SECRET_KEYS

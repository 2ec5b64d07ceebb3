"""The access checks ("doors") of a request, and the reasons why each may refuse it: closed lists.

Pure. The counter of refusals has them as labels; what a client is told is the error's own text.
"""

from collections.abc import Mapping
from typing import Final

from herd.core import errors

DOORS: Final[Mapping[str, tuple[str, ...]]] = {
    "connections": ("too_many",),
    "head": ("malformed", "too_large", "too_slow"),
    "host": ("malformed", "not_allowed"),
    "origin": ("not_allowed",),
    "body": ("too_large", "no_room"),
    "loop": ("loop",),
    "key": ("no_credential", "unknown_credential", "revoked", "expired", "scope", "limit", "not_allowed"),
    "node": (
        "malformed",
        "no_credential",
        "unknown_credential",
        "revoked",
        "signature",
        "repeated",
        "other_key",
        "address",
    ),
}
REASONS: Final = tuple(dict.fromkeys(reason for reasons in DOORS.values() for reason in reasons))
BY_ERROR: Final[dict[type[errors.HerdError], str]] = {
    errors.BadRequest: "malformed",
    errors.HeadTimeout: "too_slow",
    errors.BodyTooLarge: "too_large",
    errors.UrlTooLong: "too_large",
    errors.HeadTooLarge: "too_large",
    errors.TooManyConnections: "too_many",
    errors.Forbidden: "not_allowed",
    errors.LoopDetected: "loop",
    errors.AllowanceUsed: "limit",
}


def reason_of(error: errors.HerdError) -> str:
    """The door's reason for an error of the error tree."""
    return BY_ERROR.get(type(error), "not_allowed")

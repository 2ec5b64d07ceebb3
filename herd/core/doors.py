"""The doors that stand before a request, and the reasons for which each may turn it away: closed lists of words.

Pure. The counter of refusals has them as labels; what a refusal says to its client is the error's own text.
"""

from typing import Final

from herd.core import errors

DOORS: Final = ("connections", "head", "host", "origin", "body", "loop", "memory")
REASONS: Final = ("malformed", "not_allowed", "too_large", "too_slow", "too_many", "no_credential", "loop", "no_room")
BY_ERROR: Final[dict[type[errors.HerdError], str]] = {
    errors.BadRequest: "malformed",
    errors.HeadTimeout: "too_slow",
    errors.BodyTooLarge: "too_large",
    errors.UrlTooLong: "too_large",
    errors.HeadTooLarge: "too_large",
    errors.TooManyConnections: "too_many",
    errors.Unauthorized: "no_credential",
    errors.Forbidden: "not_allowed",
}


def reason_of(error: errors.HerdError) -> str:
    """The word for why an error of the tree turned a request away at a door."""
    return BY_ERROR.get(type(error), "not_allowed")

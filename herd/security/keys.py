"""API keys as text and as they are kept: `herd_<id>_<secret>_<check>`.

Pure. Only the SHA-256 of the whole key is kept: 256 random bits need no slow hash. The check lets a key that was
mistyped be told from one that is wrong, and scanners find keys that leaked.
"""

import base64
import hashlib
import hmac
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from herd.core.access import NO_LIMITS, Caller, Limits, Scope, day_of

SECTION: Final = "keys"
PREFIX: Final = "herd_"
ID_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
CHECK_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_BYTES: Final = 5  # eight characters of base32
SECRET_BYTES: Final = 32
DAY_S: Final = 86_400
FORM: Final = re.compile(r"herd_([a-z2-7]{8})_[A-Za-z0-9_-]{43}_[0-9A-Za-z]{6}")
NAME: Final = re.compile(r"[\w .@:/+-]{1,64}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept; times are unix seconds, 0 for never. `last_used` is a day, as `2026-11-03`."""

    id: str
    name: str
    scope: Scope
    digest: str
    created_at: float
    limits: Limits = NO_LIMITS
    expires_at: float = 0.0
    revoked_at: float = 0.0
    last_used: str = ""

    @property
    def caller(self) -> Caller:
        """Whoever shows this key."""
        return Caller(self.id, self.name, self.limits, self.scope)

    def wrong_at(self, now: float) -> tuple[str, str] | None:
        """The reason's word and the words of why the key is no longer good; None where it is."""
        if self.revoked_at:
            return "revoked", f"the key {PREFIX}{self.id} was revoked on {day_of(self.revoked_at)}"
        if self.expires_at and now >= self.expires_at:
            return "expired", f"the key {PREFIX}{self.id} expired on {day_of(self.expires_at)}"
        return None


def state_at(key: Key, now: float) -> str:
    """One word for whether a key is good."""
    wrong = key.wrong_at(now)
    return wrong[0] if wrong else "good"


def spell(id_bytes: bytes, secret: bytes) -> tuple[str, str]:
    """A key's id and its text, of random bytes: ID_BYTES and SECRET_BYTES of them."""
    name = base64.b32encode(id_bytes).decode().lower()
    body = f"{PREFIX}{name}_{base64.urlsafe_b64encode(secret).rstrip(b'=').decode()}"
    return name, f"{body}_{check_of(body)}"


def check_of(body: str) -> str:
    """Six characters that a mistyped key does not have."""
    number, found = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, rest = divmod(number, len(CHECK_ALPHABET))
        found = CHECK_ALPHABET[rest] + found
    return found


def id_in(text: str) -> str | None:
    """The id in a key's text; None where this is no key as `spell` makes them."""
    found = FORM.fullmatch(text)
    return found[1] if found and hmac.compare_digest(check_of(text[:-7]), text[-6:]) else None


def digest_of(text: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_of(key: Key, text: str) -> bool:
    """Whether a text is this key; takes as long for any other."""
    return hmac.compare_digest(key.digest, digest_of(text))


def day_in_file(at: float) -> str:
    """A day of UTC as the file has it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def noted(row: dict[str, Any], used: Mapping[str, float]) -> dict[str, Any]:
    """A row with the day of its last use, where that is told by id."""
    return {**row, "last_used": day_in_file(used[row["id"]])} if row["id"] in used else row


def written(key: Key) -> dict[str, Any]:
    """A key as the file has it."""
    return {
        "id": key.id, "name": key.name, "scope": key.scope.value, "digest": key.digest, "created_at": key.created_at,
        "models": list(key.limits.models), "requests_per_minute": key.limits.requests_per_minute,
        "tokens_per_day": key.limits.tokens_per_day, "expires_at": key.expires_at, "revoked_at": key.revoked_at,
        "last_used": key.last_used,
    }  # fmt: skip


def read(row: dict[str, Any]) -> Key:
    """A key from the file. Raises KeyError, TypeError or ValueError where it is none."""
    limits = Limits(tuple(map(str, row["models"])), int(row["requests_per_minute"]), int(row["tokens_per_day"]))
    return Key(
        id=str(row["id"]), name=str(row["name"]), scope=Scope(row["scope"]), digest=str(row["digest"]), limits=limits,
        created_at=float(row["created_at"]), expires_at=float(row["expires_at"]), revoked_at=float(row["revoked_at"]),
        last_used=str(row["last_used"]),
    )  # fmt: skip

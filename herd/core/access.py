"""Who may do what: the scopes of credentials, the callers that they make, and what a key is limited to.

Pure values. How a credential is proven stands in `security`; here is what it is worth once it is.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final


class Scope(StrEnum):
    """What a credential is for. An admin may do everything; of the other two neither includes the other."""

    INFERENCE = "inference"
    READ = "read"
    ADMIN = "admin"


class Need(StrEnum):
    """What a path asks of its caller; `open` asks for nothing, `node` for what nodes prove by themselves."""

    OPEN = "open"
    NODE = "node"
    LIST = "list"
    INFERENCE = "inference"
    READ = "read"
    ADMIN = "admin"


ENOUGH: Final = {
    Need.OPEN: frozenset(Scope),
    Need.NODE: frozenset(Scope),
    Need.LIST: frozenset(Scope),
    Need.INFERENCE: frozenset({Scope.INFERENCE, Scope.ADMIN}),
    Need.READ: frozenset({Scope.READ, Scope.ADMIN}),
    Need.ADMIN: frozenset({Scope.ADMIN}),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one key may use; 0 and the empty tuple are no limit. `models` are patterns of canonical names."""

    models: tuple[str, ...] = ()
    requests_per_minute: int = 0
    tokens_per_day: int = 0


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever a request comes from, as far as it has proven; `key_id` is empty for whoever showed no key.

    `local`: a process of the router's own user on its machine.
    """

    key_id: str = ""
    name: str = ""
    limits: Limits = NO_LIMITS
    scope: Scope | None = None
    local: bool = False

    def may_use(self, model: str) -> bool:
        """Whether a model, by its canonical name, is one of those that its key allows."""
        return not self.limits.models or _matches(model, self.limits.models)


NOBODY: Final = Caller()


@lru_cache(maxsize=1024)
def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    plain = model.removesuffix(":latest")
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (model, plain))


def day_of(at: float) -> str:
    """The day of a moment (unix seconds) in UTC, as `3 Nov 2026`."""
    when = datetime.fromtimestamp(at, UTC)
    return f"{when.day} {when:%b %Y}"

"""One request as the router understands it: what `decide` needs, and nothing a user wrote."""

from dataclasses import dataclass
from enum import StrEnum


class Dialect(StrEnum):
    """The protocol family that the client speaks; errors are answered in it."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for.

    `model` and `fallback_models` are canonical names (`m:latest`). `prompt_tokens` is an estimate, `max_tokens` and
    `num_ctx` what the client asked for. `prefix` is a digest of the conversation's beginning, `client` the key by which
    clients take turns.
    """

    endpoint: str
    dialect: Dialect
    model: str
    stream: bool = False
    fallback_models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    prompt_tokens: int = 0
    max_tokens: int | None = None
    num_ctx: int | None = None
    prefix: str | None = None
    client: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        """The model asked for, then the ones it may fall back to, each once."""
        return tuple(dict.fromkeys((self.model, *self.fallback_models)))

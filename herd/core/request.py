"""One request as the router understands it: what `decide` needs, and beside it what spans tell of."""

from enum import StrEnum
from typing import Final

from herd.core.value import value


class Dialect(StrEnum):
    """The protocol family that the client speaks; errors are answered in it."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@value
class Parameters:
    """How the client wants the answer made, as far as it says; spans tell of it, and no decision looks at it."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    seed: int | None = None
    stop_sequences: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    choice_count: int | None = None
    encoding_formats: tuple[str, ...] = ()


NOTHING_SAID: Final = Parameters()


@value
class Request:
    """What was asked for.

    `model` and `fallback_models` are canonical names (`m:latest`). `prompt_tokens` is an estimate, `max_tokens` and
    `num_ctx` what the client asked for. `prefix` is the prompt's chain of hashes (`core.prefix`), `client` the key by
    which clients take turns.
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
    prefix: tuple[int, ...] = ()
    client: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        """The model asked for, then the ones it may fall back to, each once."""
        return tuple(dict.fromkeys((self.model, *self.fallback_models))) if self.fallback_models else (self.model,)

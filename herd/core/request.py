"""One request as the router understands it: the input of `decide`, and parameters for spans."""

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
    """The client's sampling parameters; recorded in spans, not used in decisions."""

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
    """A parsed request.

    `model` and `fallback_models` are canonical names (`m:latest`). `prompt_tokens` is an estimate, `max_tokens` and
    `num_ctx` are the client's. `prefix` is the prompt's chain of hashes (`core.prefix`), `client` the key by
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
        """The requested model, then its fallbacks, each once."""
        return tuple(dict.fromkeys((self.model, *self.fallback_models))) if self.fallback_models else (self.model,)

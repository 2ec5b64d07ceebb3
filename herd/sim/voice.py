"""How an answer is said in a dialect: the seam that every dialect's file fills, and the times and ids in answers."""

import random
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from herd.sim.ask import Ask
from herd.sim.golang import rfc3339
from herd.sim.reply import Headers
from herd.sim.words import Answer, Piece

FROZEN_NS = 1_750_000_000 * 10**9
STEP_NS = 1_000_000
ALNUM = string.ascii_lowercase + string.digits
LETTERS = string.ascii_letters + string.digits
CRASH = "an error was encountered while running the model: unexpected EOF"

NDJSON = (("Content-Type", "application/x-ndjson"),)
SSE = (("Content-Type", "text/event-stream"),)
JSON_GIN = (("Content-Type", "application/json; charset=utf-8"),)
JSON_PLAIN = (("Content-Type", "application/json"),)
SSE_FLUSHED = (("Cache-Control", "no-cache"), ("Connection", "keep-alive"), ("Content-Type", "text/event-stream"))


@dataclass(frozen=True, slots=True)
class Times:
    """What an answer took, in nanoseconds: until loaded, reading the prompt, writing the answer, all in all."""

    load: int
    prompt: int
    generate: int
    total: int


def frozen_times(answer: Answer) -> Times:
    """Times that only depend on the answer: 1 ms a load and a prompt token, 10 ms an output token."""
    load, prompt, generate = STEP_NS, STEP_NS * answer.prompt_tokens, 10 * STEP_NS * answer.tokens
    return Times(load, prompt, generate, load + prompt + generate)


class Stamp:
    """Moments and ids for one answer; frozen, they are a function of its key."""

    def __init__(self, key: int, *, frozen: bool) -> None:
        self._frozen = frozen
        self._dice = random.Random(key) if frozen else random
        self._at = FROZEN_NS

    def now_ns(self) -> int:
        """Unix nanoseconds; frozen, one step later at each look."""
        if not self._frozen:
            return time.time_ns()
        self._at += STEP_NS
        return self._at

    def now(self) -> str:
        """The moment as Ollama writes it."""
        return rfc3339(self.now_ns())

    def unix(self) -> int:
        """The moment in whole unix seconds; frozen, the same for the whole answer."""
        return self._at // 10**9 if self._frozen else int(time.time())

    def number(self, below: int) -> int:
        """A number from 0."""
        return self._dice.randrange(below)

    def text(self, length: int, letters: str = ALNUM) -> str:
        """Some characters."""
        return "".join(self._dice.choices(letters, k=length))


class Voice:
    """One answer in one dialect: `feed` for each piece, then `close`; or `whole`. Each bytes object is one chunk.

    `early`: the head of a stream goes out before the first token. `hangs_up`: the connection ends with the stream.
    """

    stream_headers: ClassVar[Headers] = SSE
    whole_headers: ClassVar[Headers] = JSON_PLAIN
    early: ClassVar[bool] = False
    hangs_up: ClassVar[bool] = False

    def __init__(self, ask: Ask, answer: Answer, stamp: Stamp) -> None:
        self.ask = ask
        self.answer = answer
        self.stamp = stamp

    def feed(self, piece: Piece) -> Sequence[bytes]:
        """The frames that a piece makes."""
        raise NotImplementedError

    def close(self, times: Times, /) -> Sequence[bytes]:
        """The frames that end the answer in order."""
        raise NotImplementedError

    def whole(self, times: Times, /, *, done: bool = True) -> bytes:
        """The answer as one body; not `done`: as it is when the engine stopped without an end."""
        raise NotImplementedError

    def loaded(self, reason: str) -> bytes:
        """The answer to a request that only loads or unloads."""
        raise NotImplementedError

    def crash(self) -> Sequence[bytes]:
        """What a stream says when the engine dies in its middle: often nothing."""
        return ()

    @property
    def thought(self) -> str:
        """All of the thinking."""
        return "".join(self.answer.thinking)

    @property
    def said(self) -> str:
        """All of the content."""
        return "".join(self.answer.content)

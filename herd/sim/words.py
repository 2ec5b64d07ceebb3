"""What a simulated model says: a pure function of model, prompt and seed. Knows no protocol and no time."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal

# R&D, x<y, U+2028 and the non-Latin words are there because escaping goes wrong on exactly these.
SAYINGS = (
    "a an the of to in for on with by from at as is are was can may will should each every some most few small large "
    "fast slow warm cold local remote model node fleet router request answer token prompt context memory queue slot "
    "weight layer head vector graph index batch stream frame signal score latency budget window sample metric trace "
    "record schedule balance route serve load keep hold wait start finish measure compare explain prefer choose cache "
    "because while when where after before until often rarely never always café naïve 東京 R&D x<y 🙂 line\u2028break"
)
MUSING = "let me think about what is asked here first then compare both sides and decide so I will answer"
LEXICON, MUSINGS = SAYINGS.split(" "), MUSING.split(" ")
ASKED_LENGTH = re.compile(r"\b(\d{1,5}) words\b")
SMALL_PIECES = re.compile(r"\s*\w{1,6}|\s*\W")
CALL_TOKENS = 12


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call; `arguments` is compact JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Piece:
    """What arrives at once: `text` of one token, or the calls, which took `tokens` to write."""

    kind: Literal["thinking", "content", "calls"]
    text: str = ""
    calls: tuple[Call, ...] = ()
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `reason` is stop or length; `key` a number made of what was asked, for ids and frozen times."""

    thinking: tuple[str, ...]
    content: tuple[str, ...]
    calls: tuple[Call, ...]
    prompt_tokens: int
    tokens: int
    reason: str
    key: int

    def pieces(self) -> Iterator[Piece]:
        """The answer as it is generated."""
        for text in self.thinking:
            yield Piece("thinking", text)
        for text in self.content:
            yield Piece("content", text)
        if self.calls:
            yield Piece("calls", calls=self.calls, tokens=CALL_TOKENS)


def key_of(*parts: str) -> int:
    """A 63-bit number that stands for some texts."""
    digest = blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def count_tokens(text: str, messages: int = 1, images: int = 0) -> int:
    """Roughly what a tokenizer would count: four characters a token, some for the template, 256 an image."""
    return max(1, len(text) // 4 + 4 * messages + 256 * images)


@lru_cache(maxsize=512)
def compose(
    model: str,
    text: str,
    seed: int = 0,
    *,
    prompt_tokens: int = 1,
    limit: int | None = None,
    think: bool = False,
    schema: str | None = None,
    tools: str | None = None,
    stop: tuple[str, ...] = (),
) -> Answer:
    """The answer to a prompt. `schema` (JSON text, `"json"` for any object) and `tools` (JSON text) shape it."""
    key = key_of(model, text, str(seed))
    dice = random.Random(key)
    asked = ASKED_LENGTH.findall(text)
    length = int(asked[-1]) if asked else dice.randrange(16, 61)
    calls = _calls(dice, text, json.loads(tools)) if tools else ()
    thinking = tuple(_thoughts(dice)) if think else ()
    content = () if calls else tuple(_content(dice, length, schema))
    content, stopped = _stopped(content, stop)
    return _limited(thinking, content, calls, prompt_tokens, None if stopped and not content else limit, key)


def _limited(
    thinking: tuple[str, ...],
    content: tuple[str, ...],
    calls: tuple[Call, ...],
    prompt_tokens: int,
    limit: int | None,
    key: int,
) -> Answer:
    tokens = len(thinking) + len(content) + (CALL_TOKENS if calls else 0)
    if limit is None or limit <= 0 or limit > tokens:  # the token that ends the answer counts too
        return Answer(thinking, content, calls, prompt_tokens, tokens + 1, "stop", key)
    shown = thinking[:limit]
    return Answer(shown, content[: limit - len(shown)], (), prompt_tokens, limit, "length", key)


def _thoughts(dice: random.Random) -> Iterator[str]:
    for index in range(dice.randrange(8, 21)):
        yield ("" if index == 0 else " ") + MUSINGS[index % len(MUSINGS)]


def _content(dice: random.Random, length: int, schema: str | None) -> list[str]:
    if schema is not None:
        wanted = json.loads(schema)
        value = _sample(dice, wanted) if isinstance(wanted, dict) else {"answer": _phrase(dice), "tokens": length}
        return SMALL_PIECES.findall(json.dumps(value, ensure_ascii=False))
    words = dice.choices(LEXICON, k=length)
    words[0] = words[0][:1].upper() + words[0][1:]
    words[-1] += "."
    return [words[0], *(f" {word}" for word in words[1:])]


def _stopped(content: tuple[str, ...], stop: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """The content up to the first stop sequence."""
    whole = "".join(content)
    ends = [whole.find(each) for each in stop if each and each in whole]
    if not ends:
        return content, False
    kept: list[str] = []
    room = min(ends)
    for piece in content:
        if len(piece) >= room:
            break
        kept.append(piece)
        room -= len(piece)
    last = content[len(kept)][:room]
    return (*kept, last) if last else tuple(kept), True


def _phrase(dice: random.Random) -> str:
    return " ".join(dice.choices(LEXICON[:60], k=4))


def _sample(dice: random.Random, schema: dict[str, Any]) -> Any:
    """A value that a JSON schema allows; knows types, properties, items, enum and const."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return dice.choice(schema["enum"])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object":
        return {name: _sample(dice, inner) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [_sample(dice, schema.get("items", {})) for _ in range(dice.randrange(1, 4))]
    values = {"integer": dice.randrange(100), "number": dice.randrange(1000) / 8, "boolean": dice.random() < 0.5}
    return None if kind == "null" else values.get(str(kind), _phrase(dice))


def _calls(dice: random.Random, text: str, tools: list[dict[str, Any]]) -> tuple[Call, ...]:
    """Calls of the tools that the last message asks for: by name, by a word of the name, or by the word `tool`."""
    last = text.rpartition("\n\n")[2]
    if last.startswith("tool: "):
        return ()
    asked = set(re.findall(r"\w{4,}", last.lower()))
    wanted = [tool for tool in tools if _names(tool) & asked] or (tools[:1] if asked & {"tool", "tools"} else [])
    return tuple(
        Call(tool["name"], json.dumps(_sample(dice, tool.get("parameters") or {}), separators=(",", ":")))
        for tool in wanted
    )


def _names(tool: dict[str, Any]) -> set[str]:
    name = str(tool["name"]).lower()
    return {name, *(part for part in re.split(r"[_\W]+", name) if len(part) > 3)}


@lru_cache(maxsize=512)
def embedding(model: str, text: str, length: int, *, unit: bool = True) -> tuple[float, ...]:
    """The vector of a text: the same for the same model and text, of length one unless told otherwise."""
    dice = random.Random(key_of(model, text))
    values = [dice.random() * 2 - 1 for _ in range(length)]
    scale = sum(value * value for value in values) ** 0.5 if unit else 0.25
    return tuple(float(f"{value / scale:.7g}") for value in values)

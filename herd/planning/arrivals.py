"""Requests over time: of a public trace, of Herd's own rows, or made. Only arrival, lengths, model and prefix count.

A trace names no models, so each request gets one of those that the fleet knows, by popularity and with a seed: the
first is asked for most, after Zipf's law. `at` is in seconds from the first request.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from random import Random

ZIPF = 1.0
MOST_PROMPT, MOST_ANSWER = 32_000, 4_000  # tokens: what a local model's context usually holds


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when, for which model, and tokens in and out. `blocks` are the prompt's prefix blocks.

    `row` is its place among the recorded requests that it was made from.
    """

    at: float
    model: str
    prompt_tokens: int
    answer_tokens: int
    stream: bool = True
    tag: str = ""
    max_tokens: int | None = None
    blocks: tuple[int, ...] = ()
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Lengths:
    """What a trace knows of a request."""

    at: float
    prompt_tokens: int
    answer_tokens: int
    blocks: tuple[int, ...] = ()


def azure(path: Path) -> Iterator[Lengths]:
    """The rows of an Azure LLM inference trace (CSV: TIMESTAMP, ContextTokens, GeneratedTokens)."""
    first: float | None = None
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            first = at if first is None else first
            yield Lengths(at - first, int(row["ContextTokens"]), int(row["GeneratedTokens"]))


def mooncake(path: Path) -> Iterator[Lengths]:
    """The lines of a Mooncake trace (JSON lines: timestamp in ms, input_length, output_length, hash_ids)."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            told = json.loads(line)
            at, blocks = told["timestamp"] / 1000, tuple(told["hash_ids"])
            yield Lengths(at, told["input_length"], told["output_length"], blocks)


def read(path: Path) -> list[Lengths]:
    """A trace of either kind, by its file's name; ValueError where it is neither."""
    readers = {".csv": azure, ".jsonl": mooncake}
    if path.suffix not in readers:
        raise ValueError(f"{path}: a trace is a .csv of Azure's or a .jsonl of Mooncake's form")
    try:
        return list(readers[path.suffix](path))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a trace of its kind: {error!r}") from error


def made(count: int, prompt: float, answer: float, seed: int, spread: float = 0.8) -> Iterator[Lengths]:
    """Requests of a Poisson process, one a second, with log-normal lengths of these medians."""
    random = Random(seed)
    at = 0.0
    for _ in range(count):
        at += random.expovariate(1.0)
        yield Lengths(
            at,
            max(1, int(prompt * random.lognormvariate(0, spread))),
            max(1, int(answer * random.lognormvariate(0, spread))),
        )


def at_rate(lengths: Iterable[Lengths], rate: float, count: int, seed: int) -> list[Lengths]:
    """So many requests of a trace, at `rate` a second on average.

    A denser trace is thinned by chance, so that its bursts stay, and gone through again and again with other chances; a
    sparser one is compressed. Tokens beyond what local models hold are cut.
    """
    told = list(lengths)
    span = max(told[-1].at - told[0].at, 1e-9)
    natural = (len(told) - 1) / span
    random, keep, scale = Random(seed), min(1.0, rate / natural), min(1.0, natural / rate)
    found: list[Lengths] = []
    began = 0.0
    while len(found) < count:
        found += (
            replace(each, at=began + (each.at - told[0].at) * scale,
                    prompt_tokens=max(1, min(each.prompt_tokens, MOST_PROMPT)),
                    answer_tokens=max(1, min(each.answer_tokens, MOST_ANSWER)))
            for each in told if keep == 1.0 or random.random() < keep
        )  # fmt: skip
        began += (span + 1 / natural) * scale
    return found[:count]


def for_models(lengths: Iterable[Lengths], models: Sequence[str], seed: int, zipf: float = ZIPF) -> list[Arrival]:
    """The requests with a model each: the first of `models` most often."""
    random = Random(seed)
    weights = [1 / (place + 1) ** zipf for place in range(len(models))]
    return [
        Arrival(each.at, random.choices(models, weights)[0], each.prompt_tokens, each.answer_tokens, blocks=each.blocks)
        for each in lengths
    ]

"""What the tests ask of real engines: one deterministic request for each inference path, and how answers compare.

Two answers to the same request differ in ids, moments and measured times; `comparable` blanks those and nothing else.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

import httpx

WORDS = 12
TALK = [{"role": "user", "content": "Tell me of the herd \u2028 in a few words."}]
NATIVE = {"options": {"temperature": 0, "seed": 1, "num_predict": WORDS}}
OPENAI = {"temperature": 0, "seed": 1, "max_tokens": WORDS}
EVENTS = {"temperature": 0, "max_output_tokens": WORDS}
MESSAGES = {"temperature": 0, "max_tokens": WORDS}
USAGE = {"stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Ask:
    """One request: path and body without the model. `counts`: which token counts the engine reports for it."""

    path: str
    body: dict[str, Any]
    counts: str = "both"

    @property
    def stream(self) -> bool:
        """Whether a stream is asked for."""
        return self.body.get("stream", self.path in {"/api/chat", "/api/generate"})

    def __str__(self) -> str:
        usage = " usage" if "stream_options" in self.body else ""
        return f"{self.path}{' stream' if self.stream else ''}{usage}"


def _both_ways(path: str, body: dict[str, Any], unasked: bool) -> tuple[Ask, Ask]:
    return Ask(path, {**body, "stream": False}), Ask(path, body if unasked else {**body, "stream": True})


NATIVE_ASKS = (
    *_both_ways("/api/chat", {"messages": TALK, **NATIVE}, unasked=True),
    *_both_ways("/api/generate", {"prompt": "Once", **NATIVE}, unasked=True),
    Ask("/api/embed", {"input": ["a sheep", "a goat"]}, "prompt"),
    Ask("/api/embeddings", {"prompt": "a sheep"}, "none"),
)
SHARED_ASKS = (
    *_both_ways("/v1/chat/completions", {"messages": TALK, **OPENAI}, unasked=False),
    Ask("/v1/chat/completions", {"messages": TALK, **OPENAI, "stream": True, **USAGE}),
    *_both_ways("/v1/completions", {"prompt": "Once", **OPENAI}, unasked=False),
    Ask("/v1/completions", {"prompt": "Once", **OPENAI, "stream": True, **USAGE}),
    Ask("/v1/embeddings", {"input": ["a sheep", "a goat"]}, "prompt"),
    *_both_ways("/v1/responses", {"input": "Once", **EVENTS}, unasked=False),
    *_both_ways("/v1/messages", {"messages": TALK, **MESSAGES}, unasked=False),
)
ASKS = [("solo", ask) for ask in (*NATIVE_ASKS, *SHARED_ASKS)] + [("cpp", ask) for ask in SHARED_ASKS]
NODE_OF = {"solo": "olla", "slow": "olla", "cpp": "cpp", "slowcpp": "slowcpp"}

# Keys whose values belong to one answer alone: identities, moments, and what a clock measured.
OF_ONE_ANSWER = re.compile(
    rb'"(id|item_id|request_id|created|created_at|completed_at|total_duration|load_duration|prompt_eval_duration'
    rb'|eval_duration)":("[^"]*"|[0-9.]+)'
)
TIMINGS = re.compile(rb'"timings":\{[^}]*\}')


def comparable(body: bytes) -> bytes:
    """An answer with what belongs to it alone blanked; every other byte stays."""
    return TIMINGS.sub(b'"timings":{}', OF_ONE_ANSWER.sub(rb'"\1":0', body))


def post(url: str, path: str, model: str, **body: Any) -> httpx.Response:
    """One request as a plain client makes it."""
    return httpx.post(url + path, content=json.dumps({"model": model, **body}), timeout=60)

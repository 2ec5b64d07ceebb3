"""A modest stream of mixed requests, as several applications of one office would make them. A client, and no more.

`python -m herd.sim.traffic --url URL` makes them until it is told to end.
"""

import argparse
import asyncio
import itertools
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

TIMEOUT_S: Final = 120.0
GRACE_S: Final = 2.0
AT_ONCE: Final = 16  # requests under way; those over it are not made, so that a slow fleet is not buried
PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
QUESTIONS: Final = (
    "Summarise this ticket for the person on call.",
    "Which of these two functions is easier to read, and why?",
    "Write a release note for a faster trace page, in 30 words.",
    "What does a rising time to first token tell me?",
    "Translate the error message into plain English.",
    "Suggest three names for a retry counter.",
    "Explain what a cold load is to someone new on the team.",
    "Draft a polite answer: the export will be ready tomorrow.",
    "Find the contradiction in these two requirements.",
    "Give me a checklist for adding a node.",
)
DOCUMENTS: Final = ("How to add a node", "What the seven signals mean", "When a breaker opens", "Where the rows live")
ANSWER_SCHEMA: Final = {
    "type": "object",
    "properties": {"label": {"enum": ["bug", "wish"]}, "sure": {"type": "boolean"}},
}
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "find_ticket",
        "description": "Look a ticket up",
        "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}},
    },
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request; `leave_after` chunks its client goes away, as if its user had closed the window."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    leave_after: int | None = None


Maker = Callable[[random.Random, str], Ask]


def _said(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def _editor(dice: random.Random, question: str) -> Ask:
    model = dice.choice(["llama3.2:3b", "llama3.2:3b", "qwen3:8b"])
    body = {"model": model, "messages": _said(question), "stream": True, "stream_options": {"include_usage": True}}
    return Ask("/v1/chat/completions", {**body, "metadata": {"tags": ["editor", "team-tools"]}})


def _support(dice: random.Random, question: str) -> Ask:
    tags = {"X-Herd-Tags": "support-bot, prod"}
    return Ask("/api/chat", {"model": "llama3.2:3b", "messages": _said(question), "stream": dice.random() < 0.7}, tags)


def _review(_dice: random.Random, question: str) -> Ask:
    body = {"model": "llama3.3:70b", "messages": _said(question), "max_tokens": 40, "stream": True}
    return Ask("/v1/chat/completions", {**body, "metadata": {"tags": ["code-review", "prod"]}, "user": "ann"})


def _assistant(dice: random.Random, question: str) -> Ask:
    body = {"model": "qwen3:8b", "max_tokens": 80, "messages": _said(question), "stream": dice.random() < 0.6}
    return Ask("/v1/messages", body, {"X-Herd-Tags": "assistant, team-tools"})


def _batch(dice: random.Random, question: str) -> Ask:
    body = {"model": dice.choice(["llama3.2:3b", "qwen3:8b"]), "prompt": question, "stream": False}
    return Ask("/api/generate", {**body, "format": ANSWER_SCHEMA}, {"X-Herd-Tags": "nightly-batch"})


def _search(dice: random.Random, _question: str) -> Ask:
    texts = dice.sample(DOCUMENTS, 2)
    if dice.random() < 0.5:
        body = {"model": "nomic-embed-text", "input": texts, "metadata": {"tags": ["docs-search", "prod"]}}
        return Ask("/v1/embeddings", body)
    return Ask("/api/embed", {"model": "nomic-embed-text", "input": texts}, {"X-Herd-Tags": "docs-search, prod"})


def _agent(_dice: random.Random, _question: str) -> Ask:
    messages = _said("Please find the ticket about slow exports.")
    return Ask("/api/chat", {"model": "llama3.2:3b", "messages": messages, "tools": [TOOL]}, {"X-Herd-Tags": "triage"})


def _seeing(_dice: random.Random, _question: str) -> Ask:
    message = {"role": "user", "content": "What is in this screenshot?", "images": [PIXEL]}
    return Ask("/api/chat", {"model": "llama3.2-vision:11b", "messages": [message]}, {"X-Herd-Tags": "support-bot"})


def _responses(_dice: random.Random, question: str) -> Ask:
    return Ask("/v1/responses", {"model": "llama3.2:3b", "input": question, "stream": True, "user": "ben"})


def _falls_back(_dice: random.Random, question: str) -> Ask:
    body = {"model": "mistral:7b", "fallback_models": ["qwen3:8b", "llama3.2:3b"], "messages": _said(question)}
    return Ask("/v1/chat/completions", {**body, "metadata": {"tags": ["code-review", "staging"]}})


def _wants_context(dice: random.Random, question: str) -> Ask:
    options = {"num_ctx": dice.choice([2048, 8192])}
    return Ask("/api/chat", {"model": "llama3.2:3b", "messages": _said(question), "options": options})


def _unknown(_dice: random.Random, question: str) -> Ask:
    return Ask("/api/chat", {"model": "llama9:900b", "messages": _said(question)}, {"X-Herd-Tags": "staging"})


def _leaves(dice: random.Random, _question: str) -> Ask:
    body = {"model": "llama3.2:3b", "messages": _said("Tell the story of the herd in 300 words."), "stream": True}
    return Ask("/v1/chat/completions", body, {"X-Herd-Tags": "editor"}, leave_after=dice.randrange(1, 6))


MIX: Final[Mapping[Maker, int]] = {
    _editor: 26, _support: 20, _search: 14, _review: 8, _assistant: 8, _batch: 8, _agent: 4, _responses: 4,
    _seeing: 2, _falls_back: 2, _wants_context: 2, _leaves: 2, _unknown: 1,
}  # fmt: skip


class Traffic:
    """Requests at random moments, `rate` a second on average; `seen` counts how they ended for their clients."""

    def __init__(self, url: str, rate: float, seed: int = 0) -> None:
        self._url = url
        self._rate = rate
        self._dice = random.Random(seed)
        self._running: set[asyncio.Task[None]] = set()
        self.seen: Counter[str] = Counter()

    async def run(self, first: int = 8) -> None:
        """Make requests until cancelled; the first of them at once, one of each of the commonest kinds."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
            try:
                for maker in itertools.islice(MIX, first):
                    self._begin(session, maker)
                while True:
                    await asyncio.sleep(self._dice.expovariate(self._rate))
                    self._begin(session, self._dice.choices(list(MIX), list(MIX.values()))[0])
            finally:
                await self._finish()

    async def _finish(self) -> None:
        """Let what is under way end by itself for a moment, then leave."""
        left = list(self._running)
        if left:
            await asyncio.wait(left, timeout=GRACE_S)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _begin(self, session: aiohttp.ClientSession, maker: Maker) -> None:
        if len(self._running) >= AT_ONCE:
            return
        ask = maker(self._dice, self._dice.choice(QUESTIONS))
        task = asyncio.create_task(self._send(session, ask))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _send(self, session: aiohttp.ClientSession, ask: Ask) -> None:
        try:
            async with session.post(self._url + ask.path, json=ask.body, headers=ask.headers) as answer:
                async for number, _ in _numbered(answer):
                    if number == ask.leave_after:
                        self.seen["left"] += 1
                        return
                self.seen["answered" if answer.status == 200 else "refused"] += 1
        except (aiohttp.ClientError, TimeoutError):
            self.seen["broken"] += 1


async def _numbered(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[int, bytes]]:
    """The pieces of an answer, counted from 1."""
    number = 0
    async for chunk in answer.content.iter_any():
        number += 1
        yield number, chunk


async def _until_told(url: str, rate: float) -> None:
    work = asyncio.create_task(Traffic(url, rate).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    await asyncio.wait({work})


def main() -> int:
    """Make requests until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m herd.sim.traffic", description="Mixed requests to a router.")
    parser.add_argument("--url", default="http://127.0.0.1:11435", help="the router")
    parser.add_argument("--rate", type=float, default=3.0, help="requests a second, on average")
    options = parser.parse_args()
    asyncio.run(_until_told(options.url, options.rate))
    return 0


if __name__ == "__main__":
    sys.exit(main())

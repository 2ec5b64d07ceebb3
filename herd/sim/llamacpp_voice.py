"""llama.cpp's server: chat and plain completions. Heads go out before the first token, and streams end the connection.

A `timings` object rides on the last frame, thinking is `reasoning_content`, and an error in mid-stream is said.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from herd.sim.ask import Ask
from herd.sim.golang import encode
from herd.sim.voice import LETTERS, Stamp, Times, Voice
from herd.sim.words import Answer, Piece

BUILD = "b1-0c1e570"
SERVER = (("Server", "llama.cpp"), ("Access-Control-Allow-Origin", ""))
JSON_HEADERS = (*SERVER, ("Content-Type", "application/json; charset=utf-8"), ("Keep-Alive", "timeout=5, max=100"))
ERROR_HEADERS = (*SERVER, ("Content-Type", "application/json; charset=utf-8"), ("Connection", "close"))
STREAM_HEADERS = (
    *SERVER, ("X-Accel-Buffering", "no"), ("Content-Type", "text/event-stream"), ("Keep-Alive", "timeout=5, max=100"),
)  # fmt: skip
Json = dict[str, Any]


def write(value: Any) -> str:
    """Compact JSON as llama.cpp writes it: nothing but what JSON demands is escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def timings(answer: Answer, times: Times) -> Json:
    """What the server measured: milliseconds and rates of prompt and answer."""
    prompt_ms, predicted_ms = max(1, times.prompt) / 1e6, max(1, times.generate) / 1e6
    return {
        "cache_n": 0,
        "prompt_n": answer.prompt_tokens,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / answer.prompt_tokens,
        "prompt_per_second": 1e3 * answer.prompt_tokens / prompt_ms,
        "predicted_n": answer.tokens,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_ms / answer.tokens,
        "predicted_per_second": 1e3 * answer.tokens / predicted_ms,
    }


class LlamaVoice(Voice):
    """What all of its dialects share."""

    stream_headers = STREAM_HEADERS
    whole_headers = JSON_HEADERS
    early = True
    hangs_up = True

    def __init__(self, ask: Ask, answer: Answer, stamp: Stamp) -> None:
        super().__init__(ask, answer, stamp)
        self._id = f"chatcmpl-{stamp.text(32, LETTERS)}"
        self._first = True

    def _begins(self) -> bool:
        first, self._first = self._first, False
        return first

    def _usage(self) -> Json:
        total = self.answer.prompt_tokens + self.answer.tokens
        return {
            "completion_tokens": self.answer.tokens, "prompt_tokens": self.answer.prompt_tokens, "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": 0},
        }  # fmt: skip

    def crash(self) -> Sequence[bytes]:
        error = {"code": 500, "message": "Compute error.", "type": "server_error"}
        return (encode(f"data: {write({'error': error})}\n\n"),)


class LlamaChatVoice(LlamaVoice):
    """`/v1/chat/completions`."""

    def _chunk(self, choices: list[Json], **more: Any) -> str:
        body = {
            "choices": choices, "created": self.stamp.unix(), "id": self._id, "model": self.ask.model,
            "system_fingerprint": BUILD, "object": "chat.completion.chunk", **more,
        }  # fmt: skip
        return f"data: {write(body)}\n\n"

    def _delta(self, delta: Json, finish: str | None = None) -> Json:
        return {"finish_reason": finish, "index": 0, "delta": delta}

    def feed(self, piece: Piece) -> Sequence[bytes]:
        frames = [self._chunk([self._delta({"role": "assistant", "content": None})])] if self._begins() else []
        if piece.kind == "calls":
            frames += [self._chunk([self._delta({"tool_calls": [part]})]) for part in self._call_parts()]
        else:
            name = "reasoning_content" if piece.kind == "thinking" else "content"
            frames.append(self._chunk([self._delta({name: piece.text})]))
        return (encode("".join(frames)),)

    def _call_parts(self) -> Iterator[Json]:
        """The name comes with the first character of the arguments, the rest of them without a name."""
        for call in self._calls():
            function = call["function"]
            yield {**call, "function": {**function, "arguments": function["arguments"][:1]}}
            yield {"index": call["index"], "function": {"arguments": function["arguments"][1:]}}

    def _calls(self) -> list[Json]:
        return [
            {
                "index": index, "id": self.stamp.text(32, LETTERS), "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(self.answer.calls)
        ]  # fmt: skip

    @property
    def _finish(self) -> str:
        return "tool_calls" if self.answer.calls else self.answer.reason

    def close(self, times: Times, /) -> Sequence[bytes]:
        measured = {"timings": timings(self.answer, times)}
        if self.ask.include_usage:
            last = self._chunk([self._delta({}, self._finish)])
            last += self._chunk([], usage=self._usage(), **measured)
        else:
            last = self._chunk([self._delta({}, self._finish)], **measured)
        return (encode(last), b"data: [DONE]\n\n")

    def whole(self, times: Times, /, *, done: bool = True) -> bytes:
        message: Json = {"role": "assistant", "content": self.said}
        if self.answer.thinking:
            message["reasoning_content"] = self.thought
        if self.answer.calls:
            message["tool_calls"] = [
                {"type": "function", "function": call["function"], "id": call["id"]} for call in self._calls()
            ]
        body = {
            "choices": [{"finish_reason": self._finish if done else None, "index": 0, "message": message}],
            "created": self.stamp.unix(), "model": self.ask.model, "system_fingerprint": BUILD,
            "object": "chat.completion", "usage": self._usage(), "id": self._id,
            "timings": timings(self.answer, times),
        }  # fmt: skip
        return encode(write(body))


class LlamaCompletionVoice(LlamaVoice):
    """`/v1/completions`."""

    def _body(self, text: str, finish: str | None, **more: Any) -> str:
        used = {"usage": more.pop("usage")} if "usage" in more else {}
        body = {
            "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": finish}],
            "created": self.stamp.unix(), "model": self.ask.model, "system_fingerprint": BUILD,
            "object": "text_completion", **used, "id": self._id, **more,
        }  # fmt: skip
        return write(body)

    def feed(self, piece: Piece) -> Sequence[bytes]:
        return (encode(f"data: {self._body(piece.text, None)}\n\n"),)

    def close(self, times: Times, /) -> Sequence[bytes]:
        return (encode(f"data: {self._last('', times)}\n\n"), b"data: [DONE]\n\n")

    def _last(self, text: str, times: Times) -> str:
        return self._body(text, self.answer.reason, usage=self._usage(), timings=timings(self.answer, times))

    def whole(self, times: Times, /, *, done: bool = True) -> bytes:
        return encode(self._last(self.said, times) if done else self._body(self.said, None))

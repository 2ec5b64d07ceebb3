"""Ollama's own dialect: NDJSON of `/api/chat` and `/api/generate`, and the vectors of the embedding endpoints."""

import base64
import struct
from collections.abc import Sequence
from functools import lru_cache

from herd.sim.ask import Ask
from herd.sim.golang import dumps, encode, quote
from herd.sim.voice import CRASH, JSON_GIN, NDJSON, Stamp, Times, Voice
from herd.sim.words import Answer, Call, Piece, count_tokens


@lru_cache(maxsize=256)
def _vector(values: tuple[float, ...]) -> str:
    return dumps(list(values))


def metrics(answer: Answer, times: Times) -> str:
    """The counts and durations at the end of an answer, with a leading comma; zeros are left out, as Go does."""
    named = {
        "total_duration": times.total,
        "load_duration": times.load,
        "prompt_eval_count": answer.prompt_tokens,
        "prompt_eval_duration": times.prompt,
        "eval_count": answer.tokens,
        "eval_duration": times.generate,
    }
    return "".join(f',"{name}":{value}' for name, value in named.items() if value)


class OllamaVoice(Voice):
    """What chat and generate have in common."""

    stream_headers = NDJSON
    whole_headers = JSON_GIN

    def __init__(self, ask: Ask, answer: Answer, stamp: Stamp) -> None:
        super().__init__(ask, answer, stamp)
        self._model = quote(ask.model)

    def crash(self) -> Sequence[bytes]:
        return (encode(dumps({"error": CRASH}) + "\n"),)

    def _open(self) -> str:
        return f'{{"model":{self._model},"created_at":"{self.stamp.now()}"'


class ChatVoice(OllamaVoice):
    """`/api/chat`."""

    def _calls(self, calls: Sequence[Call]) -> str:
        written = (
            f'{{"id":"call_{self.stamp.text(8)}","function":{{"index":{index},"name":{quote(call.name)},'
            f'"arguments":{call.arguments}}}}}'
            for index, call in enumerate(calls)
        )
        return f',"tool_calls":[{",".join(written)}]'

    def _message(self, content: str, thinking: str = "", calls: Sequence[Call] = ()) -> str:
        thought = f',"thinking":{quote(thinking)}' if thinking else ""
        called = self._calls(calls) if calls else ""
        return f',"message":{{"role":"assistant","content":{quote(content)}{thought}{called}}}'

    def feed(self, piece: Piece) -> Sequence[bytes]:
        content = piece.text if piece.kind == "content" else ""
        thinking = piece.text if piece.kind == "thinking" else ""
        message = self._message(content, thinking, piece.calls)
        return (encode(f'{self._open()}{message},"done":false}}\n'),)

    def close(self, times: Times, /) -> Sequence[bytes]:
        end = f',"done":true,"done_reason":"{self.answer.reason}"{metrics(self.answer, times)}}}\n'
        return (encode(f"{self._open()}{self._message('')}{end}"),)

    def whole(self, times: Times, /, *, done: bool = True) -> bytes:
        message = self._message(self.said, self.thought, self.answer.calls)
        end = f'true,"done_reason":"{self.answer.reason}"{metrics(self.answer, times)}' if done else "false"
        return encode(f'{self._open()}{message},"done":{end}}}')

    def loaded(self, reason: str) -> bytes:
        return encode(f'{self._open()}{self._message("")},"done":true,"done_reason":"{reason}"}}')


class GenerateVoice(OllamaVoice):
    """`/api/generate`; the last frame carries the context, unless the prompt was raw."""

    def _context(self) -> str:
        if self.ask.raw:
            return ""
        count = self.answer.prompt_tokens + self.answer.tokens
        tokens = (str((self.answer.key + 7919 * index) % 128_000) for index in range(count))
        return f',"context":[{",".join(tokens)}]'

    def _end(self, times: Times) -> str:
        return f'true,"done_reason":"{self.answer.reason}"{self._context()}{metrics(self.answer, times)}'

    def feed(self, piece: Piece) -> Sequence[bytes]:
        if piece.kind == "thinking":
            said = f',"response":"","thinking":{quote(piece.text)}'
        else:
            said = f',"response":{quote(piece.text)}'
        return (encode(f'{self._open()}{said},"done":false}}\n'),)

    def close(self, times: Times, /) -> Sequence[bytes]:
        return (encode(f'{self._open()},"response":"","done":{self._end(times)}}}\n'),)

    def whole(self, times: Times, /, *, done: bool = True) -> bytes:
        thought = f',"thinking":{quote(self.thought)}' if self.answer.thinking else ""
        end = self._end(times) if done else "false"
        return encode(f'{self._open()},"response":{quote(self.said)}{thought},"done":{end}}}')

    def loaded(self, reason: str) -> bytes:
        return encode(f'{self._open()},"response":"","done":true,"done_reason":"{reason}"}}')


Vectors = Sequence[tuple[float, ...]]


def embed_body(ask: Ask, vectors: Vectors, times: Times) -> bytes:
    """The answer of `/api/embed`."""
    tokens = sum(count_tokens(text, 0) for text in ask.inputs)
    numbers = {"total_duration": times.total, "load_duration": times.load, "prompt_eval_count": tokens}
    tail = "".join(f',"{name}":{value}' for name, value in numbers.items() if value and not ask.empty)
    return encode(f'{{"model":{quote(ask.model)},"embeddings":[{",".join(map(_vector, vectors))}]{tail}}}')


def embeddings_body(ask: Ask, vectors: Vectors, _times: Times) -> bytes:
    """The answer of `/api/embeddings`."""
    vector = _vector(vectors[0]) if vectors and not ask.empty else "[]"
    return encode(f'{{"embedding":{vector}}}')


def openai_embeddings_body(ask: Ask, vectors: Vectors, _times: Times) -> bytes:
    """The answer of `/v1/embeddings`, as floats or as base64 of little-endian float32."""
    tokens = sum(count_tokens(text, 0) for text in ask.inputs)
    data = ",".join(
        f'{{"object":"embedding","embedding":{_as_asked(ask, vector)},"index":{index}}}'
        for index, vector in enumerate(vectors)
    )
    usage = f'{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}'
    return encode(f'{{"object":"list","data":[{data}],"model":{quote(ask.model)},"usage":{usage}}}\n')


def _as_asked(ask: Ask, vector: tuple[float, ...]) -> str:
    if not ask.base64:
        return _vector(vector)
    return quote(base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode())

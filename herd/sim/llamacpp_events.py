"""llama.cpp's server in the dialects of named events: `/v1/messages` and `/v1/responses`."""

import json
from collections.abc import Iterable, Iterator, Sequence

from herd.sim.ask import Ask
from herd.sim.golang import encode
from herd.sim.llamacpp_voice import Json, LlamaVoice, timings, write
from herd.sim.voice import LETTERS, Stamp, Times
from herd.sim.words import Answer, Piece

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def _events(events: Iterable[Json]) -> bytes:
    """Events that leave in one write."""
    return encode("".join(f"event: {each['type']}\ndata: {write(each)}\n\n" for each in events))


class LlamaMessagesVoice(LlamaVoice):
    """`/v1/messages`."""

    def __init__(self, ask: Ask, answer: Answer, stamp: Stamp) -> None:
        super().__init__(ask, answer, stamp)
        self._blocks: list[str] = []

    @property
    def _stop(self) -> Json:
        reason = "tool_use" if self.answer.calls else STOP_REASONS[self.answer.reason]
        return {"stop_reason": reason, "stop_sequence": None}

    def _message(self, content: list[Json], stop: Json, written: int) -> Json:
        used = {"cache_read_input_tokens": 0, "input_tokens": self.answer.prompt_tokens, "output_tokens": written}
        return {
            "id": self._id, "type": "message", "role": "assistant", "content": content, "model": self.ask.model,
            **stop, "usage": used,
        }  # fmt: skip

    def feed(self, piece: Piece) -> Sequence[bytes]:
        return (_events(self._feed(piece)),)

    def _feed(self, piece: Piece) -> Iterator[Json]:
        if self._begins():
            begun = self._message([], {"stop_reason": None, "stop_sequence": None}, 0)
            yield {"type": "message_start", "message": begun}
        if piece.kind == "calls":
            for call in piece.calls:
                block = {"type": "tool_use", "id": self.stamp.text(32, LETTERS), "name": call.name}
                yield from self._block(block["id"], block, {"type": "input_json_delta", "partial_json": call.arguments})
            return
        name, kind = ("thinking", "thinking_delta") if piece.kind == "thinking" else ("text", "text_delta")
        yield from self._block(name, {"type": name, name: ""}, {"type": kind, name: piece.text})

    def _block(self, name: str, block: Json, delta: Json) -> Iterator[Json]:
        if name not in self._blocks:
            self._blocks.append(name)
            yield {"type": "content_block_start", "index": len(self._blocks) - 1, "content_block": block}
        yield {"type": "content_block_delta", "index": self._blocks.index(name), "delta": delta}

    def close(self, _times: Times, /) -> Sequence[bytes]:
        return (_events(self._close()),)

    def _close(self) -> Iterator[Json]:
        for index, name in enumerate(self._blocks):
            if name == "thinking":
                signature = {"type": "signature_delta", "signature": ""}
                yield {"type": "content_block_delta", "index": index, "delta": signature}
            yield {"type": "content_block_stop", "index": index}
        yield {"type": "message_delta", "delta": self._stop, "usage": {"output_tokens": self.answer.tokens}}
        yield {"type": "message_stop"}

    def whole(self, _times: Times, /, *, done: bool = True) -> bytes:
        thoughts = [{"type": "thinking", "thinking": self.thought, "signature": ""}] if self.answer.thinking else []
        texts = [{"type": "text", "text": self.said}] if self.said else []
        calls = [
            {
                "type": "tool_use", "id": self.stamp.text(32, LETTERS), "name": call.name,
                "input": json.loads(call.arguments),
            }
            for call in self.answer.calls
        ]  # fmt: skip
        stop = self._stop if done else {"stop_reason": None, "stop_sequence": None}
        return encode(write(self._message([*thoughts, *texts, *calls], stop, self.answer.tokens)))

    def crash(self) -> Sequence[bytes]:
        error = {"code": 500, "message": "Compute error.", "type": "server_error"}
        return (encode(f"event: error\ndata: {write(error)}\n\n"),)


class LlamaResponsesVoice(LlamaVoice):
    """`/v1/responses`."""

    def __init__(self, ask: Ask, answer: Answer, stamp: Stamp) -> None:
        super().__init__(ask, answer, stamp)
        self._id = f"resp_{stamp.text(32, LETTERS)}"
        self._item = f"msg_{stamp.text(32, LETTERS)}"
        self._reasoning = f"rs_{stamp.text(32, LETTERS)}"
        self._items: list[str] = []
        self._calls = [
            {
                "id": f"fc_{identity}", "type": "function_call", "status": "completed", "arguments": call.arguments,
                "call_id": f"call_{identity}", "name": call.name,
            }
            for call in answer.calls
            for identity in (stamp.text(32, LETTERS),)
        ]  # fmt: skip

    def feed(self, piece: Piece) -> Sequence[bytes]:
        return (_events(self._feed(piece)),)

    def _feed(self, piece: Piece) -> Iterator[Json]:
        if self._begins():
            begun = {"id": self._id, "object": "response", "status": "in_progress"}
            yield {"type": "response.created", "response": begun}
            yield {"type": "response.in_progress", "response": begun}
        if piece.kind == "thinking":
            yield from self._open({**self._thought_item("in_progress"), "content": []})
            yield {"type": "response.reasoning_text.delta", "delta": piece.text, "item_id": self._reasoning}
        elif piece.kind == "calls":
            for call in self._calls:
                yield from self._open({**call, "arguments": "", "status": "in_progress"})
                yield {
                    "type": "response.function_call_arguments.delta", "delta": call["arguments"],
                    "item_id": call["id"],
                }  # fmt: skip
        else:
            yield from self._say(piece.text)

    def _open(self, item: Json) -> Iterator[Json]:
        if item["id"] not in self._items:
            self._items.append(item["id"])
            yield {"type": "response.output_item.added", "item": item}

    def _say(self, text: str) -> Iterator[Json]:
        if self._item not in self._items:
            yield from self._open({**self._message_item(), "content": [], "status": "in_progress"})
            part = {"type": "output_text", "text": ""}
            yield {"type": "response.content_part.added", "item_id": self._item, "part": part}
        yield {"type": "response.output_text.delta", "item_id": self._item, "delta": text}

    def _part(self) -> Json:
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": self.said}

    def _thought_item(self, status: str) -> Json:
        content = [{"text": self.thought, "type": "reasoning_text"}]
        return {
            "id": self._reasoning, "summary": [], "type": "reasoning", "content": content, "encrypted_content": "",
            "status": status,
        }  # fmt: skip

    def _message_item(self) -> Json:
        return {
            "content": [self._part()], "id": self._item, "role": "assistant", "status": "completed", "type": "message",
        }  # fmt: skip

    def _output(self) -> list[Json]:
        thoughts = [self._thought_item("completed")] if self.answer.thinking else []
        return [*thoughts, *([self._message_item()] if self.said else []), *self._calls]

    def _counted(self) -> Json:
        total = self.answer.prompt_tokens + self.answer.tokens
        return {
            "input_tokens": self.answer.prompt_tokens, "output_tokens": self.answer.tokens, "total_tokens": total,
            "input_tokens_details": {"cached_tokens": 0},
        }  # fmt: skip

    def close(self, times: Times, /) -> Sequence[bytes]:
        return (_events(self._close(times)),)

    def _close(self, times: Times) -> Iterator[Json]:
        for item in self._output():
            if item["type"] == "message":
                where = {"item_id": self._item}
                yield {"type": "response.output_text.done", **where, "text": self.said}
                yield {"type": "response.content_part.done", **where, "part": self._part()}
            yield {"type": "response.output_item.done", "item": item}
        response = {
            "id": self._id, "object": "response", "created_at": self.stamp.unix(), "status": "completed",
            "model": self.ask.model, "output": self._output(), "usage": self._counted(),
        }  # fmt: skip
        yield {"type": "response.completed", "response": response, "timings": timings(self.answer, times)}

    def whole(self, _times: Times, /, *, done: bool = True) -> bytes:
        now = self.stamp.unix()
        return encode(write({
            "completed_at": now if done else None, "created_at": now, "id": self._id, "model": self.ask.model,
            "object": "response", "output": self._output(), "status": "completed" if done else "in_progress",
            "usage": self._counted(),
        }))  # fmt: skip

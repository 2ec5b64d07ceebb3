"""Ollama's `/v1/responses`: typed events, keys in alphabetical order, numbered, without a `[DONE]`."""

from collections.abc import Iterator, Sequence
from typing import Any

from herd.sim.ask import Ask
from herd.sim.golang import dumps, encode, number
from herd.sim.voice import JSON_PLAIN, SSE_FLUSHED, Stamp, Times, Voice
from herd.sim.words import Answer, Call, Piece

Json = dict[str, Any]


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class ResponsesVoice(Voice):
    """`/v1/responses`."""

    stream_headers = SSE_FLUSHED
    whole_headers = JSON_PLAIN

    def __init__(self, ask: Ask, answer: Answer, stamp: Stamp) -> None:
        super().__init__(ask, answer, stamp)
        self._id = f"resp_{stamp.number(999_999)}"
        self._item = f"msg_{stamp.number(999_999)}"
        self._reasoning = f"rs_{stamp.number(999_999)}"
        self._calls: list[Json] = []
        self._sequence = 0
        self._index = 0
        self._phase = ""

    def _event(self, kind: str, data: Json) -> bytes:
        body = dumps({**data, "type": kind, "sequence_number": self._sequence}, sort_keys=True)
        self._sequence += 1
        return encode(f"event: {kind}\ndata: {body}\n\n")

    def feed(self, piece: Piece) -> Sequence[bytes]:
        return tuple(self._feed(piece))

    def _feed(self, piece: Piece) -> Iterator[bytes]:
        yield from self._begin()
        if piece.kind == "thinking":
            yield from self._think(piece.text)
        elif piece.kind == "calls":
            yield from self._finish_thinking()
            for offset, call in enumerate(piece.calls):
                yield from self._call(offset, call)
        else:
            yield from self._finish_thinking()
            yield from self._say(piece.text)

    def _begin(self) -> Iterator[bytes]:
        if not self._sequence:
            for kind in ("response.created", "response.in_progress"):
                yield self._event(kind, {"response": self._response("in_progress", [], None)})

    def _think(self, text: str) -> Iterator[bytes]:
        where = {"output_index": self._index}
        if self._phase != "thinking":
            self._phase = "thinking"
            item = {"id": self._reasoning, "type": "reasoning", "summary": []}
            yield self._event("response.output_item.added", {**where, "item": item})
        delta = {**where, "item_id": self._reasoning, "summary_index": 0, "delta": text}
        yield self._event("response.reasoning_summary_text.delta", delta)

    def _finish_thinking(self) -> Iterator[bytes]:
        if self._phase != "thinking":
            return
        self._phase = "thought"
        done = {"output_index": self._index, "item_id": self._reasoning, "summary_index": 0, "text": self.thought}
        yield self._event("response.reasoning_summary_text.done", done)
        item = {"output_index": self._index, "item": self._thought_item()}
        yield self._event("response.output_item.done", item)
        self._index += 1

    def _say(self, text: str) -> Iterator[bytes]:
        where = {"output_index": self._index}
        if self._phase != "content":
            self._phase = "content"
            item = {"id": self._item, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
            yield self._event("response.output_item.added", {**where, "item": item})
            part = {**where, "item_id": self._item, "content_index": 0, "part": _part("")}
            yield self._event("response.content_part.added", part)
        delta = {**where, "item_id": self._item, "content_index": 0, "delta": text, "logprobs": []}
        yield self._event("response.output_text.delta", delta)

    def _call(self, offset: int, call: Call) -> Iterator[bytes]:
        where = {"output_index": self._index + offset}
        item = self._call_item(f"fc_{self.stamp.number(999_999)}_{offset}", call)
        self._calls.append(item)
        self._phase = "calls"
        begun = {**item, "status": "in_progress", "arguments": ""}
        yield self._event("response.output_item.added", {**where, "item": begun})
        written = {**where, "item_id": item["id"]}
        yield self._event("response.function_call_arguments.delta", {**written, "delta": call.arguments})
        yield self._event("response.function_call_arguments.done", {**written, "arguments": call.arguments})
        yield self._event("response.output_item.done", {**where, "item": item})

    def _call_item(self, identity: str, call: Call) -> Json:
        return {
            "id": identity, "type": "function_call", "status": "completed",
            "call_id": f"call_{self.stamp.text(8)}", "name": call.name, "arguments": call.arguments,
        }  # fmt: skip

    def close(self, _times: Times, /) -> Sequence[bytes]:
        return tuple(self._close())

    def _close(self) -> Iterator[bytes]:
        yield from self._begin()
        yield from self._finish_thinking()
        if self._phase == "content":
            where = {"output_index": self._index, "content_index": 0, "item_id": self._item}
            yield self._event("response.output_text.done", {**where, "text": self.said, "logprobs": []})
            yield self._event("response.content_part.done", {**where, "part": _part(self.said)})
            item = {"output_index": self._index, "item": self._message_item()}
            yield self._event("response.output_item.done", item)
        finished = self._response("completed", self._output(), self._usage())
        yield self._event("response.completed", {"response": finished})

    def _thought_item(self) -> Json:
        summary = [{"type": "summary_text", "text": self.thought}]
        return {
            "id": self._reasoning, "type": "reasoning", "summary": summary, "encrypted_content": self.thought,
        }  # fmt: skip

    def _message_item(self) -> Json:
        return {
            "id": self._item, "type": "message", "status": "completed", "role": "assistant",
            "content": [_part(self.said)],
        }  # fmt: skip

    def _output(self) -> list[Json]:
        thoughts = [self._thought_item()] if self.answer.thinking else []
        return [*thoughts, *(self._calls or [self._message_item()])]

    def _usage(self) -> Json:
        return {
            "input_tokens": self.answer.prompt_tokens,
            "output_tokens": self.answer.tokens,
            "total_tokens": self.answer.prompt_tokens + self.answer.tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }

    def _response(self, status: str, output: list[Json], used: Json | None) -> Json:
        body, completed = self.ask.body, status == "completed"
        return {
            "id": self._id, "object": "response", "created_at": self.stamp.unix(),
            "completed_at": self.stamp.unix() if completed else None, "status": status, "incomplete_details": None,
            "model": self.ask.model, "previous_response_id": None, "instructions": body.get("instructions") or None,
            "output": output, "error": None, "tools": body.get("tools") or [], "tool_choice": "auto",
            "truncation": body.get("truncation") or "disabled", "parallel_tool_calls": True,
            "text": {"format": (body.get("text") or {}).get("format") or {"type": "text"}},
            "top_p": number(_or(body.get("top_p"), 1)), "presence_penalty": 0, "frequency_penalty": 0,
            "top_logprobs": 0, "temperature": number(_or(body.get("temperature"), 1)),
            "reasoning": body.get("reasoning") or None, "usage": used,
            "max_output_tokens": body.get("max_output_tokens"), "max_tool_calls": None, "store": False,
            "background": bool(body.get("background")), "service_tier": "default", "metadata": {},
            "safety_identifier": None, "prompt_cache_key": None,
        }  # fmt: skip

    def whole(self, _times: Times, /, *, done: bool = True) -> bytes:
        self._reasoning = f"rs_{self._id}"
        self._calls = [self._call_item(f"fc_{self._id}_{i}", call) for i, call in enumerate(self.answer.calls)]
        used = self._usage() if done else {**self._usage(), "input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        return encode(dumps(self._response("completed", self._output(), used)) + "\n")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value

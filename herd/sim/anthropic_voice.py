"""Ollama's Anthropic dialect: `/v1/messages`. No pings, and the input tokens at the start are an estimate."""

from collections.abc import Iterator, Sequence
from typing import Any

from herd.sim.ask import Ask
from herd.sim.golang import dumps, encode, quote
from herd.sim.voice import JSON_PLAIN, SSE_FLUSHED, Stamp, Times, Voice
from herd.sim.words import Answer, Call, Piece

HEX = "0123456789abcdef"
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def _event(kind: str, rest: str = "") -> bytes:
    return encode(f'event: {kind}\ndata: {{"type":"{kind}"{rest}}}\n\n')


class MessagesVoice(Voice):
    """`/v1/messages`."""

    stream_headers = SSE_FLUSHED
    whole_headers = JSON_PLAIN

    def __init__(self, ask: Ask, answer: Answer, stamp: Stamp) -> None:
        super().__init__(ask, answer, stamp)
        self._id = f"msg_{stamp.text(24, HEX)}"
        self._begun = False
        self._index = 0
        self._block = ""

    @property
    def _stop_reason(self) -> str:
        return "tool_use" if self.answer.calls else STOP_REASONS[self.answer.reason]

    def feed(self, piece: Piece) -> Sequence[bytes]:
        return tuple(self._feed(piece))

    def _feed(self, piece: Piece) -> Iterator[bytes]:
        yield from self._begin()
        if piece.kind == "calls":
            yield from self._close_block()
            for call in piece.calls:
                yield from self._call(call)
            return
        block, delta = ("thinking", "thinking_delta") if piece.kind == "thinking" else ("text", "text_delta")
        if self._block != block:
            yield from self._close_block()
            self._block = block
            opened = f',"index":{self._index},"content_block":{{"type":"{block}","{block}":""}}'
            yield _event("content_block_start", opened)
        yield self._delta(f'"type":"{delta}","{block}":{quote(piece.text)}')

    def _begin(self) -> Iterator[bytes]:
        if self._begun:
            return
        self._begun = True
        message = (
            f'{{"id":"{self._id}","type":"message","role":"assistant","model":{quote(self.ask.model)},"content":[],'
            f'"usage":{{"input_tokens":{max(1, len(self.ask.text) // 4)},"output_tokens":0}}}}'
        )
        yield _event("message_start", f',"message":{message}')

    def _delta(self, inside: str) -> bytes:
        return _event("content_block_delta", f',"index":{self._index},"delta":{{{inside}}}')

    def _close_block(self) -> Iterator[bytes]:
        if self._block:
            self._block = ""
            yield _event("content_block_stop", f',"index":{self._index}')
            self._index += 1

    def _call(self, call: Call) -> Iterator[bytes]:
        block = f'{{"type":"tool_use","id":"call_{self.stamp.text(8)}","name":{quote(call.name)},"input":{{}}}}'
        yield _event("content_block_start", f',"index":{self._index},"content_block":{block}')
        yield self._delta(f'"type":"input_json_delta","partial_json":{quote(call.arguments)}')
        yield _event("content_block_stop", f',"index":{self._index}')
        self._index += 1

    def close(self, _times: Times, /) -> Sequence[bytes]:
        return tuple(self._close())

    def _close(self) -> Iterator[bytes]:
        yield from self._begin()
        yield from self._close_block()
        used = f'"usage":{{"input_tokens":{self.answer.prompt_tokens},"output_tokens":{self.answer.tokens}}}'
        yield _event("message_delta", f',"delta":{{"stop_reason":"{self._stop_reason}"}},{used}')
        yield _event("message_stop")

    def whole(self, _times: Times, /, *, done: bool = True) -> bytes:
        content: list[dict[str, Any]] = []
        if self.answer.thinking:
            content.append({"type": "thinking", "thinking": self.thought})
        if self.said:
            content.append({"type": "text", "text": self.said})
        blocks = [dumps(block) for block in content]
        blocks += [
            f'{{"type":"tool_use","id":"call_{self.stamp.text(8)}","name":{quote(call.name)},"input":{call.arguments}}}'
            for call in self.answer.calls
        ]
        written = f"[{','.join(blocks)}]" if blocks else "null"
        reason = f',"stop_reason":"{self._stop_reason}"' if done else ""
        tokens = (self.answer.prompt_tokens, self.answer.tokens) if done else (0, 0)
        return encode(
            f'{{"id":"{self._id}","type":"message","role":"assistant","model":{quote(self.ask.model)},'
            f'"content":{written}{reason},'
            f'"usage":{{"input_tokens":{tokens[0]},"output_tokens":{tokens[1]}}}}}\n'
        )

"""Ollama's OpenAI dialect: `/v1/chat/completions` and `/v1/completions`.

Its peculiarities are kept: the role is in every chunk, there is no chunk with the role alone, ids repeat, and with
`include_usage` every chunk of a completion carries a usage of zeros.
"""

from collections.abc import Sequence

from herd.sim.ask import Ask
from herd.sim.golang import dumps, encode, quote
from herd.sim.voice import JSON_PLAIN, SSE, Stamp, Times, Voice
from herd.sim.words import Answer, Piece

NO_USAGE = ',"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'


def usage(answer: Answer) -> str:
    """The usage object, with a leading comma."""
    total = answer.prompt_tokens + answer.tokens
    return (
        f',"usage":{{"prompt_tokens":{answer.prompt_tokens},"completion_tokens":{answer.tokens},'
        f'"total_tokens":{total}}}'
    )


class OpenAIChatVoice(Voice):
    """`/v1/chat/completions`."""

    stream_headers = SSE
    whole_headers = JSON_PLAIN

    def __init__(self, ask: Ask, answer: Answer, stamp: Stamp) -> None:
        super().__init__(ask, answer, stamp)
        self._id = f"chatcmpl-{stamp.number(999)}"
        self._model = quote(ask.model)

    def _open(self, kind: str) -> str:
        return (
            f'{{"id":"{self._id}","object":"{kind}","created":{self.stamp.unix()},"model":{self._model},'
            f'"system_fingerprint":"fp_ollama"'
        )

    def _calls(self) -> list[dict[str, object]]:
        return [
            {
                "id": f"call_{self.stamp.text(8)}",
                "index": index,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(self.answer.calls)
        ]

    def _chunk(self, delta: str, finish: str = "null") -> str:
        choice = f'{{"index":0,"delta":{{"role":"assistant",{delta}}},"finish_reason":{finish}}}'
        return f'data: {self._open("chat.completion.chunk")},"choices":[{choice}]}}\n\n'

    @property
    def _finish(self) -> str:
        return "tool_calls" if self.answer.calls else self.answer.reason

    def feed(self, piece: Piece) -> Sequence[bytes]:
        if piece.kind == "thinking":
            return (encode(self._chunk(f'"content":"","reasoning":{quote(piece.text)}')),)
        called = f',"tool_calls":{dumps(self._calls())}' if piece.calls else ""
        return (encode(self._chunk(f'"content":{quote(piece.text)}{called}')),)

    def close(self, _times: Times, /) -> Sequence[bytes]:
        last = self._chunk('"content":""', f'"{self._finish}"')
        counted = ""
        if self.ask.include_usage:
            counted = f'data: {self._open("chat.completion.chunk")},"choices":[]{usage(self.answer)}}}\n\n'
        return (encode(f"{last}{counted}data: [DONE]\n\n"),)

    def whole(self, _times: Times, /, *, done: bool = True) -> bytes:
        message: dict[str, object] = {"role": "assistant", "content": self.said}
        if self.answer.thinking:
            message["reasoning"] = self.thought
        if self.answer.calls:
            message["tool_calls"] = self._calls()
        choice = {"index": 0, "message": message, "finish_reason": self._finish if done else None}
        counted = usage(self.answer) if done else NO_USAGE
        return encode(f'{self._open("chat.completion")},"choices":[{dumps(choice)}]{counted}}}\n')

    def crash(self) -> Sequence[bytes]:
        """The error itself gets lost: what comes is an empty chunk of no model."""
        self._model = '""'
        return (encode(self._chunk('"content":""')),)


class OpenAICompletionVoice(Voice):
    """`/v1/completions`."""

    stream_headers = SSE
    whole_headers = JSON_PLAIN

    def __init__(self, ask: Ask, answer: Answer, stamp: Stamp) -> None:
        super().__init__(ask, answer, stamp)
        self._id = f"cmpl-{stamp.number(999)}"
        self._model = quote(ask.model)

    def _chunk(self, choices: str, counted: str) -> str:
        return (
            f'data: {{"id":"{self._id}","object":"text_completion","created":{self.stamp.unix()},"choices":[{choices}],'
            f'"model":{self._model},"system_fingerprint":"fp_ollama"{counted}}}\n\n'
        )

    def _said(self, text: str, finish: str = "null") -> str:
        choice = f'{{"text":{quote(text)},"index":0,"finish_reason":{finish}}}'
        return self._chunk(choice, NO_USAGE if self.ask.include_usage else "")

    def _body(self, text: str, finish: str, counted: str) -> bytes:
        return encode(
            f'{{"id":"{self._id}","object":"text_completion","created":{self.stamp.unix()},"model":{self._model},'
            f'"system_fingerprint":"fp_ollama","choices":[{{"text":{quote(text)},"index":0,"finish_reason":{finish}}}]'
            f"{counted}}}\n"
        )

    def feed(self, piece: Piece) -> Sequence[bytes]:
        return (encode(self._said(piece.text if piece.kind == "content" else "")),)

    def close(self, _times: Times, /) -> Sequence[bytes]:
        last = self._said("", f'"{self.answer.reason}"')
        counted = self._chunk("", usage(self.answer)) if self.ask.include_usage else ""
        return (encode(f"{last}{counted}data: [DONE]\n\n"),)

    def whole(self, _times: Times, /, *, done: bool = True) -> bytes:
        finish = f'"{self.answer.reason}"' if done else "null"
        return self._body(self.said, finish, usage(self.answer) if done else NO_USAGE)

    def loaded(self, reason: str) -> bytes:
        """A completion without a prompt loads the model; in a stream the answer is a stream of one frame."""
        if not self.ask.stream:
            return self._body("", f'"{reason}"', NO_USAGE)
        first = self._said("", f'"{reason}"')
        counted = self._chunk("", NO_USAGE) if self.ask.include_usage else ""
        return encode(f"{first}{counted}data: [DONE]\n\n")

    def crash(self) -> Sequence[bytes]:
        """The error itself gets lost: what comes is an empty chunk of no model."""
        self._model = '""'
        return (encode(self._said("")),)

"""Streams in the exact form of real engines: the simulation's, which are held to be theirs, and some that it lacks."""

import json

from herd.core.dialects import Shape
from herd.sim.anthropic_voice import MessagesVoice
from herd.sim.ask import Ask
from herd.sim.llamacpp_events import LlamaMessagesVoice, LlamaResponsesVoice
from herd.sim.llamacpp_voice import LlamaChatVoice, LlamaCompletionVoice
from herd.sim.ollama_voice import ChatVoice, GenerateVoice
from herd.sim.openai_voice import OpenAIChatVoice, OpenAICompletionVoice
from herd.sim.responses_voice import ResponsesVoice
from herd.sim.voice import Stamp, frozen_times
from herd.sim.words import Answer, Call

VOICES = (
    (Shape.OLLAMA, ChatVoice),
    (Shape.OLLAMA, GenerateVoice),
    (Shape.OPENAI, OpenAIChatVoice),
    (Shape.OPENAI, OpenAICompletionVoice),
    (Shape.OPENAI, LlamaChatVoice),
    (Shape.OPENAI, LlamaCompletionVoice),
    (Shape.MESSAGES, MessagesVoice),
    (Shape.MESSAGES, LlamaMessagesVoice),
    (Shape.RESPONSES, ResponsesVoice),
    (Shape.RESPONSES, LlamaResponsesVoice),
)
WORDS = (
    "Hm",
    " 東京",
    " x<y",
    ' "error":',
    " R&D",
    "\\n",
    "\n\n",
    " 🙂",
    ' {"done":true}',
    " line\u2028break",
    " of",
    " it",
)
CALLS = (Call("weather", '{"city":"Ulm","error":"no \\"usage\\""}'),)


def spoken(voice, thinking=(), content=(), calls=()):
    """The chunks of one answer."""
    tokens = len(thinking) + len(content) + 1
    answer = Answer(tuple(thinking), tuple(content), tuple(calls), 7, tokens, "stop", 42)
    speaker = voice(Ask("llama3.2:3b", include_usage=True), answer, Stamp(42, frozen=True))
    chunks = [chunk for piece in answer.pieces() for chunk in speaker.feed(piece)]
    return [*chunks, *speaker.close(frozen_times(answer))]


def events(*documents, named=True, separators=(",", ":")):
    """Server-sent events, one a chunk."""
    lines = [json.dumps(each, ensure_ascii=False, separators=separators) for each in documents]
    names = [f"event: {each['type']}\n" if named else "" for each in documents]
    return [f"{name}data: {line}\n\n".encode() for name, line in zip(names, lines, strict=True)]


def chat(*choices, **more):
    """A chunk of a chat, with vLLM's keys."""
    head = {"id": "chatcmpl-9f3c", "object": "chat.completion.chunk", "created": 1770112272, "model": "qwen3-8b"}
    return {**head, "choices": list(choices), **more}


def choice(delta, reason=None, index=0, **more):
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason, **more}


VLLM = [
    *events(
        chat(choice({"role": "assistant", "content": ""}), prompt_token_ids=None),
        *(chat(choice({"reasoning_content": word, "reasoning": word}, token_ids=None)) for word in WORDS),
        *(chat(choice({"content": word}, token_ids=None)) for word in WORDS),
        chat(choice({"content": ""}, "stop", stop_reason=None, token_ids=None)),
        chat(usage={"prompt_tokens": 7, "total_tokens": 19, "completion_tokens": 12}),
        named=False,
    ),
    b"data: [DONE]\n\n",
]
LM_STUDIO = [
    *events(
        chat(choice({"role": "assistant", "reasoning_content": "Hm"}), system_fingerprint="qwen3-8b"),
        *(chat(choice({"role": "assistant", "content": word}), system_fingerprint="qwen3-8b") for word in WORDS),
        *(
            chat(choice({"tool_calls": [{"index": 0, "type": "function", "function": {"arguments": part}}]}))
            for part in ('{"', "city", '":"', "Ulm", '"}')
        ),
        chat(choice({}, "tool_calls"), system_fingerprint="qwen3-8b"),
        named=False,
    ),
    b"data: [DONE]\n\n",
]
MLX = [
    b": keepalive 2048/4096\n\n",
    *events(
        *(chat(choice({"role": "assistant", "content": word}), usage=None) for word in WORDS),
        chat(choice({"role": "assistant", "content": ""}, "length")),
        named=False,
        separators=(", ", ": "),
    ),
    b"data: [DONE]\n\n",
]
TWO_CHOICES = [
    *events(*(chat(choice({"content": word}, index=at % 2)) for at, word in enumerate(WORDS)), named=False),
    b"data: [DONE]\n\n",
]
PROGRESS = {"total": 4096, "cache": 0, "processed": 2048, "time_ms": 812}
LLAMACPP_PREFILL = [
    *events(
        *(chat(choice({"role": "assistant", "content": None}), prompt_progress=PROGRESS) for _ in range(2)),
        chat(choice({"role": "assistant", "content": None})),
        *(
            chat(choice({"content": word}), timings={"prompt_n": 7, "predicted_n": at, "cache_n": 3})
            for at, word in enumerate(WORDS)
        ),
        chat(choice({}, "stop"), timings={"prompt_n": 7, "predicted_n": 12, "cache_n": 3, "predicted_ms": 80.5}),
        named=False,
    ),
    b"data: [DONE]\n\n",
]
RESPONSES_PREFILL = events(
    {"type": "response.created", "response": {"id": "resp_1", "object": "response", "status": "in_progress"}},
    {"type": "response.in_progress", "response": {"id": "resp_1"}, "prompt_progress": PROGRESS},
    *({"type": "response.output_text.delta", "item_id": "msg_1", "delta": word} for word in WORDS),
    {"type": "response.completed", "response": {"status": "completed", "usage": {"input_tokens": 7}}},
)


def ollama(said, done=False, **more):
    head = {"model": "llama3.2:3b", "created_at": "2026-02-03T09:51:12.0123456Z"}
    return json.dumps({**head, "message": {"role": "assistant", **said}, "done": done, **more}).encode() + b"\n"


OLLAMA_LOGPROBS = [
    *(ollama({"content": word}, logprobs=[{"token": word, "logprob": -at / 7}]) for at, word in enumerate(WORDS)),
    ollama({"content": ""}, done=True, done_reason="stop", prompt_eval_count=29, prompt_eval_cached_count=20),
]
OLLAMA_CUT = [ollama({"content": word}) for word in (*WORDS, *["\n"] * 31)]
OLLAMA_DIED = [*OLLAMA_CUT[:20], b'{"error":"an error was encountered while running the model: unexpected EOF"}\n']

RECORDED = [
    *((shape, spoken(voice, content=WORDS)) for shape, voice in VOICES),
    *((shape, spoken(voice, WORDS, WORDS)) for shape, voice in VOICES),
    *((shape, spoken(voice, WORDS, (), CALLS)) for shape, voice in VOICES if "Completion" not in voice.__name__),
    (Shape.OPENAI, VLLM),
    (Shape.OPENAI, LM_STUDIO),
    (Shape.OPENAI, MLX),
    (Shape.OPENAI, TWO_CHOICES),
    (Shape.OPENAI, LLAMACPP_PREFILL),
    (Shape.RESPONSES, RESPONSES_PREFILL),
    (Shape.OLLAMA, OLLAMA_LOGPROBS),
    (Shape.OLLAMA, OLLAMA_CUT),
    (Shape.OLLAMA, OLLAMA_DIED),
]

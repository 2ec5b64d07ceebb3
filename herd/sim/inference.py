"""One inference request's life on a node: understood, scheduled, generated, answered; and the faults of its frames."""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from herd.sim.ask import Ask
from herd.sim.config import SimConfig, SimModel
from herd.sim.engine import Engine, Loaded, Refusal, Stage
from herd.sim.faults import Fault, FaultKind, Script
from herd.sim.golang import quote
from herd.sim.reply import Headers, Reply
from herd.sim.surfaces import Surface
from herd.sim.voice import CRASH, SSE, SSE_FLUSHED, Stamp, Times, Voice, frozen_times
from herd.sim.words import Answer, compose, embedding, key_of

VALID_NAME = re.compile(r"[A-Za-z0-9_][\w.:-]*(/[A-Za-z0-9_][\w.:-]*){0,3}", re.ASCII)
NO_MODEL = {
    "chat": (400, "model is required"),
    "generate": (404, "model '{}' not found"),
    "embed": (500, "unqualified name: registry.ollama.ai/library/!MISSING!:latest"),
    "embeddings": (400, "model is required"),
}
NOT_FOUND = {"chat": "model '{}' not found", "generate": "model '{}' not found"}
FRAME_FAULTS = (FaultKind.HANG_MID_STREAM, FaultKind.MALFORMED_JSON, FaultKind.ERROR_LINE)
COUNTS = re.compile(rb',"(prompt_eval_count|eval_count)":\d+|,"usage":\{[^{}]*\}')
# Families whose every model could see: without its projector one refuses a picture. Others look away.
NEEDS_PROJECTOR = frozenset({"gemma3", "llama4", "mllama", "mistral3", "qwen25vl", "qwen3vl"})
NO_PROJECTOR = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
PING_S = 30.0  # how long llama.cpp lets a stream be silent
NOT_FOUND_OTHERS = "model {} not found, try pulling it first"


@dataclass(slots=True)
class Clock:
    """Monotonic nanoseconds at the turns of an answer."""

    begun: int
    loaded: int = 0
    prompted: int = 0
    at: int = 0

    def times(self) -> Times:
        """What passed between them, until now."""
        now = time.monotonic_ns()
        prompted = self.prompted or now
        return Times(
            max(1, self.loaded - self.begun), max(1, prompted - self.at), max(1, now - prompted), now - self.begun
        )


def not_found(name: str, needs: str = "chat") -> Refusal:
    """The refusal for a model that is not on disk, in the words of the endpoint."""
    words = NOT_FOUND.get(needs)
    return Refusal(404, words.format(name) if words else NOT_FOUND_OTHERS.format(quote(name)))


class Inference:
    """Answers the inference endpoints of one engine."""

    def __init__(self, config: SimConfig, engine: Engine, script: Script) -> None:
        self._config = config
        self._engine = engine
        self._script = script

    async def answer(self, surface: Surface, body: bytes, reply: Reply, fault: Fault | None) -> bool:
        """Answer one request; False when it was refused. Faults of frames happen here, those of bytes in the reply."""
        clock = Clock(time.monotonic_ns())
        streamed = False
        try:
            ask = surface.ask(body)
            streamed = ask.stream
            model = self._model(surface, ask)
            if ask.empty and ask.keep_alive_s == 0.0 and surface.voice:
                self._engine.unload(model)
                await self._reply_loaded(surface, ask, reply, "unload")
                return True
            loaded = await self._engine.hold(model, ask)
        except Refusal as refusal:
            await self.refuse(surface, refusal, body, reply, streamed=streamed)
            return False
        clock.loaded = time.monotonic_ns()
        try:
            return await self._serve(surface, ask, loaded, reply, fault, clock)
        except Refusal as refusal:
            if not ask.stream:  # only in place of a stream do the runner's errors look different
                refusal.stage = Stage.SCHEDULE
            await self.refuse(surface, refusal, body, reply, streamed=streamed)
            return False
        finally:
            self._engine.release(loaded)

    async def refuse(
        self, surface: Surface, refusal: Refusal, body: bytes, reply: Reply, *, streamed: bool = False
    ) -> None:
        """Answer with an error in the dialect; before a stream's first token it has its true status."""
        stamp = Stamp(key_of(body.decode("utf-8", "replace")), frozen=self._config.frozen_time)
        status, headers, text = surface.refuse(refusal, stamp)
        if streamed and surface.voice and surface.voice.stream_headers is SSE_FLUSHED:
            headers = (*SSE_FLUSHED[:2], *headers)  # set before anyone knew that there would be no stream
        late = refusal.stage is Stage.RUNNER and self._config.engine == "ollama"
        await reply.whole(status, headers, text, chunk_over=0 if late else None)

    def _model(self, surface: Surface, ask: Ask) -> SimModel:
        """The model that is asked for; Refusal if it is not there or cannot do what is asked."""
        model = self._engine.find(ask.model)
        if self._config.engine == "llamacpp":
            assert model is not None  # a server of one model finds it under every name
            if surface.embed and not model.can("embedding"):
                raise Refusal(501, "This server does not support embeddings. Start it with `--embeddings`")
            if ask.images and not model.can("vision"):
                raise Refusal(500, NO_PROJECTOR)
            return model
        if not VALID_NAME.fullmatch(ask.model):
            status, words = NO_MODEL[surface.needs]
            raise Refusal(status, words.format(ask.model))
        if model is None:
            raise not_found(ask.model, surface.needs)
        self._check_able(surface, ask, model)
        return model

    def _check_able(self, surface: Surface, ask: Ask, model: SimModel) -> None:
        if surface.voice:
            if ask.think and not model.can("thinking") and not surface.relaxed:
                raise Refusal(400, f"{quote(ask.model)} does not support thinking")
            if not model.can("completion"):
                raise Refusal(400, f"{quote(ask.model)} does not support {surface.needs}")
            if ask.think_level and model.family != "gptoss":
                raise Refusal(400, f"think value {quote(ask.think_level)} is not supported for this model")
            if ask.tools and not model.can("tools"):
                raise Refusal(400, f"registry.ollama.ai/library/{model.key} does not support tools")
        if ask.bad_option:
            raise Refusal(500, ask.bad_option)

    async def _serve(
        self, surface: Surface, ask: Ask, loaded: Loaded, reply: Reply, fault: Fault | None, clock: Clock
    ) -> bool:
        if ask.empty and surface.voice and self._config.engine == "ollama":
            await self._reply_loaded(surface, ask, reply, "load")
            return True
        await loaded.take_slot()
        clock.at = time.monotonic_ns()
        try:
            if surface.embed:
                await self._embed(surface, ask, loaded, reply, fault, clock)
            else:
                await self._generate(surface, ask, loaded, reply, fault, clock)
        finally:
            loaded.give_slot()
        return True

    async def _reply_loaded(self, surface: Surface, ask: Ask, reply: Reply, reason: str) -> None:
        answer = Answer((), (), (), 0, 0, reason, key_of(ask.model))
        assert surface.voice is not None
        voice = surface.voice(ask, answer, self._stamp(answer))
        streamed = ask.stream and voice.stream_headers is SSE
        await reply.whole(200, SSE if streamed else voice.whole_headers, voice.loaded(reason))

    def _stamp(self, answer: Answer) -> Stamp:
        return Stamp(answer.key, frozen=self._config.frozen_time)

    def _times(self, answer: Answer, clock: Clock) -> Times:
        return frozen_times(answer) if self._config.frozen_time else clock.times()

    async def _embed(
        self, surface: Surface, ask: Ask, loaded: Loaded, reply: Reply, fault: Fault | None, clock: Clock
    ) -> None:
        assert surface.embed is not None
        model = loaded.model
        tokens = sum(len(text) // 4 + 1 for text in ask.inputs)
        await self._wait(self._config.prefill_s(model, tokens))
        length = min(ask.dimensions or model.embedding_length, model.embedding_length)
        unit = surface.needs == "embed"
        vectors = [embedding(model.key, text, length, unit=unit) for text in ask.inputs]
        counted = Answer((), (), (), tokens, 0, "stop", key_of(*ask.inputs))
        times = self._times(counted, clock)
        body = surface.embed(ask, [] if ask.empty else vectors, times)
        await self._send_whole(surface.whole_headers, body, reply, fault)

    def _compose(self, ask: Ask, loaded: Loaded) -> Answer:
        """What the model says; Refusal if the loaded model does not take the prompt."""
        model, tokens = loaded.model, ask.prompt_tokens
        if self._config.engine == "ollama":
            tokens = self._check_prompt(ask, loaded)
        return compose(
            model.key, ask.text, ask.seed, prompt_tokens=tokens, limit=ask.limit, stop=ask.stop, schema=ask.schema,
            think=model.can("thinking") and ask.think is not False, tools=ask.tools,
        )  # fmt: skip

    def _check_prompt(self, ask: Ask, loaded: Loaded) -> int:
        if ask.schema and not (ask.schema == '"json"' or ask.schema.startswith("{")):
            expected = 'expected "json" or a valid JSON Schema object'
            raise Refusal(500, f"invalid format: {json.dumps(ask.schema)}; {expected}", Stage.RUNNER)
        if ask.images and loaded.model.family in NEEDS_PROJECTOR and not loaded.model.can("vision"):
            raise Refusal(500, "this model is missing data required for image input", Stage.RUNNER)
        if ask.prompt_tokens > loaded.context and not ask.truncate:
            raise Refusal(400, "the input length exceeds the context length", Stage.RUNNER)
        return min(ask.prompt_tokens, loaded.context)

    async def _generate(
        self, surface: Surface, ask: Ask, loaded: Loaded, reply: Reply, fault: Fault | None, clock: Clock
    ) -> None:
        answer = self._compose(ask, loaded)
        if self._config.engine == "llamacpp":
            ask = replace(ask, model=loaded.model.key)
        assert surface.voice is not None
        voice = surface.voice(ask, answer, self._stamp(answer))
        if ask.stream and voice.early:
            await reply.begin(200, voice.stream_headers, at_once=True)
        prefill = self._config.prefill_s(loaded.model, answer.prompt_tokens)
        prefill = prefill * loaded.unread(ask.text) if prefill else 0.0
        while reply.started and prefill > (ping := float(ask.body.get("sse_ping_interval") or PING_S)):
            await self._wait(ping)
            await reply.frame(b":\n\n")
            prefill -= ping
        await self._wait(prefill)
        clock.prompted = time.monotonic_ns()
        if ask.stream:
            await self._stream(voice, loaded, reply, fault, clock)
            return
        await self._wait(self._config.token_s(loaded.model) * answer.tokens)
        body = voice.whole(self._times(answer, clock), done=not fault or fault.kind is not FaultKind.NO_DONE)
        if fault and fault.kind is FaultKind.ERROR_LINE:
            raise Refusal(500, CRASH if self._config.engine == "ollama" else "Compute error.", Stage.RUNNER)
        await self._send_whole(voice.whole_headers, body, reply, fault)

    async def _send_whole(self, headers: Headers, body: bytes, reply: Reply, fault: Fault | None) -> None:
        if fault and fault.kind is FaultKind.MALFORMED_JSON:
            body = body[: len(body) // 2]
        if fault and fault.kind is FaultKind.HANG_MID_STREAM:
            await self._script.hang(fault)
        if fault and fault.kind is FaultKind.NO_USAGE:
            body = COUNTS.sub(b"", body)
        await reply.whole(200, headers, body)

    async def _stream(self, voice: Voice, loaded: Loaded, reply: Reply, fault: Fault | None, clock: Clock) -> None:
        pace = self._config.token_s(loaded.model)
        due = time.monotonic()
        strikes = fault.position if fault and fault.kind in FRAME_FAULTS else None
        for count, piece in enumerate(voice.answer.pieces()):
            struck = fault if count == strikes else None
            if struck and await self._strike(voice, reply, struck):
                return
            due += pace * piece.tokens
            await self._wait(due - time.monotonic() if pace else 0.0)
            frames = voice.feed(piece)
            torn = struck and struck.kind is FaultKind.MALFORMED_JSON
            await self._frames(voice, _torn(frames) if torn else frames, reply)
        if not fault or fault.kind is not FaultKind.NO_DONE:
            await self._frames(voice, voice.close(self._times(voice.answer, clock)), reply)
        await self._end(voice, reply)

    async def _strike(self, voice: Voice, reply: Reply, fault: Fault) -> bool:
        """Do what the fault does before this frame; True when the answer ends with it."""
        if fault.kind is FaultKind.HANG_MID_STREAM:
            await self._script.hang(fault)
        if fault.kind is not FaultKind.ERROR_LINE:
            return False
        await self._frames(voice, voice.crash(), reply)
        await self._end(voice, reply)
        return True

    async def _frames(self, voice: Voice, frames: Sequence[bytes], reply: Reply) -> None:
        if not reply.started:
            await reply.begin(200, voice.stream_headers)
        for frame in frames:
            await reply.frame(frame)

    async def _end(self, voice: Voice, reply: Reply) -> None:
        if not reply.started:
            await reply.begin(200, voice.stream_headers)
        await reply.end()
        if voice.hangs_up:
            reply.keep = False

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(seconds)


def _torn(frames: Sequence[bytes]) -> list[bytes]:
    """Frames of which the first breaks off in its middle; its line ends as if it were whole."""
    first = frames[0]
    end = b"\n\n" if first.endswith(b"\n\n") else b"\n"
    return [first[: len(first) // 2] + end, *frames[1:]]

"""Models coming, going and being renamed on a node's disk: pull, push, create, copy, delete, blobs."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from herd.sim.config import SimConfig, SimModel
from herd.sim.engine import Engine, Refusal, Stage
from herd.sim.golang import GoError, dumps, encode, parse, quote
from herd.sim.inference import VALID_NAME, not_found
from herd.sim.reply import Reply
from herd.sim.voice import JSON_PLAIN, NDJSON
from herd.wire import canonical_name

Json = dict[str, Any]
DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
STEPS = 16  # progress frames of one download
NO_FILE = "pull model manifest: file does not exist"


class Storage:
    """The management endpoints of one Ollama."""

    def __init__(self, config: SimConfig, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self._library = {model.key: model for model in (*config.library, *config.models)}
        self.blobs: set[str] = set()

    async def pull(self, body: bytes, reply: Reply) -> None:
        """`/api/pull`: progress, then the model is on disk; an unknown name is an error under status 200."""
        value, name = _named(body, "PullRequest")
        await _progress(value, self._pull(name), reply)

    async def _pull(self, name: str) -> AsyncIterator[Json]:
        yield {"status": "pulling manifest"}
        model = self._offered(name)
        if model is None:
            yield {"error": NO_FILE}
            return
        layer = {"status": f"pulling {model.layer[:12]}", "digest": f"sha256:{model.layer}", "total": model.size_bytes}
        if self._engine.find(model.key) is None:
            for step in range(STEPS):
                done = model.size_bytes * step // STEPS
                yield {**layer, "completed": done} if done else layer
                await asyncio.sleep(self._config.pull_s(model) / STEPS)
        yield {**layer, "completed": model.size_bytes}
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self._engine.add(model)
        yield {"status": "success"}

    def _offered(self, name: str) -> SimModel | None:
        """The model that a registry would have under a name: the size is read out of a tag like `8b`."""
        key = canonical_name(name)
        if key in self._library:
            return self._library[key]
        if key.startswith(("nonexistent", "missing")):
            return None
        billions = re.search(r":(\d+(?:\.\d+)?)b", key)
        size = float(billions.group(1)) if billions else 3.2
        return SimModel(key, size_gb=round(0.62 * size, 2), parameter_size=f"{size:g}B")

    async def push(self, body: bytes, reply: Reply) -> None:
        """`/api/push`: progress only; nothing leaves the machine."""
        value = _parsed(body, "PullRequest")
        name = value.get("model") or value.get("name") or ""
        if not name:
            raise Refusal(400, "model is required")
        await _progress(value, self._push(name), reply)

    async def _push(self, name: str) -> AsyncIterator[Json]:
        yield {"status": "retrieving manifest"}
        model = self._engine.find(name)
        if model is None:
            yield {"status": "couldn't retrieve manifest"}
            yield {"error": f"open manifests/registry.ollama.ai/library/{name}: no such file or directory"}
            return
        layer = {"status": f"pushing {model.layer[:12]}", "digest": f"sha256:{model.layer}", "total": model.size_bytes}
        yield layer
        yield {**layer, "completed": model.size_bytes}
        yield {"status": "pushing manifest"}
        yield {"status": "success"}

    async def create(self, body: bytes, reply: Reply) -> None:
        """`/api/create` from a model or from uploaded blobs."""
        value, name = _named(body, "CreateRequest")
        await _progress(value, self._create(name, value), reply)

    async def _create(self, name: str, value: Json) -> AsyncIterator[Json]:
        if value.get("from") and not VALID_NAME.fullmatch(value["from"]):
            yield {"error": "invalid model name", "status": 400}
            return
        base = self._engine.find(value["from"]) if value.get("from") else None
        if value.get("from") and base is None:
            yield {"status": "pulling manifest"}
            yield {"error": NO_FILE}
            return
        if base is None and not value.get("files"):
            yield {"error": "neither 'from' or 'files' was specified", "status": 400}
            return
        if base is None and not set(value["files"].values()) <= self.blobs:
            yield {"error": "no such file or directory"}
            return
        if base is None:
            yield {"status": "parsing GGUF"}
        model = (
            replace(base, name=name, manifest="", weights=base.weights or base.key)
            if base
            else SimModel(name, size_gb=0.7, parameter_size="1.1B")
        )
        context = (value.get("parameters") or {}).get("num_ctx")
        model = replace(model, loaded_context=context) if isinstance(context, int) else model
        verb = "using existing" if base else "creating new"
        yield {"status": f"{verb} layer sha256:{(base or model).layer}"}
        yield {"status": "writing manifest"}
        self._engine.add(model)
        yield {"status": "success"}

    async def copy(self, body: bytes, reply: Reply) -> None:
        """`/api/copy`: an empty 200."""
        value = _parsed(body, "CopyRequest")
        for role in ("source", "destination"):
            if not VALID_NAME.fullmatch(value.get(role) or ""):
                raise Refusal(400, f"{role} {quote(value.get(role) or '')} is invalid")
        model = self._engine.find(value["source"])
        if model is None:
            raise Refusal(404, f"model {quote(value['source'])} not found")
        manifest, weights = model.manifest or model.key, model.weights or model.key
        self._engine.add(replace(model, name=value["destination"], manifest=manifest, weights=weights))
        await reply.whole(200, (), b"")

    async def delete(self, body: bytes, reply: Reply) -> None:
        """`/api/delete`: an empty 200; what is in memory stays until it expires."""
        value = _parsed(body, "DeleteRequest")
        name = value.get("model") or value.get("name") or ""
        if not VALID_NAME.fullmatch(name):
            raise Refusal(400, f"name {quote(name)} is invalid")
        model = self._engine.find(name)
        if model is None:
            raise not_found(name)
        self._engine.remove(model)
        await reply.whole(200, (), b"")

    async def has_blob(self, digest: str, reply: Reply) -> None:
        """`HEAD /api/blobs/{digest}`."""
        _check_digest(digest)
        if digest.replace("-", ":") not in self.blobs:
            raise Refusal(404, f"blob {quote(digest)} not found")
        await reply.whole(200, (), b"")

    async def put_blob(self, digest: str, body: bytes, reply: Reply) -> None:
        """`POST /api/blobs/{digest}`: 201, or 200 if it was there; only the digest is kept."""
        _check_digest(digest)
        known = digest.replace("-", ":")
        if known in self.blobs:
            await reply.whole(200, (), b"")
            return
        found = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if found != known:
            raise Refusal(400, f"digest mismatch, expected {quote(digest)}, got {quote(found)}")
        self.blobs.add(known)
        await reply.whole(201, (), b"")


def _check_digest(digest: str) -> None:
    if not DIGEST.fullmatch(digest):
        raise Refusal(400, "invalid digest format")


def _parsed(body: bytes, struct: str) -> Json:
    try:
        return parse(body, struct)
    except GoError as error:
        raise Refusal(400, str(error)) from None


def _named(body: bytes, struct: str) -> tuple[Json, str]:
    value = _parsed(body, struct)
    name = value.get("model") or value.get("name") or ""
    if not VALID_NAME.fullmatch(name):
        raise Refusal(400, "invalid model name")
    return value, name


async def _progress(value: Json, frames: AsyncIterator[Json], reply: Reply) -> None:
    """Progress as a stream, or, without one, its last word only; an error before the first word has its status."""
    if value.get("stream") is False:
        last: Json = {}
        async for last in frames:
            if "error" in last:
                raise Refusal(last.get("status", 500), last["error"])
        await reply.whole(200, JSON_PLAIN, encode(dumps(last)))
        return
    async for frame in frames:
        if "error" in frame and not reply.started:
            raise Refusal(frame.get("status", 500), frame["error"], Stage.RUNNER)
        if not reply.started:
            await reply.begin(200, NDJSON)
        await reply.frame(encode(dumps({"error": frame["error"]} if "error" in frame else frame) + "\n"))
    await reply.end()

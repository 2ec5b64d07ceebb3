"""What Ollama says of itself: version, models on disk, models in memory, and how many requests it works on at once."""

import asyncio
import os
from pathlib import Path
from typing import Any

from herd import wire

from .client import EngineAway, EngineClient
from .ollama_process import NOTHING_KNOWN, server_environment
from .parse import LOADED_AT_MOST, MODELS_AT_MOST, listed, moment, positive, rows, table, whole
from .parse import version as spelled

DEFAULT_SLOTS = 4
UNSAID_SLOTS = 1  # what an Ollama takes that was told nothing of parallel requests (0.17.4 does)
ENVIRONMENT_EVERY_S = 60.0  # a server restarted with other settings is noticed after this long, or when it was away
LLAMACPP_HINT = "; this is llama.cpp's server: start herd-node with `--engine llamacpp`"
SHOWS_PER_SNAPSHOT = 8  # /api/show reads the model's file, so a large library is learnt over several snapshots
SHOWS_AT_ONCE = 2
FOLDERS = (Path("~/.ollama/models").expanduser(), Path("/usr/share/ollama/.ollama/models"))


class OllamaProbe:
    """Asks one Ollama server; `slots` is what to assume where its environment does not say."""

    advice = "set OLLAMA_HOST=0.0.0.0 for the Ollama server and restart it"

    def __init__(self, url: str, slots: int | None = None) -> None:
        self.url = url
        self._client = EngineClient(url, "start it with `ollama serve`")
        self._slots = slots
        self._environment = NOTHING_KNOWN
        self._environment_due = 0.0
        self._contexts: dict[str, int | None] = {}
        self._models: list[wire.Model] = []

    async def snapshot(self) -> wire.Engine:
        """See EngineProbe. An engine that is away keeps its models on disk: they did not go with it."""
        try:
            await self._client.recognise()
            version = table(await self._client.get("/api/version")).get("version")
            on_disk = rows(table(await self._client.get("/api/tags")).get("models"))
            running = rows(table(await self._client.get("/api/ps")).get("models"))
        except EngineAway as away:
            self._environment_due = 0.0
            hint = LLAMACPP_HINT if away.status == 404 and await self._client.is_llamacpp() else ""
            return self._engine(reachable=False, error=f"Ollama: {away}{hint}")
        await self._learn_environment()
        await self._learn_contexts(on_disk)
        self._models = listed(wire.Model, map(self._on_disk, on_disk), MODELS_AT_MOST)
        loaded = listed(wire.LoadedModel, map(_in_memory, running), LOADED_AT_MOST)
        return self._engine(reachable=True, version=version, loaded=loaded)

    def _engine(
        self,
        reachable: bool,
        version: Any = None,
        error: str | None = None,
        loaded: list[wire.LoadedModel] | None = None,
    ) -> wire.Engine:
        unsaid = UNSAID_SLOTS if self._environment.is_read else DEFAULT_SLOTS
        return wire.Engine(
            kind="ollama",
            url=self.url,
            reachable=reachable,
            version=spelled(version),
            error=error,
            endpoints=list(wire.OLLAMA_ENDPOINTS),
            slots=self._environment.slots or self._slots or unsaid,
            models=self._models,
            loaded=loaded or [],
        )

    async def _learn_environment(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._environment_due:
            self._environment = await asyncio.to_thread(server_environment, self.url)
            self._environment_due = now + ENVIRONMENT_EVERY_S

    async def _learn_contexts(self, on_disk: list[dict[str, Any]]) -> None:
        names = {_identity(entry): _name(entry) for entry in on_disk}
        self._contexts = {key: known for key, known in self._contexts.items() if key in names}
        unknown = [(key, name) for key, name in names.items() if key not in self._contexts][:SHOWS_PER_SNAPSHOT]
        gate = asyncio.Semaphore(SHOWS_AT_ONCE)
        await asyncio.gather(*(self._learn_context(gate, key, name) for key, name in unknown))

    async def _learn_context(self, gate: asyncio.Semaphore, key: str, name: str) -> None:
        async with gate:
            try:
                shown = table(await self._client.post("/api/show", {"model": name}))
            except EngineAway as away:
                if away.status is not None:  # it answered, and would answer the same again
                    self._contexts[key] = None
                return
        info = table(shown.get("model_info"))
        self._contexts[key] = positive(info.get(f"{info.get('general.architecture')}.context_length"))

    def _on_disk(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": _name(entry),
            "size_bytes": whole(entry.get("size")),
            "context_length": self._contexts.get(_identity(entry)),
            "entry": entry,
        }

    async def answers_at(self, url: str) -> bool:
        """See EngineProbe."""
        return await self._client.answers_at(url, "/api/version")

    def models_folder(self) -> Path | None:
        """See EngineProbe: the server's own environment, else this process's, else where Ollama's installers put it."""
        own = os.environ.get("OLLAMA_MODELS")
        candidates = (self._environment.models_folder, Path(own) if own else None, *FOLDERS)
        return next((folder for folder in candidates if folder and _exists(folder)), None)

    async def close(self) -> None:
        """See EngineProbe."""
        await self._client.close()


def _in_memory(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": _name(entry),
        "size_bytes": whole(entry.get("size")),
        "vram_bytes": whole(entry.get("size_vram")),
        "context_length": positive(entry.get("context_length")),
        "expires_at": moment(entry.get("expires_at")),
        "entry": entry,
    }


def _name(entry: dict[str, Any]) -> str:
    name = entry.get("name") or entry.get("model")
    return wire.canonical_name(name) if isinstance(name, str) and name else ""


def _identity(entry: dict[str, Any]) -> str:
    return str(entry.get("digest") or _name(entry))


def _exists(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:
        return False  # another user's home

"""What llama.cpp's server says of itself: one model, or many when it was started as a router without a model.

It never reloads a model with another context, so what is loaded is also all that there is.
"""

from pathlib import Path
from typing import Any

from herd import wire

from .client import EngineAway, EngineClient
from .parse import LOADED_AT_MOST, MODELS_AT_MOST, listed, positive, rows, table, whole
from .parse import version as spelled

DEFAULT_SLOTS = 4
SLOTS_AT_MOST = 1024  # the limit of wire.Engine


class LlamaCppProbe:
    """Asks one llama.cpp server; `slots` is what to assume where it does not say."""

    advice = "start llama-server with `--host 0.0.0.0`"

    def __init__(self, url: str, slots: int | None = None) -> None:
        self.url = url
        self._client = EngineClient(url, "start `llama-server`")
        self._slots = slots
        self._models: list[wire.Model] = []
        self._folder: Path | None = None

    async def snapshot(self) -> wire.Engine:
        """See EngineProbe. A server that still loads counts as away: it would refuse every request with a 503."""
        try:
            await self._client.recognise()
            await self._client.get("/health")  # the one path that needs no key and tells loading from failing
            entries = rows(table(await self._client.get("/v1/models")).get("data"))
            props = await self._props()
            slots = positive(props.get("total_slots")) or await self._counted_slots(props)
        except EngineAway as away:
            return self._engine(None, self._slots, reachable=False, error=f"llama.cpp: {_explained(away)}")
        self._folder = _folder(props)
        context = positive(table(props.get("default_generation_settings")).get("n_ctx"))
        self._models = listed(wire.Model, (_model(e, n, context) for e in entries for n in _names(e)), MODELS_AT_MOST)
        awake = [entry for entry in entries if _is_loaded(entry) and props.get("is_sleeping") is not True]
        loaded = (_model(entry, name, context) for entry in awake for name in _names(entry))
        return self._engine(
            props.get("build_info"), slots, reachable=True, loaded=listed(wire.LoadedModel, loaded, LOADED_AT_MOST)
        )

    def _engine(
        self,
        version: Any,
        slots: int | None,
        reachable: bool,
        error: str | None = None,
        loaded: list[wire.LoadedModel] | None = None,
    ) -> wire.Engine:
        return wire.Engine(
            kind="llamacpp",
            url=self.url,
            reachable=reachable,
            version=spelled(version),
            error=error,
            endpoints=list(wire.LLAMACPP_ENDPOINTS),
            slots=min(slots or DEFAULT_SLOTS, SLOTS_AT_MOST),
            models=self._models,
            loaded=loaded or [],
        )

    async def _props(self) -> dict[str, Any]:
        try:
            return table(await self._client.get("/props"))
        except EngineAway as away:
            if away.status in (404, 501):  # older and kindred servers have no such page
                return {}
            raise

    async def _counted_slots(self, props: dict[str, Any]) -> int | None:
        """Slots counted one by one, else the option; asked last, since the answer waits in the server's work queue."""
        if props.get("role") == "router":
            return self._slots
        try:
            return len(rows(await self._client.get("/slots"))) or self._slots
        except EngineAway as away:
            if away.status is None:
                raise
            return self._slots

    async def answers_at(self, url: str) -> bool:
        """See EngineProbe."""
        return await self._client.answers_at(url, "/health")

    def models_folder(self) -> Path | None:
        """See EngineProbe."""
        return self._folder

    async def close(self) -> None:
        """See EngineProbe."""
        await self._client.close()


def _explained(away: EngineAway) -> str:
    if away.status == 503:
        return "loading its model (503)"
    if away.status == 401:
        return f"{away}: it was started with an API key, which herd-node does not have"
    return str(away)


def _names(entry: dict[str, Any]) -> list[str]:
    # As the server writes them, without `:latest`: started as a router it knows no other spelling.
    aliases = entry.get("aliases")
    names = [entry.get("id"), *(aliases if isinstance(aliases, list) else [])]
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))


def _is_loaded(entry: dict[str, Any]) -> bool:
    # Only a router gives a status; a server with one model has it loaded, or answers 503.
    return "status" not in entry or table(entry["status"]).get("value") == "loaded"


def _model(entry: dict[str, Any], name: str, context: int | None) -> dict[str, Any]:
    meta = table(entry.get("meta"))
    return {
        "name": name,
        "size_bytes": whole(meta.get("size")),
        "context_length": context or positive(meta.get("n_ctx")),
        # a router's status has the command line of the model's process in it: paths and tokens, no client's business
        "entry": {key: value for key, value in entry.items() if key != "status"},
    }


def _folder(props: dict[str, Any]) -> Path | None:
    path = props.get("model_path")
    return Path(path).parent if isinstance(path, str) and Path(path).is_absolute() else None

"""Models in memory, their slots, and who waits for what: an engine's scheduler. Knows no HTTP and no dialect.

As in Ollama: loads happen one after another; a request for a loaded model passes by those that wait for a load, and
waits only for one of that model's slots; a model whose load options differ from the asked ones is unloaded when its
last request is over, and loaded anew; idle models make room for others. Models of the same weights and options share
what is loaded, which keeps the name that it was loaded under.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from herd.sim.ask import Ask
from herd.sim.config import GIB, SimConfig, SimModel
from herd.sim.golang import FOREVER_S
from herd.wire import canonical_name

OWN_SHARE = 0.08  # of the memory that the machine needs for itself
BUSY = "server busy, please try again.  maximum pending requests exceeded"
Wanted = tuple[int, tuple[tuple[str, str], ...]]


class Stage(StrEnum):
    """Where in an engine a request was refused; Ollama frames its errors differently for each."""

    FRONT = "front"  # the body is wrong
    SCHEDULE = "schedule"  # the model is not there, cannot do it, or cannot be loaded
    RUNNER = "runner"  # the loaded model does not take the prompt


class Refusal(Exception):
    """The engine does not take a request: HTTP status, and its words for it."""

    def __init__(self, status: int, message: str, stage: Stage = Stage.SCHEDULE) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.stage = stage


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one.startswith(other[:middle]) else (low, middle - 1)
    return low


@dataclass(slots=True, eq=False)
class Loaded:
    """A model in memory. `expires_at` is in unix seconds, None while it has not been idle yet."""

    model: SimModel
    wanted: Wanted
    context: int
    size: int
    vram: int
    slots: asyncio.Semaphore
    keep_alive_s: float
    expires_at: float | None = None
    loading: bool = True
    users: int = 0
    waiting: int = 0
    working: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.TimerHandle | None = None
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=8))

    def unread(self, text: str) -> float:
        """The share of a prompt that is not in the cache of one lately read; from now on this one is."""
        shared = max((_shared(text, each) for each in self.recent), default=0)
        self.recent.append(text)
        return 1.0 - shared / max(1, len(text))

    async def take_slot(self) -> None:
        """Wait for a slot, first come first served."""
        self.waiting += 1
        try:
            await self.slots.acquire()
        finally:
            self.waiting -= 1
        self.working += 1

    def give_slot(self) -> None:
        """Hand the slot to whoever waits longest."""
        self.working -= 1
        self.slots.release()


class Engine:
    """The scheduler of one node; `changed` is set whenever the models on disk or in memory are others."""

    def __init__(self, config: SimConfig) -> None:
        self.config = config
        self.models = {model.key: model for model in config.models}
        self.loaded: dict[str, Loaded] = {}
        self.changed = asyncio.Event()
        self.pending = 0
        self.loads = 0
        self._lane = asyncio.Lock()
        self._modified = {key: 1_750_000_000.0 - 60 * index for index, key in enumerate(self.models)}

    def find(self, name: str) -> SimModel | None:
        """The model on disk that a name means, whatever its case and registry prefix."""
        key = canonical_name(name.removeprefix("registry.ollama.ai/").removeprefix("library/"))
        return self.models.get(key) or next((m for k, m in self.models.items() if k.lower() == key.lower()), None)

    def modified_at(self, model: SimModel) -> float:
        """When the model came to this disk, unix seconds."""
        return self._modified[model.key]

    def add(self, model: SimModel) -> None:
        """Put a model on disk."""
        self.models[model.key] = model
        self._modified[model.key] = time.time()
        self.changed.set()

    def remove(self, model: SimModel) -> None:
        """Take a model from disk; in memory it stays until it expires."""
        del self.models[model.key]
        self.changed.set()

    @property
    def busy(self) -> int:
        """Slots at work, over all models."""
        return sum(each.working for each in self.loaded.values())

    @property
    def memory_used(self) -> int:
        """Bytes of main memory that the machine and its models use."""
        models = sum(each.size if self.config.unified else each.size - each.vram for each in self.loaded.values())
        return int(self.config.memory_gb * GIB * OWN_SHARE) + models

    @property
    def vram_used(self) -> int:
        """Bytes of the GPU's own memory that models use."""
        return sum(each.vram for each in self.loaded.values())

    def slots_of(self, model: SimModel) -> int:
        """How many requests a model works on at once: embedding models one, as in Ollama."""
        return self.config.slots if model.can("completion") else 1

    def wanted(self, model: SimModel, ask: Ask) -> Wanted:
        """The load options of a request: where one is left out the default counts, not what is loaded."""
        context = model.loaded_context if ask.num_ctx is None else max(4, ask.num_ctx)
        return (max(2048, context) if model.can("vision") else context), ask.load_options

    async def hold(self, model: SimModel, ask: Ask) -> Loaded:
        """Have the model loaded as asked, and kept until `release`; Refusal if too many wait or it cannot fit."""
        wanted = self.wanted(model, ask)
        loaded = self.loaded.get(model.layer)
        if loaded is None or loaded.loading or loaded.wanted != wanted:
            loaded = await self._queue(model, wanted)
        loaded.users += 1
        loaded.idle.clear()
        if loaded.timer:
            loaded.timer.cancel()
            loaded.timer = None
        if ask.keep_alive_s is not None:
            loaded.keep_alive_s = ask.keep_alive_s
        return loaded

    def release(self, loaded: Loaded) -> None:
        """End a `hold`; the last one starts the clock of `keep_alive`."""
        loaded.users -= 1
        if loaded.users:
            return
        loaded.idle.set()
        if self.loaded.get(loaded.model.layer) is not loaded:
            return
        if loaded.keep_alive_s <= 0:
            self._drop(loaded)
        else:
            self._start_timer(loaded)

    def unload(self, model: SimModel) -> None:
        """What `keep_alive: 0` without a prompt does: away as soon as it is idle."""
        loaded = self.loaded.get(model.layer)
        if loaded is None:
            return
        loaded.keep_alive_s = 0.0
        loaded.expires_at = time.time()
        if not loaded.users and not loaded.loading:
            self._drop(loaded)

    def put_in_memory(self, model: SimModel) -> None:
        """Have the model loaded from the start, without the time that it takes."""
        loaded = self._enter(model, (model.loaded_context, ()), model.loaded_context)
        loaded.loading = False
        loaded.idle.set()
        self._start_timer(loaded)

    def close(self) -> None:
        """Stop all timers."""
        for each in self.loaded.values():
            if each.timer:
                each.timer.cancel()

    async def _queue(self, model: SimModel, wanted: Wanted) -> Loaded:
        if self.pending >= self.config.max_queue:
            raise Refusal(503, BUSY)
        self.pending += 1
        try:
            async with self._lane:
                return await self._make_ready(model, wanted)
        finally:
            self.pending -= 1

    async def _make_ready(self, model: SimModel, wanted: Wanted) -> Loaded:
        while (loaded := self.loaded.get(model.layer)) and loaded.wanted != wanted:
            await self._drop_when_idle(loaded)
        if loaded:
            return loaded
        context = min(wanted[0], model.context_length)
        size = model.loaded_bytes(context, self.slots_of(model))
        while self.loaded and not self._fits_beside(size):
            await self._drop_when_idle(self._victim())
        self._check_fits(size)
        return await self._load(model, wanted, context)

    def _enter(self, model: SimModel, wanted: Wanted, context: int) -> Loaded:
        """Take the memory that a model needs; from now on it is listed."""
        slots = self.slots_of(model)
        size = model.loaded_bytes(context, slots)
        vram = size if self.config.unified else min(size, max(0, int(self.config.vram_gb * GIB) - self.vram_used))
        loaded = Loaded(model, wanted, context, size, vram, asyncio.Semaphore(slots), self.config.keep_alive_s)
        self.loaded[model.layer] = loaded
        self.changed.set()
        return loaded

    async def _load(self, model: SimModel, wanted: Wanted, context: int) -> Loaded:
        loaded = self._enter(model, wanted, context)
        try:
            await asyncio.sleep(self.config.load_s(model))
        except asyncio.CancelledError:  # the client that it was loaded for has left
            self._drop(loaded)
            raise
        loaded.loading = False
        self.loads += 1
        self.changed.set()
        return loaded

    def _fits_beside(self, size: int) -> bool:
        if len(self.loaded) >= self.config.max_loaded:
            return False
        if self.config.vram_gb:
            return size <= int(self.config.vram_gb * GIB) - self.vram_used
        return size <= int(self.config.memory_gb * GIB) - self.memory_used

    def _check_fits(self, size: int) -> None:
        free = int((self.config.memory_gb + self.config.vram_gb) * GIB) - self.memory_used - self.vram_used
        if size > free:
            need, have = f"{size / GIB:.1f} GiB", f"{max(0, free) / GIB:.1f} GiB"
            raise Refusal(500, f"model requires more system memory ({need}) than is available ({have})")

    def _victim(self) -> Loaded:
        """The idle model with the shortest stay, else the busy one with the shortest."""
        return min(self.loaded.values(), key=lambda each: (each.users > 0, each.keep_alive_s, each.model.key))

    async def _drop_when_idle(self, loaded: Loaded) -> None:
        while loaded.users:
            await loaded.idle.wait()
        if self.loaded.get(loaded.model.layer) is loaded:
            self._drop(loaded)

    def _drop(self, loaded: Loaded) -> None:
        if loaded.timer:
            loaded.timer.cancel()
        del self.loaded[loaded.model.layer]
        self.changed.set()

    def _start_timer(self, loaded: Loaded) -> None:
        stay = FOREVER_S if loaded.keep_alive_s >= FOREVER_S else loaded.keep_alive_s / self.config.speed
        loaded.expires_at = time.time() + stay
        if stay < 10**8:  # what stays for ever needs no timer
            loaded.timer = asyncio.get_running_loop().call_later(stay, self._drop, loaded)

    def __iter__(self) -> Iterator[Loaded]:
        """Models in memory, the one that stays longest first."""
        now = time.time()
        return iter(sorted(self.loaded.values(), key=lambda each: -(each.expires_at or now + each.keep_alive_s)))


class PinnedEngine(Engine):
    """The scheduler of a server that holds one model from its start to its end, and serves it under any name."""

    @property
    def model(self) -> SimModel:
        """The one model."""
        return next(iter(self.models.values()))

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return any(not each.loading for each in self.loaded.values())

    async def boot(self) -> None:
        """Load the model; until then every request is refused."""
        context = self.model.loaded_context
        await self._load(self.model, (context, ()), context)

    def find(self, name: str) -> SimModel | None:
        """The model, whatever was asked for."""
        return self.model if name is not None else None

    def slots_of(self, model: SimModel) -> int:
        """All slots, for embedding models too."""
        return self.config.slots if model.name else 1

    async def hold(self, model: SimModel, ask: Ask) -> Loaded:
        """The loaded model, or a Refusal while it loads."""
        loaded = self.loaded.get(model.layer)
        if loaded is None or loaded.loading:
            raise Refusal(503, "Loading model")
        if ask.prompt_tokens >= loaded.context:
            raise TooLong(ask.prompt_tokens, loaded.context)
        loaded.users += 1
        return loaded

    def release(self, loaded: Loaded) -> None:
        """End a `hold`; the model stays."""
        loaded.users -= 1


class TooLong(Refusal):
    """The prompt does not fit the context: tokens of both."""

    def __init__(self, tokens: int, context: int) -> None:
        text = f"request ({tokens} tokens) exceeds the available context size ({context} tokens), try increasing it"
        super().__init__(400, text)
        self.tokens = tokens
        self.context = context

"""The heartbeat contract between agent and router, versioned; this room is all that the two programs share.

Fields may be added; none is renamed or removed within a version, and unknown fields are ignored, so that an older
router takes a newer agent's heartbeat.
"""

import ipaddress
import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import to_json

from herd import __version__
from herd.core.names import canonical_name as canonical_name

VERSION = 1  # of the contract
RELEASE: Final = __version__  # of the program: the same file says it for router and agent
NODE_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

MOST_BYTES: Final = 2**20  # of one heartbeat
MOST_MODELS: Final = 512
MOST_LOADED: Final = 256
ENTRY_BYTES: Final = 4096  # of what an engine says of one model
# What clients read of an entry, and compute with: an entry of another shape would fail them, not the node.
ENTRY_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "name": str, "model": str, "id": str, "digest": str, "modified_at": str, "expires_at": str, "object": str,
    "owned_by": str, "size": (int, str), "size_vram": int, "context_length": int, "created": int,
    "details": dict, "meta": (dict, type(None)), "capabilities": list, "aliases": list, "tags": list,
}  # fmt: skip
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_PLACE = re.compile(
    rf"(?P<host>{_LABEL}(?:\.{_LABEL})*\.?|\[(?P<v6>[0-9A-Fa-f:.]+)(?:%[\w.-]+)?\])(?::(?P<port>[0-9]{{1,5}}))?"
)


def is_place(text: str, needs_port: bool = False) -> bool:
    """Whether a text is `host`, `host:port`, `[v6]` or `[v6]:port`, of a host that there can be."""
    found = _PLACE.fullmatch(text)
    if found is None or not 0 < int(found["port"] or (0 if needs_port else 1)) <= 65535:
        return False
    try:
        return found["v6"] is None or ipaddress.ip_address(found["v6"]).version == 6
    except ValueError:
        return False


def _engine_url(text: str) -> str:
    scheme, _, place = text.partition("://")
    if scheme not in {"http", "https"} or not is_place(place.removesuffix("/")):
        raise ValueError("must be http:// or https://, a host, a port, and nothing else")
    return text


def _address(text: str) -> str:
    if not is_place(text, needs_port=True):
        raise ValueError("must be a host and a port")
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable")
    return text


def _legible(text: str) -> str:
    return text if text.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in text)


def _entry(entry: dict[str, JsonValue]) -> dict[str, JsonValue]:
    for name, kind in ENTRY_TYPES.items():
        if name in entry and (not isinstance(entry[name], kind) or isinstance(entry[name], bool)):
            raise ValueError(f"its field {name} is of the wrong type")
    if len(to_json(entry)) > ENTRY_BYTES:
        raise ValueError(f"must be at most {ENTRY_BYTES} bytes")
    return entry


Pressure = Literal["normal", "warn", "critical"]
Bytes = Annotated[int, Field(ge=0, le=2**60)]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
Text = Annotated[str, Field(max_length=1024), AfterValidator(_legible)]
Version = Annotated[str, Field(max_length=64, pattern=r"^[!-~]( ?[!-~])*$")]
Entry = Annotated[dict[str, JsonValue], AfterValidator(_entry)]


class WireModel(BaseModel):
    """What all parts of a heartbeat share: unknown fields are ignored, infinities refused."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)


class Cpu(WireModel):
    """The processor: core count, utilisation 0..1, temperature in °C where it can be read."""

    cores: Annotated[int, Field(ge=1, le=4096)]
    utilization: Ratio = 0.0
    temperature_c: float | None = None
    throttled: bool = False


class Memory(WireModel):
    """Main memory in bytes; `pressure` as the operating system sees it."""

    total_bytes: Bytes
    used_bytes: Bytes
    available_bytes: Bytes
    swap_used_bytes: Bytes = 0
    pressure: Pressure = "normal"


class Disk(WireModel):
    """The disk that holds the models, in bytes."""

    total_bytes: Bytes
    free_bytes: Bytes


class Gpu(WireModel):
    """One accelerator; with Apple's unified memory the totals are those of the machine. `throttled`: heat slows it."""

    index: Annotated[int, Field(ge=0, le=255)] = 0
    name: Text = ""
    kind: Literal["nvidia", "amd", "apple", "other"] = "other"
    memory_total_bytes: Bytes
    memory_used_bytes: Bytes = 0
    utilization: Ratio | None = None
    temperature_c: float | None = None
    throttled: bool = False


class Model(WireModel):
    """A model on disk; `entry` is the engine's own listing of it, handed on to clients as it came."""

    name: Name
    size_bytes: Bytes = 0
    context_length: Annotated[int, Field(ge=1, le=2**31)] | None = None
    entry: Entry = {}


class LoadedModel(WireModel):
    """A model in memory; `context_length` in tokens, `expires_at` in unix seconds (None: stays)."""

    name: Name
    size_bytes: Bytes = 0
    vram_bytes: Bytes = 0
    context_length: Annotated[int, Field(ge=1, le=2**31)] | None = None
    expires_at: float | None = None
    entry: Entry = {}


class Engine(WireModel):
    """The inference server beside the agent: where it is, what it speaks, what it holds.

    `endpoints` are the request paths it serves; `slots` is how many requests it works on at once per model.
    `reachable` false says that it did not answer the agent, and `error` why.
    """

    kind: Literal["ollama", "llamacpp"]
    url: Annotated[str, Field(max_length=256), AfterValidator(_engine_url)]
    reachable: bool
    version: Version | None = None
    error: Text | None = None
    endpoints: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=64)]
    slots: Annotated[int, Field(ge=1, le=1024)] = 4
    models: Annotated[list[Model], Field(max_length=MOST_MODELS)] = []
    loaded: Annotated[list[LoadedModel], Field(max_length=MOST_LOADED)] = []


class Heartbeat(WireModel):
    """One node's word about itself, sent every `interval_s` and at once when something changes.

    `sent_at` is the node's clock in unix seconds; `leaving` says that no further heartbeat will come;
    `draining` that no new request should. `metrics_address` is where the agent's own metrics are, as `host:port`.
    """

    v: Annotated[int, Field(ge=1)] = VERSION
    node_id: Annotated[str, Field(pattern=NODE_ID_PATTERN)]
    agent_version: Version | None = None
    sent_at: float
    interval_s: Annotated[float, Field(gt=0, le=300)] = 5.0
    leaving: bool = False
    draining: bool = False
    cpu: Cpu
    memory: Memory
    disk: Disk | None = None
    gpus: Annotated[list[Gpu], Field(max_length=64)] = []
    engine: Engine
    metrics_address: Annotated[str, Field(max_length=256), AfterValidator(_address)] | None = None


class HeartbeatReply(WireModel):
    """The router's answer: who it is, and whether the operator wants this node drained."""

    v: int = VERSION
    router_version: str
    draining: bool = False


OLLAMA_ENDPOINTS = (
    "/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show", "/api/pull", "/api/create",
    "/api/copy", "/api/push", "/api/delete", "/api/blobs",
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages",
    "/api/me", "/api/status", "/v1/images/generations", "/v1/images/edits", "/v1/audio/transcriptions",
)  # fmt: skip
LLAMACPP_ENDPOINTS = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages",
    "/v1/messages/count_tokens", "/rerank", "/v1/rerank", "/v1/audio/transcriptions",
    "/props", "/tokenize", "/detokenize", "/apply-template",
)  # fmt: skip

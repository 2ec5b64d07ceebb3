"""What a request asks of the engine, read out of each dialect's body. Pure; the top-level types have been checked.

Equal prompts give equal texts in every dialect, so a model says the same whatever the client speaks.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from herd.sim.golang import GoError, duration_s
from herd.sim.words import count_tokens

RUNNER_OPTIONS = ("num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")
INTEGER_OPTIONS = ("num_ctx", "num_predict", "seed", "num_batch", "num_gpu", "main_gpu", "num_thread", "top_k")
NO_URLS = "image URLs are not currently supported, please use base64 encoded data instead"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to a model. `load_options` are those whose change makes Ollama reload; `text` is the whole prompt.

    `empty`: nothing to answer, only to load (or, with `keep_alive_s` 0, to unload). `inputs` are texts to embed.
    `bad_option` is an option's complaint, which Ollama makes only after it has found the model.
    """

    model: str
    text: str = ""
    prompt_tokens: int = 1
    stream: bool = False
    limit: int | None = None
    seed: int = 0
    schema: str | None = None
    tools: str | None = None
    images: int = 0
    think: bool | None = None
    think_level: str | None = None
    stop: tuple[str, ...] = ()
    keep_alive_s: float | None = None
    num_ctx: int | None = None
    load_options: tuple[tuple[str, str], ...] = ()
    bad_option: str | None = None
    empty: bool = False
    raw: bool = False
    truncate: bool = True
    include_usage: bool = False
    inputs: tuple[str, ...] = ()
    dimensions: int = 0
    base64: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages of any dialect as one text: `role: content` blocks, images counted."""

    text: str
    tokens: int
    images: int


def converse(messages: Iterable[Any], system: str = "") -> Conversation:
    """Flatten messages; their contents may be strings or lists of parts."""
    blocks: list[str] = [f"system: {system}"] if system else []
    images = 0
    for message in messages:
        if not isinstance(message, dict):
            raise GoError("invalid message format")
        text, pictures = _content(message.get("content"))
        blocks.append(f"{message.get('role', 'user')}: {text}")
        images += pictures + len(message.get("images") or ())
    whole = "\n\n".join(blocks)
    return Conversation(whole, count_tokens(whole, len(blocks), images), images)


def _content(content: Any) -> tuple[str, int]:
    if isinstance(content, str):
        return content, 0
    texts: list[str] = []
    images = 0
    for part in content or ():
        if not isinstance(part, dict):
            raise GoError("invalid message format")
        if part.get("type") in {"image_url", "image", "input_image"}:
            _check_image(part)
            images += 1
        elif part.get("type") == "tool_result":
            texts.append(_content(part.get("content"))[0])
        else:
            texts.append(str(part.get("text", "")))
    return "".join(texts), images


def _check_image(part: dict[str, Any]) -> None:
    url = part.get("image_url", "")
    url = url.get("url", "") if isinstance(url, dict) else url
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        raise GoError(NO_URLS)


def _options(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an Ask that come out of Ollama's `options`."""
    options = body.get("options") or {}
    for name in INTEGER_OPTIONS:
        value = options.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            return {"bad_option": f'option "{name}" must be of type integer'}
    stop = options.get("stop") or ()
    return {
        "limit": _whole(options.get("num_predict")),
        "seed": _whole(options.get("seed")) or 0,
        "num_ctx": _whole(options.get("num_ctx")),
        "stop": (stop,) if isinstance(stop, str) else tuple(str(each) for each in stop),
        "load_options": tuple(
            (name, json.dumps(options[name]))
            for name in RUNNER_OPTIONS
            if options.get(name) is not None and not (name == "num_gpu" and options[name] < 0)
        ),
    }


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _native(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that all of Ollama's own endpoints share."""
    keep_alive = body.get("keep_alive")
    return {
        "model": body.get("model") or "",
        "keep_alive_s": None if keep_alive is None else duration_s(keep_alive),
        "truncate": body.get("truncate") is not False,
        "body": body,
        **_options(body),
    }


def _format(value: Any) -> str | None:
    return None if value in (None, "") else json.dumps(value)


def _think(value: Any) -> dict[str, Any]:
    """The fields of an Ask that come out of `think`: a boolean, or a level that only some models know."""
    if value is None or isinstance(value, bool):
        return {"think": value}
    if value not in ("high", "medium", "low"):
        raise GoError('think must be a boolean or string ("high", "medium", "low", true, or false)')
    return {"think": True, "think_level": value}


def _functions(tools: Any) -> str | None:
    """Tools of any dialect as a JSON list of name and parameters."""
    found = []
    for tool in tools or ():
        function = tool.get("function") or tool if isinstance(tool, dict) else {}
        if "name" in function:
            schema = function.get("parameters") or function.get("input_schema") or {}
            found.append({"name": function["name"], "parameters": schema})
    return json.dumps(found) if found else None


def ollama_chat(body: Mapping[str, Any]) -> Ask:
    """`/api/chat`: streams unless told not to; no messages only loads."""
    messages = body.get("messages") or []
    talk = converse(messages)
    return Ask(
        **_native(body), text=talk.text, prompt_tokens=talk.tokens, images=talk.images, empty=not messages,
        stream=body.get("stream") is not False, schema=_format(body.get("format")), **_think(body.get("think")),
        tools=_functions(body.get("tools")),
    )  # fmt: skip


def ollama_generate(body: Mapping[str, Any]) -> Ask:
    """`/api/generate`: streams unless told not to; no prompt only loads."""
    prompt, images = body.get("prompt") or "", len(body.get("images") or ())
    talk = converse([{"role": "user", "content": prompt}], body.get("system") or "")
    return Ask(
        **_native(body), text=talk.text, prompt_tokens=talk.tokens + 256 * images, images=images, empty=not prompt,
        stream=body.get("stream") is not False, schema=_format(body.get("format")), **_think(body.get("think")),
        raw=bool(body.get("raw")),
    )  # fmt: skip


def ollama_embed(body: Mapping[str, Any]) -> Ask:
    """`/api/embed`: one text or a list of them."""
    given = body.get("input")
    texts = [given] if isinstance(given, str) and given else given or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise GoError("invalid input type")
    return Ask(**_native(body), inputs=tuple(texts), empty=not texts, dimensions=body.get("dimensions") or 0)


def ollama_embeddings(body: Mapping[str, Any]) -> Ask:
    """`/api/embeddings`: one text."""
    prompt = body.get("prompt") or ""
    return Ask(**_native(body), inputs=(prompt,), empty=not prompt)


def _openai(body: Mapping[str, Any], limit: str = "max_tokens") -> dict[str, Any]:
    """The fields that all generating OpenAI endpoints share; `keep_alive` and `options` are ignored there."""
    stop = body.get("stop") or ()
    return {
        "model": body.get("model") or "",
        "stream": body.get("stream") is True,
        "limit": body.get(limit),
        "seed": body.get("seed") or 0,
        "stop": (stop,) if isinstance(stop, str) else tuple(each for each in stop if isinstance(each, str)),
        "include_usage": bool((body.get("stream_options") or {}).get("include_usage")),
        "body": body,
    }


def _response_format(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    if value.get("type") == "json_object":
        return '"json"'
    schema = value.get("schema") or (value.get("json_schema") or {}).get("schema")
    return json.dumps(schema) if value.get("type") == "json_schema" and schema else None


def openai_chat(body: Mapping[str, Any]) -> Ask:
    """`/v1/chat/completions`."""
    talk = converse(body.get("messages") or ())
    effort = (body.get("reasoning") or {}).get("effort") or body.get("reasoning_effort")
    return Ask(
        **_openai(body), text=talk.text, prompt_tokens=talk.tokens, images=talk.images,
        schema=_response_format(body.get("response_format")), tools=_functions(body.get("tools")),
        **_think(False if effort == "none" else effort or None),
    )  # fmt: skip


def openai_completion(body: Mapping[str, Any]) -> Ask:
    """`/v1/completions`."""
    prompt = body.get("prompt") or ""
    talk = converse([{"role": "user", "content": prompt}])
    return Ask(**_openai(body), text=talk.text, prompt_tokens=talk.tokens, empty=not prompt)


def openai_embeddings(body: Mapping[str, Any]) -> Ask:
    """`/v1/embeddings`: one text or a list of them."""
    given, encoding = body.get("input"), (body.get("encoding_format") or "float").lower()
    if encoding not in ("float", "base64"):
        asked = body["encoding_format"]
        raise GoError(f"Invalid value for 'encoding_format' = {asked}. Supported values: ['float', 'base64'].")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise GoError("invalid input")
    return Ask(
        model=body.get("model") or "", inputs=tuple(str(text) for text in texts),
        dimensions=body.get("dimensions") or 0, base64=encoding == "base64", body=body,
    )  # fmt: skip


def openai_responses(body: Mapping[str, Any]) -> Ask:
    """`/v1/responses`: `input` is a string or a list of items; items without content are not said."""
    given = body.get("input") or ""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise GoError("input must be a string or array")
    messages = [
        {"role": "tool", "content": str(item["output"])} if "output" in item else item
        for item in items
        if isinstance(item, dict) and ("content" in item or "output" in item)
    ]
    talk = converse(messages, body.get("instructions") or "")
    return Ask(
        **_openai(body, "max_output_tokens"), text=talk.text, prompt_tokens=talk.tokens, images=talk.images,
        schema=_response_format((body.get("text") or {}).get("format")), tools=_functions(body.get("tools")),
    )  # fmt: skip


def anthropic_messages(body: Mapping[str, Any]) -> Ask:
    """`/v1/messages`."""
    system = body.get("system") or ""
    talk = converse(body.get("messages") or (), system if isinstance(system, str) else _content(system)[0])
    thinking = (body.get("thinking") or {}).get("type")
    return Ask(
        model=body.get("model") or "", stream=body.get("stream") is True, limit=body.get("max_tokens"),
        stop=tuple(body.get("stop_sequences") or ()), text=talk.text, prompt_tokens=talk.tokens, images=talk.images,
        tools=_functions(body.get("tools")), think=None if thinking is None else thinking == "enabled", body=body,
    )  # fmt: skip


Reader = Callable[[Mapping[str, Any]], Ask]

"""Whether a model's name has the form of Ollama's library: what a node could pull. It knows forms, not what exists."""

import re

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_OWNER = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"
# A first part with a dot would be a host, and a client has no business to name the host that a node downloads from.
# The library's own models have no first part: with `library/` before it, one would be listed without.
_NAME = re.compile(rf"(?!library/)(?:hf\.co/{_OWNER}/|{_OWNER}/)?(?P<model>{_WORD})(?::(?P<tag>{_WORD}))?")
_FILES = (".bin", ".ggml", ".gguf", ".json", ".onnx", ".pt", ".pth", ".safetensors", ".txt", ".yaml", ".yml")
_CLOUD = re.compile(r"(?:.*-)?cloud", re.IGNORECASE)


def is_library_name(name: str) -> bool:
    """Whether a name is `name[:tag]`, `namespace/name[:tag]` or `hf.co/owner/repository[:tag]`.

    Paths, files and other hosts are not; nor are the library's cloud models, of which a pull brings no more than the
    promise to send prompts out of the house.
    """
    found = _NAME.fullmatch(name)
    if found is None or ".." in name or found["model"].lower().endswith(_FILES):
        return False
    return not (found["tag"] and _CLOUD.fullmatch(found["tag"]))

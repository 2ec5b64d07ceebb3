"""Which models the operator calls as good as another: `llama3.3:70b = qwen2.5:72b; qwen3:8b = gemma3:12b`."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from herd.core.request import Request
from herd.wire import canonical_name


@lru_cache(maxsize=8)
def equivalents(text: str) -> Mapping[str, tuple[str, ...]]:
    """The alternatives of each model by canonical name; the settings table has checked the form."""
    rules = (rule.partition("=") for rule in text.split(";") if "=" in rule)
    return {
        canonical_name(model.strip()): tuple(canonical_name(name.strip()) for name in others.split(","))
        for model, _, others in rules
    }


def with_equivalents(request: Request, text: str) -> Request:
    """The request with the operator's alternatives as its fallbacks, unless its client named some itself."""
    if request.fallback_models or not text:
        return request
    return replace(request, fallback_models=equivalents(text).get(request.model, ()))

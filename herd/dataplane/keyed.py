"""What a key that is for some models may ask for. Pure. A body that names two models was refused when it was read."""

from herd.core.access import Caller
from herd.core.errors import Forbidden
from herd.core.request import Request


def check_models(caller: Caller, request: Request) -> None:
    """Raise Forbidden where a request names a model that its key is not for, as a fallback too."""
    for model in request.models:
        if not caller.may_use(model):
            allowed = ", ".join(caller.limits.models)
            raise Forbidden(f'the key "{caller.name}" may not use {model!r}, only {allowed}')

"""The settings' surface: all of them with where each value came from, and changes while the router runs."""

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from herd.core.errors import Forbidden
from herd.dataplane.document import object_in
from herd.routes.parameters import only_known
from herd.routes.surface import caller_of, surface_of
from herd.routes.tables import AsciiJSON
from herd.security.refusals import Refusal as Refused
from herd.settings.changes import Change, Refusal
from herd.settings.file import NotKept
from herd.settings.table import BY_NAME, NAME, TABLE, Setting, Value
from herd.settings.values import Settings

router = APIRouter(prefix="/dashboard/api", dependencies=[only_known])
Document = dict[str, Any]
TYPES: Final = {bool: "boolean", int: "integer", float: "number", str: "string"}
LOCAL: Final = frozenset(setting.name for setting in TABLE if setting.local)
NOT_KEPT: Final = "the environment or the command line sets it, and wins again at the next start"


@router.get("/settings")
async def settings(request: Request) -> Document:
    """All settings with value, default, source, type, bounds, and whether they can change at run time."""
    board = surface_of(request).switchboard
    return {"settings": [_row(setting, board.settings) for setting in TABLE], "file": str(board.path)}


@router.post("/settings")
async def change(request: Request) -> Response:
    """Change settings by name, all or none: `{"retries": 1}`. Saved across restarts. A wrong name or type is a 422."""
    board = surface_of(request).switchboard
    wanted = object_in(await request.body())  # its Content-Type does not matter
    if wanted is None:
        text = 'the body is one JSON object of settings by name, as {"retries": 1}'
        return JSONResponse({"error": text, "fields": []}, 422)
    if not caller_of(request).local and (local := [name for name in wanted if name in LOCAL]):
        return _only_here(request, local)
    try:
        changes = await board.change(wanted, request.client.host if request.client else None)
    except Refusal as refusal:
        problems = [{"field": name, "message": text} for name, text in refusal.problems.items()]
        return AsciiJSON({"error": str(refusal), "fields": problems}, 422)  # a name may hold a lone surrogate
    except NotKept as error:
        return JSONResponse({"error": f"nothing was changed: {error}"}, 503)
    return JSONResponse({"changed": {change.name: _told(change, board.settings) for change in changes}})


def _only_here(request: Request, names: list[str]) -> Response:
    """A 403 that is on record like that of any door."""
    error = Forbidden(f"only the router's own user on its machine may change {', '.join(names)}: there, or in {NAME}")
    client = request.client.host if request.client else ""
    surface_of(request).report(Refused("key", error, client, "POST", request.url.path, caller=caller_of(request)))
    fields = [{"field": name, "message": error.message} for name in names]
    return JSONResponse({"error": error.message, "fields": fields}, error.status)


def _row(setting: Setting, settings: Settings) -> Document:
    kind = type(setting.default)
    bounds = {"minimum": setting.minimum, "maximum": setting.maximum} if setting.is_number else {}
    return {
        "name": setting.name,
        "value": setting.shown(settings.values[setting.name]),
        "default": setting.default,
        "source": settings.sources[setting.name],
        "runtime": setting.runtime,
        "type": TYPES[kind],
        "choices": list(setting.choices),
        **bounds,
        "secret": setting.secret,
        "local": setting.local,
        "help": setting.help,
    }


def _told(change: Change, settings: Settings) -> Document:
    setting = BY_NAME[change.name]
    before: Value = setting.shown(change.before)
    source = settings.sources[change.name]
    told = {"before": before, "value": setting.shown(change.value), "source": source, "kept": change.kept}
    return told if change.kept else {**told, "note": NOT_KEPT}

"""The page's question what a change would do: `herd plan` with the recorded requests, made beside the router."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from herd.jobs.planner import Planner
from herd.routes.parameters import only_known
from herd.routes.surface import surface_of
from herd.routes.tables import AsciiJSON
from herd.store.answers import JSON

router = APIRouter(prefix="/dashboard/api", dependencies=[only_known])
Texts = Annotated[list[str], Query(max_length=8)]


@router.get("/plan")
async def plan(
    request: Request,
    add_node: Texts = [],  # noqa: B006 - read only, and the form that FastAPI knows
    remove_node: Texts = [],  # noqa: B006
    add_model: Texts = [],  # noqa: B006
    share: Annotated[float, Query(gt=0, le=1)] = 0.1,
    traffic: Annotated[float, Query(gt=0, le=100)] = 1.0,
    slots: Texts = [],  # noqa: B006
    days: Annotated[int, Query(ge=1, le=30)] = 1,
    limit: Annotated[int, Query(ge=20, le=20_000)] = 5000,
) -> Response:
    """The recorded requests simulated before and after a change, with the error of a back-test, as `herd plan` has it.

    `add_node` is like `RTX 3090, 24 GB`, `slots` a number or `NODE=NUMBER`. It takes seconds; one runs at a time.
    """
    named = {"add-node": add_node, "remove-node": remove_node, "add-model": add_model, "slots": slots}
    options = [f"--{name}={value}" for name, values in named.items() for value in values]
    options += [f"--share={share}", f"--since={days}d", f"--limit={limit}"]
    options += [f"--traffic={traffic:g}"] if traffic != 1.0 else []
    planner: Planner = surface_of(request).planner
    found = await planner.plan(options)
    if found.error:
        return AsciiJSON({"error": found.error}, found.status)
    return Response(found.body, found.status, media_type=JSON)

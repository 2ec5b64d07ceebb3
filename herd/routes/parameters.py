"""The parameters of a question: one that the endpoint does not have is an error, not a filter that filters nothing."""

from collections.abc import Iterator

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute


def names(dependant: Dependant) -> Iterator[str]:
    """The query parameters of an endpoint, those of what it depends on included."""
    yield from (parameter.alias for parameter in dependant.query_params)
    for each in dependant.dependencies:
        yield from names(each)


async def _only_known(request: Request) -> None:
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = list(names(route.dependant))
    there = f"there are {', '.join(sorted(known))}" if known else "this endpoint takes none"
    problems = [
        {"type": "unknown", "loc": ("query", name), "msg": f"no such parameter; {there}", "input": value}
        for name, value in request.query_params.items()
        if name not in known
    ]
    if problems:
        raise RequestValidationError(problems)


only_known = Depends(_only_known)

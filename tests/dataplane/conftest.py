"""The client of the data plane runs on the loop of the server, and on the one where there is no uvloop."""

import asyncio

import pytest
import uvloop


@pytest.hookimpl
def pytest_asyncio_loop_factories(config, item):
    """Both loops for the exchange, the usual one for everything else."""
    if item.path.name == "test_exchange.py":
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}

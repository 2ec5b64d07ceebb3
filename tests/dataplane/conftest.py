"""Which loop a test runs on: the exchange on the server's and the usual one, what waits for long in virtual time."""

import asyncio

import pytest
import uvloop

from tests.virtual_time import VirtualLoop

VIRTUAL = {"test_serve.py", "test_serve_ends.py", "test_relay.py", "test_flights.py", "test_manage.py"}


@pytest.hookimpl
def pytest_asyncio_loop_factories(config, item):
    """Both loops for the exchange, which runs on uvloop, and on the usual one where there is none."""
    if item.path.name == "test_exchange.py":
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    if item.path.name in VIRTUAL:
        return {"virtual": VirtualLoop}
    return {"asyncio": asyncio.new_event_loop}

"""Jobs wait for minutes and hours; their tests do so in virtual time."""

import pytest

from tests.virtual_time import VirtualLoop


@pytest.hookimpl
def pytest_asyncio_loop_factories(config, item):
    """Virtual time for all of them."""
    return {"virtual": VirtualLoop}

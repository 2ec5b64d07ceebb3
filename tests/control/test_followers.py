"""Those who hold a copy of a setting take a new one over; the rest is seen from outside in the end-to-end tests."""

import asyncio
import contextlib
import socket

import pytest

from herd.core.errors import ConnectTimeout
from herd.dataplane.exchange import Call, Upstream


@pytest.fixture
def full_server():
    """An address whose queue of connections is full, so that a further one is neither taken nor refused."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


async def test_connect_timeout_s_holds_for_the_next_connection(full_server):
    """A node that is switched off costs this long; the pools are made once and live as long as the router."""
    upstream = Upstream(60.0)
    try:
        upstream.set_connect_timeout(0.05)
        due_at = asyncio.get_running_loop().time() + 20
        with pytest.raises(ConnectTimeout):
            async with upstream.exchange(Call("GET", full_server), due_at):
                pass
    finally:
        await upstream.close()

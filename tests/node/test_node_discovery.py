"""How a router that nobody named is found, and what is not mistaken for one."""

import gc
import socket

import pytest
from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from node.discovery import SERVICE, find_router
from tests.node.servers import Router

HERE = ["127.0.0.1"]


@pytest.fixture
async def announce():
    """Announces services by multicast DNS on loopback."""
    zeroconf = AsyncZeroconf(interfaces=HERE)

    async def announced(name, port):
        address = socket.inet_aton("127.0.0.1")
        await zeroconf.async_register_service(ServiceInfo(SERVICE, f"{name}.{SERVICE}", port, addresses=[address]))

    yield announced
    await zeroconf.async_unregister_all_services()
    await zeroconf.async_close()


@pytest.fixture
async def stranger():
    """A server that has the router's paths and is not herd."""
    server = Router()
    server.service = "something else"
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def nobody():
    """A URL where nothing listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{closed.getsockname()[1]}"


async def test_a_router_on_this_machine_is_found_first(router):
    """One machine with both commands needs no network at all."""
    assert await find_router(router.url, interfaces=HERE) == router.url


async def test_another_server_on_the_routers_port_is_not_taken_for_it(stranger):
    """Heartbeats say much about a machine; they are not for whoever happens to listen."""
    assert await find_router(stranger.url, interfaces=HERE, browse_s=0.3) is None


async def test_a_router_on_the_network_is_found_by_its_announcement(announce, router, nobody):
    """The second machine needs no configuration either."""
    await announce("herd-test", router.port)
    assert await find_router(nobody, interfaces=HERE, browse_s=10) == router.url


async def test_an_announcement_by_another_server_is_passed_over(announce, router, stranger, nobody):
    """A stale or foreign announcement must not hide the real router."""
    await announce("a-stranger", stranger.port)
    await announce("herd-test", router.port)
    assert await find_router(nobody, interfaces=HERE, browse_s=10) == router.url


async def test_no_router_anywhere_is_none_within_the_time_given(nobody):
    """The agent goes on and asks again later."""
    assert await find_router(nobody, interfaces=HERE, browse_s=0.3) is None


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # zeroconf leaves its socket to the collector then
async def test_a_network_without_multicast_is_no_failure(nobody):
    """Containers and tunnels often have none."""
    assert await find_router(nobody, interfaces=["192.0.2.1"], browse_s=0.3) is None
    gc.collect()

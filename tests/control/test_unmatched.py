"""What no route takes, and what the router says of its own routes."""

from collections import Counter

import httpx
import pytest
import pytest_asyncio

from herd.app import Router
from herd.core.dialects import ENDPOINTS
from herd.settings.load import load

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENCE_S = 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory):
    """A router in this process of which only the recorder was started; what it asks of no other part works."""
    router = Router(load({"data_dir": str(tmp_path_factory.mktemp("router"))}, {}))
    await router.recorder.start(PATIENCE_S)
    transport = httpx.ASGITransport(router.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:11435") as asking:
        yield asking
    assert await router.recorder.close(PATIENCE_S)


@pytest.mark.parametrize(
    ("method", "path", "location"),
    [
        ("GET", "/api/tags/", "../tags"),
        ("POST", "/api/chat/?x=1&y=%20", "../chat?x=1&y=%20"),
        ("POST", "/v1/chat/completions/", "../completions"),
        ("GET", "/dashboard/", "../dashboard"),
    ],
)
async def test_a_slash_too_many_leads_to_the_path_beside_it(client, method, path, location):
    """An absolute address would name the scheme, host and path of the router, not of the proxy in front."""
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["location"]) == (307, location)
    assert answer.url.join(location).path == path.partition("?")[0].rstrip("/")


@pytest.mark.parametrize("path", ["/nope/", "/api/chat/nope/", "/api//"])
async def test_a_slash_behind_what_is_not_there_leads_nowhere(client, path):
    """A redirection to a 404 costs a client a request and its reader the cause."""
    assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/chat", "POST"),
        ("POST", "/api/tags", "GET, HEAD"),
        ("DELETE", "/dashboard/api/settings", "GET, POST"),
        ("GET", "/api/delete", "DELETE"),
        ("PATCH", "/api/blobs/sha256:0", "HEAD, POST"),
        ("PUT", "/v1/models", "GET"),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_answered_with_all_that_it_takes(client, method, path, allowed):
    """RFC 9110 asks for it, and a client that believes half of a list gives up."""
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


async def test_the_description_of_the_paths_is_whole_and_each_operation_has_an_id_of_its_own(client):
    """Generators of clients drop what comes twice, and nobody finds what is not there."""
    document = (await client.get("/openapi.json")).json()
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert Counter(each["operationId"] for each in operations).most_common(1)[0][1] == 1
    assert {*ENDPOINTS, "/api/pull", "/api/blobs/{digest}", "/dashboard/api/settings"} <= set(document["paths"])
    assert all("default" in each["responses"] for each in operations)

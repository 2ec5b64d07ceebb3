"""What a client of a real engine receives by way of the router is what the engine sent."""

import pytest

from tests.real.asks import ASKS, NODE_OF, comparable, post

pytestmark = pytest.mark.real


def server_of(fleet, model):
    return fleet.ollama if NODE_OF[model] == "olla" else fleet.llamas[NODE_OF[model]]


def answer(url, model, ask):
    # llama.cpp's prompt cache would count the second asking differently.
    more = {} if ask.path.startswith("/api/") else {"cache_prompt": False}
    return post(url, ask.path, model, **ask.body, **more)


@pytest.mark.parametrize(("model", "ask"), ASKS, ids=str)
def test_an_answer_by_way_of_the_router_is_byte_for_byte_the_engines(fleet, model, ask):
    """Nothing dropped, nothing translated, nothing re-encoded: the promise to a client, kept with real servers."""
    direct = answer(server_of(fleet, model).url, model, ask)
    routed = answer(fleet.url, model, ask)
    assert direct.status_code == routed.status_code == 200, direct.text
    assert comparable(routed.content) == comparable(direct.content)
    assert routed.headers["content-type"] == direct.headers["content-type"]
    assert routed.headers["x-herd-node"] == NODE_OF[model]

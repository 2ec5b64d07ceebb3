"""Context protection with a real Ollama: a num_ctx that it need not heed must not make it load the model anew."""

import json

import pytest

from tests.harness import until
from tests.real.asks import TALK, post
from tests.real.test_real_agents import loaded

pytestmark = pytest.mark.real
DEFAULT = 2048


@pytest.fixture
def guarded(fleet, request):
    """A model of the test's own that is loaded with its default context; the router knows it."""
    name = "ctx-" + format(abs(hash(request.node.name)), "x")[:8]
    fleet.ollama.create(name, fleet.tiny, f"PARAMETER num_ctx {DEFAULT}", "PARAMETER num_thread 1")
    for other in fleet.ollama.loaded():  # of the same weights: it would serve this one, too, under its own name
        post(fleet.ollama.url, "/api/generate", other, keep_alive=0)
    until(lambda: not fleet.ollama.loaded(), "nothing is loaded")
    post(fleet.ollama.url, "/api/generate", name)
    until(lambda: loaded(fleet, "olla").get(f"{name}:latest") == DEFAULT, "the router knows the loaded context")
    yield name
    post(fleet.ollama.url, "/api/generate", name, keep_alive=0)


def ask(fleet, model, num_ctx=None):
    options = {"num_predict": 2, **({"num_ctx": num_ctx} if num_ctx else {})}
    answer = post(fleet.url, "/api/chat", model, messages=TALK, stream=False, options=options)
    assert answer.json()["done"]
    fleet.router.row(answer.headers["x-request-id"])
    return answer


def actions(fleet, model):
    """What context protection did for a model, oldest first."""
    return [json.loads(event["data"])["action"] for event in events(fleet, model)]


def events(fleet, model):
    return [event for event in fleet.events("context_protection") if event["model"] == f"{model}:latest"]


@pytest.mark.parametrize("num_ctx", [512, 1024, DEFAULT])
def test_a_num_ctx_that_fits_does_not_reload_the_model(fleet, guarded, num_ctx):
    """Tens of seconds with a real model, for a context that the loaded one serves as well."""
    runners = fleet.ollama.runners()
    ask(fleet, guarded, num_ctx)
    assert fleet.ollama.runners() == runners
    assert fleet.ollama.loaded()[f"{guarded}:latest"] == DEFAULT
    until(lambda: actions(fleet, guarded) == ([] if num_ctx == DEFAULT else ["stripped"]), "it is on record")


def test_without_the_router_the_same_num_ctx_does_reload_it(fleet, guarded):
    """The proof that the test above tests something."""
    runners = fleet.ollama.runners()
    post(fleet.ollama.url, "/api/chat", guarded, messages=TALK, options={"num_predict": 2, "num_ctx": 512})
    assert fleet.ollama.runners() != runners
    assert fleet.ollama.loaded()[f"{guarded}:latest"] == 512


def test_a_num_ctx_that_does_not_fit_is_passed_on_and_warned_of(fleet, guarded):
    """The answer may need it; that it costs a reload is on record."""
    ask(fleet, guarded, 4096)
    assert fleet.ollama.loaded()[f"{guarded}:latest"] == 4096
    until(lambda: actions(fleet, guarded) == ["warned"], "it is on record")


def test_a_num_ctx_that_fits_a_context_loaded_on_request_does_not_reload_the_model(fleet, guarded):
    """Ollama takes a request without num_ctx for one with the default; what is loaded must be named to be kept."""
    ask(fleet, guarded, 4096)
    until(lambda: loaded(fleet, "olla").get(f"{guarded}:latest") == 4096, "the router knows the larger context")
    runners = fleet.ollama.runners()
    ask(fleet, guarded, 1024)
    assert fleet.ollama.runners() == runners


def test_a_model_that_is_loaded_under_another_of_its_names_is_warm_and_costs_no_load(fleet, guarded):
    """`ollama cp` makes a second name, not a second model."""
    post(fleet.url, "/api/copy", guarded, source=guarded, destination=f"{guarded}-copy")
    runners = fleet.ollama.runners()
    answer = ask(fleet, f"{guarded}-copy", 512)
    assert fleet.ollama.runners() == runners
    row = fleet.router.row(answer.headers["x-request-id"])
    assert json.loads(row["scores_breakdown"])["thermal"] == 50
    assert actions(fleet, f"{guarded}-copy") == ["stripped"]

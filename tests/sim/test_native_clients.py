"""The official Ollama client against a simulated node."""

import asyncio

import ollama
import pytest

from herd.sim import SimModel
from tests.sim.conftest import ASK_WEATHER, GEMMA, HELLO, LLAMA, PIXEL, WEATHER


@pytest.fixture
async def client(node):
    client = ollama.AsyncClient(host=node.url)
    yield client
    await client._client.aclose()


async def test_chat_streams_what_it_also_says_whole(client):
    """A stream is the same answer in pieces, or a test with one would not hold for the other."""
    whole = await client.chat("llama3.2:3b", HELLO)
    parts = [part async for part in await client.chat("llama3.2:3b", HELLO, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == whole.eval_count == len(parts)


async def test_generate_streams_what_it_also_says_whole_and_gives_a_context(client):
    """The older endpoint is still what many tools speak."""
    whole = await client.generate("llama3.2:3b", "Say hello")
    parts = [part async for part in await client.generate("llama3.2:3b", "Say hello", stream=True)]
    assert "".join(part.response for part in parts) == whole.response
    assert len(whole.context) == whole.prompt_eval_count + whole.eval_count


async def test_the_synchronous_client_works_too(node):
    """Most scripts are synchronous."""

    def ask():
        client = ollama.Client(host=node.url)
        answer = client.chat("llama3.2:3b", HELLO)
        parts = list(client.generate("llama3.2:3b", "Say hello", stream=True))
        client._client.close()
        return answer, parts

    answer, parts = await asyncio.to_thread(ask)
    assert answer.message.content
    assert parts[-1].done


async def test_num_predict_ends_an_answer_with_length(client):
    """A router must tell a cut answer from a finished one."""
    answer = await client.chat("llama3.2:3b", HELLO, options={"num_predict": 3})
    assert (answer.done_reason, answer.eval_count) == ("length", 3)


async def test_a_stop_sequence_is_not_part_of_the_answer(client):
    """Stop sequences cut in the middle of tokens."""
    whole = (await client.generate("llama3.2:3b", "Say hello")).response
    stop = whole[10:14]
    cut = await client.generate("llama3.2:3b", "Say hello", options={"stop": [stop]})
    assert cut.response == whole[: whole.index(stop)]
    assert cut.done_reason == "stop"


async def test_a_thinking_model_thinks_first_and_can_be_told_not_to(client):
    """Time to first token counts thinking: it has to come as its own frames, before the content."""
    parts = [part async for part in await client.chat("qwen3:8b", HELLO, stream=True)]
    thoughts = [bool(part.message.thinking) for part in parts[:-1]]
    assert thoughts == sorted(thoughts, reverse=True)
    assert thoughts[0]
    assert not thoughts[-1]
    plain = await client.chat("qwen3:8b", HELLO, think=False)
    assert not plain.message.thinking


async def test_a_tool_is_called_when_it_is_asked_for_and_only_then(client):
    """Tool calls come without any content, in one frame."""
    called = await client.chat("llama3.2:3b", ASK_WEATHER, tools=[WEATHER])
    assert called.message.tool_calls[0].function.name == "get_weather"
    assert set(called.message.tool_calls[0].function.arguments) == {"city"}
    assert called.message.content == ""
    plain = await client.chat("llama3.2:3b", HELLO, tools=[WEATHER])
    assert not plain.message.tool_calls
    after = [*ASK_WEATHER, {"role": "tool", "content": "The weather is 12 degrees"}]
    assert (await client.chat("llama3.2:3b", after, tools=[WEATHER])).message.content


async def test_format_json_and_a_schema_give_json(client):
    """Structured output is what applications parse."""
    schema = {"type": "object", "properties": {"age": {"type": "integer"}, "ok": {"type": "boolean"}}}
    free = await client.chat("llama3.2:3b", HELLO, format="json")
    bound = await client.generate("llama3.2:3b", "Say hello", format=schema)
    assert free.message.content.startswith("{")
    assert '"age": ' in bound.response
    assert '"ok": ' in bound.response


async def test_images_are_refused_by_a_model_that_lost_its_eyes_and_ignored_by_one_without(start):
    """A real Ollama refuses only where the model's family has eyes; a client of a text model is told nothing."""
    blind = SimModel("gemma3:1b", family="gemma3", capabilities=("completion",))
    node = await start(models=(GEMMA, LLAMA, blind))
    client = ollama.AsyncClient(host=node.url)
    seen = [{"role": "user", "content": "What is this?", "images": [PIXEL]}]
    assert (await client.chat("gemma3:4b", seen)).message.content
    assert (await client.chat("llama3.2:3b", seen)).message.content
    with pytest.raises(ollama.ResponseError, match="missing data required for image input"):
        await client.chat("gemma3:1b", seen)
    await client._client.aclose()


async def test_embeddings_are_of_unit_length_and_as_many_as_asked(client):
    """The batch endpoint normalises, the older one does not."""
    answer = await client.embed("nomic-embed-text", ["one", "two"], dimensions=64)
    assert [len(each) for each in answer.embeddings] == [64, 64]
    assert sum(value * value for value in answer.embeddings[0]) == pytest.approx(1, abs=1e-4)
    old = await client.embeddings("nomic-embed-text", "one")
    assert sum(value * value for value in old.embedding) > 2


async def test_models_are_listed_shown_copied_and_deleted(client):
    """Management goes through the router too."""
    assert next(model.model for model in (await client.list()).models) == "llama3.2:3b"
    shown = await client.show("nomic-embed-text")
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo["nomic-bert.context_length"] == 131_072
    await client.copy("llama3.2:3b", "mine")
    assert "mine:latest" in [model.model for model in (await client.list()).models]
    await client.delete("mine")
    assert "mine:latest" not in [model.model for model in (await client.list()).models]


async def test_a_pull_reports_progress_and_adds_the_model(client):
    """A pull is the only way in which a fleet grows by itself."""
    steps = [step async for step in await client.pull("mistral:7b", stream=True)]
    assert [steps[0].status, steps[-1].status] == ["pulling manifest", "success"]
    done = [step.completed or 0 for step in steps if step.digest]
    assert done == sorted(done)
    assert done[-1] == steps[1].total
    assert "mistral:7b" in [model.model for model in (await client.list()).models]


async def test_pulling_what_no_registry_has_is_an_error_under_status_200(client):
    """The error comes after the first progress line, so the status cannot tell."""
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        async for _ in await client.pull("nonexistent:1b", stream=True):
            pass


async def test_a_model_is_created_from_another(client):
    """`ollama create` with a FROM is how people set a context of their own."""
    assert (await client.create("long", from_="llama3.2:3b", parameters={"num_ctx": 8192})).status == "success"
    await client.generate("long", "Say hello")
    assert [(each.model, each.context_length) for each in (await client.ps()).models] == [("long:latest", 8192)]


async def test_an_empty_prompt_loads_and_keep_alive_0_unloads(client):
    """Operators warm and free machines with exactly these two requests."""
    loaded = await client.generate("llama3.2:3b", "")
    assert (loaded.done_reason, loaded.response) == ("load", "")
    assert [each.model for each in (await client.ps()).models] == ["llama3.2:3b"]
    unloaded = await client.chat("llama3.2:3b", [], keep_alive=0)
    assert unloaded.done_reason == "unload"
    assert not (await client.ps()).models


async def test_an_unknown_model_is_a_404_in_ollamas_words(client):
    """Clients match on these words to offer a pull."""
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as caught:
        await client.chat("nope", HELLO)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match='model "nope" not found, try pulling it first'):
        await client.embed("nope", "x")

"""The official clients drive real engines by way of the router and notice nothing but the address."""

import base64

import anthropic
import ollama
import openai
import pytest

from tests.e2e.test_clients import PIXEL, PROMPT, TOOL
from tests.harness import until

pytestmark = pytest.mark.real
BRIEF = {"temperature": 0, "num_predict": 8}
BRIEFLY = {"max_tokens": 8, "extra_body": {"temperature": 0}}  # else an answer may end before its first word
ENGINES = ["solo", "cpp"]


def test_ollamas_client_chats_and_generates_whole_and_streamed(native):
    """The same words both ways, and the numbers that Ollama measured."""
    whole = native.chat("solo", PROMPT, options=BRIEF)
    parts = list(native.chat("solo", PROMPT, stream=True, options=BRIEF))
    assert whole.message.content == "".join(part.message.content or "" for part in parts) != ""
    assert (whole.done_reason, whole.eval_count, parts[-1].eval_count) == ("length", 8, 8)
    once = native.generate("solo", "Once", options=BRIEF)
    streamed = native.generate("solo", "Once", stream=True, options=BRIEF)
    assert once.response == "".join(part.response for part in streamed) != ""
    assert native.chat("solo", PROMPT).done_reason == "stop"


def test_ollamas_client_embeds_lists_shows_and_sees_what_is_loaded(native):
    """Tools look around before they ask; a llama.cpp server in the fleet must not break their lists."""
    assert [len(vector) for vector in native.embed("solo", ["a", "b"]).embeddings] == [64, 64]
    assert len(native.embeddings("solo", "a").embedding) == 64
    listed = {model.model: model for model in native.list().models}
    assert {"solo:latest", "tiny:latest", "slow:latest", "cpp"} <= set(listed)
    assert (listed["solo:latest"].details.family, listed["solo:latest"].details.quantization_level) == ("llama", "F16")
    shown = native.show("solo")
    assert (shown.modelinfo["llama.context_length"], shown.capabilities) == (8192, ["completion"])
    until(lambda: "solo:latest" in [model.model for model in native.ps().models], "what embedded is seen as loaded")
    running = {model.model: model for model in native.ps().models}
    assert (running["solo:latest"].context_length, "cpp" in running) == (2048, True)


def test_ollamas_client_gets_json_when_it_asks_for_it(native):
    """The engine's grammar is switched on by a field that must survive the way."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    answer = native.chat("solo", PROMPT, format=schema, options={"temperature": 0, "num_predict": 200})
    assert answer.message.content.strip().startswith("{")
    assert '"ok"' in answer.message.content
    assert native.generate("solo", "x", format="json", options=BRIEF).response.strip()[:1] in {"", "{"}


def test_ollama_takes_a_picture_for_a_text_model_and_looks_away(native):
    """What an engine does with a picture is its own decision, here to ignore it."""
    seen = native.chat("solo", [{"role": "user", "content": "What is this?", "images": [PIXEL]}], options=BRIEF)
    assert seen.message.content


def test_ollamas_client_manages_models_through_the_router(native, fleet):
    """Create, copy and delete go to a node that can do it, and the fleet's list follows."""
    assert native.create("derived", from_="solo", system="Be brief.").status == "success"
    native.copy("derived", "copied")
    assert "Be brief." in native.show("copied").modelfile
    for name in ("derived", "copied"):
        assert native.delete(name).status == "success"
    direct = ollama.Client(host=fleet.ollama.url)
    assert not {"derived:latest", "copied:latest"} & {model.model for model in direct.list().models}
    direct._client.close()


def test_ollamas_client_is_told_of_an_unknown_model_and_of_what_a_model_cannot(native):
    """Clients match on these words, herd's own and the engine's."""
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as unknown:
        native.chat("nope", PROMPT)
    with pytest.raises(ollama.ResponseError, match="does not support thinking") as unable:
        native.chat("solo", PROMPT, think=True)
    assert (unknown.value.status_code, unable.value.status_code) == (404, 400)


async def test_ollamas_asynchronous_client_works_as_well(fleet):
    """Applications are asynchronous."""
    client = ollama.AsyncClient(host=fleet.url)
    parts = [part async for part in await client.chat("solo", PROMPT, stream=True, options=BRIEF)]
    whole = await client.chat("solo", PROMPT, options=BRIEF)
    assert whole.message.content == "".join(part.message.content or "" for part in parts)
    assert (await client.generate("solo", "Once", options=BRIEF)).eval_count == 8
    assert (await client.embed("solo", "a")).prompt_eval_count
    assert (await client.list()).models
    assert (await client.ps()).models
    await client._client.aclose()


@pytest.mark.parametrize("model", ENGINES)
def test_openais_client_chats_completes_and_responds_whole_and_streamed(compatible, model):
    """The dialect that every library speaks, on both engines."""
    ask = {"model": model, "messages": PROMPT, "max_tokens": 8, "temperature": 0}
    whole = compatible.chat.completions.create(**ask)
    chunks = list(compatible.chat.completions.create(**ask, stream=True))
    assert whole.choices[0].message.content == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert (whole.usage.completion_tokens, chunks[-1].choices[0].finish_reason) == (8, "length")
    once = {"model": model, "prompt": "Once", "max_tokens": 8, "temperature": 0}
    streamed = compatible.completions.create(**once, stream=True)
    assert compatible.completions.create(**once).choices[0].text == "".join(part.choices[0].text for part in streamed)
    respond = {"model": model, "input": "Once", "max_output_tokens": 8, "temperature": 0}
    events = list(compatible.responses.create(**respond, stream=True))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert compatible.responses.create(**respond).output_text


@pytest.mark.parametrize("model", ENGINES)
def test_openais_client_sees_usage_in_a_stream_only_if_it_asked(compatible, model):
    """Herd asks the engine for it on its own account; the extra chunk is not the client's business."""
    ask = {"model": model, "messages": PROMPT, "max_tokens": 8, "temperature": 0, "stream": True}
    assert all(chunk.choices and chunk.usage is None for chunk in compatible.chat.completions.create(**ask))
    asked = list(compatible.chat.completions.create(**ask, stream_options={"include_usage": True}))
    assert asked[-1].usage.completion_tokens == 8


@pytest.mark.parametrize("model", ENGINES)
def test_openais_client_gets_embeddings_json_and_lists(compatible, model):
    """The rest of the dialect."""
    assert len(compatible.embeddings.create(model=model, input=["a", "b"]).data) == 2
    answer = compatible.chat.completions.create(
        model=model, messages=PROMPT, max_tokens=8, temperature=0, response_format={"type": "json_object"}
    )
    assert answer.choices[0].message.content.strip()[:1] in {"", "{"}
    assert {"solo:latest", "cpp"} <= {listed.id for listed in compatible.models.list()}
    assert compatible.models.retrieve(model).id == model


def test_openais_client_is_refused_a_picture_as_the_engine_refuses_it(compatible):
    """llama.cpp says what it lacks; Ollama takes the picture and ignores it."""
    url = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    ask = {"messages": [{"role": "user", "content": parts}], "max_tokens": 8, "temperature": 0}
    assert compatible.chat.completions.create(model="solo", **ask).choices[0].message.content
    with pytest.raises(openai.InternalServerError, match="image input is not supported"):
        compatible.chat.completions.create(model="cpp", **ask)


def test_openais_client_is_told_of_unknown_models_tools_and_long_prompts_in_its_own_errors(compatible):
    """openai-python raises by status and shape, whoever found the mistake."""
    ask = compatible.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
        ask(model="nope", messages=PROMPT)
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        ask(model="solo", messages=PROMPT, tools=[TOOL])
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        ask(model="cpp", messages=[{"role": "user", "content": "x" * 9000}], stream=True)


async def test_openais_asynchronous_client_works_as_well(fleet):
    """Applications are asynchronous."""
    async with openai.AsyncOpenAI(base_url=fleet.url + "/v1", api_key="any", max_retries=0) as client:
        for model in ENGINES:
            ask = {"model": model, "messages": PROMPT, "max_tokens": 8, "temperature": 0}
            stream = await client.chat.completions.create(**ask, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            assert (await client.chat.completions.create(**ask)).choices[0].message.content == text
            events = [e.type async for e in await client.responses.create(model=model, input="Hi", stream=True)]
            assert events[-1] == "response.completed"


@pytest.mark.parametrize("model", ENGINES)
def test_anthropics_client_answers_whole_and_streamed(fleet, model):
    """Coding assistants speak this dialect, and both engines understand it."""
    with anthropic.Anthropic(base_url=fleet.url, api_key="any", max_retries=0) as client:
        ask = {"model": model, "messages": PROMPT, **BRIEFLY}
        whole = client.messages.create(**ask)
        with client.messages.stream(**ask) as stream:
            text = "".join(stream.text_stream)
            last = stream.get_final_message()
        with pytest.raises(anthropic.NotFoundError, match="model 'nope' not found"):
            client.messages.create(**{**ask, "model": "nope"})
    assert whole.content[0].text == text
    assert (last.stop_reason, whole.usage.output_tokens, last.usage.output_tokens) == ("max_tokens", 8, 8)


async def test_anthropics_asynchronous_client_works_as_well(fleet):
    """Applications are asynchronous."""
    async with anthropic.AsyncAnthropic(base_url=fleet.url, api_key="any", max_retries=0) as client:
        for model in ENGINES:
            async with client.messages.stream(**BRIEFLY, model=model, messages=PROMPT) as stream:
                assert "".join([text async for text in stream.text_stream])

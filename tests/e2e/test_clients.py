"""The official clients drive the router; whoever uses them must notice nothing but the address."""

import base64

import anthropic
import httpx
import ollama
import openai
import pytest

PROMPT = [{"role": "user", "content": "Say hello to the herd."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL_A_TOOL = [{"role": "user", "content": "Use the weather tool: what is the weather in Oslo?"}]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_ollama_chat_and_generate_answer_whole_and_streamed(native):
    """The two ways in which most people ask."""
    whole = native.chat("llama3.2:3b", PROMPT)
    parts = list(native.chat("llama3.2:3b", PROMPT, stream=True))
    assert whole.message.content == "".join(part.message.content or "" for part in parts)
    assert whole.done_reason == parts[-1].done_reason == "stop"
    assert native.generate("llama3.2:3b", "Once").response == "".join(
        part.response for part in native.generate("llama3.2:3b", "Once", stream=True)
    )


def test_ollama_embeds_lists_shows_and_tells_what_is_loaded(native):
    """Tools look around before they ask."""
    assert len(native.embed("nomic-embed-text", ["a", "b"]).embeddings) == 2
    assert len(native.embeddings("nomic-embed-text", "a").embedding) > 10
    assert "qwen3:8b" in [model.model for model in native.list().models]
    assert native.show("qwen3:8b").details.family == "qwen3"
    assert "llama3.3:70b" in [model.model for model in native.ps().models]


def test_ollama_tools_json_thinking_and_images_pass_through(native):
    """What is special about a request must survive the router."""
    assert native.chat("llama3.2:3b", CALL_A_TOOL, tools=[TOOL]).message.tool_calls
    assert (native.chat("llama3.2:3b", PROMPT, format="json").message.content or "").startswith("{")
    assert native.chat("qwen3:8b", PROMPT, think=True).message.thinking
    seen = native.chat("gemma3:4b", [{"role": "user", "content": "What is this?", "images": [PIXEL]}])
    assert seen.message.content


def test_ollamas_error_for_an_unknown_model_is_its_own(native):
    """Clients match on these words to offer a pull."""
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as caught:
        native.chat("nope", PROMPT)
    assert caught.value.status_code == 404


async def test_the_asynchronous_ollama_client_works_as_well(fleet):
    """Applications are asynchronous."""
    client = ollama.AsyncClient(host=fleet.url)
    parts = [part async for part in await client.chat("llama3.2:3b", PROMPT, stream=True)]
    assert parts[-1].done
    assert (await client.generate("llama3.2:3b", "Once")).response
    assert (await client.list()).models
    await client._client.aclose()


def test_openai_chat_answers_whole_and_streamed(compatible):
    """The dialect that every library speaks."""
    whole = compatible.chat.completions.create(model="llama3.2:3b", messages=PROMPT)
    chunks = list(compatible.chat.completions.create(model="llama3.2:3b", messages=PROMPT, stream=True))
    assert whole.choices[0].message.content == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens > 0


def test_openai_usage_comes_in_a_stream_to_whoever_asked_and_to_no_one_else(compatible):
    """The chunk without choices that herd asks for on its own account crashes clients that do not expect it."""
    options = {"model": "llama3.2:3b", "messages": PROMPT, "stream": True}
    asked = list(compatible.chat.completions.create(**options, stream_options={"include_usage": True}))
    assert asked[-1].usage.completion_tokens > 0
    assert all(chunk.choices for chunk in compatible.chat.completions.create(**options))


def test_openai_tools_json_images_embeddings_completions_and_responses_pass_through(compatible):
    """The rest of the dialect."""
    ask = compatible.chat.completions.create
    assert ask(model="llama3.2:3b", messages=CALL_A_TOOL, tools=[TOOL]).choices[0].message.tool_calls
    as_json = ask(model="llama3.2:3b", messages=PROMPT, response_format={"type": "json_object"})
    assert as_json.choices[0].message.content.startswith("{")
    url = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    assert ask(model="gemma3:4b", messages=[{"role": "user", "content": parts}]).choices[0].message.content
    assert len(compatible.embeddings.create(model="nomic-embed-text", input=["a", "b"]).data) == 2
    assert compatible.completions.create(model="llama3.2:3b", prompt="Once").choices[0].text
    assert compatible.responses.create(model="llama3.2:3b", input="Hello").output_text
    assert "qwen3:8b" in [model.id for model in compatible.models.list()]


def test_openais_error_for_an_unknown_model_is_its_not_found(compatible):
    """openai-python raises by status and shape."""
    with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
        compatible.chat.completions.create(model="nope", messages=PROMPT)


async def test_the_asynchronous_openai_client_works_as_well(fleet):
    """Applications are asynchronous."""
    async with openai.AsyncOpenAI(base_url=fleet.url + "/v1", api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(model="llama3.2:3b", messages=PROMPT, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        answer = await client.responses.create(model="llama3.2:3b", input="Hi", stream=True)
        events = [event.type async for event in answer]
    assert text
    assert events[-1] == "response.completed"


def test_anthropics_client_answers_whole_and_streamed(fleet):
    """Coding assistants speak this dialect."""
    with anthropic.Anthropic(base_url=fleet.url, api_key="any", max_retries=0) as client:
        ask = {"model": "llama3.2:3b", "max_tokens": 60, "messages": PROMPT}
        whole = client.messages.create(**ask)
        with client.messages.stream(**ask) as stream:
            text = "".join(stream.text_stream)
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**{**ask, "model": "nope"})
    assert whole.content[0].text == text
    assert whole.usage.output_tokens > 0


def test_models_can_be_pulled_copied_and_deleted_through_the_router(fleet, native):
    """An operator manages the fleet from one address."""

    def names():
        return [model["name"] for model in httpx.get(fleet.url + "/api/tags").json()["models"]]

    native.copy("llama3.2:3b", "mine")
    assert "mine:latest" in names()
    assert native.show("mine").details.family == "llama"
    native.delete("mine")
    assert "mine:latest" not in names()
    progress = list(native.pull("llama3.2:3b", stream=True))
    assert progress[-1].status == "success"

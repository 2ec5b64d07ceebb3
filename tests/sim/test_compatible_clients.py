"""The official OpenAI and Anthropic clients against simulated Ollamas and a simulated llama.cpp server."""

import asyncio
import base64
import json
import struct

import anthropic
import openai
import pytest

from tests.sim.conftest import ASK_WEATHER, HELLO, LLAMA, NOMIC, PIXEL, QWEN, WEATHER, until

CLAUDE_WEATHER = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}


@pytest.fixture(params=["ollama", "llamacpp"])
async def served(request, start):
    """A thinking model on each engine."""
    node = await start(engine=request.param, models=(QWEN,), frozen_time=True)
    await until(lambda: request.param == "ollama" or node.engine.ready, "the model is loaded")
    return node


def speak(node):
    return openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="any", max_retries=0)


def speak_claude(node):
    return anthropic.AsyncAnthropic(base_url=node.url, api_key="any", max_retries=0)


async def test_openai_chat_answers_whole_and_streamed_with_usage(served):
    """The commonest dialect of all; usage comes in a chunk of its own without choices."""
    async with speak(served) as client:
        whole = await client.chat.completions.create(model="qwen3:8b", messages=HELLO)
        stream = await client.chat.completions.create(
            model="qwen3:8b", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], whole.usage.total_tokens)


async def test_openai_streams_without_usage_unless_it_is_asked_for(served):
    """A router that asks on its own account must take the extra chunk out again."""
    async with speak(served) as client:
        stream = await client.chat.completions.create(model="qwen3:8b", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_each_engine_names_its_reasoning_differently(served):
    """A tap that knew one name only would measure the first token of the other too late."""
    field = "reasoning" if served.config.engine == "ollama" else "reasoning_content"
    async with speak(served) as client:
        whole = await client.chat.completions.create(model="qwen3:8b", messages=HELLO)
    assert whole.choices[0].message.model_extra[field].startswith("let me think")


async def test_openai_tools_are_called_in_a_stream_and_without_one(served):
    """Arguments are a string of JSON, in pieces on llama.cpp."""
    async with speak(served) as client:
        asked = {"model": "qwen3:8b", "messages": ASK_WEATHER, "tools": [WEATHER]}
        whole = await client.chat.completions.create(**asked)
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
    call = whole.choices[0].message.tool_calls[0].function
    parts = [each for chunk in chunks for each in (chunk.choices[0].delta.tool_calls or ())]
    assert parts[0].function.name == call.name == "get_weather"
    assert "".join(part.function.arguments for part in parts) == call.arguments
    assert set(json.loads(call.arguments)) == {"city"}
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "tool_calls"


async def test_openai_completions_and_max_tokens(served):
    """The oldest endpoint is what code completion still uses."""
    async with speak(served) as client:
        whole = await client.completions.create(model="qwen3:8b", prompt="Say hello", max_tokens=24)
        stream = await client.completions.create(model="qwen3:8b", prompt="Say hello", max_tokens=24, stream=True)
        chunks = [chunk async for chunk in stream]
    assert (whole.choices[0].finish_reason, whole.usage.completion_tokens) == ("length", 24)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text != ""


async def test_openai_responses_answer_whole_and_streamed(served):
    """Its stream has typed events and no `[DONE]`."""
    async with speak(served) as client:
        whole = await client.responses.create(model="qwen3:8b", input="Say hello to the herd.")
        stream = await client.responses.create(model="qwen3:8b", input="Say hello to the herd.", stream=True)
        events = [event async for event in stream]
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == whole.output_text == events[-1].response.output_text
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens


async def test_anthropic_messages_answer_whole_and_streamed(served):
    """The dialect of coding assistants."""
    async with speak_claude(served) as client:
        asked = {"model": "qwen3:8b", "max_tokens": 200, "messages": HELLO, "thinking": {"type": "disabled"}}
        whole = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            said = "".join([text async for text in stream.text_stream])
            final = await stream.get_final_message()
    assert said == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason == "end_turn"
    assert final.usage.output_tokens == whole.usage.output_tokens


async def test_anthropic_thinking_and_tools_are_blocks_of_their_own(served):
    """Blocks are numbered; whoever counts them wrongly breaks the client's accumulation."""
    async with speak_claude(served) as client:
        asked = {"model": "qwen3:8b", "max_tokens": 200, "messages": ASK_WEATHER, "tools": [CLAUDE_WEATHER]}
        async with client.messages.stream(**asked) as stream:
            final = await stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "tool_use"]
    assert set(final.content[1].input) == {"city"}
    assert final.stop_reason == "tool_use"


async def test_the_same_prompt_gets_the_same_answer_in_every_dialect(served):
    """A model does not know which dialect its client speaks."""
    async with speak(served) as client, speak_claude(served) as claude:
        chat = await client.chat.completions.create(model="qwen3:8b", messages=HELLO)
        old = await client.responses.create(model="qwen3:8b", input=HELLO)
        message = await claude.messages.create(model="qwen3:8b", max_tokens=200, messages=HELLO)
    assert chat.choices[0].message.content == old.output_text == message.content[-1].text


async def test_the_synchronous_clients_work_too(node):
    """Most scripts are synchronous."""

    def ask():
        with openai.OpenAI(base_url=f"{node.url}/v1", api_key="any") as client:
            said = client.chat.completions.create(model="llama3.2:3b", messages=HELLO).choices[0].message.content
        with anthropic.Anthropic(base_url=node.url, api_key="any") as claude:
            return said, claude.messages.create(model="llama3.2:3b", max_tokens=99, messages=HELLO).content[0].text

    said, written = await asyncio.to_thread(ask)
    assert said == written


async def test_models_and_embeddings_of_the_openai_dialect(node):
    """The client asks for base64 unless told otherwise, and decodes it itself."""
    async with speak(node) as client:
        listed = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("llama3.2:3b")
        packed = await client.embeddings.create(model=NOMIC.name, input=["one", "two"])
        raw = await client.embeddings.create(model=NOMIC.name, input="one", encoding_format="base64")
    assert one.id in listed
    assert "nomic-embed-text:latest" in listed
    decoded = struct.unpack("<768f", base64.b64decode(raw.data[0].embedding))
    assert list(decoded) == pytest.approx(packed.data[0].embedding)


async def test_pictures_in_data_urls_are_seen_and_web_addresses_refused(node):
    """Ollama fetches nothing from the net on a client's behalf."""
    far = {"type": "image_url", "image_url": {"url": "http://example.org/a.png"}}
    async with speak(node) as client:
        near = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, PICTURE]}]
        seen = await client.chat.completions.create(model="gemma3:4b", messages=near)
        assert seen.choices[0].message.content
        with pytest.raises(openai.BadRequestError, match="image URLs are not currently supported"):
            await client.chat.completions.create(model="gemma3:4b", messages=[{"role": "user", "content": [far]}])


async def test_json_object_and_json_schema_give_json(node):
    """Structured output in the OpenAI way of asking."""
    schema = {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}, "parts": {"type": "array"}}}
    forms = [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}]
    async with speak(node) as client:
        for form in forms:
            answer = await client.chat.completions.create(model=LLAMA.name, messages=HELLO, response_format=form)
            value = json.loads(answer.choices[0].message.content)
    assert value["kind"] in ("a", "b")
    assert isinstance(value["parts"], list)


async def test_errors_are_in_the_dialect_of_the_caller(node):
    """A client library turns the body's type into its exception."""
    async with speak(node) as client, speak_claude(node) as claude:
        with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
            await client.chat.completions.create(model="nope", messages=HELLO)
        with pytest.raises(openai.BadRequestError, match="does not support chat"):
            await client.chat.completions.create(model=NOMIC.name, messages=HELLO)
        with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
            await claude.messages.create(model="nope", max_tokens=9, messages=HELLO)

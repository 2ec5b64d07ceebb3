"""Streams to their end: llama.cpp's server closes the connection after each, Ollama ends some of them too early."""

import asyncio
import json
import sqlite3
from contextlib import closing

import aiohttp
import httpx
import pytest

from tests.real.asks import EVENTS, MESSAGES, OPENAI, TALK, WORDS, post

pytestmark = pytest.mark.real
COUNT = 100
STREAMS = (
    ("/v1/chat/completions", {"messages": TALK, **OPENAI, "stream": True}, b"data: [DONE]\n\n"),
    ("/v1/completions", {"prompt": "Once", **OPENAI, "stream": True}, b"data: [DONE]\n\n"),
    ("/v1/messages", {"messages": TALK, **MESSAGES, "stream": True}, b'"message_stop"}\n\n'),
    ("/v1/responses", {"input": "Once", **EVENTS, "stream": True}, b'"response.completed"'),
)


def kinds(number):
    path, body, end = STREAMS[number % len(STREAMS)]
    return path, json.dumps({"model": "cpp", **body}), end


def check(fleet, prefix):
    """Every request has a completed row of the one node, and none was tried twice."""
    for number in range(COUNT):
        fleet.router.row(f"{prefix}-{number}")
    rows = fleet.router.rows("request_id LIKE ?", f"{prefix}-%")
    assert len(rows) == COUNT
    assert {(row["status"], row["node_id"], row["retry_count"], row["completion_tokens"]) for row in rows} == {
        ("completed", "cpp", 0, WORDS)
    }
    assert {row["tokens_source"] for row in rows} == {"reported"}


def reconnected(fleet, prefix):
    """How many attempts found their pooled connection closed."""
    with closing(sqlite3.connect(f"file:{fleet.router.database}?mode=ro", uri=True)) as connection:
        query = "SELECT sum(reconnected) FROM request_attempts WHERE request_id LIKE ?"
        return connection.execute(query, (f"{prefix}-%",)).fetchone()[0]


def test_a_hundred_streams_one_after_another_all_reach_their_end(fleet, record_property):
    """A client that pools connections loses up to a fifth of its requests here; herd must lose none."""
    with httpx.Client(timeout=30) as client:
        for number in range(COUNT):
            path, body, end = kinds(number)
            answer = client.post(fleet.url + path, content=body, headers={"X-Request-Id": f"turn-{number}"})
            assert (answer.status_code, end in answer.content) == (200, True), answer.text
    check(fleet, "turn")
    record_property("reconnected", reconnected(fleet, "turn"))


async def test_a_hundred_streams_at_sixteen_a_time_all_reach_their_end(fleet):
    """Two slots, so most of them wait at the router; connections close under their hands all the while."""
    numbers = iter(range(COUNT))

    async def ask_in_turn(session):
        for number in numbers:
            path, body, end = kinds(number)
            headers = {"X-Request-Id": f"crowd-{number}"}
            async with session.post(fleet.url + path, data=body, headers=headers) as answer:
                assert (answer.status, end in await answer.read()) == (200, True)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(ask_in_turn(session) for _ in range(16)))
    await asyncio.to_thread(check, fleet, "crowd")


def test_streams_and_whole_answers_in_turn_all_reach_their_end(fleet):
    """After a whole answer the connection stays open, after a stream and after an error it does not."""
    for number in range(12):
        whole = {"model": "cpp", "messages": TALK, **OPENAI, "stream": number % 3 == 0}
        body = {"model": "cpp"} if number % 3 == 2 else whole
        answer = httpx.post(fleet.url + "/v1/chat/completions", json=body, timeout=30)
        assert answer.status_code == (400 if number % 3 == 2 else 200)
        assert answer.headers["x-herd-retries"] == "0"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_comments_that_llamacpp_sends_while_it_reads_a_prompt_are_no_first_token(fleet, path):
    """They must reach the client, who would give up otherwise, and must not pass for an answer."""
    text = "a sheep and a goat " * 180  # a second or more, even on a quick machine
    asked = {"messages": [{"role": "user", "content": text}]} if "chat" in path else {"prompt": text}
    more = {"max_tokens": 2, "stream": True, "sse_ping_interval": 1, "cache_prompt": False}
    answer = post(fleet.url, path, "slowcpp", **asked, **more)
    row = fleet.router.row(answer.headers["x-request-id"])
    assert (row["status"], row["completion_tokens"]) == ("completed", 2)
    assert row["prompt_tokens"] >= len(text)
    assert row["time_to_first_token_ms"] > row["latency_ms"] / 2
    assert answer.content.startswith(b":\n\n")


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_ollama_gives_up_in_silence_is_not_taken_for_a_whole_one(fleet, stream):
    """It stops a model that says one token over and over, and ends the answer without a word about it."""
    stuck = {"type": "string", "enum": ["a" * 80]}
    answer = post(fleet.url, "/api/chat", "solo", messages=TALK, format=stuck, stream=stream)
    last = json.loads(answer.content.strip().split(b"\n")[-1])
    assert "without an end marker" in last["error"] if stream else last["done"] is False
    row = fleet.router.row(answer.headers["x-request-id"])
    assert (row["status"], row["http_status"], row["error_type"]) == ("incomplete", 200, "stream_aborted")


def test_a_whole_openai_answer_that_ollama_gave_up_is_incomplete_too(fleet):
    """It has no finish_reason and no tokens: the row must not call it completed."""
    stuck = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "string", "enum": ["a" * 80]}}}
    answer = post(fleet.url, "/v1/chat/completions", "solo", messages=TALK, response_format=stuck)
    assert answer.json()["choices"][0]["finish_reason"] is None
    assert fleet.router.row(answer.headers["x-request-id"])["status"] == "incomplete"

"""The benchmark's node and clients: what they count is what happened."""

import asyncio
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest

from benchmarks.contenders import Stage
from benchmarks.load import Client, Outcome, Round, Tally
from benchmarks.node import CHAT, MODEL, STREAM

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def node(tmp_path):
    with Stage(tmp_path) as stage:
        yield stage.scripted_node()


def outcome_of(*rounds):
    """The outcomes of rounds, by the process that the benchmark uses."""
    asked = "".join(json.dumps(asdict(each)) + "\n" for each in rounds)
    command = [sys.executable, "-m", "benchmarks.load"]
    done = subprocess.run(command, cwd=ROOT, input=asked, capture_output=True, text=True, timeout=60, check=True)
    lines = map(json.loads, done.stdout.splitlines())
    return [Outcome(**line) for line in lines if "phase" not in line]


def test_clients_see_every_answer_to_its_end(node):
    """A client that asks again too early would measure another thing than an answer."""
    plain, stream = outcome_of(Round(node, 4, 0.2), Round(node, 4, 0.2, stream=True))
    assert plain.failed == stream.failed == 0
    assert plain.requests > 0
    assert stream.requests > 0


def test_a_paced_token_carries_the_time_at_which_it_left(node):
    """The way of a token is told by the stamp that it left the node with."""
    (found,) = outcome_of(Round(node, 5, 0.5, stream=True, paced=True))
    assert found.tokens > 0
    assert found.delay_p99_ms >= found.delay_p50_ms > 0


def test_usage_is_told_to_those_who_ask_only(node):
    """Herd asks for it on its own account and takes it out again: that work belongs to the measurement."""
    url, chat = f"http://127.0.0.1:{node}/v1/chat/completions", {"model": MODEL, "stream": True}
    plain = httpx.post(url, json=chat).text
    asked = httpx.post(url, json={**chat, "stream_options": {"include_usage": True}}).text
    assert '"usage"' not in plain
    assert '"usage"' in asked
    assert plain.endswith("data: [DONE]\n\n")


def test_an_answer_that_is_no_success_ends_the_round():
    """Errors are answered quickly; counted as answers they would make a broken contender the fastest."""
    client, tally = a_client()
    client.data_received(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno")
    assert tally.failed == 1
    assert "503" in tally.failure
    assert tally.stopping


@pytest.mark.parametrize("answer", [CHAT, STREAM[True]], ids=["whole", "stream"])
def test_an_answer_in_pieces_is_one_answer_wherever_it_is_cut(answer):
    """A network cuts where it likes; a miscounted answer is a wrong figure."""
    for cut in range(1, len(answer)):
        client, tally = a_client()
        client.data_received(answer[:cut])
        assert tally.requests == 0
        client.data_received(answer[cut:])
        assert tally.requests == 1


class Written(asyncio.Transport):
    """Takes what is written, and sends it nowhere."""

    def write(self, data):
        """Take it."""

    def close(self):
        """Nothing is open."""


def a_client():
    """A client that waits for its first answer, and the tally that it reports to."""
    tally = Tally()
    client = Client(tally, [b"GET / HTTP/1.1\r\n\r\n"])
    client.connection_made(Written())
    client.ask()
    return client, tally

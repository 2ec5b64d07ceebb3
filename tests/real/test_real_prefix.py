"""A conversation of thirty turns with a pair of real llama.cpp servers, whose first line changes every turn."""

import json
import statistics
from itertools import count

import httpx
import pytest

from tests.harness import until
from tests.real.conftest import Fleet
from tests.real.engines import TINY

pytestmark = pytest.mark.real

TURNS = 30
numbers = count(1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two llama.cpp servers with one model, and a router."""
    fleet = Fleet(tmp_path_factory.mktemp("pair"))
    fleet.router.start()
    try:
        for node_id in ("left", "right"):
            fleet.llama(node_id).start(TINY, "tiny", slots=2, options=("--cache-ram", "0"))
        fleet.join_llamas()
        yield fleet
    finally:
        for process in [*fleet.agents.values(), *fleet.llamas.values()]:
            process.stop()
        fleet.router.stop()


def converse(url, name, changing):
    """Thirty turns; returns of all but the first the share of cached tokens and the seconds to the first token."""
    agent = f"You are agent {name}. " + "Answer in one word. " * 20
    messages, shares, waits = [], [], []
    for turn in range(TURNS):
        checksum = f"{next(numbers):05x}" if changing else "abcde"
        line = f"x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch={checksum};"
        messages.append({"role": "user", "content": f"Turn {turn}: what comes next?"})
        asked = {"model": "tiny", "stream": True, "max_tokens": 4, "stream_options": {"include_usage": True},
                 "messages": [{"role": "system", "content": f"{line}\n{agent}"}, *messages]}  # fmt: skip
        words, usage, timings = answer(url, asked)
        messages.append({"role": "assistant", "content": words})
        if turn:
            shares.append(usage["prompt_tokens_details"]["cached_tokens"] / usage["prompt_tokens"])
            waits.append(timings["prompt_ms"] / 1000)
    return statistics.mean(shares), statistics.median(waits)


def answer(url, asked):
    words, usage, timings = "", {}, {}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=asked, timeout=60) as streamed:
        assert streamed.status_code == 200
        for line in streamed.iter_lines():
            if line.startswith("data: {"):
                document = json.loads(line[6:])
                usage, timings = document.get("usage") or usage, document.get("timings") or timings
                for choice in document["choices"]:
                    words += choice["delta"].get("content") or ""
    return words, usage, timings


def test_a_changing_first_line_costs_no_turn_its_cache(pair, capsys):
    """Claude Code's line costs every turn the whole prompt's work; held still, a turn costs what is new in it."""
    settings = f"{pair.url}/dashboard/api/settings"
    found = {}
    for steady in (False, True):
        httpx.post(settings, json={"steady_billing_line": steady}).raise_for_status()
        found[steady] = converse(pair.url, f"steady-{steady}", changing=True)
    with capsys.disabled():
        for steady, (share, wait) in found.items():
            print(f"\nsteady_billing_line {steady}: {share:.0%} of the prompt cached, {wait * 1000:.1f} ms of prefill")
    assert found[True][0] > 0.85
    assert found[False][0] < 0.3
    until(lambda: len(pair.router.rows()) == 2 * TURNS, "every turn has its row")
    steady = pair.router.rows()[TURNS:]
    assert len({row["node_id"] for row in steady}) == 1, "a conversation stays where its cache is"
    assert sum(row["cached_tokens"] for row in steady) > 0.85 * sum(row["prompt_tokens"] for row in steady)

"""Preload with a real Ollama: it loads and keeps a model for a request that asks nothing."""

import time
from datetime import datetime

import httpx
import pytest

from tests.harness import until
from tests.real.asks import TALK
from tests.real.conftest import ONE_THREAD, TINY, Fleet

pytestmark = pytest.mark.real


@pytest.fixture
def alone(tmp_path):
    """One Ollama behind a router that looks every second what to load."""
    running = Fleet(tmp_path, HERD_PRELOAD_INTERVAL_S="1")
    try:
        running.ollama.start()
        running.ollama.create("tiny", TINY, ONE_THREAD)
        running.router.start()
        running.join()
        yield running
    finally:
        running.stop()


def chat(fleet, **body):
    document = {"model": "tiny", "messages": TALK, "stream": False, "options": {"num_predict": 1}, **body}
    return httpx.post(f"{fleet.url}/api/chat", json=document, timeout=30).raise_for_status()


def stays_s(fleet):
    """For how long the model will stay in memory; nothing where it is not there."""
    models = httpx.get(f"{fleet.ollama.url}/api/ps", timeout=10).json()["models"]
    return [datetime.fromisoformat(model["expires_at"]).timestamp() - time.time() for model in models]


def test_a_model_that_was_asked_for_is_loaded_again_and_kept(alone):
    """What the simulated node does here was read out of this one; it must be so still."""
    for _ in range(4):
        chat(alone)
    until(lambda: len(alone.router.rows()) == 4, "four rows are there")
    httpx.post(f"{alone.ollama.url}/api/generate", json={"model": "tiny", "keep_alive": 0}, timeout=30)
    until(lambda: not alone.node("olla")["ollama"]["models_loaded"], "the router knows that it is gone")
    httpx.post(f"{alone.url}/dashboard/api/settings", json={"preload": True}).raise_for_status()
    until(lambda: alone.events("preload"), "it is loaded ahead")
    assert stays_s(alone)[0] > 3000
    runners = alone.ollama.runners()
    chat(alone, keep_alive="8s")
    until(lambda: stays_s(alone)[0] > 3000, "its stay is prolonged")
    assert alone.ollama.runners() == runners, "it was never away"

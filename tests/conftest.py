"""What every test may ask for: a router process, simulated nodes, and waiting for a condition with a deadline."""

import sys

import hypothesis
import ollama
import openai
import pytest

from tests.harness import Router, free_port

# A busy machine draws examples slowly; that says nothing about the code.
hypothesis.settings.register_profile("herd", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("herd")


# What takes longest begins first: a worker that draws one of these last has the others wait for it.
LONG = (
    "e2e/test_health", "dashboard/test_page", "dashboard/test_sections", "pack/test_alerts_live", "e2e/test_stops",
    "e2e/test_admission", "e2e/test_without_nodes", "cli/test_docs", "resilience/test_records_blocked",
    "node/test_node_process", "e2e/test_engine_truths", "cli/test_start", "resilience/test_kills",
    "pack/test_agents_live", "e2e/test_faults", "pack/test_rules", "e2e/test_preload", "e2e/test_four_records",
    "e2e/test_demo", "cli/test_audit", "pack/test_dashboards_live",
)  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Order the modules; within one the order stays as drawn."""
    first = {f"tests/{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: first.get(item.nodeid.partition("::")[0], len(first)))


@pytest.fixture
def stdlib():
    """The names of the standard library's modules."""
    return tuple(sys.stdlib_module_names)


@pytest.fixture
def router(tmp_path):
    """A router process with its own data directory and port, ended by its process id."""
    started = Router(tmp_path / "home", free_port())
    started.start()
    yield started
    started.stop()


@pytest.fixture
def native(fleet):
    """Ollama's own client, at the router of whichever fleet the test has."""
    client = ollama.Client(host=fleet.url)
    yield client
    client._client.close()


@pytest.fixture
def compatible(fleet):
    """OpenAI's own client there."""
    with openai.OpenAI(base_url=fleet.url + "/v1", api_key="any", max_retries=0) as client:
        yield client

"""What every test may ask for: a router process, simulated nodes, and waiting for a condition with a deadline."""

import sys

import hypothesis
import pytest

from tests.harness import Router, free_port

# A busy machine draws examples slowly; that says nothing about the code.
hypothesis.settings.register_profile("herd", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("herd")


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

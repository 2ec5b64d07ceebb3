"""Simulated inference servers with scripted faults: the demo, the tests and the benchmarks run on them.

What an engine answers here was compared with a real Ollama and a real llama.cpp server. It knows nothing of herd but
the heartbeat contract.
"""

from herd.sim.config import SimConfig, SimModel
from herd.sim.faults import Fault, FaultKind
from herd.sim.node import SimNode

__all__ = ["Fault", "FaultKind", "SimConfig", "SimModel", "SimNode"]

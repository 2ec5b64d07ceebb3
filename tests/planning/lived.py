"""A made fleet with its traffic in virtual time, and the rows and heartbeats that it would have left."""

from herd import wire
from herd.core.events import NodeKnown
from herd.core.learning import Machine as OnPaper
from herd.planning.arrivals import at_rate, for_models
from herd.planning.compare import made_trace
from herd.planning.engine import Machine, Speed
from herd.planning.fleets import MODELS, fleet
from herd.planning.live import GB, Herd
from herd.planning.simulate import Simulation
from herd.store.recorded import Past, Recorded
from herd.store.writer import Writer
from tests.store.builders import NOON, finished
from tests.store.waiting import written

BEGAN = 1_000_000.0
SMALL = [name for name in MODELS if name != "llama3.3:70b"]


class Watched(Herd):
    """Herd, with the row that each request leaves."""

    def __init__(self, engines):
        super().__init__(engines)
        self.rows = []

    def happened(self, place, event):
        if event.kind == "ended":
            self.rows.append(row(event.job, self.engines[place].machine.node_id))
        return super().happened(place, event)


def row(job, node, **changes):
    """What a request that an engine answered leaves."""
    arrival, began = job.arrival, job.began_at - job.load_s
    usual = {
        "at": BEGAN + arrival.at, "model": arrival.model, "node_id": node, "stream": True, "status": "completed",
        "prompt_tokens": arrival.prompt_tokens, "cached_tokens": None, "completion_tokens": arrival.answer_tokens,
        "tag": "even" if job.number % 2 else "odd",
        "ttft_s": job.first_at - arrival.at, "latency_s": job.ended_at - arrival.at,
        "queue_s": began - arrival.at, "load_s": job.load_s or None, "prefill_s": job.first_at - job.began_at,
        "decode_s": job.ended_at - job.first_at, "started_at": BEGAN + began, "first_at": BEGAN + job.first_at,
        "ended_at": BEGAN + job.ended_at,
    }  # fmt: skip
    return Past(**{**usual, **changes})


def traffic(rate, count, kind="conversation", models=SMALL):
    """Made requests."""
    return for_models(at_rate(made_trace(kind, 7), rate, count, 7), models, 7)


def lived(machines, rate=0.3, count=400, **kind):
    """The rows of made traffic on these machines."""
    simulation = Simulation(machines, Watched)
    simulation.run(traffic(rate, count, **kind))
    return Recorded(tuple(sorted(simulation.router.rows, key=lambda each: each.at)))


def beat(machine):
    """What the agent of a machine reports."""
    memory = int(machine.memory * GB)
    models = [wire.Model(name=name, size_bytes=int(there.size / 1.1 * GB)) for name, there in machine.models.items()]
    engine = wire.Engine(kind="ollama", url="http://127.0.0.1:11434", reachable=True, slots=machine.slots,
                         endpoints=["/api/chat"], models=models)  # fmt: skip
    return wire.Heartbeat(
        node_id=machine.node_id, sent_at=0.0, cpu=wire.Cpu(cores=8), engine=engine,
        memory=wire.Memory(total_bytes=memory, used_bytes=0, available_bytes=memory),
    )  # fmt: skip


def kept(path):
    """A data directory with two nodes of one model, and sixty streams of it, three of them by a node that is gone."""
    writer = Writer(path / "latency.db", retention_days=36500)
    writer.start()
    for node_id in ("ada", "bob"):
        machine = Machine(node_id, 32.0, {"llama3.2:3b": Speed(2.2, 2.0, 1000.0, 50.0)})
        writer.take(NodeKnown(node_id, beat(machine).model_dump(), NOON))
    for number in range(60):
        node_id = "gone" if number % 20 == 0 else "ada"
        writer.take(finished(at=NOON + 10 * number, node_id=node_id, tags=("a" if number % 2 else "b",)))
    assert written(writer)
    writer.close(10)
    return str(path)


def on_paper(heartbeat):
    """The data sheets of made machines."""
    return next(OnPaper(each.bandwidth * GB, each.kind) for each in fleet(5) if each.node_id == heartbeat.node_id)

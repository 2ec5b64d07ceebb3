"""A fleet whose records' ways out can be blocked, one by one, and what an operator sees of that."""

import asyncio
import itertools
import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from herd import wire
from herd.sim import SimConfig, SimModel
from herd.store.schema import LATEST
from tests.e2e.conftest import Fleet
from tests.harness import Nodes, Router, free_port, until
from tests.resilience.dialects import PATHS, ask, is_whole
from tests.resilience.processes import recorder_of
from tests.resilience.proxy import Proxy
from tests.telemetry.otlp import OtlpReceiver

MODEL = SimModel("llama3.2:3b", size_gb=0.1)
COUNT = 24
NUMBERS = itertools.count()
OVERFLOW = 5 * 3000  # events of models that came and went
# What a process of the superuser needs so that rights on files hold for it as for any other.
AS_ANYBODY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def superuser_can_be_anybody() -> bool:
    """Whether this is the superuser, and may give up what sets it apart."""
    if os.geteuid() != 0 or not shutil.which(AS_ANYBODY[0]):
        return False
    return subprocess.run([*AS_ANYBODY, "true"], capture_output=True, check=False).returncode == 0


class Records:
    """A router with one node and a collector behind a wire; each `…` context manager breaks one thing and mends it."""

    def __init__(self, home: Path, **more: str) -> None:
        self.collector = OtlpReceiver()
        self.collector.start()
        self.wire = Proxy(target=int(self.collector.url.rpartition(":")[2])).start()
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.wire.url, "OTEL_BSP_SCHEDULE_DELAY": "100",
            "HERD_HEALTH_MIN_REQUESTS": "1000000", **more,
        }  # fmt: skip
        self.router = Router(home, free_port(), **settings)
        self.router.command = [*(AS_ANYBODY if superuser_can_be_anybody() else ()), *self.router.command]
        self.fleet = Fleet(self.router, Nodes())

    def start(self) -> None:
        """Start the router, and let its node join."""
        self.router.start()
        self.fleet.join(SimConfig("only", models=(MODEL,), preload=(MODEL.name,), memory_gb=16, slots=32))

    def stop(self) -> None:
        """End everything."""
        self.fleet.nodes.stop()
        self.router.stop()
        self.wire.stop()
        self.collector.stop()

    def serve(self) -> set[str]:
        """Ask in every dialect, streaming and not, all at once; every answer comes whole. Returns the requests' ids."""
        names = {f"q{next(NUMBERS)}": number for number, _ in enumerate(range(COUNT))}
        asyncio.run(self._ask_all(names))
        return set(names)

    async def _ask_all(self, names: dict[str, int]) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            await asyncio.gather(*(self._ask(session, name, number) for name, number in names.items()))

    async def _ask(self, session: aiohttp.ClientSession, name: str, number: int) -> None:
        dialect, stream = list(PATHS)[number % 3], number % 2 == 0
        path, body = ask(dialect, MODEL.name, stream, words=5)
        async with session.post(self.router.url + path, data=body, headers={"X-Request-Id": name}) as answer:
            assert answer.status == 200, await answer.text()
            assert is_whole(dialect, stream, await answer.read())

    def kept(self) -> set[str]:
        """The requests that have a row; none while the database is being made."""
        try:
            return {row["request_id"] for row in self.router.rows()}
        except sqlite3.OperationalError:
            return set()

    def written(self) -> set[str]:
        """The requests that have a line."""
        return {line["request_id"] for line in self.router.lines()}

    def finding(self, check_id: str) -> dict[str, Any] | None:
        """What health says of a check, if it finds anything."""
        found = self.router.get("/dashboard/api/health")["recommendations"]
        return next((entry for entry in found if entry["check_id"] == check_id), None)

    def data(self, check_id: str) -> dict[str, Any]:
        """The figures of a finding; none where there is none."""
        finding = self.finding(check_id)
        return finding["data"] if finding else {}

    def told(self) -> float:
        """How many lines the log has, those included that it had no room for."""
        return self.router.metric("herd_log_lines_total") + self.router.metric("herd_log_dropped_total")

    def overflow(self) -> None:
        """Have more happen than the store's queue holds: a node lists hundreds of models, then none, and again."""
        models = [wire.Model(name=f"m{number}:1b", size_bytes=1) for number in range(500)]
        beat = wire.Heartbeat(
            node_id="restless", sent_at=0, agent_version="1", cpu=wire.Cpu(cores=1, utilization=0.0),
            memory=wire.Memory(total_bytes=2**30, used_bytes=0, available_bytes=2**30),
            engine=wire.Engine(kind="ollama", url="http://127.0.0.1:9", reachable=True, endpoints=[]),
        )  # fmt: skip
        for listed in [models, []] * 18:
            engine = beat.engine.model_copy(update={"models": listed})
            content = beat.model_copy(update={"engine": engine}).model_dump_json()
            assert self.router.beat(content).status_code == 200

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else writes the database and does not end."""
        with closing(sqlite3.connect(self.router.database, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.rollback()

    @contextmanager
    def of_a_newer_herd(self) -> Iterator[None]:
        """A newer herd has migrated the database meanwhile."""
        with closing(sqlite3.connect(self.router.database, isolation_level=None)) as other:
            other.execute("PRAGMA user_version = 999")
            yield
            other.execute(f"PRAGMA user_version = {LATEST}")

    @contextmanager
    def no_database_but_a_folder(self) -> Iterator[None]:
        """The database was deleted, and no file can be made in its place."""
        for path in self.router.data_dir.glob("latency.db*"):
            path.unlink()
        self.router.database.mkdir()
        yield
        self.router.database.rmdir()

    @contextmanager
    def full_disk(self, room: int = 0) -> Iterator[None]:
        """The kernel lets no file of the recorder's grow beyond so many bytes."""
        recorder = recorder_of(self.router).pid
        soft, hard = resource.prlimit(recorder, resource.RLIMIT_FSIZE)
        resource.prlimit(recorder, resource.RLIMIT_FSIZE, (room, hard))
        try:
            yield
        finally:
            resource.prlimit(recorder, resource.RLIMIT_FSIZE, (soft, hard))

    @contextmanager
    def full_log_disk(self) -> Iterator[None]:
        """The log is on a disk that takes no byte more."""
        aside = self.router.log.rename(self.router.log.with_name("before.jsonl"))
        self.router.log.symlink_to("/dev/full")
        yield
        self.router.log.unlink()
        aside.rename(self.router.log)

    @contextmanager
    def collector_refuses(self) -> Iterator[None]:
        """Nothing listens where the collector was."""
        self.wire.refuse()
        yield
        self.wire.accept()

    @contextmanager
    def collector_hangs(self) -> Iterator[None]:
        """The collector takes requests and says nothing."""
        self.collector.mode = "hanging"
        yield
        self.collector.mode = "ok"

    @contextmanager
    def collector_answers_500(self) -> Iterator[None]:
        """The collector is there and refuses everything."""
        self.collector.mode = "500"
        yield
        self.collector.mode = "ok"

    def spans_of(self, names: set[str]) -> bool:
        """Whether the collector has the span of each of these requests."""
        there = {span.attributes.get("herd.request_id") for span in list(self.collector.spans)}
        return names <= there

    def in_order(self) -> None:
        """Wait until requests leave all their records, and health finds nothing wrong with the store."""
        names = self.serve()
        until(lambda: names <= self.kept(), "rows are written")
        until(lambda: names <= self.written(), "lines are written")
        until(lambda: self.spans_of(names), "spans are sent")
        until(lambda: self.finding("trace_store_failing") is None, "health is content with the store")

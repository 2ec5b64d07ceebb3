"""Every alert, made to fire by the fault that it is for: real router, nodes and Prometheus, windows 120 times as short.

First all is well, with mistakes and clients that leave in the traffic, and nothing may fire; then all goes wrong.
"""

import dataclasses
import json
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest

from herd.sim import Fault, FaultKind, SimConfig, SimModel
from otel.alerts import BURNS, Alert, alerts
from otel.build import alert_rules, as_yaml, recording_rules
from otel.thresholds import THRESHOLDS
from tests.e2e.conftest import EMBED, LLAMA, QWEN, SLOW
from tests.e2e.traffic import HELLO, ask, mixed
from tests.harness import until
from tests.pack.conftest import Observed
from tests.pack.contents import HOLE

pytestmark = pytest.mark.timeout(300)
SPEED = 120
QUICK = {
    **THRESHOLDS, "ttft_s": 0.25, "stuck_s": 3, "thrashing_loads": 2, "flaps": 1, "stalls": 2, "overhead_s": 0.01,
    "disk_bytes": 2 * 2**30,  # one of the nodes is a real agent, which tells of the real disk
}  # fmt: skip
# Three starts of a router, and waits of half a minute, take longer than they prove beside `promtool test rules`; that
# the router says both is seen by the tests of the dashboards.
BY_SAMPLES_ALONE = {"RouterRestarting", "QueueWaitHigh"}
NAMES = sorted({alert.name for alert in alerts()} - BY_SAMPLES_ALONE)
AT_THE_END = {"RouterOverheadHigh", "EventLoopStalled", "NoHealthyNode", "RouterDown", "AgentDown", "CollectorDown"}
PATIENCE_S = 60
ILL = tuple(SimModel(f"{name}:1b", size_gb=0.1) for name in ("late", "mute", "broken"))
WELL = (
    SimConfig("studio", models=(LLAMA, QWEN, EMBED, *ILL), preload=("llama3.2:3b", "qwen3:8b"), slots=40),
    SLOW,
    SimConfig("tight", models=(SimModel("tight:1b", size_gb=0.1),), slots=1),
    SimConfig("loose", models=(LLAMA,)),
    SimConfig("gone", models=(EMBED,)),
    SimConfig("deaf", models=(EMBED,)),
    SimConfig("left", models=(EMBED,)),
    # Room for one of its two models, and half a second to read either from disk.
    SimConfig("swap", models=(SimModel("tick:1b"), SimModel("tock:1b")), max_loaded=1, tokens_per_s=1000,
              load_bytes_per_s=3.5e9),
)  # fmt: skip
LIBRARY = SimConfig("library", models=tuple(SimModel(f"z{number:03}:1b", size_gb=0.1) for number in range(205)))
# One long string is what holds the interpreter while it is read: for over 0.1 s, and short for a scrape.
PADDED = json.dumps({"model": "llama3.2:3b", "prompt": "Hi", "stream": False, "padding": "x" * (48 << 20)}).encode()


def hasty(alert: Alert) -> Alert:
    """An alert that waits for three evaluations at most; the slower burns would come while all is well."""
    waits = alert.hold != "0m" and alert.labels.get("window", BURNS[0][1]) == BURNS[0][1]
    return dataclasses.replace(alert, hold="3s") if waits else alert


class Ordeal(Observed):
    """A fleet that was well for a while, and then had everything go wrong at once; keeps what fired when."""

    def __init__(self, home):
        rules = {
            "recording.yml": recording_rules(QUICK, SPEED),
            "alerts.yml": alert_rules(map(hasty, alerts(QUICK, SPEED))),
        }
        for name, content in rules.items():
            (home / name).write_text(as_yaml(content))
        patience = {"HERD_HEARTBEAT_DEGRADED_S": "2", "HERD_HEARTBEAT_OFFLINE_S": "3", "HERD_QUEUE_LIMIT": "30"}
        super().__init__(home, WELL, [home / name for name in rules], **patience)
        self.said: dict[str, str] = {}
        self.over = threading.Event()
        # Until its first scrape Prometheus takes the router for dead, and rightly says so.
        until(
            lambda: self.prometheus.query("up == 1") and not self.prometheus.query("ALERTS"), "all is well", PATIENCE_S
        )
        self.since = time.time()

    def be_well(self):
        """Traffic with mistakes and clients that leave."""
        self.send(mixed(100, 0))
        self.prometheus.scraped()
        self.fired_while_well = self.listen()

    def suffer(self):
        """Everything at once, until every alert for it has fired."""
        faults = (
            self.fail, self.be_late, self.do_not_count, self.crowd, self.knock, self.thrash,
            self.lose_records, self.lock_the_database, self.come_and_go, self.overflow,
        )  # fmt: skip
        self.together(faults, set(NAMES) - AT_THE_END)
        gone = self.prometheus.query('max_over_time(ALERTS{alertname="NodeDown", alertstate="firing"}[10m])')
        self.missed = {found["metric"]["node"] for found in gone}

    def together(self, faults, names):
        """Have these faults until all of these alerts have fired."""
        self.over.clear()
        with ThreadPoolExecutor(len(faults)) as pool:
            running = [pool.submit(fault) for fault in faults]
            try:
                self.wait_for(names)
            finally:
                self.over.set()
                self.nodes.clear()
            for fault in running:
                fault.result()

    def end(self):
        """First the nodes and the collector go, and all that is left to measure is the router; then it goes too."""
        self.collector.stop()
        for node in self.nodes.nodes.values():
            self.nodes.call(node.kill())
        self.together((self.overload,), AT_THE_END - {"RouterDown", "AgentDown"})
        self.router.stop()
        self.wait_for({"RouterDown", "AgentDown"})

    def wait_for(self, names):
        """Wait until these have fired, or long enough: each has a test of its own, which then says so."""
        end = time.monotonic() + PATIENCE_S
        until(lambda: self.listen() >= names or time.monotonic() > end, "an answer", 2 * PATIENCE_S)

    def listen(self):
        """What has fired so far; keeps the words of what fires now."""
        for alert in self.prometheus.get("alerts")["alerts"]:
            self.said[alert["labels"]["alertname"]] = " ".join(alert["annotations"].values())
        self.fired = self.prometheus.fired(self.since)
        return self.fired

    def again(self, asks, name, every_s=1.0, at_once=8):
        """Send these requests over and over, until this alert has fired."""
        while not self.over.wait(every_s) and name not in self.fired:
            self.send(asks, at_once)

    def fail(self):
        """A node answers 500 for one of its models."""
        self.nodes.script("studio", Fault(FaultKind.HTTP_500, times=None, model="broken:1b"))
        self.again([ask("/api/chat", model="broken:1b", messages=HELLO) for _ in range(10)], "ErrorBudgetBurn")

    def be_late(self):
        """First tokens take longer than they may."""
        self.nodes.script("studio", Fault(FaultKind.HANG_BEFORE_HEADERS, times=None, model="late:1b", seconds=0.4))
        late = [ask("/api/chat", model="late:1b", messages=HELLO) for _ in range(64)]
        self.again(late, "TTFTBudgetBurn", 0.2, at_once=32)

    def do_not_count(self):
        """An engine that reports no tokens."""
        self.nodes.script("studio", Fault(FaultKind.NO_USAGE, times=None, model="mute:1b"))
        mute = [ask("/api/chat", model="mute:1b", messages=HELLO, stream=False) for _ in range(10)]
        self.again(mute, "UsageMissing")

    def crowd(self):
        """A node's only slot hangs, and many wait for it."""
        self.nodes.script("tight", Fault(FaultKind.HANG_BEFORE_HEADERS, times=None))
        self.send([ask("/api/chat", model="tight:1b", messages=HELLO) for _ in range(28)], at_once=28)

    def knock(self):
        """More come than may wait."""
        until(lambda: self.router.metric("herd_queue_depth", model="tight:1b") > 20, "a queue", PATIENCE_S)
        full = [ask("/api/chat", model="tight:1b", messages=HELLO) for _ in range(10)]
        threading.Thread(target=self.send, args=(full[:4], 4), daemon=True).start()
        until(lambda: self.router.metric("herd_queue_depth", model="tight:1b") >= 30, "a full queue", PATIENCE_S)
        self.again(full, "QueueRejecting")

    def thrash(self):
        """Two models take turns where there is room for one."""
        turns = [ask("/api/chat", model=name, messages=HELLO) for name in ("tick:1b", "tock:1b")]
        self.again(turns, "ModelThrashing", 0.1, at_once=1)

    def overload(self):
        """Bodies that take the router long to read; every one of them stalls its event loop."""
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S) as client:
            while not self.over.wait(0.05):
                client.post("/api/generate", content=PADDED)

    def lose_records(self):
        """The collector takes no spans, and cannot hand on those that it has."""
        self.collector.mode = "500"
        while not self.over.wait(0.5) and "CollectorFailing" not in self.fired:
            self.collector.given_up += 1

    def lock_the_database(self):
        """Somebody holds a transaction open in the sqlite3 command line."""
        with closing(sqlite3.connect(self.router.database, isolation_level=None, timeout=20)) as other:
            other.execute("BEGIN EXCLUSIVE")
            self.over.wait(PATIENCE_S)
            other.rollback()

    def come_and_go(self):
        """A node dies, one leaves in order, one's engine dies, one has a loose cable; a real agent dies."""
        self.agent.stop(signal.SIGKILL)
        self.nodes.call(self.nodes.nodes["gone"].kill())
        self.nodes.call(self.nodes.nodes["left"].stop())
        self.nodes.nodes["deaf"].hardware.set(reachable=False)
        for silent in (True, None):
            self.nodes.nodes["loose"].hardware.set(silent=silent)
            up = 0 if silent else 1
            seen = f'herd_node_up{{node="loose"}} == {up}'
            until(lambda seen=seen: self.prometheus.query(seen), f"the loose node is {up}", PATIENCE_S)

    def overflow(self):
        """A node with more models than there are labels, and little disk."""
        self.nodes.start(dataclasses.replace(LIBRARY, router_url=self.url, interval_s=0.3))
        self.nodes.nodes["library"].hardware.set(disk_free_gb=1)
        until(lambda: self.router.metric("herd_node_up", node="library"), "the library is there", PATIENCE_S)
        self.again([ask("/api/chat", model="z204:1b", messages=HELLO)], "LabelOverflow", 0.5)


@pytest.fixture(scope="module")
def ordeal(tmp_path_factory):
    """The whole story, told once."""
    fleet = Ordeal(tmp_path_factory.mktemp("ordeal"))
    try:
        fleet.be_well()
        fleet.suffer()
        fleet.end()
        yield fleet
    finally:
        fleet.stop()


def test_nothing_fires_while_all_is_well(ordeal):
    """Wrong requests, unknown models and clients that leave are every day's work."""
    assert ordeal.fired_while_well == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_alert_fires_by_the_fault_that_it_is_for(ordeal, name):
    """A rule that is right on paper may still ask for what the router never says."""
    assert name in ordeal.fired


def test_a_node_that_left_in_order_is_not_missed(ordeal):
    """Who closes a laptop in the evening should not be called."""
    assert "gone" in ordeal.missed
    assert "left" not in ordeal.missed


@pytest.mark.parametrize("name", NAMES)
def test_what_the_alert_says_is_filled_in(ordeal, name):
    """A template's error is sent to the pager as it is."""
    assert not HOLE.search(ordeal.said[name])
    assert "error" not in ordeal.said[name].replace("error budget", "").replace("errorbudget", "").lower()

"""The dashboards where one Prometheus scrapes two routers: each is drawn under its name, or both as one sum."""

import asyncio
import re

import pytest

from herd.sim import SimConfig
from tests.e2e.conftest import LLAMA, QWEN, started
from tests.e2e.traffic import HELLO, ask, send
from tests.harness import until
from tests.pack.contents import DASHBOARDS, RULES, filled_in, panels
from tests.pack.prometheus import Prometheus
from tests.pack.test_dashboards_live import WINDOW

HERD_S = re.compile(r"\bherd(?:_|:)[a-z0-9_:]+(?![a-z0-9_:]|\()(\{[^}]*\})?")
TARGETS = [
    (path.stem, panel, target)
    for path in DASHBOARDS
    for panel in panels(path)
    for target in panel["targets"]
    if "expr" in target
]
NAMED = {"ids": [f"{name}: {panel['title']} {target['refId']}" for name, panel, target in TARGETS]}
MACHINE = SimConfig("studio", models=(LLAMA, QWEN), preload=("llama3.2:3b",))


class Two:
    """Two routers, each with a node of the same name and models, and the Prometheus that scrapes both."""

    def __init__(self, home):
        self.fleets = [started(home / name, MACHINE) for name in ("office", "home")]
        self.instances = [fleet.url.removeprefix("http://") for fleet in self.fleets]
        self.prometheus = Prometheus(home / "prometheus", self.instances, home / "no-agents.json", RULES)

    def run(self):
        """Have both scraped and asked, until every rate has its samples."""
        self.prometheus.start()
        until(lambda: len(self.prometheus.query('up{job="herd"} == 1')) == 2, "both are scraped")
        hello = [ask("/api/chat", model="llama3.2:3b", messages=HELLO) for _ in range(4)]
        for _ in range(2):
            for fleet in self.fleets:
                asyncio.run(send(fleet.url, hello, 4))
            self.prometheus.scraped()

    def stop(self):
        """End everything."""
        self.prometheus.stop()
        for fleet in self.fleets:
            fleet.nodes.stop()
            fleet.router.stop()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Both, for all of these tests."""
    running = Two(tmp_path_factory.mktemp("two"))
    try:
        running.run()
        yield running
    finally:
        running.stop()


def drawn_as(target, sample):
    """What tells a series or a row from the others of its query: its legend, or in a table its labels."""
    labels = {name: value for name, value in sample["metric"].items() if name != "__name__"}
    if target["format"] == "table" or target["legendFormat"] == "__auto":
        return tuple(sorted(labels.items()))
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), target["legendFormat"])


@pytest.mark.parametrize(("name", "panel", "target"), TARGETS, **NAMED)
def test_nothing_is_drawn_twice_under_one_name(two, name, panel, target):
    """Two lines with one legend are read as one; a query that cannot join two routers' series is an error."""
    found = two.prometheus.query(filled_in(target["expr"], WINDOW))
    drawn = [drawn_as(target, sample) for sample in found]
    assert len(drawn) == len(set(drawn)), drawn
    if panel["type"] == "stat" and "{{instance}}" not in target["legendFormat"]:
        assert len(drawn) <= 1, "a single figure is one for all routers that are chosen"


@pytest.mark.parametrize(("name", "panel", "target"), TARGETS, **NAMED)
def test_every_query_asks_for_the_chosen_routers_alone(two, name, panel, target):
    """A figure of the whole house on a page that says office."""
    asked = [found[0] for found in HERD_S.finditer(target["expr"]) if not found[0].startswith("herd_agent_")]
    assert all('instance=~"$instance"' in each for each in asked)
    nobody = filled_in(target["expr"].removesuffix(" or vector(0)"), WINDOW, instance="nobody")
    assert not asked or two.prometheus.query(nobody) == []


def test_a_choice_of_one_router_shows_that_router_s_figures(two):
    """Both served as many, so the sum of both would be seen."""
    target = next(target for _, panel, target in TARGETS if panel["title"] == "Nodes ready")
    ready = [two.prometheus.value(filled_in(target["expr"], WINDOW, instance=one)) for one in two.instances]
    assert (ready, two.prometheus.value(filled_in(target["expr"], WINDOW))) == ([1, 1], 2)

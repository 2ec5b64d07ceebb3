"""The reference says what the code does, all of it, and the files in docs/ say what the reference says."""

import json
import re
import subprocess
import sys

import pytest

from herd.core.dialects import ENDPOINTS
from herd.core.errors import error_types
from herd.core.events import Status
from herd.core.routing import RejectionReason
from herd.core.signals import SIGNALS
from herd.reference.entries import operations
from herd.reference.pages import ENDINGS, TOPICS
from herd.routes.inference import MANAGED
from herd.settings.table import TABLE
from herd.sim import Fault, FaultKind, SimConfig
from herd.telemetry.catalog import METRICS
from tests.cli.conftest import LLAMA, ROOT, Herd, Served
from tests.harness import Nodes, Router, free_port, until

BY_TASK = [pytest.param(each["command"], id=f"{each['task']}-{number}") for number, each in enumerate(operations())]
NOT_RUN = {"Start", "Start with other settings"}  # they install, or start what does not end


@pytest.mark.parametrize("topic", TOPICS)
def test_the_file_in_docs_is_what_the_command_prints(topic):
    """`make docs` was forgotten if this fails; run it."""
    path = ROOT / "docs" / f"{topic}.md"
    assert path.read_text(encoding="utf-8") == TOPICS[topic].markdown()


@pytest.mark.parametrize(
    ("topic", "names"),
    [
        ("settings", [setting.name for setting in TABLE]),
        ("metrics", [metric.name for metric in METRICS]),
        ("errors", [*error_types(), *(status.value for status in Status)]),
        ("signals", [*SIGNALS, *(reason.value for reason in RejectionReason)]),
        ("endpoints", [*ENDPOINTS, *MANAGED, "/api/blobs/{digest}"]),
    ],
)
def test_nothing_that_exists_is_undocumented(topic, names):
    """What is not in the reference is found by accident only."""
    page = TOPICS[topic].markdown()
    assert [name for name in names if f"| `{name}` |" not in page] == []


def test_every_route_of_a_running_router_is_documented(served):
    """A new surface must not be forgotten in the list that the page is made from."""
    page = TOPICS["endpoints"].markdown()
    paths = served.router.get("/openapi.json")["paths"]
    assert [path for path in paths if f"| `{path}` |" not in page] == []


def test_every_way_in_which_a_request_can_end_has_its_sentence():
    """A status that nobody explains is taken for the wrong one."""
    assert set(ENDINGS) == set(Status)


def test_no_setting_metric_or_endpoint_is_documented_that_does_not_exist():
    """A reference that promises more than there is costs more than a missing line."""
    assert len(TOPICS["settings"].entries()) == len(TABLE)
    assert len(TOPICS["metrics"].entries()) == len(METRICS)
    known = {entry["path"] for entry in TOPICS["endpoints"].entries()}
    asked = re.findall(r"localhost:11435(/[\w/]*)", TOPICS["operations"].markdown())
    shown = {path.replace("NODE_ID", "{node_id}") for path in asked}
    assert shown <= known


def test_docs_without_a_topic_lists_the_topics(inside):
    """The way in for someone who does not know the names."""
    told = inside("docs")
    assert told.returncode == 0
    assert [topic for topic in TOPICS if f"\n{topic} " not in told.stdout] == []


def test_an_unknown_topic_is_answered_with_the_known_ones(inside):
    """`herd docs metric` is one letter away."""
    told = inside("docs", "metric")
    assert told.returncode == 1
    assert "metrics" in told.stderr


def test_a_topic_in_a_pipe_is_its_markdown(inside):
    """It is read by other programs, and by people in their own viewer."""
    assert inside("docs", "errors").stdout == TOPICS["errors"].markdown()


def test_a_topic_in_json_is_its_entries(inside):
    """A script that needs the default of a setting must not parse a table."""
    entries = json.loads(inside("docs", "settings", "--json").stdout)["entries"]
    assert {entry["name"]: entry["default"] for entry in entries} == {row.name: row.default for row in TABLE}


def test_write_makes_a_file_of_each_topic(inside, tmp_path):
    """It is what `make docs` calls."""
    assert inside("docs", "--write", str(tmp_path / "docs")).returncode == 0
    assert {path.name for path in (tmp_path / "docs").iterdir()} == {f"{topic}.md" for topic in TOPICS}


@pytest.fixture(scope="module")
def operated(tmp_path_factory):
    """A fleet with something of everything that the operator's commands ask about."""
    home = tmp_path_factory.mktemp("operated")
    # Three of two dozen fail here on purpose: no health check shall judge so few.
    router = Router(home, free_port(), HERD_HEALTH_MIN_REQUESTS="100")
    fleet = Served(router, Nodes(), Herd(home, 0))
    fleet.router.start()
    for name in ("here", "there"):
        fleet.nodes.start(SimConfig(name, models=(LLAMA,), preload=("llama3.2:3b",), router_url=fleet.url))
    until(lambda: fleet.router.online() == 2, "both nodes are online")
    for _ in range(20):  # as many as a plan takes at the least
        fleet.ask(None, stream=True, options={"num_ctx": 1024}, metadata={"tags": ["prod"]})
    fleet.ask(None, model="absent:1b", fallback_models=["llama3.2:3b"])
    fleet.ask(None, options={"num_predict": 3})
    for fault in (Fault(FaultKind.CUT, times=1, after=300), Fault(FaultKind.HTTP_500, times=1)):
        for node in fleet.nodes.nodes.values():
            node.script(fault)
        fleet.ask("asked-for" if fault.kind is FaultKind.CUT else None, stream=fault.kind is FaultKind.CUT)
        for node in fleet.nodes.nodes.values():
            fleet.nodes.call(node.clear())
    until(lambda: len(fleet.router.rows()) == 24, "all rows are there")
    until(lambda: len(fleet.router.lines()) == 24, "all lines are there")
    yield fleet
    fleet.nodes.stop()
    fleet.router.stop()


@pytest.mark.parametrize("command", [each for each in BY_TASK if each.id.rpartition("-")[0] not in NOT_RUN])
def test_the_operators_commands_work_as_printed(operated, command):
    """A command that is copied out of a document and fails costs the trust in all others."""
    here = command.replace("localhost:11435", f"localhost:{operated.router.port}")
    here = here.replace("REQUEST_ID", "asked-for").replace("NODE_ID", "there")
    script = f'set -e; herd() {{ "{sys.executable}" -m herd "$@"; }}\n{here}'
    environment = {**operated.router.environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
    assert '"detail"' not in done.stdout

"""The operator's commands work as printed: each test runs the shell command itself against a running router."""

import asyncio
import json
import re
import subprocess

import httpx
import pytest

from herd.core.health.checks import CHECKS
from herd.reference.entries import operations
from herd.sim import Fault, FaultKind
from herd.store.rows import TRACE_COLUMNS
from tests import printed
from tests.e2e.conftest import MACHINES, started
from tests.e2e.traffic import HELLO, ask, send
from tests.harness import until


@pytest.fixture(scope="module")
def operated(tmp_path_factory):
    """A fleet with a day's worth of everything that the commands ask about."""
    fleet = started(tmp_path_factory.mktemp("operated"), *MACHINES, HERD_RETRIES="1")
    chat = ask("/api/chat", model="llama3.3:70b", messages=HELLO, metadata={"tags": ["devops-prod"]})
    gentle = [chat] * 12 + [
        ask("/api/chat", model="absent:1b", fallback_models=["llama3.2:3b"], messages=HELLO),
        ask("/api/chat", model="llama3.2:3b", messages=HELLO, options={"num_ctx": 2048}),
    ]
    asyncio.run(send(fleet.url, gentle, 4))
    for kind in (FaultKind.HTTP_500, FaultKind.CUT):
        for node_id in fleet.nodes.nodes:
            fleet.nodes.script(node_id, Fault(kind, times=2, after=300 if kind is FaultKind.CUT else 0))
        body = {"model": "llama3.2:3b", "messages": HELLO}
        assert shell(fleet, f"curl -s http://localhost:11435/api/chat -d '{json.dumps(body)}'")
        fleet.nodes.clear()
    until(lambda: len(fleet.router.rows()) >= 16, "all rows are there")
    until(lambda: len(fleet.router.lines()) >= 16, "all lines are there")
    until(lambda: fallbacks(fleet.router.get("/dashboard/api/health")), "health has looked since then")
    yield fleet
    fleet.nodes.stop()
    fleet.router.stop()


def shell(fleet, command):
    """What a command says that is run as printed, at this router's port and in its home."""
    here = command.replace("localhost:11435", f"localhost:{fleet.router.port}")
    environment = fleet.router.environment()
    done = subprocess.run(
        ["bash", "-c", here], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def document(fleet, command):
    return json.loads(shell(fleet, command))


def columns(fleet, command):
    """The rows that `sqlite3` prints, split at its bars."""
    return [line.split("|") for line in shell(fleet, command).splitlines()]


def test_health_lists_every_check_with_what_to_do(operated):
    """The first thing that anybody runs."""
    found = document(operated, printed.HEALTH)
    assert {row["check_id"] for row in found["checks"]} == {check.check_id for check in CHECKS}
    (fallback,) = fallbacks(found)
    assert (fallback["severity"], bool(fallback["fix"])) == ("info", True)
    assert 0 <= found["health_score"] <= 100


def fallbacks(found):
    return [each for each in found["recommendations"] if each["check_id"] == "vram_fallback"]


def test_fleet_status_by_the_printed_one_liner(operated):
    """Nodes and their memory in a few lines."""
    out = shell(operated, printed.FLEET)
    assert "DevOps Fleet: 3/3 online, 0 active requests" in out
    assert "studio               online     CPU=" in out
    assert "/192GB pressure=normal" in out


def test_traces_have_every_field_that_the_document_names(operated):
    """Scripts read these names."""
    traces = document(operated, printed.TRACES)["traces"]
    assert len(traces) >= 16
    names = ("request_id model original_model node_id score scores_breakdown status latency_ms time_to_first_token_ms "
             "prompt_tokens completion_tokens retry_count fallback_used tags")  # fmt: skip
    assert all(name in trace for trace in traces for name in names.split())
    assert all(len(trace["scores_breakdown"]) == 8 for trace in traces if trace["node_id"])


def test_recent_failures_with_error_details(operated):
    """The second thing that anybody runs."""
    found = columns(operated, printed.FAILURES)
    assert len(found) == 1
    assert found[0][1] == "llama3.2:3b"
    assert found[0][3]


def test_how_often_nodes_were_retried(operated):
    """Which node needs attention."""
    found = columns(operated, printed.RETRIES)
    assert sum(int(row[1]) for row in found) >= 1
    assert sum(int(row[2]) for row in found) >= 16


def test_how_often_which_fallback_answered(operated):
    """Which models are not what was asked for."""
    assert columns(operated, printed.FALLBACKS) == [["absent:1b", "llama3.2:3b", "1"]]


def test_latency_percentiles_by_model(operated):
    """The query has a window function and two levels; it must run as it stands."""
    found = columns(operated, printed.PERCENTILES)
    assert [row[0] for row in found] == ["llama3.3:70b"]
    assert int(found[0][4]) >= 12


def test_time_to_first_token_by_node_and_model(operated):
    """Cold loads show here."""
    found = columns(operated, printed.FIRST_TOKEN)
    assert [row[:2] for row in found] == [["studio", "llama3.3:70b"]]


def test_the_slowest_requests_with_what_they_were(operated):
    """Outliers, with what they were."""
    found = columns(operated, printed.SLOWEST)
    assert len(found) == 10
    assert all(int(row[4]) > 0 and int(row[5]) > 0 for row in found)


@pytest.mark.parametrize("command", [printed.TAG_IN_BODY, printed.TAG_IN_HEADER], ids=["body", "header"])
def test_a_request_is_tagged_by_its_body_or_its_header(operated, command):
    """`curl -d` calls its JSON a form; that must not matter."""
    before = len(tagged(operated))
    assert document(operated, command)["choices"][0]["message"]["content"]
    until(lambda: len(tagged(operated)) == before + 1, "the tags are in its row")


def tagged(fleet):
    rows = fleet.router.rows("tags IS NOT NULL")
    return [row for row in rows if json.loads(row["tags"]) == ["devops-prod", "devops-code-review"]]


def test_usage_by_application_over_http(operated):
    """Who uses the fleet."""
    apps = {app["tag"]: app for app in document(operated, printed.APPS)["data"]}
    assert apps["devops-prod"]["request_count"] >= 12
    assert apps["devops-prod"]["error_rate_pct"] == 0
    assert {"day", "tag"} <= document(operated, printed.APPS_DAILY)["data"][0].keys()


def test_usage_by_application_in_sql(operated):
    """Tags are a JSON array that json_each opens."""
    found = columns(operated, printed.TAG_TOKENS)
    assert found[0][0] == "devops-prod"
    assert int(found[0][1]) >= 12


def test_requests_by_hour_and_by_day(operated):
    """Peak times, and growth."""
    hours, days = columns(operated, printed.HOURS), columns(operated, printed.DAYS)
    assert sum(int(row[1]) for row in hours) == sum(int(row[1]) for row in days) >= 16
    assert 0 <= int(hours[0][0]) < 24


def test_recommendations_for_each_machine(operated):
    """What fits where, and what is there already."""
    nodes = document(operated, printed.RECOMMENDATIONS)["nodes"]
    assert {node["node_id"] for node in nodes} == {machine.node_id for machine in MACHINES}
    models = [model for node in nodes for model in node["recommended_models"]]
    assert {"model", "ram_gb", "quality_score", "reason", "priority", "already_available"} <= models[0].keys()
    assert any(model["already_available"] is True for model in models)


def test_usage_by_node_model_and_day(operated):
    """Capacity planning begins here."""
    assert "studio" in {row["node_id"] for row in document(operated, printed.USAGE)["data"]}


def test_a_setting_is_changed_and_seen_and_kept(operated):
    """`false` switches off what was on, and the file says so at the next start."""
    shell(operated, printed.CHANGE_SETTING.replace("false", "true"))
    assert setting(operated, "auto_pull") == (True, "run time")
    changed = document(operated, printed.CHANGE_SETTING)["changed"]
    assert (changed["auto_pull"]["before"], changed["auto_pull"]["value"]) == (True, False)
    assert setting(operated, "auto_pull")[0] is False
    assert "auto_pull = false" in (operated.router.data_dir / "config.toml").read_text()


def setting(fleet, name):
    rows = document(fleet, printed.SETTINGS)["settings"]
    return next((row["value"], row["source"]) for row in rows if row["name"] == name)


def test_recent_errors_are_found_by_grep(operated):
    """The space behind the colon is part of the contract."""
    lines = shell(operated, printed.ERRORS).splitlines()
    assert {"request_finished"} <= {json.loads(line)["event"] for line in lines}
    assert document(operated, printed.ERRORS_READABLE)["level"] == "ERROR"


def test_context_protection_is_found_by_grep(operated):
    """A num_ctx that was taken out must be told somewhere."""
    line = json.loads(shell(operated, printed.PROTECTIONS).splitlines()[0])
    assert line["event"].startswith("Context protection: ")
    assert line["request_id"]


def test_stream_errors_are_found_by_grep(operated):
    """Answers that broke off in the middle."""
    line = json.loads(shell(operated, printed.STREAM_ERRORS).splitlines()[0])
    assert (line["level"], line["event"][:13]) == ("ERROR", "Stream error ")
    assert operated.router.row(line["request_id"])["status"] == "incomplete"


def test_the_page_is_at_the_printed_address(operated):
    """It is the last line of the document, and the first that most people try."""
    answer = httpx.get(f"{operated.url}/dashboard")
    assert (answer.status_code, answer.headers["content-type"][:9]) == (200, "text/html")


@pytest.mark.parametrize("name", printed.ALL)
def test_each_printed_command_has_its_own_form_in_the_projects_list(name):
    """Who reads `herd docs operations` must not miss what the operator's document can do."""
    wanted = asks(printed.ALL[name])
    assert wanted
    assert any(wanted <= asks(entry["command"]) for entry in operations()), wanted


def asks(command):
    """What a command is about: its paths, its columns, and the words that make it the command it is."""
    paths = set(re.findall(r"localhost:11435(/[\w/]+)", command))
    named = r'X-Herd-Tags|"tags"|POST|"level": "ERROR"|Context protection|Stream error|PERCENT_RANK|json_each'
    found = set(re.findall(rf"{named}|json\.tool|sqlite3|grep", command))
    return paths | found | (set(re.findall(r"\w+", command)) & set(TRACE_COLUMNS) if "sqlite3" in found else set())

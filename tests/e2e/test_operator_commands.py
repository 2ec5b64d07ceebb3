"""The operator's commands work as printed: each test runs the shell command itself against a running router.

Two of the printed commands cannot work anywhere: the fleet one-liner lost its indentation, which is put back here, and
a grep of several lines piped into `json.tool`, which takes one document; there the grep alone is tested.
"""

import asyncio
import json
import subprocess

import pytest

from herd.sim import Fault, FaultKind
from tests.e2e.conftest import MACHINES, started
from tests.e2e.traffic import HELLO, ask, send
from tests.harness import until

DB = "~/.fleet-manager/latency.db"
LOG = "~/.fleet-manager/logs/herd.jsonl"


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
        process = shell(fleet, f"curl -s http://localhost:11435/api/chat -d '{json.dumps(body)}'")
        assert process.stdout
        fleet.nodes.clear()
    until(lambda: len(fleet.router.rows()) >= 16, "all rows are there")
    yield fleet
    fleet.nodes.stop()
    fleet.router.stop()


def shell(fleet, command):
    """Run a command as printed, at this router's port and in its home."""
    here = command.replace("localhost:11435", f"localhost:{fleet.router.port}")
    environment = fleet.router.environment()
    return subprocess.run(["bash", "-c", here], env=environment, capture_output=True, text=True, timeout=30, check=True)


def sql(fleet, query):
    """The rows that `sqlite3` prints, split at its bars."""
    printed = shell(fleet, f'sqlite3 {DB} "{query}"').stdout
    return [line.split("|") for line in printed.splitlines()]


def test_fleet_status_by_the_printed_one_liner(operated):
    """The first thing that anybody runs."""
    out = shell(
        operated,
        r'''devops_fleet_status=$(curl -s http://localhost:11435/fleet/status)
echo "$devops_fleet_status" | python3 -c "
import sys, json
d = json.load(sys.stdin)
print(f\"DevOps Fleet: {d['fleet']['nodes_online']}/{d['fleet']['nodes_total']} online, {d['fleet']['requests_active']} active requests\")
for n in d['nodes']:
    mem = n.get('memory', {})
    cpu = n.get('cpu', {})
    print(f\" {n['node_id']:20s} {n['status']:10s} CPU={cpu.get('utilization_pct',0):.0f}% MEM={mem.get('used_gb',0):.0f}/{mem.get('total_gb',0):.0f}GB pressure={mem.get('pressure','?')}\")
"''',  # noqa: E501 - as printed
    ).stdout
    assert "DevOps Fleet: 3/3 online, 0 active requests" in out
    assert "studio               online     CPU=" in out
    assert "/192GB pressure=normal" in out


def test_traces_have_every_field_that_the_document_names(operated):
    """Scripts read these names."""
    out = shell(operated, 'devops_traces=$(curl -s "http://localhost:11435/dashboard/api/traces?limit=20")\n'
                          'echo "$devops_traces" | python3 -m json.tool').stdout  # fmt: skip
    traces = json.loads(out)["traces"]
    assert len(traces) >= 16
    names = ("request_id model original_model node_id score scores_breakdown status latency_ms time_to_first_token_ms "
             "prompt_tokens completion_tokens retry_count fallback_used tags")  # fmt: skip
    assert all(name in trace for trace in traces for name in names.split())
    assert all(len(trace["scores_breakdown"]) == 8 for trace in traces if trace["node_id"])


def test_recent_failures_with_error_details(operated):
    """The second thing that anybody runs."""
    found = sql(
        operated,
        "SELECT request_id, model, node_id, error_message, latency_ms/1000.0 as secs, datetime(timestamp, 'unixepoch', "
        "'localtime') as time FROM request_traces WHERE status='failed' ORDER BY timestamp DESC LIMIT 20",
    )
    assert len(found) == 1
    assert found[0][1] == "llama3.2:3b"
    assert found[0][3]


def test_how_often_nodes_were_retried(operated):
    """Which node needs attention."""
    found = sql(
        operated,
        "SELECT node_id, SUM(retry_count) as retries, COUNT(*) as total, ROUND(100.0 * SUM(CASE WHEN status='failed' "
        "THEN 1 ELSE 0 END) / COUNT(*), 1) as fail_pct FROM request_traces GROUP BY node_id ORDER BY fail_pct DESC",
    )
    assert sum(int(row[1]) for row in found) >= 1
    assert sum(int(row[2]) for row in found) >= 16


def test_how_often_which_fallback_answered(operated):
    """Which models are not what was asked for."""
    found = sql(
        operated,
        "SELECT original_model, model as fell_back_to, COUNT(*) as n FROM request_traces WHERE fallback_used=1 "
        "GROUP BY original_model, model ORDER BY n DESC",
    )
    assert found == [["absent:1b", "llama3.2:3b", "1"]]


def test_latency_percentiles_by_model(operated):
    """The query has a window function and two levels; it must run as it stands."""
    found = sql(
        operated,
        """
WITH ranked AS (
SELECT model, latency_ms,
PERCENT_RANK() OVER (PARTITION BY model ORDER BY latency_ms) as pct
FROM request_traces WHERE status='completed'
)
SELECT model,
ROUND(MIN(CASE WHEN pct >= 0.5 THEN latency_ms END)/1000.0, 1) as p50_s,
ROUND(MIN(CASE WHEN pct >= 0.75 THEN latency_ms END)/1000.0, 1) as p75_s,
ROUND(MIN(CASE WHEN pct >= 0.99 THEN latency_ms END)/1000.0, 1) as p99_s,
COUNT(*) as n
FROM ranked GROUP BY model HAVING n > 10 ORDER BY p75_s DESC
""",
    )
    assert [row[0] for row in found] == ["llama3.3:70b"]
    assert int(found[0][4]) >= 12


def test_time_to_first_token_by_node_and_model(operated):
    """Cold loads show here."""
    found = sql(
        operated,
        "SELECT node_id, model, ROUND(AVG(time_to_first_token_ms), 0) as avg_ttft_ms, "
        "ROUND(MAX(time_to_first_token_ms), 0) as max_ttft_ms, COUNT(*) as n FROM request_traces "
        "WHERE time_to_first_token_ms IS NOT NULL GROUP BY node_id, model HAVING n > 5 ORDER BY avg_ttft_ms DESC",
    )
    assert [row[:2] for row in found] == [["studio", "llama3.3:70b"]]


def test_the_slowest_requests_with_what_they_were(operated):
    """Outliers, with what they were."""
    found = sql(
        operated,
        "SELECT request_id, model, node_id, ROUND(latency_ms/1000.0, 1) as secs, prompt_tokens, completion_tokens, "
        "retry_count, datetime(timestamp, 'unixepoch', 'localtime') as time FROM request_traces "
        "WHERE status='completed' ORDER BY latency_ms DESC LIMIT 10",
    )
    assert len(found) == 10
    assert all(int(row[4]) > 0 and int(row[5]) > 0 for row in found)


def test_a_request_is_tagged_by_its_body(operated):
    """As an application that can change its body does it."""
    out = shell(operated, '''curl -s http://localhost:11435/v1/chat/completions \\
-H "Content-Type: application/json" \\
-d '{"model":"llama3.3:70b","messages":[{"role":"user","content":"Hello"}],"metadata":{"tags":["devops-prod","devops-code-review"]}}'
''').stdout  # noqa: E501
    assert json.loads(out)["choices"][0]["message"]["content"]
    until(lambda: ["devops-prod", "devops-code-review"] in tags(operated), "the tags are in its row")


def test_a_request_is_tagged_by_its_header_with_the_content_type_of_curl(operated):
    """`curl -d` calls its JSON a form; that must not matter."""
    out = shell(operated, '''curl -s -H "X-Herd-Tags: devops-prod, devops-header" \\
http://localhost:11435/v1/chat/completions \\
-d '{"model":"llama3.3:70b","messages":[{"role":"user","content":"Hello"}]}'
''').stdout
    assert json.loads(out)["choices"][0]["message"]["content"]
    until(lambda: ["devops-prod", "devops-header"] in tags(operated), "the tags are in its row")


def tags(fleet):
    return [json.loads(row["tags"]) for row in fleet.router.rows("tags IS NOT NULL")]


def test_usage_by_application_over_http(operated):
    """Who uses the fleet."""
    out = json.loads(shell(operated, "curl -s http://localhost:11435/dashboard/api/apps | python3 -m json.tool").stdout)
    apps = {app["tag"]: app for app in out["data"]}
    assert apps["devops-prod"]["request_count"] >= 12
    assert apps["devops-prod"]["error_rate_pct"] == 0
    daily = shell(operated, "curl -s http://localhost:11435/dashboard/api/apps/daily | python3 -m json.tool").stdout
    assert {"day", "tag"} <= json.loads(daily)["data"][0].keys()


def test_usage_by_application_in_sql(operated):
    """Tags are a JSON array that json_each opens."""
    found = sql(
        operated,
        "SELECT j.value as devops_tag, COUNT(*) as requests, SUM(COALESCE(prompt_tokens,0)) as prompt_tok, "
        "SUM(COALESCE(completion_tokens,0)) as completion_tok, SUM(COALESCE(prompt_tokens,0)+"
        "COALESCE(completion_tokens,0)) as total_tok FROM request_traces, json_each(tags) j WHERE tags IS NOT NULL "
        "GROUP BY j.value ORDER BY total_tok DESC",
    )
    assert found[0][0] == "devops-prod"
    assert int(found[0][1]) >= 12


def test_requests_by_hour_and_by_day(operated):
    """Peak times, and growth."""
    hours = sql(
        operated,
        "SELECT CAST((timestamp % 86400) / 3600 AS INTEGER) as hour_utc, COUNT(*) as requests, "
        "ROUND(AVG(latency_ms)/1000.0, 1) as avg_secs FROM request_traces GROUP BY hour_utc ORDER BY hour_utc",
    )
    days = sql(
        operated,
        "SELECT date(timestamp, 'unixepoch') as day, COUNT(*) as requests, SUM(COALESCE(prompt_tokens,0)+"
        "COALESCE(completion_tokens,0)) as tokens FROM request_traces GROUP BY day ORDER BY day DESC LIMIT 14",
    )
    assert sum(int(row[1]) for row in hours) == sum(int(row[1]) for row in days) >= 16
    assert 0 <= int(hours[0][0]) < 24


def test_usage_by_node_model_and_day(operated):
    """Capacity planning begins here."""
    out = shell(operated, "curl -s http://localhost:11435/dashboard/api/usage | python3 -m json.tool").stdout
    assert "studio" in {row["node_id"] for row in json.loads(out)["data"]}


def test_recent_errors_are_found_by_grep(operated):
    """The space behind the colon is part of the contract."""
    lines = shell(operated, f"grep '\"level\": \"ERROR\"' {LOG} | tail -10").stdout.splitlines()
    assert {"request_finished"} <= {json.loads(line)["event"] for line in lines}
    one = shell(operated, f"grep '\"level\": \"ERROR\"' {LOG} | tail -1 | python3 -m json.tool").stdout
    assert json.loads(one)["level"] == "ERROR"


def test_context_protection_is_found_by_grep(operated):
    """A num_ctx that was taken out must be told somewhere."""
    line = json.loads(shell(operated, f'grep "Context protection" {LOG} | tail -10').stdout.splitlines()[0])
    assert line["event"].startswith("Context protection: ")
    assert line["request_id"]


def test_stream_errors_are_found_by_grep(operated):
    """Answers that broke off in the middle."""
    line = json.loads(shell(operated, f'grep "Stream error" {LOG} | tail -10').stdout.splitlines()[0])
    assert (line["level"], line["event"][:13]) == ("ERROR", "Stream error ")
    assert operated.router.row(line["request_id"])["status"] == "incomplete"

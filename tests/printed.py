"""The operator's commands, letter by letter; tests run them, and hold the project's own beside them.

Two of them cannot work anywhere as they were printed: the fleet one-liner lost its indentation, which is put back here,
and a grep of ten lines is piped into `json.tool`, which takes one document (`ERRORS_READABLE` has one line).
"""

HEALTH = """devops_health=$(curl -s http://localhost:11435/dashboard/api/health)
echo "$devops_health" | python3 -m json.tool"""

FLEET = r'''devops_fleet_status=$(curl -s http://localhost:11435/fleet/status)
echo "$devops_fleet_status" | python3 -c "
import sys, json
d = json.load(sys.stdin)
print(f\"DevOps Fleet: {d['fleet']['nodes_online']}/{d['fleet']['nodes_total']} online, {d['fleet']['requests_active']} active requests\")
for n in d['nodes']:
    mem = n.get('memory', {})
    cpu = n.get('cpu', {})
    print(f\" {n['node_id']:20s} {n['status']:10s} CPU={cpu.get('utilization_pct',0):.0f}% MEM={mem.get('used_gb',0):.0f}/{mem.get('total_gb',0):.0f}GB pressure={mem.get('pressure','?')}\")
"'''  # noqa: E501 - as printed

TRACES = """devops_traces=$(curl -s "http://localhost:11435/dashboard/api/traces?limit=20")
echo "$devops_traces" | python3 -m json.tool"""

FAILURES = """sqlite3 ~/.fleet-manager/latency.db "SELECT request_id, model, node_id, error_message, latency_ms/1000.0 as secs, datetime(timestamp, 'unixepoch', 'localtime') as time FROM request_traces WHERE status='failed' ORDER BY timestamp DESC LIMIT 20\""""  # noqa: E501 - as printed

RETRIES = """sqlite3 ~/.fleet-manager/latency.db "SELECT node_id, SUM(retry_count) as retries, COUNT(*) as total, ROUND(100.0 * SUM(CASE WHEN status='failed' THEN 1 ELSE 0 END) / COUNT(*), 1) as fail_pct FROM request_traces GROUP BY node_id ORDER BY fail_pct DESC\""""  # noqa: E501 - as printed

FALLBACKS = """sqlite3 ~/.fleet-manager/latency.db "SELECT original_model, model as fell_back_to, COUNT(*) as n FROM request_traces WHERE fallback_used=1 GROUP BY original_model, model ORDER BY n DESC\""""  # noqa: E501 - as printed

PERCENTILES = """sqlite3 ~/.fleet-manager/latency.db "
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
\""""

FIRST_TOKEN = """sqlite3 ~/.fleet-manager/latency.db "SELECT node_id, model, ROUND(AVG(time_to_first_token_ms), 0) as avg_ttft_ms, ROUND(MAX(time_to_first_token_ms), 0) as max_ttft_ms, COUNT(*) as n FROM request_traces WHERE time_to_first_token_ms IS NOT NULL GROUP BY node_id, model HAVING n > 5 ORDER BY avg_ttft_ms DESC\""""  # noqa: E501 - as printed

SLOWEST = """sqlite3 ~/.fleet-manager/latency.db "SELECT request_id, model, node_id, ROUND(latency_ms/1000.0, 1) as secs, prompt_tokens, completion_tokens, retry_count, datetime(timestamp, 'unixepoch', 'localtime') as time FROM request_traces WHERE status='completed' ORDER BY latency_ms DESC LIMIT 10\""""  # noqa: E501 - as printed

TAG_IN_BODY = """curl -s http://localhost:11435/v1/chat/completions \\
-H "Content-Type: application/json" \\
-d '{"model":"llama3.3:70b","messages":[{"role":"user","content":"Hello"}],"metadata":{"tags":["devops-prod","devops-code-review"]}}'"""  # noqa: E501 - as printed

TAG_IN_HEADER = """curl -s -H "X-Herd-Tags: devops-prod, devops-code-review" \\
http://localhost:11435/v1/chat/completions \\
-d '{"model":"llama3.3:70b","messages":[{"role":"user","content":"Hello"}]}'"""

APPS = "curl -s http://localhost:11435/dashboard/api/apps | python3 -m json.tool"
APPS_DAILY = "curl -s http://localhost:11435/dashboard/api/apps/daily | python3 -m json.tool"

TAG_TOKENS = """sqlite3 ~/.fleet-manager/latency.db "SELECT j.value as devops_tag, COUNT(*) as requests, SUM(COALESCE(prompt_tokens,0)) as prompt_tok, SUM(COALESCE(completion_tokens,0)) as completion_tok, SUM(COALESCE(prompt_tokens,0)+COALESCE(completion_tokens,0)) as total_tok FROM request_traces, json_each(tags) j WHERE tags IS NOT NULL GROUP BY j.value ORDER BY total_tok DESC\""""  # noqa: E501 - as printed

HOURS = """sqlite3 ~/.fleet-manager/latency.db "SELECT CAST((timestamp % 86400) / 3600 AS INTEGER) as hour_utc, COUNT(*) as requests, ROUND(AVG(latency_ms)/1000.0, 1) as avg_secs FROM request_traces GROUP BY hour_utc ORDER BY hour_utc\""""  # noqa: E501 - as printed

DAYS = """sqlite3 ~/.fleet-manager/latency.db "SELECT date(timestamp, 'unixepoch') as day, COUNT(*) as requests, SUM(COALESCE(prompt_tokens,0)+COALESCE(completion_tokens,0)) as tokens FROM request_traces GROUP BY day ORDER BY day DESC LIMIT 14\""""  # noqa: E501 - as printed

RECOMMENDATIONS = """devops_recommendations=$(curl -s http://localhost:11435/dashboard/api/recommendations)
echo "$devops_recommendations" | python3 -m json.tool"""

USAGE = "curl -s http://localhost:11435/dashboard/api/usage | python3 -m json.tool"
SETTINGS = "curl -s http://localhost:11435/dashboard/api/settings | python3 -m json.tool"

CHANGE_SETTING = """curl -s -X POST http://localhost:11435/dashboard/api/settings \\
-H "Content-Type: application/json" \\
-d '{"auto_pull": false}'"""

ERRORS = """grep '"level": "ERROR"' ~/.fleet-manager/logs/herd.jsonl | tail -10"""
ERRORS_READABLE = """grep '"level": "ERROR"' ~/.fleet-manager/logs/herd.jsonl | tail -1 | python3 -m json.tool"""
PROTECTIONS = 'grep "Context protection" ~/.fleet-manager/logs/herd.jsonl | tail -10'
STREAM_ERRORS = 'grep "Stream error" ~/.fleet-manager/logs/herd.jsonl | tail -10'

ALL = {name: text for name, text in list(vars().items()) if name.isupper()}

"""Every inference path on both engines leaves a whole row, and all records agree about it."""

import json

import pytest

from tests.real.asks import ASKS, NODE_OF, WORDS, post

pytestmark = pytest.mark.real
# Whether there are prompt tokens, the answer's tokens, and where the counts come from.
COUNTED = {"both": (True, WORDS, "reported"), "prompt": (True, None, "reported"), "none": (False, None, "missing")}


def test_the_four_records_agree_about_all_that_the_real_engines_served(fleet):
    """It runs last: rows, log lines and counters of everything that the other tests did with this fleet."""
    audit = fleet.audit()
    assert audit.returncode == 0, audit.stdout + audit.stderr


@pytest.mark.parametrize(("model", "ask"), ASKS, ids=str)
def test_every_inference_path_leaves_a_whole_row(fleet, model, ask):
    """Tokens, times and the end of an answer are read from a real engine's own words."""
    answer = post(fleet.url, ask.path, model, **ask.body)
    row = fleet.router.row(answer.headers["x-request-id"])
    assert (row["status"], row["http_status"], row["endpoint"]) == ("completed", 200, ask.path)
    assert (row["node_id"], row["model"], row["error_type"]) == (NODE_OF[model], f"{model}:latest", None)
    assert (row["stream"], row["time_to_first_token_ms"] is not None) == (ask.stream, ask.stream)
    counted = (row["prompt_tokens"] or 0) > 0, row["completion_tokens"], row["tokens_source"]
    assert counted == ((False, WORDS, "counted") if unreported(model, ask) else COUNTED[ask.counts])
    assert fleet.router.metric("herd_requests_total", endpoint=ask.path, model=f"{model}:latest", status="completed")


def unreported(model, ask):
    """Ollama's plain completions carry no usage unless it is asked for, and herd does not ask there."""
    return model == "solo" and str(ask) == "/v1/completions stream"


@pytest.mark.parametrize("model", ["solo", "cpp"])
def test_a_row_tells_how_a_real_decision_was_made(fleet, model):
    """`explain` must work for what real agents reported, not only for simulated numbers."""
    answer = post(fleet.url, "/v1/chat/completions", model, messages=[{"role": "user", "content": "?"}], max_tokens=2)
    row = fleet.router.row(answer.headers["x-request-id"])
    assert len(json.loads(row["scores_breakdown"])) == 8
    found = fleet.router.get(f"/dashboard/api/traces/{row['request_id']}")
    assert [candidate["node_id"] for candidate in found["decision"]["plan"]] == [NODE_OF[model]]
    left_out = {entry["node_id"]: entry["reason"] for entry in found["decision"]["rejected"]}
    assert left_out["slowcpp"] == left_out[NODE_OF["cpp" if model == "solo" else "solo"]] == "model_absent"

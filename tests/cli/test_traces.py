"""`herd traces`: the latest requests, from a router or from a database."""

import json
from contextlib import closing

import pytest

from herd.commands.output import harmless
from herd.store import schema
from herd.store.queries import Reader
from herd.store.traces import LOOKED_THROUGH, TraceFilter
from tests.cli.conftest import UGLY


def rows(told):
    """The lines of the table by request."""
    return {line.split()[2]: line for line in told.stdout.splitlines()[1:]}


def test_traces_show_the_newest_request_first(served):
    """What went wrong a moment ago is what is looked for."""
    told = served.herd("traces")
    assert told.returncode == 0
    assert next(iter(rows(told))) == "failed-1"
    assert len(rows(told)) == 11


def test_a_row_tells_model_node_status_and_error(served, inside):
    """The table alone should answer most questions."""
    told = rows(inside("traces", "--url", served.url))
    assert "absent:1b → llama3.2:3b" in told["fallback-1"]
    assert "failed upstream_5xx" in told["failed-1"]
    assert "prod, review" in told["chat-1"]
    assert "rejected model_missing" in told["unknown-1"]


def test_the_id_in_the_table_can_be_pasted_into_explain(served, inside):
    """An id that is cut too short leads nowhere."""
    (shown,) = (name for name in rows(inside("traces", "--url", served.url)) if len(name) == 12)
    assert inside("explain", shown, "--url", served.url).stdout.startswith(f"Request {shown}")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (("--status", "failed"), {"failed-1"}),
        (("--model", "qwen3:8b"), {"qwen-1"}),
        (("--tag", "review"), {"chat-0", "chat-1", "chat-2", "chat-3"}),
        (("--q", "nope"), {"unknown-1"}),
        (("--limit", "2"), {"failed-1", "retried-1"}),
        (("--since", "1h", "--status", "rejected"), {"unknown-1", "ugly-1"}),
        (("--since", "2099-01-01"), set()),
        (("--tried", "big"), {"failed-1", "retried-1"}),
        (("--tried", "big", "--status", "completed"), {"retried-1"}),
        (("--retried", "--status", "errors"), {"failed-1"}),
        (("--slower-than", "1d"), set()),
    ],
)
def test_filters_let_through_what_they_say_and_nothing_else(served, inside, filters, found):
    """The same filters must mean the same whether a router or its database is asked."""
    by_router = json.loads(inside("traces", "--json", "--url", served.url, *filters).stdout)
    by_file = json.loads(inside("traces", "--json", "--data-dir", str(served.router.data_dir), *filters).stdout)
    assert {trace["request_id"] for trace in by_router["traces"]} == found
    assert by_file == by_router


def test_a_long_search_goes_on_until_its_end(inside, tmp_path):
    """A page of it stops after so many rows; the command must not take that for all there is."""
    with closing(schema.open_for_writing(tmp_path / "latency.db")) as database:
        database.execute(
            """WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n <= ?)
               INSERT INTO request_traces (request_id, trace_id, span_id, timestamp, finished_at, endpoint, model,
                   original_format, status, http_status, stream, latency_ms, retry_count, fallback_used)
               SELECT 'r' || n, 't' || n, '', n, n, '/api/chat', CASE n WHEN 1 THEN 'rare:1b' ELSE 'usual:1b' END,
                   'ollama', 'completed', 200, 0, 1, 0, 0 FROM numbers""",
            (LOOKED_THROUGH,),
        )
    reader = Reader(tmp_path / "latency.db")
    first = reader.traces(TraceFilter(q="rare"))
    reader.close()
    assert (first.traces, first.searched_until) == ((), 2.0)
    told = inside("traces", "--json", "--data-dir", str(tmp_path), "--q", "rare")
    assert [trace["request_id"] for trace in json.loads(told.stdout)["traces"]] == ["r1"]


def test_a_node_filter_shows_that_nodes_requests_only(served, inside):
    """One bad machine is found by its name."""
    told = json.loads(inside("traces", "--json", "--url", served.url, "--node", "big").stdout)
    assert {trace["node_id"] for trace in told["traces"]} == {"big"}


def test_nothing_found_is_said_in_words(served, inside):
    """An empty screen could be a broken command."""
    told = inside("traces", "--url", served.url, "--model", "never:asked")
    assert told.returncode == 0
    assert told.stdout == "No matching requests.\n"


def test_without_a_router_the_database_is_read_and_that_is_said(served, herd):
    """After a crash the records are wanted most; but they are of another time than a router's word."""
    told = herd("traces", "--limit", "1", HERD_DATA_DIR=str(served.router.data_dir))
    assert told.returncode == 0
    assert "failed-1" in told.stdout
    assert "no router responds" in told.stderr
    assert "latency.db" in told.stderr


def test_a_router_that_was_named_is_not_replaced_by_a_database(served, herd):
    """Who asks a certain router must not be told of another one's requests."""
    told = herd("traces", "--url", f"http://127.0.0.1:{herd.port}", HERD_DATA_DIR=str(served.router.data_dir))
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.count("\n") == 1


def test_neither_router_nor_database_is_one_sentence(herd):
    """A first look on a fresh machine must not be a traceback."""
    told = herd("traces")
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.count("\n") == 1
    assert "`herd`" in told.stderr


def test_a_data_directory_without_a_database_is_named(inside, tmp_path):
    """A typing error in --data-dir must not look like an idle fleet."""
    told = inside("traces", "--data-dir", str(tmp_path))
    assert told.returncode == 1
    assert str(tmp_path) in told.stderr


def test_a_file_that_is_no_database_is_one_sentence(inside, tmp_path):
    """A damaged disk is a reason to read the message, not a stack."""
    (tmp_path / "latency.db").write_bytes(b"not a database at all" * 100)
    told = inside("traces", "--data-dir", str(tmp_path))
    assert told.returncode == 1
    assert told.stderr.count("\n") == 1


def test_a_models_name_cannot_style_the_table(served, inside):
    """Clients choose names; what looks like markup is a name all the same."""
    assert UGLY in rows(inside("traces", "--url", served.url))["ugly-1"]


def test_what_a_client_chose_cannot_steer_the_terminal():
    """Names with control characters are refused; those in a node's words, or in an old database, are not."""
    assert harmless("bad\x1b[31mred\u202e") == "bad\\x1b[31mred\\u202e"

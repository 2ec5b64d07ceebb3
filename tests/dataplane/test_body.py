"""The bytes for a node: when a body is changed, and that it passes untouched where it need not be."""

import json

import pytest

from herd.core.clock import Clock
from herd.core.dialects import ENDPOINTS
from herd.core.errors import BadRequest
from herd.core.events import TraceIds
from herd.core.routing import Policy
from herd.dataplane.body import for_node
from herd.dataplane.parse import parse
from herd.dataplane.phases import Asked, Received

CHAT, NATIVE = ENDPOINTS["/v1/chat/completions"], ENDPOINTS["/api/chat"]


def asked(body, endpoint=CHAT, steady=True):
    received = Received("id", TraceIds("0" * 32, "0" * 16), endpoint, "", Policy(), Clock(), 0.0)
    read = parse(endpoint, body, {}, "", steady_billing_line=steady)
    return Asked(received, read.request, body, read)


def test_a_plain_body_passes_untouched():
    """Bytes pass through: the node sees what the client wrote, down to its spaces."""
    body = b'{ "model" : "m",  "messages" : [], "x": 1e300 }'
    assert for_node(asked(body), "m:latest", None, True) == (body, False)


def changed(document, endpoint=CHAT, model="m:latest", loaded_num_ctx=None, usage=True):
    body = json.dumps({"model": "m", **document}).encode()
    sent, wanted = for_node(asked(body, endpoint), model, loaded_num_ctx, usage)
    return json.loads(sent), wanted


def test_herds_own_fields_are_taken_out():
    """Nodes refuse or misread what is not of their dialect."""
    sent, _ = changed({"fallback_models": ["n"], "metadata": {"tags": ["a"], "kept": "yes"}})
    assert sent == {"model": "m", "metadata": {"kept": "yes"}}
    assert changed({"metadata": {"tags": ["a"]}})[0] == {"model": "m"}


def test_another_model_is_written_only_where_a_fallback_answers():
    """`m` and `m:latest` are the same model; rewriting would change bytes for nothing."""
    assert changed({}, model="n:1b")[0]["model"] == "n:1b"


def test_usage_is_asked_for_only_in_chat_streams_that_did_not_ask():
    """Completions would get a usage key in every chunk, and a client's own word is its own."""
    sent, wanted = changed({"stream": True})
    assert (sent["stream_options"], wanted) == ({"include_usage": True}, True)
    assert not changed({"stream": True, "stream_options": {"include_usage": False}})[1]
    assert not changed({"stream": False})[1]
    assert not changed({"stream": True}, endpoint=ENDPOINTS["/v1/completions"])[1]
    assert not changed({"stream": True}, usage=False)[1]


@pytest.mark.parametrize("end", [b"}", b" }\n", b"\t\r\n}  "])
def test_usage_is_asked_for_behind_what_the_client_wrote_which_stays_byte_for_byte(end):
    """A body that herd wrote anew would cost more than the request, and change bytes for nothing."""
    body = b'{ "model" : "m", "stream":true,"x": 1e300, "messages": ["\xe2\x80\xa8"]' + end
    sent, wanted = for_node(asked(body), "m:latest", None, True)
    assert (sent.startswith(body.rstrip()[:-1]), wanted) == (True, True)
    assert json.loads(sent) == {**json.loads(body), "stream_options": {"include_usage": True}}


def test_the_loaded_context_takes_the_place_of_num_ctx_where_context_protection_says_so():
    """Left out, Ollama would take its default and reload; the other options stay."""
    sent, _ = changed({"options": {"num_ctx": 2048, "seed": 1}}, NATIVE, loaded_num_ctx=8192)
    assert sent["options"] == {"num_ctx": 8192, "seed": 1}
    assert "num_ctx" not in changed({"num_ctx": 2048}, loaded_num_ctx=8192)[0]
    assert changed({"options": {"num_ctx": 9000}}, NATIVE)[0]["options"] == {"num_ctx": 9000}


def test_a_rewritten_body_keeps_what_a_user_wrote():
    """U+2028, lone surrogates and numbers of any size survive: only the member that goes is gone."""
    text = "a\u2028b\u0085c \ud83d\ude00 \ud800"
    body = json.dumps({"model": "m", "fallback_models": [], "messages": [{"content": text}], "big": 2**70}).encode()
    sent, _ = for_node(asked(body), "m:latest", None, True)
    assert json.loads(sent) == {key: value for key, value in json.loads(body).items() if key != "fallback_models"}


def test_herds_fields_are_taken_out_in_whatever_case_they_were_read():
    """What herd took for its own must not reach a node under another spelling."""
    body = b'{"Model":"m","Fallback_Models":["n"],"MetaData":{"tags":["a"]},"x":1e400}'
    sent, _ = for_node(asked(body), "m:latest", None, True)
    assert sent == b'{"Model":"m","x":1e400}'


def test_an_infinite_number_beside_a_change_of_the_same_object_is_refused():
    """JSON cannot say it again; Ollama refuses it in options as well."""
    body = b'{"model":"m","options":{"num_ctx":2048,"seed":1e400}}'
    with pytest.raises(BadRequest, match="too large"):
        for_node(asked(body, NATIVE), "m:latest", 8192, True)

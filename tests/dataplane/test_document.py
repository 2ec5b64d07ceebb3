"""Bodies that are odd and yet legal: read as Ollama reads them, and changed in one place only."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.dialects import ENDPOINTS
from herd.core.errors import BadRequest
from herd.dataplane.document import MOST_VALUES, changed, extended, fold, read
from herd.dataplane.parse import parse
from herd.wire import canonical_name

NATIVE = ENDPOINTS["/api/chat"]
RECORDED = Path(__file__).parent / "go_reading" / "recorded.jsonl"
OURS = ("model is required", "model appears twice in the request body")  # as Ollama's handlers say, and herd's own rule


def understood(body):
    """What herd makes of a body: model, stream and context, or why it refuses it."""
    try:
        request = parse(NATIVE, body, {}, "").request
    except BadRequest as error:
        return error.message
    return request.model, request.stream, request.num_ctx


def test_what_go_reads_is_read_alike():
    """What Ollama takes, its clients send: each such body that herd read otherwise was answered wrongly."""
    compared = 0
    for line in RECORDED.read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        heard = understood(bytes.fromhex(said["body"]))
        if "error" in said or heard in OURS:
            continue
        context = said.get("num_ctx", 0)
        assert heard == (canonical_name(said["model"]), said["stream"], context if context > 0 else None), said
        compared += 1
    assert compared > 200


@pytest.mark.parametrize(
    ("body", "heard"),
    [
        (b'{"Model":"m"}', ("m:latest", True, None)),
        (b'{"model":"m","STREAM":false}', ("m:latest", False, None)),
        (b'{"model":"m","stream":true,"Stream":false}', ("m:latest", False, None)),
        ('{"model":"m","\u017ftream":false}'.encode(), ("m:latest", False, None)),
        (b'{"model":"m","OPTIONS":{"num_ctx":8192}}', ("m:latest", True, 8192)),
        (b'{"model":"m","options":{"num_ctx":8192},"Options":{"seed":1}}', ("m:latest", True, 8192)),
        (b'{"model":"m","options":{"num_ctx":8.192e3}}', ("m:latest", True, 8192)),
        (b'{"model":"m","options":{"NUM_CTX":8192}}', ("m:latest", True, None)),
        (b'{"model":"m"} and more', ("m:latest", True, None)),
        (b'\xef\xbb\xbf{"model":"m"}', ("m:latest", True, None)),
        (b'{"model":"m","x":"\xff\xc3"}', ("m:latest", True, None)),
        (b'{"model":"m","x":"\\ud800"}', ("m:latest", True, None)),
        (b'{"model":"m","x":[1e400,-0,1E+2,123456789012345678901234567890]}', ("m:latest", True, None)),
        (b'{"model":"m","messages":[{"content":"say \\"model\\""}],"tools":[{"model":1}]}', ("m:latest", True, None)),
    ],
)  # fmt: skip
def test_odd_but_legal_bodies_are_understood(body, heard):
    """Each is 200 at an Ollama, so it is here."""
    assert understood(body) == heard


@pytest.mark.parametrize(
    "body",
    [b'{"model":"m","Model":"n"}', b'{"model":"m","model":"m"}', b'{"MODEL":"m","mod\\u0065l":"n"}',
     b'{"mod\\u0065l":"m","model":"n"}'],
)  # fmt: skip
def test_a_model_that_is_named_twice_is_refused(body):
    """Ollama takes the last in any case, llama.cpp knows one case: a key's models could be got around."""
    with pytest.raises(BadRequest, match="twice"):
        read(body)


@given(st.text(max_size=6))
def test_keys_are_folded_letter_by_letter_as_in_go(key):
    """Full case folding would make two letters of one, and another key."""
    assert len(fold(key)) == len(key)
    assert fold(fold(key)) == fold(key)
    assert fold(key.upper()) == fold(key) or not key.isascii()


ORDINARY_CSV = "1,2026-01-02,7.5,0\n" * 200


def test_commas_in_texts_are_no_values():
    """A batch of an ordinary CSV export is two thousand values, however many commas it has."""
    batch = json.dumps({"model": "m", "input": [ORDINARY_CSV] * 2000}).encode()
    code = json.dumps({"model": "m", "prompt": 'm[k] = {"a": "b\\", c"}, ' * 90_000}).encode()
    for body in (batch, code):
        assert body.count(b",") + 4 * (body.count(b"{") + body.count(b"[")) > MOST_VALUES
        assert read(body).document["model"] == "m"


@pytest.mark.parametrize(
    "values",
    [b"1", b"[]", b"{}", b'{"a":1}', b'""', b'"\\""', b'"\\\\"', b'","', b"[[[1]]]"],
)
def test_a_million_tiny_values_are_refused_before_they_are_read(values):
    """They would take a second in which no other stream moves."""
    body = b'{"model":"m","x":[%b]}' % b",".join([values] * 10**6)
    with pytest.raises(BadRequest, match="more than 750000 values"):
        read(body)


def test_batches_of_tokens_are_read():
    """OpenAI's clients may send numbers in place of texts: a thousand inputs of six hundred tokens are no attack."""
    body = json.dumps({"model": "m", "input": [[1] * 600] * 1000}).encode()
    assert parse(ENDPOINTS["/v1/embeddings"], body, {}, "").request.prompt_tokens == 600_000


def test_nesting_beyond_what_the_interpreter_reads_is_refused_in_words():
    """Go reads ten thousand levels; nobody's schema has a thousand. It is a limit, not a crash."""
    for depth in (10**4, 10**5):
        assert "not valid JSON" in understood(b'{"model":"m","x":' + b"[" * depth + b"]" * depth + b"}")
    assert understood(b'{"model":"m","tools":' + b"[" * 400 + b"]" * 400 + b"}") == ("m:latest", True, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
WITHOUT_MODEL = st.dictionaries(st.text().filter(lambda key: fold(key) not in {"model", "stream_options"}), JSON)


@given(WITHOUT_MODEL, st.sampled_from([None, (",", ":"), (" ,\n", "\t: ")]), st.booleans())
def test_a_change_touches_one_member_and_leaves_the_rest_as_it_was(document, separators, ascii_only):
    """Bytes pass through: numbers, escapes, spaces within values and unknown keys are the client's."""
    written = json.dumps({"model": "m", **document}, separators=separators, ensure_ascii=ascii_only)
    body = written.encode("utf-8", "surrogatepass" if ascii_only else "replace")
    before = json.loads(body.decode())
    assert json.loads(changed(body, {"model": "n"})) == {**before, "model": "n"}
    assert json.loads(changed(body, {"model": None})) == {key: before[key] for key in before if key != "model"}
    assert json.loads(extended(body, {"stream_options": {}})) == {**before, "stream_options": {}}


def test_a_change_keeps_what_python_would_write_otherwise():
    """1e400 is infinite to Python and 1.0 is not 1 to everybody."""
    body = b'{ "x" : [1e400, 1.0,  -0, "\\u00e9\\/"] , "Model":"m", "MODEL":"m"} tail'
    assert changed(body, {"model": "n"}) == b'{"x" : [1e400, 1.0,  -0, "\\u00e9\\/"],"model":"n"}'


def test_whether_something_follows_the_object_is_known():
    """Then nothing can be put at its end."""
    assert read(b'{"model":"m"} \n').whole
    assert not read(b'{"model":"m"} x').whole

"""An entry of a list has all fields of the list's type, whatever the engine says of its model."""

import re
from datetime import datetime

import pytest

from herd.routes.merged import in_memory, ollamas

META = {"n_params": 8190735360, "size": 5_021_000_000, "n_ctx_train": 40960}
FIELDS = {"name", "model", "size", "digest", "modified_at", "details", "nodes"}
OLLAMA = {
    "name": "m:1", "model": "m:1", "size": 7, "digest": "ab" * 32, "modified_at": "2026-01-01T10:00:00.123456789+02:00",
    "details": {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
                "parameter_size": "3.2B", "quantization_level": "Q4_K_M"},
    "nodes": ["a"],
}  # fmt: skip


def entry(**fields):
    return {"name": "m", "model": "m", "size": 5, "nodes": ["a"], **fields}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"id": "m", "object": "model", "created": 1_750_000_000, "owned_by": "llamacpp", "meta": META, "aliases": []},
        {"digest": "", "modified_at": "", "size": "", "details": None},
        {"digest": 5, "modified_at": 5, "size": None, "details": {"family": "x"}, "meta": "x", "created": "x"},
        {"digest": "sha256:abc", "modified_at": "yesterday", "created": 10**20},
    ],
    ids=range(5),
)
def test_whatever_an_engine_says_its_entry_is_one_that_ollamas_command_line_can_read(said):
    """`ollama list` cuts the digest at twelve digits, and crashed on an empty one."""
    told = ollamas(entry(**said))
    assert set(told) == FIELDS
    assert re.fullmatch(r"[0-9a-f]{64}", told["digest"])
    assert isinstance(told["size"], int)
    assert datetime.fromisoformat(told["modified_at"]).tzinfo
    assert set(told["details"]) == set(OLLAMA["details"])


def test_a_digest_that_is_made_up_is_the_same_each_time_and_another_for_another_model():
    """Clients keep what they know of a model under its digest."""
    first, later, other = (
        ollamas(entry(name=name, meta=META, created=at)) for name, at in (("m", 1), ("m", 2), ("n", 1))
    )
    assert first["digest"] == later["digest"] != other["digest"]
    assert first["details"]["parameter_size"] == "8.2B"


def test_what_ollama_itself_says_is_passed_on_as_it_is():
    """The field that a later version adds, too."""
    assert ollamas({**OLLAMA, "new": 1}) == {**OLLAMA, "new": 1}
    loaded = {
        **{key: value for key, value in OLLAMA.items() if key != "modified_at"},
        "expires_at": "x",
        "size_vram": 7,
    }
    assert in_memory(loaded) == loaded

"""What a heartbeat may say: enough for every real machine, and nothing that would make a client's request fail."""

import pytest
from pydantic import ValidationError

from herd import wire
from tests.fleet.test_cell import beat


def engine(**changes):
    return {**beat().engine.model_dump(), **changes}


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:11434", "https://studio.local", "http://gpu_box:80/", "http://[::1]:1", "http://[fe80::1]",
        "http://a.b.c.:65535", "http://host-1.docker.internal:11434",
    ],
)  # fmt: skip
def test_an_engines_url_is_scheme_host_and_port(url):
    """Whatever agents find by themselves, and whatever operators give them."""
    assert wire.Engine(**engine(url=url)).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://victim/?reboot=1&", "http://a/b", "http://a?b", "http://a#b", "http://u:p@a", "ftp://a", "http://",
        "http://a..b:1", "http://.a", "http://-a:1", "http://a:0", "http://a:65536", "http://a:", "http://[::1",
        "http://[1.2.3.4]:1", "http://[:::]", "http://a b", "http://a\\b", "http://é", "http://a%2eb", "http://a\n",
        "http://" + "a" * 64, "HTTP://a", "//a", "a:1",
    ],
)  # fmt: skip
def test_what_is_more_or_less_than_that_is_no_engines_url(url):
    """A path or a query would be asked of another machine in the router's name; a bad name is a client's 500."""
    with pytest.raises(ValidationError, match="url"):
        wire.Engine(**engine(url=url))


@pytest.mark.parametrize("version", ["²", "\x1b[2J", "", " 1", "0.1\n", "1" * 65, 5])
def test_a_version_is_plain_text(version):
    """One odd version made `/api/version` an error for everybody."""
    with pytest.raises(ValidationError, match="version"):
        wire.Engine(**engine(version=version))


@pytest.mark.parametrize("version", ["0.12.6-rc1", "b6000-abc", "0.0.0 (custom)", None])
def test_versions_that_engines_have_are_taken(version):
    """llama.cpp counts builds."""
    assert wire.Engine(**engine(version=version)).version == version


@pytest.mark.parametrize(
    "entry",
    [{"name": 5}, {"digest": None}, {"size": []}, {"details": "x"}, {"created": True}, {"x": "y" * 5000}, {"meta": 1}],
    ids=range(7),
)
def test_an_entry_is_small_and_its_fields_are_of_the_types_that_clients_read(entry):
    """`GET /v1/models/e` was a 500 as long as the node was there."""
    for kind in (wire.Model, wire.LoadedModel):
        with pytest.raises(ValidationError, match="entry"):
            kind(name="m", entry=entry)


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "\u202em", "x" * 257])
def test_a_models_name_is_printable_and_short(name):
    """It is shown on terminals, pages and dashboards."""
    with pytest.raises(ValidationError, match="name"):
        wire.Model(name=name)


def test_what_a_machine_says_of_itself_is_made_legible():
    """A driver's odd name for a GPU is no reason to do without the node."""
    assert wire.Gpu(memory_total_bytes=1, name="RTX\x1b[31m").name == "RTX\ufffd[31m"


def test_a_heartbeat_has_at_most_so_many_models_and_its_agents_address_is_a_place():
    """Each costs the router memory, and its pages time."""
    with pytest.raises(ValidationError, match="models"):
        wire.Engine(**engine(models=[{"name": f"m{number}"} for number in range(513)]))
    for address in ("a:0", "a", "http://a:1", "a:1/x", "a..b:1"):
        with pytest.raises(ValidationError, match="metrics_address"):
            wire.Heartbeat(**{**beat().model_dump(), "metrics_address": address})


def test_a_router_refuses_heartbeats_that_are_too_large_and_nodes_that_are_too_many(router):
    """From outside: what one sender can make the router hold is bounded."""
    assert router.beat(b" " * (wire.MOST_BYTES + 1)).status_code == 413
    for number in range(128):
        assert router.beat(beat(f"n{number}").model_dump_json()).status_code == 200
    refused = router.beat(beat("one-more").model_dump_json())
    assert (refused.status_code, "128 nodes" in refused.json()["error"]) == (409, True)
    assert router.beat(beat("n5").model_dump_json()).status_code == 200

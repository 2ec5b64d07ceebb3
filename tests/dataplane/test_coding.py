"""Packed request bodies: what is unpacked, and where it ends."""

import gzip
import json
import zlib
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from herd.core.errors import BadRequest, BodyTooLarge
from herd.dataplane.coding import unpacked

BODY = json.dumps({"model": "m", "input": "Hello. " * 100}).encode()
LIMIT = 100 * 2**20


def raw_deflate(body):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def streamed_zstd(body):
    """Without the size in its head, as clients that stream send it."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(body) + packer.flush()


PACKERS = [
    ("gzip", gzip.compress), ("x-gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress),
    ("deflate", raw_deflate), ("zstd", zstandard.ZstdCompressor().compress), ("zstd", streamed_zstd),
]  # fmt: skip


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
def test_each_coding_that_clients_use_is_unpacked(coding, pack):
    """Codex sends zstd on /v1/responses; Ollama reads it, so herd must."""
    assert unpacked(pack(BODY), coding, LIMIT) == BODY


def test_several_codings_and_several_members_are_unpacked():
    """Legal, and what a proxy on the way may make of a body."""
    assert unpacked(gzip.compress(zlib.compress(BODY)), "deflate, gzip", LIMIT) == BODY
    assert unpacked(gzip.compress(BODY[:50]) + gzip.compress(BODY[50:]), "gzip", LIMIT) == BODY
    pack = zstandard.ZstdCompressor().compress
    assert unpacked(pack(BODY[:50]) + pack(BODY[50:]), "zstd", LIMIT) == BODY


@pytest.mark.parametrize("coding", ["", "identity", "gzip", "zstd", "utf-8", "br"])
def test_a_body_that_is_plain_json_stays_as_it_is_whatever_its_header_says(coding):
    """Engines do not look at the header, and some clients write nonsense there."""
    assert unpacked(BODY, coding, LIMIT) is BODY


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
def test_a_small_body_that_unpacks_beyond_the_limit_is_refused(coding, pack):
    """A bomb of a hundred kilobytes must not take a hundred megabytes, nor the second to unpack them."""
    bomb = pack(b" " * 2**20)
    with pytest.raises(BodyTooLarge, match="body_limit_mb"):
        unpacked(bomb, coding, 2**20 - 1)
    assert len(unpacked(bomb, coding, 2**20)) == 2**20


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
def test_no_body_unpacks_to_hundreds_of_times_its_size(coding, pack):
    """Text does not pack so well; up to a few megabytes nobody minds."""
    with pytest.raises(BodyTooLarge, match="times its size"):
        unpacked(pack(b" " * 2**24), coding, LIMIT)


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
def test_a_broken_body_is_the_clients_mistake(coding, pack):
    """400 with the coding's name, never a defect of herd's."""
    packed = pack(BODY)
    for broken in (b"\x00" + packed, packed[:3] + b"\xff\xff\xff" + packed[6:]):
        with pytest.raises(BadRequest, match=coding.lower()):
            unpacked(broken, coding, LIMIT)


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, gzip, gzip"])
def test_what_is_not_known_is_refused_in_words(coding):
    """Brotli is for answers; who sends it is told what would be read."""
    with pytest.raises(BadRequest, match=r"unsupported content-encoding .*zstd or none|more than 2 content codings"):
        unpacked(b"\x8b\x02\x80", coding, LIMIT)


def test_a_gzip_body_that_is_cut_off_is_refused():
    """Half of a body may be valid JSON, and means something else."""
    with pytest.raises(BadRequest, match="unexpected end of data"):
        unpacked(gzip.compress(BODY)[:-10], "gzip", LIMIT)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "zstd", "zstd, gzip", ",", "\xe9"]))
def test_any_bytes_are_unpacked_or_refused_and_nothing_else(body, coding):
    """No body makes the router fall over."""
    with suppress(BadRequest, BodyTooLarge):
        assert len(unpacked(body, coding, 1000)) <= 1000

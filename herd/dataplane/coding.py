"""Content codings of request bodies: gzip, deflate and zstd, unpacked within bounds.

Pure. Codex sends zstd, which Ollama reads on /v1/responses and on no other path; other engines read none of them. So a
body is unpacked here, and goes to a node as it is then, without its Content-Encoding.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Final

import zstandard

from herd.core.errors import BadRequest, BodyTooLarge

MIB: Final = 2**20
MOST_CODINGS: Final = 2
FREE: Final = 8 * MIB  # up to here any ratio is taken: a text of one repeated word packs to nothing
BEST_RATIO: Final = 200  # what text comes to at its very best; beyond it somebody wants memory and time
ZSTD_WINDOW: Final = 8 * MIB  # as Ollama's reader, and what RFC 9659 allows
GZIP_BITS: Final = 31
ZLIB_BITS: Final = 15
RAW_BITS: Final = -15
ZLIB_METHOD: Final = 8


def unpacked(body: bytes, content_encoding: str, limit: int) -> bytes:
    """The body without its content codings; `limit` is its largest size in bytes then.

    A body that begins as a JSON object is taken as it is, whatever the header says: engines do not look at it. Raises
    BodyTooLarge over the limit, BadRequest for what is broken or of a coding that is not known.
    """
    codings = [name for part in content_encoding.lower().split(",") if (name := part.strip()) not in {"", "identity"}]
    if not codings or body.lstrip()[:1] == b"{":
        return body
    if len(codings) > MOST_CODINGS:
        raise BadRequest(f"the request body has more than {MOST_CODINGS} content codings")
    for coding in reversed(codings):
        unpack = UNPACKERS.get(coding)
        if unpack is None:
            raise BadRequest(f"unsupported content-encoding {coding[:32]}; use gzip, deflate, zstd or none")
        body = _within(unpack, coding, body, limit)
    return body


def _within(unpack: Callable[[bytes, int], bytes], coding: str, body: bytes, limit: int) -> bytes:
    most = min(limit, max(FREE, BEST_RATIO * len(body)))
    try:
        whole = unpack(body, most + 1)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise BadRequest(f"the request body is not valid {coding}: {str(error)[:100]}") from error
    if len(whole) > limit:
        raise BodyTooLarge(f"the decompressed body is over the limit of {limit // MIB} MiB (setting body_limit_mb)")
    if len(whole) > most:
        raise BodyTooLarge(f"the request body decompresses to more than {BEST_RATIO} times its size")
    return whole


def _gzip(body: bytes, most: int) -> bytes:
    parts, left = [], most
    while body and left > 0:  # members may follow one another
        packed = zlib.decompressobj(GZIP_BITS)
        parts.append(_all_of(packed.decompress(body, left), packed.eof, left))
        left -= len(parts[-1])
        body = packed.unused_data.lstrip(b"\0")  # some packers fill up with zeros
    return b"".join(parts)


def _deflate(body: bytes, most: int) -> bytes:
    # The standard means zlib's format; some clients send the stream without its frame, and servers take both.
    framed = len(body) > 1 and body[0] % 16 == ZLIB_METHOD and (body[0] * 256 + body[1]) % 31 == 0
    packed = zlib.decompressobj(ZLIB_BITS if framed else RAW_BITS)
    return _all_of(packed.decompress(body, most), packed.eof, most)


def _zstd(body: bytes, most: int) -> bytes:
    reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(body, read_across_frames=True)
    parts, left = [], most
    while left > 0 and (part := reader.read(min(left, MIB))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _all_of(part: bytes, ended: bool, most: int) -> bytes:
    if not ended and len(part) < most:
        raise EOFError("unexpected end of data")
    return part


UNPACKERS: Final[Mapping[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "zstd": _zstd,
}  # fmt: skip

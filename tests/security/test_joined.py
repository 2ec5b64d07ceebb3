"""An answer's head goes out with what follows it, and never later than it can be known that nothing does."""

import asyncio

import pytest

from herd.security.joined import MOST_JOINED, Joined

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Written(asyncio.Transport):
    """A transport that keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def write(self, data):
        self.told.append(data)

    def write_eof(self):
        self.told.append("eof")

    def close(self):
        self.told.append("close")

    def is_closing(self):
        return "close" in self.told


@pytest.fixture
async def below():
    return Written()


@pytest.fixture
async def joined(below):
    return Joined(below, asyncio.get_running_loop())


async def test_a_head_and_the_first_part_are_one_write(below, joined):
    """Each write is a call of the system and a packet, for the client too."""
    for data in (HEAD, b"hello", b"again", HEAD, b""):
        joined.write(data)
    assert below.told == [HEAD + b"hello", b"again", HEAD]


async def test_a_head_that_nothing_follows_goes_out_in_the_same_turn(below, joined):
    """A stream of events begins with its head; its first event may be minutes away."""
    joined.write(HEAD)
    assert below.told == []
    await asyncio.sleep(0)
    assert below.told == [HEAD]
    joined.write(b"later")
    assert below.told == [HEAD, b"later"]


@pytest.mark.parametrize(("end", "told"), [("close", "close"), ("write_eof", "eof")])
async def test_nothing_is_held_back_at_the_end(below, joined, end, told):
    """A refusal is a head and its words, and then the connection goes."""
    joined.write(HEAD)
    getattr(joined, end)()
    assert below.told == [HEAD, told]


async def test_a_large_part_is_not_copied(below, joined):
    """A whole answer may be megabytes of vectors."""
    large = b"x" * (MOST_JOINED + 1)
    joined.write(HEAD)
    joined.write(large)
    assert below.told == [HEAD, large]
    assert below.told[1] is large


async def test_everything_else_is_the_transport_s_own(below, joined):
    """The server asks it for addresses, and whether it is open."""
    assert joined.is_closing() is False
    joined.close()
    assert joined.is_closing() is True
    assert joined.get_extra_info("peername", "nobody") == "nobody"

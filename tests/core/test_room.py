"""The bodies of all requests together have a bound."""

import pytest

from herd.core.errors import NoRoom
from herd.core.room import LEAST, Room


def test_what_is_taken_is_bounded_and_free_again_once_it_is_given_back():
    """Twenty bodies of 100 MiB at once took 5.5 GB."""
    refusals = []
    room = Room(100, lambda: refusals.append(1))
    room.take(60)
    with pytest.raises(NoRoom) as caught:
        room.take(41)
    assert (room.taken, refusals, caught.value.retry_after_s) == (60, [1], 5)
    room.take(40)
    room.give_back(60)
    room.take(60)


def test_a_quarter_of_the_memory_is_for_bodies_and_never_less_than_two_large_ones():
    """The system may not say how much there is."""
    sizes = [Room.of(memory, lambda: None).limit for memory in (0, 2**30, 64 * 2**30)]
    assert sizes == [LEAST, LEAST, 16 * 2**30]

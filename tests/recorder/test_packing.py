"""What an event is made of crosses the pipe, whatever a client or an engine put into it."""

import marshal
from collections import Counter
from dataclasses import fields, is_dataclass, replace
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.core.events import Event, FleetChanged, NodeKnown, Status
from herd.core.fleet import Fleet, Node, Traffic
from herd.core.work import Job
from herd.recorder.packing import KINDS, MOST_SHARED, SHARED, Packer, Unpacker, plain, shape, storable
from herd.telemetry.log_lines import Line
from tests.store import builders

# Lone surrogates included: JSON has escapes for them, so a client can send one.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**70), 2**70)
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS
FIELDS = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2))


def of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type as events hold them."""
    simple = {str: TEXTS, int: st.integers(-(2**70), 2**70), float: st.floats(allow_nan=False), bool: st.booleans(),
              NoneType: st.none(), Any: FIELDS, object: FIELDS}  # fmt: skip
    if hint in simple:
        return simple[hint]
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{field.name: of(hints[field.name]) for field in fields(hint) if field.init})
    if isinstance(hint, type) and issubclass(hint, tuple):
        return st.builds(hint, **{name: of(each) for name, each in get_type_hints(hint).items()})
    origin, args = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        return st.one_of([of(each) for each in args])
    if origin is tuple:
        return st.lists(of(args[0]), max_size=2).map(tuple)
    if origin is frozenset:
        return st.frozensets(of(args[0]), max_size=2)
    if origin is Literal:
        return st.sampled_from(args)
    if origin is not None:
        return st.dictionaries(of(args[0]), of(args[1]), max_size=2)
    return st.sampled_from(list(hint))


def carried(*items: Any) -> list[Any]:
    """What arrives of them."""
    packer, unpacker = Packer(), Unpacker()
    packed = marshal.loads(marshal.dumps([storable(packer.pack(item)) for item in items]))
    unpacker.learn(*marshal.loads(marshal.dumps(packer.shared())))
    return [unpacker.unpack(*each) for each in packed]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(st.data())
def test_every_event_arrives_as_it_was_whatever_stands_in_its_fields(kind, data):
    """Row, line and span are made from what arrives: a value that changed on the way would be a lie in all of them."""
    item = data.draw(of(kind))
    assert carried(item) == [item]


def test_every_kind_of_event_and_the_log_s_lines_have_a_way_across():
    """An event that is added to the core must not be the one that nobody records."""
    assert set(KINDS) == {*get_args(Event), Line}


def test_an_event_s_own_types_arrive_too():
    """`status` is asked for its name, `decision` for its plan: plain text in their place would fail in the recorder."""
    event = builders.finished(attempts=2)
    (arrived,) = carried(event)
    assert arrived == event
    assert type(arrived.status) is Status
    assert type(arrived.decision) is type(event.decision)
    assert type(arrived.attempts) is tuple


def test_what_events_share_crosses_once_and_is_shared_again():
    """Listings, speeds and the jobs of a busy node are the most of an event, and the same in many of them."""
    fleet = builders.fleet(builders.node("ada"), builders.node("bob"))
    events = [builders.finished(seen=fleet) for _ in range(3)]
    packer = Packer()
    for event in events:
        packer.pack(event)
    assert Counter(SHARED[kind] for _, kind, _ in packer.shared()[1]) == {Node: 2, Traffic: 2, Job: 1}
    first, second, _ = (event.fleet for event in carried(*events))
    assert all(one is other for one, other in zip(first.nodes, second.nodes, strict=True))
    assert all(one is other for one, other in zip(first.work["ada"].jobs, second.work["ada"].jobs, strict=True))


def test_a_node_that_heartbeats_replace_is_forgotten_on_both_sides_in_time():
    """A router that runs for a year would hold each heartbeat of it."""
    packer, unpacker = Packer(), Unpacker()
    for turn in range(3):
        nodes = tuple(builders.node(models=(f"m{turn}-{number}:1b",)) for number in range(MOST_SHARED))
        event = replace(builders.finished(), fleet=Fleet(0.0, nodes))
        packed = packer.pack(event)
        unpacker.learn(*packer.shared())
        assert unpacker.unpack(*packed) == event
    assert len(unpacker._shared) <= MOST_SHARED + 1


@pytest.mark.parametrize("data", [{"to": Status.FAILED}, MappingProxyType({"to": "open"}), {"odd": object}])
def test_what_marshal_does_not_take_is_told_as_what_it_is(data):
    """An enum is text to everybody else; and nothing that somebody puts into an event may cost its record."""
    (arrived,) = carried(FleetChanged(1.0, "breaker_changed", "ada", None, data))
    assert dict(arrived.data) == {name: plain(value) for name, value in data.items()}


def test_a_value_without_an_end_is_cut_and_not_followed():
    """A log record may hold anything, itself included."""
    endless: dict[str, Any] = {}
    endless["again"] = endless
    line = Line(1.0, "INFO", "somebody", "hello", plain(endless))
    assert carried(line) == [line]


def test_a_field_that_is_of_another_type_than_it_says_raises_where_it_is_packed():
    """Whoever packs counts it; the recorder is spared."""
    with pytest.raises((AttributeError, TypeError)):
        Packer().pack(replace(builders.finished(), decision="no decision"))


def test_the_shape_tells_two_versions_apart():
    """A router that is upgraded under its own feet must not feed a recorder that would misread it."""
    assert "Finished(" in shape()
    assert "Node(" in shape()
    assert all(field.name in shape() for field in fields(NodeKnown))

"""Events and log lines as plain values that `marshal` takes, and back: what crosses the pipe to the recorder.

Made from the types' own fields, so a new field needs nothing here. Nodes are shared by many events: each is sent once
for a connection and then named by its number. Knows no pipe; whatever an event holds, packing it for the wire works.
"""

import marshal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from herd.core.events import Event
from herd.core.fleet import Node
from herd.telemetry.log_lines import Line

Item = Event | Line
Convert = Callable[[Any], Any]
KINDS: Final[tuple[type[Item], ...]] = (*get_args(Event), Line)
NUMBERS: Final = {kind: number for number, kind in enumerate(KINDS)}
MOST_NODES: Final = 256  # of them are known by number at a time; a heartbeat makes a new one
MOST_DEPTH: Final = 50
PLAIN: Final = (NoneType, bool, int, float, complex, str, bytes)


class Packer:
    """The sending side of one connection; `nodes` gives what the other side must know before what was packed since."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, Node]] = {}  # by identity; the node is held, so that no other takes its place
        self._new: list[tuple[int, Any]] = []
        self._next = 0
        self._forget = False
        self._pack_node = _packer_of_record(Node, {})
        self._pack = {kind: _packer_of_record(kind, {Node: self._node}) for kind in KINDS}

    def pack(self, item: Item) -> tuple[int, Any]:
        """An item as plain values, unless it holds something foreign: see `storable`.

        Raises AttributeError, TypeError or ValueError for one whose fields are not of the types that they say.
        """
        return NUMBERS[type(item)], self._pack[type(item)](item)

    def nodes(self) -> tuple[bool, list[tuple[int, Any]]]:
        """Whether to forget all nodes before, and those to learn, since this was last asked."""
        new, forget = self._new, self._forget
        self._new, self._forget = [], len(self._known) > MOST_NODES
        if self._forget:
            self._known.clear()
        return forget, new

    def _node(self, node: Node) -> int:
        found = self._known.get(id(node))
        if found is not None:
            return found[0]
        number = self._next
        self._new.append((number, storable(self._pack_node(node))))
        self._known[id(node)] = number, node
        self._next += 1
        return number


class Unpacker:
    """The receiving side of one connection."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}
        self._unpack_node = _unpacker_of_record(Node, {})
        self._unpack = [_unpacker_of_record(kind, {Node: self._nodes.__getitem__}) for kind in KINDS]

    def learn(self, forget: bool, nodes: Sequence[tuple[int, Any]]) -> None:
        """Take what the packer's `nodes` gave."""
        if forget:
            self._nodes.clear()
        self._nodes.update((number, self._unpack_node(values)) for number, values in nodes)

    def unpack(self, number: int, values: Any) -> Item:
        """The item that was packed."""
        item: Item = self._unpack[number](values)
        return item


def storable(packed: Any) -> Any:
    """The same if `marshal` takes it, else with whatever is foreign made plain: its value, or how it shows itself."""
    try:
        marshal.dumps(packed)
    except ValueError:
        return plain(packed)
    return packed


def plain(value: Any, depth: int = 0) -> Any:
    """A value of built-in types alone, at most so deep; anything else becomes its `repr`."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if depth >= MOST_DEPTH:
        return repr(value)
    if isinstance(value, Mapping):
        return {plain(key, depth + 1): plain(inner, depth + 1) for key, inner in value.items()}
    for base in (list, tuple, set, frozenset):
        if isinstance(value, base):
            return base(plain(inner, depth + 1) for inner in value)
    for simple, convert in ((str, str.__str__), (int, int), (float, float)):
        if isinstance(value, simple):
            return convert(value)
    return repr(value)


def shape() -> str:
    """What a sender and a receiver must have in common, as text: every type that crosses, with its fields."""
    found: dict[str, str] = {}
    for kind in KINDS:
        _describe(kind, found)
    return ";".join(f"{name}({text})" for name, text in found.items())


def _describe(hint: Any, found: dict[str, str]) -> None:
    if is_dataclass(hint) and isinstance(hint, type) and hint.__name__ not in found:
        hints = get_type_hints(hint)
        found[hint.__name__] = ",".join(f"{field.name}:{hints[field.name]}" for field in fields(hint))
        for inner in hints.values():
            _describe(inner, found)
    for inner in get_args(hint):
        _describe(inner, found)


def _packer_of_record(kind: Any, special: Mapping[Any, Convert]) -> Convert:
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    read = attrgetter(*names) if len(names) > 1 else _alone(names[0])
    converted = [(place, _packer(hints[name], special)) for place, name in enumerate(names)]
    nested = [(place, convert) for place, convert in converted if convert is not None]
    if not nested:
        return read

    def pack(value: Any) -> list[Any]:
        values = list(read(value))
        for place, convert in nested:
            if values[place] is not None:
                values[place] = convert(values[place])
        return values

    return pack


def _alone(name: str) -> Convert:
    """The values of a record that has one field: `attrgetter` would give the value itself."""
    return lambda value: (getattr(value, name),)


def _packer(hint: Any, special: Mapping[Any, Convert]) -> Convert | None:
    """What makes a value of that type plain; None where it is."""
    if hint in special:
        return special[hint]
    if is_dataclass(hint):
        return _packer_of_record(hint, special)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return str.__str__  # a member as the text that it is, and in C
    origin, inner = get_origin(hint), _inner(hint)
    convert = _packer(inner, special) if inner is not None else None
    if origin in {Union, UnionType}:
        return convert
    if origin is tuple and convert is not None:
        return lambda values: [convert(each) for each in values]
    if origin is Mapping:
        return dict if convert is None else lambda found: {name: convert(each) for name, each in found.items()}
    return None


def _unpacker_of_record(kind: Any, special: Mapping[Any, Convert]) -> Convert:
    hints = get_type_hints(kind)
    converted = [(place, _unpacker(hints[field.name], special)) for place, field in enumerate(fields(kind))]
    nested = [(place, convert) for place, convert in converted if convert is not None]

    def unpack(packed: Any) -> Any:
        values = list(packed)
        for place, convert in nested:
            if values[place] is not None:
                values[place] = convert(values[place])
        return kind(*values)

    return unpack


def _unpacker(hint: Any, special: Mapping[Any, Convert]) -> Convert | None:
    if hint in special:
        return special[hint]
    if is_dataclass(hint):
        return _unpacker_of_record(hint, special)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint
    origin, inner = get_origin(hint), _inner(hint)
    convert = _unpacker(inner, special) if inner is not None else None
    if origin in {Union, UnionType} or convert is None:
        return convert
    if origin is tuple:
        return lambda values: tuple(convert(each) for each in values)
    if origin is Mapping:
        return lambda found: {name: convert(each) for name, each in found.items()}
    return None


def _inner(hint: Any) -> Any:
    """The type of what a type is made of: of an optional one, of a tuple's members, of a mapping's values."""
    origin, inner = get_origin(hint), [each for each in get_args(hint) if each not in {NoneType, Ellipsis}]
    if origin is Mapping or origin is dict:
        return inner[1]
    return inner[0] if len(inner) == 1 else None

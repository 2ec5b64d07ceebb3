"""Events and log lines as plain values that `marshal` takes, and back: what crosses the pipe to the recorder.

Made from the types' own fields, so a new field needs nothing here. What events share is sent once for a connection and
then named by its number. Knows no pipe; whatever an event holds, packing it for the wire works.
"""

import marshal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Final, Union, cast, get_args, get_origin, get_type_hints

from herd.core.events import Event
from herd.core.fleet import Node, Traffic
from herd.core.work import Job
from herd.telemetry.log_lines import Line

Item = Event | Line
Convert = Callable[[Any], Any]
KINDS: Final[tuple[type[Item], ...]] = (*get_args(Event), Line)
NUMBERS: Final = {kind: number for number, kind in enumerate(KINDS)}
# What many events hold alike: a node until its next heartbeat, its traffic until something is learned, a job until it
# answers.
Shared = Node | Traffic | Job
SHARED: Final[tuple[type[Shared], ...]] = get_args(Shared)
MOST_SHARED: Final = 4096  # of them are known by number at a time
MOST_DEPTH: Final = 50
PLAIN: Final = (NoneType, bool, int, float, complex, str, bytes)


class Packer:
    """The sending side of one connection; `shared` gives what the other side must know before what was packed since."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}  # by identity
        self._held: list[Shared] = []  # so that no other value takes the place of one that is known
        self._new: list[tuple[int, int, Any]] = []
        self._next = 0
        self._forget = False
        special: dict[Any, Convert] = dict.fromkeys(SHARED, self._number)
        special |= {tuple[kind, ...]: self._all for kind in SHARED}  # type: ignore[valid-type]
        self._pack_shared = {kind: (place, _packer_of_record(kind, {})) for place, kind in enumerate(SHARED)}
        self._pack = {kind: _packer_of_record(kind, special) for kind in KINDS}

    def pack(self, item: Item) -> tuple[int, Any]:
        """An item as plain values, unless it holds something foreign: see `storable`.

        Raises AttributeError, LookupError, TypeError or ValueError for one whose fields are not of the types that they
        say.
        """
        return NUMBERS[type(item)], self._pack[type(item)](item)

    def shared(self) -> tuple[bool, list[tuple[int, int, Any]]]:
        """Whether to forget everything that was shared before, and what to learn, since this was last asked."""
        new, forget = self._new, self._forget
        self._new, self._forget = [], len(self._held) > MOST_SHARED
        if self._forget:
            self._numbers.clear()
            self._held.clear()
        return forget, new

    def _all(self, values: tuple[Shared, ...]) -> list[int]:
        """The numbers of values: a busy node's jobs are many, and all but the last are known."""
        found = list(map(self._numbers.get, map(id, values)))
        return [self._number(value) for value in values] if None in found else cast(list[int], found)

    def _number(self, value: Shared) -> int:
        found = self._numbers.get(id(value))
        if found is None:
            kind, pack = self._pack_shared[type(value)]
            packed = pack(value)
            found, self._next = self._next, self._next + 1
            self._new.append((found, kind, storable(packed) if kind == 0 else packed))
            self._numbers[id(value)] = found
            self._held.append(value)
        return found


class Unpacker:
    """The receiving side of one connection."""

    def __init__(self) -> None:
        self._shared: dict[int, Shared] = {}
        self._unpack_shared = [_unpacker_of_record(kind, {}) for kind in SHARED]
        special = dict.fromkeys(SHARED, self._shared.__getitem__)
        self._unpack = [_unpacker_of_record(kind, special) for kind in KINDS]

    def learn(self, forget: bool, new: Sequence[tuple[int, int, Any]]) -> None:
        """Take what the packer's `shared` gave."""
        if forget:
            self._shared.clear()
        for number, kind, values in new:
            self._shared[number] = self._unpack_shared[kind](values)

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
        found[hint.__name__] = ",".join(f"{name}:{hints[name]}" for name in _names(hint))
        for inner in hints.values():
            _describe(inner, found)
    if _is_named_tuple(hint):
        found[hint.__name__] = ",".join(hint._fields)
    for inner in get_args(hint):
        _describe(inner, found)


def _packer_of_record(kind: Any, special: Mapping[Any, Convert]) -> Convert:
    if _is_named_tuple(kind):
        return tuple  # all of them hold plain values
    hints = get_type_hints(kind)
    names = _names(kind)
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
    if _is_named_tuple(hint):
        return _packer_of_record(hint, special)
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
    if _is_named_tuple(kind):
        made: Convert = kind._make
        return made
    hints = get_type_hints(kind)
    converted = [(place, _unpacker(hints[name], special)) for place, name in enumerate(_names(kind))]
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
    if _is_named_tuple(hint):
        return _unpacker_of_record(hint, special)
    origin, inner = get_origin(hint), _inner(hint)
    convert = _unpacker(inner, special) if inner is not None else None
    if origin in {Union, UnionType} or convert is None:
        return convert
    if origin is tuple:
        return lambda values: tuple(map(convert, values))
    if origin is Mapping:
        return lambda found: {name: convert(each) for name, each in found.items()}
    return None


def _names(kind: Any) -> list[str]:
    """The fields that a record is made with; the others follow from them."""
    return [field.name for field in fields(kind) if field.init]


def _is_named_tuple(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def _inner(hint: Any) -> Any:
    """The type of what a type is made of: of an optional one, of a tuple's members, of a mapping's values."""
    origin, inner = get_origin(hint), [each for each in get_args(hint) if each not in {NoneType, Ellipsis}]
    if origin is Mapping or origin is dict:
        return inner[1]
    return inner[0] if len(inner) == 1 else None

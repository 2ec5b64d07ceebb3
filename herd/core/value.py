"""How values are declared: made once, compared by their fields, and never changed.

The type checker refuses to assign to a field of one. The interpreter would not refuse for nothing: a dataclass that is
frozen at run time sets each field by a call, which makes it six times as dear to make, and a request makes some thirty.
"""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(declared: type[T]) -> type[T]:
    """A class of values: a dataclass with slots."""
    return dataclass(slots=True, unsafe_hash=True)(declared)

"""Text that must not be shown: keys, tokens and passwords."""

import hmac
from collections.abc import Iterator, Mapping
from typing import NoReturn, Self, TypeVar, final

__all__ = ["MASK", "Secret", "Veiled"]

MASK = "***"

T = TypeVar("T")


@final
class Secret:
    """
    A key, token or password that only `reveal` gives away.

    repr, str and format show ``***``; pickling raises TypeError; copies are the object itself. Two secrets
    are compared in constant time, and a secret never equals a plain str. An empty text raises ValueError.
    """

    # With slots there is no __dict__ for vars(), serialisers and error reporters to walk.
    __slots__ = ("_value",)

    __hash__ = None  # type: ignore[assignment]  # a typed way to say "unhashable" does not exist

    def __init__(self, value: str) -> None:
        if not value:
            raise ValueError("a secret must not be empty")
        self._value = value

    def reveal(self) -> str:
        """Return the text itself."""
        return self._value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_octets(self._value), _octets(other._value))

    def __repr__(self) -> str:
        return MASK

    def __format__(self, format_spec: str) -> str:
        return MASK

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __getstate__(self) -> NoReturn:
        # Every pickle protocol asks for the state, and so do most serialisers that are not pickle.
        raise TypeError("a Secret cannot be pickled; store a reference to it, such as env:NAME or file:PATH")


@final
class Veiled(Mapping[str, T]):
    """A look into a mapping, such as the environment, whose repr gives nothing of it away."""

    __slots__ = ("_mapping",)

    def __init__(self, mapping: Mapping[str, T]) -> None:
        self._mapping = mapping

    def __getitem__(self, name: str) -> T:
        return self._mapping[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)

    def __len__(self) -> int:
        return len(self._mapping)

    def __repr__(self) -> str:
        return MASK


def _octets(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")

"""
From parsed JSON to wire types and back, strictly.

Wire types are attrs classes whose fields are named and typed as an API writes them. A
value of another type than its field's is refused with its path, never coerced; a field
typed `... | None` takes null. Where servers are known to be loose, so is this: an `Id` may be a
number, a time that cannot be read is None, unknown fields are ignored. Nothing is lost by
it: a field `raw: Raw` receives the whole object as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, NewType, cast, get_args, get_origin

import attrs
from cattrs import Converter, IterableValidationError, IterableValidationNote, transform_error
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn, override

from chatbridge.http.content import BrokenContent

__all__ = ["Id", "Raw", "beyond", "keep_raw", "parse_time", "structure", "unstructure"]

Id = NewType("Id", str)
"""An id: a text, or a number that is read as one."""

Raw = Mapping[str, Any]
"""The type of a field named `raw`, which receives the object as it came."""


def keep_raw() -> Any:  # noqa: ANN401 - like attrs' own `field`, whose type is the annotation's
    """Make the field `raw`."""
    return attrs.field(factory=_nothing, repr=False, eq=False, kw_only=True)


def _nothing() -> Raw:
    return {}


_Hook = Callable[[Any, Any], Any]

_PAIR = 2
_MILLISECONDS_FROM = 1e11  # Seconds get there in the year 5138; milliseconds did in 1973.


def parse_time(value: object) -> datetime | None:
    """Read RFC 3339 text, Unix seconds or Unix milliseconds as UTC; None where it is none of them."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.upper())  # RFC 3339 allows a small t and z.
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) >= _MILLISECONDS_FROM else value
            return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def _exactly(kind: type, name: str) -> _Hook:
    def hook(value: object, _: object) -> object:
        if type(value) is kind:
            return value
        raise TypeError(f"expected {name}")

    return hook


def _to_float(value: object, _: object) -> float:
    if type(value) is float or type(value) is int:
        return float(value)
    raise TypeError("expected a number")


def _to_id(value: object, _: object) -> Id:
    if type(value) is str or type(value) is int:
        return Id(str(value))
    raise TypeError("expected an id")


def _to_time(value: object, _: object) -> datetime | None:
    return parse_time(value)


def _is_time(kind: object) -> bool:
    return get_args(kind) == (datetime, NoneType)


def _is_object(kind: object) -> bool:
    return get_origin(kind) in {dict, Mapping}


def _is_optional(kind: object) -> bool:
    members = get_args(kind)
    return isinstance(kind, UnionType) and len(members) == _PAIR and NoneType in members


def _optional_hook(kind: Any, converter: Converter) -> _Hook:  # noqa: ANN401 - a type expression
    # cattrs' own looks up the hook at each value, which costs as much as the rest of a streamed chunk.
    (member,) = (member for member in get_args(kind) if member is not NoneType)
    build = converter.get_structure_hook(member)

    def hook(value: object, _: object) -> object:
        return None if value is None else build(value, member)

    return hook


def _is_list(kind: object) -> bool:
    return get_origin(kind) is list


def _list_hook(kind: Any, converter: Converter) -> _Hook:  # noqa: ANN401 - a type expression
    build = (
        _first_fault_hook(kind) if converter.detailed_validation else list_structure_factory(kind, converter)
    )

    def hook(value: object, to: Any) -> object:  # noqa: ANN401 - a type expression
        if type(value) is not list:
            raise TypeError("expected a list")
        return build(cast(list[object], value), to)

    return hook


def _first_fault_hook(kind: Any) -> _Hook:  # noqa: ANN401 - a type expression
    # cattrs' own would explain every element, which for a long list takes minutes.
    (member,) = get_args(kind)

    def hook(value: list[object], _: object) -> object:
        build = _structure_hook(member)
        for index, element in enumerate(value):
            try:
                build(element, member)
            except Exception:  # noqa: BLE001 - whatever cattrs raises, the element is at fault
                raise _fault_at(index, element, member) from None
        return value

    return hook


def _fault_at(index: int, element: object, kind: Any) -> Exception:  # noqa: ANN401 - a type expression
    """Explain what is wrong with the element at *index* of a list."""
    try:
        _detailed.structure(element, kind)
    except Exception as error:  # noqa: BLE001 - cattrs raises groups and whatever else it met
        error.add_note(IterableValidationNote("", index, kind))
        group = cast(Any, IterableValidationError)  # Pyright takes it for a group of another kind.
        return cast(Exception, group("", [error], list))
    return TypeError("not of the documented form")


def _class_hook(kind: Any, converter: Converter) -> _Hook:  # noqa: ANN401 - a type expression
    keeps_raw = "raw" in attrs.fields_dict(kind)
    if keeps_raw:
        build = make_dict_structure_fn(kind, converter, raw=override(omit=True))
    else:
        build = make_dict_structure_fn(kind, converter)

    def hook(value: object, to: Any) -> object:  # noqa: ANN401 - a type expression
        if type(value) is not dict:
            if type(value) is kind:  # An adapter has built it by hand.
                return value
            raise TypeError("expected an object")
        built: object = build(cast(dict[str, Any], value), to)
        if keeps_raw:
            object.__setattr__(built, "raw", value)
        return built

    return hook


def _make_converter(*, detailed: bool) -> Converter:
    converter = Converter(detailed_validation=detailed, omit_if_default=True)
    for kind, name in {str: "a text", int: "a whole number", bool: "true or false"}.items():
        converter.register_structure_hook(kind, _exactly(kind, name))
    converter.register_structure_hook(float, _to_float)
    converter.register_structure_hook(Id, _to_id)
    converter.register_structure_hook_factory(_is_optional, _optional_hook)
    converter.register_structure_hook_func(_is_time, _to_time)
    converter.register_structure_hook_func(_is_object, _exactly(dict, "an object"))
    converter.register_structure_hook_factory(_is_list, _list_hook)
    converter.register_structure_hook_factory(attrs.has, _class_hook)
    return converter


_fast = _make_converter(detailed=False)
_detailed = _make_converter(detailed=True)


@cache
def _structure_hook(kind: Any) -> _Hook:  # noqa: ANN401 - a type expression
    return _fast.get_structure_hook(kind)


def structure(value: object, kind: Any) -> Any:  # noqa: ANN401 - *kind* may be any type expression
    """
    Make a *kind* of parsed JSON.

    Raises:
        BrokenContent: Of kind `schema`, with the path of the field at fault.
    """
    try:
        return _structure_hook(kind)(value, kind)
    except Exception:  # noqa: BLE001, S110 - whatever cattrs raises, the value is at fault
        pass
    raise BrokenContent("schema", _explain(value, kind))


def _explain(value: object, kind: Any) -> str:  # noqa: ANN401 - a type expression
    """Do it again, slowly, to learn which field is at fault; of a list, up to the first element that is."""
    try:
        _detailed.structure(value, kind)
    except Exception as error:  # noqa: BLE001 - cattrs raises groups and whatever else it met
        return "; ".join(transform_error(error, format_exception=_in_words)[:3])
    return "not of the documented form"


def _in_words(error: BaseException, _: object) -> str:
    """Say what is wrong with a field, never showing its value."""
    if isinstance(error, KeyError):
        return "required field missing"
    ours = isinstance(error, TypeError) and str(error).startswith("expected ")
    return str(error) if ours else "not of the documented form"


def unstructure(value: object) -> Any:  # noqa: ANN401 - JSON
    """Make JSON of a wire type; a field that has its default is left out."""
    return _fast.unstructure(value)


def beyond(raw: Raw, *known: str, **read: object) -> dict[str, Any]:
    """
    Pick what an API sent besides the *known* fields; null counts as not sent.

    A field of *read* is known unless what was read of it is None, as of a time that nobody can read.
    """
    known += tuple(name for name, value in read.items() if value is not None)
    return {name: value for name, value in raw.items() if name not in known and value is not None}

"""Options described for people: what type each has, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Literal, Union, cast, get_args, get_origin

from attrs import NOTHING, fields, frozen, resolve_types

from chatbridge.options import CommonOptions
from chatbridge.secret import Secret

__all__ = ["OptionInfo", "choices_of", "describe_options", "is_list", "type_name", "unwrapped"]


@frozen
class OptionInfo:
    """One option, described for people."""

    name: str
    type: str
    default: str | None
    required: bool
    environment: tuple[str, ...]
    doc: str


def unwrapped(annotation: object) -> object:
    """Drop the `| None` of an optional field's type."""
    if get_origin(annotation) in {Union, UnionType}:
        inner = [member for member in get_args(annotation) if member is not NoneType]
        if len(inner) == 1:
            return inner[0]
    return annotation


def choices_of(annotation: object) -> tuple[str, ...]:
    """Give the texts that an option may be, where they are few."""
    if get_origin(annotation) is Literal:
        return tuple(str(choice) for choice in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return tuple(str(member.value) for member in annotation)
    return ()


def type_name(annotation: object) -> str:
    """Say what an option of this type may be."""
    annotation = unwrapped(annotation)
    if choices := choices_of(annotation):
        return "one of " + ", ".join(choices)
    if is_list(annotation):
        (member,) = get_args(annotation)
        return "a list, with commas, of " + (", ".join(choices_of(member)) or "texts")
    names: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    names[Secret] = "a secret: env:NAME or file:PATH"
    return names[cast(type, annotation)]


def is_list(annotation: object) -> bool:
    """Tell whether an option holds several texts: in any order, or in theirs."""
    return get_origin(annotation) is frozenset or annotation == Sequence[str]


def describe_options(cls: type[CommonOptions], env: Mapping[str, tuple[str, ...]]) -> tuple[OptionInfo, ...]:
    """Describe the options of *cls*, its own before the common ones."""
    common = {attribute.name for attribute in fields(CommonOptions)}
    infos = [
        OptionInfo(
            name=attribute.name,
            type=type_name(attribute.type),
            default=_default_text(attribute.default),
            required=attribute.default is NOTHING,
            environment=env.get(attribute.name, ()),
            doc=attribute.metadata.get("doc", ""),
        )
        for attribute in fields(resolve_types(cls))
    ]
    return tuple(sorted(infos, key=lambda info: info.name in common))


def _default_text(default: object) -> str | None:
    if default is NOTHING or default is None:
        return None
    if isinstance(default, frozenset):
        return ",".join(sorted(cast(frozenset[str], default))) or None
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, Enum):
        return str(default.value)
    return f"{default:.15g}" if isinstance(default, float) else str(default)

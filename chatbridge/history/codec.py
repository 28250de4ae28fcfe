"""
Domain values to JSON and back, with nothing lost on the way.

A field that has its default is left out, so that a field that is new changes nothing that was written
before. A field that is not known is an error, never dropped. Within what a backend or a user gave freely
(`extra`, arguments, opaque data) there may be only what JSON has; a tuple comes back as a list.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, cast

from cattrs import Converter, ForbiddenExtraKeysError
from cattrs.gen import make_dict_unstructure_fn, override
from cattrs.strategies import configure_tagged_union

from chatbridge.domain import Opaque, Part
from chatbridge.errors import StoreError

__all__ = ["dump", "load", "plain"]

T = TypeVar("T")

_Free = Mapping[str, Any]


def plain(value: object) -> Any:  # noqa: ANN401 - as JSON is
    """
    Copy *value*, which must be what JSON has.

    Raises:
        TypeError: It is, or holds, something else.
        ValueError: A number in it is not finite.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"the number {value} is not in JSON")
        return value
    if isinstance(value, Mapping):
        mapping = cast(Mapping[object, object], value)
        wrong = [key for key in mapping if not isinstance(key, str)]
        if wrong:
            raise TypeError(f"a key is a {type(wrong[0]).__name__}, and in JSON each is a text")
        return {key: plain(each) for key, each in mapping.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in cast(Sequence[object], value)]
    raise TypeError(f"JSON has no {type(value).__name__}")


def _as_given(value: Any, _: object) -> Any:  # noqa: ANN401 - as JSON is
    return value


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, omit_if_default=True, detailed_validation=False)
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    converter.register_unstructure_hook(bytes, lambda data: b64encode(data).decode())
    converter.register_structure_hook(bytes, lambda text, _: b64decode(text, validate=True))
    converter.register_unstructure_hook_func(lambda kind: kind == _Free, plain)
    converter.register_structure_hook_func(lambda kind: kind == _Free, _as_given)
    opaque = make_dict_unstructure_fn(Opaque, converter, data=override(unstruct_hook=plain))
    converter.register_unstructure_hook(Opaque, opaque)
    configure_tagged_union(Part, converter, tag_name="type")
    return converter


_CONVERTER = _converter()


def dump(value: object, kind: Any) -> str:  # noqa: ANN401 - whatever type or form of types cattrs takes
    """
    Write *value*, which is a *kind*, as JSON: in ASCII, without blanks, the keys in order.

    Raises:
        StoreError: It holds what JSON does not have.
    """
    try:
        raw = _CONVERTER.unstructure(value, unstructure_as=kind)
        return json.dumps(raw, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        problem = "it is nested too deeply"
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise StoreError(f"what a store keeps is JSON, and here is something else: {problem}", kind="value")


def load(text: str, kind: type[T]) -> T:
    """
    Read a *kind* from JSON.

    Raises:
        StoreError: The text is none; or, of kind "newer", has fields that are not known.
    """
    newer = problem = ""
    try:
        return _CONVERTER.structure(json.loads(text), kind)
    except ForbiddenExtraKeysError as error:
        newer = f"{error.cl.__name__} has {', '.join(sorted(map(repr, error.extra_fields)))}"
    except Exception as error:  # noqa: BLE001 - cattrs raises whatever it met
        problem = type(error).__name__
    if newer:
        raise StoreError(
            f"a later chatbridge wrote it: a {newer}, which this one does not know; update chatbridge "
            "wherever it uses this store",
            kind="newer",
        )
    raise StoreError(
        f"what the store has is no {getattr(kind, '__name__', kind)} that this version can read ({problem})",
        kind="corrupt",
    )

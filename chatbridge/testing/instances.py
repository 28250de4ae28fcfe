"""Values that fit a JSON Schema: what emulated models answer in a form, and call tools with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import unquote

from attrs import define

from chatbridge.testing.exchange import is_array

__all__ = ["arguments", "instance"]

_Schema = Mapping[str, Any]
_Refs = tuple[str, ...]

_ALTERNATIVES = ("anyOf", "oneOf")
_JOINED = frozenset({"$ref", "allOf", *_ALTERNATIVES})
_NONE: _Schema = {"const": None}
_TYPES = {"properties": "object", "required": "object", "items": "array", "minimum": "number"}
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "time": "00:00:00Z",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_MOST, _DEEPEST, _TIMES, _HUGE = 1000, 100, 2, 1e15


def arguments(parameters: object, said: str) -> dict[str, Any]:
    """Make the arguments of a call of a tool with these *parameters*, a JSON Schema; there may be none."""
    return dict(_object(instance(_object(parameters), said)))


def instance(schema: object, said: str) -> Any:  # noqa: ANN401 - JSON
    """
    Make a value that fits *schema*, always the same; its texts are what was *said*.

    Types, choices, formats, bounds, and references into the schema itself are heeded; patterns, conditions
    and `multipleOf` are not. A schema that holds itself is filled twice, the second time with no more than it
    requires, and None stands for the third, as for what a hundred references lead to. Once 1000 schemas are
    filled, the rest is no more than is required, and None stands for all references.
    """
    return _Maker(schema, said).make(schema)


@define
class _Maker:
    """Makes values of the schemas in *root*, as many as are *left* in full, so that there is an end."""

    root: object
    said: str
    left: int = _MOST

    def make(self, schema: object, refs: _Refs = ()) -> Any:  # noqa: ANN401 - JSON
        """Make a value of *schema*, which these *refs* have led to."""
        flat, refs = self._flat(_object(schema), refs)
        if "const" in flat:
            return flat["const"]
        if choices := _list(flat.get("enum")):
            return choices[0]
        small = self._is_small(refs)
        match _type(flat, small=small):
            case "object":
                fields, required = _object(flat.get("properties")), map(str, _list(flat.get("required")))
                names = dict.fromkeys([*(() if small else fields), *required])
                return {name: self.make(fields.get(name), refs) for name in names}
            case "array":
                return [self.make(item, refs) for item in _items(flat, most=self.left, small=small)]
            case "integer":
                return math.ceil(_number(flat, 1))
            case "number":
                return _number(flat, 1.5)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _string(flat, self.said)

    def _flat(self, schema: _Schema, refs: _Refs) -> tuple[_Schema, _Refs]:
        """Join to *schema* its parts, what it refers to, and one of its alternatives; note the references."""
        self.left = max(0, self.left - 1)
        flat = {name: value for name, value in schema.items() if name not in _JOINED}
        parts = [*_list(schema.get("allOf"))]
        ref = schema.get("$ref")
        if isinstance(ref, str):
            refs = (*refs, ref)
            followed = self.left and len(refs) <= _DEEPEST and refs.count(ref) <= _TIMES
            parts.append(_at(ref, self.root) if followed else _NONE)
        for name in _ALTERNATIVES:
            if offered := _list(schema.get(name)):
                nulls = [each for each in offered if _object(each).get("type") == "null"]
                parts.append((nulls if nulls and self._is_small(refs) else offered)[0])
        for part in parts:
            more, refs = self._flat(_object(part), refs)
            fields = {**_object(flat.get("properties")), **_object(more.get("properties"))}
            required = [*_list(flat.get("required")), *_list(more.get("required"))]
            flat = {**flat, **more}
            flat |= {name: value for name, value in (("properties", fields), ("required", required)) if value}
        return flat, refs

    def _is_small(self, refs: _Refs) -> bool:
        return not self.left or len(set(refs)) < len(refs)


def _at(ref: str, root: object) -> object:
    """Find what a reference into the schema itself refers to."""
    for step in ref.lstrip("#").split("/")[1:]:
        root = _object(root).get(unquote(step).replace("~1", "/").replace("~0", "~"))
    return root


def _type(schema: _Schema, *, small: bool) -> str:
    """Tell the type; None may be, where it is enough, and what is left open shows in the other words."""
    told = schema.get("type")
    types = [str(each) for each in _list(told) or filter(None, [told])]
    if small and "null" in types:
        return "null"
    return next(iter(types), None) or next(
        (kind for name, kind in _TYPES.items() if name in schema), "string"
    )


def _items(schema: _Schema, *, most: int, small: bool) -> Sequence[object]:
    first, rest = _list(schema.get("prefixItems")), schema.get("items")
    fewest, at_most = _bound(schema, "minItems", 0), min(_bound(schema, "maxItems", math.inf), most)
    wanted = max(fewest, 0 if small or not isinstance(rest, Mapping) else 1, len(first))
    more: list[object] = [rest] * int(min(wanted, at_most) - len(first))
    return [*first, *more]


def _number(schema: _Schema, usual: float) -> float:
    step = 1 if isinstance(usual, int) else 0.5
    low = max(_bound(schema, "minimum", -math.inf), _bound(schema, "exclusiveMinimum", -math.inf) + step)
    high = min(_bound(schema, "maximum", math.inf), _bound(schema, "exclusiveMaximum", math.inf) - step)
    return max(low, min(usual, high))


def _string(schema: _Schema, said: str) -> str:
    text = _FORMATS.get(str(schema.get("format")), said)
    fewest, most = _bound(schema, "minLength", 0), _bound(schema, "maxLength", math.inf)
    return text.ljust(int(min(fewest, _MOST)), ".")[: None if most == math.inf else int(most)]


def _bound(schema: _Schema, name: str, usual: float) -> float:
    value = schema.get(name)
    return value if isinstance(value, int | float) and abs(value) < _HUGE else usual


def _object(value: object) -> _Schema:
    return cast(_Schema, value) if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return value if is_array(value) else ()

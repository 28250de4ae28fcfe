"""Values that fit a JSON Schema."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from chatbridge.testing.instances import arguments, instance

NODE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        "all": {"type": "array", "items": {"$ref": "#/$defs/node"}},
    },
    "required": ["next"],
}
LAST = {"next": None}
SCHEMAS: list[tuple[Any, Any]] = [
    ({"enum": ["red", "gold"]}, "red"),
    ({"enum": [None, "gold"]}, None),
    ({"const": 7}, 7),
    ({}, "Hello"),
    (True, "Hello"),
    ({"type": "string"}, "Hello"),
    ({"type": ["null", "integer"]}, None),
    ({"type": ["integer", "null"]}, 1),
    ({"type": 7}, "Hello"),
    ({"type": "boolean"}, True),
    ({"type": "integer", "minimum": 0}, 1),
    ({"type": "integer", "minimum": 2.5}, 3),
    ({"type": "integer", "exclusiveMaximum": 0}, -1),
    ({"type": "number"}, 1.5),
    ({"type": "number", "maximum": 1}, 1),
    ({"type": "integer", "minimum": 10**400}, 1),
    ({"minimum": 3}, 3),
    ({"type": "string", "minLength": 7}, "Hello.."),
    ({"type": "string", "maxLength": 4}, "Hell"),
    ({"type": "string", "format": "date"}, "2026-01-01"),
    ({"type": "string", "format": "colour"}, "Hello"),
    ({"type": "array"}, []),
    ({"items": {"type": "boolean"}}, [True]),
    ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
    ({"type": "array", "items": {"type": "boolean"}, "maxItems": 0}, []),
    ({"type": "array", "prefixItems": [{"type": "null"}], "items": False}, [None]),
    ({"type": "object"}, {}),
    ({"properties": {"a": {"type": "number"}, "b": {"type": "null"}}}, {"a": 1.5, "b": None}),
    ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, {"a": "Hello", "b": "Hello"}),
    ({"properties": [7], "required": "a"}, {}),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
    ({"oneOf": []}, "Hello"),
    (
        {"allOf": [{"properties": {"a": {"type": "null"}}}, {"properties": {"b": {"const": 1}}}]},
        {"a": None, "b": 1},
    ),
    (
        {"type": "object", "properties": {"a": {"const": 1}}, "anyOf": [{"required": ["b"]}, {}]},
        {"a": 1, "b": "Hello"},
    ),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, 1),
    ({"$ref": "#/$defs/none"}, "Hello"),
    ({"$ref": "https://example.com/x"}, "Hello"),
    ({"$ref": "#"}, None),
    ({"$ref": "#/$defs/node", "$defs": {"node": NODE}}, {"name": "Hello", "next": LAST, "all": [LAST]}),
    ({"type": "object", "properties": {"self": {"$ref": "#"}}}, {"self": {"self": {}}}),
    ({"required": ["self"], "properties": {"self": {"$ref": "#"}}}, {"self": {"self": {"self": None}}}),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "value"), SCHEMAS)
def test_a_value_fits_its_schema(schema: object, value: object) -> None:
    assert value == instance(schema, "Hello")
    assert type(value) is type(instance(schema, "Hello"))


@pytest.mark.parametrize(
    ("parameters", "value"),
    [
        (None, {}),
        ({"type": "object"}, {}),
        ({"type": "string"}, {}),
        (MappingProxyType({"properties": {"city": {"type": "string"}}}), {"city": "Hello"}),
    ],
)
def test_the_arguments_of_a_call_are_an_object(parameters: object, value: object) -> None:
    assert value == arguments(parameters, "Hello")

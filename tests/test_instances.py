"""Values that fit a JSON Schema."""

from __future__ import annotations

import json
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


def objects(count: int, steps: range, **more: Any) -> Any:
    """Make definitions of objects, each of which refers to those that are so much further on."""
    return {
        "$ref": "#/$defs/0",
        "$defs": {
            str(number): {
                "properties": {
                    str(at): {"$ref": f"#/$defs/{(number + step) % count}"} for at, step in enumerate(steps)
                },
                **more,
            }
            for number in range(count)
        },
    }


def lists(count: int) -> Any:
    return {"type": "array", "minItems": 500, "items": lists(count - 1) if count else {}}


@pytest.mark.parametrize(
    "schema",
    [
        objects(12, range(12)),
        objects(12, range(1, 12), required=[str(at) for at in range(11)]),
        objects(40, range(1, 2), allOf=[{"$ref": f"#/$defs/{at}"} for at in range(40)]),
        lists(5),
    ],
)
def test_schemas_within_each_other_come_to_an_end_soon(schema: object) -> None:
    assert 100_000 > len(json.dumps(instance(schema, "Hello")))


def test_a_long_chain_of_references_comes_to_an_end() -> None:
    assert 100 == json.dumps(instance(objects(900, range(1, 2)), "Hello")).count("{")


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

"""
Requests to Anthropic's Messages API, made of neutral messages and options.

Sources: as in `wire`. The system prompt stands apart from the messages: each model takes it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from chatbridge.backend import Profile, check_extra, check_tools
from chatbridge.domain import Message, SendOptions
from chatbridge.errors import BadOption, UsageError
from chatbridge.http import Raw, as_list, problem_of
from chatbridge_adapters.anthropic.messages import History, given_back
from chatbridge_adapters.anthropic.turns import Block
from chatbridge_adapters.anthropic.wire import HOST, NAME

EXTRA_TO_SEND = (
    "cache_control",
    "container",
    "diagnostics",
    "inference_geo",
    "metadata",
    "output_config",
    "service_tier",
    "speed",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "user_profile_id",
)
_OURS = ("custom", "function")
_CHOICES: Mapping[str, str] = {"auto": "auto", "none": "none", "any": "any", "required": "any"}
# What of a JSON Schema holds others, by themselves or in a list; by names; and what tells more of the same.
_HOLDING = frozenset({"items", "prefixItems", "anyOf", "oneOf", "allOf"})
_NAMING = frozenset({"properties", "$defs", "definitions"})
_JOINING = frozenset({"$ref", "anyOf", "oneOf", "allOf"})


def to_request(
    messages: Sequence[Message],
    options: SendOptions,
    profile: Profile,
    *,
    model: str | None,
    max_tokens: int,
    host: str = HOST,
) -> tuple[dict[str, Any], list[str]]:
    """
    Make the body of a request, and say what of the history had to be left out, moved or added.

    Args:
        messages: The history, and last what is to be answered.
        options: Of this answer.
        profile: The backend's.
        model: The model, unless the options name one.
        max_tokens: How long the answer may be, unless the options say so.
        host: Where it is sent.

    Raises:
        BadOption: There is no model, or an option is not what it takes.
        UsageError: What is to be answered cannot be sent.
    """
    extra = dict(options.extra)
    check_extra(extra, EXTRA_TO_SEND, profile)
    check_tools(options.tools, profile)
    if not messages:
        raise UsageError(f"{NAME}: there is no message to answer", provider=NAME)
    history = History(host)
    for number, message in enumerate(messages, 1):
        history.take(message, last=number == len(messages))
    prompts = [options.system, *history.prompts]
    tools = [*map(_tool, options.tools), *_tools_in_extra(extra.pop("tools", None))]
    body = {
        "model": options.model or model,
        "max_tokens": max_tokens if options.max_output_tokens is None else options.max_output_tokens,
        "system": "\n\n".join(filter(None, prompts)) or None,
        "messages": history.turns(),
        "container": history.container,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "stop_sequences": list(options.stop) or None,
        "tools": tools or None,
        "tool_choice": None if options.tool_choice is None else _choice(options.tool_choice, tools),
        "output_config": _output(options.response_format, extra.pop("output_config", None)),
        **extra,
    }
    if body["model"] is None:
        raise BadOption(
            backend=NAME,
            option="model",
            problem=f"is required: name one, as in {NAME}:MODEL, or {NAME}://HOST?model=MODEL",
        )
    return {name: value for name, value in body.items() if value is not None}, history.warnings


def goes_on(body: Mapping[str, Any], paused: Sequence[Block], container: str | None) -> dict[str, Any]:
    """Make the request that lets a *paused* answer go on: it is given back as it came."""
    content = [given_back(block) for block in paused]
    text = content[-1].get("text")
    if isinstance(text, str):  # The API refuses to go on after a blank.
        content[-1] = {**content[-1], "text": text.rstrip()}
    messages = [*body["messages"], {"role": "assistant", "content": content}]
    return {**body, "messages": messages, **({} if container is None else {"container": container})}


def _tool(tool: Mapping[str, Any]) -> Block:
    """
    Say a tool in the API's form; its other fields, such as `strict`, go along as they are.

    One of the server's own, which has another type than the program's, stays as it is.
    """
    if tool.get("type", "custom") not in _OURS:
        return tool
    rest = {name: value for name, value in tool.items() if name not in {"parameters", "type"}}
    schema: object = tool.get("parameters") or tool.get("input_schema") or {}
    return {**rest, "input_schema": {"type": "object", **schema} if isinstance(schema, Mapping) else schema}


def _choice(choice: str, tools: Sequence[Block]) -> Block:
    """Say which tool is to be called: one by its name, or `auto`, `none`, `any` or `required`."""
    names = [name for tool in tools if isinstance(name := tool.get("name"), str)]
    if choice in names:
        return {"type": "tool", "name": choice}
    if choice in _CHOICES:
        return {"type": _CHOICES[choice]}
    raise BadOption(
        backend=NAME,
        option="tool_choice",
        shown=choice,
        problem="is none of auto, none, any, required, and no tool on offer",
        known=names,
    )


def _output(form: Raw | None, given: object) -> Block | None:
    """
    Say the form of an answer in the API's: a JSON Schema is all that it takes, by itself or wrapped.

    Raises:
        BadOption: It is another, or none that can be written, or what is *given* in extra is no mapping.
    """
    if given is not None and not isinstance(given, Mapping):
        raise BadOption(backend=NAME, option="output_config", problem="in extra takes a mapping")
    output = dict(cast(Block, given or {}))
    kind = None if form is None else form.get("type")
    if form is None or kind == "text":
        return output or None
    schema: object = form
    if kind == "json_schema":
        named: object = form.get("json_schema", form)
        schema = cast(Block, named).get("schema") if isinstance(named, Mapping) else None
    if kind == "json_object" or not isinstance(schema, Mapping):
        raise BadOption(
            backend=NAME, option="response_format", problem="takes a JSON Schema, and no other form of JSON"
        )
    if (problem := problem_of(cast(object, schema))) is not None:
        raise BadOption(
            backend=NAME, option="response_format", problem=f"cannot be written as JSON: {problem}"
        )
    return {**output, "format": {"type": "json_schema", "schema": _closed(cast(object, schema))}}


def _closed(schema: object, *, joined: bool = False) -> object:
    """
    Say of each object in *schema* that it holds nothing else, unless it says: the API insists on that.

    One that is *joined* with others, which tell more of the same object, stays as it is: nothing would fit.

    Raises:
        BadOption: An object may hold anything, as it says nothing of its properties.
    """
    if isinstance(schema, list | tuple):
        return [_closed(each, joined=joined) for each in cast(Sequence[object], schema)]
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(cast(Block, schema))
    is_object = "object" in as_list(closed.get("type")) or "properties" in closed
    joined = joined or len(as_list(closed.get("allOf"))) > 1 or (is_object and bool(_JOINING & closed.keys()))
    for name, held in closed.items():
        if name in _HOLDING:
            closed[name] = _closed(held, joined=joined and name in _JOINING)
        elif name in _NAMING and isinstance(held, Mapping):
            closed[name] = {key: _closed(value) for key, value in cast(Block, held).items()}
    if is_object and not joined and "additionalProperties" not in closed:
        if "properties" not in closed:
            raise BadOption(
                backend=NAME,
                option="response_format",
                problem="has an object that may hold anything, which the API does not take: name its "
                "properties, or say of it additionalProperties: false",
            )
        closed["additionalProperties"] = False
    return closed


def _tools_in_extra(value: object) -> Sequence[Block]:
    given = cast(Sequence[object], value) if isinstance(value, list | tuple) else None
    if value is None or (given is not None and all(isinstance(tool, Mapping) for tool in given)):
        return cast(Sequence[Block], given or ())
    raise BadOption(backend=NAME, option="tools", problem="in extra takes a list of mappings")

"""
Requests to Anthropic's Messages API, made of neutral messages and options.

Sources: as in `wire`. The API knows two roles, which take turns: what tools gave is said by the user, before
anything else that the user says there; the system prompt stands apart.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from attrs import define, field

from chatbridge.backend import Profile, check_extra, check_tools
from chatbridge.domain import (
    Attachment,
    Message,
    Opaque,
    Part,
    Reasoning,
    Role,
    SendOptions,
    Text,
    ToolCall,
    ToolResult,
)
from chatbridge.errors import BadOption, UsageError
from chatbridge.http import Raw
from chatbridge_adapters.anthropic.wire import NAME

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
UNREAD = "partial_json"
"""Where the arguments of a call are kept as text, that are no JSON object."""

MOVED = "a system message within the history was put before it, as the API takes a system prompt only there"

Side = Literal["user", "assistant"]
Block = Mapping[str, Any]

_IMAGES = ("image/gif", "image/jpeg", "image/png", "image/webp")
_TAKEN = f"{', '.join(_IMAGES)}, application/pdf and text/... (the last not by a url)"
_CHOICES: Mapping[str, str] = {"auto": "auto", "none": "none", "any": "any", "required": "any"}
_SIGNED = f"{NAME}:"


def sign(signature: str) -> str:
    """Give the signature of a thought in a form that says whose it is, as another's is never sent."""
    return _SIGNED + signature


def to_request(
    messages: Sequence[Message], options: SendOptions, profile: Profile, *, model: str | None, max_tokens: int
) -> tuple[dict[str, Any], list[str]]:
    """
    Make the body of a request, and say what of the history had to be left out or moved.

    Args:
        messages: The history, and last what is to be answered.
        options: Of this answer.
        profile: The backend's.
        model: The model, unless the options name one.
        max_tokens: How long the answer may be, unless the options say so.

    Raises:
        BadOption: There is no model, or an option is not what it takes.
        UsageError: What is to be answered cannot be sent.
    """
    extra = dict(options.extra)
    check_extra(extra, EXTRA_TO_SEND, profile)
    check_tools(options.tools, profile)
    if not messages:
        raise UsageError(f"{NAME}: there is no message to answer", provider=NAME)
    history = _History()
    for number, message in enumerate(messages, 1):
        history.take(message, last=number == len(messages))
    prompts = [options.system, *history.prompts]
    tools = [*map(_tool, options.tools), *_list("tools", extra.pop("tools", None))]
    body = {
        "model": options.model or model,
        "max_tokens": max_tokens if options.max_output_tokens is None else options.max_output_tokens,
        "system": "\n\n".join(filter(None, prompts)) or None,
        "messages": history.turns(),
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
    messages = [*body["messages"], {"role": "assistant", "content": paused}]
    return {**body, "messages": messages, **({} if container is None else {"container": container})}


@define
class _History:
    """
    Messages, in the API's form.

    Attributes:
        prompts: The system's texts.
        warnings: What was left out or moved.
    """

    prompts: list[str] = field(factory=list[str])
    _turns: list[tuple[Side, list[Block]]] = field(factory=list[tuple[Side, list[Block]]])
    warnings: list[str] = field(factory=list[str])

    def take(self, message: Message, *, last: bool) -> None:
        """
        Add *message*.

        Raises:
            UsageError: It is the *last*, which is to be answered, and cannot be sent as it is.
        """
        said = 0
        for part in message.parts:
            if isinstance(part, Text) and not part.text.strip():
                continue  # The API refuses blank texts.
            try:
                said += self._add(part, message.role)
            except UsageError as error:
                if last:
                    raise
                self._warn(f"left out of the history: {error}")
        if last and not said:
            raise UsageError(f"{NAME}: the last message is to be answered, and says nothing", provider=NAME)

    def turns(self) -> list[Block]:
        """Give the messages, each side's turn as one, and in it what tools gave before anything else."""
        return [
            {"role": side, "content": blocks if side == "assistant" else sorted(blocks, key=_is_no_result)}
            for side, blocks in self._turns
        ]

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _add(self, part: Part, role: Role) -> int:
        """Add a part, and count what it adds to what is said; a system prompt stands apart."""
        if role is Role.SYSTEM:
            if not isinstance(part, Text):
                raise _refusal(part, role)
            if self._turns:
                self._warn(MOVED)
            self.prompts.append(part.text)
            return 0
        if isinstance(part, Opaque) and part.origin != NAME and role is Role.ASSISTANT:
            kind, origin = part.kind, part.origin
            self._warn(f"a part of the kind {kind!r} was left out: it can be given back to {origin} only")
            return 0
        blocks = list(_blocks(part, role))
        for side, block in blocks:
            if not self._turns or self._turns[-1][0] != side:
                self._turns.append((side, []))
            self._turns[-1][1].append(block)
        return len(blocks)


def _is_no_result(block: Block) -> bool:
    return block.get("type") != "tool_result"


def _blocks(part: Part, role: Role) -> Iterator[tuple[Side, Block]]:
    """
    Say a part in the API's form, and who says it; thoughts that were not signed here give nothing.

    Raises:
        UsageError: The API cannot take it there.
    """
    answered = role is Role.ASSISTANT
    side: Side = "assistant" if answered else "user"
    match part:
        case Text(text):
            yield side, {"type": "text", "text": text}
        case ToolResult(call_id, content, is_error):
            result = {"type": "tool_result", "tool_use_id": call_id, "content": content}
            yield "user", {**result, "is_error": True} if is_error else result
        case ToolCall(call_id, name, arguments) if answered:
            yield side, {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
        case Attachment() if not answered:
            yield side, _attached(part)
        case Opaque(origin, _, data) if origin == NAME and isinstance(data, Mapping) and UNREAD not in data:
            yield side, cast(Block, data)
        case Reasoning(text, signature) if answered:
            if signature is not None and signature.startswith(_SIGNED):
                signature = signature.removeprefix(_SIGNED)
                yield side, {"type": "thinking", "thinking": text, "signature": signature}
        case _:
            raise _refusal(part, role)


def _refusal(part: Part, role: Role) -> UsageError:
    kind = type(part).__name__
    if isinstance(part, Opaque):
        kind = f"part of {part.origin} of the kind {part.kind!r}"
    return UsageError(f"{NAME} takes no {kind} in a message of the {role.value}'s", provider=NAME)


def _attached(part: Attachment) -> Block:
    kind = part.media_type.lower().partition(";")[0].strip()
    title = {} if part.name is None else {"title": part.name}
    data: bytes | None = part.data
    if data is None:
        source = {"type": "url", "url": part.url}
        if kind.startswith("image/"):
            return {"type": "image", "source": source}
        if kind == "application/pdf":
            return {"type": "document", "source": source, **title}
    elif kind in _IMAGES:
        return {"type": "image", "source": _base64(kind, data)}
    elif kind == "application/pdf":
        return {"type": "document", "source": _base64(kind, data), **title}
    elif kind.startswith("text/"):
        text = {"type": "text", "media_type": "text/plain", "data": data.decode("utf-8", "replace")}
        return {"type": "document", "source": text, **title}
    raise UsageError(
        f"{NAME} takes no attachment of the type {part.media_type!r}"
        f"{' by its url' if data is None else ''}, only {_TAKEN}",
        provider=NAME,
    )


def _base64(kind: str, data: bytes) -> Block:
    return {"type": "base64", "media_type": kind, "data": base64.b64encode(data).decode()}


def _tool(tool: Mapping[str, Any]) -> Block:
    """Say a tool in the API's form; its other fields, such as `strict`, go along as they are."""
    rest = {name: value for name, value in tool.items() if name != "parameters"}
    return {"input_schema": tool.get("parameters") or {"type": "object"}, **rest}


def _choice(choice: str, tools: Sequence[Block]) -> Block:
    """Say which tool is to be called: one by its name, or `auto`, `none`, `any` or `required`."""
    names = [str(tool.get("name")) for tool in tools]
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
        BadOption: It is another, or what is *given* in extra is no mapping.
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
    return {**output, "format": {"type": "json_schema", "schema": schema}}


def _list(name: str, value: object) -> Sequence[Block]:
    if value is None or isinstance(value, list | tuple):
        return cast(Sequence[Block], value or ())
    raise BadOption(backend=NAME, option=name, problem="in extra takes a list")

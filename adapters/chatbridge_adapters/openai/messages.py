"""
What is said in a conversation, as chat completions take it: messages, tools and the form of the answer.

Source: the types of the Python package openai 3.52.0. Its API wants the results of tools in messages of their
own; `turns` has the rules of their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field

from chatbridge.domain import Attachment, Message, Opaque, Part, Reasoning, Role, Text, ToolCall, ToolResult
from chatbridge.errors import BadOption, UsageError
from chatbridge.http import CALLS, as_object, dumps
from chatbridge_adapters.openai.attached import attached
from chatbridge_adapters.openai.turns import Call, Json, Result, Said, in_order
from chatbridge_adapters.openai.wire import NAME

THINKING = "thinking"
"""The kind of a part of a content that holds reasoning, and the field of the part that has it."""

HOST_OF_CALLS = "tool_calls_host"
"""Where the `extra` of an answer has the host that alone is given back what it said of calls beyond ours."""

_SIGNED = f"{NAME}:"
_FORMS = ("text", "json_object", "json_schema")
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_NAME_OF_SCHEMA = re.compile(r"[^A-Za-z0-9_-]+")


def sign(field_name: str) -> str:
    """Give the signature of reasoning that came in the field *field_name*."""
    return _SIGNED + field_name


@define
class History:
    """
    Messages, in the API's form.

    Attributes:
        reasoning: Whether reasoning is given back.
        host: The server's; what another one said of calls of tools beyond ours stays behind.
        strict: Whether what only other servers say of calls of tools stays behind, as OpenAI refuses it.
        warnings: What was left out or added.
    """

    reasoning: bool = False
    host: str | None = None
    strict: bool = False
    warnings: list[str] = field(factory=list[str])
    _messages: list[Message] = field(factory=list[Message])
    _history: list[Said | Result] = field(factory=list[Said | Result])
    _count: int = 0

    def add(self, message: Message) -> None:
        """Add *message*."""
        self._messages.append(message)

    def messages(self) -> list[Json]:
        """
        Give them in an order that the API takes.

        Raises:
            UsageError: One of them has a part that the API does not take from who speaks, or the last has the
                result of a call that was not made right before it.
        """
        if (plain := _plain_messages(self._messages)) is not None:
            return plain
        self._history, self._count = [], 0
        for message in self._messages:
            self._add(message)
        ordered = in_order(self._history, self._count, self._warn)
        for result in ordered.orphans:
            why = f"a result of the call {result.call_id!r}, which was not made right before it"
            if result.message == self._count:
                raise UsageError(f"{NAME} cannot be sent {why}", provider=NAME)
            self._warn(f"left out of the history: {why}")
        return ordered.messages

    def _add(self, message: Message) -> None:
        role, parts = message.role, message.parts
        self._count += 1
        if role is Role.ASSISTANT:
            self._add_answer(message)
            return
        results = [self._result(part) for part in parts if isinstance(part, ToolResult)]
        self._history += results
        rest = [part for part in parts if not isinstance(part, ToolResult)]
        if role is Role.TOOL:
            if rest:
                raise _refused("a message of a tool's holds results of calls only", rest[0])
        elif rest or not results:
            self._say(role, rest)

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _add_answer(self, message: Message) -> None:
        ours = not self.strict and message.extra.get(HOST_OF_CALLS) in (None, self.host)
        beside = as_object(message.extra.get(CALLS) if ours else None)
        said: list[Part] = []
        for part in message.parts:  # Agents on a server call tools and tell their results within one message.
            if isinstance(part, ToolResult):
                self._answer(said, beside)
                said = []
                self._history.append(self._result(part))
            else:
                said.append(part)
        self._answer(said, beside)

    def _result(self, part: ToolResult) -> Result:
        return Result(part.call_id, part.content, self._count)

    def _say(self, role: Role, parts: Sequence[Part]) -> None:
        content: list[Json] = []
        for part in parts:
            if isinstance(part, Text):
                content.append({"type": "text", "text": part.text})
            elif isinstance(part, Opaque):
                content += [part.data] if self._is_ours(part) else []
            elif isinstance(part, Attachment) and role is Role.USER:
                content.append(attached(part))
            else:
                raise _refused(f"a message of the {role.value}'s cannot hold one", part)
        if parts and not content:
            raise UsageError(
                f"{NAME}: nothing of the {role.value}'s message is left: {'; '.join(self.warnings)}",
                provider=NAME,
            )
        self._history.append(Said(role.value, _plain(content)))

    def _answer(self, parts: Sequence[Part], beside: Mapping[str, Any]) -> None:
        content: list[Json] = []
        calls: list[Call] = []
        thoughts: dict[str, str] = {}
        for part in parts:
            match part:
                case Text(text):
                    content.append({"type": "text", "text": text})
                case ToolCall(call_id):
                    calls.append(_call(part, as_object(beside.get(call_id))))
                case Reasoning(text, signature):
                    name = self._field_of(signature)
                    if name == THINKING:
                        content.append({"type": THINKING, THINKING: [{"type": "text", "text": text}]})
                    elif name:
                        thoughts[name] = thoughts.get(name, "") + text
                case Opaque(_, "tool_call", data):
                    calls += [_unread(data)] if self._is_ours(part) else []
                case Opaque(_, _, data):
                    content += [data] if self._is_ours(part) else []
                case _:
                    raise _refused("a message of the assistant's cannot hold one", part)
        said = Said(Role.ASSISTANT.value, _plain(content) if content else None, calls, thoughts)
        if not said.is_empty:
            self._history.append(said)

    def _field_of(self, signature: str | None) -> str:
        """Tell in which field reasoning is given back; in none unless it came from here."""
        if not self.reasoning or signature is None or not signature.startswith(_SIGNED):
            return ""
        return signature.removeprefix(_SIGNED)

    def _is_ours(self, part: Opaque) -> bool:
        if part.origin == NAME and isinstance(part.data, Mapping):
            return True
        why = (
            "no server takes such a one"
            if part.origin == NAME
            else f"it can be given back to {part.origin} only"
        )
        self._warn(f"a part of the kind {part.kind!r} was left out: {why}")
        return False


def _plain_messages(messages: Iterable[Message]) -> list[Json] | None:
    """
    Give messages that are text alone and take turns, as nearly all do; None where one is another.

    In a tenth of the time: of dicts that hold plain texts alone Python's garbage collector takes no note.
    """
    said: list[Json] = []
    last = None
    for message in messages:
        role, parts = message.role, message.parts
        if role is last or len(parts) != 1 or not isinstance(part := parts[0], Text):
            return None
        if role is Role.USER:
            said.append({"role": "user", "content": part.text})
        elif role is Role.ASSISTANT:
            said.append({"role": "assistant", "content": part.text})
        elif role is Role.SYSTEM:
            said.append({"role": "system", "content": part.text})
        else:
            return None
        last = role
    return said


def _plain(content: list[Json]) -> str | list[Json]:
    """Say content that is text alone as a text, which every server takes."""
    texts = [part["text"] for part in content if part.keys() == {"type", "text"} and part["type"] == "text"]
    if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
        return "".join(texts)
    return content


def _call(call: ToolCall, beside: Mapping[str, Any]) -> Call:
    function = {"name": call.name, "arguments": _arguments(call)}
    return Call(call.id, call.name, {**beside, "id": call.id, "type": "function", "function": function})


def _arguments(call: ToolCall) -> str:
    try:
        return dumps(call.arguments).decode()
    except ValueError as error:
        problem = str(error)
    raise UsageError(
        f"{NAME} cannot be sent the call {call.id!r}: its arguments cannot be written as JSON: {problem}",
        provider=NAME,
    )


def _unread(data: Mapping[str, Any]) -> Call:
    function = as_object(data.get("function") or data.get("custom"))
    return Call(data.get("id"), function.get("name"), data, read=False)


def _refused(why: str, part: Part) -> UsageError:
    return UsageError(f"{NAME} cannot be sent the part {type(part).__name__}: {why}", provider=NAME)


def to_tools(tools: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Say the tools on offer."""
    return [{"type": "function", "function": tool} for tool in tools]


def to_tool_choice(choice: str, tools: Sequence[Mapping[str, Any]]) -> str | Json:
    """
    Say which tool is to be called: auto, none, required (or any), or one by its name.

    Raises:
        BadOption: It is none of these.
    """
    names = [str(tool.get("name")) for tool in tools]
    offer = ", ".join(names) or "there is none"
    if choice in names:
        return {"type": "function", "function": {"name": choice}}
    if choice in {"auto", "none", "required", "any"}:
        return "required" if choice == "any" else choice
    raise BadOption(
        backend=NAME,
        option="tool_choice",
        shown=choice,
        problem=f"is none of auto, none, required, nor a tool on offer ({offer})",
    )


def to_response_format(form: Mapping[str, Any]) -> Mapping[str, Any]:
    """Say the form of the answer: a JSON Schema by itself is wrapped, all else is the API's own form."""
    kind = form.get("type")
    if kind in _FORMS or (kind is not None and kind not in _TYPES and not isinstance(kind, list)):
        return form
    title: object = form.get("title")
    name = _NAME_OF_SCHEMA.sub("_", title if title and isinstance(title, str) else "answer")[:64]
    return {"type": "json_schema", "json_schema": {"name": name, "schema": form}}

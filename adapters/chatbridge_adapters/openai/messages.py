"""
What is said in a conversation, as chat completions take it: messages, tools and the form of the answer.

Source: the types of the Python package openai 3.52.0. Its API wants the results of tools in messages of their
own. The templates of many models that other servers have want user and assistant in turn; so messages of one
role that follow each other are sent as one.
"""

from __future__ import annotations

import json
import mimetypes
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field

from chatbridge.domain import Attachment, Message, Opaque, Part, Reasoning, Role, Text, ToolCall, ToolResult
from chatbridge.errors import BadOption, UsageError
from chatbridge_adapters.openai.wire import NAME

Json = dict[str, Any]

_GAP = "\n\n"
_SOUNDS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
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
    Messages as the API takes them.

    Attributes:
        reasoning: Whether reasoning is given back.
        warnings: What was left out.
    """

    reasoning: bool = False
    messages: list[Json] = field(factory=list[Json])
    warnings: list[str] = field(factory=list[str])

    def add(self, message: Message) -> None:
        """
        Add *message*.

        Raises:
            UsageError: It has a part that the API does not take from who speaks.
        """
        if (
            len(message.parts) == 1
            and isinstance(part := message.parts[0], Text)
            and message.role is not Role.TOOL
        ):
            self._append({"role": message.role.value, "content": part.text})  # As nearly every message is.
            return
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        if message.role is Role.ASSISTANT:
            self._add_answer(message.parts)
            return
        for result in results:
            self._give(result)
        rest = [part for part in message.parts if not isinstance(part, ToolResult)]
        if message.role is Role.TOOL:
            if rest:
                raise _refused("a message of a tool's holds results of calls only", rest[0])
        elif rest or not results:
            self._say(message.role, rest)

    def _add_answer(self, parts: Iterable[Part]) -> None:
        said: list[Part] = []
        for part in parts:  # Agents on a server call tools and tell their results within one message.
            if isinstance(part, ToolResult):
                self._answer(said)
                said = []
                self._give(part)
            else:
                said.append(part)
        self._answer(said)

    def _give(self, result: ToolResult) -> None:
        self.messages.append({"role": "tool", "tool_call_id": result.call_id, "content": result.content})

    def _say(self, role: Role, parts: Sequence[Part]) -> None:
        content: list[Json] = []
        for part in parts:
            if isinstance(part, Text):
                content.append({"type": "text", "text": part.text})
            elif isinstance(part, Opaque):
                content += [part.data] if self._is_ours(part) else []
            elif isinstance(part, Attachment) and role is Role.USER:
                content.append(_attached(part))
            else:
                raise _refused(f"a message of the {role.value}'s cannot hold one", part)
        if parts and not content:
            raise UsageError(
                f"{NAME}: nothing of the {role.value}'s message is left: {'; '.join(self.warnings)}",
                provider=NAME,
            )
        self._append({"role": role.value, "content": _plain(content)})

    def _answer(self, parts: Sequence[Part]) -> None:
        if not parts:
            return
        content: list[Json] = []
        calls: list[Any] = []
        thoughts: dict[str, str] = {}
        for part in parts:
            match part:
                case Text(text):
                    content.append({"type": "text", "text": text})
                case ToolCall():
                    calls.append(_call(part))
                case Reasoning(text, signature):
                    if self.reasoning and signature is not None and signature.startswith(_SIGNED):
                        name = signature.removeprefix(_SIGNED)
                        thoughts[name] = thoughts.get(name, "") + text
                case Opaque():
                    if self._is_ours(part):
                        (calls if part.kind == "tool_call" else content).append(part.data)
                case _:
                    raise _refused("a message of the assistant's cannot hold one", part)
        if content or calls or thoughts:
            said = _plain(content) if content or not calls else None
            message: Json = {"role": "assistant", "content": said, **thoughts}
            self._append({**message, "tool_calls": calls} if calls else message)

    def _is_ours(self, part: Opaque) -> bool:
        if part.origin == NAME and isinstance(part.data, Mapping):
            return True
        why = (
            "no server takes such a one"
            if part.origin == NAME
            else f"it can be given back to {part.origin} only"
        )
        warning = f"a part of the kind {part.kind!r} was left out: {why}"
        if warning not in self.warnings:
            self.warnings.append(warning)
        return False

    def _append(self, message: Json) -> None:
        before = self.messages[-1] if self.messages else None
        if before is None or before["role"] != message["role"]:
            self.messages.append(message)
            return
        for name, value in message.items():
            if name != "role":
                before[name] = _joined(before.get(name), value)


def _plain(content: list[Json]) -> str | list[Json]:
    """Say content that is text alone as a text, which every server takes."""
    texts = [part["text"] for part in content if part.keys() == {"type", "text"} and part["type"] == "text"]
    if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
        return "".join(texts)
    return content


def _joined(before: Any, value: Any) -> Any:  # noqa: ANN401 - JSON
    if not before or not value:
        return before or value
    if isinstance(before, str) and isinstance(value, str):
        return before + _GAP + value
    return [*_listed(before), *_listed(value)]


def _listed(content: str | list[Any]) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _call(call: ToolCall) -> Json:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _attached(part: Attachment) -> Json:
    url = part.url
    if part.data is not None:
        url = f"data:{part.media_type};base64,{b64encode(part.data).decode()}"
    if part.media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if url is None or not url.startswith("data:"):
        raise UsageError(
            f"{NAME} takes images by their address, and {part.media_type} as data only: give its data",
            provider=NAME,
        )
    if part.media_type in _SOUNDS:
        sound = {"data": url.partition(",")[2], "format": _SOUNDS[part.media_type]}
        return {"type": "input_audio", "input_audio": sound}
    name = part.name or f"file{mimetypes.guess_extension(part.media_type) or ''}"
    return {"type": "file", "file": {"filename": name, "file_data": url}}


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
    name = _NAME_OF_SCHEMA.sub("_", str(form.get("title") or "answer"))[:64]
    return {"type": "json_schema", "json_schema": {"name": name, "schema": form}}

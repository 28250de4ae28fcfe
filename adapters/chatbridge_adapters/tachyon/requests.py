"""Requests for answers as the emulator of Tachyon reads them: strict about types, lenient about null."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from attrs import field, frozen

from chatbridge.testing.emulator import is_array, is_object
from chatbridge.testing.responder import Exchange, pieces

__all__ = ["SIZES", "CompletionAsked", "RunAsked"]

MODEL = "openai:gpt-4o"
SIZES = ("large", "small")

_Rule = tuple[str, Callable[[object], bool]]


def _of(kind: type, words: str) -> _Rule:
    return words, lambda value: isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _number(low: float, high: float) -> _Rule:
    def fits(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return f"a number from {low:g} to {high:g}", fits


def _whole(low: int, high: int | None = None) -> _Rule:
    def fits(value: object) -> bool:
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return low <= value and (high is None or value <= high)

    return f"a whole number from {low} " + ("up" if high is None else f"to {high}"), fits


def _one_of(*words: str) -> _Rule:
    return f"one of {', '.join(words)}", lambda value: value in words


def _is_part(value: object) -> bool:
    return is_object(value) and isinstance(value.get("type"), str) and _is_text(value.get("text"))


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_message(value: object) -> bool:
    if not is_object(value) or not isinstance(value.get("role"), str):
        return False
    content, calls = value.get("content"), value.get("tool_calls")
    fits = all(map(_is_part, content)) if is_array(content) else _is_text(content)
    return fits and (calls is None or (is_array(calls) and all(map(is_object, calls))))


def _is_tool(value: object) -> bool:
    return is_object(value) and isinstance(value.get("type"), str) and is_object(value.get("function"))


def _is_memory(value: object) -> bool:
    return (
        is_object(value)
        and isinstance(value.get("extract_memory"), bool)
        and _whole(1, 20)[1](value.get("max_memories"))
        and _number(0, 1)[1](value.get("min_relevance_score"))
    )


_TEXT = _of(str, "a string")
_FLAG = _of(bool, "a boolean")

_COMPLETION: Mapping[str, _Rule] = {
    "messages": (
        "an array of messages, not empty",
        lambda value: is_array(value) and value != [] and all(map(_is_message, value)),
    ),
    "model": _TEXT,
    "stream": _FLAG,
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "n": ("1, as there is one answer to a message", lambda value: value == 1 and _whole(1)[1](value)),
    "max_completion_tokens": _whole(0),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "response_format": (
        "an object with a type",
        lambda value: is_object(value) and isinstance(value.get("type"), str),
    ),
    "tools": (
        "an array of tools, each with type and function",
        lambda value: is_array(value) and all(map(_is_tool, value)),
    ),
    "tool_choice": _one_of("auto", "any"),
    "user": _TEXT,
    "memory_settings": (
        "an object with extract_memory, max_memories and min_relevance_score",
        _is_memory,
    ),
    "communication_style": _TEXT,
    "explanation_style": _TEXT,
    "technical_level": _TEXT,
}

_RUN: Mapping[str, _Rule] = {
    "task": _TEXT,
    "model": _TEXT,
    "auto_approve": _FLAG,
    "max_requests": _whole(1),
    "agent_protocol_id": _TEXT,
    "agent_protocol_mode": _one_of("disabled", "auto", "manual"),
    "chatroom_name_generation": _one_of("first_only", "always", "never"),
    "client_tools": ("an array of objects", lambda value: is_array(value) and all(map(is_object, value))),
    "use_json_tool_calls": _FLAG,
    "user_custom_instructions": _TEXT,
    "assistant_name": _TEXT,
    "additional_tool_description": _TEXT,
    "mcp_hub_config_json": _TEXT,
    # A list by the newer contract, an object of flags before.
    "tool_access": ("an array or an object", lambda value: is_array(value) or is_object(value)),
}


def _check(fields: Mapping[str, object], rules: Mapping[str, _Rule], required: str) -> None:
    for name, (form, fits) in rules.items():
        value = fields.get(name)
        if (value is not None or name == required) and not fits(value):
            raise ValueError(f"{name} must be {form}")


def text_of(content: object) -> str:
    """Give the text of a message's content: a string, a list of parts, or null."""
    if is_array(content):
        return "".join(str(part.get("text") or "") for part in content if is_object(part))
    return str(content or "")


def _model(named: object) -> str:
    """Say a model as provider:model; a bare one is taken as openai's."""
    if not isinstance(named, str):
        return MODEL
    if named in SIZES:
        return named
    provider, *name = re.split("[:/]", named, maxsplit=1)
    return f"{provider}:{name[0]}" if name else f"openai:{provider}"


@frozen(kw_only=True)
class CompletionAsked:
    """
    A ChatCompletionRequest.

    Raises:
        ValueError: A field is not of its form; the message says which.
    """

    fields: Mapping[str, object]
    turns: Sequence[tuple[str, str]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        _check(self.fields, _COMPLETION, "messages")
        messages = self.fields["messages"]
        turns = [
            (str(each["role"]), text_of(each.get("content")))
            for each in (messages if is_array(messages) else ())
            if is_object(each)
        ]
        object.__setattr__(self, "turns", turns)

    @property
    def said(self) -> str:
        """What the last message of the user's says."""
        texts = [text for role, text in self.turns if role == "user"]
        return texts[-1] if texts else self.turns[-1][1]

    @property
    def history(self) -> list[Exchange]:
        """The turns before that, where the client sends them all."""
        history: list[Exchange] = []
        for role, text in self.turns:
            if role == "user":
                history.append(Exchange(text, ""))
            elif role == "assistant" and history:
                history[-1] = Exchange(history[-1].said, history[-1].answered + text)
        return history[:-1]

    @property
    def model(self) -> str:
        """The model asked for, or the server's."""
        return _model(self.fields.get("model"))

    @property
    def stream(self) -> bool:
        """Whether the answer is to be streamed."""
        return self.fields.get("stream") is True

    @property
    def tool(self) -> Mapping[str, object] | None:
        """The function to call: one that the message names, or any where one must be."""
        tools = self.fields.get("tools")
        offered = [each.get("function") for each in (tools if is_array(tools) else ()) if is_object(each)]
        functions = [each for each in offered if is_object(each)]
        if self.fields.get("tool_choice") == "any":
            return next(iter(functions), None)
        return next((each for each in functions if str(each.get("name")) in self.said.split()), None)

    def shorten(self, text: str) -> tuple[str, str]:
        """Cut *text* to the tokens that are allowed, taking a word for one, and say why it ends."""
        allowed, words = self.fields.get("max_completion_tokens"), pieces(text)
        if isinstance(allowed, int) and len(words) > allowed:
            return "".join(words[:allowed]), "length"
        return text, "stop"


@frozen(kw_only=True)
class RunAsked:
    """
    An AgentExecuteRequest.

    Raises:
        ValueError: A field is not of its form; the message says which.
    """

    fields: Mapping[str, object]

    def __attrs_post_init__(self) -> None:
        _check(self.fields, _RUN, "task")

    @property
    def task(self) -> str:
        """What is to be done."""
        return str(self.fields["task"])

    @property
    def model(self) -> str:
        """The model asked for, or the server's."""
        return _model(self.fields.get("model"))

    def names_room(self, *, first: bool) -> bool:
        """Whether the room gets a name of the server's."""
        when = self.fields.get("chatroom_name_generation") or "first_only"
        return when == "always" or (when == "first_only" and first)

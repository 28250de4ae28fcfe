"""Requests for chat completions as the emulator reads them: strict, as OpenAI is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from attrs import field, frozen

from chatbridge.testing.emulator import is_array, is_object
from chatbridge.testing.responder import Exchange, pieces

__all__ = ["Asked", "Check", "Invalid"]

Check = Literal[
    "calls",  # of tools without their results, or the reverse
    "known",  # a field that it does not know
    "named_tool",  # a tool that is to be called by its name
    "no_tools",  # none, in a list of them
    "pairs",  # a field without the one that it needs
]

_MOST_STOPS = 4
_MOST_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ROLES = ("developer", "system", "user", "assistant", "tool")
_CHOICES = ("none", "auto", "required")


class Invalid(ValueError):
    """What is wrong with a request: the message, the field at fault, and a code."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


_Rule = tuple[str, Callable[[object], bool]]


def _number(low: float, high: float) -> _Rule:
    def fits(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return f"a number from {low:g} to {high:g}", fits


def _whole(low: int, high: int = 2**63) -> _Rule:
    def fits(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return f"an integer from {low}", fits


def _is_stop(value: object) -> bool:
    texts = value if is_array(value) else [value]
    return len(texts) <= _MOST_STOPS and all(isinstance(text, str) for text in texts)


def _is_form(value: object) -> bool:
    if not is_object(value) or value.get("type") not in {"text", "json_object", "json_schema"}:
        return False
    schema = value.get("json_schema")
    if value["type"] != "json_schema":
        return schema is None
    return is_object(schema) and _is_name(schema.get("name")) and is_object(schema.get("schema"))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_tool(value: object) -> bool:
    function = value.get("function") if is_object(value) and value.get("type") == "function" else None
    return (
        is_object(function)
        and _is_name(function.get("name"))
        and isinstance(function.get("description", ""), str)
        and is_object(function.get("parameters", {}))
    )


def _is_choice(value: object) -> bool:
    if is_object(value):
        function = value.get("function")
        return value.get("type") == "function" and is_object(function) and _is_name(function.get("name"))
    return value in _CHOICES


_TEXT: _Rule = ("a string", lambda value: isinstance(value, str))
_FLAG: _Rule = ("a boolean", lambda value: isinstance(value, bool))
_OBJECT: _Rule = ("an object", is_object)

_FIELDS: Mapping[str, _Rule] = {
    "messages": ("an array of messages, not empty", lambda value: is_array(value) and value != []),
    "model": _TEXT,
    "audio": _OBJECT,
    "frequency_penalty": _number(-2, 2),
    "logit_bias": _OBJECT,
    "logprobs": _FLAG,
    "max_completion_tokens": _whole(1),
    "max_tokens": _whole(1),
    "metadata": _OBJECT,
    "modalities": ("an array", is_array),
    "n": _whole(1, 128),
    "parallel_tool_calls": _FLAG,
    "presence_penalty": _number(-2, 2),
    "prompt_cache_key": _TEXT,
    "reasoning_effort": _TEXT,
    "response_format": ("an object with a type, and a named json_schema for that type", _is_form),
    "safety_identifier": _TEXT,
    "seed": _whole(-(2**63)),
    "service_tier": _TEXT,
    "stop": (f"a string, or an array of at most {_MOST_STOPS}", _is_stop),
    "store": _FLAG,
    "stream": _FLAG,
    "stream_options": _OBJECT,
    "temperature": _number(0, 2),
    "tool_choice": ("none, auto, required, or a function", _is_choice),
    "tools": (
        f"an array of at most {_MOST_TOOLS} functions, each with a name",
        lambda value: is_array(value) and len(value) <= _MOST_TOOLS and all(map(_is_tool, value)),
    ),
    "top_logprobs": _whole(0, 20),
    "top_p": _number(0, 1),
    "user": _TEXT,
    "verbosity": _TEXT,
}

_PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "user": {
        "text": ("text",),
        "image_url": ("image_url", "url"),
        "input_audio": ("input_audio", "data"),
        "file": ("file", "file_data"),
    },
    "assistant": {"text": ("text",), "refusal": ("refusal",)},
}


_NEEDED = (
    ("stream_options", "stream", "The 'stream_options' parameter is only allowed when 'stream' is enabled."),
    ("tool_choice", "tools", "'tool_choice' is only allowed when 'tools' are specified."),
    ("top_logprobs", "logprobs", "'top_logprobs' is only allowed when 'logprobs' is enabled."),
)


def text_of(content: object) -> str:
    """Give what a content says, a string, an array of parts, or null: its text, and of a file its kind."""
    if not is_array(content):
        return str(content or "")
    parts = [part for part in content if is_object(part)]
    text = "".join(str(part.get("text") or "") for part in parts)
    return " ".join(filter(None, (text, *map(_attached, parts))))


def _attached(part: Mapping[str, Any]) -> str:
    match part:
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return f"[image {_kind(url)}]"
        case {"type": "input_audio", "input_audio": {"format": str(kind)}}:
            return f"[audio {kind}]"
        case {"type": "file", "file": {"file_data": str(url), **beside}}:
            return f"[file {beside.get('filename') or _kind(url)}]"
        case _:
            return ""


def _kind(url: str) -> str:
    """Give the media type of a data URL; any other is but a URL."""
    return re.split("[;,]", url.removeprefix("data:"))[0] if url.startswith("data:") else "url"


@frozen(kw_only=True)
class Asked:
    """
    A CreateChatCompletionRequest.

    Attributes:
        fields: As sent, but for those that the server ignores.
        checks: What it refuses beside fields that are not of their form.

    Raises:
        Invalid: A field is not of its form.
    """

    fields: Mapping[str, object]
    checks: frozenset[Check] = frozenset()
    messages: Sequence[Mapping[str, object]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        if "messages" not in self.fields:
            raise Invalid("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
        for name, value in self.fields.items():
            if name not in _FIELDS:
                self._check("known", f"Unrecognized request argument supplied: {name}")
                continue
            form, fits = _FIELDS[name]
            if (value is not None or name == "messages") and not fits(value):
                raise Invalid(f"Invalid value for '{name}': expected {form}.", name, "invalid_type")
        for name, needed, problem in _NEEDED:
            if self.fields.get(name) is not None and not self.fields.get(needed):
                self._check("pairs", problem, name)
        if self.fields.get("tools") == []:
            self._check(
                "no_tools", "Invalid 'tools': empty array. Expected an array with minimum length 1.", "tools"
            )
        if is_object(self.fields.get("tool_choice")):
            self._check(
                "named_tool",
                "Invalid tool_choice type: 'object'. Supported string values: none, auto, required",
                "tool_choice",
            )
        messages = self.fields["messages"]
        checked = [_message(each, n) for n, each in enumerate(messages if is_array(messages) else ())]
        if "calls" in self.checks:
            _check_order(checked)
        object.__setattr__(self, "messages", checked)

    def _check(self, check: Check, problem: str, param: str | None = None) -> None:
        if check in self.checks:
            raise Invalid(problem, param)

    @property
    def stream(self) -> bool:
        """Whether the answer is to be streamed."""
        return self.fields.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to tell usage."""
        options = self.fields.get("stream_options")
        return is_object(options) and options.get("include_usage") is True

    @property
    def said(self) -> str:
        """What the last message says, which may be the result of a tool."""
        return text_of(self.messages[-1].get("content"))

    @property
    def shown(self) -> str:
        """Give all that the model is shown."""
        return " ".join(text_of(message.get("content")) for message in self.messages)

    @property
    def history(self) -> list[Exchange]:
        """The turns before the last message."""
        turns: list[Exchange] = []
        for message in self.messages[:-1]:
            text = text_of(message.get("content"))
            if message["role"] in {"user", "tool"}:
                turns.append(Exchange(text, ""))
            elif message["role"] == "assistant" and turns:
                turns[-1] = Exchange(turns[-1].said, turns[-1].answered + text)
        return turns

    @property
    def tools(self) -> list[tuple[str, object]]:
        """Name each tool to call, one that the message names or that must be called, with its parameters."""
        tools = self.fields.get("tools")
        functions = [tool["function"] for tool in (tools if is_array(tools) else ()) if is_object(tool)]
        known = {str(each["name"]): each.get("parameters") for each in functions if is_object(each)}
        return [(name, known.get(name)) for name in self._called(list(known))]

    def _called(self, names: Sequence[str]) -> Sequence[str]:
        choice = self.fields.get("tool_choice")
        if self.tool is not None:
            return [self.tool]
        if choice == "none" or self.messages[-1]["role"] == "tool":
            return []
        named = [name for name in names if name in self.said.split()]
        if choice == "required" and not named:
            return names[:1]
        return named[:1] if self.fields.get("parallel_tool_calls") is False else named

    @property
    def tool(self) -> str | None:
        """The tool that must be called, by its name."""
        choice = self.fields.get("tool_choice")
        function = choice.get("function") if is_object(choice) else None
        return str(function["name"]) if is_object(function) else None

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        wanted = self.fields.get("n")
        return wanted if isinstance(wanted, int) else 1

    @property
    def logprobs(self) -> int | None:
        """How many likely tokens are to be told for each; None where not even its own likelihood is."""
        most = self.fields.get("top_logprobs")
        return (most if isinstance(most, int) else 0) if self.fields.get("logprobs") is True else None

    @property
    def form(self) -> Mapping[str, object] | None:
        """The JSON Schema of the answer, which any object has if it is only to be JSON; None for a text."""
        form = self.fields.get("response_format")
        if not is_object(form) or form["type"] == "text":
            return None
        schema = form.get("json_schema")
        found = schema.get("schema") if is_object(schema) else None
        return found if is_object(found) else {"properties": {"answer": {}}}

    def shorten(self, text: str) -> tuple[str, str]:
        """Cut *text* at a stop and to the tokens that are allowed; say why it ends."""
        stop = self.fields.get("stop")
        for mark in stop if is_array(stop) else [stop]:
            text = text.partition(mark)[0] if isinstance(mark, str) and mark else text
        words = pieces(text)
        for name in ("max_tokens", "max_completion_tokens"):
            allowed = self.fields.get(name)
            if isinstance(allowed, int) and len(words) > allowed:
                return "".join(words[:allowed]), "length"
        return text, "stop"


def _message(message: object, n: int) -> Mapping[str, object]:
    where = f"messages[{n}]"
    if not is_object(message):
        raise Invalid(f"Invalid type for '{where}': expected an object.", where, "invalid_type")
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
    if role not in _ROLES:
        raise Invalid(f"Invalid value: {role!r}. Supported values are: {', '.join(_ROLES)}.", f"{where}.role")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise Invalid(f"Missing parameter 'tool_call_id' in '{where}'.", f"{where}.tool_call_id")
    if calls is not None and (
        role != "assistant" or not (is_array(calls) and calls and all(map(_is_call, calls)))
    ):
        raise Invalid(f"Invalid '{where}.tool_calls': expected calls of functions.", f"{where}.tool_calls")
    if is_array(content):
        known = _PARTS.get(str(role), {"text": ("text",)})
        for part in content:
            _check_part(part, known, f"{where}.content")
    elif not isinstance(content, str) and (content is not None or not calls):
        got = "null" if content is None else "another type"
        raise Invalid(f"Invalid value for 'content': expected a string, got {got}.", f"{where}.content")
    return message


def _check_part(part: object, known: Mapping[str, tuple[str, ...]], where: str) -> None:
    kind = part.get("type") if is_object(part) else None
    value: object = part
    for step in known.get(str(kind), ("",)):
        value = value.get(step) if is_object(value) else None
    if not isinstance(value, str):
        raise Invalid(f"Invalid content part: expected one of {', '.join(known)}.", where, "invalid_value")


def _is_call(call: object) -> bool:
    function = call.get("function") if is_object(call) else None
    return (
        is_object(call)
        and isinstance(call.get("id"), str)
        and is_object(function)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), str)
    )


def _check_order(messages: Sequence[Mapping[str, object]]) -> None:
    """Hold that each call of a tool has its result before anything else is said."""
    waiting: list[str] = []
    for n, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                raise Invalid(
                    "messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
                    f"messages.[{n}].role",
                )
            waiting.remove(str(message["tool_call_id"]))
            continue
        if waiting:
            break
        calls = message.get("tool_calls")
        waiting = [str(call["id"]) for call in (calls if is_array(calls) else ()) if is_object(call)]
    if waiting:
        raise Invalid(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. These tool_call_ids did not have response messages: {', '.join(waiting)}",
            "messages",
        )

"""
Requests as the emulator of the Messages API reads them: strict about fields, types and the order of messages.

Sources: the API's documentation at platform.claude.com, as of November 2026, and the types of the package
anthropic 2.11.0. Refusals are worded after what users of the API have quoted.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from chatbridge.testing.emulator import is_array, is_object
from chatbridge.testing.responder import Exchange, pieces

__all__ = ["OLD", "Asked", "Blocks"]

OLD = "2023-06-01"
"""The version of the API that takes `temperature` and its like; the next, 2026-10-21, does not."""

Blocks = Sequence[Mapping[str, Any]]
_Fits = Callable[[object], bool]

_SAMPLING = ("temperature", "top_p", "top_k")
_SERVER_TOOLS = ("web_search_", "web_fetch_", "code_execution_")


def _of(*kinds: type) -> _Fits:
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _number(low: float, high: float) -> _Fits:
    return lambda value: _of(int, float)(value) and low <= value <= high  # type: ignore[operator]


def _whole(low: int) -> _Fits:
    return lambda value: _of(int)(value) and value >= low  # type: ignore[operator]


def _texts(value: object) -> bool:
    return is_array(value) and all(isinstance(each, str) and each.strip() for each in value)


def _prompt(value: object) -> bool:
    return isinstance(value, str) or (
        is_array(value) and all(is_object(each) and isinstance(each.get("text"), str) for each in value)
    )


def _tools(value: object) -> bool:
    return is_array(value) and all(
        is_object(each)
        and isinstance(each.get("name"), str)
        and (is_object(each.get("input_schema")) or str(each.get("type")).startswith(_SERVER_TOOLS))
        for each in value
    )


def _choice(value: object) -> bool:
    if not is_object(value):
        return False
    named = isinstance(value.get("name"), str)
    return value.get("type") in {"auto", "any", "none"} or (value.get("type") == "tool" and named)


def _output(value: object) -> bool:
    if not is_object(value):
        return False
    form = value.get("format")
    known = is_object(form) and form.get("type") == "json_schema" and is_object(form.get("schema"))
    return form is None or known


def _thinking(value: object) -> bool:
    if not is_object(value):
        return False
    budget = value.get("type") != "enabled" or _whole(1024)(value.get("budget_tokens"))
    return value.get("type") in {"enabled", "disabled", "adaptive"} and budget


_FIELDS: Mapping[str, tuple[str, _Fits]] = {
    "model": ("Input should be a valid string", _of(str)),
    "max_tokens": ("Input should be greater than or equal to 1", _whole(1)),
    "messages": ("Input should be a valid list", is_array),
    "system": ("Input should be a valid string or a list of text blocks", _prompt),
    "temperature": ("range: 0..1", _number(0, 1)),
    "top_p": ("range: 0..1", _number(0, 1)),
    "top_k": ("Input should be greater than or equal to 0", _whole(0)),
    "stop_sequences": ("each stop sequence must contain non-whitespace", _texts),
    "stream": ("Input should be a valid boolean", _of(bool)),
    "tools": ("Input should be a list of tools, each with name and input_schema", _tools),
    "tool_choice": ("Input should be of type auto, any, none or tool", _choice),
    "thinking": ("Input should be of type enabled with budget_tokens, disabled or adaptive", _thinking),
    "output_config": ("Input should have a format of type json_schema with a schema", _output),
    "metadata": ("Input should be a valid dictionary", _of(dict)),
    "cache_control": ("Input should be a valid dictionary", _of(dict)),
    "container": ("Input should be a valid string or a dictionary", _of(str, dict)),
    "service_tier": (
        "Input should be 'auto' or 'standard_only'",
        lambda value: value in {"auto", "standard_only"},
    ),
    "diagnostics": ("Input should be a valid dictionary", _of(dict)),
    "user_profile_id": ("Input should be a valid string", _of(str)),
    "inference_geo": ("Input should be a valid string", _of(str)),
    "speed": ("Input should be 'standard' or 'fast'", lambda value: value in {"standard", "fast"}),
}
_REQUIRED = ("model", "max_tokens", "messages")

# Of each type of block: whose it may be, and the fields that it must have.
_BLOCKS: Mapping[str, tuple[str, Mapping[str, _Fits]]] = {
    "text": ("user assistant", {"text": _of(str)}),
    "image": ("user", {"source": is_object}),
    "document": ("user", {"source": is_object}),
    "tool_result": ("user", {"tool_use_id": _of(str)}),
    "tool_use": ("assistant", {"id": _of(str), "name": _of(str), "input": is_object}),
    "thinking": ("assistant", {"thinking": _of(str), "signature": _of(str)}),
    "redacted_thinking": ("assistant", {"data": _of(str)}),
    "server_tool_use": ("assistant", {"id": _of(str), "name": _of(str), "input": is_object}),
    "web_search_tool_result": ("assistant", {"tool_use_id": _of(str)}),
}
_SOURCES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "image": {"base64": ("image/gif", "image/jpeg", "image/png", "image/webp"), "url": ()},
    "document": {"base64": ("application/pdf",), "text": ("text/plain",), "url": ()},
}


@frozen(kw_only=True)
class Asked:
    """
    A request for an answer.

    Attributes:
        version: The version of the API that the client speaks.
        turns: Who speaks, and in what blocks.

    Raises:
        ValueError: It is not as it must be; the message says where.
    """

    fields: Mapping[str, object]
    version: str
    turns: Sequence[tuple[str, Blocks]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        for name in _REQUIRED:
            if name not in self.fields:
                raise ValueError(f"{name}: Field required")
        for name, value in self.fields.items():
            if name not in _FIELDS:
                raise ValueError(f"{name}: Extra inputs are not permitted")
            problem, fits = _FIELDS[name]
            if not fits(value):
                raise ValueError(f"{name}: {problem}")
            if name in _SAMPLING and self.version != OLD:
                raise ValueError(f"{name}: Extra inputs are not permitted in version {self.version}")
        messages = self.fields["messages"]
        turns = [_turn(number, each) for number, each in enumerate(messages if is_array(messages) else ())]
        if not turns:
            raise ValueError("messages: at least one message is required")
        if turns[0][0] != "user":
            raise ValueError('messages: first message must use the "user" role')
        _check_calls(turns)
        object.__setattr__(self, "turns", turns)

    @property
    def said(self) -> str:
        """What the last message of the user's says."""
        return next(_words(blocks) for role, blocks in reversed(self.turns) if role == "user")

    @property
    def history(self) -> list[Exchange]:
        """The turns before that."""
        history: list[Exchange] = []
        for role, blocks in self.turns:
            if role == "user":
                history.append(Exchange(_words(blocks), ""))
            else:
                history[-1] = Exchange(history[-1].said, history[-1].answered + _words(blocks))
        return history[:-1]

    @property
    def tool(self) -> str | None:
        """The tool to call: one that the message names, or any where one must be."""
        choice = self.fields.get("tool_choice")
        wanted = choice if is_object(choice) else {"type": "auto"}
        names = [str(tool["name"]) for tool in self._tools if is_object(tool.get("input_schema"))]
        if wanted.get("type") in {"any", "tool"}:
            return next((name for name in names if wanted.get("name", name) == name), None)
        named = next((name for name in names if name in self.said.split()), None)
        results = any(block["type"] == "tool_result" for block in self.turns[-1][1])
        return None if results or wanted.get("type") == "none" else named

    @property
    def searches(self) -> bool:
        """Whether the server has a tool of its own to run."""
        return any(str(tool.get("type")).startswith(_SERVER_TOOLS) for tool in self._tools)

    @property
    def searched(self) -> int:
        """How often a paused answer that is given back has used it."""
        role, blocks = self.turns[-1]
        return sum(block["type"] == "server_tool_use" for block in blocks) if role == "assistant" else 0

    @property
    def thinks(self) -> bool:
        """Whether the answer begins with thoughts."""
        thinking = self.fields.get("thinking")
        return is_object(thinking) and thinking.get("type") != "disabled"

    @property
    def schema(self) -> Mapping[str, object] | None:
        """What the answer must be, where it must be JSON."""
        output = self.fields.get("output_config")
        form = output.get("format") if is_object(output) else None
        schema = form.get("schema") if is_object(form) else None
        return schema if is_object(schema) else None

    @property
    def cached(self) -> bool:
        """Whether what is read is to be kept in the cache."""
        return is_object(self.fields.get("cache_control"))

    @property
    def tokens(self) -> int:
        """How much there is to read, taking a word for a token."""
        system = self.fields.get("system")
        prompts = [system] if isinstance(system, str) else [_words(system)] if is_array(system) else []  # type: ignore[arg-type]
        return sum(len(text.split()) for text in (*prompts, *(_words(blocks) for _, blocks in self.turns)))

    def thoughts(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Give the thoughts that are given back, each with its place."""
        for number, (_, blocks) in enumerate(self.turns):
            for position, block in enumerate(blocks):
                if block["type"] == "thinking":
                    yield f"messages.{number}.content.{position}", block

    def shorten(self, text: str) -> tuple[str, str, str | None]:
        """Cut *text* where it must end; say why it ends, and at which stop sequence."""
        stops = self.fields.get("stop_sequences")
        found = [(text.find(str(stop)), str(stop)) for stop in (stops if is_array(stops) else ())]
        places = [place for place in found if place[0] >= 0]
        stopped = min(places) if places else None
        text = text if stopped is None else text[: stopped[0]]
        allowed, words = self.fields["max_tokens"], pieces(text)
        if isinstance(allowed, int) and len(words) > allowed:
            return "".join(words[:allowed]), "max_tokens", None
        return (text, "end_turn", None) if stopped is None else (text, "stop_sequence", stopped[1])

    @property
    def _tools(self) -> list[dict[str, object]]:
        tools = self.fields.get("tools")
        return [tool for tool in (tools if is_array(tools) else ()) if is_object(tool)]


def _turn(number: int, message: object) -> tuple[str, Blocks]:
    where = f"messages.{number}"
    if not is_object(message):
        raise ValueError(f"{where}: Input should be a valid dictionary")
    role, content = message.get("role"), message.get("content")
    if role not in {"user", "assistant"}:
        raise ValueError(f"{where}.role: Input should be 'user' or 'assistant'")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not is_array(content):
        raise ValueError(f"{where}.content: Input should be a valid string or list")
    if not content:
        raise ValueError(f"{where}: all messages must have non-empty content")
    return str(role), [_block(f"{where}.content.{at}", str(role), block) for at, block in enumerate(content)]


def _block(where: str, role: str, block: object) -> Mapping[str, Any]:
    kind = str(block.get("type")) if is_object(block) else ""
    if not is_object(block) or kind not in _BLOCKS:
        raise ValueError(f"{where}: Input tag {kind!r} does not match any of the expected tags")
    roles, fields = _BLOCKS[kind]
    if role not in roles.split():
        raise ValueError(f"{where}: `{kind}` blocks are not permitted in {role} messages")
    for name, fits in fields.items():
        if not fits(block.get(name)):
            raise ValueError(f"{where}.{kind}.{name}: Field required")
    if kind == "text" and not str(block["text"]).strip():
        raise ValueError(f"{where}: text content blocks must contain non-whitespace text")
    if kind in _SOURCES:
        _check_source(f"{where}.{kind}.source", kind, block["source"])
    return block


def _check_source(where: str, kind: str, source: object) -> None:
    given: Mapping[str, object] = source if is_object(source) else {}
    known = _SOURCES[kind]
    types = known.get(str(given.get("type")))
    if types is None:
        raise ValueError(f"{where}: Input tag {given.get('type')!r} does not match any of the expected tags")
    if given["type"] == "url":
        if not str(given.get("url")).startswith(("http://", "https://")):
            raise ValueError(f"{where}.url: Only HTTP and HTTPS URLs are supported")
        return
    if given.get("media_type") not in types:
        raise ValueError(f"{where}.media_type: Input should be one of {', '.join(types)}")
    data = given.get("data")
    if data is None:
        raise ValueError(f"{where}.data: Field required")
    if given["type"] == "base64":
        try:
            base64.b64decode(str(data), validate=True)
        except ValueError:
            raise ValueError(f"{where}.base64.data: invalid base64 data")


def _check_calls(turns: Sequence[tuple[str, Blocks]]) -> None:
    """Each call of a tool has its result in the next message, and each result its call in the one before."""
    open_calls: list[str] = []
    for number, (role, blocks) in enumerate(turns):
        results = [str(block["tool_use_id"]) for block in blocks if block["type"] == "tool_result"]
        for position, call_id in enumerate(results):
            if call_id not in open_calls or blocks[position]["type"] != "tool_result":
                raise ValueError(
                    f"messages.{number}.content.{position}: unexpected `tool_use_id` found in "
                    f"`tool_result` blocks: {call_id}. Each `tool_result` block must have a corresponding "
                    "`tool_use` block in the previous message."
                )
        missing = [call_id for call_id in open_calls if call_id not in results]
        if missing:
            raise ValueError(
                f"messages.{number - 1}: `tool_use` ids were found without `tool_result` blocks immediately "
                f"after: {', '.join(missing)}."
            )
        calls = [str(block["id"]) for block in blocks if block["type"] == "tool_use"]
        open_calls = calls if role == "assistant" else []


def _words(blocks: Blocks) -> str:
    """Give what blocks say: their text, what tools gave, and where a file is, its kind."""
    return " ".join(filter(None, map(_said_by, blocks)))


def _said_by(block: Mapping[str, Any]) -> str:
    match block:
        case {"text": str(text)} | {"type": "tool_result", "content": str(text)}:
            return text
        case {"type": "tool_result", "content": content} if is_array(content):
            return _words([each for each in content if is_object(each)])
        case {"type": "image" | "document" as kind, "source": {"type": str(how), **source}}:
            return f"[{kind} {block.get('title') or source.get('media_type') or how}]"
        case _:
            return ""

"""
Requests as the emulator of the Messages API reads them: strict about fields, types and the order of messages.

Sources: the API's documentation at platform.claude.com, as of November 2026, and the types of the package
anthropic 2.11.0. Refusals are worded after what users of the API have quoted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from chatbridge.testing.emulator import is_array, is_object
from chatbridge.testing.responder import Exchange, pieces
from chatbridge_adapters.anthropic.blocks import Blocks, Fits, Turns, calls_from_code, of, read_turns, waiting

__all__ = ["OLD", "Asked"]

OLD = "2023-06-01"
"""The version of the API that takes `temperature` and its like; the next, 2026-10-21, does not."""

_SAMPLING = ("temperature", "top_p", "top_k")
_SERVER_TOOLS = ("web_search_", "web_fetch_", "code_execution_")


def _number(low: float, high: float) -> Fits:
    return lambda value: of(int, float)(value) and low <= value <= high  # type: ignore[operator]


def _whole(low: int) -> Fits:
    return lambda value: of(int)(value) and value >= low  # type: ignore[operator]


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
    return value.get("type") in ("auto", "any", "none") or (value.get("type") == "tool" and named)


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
    return value.get("type") in ("enabled", "disabled", "adaptive") and budget


_FIELDS: Mapping[str, tuple[str, Fits]] = {
    "model": ("Input should be a valid string", of(str)),
    "max_tokens": ("Input should be greater than or equal to 1", _whole(1)),
    "messages": ("Input should be a valid list", is_array),
    "system": ("Input should be a valid string or a list of text blocks", _prompt),
    "temperature": ("range: 0..1", _number(0, 1)),
    "top_p": ("range: 0..1", _number(0, 1)),
    "top_k": ("Input should be greater than or equal to 0", _whole(0)),
    "stop_sequences": ("each stop sequence must contain non-whitespace", _texts),
    "stream": ("Input should be a valid boolean", of(bool)),
    "tools": ("Input should be a list of tools, each with name and input_schema", _tools),
    "tool_choice": ("Input should be of type auto, any, none or tool", _choice),
    "thinking": ("Input should be of type enabled with budget_tokens, disabled or adaptive", _thinking),
    "output_config": ("Input should have a format of type json_schema with a schema", _output),
    "metadata": ("Input should be a valid dictionary", of(dict)),
    "cache_control": ("Input should be a valid dictionary", of(dict)),
    "container": ("Input should be a valid string or a dictionary", of(str, dict)),
    "service_tier": (
        "Input should be 'auto' or 'standard_only'",
        lambda value: value in ("auto", "standard_only"),
    ),
    "diagnostics": ("Input should be a valid dictionary", of(dict)),
    "user_profile_id": ("Input should be a valid string", of(str)),
    "inference_geo": ("Input should be a valid string", of(str)),
    "speed": ("Input should be 'standard' or 'fast'", lambda value: value in ("standard", "fast")),
}
_REQUIRED = ("model", "max_tokens", "messages")


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
    turns: Turns = field(init=False)

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
        turns = read_turns(self.fields["messages"])
        self._check_together()
        if self.fields.get("container") is None and calls_from_code(turns):
            raise ValueError(
                "container_id is required when there are pending tool uses generated by code execution with "
                "tools."
            )
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
    def tool(self) -> Mapping[str, object] | None:
        """The tool to call: one that the message names, or any where one must be."""
        choice = self.fields.get("tool_choice")
        wanted = choice if is_object(choice) else {"type": "auto"}
        tools = [tool for tool in self._tools if is_object(tool.get("input_schema"))]
        if wanted.get("type") in ("any", "tool"):
            return next((tool for tool in tools if wanted.get("name", tool["name"]) == tool["name"]), None)
        named = next((tool for tool in tools if str(tool["name"]) in self.said.split()), None)
        results = any(block["type"] == "tool_result" for block in self.turns[-1][1])
        return None if results or wanted.get("type") == "none" else named

    @property
    def searches(self) -> bool:
        """Whether the server has a tool of its own to run."""
        return any(str(tool.get("type")).startswith(_SERVER_TOOLS) for tool in self._tools)

    @property
    def waiting(self) -> Sequence[Mapping[str, Any]]:
        """The calls of its tools with which it goes on."""
        return waiting(self.turns)

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

    def _check_together(self) -> None:
        """Check what depends on more than one field."""
        names = [tool["name"] for tool in self._tools]
        if len(set(map(str, names))) < len(names):
            raise ValueError("tools: Tool names must be unique.")
        choice, thinking = self.fields.get("tool_choice"), self.fields.get("thinking")
        if is_object(choice) and not names:
            raise ValueError("tool_choice: may only be specified while providing tools")
        if is_object(choice) and choice.get("type") == "tool" and choice.get("name") not in names:
            raise ValueError(f"tool_choice: Tool '{choice.get('name')}' not found in provided tools")
        budget = thinking.get("budget_tokens") if is_object(thinking) and thinking["type"] == "enabled" else 0
        if budget >= self.fields["max_tokens"]:  # type: ignore[operator]  # both are checked numbers
            raise ValueError("max_tokens: must be greater than `thinking.budget_tokens`")
        if _is_open(self.schema):
            raise ValueError(
                "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly "
                "set to false"
            )

    @property
    def _tools(self) -> list[dict[str, object]]:
        tools = self.fields.get("tools")
        return [tool for tool in (tools if is_array(tools) else ()) if is_object(tool)]


def _is_open(schema: object) -> bool:
    """Tell whether a schema, or one within it, leaves open what else an object may hold."""
    if is_array(schema):
        return any(map(_is_open, schema))
    if not is_object(schema):
        return False
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return True
    named = [each for name in ("properties", "$defs") if is_object(each := schema.get(name))]
    held = [schema.get(name) for name in ("items", "anyOf", "allOf")]
    return _is_open([*held, *(value for each in named for value in each.values())])


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

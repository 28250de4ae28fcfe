"""What the options of a message ask of a fake: which tool to call, the form of the answer, and its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chatbridge.backend import Profile
from chatbridge.domain import FinishReason, Message, SendOptions
from chatbridge.errors import BadOption
from chatbridge.testing.instances import instance
from chatbridge.testing.responder import pieces

__all__ = ["check_tool_choice", "in_form", "shortened", "tool_named", "tool_wanted"]

Tool = Mapping[str, Any]
_CHOICES = ("auto", "none", "required", "any")


def check_tool_choice(options: SendOptions, profile: Profile) -> None:
    """
    Refuse to choose a tool that is not on offer.

    Raises:
        BadOption: It is that, and no other choice either.
    """
    known = [*_CHOICES, *(str(tool["name"]) for tool in options.tools)]
    if options.tool_choice is not None and options.tool_choice not in known:
        problem = f"is none of {', '.join(_CHOICES)}, and no tool on offer"
        raise BadOption(
            backend=profile.name,
            option="tool_choice",
            shown=options.tool_choice,
            problem=problem,
            known=known,
        )


def tool_named(message: Message, options: SendOptions) -> Tool | None:
    """Find the first tool on offer that *message* names, unless none is to be called."""
    if options.tool_choice == "none":
        return None
    said = message.text.split()
    return next((tool for tool in options.tools if tool["name"] in said), None)


def tool_wanted(message: Message, options: SendOptions) -> Tool | None:
    """Find the tool that must be called, by its name or as any; else the one that *message* names."""
    choice, tools = options.tool_choice, options.tools
    chosen = next((tool for tool in tools if tool["name"] == choice), None) or tool_named(message, options)
    return tools[0] if chosen is None and tools and choice in {"any", "required"} else chosen


def in_form(text: str, form: Mapping[str, Any] | None) -> str:
    """Say *text* as JSON, if a *form* asks for it: a JSON Schema, by itself or as OpenAI wraps it."""
    schema: object = form
    match form:
        case None | {"type": "text"}:
            return text
        case {"type": "json_object"}:
            schema = {"properties": {"answer": {}}}
        case {"type": "json_schema", "json_schema": {"schema": told}}:
            schema = told
        case {"type": "json_schema", "schema": told}:
            schema = told
        case _:
            pass
    return json.dumps(instance(schema, text), ensure_ascii=False)


def shortened(text: str, options: SendOptions) -> tuple[str, FinishReason]:
    """Cut *text* at a stop and to the words that are allowed; say why it ends."""
    for stop in options.stop:
        text = text.partition(stop)[0] if stop else text
    words = pieces(text)
    if options.max_output_tokens is not None and len(words) > options.max_output_tokens:
        return "".join(words[: options.max_output_tokens]), FinishReason.LENGTH
    return text, FinishReason.STOP

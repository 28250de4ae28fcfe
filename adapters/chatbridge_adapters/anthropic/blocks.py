"""
Messages as the emulator of the Messages API reads them: strict about blocks, and what must stand together.

Sources: as in `asked`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chatbridge.testing.emulator import is_array, is_object

__all__ = ["Blocks", "Fits", "Turns", "calls_from_code", "of", "read_turns", "waiting"]

Blocks = Sequence[Mapping[str, Any]]
Turns = Sequence[tuple[str, Blocks]]
_Found = list[tuple[int, Mapping[str, Any]]]
Fits = Callable[[object], bool]

_RESULT = "_tool_result"
_ID = re.compile("[a-zA-Z0-9_-]+")


def of(*kinds: type) -> Fits:
    """Make what tells whether a value is of one of *kinds*; booleans are no numbers."""
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


_TEXT = of(str)
_CALL: Mapping[str, Fits] = {"id": _TEXT, "name": _TEXT, "input": is_object}
_FOUND: Mapping[str, Fits] = {"tool_use_id": _TEXT}

# Of each type of block: whose it may be, and the fields that it must have.
_BLOCKS: Mapping[str, tuple[str, Mapping[str, Fits]]] = {
    "text": ("user assistant", {"text": _TEXT}),
    "image": ("user", {"source": is_object}),
    "document": ("user", {"source": is_object}),
    "search_result": ("user", {"source": _TEXT, "title": _TEXT, "content": is_array}),
    "container_upload": ("user", {"file_id": _TEXT}),
    "tool_result": ("user", _FOUND),
    "tool_use": ("assistant", _CALL),
    "thinking": ("assistant", {"thinking": _TEXT, "signature": _TEXT}),
    "redacted_thinking": ("assistant", {"data": _TEXT}),
    "server_tool_use": ("assistant", _CALL),
    "mcp_tool_use": ("assistant", {**_CALL, "server_name": _TEXT}),
    "mcp_tool_result": ("assistant", _FOUND),
    "web_search_tool_result": ("assistant", _FOUND),
    "web_fetch_tool_result": ("assistant", _FOUND),
    "code_execution_tool_result": ("assistant", _FOUND),
    "bash_code_execution_tool_result": ("assistant", _FOUND),
    "text_editor_code_execution_tool_result": ("assistant", _FOUND),
    "tool_search_tool_result": ("assistant", _FOUND),
}
_SOURCES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "image": {"base64": ("image/gif", "image/jpeg", "image/png", "image/webp"), "url": ()},
    "document": {"base64": ("application/pdf",), "text": ("text/plain",), "url": ()},
}
_NUMBERS = of(int)
_RANGE: Mapping[str, Fits] = {"cited_text": _TEXT, "document_index": _NUMBERS}
_CITATIONS: Mapping[str, Mapping[str, Fits]] = {
    "char_location": {**_RANGE, "start_char_index": _NUMBERS, "end_char_index": _NUMBERS},
    "page_location": {**_RANGE, "start_page_number": _NUMBERS, "end_page_number": _NUMBERS},
    "content_block_location": {**_RANGE, "start_block_index": _NUMBERS, "end_block_index": _NUMBERS},
    "search_result_location": {"cited_text": _TEXT, "source": _TEXT, "search_result_index": _NUMBERS},
    "web_search_result_location": {"cited_text": _TEXT, "url": _TEXT, "encrypted_index": _TEXT},
}


def read_turns(messages: object) -> list[tuple[str, Blocks]]:
    """
    Read who speaks, and in what blocks.

    Raises:
        ValueError: They are not as they must be; the message says where.
    """
    turns = [_turn(number, each) for number, each in enumerate(messages if is_array(messages) else ())]
    if not turns:
        raise ValueError("messages: at least one message is required")
    if turns[0][0] != "user":
        raise ValueError('messages: first message must use the "user" role')
    for number, (_, blocks) in enumerate(turns):
        kind = str(blocks[-1]["type"])
        if kind.endswith("thinking"):
            raise ValueError(
                f"messages.{number}: The final block in an assistant message cannot be `{kind}`."
            )
    _check_calls(turns)
    _check_server_calls(turns)
    last = turns[-1][1][-1]
    if turns[-1][0] == "assistant" and last["type"] == "text" and last["text"] != last["text"].rstrip():
        raise ValueError("messages: final assistant content cannot end with trailing whitespace")
    return turns


def waiting(turns: Turns) -> list[Mapping[str, Any]]:
    """Give the calls of the server's tools that may still get a result: nothing but results came after."""
    begin = _goes_on_from(turns)
    return [block for number, block in _alone(turns)[0] if number >= begin]


def calls_from_code(turns: Turns) -> bool:
    """Tell whether such a call has called other tools, so that it can go on where it was only."""
    pending = [block["id"] for block in waiting(turns)]
    callers = (block.get("caller") for _, blocks in turns for block in blocks)
    return any(is_object(caller) and caller.get("tool_id") in pending for caller in callers)


def _turn(number: int, message: object) -> tuple[str, Blocks]:
    where = f"messages.{number}"
    if not is_object(message):
        raise ValueError(f"{where}: Input should be a valid dictionary")
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant"):
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
    if kind == "text":
        _check_citations(f"{where}.text.citations", block.get("citations"))
    if kind in _SOURCES:
        _check_source(f"{where}.{kind}.source", kind, block["source"])
    named = {"tool_use": "id", "tool_result": "tool_use_id"}.get(kind)
    if named is not None and not _ID.fullmatch(str(block[named])):
        raise ValueError(f"{where}.{kind}.{named}: String should match pattern '^[a-zA-Z0-9_-]+$'")
    if kind == "tool_result" and block.get("is_error") is True and not block.get("content"):
        raise ValueError(f"{where}.tool_result: content cannot be empty if `is_error` is true")
    return block


def _check_citations(where: str, citations: object) -> None:
    for number, citation in enumerate(citations if is_array(citations) else ()):
        told: Mapping[str, object] = citation if is_object(citation) else {}
        fields = _CITATIONS.get(str(told.get("type")))
        if fields is None:
            raise ValueError(
                f"{where}.{number}: Input tag {told.get('type')!r} does not match any of the tags"
            )
        at = f"{where}.{number}.{told['type']}"
        if "file_id" in told:
            raise ValueError(f"{at}.file_id: Extra inputs are not permitted")
        for name, fits in fields.items():
            if not fits(told.get(name)):
                raise ValueError(f"{at}.{name}: Field required")


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


def _check_calls(turns: Turns) -> None:
    """Each call of a tool has its result in the next message, and each result its call in the one before."""
    open_calls: list[str] = []
    seen: set[str] = set()
    for number, (_, blocks) in enumerate(turns):
        results = [str(block["tool_use_id"]) for block in blocks if block["type"] == "tool_result"]
        for position, call_id in enumerate(results):
            if call_id not in open_calls or blocks[position]["type"] != "tool_result":
                raise ValueError(
                    f"messages.{number}.content.{position}: unexpected `tool_use_id` found in "
                    f"`tool_result` blocks: {call_id}. Each `tool_result` block must have a corresponding "
                    "`tool_use` block in the previous message."
                )
            if call_id in results[:position]:
                raise ValueError(
                    f"messages.{number}.content.{position}: each tool_use must have a single result. Found "
                    f"multiple `tool_result` blocks with id: {call_id}"
                )
        _check_answered(number - 1, open_calls, results)
        open_calls = [str(block["id"]) for block in blocks if block["type"] == "tool_use"]
        for call_id in open_calls:
            if call_id in seen:
                raise ValueError(f"messages.{number}: `tool_use` ids must be unique")
            seen.add(call_id)
    _check_answered(len(turns) - 1, open_calls, [])


def _check_answered(number: int, calls: Sequence[str], results: Sequence[str]) -> None:
    missing = [call_id for call_id in calls if call_id not in results]
    if missing:
        raise ValueError(
            f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately "
            f"after: {', '.join(missing)}."
        )


def _check_server_calls(turns: Turns) -> None:
    """Each call of the server's tools has a result, unless it may still come; each result has a call."""
    begin = _goes_on_from(turns)
    calls, results = _alone(turns)
    for number, block in calls:
        if number < begin:
            name = str(block["name"])
            raise ValueError(
                f"messages.{number}: `{name}` tool use with id `{block['id']}` was found without a "
                f"corresponding `{name}{_RESULT}` block"
            )
    for _, block in results:
        raise ValueError(
            f"messages: unexpected `tool_use_id` found in a result of the server's: {block['tool_use_id']}"
        )


def _goes_on_from(turns: Turns) -> int:
    """Find the turn from which on the user says nothing but results of tools."""
    begin = len(turns)
    while begin and (
        turns[begin - 1][0] == "assistant"
        or all(block["type"] == "tool_result" for block in turns[begin - 1][1])
    ):
        begin -= 1
    return begin


def _alone(turns: Turns) -> tuple[_Found, _Found]:
    """Find the calls of the server's tools that have no result after them, and results without a call."""
    open_calls: dict[str, _Found] = {}
    results: _Found = []
    for number, (_, blocks) in enumerate(turns):
        for block in blocks:
            if block["type"] in ("server_tool_use", "mcp_tool_use"):
                open_calls.setdefault(str(block["id"]), []).append((number, block))
            elif block["type"].endswith(_RESULT):
                calls = open_calls.get(str(block["tool_use_id"]))
                if calls:
                    calls.pop()
                else:
                    results.append((number, block))
    return [call for calls in open_calls.values() for call in calls], results

"""Requests as the emulator of Mtmai reads them, each field of the documented form."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import cast

from chatbridge.testing.emulator import is_array, is_object

__all__ = ["read_name", "read_run"]

FLOWS = ("assisant", "ag", "browser", "tenant", "news")
ROLES = ("system", "user", "assistant")
LONGEST_ID = 36


def read_name(body: Mapping[str, object]) -> str | None:
    """
    Read a ChatSessionUpdate, and give its name; None where it has none.

    Raises:
        ValueError: A field is not of its form; the message says which.
    """
    if "metadata" in body:
        _check_metadata(body["metadata"], "metadata")
    return _text(body["name"], "name") if "name" in body else None


def read_run(body: Mapping[str, object], team: str) -> str:
    """
    Read an AgentRunInput, and give what the team is told: the last message alone.

    Raises:
        ValueError: A field is not of its form, or the team is not *team*; the message says which.
    """
    _expect(_among(body.get("name"), FLOWS), "name", f"one of {', '.join(FLOWS)}")
    _expect(body["name"] == "ag", "name", "ag, the one flow that the emulator has")
    _expect(isinstance(body.get("isStream", False), bool), "isStream", "a boolean")
    params = _fields(body.get("params"), "params")
    team_id = _text(params.get("teamId"), "params.teamId")
    _expect(team_id == team, "params.teamId", "the id of a team of the tenant")
    _expect(isinstance(params.get("sessionId", ""), str), "params.sessionId", "a string")
    messages = params.get("messages")
    if not is_array(messages) or not messages:
        raise ValueError("params.messages must be a non-empty array")
    return [_content(each, f"params.messages[{index}]") for index, each in enumerate(messages)][-1]


def _content(message: object, place: str) -> str:
    """Check a ChatMessage, and give its content."""
    fields = _fields(message, place)
    _check_metadata(fields.get("metadata"), f"{place}.metadata")
    _expect(_among(fields.get("role"), ROLES), f"{place}.role", f"one of {', '.join(ROLES)}")
    _expect(isinstance(fields.get("content"), str), f"{place}.content", "a string")
    return cast(str, fields["content"])


def _check_metadata(metadata: object, place: str) -> None:
    fields = _fields(metadata, place)
    own_id = fields.get("id")
    short = isinstance(own_id, str) and len(own_id) <= LONGEST_ID
    _expect(short, f"{place}.id", f"a string of at most {LONGEST_ID} characters")
    for name in ("createdAt", "updatedAt"):
        _expect(_is_time(fields.get(name)), f"{place}.{name}", "a time with its zone")


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _among(value: object, choices: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in choices


def _fields(value: object, place: str) -> dict[str, object]:
    _expect(is_object(value), place, "an object")
    return cast(dict[str, object], value)


def _text(value: object, place: str) -> str:
    _expect(isinstance(value, str) and value != "", place, "a non-empty string")
    return cast(str, value)


def _expect(holds: bool, place: str, form: str) -> None:  # noqa: FBT001 - reads like `assert`
    if not holds:
        raise ValueError(f"{place} must be {form}")

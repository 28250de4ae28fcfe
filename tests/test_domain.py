"""The values that conversations are made of."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Hashable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import domain
from chatbridge.domain import (
    Attachment,
    Conversation,
    Finished,
    FinishReason,
    Message,
    Opaque,
    Part,
    PartAdded,
    Progress,
    Reasoning,
    ReasoningDelta,
    Reference,
    Reply,
    Reset,
    Role,
    SendOptions,
    Started,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    Usage,
)

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
USER = Message.user("Hi")
ANSWER = Message(
    Role.ASSISTANT,
    [Reasoning("hm", "mark"), Text("Ho"), ToolCall("1", "look", {"deep": [1]})],
    id="m1",
    author="Bot",
    created_at=NOON,
    reply_to="m0",
    references=[Reference("d1", score=0.5, extra={"page": 3})],
    extra={"raw": True},
)
REPLY = Reply([ANSWER], "stop", "END", Usage(1, 2), "m", ["slow"], recovered=True, extra={"raw": 1})

VALUES: list[Any] = [
    Text("a"),
    Reasoning("a", "b"),
    Attachment("image/png", data=b"\0", name="a.png"),
    ToolCall("1", "look", {"a": 1}),
    ToolResult("1", "seen", is_error=True),
    Opaque("kaziro", "card", {"a": [1]}),
    Reference("d", extra={"a": 1}),
    ANSWER,
    Conversation("c", "Title", "Be kind", NOON, NOON, extra={"a": 1}),
    Usage(1, 2, cost=0.5),
    REPLY,
    SendOptions(stop=["END"], include={"usage"}, tools=[{"name": "t"}], extra={"a": 1}),
    Started("m1", "m"),
    TextDelta("a", 1),
    ReasoningDelta("a"),
    PartAdded(Text("a"), 0),
    Progress("tool", {"a": 1}),
    Reset("another try"),
    Finished(REPLY),
]


EXTRA_IS_KEPT = {Reference, Message, Conversation, Reply}


def named(value: object) -> str:
    return type(value).__name__


def fields(value: object) -> dict[str, attrs.Attribute[Any]]:
    cls: type[Any] = type(value)
    return attrs.fields_dict(cls)


def test_every_public_class_of_values_is_tried_here() -> None:
    public: list[Any] = [getattr(domain, name) for name in domain.__all__]

    assert {cls for cls in public if attrs.has(cls)} == {type(value) for value in VALUES}


@pytest.mark.parametrize("value", VALUES, ids=named)
def test_a_value_cannot_be_changed(value: Any) -> None:
    for name in fields(value):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, name, None)
    with pytest.raises(AttributeError):
        value.something_new = 1


@pytest.mark.parametrize("value", VALUES, ids=named)
def test_a_value_survives_pickling_and_copying(value: Any) -> None:
    copies = [pickle.loads(pickle.dumps(value, protocol)) for protocol in range(2, 6)]
    for twin in [*copies, copy.copy(value), copy.deepcopy(value)]:
        assert value == twin
        assert repr(value) == repr(twin)


@pytest.mark.parametrize("value", VALUES, ids=named)
def test_equality_ignores_the_extra_that_an_api_sent_and_nothing_else(value: Any) -> None:
    ignored = [name for name, field in fields(value).items() if not field.eq]

    assert (["extra"] if type(value) in EXTRA_IS_KEPT else []) == ignored
    if ignored:
        assert value == attrs.evolve(value, extra={"other": 2})


def test_the_extra_that_a_caller_gives_is_compared() -> None:
    assert SendOptions() != SendOptions(extra={"a": 1})


@pytest.mark.parametrize("value", [USER, Conversation("c"), REPLY], ids=named)
def test_what_may_hold_mappings_or_stands_for_a_remote_thing_has_no_hash(value: Any) -> None:
    assert not isinstance(value, Hashable)
    with pytest.raises(TypeError):
        hash(value)


@pytest.mark.parametrize(
    ("cls", "others", "name"),
    [
        (Message, {"role": "user"}, "extra"),
        (Conversation, {"id": "c"}, "extra"),
        (Reference, {"document_id": "d"}, "extra"),
        (Reply, {"messages": [ANSWER]}, "extra"),
        (SendOptions, {}, "extra"),
        (SendOptions, {}, "response_format"),
        (ToolCall, {"id": "1", "name": "look"}, "arguments"),
        (Opaque, {"origin": "kaziro", "kind": "card"}, "data"),
        (Progress, {"kind": "tool"}, "data"),
    ],
)
def test_a_mapping_is_copied_when_a_value_is_made(cls: type[Any], others: dict[str, Any], name: str) -> None:
    mapping = {"a": 1}
    value = cls(**others, **{name: MappingProxyType(mapping)})
    mapping["b"] = 2

    assert {"a": 1} == getattr(value, name)
    assert {"a": 1} == getattr(pickle.loads(pickle.dumps(value)), name)


def test_each_tool_on_offer_is_copied() -> None:
    tool = {"name": "t"}
    options = SendOptions(tools=[tool])
    tool["name"] = "u"

    assert ({"name": "t"},) == options.tools


@pytest.mark.parametrize("data", [None, "text", 1.5, [1]])
def test_opaque_data_that_is_no_mapping_is_kept_as_it_is(data: object) -> None:
    assert data is Opaque("kaziro", "card", data).data
    assert data is Progress("tool", data).data


class NoZone(tzinfo):
    def utcoffset(self, _: datetime | None, /) -> None: ...

    def dst(self, _: datetime | None, /) -> None: ...

    def tzname(self, _: datetime | None, /) -> None: ...


@pytest.mark.parametrize("moment", [NOON.replace(tzinfo=None), NOON.replace(tzinfo=NoZone())])
@pytest.mark.parametrize(
    ("cls", "args", "name"),
    [
        (Message, ["user"], "created_at"),
        (Conversation, ["c"], "created_at"),
        (Conversation, ["c"], "updated_at"),
    ],
)
def test_a_time_without_a_zone_is_refused(
    cls: type[Any], args: list[str], name: str, moment: datetime
) -> None:
    with pytest.raises(ValueError, match="needs a time zone, and 2026-01-02T12:00:00 has none"):
        cls(*args, **{name: moment})


@pytest.mark.parametrize(
    "moment",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_a_time_that_utc_cannot_say_is_a_value_error_too(moment: datetime) -> None:
    with pytest.raises(ValueError, match="beyond the years 1 to 9999"):
        Conversation("c", created_at=moment)


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)),  # noqa: DTZ001 - the zone follows
    st.integers(-1439, 1439),
)
def test_any_other_time_is_turned_to_utc(naive: datetime, minutes: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    kept = Message(Role.USER, created_at=moment).created_at

    assert moment == kept
    assert kept is not None
    assert UTC is kept.tzinfo


def test_a_string_stands_for_text_and_strings_for_texts() -> None:
    assert (Text("Hi"),) == Message.user("Hi").parts
    assert (Text("Hi"), Text("Ho")) == Message.user(["Hi", Text("Ho")]).parts
    assert (Text(""),) == Message.assistant("").parts
    assert () == Message(Role.TOOL).parts


def test_the_text_of_a_message_joins_its_text_parts_only() -> None:
    file = Attachment("text/plain", url="x:")
    parts: list[Part] = [Text("a"), Reasoning("no"), file, Text("b"), ToolResult("1", "no")]

    assert "ab" == Message.user(parts).text
    assert "" == Message.user([]).text


def test_roles_may_be_given_by_name_and_others_are_refused() -> None:
    assert Role.USER is Message.user("Hi").role
    assert Role.ASSISTANT is Message.assistant("Hi").role
    assert Role.TOOL is Message("tool").role
    with pytest.raises(ValueError, match="robot"):
        Message("robot")


def test_the_same_content_is_the_same_role_and_parts_whatever_else_differs() -> None:
    assert USER.same_content(attrs.evolve(USER, id="m9", created_at=NOON, extra={"a": 1}))
    assert not USER.same_content(attrs.evolve(USER, role=Role.TOOL))
    assert not USER.same_content(attrs.evolve(USER, parts="Hi!"))


@pytest.mark.parametrize("sources", [{}, {"data": b"", "url": "x:"}])
def test_an_attachment_has_data_or_a_url_and_not_both(sources: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either data or a url"):
        Attachment("text/plain", **sources)


def test_an_empty_file_is_a_file() -> None:
    assert b"" == Attachment("text/plain", data=b"").data


def test_bytes_that_can_change_are_copied() -> None:
    buffer = bytearray(b"abc")
    files = [
        Attachment("text/plain", data=data) for data in (buffer, memoryview(buffer), memoryview(buffer)[::-1])
    ]
    buffer[:] = b"xyz"
    assert [b"abc", b"abc", b"cba"] == [file.data for file in files]
    assert {bytes} == {type(file.data) for file in files}
    assert hash(files[0]) == hash(files[1])


@pytest.mark.parametrize(
    ("usage", "total"),
    [
        (Usage(), None),
        (Usage(3), None),
        (Usage(output_tokens=4), None),
        (Usage(3, 4), 7),
        (Usage(0, 0), 0),
        (Usage(3, 4, total_tokens=9), 9),
        (Usage(3, 4, total_tokens=0), 0),
        (Usage(total_tokens=9), 9),
    ],
)
def test_the_total_is_the_one_reported_else_the_sum_of_what_is_known(usage: Usage, total: int | None) -> None:
    assert total == usage.total_tokens


@pytest.mark.parametrize("messages", [(), [USER], [Message("tool", "x"), Message("system", "y")]])
def test_a_reply_needs_a_message_of_the_assistants(messages: list[Message]) -> None:
    with pytest.raises(ValueError, match="at least one message of the assistant's"):
        Reply(messages)


def test_a_reply_speaks_with_the_assistants_messages() -> None:
    first, last = Message.assistant("One"), Message.assistant("Two")
    reply = Reply([USER, first, Message("tool", "no"), Message.assistant([]), last, Message("tool", "no")])

    assert last is reply.message
    assert "One\n\nTwo" == reply.text


def test_finish_reasons_may_be_given_by_name_and_others_are_refused() -> None:
    assert FinishReason.LENGTH is Reply([ANSWER], "length").finish_reason
    assert None is Reply([ANSWER]).finish_reason
    with pytest.raises(ValueError, match="whim"):
        Reply([ANSWER], "whim")


def test_one_string_where_several_belong_is_not_taken_letter_by_letter() -> None:
    assert ("END",) == SendOptions(stop="END").stop
    assert {"usage"} == SendOptions(include="usage").include
    assert ("slow",) == Reply([ANSWER], warnings="slow").warnings


def test_what_is_not_known_is_none() -> None:
    for made in (Usage(), Started(), SendOptions()):
        kept = attrs.asdict(made)
        assert {None, (), frozenset()} >= {value for value in kept.values() if value != {}}

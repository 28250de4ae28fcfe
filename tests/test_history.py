"""Values to JSON and back, the identity of messages, and stores by their strings."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from hashlib import blake2b
from pathlib import Path
from pprint import pformat
from typing import Any, cast

import pytest
from attrs import asdict, evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbridge import (
    Attachment,
    ConfigError,
    FinishReason,
    Message,
    Opaque,
    Part,
    Reasoning,
    Reference,
    Reply,
    Role,
    StoreError,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    TurnState,
    Usage,
)
from chatbridge.history import MemoryStore, SQLiteStore, open_store
from chatbridge.history.chain import Entry, canonical, entries_of, identify, said_in
from chatbridge.history.codec import dump, load

texts = st.text(st.characters(exclude_categories=()), max_size=5)
maybe = st.none() | texts
free = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
mappings = st.dictionaries(texts, free, max_size=2)
moments = st.none() | st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1)).map(  # noqa: DTZ001 - below
    lambda moment: moment.replace(tzinfo=timezone(timedelta(hours=-5)))
)
parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, texts),
    st.builds(Reasoning, texts, maybe),
    st.builds(Attachment, texts, data=st.binary(max_size=20), name=maybe),
    st.builds(Attachment, texts, url=texts, name=maybe),
    st.builds(ToolCall, texts, texts, mappings),
    st.builds(ToolResult, texts, texts, st.booleans()),
    st.builds(Opaque, texts, texts, free),
)
counts = st.none() | st.integers(0, 2**70)
scores = st.none() | st.floats(allow_nan=False, allow_infinity=False)
references = st.builds(Reference, texts, maybe, maybe, maybe, scores, maybe, extra=mappings)


def messages(role: st.SearchStrategy[Role]) -> st.SearchStrategy[Message]:
    of_parts, of_references = st.lists(parts, max_size=2), st.lists(references, max_size=2)
    return st.builds(Message, role, of_parts, maybe, maybe, moments, maybe, of_references, extra=mappings)


any_messages = messages(st.sampled_from(Role))
replies = st.builds(
    Reply,
    st.lists(messages(st.just(Role.ASSISTANT)), min_size=1, max_size=2),
    st.none() | st.sampled_from(FinishReason),
    maybe,
    st.none() | st.builds(Usage, counts, counts, counts, counts, counts, scores),
    maybe,
    st.lists(texts, max_size=2),
    st.booleans(),
    extra=mappings,
)
turns = st.builds(
    Turn,
    texts,
    texts,
    any_messages,
    st.just(datetime(2026, 1, 2, tzinfo=UTC)),
    st.sampled_from(TurnState),
    texts,
    st.none() | replies,
    st.booleans(),
    st.booleans(),
    st.none() | st.tuples(st.integers(0), st.integers(0)),
    st.integers(1),
)


def whole(value: Any) -> str:
    """Show everything of a value but the order of keys: == leaves `extra` out, and takes 1 for True."""
    return pformat(asdict(value))


# ---------------------------------------------------------------------------------------- as JSON


@settings(max_examples=25)
@given(any_messages)
def test_a_message_comes_back_whole(message: Message) -> None:
    assert whole(message) == whole(load(dump(message, Message), Message))


@settings(max_examples=25)
@given(replies)
def test_a_reply_comes_back_whole(reply: Reply) -> None:
    assert whole(reply) == whole(load(dump(reply, Reply), Reply))


@settings(max_examples=25)
@given(turns, st.none() | turns)
def test_a_turn_comes_back_whole(turn: Turn, earlier: Turn | None) -> None:
    turn = evolve(turn, earlier=earlier)
    back = load(dump(turn, Turn), Turn)

    assert turn == back
    assert whole(turn) == whole(back)


def test_what_is_written_is_ascii_in_a_fixed_order() -> None:
    message = Message(Role.USER, "h\u00e9", extra={"b": 1, "a": (2,)})

    assert ('{"extra":{"a":[2],"b":1},"parts":[{"text":"h\\u00e9","type":"Text"}],"role":"user"}') == dump(
        message, Message
    )


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"role":"user","colour":"red"}', "a Message has 'colour'"),
        ('{"role":"user","parts":[{"type":"Text","text":"Hi","colour":"red"}]}', "a Text has 'colour'"),
    ],
)
def test_a_field_that_is_not_known_is_a_later_versions_and_never_dropped(text: str, where: str) -> None:
    with pytest.raises(
        StoreError, match=f"a later chatbridge wrote it: {where}, .* update chatbridge"
    ) as caught:
        load(text, Message)

    assert "newer" == caught.value.kind
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    "text",
    [
        '{"role":"user","parts":[{"type":"Smell","text":"Hi"}]}',
        '{"role":"user","parts":[{"type":"Attachment","media_type":"a/b","data":"?"}]}',
        '{"role":"nobody"}',
        '{"parts":[]}',
        "[",
        "[]",
    ],
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="no Message that this version can read") as caught:
        load(text, Message)

    assert "corrupt" == caught.value.kind
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (object(), "JSON has no object"),
        ({1: 2}, "a key is a int"),
        (float("inf"), "the number inf is not in JSON"),
        (datetime(2026, 1, 1, tzinfo=UTC), "JSON has no datetime"),
    ],
)
def test_what_json_lacks_is_named(value: object, problem: str) -> None:
    message = Message(Role.USER, [Opaque("acme", "thing", value)])

    with pytest.raises(StoreError, match=problem) as caught:
        dump(message, Message)

    assert "value" == caught.value.kind


# --------------------------------------------------------------------------------------- identity


@settings(max_examples=25)
@given(st.lists(any_messages, max_size=4))
def test_the_identity_is_the_hash_that_is_written_down(said: list[Message]) -> None:
    parent = ""
    for message, entry in zip(said, entries_of(said, None), strict=True):
        there: list[dict[str, Any]] = []
        for part in json.loads(dump(message, Message)).get("parts", ()):
            if part["type"] == "Text" and there and there[-1]["type"] == "Text":
                there[-1]["text"] += part["text"]
            elif part["type"] != "Reasoning" and part != {"text": "", "type": "Text"}:
                there.append(part)
        fields = {"role": str(message.role), "parts": there}
        content = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        digest = blake2b(f"{parent}\n{content}".encode(), digest_size=32).hexdigest()
        assert f"b2:{digest}" == entry.hash
        assert (parent or None) == entry.before
        assert whole(message) == whole(entry.message)
        parent = entry.hash


@settings(max_examples=25)
@given(any_messages, any_messages)
def test_two_messages_are_one_if_they_say_the_same(one: Message, two: Message) -> None:
    same = canonical(one) == canonical(two)

    # By their looks, as 1 == True.
    assert (whole(said_in(one)) == whole(said_in(two))) == same


def test_reasoning_and_the_borders_of_texts_are_not_what_is_said() -> None:
    one = Message(Role.ASSISTANT, [Reasoning("hm"), Text("Kyo"), Text(""), Reasoning("so"), Text("to")])

    assert canonical(Message.assistant("Kyoto")) == canonical(one)


@settings(max_examples=25)
@given(any_messages)
def test_an_entry_comes_back_from_its_two_halves(message: Message) -> None:
    (entry,) = entries_of([message], "b2:1")
    back = Entry.load(entry.hash, entry.before, entry.content, entry.details)

    assert whole(message) == whole(back.message)
    assert (entry.hash, "b2:1") == (back.hash, back.before)


def test_a_long_history_has_an_identity() -> None:
    """However deep: what follows from what is not followed by calls within calls."""
    *_, last = entries_of(map(Message.user, map(str, range(2000))), None)

    assert last.hash == identify(last.content, last.before)


@pytest.mark.parametrize(
    ("text", "searched"), [("half \ud800, none \0.", "half ?, none  ."), ("Kyoto", "Kyoto")]
)
def test_the_text_that_is_searched_can_be_written_anywhere(text: str, searched: str) -> None:
    (entry,) = entries_of([Message.user(text)], None)

    assert searched == entry.text


@settings(max_examples=25)
@given(any_messages, any_messages)
def test_who_sent_it_and_when_makes_no_difference(one: Message, two: Message) -> None:
    assert canonical(one) == canonical(evolve(two, role=one.role, parts=one.parts))


@settings(max_examples=25)
@given(st.lists(any_messages, min_size=1, max_size=2), st.lists(any_messages, min_size=1, max_size=2))
def test_a_message_is_another_after_another_history(one: list[Message], two: list[Message]) -> None:
    last = Message.user("Hi")
    heads = [[entry.hash for entry in entries_of([*said, last], None)] for said in (one, two)]

    assert ([canonical(each) for each in one] == [canonical(each) for each in two]) == (
        heads[0][-1] == heads[1][-1]
    )


def test_the_identity_never_changes() -> None:
    """Stores of years ago have it."""
    (first, second) = entries_of([Message.user("Hi"), Message.assistant("Ho")], None)

    assert '{"parts":[{"text":"Hi","type":"Text"}],"role":"user"}' == first.content
    assert "b2:87dd07a46f17453cc6a819888cbeb1cf186e3a9a4d904b6c9c9af4640f3eed60" == first.hash
    assert "b2:8ce046bc2aa7af5a2f9cdeee795eb4fa56f98577e81dec300770c33a421e0250" == second.hash


# -------------------------------------------------------------------------------------- by string


def test_a_string_names_a_store() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
    store = open_store("sqlite:///chats.db")
    assert isinstance(store, SQLiteStore)
    assert Path("chats.db").absolute() == store.path
    absolute = open_store("sqlite:////var/lib/bot/chats.db")
    assert isinstance(absolute, SQLiteStore)
    assert Path("/var/lib/bot/chats.db") == absolute.path


def test_a_store_is_given_back() -> None:
    store = MemoryStore()

    assert store is open_store(store)


@pytest.mark.parametrize(
    ("which", "problem"),
    [
        ("postgresql://me:hunter2@db/chats", "a password must not be in the string"),
        ("postgres://me:hunter2@db/chats", "a password must not be in the string"),
        ("redis://:hunter2@db", "no kind of store"),
        ("hunter2.db", "no kind of store"),
        ("", "no kind of store"),
        ("sqlite", "no kind of store"),
        ("memory:hunter2", "nothing comes after 'memory:'"),
        ("sqlite:hunter2.db", "three slashes and a file"),
        ("sqlite:///", "three slashes and a file"),
        ("sqlite://", "three slashes and a file"),
        ("sqlite:///a.db?key=hunter2", "a file alone"),
        ("sqlite:///a\0.db", "a file alone"),
        (17, "a string or a Store, not int"),
    ],
)
def test_another_string_is_refused_and_not_shown(which: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        open_store(cast(str, which))

    assert "hunter2" not in str(caught.value)

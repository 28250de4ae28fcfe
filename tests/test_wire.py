"""Parsed JSON becomes wire types strictly, or is refused with the path of the field at fault."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, cast

import pytest
from attrs import asdict, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from chatbridge.http.content import BrokenContent
from chatbridge.http.wire import Id, Raw, beyond, parse_time, structure, unstructure


@frozen
class Author:
    name: str
    age: int | None = None


@frozen
class Post:
    id: Id
    title: str
    score: float
    likes: int
    seen: bool
    author: Author
    tags: list[str]
    replies: list[Author]
    answer_to: Id | None = None
    created: datetime | None = None
    best: Author | None = None
    labels: list[str] | None = None
    extra: dict[str, Any] | None = None
    nested: list[list[int]] = field(factory=list[list[int]])
    anything: Any = None
    raw: Raw = field(factory=dict[str, Any])


WHOLE: dict[str, Any] = {
    "id": "p1",
    "title": "T",
    "score": 0.5,
    "likes": 3,
    "seen": True,
    "author": {"name": "Ann", "age": 30},
    "tags": ["a", "b"],
    "replies": [{"name": "Bob"}, {"name": "Cy", "age": None}],
    "answer_to": 12,
    "created": "2024-05-06T07:08:09Z",
    "best": {"name": "Dee"},
    "labels": ["x"],
    "extra": {"k": 1},
    "nested": [[1, 2], []],
    "anything": [None],
}


def test_a_whole_object_becomes_its_type() -> None:
    post = cast(Post, structure(WHOLE, Post))
    assert Post(
        Id("p1"), "T", 0.5, 3, True, Author("Ann", 30), ["a", "b"], [Author("Bob"), Author("Cy")], Id("12"),
        datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), Author("Dee"), ["x"], {"k": 1}, [[1, 2], []], [None],
        WHOLE,
    ) == post  # fmt: skip
    assert post.raw is WHOLE


TYPES: dict[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "Id": Id, "list": list[int],
    "dict": dict[str, Any], "Author": Author, "str?": str | None, "Id?": Id | None, "list?": list[str] | None,
    "Author?": Author | None,
}  # fmt: skip
OBJECTS = [{}, {"name": "Ann"}, {"name": 1}]
VALUES: list[Any] = [None, True, 0, 1.5, "", "text", [], [1], ["a"], [None], *OBJECTS]
TAKEN: dict[str, list[Any]] = {
    "str": ["", "text"],
    "int": [0],
    "float": [0, 1.5],
    "bool": [True],
    "Id": [0, "", "text"],
    "list": [[], [1]],
    "dict": OBJECTS,
    "Author": [{"name": "Ann"}],
    "str?": [None, "", "text"],
    "Id?": [None, 0, "", "text"],
    "list?": [None, [], ["a"]],
    "Author?": [None, {"name": "Ann"}],
}


@pytest.mark.parametrize("name", TYPES)
def test_j2_each_type_takes_its_own_values_and_no_others(name: str) -> None:
    taken: list[Any] = []
    for value in VALUES:
        try:
            structure(value, TYPES[name])
        except BrokenContent as error:
            assert "schema" == error.kind  # noqa: PT017 - what is not refused is counted
        else:
            taken.append(value)
    assert [(type(value), value) for value in TAKEN[name]] == [(type(value), value) for value in taken]


def test_an_id_is_text_whatever_it_came_as() -> None:
    assert ["12", "a", str(2**70)] == [structure(value, Id) for value in (12, "a", 2**70)]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("title",), 5, "expected a text @ $.title"),
        (("title",), None, "expected a text @ $.title"),
        (("title",), ..., "required field missing @ $.title"),
        (("likes",), True, "expected a whole number @ $.likes"),
        (("likes",), 1.0, "expected a whole number @ $.likes"),
        (("seen",), 1, "expected true or false @ $.seen"),
        (("score",), "1", "expected a number @ $.score"),
        (("id",), 1.5, "expected an id @ $.id"),
        (("author",), [], "expected an object @ $.author"),
        (("author", "age"), "x", "expected a whole number @ $.author.age"),
        (("replies", 1, "name"), 7, "expected a text @ $.replies[1].name"),
        (("tags",), "ab", "expected a list @ $.tags"),
        (("nested", 1), {}, "expected a list @ $.nested[1]"),
        (("tags", 0), None, "expected a text @ $.tags[0]"),
        (("labels", 0), 3, "expected a text @ $.labels[0]"),
        (("extra",), [], "expected an object @ $.extra"),
        (("nested", 0, 1), "x", "expected a whole number @ $.nested[0][1]"),
    ],
)
def test_j2_what_is_wrong_is_named_by_its_path(path: tuple[str | int, ...], value: object, said: str) -> None:
    with pytest.raises(BrokenContent, match="^" + said.translate({ord(c): f"\\{c}" for c in "$.[]"}) + "$"):
        structure(changed(path, value), Post)


def changed(path: tuple[str | int, ...], value: object) -> Any:
    """Give the whole object with the value at *path* replaced, or taken out where it is `...`."""
    mutant = copy.deepcopy(WHOLE)
    place: Any = mutant
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return mutant


def paths(value: object, so_far: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if so_far:
        yield so_far
    inside: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inside = list(cast(dict[str | int, object], value).items())
    elif isinstance(value, list):
        inside = list(enumerate(cast(list[object], value)))
    for step, item in inside:
        yield from paths(item, (*so_far, step))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just(10**4000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(list(paths(WHOLE))), JSON | st.just(...))
def test_j2_whatever_field_is_mutated_the_result_is_of_the_type_or_one_error(
    path: tuple[str | int, ...], value: Any
) -> None:
    mutant = changed(path, value)
    try:
        post = structure(mutant, Post)
    except BrokenContent as error:
        assert ("schema", True) == (error.kind, "@ $" in str(error))  # noqa: PT017 - either outcome is right
    else:
        assert mutant is post.raw
        assert all(type(text) is str for text in (post.id, post.title, post.author.name, *post.tags))
        assert all(type(n) is int for n in (post.likes, *(n for row in post.nested for n in row)))
        assert type(post.seen) is bool
        assert type(post.score) is float
        assert isinstance(post.created, datetime | None)
        assert all(type(reply) is Author for reply in post.replies)


@given(JSON)
def test_j2_whatever_comes_in_place_of_an_object_or_a_list_is_taken_or_refused(value: Any) -> None:
    for kind in (Post, list[Post], Author, float, Id):
        try:
            structure(value, kind)
        except BrokenContent as error:
            assert "schema" == error.kind  # noqa: PT017 - either outcome is right


@frozen
class Loose:
    mode: Literal["fast"]


def test_the_error_never_shows_a_value() -> None:
    secret = "sk-secret"
    for kind, value in ((Loose, {"mode": secret}), (Author, {"name": {secret: 1}}), (Author, secret)):
        with pytest.raises(BrokenContent) as caught:
            structure(value, kind)
        assert "secret" not in f"{caught.value!r}"
        assert None is caught.value.__cause__ is caught.value.__context__


RUBBISH: list[Any] = [
    None, True, "", "yesterday", "12:00", "2024-13-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "\ud800",
    [], {},
    "9999-12-31T23:59:59-23:59", 10**400, -(10**400), 1e300, float("inf"), float("nan"), "1715000000",
]  # fmt: skip
NOON = datetime(2024, 5, 6, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-05-06T12:00:00Z", NOON),
        ("2024-05-06t12:00:00z", NOON),
        ("2024-05-06 12:00:00Z", NOON),
        ("2024-05-06T14:00:00+02:00", NOON),
        ("2024-05-06T12:00:00", NOON),
        ("2024-05-06T12:00:00.5Z", NOON.replace(microsecond=500_000)),
        ("2024-05-06T12:00:00.123456789Z", NOON.replace(microsecond=123_456)),
        (int(NOON.timestamp()), NOON),
        (NOON.timestamp() + 0.5, NOON.replace(microsecond=500_000)),
        (int(NOON.timestamp()) * 1000, NOON),
        (NOON.timestamp() * 1000 + 250, NOON.replace(microsecond=250_000)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        *((rubbish, None) for rubbish in RUBBISH),
    ],
)  # fmt: skip
def test_a_time_is_read_in_any_common_form_and_rubbish_is_none(
    value: object, expected: datetime | None
) -> None:
    assert expected == parse_time(value)


@given(JSON | st.datetimes(timezones=st.timezones()).map(datetime.isoformat) | st.text("0123456789-:TZ+. "))
def test_a_bad_time_never_costs_a_message(value: Any) -> None:
    post = structure({**WHOLE, "created": value}, Post)
    assert None is post.created or UTC is post.created.tzinfo
    assert value is post.raw["created"]


def test_what_is_written_leaves_out_what_has_its_default() -> None:
    assert {"name": "Ann"} == unstructure(Author("Ann"))
    assert {"name": "Ann", "age": 3} == unstructure(Author("Ann", 3))


@frozen
class Counted:
    """One of many, which counts how many were made."""

    number: int
    made: ClassVar[int] = 0

    def __attrs_post_init__(self) -> None:
        Counted.made += 1


@frozen
class Shelf:
    things: list[list[Counted]]


MANY = [{"number": 1}] * 1000


@pytest.mark.parametrize(
    ("value", "kind", "path", "made"),
    [
        ([{"number": "a"}, *MANY], list[Counted], "$[0].number", 0),
        ([*MANY, {}, *MANY], list[Counted], "$[1000].number", 2000),
        ({"things": [[], [{"number": "a"}, *MANY], *[MANY] * 9]}, Shelf, "$.things[1][0].number", 0),
        ({"things": [[], 5, *[MANY] * 9]}, Shelf, "$.things[1]", 0),
    ],
)
def test_a_long_list_is_explained_up_to_its_first_fault_and_no_further(
    value: object, kind: Any, path: str, made: int
) -> None:
    Counted.made = 0
    with pytest.raises(BrokenContent) as broken:
        structure(value, kind)
    assert str(broken.value).endswith(f" @ {path}")
    assert (1, made) == (str(broken.value).count(" @ "), Counted.made)


@given(st.text(), st.none() | st.integers())
def test_what_is_written_reads_back_the_same(name: str, age: int | None) -> None:
    author = Author(name, age)
    assert author == structure(unstructure(author), Author)
    assert author == structure(asdict(author), Author)


def test_what_is_beyond_the_known_fields_is_kept_unless_null() -> None:
    assert {"b": 2, "d": 0} == beyond({"a": 1, "b": 2, "c": None, "d": 0}, "a")


def test_a_field_that_could_not_be_read_is_kept_as_it_came() -> None:
    raw = {"id": 1, "created": "soon", "updated": 5}
    assert {"created": "soon"} == beyond(raw, "id", created=None, updated=parse_time(5))

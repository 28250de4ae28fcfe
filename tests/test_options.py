"""What a backend can be told, and how it is checked."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import fields_dict, frozen, validators
from hypothesis import given
from hypothesis import strategies as st

from chatbridge.errors import BadOption, ChatbridgeError, ConfigError, MissingSecret
from chatbridge.option_types import OptionInfo, describe_options
from chatbridge.options import CommonOptions, option
from chatbridge.secret import Secret
from chatbridge.structuring import structure_options

TEXT = "hunter2-hunter2"
ENV = {"key": ("A_KEY", "B_KEY"), "model": ("A_MODEL",), "session": ("A_SESSION",)}


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


# The annotations of this module are texts, as they are in adapters: they have to be resolved.
@frozen(kw_only=True)
class Options(CommonOptions):
    key: Secret = option("The key.")
    session: Secret | None = option("Another.", default=None)
    model: str | None = option("Which one.", default=None)
    mode: Literal["fast", "slow"] = option("How.", default="fast")
    colour: Colour = option("Which.", default=Colour.RED)
    tags: frozenset[str] = option("Any words.", default=frozenset({"b", "a"}))
    limit: int | None = option("How many.", default=None, validator=validators.optional(validators.le(9)))
    name: str = option("A name.", default="x", validator=validators.matches_re("[a-z:]*"))
    size: int | str = option("Never structured.", default=1)


@frozen(kw_only=True)
class Required(CommonOptions):
    model: str = option("Which one.")
    low: int = option("From.", default=0)
    high: int = option("To.", default=1, validator=validators.instance_of(int))

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")
        if self.low < 0:
            raise ConfigError("low is below zero")


def structure(
    written: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    /,
    **given_in_code: object,
) -> Options:
    return structure_options(
        Options,
        written or {},
        given_in_code,
        backend="acme",
        env=ENV,
        environ={"A_KEY": TEXT} if environ is None else environ,
    )


def require(written: Mapping[str, str], env: Mapping[str, tuple[str, ...]] | None = None) -> Required:
    return structure_options(
        Required, written, {}, backend="acme", env=env or {}, environ={"A_MODEL": " m\n"}
    )


def assert_plain(error: ChatbridgeError) -> None:
    """One printable line of a bounded length, with no foreign exception and no secret in it."""
    assert str(error).isprintable()
    assert len(str(error)) < 500
    assert None is error.__cause__
    assert None is error.__context__
    assert "hunter2" not in f"{error!r} {vars(error)} {pickle.dumps(error)!r}"


def test_the_common_options_have_their_defaults() -> None:
    expected = {
        "timeout": 600.0,
        "connect_timeout": 5.0,
        "first_byte_timeout": 300.0,
        "idle_timeout": 60.0,
        "settle_timeout": 30.0,
        "absent_after": None,
        "attempts": 3,
        "concurrency": 8,
        "include": frozenset[str](),
        "strict": False,
        "overflow": None,
        "insecure": False,
    }

    assert expected == {name: getattr(CommonOptions(), name) for name in fields_dict(CommonOptions)}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("timeout", "2.5", 2.5),
        ("timeout", "5", 5.0),
        ("timeout", ".5e1", 5.0),
        ("timeout", "+5.", 5.0),
        ("timeout", 5, 5.0),
        ("timeout", 2.5, 2.5),
        ("attempts", "1", 1),
        ("attempts", "+007", 7),
        ("attempts", 7, 7),
        *(("strict", value, True) for value in ("true", "TRUE", "yes", "on", "1", 1, True)),
        *(("insecure", value, False) for value in ("false", "No", "off", "0", 0, False)),
        ("include", "", set[str]()),
        ("include", "usage", {"usage"}),
        ("include", "usage, references,,usage", {"usage", "references"}),
        ("include", ["usage"], {"usage"}),
        ("include", {"usage", "references"}, {"usage", "references"}),
        ("include", (), set[str]()),
        ("tags", "a:b, c d ", {"a:b", "c d"}),
        ("model", "None", "None"),
        ("model", "sk-a", "sk-a"),
        ("mode", "slow", "slow"),
        ("colour", "blue", Colour.BLUE),
        ("colour", Colour.BLUE, Colour.BLUE),
        ("limit", "9", 9),
        ("limit", "-3", -3),
        ("name", "a:b", "a:b"),
    ],
)
def test_a_value_is_taken_as_text_or_as_what_it_is(name: str, value: object, expected: object) -> None:
    found = [getattr(structure(**{name: value}), name)]
    if isinstance(value, str):
        found.append(getattr(structure({name: value}), name))

    for result in found:
        assert expected == result
        assert isinstance(result, type(expected) if not isinstance(expected, set) else frozenset)


NUMBER = "is not a number"
WHOLE = "is not a whole number"
BOOL = "is not true or false"
LIST = "is not a list, with commas, of references, usage"


WRONG: list[tuple[str, list[object], str]] = [
    ("timeout", ["", "x", "5s", "1_0", "٣", "0x1", " 5", "5\n", "nan", "inf", "1,5"], NUMBER),
    ("timeout", [True, [], b"5", Fraction(1, 2), 10**400, "x" * 10**6, "a\nb\x1b"], NUMBER),
    ("timeout", ["1e999", float("inf"), float("nan")], "is not a finite number"),
    ("idle_timeout", ["0", "-1", "1e-999", 0, -0.0], "must be > 0"),
    ("attempts", ["", "1.0", "1e3", "9" * 19, "x", 1.0, True, [], Secret(TEXT)], WHOLE),
    ("concurrency", ["0", -1], "must be >= 1"),
    ("strict", ["", "ja", "2", " true", 2, 1.0, [], b"true"], BOOL),
    ("include", ["usages", "usage;references", ["usage", 1], 5, b"usage", [["usage"]]], LIST),
    ("tags", [b"ab", [1], 5], "is not a list, with commas, of texts"),
    ("mode", ["", "Fast", "fast ", 1, []], "is not one of fast, slow"),
    ("colour", ["green", "RED", [], Colour], "is not one of red, blue"),
    ("model", [1, b"m", ["m"]], "is not a text"),
    ("limit", ["10"], "must be <= 9"),
    ("name", ["A"], "must match regex '[a-z:]*' ('A' doesn't)"),
]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [(name, value, problem) for name, values, problem in WRONG for value in values],
)
def test_a_wrong_value_is_refused_with_its_option_and_what_that_takes(
    name: str, value: object, problem: str
) -> None:
    for written, given_in_code in [({name: value}, {}), ({}, {name: value})]:
        if written and not isinstance(value, str):
            continue
        with pytest.raises(BadOption) as caught:
            structure(written, None, **given_in_code)  # type: ignore[arg-type]  # only texts come here
        error = caught.value

        assert_plain(error)
        assert (name, "acme") == (error.option, error.provider)
        assert str(error).startswith(f"acme: option {name!r} = ")
        assert str(error).endswith(f" {problem}")
        assert repr(str(value))[1:20] in str(error)


@pytest.mark.parametrize("name", ["timeout", "limit", "mode", "include", "name"])
def test_what_looks_like_a_secret_is_not_repeated_in_an_error(name: str) -> None:
    for secret in ("sk-live-0123456789", "Bearer 0123456789abcdef"):
        with pytest.raises(BadOption, match=f"^acme: option '{name}' is not ") as caught:
            structure(**{name: secret})

        assert "0123456789" not in str(caught.value)


@given(st.sampled_from(sorted(set(fields_dict(Options)) - {"key", "session", "size"})), st.text())
def test_any_text_gives_a_value_or_a_config_error(name: str, value: str) -> None:
    problem = None
    try:
        structure({name: value})
    except ConfigError as error:
        problem = error
    if problem is not None:
        assert_plain(problem)


@pytest.mark.parametrize("in_code", [False, True])
def test_an_unknown_option_is_refused_with_the_nearest_and_the_list(in_code: bool) -> None:
    with pytest.raises(BadOption) as caught:
        structure(timout="5") if in_code else structure({"timout": "5"})

    assert (
        "acme: option 'timout' is unknown; did you mean 'timeout'? (options: absent_after, attempts, colour, "
        "concurrency, connect_timeout, first_byte_timeout, idle_timeout, include, insecure, key, limit, "
        "mode, model, name, overflow, session, settle_timeout, size, strict, tags, timeout)"
    ) == str(caught.value)
    assert caught.value.known == tuple(sorted(fields_dict(Options)))


def test_what_is_given_in_code_comes_before_what_is_written_and_that_before_the_variable() -> None:
    environ = {"A_KEY": TEXT, "A_MODEL": "variable"}

    assert "code" == structure({"model": "written"}, environ, model="code").model
    assert "written" == structure({"model": "written"}, environ).model
    assert "written" == structure({"model": "written"}, environ, model=None).model
    assert "variable" == structure({}, environ, model=None).model
    assert None is structure({}, {"A_KEY": TEXT, "A_MODEL": " "}).model


def test_a_required_option_says_so_and_which_variable_would_do() -> None:
    with pytest.raises(BadOption, match=r"^acme: option 'model' is required$"):
        require({})
    with pytest.raises(BadOption, match=r"^acme: option 'model' is required \(or set B_MODEL or C_MODEL\)$"):
        require({}, {"model": ("B_MODEL", "C_MODEL")})
    assert "m" == require({}, {"model": ("B_MODEL", "A_MODEL")}).model


@frozen(kw_only=True)
class Strict(CommonOptions):
    key: Secret = option("The key.")
    tenant: str = option("Whose.", validator=validators.matches_re("[0-9]{9}"))
    mode: Literal["fast", "slow"] = option("How.")
    colour: Colour = option("Which.")
    size: int = option("How many.", validator=validators.ge(100))
    ratio: float = option("How much.")
    eager: bool = option("Whether.")
    tags: frozenset[Literal["a", "b"]] = option("Any of these.")
    odd: list[str] = option("Never structured.")


def strict(**written: str) -> Strict:
    return structure_options(Strict, written, {}, backend="acme", env={}, environ={}, complete=False)


def test_where_options_need_not_be_complete_a_value_of_its_type_stands_in_for_each_that_is_missing() -> None:
    stands = strict()

    assert ["any", "fast", Colour.RED, 1, 1.0, False, frozenset[str](), None] == [
        getattr(stands, name)
        for name in ("tenant", "mode", "colour", "size", "ratio", "eager", "tags", "odd")
    ]
    assert isinstance(stands.key, Secret)
    assert CommonOptions().timeout == stands.timeout


def test_what_is_given_is_checked_even_where_options_need_not_be_complete() -> None:
    assert ("123456789", 100) == ((right := strict(tenant="123456789", size="100")).tenant, right.size)
    with pytest.raises(BadOption, match="option 'tenant' = 'mine' must match"):
        strict(tenant="mine")
    with pytest.raises(BadOption, match="option 'size' = '99' must be >= 100"):
        strict(size="99")
    with pytest.raises(BadOption, match="option 'sizes' is unknown"):
        strict(sizes="99")


def test_options_that_need_not_be_complete_leave_validators_as_they_were() -> None:
    strict()

    with pytest.raises(ValueError, match="tenant"):
        Strict(
            key=Secret(TEXT), tenant="mine", mode="fast", colour=Colour.RED, size=100, ratio=1.0,
            eager=True, tags=frozenset(), odd=[],
        )  # fmt: skip


def test_options_that_do_not_go_together_are_a_config_error_of_the_backend() -> None:
    with pytest.raises(ConfigError, match=r"^acme: low is above high$") as caught:
        require({"model": "m", "low": "5"})
    assert_plain(caught.value)
    with pytest.raises(ConfigError, match=r"^low is below zero$"):
        require({"model": "m", "low": "-5"})


@pytest.mark.parametrize("error", [ValueError(), TypeError("is odd"), ValueError("'name' is odd: y", 1)])
def test_a_validator_of_the_adapters_may_say_what_it_likes(error: Exception) -> None:
    def refuse(_: object, __: object, value: object) -> None:
        if value == "y":
            raise error

    @frozen(kw_only=True)
    class Odd(CommonOptions):
        name: str = option("A name.", default="x", validator=refuse)

    with pytest.raises(BadOption, match=r"option 'name' = 'y' is (odd|not allowed)$"):
        structure_options(Odd, {"name": "y"}, {}, backend="acme", env={}, environ={})


def secret_of(
    written: Mapping[str, str], environ: Mapping[str, str] | None = None, /, **in_code: object
) -> str:
    return structure(written, environ, **in_code).key.reveal()


def test_a_secret_is_found_where_it_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"\n{TEXT} \n")
    environ = {"A_KEY": "a", "B_KEY": "b", "C_KEY": f" {TEXT}\n"}

    assert "a" == secret_of({}, environ)
    assert "b" == secret_of({}, {**environ, "A_KEY": ""})
    assert "b" == secret_of({}, {**environ, "A_KEY": " \n"})
    assert TEXT == secret_of({"key": "env:C_KEY"}, environ)
    assert TEXT == secret_of({"key": f"file:{path}"}, environ)
    assert TEXT == secret_of({"key": "env:A_KEY"}, environ, key=TEXT)
    assert TEXT == secret_of({}, {}, key=Secret(TEXT))
    assert TEXT == secret_of({}, environ, key="env:C_KEY")
    assert TEXT == secret_of({}, environ, key=f"file:{path}")


def test_what_a_default_variable_holds_is_the_secret_itself() -> None:
    assert "env:B_KEY" == secret_of({}, {"A_KEY": "env:B_KEY", "B_KEY": "b"})


def test_a_secret_that_may_be_absent_is_none() -> None:
    assert None is structure().session
    assert Secret("s") == structure(session="s").session


@pytest.mark.parametrize(
    ("written", "in_code", "looked_in"),
    [
        ({}, {}, ("A_KEY", "B_KEY")),
        ({"key": "env:C_KEY"}, {}, ("C_KEY",)),
        ({"key": "env:EMPTY"}, {}, ("EMPTY",)),
        ({"key": "file:/no/such/file"}, {}, ("file:/no/such/file",)),
        ({"key": "file:/"}, {}, ("file:/",)),
        ({"key": "file:/dev/null"}, {}, ("file:/dev/null",)),
        ({"key": "file:a\0b"}, {}, ("file:a\0b",)),
        ({}, {"key": "env:C_KEY"}, ("C_KEY",)),
        ({}, {"key": ""}, ("the value given",)),
        ({}, {"key": " \t"}, ("the value given",)),
        ({}, {"key": Secret(" ")}, ("the value given",)),
        ({"session": "env:C_KEY"}, {"key": TEXT}, ("C_KEY",)),
    ],
)
def test_a_missing_secret_says_where_it_was_looked_for(
    written: dict[str, str], in_code: dict[str, object], looked_in: tuple[str, ...]
) -> None:
    with pytest.raises(MissingSecret) as caught:
        structure(written, {"EMPTY": "\n"}, **in_code)

    assert_plain(caught.value)
    assert looked_in == caught.value.looked_in
    assert f"there is none in {' or '.join(looked_in)}".replace("\0", "\\x00") in str(caught.value)


@pytest.mark.parametrize("text", ["ключ-hunter2\ud83d", "hunter2\r\nX: y", "hunter2\0", "hunter2\x7f"])
def test_x4_a_secret_that_nothing_may_hold_is_refused_and_not_shown(text: str) -> None:
    for in_code in (text, Secret(text), "env:C_KEY"):
        with pytest.raises(BadOption, match="acme: option 'key' holds a character that no secret") as caught:
            structure({}, {"C_KEY": text}, key=in_code)
        assert_plain(caught.value)
        assert "hunter2" not in str(caught.value)
    assert "clé-ключ" == secret_of({}, {}, key="clé-ключ")


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_a_text_is_not_empty_unless_its_option_says_that_it_may_be(text: str) -> None:
    @frozen(kw_only=True)
    class Lenient(CommonOptions):
        reply: str | None = option("What to say.", default=None, empty=True)

    for written, in_code in (({"model": text}, {}), ({}, {"model": text})):
        with pytest.raises(BadOption, match=r"^acme: option 'model' is empty$"):
            structure(written, **in_code)
    lenient = structure_options(Lenient, {"reply": text}, {}, backend="acme", env={}, environ={})
    assert text == lenient.reply


def test_a_file_that_is_not_text_holds_no_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff")

    with pytest.raises(MissingSecret):
        structure({"key": f"file:{tmp_path / 'key'}"})


@pytest.mark.parametrize("name", ["key", "session"])
@pytest.mark.parametrize("value", [TEXT, "", "env:", f"env:{TEXT}", "ENV:A_KEY", "file:"])
def test_x4_a_secret_written_literally_is_refused_and_not_shown_whatever_its_option_is_called(
    name: str, value: str
) -> None:
    with pytest.raises(
        BadOption, match=f"is a secret: write {name}=env:NAME or {name}=file:PATH, or pass"
    ) as caught:
        structure({name: value})
    assert_plain(caught.value)


@pytest.mark.parametrize(
    "value", [TEXT.encode(), 5, ["hunter2"], f"env:{TEXT}", "env:", "file:", "file:sk-hunter2"]
)
def test_a_secret_given_in_code_that_is_neither_text_nor_a_reference_is_refused_and_not_shown(
    value: Any,
) -> None:
    with pytest.raises(BadOption, match=r"option 'key' (is not a secret|names nothing after)") as caught:
        structure(key=value)
    assert_plain(caught.value)


def test_x4_options_do_not_show_their_secrets_and_are_not_pickled() -> None:
    options = structure()

    assert "hunter2" not in repr(options)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(options)


def test_every_option_is_described_the_adapters_own_before_the_common_ones() -> None:
    @frozen(kw_only=True)
    class Described(CommonOptions):
        key: Secret = option("The key.")
        session: Secret | None = option("Another.", default=None)
        held: Secret = option("Held.", default=Secret(TEXT))
        model: str | None = option("Which one.", default=None)
        mode: Literal["fast", "slow"] = option("How.", default="fast")
        colour: Colour | None = option("Which.", default=Colour.RED)
        tags: frozenset[str] = option("Any words.", default=frozenset({"b", "a"}))
        limit: int = option("How many.", default=5)
        ratio: float = option("How much.", default=1234567.25)

    secret = "a secret: env:NAME or file:PATH"
    mine = [
        OptionInfo("key", secret, None, True, ("A_KEY", "B_KEY"), "The key."),
        OptionInfo("session", secret, None, False, ("A_SESSION",), "Another."),
        OptionInfo("held", secret, "***", False, (), "Held."),
        OptionInfo("model", "a text", None, False, ("A_MODEL",), "Which one."),
        OptionInfo("mode", "one of fast, slow", "fast", False, (), "How."),
        OptionInfo("colour", "one of red, blue", "red", False, (), "Which."),
        OptionInfo("tags", "a list, with commas, of texts", "a,b", False, (), "Any words."),
        OptionInfo("limit", "a whole number", "5", False, (), "How many."),
        OptionInfo("ratio", "a number", "1234567.25", False, (), "How much."),
    ]
    described = describe_options(Described, ENV)

    assert mine == list(described[: len(mine)])
    assert list(fields_dict(CommonOptions)) == [info.name for info in described[len(mine) :]]


def test_the_common_options_are_described_with_their_defaults() -> None:
    described = {info.name: (info.type, info.default) for info in describe_options(CommonOptions, {})}

    assert ("a number", "600") == described["timeout"]
    assert ("a whole number", "3") == described["attempts"]
    assert ("a list, with commas, of references, usage", None) == described["include"]
    assert ("true or false", "false") == described["insecure"]
    assert all(info.doc.endswith(".") for info in describe_options(CommonOptions, {}))

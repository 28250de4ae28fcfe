"""The tree of errors, and what each of them keeps."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import errors
from chatbridge.domain import Message, Reply, Started, TextDelta
from chatbridge.errors import (
    AnswerLost,
    Attempt,
    BadOption,
    ChatbridgeError,
    DeliveryUnknown,
    Facts,
    LiveBackendForbidden,
    MissingSecret,
    Outcome,
    Phase,
    StoreError,
    UnknownBackend,
    UnsupportedFeature,
    WrongBackend,
)

# Each class with its parents, its outcome, and whether it is retryable; a ...Timeout is timed_out.
TREE = """
ChatbridgeError         Exception                       not_sent  no
UsageError              ChatbridgeError ValueError      not_sent  no
ConfigError             UsageError                      not_sent  no
UnknownBackend          ConfigError                     not_sent  no
BadOption               ConfigError                     not_sent  no
MissingSecret           ConfigError                     not_sent  no
UnsettledTurn           UsageError                      not_sent  no
UnsupportedFeature      UsageError                      not_sent  no
LiveBackendForbidden    UsageError                      not_sent  no
NotSent                 ChatbridgeError                 not_sent  yes
NotSentTimeout          NotSent TimeoutError            not_sent  yes
ConnectFailed           NotSent                         not_sent  yes
ConnectFailedTimeout    ConnectFailed TimeoutError      not_sent  yes
Overloaded              NotSent                         not_sent  yes
OverloadedTimeout       Overloaded TimeoutError         not_sent  yes
Refused                 ChatbridgeError                 refused   no
AuthFailed              Refused                         refused   no
NotFound                Refused                         refused   no
Conflict                Refused                         refused   no
RequestRefused          Refused                         refused   no
RateLimited             Refused                         refused   yes
RedirectRefused         Refused                         refused   no
Unavailable             ChatbridgeError                 unknown   yes
UnavailableTimeout      Unavailable TimeoutError        unknown   yes
BadAnswer               ChatbridgeError                 accepted  yes
DeliveryUnknown         ChatbridgeError                 unknown   no
DeliveryUnknownTimeout  DeliveryUnknown TimeoutError    unknown   no
AnswerLost              ChatbridgeError                 accepted  no
AnswerLostTimeout       AnswerLost TimeoutError         accepted  no
StreamCut               AnswerLost                      accepted  no
StreamCutTimeout        StreamCut TimeoutError          accepted  no
ProviderFailed          AnswerLost                      accepted  no
StoreError              ChatbridgeError                 not_sent  no
WrongBackend            UsageError                      not_sent  no
"""
ROWS = {name: rest for name, *rest in map(str.split, TREE.strip().splitlines())}

# What every error knows, with what it is when nobody said.
KNOWN = {
    "provider": None,
    "operation": None,
    "phase": None,
    "attempts": (),
    "elapsed": None,
    "retry_after": None,
    "request_id": None,
    "client_id": None,
    "conversation_id": None,
    "status": None,
    "code": None,
    "url": None,
    "excerpt": None,
    "budget_exhausted": False,
    "from_api": False,
    "turn": None,
}

OWN: dict[str, dict[str, Any]] = {
    "UnknownBackend": {"name": "h2ogtpe", "installed": ["h2ogpte", "kaziro"]},
    "BadOption": {"backend": "kaziro", "option": "modl", "problem": "is unknown", "known": ["model"]},
    "MissingSecret": {"backend": "kaziro", "option": "key", "looked_in": ["KAZIRO_API_KEY"]},
    "UnsupportedFeature": {"backend": "kaziro", "feature": "rename", "instead": "nothing"},
    "LiveBackendForbidden": {"host": "example.com", "forbidden_by": "the test"},
    "StoreError": {"kind": "full"},
    "WrongBackend": {
        "conversation": "17",
        "provider": "kaziro",
        "backend": "kaziro at example.com",
        "kept_by": "mtmai",
    },
}
for _name in ROWS:
    if _name.startswith("DeliveryUnknown"):
        OWN[_name] = {"kind": "lost"}
    elif _name.startswith(("AnswerLost", "StreamCut", "ProviderFailed")):
        OWN[_name] = {"kind": "cut", "partial": "Kyo", "events": [Started("m1"), TextDelta("Kyo")]}


def class_of(name: str) -> type[ChatbridgeError]:
    cls: type[ChatbridgeError] = getattr(errors, name)
    return cls


def make(name: str, message: str = "boom", facts: Facts | None = None) -> ChatbridgeError:
    cls: Any = class_of(name)
    makes_its_own_message = issubclass(
        cls,
        UnknownBackend | BadOption | MissingSecret | UnsupportedFeature | LiveBackendForbidden | WrongBackend,
    )
    error: ChatbridgeError = cls(*([] if makes_its_own_message else [message]), **OWN.get(name, {}))
    return error.because(**facts or {})


def subclasses(cls: type[ChatbridgeError]) -> Iterator[type[ChatbridgeError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from subclasses(child)


NOT_TEXTS = {"phase", "attempts", "elapsed", "retry_after", "status", "budget_exhausted"}
texts = st.text(max_size=20)
numbers = st.floats(allow_nan=False)
attempts = st.builds(
    Attempt,
    number=st.integers(1, 9),
    phase=st.none() | st.sampled_from(Phase),
    status=st.none() | st.integers(100, 599),
    error=st.none() | texts,
    seconds=numbers,
    wait=st.none() | numbers,
)
facts_known = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(Phase),
        "attempts": st.lists(attempts, max_size=3).map(tuple),
        "elapsed": numbers,
        "retry_after": numbers,
        "status": st.integers(),
        "budget_exhausted": st.booleans(),
    }
    | dict.fromkeys(sorted(set(KNOWN) - NOT_TEXTS), texts),
)


def test_the_tree_has_the_classes_of_the_table_and_no_others() -> None:
    here = {cls.__name__ for cls in subclasses(ChatbridgeError) if cls.__module__ == errors.__name__}

    assert set(ROWS) == here
    assert here <= set(errors.__all__)


@pytest.mark.parametrize("name", ROWS)
def test_a_class_has_the_parents_and_the_meaning_of_the_table(name: str) -> None:
    *parents, outcome, retryable = ROWS[name]
    error = make(name)

    assert parents == [base.__name__ for base in type(error).__bases__]
    assert Outcome(outcome) is error.outcome
    assert (retryable == "yes") is error.retryable
    assert name.endswith("Timeout") is error.timed_out
    assert error.timed_out is isinstance(error, TimeoutError)


def test_the_facts_are_those_of_the_table() -> None:
    assert set(KNOWN) == set(Facts.__annotations__)


@pytest.mark.parametrize("name", ROWS)
def test_every_error_has_every_fact_also_when_nobody_said_it(name: str) -> None:
    error = make(name)
    given_by_its_class = {"provider"} if "backend" in OWN.get(name, {}) else set[str]()

    assert KNOWN == {fact: getattr(error, fact) for fact in KNOWN} | dict.fromkeys(given_by_its_class)


def test_facts_come_with_the_error_or_are_added_to_it() -> None:
    error = ChatbridgeError("boom", provider="kaziro", status=500)

    assert error is error.because(status=503, code="busy")
    assert ("kaziro", 503, "busy") == (error.provider, error.status, error.code)


@given(st.sampled_from(list(ROWS)), st.text(), facts_known)
def test_e3_an_error_survives_pickling_and_copying_with_all_it_knows(
    name: str, message: str, facts: Facts
) -> None:
    error = make(name, message, facts)
    error.add_note("seen on Monday")
    error.retryable = not error.retryable
    pickled = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]

    for twin in [*pickled, copy.copy(error), copy.deepcopy(error)]:
        assert type(error) is type(twin)
        assert vars(error) == vars(twin)
        assert (str(error), repr(error), error.args) == (str(twin), repr(twin), twin.args)
        assert facts.items() <= vars(twin).items()


@given(st.sampled_from(list(ROWS)), st.text(), facts_known)
def test_e3_the_text_of_an_error_is_one_line_of_printable_characters(
    name: str, message: str, facts: Facts
) -> None:
    error = make(name, message, facts)

    assert str(error).isprintable()
    assert repr(error).isprintable()


@given(st.text(), st.text())
def test_e3_so_is_the_text_of_an_error_that_makes_its_own(one: str, other: str) -> None:
    made = [
        UnknownBackend(name=one, installed=[other]),
        BadOption(option=one, problem=other, shown=one, known=[one, other], backend=other),
        MissingSecret(backend=one, option=other, looked_in=[one]),
        UnsupportedFeature(backend=one, feature=other, instead=one),
    ]

    assert all(str(error).isprintable() for error in made)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("café ☕ 東京", "café ☕ 東京"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202eevil\u2028", r"\u202eevil\u2028"),
        ("half \ud800", r"half \ud800"),
        ("", ""),
    ],
)
def test_e3_what_cannot_be_printed_is_escaped(message: str, shown: str) -> None:
    assert shown == str(ChatbridgeError(message))


SAY_WHERE = "say where it is with key=env:NAME or key=file:PATH, or pass connect(..., key=...)"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            UnknownBackend(name="kazirp", installed=["fake", "kaziro"]),
            "no chat backend named 'kazirp' is installed; did you mean 'kaziro'? (installed: fake, kaziro)",
        ),
        (
            UnknownBackend(name="x", installed=[]),
            "no chat backend named 'x' is installed (installed: none)",
        ),
        (
            BadOption(backend="kaziro", option="modl", problem="is unknown", known=["model", "key"]),
            "kaziro: option 'modl' is unknown; did you mean 'model'? (options: model, key)",
        ),
        (BadOption(option="a", problem="is given twice"), "option 'a' is given twice"),
        (BadOption(option="a", problem="is not a number", shown=""), "option 'a' = '' is not a number"),
        (
            MissingSecret(backend="kaziro", option="key", looked_in=["A_KEY", "B_KEY"]),
            f"kaziro needs a key, and there is none in A_KEY or B_KEY: set it there, or {SAY_WHERE}",
        ),
        (
            MissingSecret(backend="kaziro", option="key", looked_in=[]),
            f"kaziro needs a key: {SAY_WHERE}",
        ),
        (UnsupportedFeature(backend="kaziro", feature="rename"), "kaziro does not support rename"),
        (
            UnsupportedFeature(backend="kaziro", feature="rename", instead="keep a title"),
            "kaziro does not support rename; instead: keep a title",
        ),
    ],
)
def test_a_message_says_what_is_wrong_what_exists_and_what_to_do(error: ChatbridgeError, text: str) -> None:
    assert text == str(error)


def test_what_was_said_is_cut_to_a_length_that_fits_a_line() -> None:
    long = "x" * 10**6
    for error in (
        UnknownBackend(name=long, installed=["kaziro"]),
        BadOption(option=long, problem="is not a number", shown=long),
    ):
        assert len(str(error)) < 300
        assert "…" in str(error)


def test_a_lost_answer_keeps_what_arrived() -> None:
    error = AnswerLost("boom", kind="cut", partial="Kyo", events=[TextDelta("Kyo")], status=200)

    assert ("cut", "Kyo", (TextDelta("Kyo"),), 200) == (error.kind, error.partial, error.events, error.status)
    assert ("", ()) == (AnswerLost("boom", kind="idle").partial, AnswerLost("boom", kind="idle").events)


def test_an_unknown_delivery_says_what_happened() -> None:
    assert "lost" == DeliveryUnknown("boom", kind="lost").kind


def test_only_a_store_that_is_locked_is_worth_another_try() -> None:
    assert StoreError("boom", kind="locked").retryable
    assert not StoreError("boom", kind="full").retryable
    assert "failed" == StoreError("boom").kind


def test_m7_an_answer_that_could_not_be_stored_is_in_the_error() -> None:
    answer = Reply([Message.assistant("Ho")])
    error = StoreError("boom", kind="locked", reply=answer)

    assert answer is error.reply
    assert Outcome.OK is error.outcome
    assert not error.retryable  # The message would be sent again.
    assert answer == pickle.loads(pickle.dumps(error)).reply


def test_a_conversation_of_another_backend_says_whose_it_is() -> None:
    error = WrongBackend(
        conversation="17", provider="kaziro", backend="kaziro at example.com", kept_by="mtmai"
    )

    assert ("kaziro", "kaziro at example.com", "mtmai") == (error.provider, error.backend, error.kept_by)
    assert "the conversation '17' is kept by mtmai" in str(error)


def test_an_attempt_cannot_be_changed() -> None:
    attempt: Any = Attempt(1, Phase.DNS, None, "no such host", 0.1)

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        attempt.number = 2


@pytest.mark.parametrize(("name", "form"), [("http", "BACKEND+http://HOST"), ("https", "BACKEND://HOST")])
def test_a_bare_address_is_told_where_the_backends_name_goes(name: str, form: str) -> None:
    assert form in str(errors.UnknownBackend(name=name, installed=["fake"]))

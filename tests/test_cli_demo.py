"""The demo: one conversation over every backend, and that it notices what does not work."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from attrs import evolve
from click.testing import Result as Ran

from chatbridge.backend import ContextOwner, Feature, Support
from chatbridge.cli import demo
from chatbridge.cli.demo import Check
from chatbridge.cli.output import Output
from chatbridge.cli.rules import FEATURES, summary
from chatbridge.cli.stage import Stage, perform, results
from chatbridge.domain import (
    Conversation,
    Finished,
    Message,
    Reply,
    SendOptions,
    StreamEvent,
    Text,
    TextDelta,
)
from chatbridge.errors import NotFound
from chatbridge.registry import backend_names, load_adapter
from chatbridge.testing import answers, fake, memory
from chatbridge.testing.contract import ChatBackendContract, Result
from chatbridge.testing.emulator import Emulator, Fault
from chatbridge.testing.fake import FakeBackend
from cli_kit import check, install, run


def cells(result: Ran) -> dict[str, list[str]]:
    """Read the tables at the end, which stand side by side as far as they fit: each row by its name."""
    table = result.stdout[result.stdout.index("\n backend ") :]
    rows: dict[str, list[str]] = {}
    for line in table.splitlines():
        if line.startswith(" "):
            name, *found = re.split(r" {2,}", line.strip())
            rows.setdefault(name, []).extend(found)
    return rows


PLAYERS = [name for name in backend_names() if name != "replay"]
"""Who takes part: all but the one that plays what others recorded."""


@pytest.fixture(scope="module")
def shown() -> Ran:
    """Show every backend, once for all who look."""
    return check(0, run("demo"))


def test_the_demo_holds_the_conversation_over_every_backend(shown: Ran) -> None:
    assert "" == shown.stderr
    table = cells(shown)
    assert PLAYERS == table["backend"]
    assert ["3"] * len(PLAYERS) == table["turns"]
    assert {feature.value for feature in Feature} < set(table)
    for name, *values in zip(table["backend"], *(table[feature.value] for feature in Feature), strict=True):
        assert set(values) <= {"native", "native +", "emulated", "emulated +", "unsupported"}
        assert f"\n{name}: " in shown.stdout
    assert "!" not in "".join(map("".join, table.values()))


def test_all_that_is_claimed_is_tried(shown: Ran) -> None:
    table = cells(shown)
    untold = table["reasoning"].pop(table["backend"].index("openai"))
    assert "native" == untold  # OpenAI's own server shows none, though others that are compatible do.
    marks = {cell for feature in Feature for cell in table[feature.value]}
    assert {"native +", "emulated +", "unsupported"} == marks
    fakes = table["backend"].index("fake")
    assert {"native +"} == {table[feature.value][fakes] for feature in Feature}


def test_how_many_rules_of_the_contract_are_kept_is_said(shown: Ran) -> None:
    rules = len(ChatBackendContract.checks())
    kept = re.findall(r"^contract    (.*)$", shown.stdout, re.MULTILINE)
    expected = dict.fromkeys(PLAYERS, f"{rules} rules kept")
    # The fake has neither a key nor connections, and the others cannot be read back.
    expected["fake"] = f"{rules - 2} rules kept, 2 do not apply: cancelling closes, secrets"
    late = f"{rules - 1} rules kept, 1 does not apply: late arrival"
    expected |= dict.fromkeys(("anthropic", "kaziro", "mtmai"), late)
    expected["openai"] = f"{rules - 2} rules kept, 2 do not apply: reasoning, late arrival"
    assert list(expected.values()) == kept


def test_each_feature_has_a_rule_and_no_rule_is_made_up() -> None:
    assert set(Feature) == set(FEATURES.values())
    assert set(FEATURES) <= set(ChatBackendContract.checks())


def test_the_rules_are_counted() -> None:
    kept, broken, skipped = (
        Result("a", "A."),
        Result("b", "B.", problem="no"),
        Result("check_odd_case", "C.", skipped="why"),
    )
    assert "1 rules kept" == summary([kept])
    assert "2 rules kept, 1 broken, 1 does not apply: odd case" == summary([kept, broken, kept, skipped])
    assert "0 rules kept, 2 do not apply: odd case, odd case" == summary([skipped, skipped])


def test_the_dialogue_is_shown_with_its_words_wrapped_to_the_width(shown: Ran) -> None:
    lines = shown.stdout.splitlines()
    assert "you         When do the maples turn?" in lines
    assert "fake        Turn 2: you said 'And the crowds?'. Before that you said 'When do" in lines
    assert "            the maples turn?'." in lines
    assert 80 >= max(map(len, lines))


def test_what_an_api_does_not_tell_is_said(shown: Ran) -> None:
    assert re.search(r"^usage .* tokens; the streamed answer does not tell it$", shown.stdout, re.MULTILINE)


def test_for_a_person_there_is_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, fake="chatbridge.testing.fake:ADAPTER")
    assert "\x1b[" in check(0, run("demo", output=Output(terminal=True))).stdout


def test_a_broken_backend_makes_it_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        monkeypatch,
        fake="chatbridge.testing.fake:ADAPTER",
        broken="no_such_module:ADAPTER",
        odd="cli_kit:ODD",
    )
    result = check(1, run("demo"))
    assert ["fake"] == cells(result)["backend"]
    assert (
        "chatbridge: broken is broken: the backend 'broken' is installed and cannot be loaded"
        in result.stderr
    )


# What does not work is noticed, and blamed on the feature that claims it.

Sabotage = Callable[[Emulator], object]


def refuse(operation: str, times: int = 9) -> Sabotage:
    return lambda emulator: emulator.fail(Fault(status=400, error="no"), operation=operation, times=times)


def forget(emulator: Emulator) -> None:
    emulator.responder = lambda said, _: f"You said {said!r}."


def mumble(emulator: Emulator) -> None:
    emulator.responder = lambda _, __: "Hm."


@pytest.mark.parametrize(
    ("sabotage", "features"),
    [
        (forget, {Feature.SEND, Feature.STREAM}),
        (mumble, {Feature.SEND, Feature.STREAM}),
        (refuse("get_completion", times=1), {Feature.SEND}),
        (refuse("get_message_references"), {Feature.REFERENCES}),
        (refuse("get_message_meta"), {Feature.USAGE}),
        (refuse("list_chat_sessions"), {Feature.LIST}),
        (refuse("get_chat_session_messages"), {Feature.HISTORY}),
        (refuse("delete_chat_session"), {Feature.DELETE}),
        (refuse("get_chat_session"), {Feature.GET, Feature.TITLE, Feature.RENAME, Feature.DELETE}),
    ],
)
def test_a_sabotaged_emulator_is_noticed(
    sabotage: Sabotage,
    features: set[Feature],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def prepare(emulator: Emulator) -> None:
        sabotage(emulator)

    install(monkeypatch, h2ogpte="chatbridge_adapters.h2ogpte:ADAPTER")
    assert False is asyncio.run(perform(Output(), prepare))
    out, err = capsys.readouterr()
    blamed = re.findall(r"^chatbridge: h2ogpte claims (\w+), which did not work: ", err, re.MULTILINE)
    broken = re.findall(r"^chatbridge: h2ogpte breaks a rule of the contract: ", err, re.MULTILINE)
    assert features <= {Feature(name) for name in blamed}
    assert len(blamed) + len(broken) == err.count("\n")
    assert all(f"\n{feature.value:<11} FAILED: " in out for feature in features)
    assert len(blamed) == len(re.findall(r"(native|emulated) !", out))


def replaced(method: str, *, by: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setattr(FakeBackend, method, by)


async def nothing(*_: object, **__: object) -> AsyncIterator[Any]:
    return
    yield


async def unchanged(self: FakeBackend, conversation_id: str, *_: object) -> Conversation:
    return await self.get_conversation(conversation_id)


async def pretend(self: FakeBackend, conversation_id: str, title: str) -> Conversation:
    return evolve(await self.get_conversation(conversation_id), title=title)


async def keep(*_: object) -> None:
    pass


async def another(*_: object) -> Conversation:
    return Conversation("another")


async def not_there(*_: object, **__: object) -> Conversation:
    raise NotFound("there is no such thing")


async def crash(*_: object, **__: object) -> Conversation:
    raise LookupError("a bug")


answer = FakeBackend.send


async def bare(self: FakeBackend, conversation_id: str, message: Message, options: Any) -> Reply:
    reply = await answer(self, conversation_id, message, options)
    return evolve(reply, usage=None, messages=[evolve(reply.message, references=())])


async def short(
    self: FakeBackend, conversation_id: str, message: Message, options: Any
) -> AsyncGenerator[StreamEvent, None]:
    reply = await answer(self, conversation_id, message, options)
    yield TextDelta(reply.text[:-1])
    yield Finished(reply)


create = FakeBackend.create_conversation


async def bare_conversation(
    self: FakeBackend, *, title: str | None = None, extra: Mapping[str, Any] | None = None, **_: object
) -> Conversation:
    return await create(self, title=title, extra=extra)


async def plain_only(
    self: FakeBackend, conversation_id: str, message: Message, options: SendOptions
) -> Reply:
    if options.tools or options.extra or any(not isinstance(part, Text) for part in message.parts):
        raise RuntimeError("a bug")
    return await answer(self, conversation_id, message, options)


@pytest.mark.parametrize(
    ("sabotage", "blamed"),
    [
        (replaced("create_conversation", by=not_there), "create"),
        (replaced("create_conversation", by=crash), "create"),
        (replaced("send", by=bare), "usage"),
        (replaced("send", by=bare), "references"),
        (replaced("stream", by=short), "stream"),
        (replaced("list_conversations", by=nothing), "list"),
        (replaced("list_messages", by=nothing), "history"),
        (replaced("rename_conversation", by=unchanged), "rename"),
        (replaced("rename_conversation", by=pretend), "rename"),
        (replaced("get_conversation", by=another), "get"),
        (replaced("get_conversation", by=another), "title"),
        (replaced("get_conversation", by=not_there), "get"),
        (replaced("delete_conversation", by=keep), "delete"),
        (replaced("create_conversation", by=bare_conversation), "system"),
        (replaced("create_conversation", by=bare_conversation), "history_seed"),
        (replaced("send", by=plain_only), "tools"),
        (replaced("send", by=plain_only), "attachments"),
        (replaced("send", by=plain_only), "reasoning"),
    ],
)
def test_a_claim_that_does_not_hold_is_noticed(
    sabotage: Callable[[pytest.MonkeyPatch], None], blamed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, fake="chatbridge.testing.fake:ADAPTER")
    sabotage(monkeypatch)
    result = check(1, run("demo"))
    assert ["native !"] == cells(result)[blamed]
    assert f"chatbridge: fake claims {blamed}, which did not work: " in result.stderr


def pass_over(*_: object) -> None:
    """Find nothing wrong."""


EXTRA_RULE = "Refuse an `extra` that no API has, by name and before any I/O"


def test_a_broken_rule_that_belongs_to_no_claim_makes_it_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """It rejects an unknown `extra` late, and does what it does not claim."""
    install(monkeypatch, fake="chatbridge.testing.fake:ADAPTER")
    monkeypatch.setattr(memory, "check_extra", pass_over)
    monkeypatch.setattr(FakeBackend, "_need", pass_over)
    monkeypatch.setattr(fake, "PROFILE", fake.PROFILE.with_features({Feature.DELETE: Support.UNSUPPORTED}))
    result = check(1, run("demo"))
    broken = re.findall(
        r"^chatbridge: fake breaks a rule of the contract: (.*?)\. ", result.stderr, re.MULTILINE
    )
    assert ["Neither list nor find a deleted conversation, and touch no other", EXTRA_RULE] == sorted(broken)
    assert 2 == result.stderr.count("\n")
    assert "unsupported" == cells(result)["delete"][0]
    assert 2 == result.stdout.count("\ncontract    FAILED: ")


def test_without_a_conversation_nothing_that_is_claimed_counts_as_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, fake="chatbridge.testing.fake:ADAPTER")
    monkeypatch.setattr(FakeBackend, "create_conversation", crash)
    result = check(1, run("demo"))
    assert "chatbridge: fake claims create, which did not work: LookupError: a bug\n" in result.stderr
    assert ["0"] == cells(result)["turns"]
    assert not any("+" in cell for row in cells(result).values() for cell in row)


METHODS = {
    Feature.GET: "get_conversation",
    Feature.HISTORY: "list_messages",
    Feature.LIST: "list_conversations",
    Feature.STREAM: "stream",
}


def refusal(feature: Feature) -> Callable[..., Awaitable[None]]:
    async def refuse_it(*_: object, **__: object) -> None:
        raise fake.PROFILE.unsupported(feature)

    return refuse_it


@pytest.mark.parametrize(
    ("unsupported", "rows"),
    [
        ({Feature.GET}, {"title": "native +", "rename": "native +", "delete": "native +"}),
        ({Feature.GET, Feature.HISTORY}, {"delete": "native +", "list": "native +"}),
        ({Feature.GET, Feature.HISTORY, Feature.LIST}, {"delete": "native +"}),
        ({Feature.STREAM}, {"send": "native +", "stream": "emulated +"}),
    ],
)
def test_what_is_not_claimed_is_not_needed(
    unsupported: set[Feature], rows: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, fake="chatbridge.testing.fake:ADAPTER")
    lacking = fake.PROFILE.with_features(dict.fromkeys(unsupported, Support.UNSUPPORTED))
    monkeypatch.setattr(fake, "PROFILE", evolve(lacking, settle_by=()))
    for feature in unsupported:
        monkeypatch.setattr(FakeBackend, METHODS[feature], refusal(feature))
    table = cells(check(0, run("demo")))
    assert rows == {name: table[name][0] for name in rows}


def test_a_deletion_that_only_the_history_or_the_list_can_show_is_checked_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, fake="chatbridge.testing.fake:ADAPTER")
    monkeypatch.setattr(FakeBackend, "delete_conversation", keep)
    for gone in ({Feature.GET}, {Feature.GET, Feature.HISTORY}):
        lacking = fake.PROFILE.with_features(dict.fromkeys(gone, Support.UNSUPPORTED))
        monkeypatch.setattr(fake, "PROFILE", lacking)
        assert ["native !"] == cells(check(1, run("demo")))["delete"]


def test_where_nobody_keeps_the_context_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, fake="chatbridge.testing.fake:ADAPTER")

    def forgetful(said: str, _: object) -> str:
        return f"You said {said!r}."

    monkeypatch.setattr(answers, "respond", forgetful)
    assert 1 == run("demo").exit_code
    monkeypatch.setattr(fake, "PROFILE", evolve(fake.PROFILE, context=ContextOwner.NONE))
    check(0, run("demo"))


def test_only_what_needs_no_server_of_somebodys_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name in backend_names() if not demo.takes_part(load_adapter(name))] == ["replay"]
    install(monkeypatch, odd="cli_kit:ODD")
    assert not demo.takes_part(load_adapter("odd"))


# How it looks


def test_more_backends_than_fit_side_by_side_make_more_tables(capsys: pytest.CaptureFixture[str]) -> None:
    results([Check(f"backend-{number}", fake.PROFILE) for number in range(7)], Output())
    out = capsys.readouterr().out
    assert 2 == out.count("\n backend ")
    assert all(f" backend-{number} " in out.replace("\n", " ") for number in range(7))
    assert 80 >= max(map(len, out.splitlines()))


def test_what_an_answer_says_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage(Output())
    stage.begins("fake", "here")
    stage.answers("a\x1b[31m\n" + "b" * 100)
    stage.answered()
    stage.answered()
    assert ["", "fake: here", "fake        a\\x1b[31m\\n" + "b" * 100] == [
        line.rstrip(" ─") for line in capsys.readouterr().out.splitlines()
    ]

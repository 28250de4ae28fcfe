"""The contract: kept by every backend of ours, and broken by backends that are broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from unittest import SkipTest

import pytest
from attrs import evolve

import broken_backends
import heavy_backend
from chatbridge import (
    Bridge,
    Chat,
    Feature,
    Finished,
    Message,
    PartAdded,
    Profile,
    Reasoning,
    ReasoningDelta,
    Reply,
    Reset,
    SendOptions,
    StreamEvent,
    Support,
    Text,
    TextDelta,
    UsageError,
)
from chatbridge.backend import ContextOwner, SettleBy, Stores
from chatbridge.config import BackendURL
from chatbridge.errors import NotSent
from chatbridge.http import Kind
from chatbridge.registry import declared_profile
from chatbridge.testing.answers import by_rule
from chatbridge.testing.checking import expect, expect_refused, fold, what_raises
from chatbridge.testing.contract import (
    Ask,
    ChatBackendContract,
    EmulatorContract,
    NotApplicable,
    Opened,
    Result,
    check_backend,
)
from chatbridge.testing.emulator import Emulator, Fault, serve
from chatbridge.testing.fake import FakeBackend
from chatbridge.testing.memory import COMPLETIONS
from chatbridge_adapters.h2ogpte import H2OGPTeBackend
from chatbridge_adapters.h2ogpte import wire as h2ogpte_wire
from chatbridge_adapters.kaziro import KaziroBackend
from chatbridge_adapters.kaziro import backend as kaziro_backend
from chatbridge_adapters.kaziro.emulator import KaziroEmulator
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator


def briefly(messages: Sequence[Message]) -> str:
    """Answer by rule, but say nothing when asked to."""
    return "" if messages[-1].text == "Say nothing." else by_rule(messages)


class FakeContract(ChatBackendContract):
    """The contract for the fake, which shortens answers and reasons as told, and fails as planned."""

    MANY = 12
    like: Profile | None = None
    make: type[FakeBackend] = FakeBackend

    def open_backend(self) -> Opened:
        fake = self.make(profile=self.like, answers=briefly)
        self.emulator = fake
        return fake.bridge()

    def ask_for_nothing(self) -> Ask:
        return Ask("Say nothing.")

    def ask_to_reason(self) -> Ask:
        return Ask("Think.", SendOptions(extra={"reasoning": True}))


def fake_like(name: str) -> type[FakeContract]:
    """Make the contract for the fake with the profile of another backend."""
    profile = declared_profile(BackendURL.parse(name))
    return type(f"FakeLike_{name}", (FakeContract,), {"like": profile})


class CompletionContract(FakeContract):
    """The fake as an API that keeps nothing."""

    like = COMPLETIONS


class KaziroContract(EmulatorContract):
    backend = "kaziro"


class DatamonkeyContract(EmulatorContract):
    backend = "datamonkey"


class DatamonkeySessionContract(DatamonkeyContract):
    """The bridge is given no token; until the first creation there is no session to find anything in."""

    options: ClassVar[Mapping[str, Any]] = {"key": None}

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[Bridge]:
        async with super().served() as bridge:
            await bridge.create()
            yield bridge


class TachyonContract(EmulatorContract):
    backend = "tachyon"


class TachyonChunkContract(TachyonContract):
    """Whole answers have the form of a chunk, which tells no usage."""

    MANY = 12
    settings: ClassVar[Mapping[str, Any]] = {"chunk_shaped": True, "errors": "v1"}

    async def check_usage(self) -> None:
        """Tell no usage."""
        raise NotApplicable("the form of a chunk tells no usage")


class TachyonAgentContract(TachyonContract):
    options: ClassVar[Mapping[str, Any]] = {"mode": "agent"}


class TachyonBareAgentContract(TachyonAgentContract):
    MANY = 12
    settings: ClassVar[Mapping[str, Any]] = {"bare_done": True, "errors": "v1"}


class H2OGPTeContract(EmulatorContract):
    backend = "h2ogpte"

    def about_documents(self) -> Mapping[str, Any]:
        return {"collection_id": "maples"}


class MtmaiContract(EmulatorContract):
    backend = "mtmai"


class MtmaiWholeContract(MtmaiContract):
    """The team's model does not stream."""

    MANY = 12
    settings: ClassVar[Mapping[str, Any]] = {"streaming": False}


class MtmaiTeamlessContract(MtmaiContract):
    """No team is named, so nothing can be sent."""

    class Teamless(MtmaiEmulator):
        @property
        def options(self) -> dict[str, str]:
            return {"tenant": self.tenant}

    def new_emulator(self) -> Emulator:
        return self.Teamless()


class OpenAIContract(EmulatorContract):
    """OpenAI itself, which shows no reasoning."""

    backend = "openai"


class OpenAICompatibleContract(OpenAIContract):
    """A server of one's own, which does."""

    settings: ClassVar[Mapping[str, Any]] = {"mode": "vllm", "thinks": True}


class AnthropicContract(EmulatorContract):
    backend = "anthropic"


CONTRACTS: tuple[type[ChatBackendContract], ...] = (
    FakeContract,
    CompletionContract,
    KaziroContract,
    DatamonkeyContract,
    DatamonkeySessionContract,
    TachyonContract,
    TachyonChunkContract,
    TachyonAgentContract,
    TachyonBareAgentContract,
    H2OGPTeContract,
    MtmaiContract,
    MtmaiWholeContract,
    MtmaiTeamlessContract,
    OpenAIContract,
    OpenAICompatibleContract,
    AnthropicContract,
    *(
        fake_like(f"{name}:")
        for name in ("kaziro", "datamonkey", "tachyon", "h2ogpte", "mtmai", "openai", "anthropic")
    ),
    fake_like("tachyon:?mode=agent"),
    fake_like("mtmai:?team=t"),
)
WITHOUT_ANSWERS = {
    f"check_{name}"
    for name in (
        "create", "title", "get", "list", "rename", "delete", "send", "profile", "paging", "nothing_left",
        "import", "secrets", "errors",
    )
}  # fmt: skip
"""Rules that have something to say of a backend that answers no messages."""
MUTE = "it answers no messages"
SKIPPED: dict[str, type[ChatBackendContract] | tuple[type[ChatBackendContract], ...]] = {
    "there are no connections to count": FakeContract,
    "it was opened without a secret that is long enough to be looked for": (
        FakeContract,
        DatamonkeySessionContract,
    ),
    "nothing can be read back": ChatBackendContract,
    MUTE: ChatBackendContract,
    "the form of a chunk tells no usage": TachyonChunkContract,
    "nothing is known that makes it show its reasoning": OpenAIContract,
}
"""Why a rule may have nothing to say, and of which contracts."""


@pytest.mark.parametrize("check", ChatBackendContract.checks())
@pytest.mark.parametrize("contract", CONTRACTS)
async def test_every_backend_keeps_every_rule(
    contract: type[ChatBackendContract], check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATAMONKEY_SESSION_TOKEN", raising=False)
    try:
        await getattr(contract(), check)()
    except NotApplicable as refused:
        reason = str(refused)
    else:
        return
    assert issubclass(contract, SKIPPED[reason])
    assert reason != MUTE or check not in WITHOUT_ANSWERS
    pytest.skip(reason)


@pytest.mark.parametrize(
    ("backend", "check"),
    [
        (broken_backends.DropsTheLastEvent, "check_stream"),
        (broken_backends.FinishesTwice, "check_stream"),
        (broken_backends.GoesOnAfterTheEnd, "check_stream"),
        (broken_backends.RepeatsThePieces, "check_stream"),
        (broken_backends.SaysAnotherThingWhenStreaming, "check_stream_equals_send"),
        (broken_backends.ClaimsMore, "check_history"),
        (broken_backends.ClaimsLess, "check_rename"),
        (broken_backends.ClaimsNoTitle, "check_title"),
        (broken_backends.ClaimsNoReasoning, "check_reasoning"),
        (broken_backends.ClaimsNoTools, "check_tools"),
        (broken_backends.RefusesLate, "check_delete"),
        (broken_backends.RefusesSomethingElse, "check_delete"),
        (broken_backends.TurnsTheHistoryAround, "check_history"),
        (broken_backends.IgnoresTheLimit, "check_history"),
        (broken_backends.SendsTwice, "check_history"),
        (broken_backends.SendsTwice, "check_order"),
        (broken_backends.ForgetsTheRenaming, "check_rename"),
        (broken_backends.ForgetsTheTitle, "check_title"),
        (broken_backends.SpeaksAsTheUser, "check_history"),
        (broken_backends.FindsEverything, "check_unknown_conversation"),
        (broken_backends.FindsEverything, "check_delete"),
        (broken_backends.DeletesNothing, "check_delete"),
        (broken_backends.DeletesAll, "check_delete"),
        (broken_backends.ListsTwice, "check_list"),
        (broken_backends.HasOneConversation, "check_create"),
        (broken_backends.HasOneConversation, "check_context"),
        (broken_backends.Normalizes, "check_text"),
        (broken_backends.Shortens, "check_long_text"),
        (broken_backends.Forgets, "check_context"),
        (broken_backends.CannotBeCancelled, "check_cancelling"),
        (broken_backends.TakesAnyExtra, "check_unknown_extra"),
        (broken_backends.SaysWhatOthersSaid, "check_roles"),
        (broken_backends.RaisesSomethingForeign, "check_unknown_conversation"),
        (broken_backends.RaisesWhatCannotBePickled, "check_errors"),
        (broken_backends.HasNoReferences, "check_references"),
        (broken_backends.CountsNothing, "check_usage"),
        (broken_backends.SaysNothing, "check_empty_answer"),
        (broken_backends.AnswersByNumber, "check_conversations_at_once"),
        (broken_backends.DropsFiles, "check_attachments"),
        (broken_backends.LosesTheSeed, "check_history_seed"),
        (broken_backends.ProfileOfNothingKnown, "check_profile"),
        (broken_backends.SendsHalves, "check_half_characters"),
        (broken_backends.StoresWhatItSaysItDoesNot, "check_history"),
        (broken_backends.WarnsOfEveryCreation, "check_create"),
        (broken_backends.RenamesIntoAnother, "check_rename"),
        (broken_backends.ReadsOnBehindAnything, "check_history"),
        (broken_backends.NamesEveryMessageAlike, "check_history"),
        (broken_backends.TurnsBeforeItReadsOn, "check_history"),
        (broken_backends.TitlesWithHalves, "check_half_characters"),
        (broken_backends.RenamesWithHalves, "check_half_characters"),
        (broken_backends.StreamsUncounted, "check_usage"),
        (broken_backends.ListsOnePage, "check_paging"),
        (broken_backends.SkipsBetweenPages, "check_paging"),
        (broken_backends.SaysThatWhatIsLostWasNotSent, "check_failures"),
        (broken_backends.SaysThatWhatIsLostWasNotSent, "check_doubt"),
        (broken_backends.RepeatsWhatIsLost, "check_lost_answers"),
        (broken_backends.CreatesAgainWhatIsLost, "check_lost_answers"),
        (broken_backends.TakesAFailureForARefusal, "check_failures"),
        (broken_backends.RaisesSomethingForeignOfFailures, "check_failures"),
        (broken_backends.SaysThatEverythingMayBeRepeated, "check_failures"),
        (broken_backends.TakesAbsenceForProof, "check_late_arrival"),
        (broken_backends.SettlesWhatItCannotSee, "check_doubt"),
        (broken_backends.LeavesATask, "check_nothing_left"),
        (broken_backends.LeavesASocket, "check_nothing_left"),
        (broken_backends.LeaksItsKey, "check_secrets"),
        (broken_backends.LogsItsKey, "check_secrets"),
        (heavy_backend.Heavy, "check_import"),
        (broken_backends.ResendsWhatAGatewayLost, "check_failures"),
        (broken_backends.InventsAnswers, "check_failures"),
        (broken_backends.ForgetsTheStatus, "check_failures"),
        (broken_backends.LeaksItsKeyInMessages, "check_secrets"),
        (broken_backends.LogsItsKeyElsewhere, "check_secrets"),
        (broken_backends.PagesOnlyForward, "check_paging"),
        (broken_backends.RenamesAll, "check_rename"),
        (broken_backends.StreamDropsFiles, "check_attachments"),
        (broken_backends.StreamDropsTools, "check_tools"),
        (broken_backends.StreamShortens, "check_long_text"),
        (broken_backends.KeepsConnections, "check_nothing_left"),
    ],
)
async def test_a_broken_backend_is_found_by_the_rule_meant_for_it(
    backend: type[broken_backends.Broken], check: str
) -> None:
    class Contract(FakeContract):
        MANY = 110
        make = backend

    with pytest.raises(AssertionError) as broken:
        await getattr(Contract(), check)()
    assert str(broken.value)


@pytest.mark.parametrize(
    ("backend", "check"),
    [
        (broken_backends.TellsTheLastThree, "check_prompt"),
        (broken_backends.TellsTheLastFirst, "check_prompt"),
        (broken_backends.TellsNoSystemPrompt, "check_prompt"),
        (broken_backends.TellsNothingOfTheSystem, "check_prompt"),
        (broken_backends.TellsNoTemperature, "check_prompt"),
        (broken_backends.TellsNoForm, "check_prompt"),
        (broken_backends.CompletesTwice, "check_prompt"),
        (broken_backends.TellsNoLimit, "check_finish_reason"),
        (broken_backends.TellsNoStop, "check_finish_reason"),
        (broken_backends.IsAlwaysDone, "check_finish_reason"),
        (broken_backends.TellsNoCalls, "check_tools"),
    ],
)
async def test_a_broken_backend_that_keeps_nothing_is_found_by_the_rule_meant_for_it(
    backend: type[broken_backends.Broken], check: str
) -> None:
    class Contract(CompletionContract):
        make = backend

    with pytest.raises(AssertionError) as broken:
        await getattr(Contract(), check)()
    assert str(broken.value)


@pytest.mark.parametrize(
    ("backend", "check"),
    [
        (broken_backends.TellsTheLastThree, "check_prompt"),
        (broken_backends.IsAlwaysDone, "check_finish_reason"),
    ],
)
async def test_some_are_found_by_no_other_rule(backend: type[broken_backends.Broken], check: str) -> None:
    class Contract(CompletionContract):
        make = backend

    assert [check] == [result.check for result in await Contract().run() if result.problem]


async def test_an_option_without_a_sample_is_not_tried() -> None:
    class Contract(CompletionContract):
        make = broken_backends.TellsNoTemperature
        SAMPLES: Mapping[str, Any] = {**ChatBackendContract.SAMPLES, "temperature": None}

    await Contract().check("check_prompt")


async def test_what_an_api_is_told_is_not_checked_where_it_cannot_be_seen() -> None:
    class Silent:
        """It shows nothing of what it hears."""

        writes = 0

        def fail(self, fault: Fault) -> None:
            raise AssertionError(f"{fault} is planned where nothing can be seen")

    class Contract(CompletionContract):
        def open_backend(self) -> Opened:
            opened = super().open_backend()
            self.emulator = Silent()
            return opened

    with pytest.raises(NotApplicable, match="what the API is told cannot be seen"):
        await Contract().check("check_prompt")


async def test_a_fake_with_a_key_shows_it_nowhere() -> None:
    class Contract(FakeContract):
        make = broken_backends.Keyed

    await Contract().check("check_secrets")


async def test_tests_and_marks_of_the_subclass_stay() -> None:
    class Contract(FakeContract):
        def test_title(self) -> str:
            return "my own"

        @pytest.mark.timeout(5)
        async def check_delete(self) -> None:
            """Do as you like."""

    contract: Any = Contract()
    assert "my own" == contract.test_title()
    assert ["timeout"] == [mark.name for mark in contract.test_delete.pytestmark]


async def test_a_fault_does_not_outlive_its_rule() -> None:
    emulator = KaziroEmulator()
    async with serve(emulator) as at:

        class Contract(ChatBackendContract):
            def open_backend(self) -> Opened:
                return at.connect()

        contract = Contract()
        contract.emulator = emulator
        emulator.fail(Fault(status=500))
        await contract.check("check_create")


@pytest.mark.parametrize("kind", [Kind.READ, Kind.WRITE])
@pytest.mark.parametrize("name", ["CREATE_SESSION", "COMPLETE", "STREAM"])
async def test_an_adapter_that_doubles_messages_or_creations_is_found(
    name: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h2ogpte_wire, name, evolve(getattr(h2ogpte_wire, name), kind=kind))
    with pytest.raises(AssertionError, match=r"lost must raise|went out"):
        await H2OGPTeContract().check_lost_answers()


@pytest.mark.parametrize("check", ["check_lost_answers", "check_doubt"])
async def test_an_adapter_that_cannot_be_read_back_though_it_says_so_is_found(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = evolve(kaziro_backend.PROFILE, settle_by={SettleBy.READ_BACK})
    monkeypatch.setattr(kaziro_backend, "PROFILE", claims)
    with pytest.raises(AssertionError):
        await getattr(KaziroContract(), check)()


async def test_an_adapter_whose_history_has_what_was_never_sent_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def invented(*_: object, **__: object) -> AsyncIterator[Message]:
        yield Message.user("Lost")
        yield Message.assistant("Found")

    monkeypatch.setattr(H2OGPTeBackend, "list_messages", invented)
    with pytest.raises(AssertionError, match="what settling finds"):
        await H2OGPTeContract().check_doubt()


async def test_an_adapter_that_says_of_a_lost_message_that_it_was_not_sent_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lost(*_: object) -> Reply:
        raise NotSent("it was not sent")

    monkeypatch.setattr(KaziroBackend, "send", lost)
    with pytest.raises(AssertionError, match="went out"):
        await KaziroContract().check_doubt()


class Breathing(FakeBackend):
    """A fake that takes its time; no rule may depend on its answering at once."""

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        reply = await super().send(conversation_id, message, options)
        for _ in range(3):
            await asyncio.sleep(0)
        return reply


def modest(*features: Feature, **facts: Any) -> Profile:
    """Make the profile of a fake that does only some things, and shows the model one message at a time."""
    known: dict[str, Any] = {"context": ContextOwner.NONE, **facts}
    return Profile("modest", dict.fromkeys(features, Support.NATIVE), **known)


MODEST: dict[str, Profile] = {
    "modest": modest(Feature.CREATE, Feature.SEND),
    # It changes conversations that it cannot show.
    "blind": modest(
        Feature.CREATE,
        Feature.TITLE,
        Feature.HISTORY_SEED,
        Feature.RENAME,
        Feature.DELETE,
        Feature.SEND,
        Feature.ATTACHMENTS,
    ),
    # It answers, and stores nothing, not even in a conversation that there is.
    "forgetful": modest(Feature.CREATE, Feature.GET, Feature.HISTORY, Feature.SEND, stores=Stores.NEVER),
    # Its conversations are made elsewhere.
    "resident": modest(Feature.SEND, Feature.GET),
}


class Nameless(FakeBackend):
    """Its messages have no ids, and only a whole answer tells what it cost."""

    def __init__(self) -> None:
        features = (
            Feature.CREATE, Feature.GET, Feature.HISTORY, Feature.SEND, Feature.STREAM, Feature.USAGE
        )  # fmt: skip
        super().__init__(profile=modest(*features, context=ContextOwner.SERVER))

    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        async for message in super().list_messages(
            conversation_id, after=after, limit=limit, newest_first=newest_first
        ):
            yield evolve(message, id=None)

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        return _nameless(await super().send(conversation_id, message, options))

    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        async for event in super().stream(conversation_id, message, options):
            if not isinstance(event, Finished):
                yield event
            else:
                reply = _nameless(event.reply)
                told = ("no usage is told here",) if options.include else ()
                usage = None if options.include else reply.usage
                yield Finished(evolve(reply, usage=usage, warnings=told))


def _nameless(reply: Reply) -> Reply:
    return evolve(reply, messages=[evolve(message, id=None) for message in reply.messages])


class ModestContract(ChatBackendContract):
    """Conversations are made elsewhere, where the backend makes none."""

    async def conversation(self, bridge: Bridge) -> Chat:
        assert isinstance(bridge.backend, FakeBackend)
        if bridge.profile.can(Feature.CREATE):
            return await bridge.create()
        return bridge.open(bridge.backend.add().id)


@pytest.mark.parametrize("backend", [*MODEST, "nameless"])
async def test_a_backend_that_says_what_it_cannot_do_keeps_the_contract(backend: str) -> None:
    def open_bridge() -> Bridge:
        return (FakeBackend(profile=MODEST[backend]) if backend in MODEST else Nameless()).bridge()

    class Contract(ModestContract):
        def open_backend(self) -> Opened:
            return open_bridge()

    results = await Contract().run()
    # The one's module is this one, which imports pytest.
    problems = [str(result) for result in results if result.problem and result.check != "check_import"]
    assert [] == problems


@pytest.mark.parametrize(
    "check", ["check_create", "check_list", "check_history", "check_send", "check_stream", "check_rename"]
)
async def test_a_backend_that_can_do_nothing_may_say_so(check: str) -> None:
    class Contract(ModestContract):
        def open_backend(self) -> Opened:
            return FakeBackend(profile=modest())

    await getattr(Contract(), check)()


async def test_running_the_contract_gives_a_result_for_each_rule() -> None:
    results = await check_backend(Breathing)

    assert ChatBackendContract.checks() == tuple(result.check for result in results)
    # The fake does not reason unless it is told how, which is a hook, as what makes it say nothing is.
    # And its module is this one, which imports pytest.
    assert ["check_import", "check_reasoning"] == sorted(result.check for result in results if result.problem)
    # Nor is there a key, or a connection.
    skipped = {"cancelling_closes", "empty_answer", "secrets"}
    assert {f"check_{name}" for name in skipped} == {each.check for each in results if each.skipped}


def test_a_result_says_rule_and_problem() -> None:
    assert "kept    Be." == str(Result("check_being", "Be."))
    assert "skipped Be. (why)" == str(Result("check_being", "Be.", skipped="why"))
    assert "BROKEN  Be. (check_being: not)" == str(Result("check_being", "Be.", problem="not"))


def test_every_rule_is_said_in_one_line() -> None:
    for check in ChatBackendContract.checks():
        rule = getattr(ChatBackendContract, check).__doc__
        assert rule is not None
        assert "\n" not in rule.strip(), check


async def test_a_subclass_may_add_a_check_and_one_without_words_goes_by_its_name() -> None:
    class More(FakeContract):
        async def check_more(self) -> None:
            raise NotApplicable("nothing more to say")

    assert (*ChatBackendContract.checks(), "check_more") == More.checks()
    assert Result("check_more", "check_more", skipped="nothing more to say") == (await More().run())[-1]


def test_each_rule_is_a_test_for_those_who_collect_them() -> None:
    contract: Any = FakeContract()
    for check in ChatBackendContract.checks():
        assert getattr(ChatBackendContract, check).__doc__ == getattr(contract, f"test_{check[6:]}").__doc__
    contract.test_create()
    with pytest.raises(SkipTest, match="there are no connections to count"):
        contract.test_cancelling_closes()

    class Contract(FakeContract):
        make = broken_backends.ForgetsTheTitle

    broken: Any = Contract()
    with pytest.raises(AssertionError, match="Kyoto"):
        broken.test_title()


async def test_a_partner_may_be_given_to_a_contract() -> None:
    fake = FakeBackend()
    results = await check_backend(
        lambda: FakeBackend(profile=modest(Feature.CREATE, Feature.SEND)), emulator=fake
    )
    assert fake.faults
    assert any(result.problem for result in results)


async def test_a_crash_of_the_emulator_breaks_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KaziroEmulator, "_retrieve", None)
    with pytest.raises(AssertionError, match="the emulator crashed"):
        await KaziroContract().check("check_errors")


async def test_opening_is_no_coroutine() -> None:
    class Contract(ChatBackendContract):
        async def open_backend(self) -> str:  # type: ignore[override]
            return "fake:"

    with pytest.raises(AssertionError, match="open_backend is a plain method"):
        await Contract().check("check_create")


async def test_a_bare_config_string_is_a_backend() -> None:
    results = await check_backend(lambda: "fake:")
    assert ["check_reasoning"] == [result.check for result in results if result.problem]


async def test_a_contract_needs_a_bridge_to_try() -> None:
    with pytest.raises(UsageError, match="ChatBackendContract needs an open_backend"):
        ChatBackendContract().open_backend()


async def test_a_rule_that_hangs_is_broken() -> None:
    class Impatient(FakeContract):
        PATIENCE = 0.0

        def open_backend(self) -> Opened:
            return broken_backends.Hangs()

    with pytest.raises(AssertionError, match="it takes longer than 0 s"):
        await Impatient().check_send()


def test_expectations_say_what_was_found_and_cut_what_is_long() -> None:
    with pytest.raises(AssertionError, match="no"):
        expect(False, "no")
    expect(True, "no")


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def never_an_item() -> AsyncGenerator[int, None]:
    await asyncio.get_running_loop().create_future()
    yield 1


async def at_once() -> None:
    pass


async def wrong() -> None:
    raise KeyError("wrong")


async def test_a_refusal_must_come_at_once_and_be_of_its_kind() -> None:
    for action, problem in (
        (never, "it began I/O"),
        (never_an_item, "it began I/O"),
        (at_once, "it went through"),
        (wrong, "not KeyError"),
    ):
        with pytest.raises(AssertionError, match=problem):
            expect_refused(UsageError, "trying", action)


async def test_an_error_that_does_not_come_or_is_another_is_said() -> None:
    async def some() -> AsyncIterator[int]:
        yield 1

    actions: list[tuple[Callable[[], Awaitable[None] | AsyncIterator[int]], str]] = [
        (at_once, "went through"),
        (some, "went through"),
        (wrong, "not KeyError"),
    ]
    for action, problem in actions:
        with pytest.raises(AssertionError, match=problem):
            await what_raises(UsageError, "trying", action)


def test_events_fold_as_they_are_documented() -> None:
    events: list[StreamEvent] = [
        TextDelta("gone"),
        Reset("again"),
        ReasoningDelta("I ", 0),
        TextDelta("He", 1),
        ReasoningDelta("think", 0),
        TextDelta("llo", 1),
        TextDelta("draft", 2),
        PartAdded(Text("final"), 2),
    ]
    assert (Reasoning("I think"), Text("Hello"), Text("final")) == fold(events)


async def test_what_a_rule_makes_is_deleted_where_that_is_wanted() -> None:

    fake = FakeBackend()

    class Contract(FakeContract):
        TIDY = True

        def open_backend(self) -> Opened:
            return fake.bridge()

    for check in ("check_create", "check_context", "check_rename"):
        await Contract().check(check)
    assert {} == fake.conversations

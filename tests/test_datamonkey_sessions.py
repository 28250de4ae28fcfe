"""Datamonkey's sessions: where the token comes from, who is told of it, and how it is replaced."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import pickle
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    AnswerLost,
    AuthFailed,
    BadOption,
    Bridge,
    ChatbridgeError,
    DeliveryUnknown,
    Message,
    Outcome,
    SendOptions,
    UsageError,
    connect,
)
from chatbridge.backend import IssuesKeys
from chatbridge.config import BackendURL
from chatbridge.errors import OverloadedTimeout
from chatbridge.http import Transport
from chatbridge.registry import resolve
from chatbridge.secret import Secret
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault, serve
from chatbridge_adapters.datamonkey import ADAPTER, DatamonkeyBackend, DatamonkeyOptions, SessionReplaced
from chatbridge_adapters.datamonkey.emulator import DatamonkeyEmulator
from fault_server import FaultServer, Script, Step, SteppingClock
from fault_server import answer as written

CREATED = json.dumps({"id": "conv-1", "created": 1730000000000, "updated": 1730000000000}).encode()
REPLACED = "the server did not take the session's token and opened another session"


@pytest.fixture(autouse=True)
def no_token_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATAMONKEY_SESSION_TOKEN", raising=False)


@pytest.fixture
async def emulator() -> AsyncGenerator[DatamonkeyEmulator, None]:
    emulator = DatamonkeyEmulator()
    yield emulator
    assert [] == emulator.crashes


Callback = Callable[[Secret], Awaitable[None] | None]


@asynccontextmanager
async def bridge_to(emulator: DatamonkeyEmulator, **options: Any) -> AsyncGenerator[Bridge]:
    async with serve(emulator) as at, connect(at.config, **options) as bridge:
        yield bridge


@asynccontextmanager
async def bridge_to_script(*scripts: Script, **options: Any) -> AsyncGenerator[tuple[Bridge, FaultServer]]:
    async with (
        FaultServer(scripts) as server,
        connect(f"datamonkey+{server.url}", **options) as bridge,
    ):
        yield bridge, server


def created(*fields: str, body: bytes = CREATED, status: str = "201 Created") -> Script:
    """Answer a creation."""
    return (Step.READ, written(body, status, *fields))


def answered(body: bytes) -> Script:
    """Answer any other call."""
    return (Step.READ, written(body))


def own(bridge: Bridge) -> DatamonkeyBackend:
    return cast(DatamonkeyBackend, bridge.api)


def token(bridge: Bridge) -> str | None:
    secret = own(bridge).session_token
    return None if secret is None else secret.reveal()


def authorizations(emulator: DatamonkeyEmulator) -> list[str | None]:
    return [call.headers.get("Authorization") for call in emulator.calls]


@pytest.mark.parametrize(
    "key", ["two words", " padded", "padded ", "tab\ttab", "Bearer my-token", "t\u00e9", "\u4eac", "t\u00a0n"]
)
def test_a_key_that_the_server_would_skip_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(BadOption, match=r"datamonkey: option 'key' .* open another session") as refused:
        connect("datamonkey:", key=key)
    shown = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    assert key not in "".join(frame for frame in shown.format() if __file__ not in frame)


@pytest.mark.parametrize("key", ["!", "~", "a.b-c_d", "!#$%&'*+-.^_`|~:;,=/?@[]{}()<>\\\""])
def test_a_key_of_visible_signs_is_taken(key: str) -> None:
    assert key == token(connect("datamonkey:", key=key))


async def test_the_backend_says_that_its_server_gives_out_keys(emulator: DatamonkeyEmulator) -> None:
    async with bridge_to(emulator) as bridge:
        issuer: IssuesKeys = own(bridge)
        assert isinstance(issuer, IssuesKeys)
        assert (None, None) == (issuer.session_token, issuer.on_session_token)


# Without a token


async def test_the_first_creation_brings_a_token_that_all_later_calls_carry(
    emulator: DatamonkeyEmulator,
) -> None:
    async with bridge_to(emulator) as bridge:
        assert None is own(bridge).session_token
        chat = await bridge.create()
        assert () == chat.conversation.warnings
        minted = token(bridge)
        assert minted in emulator.sessions
        await chat.send("Hello")
        second = await bridge.create()
        assert (minted, ()) == (token(bridge), second.conversation.warnings)
        assert {chat.id, second.id} == {each.id async for each in bridge.conversations()}
    assert [None, *[f"Bearer {minted}"] * 3] == authorizations(emulator)
    assert 2 == len(emulator.sessions)


async def test_before_there_is_a_session_there_is_nothing_to_see(emulator: DatamonkeyEmulator) -> None:
    async with bridge_to(emulator) as bridge:
        with pytest.raises(AuthFailed, match="valid token required to list conversations"):
            await anext(bridge.conversations())
    assert [None] == authorizations(emulator)


async def test_a_token_is_handed_to_the_application_and_opens_the_session_tomorrow(
    emulator: DatamonkeyEmulator,
) -> None:
    saved: list[Secret] = []
    async with bridge_to(emulator) as bridge:
        own(bridge).on_session_token = saved.append
        chat = await bridge.create(title="T")
        await bridge.create()
    (kept,) = saved
    async with bridge_to(emulator, key=kept) as bridge:
        assert kept is own(bridge).session_token
        assert "T" == (await bridge.open(chat.id).refresh()).title
        assert () == (await bridge.create()).conversation.warnings
    assert [kept] == saved


async def test_a_token_in_the_environment_is_taken(
    emulator: DatamonkeyEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAMONKEY_SESSION_TOKEN", emulator.key)
    async with bridge_to(emulator) as bridge:
        assert emulator.key == token(bridge)
        await bridge.create()
    assert 1 == len(emulator.sessions)


async def test_creations_at_once_share_one_session(emulator: DatamonkeyEmulator) -> None:
    async with bridge_to(emulator) as bridge:
        chats = await asyncio.gather(*(bridge.create() for _ in range(20)))
        assert {chat.id for chat in chats} == {each.id async for each in bridge.conversations()}
    assert 2 == len(emulator.sessions)
    assert 19 == len([value for value in authorizations(emulator)[:20] if value])


async def test_a_creation_that_fails_lets_the_next_one_go(emulator: DatamonkeyEmulator) -> None:
    async with bridge_to(emulator) as bridge:
        emulator.fail(Fault(drop="before"))
        emulator.fail(Fault(status=400))
        results = await asyncio.gather(*(bridge.create() for _ in range(3)), return_exceptions=True)
    assert 1 == len([result for result in results if not isinstance(result, BaseException)])
    assert 2 == len(emulator.sessions)


async def test_a_creation_that_is_cancelled_while_it_waits_lets_the_next_one_go(
    emulator: DatamonkeyEmulator,
) -> None:
    async with bridge_to(emulator) as bridge:
        fault = emulator.fail(Fault(hold=asyncio.Event()))
        first, second, third = [asyncio.create_task(bridge.create()) for _ in range(3)]
        await fault.reached.wait()
        second.cancel()
        assert fault.hold is not None
        fault.hold.set()
        await asyncio.wait([first, second, third])
        assert (False, True, False) == (first.cancelled(), second.cancelled(), third.cancelled())
        assert first.result().id != third.result().id
    assert 2 == len(emulator.calls)


async def test_a_creation_waits_for_the_one_before_it_no_longer_than_its_deadline() -> None:
    clock = SteppingClock()
    async with bridge_to_script(
        (Step.READ, Step.STALL), clock=clock, timeout=10.0, first_byte_timeout=10.0
    ) as (
        bridge,
        server,
    ):
        first = asyncio.create_task(bridge.create())
        await server.reached.wait()
        second = asyncio.create_task(bridge.create())
        await asyncio.sleep(0)
        clock.advance(10)
        with pytest.raises(DeliveryUnknown):
            await first
        with pytest.raises(OverloadedTimeout, match="earlier creations took until the deadline") as late:
            await second
        assert ("datamonkey", "create_conversation", Outcome.NOT_SENT, True, True) == (
            late.value.provider,
            late.value.operation,
            late.value.outcome,
            late.value.retryable,
            late.value.timed_out,
        )
        assert 1 == len(server.requests)


async def test_the_wait_and_the_creation_share_one_deadline_without_a_bridge_too() -> None:
    clock = SteppingClock()
    stalled = (Step.READ, Step.STALL)
    async with FaultServer((stalled, stalled)) as server:
        options = DatamonkeyOptions(timeout=10.0)
        transport = Transport(server.url, options, clock=clock)
        backend = DatamonkeyBackend(options, transport)
        first = asyncio.create_task(backend.create_conversation())
        await server.reached.wait()
        second = asyncio.create_task(backend.create_conversation())
        await asyncio.sleep(0)
        clock.advance(6)
        server.reached.clear()
        first.cancel()
        await asyncio.wait([first])
        await server.reached.wait()
        clock.advance(4)
        with pytest.raises(DeliveryUnknown):
            await second
        await transport.close()


async def test_closing_ends_a_creation_that_waits() -> None:
    async with bridge_to_script((Step.READ, Step.STALL)) as (bridge, server):
        first = asyncio.create_task(bridge.create())
        await server.reached.wait()
        second = asyncio.create_task(bridge.create())
        await asyncio.sleep(0)
        await bridge.close()
        with pytest.raises(DeliveryUnknown, match="the bridge was closed"):
            await first
        with pytest.raises(UsageError, match="the bridge is closed"):
            await second
    assert 1 == len(server.requests)


# Replaced


async def test_a_token_of_the_callers_that_is_replaced_is_a_warning_and_the_new_one_is_taken(
    emulator: DatamonkeyEmulator,
) -> None:
    saved: list[Secret] = []
    async with bridge_to(emulator, key="expired") as bridge:
        own(bridge).on_session_token = saved.append
        chat = await bridge.create(title="T")
        (warning,) = chat.conversation.warnings
        assert warning.startswith(REPLACED)
        assert "the conversations of the old one are out of reach" in warning
        assert "the new token must be saved" in warning
        assert [token(bridge)] == [secret.reveal() for secret in saved]
        assert "T" == (await chat.refresh()).title
        assert () == (await bridge.create()).conversation.warnings
    first, *others = authorizations(emulator)
    assert ("Bearer expired", {f"Bearer {saved[0].reveal()}"}) == (first, set(others))


async def test_strictly_a_replaced_token_is_an_error_with_the_new_conversation_which_is_there(
    emulator: DatamonkeyEmulator,
) -> None:
    async with bridge_to(emulator, key="expired", strict=True) as bridge:
        with pytest.raises(SessionReplaced, match=REPLACED) as replaced:
            await bridge.create(title="T")
        error = replaced.value
        assert ("datamonkey", "create_conversation") == (error.provider, error.operation)
        assert (Outcome.ACCEPTED, False) == (error.outcome, error.retryable)
        assert error.conversation_id is not None
        assert "T" == (await bridge.open(error.conversation_id).refresh()).title
        assert () == (await bridge.create()).conversation.warnings
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (SessionReplaced, str(error), vars(error)) == (type(again), str(again), vars(again))


@pytest.mark.parametrize("strict", [False, True])
async def test_a_token_of_the_servers_own_that_expires_is_no_less_a_loss(
    emulator: DatamonkeyEmulator, strict: bool
) -> None:
    async with bridge_to(emulator, strict=strict) as bridge:
        lost = await bridge.create()
        emulator.expire(token(bridge) or "")
        with pytest.raises(AuthFailed):
            await lost.refresh()
        if strict:
            with pytest.raises(SessionReplaced):
                await bridge.create()
        else:
            (warning,) = (await bridge.create()).conversation.warnings
            assert warning.startswith(REPLACED)
        with pytest.raises(AuthFailed, match="You don't have permission"):
            await lost.refresh()


async def test_creations_at_once_with_an_expired_token_open_one_session(emulator: DatamonkeyEmulator) -> None:
    async with bridge_to(emulator, key="expired") as bridge:
        chats = await asyncio.gather(*(bridge.create() for _ in range(5)))
        assert 1 == len([chat for chat in chats if chat.conversation.warnings])
        assert {chat.id for chat in chats} == {each.id async for each in bridge.conversations()}


async def test_a_token_that_comes_again_replaces_nothing() -> None:
    async with bridge_to_script(created("X-Session-Token: same"), key="same", strict=True) as (bridge, _):
        assert () == (await bridge.create()).conversation.warnings
        assert "same" == token(bridge)


@pytest.mark.parametrize("fields", [(), ("X-Session-Token:",), ("X-Session-Token:  ",)])
async def test_a_creation_that_tells_no_token_changes_nothing(fields: tuple[str, ...]) -> None:
    async with bridge_to_script(created(*fields), key="mine") as (bridge, server):
        for _ in range(2):
            assert () == (await bridge.create()).conversation.warnings
        assert "mine" == token(bridge)
    assert [["Bearer mine"]] * 2 == [request.header("Authorization") for request in server.requests]


async def test_the_header_may_be_written_in_any_case() -> None:
    async with bridge_to_script(created("x-session-TOKEN: new")) as (bridge, _):
        await bridge.create()
        assert "new" == token(bridge)


# Odd tokens, odd callbacks, lost bodies


@pytest.mark.parametrize("value", ["two words", "tab\ttab", "t\u00e9", "\u00ff\u00fe", "\u00e4\u00ba\u00ac"])
async def test_a_token_that_cannot_be_sent_is_a_warning_and_the_old_one_stays(value: str) -> None:
    handed: list[Secret] = []
    async with bridge_to_script(created(f"X-Session-Token: {value}"), key="mine") as (bridge, _):
        own(bridge).on_session_token = handed.append
        (warning,) = (await bridge.create()).conversation.warnings
        assert "whose token cannot be sent" in warning
        assert value not in warning
        assert ("mine", []) == (token(bridge), handed)


@pytest.mark.parametrize("value", ["A" * 4000, "!#$%&'*+-.^_`|~:;,=/?@[]{}()<>\\\"", "0"])
async def test_any_token_of_visible_signs_is_taken(value: str) -> None:
    async with bridge_to_script(created(f"X-Session-Token: {value}")) as (bridge, server):
        await bridge.create()
        await bridge.create()
    assert [[], [f"Bearer {value}"]] == [request.header("Authorization") for request in server.requests]


async def test_an_asynchronous_callback_is_awaited_before_the_creation_ends(
    emulator: DatamonkeyEmulator,
) -> None:
    saved: list[Secret] = []

    async def save(secret: Secret) -> None:
        await asyncio.sleep(0)
        saved.append(secret)

    async with bridge_to(emulator) as bridge:
        own(bridge).on_session_token = save
        assert () == (await bridge.create()).conversation.warnings
        assert [own(bridge).session_token] == saved


async def test_any_awaitable_is_awaited_and_anything_else_is_not(emulator: DatamonkeyEmulator) -> None:
    async with bridge_to(emulator) as bridge:
        backend: Any = own(bridge)
        given, saved = asyncio.Event(), asyncio.Future[None]()

        def save(_: Secret) -> asyncio.Future[None]:
            given.set()
            return saved

        def write(_: Secret) -> int:
            return 42

        backend.on_session_token = save
        creation = asyncio.create_task(bridge.create())
        await given.wait()
        saved.set_exception(BrokenDisk())
        (warning,) = (await creation).conversation.warnings
        assert "BrokenDisk" in warning
        emulator.expire(token(bridge) or "")
        backend.on_session_token = write
        (warning,) = (await bridge.create()).conversation.warnings
        assert warning.startswith(REPLACED)


async def test_the_callback_comes_after_the_call_and_can_make_others(emulator: DatamonkeyEmulator) -> None:
    seen: list[str] = []

    async with bridge_to(emulator, concurrency=1) as bridge:

        async def look(_: Secret) -> None:
            seen.extend([each.id async for each in bridge.conversations()])

        own(bridge).on_session_token = look
        assert [(await bridge.create()).id] == seen


async def test_a_token_is_saved_before_the_next_creation_begins() -> None:
    clock, saving, saved = SteppingClock(), asyncio.Event(), asyncio.Event()

    async def save(_: Secret) -> None:
        saving.set()
        await saved.wait()

    script = created("X-Session-Token: new")
    async with bridge_to_script(script, clock=clock, timeout=10.0) as (bridge, server):
        own(bridge).on_session_token = save
        first = asyncio.create_task(bridge.create())
        await saving.wait()
        second = asyncio.create_task(bridge.create())
        await asyncio.sleep(0)
        clock.advance(10)
        with pytest.raises(OverloadedTimeout, match="earlier creations"):
            await second
        saved.set()
        assert () == (await first).conversation.warnings
        assert 1 == len(server.requests)


class BrokenDisk(Exception):
    pass


def cannot_save(secret: Secret) -> None:
    raise BrokenDisk(f"cannot save {secret.reveal()}")


async def cannot_save_later(secret: Secret) -> None:
    await asyncio.sleep(0)
    cannot_save(secret)


@pytest.mark.parametrize("callback", [cannot_save, cannot_save_later])
async def test_what_the_callback_raises_is_a_warning_that_shows_no_token(
    emulator: DatamonkeyEmulator, callback: Callback
) -> None:
    async with bridge_to(emulator) as bridge:
        own(bridge).on_session_token = callback
        chat = await bridge.create()
        assert (
            "on_session_token raised BrokenDisk: the new token is not saved",
        ) == chat.conversation.warnings
        assert token(bridge) in emulator.sessions
        assert 1 == len([each async for each in bridge.conversations()])


async def test_strictly_what_else_there_is_to_tell_is_a_note_of_the_error(
    emulator: DatamonkeyEmulator,
) -> None:
    async with bridge_to(emulator, key="expired", strict=True) as bridge:
        own(bridge).on_session_token = cannot_save
        with pytest.raises(SessionReplaced) as replaced:
            await bridge.create()
    assert ["on_session_token raised BrokenDisk: the new token is not saved"] == replaced.value.__notes__
    assert replaced.value.__notes__ == pickle.loads(pickle.dumps(replaced.value)).__notes__


@pytest.mark.parametrize(
    "body",
    [
        (written(b"", "201 Created", "X-Session-Token: new", "Content-Length: 99", framed=False), Step.RESET),
        (written(b"{]", "201 Created", "X-Session-Token: new"),),
        (written(b"", "201 Created", "X-Session-Token: new"),),
        (written(b'{"id":null}', "201 Created", "X-Session-Token: new"),),
    ],
)
async def test_the_token_is_not_lost_when_the_body_is(body: Script) -> None:
    handed: list[str] = []
    async with bridge_to_script((Step.READ, *body), created()) as (bridge, server):
        own(bridge).on_session_token = lambda secret: handed.append(secret.reveal())
        with pytest.raises(AnswerLost) as lost:
            await bridge.create()
        assert (Outcome.ACCEPTED, []) == (lost.value.outcome, getattr(lost.value, "__notes__", []))
        assert ("new", ["new"]) == (token(bridge), handed)
        await bridge.create()
    assert [[], ["Bearer new"]] == [request.header("Authorization") for request in server.requests]


@pytest.mark.parametrize("strict", [False, True])
async def test_that_a_session_was_replaced_is_a_note_where_the_body_is_lost(strict: bool) -> None:
    script = created("X-Session-Token: new", body=b"{]")
    async with bridge_to_script(script, key="mine", strict=strict) as (bridge, _):
        with pytest.raises(AnswerLost) as lost:
            await bridge.create()
        (note,) = lost.value.__notes__
        assert note.startswith(REPLACED)
        assert "new" == token(bridge)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("key", [None, "mine"])
@pytest.mark.parametrize(
    "status",
    [
        "200 OK",
        "302 Found",
        "400 Bad Request",
        "401 Unauthorized",
        "429 Too Many Requests",
        "500 Internal Server Error",
    ],
)
async def test_the_token_is_not_lost_whatever_the_status(
    status: str, key: str | None, asynchronous: bool
) -> None:
    handed: list[str] = []

    async def hand_over_later(secret: Secret) -> None:
        await asyncio.sleep(0)
        handed.append(secret.reveal())

    def hand_over(secret: Secret) -> None:
        handed.append(secret.reveal())

    scripts = created("X-Session-Token: new", status=status), created()
    async with bridge_to_script(*scripts, key=key, attempts=1) as (bridge, server):
        own(bridge).on_session_token = hand_over_later if asynchronous else hand_over
        with pytest.raises(ChatbridgeError) as failed:
            await bridge.create()
        notes = getattr(failed.value, "__notes__", [])
        assert ([REPLACED] if key else []) == [note[: len(REPLACED)] for note in notes]
        assert ("new", ["new"]) == (token(bridge), handed)
        assert () == (await bridge.create()).conversation.warnings
    sent = [request.header("Authorization") for request in server.requests]
    assert [[f"Bearer {key}"] if key else [], ["Bearer new"]] == sent


@pytest.mark.parametrize("key", [None, "mine"])
async def test_of_the_tokens_of_several_attempts_the_last_one_counts(key: str | None) -> None:
    handed: list[str] = []
    scripts = (
        created("X-Session-Token: early", status="429 Too Many Requests"),
        created("X-Session-Token: late"),
    )
    async with bridge_to_script(*scripts, key=key, clock=ManualClock()) as (bridge, _):
        own(bridge).on_session_token = lambda secret: handed.append(secret.reveal())
        warnings = (await bridge.create()).conversation.warnings
        assert (1 if key else 0) == len(warnings)
        assert ("late", ["late"]) == (token(bridge), handed)


async def test_a_creation_that_is_cancelled_in_its_body_hands_the_token_over() -> None:
    handed: list[str] = []

    async def hand_over(secret: Secret) -> None:
        await asyncio.sleep(0)
        handed.append(secret.reveal())

    head = written(b"", "201 Created", "X-Session-Token: new", "Content-Length: 99", framed=False)
    clock = SteppingClock()
    async with bridge_to_script((Step.READ, head, Step.STALL), clock=clock, idle_timeout=7.0) as (bridge, _):
        own(bridge).on_session_token = hand_over
        creation = asyncio.create_task(bridge.create())
        await clock.until_waiting(7)
        creation.cancel()
        await asyncio.wait([creation])
        assert creation.cancelled()
        assert ["new"] == handed


async def test_no_other_call_brings_a_token() -> None:
    body = b'{"conversations":[]}'
    async with bridge_to_script((Step.READ, written(body, "200 OK", "X-Session-Token: new"))) as (bridge, _):
        assert [] == [each async for each in bridge.conversations()]
        assert None is token(bridge)


# Secrecy


async def test_no_token_shows_whoever_made_it(emulator: DatamonkeyEmulator) -> None:
    async with bridge_to(emulator) as bridge:
        backend = own(bridge)
        chat = await bridge.create()
        minted = token(bridge) or ""
        assert "***" == str(backend.session_token) == repr(backend.session_token)
        emulator.fail(Fault(status=400, error=f"bad {minted} or Bearer {minted}"))
        with pytest.raises(ChatbridgeError) as refused:
            await chat.send("Hello")
        assert minted not in f"{refused.value}{vars(refused.value)}"
        assert "bad *** or" in str(refused.value)
        for shown in (repr(backend.options), repr(vars(backend)), repr(chat.conversation)):
            assert minted not in shown


class Killed(BaseException):
    pass


def kill(_: Secret) -> None:
    raise Killed


async def kill_later(_: Secret) -> None:
    await asyncio.sleep(0)
    raise Killed


@pytest.mark.parametrize("callback", [kill, kill_later])
@pytest.mark.parametrize("status", ["201 Created", "500 Internal Server Error"])
async def test_a_callback_that_breaks_off_shows_no_token_in_a_traceback(
    status: str, callback: Callback
) -> None:
    fresh = "eyJhbGciOi.fresh"
    async with bridge_to_script(created(f"X-Session-Token: {fresh}", status=status)) as (bridge, _):
        own(bridge).on_session_token = callback
        with pytest.raises(Killed) as killed:
            await bridge.create()
        assert fresh == token(bridge)
    shown = traceback.TracebackException.from_exception(killed.value, capture_locals=True)
    told = "".join(frame for frame in shown.format() if __file__ not in frame)
    assert "_hand_over" in told
    assert fresh not in told


async def test_an_error_that_repeats_the_new_token_does_not_show_it() -> None:
    body, status = b'{"error":"no room for fresh-token"}', "500 Internal Server Error"
    async with bridge_to_script(created("X-Session-Token: fresh-token", body=body, status=status)) as (
        bridge,
        _,
    ):
        with pytest.raises(DeliveryUnknown) as unknown:
            await bridge.create()
    assert "no room for ***" == unknown.value.excerpt


# Connections


async def test_a_creation_takes_a_new_connection_and_what_can_be_settled_or_repeated_a_pooled_one() -> None:
    answer = b'{"message":{"role":"assistant","content":"hi"}}'
    scripts = (answered(b'{"conversations":[]}'), answered(answer), created(), answered(answer), created())
    async with bridge_to_script(*scripts, key="mine", settle_timeout=0) as (bridge, server):
        assert [] == [each async for each in bridge.conversations()]
        await bridge.open("conv-1").send("hi")
        await bridge.create()
        await bridge.open("conv-1").send("hi")
        await bridge.create()
    read, send, first, again, second = [request.connection for request in server.requests]
    assert (read, read) == (send, again)
    assert 3 == len({read, first, second})


def test_a_token_is_referred_to_in_a_config_string_and_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "mine")
    assert "mine" == token(connect("datamonkey:?key=env:TOKEN"))
    with pytest.raises(UsageError, match="must not be a secret"):
        connect("datamonkey:?key=mine")


def test_the_public_server_is_reached_by_the_bare_scheme_without_any_option() -> None:
    bridge = connect("datamonkey:")
    assert None is own(bridge).session_token
    target = resolve(BackendURL.parse("datamonkey:"), {}, {})
    assert (ADAPTER, "https://datamonkey.org/api/v1") == (target.adapter, target.base_url)


# Whatever happens to tokens


STEPS = st.lists(st.sampled_from(["create", "expire", "send", "list"]), max_size=8)


@given(STEPS, st.booleans(), st.booleans())
def test_a_loss_is_told_exactly_when_there_is_one(steps: list[str], given_one: bool, strict: bool) -> None:
    """However calls follow each other, only a creation under a token that does not hold tells of a loss."""
    numbers = itertools.count()

    async def run() -> None:
        emulator = DatamonkeyEmulator()
        key = Secret(emulator.key) if given_one else None
        async with serve(emulator) as at:
            options = DatamonkeyOptions(key=key, strict=strict)
            transport = Transport(f"{at.base_url}/api/v1", options, clock=ManualClock())
            backend = DatamonkeyBackend(options, transport)
            holds, made = given_one, list[str]()
            for step in steps:
                before = backend.session_token
                if step == "expire" and before is not None:
                    emulator.expire(before.reveal())
                    holds, made = False, []
                elif step == "create":
                    loss = before is not None and not holds
                    try:
                        conversation = await backend.create_conversation(title=str(next(numbers)))
                    except SessionReplaced as replaced:
                        assert strict
                        assert loss
                        made.append(replaced.conversation_id or "")
                    else:
                        assert (loss and not strict) == bool(conversation.warnings)
                        made.append(conversation.id)
                    holds = True
                elif holds and step == "list":
                    assert set(made) == {each.id async for each in backend.list_conversations()}
                elif holds and made:
                    reply = await backend.send(made[-1], Message.user("x"), SendOptions())
                    assert () == reply.warnings
            await transport.close()
        assert [] == emulator.crashes

    asyncio.run(run())

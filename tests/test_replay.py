"""Answers from a recording: which calls they are given to, and what is said where a program strays."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from chatbridge import (
    AnswerLost,
    Bridge,
    Chat,
    ChatbridgeError,
    ConfigError,
    Message,
    NotFound,
    Outcome,
    RateLimited,
    Reply,
    Role,
    StreamCut,
    Text,
    TurnState,
    connect,
)
from chatbridge.errors import Phase
from chatbridge.http.recording import BadRecording, Exchange, Recording
from chatbridge.http.transport import Transport
from chatbridge.secret import Secret
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Emulator, Fault, serve
from chatbridge.testing.matching import Asked, Matcher
from chatbridge.testing.replay import (
    ADAPTER,
    ReplayIncomplete,
    ReplayMismatch,
    ReplayOptions,
    ReplayTransport,
    profile,
)
from chatbridge_adapters.h2ogpte import H2OGPTeBackend
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator
from recorded import Session, record, replay

V1 = Path(__file__).parent / "recordings" / "v1-h2ogpte.jsonl"
STARTED = "2026-11-21T07:48:58.764586+00:00"
HEAD: dict[str, Any] = {
    "format": "chatbridge-recording",
    "version": 1,
    "chatbridge": "0.1.0",
    "started": STARTED,
    "config": "kaziro://kaziro.example.com",
    "options": {"settle_timeout": 0},
    "secrets": {"key": "***:1"},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept.jsonl"


@pytest.fixture
async def kept(path: Path) -> Path:
    """Record three sends to one conversation of h2oGPTe."""

    async def talk(session: Session) -> None:
        chat = await session.bridge.create()
        for text in ("One", "Two", "Three"):
            await chat.send(text)

    await record(H2OGPTeEmulator(), path, talk, settle_timeout=0)
    return path


def write(path: Path, *values: dict[str, Any]) -> None:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values), encoding="utf-8")


def read(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def change(path: Path, number: int, **fields: Any) -> None:
    """Change a line of a recording."""
    lines = [json.loads(line) for line in read(path)]
    lines[number] |= fields
    write(path, *lines)


@asynccontextmanager
async def replayed(path: Path, **options: Any) -> AsyncGenerator[Bridge]:
    async with connect(f"replay:?file={path}", **options) as bridge:
        yield bridge


async def play(path: Path, *texts: str, **options: Any) -> None:
    """Replay the creation of a conversation, and send *texts* to it."""
    async with replayed(path, **options) as bridge:
        chat = await bridge.create()
        for text in texts:
            await chat.send(text)


async def play_stream(path: Path, text: str) -> None:
    """Do the same, but read a streamed answer."""
    async with replayed(path) as bridge:
        chat = await bridge.create()
        async with chat.stream(text) as stream:
            _ = [event async for event in stream]


# ------------------------------------------------------------------------------------ the first version


async def v1(session: Session) -> None:
    """Make the calls of the recording that is kept."""
    session.plan(Fault(status=429, headers={"Retry-After": "2"}))
    chat = await session.bridge.create()
    await session.step(chat.send("Hello, 世界"))
    await session.step(session.streamed(chat, "Tell me more of it"))
    session.plan(Fault(cut_after=2))
    await session.step(session.streamed(chat, "And more"))
    session.plan(Fault(drop="after"))
    await session.step(chat.send("Is it lost?"))
    await session.step(session.history(chat))


async def test_recordings_of_the_first_version_can_be_read_for_ever() -> None:
    results, attempts = await replay(V1, v1)

    sent, streamed, cut, recovered, history = results
    assert isinstance(sent, Reply)
    assert isinstance(recovered, Reply)
    assert "Turn 1: you said 'Hello, 世界'." == sent.text
    assert "Turn 2: you said 'Tell me more of it'." in str(streamed)
    assert "StreamCut" in str(cut)
    assert recovered.recovered
    assert 8 == str(history).count("Message(")
    assert (1, Phase.STATUS, 429) == attempts[0][1:4]


def test_a_recording_of_the_first_version_is_written_as_it_was(path: Path) -> None:
    Recording.load(V1).save(path)

    before = [json.loads(line) for line in V1.read_text(encoding="utf-8").splitlines()]
    assert before == [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------------------------------- what it is


async def test_the_backend_is_that_of_the_recording(kept: Path) -> None:
    async with replayed(kept, rest="ignore") as bridge:
        assert isinstance(bridge.backend, H2OGPTeBackend)
        assert "h2ogpte" == bridge.profile.name
        assert 0 == bridge.options.settle_timeout
        assert isinstance(bridge.clock, ManualClock)
    async with replayed(kept, rest="ignore", settle_timeout=7, clock=ManualClock()) as bridge:
        assert 7 == bridge.options.settle_timeout
        assert not isinstance(bridge.options, ReplayOptions)


def test_the_profile_is_that_of_the_recording(kept: Path) -> None:
    assert "h2ogpte" == profile(ReplayOptions(file=str(kept))).name
    assert profile() == profile(ReplayOptions())
    assert "replay" == profile().name


def test_it_needs_a_recording(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"replay needs a recording: write replay:\?file=FILE"):
        connect("replay:")
    with pytest.raises(BadRecording, match="cannot be read: No such file"):
        connect(f"replay:?file={path}")


@pytest.mark.parametrize(
    ("config", "problem"),
    [("nobody:", "no chat backend named 'nobody'"), ("fake:", "fake: is no backend that can be recorded")],
)
def test_a_recording_of_what_is_not_here_is_refused(path: Path, config: str, problem: str) -> None:
    write(path, HEAD | {"config": config, "options": {}, "secrets": {}})

    with pytest.raises(BadRecording, match=f"line 1: .*{problem}"):
        connect(f"replay:?file={path}")


async def test_no_variable_of_the_environment_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAZIRO_API_KEY", "sk-real-one")
    write(path, {**HEAD, "config": "kaziro:?key=env:KAZIRO_API_KEY"})

    async with replayed(path) as bridge:
        assert Secret("***:1") == getattr(bridge.options, "key", None)


def test_it_is_an_adapter_like_any_other() -> None:
    assert "replay" == ADAPTER.name
    assert ADAPTER.defaults.in_process


# ---------------------------------------------------------------------------------------- mismatches


async def test_another_text_is_a_mismatch_that_shows_the_difference(kept: Path) -> None:
    with pytest.raises(ReplayMismatch, match="is not in the recording") as caught:
        await play(kept, "One", "Zwei")

    error = caught.value
    assert Outcome.NOT_SENT is error.outcome
    assert ["+++ this call"] == [line for line in error.difference.splitlines() if line.startswith("+++")]
    assert ['-  "message": "Two"', '+  "message": "Zwei"'] == [
        line.rstrip(",") for line in error.difference.splitlines()[2:] if line[0] in "+-"
    ]
    assert [error.difference] == error.__notes__
    assert error.turn is not None
    assert TurnState.NOT_SENT is error.turn.state
    assert str(error).endswith("; the nearest that is left is call 3, " + str(error).partition(" is not")[0])
    assert "Zwei" not in str(error)
    assert str(error).isprintable()
    again = pickle.loads(pickle.dumps(error))
    assert (str(error), error.difference) == (str(again), again.difference)


async def test_another_path_is_a_mismatch(kept: Path) -> None:
    with pytest.raises(
        ReplayMismatch, match=r"^DELETE /chats/x is not in the recording .*is left is call 1, POST"
    ):
        async with replayed(kept) as bridge:
            await bridge.open("x").delete()


async def test_a_call_too_many_is_a_mismatch(path: Path) -> None:
    write(path, HEAD)

    with pytest.raises(ReplayMismatch, match="all 0 recorded calls were made already") as caught:
        async with replayed(path) as bridge:
            await bridge.create()
    assert ("", []) == (caught.value.difference, getattr(caught.value, "__notes__", []))


async def test_a_stream_that_was_not_recorded_is_a_mismatch(kept: Path) -> None:
    with pytest.raises(ReplayMismatch):
        await play_stream(kept, "One")


async def test_a_mismatch_that_somebody_swallows_is_raised_at_the_end(kept: Path) -> None:
    """As the bridge does, when it reads a conversation only to find a message in it."""
    bridge = connect(f"replay:?file={kept}")
    chat = await bridge.create()
    with pytest.raises(ReplayMismatch) as first:
        await chat.send("Zwei")
    with pytest.raises(ReplayMismatch) as last:
        await bridge.close()
    assert first.value is last.value


async def test_a_mismatch_that_a_bot_swallowed_is_noted_on_what_came_of_it(kept: Path) -> None:
    async def swallow() -> None:
        async with connect(f"replay:?file={kept}") as bridge:
            chat = await bridge.create()
            with suppress(ReplayMismatch):
                await chat.send("Zwei")
            raise LookupError("no answer")

    with pytest.raises(LookupError) as caught:
        await swallow()
    (note,) = caught.value.__notes__
    assert "is not in the recording" in note
    assert '\n+  "message": "Zwei"' in note


async def test_rest_ignore_lets_everything_be_at_the_end(kept: Path) -> None:
    async with replayed(kept, rest="ignore") as bridge:
        with pytest.raises(ReplayMismatch):
            await bridge.open("x").delete()


# ----------------------------------------------------------------------------------------- the rest


async def test_what_was_never_asked_for_is_told_at_the_end(kept: Path) -> None:
    with pytest.raises(
        ReplayIncomplete, match=r"has 2 calls that were never made: 3, POST /chats/.*; 4, POST"
    ) as caught:
        await play(kept, "One")

    assert 2 == len(caught.value.calls)
    assert caught.value.calls == pickle.loads(pickle.dumps(caught.value)).calls


def test_of_many_calls_the_first_are_named() -> None:
    error = ReplayIncomplete("x.jsonl", [str(number) for number in range(9)])

    assert "9 calls that were never made: 0; 1; 2; 3; 4; and 4 more (rest=ignore lets them be)" in str(error)


async def test_the_blocks_own_error_comes_first(kept: Path) -> None:
    with pytest.raises(KeyError):
        async with replayed(kept):
            raise KeyError


# ------------------------------------------------------------------------------------ order and ids


async def test_calls_at_once_may_come_in_any_order(path: Path) -> None:
    async def talk(session: Session, texts: tuple[str, ...] = ("One", "Two", "Three")) -> None:
        chats = [await session.bridge.create() for _ in texts]
        replies = await asyncio.gather(*(chat.send(text) for chat, text in zip(chats, texts, strict=True)))
        session.results += replies

    told = await record(H2OGPTeEmulator(), path, talk)
    change(path, 4, seconds=100.0)
    change(path, 5, seconds=200.0)

    async def backwards(session: Session) -> None:
        chats = [await session.bridge.create() for _ in range(3)]
        texts = ("One", "Two", "Three")
        pairs = list(zip(chats, texts, strict=True))
        session.results += reversed(
            await asyncio.gather(*(chat.send(text) for chat, text in reversed(pairs)))
        )

    results, _ = await replay(path, backwards)
    assert told[0] == results


START = datetime.fromisoformat(STARTED)


def timed(path: Path, *spans: tuple[float, float]) -> None:
    """Let the calls of a recording have begun and been answered at these seconds after its start."""
    for number, (begun, answered) in enumerate(spans, start=1):
        at = START + timedelta(seconds=answered)
        change(path, number, at=at.isoformat(), seconds=answered - begun)


async def test_a_call_that_comes_before_one_that_it_came_after_is_a_mismatch(kept: Path) -> None:
    timed(kept, (0, 1), (2, 3), (4, 5), (6, 7))
    await play(kept, "One", "Two", "Three")

    with pytest.raises(
        ReplayMismatch,
        match=r"^POST /chats/.* comes too early: in the recording '.*' it is call 3, and call 2, "
        "POST /chats/.* was answered before it began$",
    ) as caught:
        await play(kept, "Two", "One", "Three")
    assert (Outcome.NOT_SENT, "") == (caught.value.outcome, caught.value.difference)


async def test_a_state_is_not_read_before_what_changed_it(path: Path) -> None:
    async def count(bridge: Bridge) -> int:
        return len([each async for each in bridge.conversations()])

    async def talk(session: Session) -> None:
        session.results.append(await count(session.bridge))
        await session.bridge.create()
        session.results.append(await count(session.bridge))

    told = await record(H2OGPTeEmulator(), path, talk)
    timed(path, (0, 1), (2, 3), (4, 5))

    assert told == await replay(path, talk)
    with pytest.raises(ReplayMismatch, match="call 1, GET /chats"):
        async with replayed(path) as bridge:
            await bridge.create()


async def test_calls_of_which_a_replay_may_do_without_may_be_overtaken(kept: Path) -> None:
    timed(kept, (0, 1), (2, 3), (4, 5), (6, 7))
    change(kept, 2, status=None, answer=None, end="left")
    change(kept, 3, status=None, answer=None, end="failed", failure={"phase": "queue", "reason": "late"})

    await play(kept, "Three")


async def test_a_call_lets_those_of_other_tasks_go_first(path: Path) -> None:
    """One task may have thought longer when it was recorded."""

    async def talk(session: Session) -> None:
        chats = [await session.bridge.create() for _ in range(2)]

        async def ask(chat: Chat) -> list[Reply]:
            return [await chat.send(text) for text in ("One", "Two")]

        session.results += await asyncio.gather(*map(ask, chats))

    told = await record(H2OGPTeEmulator(), path, talk)
    calls = [json.loads(each).get("body") for each in read(path)[1:]]
    firsts, seconds = ([n for n, body in enumerate(calls, 1) if text in str(body)] for text in ("One", "Two"))
    spans = {1: (0.0, 1.0), 2: (1.0, 2.0), firsts[0]: (3.0, 13.0), firsts[1]: (3.0, 4.0)}
    spans |= {seconds[0]: (14.0, 15.0), seconds[1]: (16.0, 17.0)}
    timed(path, *(spans[number] for number in sorted(spans)))

    results, _ = await replay(path, talk)
    assert told[0] == results


async def test_equal_calls_are_answered_in_the_order_of_the_recording(path: Path) -> None:
    async def talk(session: Session) -> None:
        chat = await session.bridge.create()
        for text in ("Hello", "Hello"):
            await session.step(chat.send(text))
            await session.step(session.history(chat))

    told = await record(H2OGPTeEmulator(), path, talk)

    assert told == await replay(path, talk)


async def test_the_ids_of_messages_are_bound(path: Path) -> None:
    """A turn's id goes out to Mtmai, with the time; in a replay both are others."""
    ids: list[str] = []

    async def talk(session: Session) -> None:
        chat = await session.bridge.create()
        await session.step(chat.send("Hello"))
        ids.extend(turn.id for turn in await chat.turns())
        await session.step(chat.send("Hello"))

    told = await record(MtmaiEmulator(), path, talk, clock=ManualClock(wall=1_600_000_000.0))

    assert told == await replay(path, talk)


OURS, THEIRS = "0" * 31 + "1", "f" * 31 + "1"
OTHER = "0" * 31 + "2"
NOW = 1_600_000_000.0


def line(**fields: Any) -> Exchange:
    known: dict[str, Any] = {
        "number": 1,
        "at": None,
        "seconds": 0,
        "method": "POST",
        "path": "/",
        "end": "whole",
    }
    return Exchange(**known | fields)


def matches(matcher: Matcher, recorded: Any, now: Any, own: str | None = None) -> bool:
    return matcher.matches(line(body={"json": recorded}), Asked("POST", "/", {"json": now}, own), NOW)


@pytest.mark.parametrize(
    ("recorded", "now"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, [1]),
        ([1], [1, 1]),
        ([1], [1.5]),
        ("a", "b"),
        ("id ***:1", "ide sk"),
        ("what is ***", "what is it"),
        ("what is ***:0", "what is it"),
        (OURS, "x"),
        (None, 0),
        ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"),
    ],
)
def test_what_differs_does_not_match(recorded: Any, now: Any) -> None:
    assert not matches(Matcher(NOW, NOW), recorded, now)
    assert matches(Matcher(NOW, NOW), recorded, recorded)


def test_a_secret_matches_any_text() -> None:
    assert matches(
        Matcher(NOW, NOW), "my key is ***:2, or ***:31 (what?)", "my key is sk\n-1, or a.b (what?)"
    )


def test_what_only_looks_like_a_secret_matches_itself() -> None:
    def same(now: str, literal: list[str] | None = None) -> bool:
        exchange = line(body={"json": "a *** is ***:1, not ***:2"}, literal=literal)
        return Matcher(NOW, NOW).matches(exchange, Asked("POST", "/", {"json": now}), NOW)

    assert same("a *** is this, not that")
    assert not same("a star is this, not that")
    assert same("a *** is ***:1, not that", ["***:1"])
    assert not same("a *** is this, not that", ["***:1"])
    assert not same("a *** is ***:1, not that", ["***:1", "***:2"])


def test_a_moment_of_now_matches_a_moment_of_then() -> None:
    matcher = Matcher(NOW, 40.0)
    at = datetime.fromtimestamp(NOW + 5, UTC)
    exchange = line(at=at, body={"json": [(NOW + 1.5) * 1000, "2020-09-13T12:26:40Z"]})

    def now(*values: object) -> bool:
        return matcher.matches(exchange, Asked("POST", "/", {"json": list(values)}), 50.0)

    assert now(45, "1970-01-01T00:00:50Z")
    assert not now(60, "1970-01-01T00:00:50Z")


def test_the_id_of_a_message_is_bound_once_and_for_all() -> None:
    matcher = Matcher(NOW, NOW)

    assert matches(matcher, [THEIRS, f"/x/{THEIRS}"], [OURS, f"/x/{OURS}"], OURS)
    assert matches(matcher, THEIRS, OURS)
    assert not matches(matcher, THEIRS, OTHER, OTHER)
    assert not matches(matcher, "e" * 32, OURS, OURS)
    assert f'"{OURS}"'.encode() == matcher.in_ours(f'"{THEIRS}"'.encode())
    assert not matches(matcher, ["e" * 32, "d" * 32], [OTHER, OTHER], OTHER)


def test_an_id_that_the_server_gave_out_is_no_other() -> None:
    matcher = Matcher(NOW, NOW)
    matcher.played(line(answer={"json": {"id": f"chat_{THEIRS}"}}))

    assert not matches(matcher, THEIRS, OURS, OURS)


def test_an_id_that_is_not_the_messages_own_is_a_text_like_any_other() -> None:
    matcher = Matcher(NOW, NOW)

    assert not matches(matcher, THEIRS, OURS)
    assert not matches(matcher, [THEIRS], [OURS], OTHER)
    assert not matches(matcher, "own-1", "own-2", "own-2")


@pytest.mark.parametrize("emulator", [MtmaiEmulator, H2OGPTeEmulator])
async def test_an_id_that_the_program_says_is_compared(path: Path, emulator: Callable[[], Emulator]) -> None:
    """Be it that of a conversation, or all of a message."""
    text, other = str(UUID(OURS)), str(UUID(OTHER))
    async with serve(emulator()) as at:
        async with at.connect() as bridge:
            chat_id = (await bridge.create()).id
        async with at.connect(record=path) as bridge:
            await bridge.open(chat_id).send(text)

    async with replayed(path) as bridge:
        await bridge.open(chat_id).send(text)
    for asked in ((other, text), (chat_id, other)):
        with pytest.raises(ReplayMismatch):
            async with replayed(path) as bridge:
                await bridge.open(asked[0]).send(asked[1])


def test_a_request_without_a_body_is_no_request_with_one() -> None:
    assert not Matcher(NOW, NOW).matches(line(), Asked("POST", "/", {"json": 1}), 0.0)
    assert Matcher(NOW, NOW).matches(line(body={"text": "a ***:1"}), Asked("POST", "/", {"text": "a b"}), 0.0)


# ------------------------------------------------------------------------------- time and broken ends


async def test_time_is_the_recordings(kept: Path) -> None:
    change(kept, 1, seconds=30.0)
    async with replayed(kept, rest="ignore") as bridge:
        begun = bridge.clock.now()
        await bridge.create()

        assert 30.0 <= bridge.clock.now() - begun < 31.0
        recording = Recording.load(kept)
        at = recording.exchanges[0].at
        assert at is not None
        assert at.timestamp() == pytest.approx(bridge.clock.wall())


async def test_a_date_to_come_back_at_is_seen_from_its_own_time(kept: Path) -> None:
    wanted = "Sat, 21 Nov 2026 07:49:03 GMT"
    refused = {
        "status": 429,
        "answer_headers": [["Retry-After", wanted]],
        "answer": None,
        "at": "2026-11-21T07:49:00+00:00",
    }
    change(kept, 1, **refused)
    with pytest.raises(RateLimited) as caught:
        async with replayed(kept, attempts=1) as bridge:
            await bridge.create()

    assert 3.0 == caught.value.retry_after


async def test_on_another_clock_a_replay_takes_as_long_as_the_session(kept: Path) -> None:
    class Plain:
        """Not a `ManualClock`, though it goes like one."""

        def __init__(self) -> None:
            self._clock = ManualClock()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._clock, name)

    async with replayed(kept, rest="ignore", clock=Plain()) as bridge:
        await bridge.create()


def given_up(path: Path) -> None:
    """Write a recording of a call that its caller gave up."""
    call = {"number": 1, "at": STARTED, "seconds": 1.0, "method": "POST", "path": "/v1/broker/thread/create"}
    write(path, HEAD, {**call, "end": "left"})


async def test_a_call_that_was_given_up_waits_to_be_given_up(path: Path) -> None:
    given_up(path)
    async with replayed(path) as bridge:
        task = asyncio.create_task(bridge.create())
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_a_call_that_was_given_up_need_not_be_made(path: Path) -> None:
    given_up(path)
    async with replayed(path):
        pass


async def test_a_call_that_never_began_need_not_be_made(path: Path) -> None:
    """As a last look for a message when all time is over: whether there is time for it is a close call."""
    call = {"number": 1, "at": STARTED, "seconds": 0, "method": "POST", "path": "/v1/broker/thread/create"}
    write(path, HEAD, {**call, "end": "failed", "failure": {"phase": "queue", "reason": "no time"}})

    async with replayed(path):
        pass
    async with replayed(path) as bridge:
        with pytest.raises(ChatbridgeError, match="no time"):
            await bridge.create()


async def test_a_session_whose_whole_time_ran_out_can_be_replayed(path: Path) -> None:
    clock, held = ManualClock(), Fault(hold=asyncio.Event())

    async def talk(session: Session) -> None:
        chat = await session.bridge.create()
        session.plan(held)
        sending = asyncio.create_task(session.step(chat.send("Slow")))
        if session.bridge.clock is clock:
            await held.reached.wait()
            clock.advance(session.bridge.options.timeout)
        await sending

    told = await record(H2OGPTeEmulator(), path, talk, clock=clock)

    assert told[0] == (await replay(path, talk))[0]


async def test_a_call_that_was_given_up_ends_when_the_bridge_is_closed(path: Path) -> None:
    given_up(path)
    async with replayed(path) as bridge:
        task = asyncio.create_task(bridge.create())
        for _ in range(20):
            await asyncio.sleep(0)
    await asyncio.wait([task])
    assert "the bridge was closed" in str(task.exception())


async def test_who_waits_for_an_answer_that_nobody_waited_for_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReplayTransport, "PATIENCE", 0)
    given_up(path)
    with pytest.raises(ReplayMismatch, match="1, POST /v1/broker/thread/create has no answer"):
        async with replayed(path) as bridge:
            await bridge.create()


FIRST = '{"session_id":"s","body":"So","finished":false}\n'


@pytest.fixture
async def left(path: Path) -> Path:
    """Record a stream that its reader leaves."""

    async def talk(session: Session) -> None:
        chat = await session.bridge.create()
        async with chat.stream("Tell me more") as stream:
            await anext(stream)

    await record(H2OGPTeEmulator(), path, talk, settle_timeout=0)
    return path


async def test_a_stream_that_was_left_can_be_left_again(left: Path) -> None:
    async with replayed(left) as bridge:
        chat = await bridge.create()
        async with chat.stream("Tell me more") as stream:
            await anext(stream)


async def test_who_reads_on_where_nobody_did_is_told(left: Path) -> None:
    change(left, 2, pieces=[FIRST], end="left")
    with pytest.raises(StreamCut, match="the program left this answer when it was recorded"):
        await play_stream(left, "Tell me more")


async def test_who_reads_on_and_hides_it_is_told_at_the_end(left: Path) -> None:
    change(left, 2, pieces=[FIRST], end="left")
    bridge = connect(f"replay:?file={left}")
    chat = await bridge.create()
    async with chat.stream("Tell me more") as stream:
        with pytest.raises(StreamCut):
            _ = [event async for event in stream]
    with pytest.raises(ReplayMismatch, match="the program left this answer when it was recorded"):
        await bridge.close()


async def test_a_stream_ends_when_the_bridge_is_closed(left: Path) -> None:
    change(left, 2, pieces=[FIRST, {"base64": "eA=="}], end="left")
    async with replayed(left) as bridge:
        chat = await bridge.create()
        async with chat.stream("Tell me more") as stream:
            await anext(stream)
            await bridge.close()
            with pytest.raises(ChatbridgeError, match="closed"):
                _ = [event async for event in stream]


async def test_a_call_after_the_end_is_refused(kept: Path) -> None:
    bridge = connect(f"replay:?file={kept}", rest="ignore")
    transport = vars(bridge)["_transport"]
    assert isinstance(transport, Transport)
    await transport.close()
    with pytest.raises(ChatbridgeError, match="closed"):
        await bridge.create()
    await bridge.close()


async def test_an_error_of_the_api_is_the_same_error(kept: Path) -> None:
    change(kept, 2, status=404, answer={"text": "gone"})
    with pytest.raises(NotFound, match="gone"):
        await play(kept, "One")


async def test_an_answer_that_a_recording_does_not_have_is_an_empty_one(kept: Path) -> None:
    change(kept, 1, answer=None)
    with pytest.raises(AnswerLost, match="nothing where a JSON document was expected"):
        await play(kept)


async def test_an_answer_may_be_read_otherwise_than_it_was(kept: Path) -> None:
    """As another version of an adapter may."""
    (answer,) = Recording.load(kept).exchanges[0].parts()
    change(kept, 1, answer=None, pieces=[answer[:5].decode(), answer[5:].decode()])
    async with replayed(kept, rest="ignore") as bridge:
        assert json.loads(answer)["id"] == (await bridge.create()).id


@pytest.mark.parametrize("own", ["own-1", "too long for Mtmai, and half a character: \ud800"])
async def test_a_message_with_an_id_of_the_users_is_compared_by_it(path: Path, own: str) -> None:
    async def talk(session: Session) -> None:
        chat = await session.bridge.create()
        await session.step(chat.send(Message(Role.USER, (Text("Hello"),), id=own)))

    told = await record(MtmaiEmulator(), path, talk)

    assert told == await replay(path, talk)

"""Recordings: what is written of an exchange, what never is, and that it can be read again."""

from __future__ import annotations

import asyncio
import json
import stat
from base64 import b64encode
from datetime import UTC
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import BackendURL, Chat, ChatbridgeError, ConfigError, connect
from chatbridge.errors import Phase
from chatbridge.http.recorder import RecordingIncomplete, scrub_json, scrub_pieces
from chatbridge.http.recording import (
    VERSION,
    BadRecording,
    Exchange,
    Head,
    Recording,
    body_of,
    bytes_of,
    failure_of,
)
from chatbridge.http.redact import Redactor
from chatbridge.retry import Failure
from chatbridge.secret import Secret
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault, serve
from chatbridge.testing.replay import ReplayMismatch
from chatbridge_adapters.datamonkey.emulator import DatamonkeyEmulator
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from chatbridge_adapters.kaziro.emulator import KaziroEmulator
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator
from fault_server import FaultServer, Step, answer, chunked
from operations import APIS
from recorded import Session, record, replay
from scan import KEY, SPELLINGS, assert_nothing_in

STARTED = "2026-11-21T07:48:58.764586+00:00"
SAID = " ".join(SPELLINGS.values())
HEAD: dict[str, Any] = {
    "format": "chatbridge-recording",
    "version": 1,
    "chatbridge": "0.1.0",
    "started": STARTED,
    "config": "kaziro:",
}
LINE: dict[str, Any] = {
    "number": 1,
    "at": STARTED,
    "seconds": 0.5,
    "method": "GET",
    "path": "/",
    "end": "whole",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept.jsonl"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read(path).splitlines()]


# ------------------------------------------------------------------------------------- a session


async def everything(session: Session) -> None:
    """Create, send, stream and read; meet a 429, a lost answer and a broken stream."""
    session.plan(Fault(status=429, headers={"Retry-After": "2"}))
    chat = await session.bridge.create()
    await session.step(chat.send("Hello, 世界"))
    await session.step(session.streamed(chat, "Tell me more of it"))
    await session.step(session.history(chat))
    session.plan(Fault(drop="after"))
    await session.step(chat.send("Is it lost?"))
    for turn in await chat.turns():
        await chat.waive(turn)
    session.plan(Fault(cut_after=1))
    await session.step(session.streamed(chat, "Go on, in many words"))
    for turn in await chat.turns():
        await chat.waive(turn)
    session.plan(Fault(status=404))
    await session.step(chat.send("Are you there?"))


@pytest.mark.parametrize("name", APIS)
async def test_a_replay_is_as_the_session_was(name: str, path: Path) -> None:
    """With the same results, errors and attempts, and without the server."""
    told = await record(APIS[name].emulator(), path, everything)

    assert told == await replay(path, everything)


async def test_a_config_string_records(path: Path) -> None:
    async with serve(H2OGPTeEmulator()) as at:
        url = f"record+{at.config}?record={path}"
        async with connect(url, key="sk-emulator", clock=ManualClock()) as bridge:
            await bridge.create()

    head, created = lines(path)
    assert at.config == head["config"]
    assert {"key": "***:1"} == head["secrets"]
    assert ("POST", "/chats", 201) == (created["method"], created["path"], created["status"])
    assert "whole" == created["end"]


async def test_options_are_kept_wherever_they_came_from(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TACHYON_OPERATOR_ID", "op-1")
    monkeypatch.setenv("TACHYON_API_KEY", KEY)
    url = f"record+tachyon:m-1?record={path}"
    async with connect(url, include=["usage"], strict=True):
        pass

    (head,) = lines(path)
    assert {"operator": "op-1", "model": "m-1", "include": ["usage"], "strict": True} == head["options"]
    assert_nothing_in(read(path), "the file")


# ----------------------------------------------------------------------------------- how it ended


def test_a_failure_is_written_and_read_whole() -> None:
    failure = Failure(Phase.BODY, "cut", kind="cut", timed_out=True, status=200, final=True, request_id="r")
    exchange = Exchange(
        number=1, at=None, seconds=0, method="GET", path="/", end="failed", failure=failure_of(failure)
    )

    assert failure_of(failure) == failure_of(exchange.failed() or Failure(Phase.LOST, ""))


class Server:
    """A bridge to a server that plays *scripts*, recorded in a file."""

    def __init__(self, path: Path, *scripts: tuple[Any, ...], **options: Any) -> None:
        self.server = FaultServer(scripts)
        self.path = path
        self.options: dict[str, Any] = {"key": KEY, "settle_timeout": 0, "clock": ManualClock(), **options}
        self.scheme = "kaziro"

    async def __aenter__(self) -> Chat:
        await self.server.__aenter__()
        url = self.server.url.replace("http:", f"{self.scheme}+http:")
        self.bridge = connect(url, record=self.path, **self.options)
        return self.bridge.open("t-1")

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.bridge.close()
        finally:
            await self.server.__aexit__()


async def test_a_body_that_breaks_off_is_a_failure_with_its_head(path: Path) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nX-Request-Id: r-7\r\n\r\n{"
    async with Server(path, (Step.READ, cut, Step.FIN), attempts=1) as chat:
        with pytest.raises(ChatbridgeError) as caught:
            await chat.send("Hello")

    _, line = lines(path)
    assert ("failed", 200) == (line["end"], line["status"])
    assert {"phase": "body", "kind": "cut", "status": 200, "request_id": "r-7"}.items() <= line[
        "failure"
    ].items()
    assert ["X-Request-ID", "r-7"] in line["answer_headers"]
    async with connect(f"replay:?file={path}") as bridge:
        with pytest.raises(type(caught.value)) as again:
            await bridge.open("t-1").send("Hello")
    assert (str(caught.value), "r-7") == (str(again.value), again.value.request_id)


async def test_what_is_neither_json_nor_text_is_kept_too(path: Path) -> None:
    odd = b"\xff\xfe not text"
    pages = (answer(b"<p>no</p>", "404 Not Found"), answer(odd, "404 Not Found"))
    async with Server(path, *((Step.READ, page) for page in pages)) as chat:
        for _ in pages:
            with pytest.raises(ChatbridgeError):
                await chat.send("Hello")

    _, page, other = lines(path)
    assert {"text": "<p>no</p>"} == page["answer"]
    assert {"base64": b64encode(odd).decode()} == other["answer"]


async def test_a_call_that_is_cancelled_is_written_as_left(path: Path) -> None:
    box = Server(path, (Step.READ, Step.STALL))
    async with box as chat:
        task = asyncio.create_task(chat.send("Hello"))
        await box.server.reached.wait()
        task.cancel()
        await asyncio.wait([task])

    _, line = lines(path)
    assert "left" == line["end"]
    assert "status" not in line


async def test_a_call_under_way_when_the_bridge_is_closed_is_written_as_left(path: Path) -> None:
    box = Server(path, (Step.READ, Step.STALL))
    async with box as chat:
        task = asyncio.create_task(chat.send("Hello"))
        await box.server.reached.wait()
        await box.bridge.close()
        await asyncio.wait([task])

    _, line = lines(path)
    assert "left" == line["end"]
    assert isinstance(task.exception(), ChatbridgeError)


async def test_a_body_under_way_when_the_bridge_is_closed_is_written_as_left(path: Path) -> None:
    box = Server(path, (Step.READ, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", Step.STALL))
    async with box as chat:
        task = asyncio.create_task(chat.send("Hello"))
        await box.server.reached.wait()
        while not box.server.left.is_set():
            await asyncio.sleep(0)
            if vars(vars(box.bridge)["_transport"])["_responses"]:
                await box.bridge.close()
        await asyncio.wait([task])

    _, line = lines(path)
    assert ("left", None) == (line["end"], line.get("status"))


CHUNK = b'{"session_id":"s","body":"So","finished":false}\n'


async def test_a_stream_that_the_reader_leaves_is_written_as_left(path: Path) -> None:
    box = Server(path, (Step.READ, chunked(CHUNK, last=b""), Step.STALL))
    box.scheme = "h2ogpte"
    async with box as chat, chat.stream("Hello") as stream:
        await anext(stream)

    _, line = lines(path)
    assert ("left", [CHUNK.decode()]) == (line["end"], line["pieces"])


@pytest.mark.parametrize("then", ["silence", "close"])
async def test_a_stream_that_ends_while_its_reader_waits(path: Path, then: str) -> None:
    clock = ManualClock()
    box = Server(path, (Step.READ, chunked(CHUNK, last=b""), Step.STALL), clock=clock)
    box.scheme = "h2ogpte"

    async def read(chat: Chat) -> None:
        async with chat.stream("Hello") as stream:
            async for _ in stream:
                pass

    async with box as chat:
        task = asyncio.create_task(read(chat))
        await box.server.reached.wait()
        for _ in range(200):
            await asyncio.sleep(0)
        if then == "silence":
            clock.advance(61)
        else:
            await box.bridge.close()
        await asyncio.wait([task])

    assert isinstance(task.exception(), ChatbridgeError)
    _, line = lines(path)
    if then == "silence":
        assert {"phase": "events", "kind": "idle", "timed_out": True}.items() <= line["failure"].items()
    else:
        assert "left" == line["end"]


# ---------------------------------------------------------------------------------------- secrets


HEADERS = {
    "X-Request-Id": KEY,
    "Location": f"http://user:{KEY}@elsewhere.example/{KEY}?key={KEY}",
    "WWW-Authenticate": f'Bearer error="{KEY}"',
    "Set-Cookie": f"key={KEY}",
}
BODIES = [
    SAID.encode(),
    b"".join(b"\xff" + spelling.encode() for spelling in SPELLINGS.values()),
    json.dumps({"message": SAID, SAID: [SAID, {"error": SAID}], "escaped": json.dumps(SAID)}).encode(),
]


@pytest.mark.parametrize("name", APIS)
async def test_no_secret_reaches_the_file(name: str, path: Path) -> None:
    emulator = APIS[name].emulator()
    if hasattr(emulator, "key"):
        emulator.key = KEY

    async def talk(session: Session) -> None:
        chat = await session.bridge.create()
        for body in BODIES:
            for status in (200, 400):
                session.plan(Fault(status=status, body=body, headers=HEADERS))
                await session.step(chat.send("Hello"))
                for turn in await chat.turns():
                    await chat.waive(turn)
        session.plan(Fault(status=200, body=SAID.encode()))
        await session.step(session.streamed(chat, "Hello"))
        for turn in await chat.turns():
            await chat.waive(turn)
        await session.step(chat.send(f"My key is {KEY}, or {SPELLINGS['basic']}"))

    told = await record(emulator, path, talk, settle_timeout=0)

    text = read(path)
    assert_nothing_in(text, "the file")
    for value in SPELLINGS.values():
        assert json.dumps(value)[1:-1] not in text
    results, _ = await replay(path, talk)
    assert [type(each) for each in told[0]] == [type(each) for each in results]
    assert len(told[0]) == len(results) == 8


async def test_what_a_user_writes_like_a_mask_is_told_from_a_secret(path: Path) -> None:
    """And the replay does not take another message for it."""
    key = "sk-***:77-1234"
    emulator = H2OGPTeEmulator()
    emulator.key = key

    def saying(word: str, typed: str = key) -> Any:
        async def talk(session: Session) -> None:
            chat = await session.bridge.create()
            await session.step(chat.send(f"What does {word} mean?"))
            await session.step(chat.send(f"My key is {typed}"))

        return talk

    told = await record(emulator, path, saying("*** or ***:1 or ***:9"), settle_timeout=0)

    assert [None, ["***:1", "***:9"], None] == [each.get("literal") for each in lines(path)[1:]]
    assert "***:77" not in read(path)
    assert len(told[0]) == len((await replay(path, saying("*** or ***:1 or ***:9", "sk-other")))[0])
    for other in ("the law or ***:1 or ***:9", "*** or a or ***:9"):
        with pytest.raises(ReplayMismatch):
            await replay(path, saying(other))


TOKEN = "tok-9fYq/+7aB3xkLmZ"


async def test_a_token_is_hidden_in_the_very_answer_that_brings_it(path: Path) -> None:
    body = json.dumps({"id": "c-1", "title": f"The token is {TOKEN}", "created": 1, "updated": 2}).encode()
    made = answer(body, "201 Created", f"X-Session-Token: {TOKEN}")
    listed = answer(b'{"conversations": []}')
    box = Server(path, (Step.READ, made), (Step.READ, listed), key=None)
    box.scheme = "datamonkey"
    async with box:
        await box.bridge.create()
        _ = [each async for each in box.bridge.conversations()]

    text = read(path)
    assert TOKEN not in text
    assert [f"Bearer {TOKEN}"] == box.server.requests[1].header("Authorization")
    _, line, _ = lines(path)
    assert line["answer"]["json"]["title"].startswith("The token is ***:")
    async with connect(f"replay:?file={path}") as bridge:
        chat = await bridge.create()
        assert "c-1" == chat.id
        assert [] == [each async for each in bridge.conversations()]


async def test_a_session_that_is_replaced_is_so_in_the_replay(path: Path) -> None:
    """Each secret has a mask of its own, so that one can be told from another."""

    async def talk(session: Session) -> None:
        for _ in range(2):
            chat = await session.bridge.create()
            session.results.append(chat.conversation.warnings)
            emulator.sessions.clear()

    emulator = DatamonkeyEmulator()
    told = await record(emulator, path, talk, key=None)

    first, second = told[0]
    assert () == first
    assert "opened another session" in str(second)
    assert told == await replay(path, talk)


async def test_an_unknown_cookie_is_taken_for_a_secret(path: Path) -> None:
    said = answer(
        b'"seen: abcdefgh12345678, 1234567890123"',
        "404 Not Found",
        "Set-Cookie: sid=abcdefgh12345678; Path=/",
        "X-Session-Tokens-Left: 1234567890123",
    )
    async with Server(path, (Step.READ, said)) as chat:
        with pytest.raises(ChatbridgeError):
            await chat.send("Hello")

    text = read(path)
    assert "abcdefgh" not in text
    assert ", 1234567890123" in text


@pytest.mark.parametrize("auth", ["basic", "cookie"])
async def test_a_key_is_presented_in_a_replay_as_it_was(path: Path, auth: str) -> None:
    """What stands for it has its form."""
    emulator = MtmaiEmulator()
    emulator.key = given = {"basic": "name:pass-word", "cookie": "cookie-value"}[auth]

    async def talk(session: Session) -> None:
        session.results.append((await session.bridge.create()).conversation)

    told = await record(emulator, path, talk, auth=auth)

    text = read(path)
    assert not [
        part for part in ("pass-word", "cookie-value", b64encode(given.encode()).decode()) if part in text
    ]
    assert told == await replay(path, talk)


def redactor(*secrets: str) -> Redactor:
    return Redactor(map(Secret, secrets))


@given(st.lists(st.integers(0, 60), max_size=4), st.sampled_from(["", "é世", "x"]))
def test_a_secret_is_found_wherever_a_stream_is_cut(cuts: list[int], around: str) -> None:
    whole = f"{around}{KEY}{around}, {SPELLINGS['quoted']}{around}".encode()
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[low:high] for low, high in pairwise(places)]

    written = scrub_pieces(pieces, redactor(KEY))

    exchange = Exchange(number=1, at=None, seconds=0, method="", path="", end="whole", pieces=list(written))
    assert f"{around}***:1{around}, ***:1{around}".encode() == b"".join(exchange.parts())
    assert len(pieces) == len(written)


def test_the_beginning_of_a_secret_at_the_end_of_a_stream_is_hidden() -> None:
    assert ["it is ***:1"] == scrub_pieces([f"it is {KEY[:9]}".encode()], redactor(KEY))


@given(st.lists(st.binary(max_size=8), max_size=6))
def test_pieces_without_secrets_stay_as_they_are(pieces: list[bytes]) -> None:
    written = scrub_pieces(pieces, redactor(KEY))

    exchange = Exchange(number=1, at=None, seconds=0, method="", path="", end="whole", pieces=list(written))
    assert pieces == exchange.parts()


def test_a_number_that_holds_a_secret_stays_a_number() -> None:
    assert {"a": [0, 1.5, True, None]} == scrub_json(
        {"a": [7712345678, 1.5, True, None]}, redactor("12345678")
    )


def test_each_secret_has_its_own_mask() -> None:
    known = redactor("first-one", "second-one", "first-one")

    assert "***:1 and ***:2" == known.scrub("first-one and second-one")
    assert "***:1" == known.mask(Secret("first-one"))
    assert Secret("third-one") not in known
    assert "as it is" == redactor().scrub("as it is")


# --------------------------------------------------------------------------------- the config string


def test_record_is_a_part_of_the_config_string() -> None:
    url = BackendURL.parse("Record+h2ogpte+http://127.0.0.1:81/api?llm=a&record=/tmp/x.jsonl")

    assert "record+h2ogpte+http://127.0.0.1:81/api?llm=a&record=/tmp/x.jsonl" == str(url)
    assert url == BackendURL.parse(str(url))
    assert url != BackendURL.parse(str(url).removeprefix("record+"))
    assert ("h2ogpte", True) == (url.scheme, url.recorded)
    assert BackendURL.parse("h2ogpte+http://127.0.0.1:81/api?llm=a") == url.unrecorded()
    assert "record+kaziro:" == str(BackendURL.parse("record+kaziro:"))


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("record+kaziro:", {}),
        ("kaziro:?record=x.jsonl", {}),
        ("kaziro:?record=x.jsonl", {"record": "y.jsonl"}),
        ("record+kaziro:?record=", {}),
        ("kaziro:", {"record": ""}),
    ],
)
def test_half_a_wish_to_record_says_what_to_write(url: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"as in record\+kaziro:\?record=FILE, or in code connect"):
        connect(url, key=KEY, **given)


def test_a_file_is_named_by_its_path() -> None:
    with pytest.raises(ConfigError, match=r"kaziro: record is the path of a file, not int"):
        connect("kaziro:", key=KEY, record=1)


def test_what_lives_in_the_process_cannot_be_recorded(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fake lives in this process: there is no exchange"):
        connect("fake:", record=path)
    assert not path.exists()


def test_a_secret_that_is_hardly_one_cannot_be_hidden(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kaziro: the key is too short to record with: under 4"):
        connect("kaziro:", key="abc", record=path)
    assert not path.exists()


# ------------------------------------------------------------------------------------------ the file


def test_a_file_is_its_owners_and_replaces_what_was_there(path: Path) -> None:
    path.write_text("old\n" * 100, encoding="utf-8")
    path.chmod(0o644)

    connect("kaziro:", key=KEY, record=str(path))

    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert ["kaziro:"] == [line["config"] for line in lines(path)]


@pytest.mark.parametrize("place", ["no/such/kept.jsonl", ""])
def test_a_file_that_cannot_be_written_is_an_error_at_once(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match=r"the recording '.*' cannot be written: "):
        connect("kaziro:", key=KEY, record=tmp_path / place)


async def test_a_file_that_goes_away_costs_no_answer(path: Path) -> None:
    async with serve(KaziroEmulator()) as at:
        bridge = connect(at.config, key="sk-emulator", record=path)
        chat = await bridge.create()
        path.unlink()  # noqa: ASYNC240 - a test's
        assert [reply.text for reply in [await chat.send("One"), await chat.send("Two")]]
        with pytest.warns(RecordingIncomplete, match=r"the recording '.*' is incomplete: No such file"):
            await bridge.close()


# ----------------------------------------------------------------------------------------- the format


texts = st.text(st.characters(exclude_categories=()), max_size=8)


def json_of(text: str) -> dict[str, Any]:
    return {"json": [text]}


bodies: st.SearchStrategy[Any] = st.none() | st.binary(max_size=20).map(body_of) | texts.map(json_of)
headers = st.lists(st.tuples(texts, texts).map(list), max_size=3)
unknown = st.dictionaries(texts.map(lambda text: f"x{text}"), st.none() | st.booleans() | texts, max_size=2)


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    failed = draw(st.booleans())
    failure = failure_of(Failure(draw(st.sampled_from(Phase)), draw(texts), timed_out=draw(st.booleans())))
    return Exchange(
        number=draw(st.integers(1, 99)),
        at=draw(st.none() | st.datetimes(timezones=st.just(UTC))),
        seconds=draw(st.floats(0, 1e6)),
        method=draw(texts),
        path=draw(texts),
        headers=draw(headers),
        body=draw(bodies),
        status=draw(st.none() | st.integers(200, 599)),
        literal=draw(st.none() | st.lists(texts, min_size=1, max_size=2)),
        answer_headers=draw(headers),
        answer=draw(bodies),
        pieces=draw(
            st.none() | st.lists(texts | st.binary().map(lambda data: {"base64": b64encode(data).decode()}))
        ),
        end="failed" if failed else draw(st.sampled_from(["whole", "left"])),
        failure={**failure, **draw(unknown)} if failed else None,
        raw=draw(unknown),
    )


@given(st.lists(exchanges(), max_size=3, unique_by=lambda each: each.number), unknown)
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, kept: list[Exchange], more: dict[str, Any]
) -> None:
    """Fields that nobody knows among it."""
    path = tmp_path_factory.getbasetemp() / "round.jsonl"
    kept.sort(key=lambda each: each.number)
    recording = Recording(Head(started=None, config="kaziro:", raw=more), tuple(kept))

    recording.save(path)

    loaded = Recording.load(path)
    assert recording == loaded
    raws = [loaded.head.raw, *(each.raw for each in loaded.exchanges)]
    assert [more, *(each.raw for each in kept)] == [
        {name: value for name, value in raw.items() if name.startswith("x")} for raw in raws
    ]
    first = path.read_bytes()
    loaded.save(path)
    assert first == path.read_bytes()


@given(st.binary(max_size=30) | texts.map(lambda text: json.dumps([text, 1.5, None]).encode()))
def test_a_body_keeps_its_meaning(data: bytes) -> None:
    body = body_of(data)

    if "json" in body:
        assert body["json"] == json.loads(bytes_of(body))
    else:
        assert data == bytes_of(body)


def test_requests_come_in_the_order_in_which_they_were_made(path: Path) -> None:
    write(path, HEAD, {**LINE, "number": 2}, LINE)

    assert [1, 2] == [each.number for each in Recording.load(path).exchanges]


def write(path: Path, *values: dict[str, Any]) -> None:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"version": VERSION + 1, "chatbridge": "9.1"},
            "line 1: it is of version 2, written by chatbridge '9.1'",
        ),
        ({"version": "1"}, "line 1: its version is no number"),
        ({"format": "har"}, "line 1: it is no recording of chatbridge"),
        ({"config": 5}, r"line 1: expected a text @ \$.config"),
    ],
)
def test_a_foreign_file_is_refused(path: Path, change: dict[str, Any], problem: str) -> None:
    write(path, {**HEAD, **change})

    with pytest.raises(BadRecording, match=problem) as caught:
        Recording.load(path)
    assert 1 == caught.value.line


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"number": "1"}, r"expected a whole number @ \$.number"),
        ({"end": "soon"}, r"not of the documented form @ \$.end"),
        ({"end": "failed"}, "what failed has a failure"),
        ({"failure": {"phase": "lost", "reason": ""}}, "what failed has a failure"),
        ({"end": "failed", "failure": {"phase": "moon", "reason": ""}}, r"no such phase @ \$.failure.phase"),
        ({"headers": [["a"]]}, "a header is a pair"),
        ({"seconds": -1}, "no finite time"),
        ({"seconds": float("inf")}, "not JSON"),
        ({"body": {"text": 1}}, "neither json nor text nor base64"),
        ({"body": {}}, "neither json nor text nor base64"),
        ({"answer": {}}, "neither json nor text nor base64"),
        ({"pieces": [{"base64": "%"}]}, "neither json nor text nor base64"),
        ({"pieces": [1]}, "neither json nor text nor base64"),
    ],
)
def test_a_broken_line_is_named(path: Path, change: dict[str, Any], problem: str) -> None:
    write(path, HEAD, LINE, {**LINE, **change})

    with pytest.raises(BadRecording, match=f"line 3: .*{problem}") as caught:
        Recording.load(path)
    assert (3, path) == (caught.value.line, caught.value.path)


@pytest.mark.parametrize("tail", ['{"number": 1, "at"', "[" * 100_000, '{"number": NaN}', "", "[]"])
def test_a_file_that_breaks_off_is_refused(path: Path, tail: str) -> None:
    write(path, HEAD)
    path.write_text(f"{read(path)}{tail}\n", encoding="utf-8")

    with pytest.raises(BadRecording, match="line 2: "):
        Recording.load(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="cannot be read: No such file") as caught:
        Recording.load(tmp_path / "none.jsonl")
    assert None is caught.value.line
    (tmp_path / "odd").write_bytes(b"\xff")
    with pytest.raises(BadRecording, match="is not UTF-8"):
        Recording.load(tmp_path / "odd")
    with pytest.raises(BadRecording, match="cannot be written: Is a directory"):
        Recording(Head(started=None, config="kaziro:")).save(tmp_path)

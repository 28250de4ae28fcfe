"""What all emulators share: serving, the log of calls, planned faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import ClassVar

import aiohttp
import pytest
from attrs import define, field

from chatbridge import AuthFailed, BackendURL
from chatbridge.registry import backend_names, load_adapter
from chatbridge.testing.emulator import (
    Answer,
    BadBody,
    Call,
    Emulator,
    Fault,
    Kept,
    Operation,
    Refusal,
    serve,
)


@define(kw_only=True, eq=False)
class Echo(Emulator):
    """The smallest API with a send and a stream."""

    name: ClassVar[str] = "echo"
    base_path: ClassVar[str] = "/v1"
    key_variable: ClassVar[str] = "ECHO_KEY"

    kept: list[tuple[str, Kept, str | None]] = field(init=False, factory=list[tuple[str, Kept, str | None]])

    @property
    def operations(self) -> Sequence[Operation]:
        return (
            Operation("say", "POST", "/say", self._say),
            Operation("stream", "POST", "/stream", self._stream_words),
            Operation("look", "GET", "/look/{what}", self._look, public=True),
            Operation("break", "POST", "/break", self._break),
            Operation("lose", "POST", "/lose", self._lose),
            Operation("read", "POST", "/read", self._read),
        )

    def admit(self, call: Call) -> None:
        if call.bearer != self.key:
            raise Refusal(self.error(401, "No key"))

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
        return Answer.json({"error": message}, status=status, headers=headers)

    def error_line(self, message: str) -> bytes | None:
        return message.encode() + b"!\n"

    async def _say(self, call: Call) -> Answer:
        said = call.body.decode()
        return Answer.json({"said": said}, keep=lambda kept, error: self.kept.append((said, kept, error)))

    async def _stream_words(self, call: Call) -> Answer:
        words = call.body.decode().split()
        keep = self.kept.append
        return Answer.json_lines(words, keep=lambda kept, error: keep(("stream", kept, error)))

    async def _look(self, call: Call) -> Answer:
        return Answer.json([call.params["what"], dict(call.query)])

    async def _read(self, call: Call) -> Answer:
        return Answer.json(call.json())

    async def _break(self, call: Call) -> Answer:
        raise RuntimeError(call.path)

    async def _lose(self, call: Call) -> Answer:
        def keep(kept: Kept, error: str | None) -> None:
            raise RuntimeError(kept, error)

        del call
        return Answer.json("ok", keep=keep)


class Mute(Echo):
    """The same without error lines."""

    def error_line(self, message: str) -> bytes | None:
        return Emulator.error_line(self, message)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def http(echo: Echo) -> AsyncGenerator[aiohttp.ClientSession, None]:
    headers = {"Authorization": f"Bearer {echo.key}"}
    async with (
        serve(echo) as served,
        aiohttp.ClientSession(served.base_url + "/v1/", headers=headers) as session,
    ):
        yield session


async def test_a_call_is_logged_with_its_operation_and_all_that_was_sent(
    echo: Echo, http: aiohttp.ClientSession
) -> None:
    async with http.get("look/caf%C3%A9%2Fx?n=1&n=2") as response:
        assert ["café/x", {"n": "2"}] == await response.json()
    call = echo.calls[-1]
    assert ("look", "GET", "/v1/look/caf%C3%A9%2Fx", {"what": "café/x"}, {"n": "2"}, b"", 200) == (
        call.operation, call.method, call.path, call.params, call.query, call.body, call.status,
    )  # fmt: skip
    assert echo.key == call.bearer


@pytest.mark.parametrize("authorization", ["bearer x", "Basic x", ""])
async def test_only_the_bearer_scheme_gives_a_bearer_token(
    echo: Echo, http: aiohttp.ClientSession, authorization: str
) -> None:
    async with http.get("look/x", headers={"Authorization": authorization}):
        assert echo.calls[-1].bearer is None


async def test_an_operation_that_is_not_public_needs_the_key(http: aiohttp.ClientSession) -> None:
    async with http.post("say", headers={"Authorization": "Bearer wrong"}) as response:
        assert (401, {"error": "No key"}) == (response.status, await response.json())


@pytest.mark.parametrize(
    ("method", "path", "status", "message", "allow"),
    [("GET", "nowhere", 404, "Not Found", None), ("DELETE", "say", 405, "Method Not Allowed", "POST")],
)
async def test_an_unknown_route_is_answered_in_the_apis_error_form_and_logged(
    echo: Echo,
    http: aiohttp.ClientSession,
    method: str,
    path: str,
    status: int,
    message: str,
    allow: str | None,
) -> None:
    async with http.request(method, path, data=b"body") as response:
        assert (status, {"error": message}) == (response.status, await response.json())
        assert allow == response.headers.get("Allow")
    assert (None, status, b"body") == (echo.calls[-1].operation, echo.calls[-1].status, echo.calls[-1].body)


@pytest.mark.parametrize("path", ["break", "lose"])
async def test_a_bug_is_answered_with_a_500_and_recorded(
    echo: Echo, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.post(path) as response:
        assert (500, {"error": "Internal Server Error"}) == (response.status, await response.json())
    assert [RuntimeError] == [type(crash) for crash in echo.crashes]


async def test_a_whole_answer_announces_its_length_and_a_stream_does_not(
    echo: Echo, http: aiohttp.ClientSession
) -> None:
    async with http.post("say", data="a") as response:
        assert ("12", "application/json") == (
            response.headers["Content-Length"],
            response.headers["Content-Type"],
        )
    async with http.post("stream", data="a é") as response:
        assert "chunked" == response.headers["Transfer-Encoding"]
        assert b'"a"\n"\xc3\xa9"\n' == await response.read()
    assert [("a", "turn", None), ("stream", "turn", None)] == echo.kept


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"NaN", b"[-Infinity]", b'"\\ud800"', b"[" * 100_000])
def test_a_body_that_is_not_strict_json_is_refused(body: bytes) -> None:
    call = Call(operation=None, method="POST", path="/", params={}, query={}, headers={}, body=body)
    with pytest.raises(BadBody):
        call.json()


async def test_a_body_that_is_not_json_is_a_400_where_the_handler_does_not_say_otherwise(
    echo: Echo, http: aiohttp.ClientSession
) -> None:
    async with http.post("read", data=b'{"text":') as response:
        assert 400 == response.status
        assert "The body is not JSON: " in (await response.json())["error"]
    async with http.post("read", json=[1]) as response:
        assert [1] == await response.json()
    assert [] == echo.crashes


class Told(Echo):
    """It needs to be told something beside the key."""

    @property
    def options(self) -> dict[str, str]:
        return {"tenant": "t 1", "team": "a&b"}


@pytest.mark.parametrize(
    ("emulator", "config"),
    [
        (Echo(), "echo+http://127.0.0.1:80"),
        (Told(), "echo+http://127.0.0.1:80?tenant=t%201&team=a%26b"),
    ],
)
def test_a_config_string_tells_all_but_the_key(emulator: Echo, config: str) -> None:
    assert config == emulator.config("http://127.0.0.1:80")
    assert emulator.options == dict(BackendURL.parse(config).options)


async def test_a_planned_status_strikes_so_many_calls_of_its_operation_only(
    echo: Echo, http: aiohttp.ClientSession
) -> None:
    echo.fail(Fault(status=429, headers={"Retry-After": "7"}), operation="say", times=2)
    async with http.get("look/x") as response:
        assert 200 == response.status
    for expected in (429, 429, 200):
        async with http.post("say", data="a") as response:
            assert expected == response.status
            assert ("7" if expected == 429 else None) == response.headers.get("Retry-After")
    assert ([("a", "turn", None)], []) == (echo.kept, echo.faults)


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "body"),
    [
        (Fault(status=503), 503, "application/json", b'{"error":"Service Unavailable"}'),
        (Fault(status=529), 529, "application/json", b'{"error":"Status 529"}'),
        (Fault(status=500, error="Out of ink"), 500, "application/json", b'{"error":"Out of ink"}'),
        (Fault(status=502, body=b"<p>", headers={"content-type": "text/html"}), 502, "text/html", b"<p>"),
    ],
)
async def test_a_planned_status_takes_the_apis_error_form_or_the_body_given(
    echo: Echo, http: aiohttp.ClientSession, fault: Fault, status: int, content_type: str, body: bytes
) -> None:
    echo.fail(fault)
    async with http.post("say") as response:
        assert (status, content_type) == (response.status, response.headers["Content-Type"])
        assert body == await response.read()
    assert [] == echo.kept


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        (Fault(status=500, kept="turn"), [("a", "turn", "Internal Server Error")]),
        (Fault(status=500, kept="question", error="Ink"), [("a", "question", "Ink")]),
        (Fault(drop="before"), []),
        (Fault(drop="after"), [("a", "turn", None)]),
        (Fault(drop="after", kept="question"), [("a", "question", None)]),
        (Fault(drop="after", kept="nothing"), []),
        (Fault(cut_after=0), [("a", "turn", None)]),
        (Fault(cut_after=1, error="Ink"), [("a", "question", "Ink")]),
    ],
)
async def test_a_fault_says_what_a_send_leaves_in_the_history(
    echo: Echo, http: aiohttp.ClientSession, fault: Fault, kept: list[tuple[str, Kept, str | None]]
) -> None:
    echo.fail(fault)
    try:
        async with http.post("say", data="a") as response:
            await response.read()
    except aiohttp.ClientError:
        assert fault.status is None
    assert (kept, []) == (echo.kept, echo.crashes)


@pytest.mark.parametrize("drop", ["before", "after"])
async def test_a_drop_aborts_the_connection_without_an_answer(
    echo: Echo, http: aiohttp.ClientSession, drop: str
) -> None:
    echo.fail(Fault(drop="before" if drop == "before" else "after"))
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await http.post("say")
    assert [None] == [call.status for call in echo.calls]


@pytest.mark.parametrize(("path", "after"), [("stream", 1), ("say", 1), ("say", 3)])
async def test_a_cut_answer_is_aborted_after_so_many_lines_or_in_its_middle(
    echo: Echo, http: aiohttp.ClientSession, path: str, after: int
) -> None:
    echo.fail(Fault(cut_after=after))
    async with http.post(path, data="a b c") as response:
        assert 200 == response.status
        expected = b'"a"\n' if path == "stream" else b'{"said":'
        assert expected == await response.content.readexactly(len(expected))
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_cut_before_the_first_line_still_shows_the_head(
    echo: Echo, http: aiohttp.ClientSession
) -> None:
    echo.fail(Fault(cut_after=0))
    async with http.post("stream", data="a b c") as response:
        assert 200 == response.status
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_cut_stream_may_end_as_if_all_were_said(echo: Echo, http: aiohttp.ClientSession) -> None:
    echo.fail(Fault(cut_after=2, cut="end"))
    async with http.post("stream", data="a b c") as response:
        assert b'"a"\n"b"\n' == await response.read()


@pytest.mark.parametrize(("after", "said"), [(0, b""), (1, b'{"said":'), (3, b'{"said":')])
async def test_where_nothing_is_streamed_the_middle_may_be_the_end(
    echo: Echo, http: aiohttp.ClientSession, after: int, said: bytes
) -> None:
    echo.fail(Fault(cut_after=after, cut="end"))
    async with http.post("say", data="a b c") as response:
        assert said == await response.read()
    echo.fail(Fault(cut_after=after, cut="resume"))
    async with http.post("say", data="a b c") as response:
        assert {"said": "a b c"} == await response.json()


async def test_an_error_line_ends_a_stream(echo: Echo, http: aiohttp.ClientSession) -> None:
    echo.fail(Fault(cut_after=1, error="ink"))
    async with http.post("stream", data="a b c") as response:
        assert (200, b'"a"\nink!\n') == (response.status, await response.read())
    assert [("stream", "question", "ink")] == echo.kept


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_where_nothing_is_streamed_an_error_line_becomes_a_500(
    echo: Echo, http: aiohttp.ClientSession, after: int
) -> None:
    echo.fail(Fault(cut_after=after, error="ink"))
    async with http.post("say", data="a") as response:
        assert (500, {"error": "ink"}) == (response.status, await response.json())


async def test_a_held_request_is_processed_only_when_let_go(echo: Echo, http: aiohttp.ClientSession) -> None:
    fault = echo.fail(Fault(hold=asyncio.Event()), operation="say")
    asking = asyncio.ensure_future(http.post("say", data="a"))
    await fault.reached.wait()
    assert ([], None) == (echo.kept, echo.calls[-1].status)
    assert fault.hold is not None
    fault.hold.set()
    async with await asking as response:
        assert 200 == response.status
    assert [("a", "turn", None)] == echo.kept


async def test_a_held_drop_after_processing_has_kept_the_turn(
    echo: Echo, http: aiohttp.ClientSession
) -> None:
    hold = asyncio.Event()
    fault = echo.fail(Fault(drop="after", hold=hold))
    asking = asyncio.ensure_future(http.post("say", data="a"))
    await fault.reached.wait()
    assert [("a", "turn", None)] == echo.kept
    hold.set()
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await asking


async def test_a_stream_can_pause_after_a_line_and_resume(echo: Echo, http: aiohttp.ClientSession) -> None:
    hold = asyncio.Event()
    fault = echo.fail(Fault(cut_after=1, cut="resume", hold=hold))
    async with http.post("stream", data="a b c") as response:
        assert b'"a"\n' == await response.content.readline()
        await fault.reached.wait()
        assert [] == echo.kept
        hold.set()
        assert b'"b"\n"c"\n' == await response.read()
    assert [("stream", "turn", None)] == echo.kept


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        (Fault(cut_after=1, cut="resume", hold=asyncio.Event()), "turn"),
        (Fault(cut_after=1, error="ink", hold=asyncio.Event()), "question"),
        (Fault(cut_after=1, hold=asyncio.Event()), "turn"),
    ],
)
async def test_a_client_that_leaves_a_stream_does_not_stop_the_model(
    echo: Echo, http: aiohttp.ClientSession, fault: Fault, kept: Kept
) -> None:
    echo.fail(fault)
    async with http.post("stream", data="a b c") as response:
        await fault.reached.wait()
        response.close()
    async with http.get("look/x"):  # the server has seen the other connection close by now
        pass
    assert fault.hold is not None
    fault.hold.set()
    async with http.get("look/x"):
        pass
    assert ([kept], []) == ([each[1] for each in echo.kept], echo.crashes)


async def test_closing_does_not_wait_for_what_is_held() -> None:
    echo = Echo()
    fault = echo.fail(Fault(hold=asyncio.Event()))
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk-emulator"}) as session:
        async with serve(echo) as served:
            asking = asyncio.ensure_future(session.post(served.base_url + "/v1/say"))
            await fault.reached.wait()
        with pytest.raises(aiohttp.ClientError):
            await asking
    assert ([], []) == (echo.kept, echo.crashes)


@pytest.mark.parametrize(
    ("emulator", "fault", "operation", "reason"),
    [
        (Echo(), Fault(), "sya", "echo has no operation 'sya', only say, stream"),
        (Mute(), Fault(cut_after=1, error="ink"), "say", "echo has no error lines"),
    ],
)
def test_a_fault_that_could_never_strike_is_refused(
    emulator: Emulator, fault: Fault, operation: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        emulator.fail(fault, operation=operation)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": 500, "drop": "before"}, "not several"),
        ({"drop": "after", "cut_after": 1}, "not several"),
        ({"body": b"x"}, "belong to status"),
        ({"headers": {"a": "b"}, "drop": "after"}, "belong to status"),
        ({"error": "x"}, "belongs to status or cut_after"),
        ({"drop": "before", "kept": "turn"}, "leaves nothing"),
    ],
)
def test_a_fault_that_contradicts_itself_is_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Fault(**fields)  # type: ignore[arg-type]  # the wrong combinations are the point


@pytest.mark.parametrize(
    ("base_url", "config"),
    [
        ("http://127.0.0.1:8101", "echo+http://127.0.0.1:8101"),
        ("http://127.0.0.1:8101/", "echo+http://127.0.0.1:8101"),
        ("https://example.com", "echo://example.com"),
        ("http://[::1]:80/behind/", "echo+http://[::1]:80/behind/v1"),
    ],
)
def test_the_config_string_names_a_path_only_where_it_is_not_the_default(base_url: str, config: str) -> None:
    assert config == Echo().config(base_url)


async def test_a_served_emulator_knows_its_config_string_and_key(echo: Echo) -> None:
    async with serve(echo) as served:
        assert served.base_url.replace("http:", "echo+http:") == served.config
    assert {"ECHO_KEY": "sk-emulator"} == echo.env


async def test_an_ipv6_host_is_written_in_brackets(echo: Echo) -> None:
    try:
        async with serve(echo, host="::1") as served:
            assert served.base_url.startswith("http://[::1]:")
    except OSError:
        pytest.skip("no IPv6 here")


async def test_a_port_in_use_is_an_error_that_leaves_nothing_open(echo: Echo) -> None:
    async with serve(echo) as served:
        with pytest.raises(OSError, match="address already in use"):
            async with serve(Echo(), port=int(served.base_url.rpartition(":")[2])):
                pass


async def test_real_time_and_random_ids_are_the_defaults(echo: Echo) -> None:
    assert echo.now().utcoffset() is not None
    assert echo.ids() != echo.ids()


async def test_calls_of_a_cleared_log_still_get_their_answer(echo: Echo, http: aiohttp.ClientSession) -> None:
    fault = echo.fail(Fault(hold=asyncio.Event()))
    asking = asyncio.ensure_future(http.post("say", data="a"))
    await fault.reached.wait()
    echo.calls.clear()
    assert fault.hold is not None
    fault.hold.set()
    async with await asking as response:
        assert {"said": "a"} == json.loads(await response.read())
    assert [] == echo.calls


@pytest.mark.parametrize("name", ["_send", "_keep", "_serve"])
def test_what_serving_needs_cannot_be_replaced_by_mistake(name: str) -> None:
    with pytest.raises(TypeError, match=f"Careless: an emulator's own {name} cannot be replaced"):
        type("Careless", (Echo,), {name: None})


@pytest.mark.parametrize(
    "name", [name for name in backend_names() if load_adapter(name).emulator is not None]
)
async def test_a_bridge_to_what_is_served_has_what_the_emulator_asks_for(name: str) -> None:
    async with serve(load_adapter(name).load_emulator()()) as served, served.connect(timeout=7) as bridge:
        assert (await bridge.create()).id
        assert (name, 7) == (bridge.profile.name, bridge.options.timeout)


async def test_another_key_wins_over_the_emulators() -> None:
    emulator = load_adapter("kaziro").load_emulator()()
    async with serve(emulator) as served, served.connect(key="sk-of-another") as bridge:
        with pytest.raises(AuthFailed):
            await bridge.create()

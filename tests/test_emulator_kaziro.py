"""The emulator of Kaziro's broker: its three operations, their errors, what a thread remembers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import aiohttp
import pytest

from chatbridge.testing.emulator import Fault, serve
from chatbridge_adapters.kaziro.emulator import COMPLETE, CREATE, RETRIEVE, KaziroEmulator

KEY = {"Kaziro-API-Key": "sk-emulator"}
SEND = "/v1/broker/chat/completions"


@pytest.fixture
async def kaziro() -> AsyncGenerator[KaziroEmulator, None]:
    emulator = KaziroEmulator(now=lambda: datetime(2026, 1, 1, tzinfo=UTC), ids=lambda: uuid.UUID(int=7))
    yield emulator
    assert [] == emulator.crashes


@pytest.fixture
async def http(kaziro: KaziroEmulator) -> AsyncGenerator[aiohttp.ClientSession, None]:
    async with serve(kaziro) as served, aiohttp.ClientSession(served.base_url, headers=KEY) as session:
        yield session


async def create(http: aiohttp.ClientSession) -> str:
    async with http.post("/v1/broker/thread/create") as response:
        thread_id = (await response.json())["thread_id"]
        assert isinstance(thread_id, str)
        return thread_id


async def send(http: aiohttp.ClientSession, said: str, thread_id: str | None = None) -> str:
    request: dict[str, object] = {"model": "kaziro-broker", "messages": [{"role": "user", "content": said}]}
    if thread_id is not None:
        request["thread_id"] = thread_id
    async with http.post(SEND, json=request) as response:
        answer = (await response.json())["choices"][0]["message"]["content"]
        assert isinstance(answer, str)
        return answer


async def test_creating_a_thread_takes_no_body_and_answers_200(
    kaziro: KaziroEmulator, http: aiohttp.ClientSession
) -> None:
    async with http.post("/v1/broker/thread/create") as response:
        assert (200, "application/json") == (response.status, response.headers["Content-Type"])
        assert {"thread_id": f"thread_{uuid.UUID(int=7).hex}"} == await response.json()
    assert CREATE == kaziro.calls[-1].operation


async def test_a_threads_state_is_shown_to_anyone_who_knows_its_id(
    kaziro: KaziroEmulator, http: aiohttp.ClientSession
) -> None:
    query = {"thread_id": await create(http)}
    async with http.get(
        "/v1/broker/thread/retrieve", params=query, headers={"Kaziro-API-Key": ""}
    ) as response:
        expected = {"status": "idle", "user_id": "user_emulator", "processing_message_type": None}
        assert (200, expected) == (response.status, await response.json())
    assert RETRIEVE == kaziro.calls[-1].operation


async def test_an_unknown_thread_is_a_404_when_retrieved(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/broker/thread/retrieve", params={"thread_id": "no"}) as response:
        assert (404, {"detail": "Thread not found"}) == (response.status, await response.json())


async def test_retrieving_without_an_id_is_a_422(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/broker/thread/retrieve") as response:
        problem = {"loc": ["query", "thread_id"], "msg": "Field required", "type": "missing"}
        assert (422, {"detail": [problem]}) == (response.status, await response.json())


async def test_a_completion_has_the_openai_shape_and_counts_words_as_tokens(
    kaziro: KaziroEmulator, http: aiohttp.ClientSession
) -> None:
    thread_id = await create(http)
    request = {"model": "m", "messages": [{"role": "user", "content": "hi é"}], "thread_id": thread_id}
    async with http.post(SEND, json=request | {"extra_headers": {"a": 1}}) as response:
        assert {
            "id": f"chatcmpl-{uuid.UUID(int=7).hex}",
            "object": "chat.completion",
            "created": 1767225600,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Turn 1: you said 'hi é'."},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8},
            "extra": None,
        } == await response.json()
    assert COMPLETE == kaziro.calls[-1].operation
    assert request | {"extra_headers": {"a": 1}} == kaziro.calls[-1].json()


async def test_a_thread_remembers_and_a_completion_without_one_does_not(http: aiohttp.ClientSession) -> None:
    thread_id = await create(http)
    assert "Turn 1: you said 'a'." == await send(http, "a", thread_id)
    assert "Turn 2: you said 'b'. Before that you said 'a'." == await send(http, "b", thread_id)
    assert "Turn 1: you said 'c'." == await send(http, "c")
    assert "Turn 1: you said 'd'." == await send(http, "d")


async def test_earlier_messages_of_one_call_are_earlier_turns(
    kaziro: KaziroEmulator, http: aiohttp.ClientSession
) -> None:
    thread_id = await create(http)
    said = [("system", "be"), ("assistant", "hello"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    messages = [{"role": role, "content": content} for role, content in said]
    async with http.post(SEND, json={"model": "m", "messages": messages, "thread_id": thread_id}) as response:
        answer = (await response.json())["choices"][0]["message"]["content"]
    assert "Turn 2: you said 'c'. Before that you said 'a'." == answer
    assert [("a", "b"), ("c", answer)] == [(each.said, each.answered) for each in kaziro.threads[thread_id]]


async def test_sends_to_one_thread_at_once_are_all_remembered(
    kaziro: KaziroEmulator, http: aiohttp.ClientSession
) -> None:
    thread_id = await create(http)
    answers = await asyncio.gather(*(send(http, str(n), thread_id) for n in range(20)))
    assert [f"Turn {n}" for n in range(1, 21)] == [
        turn.answered.partition(":")[0] for turn in kaziro.threads[thread_id]
    ]
    assert sorted(answers) == sorted(turn.answered for turn in kaziro.threads[thread_id])


@pytest.mark.parametrize(
    ("headers", "status", "detail"),
    [
        ({}, 403, "Not authenticated"),
        ({"Authorization": "Bearer sk-emulator"}, 403, "Not authenticated"),
        ({"Kaziro-API-Key": "Bearer sk-emulator"}, 401, "Invalid API key"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/broker/thread/create", SEND])
async def test_without_the_bare_key_both_posts_are_refused(
    kaziro: KaziroEmulator, path: str, headers: dict[str, str], status: int, detail: str
) -> None:
    async with (
        serve(kaziro) as served,
        aiohttp.ClientSession(served.base_url) as http,
        http.post(path, headers=headers) as response,
    ):
        assert (status, {"detail": detail}) == (response.status, await response.json())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"thread_id": "no", "messages": [{"role": "user", "content": "hi"}]}, "Invalid thread"),
        ({"messages": []}, "No messages"),
    ],
)
async def test_a_declared_error_says_its_detail_in_an_object(
    http: aiohttp.ClientSession, request_: dict[str, object], message: str
) -> None:
    async with http.post(SEND, json={"model": "m", **request_}) as response:
        detail = {"status": "error", "status_code": 400, "message": message}
        assert (400, {"detail": detail}) == (response.status, await response.json())


STRING = ("Input should be a valid string", "string_type")
OBJECT = ("Input should be a valid dictionary or object to extract fields from", "model_attributes_type")
MISSING = ("Field required", "missing")


@pytest.mark.parametrize(
    ("body", "content_type", "problems"),
    [
        (b"", "application/json", [(["body"], *MISSING)]),
        (b"[1]", "application/json", [(["body"], *OBJECT)]),
        (b"{}", "text/plain", [(["body"], *OBJECT)]),
        (b"{]", "application/json", [(["body", 1], "JSON decode error", "json_invalid")]),
        (b'"\xff"', "application/json", [(["body", 0], "JSON decode error", "json_invalid")]),
        (b"{}", "application/json", [(["body", "model"], *MISSING), (["body", "messages"], *MISSING)]),
        (
            b'{"model":null,"messages":{},"thread_id":1,"extra_headers":[]}',
            "application/json; charset=utf-8",
            [
                (["body", "model"], *STRING),
                (["body", "messages"], "Input should be a valid list", "list_type"),
                (["body", "thread_id"], *STRING),
                (["body", "extra_headers"], "Input should be a valid dictionary", "dict_type"),
            ],
        ),
        (
            b'{"model":"m","messages":[1,{"content":2}]}',
            "application/json",
            [
                (["body", "messages", 0], *OBJECT),
                (["body", "messages", 1, "role"], *MISSING),
                (["body", "messages", 1, "content"], *STRING),
            ],
        ),
    ],
)
async def test_a_body_that_does_not_match_the_schema_is_a_422_with_all_that_is_wrong(
    http: aiohttp.ClientSession, body: bytes, content_type: str, problems: list[tuple[list[object], str, str]]
) -> None:
    async with http.post(SEND, data=body, headers={"Content-Type": content_type}) as response:
        assert 422 == response.status
        detail = [{"loc": loc, "msg": msg, "type": kind} for loc, msg, kind in problems]
        assert {"detail": detail} == await response.json()


async def test_a_request_without_a_content_type_is_read_as_json(http: aiohttp.ClientSession) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"thread_id":null,"extra_headers":null}'
    async with http.post(SEND, data=body, skip_auto_headers=["Content-Type"]) as response:
        assert 200 == response.status


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [("GET", "/v1/nothing", 404, "Not Found"), ("GET", SEND, 405, "Method Not Allowed")],
)
async def test_what_is_no_operation_is_refused_as_fastapi_does(
    http: aiohttp.ClientSession, method: str, path: str, status: int, detail: str
) -> None:
    async with http.request(method, path) as response:
        assert (status, {"detail": detail}) == (response.status, await response.json())


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (500, {"status": "error", "status_code": 500, "message": "Internal Server Error"}),
        (429, "Too Many Requests"),
    ],
)
async def test_a_planned_error_leaves_the_thread_as_it_was(
    kaziro: KaziroEmulator, http: aiohttp.ClientSession, status: int, detail: object
) -> None:
    thread_id = await create(http)
    kaziro.fail(Fault(status=status), operation=COMPLETE)
    request = {"model": "m", "messages": [{"role": "user", "content": "a"}], "thread_id": thread_id}
    async with http.post(SEND, json=request) as response:
        assert (status, {"detail": detail}) == (response.status, await response.json())
    assert "Turn 1: you said 'a'." == await send(http, "a", thread_id)


async def test_a_question_left_alone_is_remembered_with_an_empty_answer(
    kaziro: KaziroEmulator, http: aiohttp.ClientSession
) -> None:
    thread_id = await create(http)
    kaziro.fail(Fault(drop="after", kept="question"))
    with pytest.raises(aiohttp.ClientError):
        await send(http, "a", thread_id)
    assert [("a", "")] == [(each.said, each.answered) for each in kaziro.threads[thread_id]]


def test_nothing_is_streamed_so_there_are_no_error_lines() -> None:
    with pytest.raises(ValueError, match="kaziro has no error lines"):
        KaziroEmulator().fail(Fault(cut_after=1, error="x"))


def test_config_and_environment_reach_the_emulator() -> None:
    kaziro = KaziroEmulator(key="k")
    assert "kaziro+http://127.0.0.1:1" == kaziro.config("http://127.0.0.1:1")
    assert {"KAZIRO_API_KEY": "k"} == kaziro.env

"""The emulator of Tachyon: its nine operations, their errors and quirks, streams byte by byte."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import aiohttp
import pytest

from chatbridge.testing.emulator import Fault, serve
from chatbridge_adapters.tachyon.emulator import TachyonEmulator
from chatbridge_adapters.tachyon.records import ulid

Json = dict[str, Any]
NOBODY = "ch_01jm4x3w6r7n8p9q0s1t2v3w4x"
USER = "us_01hs2yepy5hw4rz8pdq2wywnwt"
ULID = "[0-7][0-9a-hjkmnp-tv-z]{25}"
START = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def tachyon() -> TachyonEmulator:
    seconds = count()
    return TachyonEmulator(now=lambda: START + timedelta(seconds=next(seconds)))


class Client:
    """Says what is asked and gives status and JSON, None where there is no body."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def __call__(self, method: str, path: str, json: object = None, **query: str) -> tuple[int, Any]:
        body = {} if json is None else {"json": json}
        async with self.http.request(method, path, params=query, **body) as response:  # type: ignore[arg-type]
            assert response.status == 204 or "application/json" == response.headers["Content-Type"]
            return response.status, await response.json() if response.status != 204 else None

    async def raw(
        self, method: str, path: str, body: bytes = b"", **headers: str | None
    ) -> tuple[int, bytes, str | None]:
        """Send bytes as they are; gives status, body and type of the answer."""
        fields = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        async with self.http.request(method, path, data=body, headers=fields) as response:
            return response.status, await response.read(), response.headers.get("Content-Type")

    async def create(self, **fields: object) -> str:
        status, answer = await self("POST", "chatrooms", fields)
        assert 200 == status
        return str(answer["chatroom"]["id"])

    async def say(self, room: str, content: object, **fields: object) -> Json:
        messages = [{"role": "user", "content": content}]
        status, answer = await self(
            "POST", f"chatrooms/{room}/chat/completions", {"messages": messages, **fields}
        )
        assert 200 == status
        return dict(answer)

    async def stream(self, path: str, body: object) -> list[str]:
        """Give the events of a stream, each without the blank line at its end."""
        async with self.http.post(path, json=body) as response:
            assert (200, "text/event-stream") == (response.status, response.headers["Content-Type"])
            text = await response.text()
        assert text.endswith("\n\n")
        return text.removesuffix("\n\n").split("\n\n")

    async def messages(self, room: str, **query: str) -> list[Json]:
        asked = {"limit": "100", "offset": "0", "search": "", **query}
        status, answer = await self("GET", f"chatrooms/{room}/messages", **asked)
        assert (200, {"messages"}) == (status, set(answer))
        return list(answer["messages"])

    async def rooms(self, **query: str) -> tuple[list[str], Json]:
        status, answer = await self("GET", "chatrooms", **query)
        assert 200 == status
        return [room["name"] for room in answer["chatrooms"]], answer["paginator"]


@pytest.fixture
async def client(tachyon: TachyonEmulator) -> AsyncGenerator[Client, None]:
    headers = {"Authorization": f"Bearer {tachyon.key}", "x-operator-id": tachyon.operator}
    async with (
        serve(tachyon) as served,
        aiohttp.ClientSession(f"{served.base_url}/v1/llms/", headers=headers) as http,
    ):
        yield Client(http)
    assert [] == tachyon.crashes


def data(event: str) -> Any:
    """Read an event's data."""
    return json.loads(event.rpartition("data: ")[2])


# Rooms


async def test_a_new_room_is_a_200_with_all_seven_keys_in_a_wrapper(client: Client) -> None:
    status, answer = await client("POST", "chatrooms", {})
    assert (200, {"chatroom"}) == (status, set(answer))
    room = answer["chatroom"]
    assert re.fullmatch(f"ch_{ULID}", room["id"])
    assert {
        "id": room["id"],
        "name": "New Room",
        "operator_id": "tn_01hjryxysgey07h5jz5wagqj0m",
        "owner_id": USER,
        "metadata": {},
        "created_at": "2025-01-01T00:00:00Z",
        "updated_at": "2025-01-01T00:00:00Z",
    } == room


async def test_times_have_a_fraction_only_where_there_is_one(
    tachyon: TachyonEmulator, client: Client
) -> None:
    tachyon.now = lambda: START + timedelta(microseconds=250_000)
    _, answer = await client("POST", "chatrooms", {})
    assert "2025-01-01T00:00:00.250000Z" == answer["chatroom"]["created_at"]


def test_a_ulid_begins_with_its_time() -> None:
    moment = datetime(2016, 7, 30, 23, 54, 10, 259000, tzinfo=UTC)
    assert "01arz3ndek" + "0" * 16 == ulid(moment, uuid.UUID(int=0))[:26]
    assert "01arz3ndek" + "z" * 16 == ulid(moment, uuid.UUID(int=2**128 - 1))


@pytest.mark.parametrize("metadata", [{"user_id": "u"}, [1, None], 0, False, "text", 1.5])
async def test_metadata_is_any_json(client: Client, metadata: object) -> None:
    _, answer = await client("POST", "chatrooms", {"name": "a", "metadata": metadata})
    assert metadata == answer["chatroom"]["metadata"]


async def test_null_is_as_good_as_left_out(client: Client) -> None:
    """The generated client sends `null` for what it was not given."""
    _, answer = await client("POST", "chatrooms", {"name": None, "metadata": None})
    assert ("New Room", {}) == (answer["chatroom"]["name"], answer["chatroom"]["metadata"])
    room = await client.create(name="Kyoto", metadata={"a": 1})
    _, answer = await client("PATCH", f"chatrooms/{room}", {"name": None, "metadata": None})
    assert ("Kyoto", {"a": 1}) == (answer["chatroom"]["name"], answer["chatroom"]["metadata"])


async def test_a_patch_leaves_what_it_does_not_name_and_replaces_metadata_as_a_whole(client: Client) -> None:
    room = await client.create(name="Kyoto", metadata={"a": 1})
    status, renamed = await client("PATCH", f"chatrooms/{room}", {"name": " Nara\n"})
    assert (200, "Nara", {"a": 1}) == (status, renamed["chatroom"]["name"], renamed["chatroom"]["metadata"])
    _, changed = await client("PATCH", f"chatrooms/{room}", {"metadata": {"b": 2}})
    assert ("Nara", {"b": 2}) == (changed["chatroom"]["name"], changed["chatroom"]["metadata"])
    times = changed["chatroom"]["created_at"], renamed["chatroom"]["updated_at"]
    assert times[0] < times[1] < changed["chatroom"]["updated_at"]


@pytest.mark.parametrize("name", ["", "  ", "a" * 101, "a\x00b", "a\nb", "\x9f."])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_name_that_does_not_fit_is_a_422(client: Client, name: str, method: str) -> None:
    path = "chatrooms" if method == "POST" else f"chatrooms/{await client.create()}"
    status, answer = await client(method, path, {"name": name})
    assert (422, "UnprocessableEntity: ") == (status, answer["message"][:21])


async def test_a_name_has_up_to_100_characters_whatever_their_bytes(client: Client) -> None:
    status, answer = await client("POST", "chatrooms", {"name": "\U0001f341" * 100})
    assert (200, "\U0001f341" * 100) == (status, answer["chatroom"]["name"])


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"x"', b"{", b"\xff", b'{"name": 5}', b'{"name": NaN}']
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_body_of_another_form_is_a_400(client: Client, body: bytes, method: str) -> None:
    path = "chatrooms" if method == "POST" else f"chatrooms/{await client.create()}"
    status, answer, _ = await client.raw(method, path, body, Content_Type="application/json")
    assert (400, "BadRequest: ") == (status, json.loads(answer)["message"][:12])


async def test_a_deleted_room_is_a_404_and_not_in_the_list(client: Client) -> None:
    room = await client.create()
    assert (204, b"", None) == await client.raw("DELETE", f"chatrooms/{room}")
    for method, path, body in (
        ("DELETE", "", None),
        ("PATCH", "", {"name": "a"}),
        ("GET", "/messages?limit=1&offset=0&search=", None),
        ("GET", "/agent/messages", None),
        ("POST", "/chat/completions", {"messages": [{"role": "user"}]}),
        ("POST", "/agent/execute", {"task": "a"}),
    ):
        assert (404, {"message": "NotFoundError: chatroom is not found"}) == await client(
            method, f"chatrooms/{room}{path}", body
        )
    assert ([], 0) == ((listed := await client.rooms())[0], listed[1]["total_items"])


async def test_a_read_or_a_deletion_may_carry_a_content_type_and_an_empty_body(client: Client) -> None:
    """As generated clients send them."""
    room = await client.create()
    status, _, _ = await client.raw("GET", "chatrooms", b"", Content_Type="application/json")
    assert 200 == status
    status, _, _ = await client.raw("DELETE", f"chatrooms/{room}", b"", Content_Type="application/json")
    assert 204 == status


@pytest.mark.parametrize(
    "room", ["kyoto", "ch_1", NOBODY.upper(), NOBODY.replace("ch_", "me_"), NOBODY + "0", "ch_8" + "0" * 25]
)
async def test_a_malformed_id_is_a_400(client: Client, room: str) -> None:
    assert (400, {"message": "BadRequest: invalid chatroom id"}) == await client(
        "DELETE", f"chatrooms/{room}"
    )


@pytest.mark.parametrize(
    ("query", "names", "page"),
    [
        ({}, "yxwvutsrqponmlkjihgf", (1, 20, 25, 2)),
        ({"limit": "3"}, "yxw", (1, 3, 25, 9)),
        ({"limit": "3", "offset": "3"}, "vut", (2, 3, 25, 9)),
        ({"offset": "24", "limit": "100"}, "a", (1, 100, 25, 1)),
        ({"offset": "25"}, "", (2, 20, 25, 2)),
        ({"limit": "0"}, "", (1, 0, 25, 25)),
        ({"limit": "1000"}, "yxwvutsrqponmlkjihgfedcba", (1, 100, 25, 1)),
    ],
)
async def test_rooms_come_in_pages_latest_update_first(
    client: Client, query: dict[str, str], names: str, page: tuple[int, ...]
) -> None:
    for name in "abcdefghijklmnopqrstuvwxy":
        await client.create(name=name)
    listed, paginator = await client.rooms(**query)
    assert (list(names), page) == (listed, tuple(paginator.values()))
    assert ["current_page", "items_per_page", "total_items", "total_pages"] == list(paginator)


@pytest.mark.parametrize(
    "query", [{"limit": "-1"}, {"limit": ""}, {"offset": "x"}, {"limit": "1.5"}, {"limit": "9" * 19}]
)
async def test_a_page_that_is_no_number_is_a_400(client: Client, query: dict[str, str]) -> None:
    status, _ = await client("GET", "chatrooms", **query)
    assert 400 == status


async def test_a_room_that_changes_comes_first(client: Client) -> None:
    a, b, _ = [await client.create(name=name) for name in "abc"]
    await client("PATCH", f"chatrooms/{a}", {"metadata": 1})
    await client.say(b, "Hello")
    assert ["b", "a", "c"] == (await client.rooms())[0]


async def test_rooms_are_found_by_name_and_by_the_user_in_their_metadata(client: Client) -> None:
    await client.create(name="Kyoto \u4eac\u90fd", metadata={"user_id": "ada"})
    await client.create(name="Nara", metadata={"user_id": "bob"})
    await client.create(name="nara too", metadata=["ada"])
    for query, names in (
        ({"search": "NARA"}, ["nara too", "Nara"]),
        ({"search": "\u4eac"}, ["Kyoto \u4eac\u90fd"]),
        ({"metadata_user_id": "ada"}, ["Kyoto \u4eac\u90fd"]),
        ({"search": "nara", "metadata_user_id": "bob"}, ["Nara"]),
        ({"search": ""}, ["nara too", "Nara", "Kyoto \u4eac\u90fd"]),
    ):
        assert names == (await client.rooms(**query))[0]


# Keys and operators


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic sk-emulator", "sk-emulator"])
async def test_a_bad_token_is_a_401_with_a_code_whatever_the_version(
    client: Client, authorization: str
) -> None:
    status, body, _ = await client.raw("GET", "chatrooms", Authorization=authorization)
    assert (401, b'{"code":"UNAUTHORIZED","message":"verify token failed"}') == (status, body)


@pytest.mark.parametrize("operator", ["", " "])
async def test_a_missing_operator_is_a_400(client: Client, operator: str) -> None:
    status, body, _ = await client.raw("GET", "chatrooms", x_operator_id=operator)
    assert (400, b'{"message":"BadRequest: x-operator-id is required"}') == (status, body)


async def test_a_room_of_another_operator_is_not_there(client: Client) -> None:
    room = await client.create(name="mine")
    status, body, _ = await client.raw("DELETE", f"chatrooms/{room}", x_operator_id="tn_other")
    assert (404, b'{"message":"NotFoundError: chatroom is not found"}') == (status, body)
    _, body, _ = await client.raw("GET", "chatrooms", x_operator_id="tn_other")
    assert [] == json.loads(body)["chatrooms"]
    assert ["mine"] == (await client.rooms())[0]


# Errors


async def test_errors_of_the_newer_contract_have_a_code(tachyon: TachyonEmulator, client: Client) -> None:
    tachyon.errors = "v1"
    for call, error in (
        (
            client("DELETE", f"chatrooms/{NOBODY}"),
            (404, {"code": "NOT_FOUND", "message": "chatroom is not found"}),
        ),
        (client("DELETE", "chatrooms/x"), (400, {"code": "BAD_REQUEST", "message": "invalid chatroom id"})),
    ):
        assert error == await call
    _, answer = await client("POST", "chatrooms", {"name": ""})
    assert "UNPROCESSABLE_ENTITY" == answer["code"]


@pytest.mark.parametrize(
    ("status", "name", "code"),
    [
        (400, "BadRequest", "BAD_REQUEST"),
        (401, "UnauthorizedError", "UNAUTHORIZED"),
        (402, "PaymentRequired", "PAYMENT_REQUIRED"),
        (403, "PermissionDenied", "FORBIDDEN"),
        (404, "NotFoundError", "NOT_FOUND"),
        (409, "Conflict", "CONFLICT"),
        (418, "BadRequest", "BAD_REQUEST"),
        (422, "UnprocessableEntity", "UNPROCESSABLE_ENTITY"),
        (429, "TooManyRequests", "TOO_MANY_REQUESTS"),
    ],
)
async def test_a_planned_refusal_has_both_forms(
    tachyon: TachyonEmulator, client: Client, status: int, name: str, code: str
) -> None:
    tachyon.fail(Fault(status=status, error="so not"), times=2)
    assert (status, {"message": f"{name}: so not"}) == await client("GET", "chatrooms")
    tachyon.errors = "v1"
    assert (status, {"code": code, "message": "so not"}) == await client("GET", "chatrooms")


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_what_the_server_fails_at_is_masked(
    tachyon: TachyonEmulator, client: Client, status: int
) -> None:
    tachyon.fail(Fault(status=status, error="the provider's secret"))
    said = {"message": "InternalServerError: internal server error"}
    assert (status, said) == await client("GET", "chatrooms")


async def test_routes_that_are_not_there_have_an_error_in_the_form_of_the_api(client: Client) -> None:
    assert (404, {"message": "NotFoundError: Not Found"}) == await client("GET", "nowhere")
    status, answer = await client("GET", f"chatrooms/{NOBODY}")  # No room can be read by itself.
    assert (405, "MethodNotAllowed: Method Not Allowed") == (status, answer["message"])


# Messages


async def test_a_turn_is_two_messages_of_one_part_each(client: Client) -> None:
    room = await client.create()
    await client.say(room, "Hello")
    question, answer = await client.messages(room)
    assert re.fullmatch(f"me_{ULID}", question["id"])
    assert {
        "id": question["id"],
        "chatroom_id": room,
        "user_id": USER,
        "role": "user",
        "content": {"type": "text", "text": "Hello"},
        "created_at": question["created_at"],
    } == question
    assert ("assistant", {"type": "text", "text": "Turn 1: you said 'Hello'."}, USER) == (
        answer["role"], answer["content"], answer["user_id"],
    )  # fmt: skip


@pytest.mark.parametrize("missing", ["limit", "offset", "search"])
async def test_messages_need_all_three_parameters(client: Client, missing: str) -> None:
    query = {"limit": "100", "offset": "0", "search": ""}
    del query[missing]
    status, _ = await client("GET", f"chatrooms/{await client.create()}/messages", **query)
    assert 400 == status


async def test_messages_come_in_pages_oldest_first_and_are_found_by_their_text(client: Client) -> None:
    room = await client.create()
    for text in ("one", "two"):
        await client.say(room, text)
    texts = [message["content"]["text"] for message in await client.messages(room)]
    assert ["one", "two"] == texts[::2]
    assert texts[1:3] == [
        each["content"]["text"] for each in await client.messages(room, offset="1", limit="2")
    ]
    assert [] == await client.messages(room, offset="4")
    assert 2 == len(await client.messages(room, search="TWO"))


# Completions in a room


async def test_a_whole_answer_is_a_completion_with_usage(client: Client) -> None:
    answer = await client.say(await client.create(), "Hello", model="anthropic:claude")
    assert re.fullmatch(f"msg_{ULID.replace('a-hjkmnp-tv-z', 'A-HJKMNP-TV-Z')}", answer["id"])
    message = {"role": "assistant", "content": "Turn 1: you said 'Hello'."}
    assert {
        "id": answer["id"],
        "object": "chat.completion",
        "created": answer["created"],
        "model": "anthropic:claude",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6},
    } == answer


async def test_a_whole_answer_may_have_the_form_of_a_chunk(tachyon: TachyonEmulator, client: Client) -> None:
    tachyon.chunk_shaped = True
    answer = await client.say(await client.create(), "Hello")
    delta = {"role": "assistant", "content": "Turn 1: you said 'Hello'."}
    assert {
        "id": answer["id"],
        "object": "chat.completion.chunk",
        "model": "openai:gpt-4o",
        "choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}],
    } == answer


async def test_a_streamed_answer_is_as_in_the_documents_to_the_letter(client: Client) -> None:
    path = f"chatrooms/{await client.create()}/chat/completions"
    body = {"messages": [{"role": "user", "content": "\u4ed9\u53f0"}], "stream": True, "model": "openai/gpt"}
    *chunks, done = await client.stream(path, body)
    head = (
        f'data: {{"id":"{data(chunks[0])["id"]}","object":"chat.completion.chunk","model":"openai:gpt",'
        '"choices":[{"delta":'
    )
    said = ["Turn", " 1:", " you", " said", " '\u4ed9\u53f0'."]
    deltas = ["", *(f',"content":"{piece}"' for piece in said)]
    assert [
        *(f'{head}{{"role":"assistant"{delta}}},"index":0}}]}}' for delta in deltas),
        f'{head}{{}},"index":0,"finish_reason":"stop"}}]}}',
    ] == chunks
    assert "data: [DONE]" == done


async def test_calls_of_tools_come_as_fragments(client: Client) -> None:
    room = await client.create()
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"required": ["place"]}}}
    body = {"messages": [{"role": "user", "content": "Ask weather please"}], "tools": [tool]}
    path = f"chatrooms/{room}/chat/completions"
    events = await client.stream(path, {**body, "stream": True})
    _, first, *rest, last = [data(each)["choices"][0] for each in events[:-1]]
    (call,) = first["delta"]["tool_calls"]
    assert {
        "index": 0,
        "id": call["id"],
        "type": "function",
        "function": {"name": "weather", "arguments": ""},
    } == call
    fragments = [each["delta"]["tool_calls"][0] for each in rest]
    assert {"index", "function"} == set(fragments[0])
    arguments = "".join(each["function"]["arguments"] for each in fragments)
    assert ({"place": "Ask weather please"}, "tool_calls") == (json.loads(arguments), last["finish_reason"])
    _, whole = await client("POST", path, body)
    (again,) = whole["choices"][0]["message"]["tool_calls"]
    assert ({"name": "weather", "arguments": arguments}, None) == (
        again["function"], whole["choices"][0]["message"]["content"],
    )  # fmt: skip
    stored = (await client.messages(room))[1]["content"]
    assert {
        "type": "tool-call",
        "tool_call_id": call["id"],
        "tool_name": "weather",
        "args": arguments,
    } == stored


@pytest.mark.parametrize(
    ("choice", "said", "reason"),
    [("any", "Hello", "tool_calls"), ("auto", "Hello", "stop"), (None, "time please", "tool_calls")],
)
async def test_a_tool_is_called_where_it_is_named_or_one_must_be(
    client: Client, choice: str | None, said: str, reason: str
) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("weather", "time")]
    answer = await client.say(await client.create(), said, tools=tools, tool_choice=choice)
    assert reason == answer["choices"][0]["finish_reason"]


async def test_other_deltas_can_be_streamed_before_the_words(
    tachyon: TachyonEmulator, client: Client
) -> None:
    tachyon.deltas = [{"content": '{"weather":"sunny"}'}]
    path = f"chatrooms/{await client.create()}/chat/completions"
    events = await client.stream(path, {"messages": [{"role": "user", "content": "Hi"}], "stream": True})
    assert {"delta": {"content": '{"weather":"sunny"}'}, "index": 0} == data(events[1])["choices"][0]


async def test_what_generated_clients_send_is_taken(client: Client) -> None:
    """They send every default explicitly, and null for what is not set."""
    body = {
        "communication_style": None,
        "explanation_style": None,
        "frequency_penalty": 0,
        "max_completion_tokens": 10000,
        "memory_settings": None,
        "messages": [{"content": "Hello", "role": "user", "tool_calls": None}],
        "model": "openai:gpt-4o",
        "n": 1,
        "presence_penalty": 0,
        "response_format": None,
        "stream": False,
        "technical_level": None,
        "temperature": 1,
        "tool_choice": None,
        "tools": None,
        "top_p": 1,
        "user": None,
    }
    room = await client.create()
    status, answer = await client("POST", f"chatrooms/{room}/chat/completions", body)
    assert (200, "stop") == (status, answer["choices"][0]["finish_reason"])
    status, _ = await client("POST", "chat/completions", body)
    assert 200 == status


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Hello", "Hello"),
        ([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}], "Hello"),
        ([{"type": "image_url"}], ""),
        ([], ""),
        (None, ""),
    ],
)
async def test_a_content_is_a_text_a_list_or_null(client: Client, content: object, said: str) -> None:
    answer = await client.say(await client.create(), content)
    assert f"Turn 1: you said {said!r}." == answer["choices"][0]["message"]["content"]


async def test_the_room_keeps_the_history_and_the_last_message_of_the_users_counts(client: Client) -> None:
    room = await client.create()
    await client.say(room, "One")
    messages = [
        {"role": "user", "content": "not looked at"},
        {"role": "user", "content": "Two"},
        {"role": "system", "content": "nor this"},
    ]
    _, answer = await client("POST", f"chatrooms/{room}/chat/completions", {"messages": messages})
    said = "Turn 2: you said 'Two'. Before that you said 'One'."
    assert said == answer["choices"][0]["message"]["content"]
    _, answer = await client("POST", f"chatrooms/{room}/chat/completions", {"messages": messages[2:]})
    assert "you said 'nor this'" in answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("allowed", "text", "reason"),
    [(0, "", "length"), (2, "Turn 1:", "length"), (5, "Turn 1: you said 'Hello'.", "stop")],
)
async def test_an_answer_has_as_many_tokens_as_are_allowed(
    client: Client, allowed: int, text: str, reason: str
) -> None:
    answer = await client.say(await client.create(), "Hello", max_completion_tokens=allowed)
    (choice,) = answer["choices"]
    assert (text, reason) == (choice["message"]["content"], choice["finish_reason"])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (None, "openai:gpt-4o"),
        ("gpt-5", "openai:gpt-5"),
        ("anthropic/claude-4.5", "anthropic:claude-4.5"),
        ("google_ai:gemini/2", "google_ai:gemini/2"),
        ("large", "large"),
    ],
)
async def test_a_model_is_said_as_provider_and_name(client: Client, asked: str | None, told: str) -> None:
    assert told == (await client.say(await client.create(), "Hello", model=asked))["model"]


@pytest.mark.parametrize("model", ["acme:x", "acme/x", "openai:", ""])
@pytest.mark.parametrize(
    "path", ["chatrooms/{room}/chat/completions", "chat/completions", "chatrooms/{room}/agent/execute"]
)
async def test_a_model_that_nobody_serves_is_a_400(
    tachyon: TachyonEmulator, client: Client, model: str, path: str
) -> None:
    path = path.format(room=await client.create())
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "task": "Hello"}
    status, answer = await client("POST", path, body)
    assert (400, "BadRequest: unsupported_model: ") == (status, answer["message"][:31])
    tachyon.errors = "v1"
    _, answer = await client("POST", path, body)
    assert "unsupported_model" == answer["code"]


BAD_COMPLETIONS: tuple[Json, ...] = (
    {"messages": None},
    {"messages": []},
    {"messages": "Hello"},
    {"messages": ["Hello"]},
    {"messages": [{"content": "Hello"}]},
    {"messages": [{"role": 5}]},
    {"messages": [{"role": "user", "content": 5}]},
    {"messages": [{"role": "user", "content": ["a"]}]},
    {"messages": [{"role": "user", "content": [{"text": "a"}]}]},
    {"messages": [{"role": "user", "tool_calls": 5}]},
    {"messages": [{"role": "user", "tool_calls": [5]}]},
    {"model": 5},
    {"stream": "true"},
    {"stream": 1},
    {"temperature": 2.1},
    {"temperature": "hot"},
    {"temperature": True},
    {"top_p": -0.1},
    {"n": 0},
    {"n": 2},
    {"n": 1.5},
    {"n": True},
    {"max_completion_tokens": -1},
    {"max_completion_tokens": "10"},
    {"presence_penalty": 3},
    {"frequency_penalty": -3},
    {"response_format": "json"},
    {"response_format": {}},
    {"tools": {}},
    {"tools": [{"type": "function"}]},
    {"tools": [{"function": {}}]},
    {"tool_choice": "required"},
    {"tool_choice": {}},
    {"user": 5},
    {"memory_settings": {}},
    {"memory_settings": {"extract_memory": True, "max_memories": 0, "min_relevance_score": 0}},
    {"memory_settings": {"extract_memory": True, "max_memories": 21, "min_relevance_score": 0}},
    {"memory_settings": {"extract_memory": True, "max_memories": 1, "min_relevance_score": 2}},
    {"communication_style": []},
    {"explanation_style": 5},
    {"technical_level": False},
)


@pytest.mark.parametrize("fields", BAD_COMPLETIONS)
async def test_a_completion_of_another_form_is_a_400_that_names_the_field(
    client: Client, fields: Json
) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], **fields}
    for path in (f"chatrooms/{await client.create()}/chat/completions", "chat/completions"):
        status, answer = await client("POST", path, body)
        assert (400, f"BadRequest: {next(iter(fields))} must be ") == (
            status, answer["message"].partition("must be ")[0] + "must be ",
        )  # fmt: skip


async def test_without_credits_nothing_is_answered_nor_stored(
    tachyon: TachyonEmulator, client: Client
) -> None:
    tachyon.broke, room = True, await client.create()
    body: Json = {"messages": [{"role": "user", "content": "Hello"}]}
    for path in (f"chatrooms/{room}/chat/completions", "chat/completions"):
        for stream in (True, False):
            assert (402, {"message": "PaymentRequired: insufficient credits"}) == await client(
                "POST", path, {**body, "stream": stream}
            )
    assert [] == await client.messages(room)


async def test_an_error_during_the_stream_is_an_event_under_status_200(
    tachyon: TachyonEmulator, client: Client
) -> None:
    room = await client.create()
    tachyon.fail(Fault(cut_after=2, error="The model left"), operation="chat_completion_on_chatroom")
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    *_, last = await client.stream(f"chatrooms/{room}/chat/completions", body)
    assert 'event: error\ndata: {"type":"error","code":"STREAM_ERROR","message":"The model left"}' == last
    assert [] == await client.messages(room)


async def test_a_room_deleted_meanwhile_stays_deleted(tachyon: TachyonEmulator, client: Client) -> None:
    room = await client.create()
    fault = tachyon.fail(
        Fault(cut_after=1, cut="resume", hold=asyncio.Event()), operation="chat_completion_on_chatroom"
    )
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    answering = asyncio.create_task(client.stream(f"chatrooms/{room}/chat/completions", body))
    await fault.reached.wait()
    await client.raw("DELETE", f"chatrooms/{room}")
    assert fault.hold is not None
    fault.hold.set()
    assert "data: [DONE]" == (await answering)[-1]
    assert [] == (await client.rooms())[0]


# Completions without a room


async def test_without_a_room_the_client_sends_the_history(client: Client) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Welcome."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "Two"},
    ]
    status, answer = await client("POST", "chat/completions", {"messages": messages})
    assert (200, "Turn 2: you said 'Two'. Before that you said 'One'.") == (
        status, answer["choices"][0]["message"]["content"],
    )  # fmt: skip
    assert ("chat.completion", 3, True) == (
        answer["object"], answer["usage"]["prompt_tokens"], answer["id"].startswith("chatcmpl-"),
    )  # fmt: skip
    assert [] == (await client.rooms())[0]


async def test_without_a_room_a_stream_tells_more_and_null_where_nothing_is(client: Client) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    *events, done = await client.stream("chat/completions", body)
    first, *_, last = map(data, events)
    assert ["id", "object", "created", "model", "system_fingerprint", "choices"] == list(first)
    assert {
        "index": 0,
        "delta": {"role": "assistant", "content": None, "tool_calls": None},
        "finish_reason": None,
        "logprobs": None,
    } == first["choices"][0]
    assert ("stop", "data: [DONE]") == (last["choices"][0]["finish_reason"], done)


# Agents


async def test_a_run_is_a_stream_of_named_events(client: Client) -> None:
    path = f"chatrooms/{await client.create()}/agent/execute"
    events = await client.stream(path, {"task": "Hi"})
    assert 'event: say\ndata: {"type":"say","index":1,"text":"T"}' == events[0]
    text = "Turn 1: you said 'Hi'."
    assert [*text] == [data(event)["text"] for event in events[: len(text)]]
    tried = '{"type":"attempt_completion","result":"","command":null,"is_finished":true}'
    told = '{"type":"usage","prompt_tokens":1,"completion_tokens":5,"total_tokens":6,"total_cost":0.001}'
    assert [
        f"event: attempt_completion\ndata: {tried}",
        f"event: usage\ndata: {told}",
        'event: done\ndata: {"type":"done"}',
    ] == events[len(text) :]


async def test_a_long_answer_goes_on_word_by_word(client: Client) -> None:
    path = f"chatrooms/{await client.create()}/agent/execute"
    says = [
        data(event).get("text", "") for event in (await client.stream(path, {"task": "maple " * 100}))[:-1]
    ]
    assert f"Turn 1: you said {'maple ' * 100!r}." == "".join(says)
    assert 200 > len(says)


async def test_the_last_event_may_have_no_data(tachyon: TachyonEmulator, client: Client) -> None:
    tachyon.bare_done = True
    path = f"chatrooms/{await client.create()}/agent/execute"
    assert "event: done" == (await client.stream(path, {"task": "Hi"}))[-1]


async def test_without_credits_a_run_fails_inside_its_stream(
    tachyon: TachyonEmulator, client: Client
) -> None:
    tachyon.broke, room = True, await client.create()
    assert [
        'event: error\ndata: {"type":"error","code":"PAYMENT_REQUIRED","message":"Insufficient credits"}',
        'event: done\ndata: {"type":"done"}',
    ] == await client.stream(f"chatrooms/{room}/agent/execute", {"task": "Hi"})
    assert [] == await client.messages(room)


async def test_a_run_is_kept_as_messages_and_as_a_log(tachyon: TachyonEmulator, client: Client) -> None:
    tachyon.run = [
        {"type": "thinking", "index": 0, "text": "H", "is_finished": False},
        {"type": "thinking", "index": 0, "text": "m", "is_finished": True},
        {"type": "say", "index": 1, "text": "a"},
        {"type": "say", "index": 1, "text": "b"},
        {"type": "tool_call", "tool_id": "t", "tool_name": "x"},
        {"type": "tool_call_args", "tool_id": "t", "args": "{}"},
        {"type": "tool_result", "tool_id": "t", "result": "r", "is_finished": True},
        {"type": "say", "index": 2, "text": "c"},
        {"type": "say", "index": 2, "text": "d", "agent": {"chatroom_id": NOBODY}},
    ]
    room = await client.create()
    events = await client.stream(f"chatrooms/{room}/agent/execute", {"task": "Go"})
    assert "thinking" not in {data(event)["type"] for event in events}
    named = {"tool_call_id": "t", "tool_name": "x"}
    assert [
        ("user", {"type": "text", "text": "Go"}),
        ("assistant", {"type": "text", "text": "ab"}),
        ("assistant", {"type": "tool-call", **named, "args": "{}"}),
        ("tool", {"type": "tool-result", **named, "result": "r"}),
        ("assistant", {"type": "text", "text": "c"}),
    ] == [(message["role"], message["content"]) for message in await client.messages(room)]
    _, answer = await client("GET", f"chatrooms/{room}/agent/messages")
    user, *log = answer["messages"]
    assert ("user", "Go", USER) == (user["type"], user["text"], user["user_id"])
    assert re.fullmatch("[0-9A-Z]{26}", user["id"])
    assert [("thinking", "Hm"), ("say", "ab"), ("tool_call", None)] == [
        (chunk["type"], chunk.get("text")) for chunk in log[:3]
    ]
    assert ["say", "say", "usage"] == [chunk["type"] for chunk in log[-3:]]
    _, page = await client("GET", f"chatrooms/{room}/agent/messages", limit="2", offset="1")
    assert log[:2] == page["messages"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "Plan a trip to Kyoto in autumn"),
        ({"chatroom_name_generation": "never"}, "New Room"),
        ({"chatroom_name_generation": "always", "task": "\x00"}, "New Room"),
    ],
)
async def test_the_first_run_may_name_the_room(client: Client, fields: Json, name: str) -> None:
    room = await client.create()
    body = {"task": "Plan a trip to Kyoto in autumn, with maples", **fields}
    await client.stream(f"chatrooms/{room}/agent/execute", body)
    await client.stream(f"chatrooms/{room}/agent/execute", {"task": "And then?"})
    assert [name] == (await client.rooms())[0]


async def test_what_generated_clients_send_of_a_task_is_taken(client: Client) -> None:
    body = {
        "agent_protocol_id": None,
        "agent_protocol_mode": "auto",
        "auto_approve": False,
        "chatroom_name_generation": "first_only",
        "client_tools": None,
        "max_requests": 10,
        "mcp_hub_config_json": None,
        "model": None,
        "task": "",
        "tool_access": {"web": True},
        "use_json_tool_calls": None,
    }
    events = await client.stream(f"chatrooms/{await client.create()}/agent/execute", body)
    assert {"type": "done"} == data(events[-1])


BAD_TASKS: tuple[Json, ...] = (
    {"task": None},
    {"task": 5},
    {"model": []},
    {"auto_approve": "yes"},
    {"max_requests": 0},
    {"agent_protocol_id": 5},
    {"agent_protocol_mode": "sometimes"},
    {"chatroom_name_generation": True},
    {"client_tools": [5]},
    {"use_json_tool_calls": 1},
    {"user_custom_instructions": {}},
    {"assistant_name": 5},
    {"additional_tool_description": 5},
    {"mcp_hub_config_json": {}},
    {"tool_access": "web"},
)


@pytest.mark.parametrize("fields", BAD_TASKS)
async def test_a_task_of_another_form_is_a_400_that_names_the_field(client: Client, fields: Json) -> None:
    status, answer = await client(
        "POST", f"chatrooms/{await client.create()}/agent/execute", {"task": "Hi", **fields}
    )
    assert (400, True) == (status, answer["message"].startswith(f"BadRequest: {next(iter(fields))} must be "))


@pytest.mark.parametrize("path", ["chat/completions", "agent/execute"])
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
async def test_a_request_without_a_json_object_is_a_400(client: Client, path: str, body: bytes) -> None:
    status, answer, _ = await client.raw("POST", f"chatrooms/{await client.create()}/{path}", body)
    assert (400, b'{"message":"BadRequest: ') == (status, answer[:24])

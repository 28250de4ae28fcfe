"""The emulator of Datamonkey as raw HTTP: six operations, their errors, the sessions behind the tokens."""

from __future__ import annotations

import asyncio
import base64
import hmac
import itertools
import json
import re
import uuid
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from attrs import define

from chatbridge.testing.emulator import Fault, serve
from chatbridge_adapters.datamonkey.emulator import DatamonkeyEmulator

JSON = "application/json; charset=utf-8"
START = datetime(2026, 1, 1, tzinfo=UTC)
MILLISECONDS = 1767225600000
NO_TOKEN = "Unauthorized - valid token required to "


@define
class Clock:
    """A clock that stands still until it is moved."""

    at: datetime = START

    def __call__(self) -> datetime:
        return self.at


@define
class Answered:
    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def media(self) -> str | None:
        content_type = self.headers.get("Content-Type")
        assert content_type is None or isinstance(content_type, str)
        return content_type


@define
class Client:
    """A client that sends what it is told and nothing of its own."""

    emulator: DatamonkeyEmulator
    http: aiohttp.ClientSession

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = "",
    ) -> Answered:
        """Send *body*; the token is the emulator's first unless one is given, or None."""
        bearer = {} if token is None else {"Authorization": f"Bearer {token or self.emulator.key}"}
        async with self.http.request(
            method,
            f"/api/v1{path}",
            data=body or None,
            headers={**bearer, **(headers or {})},
            skip_auto_headers=["Content-Type"],
            allow_redirects=False,
        ) as response:
            return Answered(response.status, response.headers, await response.text())

    async def create(self, title: str | None = None, *, token: str | None = "") -> str:
        body = b"" if title is None else json.dumps({"title": title}).encode()
        created = (await self.call("POST", "/chat", body, token=token)).json
        assert isinstance(created["id"], str)
        return created["id"]

    async def send(self, conversation_id: str, said: str) -> Answered:
        body = json.dumps({"message": said}).encode()
        return await self.call("POST", f"/chat/{conversation_id}/messages", body)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def emulator(clock: Clock) -> AsyncGenerator[DatamonkeyEmulator, None]:
    numbers = itertools.count(1)
    emulator = DatamonkeyEmulator(now=clock, ids=lambda: uuid.UUID(int=next(numbers)))
    yield emulator
    assert [] == emulator.crashes


@pytest.fixture
async def client(emulator: DatamonkeyEmulator) -> AsyncGenerator[Client, None]:
    async with serve(emulator) as served, aiohttp.ClientSession(served.base_url) as http:
        yield Client(emulator, http)


# The three shapes of a conversation


async def test_a_new_conversation_shows_its_title_only_where_it_has_one_and_never_messages(
    client: Client,
) -> None:
    titled = await client.call("POST", "/chat", b'{"title":"T"}')
    conversation_id = "conv-1767225600000-00000002"
    times = f'"created":{MILLISECONDS},"updated":{MILLISECONDS}'
    assert (201, JSON) == (titled.status, titled.media)
    assert f'{{"id":"{conversation_id}","title":"T",{times}}}' == titled.text
    for body in (b"", b"{}", b'{"title":""}', b'{"title":null}'):
        untitled = await client.call("POST", "/chat", body)
        assert re.fullmatch(
            rf'{{"id":"conv-{MILLISECONDS}-[0-9A-Za-z]{{8}}",{re.escape(times)}}}', untitled.text
        )


async def test_a_listed_conversation_always_shows_its_title_and_keys_come_in_alphabetical_order(
    client: Client,
) -> None:
    conversation_id = await client.create()
    listed = await client.call("GET", "/chat")
    assert (200, JSON) == (listed.status, listed.media)
    shown = f'"created":{MILLISECONDS},"id":"{conversation_id}","title":"","updated":{MILLISECONDS}'
    assert f'{{"conversations":[{{{shown}}}]}}' == listed.text


async def test_a_list_of_none_is_an_empty_array(client: Client) -> None:
    assert '{"conversations":[]}' == (await client.call("GET", "/chat")).text


async def test_a_conversation_by_itself_shows_all_keys_in_alphabetical_order_with_messages_null(
    client: Client,
) -> None:
    conversation_id = await client.create("T")
    read = await client.call("GET", f"/chat/{conversation_id}")
    assert (200, JSON) == (read.status, read.media)
    assert (
        f'{{"created":{MILLISECONDS},"id":"{conversation_id}","messages":null,"title":"T",'
        f'"updated":{MILLISECONDS}}}'
    ) == read.text


async def test_messages_are_null_where_there_are_none_and_else_come_with_role_content_and_timestamp(
    client: Client, clock: Clock
) -> None:
    conversation_id = await client.create()
    history = await client.call("GET", f"/chat/{conversation_id}/messages")
    assert (200, JSON, '{"messages":null}') == (history.status, history.media, history.text)
    clock.at += timedelta(milliseconds=5123)
    await client.send(conversation_id, "hi")
    history = await client.call("GET", f"/chat/{conversation_id}/messages")
    at = MILLISECONDS + 5123
    assert (
        f'{{"messages":[{{"role":"user","content":"hi","timestamp":{at}}},'
        f'{{"role":"assistant","content":"Turn 1: you said \'hi\'.","timestamp":{at}}}]}}'
    ) == history.text
    assert history.json["messages"] == (await client.call("GET", f"/chat/{conversation_id}")).json["messages"]


async def test_a_question_and_its_answer_have_equal_timestamps_and_keep_their_order(client: Client) -> None:
    conversation_id = await client.create()
    for said in ("b", "a", "c"):
        await client.send(conversation_id, said)
    messages = (await client.call("GET", f"/chat/{conversation_id}/messages")).json["messages"]
    assert {MILLISECONDS} == {message["timestamp"] for message in messages}
    assert ["b", "a", "c"] == [message["content"] for message in messages if message["role"] == "user"]
    assert ["user", "assistant"] * 3 == [message["role"] for message in messages]


async def test_updated_moves_with_a_message_and_the_list_shows_the_last_update_first(
    client: Client, clock: Clock
) -> None:
    first, second = await client.create("one"), await client.create("two")
    assert [second, first] == [
        each["id"] for each in (await client.call("GET", "/chat")).json["conversations"]
    ]
    clock.at += timedelta(seconds=1)
    await client.send(first, "hi")
    listed = (await client.call("GET", "/chat")).json["conversations"]
    assert [(first, MILLISECONDS + 1000), (second, MILLISECONDS)] == [
        (each["id"], each["updated"]) for each in listed
    ]
    assert {MILLISECONDS} == {each["created"] for each in listed}


# Creating


@pytest.mark.parametrize(
    "body",
    [b"{]", b"title", b"[]", b'"T"', b"null", b'{"title":5}', b'{"title":["T"]}', b"\xff", b"[" * 9999],
)
async def test_what_is_no_title_at_creation_counts_as_none(client: Client, body: bytes) -> None:
    created = await client.call("POST", "/chat", body)
    assert (201, ["id", "created", "updated"]) == (created.status, list(created.json))


async def test_there_is_no_renaming(client: Client) -> None:
    conversation_id = await client.create("T")
    for method in ("PUT", "PATCH", "POST"):
        renamed = await client.call(method, f"/chat/{conversation_id}", b'{"title":"U"}')
        assert (404, "404 page not found") == (renamed.status, renamed.text)


# Sending


async def test_a_reply_is_one_message_and_the_conversation_remembers(client: Client) -> None:
    conversation_id = await client.create()
    first = await client.send(conversation_id, "a")
    assert (200, JSON) == (first.status, first.media)
    assert (
        f'{{"message":{{"role":"assistant","content":"Turn 1: you said \'a\'.","timestamp":{MILLISECONDS}}}}}'
    ) == first.text
    second = (await client.send(conversation_id, "b")).json["message"]["content"]
    assert "Turn 2: you said 'b'. Before that you said 'a'." == second


async def test_json_is_written_as_go_writes_it(client: Client) -> None:
    conversation_id = await client.create("<b> & 京都 é \u2028")
    title = r'"title":"\u003cb\u003e \u0026 京都 é \u2028"'
    assert title in (await client.call("GET", "/chat")).text
    said = "<script>\x00 🦌 \u2029"
    sent = await client.send(conversation_id, said)
    assert r"\u003cscript\u003e" in sent.text
    assert "🦌" in sent.text
    messages = (await client.call("GET", f"/chat/{conversation_id}/messages")).json["messages"]
    assert said == messages[0]["content"]


async def test_a_blank_message_passes_and_further_keys_are_ignored(client: Client) -> None:
    conversation_id = await client.create()
    path = f"/chat/{conversation_id}/messages"
    for body in (b'{"message":" "}', b'{"message":"a","fileId":"f","model":1}'):
        assert 200 == (await client.call("POST", path, body)).status


REQUIRED = "Key: 'Message' Error:Field validation for 'Message' failed on the 'required' tag"
CANNOT = "json: cannot unmarshal "
FIELD = " into Go struct field .message of type string"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "EOF"),
        (b" \n", "EOF"),
        (b"{}", REQUIRED),
        (b"null", REQUIRED),
        (b'{"message":""}', REQUIRED),
        (b'{"message":null}', REQUIRED),
        (b'{"text":"a"}', REQUIRED),
        (b'{"message":5}', f"{CANNOT}number{FIELD}"),
        (b'{"message":1.5}', f"{CANNOT}number{FIELD}"),
        (b'{"message":true}', f"{CANNOT}bool{FIELD}"),
        (b'{"message":["a"]}', f"{CANNOT}array{FIELD}"),
        (b'{"message":{}}', f"{CANNOT}object{FIELD}"),
        (b"[]", f"{CANNOT}array into Go value"),
        (b'"a"', f"{CANNOT}string into Go value"),
        (b"{]", "invalid character in the body"),
        (b'{"message":"\xff"}', "invalid character in the body"),
        (rb'{"message":"\ud800"}', "invalid character in the body"),
        (b'{"message":NaN}', "invalid character in the body"),
        (b"[" * 9999, "invalid character in the body"),
    ],
)
async def test_what_is_no_message_is_a_400_and_leaves_nothing(client: Client, body: bytes, said: str) -> None:
    conversation_id = await client.create()
    sent = await client.call("POST", f"/chat/{conversation_id}/messages", body)
    assert (400, JSON, {"error": f"Invalid request: {said}"}) == (sent.status, sent.media, sent.json)
    assert '{"messages":null}' == (await client.call("GET", f"/chat/{conversation_id}/messages")).text


async def test_without_a_model_a_send_is_a_500_without_a_body(
    client: Client, emulator: DatamonkeyEmulator
) -> None:
    emulator.has_model = False
    conversation_id = await client.create()
    sent = await client.send(conversation_id, "hi")
    assert (500, "", None) == (sent.status, sent.text, sent.media)
    assert '{"messages":null}' == (await client.call("GET", f"/chat/{conversation_id}/messages")).text


async def test_a_failed_send_leaves_the_conversation_as_it_was_and_a_lost_reply_the_question(
    client: Client, emulator: DatamonkeyEmulator
) -> None:
    conversation_id = await client.create()
    error = "Failed to process chat: upstream timed out"
    emulator.fail(Fault(status=500, error=error), operation="send_conversation_message")
    sent = await client.send(conversation_id, "a")
    assert (500, JSON, {"error": error}) == (sent.status, sent.media, sent.json)
    assert '{"messages":null}' == (await client.call("GET", f"/chat/{conversation_id}/messages")).text
    emulator.fail(Fault(status=500, error="Failed to save response", kept="question"))
    await client.send(conversation_id, "b")
    messages = (await client.call("GET", f"/chat/{conversation_id}/messages")).json["messages"]
    assert [("user", "b")] == [(message["role"], message["content"]) for message in messages]
    third = (await client.send(conversation_id, "c")).json["message"]["content"]
    assert "Turn 2: you said 'c'. Before that you said 'b'." == third


async def test_sends_to_one_conversation_at_once_are_all_kept(client: Client) -> None:
    conversation_id = await client.create()
    await asyncio.gather(*(client.send(conversation_id, str(n)) for n in range(20)))
    messages = (await client.call("GET", f"/chat/{conversation_id}/messages")).json["messages"]
    assert {str(n) for n in range(20)} == {each["content"] for each in messages if each["role"] == "user"}


async def test_nothing_comes_back_of_a_conversation_deleted_while_its_answer_was_on_the_way(
    client: Client, emulator: DatamonkeyEmulator
) -> None:
    conversation_id = await client.create()
    fault = emulator.fail(Fault(cut_after=0, cut="resume", hold=asyncio.Event()))
    sending = asyncio.create_task(client.send(conversation_id, "hi"))
    await fault.reached.wait()
    assert 204 == (await client.call("DELETE", f"/chat/{conversation_id}")).status
    assert fault.hold is not None
    fault.hold.set()
    assert 200 == (await sending).status
    assert '{"conversations":[]}' == (await client.call("GET", "/chat")).text


# Deleting


async def test_deleting_is_a_204_with_neither_body_nor_content_type_and_a_404_the_second_time(
    client: Client,
) -> None:
    conversation_id, other = await client.create(), await client.create()
    deleted = await client.call("DELETE", f"/chat/{conversation_id}")
    assert (204, "", None) == (deleted.status, deleted.text, deleted.media)
    again = await client.call("DELETE", f"/chat/{conversation_id}")
    assert (404, {"error": "Conversation not found"}) == (again.status, again.json)
    assert [other] == [each["id"] for each in (await client.call("GET", "/chat")).json["conversations"]]


# Tokens


OPERATIONS = [
    ("GET", "/chat", "list conversations", None),
    ("GET", "/chat/{id}", "access conversations", "access"),
    ("DELETE", "/chat/{id}", "delete conversations", "delete"),
    ("GET", "/chat/{id}/messages", "access conversations", "access"),
    ("POST", "/chat/{id}/messages", "send messages", "access"),
]


def segments(token: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")]


async def test_a_creation_without_a_token_opens_a_session_and_tells_its_token(
    client: Client, emulator: DatamonkeyEmulator
) -> None:
    created = await client.call("POST", "/chat", token=None)
    assert (201, "X-Session-Token") == (created.status, created.headers["Access-Control-Expose-Headers"])
    token = created.headers["X-Session-Token"]
    assert token in emulator.sessions
    assert token != emulator.key
    listed = await client.call("GET", "/chat", token=token)
    assert [created.json["id"]] == [each["id"] for each in listed.json["conversations"]]
    assert [] == (await client.call("GET", "/chat")).json["conversations"]


def test_a_token_is_a_signed_jwt_for_a_day(emulator: DatamonkeyEmulator) -> None:
    header, claims, signature = segments(emulator.key)
    assert {"alg": "HS256", "typ": "JWT"} == json.loads(header)
    start = int(START.timestamp())
    assert {"sub": str(uuid.UUID(int=1)), "iat": start, "exp": start + 86400} == json.loads(claims)
    signed = emulator.key.rpartition(".")[0]
    assert hmac.digest(b"datamonkey-emulator", signed.encode(), "sha256") == signature


async def test_a_creation_with_a_token_that_holds_tells_none(client: Client) -> None:
    created = await client.call("POST", "/chat")
    assert {"X-Session-Token", "Access-Control-Expose-Headers"}.isdisjoint(created.headers)


@pytest.mark.parametrize("token", ["wrong", "a.b.c"])
async def test_a_creation_with_a_bad_token_is_no_error_and_opens_a_session(
    client: Client, token: str
) -> None:
    created = await client.call("POST", "/chat", token=token)
    assert 201 == created.status
    assert [created.json["id"]] == [
        each["id"]
        for each in (await client.call("GET", "/chat", token=created.headers["X-Session-Token"])).json[
            "conversations"
        ]
    ]


async def test_a_token_ends_to_the_second_and_what_was_made_with_it_is_out_of_reach(
    client: Client, clock: Clock, emulator: DatamonkeyEmulator
) -> None:
    conversation_id = await client.create()
    clock.at = START + timedelta(hours=24, milliseconds=-1)
    assert 200 == (await client.call("GET", "/chat")).status
    clock.at = START + timedelta(hours=24)
    assert 401 == (await client.call("GET", "/chat")).status
    token = (await client.call("POST", "/chat")).headers["X-Session-Token"]
    assert 403 == (await client.call("GET", f"/chat/{conversation_id}", token=token)).status
    emulator.expire(token)
    assert 401 == (await client.call("GET", "/chat", token=token)).status


@pytest.mark.parametrize(("method", "path", "purpose", "_"), OPERATIONS)
@pytest.mark.parametrize("token", [None, "wrong"])
async def test_without_a_token_that_holds_all_else_is_a_401_before_anything_is_looked_at(
    client: Client, token: str | None, method: str, path: str, purpose: str, _: str | None
) -> None:
    for conversation_id in (await client.create(), "nowhere"):
        refused = await client.call(method, path.format(id=conversation_id), b"{]", token=token)
        assert (401, JSON, {"error": NO_TOKEN + purpose}) == (refused.status, refused.media, refused.json)


@pytest.mark.parametrize(("method", "path", "_", "purpose"), OPERATIONS[1:])
async def test_what_is_not_there_is_a_404_and_what_is_anothers_a_403_before_the_body_is_read(
    client: Client, method: str, path: str, _: str, purpose: str
) -> None:
    for missing in ("conv-1-a", "nowhere", "..%2F", "%E4%BA%AC"):
        found = await client.call(method, path.format(id=missing), b"{]")
        assert (404, JSON, {"error": "Conversation not found"}) == (found.status, found.media, found.json)
    others = await client.create(token=None)
    refused = await client.call(method, path.format(id=others), b"{]")
    error = {"error": f"You don't have permission to {purpose} this conversation"}
    assert (403, JSON, error) == (refused.status, refused.media, refused.json)


@pytest.mark.parametrize("place", ["authorization", "header", "query"])
async def test_a_token_may_be_in_any_of_three_places(client: Client, place: str) -> None:
    key = client.emulator.key
    headers = {"authorization": {"Authorization": f"Bearer {key}"}, "header": {"user_token": key}}.get(
        place, {}
    )
    query = f"?user_token={key}" if place == "query" else ""
    assert 200 == (await client.call("GET", f"/chat{query}", headers=headers, token=None)).status


async def test_the_first_place_that_has_a_token_counts(client: Client) -> None:
    key = client.emulator.key
    assert 401 == (await client.call("GET", "/chat", headers={"user_token": key}, token="wrong")).status
    assert (
        401
        == (
            await client.call("GET", f"/chat?user_token={key}", headers={"user_token": "wrong"}, token=None)
        ).status
    )
    assert 200 == (await client.call("GET", "/chat?user_token=wrong", headers={"user_token": "wrong"})).status


@pytest.mark.parametrize(
    "value", ["bearer {}", "BEARER {}", "Bearer  {}", "Bearer {} x", "Basic {}", "{}", "Bearer"]
)
async def test_an_authorization_of_another_form_is_skipped(client: Client, value: str) -> None:
    key = client.emulator.key
    headers = {"Authorization": value.format(key)}
    assert 401 == (await client.call("GET", "/chat", headers=headers, token=None)).status
    assert (
        200 == (await client.call("GET", "/chat", headers={**headers, "user_token": key}, token=None)).status
    )


async def test_no_other_header_is_a_token(client: Client) -> None:
    headers: dict[str, str] = dict.fromkeys(
        ("X-Session-Token", "X-User-Token", "X-Auth-Token"), client.emulator.key
    )
    assert 401 == (await client.call("GET", "/chat", headers=headers, token=None)).status


async def test_there_is_no_login(client: Client) -> None:
    login = await client.call("POST", "/auth/token", b"{}")
    assert (404, "text/plain", "404 page not found") == (login.status, login.media, login.text)


async def test_with_the_token_mode_off_the_header_names_the_owner_and_nothing_else_is_checked(
    client: Client, emulator: DatamonkeyEmulator
) -> None:
    emulator.user_token_enabled = False
    refused = await client.call("POST", "/chat")
    assert (401, {"error": "User token is required"}) == (refused.status, refused.json)
    created = await client.call("POST", "/chat", headers={"user_token": "me"}, token=None)
    assert 201 == created.status
    assert "X-Session-Token" not in created.headers
    path = f"/chat/{created.json['id']}"
    for method, of, _, _ in OPERATIONS:
        assert 401 != (await client.call(method, of.format(id=created.json["id"]), token=None)).status
    assert 404 == (await client.call("GET", path, token=None)).status


# What the generated client sends


async def test_what_the_generated_client_sends_is_understood(client: Client) -> None:
    """It names the media type on every request, and has the token in the header of the document."""
    headers = {
        "user_token": client.emulator.key,
        "Accept": "application/json",
        "Content-Type": "application/json",
        "User-Agent": "OpenAPI-Generator/1.0.0/python",
    }

    async def call(method: str, path: str, body: bytes = b"") -> Answered:
        return await client.call(method, path, body, headers, token=None)

    untitled = await call("POST", "/chat")
    assert 201 == untitled.status
    created = await call("POST", "/chat", b'{"title": "Selection analysis"}')
    assert ("Selection analysis", None) == (created.json["title"], created.headers.get("X-Session-Token"))
    path = f"/chat/{created.json['id']}"
    assert 2 == len((await call("GET", "/chat")).json["conversations"])
    assert (await call("GET", path)).json["messages"] is None
    assert {"messages": None} == (await call("GET", f"{path}/messages")).json
    sent_message = await call("POST", f"{path}/messages", b'{"message": "What does BUSTED test?"}')
    assert {"role", "content", "timestamp"} == set(sent_message.json["message"])
    assert 2 == len((await call("GET", f"{path}/messages")).json["messages"])
    assert 204 == (await call("DELETE", path)).status
    assert 404 == (await call("DELETE", path)).status


# What is no route


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nothing"), ("PUT", "/chat"), ("DELETE", "/chat"), ("GET", "/chat/a/b/c"), ("PUT", "/chat/")],
)
async def test_what_is_no_route_is_a_404_in_plain_text(client: Client, method: str, path: str) -> None:
    refused = await client.call(method, path)
    assert (404, "text/plain", "404 page not found") == (refused.status, refused.media, refused.text)
    assert (None, 404) == (client.emulator.calls[-1].operation, client.emulator.calls[-1].status)


async def test_the_base_path_belongs_to_the_route(client: Client) -> None:
    async with client.http.get("/chat") as response:
        assert (404, "404 page not found") == (response.status, await response.text())


@pytest.mark.parametrize(
    ("method", "path", "status", "page"),
    [
        ("GET", "/chat", 301, '<a href="/api/v1/chat">Moved Permanently</a>.\n\n'),
        ("GET", "/chat/a%20b", 301, '<a href="/api/v1/chat/a%20b">Moved Permanently</a>.\n\n'),
        ("POST", "/chat", 307, ""),
        ("DELETE", "/chat/a", 307, ""),
        ("POST", "/chat/a/messages", 307, ""),
    ],
)
async def test_a_slash_at_the_end_is_redirected(
    client: Client, method: str, path: str, status: int, page: str
) -> None:
    moved = await client.call(method, f"{path}/", token=None)
    assert (status, f"/api/v1{path}", page) == (moved.status, moved.headers["Location"], moved.text)
    assert None is client.emulator.calls[-1].operation


async def test_a_redirection_keeps_the_query(client: Client) -> None:
    moved = await client.call("GET", "/chat/?user_token=a%26b", token=None)
    assert "/api/v1/chat?user_token=a%26b" == moved.headers["Location"]


# Planned faults, and how it is reached


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_a_planned_error_has_the_form_of_the_api(
    client: Client, emulator: DatamonkeyEmulator, status: int
) -> None:
    emulator.fail(Fault(status=status, error="So not <here>"))
    refused = await client.call("GET", "/chat")
    assert (status, JSON, r'{"error":"So not \u003chere\u003e"}') == (
        refused.status,
        refused.media,
        refused.text,
    )


def test_nothing_is_streamed_so_there_are_no_error_lines() -> None:
    with pytest.raises(ValueError, match="datamonkey has no error lines"):
        DatamonkeyEmulator().fail(Fault(cut_after=1, error="x"))


def test_config_and_environment_reach_the_emulator() -> None:
    emulator = DatamonkeyEmulator(key="k")
    assert "datamonkey+http://127.0.0.1:1" == emulator.config("http://127.0.0.1:1")
    assert {"DATAMONKEY_SESSION_TOKEN": "k"} == emulator.env
    assert {"k"} == set(emulator.sessions)
    assert DatamonkeyEmulator().key != DatamonkeyEmulator().key

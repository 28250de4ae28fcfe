"""The emulator of Mtmai: its seven operations, their errors and quirks, lines byte by byte."""

from __future__ import annotations

import json
import uuid
from base64 import b64encode
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from chatbridge.testing.emulator import Fault, serve
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator

NOBODY = str(uuid.UUID(int=0))
NOW = "2026-01-01T12:00:00Z"
META = {"id": NOBODY, "createdAt": NOW, "updatedAt": "2026-01-01T12:00:00.000+08:00"}
MESSAGE = {"metadata": META, "role": "user", "content": "你好"}
FORBIDDEN = {"description": "Please provide valid credentials"}


@pytest.fixture
def mtmai() -> MtmaiEmulator:
    return MtmaiEmulator(now=lambda: datetime(2026, 1, 1, 12, tzinfo=UTC))


class Client:
    """Says what is asked and gives status and JSON."""

    def __init__(self, http: aiohttp.ClientSession, emulator: MtmaiEmulator) -> None:
        self.http = http
        self.emulator = emulator

    async def __call__(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        async with self.http.request(method, path, json=body, headers=headers) as response:
            assert "application/json" == response.headers["Content-Type"]
            return response.status, await response.json()

    async def raw(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, str]:
        """Give status, body and content type as they are."""
        async with self.http.request(method, path, data=body, headers=headers) as response:
            return response.status, await response.read(), response.headers.get("Content-Type", "")

    async def create(self, **fields: object) -> str:
        status, session = await self("POST", "chats", fields)
        assert 200 == status
        return str(session["metadata"]["id"])

    def flow(self, *messages: object, **fields: object) -> dict[str, Any]:
        """Make the run that the web interface asks for."""
        params = {"teamId": self.emulator.team, "messages": list(messages or [MESSAGE])}
        return {"name": "ag", "isStream": False, "params": params, **fields}

    async def start(self, *messages: object) -> str:
        _, body, _ = await self.raw(
            "POST", "nodes/run", json.dumps(self.flow(*messages)).encode(), Accept="text/event-stream"
        )
        assert b"2:" == body[:2]
        return str(json.loads(body[2:])["data"]["id"])


@pytest.fixture
async def client(mtmai: MtmaiEmulator) -> AsyncGenerator[Client, None]:
    headers = {"Authorization": f"Bearer {mtmai.key}"}
    async with (
        serve(mtmai) as served,
        aiohttp.ClientSession(
            f"{served.base_url}/api/v1/tenants/{mtmai.tenant}/",
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as http,
    ):
        yield Client(http, mtmai)
    assert [] == mtmai.crashes


# Sessions


async def test_a_new_session_is_a_200_with_metadata_name_version_and_team(
    client: Client, mtmai: MtmaiEmulator
) -> None:
    status, session = await client("POST", "chats", {"name": "会话"})
    session_id = session["metadata"]["id"]
    assert 36 == len(session_id)
    assert {
        "metadata": {"id": session_id, "createdAt": NOW, "updatedAt": NOW},
        "name": "会话",
        "version": "1",
        "team": mtmai.team,
    } == session
    assert (200, session) == (status, session) == await client("GET", f"chats/{session_id}")


async def test_a_session_without_a_name_is_named_by_the_server(client: Client) -> None:
    for body in ({}, {"metadata": META}):
        _, session = await client("POST", "chats", body)
        assert session["name"]
        assert NOBODY != session["metadata"]["id"]


async def test_sessions_are_listed_newest_first_in_rows(client: Client) -> None:
    assert (200, {"rows": []}) == await client("GET", "chats")
    made = [await client.create(name=name) for name in "abc"]
    _, sessions = await client("GET", "chats")
    assert made[::-1] == [row["metadata"]["id"] for row in sessions["rows"]]


async def test_a_put_changes_the_name_and_nothing_else(client: Client, mtmai: MtmaiEmulator) -> None:
    session = await client.create(name="old")
    mtmai.now = lambda: datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=UTC)
    _, renamed = await client("PUT", f"chats/{session}", {"name": "新名字", "team": "x", "version": "9"})
    later = {"id": session, "createdAt": NOW, "updatedAt": "2026-01-01T12:00:00.000005Z"}
    assert {"metadata": later, "name": "新名字", "version": "1", "team": mtmai.team} == renamed
    mtmai.now = lambda: datetime(2027, 1, 1, tzinfo=UTC)
    assert (200, renamed) == await client("PUT", f"chats/{session}", {})


@pytest.mark.parametrize(
    ("empty", "rows", "messages"),
    [
        ("array", {"rows": []}, {"messages": []}),
        ("missing", {}, {}),
        ("null", {"rows": None}, {"messages": None}),
    ],
)
async def test_lists_of_nothing_may_be_empty_missing_or_null(
    client: Client, mtmai: MtmaiEmulator, empty: Any, rows: object, messages: object
) -> None:
    mtmai.empty = empty
    assert (200, rows) == await client("GET", "chats")
    assert (200, messages) == await client("GET", f"chats/{await client.create()}/messages")


async def test_a_session_may_have_no_metadata(client: Client, mtmai: MtmaiEmulator) -> None:
    mtmai.metadata = False
    assert "metadata" not in (await client("POST", "chats", {}))[1]
    mtmai.metadata = True
    await client.create()
    _, sessions = await client("GET", "chats")
    assert [True, False] == ["metadata" in row for row in sessions["rows"]]


async def test_messages_are_those_that_were_put_there(client: Client, mtmai: MtmaiEmulator) -> None:
    session = await client.create()
    first = mtmai.remember(session, "user", "你好", at=datetime(2025, 1, 1, tzinfo=UTC))
    second = mtmai.remember(session, "assistant", "好", source="ann", config={"message_type": "text"})
    old = "2025-01-01T00:00:00Z"
    assert (
        200,
        {
            "messages": [
                {
                    "metadata": {"id": first, "createdAt": old, "updatedAt": old},
                    "role": "user",
                    "content": "你好",
                },
                {
                    "metadata": {"id": second, "createdAt": NOW, "updatedAt": NOW},
                    "role": "assistant",
                    "content": "好",
                    "source": "ann",
                    "config": {"message_type": "text"},
                },
            ]
        },
    ) == await client("GET", f"chats/{session}/messages")


# Who may, and what is wrong


async def test_any_one_of_three_schemes_will_do(client: Client, mtmai: MtmaiEmulator) -> None:
    mtmai.key = "me:secret"
    basic = b64encode(b"me:secret").decode()
    for headers in (
        {"Authorization": "Bearer me:secret"},
        {"Authorization": f"Basic {basic}"},
        {"Authorization": "", "Cookie": "hatchet=me:secret"},
        {"Authorization": "Bearer wrong", "Cookie": "a=b; hatchet=me:secret"},
    ):
        assert (200, {"rows": []}) == await client("GET", "chats", **headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "bearer sk-emulator"},
        {"Authorization": "sk-emulator"},
        {"Authorization": "Basic c2s="},
        {"Authorization": "Basic ?"},
        {"Authorization": "Basic /w=="},
        {"Authorization": "", "Cookie": "sk-emulator"},
        {"Authorization": "", "Cookie": "other=sk-emulator"},
    ],
)
async def test_missing_or_wrong_credentials_are_a_403(client: Client, headers: dict[str, str]) -> None:
    for method, path in (
        ("POST", "chats"),
        ("GET", "chats"),
        ("GET", "chats/x"),
        ("PUT", "chats/x"),
        ("GET", "chats/x/messages"),
        ("POST", "nodes/run"),
        ("GET", "stream/x"),
    ):
        assert (403, FORBIDDEN) == await client(method, path, **headers)


async def test_another_tenant_is_a_403(client: Client) -> None:
    for tenant in (NOBODY, "short"):
        assert (403, FORBIDDEN) == await client("GET", f"../{tenant}/chats")


async def test_an_unknown_session_or_run_is_a_404_without_a_body(client: Client) -> None:
    for method, path in (
        ("GET", f"chats/{NOBODY}"),
        ("PUT", f"chats/{NOBODY}"),
        ("GET", f"chats/{NOBODY}/messages"),
        ("GET", f"stream/{NOBODY}"),
    ):
        status, body, content_type = await client.raw(method, path, b"{}")
        assert (404, b"") == (status, body)
        assert "json" not in content_type


async def test_an_unknown_path_or_method_is_the_frameworks_error(client: Client) -> None:
    assert (404, {"message": "Not Found"}) == await client("GET", "nothing")
    assert (405, {"message": "Method Not Allowed"}) == await client("DELETE", f"chats/{NOBODY}")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "The body must be a JSON object"),
        (b"[]", "The body must be a JSON object"),
        (b"{", "The body must be a JSON object"),
        (b'{"name": null}', "name must be a non-empty string"),
        (b'{"name": ""}', "name must be a non-empty string"),
        (b'{"name": 5}', "name must be a non-empty string"),
        (b'{"metadata": null}', "metadata must be an object"),
        (b'{"metadata": {"createdAt": "x"}}', "metadata.id must be a string of at most 36 characters"),
        (
            b'{"metadata": {"id": "%s"}}' % (b"x" * 37),
            "metadata.id must be a string of at most 36 characters",
        ),
        (b'{"metadata": {"id": "x", "createdAt": "x"}}', "metadata.createdAt must be a time with its zone"),
        (
            b'{"metadata": {"id": "x", "createdAt": "2026-01-01T12:00:00Z", "updatedAt": "2026-01-01"}}',
            "metadata.updatedAt must be a time with its zone",
        ),
    ],
)
async def test_a_body_of_another_form_is_a_400_with_a_list_of_errors(
    client: Client, body: bytes, problem: str
) -> None:
    expected = {"errors": [{"code": 1400, "description": problem}]}
    for method, path in (("POST", "chats"), ("PUT", f"chats/{await client.create()}")):
        status, told, _ = await client.raw(method, path, body)
        assert (400, expected) == (status, json.loads(told))


# Runs


async def test_a_run_says_its_id_on_a_line_that_is_called_an_event_stream(
    client: Client, mtmai: MtmaiEmulator
) -> None:
    mtmai.ids = lambda: uuid.UUID(int=7)
    body = json.dumps(client.flow()).encode()
    run = str(uuid.UUID(int=7))
    expected = b'2:{"type": "WorkflowRunStart", "data": {"id": "%s"}}\n' % run.encode()
    assert (200, expected, "text/event-stream") == await client.raw(
        "POST", "nodes/run", body, Accept="text/event-stream"
    )
    mtmai.run_id_field = "workflowRunId"
    assert (200, expected.replace(b'"id"', b'"workflowRunId"'), "text/event-stream") == await client.raw(
        "POST", "nodes/run", body
    )


async def test_a_client_that_takes_json_is_given_an_agent_node_run(client: Client) -> None:
    status, run = await client("POST", "nodes/run", client.flow(), Accept="application/json")
    assert (200, {"metadata", "workflowRunId", "nodeId"}) == (status, set(run))
    status, lines, _ = await client.raw("GET", f"stream/{run['workflowRunId']}")
    assert (200, True) == (status, lines.endswith(b"\n"))


async def test_the_events_of_a_run_are_lines_of_ascii_json_as_python_writes_it(client: Client) -> None:
    run = await client.start()
    status, body, content_type = await client.raw("GET", f"stream/{run}", Accept="text/event-stream")
    assert (200, "text/event-stream") == (status, content_type)
    piece = b'{"source": "assistant", "models_usage": null, "content": "%s", "type": "%s"}\n'
    chunks = [b"Turn", b" 1:", b" you", b" said", b" '\\u4f60\\u597d'."]
    assert (
        b'{"source": "user", "models_usage": null, "content": "\\u4f60\\u597d", "type": "TextMessage"}\n'
        + b"".join(piece % (each, b"ModelClientStreamingChunkEvent") for each in chunks)
        + b'{"source": "assistant", "models_usage": {"prompt_tokens": 1, "completion_tokens": 5}, '
        b'"content": "Turn 1: you said \'\\u4f60\\u597d\'.", "type": "TextMessage"}\n'
    ) == body


async def told(client: Client, *messages: object) -> list[tuple[str, str, str]]:
    _, body, _ = await client.raw("GET", f"stream/{await client.start(*messages)}")
    events = [json.loads(line) for line in body.splitlines()]
    return [(event["source"], event["type"], event["content"]) for event in events]


async def test_a_team_whose_model_does_not_stream_sends_messages_alone(
    client: Client, mtmai: MtmaiEmulator
) -> None:
    mtmai.streaming, mtmai.agents = False, ("ann", "bob")
    assert [
        ("user", "TextMessage", "你好"),
        ("ann", "TextMessage", "Turn 1: you said '你好'."),
        ("bob", "TextMessage", "Turn 1: you said \"Turn 1: you said '你好'.\"."),
    ] == await told(client)


async def test_a_team_sees_the_last_message_alone_whatever_its_role(
    client: Client, mtmai: MtmaiEmulator
) -> None:
    mtmai.streaming = False
    earlier = [MESSAGE, {**MESSAGE, "role": "assistant", "content": "Yes?"}]
    last = {**MESSAGE, "role": "system", "content": "", "source": "x", "config": {}}
    assert [("user", "TextMessage", ""), ("assistant", "TextMessage", "Turn 1: you said ''.")] == await told(
        client, *earlier, last
    )


async def test_the_events_of_a_run_can_be_pulled_once(client: Client) -> None:
    run = await client.start()
    statuses = [(await client.raw("GET", f"stream/{run}"))[0] for _ in range(2)]
    assert [200, 404] == statuses


async def test_a_run_leaves_nothing_in_a_session(client: Client) -> None:
    session = await client.create()
    flow = client.flow()
    flow["params"]["sessionId"] = session
    _, run = await client("POST", "nodes/run", flow, Accept="application/json")
    await client.raw("GET", f"stream/{run['workflowRunId']}")
    assert (200, {"messages": []}) == await client("GET", f"chats/{session}/messages")


async def test_a_run_may_follow_a_script(client: Client, mtmai: MtmaiEmulator) -> None:
    mtmai.script = [b"0:", b'"Hi"\n', b"d:{}\n"]
    assert b'0:"Hi"\nd:{}\n' == (await client.raw("GET", f"stream/{await client.start()}"))[1]


async def test_a_team_of_nobody_says_nothing(client: Client, mtmai: MtmaiEmulator) -> None:
    mtmai.agents = ()
    assert [("user", "TextMessage", "你好")] == await told(client)


def run_with(**params: object) -> dict[str, object]:
    return {"name": "ag", "params": {"teamId": MtmaiEmulator().team, "messages": [MESSAGE], **params}}


FLOWS = "name must be one of assisant, ag, browser, tenant, news"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ([], "The body must be a JSON object"),
        ({}, FLOWS),
        ({"name": "assistant"}, FLOWS),
        ({"name": 5}, FLOWS),
        ({"name": "assisant"}, "name must be ag, the one flow that the emulator has"),
        ({**run_with(), "isStream": None}, "isStream must be a boolean"),
        ({"name": "ag"}, "params must be an object"),
        (run_with(teamId=None), "params.teamId must be a non-empty string"),
        (run_with(teamId=""), "params.teamId must be a non-empty string"),
        (run_with(teamId=NOBODY), "params.teamId must be the id of a team of the tenant"),
        (run_with(sessionId=None), "params.sessionId must be a string"),
        (run_with(messages=None), "params.messages must be a non-empty array"),
        (run_with(messages=[]), "params.messages must be a non-empty array"),
        (run_with(messages=["x"]), "params.messages[0] must be an object"),
        (run_with(messages=[{"content": "x"}, MESSAGE]), "params.messages[0].metadata must be an object"),
        (
            run_with(messages=[MESSAGE, {**MESSAGE, "metadata": {**META, "id": "x" * 37}}]),
            "params.messages[1].metadata.id must be a string of at most 36 characters",
        ),
        (
            run_with(messages=[{**MESSAGE, "role": "tool"}]),
            "params.messages[0].role must be one of system, user, assistant",
        ),
        (run_with(messages=[{**MESSAGE, "content": None}]), "params.messages[0].content must be a string"),
    ],
)
async def test_a_run_of_another_form_is_a_400(client: Client, body: object, problem: str) -> None:
    expected = {"errors": [{"code": 1400, "description": problem}]}
    assert (400, expected) == await client("POST", "nodes/run", body)


# As the generated client and the web interface do it


async def test_the_requests_of_the_generated_client_are_understood(
    client: Client, mtmai: MtmaiEmulator
) -> None:
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "User-Agent": "OpenAPI-Generator/1.0.0/python",
    }
    _, created, _ = await client.raw("POST", "chats", b'{"name": "\\u4f1a\\u8bdd"}', **headers)
    session = json.loads(created)["metadata"]["id"]
    for method, path, body in (
        ("GET", "chats", b""),
        ("GET", f"chats/{session}", b""),
        ("PUT", f"chats/{session}", b'{"metadata": %s, "name": "x"}' % json.dumps(META).encode()),
        ("GET", f"chats/{session}/messages", b""),
    ):
        status, told, content_type = await client.raw(method, path, body, **headers)
        assert (200, "application/json") == (status, content_type)
        assert json.loads(told)
    # It sends the cookie without a name, so that its user puts the name into the key.
    headers["Authorization"] = ""
    for cookie, expected in ((f"hatchet={mtmai.key}", 200), (mtmai.key, 403)):
        status, _, _ = await client.raw("GET", "chats", b"", **headers, Cookie=cookie)
        assert expected == status


# What a client is told, and faults


def test_a_client_is_told_the_tenant_and_the_team() -> None:
    emulator = MtmaiEmulator()
    assert {"MTMAI_TOKEN": emulator.key} == emulator.env
    assert f"mtmai+http://127.0.0.1:1?tenant={emulator.tenant}&team={emulator.team}" == emulator.config(
        "http://127.0.0.1:1"
    )


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"errors": [{"code": 1400, "description": "why"}]}),
        (401, {"message": "why"}),
        (403, {"description": "why"}),
        (500, {"message": "why"}),
    ],
)
async def test_a_planned_status_has_the_body_of_its_kind(
    client: Client, mtmai: MtmaiEmulator, status: int, body: object
) -> None:
    mtmai.fail(Fault(status=status, error="why"))
    assert (status, body) == await client("GET", "chats")


async def test_a_planned_error_ends_the_lines(client: Client, mtmai: MtmaiEmulator) -> None:
    mtmai.fail(Fault(cut_after=2, error="außer Atem"), operation="agent_stream")
    _, body, _ = await client.raw("GET", f"stream/{await client.start()}")
    assert (3, b'3:"au\\u00dfer Atem"') == (len(lines := body.splitlines()), lines[-1])

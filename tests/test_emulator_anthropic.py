"""The emulator of Anthropic's Messages API: what it accepts, refuses and streams."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest

from chatbridge.testing.emulator import Fault, serve
from chatbridge_adapters.anthropic.emulator import AnthropicEmulator

Json = dict[str, Any]
HEADERS = {"x-api-key": "sk-emulator", "anthropic-version": "2023-06-01"}
MODEL = "claude-emulated-2"
HELLO: Json = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
TOOL: Json = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
ID = uuid.UUID(int=7).hex


@pytest.fixture
async def anthropic() -> AsyncGenerator[AnthropicEmulator, None]:
    emulator = AnthropicEmulator(ids=lambda: uuid.UUID(int=7))
    yield emulator
    assert [] == emulator.crashes


@pytest.fixture
async def http(anthropic: AnthropicEmulator) -> AsyncGenerator[aiohttp.ClientSession, None]:
    async with serve(anthropic) as served, aiohttp.ClientSession(served.base_url, headers=HEADERS) as session:
        yield session


async def post(http: aiohttp.ClientSession, body: object, **headers: str) -> tuple[int, Json]:
    async with http.post("/v1/messages", json=body, headers=headers) as response:
        assert f"req_{ID}" == response.headers["request-id"]
        return response.status, await response.json()


async def refused(http: aiohttp.ClientSession, body: object, **headers: str) -> str:
    status, said = await post(http, body, **headers)
    assert (400, "error", "invalid_request_error") == (status, said["type"], said["error"]["type"])
    assert f"req_{ID}" == said["request_id"]
    return str(said["error"]["message"])


async def test_an_answer_is_a_message(http: aiohttp.ClientSession) -> None:
    assert (
        200,
        {
            "id": f"msg_{ID}",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [{"type": "text", "text": "Turn 1: you said 'Hello'."}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": 1,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "service_tier": "standard",
                "output_tokens": 5,
            },
        },
    ) == await post(http, HELLO)


async def test_a_stream_has_the_documented_events_in_their_order(http: aiohttp.ClientSession) -> None:
    body = {**HELLO, "stream": True, "max_tokens": 2}
    async with http.post("/v1/messages", json=body) as response:
        assert "text/event-stream; charset=utf-8" == response.headers["Content-Type"]
        events = (await response.text()).split("\n\n")
    assert "" == events.pop()
    names = [line.partition("\n")[0].removeprefix("event: ") for line in events]
    data = [json.loads(line.partition("\ndata: ")[2]) for line in events]
    assert names == [each["type"] for each in data]
    assert [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ] == names
    begun = data[0]["message"]
    assert ([], None, 1) == (begun["content"], begun["stop_reason"], begun["usage"]["output_tokens"])
    assert {"type": "text_delta", "text": " 1:"} == data[4]["delta"]
    assert {"stop_reason": "max_tokens", "stop_sequence": None} == data[6]["delta"]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "x-api-key header is required"),
        ({"x-api-key": "sk-wrong", "anthropic-version": "2023-06-01"}, "invalid x-api-key"),
        ({"Authorization": "Bearer sk-wrong", "anthropic-version": "2023-06-01"}, "invalid x-api-key"),
    ],
)
async def test_a_key_is_needed(anthropic: AnthropicEmulator, headers: dict[str, str], words: str) -> None:
    async with serve(anthropic) as served, aiohttp.ClientSession(served.base_url, headers=headers) as http:
        status, said = await post(http, HELLO)
    assert (401, "authentication_error", words) == (status, said["error"]["type"], said["error"]["message"])


@pytest.mark.parametrize(
    ("version", "words"),
    [(None, "anthropic-version: header is required"), ("2020-01-01", '"2020-01-01" is not a valid version')],
)
async def test_a_version_is_needed(anthropic: AnthropicEmulator, version: str | None, words: str) -> None:
    headers = {"x-api-key": "sk-emulator"} | ({} if version is None else {"anthropic-version": version})
    async with serve(anthropic) as served, aiohttp.ClientSession(served.base_url, headers=headers) as http:
        assert words in await refused(http, HELLO)


async def test_the_next_version_takes_a_bearer_token_and_no_sampling(anthropic: AnthropicEmulator) -> None:
    headers = {"Authorization": "Bearer sk-emulator", "anthropic-version": "2026-10-21"}
    async with serve(anthropic) as served, aiohttp.ClientSession(served.base_url, headers=headers) as http:
        assert 200 == (await post(http, HELLO))[0]
        words = await refused(http, {**HELLO, "temperature": 1})
    assert "temperature: Extra inputs are not permitted in version 2026-10-21" == words


SAYS: Json = {"role": "assistant", "content": [{"type": "text", "text": "Hi."}]}
CALL: Json = {"type": "tool_use", "id": "1", "name": "weather", "input": {}}
RESULT: Json = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "Sunny."}]}


def says(*blocks: Any) -> Json:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def source(kind: str, **fields: Any) -> Json:
    return says({"type": kind, "source": fields})


OPEN: list[Json] = [
    {"type": "object"},
    {"type": "object", "additionalProperties": True},
    {"type": "array", "items": {"type": "object"}},
    {"anyOf": [{"type": "null"}, {"type": "object"}]},
    {"type": "string", "$defs": {"a": {"type": "object"}}},
]


def cites(**fields: Any) -> Json:
    return says({"type": "text", "text": "x", "citations": [fields]})


FORMS: list[tuple[Json, str]] = [
    ({"max_tokens": None}, "max_tokens: Input should be greater than or equal to 1"),
    ({"max_tokens": True}, "max_tokens: Input should be"),
    ({"temperature": 1.5}, "temperature: range: 0..1"),
    ({"stop_sequences": [" "]}, "stop_sequences: each stop sequence must contain non-whitespace"),
    ({"system": 7}, "system: Input should be a valid string"),
    ({"tools": [{"name": "f"}]}, "tools: Input should be a list of tools"),
    ({"tool_choice": "auto"}, "tool_choice: Input should be of type"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice: Input should be of type"),
    ({"thinking": True}, "thinking: Input should be of type enabled"),
    ({"thinking": {"type": "enabled", "budget_tokens": 7}}, "thinking: Input should be of type enabled"),
    ({"output_config": 7}, "output_config: Input should have a format"),
    ({"output_config": {"format": {"type": "json_object"}}}, "output_config: Input should have a format"),
    ({"service_tier": "fast"}, "service_tier: Input should be"),
    ({"service_tier": []}, "service_tier: Input should be"),
    ({"tool_choice": {"type": []}}, "tool_choice: Input should be of type"),
    ({"thinking": {"type": {}}}, "thinking: Input should be of type enabled"),
    ({"messages": [{"role": [], "content": "x"}]}, "messages.0.role: Input should be"),
    ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
    ({"tool_choice": {"type": "any"}}, "tool_choice: may only be specified while providing tools"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "clock"}},
        "tool_choice: Tool 'clock' not found in provided tools",
    ),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        "max_tokens: must be greater than `thinking.budget_tokens`",
    ),
    *(
        ({"output_config": {"format": {"type": "json_schema", "schema": schema}}}, "must be explicitly set")
        for schema in OPEN
    ),
    ({"seed": 7}, "seed: Extra inputs are not permitted"),
    ({"messages": []}, "messages: at least one message is required"),
    ({"messages": [7]}, "messages.0: Input should be a valid dictionary"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role: Input should be"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content: Input should be"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0: all messages must have non-empty"),
    ({"messages": [SAYS]}, 'first message must use the "user" role'),
    (says({"type": "audio"}), "messages.0.content.0: Input tag 'audio' does not match"),
    (says(7), "messages.0.content.0: Input tag '' does not match"),
    (says({"type": "text"}), "messages.0.content.0.text.text: Field required"),
    (says({"type": "text", "text": " "}), "text content blocks must contain non-whitespace text"),
    (says(CALL), "`tool_use` blocks are not permitted in user messages"),
    (says(RESULT), "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: 1"),
    (cites(), "messages.0.content.0.text.citations.0: Input tag None"),
    (cites(type="char_location"), "citations.0.char_location.cited_text: Field required"),
    (
        cites(type="char_location", file_id=None),
        "citations.0.char_location.file_id: Extra inputs are not permitted",
    ),
    (source("image"), "messages.0.content.0.image.source: Input tag None"),
    (source("image", type="url", url="ftp://x"), "image.source.url: Only HTTP and HTTPS URLs"),
    (
        source("image", type="base64", media_type="image/bmp", data=""),
        "source.media_type: Input should be",
    ),
    (source("document", type="text", media_type="text/plain"), "document.source.data: Field required"),
    (
        source("document", type="base64", media_type="application/pdf", data="%"),
        "document.source.base64.data: invalid base64 data",
    ),
]


@pytest.mark.parametrize(("fields", "words"), FORMS)
async def test_what_is_not_of_its_form_is_refused(
    http: aiohttp.ClientSession, fields: Json, words: str
) -> None:
    assert words in await refused(http, {**HELLO, **fields})


async def test_what_is_required_must_be_there(http: aiohttp.ClientSession) -> None:
    assert "max_tokens: Field required" == await refused(http, {"model": MODEL, "messages": []})
    assert "The body must be a JSON object" == await refused(http, [])


async def test_a_call_has_its_result_in_the_next_message_and_first_in_it(
    http: aiohttp.ClientSession,
) -> None:
    hello, called = HELLO["messages"][0], {"role": "assistant", "content": [CALL]}

    def then(*blocks: Json) -> Json:
        return {**HELLO, "messages": [hello, called, {"role": "user", "content": list(blocks)}]}

    text = {"type": "text", "text": "So?"}
    missing = "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: 1."
    assert missing == await refused(http, then(text))
    assert "unexpected `tool_use_id`" in await refused(http, then(text, RESULT))
    _, said = await post(http, then(RESULT, text))
    expected = "Turn 2: you said 'Sunny. So?'. Before that you said 'Hello'."
    assert expected == said["content"][0]["text"]


USER: Json = {"role": "user", "content": "Hi"}
SEARCHED: Json = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
FOUND: Json = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}


def answers(*blocks: Json) -> Json:
    return {"role": "assistant", "content": list(blocks)}


def gives(*blocks: Json) -> Json:
    return {"role": "user", "content": list(blocks)}


REFUSED: list[tuple[list[Json], str]] = [
    ([USER, answers(CALL)], "messages.1: `tool_use` ids were found without `tool_result` blocks"),
    ([USER, answers(CALL, CALL), gives(RESULT)], "messages.1: `tool_use` ids must be unique"),
    ([USER, answers(CALL), gives(RESULT, RESULT)], "each tool_use must have a single result"),
    (
        [USER, answers({**CALL, "id": "f:0"}), USER],
        "messages.1.content.0.tool_use.id: String should match pattern",
    ),
    (
        [USER, answers(CALL), gives({**RESULT, "content": "", "is_error": True})],
        "messages.2.content.0.tool_result: content cannot be empty if `is_error` is true",
    ),
    (
        [USER, answers(SEARCHED), USER],
        "`web_search` tool use with id `s1` was found without a corresponding `web_search_tool_result` block",
    ),
    (
        [USER, answers(SEARCHED, FOUND), USER, answers(SEARCHED), USER],
        "messages.3: `web_search` tool use with id `s1` was found without",
    ),
    ([USER, answers(FOUND, SEARCHED)], "unexpected `tool_use_id` found in a result of the server's: s1"),
    ([USER, answers(FOUND), USER], "unexpected `tool_use_id` found in a result of the server's: s1"),
    (
        [USER, answers(SEARCHED, {**CALL, "caller": {"type": "x", "tool_id": "s1"}}), gives(RESULT)],
        "container_id is required when there are pending tool uses",
    ),
    *(
        ([USER, answers(*SAYS["content"], thought), USER], f"cannot be `{thought['type']}`")
        for thought in (
            {"type": "thinking", "thinking": "", "signature": "x"},
            {"type": "redacted_thinking", "data": "x"},
        )
    ),
    (
        [USER, {"role": "assistant", "content": "So "}],
        "messages: final assistant content cannot end with trailing whitespace",
    ),
]


@pytest.mark.parametrize(("messages", "words"), REFUSED)
async def test_what_does_not_stand_together_is_refused(
    http: aiohttp.ClientSession, messages: list[Json], words: str
) -> None:
    assert words in await refused(http, {**HELLO, "messages": messages})


@pytest.mark.parametrize(
    "messages",
    [
        [USER, answers(SEARCHED, FOUND), USER],
        [USER, answers(SEARCHED, CALL), gives(RESULT)],
        [USER, answers(SEARCHED, CALL), gives(RESULT), answers(FOUND, SAYS["content"][0]), USER],
        [USER, {"role": "assistant", "content": "So"}],
        [gives({"type": "search_result", "source": "s", "title": "t", "content": []})],
    ],
)
async def test_what_stands_together_is_taken(http: aiohttp.ClientSession, messages: list[Json]) -> None:
    assert 200 == (await post(http, {**HELLO, "messages": messages}))[0]


async def test_a_tool_of_the_server_goes_on_where_it_was(http: aiohttp.ClientSession) -> None:
    messages = [USER, answers(SEARCHED, CALL), gives(RESULT)]
    _, said = await post(http, {**HELLO, "messages": messages})
    assert ["web_search_tool_result", "text"] == [each["type"] for each in said["content"]]
    assert "s1" == said["content"][0]["tool_use_id"]


async def test_any_claude_is_there(http: aiohttp.ClientSession) -> None:
    assert 200 == (await post(http, {**HELLO, "model": "claude-sonnet-4-5"}))[0]
    assert 404 == (await post(http, {**HELLO, "model": "gpt-5"}))[0]


async def test_a_tool_is_called_where_it_is_named_unless_it_must_not_be(http: aiohttp.ClientSession) -> None:
    asked = {**HELLO, **says({"type": "text", "text": "the weather please"}), "tools": [TOOL]}
    _, said = await post(http, asked)
    call = {
        "type": "tool_use",
        "id": f"toolu_{ID}",
        "name": "weather",
        "input": {"city": "the weather please"},
    }
    assert ("tool_use", [call]) == (said["stop_reason"], said["content"])
    _, said = await post(http, {**asked, "tool_choice": {"type": "none"}})
    assert "end_turn" == said["stop_reason"]
    search = {"type": "web_search_20250305", "name": "web_search"}
    _, said = await post(http, {**HELLO, "tools": [search], "tool_choice": {"type": "any"}})
    assert "pause_turn" == said["stop_reason"]


async def test_a_system_prompt_of_blocks_is_read_too(http: aiohttp.ClientSession) -> None:
    _, said = await post(http, {**HELLO, "system": [{"type": "text", "text": "Be very brief."}]})
    assert 4 == said["usage"]["input_tokens"]
    _, said = await post(http, {**HELLO, "system": "Be brief."})
    assert 3 == said["usage"]["input_tokens"]


async def test_an_answer_fits_its_schema(http: aiohttp.ClientSession) -> None:
    schema: Json = {"type": "object", "properties": {"said": {"type": "string"}, "age": {"type": "integer"}}}
    schema["additionalProperties"] = False
    form = {"format": {"type": "json_schema", "schema": schema}}
    _, said = await post(http, {**HELLO, "output_config": form})
    assert {"said": "Hello", "age": 1} == json.loads(said["content"][0]["text"])


@pytest.mark.parametrize("limit", ["0", "1001", "x"])
async def test_a_page_of_models_has_a_limit(http: aiohttp.ClientSession, limit: str) -> None:
    async with http.get("/v1/models", params={"limit": limit}) as response:
        assert (400, "limit: Input should be between 1 and 1000") == (
            response.status,
            (await response.json())["error"]["message"],
        )


async def test_models_are_shown_by_pages(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/models", params={"limit": "1"}) as response:
        page = await response.json()
    assert ([MODEL], True, MODEL, MODEL) == (
        [model["id"] for model in page["data"]],
        page["has_more"],
        page["first_id"],
        page["last_id"],
    )
    async with http.get("/v1/models", params={"after_id": "claude-emulated-1"}) as response:
        assert {"data": [], "has_more": False, "first_id": None, "last_id": None} == await response.json()
    async with http.get("/v1/models", params={"after_id": "x"}) as response:
        assert 400 == response.status


async def test_faults_have_the_apis_own_form(
    anthropic: AnthropicEmulator, http: aiohttp.ClientSession
) -> None:
    anthropic.fail(Fault(status=529, error="Overloaded"))
    status, said = await post(http, HELLO)
    assert (529, {"type": "overloaded_error", "message": "Overloaded"}) == (status, said["error"])
    async with http.get("/v2") as response:
        assert (404, "not_found_error") == (response.status, (await response.json())["error"]["type"])

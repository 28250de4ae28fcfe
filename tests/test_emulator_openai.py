"""The emulator of chat completions: what it accepts and refuses, and how each kind of server writes."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, get_args

import aiohttp
import pytest

from chatbridge.testing.emulator import Fault, serve
from chatbridge_adapters.openai.emulator import OpenAIEmulator
from chatbridge_adapters.openai.servers import SERVERS, Mode, Quirk

Json = dict[str, Any]
SEND = "/v1/chat/completions"
KEY = {"Authorization": "Bearer sk-emulator"}
HELLO: list[Json] = [{"role": "user", "content": "Hello"}]
PARAMETERS: Json = {
    "type": "object",
    "properties": {"what": {"type": "string"}, "times": {"type": "integer"}},
}
TOOL: Json = {"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}
CALL: Json = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
CALLING: Json = {"role": "assistant", "content": None, "tool_calls": [CALL]}
NAMED: Json = {"type": "function", "function": {"name": "add"}}

Post = Callable[..., Awaitable[tuple[int, Any]]]
Start = Callable[..., Awaitable[Post]]


@pytest.fixture
async def start() -> AsyncGenerator[Start, None]:
    """Serve an emulator, and give what asks it for completions: the status and the answer."""
    emulators: list[OpenAIEmulator] = []
    async with AsyncExitStack() as stack:

        async def start(headers: Json = KEY, **attributes: Any) -> Post:
            fixed: Json = {"now": lambda: datetime(2026, 1, 1, tzinfo=UTC), "ids": lambda: uuid.UUID(int=7)}
            emulator = OpenAIEmulator(**(fixed | attributes))
            emulators.append(emulator)
            served = await stack.enter_async_context(serve(emulator))
            http = await stack.enter_async_context(aiohttp.ClientSession(served.base_url, headers=headers))

            async def post(path: str = SEND, **fields: Any) -> tuple[int, Any]:
                if path != SEND:
                    async with http.get(path) as response:
                        return response.status, await response.json()
                if "faults" in fields:
                    emulator.fail(fields.pop("faults"))
                body = {"model": "gpt-4o-mini", "messages": HELLO, **fields}
                shown = {name: value for name, value in body.items() if value is not ...}
                async with http.post(path, json=shown) as response:
                    text = await response.text()
                    return response.status, text if fields.get("stream") is True else json.loads(text)

            return post

        yield start
    assert [] == [crash for emulator in emulators for crash in emulator.crashes]


def chunks(text: str) -> list[Any]:
    """Read the events of a stream, its end mark aside."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    assert "[DONE]" == lines[-1]
    return [json.loads(line) for line in lines[:-1]]


# OpenAI


async def test_a_whole_answer_has_all_that_openai_tells(start: Start) -> None:
    status, answer = await (await start())()
    assert 200 == status
    assert {
        "id": f"chatcmpl-{uuid.UUID(int=7).hex}",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "gpt-4o-mini",
        "system_fingerprint": "fp_openai",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Turn 1: you said 'Hello'.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 5,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    } == answer


async def test_a_stream_begins_with_the_role_and_ends_with_the_reason(start: Start) -> None:
    _, text = await (await start())(stream=True)
    told = chunks(text)
    assert {"chat.completion.chunk"} == {each["object"] for each in told}
    deltas = [each["choices"][0]["delta"] for each in told]
    assert ({"role": "assistant", "content": ""}, {}) == (deltas[0], deltas[-1])
    assert "Turn 1: you said 'Hello'." == "".join(delta.get("content", "") for delta in deltas)
    assert [None] * (len(told) - 1) + ["stop"] == [each["choices"][0]["finish_reason"] for each in told]
    assert not any("usage" in each for each in told)


async def test_usage_comes_in_an_event_of_its_own_and_is_null_before(start: Start) -> None:
    _, text = await (await start())(stream=True, stream_options={"include_usage": True})
    *before, last = chunks(text)
    assert ([], 6) == (last["choices"], last["usage"]["total_tokens"])
    assert {None} == {each["usage"] for each in before}


INVALID: list[tuple[Json, str | None]] = [
    ({"messages": ...}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": ["Hello"]}, "messages[0]"),
    ({"messages": [{"role": "human", "content": "Hello"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["Hello"]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]},
        "messages[0].content",
    ),
    (
        {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]},
        "messages[0].content",
    ),
    ({"messages": [{"role": "tool", "content": "3"}]}, "messages[0].tool_call_id"),
    ({"messages": [{**CALLING, "tool_calls": list[Json]()}]}, "messages[0].tool_calls"),
    ({"messages": [{**CALLING, "tool_calls": [{"id": "c1"}]}]}, "messages[0].tool_calls"),
    ({"messages": [{**CALLING, "role": "user"}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "tool", "tool_call_id": "c1", "content": "3"}]}, "messages.[0].role"),
    ({"messages": [CALLING, *HELLO]}, "messages"),
    ({"messages": [CALLING]}, "messages"),
    ({"top": 1}, None),
    ({"temperature": 3}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": "1"}, "top_p"),
    ({"seed": 1.5}, "seed"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"stream": 1}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
    ({"n": 0}, "n"),
    ({"tools": []}, "tools"),
    ({"tools": [{"type": "function", "name": "add"}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
    ({"tools": [{**TOOL, "type": "tool"}]}, "tools"),
    ({"tools": [TOOL], "tool_choice": "add"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"response_format": {"type": "object"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "response_format"),
    ({"response_format": {"type": "json_object", "json_schema": {}}}, "response_format"),
    ({"model": "gpt-5-mini", "max_tokens": 5}, "max_tokens"),
    ({"model": 3}, "model"),
    ({"model": ...}, None),
    ({"model": ""}, None),
]


@pytest.mark.parametrize(("fields", "param"), INVALID)
async def test_openai_is_strict(start: Start, fields: Json, param: str | None) -> None:
    status, answer = await (await start())(**fields)
    assert (400, "invalid_request_error", param) == (
        status,
        answer["error"]["type"],
        answer["error"]["param"],
    )


async def test_what_is_no_object_is_refused(start: Start) -> None:
    post = await start()
    status, answer = await post(messages=float("nan"))
    assert (400, "The body must be a JSON object") == (status, answer["error"]["message"])


@pytest.mark.parametrize("key", [None, "Basic x", "Bearer wrong"])
async def test_openai_asks_for_its_key(start: Start, key: str | None) -> None:
    status, answer = await (await start(headers={} if key is None else {"Authorization": key}))()
    assert (401, "invalid_api_key" if key == "Bearer wrong" else None) == (status, answer["error"]["code"])


async def test_the_model_sees_what_was_said_before(start: Start) -> None:
    messages = [
        {"role": "assistant", "content": "Welcome"},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "One"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "1"}]},
        *HELLO,
    ]
    _, answer = await (await start())(messages=messages)
    text = "Turn 2: you said 'Hello'. Before that you said 'One'."
    assert (text, 6) == (answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"])


@pytest.mark.parametrize(
    ("fields", "called", "reason"),
    [
        ({"messages": [{"role": "user", "content": "add it"}]}, 1, "tool_calls"),
        ({"messages": [{"role": "user", "content": "address it"}]}, 0, "stop"),
        ({"messages": [{"role": "user", "content": "add it"}], "tool_choice": "none"}, 0, "stop"),
        ({"tool_choice": "required"}, 1, "tool_calls"),
        ({"tool_choice": "auto"}, 0, "stop"),
        ({"tool_choice": NAMED}, 1, "stop"),
        ({"messages": [CALLING, {"role": "tool", "tool_call_id": "c1", "content": "add"}]}, 0, "stop"),
    ],
)
async def test_a_tool_that_is_named_is_called(start: Start, fields: Json, called: int, reason: str) -> None:
    post = await start()
    _, answer = await post(tools=[TOOL], **fields)
    choice = answer["choices"][0]
    assert (called, reason) == (len(choice["message"].get("tool_calls", ())), choice["finish_reason"])
    _, text = await post(tools=[TOOL], stream=True, **fields)
    assert reason == chunks(text)[-1]["choices"][0]["finish_reason"]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("openai", "stop"),
        ("vllm", "stop"),
        ("llamacpp", "tool_calls"),
        ("ollama", "stop"),
        ("lmstudio", None),
    ],
)
async def test_a_tool_that_must_be_called_is_each_servers_own_matter(
    start: Start, mode: Mode, expected: str | None
) -> None:
    status, answer = await (await start(mode=mode))(tools=[TOOL], tool_choice=NAMED)
    if expected is None:
        words = "Invalid tool_choice type: 'object'. Supported string values: none, auto, required"
        assert (400, {"error": words}) == (status, answer)
        return
    choice = answer["choices"][0]
    assert (expected, mode != "ollama") == (choice["finish_reason"], "tool_calls" in choice["message"])


async def test_a_tool_is_called_with_what_it_asks_for(start: Start) -> None:
    bare = {"type": "function", "function": {"name": "cut"}}
    messages = [{"role": "user", "content": "add and cut"}]
    _, answer = await (await start())(tools=[TOOL, bare], messages=messages)
    given = [call["function"]["arguments"] for call in answer["choices"][0]["message"]["tool_calls"]]
    assert [{"what": "add and cut", "times": 1}, {}] == [json.loads(each) for each in given]


@pytest.mark.parametrize(("parallel", "called"), [(True, 2), (False, 1)])
async def test_several_tools_may_be_called_at_once(start: Start, *, parallel: bool, called: int) -> None:
    other = {"type": "function", "function": {"name": "cut"}}
    messages = [{"role": "user", "content": "add and cut"}]
    _, answer = await (await start())(tools=[TOOL, other], messages=messages, parallel_tool_calls=parallel)
    assert called == len(answer["choices"][0]["message"]["tool_calls"])


@pytest.mark.parametrize(
    ("fields", "text", "reason"),
    [
        ({"stop": "you"}, "Turn 1: ", "stop"),
        ({"stop": ["said", "1"]}, "Turn ", "stop"),
        ({"max_completion_tokens": 2}, "Turn 1:", "length"),
        ({"max_tokens": 9}, "Turn 1: you said 'Hello'.", "stop"),
        ({"response_format": {"type": "text"}}, "Turn 1: you said 'Hello'.", "stop"),
        ({"response_format": {"type": "json_object"}}, '{"answer": "Turn 1: you said \'Hello\'."}', "stop"),
    ],
)
async def test_an_answer_has_the_length_and_form_asked_for(
    start: Start, fields: Json, text: str, reason: str
) -> None:
    _, answer = await (await start())(**fields)
    choice = answer["choices"][0]
    assert (text, reason) == (choice["message"]["content"], choice["finish_reason"])


PERSON: Json = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def ann(*_: object) -> str:
    return '{"name": "Ann", "age": 3}'


async def test_an_answer_in_json_has_the_schema_asked_for(start: Start) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    _, answer = await (await start())(response_format=form)
    expected = {"name": "Turn 1: you said 'Hello'.", "age": 1}
    assert expected == json.loads(answer["choices"][0]["message"]["content"])
    for given in (form, {"type": "json_object"}):
        post = await start(responder=ann)
        _, answer = await post(response_format=given)
        assert '{"name": "Ann", "age": 3}' == answer["choices"][0]["message"]["content"]


FILES: list[tuple[Json, str]] = [
    ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}, "[image image/png]"),
    ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, "[image url]"),
    ({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}, "[audio wav]"),
    ({"type": "file", "file": {"file_data": "data:application/pdf,AA"}}, "[file application/pdf]"),
    ({"type": "file", "file": {"file_data": "data:,AA", "filename": "a.pdf"}}, "[file a.pdf]"),
]


@pytest.mark.parametrize(("part", "said"), FILES)
async def test_the_model_sees_that_there_is_a_file(start: Start, part: Json, said: str) -> None:
    post = await start()
    for parts, text in (([{"type": "text", "text": "Look:"}, part], f"Look: {said}"), ([part], said)):
        _, answer = await post(messages=[{"role": "user", "content": parts}])
        assert f"Turn 1: you said '{text}'." == answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("mode", "n"), [("openai", 2), ("vllm", 2), ("llamacpp", 2), ("ollama", 1), ("lmstudio", 1)]
)
async def test_several_answers_are_given_where_they_can_be(start: Start, mode: Mode, n: int) -> None:
    post = await start(mode=mode)
    _, answer = await post(n=2)
    told = [(choice["index"], choice["message"]["content"]) for choice in answer["choices"]]
    assert [(index, "Turn 1: you said 'Hello'.") for index in range(n)] == told
    assert 5 * n == answer["usage"]["completion_tokens"]
    _, text = await post(n=2, stream=True)
    texts = [""] * n
    reasons = [""] * n
    for each in chunks(text):
        (choice,) = each["choices"]
        texts[choice["index"]] += choice["delta"].get("content") or ""
        reasons[choice["index"]] = choice["finish_reason"]
    assert (["Turn 1: you said 'Hello'."] * n, ["stop"] * n) == (texts, reasons)


async def test_likelihoods_are_told_of_each_token(start: Start) -> None:
    post = await start()
    asked = {"logprobs": True, "top_logprobs": 2, "max_completion_tokens": 2}
    likely = [
        {"token": "Turn", "logprob": -0.25, "bytes": [84, 117, 114, 110]},
        {"token": "Turn~", "logprob": -1.25, "bytes": [84, 117, 114, 110, 126]},
    ]
    _, answer = await post(**asked)
    told = answer["choices"][0]["logprobs"]
    assert ({**likely[0], "top_logprobs": likely}, None) == (told["content"][0], told["refusal"])
    assert ["Turn", " 1:"] == [each["token"] for each in told["content"]]
    _, text = await post(stream=True, **asked)
    streamed = [each["choices"][0]["logprobs"] for each in chunks(text)]
    tokens = [entry for each in streamed if each is not None for entry in each["content"]]
    assert (told["content"], [None, None]) == (tokens, [streamed[0], streamed[-1]])
    _, answer = await post(logprobs=True)
    assert [] == answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    _, answer = await (await start(refuses=True))(logprobs=True)
    told = answer["choices"][0]["logprobs"]
    assert (None, "I") == (told["content"], told["refusal"][0]["token"])
    _, answer = await (await start(mode="lmstudio"))(**asked)
    assert answer["choices"][0]["logprobs"] is None


async def test_models_are_listed_and_read(start: Start) -> None:
    get = await start(models=["gpt-x", "org/m:7b"])
    assert ["gpt-x", "org/m:7b"] == [each["id"] for each in (await get("/v1/models"))[1]["data"]]
    assert (200, "org/m:7b") == ((found := await get("/v1/models/org/m:7b"))[0], found[1]["id"])
    assert 404 == (await get("/v1/models/nope"))[0]


async def test_what_there_is_not_is_a_404_in_the_servers_form(start: Start) -> None:
    status, answer = await (await start(mode="vllm"))("/v1/assistants")
    assert (404, "NotFoundError", 404) == (status, answer["error"]["type"], answer["error"]["code"])


# Other servers

UNKNOWN: dict[Mode, object] = {
    "openai": {
        "message": "The model `nope` does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    },
    "ollama": {"message": "model 'nope' not found", "type": "not_found_error", "param": None, "code": None},
    "vllm": {
        "message": "The model `nope` does not exist.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    },
}


@pytest.mark.parametrize("mode", get_args(Mode))
async def test_an_unknown_model_is_refused_where_it_is_minded(start: Start, mode: Mode) -> None:
    status, answer = await (await start(mode=mode))(model="nope")
    assert (UNKNOWN.get(mode), 404 if mode in UNKNOWN else 200) == (answer.get("error"), status)


@pytest.mark.parametrize("mode", get_args(Mode))
async def test_a_history_that_is_too_long_is_refused_as_each_does(start: Start, mode: Mode) -> None:
    status, answer = await (await start(mode=mode, context=2))(
        messages=[{"role": "user", "content": "a b c"}]
    )
    if mode == "ollama":
        assert 200 == status
        return
    error = answer["error"] if isinstance(answer["error"], dict) else {"message": answer["error"]}
    expected = {
        "openai": ("invalid_request_error", "context_length_exceeded"),
        "vllm": ("BadRequestError", 400),
        "llamacpp": ("exceed_context_size_error", 400),
        "lmstudio": (None, None),
    }[mode]
    assert (400, *expected) == (status, error.get("type"), error.get("code"))
    assert {"2", "3"} <= set(error["message"].replace("(", " ").replace(")", " ").split())


@pytest.mark.parametrize("mode", get_args(Mode))
async def test_a_key_is_asked_for_where_it_is_minded(start: Start, mode: Mode) -> None:
    status, answer = await (await start(mode=mode, headers={}))()
    expected = {
        "vllm": "Unauthorized",
        "llamacpp": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"},
    }
    assert (200 if mode in {"ollama", "lmstudio"} else 401) == status
    if mode in expected:
        assert expected[mode] == answer["error"]


async def test_ollama_says_its_role_in_each_event_and_calls_at_once(start: Start) -> None:
    post = await start(mode="ollama", thinks=True)
    messages = [{"role": "user", "content": "add"}]
    _, text = await post(stream=True, tools=[TOOL], messages=messages)
    deltas = [each["choices"][0]["delta"] for each in chunks(text)]
    assert {"assistant"} == {delta["role"] for delta in deltas}
    assert "They said 'add'." == "".join(delta.get("reasoning", "") for delta in deltas)
    (called,) = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert (0, "add", {"what": "add", "times": 1}) == (
        called["index"],
        called["function"]["name"],
        json.loads(called["function"]["arguments"]),
    )


async def test_ollama_knows_only_the_old_name_of_the_limit(start: Start) -> None:
    post = await start(mode="ollama")
    reasons = [
        (await post(**{name: 1}))[1]["choices"][0]["finish_reason"]
        for name in ("max_completion_tokens", "max_tokens")
    ]
    assert ["stop", "length"] == reasons


async def test_llama_cpp_writes_comments_and_timings(start: Start) -> None:
    _, text = await (await start(mode="llamacpp"))(stream=True, stream_options={"include_usage": True})
    assert "\n\n: \n\n" in text
    assert {"prompt_n": 1} == chunks(text)[-1]["timings"]


@pytest.mark.parametrize("mode", ["vllm", "lmstudio"])
async def test_fields_that_are_not_known_are_ignored(start: Start, mode: Mode) -> None:
    assert 200 == (await (await start(mode=mode))(top_k=3))[0]


@pytest.mark.parametrize(
    ("fields", "modes"),
    [
        ({"messages": [CALLING, *HELLO]}, {"openai"}),
        ({"messages": [{"role": "tool", "tool_call_id": "c1", "content": "3"}]}, {"openai"}),
        ({"tools": []}, {"openai"}),
        ({"stream_options": {"include_usage": True}}, {"openai", "vllm"}),
        ({"tool_choice": "auto"}, {"openai", "vllm"}),
    ],
)
async def test_others_take_what_openai_refuses(start: Start, fields: Json, modes: set[Mode]) -> None:
    statuses = {mode: (await (await start(mode=mode))(**fields))[0] for mode in get_args(Mode)}
    assert {mode: 400 if mode in modes else 200 for mode in get_args(Mode)} == statuses


@pytest.mark.parametrize("mode", get_args(Mode))
async def test_an_error_within_a_stream_has_the_servers_form(start: Start, mode: Mode) -> None:
    named = frozenset({"named_errors"} if mode == "lmstudio" else ())
    post = await start(mode=mode, also=named)
    _, text = await post(stream=True, faults=Fault(cut_after=1, error="broke"))
    last = text.strip().split("\n\n")[-1]
    assert bool(named) is ("event: error\n" in last)
    error = json.loads(last.partition("data: ")[2])["error"]
    assert "broke" == (error if mode == "lmstudio" else error["message"])


# States


async def test_a_server_may_be_broke_loading_or_refusing(start: Start) -> None:
    status, answer = await (await start(broke=True))()
    assert (429, "insufficient_quota") == (status, answer["error"]["code"])
    status, answer = await (await start(mode="llamacpp", loading=True))()
    assert (503, "unavailable_error") == (status, answer["error"]["type"])
    _, answer = await (await start(refuses=True))()
    message = answer["choices"][0]["message"]
    assert (None, "I cannot help with that.") == (message["content"], message["refusal"])
    _, answer = await (await start(filtered="said"))()
    choice = answer["choices"][0]
    assert ("content_filter", "Turn 1: you ") == (choice["finish_reason"], choice["message"]["content"])


async def test_openai_shows_no_reasoning(start: Start) -> None:
    _, answer = await (await start(thinks=True))()
    assert {"role", "content", "refusal"} == set(answer["choices"][0]["message"])


def test_the_documentation_names_every_mode_and_quirk() -> None:
    told = OpenAIEmulator.__doc__ or ""
    mode = re.search(r"mode: Which server to be like: (.+)\.", told)
    assert mode is not None
    assert list(SERVERS) == list(get_args(Mode)) == re.findall(r"\w+", mode[1].replace(" or ", ", "))
    _, _, quirks = told.partition("in front of them:\n")
    assert list(get_args(Quirk)) == re.findall(r"^ +(\w+): ", quirks, re.MULTILINE)

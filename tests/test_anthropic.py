"""Completing conversations by Anthropic's Messages API at its emulator: answers, tools, thoughts, errors."""

from __future__ import annotations

import json
import pickle
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import pytest

from anthropic_kit import JSON, MODEL, Json, Talk, begin, end, event, message, talk, text
from chatbridge import (
    AnswerLost,
    AnswerWarning,
    Attachment,
    AuthFailed,
    BadOption,
    ChatbridgeError,
    Conflict,
    DeliveryUnknown,
    FinishReason,
    Message,
    MissingSecret,
    Opaque,
    Outcome,
    ProviderFailed,
    RateLimited,
    Reasoning,
    ReasoningDelta,
    Reply,
    RequestRefused,
    Role,
    SendOptions,
    Started,
    StreamCut,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    Usage,
    UsageError,
)
from chatbridge.backend import CompletionBackend, ContextOwner, Feature, Stores
from chatbridge.config import BackendURL
from chatbridge.registry import declared_profile, load_adapter, resolve
from chatbridge.testing.checking import fold
from chatbridge.testing.emulator import Fault
from chatbridge.testing.responder import Exchange
from chatbridge_adapters.anthropic import ADAPTER, AnthropicBackend, AnthropicOptions
from chatbridge_adapters.anthropic.emulator import AnthropicEmulator
from chatbridge_adapters.anthropic.messages import sign, signer
from scan import KEY, assert_clean, assert_nothing_in

PLACE: Json = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "Tells it.", "parameters": PLACE}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
THINK = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
BOTH = pytest.mark.parametrize("how", ["whole", "streamed"])
Ask = Callable[..., Awaitable[Reply]]


@pytest.fixture
async def here() -> AsyncGenerator[Talk, None]:
    async with talk() as opened:
        yield opened


# What it is


def test_the_adapter_is_found_by_its_scheme_and_needs_neither_host_nor_model() -> None:
    target = resolve(BackendURL.parse("anthropic:claude-x"), {"key": "k"}, {})
    assert ADAPTER is load_adapter("anthropic") is target.adapter
    assert "https://api.anthropic.com" == target.base_url
    assert "claude-x" == getattr(target.options, "model", None)


def test_the_key_comes_from_the_usual_variable() -> None:
    url = BackendURL.parse("anthropic:")
    options = resolve(url, environ={"ANTHROPIC_API_KEY": KEY}).options
    assert KEY not in repr(options)
    with pytest.raises(MissingSecret, match="ANTHROPIC_API_KEY"):
        resolve(url, environ={})


def test_the_usual_variable_says_where_the_api_is() -> None:
    url = BackendURL.parse("anthropic:claude-x")
    target = resolve(url, {"key": "k"}, {"ANTHROPIC_BASE_URL": "http://127.0.0.1:8080/"})
    assert "http://127.0.0.1:8080" == target.base_url
    assert "claude-x" == getattr(target.options, "model", None)


def test_the_profile_says_that_the_client_keeps_the_context() -> None:
    profile = declared_profile(BackendURL.parse("anthropic:"))
    assert (ContextOwner.CLIENT, Stores.NEVER) == (profile.context, profile.stores)
    assert frozenset() == profile.settle_by
    assert not profile.can(Feature.CREATE)
    assert "seed" not in profile.options
    assert "citations" in str(profile.unsupported(Feature.REFERENCES))


async def test_it_is_a_completion_backend_and_tells_its_profile(here: Talk) -> None:
    backend: CompletionBackend = here.backend
    assert ADAPTER.profile(None) == backend.profile


# Answers


@BOTH
async def test_an_answer_rests_on_the_whole_history(here: Talk, how: str) -> None:
    ask: Ask = getattr(here, how)
    first = await ask("Hello")
    second = await ask("Hello", first.message, "And you?")
    assert "Turn 1: you said 'Hello'." == first.text
    assert "Turn 2: you said 'And you?'. Before that you said 'Hello'." == second.text
    assert (FinishReason.STOP, "end_turn", MODEL) == (
        second.finish_reason,
        second.raw_finish_reason,
        second.model,
    )
    assert Role.ASSISTANT is second.message.role
    assert second.message.id is not None
    assert () == second.warnings


async def test_a_streamed_answer_comes_piece_by_piece_and_makes_the_same_reply(here: Talk) -> None:
    whole = await here.whole("How are you?", extra=THINK)
    streamed = await here.streamed("How are you?", extra=THINK)
    assert whole.message.same_content(streamed.message)
    assert (whole.usage, whole.extra) == (streamed.usage, streamed.extra)
    assert Started(streamed.message.id, MODEL) == here.events[0]
    assert 5 < sum(isinstance(event, TextDelta) for event in here.events)
    assert 2 < sum(isinstance(event, ReasoningDelta) for event in here.events)
    assert streamed.message.parts == fold(here.events)


async def test_the_request_says_what_the_options_say(here: Talk) -> None:
    await here.whole(
        "Hi",
        model="claude-emulated-1",
        system="Be brief.",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=7,
        stop=("END",),
        extra={"metadata": {"user_id": "u"}},
    )
    await here.whole("Hi")
    assert {
        "model": "claude-emulated-1",
        "max_tokens": 7,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
    } == here.sent[0]
    assert {"model", "max_tokens", "messages"} == set(here.sent[1])
    assert 8192 == here.sent[1]["max_tokens"]
    headers = here.emulator.calls[0].headers
    assert ("sk-emulator", "2023-06-01") == (headers["x-api-key"], headers["anthropic-version"])


@BOTH
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_output_tokens": 2}, ("Turn 1:", FinishReason.LENGTH, "max_tokens")),
        ({"stop": ("you",)}, ("Turn 1: ", FinishReason.STOP, "stop_sequence")),
    ],
)
async def test_an_answer_that_is_cut_says_why(
    here: Talk, how: str, options: dict[str, object], expected: object
) -> None:
    reply: Reply = await getattr(here, how)("Hi", **options)
    assert expected == (reply.text, reply.finish_reason, reply.raw_finish_reason)
    if "stop" in options:
        assert "you" == reply.extra["stop_sequence"]


@BOTH
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("refusal", FinishReason.REFUSAL),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("compaction", FinishReason.OTHER),
    ],
)
async def test_each_stop_reason_has_its_meaning_and_an_unknown_one_is_other(
    how: str, word: str, reason: FinishReason
) -> None:
    async with talk(AnthropicEmulator(stop_reason=word)) as here:
        reply: Reply = await getattr(here, how)("Hi")
    assert (reason, word) == (reply.finish_reason, reply.raw_finish_reason)


def silent(_: str, __: Sequence[Exchange]) -> str:
    return ""


@BOTH
async def test_an_answer_may_be_empty(how: str) -> None:
    async with talk(AnthropicEmulator(responder=silent)) as here:
        reply: Reply = await getattr(here, how)("Hi")
    assert ((), FinishReason.STOP) == (reply.message.parts, reply.finish_reason)


@BOTH
async def test_a_schema_makes_the_answer_json(here: Talk, how: str) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    reply: Reply = await getattr(here, how)("Ann", response_format=form)
    assert '{"name":"Ann","age":1}' == reply.text
    closed = {**schema, "additionalProperties": False}
    assert {"format": {"type": "json_schema", "schema": closed}} == here.sent[0]["output_config"]


# Cost


async def test_tokens_that_were_cached_count_as_read(here: Talk) -> None:
    options = {"extra": {"cache_control": {"type": "ephemeral"}}}
    first = await here.whole("one two three", **options)
    second = await here.streamed("one two three", first.message, "four", **options)
    assert first.usage is not None
    assert (3, 0) == (first.usage.input_tokens, first.usage.cached_tokens)
    assert {"cache_creation_input_tokens": 3, "service_tier": "standard"} == first.extra["usage"]
    assert second.usage is not None
    assert (11, 3) == (second.usage.input_tokens, second.usage.cached_tokens)


async def test_usage_that_is_asked_for_and_not_told_is_a_warning(here: Talk) -> None:
    reply = await here.answered(
        message({"type": "text", "text": "Hi"}, usage=None), how="whole", include={"usage"}
    )
    assert ("the server told no usage that can be read",) == reply.warnings
    assert () == (await here.whole("Hi", include={"usage"})).warnings


# Tools


@BOTH
async def test_a_tool_is_called_and_its_result_given(here: Talk, how: str) -> None:
    ask: Ask = getattr(here, how)
    asked = await ask("the weather please", tools=[WEATHER])
    (call,) = asked.message.parts
    assert isinstance(call, ToolCall)
    assert ("weather", {"city": "the weather please"}) == (call.name, call.arguments)
    assert FinishReason.TOOL_CALLS is asked.finish_reason
    told = Message(Role.TOOL, (ToolResult(call.id, "Sunny."),))
    answered = await ask("the weather please", asked.message, told, tools=[WEATHER])
    assert "Turn 2: you said 'Sunny.'. Before that you said 'the weather please'." == answered.text
    assert {
        "name": "weather",
        "description": "Tells it.",
        "input_schema": PLACE,
    } == here.sent[1]["tools"][0]


@pytest.mark.parametrize(
    ("choice", "wire", "called"),
    [
        ("auto", {"type": "auto"}, None),
        ("none", {"type": "none"}, None),
        ("any", {"type": "any"}, "weather"),
        ("required", {"type": "any"}, "weather"),
        ("clock", {"type": "tool", "name": "clock"}, "clock"),
    ],
)
async def test_a_choice_of_tools_is_a_word_or_a_tools_name(
    here: Talk, choice: str, wire: object, called: str | None
) -> None:
    reply = await here.whole("Hi", tools=[WEATHER, {"name": "clock"}], tool_choice=choice)
    calls = [part.name for part in reply.message.parts if isinstance(part, ToolCall)]
    assert ([called] if called else []) == calls
    assert wire == here.sent[0]["tool_choice"]


# Thoughts


@BOTH
async def test_thoughts_keep_their_signature_and_are_given_back(here: Talk, how: str) -> None:
    ask: Ask = getattr(here, how)
    first = await ask("Hi", extra=THINK)
    thought, said = first.message.parts
    assert isinstance(thought, Reasoning)
    assert "They said 'Hi'." == thought.text
    prefix = sign("", here.transport.base_url.removeprefix("http://"))
    assert (thought.signature or "").startswith(prefix)
    assert Text("Turn 1: you said 'Hi'.") == said
    await ask("Hi", first.message, "Go on", extra=THINK)
    given_back = here.sent[1]["messages"][1]["content"][0]
    assert {
        "type": "thinking",
        "thinking": "They said 'Hi'.",
        "signature": (thought.signature or "").removeprefix(prefix),
    } == given_back


@BOTH
async def test_hidden_thoughts_are_kept_whole_and_given_back(how: str) -> None:
    async with talk(AnthropicEmulator(redacted=True)) as here:
        first: Reply = await getattr(here, how)("Hi", extra=THINK)
        await getattr(here, how)("Hi", first.message, "Go on", extra=THINK)
    hidden = first.message.parts[0]
    assert isinstance(hidden, Opaque)
    assert ("anthropic", "redacted_thinking") == (hidden.origin, hidden.kind)
    host = here.transport.base_url.removeprefix("http://")
    assert hidden.data == {**here.sent[1]["messages"][1]["content"][0], "signed_by": signer(host)}


async def test_a_thought_that_was_changed_is_refused(here: Talk) -> None:
    host = here.transport.base_url.removeprefix("http://")
    forged = Message.assistant([Reasoning("Else.", sign("00", host)), "Hi"])
    with pytest.raises(RequestRefused, match="Invalid `signature` in `thinking` block"):
        await here.whole("Hi", forged, "Go on")


async def test_a_thought_that_was_signed_elsewhere_is_not_sent(here: Talk) -> None:
    async with talk(AnthropicEmulator(redacted=True)) as there:
        first = await there.whole("Hi", extra=THINK)
    hidden = Opaque("anthropic", "redacted_thinking", {"type": "redacted_thinking", "data": "x"})
    for theirs in (Reasoning("Hm.", "anthropic:00"), Reasoning("Hm.", sign("00", "127.0.0.1")), hidden):
        thought = Message.assistant([theirs, "Hi"])
        await here.whole("Hi", first.message, "Go on", thought, "And on", extra=THINK)
        sent = [block["type"] for turn in here.sent[-1]["messages"] for block in turn["content"]]
        assert ["text"] * 5 == sent


# Paused answers


@BOTH
@pytest.mark.parametrize("pauses", [1, 3])
async def test_a_paused_answer_goes_on_and_is_one(how: str, pauses: int) -> None:
    async with talk(AnthropicEmulator(pauses=pauses)) as here:
        reply: Reply = await getattr(here, how)("Maples?", extra={"tools": [SEARCH]})
    kinds = [part.kind if isinstance(part, Opaque) else type(part).__name__ for part in reply.message.parts]
    assert ["Text", "server_tool_use", "web_search_tool_result"] * pauses + ["Text"] == kinds
    assert FinishReason.STOP is reply.finish_reason
    assert "I search. " * pauses + "Turn 1: you said 'Maples?'." == reply.text
    assert pauses == len(reply.extra["continued_as"])
    assert pauses + 1 == len(here.sent)
    assert [3 * run for run in range(1, pauses + 1)] == [
        len(body["messages"][-1]["content"]) for body in here.sent[1:]
    ]
    if how == "streamed":
        assert reply.message.parts == fold(here.events)
        assert 1 == sum(isinstance(event, Started) for event in here.events)


async def test_what_the_runs_of_an_answer_cost_is_added_up(here: Talk) -> None:
    reply = await here.answered(
        message({"type": "text", "text": "a"}, reason="pause_turn"), message(), how="whole"
    )
    assert Usage(6, 8) == reply.usage
    usage: Json = {"input_tokens": 1, "cache_read_input_tokens": 5, "output_tokens": 2}
    usage |= {"server_tool_use": {"web_search_requests": 1}}
    later = message(usage=usage, id="msg_2")
    paused = message({"type": "text", "text": "a"}, {"type": "text", "text": ""}, reason="pause_turn")
    reply = await here.answered(paused, later, how="whole")
    assert Usage(9, 6) == reply.usage
    later_run = {"id": "msg_2", "usage": {"server_tool_use": {"web_search_requests": 1}}}
    assert ("msg_1", [later_run]) == (reply.message.id, reply.extra["continued_as"])
    assert [{"type": "text", "text": "a"}] == here.sent[-1]["messages"][1]["content"]
    reply = await here.answered(paused, message(usage=None), how="whole")
    assert None is reply.usage


@BOTH
async def test_a_pause_before_anything_is_said_is_the_end(here: Talk, how: str) -> None:
    bodies = {"whole": message(reason="pause_turn"), "streamed": begin() + end("pause_turn")}
    reply = await here.answered(bodies[how], how=how)
    assert ((), "pause_turn", 1) == (reply.message.parts, reply.raw_finish_reason, len(here.sent))
    assert ("the server paused the answer before anything was said, so it could not go on",) == reply.warnings


@BOTH
@pytest.mark.parametrize("allowed", [0, 2])
async def test_an_answer_is_continued_as_often_as_is_allowed(how: str, allowed: int) -> None:
    async with talk(AnthropicEmulator(pauses=9), continuations=allowed) as here:
        reply: Reply = await getattr(here, how)("Maples?", extra={"tools": [SEARCH]})
    assert (FinishReason.OTHER, "pause_turn") == (reply.finish_reason, reply.raw_finish_reason)
    assert allowed + 1 == len(here.sent)
    (warning,) = reply.warnings
    assert f"it goes on by itself {allowed} times at most, as the option continuations says" in warning


@BOTH
async def test_an_answer_that_cannot_go_on_is_what_there_is_with_a_warning(here: Talk, how: str) -> None:
    here.emulator.fail(Fault(delay=0.001), operation="messages.create")
    here.emulator.fail(Fault(status=403), operation="messages.create")
    reply: Reply = await getattr(here, how)("Maples?", extra={"tools": [SEARCH]})
    assert "I search. " == reply.text
    assert "pause_turn" == reply.raw_finish_reason
    (warning,) = reply.warnings
    assert "the server paused the answer, and it could not go on: anthropic messages.create" in warning


@BOTH
async def test_a_tool_of_the_servers_may_have_its_result_after_the_pause(how: str) -> None:
    async with talk(AnthropicEmulator(pending=True)) as here:
        reply: Reply = await getattr(here, how)("Maples?", extra={"tools": [SEARCH]})
        await here.whole("Maples?", reply.message, "Go on")
    kinds = [part.kind if isinstance(part, Opaque) else type(part).__name__ for part in reply.message.parts]
    assert ["Text", "server_tool_use", "web_search_tool_result", "Text"] == kinds
    assert ((), FinishReason.STOP) == (reply.warnings, reply.finish_reason)


@BOTH
async def test_a_conversation_goes_on_after_an_answer_that_stayed_paused(how: str) -> None:
    async with talk(AnthropicEmulator(pending=True), continuations=0) as here:
        paused: Reply = await getattr(here, how)("Maples?", extra={"tools": [SEARCH]})
        reply: Reply = await getattr(here, how)("Maples?", paused.message, "Then not.")
    assert "Turn 2: you said 'Then not.'. Before that you said 'Maples?'." == reply.text
    left_out = "left out of the history: a call of the server's tool 'web_search', which has no result"
    assert (left_out,) == reply.warnings


@pytest.mark.parametrize("told", [b"", end()[: end().index(b"event: message_stop")]])
async def test_what_came_before_a_later_run_broke_off_is_kept_with_a_warning(here: Talk, told: bytes) -> None:
    paused = begin() + text(0, "So ") + end("pause_turn")
    thought = {"type": "thinking", "thinking": "", "signature": "s"}
    half = begin() + text(0, "far") + event("content_block_start", index=1, content_block=thought)
    reply = await here.answered(paused, half + told)
    assert "So far" == reply.text
    reason = (FinishReason.STOP, "end_turn") if told else (FinishReason.OTHER, "pause_turn")
    assert reason == (reply.finish_reason, reply.raw_finish_reason)
    (warning,) = reply.warnings
    assert "the server paused the answer, and it could not go on: anthropic messages.create" in warning
    assert Usage(6, 8 if told else None) == reply.usage
    assert reply.message.parts == fold(here.events)


@pytest.mark.parametrize("pieces", ["", '{"id": 7}'])
async def test_a_call_at_which_a_later_run_broke_off_is_none_that_can_be_run(here: Talk, pieces: str) -> None:
    paused = begin() + text(0, "So ") + end("pause_turn")
    call = {"type": "tool_use", "id": "1", "name": "delete"}
    piece = {"type": "input_json_delta", "partial_json": pieces}
    half = event("content_block_start", index=0, content_block={**call, "input": {}})
    half += event("content_block_delta", index=0, delta=piece)
    reply = await here.answered(paused, begin() + half)
    unread = Opaque("anthropic", "tool_use", {**call, "partial_json": pieces})
    assert (Text("So "), unread) == reply.message.parts == fold(here.events)
    kept = "so it is kept as an Opaque part and not as a ToolCall"
    why = f"the answer was cut off within it, {kept}"
    assert f"a call of the tool 'delete' cannot be read: {why}" in reply.warnings
    await here.whole("Hello", reply.message, "Go on")


async def test_a_paused_answer_is_not_given_back_with_a_thought_at_its_end(here: Talk) -> None:
    thought = {"type": "redacted_thinking", "data": "x"}
    said = {"type": "text", "text": "So"}
    reply = await here.answered(message(said, thought, reason="pause_turn"), message(), how="whole")
    assert ([said], 2) == (here.sent[-1]["messages"][1]["content"], len(reply.message.parts))
    await here.answered(message(thought, reason="pause_turn"), how="whole")
    assert 3 == len(here.sent)


async def test_a_paused_answer_is_not_given_back_with_a_blank_at_its_end(here: Talk) -> None:
    odd: Json = {"type": "text", "text": 7}
    for last, sent in (
        ({"type": "text", "text": "I go on \n"}, {"type": "text", "text": "I go on"}),
        (odd, odd),
    ):
        await here.answered(message(last, reason="pause_turn"), message(), how="whole")
        assert [sent] == here.sent[-1]["messages"][1]["content"]


async def test_the_container_of_a_paused_answer_goes_along(here: Talk) -> None:
    text_so_far = {"type": "text", "text": "So "}
    paused = message(
        text_so_far, reason="pause_turn", container={"id": "box_1", "expires_at": "2026-01-01T00:00:00Z"}
    )
    reply = await here.answered(paused, message({"type": "text", "text": "Done."}), how="whole")
    assert "box_1" == here.sent[1]["container"]
    assert "box_1" == reply.extra["container"]["id"]


# Models


async def test_the_models_are_listed_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"claude-{number}" for number in range(5)]
    monkeypatch.setattr("chatbridge_adapters.anthropic.backend.PAGE", 2)
    async with talk(AnthropicEmulator(models=names)) as here:
        models = await here.backend.list_models()
    assert names == [model.id for model in models]
    assert (200_000, 64_000, "active") == (
        models[0].max_input_tokens,
        models[0].max_tokens,
        models[0].raw["lifecycle"],
    )
    assert [
        {"limit": "2"},
        {"limit": "2", "after_id": "claude-1"},
        {"limit": "2", "after_id": "claude-3"},
    ] == [dict(call.query) for call in here.emulator.calls]


@pytest.mark.parametrize("last", [["claude-1"], ["claude-1", "claude-2"]])
async def test_a_list_that_leads_nowhere_ends_with_a_warning(here: Talk, last: list[str]) -> None:
    for name in (*last, last[0]):
        page = {"data": [{"id": name}], "has_more": True, "last_id": name}
        here.emulator.fail(Fault(status=200, body=json.dumps(page).encode(), headers=JSON))
    with pytest.warns(AnswerWarning, match="the list may not be whole"):
        models = await here.backend.list_models()
    assert last == [model.id for model in models]


# Failures


@BOTH
@pytest.mark.parametrize(
    ("emulator", "options", "error", "status", "code", "words"),
    [
        ({}, {"model": "gpt-0"}, RequestRefused, 404, "not_found_error", "model: gpt-0"),
        ({"broke": True}, {}, RequestRefused, 400, "insufficient_quota", "credit balance is too low"),
        ({"context": 2}, {}, RequestRefused, 400, "context_length_exceeded", "prompt is too long: 3 tokens"),
        ({}, {"temperature": 2}, RequestRefused, 400, "invalid_request_error", "temperature: range: 0..1"),
    ],
)
async def test_what_the_server_refuses_is_told_apart(
    how: str,
    emulator: dict[str, object],
    options: dict[str, object],
    error: type[ChatbridgeError],
    status: int,
    code: str,
    words: str,
) -> None:
    async with talk(AnthropicEmulator(**emulator)) as here:  # type: ignore[arg-type]
        with pytest.raises(error, match=words) as caught:
            await getattr(here, how)("one two three", **options)
    raised = caught.value
    assert (status, code, Outcome.REFUSED) == (raised.status, raised.code, raised.outcome)
    assert not raised.retryable
    assert (raised.request_id or "").startswith("req_")
    assert 1 == len(here.emulator.calls)


@BOTH
@pytest.mark.parametrize(
    ("status", "error", "code", "tries"),
    [
        (401, AuthFailed, "authentication_error", 1),
        (402, RequestRefused, "insufficient_quota", 1),
        (403, AuthFailed, "permission_error", 1),
        (409, Conflict, "conflict_error", 1),
        (413, RequestRefused, "context_length_exceeded", 1),
        (429, RateLimited, "rate_limit_error", 3),
        (500, DeliveryUnknown, "api_error", 3),
        (504, DeliveryUnknown, "timeout_error", 3),
        (529, RateLimited, "overloaded_error", 3),
    ],
)
async def test_each_documented_error_has_its_class_and_what_may_pass_is_tried_again(
    here: Talk, how: str, status: int, error: type[ChatbridgeError], code: str, tries: int
) -> None:
    here.emulator.fail(Fault(status=status), times=3)
    with pytest.raises(error) as caught:
        await getattr(here, how)("Hi")
    assert (status, code, tries) == (caught.value.status, caught.value.code, len(caught.value.attempts))
    assert (caught.value.request_id or "").startswith("req_")


async def test_a_spend_limit_is_not_tried_again(here: Talk) -> None:
    body = (
        b'{"type": "error", "error": {"type": "rate_limit_error", "message": "Limit.",'
        b' "details": {"error_code": "enforced_spend_limit_reached"}}}'
    )
    here.emulator.fail(Fault(status=429, body=body, headers=JSON), times=3)
    with pytest.raises(RateLimited, match=r"enforced_spend_limit_reached: Limit\.") as caught:
        await here.whole("Hi")
    assert ("insufficient_quota", False, 1) == (
        caught.value.code,
        caught.value.retryable,
        len(caught.value.attempts),
    )


async def test_the_wait_that_the_server_asks_for_is_kept(here: Talk) -> None:
    here.emulator.fail(Fault(status=529, headers={"Retry-After": "7"}))
    assert "Turn 1: you said 'Hi'." == (await here.whole("Hi")).text
    assert [7.0] == here.clock.slept


@BOTH
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b'{"error": 7}', b'{"error": {"type": 7, "message": 8}}']
)
async def test_an_error_without_a_code_is_one_all_the_same(here: Talk, how: str, body: bytes) -> None:
    here.emulator.fail(Fault(status=400, body=body, headers=JSON))
    with pytest.raises(RequestRefused) as caught:
        await getattr(here, how)("Hi")
    assert caught.value.code is None


@pytest.mark.parametrize("before", [b"", begin() + text(0, "So ")])
async def test_an_error_without_a_type_of_its_own_is_the_servers_too(here: Talk, before: bytes) -> None:
    error = b'data: {"error": {"code": 500, "message": "Out of memory.", "type": "server_error"}}\n\n'
    with pytest.raises(ProviderFailed, match=r"Out of memory\.") as caught:
        await here.answered(before + error)
    assert "server_error" == caught.value.code
    with pytest.raises(ProviderFailed, match=r"Out of memory\."):
        await here.answered(b'{"error": "Out of memory."}', how="whole")


async def test_an_error_in_a_stream_is_the_servers(here: Talk) -> None:
    here.emulator.fail(Fault(cut_after=4, error="Overloaded"))
    with pytest.raises(ProviderFailed, match="Overloaded") as caught:
        await here.streamed("Hi")
    assert ("overloaded_error", Outcome.ACCEPTED) == (caught.value.code, caught.value.outcome)
    assert (caught.value.request_id or "").startswith("req_")
    assert TextDelta("Turn", 0) in here.events


@pytest.mark.parametrize(
    ("before", "code", "retryable"),
    [
        (b"", "overloaded_error", True),
        (begin(), "api_error", True),
        (begin() + text(0), "overloaded_error", True),
        (begin() + text(0, ""), "overloaded_error", True),
        (begin() + text(0, "So "), "overloaded_error", False),
        (b"", "invalid_request_error", False),
        (b"", "billing_error", False),
    ],
)
async def test_a_failure_that_may_pass_can_be_asked_again_before_anything_came(
    here: Talk, before: bytes, code: str, *, retryable: bool
) -> None:
    error = {"type": "error", "error": {"type": code, "message": "No."}}
    with pytest.raises(ProviderFailed) as caught:
        await here.answered(before + f"event: error\ndata: {json.dumps(error)}\n\n".encode())
    assert (Outcome.ACCEPTED, retryable) == (caught.value.outcome, caught.value.retryable)


@pytest.mark.parametrize("cut", ["abort", "end"])
@pytest.mark.parametrize("after", [1, 5])
async def test_a_stream_without_its_end_is_cut(here: Talk, cut: str, after: int) -> None:
    here.emulator.fail(Fault(cut_after=after, cut=cut))  # type: ignore[arg-type]
    with pytest.raises(StreamCut) as caught:
        await here.streamed("Hi")
    assert "cut" == caught.value.kind


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        b'{"type": "error", "error": {"type": "api_error", "message": "Odd."}}',
        b'{"type": "message", "content": null}',
    ],
)
async def test_what_is_no_answer_is_none(here: Talk, how: str, body: bytes) -> None:
    with pytest.raises(ProviderFailed, match=r"Odd\.|what came is not an answer") as caught:
        await here.answered(body, how=how)
    assert caught.value.code in {"api_error", None}


@BOTH
async def test_an_answer_of_another_form_is_lost(here: Talk, how: str) -> None:
    with pytest.raises(AnswerLost) as caught:
        await here.answered(b'{"type": "message", "content": [7]}', how=how)
    assert "schema" == caught.value.kind


async def test_a_model_must_be_named(here: Talk) -> None:
    url = BackendURL.parse("anthropic:")
    options = resolve(url, {"key": "k"}, {}).options
    assert isinstance(options, AnthropicOptions)
    backend = AnthropicBackend(options, here.transport)
    with pytest.raises(BadOption, match="anthropic:MODEL") as caught:
        await backend.complete([Message.user("Hi")], SendOptions())
    assert isinstance(caught.value, UsageError)
    assert [] == here.emulator.calls


@BOTH
async def test_no_secret_is_in_any_error(how: str) -> None:
    telling = message({"type": "text", "text": "x"}).replace(b"{", b'{"echo": "' + KEY.encode() + b'", ', 1)
    bodies = [(status, KEY.encode()) for status in (400, 401, 429, 500)] + [(200, telling[:-9])]
    for status, body in bodies:
        async with talk(AnthropicEmulator(key=KEY)) as here:
            here.emulator.fail(Fault(status=status, body=body, headers=JSON), times=3)
            with pytest.raises(ChatbridgeError) as caught:
                await getattr(here, how)("Hi")
        assert_clean(caught.value)
        assert_nothing_in(repr(pickle.loads(pickle.dumps(caught.value)).__dict__), "a pickle")


# Servers that speak it too


@BOTH
async def test_a_compatible_server_tells_less_and_answers_all_the_same(how: str) -> None:
    async with talk(AnthropicEmulator(mode="compatible"), model="llama-of-any-name") as here:
        reply: Reply = await getattr(here, how)("Hello there")
        with pytest.raises(RequestRefused) as caught:
            await getattr(here, how)("Hi", temperature=2)
    assert ("Turn 1: you said 'Hello there'.", "llama-of-any-name") == (reply.text, reply.model)
    assert reply.usage is not None
    assert (2, None) == (reply.usage.input_tokens, reply.usage.cached_tokens)
    assert {} == reply.extra
    assert caught.value.request_id is None


async def test_a_server_that_streams_unasked_is_understood(here: Talk) -> None:
    assert "Hello" == (await here.answered(begin() + text(0, "Hello") + end(), how="whole")).text
    assert "stream" not in here.sent[0]


async def test_a_server_that_does_not_stream_is_understood(here: Talk) -> None:
    body = message({"type": "text", "text": "At once."})
    reply = await here.answered(body)
    assert "At once." == reply.text
    assert (Started("msg_1", MODEL), TextDelta("At once.", 0)) == tuple(here.events[:2])


async def test_a_stream_in_pieces_of_any_kind_of_line_end_is_read(here: Talk) -> None:
    body = begin() + event("ping") + text(0, "Hel", "lo") + end()
    assert "Hello" == (await here.answered(body.replace(b"\n", b"\r\n"))).text


async def test_attachments_are_sent_where_the_api_takes_them(here: Talk) -> None:
    files = Message.user([
        "Look:",
        Attachment("image/png", data=b"\x89PNG", name="maple.png"),
        Attachment("image/jpeg", url="https://example.com/a.jpg"),
        Attachment("application/pdf", data=b"%PDF", name="guide.pdf"),
        Attachment("application/pdf", url="https://example.com/a.pdf"),
        Attachment("text/csv; charset=utf-8", data=b"a,b", name="table.csv"),
    ])  # fmt: skip
    reply = await here.whole(files)
    assert (
        "Turn 1: you said 'Look: [image image/png] [image url] [document guide.pdf] [document url] "
        "[document table.csv]'."
    ) == reply.text

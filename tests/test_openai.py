"""Chat completions, asked of an emulator: what is sent, what servers differ in, what errors become."""

from __future__ import annotations

import json
import pickle
from collections.abc import AsyncGenerator
from typing import Any, get_args

import pytest

from chatbridge import (
    AnswerLost,
    AnswerWarning,
    AuthFailed,
    BadAnswer,
    BadOption,
    ChatbridgeError,
    ConnectFailed,
    DeliveryUnknown,
    Feature,
    FinishReason,
    Message,
    MissingSecret,
    Opaque,
    Outcome,
    ProviderFailed,
    RateLimited,
    Reasoning,
    ReasoningDelta,
    RequestRefused,
    SendOptions,
    Started,
    StreamCut,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    Unavailable,
    Usage,
)
from chatbridge.backend import ContextOwner, Stores
from chatbridge.config import BackendURL
from chatbridge.http import Transport
from chatbridge.registry import resolve
from chatbridge.testing.checking import fold
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.openai import ADAPTER, OpenAIBackend, OpenAIOptions
from chatbridge_adapters.openai.backend import CUT_LATE, EXTRA_TO_SEND, MAY_BE_CUT
from chatbridge_adapters.openai.emulator import OpenAIEmulator
from chatbridge_adapters.openai.fold import HINT
from chatbridge_adapters.openai.servers import Mode, Quirk
from openai_kit import HELLO, NOTHING, Json, Open, answer, both, end, events, opener, said, sent, streamed

MODES: tuple[Mode, ...] = get_args(Mode)
TOOLS: list[Json] = [
    {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
    },
    {"name": "cut"},
]
CALLING: list[set[Quirk]] = [set(), {"no_ids"}, {"no_indexes"}, {"no_ids", "no_indexes", "whole_calls"}]


@pytest.fixture
async def reach() -> AsyncGenerator[Open, None]:
    async with opener() as reach:
        yield reach


@pytest.fixture
def emulator() -> OpenAIEmulator:
    return OpenAIEmulator()


@pytest.fixture
async def backend(reach: Open, emulator: OpenAIEmulator) -> OpenAIBackend:
    return await reach(emulator)


def opened(url: str, environ: Json | None = None, **options: object) -> OpenAIBackend:
    """Open a backend that is not called."""
    target = resolve(BackendURL.parse(url), options, environ or {})
    assert target.base_url is not None
    backend = ADAPTER.open(target.options, Transport(target.base_url, target.options))
    assert isinstance(backend, OpenAIBackend)
    return backend


# Configuration


def test_the_profile_says_that_nothing_is_kept() -> None:
    profile = ADAPTER.profile(None)
    assert (ContextOwner.CLIENT, Stores.NEVER, frozenset()) == (
        profile.context,
        profile.stores,
        profile.settle_by,
    )
    assert {Feature.SEND, Feature.STREAM, Feature.TOOLS, Feature.ATTACHMENTS, Feature.REASONING} < {
        feature for feature in Feature if profile.can(feature)
    }
    assert profile == pickle.loads(pickle.dumps(profile))
    assert profile == opened("openai:", key="k").profile


def test_every_option_of_a_message_is_honoured() -> None:
    assert {"model", "system", "temperature", "top_p", "max_output_tokens", "stop", "seed"} | {
        "tools",
        "tool_choice",
        "response_format",
    } == ADAPTER.profile(None).options


def test_openai_itself_needs_a_key() -> None:
    with pytest.raises(MissingSecret, match="openai needs a key, and there is none in OPENAI_API_KEY"):
        opened("openai:gpt-x")


@pytest.mark.parametrize("url", ["openai+http://localhost:11434/v1", "openai://models.example/v1"])
def test_other_servers_may_need_none(url: str) -> None:
    assert None is opened(url).options.key


def test_what_the_official_client_reads_from_the_environment_is_read_here() -> None:
    environ = {
        "OPENAI_API_KEY": "k",
        "OPENAI_ORG_ID": "org-1",
        "OPENAI_PROJECT_ID": "proj-1",
        "OPENAI_BASE_URL": "http://localhost:11434/v1",
    }
    target = resolve(BackendURL.parse("openai:m"), {}, environ)
    assert "http://localhost:11434/v1" == target.base_url
    assert isinstance(target.options, OpenAIOptions)
    assert ("org-1", "proj-1", "m") == (
        target.options.organization,
        target.options.project,
        target.options.model,
    )


async def test_key_organization_and_project_go_with_each_call(reach: Open, emulator: OpenAIEmulator) -> None:
    backend = await reach(emulator, organization="org-1", project="proj-1")
    await backend.complete(HELLO, NOTHING)
    await backend.list_models()
    assert 2 * [(f"Bearer {emulator.key}", "org-1", "proj-1")] == [
        (
            call.headers.get("Authorization"),
            call.headers.get("OpenAI-Organization"),
            call.headers.get("OpenAI-Project"),
        )
        for call in emulator.calls
    ]


async def test_without_a_key_none_is_sent(reach: Open) -> None:
    emulator = OpenAIEmulator(mode="ollama")
    await (await reach(emulator, key=None)).complete(HELLO, NOTHING)
    assert "Authorization" not in emulator.calls[-1].headers


# What is asked


async def test_no_more_is_asked_than_was_said(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    await backend.complete(HELLO, NOTHING)
    assert {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]} == sent(emulator)


async def test_a_stream_asks_for_usage(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    await streamed(backend)
    assert (True, {"include_usage": True}) == (sent(emulator)["stream"], sent(emulator)["stream_options"])


async def test_a_stream_may_be_told_not_to(reach: Open, emulator: OpenAIEmulator) -> None:
    await streamed(await reach(emulator, stream_usage=False))
    assert "stream_options" not in sent(emulator)


async def test_each_option_has_its_field(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    options = SendOptions(
        model="gpt-5-mini",
        system="Be kind.",
        temperature=0.5,
        top_p=0.9,
        stop="END",
        seed=7,
        tools=TOOLS,
        tool_choice="auto",
        response_format={"type": "json_object"},
        extra={"reasoning_effort": "low", "user": "u"},
    )
    await backend.complete(HELLO, options)
    assert {
        "model": "gpt-5-mini",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "seed": 7,
        "tools": [{"type": "function", "function": tool} for tool in TOOLS],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "reasoning_effort": "low",
        "user": "u",
    } == sent(emulator)


@pytest.mark.parametrize(
    ("given", "field"),
    [({}, "max_tokens"), ({"limit_field": "max_completion_tokens"}, "max_completion_tokens")],
)
async def test_the_length_has_the_field_that_most_servers_know_or_the_one_chosen(
    reach: Open, emulator: OpenAIEmulator, given: Json, field: str
) -> None:
    reply = await (await reach(emulator, **given)).complete(HELLO, SendOptions(max_output_tokens=2))
    assert ("Turn 1:", FinishReason.LENGTH, "length") == (
        reply.text,
        reply.finish_reason,
        reply.raw_finish_reason,
    )
    assert 2 == sent(emulator)[field]


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("openai:", "max_completion_tokens"),
        ("openai://eu.api.openai.com", "max_completion_tokens"),
        ("openai://us.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("openai://us.services.ai.azure.com/openai/v1", "max_completion_tokens"),
        ("openai://us.cognitiveservices.azure.com/openai/v1", "max_completion_tokens"),
        ("openai://myopenai.com", "max_tokens"),
        ("openai+http://127.0.0.1", "max_tokens"),
    ],
)
def test_openai_itself_has_the_field_that_all_its_models_know(url: str, field: str) -> None:
    assert field == opened(url, key="k").limit_field


async def test_new_models_of_openai_refuse_the_old_field(backend: OpenAIBackend) -> None:
    with pytest.raises(RequestRefused, match="Use 'max_completion_tokens' instead") as caught:
        await backend.complete(HELLO, SendOptions(model="gpt-5-mini", max_output_tokens=9))
    assert "unsupported_parameter" == caught.value.code


async def test_openai_itself_needs_a_model() -> None:
    with pytest.raises(BadOption, match=r"'model' is required: name one as in openai:MODEL or \?model=MODEL"):
        await opened("openai:", key="k").complete(HELLO, NOTHING)


async def test_another_server_may_choose_it(reach: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenAIEmulator, "options", {})
    emulator = OpenAIEmulator(mode="llamacpp")
    reply = await (await reach(emulator)).complete(HELLO, NOTHING)
    assert "gpt-4o-mini" == reply.model
    assert "model" not in sent(emulator)


async def test_an_unknown_option_of_the_api_is_refused(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    with pytest.raises(
        BadOption, match="'reasoning_efort' is unknown in extra; did you mean 'reasoning_effort'"
    ):
        await backend.complete(HELLO, SendOptions(extra={"reasoning_efort": "low"}))
    assert [] == emulator.calls
    assert sorted(EXTRA_TO_SEND) == list(EXTRA_TO_SEND)


async def test_fields_that_only_some_servers_know_go_in_a_body_of_their_own(reach: Open) -> None:
    emulator = OpenAIEmulator(mode="vllm")
    await (await reach(emulator)).complete(HELLO, SendOptions(extra={"extra_body": {"top_k": 3}}))
    assert 3 == sent(emulator)["top_k"]


@pytest.mark.parametrize("body", [{"messages": []}, {"stream": True}, {"model": "x"}, {"n": 2}, [1]])
async def test_that_body_replaces_nothing(
    backend: OpenAIBackend, emulator: OpenAIEmulator, body: object
) -> None:
    with pytest.raises(BadOption, match="extra_body"):
        await backend.complete(HELLO, SendOptions(extra={"extra_body": body}))
    assert [] == emulator.calls


# What is answered


@pytest.mark.parametrize("mode", MODES)
async def test_the_model_sees_the_whole_history(reach: Open, mode: Mode) -> None:
    backend = await reach(OpenAIEmulator(mode=mode))
    history = [Message.user("One"), Message.assistant("1"), Message.user("Two")]
    expected = "Turn 2: you said 'Two'. Before that you said 'One'."
    whole, stream = await backend.complete(history, NOTHING), await streamed(backend, history)
    assert (expected, FinishReason.STOP, "gpt-4o-mini") == (whole.text, whole.finish_reason, whole.model)
    assert (Text(expected),) == whole.message.parts == stream.reply.message.parts
    assert Started(model="gpt-4o-mini") == stream.events[0]
    assert expected == "".join(event.text for event in stream.events if isinstance(event, TextDelta))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("message", ["Hello", "add this", "add and cut"])
async def test_a_streamed_answer_is_the_whole_one(reach: Open, mode: Mode, message: str) -> None:
    """But for what is another's each time: the ids."""
    backend = await reach(OpenAIEmulator(mode=mode, thinks=True))
    options = SendOptions(tools=TOOLS, include={"usage"})
    whole = await backend.complete([Message.user(message)], options)
    stream = await streamed(backend, [Message.user(message)], options)
    assert without_ids(whole.message.parts) == without_ids(stream.reply.message.parts)
    assert without_ids(stream.reply.message.parts) == without_ids(fold(stream.events[:-1]))
    for reply in (whole, stream.reply):
        assert (whole.finish_reason, whole.usage, ()) == (reply.finish_reason, reply.usage, reply.warnings)
        assert {**whole.extra, "id": "", "created": 0} == {**reply.extra, "id": "", "created": 0}
        assert whole.message.extra == reply.message.extra


def without_ids(parts: Any) -> list[object]:
    return [(part.name, part.arguments) if isinstance(part, ToolCall) else part for part in parts]


async def test_usage_is_told_with_its_details(backend: OpenAIBackend) -> None:
    reply = await backend.complete(HELLO, NOTHING)
    assert Usage(1, 5, 6, cached_tokens=0, reasoning_tokens=0) == reply.usage
    assert {"prompt_tokens_details": {"audio_tokens": 0}} == reply.extra["usage"]


@pytest.mark.parametrize(("mode", "field"), [("ollama", "reasoning"), ("llamacpp", "reasoning_content")])
async def test_reasoning_is_told_apart_and_knows_its_field(reach: Open, mode: Mode, field: str) -> None:
    backend = await reach(OpenAIEmulator(mode=mode, thinks=True))
    stream = await streamed(backend)
    thought = Reasoning("They said 'Hello'.", f"openai:{field}")
    assert (thought, Text("Turn 1: you said 'Hello'.")) == stream.reply.message.parts
    assert thought.text == "".join(e.text for e in stream.events if isinstance(e, ReasoningDelta))
    assert "Turn 1: you said 'Hello'." == stream.reply.text


async def test_reasoning_is_given_back_only_where_that_is_chosen(reach: Open) -> None:
    emulator = OpenAIEmulator(mode="llamacpp", thinks=True)
    reply = await (await reach(emulator)).complete(HELLO, NOTHING)
    history = [*HELLO, reply.message, Message.user("And?")]
    await (await reach(emulator)).complete(history, NOTHING)
    assert {"role": "assistant", "content": reply.text} == sent(emulator)["messages"][1]
    await (await reach(emulator, reasoning=True)).complete(history, NOTHING)
    assert "They said 'Hello'." == sent(emulator)["messages"][1]["reasoning_content"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("quirks", CALLING)
async def test_calls_of_tools_go_there_and_back(reach: Open, mode: Mode, quirks: set[Quirk]) -> None:
    backend = await reach(OpenAIEmulator(mode=mode, also=frozenset(quirks)))
    options = SendOptions(tools=TOOLS)
    asked = [Message.user("add and cut this")]
    for reply in (await backend.complete(asked, options), (await streamed(backend, asked, options)).reply):
        calls = [part for part in reply.message.parts if isinstance(part, ToolCall)]
        assert FinishReason.TOOL_CALLS == reply.finish_reason
        assert [("add", {"what": "add and cut this"}), ("cut", {})] == [
            (call.name, call.arguments) for call in calls
        ]
        assert 2 == len({call.id for call in calls} - {""})
        results = [ToolResult(call.id, f"result {n}") for n, call in enumerate(calls)]
        for given in ([Message.user(results)], [Message("tool", [each]) for each in results]):
            final = await backend.complete([*asked, reply.message, *given], options)
            assert final.text.startswith("Turn 3: you said 'result 1'. Before that you said 'result 0'.")


@pytest.mark.parametrize("choice", ["required", "any", "cut"])
async def test_a_tool_may_have_to_be_called(backend: OpenAIBackend, choice: str) -> None:
    reply = await backend.complete(HELLO, SendOptions(tools=TOOLS, tool_choice=choice))
    (call,) = reply.message.parts
    assert isinstance(call, ToolCall)
    assert ("cut" if choice == "cut" else "add") == call.name
    assert FinishReason.TOOL_CALLS is reply.finish_reason
    assert ("stop" if choice == "cut" else "tool_calls") == reply.raw_finish_reason


async def test_an_empty_choice_or_form_is_not_taken_for_none(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    """An empty JSON Schema is one that anything fits."""
    with pytest.raises(BadOption, match="option 'tool_choice' = '' is none of"):
        await backend.complete(HELLO, SendOptions(tools=TOOLS, tool_choice=""))
    await backend.complete(HELLO, SendOptions(response_format={}))
    wrapped: Json = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {}}}
    assert wrapped == json.loads(emulator.calls[-1].body)["response_format"]


async def test_a_refusal_says_that_it_is_one(reach: Open) -> None:
    backend = await reach(OpenAIEmulator(refuses=True))
    for reply in (await backend.complete(HELLO, NOTHING), (await streamed(backend)).reply):
        assert ("I cannot help with that.", FinishReason.REFUSAL, "stop") == (
            reply.text,
            reply.finish_reason,
            reply.raw_finish_reason,
        )
        assert {"refusal": "I cannot help with that."} == reply.message.extra


async def test_a_filter_of_contents_is_told(reach: Open) -> None:
    backend = await reach(OpenAIEmulator(filtered="you said"))
    reply = await backend.complete(HELLO, NOTHING)
    assert ("Turn 1: ", FinishReason.CONTENT_FILTER) == (reply.text, reply.finish_reason)


async def test_the_form_of_an_answer_may_be_a_json_schema(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    schema = {"title": "An answer!", "type": "object", "properties": {"answer": {"type": "string"}}}
    reply = await backend.complete(HELLO, SendOptions(response_format=schema))
    assert '{"answer": "Turn 1: you said \'Hello\'."}' == reply.text
    assert {"type": "json_schema", "json_schema": {"name": "An_answer_", "schema": schema}} == sent(emulator)[
        "response_format"
    ]


async def test_the_models_are_listed(backend: OpenAIBackend) -> None:
    models = await backend.list_models()
    assert [("gpt-4o-mini", "openai"), ("gpt-5-mini", "openai")] == [(m.id, m.owned_by) for m in models]
    assert "model" == models[0].raw["object"]


async def test_a_server_without_models_may_say_null(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    answer(emulator, {"object": "list", "data": None})
    assert () == await backend.list_models()


MODEL: Json = {"id": "a", "owned_by": 5}


@pytest.mark.parametrize("body", [[MODEL], {"data": [MODEL]}, {"data": [MODEL], "error": None}])
async def test_models_are_listed_in_each_form(
    backend: OpenAIBackend, emulator: OpenAIEmulator, body: object
) -> None:
    answer(emulator, body)
    (model,) = await backend.list_models()
    assert ("a", None, MODEL) == (model.id, model.owned_by, model.raw)


async def test_a_model_without_an_id_costs_no_list(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    answer(emulator, {"data": [{"name": "x"}, 7, MODEL]})
    with pytest.warns(AnswerWarning, match="no id") as warned:
        assert ["a"] == [model.id for model in await backend.list_models()]
    assert 2 == len(warned)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "Unexpected endpoint or method. (GET /models)"}, "Unexpected endpoint or method"),
        ({"data": [], "error": {"message": "not today"}}, "not today"),
        ({"models": []}, "what came is no list of models"),
        ({"data": "many"}, "what came is no list of models"),
    ],
)
async def test_what_is_no_list_of_models_says_why(
    backend: OpenAIBackend, emulator: OpenAIEmulator, body: object, words: str
) -> None:
    answer(emulator, body)
    with pytest.raises(BadAnswer, match=words):
        await backend.list_models()


async def test_closing_frees_nothing_of_the_bridges(backend: OpenAIBackend) -> None:
    await backend.close()
    assert "Turn 1: you said 'Hello'." == (await backend.complete(HELLO, NOTHING)).text


# What servers do differently


@pytest.mark.parametrize(
    "quirks",
    [
        {"no_done"},
        {"comments"},
        {"content_parts"},
        {"roles"},
        {"null_usage", "timings"},
        {"usage_with_choice"},
        {"null_finish_reason"},
        {"usage_with_choice", "no_done", "comments", "roles"},
    ],
)
async def test_a_stream_is_understood_whatever_it_looks_like(reach: Open, quirks: set[Quirk]) -> None:
    backend = await reach(OpenAIEmulator(mode="vllm", also=frozenset(quirks)))
    for reply in (await backend.complete(HELLO, NOTHING), (await streamed(backend)).reply):
        assert ((Text("Turn 1: you said 'Hello'."),), Usage(1, 5, 6), ()) == (
            reply.message.parts,
            reply.usage,
            reply.warnings,
        )
        expected = None if "null_finish_reason" in quirks else FinishReason.STOP
        assert expected == reply.finish_reason


async def test_a_stream_that_was_not_asked_for_is_read_all_the_same(reach: Open) -> None:
    emulator = OpenAIEmulator(mode="vllm", also=frozenset({"always_stream"}), thinks=True)
    reply = await (await reach(emulator)).complete(HELLO, NOTHING)
    assert ("Turn 1: you said 'Hello'.", FinishReason.STOP) == (reply.text, reply.finish_reason)
    assert "stream" not in sent(emulator)


async def test_a_document_in_place_of_a_stream_is_read_all_the_same(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    answer(emulator, said(content="Hi.", reasoning="Hm."))
    stream = await streamed(backend)
    assert (Reasoning("Hm.", "openai:reasoning"), Text("Hi.")) == stream.reply.message.parts
    assert stream.reply.message.parts == fold(stream.events[:-1])


async def test_usage_that_was_asked_for_and_not_told_is_a_warning(reach: Open) -> None:
    backend = await reach(OpenAIEmulator(also=frozenset({"no_usage"})))
    asked = SendOptions(include={"usage"})
    for reply in (await backend.complete(HELLO, asked), (await streamed(backend, options=asked)).reply):
        assert (None, ("the server told no usage that can be read",)) == (reply.usage, reply.warnings)
    assert () == (await backend.complete(HELLO, NOTHING)).warnings


async def test_a_stream_with_neither_an_end_mark_nor_a_reason_is_cut(reach: Open) -> None:
    """Nobody can know whether it was all."""
    backend = await reach(OpenAIEmulator(also=frozenset({"no_done", "null_finish_reason"})))
    with pytest.raises(StreamCut, match="neither an end mark nor a reason for its end") as caught:
        await streamed(backend)
    assert Outcome.ACCEPTED is caught.value.outcome


@pytest.mark.parametrize("cut", ["abort", "end"])
async def test_a_stream_that_ends_in_the_middle_is_cut(
    backend: OpenAIBackend, emulator: OpenAIEmulator, cut: Any
) -> None:
    emulator.fail(Fault(cut_after=3, cut=cut))
    with pytest.raises(StreamCut):
        await streamed(backend)


async def test_what_was_left_of_a_whole_answer_is_told(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    """As of a server that streams though nobody asked for it."""
    answer(emulator, events({"content": "Half"}, done=False))
    with pytest.raises(StreamCut) as caught:
        await backend.complete(HELLO, NOTHING)
    assert "Half" == caught.value.partial


async def test_a_server_that_goes_on_after_the_end_mark_is_not_heard(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    answer(emulator, events({"content": "Hi."}, end()) + events({"content": " And more."}))
    assert "Hi." == (await streamed(backend)).reply.text


# Errors


@pytest.mark.parametrize("mode", sorted(set(MODES) - {"ollama"}))
async def test_a_history_that_does_not_fit_has_the_same_code_everywhere(reach: Open, mode: Mode) -> None:
    """Ollama says nothing: it cuts."""
    backend = await reach(OpenAIEmulator(mode=mode, context=3))
    for call in both(backend, [Message.user("one two three four")]):
        with pytest.raises(RequestRefused, match=r"tokens|n_ctx") as caught:
            await call()
        assert ("context_length_exceeded", 400, Outcome.REFUSED, False) == (
            caught.value.code,
            caught.value.status,
            caught.value.outcome,
            caught.value.retryable,
        )


async def test_what_does_not_fit_is_asked_once_whatever_the_status(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    """As llama.cpp says it: with a status that else is worth another attempt."""
    for call in both(backend):
        answer(emulator, {"error": {"code": 500, "message": "Context size has been exceeded."}}, 500)
        with pytest.raises(RequestRefused, match="Context size") as caught:
            await call()
        assert ("context_length_exceeded", Outcome.REFUSED, False) == (
            caught.value.code,
            caught.value.outcome,
            caught.value.retryable,
        )
    assert 2 == len(emulator.calls)


@pytest.mark.parametrize("mode", ["openai", "vllm", "llamacpp"])
async def test_a_wrong_key_is_refused_and_not_shown(reach: Open, mode: Mode) -> None:
    backend = await reach(OpenAIEmulator(mode=mode), key="sk-wrong-and-secret")
    with pytest.raises(AuthFailed) as caught:
        await backend.complete(HELLO, NOTHING)
    assert 401 == caught.value.status
    assert "secret" not in f"{caught.value!r} {vars(caught.value)}"


async def test_an_echo_of_the_key_is_taken_out(reach: Open, emulator: OpenAIEmulator) -> None:
    backend = await reach(emulator, key="hunter2hunter2")
    answer(emulator, {"error": {"message": "no hunter2hunter2", "code": "hunter2hunter2"}}, 401)
    with pytest.raises(AuthFailed) as caught:
        await backend.list_models()
    assert "hunter2" not in f"{caught.value!r} {vars(caught.value)}"


@pytest.mark.parametrize(
    ("mode", "code"),
    [("openai", "model_not_found"), ("ollama", "not_found_error"), ("vllm", "NotFoundError")],
)
async def test_a_model_that_is_not_there_is_a_refused_request_and_no_missing_conversation(
    reach: Open, mode: Mode, code: str
) -> None:
    backend = await reach(OpenAIEmulator(mode=mode))
    with pytest.raises(RequestRefused, match="nope") as caught:
        await backend.complete(HELLO, SendOptions(model="nope"))
    assert (404, code) == (caught.value.status, caught.value.code)


async def test_spent_credit_is_not_asked_for_again(reach: Open) -> None:
    emulator = OpenAIEmulator(broke=True)
    backend = await reach(emulator)
    with pytest.raises(RateLimited, match="quota") as caught:
        await backend.complete(HELLO, NOTHING)
    assert ("insufficient_quota", False, 1) == (
        caught.value.code,
        caught.value.retryable,
        len(emulator.calls),
    )


async def test_a_rate_limit_is_waited_for(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    emulator.fail("429")
    assert "Turn 1: you said 'Hello'." == (await backend.complete(HELLO, NOTHING)).text
    assert 2 == len(emulator.calls)


async def test_a_model_that_is_still_loaded_has_begun_nothing(reach: Open) -> None:
    emulator = OpenAIEmulator(mode="llamacpp", loading=True)
    with pytest.raises(RequestRefused, match="Loading model") as caught:
        await (await reach(emulator)).complete(HELLO, NOTHING)
    assert (Outcome.REFUSED, True, 3) == (caught.value.outcome, caught.value.retryable, len(emulator.calls))


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_error_is_tried_again(
    backend: OpenAIBackend, emulator: OpenAIEmulator, status: int
) -> None:
    """It costs money at most: nothing is kept."""
    emulator.fail(Fault(status=status), times=2)
    assert "Turn 1: you said 'Hello'." == (await streamed(backend)).reply.text
    emulator.fail(Fault(status=status), times=3)
    with pytest.raises(DeliveryUnknown):
        await backend.complete(HELLO, NOTHING)


async def test_a_lost_answer_is_asked_for_once_more(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    emulator.fail("lost")
    assert "Turn 1: you said 'Hello'." == (await backend.complete(HELLO, NOTHING)).text
    emulator.fail("lost", times=2)
    with pytest.raises(DeliveryUnknown):
        await backend.complete(HELLO, NOTHING)
    assert 4 == len(emulator.calls)


async def test_a_list_that_fails_is_unavailable(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    emulator.fail("500", times=3)
    with pytest.raises(Unavailable):
        await backend.list_models()


async def test_nothing_listens_there() -> None:
    options = OpenAIOptions(attempts=1)
    transport = Transport("http://127.0.0.1:9/v1", options)
    with pytest.raises(ConnectFailed):
        await OpenAIBackend(options, transport).complete(HELLO, NOTHING)
    await transport.close()


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("mode", MODES)
async def test_an_error_in_a_stream_is_the_servers(reach: Open, mode: Mode, *, named: bool) -> None:
    emulator = OpenAIEmulator(mode=mode, also=frozenset({"named_errors"} if named else set[Quirk]()))
    backend = await reach(emulator)
    emulator.fail(Fault(cut_after=3, error="out of memory"))
    with pytest.raises(ProviderFailed, match="out of memory") as caught:
        await streamed(backend)
    assert ("provider", Outcome.ACCEPTED) == (caught.value.kind, caught.value.outcome)


@pytest.mark.parametrize(
    ("before", "error", "retryable"),
    [
        ({}, {"code": "server_error"}, True),
        ({}, {"code": 500, "type": "InternalServerError"}, True),
        ({}, {"code": 502}, True),
        ({}, {"code": "429"}, True),
        ({}, {"code": 503, "type": "ServiceUnavailableError"}, True),
        ({"content": "Hi"}, {"code": 502}, False),
        ({}, {"code": 402}, False),
        ({}, {"code": 400}, False),
        ({"content": ""}, {"type": "overloaded_error"}, True),
        ({"content": "Hi"}, {"code": "server_error"}, False),
        ({}, {"code": "insufficient_quota", "type": "server_error"}, False),
        ({}, {"type": "server_error", "message": "The prompt is too long"}, False),
        ({}, {}, False),
    ],
)
async def test_a_failure_that_may_pass_can_be_asked_again_before_anything_came(
    backend: OpenAIBackend, emulator: OpenAIEmulator, before: Json, error: Json, *, retryable: bool
) -> None:
    answer(emulator, events(before, {"error": {"message": "No.", **error}}))
    with pytest.raises(ProviderFailed) as caught:
        await streamed(backend)
    assert (Outcome.ACCEPTED, retryable) == (caught.value.outcome, caught.value.retryable)


async def test_an_error_beside_a_choice_is_one(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    failure = {"error": {"code": "server_error", "message": "Provider disconnected"}, **end("error")}
    answer(emulator, events({"content": "Hi"}, failure))
    with pytest.raises(ProviderFailed, match="Provider disconnected") as caught:
        await streamed(backend)
    assert "server_error" == caught.value.code


async def test_a_failure_in_a_choice_is_one(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    """As a server says it that asks others."""
    failure = {"code": 502, "message": "Provider died"}
    chunk = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": failure}]}
    document = said(content="Hi")
    document["choices"][0]["error"] = failure
    for call, body in zip(both(backend), (document, events({"content": "Hi"}, chunk)), strict=True):
        answer(emulator, body)
        with pytest.raises(ProviderFailed, match="Provider died") as caught:
            await call()
        if body is document:
            assert "Hi" == caught.value.partial


async def test_a_stream_that_begins_with_a_failure_hands_out_nothing(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    """So that a history that is too long is still made shorter."""
    words = "Trying to keep the first 9 tokens when context the overflows. It has a context length of only 8."
    answer(emulator, b"event: error\ndata: " + json.dumps({"error": {"message": words}}).encode() + b"\n\n")
    stream = backend.stream(HELLO, NOTHING)
    with pytest.raises(ProviderFailed) as caught:
        await anext(stream)
    assert "context_length_exceeded" == caught.value.code


@pytest.mark.parametrize("failure", [{"error": {"message": "GPU died"}, "id": "x"}, {"error": "GPU died"}])
async def test_a_failure_is_one_whatever_the_name_of_its_event(
    backend: OpenAIBackend, emulator: OpenAIEmulator, failure: Json
) -> None:
    answer(emulator, events({"content": "Hel"}, failure).replace(b"data:", b"event: chunk\ndata:"))
    with pytest.raises(ProviderFailed, match="GPU died"):
        await streamed(backend)


@pytest.mark.parametrize("error", [{}, "", False, 0, None])
async def test_an_empty_error_is_none(
    backend: OpenAIBackend, emulator: OpenAIEmulator, error: object
) -> None:
    document: Json = {**said(content="Hi"), "error": error}
    document["choices"][0]["error"] = error
    answer(emulator, document)
    assert "Hi" == (await backend.complete(HELLO, NOTHING)).text
    answer(emulator, events({"content": "Hi"}, {**end(), "error": error}))
    assert "Hi" == (await streamed(backend)).reply.text


@pytest.mark.parametrize(("cut", "warnings"), [("abort", (CUT_LATE,)), ("end", ())])
async def test_a_connection_that_breaks_off_after_the_reason_for_the_end_costs_nothing(
    backend: OpenAIBackend, emulator: OpenAIEmulator, cut: Any, warnings: tuple[str, ...]
) -> None:
    pieces = sum(isinstance(event, TextDelta) for event in (await streamed(backend)).events)
    emulator.fail(Fault(cut_after=1 + pieces + 1, cut=cut))
    reply = (await streamed(backend)).reply
    assert ("Turn 1: you said 'Hello'.", FinishReason.STOP) == (reply.text, reply.finish_reason)
    assert warnings == reply.warnings


@pytest.mark.parametrize(
    "late",
    [
        {"content": "0 EUR"},
        {"reasoning_content": "0"},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "pay", "arguments": '{"eur"'}}]},
    ],
)
async def test_an_answer_that_goes_on_after_the_reason_for_its_end_is_lost_where_it_breaks_off(
    backend: OpenAIBackend, emulator: OpenAIEmulator, late: Json
) -> None:
    """As of a server that tells a reason with each piece; without an end mark, nobody can tell its last."""
    pieces = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]}
        for delta in ({"content": "Pay Bob 5"}, late)
    ]
    answer(emulator, events(*pieces, "{bad", done=False))
    with pytest.raises(StreamCut):
        await streamed(backend)
    for done, warnings in ((False, [MAY_BE_CUT]), (True, [])):
        answer(emulator, events(*pieces, done=done))
        reply = (await streamed(backend)).reply
        assert ("Pay Bob 5", warnings) == (
            reply.text[:9],
            [each for each in reply.warnings if each == MAY_BE_CUT],
        )


async def test_a_call_whose_arguments_may_be_cut_off_is_none_that_can_be_run(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    """As of a server that tells a reason with each piece, and breaks off behind the name of a tool."""
    call = {"index": 0, "id": "a", "function": {"name": "pay", "arguments": ""}}
    pieces = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": "tool_calls"}]}
        for delta in ({"content": "So."}, {"tool_calls": [call]})
    ]
    for done, kind in ((False, Opaque), (True, ToolCall)):
        answer(emulator, events(*pieces, done=done))
        reply = (await streamed(backend)).reply
        assert (kind, not done) == (type(reply.message.parts[-1]), MAY_BE_CUT in reply.warnings)


@pytest.mark.parametrize("after", [[], [{"choices": [], "usage": {"prompt_tokens": 1}}], [{}]])
async def test_an_end_that_is_told_with_the_last_piece_needs_no_mark(
    backend: OpenAIBackend, emulator: OpenAIEmulator, after: list[Json]
) -> None:
    last = {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]}
    answer(emulator, events({"content": "Hel"}, last, *after, done=False))
    reply = (await streamed(backend)).reply
    assert ("Hello", ()) == (reply.text, reply.warnings)


async def test_what_a_server_says_of_a_call_names_its_host(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    beside = {"extra_content": {"google": {"thought_signature": "SIG"}}}
    call: Json = {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}, **beside}
    answer(emulator, said(tool_calls=[call]))
    reply = await backend.complete(HELLO, NOTHING)
    assert {"tool_calls": {"a": beside}, "tool_calls_host": "127.0.0.1"} == reply.message.extra
    await backend.complete([*HELLO, reply.message, Message("tool", [ToolResult("a", "1")])], NOTHING)
    assert beside["extra_content"] == sent(emulator)["messages"][1]["tool_calls"][0]["extra_content"]


async def test_a_reason_that_is_the_word_null_is_none(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    piece = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "null"}]}
    answer(emulator, events(piece, done=False))
    with pytest.raises(StreamCut):
        await streamed(backend)
    answer(emulator, events(piece))
    assert None is (await streamed(backend)).reply.raw_finish_reason


async def test_an_empty_body_hints_at_the_length_of_the_history(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    """As llama.cpp streams where the history does not fit."""
    answer(emulator, b"")
    with pytest.raises(StreamCut, match="the answer is empty") as caught:
        await streamed(backend)
    assert [HINT] == caught.value.__notes__


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "Unexpected endpoint or method. (POST /chat/completions)"}, "Unexpected endpoint"),
        ({"detail": "Not today"}, "Not today"),
        ({}, "what came is not an answer"),
        ({"choices": None}, "what came is not an answer"),
        ({"choices": [{"index": 0}]}, "what came is not an answer"),
    ],
)
async def test_what_is_no_answer_is_not_taken_for_one(
    backend: OpenAIBackend, emulator: OpenAIEmulator, body: object, message: str
) -> None:
    for call in both(backend):
        answer(emulator, body)
        with pytest.raises(ProviderFailed, match=message):
            await call()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "empty"),
        (b"[1, 2]", "schema"),
        (b'{"choices": 3}', "schema"),
        (b'{"choices": [', "json"),
        (b"data: {broken\n\n", "json"),
    ],
)
async def test_what_cannot_be_read_is_lost(
    backend: OpenAIBackend, emulator: OpenAIEmulator, body: bytes, kind: str
) -> None:
    for call in both(backend):
        answer(emulator, body)
        with pytest.raises(AnswerLost) as caught:
            await call()
        assert kind == caught.value.kind


async def test_a_web_page_is_not_the_api(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    answer(emulator, b"<html>Log in</html>")
    with pytest.raises(DeliveryUnknown, match="a web page"):
        await backend.complete(HELLO, NOTHING)


async def test_an_error_is_read_whatever_its_form(reach: Open) -> None:
    for quirk in ("detail_errors", "text_errors"):
        emulator = OpenAIEmulator(also=frozenset({quirk}))
        with pytest.raises(RequestRefused, match="The model `nope` does not exist"):
            await (await reach(emulator)).complete(HELLO, SendOptions(model="nope"))


async def test_no_foreign_error_gets_out(backend: OpenAIBackend) -> None:
    with pytest.raises(ChatbridgeError):
        await backend.complete([Message.user("\ud800")], NOTHING)
    with pytest.raises(ChatbridgeError):
        await backend.complete(HELLO, SendOptions(extra={"metadata": {"x": object()}}))


async def test_what_another_backend_sent_stays_behind_with_a_warning(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    history = [Message.user("One"), Message.assistant([Text("1"), Opaque("acme", "map", {})]), *HELLO]
    warning = "a part of the kind 'map' was left out: it can be given back to acme only"
    assert (warning,) == (await backend.complete(history, NOTHING)).warnings
    assert (warning,) == (await streamed(backend, history)).reply.warnings
    assert {"role": "assistant", "content": "1"} == sent(emulator)["messages"][1]

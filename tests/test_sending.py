"""What goes out with a message: its id, its options, and what of them cannot be honoured."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import re
from datetime import date
from types import MappingProxyType
from typing import Any, cast

import pytest
from attrs import fields
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    Attachment,
    BadOption,
    Bridge,
    ChatbridgeError,
    ConfigError,
    Feature,
    Message,
    Opaque,
    Reasoning,
    Reply,
    RequestRefused,
    SendOptions,
    Text,
    ToolCall,
    ToolResult,
    Unavailable,
    UnsupportedFeature,
    UsageError,
    connect,
)
from chatbridge.options import CommonOptions
from chatbridge.sending import OptionChanges, Outgoing, prepare
from chatbridge.testing.emulator import Emulator, serve
from chatbridge_adapters.anthropic.backend import AnthropicBackend
from chatbridge_adapters.anthropic.emulator import AnthropicEmulator
from chatbridge_adapters.openai.emulator import OpenAIEmulator
from doubles import Double

FIELDS = {attribute.name for attribute in fields(SendOptions)}
EXAMPLES: dict[str, Any] = {
    "model": "m",
    "system": "Be brief.",
    "temperature": 0.5,
    "top_p": 0.9,
    "max_output_tokens": 7,
    "stop": ("x",),
    "seed": 0,
    "tools": ({"name": "look"},),
    "tool_choice": "auto",
    "response_format": {"type": "text"},
}


def make(
    message: str | Message = "Hi",
    options: SendOptions | None = None,
    *,
    system: str | None = None,
    double: Double | None = None,
    settings: CommonOptions | None = None,
    **changes: Any,
) -> Outgoing:
    profile = (double or Double()).profile
    return prepare(
        message, options, cast(OptionChanges, changes), system, profile, settings or CommonOptions()
    )


# ---------------------------------------------------------------------------------------- the message


def test_a_text_is_a_message_of_the_users() -> None:
    assert Message.user("Hi").same_content(make("Hi").message)


def test_a_message_goes_out_as_it_is_with_an_id_of_its_own() -> None:
    message = Message.user(["Look", Text(" here")])
    outgoing = make(message).message

    assert message.same_content(outgoing)
    assert None is message.id
    assert re.fullmatch("[0-9a-f]{32}", str(outgoing.id))


def test_ids_are_minted_once_each() -> None:
    assert 1000 == len({make().message.id for _ in range(1000)})


def test_an_id_that_is_given_is_kept() -> None:
    assert "mine" == make(Message("user", "Hi", id="mine")).message.id


@pytest.mark.parametrize("error", [RequestRefused("no"), Unavailable("down"), UsageError("cannot")])
async def test_the_id_is_on_the_error(error: ChatbridgeError) -> None:
    double = Double()
    double.fails["send"] = error
    chat = await Bridge(double).create()

    with pytest.raises(type(error)) as caught:
        await chat.send("Hi")

    ((_, sent, _),) = double.sent
    assert sent.id is not None
    assert sent.id == caught.value.client_id
    assert ("double", chat.id) == (caught.value.provider, caught.value.conversation_id)


async def test_another_provider_that_an_error_names_stays() -> None:
    double = Double()
    double.fails["send"] = RequestRefused("no", provider="inner")

    with pytest.raises(RequestRefused) as caught:
        await (await Bridge(double).create()).send("Hi")

    assert "inner" == caught.value.provider


# ---------------------------------------------------------------------------------------- the options


def test_without_options_nothing_is_made() -> None:
    assert make().options is make().options
    assert SendOptions() == make().options


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_keyword_wins_over_the_options_and_leaves_the_rest(name: str) -> None:
    options = SendOptions(temperature=0.1, seed=5, extra={"a": 1})
    value = EXAMPLES[name]

    outgoing = make(options=options, **{name: value})

    assert value == getattr(outgoing.options, name)
    for other in FIELDS - {name}:
        assert getattr(options, other) == getattr(outgoing.options, other)
    assert () == outgoing.warnings


def test_every_option_is_tried() -> None:
    """An option that is added is either checked here, or is one of the two that have rules of their own."""
    assert FIELDS - {"include", "extra"} == set(EXAMPLES)
    assert FIELDS == set(OptionChanges.__annotations__)


@pytest.mark.parametrize(("own", "expected"), [(None, "Be brief."), ("Be verbose.", "Be verbose."), ("", "")])
def test_the_system_prompt_of_the_message_wins_over_the_chats(own: str | None, expected: str) -> None:
    assert expected == make(system="Be brief.", options=SendOptions(system=own)).options.system


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no option 'temprature' .*temperature"):
        make(temprature=0.5)


def test_options_of_one_api_pass_unchecked() -> None:
    """They are the adapter's to check."""
    assert {"a": 1} == make(double=Double(options=()), extra={"a": 1}).options.extra


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model", 7, "takes a text"),
        ("system", b"Be brief.", "takes a text"),
        ("temperature", "hot", "takes a number"),
        ("temperature", True, "takes a number"),
        ("top_p", [1.0], "takes a number"),
        ("max_output_tokens", 7.5, "takes a whole number"),
        ("seed", "7", "takes a whole number"),
        ("stop", 7, "takes a text, or several texts"),
        ("stop", None, "takes a text, or several texts"),
        ("stop", ["a", 7], "takes a text, or several texts"),
        ("tools", 7, "takes a list of mappings"),
        ("tools", {"name": "look"}, "takes a list of mappings"),
        ("tools", ["look"], "takes a list of mappings"),
        ("tool_choice", {"name": "look"}, "takes a text: auto, none, required, or the name of a tool"),
        ("response_format", "json", "takes a mapping, such as a JSON Schema"),
        ("include", 7, "takes texts: references, usage"),
        ("include", [["usage"]], "takes texts: references, usage"),
        ("extra", "a", "takes a mapping of names to values"),
        ("extra", {1: 2}, "takes a mapping of names to values"),
    ],
)
def test_an_option_of_a_wrong_type_is_refused(name: str, value: Any, words: str) -> None:
    changes = cast(OptionChanges, {name: value})
    with pytest.raises(BadOption, match=f"option '{name}' {words}"):
        prepare("Hi", None, changes, None, Double().profile, CommonOptions())


def test_options_that_were_made_before_are_checked_as_well() -> None:
    with pytest.raises(BadOption, match="option 'tool_choice' takes a text"):
        make(options=SendOptions(tool_choice=cast(str, {"name": "look"})))
    with pytest.raises(UsageError, match="options are a SendOptions, not dict"):
        make(options=cast(SendOptions, {"temperature": 0.5}))


@pytest.mark.parametrize("api", ["openai", "anthropic", "tachyon"])
@pytest.mark.parametrize(
    ("tool", "hint"),
    [
        ({"description": "Looks."}, "parameters$"),
        ({"type": "function", "function": {"name": "look"}}, "parameters: give what is under 'function'$"),
    ],
)
async def test_a_tool_without_a_name_is_refused(api: str, tool: dict[str, Any], hint: str) -> None:
    own: dict[str, Any] = {"operator": "me"} if api == "tachyon" else {"model": "m"}
    async with connect(f"{api}:", key="any-key", **own) as bridge:
        chat = bridge.open("any") if api == "tachyon" else await bridge.create()
        with pytest.raises(BadOption, match=f"'tools' takes mappings with name, description and {hint}"):
            await chat.send("Look", tools=[tool])


@given(
    given_=st.sets(st.sampled_from(sorted(EXAMPLES))),
    honoured=st.sets(st.sampled_from(sorted(EXAMPLES))),
)
def test_what_cannot_be_honoured_is_left_out_with_a_warning(given_: set[str], honoured: set[str]) -> None:
    outgoing = make(double=Double(options=honoured), **{name: EXAMPLES[name] for name in given_})

    for name, value in EXAMPLES.items():
        expected = value if name in given_ & honoured else getattr(SendOptions(), name)
        assert expected == getattr(outgoing.options, name)
    assert {f"double cannot honour {name}, which was left out" for name in given_ - honoured} == set(
        outgoing.warnings
    )


@pytest.mark.parametrize("include", ["usage", ["usage"], frozenset({"usage"})])
def test_what_to_include_is_a_name_or_several(include: object) -> None:
    assert {"usage"} == make(include=include).options.include


def test_what_to_include_comes_from_the_settings_and_the_call() -> None:
    settings = CommonOptions(include=frozenset({"usage"}))

    assert {"usage"} == make(settings=settings).options.include
    assert {"usage", "references"} == make(settings=settings, include="references").options.include


def test_what_cannot_be_included_is_left_out_with_a_warning() -> None:
    outgoing = make(double=Double(without=[Feature.USAGE]), include={"usage", "references"})

    assert {"references"} == outgoing.options.include
    assert ("double cannot honour include=usage, which was left out",) == outgoing.warnings


def test_what_does_not_exist_cannot_be_included() -> None:
    with pytest.raises(UsageError, match=r"'tea' cannot be included .*references, usage"):
        make(include="tea")


# ------------------------------------------------------------------------------------------- strict


@pytest.mark.parametrize(
    ("double", "options", "named"),
    [
        (
            Double(options=["seed"]),
            {"temperature": 0.5},
            "the option temperature; instead: these options: seed",
        ),
        (Double(options=()), {"seed": 1}, "the option seed; instead: these options: none"),
        (Double(options=()), {"seed": 1, "top_p": 1.0}, "the options seed and top_p"),
        (Double(without=[Feature.USAGE]), {"include": "usage"}, "the option include=usage"),
    ],
)
async def test_strictly_it_is_an_error_before_anything_is_sent(
    double: Double, options: dict[str, Any], named: str
) -> None:
    bridge = Bridge(double, options=CommonOptions(strict=True))
    chat = await bridge.create()

    with pytest.raises(UnsupportedFeature, match=f"double does not support {named}"):
        await chat.send("Hi", **options)
    with pytest.raises(UnsupportedFeature, match=f"double does not support {named}"):
        chat.stream("Hi", **options)
    assert [] == double.sent


def test_strictly_what_can_be_honoured_passes() -> None:
    assert 0.5 == make(settings=CommonOptions(strict=True), temperature=0.5).options.temperature


# -------------------------------------------------------------------------------------- in the reply


async def test_the_reply_says_what_was_left_out_and_the_backend_never_sees_it() -> None:
    double = Double(options=["seed"])
    double.reply = Reply((Message.assistant("Hello"),), warnings=("its own",))
    chat = await Bridge(double).create()

    reply = await chat.send("Hi", SendOptions(seed=1), temperature=0.5)

    assert ("double cannot honour temperature, which was left out", "its own") == reply.warnings
    ((_, _, seen),) = double.sent
    assert SendOptions(seed=1) == seen


async def test_the_same_over_a_config_string() -> None:
    async with connect("fake:?include=references&strict=true") as bridge:
        chat = await bridge.create()
        replies = await asyncio.gather(chat.send("one"), chat.send("two", include="usage"))

    assert [1, 1] == [len(reply.message.references) for reply in replies]


@pytest.mark.parametrize("message", [None, b"Hi", 3])
async def test_what_is_no_message_is_refused(message: Any) -> None:
    async with connect("fake:") as bridge:
        chat = await bridge.create()
        with pytest.raises(UsageError, match="a message is a str or a Message, not"):
            await chat.send(message)


def test_what_is_no_config_string_is_refused() -> None:
    with pytest.raises(ConfigError, match="connect takes a config string, a BackendURL or None, not int"):
        connect(123)  # type: ignore[arg-type]


def test_with_strict_an_include_that_can_never_be_is_refused_at_once() -> None:
    with pytest.raises(BadOption, match="kaziro: option 'include' = 'references' cannot be honoured"):
        connect("kaziro:?include=references&strict=true", key="k")


LOOP: dict[str, Any] = {}
LOOP["again"] = LOOP


def nested(levels: int) -> list[Any]:
    return functools.reduce(lambda inner, _: [inner], range(levels), [])


def call(**arguments: Any) -> ToolCall:
    return ToolCall("1", "f", arguments)


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (5, r"a message is made of texts and parts \(Text, .*Opaque\), not of int"),
        (None, "not of None"),
        (Text(cast(str, 5)), "Text.text takes a text, not int"),
        (Attachment("image/png", cast(bytes, "x")), "Attachment.data takes bytes, not str"),
        (ToolResult("1", cast(str, {"a": 1})), "ToolResult.content takes a text, not dict: json.dumps makes"),
        (ToolResult("1", cast(str, None)), "ToolResult.content takes a text, not None"),
        (ToolResult(cast(str, None), "x"), "ToolResult.call_id takes a text, not None$"),
        (Reasoning("x", cast(str, 1)), "Reasoning.signature takes a text, not int"),
        (Opaque("a", cast(str, None), {}), "Opaque.kind takes a text, not None"),
        (call(on=date(2026, 4, 1)), r"ToolCall.arguments cannot be written as JSON: \$.on: is of type date"),
        (call(x=MappingProxyType({})), r"\$.x: is of type mappingproxy, which JSON does not have"),
        (call(x=math.nan), r"\$.x: is not a finite number"),
        (call(x={(1,): 2}), r"\$.x: has a key that is of type tuple"),
        (call(x="\ud800"), r"\$.x: holds half of a surrogate pair"),
        (call(x=10**5000), r"\$.x: has too many digits"),
        (call(x=nested(100)), "is nested too deep, or holds itself"),
        (call(**LOOP), "ToolCall.arguments .* is nested too deep, or holds itself"),
        (Opaque("a", "b", LOOP), "Opaque.data .* is nested too deep, or holds itself"),
        (call(x=[{1: 2}]), r"\$.x\[0\]: has a key that is of type int, and is no text"),
        (Opaque("a", "b", {1: "a"}), r"Opaque.data cannot be written as JSON: \$: has a key .* int"),
        (Opaque("a", "b", {1}), r"Opaque.data cannot be written as JSON: \$: is of type set"),
    ],
)
@pytest.mark.parametrize("backend", ["fake:", "fake:?keeps=nothing"])
async def test_parts_of_a_wrong_type_are_refused_before_anything_is_done(
    backend: str, part: Any, problem: str
) -> None:
    async with connect(backend) as bridge:
        chat = await bridge.create()
        with pytest.raises(UsageError, match=problem):
            await chat.send(Message.user([part]))
        with pytest.raises(UsageError, match=problem):
            await bridge.create(history=[Message.user([part])])
        assert await chat.turns() == ()


ODD: list[Any] = [LOOP, nested(3_000), {"when": date(2026, 4, 1)}]


@pytest.mark.parametrize("kind", [AnthropicEmulator, OpenAIEmulator])
@pytest.mark.parametrize(
    "options",
    [
        *({"response_format": {"type": "array", "items": odd}} for odd in ODD),
        *({"response_format": {"type": "object", "properties": {}, "title": odd}} for odd in ODD),
        *({"tools": [{"name": "f", "parameters": {"properties": odd}}]} for odd in ODD),
        *({"extra": {"metadata": odd}} for odd in ODD),
    ],
)
async def test_options_that_are_no_json_are_refused(kind: type[Emulator], options: Any) -> None:
    emulator = kind()
    async with serve(emulator) as served, connect(served.config, key=emulator.key, model="m") as bridge:
        chat = await bridge.create()
        with pytest.raises(UsageError, match=r"cannot be written as JSON: \$"):
            await chat.send("Hi", **options)
        assert () == await chat.turns()


@pytest.mark.parametrize("odd", ODD)
async def test_anthropics_own_object_refuses_a_form_that_is_no_json_before_it_is_walked(odd: Any) -> None:
    emulator = AnthropicEmulator()
    async with serve(emulator) as served, connect(served.config, key=emulator.key) as bridge:
        api = bridge.api
        assert isinstance(api, AnthropicBackend)
        with pytest.raises(BadOption, match="cannot be written as JSON"):
            await api.complete([Message.user("Hi")], SendOptions(response_format={"items": odd}))
    assert not emulator.calls


async def test_options_may_have_numbers_for_keys_as_json_makes_texts_of_them() -> None:
    emulator = OpenAIEmulator()
    async with serve(emulator) as served, connect(served.config, key=emulator.key) as bridge:
        await (await bridge.create()).send("Hi", extra={"logit_bias": {50256: -100}})
    assert {"50256": -100} == json.loads(emulator.calls[-1].body)["logit_bias"]

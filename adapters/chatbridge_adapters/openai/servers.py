"""
What servers of chat completions do differently, as data, and answers written as they write them.

Sources: openai 3.52.0 (Python), ollama (openai/openai.go at 00988753), vLLM (entrypoints/openai/engine/
protocol.py at 040a2cc2, and pull request 25054), llama.cpp (tools/server/server-common.cpp at 006639c3),
LM Studio's bug tracker (issues 618, 670, 1620, 2256 and 2339). The quirks that no server here has are those
of older versions, and of what stands in front of servers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from attrs import frozen

from chatbridge.testing.responder import pieces
from chatbridge_adapters.openai.requests import Check, text_of

__all__ = ["SERVERS", "Error", "Given", "Json", "Mode", "Quirk", "Server", "chunks", "event", "whole"]

Json = dict[str, object]
Mode = Literal["openai", "ollama", "vllm", "llamacpp", "lmstudio"]

Quirk = Literal[
    "always_stream",
    "comments",
    "content_parts",
    "detail_errors",
    "named_errors",
    "no_done",
    "no_ids",
    "no_indexes",
    "no_usage",
    "null_finish_reason",
    "null_usage",
    "roles",
    "text_errors",
    "timings",
    "usage_with_choice",
    "whole_calls",
]
"""What a server does differently; `OpenAIEmulator` says what each is."""


@frozen(kw_only=True)
class Error:
    """What is wrong, before a server has words for it."""

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None


def _in_full(error: Error) -> Json:
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def _without_code(error: Error) -> Json:
    types = {400: "invalid_request_error", 404: "not_found_error"}
    kind = types.get(error.status, "api_error")
    return {"error": {"message": error.message, "type": kind, "param": None, "code": None}}


def _with_class(error: Error) -> Json:
    types = {400: "BadRequestError", 404: "NotFoundError"}
    if error.status == 401:  # noqa: PLR2004 - its authentication answers by itself
        return {"error": "Unauthorized"}
    kind = types.get(error.status, "InternalServerError")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.status}}


def _with_status(error: Error) -> Json:
    types = {401: "authentication_error", 404: "not_found_error", 503: "unavailable_error"}
    kind = types.get(error.status, error.type)
    return {"error": {"code": error.status, "message": error.message, "type": kind}}


def _as_text(error: Error) -> Json:
    return {"error": error.message}


@frozen(kw_only=True)
class Server:
    """
    A kind of server.

    Attributes:
        form: Writes an error.
        keyed: Whether it asks for a key.
        checks: What it refuses beside fields that are not of their form.
        ignores: Fields that do nothing.
        models: Whether it minds which model is named.
        named: Why an answer ends that calls a tool that had to be called by its name.
        thoughts: The field that reasoning comes in; None where none is shown.
        too_long: What it says of a history that does not fit, given its tokens and those that do; None where
            it cuts the history without a word.
        owner: Who owns its models.
    """

    form: Callable[[Error], Json]
    keyed: bool = True
    checks: frozenset[Check] = frozenset()
    ignores: frozenset[str] = frozenset()
    models: bool = True
    named: str = "tool_calls"
    thoughts: str | None = None
    too_long: str | None = None
    owner: str
    quirks: frozenset[Quirk] = frozenset()


SERVERS: Mapping[Mode, Server] = {
    "openai": Server(
        form=_in_full,
        checks=frozenset({"calls", "known", "no_tools", "pairs"}),
        named="stop",
        too_long="This model's maximum context length is {fits} tokens. However, your messages resulted in "
        "{read} tokens. Please reduce the length of the messages.",
        owner="openai",
        quirks=frozenset({"null_usage"}),
    ),
    "ollama": Server(
        form=_without_code,
        keyed=False,
        ignores=frozenset({"max_completion_tokens", "n", "tool_choice"}),
        thoughts="reasoning",
        owner="library",
        quirks=frozenset({"roles", "whole_calls"}),
    ),
    "vllm": Server(
        form=_with_class,
        checks=frozenset({"pairs"}),
        named="stop",
        thoughts="reasoning",
        too_long="You passed {read} input tokens and requested 0 output tokens. However, the model's context "
        "length is only {fits} tokens, resulting in a maximum input length of {fits} tokens. Please reduce "
        "the length of the input prompt. (parameter=input_tokens, value={read})",
        owner="vllm",
    ),
    "llamacpp": Server(
        form=_with_status,
        models=False,
        thoughts="reasoning_content",
        too_long="request ({read} tokens) exceeds the available context size ({fits} tokens), "
        "try increasing it",
        owner="llamacpp",
        quirks=frozenset({"comments", "timings"}),
    ),
    "lmstudio": Server(
        form=_as_text,
        checks=frozenset({"named_tool"}),
        ignores=frozenset({"logprobs", "n", "top_logprobs"}),
        keyed=False,
        models=False,
        thoughts="reasoning_content",
        too_long="Trying to keep the first {read} tokens when context the overflows. However, the model is "
        "loaded with context length of only {fits} tokens, which is not enough. Try to load the model with a "
        "larger context length, or provide a shorter input",
        owner="organization_owner",
    ),
}


@frozen(kw_only=True)
class Given:
    """
    What answers: a text, a refusal or calls of tools, with what was thought before.

    Attributes:
        calls: Each the id, the name and the arguments as JSON.
        thought: Reasoning, and the field that it comes in.
        choices: How many times it is answered.
        logprobs: How many likely tokens are told for each; None where no likelihoods are.
    """

    text: str = ""
    reason: str
    refusal: str = ""
    calls: Sequence[tuple[str, str, str]] = ()
    thought: tuple[str, str] | None = None
    choices: int = 1
    logprobs: int | None = None
    usage: Json

    def message(self, quirks: frozenset[Quirk]) -> Json:
        """Show it as a message."""
        text: object = self.text or None
        if "content_parts" in quirks and self.text:
            text = [{"type": "text", "text": self.text}]
        shown: Json = {"role": "assistant", "content": text, "refusal": self.refusal or None}
        if self.thought is not None:
            shown[self.thought[0]] = self.thought[1]
        if self.calls:
            shown["tool_calls"] = [self._call(n, quirks) for n in range(len(self.calls))]
        return shown

    def deltas(self, quirks: frozenset[Quirk]) -> Iterator[Json]:
        """Show it piece by piece, reasoning first."""
        yield {"role": "assistant", "content": ""}
        if self.thought is not None:
            name, thought = self.thought
            for piece in pieces(thought):
                yield {name: piece}
        for piece in pieces(self.text):
            yield {"content": [{"type": "text", "text": piece}] if "content_parts" in quirks else piece}
        for piece in pieces(self.refusal):
            yield {"refusal": piece}
        for n in range(len(self.calls)):
            yield from self._pieces_of_call(n, quirks)

    def _pieces_of_call(self, n: int, quirks: frozenset[Quirk]) -> Iterator[Json]:
        number: Json = {} if "no_indexes" in quirks else {"index": n}
        if "whole_calls" in quirks:
            yield {"tool_calls": [number | self._call(n, quirks)]}
            return
        yield {"tool_calls": [number | self._call(n, quirks, arguments="")]}
        for piece in pieces(self.calls[n][2]):
            yield {"tool_calls": [number | {"function": {"arguments": piece}}]}

    def _call(self, n: int, quirks: frozenset[Quirk], *, arguments: str | None = None) -> Json:
        call_id, name, given = self.calls[n]
        function = {"name": name, "arguments": given if arguments is None else arguments}
        named: Json = {} if "no_ids" in quirks else {"id": call_id}
        return {**named, "type": "function", "function": function}


def event(value: object, name: str | None = None) -> bytes:
    """Write an event."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def whole(head: Json, given: Given, quirks: frozenset[Quirk]) -> Json:
    """Show a whole answer."""
    message = given.message(quirks)
    choices = [
        {
            "index": index,
            "message": message,
            "logprobs": _logprobs(message, given.logprobs),
            "finish_reason": _reason(given, quirks),
        }
        for index in range(given.choices)
    ]
    return {**head, "object": "chat.completion", "choices": choices, **_usage(given, quirks)}


def chunks(head: Json, given: Given, quirks: frozenset[Quirk], *, usage: bool) -> Iterator[bytes]:
    """Stream an answer, with its *usage* if that was asked for."""
    head = {**head, "object": "chat.completion.chunk"}
    nothing: Json = {"usage": None} if usage and "null_usage" in quirks else {}

    def chunk(index: int, delta: Json, reason: str | None = None, **beside: object) -> bytes:
        if "roles" in quirks:
            delta = {"role": "assistant", "content": "", **delta}
        logprobs = _logprobs(delta, given.logprobs)
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return event({**head, "choices": [choice], **nothing, **beside})

    with_choice = _usage(given, quirks) if "usage_with_choice" in quirks else {}
    for index in range(given.choices):
        for delta in given.deltas(quirks):
            yield chunk(index, delta)
            if "comments" in quirks:
                yield b": \n\n"
        last = index == given.choices - 1
        yield chunk(index, {}, _reason(given, quirks), **(with_choice if last else {}))
    if usage and not with_choice and (counts := _usage(given, quirks)):
        yield event({**head, "choices": [], **counts})
    if "no_done" not in quirks:
        yield b"data: [DONE]\n\n"


def _logprobs(message: Json, most: int | None) -> Json | None:
    """Tell how likely each token of *message* or of a piece was, and the *most* likely ones in its place."""
    texts = {name: text_of(message.get(name)) for name in ("content", "refusal")}
    if most is None or not any(texts.values()):
        return None
    return {
        name: [_likelihood(token, most) for token in pieces(text)] or None for name, text in texts.items()
    }


def _likelihood(token: str, most: int) -> Json:
    likely = [
        {"token": each, "logprob": -0.25 - rank, "bytes": list(each.encode())}
        for rank, each in enumerate(f"{token}{'~' * rank}" for rank in range(max(most, 1)))
    ]
    return {**likely[0], "top_logprobs": likely[:most]}


def _reason(given: Given, quirks: frozenset[Quirk]) -> str | None:
    return None if "null_finish_reason" in quirks else given.reason


def _usage(given: Given, quirks: frozenset[Quirk]) -> Json:
    if "no_usage" in quirks:
        return {}
    timings: Json = {"timings": {"prompt_n": given.usage["prompt_tokens"]}} if "timings" in quirks else {}
    return {"usage": given.usage, **timings}

"""Chat completions: each call carries the whole history, and the server keeps nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, cast

from attrs import evolve, frozen
from yarl import URL

from chatbridge.backend import ContextOwner, Feature, Profile, Stores, Support, check_extra, check_tools
from chatbridge.domain import Finished, Message, Reply, Role, SendOptions, Started, StreamEvent
from chatbridge.errors import BadOption, MissingSecret, StreamCut
from chatbridge.events import reply_of
from chatbridge.http import DONE, Api, ApiError, Chunk, EventStream, Transport, Warn, bearer, warn_aside
from chatbridge.options import CommonOptions, option
from chatbridge.secret import Secret
from chatbridge_adapters.openai import wire
from chatbridge_adapters.openai.fold import HINT, AnswerFold
from chatbridge_adapters.openai.messages import History, to_response_format, to_tool_choice, to_tools
from chatbridge_adapters.openai.wire import NAME, Model


@frozen(kw_only=True)
class OpenAIOptions(CommonOptions):
    """What OpenAI, or a compatible server, can be told."""

    key: Secret | None = option("The API key; servers of one's own may need none.", default=None)
    model: str | None = option("The model; a server that has only one may need none.", default=None)
    organization: str | None = option("Id of the organization that pays.", default=None)
    project: str | None = option("Id of the project that pays.", default=None)
    limit_field: Literal["max_tokens", "max_completion_tokens"] | None = option(
        "The field for the most tokens of an answer: OpenAI's new models take max_completion_tokens only, "
        "many other servers max_tokens only. By default the host decides.",
        default=None,
    )
    stream_usage: bool = option(
        "Whether streams are asked for usage; there are servers that refuse the question.", default=True
    )
    reasoning: bool = option(
        "Whether reasoning is given back with the history: some models need it, others refuse it.",
        default=False,
    )


_NATIVE = (
    Feature.SYSTEM,
    Feature.SEND,
    Feature.STREAM,
    Feature.ATTACHMENTS,
    Feature.TOOLS,
    Feature.USAGE,
    Feature.REASONING,
)

PROFILE = Profile(
    NAME,
    dict.fromkeys(_NATIVE, Support.NATIVE),
    options={
        "model",
        "system",
        "temperature",
        "top_p",
        "max_output_tokens",
        "stop",
        "seed",
        "tools",
        "tool_choice",
        "response_format",
    },
    context=ContextOwner.CLIENT,
    stores=Stores.NEVER,
    instead={Feature.REFERENCES: "annotations, in the `extra` of an answer's message"},
    notes=(
        "Which options, attachments and tools are taken depends on the model and on the server.",
        "Reasoning is given back only with reasoning=true; OpenAI itself shows none here.",
        "Results of tools have no mark of failure: say it in their content.",
        "A response_format is a JSON Schema, or the API's own form.",
    ),
)

EXTRA_TO_SEND = (
    "audio",
    "extra_body",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "metadata",
    "modalities",
    "moderation",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "top_logprobs",
    "user",
    "verbosity",
    "web_search_options",
)
_OPENAI = (
    "openai.com",
    "openai.azure.com",
    "services.ai.azure.com",
    "cognitiveservices.azure.com",
)

CUT_LATE = "the connection broke off, or nothing more came, after the end of the answer had been told"
MAY_BE_CUT = "the answer went on after its end had been told, and no end mark came, so it may not be whole"


def profile(_: OpenAIOptions | None = None) -> Profile:
    """Tell what chat completions can do, whatever the options."""
    return PROFILE


class OpenAIBackend:
    """
    Asks for chat completions. Beside the protocol it lists the models.

    Attributes:
        limit_field: The field of a request that says how many tokens the answer may have.
    """

    def __init__(self, options: OpenAIOptions, transport: Transport) -> None:
        host = URL(transport.base_url).host or ""
        at_openai = any(f".{host}".endswith(f".{domain}") for domain in _OPENAI)
        if options.key is None and at_openai:
            raise MissingSecret(backend=NAME, option="key", looked_in=("OPENAI_API_KEY",))
        self.options = options
        self.limit_field = options.limit_field or ("max_completion_tokens" if at_openai else "max_tokens")
        self._host = host
        self._at_openai = at_openai
        headers: dict[str, str | Secret | None] = {
            "Authorization": None if options.key is None else bearer(options.key),
            "OpenAI-Organization": options.organization,
            "OpenAI-Project": options.project,
        }
        given = {name: value for name, value in headers.items() if value is not None}
        self._api = Api(transport, NAME, headers=given, read_error=wire.read_error)

    @property
    def profile(self) -> Profile:
        """What chat completions can do."""
        return PROFILE

    async def complete(self, messages: Sequence[Message], options: SendOptions) -> Reply:
        """Answer the last of *messages*; `extra` may hold fields of `EXTRA_TO_SEND`."""
        return await reply_of(self._answer(messages, options, streamed=False))

    def stream(self, messages: Sequence[Message], options: SendOptions) -> AsyncGenerator[StreamEvent, None]:
        """Yield the answer as it arrives."""
        return self._answer(messages, options, streamed=True)

    async def list_models(self) -> tuple[Model, ...]:
        """
        Read which models the server has.

        Raises:
            BadAnswer: What came is no list of models.
            ChatbridgeError: Any other; see `chatbridge.errors`.
        """
        models = wire.read_models(await self._api.call(wire.LIST_MODELS), warn_aside)
        if isinstance(models, ApiError):
            raise self._api.failed(
                wire.LIST_MODELS, models.message or "what came is no list of models", models.code
            )
        return models

    async def close(self) -> None:
        """Do nothing: there is nothing that the backend itself made."""

    async def _answer(
        self, messages: Sequence[Message], options: SendOptions, *, streamed: bool
    ) -> AsyncGenerator[StreamEvent, None]:
        history = History(self.options.reasoning, self._host, strict=self._at_openai)
        request = self._request(history, messages, options, streamed=streamed)
        fold, begun, late = AnswerFold(host=self._host), False, list[str]()
        chunks = self._api.stream(wire.COMPLETE, request)
        try:
            async with chunks, aclosing(_read(chunks, fold, late.append)) as added:
                async for events in added:
                    if not begun:
                        begun = True
                        yield Started(model=fold.model)
                    for event in events:
                        yield event
        except StreamCut as error:
            if error.kind == "empty":
                error.add_note(HINT)
            if not fold.has_ended:
                raise
            late.append(CUT_LATE)
        if not begun:
            yield Started()
        for event in fold.finish(cut=MAY_BE_CUT in late):
            yield event
        yield Finished(_finished(fold.reply(), options, [*history.warnings, *chunks.warnings, *late]))

    def _request(
        self, history: History, messages: Sequence[Message], options: SendOptions, *, streamed: bool
    ) -> dict[str, Any]:
        extra = dict(options.extra)
        check_extra(extra, EXTRA_TO_SEND, PROFILE)
        check_tools(options.tools, PROFILE)
        body = extra.pop("extra_body", None)
        model = options.model or self.options.model
        if model is None and self._at_openai:
            raise BadOption(
                backend=NAME,
                option="model",
                problem=f"is required: name one as in {NAME}:MODEL or ?model=MODEL, or with the message",
            )
        if options.system:
            history.add(Message(Role.SYSTEM, options.system))
        for message in messages:
            history.add(message)
        choice, form = options.tool_choice, options.response_format
        given: dict[str, Any] = {
            "model": model,
            "temperature": options.temperature,
            "top_p": options.top_p,
            self.limit_field: options.max_output_tokens,
            "stop": list(options.stop) or None,
            "seed": options.seed,
            "tools": to_tools(options.tools) or None,
            "tool_choice": None if choice is None else to_tool_choice(choice, options.tools),
            "response_format": None if form is None else to_response_format(form),
            "stream": streamed or None,
            "stream_options": {"include_usage": True} if streamed and self.options.stream_usage else None,
            **extra,
        }
        request = {name: value for name, value in given.items() if value is not None}
        request["messages"] = history.messages()
        return request if body is None else _with(request, body)


async def _read(
    chunks: EventStream[Chunk], fold: AnswerFold, warn: Warn
) -> AsyncGenerator[Sequence[StreamEvent], None]:
    """Give what each chunk adds to an answer, up to its end."""
    begun = False
    async for chunk in chunks:
        if chunk.object == DONE:
            return
        good, events = wire.is_good(chunk, whole=chunks.whole), fold.take(chunk, whole=chunks.whole)
        begun = begun or bool(events)
        if good or events:
            yield events
        if not good:
            raise chunks.failed(
                *wire.read_failure(chunk, whole=chunks.whole), passing=() if begun else wire.passing(chunk)
            )
    if chunks.whole or fold.has_ended:
        return
    if not fold.has_reason:
        raise chunks.cut("it ended with neither an end mark nor a reason for its end")
    warn(MAY_BE_CUT)


def _with(request: dict[str, Any], body: object) -> dict[str, Any]:
    """Add the fields that only some servers know."""
    if not isinstance(body, Mapping):
        raise BadOption(backend=NAME, option="extra_body", problem="in extra takes a mapping")
    fields = cast(Mapping[str, Any], body)
    for name in fields:
        if name == "n":
            raise BadOption(
                backend=NAME, option="extra_body", problem="holds 'n', and only one answer would be read"
            )
        if name in request or name == "stream":
            raise BadOption(
                backend=NAME, option="extra_body", problem=f"holds {name!r}, which has an option of its own"
            )
    return request | dict(fields)


def _finished(reply: Reply, options: SendOptions, warnings: Sequence[str]) -> Reply:
    """Add *warnings* to a reply, and one if usage was asked for and not told."""
    if "usage" in options.include and reply.usage is None:
        warnings = [*warnings, "the server told no usage that can be read"]
    every = dict.fromkeys((*warnings, *reply.warnings))
    return evolve(reply, warnings=tuple(every)) if every else reply

"""
Anthropic's Messages API, which keeps nothing: each call carries the whole history.

A turn in which tools run on the server may be paused; the documentation ("Stop reasons and fallback") says to
give the answer back as it came, and the model goes on. The user has nothing to say then, and there is no
message by which a program could mean it, so it is done here, within `complete` and `stream`, up to
`continuations` times, and what comes is one answer. One that is paused once more ends with the reason
`other`, and `pause_turn` in the API's own word, and with a warning; so does one whose later runs fail, as
what came until then is paid for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from attrs import evolve, frozen, validators

from chatbridge.backend import ContextOwner, Feature, Profile, Stores, Support
from chatbridge.domain import Finished, Message, Reply, SendOptions, Started, StreamEvent
from chatbridge.errors import ChatbridgeError
from chatbridge.events import reply_of
from chatbridge.http import Api, EventStream, Transport, warn_aside
from chatbridge.options import CommonOptions, option
from chatbridge.secret import Secret
from chatbridge_adapters.anthropic import wire
from chatbridge_adapters.anthropic.fold import AnswerFold
from chatbridge_adapters.anthropic.request import goes_on, to_request
from chatbridge_adapters.anthropic.wire import NAME, Model

PAGE = 1000
EMPTY = "the answer is empty"


@frozen(kw_only=True)
class AnthropicOptions(CommonOptions):
    """What Anthropic's API can be told."""

    key: Secret = option("The API key, made in the Claude Console.")
    model: str | None = option("The model, unless a message names another.", default=None)
    max_tokens: int = option(
        "How many tokens an answer may have, unless a message says so: the API wants to know.",
        default=8192,
        validator=validators.ge(1),
    )
    continuations: int = option(
        "How often an answer goes on that the server paused.", default=5, validator=validators.ge(0)
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
        "tools",
        "tool_choice",
        "response_format",
    },
    context=ContextOwner.CLIENT,
    stores=Stores.NEVER,
    instead={Feature.REFERENCES: "the citations of the API, in the `extra` of an answer's message"},
    notes=(
        "A model must be named, with the backend or with each message.",
        "Models from Claude Opus 4.7 on refuse temperature and top_p.",
        "Thinking is asked for by `thinking` in extra; thoughts that another server signed are not sent.",
        "An answer that the server paused goes on by itself, up to `continuations` times.",
    ),
)


def profile(_: AnthropicOptions | None = None) -> Profile:
    """Tell what Anthropic's API can do, whatever the options."""
    return PROFILE


class AnthropicBackend:
    """Completes conversations by the Messages API. Beside the protocol it lists the models."""

    def __init__(self, options: AnthropicOptions, transport: Transport) -> None:
        self.options = options
        self._host = transport.base_url.partition("://")[2]
        self._api = Api(
            transport,
            NAME,
            headers={"x-api-key": options.key, "anthropic-version": wire.VERSION},
            read_error=wire.read_error,
        )

    @property
    def profile(self) -> Profile:
        """What Anthropic's API can do."""
        return PROFILE

    async def complete(self, messages: Sequence[Message], options: SendOptions) -> Reply:
        """
        Answer the last of *messages*; `extra` may hold the request's fields in `EXTRA_TO_SEND`.

        Raises:
            UsageError: No model is named, or what is to be answered cannot be sent.
            ChatbridgeError: Any other; see `chatbridge.errors`.
        """
        return await reply_of(self._answer(messages, options, streamed=False))

    def stream(self, messages: Sequence[Message], options: SendOptions) -> AsyncGenerator[StreamEvent, None]:
        """Yield the answer to the last of *messages* as it arrives; the rest is as in `complete`."""
        return self._answer(messages, options, streamed=True)

    async def list_models(self) -> tuple[Model, ...]:
        """Read which models there are, newest first."""
        models: dict[str, Model] = {}
        after: str | None = None
        while True:
            page = await self._api.call(wire.LIST_MODELS, query={"limit": PAGE, "after_id": after})
            fresh = {model.id: model for model in page.data if model.id not in models}
            models |= fresh
            if not page.has_more or page.last_id is None:
                break
            if not fresh:
                warn_aside("the server gives the same models on another page, so the list may not be whole")
                break
            after = page.last_id
        return tuple(models.values())

    async def close(self) -> None:
        """Do nothing: there is nothing that the backend made itself."""

    async def _answer(
        self, messages: Sequence[Message], options: SendOptions, *, streamed: bool
    ) -> AsyncGenerator[StreamEvent, None]:
        own = self.options
        body, warnings = to_request(
            messages, options, PROFILE, model=own.model, max_tokens=own.max_tokens, host=self._host
        )
        if streamed:
            body["stream"] = True
        fold, request, begun = AnswerFold(warnings, self._host), body, False
        for run in range(own.continuations + 1):
            try:
                async with self._api.stream(wire.CREATE, request) as events:
                    if run:
                        fold.go_on()
                    async for event in events:
                        _check(event, events, begun=begun)
                        for told in fold.take_whole(event.raw) if events.whole else fold.take(event):
                            begun = begun or not isinstance(told, Started)
                            yield told
                    warnings += events.warnings
            except ChatbridgeError as error:
                if run == 0:
                    raise
                warnings.append(f"the server paused the answer, and it could not go on: {error}")
                for told in fold.break_off():
                    yield told
                break
            if not fold.is_paused:
                break
            request = goes_on(body, fold.paused, fold.container)
        else:
            warnings.append(
                f"the server paused the answer, which is not whole: it goes on by itself {own.continuations} "
                "times at most, as the option continuations says"
            )
        yield Finished(_finished(fold.reply(), options))


def _check(event: wire.Event, events: EventStream[wire.Event], *, begun: bool) -> None:
    """Raise the server's error if *event* is one, or the whole of what came and no answer."""
    if event.is_error or (events.whole and event.content is None):
        raise events.failed(*wire.read_failure(event.raw), passing=() if begun else wire.PASSING)


def _finished(reply: Reply, options: SendOptions) -> Reply:
    """Add a warning if nothing was said and no reason was told, and if usage was asked for and not told."""
    warnings = [*reply.warnings]
    if reply.raw_finish_reason == "end_turn" and not reply.message.parts:
        warnings.append(EMPTY)
    if "usage" in options.include and reply.usage is None:
        warnings.append("the server told no usage that can be read")
    return evolve(reply, warnings=warnings)

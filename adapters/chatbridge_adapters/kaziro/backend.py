"""Kaziro's broker, an assistant for prediction markets that is talked to in threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from chatbridge.backend import (
    ContextOwner,
    Feature,
    PartialBackend,
    Profile,
    Stores,
    Support,
    check_extra,
    text_to_send,
)
from chatbridge.domain import Conversation, Message, Reply, SendOptions
from chatbridge.http import Api, Transport
from chatbridge.options import CommonOptions, option
from chatbridge.secret import Secret
from chatbridge_adapters.kaziro import wire

NAME = "kaziro"


@frozen(kw_only=True)
class KaziroOptions(CommonOptions):
    """What Kaziro can be told."""

    key: Secret = option("The API key.")
    model: str = option("The model; no other value is documented.", default="kaziro-broker")


_NOT_KEPT = "keep what you send and what is answered yourself"

PROFILE = Profile(
    NAME,
    dict.fromkeys((Feature.CREATE, Feature.GET, Feature.SEND, Feature.USAGE), Support.NATIVE),
    options={"model"},
    context=ContextOwner.SERVER,
    stores=Stores.UNDOCUMENTED,
    instead={
        Feature.TITLE: "keep a title beside the thread's id",
        Feature.SYSTEM: "say it in the first message",
        Feature.HISTORY_SEED: "say it in the first message",
        Feature.LIST: "keep the ids of the threads that you create",
        Feature.RENAME: "keep a title beside the thread's id",
        Feature.DELETE: "leave the thread; it stays on the server",
        Feature.HISTORY: _NOT_KEPT,
        Feature.ATTACHMENTS: "text only",
    },
    notes=(
        "Reading a thread gives its state only: status, user_id, processing_message_type, in `extra`.",
        "Whoever knows a thread's id can read that state: the API asks for no key there.",
        "Usage is passed on where the server tells it; whether it does is undocumented.",
        "A send in doubt cannot be settled: there is no history to look at.",
    ),
)

EXTRA_TO_CREATE = ()
EXTRA_TO_SEND = ("extra_headers",)


def profile(_: KaziroOptions | None = None) -> Profile:
    """Tell what Kaziro can do, whatever the options."""
    return PROFILE


class KaziroBackend(PartialBackend):
    """Chats in threads that Kaziro keeps."""

    def __init__(self, options: KaziroOptions, transport: Transport) -> None:
        self.options = options
        self._api = Api(transport, NAME, headers={"Kaziro-API-Key": options.key}, read_error=wire.read_error)

    @property
    def profile(self) -> Profile:
        """What Kaziro can do."""
        return PROFILE

    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Create a thread; it takes no parameters at all."""
        self._refuse_given(title=title, system=system, history_seed=history)
        check_extra(extra or {}, EXTRA_TO_CREATE, PROFILE)
        created = await self._api.call(wire.CREATE_THREAD)
        return wire.to_conversation(created.thread_id, created.raw)

    async def get_conversation(self, conversation_id: str) -> Conversation:
        """Read the state of a thread: what is set of it goes into `extra`."""
        state = await self._api.call(wire.GET_THREAD, query={"thread_id": conversation_id})
        return wire.to_conversation(conversation_id, state.raw)

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        """Send *message* in the thread and wait for the answer; `extra` may hold `EXTRA_TO_SEND`."""
        text = text_to_send(message, PROFILE)
        check_extra(options.extra, EXTRA_TO_SEND, PROFILE)
        request = wire.CompletionRequest(
            options.model or self.options.model,
            [wire.ChatMessage("user", text)],
            conversation_id,
            options.extra.get("extra_headers"),
        )
        warnings: list[str] = []
        answer = await self._api.call(wire.COMPLETE, request, warn=warnings.append)
        reply = wire.to_reply(answer)
        if "usage" in options.include and reply.usage is None:
            warnings.append("the server told no usage that can be read")
        return evolve(reply, warnings=(*warnings, *reply.warnings)) if warnings else reply

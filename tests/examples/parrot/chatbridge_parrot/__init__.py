"""Parrot, a chat API that was invented to show how one becomes a backend. Source: Parrot API 1.0."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from chatbridge import Conversation, Feature, Message, Profile, Reply, Role, Secret, SendOptions, Support
from chatbridge.backend import PartialBackend, check_extra, select_messages, text_to_send
from chatbridge.http import Api, ApiError, Endpoint, Id, Kind, Transport
from chatbridge.options import CommonOptions, option
from chatbridge.registry import Adapter, Defaults


@frozen
class Line:
    """What `you` or the `parrot` said; on its way there it is the text alone."""

    text: str
    by: str = "you"
    id: Id | None = None


CREATE = Endpoint("create", "POST", "/perches", Kind.CREATE, answer=str, success={201})
HEAR = Endpoint("hear", "GET", "/perches/{perch}", Kind.READ, answer=list[Line])
SAY = Endpoint("say", "POST", "/perches/{perch}", Kind.SEND, request=Line, answer=Line)
NATIVE = (Feature.CREATE, Feature.GET, Feature.HISTORY, Feature.SEND)
PROFILE = Profile("parrot", dict.fromkeys(NATIVE, Support.NATIVE), instead={Feature.DELETE: "it forgets"})


def to_message(line: Line) -> Message:
    """Say a *line* in ours."""
    return Message(Role.USER if line.by == "you" else Role.ASSISTANT, line.text, id=line.id)


def read_error(_: int, body: object) -> ApiError:
    """Read why Parrot says no, which is the whole body: a JSON text."""
    return ApiError(body if isinstance(body, str) else None)


@frozen(kw_only=True)
class ParrotOptions(CommonOptions):
    """What Parrot can be told."""

    key: Secret = option("The API key.")


class ParrotBackend(PartialBackend):
    """Talks on perches that Parrot keeps; `ChatBackend` says what each method does."""

    def __init__(self, options: ParrotOptions, transport: Transport) -> None:
        self._api = Api(transport, "parrot", headers={"Parrot-Key": options.key}, read_error=read_error)

    @property
    def profile(self) -> Profile:
        return PROFILE

    async def create_conversation(
        self, *, title: str | None = None, system: str | None = None,
        history: Sequence[Message] = (), extra: Mapping[str, Any] | None = None,
    ) -> Conversation:  # fmt: skip
        self._refuse_given(title=title, system=system, history_seed=history)
        check_extra(extra or {}, (), PROFILE)
        return Conversation(await self._api.call(CREATE))

    async def get_conversation(self, conversation_id: str) -> Conversation:
        await self._api.call(HEAR, ids={"perch": conversation_id})
        return Conversation(conversation_id)

    async def list_messages(self, conversation_id: str, **chosen: Any) -> AsyncIterator[Message]:
        lines = await self._api.call(HEAR, ids={"perch": conversation_id})
        async for message in select_messages(map(to_message, lines), **chosen):
            yield message

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        check_extra(options.extra, (), PROFILE)
        line, warnings = Line(text_to_send(message, PROFILE)), list[str]()
        answer = await self._api.call(SAY, line, ids={"perch": conversation_id}, warn=warnings.append)
        return Reply([to_message(answer)], warnings=warnings)


ADAPTER = Adapter(
    "parrot", "An invented chat API", options=ParrotOptions, profile=lambda _: PROFILE, open=ParrotBackend,
    defaults=Defaults("parrot.example.com", env={"key": ("PARROT_API_KEY",)}),
    emulator="chatbridge_parrot.emulator:ParrotEmulator",
)  # fmt: skip

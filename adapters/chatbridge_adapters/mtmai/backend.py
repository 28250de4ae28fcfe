"""Mtmai: chat sessions of a tenant, and runs of a team of agents."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal
from uuid import NAMESPACE_OID, uuid4, uuid5

from attrs import Attribute, evolve, frozen

from chatbridge.backend import (
    ContextOwner,
    Feature,
    PartialBackend,
    Profile,
    Stores,
    Support,
    by_time,
    check_extra,
    select_messages,
    text_to_send,
)
from chatbridge.domain import Conversation, Finished, Message, Reply, SendOptions, Started, StreamEvent
from chatbridge.errors import BadOption, UsageError
from chatbridge.events import reply_of
from chatbridge.http import Api, EventStream, Transport, bearer, warn_aside
from chatbridge.options import CommonOptions, option
from chatbridge.secret import Secret
from chatbridge_adapters.mtmai import wire
from chatbridge_adapters.mtmai.agents import Agents

NAME = "mtmai"

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_COOKIE = re.compile(r"[!#-+\--:<-\[\]-~]+")
_COOKIE_NAME = "hatchet="
_LONGEST_ID = 36
_SHORTEST_HIDDEN = 4


def _check_tenant(_: object, __: Attribute[str], value: str) -> None:
    if not _UUID.fullmatch(value):
        raise ValueError("is not a UUID of 36 characters, such as 707d0855-80ab-4e1f-a156-f1c4546cbf52")


@frozen(kw_only=True)
class MtmaiOptions(CommonOptions):
    """What Mtmai can be told."""

    key: Secret = option(
        "The token; with auth=basic NAME:PASSWORD, with auth=cookie the value of the cookie hatchet."
    )
    tenant: str = option("Id of the tenant, a UUID.", validator=_check_tenant, account=True)
    team: str | None = option("Id of the team that answers; without one nothing can be sent.", default=None)
    auth: Literal["bearer", "basic", "cookie"] = option("How the key is presented.", default="bearer")


_NATIVE = (
    Feature.CREATE,
    Feature.TITLE,
    Feature.GET,
    Feature.LIST,
    Feature.RENAME,
    Feature.HISTORY,
)
_BY_TEAM = (Feature.SEND, Feature.STREAM, Feature.USAGE)
_TEAM = "name a team (option team), and the message goes to a run of it"

PROFILE = Profile(
    NAME,
    dict.fromkeys(_NATIVE, Support.NATIVE),
    context=ContextOwner.NONE,
    stores=Stores.NEVER,
    instead={
        Feature.SYSTEM: "say it in the message",
        Feature.HISTORY_SEED: "say it in the message",
        Feature.DELETE: "leave the session; it stays on the server",
        Feature.ATTACHMENTS: "text only",
        Feature.TOOLS: "give the team's agents tools on the server",
    },
    notes=(
        "A history is what the API shows, in which a message that is sent does not appear.",
        "A history is read whole: `after`, `limit` and `newest_first` filter what was read.",
    ),
)
_WITHOUT_TEAM = evolve(PROFILE, instead={**PROFILE.instead, **dict.fromkeys(_BY_TEAM, _TEAM)})
_WITH_TEAM = evolve(
    PROFILE.with_features(dict.fromkeys(_BY_TEAM, Support.NATIVE)),
    notes=(
        "The team sees the message alone, and nothing of the session, which is not even looked for.",
        *PROFILE.notes,
        "Several agents may answer, each with a message of its own.",
        "The API does not say why an answer ended, so `finish_reason` is not known.",
        "A send in doubt cannot be settled: runs are not stored in the session.",
    ),
)

EXTRA_TO_SEND: Sequence[str] = ()


def profile(options: MtmaiOptions | None = None) -> Profile:
    """Tell what Mtmai can do: it answers messages only where a team is named."""
    return _WITHOUT_TEAM if options is None or options.team is None else _WITH_TEAM


class MtmaiBackend(PartialBackend):
    """Chats in sessions of a tenant; a message is answered by a run of the team, beside the session."""

    def __init__(self, options: MtmaiOptions, transport: Transport) -> None:
        self.options = options
        self._profile = profile(options)
        header, value, hidden = _CREDENTIALS[options.auth](options.key)
        self._api = Api(transport, NAME, headers={header: value}, read_error=wire.read_error)
        for secret in hidden:
            self._api.redactor.add(secret)

    @property
    def profile(self) -> Profile:
        """What Mtmai can do, with a team or without."""
        return self._profile

    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Create a session; without a title the server names it."""
        self._refuse_given(system=system, history_seed=history)
        check_extra(extra or {}, (), self._profile)
        warnings: list[str] = []
        session = await self._api.call(
            wire.CREATE_SESSION,
            wire.ChatSessionUpdate(title or None),
            ids=self._ids(),
            warn=warnings.append,
        )
        return _to_conversation(session, session.metadata.id, warnings)

    async def get_conversation(self, conversation_id: str) -> Conversation:
        """Read a session."""
        warnings: list[str] = []
        session = await self._api.call(
            wire.GET_SESSION, ids=self._ids(chat=conversation_id), warn=warnings.append
        )
        return _to_conversation(session, conversation_id, warnings)

    async def list_conversations(self) -> AsyncIterator[Conversation]:
        """Yield all sessions of the tenant; one without an id is left out, with an `AnswerWarning`."""
        listed = await self._api.call(wire.LIST_SESSIONS, ids=self._ids())
        for session in listed.rows or ():
            if session.metadata is None or not session.metadata.id:
                warn_aside(f"{NAME} chat_list: a session without an id was left out")
            else:
                yield wire.to_conversation(session, session.metadata.id)

    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        """Give a session another name."""
        warnings: list[str] = []
        session = await self._api.call(
            wire.RENAME_SESSION,
            wire.ChatSessionUpdate(title),
            ids=self._ids(chat=conversation_id),
            warn=warnings.append,
        )
        return _to_conversation(session, conversation_id, warnings)

    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        """Yield what the session holds, oldest first; the API gives it all at once."""
        history = await self._api.call(wire.LIST_MESSAGES, ids=self._ids(chatId=conversation_id))
        messages = by_time(map(wire.to_message, history.messages or ()))
        async for message in select_messages(messages, after=after, limit=limit, newest_first=newest_first):
            yield message

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        """Have the team answer *message*, and wait until all of its agents have spoken."""
        self._check_team(Feature.SEND)
        return await reply_of(self.stream(conversation_id, message, options))

    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        """Have the team answer *message*, and yield what its agents say as it arrives."""
        team = self._check_team(Feature.STREAM)
        check_extra(options.extra, EXTRA_TO_SEND, self._profile)
        own_id = message.id or str(uuid4())
        if len(own_id) > _LONGEST_ID:
            own_id = str(uuid5(NAMESPACE_OID, ascii(own_id)))
        text, now = text_to_send(message, self._profile), self._api.transport.clock.wall()
        request = wire.to_run(team, conversation_id, own_id, text, now)
        warnings: list[str] = []
        run_id, pulling = await self._start(request, warnings)
        yield Started()
        agents = Agents()
        async with pulling as lines:
            async for line in lines:
                if line.error is not None:
                    raise lines.failed(line.error)
                for each in line.events:
                    for event in agents.take(each):
                        yield event
            if not agents.complete:
                raise lines.cut("the run ended before its last message was whole")
            if not agents.messages:
                raise lines.failed("the run ended without a message")
        for event in agents.end():
            yield event
        warnings += agents.warnings
        usage = agents.usage
        if "usage" in options.include and (usage is None or usage.total_tokens is None):
            warnings.append("the server did not tell the whole usage")
        extra = {"workflowRunId": run_id} | ({} if agents.ended else {"end": "unmarked"})
        yield Finished(Reply(agents.messages, usage=usage, warnings=warnings, extra=extra))

    async def _start(
        self, request: wire.AgentRunInput, warnings: list[str]
    ) -> tuple[str, EventStream[wire.Line]]:
        """Start a run; give its id, and the stream of its events, not yet opened."""
        run_id = None
        async with self._api.stream(wire.RUN, request, ids=self._ids()) as lines:
            async for line in lines:
                if line.error is not None:
                    raise lines.failed(line.error)
                run_id = line.run_id
            warnings += lines.warnings
            if run_id is None:
                raise lines.failed("the run's start tells no id")
            with suppress(UsageError):
                return run_id, self._api.stream(wire.PULL, ids=self._ids(stream=run_id))
            raise lines.failed("the run's id is none that can be asked for")

    def _check_team(self, feature: Feature) -> str:
        if self.options.team is None:
            self._refuse(feature)
        return self.options.team

    def _ids(self, **ids: str) -> dict[str, str]:
        return {"tenant": self.options.tenant, **ids}


def _to_conversation(session: wire.ChatSession, known_id: str, warnings: Sequence[str]) -> Conversation:
    told_id = session.metadata.id if session.metadata else None
    return evolve(wire.to_conversation(session, told_id or known_id), warnings=warnings)


# What is raised may be shown with the variables of each function: below, none holds a secret as text.


def _bearer(key: Secret) -> tuple[str, Secret, Sequence[Secret]]:
    """Give the header that presents *key*, its value, and what else must not show."""
    return "Authorization", bearer(key), ()


def _basic(key: Secret) -> tuple[str, Secret, Sequence[Secret]]:
    if ":" not in key.reveal():
        raise BadOption(backend=NAME, option="key", problem="is not NAME:PASSWORD, as auth=basic needs it")
    encoded = Secret(f"Basic {b64encode(key.reveal().encode()).decode()}")
    # A very short one turns up by chance, and masking it there would tell what it is.
    hidden = [key, Secret(key.reveal().partition(":")[2] or key.reveal())]
    return "Authorization", encoded, [each for each in hidden if len(each.reveal()) >= _SHORTEST_HIDDEN]


def _cookie(key: Secret) -> tuple[str, Secret, Sequence[Secret]]:
    if not _COOKIE.fullmatch(key.reveal().removeprefix(_COOKIE_NAME)):
        raise BadOption(
            backend=NAME,
            option="key",
            problem="is not the value of a cookie, which has no blank, comma, semicolon, quote or backslash",
        )
    bare = Secret(key.reveal().removeprefix(_COOKIE_NAME))
    return "Cookie", Secret(f"{_COOKIE_NAME}{bare.reveal()}"), [bare]


_CREDENTIALS = {"bearer": _bearer, "basic": _basic, "cookie": _cookie}

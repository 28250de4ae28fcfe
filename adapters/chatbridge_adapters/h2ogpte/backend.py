"""Enterprise h2oGPTe: chat sessions with a language model, over a collection of documents or without."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

from attrs import evolve, frozen, validators

from chatbridge.backend import (
    ContextOwner,
    Feature,
    PartialBackend,
    Profile,
    SettleBy,
    Stores,
    Support,
    check_extra,
    select_messages,
    text_to_send,
)
from chatbridge.domain import (
    Conversation,
    Finished,
    Message,
    Reference,
    Reply,
    Role,
    SendOptions,
    Started,
    StreamEvent,
    Usage,
)
from chatbridge.errors import BadOption, ChatbridgeError
from chatbridge.http import Api, Endpoint, TextFold, Transport, bearer, beyond, by_offset
from chatbridge.options import CommonOptions, option
from chatbridge.secret import Secret
from chatbridge_adapters.h2ogpte import wire

NAME = "h2ogpte"
ItemT = TypeVar("ItemT")
EntryT = TypeVar("EntryT", wire.ChatSession, wire.ChatMessage)


@frozen(kw_only=True)
class H2OGPTeOptions(CommonOptions):
    """What h2oGPTe can be told."""

    key: Secret = option("The API key, made in the web interface.")
    llm: str | None = option("The model, or auto.", default=None)
    collection: str | None = option("Id of the collection that new sessions answer from.", default=None)
    prompt_template: str | None = option("Id of the prompt template of new sessions.", default=None)
    include_chat_history: Literal["true", "false", "auto"] | None = option(
        "Whether the model sees the earlier turns.", default=None
    )
    timeout_delete: int | None = option(
        "Seconds that the server may take to delete a session; it takes 300 by itself.",
        default=None,
        validator=validators.optional(validators.gt(0)),
    )


_NATIVE = (
    Feature.CREATE,
    Feature.GET,
    Feature.LIST,
    Feature.RENAME,
    Feature.DELETE,
    Feature.HISTORY,
    Feature.SEND,
    Feature.STREAM,
    Feature.REFERENCES,
    Feature.USAGE,
)

PROFILE = Profile(
    NAME,
    dict.fromkeys(_NATIVE, Support.NATIVE),
    options={"model", "system", "temperature", "top_p", "max_output_tokens", "seed"},
    context=ContextOwner.SERVER,
    stores=Stores.WITH,
    settle_by={SettleBy.READ_BACK},
    instead={
        Feature.TITLE: "rename the session after its creation",
        Feature.SYSTEM: "a system prompt with each message",
        Feature.HISTORY_SEED: "say it in the first message",
        Feature.ATTACHMENTS: "a collection of documents (attach_collection)",
        Feature.TOOLS: "llm_args in extra, such as use_agent",
        Feature.REASONING: "message_meta",
    },
    notes=(
        "Usage and references are read after the answer, where `include` asks for them.",
        "A history is read from its beginning: `after` and `newest_first` filter what was read.",
        "The API does not say why an answer ended, so `finish_reason` is not known.",
    ),
)

EXTRA_TO_CREATE = ("collection_id", "prompt_template_id", "workspace")
EXTRA_TO_SEND = (
    "image_batch_final_prompt",
    "image_batch_image_prompt",
    "include_chat_history",
    "llm_args",
    "pre_prompt_query",
    "prompt_query",
    "rag_config",
    "self_reflection_config",
    "tags",
)


def profile(_: H2OGPTeOptions | None = None) -> Profile:
    """Tell what h2oGPTe can do, whatever the options."""
    return PROFILE


class H2OGPTeBackend(PartialBackend):
    """Chats in sessions that h2oGPTe keeps. Beside the protocol it has the API's own operations."""

    def __init__(self, options: H2OGPTeOptions, transport: Transport) -> None:
        self.options = options
        self._api = Api(
            transport,
            NAME,
            headers={"Authorization": bearer(options.key)},
            read_error=wire.read_error,
            can_settle=bool(PROFILE.settle_by),
        )

    @property
    def profile(self) -> Profile:
        """What h2oGPTe can do."""
        return PROFILE

    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """
        Create a session. `extra` may hold `collection_id`, `prompt_template_id` and `workspace`.

        Raises:
            ChatbridgeError: With the new session's `conversation_id`, if its prompt template was not set.
        """
        self._refuse_given(title=title, system=system, history_seed=history)
        extra = extra or {}
        check_extra(extra, EXTRA_TO_CREATE, PROFILE)
        collection = extra.get("collection_id", self.options.collection)
        template = extra.get("prompt_template_id", self.options.prompt_template)
        workspace = extra.get("workspace")
        session = await self._api.call(
            wire.CREATE_SESSION,
            None if workspace is None else wire.NewSession(workspace),
            query={"collection_id": collection},
        )
        if template is None:
            return wire.to_conversation(session)
        try:
            return await self.set_prompt_template(session.id, template)
        except ChatbridgeError as error:
            failed = error.because(conversation_id=session.id)
        raise failed

    async def get_conversation(self, conversation_id: str) -> Conversation:
        """Read a session."""
        return wire.to_conversation(await self._in_session(wire.GET_SESSION, conversation_id))

    async def list_conversations(self) -> AsyncIterator[Conversation]:
        """Yield all sessions of the user, those of all collections."""
        async for session in self._pages(wire.LIST_SESSIONS, {}):
            yield wire.to_conversation(session)

    async def count_conversations(self) -> int:
        """Count the sessions."""
        return (await self._api.call(wire.COUNT_SESSIONS)).count

    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        """Give a session another name."""
        update = wire.SessionUpdate(title)
        return wire.to_conversation(await self._in_session(wire.RENAME_SESSION, conversation_id, update))

    async def delete_conversation(self, conversation_id: str) -> None:
        """Delete a session."""
        await self._api.call(
            wire.DELETE_SESSION,
            ids={"session_id": conversation_id},
            query={"timeout": self.options.timeout_delete},
        )

    async def attach_collection(self, conversation_id: str, collection_id: str) -> Conversation:
        """Let a session answer from a collection."""
        change = wire.CollectionChange(collection_id)
        return wire.to_conversation(await self._in_session(wire.SET_COLLECTION, conversation_id, change))

    async def detach_collection(self, conversation_id: str) -> Conversation:
        """Let a session answer without a collection."""
        return wire.to_conversation(await self._in_session(wire.REMOVE_COLLECTION, conversation_id))

    async def set_prompt_template(self, conversation_id: str, prompt_template_id: str) -> Conversation:
        """Give a session a prompt template."""
        change = wire.PromptTemplateChange(prompt_template_id)
        return wire.to_conversation(await self._in_session(wire.SET_PROMPT_TEMPLATE, conversation_id, change))

    async def remove_prompt_template(self, conversation_id: str) -> Conversation:
        """Take a session's prompt template away."""
        return wire.to_conversation(await self._in_session(wire.REMOVE_PROMPT_TEMPLATE, conversation_id))

    async def suggested_questions(self, conversation_id: str, *, limit: int | None = None) -> tuple[str, ...]:
        """Read questions that the session's documents can answer, at most *limit* (by default 100)."""
        questions = await self._api.call(
            wire.LIST_QUESTIONS, ids={"session_id": conversation_id}, query={"limit": limit}
        )
        return tuple(item.question for item in questions)

    async def message_meta(
        self, message_id: str, info_type: str | None = None
    ) -> tuple[wire.MessageMeta, ...]:
        """Read what the server knows of a message; *info_type* chooses, such as `usage_stats`."""
        entries = await self._api.call(
            wire.GET_META, ids={"message_id": message_id}, query={"info_type": info_type}
        )
        return tuple(entries)

    async def message_references(self, message_id: str, *, limit: int | None = None) -> tuple[Reference, ...]:
        """Read what an answer rests on; *limit* is for newer servers."""
        references = await self._api.call(
            wire.GET_REFERENCES, ids={"message_id": message_id}, query={"limit": limit}
        )
        return tuple(map(wire.to_reference, references))

    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        """Yield the messages; with *newest_first* the whole history is read before the first is yielded."""
        pages = self._pages(wire.LIST_MESSAGES, {"session_id": conversation_id})
        messages = (wire.to_message(message) async for message in pages)
        async for message in select_messages(messages, after=after, limit=limit, newest_first=newest_first):
            yield message

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        """Ask, and wait for the whole answer; `extra` may hold the request's fields in `EXTRA_TO_SEND`."""
        warnings: list[str] = []
        answer = await self._api.call(
            wire.COMPLETE,
            self._request(message, options),
            ids={"session_id": conversation_id},
            warn=warnings.append,
        )
        return await self._reply(answer, answer.body, options, warnings)

    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        """Ask, and yield the answer as it arrives."""
        request = evolve(self._request(message, options), stream=True)
        fold, last = TextFold(), wire.CompletionLine()
        async with self._api.stream(wire.STREAM, request, ids={"session_id": conversation_id}) as lines:
            yield Started()
            async for line in lines:
                if line.error is not None:
                    raise lines.failed(line.error)
                for event in _told(line, fold):
                    yield event
                last = line
            if not last.is_last:  # One document in place of a stream.
                if last.body is None:
                    raise lines.failed(
                        wire.read_error(200, last.raw).message
                        or "what came in place of a stream is not an answer"
                    )
                for event in fold.finish(last.body):
                    yield event
        warnings = [*lines.warnings, *fold.warnings]
        yield Finished(await self._reply(wire.mended(last), fold.shown, options, warnings))

    async def _in_session(
        self, endpoint: Endpoint[wire.ChatSession], conversation_id: str, body: object = None
    ) -> wire.ChatSession:
        return await self._api.call(endpoint, body, ids={"session_id": conversation_id})

    def _pages(
        self, endpoint: Endpoint[list[EntryT]], ids: Mapping[str, str]
    ) -> AsyncGenerator[EntryT, None]:
        async def page(offset: int, limit: int) -> list[EntryT]:
            return await self._api.call(endpoint, ids=ids, query={"offset": offset, "limit": limit})

        return by_offset(page, key=lambda entry: entry.id)

    def _request(self, message: Message, options: SendOptions) -> wire.CompletionRequest:
        extra = dict(options.extra)
        check_extra(extra, EXTRA_TO_SEND, PROFILE)
        history = extra.pop("include_chat_history", self.options.include_chat_history)
        named = {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
            "max_new_tokens": options.max_output_tokens,
        }
        llm_args = _object("llm_args", extra.pop("llm_args", None))
        llm_args |= {name: value for name, value in named.items() if value is not None}
        return wire.CompletionRequest(
            text_to_send(message, PROFILE),
            system_prompt=options.system,
            llm=options.model or self.options.llm,
            llm_args=llm_args or None,
            # The server's document has unquoted booleans here; its own clients send texts.
            include_chat_history=str(history).lower() if isinstance(history, bool) else history,
            **extra,
        )

    async def _reply(
        self,
        answer: wire.Completion | wire.CompletionLine,
        text: str,
        options: SendOptions,
        warnings: list[str],
    ) -> Reply:
        """Make the reply, with what `include` asks for; what of that cannot be read is a warning."""
        references: tuple[Reference, ...] = ()
        usage: Usage | None = None
        stats: Mapping[str, Any] = {}
        if options.include and answer.message_id is None:
            warnings.append("the server gave the answer no id, so nothing more can be read of it")
        elif answer.message_id is not None:
            if "references" in options.include:
                read = self.message_references(answer.message_id)
                references = await _attempt("references", read, warnings) or ()
            if "usage" in options.include:
                meta = self.message_meta(answer.message_id, "usage_stats")
                entries = await _attempt("usage", meta, warnings)
                usage, stats = wire.to_usage(entries or ())
                if entries is not None and usage is None:
                    warnings.append("the server told no usage that can be read")
        model = stats.get("llm")
        extra = beyond(answer.raw, "body", "message_id", "finished")
        return Reply(
            (Message(Role.ASSISTANT, text, id=answer.message_id, references=references),),
            usage=usage,
            model=model if isinstance(model, str) else None,
            warnings=warnings,
            extra=extra | ({"usage_stats": stats} if stats else {}),
        )


def _object(name: str, value: object) -> dict[str, Any]:
    if value is None or isinstance(value, Mapping):
        return dict(cast(Mapping[str, Any], value or {}))
    raise BadOption(backend=NAME, option=name, problem="in extra takes a mapping")


def _told(line: wire.CompletionLine, fold: TextFold) -> list[StreamEvent]:
    """Tell what *line* adds to the text so far."""
    if line.is_last:
        return fold.finish(line.body)
    return fold.add_either(line.body or "")


async def _attempt(what: str, read: Awaitable[ItemT], warnings: list[str]) -> ItemT | None:
    try:
        return await read
    except ChatbridgeError as error:
        warnings.append(f"the {what} could not be read: {error}")
        return None

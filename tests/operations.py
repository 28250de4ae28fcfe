"""The operations of each API, of its documents and beyond, and the public call that reaches each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import ModuleType
from typing import cast

from attrs import field, frozen

from chatbridge import Bridge, Chat, Conversation, Reply
from chatbridge.testing.emulator import Emulator
from chatbridge_adapters.anthropic import AnthropicBackend
from chatbridge_adapters.anthropic import wire as anthropic_wire
from chatbridge_adapters.anthropic.emulator import AnthropicEmulator
from chatbridge_adapters.datamonkey import wire as datamonkey_wire
from chatbridge_adapters.datamonkey.emulator import DatamonkeyEmulator
from chatbridge_adapters.h2ogpte import H2OGPTeBackend
from chatbridge_adapters.h2ogpte import wire as h2ogpte_wire
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from chatbridge_adapters.kaziro import wire as kaziro_wire
from chatbridge_adapters.kaziro.emulator import KaziroEmulator
from chatbridge_adapters.mtmai import wire as mtmai_wire
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator
from chatbridge_adapters.openai import OpenAIBackend
from chatbridge_adapters.openai import wire as openai_wire
from chatbridge_adapters.openai.emulator import OpenAIEmulator
from chatbridge_adapters.tachyon import TachyonBackend
from chatbridge_adapters.tachyon import wire as tachyon_wire
from chatbridge_adapters.tachyon.emulator import TachyonEmulator


@frozen
class Scene:
    """A conversation with one answered turn, to call something on."""

    bridge: Bridge
    chat: Chat
    reply: Reply

    @property
    def h2ogpte(self) -> H2OGPTeBackend:
        """What only h2oGPTe has."""
        return cast(H2OGPTeBackend, self.bridge.api)

    @property
    def tachyon(self) -> TachyonBackend:
        """What only Tachyon has."""
        return cast(TachyonBackend, self.bridge.api)

    @property
    def openai(self) -> OpenAIBackend:
        """What only OpenAI-compatible servers have."""
        return cast(OpenAIBackend, self.bridge.api)

    @property
    def anthropic(self) -> AnthropicBackend:
        """What only Anthropic has."""
        return cast(AnthropicBackend, self.bridge.api)

    @property
    def answer_id(self) -> str:
        """The id of the answer."""
        return self.reply.message.id or ""

    async def conversations(self) -> list[Conversation]:
        """Read the list to its end."""
        return [conversation async for conversation in self.bridge.conversations()]

    async def messages(self) -> list[object]:
        """Read the history to its end."""
        return [message async for message in self.chat.messages()]

    async def shown(self) -> list[object]:
        """Read the history that the API has, whatever the bridge gives in its place."""
        return [message async for message in self.bridge.backend.list_messages(self.chat.id)]


@frozen
class Row:
    """
    One operation.

    Attributes:
        path: Under the API's base path, with placeholders.
        reach: The public call.
        options: What the bridge is opened with for it.
    """

    api: str
    operation: str
    method: str
    path: str
    reach: Callable[[Scene], Awaitable[object]]
    options: Mapping[str, object] = field(factory=dict[str, object])


@frozen
class Api:
    """Where an API's operations are declared: in its emulator, and in its adapter's `wire.ENDPOINTS`."""

    emulator: type[Emulator]
    wire: ModuleType


APIS = {
    "kaziro": Api(KaziroEmulator, kaziro_wire),
    "datamonkey": Api(DatamonkeyEmulator, datamonkey_wire),
    "tachyon": Api(TachyonEmulator, tachyon_wire),
    "h2ogpte": Api(H2OGPTeEmulator, h2ogpte_wire),
    "mtmai": Api(MtmaiEmulator, mtmai_wire),
    "openai": Api(OpenAIEmulator, openai_wire),
    "anthropic": Api(AnthropicEmulator, anthropic_wire),
}

BROKER = "/v1/broker"
SESSION = "/chats/{session_id}"
MESSAGE = "/messages/{message_id}"
CONVERSATION = "/chat/{conversation_id}"
ROOMS = "/v1/llms/chatrooms"
ROOM = f"{ROOMS}/{{chatroom_id}}"
TENANT = "/api/v1/tenants/{tenant}"
CHATS = f"{TENANT}/chats"

OPERATIONS = (
    Row(
        "kaziro",
        "create_thread_endpoint_v1_broker_thread_create_post",
        "POST",
        f"{BROKER}/thread/create",
        lambda scene: scene.bridge.create(),
    ),
    Row(
        "kaziro",
        "get_thread_metadata_endpoint_v1_broker_thread_retrieve_get",
        "GET",
        f"{BROKER}/thread/retrieve",
        lambda scene: scene.chat.refresh(),
    ),
    Row(
        "kaziro",
        "create_chat_message_endpoint_v1_broker_chat_completions_post",
        "POST",
        f"{BROKER}/chat/completions",
        lambda scene: scene.chat.send("Hello"),
    ),
    Row("h2ogpte", "create_chat_session", "POST", "/chats", lambda scene: scene.bridge.create()),
    Row("h2ogpte", "list_chat_sessions", "GET", "/chats", lambda scene: scene.conversations()),
    Row(
        "h2ogpte",
        "get_chat_session_count",
        "GET",
        "/chats/count",
        lambda scene: scene.h2ogpte.count_conversations(),
    ),
    Row("h2ogpte", "get_chat_session", "GET", SESSION, lambda scene: scene.chat.refresh()),
    Row("h2ogpte", "update_chat_session", "PATCH", SESSION, lambda scene: scene.chat.rename("Kyoto")),
    Row("h2ogpte", "delete_chat_session", "DELETE", SESSION, lambda scene: scene.chat.delete()),
    Row(
        "h2ogpte",
        "update_chat_session_collection",
        "PUT",
        f"{SESSION}/collection",
        lambda scene: scene.h2ogpte.attach_collection(scene.chat.id, "maples"),
    ),
    Row(
        "h2ogpte",
        "delete_chat_session_collection",
        "DELETE",
        f"{SESSION}/collection",
        lambda scene: scene.h2ogpte.detach_collection(scene.chat.id),
    ),
    Row(
        "h2ogpte",
        "update_chat_session_prompt_template",
        "PUT",
        f"{SESSION}/prompt_template",
        lambda scene: scene.h2ogpte.set_prompt_template(scene.chat.id, "guide"),
    ),
    Row(
        "h2ogpte",
        "delete_chat_session_prompt_template",
        "DELETE",
        f"{SESSION}/prompt_template",
        lambda scene: scene.h2ogpte.remove_prompt_template(scene.chat.id),
    ),
    Row("h2ogpte", "get_chat_session_messages", "GET", f"{SESSION}/messages", lambda scene: scene.messages()),
    Row(
        "h2ogpte",
        "list_questions_for_chat_session",
        "GET",
        f"{SESSION}/questions",
        lambda scene: scene.h2ogpte.suggested_questions(scene.chat.id),
    ),
    Row(
        "h2ogpte",
        "get_completion",
        "POST",
        f"{SESSION}/completions",
        lambda scene: scene.chat.send("Hello"),
    ),
    Row(
        "h2ogpte",
        "get_message_meta",
        "GET",
        f"{MESSAGE}/meta",
        lambda scene: scene.h2ogpte.message_meta(scene.answer_id),
    ),
    Row(
        "h2ogpte",
        "get_message_references",
        "GET",
        f"{MESSAGE}/references",
        lambda scene: scene.h2ogpte.message_references(scene.answer_id),
    ),
    Row(
        "datamonkey",
        "create_conversation",
        "POST",
        "/chat",
        lambda scene: scene.bridge.create(title="Kyoto"),
    ),
    Row("datamonkey", "list_user_conversations", "GET", "/chat", lambda scene: scene.conversations()),
    Row("datamonkey", "get_conversation", "GET", CONVERSATION, lambda scene: scene.chat.refresh()),
    Row("datamonkey", "delete_conversation", "DELETE", CONVERSATION, lambda scene: scene.chat.delete()),
    Row(
        "datamonkey",
        "get_conversation_messages",
        "GET",
        f"{CONVERSATION}/messages",
        lambda scene: scene.messages(),
    ),
    Row(
        "datamonkey",
        "send_conversation_message",
        "POST",
        f"{CONVERSATION}/messages",
        lambda scene: scene.chat.send("Hello"),
    ),
    Row("tachyon", "create_chatroom", "POST", ROOMS, lambda scene: scene.bridge.create(title="Kyoto")),
    Row("tachyon", "update_chatroom", "PATCH", ROOM, lambda scene: scene.chat.rename("Kyoto")),
    Row("tachyon", "delete_chatroom", "DELETE", ROOM, lambda scene: scene.chat.delete()),
    Row("mtmai", "chat_create_chat_session", "POST", CHATS, lambda scene: scene.bridge.create(title="Kyoto")),
    Row("mtmai", "chat_list", "GET", CHATS, lambda scene: scene.conversations()),
    Row("mtmai", "chat_get", "GET", f"{CHATS}/{{chat}}", lambda scene: scene.chat.refresh()),
    Row(
        "mtmai",
        "chat_update_chat_session",
        "PUT",
        f"{CHATS}/{{chat}}",
        lambda scene: scene.chat.rename("Kyoto"),
    ),
    Row("mtmai", "chat_messages", "GET", f"{CHATS}/{{chatId}}/messages", lambda scene: scene.shown()),
    Row(
        "openai",
        "createChatCompletion",
        "POST",
        "/chat/completions",
        lambda scene: scene.chat.send("Hello"),
    ),
    Row("openai", "listModels", "GET", "/models", lambda scene: scene.openai.list_models()),
    Row("anthropic", "messages.create", "POST", "/v1/messages", lambda scene: scene.chat.send("Hello")),
    Row("anthropic", "models.list", "GET", "/v1/models", lambda scene: scene.anthropic.list_models()),
)

BEYOND = (
    Row("tachyon", "get_chatrooms", "GET", ROOMS, lambda scene: scene.conversations()),
    Row("tachyon", "get_chatroom_messages", "GET", f"{ROOM}/messages", lambda scene: scene.messages()),
    Row(
        "tachyon",
        "chat_completion_on_chatroom",
        "POST",
        f"{ROOM}/chat/completions",
        lambda scene: scene.chat.send("Hello"),
    ),
    Row(
        "tachyon",
        "execute_agent",
        "POST",
        f"{ROOM}/agent/execute",
        lambda scene: scene.chat.send("Hello"),
        {"mode": "agent"},
    ),
    Row(
        "tachyon",
        "get_agent_messages",
        "GET",
        f"{ROOM}/agent/messages",
        lambda scene: scene.tachyon.agent_log(scene.chat.id),
    ),
    Row("mtmai", "agent_run", "POST", f"{TENANT}/nodes/run", lambda scene: scene.chat.send("Hello")),
    Row(
        "mtmai",
        "agent_stream",
        "GET",
        f"{TENANT}/stream/{{stream}}",
        lambda scene: scene.chat.send("Hello"),
    ),
)
"""What the documents of an API do not list among its chat operations, and makes them useful."""

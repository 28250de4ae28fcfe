"""
One async client for chat APIs, whoever's they are.

`connect` opens a backend by a config string. What an application needs is here; what
writes an adapter is made of is in `chatbridge.backend`, `chatbridge.options`, `chatbridge.registry` and
`chatbridge.http`; what tests are made of is in `chatbridge.testing`.
They are imported when one is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chatbridge.backend import Feature, Profile, Support
    from chatbridge.bridge import Bridge, connect
    from chatbridge.chat import Chat
    from chatbridge.config import BackendURL
    from chatbridge.domain import (
        Attachment,
        Conversation,
        Finished,
        FinishReason,
        Message,
        Opaque,
        Part,
        PartAdded,
        Progress,
        Reasoning,
        ReasoningDelta,
        Reference,
        Reply,
        Reset,
        Role,
        SendOptions,
        Started,
        StreamEvent,
        Text,
        TextDelta,
        ToolCall,
        ToolResult,
        Usage,
    )
    from chatbridge.drift import Drift, DriftState
    from chatbridge.errors import (
        AnswerLost,
        AnswerWarning,
        AuthFailed,
        BadAnswer,
        BadOption,
        ChatbridgeError,
        ChatbridgeWarning,
        ConfigError,
        Conflict,
        ConnectFailed,
        ConversationKept,
        DeliveryUnknown,
        LiveBackendForbidden,
        MissingSecret,
        NotFound,
        NotSent,
        Outcome,
        Overloaded,
        ProviderFailed,
        RateLimited,
        RedirectRefused,
        Refused,
        RequestRefused,
        StoreError,
        StreamCut,
        Unavailable,
        UnknownBackend,
        UnsettledTurn,
        UnsupportedFeature,
        UsageError,
        WrongBackend,
    )
    from chatbridge.secret import Secret
    from chatbridge.streaming import ReplyStream
    from chatbridge.turns import Turn, TurnState
else:  # A type checker would think that there is every name.

    def __getattr__(name: str) -> object:
        """Import the names at the first use of one."""
        if name not in __all__ and name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for module in _MODULES:
            found = import_module(f"{__name__}.{module}")
            globals().update({each: getattr(found, each) for each in found.__all__ if each in __all__})
        return globals()[name]

    def __dir__() -> list[str]:
        """Name what there is, imported or not."""
        return sorted({*globals(), *__all__})


__all__ = [
    "AnswerLost",
    "AnswerWarning",
    "Attachment",
    "AuthFailed",
    "BackendURL",
    "BadAnswer",
    "BadOption",
    "Bridge",
    "Chat",
    "ChatbridgeError",
    "ChatbridgeWarning",
    "ConfigError",
    "Conflict",
    "ConnectFailed",
    "Conversation",
    "ConversationKept",
    "DeliveryUnknown",
    "Drift",
    "DriftState",
    "Feature",
    "FinishReason",
    "Finished",
    "LiveBackendForbidden",
    "Message",
    "MissingSecret",
    "NotFound",
    "NotSent",
    "Opaque",
    "Outcome",
    "Overloaded",
    "Part",
    "PartAdded",
    "Profile",
    "Progress",
    "ProviderFailed",
    "RateLimited",
    "Reasoning",
    "ReasoningDelta",
    "RedirectRefused",
    "Reference",
    "Refused",
    "Reply",
    "ReplyStream",
    "RequestRefused",
    "Reset",
    "Role",
    "Secret",
    "SendOptions",
    "Started",
    "StoreError",
    "StreamCut",
    "StreamEvent",
    "Support",
    "Text",
    "TextDelta",
    "ToolCall",
    "ToolResult",
    "Turn",
    "TurnState",
    "Unavailable",
    "UnknownBackend",
    "UnsettledTurn",
    "UnsupportedFeature",
    "Usage",
    "UsageError",
    "WrongBackend",
    "connect",
]

# Where the names are.
_MODULES = (
    "errors",
    "domain",
    "backend",
    "bridge",
    "chat",
    "config",
    "drift",
    "secret",
    "streaming",
    "turns",
)

"""Tachyon: chatrooms with a language model, or with an agent."""

from __future__ import annotations

from chatbridge.registry import Adapter, Defaults
from chatbridge_adapters.tachyon.backend import TachyonBackend, TachyonOptions, profile
from chatbridge_adapters.tachyon.parts import NAME

__all__ = ["ADAPTER", "TachyonBackend", "TachyonOptions"]

ADAPTER = Adapter(
    NAME,
    "Tachyon, chatrooms with a language model or an agent",
    options=TachyonOptions,
    profile=profile,
    open=TachyonBackend,
    defaults=Defaults(
        host="api.n1.tachy.one",
        env={"key": ("TACHYON_API_KEY",), "operator": ("TACHYON_OPERATOR_ID",)},
        model_option="model",
    ),
    emulator="chatbridge_adapters.tachyon.emulator:TachyonEmulator",
)

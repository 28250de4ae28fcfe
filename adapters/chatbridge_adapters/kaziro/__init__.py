"""Kaziro's broker: threads that are created and talked in, and shown to nobody again."""

from __future__ import annotations

from chatbridge.registry import Adapter, Defaults
from chatbridge_adapters.kaziro.backend import NAME, KaziroBackend, KaziroOptions, profile

__all__ = ["ADAPTER", "KaziroBackend", "KaziroOptions"]

ADAPTER = Adapter(
    NAME,
    "Kaziro's broker, an assistant for prediction markets",
    options=KaziroOptions,
    profile=profile,
    open=KaziroBackend,
    defaults=Defaults(host="api.kaziro.xyz", env={"key": ("KAZIRO_API_KEY",)}, model_option="model"),
    emulator="chatbridge_adapters.kaziro.emulator:KaziroEmulator",
)

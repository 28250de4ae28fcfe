"""Datamonkey: conversations with an assistant for evolutionary analyses, owned by a session."""

from __future__ import annotations

from chatbridge.registry import Adapter, Defaults
from chatbridge_adapters.datamonkey.backend import (
    NAME,
    DatamonkeyBackend,
    DatamonkeyOptions,
    SessionReplaced,
    profile,
)

__all__ = ["ADAPTER", "DatamonkeyBackend", "DatamonkeyOptions", "SessionReplaced"]

ADAPTER = Adapter(
    NAME,
    "Datamonkey, an assistant for evolutionary analyses of sequences",
    options=DatamonkeyOptions,
    profile=profile,
    open=DatamonkeyBackend,
    defaults=Defaults(
        host="datamonkey.org",
        path="/api/v1",
        env={"key": ("DATAMONKEY_SESSION_TOKEN",)},
    ),
    emulator="chatbridge_adapters.datamonkey.emulator:DatamonkeyEmulator",
)

"""Enterprise h2oGPTe: chat sessions with a language model, over a collection of documents or without."""

from __future__ import annotations

from chatbridge.registry import Adapter, Defaults
from chatbridge_adapters.h2ogpte.backend import NAME, H2OGPTeBackend, H2OGPTeOptions, profile
from chatbridge_adapters.h2ogpte.wire import MessageMeta

__all__ = ["ADAPTER", "H2OGPTeBackend", "H2OGPTeOptions", "MessageMeta"]

ADAPTER = Adapter(
    NAME,
    "Enterprise h2oGPTe, chat sessions over collections of documents",
    options=H2OGPTeOptions,
    profile=profile,
    open=H2OGPTeBackend,
    defaults=Defaults(
        host="h2ogpte.genai.h2o.ai",
        path="/api/v1",
        env={"key": ("H2OGPTE_API_KEY",)},
        model_option="llm",
    ),
    emulator="chatbridge_adapters.h2ogpte.emulator:H2OGPTeEmulator",
)

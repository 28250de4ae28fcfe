"""Chat completions of OpenAI, and of the many servers that have the same API."""

from __future__ import annotations

from chatbridge.registry import Adapter, Defaults
from chatbridge_adapters.openai.backend import OpenAIBackend, OpenAIOptions, profile
from chatbridge_adapters.openai.wire import HOST, NAME, Model

__all__ = ["ADAPTER", "Model", "OpenAIBackend", "OpenAIOptions"]

ADAPTER = Adapter(
    NAME,
    "OpenAI's chat completions, or those of any compatible server (Ollama, vLLM, llama.cpp, LM Studio)",
    options=OpenAIOptions,
    profile=profile,
    open=OpenAIBackend,
    defaults=Defaults(
        host=HOST,
        path="/v1",
        env={
            "key": ("OPENAI_API_KEY",),
            "organization": ("OPENAI_ORG_ID",),
            "project": ("OPENAI_PROJECT_ID",),
        },
        base_url="OPENAI_BASE_URL",
        model_option="model",
    ),
    emulator="chatbridge_adapters.openai.emulator:OpenAIEmulator",
)

"""Anthropic's Messages API, which keeps nothing: each call carries the whole history."""

from __future__ import annotations

from chatbridge.registry import Adapter, Defaults
from chatbridge_adapters.anthropic.backend import AnthropicBackend, AnthropicOptions, profile
from chatbridge_adapters.anthropic.wire import HOST, NAME, Model

__all__ = ["ADAPTER", "AnthropicBackend", "AnthropicOptions", "Model"]

ADAPTER = Adapter(
    NAME,
    "Anthropic's Messages API, for the models of Claude",
    options=AnthropicOptions,
    profile=profile,
    open=AnthropicBackend,
    defaults=Defaults(
        host=HOST,
        env={"key": ("ANTHROPIC_API_KEY",)},
        base_url="ANTHROPIC_BASE_URL",
        model_option="model",
    ),
    emulator="chatbridge_adapters.anthropic.emulator:AnthropicEmulator",
)

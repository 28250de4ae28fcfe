"""Mtmai: chat sessions of a tenant, and runs of a team of agents."""

from __future__ import annotations

from chatbridge.registry import Adapter, Defaults
from chatbridge_adapters.mtmai.backend import NAME, MtmaiBackend, MtmaiOptions, profile

__all__ = ["ADAPTER", "MtmaiBackend", "MtmaiOptions"]

ADAPTER = Adapter(
    NAME,
    "Mtmai, chat sessions of a tenant, and runs of a team of agents",
    options=MtmaiOptions,
    profile=profile,
    open=MtmaiBackend,
    defaults=Defaults(
        env={
            "key": ("MTMAI_TOKEN", "HATCHET_CLIENT_TOKEN"),
            "tenant": ("HATCHET_CLIENT_TENANT_ID",),
        },
    ),
    emulator="chatbridge_adapters.mtmai.emulator:MtmaiEmulator",
)

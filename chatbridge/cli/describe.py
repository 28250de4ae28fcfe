"""What `describe`, `features` and `backends` know of a backend, without a key or a connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import get_args

from attrs import fields, frozen, resolve_types
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chatbridge.backend import ContextOwner, Feature, Profile, SettleBy, Stores, Support
from chatbridge.cli.plain import Json, plain
from chatbridge.completing import is_kept_here
from chatbridge.config import BackendURL
from chatbridge.errors import ChatbridgeError, ConfigError
from chatbridge.filling import with_emulations
from chatbridge.named import find_backend
from chatbridge.option_types import OptionInfo, describe_options
from chatbridge.registry import Adapter, backend_names, load_adapter, read_options
from chatbridge.secret import Secret

__all__ = ["STYLES", "Description", "Listed", "describe", "list_backends", "plain_profile", "secret_options"]

STYLES = {Support.NATIVE: "green", Support.EMULATED: "yellow", Support.UNSUPPORTED: "dim"}

CONTEXT = {
    ContextOwner.SERVER: "the server shows the model the earlier turns",
    ContextOwner.CLIENT: "chatbridge sends the earlier turns with each message",
    ContextOwner.NONE: "the model sees the last message only",
}
STORES = {
    Stores.BEFORE: "the server stores a message before it answers",
    Stores.WITH: "the server stores a message together with its answer",
    Stores.NEVER: "the server stores nothing",
    Stores.UNDOCUMENTED: "when the server stores a message is not documented",
}
SETTLE_BY = {
    SettleBy.KEY: "an idempotency key",
    SettleBy.CLIENT_ID: "an id of the client's",
    SettleBy.READ_BACK: "reading the history back",
}


@frozen
class Listed:
    """
    One installed backend.

    Attributes:
        error: Why it cannot be loaded; then nothing else is known of it.
    """

    name: str
    summary: str | None = None
    emulator: bool = False
    error: str | None = None


def list_backends() -> Iterator[Listed]:
    """Give the installed backends, broken ones too."""
    for name in backend_names():
        try:
            adapter = load_adapter(name)
        except ChatbridgeError as error:
            yield Listed(name, error=str(error))
        except Exception as error:  # noqa: BLE001 - a stranger's module may raise anything when imported
            yield Listed(name, error=f"importing it raises {type(error).__name__}: {error}")
        else:
            yield Listed(name, adapter.summary, adapter.emulator is not None)


def secret_options(adapter: Adapter) -> tuple[str, ...]:
    """Name the options of *adapter* that are secrets."""
    return tuple(
        attribute.name
        for attribute in fields(resolve_types(adapter.options))
        if attribute.type is Secret or Secret in get_args(attribute.type)
    )


@frozen
class Description:
    """
    A backend, for people and for `--json`.

    Attributes:
        chosen: Of the options that were given, those that change what it can do.
    """

    adapter: Adapter
    options: tuple[OptionInfo, ...]
    profile: Profile
    chosen: Mapping[str, str]

    @property
    def title(self) -> str:
        """Its name and what was chosen, as in ``acme mode=agent``."""
        return " ".join((self.adapter.name, *(f"{name}={value}" for name, value in self.chosen.items())))

    def plain(self) -> Json:
        """Give everything as plain JSON."""
        adapter = self.adapter
        return {
            "name": adapter.name,
            "summary": adapter.summary,
            "emulator": adapter.emulator is not None,
            "config": dict(self._forms()),
            "options": plain(self.options),
            **plain_profile(self.profile),
        }

    def shown(self) -> Iterator[RenderableType]:
        """Give everything to be drawn."""
        yield (Text.assemble((self.adapter.name, "bold"), f": {self.adapter.summary}"))
        yield from _section("Config strings", self._forms())
        yield from _section("Options", ((info.name, _option_text(info)) for info in self.options))
        yield from _section("Features", ((f.value, self._feature_text(f)) for f in Feature))
        yield from _section("Facts", self._facts())
        if self.profile.notes:
            yield from _section("Notes", (("-", note) for note in self.profile.notes))

    def _forms(self) -> Iterator[tuple[str, str]]:
        name, defaults = self.adapter.name, self.adapter.defaults
        if defaults.in_process:
            yield f"{name}:", "it lives in this process"
        elif defaults.host is not None:
            elsewhere = f", or the base URL in {defaults.base_url}" if defaults.base_url else ""
            yield f"{name}:", f"https://{defaults.host}{defaults.path}{elsewhere}"
        if defaults.model_option is not None and (defaults.in_process or defaults.host is not None):
            yield f"{name}:MODEL", f"the same, with the option {defaults.model_option}"
        if not defaults.in_process:
            yield f"{name}://HOST:PORT/PATH", f"another server; left out, the path is {defaults.path or '/'}"
            yield f"{name}+http://127.0.0.1:PORT", "plain http, to other machines only with insecure=true"
        yield "...?NAME=VALUE&NAME=VALUE", "options, after any of these"

    def _feature_text(self, feature: Feature) -> Text:
        support = self.profile.support(feature)
        instead = self.profile.instead.get(feature) if support is not Support.NATIVE else None
        return Text.assemble((support.value, STYLES[support]), f"; {instead}" if instead else "")

    def _facts(self) -> Iterator[tuple[str, str]]:
        profile = self.profile
        yield "context", f"{profile.context.value}: {CONTEXT[profile.context]}"
        yield "send options", ", ".join(sorted(profile.options)) or "none"
        if is_kept_here(profile):
            yield "stores", f"{profile.stores.value}: chatbridge stores a message together with its answer"
            yield "settle_by", "a message without an answer is not in the conversation; none blocks the next"
            return
        yield "stores", f"{profile.stores.value}: {STORES[profile.stores]}"
        ways = " or ".join(SETTLE_BY[way] for way in sorted(profile.settle_by))
        found = f"can be found out by {ways}" if ways else "cannot be found out"
        yield "settle_by", f"whether a message arrived {found}, where its answer is lost"
        absent = profile.absent_after
        known = "proves nothing" if absent is None else f"proves after {absent:g} s that it did not arrive"
        yield "absent_after", f"a message's absence from the history {known}"


def plain_profile(profile: Profile) -> dict[str, Json]:
    """Say what a backend can do in plain JSON."""
    return {
        "features": {feature.value: profile.support(feature).value for feature in Feature},
        "instead": plain(profile.instead),
        "send_options": plain(profile.options),
        "context": profile.context.value,
        "stores": profile.stores.value,
        "settle_by": plain(profile.settle_by),
        "absent_after": profile.absent_after,
        "notes": plain(profile.notes),
    }


def describe(text: str) -> Description:
    """
    Describe the backend of *text*, its name or a config string, whose options may change what it can do.

    Options that the backend requires may be missing, and secrets are not looked for.

    Raises:
        ConfigError: There is none, or an option is wrong.
    """
    url = find(text)
    adapter = load_adapter(url.scheme)
    secrets = secret_options(adapter)
    given = {name: value for name, value in url.unrecorded().options.items() if name not in secrets}
    if url.model is not None and adapter.defaults.model_option is not None:
        given[adapter.defaults.model_option] = url.model
    profile = _profile(adapter, given)
    chosen = given
    for name in given:
        fewer = {other: value for other, value in chosen.items() if other != name}
        with suppress(ConfigError):  # Where another option needs this one, it stays.
            chosen = fewer if _profile(adapter, fewer) == profile else chosen
    infos = describe_options(adapter.options, adapter.defaults.env)
    return Description(adapter, infos, profile, chosen)


def _profile(adapter: Adapter, given: Mapping[str, str]) -> Profile:
    """Tell what the backend can do with the options *given*; what it requires besides may be anything."""
    options = read_options(adapter, given, complete=False)
    return with_emulations(adapter.profile(options), options)


def find(text: str) -> BackendURL:
    """Take a scheme, a config string, or a name in the config file."""
    if ":" not in text and text not in backend_names():
        with suppress(ConfigError):
            return find_backend(text)
    return BackendURL.parse(text if ":" in text else f"{text}:")


def _option_text(info: OptionInfo) -> Text:
    facts = [info.type]
    if info.required:
        facts.append("required")
    if info.default is not None:
        facts.append(f"default {info.default}")
    if info.environment:
        facts.append(f"from {' or '.join(info.environment)}")
    return Text.assemble(info.doc, "\n", ("; ".join(facts), "dim"))


def _section(title: str, rows: Iterable[tuple[str, str | Text]]) -> Iterator[RenderableType]:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column()
    for name, text in rows:
        cell: RenderableType = text if isinstance(text, Text) else Text(text)
        table.add_row(Text(name), cell)
    yield Text(f"\n{title}", "bold")
    yield Padding(table, (0, 0, 0, 2))

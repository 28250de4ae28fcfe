"""
From a scheme to its adapter, by entry point.

An installed package provides a backend by an entry point in the group
`chatbridge.backends`, whose name is the scheme and whose value is an `Adapter`.
An adapter is imported when it is named, and no sooner.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from attrs import Factory, evolve, field, fields, frozen

from chatbridge.backend import ChatBackend, CompletionBackend, ContextOwner, Profile
from chatbridge.clock import Clock, SystemClock
from chatbridge.config import BackendURL
from chatbridge.errors import BadOption, ConfigError, UnknownBackend
from chatbridge.guard import is_loopback
from chatbridge.observe import OnAttempt
from chatbridge.options import CommonOptions
from chatbridge.secret import Veiled
from chatbridge.structuring import structure_options

__all__ = [
    "GROUP",
    "Adapter",
    "Defaults",
    "InProcess",
    "Target",
    "backend_names",
    "declared_profile",
    "load_adapter",
    "read_options",
    "resolve",
]

GROUP = "chatbridge.backends"


@frozen
class Defaults:
    """
    What a config string may leave out.

    Attributes:
        host: The API's public host; None where it must be named, or *in_process* is set.
        path: The API's base path, without a slash at the end.
        env: Environment variables that hold an option, by the option's name, first found first.
        base_url: The environment variable that holds the base URL where the config string names no host.
        model_option: The option that the model of `scheme:model` is; None where there is none to choose.
        in_process: Whether the backend lives in this process and takes no host.
    """

    host: str | None = None
    path: str = ""
    env: Mapping[str, tuple[str, ...]] = field(factory=dict[str, tuple[str, ...]])
    base_url: str | None = None
    model_option: str | None = None
    in_process: bool = False


@frozen
class InProcess:
    """
    What a backend that lives in the process is opened with, in place of a transport.

    Attributes:
        clock: The bridge's.
        on_attempt: What the bridge was given to tell of attempts.
    """

    clock: Clock = Factory(SystemClock)
    on_attempt: OnAttempt | None = None


@frozen
class Adapter:
    """
    One backend, as its entry point names it.

    Attributes:
        name: The scheme.
        summary: What it is, in one sentence.
        options: The attrs class of its options.
        profile: What the backend can do, given its options; no connection is needed for it.
        open: Makes the backend of its options and the bridge's transport, or `InProcess` where it has none.
        clock: Makes the clock of a bridge to it that is given none; None for the system's.
        transport: Makes the transport of a bridge to it, where that lives in the process too; the bridge goes
            by the transport's options.
        emulator: Where its emulator is, `package.module:Class`; None where there is none.
    """

    name: str
    summary: str
    options: type[CommonOptions]
    profile: Callable[[Any], Profile]
    open: Callable[[Any, Any], ChatBackend | CompletionBackend]
    defaults: Defaults = Factory(Defaults)
    emulator: str | None = None
    clock: Callable[[], Clock] | None = None
    transport: Callable[[Any, InProcess], Any] | None = None

    def load_emulator(self) -> type[Any]:
        """
        Import the emulator's class.

        Raises:
            ConfigError: The adapter has no emulator, or it cannot be imported.
        """
        if self.emulator is None:
            raise ConfigError(f"{self.name} has no emulator", provider=self.name)
        module, _, name = self.emulator.partition(":")
        try:
            emulator: type[Any] = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            return emulator
        raise ConfigError(f"the emulator of {self.name} cannot be loaded: {problem}", provider=self.name)


@frozen
class Target:
    """
    A config string, resolved: everything that is needed to open a backend.

    Attributes:
        url: Without what it says of recording.
        record: The file that the exchange is recorded in, if it is.
    """

    url: BackendURL
    adapter: Adapter
    options: CommonOptions
    base_url: str | None
    record: Path | None = None

    @property
    def account(self) -> str | None:
        """Say on which server, and whose, the conversations are; None where there is no server."""
        if self.base_url is None:
            return None
        given = {
            attribute.name: getattr(self.options, attribute.name)
            for attribute in fields(type(self.options))
            if attribute.metadata.get("account")
        }
        place = self.base_url.partition("://")[2].rstrip("/")
        return f"{place}?{urlencode(given)}" if given else place


def _installed() -> dict[str, list[EntryPoint]]:
    installed: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        installed.setdefault(entry.name, []).append(entry)
    return installed


def backend_names() -> tuple[str, ...]:
    """Name the installed backends, in alphabetical order; nothing is imported."""
    return tuple(sorted(_installed()))


def load_adapter(name: str) -> Adapter:
    """
    Import the adapter *name*.

    Raises:
        UnknownBackend: No installed package provides it.
        ConfigError: The package that provides it is broken, or more than one does.
    """
    installed = _installed()
    if name not in installed:
        raise UnknownBackend(name=name, installed=tuple(sorted(installed)))
    values = sorted({entry.value for entry in installed[name]})
    if len(values) > 1:
        raise ConfigError(
            f"the backend {name!r} is installed more than once: {' and '.join(values)}", provider=name
        )
    try:
        adapter: object = installed[name][0].load()
    except (ImportError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if isinstance(adapter, Adapter):
            return adapter
        problem = f"{values[0]} is not a chatbridge Adapter"
    raise ConfigError(f"the backend {name!r} is installed and cannot be loaded: {problem}", provider=name)


def declared_profile(url: BackendURL) -> Profile:
    """
    Tell what the backend of *url* can do by itself; options that it requires may be missing.

    Raises:
        ConfigError: There is none, or an option is wrong.
    """
    adapter = load_adapter(url.scheme)
    given = dict(url.options)
    if url.model is not None and adapter.defaults.model_option is not None:
        given[adapter.defaults.model_option] = url.model
    return adapter.profile(read_options(adapter, given, complete=False))


def read_options(
    adapter: Adapter,
    written: Mapping[str, str],
    given: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    complete: bool = True,
) -> CommonOptions:
    """
    Check the options of a backend: those *written* in a config string, and those *given* in code.

    A config string is for one backend, so what would have no effect there is an error; code may be for any.

    Args:
        adapter: The backend's.
        written: As texts.
        given: They win over those written.
        environ: Where options are looked for that are neither.
        complete: Whether those that are required must be there.

    Raises:
        ConfigError: Naming the option at fault.
    """
    given, environ = Veiled(given or {}), Veiled(environ or {})
    options = structure_options(
        adapter.options,
        written,
        given,
        backend=adapter.name,
        env=adapter.defaults.env,
        environ=environ,
        complete=complete,
    )
    if "overflow" in written and adapter.profile(options).context is not ContextOwner.CLIENT:
        raise BadOption(
            backend=adapter.name,
            option="overflow",
            problem="would have no effect: what the model sees of a conversation is not up to chatbridge",
        )
    return options


def _base_url(url: BackendURL, adapter: Adapter, options: CommonOptions) -> str | None:
    if adapter.defaults.in_process:
        if url.host is not None:
            raise ConfigError(
                f"{adapter.name} lives in this process and takes no host", provider=adapter.name
            )
        return None
    host = url.host or adapter.defaults.host
    if host is None:
        raise ConfigError(
            f"{adapter.name} has no public host: name one, as in {adapter.name}://HOST", provider=adapter.name
        )
    if url.plain_http and not options.insecure and not is_loopback(host):
        raise ConfigError(
            f"{adapter.name}: plain http to {host} would show key and messages to the network; "
            "use https, or say insecure=true",
            provider=adapter.name,
        )
    scheme = "http" if url.plain_http else "https"
    authority = f"[{host}]" if ":" in host else host
    port = f":{url.port}" if url.port is not None else ""
    path = adapter.defaults.path if url.path is None else url.path
    return f"{scheme}://{authority}{port}{path}"


def _placed(
    url: BackendURL, written: Mapping[str, str], adapter: Adapter, environ: Mapping[str, str]
) -> BackendURL:
    """Give *url*, with the options *written*, the host of the environment, unless it names one itself."""
    variable = adapter.defaults.base_url
    text = environ.get(variable, "").strip() if variable is not None and url.host is None else ""
    if not text:
        return url
    scheme, colon, rest = text.partition("://")
    suffix = {"https": "", "http": "+http"}.get(scheme.lower())
    problem = "it begins with neither https:// nor http://"
    if colon and suffix is not None:
        try:
            place = BackendURL.parse(f"{adapter.name}{suffix}://{rest}")
        except ConfigError as error:
            problem = str(error)
        else:
            if not place.options:
                return evolve(place, options=tuple(written.items()))
            problem = "it has a part after '?', and options belong into the config string"
    raise ConfigError(f"{adapter.name}: the variable {variable} is not a base URL: {problem}")


def _recording_of(url: BackendURL, given: Mapping[str, object]) -> Path | None:
    """Say which file the exchange is to be recorded in; None where it is not."""
    written, named = url.options.get("record"), given.get("record")
    path = written if named is None else named
    if path is not None and not isinstance(path, str | Path):
        raise ConfigError(f"{url.scheme}: record is the path of a file, not {type(path).__name__}")
    if path == "" or (path is None and url.recorded) or (written is not None and not url.recorded):
        example = evolve(url.with_options(record="FILE"), recorded=True)
        raise ConfigError(
            f"{url.scheme}: to record the exchange, write both 'record+' and where to, as in {example}, "
            "or in code connect(url, record=FILE)"
        )
    return None if path is None else Path(path)


def resolve(
    url: BackendURL, given: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Target:
    """
    Find the adapter of *url*, and check its options together with those *given* in code.

    Raises:
        ConfigError: Naming the part at fault.
    """
    # What is raised may be shown with the variables of this function.
    given, environ = Veiled(given or {}), Veiled(os.environ if environ is None else environ)
    record = _recording_of(url, given)
    url, given = url.unrecorded(), Veiled({name: value for name, value in given.items() if name != "record"})
    adapter = load_adapter(url.scheme)
    if record is not None and adapter.defaults.in_process:
        raise ConfigError(
            f"{adapter.name} lives in this process: there is no exchange with a server to record",
            provider=adapter.name,
        )
    written = dict(url.options)
    if url.model is not None:
        option = adapter.defaults.model_option
        if option is None:
            raise ConfigError(
                f"{adapter.name} has no models to choose from: leave out the part after ':'",
                provider=adapter.name,
            )
        if option in written:
            raise ConfigError(
                f"{adapter.name}: the model is named twice, after ':' and as option {option!r}",
                provider=adapter.name,
            )
        written[option] = url.model
    url = _placed(url, written, adapter, environ)
    options = read_options(adapter, written, given, environ)
    return Target(url, adapter, options, _base_url(url, adapter, options), record)

"""From a scheme to its adapter, and from a config string to all that opening a backend needs."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from chatbridge import registry
from chatbridge.backend import (
    Feature,
    PartialBackend,
    Profile,
    SettleBy,
    Support,
    by_time,
    check_extra,
    select_messages,
    text_to_send,
)
from chatbridge.config import BackendURL
from chatbridge.domain import (
    Attachment,
    Conversation,
    Message,
    Opaque,
    Part,
    Reasoning,
    Role,
    SendOptions,
    ToolCall,
    ToolResult,
)
from chatbridge.errors import (
    BadOption,
    ChatbridgeError,
    ConfigError,
    UnknownBackend,
    UnsupportedFeature,
    UsageError,
)
from chatbridge.options import CommonOptions, option
from chatbridge.registry import Adapter, Defaults, backend_names, load_adapter, resolve
from chatbridge.secret import Secret


def assert_plain(error: ChatbridgeError) -> None:
    """One printable line, and no foreign exception hangs on it."""
    assert str(error).isprintable()
    assert None is error.__cause__
    assert None is error.__context__


# Finding adapters


SOURCE = """
from chatbridge.options import CommonOptions
from chatbridge.registry import Adapter

ADAPTER = Adapter("one", "One.", CommonOptions, print, print, emulator={emulator!r})
class Emulator: pass
"""
GOOD = SOURCE.format(emulator=None)


@frozen
class Site:
    """A directory of installed packages, made for one test."""

    path: Path

    def install(self, package: str, entries: Mapping[str, str], **modules: str) -> None:
        for name, source in modules.items():
            (self.path / f"{name}.py").write_text(source)
        info = self.path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[chatbridge.backends]", *lines]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    invalidate_caches()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Site(tmp_path)
    for name in [name for name in sys.modules if name.startswith("made_here_")]:
        del sys.modules[name]


def test_only_the_adapter_that_is_named_is_imported(site: Site) -> None:
    entries = {"one": "made_here_one:ADAPTER", "two": "made_here_two:ADAPTER"}
    site.install("acme", entries, made_here_one=GOOD, made_here_two="raise SystemExit")

    assert {"one", "two"} <= set(backend_names())
    assert sorted(backend_names()) == list(backend_names())
    assert not {"made_here_one", "made_here_two"} & set(sys.modules)
    assert "One." == load_adapter("one").summary
    assert "made_here_two" not in sys.modules


def test_an_unknown_scheme_is_refused_with_the_nearest_and_the_list(site: Site) -> None:
    site.install("acme", {"acme-chat": "made_here_one:ADAPTER"})

    with pytest.raises(UnknownBackend, match="'acme_chat' is installed; did you mean 'acme-chat'") as caught:
        load_adapter("acme_chat")

    assert_plain(caught.value)
    assert backend_names() == caught.value.installed


@pytest.mark.parametrize(
    ("value", "source", "problem"),
    [
        ("made_here_none:ADAPTER", "", "ModuleNotFoundError: No module named 'made_here_none'"),
        ("made_here_one:ADAPTER", "import made_here_none", "ModuleNotFoundError: .* 'made_here_none'"),
        ("made_here_one:ADAPTER", "raise ImportError('two\\nlines')", r"ImportError: two\\nlines"),
        ("made_here_one:ADAPTER", "", "AttributeError: module 'made_here_one' has no attribute 'ADAPTER'"),
        ("made_here_one:ADAPTER", "ADAPTER = 'x'", "made_here_one:ADAPTER is not a chatbridge Adapter"),
        ("made_here_one:Adapter", GOOD, "made_here_one:Adapter is not a chatbridge Adapter"),
        ("made_here_one", "", "made_here_one is not a chatbridge Adapter"),
    ],
)
def test_a_broken_package_is_a_config_error_that_says_what_is_broken(
    site: Site, value: str, source: str, problem: str
) -> None:
    site.install("acme", {"one": value}, made_here_one=source)

    with pytest.raises(ConfigError, match=f"'one' is installed and cannot be loaded: {problem}") as caught:
        load_adapter("one")

    assert_plain(caught.value)
    assert "one" == caught.value.provider


def test_two_packages_of_one_scheme_are_refused_and_both_named(site: Site) -> None:
    site.install("acme", {"one": "made_here_one:ADAPTER"}, made_here_one=GOOD)
    site.install("evil", {"one": "made_here_evil:ADAPTER"}, made_here_evil="raise SystemExit")

    with pytest.raises(ConfigError, match="more than once: made_here_evil:ADAPTER and made_here_one:ADAPTER"):
        load_adapter("one")


def test_one_adapter_named_by_two_packages_is_one(site: Site) -> None:
    site.install("acme", {"one": "made_here_one:ADAPTER"}, made_here_one=GOOD)
    site.install("acme_extra", {"one": "made_here_one:ADAPTER"})

    assert "one" == load_adapter("one").name


@pytest.mark.parametrize(
    ("emulator", "problem"),
    [
        (None, "one has no emulator"),
        ("made_here_none:Emulator", "the emulator of one cannot be loaded: ModuleNotFoundError"),
        ("made_here_one:Emu", "the emulator of one cannot be loaded: AttributeError"),
    ],
)
def test_an_emulator_that_is_not_there_is_a_config_error(
    site: Site, emulator: str | None, problem: str
) -> None:
    site.install("acme", {"one": "made_here_one:ADAPTER"}, made_here_one=SOURCE.format(emulator=emulator))

    with pytest.raises(ConfigError, match=problem) as caught:
        load_adapter("one").load_emulator()
    assert_plain(caught.value)


def test_an_emulator_is_imported_when_it_is_asked_for(site: Site) -> None:
    source = SOURCE.format(emulator="made_here_emulator:Emulator")
    site.install("acme", {"one": "made_here_one:ADAPTER"}, made_here_one=source, made_here_emulator=source)
    adapter = load_adapter("one")

    assert "made_here_emulator" not in sys.modules
    assert "Emulator" == adapter.load_emulator().__name__


# Resolving config strings


@frozen(kw_only=True)
class Options(CommonOptions):
    key: Secret | None = option("The key.", default=None)
    llm: str = option("Which one.", default="auto")


PROFILE = Profile(
    "acme",
    {Feature.SEND: Support.NATIVE, Feature.LIST: Support.EMULATED, Feature.GET: Support.UNSUPPORTED},
    instead={Feature.RENAME: "keep a title"},
)


class Backend(PartialBackend):
    def __init__(self, _: Any, __: Any) -> None:
        pass

    @property
    def profile(self) -> Profile:
        return PROFILE


def profile(_: Options) -> Profile:
    return PROFILE


def adapter(name: str, defaults: Defaults) -> Adapter:
    return Adapter(name, "Acme's.", Options, profile, Backend, defaults)


ADAPTERS = {
    "acme": adapter(
        "acme", Defaults("api.acme.example", "/api/v1", {"key": ("ACME_KEY",)}, model_option="llm")
    ),
    "own": adapter("own", Defaults()),
    "here": adapter("here", Defaults(in_process=True)),
    "ours": adapter(
        "ours", Defaults("api.ours.example", "/v1", base_url="OURS_BASE_URL", model_option="llm")
    ),
}


@pytest.fixture
def _adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load_adapter", ADAPTERS.__getitem__)


@pytest.mark.usefixtures("_adapters")
@pytest.mark.parametrize(
    ("text", "base_url"),
    [
        ("acme:", "https://api.acme.example/api/v1"),
        ("acme:m", "https://api.acme.example/api/v1"),
        ("acme://h", "https://h/api/v1"),
        ("acme://h/", "https://h"),
        ("acme://h/v2/x/", "https://h/v2/x"),
        ("acme://h:8443", "https://h:8443/api/v1"),
        ("acme://h:8443/", "https://h:8443"),
        ("acme://[::1]:8443/x", "https://[::1]:8443/x"),
        ("acme+http://127.0.0.1:8101", "http://127.0.0.1:8101/api/v1"),
        ("acme+http://127.9.9.9", "http://127.9.9.9/api/v1"),
        ("acme+http://LOCALHOST:80/", "http://localhost:80"),
        ("acme+http://[::1]", "http://[::1]/api/v1"),
        ("acme+http://h?insecure=true", "http://h/api/v1"),
        ("acme+http://10.0.0.1/x?insecure=1", "http://10.0.0.1/x"),
        ("own://h", "https://h"),
        ("own://h/x", "https://h/x"),
        ("here:", None),
    ],
)
def test_each_form_of_a_config_string_has_its_base_url(text: str, base_url: str | None) -> None:
    url = BackendURL.parse(text)
    target = resolve(url, environ={})

    assert base_url == target.base_url
    assert (url, ADAPTERS[url.scheme]) == (target.url, target.adapter)


@pytest.mark.usefixtures("_adapters")
@pytest.mark.parametrize(
    ("text", "variable", "base_url", "shown"),
    [
        ("ours:", "", "https://api.ours.example/v1", "ours:"),
        ("ours:m", " ", "https://api.ours.example/v1", "ours:m"),
        ("ours:", "https://h/api/", "https://h/api", "ours://h/api"),
        ("ours:", "HTTPS://H", "https://h/v1", "ours://h"),
        ("ours:", "http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/v1", "ours+http://127.0.0.1:11434/v1"),
        ("ours:", "http://[::1]:1/", "http://[::1]:1", "ours+http://[::1]:1/"),
        ("ours:m?timeout=5", "https://h/x", "https://h/x", "ours://h/x?llm=m&timeout=5"),
        ("ours:?insecure=true", "http://h", "http://h/v1", "ours+http://h?insecure=true"),
        ("ours://own/y", "https://h/x", "https://own/y", "ours://own/y"),
    ],
)
def test_the_environment_may_say_where_the_api_is(
    text: str, variable: str, base_url: str, shown: str
) -> None:
    """A host in the config string wins."""
    target = resolve(BackendURL.parse(text), environ={"OURS_BASE_URL": variable})

    assert (base_url, shown) == (target.base_url, str(target.url))


@pytest.mark.usefixtures("_adapters")
def test_the_model_goes_with_the_host_of_the_environment() -> None:
    target = resolve(BackendURL.parse("ours:m"), environ={"OURS_BASE_URL": "https://h"})

    assert Options(llm="m") == target.options


@pytest.mark.usefixtures("_adapters")
@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        ("h/v1", "it begins with neither https:// nor http://"),
        ("ftp://h/v1", "it begins with neither https:// nor http://"),
        ("https://", "there is no host after '//'"),
        ("https://hunter2:hunter3@h/v1", "the part before '@' must not be a secret"),
        ("https://h/v1?api-version=1", "an option's name is up to 64 of"),
        ("https://h/v1?key=env:X", "it has a part after '\\?', and options belong into the config string"),
    ],
)
def test_a_base_url_in_the_environment_that_is_none_is_refused(variable: str, problem: str) -> None:
    with pytest.raises(
        ConfigError, match=f"ours: the variable OURS_BASE_URL is not a base URL: {problem}"
    ) as caught:
        resolve(BackendURL.parse("ours:m"), environ={"OURS_BASE_URL": variable})
    assert_plain(caught.value)
    assert "hunter" not in str(caught.value)


@pytest.mark.usefixtures("_adapters")
def test_plain_http_in_the_environment_is_refused_as_elsewhere() -> None:
    with pytest.raises(ConfigError, match=PLAIN):
        resolve(BackendURL.parse("ours:"), environ={"OURS_BASE_URL": "http://h/v1"})


PLAIN = "plain http to .* would show key and messages to the network; use https, or say insecure=true"
ELSEWHERE = "h 10.0.0.1 0.0.0.0 128.0.0.1 [::2] [::] localhost.h 127.0.0.1.h localhost4 h?insecure=false"


@pytest.mark.usefixtures("_adapters")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        *((f"acme+http://{host}", PLAIN) for host in ELSEWHERE.split()),
        ("own:", "own has no public host: name one, as in own://HOST"),
        ("here://h", "here lives in this process and takes no host"),
        ("here:m", "here has no models to choose from: leave out the part after ':'"),
        ("acme:m?llm=n", "acme: the model is named twice, after ':' and as option 'llm'"),
        ("acme:?model=n", "acme: option 'model' is unknown"),
        ("acme:?key=env:NOWHERE", "acme needs a key, and there is none in NOWHERE"),
    ],
)
def test_a_config_string_that_cannot_be_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        resolve(BackendURL.parse(text), environ={})
    assert_plain(caught.value)


@pytest.mark.usefixtures("_adapters")
def test_the_model_after_the_colon_is_the_adapters_option_for_it() -> None:
    url = BackendURL.parse("acme:m")

    assert Options(llm="m") == resolve(url, environ={}).options
    assert Options(llm="n") == resolve(url, {"llm": "n"}, {}).options
    assert Options(llm="m", timeout=5) == resolve(url, {"llm": None, "timeout": "5"}, {}).options


@pytest.mark.usefixtures("_adapters")
def test_insecure_may_be_said_in_code() -> None:
    assert "http://h" == resolve(BackendURL.parse("own+http://h"), {"insecure": True}).base_url


@pytest.mark.usefixtures("_adapters")
def test_the_environment_is_the_process_own_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "one")
    url = BackendURL.parse("acme:")

    assert Options(key=Secret("one")) == resolve(url).options
    assert Options(key=Secret("two")) == resolve(url, environ={"ACME_KEY": "two"}).options


@pytest.mark.usefixtures("_adapters")
def test_x4_what_was_resolved_shows_no_secret() -> None:
    target = resolve(BackendURL.parse("acme:"), {"key": "hunter2"}, {})

    assert "hunter2" not in repr(target)


# What adapters are made with


def test_a_feature_that_a_profile_does_not_name_is_unsupported() -> None:
    expected = {Feature.SEND: Support.NATIVE, Feature.LIST: Support.EMULATED}

    for feature in Feature:
        assert expected.get(feature, Support.UNSUPPORTED) is PROFILE.support(feature)
        assert (feature in expected) is PROFILE.can(feature)


def test_a_profile_with_other_features_leaves_the_first_as_it_was() -> None:
    other = PROFILE.with_features({Feature.LIST: Support.NATIVE, Feature.STREAM: Support.EMULATED})

    assert Support.EMULATED is PROFILE.support(Feature.LIST)
    assert [Support.NATIVE, Support.EMULATED, Support.NATIVE] == [
        other.support(feature) for feature in (Feature.LIST, Feature.STREAM, Feature.SEND)
    ]


def test_a_profile_copies_what_it_is_made_of() -> None:
    features = {Feature.SEND: Support.NATIVE}
    made = Profile("acme", features, options=["model"], settle_by=[SettleBy.KEY], notes=["A note."])
    features.clear()

    assert made.can(Feature.SEND)
    assert {"model"} == made.options
    assert {SettleBy.KEY} == made.settle_by
    assert ("A note.",) == made.notes


async def test_a_partial_backend_refuses_by_feature_what_it_does_not_override() -> None:
    backend, message, options = Backend(None, None), Message.user("Hi"), SendOptions()
    calls: dict[Feature, Callable[[], Any]] = {
        Feature.CREATE: backend.create_conversation,
        Feature.GET: lambda: backend.get_conversation("c"),
        Feature.LIST: backend.list_conversations,
        Feature.RENAME: lambda: backend.rename_conversation("c", "T"),
        Feature.DELETE: lambda: backend.delete_conversation("c"),
        Feature.HISTORY: lambda: backend.list_messages("c"),
        Feature.SEND: lambda: backend.send("c", message, options),
        Feature.STREAM: lambda: backend.stream("c", message, options),
    }
    for feature, call in calls.items():
        with pytest.raises(UnsupportedFeature) as caught:
            await call()
        assert (feature, "acme") == (caught.value.feature, caught.value.provider)
        assert PROFILE.instead.get(feature) == caught.value.instead
    await backend.close()


class Creating(Backend):
    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        self._refuse_given(title=title, system=system, history_seed=history)
        return Conversation("c", extra=extra or {})


async def test_a_partial_backend_refuses_what_is_asked_of_a_creation_unless_it_is_empty() -> None:
    backend = Creating(None, None)

    assert Conversation("c") == await backend.create_conversation(title=None, system="", history=[])
    with pytest.raises(UnsupportedFeature, match="acme does not support history_seed"):
        await backend.create_conversation(history=[Message.user("Hi")])


def test_a_partial_backend_without_a_profile_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="abstract"):
        PartialBackend()  # type: ignore[abstract]


def test_only_text_of_the_users_goes_where_nothing_else_is_taken() -> None:
    assert "HiHo" == text_to_send(Message.user(["Hi", "Ho"]), PROFILE)
    with pytest.raises(UsageError, match="messages of the user only, not of the assistant"):
        text_to_send(Message.assistant("Hi"), PROFILE)


@pytest.mark.parametrize(
    ("part", "feature"),
    [
        (Attachment("text/plain", b""), Feature.ATTACHMENTS),
        (Reasoning("So."), Feature.REASONING),
        (ToolCall("1", "look", {}), Feature.TOOLS),
        (ToolResult("1", "seen"), Feature.TOOLS),
    ],
)
def test_a_part_that_is_not_taken_is_refused_by_its_feature(part: Part, feature: Feature) -> None:
    with pytest.raises(UnsupportedFeature) as caught:
        text_to_send(Message.user(["Hi", part]), PROFILE)

    assert feature.value == caught.value.feature


def test_a_part_of_an_apis_own_goes_back_to_its_origin_only() -> None:
    with pytest.raises(UsageError, match="a part of the kind 'card' can be given back to other only"):
        text_to_send(Message.user([Opaque("other", "card", {})]), PROFILE)


def test_a_lone_text_is_one_option_or_note_and_not_its_letters() -> None:
    one = Profile("acme", {}, options="model", notes="It is slow.")

    assert (frozenset({"model"}), ("It is slow.",)) == (one.options, one.notes)


def test_an_extra_that_the_adapter_does_not_know_is_refused() -> None:
    check_extra({"tone": 1}, ("tone", "mood"), PROFILE)
    with pytest.raises(BadOption, match="acme: option 'mod' is unknown in extra; did you mean 'mood'"):
        check_extra({"tone": 1, "mod": 2}, ("tone", "mood"), PROFILE)


async def history() -> AsyncIterator[Message]:
    for number in range(5):
        yield Message("user", str(number), id=f"m{number}")


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, "01234"),
        ({"limit": 2}, "01"),
        ({"limit": 0}, ""),
        ({"limit": 9}, "01234"),
        ({"after": "m2"}, "34"),
        ({"after": "m4"}, ""),
        ({"after": "m1", "limit": 2}, "23"),
        ({"newest_first": True}, "43210"),
        ({"newest_first": True, "limit": 2}, "43"),
        ({"newest_first": True, "limit": 0}, ""),
        ({"newest_first": True, "after": "m2"}, "43"),
        ({"newest_first": True, "after": "m1", "limit": 2}, "43"),
    ],
)
async def test_a_history_is_filtered_where_the_api_cannot(selection: dict[str, Any], expected: str) -> None:
    assert list(expected) == [message.text async for message in select_messages(history(), **selection)]


@pytest.mark.parametrize("selection", [{}, {"limit": 2}, {"newest_first": True}])
async def test_a_message_that_is_not_in_the_history_cannot_be_begun_behind(selection: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no message with the id 'm9'"):
        _ = [message async for message in select_messages(history(), after="m9", **selection)]


async def test_a_history_is_read_no_further_than_it_is_wanted() -> None:
    read: list[Message] = []

    async def noted() -> AsyncIterator[Message]:
        async for message in history():
            read.append(message)
            yield message

    assert 2 == len([message async for message in select_messages(noted(), limit=2)])
    assert 2 == len(read)


@pytest.mark.parametrize(("selection", "expected"), [({"limit": 1}, 1), ({"limit": 0}, 0), ({}, 1)])
@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_history_is_closed_when_it_is_not_wanted_any_more(
    selection: dict[str, Any], expected: int, newest_first: bool
) -> None:
    """Nothing of it is read where nothing is wanted."""
    begun = closed = 0

    async def noted() -> AsyncIterator[Message]:
        nonlocal begun, closed
        begun += 1
        try:
            async for message in history():
                yield message
        finally:
            closed += 1

    async with aclosing(select_messages(noted(), newest_first=newest_first, **selection)) as selected:
        async for _ in selected:
            break
    assert (expected, expected) == (begun, closed)


def at(seconds: int | None, text: str) -> Message:
    moment = None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return Message(Role.USER, text, created_at=moment)


@pytest.mark.parametrize(
    ("received", "sorted_"),
    [
        ([], ""),
        ([at(1, "a"), at(2, "b")], "ab"),
        ([at(2, "b"), at(1, "a")], "ab"),
        ([at(1, "a"), at(1, "b"), at(1, "c")], "abc"),
        ([at(2, "c"), at(None, "d"), at(1, "a"), at(None, "b")], "abcd"),
        ([at(None, "a"), at(1, "b"), at(None, "c")], "abc"),
    ],
)
def test_messages_are_sorted_by_time_and_otherwise_stay_as_they_came(
    received: list[Message], sorted_: str
) -> None:
    assert sorted_ == "".join(message.text for message in by_time(received))


async def test_a_history_that_is_there_already_is_selected_from_as_well() -> None:
    messages = [at(1, "a"), at(2, "b"), at(3, "c")]
    chosen = [message async for message in select_messages(messages, limit=2, newest_first=True)]
    assert ["c", "b"] == [message.text for message in chosen]

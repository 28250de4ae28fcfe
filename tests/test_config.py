"""Config strings, and where one is found when none is given."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge.config import BackendURL, is_reference, looks_secret
from chatbridge.errors import BadOption, ChatbridgeError, ConfigError
from chatbridge.named import find_backend, known_backends

SECRET = "sk-live-0123456789abcdef"

names = st.from_regex(r"[a-z][a-z0-9_]{0,9}9", fullmatch=True)
labels = st.from_regex(r"[a-z_]([a-z0-9_-]{0,9}[a-z0-9_])?", fullmatch=True)
hosts = (
    st.lists(labels, min_size=2, max_size=4).map(".".join)
    | st.sampled_from(["localhost", "example.com.", "xn--bcher-kva.example", "Example.COM", "127.0.0.1"])
    | st.ip_addresses().map(str)
)
characters = st.characters(exclude_categories=["Cs"])
values = st.text(characters, max_size=12).filter(lambda text: not looks_secret(text))
models = st.text(characters.filter(lambda c: c not in "@:/"), min_size=1, max_size=12).filter(
    lambda text: not looks_secret(text) and text.count(".") < 2 and text != "localhost" and text[0] != "["
) | st.sampled_from(["meta/llama-3.1", "openai:gpt-4o", "qwen:72b/x"])
segments = st.from_regex(r"([A-Za-z0-9_~!$&'()*+,;=:@-]|%C3%A9|%20){1,6}", fullmatch=True).filter(
    lambda segment: not looks_secret(segment)
)
paths = st.none() | st.lists(segments, max_size=3).map(lambda found: "".join("/" + part for part in found))
schemes = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_.]{0,9}", fullmatch=True)
options = st.dictionaries(names, values, max_size=3).map(lambda found: tuple(found.items()))
urls = st.builds(
    BackendURL,
    schemes,
    plain_http=st.booleans(),
    host=hosts,
    port=st.none() | st.integers(1, 65535),
    path=paths,
    options=options,
) | st.builds(BackendURL, schemes, model=st.none() | models, options=options)


@given(urls)
def test_a_config_string_is_read_as_it_is_written(url: BackendURL) -> None:
    assert url == BackendURL.parse(str(url))
    assert str(url) == str(BackendURL.parse(str(url)))
    assert str(url).isprintable()
    assert str(url).isascii()


@given(urls)
def test_it_is_a_value_that_can_be_hashed_pickled_and_copied(url: BackendURL) -> None:
    for twin in (pickle.loads(pickle.dumps(url)), copy.copy(url), copy.deepcopy(url), eval(repr(url))):
        assert url == twin
        assert hash(url) == hash(twin)


def test_it_cannot_be_changed() -> None:
    url: Any = BackendURL.parse("kaziro:m?a=1")
    url.options["a"] = "2"

    assert {"a": "1"} == url.options
    for name in attrs.fields_dict(BackendURL):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(url, name, None)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("kaziro:", BackendURL("kaziro")),
        ("KaZiro:", BackendURL("kaziro")),
        ("kaziro:?", BackendURL("kaziro")),
        ("kaziro:kaziro-broker", BackendURL("kaziro", model="kaziro-broker")),
        ("h2ogpte:mistral:7b/x@2", BackendURL("h2ogpte", model="mistral:7b/x@2")),
        ("h2ogpte:a%20b%3F", BackendURL("h2ogpte", model="a b?")),
        ("h2ogpte:meta/llama-3.1", BackendURL("h2ogpte", model="meta/llama-3.1")),
        ("h2ogpte://Example.COM", BackendURL("h2ogpte", host="example.com")),
        ("h2ogpte://h/", BackendURL("h2ogpte", host="h", path="")),
        ("h2ogpte://h/api/v1", BackendURL("h2ogpte", host="h", path="/api/v1")),
        ("h2ogpte://h/api/v1/", BackendURL("h2ogpte", host="h", path="/api/v1")),
        ("h2ogpte://h/a%C3%A9:@!", BackendURL("h2ogpte", host="h", path="/a%C3%A9:@!")),
        ("h2ogpte://h:08101", BackendURL("h2ogpte", host="h", port=8101)),
        ("h2ogpte://[::1]", BackendURL("h2ogpte", host="::1")),
        ("h2ogpte+http://[::FFFF]:80/", BackendURL("h2ogpte", True, "::ffff", 80, "")),
        ("h2ogpte+HTTP://127.0.0.1:8101", BackendURL("h2ogpte", True, "127.0.0.1", 8101)),
        ("h2ogpte://sk-1.example.com", BackendURL("h2ogpte", host="sk-1.example.com")),
        ("a:?b=1&a=2", BackendURL("a", options=(("a", "2"), ("b", "1")))),
        ("a:?b=", BackendURL("a", options=(("b", ""),))),
        ("a:?b=c=d%26e+f", BackendURL("a", options=(("b", "c=d&e+f"),))),
        ("a:?b=x://y?z", BackendURL("a", options=(("b", "x://y?z"),))),
        ("a:?key=env:A_KEY", BackendURL("a", options=(("key", "env:A_KEY"),))),
        ("a:?my_token=file:/x/sk-1234", BackendURL("a", options=(("my_token", "file:/x/sk-1234"),))),
        ("a:?max_tokens=5", BackendURL("a", options=(("max_tokens", "5"),))),
        ("a:?auth=basic", BackendURL("a", options=(("auth", "basic"),))),
        ("a:task-list", BackendURL("a", model="task-list")),
        ("a:?lang=sk-SK", BackendURL("a", options=(("lang", "sk-SK"),))),
        ("a:?q=basic%20thoughts", BackendURL("a", options=(("q", "basic thoughts"),))),
    ],
)  # fmt: skip
def test_a_form_that_is_understood(text: str, url: BackendURL) -> None:
    assert url == BackendURL.parse(text)
    assert url == BackendURL.parse(str(url))


def test_rendering_leaves_out_what_is_not_there_and_sorts_the_options() -> None:
    assert "kaziro:" == str(BackendURL.parse("Kaziro:?"))
    assert "h2ogpte+http://[::1]:80/?a=1&b=%20" == str(BackendURL.parse("h2ogpte+http://[::1]:80/?b=%20&a=1"))
    assert "BackendURL.parse('kaziro:m?a=1')" == repr(BackendURL.parse("kaziro:m?a=1"))


def test_options_are_set_replaced_and_removed_on_a_copy() -> None:
    url = BackendURL.parse("a://h/p?b=1&c=2")

    assert "a://h/p?b=3&d=4" == str(url.with_options(b="3", c=None, d="4", e=None))
    assert "a://h/p?b=1&c=2" == str(url)


LONG = "x" * 10**6
NAME = "begins with a backend's name and ':'"
BLANKS = "no blanks and no control characters"
SCHEME = "a backend's name is up to 64"
SUFFIX = "only '\\+http' is known"
HOST = "the host is no host name"
NO_HOST = "there is no host"
FORM = "the host is not of the form"
IPV4 = "IPv4 address"
IPV6 = "not an IPv6 address"
PORT = "the port is not between 1 and 65535"
PATH = "the base path has a part that is empty"
OPTION = "an option's name is up to 64"
EQUALS = "written name=value"
HEX = "two hex digits"
UTF8 = "not UTF-8"
NEEDS_HOST = "need a host"
LITERAL = r"must not be a secret, .* key=env:NAME, key=file:PATH, or in code connect\(url, key=\.\.\.\)"

PLAIN_BAD = {
    NAME: "kaziro : //host 1a: -a: é: a/b:c ?a=b: kaz%69ro:",
    "chain": "a:|b: A|B a:?b=|",
    "'#...' part": "a:#x a://h/# a://h?b=#c",
    SUFFIX: "a+ftp://h a+https://h a+://h a+http+http://h",
    NEEDS_HOST: "a+http: a+http:m",
    NO_HOST: "a:// a:/// a:///x a://:80 a://?b=1 a://[] a://[]:80",
    FORM: "a://h:80:90 a://::1 a://[::1 a://::1] a://[::1]x a://[[::1]] a://x[::1]",
    IPV6: "a://[h] a://[127.0.0.1] a://[::1::] a://[1:2:3] a://[::g] a://[fe80::1%25eth0] a://[v1.x:y]",
    HOST: "a://-h a://h- a://h..x a://.h a://h.. a://. a://.. a://h%2Ex a://h,x a://h\\x a://bücher.de",
    IPV4: "a://127.1 a://2130706433 a://0x7f01 a://127.0.0.256 a://1.2.3.4.5 a://0177.0.0.1 a://127.0.0.1. a://h.0x1",
    PORT: "a://h: a://h:0 a://h:65536 a://h:99999 a://h:-1 a://h:+80 a://h:8_0 a://h:x a://h:80x a://h:٣ a://[::1]:",
    PATH: "a://h// a://h//x a://h/x//y a://h/. a://h/.. a://h/x/../y a://h/./x a://h/%2e%2E/x a://h/.%2e "
    'a://h/x%2Fy a://h/x%5cy a://h/x\\y a://h/é a://h/<x> a://h/"',
    "the base path has a control character": "a://h/x%00 a://h/%0d%0aX a://h/%C2%85",
    f"the base path: .*{HEX}": "a://h/% a://h/%zz",
    f"the base path: .*{UTF8}": "a://h/%ff a://h/%ed%a0%80",
    f"the model: .*{HEX}": "a:% a:%4",
    f"the model: .*{UTF8}": "a:%ff a:%C0%AF",
    EQUALS: "a:?x a:?x=1& a:?&x=1 a:?x=1&&y=2",
    OPTION: "a:?=1 a:?X=1 a:?1x=1 a:?x-y=1 a:?x%79=1 a:?x[]=1 a:?é=1 a:?_x=1",
    "option 'x' is given twice": "a:?x=1&x=1 a:?x=1&y=2&x=3",
    f"option 'x': .*{HEX}": "a:?x=% a:?x=%g0",
    f"option 'x': .*{UTF8}": "a:?x=%ff",
    LITERAL: "a:?key= a:?key=env: a:?key=env:A-B a:?key=file: a:?key=ENV:X a:?key=environ:X",
}
ODD_BAD = {
    NAME: ["", LONG],
    BLANKS: [
        *(" ", " kaziro:", "kaziro: ", "kaziro:\n", "kaziro:a\tb"),
        *("a:\0", "a:\x7f", "a:\x85", "a:\xa0", "a:\u2028", "a:\ud800", "a://h/\udc80"),
    ],
    "chain": ["a: | b:", "A | B"],
    SCHEME: [LONG + ":"],
    HOST: [
        *("a://h!", "a://*"),
        *("a://\u212aaziro.xyz", "a://\uff45xample.com"),  # a Kelvin sign and a wide letter
        *("a://" + "x" * 64, "a://" + "x." * 127, "a://" + LONG, "a://" + "-" * 10**6),
    ],
    PORT: ["a://h:" + "9" * 5000],
    OPTION: [f"a:?{LONG}=1"],
}
BAD = [(text, problem) for problem, bad in PLAIN_BAD.items() for text in bad.split()] + [
    (text, problem) for problem, bad in ODD_BAD.items() for text in bad
]


@pytest.mark.parametrize(("text", "problem"), BAD, ids=[ascii(text)[:30] for text, _ in BAD])
def test_a_bad_config_string_is_refused_and_the_part_at_fault_named(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        BackendURL.parse(text)

    assert_plain(caught.value)
    assert len(str(caught.value)) < 300


def assert_plain(error: ChatbridgeError) -> None:
    """One printable line, and no foreign exception hangs on it."""
    assert str(error).isprintable()
    assert None is error.__cause__
    assert None is error.__context__


# What is written in place of S is a secret by its place already, in place of K only by its form.
LEAKS = """
a://S@h a://S:@h a://:S@h a://me:S@h a://me:S@h:80/x?b=1 a://S%40x@h a+http://S@[::1] https://me:S@h
a:me:S@h a:/me:S@h a:me%3AS%40h a://me:S?x@h a://me:S#x@h a://me:S/x@h a:?key=S a:?api_key=S
a:?apikey=S a:?access_token=S a:?token=S a:?password=S a:?pwd=S a:?client_secret=S
a:?session_token=S a:?x_authorization=S a:?cookie=S a:?jwt=S a:?passphrase=S a:?key=%53
a:?key=S&key=S a:?key=env:S- a:?b=1&key=S% K K: K:m K+x: K+http://h K://h a:K a:x/K a://K a://K:80
a://h/K a://h/x/K/y a://h:K a://h?K a://h?K=1 a://h?b=K a://h?b=x%20K a:?b=env:K a:?key=file:K
a:?b=1&K a+K://h a://h/K#x a:K|b: a:?key=env:K a:K%
"""
SECRETS = [
    ("S", "hunter2"),
    ("K", SECRET),
    ("K", SECRET.replace("s", "%73")),
    ("K", "ghp_0123456789abcdefghij"),
    ("K", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc"),
]
LEAKED = [
    (text.replace(mark, secret), secret) for text in LEAKS.split() for mark, secret in SECRETS if mark in text
]


def find(text: str) -> BackendURL:
    return find_backend(text, {"CHATBRIDGE_CONFIG": "/"})


@pytest.mark.parametrize("read", [BackendURL.parse, find])
@pytest.mark.parametrize(("text", "secret"), LEAKED)
def test_x4_a_literal_secret_is_refused_and_shown_nowhere(
    text: str, secret: str, read: Callable[[str], BackendURL]
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)

    assert_plain(caught.value)
    everything = f"{caught.value} {caught.value!r} {vars(caught.value)} {pickle.dumps(caught.value)!r}"
    assert secret.lower() not in everything.lower()


def make(**fields: Any) -> BackendURL:
    arguments: dict[str, Any] = {"scheme": "a"} | fields
    return BackendURL(**arguments)


@pytest.mark.parametrize(
    "fields",
    [
        {"scheme": SECRET},
        {"model": SECRET},
        {"model": f"Bearer {SECRET[3:]}"},
        {"host": SECRET},
        {"host": "h", "path": f"/{SECRET}"},
        {"options": (("key", SECRET),)},
        {"options": (("limit", SECRET),)},
        {"options": (("header", "Basic dXNlcjpwYXNzd29yZA=="),)},
    ],
)
def test_a_literal_secret_is_refused_also_where_nothing_is_parsed(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must not be a secret") as caught:
        make(**fields)

    assert "0123456789" not in str(caught.value)
    assert "dXNlc" not in str(caught.value)


def test_a_literal_secret_is_refused_by_with_options_too() -> None:
    with pytest.raises(ConfigError, match=LITERAL) as caught:
        BackendURL("a").with_options(key="hunter2")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"scheme": "a+http"}, SCHEME),
        ({"scheme": "a:b"}, SCHEME),
        ({"scheme": ""}, SCHEME),
        ({"scheme": "\u212aaziro"}, SCHEME),
        ({"host": ""}, HOST),
        ({"host": "h/x"}, HOST),
        ({"host": "::1%/evil@"}, IPV6),
        ({"host": "h", "port": 0}, PORT),
        ({"host": "h", "path": "x"}, "does not begin with '/'"),
        ({"host": "h", "path": "/"}, PATH),
        ({"host": "h", "path": "/\ud800"}, UTF8),
        ({"host": "h", "model": "m"}, "the model is an option"),
        ({"port": 80}, NEEDS_HOST),
        ({"path": ""}, NEEDS_HOST),
        ({"model": ""}, "the model is empty"),
        ({"model": "\ud800"}, "the model: half a surrogate pair"),
        ({"options": (("a", "\udfff"),)}, "option 'a': half a surrogate pair"),
        ({"options": (("a", "1"), ("a", "1"))}, "given twice"),
        ({"options": (("A", "1"),)}, OPTION),
    ],
)
def test_what_could_not_be_written_as_a_config_string_cannot_be_made(
    fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        make(**fields)

    assert_plain(caught.value)


pieces = st.sampled_from(
    ["a", "Kaziro", ":", "//", "+http", "@", "|", "#", "?", "&", "=", "[::1]", "h.x", ":80", "/", "..", "%2e",
     "%", "%ff", "key=", "env:", "x=1", SECRET, "\n", "é", "\ud800"]
)  # fmt: skip


def shows_secret(text: str) -> bool:
    """Whether the secret is in *text* as a word of its own: task-list is none."""
    return re.search(rf"(?<![\w-]){SECRET}", text) is not None


@pytest.mark.parametrize("read", [BackendURL.parse, find])
@given(st.text() | st.lists(pieces | st.characters(), max_size=9).map("".join))
def test_any_text_is_a_stable_config_string_or_a_config_error(
    read: Callable[[str], BackendURL], text: str
) -> None:
    problem = None
    try:
        url = read(text)
    except ConfigError as error:
        problem = error
    else:
        assert url == BackendURL.parse(str(url))
        assert not shows_secret(str(url))
    if problem is not None:
        assert_plain(problem)
        assert not shows_secret(str(problem))


@pytest.mark.parametrize(
    ("value", "refers"),
    [
        ("env:A_KEY", True),
        ("env:_a1", True),
        ("file:/run/secrets/x", True),
        ("file:x y", True),
        ("env:", False),
        ("env:1A", False),
        ("env:A=B", False),
        ("env:AKIA0123456789ABCDEF", False),
        ("file:", False),
        (f"file:{SECRET}", False),
        ("key:A", False),
        ("env", False),
        ("", False),
    ],
)
def test_a_reference_names_a_variable_or_a_file(value: str, refers: bool) -> None:
    assert refers is is_reference(value)


def write(path: Path, text: str) -> dict[str, str]:
    """Write a config file, and give the environment that names it."""
    path.write_text(text)
    return {"CHATBRIDGE_CONFIG": str(path)}


GOOD = """
default = "work"
[backends.work]
url = "h2ogpte://h2o.example.com?llm=auto"
[backends.play]
url = "fake:"
"""


@pytest.mark.parametrize(
    ("text", "variable", "found"),
    [
        ("kaziro:", None, "kaziro:"),
        ("kaziro:", "fake:", "kaziro:"),
        ("play", None, "fake:"),
        ("play", "kaziro:", "fake:"),
        (None, "kaziro:m", "kaziro:m"),
        (None, "play", "fake:"),
        (None, None, "h2ogpte://h2o.example.com?llm=auto"),
        (None, "", "h2ogpte://h2o.example.com?llm=auto"),
    ],
)
def test_what_is_passed_comes_before_the_variable_and_that_before_the_files_default(
    tmp_path: Path, text: str | None, variable: str | None, found: str
) -> None:
    environ = write(tmp_path / "c.toml", GOOD)
    if variable is not None:
        environ["CHATBRIDGE_BACKEND"] = variable

    assert found == str(find_backend(text, environ))


def test_the_default_may_be_a_config_string(tmp_path: Path) -> None:
    assert "kaziro:" == str(find_backend(None, write(tmp_path / "c.toml", 'default = "kaziro:"')))


def test_a_config_string_needs_no_file() -> None:
    assert "kaziro:" == str(find_backend("kaziro:", {"CHATBRIDGE_CONFIG": "/nowhere"}))


def test_the_environment_is_the_process_own_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATBRIDGE_BACKEND", "kaziro:m")

    assert "kaziro:m" == str(find_backend(None))


@pytest.mark.parametrize("variable", ["CHATBRIDGE_CONFIG", "XDG_CONFIG_HOME", "HOME"])
def test_the_file_is_where_the_first_of_three_variables_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    places = {
        "CHATBRIDGE_CONFIG": tmp_path / "named.toml",
        "XDG_CONFIG_HOME": tmp_path / "xdg" / "chatbridge" / "config.toml",
        "HOME": tmp_path / "home" / ".config" / "chatbridge" / "config.toml",
    }
    settings = {
        "CHATBRIDGE_CONFIG": str(tmp_path / "named.toml"),
        "XDG_CONFIG_HOME": str(tmp_path / "xdg"),
        "HOME": str(tmp_path / "home"),
    }
    for name, path in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'default = "{name.lower().split("_")[0]}:"')
    monkeypatch.setattr(Path, "home", lambda: Path(settings["HOME"]))
    first = list(settings).index(variable)
    unset = dict.fromkeys(list(settings)[:first], "")

    found = find_backend(None, {**settings, **unset})

    assert f"{variable.lower().split('_')[0]}:" == str(found)


def test_no_file_in_the_usual_place_is_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no backend is named: .* set CHATBRIDGE_BACKEND, or"):
        find_backend(None, {"XDG_CONFIG_HOME": str(tmp_path)})
    with pytest.raises(
        ConfigError, match=r"'work' is neither .* \(as 'work:' would be\) .*\(named there: none\)"
    ):
        find_backend("work", {"XDG_CONFIG_HOME": str(tmp_path), "CHATBRIDGE_CONFIG": ""})


@pytest.mark.parametrize(
    ("text", "variable", "known"),
    [
        ("", None, []),
        ('[backends.b]\nurl = "b:"\n[backends.a]\nurl = "a:"', None, ["a:", "b:"]),
        ('default = "b"\n[backends.b]\nurl = "b:"\n[backends.a]\nurl = "a:"', None, ["b:", "a:"]),
        ('default = "c:"\n[backends.a]\nurl = "a:"', "", ["c:", "a:"]),
        ('default = "c:"\n[backends.a]\nurl = "a:"', "d:", ["d:", "a:"]),
        ('[backends.a]\nurl = "a:"', "a", ["a:"]),
    ],
)
def test_the_backends_that_are_known_are_the_default_and_those_of_the_file(
    tmp_path: Path, text: str, variable: str | None, known: list[str]
) -> None:
    environ = write(tmp_path / "c.toml", text)
    if variable is not None:
        environ["CHATBRIDGE_BACKEND"] = variable

    assert known == [str(url) for url in known_backends(environ)]


def test_a_mistake_among_those_that_are_known_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="backend 'a': a config string begins with"):
        known_backends(write(tmp_path / "c.toml", '[backends.a]\nurl = "nothing"'))


def test_a_missing_home_directory_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(
        ConfigError, match="no home directory to look for a config file in: set CHATBRIDGE_CONFIG"
    ) as caught:
        find_backend("work", {})
    assert_plain(caught.value)


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        (b"default = ", None, "c.toml' is not TOML: Invalid value"),
        (b"\xff", None, "c.toml' cannot be read: UnicodeDecodeError"),
        (b"a = " + b"[" * 10**5, None, "c.toml' is not TOML: "),
        (b"a = 1" + b"0" * 5000, None, "c.toml' is not TOML: "),
        (b"deflaut = 'x'", None, "unknown entry 'deflaut' .known: default, backends."),
        (b"'a\\nb' = 1", None, r"unknown entry 'a\\\\nb'"),
        (b"default = 1", None, "'default' is not a text"),
        (b"default = 0", None, "'default' is not a text"),
        (b"default = ['x']", None, "'default' is not a text"),
        (b"default = ''", None, "'' is neither"),
        (b"default = 'x'", None, "'x' is neither .*named there: none"),
        (b"default = 'a://h:x'", None, "c.toml': default: the port is not"),
        (b"default = 'x | y'", None, "default: a chain"),
        (b"backends = 1", "x", "'backends' is not a table; write .backends.NAME. and url"),
        (b"[[backends]]", "x", "'backends' is not a table"),
        (b"[backends]\nx = 1", "x", "backend 'x' has one entry, url ="),
        (b"[backends]\nx = 'kaziro:'", "x", "backend 'x' has one entry, url ="),
        (b"[backends.x]", "x", "backend 'x' has one entry, url ="),
        (b"[backends.x]\nurl = 1", "x", "backend 'x' has one entry, url ="),
        (b"[backends.x]\nurl = 'kaziro:'\nkey = 'k'", "x", "backend 'x' has one entry, url ="),
        (b"[backends.x]\nuri = 'kaziro:'", "x", "backend 'x' has one entry, url ="),
        (b"[backends]\nx.url = 'y'\ny.url = 'kaziro:'", "x", "backend 'x': a config string begins with"),
        (b"[backends.x]\nurl = 'a:?b=1&b=1'", "x", "backend 'x': option 'b' is given twice"),
        (b"[backends]\nx.url = 'kaziro:'\na.url = 'kaziro:'", "y", "'y' is neither .*named there: a, x"),
        (b"[backends.x]\nurl = 'a:?key=hunter2'", "x", "backend 'x': option 'key' must not be a secret"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_named_with_what_is_wrong(
    tmp_path: Path, content: bytes, name: str | None, problem: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=problem) as caught:
        find_backend(name, {"CHATBRIDGE_CONFIG": str(path)})

    assert_plain(caught.value)
    assert "c.toml" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("missing.toml", "missing.toml' does not exist"),
        (".", "cannot be read: IsADirectoryError"),
        ("file/x.toml", "cannot be read: NotADirectoryError"),
        ("nul\0.toml", r"is not TOML: embedded null byte"),
    ],
)
def test_a_file_that_is_named_must_be_there_and_readable(tmp_path: Path, place: str, problem: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=problem) as caught:
        find_backend("work", {"CHATBRIDGE_CONFIG": f"{tmp_path}/{place}"})
    assert_plain(caught.value)


@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        ("a://h:x", "the variable CHATBRIDGE_BACKEND: the port is not"),
        ("x | y", "the variable CHATBRIDGE_BACKEND: a chain"),
        ("work", "'work' is neither"),
        ("x\n", r"'x\\n' is neither"),
        (LONG, "'xxx.*…' is neither"),
    ],
)
def test_a_variable_that_is_wrong_is_named_with_what_is_wrong(
    tmp_path: Path, variable: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        find_backend(None, {"CHATBRIDGE_BACKEND": variable, "XDG_CONFIG_HOME": str(tmp_path)})
    assert_plain(caught.value)


def test_what_looks_like_a_secret_is_no_name_to_show(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must not be a secret") as caught:
        find_backend(SECRET, write(tmp_path / "c.toml", GOOD))

    assert_plain(caught.value)
    assert SECRET not in str(caught.value)


def test_an_option_given_twice_keeps_its_class() -> None:
    with pytest.raises(BadOption) as caught:
        BackendURL.parse("a:?x=1&x=2")

    assert "x" == caught.value.option


@pytest.mark.parametrize("module", ["domain", "errors", "backend", "config", "options", "registry"])
def test_importing_the_core_loads_neither_aiohttp_nor_cattrs_nor_an_adapter(module: str) -> None:
    heavy = "{'aiohttp', 'cattrs', 'tenacity', 'chatbridge_adapters', 'click', 'rich'}"
    code = f"import sys, chatbridge.{module}; print(sorted({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.strip()


@pytest.mark.parametrize(
    "text",
    [
        "h2ogpte:myhost.example.com",
        "h2ogpte:localhost",
        "h2ogpte:localhost:8080",
        "h2ogpte:127.0.0.1",
        "h2ogpte:10.0.0.1/api",
        "h2ogpte:/x",
        "h2ogpte:box:8080/api/v1",
        "h2ogpte:[::1]",
    ],
)
def test_a_forgotten_double_slash_does_not_lead_to_another_server(text: str) -> None:
    with pytest.raises(ConfigError, match="looks like a host: write '://'") as caught:
        BackendURL.parse(text)

    assert_plain(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("openai:http://127.0.0.1:8801", "openai+http://127.0.0.1:8801"),
        ("openai:HTTP://myhost/v1?temperature=1", "openai+http://myhost/v1"),
        ("openai:https://myhost/v1", "openai://myhost/v1"),
        ("anthropic:http:/myhost", "anthropic+http://myhost"),
        ("h2ogpte:https:", "h2ogpte://HOST"),
        ("h2ogpte:ftp://myhost", "h2ogpte://myhost"),
    ],
)
def test_a_url_is_no_model_of_the_public_host(text: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"is a URL: .* write '{re.escape(meant)}'$") as caught:
        BackendURL.parse(text)

    assert_plain(caught.value)


@pytest.mark.parametrize("user", [SECRET, "me", f"me:{SECRET}"])
def test_a_url_that_holds_a_secret_is_not_shown(user: str) -> None:
    with pytest.raises(ConfigError, match="the model must not be a secret") as caught:
        BackendURL.parse(f"openai:http://{user}@myhost")

    assert f"{user}@" not in str(caught.value)

"""A message made ready to go: its id, its options, and what of them the API cannot honour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from secrets import token_hex
from typing import Any, TypedDict, cast

from attrs import evolve, fields, frozen

from chatbridge.backend import Feature, Profile, check_parts
from chatbridge.domain import Message, Reply, Role, SendOptions, Text
from chatbridge.errors import BadOption, UnsupportedFeature, UsageError
from chatbridge.options import CommonOptions
from chatbridge.strict import problem_of

__all__ = ["OptionChanges", "Outgoing", "check_include", "check_text", "prepare"]

NO_OPTIONS = SendOptions()

_FIELDS = frozenset(attribute.name for attribute in fields(SendOptions))
_CHECKED = tuple(sorted(_FIELDS - {"include", "extra"}))
_INCLUDES = {"references": Feature.REFERENCES, "usage": Feature.USAGE}


def _number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _whole(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


# What each field of `SendOptions` holds, and in words what may be given for it.
_FITS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_text, "a text"),
    "system": (_text, "a text"),
    "temperature": (_number, "a number"),
    "top_p": (_number, "a number"),
    "max_output_tokens": (_whole, "a whole number"),
    "stop": (_texts, "a text, or several texts"),
    "seed": (_whole, "a whole number"),
    "tools": (lambda tools: all(isinstance(tool, Mapping) for tool in tools), "a list of mappings"),
    "tool_choice": (_text, "a text: auto, none, required, or the name of a tool"),
    "response_format": (lambda form: form is None or _texts(form), "a mapping, such as a JSON Schema"),
    "include": (_texts, f"texts: {', '.join(sorted(_INCLUDES))}"),
    "extra": (_texts, "a mapping of names to values"),
}


_JSON = ("tools", "response_format", "extra")


class OptionChanges(TypedDict, total=False):
    """The fields of `SendOptions`, as keywords."""

    model: str | None
    system: str | None
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    stop: str | Iterable[str]
    seed: int | None
    tools: Iterable[Mapping[str, Any]]
    tool_choice: str | None
    response_format: Mapping[str, Any] | None
    include: str | Iterable[str]
    extra: Mapping[str, Any]


@frozen
class Outgoing:
    """A message as it will go out."""

    message: Message
    options: SendOptions
    warnings: tuple[str, ...] = ()

    def warned(self, reply: Reply) -> Reply:
        """Add the warnings to *reply*."""
        return evolve(reply, warnings=(*self.warnings, *reply.warnings)) if self.warnings else reply


def check_text(what: str, text: str | None) -> None:
    """
    Refuse a text that cannot be written in UTF-8.

    Raises:
        UsageError: It holds half a character, a surrogate without its other half.
    """
    if text is None or text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = error.start
    else:
        return
    raise UsageError(f"{what} holds half a character (a lone surrogate) at index {at}, which cannot be sent")


def prepare(
    message: str | Message,
    options: SendOptions | None,
    changes: OptionChanges,
    system: str | None,
    profile: Profile,
    settings: CommonOptions,
) -> Outgoing:
    """
    Make *message* ready: give it an id, and leave out the options that the API cannot honour.

    Raises:
        UsageError: It is no message that can be sent, or an option is unknown.
        UnsupportedFeature: An option cannot be honoured and `strict` is set.
    """
    if isinstance(message, str):
        message = Message(Role.USER, (Text(message),), token_hex(16))
    elif not isinstance(cast(object, message), Message):
        raise UsageError(f"a message is a str or a Message, not {type(message).__name__}")
    elif message.id is None:
        message = evolve(message, id=token_hex(16))
    check_parts(message, profile)
    for part in message.parts:
        if isinstance(part, Text):
            check_text("the message", part.text)
    if options is None and not changes and system is None and not settings.include:
        return Outgoing(message, NO_OPTIONS)
    if not isinstance(cast(object, options), SendOptions | None):
        raise UsageError(f"options are a SendOptions, not {type(options).__name__}")
    options = _merge(options or NO_OPTIONS, changes, system, settings)
    fields_ignored = tuple(
        name
        for name in _CHECKED
        if name not in profile.options and getattr(options, name) != getattr(NO_OPTIONS, name)
    )
    includes_ignored = tuple(sorted(name for name in options.include if not profile.can(_INCLUDES[name])))
    ignored = (*fields_ignored, *(f"include={name}" for name in includes_ignored))
    if ignored and settings.strict:
        raise UnsupportedFeature(
            backend=profile.name,
            feature=f"the option{'s' if len(ignored) > 1 else ''} {' and '.join(ignored)}",
            instead=f"these options: {', '.join(sorted(profile.options)) or 'none'}",
        )
    unset = {name: getattr(NO_OPTIONS, name) for name in fields_ignored}
    honoured = evolve(options, **unset, include=options.include.difference(includes_ignored))
    return Outgoing(
        message,
        honoured,
        tuple(f"{profile.name} cannot honour {name}, which was left out" for name in ignored),
    )


def check_include(profile: Profile, settings: CommonOptions) -> None:
    """
    Check at once what would fail at each message.

    Raises:
        BadOption: `strict` is set, and the API has nothing of what `include` asks for.
    """
    missing = sorted(name for name in settings.include if not profile.can(_INCLUDES[name]))
    if settings.strict and missing:
        raise BadOption(
            backend=profile.name, option="include", shown=",".join(missing), problem="cannot be honoured"
        )


def _merge(
    options: SendOptions, changes: OptionChanges, system: str | None, settings: CommonOptions
) -> SendOptions:
    for name in changes:
        if name not in _FIELDS:
            raise UsageError(f"a message has no option {name!r} (options: {', '.join(sorted(_FIELDS))})")
    for name, value in changes.items():
        options = _with(options, name, value)
    for name, (fits, _) in _FITS.items():
        if not fits(getattr(options, name)):
            raise _wrong(name)
    for name in _JSON:
        if (value := getattr(options, name)) and (problem := problem_of(value, kept=False)) is not None:
            raise BadOption(option=name, problem=f"cannot be written as JSON: {problem}")
    for name in options.include:
        if name not in _INCLUDES:
            raise UsageError(f"{name!r} cannot be included (known: {', '.join(sorted(_INCLUDES))})")
    return evolve(
        options,
        system=system if options.system is None else options.system,
        include=options.include | settings.include,
    )


def _with(options: SendOptions, name: str, value: Any) -> SendOptions:  # noqa: ANN401 - of a type to be checked
    """Set one option."""
    try:
        return evolve(options, **{name: value})
    except (TypeError, ValueError):
        pass
    raise _wrong(name)


def _wrong(name: str) -> BadOption:
    return BadOption(option=name, problem=f"takes {_FITS[name][1]}")

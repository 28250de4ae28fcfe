"""
Everything that can go wrong, split by what the caller can do about it.

    ChatbridgeError
      UsageError (ValueError)           the program asked for the impossible; nothing left
        ConfigError                     UnknownBackend, BadOption, MissingSecret
        UnsupportedFeature, UnsettledTurn, LiveBackendForbidden, WrongBackend
      NotSent                           nothing was processed: repeat at will
        ConnectFailed, Overloaded
      Refused                           the server said no
        AuthFailed, NotFound, Conflict, RequestRefused, RateLimited, RedirectRefused
      Unavailable                       reads and writes by id: no answer; repeat at will
      BadAnswer                         reads and writes by id: an answer that cannot be read
      DeliveryUnknown                   sends and creations: perhaps processed, perhaps not
      AnswerLost                        sends and creations: processed, the answer is lost
        StreamCut, ProviderFailed
      StoreError                        a store cannot be read or written: nothing was sent, or here is
                                        the answer that could not be stored

Where a time limit was the cause, the class raised is the `...Timeout` beside the
one named here, which is a `TimeoutError` too.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from chatbridge.domain import Reply, StreamEvent
from chatbridge.facts import Attempt, Facts, Outcome, Phase
from chatbridge.text import printable, quoted

if TYPE_CHECKING:
    from typing import Self, Unpack

    from chatbridge.turns import Turn

__all__ = [
    "AnswerLost",
    "AnswerLostTimeout",
    "AnswerWarning",
    "Attempt",
    "AuthFailed",
    "BadAnswer",
    "BadOption",
    "ChatbridgeError",
    "ChatbridgeWarning",
    "ConfigError",
    "Conflict",
    "ConnectFailed",
    "ConnectFailedTimeout",
    "ConversationKept",
    "DeliveryUnknown",
    "DeliveryUnknownTimeout",
    "Facts",
    "LiveBackendForbidden",
    "MissingSecret",
    "NotFound",
    "NotSent",
    "NotSentTimeout",
    "Outcome",
    "Overloaded",
    "OverloadedTimeout",
    "Phase",
    "ProviderFailed",
    "RateLimited",
    "RedirectRefused",
    "Refused",
    "RequestRefused",
    "StoreError",
    "StreamCut",
    "StreamCutTimeout",
    "Unavailable",
    "UnavailableTimeout",
    "UnknownBackend",
    "UnsettledTurn",
    "UnsupportedFeature",
    "UsageError",
    "WrongBackend",
]


def _rebuild(cls: type[ChatbridgeError], message: str, state: dict[str, Any]) -> ChatbridgeError:
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(state)
    return error


class ChatbridgeError(Exception):
    """
    The root of every error that chatbridge raises; its text is one line of printable characters.

    Attributes:
        outcome: What is known of the call's effect.
        retryable: Whether repeating the call can help and cannot double anything.
        timed_out: Whether a time limit was the cause.
        provider: The backend's name.
        operation: The operation of its API that failed.
        phase: How far it came.
        attempts: Each request made.
        elapsed: Seconds over all attempts and waits.
        retry_after: Seconds that the server asked to wait.
        request_id: The server's id for the request.
        client_id: The idempotency key or the turn's id.
        conversation_id: The conversation concerned; the new one's, when a step after its creation failed.
        status: The HTTP status.
        code: The API's own code, but for two: with openai and anthropic it is `context_length_exceeded` where
            a history is too long, and `insufficient_quota` where credit is spent, whatever the server says.
        url: Scheme, host, port and path.
        excerpt: What the server said, secrets removed, at most 500 characters.
        budget_exhausted: Whether a retry was due and the retry budget was spent.
        from_api: Whether the API itself reported the failure, having seen the call to its end; a gateway's
            answer is none of its own.
        turn: The message that was being sent, and what is known of it.
    """

    outcome: Outcome = Outcome.NOT_SENT
    retryable: bool = False
    timed_out: bool = False
    provider: str | None = None
    operation: str | None = None
    phase: Phase | None = None
    attempts: tuple[Attempt, ...] = ()
    elapsed: float | None = None
    retry_after: float | None = None
    request_id: str | None = None
    client_id: str | None = None
    conversation_id: str | None = None
    status: int | None = None
    code: str | None = None
    url: str | None = None
    excerpt: str | None = None
    budget_exhausted: bool = False
    from_api: bool = False
    turn: Turn | None = None

    def __init__(self, message: str, **facts: Unpack[Facts]) -> None:
        super().__init__(printable(message))
        self.__dict__.update(facts)

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), self.__dict__)

    def because(self, **facts: Unpack[Facts]) -> Self:
        """Add facts that only an outer layer knows, and give the error back."""
        self.__dict__.update(facts)
        return self


class UsageError(ChatbridgeError, ValueError):
    """The program asked for something that cannot be; nothing left the process."""


class ConfigError(UsageError):
    """A config string, an option or the config file is wrong."""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _close(name: str, names: Sequence[str]) -> str:
    match = get_close_matches(name, names, n=1)
    return f"; did you mean {quoted(match[0])}?" if match else ""


class UnknownBackend(ConfigError):
    """A config string named a backend that no installed package provides."""

    def __init__(self, *, name: str, installed: Sequence[str]) -> None:
        self.name = name
        self.installed = tuple(installed)
        hint = _close(name, installed)
        if name in {"http", "https"}:
            plain = "+http" if name == "http" else ""
            hint = f"; a config string begins with a backend's name, as in BACKEND{plain}://HOST"
        super().__init__(
            f"no chat backend named {quoted(name)} is installed{hint} (installed: {_listed(installed)})"
        )


class BadOption(ConfigError):
    """
    An option is unknown, or its value is not what it takes.

    The value is in the message only where *shown* gives it: it may be a secret.
    """

    def __init__(
        self,
        *,
        option: str,
        problem: str,
        backend: str | None = None,
        known: Sequence[str] = (),
        shown: str | None = None,
    ) -> None:
        self.option = option
        self.known = tuple(known)
        where = f"{backend}: " if backend else ""
        value = f" = {quoted(shown)}" if shown is not None else ""
        hint = f"{_close(option, known)} (options: {_listed(known)})" if known else ""
        super().__init__(f"{where}option {quoted(option)}{value} {problem}{hint}", provider=backend)


class MissingSecret(ConfigError):
    """A key is needed and none of the places it may be in has it."""

    def __init__(self, *, backend: str, option: str, looked_in: Sequence[str]) -> None:
        self.option = option
        self.looked_in = tuple(looked_in)
        absent = f", and there is none in {' or '.join(looked_in)}: set it there, or" if looked_in else ":"
        super().__init__(
            f"{backend} needs a {option}{absent} say where it is with {option}=env:NAME "
            f"or {option}=file:PATH, or pass connect(..., {option}=...)",
            provider=backend,
        )


class UnsupportedFeature(UsageError):
    """The backend has no such feature."""

    def __init__(self, *, backend: str, feature: str, instead: str | None = None) -> None:
        self.feature = feature
        self.instead = instead
        hint = f"; instead: {instead}" if instead else ""
        super().__init__(f"{backend} does not support {feature}{hint}", provider=backend)


class UnsettledTurn(UsageError):
    """
    An earlier message to the conversation may have arrived or not, and blocks the next one.

    `turn` is that message. `chat.settle()` finds out, where that can be; `chat.waive(turn)` and
    `send(..., resend=True)` let the doubt stand.
    """


class LiveBackendForbidden(UsageError):
    """Within `chatbridge.guard.only_loopback`, a bridge would have reached another machine."""

    def __init__(self, *, host: str, forbidden_by: str) -> None:
        self.host = host
        self.forbidden_by = forbidden_by
        super().__init__(
            f"{quoted(host)} is another machine, and {forbidden_by} forbids to reach one; "
            "use fake:, an emulator or a recording"
        )


class WrongBackend(UsageError):
    """A conversation in a store was to be opened through another backend than the one that keeps it."""

    def __init__(self, *, conversation: str, backend: str, kept_by: str, provider: str) -> None:
        self.backend = backend
        self.kept_by = kept_by
        super().__init__(
            f"the conversation {quoted(conversation)} is kept by {kept_by}, and cannot be opened "
            f"through {backend}; connect to {kept_by} for it",
            provider=provider,
        )


class NotSent(ChatbridgeError):
    """
    It is certain that the server did not process the call.

    Of a message it is certain, too, if the API failed and the conversation, read back, does not have it;
    and if the conversation is in chatbridge's store alone, where a message without an answer is not, whatever
    became of the call.
    """

    retryable = True


class NotSentTimeout(NotSent, TimeoutError):
    """No answer came in time, and the message is not in the conversation."""

    timed_out = True


class ConnectFailed(NotSent):
    """No connection, or none that took the request: `phase` is dns, connect, tls, certificate or upload."""


class ConnectFailedTimeout(ConnectFailed, TimeoutError):
    """No connection in time."""

    timed_out = True


class Overloaded(NotSent):
    """
    Too many calls of this process wait already, or the deadline passed before this one's turn came.

    A server that is overloaded is another thing: see `RateLimited`.
    """


class OverloadedTimeout(Overloaded, TimeoutError):
    """The deadline passed while the call waited for its turn."""

    timed_out = True


class Refused(ChatbridgeError):
    """The server answered that it would not do it; `status` and `code` say why."""

    outcome = Outcome.REFUSED


class AuthFailed(Refused):
    """The key is missing, wrong, expired, or not allowed to do this (401, 403)."""


class NotFound(Refused):
    """
    There is no such thing, or none that this key may see (404, 410).

    A model that a completion asks for is none of these things: that is a `RequestRefused`.
    """


class Conflict(Refused):
    """The state of the thing does not allow it (409)."""


class RequestRefused(Refused):
    """The server found the request wrong, or does not do such things (other 4xx, 501)."""


class RateLimited(Refused):
    """Too many requests, or an overload (429, 529); `retry_after` says when to come back, if that is told."""

    retryable = True


class RedirectRefused(Refused):
    """The server pointed elsewhere (3xx), and neither messages nor keys are carried there."""


class Unavailable(ChatbridgeError):
    """A read, or a write by id, got no answer: lost, timed out, or the server failed."""

    outcome = Outcome.UNKNOWN
    retryable = True


class UnavailableTimeout(Unavailable, TimeoutError):
    """A read, or a write by id, got no answer in time."""

    timed_out = True


class BadAnswer(ChatbridgeError):
    """A read, or a write by id, got an answer that cannot be read."""

    outcome = Outcome.ACCEPTED
    retryable = True


UnknownKind = Literal["lost", "timeout", "server_error", "bad_http", "not_the_api"]
LostKind = Literal["cut", "idle", "empty", "json", "schema", "encoding", "oversize", "provider"]


class DeliveryUnknown(ChatbridgeError):
    """
    A send or a creation may have been processed, or not; nobody here can know.

    It is never repeated by itself. `kind` says what happened: lost, timeout,
    server_error, bad_http or not_the_api.
    """

    outcome = Outcome.UNKNOWN

    def __init__(self, message: str, *, kind: UnknownKind, **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.kind: UnknownKind = kind


class DeliveryUnknownTimeout(DeliveryUnknown, TimeoutError):
    """A send or a creation got no answer in time."""

    timed_out = True


class AnswerLost(ChatbridgeError):
    """
    A send or a creation was accepted, and its answer did not arrive in a readable form.

    `kind` says how: cut, idle, empty, json, schema, encoding, oversize, or
    provider (the API itself reported a failure inside its answer). `partial` is the text
    that arrived, and `events` what a stream had handed out.
    """

    outcome = Outcome.ACCEPTED

    def __init__(
        self,
        message: str,
        *,
        kind: LostKind,
        partial: str = "",
        events: Sequence[StreamEvent] = (),
        **facts: Unpack[Facts],
    ) -> None:
        super().__init__(message, **facts)
        self.kind: LostKind = kind
        self.partial = partial
        self.events = tuple(events)


class AnswerLostTimeout(AnswerLost, TimeoutError):
    """An accepted call's answer stopped coming."""

    timed_out = True


class StreamCut(AnswerLost):
    """A stream stopped before its end."""


class StreamCutTimeout(StreamCut, TimeoutError):
    """A stream stalled."""

    timed_out = True


class ProviderFailed(AnswerLost):
    """The API reported an error inside an answer that had begun well; `code` is its own."""


class ChatbridgeWarning(UserWarning):
    """Something went wrong that cost no result; what has a field `warnings` tells it there instead."""


class AnswerWarning(ChatbridgeWarning):
    """Something in a list or a history was not as it should be, and was mended or left out."""


class ConversationKept(ChatbridgeWarning):
    """A temporary conversation could not be deleted at its end."""


StoreKind = Literal[
    "full", "read_only", "locked", "corrupt", "gone", "newer", "value", "taken", "closed", "failed"
]


class StoreError(ChatbridgeError):
    """
    A store could not be read or written.

    Before a message leaves: then it does not, and `outcome` is `not_sent`. Afterwards: then `reply` is the
    answer, which is here and could not be stored, and `outcome` is `ok`.

    Attributes:
        kind: What happened: full, read_only, locked, corrupt, gone (it cannot be reached, or no longer),
            newer (written by a later version), value (nothing that can be stored), taken (by another process
            that has the conversation since), closed, or failed.
        reply: The answer, if there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: StoreKind = "failed",
        reply: Reply | None = None,
        **facts: Unpack[Facts],
    ) -> None:
        super().__init__(message, **facts)
        self.kind: StoreKind = kind
        self.reply = reply
        self.retryable = kind == "locked" and reply is None
        self.outcome = Outcome.NOT_SENT if reply is None else Outcome.OK

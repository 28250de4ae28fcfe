"""The one boundary where foreign exceptions become ours: first a `Failure`, at last a public error."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, Final, cast, get_args

import aiohttp

from chatbridge import errors
from chatbridge.errors import ChatbridgeError, Facts, Outcome, Phase
from chatbridge.http.content import BrokenContent
from chatbridge.retry import Failure, Hint, Kind, Repeat, outcome_of, repeat_of

__all__ = ["failed_reading", "failed_to_connect", "failed_waiting", "to_error"]


def _named(error: BaseException) -> str:
    """Name a foreign exception without its text, which may show headers or a URL."""
    number = getattr(error, "errno", None)
    return type(error).__name__ + (f" (errno {number})" if isinstance(number, int) else "")


# By name, as systems number the same errors differently.
_UNCONNECTED: Final[Mapping[str, str]] = {
    "ECONNREFUSED": "the connection was refused: is the server running?",
    "ECONNRESET": "the connection was reset before it was made",
    "ECONNABORTED": "the connection was broken off before it was made",
    "EHOSTUNREACH": "there is no way to the host",
    "EHOSTDOWN": "the host is down",
    "ENETUNREACH": "there is no way to the host's network",
    "ENETDOWN": "the network is down",
    "ETIMEDOUT": "the host did not answer",
    "EACCES": "this machine does not allow it",
    "EPERM": "this machine does not allow it",
    "EMFILE": "this process has too many files and connections open",
    "ENFILE": "this machine has too many files and connections open",
}


def failed_to_connect(error: Exception, url: str) -> Failure:
    """Classify what was raised before there was a connection to *url*, so before anything was sent."""
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
        return Failure(Phase.CONNECT, f"no connection to {url} in time", timed_out=True)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Failure(
            Phase.CERTIFICATE, f"no connection to {url}: the server's certificate is not valid for this host"
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return Failure(Phase.TLS, f"no connection to {url}: no TLS: {_named(error)}")
    if isinstance(error, aiohttp.ClientConnectorDNSError | RuntimeError):
        return Failure(Phase.DNS, f"no connection to {url}: the host's name was not found: {_named(error)}")
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return Failure(Phase.LOCAL, f"not a request that can be sent: {_named(error)}")
    name = errno.errorcode.get(getattr(error, "errno", None) or 0, "")
    why = f"{_UNCONNECTED[name]} ({name})" if name in _UNCONNECTED else _named(error)
    return Failure(Phase.CONNECT, f"no connection to {url}: {why}")


def failed_waiting(error: Exception, *, uploaded: bool) -> Failure:
    """Classify what was raised between the connection and the head of the answer."""
    if not uploaded:
        late = isinstance(error, TimeoutError)
        reason = f"the request could not be sent whole: {_named(error)}"
        return Failure(Phase.UPLOAD, reason, timed_out=late)
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
        return Failure(Phase.NO_HEAD, "no answer in time", kind="timeout", timed_out=True)
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return Failure(Phase.LOST, f"the connection was lost before the answer: {_named(error)}")
    return Failure(Phase.BAD_HEAD, f"the answer is not proper HTTP: {_named(error)}", kind="bad_http")


def failed_reading(error: Exception, phase: Phase = Phase.BODY) -> Failure:
    """Classify what was raised while an answer that had begun well was read."""
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
        return Failure(phase, "the answer stopped coming", kind="idle", timed_out=True)
    if isinstance(error, BrokenContent):
        streaming = phase in {Phase.FIRST_EVENT, Phase.EVENTS}
        phase = phase if streaming else Phase.BODY if error.kind == "cut" else Phase.CONTENT
        return Failure(phase, f"the answer cannot be read: {error}", kind=error.kind)
    return Failure(phase, f"the answer broke off: {_named(error)}", kind="cut")


_REFUSALS: dict[int, type[errors.Refused]] = {
    401: errors.AuthFailed,
    403: errors.AuthFailed,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.NotFound,
    429: errors.RateLimited,
    529: errors.RateLimited,
}
# It is the model that is not there, or the path: a completion is in no conversation.
_REFUSALS_OF_COMPLETIONS = {**_REFUSALS, 404: errors.RequestRefused, 410: errors.RequestRefused}
_REDIRECTS = range(300, 400)
_STREAMING = frozenset({Phase.FIRST_EVENT, Phase.EVENTS})
_UNREADABLE = frozenset({Phase.BAD_HEAD, Phase.CONTENT, Phase.EVENTS})

_TIMEOUTS: dict[type[ChatbridgeError], type[ChatbridgeError]] = {
    errors.ConnectFailed: errors.ConnectFailedTimeout,
    errors.Overloaded: errors.OverloadedTimeout,
    errors.Unavailable: errors.UnavailableTimeout,
    errors.DeliveryUnknown: errors.DeliveryUnknownTimeout,
    errors.AnswerLost: errors.AnswerLostTimeout,
    errors.StreamCut: errors.StreamCutTimeout,
}


def _class_of(kind: Kind, failure: Failure, outcome: Outcome) -> type[ChatbridgeError]:
    if kind is Kind.RESULT:
        refused = failure.phase is Phase.STATUS or failure.kind == "provider"
        return errors.ProviderFailed if refused else errors.StreamCut
    if failure.phase is Phase.LOCAL:
        return errors.UsageError
    if failure.phase is Phase.QUEUE:
        return errors.Overloaded
    if outcome is Outcome.NOT_SENT:
        return errors.ConnectFailed
    if failure.status in _REDIRECTS:
        return errors.RedirectRefused
    if outcome is Outcome.REFUSED:
        refusals = _REFUSALS_OF_COMPLETIONS if kind is Kind.COMPLETE else _REFUSALS
        return refusals.get(failure.status or 0, errors.RequestRefused)
    if kind.by_id:
        unreadable = failure.phase in _UNREADABLE and not failure.timed_out
        return errors.BadAnswer if unreadable else errors.Unavailable
    if outcome is Outcome.UNKNOWN:
        return errors.DeliveryUnknown
    if failure.kind == "provider":
        return errors.ProviderFailed
    return errors.StreamCut if failure.phase in _STREAMING else errors.AnswerLost


def _kind_of(failure: Failure) -> str:
    """Say how the answer to a message that was accepted is lost."""
    if failure.phase is Phase.STATUS:
        return "provider"
    if failure.timed_out:
        return "idle"
    return failure.kind if failure.kind in get_args(errors.LostKind) else "cut"


def to_error(kind: Kind, failure: Failure, **facts: Any) -> ChatbridgeError:  # noqa: ANN401 - `Facts`
    """Make the public error that says *failure* of a call of *kind*."""
    outcome = Outcome.ACCEPTED if kind is Kind.RESULT else outcome_of(failure)
    cls = _class_of(kind, failure, outcome)
    own: dict[str, Any] = {}
    if issubclass(cls, errors.DeliveryUnknown | errors.AnswerLost):
        own["kind"] = _kind_of(failure) if kind is Kind.RESULT else failure.kind
    known = cast(Facts, {
        "phase": failure.phase,
        "attempts": failure.attempts,
        "retry_after": failure.retry_after,
        "request_id": failure.request_id,
        "status": failure.status,
        "code": failure.code,
        "excerpt": failure.excerpt,
        "budget_exhausted": failure.budget_exhausted,
        "from_api": failure.from_api,
        **facts,
    })  # fmt: skip
    if failure.timed_out:
        cls = _TIMEOUTS.get(cls, cls)
    prefix = " ".join(str(facts[name]) for name in ("provider", "operation") if facts.get(name))
    said = f": {failure.excerpt}" if failure.excerpt else ""
    tried = f" (tried {len(failure.attempts)} times)" if len(failure.attempts) > 1 else ""
    error = cls(f"{prefix}: {failure.reason}{said}{tried}", **own, **known)
    if isinstance(error, errors.Refused):
        error.retryable = repeat_of(kind, failure) is not Repeat.NEVER
    elif failure.phase is Phase.CERTIFICATE or failure.hint is Hint.QUOTA:
        error.retryable = False
    elif kind is Kind.COMPLETE and failure.hint is Hint.REFUSED:
        error.retryable = True
    if error.outcome is not outcome:
        error.outcome = outcome
    return error

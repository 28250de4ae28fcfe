"""
An adapter's handle on its API: endpoint calls with types, retries and errors.

    api = Api(transport, "acme", headers={"Authorization": bearer(key)}, read_error=read_error)
    session = await api.call(GET_SESSION, ids={"session_id": "42"})
    async with api.stream(ASK, question, ids={"session_id": "42"}) as events:
        async for event in events: ...
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar, cast

from attrs import Factory, field, frozen
from yarl import URL

from chatbridge.clock import current_deadline
from chatbridge.delivery import current_delivery
from chatbridge.errors import AnswerWarning, ChatbridgeError, ConfigError, Outcome, Phase, UsageError
from chatbridge.http.content import (
    BrokenContent,
    Mender,
    is_web_page,
    loads,
    may_hold_surrogates,
    mend_all,
)
from chatbridge.http.endpoint import Endpoint
from chatbridge.http.failures import failed_reading, to_error
from chatbridge.http.headers import request_id, retry_after, says_final
from chatbridge.http.stream import EventStream
from chatbridge.http.transport import USER_AGENT, Answer, Headers, OnHead, Request, Transport
from chatbridge.http.wire import structure, unstructure
from chatbridge.observe import AttemptWatch
from chatbridge.retry import Failure, Hint, Kind, outcome_of
from chatbridge.secret import Secret
from chatbridge.strict import dumps

__all__ = ["Api", "ApiError", "Warn", "bearer", "warn_aside"]

AnswerT = TypeVar("AnswerT")

_NOT_FOUND = 404
_SERVER_ERROR = 500
_LARGE = 2**20
# What frameworks say of a path that they do not know.
_NO_SUCH_PATH = re.compile(r"(?:\w*Error: )?(?:404:? )?(?:page |file )?not found\.?", re.IGNORECASE)
_WEB_PAGE = object()

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = re.compile(
    r"host|content-length|transfer-encoding|connection|te|trailer|upgrade|expect|proxy-.*", re.IGNORECASE
)


def _has_message(error: ApiError) -> bool:
    return error.message is not None


@frozen
class ApiError:
    """
    What an adapter reads off an error body.

    Attributes:
        code: The API's own code.
        hint: What the status does not say.
        from_api: Whether only the API itself writes such a body, and nothing in front of it; by default
            where there is a message.
    """

    message: str | None = field(default=None, repr=False)
    code: str | None = field(default=None, repr=False)
    hint: Hint | None = None
    from_api: bool = field(default=Factory(_has_message, takes_self=True))


Warn = Callable[[str], None]
"""Is told what went wrong without costing the answer."""


def warn_aside(message: str) -> None:
    """Warn of an answer that has no place for warnings, as a list has none."""
    warnings.warn(message, AnswerWarning, stacklevel=2)


ReadError = Callable[[int, Any], ApiError]
"""Reads an error: given its status and its parsed JSON, None where there is none."""


def bearer(key: Secret) -> Secret:
    """Make the value of an `Authorization` header."""
    return Secret(f"Bearer {key.reveal()}")


_HEADERS = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT}


def _plain(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


class Api:
    """
    Calls the endpoints of one API.

    Args:
        transport: The bridge's.
        name: The backend's name, for errors.
        headers: Sent with each request; secrets among them never show.
        read_error: Reads the API's error bodies.
        can_settle: Whether a send in doubt can be settled afterwards. Where it cannot, sends go out on fresh
            connections, as creations and results always do: a pooled one may be stale, and would leave them
            in doubt.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        headers: Mapping[str, str | Secret],
        read_error: ReadError,
        can_settle: bool = False,
    ) -> None:
        self.transport = transport
        self.name = name
        self.redactor = transport.redactor
        self._can_settle = can_settle
        self._read_error = read_error
        self._headers = Headers(_HEADERS)
        for header, value in headers.items():
            self.set_header(header, value)

    def set_header(self, name: str, value: str | Secret) -> None:
        """
        Send a header from now on.

        Raises:
            ConfigError: It is none that may be set, or its value cannot be sent; the value is not shown.
        """
        if not _HEADER_NAME.fullmatch(name) or _OURS.fullmatch(name):
            raise ConfigError(f"{self.name}: {name!r} is not a header that may be set")
        # No local holds the text: a traceback with locals would show it.
        if not _HEADER_VALUE.fullmatch(_plain(value)):
            raise ConfigError(
                f"{self.name}: the value for the header {name} has characters that no header may have"
            )
        if isinstance(value, Secret):
            self.redactor.add(value)
            _, blank, bare = value.reveal().partition(" ")
            if blank and bare:
                self.redactor.add(Secret(bare))
        self._headers[name] = _plain(value)

    async def call(
        self,
        endpoint: Endpoint[AnswerT],
        body: object = None,
        *,
        ids: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        warn: Warn = warn_aside,
        on_head: OnHead | None = None,
    ) -> AnswerT:
        """
        Call *endpoint* and read its whole answer.

        Args:
            endpoint: From the adapter's call table.
            body: The request, as the endpoint's wire type or a mapping.
            ids: What stands for the names in the endpoint's path.
            query: Parameters behind the path; those that are None are left out.
            warn: Told what had to be mended in the answer; by default that is an `AnswerWarning`.
            on_head: Told the headers of each attempt's answer, whatever its status and whatever becomes of
                its body.

        Raises:
            TypeError: The body is neither the endpoint's wire type nor a mapping.
            UsageError: The request cannot be sent.
            ChatbridgeError: Any other; see `chatbridge.errors`.
        """
        request = self.request(endpoint, body, ids or {}, query or {})
        deadline, started = self.deadline(), self.transport.clock.now()
        fresh, watch = self.needs_fresh(endpoint), self.watch(endpoint, request)

        async def attempt(earlier: tuple[Failure, ...]) -> AnswerT:
            answer = await self.transport.attempt(endpoint, request, deadline, fresh=fresh, on_head=on_head)
            if watch is not None:
                watch.status = answer.status
            if answer.status not in endpoint.success:
                gone = endpoint.gone_is_done and answer.status == _NOT_FOUND
                if gone and any(outcome_of(failure) is Outcome.UNKNOWN for failure in earlier):
                    return cast(AnswerT, None)
                raise self.refusal(answer, request.url)
            if answer.body is None:
                return cast(AnswerT, None)
            return await self._read(endpoint, answer, warn, deadline)

        try:
            return await self.transport.retrier.run(endpoint.kind, deadline, attempt, watch)
        except Failure as caught:
            failure = caught
        raise self.error(endpoint, failure, request, started)

    def stream(
        self,
        endpoint: Endpoint[AnswerT],
        body: object = None,
        *,
        ids: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> EventStream[AnswerT]:
        """Call *endpoint* and give its answer event by event, as an asynchronous context manager."""
        return EventStream(self, endpoint, self.request(endpoint, body, ids or {}, query or {}))

    def failed(
        self, endpoint: Endpoint[Any], message: str | None, code: str | None = None
    ) -> ChatbridgeError:
        """Make the error for a failure that the API reports in a whole answer, in place of one."""
        failure = Failure(
            Phase.CONTENT,
            "the API reported a failure inside its answer",
            kind="provider",
            from_api=True,
            code=code if code is None else self.redactor.clean(code, 100),
            excerpt=self._clean(message),
        )
        return to_error(endpoint.kind, failure, provider=self.name, operation=endpoint.operation)

    def deadline(self) -> float:
        """Say when a call that begins now must be over: by its own limit or the bridge's, if sooner."""
        own = self.transport.clock.now() + self.transport.options.timeout
        ambient = current_deadline()
        return own if ambient is None else min(own, ambient)

    def watch(self, endpoint: Endpoint[Any], request: Request) -> AttemptWatch | None:
        """Make what tells of the attempts of a call; None where nobody listens."""
        hook = self.transport.on_attempt
        if not AttemptWatch.is_wanted(hook):
            return None
        delivery = None if endpoint.kind.by_id else current_delivery()
        return AttemptWatch(
            self.name,
            endpoint.operation,
            endpoint.kind.value,
            request.method,
            str(request.url.with_query(None)),
            None if delivery is None else delivery.message_id,
            self.transport.clock.wall,
            hook,
        )

    def needs_fresh(self, endpoint: Endpoint[Any]) -> bool:
        """Say whether *endpoint* must not go out on a pooled connection."""
        if endpoint.kind is Kind.SEND:
            return not self._can_settle
        return endpoint.kind in {Kind.CREATE, Kind.RESULT}

    def request(
        self, endpoint: Endpoint[Any], body: object, ids: Mapping[str, str], query: Mapping[str, Any]
    ) -> Request:
        """
        Freeze a request to bytes.

        Raises:
            UsageError: An id or the body cannot be sent.
        """
        headers, data = Headers(self._headers), None
        headers.setdefault("Accept", endpoint.accept)
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = self._encode(endpoint, body)
        url = self._url(endpoint.target(ids, query))
        return Request(endpoint.method, url, headers, data)

    def _url(self, target: str) -> URL:
        try:
            # Encoded already: yarl would resolve dots and change the escapes of an id.
            url = URL(self.transport.base_url + target, encoded=True)
            if url.host and url.port:
                return url
        except ValueError:
            pass
        raise UsageError(f"{self.name}: the base URL has no host, or a port that cannot be")

    def _encode(self, endpoint: Endpoint[Any], body: object) -> bytes:
        if not isinstance(body, Mapping) and type(body) is not endpoint.request:
            raise TypeError(f"{endpoint.operation} takes no {type(body).__name__} as its request")
        try:
            return dumps(cast(object, body) if isinstance(body, Mapping) else unstructure(body))
        except ValueError as error:
            problem = str(error)
        raise UsageError(
            f"{self.name} {endpoint.operation}: the request cannot be written as JSON: {problem}",
            provider=self.name,
        )

    async def _read(
        self, endpoint: Endpoint[AnswerT], answer: Answer, warn: Warn, deadline: float
    ) -> AnswerT:
        try:
            return await self.decode(endpoint, answer.body or b"", warn, deadline)
        except (BrokenContent, TimeoutError) as error:
            failure = failed_reading(error)
        except Failure as caught:
            failure = caught
        failure.status, failure.request_id = answer.status, request_id(answer.headers)
        raise failure

    async def decode(self, endpoint: Endpoint[AnswerT], data: bytes, warn: Warn, deadline: float) -> AnswerT:
        """
        Read a whole document as the endpoint's wire type, and mend what is no text in it.

        Raises:
            BrokenContent: It is not strict JSON, or not of the type.
            Failure: It is a web page.
            TimeoutError: It is large, and took longer than until *deadline*.
        """
        if len(data) <= _LARGE:
            return self._decode(endpoint, data, warn)
        async with self.transport.clock.timeout_at(deadline):  # Other tasks go on meanwhile.
            return await asyncio.to_thread(self._decode, endpoint, data, warn)

    def _decode(self, endpoint: Endpoint[AnswerT], data: bytes, warn: Warn) -> AnswerT:
        try:
            value = loads(data)
        except BrokenContent:
            if not is_web_page(data):
                raise
            value = _WEB_PAGE
        if value is _WEB_PAGE:
            raise Failure(Phase.CONTENT, "the answer is a web page, not the API's", kind="not_the_api")
        if may_hold_surrogates(data):
            value, replaced = mend_all(value)
            if replaced:
                warn(Mender.WARNING)
        return cast(AnswerT, structure(value, endpoint.answer))

    def refusal(self, answer: Answer, url: URL) -> Failure:
        """Read what the server said with a status that is not success to a request to *url*."""
        value, text = None, (answer.body or b"").decode("utf-8", "replace")
        with suppress(BrokenContent):
            value = loads(answer.body or b"")
        said = self._read_error(answer.status, value)
        excerpt = text if said.message is None else said.message
        success = 200 <= answer.status < 300  # noqa: PLR2004 - what HTTP calls successful
        comment = ", which it does not document" if success else ""
        if answer.status == _NOT_FOUND and (said.message is None or _NO_SUCH_PATH.fullmatch(said.message)):
            comment = f" for {url.with_query(None)} (is {self.transport.base_url} where the API begins?)"
        return Failure(
            Phase.CONTENT if success else Phase.STATUS,
            f"the server answered {answer.status}{comment}",
            kind="schema" if success else "server_error",
            status=answer.status,
            code=said.code if said.code is None else self.redactor.clean(said.code, 100),
            hint=said.hint,
            final=says_final(answer.headers),
            # What stands in front of an API answers 502, 503 and 504, at times in JSON too.
            from_api=answer.status == _SERVER_ERROR and said.from_api,
            retry_after=retry_after(answer.headers, self.transport.clock.wall()),
            request_id=request_id(answer.headers),
            excerpt=self._clean(excerpt.strip()) or None,
        )

    def _clean(self, text: str | None) -> str | None:
        return None if text is None else self.redactor.clean(text)

    def error(
        self, endpoint: Endpoint[Any], failure: Failure, request: Request, started: float
    ) -> ChatbridgeError:
        """Make the public error for a call that failed."""
        # In place, as a traceback with locals shows the failure too.
        failure.request_id = self._clean(failure.request_id)
        return to_error(
            endpoint.kind,
            failure,
            provider=self.name,
            operation=endpoint.operation,
            elapsed=self.transport.clock.now() - started,
            url=str(request.url.with_query(None)),
        )

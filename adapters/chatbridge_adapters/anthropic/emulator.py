"""
An emulator of Anthropic's Messages API: answers whole and streamed, and the list of models.

Sources: the API's documentation at platform.claude.com, as of November 2026, and the package anthropic 2.11.0
(whose clients name the version 2026-10-21, and send their key as a bearer token). What they leave open is
decided here: a word is a token; a tool is called where the message names it; thoughts that were not signed
here are refused wherever they stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from attrs import define, field

from chatbridge.testing.emulator import Answer, BadBody, Call, Emulator, Operation, Refusal
from chatbridge.testing.instances import arguments, instance
from chatbridge_adapters.anthropic.answers import Json, compact, event, event_stream, signature
from chatbridge_adapters.anthropic.asked import OLD, Asked

__all__ = ["AnthropicEmulator"]

VERSIONS = frozenset({OLD, "2026-10-21"})
_INTERNAL = 500
_PAGE = "https://example.com/"
_ERRORS: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_LOW = (
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
    "purchase credits."
)


@define(kw_only=True, eq=False)
class AnthropicEmulator(Emulator):
    """
    The operations on messages and models.

    Attributes:
        models: Those that are listed, the first being the one that clients are told to use; any other is
            there, too, whose name begins with `claude-`.
        mode: Whose server it is: Anthropic's own, or a `compatible` one as Ollama and llama.cpp have, which
            takes any model, version and key, and tells neither pings, request ids nor the cache.
        context: How many tokens a model reads at most.
        pauses: How often an answer for which the server runs a tool is paused.
        pending: Whether that is before the tool has a result.
        redacted: Whether thoughts are hidden.
        broke: Refuse answers, as there are no credits.
        stop_reason: Why answers end, instead of the reason that there is.
    """

    name: ClassVar[str] = "anthropic"
    key_variable: ClassVar[str] = "ANTHROPIC_API_KEY"

    models: Sequence[str] = ("claude-emulated-2", "claude-emulated-1")
    mode: Literal["anthropic", "compatible"] = "anthropic"
    context: int = 200_000
    pauses: int = 1
    pending: bool = False
    redacted: bool = False
    broke: bool = False
    stop_reason: str | None = None
    _cached: int = field(init=False, default=0)

    @property
    def operations(self) -> Sequence[Operation]:
        """The API's routes."""
        return (
            Operation("messages.create", "POST", "/v1/messages", self._create),
            Operation("models.list", "GET", "/v1/models", self._list),
        )

    @property
    def options(self) -> dict[str, str]:
        """The model."""
        return {"model": self.models[0]}

    @property
    def reasoning(self) -> Mapping[str, Any]:
        """The API's own option."""
        return {"thinking": {"type": "adaptive"}}

    def admit(self, call: Call) -> None:
        """Raise `Refusal` unless *call* carries the key, and names a version that there is."""
        if self.mode == "compatible":
            return
        key = call.headers.get("x-api-key", call.bearer)
        if key is None:
            raise Refusal(self.error(401, "x-api-key header is required"))
        if key != self.key:
            raise Refusal(self.error(401, "invalid x-api-key"))
        version = call.headers.get("anthropic-version")
        if version is None:
            raise Refusal(self.error(400, "anthropic-version: header is required"))
        if version not in VERSIONS:
            raise Refusal(self.error(400, f'anthropic-version: "{version}" is not a valid version'))

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Say *message* under the type of error that *status* has."""
        ids = self._ids()
        said: dict[str, object] = {"type": "error", "error": {"type": _type_of(status), "message": message}}
        said |= {"request_id": ids["request-id"]} if ids else {}
        return Answer.json(said, status=status, headers={**ids, **(headers or {})})

    def error_line(self, message: str) -> bytes:
        """Say *message* in an event, as an overloaded server does."""
        return event({"type": "error", "error": {"type": "overloaded_error", "message": message}})

    async def _create(self, call: Call) -> Answer:
        asked = self._read(call)
        self._check(asked)
        message = self._message(asked)
        headers = self._ids()
        if asked.fields.get("stream") is not True:
            return Answer.json(message, headers=headers)
        return Answer(
            parts=tuple(event_stream(message, pings=self.mode == "anthropic")),
            content_type="text/event-stream; charset=utf-8",
            headers=headers,
            streamed=True,
        )

    async def _list(self, call: Call) -> Answer:
        limit, after = call.query.get("limit", "20"), call.query.get("after_id")
        if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= 1000:  # noqa: PLR2004 - as documented
            raise Refusal(self.error(400, "limit: Input should be between 1 and 1000"))
        if after is not None and after not in self.models:
            raise Refusal(self.error(400, f"after_id: no model {after}"))
        begin = 0 if after is None else self.models.index(after) + 1
        page = self.models[begin : begin + int(limit)]
        said = {
            "data": [self._model(name) for name in page],
            "has_more": begin + len(page) < len(self.models),
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
        }
        return Answer.json(said, headers=self._ids())

    def _read(self, call: Call) -> Asked:
        try:
            return Asked(fields=call.fields(), version=call.headers.get("anthropic-version", OLD))
        except BadBody as error:
            raise Refusal(self.error(400, str(error)))
        except ValueError as error:
            raise Refusal(self.error(400, str(error)))

    def _check(self, asked: Asked) -> None:
        """Raise `Refusal` for what is well said, and cannot be done."""
        model = str(asked.fields["model"])
        if self.mode == "anthropic" and model not in self.models and not model.startswith("claude-"):
            raise Refusal(self.error(404, f"model: {model}"))
        if self.broke:
            raise Refusal(self.error(400, _LOW))
        if asked.tokens > self.context:
            raise Refusal(
                self.error(400, f"prompt is too long: {asked.tokens} tokens > {self.context} maximum")
            )
        for where, thought in asked.thoughts():
            if thought["signature"] != signature(str(thought["thinking"])):
                raise Refusal(self.error(400, f"{where}: Invalid `signature` in `thinking` block"))

    def _message(self, asked: Asked) -> Json:
        content, reason, stopped = self._content(asked)
        written = sum(len(compact(block).split()) for block in content)
        return {
            "id": f"msg_{self.ids().hex}",
            "type": "message",
            "role": "assistant",
            "model": asked.fields["model"],
            "content": content,
            "stop_reason": self.stop_reason or reason,
            "stop_sequence": stopped,
            "usage": {**self._cost(asked), "output_tokens": max(written, 1)},
        }

    def _content(self, asked: Asked) -> tuple[list[Json], str, str | None]:
        """Give the blocks of the answer, why it ends, and the stop sequence where it does."""
        thoughts = [self._thought(asked.said)] if asked.thinks and not asked.searched else []
        begun = [*thoughts, *(_result(str(call["id"]), asked.said) for call in asked.waiting)]
        if asked.searches and asked.searched < self.pauses:
            return [*begun, *self._search(asked.said)], "pause_turn", None
        if asked.tool is not None:
            call = {"type": "tool_use", "id": f"toolu_{self.ids().hex}", "name": asked.tool["name"]}
            return (
                [*begun, {**call, "input": arguments(asked.tool["input_schema"], asked.said)}],
                "tool_use",
                None,
            )
        given = self.responder(asked.said, asked.history)
        if asked.schema is not None:
            given = compact(instance(asked.schema, asked.said))
        text, reason, stopped = asked.shorten(given)
        cited = {"citations": [_citation(asked.said)]} if asked.searched else {}
        return [*begun, *([{"type": "text", "text": text, **cited}] if text else [])], reason, stopped

    def _thought(self, said: str) -> Json:
        text = f"They said {said!r}."
        if self.redacted:
            return {"type": "redacted_thinking", "data": signature(text)}
        return {"type": "thinking", "thinking": text, "signature": signature(text)}

    def _search(self, said: str) -> list[Json]:
        call_id = f"srvtoolu_{self.ids().hex}"
        call = {"type": "server_tool_use", "id": call_id, "name": "web_search", "input": {"query": said}}
        found = [] if self.pending else [_result(call_id, said)]
        return [{"type": "text", "text": "I search. "}, call, *found]

    def _cost(self, asked: Asked) -> Json:
        if self.mode == "compatible":
            return {"input_tokens": asked.tokens}
        read = min(self._cached, asked.tokens) if asked.cached else 0
        written = asked.tokens - read if asked.cached else 0
        self._cached = asked.tokens if asked.cached else self._cached
        return {
            "input_tokens": asked.tokens - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "service_tier": "standard",
        }

    def _model(self, name: str) -> Json:
        return {
            "type": "model",
            "id": name,
            "display_name": name.replace("-", " ").title(),
            "created_at": "2026-01-01T00:00:00Z",
            "max_input_tokens": self.context,
            "max_tokens": 64_000,
            "lifecycle": "active",
        }

    def _ids(self) -> dict[str, str]:
        """Give the header that tells a request's id."""
        return {} if self.mode == "compatible" else {"request-id": f"req_{self.ids().hex}"}


def _result(call_id: str, said: str) -> Json:
    """Tell what the server's tool found."""
    page = {"type": "web_search_result", "title": said, "url": _PAGE, "page_age": None}
    found = [{**page, "encrypted_content": signature(said)}]
    return {"type": "web_search_tool_result", "tool_use_id": call_id, "content": found}


def _citation(said: str) -> Json:
    """Tell what of that an answer rests on."""
    where = {"url": _PAGE, "title": said, "encrypted_index": signature(said)}
    return {"type": "web_search_result_location", "cited_text": said, **where}


def _type_of(status: int) -> str:
    return _ERRORS.get(status, "api_error" if status >= _INTERNAL else "invalid_request_error")

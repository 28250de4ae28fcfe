"""
An emulator of chat completions: OpenAI's, or those of another server that has them.

Source of what is accepted and refused: the types and the documentation of the Python package openai 3.52.0;
`servers` has what others do differently, and names its sources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from attrs import define

from chatbridge.testing.emulator import Answer, Call, Emulator, Operation, Refusal
from chatbridge.testing.instances import arguments, instance
from chatbridge_adapters.openai import servers
from chatbridge_adapters.openai.requests import Asked, Invalid
from chatbridge_adapters.openai.servers import SERVERS, Error, Given, Json, Mode, Quirk, Server

__all__ = ["OpenAIEmulator"]

_REFUSAL = "I cannot help with that."
_TYPES = {429: "requests", 500: "server_error", 503: "server_error"}


@define(kw_only=True, eq=False)
class OpenAIEmulator(Emulator):
    """
    The completion of chats, and the list of models.

    A message that names tools on offer has them called, with arguments that fit their parameters; what they
    give is answered as what a user says. Where the answer must be JSON, its texts are what would be answered,
    unless that is an object in JSON already.

    Attributes:
        mode: Which server to be like: openai, ollama, vllm, llamacpp or lmstudio.
        also: What else to do differently, by the names below.
        models: The models that there are.
        new_models: Those of them that refuse `max_tokens`, as OpenAI's that think do.
        thinks: Whether answers come with reasoning, where the server shows any.
        context: How many tokens history and answer may have; None for any number.
        refuses: Answer with a refusal.
        filtered: Answers end before this text, by the filter of contents.
        broke: Refuse answers, as there is no credit.
        loading: Refuse everything, as the model is not there yet.

    What some servers do differently, or did, or what stands in front of them:
        always_stream: Stream, whatever was asked for.
        comments: Write comments between events.
        content_parts: Give content as a list of parts.
        detail_errors: Write errors as FastAPI does.
        named_errors: Make errors in a stream events of that name.
        no_done: Just end a stream.
        no_ids: Call tools without ids.
        no_indexes: Call tools without numbers.
        no_usage: Tell no usage, whether asked for or not.
        null_finish_reason: Give no reason for the end.
        null_usage: Have a null for usage in each event, where usage was asked for.
        roles: Tell the role in each event.
        text_errors: Write errors that are no JSON.
        timings: Tell timings beside usage.
        usage_with_choice: Tell usage in the last event that has a choice, asked for or not.
        whole_calls: Call each tool in a single event.
    """

    name: ClassVar[str] = "openai"
    base_path: ClassVar[str] = "/v1"
    key_variable: ClassVar[str] = "OPENAI_API_KEY"

    mode: Mode = "openai"
    also: frozenset[Quirk] = frozenset()
    models: Sequence[str] = ("gpt-4o-mini", "gpt-5-mini")
    new_models: frozenset[str] = frozenset({"gpt-5-mini"})
    thinks: bool = False
    context: int | None = None
    refuses: bool = False
    filtered: str | None = None
    broke: bool = False
    loading: bool = False

    @property
    def kind(self) -> Server:
        """What the server does differently."""
        return SERVERS[self.mode]

    @property
    def quirks(self) -> frozenset[Quirk]:
        """All that it does differently."""
        return self.kind.quirks | self.also

    @property
    def operations(self) -> Sequence[Operation]:
        """The API's routes."""
        return (
            Operation("createChatCompletion", "POST", "/chat/completions", self._complete),
            Operation("listModels", "GET", "/models", self._list),
            Operation("retrieveModel", "GET", "/models/{model:.+}", self._get),
        )

    @property
    def options(self) -> dict[str, str]:
        """A model."""
        return {"model": self.models[0]}

    @property
    def reasoning(self) -> Mapping[str, Any] | None:
        """Nothing more than a message, where the model thinks and the server shows it."""
        return {} if self.thinks and self.kind.thoughts is not None else None

    def admit(self, call: Call) -> None:
        """Raise `Refusal` unless *call* carries the key, where one is asked for."""
        if self.loading:
            raise self._refusal(503, "Loading model")
        if not self.kind.keyed or call.bearer == self.key:
            return
        if self.mode == "llamacpp":
            raise self._refusal(401, "Invalid API Key")
        if call.bearer is None:
            raise self._refusal(401, "You didn't provide an API key.", "invalid_request_error")
        raise self._refusal(
            401, "Incorrect API key provided.", "invalid_request_error", code="invalid_api_key"
        )

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Say *message* as the server does."""
        return self._error(Error(status=status, message=message, type=_type_of(status)), headers)

    def error_line(self, message: str) -> bytes:
        """Say *message* in an event."""
        said = self.kind.form(Error(status=500, message=message, type="server_error"))
        return servers.event(said, "error" if "named_errors" in self.quirks else None)

    def _error(self, error: Error, headers: Mapping[str, str] | None = None) -> Answer:
        if "text_errors" in self.quirks:
            return Answer(
                parts=(error.message.encode(),),
                status=error.status,
                content_type="text/plain",
                headers=headers or {},
            )
        said = {"detail": error.message} if "detail_errors" in self.quirks else self.kind.form(error)
        return Answer.json(said, status=error.status, headers=headers)

    def _refusal(
        self,
        status: int,
        message: str,
        kind: str | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
    ) -> Refusal:
        error = Error(status=status, message=message, type=kind or _type_of(status), param=param, code=code)
        return Refusal(self._error(error))

    async def _list(self, call: Call) -> Answer:
        del call
        return Answer.json({"object": "list", "data": [self._model(name) for name in self.models]})

    async def _get(self, call: Call) -> Answer:
        self._check_model(call.params["model"])
        return Answer.json(self._model(call.params["model"]))

    def _model(self, name: str) -> Json:
        return {"id": name, "object": "model", "created": self._seconds(), "owned_by": self.kind.owner}

    async def _complete(self, call: Call) -> Answer:
        asked = self._asked(call)
        head: Json = {
            "id": f"chatcmpl-{self.ids().hex}",
            "created": self._seconds(),
            "model": self._check_model(asked.fields.get("model")),
            "system_fingerprint": f"fp_{self.mode}",
        }
        self._check_limits(asked)
        given = self._given(asked)
        if asked.stream or "always_stream" in self.quirks:
            parts = tuple(servers.chunks(head, given, self.quirks, usage=asked.wants_usage))
            return Answer(parts=parts, content_type="text/event-stream", streamed=True)
        return Answer.json(servers.whole(head, given, self.quirks))

    def _given(self, asked: Asked) -> Given:
        read = len(asked.shown.split())
        self._check_context(read)
        thought = None
        if self.thinks and self.kind.thoughts is not None:
            thought = (self.kind.thoughts, f"They said {asked.said!r}.")
        text, refusal, calls = "", "", []
        reason = "stop"
        if self.refuses:
            refusal = _REFUSAL
        elif asked.tools:
            calls = [
                (f"call_{self.ids().hex[:24]}", name, _written(arguments(parameters, asked.said)))
                for name, parameters in asked.tools
            ]
            reason = "tool_calls" if asked.tool is None else self.kind.named
        else:
            text, reason = self._text(asked)
        written = asked.choices * len(f"{text} {refusal} {thought[1] if thought else ''}".split())
        usage: Json = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }
        if self.mode == "openai":
            usage["prompt_tokens_details"] = {"cached_tokens": 0, "audio_tokens": 0}
            usage["completion_tokens_details"] = {"reasoning_tokens": 0}
        return Given(
            text=text,
            reason=reason,
            refusal=refusal,
            calls=calls,
            thought=thought,
            choices=asked.choices,
            logprobs=asked.logprobs,
            usage=usage,
        )

    def _text(self, asked: Asked) -> tuple[str, str]:
        text = self.responder(asked.said, asked.history)
        if asked.form is not None and not _is_json(text):
            text = _written(instance(asked.form, text))
        if self.filtered is not None and self.filtered in text:
            return text.partition(self.filtered)[0], "content_filter"
        return asked.shorten(text)

    def _asked(self, call: Call) -> Asked:
        fields = {name: value for name, value in call.fields().items() if name not in self.kind.ignores}
        try:
            return Asked(fields=fields, checks=self.kind.checks)
        except Invalid as error:
            raise self._refusal(400, str(error), "invalid_request_error", param=error.param, code=error.code)

    def _check_model(self, name: object) -> str:
        if not self.kind.models:
            return str(name or self.models[0])
        if not isinstance(name, str) or not name:
            raise self._refusal(400, "you must provide a model parameter", "invalid_request_error")
        if name not in self.models:
            said = {
                "openai": f"The model `{name}` does not exist or you do not have access to it.",
                "ollama": f"model {name!r} not found",
            }.get(self.mode, f"The model `{name}` does not exist.")
            raise self._refusal(404, said, "invalid_request_error", param="model", code="model_not_found")
        return name

    def _check_limits(self, asked: Asked) -> None:
        if self.broke:
            raise self._refusal(
                429,
                "You exceeded your current quota, please check your plan and billing details.",
                "insufficient_quota",
                code="insufficient_quota",
            )
        if (
            self.mode == "openai"
            and asked.fields["model"] in self.new_models
            and asked.fields.get("max_tokens") is not None
        ):
            raise self._refusal(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                "invalid_request_error",
                param="max_tokens",
                code="unsupported_parameter",
            )

    def _check_context(self, read: int) -> None:
        words = self.kind.too_long
        if words is None or self.context is None or read <= self.context:
            return
        of_llama = self.mode == "llamacpp"
        raise self._refusal(
            400,
            words.format(read=read, fits=self.context),
            "exceed_context_size_error" if of_llama else "invalid_request_error",
            param="messages",
            code="context_length_exceeded",
        )

    def _seconds(self) -> int:
        return int(self.now().timestamp())


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_json(text: str) -> bool:
    """Tell whether *text* is an object in JSON."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _type_of(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error")

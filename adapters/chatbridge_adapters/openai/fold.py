"""An answer of chat completions, with what servers say beyond the form that such APIs share."""

from __future__ import annotations

from secrets import token_hex

from attrs import define, evolve

from chatbridge.domain import FinishReason, Reply
from chatbridge.http import CALLS, CallFold, CompletionFold, Said, as_list, as_object, words
from chatbridge_adapters.openai.messages import HOST_OF_CALLS, THINKING, sign
from chatbridge_adapters.openai.wire import NAME

NO_CHOICE = "the answer holds no choice, so there is no text"
HINT = "there are servers that answer so when the history is too long for the model"
EMPTY = f"the answer is empty: {HINT}"

# The first is what llama.cpp, LM Studio and DeepSeek say, the second what Ollama, OpenRouter and vLLM do.
_THOUGHTS = ("reasoning_content", "reasoning")


@define(repr=False)
class AnswerFold(CompletionFold):
    """
    An answer, put together from a stream or taken whole.

    A refusal is text like any other; the finish reason tells what it is, and the message's `extra` has it. A
    call of a tool that came without an id is given one of its own, so that its result can name it.

    Attributes:
        host: The server's.
    """

    origin: str = NAME
    host: str | None = None
    _refused: bool = False

    def reply(self) -> Reply:
        """Give the answer, once it has ended."""
        reply = super().reply()
        if self.host is not None and CALLS in reply.message.extra:
            extra = {**reply.message.extra, HOST_OF_CALLS: self.host}
            reply = evolve(reply, messages=(evolve(reply.message, extra=extra),))
        if not self._of_choices:
            return evolve(reply, warnings=(NO_CHOICE, *reply.warnings))
        silent = not reply.message.parts and not any(reply.message.extra.values())
        if silent and reply.finish_reason in {None, FinishReason.STOP}:
            return evolve(reply, warnings=(EMPTY, *reply.warnings))
        if self._refused and reply.finish_reason in {None, FinishReason.STOP}:
            return evolve(reply, finish_reason=FinishReason.REFUSAL)
        if reply.finish_reason is FinishReason.STOP and self._parts.calls:
            return evolve(
                reply, finish_reason=FinishReason.TOOL_CALLS
            )  # As after a call that was asked for by name.
        return reply

    def _begin(self, call_id: str) -> CallFold:
        return super()._begin(call_id or f"call_{token_hex(8)}")

    def _texts(self, said: Said, *, whole: bool) -> dict[str, str]:
        texts, raw = super()._texts(said, whole=whole), said.raw
        if len(raw) == 1 and "content" in raw:  # As in nearly every piece.
            return texts
        if isinstance(refusal := raw.get("refusal"), str):
            texts["refusal"] = refusal
        thoughts = {name: each for name in _THOUGHTS if isinstance(each := raw.get(name), str) and each}
        if thoughts:  # The same thought may have the other name next time.
            texts |= dict.fromkeys(_THOUGHTS, next(iter(thoughts.values()))) | thoughts
        return texts

    def _take(self, said: Said, *, whole: bool) -> None:
        if "reasoning" in said.raw or "reasoning_content" in said.raw:
            said = self._think(said)
        refusal = said.raw.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._refused = True
            said = evolve(said, content=[*as_list(said.content), refusal])
        super()._take(said, whole=whole)

    def _think(self, said: Said) -> Said:
        """Take the reasoning out of a message."""
        thought, rest = "", dict(said.raw)
        for name in _THOUGHTS:
            told = said.raw.get(name)
            if isinstance(told, str) and (not thought or told in {"", thought}):
                del rest[name]  # There are servers that say the same in both.
                if told and not thought:
                    thought = told
                    self._parts.think(told, sign(name))
        return evolve(said, raw=rest)

    def _put(self, part: object) -> None:
        fields = as_object(part)
        refusal, thoughts = fields.get("refusal"), [words(each) for each in as_list(fields.get(THINKING))]
        if fields.get("type") == "refusal" and isinstance(refusal, str):
            self._refused = True
            self._of_messages.add({"refusal": refusal})
            self._parts.say(refusal)
        elif fields.get("type") == THINKING and None not in thoughts:
            if thought := "".join(filter(None, thoughts)):
                self._parts.think(thought, sign(THINKING))
        else:
            super()._put(part)

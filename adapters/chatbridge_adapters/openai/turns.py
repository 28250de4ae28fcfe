"""
The order in which chat completions take a history.

Source: the words in which OpenAI's API refuses others. What the assistant says is followed by a result for
each call of a tool in it, and by no other; where a history has it otherwise, each later message is refused.
The templates of many models that other servers have want user and assistant in turn, so what one side says in
a row is one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any

from attrs import evolve, frozen

Json = dict[str, Any]
Content = str | list[Json] | None

_ASSISTANT = "assistant"
_GAP = "\n\n"
_NOT_RUN = "not run"


@frozen
class Call:
    """
    A call of a tool.

    Attributes:
        data: As the API takes it.
        read: Whether its arguments could be read; if not, it is given back only with a result.
    """

    id: object
    name: object
    data: Mapping[str, Any]
    read: bool = True


@frozen
class Result:
    """
    What a tool gave.

    Attributes:
        message: The number of the message that it is in.
    """

    call_id: str
    content: str
    message: int


@frozen
class Said:
    """
    What one side says.

    Attributes:
        thoughts: Reasoning, by the fields that it is given back in.
    """

    role: str
    content: Content
    calls: Sequence[Call] = ()
    thoughts: Mapping[str, str] = MappingProxyType({})

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing of it, not even an empty text."""
        return self.content is None and not self.calls and not self.thoughts


_NOTHING = Said(_ASSISTANT, None)


@frozen
class Ordered:
    """
    A history in an order that the API takes.

    Attributes:
        orphans: The results that were left out, as no call that they answer is before them.
    """

    messages: list[Json]
    orphans: list[Result]


def in_order(history: Iterable[Said | Result], newest: int, warn: Callable[[str], None]) -> Ordered:
    """
    Put results behind their calls, and make what a side says in a row one message.

    Of two results of a call the later counts. Where the assistant spoke between a call and its only result,
    the result goes back to the call, unless it is in the *newest* message. For a call that has none the model
    is told that it was not run; where it could not be read it is left out, as servers refuse it. Of both
    *warn* is told, with the first answer after it only, as the history stays as it is.
    """
    turns: list[Said | Json] = []
    orphans: list[Result] = []
    gaps: list[str] = []
    last = _NOTHING
    for by_model, run in groupby(_without_delays(history, newest), _is_by_model):
        together = list(run)
        said = [each for each in together if isinstance(each, Said)]
        if by_model:
            last, gaps = _joined(said), []
            continue
        results = [each for each in together if isinstance(each, Result)]
        turns += [*_answered(last, results, orphans, gaps), *said]
        last = _NOTHING
    turns += _answered(last, (), orphans, gaps)
    for gap in gaps:
        warn(gap)
    return Ordered(_written(turns), orphans)


def _is_by_model(each: Said | Result) -> bool:
    return isinstance(each, Said) and each.role == _ASSISTANT


def _without_delays(history: Iterable[Said | Result], newest: int) -> list[Said | Result]:
    """Put each late result to what comes right after its call, if that had none yet."""
    runs: list[list[Said | Result]] = []
    waiting: dict[str, int] = {}
    for by_model, run in groupby(history, _is_by_model):
        here = len(runs)
        runs.append([])
        for each in run:
            behind = here
            if isinstance(each, Result):
                answered = waiting.pop(each.call_id, here)
                behind = here if each.message == newest else answered
            elif by_model:
                waiting |= {str(call.id): here + 1 for call in each.calls}
            runs[behind].append(each)
    return [each for run in runs for each in run]


def _answered(
    said: Said, results: Iterable[Result], orphans: list[Result], gaps: list[str]
) -> list[Said | Json]:
    """Give what the assistant says, with a result for each of its calls behind it; note the *gaps*."""
    given: dict[int, str] = {}
    for result in results:
        places = [place for place, call in enumerate(said.calls) if call.id == result.call_id]
        if places:
            given[next((place for place in places if place not in given), places[-1])] = result.content
        else:
            orphans.append(result)
    calls: list[Call] = []
    behind: list[Said | Json] = []
    for place, call in enumerate(said.calls):
        # In an answer that came again a call is the same, too.
        same = (other for other in given if said.calls[other].data == call.data)
        content = given[place] if place in given else next((given[other] for other in same), None)
        if content is None and not call.read:
            gaps.append(f"left out of the history: a call of the tool {call.name!r}, which nothing answered")
            continue
        if content is None:
            gaps.append(f"a call of the tool {call.name!r} was never answered; the model is told so")
        calls.append(call)
        behind.append(
            {"role": "tool", "tool_call_id": call.id, "content": _NOT_RUN if content is None else content}
        )
    left = evolve(said, calls=calls)
    return behind if left.is_empty else [left, *behind]


def _written(turns: Iterable[Said | Json]) -> list[Json]:
    messages: list[Json] = []
    for _, run in groupby(turns, lambda each: each.role if isinstance(each, Said) else None):
        together = list(run)
        said = [each for each in together if isinstance(each, Said)]
        results = [each for each in together if not isinstance(each, Said)]
        messages += [_message(_joined(said))] if said else results
    return messages


def _message(said: Said) -> Json:
    message: Json = {"role": said.role, "content": said.content}
    if said.thoughts:
        message |= said.thoughts
    if said.calls:
        message["tool_calls"] = [call.data for call in said.calls]
    elif said.content is None:
        message["content"] = ""
    return message


def _joined(run: Sequence[Said]) -> Said:
    """Make what one side says in a row one message."""
    if len(run) == 1:
        return run[0]
    thoughts: dict[str, list[str]] = {}
    for said in run:
        for name, thought in said.thoughts.items():
            thoughts.setdefault(name, []).append(thought)
    return Said(
        run[0].role,
        _all_of([said.content for said in run]),
        [call for said in run for call in said.calls],
        {name: _GAP.join(each) for name, each in thoughts.items()},
    )


def _all_of(contents: Sequence[Content]) -> Content:
    told = [content for content in contents if content]
    texts = [content for content in told if isinstance(content, str)]
    if not told:
        return next((content for content in contents if content is not None), None)
    if len(texts) == len(told):
        return _GAP.join(texts)
    return [part for content in told for part in _parts(content)]


def _parts(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content

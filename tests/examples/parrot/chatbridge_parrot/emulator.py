"""A server that behaves as Parrot does."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from attrs import define, field

from chatbridge.testing.emulator import Answer, Call, Emulator, Operation, Refusal, is_object
from chatbridge.testing.responder import Exchange


@define(eq=False)
class ParrotEmulator(Emulator):
    """Parrot's three operations, over the lines that were said on each perch."""

    name = "parrot"
    key_variable = "PARROT_API_KEY"
    perches: dict[str, list[dict[str, str]]] = field(init=False, factory=dict[str, list[dict[str, str]]])

    @property
    def operations(self) -> Sequence[Operation]:
        return (
            Operation("create", "POST", "/perches", self._create),
            Operation("hear", "GET", "/perches/{perch}", self._hear),
            Operation("say", "POST", "/perches/{perch}", self._say),
        )

    def admit(self, call: Call) -> None:
        if call.headers.get("Parrot-Key") != self.key:
            raise Refusal(self.error(401, "this key opens no cage"))

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
        return Answer.json(message, status=status, headers=headers)

    async def _create(self, _: Call) -> Answer:
        self.perches[perch := str(self.ids())] = []
        return Answer.json(perch, status=201)

    async def _hear(self, call: Call) -> Answer:
        return Answer.json(self._lines(call))

    async def _say(self, call: Call) -> Answer:
        lines, body = self._lines(call), call.json()
        if not is_object(body) or not isinstance(text := body.get("text"), str):
            raise Refusal(self.error(400, "there is no text"))
        turns = [Exchange(you["text"], it["text"]) for you, it in pairwise(lines) if it["by"] == "parrot"]
        you = {"id": str(self.ids()), "by": "you", "text": text}
        it = {"id": str(self.ids()), "by": "parrot", "text": self.responder(text, turns)}
        return Answer.json(it, keep=lambda kept, _: lines.extend([you, it] if kept == "turn" else [you]))

    def _lines(self, call: Call) -> list[dict[str, str]]:
        if call.params["perch"] not in self.perches:
            raise Refusal(self.error(404, "no such perch"))
        return self.perches[call.params["perch"]]

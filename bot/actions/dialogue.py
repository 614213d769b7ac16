"""
The dialogue: what a message calls for.

An open form is asked first, then the rules, then, where the operator wants it, the
model; what none of them takes is left to knowledge. Knows nothing of lanes, of Redis,
or of how an action runs.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from bot.actions import filling, forms, state, tools
from bot.actions.calls import JsonObject
from bot.actions.doing import Doing, Parts, Watch
from bot.actions.rules import Match, understood
from bot.errors import ActionError, TurnCancelled, TurnError
from bot.inference import apart
from bot.interfaces import GenerationRequest, LanguageModel
from bot.model import Candidate, Turn

# As Rasa calls what fills slots, and what checks them.
EXTRACT_SLOTS = "action_extract_slots"
VALIDATE_SLOTS = "action_validate_slot_mappings"

logger = logging.getLogger(__name__)

Generate = Callable[[GenerationRequest], Awaitable[list[Candidate]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """
    Answers messages by actions; `plugins` are those of plugins, by their commands, with
    what each does. A choice by the model is made with `model` and `persona`.
    """

    parts: Parts
    model: LanguageModel
    persona: str
    plugins: Mapping[str, str] = field(default_factory=dict)

    def commands(self) -> Mapping[str, str]:
        """Return the commands that run actions, and what each does."""
        rules = self.parts.rules.commands().items()
        return {
            **{command: self._described(run) for command, run in rules},
            **self.plugins,
        }

    def _described(self, run: str) -> str:
        tool = self.parts.config.tools.get(run)
        return tool.description if tool else f"runs {run}"

    def takes(self, turn: Turn) -> bool:
        """Say whether this turn's command is for an action, or for an open form."""
        said = understood(turn.message)
        if said.command in self.plugins:
            return True
        loop = state.begun(turn.slots, (), {}).loop
        in_a_form = loop in self.parts.config.forms and said.named is not None
        return in_a_form or self.parts.rules.match(said, by_meaning=False) is not None

    def begin(self, turn: Turn, watch: Watch) -> Doing:
        """Return what the turn does; nothing is done yet."""
        return Doing(self.parts, turn, watch)

    async def answer(self, doing: Doing, generate: Generate) -> None:
        """
        Do what the message calls for. Raises TurnCancelled when it was stopped: what
        was done until then is in `doing.acted()`.
        """
        try:
            await self._answer(doing, generate)
        except ActionError as error:  # a server of which nobody knows what it has
            doing.problem = str(error)

    async def _answer(self, doing: Doing, generate: Generate) -> None:
        await self._fill_always(doing)
        if doing.problem:
            return
        if doing.turn.message.kind == "intent" and await self._match(doing) is None:
            self._drop(doing)
            await doing.drain(forms.start)  # what its entities filled may call for more
            return
        form = self._open_form(doing)
        taken = form is not None and await forms.answer(doing, form)
        if not taken and not doing.problem:
            await self._beside(doing, form, generate)
        await doing.drain(forms.start)
        if doing.has_failed:
            return
        if form is not None and not taken and form == self._open_form(doing):
            await forms.ask_again(doing, form)
        else:
            await self._take_up(doing)

    async def _take_up(self, doing: Doing) -> None:
        """Go on with the form that was put aside for one that is closed by now."""
        aside = list(doing.state.suspended)
        while aside and doing.state.loop is None and not doing.problem:
            form = aside.pop()
            if form in self.parts.config.forms:
                await forms.take_up(doing, form)
                await doing.drain(forms.start)

    def _open_form(self, doing: Doing) -> str | None:
        """One that the configuration has no more is as good as left."""
        loop = doing.state.loop
        return loop if loop in self.parts.config.forms else None

    async def _beside(self, doing: Doing, form: str | None, generate: Generate) -> None:
        """Do what the message calls for where no form takes it."""
        customer = doing.customer
        match = await self._match(doing)
        if match is not None and match.rule.run == form:
            return  # it is open: it only asks again
        if match is not None:
            self._fill(doing, self._values(match.entities), match.why)
            doing.then(match.rule.run, match.why)
        elif customer.command in self.plugins:
            doing.then(f"{customer.command}", "the customer ran it")
        elif form is not None:
            doing.generates = filling.is_question(customer.text)
        elif customer.named is not None:  # a button that leads nowhere
            doing.problem = _without_rule(customer.named)
        else:
            if self.parts.config.by_model:
                await self._choose(doing, generate)
            # That a slot was filled is no answer.
            doing.generates = bool(doing.runs) and not doing.has_more

    def _drop(self, doing: Doing) -> None:
        """The customer, who asked for nothing, does not hear of it."""
        told = _without_rule(doing.customer.named)
        logger.warning("a reminder is dropped: %s", told)
        doing.why = "a reminder came due"
        doing.problems.append(told)

    async def _match(self, doing: Doing) -> Match | None:
        """The embedder computes, so it is waited for on a thread."""
        rules = self.parts.rules
        by_name = rules.match(doing.customer, by_meaning=False)
        if by_name is not None:
            return by_name
        return await apart(lambda: rules.match(doing.customer, by_meaning=True))

    def _values(self, told: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return what of it slots can hold."""
        slots = self.parts.config.slots
        return {
            name: value
            for name, raw in told.items()
            if name in slots
            and (value := filling.told_value(slots[name], raw)) is not None
        }

    def _payload(self, doing: Doing) -> dict[str, JsonValue]:
        """Return what a payload fills; an action's own reminder may fill any slot."""
        found = self._values(doing.customer.entities)
        if doing.turn.message.kind == "intent":
            return found
        may = filling.open_to_customers(self.parts.config)
        return {name: value for name, value in found.items() if name in may}

    # Slots

    async def _fill_always(self, doing: Doing) -> None:
        """Fill the slots that any message may fill, as far as they are right."""
        always = filling.always(self.parts.config.slots, doing.customer)
        found = {**always, **self._payload(doing)}
        if await doing.may_have(VALIDATE_SLOTS):
            await doing.act(VALIDATE_SLOTS, "checks slots", _slot_events(found))
        else:
            self._fill(doing, found, "the message has it")

    def _fill(self, doing: Doing, found: Mapping[str, JsonValue], why: str) -> None:
        if found:
            doing.note(EXTRACT_SLOTS, why, _slot_events(found))

    # By the model

    async def _choose(self, doing: Doing, generate: Generate) -> None:
        """Let the model call an action; what it writes else is left to knowledge."""
        try:
            choice = await tools.choose(
                doing.turn,
                actions=self.parts.config,
                persona=self.persona,
                model=self.model,
                generate=generate,
            )
        except TurnCancelled:
            raise
        except TurnError as error:
            doing.problems.append(f"the model could not choose an action: {error}")
            return
        if choice.action is not None:
            self._fill(doing, choice.arguments, choice.why)
            doing.then(choice.action, choice.why)
        elif choice.problem:  # it called something, and that is no call
            doing.note("by_model", choice.why)
            doing.problems.append(f"{choice.problem}; the model wrote: {choice.wrote}")


def _slot_events(found: Mapping[str, JsonValue]) -> list[JsonObject]:
    return [
        {"event": "slot", "name": name, "value": value} for name, value in found.items()
    ]


def _without_rule(intent: str | None) -> str:
    return (
        f"no rule runs anything for the intent {intent!r}; write one under "
        "actions.rules"
    )

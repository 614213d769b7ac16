"""
Forms: slots that are asked for one after the other, checked, and asked for again.

A form goes as in Rasa 3.6: what the customer writes is taken for the slot that was
asked for; the action `validate_<form>` may change or refuse it; then the next one that
is missing is asked for, and at the end the form's `submit` runs. It is left when the
customer says so, and goes on with what is missing when it is started again. What is no
answer to it (a command, a question, another rule's message) is answered first, and then
it asks again. Knows nothing about how actions run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from bot.actions import filling
from bot.actions.calls import JsonObject
from bot.actions.doing import Doing
from bot.actions.replies import Said
from bot.actions.state import REQUESTED
from bot.actions_config import FormConfig, SlotConfig
from bot.model import Reply

LEFT: JsonObject = {"event": "active_loop", "name": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """
    Whether the form came on by a message, and what its validation asks for next, if
    `decides`: a slot, or None for nothing more.
    """

    came_on: bool
    decides: bool = False
    asks_for: str | None = None


async def start(doing: Doing, name: str, why: str) -> None:
    """Open a form, with what the message and the slots have for it already."""
    form = doing.parts.config.forms[name]
    doing.note(name, why, [{"event": "active_loop", "name": name}])
    slots = doing.state.slots
    filled = {slot: slots[slot] for slot in form.slots if slots.get(slot) is not None}
    found = {**filled, **_named(doing, form)}
    await _go_on(doing, name, await _take(doing, name, found))


async def answer(doing: Doing, name: str) -> bool:
    """
    Take the message for what the form asked for. False when it is no answer to it: the
    message is to be answered otherwise, and then the form asks again.
    """
    form = doing.parts.config.forms[name]
    if filling.leaves(form, doing.customer):
        said = Said(reply=Reply(text=form.left))
        doing.note(name, "the customer left the form", [LEFT], said)
        return True
    asked = doing.state.requested
    found = _named(doing, form)
    if asked is not None:
        value = _answered(doing, asked)
        if value is not None:
            found[asked] = value.value
    if asked not in found and _is_for_others(doing):
        return False
    taken = await _take(doing, name, found)
    if taken.came_on and not doing.problem:
        await _go_on(doing, name, taken)
    return taken.came_on


async def ask_again(doing: Doing, name: str) -> None:
    """Ask for the same slot, after something else was answered."""
    form = doing.parts.config.forms[name]
    slot = doing.state.requested or _first_missing(doing, form)
    if slot is not None:
        await _ask(doing, name, slot)


async def take_up(doing: Doing, name: str) -> None:
    """Go on with a form that was put aside for another one."""
    opened: JsonObject = {"event": "active_loop", "name": name}
    doing.note(name, "it was put aside, and goes on", [opened])
    await _go_on(doing, name, _Taken(came_on=True))


# What a message has for a form


def _named(doing: Doing, form: FormConfig) -> dict[str, JsonValue]:
    """Return the slots that the message fills whatever was asked: see `filling`."""
    return {
        name: found.value
        for name in form.slots
        if (found := filling.named(_slot(doing, name), doing.customer, name))
    }


def _answered(doing: Doing, asked: str) -> filling.Filled | None:
    """Return what the message says to the question; nothing if it asks one itself."""
    slot = _slot(doing, asked)
    is_free = slot.type in {"text", "any", "list"} and slot.pattern is None
    if is_free and filling.is_question(doing.customer.text):
        return None
    return filling.value(slot, doing.customer, asked)


def _is_for_others(doing: Doing) -> bool:
    """Say whether the message is a command, a question, or a button of another rule."""
    customer = doing.customer
    if filling.is_question(customer.text):
        return True
    by_name = not customer.is_written
    return by_name and doing.parts.rules.match(customer, by_meaning=False) is not None


def _slot(doing: Doing, name: str) -> SlotConfig:
    return doing.parts.config.slots.get(name, SlotConfig())


# Going on


async def _take(doing: Doing, name: str, found: Mapping[str, JsonValue]) -> _Taken:
    """Have the form's validation check what was found, or take it as it is."""
    events: list[JsonObject] = [
        {"event": "slot", "name": slot, "value": value} for slot, value in found.items()
    ]
    validation = f"validate_{name}"
    if not await doing.has(validation):
        if events:
            doing.note(name, "the customer answered", events)
        return _Taken(came_on=bool(events))
    said = len(doing.said)
    fault = await doing.act(validation, f"checks what {name} was told", events)
    if fault is not None:
        # One that rejects leaves the message to others; any other fails the turn.
        return _Taken(came_on=fault != "rejected")
    slots = {
        one.get("name"): one.get("value")
        for one in doing.runs[-1].events
        if one.get("event") == "slot"
    }
    asks_for = slots.pop(REQUESTED, "")
    filled = any(value is not None for value in slots.values())
    return _Taken(
        came_on=bool(events) or filled or len(doing.said) > said,
        decides=asks_for != "",
        asks_for=asks_for if isinstance(asks_for, str) else None,
    )


async def _go_on(doing: Doing, name: str, taken: _Taken) -> None:
    """Ask for what is missing next, or close the form."""
    if doing.problem or doing.state.loop != name:  # its validation may have left it
        return
    form = doing.parts.config.forms[name]
    slot = taken.asks_for if taken.decides else _first_missing(doing, form)
    if slot is not None:
        await _ask(doing, name, slot)
        return
    doing.note(name, "everything is filled", [LEFT])
    if form.submit is not None:
        doing.then(form.submit, f"{name} is filled")


def _first_missing(doing: Doing, form: FormConfig) -> str | None:
    slots = doing.state.slots
    return next((name for name in form.slots if slots.get(name) is None), None)


async def _ask(doing: Doing, form: str, slot: str) -> None:
    """Ask for a slot; what is asked comes after everything else that is said."""
    requested: JsonObject = {"event": "slot", "name": REQUESTED, "value": slot}
    doing.note(form, f"asks for {slot}", [requested])
    before = len(doing.said)
    await _say_question(doing, form, slot)
    doing.asks += doing.said[before:]
    del doing.said[before:]


async def _say_question(doing: Doing, form: str, slot: str) -> None:
    """The order is Rasa's: the form's own question first, and actions before texts."""
    why = f"{form} asks for {slot}"
    for of in (f"{form}_{slot}", slot):
        if await doing.may_have(f"action_ask_{of}"):
            await doing.must(f"action_ask_{of}", why)
            return
        if doing.parts.responses.has(f"utter_ask_{of}"):
            doing.say(f"utter_ask_{of}", why)
            return
    doing.problem = (
        f"nothing asks for the slot {slot!r} of {form}; write a response "
        f"utter_ask_{slot} under actions.responses"
    )

"""
The domain that actions are given: the configuration, in Rasa 3's words.

Knows the shape that Rasa 3.6 sends, with which rasa-sdk's forms find their slots, and
nothing about what is done with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import re2
from pydantic import JsonValue

from bot.actions.calls import JsonObject
from bot.actions_config import (
    QUIET,
    ActionsConfig,
    FormConfig,
    ResponseConfig,
    SlotConfig,
)

# Rasa knows no whole numbers: its floats would turn 5 into 5.0.
_TYPES: Mapping[str, str] = {"int": "any"}


def domain_of(actions: ActionsConfig, names: Sequence[str]) -> JsonObject:
    """Return the domain; `names` are the actions that can run."""
    return {
        "version": "3.1",
        "session_config": {
            "session_expiration_time": 60,
            "carry_over_slots_to_new_session": False,
        },
        "intents": list(_intents(actions)),
        "entities": list(_entities(actions)),
        "slots": {
            name: _slot(name, slot, actions.forms)
            for name, slot in actions.slots.items()
        },
        "forms": {
            name: {"required_slots": list(form.slots)}
            for name, form in actions.forms.items()
        },
        "actions": list(names),
        "responses": {
            name: [_response(wording) for wording in wordings]
            for name, wordings in actions.responses.items()
        },
        "e2e_actions": [],
    }


def _intents(actions: ActionsConfig) -> Sequence[str]:
    return sorted({rule.intent for rule in actions.rules if rule.intent})


def _entities(actions: ActionsConfig) -> Sequence[str]:
    """Return what patterns find: the groups of rules, and slots that have one."""
    found = {name for name, slot in actions.slots.items() if slot.pattern}
    for rule in actions.rules:
        if rule.pattern:
            found.update(re2.compile(rule.pattern, options=QUIET).groupindex)
    return sorted(found)


def _slot(
    name: str, slot: SlotConfig, forms: Mapping[str, FormConfig]
) -> dict[str, JsonValue]:
    asking = [form for form, one in forms.items() if name in one.slots]
    mapping: JsonValue = {"type": "custom"}
    if asking:
        mapping = {
            "type": "from_text",
            "conditions": [
                {"active_loop": form, "requested_slot": name} for form in asking
            ],
        }
    made: dict[str, JsonValue] = {
        "type": _TYPES.get(slot.type, slot.type),
        "influence_conversation": False,
        "mappings": [mapping],
    }
    if slot.initial_value is not None:
        made["initial_value"] = slot.initial_value
    if slot.type == "categorical":
        made["values"] = list(slot.values)
    return made


def _response(wording: ResponseConfig) -> dict[str, JsonValue]:
    made: dict[str, JsonValue] = {
        "text": wording.text,
        "buttons": [dict(button) for button in wording.buttons],
        "image": wording.image,
        "attachment": wording.attachment,
        "custom": dict(wording.custom),
        "channel": wording.channel,
    }
    return {name: value for name, value in made.items() if value}

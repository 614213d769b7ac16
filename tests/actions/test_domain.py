from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from pydantic import JsonValue
from rasa_sdk import FormValidationAction, ValidationAction

from bot.actions.calls import JsonObject
from bot.actions.domain import domain_of
from bot.actions.tracker import as_json
from bot.actions_config import ActionsConfig

CAPTURED = Path(__file__).parents[1] / "rasa" / "captured"


def a_domain(names: list[str] | None = None, **config: JsonValue) -> JsonObject:
    made: JsonObject = json.loads(
        as_json(domain_of(ActionsConfig.model_validate(config), names or []))
    )
    return made


def test_the_domain_of_an_empty_configuration_has_every_part_empty() -> None:
    domain = a_domain()

    assert domain == {
        "version": "3.1",
        "session_config": {
            "session_expiration_time": 60,
            "carry_over_slots_to_new_session": False,
        },
        "intents": [],
        "entities": [],
        "slots": {},
        "forms": {},
        "actions": [],
        "responses": {},
        "e2e_actions": [],
    }


@pytest.mark.parametrize(
    ("slot", "told"),
    [
        ({}, {"type": "text"}),
        ({"type": "int"}, {"type": "any"}),
        ({"type": "float", "initial_value": 0.5}, {"type": "float"}),
        ({"type": "bool", "initial_value": False}, {"type": "bool"}),
        (
            {"type": "categorical", "values": ["small", "large"]},
            {"type": "categorical", "values": ["small", "large"]},
        ),
    ],
)
def test_a_slot_is_told_as_rasa_tells_it(slot: JsonObject, told: JsonObject) -> None:
    domain = a_domain(slots={"one": dict(slot)})

    first = {key: slot[key] for key in slot if key == "initial_value"}
    rest = {"influence_conversation": False, "mappings": [{"type": "custom"}]}
    assert domain["slots"] == {"one": {**told, **rest, **first}}


def test_a_slot_of_forms_is_mapped_to_each_of_them() -> None:
    domain = a_domain(
        slots={"order": {}},
        forms={"returns": {"slots": ["order"]}, "claims": {"slots": ["order"]}},
    )

    assert isinstance(domain["slots"], dict)
    assert domain["slots"]["order"]["mappings"] == [  # type: ignore[index, call-overload]  # JSON
        {
            "type": "from_text",
            "conditions": [
                {"active_loop": "returns", "requested_slot": "order"},
                {"active_loop": "claims", "requested_slot": "order"},
            ],
        }
    ]
    assert domain["forms"] == {
        "returns": {"required_slots": ["order"]},
        "claims": {"required_slots": ["order"]},
    }


def test_intents_and_entities_are_what_rules_and_patterns_name() -> None:
    domain = a_domain(
        rules=[
            {"run": "a", "intent": "greet"},
            {"run": "b", "intent": "bye", "pattern": "(?P<city>[A-Z]+) (?P<day>x)"},
            {"run": "c", "intent": "greet"},
        ],
        slots={"order": {"pattern": r"\d+"}, "reason": {}},
    )

    assert domain["intents"] == ["bye", "greet"]
    assert domain["entities"] == ["city", "day", "order"]


def test_responses_are_told_with_what_they_have() -> None:
    domain = a_domain(
        responses={
            "utter_greet": [
                {"text": "Hello {name}", "buttons": [{"title": "A", "payload": "/a"}]},
                {"text": "Hi", "channel": "slack", "custom": {"x": [1]}},
            ]
        }
    )

    assert domain["responses"] == {
        "utter_greet": [
            {"text": "Hello {name}", "buttons": [{"title": "A", "payload": "/a"}]},
            {"text": "Hi", "channel": "slack", "custom": {"x": [1]}},
        ]
    }


def test_rasa_sdks_validations_find_their_slots_in_it() -> None:
    class OfTheForm(FormValidationAction):
        def name(self) -> str:
            return "validate_returns"

    domain = a_domain(
        slots={"order": {}, "language": {}}, forms={"returns": {"slots": ["order"]}}
    )

    assert OfTheForm().domain_slots(domain) == ["order"]
    assert ValidationAction().domain_slots(domain) == ["language"]


def test_it_has_the_parts_that_a_real_rasa_was_seen_to_send() -> None:
    captured = next(iter(sorted(CAPTURED.glob("*validate_slot*.json"))), None)
    if captured is None:
        pytest.skip("nothing is captured")
    theirs = json.loads(
        base64.b64decode(json.loads(captured.read_bytes())["body_base64"])
    )["domain"]

    ours = a_domain(["action_x"])

    assert set(theirs) <= set(ours)
    assert {key: type(theirs[key]) for key in theirs} == {
        key: type(ours[key]) for key in theirs
    }

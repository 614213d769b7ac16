"""The rule for numbers that came by gRPC."""

from __future__ import annotations

from typing import Any

from bot.actions_server.structs import as_json, whole

DOMAIN: Any = {
    "slots": {
        "weight": {"type": "float", "initial_value": 1.0, "min_value": 0.0},
        "quantity": {"type": "any", "initial_value": 1.0},
    }
}


def kinds(value: Any) -> Any:
    """Return the value with its numbers' types in place of the numbers."""
    if isinstance(value, dict):
        return {name: kinds(one) for name, one in value.items()}
    if isinstance(value, list):
        return [kinds(one) for one in value]
    return type(value).__name__ if isinstance(value, int | float) else value


def test_whole_numbers_are_integers_however_deep() -> None:
    value = whole({"a": [5.0, {"b": [5.5, -3.0, 1e300, True, None, "5.0"]}]})

    assert value == {"a": [5, {"b": [5.5, -3, 1e300, True, None, "5.0"]}]}
    assert kinds(value) == {
        "a": ["int", {"b": ["float", "int", "float", "bool", None, "5.0"]}]
    }


def test_a_slot_of_floats_stays_one() -> None:
    tracker: Any = {
        "slots": {"weight": 2.0, "quantity": 2.0},
        "events": [
            {"event": "slot", "name": "weight", "value": 2.0},
            {"event": "slot", "name": "quantity", "value": 2.0},
        ],
    }

    found = as_json({"tracker": tracker, "domain": DOMAIN})

    assert kinds(found["tracker"]) == {
        "slots": {"weight": "float", "quantity": "int"},
        "events": [
            {"event": "slot", "name": "weight", "value": "float"},
            {"event": "slot", "name": "quantity", "value": "int"},
        ],
    }


def test_the_domain_keeps_the_floats_of_such_slots() -> None:
    found = as_json({"tracker": {}, "domain": DOMAIN})

    assert kinds(found["domain"]) == {
        "slots": {
            "weight": {
                "type": "float",
                "initial_value": "float",
                "min_value": "float",
            },
            "quantity": {"type": "any", "initial_value": "int"},
        }
    }


def test_without_a_domain_every_whole_number_is_an_integer() -> None:
    found: Any = as_json({"tracker": {"slots": {"weight": 2.0}}})

    assert kinds(found["tracker"]["slots"]) == {"weight": "int"}


def test_what_rasa_has_as_floats_stays_so() -> None:
    message: Any = {
        "intent": {"name": "greet", "confidence": 1.0},
        "entities": [{"value": 3.0, "start": 0.0, "confidence_entity": 1.0}],
        "text_tokens": [[0.0, 3.0]],
    }

    found = as_json({"tracker": {"latest_message": message}})

    assert kinds(found["tracker"]) == {
        "latest_message": {
            "intent": {"name": "greet", "confidence": "float"},
            "entities": [
                {"value": "int", "start": "int", "confidence_entity": "float"}
            ],
            "text_tokens": [["int", "int"]],
        },
        "slots": {},
        "events": [],
    }


def test_names_in_a_domain_are_as_rasa_writes_them() -> None:
    domain: Any = {
        "intents": [{"string_value": "greet"}],
        "actions": [{"dict_value": {"action_x": {"send_domain": True}}}],
    }

    found = as_json({"tracker": {}, "domain": domain})

    assert found["domain"] == {
        "intents": ["greet"],
        "actions": [{"action_x": {"send_domain": True}}],
        "slots": {},
    }

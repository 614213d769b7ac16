from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue
from rasa_sdk import Tracker

from bot.actions import tracker
from bot.actions.calls import JsonObject
from bot.actions.domain import domain_of
from bot.actions.rules import understood
from bot.actions.state import DialogueState
from bot.actions_config import ActionsConfig
from bot.model import Event, EventKind
from bot.testing.makers import NOON, a_turn, an_address, an_event

CAPTURED = Path(__file__).parents[1] / "rasa" / "captured"
SLOTS = {"order": {}, "gift": {"type": "bool", "initial_value": False}}
DOMAIN = tracker.as_json(
    domain_of(ActionsConfig.model_validate({"slots": SLOTS}), ["action_x"])
)


def requested(
    message: Event | str = "hello", state: DialogueState | None = None
) -> dict[str, JsonValue]:
    """Make a request; return its JSON."""
    event = an_event(message) if isinstance(message, str) else message
    state = state or DialogueState(events=tracker.events_of([event]))
    body = tracker.request(
        "action_x", a_turn(message=event), state, DOMAIN, understood(event)
    )
    read: dict[str, JsonValue] = json.loads(body)
    return read


def told(
    message: Event | str = "hello", state: DialogueState | None = None
) -> dict[str, JsonValue]:
    """Return the tracker of a request."""
    found = requested(message, state)["tracker"]
    assert isinstance(found, dict)
    return found


def made(kind: EventKind, text: str = "", **data: JsonValue) -> JsonObject:
    """Return Rasa's event for one of our log."""
    return tracker.events_of([an_event(text, kind, data={"turn": "t1", **data})])[0]


# The request


def test_the_request_has_the_fields_that_a_real_rasa_was_seen_to_send() -> None:
    captured = sorted(CAPTURED.glob("*with_entity*.json"))
    if not captured:
        pytest.skip("nothing is captured")
    theirs = json.loads(
        base64.b64decode(json.loads(captured[0].read_bytes())["body_base64"])
    )

    ours = requested("where is order A-1234")

    assert set(theirs) == set(ours)
    assert isinstance(ours["tracker"], dict)
    newer = {"stack", "user_id"}
    assert set(theirs["tracker"]) == set(ours["tracker"]) - newer
    assert set(theirs["tracker"]["latest_message"]) == set(
        told("where is order A-1234")["latest_message"]  # type: ignore[arg-type]  # JSON
    )


def test_the_request_names_the_action_the_conversation_and_rasa_sdks_version() -> None:
    from rasa_sdk import __version__  # noqa: PLC0415 (theirs)

    request = requested()

    assert request["next_action"] == "action_x"
    assert request["sender_id"] == an_address().key
    assert request["version"] == __version__
    assert request["domain"] == json.loads(DOMAIN)


def test_all_slots_are_told_with_their_first_values_and_what_they_hold() -> None:
    slots = told(state=DialogueState(slots={"order": "12", "free": [1]}))["slots"]

    assert slots == {
        "order": "12",
        "gift": False,
        "requested_slot": None,
        "session_started_metadata": None,
        "free": [1],
    }


def test_an_open_form_is_the_active_loop() -> None:
    state = DialogueState(loop="returns", interrupted=True)

    assert told(state=state)["active_loop"] == {
        "name": "returns",
        "is_interrupted": True,
        "rejected": False,
        "trigger_message": None,
    }
    assert told()["active_loop"] == {}


def test_the_latest_message_has_text_words_metadata_and_the_events_id() -> None:
    event = an_event("why is 天空 blue?!", id="e7", data={"page": "/x"})

    assert told(event)["latest_message"] == {
        "intent": {"name": None, "confidence": 0.0},
        "entities": [],
        "text": "why is 天空 blue?!",
        "message_id": "e7",
        "metadata": {"page": "/x"},
        "text_tokens": [[0, 3], [4, 6], [7, 9], [10, 14]],
    }


def test_a_command_is_told_whole_and_is_an_intent() -> None:
    message = told(an_event("order 123", "command"))["latest_message"]

    assert isinstance(message, dict)
    assert message["text"] == "/order 123"
    assert message["intent"] == {"name": "order", "confidence": 1.0}


def test_a_payload_is_an_intent_with_entities() -> None:
    event = an_event('inform{"size": "small"}', "command")

    message = told(event)["latest_message"]

    assert isinstance(message, dict)
    assert message["intent"] == {"name": "inform", "confidence": 1.0}
    assert message["entities"] == [{"entity": "size", "value": "small"}]


def test_a_reminder_is_an_external_intent_without_words() -> None:
    entities: list[JsonValue] = [{"entity": "order", "value": "12"}]
    event = an_event(
        "", "intent", data={"intent": "call_back", "entities": entities}, id="r1"
    )

    message = told(event)["latest_message"]

    assert isinstance(message, dict)
    assert message["intent"] == {"name": "call_back", "confidence": 1.0}
    assert message["entities"] == entities
    assert message["text"] == "EXTERNAL: call_back"
    assert message["metadata"] == {"is_external": True, **event.data}


def test_the_latest_action_is_the_one_since_the_message() -> None:
    user: JsonObject = {"event": "user", "timestamp": 3.0}
    action: JsonObject = {"event": "action", "name": "a", "timestamp": 4.0}

    before = told(state=DialogueState(events=[action, user]))
    after = told(state=DialogueState(events=[user, action]))

    assert before["latest_action_name"] == "action_listen"
    assert before["latest_event_time"] == 3.0
    assert after["latest_action_name"] == "a"
    assert after["latest_action"] == {"action_name": "a"}
    assert after["latest_event_time"] == 4.0


def test_an_event_without_a_time_happened_when_the_message_was_written() -> None:
    state = DialogueState(events=[{"event": "slot", "name": "x", "timestamp": None}])

    assert told(state=state)["latest_event_time"] == NOON.timestamp()
    assert told(state=DialogueState())["latest_event_time"] == NOON.timestamp()


def test_rasa_sdk_reads_the_tracker() -> None:
    event = an_event('inform{"size": "small"}', "command")
    state = DialogueState(slots={"order": "12"}, events=tracker.events_of([event]))

    read = Tracker.from_dict(told(event, state))

    assert read.get_slot("order") == "12"
    assert list(read.get_latest_entity_values("size")) == ["small"]
    assert read.get_latest_input_channel() == "memory"
    assert read.latest_action_name == "action_listen"


@pytest.mark.parametrize(
    "text",
    ["", " \n ", "\ud83d", "急件 🎁 👩‍👩‍👧‍👦", "x" * 200_000, "a! " * 50_000, "\x00"],
)
def test_whatever_was_written_becomes_json(text: str) -> None:
    message = told(text)["latest_message"]

    assert isinstance(message, dict)
    assert isinstance(message["text"], str)


def test_values_that_orjson_does_not_write_are_written_all_the_same() -> None:
    slots: dict[str, JsonValue] = {"big": 10**30, "half": "\ud83d", "fine": 1.5}

    found = told(state=DialogueState(slots=slots))["slots"]

    assert isinstance(found, dict)
    assert found["big"] == 10**30
    assert found["half"] == "?"
    assert found["fine"] == 1.5


# The log


def test_a_message_and_the_reply_to_it_are_user_and_bot() -> None:
    asked = an_event("hi", id="e1")
    said = an_event("hello", "reply", time=NOON + timedelta(seconds=1.5))

    user, bot = tracker.events_of([asked, said])

    assert user == {
        "event": "user",
        "timestamp": NOON.timestamp(),
        "metadata": {},
        "text": "hi",
        "parse_data": {
            "intent": {"name": None, "confidence": 0.0},
            "entities": [],
            "text": "hi",
            "message_id": "e1",
            "metadata": {},
        },
        "input_channel": "memory",
        "message_id": "e1",
    }
    assert bot["event"] == "bot"
    assert bot["text"] == "hello"
    assert bot["timestamp"] == NOON.timestamp() + 1.5
    assert bot["data"] == dict.fromkeys(
        ["elements", "quick_replies", "buttons", "attachment", "image", "custom"]
    )


def test_a_reply_tells_what_we_know_of_it_as_metadata() -> None:
    bot = made("reply", "hello", outcome="answered")

    assert bot["metadata"] == {"turn": "t1", "outcome": "answered"}


def test_what_an_action_said_or_put_into_somebodys_mouth_is_told_as_it_did() -> None:
    shown: JsonValue = {"image": "a.png"}
    parsed: JsonValue = {"intent": {"name": "greet"}, "text": "hi"}

    bot = made("reply", "look", data=shown, metadata={"a": 1})
    user = made("message", "hi", parse_data=parsed)

    assert (bot["data"], bot["metadata"]) == (shown, {"a": 1})
    assert user["parse_data"] == parsed


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("slot", {"name": "order", "value": 5}),
        ("active_loop", {"name": None}),
        ("loop_interrupted", {"is_interrupted": True}),
        ("followup", {"name": "action_y"}),
        ("restart", {}),
        ("rewind", {}),
        ("undo", {}),
        ("reset_slots", {}),
        ("pause", {}),
        ("resume", {}),
        ("reminder", {"name": "r", "intent": "i", "date_time": "2026-01-01T12:00"}),
        ("cancel_reminder", {"name": "r"}),
        ("session_started", {}),
        ("session_ended", {"metadata": {}}),
        ("action_execution_rejected", {"name": "x"}),
        ("export", {}),
    ],
)
def test_every_other_event_keeps_its_name_and_fields(
    kind: EventKind, data: dict[str, JsonValue]
) -> None:
    event = made(kind, "", **data)

    assert event == {"event": kind, "timestamp": NOON.timestamp(), **data}


def test_an_action_has_the_fields_that_rasa_reads() -> None:
    assert made("action", name="a") == {
        "event": "action",
        "timestamp": NOON.timestamp(),
        "name": "a",
        "policy": None,
        "confidence": None,
    }


def test_what_an_agent_said_is_told() -> None:
    assert made("agent", "I am a person", data={})["text"] == "I am a person"


def test_what_rasa_has_no_word_for_is_left_out() -> None:
    kinds: list[EventKind] = ["button", "cancel", "feedback"]

    assert tracker.events_of([an_event("x", kind) for kind in kinds]) == []


def test_rasa_sdk_leaves_out_what_was_taken_back() -> None:
    log = [
        an_event("first"),
        replace(an_event("", "restart"), text=""),
        an_event("second"),
    ]
    state = DialogueState(events=tracker.events_of(log))

    applied = Tracker.from_dict(told(state=state)).applied_events()

    assert [event["text"] for event in applied] == ["second"]

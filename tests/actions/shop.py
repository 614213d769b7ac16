"""A shop's actions, as rasa-sdk's users write them."""

from __future__ import annotations

from typing import Any

from rasa_sdk import Action, FormValidationAction, Tracker, ValidationAction
from rasa_sdk.events import (
    ActiveLoop,
    AllSlotsReset,
    ConversationPaused,
    EventType,
    FollowupAction,
    Restarted,
    SlotSet,
)
from rasa_sdk.executor import CollectingDispatcher
from rasa_sdk.interfaces import ActionExecutionRejection

Domain = dict[str, Any]
SEEN: list[dict[str, Any]] = []


class Status(Action):
    def name(self) -> str:
        return "action_status"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        SEEN.append(tracker.current_state())
        number = tracker.get_slot("order_number")
        dispatcher.utter_message(text=f"Order {number} is on its way.")
        return []


class Says(Action):
    """Does what the message says, by the names of events."""

    def name(self) -> str:
        return "action_says"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        SEEN.append(tracker.current_state())
        wants = tracker.latest_message["text"].split()[-1]
        match wants:
            case "crash":
                raise KeyError("price")
            case "reject":
                raise ActionExecutionRejection("action_says")
            case "nowhere":
                dispatcher.utter_message(response="utter_nowhere")
        events: dict[str, list[EventType]] = {
            "followup": [SlotSet("size", "small"), FollowupAction("action_status")],
            "circle": [FollowupAction("action_says")],
            "missing": [FollowupAction("action_mising")],
            "form": [ActiveLoop("return_form")],
            "restart": [Restarted()],
            "reset": [AllSlotsReset()],
            "pause": [ConversationPaused()],
            "generate": [FollowupAction("action_generate_reply")],
        }
        dispatcher.utter_message(text=f"done: {wants}")
        return events.get(wants, [])


class ValidateReturn(FormValidationAction):
    def name(self) -> str:
        return "validate_return_form"

    async def required_slots(
        self,
        domain_slots: list[str],
        dispatcher: CollectingDispatcher,
        tracker: Tracker,
        domain: Domain,
    ) -> list[str]:
        if tracker.get_slot("reason") == "damaged":
            return [*domain_slots, "photo"]
        return domain_slots

    def validate_order_number(
        self,
        value: str,
        dispatcher: CollectingDispatcher,
        tracker: Tracker,
        domain: Domain,
    ) -> dict[str, Any]:
        if value == "LK-000000":
            dispatcher.utter_message(text="There is no such order.")
            return {"order_number": None}
        if value == "LK-999999":
            raise ActionExecutionRejection("validate_return_form")
        return {"order_number": value}

    def extract_photo(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> dict[str, Any]:
        asked = tracker.get_slot("requested_slot") == "photo"
        return {"photo": tracker.latest_message["text"]} if asked else {}


class SubmitReturn(Action):
    def name(self) -> str:
        return "action_submit_return"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        slots = tracker.current_slot_values()
        told = ", ".join(f"{slots[name]}" for name in ("order_number", "reason"))
        dispatcher.utter_message(text=f"Your return: {told}.")
        return [AllSlotsReset()]


class ValidateSlots(ValidationAction):
    def validate_size(
        self,
        value: str,
        dispatcher: CollectingDispatcher,
        tracker: Tracker,
        domain: Domain,
    ) -> dict[str, Any]:
        return {"size": value.upper() if value != "huge" else None}

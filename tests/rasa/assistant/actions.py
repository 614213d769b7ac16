"""
The assistant's own actions, as any Rasa user writes them: they run in an unmodified
`python -m rasa_sdk` behind the recorder, so that the dialogue goes on while it is
recorded. Chorus does not use this file.
"""

# rasa-sdk brings no types, so its classes are Any.
# mypy: disallow-subclassing-any=False

from datetime import datetime, timedelta, timezone
from typing import Any

from rasa_sdk import Action, FormValidationAction, Tracker, ValidationAction
from rasa_sdk.events import EventType, ReminderScheduled, SlotSet
from rasa_sdk.executor import CollectingDispatcher
from rasa_sdk.interfaces import ActionExecutionRejection

Domain = dict[str, Any]


class GenerateReply(Action):
    def name(self) -> str:
        return "action_generate_reply"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        text = tracker.latest_message.get("text")
        candidates = [{"text": f"About {text!r}: …", "score": 0.9}]
        dispatcher.utter_message(
            text=candidates[0]["text"], metadata={"candidates": candidates}
        )
        return [SlotSet("last_reply_id", {"id": "r-1", "candidates": 1})]


class Welcome(Action):
    def name(self) -> str:
        return "action_welcome"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        dispatcher.utter_message(response="utter_welcome", name="Ann", orders=2)
        return []


class LookUpOrder(Action):
    def name(self) -> str:
        return "action_look_up_order"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        dispatcher.utter_message(
            text="It is on its way.",
            buttons=[{"title": "Send it back", "payload": "/return_order"}],
        )
        return [
            SlotSet("quantity", 5),
            SlotSet("gift", value=True),
            SlotSet("tags", ["vip", "急件", "🎁"]),
            SlotSet("size", "large"),
        ]


class RemindMe(Action):
    def name(self) -> str:
        return "action_remind_me"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        dispatcher.utter_message(text="In a second.")
        # Rasa reads the time with its zone; without one it takes local time.
        at = datetime.now(timezone.utc) + timedelta(seconds=1)  # noqa: UP017 — 3.10
        return [
            ReminderScheduled(
                "EXTERNAL_reminder",
                trigger_date_time=at,
                entities={"order_number": "A-1234"},
                name="call-back",
                kill_on_user_message=False,
            )
        ]


class SayReminder(Action):
    def name(self) -> str:
        return "action_say_reminder"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        dispatcher.utter_message(text="You asked to be reminded.")
        return []


class Refuse(Action):
    def name(self) -> str:
        return "action_refuse"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        raise ActionExecutionRejection(self.name())


class ValidateReturnForm(FormValidationAction):
    def name(self) -> str:
        return "validate_return_form"

    def validate_order_number(
        self,
        value: Any,
        dispatcher: CollectingDispatcher,
        tracker: Tracker,
        domain: Domain,
    ) -> dict[str, Any]:
        if value == "Z-0000":
            dispatcher.utter_message(text="There is no such order.")
            return {"order_number": None}
        return {"order_number": value}


class ValidateSlotMappings(ValidationAction):
    """Rasa calls it after every message, before it chooses an action."""

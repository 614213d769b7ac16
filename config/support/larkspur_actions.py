"""
Larkspur's actions: an order's status, and a return. Ordinary rasa-sdk actions, which
know nothing of Chorus; `python -m rasa_sdk --actions larkspur_actions` serves them too.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from rasa_sdk import Action, FormValidationAction, Tracker
from rasa_sdk.events import AllSlotsReset, EventType, ReminderScheduled
from rasa_sdk.executor import CollectingDispatcher

Domain = dict[str, Any]

# In a real shop these are asked for over the network.
ORDERS: dict[str, dict[str, Any]] = {
    "LK-771204": {"item": "Heron", "status": "was delivered on 24 November", "km": 31},
    "LK-771310": {"item": "Wren", "status": "is with the carrier, due on 2 December"},
}
MOST_KM = 150  # config/knowledge/refund-policy.md
FREE_KM = 50
FEE_PER_KM = 0.60
ASK_AFTER = timedelta(days=3)


class ActionOrderStatus(Action):
    def name(self) -> str:
        return "action_order_status"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        number = tracker.get_slot("order_number").upper()
        order = ORDERS.get(number)
        if order is None:
            dispatcher.utter_message(response="utter_no_such_order")
        else:
            dispatcher.utter_message(
                text=f"Your order {number} ({order['item']}) {order['status']}."
            )
        return []


class ValidateReturnForm(FormValidationAction):
    def name(self) -> str:
        return "validate_return_form"

    def validate_order_number(
        self,
        value: str,
        dispatcher: CollectingDispatcher,
        tracker: Tracker,
        domain: Domain,
    ) -> dict[str, Any]:
        if value.upper() in ORDERS:
            return {"order_number": value.upper()}
        dispatcher.utter_message(response="utter_no_such_order", order_number=value)
        return {"order_number": None}

    def validate_kilometres(
        self,
        value: int,
        dispatcher: CollectingDispatcher,
        tracker: Tracker,
        domain: Domain,
    ) -> dict[str, Any]:
        if 0 <= value <= MOST_KM:
            return {"kilometres": value}
        dispatcher.utter_message(
            text=f"A bike that was ridden more than {MOST_KM} km cannot be returned. "
            "Please look at the display once more."
        )
        return {"kilometres": None}


class ActionSubmitReturn(Action):
    def name(self) -> str:
        return "action_submit_return"

    async def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        number = tracker.get_slot("order_number")
        fee = FEE_PER_KM * max(0, tracker.get_slot("kilometres") - FREE_KM)
        kept = f" We keep €{fee:.2f} for the kilometres over {FREE_KM}." if fee else ""
        dispatcher.utter_message(
            text=f"Your return number is RT-{number.removeprefix('LK-')}. Please write "
            f"it on the parcel.{kept}"
        )
        reminder = ReminderScheduled(
            "ask_about_return",
            trigger_date_time=datetime.now(UTC) + ASK_AFTER,
            name="ask_about_return",
            kill_on_user_message=False,
        )
        return [AllSlotsReset(), reminder]

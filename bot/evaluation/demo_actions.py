# mypy: disable-error-code="misc,no-any-return"
# (rasa-sdk has no types: its classes are Any.)
"""
Actions of rasa-sdk as people write them, one of each kind, for bench `actions`.

They know nothing of Chorus, and run unchanged on rasa-sdk's own server:
`python -m rasa_sdk --actions bot.evaluation.demo_actions`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rasa_sdk import Action, FormValidationAction, Tracker
from rasa_sdk.events import (
    ActiveLoop,
    AllSlotsReset,
    BotUttered,
    ConversationPaused,
    EventType,
    FollowupAction,
    ReminderCancelled,
    ReminderScheduled,
    Restarted,
    SessionEnded,
    SessionStarted,
    SlotSet,
    UserUtteranceReverted,
)
from rasa_sdk.executor import CollectingDispatcher
from rasa_sdk.interfaces import ActionExecutionRejection

Domain = dict[str, Any]

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)
ORDERS = {"12": "on its way", "1002": "delivered"}


class LookUpOrder(Action):
    """Ordinary: reads a slot and the message, says and sets something."""

    def name(self) -> str:
        return "action_look_up_order"

    async def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        order = tracker.get_slot("order") or next(
            tracker.get_latest_entity_values("order"), None
        )
        state = ORDERS.get(f"{order}", "not known here")
        dispatcher.utter_message(text=f"Order {order} is {state}.")
        return [SlotSet("order_state", state)]


class TellTime(Action):
    """Plain `def run`, as many are: it may block."""

    def name(self) -> str:
        return "action_tell_time"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        dispatcher.utter_message(text=f"You wrote: {tracker.latest_message['text']}")
        return []


class ValidateReturnForm(FormValidationAction):
    """A form's validation: keeps a right value, refuses a wrong one."""

    def name(self) -> str:
        return "validate_return_form"

    def validate_order(
        self,
        value: Any,
        dispatcher: CollectingDispatcher,
        tracker: Tracker,
        domain: Domain,
    ) -> dict[str, Any]:
        if f"{value}" in ORDERS:
            return {"order": f"{value}"}
        dispatcher.utter_message(text=f"There is no order {value}.")
        return {"order": None}

    def validate_quantity(
        self,
        value: Any,
        dispatcher: CollectingDispatcher,
        tracker: Tracker,
        domain: Domain,
    ) -> dict[str, Any]:
        return {"quantity": int(value)}


class ValidateSurveyForm(FormValidationAction):
    """A form whose slots depend on an answer, and which waits."""

    def name(self) -> str:
        return "validate_survey_form"

    async def required_slots(
        self,
        domain_slots: list[str],
        dispatcher: CollectingDispatcher,
        tracker: Tracker,
        domain: Domain,
    ) -> list[str]:
        if tracker.get_slot("pleased") is False:
            return [*domain_slots, "reason"]
        return domain_slots

    async def validate_pleased(
        self,
        value: Any,
        dispatcher: CollectingDispatcher,
        tracker: Tracker,
        domain: Domain,
    ) -> dict[str, Any]:
        return {"pleased": value in {True, "yes"}}


class Refuse(Action):
    """Says that it is not the one to run."""

    def name(self) -> str:
        return "action_refuse"

    async def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        raise ActionExecutionRejection(self.name(), "nothing to do here")


class Recite(Action):
    """Streams."""

    def name(self) -> str:
        return "action_recite"

    async def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        await dispatcher.stream_start()
        for piece in ("Returns ", "take ", "five days. ", "急件 two 🎁."):
            await dispatcher.stream_chunk(text=piece)
        await dispatcher.stream_end()
        return [SlotSet("recited", 1)]


class SetEverything(Action):
    """Slots of every kind of JSON."""

    def name(self) -> str:
        return "action_set_everything"

    async def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        values: dict[str, Any] = {
            "nothing": None,
            "yes": True,
            "no": False,
            "zero": 0,
            "five": 5,
            "minus": -7,
            "sixty_four_bits": 2**63,
            "big": 12345678901234567890123,
            "float": 0.1 + 0.2,
            "whole_float": 5.0,
            "tiny": 5e-324,
            "text": "急件 🎁 \u0000 \"quoted\" / 'x'",
            "empty": "",
            "list": [1, 2.5, None, [], {}],
            "nested": {"a": [{"b": {"c": [True, "x", {"1": 1}]}}]},
            "as_it_came": tracker.get_slot("as_it_came"),
        }
        return [SlotSet(name, value) for name, value in values.items()]


class SayEverything(Action):
    """Whatever a message may have."""

    def name(self) -> str:
        return "action_say_everything"

    async def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        dispatcher.utter_message(
            text="Which one?",
            buttons=[{"title": "First", "payload": '/choose{"number": 1}'}],
            image="https://example.org/one.png",
            attachment="https://example.org/one.pdf",
            elements=[{"title": "One", "subtitle": "of two"}],
            json_message={"blocks": [{"type": "divider"}], "weight": 1.5},
            metadata={"candidates": [{"text": "Which?", "score": 0.9}]},
            colour="blue",
        )
        dispatcher.utter_message(response="utter_greet", name="Ann", orders=2)
        dispatcher.utter_message(text="")
        return []


class DoEverything(Action):
    """Events of every kind that changes a conversation."""

    def name(self) -> str:
        return "action_do_everything"

    async def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Domain
    ) -> list[EventType]:
        return [
            FollowupAction("action_tell_time"),
            ActiveLoop("return_form"),
            ActiveLoop(None),
            UserUtteranceReverted(),
            ConversationPaused(),
            ReminderScheduled("call_back", NOON, {"order": "12"}, "call", False),  # noqa: FBT003 (theirs)
            ReminderCancelled("call"),
            BotUttered("said before", {"buttons": []}),
            AllSlotsReset(),
            Restarted(),
            SessionStarted(),
            SessionEnded(metadata={"why": "done"}),
        ]


ACTIONS: tuple[type[Action], ...] = (
    LookUpOrder,
    TellTime,
    ValidateReturnForm,
    ValidateSurveyForm,
    Refuse,
    Recite,
    SetEverything,
    SayEverything,
    DoEverything,
)

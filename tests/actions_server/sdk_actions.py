"""Actions of rasa-sdk, as anybody writes them."""

from __future__ import annotations

from typing import Any

from rasa_sdk import Action, Tracker
from rasa_sdk.events import SlotSet
from rasa_sdk.executor import CollectingDispatcher


class Tells(Action):  # type: ignore[misc]  # rasa-sdk is untyped here
    """Streams, says something besides, and sets a slot."""

    def name(self) -> str:
        return "action_tells"

    async def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Any
    ) -> list[dict[str, Any]]:
        await dispatcher.stream_start()
        for text in ("Your order ", "is on ", "its way. 👍"):
            await dispatcher.stream_chunk(text=text)
        await dispatcher.stream_end()
        dispatcher.utter_message(text="Anything else?")
        return [SlotSet("told", tracker.get_slot("quantity"))]


class ShowsDomain(Action):  # type: ignore[misc]  # rasa-sdk is untyped here
    """Says what domain it was given."""

    def name(self) -> str:
        return "action_domain"

    def run(
        self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Any
    ) -> list[dict[str, Any]]:
        dispatcher.utter_message(json_message=domain)
        return []

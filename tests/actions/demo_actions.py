# mypy: disable-error-code="misc"
# (rasa-sdk has no types: its classes are Any.)
"""Actions that go wrong, or that would show it if two runs shared something."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import Any, ClassVar

from rasa_sdk import Action, FormValidationAction
from rasa_sdk.events import SlotSet
from rasa_sdk.interfaces import ActionExecutionRejection

from bot.evaluation.demo_actions import NOON

Events = list[dict[str, Any]]


class Named(Action):
    """An action with the name of its class."""

    def name(self) -> str:
        return f"action_{type(self).__name__.lower()}"


# That fail


class Raises(Named):
    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        raise KeyError("my card is 4111")


class Exits(Named):
    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        raise SystemExit(3)


class ExitsWaiting(Named):
    async def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        raise KeyboardInterrupt


class ExitsElsewhere(Named):
    """A task of its own ends the loop that it runs on."""

    async def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        async def leave() -> None:
            raise SystemExit(3)

        type(self).task = asyncio.get_running_loop().create_task(leave())
        return []


class GivesUp(Named):
    async def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        raise asyncio.CancelledError


class Unspeakable(Named):
    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        class Mute(Exception):
            def __str__(self) -> str:
                raise ValueError

        raise Mute


class ExitsInWords(Named):
    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        class Exiting(Exception):
            def __str__(self) -> str:
                raise SystemExit(1)

        raise Exiting


class Rejects(Named):
    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        raise ActionExecutionRejection(self.name(), "not mine")


class Waits(Named):
    """Waits until it is cancelled, and says so."""

    begun: ClassVar[threading.Event] = threading.Event()
    ended: ClassVar[threading.Event] = threading.Event()

    async def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return []


class Blocks(Named):
    """Blocks its thread until it is let go."""

    begun: ClassVar[threading.Event] = threading.Event()
    let_go: ClassVar[threading.Event] = threading.Event()

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        self.begun.set()
        self.let_go.wait(60)
        return []


class BlocksTheLoop(Named):
    """Waits without await, as many do."""

    begun: ClassVar[threading.Event] = threading.Event()
    let_go: ClassVar[threading.Event] = threading.Event()

    async def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        self.begun.set()
        self.let_go.wait(60)
        return []


class Meets(Named):
    """Blocks its thread until others run beside it."""

    meeting: ClassVar[threading.Barrier] = threading.Barrier(4, timeout=10)

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        self.meeting.wait()
        return []


# That answer what is none

ODD: dict[str, Any] = {
    "nan": float("nan"),
    "infinity": [1.0, float("-inf")],
    "time": NOON,
    "set": {1},
    "bytes": b"x",
    "half": "\ud83d",
    "tuple_key": {(1, 2): 3},
    "object": object(),
}
ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
ODD["endless"] = ENDLESS


class Odd(Named):
    """Sets a slot to what the message names."""

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        return [SlotSet("slot", ODD[tracker.latest_message["text"]])]


class SaysNumbers(Named):
    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        dispatcher.utter_message(text=5)
        return [SlotSet("price", Decimal("19.90")), SlotSet("keys", {1: 2})]


class NoEvents(Named):
    """Returns what is no event, which rasa-sdk leaves out, or nothing."""

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Any:
        return {"none": None, "odd": ["x", {}, SlotSet("kept", 1)], "number": 5}[
            tracker.latest_message["text"]
        ]


class DoesMuch(Named):
    """Sets as many slots as the message says, or says as much."""

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        what, _, times = tracker.latest_message["text"].partition(" ")
        if what == "events":
            return [SlotSet("slot", 1)] * int(times)
        for _ in range(int(times)):
            dispatcher.utter_message(text="x")
        return []


class SaysMuch(Named):
    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        dispatcher.utter_message(text="x" * (2 * 2**20))
        return []


# That would show what is shared


class Remembers(Named):
    """Counts on itself, and in what its __init__ made."""

    def __init__(self) -> None:
        self.runs = 0
        self.made: list[int] = []

    async def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        self.runs += 1
        self.made.append(1)
        return [SlotSet("runs", self.runs), SlotSet("made", len(self.made))]


class Scribbles(Named):
    """Changes everything that it is given."""

    async def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        tracker.slots["order"] = "changed"
        tracker.events.clear()
        tracker.latest_message["text"] = "changed"
        domain["slots"]["order"]["type"] = "changed"
        return [SlotSet("order", tracker.get_slot("order"))]


class TellsDomain(Named):
    async def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        await asyncio.sleep(0)
        return [SlotSet("known", sorted(domain["slots"]))]


class TellsThread(Named):
    """Says on which thread and loop it runs."""

    async def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        loop = id(asyncio.get_running_loop())
        return [SlotSet("at", [threading.current_thread().name, loop])]


class TellsThreadToo(TellsThread):
    """Another one on the same loop."""


class TellsOwnThread(Named):
    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        asyncio.get_running_loop()  # as on rasa-sdk's server, there is one
        return [SlotSet("at", threading.current_thread().name)]


class ValidateThreadForm(FormValidationAction):
    def name(self) -> str:
        return "validate_thread_form"

    def validate_at(self, value: Any, *_: Any) -> dict[str, Any]:
        return {"at": threading.current_thread().name}


class ValidateLoopForm(FormValidationAction):
    def name(self) -> str:
        return "validate_loop_form"

    async def validate_at(self, value: Any, *_: Any) -> dict[str, Any]:
        return {"at": threading.current_thread().name}


# That stream


class Streams(Named):
    """Between two messages; the end of the stream is only noticed by rasa-sdk."""

    async def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        dispatcher.utter_message(text="before")
        await dispatcher.stream_chunk(text="one ")
        await dispatcher.stream_chunk(text="two", buttons=[{"title": "A"}])
        await dispatcher.stream_chunk(image="a.png", buttons=[{"title": "B"}])
        await dispatcher.stream_chunk(image="b.png", json_message={"x": 1})
        await dispatcher.stream_end()
        await dispatcher.stream_end()
        dispatcher.utter_message(text="after")
        await dispatcher.stream_start()
        await dispatcher.stream_chunk(text=3)
        return []


class StreamsMuch(Named):
    """Says more than anybody reads."""

    async def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        for _ in range(100):
            await dispatcher.stream_chunk(text="x" * 1000)
        await dispatcher.stream_end()
        return []


class StreamsOn(Named):
    """Goes on streaming after nobody listens any more."""

    let_go: ClassVar[threading.Event] = threading.Event()
    over: ClassVar[threading.Event] = threading.Event()

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Any:
        return self._go_on(dispatcher)

    async def _go_on(self, dispatcher: Any) -> Events:
        await dispatcher.stream_chunk(text="heard")
        self.let_go.wait(60)
        await dispatcher.stream_chunk(text=" unheard")
        self.over.set()
        return []

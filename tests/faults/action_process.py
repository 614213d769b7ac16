"""
Processes of a bot whose messages are answered by a real action of rasa-sdk, and which
can be killed anywhere round it: `ActingFleet` is a `Fleet` of them.

`Pays` writes a line into a file outside whenever it runs, as a payment would be made.
Beside the points of `worker_process`, a plan may name one of `Place` as its `text`, at
the point "mid generation". Knows nothing of what a test makes of it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self
from unittest import mock

from rasa_sdk import Action
from rasa_sdk.events import ReminderScheduled, SlotSet

from bot import explain
from bot.config import Config
from bot.conversation.manager import ConversationManager
from bot.conversation.tokens import Token
from bot.testing.fakes import ScriptedLanguageModel
from tests.faults import worker_process
from tests.faults.worker_process import Fleet, Plan, Settings
from tests.real_actions import PAST, a_config, an_answerer

# Where in a turn with an action a process may be killed or stopped.
Place = Literal["about to act", "may act", "the action began", "the action ended"]

_MODULE = "tests.faults.action_process"
ACTIONS: Mapping[str, Any] = {
    "sources": [{"use": f"{_MODULE}:Pays"}, {"use": f"{_MODULE}:Reminds"}],
    "slots": {"paid": {}},
    "rules": [
        {"run": "action_pays", "pattern": "^pay", "intent": "EXTERNAL_pay"},
        {"run": "action_reminds", "pattern": "^remind"},
    ],
    "forms": {},
    "responses": {},
    "tools": {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActingSettings(Settings):
    @property
    def config(self) -> Config:
        config = a_config(ACTIONS, workers=dict(self.workers))
        return config.model_copy(
            update={"conversation": Settings.config.__get__(self).conversation}
        )


class ActingFleet(Fleet):
    """A fleet of processes of this module; `paid` is what the outside world saw."""

    async def __aenter__(self) -> Self:
        # A fleet starts the file that its class is written in.
        with mock.patch.object(worker_process, "__file__", __file__):
            return await super().__aenter__()

    @property
    def paid(self) -> list[str]:
        """What was paid, in order."""
        file = _paid_file(self._journal)
        return file.read_text().splitlines() if file.exists() else []


def dies(place: Place) -> Plan:
    return Plan(point="mid generation", text=place)


def _paid_file(journal: Path) -> Path:
    return journal.with_name("paid")


# In each process


@dataclass
class _Process:
    """What an action, which is made without arguments, has to know."""

    points: worker_process._Points
    paid: Path


_HERE: list[_Process] = []


def _reached(place: Place) -> None:
    _HERE[0].points.passed("mid generation", place)


class Pays(Action):  # type: ignore[misc]  # rasa-sdk has no types
    def name(self) -> str:
        return "action_pays"

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Any:
        with _HERE[0].paid.open("a") as file:
            file.write(f"{tracker.latest_message['text']}\n")
        _reached("the action began")
        dispatcher.utter_message(text="Paid.")
        _reached("the action ended")
        return [SlotSet("paid", "yes")]


class Reminds(Action):  # type: ignore[misc]  # rasa-sdk has no types
    def name(self) -> str:
        return "action_reminds"

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Any:
        dispatcher.utter_message(text="Noted.")
        return [ReminderScheduled("EXTERNAL_pay", PAST, name="pay")]


class _ActingStore(worker_process._PlannedStore):
    async def mark_acting(self, token: Token, turn: str) -> bool:
        _reached("about to act")
        marked = await super().mark_acting(token, turn)
        _reached("may act")
        return marked


async def _work(order: Mapping[str, Any]) -> None:
    settings = ActingSettings(**order["settings"])
    plan = order["settings"]["plan"]
    settings = replace(settings, plan=None if plan is None else Plan(**plan))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    journal = Path(order["journal"])
    points = worker_process._Points(order["name"], journal, settings.plan)
    # Under its own name, which is what the configuration says.
    from tests.faults import action_process  # noqa: PLC0415

    action_process._HERE.append(_Process(points, _paid_file(journal)))
    connector = worker_process._CONNECTORS[settings.finds](points, settings)
    model = ScriptedLanguageModel(lambda turn: f"answer to {turn.question}")
    answerer = an_answerer(settings.config, model)
    clock = worker_process._Clock()
    async with (
        action_process._ActingStore(points, settings) as store,
        ConversationManager(
            store=store,
            answerer=answerer,
            connectors={connector.name: connector},
            observers=worker_process._Nobody(),
            actions=answerer.dialogue,
            config=settings.config,
            explain=explain.text,
            clock=clock,
            seeds=lambda: 1,
            roles=settings.roles,
        ) as manager,
    ):
        answering = asyncio.create_task(
            worker_process._answer_questions(order, points, clock)
        )
        try:
            await manager.run(until=stop)
        finally:
            answering.cancel()


if __name__ == "__main__":
    worker_process._work = _work
    worker_process._serve(int(sys.argv[1]))

"""
A bot's answerer with real actions of rasa-sdk, for the tests of turns, of conversations
and of processes that are killed: the model is scripted, everything between is real.

`Does` does what the message says after "do", by the names of rasa-sdk's events. Its
outside world is `WORLD`: where it waits, and what it has done.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from rasa_sdk import Action
from rasa_sdk.events import (
    ActionExecuted,
    ActionExecutionRejected,
    ActionReverted,
    ActiveLoop,
    AgentUttered,
    AllSlotsReset,
    BotUttered,
    ConversationPaused,
    ConversationResumed,
    FollowupAction,
    LoopInterrupted,
    ReminderCancelled,
    ReminderScheduled,
    Restarted,
    SessionEnded,
    SessionStarted,
    SlotSet,
    StoryExported,
    UserUtteranceReverted,
    UserUttered,
)

from bot.actions import places
from bot.actions.dialogue import Dialogue
from bot.actions.doing import Parts
from bot.actions.domain import domain_of
from bot.actions.responses import Responses
from bot.actions.rules import Rules
from bot.actions.runner import Runner
from bot.config import Config
from bot.generation.prompt import PromptBuilder
from bot.inference import InferenceThread
from bot.interfaces import LanguageModel
from bot.model import Passage, Selection, Turn
from bot.plugin_manager import Plugins
from bot.ranking import Ranking
from bot.testing.fakes import HashEmbedder
from bot.testing.makers import a_passage
from bot.turn import Answerer, Pipeline

PAST = datetime(2020, 1, 1, 9, 30, tzinfo=UTC)
FAR = datetime.now(UTC) + timedelta(days=900)
RELEVANT = a_passage("Refunds take five days.", scores={"relevance": 0.9})

ACTIONS: Mapping[str, Any] = {
    "sources": [
        {"use": "tests.real_actions:Does"},
        {"use": "tests.real_actions:Status"},
        {"use": "tests.real_actions:Follows"},
        {"use": "tests.real_actions:Worded", "reword": True},
    ],
    "slots": {"order": {"pattern": r"LK-\d{6}", "always": True}, "note": {}},
    "rules": [
        {"run": "action_status", "command": "order", "pattern": "where is"},
        {"run": "action_does", "pattern": "^do ", "command": "do"},
        {"run": "action_follows", "pattern": "^chain "},
        {"run": "action_worded", "pattern": "^word "},
        {"run": "utter_worded", "keywords": ["template"]},
        {"run": "note_form", "command": "note", "pattern": "^take a note"},
        {"run": "action_status", "intent": "EXTERNAL_tea"},
        {"run": "utter_hello", "intent": "greet"},
    ],
    "forms": {"note_form": {"slots": ["note"]}},
    "responses": {
        "utter_hello": [{"text": "Hello!"}],
        "utter_worded": [
            {
                "text": "Your order LK-771204 takes 5 days.",
                "reword": True,
                "buttons": [{"title": "Where?", "payload": "where is LK-771204"}],
            }
        ],
        "utter_ask_note": [{"text": "What shall I note?"}],
    },
    "tools": {"action_status": {"description": "says where an order is"}},
}


@dataclass
class World:
    """
    What lies outside: what actions have `done`, whether one has `begun` to wait, the
    gate at which it does, and `steps`, one for each chunk after the first.
    """

    begun: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    steps: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    done: list[str] = field(default_factory=list)


WORLD = World()


def a_new_world() -> World:
    """Begin again; whoever still waits in the old one goes on."""
    WORLD.go.set()
    WORLD.begun, WORLD.go = threading.Event(), threading.Event()
    WORLD.steps = threading.Semaphore(0)
    WORLD.done.clear()
    return WORLD


class Does(Action):
    def name(self) -> str:
        return "action_does"

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Any:
        said = tracker.latest_message["text"]
        wants = said.partition(" ")[2]
        WORLD.done.append(wants)
        match wants.split()[0]:
            case "crash":
                raise KeyError(said)  # strangers quote what they were given
            case "wait":
                WORLD.begun.set()
                WORLD.go.wait(30)
            case "stream":
                return self._stream(dispatcher)
            case "image":
                dispatcher.utter_message(image="https://shop.example/a.png")
                return []
            case "custom":
                dispatcher.utter_message(json_message={"blocks": []})
                return []
            case "nothing":
                return []
            case "buttons":
                dispatcher.utter_message(
                    text="Which one?",
                    buttons=[
                        {"title": "My order", "payload": "where is LK-771204"},
                        {"title": "Hello", "payload": '/greet{"note": "pressed"}'},
                    ],
                )
                return []
        dispatcher.utter_message(text=f"done: {wants}")
        return EVENTS.get(wants, [])

    async def _stream(self, dispatcher: Any) -> Any:
        await dispatcher.stream_start()
        for chunk in ("One", " and two", " and three."):
            await dispatcher.stream_chunk(text=chunk)
            WORLD.steps.acquire(timeout=30)
        await dispatcher.stream_end()
        return [SlotSet("note", "streamed")]


EVENTS: Mapping[str, list[Any]] = {
    "slot": [SlotSet("note", 5)],
    "reset": [AllSlotsReset()],
    "followup": [SlotSet("note", "first"), FollowupAction("action_status")],
    "followup crash": [SlotSet("note", "first"), FollowupAction("action_mising")],
    "followup form": [FollowupAction("note_form")],
    "generate": [SlotSet("note", "kept"), FollowupAction("action_generate_reply")],
    "restart": [Restarted()],
    "session": [SessionStarted()],
    "session end": [SessionEnded()],
    "rewind": [UserUtteranceReverted()],
    "rewind twice": [UserUtteranceReverted(), UserUtteranceReverted()],
    "undo": [ActionReverted()],
    "pause": [ConversationPaused()],
    "resume": [ConversationResumed()],
    "remind": [ReminderScheduled("EXTERNAL_tea", PAST, name="tea")],
    "remind of nothing": [ReminderScheduled("EXTERNAL_none", PAST, name="none")],
    "remind of nothing later": [ReminderScheduled("EXTERNAL_none", FAR, name="none")],
    "remind later": [ReminderScheduled("EXTERNAL_tea", FAR, name="tea")],
    "remind anyway": [
        ReminderScheduled(
            "EXTERNAL_tea", FAR, name="anyway", kill_on_user_message=False
        )
    ],
    "remind wrongly": [{"event": "reminder", "intent": "tea", "date_time": "soon"}],
    "cancel": [ReminderCancelled(name="anyway")],
    "cancel all": [ReminderCancelled()],
    "remind and cancel": [
        ReminderScheduled("EXTERNAL_tea", PAST, name="tea"),
        ReminderCancelled(name="tea"),
    ],
    "everything": [
        UserUttered("hidden words", parse_data={"intent": {"name": "greet"}}),
        BotUttered("said elsewhere", metadata={"by": "another"}),
        AgentUttered("a person said", data={"agent": "Anna"}),
        ActionExecuted("action_other", policy="p", confidence=0.5),
        ActionExecutionRejected("action_third", policy="p"),
        SlotSet("note", {"deep": [1, 2.5, "绿茶 🍵"]}),
        LoopInterrupted(is_interrupted=True),
        ActiveLoop(None),
        ReminderScheduled("EXTERNAL_tea", FAR, name="later"),
        ReminderCancelled(name="later"),
        StoryExported(),
        ConversationPaused(),
        ConversationResumed(),
        FollowupAction("action_listen"),
        ActionReverted(),
        UserUtteranceReverted(),
        AllSlotsReset(),
        SessionStarted(),
        SessionEnded(),
        Restarted(),
        {"event": "of_the_future", "name": "unknown"},
    ],
}


class Status(Action):
    def name(self) -> str:
        return "action_status"

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Any:
        WORLD.done.append("status")
        dispatcher.utter_message(text=f"Order {tracker.get_slot('order')} left.")
        return []


class Follows(Action):
    """Is followed by `Does`."""

    def name(self) -> str:
        return "action_follows"

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Any:
        return [SlotSet("note", "of the first"), FollowupAction("action_does")]


class Worded(Action):
    """Says what is to be worded; "word buttons" with a button under it."""

    def name(self) -> str:
        return "action_worded"

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Any:
        buttons = [{"title": "Track", "payload": "/order"}]
        if tracker.latest_message["text"] == "word image":
            dispatcher.utter_message(image="https://shop.example/a.png")
            return []
        dispatcher.utter_message(
            text="Your order LK-771204 takes 5 days.",
            buttons=buttons,
            image="https://shop.example/a.png",
        )
        return []


class First:
    name = "first"

    def select(self, turn: Turn, ranked: Sequence[object]) -> Selection:
        return Selection(index=0, why="it is first")


@dataclass(frozen=True)
class Finds:
    """A retriever that finds the same for everybody."""

    passages: Sequence[Passage] = (RELEVANT,)
    name: str = "finds"

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        return self.passages


def a_config(
    actions: Mapping[str, Any] | None = None, **sections: Mapping[str, Any]
) -> Config:
    """Make a configuration; `actions` replace parts of the section of that name."""
    return Config.model_validate(
        {
            "knowledge": {"model": "m", "minimum_relevance": 0.5},
            "generation": {"model": "m", "candidates": 2, "timeout_s": 5},
            "workers": {"shutdown_s": 0},
            "actions": {**ACTIONS, **(actions or {})},
            **sections,
        }
    )


def a_dialogue(config: Config, model: LanguageModel) -> Dialogue:
    built, problems = places.load(config.actions, ())
    assert problems == []
    names = places.known_names(config.actions, built)
    return Dialogue(
        parts=Parts(
            config=config.actions,
            runner=Runner(built),
            rules=Rules(config.actions.rules, HashEmbedder().embed),
            responses=Responses(config.actions.responses),
            domain=orjson.dumps(domain_of(config.actions, names)),
        ),
        model=model,
        persona=config.persona,
    )


def an_answerer(
    config: Config,
    model: LanguageModel,
    *,
    plugins: Plugins | None = None,
    passages: Sequence[Passage] = (RELEVANT,),
    background: bool = False,
) -> Answerer:
    """Make the real one, of real parts round the given model."""
    inference = InferenceThread()
    pipeline = Pipeline(
        plugins=plugins or Plugins(),
        retrievers=(Finds(passages),),
        prompt_parts=(),
        prompter=PromptBuilder(
            model,
            config.name,
            config.persona,
            config.knowledge,
            config.conversation,
            reply_tokens=10,
        ),
        sampler=None,  # type: ignore[arg-type]  # the scripted model draws nothing
        logits_processors=(),
        ranking=Ranking(
            inference=inference,
            writers=(),
            filters=(),
            scorers=(),
            weights={},
            rerankers=(),
            selector=First(),
            plugin_timeout_s=1,
        ),
    )
    return Answerer(
        config=config,
        pipeline=lambda _: pipeline,
        model=model,
        embedder=HashEmbedder(),
        inference=inference,
        dialogue=a_dialogue(config, model),
        background=background,
    )

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from bot.config import Config, ConversationConfig
from bot.conversation import overview
from bot.conversation.manager import ConversationManager, MemoryUsedUp, _only
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.state import turn_id
from bot.conversation.store import Store
from bot.errors import DeliveryError, StoreError
from bot.interfaces import Action, Delivery
from bot.model import (
    ActionResult,
    Address,
    Citation,
    Event,
    Outcome,
    Record,
    Reply,
    Sent,
    Turn,
)
from bot.testing.fakes import FixedClock, MemoryConnector
from bot.testing.makers import NOON, an_address, an_event
from tests.acting import WithActions

pytestmark = pytest.mark.services

CONFIG = Config.model_validate(
    {
        "knowledge": {"model": "m"},
        "generation": {"model": "m"},
        "conversation": {"max_message_characters": 100},
        "workers": {"shutdown_s": 0},
    }
)


# Whoever they are for.
TWO = {"concurrency": 2, "per_person": 2}


def a_record(turn: Turn, text: str, outcome: Outcome = "answered") -> Record:
    return Record(turn=turn, outcome=outcome, reply=Reply(text=text), why="", config="")


class Echo:
    """
    Answers with the question. A question with a gate waits until it is opened, or
    until the turn is stopped.
    """

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.begun: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.stopped: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.running = 0
        self.most = 0
        self.answer_with: Callable[[Turn], Record] = lambda turn: a_record(
            turn, f"{turn.question}!"
        )

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: object = None,
    ) -> Record:
        self.turns.append(turn)
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun[turn.question].set()
        watching = asyncio.create_task(self._watch(turn, cancelled))
        try:
            if turn.question in self.gates:
                await self.gates[turn.question].wait()
        finally:
            watching.cancel()
            self.running -= 1
        if cancelled.is_set():
            return a_record(turn, CONFIG.replies.cancelled, "cancelled")
        return self.answer_with(turn)

    async def _watch(self, turn: Turn, cancelled: threading.Event) -> None:
        # A model looks at it after each token.
        while not cancelled.is_set():  # noqa: ASYNC110 (it is a thread's event)
            await asyncio.sleep(0.001)
        self.stopped[turn.question].set()


@dataclass
class Told:
    """Observers that keep what they are told."""

    events: list[tuple[Any, ...]] = field(default_factory=list)

    def hear_of_replies(self, address: Address) -> bool:
        return True

    async def turn_started(self, turn: Turn) -> None:
        self.events.append(("started", turn.question))

    async def turn_failed(self, turn: Turn, error: Exception) -> None:
        self.events.append(("failed", str(error)))

    async def reply_sent(self, turn: Turn, reply: Reply) -> None:
        self.events.append(("sent", turn.question, reply.text))

    async def feedback_received(self, event: Event, record: Record | None) -> None:
        told = record.turn.question if record else None
        self.events.append(("feedback", event.text, told))

    async def conversation_handed_over(self, turn: Turn, reason: str) -> None:
        self.events.append(("handed over", turn.question, reason))

    async def conversation_resumed(self, address: Address) -> None:
        self.events.append(("resumed", address.chat))


class Order:
    """An action: remembers an order number, or does what its test wants."""

    name = "order"
    description = "remembers an order"

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def run(self, turn: Turn, arguments: str) -> ActionResult:
        match arguments:
            case "raise":
                raise KeyError("price")
            case "nothing":
                return None  # type: ignore[return-value]  # a stranger's mistake
            case "unwritable":
                return ActionResult(slots={"it": object()})  # type: ignore[dict-item]
            case "hang":
                self.begun.set()
                await asyncio.Event().wait()
        reply = Reply(
            text=f"Order {arguments}, before: {turn.slots.get('order')}",
            citations=[Citation(source="orders", passage="p1")],
        )
        return ActionResult(reply=reply, slots={"order": arguments, "cleared": None})


@dataclass
class Bot:
    """A manager on a real server, and everything it was given."""

    store: Store
    answerer: Echo = field(default_factory=Echo)
    connector: MemoryConnector = field(default_factory=MemoryConnector)
    told: Told = field(default_factory=Told)
    action: Order = field(default_factory=Order)
    sleeps: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await asyncio.sleep(0)

    def manager(
        self, actions: Sequence[Action] = (), timeout_s: float = 30.0, **more: Any
    ) -> ConversationManager:
        answerer = WithActions(
            self.answerer,
            actions or [self.action],
            config=more.get("config", CONFIG),
            hears=self.told,
            timeout_s=timeout_s,
        )
        given: Mapping[str, Any] = {
            "store": self.store,
            "answerer": answerer,
            "connectors": {"memory": self.connector},
            "observers": self.told,
            "actions": answerer,
            "config": CONFIG,
            "explain": lambda record: f"because of {record.turn.question}",
            "clock": FixedClock(),
            "seeds": lambda: 7,
            "sleep": self.sleep,
            "alone": True,
        }
        return ConversationManager(**{**given, **more})


def a_config(**sections: Mapping[str, Any]) -> Config:
    changed = {
        name: getattr(CONFIG, name).model_copy(update=settings)
        for name, settings in sections.items()
    }
    return CONFIG.model_copy(update=changed)


@pytest.fixture
def bot(store: Store) -> Bot:
    return Bot(store)


def said(text: str, chat: str = "c1", **more: Any) -> Event:
    return an_event(text, address=an_address(chat, user="u1"), **more)


async def log_of(bot: Bot) -> list[tuple[str, str]]:
    state = await bot.store.load(an_address())
    return [(event.kind, event.text) for event in state.history]


async def test_a_message_is_answered_logged_and_told_about(bot: Bot) -> None:
    message = said("hello")

    async with bot.manager() as manager:
        accepted = await manager.accept(message)
        reply = await bot.connector.next_reply()
        await manager.idle()

    (turn,) = bot.answerer.turns
    assert accepted == "accepted"
    assert reply.text == "hello!"
    assert (turn.id, turn.seed, turn.message) == (turn_id(message), 7, message)
    assert await log_of(bot) == [("message", "hello"), ("reply", "hello!")]
    assert bot.told.events == [("sent", "hello", "hello!")]
    assert [text for _, text in bot.connector.statuses] == ["Thinking …", ""]


async def test_a_turn_knows_what_was_said_before(bot: Bot) -> None:
    async with bot.manager() as manager:
        await manager.accept(said("one"))
        await manager.accept(said("two"))
        await manager.idle()

    assert [event.text for event in bot.answerer.turns[1].history] == ["one", "one!"]


async def test_a_message_delivered_twice_is_answered_once(bot: Bot) -> None:
    async with bot.manager() as manager:
        answers = await asyncio.gather(*[manager.accept(said("a")) for _ in range(4)])
        await manager.idle()

    assert sorted(answers) == ["accepted", "duplicate", "duplicate", "duplicate"]
    assert bot.connector.replies() == ["a!"]


async def test_each_lane_is_in_order_and_lanes_run_beside_each_other(
    bot: Bot,
) -> None:
    chats = [f"chat {number}" for number in range(20)]

    async with bot.manager(config=a_config(workers={"concurrency": 5})) as manager:
        for number in range(10):
            await asyncio.gather(
                *[manager.accept(said(f"{chat}: {number}", chat)) for chat in chats]
            )
        await manager.idle()

    for chat in chats:
        assert bot.connector.replies(chat) == [f"{chat}: {n}!" for n in range(10)]


async def test_one_slow_conversation_does_not_hold_up_another(bot: Bot) -> None:
    gate = bot.answerer.gates["slow"] = asyncio.Event()

    async with bot.manager() as manager:
        await manager.accept(said("slow", "a"))
        await manager.accept(said("after it", "a"))
        await manager.accept(said("quick", "b"))
        quick = await bot.connector.next_reply("b")
        before = bot.connector.replies("a")
        gate.set()
        await manager.idle()

    assert quick.text == "quick!"
    assert before == []
    assert bot.connector.replies("a") == ["slow!", "after it!"]


async def test_no_more_turns_run_at_once_than_allowed(bot: Bot) -> None:
    gate = asyncio.Event()
    names = [f"chat {number}" for number in range(6)]
    bot.answerer.gates = dict.fromkeys(names, gate)

    async with bot.manager(config=a_config(workers=TWO)) as manager:
        for name in names:
            await manager.accept(said(name, name))
        begun = [asyncio.ensure_future(bot.answerer.begun[n].wait()) for n in names]
        for first in itertools.islice(asyncio.as_completed(begun), 2):
            await first
        gate.set()
        await manager.idle()

    assert bot.answerer.most == 2
    assert len(bot.answerer.turns) == 6


async def test_cancel_stops_the_running_turn_and_the_lane_goes_on(bot: Bot) -> None:
    gate = bot.answerer.gates["long"] = asyncio.Event()

    async with bot.manager() as manager:
        await manager.accept(said("long"))
        await bot.answerer.begun["long"].wait()
        await manager.accept(said("next"))
        accepted = await manager.accept(said("", kind="cancel"))
        await bot.answerer.stopped["long"].wait()
        gate.set()
        await manager.idle()

    record = await bot.store.record(turn_id(said("long")))
    assert accepted == "accepted"
    assert record is not None
    assert record.outcome == "cancelled"
    assert bot.connector.replies() == ["Stopped.", "next!"]


async def test_a_message_stopped_while_it_waits_is_not_answered(bot: Bot) -> None:
    gate = bot.answerer.gates["long"] = asyncio.Event()

    async with bot.manager(config=a_config(workers={"concurrency": 1})) as manager:
        await manager.accept(said("long", "a"))
        await bot.answerer.begun["long"].wait()
        await manager.accept(said("waiting", "b"))
        await manager.accept(said("", "b", kind="cancel"))
        gate.set()
        await manager.idle()

    assert bot.connector.replies("b") == ["Stopped."]
    assert [turn.question for turn in bot.answerer.turns] == ["long"]


async def test_an_action_answers_and_sets_slots(bot: Bot) -> None:
    async with bot.manager() as manager:
        await manager.accept(said("order 7", kind="command"))
        await manager.accept(said("order 8", kind="command"))
        await manager.idle()

    state = await bot.store.load(an_address())
    assert bot.connector.replies() == [
        "Order 7, before: None",
        "Order 8, before: 7",
    ]
    assert state.slots == {"order": "8"}
    assert [event.kind for event in state.history] == [
        "action",
        "slot",
        "slot",
        "reply",
    ]
    assert state.history[-1].data["citations"] == [
        {"source": "orders", "passage": "p1"}
    ]
    assert state.history[-1].time == NOON
    assert ("started", "order 7") in bot.told.events


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("raise", "action 'order': raised KeyError: 'price'"),
        ("nothing", "action 'order': returned NoneType, not an ActionResult"),
        ("hang", "action 'order': took longer than 0.05 s"),
        ("unwritable", "its slot 'it' holds what is no JSON"),
    ],
)
async def test_an_action_that_fails_becomes_the_apology(
    bot: Bot, arguments: str, why: str
) -> None:
    message = said(f"order {arguments}", kind="command")

    async with bot.manager(timeout_s=0.05) as manager:
        await manager.accept(message)
        await manager.idle()

    record = await bot.store.record(turn_id(message))
    assert bot.connector.replies() == [CONFIG.replies.apology]
    assert record is not None
    assert record.outcome == "failed"
    assert why in record.why
    assert (await bot.store.load(an_address())).slots == {}
    assert any(event[0] == "failed" and why in event[1] for event in bot.told.events)


async def test_cancel_stops_an_action_that_waits(bot: Bot) -> None:
    async with bot.manager() as manager:
        await manager.accept(said("order hang", kind="command"))
        await bot.action.begun.wait()
        await manager.accept(said("", kind="cancel"))
        await manager.idle()

    assert bot.connector.replies() == [CONFIG.replies.cancelled]


async def test_why_explains_the_last_answer_and_not_itself(bot: Bot) -> None:
    async with bot.manager() as manager:
        for id_, text in (("1", "why"), ("2", "why"), ("3", "why")):
            if id_ == "2":
                await manager.accept(said("question"))
            await manager.accept(said(text, kind="command", id=id_))
        await manager.idle()

    assert bot.connector.replies() == [
        "There is no answer to explain yet.",
        "question!",
        "because of question",
        "because of question",
    ]
    assert await log_of(bot) == [("message", "question"), ("reply", "question!")]


async def test_start_greets(bot: Bot) -> None:
    config = CONFIG.model_copy(update={"name": "Larkspur"})

    async with bot.manager(config=config) as manager:
        await manager.accept(said("start deep-link", kind="command"))
        await manager.idle()

    assert bot.connector.replies() == [
        "Hello, I am Larkspur. Ask me a question; /help lists what else I can do."
    ]
    assert await log_of(bot) == []


async def test_help_lists_commands_and_actions(bot: Bot) -> None:
    async with bot.manager() as manager:
        await manager.accept(said("help", kind="command"))
        await manager.idle()

    (reply,) = bot.connector.replies()
    assert "- `/why`: explains the last answer" in reply
    assert "- `/order`: remembers an order" in reply


@pytest.mark.parametrize(
    ("typed", "hint"), [("ordr 7", "did you mean `/order`"), ("xyzzy", "`/help`")]
)
async def test_an_unknown_command_is_answered_with_near_ones(
    bot: Bot, typed: str, hint: str
) -> None:
    async with bot.manager() as manager:
        await manager.accept(said(typed, kind="command"))
        await manager.idle()

    (reply,) = bot.connector.replies()
    assert "I do not know the command" in reply
    assert hint in reply


async def test_a_customer_can_have_the_conversation_forgotten(bot: Bot) -> None:
    async with bot.manager() as manager:
        await manager.accept(said("my secret"))
        await manager.accept(said("forget", kind="command"))
        await manager.accept(said("and now?"))
        await manager.idle()

    assert bot.connector.replies()[1] == (
        "I have forgotten this conversation: 2 events, 0 remembered values and "
        "1 explanations."
    )
    assert bot.answerer.turns[1].history == []
    assert await bot.store.record(turn_id(said("my secret"))) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x" * 100_000, "has 100000 characters; I can read up to 100."),
        ("\ud800\x00 \u200b", CONFIG.replies.empty),
    ],
)
async def test_a_message_nobody_can_read_is_refused_once_and_told_so(
    bot: Bot, client: redis.Redis, text: str, told: str
) -> None:
    message = said(text, id="same")

    async with bot.manager() as manager:
        answers = [await manager.accept(message) for _ in range(2)]
        await manager.idle()

    (reply,) = bot.connector.replies()
    assert answers == ["refused", "duplicate"]
    assert told in reply
    assert bot.answerer.turns == []
    assert client.exists("chorus:{s0}:c:memory:a1:c1:log") == 0


async def test_text_is_cleaned_before_it_is_kept(bot: Bot) -> None:
    async with bot.manager() as manager:
        await manager.accept(said("a\x00b\ud800\r\nc", id="1"))
        await manager.idle()

    assert bot.answerer.turns[0].question == "ab\nc"


@pytest.mark.parametrize(
    "event",
    [
        said("x", kind="reply"),
        said("x", kind="slot"),
        an_event("x", address=an_address(platform="nowhere")),
        said("x", "half \ud800"),
        said("", "half \ud800", kind="cancel"),
        said("x", data={"a": "\ud800"}),
    ],
)
async def test_what_no_connector_may_bring_is_refused_without_a_trace(
    bot: Bot, client: redis.Redis, event: Event
) -> None:
    async with bot.manager() as manager:
        accepted = await manager.accept(event)

    assert accepted == "refused"
    kept = {str(key) for key in client.keys("*")}
    assert kept <= {
        "chorus:meta",
        "chorus:{s0}:ready:memory",
        "chorus:{s0}:out:memory",
    }
    assert not any(client.xlen(key) for key in kept if key != "chorus:meta")


async def test_a_full_lane_refuses_and_says_so_once(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    settings = ConversationConfig(lane_limit=2)
    async with Store(url=server.url, settings=settings) as store:
        bot = Bot(store)
        gate = bot.answerer.gates["1"] = asyncio.Event()

        async with bot.manager() as manager:
            answers = [await manager.accept(said(str(n))) for n in range(1, 5)]
            gate.set()
            await manager.idle()
            answers.append(await manager.accept(said("4", id="again")))
            await manager.idle()

    assert answers == ["accepted", "accepted", "refused", "refused", "accepted"]
    assert bot.connector.replies() == [CONFIG.replies.busy, "1!", "2!", "4!"]


async def test_a_person_who_floods_is_refused_and_others_are_not(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    settings = ConversationConfig(messages_per_minute=3)
    async with Store(url=server.url, settings=settings) as store:
        bot = Bot(store)

        async with bot.manager() as manager:
            flood = [
                await manager.accept(said(str(number), f"thread {number}"))
                for number in range(5)
            ]
            other = await manager.accept(
                an_event("hello", address=an_address("c2", user="u2"))
            )
            await manager.idle()

    assert flood == ["accepted", "accepted", "accepted", "refused", "refused"]
    assert other == "accepted"
    assert bot.connector.replies("thread 3") == [CONFIG.replies.busy]
    assert bot.connector.replies("thread 4") == []  # once is enough


async def test_what_a_former_process_left_is_resumed_with_the_same_turn(
    bot: Bot,
) -> None:
    bot.answerer.gates["question"] = asyncio.Event()
    async with bot.manager() as manager:
        await manager.accept(said("question"))
        await bot.answerer.begun["question"].wait()
    bot.answerer.gates.clear()

    async with bot.manager() as manager:
        await manager.idle()

    first, second = bot.answerer.turns
    assert first.id == second.id
    assert bot.connector.replies() == ["question!"]


async def test_work_for_other_platforms_is_left_to_those_who_serve_them(
    bot: Bot,
) -> None:
    await bot.store.accept(an_event(address=an_address(platform="slack")))

    async with bot.manager() as manager:
        await manager.idle()

    ((backlog,), _) = await overview.backlogs(bot.store)
    assert (backlog.platform, backlog.waiting) == ("slack", 1)


async def test_delivery_is_tried_again_at_longer_and_longer_intervals(
    bot: Bot,
) -> None:
    bot.connector.failures.extend(
        DeliveryError("busy", retryable=True) for _ in range(8)
    )

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.idle()

    assert bot.sleeps == [1, 2, 4, 8, 16, 32, 60, 60]
    assert bot.connector.replies() == ["hello!"]


@pytest.mark.parametrize("retryable", [False, True])
async def test_a_reply_that_cannot_be_delivered_is_given_up_and_the_record_says_so(
    bot: Bot,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    retryable: bool,
) -> None:
    monkeypatch.setattr("bot.conversation.outbox.GIVE_UP_S", 0.0)
    bot.connector.failures.append(DeliveryError("gone", retryable=retryable))

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.accept(said("still there?"))
        await manager.idle()

    record = await bot.store.record(turn_id(said("hello")))
    assert record is not None
    assert record.problems == ["delivery: not delivered after attempt 1: gone"]
    assert bot.connector.replies() == ["still there?!"]
    assert bot.told.events == [("sent", "still there?", "still there?!")]
    assert "was not delivered; chorus explain says why" in caplog.text
    assert "gone" not in caplog.text  # it may name somebody


async def test_half_a_character_in_a_delivery_error_costs_one_reply(bot: Bot) -> None:
    bot.connector.failures.append(DeliveryError("no \ud83d", retryable=False))

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.accept(said("still there?"))
        await manager.idle()

    record = await bot.store.record(turn_id(said("hello")))
    assert record is not None
    assert record.problems == ["delivery: not delivered after attempt 1: no "]
    assert bot.connector.replies() == ["still there?!"]


class Unsure(MemoryConnector):
    """Does not know what became of what it sent."""

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        await super().send(address, reply, key)
        return Sent(status="unknown")


class Broken(MemoryConnector):
    """Breaks the contract of a connector wherever it can."""

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        raise ValueError("what?")

    async def status(self, address: Address, text: str) -> None:
        raise ValueError("what?")


class Hanging(MemoryConnector):
    """Never comes back from anything."""

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        await super().send(address, reply, key)
        return await asyncio.Future()

    async def status(self, address: Address, text: str) -> None:
        await asyncio.Future()


async def test_a_connector_that_hangs_gets_no_reply_twice_and_holds_up_nobody(
    bot: Bot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bot.conversation.outbox.SEND_S", 0.01)
    monkeypatch.setattr("bot.conversation.outbox.STATUS_S", 0.01)
    bot.connector = Hanging()

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.accept(said("still there?"))
        await manager.idle()

    record = await bot.store.record(turn_id(said("hello")))
    assert record is not None
    assert "it is not known whether it arrived" in record.problems[0]
    assert bot.connector.replies() == ["hello!", "still there?!"]
    assert "status took longer than 0.01 s" in caplog.text


@pytest.mark.parametrize(
    ("connector", "told"),
    [
        (Unsure, "delivery: it is not known whether it arrived; it is not sent again"),
        (Broken, "it is not sent again: connector 'memory' raised ValueError"),
    ],
)
async def test_an_unsure_or_broken_connector_gets_no_reply_twice(
    bot: Bot, connector: type[MemoryConnector], told: str
) -> None:
    bot.connector = connector()

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.idle()
    async with bot.manager() as manager:
        await manager.idle()

    record = await bot.store.record(turn_id(said("hello")))
    assert record is not None
    assert told in record.problems[0]
    assert len(bot.connector.deliveries) <= 1
    assert await overview.backlogs(bot.store) == ([], 0)


async def test_an_answerer_that_raises_costs_one_turn(bot: Bot) -> None:
    def fails(turn: Turn) -> Record:
        raise RuntimeError(turn.question)

    bot.answerer.answer_with = fails

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.idle()

    assert bot.connector.replies() == [CONFIG.replies.apology]


async def test_an_answer_that_cannot_be_kept_becomes_the_apology(bot: Bot) -> None:
    bot.answerer.answer_with = lambda turn: a_record(turn, "half a \ud83d")

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.idle()

    assert bot.connector.replies() == [CONFIG.replies.apology]


async def test_a_conversation_erased_during_a_turn_stays_erased(
    bot: Bot, client: redis.Redis
) -> None:
    gate = bot.answerer.gates["secret"] = asyncio.Event()

    async with bot.manager() as manager:
        await manager.accept(said("secret"))
        await bot.answerer.begun["secret"].wait()
        await bot.store.forget("u1")
        gate.set()
        await manager.idle()

    assert bot.connector.replies() == []
    assert not [key for key in client.keys("*") if ":c:" in str(key)]
    assert not [key for key in client.keys("*") if "u1" in str(key)]


async def test_no_text_is_logged_at_info(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async with bot.manager() as manager:
        await manager.accept(said("Wolpertinger"))
        await manager.accept(said("Wolpertinger", kind="command", id="2"))
        await manager.accept(said("Wolpertinger" * 20, id="3"))
        await manager.idle()

    assert "Wolpertinger" not in caplog.text


async def test_run_lets_the_connectors_bring_messages_until_they_finish(
    bot: Bot,
) -> None:
    async with bot.manager() as manager, asyncio.TaskGroup() as tasks:
        tasks.create_task(manager.run())
        reply = await bot.connector.reply_to("hello")
        bot.connector.close()

    assert reply.text == "hello!"


class Refused(MemoryConnector):
    async def run(self, accept: object) -> None:
        raise StoreError("connectors[0]: the token was refused")


async def test_a_connector_that_cannot_run_ends_the_bot_with_its_own_sentence(
    bot: Bot,
) -> None:
    with pytest.raises(StoreError, match="token was refused"):
        async with bot.manager(connectors={"memory": Refused()}) as manager:
            await manager.run()


async def test_hostile_addresses_are_answered_apart(bot: Bot) -> None:
    chats: Sequence[str] = ["a\nb", "{x}", "%7Bx%7D", "x" * 10_000, "a b", "*"]

    async with bot.manager() as manager:
        for chat in chats:
            await manager.accept(said(f"from {chat[:8]!r}", chat, id="same id"))
        await manager.idle()

    for chat in chats:
        assert bot.connector.replies(chat) == [f"from {chat[:8]!r}!"]


async def test_a_store_that_goes_away_costs_time_and_neither_message_nor_answer(
    tmp_path: Path,
) -> None:
    waiting = asyncio.Event()
    back = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waiting.set()
        await back.wait()

    with EmbeddedRedis(tmp_path) as server:
        url = server.url
        store = await Store(url=url, settings=CONFIG.conversation).__aenter__()
        bot = Bot(store)
        gate = bot.answerer.gates["hello"] = asyncio.Event()
        manager = await bot.manager(sleep=sleep).__aenter__()
        await manager.accept(said("hello"))
        await bot.answerer.begun["hello"].wait()
    gate.set()
    await waiting.wait()
    with pytest.raises(StoreError, match="cannot be reached"):
        await manager.accept(said("not acknowledged"))

    with EmbeddedRedis(tmp_path):
        back.set()
        answer = await bot.connector.next_reply()
        await manager.idle()
        await manager.__aexit__(None, None, None)
        await store.__aexit__(None, None, None)

    assert answer.text == "hello!"
    assert bot.connector.replies() == ["hello!"]
    assert len(bot.answerer.turns) == 1


async def test_who_is_not_patient_leaves_when_the_store_stays_away(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as closing:
        with EmbeddedRedis(tmp_path) as server:
            store = Store(url=server.url, settings=CONFIG.conversation)
            bot = Bot(await closing.enter_async_context(store))
            gate = bot.answerer.gates["hello"] = asyncio.Event()
            manager = await bot.manager(patient=False).__aenter__()
            await manager.accept(said("hello"))
            await bot.answerer.begun["hello"].wait()
        gate.set()

        with pytest.raises(asyncio.CancelledError):  # as `async with` would see it
            await asyncio.Event().wait()
        with pytest.raises(StoreError, match="cannot be reached"):
            await manager.__aexit__(None, None, None)

    assert bot.connector.replies() == []


# Messages that arrive during a turn


async def test_messages_that_arrive_during_a_turn_are_answered_together(
    bot: Bot,
) -> None:
    gate = bot.answerer.gates["one"] = asyncio.Event()
    merging = a_config(conversation={"during_turn": "merge"})

    async with bot.manager(config=merging) as manager:
        await manager.accept(said("one"))
        await bot.answerer.begun["one"].wait()
        for event in (said("two"), said("three"), said("help", kind="command")):
            await manager.accept(event)
        await manager.accept(an_event("mine", address=an_address(user="u2")))
        gate.set()
        await manager.idle()

    questions = [turn.question for turn in bot.answerer.turns]
    assert questions == ["one", "two\nthree", "mine"]
    assert bot.connector.replies()[1] == "two\nthree!"
    assert [kind for kind, _ in await log_of(bot)] == [
        "message",
        "reply",
        "message",
        "reply",
    ]
    assert (await log_of(bot))[0] == ("message", "three")


async def test_a_newer_message_interrupts_the_running_turn_and_only_it_is_answered(
    bot: Bot,
) -> None:
    gate = bot.answerer.gates["one"] = asyncio.Event()
    interrupting = a_config(conversation={"during_turn": "interrupt"})

    async with bot.manager(config=interrupting) as manager:
        await manager.accept(said("one"))
        await bot.answerer.begun["one"].wait()
        await manager.accept(said("two"))
        await manager.accept(said("three"))
        await bot.answerer.stopped["one"].wait()
        gate.set()
        await manager.idle()

    record = await bot.store.record(turn_id(said("one")))
    assert record is not None
    assert (record.outcome, record.why) == ("cancelled", "a newer message came")
    assert [turn.question for turn in bot.answerer.turns] == ["one", "three"]
    assert bot.connector.replies() == ["three!"]
    assert [text for _, text in await log_of(bot)] == ["one", "two", "three", "three!"]


async def test_a_newer_message_does_not_interrupt_an_action(bot: Bot) -> None:
    interrupting = a_config(conversation={"during_turn": "interrupt"})

    async with bot.manager(config=interrupting, timeout_s=0.2) as manager:
        await manager.accept(said("order hang", kind="command"))
        await bot.action.begun.wait()
        await manager.accept(said("hello"))
        await manager.idle()

    assert bot.connector.replies() == [CONFIG.replies.apology, "hello!"]


async def test_a_channel_has_its_own_way_with_messages_during_a_turn(
    bot: Bot,
) -> None:
    gates = [bot.answerer.gates.setdefault(c, asyncio.Event()) for c in ("a", "b")]
    channel = {"match": {"chat": "b"}, "during_turn": "merge"}
    config = Config.model_validate({**CONFIG.model_dump(), "channels": [channel]})

    async with bot.manager(config=config) as manager:
        for chat in ("a", "b"):
            await manager.accept(said(chat, chat))
            await bot.answerer.begun[chat].wait()
            await manager.accept(said(f"{chat}1", chat))
            await manager.accept(said(f"{chat}2", chat))
        for gate in gates:
            gate.set()
        await manager.idle()

    assert bot.connector.replies("a") == ["a!", "a1!", "a2!"]
    assert bot.connector.replies("b") == ["b!", "b1\nb2!"]


# Turns that fail


async def test_a_turn_that_fails_is_tried_again_then_set_aside_and_the_lane_goes_on(
    bot: Bot,
) -> None:
    bot.answerer.answer_with = lambda turn: (
        a_record(turn, "Sorry", "failed")
        if turn.question == "poison"
        else a_record(turn, f"{turn.question}!")
    )

    async with bot.manager() as manager:
        await manager.accept(said("poison"))
        await manager.accept(said("next"))
        await manager.idle()
        (letter,) = await overview.dead_letters(bot.store)
        bot.answerer.answer_with = lambda turn: a_record(turn, "at last")
        turn = await overview.retry(bot.store, letter.id)
        await bot.connector.next_reply()
        await bot.connector.next_reply()
        await bot.connector.next_reply()
        await manager.idle()

    questions = [turn.question for turn in bot.answerer.turns]
    assert questions == ["poison", "poison", "poison", "next", "poison"]
    assert bot.connector.replies() == ["Sorry", "next!", "at last"]
    assert (letter.id, letter.attempts) == (turn_id(said("poison")), 3)
    assert await overview.dead_letters(bot.store) == []
    assert await bot.store.record(turn) is not None


async def test_a_command_that_fails_is_not_run_again(bot: Bot) -> None:
    async with bot.manager() as manager:
        await manager.accept(said("order raise", kind="command"))
        await manager.idle()

    started = [event for event in bot.told.events if event[0] == "started"]
    assert len(started) == 1
    assert [one.attempts for one in await overview.dead_letters(bot.store)] == [1]


async def test_only_a_dead_letter_that_is_there_can_be_retried(bot: Bot) -> None:
    with pytest.raises(StoreError, match="no dead letter 'nothing'"):
        await overview.retry(bot.store, "nothing")


# Delivery in doubt


class Looking(MemoryConnector):
    """Loses the first answer of the service, and can look whether it arrived."""

    arrives = True

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        if self.failures:
            self.failures.clear()
            if self.arrives:
                await super().send(address, reply, key)
            return Sent(status="unknown")
        return await super().send(address, reply, key)

    async def find(self, address: Address, key: str) -> Sent | None:
        return next((Sent(ids=(key,)) for d in self.deliveries if d.key == key), None)


@pytest.mark.parametrize("arrives", [True, False])
async def test_what_is_unknown_is_looked_up_and_comes_once(
    bot: Bot, arrives: bool
) -> None:
    bot.connector = Looking()
    bot.connector.arrives = arrives
    bot.connector.failures.append(DeliveryError("lost", retryable=True))

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.idle()

    record = await bot.store.record(turn_id(said("hello")))
    assert record is not None
    assert record.problems == []
    assert bot.connector.replies() == ["hello!"]


class Doubtful(MemoryConnector):
    """Never knows; counts how often it was asked."""

    asked = 0

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        self.asked += 1
        return Sent(status="unknown")


@pytest.mark.parametrize(
    ("delivery", "asked"), [("at_most_once", 1), ("at_least_once", 3)]
)
async def test_the_connector_says_which_risk_is_taken(
    bot: Bot, delivery: Delivery, asked: int
) -> None:
    bot.connector = Doubtful(delivery=delivery)

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.idle()

    record = await bot.store.record(turn_id(said("hello")))
    assert record is not None
    assert "not known whether it arrived" in record.problems[0]
    assert bot.connector.asked == asked


async def test_a_platform_says_when_to_try_again(bot: Bot) -> None:
    bot.connector.failures.append(
        DeliveryError("slow down", retryable=True, retry_after_s=137)
    )

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.idle()

    assert bot.sleeps == [137]
    assert bot.connector.replies() == ["hello!"]


# Several processes


async def test_connectors_and_workers_may_be_different_processes(
    bot: Bot, server: EmbeddedRedis
) -> None:
    async with Store(url=server.url, settings=CONFIG.conversation) as store:
        workers = Bot(store)
        async with (
            workers.manager(roles=["workers"], alone=False),
            bot.manager(roles=["connectors"], answerer=None) as manager,
        ):
            await manager.accept(said("hello"))
            await manager.idle()
            reply = await bot.connector.next_reply()

    assert reply.text == "hello!"
    assert len(workers.answerer.turns) == 1
    assert workers.connector.replies() == []


async def test_what_is_running_may_finish_before_the_end(bot: Bot) -> None:
    gate = bot.answerer.gates["slow"] = asyncio.Event()
    patiently = a_config(workers={"shutdown_s": 10})

    async with bot.manager(config=patiently) as manager:
        await manager.accept(said("slow"))
        await manager.accept(said("next"))
        await bot.answerer.begun["slow"].wait()
        asyncio.get_running_loop().call_later(0.05, gate.set)

    assert bot.connector.replies() == ["slow!"]
    assert [turn.question for turn in bot.answerer.turns] == ["slow"]


async def test_what_cannot_finish_is_handed_back_and_taken_up_at_once(
    bot: Bot,
) -> None:
    bot.answerer.gates["slow"] = asyncio.Event()
    async with bot.manager() as manager:
        await manager.accept(said("slow"))
        await bot.answerer.begun["slow"].wait()
    bot.answerer.gates.clear()

    async with bot.manager(alone=False) as manager:  # the lease is 15 seconds
        await asyncio.wait_for(manager.idle(), 5)

    assert bot.connector.replies() == ["slow!"]


async def test_a_process_that_grows_to_its_limit_ends_to_be_started_again(
    bot: Bot,
) -> None:
    config = a_config(workers={"max_memory_mb": 1, "shutdown_s": 10})

    saying = asyncio.create_task(bot.connector.say("hello"))

    with pytest.raises(MemoryUsedUp, match="the process grew to"):
        async with bot.manager(config=config) as manager:
            await manager.run()

    await saying
    assert bot.connector.replies() == ["hello!"]


def test_a_store_that_ends_several_tasks_at_once_is_told_once() -> None:
    away = StoreError("cannot be reached")
    inner = BaseExceptionGroup("a crew", [StoreError("cannot be reached")])

    assert _only(BaseExceptionGroup("tasks", [away, inner])) is away


def test_different_failures_are_told_together() -> None:
    group = BaseExceptionGroup("tasks", [StoreError("away"), ValueError("ours")])

    assert _only(group) is group

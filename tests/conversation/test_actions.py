"""What actions do to a conversation: on a real server, with real ones of rasa-sdk."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import redis

from bot import explain
from bot.config import Config, ConversationConfig
from bot.conversation import handoff, overview
from bot.conversation.manager import ConversationManager
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.state import turn_id
from bot.conversation.store import Store
from bot.model import Event, EventKind, Record, Reply
from bot.testing.fakes import FixedClock, MemoryConnector, ScriptedLanguageModel
from bot.testing.makers import an_address, an_event
from tests import real_actions
from tests.conversation.test_frames import heard_by
from tests.conversation.test_manager import Told
from tests.real_actions import EVENTS, World, a_config, an_answerer

pytestmark = pytest.mark.services

SETTINGS = ConversationConfig(window_events=60)
CONFIG = a_config(conversation={"window_tokens": 2000})
APOLOGY = CONFIG.replies.apology
HERE = "chorus:{s0}:c:memory:a1:c1:"


@pytest.fixture
def world() -> Iterator[World]:
    yield real_actions.a_new_world()
    real_actions.WORLD.go.set()


@pytest.fixture(autouse=True)
def _a_world_of_its_own(world: World) -> None:
    """No test sees what another one did."""


@dataclass
class Bot:
    """Processes of one bot, one after the other, on a real server."""

    url: str
    model: ScriptedLanguageModel = field(
        default_factory=lambda: ScriptedLanguageModel(lambda turn: "Five days.")
    )
    connector: MemoryConnector = field(default_factory=MemoryConnector)
    told: Told = field(default_factory=Told)
    config: Config = CONFIG

    @asynccontextmanager
    async def process(self) -> AsyncIterator[ConversationManager]:
        answerer = an_answerer(self.config, self.model)
        dialogue = answerer.dialogue
        assert dialogue is not None
        async with (
            Store(url=self.url, settings=SETTINGS) as store,
            ConversationManager(
                store=store,
                answerer=answerer,
                connectors={"memory": self.connector},
                observers=self.told,
                actions=dialogue,
                config=self.config,
                explain=explain.text,
                clock=FixedClock(),
                seeds=lambda: 7,
                alone=True,
            ) as manager,
        ):
            yield manager
            await dialogue.parts.runner.close()

    async def after(self, *texts: str) -> list[str]:
        """Say each text in a process of its own; return what the customer reads."""
        before = len(self.connector.replies())
        for text in texts:
            async with self.process() as manager:
                await manager.accept(said(text))
                await manager.idle()
        return self.connector.replies()[before:]

    @property
    def prompt(self) -> str:
        """What the model was given to read last."""
        return self.model.requests[-1].turn.prompt


def said(text: str, **more: Any) -> Event:
    kind: EventKind = "command" if text.startswith("/") else "message"
    event = an_event(text.removeprefix("/"), kind, id=uuid.uuid4().hex)
    return replace(event, address=an_address(user="u1"), **more)


@pytest.fixture
def bot(server: EmbeddedRedis, client: redis.Redis) -> Bot:
    return Bot(server.url)


@pytest.fixture
async def kept(server: EmbeddedRedis, client: redis.Redis) -> AsyncIterator[Store]:
    """Look at what is kept, as a turn would."""
    async with Store(url=server.url, settings=SETTINGS) as opened:
        yield opened


async def log_of(kept: Store) -> list[tuple[str, str]]:
    state = await kept.load(an_address())
    return [(event.kind, event.text) for event in state.history]


async def slots_of(kept: Store) -> Mapping[str, Any]:
    return (await kept.load(an_address())).slots


async def last_record(kept: Store) -> Record:
    record = await kept.last_record(an_address())
    assert record is not None
    return record


async def until(happened: Callable[[], object], within_s: float = 15.0) -> None:
    """Look again and again at what nobody tells."""
    async with asyncio.timeout(within_s):
        while not happened():  # noqa: ASYNC110 (that is what it is for)
            await asyncio.sleep(0.01)


# Slots and forms


async def test_slots_and_the_open_form_outlive_the_process(
    bot: Bot, kept: Store
) -> None:
    asked = await bot.after("is LK-771204 there?", "/note")
    between = dict(await slots_of(kept))

    replies = await bot.after("buy milk", "where is it?")

    assert asked == ["Five days.", "What shall I note?"]
    assert (between["order"], between["requested_slot"]) == ("LK-771204", "note")
    assert replies == ["Done.", "Order LK-771204 left."]
    assert await slots_of(kept) == {"order": "LK-771204", "note": "buy milk"}


async def test_a_question_in_a_form_is_answered_and_the_form_stays_open(
    bot: Bot, kept: Store
) -> None:
    replies = await bot.after("/note", "How long does a refund take?", "buy milk")

    assert replies == [
        "What shall I note?",
        "Five days.\n\nWhat shall I note?",
        "Done.",
    ]
    assert await slots_of(kept) == {"note": "buy milk"}


async def test_forgetting_forgets_the_open_form_and_the_reminders(
    bot: Bot, kept: Store, client: redis.Redis
) -> None:
    await bot.after("do remind anyway", "/note")
    before = client.hlen(HERE + "reminders")

    replies = await bot.after("/forget", "What is open now?")

    assert before == 1
    assert not client.exists(HERE + "reminders")
    assert client.zcard("chorus:{s0}:reminders:memory") == 0
    assert await slots_of(kept) == {}
    assert replies[1] == "Five days."


# The log


async def test_every_event_of_rasa_sdk_is_in_the_log_by_its_kind(
    bot: Bot, kept: Store
) -> None:
    await bot.after("do everything")

    kinds = [kind for kind, _ in await log_of(kept)]
    ours = {"user": "message", "bot": "reply"}
    returned = [ours.get(one["event"], one["event"]) for one in EVENTS["everything"]]
    assert kinds == ["message", "action", *returned[:-1], "reply"]


async def test_what_an_event_of_rasa_sdk_holds_is_in_the_log(
    bot: Bot, kept: Store
) -> None:
    await bot.after("do everything")

    events = {event.kind: event for event in (await kept.load(an_address())).history}
    slot, agent = events["slot"], events["agent"]
    assert slot.data["value"] == {"deep": [1, 2.5, "绿茶 🍵"]}
    assert (agent.text, agent.data["data"]) == ("a person said", {"agent": "Anna"})
    assert events["reminder"].data["date_time"] == real_actions.FAR.isoformat()
    assert events["action_execution_rejected"].data["name"] == "action_third"
    assert events["loop_interrupted"].data["is_interrupted"] is True
    assert len({event.id for event in events.values()}) == len(events)


@pytest.mark.parametrize(
    ("wants", "remembers", "forgets"),
    [
        ("slot", ["First one.", "Second one.", "do slot"], []),
        ("restart", [], ["First one.", "Second one.", "do restart"]),
        ("session", [], ["First one.", "Second one.", "do session"]),
        ("session end", [], ["First one.", "Second one.", "do session end"]),
        ("rewind", ["First one.", "Second one."], ["do rewind"]),
        ("rewind twice", ["First one."], ["Second one.", "do rewind twice"]),
        ("undo", ["First one.", "Second one.", "do undo"], []),
    ],
)
async def test_the_next_prompt_has_only_what_was_not_taken_back(
    bot: Bot, wants: str, remembers: list[str], forgets: list[str]
) -> None:
    await bot.after("First one.", "Second one.", f"do {wants}", "And now?")

    found = [text for text in [*remembers, *forgets] if f"user: {text}" in bot.prompt]

    assert found == remembers
    assert "Question: And now?" in bot.prompt


@pytest.mark.parametrize(
    ("wants", "left"),
    [
        ("slot", {"order": "LK-771204", "note": 5}),
        ("reset", {}),
        ("restart", {}),
        ("session", {}),
        ("session end", {}),
        ("rewind", {"order": "LK-771204"}),
    ],
)
async def test_an_event_does_to_the_slots_what_it_does_in_rasa(
    bot: Bot, kept: Store, wants: str, left: dict[str, Any]
) -> None:
    await bot.after("is LK-771204 there?", f"do {wants}")

    assert await slots_of(kept) == left


async def test_a_restart_leaves_the_open_form(bot: Bot, kept: Store) -> None:
    await bot.after("/note", "/do restart")

    replies = await bot.after("buy milk")

    assert replies == ["Five days."]
    assert await slots_of(kept) == {}


# Who has the conversation


async def test_a_pause_hands_the_conversation_to_people_and_tells_plugins(
    bot: Bot, kept: Store
) -> None:
    replies = await bot.after("do pause", "hello?", "where is it?")

    (found,) = await handoff.handed_over(kept)
    assert replies == ["done: pause"]
    assert found.key == an_address().key
    handed = [one for one in bot.told.events if one[0] == "handed over"]
    assert [one[1] for one in handed] == ["do pause"]


async def test_an_action_run_by_a_command_gives_the_conversation_back(
    bot: Bot, kept: Store
) -> None:
    replies = await bot.after("do pause", "unheard", "/do resume", "How long?")

    assert replies == ["done: pause", "done: resume", "Five days."]
    assert await handoff.handed_over(kept) == []
    assert bot.told.events.count(("resumed", "c1")) == 1


async def test_a_command_that_says_nothing_of_it_leaves_it_to_people(
    bot: Bot, kept: Store
) -> None:
    replies = await bot.after("do pause", "/order LK-771204", "How long?")

    assert replies == ["done: pause", "Order LK-771204 left."]
    assert len(await handoff.handed_over(kept)) == 1


# Reminders


async def test_a_reminder_that_comes_due_is_answered_by_its_rule_and_once(
    bot: Bot, kept: Store, world: World, client: redis.Redis
) -> None:
    async with bot.process() as manager:
        await manager.accept(said("is LK-771204 there?"))
        await manager.accept(said("do remind"))
        replies = [(await bot.connector.next_reply()).text for _ in range(3)]
        await manager.idle()
    await bot.after("How long?")

    assert replies == ["Five days.", "done: remind", "Order LK-771204 left."]
    assert bot.connector.replies()[3:] == ["Five days."]
    assert world.done == ["remind", "status"]
    assert not client.exists(HERE + "reminders")
    kinds = [kind for kind, _ in await log_of(kept)]
    assert kinds.count("intent") == 1


def let_time_pass(client: redis.Redis) -> None:
    """Make every reminder that is kept due."""
    key = "chorus:{s0}:reminders:memory"
    names: Any = client.zrange(key, 0, -1)
    assert names
    client.zadd(key, dict.fromkeys(names, 1))


async def test_a_reminder_comes_due_in_a_process_that_did_not_set_it(
    bot: Bot, client: redis.Redis, world: World
) -> None:
    await bot.after("do remind later")
    let_time_pass(client)

    async with bot.process() as manager:
        await bot.connector.next_reply()
        brought_up = await bot.connector.next_reply()
        await manager.idle()

    assert brought_up.text == "Order None left."
    assert world.done == ["remind later", "status"]


async def test_what_comes_due_while_people_answer_is_not_said(
    bot: Bot, kept: Store, client: redis.Redis, world: World
) -> None:
    await bot.after("do remind later", "/do pause")
    let_time_pass(client)

    async with bot.process() as manager:
        await until(lambda: not client.exists(HERE + "reminders"))
        await manager.idle()

    assert bot.connector.replies() == ["done: remind later", "done: pause"]
    assert world.done == ["remind later", "pause"]
    assert (await last_record(kept)).outcome == "handed_over"


async def test_what_a_reminder_says_is_no_question_in_the_next_prompt(
    bot: Bot,
) -> None:
    async with bot.process() as manager:
        await manager.accept(said("do remind"))
        await bot.connector.next_reply()
        await bot.connector.next_reply()
        await manager.idle()

    await bot.after("How long?")

    assert "EXTERNAL_tea" not in bot.prompt
    assert "\n\nOrder None left." in bot.prompt  # with what was said before it


async def test_a_reminder_without_a_rule_is_dropped_and_the_operator_is_told(
    bot: Bot, kept: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with bot.process() as manager:
        await manager.accept(said("do remind of nothing"))
        await until(lambda: "a reminder is dropped" in caplog.text)
        await manager.idle()

    record = await last_record(kept)
    assert bot.connector.replies() == ["done: remind of nothing"]
    assert record.turn.message.kind == "intent"
    assert "no rule runs anything for the intent 'EXTERNAL_none'" in record.problems[0]


async def test_a_reminder_without_a_rule_is_no_answer_to_an_open_form(
    bot: Bot, kept: Store, client: redis.Redis
) -> None:
    await bot.after("do remind of nothing later", "/note")
    let_time_pass(client)

    async with bot.process() as manager:
        await until(lambda: not client.exists(HERE + "reminders"))
        await manager.idle()
    slots = dict(await slots_of(kept))
    replies = await bot.after("buy milk")

    assert slots["requested_slot"] == "note"
    assert "note" not in slots
    assert replies == ["Done."]
    assert (await slots_of(kept))["note"] == "buy milk"
    assert bot.connector.replies().count("What shall I note?") == 1


async def test_a_reminder_in_a_form_is_brought_up_and_the_form_asks_again(
    bot: Bot, kept: Store, client: redis.Redis
) -> None:
    await bot.after("do remind later", "/note")
    let_time_pass(client)

    async with bot.process() as manager:
        await until(lambda: len(bot.connector.replies()) == 3)
        await manager.idle()

    assert bot.connector.replies()[-1] == "Order None left.\n\nWhat shall I note?"
    assert (await slots_of(kept))["requested_slot"] == "note"


@pytest.mark.parametrize("then", ["do cancel all", "hello there"])
async def test_a_reminder_that_was_cancelled_or_written_over_is_kept_no_more(
    bot: Bot, client: redis.Redis, then: str
) -> None:
    await bot.after("do remind later")
    before = client.hkeys(HERE + "reminders")

    await bot.after(then)

    assert before == ["tea"]
    assert not client.exists(HERE + "reminders")


async def test_a_reminder_that_outlives_messages_is_cancelled_by_its_name(
    bot: Bot, client: redis.Redis
) -> None:
    await bot.after("do remind anyway", "hello there", "do remind later")
    both = client.hkeys(HERE + "reminders")

    await bot.after("/do cancel")

    assert sorted(both) == ["anyway", "tea"]
    assert client.hkeys(HERE + "reminders") == ["tea"]


async def test_a_reminder_that_the_same_action_cancels_never_comes(
    bot: Bot, world: World
) -> None:
    replies = await bot.after("do remind and cancel", "How long?")

    assert replies == ["done: remind and cancel", "Five days."]
    assert world.done == ["remind and cancel"]


async def test_a_reminder_that_is_none_is_a_problem_of_the_turn(
    bot: Bot, kept: Store
) -> None:
    replies = await bot.after("do remind wrongly")

    record = await last_record(kept)
    assert replies == ["done: remind wrongly"]
    assert record.outcome == "acted"
    assert any("its date_time 'soon' is no time" in one for one in record.problems)


# Again


async def test_a_turn_whose_action_failed_is_not_tried_again(
    bot: Bot, kept: Store, world: World
) -> None:
    message = said("do crash")

    async with bot.process() as manager:
        await manager.accept(message)
        await manager.idle()

    assert bot.connector.replies() == [APOLOGY]
    assert world.done == ["crash"]
    (dead,) = await overview.dead_letters(kept)
    assert dead.id == turn_id(message)


async def test_a_turn_that_failed_after_an_action_is_not_tried_again(
    bot: Bot, world: World
) -> None:
    bot.model = ScriptedLanguageModel(lambda turn: RuntimeError("no memory"))

    replies = await bot.after("do generate")

    assert replies == [f"done: generate\n\n{APOLOGY}"]
    assert world.done == ["generate"]


@pytest.mark.parametrize("question", ["How long?", "is LK-771204 there?"])
async def test_a_turn_without_an_action_that_failed_is_tried_again(
    bot: Bot, question: str
) -> None:
    bot.model = ScriptedLanguageModel([RuntimeError("no memory"), "Five days."])

    replies = await bot.after(question)

    assert replies == ["Five days."]
    assert len(bot.model.requests) == 2


async def test_a_turn_stopped_in_an_action_keeps_what_was_done_before(
    bot: Bot, kept: Store, world: World
) -> None:
    async with bot.process() as manager:
        await manager.accept(said("chain wait"))
        await asyncio.to_thread(world.begun.wait, 10)
        await manager.accept(said("", kind="cancel"))
        stopped = await bot.connector.next_reply()
        await manager.idle()

    record = await last_record(kept)
    assert stopped.text == CONFIG.replies.cancelled
    assert record.outcome == "cancelled"
    assert [run.name for run in record.actions] == ["action_follows"]
    assert await slots_of(kept) == {"note": "of the first"}
    assert [kind for kind, _ in await log_of(kept)] == [
        "message",
        "action",
        "slot",
        "followup",
        "reply",
    ]


async def test_a_turn_that_a_newer_message_stops_keeps_what_was_done_before(
    bot: Bot, kept: Store, world: World
) -> None:
    bot.config = a_config(conversation={"during_turn": "interrupt"})
    message = said("chain wait")

    async with bot.process() as manager:
        await manager.accept(message)
        await asyncio.to_thread(world.begun.wait, 10)
        await manager.accept(said("How long?"))
        await manager.idle()

    record = await kept.record(turn_id(message))
    assert record is not None
    assert bot.connector.replies() == ["Five days."]
    assert (record.outcome, record.why) == ("cancelled", "a newer message came")
    assert [run.name for run in record.actions] == ["action_follows"]
    assert await slots_of(kept) == {"note": "of the first"}


async def test_what_an_action_did_when_people_took_over_is_kept_and_said(
    bot: Bot, kept: Store, world: World
) -> None:
    async with bot.process() as manager:
        await manager.accept(said("do wait"))
        await asyncio.to_thread(world.begun.wait, 10)
        await handoff.hand_over(kept, an_address(), "by hand", Reply(text="told"))
        world.go.set()
        await manager.idle()

    assert world.done == ["wait"]
    assert bot.connector.replies() == ["told", "done: wait"]
    assert [run.name for run in (await last_record(kept)).actions] == ["action_does"]
    assert len(await handoff.handed_over(kept)) == 1


# What is pressed and said


async def test_a_pressed_button_runs_the_rule_that_its_payload_calls_for(
    bot: Bot, kept: Store
) -> None:
    question = said("do buttons")
    async with bot.process() as manager:
        await manager.accept(question)
        await manager.idle()
        shown = bot.connector.deliveries[-1].reply.buttons
        for place in range(len(shown)):
            pressed = {"turn": turn_id(question), "button": place}
            await manager.accept(said(f"{place}", kind="button", data=pressed))
            await manager.idle()

    assert [button.text for button in shown] == ["My order", "Hello"]
    assert bot.connector.replies() == [
        "Which one?",
        "Order LK-771204 left.",
        "Hello!",
    ]
    assert await slots_of(kept) == {"order": "LK-771204", "note": "pressed"}


async def test_a_payload_of_an_intent_is_no_unknown_command(bot: Bot) -> None:
    replies = await bot.after('/greet{"note": "x"}', '/gret{"note": "x"}', "/greet")

    assert replies[0] == replies[2] == "Hello!"
    assert replies[1].startswith("I do not know the command")


@pytest.mark.parametrize(
    ("wants", "images", "custom"),
    [
        ("image", ["https://shop.example/a.png"], []),
        ("custom", [], [{"blocks": []}]),
    ],
)
async def test_an_action_may_answer_without_a_word(
    bot: Bot, wants: str, images: list[str], custom: list[Any]
) -> None:
    await bot.after(f"do {wants}")

    (delivery,) = bot.connector.deliveries
    shown = delivery.reply
    assert (shown.text, shown.images, shown.custom) == ("", images, custom)


async def test_a_customer_hears_that_an_action_which_says_nothing_was_done(
    bot: Bot, kept: Store, world: World
) -> None:
    replies = await bot.after("do nothing")

    record = await last_record(kept)
    assert replies == ["Done."]
    assert (record.outcome, world.done) == ("acted", ["nothing"])
    assert await overview.dead_letters(kept) == []


async def test_help_lists_the_commands_that_run_actions_forms_and_what_they_do(
    bot: Bot,
) -> None:
    (told,) = await bot.after("/help")

    lines = told.splitlines()
    assert "- `/order`: says where an order is" in lines
    assert "- `/note`: runs note_form" in lines
    assert lines[0].startswith("- `/start`")


async def test_a_streaming_action_is_shown_in_order_before_its_reply(
    bot: Bot, client: redis.Redis, world: World, kept: Store
) -> None:
    frames, before = [], ["none yet"]
    async with bot.process() as manager:
        await heard_by(client, 1)
        await manager.accept(said("do stream"))
        for _ in range(3):
            frames.append(await bot.connector.next_frame())
            before = bot.connector.replies()
            world.steps.release()
        reply = await bot.connector.next_reply()
        await manager.idle()

    assert frames == ["One", "One and two", "One and two and three."]
    assert before == []
    assert reply.text == frames[-1]
    assert await slots_of(kept) == {"note": "streamed"}


# What is told of it


@pytest.mark.parametrize("text", ["do crash over Ms Secret", "where is LK-771204?"])
async def test_no_log_at_info_says_what_the_customer_wrote(
    bot: Bot, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    await bot.after(text)

    told = caplog.text + " ".join(f"{vars(one)}" for one in caplog.records)
    assert bot.connector.replies()
    assert not [word for word in ("Secret", "771204", "where is") if word in told]


async def test_the_customers_why_says_which_action_answered(bot: Bot) -> None:
    _, why = await bot.after("where is LK-771204?", "/why")

    assert "action_status" in why
    assert "in process" in why

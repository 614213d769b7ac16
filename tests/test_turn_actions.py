"""Turns that actions answer: real ones of rasa-sdk, with a scripted model."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pydantic import JsonValue

from bot import hookimpl, metrics
from bot.errors import Overloaded
from bot.model import EventKind, Passage, Record, Reply, Turn
from bot.plugin_manager import Plugins, _new_manager
from bot.testing.fakes import ScriptedLanguageModel
from bot.testing.makers import a_turn, an_event
from tests import real_actions
from tests.real_actions import RELEVANT, World, a_config, an_answerer

CONFIG = a_config()
SAID = "Your order LK-771204 takes 5 days."
FORM: dict[str, JsonValue] = {"chorus:active_loop": {"name": "note_form"}}


@pytest.fixture
def world() -> Iterator[World]:
    yield real_actions.a_new_world()
    real_actions.WORLD.go.set()


@pytest.fixture(autouse=True)
def _a_world_of_its_own(world: World) -> None:
    """No test sees what another one did."""


def a_message(text: str, kind: EventKind = "message", **more: Any) -> Turn:
    return a_turn(message=an_event(text, kind), **more)


async def answered(
    turn: Turn | str,
    model: ScriptedLanguageModel | None = None,
    *,
    cancelled: threading.Event | None = None,
    shown: list[str] | None = None,
    **more: Any,
) -> Record:
    config = more.pop("config", CONFIG)
    answerer = an_answerer(config, model or ScriptedLanguageModel([]), **more)
    return await answerer.answer(
        a_message(turn) if isinstance(turn, str) else turn,
        cancelled or threading.Event(),
        ([] if shown is None else shown).append,
    )


@dataclass
class Hears:
    """A plugin that keeps what it is asked and told."""

    heard: list[tuple[str, ...]] = field(default_factory=list)

    @hookimpl
    async def needs_person(self, turn: Turn) -> str | None:
        self.heard.append(("person?", turn.question))
        return "angry" if turn.question.endswith("!!!") else None

    @hookimpl
    async def answer_directly(self, turn: Turn) -> Reply | None:
        self.heard.append(("directly?", turn.question))
        direct = Reply(text="directly")
        return direct if turn.question.endswith("directly") else None

    @hookimpl
    async def turn_failed(self, turn: Turn, error: Exception) -> None:
        self.heard.append(("failed", turn.question, str(error)))

    @property
    def plugins(self) -> Plugins:
        manager = _new_manager()
        manager.register(self, "hears")
        return Plugins(manager=manager)


def names(record: Record) -> list[str]:
    return [run.name for run in record.actions]


# Actions answer


async def test_an_action_answers_and_the_record_says_what_it_did() -> None:
    model = ScriptedLanguageModel([])

    record = await answered("where is LK-771204?", model)

    assert (record.outcome, record.reply.text) == ("acted", "Order LK-771204 left.")
    assert names(record) == ["action_extract_slots", "action_status"]
    assert record.slots == {"order": "LK-771204"}
    assert record.candidates == ()
    assert model.requests == []
    assert {"act", "total"} <= set(record.ms)
    run = record.actions[-1]
    assert (run.where, run.said, run.problem) == (
        "in process",
        ("Order LK-771204 left.",),
        "",
    )
    assert "rule 0" in run.trigger


async def test_acting_is_awaited_before_the_action_runs_and_once(world: World) -> None:
    done_when_marked: list[list[str]] = []

    async def acting() -> None:
        done_when_marked.append(list(world.done))

    answerer = an_answerer(CONFIG, ScriptedLanguageModel([]))
    await answerer.answer(a_message("do followup"), threading.Event(), print, acting)

    assert done_when_marked == [[]]
    assert world.done == ["followup", "status"]


async def test_a_response_of_the_configuration_is_no_action_that_is_marked() -> None:
    marks: list[int] = []

    async def acting() -> None:
        marks.append(1)

    answerer = an_answerer(CONFIG, ScriptedLanguageModel([]))
    turn = a_message("greet{}", "command")
    record = await answerer.answer(turn, threading.Event(), print, acting)

    assert record.reply.text == "Hello!"
    assert marks == []


async def test_what_no_action_takes_is_answered_from_knowledge_as_before() -> None:
    model = ScriptedLanguageModel(["Five days."])

    record = await answered("How long?", model)

    assert (record.outcome, record.reply.text) == ("answered", "Five days.")
    assert (record.actions, record.slots) == ((), {})


async def test_a_slot_that_a_question_fills_is_kept_with_the_answer() -> None:
    record = await answered("Is LK-771204 late?", ScriptedLanguageModel(["No."]))

    assert (record.outcome, record.reply.text) == ("answered", "No.")
    assert record.slots == {"order": "LK-771204"}
    assert names(record) == ["action_extract_slots"]


# What fails


@pytest.mark.parametrize(
    ("wants", "said", "told"),
    [
        ("do crash", [], "raised KeyError"),
        ("do followup crash", ["done: followup crash"], "did you mean"),
    ],
)
async def test_a_failing_action_means_the_apology_after_what_was_said(
    wants: str, said: list[str], told: str
) -> None:
    hears = Hears()

    record = await answered(wants, plugins=hears.plugins)

    assert record.outcome == "failed"
    assert record.reply.text == "\n\n".join([*said, CONFIG.replies.apology])
    assert told in record.why
    assert record.actions[-1].problem == record.why
    (failed,) = [one for one in hears.heard if one[0] == "failed"]
    assert failed == ("failed", wants, record.why)


async def test_a_failing_action_keeps_the_slots_of_those_before_it() -> None:
    record = await answered("do followup crash")

    assert record.slots == {"note": "first"}


async def test_a_failing_action_is_counted_as_one_and_as_a_failed_turn() -> None:
    def counted() -> tuple[float, float]:
        return (
            metrics.reading(
                "chorus_actions_total", action="action_does", outcome="crashed"
            ),
            metrics.reading("chorus_turns_total", platform="memory", outcome="failed"),
        )

    crashes, turns = counted()
    await answered("do crash")

    assert counted() == (crashes + 1, turns + 1)


async def test_an_action_that_is_counted_and_answers_counts_as_acted() -> None:
    labels = {"platform": "memory", "outcome": "acted"}
    before = metrics.reading("chorus_turns_total", **labels)

    await answered("where is it?")

    assert metrics.reading("chorus_turns_total", **labels) == before + 1


# Rewording


@pytest.mark.parametrize("question", ["word it", "template"])
async def test_what_is_to_be_worded_is_said_in_the_models_words(question: str) -> None:
    chosen = "It takes 5 days for LK-771204, your order."
    model = ScriptedLanguageModel([["Order LK-771204 needs a while.", chosen]])

    record = await answered(question, model)

    kept, lost = record.candidates
    assert record.outcome == "acted"
    assert record.reply.text == chosen
    assert (record.chosen, kept.text) == (0, chosen)
    assert lost.dropped == "rewording: loses '5 days'"
    assert len(record.reply.buttons) == 1
    assert list(record.actions[-1].said) == [SAID]
    assert record.why.endswith("; worded: it is first")
    assert {"act", "generate", "rank"} <= set(record.ms)


async def test_the_model_is_shown_what_was_said_and_the_question() -> None:
    model = ScriptedLanguageModel([SAID])

    await answered("word it", model)

    (request,) = model.requests
    assert SAID in request.turn.prompt
    assert "word it" in request.turn.prompt
    assert request.candidates == CONFIG.generation.candidates


async def test_where_no_candidate_keeps_what_it_must_the_action_is_quoted() -> None:
    model = ScriptedLanguageModel([["It takes 6 days.", "Soon."]])

    record = await answered("word it", model)

    assert record.reply.text == SAID
    assert record.reply.images == ("https://shop.example/a.png",)
    assert record.chosen is None
    assert all(
        (one.dropped or "").startswith("rewording: ") for one in record.candidates
    )
    assert "no candidate kept what it has to keep" in record.why


async def test_an_overloaded_generator_costs_only_the_wording() -> None:
    model = ScriptedLanguageModel([Overloaded("64 sets wait already")])

    record = await answered("word it", model)

    assert (record.outcome, record.reply.text) == ("acted", SAID)
    assert "as the action said it, for 64 sets wait already" in record.why
    assert len(record.reply.buttons) == 1


async def test_a_reply_without_a_text_is_not_worded() -> None:
    model = ScriptedLanguageModel([])

    record = await answered("word image", model)

    assert record.reply.images == ("https://shop.example/a.png",)
    assert record.reply.text == ""
    assert model.requests == []


async def test_a_wording_that_is_stopped_keeps_what_the_action_did() -> None:
    cancelled = threading.Event()
    model = ScriptedLanguageModel([SAID], gate=threading.Event())
    writing = asyncio.create_task(answered("word it", model, cancelled=cancelled))
    await asyncio.to_thread(model.started.wait, 10)

    cancelled.set()
    record = await writing

    assert record.outcome == "cancelled"
    assert record.reply.text == CONFIG.replies.cancelled
    assert names(record) == ["action_worded"]


# Knowledge beside actions


async def test_a_question_in_a_form_is_answered_and_then_the_form_asks() -> None:
    turn = a_message("How long does a refund take?", slots=FORM)

    record = await answered(turn, ScriptedLanguageModel(["Five days."]))

    assert record.outcome == "answered"
    assert record.reply.text == "Five days.\n\nWhat shall I note?"
    assert [one.source for one in record.reply.citations] == ["refunds.md"]
    assert names(record) == ["note_form", "utter_ask_note"]
    assert record.slots["requested_slot"] == "note"


async def test_a_question_that_nothing_answers_leaves_only_what_the_form_asks() -> None:
    turn = a_message("How long does a refund take?", slots=FORM)
    irrelevant = replace(RELEVANT, scores={"relevance": 0.1})

    record = await answered(turn, passages=[irrelevant])

    assert record.outcome == "declined"
    assert record.reply.text == "What shall I note?"
    assert "nothing relevant" in record.why


async def test_an_action_may_hand_over_to_the_generator() -> None:
    record = await answered("do generate", ScriptedLanguageModel(["Five days."]))

    assert record.outcome == "answered"
    assert record.reply.text == "done: generate\n\nFive days."
    assert [one.source for one in record.reply.citations] == ["refunds.md"]
    assert record.slots == {"note": "kept"}
    assert len(record.candidates) == 2


async def test_an_action_that_hands_over_where_nothing_is_known_declines() -> None:
    nothing: Sequence[Passage] = ()

    record = await answered("do generate", passages=nothing)

    assert record.outcome == "declined"
    assert record.reply.text == f"done: generate\n\n{CONFIG.replies.fallback}"


async def test_a_model_that_fails_after_an_action_leaves_its_runs_in_the_record() -> (
    None
):
    model = ScriptedLanguageModel([RuntimeError("out of memory")])

    record = await answered("do generate", model)

    assert record.outcome == "failed"
    assert names(record) == ["action_does"]
    assert record.slots == {"note": "kept"}
    assert record.reply.text == f"done: generate\n\n{CONFIG.replies.apology}"


# Stopped in the middle


async def test_a_turn_stopped_in_an_action_keeps_what_those_before_it_did(
    world: World,
) -> None:
    cancelled = threading.Event()
    acting = asyncio.create_task(answered("chain wait", cancelled=cancelled))
    await asyncio.to_thread(world.begun.wait, 10)

    cancelled.set()
    record = await acting

    assert record.outcome == "cancelled"
    assert record.reply.text == CONFIG.replies.cancelled
    assert names(record) == ["action_follows"]
    assert record.slots == {"note": "of the first"}


# Who may act


@pytest.mark.parametrize(
    ("question", "slots"),
    [("where is LK-771204?", {}), ("do crash", {}), ("How long?", FORM)],
)
async def test_a_turn_in_the_background_runs_no_action(
    world: World, question: str, slots: dict[str, JsonValue]
) -> None:
    model = ScriptedLanguageModel(["Five days."])

    record = await answered(a_message(question, slots=slots), model, background=True)

    assert (record.outcome, record.reply.text) == ("answered", "Five days.")
    assert (record.actions, record.slots) == ((), {})
    assert world.done == []


async def test_a_reminder_that_came_due_runs_its_rule() -> None:
    due = an_event("", "intent", data={"intent": "EXTERNAL_tea", "name": "tea"})
    hears = Hears()

    record = await answered(
        a_turn(message=due, slots={"order": "LK-771204"}), plugins=hears.plugins
    )

    assert (record.outcome, record.reply.text) == ("acted", "Order LK-771204 left.")
    assert hears.heard == []


async def test_a_reminder_without_a_rule_is_silence_and_a_problem() -> None:
    due = an_event("", "intent", data={"intent": "EXTERNAL_none"})
    hears = Hears()

    record = await answered(a_turn(message=due), plugins=hears.plugins)

    assert (record.outcome, record.reply) == ("acted", Reply(text=""))
    assert "no rule runs anything for the intent 'EXTERNAL_none'" in record.problems[0]
    assert hears.heard == []


async def test_a_button_that_leads_nowhere_fails_and_says_which() -> None:
    hears = Hears()

    record = await answered(
        a_message('vanish{"order": "LK-771204"}', "command"), plugins=hears.plugins
    )

    assert (record.outcome, record.reply.text) == ("failed", CONFIG.replies.apology)
    assert "no rule runs anything for the intent 'vanish'" in record.why
    assert [one[0] for one in hears.heard] == ["failed"]


async def test_without_actions_a_reminder_says_nothing_and_explain_says_why() -> None:
    answerer = an_answerer(CONFIG, ScriptedLanguageModel([]))
    without = replace(answerer, dialogue=None)
    message = an_event("", "intent", data={"intent": "EXTERNAL_tea"})

    record = await without.answer(a_turn(message=message), threading.Event(), print)

    assert (record.outcome, record.reply.text) == ("acted", "")
    assert "no action is there for it" in record.why


async def test_without_actions_a_command_fails_and_tells() -> None:
    message = an_event("order LK-771204", "command")
    hears = Hears()
    answerer = an_answerer(CONFIG, ScriptedLanguageModel([]), plugins=hears.plugins)
    without = replace(answerer, dialogue=None)

    record = await without.answer(a_turn(message=message), threading.Event(), print)

    assert (record.outcome, record.reply.text) == ("failed", CONFIG.replies.apology)
    assert "actions.rules" in record.why
    assert [one[0] for one in hears.heard] == ["failed"]


async def test_plugins_are_asked_of_messages_before_any_action_runs(
    world: World,
) -> None:
    hears = Hears()

    handed = await answered("where is it!!!", plugins=hears.plugins)
    direct = await answered("where is it, directly", plugins=hears.plugins)

    assert (handed.outcome, direct.outcome) == ("handed_over", "direct")
    assert [one[0] for one in hears.heard] == ["person?", "person?", "directly?"]
    assert world.done == []


async def test_plugins_are_not_asked_of_commands() -> None:
    hears = Hears()

    record = await answered(
        a_message("order LK-771204!!!", "command"), plugins=hears.plugins
    )

    assert record.outcome == "acted"
    assert hears.heard == []


# What is shown, and what is not


async def test_a_streaming_action_is_shown_as_it_grows(world: World) -> None:
    world.steps.release(3)
    shown: list[str] = []

    record = await answered("do stream", shown=shown)

    assert shown == ["One", "One and two", "One and two and three."]
    assert record.reply.text == shown[-1]


@pytest.mark.parametrize(
    "question",
    [
        "where is LK-771204?",
        "do crash over Ms Secret",
        "do remind wrongly",
        "do nothing",
    ],
)
async def test_the_logs_of_a_turn_with_actions_hold_no_message_text(
    question: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    await answered(question)

    words = {"secret", "771204", "where is", "wrongly", question.lower()}
    (line,) = [one for one in caplog.records if one.name == "chorus.turn"]
    told = f"{line.__dict__} {caplog.text}".lower()
    assert not [word for word in words if word in told]

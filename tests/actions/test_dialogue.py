"""What a message calls for, with real rasa-sdk actions in this process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest
from pydantic import JsonValue

from bot.actions import places
from bot.actions.dialogue import Dialogue
from bot.actions.doing import Acted, Parts, Watch
from bot.actions.domain import domain_of
from bot.actions.responses import Responses
from bot.actions.rules import Rules
from bot.actions.runner import Runner
from bot.actions_config import ActionsConfig
from bot.conversation.commands import Answered
from bot.conversation.facts import facts
from bot.errors import TurnCancelled, TurnError
from bot.interfaces import GenerationRequest
from bot.model import Candidate, Event, Record, Reply
from bot.testing.fakes import HashEmbedder, ScriptedLanguageModel
from bot.testing.makers import NOON, an_event
from tests.actions import shop

CONFIG: dict[str, Any] = {
    "sources": [
        {"use": f"tests.actions.shop:{name}"}
        for name in ("Status", "Says", "ValidateReturn", "SubmitReturn")
    ],
    "slots": {
        "order_number": {"pattern": r"LK-\d{6}", "always": True},
        "reason": {"type": "categorical", "values": ["damaged", "too big"]},
        "photo": {},
        "size": {},
        "secret": {},
        "note": {},
    },
    "rules": [
        {"run": "action_status", "command": "order", "pattern": "where is"},
        {"run": "return_form", "command": "return", "intent": "start_return"},
        {"run": "action_says", "pattern": "^do "},
        {"run": "utter_hello", "keywords": ["hello"], "intent": "greet"},
        {"run": "utter_photo", "slot": "photo"},
        {"run": "utter_hello", "pattern": "^my size is (?P<size>\\w+)"},
        {"run": "note_form", "command": "note"},
        {"run": "utter_opened", "examples": ["when do you open"], "threshold": 0.9},
    ],
    "forms": {
        "return_form": {
            "slots": ["order_number", "reason"],
            "submit": "action_submit_return",
        },
        "note_form": {"slots": ["note"]},
    },
    "responses": {
        "utter_hello": [{"text": "Hello {size}!"}],
        "utter_opened": [{"text": "At nine."}],
        "utter_photo": [{"text": "A fine photo."}],
        "utter_ask_order_number": [{"text": "Which order?"}],
        "utter_ask_return_form_reason": [
            {"text": "Why?", "buttons": [{"title": "Damaged", "payload": "damaged"}]}
        ],
        "utter_ask_reason": [{"text": "never said"}],
        "utter_ask_photo": [{"text": "A photo, please."}],
        "utter_ask_note": [{"text": "What shall I note?"}],
    },
}


@dataclass
class Talk:
    """A conversation: slots and log are kept as the store keeps them."""

    dialogue: Dialogue
    slots: dict[str, JsonValue] = field(default_factory=dict)
    history: list[Event] = field(default_factory=list)
    acted: Acted | None = None
    marks: int = 0
    shown: list[str] = field(default_factory=list)
    writes: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)

    async def says(self, text: str, **more: Any) -> str | None:
        """Return what the bot says; None where it is left to knowledge."""
        kind = "command" if text.startswith("/") else "message"
        message = an_event(
            text.removeprefix("/"), more.pop("kind", kind), id=f"{len(self.history)}"
        )
        message = replace(message, **more)
        turn = replace(
            _turn(message), history=tuple(self.history), slots=dict(self.slots)
        )
        watch = Watch(
            acting=self._mark, cancelled=self.cancelled, show=self.shown.append
        )
        doing = self.dialogue.begin(turn, watch)
        await self.dialogue.answer(doing, self._generate)
        self.acted = acted = doing.acted()
        if acted is None:
            return None
        said = [*acted.said, *acted.asks]
        texts = [one.reply.text for one in said if one.reply]
        for name, value in acted.slots.items():
            self.slots[name] = value
            if value is None:
                del self.slots[name]
        record = Record(
            turn=turn,
            outcome="acted",
            reply=Reply(text="\n".join(texts)),
            why=acted.why,
            config="",
            actions=acted.runs,
        )
        answered = Answered(reply=record.reply, record=record)
        self.history += facts([message], answered, NOON)
        return "\n".join(texts)

    async def _mark(self) -> None:
        self.marks += 1

    async def _generate(self, request: GenerationRequest) -> list[Candidate]:
        if self.writes == "fail":
            raise TurnError("no memory")
        return [Candidate(text=self.writes)]


def _turn(message: Event) -> Any:
    from bot.model import Turn  # noqa: PLC0415

    return Turn(id="t1", message=message, seed=1)


def a_talk(**changes: Any) -> Talk:
    shop.SEEN.clear()
    config = ActionsConfig.model_validate({**CONFIG, **changes})
    built, problems = places.load(config, ())
    assert problems == []
    names = places.known_names(config, built)
    parts = Parts(
        config=config,
        runner=Runner(built),
        rules=Rules(config.rules, HashEmbedder().embed),
        responses=Responses(config.responses),
        domain=orjson.dumps(domain_of(config, names)),
    )
    model = ScriptedLanguageModel([])
    return Talk(Dialogue(parts=parts, model=model, persona="You help."))


@pytest.fixture
def talk() -> Talk:
    return a_talk()


def names(acted: Acted | None) -> Sequence[str]:
    assert acted is not None
    return [run.name for run in acted.runs]


# Rules


async def test_what_no_rule_takes_is_left_to_knowledge(talk: Talk) -> None:
    said = await talk.says("How long does a refund take?")

    assert said is None
    assert talk.marks == 0


async def test_a_pattern_runs_an_action_with_the_slots_of_the_same_message(
    talk: Talk,
) -> None:
    said = await talk.says("where is LK-771204?")

    assert said == "Order LK-771204 is on its way."
    assert talk.slots == {"order_number": "LK-771204"}
    assert names(talk.acted) == ["action_extract_slots", "action_status"]
    assert talk.marks == 1


async def test_a_command_runs_an_action(talk: Talk) -> None:
    said = await talk.says("/order LK-771204")

    assert said == "Order LK-771204 is on its way."


async def test_a_message_that_only_fills_a_slot_is_left_to_knowledge(
    talk: Talk,
) -> None:
    await talk.says("It is LK-771204.")

    assert talk.acted is not None
    assert talk.acted.generates
    assert talk.slots == {"order_number": "LK-771204"}


async def test_a_message_that_means_the_same_runs_a_response(talk: Talk) -> None:
    said = await talk.says("when do you open")

    assert said == "At nine."


async def test_a_buttons_payload_fills_slots_and_names_the_intent(talk: Talk) -> None:
    said = await talk.says('/greet{"size": "small"}')

    assert said == "Hello small!"


async def test_a_typed_payload_fills_no_slot_that_only_actions_fill(
    talk: Talk,
) -> None:
    await talk.says('/greet{"secret": "admin", "size": "small"}')

    assert talk.slots == {"size": "small"}


async def test_a_typed_payload_is_held_to_the_slots_pattern(talk: Talk) -> None:
    said = await talk.says('/start_return{"order_number": "[free](http://evil)"}')

    assert said == "Which order?"
    assert "order_number" not in talk.slots


async def test_a_reminder_that_came_due_runs_what_its_rule_says(talk: Talk) -> None:
    said = await talk.says("", kind="intent", data={"intent": "greet", "entities": []})

    assert said == "Hello !"


async def test_a_button_without_a_rule_is_a_problem(talk: Talk) -> None:
    await talk.says("/nobody{}")

    assert talk.acted is not None
    assert "no rule runs anything for the intent 'nobody'" in talk.acted.problem


async def test_a_reminder_without_a_rule_says_nothing_to_a_customer(
    talk: Talk,
) -> None:
    said = await talk.says("", kind="intent", data={"intent": "nobody"})

    assert said == ""
    assert talk.acted is not None
    assert talk.acted.problem == ""
    assert "no rule runs anything for the intent 'nobody'" in talk.acted.problems[0]


def test_commands_are_known_by_their_rules_and_in_a_form_by_their_payload(
    talk: Talk,
) -> None:
    def takes(text: str, **slots: JsonValue) -> bool:
        turn = replace(_turn(an_event(text, "command")), slots=slots)
        return talk.dialogue.takes(turn)

    form: JsonValue = {"name": "return_form"}

    assert takes("order 7")
    assert takes('greet{"size": "small"}')
    assert not takes("oder 7")
    assert not takes("affirm")
    assert takes("affirm", **{"chorus:active_loop": form})
    assert set(talk.dialogue.commands()) == {"order", "return", "note"}


async def test_an_action_reads_the_conversation_as_rasa_tells_it(talk: Talk) -> None:
    await talk.says("/order LK-771204")

    await talk.says("where is it")

    (_, tracker) = shop.SEEN
    kinds = [event["event"] for event in tracker["events"]]
    assert kinds == [
        "user", "action", "slot", "action", "bot", "user",
    ]  # fmt: skip
    assert tracker["latest_message"]["text"] == "where is it"
    assert tracker["slots"]["order_number"] == "LK-771204"
    assert tracker["active_loop"] == {}


# Events


async def test_an_action_is_followed_by_the_one_it_names(talk: Talk) -> None:
    said = await talk.says("do followup")

    assert said == "done: followup\nOrder None is on its way."
    assert shop.SEEN[-1]["slots"]["size"] == "small"
    assert shop.SEEN[-1]["latest_action_name"] == "action_says"


async def test_actions_that_call_each_other_in_a_circle_are_stopped(
    talk: Talk,
) -> None:
    await talk.says("do circle")

    assert talk.acted is not None
    assert len(talk.acted.runs) == 10
    assert "10 actions ran already" in talk.acted.problem


async def test_a_restart_forgets_slots_and_what_was_said_before(talk: Talk) -> None:
    await talk.says("/order LK-771204")

    await talk.says("do restart")
    await talk.says("where is it")

    assert talk.slots == {}
    assert shop.SEEN[-1]["slots"]["order_number"] is None


async def test_an_action_may_leave_the_answer_to_knowledge(talk: Talk) -> None:
    await talk.says("do generate")

    assert talk.acted is not None
    assert talk.acted.generates
    assert [one.reply.text for one in talk.acted.said if one.reply] == [
        "done: generate"
    ]


# What goes wrong


@pytest.mark.parametrize(
    ("wants", "told"),
    [
        ("crash", "KeyError"),
        ("reject", "rejected"),
        ("missing", "did you mean"),
        ("nowhere", "'utter_nowhere'"),
    ],
)
async def test_a_failing_action_is_a_problem_and_not_silence(
    talk: Talk, wants: str, told: str
) -> None:
    await talk.says(f"do {wants}")

    assert talk.acted is not None
    found = [talk.acted.problem, *talk.acted.problems]
    assert any(told in problem for problem in found)


async def test_a_stopped_turn_keeps_what_was_done(talk: Talk) -> None:
    talk.cancelled.set()

    with pytest.raises(TurnCancelled):
        await talk.says("where is LK-771204")


# Forms


async def test_a_form_asks_takes_and_submits(talk: Talk) -> None:
    assert await talk.says("/return") == "Which order?"
    assert await talk.says("it is LK-771204") == "Why?"
    assert talk.acted is not None
    assert [
        b.text for one in talk.acted.asks if one.reply for b in one.reply.buttons
    ] == ["Damaged"]

    said = await talk.says("too big")

    assert said == "Your return: LK-771204, too big."
    assert talk.slots == {}


async def test_a_form_asks_again_for_what_its_validation_refuses(talk: Talk) -> None:
    await talk.says("/return")

    said = await talk.says("LK-000000")

    assert said == "There is no such order.\nWhich order?"
    assert "order_number" not in talk.slots


async def test_a_form_asks_for_what_its_validation_adds(talk: Talk) -> None:
    await talk.says("/return")
    await talk.says("LK-771204")

    assert await talk.says("damaged") == "A photo, please."
    said = await talk.says("here it is")

    assert said == "A fine photo.\nYour return: LK-771204, damaged."


async def test_a_form_begins_with_what_is_known(talk: Talk) -> None:
    await talk.says("/order LK-771204")

    assert await talk.says('/start_return{"reason": "too big"}') == (
        "Your return: LK-771204, too big."
    )


async def test_a_form_can_be_left_and_goes_on_where_it_was(talk: Talk) -> None:
    await talk.says("/return")
    await talk.says("LK-771204")

    left = await talk.says("Never mind!")
    outside = await talk.says("How long does a refund take?")
    again = await talk.says("/return")

    assert left is not None
    assert left.startswith("All right")
    assert outside is None
    assert again == "Why?"


async def test_a_question_in_a_form_is_answered_and_the_form_asks_again(
    talk: Talk,
) -> None:
    await talk.says("/note")

    said = await talk.says("How long does a refund take?")

    assert talk.acted is not None
    assert talk.acted.generates
    assert said == "What shall I note?"
    assert "note" not in talk.slots


async def test_another_rules_message_in_a_form_is_answered_first(talk: Talk) -> None:
    await talk.says("/return")

    said = await talk.says("hello")

    assert said == "Hello !\nWhich order?"


async def test_a_form_that_is_put_aside_for_another_one_goes_on_after_it(
    talk: Talk,
) -> None:
    await talk.says("/return")
    await talk.says("LK-771204")

    assert await talk.says("/note") == "What shall I note?"
    said = await talk.says("the frame is bent")

    assert said == "Why?"
    assert await talk.says("too big") == "Your return: LK-771204, too big."
    assert await talk.says("How long does a refund take?") is None


async def test_a_form_that_is_left_inside_another_one_leads_back_to_it(
    talk: Talk,
) -> None:
    await talk.says("/return")
    await talk.says("/note")

    said = await talk.says("never mind")

    assert said is not None
    assert said.endswith("\nWhich order?")


async def test_what_is_no_answer_is_asked_for_again(talk: Talk) -> None:
    await talk.says("/return")

    said = await talk.says("I have it somewhere")

    assert said == "Which order?"
    assert talk.acted is not None
    assert not talk.acted.generates


async def test_a_validation_that_rejects_leaves_the_message_to_others(
    talk: Talk,
) -> None:
    await talk.says("/return")

    said = await talk.says("LK-999999, is it there?")

    assert said == "Which order?"
    assert talk.acted is not None
    assert (talk.acted.generates, talk.acted.problem) == (True, "")


async def test_an_action_can_open_a_form(talk: Talk) -> None:
    said = await talk.says("do form")

    assert said == "done: form\nWhich order?"


async def test_a_form_that_is_gone_from_the_configuration_is_left(talk: Talk) -> None:
    talk.slots["chorus:active_loop"] = {"name": "old_form"}

    assert await talk.says("How long does a refund take?") is None


async def test_a_response_that_has_no_words_here_is_a_problem() -> None:
    elsewhere = {"utter_hello": [{"text": "Hello!", "channel": "slack"}]}
    talk = a_talk(responses={**CONFIG["responses"], **elsewhere})

    await talk.says("hello")

    assert talk.acted is not None
    assert "utter_hello` has no wording for 'memory'" in talk.acted.problem


async def test_a_restart_says_what_rasa_would_say() -> None:
    rules = [*CONFIG["rules"], {"run": "action_restart", "command": "restart"}]
    responses = {**CONFIG["responses"], "utter_restart": [{"text": "From the start."}]}
    talk = a_talk(rules=rules, responses=responses)

    assert await talk.says("/restart") == "From the start."


async def test_a_slot_without_a_question_is_the_operators_to_mend() -> None:
    responses = {
        name: wordings
        for name, wordings in CONFIG["responses"].items()
        if name != "utter_ask_note"
    }
    talk = a_talk(responses=responses)

    await talk.says("/note")

    assert talk.acted is not None
    assert "nothing asks for the slot 'note'" in talk.acted.problem


async def test_slots_that_any_message_fills_are_validated_by_rasas_action() -> None:
    sources = [*CONFIG["sources"], {"use": "tests.actions.shop:ValidateSlots"}]
    talk = a_talk(sources=sources)

    await talk.says('/greet{"size": "small"}')

    assert talk.slots == {"size": "SMALL"}


# The model's choice

TOOLS = {"action_status": {"description": "where an order is", "slots": ["size"]}}
CALL = (
    '<tool_call>{"name": "action_status", "arguments": {"size": "small"}}</tool_call>'
)


async def test_the_model_may_call_an_action() -> None:
    talk = a_talk(by_model=True, tools=TOOLS)
    talk.writes = CALL

    said = await talk.says("Has it left you?")

    assert said == "Order None is on its way."
    assert talk.slots == {"size": "small"}


async def test_a_call_of_what_was_not_offered_is_told_and_left_to_knowledge() -> None:
    talk = a_talk(by_model=True, tools=TOOLS)
    talk.writes = CALL.replace("action_status", "action_submit_return")

    await talk.says("Has it left you?")

    assert talk.acted is not None
    assert talk.acted.generates
    assert "action_submit_return" in talk.acted.problems[0]
    assert shop.SEEN == []


async def test_a_model_that_calls_nothing_or_fails_leaves_it_to_knowledge() -> None:
    talk = a_talk(by_model=True, tools=TOOLS)
    talk.writes = "NONE"

    assert await talk.says("Has it left you?") is None
    talk.writes = "fail"
    assert not await talk.says("Has it left you?")

"""What a conversation's log keeps of a turn, and by which ids."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
import rasa_sdk.events
from pydantic import JsonValue

from bot.conversation.commands import Answered
from bot.conversation.facts import facts
from bot.conversation.state import EVENTS
from bot.model import ActionRun, Citation, Event, EventKind, Outcome, Record, Reply
from bot.testing.makers import a_turn, an_address, an_event
from tests import real_actions

LATER = datetime(2026, 1, 1, 12, 1, tzinfo=UTC)
ASKED = an_event("where?", address=an_address(user="u1"))


def the_facts(
    *runs: ActionRun,
    reply: str = "There.",
    messages: tuple[Event, ...] = (ASKED,),
    outcome: Outcome = "acted",
) -> list[Event]:
    record = Record(
        turn=a_turn(message=messages[0]),
        outcome=outcome,
        reply=Reply(text=reply, citations=[Citation(source="a.md", passage="p1")]),
        why="",
        config="",
        actions=runs,
    )
    return facts(messages, Answered(reply=record.reply, record=record), LATER)


def a_run(name: str, *events: dict[str, Any]) -> ActionRun:
    return ActionRun(name=name, trigger="", events=events)


def test_a_turn_without_a_record_leaves_no_trace() -> None:
    assert facts([ASKED], Answered(reply=Reply(text="hello")), LATER) == []


def test_message_actions_and_reply_are_in_order_of_what_happened() -> None:
    slot = rasa_sdk.events.SlotSet("size", "small")

    found = the_facts(a_run("first", slot), a_run("second"), reply="There.")

    assert [(event.kind, event.data.get("name")) for event in found] == [
        ("message", None),
        ("action", "first"),
        ("slot", "size"),
        ("action", "second"),
        ("reply", None),
    ]
    assert found[0] == ASKED
    assert found[2].data == {"turn": "t1", "name": "size", "value": "small"}


def test_all_messages_that_were_answered_together_come_first() -> None:
    other = an_event("and when?")

    found = the_facts(a_run("first"), messages=(ASKED, other))

    assert found[:2] == [ASKED, other]
    assert found[2].kind == "action"


def test_the_reply_is_the_bots_and_says_where_it_comes_from() -> None:
    *_, reply = the_facts()

    assert (reply.text, reply.address.user) == ("There.", None)
    assert reply.address.key == ASKED.address.key
    assert reply.time == LATER
    assert reply.data == {
        "turn": "t1",
        "outcome": "acted",
        "citations": [{"source": "a.md", "passage": "p1"}],
        "images": [],
    }


def test_a_turn_that_says_nothing_has_no_reply_in_the_log() -> None:
    found = the_facts(a_run("first"), reply="")

    assert [event.kind for event in found] == ["message", "action"]


def test_ids_are_different_and_the_same_however_often_the_turn_is_answered() -> None:
    runs = [a_run("a", {"event": "restart"}), a_run("a", {"event": "restart"})]

    first, second = the_facts(*runs), the_facts(*runs)

    assert [event.id for event in first] == [event.id for event in second]
    assert len({event.id for event in first}) == len(first)


def test_every_kind_of_rasa_sdk_is_kept_under_a_name_of_ours() -> None:
    known = {
        "user": "message",
        "bot": "reply",
        **{kind: kind for kind in get_args(EventKind)},
    }

    *returned, unknown = real_actions.EVENTS["everything"]
    found = the_facts(a_run("all", *returned, unknown), reply="")

    assert [event.kind for event in found[2:]] == [
        known[one["event"]] for one in returned
    ]
    assert unknown["event"] not in known


def test_what_a_person_said_is_the_events_text() -> None:
    agent = rasa_sdk.events.AgentUttered("I am Anna.", data={"team": "a"})

    *_, found = the_facts(a_run("a", agent), reply="")

    assert found.text == "I am Anna."
    assert found.data == {"turn": "t1", "data": {"team": "a"}}


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event": None},
        {"event": "of_the_future"},
        {"event": ["slot"]},
        {"event": "Slot"},
    ],
)
def test_an_event_that_nobody_knows_is_left_out(event: dict[str, Any]) -> None:
    found = the_facts(a_run("a", event, {"event": "pause"}), reply="")

    assert [one.kind for one in found] == ["message", "action", "pause"]


@pytest.mark.parametrize("text", [7, None, ["a"], {"a": 1}])
def test_a_text_that_is_none_is_left_out(text: JsonValue) -> None:
    *_, found = the_facts(a_run("a", {"event": "user", "text": text}), reply="")

    assert found.text == ""
    assert "text" not in found.data


def test_an_action_cannot_say_which_turn_it_was() -> None:
    lying = {"event": "slot", "name": "a", "value": 1, "turn": "another"}

    *_, found = the_facts(a_run("a", lying), reply="")

    assert found.data["turn"] == "t1"


def test_everything_that_rasa_sdk_returns_can_be_kept_and_read() -> None:
    found = the_facts(a_run("all", *real_actions.EVENTS["everything"]))

    read = [EVENTS.read(EVENTS.write(event)) for event in found]

    assert [event.kind for event in read] == [event.kind for event in found]
    assert json.loads(EVENTS.write(found[-1]))["text"] == "There."

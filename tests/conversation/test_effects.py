"""What the events of a turn's actions do to its conversation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rasa_sdk.events import (
    ConversationPaused,
    ConversationResumed,
    ReminderCancelled,
    ReminderScheduled,
    SlotSet,
)

from bot.conversation import effects
from bot.conversation.state import Cancel
from bot.model import ActionRun, Record, Reply
from bot.testing.makers import NOON, a_turn, an_address, an_event

PAST = datetime(2020, 1, 1, 9, 30, tzinfo=UTC)
PAUSE, RESUME = ConversationPaused(), ConversationResumed()


def a_record(*runs: list[dict[str, Any]]) -> Record:
    """Make the record of a turn with an action for each list of events."""
    return Record(
        turn=a_turn(),
        outcome="acted",
        reply=Reply(text=""),
        why="",
        config="",
        problems=("as before",),
        actions=[ActionRun(name="a", trigger="", events=events) for events in runs],
    )


def tea(name: str = "tea", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = ReminderScheduled("EXTERNAL_tea", PAST, name=name)
    return {**made, **more}


@pytest.mark.parametrize(
    ("runs", "paused"),
    [
        ([], None),
        ([[SlotSet("a", 1)]], None),
        ([[PAUSE]], True),
        ([[RESUME]], False),
        ([[PAUSE, RESUME]], False),
        ([[RESUME], [PAUSE]], True),
        ([[PAUSE], []], True),
        ([[{"event": ["pause"]}, {}]], None),
    ],
)
def test_the_last_word_says_whether_the_bot_is_paused(
    runs: list[list[dict[str, Any]]], paused: bool | None
) -> None:
    assert effects.paused(a_record(*runs)) is paused


def test_without_a_record_nothing_becomes_of_reminders() -> None:
    assert effects.reminding(None, NOON) == effects.Reminding()


def test_reminders_of_all_actions_are_set_for_the_turns_conversation() -> None:
    found = effects.reminding(
        a_record([tea("one")], [SlotSet("a", 1), tea("two")]), NOON
    )

    assert [one.name for one in found.reminders] == ["one", "two"]
    assert {one.address for one in found.reminders} == {an_address()}
    assert {one.set_by for one in found.reminders} == {"t1"}
    assert {one.due for one in found.reminders} == {PAST}
    assert found.problems == ()


def test_of_reminders_with_the_same_name_the_last_is_set() -> None:
    found = effects.reminding(a_record([tea(intent="first"), tea(intent="last")]), NOON)

    assert [one.intent for one in found.reminders] == ["last"]


def test_a_cancel_takes_back_what_was_set_before_it_and_not_after_it() -> None:
    record = a_record([tea("one"), tea("two")], [ReminderCancelled(name="one")])
    after = a_record([ReminderCancelled(name="tea"), tea("tea")])

    before = effects.reminding(record, NOON)

    assert [one.name for one in before.reminders] == ["two"]
    assert before.cancels == (Cancel(name="one"),)
    assert [one.name for one in effects.reminding(after, NOON).reminders] == ["tea"]


def test_a_cancel_without_anything_takes_back_all() -> None:
    found = effects.reminding(
        a_record([tea("one"), tea("two"), ReminderCancelled()]), NOON
    )

    assert found.reminders == ()
    assert found.cancels == (Cancel(),)


def test_what_is_neither_is_told_behind_the_other_problems() -> None:
    record = a_record(
        [tea(date_time="soon"), tea("good"), ReminderCancelled(name=7)],
        [{"event": "reminder"}],
    )

    found = effects.reminding(record, NOON)
    told = effects.with_problems(record, found)

    assert [one.name for one in found.reminders] == ["good"]
    assert found.cancels == ()
    assert len(found.problems) == 3
    assert told.problems == ("as before", *found.problems)
    assert told.actions == record.actions


def test_what_a_reminders_own_turn_sets_is_due_in_a_minute_at_the_earliest() -> None:
    record = a_record([tea()])
    came_due = an_event("", "intent", data={"intent": "EXTERNAL_tea"})
    again = replace(record, turn=replace(record.turn, message=came_due))

    (asked,) = effects.reminding(record, NOON).reminders
    (chained,) = effects.reminding(again, NOON).reminders

    assert asked.due == PAST
    assert chained.due == NOON + effects.PAUSE

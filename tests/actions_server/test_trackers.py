"""From Rasa's tracker to our turn."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from bot.actions_server.trackers import MOST, turn_of
from bot.model import Turn
from tests.actions_server.rasa import CONFIG, a_tracker, bot, user


def turn(**tracker: Any) -> Turn:
    return turn_of(a_tracker(**tracker), "ann", CONFIG.conversation)


def said_before(*events: object) -> list[str]:
    found = turn(events=[*events, user("now")])
    return [one.text for one in found.history]


@pytest.mark.parametrize("anew", ["restart", "session_started", "session_ended"])
def test_history_begins_where_the_conversation_began_anew(anew: str) -> None:
    said = said_before(user("old"), bot("old"), {"event": anew}, user("new"))

    assert said == ["new"]


def test_what_was_taken_back_is_not_in_the_history() -> None:
    said = said_before(user("a"), bot("b"), user("c"), bot("d"), {"event": "rewind"})

    assert said == ["a", "b"]


def test_an_undone_action_takes_its_words_with_it() -> None:
    action = {"event": "action", "name": "utter_b"}

    assert said_before(user("a"), action, bot("b"), {"event": "undo"}) == ["a"]


def test_history_is_a_window_on_the_latest_words() -> None:
    assert said_before(*map(user, "abcdef")) == ["c", "d", "e", "f"]


def test_long_words_of_the_history_are_cut() -> None:
    [text] = said_before(user("x" * 1000))

    assert len(text) == CONFIG.conversation.max_message_characters


def test_what_the_bot_said_after_the_message_is_no_history() -> None:
    found = turn(events=[user("a"), bot("b"), user("now"), bot("Let me look")])

    assert [one.text for one in found.history] == ["a", "b"]


def test_events_without_an_end_are_not_all_looked_at() -> None:
    hostile = [{"event": "action"}, {"event": "rewind"}] * 200_000

    found = turn(events=[*hostile, user("now")])

    assert len(hostile) > 100 * MOST
    assert found.question == "How long?"


def test_slots_that_were_never_set_are_not_there() -> None:
    assert turn(slots={"size": None, "order": "A-1", "n": 0}).slots == {
        "order": "A-1",
        "n": 0,
    }


def test_the_message_has_the_time_that_rasa_gave_it() -> None:
    found = turn(events=[user("now", timestamp=86_400.0)])

    assert found.message.time == datetime(1970, 1, 2, tzinfo=UTC)


def test_the_same_message_is_the_same_turn_whatever_came_since() -> None:
    once = turn()
    again = turn(events=[user("How long?"), bot("Five days.")], slots={"size": "l"})

    assert (once.id, once.seed) == (again.id, again.seed)


def test_a_message_without_an_id_is_told_apart_by_its_time() -> None:
    without = {"text": "yes", "message_id": None}
    first = turn(latest_message=without, events=[user("yes", timestamp=1.0)])
    second = turn(latest_message=without, events=[user("yes", timestamp=2.0)])

    assert first.id != second.id


def test_conversations_do_not_share_turns() -> None:
    tracker = a_tracker()

    ann = turn_of(tracker, "ann", CONFIG.conversation)
    bob = turn_of(tracker, "bob", CONFIG.conversation)

    assert ann.id != bob.id
    assert ann.message.address.key != bob.message.address.key


def test_a_hostile_sender_names_no_other_conversation() -> None:
    hostile = turn_of(a_tracker(), "a:b%3A\n🙂", CONFIG.conversation)

    assert hostile.message.address.key.count(":") == 2


def test_control_characters_are_not_passed_on() -> None:
    assert turn(latest_message={"text": "how\x00 long\x1b?"}).question == "how long?"


def test_a_turn_is_one_that_a_store_could_keep() -> None:
    found = turn(events=[user("x", timestamp=float(10**300)), user("y")])

    assert json.dumps(found.message.text)
    assert 0 <= found.seed < 2**63

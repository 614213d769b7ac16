from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.conversation.state import EVENTS, RECORDS, SLOTS, Unwritable, turn_id
from bot.errors import StoreError
from bot.model import ActionRun, Button, Citation, Record, Reply
from bot.testing.makers import a_candidate, a_turn, an_address, an_event

valid_text = st.text(st.characters(exclude_categories=["Cs"]))


@given(text=valid_text, chat=valid_text, name=valid_text)
def test_an_event_is_read_as_it_was_written_however_hostile(
    text: str, chat: str, name: str
) -> None:
    event = an_event(text, address=an_address(chat), data={name: [text, None, 1.5]})

    read = EVENTS.read(EVENTS.write(event))

    assert read == event


def test_a_record_is_read_as_it_was_written_infinities_included() -> None:
    record = Record(
        turn=replace(a_turn(passages=["a"]), history=[an_event()], passages=[]),
        outcome="answered",
        reply=Reply(
            text='"}\n',
            citations=[Citation(source="s", passage="p", url="https://x")],
            buttons=[Button(text="b", payload="/why")],
            feedback=True,
            images=["https://x/bike.png"],
            custom=[{"blocks": []}],
        ),
        why="best",
        config="c",
        candidates=[a_candidate(log_probs=[-math.inf], tokens=[1], citations=[])],
        orders={"mmr": [0]},
        problems=[],
        actions=[
            ActionRun(name="a", trigger="b", events=[{"event": "restart"}], said=["c"])
        ],
        slots={"size": None},
    )

    read = RECORDS.read(RECORDS.write(record))

    assert read == replace(record, candidates=read.candidates)
    assert read.candidates[0].log_probs == [-math.inf]


def test_a_slot_is_kept_as_plain_json() -> None:
    written = SLOTS.write({"ids": [1, None]})

    assert written == b'{"ids":[1,null]}'


def test_half_a_character_is_refused_and_not_repeated() -> None:
    with pytest.raises(Unwritable, match="cannot be written as JSON"):
        EVENTS.write(an_event("secret \ud800"))


def test_an_object_that_is_no_json_is_refused() -> None:
    with pytest.raises(Unwritable):
        SLOTS.write(object())  # type: ignore[arg-type]  # the point


def test_an_entry_of_another_version_says_what_to_do_without_showing_it() -> None:
    with pytest.raises(StoreError, match="another version") as raised:
        EVENTS.read(b'{"id": "secret"}')

    assert "secret" not in str(raised.value)


def test_a_turn_has_the_same_id_whenever_it_is_asked_for() -> None:
    first, second = turn_id(an_event()), turn_id(an_event())

    assert first == second
    assert len(first) == 16


def test_the_same_event_id_in_two_conversations_makes_two_turns() -> None:
    here = an_event(address=an_address("a", thread="b"))
    there = an_event(address=an_address("a:b"))

    assert turn_id(here) != turn_id(there)

"""What a conversation's events add up to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import JsonValue

from bot.actions.state import LOOP, DialogueState, applied, begun, changes, what_counts
from bot.model import Event, EventKind
from bot.testing.makers import an_event

INITIAL: dict[str, JsonValue] = {"size": "small"}


def after(state: DialogueState, *events: dict[str, JsonValue]) -> DialogueState:
    return applied(state, events, INITIAL)


def logged(*kinds: EventKind) -> list[Event]:
    return [
        an_event(f"{number}", kind, id=f"{number}", time=datetime.now(UTC))
        for number, kind in enumerate(kinds)
    ]


def test_a_slot_is_set_and_cleared() -> None:
    state = begun({"size": "large"}, (), {})

    state = after(state, {"event": "slot", "name": "size", "value": None})

    assert changes({"size": "large"}, state, {}) == {"size": None}


def test_only_what_changed_is_kept_anew() -> None:
    kept: dict[str, JsonValue] = {"size": "large", "city": "Cork"}

    state = after(begun(kept, (), {}), {"event": "slot", "name": "size", "value": 7})

    assert changes(kept, state, {}) == {"size": 7}


def test_an_open_form_is_kept_beside_the_slots_and_not_shown_as_one() -> None:
    state = after(begun({}, (), {}), {"event": "active_loop", "name": "return_form"})

    kept = changes({}, state, {})

    assert kept == {
        LOOP: {"name": "return_form", "suspended": [], "interrupted": False}
    }
    assert begun(kept, (), {}) == DialogueState(loop="return_form")


def test_closing_a_form_takes_back_what_it_asked_for() -> None:
    state = after(
        begun({}, (), {}),
        {"event": "active_loop", "name": "return_form"},
        {"event": "slot", "name": "requested_slot", "value": "reason"},
        {"event": "active_loop", "name": None},
    )

    assert (state.loop, state.requested) == (None, None)


@pytest.mark.parametrize("kind", ["restart", "session_started", "session_ended"])
def test_a_new_beginning_leaves_the_first_values_and_no_form(kind: str) -> None:
    state = after(
        begun({"city": "Cork"}, (), {}),
        {"event": "active_loop", "name": "return_form"},
        {"event": kind},
    )

    assert state.slots == INITIAL
    assert state.loop is None


def test_resetting_slots_leaves_the_form_open() -> None:
    state = after(
        begun({"city": "Cork"}, (), {}),
        {"event": "active_loop", "name": "return_form"},
        {"event": "reset_slots"},
    )

    assert state.slots == INITIAL
    assert state.loop == "return_form"


def test_no_action_can_set_what_keeps_the_open_form() -> None:
    state = after(
        begun({}, (), {}), {"event": "slot", "name": LOOP, "value": {"name": "x"}}
    )

    assert changes({}, state, {}) == {}


@pytest.mark.parametrize("value", [None, "form", {"name": 7}, {}])
def test_what_was_kept_of_a_form_and_is_none_opens_none(value: JsonValue) -> None:
    assert begun({LOOP: value}, (), {}).loop is None


def test_what_stood_before_a_restart_counts_no_more() -> None:
    log = logged("message", "reply", "restart", "message")

    assert [event.id for event in what_counts(log)] == ["3"]


def test_a_rewind_takes_back_the_last_message_and_what_came_of_it() -> None:
    log = logged("message", "reply", "message", "action", "slot", "rewind", "reply")

    assert [event.id for event in what_counts(log)] == ["0", "1", "6"]


def test_an_undo_takes_back_the_last_action_and_what_came_of_it() -> None:
    log = logged("message", "action", "action", "slot", "undo")

    assert [event.id for event in what_counts(log)] == ["0", "1"]


def test_a_rewind_with_nothing_before_it_takes_back_nothing() -> None:
    log = logged("rewind", "message")

    assert [event.id for event in what_counts(log)] == ["1"]


def test_a_first_value_that_was_cleared_stays_cleared() -> None:
    new = begun({}, (), INITIAL)
    kept = changes({}, new, INITIAL)
    cleared = after(
        begun(kept, (), INITIAL), {"event": "slot", "name": "size", "value": None}
    )

    changed = changes(kept, cleared, INITIAL)

    left = {name: value for name, value in kept.items() if name not in changed}
    assert new.slots == INITIAL
    assert changed == {"size": None}
    assert begun(left, (), INITIAL).slots == {}


def test_a_form_that_is_opened_in_another_one_puts_it_aside() -> None:
    state = after(
        begun({}, (), {}),
        {"event": "active_loop", "name": "return_form"},
        {"event": "active_loop", "name": "order_form"},
    )

    kept = begun(changes({}, state, {}), (), {})
    closed = after(kept, {"event": "active_loop", "name": None})

    assert (kept.loop, kept.suspended) == ("order_form", ("return_form",))
    assert (closed.loop, closed.suspended) == (None, ("return_form",))


def test_a_form_that_is_opened_again_is_not_aside_any_more() -> None:
    state = after(
        begun({}, (), {}),
        {"event": "active_loop", "name": "a"},
        {"event": "active_loop", "name": "b"},
        {"event": "active_loop", "name": "a"},
    )

    assert (state.loop, state.suspended) == ("a", ("b",))


def test_many_events_cost_what_they_are_many() -> None:
    events: list[dict[str, JsonValue]] = [
        {"event": "slot", "name": f"s{n}", "value": n} for n in range(50_000)
    ]

    state = after(begun({}, (), {}), *events)

    assert len(state.slots) == 50_000

"""
What a conversation's events add up to: slots, the open form, what still counts.

Pure functions. An open form is kept among the slots, under a name that no slot has,
so that it is kept, expires and is erased with them. Events mean what they mean in Rasa
3.6 (rasa/shared/core/events.py), with two exceptions: a session that ended is followed
by a new one as soon as the customer writes again, and what is taken back (`rewind`,
`undo`) leaves the slots as they are, because the log of before may be gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from bot.actions.calls import JsonObject
from bot.model import Event

# No slot's name has a colon.
LOOP = "chorus:active_loop"
BEGUN = "chorus:begun"  # that the first values were set; what is cleared since, is gone
REQUESTED = "requested_slot"  # Rasa's own name: actions set it
STARTS_ANEW = frozenset({"restart", "session_started", "session_ended"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogueState:
    """
    The slots by name (what was never set is not there), the form that is open, those
    that were put aside for it, and the events that led to it, oldest first.
    """

    slots: Mapping[str, JsonValue] = field(default_factory=dict)
    loop: str | None = None
    suspended: Sequence[str] = ()
    interrupted: bool = False
    events: Sequence[JsonObject] = ()

    @property
    def requested(self) -> str | None:
        """The slot that the open form asks for."""
        slot = self.slots.get(REQUESTED)
        return slot if isinstance(slot, str) else None


def begun(
    kept: Mapping[str, JsonValue],
    events: Sequence[JsonObject],
    initial: Mapping[str, JsonValue],
) -> DialogueState:
    """
    Return the state of a turn that begins with the slots that were kept; in a new
    conversation, with their first values.
    """
    loop = kept.get(LOOP)
    own = {name: value for name, value in kept.items() if name not in {LOOP, BEGUN}}
    slots = own if BEGUN in kept else {**initial, **own}
    kept_loop = loop if isinstance(loop, dict) else {}
    name, aside = kept_loop.get("name"), kept_loop.get("suspended")
    return DialogueState(
        slots=slots,
        loop=name if isinstance(name, str) else None,
        suspended=tuple(map(str, aside)) if isinstance(aside, list) else (),
        interrupted=kept_loop.get("interrupted") is True,
        events=events,
    )


def applied(
    state: DialogueState,
    events: Sequence[JsonObject],
    initial: Mapping[str, JsonValue],
) -> DialogueState:
    """Return the state after more events; `initial` are the slots' first values."""
    slots = dict(state.slots)
    loops, interrupted = [*state.suspended, state.loop], state.interrupted
    for event in events:
        name = event.get("name")
        match event.get("event"):
            case "slot" if isinstance(name, str) and name not in {LOOP, BEGUN}:
                slots[name] = event.get("value")
            case "reset_slots":
                slots = dict(initial)
            case kind if kind in STARTS_ANEW:
                slots, loops, interrupted = dict(initial), [None], False
            case "active_loop":
                loops, interrupted = _with_loop(loops, name), False
                if loops[-1] is None:
                    slots.pop(REQUESTED, None)
            case "loop_interrupted":
                interrupted = bool(event.get("is_interrupted"))
    return replace(
        state,
        slots=slots,
        loop=loops[-1],
        suspended=tuple(loop for loop in loops[:-1] if loop is not None),
        interrupted=interrupted,
        events=(*state.events, *events),
    )


def _with_loop(loops: Sequence[str | None], name: JsonValue) -> list[str | None]:
    """
    Return the forms, the open one last, after one was opened or closed. One that is
    opened in another one puts it aside; it is opened again when that is closed.
    """
    aside = [loop for loop in loops if loop not in {None, name}]
    if isinstance(name, str):
        return [*aside, name]
    return [*loops[:-1], None]


def changes(
    kept: Mapping[str, JsonValue],
    state: DialogueState,
    initial: Mapping[str, JsonValue],
) -> dict[str, JsonValue]:
    """Return what is to be kept otherwise than it was; None clears a slot."""
    after = {name: value for name, value in state.slots.items() if value is not None}
    if state.loop is not None:
        after[LOOP] = {
            "name": state.loop,
            "suspended": list(state.suspended),
            "interrupted": state.interrupted,
        }
    if initial:
        after[BEGUN] = True
    gone: dict[str, JsonValue] = dict.fromkeys(kept.keys() - after.keys())
    return gone | {
        name: value
        for name, value in after.items()
        if name not in kept or kept[name] != value
    }


def what_counts(history: Sequence[Event]) -> list[Event]:
    """
    Return the events that were not taken back: those after the last restart or session,
    without what a `rewind` (the last message and what came of it) or an `undo` (the
    last action and what came of it) took back.
    """
    counting: list[Event] = []
    for event in history:
        match event.kind:
            case kind if kind in STARTS_ANEW:
                counting = []
            case "rewind":
                _take_back(counting, {"message", "command", "intent"})
            case "undo":
                _take_back(counting, {"action"})
            case _:
                counting.append(event)
    return counting


def _take_back(events: list[Event], kinds: set[str]) -> None:
    for place in range(len(events) - 1, -1, -1):
        if events[place].kind in kinds:
            del events[place:]
            return

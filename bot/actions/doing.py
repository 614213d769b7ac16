"""
One turn as actions change it: what ran, what was said, and the state that results.

Each event is applied as it comes, so the next action sees what the last one did. Knows
how a single action, response or followup is done, not what a message calls for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from bot.actions import state, tracker
from bot.actions.calls import ActionCall, JsonObject
from bot.actions.replies import Said, reply_of
from bot.actions.responses import Responses
from bot.actions.rules import Rules, Understood, understood
from bot.actions.runner import Ran, Runner
from bot.actions.state import DialogueState
from bot.actions_config import ActionsConfig
from bot.errors import ActionError
from bot.model import ActionRun, Turn

MOST = 10  # in a turn, as in Rasa: actions may call each other in a circle

# Rasa's own actions, as far as they mean something here.
LISTEN = "action_listen"
GENERATE = "action_generate_reply"
_EVENTS_OF: Mapping[str, Sequence[JsonObject]] = {
    "action_restart": ({"event": "restart"},),
    "action_session_start": ({"event": "session_started"},),
    "action_deactivate_loop": ({"event": "active_loop", "name": None},),
    "action_back": ({"event": "rewind"}, {"event": "rewind"}),
}

CORE = frozenset({LISTEN, GENERATE, *_EVENTS_OF})

Acting = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """
    What actions did for a message. `said` comes first, then, where `generates`, the
    answer from knowledge, then what a form `asks`. `slots` are those that changed, None
    for a cleared one. `problem` says why the turn failed, "" where it did not.
    """

    runs: Sequence[ActionRun]
    slots: Mapping[str, JsonValue]
    said: Sequence[Said]
    asks: Sequence[Said]
    generates: bool
    why: str
    problem: str
    problems: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every turn is done with; `domain` is the assistant's, as JSON."""

    config: ActionsConfig
    runner: Runner
    rules: Rules
    responses: Responses
    domain: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """
    How whoever asked for the answer stops it and sees it grow. `acting` is awaited
    before the first action of a turn runs.
    """

    acting: Acting
    cancelled: threading.Event
    show: Callable[[str], None]


@dataclass(slots=True)
class Doing:
    """`acted` tells how far it has come, also when it was stopped in the middle."""

    parts: Parts
    turn: Turn
    watch: Watch
    customer: Understood = field(init=False)
    state: DialogueState = field(init=False)
    why: str = ""
    problem: str = ""
    generates: bool = False
    runs: list[ActionRun] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    asks: list[Said] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _began: str = ""
    _next: deque[tuple[str, str]] = field(default_factory=deque)
    _rules_used: set[int] = field(default_factory=set)
    _is_marked: bool = False

    def __post_init__(self) -> None:
        self.customer = understood(self.turn.message)
        events = tracker.events_of([*self.turn.history, self.turn.message])
        self.state = state.begun(self.turn.slots, events, self.initial)

    @property
    def initial(self) -> dict[str, JsonValue]:
        """The first values of the slots that have one."""
        slots = self.parts.config.slots.items()
        return {
            name: slot.initial_value
            for name, slot in slots
            if slot.initial_value is not None
        }

    def acted(self) -> Acted | None:
        """Return what was done; None where nothing was, and knowledge may answer."""
        if not (self.runs or self.why or self.problem or self.generates):
            return None
        return Acted(
            runs=tuple(self.runs),
            slots=state.changes(self.turn.slots, self.state, self.initial),
            said=tuple(self.said),
            asks=tuple(self.asks),
            generates=self.generates,
            why=self.why or self._began,
            problem=self.problem,
            problems=tuple(self.problems),
        )

    # What can be done

    @property
    def has_failed(self) -> bool:
        return bool(self.problem)

    @property
    def has_more(self) -> bool:
        """Whether something is in line."""
        return bool(self._next)

    def then(self, name: str, why: str) -> None:
        """Put an action, a form or a response in line."""
        self.why = self.why or why
        self._next.append((name, why))

    async def drain(self, start: StartsForms) -> None:
        """Do what is in line, and what that puts in line."""
        for _ in range(MOST):
            if not self._next or self.problem:
                return
            await self._one(*self._next.popleft(), start)
        if self._next and not self.problem:
            name, _ = self._next[0]
            self.problem = f"{MOST} actions ran already, and {name!r} would be next"

    async def _one(self, name: str, why: str, start: StartsForms) -> None:
        if name == LISTEN:
            self._next.clear()
        elif name == GENERATE:
            self.generates = True
        elif name in _EVENTS_OF:
            self.note(name, why, _EVENTS_OF[name])
            utter = name.replace("action", "utter", 1)
            if self.parts.responses.has(utter):
                self.say(utter, why)
        elif name in self.parts.config.forms:
            await start(self, name, why)
        elif self.parts.responses.has(name):
            self.say(name, why)
        else:
            await self.must(name, why)

    async def has(self, name: str) -> bool:
        """Say whether anybody has an action; ActionError where that is not known."""
        return await self.parts.runner.place_of(name) is not None

    async def may_have(self, name: str) -> bool:
        """
        Say whether anybody has an action that can be done without; a server that does
        not say is a problem to be told, and no reason to fail.
        """
        try:
            return await self.has(name)
        except ActionError as error:
            self.problems.append(str(error))
            return False

    async def act(
        self, name: str, why: str, before: Sequence[JsonObject] = ()
    ) -> str | None:
        """
        Run an action on the state, with the events `before` at its end; apply what it
        did, keep what it said. Return how it failed, None where it did not.
        """
        self._began = self._began or why
        await self._mark()
        # As Rasa does: what is to be checked is in the slots, and last in the events.
        at_hand = state.applied(self.state, before, self.initial)
        call = ActionCall(
            name=name,
            turn=self.turn,
            request=tracker.request(
                name, self.turn, at_hand, self.parts.domain, self.customer
            ),
            arguments=self.customer.arguments,
        )
        ran = await self.parts.runner.run(
            call,
            trigger=why,
            cancelled=self.watch.cancelled,
            stream=self._growing,
        )
        run = ran.run
        if ran.fault is None:
            run = replace(run, said=self._hear(ran))
        self.runs.append(run)
        self._apply(name, run.events)
        if ran.fault is not None and ran.fault != "rejected":
            self.problem = run.problem
        return ran.fault

    async def must(self, name: str, why: str) -> None:
        """Run an action that nobody stands in for: one that rejects fails the turn."""
        if await self.act(name, why) == "rejected":
            self.problem = self.runs[-1].problem

    def note(
        self,
        name: str,
        why: str,
        events: Sequence[JsonObject] = (),
        said: Said | None = None,
    ) -> None:
        """Do what the core does itself, in the name of a form or an action of Rasa."""
        texts = [said.reply.text] if said and said.reply else []
        self.runs.append(
            ActionRun(name=name, trigger=why, events=tuple(events), said=texts)
        )
        self._began = self._began or why
        if said is not None:
            self.said.append(said)
        self._apply(name, events)

    def say(self, name: str, why: str) -> None:
        """Say a response of the configuration; it must have words."""
        said = self.heard([{"response": name}])
        self.note(name, why, (), said)
        if said.reply is None and said.problems:
            self.problem = said.problems[0]

    def heard(self, responses: Sequence[JsonObject]) -> Said:
        """Return what responses come to as a reply, and note what is wrong with it."""
        unset = dict.fromkeys(self.parts.config.slots)
        said = reply_of(
            responses,
            templates=self.parts.responses,
            slots={**unset, **self.state.slots},
            platform=self.turn.message.address.platform,
            seed=self.turn.seed,
        )
        self.problems += said.problems
        return said

    # What comes of it

    def _hear(self, ran: Ran) -> Sequence[str]:
        """Keep what an action said; return it as the customer reads it."""
        whole = ran.answer.reply
        said = Said(reply=whole) if whole else self.heard(ran.answer.responses)
        if said.reply is None:
            if said.problems:  # it said something, and none of it can be sent
                self.problem = said.problems[0]
            return ()
        self.said.append(replace(said, reword=said.reword or ran.reword))
        return (said.reply.text,)

    def _apply(self, name: str, events: Sequence[JsonObject]) -> None:
        action: JsonObject = {"event": "action", "name": name}
        self.state = state.applied(self.state, [action, *events], self.initial)
        for event in events:
            self._call_for(name, event)

    def _call_for(self, name: str, event: JsonObject) -> None:
        """Put in line what an event calls for: another action, a form, slots' rules."""
        called = event.get("name")
        match event.get("event"):
            case "followup" if isinstance(called, str):
                self._next.append((called, f"{name} is followed by it"))
            case "active_loop" if isinstance(called, str) and called != name:
                if called in self.parts.config.forms:
                    self._next.append((called, f"{name} opened it"))
            case "slot" if event.get("value") is not None:
                self._call_for_slot(f"{called}")

    def _call_for_slot(self, slot: str) -> None:
        for number, rule in self.parts.rules.of_slot(slot):
            if number not in self._rules_used:
                self._rules_used.add(number)
                why = f"rule {number}: the slot {slot!r} was filled"
                self._next.append((rule.run, why))

    async def _mark(self) -> None:
        if not self._is_marked:
            await self.watch.acting()
            self._is_marked = True

    def _growing(self, text: str) -> None:
        before = [one.reply.text for one in self.said if one.reply]
        self.watch.show("\n\n".join([*before, text]))


StartsForms = Callable[[Doing, str, str], Awaitable[None]]

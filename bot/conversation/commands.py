"""
What a customer can say with a command that is built in, and what becomes of a turn that
has no answer.

Knows nothing about lanes and delivery. Other commands run actions, which the answerer
knows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from rapidfuzz import process

from bot.config import Config, RepliesConfig
from bot.conversation.patience import Patience
from bot.conversation.state import Forgotten, Handed, Keeper
from bot.conversation.store import Store
from bot.model import Outcome, Record, Reply, Turn

BUILT_IN: Mapping[str, str] = {
    "start": "says hello",
    "why": "explains the last answer",
    "help": "lists what I can do",
    "forget": "erases what I remember of this conversation",
    "human": "asks a person to take over",
    "bot": "ends that, and lets me answer again",
}


class TakesCommands(Protocol):
    """Who answers the commands that are not built in: actions run by them."""

    def commands(self) -> Mapping[str, str]:
        """Return what can be written after a slash, and what each does."""
        ...

    def takes(self, turn: Turn) -> bool:
        """Say whether the command of this turn is for an action."""
        ...


class NoActions:
    """Where there are none."""

    def commands(self) -> Mapping[str, str]:
        return {}

    def takes(self, turn: Turn) -> bool:
        return False


class Stop:
    """The customer's way to stop a turn: `pressed` is set for those who look."""

    def __init__(self) -> None:
        self.pressed = threading.Event()
        self.why = ""

    def press(self, why: str = "") -> None:
        self.why = self.why or why
        self.pressed.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """
    What a turn came to. Without a record it is about the bot, and not logged. When
    `silent`, the customer hears nothing, not even that the bot has stopped working.
    `keeper` is who has the conversation from now on.
    """

    reply: Reply
    record: Record | None = None
    silent: bool = False
    keeper: Keeper = ""

    @property
    def outcome(self) -> Outcome | None:
        return None if self.record is None else self.record.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Answers turns whose message is a command."""

    store: Store
    patience: Patience
    actions: TakesCommands
    explain: Callable[[Record], str]
    config: Config

    def leaves_to_actions(self, turn: Turn) -> bool:
        """Say whether the turn's message is a command that runs an action."""
        name = turn.message.text.strip().partition(" ")[0]
        is_command = turn.message.kind == "command" and name not in BUILT_IN
        return is_command and self.actions.takes(turn)

    async def answer(self, turn: Turn, handed: Handed | None) -> Answered:
        """Do what the command says. `handed`: people were given the conversation."""
        name, _, arguments = turn.message.text.strip().partition(" ")
        match name:
            case "human":
                return self._ask_for_a_person(turn, arguments.strip(), handed)
            case "bot":
                resumed = _about_the_bot(self._replies(turn).resumed)
                return resumed if handed is None else replace(resumed, keeper="bot")
            case _:
                return _about_the_bot(await self._said(turn, name))

    async def _said(self, turn: Turn, name: str) -> str:
        replies = self._replies(turn)
        match name:
            case "start":
                return _with(replies.greeting, name=self.config.name)
            case "why":
                return await self._why(turn)
            case "help":
                return self._help(replies)
            case "forget":
                return await self._forget(turn)
            case _:
                return self._unknown(name, replies)

    async def _why(self, turn: Turn) -> str:
        address = turn.message.address
        record = await self.patience(lambda: self.store.last_record(address))
        if record is None:
            return self._replies(turn).nothing_to_explain
        return self.explain(record)

    def _help(self, replies: RepliesConfig) -> str:
        # Ours first, and as they are.
        known = {**BUILT_IN, **self.actions.commands(), **BUILT_IN}
        told = {**known, **replies.help}
        return "\n".join(f"- `/{name}`: {told[name]}" for name in known if told[name])

    async def _forget(self, turn: Turn) -> str:
        address = turn.message.address
        erased = await self.patience(lambda: self.store.forget_conversation(address))
        return _told(erased, self._replies(turn))

    def _ask_for_a_person(
        self, turn: Turn, why: str, handed: Handed | None
    ) -> Answered:
        reply = Reply(text=self._replies(turn).handed_over)
        if handed and handed.lasts(self.config.conversation.handoff_hours):
            return Answered(reply=reply)
        asked = "the customer asked for a person"
        record = self._record(
            # After the colon, because logs hold nothing of what customers write.
            turn,
            "handed_over",
            reply,
            f"{asked}: {why}" if why else asked,
        )
        return Answered(reply=reply, record=record, keeper="people")

    def _unknown(self, name: str, replies: RepliesConfig) -> str:
        known = [*BUILT_IN, *self.actions.commands()]
        near = [
            f"`/{found}`"
            for found, _, _ in process.extract(name, known, score_cutoff=60, limit=3)
        ]
        told = replies.misspelt_command if near else replies.unknown_command
        return _with(told, command=name[:40], near=", ".join(near))

    def failed(self, turn: Turn, error: Exception) -> Answered:
        """Return the apology, and the record that says why."""
        reply = Reply(text=self._replies(turn).apology)
        record = self._record(turn, "failed", reply, str(error))
        return Answered(reply=reply, record=replace(record, problems=(str(error),)))

    def stopped(self, turn: Turn) -> Answered:
        reply = Reply(text=self._replies(turn).cancelled)
        record = self._record(turn, "cancelled", reply, "the customer stopped it")
        return Answered(reply=reply, record=record)

    def interrupted(self, turn: Turn) -> Answered:
        """Return silence: the newer message is what the customer waits for."""
        reply = Reply(text="")
        record = self._record(turn, "cancelled", reply, "a newer message came")
        return Answered(reply=reply, record=record, silent=True)

    def with_people(self, turn: Turn, handed: Handed) -> Answered:
        """Return silence: people answer here, and the log has what they are asked."""
        reply = Reply(text="")
        why = f"people have this conversation: {handed.why}"
        record = self._record(turn, "handed_over", reply, why)
        return Answered(reply=reply, record=record, keeper="still people")

    def resumed(self, turn: Turn, answered: Answered) -> Answered:
        """Return an answer that says first that people have left the conversation."""
        told = self._replies(turn).resumed
        reply = answered.reply
        if reply.text:
            reply = replace(reply, text=f"{told}\n\n{reply.text}")
        return replace(answered, reply=reply, keeper="bot")

    def _replies(self, turn: Turn) -> RepliesConfig:
        return self.config.replies_for(turn.message.address)

    def _record(self, turn: Turn, outcome: Outcome, reply: Reply, why: str) -> Record:
        return Record(
            turn=turn,
            outcome=outcome,
            reply=reply,
            why=why,
            config=self.config.fingerprint,
        )


def _about_the_bot(text: str) -> Answered:
    return Answered(reply=Reply(text=text))


def _told(erased: Forgotten, replies: RepliesConfig) -> str:
    if not (erased.events or erased.slots or erased.records):
        return replies.nothing_to_forget
    return _with(
        replies.forgotten,
        events=str(erased.events),
        slots=str(erased.slots),
        records=str(erased.records),
    )


def _with(text: str, **parts: str) -> str:
    """Not str.format: a brace in the operator's text must not break it."""
    for name, part in parts.items():
        text = text.replace(f"{{{name}}}", part)
    return text

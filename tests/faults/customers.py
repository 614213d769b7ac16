"""
Customers who ask, and who can tell from the answers whether anything went wrong.

Each keeps a conversation of his own, sends a message when the one before was
acknowledged, and does not wait for its answer. Every third one is a command that counts
up a slot. Knows what an answer proves (`worker_process`), and that a command is not run
again when its worker died: the customer gets the apology then.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.config import ConversationConfig, RepliesConfig
from bot.conversation.state import turn_id
from bot.conversation.store import Store
from bot.model import Address, Event
from bot.testing.makers import an_address, an_event
from tests.faults.platform import Arrived, Platform

COMMANDS = 3  # every so many messages is one
HEARD_S = 60.0
APOLOGY = RepliesConfig().apology


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What an answer says that it was made from."""

    question: str
    number: int
    before: str | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """
    What went wrong, over all acknowledged messages. `turns`: how many there were.
    `apologies`: of those, commands that were not run because a worker died.
    """

    turns: int
    apologies: int
    lost: int
    repeated: int
    out_of_order: int
    wrong_state: int

    @property
    def faults(self) -> tuple[int, int, int, int]:
        return (self.lost, self.repeated, self.out_of_order, self.wrong_state)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            turns=self.turns + other.turns,
            apologies=self.apologies + other.apologies,
            lost=self.lost + other.lost,
            repeated=self.repeated + other.repeated,
            out_of_order=self.out_of_order + other.out_of_order,
            wrong_state=self.wrong_state + other.wrong_state,
        )

    def __str__(self) -> str:
        return (
            f"turns {self.turns}: lost {self.lost}, repeated {self.repeated}, "
            f"out of order {self.out_of_order}, wrong state {self.wrong_state} "
            f"(commands set aside {self.apologies})"
        )


NOTHING = Tally(turns=0, apologies=0, lost=0, repeated=0, out_of_order=0, wrong_state=0)


@dataclass(slots=True, kw_only=True)
class Conversation:
    """One customer's. `acknowledged` are his messages that the bot has taken."""

    address: Address
    commands: bool
    acknowledged: list[Event] = field(default_factory=list)

    @property
    def asked(self) -> list[str]:
        return [event.text for event in self.acknowledged]

    def next_event(self, data: Mapping[str, Any]) -> Event:
        number = len(self.acknowledged) + 1
        if number % COMMANDS or not self.commands:
            text = f"question {number} of {self.address.chat}"
            return an_event(text, address=self.address, data=data)
        text = f"count {number} of {self.address.chat}"
        return an_event(text, "command", address=self.address, data=data)


def proof(reply: str) -> Proof | None:
    """Return what a reply proves: nothing, if it is the apology."""
    return Proof(**json.loads(reply)) if reply.startswith("{") else None


class Customers:
    """
    The customers of a platform; `chats` is what theirs are called, and a number.
    Without `commands` each of their messages is a question.
    """

    def __init__(
        self, platform: Platform, chats: str = "chat", *, commands: bool = True
    ) -> None:
        self.conversations: list[Conversation] = []
        self._chats = chats
        self._commands = commands
        self._platform = platform
        self._numbers = itertools.count(1)
        self._stopping = asyncio.Event()

    def new(self) -> Conversation:
        chat = f"{self._chats}{next(self._numbers)}"
        address = an_address(chat, platform="fake")
        conversation = Conversation(address=address, commands=self._commands)
        self.conversations.append(conversation)
        return conversation

    async def ask(
        self, conversation: Conversation, messages: int = 1, **data: Any
    ) -> None:
        """Send so many messages, each when the one before was acknowledged."""
        for _ in range(messages):
            event = conversation.next_event(data)
            await self._platform.deliver(event)
            conversation.acknowledged.append(event)

    async def keep_asking(self, messages: int, ahead: int) -> None:
        """
        Begin conversation after conversation, each of so many messages, `ahead` of the
        answers by so many at most; until they are to `stop`.
        """
        while not self._stopping.is_set():
            conversation = self.new()
            for number in range(messages):
                await self._heard(conversation, number - ahead)
                await self.ask(conversation)
                if self._stopping.is_set():
                    break

    def stop(self) -> None:
        """Let nobody ask more than what is on its way."""
        self._stopping.set()

    async def ask_each(self) -> None:
        """Let each of them ask once, beside each other."""
        async with asyncio.TaskGroup() as tasks:
            for conversation in self.conversations:
                tasks.create_task(self.ask(conversation))

    async def ask_all(self, number: int, messages: int, **data: Any) -> None:
        """Let so many new customers ask so many messages each, beside each other."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(number):
                tasks.create_task(self.ask(self.new(), messages, **data))

    async def answered(self, timeout_s: float = 60.0) -> None:
        """Wait until every acknowledged message has its answer."""
        try:
            await self._platform.until(
                lambda: all(map(self._is_answered, self.conversations)),
                "not everything was answered",
                timeout_s,
            )
        except AssertionError as error:
            texts = [event.text for event in self.missing]
            raise AssertionError(f"{error}; missing: {texts}") from error

    def has_answer(self, question: str) -> bool:
        chat = question.rpartition(" of ")[2]
        key = an_address(chat, platform="fake").key
        [event] = [one for one in self.acknowledged if one.text == question]
        return any(one.key == turn_id(event) for one in self._platform.arrivals(key))

    @property
    def acknowledged(self) -> list[Event]:
        return [event for one in self.conversations for event in one.acknowledged]

    @property
    def missing(self) -> list[Event]:
        """The acknowledged messages that have no answer."""
        return [event for one in self.conversations for event in self._missing(one)]

    def tally(self) -> Tally:
        return sum(map(self._tally, self.conversations), NOTHING)

    async def kept(self, url: str, shards: int = 1) -> Tally:
        """Compare what Redis keeps of each conversation with what was said in it."""
        settings = ConversationConfig(window_events=400)
        found = NOTHING
        async with Store(url=url, settings=settings, shards=shards) as store:
            for conversation in self.conversations:
                found += await self._kept(store, conversation)
        return found

    async def _kept(self, store: Store, conversation: Conversation) -> Tally:
        state = await store.load(conversation.address)
        said = [
            event.text
            for event in state.history
            if event.kind in {"message", "command"}
        ]
        counted = sum(
            proof(text) is not None
            for event, text in self._answers(conversation)
            if event.kind == "command"
        )
        return Tally(
            turns=len(said),
            apologies=0,
            lost=len(set(conversation.asked) - set(said)),
            repeated=len(said) - len(set(said)),
            out_of_order=_inversions(said, conversation.asked),
            wrong_state=int(state.slots.get("count", 0) != counted),
        )

    async def _heard(self, conversation: Conversation, number: int) -> None:
        if number > 0:
            await self._platform.until(
                lambda: len(self._arrived(conversation)) >= number,
                "no answer came",
                HEARD_S,
            )

    def _arrived(self, conversation: Conversation) -> Sequence[Arrived]:
        return self._platform.arrivals(conversation.address.key)

    def _answers(self, conversation: Conversation) -> list[tuple[Event, str]]:
        """Return what was answered, in the order of the answers."""
        asked = {turn_id(event): event for event in conversation.acknowledged}
        return [
            (asked[one.key], one.text)
            for one in self._arrived(conversation)
            if one.key in asked
        ]

    def _is_answered(self, conversation: Conversation) -> bool:
        enough = len(self._arrived(conversation)) >= len(conversation.acknowledged)
        return enough and not self._missing(conversation)

    def _missing(self, conversation: Conversation) -> list[Event]:
        answered = {one.key for one in self._arrived(conversation)}
        return [
            one for one in conversation.acknowledged if turn_id(one) not in answered
        ]

    def _tally(self, conversation: Conversation) -> Tally:
        answers = self._answers(conversation)
        first = {event.text: text for event, text in reversed(answers)}
        answered = list(dict.fromkeys(event.text for event, _ in answers))
        apologies, wrong = _compared(conversation.acknowledged, first)
        return Tally(
            turns=len(conversation.acknowledged),
            apologies=apologies,
            lost=len(self._missing(conversation)),
            repeated=len(self._arrived(conversation)) - len(first),
            out_of_order=_inversions(answered, conversation.asked),
            wrong_state=wrong,
        )


def _compared(asked: Sequence[Event], answers: Mapping[str, str]) -> tuple[int, int]:
    """
    Compare the answers with what they must have been made from; return how many were
    apologies for a command, and how many are wrong.
    """
    number, count, before = 0, 0, None
    apologies, wrong = 0, 0
    for event in asked:
        answer = answers.get(event.text)
        if event.kind == "command" and answer == APOLOGY:
            apologies += 1
        else:
            number += 1
            expected = Proof(
                question=event.text, number=number, before=before, count=count
            )
            wrong += answer is not None and proof(answer) != expected
            count += event.kind == "command"
        before = event.text
    return apologies, wrong


def _inversions(found: Sequence[str], asked: Sequence[str]) -> int:
    """Count the neighbours of which the later one was asked earlier."""
    places = {text: place for place, text in enumerate(asked)}
    order = [places.get(text, -1) for text in found]
    return sum(first > second for first, second in itertools.pairwise(order))

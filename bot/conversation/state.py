"""
What is kept of conversations, as frozen data, and how it is written as JSON.

Knows neither Redis nor what a turn does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Literal, TypeVar

from pydantic import ConfigDict, JsonValue, TypeAdapter

from bot.conversation.scripts import TURN_LENGTH
from bot.errors import StoreError, TurnError
from bot.model import Address, Event, Record, Reply

# 'lost': another worker has begun meanwhile; 'gone': the conversation was erased;
# 'changed': people took it over, or gave it back.
Committed = Literal["committed", "already", "lost", "gone", "changed"]

# Who has a conversation once a turn is over; '' leaves it to whoever has it.
Keeper = Literal["", "people", "still people", "bot"]

Urgency = Literal["final", "interactive"]

HOUR_S = 3600


class Unwritable(TurnError):
    """Something that came from outside, or from a plugin, cannot be kept as JSON."""


class Unreadable(StoreError):
    """Something in Redis is not what this version of Chorus writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a turn starts from: the last events, oldest first, and the slots."""

    history: Sequence[Event] = ()
    slots: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """
    An accepted message in its lane, and the turn that will answer it. One that is not
    `readable` was written by another version; its event only says where it came from.
    """

    turn_id: str
    event: Event
    readable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """
    People have the conversation: since when, as Redis numbers it and in seconds ago,
    why, and for how long nothing was heard of it.
    """

    since: str
    since_s: float
    why: str
    quiet_s: float

    def lasts(self, hours: float) -> bool:
        """Say whether people have it still; it ends after so many silent hours."""
        return self.quiet_s < hours * HOUR_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """
    A lane that was begun on: its first messages (never none), the number of this
    attempt at the first, whether the customer wants it stopped, how long it waited, and
    the state. `orphaned`: whoever had begun before has died, and this attempt is not
    counted yet. `handed`: people were given the conversation.
    """

    messages: Sequence[Waiting]
    attempt: int
    orphaned: bool
    stop: bool
    waited_s: float
    state: State
    handed: Handed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """A committed reply on its way to the platform. An empty one ends a status only."""

    turn_id: str
    address: Address
    reply: Reply
    urgency: Urgency = "final"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """
    The reply at the head of an outbox. `doubtful`: somebody who was sending it died,
    so that it may have arrived. `tries`: how often it could not be sent.
    `age_s`: how long ago it was committed.
    """

    undelivered: Undelivered
    doubtful: bool
    tries: int
    age_s: float


LaneState = Literal["answering", "waiting", "delivering", "idle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """
    One conversation, as `chorus conversations` lists it. Times are seconds ago;
    `handed_s` is since when people have it, None when the bot has it.
    """

    key: str
    digest: str
    state: LaneState
    waiting: int
    waiting_s: float
    undelivered: int
    undelivered_s: float
    events: int
    quiet_s: float
    handed_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was set aside, and why. `id` is its turn's."""

    id: str
    digest: str
    platform: str
    attempts: int
    why: str
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """A conversation that people have, as `chorus handoff` lists it."""

    key: str
    digest: str
    platform: str
    since_s: float
    quiet_s: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """
    A turn that somebody judged, and how many people think what of its reply. `time` is
    of the last judgement; `candidate` and `origin` are the chosen candidate's, None and
    empty where there was none. `recorded`: there still is a record of it. `arm` is the
    one that answered, empty where there was no experiment.
    """

    turn: str
    digest: str
    platform: str
    time: datetime
    good: int
    bad: int
    candidate: int | None
    origin: str
    recorded: bool
    arm: str = ""

    @property
    def rating(self) -> int:
        """1 where more people found it good than bad, -1 the other way, else 0."""
        return (self.good > self.bad) - (self.good < self.bad)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """How much was erased. `messages` were unanswered, `replies` undelivered."""

    conversations: int = 0
    events: int = 0
    slots: int = 0
    records: int = 0
    messages: int = 0
    replies: int = 0

    def __add__(self, other: Forgotten) -> Forgotten:
        return Forgotten(
            conversations=self.conversations + other.conversations,
            events=self.events + other.events,
            slots=self.slots + other.slots,
            records=self.records + other.records,
            messages=self.messages + other.messages,
            replies=self.replies + other.replies,
        )


def turn_id(event: Event) -> str:
    """Return the id of the turn that answers `event`, the same whenever it is asked."""
    # A key has no space in it, so no two pairs of key and id read alike.
    named = f"{event.address.key} {event.id}".encode(errors="replace")
    return hashlib.sha256(named).hexdigest()[:TURN_LENGTH]


def retried(turn: str) -> str:
    """
    Return the id of the turn that answers a message set aside in `turn`: another one,
    or whoever knows replies by their turn would take its answer for the apology.
    """
    return hashlib.sha256(f"{turn} retried".encode()).hexdigest()[:TURN_LENGTH]


Kept = TypeVar("Kept")


class Json(Generic[Kept]):
    """Writes and reads one type as strict UTF-8 JSON, infinities included."""

    def __init__(self, kind: type[Kept]) -> None:
        # pydantic takes settings only for what contains a dataclass, hence the tuple;
        # its brackets are taken off what is written.
        self._adapter: TypeAdapter[tuple[Kept]] = TypeAdapter(
            tuple[kind],  # type: ignore[valid-type]  # a type that is a value
            config=ConfigDict(ser_json_inf_nan="constants"),
        )

    def write(self, value: Kept) -> bytes:
        try:
            return self._adapter.dump_json((value,), warnings="error")[1:-1]
        except ValueError as error:
            # The error itself would show what people wrote.
            kind = type(error).__name__
            raise Unwritable(f"it cannot be written as JSON ({kind})") from error

    def read(self, written: bytes) -> Kept:
        try:
            return self._adapter.validate_json(b"[%b]" % written)[0]
        except ValueError as error:
            # The error itself would show what people wrote.
            raise Unreadable(
                "an entry in Redis cannot be read; it was written by another version "
                "of Chorus: run that one, or erase the conversation with "
                "`chorus forget`"
            ) from error


EVENTS = Json(Event)
RECORDS = Json(Record)
REPLIES = Json(Undelivered)
SLOTS: Json[JsonValue] = Json(JsonValue)  # type: ignore[arg-type]  # a type alias

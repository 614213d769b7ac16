"""
What is kept of conversations, as frozen data, and how it is written as JSON.

Knows neither Redis nor what a turn does.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, Literal, TypeGuard, TypeVar

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

MOST_REMINDERS = 100  # of one conversation; the sooner ones are kept
LONGEST_REMINDER = 10_000  # bytes of JSON
LONGEST_NAME = 200  # characters of a reminder's name, or of its intent
SHOWN = 40  # characters of what an action gave, in a sentence


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
    counted yet. `handed`: people were given the conversation. `acting`: whoever had
    begun before may have done something outside that must not be done twice.
    """

    messages: Sequence[Waiting]
    attempt: int
    orphaned: bool
    stop: bool
    waited_s: float
    state: State
    handed: Handed | None = None
    acting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reminder:
    """
    What the bot brings up by itself once it is `due`: an intent with entities, as
    rasa-sdk writes them, canonically ordered. A conversation has one of each name.
    `set_by` is the turn that has set it. `kill_on_user_message`: it is dropped when
    the customer writes first.
    """

    name: str
    intent: str
    entities: Sequence[JsonValue]
    due: datetime
    kill_on_user_message: bool
    address: Address
    set_by: str

    @property
    def due_ms(self) -> int:
        """Milliseconds since 1970; what was due before that is due then."""
        return max(0, round(1000 * self.due.timestamp()))

    @property
    def event(self) -> Event:
        """The event that is answered when it is due."""
        return Event(
            # What is set anew for the same time is another reminder.
            id=f"reminder:{self.name}:{self.due_ms}:{self.set_by}",
            kind="intent",
            address=self.address,
            time=self.due,
            data={
                "intent": self.intent,
                "entities": list(self.entities),
                "name": self.name,
                "reminder": True,
                "set_by": self.set_by,
                "kill_on_user_message": self.kill_on_user_message,
                "scheduled_at": self.due.isoformat(),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """
    Which of a conversation's reminders are cancelled: those that have all of what is
    given, and where nothing is given, all of them.
    """

    name: str | None = None
    intent: str | None = None
    entities: Sequence[JsonValue] | None = None

    def covers(self, reminder: Reminder) -> bool:
        return (
            self.name in (None, reminder.name)
            and self.intent in (None, reminder.intent)
            and (
                self.entities is None
                or canonical(self.entities) == canonical(reminder.entities)
            )
        )


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


def reminder_of(
    event: Mapping[str, JsonValue], turn: str, address: Address
) -> Reminder | str:
    """
    Read rasa-sdk's event `reminder`; return what is wrong with it where it is none. As
    in Rasa, a time without a zone is this machine's, one without a name gets one that
    nothing else has, and one that says nothing of it is dropped when the customer
    writes.
    """
    name, intent, when = (event.get(key) for key in ("name", "intent", "date_time"))
    kill = event.get("kill_on_user_msg")
    kill = True if kill is None else kill
    if name is None or name == "":
        name = uuid.uuid4().hex
    if not _is_name(name):
        return f"reminder: its name {_shown(name)} is not a short text"
    where = f"reminder {_shown(name)}"
    if not _is_name(intent):
        return f"{where}: its intent {_shown(intent)} is not a short text"
    if not isinstance(kill, bool):
        return f"{where}: kill_on_user_msg {_shown(kill)} is neither true nor false"
    due = _time_of(when)
    if due is None:
        return (
            f"{where}: its date_time {_shown(when)} is no time; write it as in "
            "2026-01-31T09:30:00+00:00"
        )
    entities = _entities_of(event.get("entities"))
    if entities is None:
        return f"{where}: its entities are neither a list of objects nor an object"
    reminder = Reminder(
        name=name,
        intent=intent,
        entities=entities,
        due=due,
        kill_on_user_message=kill,
        address=address,
        set_by=turn,
    )
    return _unkeepable(reminder, where) or reminder


def cancel_of(event: Mapping[str, JsonValue]) -> Cancel | str:
    """
    Read rasa-sdk's event `cancel_reminder`; return what is wrong with it where it is
    none. As in Rasa, what is empty was not given.
    """
    name, intent = event.get("name") or None, event.get("intent") or None
    if name is not None and not _is_name(name):
        return f"cancel_reminder: its name {_shown(name)} is not a short text"
    if intent is not None and not _is_name(intent):
        return f"cancel_reminder: its intent {_shown(intent)} is not a short text"
    entities = _entities_of(event.get("entities"))
    if entities is None:
        return (
            "cancel_reminder: its entities are neither a list of objects nor an object"
        )
    return Cancel(name=name, intent=intent, entities=entities or None)


def canonical(entities: Sequence[JsonValue]) -> str:
    """Return JSON that is the same text for the same entities, on one line."""
    return json.dumps(
        entities, sort_keys=True, ensure_ascii=False, separators=(",", ":")
    )


def soonest(reminders: Sequence[Reminder]) -> list[Reminder]:
    """Return the last of each name, the sooner ones, as many as one may have."""
    last = {reminder.name: reminder for reminder in reminders}
    return sorted(last.values(), key=lambda one: one.due_ms)[:MOST_REMINDERS]


def _is_name(value: JsonValue) -> TypeGuard[str]:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: JsonValue) -> str:
    """Show a text's beginning; of what is none, only what it is instead."""
    return repr(value[:SHOWN]) if isinstance(value, str) else type(value).__name__


def _time_of(value: JsonValue) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError, OSError):  # the last two: at the ends of time
        return None


def _entities_of(value: JsonValue) -> list[JsonValue] | None:
    """Return them as rasa-sdk's list, in order of their keys; None for no entities."""
    if isinstance(value, Mapping):
        value = [{"entity": name, "value": one} for name, one in value.items()]
    elif value is None:
        value = []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return None
    try:
        # As bytes, because half a character is none.
        read: list[JsonValue] = json.loads(canonical(value).encode())
    # A stranger's: no JSON, numbers of thousands of digits, no end of brackets.
    except (TypeError, ValueError, RecursionError):
        return None
    return read


def _unkeepable(reminder: Reminder, where: str) -> str | None:
    """Say why what was set could not be kept, or not be read when it is due."""
    try:
        written = EVENTS.write(reminder.event)
        EVENTS.read(written)
    except (Unwritable, Unreadable):
        return f"{where}: its entities cannot be kept as JSON"
    if len(written) > LONGEST_REMINDER:
        return (
            f"{where}: it is {len(written)} bytes long, and may be {LONGEST_REMINDER}; "
            "keep what is long in a slot"
        )
    return None


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

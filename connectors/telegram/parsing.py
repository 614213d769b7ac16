"""
Parsing: from an update, as it came, to the fact that it tells the bot.

Pure functions. The same update always makes the same fact, so one that comes twice
has the same id. Whatever is not meant for the bot, or makes no sense, tells nothing;
nothing that comes makes it raise. Knows neither how updates arrive nor what is done
about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from bot.model import Address, Event, EventKind
from connectors.telegram.buttons import Feedback, Press, pressed
from connectors.telegram.wire import (
    JSON,
    a_text,
    an_id,
    an_integer,
    an_object,
    objects,
)
from connectors.telegram.words import Words

# Named one by one: reactions do not come by default, and what is not named is not sent.
# https://core.telegram.org/bots/api#getupdates
KINDS = (
    "message",
    "business_message",
    "callback_query",
    "message_reaction",
    "my_chat_member",
    "stopped_message_generation",
)

Data = Mapping[str, JsonValue]

_CHATS = {"private", "group", "supergroup"}
_LAST_UPDATE = 2**53
_LAST_DATE = 2**34  # the year 2514
_GOOD = {"👍", "❤", "❤️"}
_BAD = {"👎"}
# A message of one of these is somebody's who shows something; the others without a
# text are the service's own, such as "Ann joined".
_SHOWN = {
    "animation",
    "audio",
    "checklist",
    "contact",
    "dice",
    "document",
    "location",
    "paid_media",
    "photo",
    "poll",
    "sticker",
    "story",
    "venue",
    "video",
    "video_note",
    "voice",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """Who the bot is: groups call it by its username."""

    id: str
    username: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Somebody said something to the bot, in the message of this number."""

    event: Event
    message: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """
    Somebody pressed a button; the query waits for an answer. Without an event it is
    no button of ours. `keyboard` is as it was under the message.
    """

    query: str
    event: Event | None = None
    message: int | None = None
    keyboard: JSON | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reacted:
    """Somebody judged a message; `event` lacks the turn, and the thread."""

    event: Event
    message: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Somebody pressed Stop while a reply was being written."""

    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A group became a supergroup, which has another id."""

    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Whether the bot may write to the chat, from now on."""

    there: bool


Fact = Said | Pressed | Reacted | Stopped | Moved | Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An update: its number, the chat it is of, and what it tells, if anything."""

    update_id: int
    chat: str | None = None
    fact: Fact | None = None


def heard(update: object, me: Me, now: datetime) -> Heard | None:
    """Read an update; None is no update. `now` dates what has no date itself."""
    content = an_object(update)
    update_id = an_integer(content.get("update_id"))
    if update_id is None or not 0 <= update_id < _LAST_UPDATE:
        return None
    reading = _Reading(id=f"telegram:{me.id}:{update_id}", me=me, now=now)
    for kind in KINDS:
        told = an_object(content.get(kind))
        if told:
            chat = an_object(told.get("chat")) or an_object(
                an_object(told.get("message")).get("chat")
            )
            return Heard(
                update_id=update_id,
                chat=an_id(chat.get("id")),
                fact=reading.fact(kind, told),
            )
    return Heard(update_id=update_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """The reading of one update."""

    id: str
    me: Me
    now: datetime

    def fact(self, kind: str, told: JSON) -> Fact | None:
        match kind:
            case "message" | "business_message":
                return self._moved(told) or self._said(told)
            case "callback_query":
                return self._pressed(told)
            case "message_reaction":
                return self._reacted(told)
            case "my_chat_member":
                return _reach(told)
            case _:
                return self._stopped(told)

    def _moved(self, message: JSON) -> Moved | None:
        here = an_id(an_object(message.get("chat")).get("id"))
        there = an_id(message.get("migrate_to_chat_id"))
        if here and there:
            return Moved(old=here, new=there)
        before = an_id(message.get("migrate_from_chat_id"))
        return Moved(old=before, new=here) if here and before else None

    def _said(self, message: JSON) -> Said | None:
        user = self._person(message)
        address = self._address(message, user)
        number = an_integer(message.get("message_id"))
        if user is None or address is None or number is None:
            return None
        words = _words(message)
        kind, text = self._meant(message, words)
        if kind is None:
            return None
        event = self._event(kind, address, message, text=text)
        return Said(event=event, message=number)

    def _meant(self, message: JSON, words: Words) -> tuple[EventKind | None, str]:
        """Say what a message is to the bot: a kind, or None, and its text."""
        command = words.command()
        if command is not None:
            if command.to not in ("", self.me.username.casefold()):
                return None, ""
            is_stop = command.name == "stop"
            return ("cancel", "") if is_stop else ("command", command.text)
        if an_object(message.get("chat")).get("type") == "private":
            # Of an album each picture comes alone; the one with the words speaks.
            is_shown = "media_group_id" not in message and not _SHOWN.isdisjoint(
                message
            )
            return ("message" if words.text or is_shown else None), words.text
        calls = words.calls(self.me.id, self.me.username)
        if not words.text or not (calls or self._is_reply_to_me(message)):
            return None, ""
        return "message", words.without(calls)

    def _is_reply_to_me(self, message: JSON) -> bool:
        answered = an_object(message.get("reply_to_message"))
        # All that is said in a topic answers its opening, which may be the bot's.
        is_opening = "forum_topic_created" in answered
        by = an_id(an_object(answered.get("from")).get("id"))
        return by == self.me.id and not is_opening

    def _person(self, message: JSON) -> str | None:
        """Return who speaks; None is a machine, or somebody to whom nobody answers."""
        sender = an_object(message.get("from"))
        user = an_id(sender.get("id"))
        # An administrator who hides, or somebody who speaks as their channel: then
        # `from` is a bot that stands for them.
        behind = an_id(an_object(message.get("sender_chat")).get("id"))
        if message.get("is_automatic_forward") or user == self.me.id:
            return None
        if "business_connection_id" in message:
            # What the owner writes to the customer comes, too.
            chat = an_id(an_object(message.get("chat")).get("id"))
            user = user if user == chat else None
        if behind is not None:
            return behind
        return None if sender.get("is_bot") else user

    def _address(self, message: JSON, user: str | None) -> Address | None:
        chat = an_object(message.get("chat"))
        chat_id = an_id(chat.get("id"))
        # A kind that cannot be looked up in a set is none of them.
        if chat_id is None or a_text(chat.get("type")) not in _CHATS:
            return None
        # In a plain supergroup it numbers a thread of replies, which is no topic.
        is_topic = message.get("is_topic_message") is True
        return Address(
            platform="telegram",
            account=account(
                self.me.id, a_text(message.get("business_connection_id")) or None
            ),
            chat=chat_id,
            thread=an_id(message.get("message_thread_id")) if is_topic else None,
            user=user,
        )

    def _pressed(self, query: JSON) -> Pressed | None:
        name = a_text(query.get("id"))
        if not name:
            return None
        message = an_object(query.get("message"))
        press = pressed(a_text(query.get("data")))
        user = an_id(an_object(query.get("from")).get("id"))
        address = self._address(message, user)
        if press is None or address is None or user is None:
            return Pressed(query=name)
        return Pressed(
            query=name,
            event=self._press_event(press, address),
            message=an_integer(message.get("message_id")),
            keyboard=an_object(message.get("reply_markup")) or None,
        )

    def _press_event(self, press: Press | Feedback, address: Address) -> Event:
        match press:
            case Press(turn=turn, button=button):
                data: Data = {"turn": turn, "button": button}
                return self._event("button", address, {}, data)
            case Feedback(turn=turn, rating=rating):
                data = {"turn": turn, "rating": rating}
                return self._event("feedback", address, {}, data)

    def _reacted(self, told: JSON) -> Reacted | None:
        user = an_object(told.get("user"))
        address = self._address(told, an_id(user.get("id")))
        message = an_integer(told.get("message_id"))
        rating = _rating(told)
        if address is None or message is None or rating is None or user.get("is_bot"):
            return None
        event = self._event("feedback", address, told, {"rating": rating})
        return Reacted(event=event, message=message)

    def _stopped(self, told: JSON) -> Stopped | None:
        user = an_object(told.get("user")) or an_object(told.get("chat"))
        # Drafts stand in private chats only, where a thread is a topic.
        placed = {**told, "is_topic_message": True}
        address = self._address(placed, an_id(user.get("id")))
        if address is None:
            return None
        return Stopped(event=self._event("cancel", address, told))

    def _event(
        self,
        kind: EventKind,
        address: Address,
        told: JSON,
        data: Data | None = None,
        text: str = "",
    ) -> Event:
        date = an_integer(told.get("date"))
        dated = date is not None and 0 < date < _LAST_DATE
        return Event(
            id=self.id,
            kind=kind,
            address=address,
            time=datetime.fromtimestamp(date, UTC) if date and dated else self.now,
            text=text,
            data=data or {},
        )


def account(bot: str, business: str | None) -> str:
    """Name the bot; where it answers for somebody, the connection to them, too."""
    return f"{bot}/{business}" if business else bot


def business_of(address: Address) -> str | None:
    """Return the business connection that a call has to name."""
    return address.account.partition("/")[2] or None


def _words(message: JSON) -> Words:
    if a_text(message.get("text")):
        return Words.of(message.get("text"), message.get("entities"))
    return Words.of(message.get("caption"), message.get("caption_entities"))


def _rating(told: JSON) -> int | None:
    """1, -1, 0 for a judgement that was taken back, None for none."""
    now, before = (_emoji(told.get(f"{when}_reaction")) for when in ("new", "old"))
    for emoji in reversed(now):
        if emoji in _GOOD:
            return 1
        if emoji in _BAD:
            return -1
    return 0 if any(emoji in _GOOD | _BAD for emoji in before) else None


def _emoji(reactions: object) -> Sequence[str]:
    return [a_text(reaction.get("emoji")) for reaction in objects(reactions)]


def _reach(told: JSON) -> Reach | None:
    member = an_object(told.get("new_chat_member"))
    status = a_text(member.get("status"))
    if not status:
        return None
    outside = status in ("kicked", "left")
    shut_out = status == "restricted" and member.get("is_member") is False
    return Reach(there=not outside and not shut_out)

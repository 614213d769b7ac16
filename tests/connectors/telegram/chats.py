"""
Telegram's side of the conversations: who is there, which messages stand in which chat.

Keeps to what the Bot API lets a bot do and see. Knows no HTTP; what happens is handed
to an outbox of updates, which keeps them until they are confirmed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.connectors.telegram.limits import (
    check_keyboard,
    check_preview,
    check_text,
)
from tests.connectors.telegram.wire import (
    JSON,
    Refusal,
    bad_request,
    too_many_requests,
)

ChatType = Literal["private", "group", "supergroup", "channel"]

NOON = 1_772_366_400  # what the stand-in's messages are dated from

_FIRST = 2  # of a chat's messages: the opening of a group is the first

# Unless a bot names what it wants, it gets all but these.
# https://core.telegram.org/bots/api#getupdates
_ON_REQUEST = {"chat_member", "message_reaction", "message_reaction_count"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with an account, a bot or not."""

    id: int
    first_name: str
    username: str | None = None
    is_bot: bool = False

    @property
    def wire(self) -> JSON:
        told: JSON = {
            "id": self.id,
            "is_bot": self.is_bot,
            "first_name": self.first_name,
        }
        if self.username:
            told["username"] = self.username
        return told


BOT = Person(id=77, first_name="Chorus", username="chorus_bot", is_bot=True)
ANN = Person(id=42, first_name="Ann", username="ann_k")
BEN = Person(id=43, first_name="Ben")
ROBOT = Person(id=88, first_name="Robot", username="robot_bot", is_bot=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a bot showed of a message that it was writing."""

    id: int
    text: str
    thread: int | None = None
    can_stop: bool = False


@dataclass(slots=True, kw_only=True)
class Chat:
    """One chat; `shut` is why the bot may not write to it, `admin` what the bot is."""

    id: int
    type: ChatType
    title: str
    forum: bool = False
    admin: bool = False
    business: str | None = None
    shut: str | None = None
    moved_to: int | None = None
    closed_until: float = 0.0
    messages: dict[int, JSON] = field(default_factory=dict)
    topics: dict[int, JSON] = field(default_factory=dict)
    drafts: list[Draft] = field(default_factory=list)
    drafting: Draft | None = None

    @property
    def wire(self) -> JSON:
        named = "first_name" if self.type == "private" else "title"
        told: JSON = {"id": self.id, "type": self.type, named: self.title}
        if self.forum:
            told["is_forum"] = True
        return told


class Updates:
    """
    What happened and was not confirmed yet, oldest first. `asked_for` names the kinds
    that are kept from now on; `told` is called for each update that is.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        self._ids = itertools.count(1001)
        self._told = told
        self.asked_for: Sequence[str] = ()
        self.pending: dict[int, JSON] = {}
        self.confirmed = 0

    def add(self, kind: str, content: Any, *, heard: bool = True) -> JSON:
        """
        Return the update. One that the bot does not get, for its kind or because it
        is not `heard`, has no update_id.
        """
        wanted = kind in self.asked_for if self.asked_for else kind not in _ON_REQUEST
        if not (heard and wanted):
            return {kind: content}
        update = {"update_id": next(self._ids), kind: content}
        self.pending[update["update_id"]] = update
        self._told()
        return update

    def confirm(self, before: int) -> None:
        for update_id in [one for one in self.pending if one < before]:
            self.forget(update_id)

    def forget(self, update_id: int) -> None:
        self.pending.pop(update_id, None)
        self.confirmed = max(self.confirmed, update_id)


class Chats:
    """The chats of one bot, and what the bot may do in them."""

    def __init__(self, clock: Callable[[], float], told: Callable[[], None]) -> None:
        self.clock = clock
        self.updates = Updates(told)
        self.chats: dict[int, Chat] = {}
        self.privacy = True
        self.typing: list[int] = []
        self.connections: dict[str, Person] = {}
        # Private chats and small groups share their numbers, a supergroup has its own.
        self._shared_numbers = itertools.count(_FIRST)
        self._numbers: dict[int, itertools.count[int]] = {}
        self._seconds = itertools.count(NOON)

    # What a test looks at

    def shown(self, chat: int = ANN.id, thread: int | None = None) -> list[str]:
        """Return the texts of the bot that stand there now, of one topic or of all."""
        return [
            message["text"]
            for message in self.chats[chat].messages.values()
            if "text" in message
            and message.get("from", {}).get("id") == BOT.id
            and thread in (None, message.get("message_thread_id"))
        ]

    def message(self, chat: int, message_id: int) -> JSON:
        return self.chats[chat].messages[message_id]

    def last(self, chat: int = ANN.id) -> JSON:
        """Return the last message of the bot that stands there."""
        return [
            message
            for message in self.chats[chat].messages.values()
            if message.get("from", {}).get("id") == BOT.id
        ][-1]

    def drafts(self, chat: int = ANN.id) -> list[str]:
        """Return the texts of all drafts that were ever shown there."""
        return [draft.text for draft in self.chats[chat].drafts]

    def draft(self, chat: int = ANN.id) -> str | None:
        """Return the draft that stands there now, until a message takes its place."""
        drafting = self.chats[chat].drafting
        return drafting.text if drafting else None

    # Chats

    def private(self, person: Person = ANN, business: str | None = None) -> Chat:
        """Return the chat with a person, who opens it with that."""
        if person.id not in self.chats:
            self.chats[person.id] = Chat(
                id=person.id,
                type="private",
                title=person.first_name,
                business=business,
            )
        return self.chats[person.id]

    def group(self) -> int:
        return self._opened("group", -500 - len(self.chats)).id

    def supergroup(self, *, forum: bool = False, admin: bool = False) -> int:
        chat = self._opened("supergroup", -1_001_000_000_000 - len(self.chats))
        chat.forum, chat.admin = forum, admin
        return chat.id

    def channel(self) -> int:
        return self._opened("channel", -1_002_000_000_000 - len(self.chats)).id

    def penalise(self, chat: int, seconds: float) -> None:
        """Refuse every call about a chat for so long, by the service's clock."""
        self.chats[chat].closed_until = self.clock() + seconds

    def _opened(self, kind: ChatType, chat_id: int) -> Chat:
        chat = Chat(id=chat_id, type=kind, title=f"Room {len(self.chats)}")
        self.chats[chat_id] = chat
        return chat

    # Messages

    def put(
        self, chat: Chat, sender: Person | None, content: Mapping[str, Any]
    ) -> JSON:
        """Let a message stand in a chat, and return it."""
        message: JSON = {
            "message_id": self._next_number(chat),
            "chat": chat.wire,
            "date": next(self._seconds),
            **content,
        }
        if sender is not None:
            message["from"] = sender.wire
        chat.messages[message["message_id"]] = message
        return message

    def replied_to(self, chat: Chat, message_id: int) -> JSON:
        """Return a message as it is quoted in another: without what it quotes."""
        quoted = dict(chat.messages[message_id])
        quoted.pop("reply_to_message", None)
        return quoted

    def _next_number(self, chat: Chat) -> int:
        if chat.type in ("private", "group"):
            return next(self._shared_numbers)
        return next(self._numbers.setdefault(chat.id, itertools.count(_FIRST)))

    # What the bot does, each refused as Telegram refuses it

    def reached(self, args: Mapping[str, Any]) -> Chat:
        """Return the chat that a call is about, or refuse the call."""
        chat = self.chats.get(args.get("chat_id", 0))
        if chat is None or chat.business != args.get("business_connection_id"):
            raise bad_request("chat not found")
        left_s = chat.closed_until - self.clock()
        if left_s > 0:
            raise too_many_requests(math.ceil(left_s))
        if chat.moved_to is not None:
            raise Refusal(
                400,
                "Bad Request: group chat was upgraded to a supergroup chat",
                {"migrate_to_chat_id": chat.moved_to},
            )
        if chat.shut is not None:
            raise Refusal(403, f"Forbidden: {chat.shut}")
        return chat

    def send_message(self, args: Mapping[str, Any]) -> JSON:
        chat = self.reached(args)
        content: JSON = {"text": check_text(args), **self._place(chat, args)}
        if args.get("entities"):
            content["entities"] = args["entities"]
        preview = check_preview(args.get("link_preview_options"))
        if preview:
            content["link_preview_options"] = preview
        keyboard = check_keyboard(args.get("reply_markup"))
        if keyboard:
            content["reply_markup"] = keyboard
        if chat.business:
            content["business_connection_id"] = chat.business
        chat.drafting = None
        return self.put(chat, BOT, content)

    def edit_message(self, args: Mapping[str, Any]) -> JSON:
        """Change the text, and the keyboard with it: one that is not named is gone."""
        changed = {
            "text": check_text(args),
            "entities": args.get("entities") or None,
            "link_preview_options": check_preview(args.get("link_preview_options"))
            or None,
            "reply_markup": check_keyboard(args.get("reply_markup")),
        }
        return self._edit(args, changed)

    def edit_keyboard(self, args: Mapping[str, Any]) -> JSON:
        return self._edit(
            args, {"reply_markup": check_keyboard(args.get("reply_markup"))}
        )

    def _edit(self, args: Mapping[str, Any], changed: JSON) -> JSON:
        message = self.reached(args).messages.get(args.get("message_id", 0))
        if message is None:
            raise bad_request("message to edit not found")
        if message.get("from", {}).get("id") != BOT.id:
            raise bad_request("message can't be edited")
        if all(message.get(name) == value for name, value in changed.items()):
            raise bad_request(
                "message is not modified: specified new message content and reply "
                "markup are exactly the same as a current content and reply markup of "
                "the message"
            )
        for name, value in changed.items():
            message.pop(name, None)
            if value is not None:
                message[name] = value
        message["edit_date"] = next(self._seconds)
        return message

    def delete_message(self, args: Mapping[str, Any]) -> bool:
        messages = self.reached(args).messages
        if args.get("message_id") not in messages:
            raise bad_request("message to delete not found")
        del messages[args["message_id"]]
        return True

    def show_draft(self, args: Mapping[str, Any]) -> bool:
        chat = self.reached(args)
        if chat.type != "private":
            raise bad_request("TEXTDRAFT_PEER_INVALID")
        if not args.get("draft_id"):
            raise bad_request("RANDOM_ID_INVALID")
        chat.drafting = Draft(
            id=args["draft_id"],
            text=check_text(args, may_be_empty=True),
            thread=args.get("message_thread_id"),
            can_stop=args.get("can_stop", False),
        )
        chat.drafts.append(chat.drafting)
        return True

    def _place(self, chat: Chat, args: Mapping[str, Any]) -> JSON:
        """Where in the chat: the topic, and the message that is answered."""
        place: JSON = {}
        thread = args.get("message_thread_id")
        if thread is not None:
            # Nor is the general topic reached by its id, which is 1.
            if thread not in chat.topics:
                raise bad_request("message thread not found")
            place |= {"message_thread_id": thread, "is_topic_message": True}
        answered = args.get("reply_parameters")
        if answered is not None:
            if answered["message_id"] in chat.messages:
                quoted = self.replied_to(chat, answered["message_id"])
                place["reply_to_message"] = quoted
            elif not answered.get("allow_sending_without_reply"):
                raise bad_request("message to be replied not found")
        return place

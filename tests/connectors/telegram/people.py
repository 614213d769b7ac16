"""
What people do in Telegram, and what a bot is told of it.

A test acts through these methods; each returns the update that the bot gets. An update
that Telegram keeps to itself (a group's talk that is none of the bot's business, a kind
that nobody asked for) has no update_id.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from tests.connectors.telegram.chats import ANN, BOT, Chat, Chats, Person
from tests.connectors.telegram.limits import buttons_of, cut, entities_in
from tests.connectors.telegram.wire import JSON

_PHOTO = [{"file_id": "p", "file_unique_id": "p", "width": 90, "height": 60}]


class People(Chats):
    """The customers of the bot, other bots, and those who run the groups."""

    def __init__(self, clock: Callable[[], float], told: Callable[[], None]) -> None:
        super().__init__(clock, told)
        self._queries = itertools.count(1)
        self.unanswered: set[str] = set()  # pressed buttons that still turn

    # Messages

    def say(
        self,
        text: str,
        *,
        chat: int | None = None,
        user: Person = ANN,
        thread: int | None = None,
        **fields: Any,
    ) -> JSON:
        """Write a message; `fields` are further ones of it, or take their place."""
        content = {"text": text, "entities": entities_in(text), **fields}
        return self._said(self._where(chat, user), user, thread, content)

    def reply(self, text: str, to: JSON, *, user: Person = ANN, **fields: Any) -> JSON:
        """Answer a message."""
        chat = self.chats[to["chat"]["id"]]
        fields["reply_to_message"] = self.replied_to(chat, to["message_id"])
        if chat.type == "supergroup" and not chat.forum:
            # The thread of replies, which is no topic.
            fields["message_thread_id"] = to.get("message_thread_id", to["message_id"])
        return self.say(
            text,
            chat=chat.id,
            user=user,
            thread=to.get("message_thread_id") if chat.forum else None,
            **fields,
        )

    def picture(
        self,
        caption: str = "",
        *,
        chat: int | None = None,
        user: Person = ANN,
        thread: int | None = None,
        **fields: Any,
    ) -> JSON:
        """Send a photo, with words under it or without."""
        content: JSON = {"photo": _PHOTO, **fields}
        if caption:
            content["caption"] = caption
            content["caption_entities"] = entities_in(caption)
        return self._said(self._where(chat, user), user, thread, content)

    def album(self, *captions: str, chat: int | None = None) -> list[JSON]:
        """Send several photos at once: an update for each."""
        group = f"album-{next(self._queries)}"
        return [
            self.picture(caption, chat=chat, media_group_id=group)
            for caption in captions
        ]

    def edit(self, said: JSON, text: str | None = None) -> JSON:
        """Change a message, or (None) nothing that anybody sees."""
        _, message = _content(said)
        if text is not None:
            message |= {"text": text, "entities": entities_in(text)}
        message["edit_date"] = next(self._seconds)
        heard = self._hears(self.chats[message["chat"]["id"]], message)
        return self.updates.add("edited_message", dict(message), heard=heard)

    def post(self, text: str, *, chat: int) -> JSON:
        """Publish in a channel."""
        channel = self.chats[chat]
        content = {
            "text": text,
            "entities": entities_in(text),
            "sender_chat": channel.wire,
        }
        return self.updates.add("channel_post", self.put(channel, None, content))

    def business(self, text: str, *, connection: str, user: Person = ANN) -> JSON:
        """Write to somebody who lets the bot answer for them."""
        chat = self.private(user, connection)
        content = {
            "text": text,
            "entities": entities_in(text),
            "business_connection_id": connection,
        }
        return self.updates.add("business_message", self.put(chat, user, content))

    def topic(self, chat: int, name: str = "Topic", *, by: Person = ANN) -> int:
        """Open a topic of a forum and return its thread's id."""
        forum = self.chats[chat]
        assert forum.forum, f"{chat} has no topics"
        created = {"name": name, "icon_color": 0x6FB9F0}
        opened = self.put(forum, by, {"forum_topic_created": created})
        thread: int = opened["message_id"]
        forum.topics[thread] = opened
        opened |= {"message_thread_id": thread, "is_topic_message": True}
        self.updates.add("message", opened)
        return thread

    def _where(self, chat: int | None, user: Person) -> Chat:
        return self.private(user) if chat is None else self.chats[chat]

    def _said(
        self, chat: Chat, user: Person, thread: int | None, content: JSON
    ) -> JSON:
        if thread is not None:
            opened = chat.topics[thread]
            # What answers nothing else is told to answer the opening of its topic.
            content = {"reply_to_message": opened, **content}
            content |= {"message_thread_id": thread, "is_topic_message": True}
        content = {name: one for name, one in content.items() if one not in ("", [])}
        message = self.put(chat, user, content)
        heard = self._hears(chat, message)
        return self.updates.add("message", dict(message), heard=heard)

    def _hears(self, chat: Chat, message: JSON) -> bool:
        """
        Tell whether a bot gets to see a message, see
        https://core.telegram.org/bots/features#privacy-mode.
        """
        if chat.shut or chat.moved_to:
            return False
        if not self.privacy or chat.admin or chat.type in ("private", "channel"):
            return True
        replied = message.get("reply_to_message", {}).get("from", {}).get("id")
        return replied == BOT.id or any(map(_means_bot, _marked(message)))

    # Buttons and reactions

    def press(self, message: JSON, button: str | int, *, user: Person = ANN) -> JSON:
        """Press a button, by its text or its place, of a message as it stands now."""
        message = self.message(message["chat"]["id"], message["message_id"])
        buttons = list(buttons_of(message.get("reply_markup")))
        if isinstance(button, str):
            texts = [one["text"] for one in buttons]
            assert button in texts, f"no button {button!r} among {texts}"
            button = texts.index(button)
        query = f"q{next(self._queries)}"
        self.unanswered.add(query)
        return self.updates.add(
            "callback_query",
            {
                "id": query,
                "from": user.wire,
                "message": dict(message),
                "chat_instance": "1",
                "data": buttons[button]["callback_data"],
            },
        )

    def react(self, message: JSON, *emoji: str, user: Person = ANN) -> JSON:
        """Put reactions under a message, in place of those before."""
        chat = self.chats[message["chat"]["id"]]
        content = {
            "chat": chat.wire,
            "message_id": message["message_id"],
            "user": user.wire,
            "date": next(self._seconds),
            "old_reaction": [],
            "new_reaction": [{"type": "emoji", "emoji": one} for one in emoji],
        }
        # https://core.telegram.org/bots/api#update: in groups only administrators.
        heard = chat.type == "private" or chat.admin
        return self.updates.add("message_reaction", content, heard=heard)

    def stop(self, chat: int = ANN.id) -> JSON:
        """Press Stop under the draft that stands there."""
        draft = self.chats[chat].drafting
        assert draft is not None, "no draft stands there"
        assert draft.can_stop, "a draft that was sent without can_stop has no button"
        content: JSON = {"chat": self.chats[chat].wire, "draft_id": draft.id}
        if draft.thread is not None:
            content["message_thread_id"] = draft.thread
        return self.updates.add("stopped_message_generation", content)

    def other(self, kind: str, content: Any) -> JSON:
        """Let something happen that nobody has heard of."""
        return self.updates.add(kind, content)

    # Who is where

    def block(self, chat: int = ANN.id) -> JSON:
        """Block the bot: a person does so in their chat with it."""
        return self._turn(chat, "kicked", "bot was blocked by the user")

    def unblock(self, chat: int = ANN.id) -> JSON:
        return self._turn(chat, "member", None)

    def kick(self, chat: int) -> JSON:
        """Throw the bot out of a group."""
        kind = self.chats[chat].type
        return self._turn(chat, "kicked", f"bot was kicked from the {kind} chat")

    def add(self, chat: int) -> JSON:
        """Let the bot into a group (again)."""
        return self._turn(chat, "member", None)

    def migrate(self, chat: int) -> int:
        """Make a supergroup of a group, with another id, which is returned."""
        old = self.chats[chat]
        new = self.chats[self.supergroup()]
        old.moved_to = new.id
        for here, moved in (
            (old, {"migrate_to_chat_id": new.id}),
            (new, {"migrate_from_chat_id": old.id}),
        ):
            self.updates.add("message", dict(self.put(here, ANN, moved)))
        return new.id

    def _turn(
        self, chat: int, status: Literal["member", "kicked"], shut: str | None
    ) -> JSON:
        here = self.chats[chat]
        before = "kicked" if here.shut else "member"
        here.shut = shut
        return self.updates.add(
            "my_chat_member",
            {
                "chat": here.wire,
                "from": ANN.wire,
                "date": next(self._seconds),
                "old_chat_member": _member(before),
                "new_chat_member": _member(status),
            },
        )


def _member(status: str) -> JSON:
    told: JSON = {"user": BOT.wire, "status": status}
    if status == "kicked":
        told["until_date"] = 0
    return told


def _content(update: JSON) -> tuple[str, JSON]:
    """Return an update's kind and what it holds."""
    kind = next(name for name in update if name != "update_id")
    return kind, update[kind]


def _marked(message: Mapping[str, Any]) -> Sequence[tuple[JSON, str]]:
    """Return what is marked in a message, each with its words."""
    text = message.get("text", message.get("caption", ""))
    entities = message.get("entities", message.get("caption_entities", ()))
    return [(one, cut(text, one["offset"], one["length"])) for one in entities]


def _means_bot(marked: tuple[JSON, str]) -> bool:
    """A command that names no other bot, or a mention of this one."""
    entity, words = marked
    called = f"@{BOT.username}"
    match entity["type"]:
        case "bot_command":
            return "@" not in words or words.lower().endswith(called)
        case "mention":
            return words.lower() == called
        case "text_mention":
            return bool(entity["user"]["id"] == BOT.id)
    return False

"""
Notes: what the connector has to remember between two calls, on its shelf.

Which parts of a reply went out, which message shows which turn, where a group has moved
to, who has shut the bot out. Numbers and ids only, no word of a customer, and each for
as long as it is of use. Every method may raise StoreError.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import orjson

from bot.interfaces import Shelf
from bot.model import Address

DAY_S = 86_400.0

# The core tries for a day, and looks at what became of it for a while more.
PROGRESS_S = 2 * DAY_S
# Nobody judges an older reply.
SHOWN_S = 7 * DAY_S
QUESTION_S = DAY_S
# By then what was shown of a reply stands far above what is being said.
STREAM_S = 15 * 60.0
# Who comes back says so; this is for those of whom we have not heard.
LOST_S = 30 * DAY_S

REMEMBERED = 1_000  # sendings, at most, that the shelf could not be told of


@dataclass(slots=True, kw_only=True)
class Progress:
    """
    How far the sending of a reply has come: the ids of the parts that were tried, 0 for
    one of which nobody knows whether it arrived, out of so many. `edits` is the message
    that the first part takes the place of.
    """

    parts: int
    edits: int | None = None
    ids: list[int] = field(default_factory=list)


class Notes:
    def __init__(self, shelf: Shelf, bot: str) -> None:
        self._shelf = shelf
        self._bot = bot
        self._unkept: OrderedDict[str, Progress] = OrderedDict()

    # A reply on its way

    async def progress(self, turn: str) -> Progress | None:
        # Otherwise the shelf knows best: another process may have gone on.
        if turn in self._unkept:
            return self._unkept[turn]
        kept = await self._shelf.get(self._name("sent", turn))
        return None if kept is None else Progress(**orjson.loads(kept))

    async def keep_progress(self, turn: str, progress: Progress) -> None:
        """Note how far a reply has come; where that fails it is remembered here."""
        self._remember(turn, progress)
        value = orjson.dumps(
            {"parts": progress.parts, "edits": progress.edits, "ids": progress.ids}
        )
        await self._shelf.put(self._name("sent", turn), value, ttl_s=PROGRESS_S)
        self._unkept.pop(turn, None)

    def _remember(self, turn: str, progress: Progress) -> None:
        self._unkept[turn] = progress
        self._unkept.move_to_end(turn)
        if len(self._unkept) > REMEMBERED:
            self._unkept.popitem(last=False)

    async def keep_stream(self, address: Address, message: int) -> None:
        """Note which message shows what is written so far."""
        name = self._name("stream", address.key)
        await self._shelf.put(name, str(message).encode(), ttl_s=STREAM_S)

    async def stream(self, address: Address) -> int | None:
        return _number(await self._shelf.get(self._name("stream", address.key)))

    async def take_stream(self, address: Address) -> int | None:
        return _number(await self._shelf.take(self._name("stream", address.key)))

    # What a message is about

    async def keep_shown(
        self, address: Address, chat: str, message: int, turn: str
    ) -> None:
        """Note that a message of a chat shows the turn."""
        name = self._name("shown", f"{chat}:{message}")
        value = orjson.dumps([turn, address.key])
        await self._shelf.put(name, value, ttl_s=SHOWN_S)

    async def shown(self, chat: str, message: int) -> tuple[str, Address] | None:
        """Return the turn that a message shows, and its conversation."""
        kept = await self._shelf.get(self._name("shown", f"{chat}:{message}"))
        if kept is None:
            return None
        turn, key = orjson.loads(kept)
        return turn, Address.from_key(key)

    async def keep_question(self, address: Address, chat: str, message: int) -> None:
        name = self._name("question", f"{address.key} {address.user}")
        value = f"{chat} {message}".encode()
        await self._shelf.put(name, value, ttl_s=QUESTION_S)

    async def question(self, address: Address, chat: str) -> int | None:
        """
        Return the message in which the person has asked last, if it is in `chat`: in a
        group that moved, its number is another message's.
        """
        name = self._name("question", f"{address.key} {address.user}")
        kept = await self._shelf.get(name)
        if kept is None:
            return None
        there, message = kept.decode().split()
        return int(message) if there == chat else None

    # Chats

    async def keep_move(self, old: str, new: str) -> None:
        await self._shelf.put(self._name("moved-to", old), new.encode())
        await self._shelf.put(self._name("moved-from", new), old.encode())

    async def chat_now(self, chat: str) -> str:
        """Return the id by which a chat is called now."""
        return await self._other_name("moved-to", chat)

    async def chat_before(self, chat: str) -> str:
        """Return the id by which the conversation has always been called."""
        return await self._other_name("moved-from", chat)

    async def keep_lost(self, chat: str) -> None:
        await self._shelf.put(self._name("lost", chat), b"1", ttl_s=LOST_S)

    async def keep_found(self, chat: str) -> None:
        await self._shelf.remove(self._name("lost", chat))

    async def is_lost(self, chat: str) -> bool:
        return await self._shelf.get(self._name("lost", chat)) is not None

    async def _other_name(self, which: str, chat: str) -> str:
        # Only groups move.
        if not chat.startswith("-"):
            return chat
        other = await self._shelf.get(self._name(which, chat))
        return chat if other is None else other.decode()

    def _name(self, kind: str, of: str) -> str:
        return f"{self._bot} {kind} {of}"


def _number(kept: bytes | None) -> int | None:
    return None if kept is None else int(kept)

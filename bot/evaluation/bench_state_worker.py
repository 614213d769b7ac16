"""
The null bot of bench `state`: it answers at once and delivers by counting.

What it is made of is the program's own: inbox, workers, outbox, store. Run as a module
it is a process that answers only, until its standard input ends; it says on standard
output when it is at work. Loads no model library.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from bot.config import Config
from bot.conversation.manager import EVERYTHING, ConversationManager, Role
from bot.conversation.state import Committed, Waiting
from bot.conversation.store import Store
from bot.conversation.tokens import Token
from bot.interfaces import Accepted, Delivery
from bot.model import Address, Event, Record, Reply, Sent, Turn

PLATFORM = "bench"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
AT_WORK = b"at work\n"

# With it an event of the log has half a kilobyte.
_TEXT = (
    "A bicycle that was bought less than thirty days ago can be returned to any shop "
    "if it was ridden for less than fifty kilometres. The refund is paid to the card "
    "that was used, within five working days after the workshop has looked at it. "
)


class OutOfOrder(AssertionError):
    """Replies were lost, repeated or overtaken: what was measured means nothing."""


def bench_config() -> Config:
    """Return a configuration under which nothing is refused or cut off."""
    return Config.model_validate(
        {
            "knowledge": {"model": "none"},
            "generation": {"model": "none"},
            "conversation": {
                "max_events": 10_000,
                "lane_limit": 10_000,
                "messages_per_minute": 100_000,
            },
            "workers": {"concurrency": 200},
        }
    )


def address_of(conversation: str) -> Address:
    """Return a conversation's address; every one has its own customer."""
    return Address(platform=PLATFORM, account="a1", chat=conversation, user="u")


def message(conversation: str, number: int) -> Event:
    return Event(
        id=f"{conversation}-{number}",
        kind="message",
        address=address_of(conversation),
        time=NOON,
        text=text_of(number),
    )


def text_of(number: int) -> str:
    return f"{number} {_TEXT}"


def check_order(conversation: str, texts: Sequence[str], messages: int) -> None:
    """Raise OutOfOrder unless these are the replies to all messages, each once."""
    _check(conversation, texts, range(messages))


def check_log(conversation: str, texts: Sequence[str], turns: int) -> None:
    """Raise OutOfOrder unless this is what a log keeps of so many turns."""
    _check(conversation, texts, [number // 2 for number in range(2 * turns)])


def _check(conversation: str, texts: Sequence[str], wanted: Iterable[int]) -> None:
    if list(texts) != list(map(text_of, wanted)):
        found = ", ".join(text.partition(" ")[0] for text in texts)
        raise OutOfOrder(f"{conversation}: the order was {found}")


class NullAnswerer:
    """Says what it was asked. `asked` may keep it waiting."""

    def __init__(self, asked: Callable[[Turn], Awaitable[None]] | None = None) -> None:
        self._asked = asked

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: object = None,
    ) -> Record:
        if self._asked is not None:
            await self._asked(turn)
        return Record(
            turn=turn,
            outcome="answered",
            reply=Reply(text=turn.question),
            why="the null bot repeats what it is asked",
            config="null",
        )


class Deliveries:
    """A connector that keeps what it is given, and can be waited for."""

    name = PLATFORM
    delivery: Delivery = "at_most_once"

    def __init__(self) -> None:
        self._texts: defaultdict[str, list[str]] = defaultdict(list)
        self._left = 0
        self._all = asyncio.Event()

    def expect(self, replies: int) -> None:
        """Forget what came so far; `arrived` waits for so many more."""
        self._texts.clear()
        self._left = replies
        self._all.clear()

    async def arrived(self) -> Mapping[str, Sequence[str]]:
        """Wait for all that is expected; return each conversation's texts."""
        await self._all.wait()
        return self._texts

    async def run(self, accept: Callable[[Event], Awaitable[Accepted]]) -> None:
        await asyncio.Event().wait()

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        self._texts[address.chat].append(reply.text)
        self._left -= 1
        if self._left == 0:
            self._all.set()
        return Sent()

    async def status(self, address: Address, text: str) -> None:
        pass


class WatchedStore(Store):
    """A store that tells of its commits."""

    def __init__(
        self, url: str, config: Config, committed: Callable[[Token, Committed], None]
    ) -> None:
        super().__init__(url=url, settings=config.conversation)
        self._committed = committed

    async def commit(
        self, token: Token, answered: Sequence[Waiting], **kept: object
    ) -> Committed:
        committed = await super().commit(token, answered, **kept)  # type: ignore[arg-type]  # passed on as they come
        self._committed(token, committed)
        return committed


class _Nobody:
    """Observers that want to hear of nothing."""

    def hear_of_replies(self, address: Address) -> bool:
        return False

    async def turn_started(self, turn: Turn) -> None: ...
    async def turn_failed(self, turn: Turn, error: Exception) -> None: ...
    async def conversation_handed_over(self, turn: Turn, reason: str) -> None: ...
    async def conversation_resumed(self, address: Address) -> None: ...
    async def reply_sent(self, turn: Turn, reply: Reply) -> None: ...
    async def feedback_received(self, event: Event, record: Record | None) -> None: ...


def null_bot(
    store: Store,
    *,
    config: Config,
    answerer: NullAnswerer | None = None,
    connector: Deliveries | None = None,
    roles: Collection[Role] = EVERYTHING,
) -> ConversationManager:
    return ConversationManager(
        store=store,
        answerer=answerer or NullAnswerer(),
        connectors={PLATFORM: connector or Deliveries()},
        observers=_Nobody(),
        config=config,
        explain=str,
        clock=lambda: NOON,
        seeds=lambda: 1,
        roles=roles,
        patient=False,
    )


async def work(url: str) -> None:
    """Answer until standard input ends: the bench is over, or died."""
    config = bench_config()
    async with (
        Store(url=url, settings=config.conversation) as store,
        null_bot(store, config=config, roles=["workers"]),
    ):
        sys.stdout.buffer.write(AT_WORK)
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))

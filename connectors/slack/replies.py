"""
Replies: each one in Slack exactly once, in as many messages as it takes.

Keeps the sends of one conversation apart, and knows how far each has come; `sending`
does the rest. Knows nothing of how a draft came about.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bot.errors import DeliveryError, StoreError
from bot.model import Address, Reply, Sent
from connectors.slack.additions import additions_of
from connectors.slack.drafts import Drafts
from connectors.slack.history import History
from connectors.slack.lines import Lines
from connectors.slack.progress import Ledger, Progress
from connectors.slack.rendering import parts_of
from connectors.slack.sending import Means, Sending
from connectors.slack.threads import Threads
from connectors.slack.web_api import Unanswered
from connectors.slack.workspaces import Workspaces

logger = logging.getLogger(__name__)


class Replies:
    """Sends replies; `feedback` asks whether they helped."""

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        workspaces: Workspaces,
        drafts: Drafts,
        lines: Lines,
        ledger: Ledger,
        history: History,
        threads: Threads,
        means: Means,
        feedback: bool,
    ) -> None:
        self._workspaces = workspaces
        self._drafts = drafts
        self._lines = lines
        self._ledger = ledger
        self._history = history
        self._threads = threads
        self._means = means
        self._feedback = feedback

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        """Send what is not there yet."""
        # It is asked before Slack is told anything, so nothing has to be found out.
        with _store_is_back_later():
            async with self._lines.hold(address.key):
                return await self._send(address, reply, key)

    async def find(self, address: Address, key: str) -> Sent | None:
        """Return the messages of a reply if all of them are there."""
        with _store_is_back_later():
            progress = await self._ledger.read(key)
            workspace = await self._workspaces.of(address.account)
        if progress is None:
            progress = Progress(since=self._ledger.since())
        elif progress.whole:
            return Sent(ids=progress.done)
        there, parts = await self._history.parts_of(
            workspace, address, key, progress.since
        )
        if not there or set(there) != set(range(1, parts + 1)):
            return None
        return Sent(ids=[there[number] for number in sorted(there)])

    async def _send(self, address: Address, reply: Reply, key: str) -> Sent:
        progress, shown = await self._progress(address, key)
        if progress.whole:
            return Sent(ids=progress.done)
        additions = additions_of(reply)
        if additions.left_out:
            logger.info(
                "of the reply of turn %s, %d pictures or custom parts cannot be shown",
                key,
                additions.left_out,
            )
        sending = Sending(
            means=self._means,
            workspace=await self._workspaces.of(address.account),
            address=address,
            key=key,
            parts=parts_of(reply, additions, key, feedback=self._feedback),
            progress=progress,
            shown=shown,
        )
        try:
            await sending.run()
        except Unanswered:
            return Sent(ids=progress.done, status="unknown")
        progress.whole = True
        await self._ledger.note(key, progress)
        # Only so that who answers in the thread is understood: the reply is out.
        with suppress(StoreError):
            await self._threads.join(address)
        return Sent(ids=progress.done)

    async def _progress(
        self, address: Address, key: str
    ) -> tuple[Progress, str | None]:
        """Return how far it has come; at first that is as far as its draft, if any."""
        progress = await self._ledger.read(key)
        if progress is not None:
            return progress, None
        progress = Progress(since=self._ledger.since())
        draft = await self._drafts.open(address)
        if draft is None:
            return progress, None
        progress.drafts = list(draft.stamps)
        progress.streams, progress.lost = draft.streams, draft.lost
        await self._ledger.write(key, progress)
        # From here on it is this reply's alone.
        await self._drafts.drop(address)
        return progress, draft.shown


@contextmanager
def _store_is_back_later() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise DeliveryError(
            "slack: the store is away; it is tried again by itself", retryable=True
        ) from error

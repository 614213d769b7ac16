"""
Runs one action, wherever it is: finds it, waits for it, times it, says how it failed.

Knows nothing of when an action runs or what becomes of what it did.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bot import metrics
from bot.actions.calls import ActionAnswer, ActionCall, ActionPlace
from bot.config_file import did_you_mean
from bot.errors import ActionError, ActionFault, TurnCancelled, place_of
from bot.model import ActionRun

LOOK_S = 0.05
LONGEST_NAMES = 300  # characters of what there is, in a sentence
NOTHING = ActionAnswer()

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """
    How an action ran: for the record, what it answered, and whether that is to be
    worded. `fault` says how it failed; there is no answer then.
    """

    run: ActionRun
    answer: ActionAnswer = NOTHING
    reword: bool = False
    fault: ActionFault | None = None


class Runner:
    """The way to all actions; of two places with the same name the first has it."""

    def __init__(self, places: Sequence[ActionPlace]) -> None:
        self._places = tuple(places)

    async def place_of(self, name: str) -> ActionPlace | None:
        """
        Return where an action is, None when nobody has it; ActionError when a server
        that could not be asked may have it.
        """
        unasked: ActionError | None = None
        for place in self._places:
            try:
                if name in await place.names():
                    return place
            except ActionError as error:
                unasked = error
        if unasked is not None:
            told = f"nobody else has it, and a server did not say: {unasked}"
            raise ActionError(name, "away", told) from unasked
        return None

    async def names(self) -> list[str]:
        """Return all that is known; what a server does not say for now is left out."""
        found: dict[str, None] = {}
        for place in self._places:
            try:
                found |= dict.fromkeys(await place.names())
            except ActionError as error:
                logger.warning("an action server does not say what it has: %s", error)
        return list(found)

    async def run(
        self,
        call: ActionCall,
        *,
        trigger: str,
        cancelled: threading.Event,
        stream: Callable[[str], None],
    ) -> Ran:
        """
        Run an action to its end; whatever fails is in what is returned. Raises
        TurnCancelled as soon as `cancelled` is set, and leaves the action to itself.
        """
        began = time.perf_counter()
        place: ActionPlace | None = None
        failed: ActionError | None = None
        answer = NOTHING
        outcome: ActionFault | Literal["done", "cancelled"] = "cancelled"
        try:
            place = await self._found(call.name)
            answer = await _awaited(place.run(call, stream), call, cancelled)
            outcome = "done"
        except ActionError as error:
            failed, outcome = error, error.fault
        except TurnCancelled:
            raise
        # A place raises nothing else; if one does, that fails its action alone.
        except Exception as error:  # noqa: BLE001
            told = f"its place raised {place_of(error)}"
            logger.warning("the action %r failed: %s", call.name, told)
            failed, outcome = ActionError(call.name, "crashed", told), "crashed"
        finally:
            seconds = time.perf_counter() - began
            # A name that nobody has may be a stranger's invention, and is no label.
            counted = call.name if place else metrics.UNKNOWN_ACTION
            metrics.action_over(counted, outcome, seconds)
        return Ran(
            run=ActionRun(
                name=call.name,
                trigger=trigger,
                where=place.where if place else "nowhere",
                ms=1000 * seconds,
                events=answer.events,
                said=_texts(answer),
                problem="" if failed is None else str(failed),
            ),
            answer=answer,
            reword=place.reword if place else False,
            fault=None if failed is None else failed.fault,
        )

    async def close(self) -> None:
        """End every place, whatever the others do."""
        closing = [place.close() for place in self._places]
        for failed in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(failed, Exception):
                logger.warning("closing an action's place raised %s", place_of(failed))

    async def _found(self, name: str) -> ActionPlace:
        place = await self.place_of(name)
        if place is None:
            known = did_you_mean(name, await self.names())[:LONGEST_NAMES]
            raise ActionError(name, "missing", f"nobody has it; {known}")
        return place


def _texts(answer: ActionAnswer) -> Sequence[str]:
    said = [response.get("text") for response in answer.responses]
    return [text for text in said if isinstance(text, str)]


async def _awaited(
    running: Coroutine[Any, Any, ActionAnswer],
    call: ActionCall,
    cancelled: threading.Event,
) -> ActionAnswer:
    task = asyncio.ensure_future(running)
    try:
        while not task.done():
            # Two events cannot be awaited at once: look at the other now and then.
            if cancelled.is_set():
                raise TurnCancelled(
                    f"action {call.name!r}: turn {call.turn.id!r} was stopped"
                )
            await asyncio.wait({task}, timeout=LOOK_S)
        # Nobody here has cancelled it, and who waits is not cancelled with it.
        if task.cancelled():
            told = "waited for what was cancelled, and was cancelled with it"
            raise ActionError(call.name, "crashed", told)
        return task.result()
    finally:
        if not task.done():
            task.add_done_callback(_forget)
            task.cancel()


def _forget(task: asyncio.Task[ActionAnswer]) -> None:
    """Take what nobody waits for any more, or asyncio complains of it."""
    if not task.cancelled():
        task.exception()

"""
An action of rasa-sdk in this process: where it runs, how long, and what went wrong.

Knows neither why it runs nor what becomes of its answer. rasa-sdk, which takes a
quarter of a second to load, loads with the first action.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from bot.actions.answers import answer_of
from bot.actions.calls import ActionAnswer, ActionCall
from bot.actions.strangers import said
from bot.actions.threads import ActionThreads, Crowded, Raised
from bot.errors import ActionError, place_of
from bot.inference import Overdue

logger = logging.getLogger(__name__)


class InProcess:
    """
    A place with one action, `use`, as in `module:Class`; ConfigError says why there is
    none. `threads` are shared by all actions of this process, and end with any of them.
    """

    where = "in process"

    def __init__(
        self, use: str, *, timeout_s: float, reword: bool, threads: ActionThreads
    ) -> None:
        from bot.actions import executing, loading  # noqa: PLC0415 (load rasa-sdk)

        self._executing = executing
        self._action = executing.Executing(loading.loaded(use))
        self._timeout_s = timeout_s
        self._reword = reword
        self._threads = threads
        self._run_on = threads.on_loop if self._action.waits else threads.on_thread

    @property
    def name(self) -> str:
        return self._action.name

    @property
    def timeout_s(self) -> float:
        return self._timeout_s

    @property
    def reword(self) -> bool:
        return self._reword

    async def names(self) -> Sequence[str]:
        return (self.name,)

    async def run(
        self, call: ActionCall, stream: Callable[[str], None]
    ) -> ActionAnswer:
        speaking = self._executing.Speaking(stream)
        work = partial(self._action.run, call.request, speaking)
        try:
            body = await self._run_on(work, self._timeout_s)
        except Overdue as error:
            raise ActionError(call.name, "late", str(error)) from error
        except Crowded as error:
            raise ActionError(call.name, "late", f"was not begun: {error}") from error
        except Raised as error:
            raise self._failure(error.error) from error.error
        finally:
            # What was left to itself may go on speaking; nobody listens any more.
            speaking.close()
        return answer_of(call.name, body)

    async def close(self) -> None:
        self._threads.close()

    def _failure(self, error: BaseException) -> ActionError:
        if isinstance(error, ActionError):  # it has answered, and its answer is none
            return error
        words = said(error)
        if self._executing.is_rejection(error):
            return ActionError(self.name, "rejected", f"rejected the call: {words}")
        place = place_of(error)
        logger.warning("the action %r raised %s", self.name, place)
        return ActionError(self.name, "crashed", f"raised {place}: {words}")

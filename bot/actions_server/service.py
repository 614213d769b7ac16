"""
The service behind both transports: Rasa's requests, answered or refused.

Knows neither HTTP nor gRPC. Trust that whatever an action does, the answer is one, or
Refused with a sentence that quotes nothing of the request and nothing that a stranger's
exception says.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from bot.actions.calls import ActionAnswer, ActionCall, JsonObject
from bot.actions.runner import Runner
from bot.actions_server.replying import GENERATE, Replying
from bot.actions_server.requests import (
    ActionRequest,
    Fault,
    Refused,
    WordingRequest,
)
from bot.actions_server.trackers import turn_of
from bot.actions_server.wording import Wordings
from bot.config_file import did_you_mean
from bot.errors import ActionFault, place_of

logger = logging.getLogger(__name__)

LONGEST_NAME = 100

# What is said of an action that has no answer.
SAID: Mapping[ActionFault, tuple[Fault, str]] = {
    "missing": ("missing", "there is no action of this name"),
    "rejected": ("rejected", "the action rejected its execution"),
    "crashed": ("failed", "the action raised an error; see the log of Chorus"),
    "late": ("failed", "the action took longer than it may (timeout_s)"),
    "away": ("failed", "the server of the action cannot be reached"),
    "nonsense": ("failed", "the action's answer is none of rasa-sdk's"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Runs actions and words responses. What is cancelled stops generating."""

    runner: Runner
    replying: Replying
    wordings: Wordings

    async def names(self) -> list[str]:
        """Return the actions that can run, ours first."""
        return list(dict.fromkeys([GENERATE, *await self.runner.names()]))

    async def run(
        self, request: ActionRequest, show: Callable[[str], None]
    ) -> ActionAnswer:
        """
        Run the action that is named. `show` is told its text as far as it has come;
        any thread may call it. Raises Refused.
        """
        try:
            if request.action == GENERATE:
                return await self.replying.run(request, show)
            return await self._run(request, show)
        except Refused:
            raise
        # Ours to fix, and the customer's words may be in it.
        except Exception as error:  # noqa: BLE001
            logger.error(  # noqa: TRY400
                "action %r was not run: %s",
                request.action[:LONGEST_NAME],
                place_of(error),
            )
            raise Refused(*SAID["crashed"], request.action) from None

    async def word(self, request: WordingRequest, *, reword: bool) -> JsonObject:
        """Return a response in words, in Rasa's format; raises Refused."""
        return await self.wordings.word(request, reword=reword)

    async def _run(
        self, request: ActionRequest, show: Callable[[str], None]
    ) -> ActionAnswer:
        settings = self.replying.config.conversation
        call = ActionCall(
            name=request.action,
            turn=turn_of(request.tracker, request.sender, settings),
            request=request.body,
        )
        never = threading.Event()  # who stops us cancels us
        ran = await self.runner.run(call, trigger="Rasa", cancelled=never, stream=show)
        if ran.fault is None:
            return ran.answer
        logger.warning(
            "action %r of conversation %s was not done: %s",
            request.action[:LONGEST_NAME],
            call.turn.message.address.digest,
            ran.fault,
        )
        raise await self._refusal(request.action, ran.fault)

    async def _refusal(self, action: str, fault: ActionFault) -> Refused:
        kind, said = SAID[fault]
        if fault == "missing":
            near = did_you_mean(action[:LONGEST_NAME], await self.names())
            said = f"{said}; {near}"
        return Refused(kind, said, action[:LONGEST_NAME])


def as_object(answer: ActionAnswer) -> dict[str, JsonValue]:
    """Return an answer as the webhook has it."""
    return {
        "events": [dict(event) for event in answer.events],
        "responses": [dict(response) for response in answer.responses],
    }

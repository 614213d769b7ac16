"""
What an action is given and what it gives back, and where actions are.

The request and the answer are those of rasa-sdk's webhook. Knows no way to run one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from bot.model import Reply, Turn

JsonObject = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionCall:
    """
    One run of an action: `request` is the webhook's body, as JSON. It is bytes, so that
    nobody who reads it holds an object of ours. `turn` and `arguments`, what the
    customer wrote after a command, are what plugins' actions are given.
    """

    name: str
    turn: Turn
    request: bytes
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionAnswer:
    """
    What an action did and said: `events` and `responses` as rasa-sdk's webhook has them
    (rasa_sdk/events.py; `text`, `buttons`, `elements`, `custom`, `response`, `image`,
    `attachment` and any others). Responses that streamed are one each, with a whole
    text. `reply` is what a plugin's action said, all of it, in place of its response.
    """

    events: Sequence[JsonObject] = ()
    responses: Sequence[JsonObject] = ()
    reply: Reply | None = None


class ActionPlace(Protocol):
    """
    Where actions are: this process, a server, a plugin. `where` names it for people,
    `names` are its actions as far as they are known without asking anybody. `reword`:
    what they say is worded by the generator.
    """

    @property
    def where(self) -> str: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def reword(self) -> bool: ...
    async def names(self) -> Sequence[str]:
        """Return what can run here; ActionError when a server cannot be asked."""
        ...

    async def run(
        self, call: ActionCall, stream: Callable[[str], None]
    ) -> ActionAnswer:
        """
        Run one action, within `timeout_s`. `stream` is told the text of a streaming
        action as far as it has come; any thread may call it. Raises ActionError, and
        nothing else but asyncio's cancellation.
        """
        ...

    async def close(self) -> None: ...


def unseen(text: str) -> None:
    """Nobody watches an action speak here."""

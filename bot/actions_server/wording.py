"""
Wording: what Rasa asks its NLG server for, a response by its name.

Knows no transport, and no way to generate. Rasa has the response's name and its values
alone, so the words are those of `actions.responses`. Trust that an answer is one that
Rasa accepts: what it does not, it drops, with what the action did.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from bot.actions.calls import JsonObject
from bot.actions.responses import Responses, UnknownResponse
from bot.actions_server.requests import WordingRequest
from bot.actions_server.trackers import turn_of
from bot.config import Config
from bot.errors import place_of
from bot.model import Turn

logger = logging.getLogger(__name__)


class Worded(Protocol):
    @property
    def text(self) -> str: ...


class Words(Protocol):
    """Says a text in the model's words, keeping its numbers and names."""

    async def reworded(
        self, turn: Turn, text: str, cancelled: threading.Event
    ) -> Worded: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wordings:
    """Words responses; the model's words are for those that ask for them."""

    responses: Responses
    words: Words
    config: Config

    async def word(self, request: WordingRequest, *, reword: bool) -> JsonObject:
        """
        Return the response in Rasa's format. One that nobody wrote says nothing: after
        an error Rasa 3.6 drops what the action did, takes a form for filled and does
        not restart; and it asks for some (utter_restart) whether they are there or not.
        """
        turn = turn_of(request.tracker, request.sender, self.config.conversation)
        try:
            rendered = self.responses.render(
                request.response,
                request.arguments,
                platform=request.platform,
                slots=turn.slots,
                seed=turn.seed,
            )
        except UnknownResponse as unknown:
            logger.warning("nothing is said: %s", unknown)
            return _answer({}, "")
        for problem in rendered.problems:
            logger.warning("%s", problem)
        text = rendered.response.get("text")
        said = text if isinstance(text, str) else ""
        if said and (reword or rendered.reword):
            said = await self._reworded(turn, said)
        return _answer(rendered.response, said)

    async def _reworded(self, turn: Turn, text: str) -> str:
        cancelled = threading.Event()
        try:
            return (await self.words.reworded(turn, text, cancelled)).text or text
        # Plugins and models can fail in any way, and the operator's words are there.
        except Exception as error:  # noqa: BLE001
            logger.warning("a response was not reworded: %s", place_of(error))
            return text
        finally:
            cancelled.set()


def _answer(response: JsonObject, text: str) -> dict[str, JsonValue]:
    """Return what `nlg_response_format_spec` describes: every key, and no other."""
    attachment = response.get("attachment")
    return {
        "text": text,
        "id": None,
        "buttons": response.get("buttons", []),
        "elements": [],
        # In its own responses Rasa has an address here; from us it takes objects.
        "attachment": _file(attachment) if attachment else None,
        "image": response.get("image"),
        "custom": response.get("custom", {}),
    }


def _file(address: JsonValue) -> JsonValue:
    return {"type": "file", "payload": {"src": address}}

"""
Chunks: a text that grows, as the events of rasa-sdk's stream.

Knows neither gRPC nor who makes the text. An action tells its text as far as it has
come; a text that does not go on from the one before is another response.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from bot.actions.calls import ActionAnswer, JsonObject

# What a chunk has room for, beside its text.
IN_CHUNKS = ("image", "custom", "attachment", "buttons", "elements")
# A template's name, twice: without it there is nothing to be said.
EMPTY_WITHOUT_TEXT = ("text", "metadata")


@dataclass(slots=True)
class Chunks:
    """
    The responses of one run that stream. `response_id` names the one that is open,
    empty where none is; `whole` are the texts of those that ended.
    """

    response_id: str = ""
    whole: list[str] = field(default_factory=list)
    _text: str = ""

    def grown(self, text: str) -> Iterator[JsonObject]:
        """Yield what makes this of what was said so far."""
        if self.response_id and not text.startswith(self._text):
            yield from self.ended()
        if not self.response_id:
            yield from self._begun()
        new, self._text = text[len(self._text) :], text
        if new:
            yield {"chunk": {"response_id": self.response_id, "text": new}}

    def said(self, response: JsonObject) -> Iterator[JsonObject]:
        """Yield a whole response; it goes on from the text of it that was said."""
        text = response.get("text")
        if isinstance(text, str) and text:
            yield from self.grown(text)
        rest = {name: response[name] for name in IN_CHUNKS if response.get(name)}
        if rest:
            if not self.response_id:
                yield from self._begun()
            yield {"chunk": {"response_id": self.response_id, **rest}}
        yield from self.ended()

    def ended(self) -> Iterator[JsonObject]:
        """Yield the end of the response that is open, if one is."""
        if self.response_id:
            yield {"chunk_end": {"response_id": self.response_id}}
            self.whole.append(self._text)
        self.response_id, self._text = "", ""

    def unsaid(self, answer: ActionAnswer) -> ActionAnswer:
        """Return an answer without the texts that were said in chunks."""
        said = list(self.whole)
        left: list[JsonObject] = []
        for response in answer.responses:
            if response.get("text") in said:
                said.remove(str(response["text"]))
                rest = {**response, "text": None}
                if any(_holds(rest)):
                    left.append(rest)
            else:
                left.append(response)
        return ActionAnswer(events=answer.events, responses=left)

    def _begun(self) -> Iterator[JsonObject]:
        self.response_id = uuid.uuid4().hex
        yield {"chunk_start": {"response_id": self.response_id}}


def _holds(response: Mapping[str, JsonValue]) -> Iterator[bool]:
    return (
        bool(value)
        for name, value in response.items()
        if name not in EMPTY_WITHOUT_TEXT
    )

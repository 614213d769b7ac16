"""
How an action of rasa-sdk runs: as its server would run it, but for itself.

Each run has an executor, a parsed call and a copy of the action of its own, so that
conversations cannot mix. Knows neither threads nor time limits. Loads rasa-sdk.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from rasa_sdk.executor import ActionExecutor, CollectingDispatcher
from rasa_sdk.forms import ValidationAction
from rasa_sdk.interfaces import Action, ActionExecutionRejection

from bot.actions.answers import read, written

# Characters of a stream that are shown while it grows: each piece shows all of it, and
# platforms show less.
LONGEST_SHOWN = 50_000


class Executing:
    """One action, which may run many times at once."""

    def __init__(self, action: Action) -> None:
        self._action = action
        self.name: str = action.name()
        self._executor = ActionExecutor()
        self._executor.register_function(self.name, self._run_a_copy)

    @property
    def waits(self) -> bool:
        """
        Whether the author wrote what waits with await: that belongs on an event loop.
        Everything else may block.
        """
        cls = type(self._action)
        authors = [
            value
            for name in dir(cls)
            if inspect.isfunction(value := getattr(cls, name))
            and not value.__module__.startswith("rasa_sdk.")
        ]
        if isinstance(self._action, ValidationAction) and cls.run not in authors:
            return any(map(inspect.iscoroutinefunction, authors))
        return inspect.iscoroutinefunction(cls.run)

    async def run(self, request: bytes, speaking: Speaking) -> bytes:
        """Return the webhook's answer to this request; raises what the action does."""
        # A copy, because an executor keeps the domain of its last call for the next.
        executor = copy.copy(self._executor)
        result = await executor.run(read(request), speaking, speaking.dispatcher)
        return written(self.name, result.events, result.responses)

    def _run_a_copy(self, dispatcher: Any, tracker: Any, domain: Any) -> Any:
        """
        What a run keeps on `self` ends with it; what `__init__` made is shared. The
        executor takes an empty domain for none.
        """
        return copy.copy(self._action).run(dispatcher, tracker, domain or {})


def is_rejection(error: BaseException) -> bool:
    """Tell whether an action says with this that it is not the one to run."""
    return isinstance(error, ActionExecutionRejection)


class Speaking:
    """
    What rasa-sdk takes for the queue of a streaming transport: hears what the action
    says at once, and makes one message of it where the stream ends.
    """

    def __init__(self, stream: Callable[[str], None]) -> None:
        self.dispatcher = CollectingDispatcher()
        self._stream = stream
        self._chunks: list[dict[str, Any]] = []
        self._text = ""
        self._closed = False

    def close(self) -> None:
        self._closed = True

    async def put(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "stream_start":
                self._chunks, self._text = [], ""
            case "stream_chunk":
                self._hear({key: event[key] for key in event if key != "event"})
            case "stream_end":
                for message in _whole(self._chunks):
                    self.dispatcher.utter_message(**message)
                self._chunks, self._text = [], ""

    def _hear(self, chunk: dict[str, Any]) -> None:
        self._chunks.append(chunk)
        if chunk.get("text") is None or self._closed:
            return
        if len(self._text) < LONGEST_SHOWN:
            self._text += f"{chunk['text']}"
            self._stream(self._text)


def _whole(chunks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    Return one message with all of the text, the buttons and the rest of the chunks;
    further ones only for further images and attachments, of which a message has one.
    """
    if not chunks:
        return []
    whole: dict[str, Any] = {}
    further: list[dict[str, Any]] = []
    texts: list[str] = []
    for chunk in chunks:
        for name, value in chunk.items():
            match name:
                case "text":
                    texts.append(f"{value}")
                case "buttons" | "elements":
                    whole.setdefault(name, []).extend(value)
                case "image" | "attachment" if name in whole:
                    further.append({name: value})
                case "custom":
                    whole.setdefault("json_message", {}).update(value)
                case _:
                    whole[name] = value
    if texts:
        whole["text"] = "".join(texts)
    return [whole, *further]

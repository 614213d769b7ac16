"""
A server of actions, as rasa-sdk's: what it has, and one of its actions run there.

Knows the webhook's words for what went wrong, and nothing of HTTP below it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from bot.actions.answers import answer_of, read
from bot.actions.calls import ActionAnswer, ActionCall, JsonObject
from bot.errors import ActionError

if TYPE_CHECKING:
    from bot.actions.remote_http import Answer, Http

FRESH_S = 300.0  # how long it is believed what a server has
PAUSE_S = 10.0  # before a server that did not say is asked again
LIST_S = 5.0  # that it may take to say

LONGEST_NAME = 100  # characters; nothing here could name a longer one

_LIST = "GET /actions"
_LONGEST_SAID = 300  # characters of why an action rejects a call


class Remote:
    """
    A place on another machine. `url` may end with /webhook, as it does in Rasa's files.
    `actions` are those that may run, none for all; what `streams` say comes in pieces.
    """

    def __init__(  # noqa: PLR0913 (all that an operator says of a server)
        self,
        *,
        url: str,
        token: SecretStr | None,
        actions: Sequence[str],
        streams: Collection[str],
        timeout_s: float,
        reword: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._where = url.rstrip("/").removesuffix("/webhook").rstrip("/")
        self._token = token.get_secret_value() if token else ""
        self._actions = tuple(actions)
        self._streams = frozenset(streams)
        self._timeout_s = timeout_s
        self._reword = reword
        self._clock = clock
        self._http: Http | None = None
        self._listed: tuple[float, Sequence[str] | ActionError] | None = None

    @property
    def where(self) -> str:
        return self._where

    @property
    def timeout_s(self) -> float:
        return self._timeout_s

    @property
    def reword(self) -> bool:
        return self._reword

    async def names(self) -> Sequence[str]:
        """
        Return what the operator allows; with no such list, what the server says it has,
        which is remembered for a while, as is that it did not say.
        """
        if self._actions:
            return self._actions
        listed = self._remembered()
        if listed is None:
            listed = await self._ask()
        if isinstance(listed, ActionError):
            raise listed
        return listed

    async def run(
        self, call: ActionCall, stream: Callable[[str], None]
    ) -> ActionAnswer:
        answer = await self._opened().post(
            "/webhook", call.request, call.name, self._timeout_s
        )
        if answer.status != 200:  # noqa: PLR2004 (HTTP's own)
            raise self._refusal(call.name, answer)
        found = answer_of(call.name, answer.body)
        if call.name not in self._streams:
            return found
        return ActionAnswer(events=found.events, responses=joined(found.responses))

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    def _opened(self) -> Http:
        if self._http is None:
            from bot.actions.remote_http import Http  # noqa: PLC0415 (loads aiohttp)

            self._http = Http(self._where, self._token)
        return self._http

    def _remembered(self) -> Sequence[str] | ActionError | None:
        if self._listed is None:
            return None
        when, listed = self._listed
        lasts = PAUSE_S if isinstance(listed, ActionError) else FRESH_S
        return listed if self._clock() < when + lasts else None

    async def _ask(self) -> Sequence[str] | ActionError:
        listed: Sequence[str] | ActionError
        try:
            answer = await self._opened().get(
                "/actions", _LIST, min(LIST_S, self._timeout_s)
            )
            if answer.status != 200:  # noqa: PLR2004
                raise self._refusal(_LIST, answer)
            listed = _names_in(answer.body)
        except ActionError as error:
            listed = error
        self._listed = (self._clock(), listed)
        return listed

    def _refusal(self, action: str, answer: Answer) -> ActionError:
        """Say what a status means; of a body, only why an action rejects the call."""
        named = _object_in(answer.body)
        match answer.status:
            case 400 if "action_name" in named:
                said = f"{named.get('error')}"[:_LONGEST_SAID]
                return ActionError(action, "rejected", f"rejected the call: {said}")
            case 404 if "action_name" in named:
                said = f"{self._where} does not have it"
                return ActionError(action, "missing", said)
            case 404:
                return ActionError(
                    action,
                    "missing",
                    f"{self._where} is no action server (404); name one",
                )
            case 401 | 403:
                return ActionError(
                    action,
                    "away",
                    f"{self._where} refused the token ({answer.status}); correct it in "
                    "actions.sources",
                )
            case 449:
                return ActionError(
                    action,
                    "crashed",
                    f"{self._where} asks for a domain (449), which it was sent; see "
                    "whether it is rasa-sdk",
                )
            case _:
                return ActionError(
                    action,
                    "crashed",
                    f"{self._where} answered {answer.status}; see its log",
                )


def joined(responses: Sequence[JsonObject]) -> list[JsonObject]:
    """Return the responses with those that are text alone joined, as they streamed."""
    whole: list[JsonObject] = []
    for response in responses:
        if whole and _is_text(whole[-1]) and _is_text(response):
            text = f"{whole[-1]['text']}{response['text']}"
            whole[-1] = {**whole[-1], "text": text}
        else:
            whole.append(response)
    return whole


def _is_text(response: JsonObject) -> bool:
    return isinstance(response.get("text"), str) and not any(
        value for name, value in response.items() if name != "text"
    )


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        found = read(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _names_in(body: bytes) -> Sequence[str]:
    try:
        found = read(body)
    except (ValueError, RecursionError):
        found = None
    listed = found if isinstance(found, list) else [found]
    names = [one.get("name") for one in listed if isinstance(one, dict)]
    if len(names) < len(listed) or not all(isinstance(name, str) for name in names):
        raise ActionError(
            _LIST, "nonsense", "its answer is no list of actions; see the address"
        )
    return [name for name in names if name and len(name) <= LONGEST_NAME]

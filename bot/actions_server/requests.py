"""
Requests: what Rasa sends, from bytes of strangers to a request, or why it is none.

Knows the shape that Rasa's requests have, not what is done with them, nor how they
come. Trust that a request that was read is whole: what is missing is empty, and what
has another type than Rasa's was refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson
from pydantic import JsonValue

from bot.actions.calls import JsonObject

# Bytes of a body, inflated or not. A tracker of 400 turns has about 750,000.
LARGEST = 8 * 1024 * 1024

# The end of a request that came without a domain. Without one, rasa-sdk asks for it
# (449); for `{}` it gives the action the one of its last call, which may be another
# assistant's; by the digest it would believe to have this one.
EMPTY_DOMAIN = (
    b',"domain":{"slots":{},"forms":{},"responses":{},"intents":[],"entities":[],'
    b'"actions":[]},"domain_digest":null}'
)

# Everything that a backslash begins is read, so that in `\\ud83d`, a backslash and four
# letters, nothing is taken for an escape.
_ESCAPE = re.compile(
    rb"\\(?:"
    rb"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|.)",
    re.DOTALL,
)

Fault = Literal["malformed", "rejected", "missing", "failed"]


class Refused(Exception):
    """
    Why there is no answer: the request is none of Rasa's, the action rejected it, there
    is no such action, or it failed. What it says quotes nothing of the request.
    """

    def __init__(self, fault: Fault, said: str, action: str = "") -> None:
        super().__init__(said)
        self.fault = fault
        self.said = said
        self.action = action


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequest:
    """
    An action to run; `action` is empty where Rasa named none. `body` is the request as
    the action gets it, which always has a domain.
    """

    action: str
    sender: str
    tracker: JsonObject
    domain: JsonObject
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordingRequest:
    """
    A response to be worded; `arguments` are what an action said it with, `platform` is
    the channel that the customer is on.
    """

    response: str
    sender: str
    platform: str
    tracker: JsonObject
    arguments: JsonObject


def read_action(body: bytes) -> ActionRequest:
    """Return the request for an action; raises Refused."""
    body, request = _object(body)
    domain = _part(request, "domain")
    tracker = _part(request, "tracker")
    action = _text(request, "next_action")
    if action and not domain:
        body = _with_empty_domain(body)
    return ActionRequest(
        action=action,
        sender=_text(request, "sender_id") or _told(tracker, "sender_id"),
        tracker=tracker,
        domain=domain,
        body=body,
    )


def read_wording(body: bytes) -> WordingRequest:
    """Return the request for wording; raises Refused."""
    _, request = _object(body)
    response = _text(request, "response")
    if not response:
        raise Refused("malformed", "response: the name of a response is missing")
    tracker = _part(request, "tracker")
    return WordingRequest(
        response=response,
        sender=_told(tracker, "sender_id"),
        # `channel` names what collects Rasa's answers, whatever the customer is on.
        platform=_told(tracker, "latest_input_channel"),
        tracker=tracker,
        arguments=_part(request, "arguments"),
    )


def to_json(answer: Mapping[str, object] | Sequence[object]) -> bytes:
    """
    Return an answer as JSON that anybody can read: no NaN, no half surrogates. Raises
    ValueError when it is no JSON.
    """
    try:
        return orjson.dumps(answer)
    except TypeError:  # half a surrogate, or what only the slow way can tell
        return _slowly(answer)


def _slowly(answer: object) -> bytes:
    try:
        written = json.dumps(answer, allow_nan=False).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(type(error).__name__) from error
    return without_half_surrogates(written)


def without_half_surrogates(body: bytes) -> bytes:
    r"""Return JSON with U+FFFD in place of every `\ud83d` that is not half a pair."""
    return _ESCAPE.sub(
        lambda found: rb"\ufffd" if found["half"] else found.group(), body
    )


def _object(body: bytes) -> tuple[bytes, dict[str, JsonValue]]:
    """Return the object that a body holds, and the body, without half surrogates."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        # What a customer typed: Rasa passes it on, and orjson does not read it.
        body = without_half_surrogates(body)
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            told = f"the body is not JSON (line {error.lineno}, column {error.colno})"
            raise Refused("malformed", told) from None
    if not isinstance(request, dict):
        raise Refused("malformed", "the body is JSON, but no object")
    return body, request


def _with_empty_domain(body: bytes) -> bytes:
    """
    Add a domain to a request that has none, or nothing in it. Of two equal keys the
    last counts; written anew, the body would lose what a float cannot hold.
    """
    return body.rstrip()[:-1] + EMPTY_DOMAIN


def _part(request: JsonObject, name: str) -> JsonObject:
    part = request.get(name)
    if part is None:
        return {}
    if not isinstance(part, dict):
        raise Refused("malformed", f"{name}: an object is expected")
    return part


def _text(request: JsonObject, name: str) -> str:
    text = request.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise Refused("malformed", f"{name}: a text is expected")
    return text


def _told(tracker: JsonObject, name: str) -> str:
    told = tracker.get(name)
    return told if isinstance(told, str) else ""

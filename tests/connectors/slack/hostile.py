"""
Requests that no Slack ever sent: real payloads with something wrong in them.

Everything comes from a seeded generator, so that a failure can be looked at again.
Knows nothing about what ought to become of them.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from bot.interfaces import WebRequest
from tests.connectors.slack.payloads import (
    SIGNING_SECRET,
    Payload,
    headers_of,
    request_of,
)
from tests.connectors.slack.service import SlackService

Headers = dict[str, str]
Spoil = Callable[[Headers, bytes], Headers]

CANARY = "canary-4b1d5e"  # in every text that a customer writes

# JSON that Python's own writer does not write.
_RAW = {
    "@@deep list@@": "[" * 2_000 + "]" * 2_000,
    "@@deep object@@": '{"a":' * 2_000 + "1" + "}" * 2_000,
    "@@deeper@@": "[" * 50_000 + "]" * 50_000,
    "@@unclosed@@": "[" * 50_000,
    "@@huge number@@": "9" * 400,
    "@@small number@@": "1e-999",
    "@@large number@@": "1e999",
    "@@NaN@@": "NaN",
    "@@Infinity@@": "-Infinity",
    "@@half a character@@": '"\\ud83d"',
    "@@other half@@": '"a\\udc00b"',
    "@@zero@@": '"a\\u0000b"',
    "@@twice@@": '{"a":1,"a":2}',
}

_VALUES: Sequence[Any] = [
    None,
    True,
    False,
    0,
    -1,
    3.5,
    2**63,
    10**30,
    "",
    " ",
    "a",
    "0",
    "-1",
    "1.1",
    "1700000000.000100",
    "9" * 20,
    "99999999999.999999",
    "nan",
    "T1",
    "D1",
    "C1",
    "U1",
    "UBOTT1",
    "message",
    "channel_join",
    "bot_message",
    "block_actions",
    "../../etc/passwd",
    "a:b:c",
    "{}",
    "[]",
    "null",
    "\u202e\u2066abc",
    "\ufeff",
    "ß" * 300,
    "x" * 5_000,
    "<@UBOTT1>",
    "<" * 500,
    "<@" + "U" * 500,
    "&lt;" * 100,
    [],
    {},
    [[]],
    [{}],
    [None],
    ["a", 1, None],
    {"id": "T1"},
    {"team_id": {}},
    {"": ""},
    *_RAW,
]

_CONTENT_TYPES = [
    "",
    "application/json",
    "application/json; charset=utf-16",
    "APPLICATION/JSON",
    "application/x-www-form-urlencoded",
    "application/x-www-form-urlencoded; charset=latin-1",
    "multipart/form-data; boundary=x",
    "text/plain",
    "application/xml",
    "application/json, application/x-www-form-urlencoded",
    ";",
    "\u00e4",
]

_METHODS = ["GET", "PUT", "HEAD", "post", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request. `signed`: it has a right and recent signature."""

    request: WebRequest
    signed: bool


def real_payloads(slack: SlackService) -> list[Payload]:
    """Return one payload of every kind that Slack sends."""
    customer = slack.customer
    workspace = slack.state.workspaces["T1"]
    posted = slack.state.post(
        workspace,
        slack.state.channels["C1"],
        text="Five days.",
        thread_ts="1700000000.000100",
        blocks=[_feedback_block()],
        metadata={
            "event_type": "chorus_reply",
            "event_payload": {"key": "0123456789abcdef", "part": 1, "parts": 1},
        },
    )
    text = f"How long, {CANARY}?"
    said = [
        customer.message(text),
        customer.message(text, channel="C1", thread_ts=posted.thread),
        customer.message(
            text, channel="G1", subtype="file_share", files=[{"id": "F1"}]
        ),
        customer.message(text, bot_id="B9", user="U9"),
        *customer.mention(text),
    ]
    return [
        *said,
        customer.edited(said[1].ts),
        customer.edited(said[1].ts, f"How much, {CANARY}?"),
        customer.deleted(said[1].ts),
        customer.joined(),
        customer.reaction("+1", posted.ts),
        customer.reaction("+1", posted.ts, removed=True),
        customer.home_opened("messages"),
        customer.home_opened("home"),
        customer.assistant_thread_started(),
        customer.assistant_thread_started(changed=True),
        customer.session_stopped(posted.thread, channel="C1"),
        customer.tokens_revoked(),
        customer.uninstalled(),
        customer.url_verification(),
        customer.button("chorus_button_0", "0123456789abcdef:0", posted.ts),
        customer.feedback(posted.ts, good=True),
        customer.slash(text),
        customer.slash("help", channel="D1"),
    ]


def cases(
    payloads: Sequence[Payload], number: int, seed: int, path: str = "/slack/events"
) -> Iterator[Case]:
    """Yield so many requests, each with something wrong; three of four are signed."""
    chance = random.Random(seed)  # noqa: S311 (repeatable)
    for _ in range(number):
        payload = chance.choice(payloads)
        wrong = chance.choice(_WRONG)
        body = wrong(chance, payload)
        signed = chance.random() < 0.75
        request = request_of(payload, path=path, body=body)
        if not signed:
            request = unsigned(chance, request)
        if chance.random() < 0.1:
            kind = chance.choice(_CONTENT_TYPES)
            headers = {**request.headers, "content-type": kind}
            request = replace(request, headers=headers)
        if chance.random() < 0.03:
            request = replace(request, method=chance.choice(_METHODS))
        yield Case(request=request, signed=signed)


def unsigned(chance: random.Random, request: WebRequest) -> WebRequest:
    """Spoil the signature of a request in one of many ways."""
    spoil = chance.choice(list(SPOILT.values()))
    return replace(request, headers=spoil(dict(request.headers), request.body))


def _without(*names: str) -> Spoil:
    def spoil(headers: Headers, body: bytes) -> Headers:
        return {name: said for name, said in headers.items() if name not in names}

    return spoil


def _changed(name: str, change: Callable[[str], str]) -> Spoil:
    def spoil(headers: Headers, body: bytes) -> Headers:
        return {**headers, name: change(headers[name])}

    return spoil


def _signed_at(shift_s: float, form: str = "{:d}") -> Spoil:
    def spoil(headers: Headers, body: bytes) -> Headers:
        timestamp = form.format(int(time.time() + shift_s))
        payload = Payload({})
        again = headers_of(payload, body, timestamp=timestamp)
        return {**again, "content-type": headers["content-type"]}

    return spoil


def _signed_with(secret: str) -> Spoil:
    def spoil(headers: Headers, body: bytes) -> Headers:
        again = headers_of(Payload({}), body, secret=secret)
        return {**again, "content-type": headers["content-type"]}

    return spoil


_SIGNATURE, _TIMESTAMP = "x-slack-signature", "x-slack-request-timestamp"

# Every way in which a signature is none; each is refused.
SPOILT: dict[str, Spoil] = {
    "no signature": _without(_SIGNATURE),
    "no timestamp": _without(_TIMESTAMP),
    "neither": _without(_SIGNATURE, _TIMESTAMP),
    "empty signature": _changed(_SIGNATURE, lambda _: ""),
    "empty timestamp": _changed(_TIMESTAMP, lambda _: ""),
    "only the version": _changed(_SIGNATURE, lambda _: "v0="),
    "no version": _changed(_SIGNATURE, lambda said: said.removeprefix("v0=")),
    "another version": _changed(_SIGNATURE, lambda said: said.replace("v0", "v1", 1)),
    "another algorithm": _changed(_SIGNATURE, lambda said: f"sha256={said[3:]}"),
    "upper case": _changed(_SIGNATURE, lambda said: "v0=" + said[3:].upper()),
    "upper version": _changed(_SIGNATURE, lambda said: "V" + said[1:]),
    "one digit": _changed(_SIGNATURE, lambda said: said[:-1] + "0g"[said[-1] == "0"]),
    "cut short": _changed(_SIGNATURE, lambda said: said[:-1]),
    "too long": _changed(_SIGNATURE, lambda said: said + "0"),
    "a space": _changed(_SIGNATURE, lambda said: said + " "),
    "two signatures": _changed(_SIGNATURE, lambda said: f"{said},{said}"),
    "letters of no alphabet": _changed(_SIGNATURE, lambda said: "ü" * len(said)),
    "half a character": _changed(_SIGNATURE, lambda said: "v0=\udcff"),
    "another timestamp": _changed(_TIMESTAMP, lambda said: str(int(said) + 1)),
    "301 s ago": _signed_at(-301),
    "a day ago": _signed_at(-86_400),
    "in a day": _signed_at(86_400),
    "milliseconds": _changed(_TIMESTAMP, lambda said: f"{said}000"),
    "signed milliseconds": _signed_at(0, "{:d}000"),
    "a fraction": _signed_at(0, "{:d}.0"),
    "a sign": _signed_at(0, "+{:d}"),
    "spaces": _signed_at(0, " {:d}"),
    "an underscore": _signed_at(0, "{:_d}"),
    "exponent": _signed_at(0, "{:e}"),
    "hexadecimal": _signed_at(0, "0x{:x}"),
    "not a number": _changed(_TIMESTAMP, lambda _: "abc"),
    "infinite": _changed(_TIMESTAMP, lambda _: "inf"),
    "other digits": _changed(_TIMESTAMP, lambda _: "١٧٩٠٠٠٠٠٠٠"),
    "superscript": _changed(_TIMESTAMP, lambda _: "²"),
    "endless": _changed(_TIMESTAMP, lambda _: "1" * 5_000),
    "another secret": _signed_with("another secret"),
    "no secret": _signed_with(""),
    "the secret in other letters": _signed_with(SIGNING_SECRET.upper()),
}


def _one_value(chance: random.Random, payload: Payload) -> bytes:
    """Put something wrong in place of one to three values, wherever they are."""
    tree = json.loads(json.dumps(payload.content))
    for _ in range(chance.randint(1, 3)):
        places = list(_places(tree))
        if not places:
            break
        inside, key = chance.choice(places)
        match chance.randrange(10):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[chance.choice(["", "type", "team_id", "x" * 100])] = inside[key]
            case _:
                inside[key] = deepcopy(chance.choice(_VALUES))
    return _written(tree, payload)


def _another_root(chance: random.Random, payload: Payload) -> bytes:
    """Send no payload at all, but some value."""
    return _written(chance.choice(_VALUES), payload)


def _another_kind(chance: random.Random, payload: Payload) -> bytes:
    """Send what belongs in another form: a command as an event, and so on."""
    content = payload.content
    match chance.randrange(4):
        case 0:
            return json.dumps({"type": "event_callback", **content}).encode()
        case 1:
            return urlencode({"payload": json.dumps({"event": content})}).encode()
        case 2:
            inner = {"type": "event_callback", "event": content}
            return json.dumps({**inner, "team_id": "T1"}).encode()
        case _:
            return urlencode(
                {key: str(value) for key, value in content.items()}
            ).encode()


def _broken_bytes(chance: random.Random, payload: Payload) -> bytes:
    """Cut, turn over or put in bytes."""
    body = bytearray(payload.body)
    match chance.randrange(5):
        case 0:
            del body[chance.randrange(len(body)) :]
        case 1:
            for _ in range(chance.randint(1, 5)):
                body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        case 2:
            at = chance.randrange(len(body))
            body[at:at] = bytes([chance.randrange(256)]) * chance.randint(1, 40)
        case 3:
            body[:] = chance.randbytes(chance.randrange(200))
        case _:
            body[:] = b"\xef\xbb\xbf" + body
    return bytes(body)


def _broken_form(chance: random.Random, payload: Payload) -> bytes:
    """Send forms that are none: too many fields, broken escapes, fields twice."""
    return chance.choice(
        [
            b"&".join(b"a%d=1" % number for number in range(2_000)),
            b"payload=%ff%fe%00&payload=",
            b"payload=%",
            b"payload=" + b"%5B" * 20_000,
            b"payload=null",
            b"payload=%22abc%22",
            payload.body + b"&" + payload.body,
            b"command=%2Fchorus&text=%ED%A0%80&team_id=T1&channel_id=C1&user_id=U1",
            b"=&=&=;",
            b"",
        ]
    )


_WRONG = [_one_value] * 12 + [_another_root, _another_kind, _broken_bytes, _broken_form]


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield where a value is: what it is in, and its key there."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def _written(tree: Any, payload: Payload) -> bytes:
    written = json.dumps(tree)
    for name, raw in _RAW.items():
        written = written.replace(json.dumps(name), raw)
    if payload.kind == "events_api":
        return written.encode()
    if payload.kind == "slash_commands" and isinstance(tree, dict):
        return urlencode({key: str(value) for key, value in tree.items()}).encode()
    return urlencode({"payload": written}).encode()


def _feedback_block() -> dict[str, Any]:
    def button(text: str, rating: int) -> dict[str, Any]:
        label = {"type": "plain_text", "text": text}
        return {"text": label, "value": f"0123456789abcdef:{rating}"}

    element = {
        "type": "feedback_buttons",
        "action_id": "chorus_feedback",
        "positive_button": button("Yes", 1),
        "negative_button": button("No", -1),
    }
    return {"type": "context_actions", "elements": [element]}

"""
Updates that are real, and what becomes of them in a hostile hand.

`real_updates` are those of the stand-in, one of each kind and shape. `mutated` changes
one or two things in one of them: a value of the wrong type anywhere, a key that is
missing or given twice, broken bytes. The same seed always gives the same bodies.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.connectors.telegram.chats import BEN, BOT, ROBOT
from tests.connectors.telegram.limits import text_mention
from tests.connectors.telegram.people import People
from tests.connectors.telegram.wire import JSON

CANARY = "canary-of-the-body"

Path = tuple[str | int, ...]

# Put in the place of any value of an update.
HOSTILE: Sequence[Any] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    2**31,
    2**63,
    -(2**63) - 1,
    2**200,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "0",
    "\x00",
    "\ud83d",  # half a character
    "\udead\ud800",
    "x" * 5000,
    "🚲" * 4096,
    CANARY,
    [],
    {},
    [None],
    [[[[]]]],
    {"": ""},
    {"id": 1},
    [{"type": "bot_command", "offset": 0, "length": 99_999}],
    [{"type": "mention", "offset": -5, "length": 2**40}],
)

DEEP = 100_000

# Bodies that are no updates at all.
NO_UPDATES: Sequence[bytes] = (
    b"",
    b" ",
    b"null",
    b"true",
    b"[]",
    b"[1, 2]",
    b"0",
    b'"text"',
    b"{",
    b"{}",
    b"<<<",
    b"NaN",
    b'{"update_id": NaN}',
    b'{"update_id": Infinity}',
    b'{"update_id": 1e999}',
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b"[" * DEEP + b"]" * DEEP,
    b'{"update_id": 1, "message": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"update_id": 1, "message": {"text": "\\ud800"}}',
    b'{"update_id": 1, "message": {"text": "\xff\xfe"}}',
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b'{"update_id": 1}',
    b'{"update_id": 1, "message": null}',
    b'{"update_id": 1, "message": {}, "callback_query": {}}',
    b"update_id=1&message=hello",
)


def real_updates() -> list[JSON]:
    """Return an update of each kind and shape that the stand-in knows."""
    people = People(time.monotonic, lambda: None)
    people.updates.asked_for = _EveryKind()
    people.privacy = False
    ours = people.put(people.private(), BOT, {"text": "answer", "reply_markup": _KEYS})
    forum, group = people.supergroup(forum=True), people.supergroup()
    topic = people.topic(forum)
    said = people.say(f"{CANARY} 🚲 /why now")
    in_group = people.say(f"@chorus_bot {CANARY}?", chat=group, user=BEN)
    named = text_mention("🚲 Chorus, hi", "Chorus", BOT.wire)
    people.reply(f"and {CANARY}?", ours)
    people.reply("thanks", in_group["message"], user=BEN)
    people.say("🚲 Chorus, hi", chat=group, entities=[named])
    people.say("/help@chorus_bot please", chat=forum, thread=topic)
    people.say("/stop")
    people.say("beep", chat=group, user=ROBOT)
    people.picture(CANARY)
    people.picture()
    people.album("one", "", "three")
    people.edit(said, "changed")
    people.post("news", chat=people.channel())
    people.business("hi", connection="biz", user=BEN)
    people.press(ours, "Yes")
    people.press(ours, "👍")
    people.react(ours, "👍")
    people.react(ours, "👎", "🔥")
    people.react(ours)
    people.block()
    people.unblock()
    people.kick(group)
    people.add(group)
    people.migrate(people.group())
    people.show_draft({"chat_id": 42, "draft_id": 5, "text": "so", "can_stop": True})
    people.stop()
    people.other("something_new", {"chat": {"id": 1}, "text": CANARY})
    return list(people.updates.pending.values())


class _EveryKind(tuple[str, ...]):
    """Asked for whatever there is."""

    __slots__ = ()

    def __contains__(self, kind: object) -> bool:
        return True

    def __bool__(self) -> bool:
        return True


_TURN = "0123456789abcdef"
_KEYS = {
    "inline_keyboard": [
        [{"text": "Yes", "callback_data": f"b:{_TURN}:0"}],
        [{"text": "👍", "callback_data": f"f:+:{_TURN}"}],
    ]
}


def paths(value: Any, here: Path = ()) -> Iterator[Path]:
    """Return where everything in an update lies, its outside included."""
    yield here
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, one in inside:
        yield from paths(one, (*here, key))


def replaced(update: JSON, path: Path, value: Any) -> Any:
    """Return a copy with another value at a place."""
    if not path:
        return value
    changed = copy.deepcopy(update)
    holder: Any = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return changed


def wrong_everywhere() -> Iterator[bytes]:
    """Put every hostile value in the place of every value of every real update."""
    for update in real_updates():
        for path in paths(update):
            for value in HOSTILE:
                yield body(replaced(update, path, value))


def mutated(seed: int) -> Iterator[bytes]:
    """Return bodies without an end, each one's update changed in one or two ways."""
    rng = random.Random(seed)  # noqa: S311 (nothing is kept secret by it)
    updates = real_updates()
    while True:
        changed: Any = rng.choice(updates)
        for _ in range(rng.choice((1, 1, 2))):
            changed = rng.choice(_CHANGES)(rng, changed)
        written = body(changed)
        yield _broken(rng, written) if rng.random() < 0.2 else written


def body(update: Any) -> bytes:
    # Half a character and NaN are written as a careless sender would.
    return json.dumps(update).encode()


def _with_hostile(rng: random.Random, update: Any) -> Any:
    path = rng.choice(list(paths(update)))
    return replaced(update, path, rng.choice(HOSTILE))


def _with_anothers(rng: random.Random, update: Any) -> Any:
    """Put one part of the update in the place of another."""
    all_paths = list(paths(update))
    path, other = rng.choice(all_paths), rng.choice(all_paths)
    part: Any = update
    for key in other:
        part = part[key]
    return replaced(update, path, copy.deepcopy(part))


def _without(rng: random.Random, update: Any) -> Any:
    places = [path for path in paths(update) if path]
    if not places:
        return update
    changed = copy.deepcopy(update)
    path = rng.choice(places)
    holder: Any = changed
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    return changed


_CHANGES: Sequence[Callable[[random.Random, Any], Any]] = (
    _with_hostile,
    _with_hostile,
    _with_anothers,
    _without,
)


def _broken(rng: random.Random, written: bytes) -> bytes:
    """Cut, double or spoil some bytes."""
    start = rng.randrange(len(written) + 1)
    match rng.randrange(4):
        case 0:
            return written[:start]
        case 1:
            return written[:start] + rng.randbytes(4) + written[start:]
        case 2:
            return written[:start] + written[start // 2 :]
        case _:
            return written[:start] + bytes([rng.randrange(256)]) + written[start + 1 :]

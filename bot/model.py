"""
The nouns of Chorus, as frozen data: events, turns, passages, candidates, replies.

Nothing here does anything. Values are changed with `dataclasses.replace`. Every class
can be written to and read from JSON by `pydantic.TypeAdapter`, which is how the store
keeps them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, unquote

# pydantic reads this file's annotations at run time, so imports are not type-only.
from pydantic import JsonValue

# From "slot" on, these are the events of rasa-sdk, by its own names, with its fields in
# `data` (rasa_sdk/events.py); "intent" is a reminder that came due.
EventKind = Literal[
    "message",
    "command",
    "button",
    "cancel",
    "feedback",
    "intent",
    "reply",
    "slot",
    "action",
    "active_loop",
    "loop_interrupted",
    "followup",
    "restart",
    "rewind",
    "undo",
    "reset_slots",
    "pause",
    "resume",
    "reminder",
    "cancel_reminder",
    "session_started",
    "session_ended",
    "action_execution_rejected",
    "export",
    "agent",
]
Finish = Literal["stop", "length", "block", "cancelled", "written"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """
    Where a conversation is held. `user` is the person being answered and is not part
    of the key, because everyone in a thread shares its conversation.
    """

    platform: str
    account: str
    chat: str
    thread: str | None = None
    user: str | None = None

    @property
    def key(self) -> str:
        """
        The conversation's name everywhere: `slack:T1:C9:1700.01`. Parts are
        percent-encoded, so no id, however hostile, can name another conversation.
        """
        return _key(self.platform, self.account, self.chat, self.thread)

    @property
    def digest(self) -> str:
        """
        The key's SHA-256, twelve hex digits: what a log says of a conversation. A key
        names a person, and logs cannot be made to forget; whoever can guess a key can
        still find its digest.
        """
        return digest_of(self.key)

    @classmethod
    def from_key(cls, key: str) -> Address:
        """Return the address that has this key, its user left out."""
        platform, account, chat, *thread = map(unquote, key.split(":"))
        return cls(
            platform=platform,
            account=account,
            chat=chat,
            thread=thread[0] if thread else None,
        )


# Asked for a dozen times in each turn.
@lru_cache(maxsize=4096)
def _key(platform: str, account: str, chat: str, thread: str | None) -> str:
    parts = [platform, account, chat]
    if thread is not None:
        parts.append(thread)
    return ":".join(quote(part, safe="", errors="replace") for part in parts)


def digest_of(key: str) -> str:
    """Return the digest of the conversation with this key."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    One fact in a conversation. Connectors hand in `message`, `command`, `button`,
    `cancel` and `feedback` events; the log also holds what the bot said and did.

    `id` is derived from the content by whoever made the event, so that the same fact
    delivered twice has the same id. A command's `text` is `name arguments…`. `data` of
    a button is the `turn` whose reply showed it and its place there, `button`; of a
    feedback the `turn` that is judged and the `rating`, 1 or -1 (0 takes it back).
    """

    id: str
    kind: EventKind
    address: Address
    time: datetime
    text: str = ""
    data: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """
    A piece of a document with its source. `score` orders the passages of one search
    and means nothing outside it; `scores` holds its parts, of which `relevance` is
    comparable between searches, 0 (unrelated) to 1.
    """

    id: str
    text: str
    source: str
    title: str = ""
    headings: Sequence[str] = ()
    page: int | None = None
    line: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    score: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """
    One message being answered, and everything known about it so far.

    `history` is the bounded window of the conversation's log, oldest first, without
    `message` itself. `prompt` is what the model reads, empty until it is rendered.
    """

    id: str
    message: Event
    seed: int
    history: Sequence[Event] = ()
    slots: Mapping[str, JsonValue] = field(default_factory=dict)
    passages: Sequence[Passage] = ()
    prompt: str = ""

    @property
    def question(self) -> str:
        return self.message.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """
    One possible reply. `log_probs` are natural logarithms under the model as it is,
    one for each token drawn, before temperature and truncation; `certainties` are the
    Kullback-Leibler divergences of the model's distribution from the uniform one, one
    for each token, where the engine can say. A candidate that no model wrote has none
    of these. `variant` names the prompt variant it was written with. `scores` are the
    scorers' own numbers, `contributions` what each added to `total` (weight times
    z-score).
    Of a reply written in blocks, `text` is all of it up to this one, `block` its number
    from 1 on (0: a whole reply), and `settled` says that the reply goes on from it, or
    ends with it.
    """

    text: str
    origin: str = "model"
    tokens: Sequence[int] = ()
    log_probs: Sequence[float] = ()
    certainties: Sequence[float] = ()
    variant: str = ""
    finish: Finish = "stop"
    citations: Sequence[str] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    contributions: Mapping[str, float] = field(default_factory=dict)
    total: float | None = None
    rank: int | None = None
    dropped: str | None = None
    block: int = 0
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A filter's word on one candidate: kept, or why not."""

    kept: bool
    why: str = ""


KEPT = Verdict(kept=True)


def dropped(why: str) -> Verdict:
    """Return the verdict that drops a candidate, with the reason shown by explain."""
    return Verdict(kept=False, why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A selector's choice: the position in the ranked candidates, and why."""

    index: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """
    Where a reply's content comes from: a document, and the passage's id in it. `title`
    is the document's, and `url` where a customer can read it; both may be empty.
    """

    source: str
    passage: str
    title: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """
    Something to press under a reply. Who presses it says `payload`, which the platform
    never sees: a message, or a command with its slash.
    """

    text: str
    payload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """
    What is sent: Markdown and hints. `feedback` asks the customer whether it helped,
    `images` are URLs of pictures to show under the text; where a platform cannot, it
    leaves them out, or writes a picture's address. `custom` is what an action sent as
    JSON of its own: a connector shows what it knows of it, such as Slack's `blocks`.
    """

    text: str
    citations: Sequence[Citation] = ()
    buttons: Sequence[Button] = ()
    feedback: bool = False
    images: Sequence[str] = ()
    custom: Sequence[Mapping[str, JsonValue]] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it to be sent."""
        return not (self.text or self.images or self.custom)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of a reply: the platform's ids of it, and whether that is certain."""

    ids: Sequence[str] = ()
    status: Literal["ok", "unknown"] = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """What an action said and which slots it set (null clears a slot)."""

    reply: Reply | None = None
    slots: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRun:
    """
    An action, form or response template of the configuration that ran in a turn:
    `trigger` says why it did, `where` it is ("in process", a server's address, "core"),
    `events` are rasa-sdk's (see rasa_sdk/events.py), in order, and `said` the texts of
    its responses. `problem` says why it failed; there are no events then.
    """

    name: str
    trigger: str
    where: str = "core"
    ms: float = 0.0
    events: Sequence[Mapping[str, JsonValue]] = ()
    said: Sequence[str] = ()
    problem: str = ""


Outcome = Literal[
    "answered", "declined", "direct", "acted", "failed", "cancelled", "handed_over"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    Everything about an answered turn: what `chorus explain` shows.

    `orders` maps each reranker (of each block) to the positions that it returned;
    `problems` are the sentences of plugins that failed; `ms` are milliseconds by stage;
    `config` is the configuration's fingerprint. `chosen` is None when no candidate was
    sent; `why` says why this reply and no other. In a record that was kept, the turn is
    without its history, which the log and the prompt have. `arm` names the experiment
    and the arm that answered, `shorter/brief`; it is empty where there was none.
    `actions` are what ran, in order, and `slots` what they changed, None for what they
    cleared.
    """

    turn: Turn
    outcome: Outcome
    reply: Reply
    why: str
    config: str
    candidates: Sequence[Candidate] = ()
    chosen: int | None = None
    orders: Mapping[str, Sequence[int]] = field(default_factory=dict)
    problems: Sequence[str] = ()
    ms: Mapping[str, float] = field(default_factory=dict)
    arm: str = ""
    actions: Sequence[ActionRun] = ()
    slots: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def has_acted(self) -> bool:
        """Whether something ran that may have done something outside."""
        return any(run.where != "core" for run in self.actions)

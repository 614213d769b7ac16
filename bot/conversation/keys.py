"""
What everything is called in Redis.

    chorus:meta                      hash: shards
    chorus:{sK}:ready:<platform>     stream of tokens: lanes with messages to answer
    chorus:{sK}:out:<platform>       stream of tokens: outboxes with replies to deliver
    chorus:{sK}:reminders:<platform> zset: conversation and name of a reminder, when it
                                     is due or looked at again, ms
    chorus:{sK}:stops                stream: turns that are to stop, a minute long
    chorus:{sK}:waiting              zset: conversation, since when its head waits, ms
    chorus:{sK}:owed                 zset: conversation, since when a reply is owed, ms
    chorus:{sK}:active               zset: conversation, when it was last heard of, ms
    chorus:{sK}:name:<hash>          the conversation that a token stands for
    chorus:{sK}:dead                 stream: turns whose messages were set aside
    chorus:{sK}:letter:<turn>        hash: such a message, and why
    chorus:{sK}:seen:<hash>          an event's claim, for a day; says nothing about it
    chorus:{sK}:handed               zset: conversation, since when people have it, ms
    chorus:{sK}:judgements           zset: turn, when it was judged last, ms
    chorus:{sK}:judged:<turn>        hash: what people thought of its reply
    chorus:{sK}:record:<turn>        what `chorus explain` shows, with its own TTL
    chorus:{sK}:record:<turn>:shadow what another arm would have said, as long as that
    chorus:{sK}:left_out:<name>      turns an experiment left out of the shadow (K is 0)
    chorus:{sK}:person:<id>          set of the conversations a person spoke in
    chorus:{sK}:rate:<platform>:<id> messages of a person in the running minute
    chorus:{sK}:rate:…:told          that the person was told to wait, for a minute
    chorus:{sK}:c:<key>:lane         list of accepted, unanswered messages
    chorus:{sK}:c:<key>:outbox       list of committed, undelivered replies
    chorus:{sK}:c:<key>:log          list of the last events
    chorus:{sK}:c:<key>:slots        hash, values in JSON
    chorus:{sK}:c:<key>:meta         hash, see scripts.py
    chorus:{sK}:c:<key>:reminders    hash: its reminders by name, see scripts.py
    chorus:{sK}:c:<key>:turns        list of the turns with a record
    chorus:{sK}:c:<key>:people       set of those who spoke in it
    chorus:{sK}:c:<key>:letters      set of its turns that were set aside
    chorus:{sK}:c:<key>:judged       zset of its turns that were judged, when, ms
    chorus:{sK}:shelf:<hash>         what a connector keeps, see shelf.py
    chorus:frames:<platform>         no key: the channel of replies being written

K is the CRC-32 of the conversation's key modulo the number of shards. The shard's tag
comes first, so that no id with braces in it can move a key; all keys of one script
carry the same tag, as a Redis Cluster demands. Knows nothing about what is kept.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote

from bot.model import Address, Event

META = "chorus:meta"

Queue = Literal["ready", "out"]
Part = Literal[
    "lane",
    "outbox",
    "log",
    "slots",
    "meta",
    "turns",
    "people",
    "letters",
    "judged",
    "reminders",
]


@dataclass(frozen=True, slots=True)
class Shard:
    """The names of one shard's keys."""

    number: int

    @property
    def prefix(self) -> str:
        return f"chorus:{{s{self.number}}}"

    def named(self, name: str) -> str:
        """
        Name what the shard has one of: stops, waiting, owed, active, dead, handed,
        judgements.
        """
        return f"{self.prefix}:{name}"

    def queue(self, queue: Queue, platform: str) -> str:
        """Name the stream of tokens of a platform."""
        return f"{self.prefix}:{queue}:{_quoted(platform)}"

    def reminders(self, platform: str) -> str:
        """Name the zset of what a platform's conversations are reminded of."""
        return f"{self.named('reminders')}:{_quoted(platform)}"

    def of(self, conversation: str, part: Part) -> str:
        return f"{self.prefix}:c:{conversation}:{part}"

    def record(self, turn: str) -> str:
        return f"{self.prefix}:record:{turn}"

    def seen(self, event: Event) -> str:
        named = f"{event.address.key} {event.id}".encode(errors="replace")
        return f"{self.prefix}:seen:{hashlib.sha256(named).hexdigest()[:32]}"

    def person(self, person: str) -> str:
        return f"{self.prefix}:person:{_quoted(person)}"

    def rate(self, platform: str, person: str) -> str:
        return f"{self.prefix}:rate:{_quoted(platform)}:{_quoted(person)}"

    def name(self, name: str) -> str:
        return f"{self.prefix}:name:{name}"

    def judged(self, turn: str) -> str:
        return f"{self.prefix}:judged:{turn}"

    def letter(self, turn: str) -> str:
        return f"{self.prefix}:letter:{turn}"


class Shards:
    """All shards, and which of them a conversation is on."""

    def __init__(self, number: int) -> None:
        self.all = tuple(map(Shard, range(number)))

    def of(self, conversation: str) -> Shard:
        return self.all[zlib.crc32(conversation.encode()) % len(self.all)]


def person_of(address: Address) -> str:
    """Name the person: the user, or the chat where users have no names."""
    return address.chat if address.user is None else address.user


def person_digest(address: Address) -> str:
    """Tell a person from another one without naming either."""
    named = f"{address.platform} {person_of(address)}".encode(errors="replace")
    return hashlib.sha256(named).hexdigest()[:12]


def frames_channel(platform: str) -> str:
    """Name the channel on which a platform's frames are published."""
    return f"chorus:frames:{_quoted(platform)}"


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="replace")


def platform_of(conversation: str) -> str:
    return unquote(conversation.partition(":")[0])

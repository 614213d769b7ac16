"""
What the stand-in of Slack remembers: workspaces, channels, messages and their streams.

Strict where Slack is: it refuses what Slack refuses, with Slack's word for it. Knows
neither HTTP nor what a token may do; see `methods` for that.

Limits that Slack's reference does not have, or has wrong:
- all of a streamed message, 12,000: CopilotKit/CopilotKit#6064, measured
- `text` of chat.update, 4,000: seratch/ChatGPT-in-Slack#102
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.connectors.slack.blocks import Json, SlackError, text_of

STREAM_LIMIT = 12_000
UPDATE_LIMIT = 4_000

ChannelType = Literal["im", "channel", "mpim"]
Streaming = Literal["open", "done", "expired", "stopped"]


@dataclass(slots=True, kw_only=True)
class Message:
    """One message as Slack keeps it. `by_bot` tells ours from everybody else's."""

    ts: str
    channel: str
    user: str
    text: str = ""
    by_bot: bool = False
    bot_id: str | None = None
    app_id: str | None = None
    thread_ts: str | None = None
    subtype: str | None = None
    blocks: list[Json] = field(default_factory=list)
    metadata: Json = field(default_factory=dict)
    files: list[Json] = field(default_factory=list)
    reactions: dict[str, list[str]] = field(default_factory=dict)
    ephemeral_for: str | None = None
    edits: int = 0
    streaming: Streaming | None = None
    streamed: str = ""
    began: float = 0.0

    @property
    def thread(self) -> str:
        return self.thread_ts or self.ts

    @property
    def shown(self) -> str:
        """The text that a person reads: blocks before the fallback, no buttons."""
        told = [text for block in self.blocks if (text := text_of(block)) is not None]
        if self.streaming is not None and self.streamed:
            told.insert(0, self.streamed)
        return "\n".join(told) if told else self.text

    @property
    def context(self) -> list[str]:
        """The small print under the text."""
        return [
            element.get("text", "")
            for block in self.blocks
            if block["type"] == "context"
            for element in block["elements"]
        ]

    @property
    def pictures(self) -> list[str]:
        """The addresses of the pictures under the text."""
        return [block["image_url"] for block in self.blocks if block["type"] == "image"]

    @property
    def buttons(self) -> list[Json]:
        return [
            element
            for block in self.blocks
            if block["type"] == "actions"
            for element in block["elements"]
        ]

    @property
    def feedback(self) -> Json | None:
        """The feedback buttons, as they were posted."""
        for block in self.blocks:
            if block["type"] == "context_actions":
                for element in block["elements"]:
                    if element["type"] == "feedback_buttons":
                        return dict(element)
        return None

    def as_json(self, *, with_metadata: bool = False) -> Json:
        """Return the message as the Web API and events show it."""
        told: Json = {
            "type": "message",
            "user": self.user,
            "ts": self.ts,
            "text": self.text or self.shown,
        }
        optional = {
            "subtype": self.subtype,
            "bot_id": self.bot_id,
            "app_id": self.app_id,
            "thread_ts": self.thread_ts,
            "blocks": self.blocks,
            "files": self.files,
        }
        told |= {name: value for name, value in optional.items() if value}
        if self.streaming is not None:
            going_on = self.streaming == "open"
            told["streaming_state"] = "in_progress" if going_on else "completed"
        if self.reactions:
            told["reactions"] = [
                {"name": name, "users": users, "count": len(users)}
                for name, users in self.reactions.items()
            ]
        if with_metadata and self.metadata:
            told["metadata"] = self.metadata
        return told


@dataclass(slots=True, kw_only=True)
class Channel:
    """A conversation of one workspace, and whether the bot may speak there."""

    id: str
    type: ChannelType
    team: str
    has_bot: bool = True
    archived: bool = False
    messages: list[Message] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Workspace:
    """A team that has the app. `tokens` are all that were ever given out."""

    team: str
    token: str
    bot_user: str
    bot_id: str
    scopes: tuple[str, ...]
    enterprise: str | None = None
    installed: bool = True
    refresh_token: str | None = None


class State:
    """Everything that lies in Slack. `clock` counts seconds, for streams to die by."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.stream_life_s = 300.0
        self.workspaces: dict[str, Workspace] = {}
        self.channels: dict[str, Channel] = {}
        self.ephemeral: list[Message] = []
        self.names: dict[str, str] = {}
        self.statuses: dict[tuple[str, str], str] = {}
        self.sessions: dict[tuple[str, str], str] = {}
        self.titles: dict[tuple[str, str], str] = {}
        self.prompts: dict[tuple[str, str | None], list[Json]] = {}
        self.homes: dict[str, Json] = {}
        self._second = int(time.time())
        self._ticks = itertools.count(1)

    def next_ts(self) -> str:
        """Return a timestamp later than every one before it."""
        second, tick = divmod(next(self._ticks), 1_000_000)
        return f"{self._second + second}.{tick:06d}"

    def message(self, ts: str, channel: str | None = None) -> Message:
        """Return one message; a KeyError says that nobody can see it."""
        for candidate in self.all(channel):
            if candidate.ts == ts:
                return candidate
        raise KeyError(ts)

    def all(self, channel: str | None = None) -> Iterator[Message]:
        for known in self.channels.values():
            if channel in {None, known.id}:
                yield from known.messages

    def thread(self, channel: str, ts: str) -> list[Message]:
        """Return the thread that `ts` is the root of, or a part of, oldest first."""
        root = next((m.thread for m in self.all(channel) if m.ts == ts), ts)
        return [m for m in self.all(channel) if m.thread == root]

    def say(self, channel: str, user: str, text: str, **more: Any) -> Message:
        """Put a person's message, or another bot's, into a channel."""
        said = Message(ts=self.next_ts(), channel=channel, user=user, text=text, **more)
        self.channels[channel].messages.append(said)
        return said

    def post(self, workspace: Workspace, channel: Channel, **what: Any) -> Message:
        """Put a message of the bot into a channel."""
        posted = Message(
            ts=self.next_ts(),
            channel=channel.id,
            user=workspace.bot_user,
            bot_id=workspace.bot_id,
            by_bot=True,
            **what,
        )
        channel.messages.append(posted)
        # A status ends with the next message of the app: assistant.threads.setStatus
        self.statuses.pop((channel.id, posted.thread), None)
        return posted

    def remove(self, message: Message) -> None:
        self.channels[message.channel].messages.remove(message)

    def begin_stream(self, message: Message, text: str) -> None:
        message.streaming, message.streamed = "open", text
        message.began = self.clock()

    def extend_stream(self, message: Message, text: str) -> None:
        """Append, or say why that stream takes nothing any more."""
        self.settle(message)
        if message.streaming == "stopped":
            raise SlackError("stopped_by_user")
        if message.streaming != "open":
            raise SlackError("message_not_in_streaming_state")
        if len(message.streamed) + len(text) > STREAM_LIMIT:
            raise SlackError("msg_too_long")
        message.streamed += text

    def settle(self, message: Message) -> None:
        """Let a stream die that is too old. Appending does not make it younger."""
        if message.streaming == "open":
            old = self.clock() - message.began >= self.stream_life_s
            message.streaming = "expired" if old else "open"

    def replace(self, message: Message, text: str, blocks: list[Json] | None) -> None:
        """Edit a message. Blocks that are not given stay (chat.update)."""
        self.settle(message)
        if message.streaming == "open":
            raise SlackError("streaming_state_conflict")
        message.streaming, message.streamed = None, ""
        message.text = text
        message.edits += 1
        if blocks is not None:
            message.blocks = blocks

"""
A customer in front of Slack: each thing that they do, as the payload that an app gets.

What they do is in the channel's state too. Calling twice is doing it twice; a retry is
the same payload delivered again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.connectors.slack.blocks import Json
from tests.connectors.slack.payloads import Payload
from tests.connectors.slack.state import Message, State


@dataclass(slots=True, kw_only=True)
class Customer:
    """Makes payloads. `url` is where answers to a slash command go."""

    state: State
    app_id: str
    url: str
    home_team: str | None = None  # of a customer from another workspace
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def message(  # noqa: PLR0913 (what a message may have)
        self,
        text: str,
        *,
        channel: str = "D1",
        user: str = "U1",
        thread_ts: str | None = None,
        bot_id: str | None = None,
        subtype: str | None = None,
        files: Sequence[Json] = (),
    ) -> Payload:
        """Say something in a channel; `D1` is between the bot and U1."""
        said = self.state.say(
            channel,
            user,
            text,
            thread_ts=thread_ts,
            bot_id=bot_id,
            subtype=subtype,
            files=list(files),
        )
        return self._event(self._message_event(said), said.channel)

    def mention(
        self, text: str, *, channel: str = "C1", user: str = "U1", **more: Any
    ) -> tuple[Payload, Payload]:
        """
        Say something to the bot in a channel. Slack tells it twice, with different ids:
        as app_mention and as message.
        """
        team = self.state.channels[channel].team
        bot = self.state.workspaces[team].bot_user
        told = self.message(f"<@{bot}> {text}", channel=channel, user=user, **more)
        event = dict(told.content["event"], type="app_mention")
        for key in ("channel_type", "subtype"):
            event.pop(key, None)
        return self._event(event, channel), told

    def edited(self, ts: str, text: str | None = None) -> Payload:
        """Edit a message; without a text Slack only unfurls a link in it."""
        message = self.state.message(ts)
        before = self._message_event(message)
        if text is not None:
            message.text = text
            message.edits += 1
        after = self._message_event(message)
        if text is None:
            after["attachments"] = [
                {"id": 1, "title": "A page", "from_url": "https://x"}
            ]
        else:
            after["edited"] = {"user": message.user, "ts": self.state.next_ts()}
        event = {
            "type": "message",
            "subtype": "message_changed",
            "hidden": True,
            "message": after,
            "previous_message": before,
            **self._place(message.channel),
        }
        return self._event(event, message.channel)

    def deleted(self, ts: str) -> Payload:
        """Take a message back."""
        message = self.state.message(ts)
        self.state.remove(message)
        event = {
            "type": "message",
            "subtype": "message_deleted",
            "hidden": True,
            "deleted_ts": ts,
            "previous_message": self._message_event(message),
            **self._place(message.channel),
        }
        return self._event(event, message.channel)

    def joined(self, *, channel: str = "C1", user: str = "U1") -> Payload:
        """Join a channel: Slack writes a message about it."""
        return self.message(
            f"<@{user}> has joined the channel",
            channel=channel,
            user=user,
            subtype="channel_join",
        )

    def reaction(
        self, name: str, ts: str, *, user: str = "U1", removed: bool = False
    ) -> Payload:
        """React to a message with an emoji, or take that back."""
        message = self.state.message(ts)
        users = message.reactions.setdefault(name, [])
        if removed:
            users.remove(user)
        else:
            users.append(user)
        event = {
            "type": "reaction_removed" if removed else "reaction_added",
            "user": user,
            "reaction": name,
            "item_user": message.user,
            "item": {"type": "message", "channel": message.channel, "ts": ts},
            "event_ts": self.state.next_ts(),
        }
        return self._event(event, message.channel)

    def home_opened(
        self, tab: str = "messages", *, channel: str = "D1", user: str = "U1"
    ) -> Payload:
        """Open the app: its home, or the messages with it."""
        event = {
            "type": "app_home_opened",
            "user": user,
            "channel": channel,
            "tab": tab,
            "event_ts": self.state.next_ts(),
        }
        return self._event(event, channel)

    def assistant_thread_started(
        self, *, channel: str = "D1", user: str = "U1", changed: bool = False
    ) -> Payload:
        """Open the assistant panel of before 2026, or look at another channel there."""
        bot = self.state.workspaces[self.state.channels[channel].team].bot_user
        root = self.state.say(channel, bot, "New chat", subtype="assistant_app_thread")
        kind = "assistant_thread_" + ("context_changed" if changed else "started")
        event = {
            "type": kind,
            "assistant_thread": {
                "user_id": user,
                "context": {"channel_id": "C1", "team_id": "T1"},
                "channel_id": channel,
                "thread_ts": root.ts,
            },
            "event_ts": self.state.next_ts(),
        }
        return self._event(event, channel)

    def session_stopped(
        self, thread_ts: str, *, channel: str = "D1", user: str = "U1"
    ) -> Payload:
        """Press Stop: Slack ends the streams of the thread by itself, and tells."""
        stopped = [
            message.ts
            for message in self.state.thread(channel, thread_ts)
            if message.streaming == "open"
        ]
        for ts in stopped:
            self.state.message(ts).streaming = "stopped"
        event = {
            "type": "agent_session_stopped",
            "channel": channel,
            "thread_ts": thread_ts,
            "user": user,
            "streaming_message_ts": stopped,
            "event_ts": self.state.next_ts(),
        }
        return self._event(event, channel)

    def uninstalled(self, team: str = "T1") -> Payload:
        """Tell that the app was thrown out; see `SlackService.uninstall`."""
        return self._team_event({"type": "app_uninstalled"}, team)

    def tokens_revoked(self, team: str = "T1") -> Payload:
        bot = self.state.workspaces[team].bot_user
        tokens = {"oauth": [], "bot": [bot]}
        return self._team_event({"type": "tokens_revoked", "tokens": tokens}, team)

    def url_verification(self) -> Payload:
        """What Slack asks when a request URL is entered."""
        return Payload(
            {"type": "url_verification", "token": "t", "challenge": "3eZbrw1aBm2rZgRN"}
        )

    def button(
        self, action_id: str, value: str, message: str, *, user: str = "U1"
    ) -> Payload:
        """Press a button under a message of this timestamp."""
        action = {
            "type": "button",
            "action_id": action_id,
            "block_id": "b1",
            "text": {"type": "plain_text", "text": value[:75] or "-"},
            "value": value,
            "action_ts": self.state.next_ts(),
        }
        return self._pressed(action, message, user)

    def feedback(self, message: str, *, good: bool, user: str = "U1") -> Payload:
        """Press thumbs up or down under a message, with what was posted there."""
        posted = self.state.message(message).feedback
        assert posted is not None, "there are no feedback buttons under that message"
        pressed = posted["positive_button" if good else "negative_button"]
        action = {
            "type": "feedback_buttons",
            "action_id": posted["action_id"],
            "block_id": "b2",
            "value": pressed["value"],
            "text": pressed["text"],
            "action_ts": self.state.next_ts(),
        }
        return self._pressed(action, message, user)

    def slash(  # noqa: PLR0913 (what the form has)
        self,
        text: str,
        *,
        command: str = "/chorus",
        channel: str = "C1",
        user: str = "U1",
        team: str = "T1",
        response_url: str | None = None,
    ) -> Payload:
        """Write a slash command."""
        number = next(self._numbers)
        form = {
            "token": "t",
            "team_id": team,
            "team_domain": team.lower(),
            "channel_id": channel,
            "channel_name": "directmessage" if channel[0] == "D" else "general",
            "user_id": user,
            "user_name": "ada",
            "command": command,
            "text": text,
            "api_app_id": self.app_id,
            "is_enterprise_install": "false",
            "response_url": f"{self.url}/response/{team}/{number}"
            if response_url is None
            else response_url,
            "trigger_id": f"13345224609.738474920.{number}",
        }
        return Payload(form, "slash_commands")

    def _pressed(self, action: Json, ts: str, user: str) -> Payload:
        message = self.state.message(ts)
        team = self.state.channels[message.channel].team
        content = {
            "type": "block_actions",
            "user": {"id": user, "username": "ada", "team_id": self.home_team or team},
            "api_app_id": self.app_id,
            "token": "t",
            "container": {
                "type": "message",
                "message_ts": ts,
                "channel_id": message.channel,
                "is_ephemeral": False,
                **({"thread_ts": message.thread_ts} if message.thread_ts else {}),
            },
            "trigger_id": "12321423423.333649436676",
            "team": {"id": team, "domain": team.lower()},
            "enterprise": None,
            "is_enterprise_install": False,
            "channel": {"id": message.channel, "name": "general"},
            "message": message.as_json(with_metadata=True),
            "response_url": f"{self.url}/response/{team}/{next(self._numbers)}",
            "actions": [action],
        }
        return Payload(content, "interactive")

    def _message_event(self, message: Message) -> Json:
        event = message.as_json() | self._place(message.channel)
        event["team"] = self.state.channels[message.channel].team
        event["event_ts"] = message.ts
        if self.home_team is not None:
            event |= {"user_team": self.home_team, "source_team": self.home_team}
        if not message.by_bot and not message.bot_id:
            event["client_msg_id"] = f"msg-{message.ts}"
        return event

    def _place(self, channel: str) -> Json:
        return {"channel": channel, "channel_type": self.state.channels[channel].type}

    def _event(self, event: Json, channel: str) -> Payload:
        if "ts" not in event and event["type"] == "message":
            event = {**event, "ts": self.state.next_ts()}
            event["event_ts"] = event["ts"]
        return self._team_event(event, self.state.channels[channel].team)

    def _team_event(self, event: Json, team: str) -> Payload:
        number = next(self._numbers)
        workspace = self.state.workspaces[team]
        return Payload(
            {
                "token": "t",
                "team_id": team,
                "api_app_id": self.app_id,
                "event": event,
                "type": "event_callback",
                "event_id": f"Ev{number:08d}",
                "event_time": 1_790_000_000 + number,
                "authorizations": [
                    {
                        "enterprise_id": workspace.enterprise,
                        "team_id": team,
                        "user_id": workspace.bot_user,
                        "is_bot": True,
                        "is_enterprise_install": False,
                    }
                ],
                "is_ext_shared_channel": self.home_team is not None,
                "event_context": f"4-ctx-{number}",
            }
        )

"""
The methods of Slack's Web API, as the stand-in answers them.

Each takes a workspace and the arguments of a call and returns what Slack answers, or
raises `SlackError`. Which scope a method needs is in `_NEEDS`. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.connectors.slack.arguments import Arguments, chunk_of, content_of
from tests.connectors.slack.blocks import (
    BLOCKS_LIMIT,
    Json,
    SlackError,
    checked_blocks,
    checked_metadata,
    text_of,
)
from tests.connectors.slack.grants import Grants
from tests.connectors.slack.state import (
    UPDATE_LIMIT,
    Channel,
    Message,
    State,
    Workspace,
)

_HISTORY = {"im": "im:history", "channel": "channels:history", "mpim": "mpim:history"}
_NEEDS = {
    "chat": "chat:write",
    "assistant": "assistant:write",
    "agents": "chat:write",
    "reactions": "reactions:read",
    "users": "users:read",
}
_SESSION_STATUSES = frozenset({"processing", "active", "suspended", "closed"})


class Methods:
    """The methods, by their names."""

    def __init__(self, state: State, grants: Grants) -> None:
        self._state = state
        self._grants = grants
        self._by_name: dict[str, Callable[[Workspace, Arguments], Json]] = {
            "auth.test": self._auth_test,
            "auth.revoke": self._auth_revoke,
            "chat.postMessage": self._post_message,
            "chat.postEphemeral": self._post_ephemeral,
            "chat.update": self._update,
            "chat.delete": self._delete,
            "chat.startStream": self._start_stream,
            "chat.appendStream": self._append_stream,
            "chat.stopStream": self._stop_stream,
            "conversations.replies": self._replies,
            "conversations.history": self._history,
            "conversations.info": self._info,
            "assistant.threads.setStatus": self._set_status,
            "assistant.threads.setTitle": self._set_title,
            "assistant.threads.setSuggestedPrompts": self._set_prompts,
            "agents.sessions.setStatus": self._set_session_status,
            "views.publish": self._publish,
            "reactions.get": self._reactions,
            "users.info": self._user,
        }

    def call(self, method: str, given: Json, token: str | None) -> Json:
        """Answer a call by a bot token."""
        if method not in self._by_name:
            raise SlackError("unknown_method", req_method=method)
        workspace = self._grants.workspace(token)
        needed = _NEEDS.get(method.partition(".")[0])
        if needed is not None:
            _check_scope(workspace, needed)
        return self._by_name[method](workspace, Arguments(given))

    # Who

    def _auth_test(self, workspace: Workspace, given: Arguments) -> Json:
        return {
            "url": f"https://{workspace.team.lower()}.slack.com/",
            "team": f"Team {workspace.team}",
            "user": "chorus",
            "team_id": workspace.team,
            "user_id": workspace.bot_user,
            "bot_id": workspace.bot_id,
            "is_enterprise_install": False,
        }

    def _auth_revoke(self, workspace: Workspace, given: Arguments) -> Json:
        self._grants.tokens[workspace.token] = "revoked"
        return {"revoked": True}

    def _user(self, workspace: Workspace, given: Arguments) -> Json:
        user = given.needed("user")
        if user not in self._state.names:
            raise SlackError("user_not_found")
        name = self._state.names[user]
        profile = {"display_name": name, "real_name": name}
        return {"user": {"id": user, "name": name.lower(), "profile": profile}}

    # Messages

    def _post_message(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._writable(workspace, given.needed("channel"))
        posted = self._state.post(
            workspace,
            channel,
            app_id=self._grants.app_id,
            thread_ts=given.text("thread_ts") or None,
            metadata=checked_metadata(given.tree("metadata")),
            **content_of(given),
        )
        return _told(posted)

    def _post_ephemeral(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._writable(workspace, given.needed("channel"))
        shown = Message(
            ts=self._state.next_ts(),
            channel=channel.id,
            user=workspace.bot_user,
            by_bot=True,
            ephemeral_for=given.needed("user"),
            thread_ts=given.text("thread_ts") or None,
            **content_of(given),
        )
        self._state.ephemeral.append(shown)
        return {"message_ts": shown.ts}

    def _update(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._writable(workspace, given.needed("channel"))
        message = self._own(workspace, channel, given.needed("ts"))
        content = content_of(given, kept=message.blocks)
        if len(given.text("text")) > UPDATE_LIMIT:
            raise SlackError("msg_too_long")
        metadata = given.tree("metadata")
        self._state.replace(message, content["text"], content.get("blocks"))
        if metadata is not None:
            message.metadata = checked_metadata(metadata)
        return _told(message) | {"text": message.text}

    def _delete(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._writable(workspace, given.needed("channel"))
        message = self._own(workspace, channel, given.needed("ts"))
        self._state.remove(message)
        return {"channel": channel.id, "ts": message.ts}

    # Streams

    def _start_stream(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._writable(workspace, given.needed("channel"))
        thread = given.needed("thread_ts")
        if channel.type != "im":
            for who in ("recipient_user_id", "recipient_team_id"):
                if not given.text(who):
                    raise SlackError(f"missing_{who}")
        text = chunk_of(given)
        begun = self._state.post(
            workspace, channel, app_id=self._grants.app_id, thread_ts=thread
        )
        self._state.begin_stream(begun, text)
        return {"channel": channel.id, "ts": begun.ts}

    def _append_stream(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._writable(workspace, given.needed("channel"))
        message = self._own(workspace, channel, given.needed("ts"))
        text = chunk_of(given)
        if not text and not given.tree("chunks"):
            raise SlackError("no_text")
        self._state.extend_stream(message, text)
        return {"channel": channel.id, "ts": message.ts}

    def _stop_stream(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._writable(workspace, given.needed("channel"))
        message = self._own(workspace, channel, given.needed("ts"))
        blocks = checked_blocks(given.tree("blocks") or [])
        metadata = checked_metadata(given.tree("metadata"))
        status = given.text("session_status") or "active"
        if status not in _SESSION_STATUSES:
            raise SlackError("invalid_arguments")
        text = chunk_of(given)
        written = sum(len(text_of(block) or "") for block in blocks)
        if len(message.streamed) + len(text) + written > BLOCKS_LIMIT:
            raise SlackError("msg_blocks_too_long")
        self._state.extend_stream(message, text)
        message.streaming = "done"
        message.blocks = blocks
        message.metadata = metadata or message.metadata
        self._state.sessions[channel.id, message.thread] = status
        return _told(message)

    # Reading

    def _replies(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._readable(workspace, given.needed("channel"))
        ts = given.needed("ts")
        there = [m for m in channel.messages if m.ts == ts]
        if not there:
            raise SlackError("thread_not_found")
        if there[0].thread == ts:
            there = self._state.thread(channel.id, ts)
        return _page(there, given, usual=1000, most=1000)

    def _history(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._readable(workspace, given.needed("channel"))
        there = [
            message
            for message in reversed(channel.messages)
            if message.thread == message.ts or message.subtype == "thread_broadcast"
        ]
        return _page(there, given, usual=100, most=999)

    def _info(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._channel(workspace, given.needed("channel"))
        return {
            "channel": {
                "id": channel.id,
                "is_im": channel.type == "im",
                "is_mpim": channel.type == "mpim",
                "is_channel": channel.type == "channel",
                "is_member": channel.has_bot,
                "is_archived": channel.archived,
            }
        }

    def _reactions(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._channel(workspace, given.needed("channel"))
        message = _found(channel, given.needed("timestamp"))
        told = message.as_json()
        return {"type": "message", "channel": channel.id, "message": told}

    # The assistant

    def _set_status(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._writable(workspace, given.needed("channel_id"))
        if len(given.tree("loading_messages") or []) > 10:
            raise SlackError("invalid_arguments")
        where = (channel.id, given.needed("thread_ts"))
        self._state.statuses[where] = given.text("status")
        if not given.text("status"):
            del self._state.statuses[where]
        return {}

    def _set_title(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._writable(workspace, given.needed("channel_id"))
        where = (channel.id, given.needed("thread_ts"))
        self._state.titles[where] = given.needed("title")
        return {}

    def _set_prompts(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._writable(workspace, given.needed("channel_id"))
        prompts = given.tree("prompts")
        whole = isinstance(prompts, list) and 1 <= len(prompts) <= 4
        if not whole or not all(p.get("title") and p.get("message") for p in prompts):
            raise SlackError("invalid_arguments")
        where = (channel.id, given.text("thread_ts") or None)
        self._state.prompts[where] = prompts
        return {}

    def _set_session_status(self, workspace: Workspace, given: Arguments) -> Json:
        channel = self._writable(workspace, given.needed("channel_id"))
        status = given.needed("status")
        if status not in _SESSION_STATUSES:
            raise SlackError("invalid_arguments")
        self._state.sessions[channel.id, given.text("thread_ts")] = status
        return {}

    def _publish(self, workspace: Workspace, given: Arguments) -> Json:
        view = given.tree("view")
        if not isinstance(view, dict) or view.get("type") != "home":
            raise SlackError("invalid_arguments")
        checked_blocks(view["blocks"])
        self._state.homes[given.needed("user_id")] = view
        return {"view": {"id": "V1", **view}}

    # Where, and whether the bot may

    def _channel(self, workspace: Workspace, channel: str) -> Channel:
        known = self._state.channels.get(channel)
        if known is None or known.team != workspace.team:
            raise SlackError("channel_not_found")
        return known

    def _writable(self, workspace: Workspace, channel: str) -> Channel:
        known = self._channel(workspace, channel)
        if known.archived:
            raise SlackError("is_archived")
        if not known.has_bot:
            raise SlackError("not_in_channel")
        return known

    def _readable(self, workspace: Workspace, channel: str) -> Channel:
        known = self._channel(workspace, channel)
        _check_scope(workspace, _HISTORY[known.type])
        if not known.has_bot:
            raise SlackError("not_in_channel")
        return known

    def _own(self, workspace: Workspace, channel: Channel, ts: str) -> Message:
        message = _found(channel, ts)
        if not message.by_bot or message.user != workspace.bot_user:
            raise SlackError("cant_update_message")
        return message


def _found(channel: Channel, ts: str) -> Message:
    for message in channel.messages:
        if message.ts == ts:
            return message
    raise SlackError("message_not_found")


def _check_scope(workspace: Workspace, needed: str) -> None:
    if needed not in workspace.scopes:
        provided = ",".join(workspace.scopes)
        raise SlackError("missing_scope", needed=needed, provided=provided)


def _told(message: Message) -> Json:
    told = message.as_json(with_metadata=True)
    return {"channel": message.channel, "ts": message.ts, "message": told}


def _page(there: Sequence[Message], given: Arguments, *, usual: int, most: int) -> Json:
    """Return one page; a cursor is a position, which no client may know."""
    oldest, latest = given.text("oldest"), given.text("latest")
    inclusive = given.flag("inclusive")
    there = [
        message
        for message in there
        if (not oldest or message.ts > oldest or (inclusive and message.ts == oldest))
        and (not latest or message.ts < latest or (inclusive and message.ts == latest))
    ]
    limit = min(given.number("limit", usual), most)
    cursor = given.text("cursor")
    if cursor and not cursor.startswith("at:"):
        raise SlackError("invalid_cursor")
    start = int(cursor.removeprefix("at:") or 0)
    end = start + limit
    more = end < len(there)
    with_metadata = given.flag("include_all_metadata")
    return {
        "messages": [m.as_json(with_metadata=with_metadata) for m in there[start:end]],
        "has_more": more,
        "response_metadata": {"next_cursor": f"at:{end}" if more else ""},
    }

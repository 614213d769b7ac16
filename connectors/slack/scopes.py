"""
Scopes: what the app asks a workspace for, and why; and the events that it is told.

Light to import: the page on which a team installs the app lists them, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SCOPES: Mapping[str, str] = {
    "app_mentions:read": "hear who mentions it",
    "assistant:write": "show that it is at work, a thread's title and prompts",
    "channels:history": "hear answers in its threads, and find its own replies",
    "chat:write": "answer",
    "commands": "be asked with /chorus",
    "groups:history": "do the same in private channels",
    "im:history": "hear direct messages",
    "mpim:history": "hear group messages",
    "reactions:read": "take thumbs up and down as feedback",
}

EVENTS: Sequence[str] = (
    "app_home_opened",
    "app_mention",
    "app_uninstalled",
    "agent_session_stopped",
    "message.channels",
    "message.groups",
    "message.im",
    "message.mpim",
    "reaction_added",
    "reaction_removed",
    "tokens_revoked",
)

"""
Parsing: from what Slack tells to the events of the core.

Pure functions over a payload, and over who the bot is in that workspace. One thing that
somebody did is one event, however often and in however many kinds Slack tells it: an
event's id comes from the message's time stamp, not from Slack's event_id. Whether the
bot takes part in a thread is not known here; `Heard.addressed` says where it matters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from bot.model import Address, Event, EventKind
from connectors.slack import wording
from connectors.slack.payloads import (
    Payload,
    account_of,
    digest,
    id_in,
    is_id,
    items,
    part,
    stamp_in,
    text_in,
    time_of,
)
from connectors.slack.workspaces import Workspace

PLATFORM = "slack"
BUTTON, FEEDBACK = "chorus_button", "chorus_feedback"

# What people say; every other subtype tells that something happened in a channel.
_SPOKEN = frozenset({"file_share", "thread_broadcast", "me_message", "bot_message"})
_RATINGS = {"+1": 1, "thumbsup": 1, "heart": 1, "-1": -1, "thumbsdown": -1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """
    An event. Where it is not `addressed` to the bot, it matters only in a thread that
    the bot takes part in. `team` is the person's own; `answer_at` Slack's response_url.
    """

    event: Event
    addressed: bool = True
    direct: bool = False
    team: str | None = None
    answer_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """Somebody judged the bot's message `stamp`: which turn it answers is not said."""

    id: str
    account: str
    chat: str
    stamp: str
    user: str
    rating: int
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Somebody opened the Home tab, or the panel in which one talks with the bot."""

    account: str
    user: str
    home: bool
    chat: str | None = None
    thread: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Somebody pressed Stop."""

    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A team took the app away."""

    account: str


Told = Heard | Reaction | Opened | Stopped | Removed


def removal_in(payload: Payload) -> Removed | None:
    """
    Say whether the app is gone. Asked before anything else, as nobody has a token any
    more. A token of a person may be revoked without the bot's, so `tokens_revoked`
    counts where it lists a bot.
    """
    event, account = part(payload, "event"), account_of(payload)
    kind = text_in(event, "type")
    revoked = kind == "tokens_revoked" and bool(part(event, "tokens").get("bot"))
    if account is None or not (revoked or kind == "app_uninstalled"):
        return None
    return Removed(account=account)


def told_by_event(
    payload: Payload, me: Workspace, bots: Collection[str], now: datetime
) -> list[Told]:
    """Read an event of the Events API."""
    event = part(payload, "event")
    match text_in(event, "type"):
        case "message" | "app_mention":
            found: Told | None = _message(payload, me, bots, now)
        case "reaction_added" | "reaction_removed":
            found = _reaction(event, me, now)
        case "app_home_opened":
            found = _home(event, me)
        case "assistant_thread_started" | "assistant_thread_context_changed":
            found = _panel(event, me)
        case "agent_session_stopped":
            found = _stopped(event, me, now)
        case _:
            found = None
    return [] if found is None else [found]


def told_by_interaction(payload: Payload, me: Workspace, now: datetime) -> list[Told]:
    """
    Read what somebody pressed under a message of the bot. What an action put there as
    blocks of its own is nothing to us: a link in it leads on by itself.
    """
    if text_in(payload, "type") != "block_actions":
        return []
    actions = items(payload, "actions")
    pressed = (_pressed(payload, action, me, now) for action in actions)
    return [one for one in pressed if one is not None]


def told_by_command(payload: Payload, me: Workspace, now: datetime) -> list[Told]:
    """Read a slash command. It knows no thread: it belongs to the channel itself."""
    chat, user = id_in(payload, "channel_id"), id_in(payload, "user_id")
    if chat is None or user is None:
        return []
    said = wording.plain(text_in(payload, "text"), me.bot_user)
    command = wording.command_of_slash(said)
    trigger = text_in(payload, "trigger_id") or digest(repr(sorted(payload.items())))
    address = _address(me, chat, None, user)
    event = _spoken(address, said or "help", command if said else "help", trigger, now)
    url = text_in(payload, "response_url")
    return [Heard(event=event, direct=chat.startswith("D"), answer_at=url or None)]


def stop_event(address: Address, stamp: str, now: datetime) -> Event:
    """
    Return the event of a pressed Stop. Slack tells of it twice, by an event and by an
    error; both name the message that was being written.
    """
    return Event(
        id=_id(address, stamp, "cancel"), kind="cancel", address=address, time=now
    )


def _message(
    payload: Payload, me: Workspace, bots: Collection[str], now: datetime
) -> Heard | None:
    event = part(payload, "event")
    chat, stamp = id_in(event, "channel"), stamp_in(event, "ts")
    if chat is None or stamp is None or not _is_spoken(event, payload, me, bots):
        return None
    user = id_in(event, "user", "bot_id")
    direct = text_in(event, "channel_type") == "im" or chat.startswith("D")
    thread = stamp_in(event, "thread_ts") or (None if direct else stamp)
    said = text_in(event, "text")
    text = wording.plain(said, me.bot_user)
    mentioned = text_in(event, "type") == "app_mention"
    return Heard(
        event=_spoken(
            _address(me, chat, thread, user),
            text,
            wording.command_in(text),
            stamp,
            time_of(stamp, now),
        ),
        addressed=direct or mentioned or wording.mentions(said, me.bot_user),
        direct=direct,
        team=id_in(event, "user_team", "source_team", "team"),
    )


def _is_spoken(
    event: Payload, payload: Payload, me: Workspace, bots: Collection[str]
) -> bool:
    """Say whether somebody whom the bot answers said it."""
    by_bot = bool(event.get("bot_id")) or event.get("subtype") == "bot_message"
    if event.get("hidden") or not _is_speech(event):
        return False
    speakers = {id_in(event, name) for name in ("user", "bot_id")} - {None}
    if not speakers or speakers & {me.bot_user, me.bot_id}:
        return False
    if event.get("app_id") and event["app_id"] == payload.get("api_app_id"):
        return False
    # Two bots that answer each other never stop.
    return not by_bot or bool(speakers & set(bots))


def _is_speech(event: Payload) -> bool:
    if event.get("subtype") is None:
        return True
    return text_in(event, "subtype") in _SPOKEN


def _spoken(
    address: Address, text: str, command: str | None, stamp: str, time: datetime
) -> Event:
    kind: EventKind = "message"
    if command is not None:
        kind, text = "command", command
        if wording.is_stop(command):
            kind, text = "cancel", ""
    return Event(
        id=_id(address, stamp, kind), kind=kind, address=address, time=time, text=text
    )


def _reaction(event: Payload, me: Workspace, now: datetime) -> Reaction | None:
    item = part(event, "item")
    chat, stamp = id_in(item, "channel"), stamp_in(item, "ts")
    user, at = id_in(event, "user"), stamp_in(event, "event_ts")
    # A skin tone comes after two colons.
    rating = _RATINGS.get(text_in(event, "reaction").partition("::")[0])
    ours = text_in(event, "item_user") in {me.bot_user, me.bot_id}
    if not (chat and stamp and user and at and rating and ours) or user == me.bot_user:
        return None
    kind = text_in(event, "type")
    return Reaction(
        id=f"{PLATFORM}:{me.team}:{chat}:{at}:{user}:{kind}",
        account=me.team,
        chat=chat,
        stamp=stamp,
        user=user,
        rating=rating if kind == "reaction_added" else 0,
        time=time_of(at, now),
    )


def _home(event: Payload, me: Workspace) -> Opened | None:
    user, tab = id_in(event, "user"), text_in(event, "tab")
    if user is None or tab not in {"home", "messages"}:
        return None
    chat = id_in(event, "channel")
    return Opened(account=me.team, user=user, home=tab == "home", chat=chat)


def _panel(event: Payload, me: Workspace) -> Opened | None:
    panel = part(event, "assistant_thread")
    user, chat = id_in(panel, "user_id"), id_in(panel, "channel_id")
    if user is None or chat is None:
        return None
    thread = stamp_in(panel, "thread_ts")
    return Opened(account=me.team, user=user, home=False, chat=chat, thread=thread)


def _stopped(event: Payload, me: Workspace, now: datetime) -> Stopped | None:
    chat = id_in(event, "channel", "channel_id")
    if chat is None:
        return None
    address = _address(me, chat, stamp_in(event, "thread_ts"), id_in(event, "user"))
    streaming = event.get("streaming_message_ts")
    first = streaming[0] if isinstance(streaming, list) and streaming else streaming
    stamp = stamp_in({"streaming": first, **event}, "streaming", "event_ts")
    at = time_of(stamp_in(event, "event_ts"), now)
    return Stopped(event=stop_event(address, stamp or digest(repr(event)), at))


def _pressed(
    payload: Payload, action: Payload, me: Workspace, now: datetime
) -> Heard | None:
    where = _where(payload, me)
    name, value = text_in(action, "action_id"), text_in(action, "value")
    turn, _, said = value.rpartition(":")
    if where is None or not is_id(turn) or not _is_number(said):
        return None
    judged = _judgement(name, turn, int(said))
    if judged is None:
        return None
    kind, about = judged
    at = stamp_in(action, "action_ts") or digest(repr(action))
    event = Event(
        id=_id(where, f"{at}:{where.user}", kind),
        kind=kind,
        address=where,
        time=time_of(stamp_in(action, "action_ts"), now),
        data=about,
    )
    person = part(payload, "user")
    url = text_in(payload, "response_url")
    return Heard(
        event=event,
        team=id_in(person, "team_id"),
        answer_at=url or None,
        direct=where.chat.startswith("D"),
    )


def is_ours(action_id: str) -> bool:
    """Say whether a press of what is called so is read as one of a reply's buttons."""
    return action_id == FEEDBACK or action_id.startswith(BUTTON)


def _judgement(
    name: str, turn: str, number: int
) -> tuple[EventKind, Mapping[str, JsonValue]] | None:
    """Say what was pressed, and in which turn's reply."""
    if name == FEEDBACK and number in {1, 0, -1}:
        return "feedback", {"turn": turn, "rating": number}
    if name.startswith(BUTTON) and number >= 0:
        return "button", {"turn": turn, "button": number}
    return None


def _where(payload: Payload, me: Workspace) -> Address | None:
    """Return the conversation whose message has the button."""
    container, message = part(payload, "container"), part(payload, "message")
    chat = id_in(container, "channel_id") or id_in(part(payload, "channel"), "id")
    user = id_in(part(payload, "user"), "id")
    if chat is None or user is None:
        return None
    stamp = stamp_in(container, "message_ts") or stamp_in(message, "ts")
    thread = stamp_in(message, "thread_ts") or stamp_in(container, "thread_ts")
    # A message that others answered to names itself as its thread.
    return _address(me, chat, None if thread == stamp else thread, user)


def _address(me: Workspace, chat: str, thread: str | None, user: str | None) -> Address:
    return Address(
        platform=PLATFORM, account=me.team, chat=chat, thread=thread, user=user
    )


def _id(address: Address, stamp: str, kind: str) -> str:
    return f"{PLATFORM}:{address.account}:{address.chat}:{stamp}:{kind}"


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return 0 < len(digits) <= 3 and digits.isascii() and digits.isdigit()  # noqa: PLR2004 (100 buttons are more than any message has)

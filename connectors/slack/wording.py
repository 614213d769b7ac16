"""
Wording: what people write in Slack, as plain text, and as commands.

Slack writes mentions, channels and links between angle brackets and escapes the three
characters `&<>`. Pure functions; knows neither events nor addresses.
"""

from __future__ import annotations

import html

# The words that are commands when they stand alone; with a slash any word is.
COMMANDS = frozenset({"why", "help", "forget", "start", "human", "bot"})
STOP = "stop"

_ESCAPED = {"&lt;": "<", "&gt;": ">", "&amp;": "&"}


def mentions(text: str, user: str) -> bool:
    return f"<@{user}>" in text or f"<@{user}|" in text


def plain(text: str, bot_user: str) -> str:
    """Return what was said: without the bot's name before it, the rest readable."""
    return _decoded(_without_address(text, bot_user), bot_user).strip()


def command_in(text: str) -> str | None:
    """Return the command that a text is, without its slash; None where it is none."""
    name = text.removeprefix("/")
    if name != text and name[:1].isalpha():
        return name
    return None


def command_of_slash(text: str) -> str | None:
    """Return the command behind `/chorus`, where a single word may be one, too."""
    word = text.strip().lower()
    if word in COMMANDS or word == STOP:
        return word
    return command_in(text.strip())


def is_stop(command: str) -> bool:
    return command.split(maxsplit=1)[0].lower() == STOP


def _without_address(text: str, bot_user: str) -> str:
    """Strip the mentions of the bot that come first: `<@U1>, when …`."""
    left = text.lstrip()
    while left.startswith((f"<@{bot_user}>", f"<@{bot_user}|")) and ">" in left:
        left = left.partition(">")[2].lstrip(" \t\n,:")
    return left


def _decoded(text: str, bot_user: str) -> str:
    """Replace what stands between angle brackets; one that is never closed stays."""
    before, *opened = text.split("<")
    said = [_unescaped(before)]
    for piece in opened:
        inside, closed, after = piece.partition(">")
        if closed:
            said += [_unescaped(_readable(inside, bot_user)), _unescaped(after)]
        else:
            said.append(_unescaped(f"<{piece}"))
    return "".join(said)


def _readable(inside: str, bot_user: str) -> str:
    what, _, label = inside.partition("|")
    match what[:1]:
        case "@":
            return "@bot" if what[1:] == bot_user else f"@{label or what[1:]}"
        case "#":
            return f"#{label or what[1:]}"
        case "!":
            return label or f"@{what[1:].split('^')[0]}"
    return _link(what, label)


def _link(url: str, label: str) -> str:
    bare = url.removeprefix("mailto:").removeprefix("tel:")
    # Slack labels `example.com` by itself where somebody wrote that.
    if not label or label in {url, bare} or url.endswith(f"//{label}"):
        return label or bare
    return f"{label} ({bare})"


def _unescaped(text: str) -> str:
    for escaped, character in _ESCAPED.items():
        text = text.replace(escaped, character)
    return text


def escaped(text: str) -> str:
    """Return `text` so that Slack shows it as it is, and reads nothing into it."""
    return html.escape(text, quote=False)

"""
The pages of an installation: what a person sees in a browser who adds the app.

Plain HTML with its style inside: no script, nothing that is fetched from elsewhere,
nothing that a cache may keep. All that comes from outside is escaped here, and only
here. Knows nothing about OAuth.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from bot.interfaces import WebResponse

TITLE = "Add this bot to Slack"

# What an administrator wants to know: what it may do, not what it needs that for.
MEANINGS = {
    "app_mentions:read": "see messages in which somebody mentions it",
    "assistant:write": "answer in Slack's panel for assistants",
    "channels:history": "read messages in public channels to which it is invited",
    "chat:write": "write messages as itself",
    "commands": "offer a command of its own",
    "groups:history": "read messages in private channels to which it is invited",
    "im:history": "read direct messages to it",
    "mpim:history": "read group messages to which it is invited",
    "reactions:read": "see reactions to messages",
}

_STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 12vh auto;
  padding: 0 1.5rem }
h1 { font-size: 1.5rem; line-height: 1.25 }
a.slack { display: inline-flex; align-items: center; gap: .75rem; margin: .5rem 0;
  padding: .75rem 1.25rem; border: 1px solid #ddd; border-radius: .25rem;
  background: #fff; color: #000; font-weight: 600; text-decoration: none }
a.slack:focus-visible { outline: 3px solid #36c5f0 }
a.slack svg { width: 1.25rem; height: 1.25rem }
small { opacity: .75 }
"""

# The mark that Slack asks everybody to put on this button.
_MARK = (
    '<svg viewBox="0 0 122.8 122.8" aria-hidden="true">'
    '<path fill="#e01e5a" d="'
    "M25.8 77.6c0 7.1-5.8 12.9-12.9 12.9S0 84.7 0 77.6s5.8-12.9 12.9-12.9h12.9v12"
    ".9zm6.5 0c0-7.1 5.8-12.9 12.9-12.9s12.9 5.8 12.9 12.9v32.3c0 7.1-5.8 12.9-12"
    ".9 12.9s-12.9-5.8-12.9-12.9V77.6z"
    '"/>'
    '<path fill="#36c5f0" d="'
    "M45.2 25.8c-7.1 0-12.9-5.8-12.9-12.9S38.1 0 45.2 0s12.9 5.8 12.9 12.9v12.9H4"
    "5.2zm0 6.5c7.1 0 12.9 5.8 12.9 12.9s-5.8 12.9-12.9 12.9H12.9C5.8 58.1 0 52.3"
    " 0 45.2s5.8-12.9 12.9-12.9h32.3z"
    '"/>'
    '<path fill="#2eb67d" d="'
    "M97 45.2c0-7.1 5.8-12.9 12.9-12.9s12.9 5.8 12.9 12.9-5.8 12.9-12.9 12.9H97V4"
    "5.2zm-6.5 0c0 7.1-5.8 12.9-12.9 12.9s-12.9-5.8-12.9-12.9V12.9C64.7 5.8 70.5 "
    "0 77.6 0s12.9 5.8 12.9 12.9v32.3z"
    '"/>'
    '<path fill="#ecb22e" d="'
    "M77.6 97c7.1 0 12.9 5.8 12.9 12.9s-5.8 12.9-12.9 12.9-12.9-5.8-12.9-12.9V97h"
    "12.9zm0-6.5c-7.1 0-12.9-5.8-12.9-12.9s5.8-12.9 12.9-12.9h32.3c7.1 0 12.9 5.8"
    " 12.9 12.9s-5.8 12.9-12.9 12.9H77.6z"
    '"/>'
    "</svg>"
)


def _hash_of(style: str) -> str:
    digest = hashlib.sha256(style.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_hash_of(_STYLE)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    # The address of the last page holds the code and the state.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def offer(authorize_url: str, scopes: Sequence[str]) -> WebResponse:
    """Slack's button, and what the app may do once somebody has pressed it."""
    able = "".join(f"<li>{escape(MEANINGS.get(one, one))}</li>" for one in scopes)
    return _page(
        TITLE,
        "<p>It answers questions in your workspace: in direct messages, and in "
        "channels where somebody asks it.</p>",
        f'<p><a class="slack" href="{escape(authorize_url)}">{_MARK}Add to Slack</a>'
        "</p>",
        f"<p>In your workspace it may:</p><ul>{able}</ul>",
        "<p><small>Slack shows this list again and asks for your consent. An "
        "administrator can remove the bot at any time.</small></p>",
    )


def installed(name: str, next_url: str, *, organisation: bool) -> WebResponse:
    told, link = "Write to it, or invite it to a channel.", "Open it in Slack"
    if organisation:
        told = "It is in no workspace yet: an administrator has to add it to some."
        link = "Choose workspaces"
    return _page(
        f"The bot is in {name}",
        f"<p>{escape(told)}</p>",
        f'<p><a class="slack" href="{escape(next_url)}">{_MARK}{escape(link)}</a></p>',
    )


def failed(
    status: int, title: str, told: str, *, again: str, retry_after_s: int | None = None
) -> WebResponse:
    """Say what went wrong, and where to begin `again`."""
    return _page(
        title,
        f"<p>{escape(told)}</p>",
        f'<p><a href="{escape(again)}">Begin again</a></p>',
        status=status,
        retry_after_s=retry_after_s,
    )


def _page(
    title: str,
    *parts: str,
    status: int = 200,
    retry_after_s: int | None = None,
) -> WebResponse:
    """`title` is text, `parts` are HTML."""
    shown = escape(title)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{shown}</title>'
        f"<style>{_STYLE}</style></head>"
        f"<body><main><h1>{shown}</h1>{''.join(parts)}</main></body></html>\n"
    )
    # A name may hold what UTF-8 cannot.
    body = page.encode(errors="replace")
    again = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return WebResponse(status=status, body=body, headers={**_HEADERS, **again})

"""
Additions: what an action adds to the text of a reply, as Telegram can show it.

One picture is a message's preview, under its text; whatever else there is to look at is
said as its address. A picture sent by itself could be lost, or come twice, without its
text. An action's own JSON is read as Rasa's Telegram channel reads it, as far as that
is a text or an address. All of it comes from strangers. Pure functions; knows neither
the reply's own text nor how it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from bot.model import Reply
from connectors.telegram.splitting import LONGEST_TEXT
from connectors.telegram.wire import a_text, clean

MOST = 10  # pictures, and custom parts: as many as an album has
LONGEST_URL = 2_048

# The keys under which Rasa's channel takes something to look at or to listen to. It may
# be a file of Telegram's, too, which only the bot that was sent it can show.
_KINDS = ("photo", "audio", "document", "video", "animation", "voice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """
    `texts` are plain, `pictures` and `links` addresses. `left_out` are so many that
    Telegram cannot show.
    """

    texts: Sequence[str] = ()
    pictures: Sequence[str] = ()
    links: Sequence[str] = ()
    left_out: int = 0

    @property
    def preview(self) -> str:
        """The address that is shown as a picture; empty where there is none."""
        return next(iter([*self.pictures, *self.links]), "")


def additions_of(reply: Reply) -> Additions:
    """Return what was added to a reply, as much of it as a message should have."""
    pictures = list(_web_addresses(reply.images[:MOST]))
    texts: list[str] = []
    links: list[str] = []
    unknown = 0
    for custom in reply.custom[:MOST]:
        text = clean(a_text(custom.get("text"))[:LONGEST_TEXT]).strip()
        found = list(_web_addresses(custom.get(kind) for kind in _KINDS))
        texts += filter(None, [text])
        links += found
        unknown += not (text or found)
    return Additions(
        texts=texts,
        pictures=pictures,
        links=links[:MOST],
        left_out=sum(
            [
                len(reply.images) - len(pictures),
                max(0, len(reply.custom) - MOST),
                max(0, len(links) - MOST),
                unknown,
            ]
        ),
    )


def _web_addresses(given: Iterable[object]) -> Iterator[str]:
    """Yield those that are addresses, as Telegram takes them."""
    for one in given:
        url = clean(a_text(one)).strip().replace(" ", "%20")
        if len(url) <= LONGEST_URL and _is_web_address(url):
            yield url


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # half an IPv6 address
        return False
    is_whole = url.isprintable() and not any(mark in url for mark in '<>"')
    return is_whole and parts.scheme in {"http", "https"} and bool(parts.hostname)

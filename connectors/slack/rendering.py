"""
Rendering: a reply as Slack's messages.

Pure: from a reply and its key to parts, each with blocks and a plain text for
notifications. The reply's Markdown goes into `markdown` blocks, which read it as it is;
only sources are written in Slack's own mrkdwn. Pictures and an action's own blocks are
under the text, and may be said in words where Slack does not take them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.model import Button, Citation, Reply
from connectors.slack.additions import Additions, Block
from connectors.slack.markdown import harmless, split
from connectors.slack.parsing import BUTTON, FEEDBACK
from connectors.slack.wording import escaped

# What a model wrote must not make Slack fetch an address of its choice.
NO_UNFURLING = {"unfurl_links": False, "unfurl_media": False}

EVENT_TYPE, DRAFT_TYPE = "chorus_reply", "chorus_draft"

# A markdown block holds 12,000, but all blocks of a message together are refused from
# about 13,200 on: https://github.com/slackapi/bolt-js/issues/2509
LONGEST = 11_000
LONGEST_SOURCES = 1_500
# chat.update refuses a `text` of more than 4,000, and each `&` becomes five.
# https://github.com/seratch/ChatGPT-in-Slack/issues/102
LONGEST_NOTICE = 3_000
LONGEST_ESCAPED = 4_000
LONGEST_LABEL = 75
MOST_BUTTONS, BUTTONS_IN_A_ROW = 25, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """
    One message of a reply. `markdown` is its text as a stream has shown it. Only the
    last part has what is below that: `added` are the pictures and an action's own
    blocks, `instead` says them in words, `extras` are all others.
    """

    markdown: str
    added: Sequence[Block] = ()
    instead: str = ""
    extras: Sequence[Block] = ()

    @property
    def blocks(self) -> list[Block]:
        text = [{"type": "markdown", "text": self.markdown}] if self.markdown else []
        return [*text, *self.below]

    @property
    def below(self) -> list[Block]:
        """The blocks under the text."""
        return [*self.added, *self.extras]

    @property
    def in_words(self) -> Part | None:
        """The part with words for what was added; None where there are none."""
        said = _paragraphs(self.markdown, self.instead)
        if not self.added or not said:
            return None
        return Part(markdown=said, extras=self.extras)

    @property
    def notice(self) -> str:
        """What a notification shows, and whoever reads without blocks."""
        notice = (self.markdown or self.instead)[:LONGEST_NOTICE]
        while len(escaped(notice)) > LONGEST_ESCAPED:
            notice = notice[: len(notice) // 2]
        return escaped(notice)


def parts_of(
    reply: Reply, additions: Additions, key: str, *, feedback: bool
) -> list[Part]:
    """
    Return the messages of a reply and of what was added to it, in order, none if there
    is nothing to show; `feedback` asks whether it helped.
    """
    text = _paragraphs(harmless(reply.text), *additions.words)
    if not text and not additions.blocks:
        return []
    extras = [
        *_sources(reply.citations),
        *_buttons(reply.buttons, key),
        *(_feedback(key) if feedback and reply.feedback else ()),
    ]
    taken = sum(map(_size, extras)) + additions.size
    *first, last = split(text, LONGEST - taken)
    return [
        *(Part(markdown=piece) for piece in first),
        Part(
            markdown=last,
            added=additions.blocks,
            instead=additions.instead,
            extras=extras,
        ),
    ]


def content_of(part: Part) -> dict[str, Any]:
    """Return the arguments of a call that shows a part."""
    return {"text": part.notice, "blocks": part.blocks}


def metadata_of(key: str, part: int, parts: int) -> Mapping[str, Any]:
    """Return what names a message, so that it can be found again."""
    payload = {"key": key, "part": part, "parts": parts}
    return {"event_type": EVENT_TYPE, "event_payload": payload}


def draft_metadata() -> Mapping[str, Any]:
    """Return what names a message that becomes a reply, of which turn is not known."""
    return {"event_type": DRAFT_TYPE, "event_payload": {"draft": True}}


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text.strip())


def _sources(citations: Sequence[Citation]) -> list[Block]:
    """Return one line that names each source once."""
    named = list(dict.fromkeys(map(_source, citations)))
    if not named:
        return []
    line = ""
    for number, source in enumerate(named, start=1):
        longer = f"{line}  ·  {source}" if line else f"Sources: {source}"
        if len(longer) > LONGEST_SOURCES:
            line += f"  ·  and {len(named) - number + 1} more"
            break
        line = longer
    element = {"type": "mrkdwn", "text": line, "verbatim": True}
    return [{"type": "context", "elements": [element]}]


def _source(citation: Citation) -> str:
    title = escaped(" ".join((citation.title or citation.source).split()))[:200]
    if not citation.url.startswith(("https://", "http://")):
        return title
    # A bar ends the address in Slack's links, an angle bracket the link.
    url = escaped(citation.url).replace("|", "%7C").replace(" ", "%20")
    if len(url) > LONGEST_SOURCES // 2:
        return title
    return f"<{url}|{title.replace('|', '¦')}>"


def _buttons(buttons: Sequence[Button], key: str) -> list[Block]:
    elements = [
        {
            "type": "button",
            "text": _label(button.text),
            "action_id": f"{BUTTON}_{number}",
            "value": f"{key}:{number}",
        }
        for number, button in enumerate(buttons[:MOST_BUTTONS])
    ]
    return [
        {"type": "actions", "elements": elements[first : first + BUTTONS_IN_A_ROW]}
        for first in range(0, len(elements), BUTTONS_IN_A_ROW)
    ]


def _feedback(key: str) -> list[Block]:
    element = {
        "type": "feedback_buttons",
        "action_id": FEEDBACK,
        "positive_button": {"text": _label("It helped"), "value": f"{key}:1"},
        "negative_button": {"text": _label("It did not"), "value": f"{key}:-1"},
    }
    return [{"type": "context_actions", "elements": [element]}]


def _label(text: str) -> Block:
    short = text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
    return {"type": "plain_text", "text": short or " "}


def _size(block: Block) -> int:
    """Return how many characters of a block Slack may count."""
    said = (element.get("text", "") for element in block["elements"])
    return sum(len(text if isinstance(text, str) else text["text"]) for text in said)

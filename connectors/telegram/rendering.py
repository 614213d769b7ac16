"""
Rendering: from a reply to the messages that show it.

Markdown becomes text with entities, which need no escaping and are cut without breaking
anything; sources follow as a last paragraph, buttons under the last message. Pure
functions, the same reply is always cut in the same places, so that a sending that was
interrupted can go on. Knows nothing about how messages are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from bot.model import Citation, Reply
from connectors.telegram.buttons import Keyboard, keyboard
from connectors.telegram.splitting import LONGEST_TEXT, Entity, Formatted, split
from connectors.telegram.wire import units

if TYPE_CHECKING:
    from telegramify_markdown import MessageEntity, RenderConfig

LONGEST_TITLE = 200
# The library pads a table to its widest cell: past this it is shown as it was written.
MOST_GROWTH = 2

# What a reply may contain; a mention, say, would call somebody whom a document names.
_FORMATS = {
    "blockquote",
    "bold",
    "code",
    "expandable_blockquote",
    "italic",
    "pre",
    "spoiler",
    "strikethrough",
    "text_link",
    "underline",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One message."""

    text: str
    entities: Sequence[Entity] = ()
    keyboard: Keyboard = field(default_factory=list)


def rendered(reply: Reply, turn: str, *, feedback: bool) -> list[Part]:
    """Return the messages of a turn's reply; none if there is nothing to show."""
    whole = _with_sources(_formatted(reply.text), reply.citations)
    pieces = split(whole)
    under = keyboard(turn, reply.buttons, feedback=feedback)
    return [
        Part(
            text=piece.text,
            entities=piece.entities,
            keyboard=under if number == len(pieces) else [],
        )
        for number, piece in enumerate(pieces, 1)
    ]


def preview(text: str) -> Part | None:
    """Return what is shown of a reply so far, in one message; None is nothing yet."""
    pieces = split(_formatted(text), LONGEST_TEXT)
    return Part(text=pieces[0].text, entities=pieces[0].entities) if pieces else None


def _formatted(markdown: str) -> Formatted:
    from telegramify_markdown import convert  # noqa: PLC0415 (loads with the connector)

    text = _clean(markdown)
    try:
        converted, entities = convert(text, latex_escape=False, config=_config())
    # A stranger's code, on whatever a model wrote: one text that it stumbles over must
    # not cost the customer the answer.
    except Exception:  # noqa: BLE001
        return Formatted(text=text)
    if not converted.strip():
        return Formatted(text=text)  # a comment, say: better shown than nothing
    if len(converted) > MOST_GROWTH * len(text):
        return Formatted(text=text)
    return Formatted(text=converted, entities=list(filter(None, map(_kept, entities))))


def _kept(entity: MessageEntity) -> Entity | None:
    """Return what is kept of a format; a link has to lead to a web page."""
    is_link = entity.type == "text_link"
    if entity.type not in _FORMATS or (is_link and not _is_web(entity.url or "")):
        return None
    return Entity(
        type=entity.type,
        offset=entity.offset,
        length=entity.length,
        url=entity.url,
        language=entity.language,
    )


def _with_sources(text: Formatted, citations: Sequence[Citation]) -> Formatted:
    """Add the documents that the reply comes from, each once."""
    sources = dict.fromkeys(
        (citation.title or citation.source, citation.url) for citation in citations
    )
    whole, entities = text.text.rstrip(), list(text.entities)
    for number, (title, url) in enumerate(sources, 1):
        whole += "\n\n" if number == 1 else "\n"
        line = f"[{number}] {_clean(title).strip()[:LONGEST_TITLE]}"
        if _is_web(url):
            entities.append(
                Entity(
                    type="text_link", offset=units(whole), length=units(line), url=url
                )
            )
        whole += line
    return Formatted(text=whole, entities=entities)


def _is_web(url: str) -> bool:
    return url.startswith(("https://", "http://"))


def _clean(text: str) -> str:
    """Drop what is no text: half characters and NUL."""
    return text.encode("utf-8", errors="replace").decode("utf-8").replace("\x00", "")


@cache
def _config() -> RenderConfig:
    """Plain marks, in place of the pictograms that the library decorates with."""
    from telegramify_markdown import RenderConfig  # noqa: PLC0415 (loads with the …)

    config = RenderConfig.isolated()
    marks = config.markdown_symbol
    marks.heading_level_1 = marks.heading_level_2 = ""
    marks.heading_level_3 = marks.heading_level_4 = ""
    marks.unordered_list_item = "•"
    return config

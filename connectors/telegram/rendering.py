"""
Rendering: from a reply to the messages that show it.

Markdown becomes text with entities, which need no escaping and are cut without breaking
anything; what an action added and the sources follow as last paragraphs, a picture and
buttons under the last message. Pure functions, the same reply is always cut in the same
places, so that a sending that was interrupted can go on. Knows nothing about how
messages are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from bot.model import Citation, Reply
from connectors.telegram.additions import Additions
from connectors.telegram.buttons import Keyboard, keyboard
from connectors.telegram.splitting import LONGEST_TEXT, Entity, Formatted, split
from connectors.telegram.wire import clean, units

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
    """One message; `picture` is the address of what is shown under its text."""

    text: str
    entities: Sequence[Entity] = ()
    picture: str = ""
    keyboard: Keyboard = field(default_factory=list)

    @property
    def with_address(self) -> Part:
        """The message with the picture's address in place of the picture."""
        if self.picture in self.text:
            return replace(self, picture="")
        return replace(self, text=f"{self.text}\n\n{self.picture}", picture="")


def rendered(
    reply: Reply, additions: Additions, turn: str, *, feedback: bool
) -> list[Part]:
    """
    Return the messages of a turn's reply and of what was added to it; none if there is
    nothing to show.
    """
    whole = _with_additions(_formatted(reply.text), additions)
    # In place of the picture its address may have to be said.
    room = units(f"\n\n{additions.preview}") if additions.preview else 0
    pieces = split(_with_sources(whole, reply.citations), LONGEST_TEXT - room)
    under = keyboard(turn, reply.buttons, feedback=feedback)
    parts = [Part(text=piece.text, entities=piece.entities) for piece in pieces]
    return [
        *parts[:-1],
        *(
            replace(last, picture=additions.preview, keyboard=under)
            for last in parts[-1:]
        ),
    ]


def preview(text: str) -> Part | None:
    """Return what is shown of a reply so far, in one message; None is nothing yet."""
    pieces = split(_formatted(text), LONGEST_TEXT)
    return Part(text=pieces[0].text, entities=pieces[0].entities) if pieces else None


def _formatted(markdown: str) -> Formatted:
    from telegramify_markdown import convert  # noqa: PLC0415 (loads with the connector)

    text = clean(markdown)
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


def _with_additions(text: Formatted, additions: Additions) -> Formatted:
    """Add an action's own texts, and the addresses of what is not the preview."""
    whole = text.text.rstrip()
    for added in additions.texts:
        whole += f"\n\n{added}" if whole else added
    previewed = 1 if whole else 0
    addresses = [*additions.pictures[previewed:], *additions.links]
    return _with_lines(
        Formatted(text=whole, entities=text.entities),
        [(address, address) for address in addresses],
    )


def _with_sources(text: Formatted, citations: Sequence[Citation]) -> Formatted:
    """Add the documents that the reply comes from, each once."""
    sources = dict.fromkeys(
        (citation.title or citation.source, citation.url) for citation in citations
    )
    return _with_lines(
        text,
        [
            (f"[{number}] {clean(title).strip()[:LONGEST_TITLE]}", url)
            for number, (title, url) in enumerate(sources, 1)
        ],
    )


def _with_lines(text: Formatted, lines: Sequence[tuple[str, str]]) -> Formatted:
    """Add a paragraph of lines, each of which leads to an address, if it is one."""
    whole, entities = text.text.rstrip(), list(text.entities)
    for number, (line, url) in enumerate(lines):
        whole += "\n" if number else "\n\n"
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

# ruff: noqa: RUF002 (Chinese punctuation is meant)
"""
Suite `dialogues`: does retrieval find what a message of a dialogue speaks of?

It reads dialogues that were written from triples (subject, attribute, value), in the
format of KdConv (Zhou et al. 2020), which is Chinese:

    [{"messages": [{"message": "你听过《陪我歌唱》吗？",
                    "attrs": [{"name": "陪我歌唱", "attrname": "专辑歌手",
                               "attrvalue": "陈奕迅"}]}, …]}, …]

All triples of the file become the documents of a temporary index. Every message that
has `attrs` is searched for as a customer's, after the messages before it; what its
writer used is what is to be found. Several things may be wanted at once: recall@k is
the share of them. With an embedder that does not know the language, as its `languages`
say, all legs go by words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter

from bot.evaluation.lines import DataFile, Line, chosen, inside, json_document, named
from bot.evaluation.report import Report, Row
from bot.evaluation.retrieval import Search, is_document, knowing, search_rows
from bot.evaluation.turns import asking
from bot.interfaces import Progress

if TYPE_CHECKING:
    from bot.app import App

_NEEDS = (
    "a JSON list of dialogues with messages, each with message and, where it speaks of "
    "something, attrs of name, attrname and attrvalue"
)


class Triple(Line):
    """Something that is known about a subject."""

    name: str
    attrname: str
    attrvalue: str

    @property
    def text(self) -> str:
        return f"{self.name}: {self.attrname}: {self.attrvalue}"


class Message(Line):
    """One message, and the triples that it was written from."""

    message: Annotated[str, Field(min_length=1)]
    attrs: tuple[Triple, ...] = ()


class Dialogue(Line):
    messages: tuple[Message, ...]


async def dialogues(
    bots: Sequence[tuple[str, App]], file: DataFile, progress: Progress
) -> Report:
    """Measure hit@k, recall@k, MRR and nDCG@5; `limit` is a number of dialogues."""
    path = inside(named(file, "a file of dialogues"), "music_test.json")
    every: Sequence[Dialogue] = json_document(
        path,
        TypeAdapter(Annotated[tuple[Dialogue, ...], Field(min_length=1)]),
        _NEEDS,
    )
    texts = list(
        dict.fromkeys(
            triple.text
            for dialogue in every
            for message in dialogue.messages
            for triple in message.attrs
        )
    )
    number = {text: at for at, text in enumerate(texts)}
    asked = chosen(path, every, file)
    searches = [
        search
        for at, dialogue in enumerate(asked)
        for search in _searches(f"dialogue-{at}", dialogue, number)
    ]
    rows: list[Row] = []
    for name, app in bots:
        with knowing(app, texts) as variant:
            rows += await search_rows(f"{name}: ", variant, searches, progress)
    return Report(suite="dialogues", rows=rows)


def _searches(name: str, dialogue: Dialogue, number: Mapping[str, int]) -> list[Search]:
    turns = [
        asking(f"{name}-{at}", one.message) for at, one in enumerate(dialogue.messages)
    ]
    return [
        Search(
            turn=replace(turns[at], history=[turn.message for turn in turns[:at]]),
            wanted=[
                partial(is_document, number[text])
                for text in dict.fromkeys(triple.text for triple in message.attrs)
            ],
        )
        for at, message in enumerate(dialogue.messages)
        if message.attrs
    ]

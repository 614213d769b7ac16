"""
What a reply cites: passages, with their document's title and address.

Knows neither how candidates are written nor how citations are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from bot.model import Candidate, Citation, Passage, Reply


def cited(candidate: Candidate, passages: Sequence[Passage]) -> Reply:
    """
    Return the reply that says what the candidate says, and where that stands. It cites
    what the candidate cites; a candidate of the model, which cites nothing
    itself, is given the passage that it shares most of its words with.
    """
    named = [one for one in passages if one.id in candidate.citations]
    named = named or _nearest(candidate.text, passages)
    return Reply(
        text=candidate.text,
        citations=tuple(map(_citation, named)),
        feedback=True,
    )


def _citation(passage: Passage) -> Citation:
    return Citation(
        source=passage.source,
        passage=passage.id,
        title=passage.title,
        url=_address_of(passage),
    )


def _address_of(passage: Passage) -> str:
    """Return where a customer can read the document, if that is known."""
    known = (passage.source, passage.metadata.get("url", ""))
    return next(filter(_is_web_address, known), "")


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:  # half an IPv6 address
        return False
    # White space, or what HTML quotes with, would end a link in the middle of it.
    whole = not any(one.isspace() or one in '<>"' for one in text)
    return whole and parts.scheme in {"http", "https"} and bool(parts.hostname)


def _nearest(text: str, passages: Sequence[Passage]) -> list[Passage]:
    """Compare by runs of three characters: they serve any language."""
    runs = _trigrams(text)
    shared = [len(runs & _trigrams(passage.text)) for passage in passages]
    return [passages[shared.index(max(shared))]] if any(shared) else []


def _trigrams(text: str) -> set[str]:
    folded = " ".join(text.casefold().split())
    return {folded[start : start + 3] for start in range(len(folded) - 2)}

"""
Text as it arrives, made fit to be kept: valid, normal, without control characters.

Knows nothing about what the text means.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from bot.model import Event
from bot.text import unstacked

# C0 and C1 controls except tab and line feed, and surrogates, which are no characters.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def cleaned(event: Event) -> Event:
    return replace(event, text=cleaned_text(event.text))


def cleaned_text(text: str) -> str:
    """Return `text` in NFC, lines ended by a line feed, without what cannot be read."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    # Ten thousand accents on one letter would hold up everybody for seconds.
    return unicodedata.normalize("NFC", unstacked(_UNWANTED.sub("", lines)))


def is_readable(text: str) -> bool:
    """Say whether there is one character in it that is neither space nor invisible."""
    return any(
        not character.isspace() and unicodedata.category(character)[0] != "C"
        for character in text
    )

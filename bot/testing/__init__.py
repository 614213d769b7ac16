"""
The test kit for plugin authors: makers and fakes, by name, from here.

The contracts are in `bot.testing.contracts`, which needs pytest and
pytest-asyncio.
"""

from bot.testing.fakes import (
    Delivery,
    FakeTools,
    FakeVocabulary,
    FixedClock,
    HashEmbedder,
    MemoryConnector,
    ScriptedLanguageModel,
    a_tools,
)
from bot.testing.makers import (
    NOON,
    a_candidate,
    a_passage,
    a_turn,
    an_address,
    an_event,
)

__all__ = [
    "NOON",
    "Delivery",
    "FakeTools",
    "FakeVocabulary",
    "FixedClock",
    "HashEmbedder",
    "MemoryConnector",
    "ScriptedLanguageModel",
    "a_candidate",
    "a_passage",
    "a_tools",
    "a_turn",
    "an_address",
    "an_event",
]

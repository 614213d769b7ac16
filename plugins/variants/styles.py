"""
Has siblings answer in different styles: briefly, in a full sentence, in quoted words.

    sibling i of a turn is written with style i mod n

Diversity by prompt is worth as much as diversity by temperature, and costs less truth:
eight greedy replies to eight prompts held the answer (oracle) as often as eight samples
at temperature 0.7, .75 against .73 of XQuAD questions, SmolLM2-135M. The idea is that
of multi-prompt decoding (Heineman et al. 2024, arXiv:2407.15343). The first style is
the prompt as it is, so that a set of one is what it would be without this plugin. Each
instruction is a short order: a small model follows nothing longer. They are in English;
write your own where the model takes an English order for a reason to answer in English.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from bot import hookimpl
from bot.interfaces import PromptVariant
from bot.model import Candidate, Turn

Name = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40)
]
Instruction = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)]

STYLES: Mapping[str, str] = {
    "plain": "",
    "brief": "Answer in as few words as possible.",
    "full-sentence": "Answer in one full sentence that takes up the question.",
    "quoting": "Answer with the exact words of the passage that says it.",
    "precise": "Give the exact names, numbers and conditions.",
    "next-step": "Say what the customer should do.",
}


class Styles:
    """Contributes one variant for each style."""

    name = "styles"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        styles: Mapping[Name, Instruction] = Field(
            STYLES,
            min_length=1,
            max_length=32,
            description="instruction of each style by name, in the order in which "
            "siblings take them; an empty one is the prompt as it is",
        )

    def __init__(self, settings: Settings) -> None:
        self._styles = [Style(*style) for style in settings.styles.items()]

    @hookimpl
    def prompt_variants(self) -> list[PromptVariant]:
        return [*self._styles]


class Style:
    """One wording; what the model writes with it is one reply."""

    replies = 1

    def __init__(self, name: str, instruction: str) -> None:
        self.name = name
        self._instruction = instruction

    def instruction(self, turn: Turn) -> str:
        return self._instruction

    def read(self, turn: Turn, written: Candidate) -> Sequence[Candidate]:
        return [written]

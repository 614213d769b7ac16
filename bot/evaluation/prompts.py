"""
Reads open-ended prompts: requests that many different replies are right for.

The format is that of NoveltyBench's curated prompts (Zhang et al. 2025,
arXiv:2504.05228), one JSON object in a line:

    {"id": "curated-0", "category": "Creativity", "prompt": "Tell me a story …"}

Nobody knows the right answer, so a prompt becomes a question without any; what is
measured is how much the candidates differ (`diversity`), and what they cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bot.errors import ConfigError
from bot.evaluation.lines import Line, inside, json_lines
from bot.evaluation.questions import Question

_NEEDS = "one JSON object in each line, with id, category and prompt"


class Prompt(Line):
    """An open-ended request, and what kind of request it is."""

    id: Annotated[str, Field(min_length=1)]
    category: str = ""
    prompt: Annotated[str, Field(min_length=1)]

    @property
    def question(self) -> Question:
        return Question(id=self.id, question=self.prompt)


def prompts(path: Path) -> Sequence[Prompt]:
    """Read a file of prompts, or the curated ones of a folder; or raise ConfigError."""
    path = inside(path, "curated.jsonl")
    found = json_lines(path, Prompt, _NEEDS)
    twice = [
        id_ for id_, times in Counter(one.id for one in found).items() if times > 1
    ]
    if twice:
        raise ConfigError(
            f"{path}: id {twice[0]!r} occurs more than once; give each prompt its own"
        )
    return found

"""Open-ended prompts as questions."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import ConfigError
from bot.evaluation.prompts import prompts
from bot.evaluation.questions import Question


def written(folder: Path, text: str) -> Path:
    path = folder / "curated.jsonl"
    path.write_text(text)
    return path


def test_a_prompt_is_a_question_without_answers(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '{"id": "c-0", "category": "Creativity", "prompt": "Tell me a story.", '
        '"prompt_paraphrases": ["Write one."]}',
    )

    (found,) = prompts(path)

    assert found.category == "Creativity"
    assert found.question == Question(id="c-0", question="Tell me a story.")
    assert not found.question.answerable


def test_a_folder_stands_for_its_curated_prompts(tmp_path: Path) -> None:
    written(tmp_path, '{"id": "c-0", "prompt": "Name a colour."}')

    assert [one.prompt for one in prompts(tmp_path)] == ["Name a colour."]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id": "a"}', "line 1: prompt: Field required; give one JSON object"),
        ('{"id": "a", "prompt": ""}', "line 1: prompt: .*; give one JSON object"),
        ("prompts", "line 1: not JSON; give one JSON object"),
        ("", "has no records; give one JSON object"),
        (
            '{"id": "a", "prompt": "b"}\n{"id": "a", "prompt": "c"}',
            "id 'a' occurs more than once; give each prompt its own",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        prompts(written(tmp_path, text))

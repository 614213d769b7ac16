# ruff: noqa: RUF001 (Chinese punctuation is meant)
"""Triples that a message speaks of, found among all of a file's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.errors import ConfigError
from bot.evaluation.dialogues import dialogues
from tests.evaluation.bots import File, a_bot, by_name, quiet

SINGER = {"name": "陪我歌唱", "attrname": "专辑歌手", "attrvalue": "陈奕迅"}
STYLE = {"name": "陪我歌唱", "attrname": "音乐风格", "attrvalue": "流行乐"}
OTHER = {"name": "孤独患者", "attrname": "发行时间", "attrvalue": "2011年"}


def written(folder: Path, *dialogues_: list[tuple[str, list[dict[str, str]]]]) -> File:
    path = folder / "dialogues.json"
    path.write_text(
        json.dumps(
            [
                {
                    "messages": [
                        {"message": text, **({"attrs": attrs} if attrs else {})}
                        for text, attrs in messages
                    ]
                }
                for messages in dialogues_
            ]
        )
    )
    return File(path=path)


async def test_what_a_message_speaks_of_is_found_by_words(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        [("你好", []), ("孤独患者的发行时间是2011年", [OTHER])],
        [("陪我歌唱的专辑歌手是陈奕迅，音乐风格是流行乐", [SINGER, STYLE, SINGER])],
    )

    report = await dialogues([("mine", a_bot(tmp_path / "data"))], file, quiet)

    hybrid = by_name(report)["mine: hybrid"]
    assert hybrid.n == 2  # a greeting speaks of nothing
    assert hybrid.metrics["hit@1"] == 1.0
    # One of one in the first place, and one of two.
    assert hybrid.metrics["recall@1"] == 0.75
    assert hybrid.metrics["recall@5"] == 1.0
    assert hybrid.metrics["ndcg@5"] == pytest.approx(1.0)
    assert list(by_name(report)) == ["mine: dense", "mine: bm25", "mine: hybrid"]


async def test_a_short_message_is_read_after_the_one_before_it(tmp_path: Path) -> None:
    alone = written(tmp_path, [("孤独患者", [OTHER])], [("好听", [SINGER])])
    without = await dialogues([("mine", a_bot(tmp_path / "a"))], alone, quiet)

    after = written(
        tmp_path, [("孤独患者", [OTHER]), ("专辑歌手", []), ("好听", [SINGER])]
    )
    within = await dialogues([("mine", a_bot(tmp_path / "b"))], after, quiet)

    name = "mine: bm25"
    assert (
        by_name(within)[name].metrics["hit@1"] > by_name(without)[name].metrics["hit@1"]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "at least 1 item"),
        ('[{"messages": [{"attrs": []}]}]', r"0\.messages\.0\.message"),
    ],
)
async def test_a_file_without_dialogues_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "dialogues.json"
    path.write_text(text)

    with pytest.raises(ConfigError, match=f"{said}.*; give a JSON list of dialogues"):
        await dialogues([("mine", a_bot(tmp_path))], File(path=path), quiet)

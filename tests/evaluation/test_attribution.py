"""Which replies people found to be supported."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import ConfigError
from bot.evaluation.attribution import attribution
from tests.evaluation.bots import File, a_bot, by_name, quiet

HEADER = "model_name\tdata_source\tknowledge\tmessage\tresponse\tbegin_label"
KNOWN = "Bowling is played with ten pins"
SUPPORTED, NOT = "Fully attributable", "Not fully attributable"


def written(path: Path, *rows: tuple[str, str, str]) -> Path:
    """Write replies: their source, their text and their label."""
    lines = [
        f"gpt2\t{source}\t{KNOWN}\tHow is it played?\t{reply}\t{label}"
        for source, reply, label in rows
    ]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


async def test_auc_is_within_each_source_and_over_all(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tsv",
        ("wow", "with ten pins", SUPPORTED),
        ("wow", "my uncle likes chess", NOT),
        ("tc", "my uncle likes chess", SUPPORTED),
        ("tc", "with ten pins", "Generic"),
    )

    report = await attribution([("mine", a_bot(tmp_path))], File(path=path), quiet)

    grounded = by_name(report)["mine: groundedness"].metrics
    assert grounded == {"auc wow": 1.0, "auc tc": 0.0, "auc": 0.5}


async def test_a_scorer_that_compares_siblings_is_at_chance(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tsv", ("wow", "with ten pins", SUPPORTED), ("wow", "no", NOT)
    )

    report = await attribution([("mine", a_bot(tmp_path))], File(path=path), quiet)

    assert by_name(report)["mine: consensus"].metrics["auc"] == 0.5
    # Its z-scores are 0, so the total is what groundedness says.
    assert by_name(report)["mine"].metrics["auc"] == 1.0


async def test_a_weight_turns_the_total_round(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tsv", ("wow", "with ten pins", SUPPORTED), ("wow", "no", NOT)
    )
    bot = a_bot(tmp_path, weights={"groundedness": -1.0})

    report = await attribution([("mine", bot)], File(path=path), quiet)

    assert by_name(report)["mine"].metrics["auc"] == 0.0
    assert by_name(report)["mine: groundedness"].metrics["auc"] == 1.0


async def test_a_folder_and_further_files_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "begin"
    folder.mkdir()
    written(folder / "b.tsv", ("tc", "with ten pins", SUPPORTED))
    written(folder / "a.tsv", ("wow", "no", NOT))
    more = written(tmp_path / "c.tsv", ("cmu", "pins", SUPPORTED))

    report = await attribution(
        [("mine", a_bot(tmp_path))], File(path=folder), quiet, also=[more]
    )

    assert [one.record.reply.text for one in report.details] == [
        "no",
        "with ten pins",
        "pins",
    ]
    assert [one.worth for one in report.details] == [(0.0,), (1.0,), (1.0,)]
    # A source with one kind of label alone has no AUC of its own.
    assert set(by_name(report)["mine"].metrics) == {"auc"}


async def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no .tsv files; name a folder"):
        await attribution([("mine", a_bot(tmp_path))], File(path=tmp_path), quiet)


async def test_a_table_without_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("data_source\tknowledge\nwow\tx\n")

    with pytest.raises(ConfigError, match=r"line 2: message: .*; give a table"):
        await attribution([("mine", a_bot(tmp_path))], File(path=path), quiet)

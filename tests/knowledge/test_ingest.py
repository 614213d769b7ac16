from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from bot.errors import KnowledgeError, PluginError
from bot.knowledge.index import Index

Ingest = Callable[..., Any]
OpenIndex = Callable[..., Index]


def texts_of(index: Index) -> dict[str, str]:
    generation = index.generation()
    numbers = range(1, len(generation) + 1)
    return {p.source: p.text for p in generation.passages(numbers).values()}


def test_documents_become_passages(run_ingest: Ingest, open_index: OpenIndex) -> None:
    report = run_ingest()

    assert report.added == ["batteries.txt", "refunds.md", "shipping.md"]
    assert report.passages == 3
    assert texts_of(open_index()) == {
        "batteries.txt": "Batteries are charged overnight.",
        "refunds.md": "A refund takes five days.",
        "shipping.md": "Parcels travel by train.",
    }


def test_only_what_changed_is_embedded_again(
    run_ingest: Ingest, open_index: OpenIndex, documents: Path, words: Any
) -> None:
    run_ingest()
    (documents / "refunds.md").write_text("# Refunds\n\nA refund takes nine days.\n")
    (documents / "new.md").write_text("Helmets are sold in three sizes.")
    (documents / "shipping.md").unlink()
    words.embedded.clear()

    report = run_ingest()

    assert (report.added, report.changed) == (["new.md"], ["refunds.md"])
    assert (report.removed, report.unchanged) == (["shipping.md"], ["batteries.txt"])
    assert not any("Batteries" in text for text in words.embedded)
    assert texts_of(open_index()) == {
        "batteries.txt": "Batteries are charged overnight.",
        "new.md": "Helmets are sold in three sizes.",
        "refunds.md": "A refund takes nine days.",
    }


def test_nothing_is_written_when_nothing_changed(
    run_ingest: Ingest, open_index: OpenIndex
) -> None:
    run_ingest()

    report = run_ingest()

    assert len(report.unchanged) == report.passages == 3
    assert open_index().number == 1


def test_vectors_are_copied_without_loss(
    run_ingest: Ingest, open_index: OpenIndex, documents: Path
) -> None:
    run_ingest()
    [first] = open_index().generation().entries("refunds.md")
    for number in range(4):
        (documents / "new.md").write_text(f"Change {number}.")
        run_ingest()

    [copied] = open_index().generation().entries("refunds.md")

    assert copied.passage == first.passage
    assert np.array_equal(copied.vector, first.vector)
    assert np.array_equal(copied.sentences, first.sentences)


def test_other_settings_read_everything_again(
    run_ingest: Ingest, open_index: OpenIndex
) -> None:
    run_ingest(passage_tokens=160)

    report = run_ingest(passage_tokens=80)

    assert len(report.changed) == 3
    assert open_index().number == 2


def test_one_bad_document_stops_no_other(run_ingest: Ingest, documents: Path) -> None:
    (documents / "broken.pdf").write_bytes(b"%PDF broken")
    (documents / "photo.png").write_bytes(b"\x89PNG")
    (documents / "empty.md").write_bytes(b"")

    report = run_ingest()

    assert report.passages == 3
    assert len(report.problems) == 3
    for name in ("broken.pdf", "photo.png", "empty.md"):
        assert sum(name in problem for problem in report.problems) == 1


def test_a_document_that_became_unreadable_keeps_its_passages(
    run_ingest: Ingest, open_index: OpenIndex, documents: Path
) -> None:
    run_ingest()
    (documents / "refunds.md").write_bytes(b"\xff\xfe broken")

    report = run_ingest()

    assert texts_of(open_index())["refunds.md"] == "A refund takes five days."
    assert report.removed == []
    assert "not valid UTF-8" in report.problems[0]
    assert "still served" in report.problems[1]


def test_a_document_that_became_unreadable_survives_other_settings(
    run_ingest: Ingest, open_index: OpenIndex, documents: Path
) -> None:
    run_ingest()
    (documents / "refunds.md").write_bytes(b"\xff\xfe broken")

    run_ingest(passage_tokens=80)

    assert texts_of(open_index())["refunds.md"] == "A refund takes five days."


def test_documents_of_a_missing_root_are_not_taken_for_removed(
    run_ingest: Ingest, documents: Path
) -> None:
    run_ingest()
    documents.rename(documents.with_name("unmounted"))

    report = run_ingest()

    assert report.removed == []
    assert len(report.unchanged) == 3
    assert "no such file or folder" in report.problems[0]


def test_paths_that_are_not_the_whole_leave_documents_from_elsewhere(
    run_ingest: Ingest, open_index: OpenIndex, documents: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    (more / "deep").mkdir(parents=True)
    (more / "deep" / "refunds.md").write_text("Other refunds take a year.")
    (more / "gone.md").write_text("Soon gone.")
    run_ingest([documents, more])
    (more / "gone.md").unlink()
    (more / "deep" / "refunds.md").write_text("Other refunds take a day.")

    report = run_ingest([more], whole=False)
    named = run_ingest([more / "deep" / "refunds.md"], whole=False)

    assert (report.changed, report.removed) == (["deep/refunds.md"], ["gone.md"])
    assert (named.added, named.changed, named.removed) == ([], [], [])
    assert texts_of(open_index()) == {
        "batteries.txt": "Batteries are charged overnight.",
        "deep/refunds.md": "Other refunds take a day.",
        "refunds.md": "A refund takes five days.",
        "shipping.md": "Parcels travel by train.",
    }


def test_a_new_document_never_takes_the_name_of_one_from_elsewhere(
    run_ingest: Ingest, open_index: OpenIndex, tmp_path: Path
) -> None:
    run_ingest()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "refunds.md").write_text("Other refunds take a day.")

    report = run_ingest([tmp_path / "other" / "refunds.md"], whole=False)

    assert report.added == ["other/refunds.md"]
    assert texts_of(open_index())["refunds.md"] == "A refund takes five days."


def test_what_was_kept_under_other_settings_is_read_again_when_it_can_be(
    run_ingest: Ingest, documents: Path
) -> None:
    run_ingest(passage_tokens=160)
    run_ingest([documents / "refunds.md"], whole=False, passage_tokens=80)

    report = run_ingest(passage_tokens=80)

    assert report.changed == ["batteries.txt", "shipping.md"]


def test_progress_is_told_from_start_to_end(
    documents: Path, tmp_path: Path, words: Any
) -> None:
    from bot.config import KnowledgeConfig  # noqa: PLC0415
    from bot.knowledge.ingest import ingest  # noqa: PLC0415

    told: list[tuple[str, int, int | None]] = []

    ingest(
        [documents],
        tmp_path / "index",
        words,
        KnowledgeConfig(model="none"),
        lambda *step: told.append(step),
    )

    assert told[0] == ("reading documents", 0, 3)
    assert told[-1] == ("embedding passages", 3, 3)


def test_no_document_at_all_is_an_error(run_ingest: Ingest, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()

    with pytest.raises(KnowledgeError, match="nothing: no documents were found"):
        run_ingest([tmp_path / "nothing"])


def test_a_second_writer_is_told_to_wait(run_ingest: Ingest, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()

    with (
        FileLock(tmp_path / "index" / ".lock"),
        pytest.raises(KnowledgeError, match="another `chorus ingest` is writing"),
    ):
        run_ingest()


def test_a_full_disk_leaves_the_index_as_it_was(
    run_ingest: Ingest, open_index: OpenIndex, documents: Path, tmp_path: Path
) -> None:
    run_ingest()
    (documents / "long.txt").write_text("Many words. " * 3_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(KnowledgeError, match="index cannot be written"):
            run_ingest()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert sorted(path.name for path in (tmp_path / "index/generations").iterdir()) == [
        "1"
    ]
    assert len(texts_of(open_index())) == 3
    assert run_ingest().added == ["long.txt"]


def test_a_damaged_index_is_put_right(
    run_ingest: Ingest, open_index: OpenIndex, tmp_path: Path
) -> None:
    run_ingest()
    (tmp_path / "index/generations/1/vectors.faiss").write_bytes(b"")

    run_ingest()

    assert open_index().warnings == ()
    assert len(texts_of(open_index())) == 3


class WrongShape:
    name = "wrong"
    dimension = 4
    languages = frozenset({"en"})

    def embed(self, texts: list[str]) -> Any:
        return np.zeros((len(texts), 3), np.float32)


class NotANumber(WrongShape):
    def embed(self, texts: list[str]) -> Any:
        return np.full((len(texts), 4), np.nan, np.float32)


@pytest.mark.parametrize(
    ("embedder", "complaint"),
    [
        (WrongShape(), r"plugin 'wrong': embed\(\) must return \[1, 4\] numbers"),
        (NotANumber(), "returned NaN or infinity"),
    ],
)
def test_an_embedder_that_breaks_its_contract_is_named(
    run_ingest: Ingest, embedder: Any, complaint: str
) -> None:
    with pytest.raises(PluginError, match=complaint):
        run_ingest(embedder=embedder)

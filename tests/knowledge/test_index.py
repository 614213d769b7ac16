from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from bot.errors import KnowledgeError
from bot.knowledge import generation as one
from bot.knowledge.index import Index, describe, publish, writing
from bot.knowledge.retriever import HybridRetriever
from bot.testing.makers import a_passage

pytestmark = pytest.mark.slow  # test-fast does without

Ingest = Callable[..., Any]
OpenIndex = Callable[..., Index]

FILES = ("vectors.faiss", "sentences.faiss", "passages.sqlite", "manifest.json")


@pytest.fixture
def two_generations(run_ingest: Ingest, documents: Path, tmp_path: Path) -> Path:
    run_ingest()
    (documents / "helmets.md").write_text("Helmets are sold in three sizes.")
    run_ingest()
    return tmp_path / "index"


def test_no_index_says_what_to_do(open_index: OpenIndex) -> None:
    with pytest.raises(KnowledgeError, match="there is no index yet; run `chorus ing"):
        open_index()


def test_another_embedder_is_refused(
    two_generations: Path, open_index: OpenIndex, words: Any
) -> None:
    words.name = "other"

    with pytest.raises(KnowledgeError, match=r"embedder 'words' .* 'other' .* run"):
        open_index()


class Finetuned:
    """Other weights under the same name."""

    name = "words"
    dimension = 32
    languages = frozenset({"en"})

    def __init__(self, original: Any) -> None:
        self._original = original

    def embed(self, texts: Any) -> Any:
        return -self._original.embed(texts)


def test_other_weights_of_the_same_name_are_refused(
    two_generations: Path, open_index: OpenIndex, words: Any
) -> None:
    with pytest.raises(KnowledgeError, match="the weights are not the same"):
        open_index(Finetuned(words))


def test_every_mutation_of_a_generation_is_detected(
    two_generations: Path, open_index: OpenIndex, tmp_path: Path
) -> None:
    rng = random.Random(7)  # noqa: S311 - to repeat, not to hide
    whole = {
        name: (two_generations / "generations/2" / name).read_bytes() for name in FILES
    }

    for round_number in range(400):
        name = FILES[round_number % len(FILES)]
        path = two_generations / "generations/2" / name
        _mutate(path, whole[name], rng)
        index = open_index()

        assert index.number == 1
        assert any(name in warning for warning in index.warnings)
        assert "generation 1 is served instead" in index.warnings[-1]
        assert len(index.generation()) == 3

        index.generation().close()
        path.write_bytes(whole[name])

    assert open_index().number == 2


def _mutate(path: Path, whole: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(whole))
    kind = rng.choice(["flip", "flip", "truncate", "insert", "missing", "zeros"])
    if kind == "flip":
        flipped = bytes([whole[at] ^ (1 << rng.randrange(8))])
        path.write_bytes(whole[:at] + flipped + whole[at + 1 :])
    elif kind == "truncate":
        path.write_bytes(whole[:at])
    elif kind == "insert":
        path.write_bytes(whole[:at] + b" " + whole[at:])
    elif kind == "missing":
        path.unlink()
    else:
        path.write_bytes(bytes(len(whole)))


@pytest.mark.parametrize(
    "pointer", [b"", b"1", b"\xff\xff", b"2 0000\n", b"9 abc\n", b"-1 x\n", b"2\x00"]
)
def test_a_damaged_pointer_is_passed_over_with_a_warning(
    two_generations: Path, open_index: OpenIndex, pointer: bytes
) -> None:
    (two_generations / "current").write_bytes(pointer)

    index = open_index()

    assert index.number == 2
    assert index.warnings


def test_nothing_whole_says_everything_that_is_wrong(
    two_generations: Path, open_index: OpenIndex
) -> None:
    for number in (1, 2):
        (two_generations / f"generations/{number}/manifest.json").write_text("{}")

    with pytest.raises(KnowledgeError) as caught:
        open_index()

    assert len(caught.value.problems) == 2
    assert all("run `chorus ingest`" in problem for problem in caught.value.problems)


def test_an_open_index_takes_up_a_new_generation_at_its_next_search(
    run_ingest: Ingest, open_index: OpenIndex, documents: Path, words: Any
) -> None:
    run_ingest()
    index = open_index()
    (documents / "helmets.md").write_text("Helmets are sold in three sizes.")
    run_ingest()

    [best] = HybridRetriever(index, words).search("helmet sizes", 1)

    assert best.source == "helmets.md"
    assert index.number == 2
    assert not index.refresh()


def test_an_open_index_keeps_serving_when_the_new_generation_is_damaged(
    two_generations: Path, run_ingest: Ingest, open_index: OpenIndex, documents: Path
) -> None:
    index = open_index()
    (documents / "bells.md").write_text("Bells are free.")
    run_ingest()
    shutil.rmtree(two_generations / "generations/3")

    assert len(index.generation()) == 4
    assert index.number == 2
    assert index.warnings


def test_an_open_index_keeps_serving_when_its_folder_is_gone(
    two_generations: Path, open_index: OpenIndex, words: Any
) -> None:
    index = open_index()
    shutil.rmtree(two_generations)

    [best] = HybridRetriever(index, words).search("refund", 1)

    assert best.source == "refunds.md"
    assert "there is no index" in index.warnings[0]


def test_the_previous_generation_is_kept_and_older_ones_removed(
    two_generations: Path, run_ingest: Ingest, documents: Path
) -> None:
    (documents / "bells.md").write_text("Bells are free.")

    run_ingest()

    names = sorted(path.name for path in (two_generations / "generations").iterdir())
    assert names == ["2", "3"]


def test_searching_threads_never_notice_that_the_index_is_swapped(
    tmp_path: Path, words: Any
) -> None:
    folder = tmp_path / "index"
    swaps = 60
    _publish(folder, words, 0)
    index = Index.open(folder, words)
    retriever = HybridRetriever(index, words)
    done = threading.Event()

    def search_until_done() -> set[str]:
        seen = set()
        while not done.is_set():
            found = retriever.search("what colour is the bike", 5)
            # One generation's passages never mix with another's.
            [version] = {passage.metadata["version"] for passage in found}
            seen.add(version)
        return seen

    with ThreadPoolExecutor(3) as pool:
        searches = [pool.submit(search_until_done) for _ in range(3)]
        try:
            for version in range(1, swaps + 1):
                _publish(folder, words, version)
        finally:
            done.set()
        seen = set[str]().union(*(search.result() for search in searches))

    assert len(seen) > 5
    assert index.generation().passages([1])[1].metadata["version"] == str(swaps)


def _publish(folder: Path, embedder: Any, version: int) -> None:
    texts = [f"The bike number {number} is blue." for number in range(20)]
    vectors = embedder.embed(texts)
    entries = [
        one.Entry(
            passage=a_passage(text, id=str(at), metadata={"version": str(version)}),
            vector=vectors[at],
            sentences=vectors[at : at + 1],
        )
        for at, text in enumerate(texts)
    ]
    manifest = one.Manifest(
        embedder=describe(embedder),
        settings=one.Settings(reader=1, passage_tokens=1, overlap_tokens=0),
        documents={},
        passages=0,
    )
    with writing(folder):
        publish(folder, entries, manifest)


@pytest.mark.parametrize("kind", ["IDMap2,Flat", "IDMap2,SQ8", "IDMap2,IVF16,SQ8"])
def test_every_kind_of_index_finds_exactly_as_many_as_asked_for(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The larger kinds begin where a test cannot go: 10,000 and 150,000 vectors.
    monkeypatch.setattr(one, "_kind_for", lambda _: kind)
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(2_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    among = np.arange(1, 2_001, 97, dtype=np.int64)

    one._write_vectors(tmp_path / "x", vectors, 16)
    index = faiss.deserialize_index(np.fromfile(tmp_path / "x", np.uint8))

    assert one._search(index, vectors[41], 1, None) == [42]
    assert len(one._search(index, vectors[41], 10, None)) == 10
    assert set(one._search(index, vectors[41], 100, among)) == set(among.tolist())
    assert len(one._search(index, vectors[41], 5, among)) == 5


@pytest.mark.parametrize(
    ("count", "kind"),
    [
        (1, "IDMap2,Flat"),
        (10_001, "IDMap2,SQ8"),
        (150_000, "IDMap2,SQ8"),
        (1_000_000, "IDMap2,IVF4000,SQ8"),
    ],
)
def test_the_kind_of_index_goes_by_size(count: int, kind: str) -> None:
    assert one._kind_for(count) == kind

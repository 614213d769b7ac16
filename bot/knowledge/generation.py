"""
One generation of the index: a folder that is written once and then only read.

    vectors.faiss     passage number → vector of the passage
    sentences.faiss   sentence number → vector of the sentence
    passages.sqlite   the passages, their words (FTS5), their vectors (float16)
    manifest.json     what they were made of, with the size and SHA-256 of each file

faiss answers "which are near"; the exact cosine of those comes from the vectors in
SQLite, so that a compressed index changes what is looked at and never how it is scored.
The same vectors are copied from generation to generation without loss. Nothing is
pickled, and only bytes whose hash was checked are parsed. Knows nothing about which
generation is current; that is `index`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from bot.knowledge.chunking import context
from bot.knowledge.lexical import Words
from bot.model import Passage

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]

FORMAT = 1
_VECTORS, _SENTENCES, _PASSAGES = "vectors.faiss", "sentences.faiss", "passages.sqlite"
_MANIFEST = "manifest.json"

# Exact and without training up to here: 15 MB and a millisecond.
_EXACT_UP_TO = 10_000
# One byte per dimension, scanned whole: 7 ms at 100,000 (STATE.md, section 4).
_SCANNED_UP_TO = 150_000
_PROBES = 64

_SCHEMA = """
CREATE TABLE passages (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, source TEXT NOT NULL,
    title TEXT NOT NULL, headings TEXT NOT NULL, page INTEGER, line INTEGER,
    metadata TEXT NOT NULL, text TEXT NOT NULL, vector BLOB NOT NULL
);
CREATE INDEX passages_by_source ON passages (source);
CREATE TABLE sentences (
    number INTEGER PRIMARY KEY, passage INTEGER NOT NULL, vector BLOB NOT NULL
);
CREATE INDEX sentences_by_passage ON sentences (passage);
"""
_PASSAGE_COLUMNS = "id, source, title, headings, page, line, metadata, text"


class Damaged(Exception):
    """A generation is not as it was written; the sentence says in what."""


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(Frozen):
    bytes: int
    sha256: str


class DocumentRecord(Frozen):
    """A document as it was when ingested; `path` is where it was read from."""

    sha256: str
    path: str


class EmbedderRecord(Frozen):
    """Which embedder made the vectors; `probe` is its vector of a fixed sentence."""

    name: str
    dimension: int
    probe: tuple[float, ...]


class Settings(Frozen):
    """What passages depend on beside the documents."""

    reader: int
    passage_tokens: int
    overlap_tokens: int


class Manifest(Frozen):
    """
    The description of a generation. `checksum` is of the manifest's own text without
    it, and that text has one spelling only: no byte of the file can change unseen.
    """

    format: int = FORMAT
    embedder: EmbedderRecord
    settings: Settings
    documents: Mapping[str, DocumentRecord]
    passages: int
    files: Mapping[str, FileRecord] = {}
    checksum: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """A passage with its vector [d] and its sentences' vectors [s, d], s at least 1."""

    passage: Passage
    vector: Vectors
    sentences: Vectors


def write(folder: Path, entries: Iterable[Entry], manifest: Manifest) -> Manifest:
    """Fill an empty folder; return the manifest with the files' hashes."""
    vectors, sentences = _write_passages(folder / _PASSAGES, entries)
    dimension = manifest.embedder.dimension
    _write_vectors(folder / _VECTORS, vectors, dimension)
    _write_vectors(folder / _SENTENCES, sentences, dimension)
    files = {
        name: _record(_flushed(folder / name).read_bytes())
        for name in (_PASSAGES, _VECTORS, _SENTENCES)
    }
    manifest = manifest.model_copy(update={"files": files, "passages": len(vectors)})
    manifest = manifest.model_copy(update={"checksum": _checksum(manifest)})
    (folder / _MANIFEST).write_bytes(_spelled(manifest))
    _flushed(folder / _MANIFEST)
    return manifest


class Generation:
    """A verified generation, open for reading from any number of threads."""

    def __init__(self, folder: Path) -> None:
        """Verify and open; raise Damaged."""
        self.manifest = read_manifest(folder)
        self._vectors = _read_vectors(folder / _VECTORS, self.manifest)
        self._sentences = _read_vectors(folder / _SENTENCES, self.manifest)
        _verified(folder / _PASSAGES, self.manifest)
        self._database = sqlite3.connect(
            f"{(folder / _PASSAGES).absolute().as_uri()}?mode=ro&immutable=1",
            uri=True,
            check_same_thread=False,
        )
        # One connection for all threads: most of a search's time is spent elsewhere.
        self._lock = threading.Lock()
        self._words = Words(self._database)

    def __len__(self) -> int:
        return self.manifest.passages

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # What is where

    def passages(self, numbers: Iterable[int]) -> dict[int, Passage]:
        """Return the passages with these numbers."""
        rows = self._rows(
            f"SELECT number, {_PASSAGE_COLUMNS} FROM passages "  # noqa: S608 - a constant
            "WHERE number IN (SELECT value FROM json_each(?))",
            _listed(numbers),
        )
        return {int(number): _passage(*columns) for number, *columns in rows}

    def entries(self, source: str) -> Iterator[Entry]:
        """Yield what the next generation needs of a document that did not change."""
        rows = self._rows(
            f"SELECT number, vector, {_PASSAGE_COLUMNS} FROM passages "  # noqa: S608 - a constant
            "WHERE source = ? ORDER BY number",
            source,
        )
        for number, vector, *columns in rows:
            sentences = self._rows(
                "SELECT vector FROM sentences WHERE passage = ? ORDER BY number", number
            )
            yield Entry(
                passage=_passage(*columns),
                vector=_unpacked(vector),
                sentences=np.stack([_unpacked(row) for (row,) in sentences]),
            )

    def matching(self, where: Mapping[str, str]) -> Numbers:
        """Return the numbers of the passages with all of this metadata, ascending."""
        condition = " AND ".join(
            ["EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = ? AND value = ?)"]
            * len(where)
        )
        rows = self._rows(
            f"SELECT number FROM passages WHERE {condition or 'true'} ORDER BY number",  # noqa: S608 - made of constants
            *(part for item in where.items() for part in item),
        )
        return np.array([number for (number,) in rows], dtype=np.int64)

    # Near in meaning

    def nearest(
        self, vector: Vectors, limit: int, among: Numbers | None = None
    ) -> list[int]:
        """Return the passages nearest to a vector, exactly min(limit, how many)."""
        return _search(self._vectors, vector, limit, among)

    def nearest_by_sentence(
        self, vector: Vectors, limit: int, among: Numbers | None = None
    ) -> list[int]:
        """Return the passages of the `limit` sentences nearest to a vector."""
        if among is not None:
            rows = self._rows(
                "SELECT number FROM sentences "
                "WHERE passage IN (SELECT value FROM json_each(?))",
                _listed(among),
            )
            among = np.array([number for (number,) in rows], dtype=np.int64)
        found = _search(self._sentences, vector, limit, among)
        rows = self._rows(
            "SELECT DISTINCT passage FROM sentences "
            "WHERE number IN (SELECT value FROM json_each(?))",
            _listed(found),
        )
        return [int(passage) for (passage,) in rows]

    def cosines(self, vector: Vectors, numbers: Sequence[int]) -> Vectors:
        """Return the exact cosine of each passage, in the order of the numbers."""
        rows = self._rows(
            "SELECT number, vector FROM passages "
            "WHERE number IN (SELECT value FROM json_each(?))",
            _listed(numbers),
        )
        return _best_cosines(vector, numbers, rows)

    def sentence_cosines(self, vector: Vectors, numbers: Sequence[int]) -> Vectors:
        """Return the exact cosine of each passage's best sentence."""
        rows = self._rows(
            "SELECT passage, vector FROM sentences "
            "WHERE passage IN (SELECT value FROM json_each(?))",
            _listed(numbers),
        )
        return _best_cosines(vector, numbers, rows)

    # Near in words

    def best_by_words(
        self, asked: Sequence[str], limit: int, among: Numbers | None = None
    ) -> list[tuple[int, float]]:
        with self._lock:
            return self._words.best(asked, limit, among)

    def word_scores(
        self, asked: Sequence[str], numbers: Sequence[int]
    ) -> dict[int, float]:
        with self._lock:
            return self._words.scores(asked, numbers)

    def rarities(self, asked: Sequence[str]) -> dict[str, float]:
        with self._lock:
            return self._words.rarest(asked, len(self))

    def holding(
        self, asked: Iterable[str], numbers: Sequence[int]
    ) -> dict[str, set[int]]:
        """Return, for each term, which of these passages hold it."""
        with self._lock:
            return {term: self._words.holding(term, numbers) for term in asked}

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(query, values).fetchall()


# Writing


def _write_passages(path: Path, entries: Iterable[Entry]) -> tuple[Vectors, Vectors]:
    """Write the database; return the vectors of passages and sentences, in order."""
    vectors: list[Vectors] = []
    sentences: list[Vectors] = []
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        # The folder is thrown away when anything fails, so nothing needs a journal.
        database.execute("PRAGMA journal_mode = OFF")
        database.executescript(_SCHEMA)
        words = Words(database)
        words.create()
        for number, entry in enumerate(entries, 1):
            _write_passage(database, number, entry)
            words.add(number, entry.passage.text, context(entry.passage))
            vectors.append(entry.vector)
            sentences.extend(entry.sentences)
        database.commit()
        database.execute("INSERT INTO words (words) VALUES ('optimize')")
    return np.array(vectors, np.float32), np.array(sentences, np.float32)


def _write_passage(database: sqlite3.Connection, number: int, entry: Entry) -> None:
    passage = entry.passage
    database.execute(
        f"INSERT INTO passages (number, vector, {_PASSAGE_COLUMNS}) "  # noqa: S608 - a constant
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            _packed(entry.vector),
            passage.id,
            passage.source,
            passage.title,
            json.dumps(list(passage.headings), ensure_ascii=False),
            passage.page,
            passage.line,
            json.dumps(dict(passage.metadata), ensure_ascii=False),
            passage.text,
        ),
    )
    database.executemany(
        "INSERT INTO sentences (passage, vector) VALUES (?, ?)",
        [(number, _packed(vector)) for vector in entry.sentences],
    )


def _write_vectors(path: Path, vectors: Vectors, dimension: int) -> None:
    index = faiss.index_factory(
        dimension, _kind_for(len(vectors)), faiss.METRIC_INNER_PRODUCT
    )
    index.train(vectors)
    index.add_with_ids(vectors, np.arange(1, len(vectors) + 1, dtype=np.int64))
    path.write_bytes(faiss.serialize_index(index).tobytes())


def _kind_for(count: int) -> str:
    """Return the kind of faiss index for so many vectors."""
    if count <= _EXACT_UP_TO:
        return "IDMap2,Flat"
    if count <= _SCANNED_UP_TO:
        return "IDMap2,SQ8"
    return f"IDMap2,IVF{round(4 * math.sqrt(count))},SQ8"


def _flushed(path: Path) -> Path:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


# Verifying and reading


def read_manifest(folder: Path) -> Manifest:
    """Return a verified manifest; raise Damaged."""
    path = folder / _MANIFEST
    raw = _raw(path)
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise Damaged(f"{path}: not a manifest of format {FORMAT}") from error
    if manifest.format != FORMAT:
        raise Damaged(f"{path}: of format {manifest.format}, this Chorus has {FORMAT}")
    if manifest.checksum != _checksum(manifest) or raw != _spelled(manifest):
        raise Damaged(f"{path}: does not match its checksum")
    return manifest


def _verified(path: Path, manifest: Manifest) -> bytes:
    raw = _raw(path)
    expected = manifest.files[path.name]
    if len(raw) != expected.bytes:
        raise Damaged(f"{path}: has {len(raw)} bytes and not {expected.bytes}")
    if _record(raw) != expected:
        raise Damaged(f"{path}: does not match its checksum")
    return raw


def _read_vectors(path: Path, manifest: Manifest) -> faiss.Index:
    # Parsed from the very bytes that were verified.
    return faiss.deserialize_index(np.frombuffer(_verified(path, manifest), np.uint8))


def _raw(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path}: cannot be read, {error.strerror}") from error


def _record(raw: bytes) -> FileRecord:
    return FileRecord(bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())


def _checksum(manifest: Manifest) -> str:
    unsigned = manifest.model_copy(update={"checksum": ""})
    return hashlib.sha256(_spelled(unsigned)).hexdigest()


def _spelled(manifest: Manifest) -> bytes:
    return manifest.model_dump_json(indent=1).encode()


def _passage(*columns: Any) -> Passage:
    identity, source, title, headings, page, line, metadata, text = columns
    return Passage(
        id=identity,
        source=source,
        title=title,
        headings=tuple(json.loads(headings)),
        page=page,
        line=line,
        metadata=json.loads(metadata),
        text=text,
    )


# Searching


def _search(
    index: faiss.Index, vector: Vectors, limit: int, among: Numbers | None
) -> list[int]:
    count = index.ntotal if among is None else len(among)
    if not count:
        return []
    with _one_thread():
        _, found = index.search(
            vector[None, :], min(limit, count), params=_parameters(index, among)
        )
    return [int(number) for number in found[0] if number >= 0]


def _parameters(index: Any, among: Numbers | None) -> Any:
    # Any: faiss's own stubs know neither wrapped indexes nor these parameters.
    search: Any = faiss
    selector = None if among is None else faiss.IDSelectorBatch(among)
    inner = faiss.downcast_index(index.index)
    if not isinstance(inner, faiss.IndexIVF):
        return None if selector is None else search.SearchParameters(sel=selector)
    # A filter may leave its passages in any list, so that all lists are looked into.
    if selector is not None:
        return search.SearchParametersIVF(sel=selector, nprobe=inner.nlist)
    return search.SearchParametersIVF(nprobe=min(_PROBES, inner.nlist))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Search on this thread alone, and leave torch, which shares OpenMP, its own."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _best_cosines(
    vector: Vectors, numbers: Sequence[int], rows: Sequence[tuple[Any, ...]]
) -> Vectors:
    if not rows:
        return np.zeros(len(numbers), np.float32)
    joined = _unpacked(b"".join(packed for _, packed in rows))
    stored = joined.reshape(len(rows), -1)
    position = {number: at for at, number in enumerate(numbers)}
    best = np.full(len(numbers), -1, np.float32)
    at = [position[number] for number, _ in rows]
    np.maximum.at(best, at, stored @ vector)
    return best


def _packed(vector: Vectors) -> bytes:
    return vector.astype("<f2").tobytes()


def _unpacked(packed: bytes) -> Vectors:
    return np.frombuffer(packed, "<f2").astype(np.float32)


def _listed(numbers: Iterable[int]) -> str:
    return json.dumps([int(number) for number in numbers])

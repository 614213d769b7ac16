"""
Ingestion: from documents on disk to a new generation of the index.

Incremental by the hash of each document's bytes: what did not change is copied with its
vectors, and when nothing changed nothing is written. What cannot be read keeps the
passages that it had. Knows nothing about retrieval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

from bot.config import KnowledgeConfig
from bot.errors import KnowledgeError
from bot.interfaces import Embedder, Progress
from bot.knowledge import documents, index
from bot.knowledge.chunking import context, passages
from bot.knowledge.documents import Files, Found
from bot.knowledge.generation import (
    DocumentRecord,
    EmbedderRecord,
    Entry,
    Generation,
    Manifest,
    Settings,
)
from bot.model import Passage
from bot.text import estimated_tokens, sentences

# To be raised when documents are read, cut or embedded in another way, so that all are
# read again.
_READER = 1
_BATCH = 64


@runtime_checkable
class CountsTokens(Protocol):
    """An embedder that can say how long a text is; for others it is estimated."""

    def count_tokens(self, text: str) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What became of each document, by source, and what could not be read and why."""

    added: Sequence[str] = ()
    changed: Sequence[str] = ()
    removed: Sequence[str] = ()
    unchanged: Sequence[str] = ()
    passages: int = 0
    problems: Sequence[str] = ()


def ingest(  # noqa: PLR0913 - App.ingest is the one with few
    roots: Sequence[Path],
    folder: Path,
    embedder: Embedder,
    config: KnowledgeConfig,
    progress: Progress,
    *,
    whole: bool = True,
) -> IngestReport:
    """
    Bring the index in `folder` up to date with the documents under the roots. When
    these are not the `whole`, documents from elsewhere stay as they are. Raises
    KnowledgeError when nothing at all can be read or the index cannot be written.
    """
    with index.writing(folder):
        old = _Old.open(folder, index.describe(embedder), _settings(config))
        plan = _Plan(old, _cutter(config, embedder), None if whole else roots)
        plan.make(documents.find_files(roots, {} if whole else old.known()), progress)
        if not plan.records:
            raise KnowledgeError(plan.problems or _nothing_found(roots))
        if old.must_be_replaced or plan.changes_anything:
            entries = chain(plan.copied(), _embedded(plan.new, embedder, progress))
            index.publish(folder, entries, old.manifest_of_next(plan.records))
        return plan.report(passages=len(index.open_newest(folder).generation))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Old:
    """The index as it is, and what the next one is to be made with."""

    generation: Generation | None
    must_be_replaced: bool
    same_making: bool
    embedder: EmbedderRecord
    settings: Settings

    @classmethod
    def open(cls, folder: Path, embedder: EmbedderRecord, settings: Settings) -> _Old:
        try:
            opened = index.open_newest(folder)
        except KnowledgeError:
            # None yet, or none that is whole: all documents are read, and the new
            # generation puts it right.
            return cls(
                generation=None,
                must_be_replaced=True,
                same_making=False,
                embedder=embedder,
                settings=settings,
            )
        manifest = opened.generation.manifest
        same_making = manifest.settings == settings and index.same_embedder(
            manifest.embedder, embedder
        )
        return cls(
            generation=opened.generation,
            must_be_replaced=bool(opened.warnings) or not same_making,
            same_making=same_making,
            embedder=embedder,
            settings=settings,
        )

    def record(self, source: str) -> DocumentRecord | None:
        if self.generation is None:
            return None
        return self.generation.manifest.documents.get(source)

    def known(self) -> dict[Path, str]:
        """Return what each document's file is called."""
        if self.generation is None:
            return {}
        records = self.generation.manifest.documents
        return {Path(record.path): source for source, record in records.items()}

    def entries(self, source: str) -> Iterator[Entry]:
        if self.generation is not None:
            yield from self.generation.entries(source)

    def manifest_of_next(self, records: dict[str, DocumentRecord]) -> Manifest:
        return Manifest(
            embedder=self.embedder,
            settings=self.settings,
            documents=dict(sorted(records.items())),
            passages=0,
        )


Cut = Callable[[Found, bytes], list[Passage]]


@dataclass(slots=True)
class _Plan:
    """
    What the next generation is made of, and what became of each document. Documents
    that are not under `only` are none of its business; None: all are.
    """

    old: _Old
    cut: Cut
    only: Sequence[Path] | None
    records: dict[str, DocumentRecord] = field(default_factory=dict)
    new: list[Passage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _copied: list[str] = field(default_factory=list)
    _added: list[str] = field(default_factory=list)
    _changed: list[str] = field(default_factory=list)
    _removed: list[str] = field(default_factory=list)

    def make(self, files: Files, progress: Progress) -> None:
        self.problems.extend(files.problems)
        for done, file in enumerate(files.found):
            progress("reading documents", done, len(files.found))
            self._take(file)
        progress("reading documents", len(files.found), len(files.found))
        self._take_leave(files.unseen)

    @property
    def changes_anything(self) -> bool:
        return bool(self._added or self._changed or self._removed)

    def copied(self) -> Iterator[Entry]:
        for source in self._copied:
            yield from self.old.entries(source)

    def report(self, passages: int) -> IngestReport:
        known = {*self._added, *self._changed}
        return IngestReport(
            added=sorted(self._added),
            changed=sorted(self._changed),
            removed=sorted(self._removed),
            unchanged=sorted(set(self.records) - known),
            passages=passages,
            problems=tuple(self.problems),
        )

    def _take(self, file: Found) -> None:
        before = self.old.record(file.source)
        try:
            raw = documents.read(file.path)
            record = DocumentRecord(
                sha256=documents.fingerprint(raw), path=str(file.path)
            )
            unchanged = before is not None and before.sha256 == record.sha256
            if unchanged and self.old.same_making:
                self._keep(file.source, record)
                return
            self.new.extend(self.cut(file, raw))
        except KnowledgeError as error:
            self.problems.extend(error.problems)
            if before is not None:
                self._keep(file.source, before)
                self.problems.append(
                    f"{file.path}: what was read of it before is still served"
                )
            return
        self.records[file.source] = record
        (self._added if before is None else self._changed).append(file.source)

    def _keep(self, source: str, record: DocumentRecord) -> None:
        """Keep a document's passages, with their vectors if those are still valid."""
        if self.old.same_making:
            self.records[source] = record
            self._copied.append(source)
        else:
            # Cut as it was before: not what its bytes make now, so it is read again.
            self.records[source] = record.model_copy(update={"sha256": ""})
            self.new.extend(entry.passage for entry in self.old.entries(source))

    def _take_leave(self, unseen: Sequence[Path]) -> None:
        """Part with documents that are gone; those out of sight may still be there."""
        if self.old.generation is None:
            return
        for source, record in self.old.generation.manifest.documents.items():
            if source in self.records:
                continue
            path = Path(record.path)
            if _is_under(path, unseen) or not self._concerns(path):
                self._keep(source, record)
            else:
                self._removed.append(source)

    def _concerns(self, path: Path) -> bool:
        return self.only is None or _is_under(
            path, [root.resolve() for root in self.only]
        )


def _is_under(path: Path, places: Sequence[Path]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def _settings(config: KnowledgeConfig) -> Settings:
    return Settings(
        reader=_READER,
        passage_tokens=config.passage_tokens,
        overlap_tokens=config.overlap_tokens,
    )


def _cutter(config: KnowledgeConfig, embedder: Embedder) -> Cut:
    count_tokens = (
        embedder.count_tokens
        if isinstance(embedder, CountsTokens)
        else estimated_tokens
    )

    def cut(file: Found, raw: bytes) -> list[Passage]:
        return passages(
            documents.parse(file, raw),
            count_tokens,
            passage_tokens=config.passage_tokens,
            overlap_tokens=config.overlap_tokens,
        )

    return cut


def _embedded(
    new: Sequence[Passage], embedder: Embedder, progress: Progress
) -> Iterator[Entry]:
    for first in range(0, len(new), _BATCH):
        progress("embedding passages", first, len(new))
        yield from _entries(new[first : first + _BATCH], embedder)
    if new:
        progress("embedding passages", len(new), len(new))


def _entries(batch: Sequence[Passage], embedder: Embedder) -> Iterator[Entry]:
    wholes = [f"{context(passage)}\n{passage.text}" for passage in batch]
    # A sentence says what it is about less often than its document's title does.
    parts = [
        [f"{passage.title}: {sentence}" for sentence in sentences(passage.text)]
        for passage in batch
    ]
    # Overlapping neighbours share sentences: each text is embedded once.
    texts = list(dict.fromkeys(chain(wholes, *parts)))
    row_of = {text: row for row, text in enumerate(texts)}
    vectors = index.embedded(embedder, texts)
    for passage, whole, part in zip(batch, wholes, parts, strict=True):
        yield Entry(
            passage=passage,
            vector=vectors[row_of[whole]],
            sentences=vectors[[row_of[sentence] for sentence in part]],
        )


def _nothing_found(roots: Sequence[Path]) -> str:
    where = ", ".join(str(root) for root in roots) or "knowledge.paths"
    return f"{where}: no documents were found; put some there"

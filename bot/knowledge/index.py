"""
The index on disk: numbered generations, of which one is current.

    <folder>/current                one line: the generation's number and its checksum
    <folder>/generations/<number>   see `generation`
    <folder>/.lock                  held by the one writer

A generation is never changed. Publishing writes a new folder and then swaps `current`
in one rename, so a reader sees the old index or the new one. An open `Index` keeps
serving what it has and takes up a new generation at its next search. A damaged
generation is passed over for the one before it, with a warning.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from bot.errors import KnowledgeError, PluginError
from bot.interfaces import Embedder
from bot.knowledge import generation as one
from bot.knowledge.generation import (
    Damaged,
    EmbedderRecord,
    Entry,
    Generation,
    Manifest,
    Vectors,
)

_PROBE = "How long does it take until my order arrives?"
_SAME_PROBE = 0.99

logger = logging.getLogger(__name__)


class _Pointer(NamedTuple):
    number: int
    checksum: str


class _Stamp(NamedTuple):
    """What changes whenever `current` is swapped."""

    modified_ns: int
    inode: int


class Opened(NamedTuple):
    """The best generation that there is, and what was wrong with better ones."""

    number: int
    generation: Generation
    warnings: tuple[str, ...]


class Index:
    """An index open for searching. Any number of threads may use it."""

    def __init__(self, folder: Path, embedder: EmbedderRecord) -> None:
        self._folder = folder
        self._embedder = embedder
        self._reloading = threading.Lock()
        self._stamp = _stamp(folder)
        self._opened = self._open()

    @classmethod
    def open(cls, folder: Path, embedder: Embedder) -> Index:
        """Open the current generation; raise KnowledgeError when there is none."""
        return cls(folder, describe(embedder))

    @property
    def number(self) -> int:
        return self._opened.number

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the index although it serves: one sentence each."""
        return self._opened.warnings

    def tell_warnings(self) -> None:
        """
        Log what is wrong. Who opens an index to answer from it calls this once; what a
        refresh finds is told by itself.
        """
        for warning in self.warnings:
            # Commands that set up no log have it on standard error as it stands.
            logger.warning("%s", warning)

    def generation(self) -> Generation:
        """Return the generation to search in: the newest one that is whole."""
        self.refresh()
        return self._opened.generation

    def refresh(self) -> bool:
        """
        Take up a newly published generation; tell whether there was one. Costs a stat
        when there was none. While one thread opens it the others use the old one.
        """
        stamp = _stamp(self._folder)
        if stamp == self._stamp or not self._reloading.acquire(blocking=False):
            return False
        before = self._opened
        try:
            self._opened = self._open()
        except KnowledgeError as error:
            # What is being served is still good; the operator learns why it is old.
            self._opened = before._replace(warnings=tuple(error.problems))
        finally:
            self._stamp = stamp
            self._reloading.release()
        self.tell_warnings()
        return self._opened.number != before.number

    def _open(self) -> Opened:
        opened = open_newest(self._folder)
        _check_embedder(self._folder, opened.generation.manifest, self._embedder)
        return opened


def open_newest(folder: Path) -> Opened:
    """Open the current generation, or the newest before it that is whole."""
    while True:
        stamp = _stamp(folder)
        warnings: list[str] = []
        for number in _in_order(folder, warnings):
            try:
                found = Generation(folder / "generations" / str(number))
            except Damaged as error:
                warnings.append(f"{error}; run `chorus ingest`")
                continue
            if warnings:
                warnings.append(f"{folder}: generation {number} is served instead")
            return Opened(number, found, tuple(warnings))
        # A writer may have swapped the index while its older parts were read.
        if _stamp(folder) == stamp:
            raise KnowledgeError(
                warnings or f"{folder}: there is no index yet; run `chorus ingest`"
            )


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the only writer of an index for a while."""
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise KnowledgeError(
            f"{folder}: another `chorus ingest` is writing this index; "
            "wait until it is done and run this one again"
        ) from error


def publish(folder: Path, entries: Iterable[Entry], manifest: Manifest) -> int:
    """
    Write a generation and make it the current one; return its number. To be called
    within `writing`. When anything fails, the index stays as it was.
    """
    generations = folder / "generations"
    with _disk_errors(folder):
        generations.mkdir(parents=True, exist_ok=True)
        before = _numbers(folder)
        number = max(before, default=0) + 1
        unfinished = generations / f".{number}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            manifest = one.write(unfinished, entries, manifest)
            _synced(unfinished)
            previous = _pointer(folder)
            unfinished.rename(generations / str(number))
            _synced(generations)
            _point(folder, _Pointer(number, manifest.checksum))
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        keep = {number, previous.number if previous else max(before, default=0)}
        _remove(generations, set(before) - keep)
    return number


def describe(embedder: Embedder) -> EmbedderRecord:
    """Describe an embedder well enough to notice other weights under the same name."""
    probe = embedded(embedder, [_PROBE])[0]
    return EmbedderRecord(
        name=embedder.name,
        dimension=embedder.dimension,
        probe=tuple(round(float(value), 4) for value in probe),
    )


def same_embedder(one_record: EmbedderRecord, other: EmbedderRecord) -> bool:
    """Compare by probe with room for rounding: machines differ in the last digits."""
    return (
        one_record.name == other.name
        and one_record.dimension == other.dimension
        and float(np.dot(one_record.probe, other.probe)) > _SAME_PROBE
    )


def embedded(embedder: Embedder, texts: list[str]) -> Vectors:
    """Return the texts' vectors; raise PluginError unless they are as promised."""
    vectors = np.asarray(embedder.embed(texts), dtype=np.float32)
    expected = (len(texts), embedder.dimension)
    if vectors.shape != expected:
        raise PluginError(
            embedder.name,
            f"embed() must return {list(expected)} numbers, "
            f"not {list(vectors.shape)}; correct the embedder",
        )
    if not np.isfinite(vectors).all():
        raise PluginError(
            embedder.name, "embed() returned NaN or infinity; correct the embedder"
        )
    return vectors


def _check_embedder(folder: Path, manifest: Manifest, wanted: EmbedderRecord) -> None:
    found = manifest.embedder
    if same_embedder(found, wanted):
        return
    difference = (
        "the weights are not the same"
        if (found.name, found.dimension) == (wanted.name, wanted.dimension)
        else f"{wanted.name!r} with {wanted.dimension} is configured"
    )
    raise KnowledgeError(
        f"{folder}: the index was made with the embedder {found.name!r} with "
        f"{found.dimension} dimensions, but {difference}; run `chorus ingest`"
    )


def _in_order(folder: Path, warnings: list[str]) -> Iterator[int]:
    """
    Yield the generations to try: the current one first, then the newest of the others.
    The newest is first when the pointer is not what the writer left.
    """
    numbers = sorted(_numbers(folder), reverse=True)
    current = _pointer(folder)
    if current is not None and _is_of(folder, current):
        yield current.number
        numbers = [number for number in numbers if number != current.number]
    elif numbers:
        warnings.append(
            f"{folder / 'current'}: missing or damaged; run `chorus ingest`"
        )
    yield from numbers


def _is_of(folder: Path, pointer: _Pointer) -> bool:
    """Tell whether a pointer names a generation that is damaged or has its checksum."""
    try:
        manifest = one.read_manifest(folder / "generations" / str(pointer.number))
    except Damaged:
        return True
    return manifest.checksum == pointer.checksum


def _pointer(folder: Path) -> _Pointer | None:
    try:
        raw = (folder / "current").read_bytes()
    except OSError:
        return None
    number, space, checksum = raw.decode("ascii", "replace").partition(" ")
    pointer = _Pointer(int(number) if number.isdecimal() else 0, checksum.rstrip("\n"))
    # One spelling only, so that no damage is read as something else.
    return pointer if space and raw == _spelled(pointer) else None


def _point(folder: Path, pointer: _Pointer) -> None:
    new = folder / "current.new"
    new.write_bytes(_spelled(pointer))
    _synced(new)
    new.replace(folder / "current")
    _synced(folder)


def _spelled(pointer: _Pointer) -> bytes:
    return f"{pointer.number} {pointer.checksum}\n".encode()


def _numbers(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder / "generations")  # noqa: PTH208 - names are wanted
    except OSError:
        return []
    return [int(name) for name in names if name.isdecimal()]


def _stamp(folder: Path) -> _Stamp | None:
    try:
        status = (folder / "current").stat()
    except OSError:
        return None
    return _Stamp(status.st_mtime_ns, status.st_ino)


def _remove(generations: Path, numbers: set[int]) -> None:
    """
    Remove what nobody needs. Readers that still have such a generation open keep it:
    the vectors are in memory and an open file outlives its name. Where it does not
    (Windows), the folder stays until the next time.
    """
    for number in numbers:
        shutil.rmtree(generations / str(number), ignore_errors=True)


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        advice = "make room" if full else "check the folder"
        raise KnowledgeError(
            f"{folder}: the index cannot be written, {error.strerror}; {advice} and "
            "run `chorus ingest` again"
        ) from error
    except sqlite3.Error as error:
        raise KnowledgeError(
            f"{folder}: the index cannot be written, {error}; make room and "
            "run `chorus ingest` again"
        ) from error

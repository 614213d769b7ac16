"""
Documents: which files there are, what they are called, and what they say.

Knows nothing about passages or the index. One bad file never stops the others: what
cannot be found is a problem in the answer, what cannot be read a KnowledgeError.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.errors import KnowledgeError
from bot.knowledge.blocks import Block, Document
from bot.knowledge.formats import READERS, Unreadable

__all__ = [
    "Block",
    "Document",
    "Files",
    "Found",
    "find_files",
    "fingerprint",
    "parse",
    "read",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file that is to be a document called `source`."""

    source: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """
    What lies under the roots. `unseen` are the places that could not be looked into;
    what was known of them is not known to be gone.
    """

    found: Sequence[Found]
    problems: Sequence[str] = ()
    unseen: Sequence[Path] = ()


def find_files(roots: Sequence[Path], known: Mapping[Path, str] | None = None) -> Files:
    """
    Find the files under the roots, in order of their names. A file is called by its
    path relative to its root; when two roots have the same name for different files,
    as much of each root's own path is put before it as tells them apart. A file that
    is `known` keeps its name, and no other file gets it.
    """
    known = known or {}
    problems: list[str] = []
    unseen: list[Path] = []
    found: dict[Path, tuple[Path, str]] = {}
    for root in roots:
        for path in _walk(root, problems, unseen):
            if path.suffix.casefold() not in READERS:
                problems.append(_unknown_suffix(path))
                continue
            name = path.relative_to(root).as_posix() if path != root else path.name
            found.setdefault(path.resolve(), (root, name))
    new = {path: named for path, named in found.items() if path not in known}
    sources = _sources(list(new.values()), taken=set(known.values()))
    source_of = {**known, **dict(zip(new, sources, strict=True))}
    files = [Found(source=source_of[path], path=path) for path in found]
    return Files(
        found=sorted(files, key=lambda one: one.source),
        problems=problems,
        unseen=unseen,
    )


def read(path: Path) -> bytes:
    """Return a file's bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise KnowledgeError(
            f"{path}: cannot be read, {error.strerror}; check the file"
        ) from error


def fingerprint(raw: bytes) -> str:
    """Return what changes whenever a file's content does."""
    return hashlib.sha256(raw).hexdigest()


def parse(file: Found, raw: bytes) -> Document:
    """Make a document of a file's bytes; raise KnowledgeError when it says nothing."""
    try:
        contents = READERS[file.path.suffix.casefold()](raw)
    except Unreadable as error:
        raise KnowledgeError(f"{file.path}: {error}") from error
    if not contents.blocks:
        raise KnowledgeError(
            f"{file.path}: the document is empty, no text was found in "
            f"{len(raw)} bytes; fill it or remove it"
        )
    return Document(
        source=file.source,
        title=contents.title or _spoken(file.path.stem),
        metadata=contents.metadata,
        blocks=contents.blocks,
    )


def _walk(root: Path, problems: list[str], unseen: list[Path]) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        problems.append(
            f"{root}: no such file or folder; put it there or correct its path"
        )
        unseen.append(root.absolute())
        return []

    def remember(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read, {error.strerror}")
        unseen.append(Path(error.filename).absolute())

    paths: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=remember):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [
            Path(folder, name) for name in sorted(names) if not name.startswith(".")
        ]
    return paths


def _unknown_suffix(path: Path) -> str:
    known = ", ".join(READERS)
    return (
        f"{path}: cannot read {path.suffix!r} files, only {known}; convert or remove it"
    )


def _sources(named: Sequence[tuple[Path, str]], taken: Collection[str]) -> list[str]:
    """Return each name, with enough of its root's path before it to be the only one."""
    sources = [name for _, name in named]
    depth = 0
    while clashing := _clashing(sources, taken):
        depth += 1
        sources = [
            Path(*_last_parts(root, depth), name).as_posix()
            if source in clashing
            else source
            for source, (root, name) in zip(sources, named, strict=True)
        ]
    return sources


def _clashing(sources: Sequence[str], taken: Collection[str]) -> set[str]:
    return {
        source
        for source, count in Counter(sources).items()
        if count > 1 or source in taken
    }


def _last_parts(root: Path, count: int) -> tuple[str, ...]:
    folder = root.resolve() if root.is_dir() else root.resolve().parent
    # When nothing shorter is free: the whole path from the top, which no other has.
    return folder.parts[1:][-count:] if count <= len(folder.parts) else folder.parts


def _spoken(stem: str) -> str:
    return stem.replace("-", " ").replace("_", " ").strip().capitalize() or stem

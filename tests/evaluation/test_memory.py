"""What was written is not written twice, and only the same request is the same."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.config import Config
from bot.errors import ConfigError
from bot.evaluation.memory import Memory, RememberingModel, drawing_of
from bot.interfaces import GenerationRequest
from bot.model import Candidate, Turn
from bot.testing import ScriptedLanguageModel, a_turn


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    kept = Memory(tmp_path / "deep" / "evaluation.sqlite")
    yield kept
    kept.close()


def a_request(**more: Any) -> GenerationRequest:
    made = GenerationRequest(
        turn=a_turn(prompt="What colour?"),
        candidates=2,
        max_new_tokens=8,
        sampler=None,  # type: ignore[arg-type]  # the scripted model draws nothing
    )
    return replace(made, **more)


def a_model() -> ScriptedLanguageModel:
    return ScriptedLanguageModel(lambda turn: ["It is green.", "It is blue."])


def test_a_set_is_written_once_and_comes_back_as_it_was(memory: Memory) -> None:
    model = a_model()

    first = RememberingModel(model, memory, "drawing").generate(a_request())
    again = RememberingModel(model, memory, "drawing").generate(a_request())

    assert len(model.requests) == 1
    assert [_plain(one) for one in again] == [_plain(one) for one in first]
    assert first[0].log_probs


def _plain(one: Candidate) -> tuple[object, ...]:
    """JSON knows no tuples."""
    return one.text, one.finish, list(one.tokens), list(one.log_probs)


@pytest.mark.parametrize(
    "other",
    [
        {"turn": a_turn(prompt="Which colour?")},
        {"turn": a_turn(prompt="What colour?", seed=2)},
        {"candidates": 3},
        {"max_new_tokens": 9},
        {"stop": ("\n",)},
    ],
)
def test_another_request_is_written_anew(
    memory: Memory, other: dict[str, Turn | int | tuple[str, ...]]
) -> None:
    model = a_model()
    remembering = RememberingModel(model, memory, "drawing")

    remembering.generate(a_request())
    remembering.generate(a_request(**other))

    assert len(model.requests) == 2


def test_another_way_of_drawing_is_written_anew(memory: Memory) -> None:
    model = a_model()
    remembering = RememberingModel(model, memory, "drawing")

    remembering.generate(a_request())
    remembering.drawn_by("greedy").generate(a_request())

    assert len(model.requests) == 2


def test_the_times_of_the_first_writing_are_told_again(memory: Memory) -> None:
    told: list[dict[str, float]] = [{}, {}]
    remembering = RememberingModel(a_model(), memory, "drawing")

    for times in told:
        remembering.generate(a_request(on_ms=times.__setitem__))

    assert told[0] == told[1]
    assert "write" in told[0]


def test_only_texts_that_were_not_read_before_are_read(memory: Memory) -> None:
    model = a_model()
    remembering = RememberingModel(model, memory, "drawing")

    first = remembering.log_probs(["p"], ["one two"])
    both = remembering.log_probs(["p", "p"], ["one two", "three"])

    assert model.scored == [("p", "one two"), ("p", "three")]
    np.testing.assert_array_equal(first[0], both[0])
    assert both[1].dtype == np.float32


def test_a_block_is_not_kept(memory: Memory) -> None:
    model = a_model()
    remembering = RememberingModel(model, memory, "drawing")

    for _ in range(2):
        remembering.generate(a_request(until=lambda text: False))

    assert len(model.requests) == 2


def test_two_processes_share_what_was_written(memory: Memory, tmp_path: Path) -> None:
    model = a_model()
    RememberingModel(model, memory, "drawing").generate(a_request())
    other = Memory(tmp_path / "deep" / "evaluation.sqlite")

    RememberingModel(model, other, "drawing").generate(a_request())
    other.close()

    assert len(model.requests) == 1


def a_config(*plugins: dict[str, Any], **generation: Any) -> Config:
    return Config.model_validate(
        {
            "knowledge": {"model": "m"},
            "generation": {"model": "m", **generation},
            "plugins": plugins,
        }
    )


def test_what_ranks_does_not_decide_what_is_drawn() -> None:
    drawing = {"use": "multinomial", "settings": {"temperature": 0.7}}

    plain = drawing_of(a_config(drawing))
    ranked = drawing_of(a_config(drawing, {"use": "relevance"}))
    hotter = drawing_of(a_config({**drawing, "settings": {"temperature": 0.9}}))
    cut = drawing_of(a_config(drawing, {"use": "min-p"}))

    assert plain == ranked
    assert len({plain, hotter, cut}) == 3


# A file that cannot be used, or no longer


def _no_database(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def _another_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("CREATE TABLE written (x INT)")


@pytest.mark.parametrize("damage", [_no_database, Path.mkdir, _another_table])
def test_a_file_that_cannot_be_used_is_refused_when_it_is_opened(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "evaluation.sqlite"
    damage(path)

    with pytest.raises(ConfigError) as raised:
        Memory(path)

    assert str(raised.value).startswith(f"{path}: cannot keep what models write (")


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    with pytest.raises(ConfigError, match="data: cannot be used as data folder"):
        Memory(tmp_path / "data" / "evaluation.sqlite")


def test_what_goes_wrong_later_costs_only_that_it_is_written_again(
    memory: Memory,
) -> None:
    model = a_model()
    remembering = RememberingModel(model, memory, "drawing")
    memory._file.execute("DROP TABLE written")

    first = remembering.generate(a_request())
    scores = remembering.log_probs(["What colour?"], ["It is green."])
    again = remembering.generate(a_request())

    assert len(model.requests) == 2
    assert [_plain(one) for one in again] == [_plain(one) for one in first]
    assert len(scores[0]) > 0
    assert "evaluation.sqlite: no such table: written; what could" in memory.trouble


def test_what_another_version_kept_is_written_anew(memory: Memory) -> None:
    model = a_model()
    remembering = RememberingModel(model, memory, "drawing")
    remembering.generate(a_request())
    with memory._file as file:
        file.execute("UPDATE written SET value = ?", (b'[{}, [{"other": 1}]]',))

    again = remembering.generate(a_request())

    assert [one.text for one in again] == ["It is green.", "It is blue."]
    assert len(model.requests) == 2
    assert not memory.trouble


def test_what_is_forgotten_is_forgotten_for_all_that_share_the_file(
    memory: Memory, tmp_path: Path
) -> None:
    with closing(Memory(tmp_path / "deep" / "evaluation.sqlite")) as other:
        memory.put(b"key", b"value")
        other.forget()
        other.put(b"new", b"value")

        assert memory.get(b"key") is None
        assert memory.get(b"new") == b"value"


def test_many_may_open_a_new_file_and_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.sqlite"

    def keep(number: int) -> str:
        with closing(Memory(path)) as own:
            for at in range(10):
                own.put(f"{number}.{at}".encode(), b"value")
            return own.trouble

    with ThreadPoolExecutor(8) as pool:
        troubles = list(pool.map(keep, range(8)))

    with closing(Memory(path)) as kept:
        found = [kept.get(f"{n}.{at}".encode()) for n in range(8) for at in range(10)]
    assert troubles == [""] * 8
    assert found == [b"value"] * 80

"""Steps of fixed shape: the same candidates, whatever lives in the places."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bot.errors import TurnCancelled
from bot.generation.grid import Grid, GridSize, PlacedRows
from bot.generation.language_model import TransformersModel
from bot.generation.network import Network
from bot.interfaces import Draw, GenerationRequest, Sampler, Truncation
from bot.model import Candidate, Turn
from bot.testing.makers import a_turn

pytestmark = pytest.mark.slow  # test-fast does without

SIZE = GridSize(sets=4, rows=3, prompt_tokens=96, reply_tokens=24)
Folders = Callable[[str], Path]


class Random:
    """Draws from the model's own distribution."""

    name = "random"
    truncation = Truncation(temperature=0.9)

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        raise AssertionError("it only truncates")


class Swaps:
    """Takes the likeliest token, and has siblings go on from each other."""

    name = "swaps"

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        def draw(logits: Tensor) -> Draw:
            parents = torch.arange(siblings).flip(0)
            ranks = logits.topk(siblings, dim=1).indices
            tokens = ranks[parents, torch.arange(siblings)]
            return Draw(tokens=tokens, parents=parents)

        return draw


def a_request(
    prompt: str,
    candidates: int,
    sampler: Sampler | None = None,
    *,
    max_new_tokens: int = 20,
) -> GenerationRequest:
    return GenerationRequest(
        turn=a_turn(prompt=prompt, seed=len(prompt)),
        candidates=candidates,
        max_new_tokens=max_new_tokens,
        sampler=sampler or Random(),
    )


REQUESTS = [
    a_request("How long does a refund take?", 3),
    a_request("short", 1),
    a_request("x" * 80, 2, max_new_tokens=24),
    a_request("Which shop is open on Sunday?", 3, Swaps()),
    a_request("more rows than a place has", 5),
    a_request("y" * 120, 2),  # a prompt longer than a place
    a_request("a reply longer than a place", 2, max_new_tokens=30),
    a_request("How long does a refund take? And why?", 2),
]


def together(
    model: TransformersModel, requests: Sequence[GenerationRequest]
) -> list[list[tuple[int, ...]]]:
    written: dict[int, list[Candidate]] = {}

    def write(number: int) -> None:
        written[number] = model.generate(requests[number])

    threads = [
        threading.Thread(target=write, args=(number,))
        for number in range(len(requests))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [
        [tuple(each.tokens) for each in written[number]]
        for number in range(len(requests))
    ]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_candidates_are_the_same_with_and_without_a_grid(
    tiny_folder: Folders, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_folder(kind)
    plain = TransformersModel(folder, kind, "cpu", threads=1)
    placed = TransformersModel(folder, kind, "cpu", threads=1, grid=SIZE)
    grid = placed._network._grid
    assert grid is not None
    sizes: list[int] = []
    step = grid.step

    def counted(reads: Sequence[tuple[PlacedRows, Tensor]]) -> Tensor:
        sizes.append(len(reads))
        return step(reads)

    monkeypatch.setattr(grid, "step", counted)

    expected = [
        [tuple(each.tokens) for each in plain.generate(request)] for request in REQUESTS
    ]
    first = together(placed, REQUESTS)
    again = together(placed, REQUESTS)

    assert first == expected
    assert again == expected
    assert max(sizes) > 1, "no two sets were ever in the grid at once"
    assert not any(grid._taken), "a place was not given back"


def test_what_does_not_fit_into_a_place_gets_none(tiny_folder: Folders) -> None:
    network = Network(tiny_folder("llama"), "cpu", grid=SIZE)

    fits = network.rows(3, 24, [])
    more_rows = network.rows(4, 24, [])
    longer = network.rows(3, 25, [])

    assert isinstance(fits, PlacedRows)
    assert not isinstance(more_rows, PlacedRows)
    assert not isinstance(longer, PlacedRows)


def test_when_all_places_are_taken_sets_do_without(tiny_folder: Folders) -> None:
    network = Network(tiny_folder("llama"), "cpu", grid=SIZE)
    taken = [network.rows(1, 8, []) for _ in range(SIZE.sets)]

    beyond = network.rows(1, 8, [])
    taken[2].release()
    after = network.rows(1, 8, [])

    assert not isinstance(beyond, PlacedRows)
    assert isinstance(after, PlacedRows)
    assert after.place == 2


def test_cancelled_sets_give_their_places_back(tiny_folder: Folders) -> None:
    model = TransformersModel(tiny_folder("llama"), "tiny", "cpu", threads=1, grid=SIZE)
    cancelled = threading.Event()

    class Stops(Swaps):
        def begin(
            self, turn: Turn, siblings: int, generator: torch.Generator
        ) -> Callable[[Tensor], Draw]:
            draw = super().begin(turn, siblings, generator)
            calls: list[int] = []

            def stopping(logits: Tensor) -> Draw:
                calls.append(1)
                if len(calls) == 4:
                    cancelled.set()
                return draw(logits)

            return stopping

    with pytest.raises(TurnCancelled):
        model.generate(replace(a_request("stop", 3, Stops()), cancelled=cancelled))

    grid = model._network._grid
    assert grid is not None
    assert not any(grid._taken)


def test_a_model_with_windows_does_without_a_grid_and_says_so(
    tiny_folder: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    network = Network(tiny_folder("mistral"), "cpu", grid=SIZE)

    assert network._grid is None
    assert "steps of fixed shape are not used" in caplog.text


def test_a_grid_that_gives_other_logits_is_not_used(
    tiny_folder: Folders,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    step = Grid.step
    monkeypatch.setattr(Grid, "step", lambda *given: step(*given) + 1.0)

    network = Network(tiny_folder("llama"), "cpu", grid=SIZE)

    assert network._grid is None
    assert "logits differ" in caplog.text

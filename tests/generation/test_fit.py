"""What fits: arithmetic on given numbers, and sizes read from a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from bot.errors import ModelError
from bot.generation import fit as fit_module
from bot.generation.fit import Fit, Plan, Size, fit, measure, memory_bytes

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GB = 10**9

PLAN = Plan(
    kv_tokens=10_000, turns=4, prompt_tokens=1000, candidates=8, max_new_tokens=100
)
SIZE = Size(parameters=10**9, weights_bytes=4 * GB, kv_bytes_per_token=100_000)
FIT = Fit(size=SIZE, plan=PLAN, device="cpu", precision="float32", memory_bytes=20 * GB)


def test_a_tenth_of_the_memory_is_kept_and_the_rest_is_for_tokens() -> None:
    assert FIT.kept_bytes == 2 * GB
    assert FIT.left_bytes == 14 * GB
    assert FIT.tokens == 140_000
    assert FIT.problems == []


def test_a_small_machine_keeps_a_gibibyte() -> None:
    assert replace(FIT, memory_bytes=6 * GB).kept_bytes == 2**30


def test_a_sets_prompt_counts_once() -> None:
    assert PLAN.set_tokens == 1800
    assert FIT.sets == 5
    assert FIT.most_sets == 77


def test_a_gpu_holds_a_place_for_every_turn_beside_kv_tokens() -> None:
    on_gpu = replace(FIT, device="cuda")

    assert on_gpu.placed_tokens == 4 * 1800
    assert on_gpu.tokens == FIT.tokens - 4 * 1800


def test_more_tokens_than_fit_are_a_problem() -> None:
    (problem,) = replace(FIT, plan=replace(PLAN, kv_tokens=140_001)).problems

    assert problem == (
        "generation.kv_tokens: 140001 are asked for, and 140000 fit; lower it"
    )


def test_weights_that_do_not_fit_are_the_problem() -> None:
    crowded = replace(FIT, size=replace(SIZE, weights_bytes=19 * GB))

    (problem,) = crowded.problems

    assert problem.startswith("generation.model: its weights take 19.00 GB, and 18.00")
    assert (crowded.tokens, crowded.most_sets) == (0, 0)


def test_room_for_less_than_one_set_is_a_problem() -> None:
    (problem,) = replace(FIT, plan=replace(PLAN, kv_tokens=1799)).problems

    assert "1799 are allowed, and one set of candidates may need 1800" in problem


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_a_folder_is_measured_without_its_weights(
    tiny_folder: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder(kind))
    model.config.save_pretrained(tmp_path)
    parameters = sum(part.numel() for part in model.parameters())
    head = model.lm_head.weight.numel() if model.config.tie_word_embeddings else 0

    on_cpu = measure(tmp_path, "auto", CPU)
    on_gpu = measure(tmp_path, "auto", GPU)

    assert on_cpu.parameters == on_gpu.parameters == parameters
    assert on_cpu.weights_bytes == 4 * (parameters + head)
    assert on_gpu.weights_bytes == 2 * parameters


def test_int8_takes_a_byte_for_what_is_multiplied_and_four_for_the_rest(
    tiny_folder: Callable[[str], Path],
) -> None:
    folder = tiny_folder("llama")
    model = AutoModelForCausalLM.from_pretrained(folder)
    linear = sum(
        layer.weight.numel()
        for layer in model.modules()
        if type(layer) is torch.nn.Linear
    )
    others = sum(part.numel() for part in model.parameters()) - linear

    assert measure(folder, "int8", CPU).weights_bytes == linear + 4 * others


def test_keys_and_values_are_of_the_heads_that_have_them(
    tiny_folder: Callable[[str], Path],
) -> None:
    folder = tiny_folder("llama")  # 2 layers, 2 heads of keys, 8 numbers each

    assert measure(folder, "float32", CPU).kv_bytes_per_token == 2 * 2 * 2 * 8 * 4
    assert measure(folder, "bfloat16", GPU).kv_bytes_per_token == 2 * 2 * 2 * 8 * 2


def test_a_folder_without_a_model_is_for_the_operator(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(
        ModelError, match=r"config\.json cannot be used.*fetch it again"
    ):
        measure(tmp_path, "auto", CPU)


def test_a_container_has_less_than_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(fit_module, "_CONTAINER", limit)
    machine = memory_bytes(CPU)

    limit.write_text("max\n")
    unlimited = memory_bytes(CPU)
    limit.write_text("123456\n")
    limited = memory_bytes(CPU)

    assert machine > 2**28
    assert (unlimited, limited) == (machine, 123456)


def test_what_is_free_on_a_gpu_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GB, 80 * GB))

    assert memory_bytes(GPU) == 3 * GB


def test_a_folder_is_looked_at_on_this_machine(
    tiny_folder: Callable[[str], Path],
) -> None:
    folder = tiny_folder("llama")

    found = fit(folder, "auto", "cpu", PLAN)

    assert found == Fit(
        size=measure(folder, "float32", CPU),
        plan=PLAN,
        device="cpu",
        precision="float32",
        memory_bytes=memory_bytes(CPU),
    )

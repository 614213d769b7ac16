"""Bench `generation`: all ways do the same work, and the roofline is counted right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from bot import config_file
from bot.app import App
from bot.config import Config
from bot.errors import ConfigError
from bot.evaluation.bench_generation import (
    Ground,
    generation_bench,
    large_ground,
    measured,
    opened,
)
from bot.evaluation.bench_generation_cases import (
    AFRESH,
    CONTINUOUS,
    FIRST,
    FORWARD,
    GENERATE,
    Sides,
    cases,
)
from bot.evaluation.bench_generation_machine import Costs, Machine, Part, Pass, shares
from bot.evaluation.bench_generation_models import (
    large_config,
    never_drawn,
    write_ending_with,
)
from bot.evaluation.bench_generation_ours import Ours
from bot.evaluation.bench_generation_prompts import (
    Prompts,
    WroteOtherwise,
    check_written,
)
from bot.evaluation.bench_generation_scale import (
    ON_A_CPU,
    Crowd,
    First,
    Scale,
    Scored,
    Talk,
)
from bot.interfaces import GenerationRequest, LanguageModel
from bot.model import Candidate

pytestmark = pytest.mark.slow  # test-fast does without

SHIPPED = Path(__file__).parents[2] / "config" / "bot.yaml"
TINY_CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "vocab_size": 259,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.5,
}
TINY = Scale(
    prompts=(20,),
    candidates=(1, 2),
    new_tokens=4,
    crowds=[Crowd(prompts=[20, 40, 60], siblings=2)],
    talk=Talk(turns=3, first=20, message=10, new_tokens=4, siblings=2),
    scored=Scored(prompt=20, continuations=3, tokens=6),
    first=First(prompt=20, siblings=2, others=2, others_tokens=400),
    warm_ups=True,
)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of single bytes."""
    special = ["<unk>", "<start>", "<end>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106 -- no secret
        bos_token="<start>",  # noqa: S106
        eos_token="<end>",  # noqa: S106
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ground(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """What a GPU would be given, made and run on the CPU."""
    made = LlamaConfig(**TINY_CONFIG)
    scratch = tmp_path_factory.mktemp("large")
    return large_ground(made, tokenizer_folder, scratch, torch.device("cpu"))


@pytest.fixture(scope="module")
def sides(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    scratch = tmp_path_factory.mktemp("scratch")
    # The same number type for both sides, so that their figures can be compared.
    float32 = Ground(
        folder=ground.folder, device=ground.device, dtype=torch.float32, scale=TINY
    )
    with opened(on_the_cpu(), float32, scratch, silent) as sides:
        yield sides


def on_the_cpu() -> Config:
    shipped = config_file.load(SHIPPED)
    generation = shipped.generation.model_copy(update={"device": "cpu"})
    return shipped.model_copy(update={"generation": generation})


def silent(step: str, done: int, total: int | None) -> None:
    """Nobody watches."""


# The whole


def test_every_case_is_measured_against_each_of_its_baselines(sides: Sides) -> None:
    told: list[tuple[int, int | None]] = []

    rows = measured(sides, TINY, lambda _, done, total: told.append((done, total)))

    assert [(row.case, row.baseline) for row in rows] == [
        ("torch threads", None),
        ("memory, copy", None),
        ("memory, read", None),
        ("matrix product", None),
        ("prompt 20, k 1", GENERATE),
        ("prompt 20, k 1", CONTINUOUS),
        ("prompt 20, k 2", GENERATE),
        ("prompt 20, k 2", CONTINUOUS),
        ("3 conversations, prompt 20 to 60, k 2", GENERATE),
        ("3 conversations, prompt 20 to 60, k 2", CONTINUOUS),
        ("a conversation of 3 turns, k 2, 4 new tokens", AFRESH),
        ("a conversation of 3 turns, k 2, 4 new tokens", GENERATE),
        ("log_probs, prompt 20, 3 continuations of 6", FORWARD),
        ("first text, prompt 20, k 2, alone", FIRST),
        ("first text, prompt 20, k 2, beside 2 sets of k 2", None),
    ]
    assert rows[0].ours == torch.get_num_threads()
    for row in rows[4:-1]:
        assert row.also["rounds"] == row.also["their rounds"] == 3
        assert 0 < row.also["of roofline"] < 1
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]


def test_a_part_is_measured_alone(sides: Sides) -> None:
    rows = measured(sides, TINY, silent, only="log_probs")

    assert [row.baseline for row in rows if row.baseline] == [FORWARD]


def test_a_part_that_does_not_exist_is_refused_with_the_names(sides: Sides) -> None:
    with pytest.raises(ConfigError, match="'prompt 7' in its name: prompt 20, k 1; "):
        measured(sides, TINY, silent, only="prompt 7")


def test_what_runs_elsewhere_is_refused() -> None:
    elsewhere = SimpleNamespace(generation=SimpleNamespace(backend="openai"))
    app = cast("App", SimpleNamespace(config=elsewhere))

    with pytest.raises(ConfigError, match=r"generation\.backend: 'openai'"):
        generation_bench(app, silent)


def test_the_shipped_scale_has_the_cases_that_were_promised(sides: Sides) -> None:
    names = [case.name for case in cases(sides, ON_A_CPU)]

    assert {
        f"prompt {n}, k {k}" for n in (100, 500, 1500) for k in (1, 4, 8, 16)
    } < set(names)
    assert "16 conversations, prompt 60 to 540, k 4" in names


# Ways


def test_both_sides_give_the_same_log_probabilities(sides: Sides) -> None:
    prompt = sides.prompts.new(30)
    continuations = [sides.prompts.new(length) for length in (5, 9, 1)]

    ours = sides.ours.log_probs(prompt, continuations)
    theirs = sides.generate.log_probs(prompt, continuations)

    for our_scores, their_scores in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our_scores, their_scores, atol=1e-4)


def test_what_wrote_less_or_more_is_not_compared() -> None:
    check_written([48, 48], 2, 48)

    for written in ([48, 47], [48], [48, 48, 48]):
        with pytest.raises(WroteOtherwise):
            check_written(written, 2, 48)


def test_prompts_differ_where_they_begin(sides: Sides) -> None:
    first, second = sides.prompts.new(40), sides.prompts.new(40)
    again = sides.prompts.anew(first)

    assert len(first) == len(second) == 40
    assert len({one.tokens[:3] for one in (first, second, again)}) == 3
    assert again.text.endswith(first.text)


def test_the_next_turn_goes_on_from_what_was_said(sides: Sides) -> None:
    prompt = sides.prompts.new(20)

    later = sides.prompts.after(prompt, "By card.", 15)

    assert later.text.startswith(f"{prompt.text} By card.\n")
    assert len(later) == 20 + len(" By card.\n") + 15


@dataclass
class Ends:
    """A model that has always finished, whatever is asked of it."""

    name: str = "ends"
    context_tokens: int = 100

    def generate(self, request: GenerationRequest) -> Sequence[Candidate]:
        if request.on_text is not None:
            request.on_text(0, "Yes.")
        return [Candidate(text="Yes.", tokens=(5,), log_probs=(-0.1,), finish="stop")]


def test_sets_that_end_before_they_are_stopped_do_not_count_as_busy(
    sides: Sides,
) -> None:
    ours = Ours(cast("LanguageModel", Ends()))
    prompts = [sides.prompts.new(20)]

    with pytest.raises(WroteOtherwise), ours.busy(prompts, 1, 48):
        pass


def test_a_reply_that_ends_early_is_noticed(sides: Sides) -> None:
    ours = Ours(cast("LanguageModel", Ends()))

    with pytest.raises(WroteOtherwise):
        ours.write([sides.prompts.new(20)], 1, 48)


# Models


def test_the_end_token_is_the_one_that_random_weights_never_like(
    ground: Ground, tokenizer_folder: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(ground.folder, dtype=torch.float32)
    sample = Prompts(AutoTokenizer.from_pretrained(tokenizer_folder)).new(100)

    assert never_drawn(model, sample.tokens) == TINY_CONFIG["vocab_size"] - 1


def test_only_the_end_of_texts_changes_in_the_copy(
    ground: Ground, tmp_path: Path
) -> None:
    write_ending_with(ground.folder, [7], tmp_path / "copy")

    copy: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    model: Any = AutoModelForCausalLM.from_pretrained(ground.folder)
    assert copy.generation_config.eos_token_id == [7]
    assert copy.config.eos_token_id == [7]
    assert copy.config.hidden_size == model.config.hidden_size
    assert copy.lm_head.weight.equal(model.lm_head.weight)


def test_the_large_model_has_the_vocabulary_of_the_tokenizer(
    tokenizer_folder: Path,
) -> None:
    made = large_config(tokenizer_folder)

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(made)

    assert made.vocab_size == 259
    assert 1e9 < model.num_parameters() < 8e9


# The roofline

COSTS = Costs(weight_bytes=400, body=70, head=30, attended=8, kv_bytes=16)


def test_a_model_is_counted_from_its_own_numbers() -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY_CONFIG))

    costs = Costs.of(model)

    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32  # two heads of 8 for keys and values
    layer = attention + 3 * 32 * 64 + 2 * 32
    assert costs == Costs(
        weight_bytes=4 * (2 * layer + 32 + 259 * 32),
        body=2 * layer + 32,
        head=259 * 32,
        attended=4 * 2 * 32,
        kv_bytes=2 * 2 * 16 * 4,
    )


def test_tied_weights_are_counted_once() -> None:
    tied = LlamaConfig(**TINY_CONFIG, tie_word_embeddings=True)
    untied = LlamaConfig(**TINY_CONFIG, tie_word_embeddings=False)

    assert Costs.of(AutoModelForCausalLM.from_config(tied)) == Costs.of(
        AutoModelForCausalLM.from_config(untied)
    )


def test_reading_looks_at_what_is_kept_and_at_what_came_before() -> None:
    read = COSTS.reading([Part(kept=5, new=3, drawn=1)])

    # Three tokens see 6, 7 and 8 tokens, themselves among them.
    assert read.operations == 2 * (70 * 3 + 30) + 8 * (6 + 7 + 8)
    assert read.bytes == 400 + 16 * 5


def test_siblings_read_their_prompts_keys_and_values_once() -> None:
    first, second = COSTS.writing([10, 20], siblings=3, tokens=3)

    assert first.bytes == 400 + 16 * (30 + 6 * 1)
    assert second.bytes == 400 + 16 * (30 + 6 * 2)
    assert first.operations == 2 * 100 * 6 + 8 * (3 * 30 + 6 * 1)


def test_scoring_reads_the_weights_once() -> None:
    scored = COSTS.scoring(10, [4, 4])

    prompt, text = COSTS.attended * 55, COSTS.attended * (11 + 12 + 13 + 14)
    assert scored.bytes == 400
    assert scored.operations == 2 * (70 * 18 + 30 * 8) + prompt + 2 * text


def test_each_pass_is_measured_by_its_lower_roof() -> None:
    machine = Machine(copied=100, read=80, rate=1000)
    moving = Pass(operations=1000, bytes=300)  # 1 s and 3 s
    computing = Pass(operations=2000, bytes=100)  # 2 s and 1 s

    found = shares([moving, computing], seconds=10, machine=machine)

    assert found == {"of bandwidth": 0.4, "of rate": 0.3, "of roofline": 0.5}

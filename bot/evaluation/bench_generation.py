"""
Bench `generation`: candidate sets, ours against transformers' own two ways.

The baselines are what a user would write: `generate(num_return_sequences=k)`, one call
for each conversation, and continuous batching as `generate_batch` does it, started
before the clock is. The same weights, number type, prompts and settings (temperature
.7, top-k 50, top-p .95) for all, and exactly 48 new tokens in each row: texts end with
a token that is never drawn (bench_generation_models.py). Every round has prompts of its
own, so that no prefix is in a cache, except in the conversation, whose turns are made
of what was said before. torch's threads are the process's and the same for all.

The ways take turns, three rounds, or as many as they begin within 20 seconds: `rounds`
and `their rounds` say how many. `of bandwidth`, `of rate` and `of roofline` are shares
of what the machine has just shown that it can do, by what ours had at least to move and
to compute (bench_generation_machine.py says how they are counted). A row stands for a
case and one baseline.

On a GPU the model is one of 3 billion random parameters in bfloat16, and the crowds are
16 and 64 conversations. This has never run on a GPU: tests run it on a CPU, tiny.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from bot.app import App
from bot.errors import ConfigError
from bot.evaluation.bench_generation_cases import Sides, cases
from bot.evaluation.bench_generation_machine import Costs, Machine, measured_machine
from bot.evaluation.bench_generation_models import (
    large_config,
    never_drawn,
    write_ending_with,
    write_random_model,
)
from bot.evaluation.bench_generation_ours import Ours
from bot.evaluation.bench_generation_prompts import Prompts
from bot.evaluation.bench_generation_scale import ON_A_CPU, ON_A_GPU, Scale
from bot.evaluation.bench_generation_theirs import Continuous, Generate
from bot.evaluation.report import BenchRow
from bot.interfaces import Progress

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from bot.config import Config

SAMPLE_TOKENS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What both sides run on."""

    folder: Path
    device: torch.device
    dtype: torch.dtype
    scale: Scale


def generation_bench(app: App, progress: Progress, only: str = "") -> list[BenchRow]:
    """Measure every case with `only` in its name; ConfigError when there is none."""
    settings = app.config.generation
    if settings.backend != "transformers":
        wrong = (
            f"generation.backend: {settings.backend!r}, but this bench compares what "
            "runs in this process; set it to 'transformers'"
        )
        raise ConfigError([wrong])
    folder = app.models.fetch(settings.model, settings.model_sha256)
    with TemporaryDirectory(prefix="chorus-bench-") as scratch:
        if settings.device != "cpu" and torch.cuda.is_available():
            progress("Making a large model", 0, None)
            ground = large_ground(
                large_config(folder), folder, Path(scratch), torch.device("cuda")
            )
        else:
            bfloat16 = settings.precision == "bfloat16"
            ground = Ground(
                folder=folder,
                device=torch.device("cpu"),
                dtype=torch.bfloat16 if bfloat16 else torch.float32,
                scale=ON_A_CPU,
            )
        with opened(app.config, ground, Path(scratch), progress) as sides:
            return measured(sides, ground.scale, progress, only)


def large_ground(
    config: PretrainedConfig, tokenizer: Path, scratch: Path, device: torch.device
) -> Ground:
    """Make a model of random weights with the tokenizer of another one's folder."""
    folder, dtype = scratch / "large", torch.bfloat16
    write_random_model(config, tokenizer, folder, device=device, dtype=dtype)
    return Ground(folder=folder, device=device, dtype=dtype, scale=ON_A_GPU)


@contextmanager
def opened(
    config: Config, ground: Ground, scratch: Path, progress: Progress
) -> Iterator[Sides]:
    """Load the weights for both sides."""
    transformers_logging.disable_progress_bar()
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        ground.folder, dtype=ground.dtype, local_files_only=True
    )
    theirs = theirs.to(ground.device).eval()
    prompts = Prompts(
        AutoTokenizer.from_pretrained(ground.folder, local_files_only=True)
    )
    end_token = never_drawn(theirs, prompts.new(SAMPLE_TOKENS).tokens)
    endless = scratch / "endless"
    write_ending_with(ground.folder, [end_token], endless)
    theirs.generation_config = GenerationConfig.from_pretrained(endless)
    changed = _reading(config, endless, ground.scale)
    with closing(App.from_config(changed, progress, "bench")) as app:
        # It sets torch's threads, so the machine is measured after it.
        ours = app.language_model()
        progress("Measuring the machine", 0, None)
        yield Sides(
            ours=Ours(ours),
            generate=Generate(theirs, end_token),
            continuous=Continuous(theirs, end_token),
            prompts=prompts,
            costs=Costs.of(theirs),
            machine=measured_machine(ground.device, ground.dtype),
        )


def _reading(config: Config, folder: Path, scale: Scale) -> Config:
    """Return the configuration with another model, and room for the whole scale."""
    settings = config.generation
    conversations = max(len(crowd.prompts) for crowd in scale.crowds)
    changed = {
        "model": str(folder),
        "model_sha256": None,
        "kv_tokens": max(settings.kv_tokens, scale.kv_tokens),
        "queue": max(settings.queue, conversations),
    }
    generation = settings.model_copy(update=changed)
    return config.model_copy(update={"generation": generation})


def measured(
    sides: Sides, scale: Scale, progress: Progress, only: str = ""
) -> list[BenchRow]:
    """Return the machine's rows and those of the cases with `only` in their names."""
    every = list(cases(sides, scale))
    chosen = [case for case in every if only in case.name]
    if not chosen:
        names = "; ".join(case.name for case in every)
        raise ConfigError([f"--only: no case has {only!r} in its name: {names}"])
    sides.warm_up()
    rows = _machine_rows(sides.machine)
    done, total = 0, sum(case.effort for case in chosen)
    for case in chosen:
        progress("Generating", done, total)
        rows += case.measure()
        done += case.effort
    progress("Generating", total, total)
    return rows


def _machine_rows(machine: Machine) -> list[BenchRow]:
    giga = 1e9
    return [
        BenchRow(case="torch threads", ours=torch.get_num_threads(), unit="threads"),
        BenchRow(case="memory, copy", ours=machine.copied / giga, unit="GB/s"),
        BenchRow(case="memory, read", ours=machine.read / giga, unit="GB/s"),
        BenchRow(case="matrix product", ours=machine.rate / giga, unit="GFLOP/s"),
    ]

"""
The cases of bench `generation`: what is written, by whom, how often.

Each case is a function that measures and returns its rows, one for each baseline. Does
not know where the models come from.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from bot.evaluation.bench_generation_machine import Costs, Machine, Part, Pass, shares
from bot.evaluation.bench_generation_ours import Ours
from bot.evaluation.bench_generation_prompts import Prompt, Prompts
from bot.evaluation.bench_generation_scale import Crowd, Scale
from bot.evaluation.bench_generation_theirs import Continuous, Generate
from bot.evaluation.report import BenchRow
from bot.evaluation.timing import compared, raced, spread

ROUNDS = 3
ENOUGH_S = 20.0  # a way that has taken so long is not asked again

OURS = "chorus"
GENERATE = "transformers generate(num_return_sequences=k)"
CONTINUOUS = "transformers generate_batch(num_return_sequences=k)"
FORWARD = "a forward pass of transformers over all rows in full"
AFRESH = "chorus, the same prompts with another beginning"
FIRST = "transformers generate(max_new_tokens=1), one sequence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Who writes, what, and on which machine."""

    ours: Ours
    generate: Generate
    continuous: Continuous
    prompts: Prompts
    costs: Costs
    machine: Machine

    def warm_up(self) -> None:
        prompt = [self.prompts.new(20)]
        self.ours.write(prompt, 2, 4)
        self.generate.write(prompt, 2, 4)
        with self.continuous.ready([len(prompt[0])], 2, 4) as batches:
            batches.write(prompt, 2, 4)

    def rows(
        self,
        case: str,
        times: Mapping[str, Sequence[float]],
        needed: Sequence[Pass],
    ) -> list[BenchRow]:
        """Compare ours with everything else in `times`, in seconds."""
        ours = times[OURS]
        achieved = shares(needed, statistics.median(ours), self.machine)
        return [
            replace(
                compared(case, ours, baseline, theirs, "s"),
                also={"rounds": len(ours), "their rounds": len(theirs), **achieved},
            )
            for baseline, theirs in times.items()
            if baseline != OURS
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`effort` is about as many seconds as `measure` takes on two cores."""

    name: str
    effort: int
    measure: Callable[[], list[BenchRow]]


def cases(sides: Sides, scale: Scale) -> Iterator[Case]:
    alone = [
        Crowd(prompts=[prompt], siblings=siblings)
        for prompt in scale.prompts
        for siblings in scale.candidates
    ]
    for crowd in alone:
        name = f"prompt {crowd.prompts[0]}, k {crowd.siblings}"
        yield _sets(sides, scale, name, crowd)
    for crowd in scale.crowds:
        yield _sets(sides, scale, crowd.name, crowd)
    yield _talk(sides, scale)
    yield _scored(sides, scale)
    yield _first(sides, scale)


def _sets(sides: Sides, scale: Scale, name: str, crowd: Crowd) -> Case:
    siblings, tokens = crowd.siblings, scale.new_tokens

    @cache
    def prompts(_: int) -> list[Prompt]:
        return sides.prompts.crowd(crowd.prompts, crowd.common)

    def asked(
        write: Callable[[Sequence[Prompt], int, int], None],
    ) -> Callable[[int], None]:
        return lambda number: write(prompts(number), siblings, tokens)

    def measure() -> list[BenchRow]:
        with sides.continuous.ready(crowd.prompts, siblings, tokens) as batches:
            times = _times(
                scale,
                {
                    OURS: asked(sides.ours.write),
                    GENERATE: asked(sides.generate.write),
                    CONTINUOUS: asked(batches.write),
                },
            )
        needed = sides.costs.sets(crowd.prompts, siblings, tokens, crowd.common)
        return sides.rows(name, times, needed)

    # As generate goes: each row reads the prompt, and a step takes as long as reading
    # ten tokens; the others are about as much again.
    effort = sum(siblings * (prompt + 10 * tokens) for prompt in crowd.prompts) // 100
    return Case(name=name, effort=10 + effort, measure=measure)


def _talk(sides: Sides, scale: Scale) -> Case:
    talk = scale.talk
    name = f"a conversation of {talk.turns} turns, k {talk.siblings}"
    name += f", {talk.new_tokens} new tokens"
    said: list[Prompt] = []

    def onwards(_: int) -> None:
        said[:] = [sides.prompts.new(talk.first)]
        while True:
            reply = sides.ours.written(said[-1], talk.siblings, talk.new_tokens)[0]
            if len(said) == talk.turns:
                return
            said.append(sides.prompts.after(said[-1], reply.text, talk.message))

    def afresh(_: int) -> None:
        for prompt in said:
            other = sides.prompts.anew(prompt)
            sides.ours.written(other, talk.siblings, talk.new_tokens)

    def theirs(_: int) -> None:
        sides.generate.write(said, talk.siblings, talk.new_tokens)

    def measure() -> list[BenchRow]:
        times = _times(scale, {OURS: onwards, AFRESH: afresh, GENERATE: theirs})
        return sides.rows(name, times, list(needed()))

    def needed() -> Iterator[Pass]:
        kept = 0
        for prompt in map(len, said):
            yield sides.costs.reading([Part(kept=kept, new=prompt - kept, drawn=1)])
            yield from sides.costs.writing([prompt], talk.siblings, talk.new_tokens)
            kept = prompt

    return Case(name=name, effort=150, measure=measure)


def _scored(sides: Sides, scale: Scale) -> Case:
    scored = scale.scored
    name = f"log_probs, prompt {scored.prompt}, {scored.continuations} continuations"
    name += f" of {scored.tokens}"

    @cache
    def texts(_: int) -> tuple[Prompt, list[Prompt]]:
        continuations = [
            sides.prompts.new(scored.tokens) for _ in range(scored.continuations)
        ]
        return sides.prompts.new(scored.prompt), continuations

    def measure() -> list[BenchRow]:
        times = _times(
            scale,
            {
                OURS: lambda number: sides.ours.log_probs(*texts(number)),
                FORWARD: lambda number: sides.generate.log_probs(*texts(number)),
            },
        )
        needed = sides.costs.scoring(
            scored.prompt, [scored.tokens] * scored.continuations
        )
        return sides.rows(name, times, [needed])

    return Case(name=name, effort=40, measure=measure)


def _first(sides: Sides, scale: Scale) -> Case:
    first = scale.first
    name = f"first text, prompt {first.prompt}"

    def prompts(number: int) -> list[Prompt]:
        return [sides.prompts.new(first.prompt) for _ in range(number)]

    def measure() -> list[BenchRow]:
        alone: list[float] = []
        theirs: list[float] = []
        for prompt in prompts(ROUNDS):
            alone.append(sides.ours.first_text_s(prompt, first.siblings))
            began = time.perf_counter()
            sides.generate.write([prompt], 1, 1)
            theirs.append(time.perf_counter() - began)
        with sides.ours.busy(
            prompts(first.others), first.siblings, first.others_tokens
        ):
            beside = [
                sides.ours.first_text_s(prompt, first.siblings)
                for prompt in prompts(ROUNDS)
            ]
        quiet, k = f"{name}, k {first.siblings}, alone", first.siblings
        needed = [sides.costs.reading([Part(kept=0, new=first.prompt, drawn=1)])]
        return [
            *sides.rows(quiet, {OURS: alone, FIRST: theirs}, needed),
            BenchRow(
                case=f"{name}, k {k}, beside {first.others} sets of k {k}",
                ours=statistics.median(beside),
                unit="s",
                spread=(spread(beside),),
                also={"rounds": len(beside)},
            ),
        ]

    return Case(name=name, effort=60, measure=measure)


def _times(
    scale: Scale, ways: Mapping[str, Callable[[int], object]]
) -> dict[str, list[float]]:
    return raced(ways, rounds=ROUNDS, enough_s=ENOUGH_S, warm_up=scale.warm_ups)

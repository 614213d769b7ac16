"""
Bench `plugins`: milliseconds that each installed plugin costs a turn of eight siblings.

Logits steps and samplers are called once a token: 64 times, with logits as wide as the
bot's vocabulary, made up and different in each step. Filters, scorers, rerankers and
selectors are called once, on eight made-up siblings for shipped questions and the
passages that the bot retrieves, with the vectors of question, siblings and what they
announce known: embedding is a case of its own, because a turn pays it once for all.
Scorers that read with the generator pay for that themselves. Where transformers has the
same logits processor, it is the baseline. Plugins that cannot be made with their
defaults are given a word, and left out where that is not enough.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from bot import plugin_manager
from bot.config import Use
from bot.errors import ConfigError
from bot.evaluation.bench_ranking import SIBLINGS, Sample, samples
from bot.evaluation.report import BenchRow
from bot.evaluation.timing import compared, spread
from bot.evaluation.turns import asking
from bot.interfaces import (
    CandidateFilter,
    Embeds,
    LanguageModel,
    LogitsProcessor,
    Progress,
    ReadsVocabulary,
    Reranker,
    Sampler,
    Scorer,
    Selector,
    Tools,
    UsesClassifiers,
    Writer,
)
from bot.model import Candidate
from bot.plugin_manager import Plugins
from bot.ranking import TurnTools, with_totals

if TYPE_CHECKING:
    from torch import Tensor

    from bot.app import App

TOKENS = 64
STEPS = 24  # that are measured; a turn of 64 tokens costs so many times more
ROUNDS = 3
QUESTIONS = 8
_UNIT = f"ms per turn, k = {SIBLINGS}"
_PER_TOKEN = f"ms per turn, k = {SIBLINGS}, {TOKENS} tokens"
_WORDS = ("guarantee", "lawsuit")
_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "blocklist": {"phrases": _WORDS},
    "blocked-words": {"words": _WORDS},
    "phrase-bias": {"phrases": _WORDS},
}


def plugins_bench(app: App, progress: Progress, only: str = "") -> list[BenchRow]:
    """Measure every installed plugin that `only` is a part of the name of."""
    answerer = app.answerer()
    sets = samples(app, progress)[:QUESTIONS]
    rows: list[BenchRow] = []
    model = answerer.model
    vocabulary = getattr(model, "vocabulary", None)

    def tools() -> TurnTools:
        return TurnTools(answerer.embedder, model, lambda turn: turn.prompt, {})

    loaded = {
        name: plugins
        for name, plugins in _loadable(app)
        if only in name and not name.startswith(("slack", "telegram", "terminal"))
    }
    if not only:
        rows.append(_embedding(sets, tools))
    for done, (name, plugins) in enumerate(loaded.items()):
        progress("Measuring plugins", done, len(loaded))
        for reader in (*plugins.logits_processors, *plugins.samplers):
            if isinstance(reader, ReadsVocabulary) and vocabulary is not None:
                reader.read_vocabulary(vocabulary)
        width = _width(model)
        rows += [_processor(name, one, width) for one in plugins.logits_processors]
        rows += [_sampler(name, one, width) for one in plugins.samplers]
        rows += _once(name, plugins, sets, tools)
    return rows


def _loadable(app: App) -> Iterable[tuple[str, Plugins]]:
    for one in plugin_manager.installed(app.config.plugins):
        settings = {**(one.configured or {}), **_EXAMPLES.get(one.name, {})}
        use = Use(use=one.name, settings=dict(settings))
        try:
            yield one.name, plugin_manager.load({"bench": use})
        except ConfigError:  # it needs what only its operator has
            continue


def _width(model: LanguageModel) -> int:
    vocabulary = getattr(model, "vocabulary", None)
    return vocabulary.size if vocabulary is not None else 50_000


# Once a token


def _processor(name: str, processor: LogitsProcessor, width: int) -> BenchRow:
    turn, logits, drawn = _begun(width)

    def ours() -> None:
        step = processor.begin(turn, SIBLINGS)
        for at, own in enumerate(logits):
            step(drawn[:, :at], own)

    theirs = _of_transformers(name)
    if theirs is None:
        return _alone(name, ours, _PER_TOKEN, TOKENS / STEPS)

    def baseline() -> None:
        for at, own in enumerate(logits):
            theirs(drawn[:, :at], own)

    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(ROUNDS + 1):
        for way, work in (("ours", ours), ("theirs", baseline)):
            took = _ms(work) * TOKENS / STEPS
            if number:
                found[way].append(took)
    return compared(name, found["ours"], "transformers", found["theirs"], _PER_TOKEN)


def _sampler(name: str, sampler: Sampler, width: int) -> BenchRow:
    turn, logits, _ = _begun(width)

    def ours() -> None:
        generator = torch.Generator().manual_seed(1)
        step = sampler.begin(turn, SIBLINGS, generator)
        for own in logits:
            step(own)

    return _alone(name, ours, _PER_TOKEN, TOKENS / STEPS)


def _begun(width: int) -> tuple[Any, Sequence[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = [
        torch.randn(SIBLINGS, width, generator=generator) * 3 for _ in range(STEPS)
    ]
    drawn = torch.randint(0, width, (SIBLINGS, STEPS), generator=generator)
    return asking("bench", "How long does a refund take?"), logits, drawn


def _of_transformers(name: str) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return transformers' own processor of the same name, with our defaults."""
    from transformers.generation import logits_process as theirs  # noqa: PLC0415

    made: Mapping[str, Callable[[], Any]] = {
        "min-p": lambda: theirs.MinPLogitsWarper(0.05),
        "typical": lambda: theirs.TypicalLogitsWarper(0.9),
        "epsilon": lambda: theirs.EpsilonLogitsWarper(6e-4),
        "eta": lambda: theirs.EtaLogitsWarper(2e-3),
        "repetition": lambda: theirs.RepetitionPenaltyLogitsProcessor(1.1),
        "ngram-block": lambda: theirs.NoRepeatNGramLogitsProcessor(6),
    }
    return made[name]() if name in made else None


# Once a turn


Candidates = Sequence[Candidate]
Call = Callable[[Sample, Tools, Candidates], object]


def _once(
    name: str, plugins: Plugins, sets: Sequence[Sample], tools: Callable[[], TurnTools]
) -> list[BenchRow]:
    return [
        _turns(name, call, one, sets, tools)
        for one, call in _calls(plugins)
        if not isinstance(one, UsesClassifiers) or not one.classifiers
    ]


def _calls(plugins: Plugins) -> Iterable[tuple[object, Call]]:
    for writer in plugins.writers:
        yield writer, partial(_write, writer)
    for one in plugins.candidate_filters:
        yield one, partial(_keep, one)
    for scorer in plugins.scorers:
        yield scorer, partial(_score, scorer)
    for reranker in plugins.rerankers:
        yield reranker, partial(_rerank, reranker)
    for selector in plugins.selectors:
        yield selector, partial(_select, selector)


def _write(one: Writer, sample: Sample, tools: Tools, _: Candidates) -> object:
    return one.write(sample.turn, tools)


def _keep(one: CandidateFilter, sample: Sample, tools: Tools, c: Candidates) -> object:
    return one.keep(sample.turn, c, tools)


def _score(one: Scorer, sample: Sample, tools: Tools, c: Candidates) -> object:
    return one.score(sample.turn, c, tools)


def _rerank(one: Reranker, sample: Sample, tools: Tools, c: Candidates) -> object:
    return one.rerank(sample.turn, c, tools)


def _select(one: Selector, sample: Sample, _: Tools, c: Candidates) -> object:
    return one.select(sample.turn, c)


def _turns(
    name: str,
    call: Call,
    plugin: object,
    sets: Sequence[Sample],
    tools: Callable[[], TurnTools],
) -> BenchRow:
    times: list[float] = []
    for number in range(ROUNDS + 1):
        for sample in sets:
            turn = sample.turn
            own = tools()
            texts = [turn.question, *(one.text for one in sample.siblings)]
            if isinstance(plugin, Embeds):
                texts += plugin.texts(turn)
            own.embed(texts)
            scores = {"a": [float(at) for at in range(SIBLINGS)], "b": [1.0, 2.0] * 4}
            scored = with_totals(sample.siblings, scores, {})
            ranked = [replace(one, rank=at) for at, one in enumerate(scored, 1)]
            # Bound at once: it is called before the next one is made.
            took = _ms(lambda: call(sample, own, ranked))  # noqa: B023
            if number:
                times.append(took)
    return BenchRow(
        case=name, ours=statistics.median(times), unit=_UNIT, spread=(spread(times),)
    )


def _embedding(sets: Sequence[Sample], tools: Callable[[], TurnTools]) -> BenchRow:
    times: list[float] = []
    for number in range(ROUNDS + 1):
        for sample in sets:
            texts = [sample.turn.question, *(one.text for one in sample.siblings)]
            own = tools()
            took = _ms(lambda: own.embed(texts))  # noqa: B023 - called at once
            if number:
                times.append(took)
    return BenchRow(
        case="embedding question and siblings, once for all",
        ours=statistics.median(times),
        unit=_UNIT,
        spread=(spread(times),),
    )


def _alone(name: str, work: Callable[[], object], unit: str, factor: float) -> BenchRow:
    work()
    times = [_ms(work) * factor for _ in range(ROUNDS)]
    return BenchRow(
        case=name, ours=statistics.median(times), unit=unit, spread=(spread(times),)
    )


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)

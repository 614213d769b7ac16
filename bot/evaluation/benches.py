"""The benches of `chorus bench`, by name; the libraries of each load with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from bot.evaluation.report import BenchRow
from bot.interfaces import Progress

if TYPE_CHECKING:
    from bot.app import App

    Bench = Callable[[App, Progress], list[BenchRow]]

BENCHES: Mapping[str, str] = {
    "actions": "bot.evaluation.bench_actions:actions_bench",
    "connectors": "bot.evaluation.bench_connectors:connectors_bench",
    "generation": "bot.evaluation.bench_generation:generation_bench",
    "plugins": "bot.evaluation.bench_plugins:plugins_bench",
    "ranking": "bot.evaluation.bench_ranking:ranking_bench",
    "retrieval": "bot.evaluation.bench_retrieval:retrieval_bench",
    "state": "bot.evaluation.bench_state:state_bench",
}

# Those that take `only`: a part of the names of the cases to measure.
IN_PARTS = frozenset({"generation", "plugins"})


def bench(name: str, only: str = "") -> Bench:
    """Return a bench, or the part of it that `only` chooses."""
    module, _, function = BENCHES[name].partition(":")
    found: Callable[..., list[BenchRow]] = getattr(import_module(module), function)
    return partial(found, only=only) if only else found

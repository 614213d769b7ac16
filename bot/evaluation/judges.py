"""
A bot's ranking by itself: it judges replies that a file holds, and writes none.

Scorers, weights, rerankers and selector are the bot's, through the bot's own
`Ranking`. Writers and filters are left out: the set that people rated stays whole.
Knows nothing about files and figures. No plugin is given up for being slow here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bot.evaluation.memory import Memory, RememberingModel
from bot.interfaces import Embedder, LanguageModel, Tools
from bot.model import Candidate, Passage, Record, Reply, Turn
from bot.ranking import Ranked, Ranking, TurnTools

if TYPE_CHECKING:
    from bot.app import App

# A scorer that reads with the generator takes long on a loaded machine; that it
# answers at all is what matters here.
_PATIENCE_S = 3600.0

Bots = Sequence[tuple[str, "App"]]
Toolbox = Callable[[Turn], Tools]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """
    One set as one bot sees it. `order` are positions in the set as it was given, best
    first, and `picked` is one of them; `scores` [k] by scorer are in the given order,
    zeros for a scorer that failed.
    """

    turn: Turn
    ranked: Ranked
    order: Sequence[int]
    picked: int
    scores: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """What ranks in one bot, by the name of its row."""

    name: str
    ranking: Ranking
    fingerprint: str
    toolbox: Toolbox

    @classmethod
    def of(cls, name: str, app: App, tools: Callable[[App], Toolbox]) -> Judge:
        settings = app.config.ranking
        selectors = app.plugins.selectors
        ranking = Ranking(
            inference=app.inference,
            writers=(),
            filters=(),
            scorers=app.plugins.scorers,
            weights=settings.weights,
            rerankers=app.plugins.rerankers,
            selector=next(one for one in selectors if one.name == settings.selector),
            plugin_timeout_s=_PATIENCE_S,
        )
        return cls(
            name=name,
            ranking=ranking,
            fingerprint=app.config.fingerprint,
            toolbox=tools(app),
        )

    @property
    def scorers(self) -> list[str]:
        return [one.name for one in self.ranking.scorers]

    def weight(self, scorer: str) -> float:
        return self.ranking.weights.get(scorer, 1.0)

    async def judge(self, turn: Turn, texts: Sequence[str]) -> Judged:
        """Rank these replies to a turn, of which there must be at least one."""
        # The order comes back as other objects, so each says where it stood.
        given = [
            Candidate(text=text, origin=f"reply {at}") for at, text in enumerate(texts)
        ]
        position = {one.origin: at for at, one in enumerate(given)}
        tools = self.toolbox(turn)
        # Scorers that read with the generator read on from the turn's own prompt.
        turn = replace(turn, prompt=tools.prompt(turn))
        ranked = await self.ranking.rank(turn, given, tools)
        order = [position[one.origin] for one in ranked.candidates]
        scores = {name: np.zeros(len(texts)) for name in self.scorers}
        for at, one in zip(order, ranked.candidates, strict=True):
            for name, score in one.scores.items():
                scores[name][at] = score
        return Judged(
            turn=turn,
            ranked=ranked,
            order=order,
            picked=order[ranked.chosen or 0],
            scores=scores,
        )

    def record(self, judged: Judged) -> Record:
        """Return the turn that picked so, as `explain` and reports show turns."""
        ranked = judged.ranked
        chosen = ranked.chosen or 0
        return Record(
            turn=judged.turn,
            outcome="answered",
            reply=Reply(text=ranked.candidates[chosen].text),
            why=ranked.why,
            config=self.fingerprint,
            candidates=ranked.candidates,
            chosen=ranked.chosen,
            orders=ranked.orders,
            problems=ranked.problems,
        )


def knowledge(text: str) -> tuple[Passage, ...]:
    """Return what a turn of a data set knows."""
    return (Passage(id="knowledge", text=text, source="knowledge"),)


class AppTools:
    """
    Makes the tools of a bot's turns, with the bot's own models. No text is embedded
    twice, whatever turn it is in, and with a memory none is scored twice.
    """

    def __init__(self, app: App, memory: Memory | None = None) -> None:
        from bot.generation.prompt import PromptBuilder  # noqa: PLC0415 (with the model)

        self._app = app
        self._embedder = _Remembering(app.embedder())
        self._model: LanguageModel = app.language_model()
        if memory is not None:
            self._model = RememberingModel(self._model, memory, drawing="")
        self._prompter = PromptBuilder(
            model=self._model,
            name=app.config.name,
            persona=app.config.persona,
            knowledge=app.config.knowledge,
            conversation=app.config.conversation,
            reply_tokens=app.config.generation.max_new_tokens,
        )

    def __call__(self, turn: Turn) -> Tools:
        return TurnTools(
            self._embedder,
            self._model,
            self._render,
            self._app.classifiers(),
        )

    def _render(self, turn: Turn) -> str:
        said = [one.render(turn) for one in self._app.plugins.prompt_parts]
        return self._prompter.render(turn, [part for part in said if part]).prompt


class _Remembering:
    """The bot's embedder, which keeps every vector."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self.name = embedder.name
        self.dimension = embedder.dimension
        self.languages = embedder.languages

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self._embedder.embed(new), strict=True))
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return np.stack([self._vectors[text] for text in texts])

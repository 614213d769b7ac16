"""
The turn protocol, told in order: from a message to the record of its answer.

Knows nothing about Redis, connectors or how any stage works inside. Whatever happens,
`answer` returns a record with a reply in it: an answer, the honest fallback, or the
apology.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from bot import metrics
from bot.actions import rewording
from bot.actions.composing import between, keeping, together, with_wording
from bot.actions.dialogue import Dialogue
from bot.actions.doing import Acted, Acting, Doing, Watch
from bot.actions.replies import Said, joined
from bot.actions.state import what_counts
from bot.blocks import in_blocks
from bot.citing import cited
from bot.config import Config, RepliesConfig
from bot.errors import KnowledgeError, PluginError, TurnCancelled, TurnError
from bot.generation.prompt import in_language
from bot.inference import InferenceThread, Questions, apart
from bot.interfaces import (
    Embedder,
    GenerationRequest,
    LanguageModel,
    LogitsProcessor,
    PromptPart,
    PromptVariant,
    Retriever,
    Sampler,
)
from bot.model import (
    Address,
    Candidate,
    Outcome,
    Passage,
    Record,
    Reply,
    Turn,
)
from bot.plugin_manager import Plugins
from bot.ranking import (
    Classifies,
    Ranked,
    Ranking,
    TurnTools,
    Written,
    checked_candidates,
    clean,
)

logger = logging.getLogger(__name__)


class Prompter(Protocol):
    """
    Renders what the model reads; `parts` are what plugins add to the rules, the
    `instruction` is one variant's and stands beside the question.
    """

    def render(
        self, turn: Turn, parts: Sequence[str], instruction: str = ""
    ) -> Turn: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What one channel's turns go through."""

    plugins: Plugins
    retrievers: Sequence[Retriever]
    prompt_parts: Sequence[PromptPart]
    prompter: Prompter
    prompt_variants: Sequence[PromptVariant] = ()
    sampler: Sampler
    logits_processors: Sequence[LogitsProcessor]
    ranking: Ranking


@dataclass(slots=True, kw_only=True)
class _Progress:
    """What is known when a turn ends early."""

    turn: Turn
    began: float = field(default_factory=time.perf_counter)
    ms: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    parts: Sequence[str] = ()
    doing: Doing | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, 1000 * (time.perf_counter() - began))

    def add(self, name: str, ms: float) -> None:
        self.ms[name] = self.ms.get(name, 0.0) + ms

    def at_least(self, name: str, ms: float) -> None:
        """Take the longest of what happens at the same time."""
        self.ms[name] = max(self.ms.get(name, 0.0), ms)

    def reached(self, name: str) -> None:
        """Time the way here from the beginning of the turn, once."""
        self.ms.setdefault(name, 1000 * (time.perf_counter() - self.began))


async def unwatched() -> None:
    """Nobody has to know that an action is about to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A text in the model's words, and how it was chosen; `chosen` None: as it was."""

    text: str
    why: str
    candidates: Sequence[Candidate] = ()
    chosen: int | None = None
    orders: Mapping[str, Sequence[int]] = field(default_factory=dict)
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """
    Answers turns; `pipeline` gives each address the pipeline of its channel. A turn in
    the `background`, such as an evaluation's, lets customers' go first and is not
    counted among them; no action runs in it. `arm` is what its records name, where
    there is an experiment.
    """

    config: Config
    pipeline: Callable[[Address], Pipeline]
    model: LanguageModel
    embedder: Embedder
    inference: InferenceThread
    classifiers: Mapping[str, Classifies] = field(default_factory=dict)
    dialogue: Dialogue | None = None
    background: bool = False
    arm: str = ""

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: Acting = unwatched,
    ) -> Record:
        """
        Return the turn's record. `show` is told the reply as far as it is settled;
        `acting` is awaited before the first action runs. It raises nothing but
        asyncio's cancellation.
        """
        pipeline = self.pipeline(turn.message.address)
        progress = _Progress(turn=replace(turn, history=what_counts(turn.history)))
        with progress.stage("total"):
            try:
                watch = Watch(cancelled=cancelled, show=show, acting=acting)
                record = await self._answered(pipeline, progress, watch)
            except TurnCancelled:
                record = self._ended(progress, "cancelled", "the customer stopped it")
            # Strangers' code and the machine itself can fail in any way; the customer
            # gets the apology and the operator the reason.
            except Exception as error:  # noqa: BLE001
                record = self._ended(progress, "failed", _told(error))
                await pipeline.plugins.turn_failed(progress.turn, error)
        record = replace(record, ms=progress.ms)
        if not self.background:
            metrics.turn_over(record)
        await self._count(pipeline, record)
        return record

    async def _count(self, pipeline: Pipeline, record: Record) -> None:
        for sink in pipeline.plugins.metrics_sinks:
            asked = self._questions()
            await asked.ask(sink.name, partial(sink.turn_over, record), lambda _: None)
            if asked.problems:  # what they say may quote a message
                logger.warning("metrics sink %r failed", sink.name)

    def _questions(self) -> Questions:
        return Questions(self.inference, self.config.ranking.plugin_timeout_s)

    async def _answered(
        self, pipeline: Pipeline, progress: _Progress, watch: Watch
    ) -> Record:
        await pipeline.plugins.turn_started(progress.turn)
        if progress.turn.message.kind == "message":
            reason = await pipeline.plugins.needs_person(progress.turn)
            if reason is not None:
                return self._handed_over(progress, reason)
            direct = await pipeline.plugins.answer_directly(progress.turn)
            if direct is not None:
                return self._direct(progress, direct)
        acted = await self._act(pipeline, progress, watch)
        if acted is None and progress.turn.message.kind == "intent":
            # Nobody has asked, so nobody hears that no action is there for it any more.
            told = "a reminder came due, and no action is there for it"
            return self._record(progress, "acted", Reply(text=""), told)
        if acted is None:
            return await self._from_knowledge(pipeline, progress, watch)
        if acted.problem or not acted.generates:
            return await self._acted(pipeline, progress, acted, watch)
        record = await self._from_knowledge(pipeline, progress, watch)
        return between(acted, record)

    # Actions

    async def _act(
        self, pipeline: Pipeline, progress: _Progress, watch: Watch
    ) -> Acted | None:
        """Let actions answer; None where the message is for none of them."""
        if self.background:
            return None
        if self.dialogue is None:
            _check_asks(progress.turn)
            return None

        async def generate(request: GenerationRequest) -> list[Candidate]:
            settings = self.config.generation
            own = replace(
                request, cancelled=watch.cancelled, timeout_s=settings.timeout_s
            )
            return await apart(partial(self.model.generate, own))

        doing = progress.doing = self.dialogue.begin(progress.turn, watch)
        with progress.stage("act"):
            await self.dialogue.answer(doing, generate)
        acted = doing.acted()
        if acted is None:
            _check_asks(progress.turn)
            return None
        progress.problems += acted.problems
        if acted.problem:
            error = TurnError(acted.problem)
            await pipeline.plugins.turn_failed(progress.turn, error)
        return acted

    async def _acted(
        self, pipeline: Pipeline, progress: _Progress, acted: Acted, watch: Watch
    ) -> Record:
        """Return what actions said, or the apology, as the turn's record."""
        if acted.problem:
            return self._ended(progress, "failed", acted.problem)
        said = [*acted.said, *acted.asks] or self._for_silence(progress, acted)
        record = self._record(progress, "acted", together(said), acted.why)
        to_word = [one.reply for one in said if one.reword and one.reply]
        if not to_word:
            return record
        text = joined(to_word).text
        if not text:
            return record
        wording = await self._worded(pipeline, progress, text, watch.cancelled)
        progress.problems += wording.problems
        return replace(
            record,
            reply=together(with_wording(said, wording.text)),
            candidates=wording.candidates,
            chosen=wording.chosen,
            orders=wording.orders,
            why=f"{acted.why}; worded: {wording.why}",
            problems=tuple(progress.problems),
        )

    def _for_silence(self, progress: _Progress, acted: Acted) -> list[Said]:
        """Whoever asked for something hears that it was done; nobody else does."""
        if progress.turn.message.kind == "intent":
            return []
        replies = self._replies(progress)
        events = [event for run in acted.runs for event in run.events]
        is_paused = any(event.get("event") == "pause" for event in events)
        text = replies.handed_over if is_paused else replies.done
        return [Said(reply=Reply(text=text))]

    async def reworded(
        self, turn: Turn, text: str, cancelled: threading.Event
    ) -> Wording:
        """
        Say `text` in the model's words: k candidates, of which those that lose or add
        a number or a name are dropped, ranked as usual. Where none is left, `text`
        itself is the wording. Raises TurnError when nothing can be generated.
        """
        progress = _Progress(turn=turn)
        pipeline = self.pipeline(turn.message.address)
        return await self._worded(pipeline, progress, text, cancelled)

    async def _worded(
        self,
        pipeline: Pipeline,
        progress: _Progress,
        text: str,
        cancelled: threading.Event,
    ) -> Wording:
        """Have the text worded; what goes wrong with that costs only the wording."""
        said = Passage(id="said", text=text, source="action", scores={"relevance": 1.0})
        messages = rewording.messages(text, self.config.persona, progress.turn.question)
        prompt = await self.inference.run(partial(self.model.render, messages))
        turn = replace(progress.turn, passages=(said,), prompt=prompt)
        request = replace(self._asked(pipeline, progress, cancelled), turn=turn)
        try:
            with progress.stage("generate"):
                written = await self._generate(progress, request)
        except TurnCancelled:
            raise
        except TurnError as error:
            return Wording(text=text, why=f"as the action said it, for {error}")
        kept, lost = keeping(text, written)
        tools = TurnTools(self.embedder, self.model, _prompt_of, self.classifiers)
        with progress.stage("rank"):
            ranked = await pipeline.ranking.rank(turn, kept, tools)
        candidates = (*ranked.candidates, *lost)
        if ranked.chosen is None:
            why = "as the action said it, because no candidate kept what it has to keep"
            return Wording(text=text, why=why, candidates=candidates)
        return Wording(
            text=ranked.candidates[ranked.chosen].text,
            why=ranked.why,
            candidates=candidates,
            chosen=ranked.chosen,
            orders=ranked.orders,
            problems=ranked.problems,
        )

    # Knowledge

    async def _from_knowledge(
        self, pipeline: Pipeline, progress: _Progress, watch: Watch
    ) -> Record:
        with progress.stage("retrieve"):
            await self._retrieve(pipeline, progress)
        irrelevant = self._why_irrelevant(progress.turn.passages)
        if irrelevant is not None:
            return self._declined(progress, irrelevant)
        with progress.stage("generate"):
            progress.turn = await self._render(pipeline, progress)
            request = self._asked(pipeline, progress, watch.cancelled)
        if self.config.generation.mode == "blocks":
            ranked = await self._in_blocks(pipeline, progress, request, watch.show)
        else:
            ranked = await self._at_once(pipeline, progress, request)
        progress.problems += ranked.problems
        if watch.cancelled.is_set():
            raise TurnCancelled("stopped while its candidates were ranked")
        await pipeline.plugins.candidates_ranked(progress.turn, ranked.candidates)
        return self._chosen(progress, ranked)

    async def _retrieve(self, pipeline: Pipeline, progress: _Progress) -> None:
        """Ask every retriever; a plugin's that fails is left out and named."""
        found: dict[str, Passage] = {}
        for retriever in pipeline.retrievers:
            try:
                passages = await self._retrieved(retriever, progress.turn)
            except KnowledgeError:
                raise
            except Exception as error:  # noqa: BLE001 (a stranger's code)
                problem = PluginError(retriever.name, f"raised {_told(error)}")
                progress.problems.append(str(problem))
                continue
            found |= {one.id: one for one in passages if one.id not in found}
        progress.turn = replace(progress.turn, passages=tuple(found.values()))

    async def _retrieved(self, retriever: Retriever, turn: Turn) -> Sequence[Passage]:
        limit = self.config.knowledge.passages
        async with asyncio.timeout(self.config.ranking.plugin_timeout_s):
            passages = await retriever.retrieve(turn, limit)
        if not all(isinstance(one, Passage) for one in passages):
            raise PluginError(retriever.name, "retrieve must return Passages")
        return passages[:limit]

    async def _render(self, pipeline: Pipeline, progress: _Progress) -> Turn:
        asked = self._questions()
        parts = [
            await asked.ask(part.name, partial(part.render, progress.turn), _text)
            for part in pipeline.prompt_parts
        ]
        progress.problems += asked.problems
        said = [part for part in parts if part]
        language = self.config.language_for(progress.turn.message.address)
        if language is not None:
            said.append(in_language(language))
        progress.parts = said
        return await self.inference.run(
            partial(pipeline.prompter.render, progress.turn, said)
        )

    def _tools(self, pipeline: Pipeline, progress: _Progress) -> TurnTools:
        def render(turn: Turn) -> str:
            return pipeline.prompter.render(turn, progress.parts).prompt

        return TurnTools(self.embedder, self.model, render, self.classifiers)

    async def _at_once(
        self, pipeline: Pipeline, progress: _Progress, request: GenerationRequest
    ) -> Ranked:
        """Write whole replies and rank them."""
        tools = self._tools(pipeline, progress)
        with progress.stage("generate"):
            siblings, written = await self._both(
                self._siblings(pipeline, progress, request),
                pipeline.ranking.write(progress.turn, tools),
            )
        progress.problems += written.problems
        with progress.stage("rank"):
            everything = [*written.candidates, *siblings]
            return await pipeline.ranking.rank(progress.turn, everything, tools)

    async def _both(
        self,
        siblings: Awaitable[list[Candidate]],
        written: Coroutine[Any, Any, Written],
    ) -> tuple[list[Candidate], Written]:
        """Let the writers work while the model writes; without it, they stop too."""
        writing = asyncio.create_task(written)
        try:
            return await siblings, await writing
        finally:
            writing.cancel()

    async def _siblings(
        self, pipeline: Pipeline, progress: _Progress, request: GenerationRequest
    ) -> list[Candidate]:
        """Return the set that the model writes, a part of it with each variant."""
        if not pipeline.prompt_variants:
            return await self._generate(progress, request)
        asked = self._questions()
        groups = [
            self._with_variant(pipeline, progress, asked, request, place)
            for place in range(min(request.candidates, len(pipeline.prompt_variants)))
        ]
        found = await asyncio.gather(*groups, return_exceptions=True)
        progress.problems += asked.problems
        failed = [one for one in found if isinstance(one, BaseException)]
        # A part of the set can still answer; a turn that was stopped must not.
        fatal = [one for one in failed if not _is_of_one_set(one)]
        if fatal or len(failed) == len(found):
            raise [*fatal, *failed][0]
        progress.problems += map(str, failed)
        return [
            one
            for group in found
            if not isinstance(group, BaseException)
            for one in group
        ]

    async def _with_variant(
        self,
        pipeline: Pipeline,
        progress: _Progress,
        asked: Questions,
        request: GenerationRequest,
        place: int,
    ) -> list[Candidate]:
        """Have the siblings of one variant written, every n-th, from its own on."""
        variants = pipeline.prompt_variants
        variant = variants[place]
        ask = partial(variant.instruction, request.turn)
        instruction = await asked.ask(variant.name, ask, _text)
        turn = await self.inference.run(
            partial(
                pipeline.prompter.render,
                request.turn,
                progress.parts,
                instruction or "",
            )
        )
        own = replace(
            request,
            # With the same seed, siblings of two variants would draw the same numbers.
            turn=replace(turn, seed=turn.seed + place),
            candidates=len(range(place, request.candidates, len(variants))),
            max_new_tokens=request.max_new_tokens * variant.replies,
            on_ms=lambda stage, ms: progress.at_least(f"generate_{stage}", ms),
        )
        candidates: list[Candidate] = []
        for written in await self._generate(progress, own):
            ask_read = partial(variant.read, request.turn, written)
            read = await asked.ask(variant.name, ask_read, checked_candidates)
            candidates += [
                replace(clean(one), variant=variant.name) for one in read or ()
            ]
        return candidates

    async def _in_blocks(
        self,
        pipeline: Pipeline,
        progress: _Progress,
        request: GenerationRequest,
        show: Callable[[str], None],
    ) -> Ranked:
        """Write and rank one block after the other."""
        tools = self._tools(pipeline, progress)
        # Shown as soon as it is settled: nothing is gained by asking them meanwhile.
        first_written = await pipeline.ranking.write(progress.turn, tools)
        progress.problems += first_written.problems

        async def write(block: GenerationRequest) -> list[Candidate]:
            with progress.stage("generate"):
                return await self._generate(progress, block)

        async def rank(written: Sequence[Candidate], *, first: bool) -> Ranked:
            # What a writer has is whole, and goes on from nothing.
            whole = first_written.candidates if first else ()
            with progress.stage("rank"):
                return await pipeline.ranking.rank(
                    progress.turn, [*whole, *written], tools
                )

        def shown(text: str) -> None:
            progress.reached("first_block")
            show(text)

        ranked = await in_blocks(request, write=write, rank=rank, show=shown)
        if ranked.chosen is not None:
            progress.reached("first_block")  # it may be the whole reply
        return ranked

    def _asked(
        self, pipeline: Pipeline, progress: _Progress, cancelled: threading.Event
    ) -> GenerationRequest:
        settings = self.config.generation
        return GenerationRequest(
            turn=progress.turn,
            candidates=settings.candidates,
            max_new_tokens=settings.max_new_tokens,
            sampler=pipeline.sampler,
            logits_processors=pipeline.logits_processors,
            stop=settings.stop,
            timeout_s=settings.timeout_s,
            cancelled=cancelled,
            on_ms=lambda stage, ms: progress.add(f"generate_{stage}", ms),
            background=self.background,
        )

    async def _generate(
        self, progress: _Progress, request: GenerationRequest
    ) -> list[Candidate]:
        """
        Return the model's candidates; none when a plugin of the generation failed,
        because the writers' candidates may still answer.
        """
        try:
            written = await apart(partial(self.model.generate, request))
            return [clean(one) for one in written]
        except PluginError as error:
            progress.problems.append(str(error))
            return []

    def _why_irrelevant(self, passages: Sequence[Passage]) -> str | None:
        """
        Say why the passages do not answer, None when they may. The best passage
        decides: a poor one further down is no more likely to hold the answer. A
        plugin's passages may come without relevance; they count as relevant.
        """
        best = passages[0].scores.get("relevance", 1.0) if passages else 0.0
        minimum = self.config.knowledge.minimum_relevance
        if best >= minimum:
            return None
        return f"nothing relevant was retrieved (best {best:.2f}, minimum {minimum:g})"

    def _chosen(self, progress: _Progress, ranked: Ranked) -> Record:
        if ranked.chosen is None:
            record = self._declined(progress, ranked.why)
        else:
            reply = cited(ranked.candidates[ranked.chosen], progress.turn.passages)
            record = self._record(progress, "answered", reply, ranked.why)
        return replace(
            record,
            candidates=ranked.candidates,
            chosen=ranked.chosen,
            orders=ranked.orders,
        )

    def _handed_over(self, progress: _Progress, reason: str) -> Record:
        # After the colon, because a reason may quote the message and logs must not.
        why = f"a plugin asked for a person: {reason}"
        reply = Reply(text=self._replies(progress).handed_over)
        return self._record(progress, "handed_over", reply, why)

    def _direct(self, progress: _Progress, reply: Reply) -> Record:
        return self._record(progress, "direct", reply, "a plugin answered directly")

    def _declined(self, progress: _Progress, why: str) -> Record:
        reply = Reply(text=self._replies(progress).fallback)
        return self._record(progress, "declined", reply, why)

    def _ended(self, progress: _Progress, outcome: Outcome, why: str) -> Record:
        if outcome == "cancelled":
            reply = Reply(text=self._replies(progress).cancelled)
        else:
            reply = self._apology(progress)
        return self._record(progress, outcome, reply, why)

    def _apology(self, progress: _Progress) -> Reply:
        """Say what actions have said, because it is done, and then that it failed."""
        apology = Reply(text=self._replies(progress).apology)
        said = progress.doing.said if progress.doing else ()
        try:
            return together([*said, Said(reply=apology)])
        except TypeError:  # a plugin's reply, whose types nobody has checked
            return apology

    def _replies(self, progress: _Progress) -> RepliesConfig:
        return self.config.replies_for(progress.turn.message.address)

    def _record(
        self, progress: _Progress, outcome: Outcome, reply: Reply, why: str
    ) -> Record:
        acted = progress.doing and progress.doing.acted()
        return Record(
            turn=progress.turn,
            outcome=outcome,
            reply=reply,
            why=why,
            config=self.config.fingerprint,
            problems=tuple(progress.problems),
            arm=self.arm,
            actions=acted.runs if acted else (),
            slots=acted.slots if acted else {},
        )


def _check_asks(turn: Turn) -> None:
    """Raise TurnError where there is nothing that knowledge could answer."""
    if turn.message.kind == "command":
        raise TurnError("no action is there for it; see actions.rules")


def _prompt_of(turn: Turn) -> str:
    return turn.prompt


def _is_of_one_set(error: BaseException) -> bool:
    return isinstance(error, TurnError) and not isinstance(error, TurnCancelled)


def _text(answer: object) -> str | None:
    if answer is None or isinstance(answer, str):
        return None
    return "render must return a text or None"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

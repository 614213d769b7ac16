# mypy: disable-error-code="empty-body"
"""
What a plugin is asked or told. This file is the whole of the plugin interface.

The grammar of a name says how it is called. A noun contributes objects: `def`, once at
start-up, results joined in the order of the configuration. An imperative decides. A
past event is told: `async def`, result ignored, and one plugin's failure never reaches
the next one, or the customer.

A turn, in order:

- `turn_started`
- `needs_person`: the first plugin that gives a reason hands the conversation to people
- `answer_directly`: the first plugin that returns a reply ends the turn here
- actions answer, where a command, a rule, an open form or the model calls for them
  (`actions` are those of plugins); everything else goes on
- `retrievers` find passages, `prompt_parts` word the instructions, `prompt_variants`
  those by which siblings differ
- the model writes candidates through `logits_processors` and one of `samplers`;
  `writers` add theirs
- `candidate_filters` drop, `scorers` number, `rerankers` order and one of
  `selectors` picks
- `candidates_ranked`
- commit and delivery, then `reply_sent`; or `turn_failed`, when there was no answer

pluggy registers; the core calls the contributed objects itself, in a plain loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

    from bot.config import Config
    from bot.interfaces import (
        Action,
        CandidateFilter,
        Connector,
        Embedder,
        LogitsProcessor,
        MetricsSink,
        PromptPart,
        PromptVariant,
        Reranker,
        Retriever,
        Sampler,
        Scorer,
        Selector,
        Writer,
    )
    from bot.model import Address, Candidate, Event, Record, Reply, Turn

hookspec = pluggy.HookspecMarker("chorus")
hookimpl = pluggy.HookimplMarker("chorus")


class Nouns:
    """Contributions: asked for once, when the bot starts. Return a list."""

    @hookspec
    def retrievers(self) -> Sequence[Retriever]:
        """Sources of passages beside the document index; their results are merged."""

    @hookspec
    def prompt_parts(self) -> Sequence[PromptPart]:
        """Paragraphs for the instructions, in the order of the configuration."""

    @hookspec
    def prompt_variants(self) -> Sequence[PromptVariant]:
        """Wordings of the task, taken in turn, by which siblings differ."""

    @hookspec
    def logits_processors(self) -> Sequence[LogitsProcessor]:
        """Changes to the logits between model and sampler, applied in order."""

    @hookspec
    def samplers(self) -> Sequence[Sampler]:
        """Ways to draw tokens; `generation.sampler` names the one in use."""

    @hookspec
    def writers(self) -> Sequence[Writer]:
        """Sources of candidates beside the model, such as a quotation."""

    @hookspec
    def candidate_filters(self) -> Sequence[CandidateFilter]:
        """What drops candidates; a candidate dropped once is not shown to the next."""

    @hookspec
    def scorers(self) -> Sequence[Scorer]:
        """What numbers candidates; `ranking.weights` weighs them by name."""

    @hookspec
    def rerankers(self) -> Sequence[Reranker]:
        """What orders candidates, after they were ordered by total."""

    @hookspec
    def selectors(self) -> Sequence[Selector]:
        """Ways to pick the reply; `ranking.selector` names the one in use."""

    @hookspec
    def actions(self) -> Sequence[Action]:
        """What the bot can do; `/name arguments` from the customer runs one."""

    @hookspec
    def connectors(self) -> Sequence[Connector]:
        """Services the bot talks on; enabled in the `connectors` list."""

    @hookspec
    def embedders(self) -> Sequence[Embedder]:
        """Text embedders; `knowledge.embedder` names one in place of the built-in."""

    @hookspec
    def metrics_sinks(self) -> Sequence[MetricsSink]:
        """Receivers of every finished turn's record, for counting and timing."""

    @hookspec
    def commands(self) -> Sequence[click.Command]:
        """Additional commands of the `chorus` command line."""


class Imperatives:
    """Decisions."""

    @hookspec
    def check_config(self, config: Config) -> Sequence[str]:
        """
        Problems with the whole configuration, one sentence each, [] when there are
        none. Called before anything is built; all plugins' problems are shown at once.
        """

    @hookspec(firstresult=True)
    async def needs_person(self, turn: Turn) -> str | None:
        """
        Why a person should answer instead of the bot, in a few words, or None. The
        first reason counts: people have the conversation then, until it is given back.
        """

    @hookspec(firstresult=True)
    async def answer_directly(self, turn: Turn) -> Reply | None:
        """
        A reply that needs no knowledge and no model, or None. Plugins are asked in
        the order of the configuration and the first reply is sent.
        """


class PastEvents:
    """Told after the fact. They cannot change it."""

    @hookspec
    async def bot_started(self) -> None:
        """Everything is built and connectors are about to run."""

    @hookspec
    async def bot_stopped(self) -> None:
        """Connectors have stopped and nothing more will be answered."""

    @hookspec
    async def turn_started(self, turn: Turn) -> None:
        """A message was taken from its lane; the turn has its history and slots."""

    @hookspec
    async def candidates_ranked(
        self, turn: Turn, candidates: Sequence[Candidate]
    ) -> None:
        """Candidates were ranked, best first, the dropped ones last."""

    @hookspec
    async def reply_sent(self, turn: Turn, reply: Reply) -> None:
        """The reply was delivered; told in the process that runs the connector."""

    @hookspec
    async def turn_failed(self, turn: Turn, error: Exception) -> None:
        """A turn failed; after `workers.attempts` of them the apology is sent."""

    @hookspec
    async def feedback_received(self, event: Event, record: Record | None) -> None:
        """
        A customer judged a reply: `data` of the event has the `turn`, the `rating` (1,
        -1, or 0 for taken back) and the chosen `candidate`'s place, None when it is not
        known. `record` is the turn's, None once that expired.
        """

    @hookspec
    async def conversation_handed_over(self, turn: Turn, reason: str) -> None:
        """
        People have the conversation from this turn on: a plugin or the customer asked
        for it. `reason` says who, and after a colon why. Not told of `chorus handoff`.
        """

    @hookspec
    async def conversation_resumed(self, address: Address) -> None:
        """
        The conversation is the bot's again: the customer said so, or people were
        silent for `conversation.handoff_hours`. Not told of `chorus handoff`.
        """

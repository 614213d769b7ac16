"""
Contracts: what every implementation of a protocol keeps, as tests to inherit.

    class TestMmrKeepsTheContract(RerankerContract):
        @pytest.fixture
        def subject(self) -> Reranker:
            return Mmr(Mmr.Settings())

A contract knows the protocol and nothing of the implementation. It needs pytest and
pytest-asyncio, so `bot.testing` does not import it.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest

from bot.errors import DeliveryError, TurnCancelled
from bot.interfaces import (
    Accepted,
    CandidateFilter,
    ChatMessage,
    Connector,
    Draw,
    Embedder,
    Finds,
    GenerationRequest,
    LanguageModel,
    LogitsProcessor,
    PromptVariant,
    Reranker,
    Retriever,
    Sampler,
    SamplerStep,
    Scorer,
    Selector,
    ShowsFrames,
    Truncation,
    Writer,
)
from bot.model import Candidate, Event, Reply, Turn
from bot.testing.fakes import FakeTools, a_tools
from bot.testing.makers import a_candidate, a_passage, a_turn, an_address

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PASSAGES = (
    "A refund takes five working days. Refunds go to the card that paid.",
    "Delivery is free from 40 euros on. Below that it costs 4.90 euros.",
)
_CHINESE = "退款需要五个工作日。款项将退回原支付卡。"


def _turns() -> list[Turn]:
    """Turns of every kind: with passages, without, Chinese, nothing but symbols."""
    return [
        a_turn(passages=_PASSAGES, prompt="user: How long does a refund take?"),
        a_turn(prompt="user: How long does a refund take?"),
        a_turn("退款需要多长时间？", [_CHINESE], prompt="user: 退款"),  # noqa: RUF001
        a_turn("?!", [a_passage("…")], prompt="user: ?!"),
    ]


def _candidates() -> list[Candidate]:
    """Candidates of every kind, ordered by total as the ranking would have them."""
    return [
        a_candidate("A refund takes five working days.", {"a": 0.9}, log_probs=(-0.1,)),
        a_candidate("It takes 5 days.", {"a": 0.7}, log_probs=(-0.5, -0.25)),
        a_candidate("Delivery is free.", {"a": 0.4}, log_probs=(-3.0, -math.inf)),
        a_candidate(
            "Refunds go to the card that paid.",
            {"a": 0.2},
            origin="quotation",
            finish="written",
            citations=("p1",),
        ),
        a_candidate("五个工作日。", {"a": -0.5}, log_probs=(-1.0,)),
        a_candidate("👍", {"a": -1.0}, log_probs=(-1.0,)),
    ]


class _Contract:
    """What all contracts share: the fixture that a subclass must give."""

    @pytest.fixture
    def subject(self) -> object:
        raise NotImplementedError(
            f"{type(self).__name__}: no fixture 'subject'; define one in the class "
            "that returns what is to be tested"
        )


# Generation


class SamplerContract(_Contract):
    """A sampler draws a possible token for each sibling from the given generator."""

    def test_it_draws_one_token_for_each_sibling(self, subject: Sampler) -> None:
        for siblings in (1, 5):
            logits = _logits(siblings)

            draw = _step(subject, siblings)(logits)

            _assert_draw(draw, logits)

    def test_it_never_draws_what_is_impossible(self, subject: Sampler) -> None:
        logits = _logits(4)
        logits[:, 3:] = -math.inf
        step = _step(subject, 4)

        drawn = [step(logits).tokens for _ in range(20)]

        assert all((tokens < 3).all() for tokens in drawn), (  # noqa: PLR2004
            "a token with a logit of minus infinity was drawn"
        )

    def test_the_same_seed_draws_the_same(self, subject: Sampler) -> None:
        first, second = _step(subject, 4), _step(subject, 4)

        same = [
            (first(_logits(4, seed)).tokens == second(_logits(4, seed)).tokens).all()
            for seed in range(10)
        ]

        assert all(same), "equal generators drew different tokens"

    def test_two_turns_do_not_mix(self, subject: Sampler) -> None:
        alone, beside, other = (
            _step(subject, 3),
            _step(subject, 3),
            _step(subject, 3, seed=9),
        )

        for seed in range(10):
            expected = alone(_logits(3, seed)).tokens
            other(_logits(3, seed + 100))
            found = beside(_logits(3, seed)).tokens

            assert (found == expected).all(), "another turn's draw changed this one's"

    def test_it_leaves_the_logits_as_they_were(self, subject: Sampler) -> None:
        logits = _logits(3)
        before = logits.clone()

        _step(subject, 3)(logits)

        assert logits.equal(before), "the logits were changed in place"


class LogitsProcessorContract(_Contract):
    """A logits processor maps logits to logits and keeps at least one token."""

    def test_it_returns_logits_of_the_same_shape(
        self, subject: LogitsProcessor
    ) -> None:
        for siblings in (1, 4):
            step = subject.begin(a_turn(), siblings)
            for length in range(4):
                logits = _logits(siblings, length)

                changed = step(_drawn(siblings, length), logits)

                assert changed.shape == logits.shape, "the shape changed"
                assert changed.dtype == logits.dtype, "the type changed"

    def test_some_token_stays_possible_in_every_row(
        self, subject: LogitsProcessor
    ) -> None:
        step = subject.begin(a_turn(), 4)

        changed = [step(_drawn(4, n), _logits(4, n)) for n in range(4)]

        assert not any(c.isnan().any() for c in changed), "there is a NaN"
        assert all(c.isfinite().any(dim=-1).all() for c in changed), (
            "a row has no possible token left"
        )

    def test_it_keeps_the_argmax_if_it_says_so(self, subject: LogitsProcessor) -> None:
        if subject.changes_argmax:
            pytest.skip("changes_argmax is True")
        step = subject.begin(a_turn(), 4)

        for length in range(4):
            logits = _logits(4, length)

            changed = step(_drawn(4, length), logits)

            assert changed.argmax(dim=-1).equal(logits.argmax(dim=-1)), (
                "changes_argmax is False, yet the likeliest token changed"
            )

    def test_two_turns_do_not_mix(self, subject: LogitsProcessor) -> None:
        alone, beside, other = (subject.begin(a_turn(), 2) for _ in range(3))

        for length in range(4):
            expected = alone(_drawn(2, length), _logits(2, length))
            other(_drawn(2, length, seed=7), _logits(2, length + 100))
            found = beside(_drawn(2, length), _logits(2, length))

            assert found.equal(expected), "another turn changed this one's logits"

    def test_it_leaves_the_given_logits_as_they_were(
        self, subject: LogitsProcessor
    ) -> None:
        logits = _logits(3)
        before = logits.clone()

        subject.begin(a_turn(), 3)(_drawn(3, 2), logits)

        # The engine reads the log-probabilities of candidates from them.
        assert logits.equal(before), "the logits were changed in place"


class LanguageModelContract(_Contract):
    """A language model writes k candidates, repeatably, and can be stopped."""

    def test_it_counts_tokens(self, subject: LanguageModel) -> None:
        short, long = (subject.count_tokens("word " * n) for n in (3, 30))

        assert subject.count_tokens("") == 0, "the empty text has tokens"
        assert 0 < short < long, "a longer text does not have more tokens"
        assert subject.context_tokens > 0, "there is no room for a prompt"

    def test_it_renders_every_message_in_order(self, subject: LanguageModel) -> None:
        prompt = subject.render(
            [
                ChatMessage(role="system", content="Be apt."),
                ChatMessage(role="user", content="What is blue?"),
                ChatMessage(role="assistant", content="The sky."),
                ChatMessage(role="user", content="What is red?"),
            ]
        )

        places = [
            prompt.find(text)
            for text in ("Be apt.", "What is blue?", "The sky.", "What is red?")
        ]
        assert -1 not in places, "a message is missing from the prompt"
        assert places == sorted(places), "the messages are out of order"

    def test_it_writes_as_many_candidates_as_asked(
        self, subject: LanguageModel
    ) -> None:
        for siblings in (1, 3):
            written = subject.generate(_a_request(subject, siblings))

            assert len(written) == siblings, "the number of candidates is wrong"
            for candidate in written:
                _assert_written(candidate, longest=8)

    def test_the_same_request_gives_the_same_candidates(
        self, subject: LanguageModel
    ) -> None:
        first = subject.generate(_a_request(subject, 2))
        second = subject.generate(_a_request(subject, 2))

        assert [c.text for c in first] == [c.text for c in second], "the texts differ"

    def test_a_cancelled_request_ends(self, subject: LanguageModel) -> None:
        cancelled = threading.Event()
        cancelled.set()

        with pytest.raises(TurnCancelled):
            subject.generate(_a_request(subject, 2, cancelled=cancelled))

    def test_what_is_late_is_cut(self, subject: LanguageModel) -> None:
        written = subject.generate(_a_request(subject, 2, timeout_s=0))

        assert [c.finish for c in written] == ["length", "length"], (
            "rows that were not finished by the deadline do not say 'length'"
        )

    def test_a_siblings_text_is_told_as_it_grows(self, subject: LanguageModel) -> None:
        told = defaultdict[int, list[str]](list)
        request = _a_request(subject, 3)

        written = subject.generate(
            replace(request, on_text=lambda sibling, text: told[sibling].append(text))
        )

        for sibling, candidate in enumerate(written):
            texts = ["", *told[sibling]]
            grows = [
                after.startswith(before) and len(after) > len(before)
                for before, after in pairwise(texts)
            ]
            assert all(grows), "a text that was told did not grow, or changed"
            assert texts[-1].strip() == candidate.text.strip(), (
                "the last text that was told is not the candidate's"
            )

    def test_a_sibling_ends_where_it_is_asked_to(self, subject: LanguageModel) -> None:
        request = replace(_a_request(subject, 3), until=_says_something)

        written = subject.generate(request)

        assert any(map(_says_something, (c.text for c in written))), "nobody wrote"
        for candidate in written:
            ended = candidate.finish == "block"
            assert ended == _says_something(candidate.text), (
                "a sibling went past where `until` said yes, or does not say 'block'"
            )

    def test_siblings_go_on_from_what_is_begun(self, subject: LanguageModel) -> None:
        request = _a_request(subject, 2)
        blocks = subject.generate(replace(request, until=_says_something))
        begun = next(one for one in blocks if one.finish == "block")

        written = subject.generate(replace(request, begun=begun))

        length = len(begun.tokens)
        for candidate in written:
            assert candidate.text.startswith(begun.text), "its text is another"
            assert list(candidate.tokens[:length]) == list(begun.tokens), (
                "its tokens are others than what it was to go on from"
            )
            assert np.allclose(
                candidate.log_probs[:length], begun.log_probs, atol=0.02
            ), "the log-probabilities of what was begun are lost"
            _assert_written(candidate, longest=length + 8)

    def test_it_reads_text_as_well(self, subject: LanguageModel) -> None:
        prompts = ["The sky is", "Grass is"]
        continuations = [" blue and wide", " green"]

        together = subject.log_probs(prompts, continuations)
        alone = [
            subject.log_probs([prompt], [continuation])[0]
            for prompt, continuation in zip(prompts, continuations, strict=True)
        ]

        for found, expected in zip(together, alone, strict=True):
            assert len(found) > 0, "a text has no log-probabilities"
            assert np.isfinite(found).all(), "a log-probability is not finite"
            assert (found <= 0).all(), "a log-probability is above 0"
            assert np.allclose(found, expected, atol=0.02), "company changed a text's"


# Ranking


class WriterContract(_Contract):
    """A writer contributes candidates of its own that cite passages of the turn."""

    def test_its_candidates_can_be_sent_and_traced(self, subject: Writer) -> None:
        for turn in _turns():
            written = subject.write(turn, a_tools())

            known = {passage.id for passage in turn.passages}
            for candidate in written:
                assert candidate.text.strip(), "a candidate has no text"
                assert candidate.origin != "model", "it passes as the model's"
                assert set(candidate.citations) <= known, "it cites an unknown passage"

    def test_it_writes_the_same_twice(self, subject: Writer) -> None:
        for turn in _turns():
            first = subject.write(turn, a_tools())
            second = subject.write(turn, a_tools())

            assert list(first) == list(second), "two calls wrote different candidates"


class PromptVariantContract(_Contract):
    """A prompt variant words the task, and finds replies in whatever was written."""

    def test_it_says_the_same_twice(self, subject: PromptVariant) -> None:
        for turn in _turns():
            instruction = subject.instruction(turn)

            assert instruction == subject.instruction(turn), "two calls said different"
            assert instruction == instruction.strip(), "space around the instruction"

    def test_it_holds_at_least_one_reply(self, subject: PromptVariant) -> None:
        assert subject.replies >= 1, "a text that holds no reply"

    def test_it_reads_whatever_was_written(self, subject: PromptVariant) -> None:
        for written in _awkward_candidates():
            found = subject.read(a_turn(), written)

            assert all(isinstance(one, Candidate) for one in found), "not candidates"
            assert all(one.text.strip() for one in found if len(found) > 1), (
                "one of several has no text"
            )


class CandidateFilterContract(_Contract):
    """A filter gives one verdict for each candidate and a reason where it drops."""

    def test_it_judges_every_candidate(self, subject: CandidateFilter) -> None:
        for turn in _turns():
            for candidates in ([], _candidates()[:1], _candidates()):
                verdicts = subject.keep(turn, candidates, a_tools())

                assert len(verdicts) == len(candidates), "the number of verdicts"

    def test_it_says_why_it_drops(self, subject: CandidateFilter) -> None:
        for turn in _turns():
            for verdict in subject.keep(turn, _awkward_candidates(), a_tools()):
                assert verdict.kept or verdict.why.strip(), "dropped without a reason"
                assert "\n" not in verdict.why, "a reason is longer than a line"

    def test_it_judges_the_same_twice(self, subject: CandidateFilter) -> None:
        first = subject.keep(a_turn(), _awkward_candidates(), a_tools())
        second = subject.keep(a_turn(), _awkward_candidates(), a_tools())

        assert list(first) == list(second), "two calls gave different verdicts"


class ScorerContract(_Contract):
    """
    A scorer gives each candidate one finite number. Unless `order_matters`, a
    candidate's number does not depend on where it stands among its siblings.
    """

    order_matters: ClassVar[bool] = False

    def test_it_gives_each_candidate_a_finite_number(self, subject: Scorer) -> None:
        for turn in _turns():
            for candidates in (
                [],
                _candidates()[:1],
                _candidates(),
                _awkward_candidates(),
            ):
                scores = subject.score(turn, candidates, a_tools())

                assert len(scores) == len(candidates), "the number of scores is wrong"
                assert all(map(math.isfinite, scores)), "a score is not finite"

    def test_a_number_goes_with_its_candidate(self, subject: Scorer) -> None:
        if self.order_matters:
            pytest.skip("order_matters is True")
        for turn in _turns():
            forwards = subject.score(turn, _candidates(), a_tools())
            backwards = subject.score(turn, _candidates()[::-1], a_tools())

            assert np.allclose(forwards, backwards[::-1], atol=1e-5), (
                "the order of the candidates changed their scores"
            )

    def test_it_scores_the_same_twice(self, subject: Scorer) -> None:
        for turn in _turns():
            first = subject.score(turn, _candidates(), a_tools())
            second = subject.score(turn, _candidates(), a_tools())

            assert list(first) == list(second), "two calls gave different scores"

    def test_it_asks_its_tools_at_most_once(self, subject: Scorer) -> None:
        tools = FakeTools()

        subject.score(_turns()[0], _candidates(), tools)

        assert len(tools.embedded) <= 1, "embed was called for one text at a time"
        assert len(tools.scored) <= 1, "log_probs was called for one text at a time"


class RerankerContract(_Contract):
    """A reranker returns the same objects, each once, in an order of its own."""

    def test_it_returns_each_candidate_once(self, subject: Reranker) -> None:
        for turn in _turns():
            for candidates in ([], _candidates()[:1], _candidates(), _unscored()):
                ranked = subject.rerank(turn, candidates, a_tools())

                assert sorted(map(id, ranked)) == sorted(map(id, candidates)), (
                    "what came back is not the candidates that went in, each once"
                )

    def test_it_leaves_its_input_as_it_was(self, subject: Reranker) -> None:
        candidates = _candidates()
        before = list(candidates)

        subject.rerank(_turns()[0], candidates, a_tools())

        assert list(map(id, candidates)) == list(map(id, before)), (
            "the list that was given was changed"
        )

    def test_it_orders_the_same_twice(self, subject: Reranker) -> None:
        for turn in _turns():
            first = subject.rerank(turn, _candidates(), a_tools())
            second = subject.rerank(turn, _candidates(), a_tools())

            assert list(first) == list(second), "two calls gave different orders"


class SelectorContract(_Contract):
    """A selector picks a position that exists, says why, and repeats itself."""

    def test_it_picks_one_of_them_and_says_why(self, subject: Selector) -> None:
        for candidates in (_candidates()[:1], _candidates(), _unscored()):
            for seed in (0, 1, 2**63, -1):
                chosen = subject.select(a_turn(seed=seed), candidates)

                assert 0 <= chosen.index < len(candidates), "no such candidate"
                assert chosen.why.strip(), "it does not say why"

    def test_the_same_turn_is_decided_the_same(self, subject: Selector) -> None:
        for seed in range(20):
            first = subject.select(a_turn(seed=seed), _candidates())
            second = subject.select(a_turn(seed=seed), _candidates())

            assert first == second, "two calls with one seed chose differently"


# Knowledge


class EmbedderContract(_Contract):
    """An embedder returns float32 rows of length one, whatever the company."""

    texts: ClassVar[Sequence[str]] = (
        "How long does a refund take?",
        "A refund takes five days.",
        "退款需要五天。",
        "word " * 2000,
    )

    def test_rows_have_length_one(self, subject: Embedder) -> None:
        vectors = subject.embed(self.texts)

        assert vectors.shape == (len(self.texts), subject.dimension), "the shape"
        assert vectors.dtype == np.float32, "the rows are not float32"
        lengths = np.linalg.norm(vectors, axis=1)
        assert np.allclose(lengths, 1, atol=1e-4), "a row is not of length one"

    def test_an_empty_text_is_a_zero_row(self, subject: Embedder) -> None:
        vectors = subject.embed(["", self.texts[0]])

        assert not vectors[0].any(), "the empty text has a direction"

    def test_no_texts_give_no_rows(self, subject: Embedder) -> None:
        assert subject.embed([]).shape == (0, subject.dimension), "the shape of none"

    def test_a_row_does_not_depend_on_its_company(self, subject: Embedder) -> None:
        together = subject.embed(self.texts)
        alone = np.concatenate([subject.embed([text]) for text in self.texts])

        assert np.allclose(together, alone, atol=1e-3), "company changed a row"


class RetrieverContract(_Contract):
    """A retriever returns different passages, best first, at most the limit."""

    @pytest.mark.asyncio
    async def test_it_returns_at_most_the_limit(self, subject: Retriever) -> None:
        for turn in _turns():
            for limit in (1, 3, 50):
                found = await subject.retrieve(turn, limit)

                assert len(found) <= limit, "more passages than were asked for"

    @pytest.mark.asyncio
    async def test_passages_come_once_and_best_first(self, subject: Retriever) -> None:
        for turn in _turns():
            found = await subject.retrieve(turn, 10)

            ids = [passage.id for passage in found]
            assert len(set(ids)) == len(ids), "a passage came twice"
            scores = [passage.score for passage in found]
            assert scores == sorted(scores, reverse=True), "not best first"
            assert all(map(math.isfinite, scores)), "a score is not finite"

    @pytest.mark.asyncio
    async def test_it_finds_the_same_twice(self, subject: Retriever) -> None:
        for turn in _turns():
            first = await subject.retrieve(turn, 5)
            second = await subject.retrieve(turn, 5)

            assert [p.id for p in first] == [p.id for p in second], "different passages"


# Connectors


class ConnectorContract(_Contract):
    """
    A connector hands in each message with a stable id, acknowledges nothing that was
    not accepted, and sends a reply once. The subclass plays the service:

    - `speak` makes the service deliver a message, twice the same for the same `id`;
    - `acknowledged` says how many messages the service holds for acknowledged, or
      None when it has no such notion;
    - `shown` lists the texts that the customer sees;
    - `break_service` makes the next send fail;
    - `finish` ends the service, so that `run` returns.
    """

    async def speak(self, subject: Connector, text: str, id: str) -> None:  # noqa: A002
        raise NotImplementedError

    def acknowledged(self, subject: Connector) -> int | None:
        raise NotImplementedError

    def shown(self, subject: Connector) -> list[str]:
        raise NotImplementedError

    def break_service(self, subject: Connector) -> None:
        raise NotImplementedError

    async def finish(self, subject: Connector) -> None:
        raise NotImplementedError

    @pytest.mark.asyncio
    async def test_a_message_arrives_as_an_event(self, subject: Connector) -> None:
        service = _Acceptor()

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(subject.run(service.accept))
            tasks.create_task(self.speak(subject, "hello", id="1"))
            event = await service.events.get()
            await self.finish(subject)

        assert event.kind == "message", "a customer's message is not a message"
        assert event.text == "hello", "the text changed on its way"
        assert event.address.platform == subject.name, "the address is of another"

    @pytest.mark.asyncio
    async def test_the_same_message_has_the_same_id(self, subject: Connector) -> None:
        service = _Acceptor()

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(subject.run(service.accept))
            for id_ in ("1", "1", "2"):
                tasks.create_task(self.speak(subject, "hello", id=id_))
            ids = [(await service.events.get()).id for _ in range(3)]
            await self.finish(subject)

        assert len(set(ids)) == 2, (  # noqa: PLR2004
            "a message delivered twice has two ids, or two messages have one"
        )

    @pytest.mark.asyncio
    async def test_nothing_is_acknowledged_before_it_is_accepted(
        self, subject: Connector
    ) -> None:
        service = _Acceptor(open_at_once=False)

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(subject.run(service.accept))
            tasks.create_task(self.speak(subject, "hello", id="1"))
            await service.events.get()
            early = self.acknowledged(subject)
            service.gate.set()
            await self.finish(subject)

        assert early in (0, None), "a message was acknowledged before it was accepted"

    @pytest.mark.asyncio
    async def test_a_reply_is_sent_once_for_its_key(self, subject: Connector) -> None:
        address = an_address(platform=subject.name)

        first = await subject.send(address, Reply(text="Five days."), "turn-1")
        second = await subject.send(address, Reply(text="Five days."), "turn-1")

        assert first.ids == second.ids, "the second call sent another message"
        assert len(self.shown(subject)) == 1, "the customer sees it more than once"

    @pytest.mark.asyncio
    async def test_what_it_cannot_show_takes_nothing_from_the_text(
        self, subject: Connector
    ) -> None:
        reply = Reply(
            text="Five days.",
            images=["javascript:alert(1)", "https://example.org/" + "a" * 5000],
            custom=[{"of": {"another": ["platform", None]}}, {"blocks": 5, "text": 5}],
        )

        await subject.send(an_address(platform=subject.name), reply, "turn-1")

        (shown,) = self.shown(subject)
        assert "Five days." in shown, "a picture or custom JSON has cost the text"

    @pytest.mark.asyncio
    async def test_a_reply_may_be_a_picture_or_custom_json_alone(
        self, subject: Connector
    ) -> None:
        address = an_address(platform=subject.name)
        picture = Reply(text="", images=["https://example.org/five.png"])
        custom = Reply(text="", custom=[{"of": "another platform"}])

        first = await subject.send(address, picture, "turn-1")
        again = await subject.send(address, picture, "turn-1")
        await subject.send(address, custom, "turn-2")

        assert first.ids == again.ids, "the second call sent another message"

    @pytest.mark.asyncio
    async def test_a_reply_that_fails_says_so(self, subject: Connector) -> None:
        self.break_service(subject)

        with pytest.raises(DeliveryError):
            await subject.send(
                an_address(platform=subject.name), Reply(text="Five days."), "turn-1"
            )

    def test_it_says_which_risk_it_takes(self, subject: Connector) -> None:
        assert subject.delivery in {"at_most_once", "at_least_once"}, "no such risk"

    @pytest.mark.asyncio
    async def test_what_was_sent_is_found_if_it_can_look(
        self, subject: Connector
    ) -> None:
        address = an_address(platform=subject.name)
        if not isinstance(subject, Finds):
            return  # then `delivery` decides

        sent = await subject.send(address, Reply(text="Five days."), "turn-1")
        found = await subject.find(address, "turn-1")
        missing = await subject.find(address, "turn-2")

        assert found is not None, "what was sent is not found"
        assert found.ids == sent.ids, "something else is found"
        assert missing is None, "what was never sent is found"

    @pytest.mark.asyncio
    async def test_status_comes_and_goes(self, subject: Connector) -> None:
        address = an_address(platform=subject.name)

        await subject.status(address, "thinking")
        await subject.status(address, "")

    @pytest.mark.asyncio
    async def test_a_reply_takes_the_place_of_its_frames(
        self, subject: Connector
    ) -> None:
        address = an_address(platform=subject.name)
        if not isinstance(subject, ShowsFrames):
            return  # then replies come whole

        await subject.frame(address, "Five")
        await subject.frame(address, "Five days.")
        await subject.send(address, Reply(text="Five days. Or six."), "turn-1")

        assert self.shown(subject) == ["Five days. Or six."], (
            "the customer sees what was shown while it was written, too"
        )


class _Acceptor:
    """The program's side of `accept`: keeps events, and may let them wait."""

    def __init__(self, *, open_at_once: bool = True) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.gate = asyncio.Event()
        if open_at_once:
            self.gate.set()

    async def accept(self, event: Event) -> Accepted:
        self.events.put_nowait(event)
        await self.gate.wait()
        return "accepted"


# What the contracts put in


def _awkward_candidates() -> list[Candidate]:
    """Candidates that earlier filters may have let through."""
    return [
        a_candidate(""),
        a_candidate(" \n"),
        a_candidate("…"),
        a_candidate("A refund takes", finish="length", log_probs=(-0.1,)),
        a_candidate("no no no no no no no no no no no no"),
        a_candidate("It takes five days."),
        a_candidate("it takes FIVE days"),
        a_candidate("x" * 10_000),
        a_candidate("zero\u200bwidth \x00"),
    ]


def _unscored() -> list[Candidate]:
    """Candidates as they are where no scorer is enabled."""
    return [a_candidate("one"), a_candidate("two"), a_candidate("two")]


def _logits(rows: int, seed: int = 0) -> Tensor:
    """Return [rows, 50] float32, different in every row."""
    import torch  # noqa: PLC0415 other contracts do without

    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 50, generator=generator) * 3


def _drawn(rows: int, length: int, seed: int = 0) -> Tensor:
    """Return [rows, length] token ids."""
    import torch  # noqa: PLC0415 other contracts do without

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 50, (rows, length), generator=generator)


def _step(sampler: Sampler, siblings: int, seed: int = 1) -> SamplerStep:
    import torch  # noqa: PLC0415 other contracts do without

    return sampler.begin(a_turn(), siblings, torch.Generator().manual_seed(seed))


def _assert_draw(draw: Draw, logits: Tensor) -> None:
    import torch  # noqa: PLC0415 other contracts do without

    siblings, vocabulary = logits.shape
    assert draw.tokens.shape == (siblings,), "there is not one token for each sibling"
    assert draw.tokens.dtype == torch.int64, "the tokens are not int64"
    assert ((draw.tokens >= 0) & (draw.tokens < vocabulary)).all(), "no such token"
    if draw.parents is not None:
        assert draw.parents.shape == (siblings,), "there is not one parent for each"
        assert ((draw.parents >= 0) & (draw.parents < siblings)).all(), "no such row"
    if draw.done is not None:
        assert draw.done.shape == (siblings,), "done is not one flag for each sibling"
        assert draw.done.dtype == torch.bool, "done is not bool"


def _assert_written(candidate: Candidate, longest: int) -> None:
    assert len(candidate.tokens) <= longest, "it is longer than max_new_tokens"
    assert len(candidate.tokens) == len(candidate.log_probs), (
        "there is not one log-probability for each token"
    )
    assert all(math.isfinite(p) and p <= 0 for p in candidate.log_probs), (
        "a log-probability is above 0 or not finite"
    )
    assert candidate.finish in ("stop", "length"), "it does not say how it ended"
    assert "\ufffd" not in candidate.text, "a character was cut in two"


def _a_request(
    model: LanguageModel,
    candidates: int,
    *,
    timeout_s: float | None = None,
    cancelled: threading.Event | None = None,
) -> GenerationRequest:
    prompt = model.render([ChatMessage(role="user", content="Name a colour.")])
    return GenerationRequest(
        turn=a_turn("Name a colour.", prompt=prompt),
        candidates=candidates,
        max_new_tokens=8,
        sampler=_PlainSampler(),
        timeout_s=timeout_s,
        cancelled=cancelled,
    )


def _says_something(text: str) -> bool:
    return bool(text.strip())


class _PlainSampler:
    """Draws from the model's own distribution."""

    name = "plain"
    truncation = Truncation()

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> SamplerStep:
        import torch  # noqa: PLC0415 other contracts do without

        def step(logits: Tensor) -> Draw:
            drawn = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
            return Draw(tokens=drawn.squeeze(-1))

        return step

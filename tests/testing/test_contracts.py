"""
The contracts themselves: each catches what it is for.

Every broken implementation breaks one promise; the contract's test of that promise
must fail on it, and every test of the contract must pass on the sound one.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bot.errors import DeliveryError
from bot.interfaces import (
    Accepted,
    ChatMessage,
    Connector,
    Draw,
    GenerationRequest,
    LanguageModel,
    Tools,
    ToolSchema,
)
from bot.model import (
    KEPT,
    Address,
    Candidate,
    Event,
    Passage,
    Reply,
    Selection,
    Sent,
    Turn,
    Verdict,
)
from bot.testing import (
    HashEmbedder,
    MemoryConnector,
    ScriptedLanguageModel,
    a_candidate,
    a_passage,
    an_address,
    an_event,
)
from bot.testing import contracts as c


class Sound:
    """Keeps the contract of everything that ranks, in the dullest way."""

    name = "sound"

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        return [KEPT for _ in candidates]

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        return [float(len(candidate.text)) for candidate in candidates]

    def rerank(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Candidate]:
        return list(candidates)[::-1]

    def select(self, turn: Turn, ranked: Sequence[Candidate]) -> Selection:
        return Selection(index=len(ranked) - 1, why="the last")

    def write(self, turn: Turn, tools: Tools) -> list[Candidate]:
        return [
            a_candidate(passage.text, origin="copy", citations=(passage.id,))
            for passage in turn.passages
        ]

    async def retrieve(self, turn: Turn, limit: int) -> list[Passage]:
        found = [a_passage(id=f"p{n}", score=1.0 / n) for n in range(1, 4)]
        return found[:limit]


class Counting(Sound):
    """Answers differently each time it is asked."""

    def __init__(self) -> None:
        self._calls = 0

    def _next(self) -> int:
        self._calls += 1
        return self._calls

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        why = f"call {self._next()}"
        return [Verdict(kept=False, why=why) for _ in candidates]

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        return [float(self._next())] * len(candidates)

    def rerank(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Candidate]:
        return list(candidates)[:: 1 if self._next() % 2 else -1]

    def select(self, turn: Turn, ranked: Sequence[Candidate]) -> Selection:
        return Selection(index=self._next() % len(ranked), why="in turn")

    def write(self, turn: Turn, tools: Tools) -> list[Candidate]:
        return [a_candidate(f"call {self._next()}", origin="copy")]

    async def retrieve(self, turn: Turn, limit: int) -> list[Passage]:
        return [a_passage(id=f"p{self._next()}")]


class Verdicts(Sound):
    def __init__(self, *verdicts: Verdict) -> None:
        self._verdicts = verdicts

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        return list(self._verdicts) * len(candidates)


class Scores(Sound):
    def __init__(self, score: Callable[[Sequence[Candidate]], list[float]]) -> None:
        self._score = score

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        return self._score(candidates)


class ScoresOneByOne(Sound):
    def __init__(self, tool: str) -> None:
        self._tool = tool

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        for candidate in candidates:
            if self._tool == "embed":
                tools.embed([candidate.text])
            else:
                tools.log_probs([turn.prompt], [candidate.text])
        return [0.0] * len(candidates)


class Reranks(Sound):
    def __init__(
        self, rerank: Callable[[list[Candidate]], Sequence[Candidate]]
    ) -> None:
        self._rerank = rerank

    def rerank(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Candidate]:
        assert isinstance(candidates, list)
        return list(self._rerank(candidates))


def in_place(candidates: list[Candidate]) -> list[Candidate]:
    candidates.reverse()
    return candidates


class Selects(Sound):
    def __init__(self, index: int, why: str) -> None:
        self._selection = Selection(index=index, why=why)

    def select(self, turn: Turn, ranked: Sequence[Candidate]) -> Selection:
        return self._selection


class Writes(Sound):
    def __init__(self, **candidate: Any) -> None:
        self._candidate = replace(a_candidate(origin="copy"), **candidate)

    def write(self, turn: Turn, tools: Tools) -> list[Candidate]:
        return [self._candidate]


class Retrieves(Sound):
    def __init__(self, *scores: float, ids: str = "abcdefghij") -> None:
        self._found = [
            a_passage(id=id_, score=score)
            for id_, score in zip(ids, scores, strict=False)
        ]

    async def retrieve(self, turn: Turn, limit: int) -> list[Passage]:
        return self._found


class Embeds(HashEmbedder):
    def __init__(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        super().__init__()
        self._change = change

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._change(super().embed(texts))


def never_empty(vectors: NDArray[Any]) -> NDArray[Any]:
    empty = ~vectors.any(axis=1)
    vectors[empty, 0] = 1
    return vectors


def in_company(vectors: NDArray[Any]) -> NDArray[Any]:
    mixed = vectors + vectors.sum(axis=0)
    lengths = np.linalg.norm(mixed, axis=1, keepdims=True)
    rows: NDArray[Any] = (mixed / np.maximum(lengths, 1e-9)).astype(np.float32)
    return rows


Step = Callable[[torch.Tensor, torch.Generator], Draw]


class Samples:
    """A sampler made of one function; `begin` shares nothing unless it does."""

    name = "samples"

    def __init__(self, step: Step) -> None:
        self._step = step

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], Draw]:
        return lambda logits: self._step(logits, generator)


def drawn(logits: torch.Tensor, generator: torch.Generator) -> Draw:
    chances = logits.softmax(dim=-1)
    return Draw(tokens=torch.multinomial(chances, 1, generator=generator).squeeze(-1))


def drawn_in_place(logits: torch.Tensor, generator: torch.Generator) -> Draw:
    return drawn(logits.div_(2), generator)


class SharesItsRandomness:
    name = "shares"

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[torch.Tensor], Draw]:
        return lambda logits: drawn(logits, self._generator)


class Changes:
    """A logits processor made of one function."""

    name = "changes"

    def __init__(
        self,
        step: Callable[[torch.Tensor], torch.Tensor],
        *,
        changes_argmax: bool = False,
    ) -> None:
        self._step = step
        self.changes_argmax = changes_argmax

    def begin(
        self, turn: Turn, siblings: int
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        return lambda tokens, logits: self._step(logits)


class RemembersAllTurns:
    name = "remembers"
    changes_argmax = True

    def __init__(self) -> None:
        self._calls = 0

    def begin(
        self, turn: Turn, siblings: int
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        def step(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            self._calls += 1
            return logits + self._calls

        return step


class Model(ScriptedLanguageModel):
    """A sound model, of which each broken one overrides a method."""

    def __init__(self) -> None:
        super().__init__(lambda turn: ["blue", "dark green"])


class CountsNothing(Model):
    def count_tokens(self, text: str) -> int:
        return 1


class ForgetsMessages(Model):
    def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = ()
    ) -> str:
        return super().render(messages[-1:], tools)


class WritesOne(Model):
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        return super().generate(request)[:1]


class WritesWithoutTokens(Model):
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        return [replace(made, tokens=()) for made in super().generate(request)]


class WritesTooMuch(Model):
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        return [
            replace(made, tokens=(1,) * 99, log_probs=(-1.0,) * 99)
            for made in super().generate(request)
        ]


class WritesSomethingElse(Model):
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        made = super().generate(request)
        return [replace(one, text=str(len(self.requests))) for one in made]


class CannotBeStopped(Model):
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        return super().generate(replace(request, cancelled=None, timeout_s=None))


class TellsTheLastWord(Model):
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        told = request.on_text or (lambda sibling, text: None)
        words = replace(request, on_text=lambda k, text: told(k, text.split()[-1]))
        return super().generate(words)


class TellsHalf(Model):
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        told = request.on_text or (lambda sibling, text: None)
        half = replace(request, on_text=lambda k, text: told(k, "d") if k else None)
        return super().generate(half)


class GoesOnForEver(Model):
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        return super().generate(replace(request, until=None))


class BeginsAnew(Model):
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        return super().generate(replace(request, begun=None))


class ForgetsWhatWasDrawn(Model):
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        if request.begun is None:
            return super().generate(request)
        begun = replace(request.begun, tokens=(), log_probs=())
        return super().generate(replace(request, begun=begun))


class ReadsInCompany(Model):
    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        found = super().log_probs(prompts, continuations)
        return [one - len(prompts) for one in found]


BROKEN: list[tuple[type, Any, str]] = [
    (c.CandidateFilterContract, Verdicts(KEPT, KEPT), "judges_every_candidate"),
    (c.CandidateFilterContract, Verdicts(Verdict(kept=False)), "says_why"),
    (c.CandidateFilterContract, Verdicts(Verdict(kept=False, why="a\nb")), "says_why"),
    (c.CandidateFilterContract, Counting(), "judges_the_same_twice"),
    (c.ScorerContract, Scores(lambda _: [1.0]), "finite_number"),
    (c.ScorerContract, Scores(lambda k: [math.nan] * len(k)), "finite_number"),
    (c.ScorerContract, Scores(lambda k: [*map(float, range(len(k)))]), "goes_with_its"),
    (c.ScorerContract, Counting(), "scores_the_same_twice"),
    (c.ScorerContract, ScoresOneByOne("embed"), "at_most_once"),
    (c.ScorerContract, ScoresOneByOne("log_probs"), "at_most_once"),
    (c.RerankerContract, Reranks(lambda k: k[:3]), "each_candidate_once"),
    (c.RerankerContract, Reranks(lambda k: k[:1] * len(k)), "each_candidate_once"),
    (
        c.RerankerContract,
        Reranks(lambda k: [replace(one) for one in k]),
        "each_candidate_once",
    ),
    (c.RerankerContract, Reranks(in_place), "leaves_its_input"),
    (c.RerankerContract, Counting(), "orders_the_same_twice"),
    (c.SelectorContract, Selects(1, "second"), "picks_one_of_them"),
    (c.SelectorContract, Selects(-1, "last"), "picks_one_of_them"),
    (c.SelectorContract, Selects(0, ""), "picks_one_of_them"),
    (c.SelectorContract, Counting(), "decided_the_same"),
    (c.WriterContract, Writes(text=" "), "sent_and_traced"),
    (c.WriterContract, Writes(origin="model"), "sent_and_traced"),
    (c.WriterContract, Writes(citations=("p99",)), "sent_and_traced"),
    (c.WriterContract, Counting(), "writes_the_same_twice"),
    (c.RetrieverContract, Retrieves(3, 2, 1), "at_most_the_limit"),
    (c.RetrieverContract, Retrieves(1, 2), "once_and_best_first"),
    (c.RetrieverContract, Retrieves(2, 1, ids="aa"), "once_and_best_first"),
    (c.RetrieverContract, Retrieves(math.inf), "once_and_best_first"),
    (c.RetrieverContract, Counting(), "finds_the_same_twice"),
    (c.EmbedderContract, Embeds(lambda v: v * 2), "have_length_one"),
    (c.EmbedderContract, Embeds(lambda v: v[:, :5]), "have_length_one"),
    (c.EmbedderContract, Embeds(lambda v: v.astype(np.float64)), "have_length_one"),
    (c.EmbedderContract, Embeds(never_empty), "zero_row"),
    (c.EmbedderContract, Embeds(lambda v: v.reshape(-1)), "no_texts"),
    (c.EmbedderContract, Embeds(in_company), "its_company"),
    (
        c.SamplerContract,
        Samples(lambda z, g: Draw(tokens=z.argmax(dim=-1)[:1])),
        "one_token_for_each",
    ),
    (
        c.SamplerContract,
        Samples(lambda z, g: Draw(tokens=z.argmax(dim=-1).int())),
        "one_token_for_each",
    ),
    (
        c.SamplerContract,
        Samples(lambda z, g: Draw(tokens=z.argmax(dim=-1) + 1000)),
        "one_token_for_each",
    ),
    (
        c.SamplerContract,
        Samples(lambda z, g: Draw(tokens=z.argmin(dim=-1))),
        "never_draws_what_is_impossible",
    ),
    (c.SamplerContract, SharesItsRandomness(), "same_seed"),
    (c.SamplerContract, SharesItsRandomness(), "do_not_mix"),
    (c.SamplerContract, Samples(drawn_in_place), "leaves_the_logits"),
    (c.LogitsProcessorContract, Changes(lambda z: z[:, :9]), "same_shape"),
    (c.LogitsProcessorContract, Changes(lambda z: z.double()), "same_shape"),
    (c.LogitsProcessorContract, Changes(lambda z: z - math.inf), "stays_possible"),
    (c.LogitsProcessorContract, Changes(lambda z: z * math.nan), "stays_possible"),
    (c.LogitsProcessorContract, Changes(lambda z: -z), "keeps_the_argmax"),
    (c.LogitsProcessorContract, RemembersAllTurns(), "do_not_mix"),
    (c.LogitsProcessorContract, Changes(lambda z: z.mul_(2)), "given_logits"),
    (c.LanguageModelContract, CountsNothing(), "counts_tokens"),
    (c.LanguageModelContract, ForgetsMessages(), "every_message"),
    (c.LanguageModelContract, WritesOne(), "as_many_candidates"),
    (c.LanguageModelContract, WritesWithoutTokens(), "as_many_candidates"),
    (c.LanguageModelContract, WritesTooMuch(), "as_many_candidates"),
    (c.LanguageModelContract, WritesSomethingElse(), "same_candidates"),
    (c.LanguageModelContract, CannotBeStopped(), "what_is_late"),
    (c.LanguageModelContract, TellsTheLastWord(), "told_as_it_grows"),
    (c.LanguageModelContract, TellsHalf(), "told_as_it_grows"),
    (c.LanguageModelContract, GoesOnForEver(), "ends_where"),
    (c.LanguageModelContract, BeginsAnew(), "go_on_from"),
    (c.LanguageModelContract, ForgetsWhatWasDrawn(), "go_on_from"),
    (c.LanguageModelContract, ReadsInCompany(), "reads_text"),
]

SOUND: list[tuple[type, Any]] = [
    (c.CandidateFilterContract, Sound()),
    (c.ScorerContract, Sound()),
    (c.RerankerContract, Sound()),
    (c.SelectorContract, Sound()),
    (c.WriterContract, Sound()),
    (c.RetrieverContract, Sound()),
    (c.EmbedderContract, HashEmbedder()),
    (c.SamplerContract, Samples(drawn)),
    (c.LogitsProcessorContract, Changes(lambda z: z * 2)),
    (c.LanguageModelContract, Model()),
]


def promises(contract: type) -> list[str]:
    return [name for name in dir(contract) if name.startswith("test_")]


def check(contract: Any, name: str, subject: Any) -> None:
    """Run one test of a contract as pytest would."""
    result = getattr(contract, name)(subject)
    if inspect.isawaitable(result):
        asyncio.run(_awaited(result))


async def _awaited(result: Awaitable[Any]) -> None:
    await result


@pytest.mark.parametrize(
    ("contract", "subject", "promise"),
    [
        pytest.param(*case, id=f"{case[0].__name__}-{case[2]}-{number}")
        for number, case in enumerate(BROKEN)
    ],
)
def test_a_contract_catches_what_is_broken(
    contract: type, subject: Any, promise: str
) -> None:
    [name] = [name for name in promises(contract) if promise in name]

    with pytest.raises(AssertionError, match=r"\w"):
        check(contract(), name, subject)


def test_a_contract_catches_a_model_that_cannot_be_cancelled() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check(
            c.LanguageModelContract(),
            "test_a_cancelled_request_ends",
            CannotBeStopped(),
        )


@pytest.mark.parametrize(("contract", "subject"), SOUND)
def test_a_contract_is_kept_by_what_is_sound(contract: type, subject: Any) -> None:
    for name in promises(contract):
        check(contract(), name, subject)


def test_every_promise_is_broken_by_something() -> None:
    broken = {
        name
        for contract, _, promise in BROKEN
        for name in promises(contract)
        if promise in name
    }

    promised = {name for contract, _ in SOUND for name in promises(contract)}

    assert promised - broken == {"test_a_cancelled_request_ends"}


def test_a_contract_without_a_subject_says_what_to_do() -> None:
    class Unfinished(c.ScorerContract):
        pass

    with pytest.raises(NotImplementedError, match="Unfinished: no fixture 'subject'"):
        Unfinished.subject.__wrapped__(Unfinished())  # type: ignore[attr-defined]


# Connectors


class Service(MemoryConnector):
    """A memory connector with the service's own view of what was acknowledged."""

    def __init__(self) -> None:
        super().__init__("service")
        self.acknowledged = 0

    async def hear(self, text: str, id_: str) -> None:
        address = an_address(platform=self.name)
        await self.deliver(an_event(text, id=id_, address=address))
        self.acknowledged += 1


class AcknowledgesAtOnce(Service):
    async def hear(self, text: str, id_: str) -> None:
        self.acknowledged += 1
        await super().hear(text, id_)


class MakesUpIds(Service):
    def __init__(self) -> None:
        super().__init__()
        self._heard = 0

    async def hear(self, text: str, id_: str) -> None:
        self._heard += 1
        await super().hear(text, str(self._heard))


class TakesEverythingForACommand(Service):
    async def run(self, accept: Callable[[Event], Awaitable[Accepted]]) -> None:
        async def as_command(event: Event) -> Accepted:
            return await accept(replace(event, kind="command"))

        await super().run(as_command)


class SendsAgain(Service):
    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        return await super().send(address, reply, f"{key}-{len(self.deliveries)}")


class RaisesItsOwn(Service):
    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        try:
            return await super().send(address, reply, key)
        except DeliveryError as error:
            raise ConnectionError(str(error)) from error


class StatusFails(Service):
    async def status(self, address: Address, text: str) -> None:
        raise ConnectionError("no such channel")


class SendsItsFrames(Service):
    async def frame(self, address: Address, text: str) -> None:
        await super().send(address, Reply(text=text), text)


class TakesNoRisk(Service):
    delivery = "exactly_once"  # type: ignore[assignment]  # which nobody can

    def __init__(self) -> None:
        super().__init__()
        del self.delivery


class Looks(Service):
    async def find(self, address: Address, key: str) -> Sent | None:
        return self._sent.get(key)


class FindsEverything(Service):
    async def find(self, address: Address, key: str) -> Sent | None:
        return Sent(ids=("service-1",))


class ServiceContract(c.ConnectorContract):
    async def speak(self, subject: Connector, text: str, id: str) -> None:  # noqa: A002
        assert isinstance(subject, Service)
        await subject.hear(text, id)

    def acknowledged(self, subject: Connector) -> int | None:
        assert isinstance(subject, Service)
        return subject.acknowledged

    def shown(self, subject: Connector) -> list[str]:
        assert isinstance(subject, Service)
        return subject.replies()

    def break_service(self, subject: Connector) -> None:
        assert isinstance(subject, Service)
        subject.failures.append(DeliveryError("service: down", retryable=True))

    async def finish(self, subject: Connector) -> None:
        assert isinstance(subject, Service)
        subject.close()


class TestMemoryConnectorKeepsTheContract(ServiceContract):
    @pytest.fixture
    def subject(self) -> Connector:
        return Service()


class TestAConnectorThatLooksKeepsTheContract(ServiceContract):
    @pytest.fixture
    def subject(self) -> Connector:
        return Looks()


@pytest.mark.parametrize(
    ("subject", "name", "error"),
    [
        (AcknowledgesAtOnce, "nothing_is_acknowledged_before", AssertionError),
        (MakesUpIds, "the_same_message_has_the_same_id", AssertionError),
        (TakesEverythingForACommand, "a_message_arrives_as_an_event", AssertionError),
        (SendsAgain, "a_reply_is_sent_once_for_its_key", AssertionError),
        (RaisesItsOwn, "a_reply_that_fails_says_so", ConnectionError),
        (TakesNoRisk, "it_says_which_risk", AssertionError),
        (FindsEverything, "what_was_sent_is_found", AssertionError),
        (StatusFails, "status_comes_and_goes", ConnectionError),
        (SendsItsFrames, "the_place_of_its_frames", AssertionError),
    ],
)
def test_the_connector_contract_catches_what_is_broken(
    subject: type[Service], name: str, error: type[Exception]
) -> None:
    [promise] = [p for p in promises(c.ConnectorContract) if name in p]

    with pytest.raises(error):
        check(ServiceContract(), promise, subject())


class TestHashEmbedderKeepsTheContract(c.EmbedderContract):
    @pytest.fixture
    def subject(self) -> HashEmbedder:
        return HashEmbedder()


class TestScriptedLanguageModelKeepsTheContract(c.LanguageModelContract):
    @pytest.fixture
    def subject(self) -> LanguageModel:
        return ScriptedLanguageModel(lambda turn: ["blue", "green"])

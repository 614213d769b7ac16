"""The language model: candidates and log-probabilities, against transformers' own."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from bot.errors import ModelError, PluginError, TurnCancelled, TurnError
from bot.generation.language_model import TransformersModel
from bot.interfaces import (
    ChatMessage,
    Draw,
    GenerationRequest,
    LogitsProcessor,
    Sampler,
)
from bot.model import Turn
from bot.testing.contracts import LanguageModelContract
from bot.testing.makers import a_turn
from tests.generation.oracles import END, PlainSampler, Reference

if TYPE_CHECKING:
    # A fixture's type; tests' folders are no packages, so it cannot be imported.
    class ModelFolders:
        generator: Path


TINY_KINDS = ["llama", "qwen2", "gpt2"]
PROMPT = "How long does a refund take?"
BYTES_START = 3  # the tiny tokenizer: three marks, then one token for each byte


@dataclass
class Greedy:
    name: str = "greedy"
    greedy: bool = True

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        return lambda logits: Draw(tokens=logits.argmax(dim=1))


@dataclass
class Scripted:
    """Draws what it was told, step by step, and remembers the logits it was given."""

    draws: Sequence[Draw | Exception]
    name: str = "scripted"
    seen: list[Tensor] = field(default_factory=list)

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        remaining = iter(self.draws)

        def draw(logits: Tensor) -> Draw:
            self.seen.append(logits)
            planned = next(remaining)
            if isinstance(planned, Exception):
                raise planned
            return planned

        return draw


@dataclass
class Changing:
    """A logits processor made of one function."""

    change: Callable[[Tensor, Tensor], Tensor]
    changes_argmax: bool = True
    name: str = "changing"

    def begin(self, turn: Turn, siblings: int) -> Callable[[Tensor, Tensor], Tensor]:
        return self.change


def tokens(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def a_request(  # noqa: PLR0913 -- tests name the one that matters
    prompt: str = PROMPT,
    candidates: int = 1,
    sampler: Sampler | None = None,
    processors: Sequence[LogitsProcessor] = (),
    *,
    seed: int = 1,
    max_new_tokens: int = 12,
    **more: Any,
) -> GenerationRequest:
    return GenerationRequest(
        turn=a_turn(prompt=prompt, seed=seed),
        candidates=candidates,
        max_new_tokens=max_new_tokens,
        sampler=sampler or Greedy(),
        logits_processors=processors,
        **more,
    )


def spelled(text: str) -> list[Draw]:
    """Draws of the tiny tokenizer's single-byte tokens that spell a text."""
    alphabet = tiny_alphabet()
    return [Draw(tokens=tokens(alphabet[byte])) for byte in text.encode()]


def tiny_alphabet() -> dict[int, int]:
    from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer  # noqa: PLC0415

    byte_level: PreTokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    ids = {
        token: number + BYTES_START
        for number, token in enumerate(sorted(ByteLevel.alphabet()))
    }
    printable = {byte: byte_level.pre_tokenize_str(chr(byte)) for byte in range(128)}
    found = {byte: ids[pieces[0][0]] for byte, pieces in printable.items()}
    high = byte_level.pre_tokenize_str("é")[0][0]
    found.update(zip("é".encode(), (ids[each] for each in high), strict=True))
    return found


@pytest.fixture(scope="module")
def shipped(model_folders: ModelFolders) -> TransformersModel:
    return TransformersModel(model_folders.generator, "smollm2", "cpu", threads=1)


@pytest.mark.model
class TestTheModelKeepsTheContract(LanguageModelContract):
    @pytest.fixture
    def subject(self, shipped: TransformersModel) -> TransformersModel:
        return shipped


# Greedy: the same tokens as transformers


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_greedy_candidates_are_those_of_transformers(
    tiny_folder: Callable[[str], Path], kind: str
) -> None:
    model = TransformersModel(tiny_folder(kind), kind, "cpu", threads=1)

    candidates = model.generate(a_request(candidates=3, max_new_tokens=40))

    expected = Reference(tiny_folder(kind)).greedy(PROMPT, 40)
    assert [list(each.tokens) for each in candidates] == [expected] * 3


@pytest.mark.model
def test_greedy_text_of_the_shipped_model_is_that_of_transformers(
    shipped: TransformersModel, model_folders: ModelFolders
) -> None:
    model = shipped
    prompt = model.render(
        [
            ChatMessage(role="system", content="You answer in one sentence."),
            ChatMessage(role="user", content="Why do leaves fall in autumn?"),
        ]
    )

    one = model.generate(a_request(prompt, max_new_tokens=24))
    three = model.generate(a_request(prompt, 3, max_new_tokens=24))

    expected = Reference(model_folders.generator).greedy(prompt, 24)
    assert [list(each.tokens) for each in one + three] == [expected] * 4
    assert "\N{REPLACEMENT CHARACTER}" not in one[0].text
    assert "leaves" in one[0].text.lower()


@pytest.mark.model
def test_the_shipped_model_stops_by_itself_and_scores_what_it_wrote(
    shipped: TransformersModel,
) -> None:
    model = shipped
    question = ChatMessage(role="user", content="What is the capital of France?")
    prompt = model.render([question])

    written = model.generate(a_request(prompt, max_new_tokens=24))[0]
    scored = model.log_probs([prompt], [written.text])[0]

    assert written.finish == "stop"
    assert written.text == "The capital of France is Paris."
    assert scored == pytest.approx(written.log_probs[:-1], abs=1e-4)


# Log-probabilities: those of a plain forward pass


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_drawn_log_probs_are_those_of_a_plain_forward_pass(
    tiny_folder: Callable[[str], Path], kind: str
) -> None:
    model = TransformersModel(tiny_folder(kind), kind, "cpu", threads=1)
    hotter = Changing(lambda drawn, logits: logits / 3)

    candidates = model.generate(
        a_request(candidates=4, sampler=PlainSampler(), processors=[hotter])
    )

    for each in candidates:
        expected = Reference(tiny_folder(kind)).log_probs(PROMPT, list(each.tokens))
        assert each.log_probs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("processors", [[], [Changing(lambda _, logits: logits / 3)]])
def test_certainties_are_the_divergence_from_the_uniform_distribution(
    tiny_folder: Callable[[str], Path], processors: Sequence[Changing]
) -> None:
    folder = tiny_folder(TINY_KINDS[0])
    model = TransformersModel(folder, "tiny", "cpu", threads=1)

    candidates = model.generate(
        a_request(candidates=4, sampler=PlainSampler(), processors=processors)
    )

    for each in candidates:
        scores = Reference(folder).next_log_probs(PROMPT, list(each.tokens))[:-1]
        # KL(u || p) = sum over V of 1/V (log 1/V - log p) = -log V - mean log p
        expected = -math.log(scores.shape[1]) - scores.mean(dim=1)
        assert each.certainties == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_vocabulary_says_what_each_token_adds(
    tiny_folder: Callable[[str], Path],
) -> None:
    model = TransformersModel(tiny_folder(TINY_KINDS[0]), "tiny", "cpu", threads=1)
    vocabulary = model.vocabulary
    tokens = vocabulary.encode("Five days.")

    pieces = [vocabulary.piece(token) for token in tokens]

    assert "".join(pieces) == vocabulary.decode(tokens) == "Five days."
    assert all(token < vocabulary.size for token in tokens)
    assert vocabulary.end_tokens


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_scored_log_probs_are_those_of_a_plain_forward_pass(
    tiny_folder: Callable[[str], Path], kind: str
) -> None:
    model = TransformersModel(tiny_folder(kind), kind, "cpu", threads=1)
    pairs = [
        (PROMPT, "Five days."),
        ("Other prompt", "Five days."),
        (PROMPT, "No"),
        (PROMPT, ""),
        ("Other prompt", "x"),
    ]

    scored = model.log_probs(*zip(*pairs, strict=True))

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder(kind))
    for (prompt, continuation), scores in zip(pairs, scored, strict=True):
        ids = tokenizer.encode(continuation, add_special_tokens=False)
        expected = Reference(tiny_folder(kind)).log_probs(prompt, ids)
        assert scores.dtype == np.float32
        assert scores == pytest.approx(expected, abs=1e-4)


def test_many_continuations_are_scored_like_each_alone(
    tiny: TransformersModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    continuations = [f"answer {number}" for number in range(7)]
    alone = [tiny.log_probs([PROMPT], [each])[0] for each in continuations]
    # Small enough for batches of two.
    monkeypatch.setattr("bot.generation.language_model.SCORED_LOGITS", 259 * 8 * 2)

    together = tiny.log_probs([PROMPT] * 7, continuations)

    assert np.array(together) == pytest.approx(np.array(alone), abs=1e-5)


def test_an_empty_prompt_is_the_start_of_a_text(
    tiny: TransformersModel, tiny_folder: Callable[[str], Path]
) -> None:
    scores = tiny.log_probs([""], ["Five"])[0]

    assert scores == pytest.approx(tiny.log_probs(["<|im_start|>"], ["Five"])[0])


def test_scoring_under_the_prompt_just_answered_reads_no_prompt_again(
    tiny: TransformersModel,
) -> None:
    prompt = "a prompt that no other test has"
    read: list[int] = []
    hook = tiny._network._model.register_forward_pre_hook(
        lambda _, args, given: read.append(given["input_ids"].shape[1]),
        with_kwargs=True,
    )
    tiny.generate(a_request(prompt, 2))
    read_by_generate = read.count(len(prompt))

    tiny.log_probs([prompt] * 3, ["one", "two", "three"])

    hook.remove()
    assert read_by_generate == 1
    assert read.count(len(prompt)) == 1
    assert sum(read[-1:]) == 3 * len("three")


# Sampling


def test_the_same_request_gives_the_same_candidates(tiny: TransformersModel) -> None:
    request = a_request(candidates=5, sampler=PlainSampler(), seed=7)

    first = tiny.generate(request)
    tiny.generate(a_request("something in between", 3, PlainSampler()))

    assert tiny.generate(request) == first
    assert len({each.tokens for each in first}) > 1
    assert tiny.generate(a_request(candidates=5, sampler=PlainSampler())) != first


def test_first_tokens_are_drawn_as_often_as_the_model_says(
    tiny: TransformersModel,
) -> None:
    draws = 4000
    chances = first_token_chances(tiny)

    drawn = tiny.generate(a_request(PROMPT, draws, PlainSampler(), max_new_tokens=1))

    counts = np.bincount([each.tokens[0] for each in drawn], minlength=len(chances))
    assert chi_square_is_plausible(counts, chances * draws)


def test_second_tokens_are_drawn_as_often_as_the_model_says(
    tiny: TransformersModel, tiny_folder: Callable[[str], Path]
) -> None:
    first = int(first_token_chances(tiny).argmax())

    def only_the_likeliest_first(drawn: Tensor, logits: Tensor) -> Tensor:
        if drawn.shape[1] == 0:
            logits[:] = -torch.inf
            logits[:, first] = 0
        return logits

    drawn = tiny.generate(
        a_request(
            candidates=3000,
            sampler=PlainSampler(),
            processors=[Changing(only_the_likeliest_first)],
            max_new_tokens=2,
        )
    )

    counts = np.bincount([each.tokens[1] for each in drawn], minlength=259)
    reference = Reference(tiny_folder("llama"))
    chances = reference.next_log_probs(PROMPT, [first])[-1].exp().numpy()
    assert chi_square_is_plausible(counts, chances * 3000)


def first_token_chances(model: TransformersModel) -> np.ndarray[Any, Any]:
    sampler = Scripted([Draw(tokens=tokens(0))])
    model.generate(a_request(sampler=sampler, max_new_tokens=1))
    return sampler.seen[0][0].softmax(dim=0).double().numpy()


def chi_square_is_plausible(
    counts: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]
) -> bool:
    """Cells of at least five; the limit is the mean and five standard deviations."""
    full = expected >= 5
    cells = [*zip(counts[full], expected[full], strict=True)]
    if expected[~full].sum() >= 5:
        cells.append((counts[~full].sum(), expected[~full].sum()))
    assert len(cells) > 2
    statistic = sum((found - e) ** 2 / e for found, e in cells)
    freedom = len(cells) - 1
    return bool(statistic < freedom + 5 * math.sqrt(2 * freedom))


def test_greedy_skips_what_keeps_the_argmax(tiny: TransformersModel) -> None:
    called: list[str] = []

    def noting(name: str) -> Callable[[Tensor, Tensor], Tensor]:
        def change(drawn: Tensor, logits: Tensor) -> Tensor:
            called.append(name)
            return logits

        return change

    keeps = Changing(noting("keeps"), changes_argmax=False)
    changes = Changing(noting("changes"))

    tiny.generate(a_request(processors=[keeps, changes], max_new_tokens=1))
    tiny.generate(
        a_request(sampler=PlainSampler(), processors=[keeps], max_new_tokens=1)
    )

    assert called == ["changes", "keeps"]


def test_a_step_may_write_into_its_logits_without_touching_log_probs(
    tiny: TransformersModel,
) -> None:
    def double(drawn: Tensor, logits: Tensor) -> Tensor:
        return logits.mul_(2)

    plain = tiny.generate(a_request())
    doubled = tiny.generate(a_request(processors=[Changing(double)]))

    assert doubled == plain


# Rows: ends, parents, done


def test_rows_that_ended_leave_the_model_and_keep_their_place(
    tiny: TransformersModel,
) -> None:
    sampler = Scripted(
        [
            Draw(tokens=tokens(70, END, 72)),
            Draw(tokens=tokens(80, 81, 82)),
            Draw(tokens=tokens(END, 91, 92)),
            Draw(tokens=tokens(100, 101, END)),
        ]
    )

    candidates = tiny.generate(a_request(candidates=3, sampler=sampler))

    assert [each.tokens for each in candidates] == [
        (70, 80, END),
        (END,),
        (72, 82, 92, END),
    ]
    assert {each.finish for each in candidates} == {"stop"}
    ended = sampler.seen[2][1].softmax(dim=0)
    assert ended[END] == 1
    assert ended.sum() == 1


def test_a_row_left_alone_goes_on_as_if_it_had_been_alone(
    tiny: TransformersModel, tiny_folder: Callable[[str], Path]
) -> None:
    sampler = Scripted(
        [
            Draw(tokens=tokens(END, 71, END)),
            Draw(tokens=tokens(0, 72, 0)),
            Draw(tokens=tokens(0, 73, 0)),
        ]
    )

    row = tiny.generate(a_request(candidates=3, sampler=sampler, max_new_tokens=3))[1]

    expected = Reference(tiny_folder("llama")).log_probs(PROMPT, [71, 72, 73])
    assert row.log_probs == pytest.approx(expected, abs=1e-4)


def test_rows_continue_the_parents_the_sampler_names(
    tiny: TransformersModel, tiny_folder: Callable[[str], Path]
) -> None:
    sampler = Scripted(
        [
            Draw(tokens=tokens(70, 71, 72)),
            Draw(tokens=tokens(80, 81, 82), parents=tokens(2, 2, 0)),
            Draw(tokens=tokens(90, 91, 92), parents=tokens(1, 0, 2)),
        ]
    )

    rows = tiny.generate(a_request(candidates=3, sampler=sampler, max_new_tokens=3))

    assert [row.tokens for row in rows] == [(72, 81, 90), (72, 80, 91), (70, 82, 92)]
    for row in rows:
        expected = Reference(tiny_folder("llama")).log_probs(PROMPT, list(row.tokens))
        assert row.log_probs == pytest.approx(expected, abs=1e-4)


def test_a_row_may_leave_an_ended_row_and_an_ended_row_may_be_continued(
    tiny: TransformersModel, tiny_folder: Callable[[str], Path]
) -> None:
    sampler = Scripted(
        [
            Draw(tokens=tokens(70, END, 72)),
            Draw(tokens=tokens(80, 81, 82), parents=tokens(1, 0, 2)),
            Draw(tokens=tokens(0, 91, 92)),
        ]
    )

    rows = tiny.generate(a_request(candidates=3, sampler=sampler, max_new_tokens=3))

    assert [row.tokens for row in rows] == [(END,), (70, 81, 91), (72, 82, 92)]
    expected = Reference(tiny_folder("llama")).log_probs(PROMPT, [70, 81, 91])
    assert rows[1].log_probs == pytest.approx(expected, abs=1e-4)


def test_beams_of_a_sampler_find_what_exhaustive_search_finds(
    tiny: TransformersModel, tiny_folder: Callable[[str], Path]
) -> None:
    beams = tiny.generate(a_request(candidates=259, sampler=Beams(), max_new_tokens=2))

    best = max(beams, key=lambda each: sum(each.log_probs))
    reference = Reference(tiny_folder("llama"))
    first = reference.next_log_probs(PROMPT)[-1].numpy()
    totals: list[tuple[float, tuple[int, ...]]] = [(first[END], (END,))]
    for token in np.argsort(-first)[:20]:
        if token != END:
            second = reference.next_log_probs(PROMPT, [int(token)])[-1].numpy()
            totals.append(
                (first[token] + second.max(), (int(token), int(second.argmax())))
            )
    assert best.tokens == max(totals)[1]
    assert sum(best.log_probs) == pytest.approx(max(totals)[0], abs=1e-4)


@dataclass
class Beams:
    """Beam search as a plugin would write it."""

    name: str = "beams"

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        totals = torch.full((siblings, 1), -torch.inf)
        totals[0] = 0

        def draw(logits: Tensor) -> Draw:
            scores = totals + logits.log_softmax(dim=1)
            best = scores.flatten().topk(siblings)
            totals[:, 0] = best.values
            vocabulary = logits.shape[1]
            return Draw(
                tokens=best.indices % vocabulary, parents=best.indices // vocabulary
            )

        return draw


def test_a_row_the_sampler_is_done_with_ends_there_cut_short(
    tiny: TransformersModel,
) -> None:
    sampler = Scripted(
        [
            Draw(tokens=tokens(70, 71), done=torch.tensor([True, False])),
            Draw(tokens=tokens(80, 81)),
        ]
    )

    rows = tiny.generate(a_request(candidates=2, sampler=sampler, max_new_tokens=2))

    assert [row.tokens for row in rows] == [(70,), (71, 81)]
    assert [row.finish for row in rows] == ["length", "length"]


# Text


def test_text_ends_before_the_first_stop_string(tiny: TransformersModel) -> None:
    sampler = Scripted(spelled(" Five days. User: more"))

    row = tiny.generate(
        a_request(sampler=sampler, max_new_tokens=30, stop=["User:", "Bot:"])
    )[0]

    assert row.text == "Five days."
    assert row.finish == "stop"
    assert len(row.tokens) == len(" Five days. User:")


def test_half_a_character_is_not_shown(tiny: TransformersModel) -> None:
    sampler = Scripted(spelled("caf\u00e9"))

    whole = tiny.generate(a_request(sampler=sampler, max_new_tokens=5))[0]
    cut = tiny.generate(a_request(sampler=sampler, max_new_tokens=4))[0]

    assert whole.text == "caf\u00e9"
    assert cut.text == "caf"
    assert cut.finish == "length"


def test_the_end_token_is_kept_in_the_tokens_and_not_in_the_text(
    tiny: TransformersModel,
) -> None:
    sampler = Scripted([*spelled("Yes"), Draw(tokens=tokens(END))])

    row = tiny.generate(a_request(sampler=sampler))[0]

    assert row.text == "Yes"
    assert row.tokens[-1] == END
    assert len(row.log_probs) == len(row.tokens) == 4


# Limits


def test_a_set_ends_at_its_deadline_with_what_it_has(
    tiny_folder: Callable[[str], Path],
) -> None:
    model = TransformersModel(tiny_folder("llama"), "tiny", "cpu", threads=1)
    steps: list[float] = []
    model._engine._clock = lambda: float(len(steps))

    def count_steps(drawn: Tensor, logits: Tensor) -> Tensor:
        steps.append(drawn.shape[1])
        return logits

    rows = model.generate(
        a_request(
            candidates=2,
            sampler=Scripted([Draw(tokens=tokens(70, END))] * 9),
            processors=[Changing(count_steps)],
            timeout_s=3,
        )
    )

    assert [row.tokens for row in rows] == [(70, 70, 70), (END,)]
    assert [row.finish for row in rows] == ["length", "stop"]


def test_a_cancelled_set_stops_at_the_next_step(tiny: TransformersModel) -> None:
    cancelled = threading.Event()
    steps: list[int] = []

    def cancel_at_the_third(drawn: Tensor, logits: Tensor) -> Tensor:
        steps.append(drawn.shape[1])
        if len(steps) == 3:
            cancelled.set()
        return logits

    request = a_request(
        sampler=PlainSampler(),
        processors=[Changing(cancel_at_the_third)],
        cancelled=cancelled,
    )

    with pytest.raises(TurnCancelled, match="'t1'"):
        tiny.generate(request)

    assert steps == [0, 1, 2]


def test_a_set_cancelled_before_it_began_reads_nothing(
    tiny: TransformersModel,
) -> None:
    cancelled = threading.Event()
    cancelled.set()
    sampler = Scripted([])

    with pytest.raises(TurnCancelled):
        tiny.generate(a_request(sampler=sampler, cancelled=cancelled))

    assert sampler.seen == []


def test_candidates_end_where_the_context_window_ends(
    tiny: TransformersModel,
) -> None:
    prompt = "x" * (tiny.context_tokens - 3)
    sampler = Scripted([Draw(tokens=tokens(70))] * 9)

    row = tiny.generate(a_request(prompt, sampler=sampler))[0]

    assert row.tokens == (70, 70, 70)
    assert row.finish == "length"


def test_a_prompt_beyond_the_context_window_is_this_turns_error(
    tiny: TransformersModel,
) -> None:
    prompt = "x" * tiny.context_tokens

    with pytest.raises(TurnError, match="prompt has 256, and 1 are to follow"):
        tiny.generate(a_request(prompt))
    with pytest.raises(TurnError, match="has 100, and 200 are to follow; shorten"):
        tiny.log_probs(["y" * 100], ["z" * 200])


# Plugins that break their contract


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (Draw(tokens=tokens(1, 2, 3)), r"tokens of shape \[3\].*return \[2\]"),
        (Draw(tokens=torch.tensor([1.0, 2.0])), "float32; return"),
        (Draw(tokens=tokens(1, 259)), r"tokens \[1, 259\]; stay between 0 and 258"),
        (Draw(tokens=tokens(1, 2), parents=tokens(0, 2)), r"parents \[0, 2\]"),
        (Draw(tokens=tokens(1, 2), parents=tokens(0)), r"parents of shape \[1\]"),
        (Draw(tokens=tokens(1, 2), done=tokens(0, 1)), "done of shape .*int64"),
        (ZeroDivisionError("oh"), "raised ZeroDivisionError: oh"),
        (None, "drew a NoneType; return a Draw"),
    ],
)
def test_a_sampler_that_breaks_its_contract_is_named(
    tiny: TransformersModel, draw: Any, said: str
) -> None:
    request = a_request(candidates=2, sampler=Scripted([draw]))

    with pytest.raises(PluginError, match=f"plugin 'scripted'.*{said}") as caught:
        tiny.generate(request)

    assert caught.value.plugin == "scripted"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda drawn, logits: logits * math.nan, "NaN"),
        (lambda drawn, logits: logits - math.inf, "without any token left"),
        (lambda drawn, logits: logits[:, :5], r"shape \[2, 5\]; return \[2, 259\]"),
        (lambda drawn, logits: None, "type NoneType"),
        (lambda drawn, logits: logits[9], "raised IndexError"),
    ],
)
def test_a_logits_step_that_breaks_its_contract_is_named(
    tiny: TransformersModel, change: Callable[..., Any], said: str
) -> None:
    request = a_request(
        candidates=2, sampler=PlainSampler(), processors=[Changing(change)]
    )

    with pytest.raises(PluginError, match=f"plugin 'changing'.*{said}"):
        tiny.generate(request)


# Weights


def test_weights_with_a_gap_are_refused_not_filled_at_random(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    AutoTokenizer.from_pretrained(tiny_folder("llama")).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("llama"))
    model.save_pretrained(
        tmp_path,
        state_dict={
            name: tensor
            for name, tensor in model.state_dict().items()
            if "layers.1.mlp" not in name
        },
    )

    with pytest.raises(ModelError, match=r"the weights lack 'model\.layers\.1\.mlp"):
        TransformersModel(tmp_path, "gap", "cpu", threads=1)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        TransformersModel(tmp_path, "nothing", "cpu", threads=1)

"""The network: shared-prefix attention gives what the model's own attention gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bot.errors import ModelError
from bot.generation.attention import Read
from bot.generation.kv import Rows, Segment
from bot.generation.network import Network

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.slow  # test-fast does without

KINDS = [
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "mixtral",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo2",
    "gpt2",
    "gpt-neox",
    "opt",
]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def networks(tiny_folder: Callable[[str], Path]) -> Callable[[str], Network]:
    return cache(lambda kind: Network(tiny_folder(kind), "cpu"))


@pytest.fixture(scope="module")
def plain(tiny_folder: Callable[[str], Path]) -> Callable[[str], Plain]:
    return cache(lambda kind: Plain(tiny_folder(kind)))


class Plain:
    """The model of transformers with its eager attention, a whole text at a time."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    @torch.inference_mode()
    def __call__(self, text: Sequence[int], first: int = 0) -> Tensor:
        """Return the logits behind each token from `first` on."""
        read = torch.tensor([list(text)])
        logits: Tensor = self._model(read, use_cache=False).logits[0, first:]
        return logits.float()


class Dice:
    """Tokens at random, other than the marks."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *size: int) -> Any:
        return torch.randint(3, 259, size, generator=self._generator).tolist()


class Writing:
    """Siblings behind a prefix, and beside them the texts that they should have."""

    def __init__(
        self, network: Network, prompt: Sequence[int], prefix: Sequence[Segment]
    ) -> None:
        self._network = network
        self._prefix = prefix
        self._rows: Rows | None = None
        self.texts = [list(prompt)]

    def read(self, tokens: Sequence[Sequence[int]]) -> Read:
        if self._rows is None:
            self._rows = Rows(self._network.shape, len(tokens), 2)
            self.texts = [list(self.texts[0]) for _ in tokens]
        self._rows.make_room(len(tokens[0]), limit=64)
        for text, more in zip(self.texts, tokens, strict=True):
            text.extend(more)
        return Read(
            tokens=torch.tensor(tokens),
            prefix=self._prefix,
            rows=self._rows,
            outputs="all",
        )

    def keep(self, rows: Sequence[int]) -> None:
        assert self._rows is not None
        self._rows.keep(rows)
        self.texts = [list(self.texts[row]) for row in rows]

    def expected(self, plain: Plain, new: int) -> Tensor:
        """The logits behind the last `new` tokens of every row."""
        return torch.cat([plain(text, len(text) - new) for text in self.texts])


def read_prompt(
    network: Network, prompt: Sequence[int], chunks: Sequence[int]
) -> tuple[Tensor, Segment]:
    """Read a prompt in chunks; return the logits of all of it, and its segment."""
    rows = Rows(network.shape, 1, len(prompt))
    logits, start = [], 0
    for size in chunks:
        read = Read(
            tokens=torch.tensor([prompt[start : start + size]]),
            prefix=(),
            rows=rows,
            outputs="all",
        )
        logits.append(network.forward([read]))
        start += size
    assert start == len(prompt)
    return torch.cat(logits), rows.segment(0, len(prompt))


def in_parts(segment: Segment, *ends: int) -> list[Segment]:
    """Cut a prompt's segment into several, as the index does."""
    starts = [0, *ends]
    return [
        segment[..., start:end, :]
        for start, end in zip(starts, [*ends, segment.shape[3]], strict=True)
    ]


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_in_chunks_is_read_like_a_whole_one(
    networks: Callable[[str], Network], plain: Callable[[str], Plain], kind: str
) -> None:
    prompt = Dice()(60)

    logits, _ = read_prompt(networks(kind), prompt, [13, 1, 2, 30, 14])

    assert_close(logits, plain(kind)(prompt))


@pytest.mark.parametrize("kind", KINDS)
def test_siblings_go_on_as_if_each_had_read_the_prompt(
    networks: Callable[[str], Network], plain: Callable[[str], Plain], kind: str
) -> None:
    network, dice = networks(kind), Dice(1)
    prompt = dice(50)
    _, segment = read_prompt(network, prompt, [50])
    writing = Writing(network, prompt, in_parts(segment, 3, 4, 30))

    for new in (1, 1, 3, 1, 4):
        logits = network.forward([writing.read(dice(3, new))])
        assert_close(logits, writing.expected(plain(kind), new))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_were_swapped_and_dropped_go_on_from_their_parents(
    networks: Callable[[str], Network], plain: Callable[[str], Plain], kind: str
) -> None:
    network, dice = networks(kind), Dice(2)
    prompt = dice(20)
    _, segment = read_prompt(network, prompt, [11, 9])
    writing = Writing(network, prompt, [segment])
    network.forward([writing.read(dice(4, 2))])

    for parents, new in (
        ([3, 3, 0, 1], 1),
        ([2, 0], 2),
        ([1, 1, 1, 0, 0], 1),
        ([4], 3),
    ):
        writing.keep(parents)
        logits = network.forward([writing.read(dice(len(parents), new))])
        assert_close(logits, writing.expected(plain(kind), new))


@pytest.mark.parametrize("kind", KINDS)
def test_reads_of_every_kind_mix_in_one_pass(
    networks: Callable[[str], Network], plain: Callable[[str], Plain], kind: str
) -> None:
    network, dice = networks(kind), Dice(3)
    long, short, newcomer = dice(40), dice(9), dice(25)
    _, of_long = read_prompt(network, long, [40])
    _, of_short = read_prompt(network, short, [9])
    first = Writing(network, long, in_parts(of_long, 17))
    second = Writing(network, short, [of_short])
    scored = Writing(network, long, [of_long])
    chunk = Rows(network.shape, 1, len(newcomer))
    network.forward([second.read(dice(2, 3))])

    passes = [
        network.forward(
            [
                first.read(dice(3, 1)),
                Read(
                    tokens=torch.tensor([part]),
                    prefix=(),
                    rows=chunk,
                    outputs=outputs,  # type: ignore[arg-type] # of a literal's kind
                ),
                second.read(dice(2, 1)),
                scored.read(dice(2, 4)),
            ]
        )
        for part, outputs in ((newcomer[:10], "none"), (newcomer[10:], "last"))
    ]

    of_first, of_chunk, of_second, of_scored = passes[1].split_with_sizes([3, 1, 2, 8])
    assert len(passes[0]) == 3 + 0 + 2 + 8
    assert_close(of_first, first.expected(plain(kind), 1))
    assert_close(of_chunk, plain(kind)(newcomer, len(newcomer) - 1))
    assert_close(of_second, second.expected(plain(kind), 1))
    assert_close(of_scored, scored.expected(plain(kind), 4))


def test_a_set_without_a_prompt_begins_a_text(
    networks: Callable[[str], Network], plain: Callable[[str], Plain]
) -> None:
    network, dice = networks("llama"), Dice(4)
    writing = Writing(network, [], ())

    logits = network.forward([writing.read(dice(3, 5))])

    assert_close(logits, writing.expected(plain("llama"), 5))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_pass_that_failed_in_its_middle_can_be_repeated(
    networks: Callable[[str], Network], plain: Callable[[str], Plain], kind: str
) -> None:
    network, dice = networks(kind), Dice(5)
    prompt = dice(12)
    _, segment = read_prompt(network, prompt, [12])
    writing = Writing(network, prompt, [segment])
    network.forward([writing.read(dice(2, 1))])
    read = writing.read(dice(2, 1))

    with fails_in_its_last_layer(network), pytest.raises(ZeroDivisionError):
        network.forward([read])
    length_after_failing = read.rows.length
    logits = network.forward([read])

    assert length_after_failing == 1
    assert_close(logits, writing.expected(plain(kind), 1))


@contextmanager
def fails_in_its_last_layer(network: Network) -> Iterator[None]:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    *_, layer = _layers(network)
    hook = layer.register_forward_hook(fail)
    yield
    hook.remove()


def _layers(network: Network) -> Iterator[Any]:
    for name, module in network._model.named_modules():
        if name.endswith((".layers.0", ".layers.1", ".h.0", ".h.1")):
            yield module


# What cannot be shared is refused

REFUSED = ["bloom", "falcon", "gpt-j", "gpt-oss", "lfm2", "mamba", "mpt"]
# Their windows and chunks travel by the mask alone, or their positions change with the
# longest text of a batch: nothing that a proof of a few tokens would see.
WRONG_FURTHER_ON = ["phi3-longrope", "phimoe", "qwen2-moe", "llama4", "doge"]


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_whose_attention_cannot_be_shared_is_refused(
    tiny_folder: Callable[[str], Path], kind: str
) -> None:
    with pytest.raises(ModelError, match="its attention cannot be shared") as caught:
        Network(tiny_folder(kind), "cpu")

    message = str(caught.value)
    assert repr(str(tiny_folder(kind))) in message
    assert "set generation.backend" in message
    assert message.count("\n") == 0


@pytest.mark.parametrize("kind", WRONG_FURTHER_ON)
def test_a_model_that_would_be_wrong_in_longer_texts_reads_only_shorter_ones(
    tiny_folder: Callable[[str], Path], plain: Callable[[str], Plain], kind: str
) -> None:
    network = Network(tiny_folder(kind), "cpu")
    prompt = Dice(6)(network.context_tokens)

    logits, _ = read_prompt(network, prompt, [30, len(prompt) - 30])

    assert network.context_tokens in {40, 64}
    assert_close(logits, plain(kind)(prompt))

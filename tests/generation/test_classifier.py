"""A classification model with random weights, read from a folder like a real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from bot.errors import ModelError
from bot.generation.classifier import Classifier

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "it", "takes", "five", "days", "no"]
LABELS = {0: "contradiction", 1: "neutral", 2: "entailment"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classifier")
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, marks["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)
    wrapped.save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        id2label=LABELS,
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(path)
    return path


def test_each_text_gets_the_logits_it_gets_alone(folder: Path) -> None:
    classifier = Classifier(folder)
    texts = ["it takes five days", "no", "five " * 500, ""]

    together = classifier.classify(texts)
    alone = [classifier.classify([text]).logits[0] for text in texts]

    assert together.labels == ["contradiction", "neutral", "entailment"]
    assert together.logits.dtype == np.float32
    np.testing.assert_allclose(together.logits, np.stack(alone), atol=1e-5)
    assert np.ptp(together.logits, axis=0).max() > 1e-3


def test_a_pair_is_read_in_its_order(folder: Path) -> None:
    classifier = Classifier(folder)

    forth = classifier.classify(["it takes five days"], ["no"]).logits
    back = classifier.classify(["no"], ["it takes five days"]).logits

    assert forth.shape == (1, 3)
    assert not np.allclose(forth, back)


def test_no_texts_have_no_logits(folder: Path) -> None:
    assert Classifier(folder).classify([]).logits.shape == (0, 3)


def test_a_folder_of_something_else_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(ModelError, match=r"not a sequence-classification model") as one:
        Classifier(tmp_path)

    assert "\n" not in str(one.value)

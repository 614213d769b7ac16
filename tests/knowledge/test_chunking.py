from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from bot.knowledge.blocks import Block, Document
from bot.knowledge.chunking import context, passages
from bot.model import Passage
from bot.text import estimated_tokens


def count_words(text: str) -> int:
    return len(text.split())


def cut(
    *blocks: Block, passage_tokens: int = 40, overlap_tokens: int = 0
) -> list[Passage]:
    document = Document(
        source="a.md", title="A", metadata={"date": "2026-01-01"}, blocks=blocks
    )
    return passages(
        document,
        count_words,
        passage_tokens=passage_tokens,
        overlap_tokens=overlap_tokens,
    )


def numbered(count: int) -> str:
    return " ".join(f"Sentence number {number} ends." for number in range(count))


def test_a_passage_carries_where_it_comes_from() -> None:
    block = Block(text="One. Two.", headings=("H1", "H2"), page=3, line=7)

    [passage] = cut(block)

    assert passage.text == "One. Two."
    assert (passage.title, passage.source) == ("A", "a.md")
    assert (passage.headings, passage.page, passage.line) == (("H1", "H2"), 3, 7)
    assert passage.metadata == {"date": "2026-01-01"}
    assert context(passage) == "A > H1 > H2"


def test_sections_do_not_share_a_passage() -> None:
    made = cut(
        Block(text="One.", headings=("H1", "first")),
        Block(text="Two.", headings=("H1", "second")),
    )

    assert [passage.text for passage in made] == ["One.", "Two."]


def test_deeper_headings_are_crossed_and_stay_in_the_text() -> None:
    [passage] = cut(
        Block(text="One.", headings=("H1", "H2", "first")),
        Block(text="Two.", headings=("H1", "H2", "second")),
    )

    assert passage.text == "first\nOne.\nsecond\nTwo."
    assert passage.headings == ("H1", "H2")


def test_long_sections_are_cut_evenly_with_overlapping_sentences() -> None:
    made = cut(Block(text=numbered(15)), passage_tokens=40, overlap_tokens=8)

    assert [count_words(passage.text) for passage in made] == [36, 32]
    assert made[0].text.endswith("Sentence number 8 ends.")
    assert made[1].text.startswith("Sentence number 7 ends. Sentence number 8 ends.")


def test_a_sentence_longer_than_a_passage_is_divided_between_words() -> None:
    made = cut(Block(text="word " * 100), passage_tokens=32)

    assert all(set(passage.text.split()) == {"word"} for passage in made)
    assert sum(count_words(passage.text) for passage in made) == 100


def test_what_the_tokenizer_drops_fills_a_passage_too() -> None:
    block = Block(text="\n".join(["x"] * 200))
    document = Document(source="a", title="A", blocks=[block])

    made = passages(document, lambda _: 0, passage_tokens=32, overlap_tokens=0)

    assert len(made) > 1


def test_chinese_without_spaces_is_divided_too() -> None:
    text = "退款需要五个工作日" * 20
    document = Document(source="a", title="A", blocks=[Block(text=text)])

    made = passages(document, estimated_tokens, passage_tokens=50, overlap_tokens=0)

    assert "".join(passage.text.replace("\n", "") for passage in made) == text
    assert all(estimated_tokens(passage.text) <= 50 for passage in made)


def test_an_unchanged_passage_keeps_its_id_when_others_change() -> None:
    kept = Block(text="Kept.", headings=("H1", "b"))

    before = cut(Block(text="Old.", headings=("H1", "a")), kept)
    after = cut(Block(text="New text.", headings=("H1", "c")), kept)

    assert before[1].id == after[1].id
    assert before[0].id != after[0].id


def test_equal_texts_in_one_document_have_ids_of_their_own() -> None:
    made = cut(
        Block(text="Same.", headings=("H1", "a")),
        Block(text="Same.", headings=("H1", "b")),
    )

    assert len({passage.id for passage in made}) == 2


words = st.sampled_from(["alpha", "beta", "gamma.", "delta!", "3.5", "Epsilon"])
blocks = st.builds(
    lambda text, first, second, third: Block(
        text=" ".join(text), headings=(first, second, third)[: len(text) % 4]
    ),
    st.lists(words, min_size=1, max_size=60),
    st.sampled_from(["H1", "H1b"]),
    st.sampled_from(["H2", "H2b"]),
    st.sampled_from(["H3", "H3b"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(blocks, max_size=8), st.integers(8, 40))
def test_no_word_is_lost_or_moved_and_no_passage_is_too_long(
    given_blocks: list[Block], limit: int
) -> None:
    made = cut(*given_blocks, passage_tokens=limit)

    headings = {"H3", "H3b", "H2", "H2b", "H1", "H1b", ">"}
    written = [word for block in given_blocks for word in block.text.split()]
    kept = [
        word
        for passage in made
        for word in passage.text.split()
        if word not in headings
    ]
    assert kept == written
    assert all(count_words(passage.text) <= limit for passage in made)
    assert len({passage.id for passage in made}) == len(made)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(8, 40), st.integers(0, 50))
def test_overlap_repeats_whole_sentences_and_nothing_is_skipped(
    count: int, limit: int, overlap: int
) -> None:
    made = cut(
        Block(text=numbered(count)), passage_tokens=limit, overlap_tokens=overlap
    )

    covered = [
        [int(word) for word in passage.text.split() if word.isdecimal()]
        for passage in made
    ]
    assert all(count_words(passage.text) <= limit for passage in made)
    assert covered[0][0] == 0
    assert covered[-1][-1] == count - 1
    for before, after in pairwise(covered):
        assert before[0] < after[0] <= before[-1] + 1
        assert after[-1] > before[-1]
        assert 4 * (before[-1] + 1 - after[0]) <= overlap

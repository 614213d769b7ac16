"""The report's page: complete, self-contained, and safe with hostile texts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.evaluation.behind import Behind, visible
from bot.evaluation.html import html, number
from bot.evaluation.plots import pareto, scatters, ticks, whole_ticks
from bot.evaluation.report import Detail, Report, Row, row
from bot.model import Candidate, Passage, Record, Reply, Turn
from bot.ranking import with_totals
from bot.testing import a_candidate, a_passage, a_turn, an_event

pytestmark = pytest.mark.slow  # test-fast does without

MADE = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)

SUBJECTS = ("refund", "parcel", "battery", "invoice", "warranty", "voucher", "退款")
SCORERS = {"groundedness": 0.9, "relevance": 0.4, "likelihood": 0.0, "consensus": 0.2}
VARIANTS = ("", "brief", "friendly", "step by step")


def a_report(
    questions: int = 200,
    configs: Sequence[str] = ("greedy", "t 0.7", "min-p 0.1", "prompts + quotation"),
    k: int = 13,
) -> Report:
    """Make what a suite might find; better configurations are more often right."""
    rng = np.random.default_rng(0)
    details = [
        a_detail(
            config,
            question,
            1 if config == "greedy" else k,
            0.3 + 0.2 * at / len(configs),
            rng,
        )
        for at, config in enumerate(configs)
        for question in range(questions)
    ]
    return Report(
        suite="handbook",
        rows=[a_row(config, details) for config in configs],
        details=details,
    )


def a_detail(
    config: str, question: int, k: int, share: float, rng: np.random.Generator
) -> Detail:
    subject = SUBJECTS[question % len(SUBJECTS)]
    passages = [
        a_passage(
            f"A {subject} takes {question % 9 + part} working days. " * 6,
            id=f"{subject}-{part}",
            source=f"{subject}.md",
            score=0.9 - part / 10,
            line=part,
        )
        for part in range(3)
    ]
    turn = a_turn(
        f"How long does {subject} number {question} take, and whom do I ask?",
        passages,
        id=f"q{question}",
        seed=question,
    )
    # Questions are easy or hard: siblings are often right together.
    worth = rng.random(k) < rng.beta(share, 1 - share)
    kept = [
        a_candidate(
            f"Your {subject} takes {question % 9 if right else 99} working days "
            f"after we have it; candidate {number}. Ask the help desk if it does not.",
            origin="quotation" if number == 0 and k > 1 else "model",
            variant=VARIANTS[number % 4] if number and "prompts" in config else "",
            tokens=tuple(range(20 + number)),
        )
        for number, right in enumerate(worth)
    ]
    lost = rng.random(k) < 0.1
    lost[-1] = False
    reasons = ("truncated: ends in the middle of a sentence", "repeated: said before")
    dropped = [
        replace(one, dropped=reasons[number % 2])
        for number, one in enumerate(kept)
        if lost[number]
    ]
    scores = {
        name: rng.normal(worth[~lost] * strength, 0.7).tolist()
        for name, strength in SCORERS.items()
    }
    totalled = with_totals(
        [one for number, one in enumerate(kept) if not lost[number]], scores, {}
    )
    by_total = np.argsort([-(one.total or 0) for one in totalled], kind="stable")
    order = list(range(len(by_total)))
    if question % 5 == 0:
        order = [*order[1:3], order[0], *order[3:]] if len(order) > 2 else order
    picked = [int(by_total[place]) for place in order]
    ranked = [
        replace(totalled[place], rank=rank) for rank, place in enumerate(picked, 1)
    ]
    worths = [*worth[~lost][picked].astype(float), *worth[lost].astype(float)]
    record = Record(
        turn=turn,
        outcome="answered",
        reply=Reply(text=ranked[0].text),
        why="first in rank",
        config="c0ffee",
        candidates=(*ranked, *dropped),
        chosen=0,
        orders={"mmr": order},
        ms={"retrieve": 41.2, "generate": 2311.0 * k / 4, "rank": 38.8},
    )
    spread = float(rng.normal(1 + k / 4 + (0.8 - share) * len(config) / 8, 0.5))
    return Detail(
        config=config,
        record=record,
        expected=[f"{question % 9} working days"],
        worth=worths,
        metrics={
            "contained": worths[0],
            "f1": float(np.clip(worths[0] * 0.6 + rng.normal(0, 0.1), 0, 1)),
            "vendi": spread if k > 1 else 1.0,
            "self-bleu": float(np.clip(rng.normal(0.5, 0.1), 0, 1)) if k > 1 else 1.0,
            "ms": 700.0 * k + 80 * spread,
        },
    )


def a_row(config: str, details: Sequence[Detail]) -> Row:
    mine = [one for one in details if one.config == config]
    names = mine[0].metrics if mine else {}
    measured = {name: [one.metrics[name] for one in mine] for name in names}
    base = [one.metrics["contained"] for one in details[: len(mine)]]
    if base != measured.get("contained"):
        measured["contained - greedy"] = [
            mine_ - other
            for mine_, other in zip(measured["contained"], base, strict=True)
        ]
    return row(config, measured)


@pytest.fixture(scope="module")
def report() -> Report:
    return a_report(questions=12, k=6)


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return html(report, title="Samplers", made=MADE)


class Parsed(HTMLParser):
    """Every element with its attributes, the text of all, and of each raw element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": [], "title": []}
        self.text = ""
        self._open = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.raw:
            self.raw[self._open][-1] += data
        else:
            self.text += data

    def links(self) -> list[str]:
        return [
            attributes["href"] or "" for tag, attributes in self.elements if tag == "a"
        ]

    def embedded(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.raw["script"][0])
        return found


# Self-contained


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    parsed = Parsed(page)
    namespace = "http://www.w3.org/2000/svg"

    references = [
        value
        for _, attributes in parsed.elements
        for name, value in attributes.items()
        if name in {"src", "srcset", "href", "action", "data", "xlink:href", "poster"}
        and not (value or "").startswith("#")
    ]

    assert references == []
    assert "://" not in page.replace(namespace, "")
    assert not re.search(r"@import|url\(", page)
    assert not {"link", "iframe", "object", "embed", "img", "base", "form"} & {
        tag for tag, _ in parsed.elements
    }


def test_the_policy_allows_the_pages_own_style_and_script_and_no_network(
    page: str,
) -> None:
    parsed = Parsed(page)
    (policy,) = [
        attributes["content"] or ""
        for tag, attributes in parsed.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]

    allowed = dict(part.split(" ", 1) for part in policy.split("; "))

    assert allowed == {
        "default-src": "'none'",
        "style-src": source_of(parsed.raw["style"][0]),
        "script-src": source_of(parsed.raw["script"][1]),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert all("style" not in attributes for _, attributes in parsed.elements)


def source_of(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def test_the_same_report_gives_the_same_page(report: Report, page: str) -> None:
    assert html(report, title="Samplers", made=MADE) == page


def test_two_hundred_questions_of_four_configurations_stay_under_six_megabytes() -> (
    None
):
    page = html(a_report(), title="Samplers", made=MADE)

    assert len(page.encode()) < 6_000_000


# Figures and what is behind them


def test_every_link_leads_somewhere(page: str) -> None:
    parsed = Parsed(page)
    lists = {f"#f{number}" for number in range(len(parsed.embedded()["lists"]))}
    anchors = {f"#{attributes.get('id')}" for _, attributes in parsed.elements}

    links = set(parsed.links())

    assert links <= lists | anchors
    assert lists <= links


def test_every_list_has_rows_that_are_there(page: str) -> None:
    embedded = Parsed(page).embedded()

    for each in embedded["lists"]:
        assert each["rows"]
        for place, detail in enumerate(each["rows"]):
            candidates = embedded["details"][detail]["candidates"]
            for kind in ("at", "instead"):
                assert kind not in each or 0 <= each[kind][place] < len(candidates)


def test_the_mean_of_what_is_behind_a_figure_is_the_figure(
    report: Report, page: str
) -> None:
    embedded = Parsed(page).embedded()
    metrics = {
        each["title"]: np.mean(
            [
                embedded["details"][row]["metrics"][each["metric"]]
                for row in each["rows"]
            ]
        )
        for each in embedded["lists"]
        if "metric" in each
    }

    assert len(metrics) == 4 * 5
    for one in report.rows:
        for name in ("contained", "f1", "vendi", "self-bleu", "ms"):
            assert metrics[f"{one.config}: {name}"] == pytest.approx(
                one.metrics[name], rel=1e-3
            )


def test_a_figure_that_is_not_kept_by_question_opens_all_questions(page: str) -> None:
    (found,) = [
        each
        for each in Parsed(page).embedded()["lists"]
        if each["title"] == "t 0.7: contained - greedy"
    ]

    assert len(found["rows"]) == 12
    assert "not kept question by question" in found["note"]


def test_tables_show_the_figures_without_a_script(report: Report, page: str) -> None:
    shown = " ".join(Parsed(page).text.split())

    for one in report.rows:
        assert one.config in shown
        low, high = one.intervals["f1"]
        assert f"{number(one.metrics['f1'])}" in shown
        assert f"{number(low)} to {number(high)}" in shown
    assert "mmr" in shown
    assert "truncated" in shown
    assert "groundedness" in shown


def test_a_candidate_set_is_whole(report: Report, page: str) -> None:
    embedded = Parsed(page).embedded()
    at = 12 * 3  # the first question of the last configuration
    record, worth = report.details[at].record, report.details[at].worth

    told = embedded["details"][at]
    candidates = [
        dict(zip(embedded["columns"], one, strict=True)) for one in told["candidates"]
    ]

    assert told["question"] == record.turn.question
    assert told["reply"] == record.reply.text
    assert told["why"] == "first in rank"
    assert told["chosen"] == 0
    assert told["expected"] == ["0 working days"]
    assert told["ms"] == {"retrieve": 41.2, "generate": 3466, "rank": 38.8}
    assert told["orders"] == {"mmr": [place + 1 for place in record.orders["mmr"]]}
    assert [embedded["passages"][place][0] for place, _ in told["passages"]] == [
        f"refund.md, line {line}" for line in range(3)
    ]
    assert embedded["scorers"][told["config"]] == list(SCORERS)
    for made, candidate, value in zip(
        candidates, record.candidates, worth, strict=True
    ):
        assert made["text"] == candidate.text
        assert (made["origin"], made["variant"]) == (
            candidate.origin,
            candidate.variant,
        )
        assert (made["rank"], made["dropped"]) == (candidate.rank, candidate.dropped)
        assert made["worth"] == value
        assert made["tokens"] == len(candidate.tokens)
        if candidate.dropped is None:
            assert made["scores"] == pytest.approx(
                list(candidate.scores.values()), 1e-3
            )
            assert made["contributions"] == pytest.approx(
                list(candidate.contributions.values()), 1e-3
            )


def test_a_passage_of_many_questions_is_there_once(page: str) -> None:
    passages = Parsed(page).embedded()["passages"]

    assert len({tuple(one) for one in passages}) == len(passages)


# Plots


def test_every_plot_is_named_and_described_and_has_its_table(page: str) -> None:
    parsed = Parsed(page)
    ids = {attributes.get("id") for _, attributes in parsed.elements}
    plots = [
        attributes
        for tag, attributes in parsed.elements
        if tag == "svg" and attributes.get("role") == "img"
    ]

    # contained and f1 against vendi, self-bleu and ms; a panel and 4 scorers for each
    assert len(plots) == 2 * 3 + 4 + 4 * 4
    for plot in plots:
        assert set((plot["aria-labelledby"] or "").split()) <= ids
    assert page.count("Table of this plot") == len(plots)


def test_coordinates_are_numbers_inside_the_plot(page: str) -> None:
    for x in re.findall(r' (?:c?x|x[12])="([^"]*)"', page):
        assert -10 <= float(x) <= 480
    assert "nan" not in re.findall(r' d="([^"]*)"', page.casefold())


def test_the_axes_are_of_different_kinds_and_the_cost_is_of_writing() -> None:
    names = [
        *("contained", "f1", "rouge-l", "random", "any", "gap", "perplexity"),
        *("total ms", "rank ms", "write ms", "contained - greedy", "failed"),
        *("distinct-1", "distinct-2", "ead", "self-bleu", "clusters", "distance"),
        *("vendi", "clusters by meaning"),
    ]
    row = Row(config="a", metrics=dict.fromkeys(names, 0.5), intervals={}, n=1)
    report = Report(suite="qa", rows=[row])

    made = scatters(report.rows, Behind(report))

    assert list(dict.fromkeys(one.y_name for one in made)) == ["contained", "any", "f1"]
    assert list(dict.fromkeys(one.x_name for one in made)) == [
        *("vendi", "distinct-2", "clusters", "write ms"),
    ]
    assert {one.x_name for one in made if one.less_x} == {"write ms"}


def test_the_front_has_what_no_other_beats() -> None:
    points = [(0.0, 3.0), (1.0, 1.0), (1.0, 2.0), (2.0, 2.0), (3.0, 0.0), (2.0, 2.0)]

    assert pareto(points) == {0, 3, 4, 5}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8))
def test_whoever_is_not_on_the_front_is_beaten_by_one_that_is(
    points: list[tuple[float, float]],
) -> None:
    front = pareto(points)

    for at, (x, y) in enumerate(points):
        beaten = any(
            points[other][0] >= x and points[other][1] >= y and points[other] != (x, y)
            for other in front
        )
        assert beaten != (at in front)


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, 0.52, [0.35, 0.4, 0.45, 0.5]),
        (-30.0, 60.0, [-20.0, 0.0, 20.0, 40.0, 60.0]),
        (2.0, 2.0, [2.0]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, marks: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(marks)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_lie_between_the_ends(low: float, length: float) -> None:
    marks = ticks(low, low + length)

    assert len(marks) <= 8
    assert all(low - length / 1e3 <= one <= low + length * 1.001 for one in marks)


def test_counts_are_marked_by_whole_numbers() -> None:
    assert whole_ticks(1, 4) == [1, 2, 3, 4]
    assert whole_ticks(1, 20) == [1, 4, 7, 10, 13, 16, 19]
    assert whole_ticks(1, 1) == [1]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (9443.2, "9443"),
        (41.23, "41.2"),
        (-1.239, "-1.24"),
        (0.12345, "0.123"),
        (0.0, "0"),
        (None, "\N{EN DASH}"),
        (float("nan"), "\N{EN DASH}"),
        (float("inf"), "\N{EN DASH}"),
    ],
)
def test_figures_have_the_digits_that_matter(value: float | None, written: str) -> None:
    assert number(value) == written


# Hostile texts

ATTACKS = (
    "<script>document.title='owned'</script>",
    "</script><script>document.title='owned'</script>",
    "<!--<script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "' onmouseover='document.title=1",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnirts desrever\u202c \u2066",
    "zero\x00byte \x1b[31m \x85",
    "line\u2028and\u2029paragraph",
    "lone \ud800 surrogate",
    "</style><svg onload=document.title='owned'>",
    "]]>&lt;&#60;",
)


def a_hostile_report(attack: str) -> Report:
    """Every text that a customer, a model, a document or a plugin can choose."""
    passage: Passage = a_passage(attack, source=attack, headings=[attack], score=1.0)
    turn: Turn = a_turn(attack, [passage], id=attack, history=[an_event(attack)])
    first = a_candidate(
        attack,
        {attack: 1.0},
        origin=attack,
        variant=attack,
        contributions={attack: 1.0},
        rank=1,
    )
    second = replace(first, rank=2, scores={attack: 0.0}, contributions={attack: 0.0})
    lost: Candidate = a_candidate(attack, dropped=f"{attack}: {attack}")
    record = Record(
        turn=turn,
        outcome="answered",
        reply=Reply(text=attack),
        why=attack,
        config=attack,
        candidates=[first, second, lost],
        chosen=0,
        orders={attack: [1, 0]},
        problems=[attack],
        ms={attack: 1.0},
    )
    metrics: Mapping[str, float] = {attack: 1.0, f"distinct {attack}": 1.0}
    detail = Detail(
        config=attack,
        record=record,
        expected=[attack],
        worth=[0.0, 1.0, 1.0],
        metrics=metrics,
    )
    rows = [
        row(attack, {name: [value] for name, value in metrics.items()}),
        row(f"{attack} 2", {name: [2.0] for name in metrics}),
    ]
    return Report(suite=attack, rows=rows, details=[detail])


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_text_is_shown_and_does_nothing(attack: str) -> None:
    harmless = Parsed(html(a_hostile_report("harmless"), title="harmless", made=MADE))

    page = html(a_hostile_report(attack), title=attack, made=MADE)

    parsed = Parsed(page)
    told = parsed.embedded()
    assert elements_of(parsed) == elements_of(harmless)
    assert page.encode("utf-8").decode() == page
    assert not re.search("[\x00\x1b\x85\u202a-\u202e\u2066-\u2069]", page)
    assert told["details"][0]["question"] == visible(attack)
    assert told["details"][0]["candidates"][2][0] == visible(attack)
    assert visible(attack) in "".join(parsed.raw["title"][0])
    assert visible(attack) in parsed.text


def elements_of(parsed: Parsed) -> list[tuple[str, list[str]]]:
    """Which elements there are, and which attributes: texts must not make more."""
    return [(tag, sorted(attributes)) for tag, attributes in parsed.elements]


def test_line_separators_do_not_stand_in_the_data_as_they_are() -> None:
    page = html(a_hostile_report("a\u2028b"), title="separators", made=MADE)

    data = page.split('id="candidates">')[1].split("</script>")[0]

    assert "\u2028" not in data
    assert "<" not in data
    assert json.loads(data)["details"][0]["reply"] == "a\u2028b"


def test_invisible_characters_are_spelled_out_and_others_kept() -> None:
    assert visible("a\x00b\u202ec\x9f") == "a\u2400b[U+202E]c[U+009F]"
    assert visible("\ud800") == "[U+D800]"
    kept = "two\nlines\tand 退款 \U0001f469\u200d\U0001f527 \u05d0\u200f"
    assert visible(kept) == kept


@given(st.text())
def test_what_is_visible_can_be_written_and_stays_as_it_is(text: str) -> None:
    once = visible(text)

    assert once.encode("utf-8").decode() == once
    assert visible(once) == once


# Awkward reports


def test_a_report_of_nothing_is_a_page() -> None:
    page = html(Report(suite="empty", rows=[]), title="Nothing", made=MADE)

    assert Parsed(page).embedded()["details"] == []
    assert "Quality and diversity" not in page


def test_rows_without_answers_are_a_table_without_links() -> None:
    rows = [row("bm25", {"mrr": [0.5, 1.0]}), row("hybrid", {"mrr": [1.0, 1.0]})]

    page = html(Report(suite="retrieval", rows=rows), title="Retrieval", made=MADE)

    parsed = Parsed(page)
    assert "0.750" in parsed.text
    assert parsed.links() == ["#results"]


def test_what_nobody_could_answer_or_judge_is_still_shown() -> None:
    nothing = Record(
        turn=a_turn(id="q1"),
        outcome="declined",
        reply=Reply(text=""),
        why="no candidate",
        config="c0ffee",
    )
    lost = replace(
        nothing,
        turn=a_turn(id="q2"),
        candidates=[a_candidate("", dropped="empty: nothing")],
    )
    details = [
        Detail(config="a", record=nothing, metrics={"f1": float("nan")}),
        Detail(config="a", record=lost),
        Detail(config="unlisted", record=lost),
    ]
    rows = [Row(config="a", metrics={"f1": float("nan")}, intervals={}, n=2)]

    page = html(Report(suite="s", rows=rows, details=details), title="t", made=MADE)

    told = Parsed(page).embedded()
    assert told["configs"] == ["a", "unlisted"]
    assert told["details"][0]["metrics"] == {"f1": None}
    assert told["details"][1]["candidates"][0][0] == ""


def test_equal_values_and_ratings_can_be_plotted() -> None:
    details = [
        replace(
            one,
            worth=[4.0 for _ in one.record.candidates],
            record=replace(
                one.record,
                candidates=[
                    replace(each, scores={"same": 1.0})
                    for each in one.record.candidates
                ],
            ),
        )
        for one in a_report(questions=2, k=3).details
    ]
    rows = [
        Row(
            config="greedy", metrics={"accuracy": 4.0, "vendi": 2.0}, intervals={}, n=2
        ),
        Row(config="t 0.7", metrics={"accuracy": 4.0, "vendi": 2.0}, intervals={}, n=2),
    ]

    page = html(Report(suite="s", rows=rows, details=details), title="t", made=MADE)

    assert "accuracy against vendi" in page
    assert re.findall(r'="(nan|inf|-inf)"', page) == []
    assert not re.search(r"nan|inf", " ".join(re.findall(r' d="([^"]*)"', page)))


def test_scores_that_differ_in_their_last_digit_only_have_a_histogram() -> None:
    candidates = [a_candidate("a", {"up": 1.0}), a_candidate("b", {"up": 1.0 + 2**-52})]
    made = a_report(questions=1, configs=["greedy"]).details[0]
    record = replace(made.record, candidates=candidates, orders={})
    details = [replace(made, record=record, worth=[0.0, 1.0])]
    rows = [
        Row(
            config="greedy",
            metrics={"f1": 0.5, "vendi": 1.0},
            intervals={"f1": (float("nan"), 1.0)},
            n=1,
        )
    ]

    page = html(Report(suite="s", rows=rows, details=details), title="t", made=MADE)

    assert "AUC 1.00, within a question 1.00; 1 worthy, 1 not" in page
    assert re.findall(r'="(nan|inf|-inf)"', page) == []


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.processes
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_opens_a_candidate_set_and_runs_no_hostile_text(
    tmp_path: Path,
) -> None:
    attack = ATTACKS[0] + ATTACKS[1] + ATTACKS[3]
    made = html(a_hostile_report(attack), title="Safe", made=MADE)
    (tmp_path / "report.html").write_text(made, encoding="utf-8")

    dumped = subprocess.run(
        [
            CHROMIUM or "",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=2000",
            "--dump-dom",
            f"{(tmp_path / 'report.html').as_uri()}#q0",
        ],
        capture_output=True,
        timeout=90,
        check=True,
    ).stdout.decode()

    shown = Parsed(dumped)
    assert shown.raw["title"][0].endswith(" \N{EN DASH} Safe")
    assert shown.text.count(attack) > 10
    assert ("table", {"class": "candidates"}) in shown.elements
    assert [tag for tag, _ in shown.elements].count("script") == 2

"""
A turn's record, put into words and into JSON.

Knows the record and nothing else: not where it was stored, not how it is printed. The
same text serves `chorus explain` and the customer's `/why`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import JsonValue, TypeAdapter

from bot.model import ActionRun, Candidate, Passage, Record

_RECORD = TypeAdapter(Record)


def contract(record: Record) -> dict[str, Any]:
    """Return the object of `chorus ask --json`; its keys are a promise."""
    return {
        "turn": record.turn.id,
        "reply": {
            "text": record.reply.text,
            "citations": [
                {"source": citation.source, "passage": citation.passage}
                for citation in record.reply.citations
            ],
        },
        "candidates": [
            {
                "text": candidate.text,
                "scores": dict(candidate.scores),
                "total": candidate.total,
                "rank": candidate.rank,
                "dropped": candidate.dropped,
                "tokens": len(candidate.tokens),
            }
            for candidate in record.candidates
        ],
        "chosen": record.chosen,
        "why": record.why,
        "passages": [
            {"source": passage.source, "text": passage.text, "score": passage.score}
            for passage in record.turn.passages
        ],
        "ms": dict(record.ms),
        "actions": [
            {
                "name": run.name,
                "trigger": run.trigger,
                "events": [dict(event) for event in run.events],
                "problem": run.problem,
            }
            for run in record.actions
        ],
    }


def everything(record: Record, ratings: Sequence[int] = ()) -> dict[str, Any]:
    """
    Return the whole record as JSON values, without the candidates' token lists.
    `ratings` are the last words of those who judged it, 1 or -1 each.
    """
    slim = [
        replace(candidate, tokens=(), log_probs=()) for candidate in record.candidates
    ]
    whole = _RECORD.dump_python(replace(record, candidates=slim), mode="json")
    for shown, candidate in zip(whole["candidates"], record.candidates, strict=True):
        shown["tokens"] = len(candidate.tokens)
        shown["log_probs"] = sum(candidate.log_probs)
    return {**whole, "ratings": list(ratings)}


def text(record: Record, ratings: Sequence[int] = ()) -> str:
    """Return the turn's story as Markdown, and how it was judged."""
    candidates = _without_repeats(record.candidates)
    parts = [
        f"# Turn {record.turn.id}: {record.outcome}",
        f"**Question** {record.turn.question}",
        f"**Reply** {record.reply.text}",
        f"**Why** {record.why}",
        _judged(ratings),
        _actions(record.actions),
        _passages(record.turn.passages),
        _candidates(candidates, record.chosen),
        _contributions(candidates),
        _dropped(candidates),
        _orders(record),
        _list("Problems", record.problems),
        _timing(record),
    ]
    return "\n\n".join(part for part in parts if part)


def text_with_prompt(record: Record, ratings: Sequence[int] = ()) -> str:
    """Return the story for the operator, who may see what the model read."""
    story = text(record, ratings)
    if not record.turn.prompt:
        return story
    # A fence longer than any in the prompt keeps the prompt from closing it.
    fence = "`" * 8
    return f"{story}\n\n## Prompt\n\n{fence}\n{record.turn.prompt}\n{fence}"


def place(passage: Passage) -> str:
    """Name where a passage stands: `refunds.md, page 3, Refunds > Exceptions`."""
    where = [passage.source]
    if passage.page is not None:
        where.append(f"page {passage.page}")
    elif passage.line is not None:
        where.append(f"line {passage.line}")
    if passage.headings:
        where.append(" > ".join(passage.headings))
    return ", ".join(where)


def _judged(ratings: Sequence[int]) -> str:
    good, bad = ratings.count(1), ratings.count(-1)
    return f"**Judged** good by {good}, bad by {bad}" if ratings else ""


def _actions(runs: Sequence[ActionRun]) -> str:
    rows = [
        [
            run.name,
            run.trigger,
            run.where,
            f"{run.ms:.1f}",
            "; ".join(_event(event) for event in run.events),
            run.problem or " / ".join(_short(said) for said in run.said),
        ]
        for run in runs
    ]
    columns = ["action", "why it ran", "where", "ms", "events", "said"]
    return _table("Actions", columns, rows)


def _event(event: Mapping[str, JsonValue]) -> str:
    """Say one of rasa-sdk's events: `slot order_number = LB-10023`, `restart`."""
    kind, name = event.get("event"), event.get("name") or event.get("intent") or ""
    if kind == "slot":
        return f"slot {name} = {_short(str(event.get('value')), 60)}"
    return f"{kind} {name}".rstrip()


def _passages(passages: Sequence[Passage]) -> str:
    rows = [
        [
            f"{passage.score:.2f}",
            " ".join(f"{name} {value:.2f}" for name, value in passage.scores.items()),
            place(passage),
            _short(passage.text),
        ]
        for passage in passages
    ]
    return _table("Retrieved", ["score", "parts", "source", "text"], rows)


def _without_repeats(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates of later blocks without what was settled before them."""
    settled = {one.block: one.text for one in candidates if one.settled}
    return [
        replace(one, text=_going_on(one.text, settled[one.block - 1]))
        if one.block - 1 in settled
        else one
        for one in candidates
    ]


def _going_on(text: str, settled: str) -> str:
    return f"… {text[len(settled) :].lstrip() or '(ends here)'}"


def _candidates(candidates: Sequence[Candidate], chosen: int | None) -> str:
    rows = [
        [
            _place(candidate, sent=position == chosen),
            _number(candidate.total),
            candidate.origin,
            str(len(candidate.tokens)),
            candidate.text,
        ]
        for position, candidate in enumerate(candidates)
        if candidate.dropped is None
    ]
    return _table("Candidates", ["rank", "total", "by", "tokens", "text"], rows)


def _contributions(candidates: Sequence[Candidate]) -> str:
    """One row per candidate: each scorer's number, and what it added to the total."""
    kept = [candidate for candidate in candidates if candidate.scores]
    # A scorer may have failed in one block and not in the next.
    names = list(dict.fromkeys(name for one in kept for name in one.scores))
    rows = [
        [
            _place(candidate),
            *(
                f"{candidate.scores[name]:.3f} ({candidate.contributions[name]:+.2f})"
                if name in candidate.scores
                else ""
                for name in names
            ),
        ]
        for candidate in kept
    ]
    return _table("Scores (and what each added to the total)", ["rank", *names], rows)


def _dropped(candidates: Sequence[Candidate]) -> str:
    rows = [
        [f"{_block(candidate)}{candidate.dropped}", _short(candidate.text)]
        for candidate in candidates
        if candidate.dropped is not None
    ]
    return _table("Dropped", ["why", "text"], rows)


def _place(candidate: Candidate, *, sent: bool = False) -> str:
    """Say where a candidate came to stand: `3`, `sent`, `block 2: 1, settled`."""
    place = f"{candidate.rank}, settled" if candidate.settled else str(candidate.rank)
    return f"{_block(candidate)}{'sent' if sent else place}"


def _block(candidate: Candidate) -> str:
    return f"block {candidate.block}: " if candidate.block else ""


def _orders(record: Record) -> str:
    orders = [
        f"{name}: {' '.join(str(position + 1) for position in order)}"
        for name, order in record.orders.items()
    ]
    return _list("Rerankers (places in the order by total)", orders)


def _timing(record: Record) -> str:
    stages = ", ".join(f"{stage} {ms:.0f} ms" for stage, ms in record.ms.items())
    arm = f", arm {record.arm}" if record.arm else ""
    return (
        f"{stages or 'no stage was timed'}; seed {record.turn.seed}, "
        f"configuration {record.config}{arm}"
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [columns, ["---"] * len(columns), *rows]
    return f"## {title}\n\n" + "\n".join(
        f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines
    )


def _list(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    return f"## {title}\n\n" + "\n".join(f"- {item}" for item in items)


def _cell(content: str) -> str:
    return " ".join(content.split()).replace("|", "\\|")


def _short(content: str, characters: int = 160) -> str:
    flat = " ".join(content.split())
    return flat if len(flat) <= characters else f"{flat[: characters - 1]}…"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

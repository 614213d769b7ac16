"""The soak, for some seconds; and that its verdict notices what it is there for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.customers import NOTHING
from tests.faults.figures import tell
from tests.faults.soak import (
    Answer,
    Fault,
    Limits,
    Run,
    Sample,
    Soak,
    calm,
    main,
    verdict,
    violations,
)

HOUR_S = 3600.0
SECONDS = 20.0


def a_run(
    rss_mib: Callable[[float], float] = lambda _: 50.0,
    fds: Callable[[float], int] = lambda _: 20,
    took_s: Callable[[float], float] = lambda _: 0.1,
    faults: Sequence[Fault] = (),
) -> Run:
    """Make up three hours, from what is measured at each of its seconds."""
    length_s = 3 * HOUR_S
    seconds = [float(second) for second in range(0, int(length_s), 5)]
    return Run(
        length_s=length_s,
        samples=[
            Sample(
                at_s=second,
                rss_mib={"workers": rss_mib(second)},
                fds={"workers": fds(second)},
                lag_s={"workers": 0.001},
            )
            for second in seconds
        ],
        answers=[Answer(asked_s=second, took_s=took_s(second)) for second in seconds],
        faults=faults,
        tally=replace(NOTHING, turns=len(seconds)),
    )


def grows(mib_per_h: float) -> Callable[[float], float]:
    return lambda second: 50.0 + mib_per_h * second / HOUR_S


def test_a_run_in_which_all_is_well_is_told_well() -> None:
    assert violations(a_run(), Limits()) == []


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (a_run(rss_mib=grows(2.0)), "workers grow by 2.0 MiB an hour"),
        (
            a_run(fds=lambda second: 20 + int(second / 600)),
            "workers had 26 files open and have 37",
        ),
        (
            a_run(took_s=lambda second: 0.1 if second < 2 * HOUR_S else 0.15),
            "p99 was 100 ms and is 150 ms",
        ),
        (replace(a_run(), tally=replace(NOTHING, lost=1)), "lost: 1"),
        (replace(a_run(), tally=replace(NOTHING, repeated=2)), "repeated: 2"),
        (replace(a_run(), tally=replace(NOTHING, out_of_order=3)), "out of order: 3"),
        (replace(a_run(), tally=replace(NOTHING, wrong_state=4)), "wrong state: 4"),
        (replace(a_run(), samples=[]), "too little was measured"),
        (replace(a_run(), answers=[]), "too little was measured"),
    ],
)
def test_what_must_not_be_is_told(run: Run, told: str) -> None:
    assert violations(run, Limits()) == [told]


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(a_run(rss_mib=grows(0.9)), id="less than may be"),
        pytest.param(a_run(rss_mib=grows(-5)), id="shrinks"),
        pytest.param(
            a_run(rss_mib=lambda second: 30 + min(second, 600) / 30), id="warms up"
        ),
        pytest.param(
            a_run(rss_mib=lambda second: 50 + second % 60 / 30), id="up and down"
        ),
    ],
)
def test_what_is_no_leak_is_not_taken_for_one(run: Run) -> None:
    assert violations(run, Limits()) == []


def test_an_answer_that_a_fault_was_near_is_not_calm() -> None:
    faults = [
        Fault(kind="kill workers", from_s=10, until_s=12),
        Fault(kind="stop workers", from_s=10.5, until_s=11),
        Fault(kind="kill workers", from_s=30, until_s=32),
    ]
    answers = {
        "before": Answer(asked_s=9.8, took_s=0.1),
        "until it began": Answer(asked_s=9.8, took_s=0.3),
        "in it": Answer(asked_s=11.5, took_s=0.1),
        "over all of it": Answer(asked_s=9, took_s=10),
        "after it": Answer(asked_s=12.1, took_s=0.1),
        "before the next": Answer(asked_s=29, took_s=0.5),
        "into the next": Answer(asked_s=29, took_s=1.5),
    }

    found = calm(list(answers.values()), faults)

    assert found == [answers[one] for one in ("before", "after it", "before the next")]


@pytest.mark.parametrize(("lost", "code"), [(0, 0), (1, 1)])
def test_the_program_ends_with_1_when_something_did_not_hold(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost: int,
    code: int,
) -> None:
    async def run(soak: Soak) -> Run:
        return replace(a_run(), tally=replace(NOTHING, lost=lost))

    monkeypatch.setattr(Soak, "run", run)
    monkeypatch.setattr("sys.argv", ["soak.py", "--minutes", "1"])

    ended = main()

    assert ended == code
    assert ("violated:" in capsys.readouterr().out) == bool(lost)


@pytest.mark.services
async def test_some_seconds_of_it_go_well(tmp_path: Path) -> None:
    run = await Soak(minutes=SECONDS / 60, rate=20, folder=tmp_path).run()

    # In so short a time the machine's other work is most of what can be measured.
    told, wrong = verdict(run, Limits(growth_mib=10, p99_noise_s=0.5))
    tell(told)
    assert wrong == []
    assert len(run.answers) == pytest.approx(20 * SECONDS, abs=20)
    assert len(run.faults) >= 2

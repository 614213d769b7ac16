"""What is wrong with a response is told where it stands, and the rest is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot import config_file

MINIMAL = """
knowledge: {model: embedder}
generation: {model: generator}
"""
BUTTON = "a button has a title, and a payload or a url"


def drafted(folder: Path, responses: str) -> config_file.Draft:
    path = folder / "bot.yaml"
    path.write_text(f"{MINIMAL}actions: {{responses: {responses}}}\n", encoding="utf-8")
    return config_file.read(path)


def problems_of(folder: Path, responses: str) -> list[str]:
    """Return the problems without the file's name."""
    return [
        problem.removeprefix(f"{folder / 'bot.yaml'}: ")
        for problem in drafted(folder, responses).problems
    ]


def test_a_response_has_a_wording(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "{utter_a: []}")

    assert problem.startswith(
        "actions.responses.utter_a: empty; write a wording, such as `- text: Hello`"
    )


@pytest.mark.parametrize(
    "wording",
    [
        "{}",
        "{text: ''}",
        '{text: " \\n"}',
        "{channel: slack, reword: true}",
        "{image: '', attachment: '', buttons: [], custom: {}}",
    ],
)
def test_a_wording_shows_something(tmp_path: Path, wording: str) -> None:
    (problem,) = problems_of(tmp_path, f"{{utter_a: [{{text: A}}, {wording}]}}")

    assert problem.startswith(
        "actions.responses.utter_a[1]: shows nothing; write text, buttons, image, "
        "attachment or custom"
    )


@pytest.mark.parametrize(
    "wording",
    [
        "{text: A}",
        "{buttons: [{title: A, payload: /a}]}",
        "{buttons: [{title: A, url: 'https://a.example'}]}",
        "{buttons: [{title: A, url: 'https://a.example', type: web_url}]}",
        "{image: 'https://a.example/a.png'}",
        "{attachment: 'https://a.example/a.pdf'}",
        "{custom: {a: 1}}",
    ],
)
def test_any_part_is_enough(tmp_path: Path, wording: str) -> None:
    assert problems_of(tmp_path, f"{{utter_a: [{wording}]}}") == []


@pytest.mark.parametrize(
    ("button", "told"),
    [
        ("{}", f"no title; {BUTTON}"),
        ("{payload: /a}", f"no title; {BUTTON}"),
        ("{title: ' ', payload: /a}", f"no title; {BUTTON}"),
        ("{title: A}", f"no payload or url; {BUTTON}"),
        ("{title: A, payload: ''}", f"no payload or url; {BUTTON}"),
        ("{title: A, paylod: /a}", f"unknown key 'paylod'; {BUTTON}"),
        ("{titel: A, payload: /a}", f"unknown key 'titel'; {BUTTON}"),
    ],
)
def test_a_button_says_what_it_does(tmp_path: Path, button: str, told: str) -> None:
    good = "{title: B, payload: /b}"
    problems = problems_of(
        tmp_path, f"{{utter_a: [{{text: A, buttons: [{good}, {button}]}}]}}"
    )

    assert len(problems) == 1
    assert problems[0].startswith(f"actions.responses.utter_a[0].buttons[1]: {told}")


def test_what_is_wrong_with_responses_is_told_at_once_and_the_rest_is_read(
    tmp_path: Path,
) -> None:
    draft = drafted(
        tmp_path,
        "{utter_a: [], utter_b: [{}, {buttons: [{}, {title: A}, 5]}, {text: B}], "
        "utter_c: [{text: C}]}",
    )

    keys = [problem.split(": ")[1] for problem in draft.problems]
    assert keys == [
        "actions.responses.utter_a",
        "actions.responses.utter_b[0]",
        "actions.responses.utter_b[1].buttons[0]",
        "actions.responses.utter_b[1].buttons[1]",
        "actions.responses.utter_b[1].buttons[2]",
    ]
    left = draft.config.actions.responses
    assert [one.text for one in left["utter_b"]] == ["B"]
    assert [one.text for one in left["utter_c"]] == ["C"]

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fpdf import FPDF

from bot.errors import KnowledgeError
from bot.knowledge.documents import Document, Found, find_files, parse

Parse = Callable[..., Document]


@pytest.fixture
def parsed(tmp_path: Path) -> Parse:
    def run(name: str, content: str | bytes) -> Document:
        raw = content if isinstance(content, bytes) else content.encode()
        return parse(Found(source=name, path=tmp_path / name), raw)

    return run


def texts(document: Document) -> list[str]:
    return [block.text for block in document.blocks]


MARKDOWN = """\
---
title: Returns
date: 2026-03-01
tags: [a, b]
---
# Returns and refunds

Send it *back* within `30` days,
unused. <!-- not this -->

## Fees

| Bike | Fee |
|------|-----|
| Wren | €5 |
| Heron | |

1. Pack it.
2. Post it.
   - by train

> A note.

## Contact
"""


def test_markdown_keeps_headings_lines_and_front_matter(parsed: Parse) -> None:
    document = parsed("returns.md", MARKDOWN)

    assert document.title == "Returns"
    assert document.metadata == {"date": "2026-03-01", "tags": "a, b"}
    assert [(block.line, block.text) for block in document.blocks] == [
        (8, "Send it back within 30 days, unused."),
        (15, "Bike: Wren; Fee: €5"),
        (16, "Bike: Heron"),
        (18, "1. Pack it."),
        (19, "2. Post it."),
        (20, "- by train"),
        (22, "A note."),
        (24, "Contact"),
    ]
    assert document.blocks[1].headings == ("Returns and refunds", "Fees")
    assert document.blocks[-1].headings == ("Returns and refunds",)


HTML = """<!doctype html>
<html><head><title>Zones</title><meta name="date" content="2025-01-02">
<style>p {}</style></head>
<body><nav>Home</nav><header>Logo</header>
<h1>Shipping zones</h1><p>We ship <b>worldwide</b>,<br>mostly.</p>
<script>var x</script>
<table><caption>Prices</caption><tr><th>Zone</th><th>Price</th></tr>
<tr><td>P1</td><td>€5</td></tr></table>
<ul><li>One</li><li>Two</li></ul>
<footer>Imprint</footer></body></html>"""


def test_html_keeps_the_content_and_drops_what_is_around_it(parsed: Parse) -> None:
    document = parsed("zones.html", HTML)

    assert document.title == "Zones"
    assert document.metadata == {"date": "2025-01-02"}
    assert texts(document) == [
        "We ship worldwide, mostly.",
        "Prices",
        "Zone: P1; Price: €5",
        "- One",
        "- Two",
    ]
    assert document.blocks[0].headings == ("Shipping zones",)


def test_html_in_a_declared_encoding_is_read(parsed: Parse) -> None:
    html = '<meta charset="gbk"><p>退款需要五天。</p>'

    document = parsed("gbk.html", html.encode("gbk"))

    assert texts(document) == ["退款需要五天。"]


def test_a_table_reads_the_same_without_the_ends_that_html_lets_one_leave_out(
    parsed: Parse,
) -> None:
    rows = [["th", "Zone", "Price"], ["td", "P1", "€5"], ["td", "P2", "€7"]]
    opened = [
        "<tr>" + "".join(f"<{tag}>{cell}" for cell in cells) for tag, *cells in rows
    ]
    closed = [
        "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"
        for tag, *cells in rows
    ]

    read = [
        texts(parsed("a.html", f"<table>{''.join(lines)}</table>"))
        for lines in (opened, closed)
    ]

    assert read == [["Zone: P1; Price: €5", "Zone: P2; Price: €7"]] * 2


def test_html_nested_without_end_is_read(parsed: Parse) -> None:
    deep = "<div>" * 5_000 + "deep" + "</div>" * 5_000

    document = parsed("deep.html", f"<p>First</p>{deep}<p>Last</p>")

    assert texts(document) == ["First", "deep", "Last"]


def test_plain_text_is_unwrapped_under_its_headings(parsed: Parse) -> None:
    text = "Notice\n======\n\nCards are replaced in\nMay.\n\nPRICES\n\n- one card: €5\n"

    document = parsed("notice.txt", text)

    assert document.title == "Notice"
    assert [(block.line, block.text) for block in document.blocks] == [
        (4, "Cards are replaced in May."),
        (9, "- one card: €5"),
    ]
    assert document.blocks[1].headings == ("Notice", "PRICES")


def test_a_title_is_made_of_the_name_when_there_is_no_other(parsed: Parse) -> None:
    assert parsed("winter-guide_2.txt", "Ride slowly.").title == "Winter guide 2"


def test_pdf_pages_are_numbered(parsed: Parse) -> None:
    pdf = FPDF()
    pdf.set_title("Manual")
    for text in ("Charge the battery overnight.", "Oil the chain monthly."):
        pdf.add_page()
        pdf.set_font("Helvetica")
        pdf.write(text=text)

    document = parsed("manual.pdf", bytes(pdf.output()))

    assert document.title == "Manual"
    assert [(block.page, block.text) for block in document.blocks] == [
        (1, "Charge the battery overnight."),
        (2, "Oil the chain monthly."),
    ]


def an_encrypted_pdf() -> bytes:
    pdf = FPDF()
    pdf.set_encryption(owner_password="o", user_password="secret")  # noqa: S106
    pdf.add_page()
    return bytes(pdf.output())


def a_pdf_without_text() -> bytes:
    pdf = FPDF()
    pdf.add_page()
    pdf.rect(10, 10, 50, 50)
    return bytes(pdf.output())


@pytest.mark.parametrize(
    ("name", "raw", "complaint"),
    [
        ("a.pdf", an_encrypted_pdf(), "asks for a password; save a copy without one"),
        ("a.pdf", a_pdf_without_text(), "holds no text, only pictures of it; run it"),
        ("a.pdf", b"%PDF-1.7\nbroken", "not a readable PDF"),
        ("a.pdf", b"", "not a readable PDF"),
        ("a.md", b"", "the document is empty, no text was found in 0 bytes"),
        ("a.html", b"<nav>only</nav>", "the document is empty"),
        ("a.txt", b"fine\ncaf\xe9\n", "not valid UTF-8, found byte 0xe9 in line 2"),
        ("a.html", b'<meta charset="klingon"><p>x', "unknown encoding 'klingon'"),
        ("a.md", b"---\na: [\n---\ntext", "the front matter is not YAML"),
        ("a.md", b"---\na: " + b"[" * 20_000 + b"\n---\nx", "is not YAML"),
        ("a.md", b"---\na: &x [y]\nb: *x\n---\ntext", "it has an alias"),
        ("a.md", b"---\njust words\n---\ntext", "the front matter has no keys"),
    ],
)
def test_a_bad_document_is_named_with_what_to_do(
    parsed: Parse, name: str, raw: bytes, complaint: str
) -> None:
    with pytest.raises(KnowledgeError) as caught:
        parsed(name, raw)

    [problem] = caught.value.problems
    assert problem.split(": ")[0].endswith(name)
    assert complaint in problem


def test_files_are_called_by_their_path_under_the_root(tmp_path: Path) -> None:
    write(tmp_path / "docs" / "de" / "a.md")
    write(tmp_path / "docs" / "b.TXT")
    write(tmp_path / "docs" / ".hidden" / "c.md")

    files = find_files([tmp_path / "docs"])

    assert [file.source for file in files.found] == ["b.TXT", "de/a.md"]


def test_the_same_name_under_two_roots_stays_apart(tmp_path: Path) -> None:
    write(tmp_path / "x" / "docs" / "a.md")
    write(tmp_path / "y" / "docs" / "a.md")
    write(tmp_path / "y" / "docs" / "b.md")

    files = find_files([tmp_path / "x" / "docs", tmp_path / "y" / "docs"])

    sources = [file.source for file in files.found]
    assert sources == ["b.md", "x/docs/a.md", "y/docs/a.md"]


def test_a_file_under_two_roots_is_one_document(tmp_path: Path) -> None:
    write(tmp_path / "docs" / "a.md")

    files = find_files([tmp_path / "docs", tmp_path / "docs" / "a.md"])

    assert [file.source for file in files.found] == ["a.md"]


def test_what_cannot_be_found_or_read_is_a_problem_each(tmp_path: Path) -> None:
    write(tmp_path / "docs" / "photo.jpeg")
    write(tmp_path / "docs" / "a.md")

    files = find_files([tmp_path / "missing", tmp_path / "docs"])

    assert [file.source for file in files.found] == ["a.md"]
    assert files.unseen == [tmp_path / "missing"]
    missing, unknown = files.problems
    assert "missing: no such file or folder" in missing
    assert "cannot read '.jpeg' files, only .md" in unknown


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text")

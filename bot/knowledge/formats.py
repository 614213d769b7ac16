# ruff: noqa: SIM905 - lists of words read best as text
"""
Markdown, plain text, HTML and PDF: bytes in, a title, metadata and blocks out.

Knows no paths. A reader raises `Unreadable` with the rest of a sentence whose
beginning, the file, is known to `documents`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pypdf
import yaml
from bs4 import BeautifulSoup, Tag
from bs4.dammit import EncodingDetector
from bs4.element import NavigableString, PageElement, PreformattedString
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from bot.knowledge.blocks import Block, Outline, row_text
from bot.text import cleaned, on_one_line, unwrapped


class Unreadable(Exception):
    """Why a document cannot be read, and what to do: the end of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a format says about itself; an empty title means that it says none."""

    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    blocks: Sequence[Block] = ()


def read_markdown(raw: bytes) -> Contents:
    text = _decoded(raw)
    metadata, body = _front_matter(text)
    outline = Outline()
    tree = SyntaxTreeNode(MarkdownIt("commonmark").enable("table").parse(body))
    _read_nodes(tree.children, outline)
    blocks = outline.finish()
    title = metadata.pop("title", "") or outline.first_heading
    return Contents(title=title, metadata=metadata, blocks=blocks)


def read_plain_text(raw: bytes) -> Contents:
    outline = Outline()
    lines = cleaned(_decoded(raw)).split("\n")
    for first, paragraph in _paragraphs(lines):
        level = _underline(paragraph)
        if level is not None:
            outline.heading(level, paragraph[0], line=first)
            paragraph, first = paragraph[2:], first + 2  # noqa: PLW2901 - the heading is read
        elif _is_capitals(paragraph):
            outline.heading(2, paragraph[0], line=first)
            continue
        for offset, text in unwrapped(paragraph):
            outline.add(text, line=first + offset)
    return Contents(title=outline.first_heading, blocks=outline.finish())


def read_html(raw: bytes) -> Contents:
    # html.parser, not lxml: it keeps line numbers and never touches the network.
    soup = BeautifulSoup(_decoded_html(raw), "html.parser")
    title = _html_title(soup)
    metadata = {
        str(meta["name"]).casefold(): on_one_line(str(meta["content"]))
        for meta in soup.find_all("meta", attrs={"name": True, "content": True})
        if str(meta["name"]).casefold() not in _BROWSER_METADATA
    }
    outline = Outline()
    _HtmlWalk(outline).read(soup)
    return Contents(title=title, metadata=metadata, blocks=outline.finish())


def read_pdf(raw: bytes) -> Contents:
    try:
        title, blocks = _read_pages(pypdf.PdfReader(io.BytesIO(raw)))
    except Unreadable:
        raise
    except Exception as error:
        # pypdf raises whatever its parsing of a broken file trips over.
        raise Unreadable(
            f"not a readable PDF, {_reason(error)}; open it and save it again"
        ) from error
    if not blocks:
        raise Unreadable(
            "the PDF holds no text, only pictures of it; run it through OCR first"
        )
    return Contents(title=on_one_line(cleaned(title)), blocks=blocks)


READERS: Mapping[str, Callable[[bytes], Contents]] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_plain_text,
    ".html": read_html,
    ".htm": read_html,
    ".pdf": read_pdf,
}


def _decoded(raw: bytes, encoding: str = "utf-8-sig") -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{raw[error.start]:02x} in line {line}"
        raise Unreadable(
            f"not valid {encoding.removesuffix('-sig').upper()}, found {found}; "
            "save the file as UTF-8"
        ) from error


def _reason(error: Exception) -> str:
    return on_one_line(str(error)) or type(error).__name__


# Markdown

_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$\n?", re.DOTALL | re.MULTILINE
)


class _Plain(yaml.BaseLoader):
    """
    Makes strings of everything: 2024-01-05 and 3.10 stay as written. Refuses aliases: a
    dozen lines of them are gigabytes once they are written out.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name)")
        return super().compose_node(parent, index)


def _front_matter(text: str) -> tuple[dict[str, str], str]:
    """Return the metadata and the text with blank lines in its place."""
    text = text.replace("\r\n", "\n")
    found = _FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    try:
        values = yaml.load(found.group(1), Loader=_Plain)  # noqa: S506
    except (yaml.YAMLError, RecursionError) as error:
        raise Unreadable(
            f"the front matter is not YAML, {_reason(error)}; correct or remove it"
        ) from error
    if values and not isinstance(values, dict):
        raise Unreadable("the front matter has no keys; write `key: value` lines")
    body = "\n" * found.group().count("\n") + text[found.end() :]
    return {str(key): _as_text(value) for key, value in (values or {}).items()}, body


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_as_text(item) for item in value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _read_nodes(nodes: Sequence[SyntaxTreeNode], outline: Outline) -> None:
    for node in nodes:
        line = node.map[0] + 1 if node.map else None
        match node.type:
            case "heading":
                outline.heading(int(node.tag[1:]), _inline_text(node), line=line)
            case "paragraph":
                outline.add(_inline_text(node), line=line)
            case "bullet_list" | "ordered_list":
                _read_list(node, outline)
            case "table":
                _read_table(node, outline)
            case "fence" | "code_block":
                outline.add(node.content, line=line)
            case "html_block":
                html = BeautifulSoup(node.content, "html.parser")
                outline.add(on_one_line(html.get_text(" ")), line=line)
            case _:
                _read_nodes(node.children, outline)


def _read_list(node: SyntaxTreeNode, outline: Outline) -> None:
    first = int(node.attrs.get("start", 1))
    for number, item in enumerate(node.children, first):
        mark = f"{number}." if node.type == "ordered_list" else "-"
        for index, child in enumerate(item.children):
            if child.type == "paragraph":
                line = child.map[0] + 1 if child.map else None
                text = _inline_text(child)
                outline.add(f"{mark} {text}" if index == 0 else text, line=line)
            else:
                _read_nodes([child], outline)


def _read_table(node: SyntaxTreeNode, outline: Outline) -> None:
    rows = [row for part in node.children for row in part.children]
    columns = [_inline_text(cell) for cell in rows[0].children]
    for row in rows[1:]:
        cells = [_inline_text(cell) for cell in row.children]
        line = row.map[0] + 1 if row.map else None
        outline.add(row_text(columns, cells), line=line)


def _inline_text(node: SyntaxTreeNode) -> str:
    return on_one_line("".join(_inline_pieces(node)))


def _inline_pieces(node: SyntaxTreeNode) -> Iterator[str]:
    match node.type:
        case "text" | "code_inline":
            yield node.content
        case "softbreak" | "hardbreak":
            yield " "
        case "html_inline":
            yield " " if node.content.startswith("<br") else ""
        case _:
            for child in node.children:
                yield from _inline_pieces(child)


# Plain text


def _paragraphs(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield runs of lines that are not blank, each with its first line's number."""
    run: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        if line.strip():
            run.append(line)
        elif run:
            yield number - len(run), run
            run = []


def _underline(paragraph: Sequence[str]) -> int | None:
    """Return the heading level of a first line underlined with `===` or `---`."""
    if len(paragraph) < 2:  # noqa: PLR2004 - a line and the line under it
        return None
    marks = set(paragraph[1].strip())
    if len(paragraph[1].strip()) < 3:  # noqa: PLR2004 - shorter is a dash, not a rule
        return None
    return 1 if marks == {"="} else 2 if marks == {"-"} else None


def _is_capitals(paragraph: Sequence[str]) -> bool:
    line = paragraph[0].strip()
    return len(paragraph) == 1 and line.isupper() and not line.endswith((".", "!"))


# HTML

_BROWSER_METADATA = frozenset(
    {"viewport", "generator", "robots", "theme-color", "color-scheme", "referrer"}
)
_NOT_CONTENT = frozenset(
    "nav script style footer header noscript template svg iframe form button select "
    "head title".split()
)
_INLINE = frozenset(
    "a abbr b bdi bdo big cite code data del dfn em font i img ins kbd label mark q s "
    "samp small span strike strong sub sup time tt u var wbr".split()
)
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})


def _decoded_html(raw: bytes) -> str:
    declared = EncodingDetector.find_declared_encoding(raw, is_html=True)
    try:
        return _decoded(raw, declared) if declared else _decoded(raw)
    except LookupError as error:
        raise Unreadable(
            f"unknown encoding {declared!r}; save the file as UTF-8"
        ) from error


def _html_title(soup: BeautifulSoup) -> str:
    for tag in (soup.title, soup.h1):
        title = on_one_line(cleaned(tag.get_text(" "))) if tag else ""
        if title:
            return title
    return ""


class _HtmlWalk:
    """
    Reads a tree in order with a stack of its own: no recursion survives hostile
    nesting. A string on the stack marks the end of a block.
    """

    def __init__(self, outline: Outline) -> None:
        self._outline = outline
        self._stack: list[PageElement | str] = []
        self._pieces: list[str] = []
        self._line: int | None = None

    def read(self, root: Tag) -> None:
        self._stack = [root]
        while self._stack:
            node = self._stack.pop()
            if isinstance(node, Tag):
                self._open(node)
            elif not isinstance(node, NavigableString):
                self._flush()
            elif not isinstance(node, PreformattedString):
                # Comments, doctypes and their like are preformatted strings.
                self._pieces.append(str(node))
        self._flush()

    def _open(self, tag: Tag) -> None:
        if tag.name in _INLINE:
            self._stack.extend(reversed(tag.contents))
        elif tag.name == "br":
            self._pieces.append(" ")
        elif tag.name not in _NOT_CONTENT:
            self._flush()
            self._line = tag.sourceline
            self._open_block(tag)

    def _open_block(self, tag: Tag) -> None:
        if tag.name in _HEADINGS:
            self._outline.heading(int(tag.name[1]), tag.get_text(" "), line=self._line)
        elif tag.name == "table":
            _read_html_table(tag, self._outline)
        elif tag.name == "pre":
            self._outline.add(tag.get_text(), line=self._line)
        else:
            self._pieces.append("- " if tag.name == "li" else "")
            self._stack.append("end of block")
            self._stack.extend(reversed(tag.contents))

    def _flush(self) -> None:
        text = on_one_line("".join(self._pieces))
        self._pieces.clear()
        if text.strip("- "):
            self._outline.add(text, line=self._line)


def _read_html_table(table: Tag, outline: Outline) -> None:
    columns: list[str] = []
    if table.caption:
        outline.add(on_one_line(table.caption.get_text(" ")), line=table.sourceline)
    for row in _html_rows(table):
        if all(cell.is_heading for cell in row.cells):
            columns = [cell.text for cell in row.cells]
        else:
            cells = [cell.text for cell in row.cells]
            outline.add(row_text(columns, cells), line=row.line)


@dataclass(slots=True)
class _HtmlCell:
    is_heading: bool
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return on_one_line(" ".join(self.pieces))


@dataclass(slots=True)
class _HtmlRow:
    line: int | None
    cells: list[_HtmlCell] = field(default_factory=list)


def _html_rows(table: Tag) -> list[_HtmlRow]:
    """
    Return the rows of a table and of those inside it. A text belongs to the cell that
    began last: </td> and </tr> may be left out, and html.parser then puts each row
    inside the one before it.
    """
    rows: list[_HtmlRow] = []
    for node in table.descendants:
        if isinstance(node, Tag):
            if node.name == "tr":
                rows.append(_HtmlRow(node.sourceline))
            elif node.name in {"th", "td"} and rows:
                rows[-1].cells.append(_HtmlCell(node.name == "th"))
        elif type(node) is NavigableString and rows and rows[-1].cells:
            rows[-1].cells[-1].pieces.append(str(node))
    return rows


# PDF


def _read_pages(reader: pypdf.PdfReader) -> tuple[str, tuple[Block, ...]]:
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("the PDF asks for a password; save a copy without one")
    outline = Outline()
    for number, page in enumerate(reader.pages, 1):
        for _, text in unwrapped(_dehyphenated(page.extract_text())):
            outline.add(text, page=number)
    title = reader.metadata.title if reader.metadata else None
    return title or "", outline.finish()


def _dehyphenated(text: str) -> list[str]:
    """Return the lines of a page with words joined that a line's end had divided."""
    return re.sub(r"(?<=[^\W\d_])[-\u00ad]\n(?=[a-zà-ÿ])", "", text).split("\n")

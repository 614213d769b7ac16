"""
Markdown: a long text in pieces that each stand on their own, with nothing live in it.

Pieces end between blocks where they can; a list or a table is torn only where it is too
long, a table takes its head along, and a code fence is closed and opened again. Pure
functions; knows nothing of Slack but how it mentions people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Shows as nothing, and breaks what Slack would read as a mention or an image.
_JOINER = "\u2060"
_LIVE = ("<!", "<@", "<#")


def harmless(text: str) -> str:
    """
    Return `text` so that nobody is notified by it and no image is loaded for it: what a
    model writes may have been put there by a document. An image becomes a link.
    """
    for opening in _LIVE:
        text = text.replace(opening, f"<{_JOINER}{opening[1]}")
    before, *opened = text.split("![")
    for piece in opened:
        # Anything else may be code, such as Rust's `vec![1]`, and stays readable.
        is_image = piece[piece.find("]") :].startswith("](")
        before += "[" if is_image else f"!{_JOINER}["
        before += piece
    return before


def split(text: str, limit: int) -> list[str]:
    """Return `text` in pieces of at most `limit` characters, in order."""
    if len(text) <= limit:
        return [text]
    pieces: list[str] = []
    room = ""
    for block in _blocks(text):
        joined = f"{room}\n\n{block.text}" if room else block.text
        if len(joined) <= limit:
            room = joined
            continue
        if room:
            pieces.append(room)
        *whole, room = _torn(block, limit)
        pieces += whole
    return [*pieces, room] if room.strip() else pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Lines that belong together; `head` and `tail` go with every piece of them."""

    lines: list[str]
    head: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "\n".join([*self.head, *self.lines, *self.tail])


def _torn(block: _Block, limit: int) -> list[str]:
    """Return a block in pieces, torn between lines, or within one that is too long."""
    if len(block.text) <= limit:
        return [block.text]
    around = sum(len(line) + 1 for line in (*block.head, *block.tail))
    if around * 2 > limit:
        # Hardly any room is left beside a head as long as that.
        block, around = _Block(lines=[*block.head, *block.lines, *block.tail]), 0
    pieces: list[list[str]] = [[]]
    size = 0
    for line in _short(block.lines, limit - around):
        if pieces[-1] and size + len(line) + 1 > limit - around:
            pieces.append([])
            size = 0
        pieces[-1].append(line)
        size += len(line) + 1
    return ["\n".join([*block.head, *piece, *block.tail]) for piece in pieces]


def _short(lines: list[str], limit: int) -> Iterator[str]:
    """Cut lines that are longer than a piece, at a space where there is one."""
    for line in lines:
        left = line
        while len(left) >= limit:
            space = left.rfind(" ", limit // 2, limit - 1)
            cut = limit - 1 if space < 0 else space
            yield left[:cut]
            left = left[cut:].lstrip(" ") if space >= 0 else left[cut:]
        yield left


def _blocks(text: str) -> Iterator[_Block]:
    """
    Group lines: a code fence, a table, a list with what is indented under its items,
    else a paragraph.
    """
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
        elif (fence := _fence(lines[at])) is not None:
            end = _end_of_fence(lines, at, fence)
            yield _fenced(lines[at:end], fence)
            at = end
        else:
            end = _end_of_list(lines, at) if _is_item(lines[at]) else _gap(lines, at)
            yield _table_or_text(lines[at:end])
            at = end


def _fence(line: str) -> str | None:
    """Return the marks that open a code fence; None where the line is none."""
    marks = line.lstrip(" ")
    for mark in "`~":
        run = len(marks) - len(marks.lstrip(mark))
        if run >= 3 and not (mark == "`" and "`" in marks[run:]):  # noqa: PLR2004 (CommonMark's three)
            return mark * run
    return None


def _end_of_fence(lines: list[str], at: int, fence: str) -> int:
    for number in range(at + 1, len(lines)):
        if _closes(lines[number], fence):
            return number + 1
    return len(lines)


def _closes(line: str, fence: str) -> bool:
    marks = line.strip()
    return len(marks) >= len(fence) and not marks.strip(fence[0])


def _fenced(lines: list[str], fence: str) -> _Block:
    body = lines[1:-1] if len(lines) > 1 and _closes(lines[-1], fence) else lines[1:]
    return _Block(lines=body, head=(lines[0],), tail=(fence,))


def _table_or_text(lines: list[str]) -> _Block:
    if len(lines) > 2 and "|" in lines[0] and _is_ruler(lines[1]):  # noqa: PLR2004 (a head and a ruler)
        return _Block(lines=lines[2:], head=tuple(lines[:2]))
    return _Block(lines=lines)


def _is_ruler(line: str) -> bool:
    return "-" in line and not line.strip(" |:-\t")


def _is_item(line: str) -> bool:
    mark, space, _ = line.strip().partition(" ")
    if mark[-1:] in {".", ")"}:
        return bool(space) and mark[:-1].isdigit()
    return bool(space) and mark in {"-", "*", "+"}


def _gap(lines: list[str], at: int) -> int:
    """Return where a paragraph ends: at an empty line, or where code begins."""
    end = at + 1
    while end < len(lines) and lines[end].strip() and _fence(lines[end]) is None:
        end += 1
    return end


def _end_of_list(lines: list[str], at: int) -> int:
    """Return where a list ends: what follows a gap is neither an item nor indented."""
    end = at + 1
    while end < len(lines):
        line = lines[end]
        if not line.strip():
            rest = next((one for one in lines[end:] if one.strip()), "")
            if not (_is_item(rest) or rest.startswith(("  ", "\t"))):
                return end
        elif not line.startswith(" ") and _fence(line) is not None:
            return end
        end += 1
    return end

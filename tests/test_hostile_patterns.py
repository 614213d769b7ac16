"""
F14 of the fault table: no pattern of ours takes long, whatever it is shown.

Python's `re` goes back over what it has read, so a careless pattern takes minutes over
a line of the right kind, and holds the interpreter meanwhile. Every pattern of every
module is run over texts made to provoke that. A child process does it (this file is
also its program), because nothing else can be stopped: the kernel ends it when it has
computed for too long, and the next child goes on with the next pattern.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from pathlib import Path

import pytest

from bot.blocks import ends_block
from bot.text import (
    cleaned,
    content_words,
    estimated_tokens,
    sentence_spans,
    stems,
    unwrapped,
)

pytestmark = pytest.mark.slow  # test-fast does without

PACKAGES = ("bot", "plugins", "connectors")

# A linear pattern takes a tenth of it; one that goes back takes a thousand times it.
SECONDS_PER_CHARACTER = 2e-6
KILLED_AFTER = 10  # times that
TRIES = 3  # the machine has other things to do, too

# One of each kind of character that patterns tell apart.
PIECES = ("a", "1", " ", "\n", ".", "-", "_", "字", "\u0301")
# What a pattern may fail on at last: nothing, none of the kinds, a letter, a space.
ENDS = ("", "\0", "a", " ")

Places = dict[tuple[str, int], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """A long text: a beginning, something over and over, an end."""

    start: str = ""
    again: str
    end: str = ""

    def __str__(self) -> str:
        return f"{self.start!r} + {self.again!r} * n + {self.end!r}"

    def text(self, length: int) -> str:
        return self.start + self.again * (length // len(self.again)) + self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a child is told: patterns, each with its flags, and how to read them."""

    patterns: Sequence[tuple[str, int]]
    length: int
    thorough: bool = False

    @property
    def limit_s(self) -> float:
        return self.length * SECONDS_PER_CHARACTER


@pytest.fixture(scope="module")
def shipped() -> Places:
    places: Places = {}
    for module in modules():
        where = module.__name__
        written = Path(str(module.__file__)).read_text(encoding="utf-8")
        for name, pattern in [*kept(module), *inline(written, where)]:
            places.setdefault((source(pattern), pattern.flags), f"{where}{name}")
    assert places, "no pattern was found, so nothing is tried"
    return places


def test_no_pattern_takes_long(shipped: Places) -> None:
    slow = read(Reading(patterns=list(shipped), length=20_000))

    assert not slow, told(slow, shipped)


@pytest.mark.skipif(
    os.environ.get("CHORUS_FAULTS") != "full",
    reason="make faults does it: more than a minute of the same, at full length",
)
@pytest.mark.timeout(600)
def test_no_pattern_takes_long_over_100_kb_of_any_two_kinds(shipped: Places) -> None:
    slow = read(Reading(patterns=list(shipped), length=100_000, thorough=True))

    assert not slow, told(slow, shipped)


def test_every_careless_pattern_is_told_and_none_hangs() -> None:
    careless = [
        r"\s+$",  # quadratic: begins again at every space
        r"<!--.*?-->",  # quadratic, but only over its own beginning
        r"\S*[./@_]\S*\.\Z",  # cubic
        r"\A(?:a+)+!",  # exponential
        r"(?:\w+,?)+;",
    ]
    careful = [r"\s+", r"(?<!\s)\s+$", r"[a-z]+|\d+(?:[.,]\d+)*"]

    slow = read(
        Reading(patterns=[(one, 0) for one in careless + careful], length=20_000)
    )

    assert [one for one, _ in slow] == careless


def test_patterns_are_found_wherever_a_module_keeps_them() -> None:
    module = types.ModuleType("somewhere")
    exec(  # noqa: S102 - a module as they are written
        "import re\n"
        "from unittest import TestCase\n"
        "A = re.compile('a')\n"
        "SOME = (re.compile('b'), [re.compile('c')])\n"
        "NAMED = {'d': re.compile('d'), re.compile('e'): {re.compile('f')}}\n"
        "class Keeps:\n"
        "    G = re.compile('g')\n"
        "    class Inside:\n"
        "        H = {'h': (re.compile(b'h'),)}\n"
        "    again = Inside\n",
        vars(module),
    )

    found = {source(pattern) for _, pattern in kept(module)}

    assert found == set("abcdefgh")


def test_patterns_inside_functions_are_found() -> None:
    written = (
        "TOP = re.compile('top')\n"
        "def plain(text): return re.sub('a', '', text)\n"
        "async def waits(): re.compile('b')\n"
        "class Has:\n"
        "    def method(self): return lambda text: re.split(r'c', text, maxsplit=1)\n"
    )

    found = {pattern.pattern for _, pattern in inline(written, "somewhere")}

    assert found == {"a", "b", "c"}


@pytest.mark.parametrize("asked", ["re.search(f'{a}', b)", "re.findall('a', b, re.I)"])
def test_a_pattern_that_cannot_be_read_here_is_refused(asked: str) -> None:
    with pytest.raises(AssertionError, match=r"somewhere:2: .* needs a name"):
        dict(inline(f"def late(a, b):\n    return {asked}\n", "somewhere"))


@pytest.mark.parametrize(
    "flood", ["!", "a. ", "A. ", "1. a ", "a\n", "- ", " ", "a\u0301"]
)
@pytest.mark.parametrize(
    "reads",
    [
        cleaned,
        ends_block,
        estimated_tokens,
        content_words,
        sentence_spans,
        stems,
        lambda text: unwrapped(text.split("\n")),
    ],
)
def test_what_reads_documents_never_takes_long(
    reads: Callable[[str], object], flood: str
) -> None:
    text = flood * (100_000 // len(flood)) + "\0"
    began = time.process_time()

    reads(text)

    assert time.process_time() - began < 1


def told(slow: Sequence[tuple[str, str]], places: Places) -> str:
    named = {pattern: where for (pattern, _), where in places.items()}
    return "".join(f"\n{named[pattern]}: {pattern!r} {what}" for pattern, what in slow)


def modules() -> Iterator[types.ModuleType]:
    for name in PACKAGES:
        package = importlib.import_module(name)
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def kept(module: types.ModuleType) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield the patterns that a module, its classes and its collections keep."""
    seen: set[int] = set()
    left: list[tuple[str, object]] = [
        (f".{name}", value)
        for name, value in vars(module).items()
        if not name.startswith("__")
    ]
    while left:
        name, value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, re.Pattern):
            yield name, value
        elif not isinstance(value, type):
            left += [(name + more, one) for more, one in _inside(value)]
        elif value.__module__ == module.__name__:
            left += [(f"{name}.{more}", one) for more, one in vars(value).items()]


def _inside(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", one) for key, one in value.items())
        yield from ((f", key {key!r}", key) for key in value)
    elif isinstance(value, tuple | list | set | frozenset):
        yield from ((f", item {place}", one) for place, one in enumerate(value))


def inline(written: str, where: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield the patterns that a module's functions ask `re` for by themselves."""
    functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    for function in ast.walk(ast.parse(written)):
        for call in ast.walk(function) if isinstance(function, functions) else ():
            match call:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=asked)):
                    if asked in {"escape", "purge"}:
                        continue
                    place = f":{call.lineno}"
                    yield place, re.compile(_literal(call, asked, f"{where}{place}"))


def _literal(call: ast.Call, asked: str, place: str) -> str:
    # Flags come last, and every function of `re` takes them.
    before_flags = {"compile": 1, "sub": 4, "subn": 4, "split": 3}.get(asked, 2)
    has_flags = len(call.args) > before_flags or any(
        one.arg == "flags" for one in call.keywords
    )
    match call.args:
        case [ast.Constant(value=str(pattern)), *_] if not has_flags:
            return pattern
    raise AssertionError(
        f"{place}: {ast.unparse(call)} needs a name at the top of its module, so that "
        "it can be tried here"
    )


def source(pattern: re.Pattern[str] | re.Pattern[bytes]) -> str:
    written = pattern.pattern
    return written if isinstance(written, str) else written.decode("latin-1")


def read(reading: Reading) -> list[tuple[str, str]]:
    """Return the patterns that took too long, each with what it was shown."""
    slow: list[tuple[str, str]] = []
    left = list(reading.patterns)
    while left:
        orders = asdict(reading) | {"patterns": left}
        child = subprocess.run(
            [sys.executable, __file__],
            input=json.dumps(orders),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        lines = [json.loads(line) for line in child.stdout.splitlines()]
        slow += [(pattern, what) for kind, pattern, what in lines if kind == "slow"]
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGVTALRM, f"the child ended: {child}"
        _, pattern, flood = lines[-1]
        slow.append((pattern, f"was killed over {flood}"))
        # It never came to those after the one that it was killed over.
        left = left[[one for one, _ in left].index(pattern) + 1 :]
    return slow


def read_as_told() -> None:
    """What the child does: say what it begins, and what took long."""
    reading = Reading(**json.load(sys.stdin))
    for written, flags in reading.patterns:
        pattern = re.compile(written, flags)
        for flood in floods(written, thorough=reading.thorough):
            say("begins", written, str(flood))
            took_s = seconds(pattern, flood.text(reading.length), reading.limit_s)
            if took_s > reading.limit_s:
                say("slow", written, f"took {took_s:.2f} s over {flood}")
                break


def say(kind: str, pattern: str, what: str) -> None:
    print(json.dumps([kind, pattern, what]), flush=True)  # noqa: T201 - to its parent


def seconds(pattern: re.Pattern[str], text: str, limit_s: float) -> float:
    """Return how long the pattern takes at worst, whichever way it is used."""
    return max(
        quickest(lambda: sum(1 for _ in pattern.finditer(text)), limit_s),
        quickest(lambda: pattern.match(text), limit_s),
        quickest(lambda: pattern.fullmatch(text), limit_s),
    )


def quickest(use: Callable[[], object], limit_s: float) -> float:
    took = []
    for _ in range(TRIES):
        # Unhandled, the alarm ends this process, also in the middle of a match.
        signal.setitimer(signal.ITIMER_VIRTUAL, limit_s * KILLED_AFTER)
        began = time.process_time()
        use()
        took.append(time.process_time() - began)
        if took[-1] <= limit_s:
            break
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return min(took)


def floods(pattern: str, *, thorough: bool) -> Iterator[Flood]:
    """Yield texts of what every pattern may meet, and of what this one speaks of."""
    plain = re.sub(r"\\(?=\W)", "", pattern)
    words = list(dict.fromkeys(re.findall(r"[^\\\[\](){}?*+|^$.\s]{2,}", plain)))
    pieces = list(dict.fromkeys([*PIECES, *re.findall(r"[^\w\s\\]", plain), *words]))
    for piece, end in product(pieces, ENDS):
        yield Flood(again=piece, end=end)
    if thorough:
        for one, other in combinations(pieces, 2):
            yield Flood(again=one + other, end="\0")
        for start, piece in product(words, pieces):
            yield Flood(start=start, again=piece)


if __name__ == "__main__":
    read_as_told()

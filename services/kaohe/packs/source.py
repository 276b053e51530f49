"""YAML with the place of every node, read exactly, with every mistake collected.

Theory of operation: the parser's events become a small tree of ``Node``, each of
which knows its file, line, column and its path inside the file. Nothing is converted on the way: a scalar stays the
text that the author wrote until a *reader* asks for a number, a day or a duration, so ``0.02`` never becomes a float
and ``on`` never becomes a boolean. Anchors, aliases, tags and duplicate keys are refused.

A reader is a function from a node to a value that raises ``PackError``. ``Fields`` reads a mapping key by key and
puts each error into ``Problems`` instead of stopping, so that one run shows every mistake of a pack.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from kaohe.decisions import Words
from kaohe.errors import PackError, Place

RULES_VARIABLE = "KAOHE_RULES"
FILE_BYTES_MAX = 4_000_000
NODES_MAX = 400_000
DEPTH_MAX = 32
PROBLEMS_MAX = 200
DECIMALS_MAX = 9
"""Facts and parameters reach the matcher as integers scaled by 10**9; a finer number would be cut off."""
NUMBER_MAX = Fraction(10) ** 12

MILLIS = {"ms": 1, "s": 1000, "min": 60_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
"""Milliseconds in a unit of time (``m`` is a minute, as in ``5m``)."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_EXPONENT = re.compile(r"[+-]?[0-9]*\.?[0-9]+[eE][+-]?[0-9]+")
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|min|m|h|d)")
_SNAKE = re.compile(r"[a-z][a-z0-9_]{0,59}")
_KEBAB = re.compile(r"[a-z][a-z0-9-]{0,59}")

NO_TEXTS: tuple[str, ...] = ()
"""What a list is after a mistake in it has been noted."""

T = TypeVar("T")
Reader = Callable[["Node"], T]


class ConsequenceError(PackError):
    """Something that is wrong only because of a mistake noted before it; it is not told."""


class Problems:
    """The mistakes found so far, in the order of finding; stops the work beyond ``PROBLEMS_MAX``."""

    def __init__(self) -> None:
        self.errors: list[PackError] = []
        self.warnings: list[PackError] = []

    def add(self, error: PackError) -> None:
        """Note a mistake; one place and text is noted once, and a consequence not at all."""
        if isinstance(error, ConsequenceError):
            assert self.errors, "a consequence follows a mistake"
            return
        if any(str(error) == str(known) for known in self.errors):
            return
        self.errors.append(error)
        if len(self.errors) > PROBLEMS_MAX:
            raise self.errors[0]

    def warn(self, node: Node, wrong: str, right: str) -> None:
        """Note something that is allowed and yet probably not meant."""
        self.warnings.append(PackError(node.place, node.path, wrong, right))

    def attempt(self, read: Callable[[Node], T], node: Node) -> T | None:
        """What ``read`` gives for a node; on a PackError the error is noted, and there is no value."""
        try:
            return read(node)
        except PackError as error:
            self.add(error)
            return None


class Node:
    """One value of a YAML file: a mapping (``entries``), a list (``items``) or a scalar (``text``).

    ``inline`` says that the scalar's text stands in one line as it is, so that a column in it is one of the file.
    """

    __slots__ = ("entries", "inline", "items", "kind", "path", "place", "quoted", "text")

    def __init__(self, kind: Literal["mapping", "list", "scalar"], place: Place, path: str) -> None:
        self.kind = kind
        self.place = place
        self.path = path
        self.text = ""
        self.quoted = False
        self.inline = False
        self.items: list[Node] = []
        self.entries: dict[str, tuple[Node, Node]] = {}

    def fail(self, wrong: str, right: str) -> NoReturn:
        """Raise the PackError of this place."""
        raise PackError(self.place, self.path, wrong, right)

    def get(self, key: str) -> Node | None:
        """The value under ``key`` of a mapping."""
        found = self.entries.get(key)
        return found[1] if found else None

    def follows(self) -> NoReturn:
        """Raise a ConsequenceError: what stands here names something in which a mistake was noted."""
        raise ConsequenceError(
            self.place, self.path, f"{self.shown} names something that is wrong", "right that first"
        )

    @property
    def shown(self) -> str:
        """What stands here, for a message."""
        if self.kind != "scalar":
            return f"a {self.kind}" if self.items or self.entries else f"an empty {self.kind}"
        return repr(self.text) if len(self.text) <= 60 else repr(self.text[:57] + "...")


class _Builder:
    """Turns the parser's events of one document into nodes; recursion is bounded by ``DEPTH_MAX``."""

    def __init__(self, file: str, events: Iterable[Any], problems: Problems) -> None:
        self.file = file
        self.events = iter(events)
        self.problems = problems
        self.count = 0

    def document(self) -> Node | None:
        root: Node | None = None
        for event in self.events:
            if isinstance(event, (ScalarEvent, MappingStartEvent, SequenceStartEvent, AliasEvent)):
                if root is not None:
                    raise PackError(
                        self._place(event), "", "a second YAML document", "keep one document in a file"
                    )
                stem = self.file.rpartition("/")[2].partition(".")[0]
                root = self.node(event, stem if isinstance(event, SequenceStartEvent) else "", 0)
        if root is not None and root.kind == "scalar" and not root.text:
            return None
        return root

    def node(self, event: Any, path: str, depth: int) -> Node:
        place = self._place(event)
        self.count += 1
        if depth > DEPTH_MAX or self.count > NODES_MAX:
            raise PackError(place, path, "the file is nested too deeply or too large", "split it")
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise PackError(
                place,
                path,
                "anchors and aliases (& and *) are not used in packs",
                "write the value out, or quote a text that begins with * or &",
            )
        if getattr(event, "tag", None):
            raise PackError(place, path, f"the tag {event.tag} is not used in packs", "write the plain value")
        if isinstance(event, ScalarEvent):
            node = Node("scalar", place, path)
            node.text, node.quoted = event.value, bool(event.style)
            node.inline = event.start_mark.line == event.end_mark.line and event.style not in ("|", ">")
        elif isinstance(event, SequenceStartEvent):
            node = Node("list", place, path)
            for inner in self.events:
                if isinstance(inner, SequenceEndEvent):
                    break
                node.items.append(self.node(inner, f"{path}[{len(node.items)}]", depth + 1))
        else:
            node = self._mapping(place, path, depth)
        return node

    def _mapping(self, place: Place, path: str, depth: int) -> Node:
        node = Node("mapping", place, path)
        for inner in self.events:
            if isinstance(inner, MappingEndEvent):
                break
            key = self.node(inner, path, depth + 1)
            if key.kind != "scalar" or not key.text:
                key.fail("a key must be a word", "write `key: value`")
            key.path = f"{path}.{key.text}" if path else key.text
            value = self.node(next(self.events), key.path, depth + 1)
            if key.text in node.entries:
                first = node.entries[key.text][0].place
                self.problems.add(
                    PackError(
                        key.place,
                        key.path,
                        f"the key {key.text!r} stands twice",
                        f"keep one of them; the first is in line {first.line}",
                    )
                )
                continue
            node.entries[key.text] = (key, value)
        return node

    def _place(self, event: Any) -> Place:
        return Place(self.file, event.start_mark.line + 1, event.start_mark.column + 1)


def read_yaml(path: Path, problems: Problems, shown: str = "") -> Node | None:
    """The file's root node; None when it is empty. ``shown`` is the file's name in messages.

    PackError when the file cannot be read, is not UTF-8 or is not YAML.
    """
    name = shown or str(path)
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise PackError(Place(name), "", f"the file is larger than {FILE_BYTES_MAX} bytes", "split it")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PackError(
            Place(name), "", f"the file cannot be read ({error.strerror})", "put it there"
        ) from None
    except UnicodeDecodeError as error:
        raise PackError(
            Place(name), "", f"byte {error.start} is not UTF-8", "save the file as UTF-8"
        ) from None
    try:
        return _Builder(name, YAML(typ="safe", pure=True).parse(text), problems).document()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(name, mark.line + 1, mark.column + 1) if mark else Place(name)
        right = (
            f"look at what begins {error.context}"
            if error.context
            else "check indentation, quotes and brackets"
        )
        raise PackError(place, "", f"not YAML: {error.problem}", right) from None
    except YAMLError as error:
        raise PackError(
            Place(name), "", f"not YAML: {str(error).splitlines()[0]}", "remove characters that do not print"
        ) from None


def rules_dir() -> Path:
    """The folder of packs: ``KAOHE_RULES``, else ``rules`` here, else the one beside the sources."""
    named = os.environ.get(RULES_VARIABLE, "")
    if named:
        return Path(named)
    here = Path("rules")
    return here if here.is_dir() else Path(__file__).resolve().parents[3] / "rules"


def nearest(word: str, names: Iterable[str], what: str = "") -> str:
    """What would be right instead of ``word``: the nearest name, or all of a few names."""
    known = sorted(set(names))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    if not known:
        return f"there is no {what or 'name'} to choose from"
    if len(known) <= 14:
        return f"write one of {', '.join(known)}"
    return f"it is none of the {len(known)} {what or 'name'}s that exist, such as {', '.join(known[:4])}"


class Fields:
    """The entries of one mapping, read key by key."""

    def __init__(self, node: Node, problems: Problems, known: Sequence[str], what: str) -> None:
        self.node = node
        self.problems = problems
        self._ok = node.kind == "mapping"
        self.what = what
        if not self._ok:
            self._add(
                PackError(
                    node.place,
                    node.path,
                    f"{what} must be a mapping, not {node.shown}",
                    f"write keys such as {', '.join(known[:4])}",
                )
            )
        for key, (key_node, _) in node.entries.items():
            if key not in known:
                self._add(
                    PackError(
                        key_node.place,
                        key_node.path,
                        f"{what} has no key {key!r}",
                        nearest(key, known, "key"),
                    )
                )

    def __contains__(self, key: str) -> bool:
        return key in self.node.entries

    def ok(self) -> bool:
        """Whether nothing wrong has been noted in this mapping so far."""
        return self._ok

    def _add(self, error: PackError) -> None:
        self._ok = False
        self.problems.add(error)

    def need(self, key: str, read: Reader[T], default: T) -> T:
        """The value of a key that must be there; ``default`` after a mistake has been noted."""
        if key in self.node.entries:
            return self.take(key, read, default)
        if self.node.kind == "mapping":
            self._add(
                PackError(self.node.place, self.node.path, f"{self.what} lacks {key!r}", f"add `{key}:`")
            )
        return default

    def take(self, key: str, read: Reader[T], default: T) -> T:
        """The value of a key that may be left out."""
        found = self.node.get(key)
        if found is None:
            return default
        try:
            return read(found)
        except PackError as error:
            self._add(error)
            return default

    def at(self, key: str) -> Node:
        """The node under ``key``, or the mapping itself when the key is missing (for the place of a message)."""
        return self.node.get(key) or self.node

    def wrong(self, key: str, wrong: str, right: str) -> None:
        """Note a mistake at ``key``."""
        node = self.at(key)
        self._add(PackError(node.place, node.path, wrong, right))


# --- readers ----------------------------------------------------------------------------------------------------------


def scalar(node: Node) -> str:
    """A text that is not empty."""
    if node.kind != "scalar":
        node.fail(f"expected a single value, not {node.shown}", "write one word, number or quoted text")
    if not node.text.strip():
        node.fail("the value is empty", "write a value or leave the key out")
    return node.text


def name(node: Node) -> str:
    """A lower-case name with underscores, as metrics and parameters have."""
    text = scalar(node)
    if not _SNAKE.fullmatch(text):
        node.fail(f"{text!r} is not a name", "use lower-case letters, digits and _, beginning with a letter")
    return text


def kebab(node: Node) -> str:
    """A lower-case name with hyphens, as packs and rules have."""
    text = scalar(node)
    if not _KEBAB.fullmatch(text):
        node.fail(f"{text!r} is not an id", "use lower-case letters, digits and -, beginning with a letter")
    return text


def words(node: Node) -> Words:
    """The same sentence in English and Chinese: ``{en: …, zh: …}``."""
    if node.kind != "mapping":
        node.fail(f"expected the two languages, not {node.shown}", "write {en: ..., zh: ...}")
    for key, (key_node, _) in node.entries.items():
        if key not in ("en", "zh"):
            key_node.fail(f"there is no language {key!r} here", "write {en: ..., zh: ...}")
    texts = []
    for key in ("en", "zh"):
        found = node.get(key)
        if found is None:
            node.fail(f"the language {key!r} is missing", "write {en: ..., zh: ...}")
        texts.append(" ".join(scalar(found).split()))
    return Words(*texts)


def number(node: Node) -> Fraction:
    """An exact decimal number, at most 9 digits after the point, written without an exponent."""
    text = scalar(node)
    if _EXPONENT.fullmatch(text):
        node.fail(
            f"the exponent form {text!r} is not used in packs", "write the number out, such as 0.0000001"
        )
    if node.quoted or not _NUMBER.fullmatch(text):
        node.fail(f"{node.shown} is not a number", "write digits, and a point for decimals, without quotes")
    if "." in text and len(text.split(".")[1]) > DECIMALS_MAX:
        node.fail(
            f"{text} has more than {DECIMALS_MAX} digits after the point", "round it: rules cannot carry more"
        )
    value = Fraction(text)
    if abs(value) > NUMBER_MAX:
        node.fail(f"{text} is too large", f"numbers go up to {NUMBER_MAX}")
    return value


def whole(low: int, high: int) -> Reader[int]:
    """A reader of whole numbers from ``low`` to ``high``."""

    def read(node: Node) -> int:
        value = number(node)
        if value.denominator != 1 or not low <= value <= high:
            node.fail(
                f"{node.text} is not a whole number from {low} to {high}",
                f"write a number from {low} to {high}",
            )
        return int(value)

    return read


def day(node: Node) -> date:
    """A calendar day, ``2026-01-31``."""
    text = scalar(node)
    found = _date(text) if len(text) == 10 else None
    if found is None:
        node.fail(f"{text!r} is not a day", "write it as 2026-01-31")
    return found


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def month(node: Node) -> str:
    """A calendar month, ``2026-01``."""
    text = scalar(node)
    if len(text) != 7 or _date(text + "-01") is None:
        node.fail(f"{text!r} is not a month", "write it as 2026-01")
    return text


def local_moment(node: Node) -> datetime:
    """A moment on the pack's clock, ``2026-08-03T09:00`` (seconds may follow); the zone is the pack's."""
    text = scalar(node)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        node.fail(f"{text!r} is not a moment", "write it as 2026-08-03T09:00")
    if moment.tzinfo is not None or "T" not in text:
        node.fail(
            f"{text!r} is not a moment of the pack's clock", "write it as 2026-08-03T09:00, without an offset"
        )
    return moment


def duration(low_ms: int, high_ms: int) -> Reader[int]:
    """A reader of durations such as ``5m``, ``72h`` or ``14d``, in milliseconds between the bounds."""

    def read(node: Node) -> int:
        text = scalar(node)
        match = _DURATION.fullmatch(text)
        if not match:
            node.fail(f"{text!r} is not a duration", "write a whole number and a unit: 30s, 5m, 72h, 14d")
        value = int(match[1]) * MILLIS[match[2]]
        if not low_ms <= value <= high_ms:
            node.fail(
                f"{text} is outside {show_ms(low_ms)} to {show_ms(high_ms)}", "choose a duration inside it"
            )
        return value

    return read


def show_ms(value_ms: int) -> str:
    """A duration as a person writes it, in the largest unit that is exact."""
    if not value_ms:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        if value_ms % MILLIS[unit] == 0:
            return f"{value_ms // MILLIS[unit]}{unit}"
    return f"{value_ms}ms"


def boolean(node: Node) -> bool:
    """``true`` or ``false``."""
    text = scalar(node)
    if text not in ("true", "false"):
        node.fail(f"{text!r} is not true or false", "write true or false")
    return text == "true"


def choice(names: Sequence[str], what: str) -> Reader[str]:
    """A reader of one of ``names``."""

    def read(node: Node) -> str:
        text = scalar(node)
        if text not in names:
            node.fail(f"{text!r} is not a known {what}", nearest(text, names, what))
        return text

    return read


def several(read: Reader[T], most: int = 64) -> Reader[tuple[T, ...]]:
    """A reader of a list (or of a single value standing for a list of one), not empty, without repetitions."""

    def read_all(node: Node) -> tuple[T, ...]:
        nodes = node.items if node.kind == "list" else [node]
        if not nodes or len(nodes) > most:
            node.fail(f"the list has {len(nodes)} entries", f"write 1 to {most}")
        found: list[T] = []
        for item in nodes:
            value = read(item)
            if value in found:
                item.fail(f"{item.shown} stands twice in the list", "keep one of them")
            found.append(value)
        return tuple(found)

    return read_all

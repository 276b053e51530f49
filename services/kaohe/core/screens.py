"""Tests of raw counts in integer arithmetic: which rules may hold, which alerts may end, and what makes a difference.

Theory of operation. Most judgements end with no rule firing: the queue answers in time, the agent's rate is within its
limit. Building a fact, sending it and matching it costs far more than seeing this from the counts. So conditions, with
the parameters in force bound in, are turned into expressions over integers. A field of a fact is a quotient of sums;
``top / bottom > p / q`` holds exactly when ``top * q > p * bottom`` (``bottom`` is above 0, or there is no data). Each
count is read once, whatever number of conditions look at it.

Three kinds of functions are made of them. A *screen* is *necessary*, never sufficient: what it cannot say exactly
(texts, percentiles, baselines, fields of events) counts as "may hold". durable-rules judges everything a screen lets
through, so a screen that lets too much through costs time and changes nothing. A *look* is the screen of all rules that
watch one subject, and of the conditions that end their alerts. *Truths* number the comparisons of some conditions that
hold: what durable-rules answered once it answers whenever the same comparisons hold, for it sees a number by its
comparisons only. That nothing is kept back, and that no other answer is taken for the matcher's, is tested with random
facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from fractions import Fraction
from typing import Any, NamedTuple

from kaohe.core.calendars import WINDOWS
from kaohe.core.counting import Layout
from kaohe.core.counts import MAX_SLOT, span_ms
from kaohe.core.expressions import And, Compare, Condition, FieldRef, Known, Or
from kaohe.core.facts import NO_COUNTS, Moment, baseline_of, compared_with, metric_of
from kaohe.core.looks import MAX_FACTOR, MAX_TERMS, MAX_TESTS, Look
from kaohe.core.model import Pack

Screen = Callable[[Moment], int]
"""The rules that may hold, one bit for each in their order: a rule whose bit is 0 does not hold."""
Reads = tuple[tuple[int, int], ...]
"""Slots with their weights."""


Polynomial = dict[tuple[int, ...], int]
"""A whole number for each product of variables, given by their numbers; that of none is the constant."""
Test = tuple[Any, ...]
"""``("all", tests)``, ``("any", tests)``, ``("compare", polynomial's items, op)`` with 0, ``("known", window)`` and
``("unknown", window)`` of a past period, ``("seen", variable)`` and ``("unseen", variable)`` of a maximum."""
ALWAYS: Test = ("all", ())
NEVER: Test = ("any", ())
_OPPOSITE = {
    "<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "==",
    "known": "unknown", "unknown": "known", "seen": "unseen", "unseen": "seen",
}  # fmt: skip


class Quotient(NamedTuple):
    """A field: ``top / bottom``, when each of ``known`` holds; otherwise there is no data."""

    top: Polynomial
    bottom: Polynomial
    known: tuple[Test, ...]


class Variable(NamedTuple):
    """A sum of counts of a window, each with its weight; or the largest of some maxima, None where there are none."""

    window: str
    reads: tuple[tuple[int, int], ...]
    largest: bool = False


def screen(layout: Layout, pack: Pack, conditions: Iterable[Condition]) -> Screen:
    """The screen of some rules, given by their bound conditions."""
    sums = Sums(layout)
    return _bits(sums, [sums.test(pack, one) for one in conditions])


def truths(layout: Layout, pack: Pack, conditions: Sequence[Condition]) -> Screen | None:
    """The comparisons of some bound conditions that hold, a bit for each; None when one is not about sums alone."""
    sums = Sums(layout)
    if not all(sums.is_exact(pack, one) for one in conditions):
        return None
    return _bits(sums, [sums.test(pack, atom) for atom in atoms_of(conditions)])


def truths_seen(layout: Layout, pack: Pack, conditions: Sequence[Condition]) -> Look | None:
    """As ``truths``, of a subject's counts at a boundary; None where a look cannot say all of it exactly.

    Where a count is too large for it, it says of each comparison that it holds.
    """
    sums = Sums(layout)
    if not all(sums.is_exact(pack, one) for one in conditions):
        return None
    tests = [sums.test(pack, atom) for atom in atoms_of(conditions)]
    windows, variables, comparisons, passing = _tables(sums, tests)
    told = {one for test in tests for together in _passing(test) for one in together}
    if max(len(told), len(tests), len(variables), len(windows)) > MAX_TESTS or not all(map(_fits, tests)):
        return None
    return Look(windows, variables, comparisons, passing, len(tests))


def look(
    layout: Layout,
    watched: Iterable[tuple[Pack, Condition]],
    ends: Iterable[tuple[Pack, Sequence[tuple[Condition, Iterable[str]] | None]]],
) -> Look:
    """Which of the conditions ``watched`` may hold, and which of ``ends`` may.

    An end stands for one rule: for each of its effects the bound condition and the fields that end its alert, the
    fields when one of them is without data; None for an effect that ends whenever its rule does not hold.
    """
    sums = Sums(layout)
    begin = [sums.test(pack, condition) for pack, condition in watched]
    end = []
    for pack, effects in ends:
        found = []
        for one in effects:
            if one is None:
                found.append(ALWAYS)
                continue
            condition, fields = one
            found += [sums.unknown(pack, field) for field in sorted(fields)] + [sums.test(pack, condition)]
        end.append(any_of(found))
    return Look(*_tables(sums, begin + end), len(begin))


def _bits(sums: Sums, tests: list[Test]) -> Screen:
    found = [
        line
        for bit, test in enumerate(tests)
        if test != NEVER
        for line in (f"if {sums.source(test)}:", f"    found |= {1 << bit}")
    ]
    lines = [*sums.heads(lambda window: f"moment.counts({window!r})"), "found = 0", *found, "return found"]
    function: Screen = compiled("moment", lines)
    return function


def compiled(arguments: str, lines: Iterable[str]) -> Any:
    """A function of written lines."""
    code = "\n    ".join([f"def test({arguments}):", *lines])
    namespace: dict[str, Any] = {"NOTHING": NO_COUNTS}
    exec(compile(code, "<counts>", "exec"), namespace)  # noqa: S102 - written here, of numbers and checked names only
    return namespace["test"]


def atoms_of(conditions: Iterable[Condition]) -> list[Condition]:
    """The comparisons of some conditions, each once."""
    return list(dict.fromkeys(atom for one in conditions for atom in _atoms(one)))


def _atoms(condition: Condition) -> list[Condition]:
    if isinstance(condition, (And, Or)):
        return [atom for part in condition.parts for atom in _atoms(part)]
    return [condition]


class Sums:
    """Makes tests of counts, and knows which counts they read.

    ``day`` tells which months changes are relative to that name a baseline; without it nothing is said of them.
    """

    def __init__(self, layout: Layout, day: date | None = None) -> None:
        self.layout = layout
        self._day = day
        self.windows: dict[str, int] = {}
        self.variables: dict[Variable, int] = {}

    def heads(self, counts_of: Callable[[str], str]) -> list[str]:
        """Lines that read the variables ``v0``, ``v1`` … of some counts, each count once."""
        lines = []
        for window, number in self.windows.items():
            where = f"w{number}"
            lines.append(f"{where} = {counts_of(window)}")
            if window.startswith(("previous_", "baseline_")):
                where = f"({where} or NOTHING)"
            read = dict.fromkeys(
                slot for one in self.variables if one.window == window for slot, _ in one.reads
            )
            sums = tuple(slot for slot in read if slot < MAX_SLOT)
            if sums:
                names = ", ".join([f"c{number}x{slot}" for slot in sums])
                lines.append(f"{names}, = {where}.row({sums})")
            lines += [f"c{number}x{slot} = {where}.get({slot}, None)" for slot in read if slot >= MAX_SLOT]
        for variable, number in self.variables.items():
            counts = [(f"c{self.windows[variable.window]}x{slot}", weight) for slot, weight in variable.reads]
            lines.append(f"v{number} = {_largest(counts) if variable.largest else _total(counts)}")
        return lines

    def is_exact(self, pack: Pack, condition: Condition) -> bool:
        """Whether the test of a condition says exactly whether it holds."""
        match condition:
            case And(parts=parts) | Or(parts=parts):
                return all(self.is_exact(pack, part) for part in parts)
            case Known(field=field):
                return self.quotient(pack, field) is not None
            case Compare(field=field, value=FieldRef(name=other)):
                return None not in (self.quotient(pack, field), self.quotient(pack, other))
            case Compare(field=field, value=value):
                return isinstance(value, Fraction) and self.quotient(pack, field) is not None

    def test(self, pack: Pack, condition: Condition) -> Test:
        """A test that a fact which satisfies the condition cannot fail."""
        match condition:
            case And(parts=parts):
                return all_of([self.test(pack, part) for part in parts])
            case Or(parts=parts):
                return any_of([self.test(pack, part) for part in parts])
            case Known(field=field, known=known):
                found = self.quotient(pack, field)
                if found is None:
                    return ALWAYS
                return all_of(found.known) if known else self.unknown(pack, field)
            case Compare(op=op, field=field, value=value):
                one = self.quotient(pack, field)
                other = self._value(pack, value)
                if one is None or other is None:
                    return ALWAYS
                # Bottoms are above 0 where the fields are known.
                left, right = product(one.top, other.bottom), product(other.top, one.bottom)
                return all_of([*one.known, *other.known, compared(minus(left, right), op)])

    def _value(self, pack: Pack, value: bool | str | Fraction | FieldRef) -> Quotient | None:
        """What a field is compared with."""
        if isinstance(value, FieldRef):
            return self.quotient(pack, value.name)
        if isinstance(value, Fraction):
            return Quotient({(): value.numerator}, {(): value.denominator}, ())
        return None

    def unknown(self, pack: Pack, field: str) -> Test:
        """A test that a field without data cannot fail."""
        found = self.quotient(pack, field)
        return ALWAYS if found is None else any_of([_not(one) for one in found.known])

    def quotient(self, pack: Pack, field: str) -> Quotient | None:
        """A field that is made of sums or a maximum; None for any other."""
        if field.partition(".")[0] not in pack.metrics:
            return None
        metric, window, aspect = metric_of(pack, field)
        if metric.kind in ("percentile", "distinct", "per_distinct") or window.startswith("baseline_"):
            return None
        if aspect == "vs_baseline" and self._day is None:
            return None
        if (metric.scale <= 0 and aspect.startswith("vs_")) or (metric.kind == "max" and aspect):
            return None
        known = (self._known(window),) if window.startswith("previous_") else ()
        up: Polynomial = {(): metric.scale.numerator}
        down: Polynomial = {(): metric.scale.denominator}
        tops, bottoms = self.layout.reads[pack.key, metric.name]
        if metric.kind == "max":
            largest = self._variable(window, tops, largest=True)
            return Quotient(product(largest, up), down, (*known, ("seen", *next(iter(largest)))))
        if aspect.startswith("vs_"):
            earlier = compared_with(window, aspect)
            if aspect == "vs_baseline" and self._day is not None:
                earlier = baseline_of(pack, metric, earlier, self._day)
            return self._change(window, earlier, tops, bottoms, known)
        top = self._variable(window, tops)
        if not bottoms:
            return Quotient(product(top, up), down, known)
        bottom = self._variable(window, bottoms)
        if aspect == "base":
            return Quotient(bottom, {(): 1}, known)
        return Quotient(product(top, up), product(bottom, down), (*known, compared(bottom, ">")))

    def _change(
        self, window: str, earlier: str, tops: Reads, bottoms: Reads, known: tuple[Test, ...]
    ) -> Quotient:
        """``now / before - 1``, where the value before is above 0; a scale stands on both sides.

        The sums of a period of which nothing is known are 0.
        """
        top, before = self._variable(window, tops), self._variable(earlier, tops)
        known = (*known, compared(before, ">"))
        if not bottoms:
            return Quotient(minus(top, before), before, known)
        bottom, under = self._variable(window, bottoms), self._variable(earlier, bottoms)
        known = (*known, compared(bottom, ">"), compared(under, ">"))
        whole = product(before, bottom)
        return Quotient(minus(product(top, under), whole), whole, known)

    def _known(self, window: str) -> Test:
        """A test that something is known of a past period."""
        self.windows.setdefault(window, len(self.windows))
        return "known", window

    def _variable(self, window: str, reads: Reads, *, largest: bool = False) -> Polynomial:
        self.windows.setdefault(window, len(self.windows))
        number = self.variables.setdefault(Variable(window, reads, largest), len(self.variables))
        return {(number,): 1}

    def source(self, test: Test) -> str:
        """A test as source text, after the lines of ``heads``."""
        kind, *rest = test
        if kind in ("all", "any"):
            parts = [self.source(part) for part in rest[0]]
            if not parts:
                return str(kind == "all")
            return f"({(' and ' if kind == 'all' else ' or ').join(parts)})"
        if kind == "compare":
            return f"{text_of(dict(rest[0]))} {rest[1]} 0"
        name = f"w{self.windows[rest[0]]}" if kind in ("known", "unknown") else f"v{rest[0]}"
        return f"{name} is {'not ' if kind in ('known', 'seen') else ''}None"


def text_of(polynomial: Polynomial) -> str:
    """A polynomial as source text, in parentheses."""
    parts = []
    for variables, factor in polynomial.items():
        factors = [f"v{number}" for number in variables]
        parts.append(" * ".join([*([str(factor)] if factor != 1 or not factors else []), *factors]))
    return f"({' + '.join(parts) or '0'})"


def _total(counts: Iterable[tuple[str, int]]) -> str:
    return " + ".join([name if weight == 1 else f"{weight} * {name}" for name, weight in counts]) or "0"


def _largest(counts: Sequence[tuple[str, int]]) -> str:
    """The largest of some maxima; None where there is none."""
    names = [name for name, _ in counts]
    if len(names) == 1:
        return names[0]
    return f"max([one for one in ({', '.join(names)}) if one is not None], default=None)"


def product(one: Polynomial, other: Polynomial) -> Polynomial:
    """One polynomial times another."""
    found: Polynomial = {}
    for first, factor in one.items():
        for second, times in other.items():
            key = tuple(sorted(first + second))
            found[key] = found.get(key, 0) + factor * times
    return found


def minus(one: Polynomial, other: Polynomial) -> Polynomial:
    """One polynomial less another."""
    found = dict(one)
    for key, factor in other.items():
        found[key] = found.get(key, 0) - factor
    return {key: factor for key, factor in found.items() if factor}


def compared(polynomial: Polynomial, op: str) -> Test:
    """The comparison of a polynomial with 0."""
    return "compare", tuple(sorted(polynomial.items())), op


def _not(test: Test) -> Test:
    """The opposite of one comparison, or of what is known of a period or a maximum."""
    if test[0] == "compare":
        return "compare", test[1], _OPPOSITE[test[2]]
    return (_OPPOSITE[test[0]], *test[1:])


def all_of(tests: Iterable[Test]) -> Test:
    """All of some tests, in their order: what is unknown is never compared."""
    found = tuple(dict.fromkeys(test for test in tests if test != ALWAYS))
    if NEVER in found:
        return NEVER
    return found[0] if len(found) == 1 else ("all", found)


def any_of(tests: Iterable[Test]) -> Test:
    """Any of some tests."""
    found = tuple(dict.fromkeys(test for test in tests if test != NEVER))
    if ALWAYS in found:
        return ALWAYS
    return found[0] if len(found) == 1 else ("any", found)


# --- the tables of a look ---------------------------------------------------------------------------------------------


def _tables(sums: Sums, tests: Iterable[Test]) -> tuple[list[Any], list[Any], list[Any], list[list[int]]]:
    """Windows, variables, comparisons, and of each test the sets of comparisons (as bits) that pass it."""
    numbers: dict[Test, int] = {}
    passing = []
    for test in tests:
        found = []
        for together in _passing(test):
            bits = 0
            for one in together:
                if one in numbers or len(numbers) < MAX_TESTS:
                    bits |= 1 << numbers.setdefault(one, len(numbers))
            found.append(bits)
        passing.append(found)
    comparisons: list[Any] = []
    for kind, *rest in numbers:
        if kind == "compare":
            terms = [(factor, *(*variables, -1, -1)[:2]) for variables, factor in rest[0]]
            comparisons.append((rest[1], terms, -1))
        else:
            comparisons.append((kind, [], sums.windows[rest[0]] if "known" in kind else rest[0]))
    windows = [_window(window) for window in sums.windows]
    variables = [(sums.windows[one.window], one.largest, one.reads) for one in sums.variables]
    return windows, variables, comparisons, passing


def alternatives(test: Test) -> list[tuple[Test, ...]] | None:
    """The ways to pass a test, each as what passes it together; None where there are more than ``MAX_TESTS``."""
    kind, *rest = test
    if kind not in ("any", "all"):
        return [(test,)]
    found: list[tuple[Test, ...]] = [] if kind == "any" else [()]
    for part in rest[0]:
        own = alternatives(part)
        if own is None:
            return None
        found = found + own if kind == "any" else [one + other for one in found for other in own]
        if len(found) > MAX_TESTS:
            return None
    return found


def _passing(test: Test) -> list[tuple[Test, ...]]:
    """The comparisons that pass a test together. What is too much for a look passes."""
    found = alternatives(test)
    return [()] if found is None else [tuple(filter(_fits, together)) for together in found]


def _fits(test: Test) -> bool:
    """Whether a look works out all comparisons of a test."""
    kind, *rest = test
    if kind in ("any", "all"):
        return all(map(_fits, rest[0]))
    if kind != "compare":
        return True
    fits = all(len(names) <= 2 and abs(factor) < MAX_FACTOR for names, factor in rest[0])
    return fits and len(rest[0]) <= MAX_TERMS


def _window(window: str) -> tuple[str, int]:
    """A window as a look finds it: its kind, and its length or its place among the periods of a moment."""
    if window.startswith("rolling_"):
        return "rolling", span_ms(window)
    if window == "now":
        return "now", 0
    kind, _, rest = window.rpartition("_")
    assert kind in ("", "previous"), window
    return kind or "period", WINDOWS.index(rest)

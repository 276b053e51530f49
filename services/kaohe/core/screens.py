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
from fractions import Fraction
from typing import Any, NamedTuple

from kaohe.core.calendars import WINDOWS, Period
from kaohe.core.counting import Layout
from kaohe.core.counts import MAX_SLOT, Series, span_ms
from kaohe.core.expressions import And, Compare, Condition, FieldRef, Known, Or
from kaohe.core.facts import NO_COUNTS, Moment, compared_with, metric_of
from kaohe.core.model import Pack

Screen = Callable[[Moment], int]
"""The rules that may hold, one bit for each in their order: a rule whose bit is 0 does not hold."""
Look = Callable[[Series, tuple[Period, ...], bool], int]
"""Of a subject's counts, and the periods of the moment looked at: a bit for each rule that may hold, in their order;
and above these one for each whose alert may end, if that is asked."""

_MAY = "True"
_CANNOT = "False"


class Quotient(NamedTuple):
    """A field as source text: ``top / bottom``, when each of ``known`` holds; otherwise there is no data."""

    top: str
    bottom: str
    known: tuple[str, ...]


def screen(layout: Layout, pack: Pack, conditions: Iterable[Condition]) -> Screen:
    """The screen of some rules, given by their bound conditions."""
    sums = Sums(layout, _of_moment)
    return _bits(sums, [sums.test(pack, one) for one in conditions])


def truths(layout: Layout, pack: Pack, conditions: Sequence[Condition]) -> Screen | None:
    """The comparisons of some bound conditions that hold, a bit for each; None when one is not about sums alone."""
    sums = Sums(layout, _of_moment)
    if not all(sums.is_exact(pack, one) for one in conditions):
        return None
    atoms = dict.fromkeys(atom for one in conditions for atom in _atoms(one))
    return _bits(sums, [sums.test(pack, atom) for atom in atoms])


def look(
    layout: Layout,
    watched: Iterable[tuple[Pack, Condition]],
    ends: Iterable[tuple[Pack, Sequence[tuple[Condition, Iterable[str]] | None]]],
) -> Look:
    """Which of the conditions ``watched`` may hold, and which of ``ends`` may.

    An end stands for one rule: for each of its effects the bound condition and the fields that end its alert, the
    fields when one of them is without data; None for an effect that ends whenever its rule does not hold.
    """
    sums = Sums(layout, _of_series)
    begin = _found([sums.test(pack, condition) for pack, condition in watched], 0)
    tests = []
    for pack, effects in ends:
        found = []
        for one in effects:
            if one is None:
                found.append(_MAY)
                continue
            condition, fields = one
            found += [sums.unknown(pack, field) for field in sorted(fields)] + [sums.test(pack, condition)]
        tests.append(any_of(found))
    end = _found(tests, len(tests))
    lines = [*sums.heads(), "found = 0", *begin, "if not ending:", "    return found", *end, "return found"]
    function: Look = compiled("series, periods, ending", lines)
    return function


def _bits(sums: Sums, tests: list[str]) -> Screen:
    function: Screen = compiled("moment", [*sums.heads(), "found = 0", *_found(tests, 0), "return found"])
    return function


def _found(tests: Iterable[str], first: int) -> list[str]:
    """Lines that set a bit for each test that is passed, from the bit ``first`` on."""
    return [
        line
        for bit, test in enumerate(tests, first)
        if test != _CANNOT
        for line in (f"if {test}:", f"    found |= {1 << bit}")
    ]


def compiled(arguments: str, lines: Iterable[str]) -> Any:
    """A function of written lines."""
    code = "\n    ".join([f"def test({arguments}):", *lines])
    namespace: dict[str, Any] = {"NOTHING": NO_COUNTS}
    exec(compile(code, "<counts>", "exec"), namespace)  # noqa: S102 - written here, of numbers and checked names only
    return namespace["test"]


def _atoms(condition: Condition) -> list[Condition]:
    if isinstance(condition, (And, Or)):
        return [atom for part in condition.parts for atom in _atoms(part)]
    return [condition]


def _of_moment(window: str) -> str:
    """Where a judgement's counts of a window are."""
    if window.startswith("rolling_"):
        return f"moment.series.rolling[{span_ms(window)}]"
    return f"moment.counts({window!r})"


def _of_series(window: str) -> str:
    """Where the counts of a window are for a subject that is watched."""
    if window.startswith("rolling_"):
        return f"series.rolling[{span_ms(window)}]"
    if window == "now":
        return "series.total_counts()"
    if window.startswith("previous_"):
        position = WINDOWS.index(window[len("previous_") :])
        return f"series.period_counts(series.calendar.previous(periods[{position}]))"
    return f"(series.period_counts(periods[{WINDOWS.index(window)}]) or NOTHING)"


class Sums:
    """Writes tests of counts, and the lines before them that read each count once."""

    def __init__(self, layout: Layout, source: Callable[[str], str]) -> None:
        self.layout = layout
        self._source = source
        self._reads: dict[str, dict[int, str]] = {}
        self._locals: dict[str, str] = {}

    def heads(self) -> list[str]:
        """Lines that read the counts."""
        lines = []
        for number, (window, slots) in enumerate(self._reads.items()):
            where = f"w{number}"
            lines.append(f"{where} = {self._source(window)}")
            if window.startswith("previous_"):
                where = f"({where} or NOTHING)"
            read = [slot for slot in slots if slot < MAX_SLOT]
            if read:
                names = ", ".join([slots[slot] for slot in read])
                lines.append(f"{names}, = {where}.row({tuple(read)})")
            lines += [
                f"{name} = {where}.get({slot}, None)" for slot, name in slots.items() if slot >= MAX_SLOT
            ]
        return lines + [f"{name} = {source}" for source, name in self._locals.items()]

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

    def test(self, pack: Pack, condition: Condition) -> str:
        """The source of a test that a fact which satisfies the condition cannot fail."""
        match condition:
            case And(parts=parts):
                return all_of([self.test(pack, part) for part in parts])
            case Or(parts=parts):
                return any_of([self.test(pack, part) for part in parts])
            case Known(field=field, known=known):
                found = self.quotient(pack, field)
                if found is None:
                    return _MAY
                return all_of(found.known) if known else self.unknown(pack, field)
            case Compare(op=op, field=field, value=FieldRef(name=name)):
                one, other = self.quotient(pack, field), self.quotient(pack, name)
                if one is None or other is None:
                    return _MAY
                compared = f"({one.top}) * ({other.bottom}) {op} ({other.top}) * ({one.bottom})"
                return all_of([*one.known, *other.known, compared], ordered=True)
            case Compare(op=op, field=field, value=Fraction() as limit):
                found = self.quotient(pack, field)
                if found is None:
                    return _MAY
                left = times(found.top, limit.denominator)
                compared = f"{left} {op} {times(found.bottom, limit.numerator)}"
                return all_of([*found.known, compared], ordered=True)
            case _:
                return _MAY

    def unknown(self, pack: Pack, field: str) -> str:
        """The source of a test that a field without data cannot fail."""
        found = self.quotient(pack, field)
        return _MAY if found is None else any_of([f"not {one}" for one in found.known])

    def quotient(self, pack: Pack, field: str) -> Quotient | None:
        """A field that is made of sums or a maximum; None for any other."""
        if field.partition(".")[0] not in pack.metrics:
            return None
        metric, window, aspect = metric_of(pack, field)
        if metric.kind in ("percentile", "distinct", "per_distinct") or "baseline" in window + aspect:
            return None
        if (metric.scale <= 0 and aspect.startswith("vs_")) or (metric.kind == "max" and aspect):
            return None
        known = (self._known(window),) if window.startswith("previous_") else ()
        up, down = str(metric.scale.numerator), str(metric.scale.denominator)
        tops, bottoms = self.layout.reads[pack.key, metric.name]
        if metric.kind == "max":
            largest = self._largest(window, [slot for slot, _ in tops])
            return Quotient(times(largest, int(up)), down, (*known, f"({largest} is not None)"))
        top, bottom = self._sum(window, tops), self._sum(window, bottoms) if bottoms else ""
        if aspect == "base" and bottom:
            return Quotient(bottom, "1", known)
        if aspect.startswith("vs_"):
            return self._change(window, compared_with(window, aspect), (top, bottom), (tops, bottoms), known)
        if not bottom:
            return Quotient(times(top, int(up)), down, known)
        return Quotient(times(top, int(up)), times(bottom, int(down)), (*known, f"({bottom} > 0)"))

    def _change(
        self, window: str, compared: str, now: tuple[str, str], reads: tuple[Any, Any], known: tuple[str, ...]
    ) -> Quotient:
        """``now / before - 1``, where the value before is above 0; a scale stands on both sides."""
        assert window != compared
        top, bottom = now
        tops, bottoms = reads
        before = self._sum(compared, tops)
        known = (*known, self._known(compared), f"({before} > 0)")
        if not bottom:
            return Quotient(f"{top} - {before}", before, known)
        under = self._sum(compared, bottoms)
        whole = self._local(f"{before} * {bottom}")
        known = (*known, f"({bottom} > 0)", f"({under} > 0)")
        return Quotient(f"{top} * {under} - {whole}", whole, known)

    def _known(self, window: str) -> str:
        """A test that something is known of a past period."""
        self._reads.setdefault(window, {})
        return f"(w{list(self._reads).index(window)} is not None)"

    def _sum(self, window: str, reads: Iterable[tuple[int, int]]) -> str:
        """A sum of counts, each with its weight."""
        parts = [times(self._count(window, slot, "c"), weight) for slot, weight in reads]
        if len(parts) == 1 and parts[0].isalnum():
            return parts[0]
        return self._local(" + ".join(parts) or "0")

    def _largest(self, window: str, slots: list[int]) -> str:
        """The largest of some maxima; None where there is none."""
        largest = self._count(window, slots[0], "m")
        for slot in slots[1:]:
            other = self._count(window, slot, "m")
            largest = self._local(
                f"{largest} if {other} is None or ({largest} is not None and {largest} >= {other}) else {other}"
            )
        return largest

    def _count(self, window: str, slot: int, kind: str) -> str:
        slots = self._reads.setdefault(window, {})
        return slots.setdefault(slot, f"{kind}{list(self._reads).index(window)}x{slot}")

    def _local(self, source: str) -> str:
        return self._locals.setdefault(source, f"s{len(self._locals)}")


def all_of(tests: Iterable[str], *, ordered: bool = False) -> str:
    """All of some tests; unless they must stay ``ordered``, short ones come first: they decide most often."""
    found = list(dict.fromkeys(tests))
    if _CANNOT in found:
        return _CANNOT
    left = [test for test in found if test != _MAY]
    if not ordered:
        left.sort(key=lambda test: (len(test), test))
    return f"({' and '.join(left)})" if left else _MAY


def any_of(tests: Iterable[str]) -> str:
    """Any of some tests."""
    found = list(dict.fromkeys(tests))
    if _MAY in found:
        return _MAY
    left = [test for test in found if test != _CANNOT]
    return f"({' or '.join(left)})" if left else _CANNOT


def times(source: str, factor: int) -> str:
    """A sum times a whole number; a factor of 1 is left away."""
    if factor == 1:
        return source
    return f"{factor} * {source}" if source.isalnum() else f"{factor} * ({source})"

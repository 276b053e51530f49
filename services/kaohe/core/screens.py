"""Screens: a cheap test of raw counts that tells which rules of a set may hold.

Theory of operation. Most judgements end with no rule firing: the queue answers in time, the agent's rate is within its
limit. Building a fact, sending it and matching it costs far more than seeing this from the counts. So each rule set
has a screen: its conditions, with the parameters in force bound in, turned into expressions over integers. A metric
is a quotient of sums, ``top / bottom > p / q`` holds exactly when ``top * q > p * bottom`` (``bottom`` is above 0, or
there is no data), and sums are read straight from the cells.

A screen is *necessary*, never sufficient: what it cannot say exactly (texts, percentiles, baselines, fields of events,
comparisons of two facts) counts as "may hold". durable-rules judges everything a screen lets through, so a screen that
lets too much through costs time and changes nothing; that none keeps back what the matcher would report is tested
with random facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from kaohe.core.counting import Layout
from kaohe.core.expressions import And, Compare, Condition, Or
from kaohe.core.facts import Moment, compared_with, metric_of
from kaohe.core.model import Metric, Pack

Screen = Callable[[Moment], int]
"""The rules that may hold, one bit for each in their order: a rule whose bit is 0 does not hold."""

_MAY = "True"
_CANNOT = "False"


def screen(layout: Layout, pack: Pack, conditions: Iterable[Condition]) -> Screen:
    """The screen of some rules, given by their bound conditions."""
    writer = _Writer(layout, pack)
    bits = [f"({1 << bit} if {writer.test(one)} else 0)" for bit, one in enumerate(conditions)]
    code = "\n".join(["def may_hold(moment):", *writer.heads(), f"    return {' | '.join(bits)}"])
    namespace: dict[str, Any] = {}
    exec(compile(code, "<screen>", "exec"), namespace)  # noqa: S102 - written just above, of numbers only
    found: Screen = namespace["may_hold"]
    return found


class _Writer:
    """Writes the source of one screen."""

    def __init__(self, layout: Layout, pack: Pack) -> None:
        self.layout = layout
        self.pack = pack
        self._windows: dict[str, str] = {}

    def heads(self) -> list[str]:
        """Lines that look each window up once."""
        lines = []
        for window, variable in self._windows.items():
            lines.append(f"    {variable} = moment.counts({window!r})")
            nothing = f"None if {variable} is None else " if window.startswith("previous_") else ""
            lines.append(f"    {variable}_get = {nothing}{variable}.get")
        return lines

    def test(self, condition: Condition) -> str:
        """The source of a test that a fact which satisfies the condition cannot fail."""
        match condition:
            case And(parts=parts):
                return self.all_of([self.test(part) for part in parts])
            case Or(parts=parts):
                return self.any_of([self.test(part) for part in parts])
            case Compare(op=op, field=field, value=value) if isinstance(value, Fraction):
                return self._compared(field, op, value)
            case _:
                return _MAY

    @staticmethod
    def all_of(tests: list[str]) -> str:
        """All of some tests, short ones (a sum, a smallest number of cases) first: they decide most often."""
        if _CANNOT in tests:
            return _CANNOT
        left = sorted({test for test in tests if test != _MAY}, key=lambda test: (len(test), test))
        return f"({' and '.join(left)})" if left else _MAY

    @staticmethod
    def any_of(tests: list[str]) -> str:
        """Any of some tests."""
        if _MAY in tests:
            return _MAY
        left = list(dict.fromkeys(test for test in tests if test != _CANNOT))
        return f"({' or '.join(left)})" if left else _CANNOT

    def _metric(self, field: str) -> tuple[Metric, str, str] | None:
        """Metric, window and aspect of a field that is made of sums or a maximum; None for any other."""
        if field.partition(".")[0] not in self.pack.metrics:
            return None
        metric, window, aspect = metric_of(self.pack, field)
        if metric.kind in ("percentile", "distinct", "per_distinct") or "baseline" in window + aspect:
            return None
        return metric, window, aspect

    def _compared(self, field: str, op: str, limit: Fraction) -> str:
        found = self._metric(field)
        if found is None:
            return _MAY
        metric, window, aspect = found
        if aspect.startswith("vs_"):
            return self._change(metric, window, compared_with(window, aspect), op, limit)
        if metric.kind == "max":
            return self._largest(metric, window, op, limit) if not aspect else _MAY
        top, bottom = self._sides(metric, window)
        known = [f"{self._window(window)} is not None"] if window.startswith("previous_") else []
        over, under = limit.numerator, limit.denominator
        if aspect == "base" and bottom:
            tests = [f"{_times(bottom, under)} {op} {over}"]
        elif not bottom:
            scale = metric.scale
            tests = [f"{_times(top, scale.numerator * under)} {op} {over * scale.denominator}"]
        else:
            scale = metric.scale
            left = _times(top, scale.numerator * under)
            tests = [f"(b := {bottom}) > 0", f"{left} {op} {_times('b', over * scale.denominator)}"]
        return f"({' and '.join([*known, *tests])})"

    def _largest(self, metric: Metric, window: str, op: str, limit: Fraction) -> str:
        """A maximum that is above a limit: any of its slots is. Below a limit is not asked of maxima."""
        if op not in (">", ">=") or metric.scale <= 0 or window.startswith("previous_"):
            return _MAY
        where = self._window(window)
        over = limit.numerator * metric.scale.denominator
        return self.any_of(
            [
                f"((m := {where}.get({slot}, None)) is not None"
                f" and {_times('m', metric.scale.numerator * limit.denominator)} {op} {over})"
                for slot, _ in self.layout.reads[self.pack.key, metric.name][0]
            ]
        )

    def _change(self, metric: Metric, window: str, compared: str, op: str, limit: Fraction) -> str:
        """``now / before - 1`` compared with a limit: ``(now - before) * q`` with ``p * before``, before above 0."""
        if metric.kind == "max" or metric.scale <= 0:
            return _MAY
        before = self._window(compared)
        top, bottom = self._sides(metric, window)
        old_top, old_bottom = self._sides(metric, compared)
        over, under = limit.numerator, limit.denominator
        tests = [f"{before} is not None"]
        if window.startswith("previous_"):
            tests.append(f"{self._window(window)} is not None")
        if bottom:
            tests += [f"(b := {bottom}) > 0", f"(o := {old_bottom}) > 0"]
            now, then = f"({top}) * o", f"({old_top}) * b"
        else:
            now, then = f"({top})", f"({old_top})"
        tests += [f"(t := {then}) > 0", f"({now} - t) * {under} {op} {_times('t', over)}"]
        return f"({' and '.join(tests)})"

    def _window(self, window: str) -> str:
        return self._windows.setdefault(window, f"c{len(self._windows)}")

    def _sides(self, metric: Metric, window: str) -> tuple[str, str]:
        """The sums above and below; nothing below for a metric that is no quotient."""
        variable = self._window(window)

        def count(slot: int) -> str:
            return f"{variable}_get({slot}, 0)"

        top, bottom = (
            " + ".join([_times(count(slot), weight) for slot, weight in side])
            for side in self.layout.reads[self.pack.key, metric.name]
        )
        return top or "0", bottom


def _times(source: str, factor: int) -> str:
    """A sum times a whole number; a factor of 1 is left away."""
    return source if factor == 1 else f"{factor} * ({source})"

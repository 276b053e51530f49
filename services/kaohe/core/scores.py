"""Scores and grades: a scorecard as it is in force on one day.

A score is the card's base plus the points of a period's entries, held between its lowest and its highest. The grade is
the best one whose band the score reaches, but none better than a rule allows. The same few sums of points come again
and again, so what they lead to is remembered; so is what a card of dimensions comes to with the same shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from fractions import Fraction
from functools import lru_cache
from typing import Any

from kaohe.core.counting import Layout
from kaohe.core.facts import DAYS_KEPT, number_text
from kaohe.core.model import Pack, Scorecard
from kaohe.core.scorecard import Earned, Worked, grade_of, work_out

SUMS_KEPT = 2_000
"""How many sums of points one scale remembers the score of."""


def scale_of(layout: Layout, pack: Pack, day: date) -> Scale:
    """The pack's scorecard with the parameters in force on a day."""
    on_day: Callable[[date], Scale] = layout.remembered(
        ("scale", id(pack)), lambda: lru_cache(maxsize=DAYS_KEPT)(lambda one: Scale(pack, one))
    )
    return on_day(day)


class Scale:
    """A scorecard on one day; the pack must have one."""

    def __init__(self, pack: Pack, day: date) -> None:
        card = pack.scorecard
        assert card is not None
        self._base, self._lowest, self._highest = (
            _number(pack, name, day) for name in (card.base, card.lowest, card.highest)
        )
        self.base_text = number_text(self._base)
        self._bands = sorted(_table(pack, card.bands, day).items(), key=lambda band: (-band[1], band[0]))
        self._ranks = {grade: rank for rank, (grade, _) in enumerate(self._bands)}
        self._scores: dict[tuple[int, int], tuple[str, int]] = {}

    def score(self, charged: Fraction) -> tuple[str, int]:
        """The score after entries worth ``charged``, as text, and the rank of its grade (0 is the best)."""
        # Two integers are hashed many times faster than a fraction.
        key = (charged.numerator, charged.denominator)
        found = self._scores.get(key)
        if found is None:
            score = min(max(self._base + charged, self._lowest), self._highest)
            last = len(self._bands) - 1
            rank = next((rank for rank, (_, least) in enumerate(self._bands) if score >= least), last)
            if len(self._scores) >= SUMS_KEPT:
                self._scores.clear()
            found = self._scores[key] = (number_text(score), rank)
        return found

    def grade(self, rank: int, caps: Iterable[str]) -> str:
        """The grade of a rank, but none better than any of ``caps``."""
        return self._bands[max([rank, *(self._ranks[cap] for cap in caps)])][0]


def terms_of(layout: Layout, pack: Pack, card: Scorecard, day: date) -> Terms:
    """A card of dimensions with the parameters in force on a day."""
    on_day: Callable[[date], Terms] = layout.remembered(
        ("terms", id(card)), lambda: lru_cache(maxsize=DAYS_KEPT)(lambda one: Terms(pack, card, one))
    )
    return on_day(day)


Shares = tuple[tuple[int, int] | None, ...]
"""What items earned, as quotients: whole numbers are hashed many times faster than fractions."""


def shares_of(earned: Iterable[Earned]) -> Shares:
    """The shares of some items; None of one without data."""
    return tuple([None if one.share is None else one.share.as_integer_ratio() for one in earned])


class Terms:
    """A card of dimensions on one day: its bounds, bands and weights, and the most that each item can earn."""

    def __init__(self, pack: Pack, card: Scorecard, day: date) -> None:
        self.bounds = _number(pack, card.lowest, day), _number(pack, card.highest, day)
        self.bands = _table(pack, card.bands, day)
        self.weights = (
            _table(pack, card.weights, day) if card.weights else {card.dimensions[0].name: Fraction(1)}
        )
        self.weight_texts = {name: number_text(weight) for name, weight in self.weights.items()}
        items = [item for dimension in card.dimensions for item in dimension.items]
        self.most = {item.name: _number(pack, item.most, day) for item in items}
        self.most_texts = {name: number_text(most) for name, most in self.most.items()}
        self.unheard: dict[str, Any] = {}
        """What items come to of which people have said nothing, by their names; the grader fills it."""
        self.unheard_card: Any = None
        """What all items of a card come to where these are all that it has."""
        self._step = card.step
        self._worked: dict[tuple[int, int, Shares], Worked | None] = {}
        self._grades: dict[tuple[int, int], str] = {}

    def worked(self, shares: Shares, earned: Sequence[Earned], others: Fraction) -> Worked | None:
        """The card worked out, of what all of its items earned, with their ``shares``; None when nothing has data."""
        same = (others.numerator, others.denominator, shares)
        if same not in self._worked:
            if len(self._worked) >= SUMS_KEPT:
                self._worked.clear()
            self._worked[same] = work_out(earned, self.weights, others, self.bounds, self._step)
        return self._worked[same]

    def grade(self, score: Fraction) -> str:
        """The grade of a score that nothing else decides."""
        key = (score.numerator, score.denominator)
        found = self._grades.get(key)
        if found is None:
            if len(self._grades) >= SUMS_KEPT:
                self._grades.clear()
            found = self._grades[key] = grade_of(score, self.bands)
        return found


def _table(pack: Pack, name: str, day: date) -> dict[str, Fraction]:
    value = pack.parameters[name].value_at(day)
    assert isinstance(value, dict), name
    return value


def _number(pack: Pack, name: str, day: date) -> Fraction:
    value = pack.parameters[name].value_at(day)
    assert isinstance(value, Fraction), name
    return value

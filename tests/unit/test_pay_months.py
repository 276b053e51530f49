"""Several months of one person, settled one after the other by the pure arithmetic: what must hold over all of them.

``settled`` does what the books do, in memory: each month is settled once, and the next take in what it came to since.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kaohe.core.pay import Charge, Person, adjustments, corrections, entries_of, own_lines, settle
from kaohe.decisions import PayLine, Settlement
from kaohe.events import PayTermsInForce
from tests.support.pay import adding, charge, graded, monthly, terms

MONTHS = ("2026-08", "2026-09", "2026-10", "2026-11")
FINES = ("-30", "-12.5", "-4", "-0.333")
AMOUNTS = ("1", "333", "1000", "5000")


def settled(
    terms_of: Callable[[str], PayTermsInForce],
    entries: Sequence[Charge],
    gross: dict[str, int | None],
    word: str = "B",
) -> dict[str, Settlement]:
    """The statements of all months. Settling a month a second time changes nothing, also when it is opened again."""
    booked: defaultdict[str, list[PayLine]] = defaultdict(list)
    adjusted: defaultdict[str, list[PayLine]] = defaultdict(list)
    came_to: Counter[str] = Counter()

    def work_out(month: str, upto: str, adjusting: Sequence[PayLine], done: Sequence[str]) -> Settlement:
        pay = gross[month]
        someone = Person(
            agent="a-1", profile=None if pay is None else monthly(pay), grade=graded(word),
            charges=tuple(one for one in entries if one.period == month),
            earlier=tuple(one for one in entries if one.period < month),
            later=tuple(one for one in entries if month < one.period <= upto),
            settled=frozenset(done), came_to=came_to,
        )  # fmt: skip
        return settle(terms_of(month), someone, month, adjusting)

    found = {}
    for number, month in enumerate(MONTHS):
        done = MONTHS[:number]
        adjusting = []
        for closed in done:
            now = own_lines(work_out(closed, month, adjusted[closed], done))
            adjusting += adjustments(now, booked[closed])
        for line in adjusting:
            came_to[line.source] += line.amount_minor
        found[month] = made = work_out(month, month, adjusting, done)
        for line in entries_of(made):
            booked[line.of_period].append(line)
            if line.of_period != month:
                adjusted[month].append(line)
            else:
                came_to[line.source] += line.amount_minor
        again = work_out(month, month, adjusted[month], MONTHS[: number + 1])
        assert corrections(own_lines(again), booked[month]) == []
        _check(made, terms_of(month))
    return found


def _check(made: Settlement, in_force: PayTermsInForce) -> None:
    """No pay below the guard's floor, no deduction above its limit, and sums that match to the last minor unit."""
    gross = made.gross_minor or 0
    assert made.pay_minor >= min(int(in_force.parameters["floor"].value), gross)
    assert made.guard.deductions_minor - made.guard.held_minor <= gross * Fraction(
        in_force.parameters["limit"].value
    )
    assert made.total_minor == sum(line.amount_minor for line in made.lines)
    assert made.pay_minor == made.fixed_minor + made.total_minor


def total(made: dict[str, Settlement]) -> int:
    return sum(one.total_minor for one in made.values())


def changing(draw: st.DrawFn) -> Callable[[str], PayTermsInForce]:
    """Terms of two packs that may change from month to month: what a point is worth, fines on or off, the guard."""
    limits, floor = draw(st.sampled_from(["0", "0.05", "0.2", "1"])), draw(st.sampled_from(["0", "250000"]))
    each = {}
    for month in MONTHS:
        worth, fines = draw(st.sampled_from(AMOUNTS)), draw(st.sampled_from(["on", "on", "off"]))
        made = terms(limit=limits, floor=floor, point_value=worth, fines=fines)
        each[month] = msgspec.structs.replace(made, parts=[adding("other", point_value=worth, fines=fines)])
    return each.__getitem__


class Told:
    """The entries of a person, told one after the other; what an incident has come to is never above nothing."""

    def __init__(self) -> None:
        self.entries: list[Charge] = []
        self.sums: dict[str, Fraction] = {}
        self.of: dict[str, tuple[str, str]] = {}

    def tell(self, points: str, month: str, **changes: Any) -> Charge:
        number = len(self.entries) + 1
        at = f"{month}-{number % 28 + 1:02d}T{number // 28:02d}:00:00Z"
        made = charge(points, number=number, id=f"d-{number:03d}", period=month, at=at, **changes)
        self.entries.append(made)
        return made

    def fine(self, points: str, month: str, pack: str) -> Charge:
        incident = f"i-{len(self.entries)}"
        self.sums[incident], self.of[incident] = Fraction(points), (month, pack)
        return self.tell(points, month, incident=incident, pack=pack)

    def adjust(self, incident: str, points: str, month: str) -> Charge | None:
        closed, pack = self.of[incident]
        if closed >= month or self.sums[incident] + Fraction(points) > 0:
            return None
        self.sums[incident] += Fraction(points)
        return self.tell(points, month, incident=incident, pack=pack, kind="adjust", adjusts_period=closed)

    def waive(self, taken: Charge, month: str) -> None:
        points = taken.points[1:] if taken.points.startswith("-") else f"-{taken.points}"
        closed = taken.adjusts_period if taken.period == month else taken.period
        self.sums[taken.incident] -= Fraction(taken.points)
        self.tell(points, month, incident=taken.incident, pack=taken.pack, kind="waive", reverses=taken.id,
                  rule="excused", adjusts_period=closed)  # fmt: skip


@st.composite
def taken_back(draw: st.DrawFn) -> list[Charge]:
    """Three months of fines, judged anew and waived; in the fourth everything is taken back, by entry or in one sum."""
    told, by_entry = Told(), draw(st.booleans())
    live: list[Charge] = []
    for month in MONTHS[:-1]:
        for _ in range(draw(st.integers(0, 3))):
            step = draw(st.sampled_from(["fine", "adjust", "waive"]))
            if step == "fine" or not told.sums:
                live.append(
                    told.fine(
                        draw(st.sampled_from(FINES)), month, draw(st.sampled_from(["company-kpi", "other"]))
                    )
                )
            elif step == "adjust":
                signed = FINES if by_entry else (*FINES, "4", "12.5")
                made = told.adjust(
                    draw(st.sampled_from(sorted(told.sums))), draw(st.sampled_from(signed)), month
                )
                live += [made] if made is not None else []
            elif by_entry and live:
                told.waive(live.pop(draw(st.integers(0, len(live) - 1))), month)
    for one in live if by_entry else ():
        told.waive(one, MONTHS[-1])
    for incident, points in sorted(told.sums.items()) if not by_entry else ():
        if points:
            told.adjust(incident, f"{float(-points):.3f}".rstrip("0").rstrip("."), MONTHS[-1])
    return told.entries


@settings(max_examples=60, deadline=None)
@given(
    st.data(), taken_back(), st.lists(st.sampled_from([300_000, 0, None, 123_457]), min_size=4, max_size=4)
)
def test_reversing_everything_gives_nothing_whatever_the_guards_held_back_and_the_terms_were(
    data: st.DataObject, entries: list[Charge], pay: list[int | None]
) -> None:
    in_force, gross = data.draw(st.composite(changing)()), dict(zip(MONTHS, pay, strict=True))
    assert total(settled(in_force, entries, gross)) == total(settled(in_force, [], gross))


def test_what_is_waived_is_worth_what_its_rule_had_charged() -> None:
    """A fine of 50.00 an incident of one rule: what waives it is a rule of its own, for which there is no amount."""
    in_force = terms(limit="1", floor="0")
    table = msgspec.structs.replace(in_force.parameters["point_value"], value="", table={"ck-rule": "5000"})
    in_force = msgspec.structs.replace(in_force, parameters=in_force.parameters | {"point_value": table})
    told = Told()
    fine = told.fine("-1", "2026-08", "company-kpi")
    other = told.fine("-1", "2026-08", "company-kpi")
    told.waive(other, "2026-08")
    told.waive(fine, "2026-09")
    made = settled(lambda _: in_force, told.entries, dict.fromkeys(MONTHS, 300_000))
    lines = {
        (month, line.source): (line.component, line.amount_minor)
        for month in MONTHS
        for line in made[month].lines
    }
    assert lines["2026-08", fine.id] == lines["2026-08", other.id] == ("penalty", -5_000)
    assert lines["2026-08", told.entries[2].id] == lines["2026-09", told.entries[3].id] == ("penalty", 5_000)


def test_what_is_excused_in_the_moment_in_which_it_is_charged_costs_and_pays_nothing() -> None:
    """Whatever their ids: the fine comes first."""
    for fines in ("on", "off"):
        first, second = (charge("-1", number=number) for number in (1, 9))
        for fine in (first, second):
            back = charge("1", number=5, kind="waive", reverses=fine.id, incident=fine.incident, at=fine.at)
            made = settle(terms(fines=fines), Person(
                agent="a-1", profile=monthly(300_000), grade=graded("D"), charges=(fine, back)
            ), "2026-08")  # fmt: skip
            wanted = 500 if fines == "on" else 0
            assert [(line.component, line.amount_minor) for line in made.lines[1:]] == [
                ("penalty", -wanted), ("penalty", wanted),
            ]  # fmt: skip

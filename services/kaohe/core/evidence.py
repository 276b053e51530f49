"""Which events a judgement rests on: seen when they happen, kept in bounds, told with what is decided.

Theory of operation. The witnesses of all rules (``kaohe.core.witnesses``) that read one event type, or one outcome, are
turned into one Python function, made once when packs are loaded. It gives for an event the witnesses that see it, each
with a *rank*: a whole number by which the lowest counts most. Most events are seen by none. Where all witnesses of an
event type compare numbers, a *sieve* of bounds holds most of these back without a call; it may let too much through and
never too little.

What is seen is kept by witness, window and period: how many there were, and the ``MAX_KEPT`` that count most, by rank,
then by time and id. That is a function of what was seen alone: it does not depend on the order of arrival, nor on how
it was spread over partitions, for the first of a whole are among the first of its parts. Outcomes of deadlines and of
attendance may be taken back. Of them ``MAX_OUTCOMES_KEPT`` are kept, so that those that move up are known; only if more
were taken back than lie between the two bounds would some be missing, and the number would still be right.

An agent is seen at once. What is seen of teams, queues and sites waits until their minute is reported to the group
stage, like their counts (``kaohe.core.engine``), and at most as much of it as is kept.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Any, NamedTuple

import msgspec

from kaohe.core.calendars import WINDOWS
from kaohe.core.counting import Layout, condition_source, unit_factor
from kaohe.core.counts import span_ms
from kaohe.core.expressions import CompareOp, Comparison, Junction, Name, Number
from kaohe.core.facts import Moment
from kaohe.core.intake import MAX_FIELDS, MAX_VALUES, Sieve
from kaohe.core.model import Pack, Rule
from kaohe.core.partials import past_ones, put_together
from kaohe.core.subjects import MAX_EVIDENCE, Evidence, Sighting, Subject
from kaohe.core.witnesses import JUDGED, Order, Sight, Witness, limit_source, witnesses_of
from kaohe.events import PAYLOADS

MAX_OUTCOMES_KEPT = 200
"""Outcomes of deadlines and attendance that are kept where ``MAX_EVIDENCE`` events are."""
EVERYTHING = 1 << 40
ENDLESS = (1 << 62) - 1
"""Beyond every value of an event that is no larger than ``LARGE`` in ``kaohe.core.intake``."""
OPPOSITES: dict[CompareOp, CompareOp] = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
MAX_WAITING = 10_000
"""What was seen of groups and is not put together yet."""

Hit = tuple[int, int, bool]
"""A witness (its place in ``Witnesses.uses``), the rank, and whether the event ends what was seen before."""
Seeing = Callable[[Any, int], "list[Hit] | None"]
"""``(data, time_ms)``: which witnesses see an event; None for most events."""
Value = tuple[tuple[str, int], ...]
"""Fields with their signs, added up."""
Place = tuple[str, str, str]
"""Queue, team and site."""
PLACES = ("queue", "team", "site")


class Use(NamedTuple):
    """A witness, for which windows it is kept at each level, and how much of what it sees."""

    key: str
    windows: dict[str, tuple[str, ...]]
    bound: int


class Change(msgspec.Struct, array_like=True, gc=False):
    """What was seen of a group in one bucket of log time: how many more, the first of them, and what is gone of that
    which was reported before."""

    count: int = 0
    kept: list[Sighting] = []
    gone: list[str] = []

    def take_back(self, tag: str) -> None:
        """One less, whether it was seen in this bucket or reported before."""
        self.count -= 1
        if not drop(self.kept, tag):
            self.gone.append(tag)


Changes = dict[str, Change]
"""What was seen, by the key of its witness."""
Reported = tuple[str, str, int, Changes]
"""Level, name and start of the bucket in ms, and what was seen."""


class Witnesses:
    """The witnesses of all rules of some packs, compiled. ``most`` is how many ids a decision names."""

    def __init__(self, packs: Iterable[Pack], most: int = MAX_EVIDENCE) -> None:
        self.most = most
        self.uses: list[Use] = []
        self.places: dict[str, int] = {}
        self.by_rule: dict[tuple[str, str], tuple[Witness, ...]] = {}
        self._by_source: dict[str, list[tuple[int, Sight, Order, Pack]]] = {}
        windows: dict[tuple[str, str], set[str]] = {}
        for pack in packs:
            for rule in pack.rules:
                if rule.trigger not in JUDGED:
                    continue
                own = self.by_rule[pack.key, rule.id] = witnesses_of(pack, rule)
                for witness in own:
                    self._add(witness, pack)
                    for level in rule.levels:
                        windows.setdefault((witness.key, level), set()).add(witness.window)
        for (key, at), found in windows.items():
            self.uses[self.places[key]].windows[at] = tuple(sorted(found))
        self.seeing = {source: self._compile(source) for source in sorted(self._by_source)}
        self.sieves = {
            source: sieve
            for source in self._by_source
            if source in PAYLOADS and (sieve := self._sieve(source)) is not None
        }

    def _add(self, witness: Witness, pack: Pack) -> None:
        if witness.key in self.places:
            return
        place = self.places[witness.key] = len(self.uses)
        outcomes = any(is_outcome(sight.source) for sight in witness.sights)
        bound = max(self.most, MAX_OUTCOMES_KEPT) if outcomes else self.most
        self.uses.append(Use(witness.key, {}, bound))
        for sight in witness.sights:
            self._by_source.setdefault(sight.source, []).append((place, sight, witness.order, pack))

    def keep_all(self) -> None:
        """Keep and name everything that is seen, in a replay whose purpose is to tell it."""
        self.most = EVERYTHING
        self.uses[:] = [use._replace(bound=EVERYTHING) for use in self.uses]

    def source_code(self, source: str) -> str:
        """The generated code for one source, for people who want to see it."""
        fields = [field for _, sight, _, _ in self._by_source[source] for field, _ in sight.value]
        lines = ["def see(d, t):", "    f = None"]
        # What several witnesses look at is read once.
        lines += [f"    v_{field} = d.{field}" for field in dict.fromkeys(fields)]
        for place, sight, order, pack in self._by_source[source]:
            hit = f"({place}, {_rank(sight, order)}, {sight.over})"
            condition = _condition(sight, pack)
            indent = "    "
            if condition:
                lines.append(f"    if {condition}:")
                indent += "    "
            lines += [f"{indent}if f is None: f = [{hit}]", f"{indent}else: f.append({hit})"]
        return "\n".join([*lines, "    return f"]) + "\n"

    def _sieve(self, source: str) -> Sieve | None:
        """What lets every event through that some witness sees; None when only the witnesses can tell."""
        found: dict[tuple[Value, bool], tuple[int, int]] = {}
        for _, sight, _, pack in self._by_source[source]:
            span = _span(sight, pack)
            if span is None:
                return None
            value, lowest, highest = span
            known = found.setdefault((value, lowest == -ENDLESS), (lowest, highest))
            found[value, lowest == -ENDLESS] = min(known[0], lowest), max(known[1], highest)
        spans = [(value, *span) for (value, _), span in found.items()]
        if len(spans) > MAX_VALUES or sum(len(value) for value, _, _ in spans) > MAX_FIELDS:
            return None
        return Sieve(PAYLOADS[source], spans)

    def _compile(self, source: str) -> Seeing:
        namespace: dict[str, Any] = {"Fraction": Fraction}
        # The code is made above from a checked pack, as that of the counting is.
        exec(compile(self.source_code(source), f"<seeing {source}>", "exec"), namespace)  # noqa: S102
        found: Seeing = namespace["see"]
        return found


def is_outcome(source: str) -> bool:
    """Whether a source tells what became of something, which later events may change."""
    return source.startswith(("deadline/", "attendance/"))


def _value(sight: Sight) -> str:
    return " ".join(f"{'-' if sign < 0 else '+'} v_{field}" for field, sign in sight.value).removeprefix("+ ")


def _rank(sight: Sight, order: Order) -> str:
    if order in ("most", "least") and sight.value:
        return f"-({_value(sight)})" if order == "most" else _value(sight)
    return "-t" if order == "latest" else "t"


def _condition(sight: Sight, pack: Pack) -> str:
    parts = [f"({condition_source(sight.where, pack)})"] if sight.where is not None else []
    parts += [f"not ({condition_source(other, pack)})" for other in sight.unless]
    if sight.beyond is not None and sight.value:
        parts.append(f"({_value(sight)}) {sight.beyond.op} {limit_source(sight.beyond, pack)}")
    return " and ".join(parts)


def _span(sight: Sight, pack: Pack) -> tuple[Value, int, int] | None:
    """A value, and between which bounds it must lie for an event to be seen, whatever is in force; None: no such."""
    if sight.beyond is not None and sight.value:
        beyond = sight.beyond
        return _between(sight.value, beyond.op, _figures(beyond.limit, pack, beyond.scale))
    where = sight.where
    parts = where.parts if isinstance(where, Junction) and where.op == "&&" else (where,)
    for part, holds in (*((part, True) for part in parts), *((part, False) for part in sight.unless)):
        if isinstance(part, Comparison) and part.left.name.startswith("event."):
            op = part.op if holds else OPPOSITES[part.op]
            figures: list[Fraction] = []
            if isinstance(part.right, Number):
                figures = [part.right.value]
            elif isinstance(part.right, Name) and part.right.name.startswith("p."):
                name = part.right.name[2:]
                figures = _figures(name, pack, unit_factor(pack.parameters[name].unit))
            span = _between(((part.left.name[6:], 1),), op, figures)
            if span is not None:
                return span
    return None


def _figures(limit: Fraction | str, pack: Pack, scale: Fraction) -> list[Fraction]:
    """Every value that a limit ever has, in the unit of the event's fields; none when it is no number."""
    values = [value for _, value in pack.parameters[limit].values] if isinstance(limit, str) else [limit]
    numbers = [value * scale for value in values if isinstance(value, Fraction)]
    return numbers if len(numbers) == len(values) else []


def _between(value: Value, op: CompareOp, limits: list[Fraction]) -> tuple[Value, int, int] | None:
    """Bounds that a value (a whole number) surely keeps which compares so with one of some limits."""
    if op == "!=" or not limits or max(map(abs, limits)) >= ENDLESS:
        return None
    lowest, highest = -ENDLESS, ENDLESS
    if op in (">", ">=", "=="):
        lowest = floor(min(limits)) + 1 if op == ">" else ceil(min(limits))
    if op in ("<", "<=", "=="):
        highest = ceil(max(limits)) - 1 if op == "<" else floor(max(limits))
    return value, lowest, highest


def witnesses(layout: Layout) -> Witnesses:
    """The witnesses of the packs of an engine."""
    found: Witnesses = layout.remembered("witnesses", lambda: Witnesses(layout.packs))
    return found


# --- keeping ----------------------------------------------------------------------------------------------------------


def keep(kept: list[Sighting], one: Sighting, bound: int) -> None:
    """Put what was seen to what is kept, if it is among the first."""
    if len(kept) < bound:
        insort(kept, one)
    elif one < kept[-1]:
        kept.pop()
        insort(kept, one)


def cut(kept: list[Sighting], bound: int) -> None:
    """Put what was seen in order, and keep the first."""
    kept.sort()
    del kept[bound:]


def drop(kept: list[Sighting], tag: str) -> bool:
    """Take out what was seen under a tag; whether it was there."""
    for index, one in enumerate(kept):
        if one.tag == tag:
            del kept[index]
            return True
    return False


class Sightings:
    """What is seen in one partition. ``groups`` waits to be reported: by level, name, bucket and witness."""

    def __init__(self, found: Witnesses, buckets_ms: Mapping[str, int]) -> None:
        self.witnesses = found
        self.seeing = found.seeing
        self._buckets_ms = buckets_ms
        self._waiting: list[tuple[list[Hit], int, str, tuple[str, ...], Place, int]] = []
        self.groups: dict[str, dict[str, dict[int, Changes]]] = {level: {} for level in buckets_ms}
        self._levels = [
            tuple(
                (position, self.groups[level], buckets_ms[level])
                for position, level in enumerate(PLACES)
                if level in use.windows
            )
            for use in found.uses
        ]

    def take(
        self, hits: list[Hit], at_ms: int, tag: str, ids: tuple[str, ...], agent: Subject | None, place: Place,
        weight: int = 1,
    ) -> None:  # fmt: skip
        """Keep what some witnesses see (``weight`` -1: it is taken back). ``tag`` tells it apart, and is the event's id
        where ``ids`` are empty."""
        uses, grouped = self.witnesses.uses, False
        for found, rank, over in hits:
            use = uses[found]
            windows = use.windows.get("agent")
            if windows is not None and agent is not None:
                one = Sighting(rank, at_ms, tag, ids)
                for window in windows:
                    name = period_key(use.key, window, agent, at_ms)
                    _see(agent, name, one, -1 if over else weight, use.bound)
            grouped = grouped or bool(self._levels[found])
        if grouped:
            self._waiting.append((hits, at_ms, tag, ids, place, weight))
            if len(self._waiting) >= MAX_WAITING:
                self.settle()

    def settle(self) -> None:
        """Put what waits together, by group and bucket."""
        waiting, self._waiting = self._waiting, []
        put_together(waiting, self.witnesses.uses, self._levels, Change, Sighting, cut)

    def due(self, upto_ms: int) -> Iterator[Reported]:
        """What was seen of groups in buckets that are over, in the order of names; it is forgotten here."""
        if self._waiting:
            self.settle()
        for level, groups in self.groups.items():
            bucket_ms = self._buckets_ms[level]
            for name, bucket, changes in past_ones(groups, upto_ms // bucket_ms):
                yield level, name, bucket * bucket_ms, self._ordered(changes)

    def stored(self) -> list[Reported]:
        """Everything that waits to be reported, in one order."""
        self.settle()
        return [
            (level, name, bucket * self._buckets_ms[level], self._ordered(changes))
            for level, groups in self.groups.items()
            for name, buckets in sorted(groups.items())
            for bucket, changes in sorted(buckets.items())
        ]

    def restore(self, stored: Iterable[Reported]) -> None:
        """Take over what ``stored`` gave."""
        for level, name, start_ms, changes in stored:
            self.groups[level].setdefault(name, {})[start_ms // self._buckets_ms[level]] = changes

    def _ordered(self, changes: Changes) -> Changes:
        for key, change in changes.items():
            if len(change.kept) > 1:
                place = self.witnesses.places.get(key)
                cut(change.kept, self.witnesses.uses[place].bound if place is not None else 0)
        return {key: changes[key] for key in sorted(changes)} if len(changes) > 1 else changes


def period_key(key: str, window: str, subject: Subject, at_ms: int) -> str:
    """Under which name a subject keeps what a witness sees at a moment; running windows have no period."""
    label = subject.series.calendar.containing(window, at_ms).label if window in WINDOWS else ""
    return f"{key}|{window}|{label}"


def _see(subject: Subject, key: str, one: Sighting, weight: int, bound: int) -> None:
    evidence = subject.evidence.get(key)
    if evidence is None:
        evidence = subject.evidence[key] = Evidence()
    evidence.count += weight
    if weight > 0:
        keep(evidence.kept, one, bound)
    else:
        drop(evidence.kept, one.tag)
    if not evidence.count and not evidence.kept:
        del subject.evidence[key]


def merge(found: Witnesses, subject: Subject, start_ms: int, changes: Changes) -> None:
    """Put what a partition saw of a group in one bucket to what is kept of it."""
    evidence = subject.evidence
    for key, change in changes.items():
        place = found.places.get(key)
        if place is None:
            continue  # a rule that is not loaded here any more
        use = found.uses[place]
        for window in use.windows.get(subject.level, ()):
            name = period_key(key, window, subject, start_ms)
            known = evidence.get(name)
            if known is None:
                known = evidence[name] = Evidence()
            known.count += change.count
            for tag in change.gone:
                drop(known.kept, tag)
            if change.kept:
                known.kept = joined(known.kept, change.kept, use.bound)
            if not known.count and not known.kept:
                del evidence[name]


def joined(kept: list[Sighting], more: list[Sighting], bound: int) -> list[Sighting]:
    """The first of both, each of which is in order."""
    if not kept or more[-1] < kept[0]:  # as nearly always, where the latest count most
        return (more + kept)[:bound]
    both = kept + more
    cut(both, bound)
    return both


# --- telling ----------------------------------------------------------------------------------------------------------


def evidence_for(
    layout: Layout, subject: Subject, pack: Pack, rule: Rule, moment: Moment
) -> tuple[list[str], int]:
    """The ids of the events that a judgement of many rests on, those that count most first, and how many there are.

    An outcome is shown by the events that make it up, so these are counted; of outcomes that are not kept any more
    each counts as one. An event that speaks twice is named once.
    """
    found = witnesses(layout)
    ids: dict[str, None] = {}
    beyond = 0
    for witness in found.by_rule.get((pack.key, rule.id), ()):
        kept, count = _kept(witness, subject, moment)
        beyond += max(0, count - len(kept))
        tags = [one.tag for one in kept if not one.ids]
        if len(tags) == len(kept):
            ids.update(dict.fromkeys(tags))
            continue
        for one in kept:
            if one.ids:
                ids.update(dict.fromkeys(one.ids))
            else:
                ids[one.tag] = None
    return list(ids)[: found.most], len(ids) + beyond


def _kept(witness: Witness, subject: Subject, moment: Moment) -> tuple[Sequence[Sighting], int]:
    window = witness.window
    label = ""
    if window in WINDOWS:
        period = moment.current(window)
        label = (moment.calendar.previous(period) if witness.previous else period).label
    evidence = subject.evidence.get(f"{witness.key}|{window}|{label}")
    if evidence is None:
        return (), 0
    if not window.startswith("rolling_"):
        return evidence.kept, evidence.count
    edge_ms = moment.at_ms - span_ms(window)
    inside = [one for one in evidence.kept if one.at_ms >= edge_ms]
    return inside, len(inside)


def past(evidence: Iterable[str], ended: Callable[[str, str], bool]) -> list[str]:
    """Of the keys of what is kept, those of periods that are over for good."""
    parts = [(key, *key.split("|")[1:]) for key in evidence]
    return [key for key, window, label in parts if label and ended(window, label)]


def of_periods(evidence: Iterable[str], windows: Container[str] = WINDOWS) -> bool:
    """Whether anything is kept of a period. What runs on for ever keeps nobody from being forgotten."""
    return any(key.split("|")[1] in windows for key in evidence)

"""Watching: the rules that look at rolling windows and days while they run, and the alerts that they begin and end.

Theory of operation. Whoever has counts in a rolling window, or an alert, is *live* and is looked at at each boundary of
log time (teams at each fifth minute): one look, compiled for all rules of a level on a day, says from the counts which
rules may hold and which alerts may end, and only of these the matcher is asked. Whom nothing moves but a new day,
another roster or version *rests* until then. An alert that fires goes on until its clear condition is met.

A look too many can begin an alert as well as a look too few can miss one: when another version judges nobody looks at
those who are neither live nor at rest. So a successor looks at the same ones. Who becomes live without an alert, or is
live no more, is *touched*, and stored with it; with an alert one is looked at in any case, and nothing comes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from kaohe.core.calendars import Calendar
from kaohe.core.calendars import calendar as shared_calendar
from kaohe.core.effects import clears, names_of
from kaohe.core.evidence import evidence_for
from kaohe.core.facts import Moment
from kaohe.core.looks import Glance, look_at
from kaohe.core.model import Effect, Pack, Rule
from kaohe.core.rulesets import RuleSet, Watch
from kaohe.core.subjects import AlertState, Subject
from kaohe.decisions import alert_id

if TYPE_CHECKING:
    from kaohe.core.judge import Judge

WATCHES_KEPT = 64
"""Days and combinations of packs for which the live rules of a level are kept ready."""
TEAM_WATCH_MS = 300_000
"""Teams are watched every five minutes, like agents; queues and sites every minute."""


class _Today(NamedTuple):
    """What all subjects of a zone share at a boundary: its day, where this begins, and that of the moment before."""

    day: date
    start_ms: int
    before_ms: int


class _Boundary:
    """What all subjects of a zone that are looked at share: the day, the periods of the moment before, and the live
    rules of those under all packs, by level."""

    __slots__ = ("days", "periods", "watches")

    def __init__(self, calendar: Calendar, now_ms: int) -> None:
        self.periods = calendar.periods(now_ms - 1)
        start_ms = calendar.containing("day", now_ms).start_ms
        self.days = _Today(calendar.day(now_ms), start_ms, self.periods[0].start_ms)
        self.watches: dict[str, Watch] = {}


class Watching:
    """Who is looked at, and what was seen of each the last time."""

    def __init__(self, judge: Judge, packs: tuple[Pack, ...], triggers: Mapping[str, frozenset[str]]) -> None:
        self.judge = judge
        self.live: set[tuple[str, str]] = set()
        self.resting: set[tuple[str, str]] = set()
        self.day_ms: int | None = None
        self._looking_back = _looking_back(packs, triggers)
        self.glances: dict[tuple[str, str], Glance] = {}
        self.activations = 0
        self._boundaries: dict[str, _Boundary] = {}
        self._watches: dict[tuple[str, tuple[str, ...], date], Watch] = {}
        self._same_watches: dict[tuple[Any, ...], Watch] = {}
        self._rules: dict[tuple[str, str], list[tuple[Pack, Rule]]] = {}
        for pack in packs:
            for rule in pack.rules:
                for level in rule.levels if rule.trigger == "watch" else ():
                    self._rules.setdefault((level, f"{pack.name}|{rule.id}"), []).append((pack, rule))

    @property
    def waits_for_a_day(self) -> bool:
        """Whether the beginning of a day may change anything."""
        return bool(self._looking_back or self.resting)

    def begin_anew(self) -> None:
        """Another version judges: look again at all that are looked at or rest (at others with their next count)."""
        self.activations += 1
        self.live |= self.resting
        self.resting.clear()
        self._watches.clear()

    def awake(self, key: tuple[str, str]) -> None:
        """Something is new about a subject: look at it if it rests."""
        if key in self.resting:
            self.live.add(key)

    def forget(self, key: tuple[str, str]) -> None:
        """Look at a subject no more."""
        self.live.discard(key)
        self.resting.discard(key)
        self.glances.pop(key, None)

    def run(self, now_ms: int) -> None:
        """Look at all that are to be looked at, at a boundary of log time."""
        if self.waits_for_a_day:
            self._wake(now_ms)
        self._look(now_ms)

    def _look(self, now_ms: int) -> None:
        teams = now_ms % TEAM_WATCH_MS == 0
        self._boundaries.clear()
        look_at(self, sorted([key for key in self.live if teams or key[0] != "team"]), now_ms)

    def boundary(self, calendar: Calendar, now_ms: int) -> _Boundary:
        """What all subjects of a zone that are looked at now share."""
        found = self._boundaries.get(calendar.name)
        if found is None:
            found = self._boundaries[calendar.name] = _Boundary(calendar, now_ms)
        return found

    def watch_of(self, boundary: _Boundary, level: str, packs: list[str]) -> Watch:
        """The live rules for subjects of a level under these packs (none: all), which are not at the boundary yet."""
        watch = self._watch_of(level, packs, boundary.days.day)
        if not packs:
            boundary.watches[level] = watch
        return watch

    def let_rest(self, subject: Subject, now_ms: int, same: bool, waits: bool, at_midnight: bool) -> None:
        """Look no more at a subject whose rolling windows are empty, as soon as nothing can come of it.

        ``same``: all that it was judged by was what it was the time before.
        """
        key = subject.key
        if subject.alerts:
            # Nothing moves an alert that stands but what is counted, another day, roster or version.
            if same and not waits and subject.roster_from_ms <= now_ms:
                self.live.discard(key)
                self.resting.add(key)
            return
        self.resting.discard(key)
        if same or not at_midnight or subject.level not in self._looking_back:
            self.live.discard(key)
            self.glances.pop(key, None)
        # Also one that stays live: that a day which began woke it is not stored yet.
        self.judge.touched.add(key)

    def next_day_ms(self, after_ms: int) -> int:
        """The next moment at which a day begins somewhere."""
        if self.day_ms is None or self.day_ms <= after_ms:
            zones = {zone for _, zone, _ in self.judge.closes}
            running = [shared_calendar(zone).containing("day", after_ms) for zone in sorted(zones)]
            self.day_ms = min([day.end_ms for day in running], default=1 << 62)
        return self.day_ms

    def _wake(self, now_ms: int) -> None:
        """When a day begins, look at all whose alerts stand, and at everybody there about whom rules look back.

        Not at those in other zones: whether a day begins elsewhere depends on who else is judged here.
        """
        grid_ms = self.judge.grid_ms
        assert grid_ms is not None
        if self.next_day_ms(grid_ms) > now_ms:
            return
        self.live |= self.resting
        self.resting.clear()
        begun = {
            zone
            for zone in {zone for _, zone, _ in self.judge.closes}
            if shared_calendar(zone).containing("day", now_ms).start_ms > grid_ms
        }
        for key, subject in self.judge.subjects.items():
            if subject.level in self._looking_back and subject.series.calendar.name in begun:
                self.live.add(key)

    def _watch_of(self, level: str, packs: list[str], day: date) -> Watch:
        """The live rules, of the versions that judge now, for subjects under these packs (none: all) on a day."""
        key = (level, tuple(packs), day)
        found = self._watches.get(key)
        if found is None:
            sets = [
                rules
                for rules in self.judge.book.watch[level]
                if self.judge.active[rules.pack.name] == rules.pack.version
                and (not packs or rules.pack.name in packs)
                and day >= rules.pack.in_force_from
            ]
            # On most days the parameters are what they were on the day before.
            same = (level, tuple([(rules.pack.key, rules.values_on(day)) for rules in sets]))
            if len(self._watches) >= WATCHES_KEPT:
                self._watches.clear()
            if same not in self._same_watches:
                if len(self._same_watches) >= WATCHES_KEPT:
                    self._same_watches.clear()
                self._same_watches[same] = Watch(self.judge.layout, sets, day)
            found = self._watches[key] = self._same_watches[same]
        return found

    def judge_watched(
        self, subject: Subject, watch: Watch, now_ms: int, day: date, may_hold: int, judged: int
    ) -> None:
        """Begin, carry on and end the alerts of the rules ``judged``.

        The matcher is asked when its answer changes something: an alert that fires goes on, whether or not its rule
        still holds, until its clear condition is met.
        """
        moment = Moment(subject.series, subject.roster_at(now_ms), now_ms, day=day)
        fired: dict[RuleSet, tuple[Rule, ...]] = {}
        while judged:
            bit = judged & -judged
            judged ^= bit
            rules, rule, key, _ = watch.watched[bit.bit_length() - 1]
            holds = False
            if may_hold & bit:
                if rules not in fired:
                    fired[rules] = rules.matched(moment)
                holds = rule in fired[rules]
            state = subject.alerts.get(key)
            if state is not None and state.firing and holds:
                continue
            for effect in rule.effects:
                self._move_alert(subject, rules.pack, rule, key, effect, moment, holds)

    def _move_alert(
        self, subject: Subject, pack: Pack, rule: Rule, key: str, effect: Effect, moment: Moment, holds: bool
    ) -> None:
        state = subject.alerts.get(key)
        if state is None:
            if not holds:
                return
            found = alert_id(pack.name, rule.id, subject.level, subject.name, str(moment.at_ms))
            state = subject.alerts[key] = AlertState(id=found, since_ms=moment.at_ms, firing=False)
            self.judge.touched.add(subject.key)
        if not state.firing:
            if not holds:
                del subject.alerts[key]
                self.judge.touched.add(subject.key)
            elif moment.at_ms - state.since_ms >= effect.hold_ms:
                state.firing = True
                self.judge.touched.add(subject.key)
                ids, _ = evidence_for(self.judge.layout, subject, pack, rule, moment)
                self.judge.alert(subject, pack, rule, effect, moment, state, "firing", evidence=tuple(ids))
        elif not holds and clears(self.judge.layout, pack, rule, effect, moment):
            del subject.alerts[key]
            self.judge.touched.add(subject.key)
            self.judge.alert(subject, pack, rule, effect, moment, state, "resolved")

    def end_orphans(self, subject: Subject, now_ms: int, day: date) -> None:
        """End the alerts of rules that judge this subject no more: the pack changed, or is not in force for it."""
        moment = Moment(subject.series, subject.roster_at(now_ms), now_ms, day=day)
        for key in sorted(subject.alerts):
            watched = self._rules.get((subject.level, key), [])
            if any(self.judge.judges(pack, subject, moment.at_ms) for pack, _ in watched):
                continue
            state = subject.alerts.pop(key)
            self.judge.touched.add(subject.key)
            if state.firing and watched:
                pack, rule = watched[-1]
                effect = next(effect for effect in rule.effects if effect.kind == "alert")
                self.judge.alert(subject, pack, rule, effect, moment, state, "resolved")


def _looking_back(packs: tuple[Pack, ...], triggers: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The levels that have live rules about a day, week, month, quarter or year that is over."""
    return frozenset(
        level
        for level, judged in triggers.items()
        for pack in packs
        for rule in pack.rules
        if rule.trigger == "watch" and "watch" in judged and level in rule.levels
        if any(".previous_" in name for effect in rule.effects for name in names_of(rule, effect))
    )

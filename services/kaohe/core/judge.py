"""Judging: from facts to ledger entries, alerts and grades.

Theory of operation. A ``Judge`` owns the subjects of some levels and everything that follows from them. It is driven
by three things: single events and missed deadlines (``judge_event``), boundaries of log time (``run``), and nothing
else. At a boundary it folds what was counted, watches live alerts, moves provisional entries and closes periods, in
this order and over subjects in the order of their names, so that the same log gives the same output, byte for byte,
however the boundaries were reached.

A rule about a period keeps one entry per effect, subject and period. While the period runs the entry is provisional
and every change of its amount is a revision; the close (end of the period plus the pack's grace) makes it final. What
still comes later, as long as the closed period is kept, is judged again and the difference becomes an ``adjust`` entry
of the running period that names the closed one.

Each zone closes by its own midnights. Who moves to another one takes over what that one has closed, and keeps what was
closed for them before: the few periods of which both do not say the same are noted (``Known.closed_elsewhere``), and
forgotten with them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from datetime import date
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from kaohe.core import corrections, figures, forgetting, messages, reopening, storing
from kaohe.core.calendars import DAY_MS, WINDOWS, Calendar, Period
from kaohe.core.calendars import calendar as shared_calendar
from kaohe.core.counting import Counts, Layout
from kaohe.core.counts import Cell, Series
from kaohe.core.effects import NOTHING, Worked, work_out
from kaohe.core.evidence import evidence_for
from kaohe.core.facts import NO_COUNTS, Moment, number_text
from kaohe.core.fines import Fines, Money, may_fine
from kaohe.core.grading import Grader, sent
from kaohe.core.model import Effect, Pack, Rule
from kaohe.core.moves import Standing, fold, to_judge, wait
from kaohe.core.outcomes import Outcomes
from kaohe.core.records import Output
from kaohe.core.rulesets import RuleBook, RuleSet, rolling_slots
from kaohe.core.scores import scale_of
from kaohe.core.subjects import (
    MAX_ENTRIES,
    NEVER_MS,
    AlertState,
    Cause,
    Entry,
    GradeState,
    Subject,
    result_key,
)
from kaohe.core.watching import Watching
from kaohe.decisions import alert_id, decision_id

RETENTION_MS = 40 * DAY_MS
"""How long a closed period is kept for late events (and as the previous month of the next one)."""


RELEVANT_KEPT = 1_000
"""Of how many levels and sets of periods it is remembered which packs judge them."""
MAX_HISTORY = 64
"""Activations of a pack, and periods closed by order, that are remembered: they tell which version closed what."""


class Stats(msgspec.Struct):
    """Counts since the engine began, for the wallboard; never part of the state."""

    events: dict[str, int] = {}
    duplicates: int = 0
    late: int = 0
    gaps: int = 0
    rejects: dict[str, int] = {}
    decisions: dict[tuple[str, str, str, str], int] = {}
    alerts: dict[tuple[str, str, str], int] = {}


class _Judging(msgspec.Struct, kw_only=True):
    """How one period of a zone is judged by a pack for a level, and the outcomes at the last judgement of each subject.

    ``weighed`` are the counts that a scorecard looks at, for what it weighs may have changed although nothing did that
    a rule looks at; None when it looks at more than these. ``standing`` has the outcomes as numbers where these are
    all that a judgement before the close rests on, otherwise ``known`` has them as they are, and then what is weighed.
    """

    period: Period
    calendar: Calendar
    day: date
    in_force: bool
    rules: RuleSet | None
    outcomes: Outcomes | None
    weighs: bool
    weighed: tuple[int, ...] | None
    known: dict[str, tuple[Any, ...]] = {}
    standing: Standing | None = None

    def __post_init__(self) -> None:
        if (
            self.outcomes is not None
            and self.outcomes.verdicts is not None
            and self.is_told
            and not self.weighed
        ):
            self.standing = Standing(
                self.outcomes.periods(self.calendar, self.period), self.outcomes.verdicts
            )

    def moved(self, subject: Subject, moment: Moment) -> Sequence[int] | None:
        """A subject is judged: the rules whose outcomes are not what they were at the last judgement, by their places;
        None where nothing at all follows."""
        outcomes = self.outcomes
        every = outcomes.rules if outcomes is not None else ()
        if self.standing is not None:
            moved = self.standing.moved(subject.name, subject.series)
            return every if moved is None else [every[place] for place in moved] or None
        now = outcomes(moment) if outcomes is not None else ()
        if self.weighed:
            counts: Counts = subject.series.period_counts(self.period) or NO_COUNTS
            now += tuple([counts.get(slot, 0) for slot in self.weighed])
        before = self.known.get(subject.name)
        if before == now and self.is_told:
            return None
        self.known[subject.name] = now
        if before is None:
            return every
        return [place for place, known, own in zip(every, before, now, strict=False) if known != own]

    def forget(self, name: str) -> None:
        """A subject must be judged anew, whatever its outcomes are."""
        self.known.pop(name, None)
        if self.standing is not None:
            self.standing.forget(name)

    @property
    def is_told(self) -> bool:
        """Whether everything that a judgement before the close rests on is in the outcome."""
        return self.weighed is not None and (self.weighs or self.rules is not None)

    @property
    def moves(self) -> bool:
        """Whether anything can follow from it before the period is closed."""
        if not self.in_force:
            return False
        return self.weighs or self.rules is None or (self.outcomes is not None and bool(self.outcomes.rules))


class _Turn(NamedTuple):
    """A period that is judged at an evaluation: ``open``, ``closed`` already, ``reopened``, or empty where nothing can
    follow but what is reported. ``at_ms`` is the moment by which it is told whether the pack judges a subject."""

    judging: _Judging
    state: str
    reports: bool
    at_ms: int


_Standings = tuple[tuple[Standing, int], ...]
"""The standings of some turns, each with the moment by which it is told whether the pack judges a subject."""


def _standing(turns: Iterable[_Turn]) -> _Standings | None:
    """The turns whose outcomes as numbers tell whether a subject must be judged; None where that of one is not told."""
    found = []
    for turn in turns:
        if turn.state != "open" or turn.reports or turn.judging.standing is None:
            return None
        found.append((turn.judging.standing, turn.at_ms))
    return tuple(found)


def _window_of_events(pack: Pack) -> str:
    """To periods of which window a pack charges single events."""
    return pack.scorecard.window if pack.scorecard else "month"


def _count(counters: dict[Any, int], key: Any) -> None:
    counters[key] = counters.get(key, 0) + 1


class Judge:
    """Subjects of some levels, their counts and everything decided about them."""

    def __init__(
        self,
        layout: Layout,
        packs: tuple[Pack, ...],
        triggers: dict[str, frozenset[str]],
        bucket_ms: int,
        spans_ms: dict[str, tuple[int, ...]],
        calendar_of: Callable[[str, str], Calendar],
    ) -> None:
        self.layout = layout
        self.packs = {pack.key: pack for pack in packs}
        # Of several versions the oldest judges until an event activates another.
        self.active: dict[str, str] = {}
        for pack in sorted(packs, key=lambda pack: pack.in_force_from):
            self.active.setdefault(pack.name, pack.version)
        self.book = RuleBook(layout, packs, triggers)
        self.bucket_ms = bucket_ms
        self.spans_ms = spans_ms
        self._read = {level: rolling_slots(layout, level) for level in spans_ms}
        self.calendar_of = calendar_of
        self.stats = Stats()
        self.subjects: dict[tuple[str, str], Subject] = {}
        self.touched: set[tuple[str, str]] = set()
        self.on_drop: Callable[[Subject, Period], None] | None = None
        self.on_forget: Callable[[Subject], None] | None = None
        self.on_close: Callable[[Subject, Pack, Period, int], None] | None = None
        self.on_alert: Callable[[Subject, Rule, Effect, AlertState, str, str, int], None] | None = None
        self.reopened: set[tuple[str, str, str]] = set()
        self.early: set[tuple[str, str, str]] = set()
        self.open: set[tuple[str, str]] = set()
        self._judgings: dict[tuple[str, str, str, Period], _Judging] = {}
        self.watching = Watching(self, packs, triggers)
        self.slot_names = layout.names()
        self.gone: set[str] = set()
        self.stored_cells: dict[tuple[str, str], bytes] = {}
        self.stored_frame = b""
        self.unjudged: dict[str, dict[tuple[str, str], frozenset[Period]]] = {key: {} for key in self.packs}
        self.figures: dict[str, dict[tuple[str, str], frozenset[Period]]] = {key: {} for key in self.packs}
        """The periods whose figures for reports wait for the next day."""
        self.reporting = frozenset(
            key for key, rules in self.book.period.items() if any(rule.report for rule in rules.rules)
        )
        self.grid_ms: int | None = None
        self.closes: dict[tuple[str, str, str], Period] = {}
        # By pack: since when which version judges (if more than one ever did), and which periods were closed by order:
        # at which moment, window and label, by which version.
        self.history: dict[str, list[tuple[int, str]]] = {}
        self.ordered: dict[str, list[tuple[int, str, str, str]]] = {}
        self._next_close_ms: int | None = None
        self.out: list[Output] = []
        self._relevant: dict[tuple[str, tuple[Period, ...]], list[tuple[str, frozenset[Period]]]] = {}
        self._judged_windows: dict[str, dict[str, frozenset[str]]] = {}
        self.kept = forgetting.kept_by(layout, packs)
        self.retention_ms = RETENTION_MS + max((pack.grace_ms for pack in packs), default=0)
        self.grader = Grader(self, packs)
        self._may_fine = may_fine(packs)
        self._fines: tuple[tuple[tuple[str, str], ...], Fines] | None = None

    # --- subjects -----------------------------------------------------------------------------------------------------

    def subject(self, level: str, name: str, seen_ms: int) -> Subject:
        """The subject, made when it is new."""
        found = self.subjects.get((level, name))
        if found is None:
            found = self.add_subject(level, name, self.calendar_of(level, name), seen_ms)
            self.touched.add(found.key)
        return found

    def add_subject(self, level: str, name: str, calendar: Calendar, seen_ms: int) -> Subject:
        """Make a subject with nothing counted yet."""
        series = Series(calendar, self.bucket_ms, self.spans_ms[level], self._read[level])
        found = self.subjects[level, name] = Subject(level, name, series, seen_ms)
        if self.grid_ms is not None:
            self.watch_closes(calendar)
        return found

    def active_packs(self) -> list[Pack]:
        """The version of each pack that judges now, in the order of names."""
        return [self.packs[f"{name}@{self.active[name]}"] for name in sorted(self.active)]

    def judges(self, pack: Pack, subject: Subject, at_ms: int) -> bool:
        """Whether this version judges now, and its pack was in force for the subject at ``at_ms``."""
        if self.active.get(pack.name) != pack.version:
            return False
        packs = subject.packs_at(at_ms)
        return not packs or pack.name in packs

    def judges_in(self, pack: Pack, subject: Subject, period: Period, now_ms: int) -> bool:
        """Whether this version judges a subject for a period: by the end of it, and unless they had left before."""
        if self.version_of(pack.name, subject, period) is not pack:
            return False
        packs = subject.packs_at(min(now_ms, period.end_ms) - 1)
        return (not packs or pack.name in packs) and not subject.left_before(period)

    def version_of(self, name: str, subject: Subject, period: Period) -> Pack | None:
        """The version of a pack that judges a period of a subject, if the pack is loaded.

        That is the version in force; of a period that was closed it is the one that closed it, as long as it is loaded:
        what comes late must not charge anybody by rules that were made afterwards.
        """
        active = self.active.get(name)
        if active is None:
            return None
        pack = self.packs[f"{name}@{active}"]
        history = self.history.get(name)
        if history is None:
            return pack  # it has closed every period so far
        version = subject.closed_by(name, period)
        if version is None:
            following = self.closes.get((pack.key, subject.series.calendar.name, period.window))
            if following is None or period.end_ms > following.start_ms:
                return pack
            version = self._closing_version(name, history, period)
        return self.packs.get(f"{name}@{version}", pack)

    def _closer(self, active: Pack, calendar: Calendar, period: Period, now_ms: int) -> str | None:
        """The version of a pack that has closed a period in a zone, if it is closed there."""
        if not self._has_closed(active, calendar, period, now_ms):
            return None
        return self._closing_version(
            active.name, self.history.get(active.name, [(0, active.version)]), period
        )

    def _closing_version(self, name: str, history: list[tuple[int, str]], period: Period) -> str:
        """Which version closed a period: by its own grace while it was in force, or by an order before that.

        It follows from what every partition knows of the log, whether or not it had anybody to close the period for.
        """
        closed_ms, closing = NEVER_MS, history[-1][1]
        for (_, version), (until_ms, _) in pairwise([*history, (NEVER_MS, "")]):
            known = self.packs.get(f"{name}@{version}")
            due_ms = period.end_ms + (known.grace_ms if known is not None else 0)
            if due_ms <= until_ms:
                closed_ms, closing = due_ms, version
                break
        for at_ms, window, label, version in self.ordered.get(name, ()):
            if window == period.window and label >= period.label and period.end_ms <= at_ms < closed_ms:
                return version
        return closing

    def note_order(self, name: str, window: str, label: str, at_ms: int) -> None:
        """Remember that the version in force closes the periods up to this one before their time."""
        known = self.ordered.setdefault(name, [])
        known.append((at_ms, window, label, self.active[name]))
        del known[:-MAX_HISTORY]

    def activate(self, name: str, version: str, at_ms: int | None = None) -> None:
        """From ``at_ms`` on (None: from the beginning) ``version`` of the pack judges.

        It takes over the open periods from the one before.
        """
        before, after = f"{name}@{self.active[name]}", f"{name}@{version}"
        if before == after:
            return
        assert after in self.packs, after
        if at_ms is not None:
            history = self.history.setdefault(name, [(0, self.active[name])])
            history.append((at_ms, version))
            del history[:-MAX_HISTORY]
        self.active[name] = version
        self.watching.begin_anew()
        self._judgings.clear()
        for key in [key for key in self.closes if key[0] == after and key[2] in self._closed_windows(before)]:
            period = self.closes.get((before, *key[1:]))
            if period is not None:
                self.await_close(key, period)
            else:
                self._close_no_more(key)
        self.await_open(after)

    def await_open(self, pack_key: str) -> None:
        """Every period that is not closed yet waits to be judged by this version."""
        if self.grid_ms is None:
            return
        pack, windows = self.packs[pack_key], self.book.windows[pack_key]
        for key in sorted(self.subjects):
            subject = self.subjects[key]
            running = frozenset(
                period
                for period in subject.series.periods
                if period.window in windows and not self.is_closed(pack, subject, period, self.grid_ms)
            )
            if running:
                self.unjudged[pack_key][key] = self.unjudged[pack_key].get(key, running) | running
                self.touched.add(key)

    def move(self, subject: Subject, calendar: Calendar, now_ms: int) -> None:
        """Let a subject keep another calendar. What its new zone has closed already is closed for it too, and what was
        closed for it stays so."""
        self.watching.awake(subject.key)
        old = subject.series.calendar
        if old.name == calendar.name:
            return
        closed_there = self._compare_zones(subject, calendar, now_ms) if self.grid_ms is not None else []
        subject.series.move(calendar)
        self.touched.add(subject.key)
        for judging in self._judgings.values():
            judging.forget(subject.name)
        for waiting in (*self.unjudged.values(), *self.figures.values()):
            periods = waiting.get(subject.key)
            if periods:
                waiting[subject.key] = frozenset(
                    calendar.period(period.window, period.label) for period in periods
                )
        for pack, period in closed_there:
            closing = self.version_of(pack.name, subject, period) or pack
            own = closing if self.judges_in(closing, subject, period, now_ms) else pack
            self._close_for(subject, own, period, now_ms)

    def _compare_zones(self, subject: Subject, calendar: Calendar, now_ms: int) -> list[tuple[Pack, Period]]:
        """Of a subject that is about to move: the periods that its new zone has closed, and that are open for it yet.

        Of what is closed for it already it is noted what the new zone does not say as well: there a result that was
        final would count as open again, or another version would judge what comes late.
        """
        self.watch_closes(calendar)
        old, kept = subject.series.calendar, dict(subject.closed_elsewhere)
        found: list[tuple[Pack, Period]] = []
        since_ms = max(subject.first_seen_ms, now_ms - self.retention_ms)
        for pack in self.active_packs():
            for window in sorted(self.book.windows[pack.key] | {_window_of_events(pack)}, key=WINDOWS.index):
                closed_there = []
                period = old.following(old.containing(window, now_ms))
                while period.end_ms > since_ms:
                    there, key = calendar.period(window, period.label), result_key(pack.name, period)
                    before = subject.closed_by(pack.name, period) or self._closer(pack, old, period, now_ms)
                    after = self._closer(pack, calendar, there, now_ms)
                    if before == after:
                        kept.pop(key, None)
                    elif before is None:
                        closed_there.append((pack, there))
                    else:
                        kept[key] = before
                    period = old.previous(period)
                found += reversed(closed_there)
        subject.closed_elsewhere = kept
        return found

    # --- log time -----------------------------------------------------------------------------------------------------

    def start(self, now_ms: int) -> None:
        """Begin log time: nothing that ended before counts as missing."""
        assert self.grid_ms is None
        self.grid_ms = now_ms // self.bucket_ms * self.bucket_ms
        for subject in self.subjects.values():
            self.watch_closes(subject.series.calendar)

    def watch_closes(self, calendar: Calendar) -> None:
        """See to it that the periods of this calendar are closed."""
        assert self.grid_ms is not None
        for pack in self.packs.values():
            for window in self._closed_windows(pack.key):
                key = (pack.key, calendar.name, window)
                if key not in self.closes:
                    self.watching.day_ms = None  # perhaps a new zone, whose day begins sooner
                    self.await_close(key, self._first_open(pack, window, calendar))

    def _closed_windows(self, pack_key: str) -> set[str]:
        """The windows whose periods a pack closes: those that it judges, and days, with which the past is forgotten."""
        return self.book.windows[pack_key] | {"day"}

    def _first_open(self, pack: Pack, window: str, calendar: Calendar) -> Period:
        """The first period that was not closed before the judge knew of its zone: by the grace of this version, by
        that of one which was in force before it, or by order.

        Of two partitions one may have known the zone all the time, and both must say the same.
        """
        assert self.grid_ms is not None
        name, over_ms = pack.name, self.grid_ms - pack.grace_ms
        if self.active.get(name) == pack.version:
            for (_, version), (until_ms, _) in pairwise(self.history.get(name, ())):
                before = self.packs.get(f"{name}@{version}")
                if before is not None and window in self._closed_windows(before.key):
                    over_ms = max(over_ms, until_ms - before.grace_ms)
        period = calendar.containing(window, over_ms)
        for at_ms, ordered, label, _ in self.ordered.get(name, ()):
            while ordered == window and period.label <= label and period.end_ms <= at_ms:
                period = calendar.following(period)
        return period

    def await_close(self, key: tuple[str, str, str], period: Period) -> None:
        """The next period that a pack (its key) closes in a zone, of a window."""
        self.closes[key] = period
        self._next_close_ms = None

    def _close_no_more(self, key: tuple[str, str, str]) -> None:
        """Nobody is in a zone: what is closed there is worked out when somebody is again."""
        del self.closes[key]
        self._next_close_ms = None

    def _close_due_ms(self) -> int | None:
        """When the next period of all is closed, or None: asked at each boundary, and seldom another than before."""
        if self._next_close_ms is None and self.closes:
            self._next_close_ms = min(
                period.end_ms + self.packs[pack].grace_ms for (pack, _, _), period in self.closes.items()
            )
        return self._next_close_ms

    def due_ms(self) -> int | None:
        """The next boundary at which something is to be done, or None."""
        assert self.grid_ms is not None
        close_ms = self._close_due_ms()
        found = [close_ms] if close_ms is not None else []
        if self.open or self.watching.live:
            found.append(self.grid_ms + self.bucket_ms)
        if self.watching.waits_for_a_day or any(self.figures.values()):
            found.append(self.watching.next_day_ms(self.grid_ms))
        for key, waiting in self.unjudged.items():
            if waiting:
                every = self.packs[key].evaluate_ms
                found.append((self.grid_ms // every + 1) * every)
        return max(min(found), self.grid_ms + 1) if found else None

    def run(self, now_ms: int) -> None:
        """Do what is due at a boundary of log time. Boundaries must rise."""
        assert self.grid_ms is not None
        assert now_ms > self.grid_ms, (now_ms, self.grid_ms)
        if now_ms % self.bucket_ms == 0:
            self.fold(now_ms)
            self.watching.run(now_ms)
        for key, pack in self.packs.items():
            if self.unjudged[key] and now_ms % pack.evaluate_ms == 0:
                self._judge_waiting(pack, now_ms)
        if any(self.figures.values()) and self.watching.next_day_ms(self.grid_ms) <= now_ms:
            figures.begin_day(self, self.grid_ms, now_ms)
        self._close(now_ms)
        self.grid_ms = now_ms if now_ms % self.bucket_ms == 0 else self.grid_ms

    def settle(self, now_ms: int) -> None:
        """Nothing more is due up to ``now_ms``: move the grid there."""
        assert self.grid_ms is not None
        self.grid_ms = max(self.grid_ms, now_ms // self.bucket_ms * self.bucket_ms)

    def fold(self, now_ms: int) -> None:
        """Fold the open cells of every subject whose bucket is over."""
        alike, others, folded = fold(self.open, self.subjects, now_ms)
        self.counted_alike(alike)
        for subject, several in others:
            self.counted(subject, several)
        self.open.difference_update(folded)

    def counted_alike(self, alike: Mapping[tuple[str, tuple[Period, ...]], list[tuple[str, str]]]) -> None:
        """As ``counted``, for all subjects of a level of which the same periods changed."""
        for (level, changed), keys in alike.items():
            self._counted(level, changed, keys)

    def counted(self, subject: Subject, changed: Collection[Period]) -> None:
        """Note that periods of a subject changed, so that they are judged at the next evaluation.

        Most subjects bring the same tuple of periods one after the other, and what follows from it is kept: the same
        sets wait for all of them.
        """
        self._counted(subject.level, changed, [subject.key])

    def _counted(self, level: str, changed: Collection[Period], keys: list[tuple[str, str]]) -> None:
        self.touched.update(keys)
        live = self.book.watch[level]
        self.watching.live.update(
            keys if live else [key for key in keys if not self.subjects[key].series.rolling_is_empty]
        )
        for pack_key, periods in self._relevant_of(level, changed):
            wait(self.unjudged[pack_key], keys, periods)

    def _relevant_of(self, level: str, changed: Collection[Period]) -> list[tuple[str, frozenset[Period]]]:
        """As ``_judged_of``, remembered: with the same sets for the same periods, waiting again changes nothing."""
        key = level, tuple(changed)
        found = self._relevant.get(key)
        if found is None:
            if len(self._relevant) >= RELEVANT_KEPT:
                self._relevant.clear()
            found = self._relevant[key] = self._judged_of(level, changed)
        return found

    def _judged_of(self, level: str, changed: Collection[Period]) -> list[tuple[str, frozenset[Period]]]:
        """Which of some periods each pack judges for a level, if it judges any."""
        windows = self._judged_windows.get(level)
        if windows is None:
            windows = self._judged_windows[level] = {key: self._windows_of(key, level) for key in self.packs}
        found = []
        for key, judged in windows.items():
            periods = frozenset([period for period in changed if period.window in judged])
            if periods:
                found.append((key, periods))
        return found

    def _windows_of(self, pack_key: str, level: str) -> frozenset[str]:
        """The windows that a pack judges for a level."""
        known = [*self.book.period, *self.grader.weighing]
        windows = {window for key, own, window in known if (key, own) == (pack_key, level)}
        card = self.packs[pack_key].scorecard
        if card is not None and card.level == level:
            windows.add(card.window)
        return frozenset(windows)

    # --- alerts -------------------------------------------------------------------------------------------------------

    def alert(
        self,
        subject: Subject,
        pack: Pack,
        rule: Rule,
        effect: Effect,
        moment: Moment,
        state: AlertState,
        to: Any,
        incident: str = "",
        evidence: tuple[str, ...] = (),
        noticed_ms: int = 0,
    ) -> None:
        at_ms = max(moment.at_ms, noticed_ms)
        message = messages.alert(
            self.layout, subject, pack, rule, effect, moment, state, to, incident, evidence, at_ms
        )
        _count(self.stats.alerts, (pack.name, rule.id, to))
        self.out.append(message)
        if self.on_alert is not None:
            self.on_alert(subject, rule, effect, state, to, incident, at_ms)

    # --- periods ------------------------------------------------------------------------------------------------------

    def _judge_waiting(self, pack: Pack, now_ms: int) -> None:
        waiting, self.unjudged[pack.key] = self.unjudged[pack.key], {}

        def turns_of(subject: Subject, periods: frozenset[Period]) -> tuple[list[_Turn], _Standings | None]:
            turns = self._turns(pack, subject, periods, now_ms)
            return turns, _standing(turns)

        self.touched.update(waiting)
        for key, turns in to_judge(waiting, self.subjects, turns_of, pack.name):
            subject = self.subjects[key]
            for turn in turns:
                period = turn.judging.period
                packs = (
                    subject.packs if turn.at_ms >= subject.roster_from_ms else subject.packs_at(turn.at_ms)
                )
                if (packs and pack.name not in packs) or (subject.leaves and subject.left_before(period)):
                    continue
                if turn.reports:
                    figures.wait(self, subject, pack, period)
                if turn.state == "open":
                    self._judge_open(subject, pack, turn.judging, now_ms)
                elif turn.state == "reopened":
                    reopening.revise(self, subject, pack, period, now_ms)
                elif turn.state == "closed":
                    self._adjust(subject, pack, period, now_ms)

    def _turns(self, pack: Pack, subject: Subject, periods: Iterable[Period], now_ms: int) -> list[_Turn]:
        """What is judged at an evaluation for all subjects of a level and zone for which the same periods wait, but for
        those of whom another zone has closed periods."""
        found = []
        for period in sorted(periods):
            if self.version_of(pack.name, subject, period) is not pack:
                continue
            judging = self._judging(pack, subject, period)
            if self.reopened and self.is_reopened(pack, period):
                state = "reopened"
            elif self.is_closed(pack, subject, period, now_ms):
                # Of a period that is past its retention the entries are forgotten: all of it would be charged anew.
                state = "closed" if period.end_ms > now_ms - self.retention_ms else ""
            else:
                state = "open" if judging.moves else ""
            reports = (pack.key, subject.level, period.window) in self.reporting
            if state or reports:
                found.append(_Turn(judging, state, reports, min(now_ms, period.end_ms) - 1))
        return found

    def _judging(self, pack: Pack, subject: Subject, period: Period) -> _Judging:
        """How a pack judges a period of the subject's level and zone."""
        calendar = subject.series.calendar
        key = (pack.key, subject.level, calendar.name, period)
        found = self._judgings.get(key)
        if found is None:
            day = calendar.day(period.start_ms)
            rules = self.book.period.get((pack.key, subject.level, period.window))
            weighs = bool(pack.cards) and (pack.key, subject.level, period.window) in self.grader.weighing
            found = self._judgings[key] = _Judging(
                period=period,
                calendar=calendar,
                day=day,
                in_force=day >= pack.in_force_from,
                rules=rules,
                outcomes=rules.outcomes_on(day) if rules is not None and day >= pack.in_force_from else None,
                weighs=weighs,
                weighed=self.grader.slots(pack, subject.level, period.window) if weighs else (),
            )
        return found

    def _judge_open(self, subject: Subject, pack: Pack, judging: _Judging, now_ms: int) -> None:
        """Bring the provisional entries and the grade of a running period up to date, as far as anything moved."""
        period = judging.period
        moment = self.period_moment(subject, period, now_ms)
        moved = judging.moved(subject, moment)
        if moved is None:
            return
        changed = False
        if judging.rules is not None and moved:
            changed = self._apply_period_rules(subject, judging.rules, moment, "provisional", sorted(moved))
        if changed or judging.weighs or judging.rules is None:
            self.grade(subject, pack, period, now_ms, "provisional", moment=moment)

    def period_moment(self, subject: Subject, period: Period, now_ms: int) -> Moment:
        calendar = subject.series.calendar
        roster = subject.roster_at(min(now_ms, period.end_ms) - 1)
        return Moment(subject.series, roster, now_ms, day=calendar.day(period.start_ms), period=period)

    def _judge_finally(self, subject: Subject, pack: Pack, period: Period, now_ms: int) -> None:
        """Judge a period for good."""
        judging = self._judging(pack, subject, period)
        if not judging.in_force:
            return
        moment = self.period_moment(subject, period, now_ms)
        if judging.rules is not None:
            self._apply_period_rules(subject, judging.rules, moment, "final", range(len(judging.rules.rules)))
        judging.forget(subject.name)
        self._settle_left(subject, pack, moment)
        figures.done(self, subject, pack, period)
        self.grade(subject, pack, period, now_ms, "final")

    def _settle_left(self, subject: Subject, pack: Pack, moment: Moment) -> None:
        """Take back provisional entries of the period that no rule of this version keeps up any more."""
        period = moment.period
        assert period is not None
        left = [
            entry
            for entry in subject.entries.values()
            if entry.status == "provisional"
            and not entry.waived_by
            and (entry.pack, entry.window, entry.label) == (pack.name, period.window, period.label)
        ]
        for entry in sorted(left, key=lambda one: one.id):
            versions = [one for one in self.packs.values() if one.name == entry.pack]
            owners = [(one, rule) for one in versions for rule in one.rules if rule.id == entry.rule]
            if owners and entry.effect < len(owners[-1][1].effects):
                owner, rule = owners[-1]
                if entry.kind == "task":
                    self.take_back_entries(subject, owner, rule, entry.effect, moment, [entry], moment.at_ms)
                    continue
                self._post(subject, owner, rule, entry.effect, moment, period, NOTHING, "final")

    def _apply_period_rules(
        self, subject: Subject, rules: RuleSet, moment: Moment, status: Any, places: Iterable[int]
    ) -> bool:
        """Bring the entries of a period's rules, given by their places, to what the facts say; whether any changed."""
        period = moment.period
        assert period is not None
        fired = [rule.id for rule in rules.fired(moment)]
        if not fired and not subject.entries and not subject.grades:
            return False
        changed = False
        for place in places:
            rule = rules.rules[place]
            holds = rule.id in fired
            if (rule.provisional or status == "final") and (
                holds or self._follows(subject, rules.pack, rule, period)
            ):
                changed |= self._apply_period_rule(subject, rules.pack, rule, moment, holds, status)
        return changed

    @staticmethod
    def _follows(subject: Subject, pack: Pack, rule: Rule, period: Period) -> bool:
        """Whether anything followed from a rule in a period that may have to be taken back."""
        state = subject.grades.get(result_key(pack.name, period))
        if state is not None and rule.id in state.caps:
            return True
        return any(
            entry.rule == rule.id and entry.label == period.label for entry in subject.entries.values()
        )

    def _apply_period_rule(
        self, subject: Subject, pack: Pack, rule: Rule, moment: Moment, holds: bool, status: Any
    ) -> bool:
        period = moment.period
        assert period is not None
        changed = False
        for index, effect in enumerate(rule.effects):
            if effect.kind in ("deduct", "award"):
                worked = work_out(self.layout, pack, effect, moment) if holds else NOTHING
                changed |= self._post(subject, pack, rule, index, moment, period, worked, status)
            elif effect.kind == "grade":
                self.cap(subject, pack, rule, effect, period, holds)
                changed = True
            elif status == "final" and rule.report is not None and effect.kind == "task":
                changed |= figures.follow(self, subject, pack, rule, index, moment, holds, final=True)
            elif status == "final" and holds:
                self.once_in_period(subject, pack, rule, index, moment)
                changed = True
        return changed

    def is_closed(self, pack: Pack, subject: Subject, period: Period, now_ms: int) -> bool:
        """Whether a period was closed: by this version, or by one before it whose grace may have been another."""
        if self.reopened and self.is_reopened(pack, period):
            return False
        if subject.closed_by(pack.name, period) is not None:
            return True
        return self._has_closed(pack, subject.series.calendar, period, now_ms)

    def _has_closed(self, pack: Pack, calendar: Calendar, period: Period, now_ms: int) -> bool:
        """Whether a period is closed for whoever was in a zone all the time."""
        following = self.closes.get((pack.key, calendar.name, period.window))
        if following is None:
            return period.end_ms + pack.grace_ms <= now_ms
        return period.end_ms <= following.start_ms

    def running(self, pack: Pack, subject: Subject, window: str, now_ms: int) -> Period:
        """The period that takes what comes too late for a closed one: the present one, or the next after all that are
        closed, where the subject comes from a zone in which the present one was over."""
        calendar = subject.series.calendar
        period = calendar.containing(window, now_ms)
        while self.is_closed(pack, subject, period, now_ms):
            period = calendar.following(period)
        return period

    def closes_now(self, pack: Pack, subject: Subject, period: Period, now_ms: int) -> bool:
        """Whether a period is over with its grace and about to be closed, after the shorter ones."""
        over = period.end_ms + pack.grace_ms <= now_ms
        return (
            over and not self.is_reopened(pack, period) and not self.is_closed(pack, subject, period, now_ms)
        )

    def is_reopened(self, pack: Pack, period: Period) -> bool:
        return (pack.name, period.window, period.label) in self.reopened

    def close_early(self, name: str, window: str, label: str, now_ms: int) -> None:
        """Close every period up to this one that is over in its zone, although its grace is not."""
        pack = self.packs[f"{name}@{self.active[name]}"]
        for key in sorted(self.closes):
            if (key[0], key[2]) != (pack.key, window):
                continue
            while self.closes[key].label <= label and self.closes[key].end_ms <= now_ms:
                period = self.closes[key]
                for known in sorted(self.subjects):
                    if self.subjects[known].series.calendar.name == key[1]:
                        self._close_for(self.subjects[known], pack, period, now_ms)
                self.await_close(key, shared_calendar(key[1]).following(period))

    def _close(self, now_ms: int) -> None:
        close_ms = self._close_due_ms()
        if close_ms is None or close_ms > now_ms:
            return
        # The shorter periods first: longer ones are made of their marks.
        for key in sorted(self.closes, key=lambda one: (one[0], one[1], WINDOWS.index(one[2]))):
            pack = self.packs[key[0]]
            while self.closes[key].end_ms + pack.grace_ms <= now_ms:
                period = self.closes[key]
                calendar = None
                for name in sorted(self.subjects):
                    subject = self.subjects[name]
                    if subject.series.calendar.name != key[1]:
                        continue
                    calendar = subject.series.calendar
                    self._close_for(subject, pack, period, now_ms)
                if period.window == "day":
                    forgetting.sweep(self, now_ms, key[1])
                if calendar is None:
                    self._close_no_more(key)
                    break
                self.await_close(key, calendar.following(period))

    def _close_for(self, subject: Subject, pack: Pack, period: Period, now_ms: int) -> None:
        """Judge a period for good, if the subject was known in it."""
        if subject.first_seen_ms >= period.end_ms or period.window not in self.book.windows[pack.key]:
            return
        if subject.closed_by(pack.name, period) is not None:
            return  # it was judged for good before; what waits of it came too late
        if self.judges_in(pack, subject, period, now_ms):
            self._judge_finally(subject, pack, period, now_ms)
            if self.on_close is not None:
                self.on_close(subject, pack, period, now_ms)
        elif self.active.get(pack.name) == pack.version:
            # Who came under another policy in the course of the period is not charged by this one for a part of it.
            self._judging(pack, subject, period).forget(subject.name)
            self._settle_left(subject, pack, self.period_moment(subject, period, now_ms))
            shown = subject.grades.get(result_key(pack.name, period))
            if shown is not None and shown.revision and not shown.settled and shown.status != "withdrawn":
                # A score that was shown never becomes a final one.
                self.grader.withdraw(subject, pack, period, now_ms)
            figures.done(self, subject, pack, period)
        waiting = self.unjudged[pack.key].get(subject.key)
        if waiting:
            self.unjudged[pack.key][subject.key] = waiting - {period}
            self.touched.add(subject.key)

    def _adjust(self, subject: Subject, pack: Pack, closed: Period, now_ms: int) -> None:
        """Judge a closed period again; what differs from its final entries becomes an entry of the running period."""
        rules = self.book.period.get((pack.key, subject.level, closed.window))
        moment = self.period_moment(subject, closed, now_ms)
        if rules is None or moment.day < pack.in_force_from:
            return
        running = self.running(pack, subject, closed.window, now_ms - 1)
        fired = {rule.id for rule in rules.fired(moment)}
        for rule in rules.rules:
            for index, effect in enumerate(rule.effects):
                if effect.kind not in ("deduct", "award"):
                    continue
                charged = self.charges(subject, pack, rule, index, closed)
                if any(subject.is_excused(entry) for entry in charged):
                    continue
                worked = work_out(self.layout, pack, effect, moment) if rule.id in fired else NOTHING
                settled = sum(
                    (
                        entry.worth
                        for entry in charged
                        if not entry.waived_by and (not entry.adjusts or entry.label != running.label)
                    ),
                    Fraction(0),
                )
                difference = Worked(worked.points - settled, worked.how)
                self._post(
                    subject, pack, rule, index, moment, running, difference, "final", adjusts=closed.label
                )
        self.grade(subject, pack, running, now_ms, "provisional")

    @staticmethod
    def charges(
        subject: Subject, pack: Pack, rule: Rule, index: int, period: Period, incident: str = ""
    ) -> list[Entry]:
        """The entries of one effect for a period: its own ones, and those that adjusted it later."""
        return [
            entry
            for entry in subject.entries.values()
            if (entry.pack, entry.rule, entry.effect) == (pack.name, rule.id, index)
            and (entry.window, entry.adjusts or entry.label) == (period.window, period.label)
            and entry.incident == incident and entry.kind != "waive"
        ]  # fmt: skip

    # --- entries ------------------------------------------------------------------------------------------------------

    def _post(
        self,
        subject: Subject,
        pack: Pack,
        rule: Rule,
        index: int,
        moment: Moment,
        period: Period,
        worked: Worked,
        status: Any,
        cause: Cause | None = None,
        adjusts: str = "",
    ) -> bool:
        """Bring the one entry of this cause to its amount; a revision goes out when anything changed."""
        incident = cause.incident if cause else ""
        found = decision_id(pack.name, rule.id, str(index), subject.level, subject.name, period.window, period.label,
                            incident, adjusts, *(cause.parts if cause else ()))  # fmt: skip
        entry = subject.entries.get(found)
        if entry is None and cause is None and not worked.points:
            return False
        if entry is not None and entry.waived_by:
            worked = Worked(entry.worth)  # what was waived stays as it was: its reversal names this amount
        points = number_text(worked.points)
        if entry is None:
            kind: str = rule.effects[index].kind if not adjusts or cause else "adjust"
            if kind in ("deduct", "award") and worked.points:
                kind = "deduct" if worked.points < 0 else "award"
            entry = Entry(
                id=found, pack=pack.name, rule=rule.id, effect=index, kind=kind, window=period.window,
                label=period.label, incident=incident, points=points, revision=0, status=status, adjusts=adjusts,
            )  # fmt: skip
        elif (entry.points, entry.status) == (points, status) or (
            entry.status == "final" and (status != "final" or cause is not None or not adjusts)
        ):
            return False
        entry.points, entry.status, entry.revision = points, status, entry.revision + 1
        entry.at_ms = self.known_ms(moment)
        self.put(subject, entry)
        self.send(subject, pack, rule, moment, entry, worked, cause)
        return True

    def count_decision(self, kind: tuple[str, str, str, str]) -> None:
        """Count a decision for the wallboard: pack, rule, kind and status."""
        _count(self.stats.decisions, kind)

    def known_ms(self, moment: Moment) -> int:
        """When what is decided now can be known: an event that came late was not known when it happened."""
        return max(moment.at_ms, self.grid_ms or 0)

    def post_new(
        self, subject: Subject, pack: Pack, rule: Rule, moment: Moment, entry: Entry, worked: Worked
    ) -> None:
        """Send a new entry about a period, and remember it."""
        self.put(subject, entry)
        self.send(subject, pack, rule, moment, entry, worked, None)

    def take_back_entries(
        self, subject: Subject, pack: Pack, rule: Rule, index: int, moment: Moment, entries: Iterable[Entry],
        now_ms: int,
    ) -> None:  # fmt: skip
        """Reverse entries by the rule that had charged them."""
        for entry in entries:
            cause = Cause(moment.at_ms, entry.incident, ())
            corrections.reverse(self, subject, pack, rule, index, moment, cause, entry, now_ms)

    def put(self, subject: Subject, entry: Entry) -> None:
        """Remember an entry. When there are too many, one of the oldest period goes, settled ones first."""
        if entry.id not in subject.entries and len(subject.entries) >= MAX_ENTRIES:
            subject.forget(
                min(subject.entries.values(), key=lambda one: (one.status != "final", one.label, one.id))
            )
        subject.put(entry)
        self.touched.add(subject.key)

    def send(
        self,
        subject: Subject,
        pack: Pack,
        rule: Rule,
        moment: Moment,
        entry: Entry,
        worked: Worked,
        cause: Cause | None,
        extra: dict[str, str] | None = None,
    ) -> None:
        if cause is not None:
            evidence = list(cause.evidence), cause.count or len(cause.evidence)
        else:
            evidence = evidence_for(self.layout, subject, pack, rule, moment)
        extra = extra or {}
        charged = subject.entries[extra["reverses"]] if "reverses" in extra else entry
        money = self.money_of(subject, pack, charged, entry)
        message = messages.decision(
            self.layout, subject, pack, rule, entry, moment, worked, evidence, extra, money
        )
        self.count_decision((pack.name, rule.id, entry.kind, entry.status))
        self.out.append(message)

    def money_of(self, subject: Subject, pack: Pack, charged: Entry, entry: Entry) -> Money | None:
        """What an entry comes to in money where fines are on; what takes one back, by the terms of ``charged``."""
        if not self._may_fine or subject.level != "agent" or not entry.worth:
            return None
        active = tuple(sorted(self.active.items()))
        if self._fines is None or self._fines[0] != active:
            self._fines = active, Fines(self.active_packs())
        return self._fines[1].money(pack.name, charged.rule, entry.worth, charged.label)

    # --- single events ------------------------------------------------------------------------------------------------

    def judge_event(
        self, subject: Subject, rules: RuleSet, moment: Moment, cause_of: Callable[[Rule], Cause], now_ms: int,
        *, about_decided: bool = False,
    ) -> list[str]:  # fmt: skip
        """Judge one event (or one outcome of a deadline) by one rule set; its entries are final at once.

        ``about_decided``: it is about what the pack decided earlier, so it counts also for whoever has left the pack.
        Returns the ids of the rules whose alerts went out.
        """
        pack = rules.pack
        judged = self.judges(pack, subject, moment.at_ms)
        heard = judged or (about_decided and self.active.get(pack.name) == pack.version)
        if moment.day < pack.in_force_from or not heard:
            return []
        fired = rules.fired(moment)
        if not fired:
            return []
        window = _window_of_events(pack)
        own = subject.series.calendar.containing(window, cause_of(fired[0]).at_ms)
        closed = self.is_closed(pack, subject, own, now_ms)
        period = self.running(pack, subject, window, now_ms) if closed else own
        adjusts = own.label if closed else ""
        for rule in fired:
            cause = cause_of(rule)
            for index, effect in enumerate(rule.effects):
                charged = self.charges(subject, pack, rule, index, own, cause.incident) if closed else []
                if any(not entry.waived_by or not cause.attempt for entry in charged):
                    continue  # this incident was charged already: an event that comes twice charges once
                if effect.kind in ("deduct", "award"):
                    worked = work_out(self.layout, pack, effect, moment)
                    if worked.points and self._post(
                        subject, pack, rule, index, moment, period, worked, "final", cause, adjusts
                    ):
                        corrections.excuse(self, subject, pack, rule, index, period, cause, adjusts, now_ms)
                elif effect.kind == "grade":
                    self.cap(subject, pack, rule, effect, period, True, cause.incident)
                elif effect.kind == "waive":
                    corrections.waive(self, subject, pack, rule, index, moment, cause, now_ms)
                elif effect.kind == "reverse":
                    corrections.correct(self, subject, pack, rule, index, moment, cause, now_ms)
                else:
                    self.once(subject, pack, rule, index, moment, period, cause, adjusts)
        if judged:
            self.grade(subject, pack, period, now_ms, "provisional")
        return [rule.id for rule in fired if any(effect.kind == "alert" for effect in rule.effects)]

    def once_in_period(
        self, subject: Subject, pack: Pack, rule: Rule, index: int, moment: Moment, turn: int = 0
    ) -> None:  # fmt: skip
        """A task, a proposal or an alert at the close of a period. ``turn``: how often it was taken back before.

        It is remembered, an alert too, so that it can be taken back when the period is opened again.
        """
        period = moment.period
        assert period is not None
        ids, count = evidence_for(self.layout, subject, pack, rule, moment)
        cause = Cause(moment.at_ms, period.label, tuple(ids), turn, count=count)
        found = self.once(subject, pack, rule, index, moment, period, cause)
        effect = rule.effects[index]
        if effect.kind == "alert":
            self.put(subject, Entry(
                id=found, pack=pack.name, rule=rule.id, effect=index, kind="alert", window=period.window,
                label=period.label, incident=period.label, points="0", revision=1, status="final",
                at_ms=self.known_ms(moment),
            ))  # fmt: skip

    def end_alert(
        self, subject: Subject, pack: Pack, rule: Rule, index: int, moment: Moment, given: Entry
    ) -> None:  # fmt: skip
        """Resolve an alert of a period's close that follows no more; ``given`` is how it is remembered."""
        state = AlertState(id=given.id, since_ms=given.at_ms, firing=False)
        self.alert(subject, pack, rule, rule.effects[index], moment, state, "resolved", given.incident)
        given.waived_by = given.id
        self.put(subject, given)

    def once(
        self,
        subject: Subject,
        pack: Pack,
        rule: Rule,
        index: int,
        moment: Moment,
        period: Period,
        cause: Cause,
        adjusts: str = "",
    ) -> str:
        """A task, a proposal or an alert about one incident: it goes out once. Returns its id."""
        effect = rule.effects[index]
        # What is to be done for an incident is given once, however often the incident is taken back; not so at a close.
        # An alert ended with what was taken back, and begins anew.
        turn = cause.parts if rule.trigger == "period" or effect.kind == "alert" else ()
        if effect.kind == "alert":
            found = alert_id(pack.name, rule.id, subject.level, subject.name, cause.incident, *turn)
            state = AlertState(id=found, since_ms=cause.noticed_ms, firing=True)
            self.alert(
                subject,
                pack,
                rule,
                effect,
                moment,
                state,
                "firing",
                cause.incident,
                cause.evidence,
                cause.since_ms,
            )
            return found
        assert effect.kind in ("task", "proposal"), effect.kind
        found = decision_id(pack.name, rule.id, str(index), subject.level, subject.name, period.window, period.label,
                            cause.incident, "", *turn)  # fmt: skip
        if found in subject.entries:
            return found
        entry = Entry(
            id=found, pack=pack.name, rule=rule.id, effect=index, kind=effect.kind, window=period.window,
            label=period.label, incident=cause.incident, points="0", revision=1, status="final", adjusts=adjusts,
            at_ms=self.known_ms(moment),
        )  # fmt: skip
        self.give(subject, pack, rule, moment, entry, cause.evidence)
        return found

    def give(
        self, subject: Subject, pack: Pack, rule: Rule, moment: Moment, entry: Entry, evidence: tuple[str, ...]
    ) -> None:  # fmt: skip
        """Send a revision of a task or proposal, and remember it. What is provisional is not due yet."""
        effect = rule.effects[entry.effect]
        self.put(subject, entry)
        extra = {"owner": effect.owner, "proposal": effect.proposal}
        if effect.kind == "task":
            extra["proposal"] = effect.task.en
            if entry.status == "final":
                extra["due_at"] = moment.calendar.text(moment.at_ms + effect.due_ms)
        # What a period decided rests on all that speaks for it, and says how many events these are.
        cause = Cause(moment.at_ms, entry.incident, evidence) if rule.trigger != "period" else None
        self.send(subject, pack, rule, moment, entry, NOTHING, cause, extra)

    def resolve_incident(
        self, subject: Subject, rules: RuleSet, moment: Moment, cause: Cause, alerted: Container[str]
    ) -> None:
        """What a missed deadline had raised is over: the alerts of the rules ``alerted`` are resolved."""
        for rule in rules.rules:
            for effect in rule.effects:
                if effect.kind == "alert" and rule.id in alerted:
                    found = alert_id(
                        rules.pack.name, rule.id, subject.level, subject.name, cause.incident, *cause.parts
                    )
                    state = AlertState(id=found, since_ms=cause.noticed_ms, firing=False)
                    self.alert(
                        subject,
                        rules.pack,
                        rule,
                        effect,
                        moment,
                        state,
                        "resolved",
                        cause.incident,
                        cause.evidence,
                        cause.since_ms,
                    )

    # --- grades -------------------------------------------------------------------------------------------------------

    def cap(
        self, subject: Subject, pack: Pack, rule: Rule, effect: Effect, period: Period, holds: bool,
        incident: str = "",
    ) -> None:  # fmt: skip
        state = subject.grades.setdefault(result_key(pack.name, period), GradeState())
        key = f"{rule.id}|{incident}" if incident else rule.id
        if holds and state.caps.get(key) != effect.grade_at_most:
            state.caps = {**state.caps, key: effect.grade_at_most}
            self.touched.add(subject.key)
        elif not holds and key in state.caps:
            state.caps = {name: cap for name, cap in state.caps.items() if name != key}
            self.touched.add(subject.key)

    def grade(
        self, subject: Subject, pack: Pack, period: Period, now_ms: int, status: Any, again: bool = False,
        moment: Moment | None = None,
    ) -> None:  # fmt: skip
        """Bring score and grade of a period up to date; a revision goes out when either changed.

        What was final stays as it is, unless ``again`` or the period is open again: then it gets a further final one.
        Of several versions the one that judges the period weighs it, whichever asks. ``moment`` is that of the period,
        where it was made already.
        """
        pack = self.version_of(pack.name, subject, period) or pack
        if self.reopened and self.is_reopened(pack, period) and self.judges_in(pack, subject, period, now_ms):
            status, again = "final", True
        if pack.cards:
            weighed = self.grader.card(pack, subject.level, period.window)
            if weighed is not None:
                moment = moment or self.period_moment(subject, period, now_ms)
                if moment.day >= pack.in_force_from:
                    self.grader.grade(subject, pack, weighed, moment, status, again)
                return
        card = pack.scorecard
        if card is None or card.level != subject.level or card.window != period.window:
            return
        day = subject.series.calendar.day(period.start_ms)
        if day < pack.in_force_from:
            return
        state = subject.grades.setdefault(result_key(pack.name, period), GradeState())
        settled = state.settled
        if (settled and not again) or (state.status == "withdrawn" and status != "final"):
            return
        scale = scale_of(self.layout, pack, day)
        charged = subject.charged(pack.name, period.window, period.label)
        score_text, reached = scale.score(charged or Fraction(0))
        grade = scale.grade(reached, state.caps.values())
        if (state.score, state.grade) == (score_text, grade) and (settled or state.status == status):
            self._combine_apart(subject, pack, period, now_ms, state, charged)
            return
        if charged is None and status == "provisional" and not state.revision and not state.caps:
            return
        state.others = self._apart(pack, charged)
        previous = state.grade
        # Who has the last word also counts the revisions that come after it.
        revision = state.revision + (state.status != "proposed")
        state.score, state.grade, state.status, state.revision = score_text, grade, status, revision
        self.touched.add(subject.key)
        text = f"{scale.base_text} + ({number_text(charged or Fraction(0))}) = {score_text}"
        held_by = []
        if grade != scale.grade(reached, ()):
            held_by = sorted({key.partition("|")[0] for key in state.caps})
        entries = subject.score_entries(pack.name, period.window, period.label)
        charges = sorted([entry.id for entry in entries if entry.counts])
        message = messages.grade(subject, pack, period, state, previous, text, held_by, charges, now_ms)
        if pack.key in self.grader.follows:
            self.grader.publish(subject, pack, period, state, message, now_ms, again=settled)
        else:
            self.out.append(sent(message))

    def _apart(self, pack: Pack, charged: Fraction | None) -> dict[str, str]:
        """What is kept of the sum of a score's entries, where a combined score may leave some of them out."""
        return {"": number_text(charged or Fraction(0))} if pack.name in self.grader.left_out else {}

    def _combine_apart(
        self,
        subject: Subject,
        pack: Pack,
        period: Period,
        now_ms: int,
        state: GradeState,
        charged: Fraction | None,
    ) -> None:
        """Held at its lowest a score stays, and yet what is left when something is left out of it may have moved."""
        apart = self._apart(pack, charged)
        if state.others != apart:
            state.others = apart
            self.touched.add(subject.key)
            self.grader.combine(subject, pack, period, now_ms, again=state.status != "provisional")

    def regrade_closed(self, subject: Subject, pack: Pack, period: Period, now_ms: int) -> None:
        """Bring a result that was final up to date: what it was made of changed."""
        known = subject.grades.get(result_key(pack.name, period))
        if known is not None and known.settled:
            self.grade(subject, pack, period, now_ms, "final", again=True)

    def regrade(self, subject: Subject, pack: Pack, period: Period, now_ms: int) -> None:
        """Bring score and grade of a running period up to date: something was said, or a part of it was closed."""
        self.grade(subject, pack, period, now_ms, "provisional")

    def forget_judgings(self, edge_ms: int) -> None:
        """Let go how periods that ended by then are judged."""
        for known in [known for known in self._judgings if known[3].end_ms <= edge_ms]:
            del self._judgings[known]

    # --- stored form --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key; None for what is gone."""
        return storing.checkpoint(self)

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Take over a stored state; the judge must be fresh."""
        assert self.grid_ms is None
        storing.restore(self, items)

    # --- reading ------------------------------------------------------------------------------------------------------

    def take_outputs(self) -> list[Output]:
        """What was decided since the last call."""
        taken, self.out = self.out, []
        return taken

    def value_cells(self, subject: Subject) -> Iterable[tuple[str, Counts]]:
        """The windows of a subject that live displays read, each with its counts."""
        series = subject.series
        yield "now", series.total
        for span, rolling in series.rolling.items():
            minutes = span // 60_000
            name = f"rolling_{minutes // 60}h" if minutes % 60 == 0 else f"rolling_{minutes}m"
            yield name, rolling.counts()
        if self.grid_ms is not None and self.grid_ms > 0:
            for period in series.calendar.periods(self.grid_ms - 1):
                if period.window in ("day", "month"):
                    yield period.window, series.periods.get(period) or Cell()

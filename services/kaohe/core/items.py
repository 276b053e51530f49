"""What events do to things that must follow within a time: open, meet and take them back, and let them be missed.

Theory of operation. Each deadline of each loaded pack is made ready once (``Kind``): its fields become readers, its
condition becomes a function, its time limits a list by the moment from which they hold, and what it counts and which
rules judge it stand in tables by outcome. ``Items`` then does with one event what the deadline asks. ``Deadlines``
keeps the items; this module decides what becomes of them.

An item that nothing can meet, but something may take back, *stands* from its opening on: a complaint that was found
right stands until it is dismissed after all. What that counted and charged is taken back where it was counted and
charged, in the month of the opening; what is found right again stands anew and is charged under an id of its own. The
words are kept with their times (``verdicts``), so that their order of arrival does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Protocol

import msgspec

from kaohe.core import corrections
from kaohe.core.calendars import DAY_MS, calendar, check_moment, to_ms
from kaohe.core.counting import TIME_UNITS_MS, compile_condition
from kaohe.core.counts import Counter
from kaohe.core.deadlines import Deadlines, Item, ItemState
from kaohe.core.dues import Due
from kaohe.core.evidence import Seeing, Sightings
from kaohe.core.facts import Moment
from kaohe.core.judge import Judge
from kaohe.core.model import Deadline, Pack, Rule
from kaohe.core.rulesets import RuleSet
from kaohe.core.subjects import Cause, Subject
from kaohe.core.verdicts import Segment, Word, bounded, segments
from kaohe.errors import EventError
from kaohe.events import PAYLOADS, Envelope, Payload

EARLY = ("early_met", "early_cancelled")
STANDING_KEPT_MS = 45 * DAY_MS
"""How long what nothing can meet is remembered after it was dismissed: longer than a word about it may be late."""
TAKEN_BACK = ("cancelled", "cancelled_late")
OUTCOMES = ("opened", "standing", "met", "missed", "late", "cancelled", "cancelled_late")


class Kind(Due):
    """A deadline of one version of a pack, ready for events."""

    __slots__ = (
        "ahead", "counts", "deadline", "due_of", "key_of", "noted", "noted_opening", "pack", "remember_ms", "rules",
        "seeing", "stands", "word_of",
    )  # fmt: skip

    def __init__(
        self,
        pack: Pack,
        deadline: Deadline,
        counters: Mapping[str, Counter],
        rules: Mapping[str, list[RuleSet]],
        seeing: Mapping[str, Seeing],
    ) -> None:
        in_force_ms = calendar(pack.zone).start_ms(pack.in_force_from)
        super().__init__(
            f"{pack.name}/{deadline.name}", pack.name, pack.version, in_force_ms, PAYLOADS[deadline.opens]
        )
        self.read(deadline.due_field or "", deadline.by or "")
        self.pack = pack
        self.deadline = deadline
        # With ``again`` the next opening ends the one before: then one of a kind stands at a time, by its own rules.
        once = not (deadline.met_by or deadline.again or deadline.remember_ms)
        self.stands = once and bool(deadline.cancelled_by)
        self.key_of = attrgetter(deadline.key)
        self.word_of = attrgetter(deadline.by) if deadline.by else None
        self.due_of = attrgetter(deadline.due_field) if deadline.due_field else None
        self.applies = compile_condition(deadline.where, pack) if deadline.where is not None else None
        self.limits = _limits(pack, deadline.within) if deadline.within else []
        self.ahead = _limits(pack, deadline.ahead) if deadline.ahead else []
        self.counts = {
            outcome: counters[source]
            for outcome in OUTCOMES
            if (source := f"deadline/{self.name}/{outcome}") in counters
        }
        self.seeing = {
            outcome: seeing[source]
            for outcome in OUTCOMES
            if (source := f"deadline/{self.name}/{outcome}") in seeing
        }
        # What somebody counts, or is to see.
        self.noted = self.counts.keys() | self.seeing.keys()
        self.noted_opening = [outcome for outcome in ("opened", "standing") if outcome in self.noted]
        self.remember_ms = deadline.remember_ms
        self.rules = {
            outcome: own
            for outcome in OUTCOMES
            if (own := [one for one in rules.get(f"{self.name}/{outcome}", []) if one.pack is pack])
        }
        self._settle()

    def _settle(self) -> None:
        """Note whether an opening, and being met in time, ask for nothing but to be counted."""
        heard = self.seeing.keys() | self.rules.keys()
        self.opened, self.met = self.counts.get("opened"), self.counts.get("met")
        plain = not self.stands
        self.opens_plainly = plain and not heard & {"opened", "standing"} and "standing" not in self.counts
        self.met_plainly = plain and not self.remember_ms and "met" not in heard

    def check(self, data: Any, time_ms: int) -> None:
        """EventError when ``data`` opens an item and cannot: its due time is missing, or none a calendar can carry."""
        if self.applies is not None and not self.applies(data, time_ms):
            return
        stated = self.due_of(data) if self.due_of is not None else None
        if stated is not None:
            check_moment(to_ms(stated), f"$.data.{self.deadline.due_field}")
        elif not self.limits:
            raise EventError(
                "invalid",
                f"$.data.{self.deadline.due_field} is missing: {self.deadline.name} has no other time limit",
            )

    def due_ms(self, data: Any, time_ms: int) -> int:
        """When an item must be met that ``data`` opens at ``time_ms``; ParameterError before the first time limit."""
        stated = self.due_of(data) if self.due_of is not None else None
        if stated is not None:
            due_ms = to_ms(stated)
            if self.ahead:
                due_ms -= next((limits["*"] for since, limits in self.ahead if time_ms >= since), 0)
            return max(due_ms, time_ms)  # what is due before it begins is missed as soon as it begins
        for from_ms, limits in self.limits:
            if time_ms >= from_ms:
                word = str(self.word_of(data)) if self.word_of is not None else "*"
                limit_ms = limits.get(word)
                return time_ms + (limits["*"] if limit_ms is None else limit_ms)
        self.pack.parameters[self.deadline.within].value_at(calendar(self.pack.zone).day(time_ms))
        raise AssertionError(f"{self.deadline.within} has a value that is not among its limits")


def _limits(pack: Pack, name: str) -> list[tuple[int, dict[str, int]]]:
    """A parameter's times in ms by word (``*`` for every other one), and from when they hold, newest first."""
    parameter = pack.parameters[name]
    unit_ms = TIME_UNITS_MS[parameter.unit]
    limits = []
    for day, value in reversed(parameter.values):
        assert not isinstance(value, str), parameter.name
        table = value if isinstance(value, dict) else {"*": value}
        by_word = {word: int(limit * unit_ms) for word, limit in table.items()}
        limits.append((calendar(pack.zone).start_ms(day), by_word))
    return limits


def kinds(
    packs: Iterable[Pack], counters: Mapping[str, Counter], rules: Mapping[str, list[RuleSet]],
    seeing: Mapping[str, Seeing],
) -> list[Kind]:  # fmt: skip
    """Every deadline of every version of every pack, in the order of declaration."""
    return [
        Kind(pack, deadline, counters, rules, seeing)
        for pack in packs
        for deadline in pack.deadlines.values()
    ]


class Host(Protocol):
    """The engine in which items are kept. ``due_ms`` is when it looks next at what is due;"""

    judge: Judge
    agents: dict[str, Subject]
    due_ms: int

    @property
    def sightings(self) -> Sightings | None:
        """What is seen in this partition of events."""

    @property
    def watermark_ms(self) -> int:
        """The log's clock."""

    def subject(self, names: Mapping[str, str], level: str, time_ms: int) -> Subject | None:
        """The subject of a level among these names, if there is one."""

    def make_agent(self, name: str, site: str, time_ms: int) -> Subject:
        """An agent that was forgotten."""

    def count_apart(
        self, counters: tuple[Counter, ...], data: Any, at_ms: int, agent: Subject | None,
        place: tuple[str, str, str], weight: int,
    ) -> None:  # fmt: skip
        """Count what became of an item."""


class Items:
    """What becomes of the items of one partition."""

    def __init__(self, engine: Host, found: Iterable[Kind]) -> None:
        self.engine = engine
        self.judge = engine.judge
        self._kinds = {(kind.name, kind.version): kind for kind in found}
        kept_ms = {kind.name: STANDING_KEPT_MS for kind in self._kinds.values() if kind.stands}
        long = [kind for kind in self._kinds.values() if kind.deadline.remember_ms]
        self.deadlines = Deadlines(kept_ms | {kind.name: kind.deadline.remember_ms for kind in long})

    def open(self, kind: Kind, event: Envelope, time_ms: int, place: tuple[str, str, str]) -> None:
        """An event opens an item, unless it is open already. ``place`` is queue, team and site."""
        if self.judge.active[kind.pack_name] != kind.version or time_ms < kind.from_ms:
            return
        data = event.data
        if kind.applies is not None and not kind.applies(data, time_ms):
            return
        if kind.stands:
            self._say(kind, event, Word(time_ms, True, event.id, place, data))
            return
        due_ms = kind.due_ms(data, time_ms)
        key = (kind.name, event.subject, str(kind.key_of(data)))
        deadlines = self.deadlines
        old = deadlines.items.get(key)
        if old is not None and old.state not in EARLY:
            if not self._begins_anew(kind, old, event, time_ms):
                return
            old = None
        item = Item(key, "open", place, time_ms, due_ms, 0, data, (event.id,))
        deadlines.add(item)
        if due_ms < self.engine.due_ms:
            self.engine.due_ms = due_ms + 1
        for outcome in kind.noted_opening:
            self.count(kind, item, outcome, time_ms)
        if "standing" in kind.rules:
            self._judge(kind, item, "standing", after="judge", at_ms=time_ms)
        if old is not None and (kind.deadline.met_by or old.closed_ms >= time_ms):
            item.evidence += old.evidence
            self._end(kind, item, old.closed_ms, met=old.state == "early_met")

    def _begins_anew(self, kind: Kind, old: Item, event: Envelope, time_ms: int) -> bool:
        """Whether an event opens an item although there is one: the next one, or one that was taken back before."""
        deadline = kind.deadline
        if deadline.again and time_ms > old.opened_ms:
            if old.state in ("open", "missed"):
                old.evidence = (*old.evidence[:1], event.id)
                self._end(kind, old, time_ms, met=True)
            return True
        return bool(deadline.remember_ms) and old.state in TAKEN_BACK and time_ms > old.closed_ms

    def end(
        self, kind: Kind, event: Envelope, time_ms: int, place: tuple[str, str, str], *, met: bool
    ) -> None:
        """An event meets an item or takes it back; one that comes before the opening is remembered for it."""
        if self.judge.active[kind.pack_name] != kind.version:
            return
        if kind.stands:
            self._say(kind, event, Word(time_ms, False, event.id, place))
            return
        key = (kind.name, event.subject, str(kind.key_of(event.data)))
        item = self.deadlines.items.get(key)
        if item is not None and item.state in ("open", "missed"):
            item.evidence = (*item.evidence[:1], event.id)
            self._end(kind, item, time_ms, met=met)
        elif kind.remember_ms:
            self._remember(kind, item, event, time_ms, place, met=met)
        elif item is None or (item.state in EARLY and time_ms < item.closed_ms):
            state: ItemState = "early_met" if met else "early_cancelled"
            self.deadlines.add_if_room(Item(key, state, place, time_ms, time_ms, time_ms, None, (event.id,)))
        elif item.state not in EARLY and time_ms < item.closed_ms:
            item.evidence = (*item.evidence[:1], event.id)
            self._end_earlier(kind, item, time_ms, met=met)

    def _remember(
        self,
        kind: Kind,
        item: Item | None,
        event: Envelope,
        time_ms: int,
        place: tuple[str, str, str],
        *,
        met: bool,
    ) -> None:
        """Keep in mind that something holds already that may be asked for later; the newest event counts."""
        if met and (item is None or (item.state in (*EARLY, *TAKEN_BACK) and time_ms > item.closed_ms)):
            key = (kind.name, event.subject, str(kind.key_of(event.data)))
            self.deadlines.add_if_room(
                Item(key, "early_met", place, time_ms, time_ms, time_ms, None, (event.id,))
            )

    def _end_earlier(self, kind: Kind, item: Item, time_ms: int, *, met: bool) -> None:
        """An item that has ended turns out to have ended before: whatever came first counts, in any order."""
        ended: ItemState = "met" if met else "cancelled"
        if time_ms > item.due_ms:
            ended = "late" if met else "cancelled_late"
        self.count(kind, item, item.state, item.closed_ms, weight=-1)
        if ended == item.state:
            item.closed_ms = time_ms
            self.deadlines.changed(item)
            self.count(kind, item, ended, time_ms)
            return
        self._judge(kind, item, item.state, after="take_back", at_ms=item.closed_ms)
        item.state = "missed" if item.state in ("late", "cancelled_late") else "open"
        self._end(kind, item, time_ms, met=met)

    def _end(self, kind: Kind, item: Item, time_ms: int, *, met: bool) -> None:
        """An open or missed item is met or taken back at ``time_ms``.

        What is remembered for long may have been met long ago: it counts when it was asked for.
        """
        if kind.remember_ms:
            time_ms = max(time_ms, item.opened_ms)
        in_time = time_ms <= item.due_ms
        was_missed = item.state == "missed"
        item.closed_ms = time_ms
        if was_missed and in_time:
            self.count(kind, item, "missed", item.due_ms, weight=-1)
        if in_time:
            item.state = "met" if met else "cancelled"
        else:
            if not was_missed:
                self._miss(kind, item)
                was_missed = True
            item.state = "late" if met else "cancelled_late"
        self.deadlines.changed(item)
        if item.state in kind.noted:
            self.count(kind, item, item.state, time_ms)
        if item.state == "cancelled":
            self.count(kind, item, "standing", item.opened_ms, weight=-1)
            self._judge(kind, item, "standing", after="take_back", at_ms=time_ms)
        if was_missed:
            self._judge(kind, item, "missed", after="take_back" if in_time else "resolve", at_ms=time_ms)
            item.alerts = ()
        if item.state in kind.rules:
            self._judge(kind, item, item.state, after="judge", at_ms=time_ms)

    # --- what nothing can meet ----------------------------------------------------------------------------------------

    def _say(self, kind: Kind, event: Envelope, word: Word) -> None:
        """Something was found right or dismissed: bring what stands to what all words come to."""
        key = (kind.name, event.subject, str(kind.key_of(event.data)))
        item = self.deadlines.items.get(key)
        if item is None:
            item = Item(key, "early_cancelled", word.place, word.at_ms, word.at_ms, word.at_ms, None, ())
            self.deadlines.add_if_room(item)

        def due_of(one: Word) -> int:
            return kind.due_ms(_data(kind, one), one.at_ms)

        known = item.words or _words_of(item)
        item.words = tuple(bounded([*known, word], due_of))
        before, after = segments(known, due_of), segments(item.words, due_of)
        held = {one.name for one in before} & {one.name for one in after}
        gone = [one for one in before if one.name not in held]
        new = [one for one in after if one.name not in held]
        if gone and new and gone[-1].stands and new[-1].stands and gone[-1].opening == new[-1].opening:
            # It stands as before; only that it was dismissed too late is new, or was earlier than known.
            if gone[-1].ending is None:
                self._end(kind, item, word.at_ms, met=False)
            else:
                self._end_earlier(kind, item, word.at_ms, met=False)
            return
        for one in reversed(gone):
            self._take_down(kind, item, one, word)
        for one in new:
            # The item is as the last segment makes it; one that was dismissed before that only counts.
            if one is after[-1]:
                self._become(item, one)
            self._put_up(kind, item if one is after[-1] else _item_of(item, one, "cancelled"), one)
        if not new and after and gone:
            self._become(item, after[-1])
        if not after:
            item.closed_ms = max(one.at_ms for one in item.words)
        self.deadlines.changed(item)

    def _take_down(self, kind: Kind, item: Item, segment: Segment, word: Word) -> None:
        """Take back what a segment counted and charged. Of what stands the item holds the details."""
        opened_ms, ending = segment.opening.at_ms, segment.ending
        if not segment.stands:
            assert ending is not None
            closed = _item_of(item, segment, "cancelled")
            self.count(kind, closed, "opened", opened_ms, weight=-1)
            self.count(kind, closed, "cancelled", ending.at_ms, weight=-1)
            self._judge(kind, closed, "cancelled", after="take_back", at_ms=ending.at_ms)
            return
        item.evidence = (*item.evidence[:1], word.event_id)
        self.count(kind, item, "opened", opened_ms, weight=-1)
        self.count(kind, item, "standing", opened_ms, weight=-1)
        self._judge(kind, item, "standing", after="take_back", at_ms=word.at_ms)
        if item.state == "cancelled_late":
            self.count(kind, item, "cancelled_late", item.closed_ms, weight=-1)
            self._judge(kind, item, "cancelled_late", after="take_back", at_ms=word.at_ms)
        if item.state in ("missed", "cancelled_late"):
            self.count(kind, item, "missed", item.due_ms, weight=-1)
            self._judge(kind, item, "missed", after="take_back", at_ms=word.at_ms)
        item.attempt += 1

    @staticmethod
    def _become(item: Item, segment: Segment) -> None:
        """Let the item be as a segment makes it, before what that leads to is counted and judged."""
        now = _item_of(item, segment, "open" if segment.stands else "cancelled")
        for field in ("state", "place", "opened_ms", "due_ms", "closed_ms", "opening", "evidence", "alerts"):
            setattr(item, field, getattr(now, field))

    def _put_up(self, kind: Kind, item: Item, segment: Segment) -> None:
        """Count a segment; judge what stands by it."""
        opened_ms, ending = segment.opening.at_ms, segment.ending
        self.count(kind, item, "opened", opened_ms)
        if not segment.stands:
            assert ending is not None
            self.count(kind, item, "cancelled", ending.at_ms)
            self._judge(kind, item, "cancelled", after="judge", at_ms=ending.at_ms)
            return
        self.count(kind, item, "standing", opened_ms)
        self._judge(kind, item, "standing", after="judge", at_ms=opened_ms)
        self.engine.due_ms = min(self.engine.due_ms, item.due_ms + 1)
        if ending is not None:
            self._end(kind, item, ending.at_ms, met=False)

    def miss_before(self, now_ms: int) -> None:
        """Let the items be missed whose due time has passed, in its order."""
        for item in self.deadlines.missed_before(now_ms):
            name = item.id[0]
            kind = self._kinds.get((name, self.judge.active.get(name.partition("/")[0], "")))
            if kind is not None:
                self._miss(kind, item)

    def _miss(self, kind: Kind, item: Item) -> None:
        item.state = "missed"
        self.count(kind, item, "missed", item.due_ms)
        self._judge(kind, item, "missed", after="judge", at_ms=item.due_ms)

    def count(self, kind: Kind, item: Item, outcome: str, at_ms: int, weight: int = 1) -> None:
        """Count what became of an item, at the moment at which it was decided; what opened it shows it."""
        count, seeing = kind.counts.get(outcome), kind.seeing.get(outcome)
        if count is None and seeing is None:
            return
        opening = _opening(kind, item)
        agent = self._agent(opening.agent, item, at_ms) if opening.agent else None
        if count is not None:
            self.engine.count_apart((count,), opening, at_ms, agent, item.place, weight)
        hits = seeing(opening, at_ms) if seeing is not None else None
        if hits is not None and self.engine.sightings is not None:
            opened_by = item.evidence[:1]
            tag = f"{'/'.join(item.id)}/{item.opened_ms}"
            self.engine.sightings.take(hits, at_ms, tag, opened_by, agent, item.place, weight)
            if agent is not None:
                self.judge.touched.add(agent.key)

    def _agent(self, name: str, item: Item, at_ms: int) -> Subject:
        """The agent of an item; one that was forgotten meanwhile is made again."""
        return self.engine.agents.get(name) or self.engine.make_agent(name, item.place[2], at_ms)

    @staticmethod
    def _causes(subject: Subject, kind: Kind, cause: Cause) -> Callable[[Rule], Cause]:
        """The cause for each rule. What stood before, and was forgotten meanwhile, is known by what was charged."""
        if not kind.stands:
            return lambda _rule: cause

        def cause_of(rule: Rule) -> Cause:
            attempt = max(cause.attempt, _taken_back(subject, rule, cause.incident))
            return msgspec.structs.replace(cause, attempt=attempt)

        return cause_of

    def _judge(self, kind: Kind, item: Item, outcome: str, *, after: str, at_ms: int) -> None:
        for rules in kind.rules.get(outcome, ()):
            opening = _opening(kind, item)
            queue, team, site = item.place
            names = {"agent": opening.agent, "queue": queue, "team": team, "site": site}
            if rules.level == "agent" and opening.agent:
                self._agent(opening.agent, item, at_ms)
            subject = self.engine.subject(names, rules.level, item.opened_ms)
            if subject is None:
                continue
            decided_ms = {"missed": item.due_ms, "standing": item.opened_ms}.get(outcome, at_ms)
            day_ms = item.opened_ms if outcome == "standing" else item.due_ms
            moment = Moment(
                subject.series, subject.roster_at(at_ms), at_ms, day=subject.series.calendar.day(day_ms),
                event=opening, late_ms=max(0, at_ms - item.due_ms), open_cells=True,
            )  # fmt: skip
            moment.opened_ms = item.opened_ms
            cause = Cause(decided_ms, item.id[2], item.evidence, item.attempt)
            now_ms = max(at_ms, self.engine.watermark_ms)
            if after == "judge":
                alerted = self.judge.judge_event(
                    subject, rules, moment, self._causes(subject, kind, cause), now_ms
                )
                if outcome in ("missed", "standing") and alerted:
                    item.alerts = tuple(sorted({*item.alerts, *(f"{rules.level}|{one}" for one in alerted)}))
                    self.deadlines.note(item)
            else:
                alerts = [alert.partition("|") for alert in item.alerts]
                own = {rule for level, _, rule in alerts if level == rules.level}
                self.judge.resolve_incident(subject, rules, moment, cause, own)
                if after == "take_back":
                    corrections.take_back(self.judge, subject, rules, moment, cause, now_ms)


def _taken_back(subject: Subject, rule: Rule, incident: str) -> int:
    """How often a charge of this rule about an incident was taken back, as far as the subject remembers."""
    found: dict[int, int] = {}
    for entry in subject.entries.values():
        if (entry.pack, entry.rule, entry.incident) == (rule.pack, rule.id, incident) and entry.waived_by:
            found[entry.effect] = found.get(entry.effect, 0) + 1
    return max(found.values(), default=0)


def _words_of(item: Item) -> list[Word]:
    """What was said about an item of which the words themselves were not kept."""
    words = []
    if item.opening is not None:
        words.append(Word(item.opened_ms, True, item.evidence[0], item.place, item.opening))
    if item.state not in ("open", "missed") and item.evidence:
        words.append(Word(item.closed_ms, False, item.evidence[-1], item.place))
    return words


def _item_of(item: Item, segment: Segment, state: ItemState) -> Item:
    """An item as a segment of its words makes it."""
    opening, ending = segment.opening, segment.ending
    return Item(
        item.id, state, opening.place, opening.at_ms, segment.due_ms, ending.at_ms if ending is not None else 0,
        opening.data, tuple(one for one in segment.name if one), (), item.words, item.attempt,
    )  # fmt: skip


def _data(kind: Kind, word: Word) -> Payload:
    """The data of a word that found something right; as it was stored, when it is read for the first time since."""
    if word.data.__class__ is dict:
        word.data = msgspec.convert(word.data, kind.payload)
    data: Payload = word.data
    return data


def _opening(kind: Kind, item: Item) -> Payload:
    """The data of the event that opened an item; as it was stored, when it is read for the first time since."""
    if item.opening.__class__ is dict:
        item.opening = msgspec.convert(item.opening, kind.payload)
    opening: Payload = item.opening
    return opening

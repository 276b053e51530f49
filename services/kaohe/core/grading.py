"""Grades of scorecards made of items, and what follows from any pack's grades.

Theory of operation. A ``Grader`` is the part of a judge that works out cards of dimensions: it reads what each item
rests on (a metric over the period, the ledger entries of its rules, what people said, the marks of earlier periods),
lets ``scorecard`` do the arithmetic, and sends a revision whenever score, grade or status changed, with what moved
since the revision before.

When a period closes, its result becomes a *mark* of the subject. Marks are what quarters and years are made of, and
what tallies count (two times D: probation). A result may change once more, where its period is open again or an appeal
was right; then what was made of it is brought up to date: wider cards, the one score of several packs, and tallies,
whose proposals are withdrawn where they hold no more.

Where a pack has a step for which the whole company must be known (a quota,
a calibration between assessors, a ranking), the result of the close is only *proposed*: it travels in the partition's
numbered reports to the group stage, and ``company`` has the last word.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import date
from fractions import Fraction
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from kaohe.core import scorecard as cards
from kaohe.core.assessing import EVALUATED, ruling_on
from kaohe.core.calendars import Calendar, Period
from kaohe.core.facts import Moment, UsedReader, added, number_text, reader, used_parameter, used_reader
from kaohe.core.model import Combined, Item, Pack, Scorecard, Tally
from kaohe.core.records import Output
from kaohe.core.rulesets import slots_of
from kaohe.core.scorecard import Earned, Mark
from kaohe.core.scores import Shares, Terms, scale_of, shares_of, terms_of
from kaohe.core.subjects import Entry, GradeState, Ruling, Sitting, Subject, result_key
from kaohe.core.telling import brief, digest, digests
from kaohe.decisions import (
    ENCODER,
    Decision,
    Grade,
    Level,
    Said,
    ScoreChange,
    ScoreDetail,
    ScoreDimension,
    ScoreLine,
    Step,
    UsedFact,
    Words,
    decision_id,
    grade_id,
)

if TYPE_CHECKING:
    from kaohe.core.judge import Judge

_id = attrgetter("id")
WORDED = ("assessed", "evaluated")
"""The kinds of items that rest on what people say."""
UNNAMED = ("peer", "department")
"""Roles whose names a grade does not tell: who is rated by colleagues is not to know which one said what."""
JOINT = "+"
"""What the name of a pack ends with where the score of several packs goes out: no pack can have it."""
JOINT_STEP = Fraction(1, 100)
"""To what a combined score is rounded, half upwards."""
CHANGES_TOLD = 3
"""Changes that stand in a grade's sentence; all of them stand in its detail."""


class Pull(msgspec.Struct, array_like=True):
    """What an assessor gave, in shares as texts, and how far a shift of it by 1 would move the exact score."""

    by: str
    role: str
    count: int
    total: str
    squares: str
    pull: str


class Rest(msgspec.Struct, array_like=True):
    """A line that rests on the marks of earlier periods: the share that was taken, and how far it moves the score."""

    window: str
    labels: list[str]
    share: str
    pull: str


class Part(msgspec.Struct, array_like=True):
    """A pack's score and share in a combined score; ``late``: the company's stage may still move it."""

    pack: str
    share: str
    score: str
    late: bool


class Put(msgspec.Struct, kw_only=True):
    """What the company's stage is given beside a closed result."""

    caps: list[str]
    ruled: bool
    hired_on: str
    previous: str
    pulls: list[Pull]
    rests: list[Rest]


class Proposal(Put, kw_only=True):
    """A closed result for which the company's stage has the last word. A combined score has ``parts``.

    ``amended_ms`` is when it was changed again after its period was closed; 0 at the close itself.
    """

    grade: Grade
    parts: list[Part] = []
    amended_ms: int = 0


class _Read(msgspec.Struct):
    """What one item gave: its share, how, and what it rested on."""

    share: Fraction | None
    calculation: str
    value: str | None = None
    unit: str = ""
    word: str = ""
    entries: list[str] = []
    said: list[Said] = []
    seen: dict[str, str] = {}
    pulls: list[tuple[str, str, int, Fraction, Fraction, Fraction]] = []
    rests: list[str] = []
    untouched: bool = False


class _Items(msgspec.Struct):
    """What the items of a card gave, with all that follows from them alone.

    ``told`` are the digests of dimensions and lines, once they were asked for.
    """

    earned: list[Earned]
    shares: Shares
    taken: frozenset[str]
    seen: dict[str, str]
    dimensions: list[ScoreDimension]
    lines: list[ScoreLine]
    pulls: list[Pull]
    rests: list[Rest]
    untouched: bool
    told: dict[str, int] | None = None


class _Sheet(msgspec.Struct):
    """Everything a revision of a grade says, before it is one."""

    score: str
    grade: str
    formula: str
    detail: ScoreDetail
    entries: list[str]
    seen: dict[str, str]
    ruled: bool
    items: _Items
    untouched: bool
    earned: list[tuple[str, str, str, str | None]] = []
    others: dict[str, str] = {}


class Grader:
    """The scorecards of a judge's packs."""

    def __init__(self, judge: Judge, packs: Sequence[Pack]) -> None:
        self.judge = judge
        self.proposals: list[Proposal] = []
        self.cards: dict[tuple[str, str, str], Scorecard] = {
            (pack.key, card.level, card.window): card for pack in packs for card in pack.cards
        }
        self.weighing = frozenset(
            key
            for key, card in self.cards.items()
            if any(item.kind == "metric" for dimension in card.dimensions for item in dimension.items)
        )
        self.evaluated = {
            pack.key: windows
            for pack in packs
            if (windows := tuple(card.window for card in pack.cards if _evaluates(card)))
        }
        combining = {
            name
            for pack in packs
            if pack.results.combined is not None
            for _, table in pack.parameters[pack.results.combined.shares].values
            if isinstance(table, dict)
            for name in table
        }
        self.follows = frozenset(
            pack.key
            for pack in packs
            if pack.cards or pack.results.quota or pack.results.tallies or pack.name in combining
        )
        self.combines = any(pack.results.combined is not None for pack in packs)
        self.left_out = frozenset(
            name
            for pack in packs
            if pack.results.combined is not None
            for once in pack.results.combined.once
            for name in once.charged_by[1:]
        )
        """The packs of which a combined score leaves something out, because another one charges it."""

    def card(self, pack: Pack, level: str, window: str) -> Scorecard | None:
        """The card of dimensions of a pack for a level and window."""
        return self.cards.get((pack.key, level, window))

    def slots(self, pack: Pack, level: str, window: str) -> tuple[int, ...] | None:
        """The counts that a card's items read; None when they read more than counts of its own period."""
        items = [item for one in self.cards[pack.key, level, window].dimensions for item in one.items]
        read = [f"{item.metric}.{window}" for item in items if item.kind == "metric"]
        return slots_of(self.judge.layout, pack, window, read)

    # --- one grade ----------------------------------------------------------------------------------------------------

    def grade(
        self, subject: Subject, pack: Pack, card: Scorecard, moment: Moment, status: Any, again: bool = False
    ) -> None:
        """Bring a card's score and grade up to date; a revision goes out when either changed, or somebody was heard.

        ``again``: also those of a result that was final.
        """
        period = moment.period
        assert period is not None
        key = result_key(pack.name, period)
        state = subject.grades.get(key) or GradeState()
        settled = state.settled
        if (settled and not again) or (state.status == "withdrawn" and status != "final"):
            return
        sheet = self._sheet(subject, pack, card, moment, state, subject.sittings.get(key))
        if sheet is None or (status == "provisional" and not state.revision and sheet.untouched):
            if status == "final":
                self.combine(subject, pack, period, moment.at_ms)
            return
        subject.grades[key] = state
        score_text = sheet.score
        apart = (state.earned, state.others) != (sheet.earned, sheet.others)
        state.earned, state.others = sheet.earned, sheet.others
        same = (state.score, state.grade) == (score_text, sheet.grade)
        if same and state.status == "proposed" and state.put:
            # The company's stage compares what people said, although the score itself is what it was.
            same = state.put == digest(self._put(subject, pack, period, state, sheet))
        if same and (settled or state.status == status):
            # What people said must be seen although a cap or a final word holds the score where it was.
            heard = not settled and status == "provisional" and _words(state.seen) != _words(sheet.seen)
            if not heard:
                if apart:
                    self.judge.touched.add(subject.key)
                    self.combine(subject, pack, period, moment.at_ms, settled)
                return
        changes = changes_of(state.seen, sheet.seen)
        if settled:
            before = {"score:": state.score, "grade:": state.grade}
            changes = changes_of(before, {"score:": score_text, "grade:": sheet.grade})
        previous = state.grade
        detail = msgspec.structs.replace(sheet.detail, changes=changes)
        why = sentence(subject.name, period.label, score_text, sheet.grade, detail)
        state.seen = sheet.seen if status == "provisional" else {}
        told, state.told = state.told, _digests(sheet.items) if status == "provisional" else {}
        if status == "provisional":
            detail = brief(detail, told, state.told, state.revision)
        # Who has the last word also counts the revisions that come after it.
        revision = state.revision + (state.status != "proposed")
        state.score, state.grade, state.status, state.revision = score_text, sheet.grade, status, revision
        self.judge.touched.add(subject.key)
        message = Grade(
            id=grade_id(pack.name, subject.level, subject.name, period.window, period.label), revision=state.revision,
            status=status, pack=pack.name, pack_version=pack.version, level=_level(subject), subject=subject.name,
            window=period.window, period=period.label, score=score_text, grade=sheet.grade, previous_grade=previous,
            at=moment.calendar.text(moment.at_ms), entries=sheet.entries, formula=sheet.formula, explanation=why,
            detail=detail,
        )  # fmt: skip
        self.publish(subject, pack, period, state, message, moment.at_ms, sheet, again=settled)

    def _sheet(
        self, subject: Subject, pack: Pack, card: Scorecard, moment: Moment, state: GradeState, sitting: Sitting | None
    ) -> _Sheet | None:  # fmt: skip
        """Work the card out; None when nothing is known at all."""
        period = moment.period
        assert period is not None
        terms = terms_of(self.judge.layout, pack, card, moment.day)
        entries = subject.score_entries(pack.name, period.window, period.label)
        items: _Items | None = terms.unheard_card if sitting is None else None
        if items is None:
            items = self._items(subject, pack, card, terms, moment, sitting, _belongings(entries))
        beside = [entry for entry in entries if entry.counts and entry.id not in items.taken]
        worked = terms.worked(items.shares, items.earned, added([entry.worth for entry in beside]))
        ruling = ruling_on(sitting, "")
        if worked is None and ruling is None:
            return None
        exact = worked.exact if worked is not None else Fraction(0)
        score = worked.score if worked is not None else terms.bounds[0]
        notes: list[Words] = []
        grade, score = self._decide(card, terms, score, state, ruling, notes)
        others = {entry.id: entry.points for entry in sorted(beside, key=_id)}
        line = subject.line_at(min(moment.at_ms, period.end_ms) - 1)
        detail = ScoreDetail(
            word=card.words.get(grade), dimensions=items.dimensions, lines=items.lines, others=others,
            exact=number_text(exact), notes=notes,
            department=(line.department or line.team) if line is not None else "",
        )  # fmt: skip
        left_out = pack.name in self.left_out
        score_text = number_text(score)
        return _Sheet(
            score=score_text, grade=grade, formula=_formula(detail, score_text), detail=detail,
            entries=sorted([*items.taken, *others]), seen=_seen(items, detail, state, ruling),
            ruled=ruling is not None, items=items,
            untouched=ruling is None and not others and not state.caps and items.untouched,
            earned=_kept(items.earned) if left_out and ruling is None else [],
            others=_by_rule(_belongings(entries), others) if left_out else {},
        )  # fmt: skip

    def _items(
        self, subject: Subject, pack: Pack, card: Scorecard, terms: Terms, moment: Moment, sitting: Sitting | None,
        belongs: Mapping[str, list[Entry]],
    ) -> _Items:  # fmt: skip
        """What the items of a card gave: the same for everybody where all rests on words and nobody spoke."""
        reads: dict[str, _Read] = {}
        earned = []
        for dimension in card.dimensions:
            for item in dimension.items:
                most = terms.most[item.name]
                read = terms.unheard.get(item.name) if sitting is None else None
                if read is None:
                    read = self._read(subject, pack, item, most, moment, sitting, belongs)
                    if sitting is None and item.kind in WORDED:
                        terms.unheard[item.name] = read
                reads[item.name] = read
                earned.append(Earned(dimension.name, item.name, most, read.share))
        shares = shares_of(earned)
        worked = terms.worked(shares, earned, Fraction(0))
        parts = {line.item: line for line in worked.lines} if worked is not None else {}
        lines = _lines(card, terms, reads, parts)
        seen = {key: text for read in reads.values() for key, text in read.seen.items()}
        seen |= {f"item:{line.item}": line.contribution for line in lines if line.share is not None}
        items = _Items(
            earned=earned, shares=shares, taken=frozenset([entry for read in reads.values() for entry in read.entries]),
            seen=seen, dimensions=_dimensions(card, terms, parts), lines=lines, pulls=_pulls(reads, parts),
            rests=_rests(card, reads, parts), untouched=all(read.untouched for read in reads.values()),
        )  # fmt: skip
        if reads.keys() == terms.unheard.keys() and sitting is None:
            terms.unheard_card = items
        return items

    @staticmethod
    def _decide(
        card: Scorecard, terms: Terms, score: Fraction, state: GradeState, ruling: Ruling | None, notes: list[Words]
    ) -> tuple[str, Fraction]:  # fmt: skip
        """The grade, and the score that goes with it: by the score, by caps, or by the leader's final word."""
        bands, bounds = terms.bands, terms.bounds
        if ruling is not None:
            reason = f": {ruling.reason}" if ruling.reason else ""
            if ruling.score is not None:
                score = Fraction(ruling.score, 100)
                grade = terms.grade(score)
            else:
                grade = ruling.grade
                score = cards.held_in_band(score, grade, bands, card.step, bounds) if card.agree else score
            notes.append(
                Words(
                    en=f"decided by {ruling.by}{reason}",
                    zh=f"由 {ruling.by} 最终裁定{reason.replace(': ', '：')}",
                )
            )
            return grade, score
        grade = cards.grade_of(score, bands, state.caps.values()) if state.caps else terms.grade(score)
        if state.caps and grade != terms.grade(score):
            rules = sorted({key.partition("|")[0] for key in state.caps})
            notes.append(Words(en=f"held down by {', '.join(rules)}", zh=f"受{'、'.join(rules)}限制"))
            if card.agree:
                score = cards.held_in_band(score, grade, bands, card.step, bounds)
        return grade, score

    # --- items --------------------------------------------------------------------------------------------------------

    def _read(
        self, subject: Subject, pack: Pack, item: Item, most: Fraction, moment: Moment, sitting: Sitting | None,
        belongs: Mapping[str, list[Entry]],
    ) -> _Read:  # fmt: skip
        """What an item earned, of ``most`` points."""
        ruling = ruling_on(sitting, item.name)
        if item.kind == "metric":
            read = self._metric(pack, item, moment)
        elif item.kind == "entries":
            read = _entries(item, most, belongs)
        elif item.kind == "assessed":
            read = _assessed(pack, item, most, moment.day, sitting)
        elif item.kind == "evaluated":
            read = _evaluated(pack, item, moment.day, sitting)
        else:
            read = _periods(subject, pack, item, moment)
        if ruling is not None:
            share = _said(pack, item, most, moment.day, ruling.score, ruling.grade)
            read.share, read.calculation, read.word = share, f"final word of {ruling.by}", ruling.grade
            read.said = [Said(role="leader", by=ruling.by, share=number_text(share), word=ruling.grade)]
            read.seen[f"ruling:{item.name}"] = f"{ruling.event_id}: {number_text(share)}"
            read.untouched = False
            read.pulls = [(*one[:5], Fraction(0)) for one in read.pulls]
        elif read.share is None:
            read.untouched = True
        if read.share is None and item.no_data != "skip":
            read.share = Fraction(1 if item.no_data == "full" else 0)
            read.calculation = f"no data counts as {'all' if item.no_data == 'full' else 'nothing'}"
        return read

    def _metric(self, pack: Pack, item: Item, moment: Moment) -> _Read:
        assert moment.period is not None
        assert item.scale is not None
        name = f"{item.metric}.{moment.period.window}"
        value = reader(self.judge.layout, pack, name)(moment)
        # Compiled once for each pack and metric.
        use: UsedReader = self.judge.layout.remembered(
            ("used", pack.key, name), lambda: used_reader(self.judge.layout, pack, name)
        )
        fact = use(moment)
        base = reader(self.judge.layout, pack, f"{name}.base")(moment)
        if value is None or (item.at_least and _amount(base) < number_of(pack, item.at_least, moment.day)):
            return _Read(None, "no data", fact.value, fact.unit, untouched=True)
        exact, scale, day = _amount(value), item.scale, moment.day
        if scale.limits:
            shares = table_of(pack, scale.shares, day)
            word = cards.word_of(exact, table_of(pack, scale.limits, day), scale.better)
            return _Read(shares[word], f"{scale.shares}[{word}]", fact.value, fact.unit, word)
        none_at, full_at = number_of(pack, scale.none_at, day), number_of(pack, scale.full_at, day)
        how = f"({number_text(exact)} - {number_text(none_at)}) / ({number_text(full_at)} - {number_text(none_at)})"
        return _Read(cards.straight(exact, none_at, full_at), f"{how}, held in 0..1", fact.value, fact.unit)

    # --- what follows -------------------------------------------------------------------------------------------------

    def publish(
        self, subject: Subject, pack: Pack, period: Period, state: GradeState, message: Grade, now_ms: int,
        sheet: _Sheet | None = None, *, again: bool = False,
    ) -> None:  # fmt: skip
        """Send a grade; of a closed period keep the mark and let follow what follows from it.

        ``again``: the result was final before. Where the company's stage has the last word, it is told and nobody else.
        """
        final = message.status == "final"
        proposed = final and to_company(pack, subject.level, period.window)
        if proposed:
            state.status = "proposed"
            message = msgspec.structs.replace(message, status="provisional")
            put = self._put(subject, pack, period, state, sheet)
            state.put = digest(put)
            self.proposals.append(
                Proposal(grade=message, **msgspec.structs.asdict(put), amended_ms=now_ms if again else 0)
            )
        if not proposed or not again:
            self.judge.out.append(sent(message))
        if final:
            subject.mark(mark_key(pack, period), Mark(period.label, message.score, message.grade))
            if state.status == "final":
                marks = subject.marks[mark_key(pack, period)]
                self.judge.out += tallied(pack, message, marks, subject.series.calendar)
            self._grade_wider(subject, pack, period, now_ms, again)
        self.combine(subject, pack, period, now_ms, again)

    def _put(
        self, subject: Subject, pack: Pack, period: Period, state: GradeState, sheet: _Sheet | None
    ) -> Put:
        """What the company's stage is given with a closed result."""
        line = subject.line_at(period.end_ms - 1)
        before = [one for one in subject.marks.get(mark_key(pack, period), []) if one.label < period.label]
        return Put(
            caps=sorted(state.caps.values()), ruled=sheet is not None and sheet.ruled,
            hired_on=line.hired_on if line is not None else "", previous=before[-1].score if before else "",
            pulls=sheet.items.pulls if sheet is not None else [], rests=sheet.items.rests if sheet is not None else [],
        )  # fmt: skip

    def _grade_wider(self, subject: Subject, pack: Pack, period: Period, now_ms: int, again: bool) -> None:
        """Bring the cards that are made of this period's marks up to date; a closed one only if they were final.

        One that closes with this period (a year with December) is graded when its own turn comes, in the same moment.
        """
        for card in pack.cards:
            windows = {item.window for dimension in card.dimensions for item in dimension.items}
            if card.level == subject.level and period.window in windows:
                wider = subject.series.calendar.containing(card.window, period.start_ms)
                if self.judge.closes_now(pack, subject, wider, now_ms):
                    continue
                if not self.judge.is_closed(pack, subject, wider, now_ms):
                    self.judge.regrade(subject, pack, wider, now_ms)
                elif again:
                    self.judge.regrade_closed(subject, pack, wider, now_ms)

    def combine(
        self, subject: Subject, changed: Pack, period: Period, now_ms: int, again: bool = False
    ) -> None:
        """Bring the one score of several packs up to date."""
        if not self.combines:
            return
        for owner in self.judge.active_packs():
            combined = owner.results.combined
            if combined is None or combined.window != period.window or subject.level != "agent":
                continue
            calendar = subject.series.calendar
            day = calendar.day(period.start_ms)
            if day < owner.in_force_from:
                continue
            shares = table_of(owner, combined.shares, day)
            if changed.name in shares and sum(name in self.judge.active for name in shares) > 1:
                self._combine_for(subject, owner, shares, changed, period, now_ms, again)

    def _combine_for(
        self, subject: Subject, owner: Pack, shares: Mapping[str, Fraction], changed: Pack, period: Period, now_ms: int,
        again: bool,
    ) -> None:  # fmt: skip
        combined = owner.results.combined
        assert combined is not None
        calendar = subject.series.calendar
        key = result_key(joint_name(owner), period)
        state = subject.grades.get(key) or GradeState()
        settled_before = state.settled
        if settled_before and not again:
            return
        scores, packs, settled = self._scores(subject, shares, changed, period, now_ms)
        ids = [grade_id(name, "agent", subject.name, period.window, period.label) for name in scores]
        notes = self._leave_out(subject, combined, scores, packs, period)
        found = cards.combine(scores, shares)
        if found is None:
            if settled and state.revision and state.status == "provisional" and period.end_ms <= now_ms:
                self._withdraw(subject, owner, joint_name(owner), period, now_ms)
            return
        exact, parts = found
        score = cards.rounded(exact, JOINT_STEP)
        bands = table_of(owner, combined.bands, calendar.day(period.start_ms))
        grade = cards.grade_of(score, bands)
        settled = settled or settled_before
        late = settled and any(moves_late(packs[name], period.window) for name in parts)
        status = ("proposed" if late else "final") if settled else "provisional"
        if (state.score, state.grade, state.status) == (number_text(score), grade, status):
            return
        seen = {f"pack:{name}": number_text(value) for name, value in sorted(scores.items())}
        changes = changes_of(state.seen, seen)
        previous, state.seen = state.grade, seen
        # Who has the last word also counts the revisions that come after it.
        amended = settled_before and late
        revision = state.revision + (0 if amended else 2 if state.status == "proposed" else 1)
        state.score, state.grade, state.status, state.revision = number_text(score), grade, status, revision
        subject.grades[key] = state
        self.judge.touched.add(subject.key)
        detail = ScoreDetail(about="combined", exact=number_text(exact), changes=changes, notes=notes)
        message = Grade(
            id=grade_id(joint_name(owner), "agent", subject.name, period.window, period.label),
            revision=state.revision, status="final" if status == "final" else "provisional", pack=joint_name(owner),
            pack_version=owner.version, level="agent", subject=subject.name, window=period.window,
            period=period.label, score=state.score, grade=grade, previous_grade=previous, at=calendar.text(now_ms),
            entries=ids, formula=combined_text(parts, scores, score),
            explanation=sentence(subject.name, period.label, state.score, grade, detail), detail=detail,
        )  # fmt: skip
        if not amended:
            self.judge.out.append(sent(message))
        if late:
            told = [
                Part(name, str(shares[name]), str(scores[name]), moves_late(packs[name], period.window))
                for name in sorted(parts)
            ]
            self.proposals.append(
                Proposal(
                    grade=message,
                    caps=[],
                    ruled=False,
                    hired_on="",
                    previous="",
                    pulls=[],
                    rests=[],
                    parts=told,
                    amended_ms=now_ms if amended else 0,
                )
            )

    def withdraw(self, subject: Subject, pack: Pack, period: Period, now_ms: int) -> None:
        """A grade that was shown ends: its pack is not in force for the subject when the period ends."""
        self._withdraw(subject, pack, pack.name, period, now_ms)
        self.combine(subject, pack, period, now_ms)

    def _withdraw(self, subject: Subject, pack: Pack, name: str, period: Period, now_ms: int) -> None:
        """``name`` is that of the pack, or under which its one score of several packs goes out."""
        state = subject.grades[result_key(name, period)]
        state.status, state.revision, state.seen, state.told = "withdrawn", state.revision + 1, {}, {}
        self.judge.touched.add(subject.key)
        who, label, title = subject.name, period.label, pack.title
        why = Words(
            en=f"{who}, {label}: withdrawn, for {title.en} is not in force for {who} any more at its end; "
            f"the score that was shown, {state.score}, counts nowhere",
            zh=f"{who}，{label}：已撤回：周期结束时{title.zh}对{who}不再适用；此前显示的得分{state.score}不计入任何结果",
        )
        joint = name != pack.name
        self.judge.out.append(sent(Grade(
            id=grade_id(name, subject.level, who, period.window, label), revision=state.revision, status="withdrawn",
            pack=name, pack_version=pack.version, level=_level(subject), subject=who, window=period.window,
            period=label, score=state.score, grade=state.grade, previous_grade=state.grade,
            at=subject.series.calendar.text(now_ms), entries=[], formula="", explanation=why,
            detail=ScoreDetail(about="combined") if joint else None,
        )))  # fmt: skip

    def _scores(
        self, subject: Subject, shares: Mapping[str, Fraction], changed: Pack, period: Period, now_ms: int
    ) -> tuple[dict[str, Fraction], dict[str, Pack], bool]:
        """The scores that are combined, their packs, and whether none of them moves any more in this partition."""
        scores: dict[str, Fraction] = {}
        packs: dict[str, Pack] = {}
        settled = True
        for pack in self.judge.active_packs():
            if pack.name not in shares or not self.judge.judges(
                pack, subject, min(now_ms, period.end_ms) - 1
            ):
                continue
            own = subject.grades.get(result_key(pack.name, period))
            if own is not None and own.revision and own.status != "withdrawn":
                scores[pack.name] = Fraction(own.score)
                packs[pack.name] = pack
            done = own is not None and own.settled
            closing = pack is changed and period.end_ms + pack.grace_ms <= now_ms
            if not done and not closing and not self.judge.is_closed(pack, subject, period, now_ms):
                settled = False
        return scores, packs, settled

    def _leave_out(
        self, subject: Subject, combined: Combined, scores: dict[str, Fraction], packs: Mapping[str, Pack],
        period: Period,
    ) -> list[Words]:  # fmt: skip
        """Put scores without what another pack charges in the place of scores with it; what was left out, in words.

        Only what moved a score is left out of it and told.
        """
        left: dict[str, set[str]] = {}
        notes = []
        counted: dict[str, frozenset[str]] = {}
        for once in combined.once:
            charging, *others = [name for name in once.charged_by if name in scores] or [""]
            for name in sorted(others):
                if name not in counted:
                    counted[name] = self._counted(subject, packs[name], period)
                found = [one for one in once.what[name] if one in counted[name]]
                if not found:
                    continue
                left.setdefault(name, set()).update(found)
                what, are = ", ".join(found), "is" if len(found) == 1 else "are"
                notes.append(Words(
                    en=f"{once.title.en}: charged by {charging}, so {what} of {name} {are} left out",
                    zh=f"{once.title.zh}：由{charging}计扣，{name}的{what}不再计入",
                ))  # fmt: skip
        for name in sorted(left):
            without = self._without(subject, packs[name], period, left[name])
            if without is None:
                del scores[name]
            else:
                scores[name] = without
        return notes

    def _counted(self, subject: Subject, pack: Pack, period: Period) -> frozenset[str]:
        """The items with data and the rules with points that a score is made of; none where the leader decided it."""
        if self.card(pack, "agent", period.window) is None:
            belongs = _belongings(subject.score_entries(pack.name, period.window, period.label))
            return frozenset(rule for rule, several in belongs.items() if sum(one.worth for one in several))
        state = subject.grades[result_key(pack.name, period)]
        if not state.earned:
            return frozenset()
        items = {item for _, item, _, share in state.earned if share is not None}
        return frozenset(items | {rule for rule, points in state.others.items() if Fraction(points)})

    def _without(self, subject: Subject, pack: Pack, period: Period, left: set[str]) -> Fraction | None:
        """A pack's score without these rules and items; None when nothing is left that gives one."""
        state = subject.grades[result_key(pack.name, period)]
        day = subject.series.calendar.day(period.start_ms)
        card = self.card(pack, "agent", period.window)
        if card is None:
            belongs = _belongings(subject.score_entries(pack.name, period.window, period.label))
            worths = [
                entry.worth for rule, several in belongs.items() if rule not in left for entry in several
            ]
            return Fraction(scale_of(self.judge.layout, pack, day).score(sum(worths, Fraction(0)))[0])
        kept = [
            Earned(dimension, item, Fraction(most), None if share is None else Fraction(share))
            for dimension, item, most, share in state.earned
            if item not in left
        ]
        terms = terms_of(self.judge.layout, pack, card, day)
        others = sum(
            (Fraction(points) for rule, points in state.others.items() if rule not in left), Fraction(0)
        )
        worked = cards.work_out(kept, terms.weights, others, terms.bounds, card.step)
        if worked is None:
            return None
        return self._decide(card, terms, worked.score, state, None, [])[1]


# --- items ------------------------------------------------------------------------------------------------------------


def _belongings(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The entries by the rule they belong to: a waiver belongs to the rule of what it takes back."""
    known = list(entries)
    waived = {entry.waived_by: entry.rule for entry in known if entry.waived_by}
    found: dict[str, list[Entry]] = {}
    for entry in sorted(known, key=_id):
        if entry.counts:
            found.setdefault(waived.get(entry.id, entry.rule), []).append(entry)
    return found


def _entries(item: Item, most: Fraction, belongs: Mapping[str, list[Entry]]) -> _Read:
    entries = [entry for rule in item.rules for entry in belongs.get(rule, [])]
    worths = [entry.worth for entry in entries]
    text = f"({number_text(most)} + ({number_text(sum(worths, Fraction(0)))})) / {number_text(most)}, held in 0..1"
    return _Read(
        cards.charged(most, worths), text, entries=[entry.id for entry in entries],
        seen={f"entry:{entry.id}": entry.points for entry in entries}, untouched=not entries,
    )  # fmt: skip


def _said(pack: Pack, item: Item, most: Fraction, day: date, score: int | None, word: str) -> Fraction:
    """The share that somebody's score or word stands for."""
    if word:
        return table_of(pack, item.words, day)[word]
    return cards.inside(Fraction(score or 0, 100) / most, Fraction(0), Fraction(1))


def _assessed(pack: Pack, item: Item, most: Fraction, day: date, sitting: Sitting | None) -> _Read:
    weights = table_of(pack, item.roles, day)
    voices = (
        [one for one in sitting.voices if one.item == item.name and one.role in weights] if sitting else []
    )
    shares: dict[str, list[Fraction]] = {}
    said, pulls = [], []
    spoken = sum((weights[role] for role in {one.role for one in voices}), Fraction(0))
    for one in voices:
        share = _said(pack, item, most, day, one.total, one.word)
        shares.setdefault(one.role, []).append(share)
        named = "" if one.role in UNNAMED else one.by
        said.append(Said(role=one.role, by=named, share=number_text(share), word=one.word))
    for one, entry in zip(voices, said, strict=True):
        share = _said(pack, item, most, day, one.total, one.word)
        pull = weights[one.role] / spoken / len(shares[one.role]) if spoken else Fraction(0)
        pulls.append((one.by, entry.role, 1, share, share * share, pull))
    # Told in an order that does not betray the names.
    said.sort(key=lambda one: (one.role, one.by, one.share, one.word))
    seen = {}
    for role in sorted(shares):
        mean = cards.mean(shares[role])
        assert mean is not None
        seen[f"said:{item.name}:{role}"] = f"{number_text(mean)} of {len(shares[role])}"
    missing = [role for role in item.required if role not in shares]
    fewest = number_of(pack, item.at_least, day) if item.at_least else Fraction(0)
    if missing or len(voices) < fewest:
        why = f"{', '.join(missing)} did not speak" if missing else f"{len(voices)} of {fewest} voices"
        return _Read(None, why, said=said, seen=seen, pulls=pulls, untouched=not voices)
    total = " + ".join(
        f"{number_text(weights[role] / spoken)} * mean({role})" for role in weights if role in shares
    )
    share_ = cards.heard(shares, weights)
    return _Read(share_, total or "nobody spoke", said=said, seen=seen, pulls=pulls, untouched=not voices)


def _evaluated(pack: Pack, item: Item, day: date, sitting: Sitting | None) -> _Read:
    voices = [one for one in sitting.voices if one.role == EVALUATED] if sitting else []
    count = sum(one.count for one in voices)
    fewest = number_of(pack, item.at_least, day) if item.at_least else Fraction(1)
    seen = (
        {f"said:{item.name}:{EVALUATED}": f"{sum(one.total for one in voices)} of {count}"} if count else {}
    )
    if count < fewest:
        return _Read(None, f"{count} of {number_text(fewest)} contacts", seen=seen, untouched=not count)
    scale = 10_000
    total = sum(one.total for one in voices)
    pulls = [
        (one.by, EVALUATED, one.count, Fraction(one.total, scale), Fraction(one.squares, scale**2),
         Fraction(one.count, count))
        for one in voices
    ]  # fmt: skip
    said = [
        Said(
            role=EVALUATED,
            by=one.by,
            share=number_text(Fraction(one.total, scale * one.count)),
            count=one.count,
        )
        for one in voices
    ]
    text = f"{number_text(Fraction(total, 100))} / {count} / 100"
    return _Read(Fraction(total, scale * count), text, said=said, seen=seen, pulls=pulls)


def _periods(subject: Subject, pack: Pack, item: Item, moment: Moment) -> _Read:
    period, calendar = moment.period, moment.calendar
    assert period is not None
    marks = [
        mark
        for mark in subject.marks.get(f"{pack.name}|{item.window}", [])
        if period.start_ms <= calendar.period(item.window, mark.label).start_ms < period.end_ms
    ]
    fewest = number_of(pack, item.at_least, moment.day) if item.at_least else Fraction(1)
    seen = {f"period:{item.name}:{mark.label}": mark.score for mark in marks}
    labels = [mark.label for mark in marks]
    if len(marks) < fewest:
        return _Read(
            None, f"{len(marks)} of {number_text(fewest)} {item.window}s", seen=seen, untouched=not marks
        )
    mean = cards.mean([Fraction(mark.score) for mark in marks])
    assert mean is not None
    text = f"mean({', '.join(mark.score for mark in marks)}) / 100"
    share = cards.inside(mean / cards.FULL, Fraction(0), Fraction(1))
    return _Read(share, text, seen=seen, rests=labels)


def _dimensions(card: Scorecard, terms: Terms, parts: Mapping[str, cards.Line]) -> list[ScoreDimension]:
    found = []
    for one in card.dimensions:
        earned = [parts[item.name].contribution for item in one.items if item.name in parts]
        found.append(
            ScoreDimension(
                name=one.name, clause=one.clause, title=one.title, weight=terms.weight_texts[one.name],
                contribution=number_text(sum(earned, Fraction(0))),
            )
        )  # fmt: skip
    return found


def _lines(
    card: Scorecard, terms: Terms, reads: Mapping[str, _Read], parts: Mapping[str, cards.Line]
) -> list[ScoreLine]:
    return [
        _line(dimension.name, item, terms.most_texts[item.name], reads[item.name], parts.get(item.name))
        for dimension in card.dimensions
        for item in dimension.items
    ]


def _seen(items: _Items, detail: ScoreDetail, state: GradeState, ruling: Ruling | None) -> dict[str, str]:
    """What a revision rests on, by key: what the next one is compared with."""
    seen = items.seen.copy()
    for found, worth in detail.others.items():
        seen[f"entry:{found}"] = worth
    for name in sorted(state.caps):
        seen[f"cap:{name}"] = state.caps[name]
    if ruling is not None:
        said = ruling.grade if ruling.score is None else number_text(Fraction(ruling.score, 100))
        seen["ruling:"] = f"{ruling.event_id}: {said}"
    return seen


def _digests(items: _Items) -> dict[str, int]:
    """The digests of what a card tells of its items."""
    if items.told is None:
        items.told = digests(items.dimensions, items.lines)
    return items.told


def _line(dimension: str, item: Item, most: str, read: _Read, line: cards.Line | None) -> ScoreLine:
    return ScoreLine(
        dimension=dimension, item=item.name, clause=item.clause, title=item.title, most=most,
        share=number_text(read.share) if read.share is not None else None,
        part=number_text(line.part) if line is not None else "0",
        contribution=number_text(line.contribution) if line is not None else "0",
        calculation=read.calculation, value=read.value, unit=read.unit, word=read.word, entries=read.entries,
        said=read.said,
    )  # fmt: skip


def _pulls(reads: Mapping[str, _Read], parts: Mapping[str, cards.Line]) -> list[Pull]:
    found = []
    for name, read in reads.items():
        part = parts[name].part if name in parts and read.share is not None else Fraction(0)
        for by, role, count, total, squares, pull in read.pulls:
            found.append(Pull(by, role, count, str(total), str(squares), str(pull * part)))
    return found


def _rests(card: Scorecard, reads: Mapping[str, _Read], parts: Mapping[str, cards.Line]) -> list[Rest]:
    items = {item.name: item for dimension in card.dimensions for item in dimension.items}
    return [
        Rest(items[name].window, read.rests, str(read.share), str(parts[name].part))
        for name, read in reads.items()
        if read.rests and read.share is not None and name in parts
    ]


# --- shared with the company's stage ----------------------------------------------------------------------------------


def to_company(pack: Pack, level: str, window: str) -> bool:
    """Whether the company's stage has the last word on a pack's results of a level and window."""
    results, main = pack.results, pack.scorecard
    if level == "department":
        return results.ranking is not None and results.ranking.window == window
    if main is None or level != "agent":
        return False
    if results.quota is not None and window == main.window:
        return True
    return _is_calibrated(pack, window)


def _is_calibrated(pack: Pack, window: str) -> bool:
    """Whether a calibration may move the scores of people in a window."""
    if pack.results.calibration is None:
        return False
    own = [card for card in pack.cards if (card.level, card.window) == ("agent", window)]
    kinds = {item.kind for card in own for dimension in card.dimensions for item in dimension.items}
    return bool(kinds & {"assessed", "evaluated", "periods"})


def combined_text(parts: Mapping[str, Fraction], scores: Mapping[str, Fraction], score: Fraction) -> str:
    """The arithmetic of a combined score, in the order of the packs' names."""
    text = " + ".join(f"{number_text(parts[one])} * {number_text(scores[one])}" for one in sorted(parts))
    return f"{text} = {number_text(score)}"


def _by_rule(belongs: Mapping[str, list[Entry]], others: Container[str]) -> dict[str, str]:
    """The points of the entries outside of the items, by the rules that they belong to."""
    return {
        rule: str(sum((entry.worth for entry in several if entry.id in others), Fraction(0)))
        for rule, several in sorted(belongs.items())
        if any(entry.id in others for entry in several)
    }


def _kept(earned: Iterable[Earned]) -> list[tuple[str, str, str, str | None]]:
    """What items earned, as a grade's state keeps it."""
    return [
        (one.dimension, one.item, str(one.most), None if one.share is None else str(one.share))
        for one in earned
    ]


def moves_late(pack: Pack, window: str) -> bool:
    """Whether the company's stage may move people's scores, and not only their grades."""
    main = pack.scorecard
    agreed = pack.results.quota is not None and main is not None and main.window == window and main.agree
    return agreed or _is_calibrated(pack, window)


def _evaluates(card: Scorecard) -> bool:
    return any(item.kind == "evaluated" for dimension in card.dimensions for item in dimension.items)


def mark_key(pack: Pack, period: Period) -> str:
    """Under which a subject keeps the marks of a pack and window."""
    return f"{pack.name}|{period.window}"


def joint_name(pack: Pack) -> str:
    """Under which name the one score of several packs goes out."""
    return pack.name + JOINT


def sent(message: Grade) -> Output:
    """A grade as it goes out."""
    return Output("grades", message.subject.encode(), ENCODER.encode(message))


def _words(seen: Mapping[str, str]) -> dict[str, str]:
    """What people said, and who decided, among what a revision rests on; not the scores of monitored contacts."""
    return {
        name: text
        for name, text in seen.items()
        if name.startswith(("said:", "ruling:")) and not name.endswith(f":{EVALUATED}")
    }


def changes_of(before: Mapping[str, str], after: Mapping[str, str]) -> list[ScoreChange]:
    """What differs between what two revisions rested on, by key."""
    return [
        ScoreChange(what=what, id=found, before=before.get(key, ""), after=after.get(key, ""))
        for key in sorted([key for key in {**before, **after} if before.get(key) != after.get(key)])
        for what, _, found in [key.partition(":")]
    ]


def sentence(name: str, label: str, score: str, grade: str, detail: ScoreDetail) -> Words:
    """A grade in one sentence in both languages, with what moved it and what decided it."""
    kind_en, kind_zh = ("combined score", "综合得分") if detail.about == "combined" else ("score", "得分")
    en, zh = (
        f"{name}, {label}: {kind_en} {score}, grade {grade}",
        f"{name}，{label}：{kind_zh} {score}，等级 {grade}",
    )
    if detail.word is not None:
        en, zh = f"{en} ({detail.word.en})", f"{zh}（{detail.word.zh}）"
    for note in detail.notes:
        en, zh = f"{en}; {note.en}", f"{zh}；{note.zh}"
    if detail.changes:
        moved_en, moved_zh = _what_moved(detail)
        en, zh = f"{en}; moved by {moved_en}", f"{zh}；变动：{moved_zh}"
    return Words(en=en, zh=zh)


def _what_moved(detail: ScoreDetail) -> tuple[str, str]:
    """The first changes: those of items, or where no item moved the others."""
    titles = {line.item: line.title for line in detail.lines}
    moved = [one for one in detail.changes if one.what == "item"] or detail.changes
    en, zh = [], []
    for one in moved[:CHANGES_TOLD]:
        title, change = titles.get(one.id), _moved(one)
        en.append(f"{one.id if title is None else title.en} {change}")
        zh.append(f"{one.id if title is None else title.zh} {change}")
    more = len(moved) - len(en)
    return (
        ", ".join(en) + (f" and {more} more" if more else ""),
        "、".join(zh) + (f"等 {len(moved)} 项" if more else ""),
    )


def _moved(change: ScoreChange) -> str:
    return f"{_short(change.before) or '–'} → {_short(change.after) or '–'}"


def _short(text: str) -> str:
    """An exact number as people read it: the approximation where it does not end."""
    _, found, about = text.partition("(≈ ")
    return about.rstrip(")") if found else text


def tallied(pack: Pack, grade: Grade, marks: Sequence[Mark], calendar: Calendar) -> list[Output]:
    """The proposals that follow from a final grade, and those that follow from it no more.

    ``marks`` are all of the subject; what was proposed is noted in those of the grade's period and the ones after it.
    """
    found = []
    for index, mark in enumerate(marks):
        if mark.label < grade.period:
            continue
        for tally in pack.results.tallies:
            if (tally.level, tally.window) != (grade.level, grade.window):
                continue
            count, labels = cards.counted(marks[: index + 1], tally.grades, tally.within)
            day = calendar.day(calendar.period(grade.window, mark.label).start_ms)
            wanted = number_of(pack, tally.reaches, day)
            holds = bool(count) and (count == wanted or (tally.or_more and count > wanted))
            own = msgspec.structs.replace(grade, period=mark.label, grade=mark.grade)
            decision = _proposed(pack, tally, own, labels, day)
            found += follow(mark, holds, decision, grade)
    return found


def follow(mark: Mark, holds: bool, proposal: Decision, grade: Grade) -> list[Output]:
    """Send a proposal that follows from a mark, or withdraw it; nothing where that was done. ``grade`` is why."""
    sent_before = mark.told.get(proposal.rule, 0)
    if holds == bool(sent_before % 2):
        return []
    mark.told = {**mark.told, proposal.rule: sent_before + 1}
    turn = sent_before // 2
    own_id = proposal.id if not turn else decision_id(proposal.id, "again", str(turn))
    message = msgspec.structs.replace(proposal, id=own_id)
    if not holds:
        message = msgspec.structs.replace(
            message, id=decision_id(own_id, "withdrawn"), kind="waive", reverses=own_id, proposal="", arithmetic=[],
            explanation=Words(
                en=f"Withdrawn, for the grade of {grade.period} is {grade.grade} now: {proposal.explanation.en}",
                zh=f"{grade.period}等级现为{grade.grade}，予以撤回：{proposal.explanation.zh}",
            ),
        )  # fmt: skip
    return [Output("decisions", proposal.subject.encode(), ENCODER.encode(message))]


def _proposed(pack: Pack, tally: Tally, grade: Grade, labels: list[str], day: date) -> Decision:
    count = len(labels)
    frame = {
        "subject": grade.subject, "period": grade.period, "grade": grade.grade, "count": str(count),
        "periods": ", ".join(labels),
    }  # fmt: skip
    en, zh = tally.explanation.en, tally.explanation.zh
    if not en:
        en = tally.title.en + ": {subject}, {period}: grade {grade}, number {count} ({periods})"
        zh = tally.title.zh + "：{subject}，{period}：等级 {grade}，第 {count} 次（{periods}）"
    for name, text in frame.items():
        en, zh = en.replace("{" + name + "}", text), zh.replace("{" + name + "}", text)
    ids = [grade_id(pack.name, grade.level, grade.subject, grade.window, label) for label in labels]
    return Decision(
        id=tally_id(pack, tally, grade.subject, grade.period),
        revision=1, kind="proposal", status="final", pack=pack.name, pack_version=pack.version, rule=tally.id,
        clause=tally.clause, level=grade.level, subject=grade.subject, window=grade.window, period=grade.period,
        incident="", points="0", amount_minor=0, currency=pack.currency, at=grade.at,
        facts={"grade": UsedFact(value=grade.grade), "count": UsedFact(value=str(count), unit="count")},
        parameters={tally.reaches: used_parameter(pack.parameters[tally.reaches], day)}, evidence=ids[-20:],
        evidence_count=count,
        arithmetic=[Step(what="count", calculation=" + ".join("1" for _ in labels), result=str(count))],
        explanation=Words(en=en, zh=zh), owner=tally.owner, proposal=tally.proposal,
    )  # fmt: skip


def tally_id(pack: Pack, tally: Tally, subject: str, label: str) -> str:
    """The id of what a tally proposes for a subject and a period."""
    return decision_id(pack.name, tally.id, "0", tally.level, subject, tally.window, label, "", "")


def _formula(detail: ScoreDetail, score: str) -> str:
    parts = [one.contribution for one in detail.dimensions] + [
        f"({worth})" for worth in detail.others.values()
    ]
    text = f"{' + '.join(parts)} = {detail.exact}"
    return text if detail.exact == score else f"{text}, shown as {score}"


def _level(subject: Subject) -> Level:
    level: Any = subject.level
    return level  # type: ignore[no-any-return]


def number_of(pack: Pack, name: str, day: date) -> Fraction:
    """A parameter's number in force on a day."""
    value = pack.parameters[name].value_at(day)
    assert isinstance(value, Fraction), name
    return value


def table_of(pack: Pack, name: str, day: date) -> dict[str, Fraction]:
    """A parameter's table in force on a day."""
    value = pack.parameters[name].value_at(day)
    assert isinstance(value, dict), name
    return value


def _amount(value: Any) -> Fraction:
    assert isinstance(value, (int, Fraction))
    return Fraction(value)

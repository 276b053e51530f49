"""The company's stage: what can be said about a result only when everybody's is known.

Theory of operation. When a period closes in a partition, the results of packs with a quota, a calibration or a ranking
are proposed in its numbered reports. One partition of the group stage collects them. A period is *complete* when every
partition has reported beyond the moment at which it closed in the last of all time zones; then, and not before, the
steps follow in one order: calibration between assessors, wider cards from their final marks, grades, the quota among
all who are graded, the ranking of departments, the final grades, the tallies; combined scores come after the periods
that they are made of. Everything is done in the order of
names, so the result is the same over one partition or many, and whichever of them was faster.

A result may be proposed once more: its period is open again, or an appeal against it was right. Then the same steps are
gone through with what everybody else had, for which the proposals of decided periods are kept as long as a period can
be opened again, and again for the wider periods that were made of the changed marks. Whose score and grade come to
the same hears nothing. Whoever was told the best grade keeps it then while their own score earns it, although the
places go to others now (unless the pack's quota says otherwise): those who are beyond the quota are named, and hear it
once. Tasks that were given to assessors stay; what follows from a grade is withdrawn with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

import msgspec

from kaohe.core import scorecard as cards
from kaohe.core.calendars import DAY_MS, WINDOWS, Calendar, Period, bounds_of, calendar
from kaohe.core.facts import number_text, used_parameter
from kaohe.core.grading import (
    JOINT,
    JOINT_STEP,
    Proposal,
    changes_of,
    combined_text,
    follow,
    number_of,
    sent,
    sentence,
    table_of,
    tallied,
)
from kaohe.core.model import Calibration, Pack, Quota, Ranking, Scorecard
from kaohe.core.records import Output
from kaohe.core.scorecard import Calibrated, Candidate, Given, Mark
from kaohe.core.subjects import MAX_MARKS, SEPARATOR, with_mark
from kaohe.decisions import ENCODER, Decision, Grade, ScoreDetail, Step, UsedFact, Words, decision_id
from kaohe.errors import StateError

MAX_WAITING = 1_000_000
"""Results that may wait for the rest of the company."""
MAX_MARKED = 1_000_000
"""Subjects, packs and windows whose final results are remembered; beyond it the one graded longest ago is forgotten."""
MAX_DECIDED = 200_000
"""Results that are kept for being decided again; beyond it those of the oldest period are forgotten."""
KEPT_MS = 60 * DAY_MS
"""How long after its close a period's results are kept: longer than it can be opened again."""

Group = tuple[str, str, str, str]
"""Pack, level, window and period."""


class StoredMarks(msgspec.Struct, array_like=True):
    """The final results of one subject under one pack and window, as stored."""

    marks: list[Mark]


class Decided(msgspec.Struct, array_like=True):
    """A result as it was proposed last, and what became of it; ``beyond``: it is kept beyond the quota."""

    proposal: Proposal
    score: str
    grade: str
    revision: int
    beyond: bool = False


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECIDED_DECODER = msgspec.msgpack.Decoder(Decided)
_PROPOSAL_DECODER = msgspec.msgpack.Decoder(Proposal)
_MARKS_DECODER = msgspec.msgpack.Decoder(StoredMarks)


class Company:
    """The proposals of periods that are not complete yet, and the final marks of everybody."""

    def __init__(self, packs: Iterable[Pack], zones: Iterable[str]) -> None:
        self.packs = {pack.key: pack for pack in packs}
        self.calendars = [calendar(zone) for zone in sorted(set(zones))]
        self.waiting: dict[Group, dict[str, Proposal]] = {}
        self.count = 0
        self.decided: dict[Group, dict[str, Decided]] = {}
        self.marks: dict[tuple[str, str, str, str], list[Mark]] = {}
        self._changed: dict[str, bytes | None] = {}

    def take(self, proposals: Iterable[Proposal]) -> None:
        """Remember what a partition proposed. StateError when far too much waits."""
        for proposal in proposals:
            if self.count >= MAX_WAITING:
                raise StateError(
                    f"{MAX_WAITING} results wait for the rest of the company; is a partition missing?"
                )
            grade = proposal.grade
            group = (grade.pack, grade.level, grade.window, grade.period)
            own = self.waiting.setdefault(group, {})
            self.count += grade.subject not in own
            own[grade.subject] = proposal
            self._changed[_waiting_key(group, grade.subject)] = _ENCODER.encode(proposal)

    def complete(self, upto_ms: int) -> list[Output]:
        """The final grades of every period that is complete when all partitions have reported up to ``upto_ms``."""
        if not self.waiting:
            return []
        done = sorted(
            (ready_ms, WINDOWS.index(group[2]), group[0].endswith(JOINT), group)
            for group, own in self.waiting.items()
            if (ready_ms := max(self.closed_ms(group), *(one.amended_ms for one in own.values()))) < upto_ms
        )
        out: list[Output] = []
        for ready_ms, _, joint, group in done:
            proposals = self.waiting.pop(group)
            self.count -= len(proposals)
            for subject in proposals:
                self._forget(_waiting_key(group, subject))
            decide = self._join if joint else self._decide
            out += decide(group, proposals, ready_ms)
        if done:
            self._expire(upto_ms)
        return out

    def _expire(self, now_ms: int) -> None:
        """Forget results that cannot change any more, and the oldest ones where there are too many."""
        left = sum(len(own) for own in self.decided.values())
        for closed_ms, group in sorted((self.closed_ms(group), group) for group in self.decided):
            if closed_ms + KEPT_MS > now_ms and left <= MAX_DECIDED:
                return
            own = self.decided.pop(group)
            left -= len(own)
            for subject in own:
                self._forget(_decided_key(group, subject))

    def closed_ms(self, group: Group) -> int:
        """When a period is closed in every time zone, by the longest grace of any version of the pack.

        A combined score is closed when all that it is made of is.
        """
        names = self._combined(group[0].removesuffix(JOINT)) if group[0].endswith(JOINT) else {group[0]}
        grace_ms = max(pack.grace_ms for pack in self.packs.values() if pack.name in names)
        return max(one.period(group[2], group[3]).end_ms for one in self.calendars) + grace_ms

    def _combined(self, owner: str) -> set[str]:
        """The packs of which a combined score is made, by any version of its pack."""
        found = {owner}
        for pack in self.packs.values():
            combined = pack.results.combined
            if pack.name == owner and combined is not None:
                for _, table in pack.parameters[combined.shares].values:
                    found |= table.keys() if isinstance(table, dict) else set()
        return found

    def _decide(self, group: Group, fresh: Mapping[str, Proposal], at_ms: int) -> list[Output]:
        known = self.decided.setdefault(group, {})
        proposals = {name: one.proposal for name, one in known.items()} | dict(fresh)
        if not proposals:
            return []
        pack, kept = self._ruling(proposals)
        period = kept.period(group[2], group[3])
        again = bool(known)
        step = _Step(pack, group, period, kept, kept.text(at_ms), self, known)
        out = step.run(proposals)
        self._remember(group, step.finals)
        if again and step.moved:
            for wider in self._made_of(pack, group):
                out += self._decide(wider, {}, at_ms)
            for joint in sorted(self.decided):
                if joint[0].endswith(JOINT) and joint[1:] == group[1:]:
                    out += self._join(joint, {}, at_ms)
        return out

    def _remember(self, group: Group, finals: Mapping[str, Decided]) -> None:
        for name in sorted(finals):
            self.decided[group][name] = finals[name]
            self._changed[_decided_key(group, name)] = _ENCODER.encode(finals[name])

    def _ruling(self, proposals: Mapping[str, Proposal]) -> tuple[Pack, Calendar]:
        """The newest version of the pack that proposes, and the calendar it keeps."""
        keys = {
            f"{one.grade.pack.removesuffix(JOINT)}@{one.grade.pack_version}" for one in proposals.values()
        }
        pack = max((self.packs[key] for key in keys if key in self.packs), key=lambda one: one.in_force_from)
        kept = self.calendars[0]
        for one in self.calendars:
            kept = one if one.name == pack.zone else kept
        return pack, kept

    def _join(self, group: Group, fresh: Mapping[str, Proposal], at_ms: int) -> list[Output]:
        """The final combined scores: of packs whose scores moved here the final ones count."""
        known = self.decided.setdefault(group, {})
        proposals = {name: one.proposal for name, one in known.items()} | dict(fresh)
        if not proposals:
            return []
        owner, kept = self._ruling(proposals)
        combined = owner.results.combined
        assert combined is not None, owner.key
        bands = table_of(owner, combined.bands, kept.day(kept.period(group[2], group[3]).start_ms))
        out, finals = [], {}
        for name in sorted(proposals):
            before = known.get(name)
            found = self._joined(proposals[name], bands, kept.text(at_ms))
            if before is not None and (before.score, before.grade) == (found.score, found.grade):
                finals[name] = Decided(proposals[name], before.score, before.grade, before.revision)
                continue
            if before is not None:
                revision = max(found.revision, before.revision + 1)
                found = msgspec.structs.replace(found, revision=revision, previous_grade=before.grade)
            finals[name] = Decided(proposals[name], found.score, found.grade, found.revision)
            out.append(sent(found))
        self._remember(group, finals)
        return out

    def _joined(self, proposal: Proposal, bands: Mapping[str, Fraction], at: str) -> Grade:
        before = proposal.grade
        detail = before.detail or ScoreDetail()
        scores = {part.pack: Fraction(part.score) for part in proposal.parts}
        seen = {f"pack:{name}": number_text(score) for name, score in scores.items()}
        for part in proposal.parts:
            if part.late:
                marks = self.marks.get((part.pack, before.level, before.window, before.subject), [])
                final = [mark.score for mark in marks if mark.label == before.period]
                scores[part.pack] = Fraction(final[-1]) if final else scores[part.pack]
        found = cards.combine(scores, {part.pack: Fraction(part.share) for part in proposal.parts})
        assert found is not None, "what was proposed has shares"
        exact, parts = found
        score = cards.rounded(exact, JOINT_STEP)
        grade = cards.grade_of(score, bands)
        changes = changes_of(seen, {f"pack:{name}": number_text(score) for name, score in scores.items()})
        detail = msgspec.structs.replace(detail, exact=number_text(exact), changes=changes)
        return msgspec.structs.replace(
            before, revision=before.revision + 1, status="final", score=number_text(score), grade=grade,
            previous_grade=before.grade, at=at, formula=combined_text(parts, scores, score), detail=detail,
            explanation=sentence(before.subject, before.period, number_text(score), grade, detail),
        )  # fmt: skip

    def _made_of(self, pack: Pack, group: Group) -> list[Group]:
        """The decided wider periods whose scores rest on the marks of this one, the nearest first."""
        first = bounds_of(group[2], group[3])[0]
        found = []
        for other in self.decided:
            card = next((one for one in pack.cards if (one.level, one.window) == other[1:3]), None)
            if other[:2] != group[:2] or card is None:
                continue
            rests = {item.window for dimension in card.dimensions for item in dimension.items}
            start, end = bounds_of(other[2], other[3])
            if group[2] in rests and start <= first < end:
                found.append(other)
        return sorted(found, key=lambda one: (WINDOWS.index(one[2]), one))

    def mark(self, grade: Grade) -> list[Mark]:
        """Keep a final result; all marks of the subject. ``store`` follows, when what it leads to was noted in them."""
        key = (grade.pack, grade.level, grade.window, grade.subject)
        if key not in self.marks and len(self.marks) >= MAX_MARKED:
            oldest = min(self.marks, key=lambda one: (self.marks[one][-1].label, one))
            del self.marks[oldest]
            self._forget(SEPARATOR.join(("m", *oldest)))
        mark = Mark(grade.period, grade.score, grade.grade)
        found = self.marks[key] = with_mark(self.marks.get(key, []), mark)[-MAX_MARKS:]
        return found

    def store(self, grade: Grade) -> None:
        """Let the marks of a grade's subject be stored."""
        key = (grade.pack, grade.level, grade.window, grade.subject)
        self._changed[SEPARATOR.join(("m", *key))] = _ENCODER.encode(StoredMarks(self.marks[key]))

    # --- stored form --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key; None for what is gone."""
        changed, self._changed = self._changed, {}
        return changed

    def _forget(self, key: str) -> None:
        self._changed[key] = None

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Take over a stored state."""
        for key in sorted(items):
            kind, *parts = key.split(SEPARATOR)
            if kind == "w":
                proposal = _PROPOSAL_DECODER.decode(items[key])
                group = (parts[0], parts[1], parts[2], parts[3])
                self.waiting.setdefault(group, {})[proposal.grade.subject] = proposal
                self.count += 1
            elif kind == "k":
                group = (parts[0], parts[1], parts[2], parts[3])
                self.decided.setdefault(group, {})[parts[4]] = _DECIDED_DECODER.decode(items[key])
            elif kind == "m":
                self.marks[parts[0], parts[1], parts[2], parts[3]] = _MARKS_DECODER.decode(items[key]).marks


def _waiting_key(group: Group, subject: str) -> str:
    return SEPARATOR.join(("w", *group, subject))


def _decided_key(group: Group, subject: str) -> str:
    return SEPARATOR.join(("k", *group, subject))


class _Step:
    """The deciding of one complete period of one pack; ``known`` is what was decided about it before."""

    def __init__(
        self, pack: Pack, group: Group, period: Period, calendar: Calendar, at: str, company: Company,
        known: Mapping[str, Decided],
    ) -> None:  # fmt: skip
        self.known = known
        self.finals: dict[str, Decided] = {}
        self.moved = False
        self.beyond: set[str] = set()
        self.pack = pack
        self.level, self.window, self.label = group[1:]
        self.period = period
        self.calendar = calendar
        self.day = calendar.day(period.start_ms)
        self.at = at
        self.company = company
        self.card: Scorecard | None = next(
            (one for one in pack.cards if (one.level, one.window) == (self.level, self.window)), None
        )
        main = pack.scorecard
        assert main is not None
        self.rules = self.card or main
        self.bands = table_of(pack, self.rules.bands, self.day)
        self.bounds = tuple(number_of(pack, one, self.day) for one in (self.rules.lowest, self.rules.highest))
        self.is_main = (self.level, self.window) == (main.level, main.window)
        self.out: list[Output] = []

    def run(self, proposals: Mapping[str, Proposal]) -> list[Output]:
        """All steps in their order; the outputs."""
        shifts = self._calibrate(proposals)
        grades: dict[str, Grade] = {}
        for name in sorted(proposals):
            grades[name] = self._rescored(proposals[name], shifts)
        quota = self.pack.results.quota
        if quota is not None and self.is_main:
            self._share_out(quota, proposals, grades)
        ranking = self.pack.results.ranking
        ranks = ranking is not None and (self.level, self.window) == ("department", ranking.window)
        if ranking is not None and ranks and grades:
            self._rank(grades)
        for name in sorted(grades):
            self._finish(proposals[name], grades[name])
        if ranking is not None and ranks and grades:
            self._reward(ranking, grades)
        return self.out

    # --- calibration

    def _calibrate(self, proposals: Mapping[str, Proposal]) -> dict[str, Calibrated]:
        calibration = self.pack.results.calibration
        if calibration is None or self.level != "agent":
            return {}
        found = self._compared(calibration, proposals)
        before = self._compared(calibration, {name: one.proposal for name, one in self.known.items()})
        for by in sorted(found):
            if found[by].beyond and not (by in before and before[by].beyond):
                self.out.append(self._told(calibration, found[by]))
        return found

    def _compared(
        self, calibration: Calibration, proposals: Mapping[str, Proposal]
    ) -> dict[str, Calibrated]:  # fmt: skip
        given = [
            Given(pull.by, pull.count, Fraction(pull.total), Fraction(pull.squares))
            for name in sorted(proposals)
            for pull in proposals[name].pulls
            if pull.role in calibration.roles
        ]
        numbers = [
            number_of(self.pack, one, self.day)
            for one in (calibration.at_least, calibration.tolerance, calibration.strength, calibration.limit)
        ]
        return cards.calibrate(given, int(numbers[0]), *numbers[1:])

    def _told(self, calibration: Calibration, found: Calibrated) -> Output:
        """The task that follows from an assessor whose mean lies too far from the others'."""
        assert found.others_mean is not None
        assert found.others_spread is not None
        own, others = _per_cent(found.mean), _per_cent(found.others_mean)
        facts = {
            "mean": UsedFact(value=number_text(found.mean), unit="ratio"),
            "spread": UsedFact(value=number_text(found.spread), unit="ratio"),
            "others_mean": UsedFact(value=number_text(found.others_mean), unit="ratio"),
            "others_spread": UsedFact(value=number_text(found.others_spread), unit="ratio"),
            "assessments": UsedFact(value=str(found.count), unit="count"),
        }
        names = (calibration.at_least, calibration.tolerance, calibration.strength, calibration.limit)
        about_en = (
            f"{calibration.title.en}: {found.by} gave {own} on average in {found.count} assessments of {self.label} "
            f"(spread {_per_cent(found.spread)}), the others {others} (spread {_per_cent(found.others_spread)})"
        )
        about_zh = (
            f"{calibration.title.zh}：{found.by} 在 {self.label} 的 {found.count} 次评分平均 {own}"
            f"（离散 {_per_cent(found.spread)}），其他评分人 {others}（离散 {_per_cent(found.others_spread)}）"
        )
        decision = Decision(
            id=decision_id(self.pack.name, calibration.id, "0", "agent", found.by, self.window, self.label, "", ""),
            revision=1, kind="task", status="final", pack=self.pack.name, pack_version=self.pack.version,
            rule=calibration.id, clause=calibration.clause, level="agent", subject=found.by, window=self.window,
            period=self.label, incident="", points="0", amount_minor=0, currency=self.pack.currency, at=self.at,
            facts=facts, parameters={one: used_parameter(self.pack.parameters[one], self.day) for one in names},
            evidence=[], evidence_count=found.count,
            arithmetic=[Step(
                what="difference", calculation=f"{number_text(found.mean)} - {number_text(found.others_mean)}",
                result=number_text(found.mean - found.others_mean),
            )],
            explanation=Words(en=about_en, zh=about_zh), owner=calibration.owner,
            due_at=self.calendar.text(self.company.closed_ms(self._group()) + calibration.due_ms),
            proposal=calibration.task.en,
        )  # fmt: skip
        return Output("decisions", found.by.encode(), ENCODER.encode(decision))

    def _group(self) -> Group:
        return self.pack.name, self.level, self.window, self.label

    def _rescored(self, proposal: Proposal, shifts: Mapping[str, Calibrated]) -> Grade:
        """The result after calibration and from the final marks of its periods."""
        grade, calibration = proposal.grade, self.pack.results.calibration
        if proposal.ruled or self.card is None or grade.detail is None:
            return grade
        moved = Fraction(0)
        notes: list[Words] = []
        for pull in proposal.pulls:
            if calibration is not None and pull.role in calibration.roles and pull.by in shifts:
                moved += Fraction(pull.pull) * shifts[pull.by].shift
        if moved:
            text = f"{'+' if moved > 0 else ''}{number_text(cards.rounded(moved, self.card.step))}"
            notes.append(Words(en=f"calibrated between assessors by {text}", zh=f"评分人校准 {text}"))
        rested = self._rested(proposal)
        if rested:
            text = f"{'+' if rested > 0 else ''}{number_text(cards.rounded(rested, self.card.step))}"
            notes.append(Words(en=f"final results of its periods: {text}", zh=f"按各期最终结果调整 {text}"))
        if not moved + rested:
            return grade
        exact = Fraction(grade.detail.exact.partition(" ")[0]) + moved + rested
        low, high = self.bounds
        score = cards.inside(cards.rounded(exact, self.card.step), low, high)
        reached = cards.grade_of(score, self.bands, proposal.caps)
        if self.card.agree and reached != cards.grade_of(score, self.bands):
            score = cards.held_in_band(score, reached, self.bands, self.card.step, (low, high))
        return self._changed(grade, score, reached, notes, number_text(exact))

    def _rested(self, proposal: Proposal) -> Fraction:
        """What the score moves when the marks that it was made of became final with another score."""
        moved = Fraction(0)
        grade = proposal.grade
        for rest in proposal.rests:
            known = {
                mark.label: Fraction(mark.score)
                for mark in self.company.marks.get((grade.pack, grade.level, rest.window, grade.subject), [])
            }
            if all(label in known for label in rest.labels):
                mean = cards.mean([known[label] for label in rest.labels])
                assert mean is not None
                share = cards.inside(mean / cards.FULL, Fraction(0), Fraction(1))
                moved += Fraction(rest.pull) * (share - Fraction(rest.share))
        return moved

    def _changed(
        self, grade: Grade, score: Fraction, reached: str, notes: Iterable[Words], exact: str = ""
    ) -> Grade:  # fmt: skip
        detail = grade.detail or ScoreDetail()
        detail = msgspec.structs.replace(
            detail, notes=[*detail.notes, *notes], exact=exact or detail.exact, word=self.rules.words.get(reached)
        )  # fmt: skip
        formula = grade.formula
        if exact or number_text(score) != grade.score:
            formula = f"{formula}; {'; '.join(note.en for note in notes)}: {number_text(score)}"
        return msgspec.structs.replace(
            grade, score=number_text(score), grade=reached, detail=detail, formula=formula
        )

    # --- quota and ranking

    def _share_out(self, quota: Quota, proposals: Mapping[str, Proposal], grades: dict[str, Grade]) -> None:
        """Let only as many keep the best grade as the quota allows."""
        candidates = [self._candidate(quota, proposals[name], grades[name]) for name in sorted(grades)]
        share = number_of(self.pack, quota.share, self.day)
        per_department = int(number_of(self.pack, quota.per_department, self.day))
        verdicts = cards.shared_out(candidates, share, per_department, (self.pack.name, self.label))
        second = cards.ranked(self.bands)[1] if len(self.bands) > 1 else quota.grade
        room = cards.places(len(candidates), share)
        if quota.after_told == "keep":
            told = {name for name, one in self.known.items() if one.grade == quota.grade}
            self.beyond = {name for name in told & verdicts.keys() if not verdicts[name].kept}
        for name, verdict in verdicts.items():
            grade = grades[name]
            frame_en = (
                f"rank {verdict.rank} of {len(verdicts)} for {room} places among {len(candidates)} people"
            )
            frame_zh = f"{len(verdicts)} 人中第 {verdict.rank} 名，{len(candidates)} 人共 {room} 个名额"
            if verdict.kept:
                note = Words(en=f"keeps {quota.grade}: {frame_en}", zh=f"保留 {quota.grade}：{frame_zh}")
                notes = [note, *self._exceeded(quota)]
                grades[name] = self._changed(grade, Fraction(grade.score), quota.grade, notes)
                continue
            if name in self.beyond:
                note = Words(
                    en=f"keeps {quota.grade} beyond the quota ({quota.clause}), for it was told before the places were "
                    f"given out again: {frame_en}",
                    zh=f"名额重新分配前已告知 {quota.grade}，超出比例予以保留（{quota.clause}）：{frame_zh}",
                )
                grades[name] = self._changed(grade, Fraction(grade.score), quota.grade, [note])
                continue
            department = (grade.detail.department if grade.detail is not None else "") or "–"
            why_en, why_zh = "", ""
            if verdict.against == "department":
                why_en = f", {per_department} in the department {department} have one already"
                why_zh = f"，{department} 部门已有 {per_department} 人"
            note = Words(
                en=f"{quota.grade} by the score, {second} by the quota ({quota.clause}): {frame_en}{why_en}",
                zh=f"按得分为 {quota.grade}，按比例限制为 {second}（{quota.clause}）：{frame_zh}{why_zh}",
            )
            score = Fraction(grade.score)
            if self.rules.agree:
                low, high = self.bounds
                score = cards.held_in_band(score, second, self.bands, self.rules.step, (low, high))
            grades[name] = self._changed(grade, score, second, [note])

    def _exceeded(self, quota: Quota) -> list[Words]:
        """By how many the quota is exceeded, and who they are; nothing where it holds."""
        if not self.beyond:
            return []
        names, count = ", ".join(sorted(self.beyond)), len(self.beyond)
        return [
            Words(
                en=f"the quota ({quota.clause}) is exceeded by {count}: {names} had been told {quota.grade} before the "
                "places were given out again",
                zh=f"名额（{quota.clause}）超出 {count} 人：{names} 在重新分配前已获告知 {quota.grade}",
            )
        ]

    def _candidate(self, quota: Quota, proposal: Proposal, grade: Grade) -> Candidate:
        detail = grade.detail or ScoreDetail()
        keys: list[Fraction] = []
        for key in quota.tie_break:
            if key == "score":
                keys.append(Fraction(grade.score))
            elif key == "previous":
                keys.append(Fraction(proposal.previous) if proposal.previous else Fraction(-1))
            elif key == "seniority":
                keys.append(-Fraction(int(proposal.hired_on.replace("-", "") or 99_999_999)))
            else:
                wanted = key.partition(":")[2]
                own = next((one.contribution for one in detail.dimensions if one.name == wanted), "0")
                keys.append(Fraction(own.partition(" ")[0]))
        return Candidate(grade.subject, detail.department, grade.grade == quota.grade, tuple(keys))

    def _rank(self, grades: dict[str, Grade]) -> None:
        """Rank the departments."""
        order = sorted(grades, key=lambda name: (-Fraction(grades[name].score), name))
        for name in order:
            grade = grades[name]
            rank = 1 + sum(Fraction(grades[other].score) > Fraction(grade.score) for other in order)
            note = Words(
                en=f"rank {rank} of {len(order)} departments", zh=f"{len(order)} 个部门中第 {rank} 名"
            )
            grades[name] = self._changed(grade, Fraction(grade.score), grade.grade, [note])

    def _reward(self, ranking: Ranking, grades: Mapping[str, Grade]) -> None:
        """Propose the best department (with equal scores: each of them) for its reward, and no other one any more."""
        best = max(Fraction(grade.score) for grade in grades.values())
        for name in sorted(grades):
            grade = grades[name]
            key = (grade.pack, grade.level, grade.window, name)
            mark = next(one for one in self.company.marks[key] if one.label == self.label)
            proposal = self._rewarded(ranking, grade, len(grades))
            found = follow(mark, Fraction(grade.score) == best, proposal, grade)
            self.out += found
            if found:
                self.company.store(grade)

    def _rewarded(self, ranking: Ranking, grade: Grade, count: int) -> Decision:
        return Decision(
            id=decision_id(
                self.pack.name, ranking.id, "0", "department", grade.subject, self.window, self.label, "", ""
            ),
            revision=1, kind="proposal", status="final", pack=self.pack.name, pack_version=self.pack.version,
            rule=ranking.id, clause=ranking.clause, level="department", subject=grade.subject, window=self.window,
            period=self.label, incident="", points="0", amount_minor=0, currency=self.pack.currency, at=self.at,
            facts={"score": UsedFact(value=grade.score, unit="score"), "rank": UsedFact(value="1", unit="count"),
                   "departments": UsedFact(value=str(count), unit="count")},
            parameters={}, evidence=[grade.id], evidence_count=1, arithmetic=[],
            explanation=Words(
                en=f"{ranking.title.en}: {grade.subject} has the best score of {count} departments in {self.label} "
                   f"({grade.score})",
                zh=f"{ranking.title.zh}：{grade.subject} 在 {self.label} 的 {count} 个部门中得分最高（{grade.score}）",
            ),
            owner=ranking.owner, proposal=ranking.best,
        )  # fmt: skip

    # --- the end

    def _finish(self, proposal: Proposal, grade: Grade) -> None:
        before, known = proposal.grade, self.known.get(grade.subject)
        was_score, was_grade, revision = before.score, before.grade, before.revision
        if known is not None:
            was_score, was_grade = known.score, known.grade
            revision = max(revision, known.revision)
            beyond = grade.subject in self.beyond
            self.finals[grade.subject] = Decided(proposal, was_score, was_grade, known.revision, beyond)
            if (grade.score, grade.grade) == (was_score, was_grade) and beyond <= known.beyond:
                return
        self.moved = True
        self.finals[grade.subject] = Decided(
            proposal, grade.score, grade.grade, revision + 1, grade.subject in self.beyond
        )
        seen = {"score:": was_score, "grade:": was_grade}
        changes = changes_of(seen, {"score:": grade.score, "grade:": grade.grade})
        detail = msgspec.structs.replace(grade.detail or ScoreDetail(), changes=changes)
        final = msgspec.structs.replace(
            grade, revision=revision + 1, status="final", previous_grade=was_grade, at=self.at, detail=detail,
            explanation=sentence(grade.subject, grade.period, grade.score, grade.grade, detail),
        )  # fmt: skip
        self.out.append(sent(final))
        marks = self.company.mark(final)
        self.out += tallied(self.pack, final, marks, self.calendar)
        self.company.store(final)


def _per_cent(value: Fraction) -> str:
    return f"{number_text(round(100 * value, 2))}%"

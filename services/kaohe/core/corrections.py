"""Taking back: what was charged, and turns out to be excused, wrong or met after all.

Theory of operation. Nothing that was charged is erased. An entry is taken back by one of its own that names it; both
stay in the ledger, and the grade follows. Four things do so: an exemption (``waive``), an appeal that was upheld
(``correct``; what remains of an entry is charged anew by its own rule, and a result becomes what was decided), an
exemption that came before its incident was known (``excuse``), and a deadline that was met after all (``take_back``).
What is taken back of a closed period stands in the running one and names the closed one.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import msgspec

from kaohe.core import messages
from kaohe.core.calendars import Period
from kaohe.core.effects import Worked
from kaohe.core.facts import Moment, fact_text, number_text, reader
from kaohe.core.model import Effect, Pack, Rule
from kaohe.core.rulesets import RuleSet
from kaohe.core.subjects import MAX_WAIVERS, Cause, Entry, Ruling, Sitting, Subject, Waiver
from kaohe.decisions import Step, decision_id, grade_id
from kaohe.events import PAYLOADS

if TYPE_CHECKING:
    from kaohe.core.judge import Judge


def take_back(
    judge: Judge, subject: Subject, rules: RuleSet, moment: Moment, cause: Cause, now_ms: int
) -> None:
    """A deadline was met after all (the event came late): what its miss had charged is reversed."""
    own = {rule.id: rule for rule in rules.rules}
    for entry in _reversible(subject, rules.pack):
        if entry.rule in own and entry.incident == cause.incident:
            reverse(judge, subject, rules.pack, own[entry.rule], entry.effect, moment, cause, entry, now_ms)
    capped = {f"{rule}|{cause.incident}" for rule in own}
    for key in sorted(subject.grades):
        pack_name, window, label = key.split("|")
        if pack_name == rules.pack.name and capped & subject.grades[key].caps.keys():
            period = subject.series.calendar.period(window, label)
            for rule in rules.rules:
                for effect in rule.effects:
                    if effect.kind == "grade":
                        judge.cap(subject, rules.pack, rule, effect, period, False, cause.incident)
            judge.grade(subject, rules.pack, period, now_ms, "provisional")


def waive(
    judge: Judge,
    subject: Subject,
    pack: Pack,
    rule: Rule,
    index: int,
    moment: Moment,
    cause: Cause,
    now_ms: int,
) -> None:
    """Take back what an exemption excuses, and remember it for what it excuses in advance."""
    effect = rule.effects[index]
    wanted = fact_text(reader(judge.layout, pack, effect.incident)(moment))
    if not wanted:
        return
    for entry in _reversible(subject, pack):
        if entry.rule in effect.waives and wanted in (entry.incident, entry.id):
            reverse(judge, subject, pack, rule, index, moment, cause, entry, now_ms)
    if rule.trigger == "event":
        _remember_waiver(judge, subject, pack, rule, index, wanted, moment, cause)


def _remember_waiver(
    judge: Judge,
    subject: Subject,
    pack: Pack,
    rule: Rule,
    index: int,
    incident: str,
    moment: Moment,
    cause: Cause,
) -> None:
    """Keep in mind what takes entries of an incident back, for those that are yet to come."""
    waiver = Waiver(
        pack.name, rule.id, index, incident, rule.on, cause.evidence[0], moment.at_ms,
        msgspec.json.encode(moment.event),
    )  # fmt: skip
    subject.waivers = [*subject.waivers, waiver][-MAX_WAIVERS:]
    judge.touched.add(subject.key)


def correct(
    judge: Judge,
    subject: Subject,
    pack: Pack,
    rule: Rule,
    index: int,
    moment: Moment,
    cause: Cause,
    now_ms: int,
) -> None:
    """Take back what an appeal was upheld against, and let a result become what was decided.

    What is charged anew for the same incident stays taken back.
    """
    for wanted in moment.event.reversals:
        entry = subject.entries.get(wanted)
        if (
            entry is not None
            and entry.pack == pack.name
            and not entry.waived_by
            and entry.kind not in ("waive", "alert")
        ):
            waiver = reverse(judge, subject, pack, rule, index, moment, cause, entry, now_ms)
            if moment.event.remains is not None:
                _charge_rest(judge, subject, pack, rule, index, moment, cause, entry, waiver, now_ms)
            elif entry.incident:
                _remember_waiver(judge, subject, pack, rule, index, entry.incident, moment, cause)
    told = moment.event
    if told.score is not None or told.grade:
        _rule_on(judge, subject, pack, moment, cause, now_ms)


def _rule_on(
    judge: Judge, subject: Subject, pack: Pack, moment: Moment, cause: Cause, now_ms: int
) -> None:  # fmt: skip
    """The final word on a result that an appeal was right about: a further final revision of it."""
    told = moment.event
    for key in sorted(subject.grades):
        name, window, label = key.split("|")
        if grade_id(name, subject.level, subject.name, window, label) != told.against:
            continue
        ruling = Ruling("", moment.at_ms, cause.evidence[0], told.by, told.score, told.grade, told.reason)
        sitting = subject.sittings.setdefault(key, Sitting())
        sitting.rulings = sorted([*sitting.rulings, ruling])
        judge.touched.add(subject.key)
        judge.regrade_closed(subject, pack, subject.series.calendar.period(window, label), now_ms)
        return


def _charge_rest(
    judge: Judge, subject: Subject, pack: Pack, rule: Rule, index: int, moment: Moment, cause: Cause, entry: Entry,
    waiver: Entry, now_ms: int,
) -> None:  # fmt: skip
    """What remains of an entry that was taken back in part: an entry of its own, by the rule that charged it."""
    rest = Fraction(moment.event.remains, 100)
    points = rest if entry.worth > 0 else -rest
    found = decision_id(
        pack.name, entry.rule, str(entry.effect), subject.level, subject.name, "remains", entry.id
    )
    given = Step(
        "points",
        f"{entry.points} of {entry.id} - ({number_text(entry.worth - points)})",
        number_text(points),
    )
    remaining = msgspec.structs.replace(
        entry, id=found, kind="deduct" if points < 0 else "award", window=waiver.window, label=waiver.label,
        adjusts=waiver.adjusts, points=number_text(points), revision=1, waived_by="", at_ms=waiver.at_ms,
    )  # fmt: skip
    judge.put(subject, remaining)
    worked = Worked(points, lambda: (given,))
    judge.out.append(
        messages.remaining(
            judge.layout,
            subject,
            pack,
            (rule, index),
            remaining,
            moment,
            worked,
            cause.evidence,
            judge.money_of(subject, pack, remaining, remaining),
        )
    )
    judge.count_decision((pack.name, entry.rule, remaining.kind, "final"))
    period = subject.series.calendar.period(waiver.window, waiver.label)
    judge.grade(subject, pack, period, now_ms, "provisional")


def excuse(
    judge: Judge, subject: Subject, pack: Pack, charging: Rule, index: int, period: Period, cause: Cause,
    adjusts: str, now_ms: int,
) -> None:  # fmt: skip
    """Take a new entry back at once if an exemption was granted before its incident was known."""
    found = decision_id(pack.name, charging.id, str(index), subject.level, subject.name, period.window,
                        period.label, cause.incident, adjusts, *cause.parts)  # fmt: skip
    rules = {rule.id: rule for rule in pack.rules}
    for waiver in subject.waivers:
        rule = rules.get(waiver.rule)
        if waiver.pack != pack.name or waiver.incident not in (cause.incident, found) or rule is None:
            continue
        effect = rule.effects[waiver.effect] if waiver.effect < len(rule.effects) else None
        if effect is None or subject.entries[found].waived_by:
            continue
        event = msgspec.json.decode(waiver.data, type=PAYLOADS[waiver.event_type])
        if charging.id not in effect.waives and not _reversed(subject, charging, effect, event):
            continue
        day = subject.series.calendar.day(waiver.at_ms)
        moment = Moment(subject.series, subject.roster_at(waiver.at_ms), waiver.at_ms, day=day, event=event)
        cause = Cause(waiver.at_ms, waiver.incident, (waiver.event_id,))
        reverse(judge, subject, pack, rule, waiver.effect, moment, cause, subject.entries[found], now_ms)


def reverse(
    judge: Judge,
    subject: Subject,
    pack: Pack,
    rule: Rule,
    index: int,
    moment: Moment,
    cause: Cause,
    entry: Entry,
    now_ms: int,
) -> Entry:
    """An entry of its own takes another one back; both stay in the ledger."""
    calendar = subject.series.calendar
    period = calendar.period(entry.window, entry.label)
    adjusts = entry.adjusts
    if judge.is_closed(pack, subject, period, now_ms):
        period, adjusts = judge.running(pack, subject, entry.window, now_ms), entry.label
    found = decision_id(pack.name, rule.id, str(index), subject.level, subject.name, "reverse", entry.id)
    points = -entry.worth
    waiver = Entry(
        id=found, pack=pack.name, rule=rule.id, effect=index, kind="waive", window=period.window,
        label=period.label, incident=entry.incident, points=number_text(points), revision=1, status="final",
        adjusts=adjusts, at_ms=judge.known_ms(moment), seen=entry.seen,
    )  # fmt: skip
    entry.waived_by = found
    judge.put(subject, entry)
    judge.put(subject, waiver)
    judge.send(subject, pack, rule, moment, waiver, Worked(points), cause, {"reverses": entry.id})
    judge.grade(subject, pack, period, now_ms, "provisional")
    return waiver


def _reversed(subject: Subject, charging: Rule, effect: Effect, event: Any) -> bool:
    """Whether an appeal was upheld against an entry of this rule."""
    if effect.kind != "reverse":
        return False
    taken = (subject.entries.get(one) for one in event.reversals)
    return any(entry is not None and entry.rule == charging.id for entry in taken)


def _reversible(subject: Subject, pack: Pack) -> list[Entry]:
    """The entries of a pack that are worth something and were not taken back yet, in the order of their ids."""
    found = (
        entry
        for entry in subject.entries.values()
        if entry.pack == pack.name and entry.worth and not entry.waived_by and entry.kind != "waive"
    )
    return sorted(found, key=lambda entry: entry.id)

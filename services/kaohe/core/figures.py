"""The figures that reports show follow what is known: provisional while their period runs, corrected after its close.

Theory of operation. A rule with ``report`` gives one task for each subject and period, whose entry carries the figures
as its facts. Where something of a period changed, its figures *wait*, and the next day that begins in the subject's
zone brings the entry up to date: a provisional revision while the period runs, a further final one when it was closed
before (a late event, an upheld appeal, a period that is open again). The close itself makes the entry final, and
closing a period again brings it up to date at once. An entry that follows no more is taken back by its id, and given
anew under another one when it follows again. So there is at most one revision for each rule, subject and day, and one
for each close, whatever comes; and none where no figure changed.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from kaohe.core.calendars import Period
from kaohe.core.effects import names_of
from kaohe.core.facts import Moment, reader
from kaohe.core.model import Pack, Rule
from kaohe.core.subjects import Entry, Subject
from kaohe.decisions import decision_id

if TYPE_CHECKING:
    from kaohe.core.judge import Judge


def wait(judge: Judge, subject: Subject, pack: Pack, period: Period) -> None:
    """Something of a period changed: its figures are brought up to date when the subject's next day begins."""
    if (pack.key, subject.level, period.window) not in judge.reporting:
        return
    waiting = judge.figures[pack.key]
    known = waiting.get(subject.key, frozenset())
    if period not in known:
        waiting[subject.key] = known | {period}
        judge.touched.add(subject.key)


def begin_day(judge: Judge, since_ms: int, now_ms: int) -> None:
    """Bring the figures up to date of everybody whose day began after ``since_ms``, up to now."""
    for pack_key, waiting in judge.figures.items():
        pack = judge.packs[pack_key]
        for key in sorted(waiting):
            subject = judge.subjects[key]
            if subject.series.calendar.containing("day", now_ms).start_ms <= since_ms:
                continue
            for period in sorted(waiting.pop(key)):
                bring_up(judge, subject, pack, period, now_ms)
            judge.touched.add(key)


def bring_up(judge: Judge, subject: Subject, pack: Pack, period: Period, now_ms: int) -> None:
    """Bring the figures of a period up to date."""
    closed = judge.is_closed(pack, subject, period, now_ms)
    if not judge.judges_in(pack, subject, period, now_ms) or period.end_ms <= now_ms - judge.retention_ms:
        return
    moment = judge.period_moment(subject, period, now_ms)
    if moment.day < pack.in_force_from:
        return
    rules = judge.book.period.get((pack.key, subject.level, period.window))
    if rules is None:
        return  # the rules have changed since something began to wait
    fired = {rule.id for rule in rules.fired(moment)}
    final = closed or judge.is_reopened(pack, period)
    for rule in rules.rules:
        if rule.report is not None:
            for index, effect in enumerate(rule.effects):
                if effect.kind == "task":
                    follow(judge, subject, pack, rule, index, moment, rule.id in fired, final=final)


def close_again(judge: Judge, pack: Pack, key: tuple[str, str, str], now_ms: int) -> None:
    """Bring what waits of a period (pack, window, label) up to date before it is closed again."""
    for name in sorted(judge.figures[pack.key]):
        subject = judge.subjects[name]
        for period in sorted(judge.figures[pack.key][name]):
            if (period.window, period.label) == key[1:]:
                bring_up(judge, subject, pack, period, now_ms)
                done(judge, subject, pack, period)


def done(judge: Judge, subject: Subject, pack: Pack, period: Period) -> None:
    """The figures of a period are as they are to be: nothing of it waits any more."""
    waiting = judge.figures[pack.key]
    left = waiting.get(subject.key, frozenset()) - {period}
    if left:
        waiting[subject.key] = left
    else:
        waiting.pop(subject.key, None)
    judge.touched.add(subject.key)


def follow(
    judge: Judge, subject: Subject, pack: Pack, rule: Rule, index: int, moment: Moment, holds: bool, *, final: bool
) -> bool:  # fmt: skip
    """Bring the entry of one task with figures up to date; whether anything went out."""
    period = moment.period
    assert period is not None
    given = judge.charges(subject, pack, rule, index, period, period.label)
    if any(subject.is_excused(entry) for entry in given):
        return False  # an appeal was right about it
    standing = [entry for entry in given if not entry.waived_by]
    if not holds:
        judge.take_back_entries(subject, pack, rule, index, moment, standing, moment.at_ms)
        return bool(standing)
    shown, status = _digest(judge, pack, rule, index, moment), "final" if final else "provisional"
    if standing:
        entry = standing[0]
        if (entry.seen, entry.status) == (shown, status) or (entry.status == "final" and not final):
            return False
        entry.revision += 1
    else:
        turn = (str(len(given)),) if given else ()
        found = decision_id(pack.name, rule.id, str(index), subject.level, subject.name, period.window, period.label,
                            period.label, "", *turn)  # fmt: skip
        entry = Entry(
            id=found, pack=pack.name, rule=rule.id, effect=index, kind="task", window=period.window,
            label=period.label, incident=period.label, points="0", revision=1, status=status,
        )  # fmt: skip
    entry.seen, entry.status, entry.at_ms = shown, status, moment.at_ms
    judge.give(subject, pack, rule, moment, entry, ())
    return True


def _digest(judge: Judge, pack: Pack, rule: Rule, index: int, moment: Moment) -> str:
    """What the entry would say, but for the parameters: two that say the same have the same digest."""
    names = [name for name in names_of(rule, rule.effects[index]) if not name.startswith("p.")]
    told = [str(reader(judge.layout, pack, name)(moment)) for name in names]
    return blake2b("\0".join(told).encode(), digest_size=8).hexdigest()

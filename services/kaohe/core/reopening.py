"""Closing a period before its time, and opening one again that was closed.

Theory of operation. Both are events that go to every partition, and from the first one to the group stage, like the
activation of a pack. A period that is closed early is judged for good as it would be at the end of its grace. A period
that is open again takes what comes late itself, instead of leaving it to the running one: whatever now differs from its
final entries is taken back by an entry that reverses it, and charged anew by one of its own, both final at once; the
grade gets a further final revision. Tasks and proposals that follow no more are withdrawn and alerts of the close
resolved, each by its id; those that follow now are given, and what follows as before is not given twice. Nothing that
was final is changed. Where the whole company is compared
(a quota, a calibration, a ranking), the company's stage compares it again, and what was made of a grade that changed
(quarters, years, tallies) follows. A period stays open until it is closed again, or is forgotten.

Closed again, it is as if the late events had come in time, but for later periods that looked back at it when they were
closed.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from kaohe.core import figures
from kaohe.core.calendars import Calendar, Period
from kaohe.core.effects import NOTHING, Worked, work_out
from kaohe.core.facts import Moment, number_text
from kaohe.core.model import Pack, Rule
from kaohe.core.records import Output
from kaohe.core.subjects import Entry, Subject
from kaohe.decisions import ENCODER, REOPENED_RULE, Alert, UsedFact, Words, alert_id, decision_id
from kaohe.errors import EventError, UsageError

if TYPE_CHECKING:
    from kaohe.core.judge import Judge

ORDERS = {"period.closed": "close", "period.reopened": "reopen"}
"""The events, and the word by which reports to the group stage carry them."""
MAX_REOPENED = 36
"""Periods that may be open again at a time."""


class Reopened(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who opened a period again, why, since when (ms) and by which event."""

    pack: str
    window: str
    period: str
    by: str
    reason: str
    since_ms: int
    event_id: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Pack, window and period."""
        return self.pack, self.window, self.period


def standing_open(
    pack: Pack,
    one: Reopened,
    state: Literal["firing", "resolved"],
    at_ms: int,
    calendar: Calendar,
    ended: Words,
) -> Output:
    """That a period is open again, and that it is no more: an alert, so that whoever looks at either of them sees it.

    ``ended`` says what ended it; it is empty while it stands.
    """
    since = calendar.text(one.since_ms)
    frame_en = f"{one.period} of {pack.title.en} was opened again by {one.by} at {since}: {one.reason}"
    frame_zh = f"{pack.title.zh}{one.period}由{one.by}于{since}重新开放：{one.reason}"
    message = Alert(
        id=alert_id(pack.name, REOPENED_RULE, "company", one.window, one.period, one.event_id), state=state,
        pack=pack.name, pack_version=pack.version, rule=REOPENED_RULE, clause="", severity="info", level="company",
        subject="company", incident=one.period, since=since, at=calendar.text(at_ms), owner=one.by,
        title=Words("Period open again", "周期已重新开放"),
        explanation=Words(
            f"{frame_en}. {ended.en}." if ended.en else f"{frame_en}.",
            f"{frame_zh}。{ended.zh}。" if ended.zh else f"{frame_zh}。",
        ),
        response=Words("Close it again when everything is in.", "资料齐全后请再次关闭。"),
        facts={"by": UsedFact(value=one.by), "reason": UsedFact(value=one.reason),
               "window": UsedFact(value=one.window)},
        parameters={}, evidence=[one.event_id],
    )  # fmt: skip
    return Output("alerts", b"company", ENCODER.encode(message))


def order_text(tag: str, data: Any) -> str:
    """An event of these kinds as a report carries it in the place of a version."""
    return f"{ORDERS[tag]} {data.window} {data.period}"


def check(judge: Judge, tag: str, data: Any, calendar: Calendar, now_ms: int) -> None:
    """EventError when a period cannot be closed or opened again."""
    version = judge.active.get(data.pack)
    if version is None:
        raise EventError("unknown_pack", f"the pack {data.pack} is not loaded here")
    pack = judge.packs[f"{data.pack}@{version}"]
    if data.window not in judge.book.windows[pack.key]:
        raise EventError("period_state", f"{data.pack} judges no {data.window}")
    try:
        period = calendar.period(data.window, data.period)
    except UsageError as error:
        raise EventError("invalid", f"$.data.period: {error}") from None
    # Every partition must say the same, whether or not it knows anybody whose period that is.
    early = any(one[:2] == (data.pack, data.window) and one[2] >= data.period for one in judge.early)
    closed = early or period.end_ms + pack.grace_ms <= now_ms
    reopened = (data.pack, data.window, data.period) in judge.reopened
    if tag == "period.closed":
        if period.end_ms > now_ms:
            raise EventError("period_state", f"{data.period} is not over yet")
        if closed and not reopened:
            raise EventError("period_state", f"{data.period} is closed already")
        return
    if not closed or reopened:
        raise EventError("period_state", f"{data.period} is open")
    if period.end_ms <= now_ms - judge.retention_ms:
        raise EventError(
            "period_state", f"{data.period} is forgotten here; put it right in the running period"
        )
    if len(judge.reopened) >= MAX_REOPENED:
        raise EventError("period_state", f"{MAX_REOPENED} periods are open again already")


def carry_out(judge: Judge, name: str, order: str, now_ms: int) -> None:
    """Do what an order says that was found in order (``close month 2026-08``)."""
    verb, window, label = order.split(" ")
    key = (name, window, label)
    if verb == "reopen":
        judge.reopened.add(key)
    elif key in judge.reopened:
        _close_again(judge, key, now_ms)
        judge.reopened.discard(key)
    else:
        judge.early.add(key)
        judge.note_order(name, window, label, now_ms)
        judge.close_early(name, window, label, now_ms)


def _close_again(judge: Judge, key: tuple[str, str, str], now_ms: int) -> None:
    """Judge what came for a period since it was judged last, before it is closed again."""
    judge.fold(now_ms)
    for pack in [one for one in judge.packs.values() if one.name == key[0]]:
        waiting = judge.unjudged[pack.key]
        for name in sorted(waiting):
            subject = judge.subjects[name]
            own = {period for period in waiting[name] if (period.window, period.label) == key[1:]}
            for period in sorted(own):
                if judge.judges_in(pack, subject, period, now_ms):
                    figures.wait(judge, subject, pack, period)
                    revise(judge, subject, pack, period, now_ms)
            if own:
                waiting[name] -= own
                judge.touched.add(name)
        figures.close_again(judge, pack, key, now_ms)


def revise(judge: Judge, subject: Subject, pack: Pack, period: Period, now_ms: int) -> None:
    """Judge a period that is open again; what differs from its entries is taken back and charged anew."""
    moment = judge.period_moment(subject, period, now_ms)
    if moment.day < pack.in_force_from:
        return
    rules = judge.book.period.get((pack.key, subject.level, period.window))
    fired = {rule.id for rule in rules.fired(moment)} if rules is not None else set()
    for rule in rules.rules if rules is not None else ():
        for index, effect in enumerate(rule.effects):
            if effect.kind in ("deduct", "award"):
                worked = work_out(judge.layout, pack, effect, moment) if rule.id in fired else NOTHING
                _revise_one(judge, subject, pack, rule, index, moment, worked, now_ms)
            elif effect.kind == "grade":
                judge.cap(subject, pack, rule, effect, period, rule.id in fired)
            elif effect.kind == "task" and rule.report is not None:
                continue  # its figures follow once a day, and when the period is closed again
            elif effect.kind in ("task", "proposal", "alert"):
                _revise_once(judge, subject, pack, rule, index, moment, rule.id in fired, now_ms)
    judge.regrade(subject, pack, period, now_ms)


def _revise_once(
    judge: Judge, subject: Subject, pack: Pack, rule: Rule, index: int, moment: Moment, holds: bool, now_ms: int
) -> None:  # fmt: skip
    """Give a task, a proposal or an alert that follows now, or take back one that does no more."""
    period = moment.period
    assert period is not None
    given = judge.charges(subject, pack, rule, index, period, period.label)
    if any(subject.is_excused(entry) for entry in given):
        return  # an appeal was right about it
    standing = [entry for entry in given if not entry.waived_by]
    if holds and not standing:
        judge.once_in_period(subject, pack, rule, index, moment, len(given))
    elif not holds and rule.effects[index].kind == "alert":
        for entry in standing:
            judge.end_alert(subject, pack, rule, index, moment, entry)
    elif not holds:
        judge.take_back_entries(subject, pack, rule, index, moment, standing, now_ms)


def _revise_one(
    judge: Judge, subject: Subject, pack: Pack, rule: Rule, index: int, moment: Moment, worked: Worked, now_ms: int
) -> None:  # fmt: skip
    period = moment.period
    assert period is not None
    charged = judge.charges(subject, pack, rule, index, period)
    if any(subject.is_excused(entry) for entry in charged):
        return
    own = [entry for entry in charged if entry.label == period.label and not entry.waived_by]
    elsewhere = sum((entry.worth for entry in charged if entry.label != period.label), Fraction(0))
    points = worked.points - elsewhere
    if points == sum((entry.worth for entry in own), Fraction(0)):
        return
    judge.take_back_entries(subject, pack, rule, index, moment, [one for one in own if one.worth], now_ms)
    if not points:
        return
    number = sum(entry.label == period.label for entry in charged)
    found = decision_id(pack.name, rule.id, str(index), subject.level, subject.name, period.window, period.label,
                        "", "", f"revision {number}")  # fmt: skip
    entry = Entry(
        id=found, pack=pack.name, rule=rule.id, effect=index, kind="deduct" if points < 0 else "award",
        window=period.window, label=period.label, incident="", points=number_text(points), revision=1, status="final",
        at_ms=now_ms,
    )  # fmt: skip
    judge.post_new(subject, pack, rule, moment, entry, Worked(points, worked.how))

"""Who works when in a simulated company, and who comes: rota, office hours, swaps, changes, clockings, log-ins, leave.

Theory of operation. Most departments work by a rota: each shift is told six hours ahead, some days are split in two
shifts, some shifts run past midnight or start after it. Departments with office hours are told them once; which days
these are is the public calendar's affair. ``Rota.swaps`` lets people swap shifts a few days ahead, or give one away:
both shifts are then told at once, so that the swap can name them. ``Rota.day`` lets one person have a day: a shift may
be called off or changed, in time or at short notice, and whoever is due comes, late or not at all, logs in and out, and
sometimes forgets to. A few follow the hours that were planned before a change, which is their right at short notice
and their fault otherwise.

Each family of events has random numbers of its own; of a day with a shift the stream ``attendance`` gives six.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from random import Random

import msgspec
from chinese_calendar import is_workday

from kaohe import events as ev
from kaohe.adapters.simulator_appraisal import Member, Office
from kaohe.adapters.simulator_work import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, moment
from kaohe.adapters.simulator_world import local_ms
from kaohe.events import LeaveKind, Payload

SHIFTS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((8, 16),),
    ((10, 18),),
    ((13, 21),),
    ((21, 29),),
    ((8, 12), (22, 26)),
)
"""First and last hour of each shift of a day by the wall clock; beyond 24 lies the next day."""
DAYTIME = 3
"""How many of them a department without a night service works."""
OFFICE = (8, 16)
SWAP_SHARE = 0.03
CHANGE_SHARE = 0.025
NOTICE_MIN = 120
"""From here on a change is told in time; some are told just then, others later."""
LEAVES: tuple[LeaveKind, ...] = (
    "personal", "sick", "annual", "annual", "annual", "marriage", "bereavement",
)  # fmt: skip


class Work(msgspec.Struct):
    """A shift: its name (of office hours, the one that follows from them), when it is, and whether it was told."""

    id: str
    starts_ms: int
    ends_ms: int
    told: bool = False


class Rota:
    """The rota of one company."""

    def __init__(self, staff: Sequence[Member], office: Office, end: date) -> None:
        """``end`` is the day after the last one on which anybody works."""
        self._staff = staff
        self._office = office
        self._end = end
        self._hours: dict[str, str] = {}
        self._given: set[tuple[str, date]] = set()
        self._taken: dict[tuple[str, date], Work] = {}

    # --- what is planned ----------------------------------------------------------------------------------------------

    def assign(self, member: Member, first: date, at_ms: int) -> None:
        """Tell somebody's office hours from a day on, or that they end, when the department has them or had."""
        had = self._hours.get(member.id)
        if not member.office_hours and had is None:
            return
        if member.office_hours:
            hours_id = self._hours[member.id] = self._office.next("hours")
        else:
            hours_id = self._hours.pop(member.id)
        starts, ends = (f"{hour:02d}:00" for hour in (OFFICE if member.office_hours else (0, 0)))
        data = ev.HoursAssigned(
            agent=member.id, hours_id=hours_id, first_day=first.isoformat(),
            last_day=(self._end - timedelta(days=1)).isoformat(), starts=starts, ends=ends,
        )  # fmt: skip
        self._office.put(at_ms, "hours.assigned", member.id, data)

    def leave(self, member: Member, day: date, at_ms: int) -> None:
        """Somebody leaves, and works on the day of leaving no more."""
        if member.office_hours:
            self._close(member, day, at_ms)

    def is_bound(self, member: Member, day: date) -> bool:
        """Whether a swap holds somebody to a department and site from ``day`` on."""
        return any(who == member.id and on >= day for who, on in (*self._given, *self._taken))

    def works(self, member: Member, day: date) -> bool:
        """Whether a day is one of the person's working days, swaps aside."""
        if member.office_hours or member.public_days:
            return public(day)
        return (day.toordinal() + int(member.id[2:]) * 3) % 7 < 5

    def _own(self, member: Member, day: date) -> list[Work]:
        """The shifts that a day would have without swaps."""
        if not self.works(member, day):
            return []
        shift = f"{member.id}-{day.isoformat()}"
        if member.office_hours:
            shift = f"{self._hours[member.id]}@{day.isoformat()}"
            hours: tuple[tuple[int, int], ...] = (OFFICE,)
        else:
            several = len(SHIFTS) if member.department == "hotline" else DAYTIME
            hours = SHIFTS[(int(member.id[2:]) // 3 + day.toordinal() // 7) % several]
        return [
            Work(f"{shift}{'b' * index}", _at(member, day, begins), _at(member, day, ends))
            for index, (begins, ends) in enumerate(hours)
        ]

    def _due(self, member: Member, day: date) -> list[Work]:
        """The shifts of a day after swaps."""
        taken = self._taken.pop((member.id, day), None)
        if (member.id, day) in self._given:
            self._given.discard((member.id, day))
            return [taken] if taken is not None else []
        return [taken] if taken is not None else self._own(member, day)

    def _tell(self, agent: str, work: Work, day: date, at_ms: int) -> None:
        data = ev.ShiftScheduled(
            agent=agent, shift_id=work.id, day=day.isoformat(), starts_at=moment(work.starts_ms),
            ends_at=moment(work.ends_ms),
        )  # fmt: skip
        self._office.put(at_ms, "shift.scheduled", agent, data)
        work.told = True

    # --- swaps --------------------------------------------------------------------------------------------------------

    def swaps(self, day: date) -> None:
        """Let people swap shifts of the next days, or give one away, with somebody of the same department and site."""
        rng = self._office.stream("swaps")
        for member in self._staff:
            if rng.random() >= SWAP_SHARE:
                continue
            given, taken = (day + timedelta(days=rng.randrange(2, 5)) for _ in range(2))
            others = [one for one in self._staff if self._may_swap(member, one, day, given, taken)]
            if others:
                self._swap(member, rng.choice(others), day, given, taken, rng)

    def _may_swap(self, member: Member, other: Member, day: date, given: date, taken: date) -> bool:
        """Whether ``member`` can work on the day ``given`` for ``other``, who works on ``taken`` instead."""
        if other is member or (other.department, other.site) != (member.department, member.site):
            return False
        last = max(given, taken)
        if last >= self._end:
            return False
        for one in (member, other):
            here = one.joins <= day and (one.leaves is None or last < one.leaves)
            if not here or one.office_hours or one.away_until > day or self.is_bound(one, day):
                return False
        mine, yours = self._own(member, given), self._own(other, taken)
        if len(mine) != 1 or len(yours) != 1:
            return False
        if given == taken:
            return mine[0].starts_ms != yours[0].starts_ms
        return not self._own(member, taken) and not self._own(other, given)

    def _swap(self, member: Member, other: Member, day: date, given: date, taken: date, rng: Random) -> None:
        told_ms = local_ms(day, member.zone, 12)
        agreed_ms = told_ms + rng.randrange(2 * 60, 28 * 60) * MINUTE_MS
        ((mine,), (yours,)) = self._own(member, given), self._own(other, taken)
        self._tell(member.id, mine, given, told_ms)
        self._given.add((member.id, given))
        self._taken[other.id, given] = mine
        if rng.random() < 0.2 and given != taken:  # given away for nothing
            data = ev.ShiftSwapped(agent=member.id, shift_id=mine.id, with_agent=other.id, by=member.superior)
            self._office.put(agreed_ms, "shift.swapped", member.id, data)
            self._tell(other.id, mine, given, agreed_ms)
            return
        self._tell(other.id, yours, taken, told_ms)
        self._given.add((other.id, taken))
        self._taken[member.id, taken] = yours
        for one, with_one, gives, (day_of, takes) in (
            (member, other, mine, (taken, yours)), (other, member, yours, (given, mine)),
        ):  # fmt: skip
            data = ev.ShiftSwapped(
                agent=one.id, shift_id=gives.id, with_agent=with_one.id, taken_id=takes.id,
                taken_day=day_of.isoformat(), taken_starts_at=moment(takes.starts_ms),
                taken_ends_at=moment(takes.ends_ms), by=one.superior,
            )  # fmt: skip
            self._office.put(agreed_ms, "shift.swapped", one.id, data)

    # --- a day --------------------------------------------------------------------------------------------------------

    def day(self, member: Member, day: date) -> list[tuple[int, int]]:
        """One person's day: all that is told of it. From when to when (ms) the person works."""
        due = self._due(member, day)
        if not due:
            return []
        absent, late, early, minutes, way, clumsy = (
            self._office.stream("attendance").random() for _ in range(6)
        )
        if not member.office_hours:
            for work in due:
                if not work.told:
                    self._tell(member.id, work, day, self._known(member, work.starts_ms - 6 * HOUR_MS))
        if clumsy > 0.992:
            self._call_off(member, due.pop(0), day)
            if not due:
                return []
        if day < member.away_until or self._leave(member, day, due[0].starts_ms):
            return []
        if absent < 0.003 * member.punctuality:
            return []
        found = []
        for index, work in enumerate(due):
            if index:
                late, early, minutes, way, clumsy = (self._office.stream("splits").random() for _ in range(5))
                if clumsy > 0.98:  # once at home, one stays there
                    continue
            follows = self._change(member, work, day) if not member.office_hours else work
            self._attend(member, work, follows, (late, early, minutes, way, clumsy))
            found.append((follows.starts_ms, follows.ends_ms))
        return found

    def _call_off(self, member: Member, work: Work, day: date) -> None:
        at_ms = self._known(member, work.starts_ms - HOUR_MS)
        if member.office_hours:
            self._close(member, day, at_ms)
            return
        self._office.put(at_ms, "shift.changed", member.id, _changed(member, work, day, cancelled=True))

    def _close(self, member: Member, day: date, at_ms: int) -> None:
        """Somebody with office hours has none on a day."""
        closed = ev.HoursAssigned(
            agent=member.id, hours_id=self._office.next("hours"), first_day=day.isoformat(),
            last_day=day.isoformat(), starts="00:00", ends="00:00",
        )  # fmt: skip
        self._office.put(at_ms, "hours.assigned", member.id, closed)

    def _change(self, member: Member, work: Work, day: date) -> Work:
        """A few shifts are changed; the hours that the person follows then."""
        rng = self._office.stream("changes")
        if rng.random() >= CHANGE_SHARE:
            return work
        moves, ends = rng.choice((-3, -2, -1, 1, 2, 3)) * HOUR_MS, rng.choice((-1, 1, 2)) * HOUR_MS
        changed = Work(work.id, work.starts_ms, work.ends_ms + ends)
        if rng.random() < 0.7:
            changed = Work(work.id, work.starts_ms + moves, work.ends_ms + moves)
        ahead_min = rng.choice((rng.randrange(30, NOTICE_MIN), NOTICE_MIN, rng.randrange(NOTICE_MIN, 170)))
        at_ms = min(work.starts_ms, changed.starts_ms) - ahead_min * MINUTE_MS
        self._office.put(
            self._known(member, at_ms), "shift.changed", member.id, _changed(member, changed, day)
        )
        if rng.random() < (0.5 if ahead_min < NOTICE_MIN else 0.8):
            return changed
        return work

    def _attend(
        self, member: Member, work: Work, follows: Work, chances: tuple[float, float, float, float, float]
    ) -> None:
        """Come to a shift and go from it by the hours that one follows, more or less."""
        late, early, minutes, way, clumsy = chances
        agent, shift = member.id, work.id
        arrives_ms = follows.starts_ms - round((2 + 13 * way) * MINUTE_MS)
        if late < 0.03 * member.punctuality:
            arrives_ms = follows.starts_ms + round(1 + 50 * minutes**2) * MINUTE_MS
            self._excuse(member, shift, follows.starts_ms)
        leaves_ms = follows.ends_ms + round(5 * way) * MINUTE_MS
        if early < 0.012 * member.punctuality:
            leaves_ms = follows.ends_ms - round(1 + 50 * minutes**2) * MINUTE_MS
        # The terminal at the office's door knows of no shifts.
        named = shift if not member.office_hours or way < 0.3 else ""
        self._office.put(arrives_ms, "clock.in", agent, ev.ClockIn(agent=agent, shift_id=named))
        if clumsy < 0.005:
            fixed = ev.ClockCorrected(
                agent=agent, correction_id=f"fix-{shift}-{agent}", shift_id=shift, punch="out",
                clocked_at=moment(leaves_ms - leaves_ms % SECOND_MS), by=member.superior,
                reason="forgot to clock out",
            )  # fmt: skip
            self._office.put(leaves_ms + 18 * HOUR_MS, "clock.corrected", agent, fixed)
        else:
            self._office.put(leaves_ms, "clock.out", agent, ev.ClockOut(agent=agent, shift_id=named))
        self._log_in(member, follows.starts_ms, arrives_ms, leaves_ms)

    def _log_in(self, member: Member, starts_ms: int, arrives_ms: int, leaves_ms: int) -> None:
        """Log in, mostly at once, and out; who forgets to log out is mostly put right on the next day."""
        rng, agent = self._office.stream("logins"), member.id
        way, minutes, end = (rng.random() for _ in range(3))
        if way < 0.004:
            return
        at_ms = arrives_ms + round(minutes * 100) * SECOND_MS
        if way < 0.03:
            at_ms = max(at_ms, starts_ms + round(minutes * 40) * MINUTE_MS)
        elif way < 0.04:  # at the last moment of the grace
            at_ms = max(at_ms, starts_ms + 5 * MINUTE_MS)
        self._office.put(at_ms, "agent.logged_in", agent, ev.AgentLoggedIn(agent=agent))
        arrives_ms = leaves_ms + (round(8 + 20 * minutes) * HOUR_MS if end < 0.008 else 0)
        if end < 0.012 and arrives_ms == leaves_ms:
            return
        self._office.put(
            leaves_ms, "agent.logged_out", agent, ev.AgentLoggedOut(agent=agent), told_ms=arrives_ms
        )

    @staticmethod
    def _known(member: Member, at_ms: int) -> int:
        """That moment, but not before the person is known."""
        return max(at_ms, local_ms(member.joins, member.zone, 6) + MINUTE_MS)

    def _excuse(self, member: Member, shift: str, starts_ms: int) -> None:
        rng = self._office.stream("exemptions")
        if rng.random() < 0.25:
            data = ev.ExemptionGranted(
                agent=member.id, exemption_id=f"ex-{shift}-{member.id}", incident=shift,
                reason="the underground stood still", by=member.superior,
            )  # fmt: skip
            self._office.put(starts_ms + rng.randrange(4, 60) * HOUR_MS, "exemption.granted", member.id, data)

    def _leave(self, member: Member, day: date, starts_ms: int) -> bool:
        """Whether a leave begins on this day: asked for three days before, and mostly approved."""
        rng = self._office.stream("leave")
        if rng.random() >= 0.012:
            return False
        last = day + timedelta(days=rng.randrange(5))
        common = {"leave_id": self._office.next("leave"), "agent": member.id, "kind": rng.choice(LEAVES)}
        days = {"first_day": day.isoformat(), "last_day": last.isoformat()}
        asked_ms, answered = self._known(member, starts_ms - 3 * DAY_MS), rng.random()
        boss = member.superior
        self._office.put(asked_ms, "leave.requested", member.id, ev.LeaveRequested(**common, **days))  # type: ignore[arg-type]
        if answered < 0.1:
            data: Payload = ev.LeaveRejected(**common, **days, by=boss, reason="the rota is thin")  # type: ignore[arg-type]
            self._office.put(asked_ms + 5 * HOUR_MS, "leave.rejected", member.id, data)
            return False
        # One in ten is approved only afterwards.
        approved_ms = asked_ms + (HOUR_MS if answered < 0.9 else 4 * DAY_MS)
        data = ev.LeaveApproved(**common, **days, by=boss)  # type: ignore[arg-type]
        self._office.put(approved_ms, "leave.approved", member.id, data)
        member.away_until = last + timedelta(days=1)
        return True


def _changed(member: Member, work: Work, day: date, *, cancelled: bool = False) -> ev.ShiftChanged:
    return ev.ShiftChanged(
        agent=member.id, shift_id=work.id, day=day.isoformat(), starts_at=moment(work.starts_ms),
        ends_at=moment(work.ends_ms), cancelled=cancelled,
    )  # fmt: skip


def _at(member: Member, day: date, hour: int) -> int:
    """An hour of a day by the wall clock of the person's site; beyond 24 it is one of the next day."""
    return local_ms(day + timedelta(days=hour // 24), member.zone, hour % 24)


def public(day: date) -> bool:
    """Whether the public calendar has a working day; a year that was not announced yet has its weekends alone."""
    try:
        return bool(is_workday(day))
    except NotImplementedError:
        return day.weekday() < 5

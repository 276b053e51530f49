"""A small pack that judges attendance, for tests of the core: one metric and one rule for each outcome."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

from kaohe.core.attendance import OUTCOMES
from kaohe.core.model import Pack
from tests.support.packs import Story, at, make_pack

TIMES_MIN = {
    "grace": 10,
    "late_after": 5,
    "early_after": 5,
    "absent_after": 120,
    "missing_out_after": 120,
    "login_grace": 10,
    "clock_window": 180,
    "short_notice": 120,
}
FLAGS = {"missing_out_breaks": 1, "exempted_keeps": 1}
TABLES = {
    "leave_quota": ("days", 366, "{personal: 2, sick: 30, marriage: 3, bereavement: 3, maternity: 158, annual: 5}"),
    "leave_breaks": (
        "count", 1, "{personal: 1, sick: 1, marriage: 0, bereavement: 0, maternity: 0, annual: 0}"
    ),
    "leave_attended": (
        "count", 1, "{personal: 0, sick: 0, marriage: 1, bereavement: 1, maternity: 1, annual: 1}"
    ),
}  # fmt: skip
LEAVE_DAYS = (
    "{personal: shift, sick: shift, annual: shift, marriage: working, bereavement: working, "
    "maternity: calendar}"
)


def _parameters(changes: dict[str, Any]) -> str:
    lines = []
    for name, value in (TIMES_MIN | changes).items():
        if name in TIMES_MIN:
            lines.append(f"{name}:\n  unit: min\n  min: 0\n  max: 720\n  values: {{2020-01-01: {value}}}")
    for name, value in (FLAGS | changes).items():
        if name in FLAGS:
            lines.append(f"{name}:\n  unit: count\n  min: 0\n  max: 1\n  values: {{2020-01-01: {value}}}")
    for name, (unit, most, table) in TABLES.items():
        held = changes.get(name, table)
        lines.append(f"{name}:\n  unit: {unit}\n  min: 0\n  max: {most}\n  values: {{2020-01-01: {held}}}")
    days = changes.get("full_month_days", 1)
    lines.append(f"full_month_days:\n  unit: days\n  min: 1\n  max: 31\n  values: {{2020-01-01: {days}}}")
    return "\n".join(lines)


ATTENDANCE = "\n".join(
    [
        "calendar: china",
        *(f"{name}: p.{name}" for name in (*TIMES_MIN, *FLAGS)),
        "full_month_days: p.full_month_days",
        f"leave:\n  quota: p.leave_quota\n  breaks: p.leave_breaks\n  attended: p.leave_attended\n  days: {LEAVE_DAYS}",
    ]
)
METRICS = "\n".join(
    f"""
n_{outcome}:
  count: {{attendance: {outcome}}}
  level: [agent, team, site]
  windows: [day, month, year]
"""
    for outcome in OUTCOMES
)
FIGURES = """
required_halves:
  sum: {field: halves, of: {attendance: required}}
  level: [agent]
  windows: [day, month, year]
attended_halves:
  sum: {field: halves, of: {attendance: attended}}
  level: [agent]
  windows: [day, month, year]
absent_halves:
  sum: {field: halves, of: {attendance: absent}}
  level: [agent]
  windows: [day, month, year]
leave_halves:
  sum: {field: halves, of: {attendance: leave}}
  level: [agent]
  windows: [day, month, year]
over_quota:
  sum: {field: halves, of: {attendance: leave, where: event.over_quota}}
  level: [agent]
  windows: [day, month, year]
rate:
  ratio:
    of: {sum: {field: halves, of: {attendance: attended}}}
    to: {sum: {field: halves, of: {attendance: required}}}
  level: [agent]
  windows: [day, month, year]
late_ms:
  sum: {field: late_ms, of: {attendance: late}}
  level: [agent]
  windows: [day, month, year]
early_ms:
  sum: {field: early_ms, of: {attendance: early_leave}}
  level: [agent]
  windows: [day, month, year]
unexcused:
  count: {attendance: [late, early_leave, absent], where: "!event.excused"}
  level: [agent]
  windows: [day, month, year]
on_holidays:
  count: {attendance: attended, where: 'event.day_kind == "holiday" && event.halves > 0'}
  level: [agent]
  windows: [day, month, year]
"""
RULES = """
- id: not-in
  level: [agent]
  attendance: not_in
  when: "true"
  then:
    - alert: {severity: medium, owner: leader, response: {en: Call., zh: 联系。}}
- id: not-logged-in
  level: [agent]
  attendance: not_logged_in
  when: "true"
  then:
    - alert: {severity: medium, owner: leader, response: {en: Call., zh: 联系。}}
- id: late
  level: [agent]
  attendance: late
  when: event.number > 1
  then:
    - deduct: {points: 1, per: 1, over: 1, of: event.number, at_most: 3}
- id: early
  level: [agent]
  attendance: early_leave
  when: event.number > 1
  then:
    - deduct: {points: 1, per: 1, over: 1, of: event.number, at_most: 3}
- id: absent
  level: [agent]
  attendance: absent
  when: "true"
  then:
    - deduct: {points: 5, per: 1, over: 0, of: event.halves}
    - alert: {severity: high, owner: leader, response: {en: Ask., zh: 核实。}}
- id: full-month
  level: [agent]
  attendance: full_month
  when: "true"
  then:
    - award: {points: 1, per: 1, over: 0, of: event.streak, at_most: 6}
- id: excused
  level: [agent]
  on: exemption.granted
  incident: exemption_id
  when: "true"
  then:
    - waive: {rules: [late, early, absent], incident: event.incident}
"""


def attendance_pack(folder: Path, **changes: Any) -> Pack:
    """The pack; ``changes`` are other figures (``late_after=0``, ``leave_quota="{...}"``) or ``zone``, ``grace``."""
    own = {key: changes.pop(key) for key in ("zone", "grace", "name", "version") if key in changes}
    return make_pack(
        folder,
        parameters=_parameters(changes),
        metrics=METRICS + FIGURES,
        rules=RULES,
        attendance=ATTENDANCE,
        **own,
    )


class Rota(Story):
    """A story about shifts."""

    def shift(
        self,
        day: str,
        starts: str = "09:00",
        ends: str = "18:00",
        shift_id: str = "",
        when: str = "",
        **more: Any,
    ) -> None:
        """A shift, planned the evening before unless ``when`` says otherwise; it ends the next day if it has to."""
        self.late(
            when or f"{day}T00:00", "shift.scheduled", **self.hours(day, starts, ends, shift_id), **more
        )

    def hours(self, day: str, starts: str, ends: str, shift_id: str = "") -> dict[str, Any]:
        """The fields of a shift event."""
        begins, over = at(f"{day}T{starts}", self.zone), at(f"{day}T{ends}", self.zone)
        if over <= begins:
            following = date.fromisoformat(day) + timedelta(days=1)
            over = at(f"{following}T{ends}", self.zone)
        return {"shift_id": shift_id or f"s-{day}", "day": day, "starts_at": begins, "ends_at": over}

    def work(self, day: str, came: str = "08:55", went: str = "18:05", shift_id: str = "") -> None:
        """Coming and going on a day, as it happens."""
        if came:
            self.tell(f"{day}T{came}", "clock.in", shift_id=shift_id or f"s-{day}")
        if went:
            self.tell(f"{day}T{went}", "clock.out", shift_id=shift_id or f"s-{day}")

    def outcomes(
        self, window: str, period: str, subject: str = "a-1", level: str = "agent"
    ) -> dict[str, int]:
        """How often each outcome was counted; those that were not are left out."""
        found = {name: self.figure(f"n_{name}", window, period, subject, level) for name in OUTCOMES}
        return {name: count for name, count in found.items() if count}

    def day(self, day: str, subject: str = "a-1") -> dict[str, int]:
        """The outcomes of one day."""
        return self.outcomes("day", day, subject)

    def points(self) -> dict[str, int]:
        """What each incident costs or earns in the end: every entry and what took it back."""
        self.replay.finish()
        found: dict[str, int] = {}
        for one in self.replay.newest_decisions().values():
            if one.incident:
                found[one.incident] = found.get(one.incident, 0) + int(one.points)
        return {incident: total for incident, total in found.items() if total}

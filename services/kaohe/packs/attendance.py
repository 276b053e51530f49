"""From ``attendance.yaml`` to ``kaohe.core.model.Attendance``: how a pack judges shifts, clockings and leave.

Every figure is a parameter, so it is dated and bounded and has a clause like all others. Refused here are a figure of
another unit, one whose bounds leave a day (or 0 to 1, where it answers yes or no), a table that lacks a kind of
leave or has one that does not exist, and a limit for absence that lies before the one for lateness.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from typing import Any, cast, get_args

from kaohe.core.model import Attendance, LeaveDays, Parameter
from kaohe.events import LeaveKind
from kaohe.packs.holidays import CALENDARS
from kaohe.packs.metrics import MetricReader, check_table_words
from kaohe.packs.names import TIME_UNITS, millis
from kaohe.packs.source import Fields, Node, choice

TIMES = (
    "grace", "late_after", "early_after", "absent_after", "missing_out_after", "login_grace", "clock_window",
    "short_notice",
)  # fmt: skip
OPTIONAL_TIMES = ("login_grace",)
FLAGS = ("missing_out_breaks", "exempted_keeps")
LEAVE_KINDS: tuple[str, ...] = get_args(LeaveKind)
_KEYS = ("clause", "calendar", *TIMES, *FLAGS, "full_month_days", "leave")
_LONGEST_MS = 86_400_000
_NO_DAYS: dict[str, LeaveDays] = {}


class AttendanceReader:
    """Reads ``attendance.yaml`` of one pack."""

    def __init__(self, base: MetricReader) -> None:
        self.base = base
        self.problems = base.problems
        self.parameters: Mapping[str, Parameter] = base.parameters

    def read(self, root: Node | None) -> Attendance | None:
        """What the file says; None when there is none or it is wrong (the mistakes are noted)."""
        if root is None:
            return None
        fields = Fields(root, self.problems, _KEYS, "attendance")
        clause = fields.need("clause", self.base.clause, "")
        calendar = fields.need("calendar", choice(CALENDARS, "calendar"), "")
        figure = self.base.parameter(*TIME_UNITS)
        times = {
            key: (fields.take if key in OPTIONAL_TIMES else fields.need)(key, figure, "") for key in TIMES
        }
        flags = {key: fields.need(key, self.base.parameter("count"), "") for key in FLAGS}
        month_days = fields.need("full_month_days", self.base.parameter("days", "count"), "")
        found: dict[str, Any] = {}
        fields.need("leave", lambda node: self._leave(node, found), None)
        if not fields.ok():
            return None
        self._check_times(fields, times)
        for key, name in flags.items():
            self._check_flag(fields, key, name)
        if not fields.ok():
            return None
        found |= {**times, **flags, "clause": clause, "full_month_days": month_days}
        return Attendance(calendar=self.base.calendars[calendar], place=root.place, **found)

    def _leave(self, node: Node, found: dict[str, Any]) -> None:
        fields = Fields(node, self.problems, ("quota", "breaks", "attended", "days"), "leave")
        for key, unit in (("quota", "days"), ("breaks", "count"), ("attended", "count")):
            name = found[f"leave_{key}"] = fields.need(key, self.base.parameter(unit, kinds=("table",)), "")
            if name:
                check_table_words(fields, key, self.parameters[name], LEAVE_KINDS)
                if unit == "count":
                    self._check_flag(fields, key, name)
        found["leave_days"] = fields.need("days", self._days, _NO_DAYS)
        if not fields.ok():
            raise self.problems.errors[-1]

    def _days(self, node: Node) -> dict[str, LeaveDays]:
        fields = Fields(node, self.problems, LEAVE_KINDS, "the days that a leave's quota counts")
        mode = choice(get_args(LeaveDays), "way of counting days")
        found = {kind: cast("LeaveDays", fields.need(kind, mode, "shift")) for kind in LEAVE_KINDS}
        if not fields.ok():
            raise self.problems.errors[-1]
        return found

    def _check_flag(self, fields: Fields, key: str, name: str) -> None:
        parameter = self.parameters[name]
        if parameter.minimum != 0 or parameter.maximum != 1:
            fields.wrong(key, f"p.{name} answers yes (1) or no (0)", "bound it by `min: 0` and `max: 1`")

    def _check_times(self, fields: Fields, times: Mapping[str, str]) -> None:
        for key, name in times.items():
            if not name:
                continue
            parameter = self.parameters[name]
            largest, smallest = parameter.maximum or Fraction(0), parameter.minimum or Fraction(0)
            if smallest < 0 or largest * millis(parameter.unit) > _LONGEST_MS:
                fields.wrong(key, f"p.{name} may be longer than a day, or below 0", "bound it by 0 and 24 h")
        late, absent = self.parameters[times["late_after"]], self.parameters[times["absent_after"]]
        for day in sorted({since for one in (late, absent) for since, _ in one.values}):
            limits = [_ms(one, day) for one in (late, absent)]
            if None not in limits and limits[0] >= limits[1]:  # type: ignore[operator]
                fields.wrong(
                    "absent_after",
                    f"on {day} who is late is absent already",
                    f"set p.{absent.name} above p.{late.name}",
                )
                return


def _ms(parameter: Parameter, day: date) -> Fraction | None:
    if day < parameter.values[0][0]:
        return None
    value = parameter.value_at(day)
    assert isinstance(value, Fraction)
    return value * millis(parameter.unit)

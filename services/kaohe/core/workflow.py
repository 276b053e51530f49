"""The calendar of an appraisal: steps with an owner and a date, and who hears of one that was missed.

Theory of operation. What is due is known from the pack and the log's clock alone, and that a step was done is an event
that goes to every partition. The steps of the company and of teams, which the pack names, are kept by the first
partition; those of a department by the one that knows it, from the time at which it is told who leads it. So how many
partitions there are makes no difference. A step that is not done by the end of its day alerts its owner; not done so
many days later, the owner's superior as well. Being done, at any time, ends both. Only dates that pass while the log's
clock runs count as missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import msgspec

from kaohe.core.calendars import DAY_MS, Calendar, Period, bounds_of, label_of
from kaohe.core.facts import used_parameter
from kaohe.core.judge import Judge
from kaohe.core.model import Pack, WorkStep
from kaohe.core.records import Output
from kaohe.core.subjects import SEPARATOR
from kaohe.decisions import ENCODER, Alert, Words, alert_id
from kaohe.errors import EventError, UsageError

KEY = "w"
COMPANY = "company"
"""Whose step it is when it is no team's and no department's."""
KEPT_MS = 400 * DAY_MS
"""How long after a period what was done in it is remembered."""

Doing = tuple[str, str, str, str]
"""Pack, step, team or department (or ``COMPANY``) and period."""


class Due(NamedTuple):
    """That a step must be done by ``at_ms``, or its owner (stage 1) or the superior (stage 2) hears of it."""

    at_ms: int
    pack: Pack
    step: WorkStep
    label: str
    stage: int


class StoredWorkflow(msgspec.Struct, array_like=True):
    """The calendar's memory: up to when dates were looked at, what was done (ms), and which alerts fire since when."""

    cursor_ms: int | None
    done: list[tuple[Doing, int]]
    firing: list[tuple[Doing, int, int]]


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(StoredWorkflow)


class Workflow:
    """The calendar of all packs that have one; in the ``first`` partition with the steps of teams and company."""

    def __init__(self, judge: Judge, calendar: Calendar, *, first: bool) -> None:
        self.judge = judge
        self.calendar = calendar
        self.first = first
        self.cursor_ms: int | None = None
        self.done: dict[Doing, int] = {}
        self.firing: dict[tuple[Doing, int], int] = {}
        self._next: tuple[int | None, str] = (None, "")
        self._stored = b""

    # --- what is due --------------------------------------------------------------------------------------------------

    def packs(self) -> list[Pack]:
        """The packs with a calendar, in the versions that judge now."""
        return [pack for pack in self.judge.active_packs() if pack.workflow is not None]

    def begin(self, now_ms: int) -> None:
        """Begin log time: what was due before is not missed."""
        self.cursor_ms = now_ms

    def next_ms(self) -> int | None:
        """The next moment at which somebody is to hear of a step, unless it is done; None without a calendar."""
        assert self.cursor_ms is not None
        active = ",".join(pack.key for pack in self.packs())
        known, known_active = self._next
        if known_active != active or known is None or known <= self.cursor_ms:
            found = [due.at_ms for due in self._dues(self.cursor_ms) if due.at_ms > self.cursor_ms]
            self._next = (min(found) if found else None, active)
        return self._next[0]

    def _dues(self, now_ms: int) -> Iterator[Due]:
        """Every date of the periods around a moment."""
        for pack in self.packs():
            flow = pack.workflow
            assert flow is not None
            running = self.calendar.containing(flow.window, now_ms)
            before = self.calendar.previous(self.calendar.previous(running))
            after = self.calendar.following(self.calendar.following(running))
            periods = [before]
            while periods[-1] != after:
                periods.append(self.calendar.following(periods[-1]))
            for period in periods:
                first = self.calendar.day(period.start_ms)
                if first >= pack.in_force_from:
                    yield from self._of_period(pack, flow.steps, period, first)

    def _of_period(self, pack: Pack, steps: Sequence[WorkStep], period: Period, first: date) -> Iterator[Due]:
        assert pack.workflow is not None
        days = pack.parameters[pack.workflow.escalation].value_at(first)
        assert isinstance(days, Fraction)
        for step in steps:
            if not self.first and step.whose != "department":
                continue
            day = due_day(pack, step, period, first)
            yield Due(self.calendar.start_ms(day + timedelta(days=1)), pack, step, period.label, 1)
            yield Due(
                self.calendar.start_ms(day + timedelta(days=1 + int(days))), pack, step, period.label, 2
            )

    def _doers(self, due: Due) -> Sequence[str]:
        """Who has to do a step: its teams, the departments that are known here, or the company."""
        assert due.pack.workflow is not None
        if due.step.whose == "team":
            return due.pack.workflow.teams
        return self._departments(due.at_ms) if due.step.whose == "department" else (COMPANY,)

    def _departments(self, at_ms: int) -> list[str]:
        """The departments that somebody led before a moment, in the order of names."""
        found = []
        for (level, name), subject in self.judge.subjects.items():
            line = subject.line_at(at_ms - 1) if level == "department" else None
            if line is not None and line.from_ms < at_ms and (line.superior or line.leader):
                found.append(name)
        return sorted(found)

    def run(self, now_ms: int) -> list[Output]:
        """Tell of everything that was due and not done; moments must rise."""
        assert self.cursor_ms is not None
        out = []
        missed = [
            (due.at_ms, (due.pack.name, due.step.id, doer, due.label), due.stage)
            for due in self._dues(now_ms)
            if self.cursor_ms < due.at_ms <= now_ms
            for doer in self._doers(due)
        ]
        for at_ms, doing, stage in sorted(missed):
            # Nobody is told of what their subordinate was not told of: its date passed before the log began.
            if doing not in self.done and (stage == 1 or (doing, 1) in self.firing):
                self.firing[doing, stage] = at_ms
                out.append(self._alert(doing, stage, at_ms, now_ms, "firing"))
        self.cursor_ms = now_ms
        edge_ms = now_ms - KEPT_MS
        self.done = {doing: at_ms for doing, at_ms in self.done.items() if at_ms > edge_ms}
        self.firing = {key: since_ms for key, since_ms in self.firing.items() if since_ms > edge_ms}
        return out

    # --- what was done ------------------------------------------------------------------------------------------------

    def take(self, data: Any, time_ms: int) -> list[Output]:
        """Note that a step was done; what ends by that."""
        here = ("department", data.department) in self.judge.subjects if data.department else self.first
        if not here:
            return []
        doing = (data.pack, data.step, data.department or data.team or COMPANY, data.period)
        self.done.setdefault(doing, time_ms)
        out = []
        for stage in (1, 2):
            since_ms = self.firing.pop((doing, stage), None)
            if since_ms is not None:
                out.append(self._alert(doing, stage, since_ms, max(time_ms, since_ms), "resolved"))
        return out

    def _alert(
        self, doing: Doing, stage: int, since_ms: int, at_ms: int, state: Literal["firing", "resolved"]
    ) -> Output:  # fmt: skip
        name, step_id, doer, label = doing
        pack = self.judge.packs[f"{name}@{self.judge.active[name]}"]
        step = step_of(pack, step_id)
        assert step is not None
        assert pack.workflow is not None
        first = bounds_of(pack.workflow.window, label)[0]
        used = [step.day, pack.workflow.escalation] if stage == 2 else [step.day]
        whose = Words(f"{doer}, {label}", f"{doer}，{label}")
        message = Alert(
            id=alert_id(name, f"step-{step_id}", step.whose, doer, label, str(stage)), state=state, pack=name,
            pack_version=pack.version, rule=f"step-{step_id}", clause=step.clause,
            severity="medium" if stage == 1 else "high", level=step.whose, subject=doer, incident=label,
            since=self.calendar.text(since_ms), at=self.calendar.text(at_ms),
            owner=step.owner if stage == 1 else step.superior, title=step.title,
            explanation=Words(
                f"The step \"{step.title.en}\" ({whose.en}) was to be done by {due_day(pack, step, None, first)}.",
                f"步骤“{step.title.zh}”（{whose.zh}）应于{due_day(pack, step, None, first)}前完成。",
            ),
            response=Words("Do it, and note that it is done.", "请完成该步骤并登记。"),
            facts={}, parameters={f"p.{one}": used_parameter(pack.parameters[one], first) for one in used},
            evidence=[],
        )  # fmt: skip
        return Output("alerts", doer.encode(), ENCODER.encode(message))

    # --- stored form --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key."""
        state = StoredWorkflow(
            self.cursor_ms,
            sorted(self.done.items()),
            [(doing, stage, since_ms) for (doing, stage), since_ms in sorted(self.firing.items())],
        )
        raw = _ENCODER.encode(state)
        if raw == self._stored:
            return {}
        self._stored = raw
        return {KEY + SEPARATOR: raw}

    def restore(self, items: Mapping[str, bytes], now_ms: int | None) -> None:
        """Take over what was stored; without it the calendar begins now."""
        raw = items.get(KEY + SEPARATOR)
        if raw is None:
            self.cursor_ms = now_ms
            return
        self._stored = raw
        state = _DECODER.decode(raw)
        self.cursor_ms = state.cursor_ms
        self.done = dict(state.done)
        self.firing = {(doing, stage): since_ms for doing, stage, since_ms in state.firing}


def step_of(pack: Pack, step_id: str) -> WorkStep | None:
    """A step of a pack's calendar, if it has it."""
    steps = pack.workflow.steps if pack.workflow is not None else ()
    return next((step for step in steps if step.id == step_id), None)


def due_day(pack: Pack, step: WorkStep, period: Period | None, first: date) -> date:
    """The day by which a step of the period that begins on ``first`` must be done; a month's last day at most."""
    assert pack.workflow is not None
    value = pack.parameters[step.day].value_at(first)
    assert isinstance(value, Fraction)
    if step.when == "before":
        base = (first - timedelta(days=1)).replace(day=1)
    else:
        label = period.label if period is not None else label_of(pack.workflow.window, first)
        after = bounds_of(pack.workflow.window, label)[1]
        base = after if step.when == "after" else (after - timedelta(days=1)).replace(day=1)
    following = (base + timedelta(days=31)).replace(day=1)
    return min(base + timedelta(days=int(value) - 1), following - timedelta(days=1))


def check(judge: Judge, data: Any) -> None:
    """EventError when no calendar has such a step. It says the same in every partition."""
    pack = judge.packs.get(f"{data.pack}@{judge.active.get(data.pack, '')}")
    if pack is None or pack.workflow is None:
        raise EventError("unknown_step", f"the pack {data.pack} has no calendar of steps")
    step = step_of(pack, data.step)
    if step is None:
        raise EventError("unknown_step", f"{data.pack} has no step {data.step!r}")
    _check_doer(pack.workflow.teams, step, data)
    try:
        bounds_of(pack.workflow.window, data.period)
    except UsageError as error:
        raise EventError("invalid", f"$.data.period: {error}") from None


def _check_doer(teams: Sequence[str], step: WorkStep, data: Any) -> None:
    """EventError when a step is not theirs who did it. Which departments there are, no partition knows alone."""
    named = {"team": bool(data.team), "department": bool(data.department), "company": False}
    right = [whose for whose, is_named in named.items() if is_named] in ([step.whose], [])
    if right and (step.whose == "company" or named[step.whose]) and data.team in (*teams, ""):
        return
    does = {"team": ", ".join(teams), "department": "a department", "company": "nobody: it is the company's"}
    by = data.team or data.department or "the company"
    raise EventError("unknown_step", f"{step.id} is done by {does[step.whose]}, not by {by}")

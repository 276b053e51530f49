"""The core of one partition: events in, decisions, alerts, grades, partial counts and rejects out.

Theory of operation. A batch of records is applied in order. Each record is decoded, admitted (known type, plausible
time, not seen before), counted by generated code into the open cells of its agent, queue, team and
site, and, where rules or deadlines ask for its type, judged. Nothing else happens between ticks. A tick of the log's
clock moves log time: deadlines that ran out are missed, agents' counts are folded and judged at five-minute
boundaries, and what was counted for groups is reported to the group stage each minute, in numbered reports, so that a
report that is sent twice counts once.

The engine is pure: given the same records it gives the same outputs, whatever the batches, and a checkpoint taken
between two batches holds everything a successor needs.
"""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal
from zlib import crc32

import msgspec

from kaohe.core import reopening, workflow
from kaohe.core.assessing import ASSESSMENTS, Case, admit, case_of, hear, hear_evaluation, is_unheard
from kaohe.core.attending import Attending
from kaohe.core.calendars import (
    DAY_MS,
    EPOCH,
    Calendar,
    Period,
    calendar,
    check_moment,
    is_day,
)
from kaohe.core.counting import Layout, counters
from kaohe.core.counts import Cell, Counter
from kaohe.core.dossiers import GUARDED, TAGS, Dossiers, Told
from kaohe.core.effects import rolling_spans
from kaohe.core.escalating import GroupAlert, escalations, group_alert, watches_groups
from kaohe.core.evidence import Hit, Reported, Sightings, witnesses
from kaohe.core.facts import Moment
from kaohe.core.grading import Proposal
from kaohe.core.intake import (
    AGENT_BUCKET_MS,
    FUTURE_MS,
    GROUP_BUCKET_MS,
    MAX_SHIFT_MS,
    Intake,
    Route,
)
from kaohe.core.items import Items, Kind, kinds
from kaohe.core.judge import RETENTION_MS, Judge, Stats
from kaohe.core.live import CounterValue, LiveValue, counter_values, firing, live_values, subject_names
from kaohe.core.model import Effect, Pack, Rule
from kaohe.core.partials import Reader, Writer
from kaohe.core.records import Output, Record
from kaohe.core.reopening import ORDERS, Reopened, order_text, standing_open
from kaohe.core.rulesets import RuleSet
from kaohe.core.seen import Seen
from kaohe.core.storing import is_own
from kaohe.core.subjects import (
    MAX_STATES,
    NEVER_MS,
    SEPARATOR,
    AlertState,
    Cause,
    Member,
    RosterLine,
    StateLine,
    Subject,
    result_key,
)
from kaohe.core.workflow import Workflow
from kaohe.decisions import ENCODER, Reject, Words
from kaohe.errors import EventError
from kaohe.events import (
    DERIVED,
    ENVELOPES,
    PAYLOADS,
    AlertEnded,
    AlertRaised,
    AppealUpheld,
    AppraisalClosed,
    AssessmentUnheard,
    Envelope,
    RosterChanged,
    TeamJoined,
    TeamLeft,
    decode,
)
from kaohe.privacy import mask

BUCKETS_MS = {"queue": GROUP_BUCKET_MS, "site": GROUP_BUCKET_MS, "team": AGENT_BUCKET_MS}
MAX_SUBJECTS = 200_000
REPORT_PROPOSALS = 50
"""Closed results in one report, some kilobytes each."""
REPORT_ALERTS = 500
"""Alerts of groups in one report, some hundred bytes each."""
GROUP_LEVELS = ("queue", "site", "team")
SINGLE_TRIGGERS = frozenset({"event", "deadline", "attendance"})
AGENT_TRIGGERS = SINGLE_TRIGGERS | {"period", "watch"}
STATES = {
    "agent.logged_in": "not_ready",
    "agent.ready": "ready",
    "agent.not_ready": "not_ready",
    "agent.logged_out": "",
}
STATE_RANKS = {"agent.logged_in": 1, "agent.not_ready": 2, "agent.ready": 3, "agent.logged_out": 4}
"""In which order changes of state happened that are reported for one moment."""


class Zones(msgspec.Struct, frozen=True):
    """Which time zone a site keeps; ``default`` for every other one."""

    default: str
    sites: dict[str, str] = {}

    def of(self, site: str) -> Calendar:
        """The calendar of a site."""
        return calendar(self.sites.get(site, self.default))


class Followers(msgspec.Struct):
    """What an event asks for that is told to one pack at a time, or that the engine itself gives."""

    rules: list[RuleSet]
    opens: list[Kind]
    meets: list[Kind]
    cancels: list[Kind]

    @property
    def any(self) -> bool:
        """Whether anybody asks for it."""
        return bool(self.rules or self.opens or self.meets or self.cancels)


OpenGroup = tuple[str, str, list[tuple[int, bytes | dict[str, Any]]]]
"""Level and name of a group, and its open cells by bucket."""


class StoredFrame(msgspec.Struct, array_like=True):
    """What a partition remembers beside subjects, items and seen ids."""

    now_ms: int | None
    reported_ms: int
    report: int
    accrued_ms: int
    groups: list[OpenGroup]
    chunks: list[tuple[int, int]]
    part: int
    activations: list[tuple[int, str, str]]
    proposals: list[Proposal] = []
    alerts: list[GroupAlert] = []
    opened: list[Reopened] = []
    seen: list[Reported] = []
    terms: list[str] = []


PackedGroup = tuple[str, str, int, bytes | dict[str, Any]]
"""Level, name, start of the bucket in ms, and the cell as ``kaohe.core.partials`` writes it (once: by names)."""


class Report(msgspec.Struct):
    """What one partition counted for groups since its last report, up to a minute of log time.

    ``groups`` are the cells of groups, which name what they count by its place in ``terms``; ``activations`` the
    versions of packs (moment of log time, pack, version) that were activated since the report before, or in the
    version's place what happened to a period (``close month 2026-08``, ``reopen month 2026-08``), ``proposals`` the
    closed results for which the company must be known (only in reports to the partition of the company, and only if
    any), ``alerts`` what happened to alerts of these groups, and acknowledgements of any (only if a pack watches them),
    ``seen`` the events that speak for what is judged of these groups (only if any).
    """

    source: int
    number: int
    upto_ms: int
    groups: list[PackedGroup] = []
    activations: list[tuple[int, str, str]] = []
    proposals: list[Proposal] | msgspec.UnsetType = msgspec.UNSET
    alerts: list[GroupAlert] | msgspec.UnsetType = msgspec.UNSET
    seen: list[Reported] | msgspec.UnsetType = msgspec.UNSET
    terms: list[str] = []


_REPORTS = msgspec.msgpack.Encoder()
_REPORT_DECODER = msgspec.msgpack.Decoder(Report)
_JSON_REPORT_DECODER = msgspec.json.Decoder(Report)


def read_report(raw: bytes) -> Report:
    """A report as it was sent, also by a worker from before reports were written in MessagePack."""
    return (_JSON_REPORT_DECODER if raw[:1] == b"{" else _REPORT_DECODER).decode(raw)


_FRAME_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_FRAME_DECODER = msgspec.msgpack.Decoder(StoredFrame)


def _state_counts(counters: Mapping[str, Counter]) -> dict[str, tuple[Counter, ...]]:
    """What counts the time in each state of work: its own counter and that of being logged in, where there are any."""
    found: dict[str, tuple[Counter, ...]] = {}
    for state in filter(None, STATES.values()):
        sources = (f"state/{state}", "state/logged_in")
        own = tuple(counters[source] for source in sources if source in counters)
        if own:
            found[state] = own
    return found


def _reads_own_states(packs: Iterable[Pack]) -> bool:
    """Whether any metric counts for each agent how long they were in a state of work."""
    return any(
        term.source.startswith("state/")
        for pack in packs
        for metric in pack.metrics.values()
        if "agent" in metric.levels
        for term in (*metric.numerator, *metric.denominator)
    )


def group_partition(level: str, name: str, group_partitions: int) -> int:
    """The partition of the group stage that looks at a group; one looks at the whole ``company``."""
    return crc32(f"{level}/{name}".encode()) % group_partitions


class _Targets(dict[str, int]):
    """The partition of the group stage that looks at a group of a level, by its name; worked out when asked for."""

    def __init__(self, level: str, group_partitions: int) -> None:
        super().__init__()
        self._level = level
        self._partitions = group_partitions

    def __missing__(self, name: str) -> int:
        if len(self) >= MAX_SUBJECTS:
            self.clear()
        found = self[name] = group_partition(self._level, name, self._partitions)
        return found


def _check_agent(tag: str, data: Any, time_ms: int, agent: Subject | None) -> None:
    """Refuse a state of work or a place in the roster that nobody can have."""
    if agent is None:
        raise EventError("invalid", "$.data.agent is missing: the event is about an agent")
    full = tag in STATES and len(agent.states) >= MAX_STATES
    if full and time_ms < agent.states[0].from_ms:
        raise EventError("out_of_order_state", f"{MAX_STATES} newer states of this agent are known already")
    if SEPARATOR in data.team or SEPARATOR in data.site:
        raise EventError("invalid", "$.data names a team or site with a control character")
    if tag == "roster.changed" and data.left_on and not is_day(data.left_on):
        raise EventError("invalid", f"$.data.left_on: there is no day {data.left_on}")


class PartitionEngine(Intake):
    """The engine of one partition of ``kaohe.events``."""

    def __init__(
        self,
        packs: Iterable[Pack],
        *,
        zones: Zones,
        partition: int = 0,
        group_partitions: int = 1,
        topic: str = "kaohe.events",
    ) -> None:
        self.packs = tuple(packs)
        self.zones = zones
        self.partition = partition
        self.group_partitions = group_partitions
        self._targets = {level: _Targets(level, group_partitions) for level in GROUP_LEVELS}
        self._company = group_partition("company", "company", group_partitions)
        self.topic = topic
        self.layout = Layout(self.packs)
        self.counters = counters(self.layout)
        by_key = {pack.key: pack for pack in self.packs}
        nowhere: tuple[int, ...] = ()
        alone = (*GROUP_LEVELS, "department")
        spans = dict.fromkeys(alone, nowhere) | {"agent": rolling_spans(by_key, "agent")}
        triggers = dict.fromkeys(alone, SINGLE_TRIGGERS) | {"agent": AGENT_TRIGGERS}
        self.judge = Judge(self.layout, self.packs, triggers, AGENT_BUCKET_MS, spans, self._calendar_of)
        self.judge.on_forget = self._forget
        self.sightings = Sightings(witnesses(self.layout), BUCKETS_MS)
        deadlines = kinds(self.packs, self.counters, self.judge.book.deadline, self.sightings.seeing)
        self.items = Items(self, deadlines)
        self.deadlines = self.items.deadlines
        self.attending = Attending(self)
        self.accrued_ms = 0
        self.reported_ms = 0
        self.report = 0
        self.groups = {"queue": self.queues, "site": self.sites, "team": self.teams}
        self.seen = Seen()
        self.activations: list[tuple[int, str, str]] = []
        self.stored_frame = b""
        self.dossiers = Dossiers(self.judge)
        # What is due for the company as a whole is looked after in one place, a department's where it is known.
        flows = any(pack.workflow is not None for pack in self.packs)
        self.workflow = Workflow(self.judge, zones.of(""), first=partition == 0) if flows else None
        self.followers: dict[str, Followers] = {}
        self._escalations: frozenset[str] = frozenset()
        self._watches_groups = watches_groups(self.packs)
        self.alerts: list[GroupAlert] = []
        self.opened: list[Reopened] = []
        """The periods that are open again; the first partition tells of them, and no other one keeps this."""
        self.names = self.layout.names()
        self.state_counts = _state_counts(self.counters)
        self.agents_own_states = _reads_own_states(self.packs)
        self.plans = self._plan(deadlines)
        self._listen()
        self.accept_ms = RETENTION_MS
        self.tick_class = ENVELOPES["clock.tick"]
        self._site = ""

    @property
    def stats(self) -> Stats:
        """Counts since the engine began."""
        stats = self.judge.stats
        stats.events = {plan.tag: plan.taken for plan in self.plans.values() if plan.taken}
        return stats

    @property
    def watermark_ms(self) -> int:
        """The log's clock; 0 before the first tick."""
        return self.now_ms or 0

    def _calendar_of(self, level: str, name: str) -> Calendar:
        if level == "agent":
            return self.zones.of(self._site)
        return self.zones.of(name if level == "site" else "")

    def _forget(self, subject: Subject) -> None:
        if subject.level == "agent":
            self.agents.pop(subject.name, None)
            self.working.discard(subject.name)
            self.dossiers.forget(subject.name)

    def _plan(self, deadlines: Iterable[Kind]) -> dict[type, Route]:
        plans = {tag: Route(tag, ENVELOPES[tag], PAYLOADS[tag]) for tag in PAYLOADS}
        for tag, plan in plans.items():
            plan.count = self.counters.get(tag)
            plan.rules = self.judge.book.event.get(tag, [])
            plan.seeing = self.sightings.seeing.get(tag)
            plan.sieve = self.sightings.witnesses.sieves.get(tag)
        for kind in deadlines:
            plans[kind.deadline.opens].opens.append(kind)
            for tag in kind.deadline.met_by:
                plans[tag].meets.append(kind)
            for tag in kind.deadline.cancelled_by:
                plans[tag].cancels.append(kind)
        for tag, special in self._specials():
            plans[tag].special = special
        self._set_apart(plans)
        for plan in plans.values():
            plan.settle()
        return {ENVELOPES[tag]: plan for tag, plan in plans.items()}

    def _specials(self) -> Iterator[tuple[str, Callable[[Envelope, int, Subject | None], None]]]:
        """What the engine itself does at some events."""
        yield "roster.changed", self._change_roster
        yield "pack.activated", self._activate
        for tag in ORDERS:
            yield tag, self._order
        yield "step.done", self._step
        yield "department.changed", self._change_department
        for tag in ASSESSMENTS:
            yield tag, self._hear
        if self._watches_groups:
            yield "alert.acknowledged", self._acknowledge
        if self.judge.grader.evaluated:
            yield "quality.evaluated", self._hear_evaluation
        for tag in STATES:
            yield tag, self._change_state
        for tag in self.attending.tags:
            yield tag, self._attend

    def _set_apart(self, plans: Mapping[str, Route]) -> None:
        """What is told to one pack at a time, or by the engine itself, no event from outside brings about."""
        for tag in TAGS:
            plans[tag].special = self._note
        for tag in sorted(GUARDED | DERIVED):
            plan = plans[tag]
            self.followers[tag] = Followers(plan.rules, plan.opens, plan.meets, plan.cancels)
            plan.rules, plan.opens, plan.meets, plan.cancels = [], [], [], []

    def _listen(self) -> None:
        """Have the judge say what some pack asks for; an alert about an alert that nobody sees to is not told again."""
        if self.followers["appraisal.closed"].any:
            self.judge.on_close = self._closed
        if self.followers["alert.raised"].any:
            self.judge.on_alert = self._alerted
            self._escalations = escalations(self.packs)

    # --- records ------------------------------------------------------------------------------------------------------

    def _reject_undecodable(self, record: Record) -> None:
        try:
            decode(record.value)
        except EventError as error:
            self._reject(record, error)

    def _reject(self, record: Record, error: EventError) -> None:
        rejects = self.judge.stats.rejects
        rejects[error.code] = rejects.get(error.code, 0) + 1
        raw = base64.b64encode(mask(record.value)).decode()
        reject = Reject(
            code=error.code,
            reason=str(error),
            topic=self.topic,
            partition=self.partition,
            offset=record.offset,
            raw=raw,
        )
        self.judge.out.append(Output("rejects", error.code.encode(), ENCODER.encode(reject)))

    def check_time(self, time_ms: int, now_ms: int | None) -> None:
        if now_ms is None:
            check_moment(time_ms, "$.time")
            return
        if time_ms > now_ms + FUTURE_MS:
            ahead_s, allowed_s = (time_ms - now_ms) // 1000, FUTURE_MS // 1000
            raise EventError(
                "future", f"the event is {ahead_s} s ahead of the log's clock; {allowed_s} s are allowed"
            )
        if time_ms < now_ms - self.accept_ms:
            days = self.accept_ms // DAY_MS
            raise EventError(
                "too_late", f"the event is more than {days} days late; its period is closed for good"
            )
        self.judge.stats.late += 1

    def check(self, plan: Route, event: Envelope, time_ms: int, agent: Subject | None) -> None:
        """Refuse, before anything is counted, what could not be carried out later."""
        data = event.data
        if plan.tag in STATES or plan.tag == "roster.changed":
            _check_agent(plan.tag, data, time_ms, agent)
        elif plan.tag == "pack.activated":
            self._check_activation(data)
        elif plan.tag == "department.changed":
            self._check_department(event)
        elif plan.tag in ASSESSMENTS:
            self._check_assessment(plan.tag, event, time_ms, agent)
        elif plan.tag in ORDERS or plan.tag in TAGS or plan.tag == "step.done":
            self._check_people(plan.tag, data, agent)
        if plan.tag in self.attending.tags:
            self.attending.check(plan.tag, data, agent)

    def _check_people(self, tag: str, data: Any, agent: Subject | None) -> None:
        """Refuse what people said about a period, an appeal or a goal and cannot be carried out."""
        if tag in ORDERS:
            reopening.check(self.judge, tag, data, self.zones.of(""), self.watermark_ms)
        elif tag == "step.done":
            workflow.check(self.judge, data)
        else:
            self.dossiers.check(tag, data, agent)
            self.deadlines.check_room()

    def _check_activation(self, data: Any) -> None:
        """Refuse a version that nobody approved, or that cannot judge here."""
        for field, what in (("by", "who approved it"), ("reason", "why")):
            if not getattr(data, field).strip():
                raise EventError("unapproved", f"$.data.{field} is missing: an activation says {what}")
        if f"{data.pack}@{data.version}" not in self.judge.packs:
            known = ", ".join(sorted(self.judge.packs))
            raise EventError(
                "unknown_pack", f"{data.pack}@{data.version} is not loaded here; loaded: {known}"
            )

    def new_agent(self, event: Envelope, name: str, time_ms: int) -> Subject:
        if name != event.subject:
            raise EventError(
                "agent_not_subject", "$.data.agent must equal $.subject, which decides the partition"
            )
        if SEPARATOR in name:
            raise EventError("invalid", "$.data.agent contains a control character")
        if len(self.agents) >= MAX_SUBJECTS:
            raise EventError("too_many_subjects", f"more than {MAX_SUBJECTS} agents in one partition")
        agent = self.make_agent(name, event.data.site, time_ms)
        self.judge.touched.add(agent.key)
        return agent

    def make_agent(self, name: str, site: str, time_ms: int) -> Subject:
        """An agent that is not known, or was forgotten."""
        self._site = site
        agent = self.agents[name] = self.judge.subject("agent", name, time_ms)
        return agent

    def _see_early(self, agent: Subject, time_ms: int) -> None:
        """An event that came out of order is the first that is known of an agent."""
        agent.first_seen_ms = time_ms
        self.judge.touched.add(agent.key)

    def open_group(self, level: str, name: str) -> dict[int, Cell]:
        """Where the open cells of a group are kept that has none; EventError when it cannot have any."""
        if SEPARATOR in name:
            raise EventError("invalid", f"$.data.{level} contains a control character")
        groups = self.groups[level]
        if len(groups) >= MAX_SUBJECTS:
            raise EventError("too_many_subjects", f"more than {MAX_SUBJECTS} {level}s in one partition")
        cells = groups[name] = {}
        return cells

    # --- what follows the counting ------------------------------------------------------------------------------------

    def _judge_all(self, plan: Route, event: Envelope, time_ms: int, team: str, site: str) -> None:
        """Judge an event by every rule that asks for it."""
        names = {"agent": event.data.agent, "queue": event.data.queue, "team": team, "site": site}
        for rules in plan.rules:
            self._judge_single(rules, event, time_ms, names)

    def see(
        self, hits: list[Hit], at_ms: int, event_id: str, agent: Subject | None, place: tuple[str, str, str]
    ) -> None:
        """Keep an event that speaks for something that is judged. ``place`` is queue, team and site."""
        self.sightings.take(hits, at_ms, event_id, (), agent, place)
        if agent is not None:
            self.judge.touched.add(agent.key)

    # --- what the engine itself gives ---------------------------------------------------------------------------------

    def _note(self, event: Envelope, time_ms: int, agent: Subject | None) -> None:
        """Put an event into the dossier of its agent, and tell what it means."""
        assert agent is not None
        for told in self.dossiers.take(self.plans[event.__class__].tag, event.data, time_ms, agent):
            self._tell(event.id, told, time_ms)
            if isinstance(told.data, AppealUpheld) and told.data.outcome == "upheld" and self.attending.packs:
                pack = self.judge.packs[f"{told.pack}@{self.judge.active[told.pack]}"]
                entries = [agent.entries[one] for one in told.data.reversals if one in agent.entries]
                self.attending.excuse(agent, pack, entries, time_ms, event.id)

    def _closed(self, subject: Subject, pack: Pack, period: Period, now_ms: int) -> None:
        state = subject.grades.get(result_key(pack.name, period))
        if state is None or subject.level != "agent":
            return
        own_id = f"{pack.name}/{subject.name}/{period.label}"
        data = AppraisalClosed(
            agent=subject.name, appraisal_id=own_id, pack=pack.name, window=period.window, period=period.label,
            grade=state.grade,
        )  # fmt: skip
        self._waiting.append((own_id, Told("appraisal.closed", data, pack.name), now_ms))

    def _alerted(
        self, subject: Subject, rule: Rule, effect: Effect, state: AlertState, to: str, incident: str, at_ms: int
    ) -> None:  # fmt: skip
        if f"{rule.pack}|{rule.id}" in self._escalations:
            return
        if subject.level != "agent":
            if self._watches_groups and subject.level in GROUP_LEVELS:
                self.alerts.append(group_alert(subject, rule, effect, state, to, incident, at_ms))
            return
        common = {"agent": subject.name, "alert_id": state.id, "pack": rule.pack, "rule": rule.id}
        if to == "firing":
            raised = AlertRaised(
                **common, severity=effect.severity, owner=effect.owner, incident=incident
            )  # fmt: skip
            self._waiting.append((state.id, Told("alert.raised", raised, ""), at_ms))
        else:
            self._waiting.append((state.id, Told("alert.ended", AlertEnded(**common), ""), at_ms))

    def _acknowledge(self, event: Envelope, time_ms: int, agent: Subject | None) -> None:
        """Pass the acknowledgement of a group's alert on: whoever watches the alert knows its id."""
        if agent is None:
            self.alerts.append(GroupAlert("acknowledged", time_ms, event.data.alert_id, event.id))

    def _tell_waiting(self) -> None:
        """Tell what the judge has said meanwhile; what follows from that is told as well."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            for cause, told, at_ms in waiting:
                self._tell(cause, told, at_ms)

    def _tell(self, cause: str, told: Told, time_ms: int) -> None:
        """Let rules and deadlines (of one pack, unless it concerns all) follow something that the engine gives."""
        followers, data = self.followers[told.tag], told.data
        plan = self.plans[ENVELOPES[told.tag]]
        count, seeing = (plan.count, plan.seeing) if told.tag in DERIVED else (None, None)
        if count is None and seeing is None and not followers.any:
            return
        agent = self.agents.get(data.agent)
        assert agent is not None, data.agent
        team, site, _ = agent.roster_at(time_ms)
        if count is not None:
            self.count_apart((count,), data, time_ms, agent, ("", team, site), 1)
        hits = seeing(data, time_ms) if seeing is not None else None
        if hits is not None:
            self.see(hits, time_ms, cause, agent, ("", team, site))
        event = ENVELOPES[told.tag](
            id=cause,
            source="kaohe",
            subject=agent.name,
            time=EPOCH + timedelta(milliseconds=time_ms),
            data=data,
        )
        names = {"agent": agent.name, "queue": "", "team": team, "site": site}
        for rules in followers.rules:
            if told.pack in ("", rules.pack.name):
                self._judge_single(rules, event, time_ms, names, about_decided=told.tag in GUARDED)
        place = ("", team, site)
        for kind in followers.opens:
            if told.pack in ("", kind.pack_name) and self.deadlines.has_room():
                self.items.open(kind, event, time_ms, place)
        for kind in followers.meets:
            if told.pack in ("", kind.pack_name):
                self.items.end(kind, event, time_ms, place, met=True)
        for kind in followers.cancels:
            if told.pack in ("", kind.pack_name):
                self.items.end(kind, event, time_ms, place, met=False)

    def subject(self, names: Mapping[str, str], level: str, time_ms: int) -> Subject | None:
        """The subject of a level, made when it is new; None where there is none, or no room for it."""
        name = names[level]
        if not name:
            return None
        self._site = names["site"]
        if (level, name) not in self.judge.subjects and len(self.judge.subjects) >= 2 * MAX_SUBJECTS:
            rejects = self.judge.stats.rejects
            rejects["too_many_subjects"] = rejects.get("too_many_subjects", 0) + 1
            return None
        return self.judge.subject(level, name, time_ms)

    def _judge_single(
        self, rules: RuleSet, event: Envelope, time_ms: int, names: Mapping[str, str], *, about_decided: bool = False
    ) -> None:  # fmt: skip
        subject = self.subject(names, rules.level, time_ms)
        if subject is None:
            return
        data = event.data
        moment = Moment(
            subject.series, subject.roster_at(time_ms), time_ms,
            day=subject.series.calendar.day(time_ms), event=data, open_cells=True,
        )  # fmt: skip

        def cause_of(rule: Rule) -> Cause:
            incident = getattr(data, rule.incident) if rule.incident else ""
            return Cause(time_ms, str(incident or event.id), (event.id,))

        now_ms = max(time_ms, self.watermark_ms)
        self.judge.judge_event(subject, rules, moment, cause_of, now_ms, about_decided=about_decided)

    def _change_roster(self, event: Envelope, time_ms: int, agent: Subject | None) -> None:
        data = event.data
        assert isinstance(data, RosterChanged)
        assert agent is not None
        line = RosterLine(
            time_ms, data.team, data.site, data.position, list(data.packs), data.superior, data.leader,
            data.department, data.hired_on or "", data.left_on or "",
        )  # fmt: skip
        before = agent.member()
        agent.enrol(line)
        self._move_member(agent, before, agent.member(), time_ms, event.id)
        self.judge.move(agent, self.zones.of(agent.site), max(time_ms, self.watermark_ms))
        self.judge.touched.add(agent.key)
        if self.attending.packs:
            self.attending.move(agent)

    def _move_member(
        self, agent: Subject, before: Member | None, after: Member | None, at_ms: int, event_id: str
    ) -> None:
        """Count who joins and leaves a team. A day of leaving that is known is counted ahead, and taken back so."""
        joined, left = (self.plans[ENVELOPES[tag]] for tag in ("team.joined", "team.left"))
        if before == after or (joined.count is None and left.count is None):
            return
        was = before if before is not None and before.until_ms > at_ms else None
        now = after if after is not None and after.until_ms > at_ms else None
        stays = was is not None and now is not None and was[:3] == now[:3]
        if was is not None and not stays:
            self._count_member(left, TeamLeft, agent, was, at_ms, 1, event_id)
        if now is not None and not stays:
            self._count_member(joined, TeamJoined, agent, now, at_ms, 1, event_id)
        for member, weight in ((was, -1), (now, 1)):
            if member is not None and member.until_ms < NEVER_MS:
                self._count_member(left, TeamLeft, agent, member, member.until_ms, weight, event_id)

    def _count_member(
        self,
        plan: Route,
        kind: type[TeamJoined | TeamLeft],
        agent: Subject,
        member: Member,
        at_ms: int,
        weight: int,
        event_id: str,
    ) -> None:
        data = kind(agent=agent.name, team=member.team, site=member.site, position=member.position)
        place = ("", member.team, member.site)
        if plan.count is not None:
            self.count_apart((plan.count,), data, at_ms, None, place, weight)
        hits = plan.seeing(data, at_ms) if plan.seeing is not None else None
        if hits is not None:
            # Of a day of leaving, what is counted ahead may be taken back by another event of the roster.
            self.sightings.take(
                hits, at_ms, f"{plan.tag}/{agent.name}/{at_ms}", (event_id,), None, place, weight
            )

    def _activate(self, event: Envelope, _time_ms: int, _agent: Subject | None) -> None:
        pack, version = event.data.pack, event.data.version
        if self.judge.active[pack] != version:
            self.judge.activate(pack, version, self.watermark_ms)
            self.activations.append((self.watermark_ms, pack, version))

    def _attend(self, event: Envelope, time_ms: int, agent: Subject | None) -> None:
        """Tell the attendance what happened; logging in and out is a state of work as well."""
        assert agent is not None
        tag = self.plans[event.__class__].tag
        if tag in STATES:
            self._change_state(event, time_ms, agent)
        self.attending.take(tag, event, time_ms, agent)

    def _order(self, event: Envelope, time_ms: int, _agent: Subject | None) -> None:
        """Close a period early or open it again, here and (by the next report) in the group stage."""
        data, tag = event.data, self.plans[event.__class__].tag
        order = order_text(tag, data)
        reopening.carry_out(self.judge, data.pack, order, self.watermark_ms)
        self.activations.append((self.watermark_ms, data.pack, order))
        if self.partition != 0:
            return
        now_ms = max(time_ms, self.watermark_ms)
        key = (data.pack, data.window, data.period)
        if tag == "period.reopened":
            one = Reopened(*key, data.by, data.reason, now_ms, event.id)
            self.opened.append(one)
            self._tell_open(one, "firing", now_ms, Words("", ""))
            return
        because = Words(f"{data.by} closed it again: {data.reason}", f"{data.by}已再次关闭：{data.reason}")
        for one in self.opened:
            if one.key == key:
                self._tell_open(one, "resolved", now_ms, because)
        self.opened = [one for one in self.opened if one.key != key]

    def _tell_open(
        self, one: Reopened, state: Literal["firing", "resolved"], at_ms: int, ended: Words
    ) -> None:  # fmt: skip
        pack = self.judge.packs[f"{one.pack}@{self.judge.active[one.pack]}"]
        self.judge.out.append(standing_open(pack, one, state, at_ms, self.zones.of(""), ended))

    def _forget_open(self, now_ms: int) -> None:
        """A period that is open again is closed for good when its entries are forgotten."""
        for one in list(self.opened):
            end_ms = self.zones.of("").period(one.window, one.period).end_ms + self.judge.retention_ms
            if end_ms <= now_ms:
                self.opened.remove(one)
                self._tell_open(
                    one, "resolved", end_ms, Words("It lies too far back now", "该周期已超出保留期")
                )

    def _step(self, event: Envelope, time_ms: int, _agent: Subject | None) -> None:
        if self.workflow is not None:
            self.judge.out += self.workflow.take(event.data, time_ms)

    # --- assessments --------------------------------------------------------------------------------------------------

    def _check_department(self, event: Envelope) -> None:
        name = event.data.department
        if event.data.agent or name != event.subject:
            raise EventError(
                "department_not_subject",
                "$.data.department must equal $.subject, which decides the partition, and there is no agent",
            )
        if SEPARATOR in name:
            raise EventError("invalid", "$.data.department contains a control character")
        if len(self.judge.subjects) >= 2 * MAX_SUBJECTS:
            raise EventError("too_many_subjects", f"more than {2 * MAX_SUBJECTS} subjects in one partition")

    def _check_assessment(self, tag: str, event: Envelope, time_ms: int, agent: Subject | None) -> None:
        data = event.data
        subject, level = agent, "agent"
        if agent is None or data.department:
            self._check_department(event)
            subject, level = self.judge.subjects.get(("department", data.department)), "department"
        now_ms = max(time_ms, self.watermark_ms)
        case = self._case(data, level, subject)
        admit(tag, data, level, case, self.judge, subject, time_ms, now_ms)

    def _case(self, data: Any, level: str, subject: Subject | None) -> Case:
        own = subject.series.calendar if subject is not None else self.zones.of("")
        return case_of(data, level, self.judge, own, self.judge.grader.card)

    def _change_department(self, event: Envelope, time_ms: int, _agent: Subject | None) -> None:
        data = event.data
        department = self.judge.subject("department", data.department, time_ms)
        line = RosterLine(time_ms, "", "", "", [], data.head, data.leader, data.department)
        department.enrol(line)
        self.judge.touched.add(department.key)

    def _hear(self, event: Envelope, time_ms: int, agent: Subject | None) -> None:
        data = event.data
        subject = agent or self.judge.subject("department", data.department, time_ms)
        case = self._case(data, subject.level, subject)
        # Who is assessed for a period was there in it.
        subject.first_seen_ms = min(subject.first_seen_ms, time_ms, case.period.end_ms - 1)
        hear(self.plans[event.__class__].tag, data, case, subject, time_ms, event.id)
        self.judge.touched.add(subject.key)
        self.judge.regrade(subject, case.pack, case.period, max(time_ms, self.watermark_ms))
        if agent is not None and is_unheard(data, case, subject, time_ms):
            unheard = AssessmentUnheard(
                agent=agent.name, appraisal_id=f"{case.pack.name}/{agent.name}/{case.period.label}",
                pack=case.pack.name, window=case.period.window, period=case.period.label, item=data.item,
                role=data.role, by=data.by,
            )  # fmt: skip
            self._tell(event.id, Told("assessment.unheard", unheard, case.pack.name), time_ms)

    def _hear_evaluation(self, event: Envelope, time_ms: int, agent: Subject | None) -> None:
        """The score of a monitored contact counts in each card that asks for it; late ones in the running period."""
        if agent is None:
            return
        now_ms = max(time_ms, self.watermark_ms)
        for pack in self.judge.active_packs():
            for window in self.judge.grader.evaluated.get(pack.key, ()):
                period = agent.series.calendar.containing(window, time_ms)
                if self.judge.is_closed(pack, agent, period, now_ms):
                    period = self.judge.running(pack, agent, window, now_ms)
                if self.judge.judges(pack, agent, time_ms):
                    hear_evaluation(event.data, pack, period, agent)
                    self.judge.touched.add(agent.key)
                    self.judge.regrade(agent, pack, period, now_ms)

    # --- states of work -----------------------------------------------------------------------------------------------

    def _change_state(self, event: Envelope, time_ms: int, agent: Subject | None) -> None:
        """Put a change of state in its place; what was counted for the state it cuts short is corrected.

        The states before and after are what they are by their own times, so the order of arrival does not matter.
        """
        assert agent is not None
        tag = self.plans[event.__class__].tag
        line = StateLine(time_ms, STATE_RANKS[tag], STATES[tag])
        index = len(agent.states)
        if index and line < agent.states[-1]:
            index = bisect_right(agent.states, line)
        before = agent.states[index - 1] if index else StateLine(time_ms, 0, "")
        if index == len(agent.states):
            end_ms = min(time_ms, before.from_ms + MAX_SHIFT_MS)
            self.spend(agent, before.state, agent.state_since_ms, end_ms, 1)
            self.spend(agent, before.state, end_ms, agent.state_since_ms, -1)
            agent.state = line.state
            agent.state_from_ms = agent.state_since_ms = time_ms
            (self.working.add if line.state else self.working.discard)(agent.name)
        else:
            end_ms = agent.states[index].from_ms
            self.spend(agent, before.state, time_ms, min(end_ms, before.from_ms + MAX_SHIFT_MS), -1)
            self.spend(agent, line.state, time_ms, min(end_ms, time_ms + MAX_SHIFT_MS), 1)
        agent.states.insert(index, line)
        del agent.states[:-MAX_STATES]
        self.judge.touched.add(agent.key)

    # --- log time -----------------------------------------------------------------------------------------------------

    def _begin(self, time_ms: int) -> None:
        self.judge.start(time_ms)
        self.reported_ms = time_ms // GROUP_BUCKET_MS * GROUP_BUCKET_MS
        self.accrued_ms = time_ms // AGENT_BUCKET_MS * AGENT_BUCKET_MS
        self.seen.begin(time_ms // 60_000)
        self.attending.begin(time_ms)
        if self.workflow is not None:
            self.workflow.begin(time_ms)

    def _advance(self, time_ms: int) -> None:
        """Do everything that falls due up to ``time_ms``, in order."""
        while True:
            due_ms = self._next_ms()
            if due_ms > time_ms:
                break
            self._run(due_ms)
        if self.opened:
            self._forget_open(time_ms)
        grid_ms = time_ms // GROUP_BUCKET_MS * GROUP_BUCKET_MS
        if grid_ms > self.reported_ms:
            self._report(grid_ms)
        self.judge.settle(time_ms)
        self.accrued_ms = max(self.accrued_ms, time_ms // AGENT_BUCKET_MS * AGENT_BUCKET_MS)
        self.due_ms = min(self._next_ms(), self.reported_ms + GROUP_BUCKET_MS)

    def _next_ms(self) -> int:
        """The next moment at which something is due."""
        dues = (self.deadlines.next_ms(), self.attending.next_ms(), self.judge.due_ms())
        found = [due for due in dues if due is not None]
        if self.workflow is not None and (step_ms := self.workflow.next_ms()) is not None:
            found.append(step_ms)
        if self.working:
            found.append(self.accrued_ms + AGENT_BUCKET_MS)
        if self.queues or self.teams or self.sites:
            found.append(self.reported_ms + GROUP_BUCKET_MS)
        return min(found) if found else (1 << 62)

    def _run(self, now_ms: int) -> None:
        self.items.miss_before(now_ms)
        if self.attending.is_due(now_ms):
            # It counts for moments that are over: what is judged next must not lie before now.
            self.judge.settle(now_ms - 1)
            self.attending.run(now_ms)
        if self.workflow is not None and (self.workflow.next_ms() or now_ms + 1) <= now_ms:
            self.judge.out += self.workflow.run(now_ms)
        if now_ms % AGENT_BUCKET_MS == 0 and now_ms > self.accrued_ms:
            self.accrue(now_ms)
            self.accrued_ms = now_ms
        if now_ms % GROUP_BUCKET_MS == 0 and now_ms > self.reported_ms:
            self._report(now_ms)
        if (
            self.judge.grid_ms is not None
            and now_ms > self.judge.grid_ms
            and (self.judge.due_ms() or 0) <= now_ms
        ):
            self.judge.run(now_ms)
        if self._waiting:
            self._tell_waiting()

    def _report(self, upto_ms: int) -> None:
        """Tell the group stage what was counted for groups in the minutes before ``upto_ms``."""
        shares: list[list[PackedGroup]] = [[] for _ in range(self.group_partitions)]
        writer = Writer(self.names)
        for level, groups in self.groups.items():
            bucket_ms = BUCKETS_MS[level]
            writer.take(level, groups, upto_ms // bucket_ms, bucket_ms, shares, self._targets[level])
        seen: list[list[Reported]] = [[] for _ in shares]
        for one in self.sightings.due(upto_ms):
            seen[self._targets[one[0]][one[1]]].append(one)
        # A report must fit into a message. The first ones say nothing of the new minute, so that it is complete only
        # with the last one.
        while len(self.judge.grader.proposals) > REPORT_PROPOSALS or len(self.alerts) > REPORT_ALERTS:
            self._send_report(self.reported_ms)
        self._send_report(upto_ms, writer.terms, shares, seen, self.activations)
        self.activations = []

    def _send_report(
        self, upto_ms: int, terms: list[str] | None = None, shares: Sequence[list[PackedGroup]] = (),
        seen: Sequence[list[Reported]] = (), activations: list[Any] | None = None,
    ) -> None:  # fmt: skip
        waiting = self.judge.grader.proposals
        proposals, self.judge.grader.proposals = waiting[:REPORT_PROPOSALS], waiting[REPORT_PROPOSALS:]
        alerts, self.alerts = self.alerts[:REPORT_ALERTS], self.alerts[REPORT_ALERTS:]
        self.report += 1
        self.reported_ms = upto_ms
        for target in range(self.group_partitions):
            message = Report(self.partition, self.report, upto_ms)
            if shares and shares[target]:
                message.groups, message.terms = shares[target], terms or []
            if activations:
                message.activations = activations
            if alerts:
                message.alerts = [
                    one for one in alerts if not one.name or self._targets[one.level][one.name] == target
                ]
            if seen and seen[target]:
                message.seen = seen[target]
            if target == self._company and proposals:
                message.proposals = proposals
            self.judge.out.append(
                Output("partials", b"%d" % self.partition, _REPORTS.encode(message), target)
            )

    # --- stored form --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key; None for what is gone."""
        changed = self.judge.checkpoint()
        changed.update(self.deadlines.checkpoint())
        changed.update(self.attending.checkpoint())
        changed.update(self.dossiers.checkpoint())
        if self.workflow is not None:
            changed.update(self.workflow.checkpoint())
        changed.update(self.seen.checkpoint())
        writer = Writer(self.names)
        groups: list[OpenGroup] = [
            (level, name, [(bucket, writer.write(cell)) for bucket, cell in sorted(cells.items())])
            for level, named in self.groups.items()
            for name, cells in sorted(named.items())
        ]
        chunks = sorted(self.seen.chunks.items())
        frame = _FRAME_ENCODER.encode(
            StoredFrame(
                self.now_ms,
                self.reported_ms,
                self.report,
                self.accrued_ms,
                groups,
                chunks,
                self.seen.part,
                self.activations,
                self.judge.grader.proposals,
                self.alerts,
                self.opened,
                self.sightings.stored(),
                writer.terms,
            )
        )
        if frame != self.stored_frame:
            changed["frame"] = self.stored_frame = frame
        return changed

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Take over a stored state; the engine must be fresh. No items: nothing was stored yet."""
        if not items:
            return
        assert self.now_ms is None
        assert not self.agents
        self.judge.restore({key: raw for key, raw in items.items() if is_own(key)})
        self.stored_frame = items["frame"]
        frame = _FRAME_DECODER.decode(items["frame"])
        self.now_ms, self.reported_ms, self.report = frame.now_ms, frame.reported_ms, frame.report
        self.accrued_ms = frame.accrued_ms
        reader = Reader(frame.terms, self.layout.slots)
        for level, name, cells in frame.groups:
            self.groups[level][name] = {bucket: reader.read(cell) for bucket, cell in cells}
        for (level, name), subject in self.judge.subjects.items():
            if level == "agent":
                self.agents[name] = subject
                if subject.state:
                    self.working.add(name)
        self.seen.restore(frame.part, dict(frame.chunks), items)
        self.activations = frame.activations
        self.judge.grader.proposals = frame.proposals
        self.alerts = frame.alerts
        # A pack that is not loaded any more has no period that could be open.
        self.opened = [one for one in frame.opened if one.pack in self.judge.active]
        self.sightings.restore(frame.seen)
        self.dossiers.restore(items)
        if self.workflow is not None:
            self.workflow.restore(items, self.now_ms)
        self.deadlines.restore(items)
        self.attending.restore(items)
        self.due_ms = 0

    # --- reading ------------------------------------------------------------------------------------------------------

    def subjects(self, levels: Iterable[str]) -> list[str]:
        """The names of all agents of these levels, in order."""
        return subject_names(self.judge, frozenset(levels) & {"agent"})

    def live_values(self, levels: Iterable[str], only: Container[str] | None = None) -> Iterator[LiveValue]:
        """Metrics of agents over live windows; of ``only`` those named, if given."""
        return live_values(self.judge, frozenset(levels) & {"agent"}, only)

    def counter_values(
        self, levels: Iterable[str], only: Container[str] | None = None
    ) -> Iterator[CounterValue]:
        """Running totals of the metrics of agents; of ``only`` those named, if given."""
        return counter_values(self.judge, frozenset(levels) & {"agent"}, only)

    def firing(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Live alerts that fire now."""
        return firing(self.judge)

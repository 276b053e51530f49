"""What a loaded rule pack is: plain, immutable data that the engine is built from.

``kaohe.packs`` reads YAML into these structs and has checked every reference, type, unit and bound before the core
sees them; the core only interprets. Conditions stay as typed expressions (``kaohe.core.expressions``) so that each
user (matcher, generated counting code, explanations) can compile them its own way.

A metric is a quotient of two sums of *terms*. A term says what is added up: which source (an event type, an outcome
of a deadline, a state of agents), which field (or 1 for a count), how (``sum``, ``max``, ``distinct``,
``histogram``) and under which condition. Everything a metric needs is therefore additive or mergeable over time
buckets, over partitions and over members of a group.
"""

from __future__ import annotations

import bisect
from datetime import date
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import msgspec

from kaohe.core.calendars import WINDOWS
from kaohe.core.expressions import Expr, ExprType
from kaohe.core.workdays import WorkCalendar
from kaohe.decisions import Level, Severity, Words
from kaohe.errors import ParameterError, Place

Value = Fraction | str | dict[str, Fraction]
"""A parameter's value: an exact number, a text, or a table from a word to a number (``*`` is every other word)."""

Window = str
"""``now`` (a stock), ``day``, ``week``, ``month``, ``quarter``, ``year``, or ``rolling_15m``, ``rolling_1h``, …"""

CALENDAR_WINDOWS = WINDOWS


class Clause(msgspec.Struct, frozen=True, kw_only=True):
    """One clause of the policy; ``kinds`` are M R S P W D.

    ``without`` has the cases that no story of the clause needs to show, each with the reason.
    """

    id: str
    kinds: tuple[str, ...]
    title: Words
    text: Words
    place: Place
    without: dict[str, str] = {}


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of the policy: dated, typed, bounded, with the clause that sets it.

    ``values`` are (first day in force, value) in rising order of days.
    """

    name: str
    clause: str
    title: Words
    kind: Literal["number", "text", "table"]
    unit: str
    minimum: Fraction | None
    maximum: Fraction | None
    choices: tuple[str, ...]
    values: tuple[tuple[date, Value], ...]
    place: Place

    def value_at(self, day: date) -> Value:
        """The value in force on ``day``; ParameterError before the first one."""
        return self.entry_at(day)[1]

    def entry_at(self, day: date) -> tuple[date, Value]:
        """Since when, and what, is in force on ``day``; ParameterError before the first value."""
        index = bisect.bisect_right(self.values, day, key=lambda entry: entry[0])
        if not index:
            first = self.values[0][0]
            raise ParameterError(
                f"parameter {self.name} ({self.clause}) has no value on {day}: the first is {first}"
            )
        return self.values[index - 1]


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One thing added up, ``weight`` (1 or -1) times.

    ``source`` is an event type (``call.answered``), ``deadline/<name>/<outcome>`` with outcome ``opened``,
    ``standing``, ``met``, ``missed``, ``late``, ``cancelled`` or ``cancelled_late``, ``attendance/<outcome>``
    (``kaohe.core.attendance``), or ``state/<state>`` with state ``logged_in``, ``ready`` or ``not_ready`` (its field
    is ``ms``). ``field`` is empty for a count. ``where`` is a condition over ``event.*`` and ``p.*``.
    """

    source: str
    weight: int = 1
    field: str = ""
    how: Literal["sum", "max", "distinct", "histogram"] = "sum"
    where: Expr | None = None


NOTHING_SPEAKS = Term(source="nothing")
"""Stands alone where a pack says that no single event speaks for a figure."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A declared metric. Its value is ``scale * numerator / denominator`` (no denominator: ``scale * numerator``).

    ``kind`` ``stock`` is a running balance (what is open now); ``percentile`` reads ``quantile`` from a histogram;
    ``per_distinct`` is a ratio to a distinct count. ``unit`` is the unit of the value (``ratio``, ``s``, ``count``,
    ``score``, …). ``formula`` says in words and figures how it is computed, with ``{p.name}`` where a parameter's value
    in force is to be put. ``baseline`` names a text parameter that holds the month (``2026-01``) against which
    ``baseline_month`` is read. ``evidence`` is which events speak where the metric is judged; None: those that follow
    from how it is made (``kaohe.core.witnesses``).
    """

    name: str
    pack: str
    clause: str
    title: Words
    kind: Literal[
        "count", "sum", "mean", "ratio", "share", "percentile", "distinct", "per_distinct", "max", "stock"
    ]
    unit: str
    scale: Fraction
    numerator: tuple[Term, ...]
    denominator: tuple[Term, ...]
    levels: tuple[Level, ...]
    windows: tuple[Window, ...]
    formula: str
    quantile: Fraction | None = None
    baseline: str = ""
    evidence: tuple[Term, ...] | None = None
    place: Place = Place("")


class Deadline(msgspec.Struct, frozen=True, kw_only=True):
    """Something that must follow ``opens`` within a time. One item per value of the field ``key``.

    The time limit is ``within`` (a parameter, in a unit of time; a table is looked up by the field ``by``), unless the
    opening event's field ``due_field`` holds a moment (less ``ahead``, a parameter in a unit of time). The first event
    of ``met_by`` ends it (met, or late after it was missed); one of ``cancelled_by`` takes it back. With ``again`` a
    later event that opens it meets the item before as well. ``remember_ms`` is how long what met it beforehand counts,
    and how long an item that ended stays ended; 0 is the usual week.
    """

    name: str
    pack: str
    clause: str
    title: Words
    opens: str
    key: str
    met_by: tuple[str, ...]
    cancelled_by: tuple[str, ...]
    within: str
    by: str
    due_field: str
    where: Expr | None
    place: Place
    ahead: str = ""
    again: bool = False
    remember_ms: int = 0


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """How many points: ``points`` alone; or per full step of ``per`` by which ``of`` lies over (under) ``limit``.

    Steps: ``floor((of - limit) / per)`` for ``over``, ``floor((limit - of) / per)`` for ``under``, never below 0;
    points = steps * ``points``, at most ``at_most``. Or by ``table``: the table parameter's number for the word ``by``.
    A table's numbers carry their own sign (poor: -2); otherwise ``points`` is positive and deduct makes it negative.
    """

    points: Expr | None = None
    per: Expr | None = None
    direction: Literal["", "over", "under"] = ""
    limit: Expr | None = None
    of: Expr | None = None
    at_most: Expr | None = None
    table: str = ""
    by: str = ""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a rule does. Which fields matter depends on ``kind``."""

    kind: Literal["deduct", "award", "alert", "grade", "proposal", "task", "waive", "reverse"]
    amount: Amount | None = None
    hold_ms: int = 0
    clear: Expr | None = None
    severity: Severity = "medium"
    owner: str = ""
    response: Words = Words("", "")
    grade_at_most: str = ""
    proposal: str = ""
    task: Words = Words("", "")
    due_ms: int = 0
    waives: tuple[str, ...] = ()
    incident: str = ""


ReportSection = Literal["attendance", "resources", "effect", "commendation"]
REPORT_SECTIONS: tuple[ReportSection, ...] = ("attendance", "resources", "effect", "commendation")


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """Which facts of a rule's entries a report shows, and in which section.

    In a ``commendation`` those stand higher whose ``rank_by`` figures are greater, one after the other, and at last by
    a lot drawn from pack, period and name; the first ``places`` (a parameter) are shown.
    """

    section: ReportSection
    figures: tuple[str, ...]
    rank_by: tuple[str, ...] = ()
    places: str = ""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """When something is judged, under which condition, and what follows.

    ``trigger``: ``event`` (``on`` is the event type), ``deadline`` (``on`` is ``name/outcome``), ``attendance`` (``on``
    is the outcome; its incident is the shift), ``period`` (``on`` is the calendar window; ``provisional`` when it moves
    during the period, otherwise judged at its close only), ``watch`` (``on`` is empty: judged at every evaluation of
    live metrics). ``incident`` is the event's field that names the
    single thing judged (``complaint_id``); empty means the event itself. ``evidence`` is which events speak, instead of
    those that its metrics give.
    """

    id: str
    pack: str
    clause: str
    title: Words
    explanation: Words
    levels: tuple[Level, ...]
    trigger: Literal["event", "deadline", "attendance", "period", "watch"]
    on: str
    provisional: bool
    condition: Expr
    incident: str
    effects: tuple[Effect, ...]
    evidence: tuple[Term, ...] | None
    place: Place
    report: Reported | None = None


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How a metric's value becomes a share of an item's points; every name is a parameter.

    Straight: nothing at ``none_at``, all at ``full_at``, evenly between (``none_at`` may be the greater one). By words:
    ``limits`` is a table from a word to the value from which it is earned (``better`` lower: up to which), ``shares``
    from the word to its share of the points.
    """

    none_at: str = ""
    full_at: str = ""
    limits: str = ""
    shares: str = ""
    better: Literal["higher", "lower"] = "higher"


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a scorecard, worth at most ``most`` (a parameter) points inside its dimension.

    ``metric``: read over the card's period, by ``scale``. ``entries``: all points, and the points of the entries of
    ``rules`` added. ``assessed``: what people say, the means of their roles weighed by the table ``roles``; a word is
    worth the share that the table ``words`` gives it; each of ``required`` must have spoken. ``evaluated``: the mean
    score of monitored contacts. ``periods``: the mean of the final scores of the ``window`` periods inside the
    card's own. With fewer than ``at_least`` (a parameter) voices, contacts or periods, or no value, there is no data;
    then the item is left out (``skip``), or counts as nothing (``none``) or as all (``full``).
    """

    name: str
    clause: str
    title: Words
    most: str
    kind: Literal["metric", "entries", "assessed", "evaluated", "periods"]
    metric: str = ""
    scale: Scale | None = None
    rules: tuple[str, ...] = ()
    roles: str = ""
    words: str = ""
    required: tuple[str, ...] = ()
    window: str = ""
    at_least: str = ""
    no_data: Literal["skip", "none", "full"] = "skip"


class Dimension(msgspec.Struct, frozen=True, kw_only=True):
    """Items that share one weight. A ``core`` dimension's weight may move only inside the card's band."""

    name: str
    clause: str
    title: Words
    items: tuple[Item, ...]
    core: bool = False


class Scorecard(msgspec.Struct, frozen=True, kw_only=True):
    """Score of a subject and period, and the grade that it earns.

    Without ``dimensions``: ``base`` plus the points of the period's entries, held inside ``lowest``..``highest``.
    With them: 100 times the share of its points that each dimension earned, by ``weights`` (a table from a dimension's
    name to its weight, 1 together; empty for a single dimension), plus the points of entries that belong to no item,
    held inside the bounds and rounded to ``step``, half upwards. ``bands`` is a table parameter: grade to the lowest
    score that earns it. All of these are parameter names.

    ``standard`` (a table) and ``band`` bound the weights of core dimensions. ``agree`` holds the score inside the band
    of its grade where something else than the score decided the grade.
    """

    clause: str
    window: str
    level: Level
    base: str
    lowest: str
    highest: str
    bands: str
    formula: Words
    place: Place
    dimensions: tuple[Dimension, ...] = ()
    weights: str = ""
    standard: str = ""
    band: str = ""
    step: Fraction = Fraction(1, 100)
    agree: bool = False
    words: dict[str, Words] = {}


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """How many may have the best ``grade``: ``share`` of all who are graded, ``per_department`` (parameters).

    Who stands higher is told by ``tie_break``: ``score``, ``dimension:<name>``, ``previous`` (the score of the period
    before), ``seniority`` (hired earlier), and at last a lot drawn from pack, period and name.

    ``after_told`` says what becomes of who was told the best grade when the places are given out again (after an
    appeal, or a period that was opened again): ``keep``: they keep it while their own score earns it, if need be
    beyond the quota; ``redo``: only the new order counts.
    """

    clause: str
    grade: str
    share: str
    per_department: str
    tie_break: tuple[str, ...]
    formula: Words
    after_told: Literal["keep", "redo"] = "redo"


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How an assessor's mean is compared with the others', and what follows (parameters).

    An assessor with ``at_least`` voices whose mean lies ``tolerance`` or more per cent away gives ``owner`` a task.
    ``strength`` of the difference, at most ``limit`` per cent, is taken from what the assessor gave; 0 only reports.
    """

    id: str
    clause: str
    title: Words
    roles: tuple[str, ...]
    at_least: str
    tolerance: str
    strength: str
    limit: str
    owner: str
    task: Words
    due_ms: int


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What follows when somebody got one of ``grades`` ``reaches`` (a parameter) times: a ``proposal``.

    ``within`` is ``ever``, ``year`` (the calendar year of the period) or ``row`` (one period after the other). With
    ``or_more`` each further time gives a proposal too.
    """

    id: str
    clause: str
    title: Words
    explanation: Words
    window: str
    level: Level
    grades: tuple[str, ...]
    reaches: str
    within: Literal["ever", "year", "row"]
    or_more: bool
    proposal: str
    owner: str


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Of all departments with a card of ``window``: the best one gets the proposal ``best``."""

    id: str
    clause: str
    title: Words
    window: str
    best: str
    owner: str


class Once(msgspec.Struct, frozen=True, kw_only=True):
    """What several packs look at and one alone charges: the first of ``charged_by`` that has a score of the person.

    ``what`` are the rules and items of each of these packs; those of packs that do not charge it do not count in the
    combined score. ``why`` it is charged in this order.
    """

    title: Words
    charged_by: tuple[str, ...]
    what: dict[str, tuple[str, ...]]
    why: Words


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """Rules and items of several packs (``what``) that rest on the same facts and may each charge, and ``why``."""

    what: dict[str, tuple[str, ...]]
    why: Words


class Combined(msgspec.Struct, frozen=True, kw_only=True):
    """One score of a person under several packs: ``shares`` (a table from pack to share, 1 together) of their scores.

    The shares of packs that gave no score are spread over the others in proportion. What ``once`` names is charged by
    one of the packs alone, what ``apart`` names by each.
    """

    clause: str
    window: str
    shares: str
    bands: str
    formula: Words
    once: tuple[Once, ...] = ()
    apart: tuple[Apart, ...] = ()


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What is made of the grades of a pack."""

    quota: Quota | None = None
    calibration: Calibration | None = None
    tallies: tuple[Tally, ...] = ()
    ranking: Ranking | None = None
    combined: Combined | None = None


class AppealTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Until when and how an appeal is heard.

    It may be filed until the end of the last of ``window`` (a parameter) working days by ``calendar`` after the agent
    was told. Before it is decided, everybody in ``hear`` was heard.
    """

    clause: str
    window: str
    calendar: WorkCalendar
    hear: tuple[str, ...]
    place: Place


class WorkStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an appraisal, of each team, of each department or of the company (``whose``).

    It must be done by the ``day`` (a parameter) of the month before the period, of its last month, or of the one after.
    A missed date alerts ``owner``, later ``superior``. ``noted_by`` is the event of pay that is this step, and whose
    sender notes it; empty when there is none.
    """

    id: str
    clause: str
    title: Words
    whose: Literal["team", "department", "company"]
    owner: str
    superior: str
    day: str
    when: Literal["before", "during", "after"]
    noted_by: str = ""


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of each period. ``escalation`` (a parameter) days after a missed date the superior hears of it."""

    window: str
    teams: tuple[str, ...]
    escalation: str
    steps: tuple[WorkStep, ...]
    place: Place


AwardComponent = Literal["performance_bonus", "year_bonus"]
"""What the money for a rule's awards is, where it is more than an award."""


class PayTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How a month's grades and entries become pay. All figures are names of parameters.

    ``days`` says by which days of ``calendar`` a month is paid of which somebody was employed, or earned the same pay,
    for a part only (``workdays``, ``calendar``; ``whole``: every month as one; empty as ``whole``).

    A pack with ``base_clause`` *pays*: pay base, performance pay, guard and rounding are its own. Any other adds its
    part to what such a pack pays: a bonus by its own grades, and what its entries are worth. Of a bonus (where
    ``bonus_clause`` is not empty) ``bonus_share`` is the part of the pay base, and ``bonus_coefficients`` a table from
    a grade to how often it is paid.

    The pay base is ``share`` of the month's gross pay, for annual salaries ``share`` of ``annual_share`` of a twelfth;
    ``inside_gross`` says that it is a part of the gross pay, otherwise it comes on top. ``coefficients`` and
    ``bonuses`` are tables from a grade of ``grades_pack`` to a share of the base. Entries of ``packs`` are money:
    ``point_value`` minor units a point, one for all or a table from rules (``money_clause`` is empty where no entry is
    money); those that take something away only where ``fines`` is ``on``. ``components`` says of some rules what their
    awards are: ``performance_bonus`` or ``year_bonus``. The guard keeps deductions to ``limit`` of the gross pay, and
    pay at ``floor``.
    """

    base_clause: str
    share: str
    annual_share: str
    inside_gross: bool
    performance_clause: str
    grades_pack: str
    coefficients: str
    bonuses: str
    money_clause: str
    packs: tuple[str, ...]
    point_value: str
    fines: str
    limit: str
    floor: str
    rounding: str
    place: Place
    days: str = ""
    calendar: WorkCalendar | None = None
    bonus_clause: str = ""
    bonus_share: str = ""
    bonus_coefficients: str = ""
    components: dict[str, AwardComponent] = {}

    @property
    def pays(self) -> bool:
        """Whether settlements can be made by these terms, or they only add their part to those of another pack."""
        return bool(self.base_clause)


LeaveDays = Literal["shift", "working", "calendar"]
"""Which days of a leave its quota counts: those with a shift, the working days of the public calendar, or all."""


class Attendance(msgspec.Struct, frozen=True, kw_only=True):
    """How a pack judges shifts, clockings and leave. All fields but ``calendar`` and ``leave_days`` name parameters.

    Times after the start of a shift: ``grace`` (not clocked in is noticed), ``late_after`` (late), ``absent_after``
    (half a day is missing; who has not come by then is absent), ``login_grace`` (not logged in is noticed; empty: not
    watched). ``early_after`` before its end is early leave; ``missing_out_after`` its end nobody clocked out.
    ``clock_window`` is how long before and after a shift a clocking that names none may belong to it; a change known
    less than ``short_notice`` ahead harms nobody. ``leave_quota`` (days a year), ``leave_breaks`` and
    ``leave_attended`` (0 or 1) are tables by kind of leave. ``full_month_days`` is how many required days make a month;
    ``missing_out_breaks`` and ``exempted_keeps`` (0 or 1) say whether a missing clocking breaks full attendance, and
    whether what is exempted does not.
    """

    clause: str
    calendar: WorkCalendar
    grace: str
    late_after: str
    early_after: str
    absent_after: str
    missing_out_after: str
    login_grace: str
    clock_window: str
    short_notice: str
    leave_quota: str
    leave_breaks: str
    leave_attended: str
    leave_days: dict[str, LeaveDays]
    full_month_days: str
    missing_out_breaks: str
    exempted_keeps: str
    place: Place


class Pack(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one policy, complete and checked.

    ``grace_ms`` is how long after a period's end late events still count in it; ``evaluate_ms`` how often provisional
    entries are judged. ``scopes`` gives, per rule id, the names and types its condition and amounts may use.
    ``cards`` are the scorecards made of dimensions, one for each level and window; ``scorecard`` is the one that
    entries of single events belong to.
    """

    name: str
    version: str
    title: Words
    zone: str
    currency: str
    in_force_from: date
    grace_ms: int
    evaluate_ms: int
    clauses: dict[str, Clause]
    parameters: dict[str, Parameter]
    metrics: dict[str, Metric]
    deadlines: dict[str, Deadline]
    rules: tuple[Rule, ...]
    scorecard: Scorecard | None
    scopes: dict[str, dict[str, ExprType]]
    pay: PayTerms | None = None
    attendance: Attendance | None = None
    appeals: AppealTerms | None = None
    workflow: Steps | None = None
    folder: str = ""
    cards: tuple[Scorecard, ...] = ()
    results: Results = Results()

    @property
    def key(self) -> str:
        """Name and version: what tells two versions of one pack apart."""
        return _key_of(self.name, self.version)


@lru_cache(maxsize=1_024)
def _key_of(name: str, version: str) -> str:
    """The key of a pack: asked for at every judgement, and looked up by faster when it is the same text each time."""
    return f"{name}@{version}"

"""What comes in: one struct per event type, in the CloudEvents 1.0 JSON envelope.

An event on the wire is a CloudEvents 1.0 document in structured mode::

    {"specversion": "1.0", "id": "c-81-answered", "source": "acd", "type": "call.answered",
     "subject": "a-17", "time": "2026-08-03T09:00:12Z",
     "data": {"agent": "a-17", "queue": "sales", "call_id": "c-81", "wait_ms": 12000, "rings": 2}}

``type`` is the tag of a union: one pass over the bytes gives the envelope and its typed ``data``. ``subject`` is the
partition key. It is the agent, or the queue (or team, or site) for an event that has no agent; every event of one
ticket, complaint, promise or task carries the subject of the event that opened it, so that they meet in one partition.

Every payload can name four *dimensions*: ``agent``, ``queue``, ``team`` and ``site``. An agent must equal the subject.
A team or site left empty is filled from the roster as it stood at the event's time.

Durations are whole milliseconds (``_ms``), money is whole minor units (``_minor``) with an ISO 4217 currency, moments
are RFC 3339 with an offset. ``customer`` is always a pseudonym (``c-`` and hexadecimal digits): the adapters make it,
and an event that carries anything else there is refused, so that a telephone number is never stored in clear.

Fields are only ever added, and only with a default: a log stored years ago must still decode.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from kaohe.errors import EventError

Name = Annotated[str, Meta(min_length=1, max_length=200)]
"""An identifier that must be there."""
Label = Annotated[str, Meta(max_length=200)]
"""An identifier that may be empty."""
Text = Annotated[str, Meta(max_length=2000)]
"""Words for people."""
Pseudonym = Annotated[str, Meta(max_length=66, extra_json_schema={"pattern": "^(c-[0-9a-f]{16,64})?$"})]
"""A customer's pseudonym, or empty where the source knows none. ``decode`` checks the form: a regular expression in
the decoder itself would double the time of decoding a call."""
Moment = Annotated[datetime, Meta(tz=True)]
"""A moment with its offset from UTC."""
Millis = Annotated[int, Meta(ge=0, le=31_622_400_000)]
"""A duration in whole milliseconds, at most 366 days."""
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
"""How many."""
Minor = Annotated[int, Meta(ge=-(10**15), le=10**15)]
"""An amount of money in minor units (cents, fen)."""
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$")]
"""An ISO 4217 code."""
Score = Annotated[int, Meta(ge=0, le=10_000)]
"""A score in hundredths of a point out of 100: 8750 is 87.5."""
Day = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
"""A calendar day in the site's time zone."""
ClockTime = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
"""A time of day by the wall clock, to the minute."""

Satisfaction = Literal["very_satisfied", "satisfied", "neutral", "dissatisfied"]
Priority = Literal["urgent", "high", "normal", "low"]
Rating = Literal["excellent", "good", "fair", "poor"]
Growth = Literal["marked", "some", "little", "none"]
LeaveKind = Literal["personal", "sick", "marriage", "bereavement", "maternity", "annual"]


class Payload(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The dimensions every event may carry. Empty means not known."""

    agent: Label = ""
    queue: Label = ""
    team: Label = ""
    site: Label = ""


class Envelope(msgspec.Struct, kw_only=True, tag_field="type"):
    """The CloudEvents attributes. Each event type has its own subclass with a typed ``data``."""

    id: Name
    source: Name
    subject: Name
    time: Moment
    specversion: Literal["1.0"] = "1.0"
    data: Any = None


PAYLOADS: dict[str, type[Payload]] = {}
"""Event type to the struct of its data, in the order of declaration."""

ENVELOPES: dict[str, type[Envelope]] = {}
"""Event type to the struct of the whole event."""

DERIVED: set[str] = set()
"""Event types that the engine alone gives, out of what it knows: packs may name them, and no source may send them."""

_P = TypeVar("_P", bound=type[Payload])


def event(tag: str) -> Callable[[_P], _P]:
    """Register a payload under its event type and derive the envelope that carries it."""

    def register(payload: _P) -> _P:
        assert tag not in PAYLOADS, tag
        PAYLOADS[tag] = payload
        envelope: Any = msgspec.defstruct(
            payload.__name__ + "Event",
            [("data", payload)],
            bases=(Envelope,),
            tag_field="type",
            tag=tag,
            kw_only=True,
            gc=False,
            module=__name__,
        )
        ENVELOPES[tag] = envelope
        return payload

    return register


def derived(tag: str) -> Callable[[_P], _P]:
    """Register what the engine itself establishes, in the form of an event."""
    DERIVED.add(tag)
    return event(tag)


# --- calls ------------------------------------------------------------------------------------------------------------


class _Call(Payload, kw_only=True):
    call_id: Name
    customer: Pseudonym = ""
    service: Label = ""


@event("call.queued")
class CallQueued(_Call, kw_only=True):
    """A caller entered a queue and waits."""


@event("call.offered")
class CallOffered(_Call, kw_only=True):
    """A call reached the contact centre's people: it was presented to a queue or straight to an agent.

    It is counted in the moment it was offered; calls that end inside the voice unit are never offered.
    """


@event("call.answered")
class CallAnswered(_Call, kw_only=True):
    """An agent answered. ``wait_ms`` is the time from entering the queue to the answer (0 without a queue)."""

    wait_ms: Millis = 0
    rings: Count = 0


@event("call.held")
class CallHeld(_Call, kw_only=True):
    """The caller was put on hold and taken back after ``hold_ms``."""

    hold_ms: Millis = 0


@event("call.transferred")
class CallTransferred(_Call, kw_only=True):
    """The agent handed the call on. ``warm`` when the agent introduced the caller to the next person."""

    to: Label = ""
    warm: bool = False


@event("call.completed")
class CallCompleted(_Call, kw_only=True):
    """An answered call and its after-call work are over. Handle time = talk + hold + wrap."""

    talk_ms: Millis = 0
    hold_ms: Millis = 0
    wrap_ms: Millis = 0


@event("call.abandoned")
class CallAbandoned(_Call, kw_only=True):
    """The caller hung up while waiting in the queue, after ``wait_ms``."""

    wait_ms: Millis = 0


@event("call.voice_unit_abandoned")
class CallVoiceUnitAbandoned(_Call, kw_only=True):
    """The caller hung up inside the voice unit: never offered to anybody."""

    voice_unit_ms: Millis = 0


# --- what agents are doing --------------------------------------------------------------------------------------------


@event("agent.logged_in")
class AgentLoggedIn(Payload, kw_only=True):
    """The agent logged in to take calls; not ready until a ready event."""


@event("agent.logged_out")
class AgentLoggedOut(Payload, kw_only=True):
    """The agent logged out."""


@event("agent.ready")
class AgentReady(Payload, kw_only=True):
    """The agent can take calls (or is on one)."""


@event("agent.not_ready")
class AgentNotReady(Payload, kw_only=True):
    """The agent is logged in but cannot take calls: break, meeting, training, …"""

    reason: Label = ""


# --- tickets ----------------------------------------------------------------------------------------------------------


class _Ticket(Payload, kw_only=True):
    ticket_id: Name
    customer: Pseudonym = ""
    service: Label = ""
    priority: Priority = "normal"


@event("ticket.opened")
class TicketOpened(_Ticket, kw_only=True):
    """A request was recorded and waits for its first response. ``due_at`` overrides the policy's time limit."""

    due_at: Moment | None = None


@event("ticket.first_response")
class TicketFirstResponse(_Ticket, kw_only=True):
    """The customer got the first answer of a person."""


@event("ticket.resolved")
class TicketResolved(_Ticket, kw_only=True):
    """The request is done. ``first_contact`` when the first contact was enough."""

    first_contact: bool = False
    handling_ms: Millis = 0


@event("ticket.reopened")
class TicketReopened(_Ticket, kw_only=True):
    """The customer came back: it was not done after all."""


@event("ticket.closed")
class TicketClosed(_Ticket, kw_only=True):
    """Closed for good."""


# --- complaints -------------------------------------------------------------------------------------------------------


class _Complaint(Payload, kw_only=True):
    complaint_id: Name
    customer: Pseudonym = ""
    severity: Literal["minor", "major", "critical"] = "minor"


@event("complaint.logged")
class ComplaintLogged(_Complaint, kw_only=True):
    """A complaint was recorded. Difficult ones carry the promised reply time and the person to hand over to (CK-16)."""

    category: Label = ""
    promised_at: Moment | None = None
    handed_to: Label = ""
    complete: bool = True


@event("complaint.responded")
class ComplaintResponded(_Complaint, kw_only=True):
    """The customer got the first answer to the complaint."""


@event("complaint.resolved")
class ComplaintResolved(_Complaint, kw_only=True):
    """The complaint is settled; ``handling_ms`` from logging to settlement."""

    handling_ms: Millis = 0


@event("complaint.upheld")
class ComplaintUpheld(_Complaint, kw_only=True):
    """Looked into and found right: it counts against whoever caused it."""

    improper_handling: bool = False
    bad_attitude: bool = False


@event("complaint.dismissed")
class ComplaintDismissed(_Complaint, kw_only=True):
    """Looked into and found without ground."""

    reason: Text = ""


@event("complaint.followed_up")
class ComplaintFollowedUp(_Complaint, kw_only=True):
    """Called back after the settlement."""


# --- surveys ----------------------------------------------------------------------------------------------------------


@event("survey.customer")
class SurveyCustomer(Payload, kw_only=True):
    """A customer's answer, by survey or call-back."""

    survey_id: Label = ""
    customer: Pseudonym = ""
    satisfaction: Satisfaction
    channel: Literal["survey", "call_back"] = "survey"


@event("survey.colleague")
class SurveyColleague(Payload, kw_only=True):
    """A colleague inside the team rates the agent. ``by`` is the colleague."""

    by: Label = ""
    satisfaction: Satisfaction


@event("survey.cross_department")
class SurveyCrossDepartment(Payload, kw_only=True):
    """Another department rates the cooperation. ``by`` is the department."""

    by: Label = ""
    rating: Rating


@event("survey.complaint_follow_up")
class SurveyComplaintFollowUp(Payload, kw_only=True):
    """The customer rates how a complaint was handled."""

    complaint_id: Label = ""
    customer: Pseudonym = ""
    satisfaction: Satisfaction


@event("survey.mystery_shopper")
class SurveyMysteryShopper(Payload, kw_only=True):
    """A test customer's score."""

    by: Label = ""
    score: Score
    category: Label = ""


# --- promises and tasks -----------------------------------------------------------------------------------------------


@event("promise.made")
class PromiseMade(Payload, kw_only=True):
    """A customer was promised something by ``due_at``."""

    promise_id: Name
    customer: Pseudonym = ""
    due_at: Moment


@event("promise.kept")
class PromiseKept(Payload, kw_only=True):
    """The promise was kept."""

    promise_id: Name
    customer: Pseudonym = ""


@event("task.assigned")
class TaskAssigned(Payload, kw_only=True):
    """Work with a due time was given to the agent. ``kind`` is work, improvement, coaching, training, …"""

    task_id: Name
    kind: Label = "work"
    due_at: Moment
    starts_at: Moment | None = None
    owner: Label = ""


@event("task.completed")
class TaskCompleted(Payload, kw_only=True):
    """The task is done."""

    task_id: Name
    kind: Label = "work"


# --- quality ----------------------------------------------------------------------------------------------------------


@event("error.recorded")
class ErrorRecorded(Payload, kw_only=True):
    """A mistake in a piece of work was established."""

    error_id: Label = ""
    work_id: Label = ""
    severity: Literal["minor", "major", "critical"] = "minor"
    category: Label = ""


@event("record.audited")
class RecordAudited(Payload, kw_only=True):
    """A record was checked: ``fields_right`` of ``fields_checked`` were complete and right."""

    record_id: Label = ""
    fields_checked: Count = 0
    fields_right: Count = 0
    complete: bool = True
    by: Label = ""


@event("quality.evaluated")
class QualityEvaluated(Payload, kw_only=True):
    """A monitored contact was scored."""

    evaluation_id: Label = ""
    call_id: Label = ""
    score: Score
    by: Label = ""


@event("flow.audited")
class FlowAudited(Payload, kw_only=True):
    """A reception was compared with the standard flow: ``steps_followed`` of ``steps_checked``."""

    audit_id: Label = ""
    steps_checked: Annotated[int, Meta(ge=1, le=1000)]
    steps_followed: Count
    by: Label = ""


@event("area.inspected")
class AreaInspected(Payload, kw_only=True):
    """A work area was inspected. A ``patrol`` covers area, flow and working state together."""

    area: Label = ""
    score: Score
    kind: Literal["area", "patrol"] = "area"
    by: Label = ""


# --- attendance -------------------------------------------------------------------------------------------------------


@event("shift.scheduled")
class ShiftScheduled(Payload, kw_only=True):
    """A shift was planned for the agent on ``day`` (the site's calendar)."""

    shift_id: Name
    day: Day
    starts_at: Moment
    ends_at: Moment


@event("shift.changed")
class ShiftChanged(Payload, kw_only=True):
    """A planned shift moved, or was called off."""

    shift_id: Name
    day: Day
    starts_at: Moment
    ends_at: Moment
    cancelled: bool = False


@event("clock.in")
class ClockIn(Payload, kw_only=True):
    """The agent clocked in."""

    shift_id: Label = ""


@event("clock.out")
class ClockOut(Payload, kw_only=True):
    """The agent clocked out."""

    shift_id: Label = ""


class _Leave(Payload, kw_only=True):
    leave_id: Name
    kind: LeaveKind
    first_day: Day
    last_day: Day
    half_day: bool = False
    half: Literal["", "first", "second"] = ""


@event("leave.requested")
class LeaveRequested(_Leave, kw_only=True):
    """The agent asked for leave."""


@event("leave.approved")
class LeaveApproved(_Leave, kw_only=True):
    """The supervisor ``by`` approved it."""

    by: Label = ""


@event("leave.rejected")
class LeaveRejected(_Leave, kw_only=True):
    """The supervisor ``by`` rejected it."""

    by: Label = ""
    reason: Text = ""


@event("leave.cancelled")
class LeaveCancelled(_Leave, kw_only=True):
    """The leave is not taken after all: withdrawn by the agent, or called off. ``by`` is who said so."""

    by: Label = ""


@event("shift.swapped")
class ShiftSwapped(Payload, kw_only=True):
    """The agent gave the shift ``shift_id`` to ``with_agent``, and took over ``taken_id`` for it (empty: nothing).

    A swap is two events, one for each of the two; ``taken_day`` to ``taken_ends_at`` say when the shift that was taken
    over is.
    """

    shift_id: Name
    with_agent: Label = ""
    taken_id: Label = ""
    taken_day: Day | None = None
    taken_starts_at: Moment | None = None
    taken_ends_at: Moment | None = None
    by: Label = ""


@event("hours.assigned")
class HoursAssigned(Payload, kw_only=True):
    """The agent works from ``starts`` to ``ends``, by the wall clock of the site, on each public working day.

    It holds from ``first_day`` to ``last_day`` (none: until further notice). Of two assignments that meet on a day the
    newer one holds; equal times mean no work.
    """

    hours_id: Name
    first_day: Day
    last_day: Day | None = None
    starts: ClockTime
    ends: ClockTime
    by: Label = ""


@event("clock.corrected")
class ClockCorrected(Payload, kw_only=True):
    """Somebody put right when the agent came (``in``) or went (``out``) on a shift: a clocking was forgotten or wrong.

    ``clocked_at`` is the moment that holds from now on; none means that nobody came or went. The newest one counts.
    """

    correction_id: Name
    shift_id: Name
    punch: Literal["in", "out"]
    clocked_at: Moment | None = None
    by: Label = ""
    reason: Text = ""


@event("exemption.granted")
class ExemptionGranted(Payload, kw_only=True):
    """A penalty is waived with a reason. ``incident`` names what is excused: a complaint, a shift, a decision."""

    exemption_id: Name
    incident: Name
    rule: Label = ""
    reason: Text = ""
    by: Label = ""


@event("customer.lost")
class CustomerLost(Payload, kw_only=True):
    """A customer ended the business with us (CK-20). The agent is whoever is in charge of the customer."""

    customer: Pseudonym = ""
    reason: Text = ""


# --- training ---------------------------------------------------------------------------------------------------------


class _Training(Payload, kw_only=True):
    training_id: Name
    course: Label = ""


@event("training.assigned")
class TrainingAssigned(_Training, kw_only=True):
    """The agent is required to attend by ``due_at``."""

    due_at: Moment | None = None


@event("training.attended")
class TrainingAttended(_Training, kw_only=True):
    """The agent attended."""


@event("training.assessed")
class TrainingAssessed(_Training, kw_only=True):
    """The exam or the judgement after a training. ``growth`` where knowledge and skill growth was judged (LS-09).

    Who judges growth alone gives no ``score``; one of 0 is that of an exam.
    """

    score: Score | None = None
    passed: bool = True
    growth: Growth | None = None


@event("certificate.earned")
class CertificateEarned(Payload, kw_only=True):
    """The agent holds a certificate, until ``expires_at`` if that is set."""

    certificate: Name
    expires_at: Moment | None = None


@event("certificate.required")
class CertificateRequired(Payload, kw_only=True):
    """The agent's job asks for a certificate, to be held by ``due_at`` (else by the policy's time limit)."""

    certificate: Name
    due_at: Moment | None = None


@event("certificate.released")
class CertificateReleased(Payload, kw_only=True):
    """The agent's job asks for the certificate no more."""

    certificate: Name


@event("certificate.expiring")
class CertificateExpiring(Payload, kw_only=True):
    """A certificate will lapse at ``expires_at``."""

    certificate: Name
    expires_at: Moment


# --- money ------------------------------------------------------------------------------------------------------------


class _Booking(Payload, kw_only=True):
    booking_id: Name
    account: Label = ""
    amount_minor: Minor
    currency: Currency = "CNY"


@event("cost.booked")
class CostBooked(_Booking, kw_only=True):
    """A cost was booked to a team or site."""


@event("budget.booked")
class BudgetBooked(_Booking, kw_only=True):
    """A budget was granted to a team or site."""


# --- pay --------------------------------------------------------------------------------------------------------------

Month = Annotated[str, Meta(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
"""A calendar month, ``2026-08``."""
Offsets = Annotated[list[Annotated[int, Meta(ge=0)]], Meta(max_length=1024)]
"""The next offset of each partition of a topic, in their order."""


@event("pay.stated")
class PayStated(Payload, kw_only=True):
    """What the agent earns: exactly one of the month's gross pay, and the annual salary in force from that month on.

    It overrides the roster's pay for the month. A later statement for the same month replaces an earlier one.
    """

    period: Month
    gross_minor: Annotated[int, Meta(ge=0, le=10**15)] | None = None
    annual_salary_minor: Annotated[int, Meta(ge=0, le=10**15)] | None = None
    currency: Currency = "CNY"
    by: Label = ""


class TermParameter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A parameter in force, with the clause that sets it: a number or word as text, or a table of numbers."""

    name: str
    clause: str
    unit: str
    since: str
    value: str = ""
    table: dict[str, str] = {}


class PayPartInForce(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a pack adds to what another pays, as it was in force on the first day of a period.

    ``clauses`` are by what it adds: ``bonus`` by the grades of ``pack`` (parameters ``bonus_share``,
    ``bonus_coefficients``), ``money`` for the entries of ``packs`` (``point_value``, ``fines``). ``components`` name
    what the awards of some rules are.
    """

    pack: Name
    pack_version: Name
    packs: Annotated[list[Name], Meta(max_length=64)] = []
    clauses: dict[str, str]
    parameters: dict[str, TermParameter]
    components: dict[str, Literal["performance_bonus", "year_bonus"]] = {}


class PayTermsInForce(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The pay terms of a pack as they were in force on the first day of a period: all that a settlement needs to know.

    ``parameters`` are by their part in the terms: ``share``, ``annual_share``, ``coefficients``, ``bonuses``,
    ``point_value``, ``fines``, ``limit``, ``floor``, ``rounding``. ``clauses`` are by the part they rule: ``base``,
    ``performance``, ``money``. ``parts`` are what packs add to it, in the order of their names.
    With the parameter ``days`` a month that was not worked as a whole is paid by days; ``workdays`` are the month's.
    ``combined`` is the name under which the one score of several packs goes out. ``components`` name what the awards of
    some rules are: the performance bonus, the year-end bonus.
    """

    pack: Name
    pack_version: Name
    grades_pack: Name
    packs: Annotated[list[Name], Meta(max_length=64)]
    zone: Name
    currency: Currency
    inside_gross: bool
    clauses: dict[str, str]
    parameters: dict[str, TermParameter]
    parts: Annotated[list[PayPartInForce], Meta(max_length=64)] = []
    workdays: Annotated[list[Day], Meta(max_length=31)] = []
    combined: str = ""
    components: dict[str, Literal["performance_bonus", "year_bonus"]] = {}


class ReadUpTo(msgspec.Struct, frozen=True, kw_only=True):
    """How far the log had come: the next offsets of each topic, and the ids of their logs where the broker has any.

    What stands at or after them is left to the next settlement, so that a settlement is the same whenever and however
    often it is worked out.
    """

    events: Offsets
    decisions: Offsets
    grades: Offsets
    logs: dict[str, str] = {}


class _Settlement(Payload, kw_only=True):
    by: Name
    reason: Text = ""


@event("settlement.requested")
class SettlementRequested(_Settlement, kw_only=True):
    """``by`` asks for the settlement of a month. ``reopen``: correct a settled month now instead of with the next."""

    period: Month
    terms: PayTermsInForce
    read: ReadUpTo
    reopen: bool = False


class _BatchStep(_Settlement, kw_only=True):
    batch: Name


class _CountedStep(_BatchStep, kw_only=True):
    entries: Count
    total_minor: Minor


@event("settlement.approved")
class SettlementApproved(_BatchStep, kw_only=True):
    """``by``, who neither asked for the batch nor is paid by it, approves it."""


@event("settlement.rejected")
class SettlementRejected(_BatchStep, kw_only=True):
    """``by`` rejects a draft, which will never be paid."""


@event("settlement.exported")
class SettlementExported(_CountedStep, kw_only=True):
    """The batch was handed to payroll as files; ``files`` are their SHA-256 sums by name."""

    files: dict[str, str] = {}


@event("settlement.acknowledged")
class SettlementAcknowledged(_CountedStep, kw_only=True):
    """Payroll has taken the batch over; ``entries`` and ``total_minor`` are what it counted itself."""

    reference: Label = ""


PAY_EVENTS = (
    "pay.stated", "settlement.requested", "settlement.approved", "settlement.rejected", "settlement.exported",
    "settlement.acknowledged",
)  # fmt: skip
"""The events of pay. Settlements carry the subject ``payroll``, so that they are in one order."""
PAYROLL_SUBJECT = "payroll"


# --- assessments ------------------------------------------------------------------------------------------------------

Role = Literal["self", "peer", "superior", "leader", "department"]
"""For whom somebody speaks: for themselves, as a colleague, as direct superior, as leader in charge, or for another
department. About a department ``self`` is its head."""
CalendarWindow = Literal["day", "week", "month", "quarter", "year"]


class _Assessment(Payload, kw_only=True):
    """About the agent, or about ``department`` (which is then the subject), under one pack for one period."""

    department: Label = ""
    pack: Name
    window: CalendarWindow
    period: Name
    score: Score | None = None
    grade: Label = ""
    by: Name
    reason: Text = ""


@event("assessment.submitted")
class AssessmentSubmitted(_Assessment, kw_only=True):
    """``by`` says what an item of a scorecard is worth: a score in hundredths of the item's points, or a word for it.

    Whoever says something again about the same item in the same role replaces what was said before. The role must be
    one's own by the roster; ``by_department`` is the department for which the role ``department`` speaks.
    """

    item: Name
    role: Role
    by_department: Label = ""


@derived("assessment.unheard")
class AssessmentUnheard(Payload, kw_only=True):
    """Somebody assessed an item of the agent's scorecard before the agent had said anything about it.

    ``appraisal_id`` is pack, agent and period, as in ``appraisal.closed``.
    """

    appraisal_id: Name
    pack: Name
    window: Name
    period: Name
    item: Name
    role: Role
    by: Name


@event("assessment.decided")
class AssessmentDecided(_Assessment, kw_only=True):
    """The final word of the leader in charge: on one ``item``, or (empty) on the whole score or grade."""

    item: Label = ""


@event("department.changed")
class DepartmentChanged(Payload, kw_only=True):
    """Who leads a department from the event's time on: its head, and the leader in charge of it (CK-03).

    With neither the department is no more: no step of an appraisal is due from it.
    """

    department: Name
    head: Label = ""
    leader: Label = ""


# --- appeals ----------------------------------------------------------------------------------------------------------

Reason = Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"\S")]
"""Words for people that must be there."""
Ground = Literal["result", "interview", "use"]
"""What an appeal is against: a result, the conclusion of an interview, or the use that is made of a result."""
Refusal = Literal["late", "provisional", "appealed", "taken_back"]
"""Why an appeal is not heard: it came late, nothing is final yet, there was one before, or it was put right already."""


class _Appeal(Payload, kw_only=True):
    appeal_id: Name


@event("appeal.filed")
class AppealFiled(_Appeal, kw_only=True):
    """The agent appeals, in writing, ``against`` a decision or grade (its id) or the conclusion of an interview."""

    against: Name
    ground: Ground = "result"
    text: Reason


@event("appeal.accepted")
class AppealAccepted(_Appeal, kw_only=True):
    """``by`` accepts the appeal: it will be looked into."""

    by: Name
    reason: Reason


@event("appeal.rejected")
class AppealRejected(_Appeal, kw_only=True):
    """``by`` rejects the appeal with a reason, without looking into it."""

    by: Name
    reason: Reason


@event("appeal.heard")
class AppealHeard(_Appeal, kw_only=True):
    """Somebody was heard about an accepted appeal."""

    who: Literal["employee", "supervisor", "other"]
    by: Label = ""
    text: Text = ""


@event("appeal.decided")
class AppealDecided(_Appeal, kw_only=True):
    """Leadership decided an accepted appeal.

    Upheld, it takes back what it is against, and the decisions ``reversals`` beside or instead of it (where it is
    against a grade). Upheld in part, so many hundredths of points of the one decision that is taken back remain
    (``remains``). Against a grade of a card of items it may say what the result becomes, by ``score`` (in hundredths)
    or ``grade``. ``responsible`` is whoever made the mistake.
    """

    upheld: bool
    by: Name
    reason: Reason
    responsible: Label = ""
    reversals: Annotated[list[Name], Meta(max_length=64)] = []
    remains: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    score: Score | None = None
    grade: Label = ""


@event("result.announced")
class ResultAnnounced(Payload, kw_only=True):
    """The agent was told the result of a period. Where nobody says so, it counts as told when it became final."""

    pack: Name
    window: Name
    period: Name
    by: Label = ""


class _OwnAppeal(_Appeal, kw_only=True):
    against: Name
    ground: Ground
    pack: Name


@derived("appeal.received")
class AppealReceived(_OwnAppeal, kw_only=True):
    """An appeal was filed in time, on the last of which day it would have been late (``last_day``)."""

    text: Text
    last_day: Day


@derived("appeal.refused")
class AppealRefused(_OwnAppeal, kw_only=True):
    """An appeal is not heard; ``why``, and until when it could have been filed."""

    why: Refusal
    text: Text
    last_day: Label = ""


@derived("appeal.upheld")
class AppealUpheld(_OwnAppeal, kw_only=True):
    """An appeal was found right, or ``partly``: then ``remains`` (hundredths of points) stays of what is taken back.

    ``reversals`` are the ids of all that is to be taken back, ``score`` (in hundredths) or ``grade`` what a result
    becomes.
    """

    by: Name
    reason: Text
    responsible: Label = ""
    reversals: list[Name] = []
    outcome: Literal["upheld", "partly"] = "upheld"
    remains: int | None = None
    score: int | None = None
    grade: Label = ""


@derived("appeal.dismissed")
class AppealDismissed(_OwnAppeal, kw_only=True):
    """An appeal was looked into and found wrong."""

    by: Name
    reason: Text


# --- goals, interviews and plans --------------------------------------------------------------------------------------


class _Goal(Payload, kw_only=True):
    goal_id: Name


@event("goal.proposed")
class GoalProposed(_Goal, kw_only=True):
    """A goal for a period was written down: what is measured, and what is to be reached."""

    period: Name
    indicator: Reason
    target: Reason
    of: Label = ""
    by: Label = ""


@event("goal.signed")
class GoalSigned(_Goal, kw_only=True):
    """The employee or the supervisor signed a goal; it is in force when both have."""

    who: Literal["employee", "supervisor"]
    by: Label = ""


@derived("goal.agreed")
class GoalAgreed(_Goal, kw_only=True):
    """Both have signed: the goal is in force."""

    pack: Label = ""


@derived("appraisal.closed")
class AppraisalClosed(Payload, kw_only=True):
    """The result of a person and period is final. ``appraisal_id`` is ``front-desk/a-17/2026-08``: pack, agent, period.

    ``grade`` is the one that was given here; a quota over the whole company may still change it.
    """

    appraisal_id: Name
    pack: Name
    window: Name
    period: Name
    grade: Label = ""


@event("interview.held")
class InterviewHeld(Payload, kw_only=True):
    """The result of a period was talked over, and both signed: strengths, shortfalls, and what is to be developed."""

    interview_id: Name
    appraisal_id: Name
    by: Label = ""
    strengths: Text = ""
    shortfalls: Text = ""
    development: Text = ""
    employee_signed: bool = False
    supervisor_signed: bool = False


class _Improvement(Payload, kw_only=True):
    plan_id: Name


@event("improvement.planned")
class ImprovementPlanned(_Improvement, kw_only=True):
    """A measure was agreed: its goal, what is done, who sees to it, and by when."""

    goal: Text = ""
    measure: Reason
    owner: Label = ""
    interview_id: Label = ""
    starts_at: Moment | None = None
    due_at: Moment


@event("improvement.done")
class ImprovementDone(_Improvement, kw_only=True):
    """The measure was carried out."""

    by: Label = ""
    result: Text = ""


@event("meeting.held")
class MeetingHeld(Payload, kw_only=True):
    """A team met."""

    meeting_id: Name
    by: Label = ""


@event("review.held")
class ReviewHeld(Payload, kw_only=True):
    """The work of one person was reviewed with that person."""

    review_id: Name
    by: Label = ""


@event("alert.acknowledged")
class AlertAcknowledged(Payload, kw_only=True):
    """Somebody takes care of an alert (its id); of an agent's alert in the agent's log, of a group's in any."""

    alert_id: Name
    by: Name
    text: Text = ""


@derived("alert.raised")
class AlertRaised(Payload, kw_only=True):
    """An alert began: about the agent, or about the one of queue, team and site that is named."""

    alert_id: Name
    pack: Name
    rule: Name
    severity: Literal["info", "medium", "high", "critical"]
    owner: Label = ""
    incident: Label = ""


@derived("alert.ended")
class AlertEnded(Payload, kw_only=True):
    """An alert ended."""

    alert_id: Name
    pack: Name
    rule: Name


# --- the frame: roster, packs, clock ----------------------------------------------------------------------------------


@event("roster.changed")
class RosterChanged(Payload, kw_only=True):
    """Who the agent is from the event's time on: team, site, position, superior, hire date, pay base, packs in force.

    An empty ``packs`` means every pack that is loaded. ``pay_base_minor`` is the agreed gross pay of a month, which
    counts where no ``pay.stated`` says more; 0 says nothing. ``leader`` is the leader in charge, who has the final word
    over the agent's appraisal (empty: the superior); ``department`` is what quotas count by (empty: the team).
    """

    position: Label = ""
    superior: Label = ""
    leader: Label = ""
    department: Label = ""
    hired_on: Day | None = None
    left_on: Day | None = None
    pay_base_minor: Minor = 0
    currency: Currency = "CNY"
    packs: Annotated[list[Name], Meta(max_length=32)] = []


class _Membership(Payload, kw_only=True):
    position: Label = ""


@derived("team.joined")
class TeamJoined(_Membership, kw_only=True):
    """By the roster the agent belongs to ``team`` from now on, in this position."""


@derived("team.left")
class TeamLeft(_Membership, kw_only=True):
    """By the roster the agent belongs to ``team`` no more, at the end of the day on which they left."""


@event("pack.activated")
class PackActivated(Payload, kw_only=True):
    """From the event's time on ``version`` of ``pack`` judges. It goes to every partition.

    ``by`` is who approved it and ``reason`` why; without either it is refused, though logs of old may hold such events.
    """

    pack: Name
    version: Name
    by: Label = ""
    reason: Text = ""


class _PeriodOrder(Payload, kw_only=True):
    pack: Name
    window: CalendarWindow
    period: Name
    by: Name
    reason: Reason


@event("period.closed")
class PeriodClosed(_PeriodOrder, kw_only=True):
    """A period of a pack is closed before its grace is over, or again after it was opened; to every partition."""


@event("period.reopened")
class PeriodReopened(_PeriodOrder, kw_only=True):
    """A closed period of a pack takes late events itself again, until it is closed; to every partition."""


@event("step.done")
class StepDone(Payload, kw_only=True):
    """A step of an appraisal was done, by a ``team``, a ``department`` or (both empty) the company, for a period.

    It goes to every partition.
    """

    pack: Name
    period: Name
    step: Name
    by: Name
    department: Label = ""


@event("clock.tick")
class ClockTick(Payload, kw_only=True):
    """The log's clock: no event before this time is missing except late ones. It goes to every partition."""


EVERYWHERE = (PackActivated, PeriodClosed, PeriodReopened, StepDone)
"""The data of events that go to every partition, beside ticks."""

Event = Envelope
"""Any decoded event."""


def _union(classes: list[type[Envelope]]) -> Any:
    union: Any = classes[0]
    for cls in classes[1:]:
        union = union | cls
    return union


DECODER = msgspec.json.Decoder(_union([ENVELOPES[tag] for tag in ENVELOPES if tag not in DERIVED]))
"""Decodes one event in one pass; raises msgspec.ValidationError or msgspec.DecodeError."""

ENCODER = msgspec.json.Encoder()


def decode(raw: bytes) -> Envelope:
    """Decode one CloudEvents document.

    EventError has the code ``malformed``, ``unknown_type``, ``invalid`` or ``clear_customer``.
    """
    try:
        decoded: Envelope = DECODER.decode(raw)
    except msgspec.ValidationError as error:
        text = str(error)
        code = "unknown_type" if text.startswith("Invalid value") and text.endswith("`$.type`") else "invalid"
        raise EventError(code, text) from None
    except msgspec.DecodeError as error:
        raise EventError("malformed", f"not a JSON document: {error}") from None
    except UnicodeDecodeError as error:
        raise EventError("malformed", f"not UTF-8: {error.reason} in a text") from None
    except RecursionError:
        raise EventError("malformed", "not an event: the document is nested too deeply") from None
    customer = getattr(decoded.data, "customer", "")
    if customer and not is_pseudonym(customer):
        raise EventError(
            "clear_customer", "$.data.customer is not a pseudonym (c- and 16 to 64 hexadecimal digits)"
        )
    return decoded


def is_pseudonym(customer: str) -> bool:
    """Whether ``customer`` has the form that the adapters give a pseudonym."""
    return customer[:2] == "c-" and 18 <= len(customer) <= 66 and not customer[2:].strip("0123456789abcdef")


def make(
    tag: str,
    *,
    id: str,  # noqa: A002 - the name that CloudEvents gives it
    source: str,
    subject: str,
    time: datetime,
    data: Payload,
) -> Envelope:
    """Build an event of type ``tag``; ``data`` must be its payload struct."""
    assert type(data) is PAYLOADS[tag], f"{tag} carries {PAYLOADS[tag].__name__}, not {type(data).__name__}"
    envelope: Envelope = ENVELOPES[tag](id=id, source=source, subject=subject, time=time, data=data)
    return envelope


def encode(event: Envelope) -> bytes:
    """The event as one line of canonical JSON."""
    return ENCODER.encode(event)


def type_of(event: Envelope) -> str:
    """The CloudEvents type of an event."""
    tag = type(event).__struct_config__.tag
    assert isinstance(tag, str)
    return tag

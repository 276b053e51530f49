"""What goes out: decisions (ledger entries), alerts, grades, settlements, metric values, rejects.

Every struct here is written as canonical JSON: fields in the order of declaration, keys of free-form maps sorted,
numbers exact. Points are decimal text (``"-4"``, ``"0.5"``), money is whole minor units with a currency; a float never
carries points or money.

A decision has an ``id`` derived from rule, subject, period and incident, so that the same cause always gives the same
id. A decision about a running period is *provisional* and moves in numbered revisions of the same id; the close of the
period makes it final. The ledger keeps every revision; the newest one of an id is what counts. Nothing is erased: an
entry that takes something back is a decision of its own that names the other one in ``reverses``.

Nothing here can be part of a cycle of references, so the garbage collector need not look at it (``gc=False``): it would
walk through thousands of short-lived messages in vain.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Literal

import msgspec

DecisionKind = Literal["deduct", "award", "waive", "adjust", "task", "proposal"]
Status = Literal["provisional", "final"]
GradeStatus = Literal["provisional", "final", "withdrawn"]
"""``withdrawn``: it never becomes final, for its pack was not in force for the subject when the period ended."""
Level = Literal["agent", "team", "queue", "site", "department", "company"]
Severity = Literal["info", "medium", "high", "critical"]
REOPENED_RULE = "period-reopened"
"""What stands as the rule of the alert that a period is open again: no pack's rule raises it."""


class Words(msgspec.Struct, frozen=True, gc=False):
    """The same sentence in English and Chinese."""

    en: str
    zh: str


class UsedParameter(msgspec.Struct, frozen=True, gc=False):
    """A parameter's value as it was in force, since when, and the clause that sets it."""

    value: str
    unit: str
    since: str
    clause: str


class UsedFact(msgspec.Struct, frozen=True, gc=False):
    """A fact that the rule looked at: its exact value as text, and for a metric what it was made of."""

    value: str | None
    unit: str = ""
    numerator: str | None = None
    denominator: str | None = None
    formula: str = ""


class Step(msgspec.Struct, frozen=True, gc=False):
    """One line of the arithmetic: ``what`` = ``calculation`` = ``result``."""

    what: str
    calculation: str
    result: str


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One revision of one entry of the ledger.

    ``points`` is what the entry is worth now (deductions negative); a provisional entry whose cause has gone has a
    further revision with 0 points. ``amount_minor`` is what the points come to in minor units of ``currency`` where
    fines are on (before the pay guard), else 0. ``at`` is the moment of log time at which it was decided. ``incident``
    names the single thing judged (a complaint, a survey answer) and is empty for a rule about a period.
    """

    id: str
    revision: int
    kind: DecisionKind
    status: Status
    pack: str
    pack_version: str
    rule: str
    clause: str
    level: Level
    subject: str
    window: str
    period: str
    incident: str
    points: str
    amount_minor: int
    currency: str
    at: str
    facts: dict[str, UsedFact]
    parameters: dict[str, UsedParameter]
    evidence: list[str]
    evidence_count: int
    arithmetic: list[Step]
    explanation: Words
    owner: str = ""
    due_at: str = ""
    proposal: str = ""
    reverses: str = ""
    adjusts_period: str = ""
    shadow: bool = False


class Alert(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An alert begins (``firing``) or ends (``resolved``). ``since`` is when the condition first held."""

    id: str
    state: Literal["firing", "resolved"]
    pack: str
    pack_version: str
    rule: str
    clause: str
    severity: Severity
    level: Level
    subject: str
    incident: str
    since: str
    at: str
    owner: str
    title: Words
    explanation: Words
    response: Words
    facts: dict[str, UsedFact]
    parameters: dict[str, UsedParameter]
    evidence: list[str]
    shadow: bool = False


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What somebody said about an item: ``share`` of its points (1 is all). Peers and other departments are unnamed."""

    role: str
    share: str
    by: str = ""
    count: int = 1
    word: str = ""


class ScoreLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One item of a scorecard.

    It earned ``share`` (0 to 1; None without data) of ``most`` points of its dimension, which is ``part`` of the 100 of
    the whole card, and so ``contribution`` = part * share. ``calculation`` says how the share came about. ``entries``
    are the ledger entries that count in it.
    """

    dimension: str
    item: str
    clause: str
    title: Words
    most: str
    share: str | None
    part: str
    contribution: str
    calculation: str
    value: str | None = None
    unit: str = ""
    word: str = ""
    entries: list[str] = []
    said: list[Said] = []


class ScoreDimension(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One dimension of a scorecard: its ``weight`` (of 1) as the pack sets it, and what its lines contribute."""

    name: str
    clause: str
    title: Words
    weight: str
    contribution: str


class ScoreChange(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What moved since the revision before: an item, an entry, a cap, a decision. Empty text: it was not there."""

    what: str
    id: str
    before: str
    after: str


class ScoreDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How a score and grade came about: ``exact`` is the sum of all contributions and of the entries in ``others``.

    ``about`` is ``scorecard`` or ``combined`` (one score of several packs). ``word`` is the grade in words, ``notes``
    say what decided beside the sum: a cap, a leader's final word, a quota, a calibration.

    With ``since`` the card is told briefly: ``dimensions`` and ``lines`` hold only those that differ from the card of
    that revision, which is the one before this. Everything else is whole in each revision, and final ones always are.
    """

    about: Literal["scorecard", "combined"] = "scorecard"
    word: Words | None = None
    dimensions: list[ScoreDimension] = []
    lines: list[ScoreLine] = []
    others: dict[str, str] = {}
    exact: str = ""
    changes: list[ScoreChange] = []
    notes: list[Words] = []
    department: str = ""
    since: int = 0


class Grade(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A subject's score and grade under one pack for one period, each time one of them changes.

    A grade ends as ``final`` or, where its pack is not in force for the subject any more when the period ends, as
    ``withdrawn``; its score is then the one that was shown last, and counts nowhere.

    ``detail`` is there for a scorecard of dimensions, and for whatever else has more to say than its formula.
    """

    id: str
    revision: int
    status: GradeStatus
    pack: str
    pack_version: str
    level: Level
    subject: str
    window: str
    period: str
    score: str
    grade: str
    previous_grade: str
    at: str
    entries: list[str]
    formula: str
    explanation: Words
    shadow: bool = False
    detail: ScoreDetail | None = None


class MetricValue(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A metric of one subject over one calendar period. ``value`` is None where there is no data."""

    metric: str
    level: Level
    subject: str
    window: str
    period: str
    value: float | int | None
    numerator: float | int | None
    denominator: float | int | None
    pack: str
    formula: str


# --- pay --------------------------------------------------------------------------------------------------------------

PayComponent = Literal[
    "performance", "bonus", "grade_bonus", "performance_bonus", "year_bonus", "award", "penalty", "guard"
]
"""What an amount of pay is: performance pay by grade, the bonus of the best grade, a bonus by the grade under another
pack, money for awards that a pack calls its performance bonus or its year-end bonus, money for any other award, money
taken for a penalty (and given back by its waiver), what the pay guard gives back."""
SettlementState = Literal["draft", "superseded", "rejected", "approved", "exported", "acknowledged"]


class PayLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a settlement statement, and with an amount other than 0 one entry of the feed.

    ``key`` is the entry's idempotency key: the same entry has the same key however often it is sent (empty for a line
    without money, such as a fine that is not charged). ``source`` is the id of the decision or grade it comes from,
    ``of_period`` the settlement period it belongs to: an earlier one than the statement's for an adjustment or a
    correction. ``effective_period`` is the period it is about. ``reverses`` is the key of the entry it takes back.
    """

    key: str = ""
    component: PayComponent
    source: str
    of_period: str
    effective_period: str
    amount_minor: int
    currency: str
    event_time: str
    pack: str
    rule: str
    clause: str
    parameters: dict[str, UsedParameter]
    arithmetic: list[Step]
    explanation: Words
    reverses: str = ""


class PayGuard(msgspec.Struct, frozen=True, kw_only=True):
    """What the pay guard looked at and held back, in minor units.

    ``deductions_minor`` is what was to be deducted, ``limit_minor`` the most that may be, ``floor_minor`` what pay must
    reach (never more than the gross pay itself). ``held_minor`` is given back: what is over the limit, and what is
    then still missing to the floor.
    """

    deductions_minor: int
    limit_minor: int
    held_by_limit_minor: int
    floor_minor: int
    held_by_floor_minor: int

    @property
    def held_minor(self) -> int:
        """All that was held back."""
        return self.held_by_limit_minor + self.held_by_floor_minor


class CombinedResult(msgspec.Struct, frozen=True, kw_only=True):
    """The one score of several packs, as a statement shows it. No line of pay follows from it."""

    id: str
    pack: str
    score: str
    grade: str
    formula: str


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """The settlement statement of one person in one batch, with every line explained.

    ``gross_minor`` is the month's gross pay (None when nobody stated it), ``base_minor`` the performance pay base,
    ``fixed_minor`` what is paid whatever the appraisal says, ``total_minor`` the sum of the lines, ``pay_minor`` the
    month's pay with all lines. ``kind`` is ``correction`` when a period that was settled is settled anew; then the
    lines are what is taken back and what takes its place. ``missing`` says what could not be settled yet, and why.
    ``notes`` say what else the figures rest on (a month that is paid by days), ``combined`` is the person's one score
    of several packs; each is there only where there is something to say.
    """

    id: str
    batch: str
    kind: Literal["regular", "correction"]
    pack: str
    pack_version: str
    agent: str
    period: str
    currency: str
    gross_minor: int | None
    base_minor: int
    fixed_minor: int
    grade: str
    lines: list[PayLine]
    total_minor: int
    pay_minor: int
    guard: PayGuard
    rounding: Words
    missing: list[Words]
    notes: list[Words] | msgspec.UnsetType = msgspec.UNSET
    combined: CombinedResult | msgspec.UnsetType = msgspec.UNSET


class SettlementBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of statements entered a state. ``entries`` and ``total_minor`` are its control totals.

    ``by`` brought it into the state at the log time ``at``; ``requested_by`` had asked for it. A consumer pays what is
    approved, once for each entry's key.
    """

    id: str
    state: SettlementState
    kind: Literal["regular", "correction"]
    pack: str
    pack_version: str
    period: str
    number: int
    statements: int
    entries: int
    total_minor: int
    currency: str
    requested_by: str
    posted_at: str
    by: str
    at: str
    reason: str = ""
    replaces: str = ""


class Reject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record that could not be used: why, where it stood, and its bytes (base64) with customers' numbers masked.

    For a recorded file ``topic`` is the file's name, ``partition`` 0 and ``offset`` the line number.
    """

    code: str
    reason: str
    topic: str
    partition: int
    offset: int
    raw: str


@lru_cache(maxsize=65_536)
def decision_id(*parts: str) -> str:
    """A stable id (``d-`` and 24 hexadecimal digits) from what makes a decision unique; the parts' order matters."""
    return _derived("d-", parts)


def alert_id(*parts: str) -> str:
    """A stable id (``w-`` and 24 hexadecimal digits) for one firing of an alert."""
    return _derived("w-", parts)


@lru_cache(maxsize=65_536)
def grade_id(*parts: str) -> str:
    """A stable id (``g-`` and 24 hexadecimal digits) for a grade of a period."""
    return _derived("g-", parts)


def pay_id(prefix: Literal["b-", "s-", "p-"], *parts: str) -> str:
    """A stable id of a batch (``b-``), a statement (``s-``) or an entry of pay (``p-``), and 24 hexadecimal digits."""
    return _derived(prefix, parts)


def shadow_id(found: str, version: str) -> str:
    """The id under which a shadow of this version says what has the id ``found`` where it is in force."""
    return _derived(found[:2], ("shadow", version, found))


def _derived(prefix: str, parts: tuple[str, ...]) -> str:
    """The hash of the parts, each with its length before it."""
    raw = [part.encode() for part in parts]
    whole = b"".join([piece for part in raw for piece in (len(part).to_bytes(4, "big"), part)])
    return prefix + blake2b(whole, digest_size=12).hexdigest()


ENCODER = msgspec.json.Encoder(order="deterministic")
"""Canonical JSON for everything that goes out."""
DECISION_DECODER = msgspec.json.Decoder(Decision)
ALERT_DECODER = msgspec.json.Decoder(Alert)
GRADE_DECODER = msgspec.json.Decoder(Grade)
SETTLEMENT_DECODER = msgspec.json.Decoder(Settlement)
REJECT_DECODER = msgspec.json.Decoder(Reject)

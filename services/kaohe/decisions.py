"""What goes out: decisions (ledger entries), alerts, grades, metric values, rejects.

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
Level = Literal["agent", "team", "queue", "site"]
Severity = Literal["info", "medium", "high", "critical"]


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
    further revision with 0 points. ``at`` is the moment of log time at which it was decided. ``incident`` names the
    single thing judged (a complaint, a survey answer) and is empty for a rule about a period.
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


class Grade(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A subject's score and grade under one pack for one period, each time one of them changes."""

    id: str
    revision: int
    status: Status
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


def grade_id(*parts: str) -> str:
    """A stable id (``g-`` and 24 hexadecimal digits) for a grade of a period."""
    return _derived("g-", parts)


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
REJECT_DECODER = msgspec.json.Decoder(Reject)

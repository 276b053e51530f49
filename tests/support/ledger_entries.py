"""Builders of ledger records for tests: complete and plausible, with what a test cares about given by name."""

from __future__ import annotations

from typing import Any

import msgspec

from kaohe.decisions import ENCODER, Alert, Decision, Grade, Step, UsedFact, UsedParameter, Words
from kaohe.payroll.records import ALERTS_TOPIC, DECISIONS_TOPIC, GRADES_TOPIC, Delivery, Record

_DECISION = Decision(
    id="d-0123456789abcdef01234567",
    revision=1,
    kind="deduct",
    status="provisional",
    pack="logistics-service",
    pack_version="1.2.0",
    rule="ls-complaint-rate",
    clause="LS-01",
    level="agent",
    subject="a-17",
    window="month",
    period="2026-08",
    incident="",
    points="-4",
    amount_minor=0,
    currency="",
    at="2026-08-12T09:00:00Z",
    facts={
        "complaint_rate.month": UsedFact("0.035", "ratio", "7", "200", "complaint.upheld / customer.served"),
        "satisfaction.month": UsedFact(None, "ratio"),
    },
    parameters={"complaint_rate_limit": UsedParameter("0.015", "ratio", "2026-07-01", "LS-01")},
    evidence=["acd/c-81-upheld", "acd/c-90-upheld"],
    evidence_count=7,
    arithmetic=[
        Step("full points over the limit", "floor((0.035 - 0.015) / 0.01)", "2"),
        Step("points", "2 * -2", "-4"),
    ],
    explanation=Words(
        "Complaint rate 3.5 % is 2 full points over the limit of 1.5 %: 4 points are deducted.",
        "客户投诉率3.5%，超过上限1.5%整2个百分点，扣4分。",
    ),
)

_ALERT = Alert(
    id="w-0123456789abcdef01234567",
    state="firing",
    pack="contact-centre",
    pack_version="1.0.0",
    rule="cc-longest-wait",
    clause="CK-18",
    severity="high",
    level="queue",
    subject="sales",
    incident="",
    since="2026-08-12T09:00:00Z",
    at="2026-08-12T09:01:00Z",
    owner="t-1",
    title=Words("Callers wait too long", "来电等待过久"),
    explanation=Words("The longest wait is 190 s, over 180 s.", "最长等待190秒，超过180秒。"),
    response=Words("Move agents to the queue.", "增派坐席。"),
    facts={"longest_wait_s": UsedFact("190", "s")},
    parameters={"longest_wait_limit_s": UsedParameter("180", "s", "2026-01-01", "CK-18")},
    evidence=["acd/c-99-queued"],
)

_GRADE = Grade(
    id="g-0123456789abcdef01234567",
    revision=1,
    status="provisional",
    pack="logistics-service",
    pack_version="1.2.0",
    level="agent",
    subject="a-17",
    window="month",
    period="2026-08",
    score="96",
    grade="A",
    previous_grade="",
    at="2026-08-12T09:00:00Z",
    entries=["d-0123456789abcdef01234567"],
    formula="100 + points",
    explanation=Words("96 points make grade A.", "96分，等级A。"),
)

_TOPICS = {Decision: DECISIONS_TOPIC, Alert: ALERTS_TOPIC, Grade: GRADES_TOPIC}


def decision(**changes: Any) -> Decision:
    """A deduction for the complaint rate."""
    return msgspec.structs.replace(_DECISION, **changes)


def alert(**changes: Any) -> Alert:
    """A queue's alert."""
    return msgspec.structs.replace(_ALERT, **changes)


def grade(**changes: Any) -> Grade:
    """A month's grade."""
    return msgspec.structs.replace(_GRADE, **changes)


def delivery(record: Record, offset: int = 0, partition: int = 0) -> Delivery:
    """``record`` as it comes from its topic."""
    return Delivery(_TOPICS[type(record)], partition, offset, record)


def wire(record: Record) -> bytes:
    """``record`` as it lies in its topic."""
    return ENCODER.encode(record)

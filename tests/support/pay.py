"""Builders for tests of pay: terms, people and charges, complete, with what a test cares about by name."""

from __future__ import annotations

from typing import Any

from kaohe.core.pay import Charge, Person, Profile
from kaohe.decisions import Grade, Words
from kaohe.events import PayPartInForce, PayTermsInForce, TermParameter
from tests.support.ledger_entries import grade

PACK = "company-kpi"
PERIOD = "2026-08"


def parameter(name: str, unit: str, value: str = "", **table: str) -> TermParameter:
    """A parameter in force since the beginning of the year."""
    return TermParameter(name=name, clause="CK-06", unit=unit, since="2026-01-01", value=value, table=table)


def terms(*, inside_gross: bool = True, packs: tuple[str, ...] = (PACK,), **values: str) -> PayTermsInForce:
    """CK-02 and CK-06 with money for points; ``values`` are those of single parameters by their part."""
    numbers = {
        "share": "0.1", "annual_share": "0.8", "point_value": "500", "fines": "on", "limit": "0.2",
        "floor": "250000", "rounding": "half_up",
    } | values  # fmt: skip
    units = {"point_value": "minor", "floor": "minor", "fines": "text", "rounding": "text"}
    parameters = {part: parameter(part, units.get(part, "ratio"), value) for part, value in numbers.items()}
    parameters["coefficients"] = parameter("grade_coefficients", "ratio", A="1", B="1", C="0.7", D="0")
    parameters["bonuses"] = parameter("grade_bonuses", "ratio", A="0.1", **{"*": "0"})
    return PayTermsInForce(
        pack=PACK, pack_version="1.0", grades_pack=PACK, packs=list(packs), zone="Asia/Shanghai", currency="CNY",
        inside_gross=inside_gross, clauses={"base": "CK-02", "performance": "CK-06", "money": "FA-13"},
        parameters=parameters,
    )  # fmt: skip


def adding(pack: str, **values: str) -> PayPartInForce:
    """What another pack adds: a tenth of the pay base times 1.5, 1, 0.5 or 0, and 10.00 CNY a point, fines ``on``."""
    numbers = {"bonus_share": "0.1", "point_value": "1000", "fines": "on"} | values
    units = {"point_value": "minor", "fines": "text"}
    parameters = {part: parameter(part, units.get(part, "ratio"), value) for part, value in numbers.items()}
    parameters["bonus_coefficients"] = parameter("coefficients", "ratio", A="1.5", B="1", C="0.5", D="0")
    return PayPartInForce(
        pack=pack, pack_version="1.0", packs=[pack], clauses={"bonus": "LS-14", "money": "FA-13"},
        parameters=parameters,
    )  # fmt: skip


def monthly(gross_minor: int, currency: str = "CNY") -> Profile:
    """A month's gross pay."""
    return Profile(amount_minor=gross_minor, annual=False, currency=currency, source="hr/pay-1")


def annual(salary_minor: int) -> Profile:
    """An annual salary."""
    return Profile(amount_minor=salary_minor, annual=True, currency="CNY", source="hr/pay-1")


def graded(word: str, **changes: Any) -> Grade:
    """A final grade."""
    return grade(**{"pack": PACK, "grade": word, "status": "final", "id": f"g-{word}"} | changes)


def charge(points: str, **changes: Any) -> Charge:
    """A final entry of the month, worth so many points."""
    number = changes.pop("number", 1)
    values: dict[str, Any] = {
        "id": f"d-{number:03d}", "kind": "deduct" if points.startswith("-") else "award", "pack": PACK,
        "rule": "ck-rule", "clause": "FA-13", "incident": f"i-{number:03d}", "points": points, "amount_minor": 0,
        "currency": "", "at": f"2026-08-12T09:{number % 60:02d}:00Z", "period": PERIOD, "adjusts_period": "",
        "reverses": "", "explanation": Words("Something happened.", "发生了一件事。"),
    }  # fmt: skip
    return Charge(**values | changes)


def person(*charges: Charge, **changes: Any) -> Person:
    """Somebody with 8,000.00 CNY and a B."""
    values: dict[str, Any] = {
        "agent": "a-17", "profile": monthly(800_000), "grade": graded("B"), "charges": charges,
    }  # fmt: skip
    return Person(**values | changes)

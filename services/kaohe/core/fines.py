"""What entries with points are in money, where a company has switched fines on: said by the decision itself.

Theory of operation. Pay makes money of entries when a month is settled, by the terms in force on the month's first
day. Where these say that penalties cost money, a person should not have to wait for the payslip to see a fine: the same
terms of the packs that judge now, read the same way, give the amount when the entry is decided. It stands before the
pay guard, which looks at all of a month together. Where fines are off no entry says money, and nothing is looked up.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple, cast

import msgspec

from kaohe.core.facts import number_text
from kaohe.core.model import Pack
from kaohe.core.money import Rounding, money_text, rounded
from kaohe.core.pay import monies_of, month_of, point_value, terms_in_force, used
from kaohe.decisions import Decision, Step, UsedParameter, Words
from kaohe.errors import UsageError
from kaohe.events import PayTermsInForce

MONTHS_KEPT = 64
"""How many months' terms are remembered."""


class Money(NamedTuple):
    """What an entry comes to in minor units, how, and by which parameters."""

    amount_minor: int
    step: Step
    parameters: dict[str, UsedParameter]


class Fines:
    """What the entries of some packs, which judge together, are in money."""

    def __init__(self, packs: Iterable[Pack]) -> None:
        self._packs = tuple(packs)
        self._payer = next((pack for pack in self._packs if pack.pay is not None and pack.pay.pays), None)
        self._months: dict[str, PayTermsInForce | None] = {}

    def money(self, pack: str, rule: str, points: Fraction, label: str) -> Money | None:
        """What points that a rule of a pack gave or took in a period come to; None where fines are off."""
        terms = self._in_force(month_of(label))
        parameters = monies_of(terms).get(pack) if terms is not None else None
        if terms is None or parameters is None or parameters["fines"].value != "on":
            return None
        value = point_value(parameters["point_value"], rule)
        amount = rounded(points * value, cast(Rounding, terms.parameters["rounding"].value))
        if not amount:
            return None
        each = money_text(int(value), terms.currency) if value.denominator == 1 else number_text(value)
        step = Step("in money", f"{number_text(points)} × {each}", money_text(amount, terms.currency))
        return Money(amount, step, used(parameters, ("point_value", "fines"), rule))

    def _in_force(self, month: str) -> PayTermsInForce | None:
        if self._payer is None:
            return None
        if month not in self._months:
            if len(self._months) >= MONTHS_KEPT:
                self._months.clear()
            try:
                self._months[month] = terms_in_force(self._payer, month, self._packs)
            except UsageError:  # not in force yet: nothing of that month is settled
                self._months[month] = None
        return self._months[month]


def may_fine(packs: Iterable[Pack]) -> bool:
    """Whether any of the packs ever makes money of what its entries take away."""
    terms = [(pack, pack.pay) for pack in packs if pack.pay is not None and pack.pay.money_clause]
    return any(value == "on" for pack, pay in terms for _, value in pack.parameters[pay.fines].values)


def with_money(decision: Decision, money: Money) -> Decision:
    """The decision with its money: the amount, the arithmetic, the parameters, and a sentence more."""
    text = money_text(abs(money.amount_minor), decision.currency)
    if decision.kind == "waive":
        more = (
            Words(f"It gives back a fine of {text}.", f"返还罚款{text}。")
            if money.amount_minor > 0
            else Words(f"It takes back {text}.", f"收回{text}。")
        )
    elif money.amount_minor < 0:
        more = Words(f"It is a fine of {text}, before the pay guard.", f"罚款{text}（未计薪酬保护）。")
    else:
        more = Words(f"In money it is {text}.", f"折合{text}。")
    return msgspec.structs.replace(
        decision, amount_minor=money.amount_minor, arithmetic=[*decision.arithmetic, money.step],
        parameters=decision.parameters | money.parameters,
        explanation=Words(f"{decision.explanation.en} {more.en}", decision.explanation.zh + more.zh),
    )  # fmt: skip

"""Whole minor units of money: how many decimals a currency has, how an exact amount is rounded, and how it is shown."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

Rounding = Literal["half_up", "half_even", "down"]

# ISO 4217: how many decimals the currencies have that do not have two.
_DECIMALS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND"), 0),
    **dict.fromkeys(("VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}


def decimals(currency: str) -> int:
    """How many digits after the point an amount of this currency has."""
    return _DECIMALS.get(currency, 2)


def rounded(amount: Fraction, how: Rounding) -> int:
    """Whole minor units. Both signs alike, so that what takes an amount back is exactly as large as the amount.

    ``half_up`` rounds a half away from nothing, ``half_even`` to the even neighbour, ``down`` towards nothing.
    """
    whole, rest = divmod(abs(amount.numerator), amount.denominator)
    twice = 2 * rest - amount.denominator
    up = {"half_up": twice >= 0, "half_even": twice > 0 or (twice == 0 and whole % 2 == 1), "down": False}[
        how
    ]
    value = whole + (1 if up else 0)
    return -value if amount < 0 else value


def plain(amount_minor: int, currency: str) -> str:
    """``-1234`` CNY is ``-12.34``: for machines, without the currency."""
    places = decimals(currency)
    digits = str(abs(amount_minor)).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return "-" + text if amount_minor < 0 else text


def money_text(amount_minor: int, currency: str) -> str:
    """``-1234`` CNY is ``−12.34 CNY``: for people, with a real minus sign."""
    return plain(amount_minor, currency).replace("-", "−") + f" {currency}"

"""The matcher against a plain evaluation of the same conditions, over random rulesets and facts.

The oracle knows nothing of encodings, alternatives or durable-rules. The seed is printed; set KAOHE_SEED to run one
again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from fractions import Fraction

import pytest

from kaohe.core.expressions import And, Compare, CompareOp, Condition, ExprType, FieldRef, Known, Or
from kaohe.core.matcher import FactValue, Matcher, check_limits

RULESETS = 900
FACTS_PER_RULESET = 56

FIELDS: Mapping[str, ExprType] = {
    "wait_ms": ExprType("number", "ms"),
    "limit_ms": ExprType("number", "ms"),
    "rate.month": ExprType("number", "ratio", optional=True),
    "rate.last": ExprType("number", "ratio", optional=True),
    "p.limit": ExprType("number", "ratio"),
    "score": ExprType("number", optional=True),
    "type": ExprType("string"),
    "position": ExprType("string", optional=True),
    "team": ExprType("string", optional=True),
    "late": ExprType("bool"),
    "excused": ExprType("bool", optional=True),
}
NANO = Fraction(1, 10**9)
LITERALS = [
    Fraction(text)
    for text in (
        "0", "1", "-1", "2", "0.02", "0.015", "0.333333333", "0.666666666", "0.000000001", "-0.000000001", "3.5",
        "20000", "19999.999999999", "4000000000", "-4000000000", "3999999999.999999999", "5", "5.5", "0.1",
    )
]  # fmt: skip
BESIDE = [
    sign * Fraction(step)
    for sign in (1, -1)
    for step in (0, 0, NANO, NANO / 2, NANO / 3, Fraction(1, 10**40), 1)
]
TEXTS = [
    "", " ", "a", "A", "ab", "abc", "0", "5", "5.5", "-1", "1e-7", "true", "false", "null", "None", "客服", "客", "é",
    "e\u0301", "\U0001f600", '"', "'", "\\", "\\\\", '\\"', 'a"', 'a\\"', "a'b", "a\nb", "a\tb", "\x00", "\x00sha256:0",
    "{", "}", '{"m":1}', '","f0":"', "$m", "%s", "{e0}", "a,b", "x" * 999, "x" * 2000, "x" * 2001, "客" * 3000,
]  # fmt: skip
OPERATORS: tuple[CompareOp, ...] = ("==", "!=", "<", "<=", ">", ">=")


class Oracle:
    """Which conditions hold for a fact, straight from what the conditions say."""

    def __init__(self, rules: list[tuple[str, Condition]]) -> None:
        self._rules = rules

    def match(self, fact: Mapping[str, FactValue]) -> tuple[str, ...]:
        found = {rule_id for rule_id, condition in self._rules if self.holds(condition, fact)}
        return tuple(
            rule_id for rule_id in dict.fromkeys(rule_id for rule_id, _ in self._rules) if rule_id in found
        )

    def holds(self, condition: Condition, fact: Mapping[str, FactValue]) -> bool:
        if isinstance(condition, And):
            return all(self.holds(part, fact) for part in condition.parts)
        if isinstance(condition, Or):
            return any(self.holds(part, fact) for part in condition.parts)
        if isinstance(condition, Known):
            return (fact[condition.field] is not None) is condition.known
        left = fact[condition.field]
        value = condition.value
        right = fact[value.name] if isinstance(value, FieldRef) else value
        if left is None or right is None:
            return False
        if condition.op == "==":
            return left == right
        if condition.op == "!=":
            return left != right
        assert isinstance(left, int | Fraction)
        assert isinstance(right, int | Fraction)
        return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[condition.op]


def _names(kind: str) -> list[str]:
    return [name for name, found in FIELDS.items() if found.kind == kind]


def _literal(
    draw: random.Random, kind: str, literals: list[Fraction], texts: list[str]
) -> bool | str | Fraction:
    if kind == "number":
        return draw.choice(literals)
    return draw.choice(texts) if kind == "string" else draw.random() < 0.5


def _test(draw: random.Random, literals: list[Fraction], texts: list[str]) -> Condition:
    field = draw.choice(list(FIELDS))
    kind = FIELDS[field].kind
    if draw.random() < 0.1:
        return Known(field, draw.random() < 0.6)
    if draw.random() < 0.1 and kind != "bool":
        chosen = [_literal(draw, kind, literals, texts) for _ in range(draw.randint(2, 5))]
        return Or(tuple(Compare("==", field, value) for value in chosen))
    op = draw.choice(OPERATORS if kind == "number" else OPERATORS[:2])
    others = [name for name in _names(kind) if name != field]
    if draw.random() < 0.3:
        return Compare(op, field, FieldRef(draw.choice(others)))
    return Compare(op, field, _literal(draw, kind, literals, texts))


def _condition(draw: random.Random, literals: list[Fraction], texts: list[str], depth: int) -> Condition:
    if depth == 0 or draw.random() < 0.3:
        return _test(draw, literals, texts)
    parts = tuple(_condition(draw, literals, texts, depth - 1) for _ in range(draw.randint(0, 3) or 2))
    return And(parts) if draw.random() < 0.6 else Or(parts)


def _number(draw: random.Random, literals: list[Fraction]) -> int | Fraction:
    near = draw.choice(literals)
    beside = draw.choice(BESIDE)
    choice = draw.random()
    if choice < 0.7:
        value = near + beside
    elif choice < 0.9:
        value = Fraction(draw.randint(-10, 10), draw.choice([1, 2, 3, 7, 9, 10**9, 3 * 10**9]))
    else:
        value = Fraction(draw.choice([10**12, -(10**12), 10**30, -(10**30), 4 * 10**9 + 1, 2**63])) + beside
    return int(value) if value.denominator == 1 and draw.random() < 0.8 else value


def _fact(draw: random.Random, literals: list[Fraction], texts: list[str]) -> dict[str, FactValue]:
    fact: dict[str, FactValue] = {}
    for name, found in FIELDS.items():
        if found.optional and draw.random() < 0.25:
            fact[name] = None
        elif found.kind == "number":
            fact[name] = _number(draw, literals)
        elif found.kind == "string":
            fact[name] = draw.choice(texts)
        else:
            fact[name] = draw.random() < 0.5
    return fact


def _rules(draw: random.Random, literals: list[Fraction], texts: list[str]) -> list[tuple[str, Condition]]:
    """A few rules, and now and then more than one ruleset holds; ids may repeat."""
    count = draw.choice([1, 3, 8, 12]) if draw.random() < 0.98 else 150
    rules: list[tuple[str, Condition]] = []
    while len(rules) < count:
        rule = (f"rule-{draw.randint(0, 2 * count)}", _condition(draw, literals, texts, draw.randint(0, 3)))
        if not check_limits([rule], FIELDS):
            rules.append(rule)
    return rules


@pytest.mark.slow
def test_the_matcher_agrees_with_a_plain_evaluation_on_random_rules_and_facts() -> None:
    seed = int(os.environ.get("KAOHE_SEED", "20260801"))
    print(f"KAOHE_SEED={seed}")
    draw = random.Random(seed)
    compared = fired = 0
    for number in range(RULESETS):
        literals, texts = draw.sample(LITERALS, 6), draw.sample(TEXTS, 6)
        rules = _rules(draw, literals, texts)
        matcher, oracle = Matcher(f"differential-{number}", rules, FIELDS), Oracle(rules)
        try:
            for _ in range(FACTS_PER_RULESET):
                fact = _fact(draw, literals, texts)
                expected = oracle.match(fact)
                assert matcher.match(fact) == expected, f"seed {seed}, ruleset {number}: {rules} over {fact}"
                compared += 1
                fired += len(expected)
        finally:
            matcher.close()
    print(f"{compared} pairs compared, {fired} rules fired")
    assert compared >= 50_000
    assert fired > compared, "the random rules are to fire often, or little is compared"

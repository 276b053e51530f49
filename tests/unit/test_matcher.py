"""The matcher: exact comparisons, the unknown, wrong facts, failures half way, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaohe.core import matcher as module
from kaohe.core.expressions import (
    ALWAYS,
    And,
    Compare,
    CompareOp,
    Condition,
    ExprType,
    FieldRef,
    Known,
    Or,
    compare,
    parse_condition,
    to_condition,
)
from kaohe.core.matcher import MAX_TEXT_CHARS, Fact, FactValue, Matcher, check_limits
from kaohe.errors import MatcherError

NUMBER = ExprType("number")
MAYBE = ExprType("number", optional=True)
TEXT = ExprType("string")
TRUTH = ExprType("bool")
OPERATORS: tuple[CompareOp, ...] = ("==", "!=", "<", "<=", ">", ">=")


def rules_of(field: str, value: Fraction | str | FieldRef) -> list[tuple[str, Condition]]:
    ordered = not isinstance(value, str)
    return [(op, Compare(op, field, value)) for op in OPERATORS if ordered or op in {"==", "!="}]


def expected(left: FactValue, right: FactValue) -> tuple[str, ...]:
    assert isinstance(left, int | Fraction)
    assert isinstance(right, int | Fraction)
    return tuple(op for op in OPERATORS if compare(op, Fraction(left), Fraction(right)))


# Order and identity of rules ----------------------------------------------------------------------------


def test_rules_are_named_in_the_order_of_their_declaration() -> None:
    order = ["m", "a", "z", "b"]
    matcher = Matcher(
        "order", [(name, Compare(">", "x", Fraction(9 - i))) for i, name in enumerate(order)], {"x": NUMBER}
    )
    assert matcher.match({"x": 100}) == ("m", "a", "z", "b")
    assert matcher.match({"x": 7}) == ("b",)
    assert matcher.match({"x": 0}) == ()


def test_an_id_that_two_rules_share_is_named_once_at_its_first_place() -> None:
    rules: list[tuple[str, Condition]] = [
        ("a", Compare("==", "x", Fraction(1))),
        ("b", ALWAYS),
        ("a", Compare("==", "x", Fraction(2))),
    ]
    matcher = Matcher("shared", rules, {"x": NUMBER})
    assert matcher.match_many([{"x": 1}, {"x": 2}, {"x": 3}]) == [("a", "b"), ("a", "b"), ("b",)]


def test_rules_without_a_condition_always_hold_and_rules_without_an_alternative_never() -> None:
    rules: list[tuple[str, Condition]] = [
        ("always", ALWAYS),
        ("never", Or(())),
        ("both", And((ALWAYS, Or(())))),
    ]
    assert Matcher("empty", rules, {}).match({}) == ("always",)
    assert Matcher("none", [], {}).match({}) == ()


def test_ids_may_hold_any_characters() -> None:
    rules: list[tuple[str, Condition]] = [('客"服\\{x}%s\n', ALWAYS), ("", ALWAYS)]
    assert Matcher('name "\\客', rules, {}).match({}) == ('客"服\\{x}%s\n', "")


def test_field_names_may_hold_any_characters() -> None:
    fields = {"a.b": NUMBER, "a'\"\\{}\n客": NUMBER, "$s": NUMBER, "id": NUMBER, "sid": TEXT}
    rules: list[tuple[str, Condition]] = [
        ("sum", And(tuple(Compare("==", name, Fraction(1)) for name in fields if name != "sid"))),
        ("sid", Compare("==", "sid", "0")),
    ]
    matcher = Matcher("names", rules, fields)
    fact: Fact = {"a.b": 1, "a'\"\\{}\n客": 1, "$s": 1, "id": 1, "sid": "0"}
    assert matcher.match(fact) == ("sum", "sid")
    assert matcher.match({**fact, "id": 2, "sid": "1"}) == ()


# Numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "literal",
    [
        "0",
        "0.02",
        "0.015",
        "20000",
        "-3.5",
        "0.000000001",
        "4000000000",
        "-4000000000",
        "3999999999.999999999",
    ],
)
def test_values_beside_a_limit_are_told_from_it(literal: str) -> None:
    limit = Fraction(literal)
    matcher = Matcher("beside", rules_of("x", limit), {"x": NUMBER})
    steps = [
        Fraction(0),
        Fraction(1, 10**9),
        Fraction(1, 3 * 10**9),
        Fraction(1, 10**30),
        Fraction(1),
        Fraction(10**30),
    ]
    for step in steps:
        for value in (limit + step, limit - step):
            assert matcher.match({"x": value}) == expected(value, limit), value


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Fraction(1, 3), Fraction(1, 3)),
        (Fraction(1, 3), Fraction(333333333, 10**9)),
        (Fraction(1, 3), Fraction(1, 3) + Fraction(1, 10**30)),
        (Fraction(-1, 3), Fraction(-1, 3) - Fraction(1, 10**30)),
        (10**30, 10**30 + 1),
        (10**30, -(10**30)),
        (-(10**30), -(10**30) + Fraction(1, 2)),
        (0, Fraction(1, 10**30)),
        (4 * 10**9 + 1, 4 * 10**9 + 2),
        (2**63, 2**63),
    ],
)
def test_two_numbers_are_compared_exactly_however_near_or_large(
    left: int | Fraction, right: int | Fraction
) -> None:
    matcher = Matcher("pair", rules_of("x", FieldRef("y")), {"x": NUMBER, "y": NUMBER})
    assert matcher.match({"x": left, "y": right}) == expected(left, right)
    assert matcher.match({"x": right, "y": left}) == expected(right, left)


def test_three_numbers_of_one_decimal_are_all_told_apart() -> None:
    names = ["x", "y", "z"]
    rules: list[tuple[str, Condition]] = [
        (f"{one}{op}{other}", Compare(op, one, FieldRef(other)))
        for one in names
        for other in names
        if one != other
        for op in OPERATORS
    ]
    matcher = Matcher("triple", rules, dict.fromkeys(names, NUMBER))
    tiny = Fraction(1, 10**12)
    values = {"x": Fraction(1, 3), "y": Fraction(1, 3) + tiny, "z": Fraction(1, 3) - tiny}
    wanted = tuple(
        f"{one}{op}{other}"
        for one in names
        for other in names
        if one != other
        for op in OPERATORS
        if compare(op, values[one], values[other])
    )
    assert matcher.match(values) == wanted


@settings(deadline=None)
@given(
    st.lists(st.decimals(-(10**6), 10**6, places=9).map(Fraction), min_size=1, max_size=6),
    st.lists(st.one_of(st.integers(), st.fractions()), min_size=1, max_size=10),
)
def test_any_number_is_compared_exactly_with_any_literal(
    limits: list[Fraction], values: list[int | Fraction]
) -> None:
    rules = [(f"{i}{op}", found) for i, limit in enumerate(limits) for op, found in rules_of("x", limit)]
    matcher = Matcher("any", rules, {"x": NUMBER})
    for value in [*values, *limits]:
        wanted = [f"{i}{op}" for i, limit in enumerate(limits) for op in expected(value, limit)]
        assert matcher.match({"x": value}) == tuple(wanted)
    matcher.close()


# Texts and truth values -----------------------------------------------------------------------------------

ODD_TEXTS = [
    "", " ", "5", "5.5", "0", "-1", "1e-7", "true", "null", "客服", "é", "e\u0301", "\U0001f600", '"', "'", "\\", '\\"',
    "a\nb", "\x00", "\x00sha256:", "{", "x" * (MAX_TEXT_CHARS - 2), "x" * MAX_TEXT_CHARS, "客" * 70000, "\ud800",
]  # fmt: skip


def test_texts_equal_only_themselves() -> None:
    rules: list[tuple[str, Condition]] = [
        (str(i), Compare("==", "t", text)) for i, text in enumerate(ODD_TEXTS)
    ]
    matcher = Matcher("texts", rules, {"t": TEXT})
    for i, text in enumerate(ODD_TEXTS):
        assert matcher.match({"t": text}) == (str(i),), text[:20]
        assert matcher.match({"t": text + "."}) == ()


def test_two_texts_are_compared() -> None:
    matcher = Matcher("two", [("same", Compare("==", "t", FieldRef("u")))], {"t": TEXT, "u": TEXT})
    for text in ODD_TEXTS:
        for other in ODD_TEXTS:
            assert matcher.match({"t": text, "u": other}) == (("same",) if text == other else ())


def test_a_text_that_looks_like_the_digest_of_another_is_not_it() -> None:
    long = "x" * 5000
    matcher = Matcher("digest", [("long", Compare("==", "t", long))], {"t": TEXT})
    digest = module._short(long)
    assert len(digest) < 100
    assert matcher.match({"t": long}) == ("long",)
    assert matcher.match({"t": digest}) == ()


def test_truth_values_are_compared_with_each_other() -> None:
    rules: list[tuple[str, Condition]] = [
        ("a", Compare("==", "a", True)),
        ("not-a", Compare("!=", "a", True)),
        ("same", Compare("==", "a", FieldRef("b"))),
        ("other", Compare("!=", "a", FieldRef("b"))),
    ]
    matcher = Matcher("truth", rules, {"a": TRUTH, "b": TRUTH})
    assert matcher.match({"a": True, "b": True}) == ("a", "same")
    assert matcher.match({"a": False, "b": True}) == ("not-a", "other")


# The unknown ------------------------------------------------------------------------------------------------


def test_an_unknown_value_satisfies_no_comparison() -> None:
    fields = {
        "x": MAYBE,
        "y": MAYBE,
        "t": ExprType("string", optional=True),
        "b": ExprType("bool", optional=True),
    }
    rules = [
        *rules_of("x", Fraction(0)),
        *[(f"pair{op}", found) for op, found in rules_of("x", FieldRef("y"))],
        *[(f"text{op}", found) for op, found in rules_of("t", "")],
        ("true", Compare("==", "b", True)),
        ("false", Compare("==", "b", False)),
        ("has", Known("x")),
        ("has-not", Known("x", False)),
    ]
    matcher = Matcher("unknown", rules, fields)
    nothing: Fact = dict.fromkeys(fields)
    assert matcher.match(nothing) == ("has-not",)
    assert matcher.match({**nothing, "x": 0}) == ("==", "<=", ">=", "has")
    assert matcher.match({**nothing, "y": 0}) == ("has-not",)
    assert matcher.match({"x": 0, "y": 0, "t": "", "b": False}) == (
        "==", "<=", ">=", "pair==", "pair<=", "pair>=", "text==", "false", "has",
    )  # fmt: skip


def test_has_of_a_field_that_is_always_known() -> None:
    rules: list[tuple[str, Condition]] = [("has", Known("x")), ("has-not", Known("x", False))]
    assert Matcher("known", rules, {"x": NUMBER}).match({"x": 0}) == ("has",)


def test_written_conditions_reach_the_engine() -> None:
    scope = {
        "rate.month": ExprType("number", "ratio", optional=True),
        "p.limit": ExprType("number", "ratio"),
        "team": TEXT,
    }
    texts = ["rate.month > p.limit", "!(rate.month > p.limit)", "team in ['gold', '客'] && !has(rate.month)"]
    matcher = Matcher(
        "written", [(text, to_condition(parse_condition(text, scope))) for text in texts], scope
    )
    limit = Fraction("0.015")
    assert matcher.match({"rate.month": Fraction(3, 199), "p.limit": limit, "team": "gold"}) == (texts[0],)
    assert matcher.match({"rate.month": Fraction(3, 200), "p.limit": limit, "team": "gold"}) == (texts[1],)
    assert matcher.match({"rate.month": None, "p.limit": limit, "team": "客"}) == (texts[2],)
    assert matcher.match({"rate.month": None, "p.limit": limit, "team": "tin"}) == ()


# What is wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fact", "sentence"),
    [
        ({"x": 1, "t": "a"}, "the fact has no field b"),
        ({"x": 1.5, "t": "a", "b": True}, "the field x should be an exact number and is 1.5"),
        ({"x": True, "t": "a", "b": True}, "the field x should be an exact number and is True"),
        ({"x": "1", "t": "a", "b": True}, "the field x should be an exact number and is '1'"),
        ({"x": None, "t": "a", "b": True}, "the field x should be an exact number and is None"),
        ({"x": 1, "t": 5, "b": True}, "the field t should be a text and is 5"),
        ({"x": 1, "t": None, "b": True}, "the field t should be a text and is None"),
        ({"x": 1, "t": "a", "b": 1}, "the field b should be true or false and is 1"),
        ({"x": 1, "t": "a", "b": None}, "the field b should be true or false and is None"),
    ],
)
def test_a_wrong_fact_is_refused_and_the_next_one_is_matched(fact: Fact, sentence: str) -> None:
    rules: list[tuple[str, Condition]] = [
        ("all", And((Compare(">", "x", Fraction(0)), Compare("==", "t", "a"), Compare("==", "b", True))))
    ]
    matcher = Matcher("wrong", rules, {"x": NUMBER, "t": TEXT, "b": TRUTH})
    with pytest.raises(MatcherError, match=sentence):
        matcher.match(fact)
    assert matcher.match({"x": 1, "t": "a", "b": True}) == ("all",)


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        (Compare(">", "z", Fraction(1)), "there is no field z"),
        (Compare(">", "x", FieldRef("z")), "there is no field z"),
        (Known("z"), "there is no field z"),
        (Compare("==", "x", "1"), "x is a number and is compared with a string; compare like with like"),
        (Compare("==", "x", True), "x is a number and is compared with a bool; compare like with like"),
        (
            Compare("==", "t", Fraction(1)),
            "t is a string and is compared with a number; compare like with like",
        ),
        (
            Compare("==", "x", FieldRef("t")),
            "x is a number and is compared with a string; compare like with like",
        ),
        (Compare("<", "t", "a"), "t is a string and has no order; use == or !="),
        (Compare(">", "b", FieldRef("b")), "b is a bool and has no order; use == or !="),
        (Compare(">", "x", Fraction(1, 3)), "x is compared with a number of more than 9 decimals; round it"),
        (
            Compare(">", "x", Fraction(4 * 10**9 + 1)),
            "x is compared with a number beyond 4000000000; use a larger unit",
        ),
    ],
)
def test_what_the_engine_cannot_carry_is_refused(condition: Condition, sentence: str) -> None:
    fields = {"x": NUMBER, "t": TEXT, "b": TRUTH}
    assert check_limits([("rule", And((Or((condition, ALWAYS)), ALWAYS)))], fields) == [
        f"rule rule: {sentence}"
    ]
    with pytest.raises(MatcherError, match="refused: rule rule: "):
        Matcher("refused", [("rule", condition)], fields)


def test_every_wrong_rule_is_named() -> None:
    rules: list[tuple[str, Condition]] = [
        ("one", Compare(">", "z", Fraction(1))),
        ("fine", Compare(">", "x", Fraction(1))),
        ("two", Known("y")),
    ]
    assert check_limits(rules, {"x": NUMBER}) == [
        "rule one: there is no field z",
        "rule two: there is no field y",
    ]


# Failures half way ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["_start_action", "_next_action", "_retract_fact"])
def test_a_match_that_is_interrupted_leaves_a_sound_matcher(
    monkeypatch: pytest.MonkeyPatch, where: str, interruption: type[BaseException]
) -> None:
    rules: list[tuple[str, Condition]] = [(f"r{i}", Compare(">", "x", Fraction(i))) for i in range(3)]
    matcher = Matcher("interrupted", rules, {"x": NUMBER})
    real: Callable[[int, object], object] = getattr(module, where)
    calls: list[int] = []

    def interrupt(handle: int, argument: object) -> object:
        calls.append(handle)
        if len(calls) == 1:
            raise interruption("stop")
        return real(handle, argument)

    monkeypatch.setattr(module, where, interrupt)
    with pytest.raises(MatcherError if interruption is RuntimeError else KeyboardInterrupt):
        matcher.match({"x": 2})
    assert calls
    assert matcher.match({"x": 2}) == ("r0", "r1")
    assert matcher.match({"x": 3}) == ("r0", "r1", "r2")


def test_an_engine_that_names_no_rule_for_a_fact_it_took_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    matcher = Matcher("silent", [("rule", ALWAYS)], {})
    monkeypatch.setattr(module, "_start_action", lambda *given: None)
    monkeypatch.setattr(matcher, "_reopen", lambda: None)
    with pytest.raises(MatcherError, match=r"took a fact .* and named no rule for it"):
        matcher.match({})


def test_a_closed_matcher_is_not_used() -> None:
    matcher = Matcher("closed", [("rule", ALWAYS)], {})
    matcher.close()
    with pytest.raises(MatcherError, match="closed: the matcher is closed"):
        matcher.match({})
    matcher.close()


def test_equal_matchers_do_not_disturb_each_other() -> None:
    one = Matcher("twin", [("rule", Compare(">", "x", Fraction(1)))], {"x": NUMBER})
    other = Matcher("twin", [("rule", Compare(">", "x", Fraction(2)))], {"x": NUMBER})
    assert one.match({"x": 2}) == ("rule",)
    assert other.match({"x": 2}) == ()
    one.close()
    assert other.match({"x": 3}) == ("rule",)

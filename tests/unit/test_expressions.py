"""The language of conditions and amounts: what is let through, what is refused and where, and what it means."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaohe.core.expressions import (
    ALWAYS,
    And,
    Compare,
    Condition,
    ExprType,
    FieldRef,
    Known,
    Or,
    bind,
    decider,
    evaluate,
    names,
    parse_amount,
    parse_condition,
    to_condition,
    to_python,
    type_of,
)
from kaohe.errors import ExpressionError

SCOPE: Mapping[str, ExprType] = {
    "event.wait_ms": ExprType("number", "ms"),
    "event.rings": ExprType("number", "count"),
    "event.rating": ExprType("number", "points", optional=True),
    "event.note": ExprType("string"),
    "event.channel": ExprType("string", values=("voice", "chat", "mail")),
    "event.urgent": ExprType("bool"),
    "event.excused": ExprType("bool", optional=True),
    "roster.position": ExprType("string", values=("agent", "team_leader"), optional=True),
    "complaint_rate.month": ExprType("number", "ratio", optional=True),
    "waiting.rolling_1h": ExprType("number", "s", optional=True),
    "late_min": ExprType("number", "min"),
    "plain": ExprType("number"),
    "nullable": ExprType("number"),
    "inside": ExprType("bool"),
    "trueish.if": ExprType("bool"),
    "p.complaint_rate_limit": ExprType("number", "ratio"),
    "p.step_points": ExprType("number", "points"),
    "p.step_min": ExprType("number", "min"),
    "p.threshold_ms": ExprType("number", "ms"),
}


def condition(text: str) -> Condition:
    return to_condition(parse_condition(text, SCOPE))


# What is let through ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event.rings > 3", Compare(">", "event.rings", Fraction(3))),
        ("3 < event.rings", Compare(">", "event.rings", Fraction(3))),
        ("event.rings>=-3", Compare(">=", "event.rings", Fraction(-3))),
        ("event.rings > - 3", Compare(">", "event.rings", Fraction(-3))),
        ("event.rings == 1.", Compare("==", "event.rings", Fraction(1))),
        ("complaint_rate.month > .015", Compare(">", "complaint_rate.month", Fraction(3, 200))),
        ("plain != 0.000000001", Compare("!=", "plain", Fraction(1, 10**9))),
        ("plain <= 4000000000", Compare("<=", "plain", Fraction(4 * 10**9))),
        (
            "complaint_rate.month > p.complaint_rate_limit",
            Compare(">", "complaint_rate.month", FieldRef("p.complaint_rate_limit")),
        ),
        ("plain == event.rings", Compare("==", "plain", FieldRef("event.rings"))),
        ("event.channel == 'voice'", Compare("==", "event.channel", "voice")),
        ('"voice" != event.channel', Compare("!=", "event.channel", "voice")),
        ("event.urgent", Compare("==", "event.urgent", True)),
        ("!event.urgent", Compare("==", "event.urgent", False)),
        ("event.urgent == true", Compare("==", "event.urgent", True)),
        ("event.urgent != true", Compare("==", "event.urgent", False)),
        ("!(event.urgent == false)", Compare("==", "event.urgent", True)),
        ("event.urgent != event.excused", Compare("!=", "event.urgent", FieldRef("event.excused"))),
        ("trueish.if", Compare("==", "trueish.if", True)),
        ("nullable > 0 && inside", And((Compare(">", "nullable", Fraction(0)), Compare("==", "inside", True)))),
        ("has(complaint_rate.month)", Known("complaint_rate.month")),
        ("!has(event.rating)", Known("event.rating", False)),
        ("has(event.rings)", ALWAYS),
        ("!has(event.rings)", Or(())),
        (
            "event.channel in ['voice', 'chat']",
            Or((Compare("==", "event.channel", "voice"), Compare("==", "event.channel", "chat"))),
        ),
        (
            "event.rings in [1, 2, 1.0]",
            Or((Compare("==", "event.rings", Fraction(1)), Compare("==", "event.rings", Fraction(2)))),
        ),
        ("event.channel in ['voice']", Compare("==", "event.channel", "voice")),
        (
            "!(event.note in ['a', 'b'])",
            And((Compare("!=", "event.note", "a"), Compare("!=", "event.note", "b"))),
        ),
        (
            "!(event.rings > 3 && (event.urgent || !inside))",
            Or(
                (
                    Compare("<=", "event.rings", Fraction(3)),
                    And((Compare("==", "event.urgent", False), Compare("==", "inside", True))),
                )
            ),
        ),
        ("!!event.urgent", Compare("==", "event.urgent", True)),
        (
            "event.urgent && inside && event.rings > 1",
            And(
                (
                    Compare("==", "event.urgent", True),
                    Compare("==", "inside", True),
                    Compare(">", "event.rings", Fraction(1)),
                )
            ),
        ),
    ],
)  # fmt: skip
def test_conditions_become_normal_form(text: str, expected: Condition) -> None:
    assert condition(text) == expected


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("''", ""),
        ("'5'", "5"),
        ('"it\'s"', "it's"),
        (r"'it\'s'", "it's"),
        (r'"a\"b\\c"', 'a"b\\c'),
        (r"r'a\d'", "a\\d"),
        (r"'\n\t\x41\u5ba2\101\U0001F600'", "\n\tA客A\U0001f600"),
        ("'客服 é'", "客服 é"),
        ("'a // b'", "a // b"),
    ],
)
def test_texts_are_read_with_their_escapes(literal: str, value: str) -> None:
    assert condition(f"event.note == {literal}") == Compare("==", "event.note", value)


def test_a_condition_may_run_over_lines_and_columns_count_in_the_whole_text() -> None:
    with pytest.raises(ExpressionError) as refused:
        parse_condition("event.urgent &&\n  inside = true", SCOPE)
    assert refused.value.column == 26
    with pytest.raises(ExpressionError) as refused:
        parse_condition("event.urgent &&\n  insider", SCOPE)
    assert refused.value.column == 19


# What is refused, with column and reason ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "column", "wrong", "right"),
    [
        # Names
        (
            "complaint_rte.month > 1",
            1,
            "there is no complaint_rte.month here",
            "did you mean complaint_rate.month?",
        ),
        ("event.urgent && zzz", 17, "there is no zzz here", "known here are "),
        ("complaint_rate > 1", 1, "there is no complaint_rate here", "did you mean complaint_rate.month?"),
        (".plain > 1", 1, "a name does not begin with a dot", "leave the dot out"),
        (".plain(1) > 1", 1, "a name does not begin with a dot", "leave the dot out"),
        ("'a'.b == 'c'", 1, "a dot follows something that is not a name", "write a dotted name"),
        # Types and units
        ("event.note == 5", 15, "event.note is a text and 5 is a number", "compare it with a text"),
        ("5 == event.note", 1, "event.note is a text and 5 is a number", "compare it with a text"),
        ("plain == '5'", 10, 'plain is a number and "5" is a text', "compare it with a number"),
        ("plain == true", 10, "plain is a number and true is a truth value", "compare it with a number"),
        (
            "plain == 0.50 && plain == event.note",
            27,
            "plain is a number and event.note is a text",
            "compare it",
        ),
        (
            "event.urgent == 1",
            17,
            "event.urgent is a truth value and 1 is a number",
            "compare it with a truth value",
        ),
        ("event.note > 'a'", 1, "a text has no order, so > does not apply", "use == or !="),
        ("event.urgent < inside", 1, "a truth value has no order, so < does not apply", "use == or !="),
        ("event.wait_ms > late_min", 17, "event.wait_ms is in ms and late_min is in min", "something in ms"),
        ("event.channel == 'vioce'", 18, 'event.channel is never "vioce"', "did you mean 'voice'?"),
        ("event.channel == 'fax'", 18, 'event.channel is never "fax"', "it is one of voice, chat, mail"),
        ("event.channel in ['voice', 'fax']", 28, 'event.channel is never "fax"', "it is one of"),
        ("event.channel == roster.position", 18, "have no value in common", "names of one enumeration"),
        ("plain == plain", 10, "plain is compared with itself", "compare it with something else"),
        # Literals
        ("5 > 3", 1, "both sides are literals, so this never changes", "compare a name with a literal"),
        ("event.urgent && 'a' == 'a'", 17, "both sides are literals", "compare a name with a literal"),
        ("true", 1, "a literal alone decides nothing", "leave it out when the rule always holds"),
        ("event.urgent || 1", 17, "a literal alone decides nothing", "write a condition"),
        ("event.rings", 1, "event.rings is a number and alone decides nothing", "compare it with a value"),
        ("!event.note", 2, "event.note is a text and alone decides nothing", "compare it with a value"),
        ("plain > 1e-7", 9, "1e-7 has an exponent", "write the number out, such as 0.0000001"),
        ("plain > 1.5E+3", 9, "1.5E+3 has an exponent", "write the number out"),
        ("plain > 0.1234567890", 9, "0.1234567890 has more than 9 decimals", "round it"),
        ("plain > 4000000001", 9, "4000000001 is beyond 4000000000", "use a larger unit"),
        ("plain > 0x10", 9, "0x10 is hexadecimal", "write the number in decimals"),
        ("plain > 5u", 9, "5u is an unsigned number", "write 5"),
        ("event.note == null", 15, "null is not in the language", "ask has(name)"),
        ("event.note == b'x'", 15, "bytes are not in the language", "write a text"),
        ("event.note == '''x'''", 15, "a text in triple quotation marks", 'write "text"'),
        (r"event.note == 'a\q'", 17, r"\q is not an escape", "for a backslash"),
        (r"event.note == '\ud800'", 16, r"\ud800 is no character", "write the character itself"),
        # Lists
        ("event.note in []", 15, "the list is empty", "name its members"),
        ("event.note in ['a', 3]", 21, "the list mixes numbers and texts", "members of the name's type"),
        ("event.note in [3]", 16, "event.note is a text and 3 is a number", "compare it with a text"),
        ("event.note in [event.channel]", 16, "a list holds only numbers or only texts", "write name in"),
        ("event.urgent in [true]", 18, "a list holds only numbers or only texts", "write name in"),
        ("event.note in event.channel", 15, "the right side of in is not a list", "write name in"),
        ("'a' in ['a', 'b']", 1, "the left side of in is a literal", "write name in"),
        ("event.note == ['a']", 15, "a list stands only to the right of in", "write name in"),
        # The rest of CEL
        ("plain + 1 > 2", 7, "+ is not allowed in a condition", "declare a metric or a parameter"),
        ("2 > event.rings - plain", 17, "- is not allowed in a condition", "declare a metric or a parameter"),
        ("plain * 2 > 2", 7, "* is not allowed in a condition", "declare a metric or a parameter"),
        ("plain / 2 > 2", 7, "/ is not allowed in a condition", "declare a metric or a parameter"),
        ("plain % 2 == 0", 7, "the remainder % is not in the language", "use + - * /"),
        ("-plain > 2", 1, "a minus sign stands only before a number", "compare with the negative number"),
        ("event.urgent ? inside : inside", 14, "a choice with ? and :", "write one rule for each case"),
        ("[1, 2].exists(x, x > 1)", 1, "the macro exists() is not in the language", "declare a metric"),
        ("event.note.matches('a.*')", 1, "regular expressions are not in the language", "list the texts"),
        (
            "event.note.startsWith('a')",
            1,
            "the function startsWith() is not in the language",
            "compare names",
        ),
        (
            "size(event.note) > 3",
            1,
            "the function size() is not in the language",
            "compare names and literals",
        ),
        (
            "timestamp('2026-08-01') > plain",
            1,
            "times are not compared in expressions",
            "use a deadline or a period",
        ),
        ("duration('60s') > plain", 1, "times are not compared in expressions", "use a deadline or a period"),
        ("event.note[0] == 'a'", 1, "indexing with [ ] is not in the language", "facts are flat"),
        ("{'a': 1} == plain", 1, "maps and objects are not in the language", "write names and literals"),
        ("Thing{a: 1} == plain", 1, "maps and objects are not in the language", "write names and literals"),
        ("plain > 1 > 2", 1, "comparisons do not chain", "join two comparisons with &&"),
        ("1 == (plain > 2)", 7, "comparisons do not chain", "join two comparisons with &&"),
        ("inside == !event.urgent", 11, "! stands before a condition", "write a != b"),
        ("has(plain > 1)", 1, "has() takes one name", "write has("),
        ("has()", 1, "has() takes one name", "write has("),
        ("has(event.note) == true", 1, "has() is a condition, not a value", "write it alone"),
        # Syntax
        ("", 1, "the expression is empty", "write a condition such as"),
        ("  \n ", 1, "the expression is empty", "write a condition such as"),
        ("plain = 2", 7, "a single = is not a comparison", "write =="),
        ("plain > 2 and inside", 11, "'and' is not an operator here", "write &&"),
        ("plain > 2 OR inside", 11, "'OR' is not an operator here", "write ||"),
        ("not event.urgent", 1, "'not' is not an operator here", "write !"),
        ("inside & event.urgent", 8, "a single & is not an operator here", "write &&"),
        ("plain >", 8, "the expression ends too early", "close every parenthesis"),
        ("(plain > 2", 11, "the expression ends too early", "close every parenthesis"),
        ("plain > 2)", 10, "')' does not fit here", "joined by && or ||"),
        ("event.note == 'abc", 15, "this text does not fit here or is not closed", "close it"),
        ("plain $ 2", 7, "'$' does not fit here", "joined by && or ||"),
    ],
)
def test_what_is_refused_in_a_condition(text: str, column: int, wrong: str, right: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        parse_condition(text, SCOPE)
    assert wrong in refused.value.wrong
    assert right in refused.value.right
    assert refused.value.column == column


def test_texts_and_nesting_without_end_are_refused() -> None:
    with pytest.raises(ExpressionError, match="longer than 2000 characters"):
        parse_condition("inside && " * 300 + "inside", SCOPE)
    with pytest.raises(ExpressionError, match="nested too deeply"):
        parse_condition("(" * 900 + "inside" + ")" * 900, SCOPE)
    with pytest.raises(ExpressionError, match="nested too deeply"):
        parse_condition("!" * 900 + "inside", SCOPE)
    assert condition("(" * 15 + "inside" + ")" * 15) == Compare("==", "inside", True)
    assert names(parse_condition("inside && " * 100 + "inside", SCOPE)) == {"inside"}


@settings(deadline=None)
@given(st.text(alphabet="abp.in()[]&|!<>=+-*/%?:'\"0123456789eE \n\\,{}_x客", max_size=40))
def test_whatever_is_written_is_parsed_or_refused_with_a_column(text: str) -> None:
    for parse in (parse_condition, parse_amount):
        refused = None
        try:
            parse(text, SCOPE)
        except ExpressionError as error:
            refused = error
        assert refused is None or (1 <= refused.column <= len(text) + 1 and refused.wrong and refused.right)


# Meaning ----------------------------------------------------------------------------------------------


def test_the_unknown_satisfies_neither_a_comparison_nor_its_opposite() -> None:
    values = {"complaint_rate.month": None, "p.complaint_rate_limit": Fraction(1, 50)}
    for text in (
        "complaint_rate.month > p.complaint_rate_limit",
        "!(complaint_rate.month > p.complaint_rate_limit)",
        "complaint_rate.month == 0",
        "complaint_rate.month != 0",
        "complaint_rate.month in [0, 1]",
        "!(complaint_rate.month in [0, 1])",
        "has(complaint_rate.month)",
    ):
        assert evaluate(parse_condition(text, SCOPE), values) is False, text
    assert evaluate(parse_condition("!has(complaint_rate.month)", SCOPE), values) is True
    assert (
        evaluate(parse_condition("event.excused || !event.excused", SCOPE), {"event.excused": None}) is False
    )


def test_names_are_listed() -> None:
    text = (
        "event.urgent && (plain > 1 || has(event.rating)) && event.note in ['a'] && !(late_min < p.step_min)"
    )
    expected = {"event.urgent", "plain", "event.rating", "event.note", "late_min", "p.step_min"}
    assert names(parse_condition(text, SCOPE)) == expected
    assert names(parse_amount("-plain * 2 + p.step_points", SCOPE)) == {"plain", "p.step_points"}


# Amounts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("2", {}, Fraction(2)),
        ("-0.5", {}, Fraction(-1, 2)),
        ("p.step_points", {"p.step_points": 2}, Fraction(2)),
        ("0.1 + 0.2", {}, Fraction(3, 10)),
        ("1 - 2 - 3", {}, Fraction(-4)),
        ("2 + 3 * 4", {}, Fraction(14)),
        ("(2 + 3) * 4", {}, Fraction(20)),
        ("12 / 2 / 3", {}, Fraction(2)),
        ("1 / 3", {}, Fraction(1, 3)),
        ("-(plain - 1)", {"plain": 5}, Fraction(-4)),
        ("plain-1", {"plain": Fraction(1, 3)}, Fraction(-2, 3)),
        ("10 / plain", {"plain": 0}, None),
        ("complaint_rate.month * 2", {"complaint_rate.month": None}, None),
        ("-complaint_rate.month", {"complaint_rate.month": None}, None),
        ("complaint_rate.month", {"complaint_rate.month": None}, None),
        ("event.note", {"event.note": "客"}, "客"),
        ("'gold'", {}, "gold"),
        ("event.urgent", {"event.urgent": True}, True),
        ("true", {}, True),
    ],
)
def test_amounts_are_exact(text: str, values: Mapping[str, object], expected: object) -> None:
    found = evaluate(parse_amount(text, SCOPE), values)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "unit", "optional"),
    [
        ("p.step_points", "points", False),
        ("p.step_points * 2", "points", False),
        ("2 * p.step_points", "points", False),
        ("p.step_points + 1", "points", False),
        ("1 + p.step_points", "points", False),
        ("p.step_points / 2", "points", False),
        ("1 / p.step_points", "", False),
        ("late_min / p.step_min * p.step_points", "points", False),
        ("late_min * p.step_points", "", False),
        ("complaint_rate.month - p.complaint_rate_limit", "ratio", True),
        ("-event.rating", "points", True),
    ],
)
def test_units_follow_the_arithmetic(text: str, unit: str, optional: bool) -> None:
    assert type_of(parse_amount(text, SCOPE)) == ExprType("number", unit, (), optional)


@pytest.mark.parametrize(
    ("text", "column", "wrong"),
    [
        ("late_min + p.step_points", 10, "min and points cannot be added or subtracted"),
        ("plain + (late_min - event.wait_ms)", 19, "min and ms cannot be added or subtracted"),
        ("event.note + 1", 1, "event.note is not a number"),
        ("1 + event.note", 5, "event.note is not a number"),
        ("2 * 'a'", 5, '"a" is not a number'),
        ("-event.note", 1, "event.note is not a number"),
        ("1 + true", 5, "true is not a number"),
        ("plain / 0", 9, "this divides by 0"),
        ("plain / 0.0", 9, "this divides by 0"),
        ("plain % 2", 7, "the remainder % is not in the language"),
        ("plain > 2", 1, "a condition stands where a value should be"),
        ("plain > 2 && inside", 1, "a condition stands where a value should be"),
        ("!inside", 1, "a condition stands where a value should be"),
        ("has(plain)", 1, "has() is a condition, not a value"),
        ("inside ? 1 : 2", 8, "a choice with ? and : is not in the language"),
        ("1e3", 1, "1e3 has an exponent"),
        ("max(plain, 2)", 1, "the function max() is not in the language"),
        ("plan + 1", 1, "there is no plan here"),
    ],
)
def test_what_is_refused_in_an_amount(text: str, column: int, wrong: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        parse_amount(text, SCOPE)
    assert wrong in refused.value.wrong
    assert refused.value.column == column


def test_a_value_of_another_type_is_an_error_and_never_an_answer() -> None:
    amount = parse_amount("plain", SCOPE)
    for wrong in (1.5, True, "1", None):
        with pytest.raises(TypeError, match="plain should be a number"):
            evaluate(amount, {"plain": wrong})
    with pytest.raises(ExpressionError, match="this is an amount, not a condition"):
        to_condition(parse_amount("plain + 1", SCOPE))


# Python source ----------------------------------------------------------------------------------------

SOURCES = {
    "event.wait_ms": "e.wait_ms",
    "event.rings": "e.rings",
    "event.rating": "e.rating",
    "event.note": "e.note",
    "event.channel": "e.channel",
    "event.urgent": "e.urgent",
    "event.excused": "e.excused",
    "roster.position": "e.position",
    "complaint_rate.month": "v[3]",
    "plain": "a + b",
    "late_min": "e.late_min",
    "p.threshold_ms": "20000",
    "p.complaint_rate_limit": "Fraction(3, 200)",
    "p.step_min": "p['step']",
}


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("event.wait_ms <= p.threshold_ms", "e.wait_ms <= 20000"),
        ("event.wait_ms <= 20000", "e.wait_ms <= 20000"),
        ("event.rings > 2.5", "e.rings * 2 > 5"),
        ("late_min > p.step_min", "e.late_min > p['step']"),
        ("plain > 0.5", "(a + b) * 2 > 1"),
        (
            "complaint_rate.month > p.complaint_rate_limit",
            "(v[3] is not None and v[3] * 200 > 3)",
        ),
        ("event.urgent && !event.excused", "(e.urgent and (e.excused is not None and not e.excused))"),
        ("event.note == 'it\\'s'", 'e.note == "it\'s"'),
        ("event.channel in ['voice', 'chat']", "e.channel in ('voice', 'chat')"),
        ("!(event.channel in ['voice', 'chat'])", "e.channel not in ('voice', 'chat')"),
        (
            "roster.position in ['agent', 'team_leader']",
            "(e.position is not None and e.position in ('agent', 'team_leader'))",
        ),
        ("has(event.rating) || !has(event.rating)", "(e.rating is not None or e.rating is None)"),
        ("has(plain)", "True"),
        ("!has(plain)", "False"),
    ],
)  # fmt: skip
def test_conditions_become_python(text: str, source: str) -> None:
    assert to_python(parse_condition(text, SCOPE), SOURCES) == source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("event.wait_ms", "e.wait_ms"),
        ("event.wait_ms + p.threshold_ms * 2", "(e.wait_ms + (20000 * (2)))"),
        ("-late_min + 0.5", "((-e.late_min) + Fraction(1, 2))"),
        ("event.rating - 1", "(None if e.rating is None else (e.rating - (1)))"),
        ("event.note", "e.note"),
        ("'a'", "'a'"),
        ("event.urgent", "e.urgent"),
        ("event.excused", "(None if e.excused is None else e.excused)"),
        ("true", "True"),
    ],
)
def test_amounts_become_python(text: str, source: str) -> None:
    assert to_python(parse_amount(text, SCOPE), SOURCES) == source


def test_what_cannot_become_python_is_refused() -> None:
    with pytest.raises(ExpressionError, match=r"^column 14: inside is not at hand here; use one of plain$"):
        to_python(parse_condition("plain > 1 && inside", SCOPE), {"plain": "a"})
    with pytest.raises(ExpressionError, match="a quotient does not belong here"):
        to_python(parse_amount("plain / 2", SCOPE), SOURCES)


# Both targets and the evaluation say the same -----------------------------------------------------------

_NUMBERS = st.one_of(st.integers(-3, 3), st.fractions(-2, 2, max_denominator=9))
_LITERALS = st.sampled_from(["0", "1", "-1", "0.5", "-0.5", "1.25", "2", "0.333333333"])
_OPERATORS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
_ATOMS = st.one_of(
    st.builds("plain {} {}".format, _OPERATORS, _LITERALS),
    st.builds("{1} {0} event.rating".format, _OPERATORS, _LITERALS),
    st.builds("complaint_rate.month {} p.complaint_rate_limit".format, _OPERATORS),
    st.sampled_from(["event.urgent", "event.excused", "has(event.rating)", "event.excused == event.urgent"]),
    st.sampled_from(
        ["event.note == ''", "event.note != '客'", "event.note in ['a', '']", "event.rings in [0, 0.5]"]
    ),
)
_CONDITIONS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.builds("!({})".format, inner),
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("({}) || ({})".format, inner, inner),
    ),
    max_leaves=6,
)
_VALUES = st.fixed_dictionaries(
    {
        "plain": _NUMBERS,
        "event.rings": _NUMBERS,
        "event.rating": st.one_of(st.none(), _NUMBERS),
        "complaint_rate.month": st.one_of(st.none(), _NUMBERS),
        "p.complaint_rate_limit": _NUMBERS,
        "event.urgent": st.booleans(),
        "event.excused": st.one_of(st.none(), st.booleans()),
        "event.note": st.sampled_from(["", "a", "客", "0"]),
    }
)


@settings(deadline=None)
@given(_CONDITIONS, _VALUES)
def test_python_source_and_evaluation_agree(text: str, values: dict[str, object]) -> None:
    parsed = parse_condition(text, SCOPE)
    sources = {name: f"v[{name!r}]" for name in values}
    expected = evaluate(parsed, values)
    assert eval(to_python(parsed, sources), {"v": values}) is expected  # noqa: S307 - the source is under test


@settings(deadline=None)
@given(_CONDITIONS, _VALUES, st.integers(1, 12), st.sets(st.sampled_from(["plain", "complaint_rate.month"])))
def test_a_decider_and_evaluation_agree(
    text: str, values: dict[str, object], factor: int, quotients: set[str]
) -> None:
    def told(name: str, value: object) -> object:
        if name not in quotients or not isinstance(value, (int, Fraction)):
            return value
        return value.numerator * factor, value.denominator * factor

    fact = {name: told(name, value) for name, value in values.items()}
    assert decider(condition(text))(fact) is evaluate(parse_condition(text, SCOPE), values)


@settings(deadline=None)
@given(_CONDITIONS, _VALUES)
def test_a_condition_and_its_opposite_never_both_hold_and_one_holds_when_all_is_known(
    text: str, values: dict[str, object]
) -> None:
    holds = evaluate(parse_condition(text, SCOPE), values)
    opposite = evaluate(parse_condition(f"!({text})", SCOPE), values)
    assert not (holds and opposite)
    if None not in values.values():
        assert holds or opposite


@settings(deadline=None)
@given(
    _CONDITIONS,
    _VALUES,
    st.sets(st.sampled_from(["plain", "event.rating", "p.complaint_rate_limit", "event.note"])),
)
def test_binding_known_fields_changes_nothing(text: str, values: dict[str, object], bound: set[str]) -> None:
    whole = condition(text)
    given_values = {
        name: value for name in bound if isinstance(value := values[name], bool | str | int | Fraction)
    }
    part = bind(whole, given_values)
    assert _holds(part, values) == _holds(whole, values)
    assert not _fields(part) & given_values.keys()


def _holds(found: Condition, values: Mapping[str, object]) -> bool:
    match found:
        case And(parts=parts):
            return all(_holds(part, values) for part in parts)
        case Or(parts=parts):
            return any(_holds(part, values) for part in parts)
        case Known(field=field, known=known):
            return (values[field] is not None) == known
        case Compare(op=op, field=field, value=value):
            left = values[field]
            right = values[value.name] if isinstance(value, FieldRef) else value
            if left is None or right is None:
                return False
            return bool(getattr(operator, _OPERATIONS[op])(left, right))


_OPERATIONS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


def _fields(found: Condition) -> set[str]:
    match found:
        case And(parts=parts) | Or(parts=parts):
            return {name for part in parts for name in _fields(part)}
        case Known(field=field):
            return {field}
        case Compare(field=field, value=value):
            return {field} | ({value.name} if isinstance(value, FieldRef) else set())

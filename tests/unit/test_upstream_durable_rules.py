"""What durable-rules really does, so that an upgrade that changes it is noticed, and how the matcher copes.

The matcher uses the engine's single-message rules only. Rules that join messages keep half-matched messages for ever
and can crash the process; there is nothing in the language of conditions that compiles to one, and a test below says
so. Everything that might hang or crash runs in a process of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import durable_rules_engine as engine
import pytest

from kaohe.core.expressions import (
    And,
    Compare,
    Condition,
    ExprType,
    FieldRef,
    Known,
    Or,
    parse_condition,
    to_condition,
)
from kaohe.core.matcher import (
    MAX_ALTERNATIVES,
    MAX_EQUALITIES,
    MAX_FIELDS,
    MAX_RULESETS,
    Matcher,
    check_limits,
)
from kaohe.errors import ExpressionError, MatcherError

NUMBER = ExprType("number")
TEXT = ExprType("string")
SERVICES = str(Path(__file__).parents[2] / "services")
_names = iter(range(10**9))


def ruleset(rules: dict[str, object]) -> int:
    """A ruleset whose rules each have one condition on one message."""
    definition = {name: {"all": [{"m": condition}]} for name, condition in rules.items()}
    handle: int = engine.create_ruleset(f"upstream-{next(_names)}", json.dumps(definition))
    return handle


def fired(
    handle: int, message: str, give: Callable[[int, str], tuple[int, int]] = engine.assert_fact
) -> list[str]:
    """The rules that fire for a message, which is taken back."""
    code, state = give(handle, message)
    if code != 0:
        return []
    names: list[str] = []
    action = engine.start_action_for_state(handle, state)
    text = action[1] if action else None
    while text is not None:
        names.extend(json.loads(text))
        text = engine.complete_and_start_action(handle, state)
    engine.retract_fact(handle, '{"id":"1"}')
    return sorted(names)


def in_a_process(source: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


# One event, several rules -----------------------------------------------------------------------------


def test_a_posted_event_fires_one_rule_and_an_asserted_fact_fires_all() -> None:
    handle = ruleset({"one": {"$gt": {"x": 1}}, "two": {"$gt": {"x": 2}}})
    assert len(fired(handle, '{"id":"1","x":5}', engine.assert_event)) == 1
    assert fired(handle, '{"id":"1","x":5}') == ["one", "two"]


def test_two_rules_on_one_event_both_fire_through_the_matcher() -> None:
    matcher = Matcher(
        "both",
        [("one", Compare(">", "x", Fraction(1))), ("two", Compare(">", "x", Fraction(2)))],
        {"x": NUMBER},
    )
    assert matcher.match({"x": 5}) == ("one", "two")
    assert matcher.match({"x": 2}) == ("one",)
    assert matcher.match({"x": 5}) == ("one", "two")


def test_the_engine_fires_a_rule_for_each_disjunct_and_the_matcher_names_it_once() -> None:
    disjuncts = [{"$gt": {"x": 1}}, {"$gt": {"x": 2}}, {"$gt": {"y": 0}}]
    assert fired(ruleset({"rule": {"$or": disjuncts}}), '{"id":"1","x":5,"y":1}') == ["rule"] * 3
    condition = Or(
        (Compare(">", "x", Fraction(1)), Compare(">", "x", Fraction(2)), Compare(">", "y", Fraction(0)))
    )
    assert Matcher("once", [("rule", condition)], {"x": NUMBER, "y": NUMBER}).match({"x": 5, "y": 1}) == (
        "rule",
    )


# Types and numbers ------------------------------------------------------------------------------------


def test_the_engine_lies_about_unlike_types_and_the_language_refuses_them() -> None:
    assert fired(ruleset({"rule": {"x": 0}}), '{"id":"1","x":""}') == ["rule"]
    assert fired(ruleset({"rule": {"x": 5}}), '{"id":"1","x":"5"}') == ["rule"]
    scope = {"x": TEXT, "n": NUMBER}
    for text in ("x == 0", "n == '5'", "n == x"):
        with pytest.raises(ExpressionError, match=r"is a (text|number) and"):
            parse_condition(text, scope)
    problems = check_limits([("rule", Compare("==", "x", Fraction(0)))], scope)
    assert problems == ["rule rule: x is a string and is compared with a number; compare like with like"]


def test_a_missing_field_is_refused() -> None:
    # The engine would read memory it never set, and fire or not fire by chance.
    matcher = Matcher("total", [("rule", Compare("!=", "x", FieldRef("y")))], {"x": NUMBER, "y": NUMBER})
    with pytest.raises(MatcherError, match="the fact has no field y"):
        matcher.match({"x": 5})
    assert matcher.match({"x": 5, "y": 6}) == ("rule",)


@pytest.mark.parametrize("number", ["1e-07", "1e+20", "1E5"])
def test_a_number_with_an_exponent_is_an_error_in_the_engine(number: str) -> None:
    with pytest.raises(engine.error, match="error code: 20"):
        engine.assert_fact(ruleset({"rule": {"$gt": {"x": 1}}}), f'{{"id":"1","x":{number}}}')


def test_no_exponent_ever_reaches_the_engine() -> None:
    fields = {"x": NUMBER, "y": ExprType("number", optional=True)}
    rules: list[tuple[str, Condition]] = [
        ("small", Compare(">", "x", Fraction(1, 10**9))),
        ("large", Compare(">=", "x", Fraction(4 * 10**9))),
        ("pair", Compare("<", "x", FieldRef("y"))),
    ]
    matcher = Matcher("plain", rules, fields)
    exponent = re.compile(r": ?-?\d+[eE.]")
    assert not any(exponent.search(definition) for definition in matcher._definitions)
    for value in (Fraction(1, 10**30), Fraction(10**40), 10**25, -(10**25), Fraction(1, 3), 0):
        for other in (None, value, -value):
            messages = matcher._write(*matcher._encode({"x": value, "y": other}))
            assert not any(exponent.search(message) for message in messages)


@pytest.mark.parametrize("literal", [8 * 10**18, -8 * 10**18, 2**53 + 1, 0])
def test_the_engine_compares_large_integers_exactly(literal: int) -> None:
    operators = {"less": "$lt", "at-most": "$lte", "more": "$gt", "at-least": "$gte", "other": "$neq"}
    handle = ruleset(
        {name: {op: {"x": literal}} for name, op in operators.items()} | {"same": {"x": literal}}
    )
    pair = ruleset({"more": {"$gt": {"x": {"$m": "y"}}}, "same": {"x": {"$m": "y"}}})
    assert fired(handle, f'{{"id":"1","x":{literal - 1}}}') == ["at-most", "less", "other"]
    assert fired(handle, f'{{"id":"1","x":{literal}}}') == ["at-least", "at-most", "same"]
    assert fired(handle, f'{{"id":"1","x":{literal + 1}}}') == ["at-least", "more", "other"]
    assert fired(pair, f'{{"id":"1","x":{literal + 1},"y":{literal}}}') == ["more"]
    assert fired(pair, f'{{"id":"1","x":{literal},"y":{literal}}}') == ["same"]


# Limits -----------------------------------------------------------------------------------------------


def test_the_engine_takes_253_properties_and_one_rule_may_need_200() -> None:
    handle = ruleset({"rule": {"f0": 1}})
    with pytest.raises(engine.error, match="error code: 302"):
        engine.assert_fact(handle, json.dumps({"id": "1"} | {f"f{i}": 1 for i in range(254)}))
    fields = {f"field{i}": NUMBER for i in range(255)}
    fits = And(tuple(Compare("==", f"field{i}", Fraction(1)) for i in range(MAX_FIELDS)))
    matcher = Matcher("wide", [("rule", fits)], fields)
    assert matcher.match(dict.fromkeys(fields, 1)) == ("rule",)
    assert matcher.match(dict.fromkeys(fields, 1) | {"field199": 2}) == ()
    wide = And(tuple(Compare("==", f"field{i}", Fraction(1)) for i in range(255)))
    expected = "rule rule: it needs 255 properties of a fact, more than 200; compare fewer fields"
    assert check_limits([("rule", wide)], fields) == [expected]
    with pytest.raises(MatcherError, match="it needs 255 properties"):
        Matcher("wide", [("rule", wide)], fields)


def test_many_narrow_rules_over_255_fields_are_split_into_several_rulesets() -> None:
    fields = {f"field{i}": NUMBER for i in range(255)}
    rules: list[tuple[str, Condition]] = [
        (f"rule{i}", Compare("==", f"field{i}", Fraction(1))) for i in range(255)
    ]
    matcher = Matcher("split", rules, fields)
    assert matcher.match(dict.fromkeys(fields, 1)) == tuple(f"rule{i}" for i in range(255))
    assert matcher.match(dict.fromkeys(fields, 0) | {"field254": 1}) == ("rule254",)


def test_companions_count_as_properties() -> None:
    fields = {f"field{i}": ExprType("number", optional=True) for i in range(101)}
    wide = And(tuple(Compare("==", f"field{i}", Fraction(1)) for i in range(101)))
    assert check_limits([("rule", wide)], fields) == [
        "rule rule: it needs 202 properties of a fact, more than 200; compare fewer fields"
    ]


def test_512_rules_that_share_a_literal_are_split_and_never_handed_over_together() -> None:
    # In one ruleset, 512 of them make the engine search for ever.
    fields = {"team": TEXT} | {f"x{i}": NUMBER for i in range(512)}
    rules: list[tuple[str, Condition]] = [
        (f"rule{i}", And((Compare("==", "team", "gold"), Compare(">", f"x{i}", Fraction(1)))))
        for i in range(512)
    ]
    matcher = Matcher("shared", rules, fields)
    sizes = [len(json.loads(definition)) - 1 for definition in matcher._definitions]
    assert max(sizes) == MAX_ALTERNATIVES
    assert sum(sizes) == 512
    fact: dict[str, int | str] = {f"x{i}": 2 for i in range(512)} | {"team": "gold"}
    assert matcher.match(fact) == tuple(f"rule{i}" for i in range(512))
    assert matcher.match(fact | {"team": "silver"}) == ()


def test_too_many_equality_literals_are_split_or_refused() -> None:
    rules: list[tuple[str, Condition]] = [(f"rule{i}", Compare("==", "team", f"t{i}")) for i in range(600)]
    matcher = Matcher("literals", rules, {"team": TEXT})
    assert matcher.match({"team": "t599"}) == ("rule599",)
    choice = Or(tuple(Compare("==", "team", f"t{i}") for i in range(MAX_EQUALITIES)))
    longest = Matcher("choice", [("rule", choice)], {"team": TEXT})
    assert longest.match({"team": "t199"}) == ("rule",)
    assert longest.match({"team": "t200"}) == ()
    longer = Or(tuple(Compare("==", "team", f"t{i}") for i in range(MAX_EQUALITIES + 1)))
    assert check_limits([("rule", longer)], {"team": TEXT}) == [
        "rule rule: it compares with 201 literals by == or in, more than 200; split the list"
    ]


def test_the_search_stack_of_the_engine_holds_64_entries() -> None:
    # One message that matches more tests at the top than this is not matched at all.
    wide = ruleset({f"rule{i}": {"$gt": {"x": i}} for i in range(65)})
    with pytest.raises(engine.error):
        engine.assert_fact(wide, '{"id":"1","x":1000}')
    rules: list[tuple[str, Condition]] = [(f"rule{i}", Compare(">", "x", Fraction(i))) for i in range(500)]
    assert len(Matcher("stack", rules, {"x": NUMBER}).match({"x": 1000})) == 500


def test_a_rule_with_too_many_alternatives_is_refused() -> None:
    pairs = And(
        tuple(Or((Compare(">", f"x{i}", Fraction(0)), Compare(">", f"y{i}", Fraction(0)))) for i in range(6))
    )
    fields = {f"{letter}{i}": NUMBER for letter in "xy" for i in range(6)}
    assert check_limits([("rule", pairs)], fields) == [
        "rule rule: it has 64 alternatives, more than 60; split it into several rules"
    ]


def test_too_many_choices_in_one_rule_are_refused() -> None:
    fields = {f"t{i}": TEXT for i in range(13)}
    tests = tuple(Or((Compare("==", name, "a"), Compare("==", name, "b"))) for name in fields)
    assert Matcher("12", [("rule", And(tests[:12]))], fields).match(dict.fromkeys(fields, "b")) == ("rule",)
    assert check_limits([("rule", And(tests))], fields) == [
        "rule rule: it joins 13 tests with in by &&, more than 12; split it"
    ]


def test_too_many_rules_for_one_matcher_are_refused() -> None:
    count = MAX_RULESETS * MAX_ALTERNATIVES
    rules: list[tuple[str, Condition]] = [(f"rule{i}", Compare(">", "x", Fraction(i))) for i in range(count)]
    assert check_limits(rules, {"x": NUMBER}) == []
    assert check_limits([*rules, ("one-more", Compare("<", "x", Fraction(0)))], {"x": NUMBER}) == [
        "the rules need 65 rulesets, more than 64; use fewer rules"
    ]


def test_the_names_of_properties_do_not_collide_in_the_engine() -> None:
    def engine_hash(name: str) -> int:
        found = 2166136261
        for byte in name.encode():
            found = (found ^ byte) * 16777619 % 2**32
        return found

    assert engine_hash("id") == 926444256, "the engine's own constant for id"
    names = [f"f{i}" for i in range(MAX_FIELDS + 1)] + [
        "first",
        "id",
        "sid",
        "$s",
        "$forward",
        "$time",
        "$m",
        "m",
    ]
    assert len({engine_hash(name) for name in names}) == len(names)


def test_no_condition_compiles_to_a_join() -> None:
    fields = {"x": NUMBER, "y": ExprType("number", optional=True), "t": TEXT}
    scope = dict(fields)
    texts = ["x > 1 && (t in ['a','b'] || !has(y)) && !(y < x)", "x != 3 || y >= x", "!(t in ['a','b'])"]
    matcher = Matcher("joins", [(text, _condition(text, scope)) for text in texts], fields)
    for definition in matcher._definitions:
        for rule in json.loads(definition).values():
            assert list(rule) == ["all"]
            assert [list(message) for message in rule["all"]] == [["m"]]


def _condition(text: str, scope: dict[str, ExprType]) -> Condition:
    return to_condition(parse_condition(text, scope))


# Memory and contexts ----------------------------------------------------------------------------------


def test_the_engine_ends_at_1024_contexts() -> None:
    source = """
import durable_rules_engine as engine
handle = engine.create_ruleset("contexts", '{"rule":{"all":[{"m":{"x":1}}]}}')
for number in range(2000):
    try:
        engine.assert_fact(handle, '{"sid":"%d","id":"1","x":2}' % number)
    except MemoryError:
        print(number)
        break
"""
    done = in_a_process(source)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1024"


def test_5000_agents_go_through_one_matcher() -> None:
    fields = {"subject": TEXT, "rate": ExprType("number", "ratio", optional=True)}
    rules: list[tuple[str, Condition]] = [
        ("over", Compare(">", "rate", Fraction("0.02"))),
        ("nobody", Compare("==", "subject", "a-none")),
        ("last", Compare("==", "subject", "a-4999")),
        ("unknown", Known("rate", False)),
    ]
    matcher = Matcher("agents", rules, fields)
    for round_ in range(2):
        for number in range(5000):
            rate = None if number % 5 == 0 else Fraction(number % 50, 1000 + round_)
            expected = [("unknown",)] if rate is None else [("over",)] if rate > Fraction("0.02") else [()]
            if number == 4999:
                expected = [
                    tuple(sorted([*expected[0], "last"], key=["over", "nobody", "last", "unknown"].index))
                ]
            assert matcher.match({"subject": f"a-{number}", "rate": rate}) == expected[0]


@pytest.mark.slow
def test_a_million_evaluations_take_no_memory() -> None:
    fields = {"type": TEXT, "wait_ms": NUMBER, "rate": ExprType("number", optional=True)}
    rules: list[tuple[str, Condition]] = [
        (
            f"rule{i}",
            And((Compare("==", "type", f"t{i % 20}"), Compare(">", "wait_ms", Fraction(900_000 + i)))),
        )
        for i in range(59)
    ]
    rules.append(("rate", Compare(">", "rate", Fraction("0.99"))))
    matcher = Matcher("million", rules, fields)
    count = fired_rules = 0
    before = 0
    for lap in range(100):
        facts = [
            {
                "type": f"t{n % 20}",
                "wait_ms": lap * 10_000 + n,
                "rate": Fraction(n % 101, 100) if n % 7 == 0 else None,
            }
            for n in range(10_000)
        ]
        fired_rules += sum(map(len, matcher.match_many(facts)))
        count += len(facts)
        if lap == 4:
            before = resident_bytes()
    assert count == 1_000_000
    assert fired_rules > 250_000, "some of them fire, so that the way of a match is walked as well"
    grown = resident_bytes() - before
    assert grown < 8 * 1024 * 1024, f"{grown} bytes more than after 50,000 evaluations"


def test_closed_matchers_give_their_memory_back() -> None:
    rules: list[tuple[str, Condition]] = [(f"rule{i}", Compare(">", "x", Fraction(i))) for i in range(50)]

    def use(times: int) -> None:
        for _ in range(times):
            matcher = Matcher("again", rules, {"x": NUMBER})
            assert len(matcher.match({"x": 10})) == 10
            matcher.close()

    use(30)
    before = resident_bytes()
    use(150)
    grown = resident_bytes() - before
    assert grown < 16 * 1024 * 1024, f"{grown} bytes for 150 matchers made and closed"


def test_matchers_whose_rules_never_fired_are_closed_soundly() -> None:
    # The engine frees pointers it never set when it deletes a context in which nothing fired, and may crash; every
    # ruleset of the matcher therefore fires a rule of its own first.
    source = """
from fractions import Fraction
from kaohe.core.expressions import Compare, ExprType
from kaohe.core.matcher import Matcher
for number in range(300):
    matcher = Matcher("closing", [("rule", Compare(">", "x", Fraction(number)))], {"x": ExprType("number")})
    if number % 3:
        matcher.match({"x": number % 2 * 1000})
    matcher.close()
print("sound")
"""
    done = in_a_process(f"import sys\nsys.path.insert(0, {SERVICES!r})\n{source}")
    assert done.stdout.strip() == "sound", done.stderr

"""Matching facts against conditions with durable-rules, inside the part of it that is exact and stable.

Theory of operation. A ``Matcher`` turns named conditions into durable-rules rulesets and asks, fact by fact,
which conditions hold. durable-rules matches; what a match means is decided elsewhere. It is spoken to through
its extension module, never through its Python wrapper, and only in this way: one context, one live fact at a
time, asserted, drained and retracted (``post`` would let a single rule fire); no joins, no timers, no
actions.

Rules. A condition is turned into *alternatives*, conjunctions of comparisons, and each alternative into one
rule of the engine; several alternatives of one rule may fire, and the rule is reported once. ``x in [...]``
stays one ``$or`` because at most one of its members holds. The engine's search stack holds 64 entries and
every live entry leads to an alternative of its own, so a ruleset gets at most ``MAX_ALTERNATIVES``; more
rules go into more rulesets. To have few comparisons tried at the top, the tests that most alternatives share
come first, and where several alternatives compare one field with different limits, the loosest of these
limits is put in front of each of them: it follows from them, so it changes nothing but the speed.

Facts. Each property has a short positional name (the engine knows properties by a 32-bit hash of the name,
and these names are known not to collide). Only fields that some rule mentions are sent, and all of them
always. Truth values are 1 and 0. Texts are JSON strings in ASCII; the engine compares their escaped form,
which is the same in rules and facts; very long texts are replaced by their digest. A number x is sent as the
integer

    2 * floor(x * 10**d) + (0 if that is exact else 1)

where d is the most decimals that any literal compared with the field has, at most 9. A literal becomes an
even integer, so a value between two neighbouring decimals falls strictly between them and every comparison
with a literal is exact, for 1/3 as for 2/100. Beyond 8 * 10**18 the integer is clamped to an odd one, outside
every literal. The engine compares 64-bit integers exactly, which a test checks at these magnitudes. Two
numbers are compared through a property of their own for the right one: it is the right one's integer, except
when both integers are the same odd one; then it is moved by 1 to the side on which the right number truly
lies.

Unknown values. An optional field has a companion property that is 1 when the value is known; every comparison
with the field carries a test of the companion, so an unknown value satisfies no comparison.

Failures. Should anything interrupt a match half way, the engine would hold on to the fact and keep its
context locked for a minute; the rulesets are therefore thrown away and made anew. All of this is
deterministic: the answers depend on the rules and the fact alone.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from json.encoder import encode_basestring_ascii
from math import prod
from typing import Final

import durable_rules_engine  # type: ignore[import-not-found,import-untyped,unused-ignore]
import msgspec

from kaohe.core.expressions import And, Compare, CompareOp, Condition, ExprType, FieldRef, Known, Or
from kaohe.errors import MatcherError

MAX_FIELDS: Final = 200
"""Properties of one fact in one ruleset, companions included. durable-rules fails at 254."""
MAX_ALTERNATIVES: Final = 60
"""Alternatives in one ruleset, and of one rule. The engine's search stack has 64 places."""
MAX_EQUALITIES: Final = 200
"""Different literals compared by == in one ruleset. durable-rules fails at 512 and hangs beyond."""
MAX_CHOICES: Final = 12
"""``in`` tests in one alternative. durable-rules fails at 16."""
MAX_KNOWN: Final = 1024
"""Facts whose answer a matcher remembers: a quiet subject sends the same ones again and again."""
MAX_RULESETS: Final = 64
"""Rulesets of one matcher."""
MAX_DECIMALS: Final = 9
MAX_NUMBER: Final = 4_000_000_000
"""The largest magnitude of a literal. Values in facts may be larger."""
MAX_TEXT_CHARS: Final = 1000
"""Escaped characters of a text; a longer one is sent as its digest, so it still equals only itself."""

FactValue = bool | int | Fraction | tuple[int, int] | str | None
"""A number may also be an unreduced quotient: numerator and denominator, which is above 0."""
Fact = Mapping[str, FactValue]
Rules = Sequence[tuple[str, Condition]]
Fields = Mapping[str, ExprType]

_CLAMP: Final = 2 * MAX_NUMBER * 10**MAX_DECIMALS
_NOT_HANDLED: Final = 1
_FACT_ID: Final = "1"
_CONTEXT: Final = "0"
"""The context the engine uses when a fact names none."""
_RETRACTION: Final = f'{{"id":"{_FACT_ID}"}}'

_FIRST_RULE: Final = -1
_FIRST_PROPERTY: Final = "first"
_FIRST_FACT: Final = f'{{"id":"{_FACT_ID}","{_FIRST_PROPERTY}":1}}'
"""A fact of the matcher's own, which fires a rule of its own once when a ruleset is made."""

_create_ruleset: Callable[[str, str], int] = durable_rules_engine.create_ruleset
_delete_ruleset: Callable[[int], None] = durable_rules_engine.delete_ruleset
_delete_state: Callable[[int, str], None] = durable_rules_engine.delete_state
_assert_fact: Callable[[int, str], tuple[int, int]] = durable_rules_engine.assert_fact
_retract_fact: Callable[[int, str], tuple[int, int]] = durable_rules_engine.retract_fact
_start_action: Callable[[int, int], tuple[str, str] | None] = durable_rules_engine.start_action_for_state
_next_action: Callable[[int, int], str | None] = durable_rules_engine.complete_and_start_action

# The engine never forgets a ruleset's name within a process, so each ruleset gets one of its own.
_ruleset_numbers = itertools.count(1)


class Matcher:
    """Which of ``rules`` hold for a fact. Not for use by several threads at once.

    ``rules`` are pairs of id and condition (``expressions.to_condition``), ``fields`` the types of all fields
    that the conditions mention. Raises ``MatcherError`` when the engine cannot carry them; ``check_limits``
    tells why.
    """

    def __init__(self, name: str, rules: Rules, fields: Fields) -> None:
        plan, problems = _plan(rules, fields)
        if problems:
            raise MatcherError(f"{name}: " + "; ".join(problems))
        self.name = name
        first = {rule_id: index for index, (rule_id, _) in reversed(list(enumerate(rules)))}
        self._ids = tuple(rule_id for rule_id, _ in rules)
        self._order = tuple(first[rule_id] for rule_id in self._ids)
        self._definitions = tuple(json.dumps(_definition(part, plan.decimals)) for part in plan.rulesets)
        self._encode, self._write = _encoder(plan, fields)
        self._handles: tuple[int, ...] = ()
        self._known: dict[tuple[int | str, ...], tuple[str, ...]] = {}
        self._closed = False
        self._open()

    def match(self, fact: Fact) -> tuple[str, ...]:
        """The ids of all rules that hold for the fact, in the order of declaration, each once.

        ``fact`` gives every field of the rules an exact value: int or Fraction, str, bool, or ``None`` for an
        unknown optional one. Raises ``MatcherError`` when a field is missing or of another type.
        """
        try:
            values = self._encode(fact)
        except KeyError as error:
            raise MatcherError(f"{self.name}: the fact has no field {error.args[0]}") from None
        if self._closed:
            raise MatcherError(f"{self.name}: the matcher is closed")
        known = self._known.get(values)
        if known is not None:
            return known
        fired: set[int] | None = None
        try:
            for handle, message in zip(self._handles, self._write(*values), strict=True):
                code, state = _assert_fact(handle, message)
                if code != _NOT_HANDLED:
                    fired = fired or set()
                    self._drain(handle, code, state, fired)
        except BaseException as error:
            self._reopen()
            if isinstance(error, Exception) and not isinstance(error, MatcherError):
                raise MatcherError(f"{self.name}: durable-rules failed: {error}") from error
            raise
        found: tuple[str, ...] = ()
        if fired is not None:
            found = tuple(self._ids[index] for index in sorted({self._order[index] for index in fired}))
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[values] = found
        return found

    def match_many(self, facts: Iterable[Fact]) -> list[tuple[str, ...]]:
        """``match`` for each fact, in order."""
        match = self.match
        return [match(fact) for fact in facts]

    def close(self) -> None:
        """Give the engine's memory back. The matcher cannot be used afterwards."""
        self._closed = True
        for handle in self._handles:
            _delete_state(handle, _CONTEXT)
            _delete_ruleset(handle)
        self._handles = ()

    def _open(self) -> None:
        self._handles = tuple(
            _create_ruleset(f"{self.name}#{next(_ruleset_numbers)}", definition)
            for definition in self._definitions
        )
        # The engine frees memory it never set when it deletes a context in which no rule ever fired.
        for handle in self._handles:
            code, state = _assert_fact(handle, _FIRST_FACT)
            self._drain(handle, code, state, set())

    def _reopen(self) -> None:
        if not self._closed:
            self.close()
            self._closed = False
            self._open()

    def _drain(self, handle: int, code: int, state: int, fired: set[int]) -> None:
        action = _start_action(handle, state) if code == 0 else None
        if action is None:
            raise MatcherError(
                f"{self.name}: durable-rules took a fact (code {code}) and named no rule for it"
            )
        text: str | None = action[1]
        while text is not None:
            # The text begins with the rule's name, {"<index>.<number>": and so on.
            fired.add(int(text[2 : text.index(".", 2)]))
            text = _next_action(handle, state)
        _retract_fact(handle, _RETRACTION)


def check_limits(rules: Rules, fields: Fields) -> list[str]:
    """What durable-rules could not carry, a sentence for each problem; empty when all is well."""
    return _plan(rules, fields)[1]


# From conditions to alternatives ------------------------------------------------------------------


class _Choice(msgspec.Struct, frozen=True):
    """The field equals one of several literals."""

    field: str
    values: tuple[bool | str | Fraction, ...]


_Test = Compare | Known | _Choice
_Alternative = tuple[_Test, ...]
_Property = tuple[str, ...]
"""``("value", field)``, ``("known", field)``, ``("right", left, right)`` for two numbers, ``("one",)``."""


class _Ruleset(msgspec.Struct):
    alternatives: list[tuple[int, _Alternative]]
    properties: dict[_Property, None]
    equalities: set[tuple[str, bool | str | Fraction]]


class _Plan(msgspec.Struct):
    rulesets: list[_Ruleset]
    decimals: dict[str, int]


def _plan(rules: Rules, fields: Fields) -> tuple[_Plan, list[str]]:
    problems: list[str] = []
    rulesets: list[_Ruleset] = []
    for index, (rule_id, condition) in enumerate(rules):
        faults = list(dict.fromkeys(_faults(condition, fields)))
        if not faults:
            count = _count(condition)
            if count > MAX_ALTERNATIVES:
                faults = [
                    f"it has {count} alternatives, more than {MAX_ALTERNATIVES}; split it into several rules"
                ]
        if not faults:
            for alternative in _alternatives(condition):
                full = _guarded(alternative, fields)
                faults = _oversize(full, fields)
                if faults:
                    break
                _place(rulesets, index, full, fields)
        problems.extend(f"rule {rule_id}: {fault}" for fault in faults)
    if len(rulesets) > MAX_RULESETS:
        problems.append(f"the rules need {len(rulesets)} rulesets, more than {MAX_RULESETS}; use fewer rules")
    decimals = _decimals(rulesets, fields)
    for ruleset in rulesets:
        _arrange(ruleset)
    return _Plan(rulesets, decimals), problems


def _faults(condition: Condition, fields: Fields) -> Iterator[str]:
    match condition:
        case And(parts=parts) | Or(parts=parts):
            for part in parts:
                yield from _faults(part, fields)
        case Known(field=field):
            if field not in fields:
                yield f"there is no field {field}"
        case Compare(op=op, field=field, value=value):
            missing = [
                n for n in (field, value.name if isinstance(value, FieldRef) else field) if n not in fields
            ]
            if missing:
                yield f"there is no field {missing[0]}"
                return
            yield from _comparison_faults(op, field, value, fields)


def _comparison_faults(
    op: CompareOp, field: str, value: bool | str | Fraction | FieldRef, fields: Fields
) -> Iterator[str]:
    kind = fields[field].kind
    if isinstance(value, FieldRef):
        other = fields[value.name].kind
    else:
        other = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
    if kind != other:
        yield f"{field} is a {kind} and is compared with a {other}; compare like with like"
        return
    if kind != "number" and op not in {"==", "!="}:
        yield f"{field} is a {kind} and has no order; use == or !="
    if isinstance(value, Fraction):
        if (value * 10**MAX_DECIMALS).denominator != 1:
            yield f"{field} is compared with a number of more than {MAX_DECIMALS} decimals; round it"
        if abs(value) > MAX_NUMBER:
            yield f"{field} is compared with a number beyond {MAX_NUMBER}; use a larger unit"


def _choice(condition: Or) -> _Choice | None:
    """The condition as one choice, when it is equalities of one field with different literals."""
    values: list[bool | str | Fraction] = []
    fields: set[str] = set()
    for part in condition.parts:
        if not isinstance(part, Compare) or part.op != "==" or isinstance(part.value, FieldRef):
            return None
        fields.add(part.field)
        if part.value not in values:
            values.append(part.value)
    return _Choice(fields.pop(), tuple(values)) if len(fields) == 1 and len(values) > 1 else None


def _count(condition: Condition) -> int:
    match condition:
        case And(parts=parts):
            return prod(map(_count, parts))
        case Or(parts=parts):
            return 1 if _choice(condition) else sum(map(_count, parts))
        case _:
            return 1


def _alternatives(condition: Condition) -> list[_Alternative]:
    match condition:
        case And(parts=parts):
            combined: list[_Alternative] = [()]
            for part in parts:
                combined = [head + tail for head in combined for tail in _alternatives(part)]
            return combined
        case Or(parts=parts):
            choice = _choice(condition)
            return [(choice,)] if choice else [one for part in parts for one in _alternatives(part)]
        case _:
            return [(condition,)]


def _guarded(alternative: _Alternative, fields: Fields) -> _Alternative:
    """The alternative with a test that each optional field it compares is known, and nothing twice."""
    tests: list[_Test] = []
    for test in alternative:
        if isinstance(test, Known):
            if not fields[test.field].optional:
                # Always known: the test is either idle or never true.
                if not test.known:
                    tests.append(_NEVER)
                continue
        else:
            compared = [test.field]
            if isinstance(test, Compare) and isinstance(test.value, FieldRef):
                compared.append(test.value.name)
            tests.extend(Known(field) for field in compared if fields[field].optional)
        tests.append(test)
    return tuple(dict.fromkeys(tests)) or (_ALWAYS,)


_ONE_FIELD: Final = ""
"""Stands for a property that is 1 in every fact, for a rule without any condition."""
_ALWAYS: Final = Known(_ONE_FIELD)
_NEVER: Final = Known(_ONE_FIELD, False)


def _properties(test: _Test, fields: Fields) -> list[_Property]:
    if isinstance(test, Known):
        return [("known", test.field) if test.field != _ONE_FIELD else ("one",)]
    if isinstance(test, Compare) and isinstance(test.value, FieldRef):
        return [("value", test.field), _right_property(test.field, test.value.name, fields)]
    return [("value", test.field)]


def _right_property(left: str, right: str, fields: Fields) -> _Property:
    return ("right", left, right) if fields[left].kind == "number" else ("value", right)


def _equalities(alternative: _Alternative) -> set[tuple[str, bool | str | Fraction]]:
    found: set[tuple[str, bool | str | Fraction]] = set()
    for test in alternative:
        if isinstance(test, _Choice):
            found.update((test.field, value) for value in test.values)
        elif isinstance(test, Compare) and test.op == "==" and not isinstance(test.value, FieldRef):
            found.add((test.field, test.value))
    return found


def _oversize(alternative: _Alternative, fields: Fields) -> list[str]:
    """What keeps one alternative alone from fitting into a ruleset."""
    properties = {found for test in alternative for found in _properties(test, fields)}
    if len(properties) > MAX_FIELDS:
        return [
            f"it needs {len(properties)} properties of a fact, more than {MAX_FIELDS}; compare fewer fields"
        ]
    equalities = len(_equalities(alternative))
    if equalities > MAX_EQUALITIES:
        return [
            f"it compares with {equalities} literals by == or in, more than {MAX_EQUALITIES}; split the list"
        ]
    choices = sum(isinstance(test, _Choice) for test in alternative)
    if choices > MAX_CHOICES:
        return [f"it joins {choices} tests with in by &&, more than {MAX_CHOICES}; split it"]
    return []


def _place(rulesets: list[_Ruleset], index: int, alternative: _Alternative, fields: Fields) -> None:
    properties = dict.fromkeys(found for test in alternative for found in _properties(test, fields))
    equalities = _equalities(alternative)
    for ruleset in rulesets:
        if (
            len(ruleset.alternatives) < MAX_ALTERNATIVES
            and len(ruleset.properties.keys() | properties.keys()) <= MAX_FIELDS
            and len(ruleset.equalities | equalities) <= MAX_EQUALITIES
        ):
            ruleset.alternatives.append((index, alternative))
            ruleset.properties.update(properties)
            ruleset.equalities |= equalities
            return
    rulesets.append(_Ruleset([(index, alternative)], properties, equalities))


# Speed: shared and loosest tests first ------------------------------------------------------------

_SIDES: Final[Mapping[str, str]] = {">": ">=", ">=": ">=", "<": "<=", "<=": "<="}
_WORTH_A_BOUND: Final = 3


def _arrange(ruleset: _Ruleset) -> None:
    limits: dict[tuple[str, str], set[Compare]] = {}
    for _, alternative in ruleset.alternatives:
        for test in alternative:
            if isinstance(test, Compare) and test.op in _SIDES and isinstance(test.value, Fraction):
                limits.setdefault((test.field, _SIDES[test.op]), set()).add(test)
    bounds: dict[tuple[str, str], Compare] = {}
    for (field, side), tests in limits.items():
        if len(tests) >= _WORTH_A_BOUND:
            values = [test.value for test in tests if isinstance(test.value, Fraction)]
            bounds[field, side] = (
                Compare(">=", field, min(values)) if side == ">=" else Compare("<=", field, max(values))
            )
    bounded = [(index, _bounded(alternative, bounds)) for index, alternative in ruleset.alternatives]
    shared = Counter(test for _, alternative in bounded for test in alternative)

    def rank(test: _Test) -> tuple[bool, int, str]:
        return isinstance(test, _Choice), -shared[test], repr(test)

    ruleset.alternatives = [(index, tuple(sorted(alternative, key=rank))) for index, alternative in bounded]


def _bounded(alternative: _Alternative, bounds: Mapping[tuple[str, str], Compare]) -> _Alternative:
    extra = [
        bounds[test.field, _SIDES[test.op]]
        for test in alternative
        if isinstance(test, Compare)
        and not isinstance(test.value, FieldRef)
        and (test.field, _SIDES.get(test.op)) in bounds
    ]
    return tuple(dict.fromkeys([*extra, *alternative]))


# From alternatives to rulesets --------------------------------------------------------------------

_OPERATORS: Final[Mapping[str, str]] = {"!=": "$neq", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}


def _decimals(rulesets: Sequence[_Ruleset], fields: Fields) -> dict[str, int]:
    """How many decimals of each number field have to be told apart."""
    decimals: dict[str, int] = {}
    for ruleset in rulesets:
        for _, alternative in ruleset.alternatives:
            for test in alternative:
                if isinstance(test, Known) or fields[test.field].kind != "number":
                    continue
                values = test.values if isinstance(test, _Choice) else (test.value,)
                for value in values:
                    if isinstance(value, FieldRef):
                        decimals[test.field] = decimals[value.name] = MAX_DECIMALS
                    elif isinstance(value, Fraction):
                        decimals[test.field] = max(decimals.get(test.field, 0), _decimals_of(value))
    return decimals


def _decimals_of(value: Fraction) -> int:
    return next(count for count in range(MAX_DECIMALS + 1) if (value * 10**count).denominator == 1)


def _property_names(ruleset: _Ruleset) -> dict[_Property, str]:
    return {found: f"f{position}" for position, found in enumerate(ruleset.properties)}


def _definition(ruleset: _Ruleset, decimals: Mapping[str, int]) -> dict[str, object]:
    """The ruleset as durable-rules reads it, each rule named ``<rule index>.<number>``."""
    names = _property_names(ruleset)
    rules: dict[str, object] = {f"{_FIRST_RULE}.": {"all": [{"m": {_FIRST_PROPERTY: 1}}]}}
    for number, (index, alternative) in enumerate(ruleset.alternatives):
        tests = [_test_definition(test, names, decimals) for test in alternative]
        rules[f"{index}.{number}"] = {"all": [{"m": tests[0] if len(tests) == 1 else {"$and": tests}}]}
    return rules


def _test_definition(
    test: _Test, names: Mapping[_Property, str], decimals: Mapping[str, int]
) -> dict[str, object]:
    match test:
        case Known(field=field, known=known):
            return {names["known", field] if field != _ONE_FIELD else names["one",]: int(known)}
        case _Choice(field=field, values=values):
            name = names["value", field]
            return {"$or": [{name: _literal(value, decimals.get(field, 0))} for value in values]}
        case Compare(op=op, field=field, value=value):
            operand: object
            if isinstance(value, FieldRef):
                right = ("right", field, value.name)
                operand = {"$m": names[right if right in names else ("value", value.name)]}
            else:
                operand = _literal(value, decimals.get(field, 0))
            if op == "==":
                return {names["value", field]: operand}
            return {_OPERATORS[op]: {names["value", field]: operand}}


def _literal(value: bool | str | Fraction, decimals: int) -> int | str:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        return _short(value)
    scaled = value * 10**decimals
    assert scaled.denominator == 1, "the field's decimals cover each of its literals"
    return 2 * int(scaled)


# From facts to messages ---------------------------------------------------------------------------


def _short(value: str) -> str:
    """The text, or its digest when it is long."""
    # A text that begins like a digest is digested as well, so that none can pass for another's digest.
    if len(encode_basestring_ascii(value)) <= MAX_TEXT_CHARS and not value.startswith("\0"):
        return value
    return "\0sha256:" + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def _fraction(value: Fraction, scale: int) -> int:
    whole, rest = divmod(value.numerator * scale, value.denominator)
    encoded = 2 * whole + 1 if rest else 2 * whole
    if -_CLAMP <= encoded <= _CLAMP:
        return encoded
    return _CLAMP + 1 if encoded > 0 else -_CLAMP - 1


def _quotient(value: tuple[int, int], scale: int) -> int:
    """As ``_fraction``; an unreduced quotient encodes like the reduced one."""
    whole, rest = divmod(value[0] * scale, value[1])
    encoded = 2 * whole + 1 if rest else 2 * whole
    if -_CLAMP <= encoded <= _CLAMP:
        return encoded
    return _CLAMP + 1 if encoded > 0 else -_CLAMP - 1


def _encoder(
    plan: _Plan, fields: Fields
) -> tuple[Callable[[Fact], tuple[int | str, ...]], Callable[..., tuple[str, ...]]]:
    """Generate the function that encodes a fact's values, and the one that writes them as a message per ruleset.

    The first runs for every fact, the second only for values that were not asked about lately. Both are straight code
    without loops. Field names enter the source as literals made by ``repr`` only.
    """
    used = list(dict.fromkeys(found for ruleset in plan.rulesets for found in ruleset.properties))
    mentioned = dict.fromkeys(field for found in used for field in found[1:])
    lines = ["def encode(fact):"]
    variables: dict[_Property, str] = {("one",): "1"}
    for position, field in enumerate(mentioned):
        lines += _field_source(position, field, fields[field], plan.decimals.get(field, 0))
        variables["value", field] = f"e{position}"
        variables["known", field] = f"k{position}"
    places = {field: position for position, field in enumerate(mentioned)}
    for number, found in enumerate(found for found in used if found[0] == "right"):
        left, right = places[found[1]], places[found[2]]
        lines += [
            f"    r{number} = e{right}",
            f"    if e{left} == r{number} and r{number} & 1:",
            f"        r{number} = beside(v{left}, v{right}, r{number})",
        ]
        variables[found] = f"r{number}"
    values = "".join(f"{variables[found]}, " for found in used if found != ("one",))
    lines += [f"    return ({values})", "", f"def write({values}):"]
    for number, ruleset in enumerate(plan.rulesets):
        body = "".join(
            f',"{name}":{{{variables[found]}}}' for found, name in _property_names(ruleset).items()
        )
        lines.append(f'    m{number} = f\'{{{{"id":"{_FACT_ID}"{body}}}}}\'')
    lines.append("    return (" + "".join(f"m{number}, " for number in range(len(plan.rulesets))) + ")")
    namespace: dict[str, object] = {
        "Fraction": Fraction,
        "beside": _beside,
        "fraction": _fraction,
        "quotient": _quotient,
        "number": _number,
        "text": _text,
        "texts": _texts,
        "truth": _truth,
    }
    exec(compile("\n".join(lines), "<fact encoder>", "exec"), namespace)  # noqa: S102 - written just above
    encode, write = namespace["encode"], namespace["write"]
    assert callable(encode)
    assert callable(write)
    return encode, write


def _field_source(position: int, field: str, found: ExprType, decimals: int) -> list[str]:
    """Set ``e<position>`` to what is sent for the field and, for an optional one, ``k<position>`` to 1 or 0."""
    value, encoded, name = f"v{position}", f"e{position}", repr(field)
    scale = 10**decimals
    reach = _CLAMP // (2 * scale)
    if found.kind == "number":
        convert = [
            f"if {value}.__class__ is int and -{reach} <= {value} <= {reach}:",
            f"    {encoded} = {value} * {2 * scale}",
            f"elif {value}.__class__ is tuple: {encoded} = quotient({value}, {scale})",
            f"elif {value}.__class__ is Fraction: {encoded} = fraction({value}, {scale})",
            f"else: {encoded} = number({value}, {name}, {scale})",
        ]
    elif found.kind == "string":
        convert = [
            f"{encoded} = texts.get({value}) if {value}.__class__ is str else None",
            f"if {encoded} is None: {encoded} = text({value}, {name})",
        ]
    else:
        convert = [f"{encoded} = 1 if {value} is True else 0 if {value} is False else truth({value}, {name})"]
    lines = [f"    {value} = fact[{name}]"]
    if not found.optional:
        return lines + [f"    {line}" for line in convert]
    nothing = "'\"\"'" if found.kind == "string" else "0"
    lines += [
        f"    if {value} is None: k{position} = 0; {encoded} = {nothing}",
        "    else:",
        f"        k{position} = 1",
    ]
    return lines + [f"        {line}" for line in convert]


def _number(value: object, field: str, scale: int) -> int:
    """What the generated code does not handle itself: integers out of reach, and everything that is wrong."""
    if isinstance(value, bool) or not isinstance(value, (int, Fraction)):
        raise MatcherError(
            f"the field {field} should be an exact number and is {value!r}; give an int or a Fraction"
        )
    return _fraction(Fraction(value), scale)


def _exact(value: int | Fraction | tuple[int, int]) -> int | Fraction:
    return Fraction(*value) if isinstance(value, tuple) else value


def _beside(
    left: int | Fraction | tuple[int, int] | None,
    right: int | Fraction | tuple[int, int] | None,
    encoded: int,
) -> int:
    """The right number's integer when the left one's is the same although the numbers may differ."""
    assert left is not None, "an unknown number is sent as 0, which is even"
    assert right is not None, "an unknown number is sent as 0, which is even"
    left, right = _exact(left), _exact(right)
    return encoded + (1 if right > left else -1 if right < left else 0)


_MAX_KEPT_TEXTS: Final = 4096
_texts: Final[dict[str, str]] = {}


def _text(value: object, field: str) -> str:
    """A text as JSON in ASCII, kept for the next fact: the texts that rules ask about are few."""
    if not isinstance(value, str):
        raise MatcherError(f"the field {field} should be a text and is {value!r}")
    quoted = encode_basestring_ascii(_short(value))
    if len(_texts) >= _MAX_KEPT_TEXTS:
        _texts.clear()
    if len(value) <= MAX_TEXT_CHARS:
        _texts[value] = quoted
    return quoted


def _truth(value: object, field: str) -> int:
    raise MatcherError(f"the field {field} should be true or false and is {value!r}")

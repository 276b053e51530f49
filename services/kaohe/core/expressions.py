"""Conditions and amounts of rule packs: a small, typed part of CEL, the Common Expression Language.

Theory of operation. The text is parsed by cel-python's grammar, so every expression here is CEL, but only a
part of CEL is let through: what durable-rules can decide exactly. The parse tree is turned at once into the
small tree of frozen structs below, each with the column it came from (columns count from 1 in the
expression's text), and every name is looked up in a *scope* that gives its type. All checking happens there,
when a pack loads; what comes out cannot fail later.

Conditions
    ``&& || !``, parentheses, ``== != < <= > >=`` between a name and a literal or between two names,
    ``name in ["a", "b"]``, a bare truth value, ``has(name)``. Nothing else.
Amounts
    names and literals, with ``+ - * /`` over numbers. Arithmetic is exact (``Fraction``); no float exists
    here.

Units. A number may carry a unit word. Numbers of unlike units are neither compared nor added. A literal
carries no unit and fits any, and so does a name declared without one. Multiplying or dividing by a number
without a unit keeps the unit; any other product or quotient has none (``late_min / p.step_min *
p.step_points`` may serve as points).

The unknown. A name whose type is ``optional`` may have no value (a ratio without data is ``None``). A
comparison with an unknown operand is false, *and so is its opposite*: a negation is first pushed inwards,
``!(a > b)`` becomes ``a <= b``, and only then is anything decided. An unknown value therefore satisfies
neither ``a > b`` nor ``!(a > b)``, and nobody is charged for data that do not exist. Only ``has(a)`` and
``!has(a)`` ask about the value's existence. An amount with an unknown input is itself unknown: ``evaluate``
gives ``None``.

Targets. ``to_condition`` gives the tree of ``And``, ``Or``, ``Compare`` and ``Known`` that ``core.matcher``
hands to durable-rules; ``decider`` makes a function of it for what the matcher does not decide; ``to_python`` gives
source text for code generated for the hot path.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from typing import Any, Final, Literal, NoReturn

import msgspec
from celpy.celparser import CELParseError, CELParser
from lark import Token, Tree
from lark.exceptions import UnexpectedToken

from kaohe.errors import ExpressionError

MAX_TEXT_CHARS: Final = 2000
MAX_TREE_DEPTH: Final = 200
MAX_DECIMALS: Final = 9
MAX_NUMBER: Final = 4_000_000_000
"""The largest magnitude of a number literal."""

CompareOp = Literal["==", "!=", "<", "<=", ">", ">="]


class ExprType(msgspec.Struct, frozen=True):
    """What a name stands for. ``values`` enumerates a string; an ``optional`` value may be unknown."""

    kind: Literal["bool", "string", "number"]
    unit: str = ""
    values: tuple[str, ...] = ()
    optional: bool = False


Scope = Mapping[str, ExprType]


# The tree of an expression ------------------------------------------------------------------------


class Name(msgspec.Struct, frozen=True):
    """A name of the scope, with what it stands for."""

    name: str
    type: ExprType
    column: int


class Number(msgspec.Struct, frozen=True):
    """A number literal, exact."""

    value: Fraction
    column: int


class Text(msgspec.Struct, frozen=True):
    """A text literal, its escapes resolved."""

    value: str
    column: int


class Truth(msgspec.Struct, frozen=True):
    """``true`` or ``false``."""

    value: bool
    column: int


class Not(msgspec.Struct, frozen=True):
    """``!`` before a condition."""

    operand: Expr
    column: int


class Junction(msgspec.Struct, frozen=True):
    """``&&`` or ``||`` over two or more conditions."""

    op: Literal["&&", "||"]
    parts: tuple[Expr, ...]
    column: int


class Comparison(msgspec.Struct, frozen=True):
    """A name compared with a literal or with another name; the name stands on the left."""

    op: CompareOp
    left: Name
    right: Name | Number | Text | Truth
    column: int


class Membership(msgspec.Struct, frozen=True):
    """``name in [...]``."""

    subject: Name
    choices: tuple[Number | Text, ...]
    column: int


class Presence(msgspec.Struct, frozen=True):
    """``has(name)``: the value is known."""

    subject: Name
    column: int


class Arithmetic(msgspec.Struct, frozen=True):
    """``+ - * /`` over numbers, in an amount."""

    op: Literal["+", "-", "*", "/"]
    left: Expr
    right: Expr
    type: ExprType
    column: int


class Minus(msgspec.Struct, frozen=True):
    """A minus sign before a number that is no literal, in an amount."""

    operand: Expr
    type: ExprType
    column: int


Leaf = Name | Number | Text | Truth
Expr = Leaf | Not | Junction | Comparison | Membership | Presence | Arithmetic | Minus


# The tree for the matcher -------------------------------------------------------------------------


class FieldRef(msgspec.Struct, frozen=True):
    """The right side of a comparison between two fields of a fact."""

    name: str


class Compare(msgspec.Struct, frozen=True):
    """``field op value``. False when a field in it is unknown."""

    op: CompareOp
    field: str
    value: bool | str | Fraction | FieldRef


class Known(msgspec.Struct, frozen=True):
    """The field's value is known, or with ``known=False`` it is not."""

    field: str
    known: bool = True


class And(msgspec.Struct, frozen=True):
    """True when every part is; without parts always true."""

    parts: tuple[Condition, ...]


class Or(msgspec.Struct, frozen=True):
    """True when some part is; without parts never true."""

    parts: tuple[Condition, ...]


Condition = And | Or | Compare | Known

ALWAYS: Final = And(())
"""The condition of a rule that has none."""

_OPPOSITE: Final[Mapping[CompareOp, CompareOp]] = {
    "==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">",
}  # fmt: skip
_MIRRORED: Final[Mapping[CompareOp, CompareOp]] = {
    "==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<=",
}  # fmt: skip


# Parsing ------------------------------------------------------------------------------------------


def parse_condition(text: str, scope: Scope) -> Expr:
    """Parse and check a condition. Raises ``ExpressionError`` with the column of what is wrong."""
    return _Reader(text, scope, amounts=False).condition(_parse(text))


def parse_amount(text: str, scope: Scope) -> Expr:
    """Parse and check an amount; ``type_of`` tells what it yields. Raises ``ExpressionError``."""
    return _Reader(text, scope, amounts=True).operand(_parse(text))


def type_of(expression: Expr) -> ExprType:
    """The type of an expression; ``optional`` when its value can be unknown."""
    match expression:
        case Name(type=found) | Arithmetic(type=found) | Minus(type=found):
            return found
        case Number():
            return ExprType("number")
        case Text():
            return ExprType("string")
        case _:
            return ExprType("bool")


def names(expression: Expr) -> frozenset[str]:
    """Every name the expression mentions."""
    return frozenset(node.name for node in _name_nodes(expression))


def _name_nodes(expression: Expr) -> list[Name]:
    match expression:
        case Name():
            return [expression]
        case Not(operand=operand) | Minus(operand=operand):
            return _name_nodes(operand)
        case Junction(parts=parts):
            return [node for part in parts for node in _name_nodes(part)]
        case Comparison(left=left, right=right) | Arithmetic(left=left, right=right):
            return _name_nodes(left) + _name_nodes(right)
        case Membership(subject=subject) | Presence(subject=subject):
            return [subject]
        case _:
            return []


class _Parser(CELParser):
    """cel-python's parser, except that true and false keep their place in the text."""

    @staticmethod
    def ambiguous_literals(t: Token) -> Token:
        if t.value in {"true", "false"}:
            return Token.new_borrow_pos("BOOL_LIT", t.value, t)
        return t


@cache
def _parser() -> CELParser:
    CELParser.CEL_PARSER = None  # made once per process, by whoever is first, with that one's methods
    return _Parser()


def _parse(text: str) -> Tree[Token]:
    if not text.strip():
        raise ExpressionError(1, "the expression is empty", "write a condition such as event.rating < 3")
    if len(text) > MAX_TEXT_CHARS:
        raise ExpressionError(
            MAX_TEXT_CHARS + 1,
            f"the expression is longer than {MAX_TEXT_CHARS} characters",
            "split it into several rules",
        )
    try:
        tree: Tree[Token] = _parser().parse(text)
    except CELParseError as error:
        _refuse_syntax(text, error)
    _check_depth(tree)
    return tree


def _refuse_syntax(text: str, error: CELParseError) -> NoReturn:
    cause = error.__context__
    if isinstance(cause, UnexpectedToken) and cause.token.type == "$END":
        raise ExpressionError(
            len(text.rstrip()) + 1,
            "the expression ends too early",
            "complete it, and close every parenthesis",
        ) from None
    line, column = error.line or 1, error.column or 1
    at = sum(len(part) for part in text.splitlines(keepends=True)[: line - 1]) + column - 1
    rest = text[at:]
    word = re.match(r"\w+", rest)
    before = re.search(r"\w+(?=\s*$)", text[:at])
    wrong, right = f"{rest[:1]!r} does not fit here", "write name, operator, value, joined by && or ||"
    if rest.startswith("="):
        wrong, right = "a single = is not a comparison", "write =="
    elif word and word[0].lower() in _WORDS:
        wrong, right = f"{word[0]!r} is not an operator here", f"write {_WORDS[word[0].lower()]}"
    elif before and before[0].lower() in _WORDS:
        at = before.start()
        wrong, right = f"{before[0]!r} is not an operator here", f"write {_WORDS[before[0].lower()]}"
    elif word:
        wrong = f"{word[0]!r} does not fit here"
    elif rest[:1] in {"&", "|"}:
        wrong, right = f"a single {rest[0]} is not an operator here", f"write {rest[0] * 2}"
    elif rest[:1] in {'"', "'"}:
        wrong, right = (
            "this text does not fit here or is not closed",
            "close it with the quotation mark that opened it",
        )
    raise ExpressionError(at + 1, wrong, right) from None


_WORDS: Final = {"and": "&&", "or": "||", "not": "!", "is": "=="}


def _check_depth(tree: Tree[Token]) -> None:
    """Bound the recursion of everything that follows, without recursing."""
    level: list[Tree[Token]] = [tree]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_TREE_DEPTH:
            raise ExpressionError(
                _column(level[0]), "the expression is nested too deeply", "split it into several rules"
            )
        level = [child for node in level for child in node.children if isinstance(child, Tree)]


def _column(node: Tree[Token] | Token) -> int:
    start = node.start_pos if isinstance(node, Token) else node.meta.start_pos
    return (start or 0) + 1


# fmt: off
_TRANSPARENT: Final = frozenset({
    "expr", "conditionalor", "conditionaland", "relation", "addition", "multiplication",
    "unary", "member", "primary", "paren_expr",
})
# fmt: on


def _strip(tree: Tree[Token]) -> Tree[Token]:
    """Walk down the chain of single children that the grammar's precedence levels and parentheses make."""
    while len(tree.children) == 1 and tree.data in _TRANSPARENT:
        child = tree.children[0]
        assert isinstance(child, Tree)
        tree = child
    return tree


def _children(tree: Tree[Token]) -> list[Tree[Token]]:
    return [child for child in tree.children if isinstance(child, Tree)]


_RELATIONS: Final[Mapping[str, CompareOp]] = {
    "relation_eq": "==", "relation_ne": "!=", "relation_lt": "<",
    "relation_le": "<=", "relation_gt": ">", "relation_ge": ">=",
}  # fmt: skip
_ARITHMETIC: Final[Mapping[str, Literal["+", "-", "*", "/"]]] = {
    "addition_add": "+", "addition_sub": "-", "multiplication_mul": "*", "multiplication_div": "/",
}  # fmt: skip
_MACROS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})
# fmt: off
_TIMES: Final = frozenset({
    "timestamp", "duration", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear",
    "getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds",
})
# fmt: on
_NOT_A_VALUE: Final = ("a condition stands where a value should be", "write a name, a number or a text")
_NO_OBJECTS: Final = ("maps and objects are not in the language", "write names and literals")
_NO_LEADING_DOT: Final = ("a name does not begin with a dot", "leave the dot out")
_REFUSED: Final[Mapping[str, tuple[str, str]]] = {
    "relation": _NOT_A_VALUE,
    "conditionalor": _NOT_A_VALUE,
    "conditionaland": _NOT_A_VALUE,
    "unary": _NOT_A_VALUE,
    "list_lit": ("a list stands only to the right of in", 'write name in ["a", "b"]'),
    "member_index": ("indexing with [ ] is not in the language", "facts are flat: write the name itself"),
    "map_lit": _NO_OBJECTS,
    "member_object": _NO_OBJECTS,
    "dot_ident": _NO_LEADING_DOT,
    "dot_ident_arg": _NO_LEADING_DOT,
}
"""What the grammar knows and the language does not: what is wrong and what would be right."""


class _Reader:
    """Turns a parse tree into an ``Expr``, or refuses it, in one walk."""

    def __init__(self, text: str, scope: Scope, *, amounts: bool) -> None:
        self._text = text
        self._scope = scope
        self._amounts = amounts

    def condition(self, tree: Tree[Token]) -> Expr:
        tree = _strip(tree)
        column = _column(tree)
        if tree.data in {"conditionalor", "conditionaland"}:
            return self._junction(tree)
        if tree.data == "relation":
            return self._relation(tree)
        if tree.data == "unary" and _children(tree)[0].data == "unary_not":
            return Not(self.condition(_children(tree)[1]), column)
        if tree.data == "ident_arg" and tree.children[0] == "has":
            return self._presence(tree)
        found = self.operand(tree)
        if isinstance(found, Name) and found.type.kind == "bool":
            # Said in full, so that a condition is never mistaken for an amount, which may be unknown.
            return Comparison("==", found, Truth(True, column), column)
        if isinstance(found, Name):
            raise ExpressionError(
                column,
                f"{found.name} is a {_kind(found)} and alone decides nothing",
                "compare it with a value",
            )
        raise ExpressionError(
            column,
            "a literal alone decides nothing",
            "write a condition, or leave it out when the rule always holds",
        )

    def _junction(self, tree: Tree[Token]) -> Junction:
        data, column, parts = tree.data, _column(tree), []
        while tree.data == data and len(tree.children) == 2:
            left, right = _children(tree)
            parts.append(right)
            tree = left
        parts.append(tree)
        op: Literal["&&", "||"] = "&&" if data == "conditionaland" else "||"
        return Junction(op, tuple(self.condition(part) for part in reversed(parts)), column)

    def _presence(self, tree: Tree[Token]) -> Presence:
        arguments = _children(_children(tree)[0]) if _children(tree) else []
        if len(arguments) != 1 or _strip(arguments[0]).data not in {"ident", "member_dot"}:
            raise ExpressionError(_column(tree), "has() takes one name", "write has(complaint_rate.month)")
        return Presence(self._name(_strip(arguments[0])), _column(tree))

    def _relation(self, tree: Tree[Token]) -> Expr:
        relation, right_tree = _children(tree)
        left_tree = _children(relation)[0]
        column = _column(tree)
        if relation.data == "relation_in":
            return self._membership(left_tree, right_tree, column)
        op = _RELATIONS[str(relation.data)]
        left, right = self._side(left_tree), self._side(right_tree)
        if not isinstance(left, Name):
            if not isinstance(right, Name):
                raise ExpressionError(
                    column, "both sides are literals, so this never changes", "compare a name with a literal"
                )
            left, right, op = right, left, _MIRRORED[op]
        _check_comparable(op, left, right)
        return Comparison(op, left, right, column)

    def _side(self, tree: Tree[Token]) -> Leaf:
        inner = _strip(tree)
        if inner.data == "relation" or inner.data in {"conditionalor", "conditionaland"}:
            raise ExpressionError(
                _column(inner),
                "comparisons do not chain",
                "join two comparisons with &&, such as a < b && b < c",
            )
        if inner.data == "unary" and _children(inner)[0].data == "unary_not":
            raise ExpressionError(
                _column(inner), "! stands before a condition, not inside a comparison", "write a != b"
            )
        found = self.operand(inner)
        assert isinstance(found, Name | Number | Text | Truth)
        return found

    def _membership(self, left_tree: Tree[Token], right_tree: Tree[Token], column: int) -> Membership:
        subject, right = self._side(left_tree), _strip(right_tree)
        if not isinstance(subject, Name):
            raise ExpressionError(
                _column(left_tree), "the left side of in is a literal", 'write name in ["a", "b"]'
            )
        if right.data != "list_lit":
            raise ExpressionError(
                _column(right), "the right side of in is not a list of literals", 'write name in ["a", "b"]'
            )
        items = _children(_children(right)[0]) if _children(right) else []
        if not items:
            raise ExpressionError(
                _column(right), "the list is empty, so nothing is ever in it", "name its members"
            )
        choices: list[Number | Text] = []
        for item in items:
            choice = self._side(item)
            if not isinstance(choice, Number | Text):
                raise ExpressionError(
                    _column(item), "a list holds only numbers or only texts", 'write name in ["a", "b"]'
                )
            if choices and type(choice) is not type(choices[0]):
                raise ExpressionError(
                    choice.column,
                    "the list mixes numbers and texts",
                    "make all its members of the name's type",
                )
            _check_comparable("==", subject, choice)
            if all(choice.value != earlier.value for earlier in choices):
                choices.append(choice)
        return Membership(subject, tuple(choices), column)

    # Operands: names, literals and, in amounts, arithmetic.

    def operand(self, tree: Tree[Token]) -> Expr:
        tree = _strip(tree)
        column = _column(tree)
        match tree.data:
            case "ident" | "member_dot":
                return self._name(tree)
            case "literal":
                token = tree.children[0]
                assert isinstance(token, Token)
                return _literal(token, amounts=self._amounts)
            case "unary" if _children(tree)[0].data == "unary_neg":
                return self._minus(tree)
            case "addition" | "multiplication":
                return self._arithmetic(tree)
            case "ident_arg":
                _refuse_call(str(tree.children[0]), column)
            case "member_dot_arg":
                token = tree.children[1]
                _refuse_call(str(token), column)
            case "expr":
                column = self._operator_column("?", _children(tree)[1])
                raise ExpressionError(
                    column, "a choice with ? and : is not in the language", "write one rule for each case"
                )
        wrong, right = _REFUSED.get(
            str(tree.data), ("this part of CEL is not in the language", "write a name")
        )
        raise ExpressionError(column, wrong, right)

    def _operator_column(self, operator: str, right: Tree[Token]) -> int:
        """Where the operator before ``right`` stands; the grammar does not keep it."""
        return self._text.rfind(operator, 0, _column(right) - 1) + 1

    def _name(self, tree: Tree[Token]) -> Name:
        column, parts = _column(tree), []
        while tree.data == "member_dot":
            parts.append(str(tree.children[1]))
            inner = tree.children[0]
            assert isinstance(inner, Tree)
            tree = _strip(inner)
        if tree.data != "ident":
            self.operand(tree)  # names its own fault if it has one
            raise ExpressionError(column, "a dot follows something that is not a name", "write a dotted name")
        parts.append(str(tree.children[0]))
        name = ".".join(reversed(parts))
        found = self._scope.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self._scope, n=1, cutoff=0.5)
            right = f"did you mean {near[0]}?" if near else _known_names(self._scope)
            raise ExpressionError(column, f"there is no {name} here", right)
        return Name(name, found, column)

    def _minus(self, tree: Tree[Token]) -> Expr:
        column, inner = _column(tree), self.operand(_children(tree)[1])
        if isinstance(inner, Number):
            return Number(-inner.value, column)
        if not self._amounts:
            raise ExpressionError(
                column, "a minus sign stands only before a number here", "compare with the negative number"
            )
        _check_number(inner, column)
        return Minus(inner, type_of(inner), column)

    def _arithmetic(self, tree: Tree[Token]) -> Arithmetic:
        head, right_tree = _children(tree)
        operator = {"multiplication_mod": "%"} | dict(_ARITHMETIC)
        column = self._operator_column(operator[str(head.data)], right_tree)
        if head.data == "multiplication_mod":
            raise ExpressionError(
                column, "the remainder % is not in the language", "use + - * / in an amount"
            )
        op = _ARITHMETIC[str(head.data)]
        if not self._amounts:
            raise ExpressionError(
                column,
                f"{op} is not allowed in a condition",
                "declare a metric or a parameter for the sum and compare that",
            )
        left, right = self.operand(_children(head)[0]), self.operand(right_tree)
        _check_number(left, _column(tree))
        _check_number(right, _column(right_tree))
        if op == "/" and isinstance(right, Number) and right.value == 0:
            raise ExpressionError(right.column, "this divides by 0", "divide by another number")
        return Arithmetic(op, left, right, _arithmetic_type(op, left, right, column), column)


def _known_names(scope: Scope) -> str:
    if not scope:
        return "no names are known here"
    some = sorted(scope)
    return "known here are " + ", ".join(some[:8]) + (" and others" if len(some) > 8 else "")


def _kind(leaf: Leaf) -> str:
    return {"bool": "truth value", "string": "text", "number": "number"}[type_of(leaf).kind]


def _said(leaf: Leaf) -> str:
    match leaf:
        case Name(name=name):
            return name
        case Text(value=value):
            return f'"{value}"'
        case Truth(value=value):
            return "true" if value else "false"
        case Number(value=value):
            whole, rest = divmod(abs(value) * 10**MAX_DECIMALS, 10**MAX_DECIMALS)
            return f"{'-' if value < 0 else ''}{whole}.{int(rest):09d}".rstrip("0").rstrip(".")


def _check_comparable(op: CompareOp, left: Name, right: Leaf) -> None:
    one, other = left.type, type_of(right)
    if one.kind != other.kind:
        raise ExpressionError(
            right.column,
            f"{left.name} is a {_kind(left)} and {_said(right)} is a {_kind(right)}",
            f"compare it with a {_kind(left)}",
        )
    if one.kind != "number" and op not in {"==", "!="}:
        raise ExpressionError(
            left.column, f"a {_kind(left)} has no order, so {op} does not apply", "use == or !="
        )
    if one.unit and other.unit and one.unit != other.unit:
        raise ExpressionError(
            right.column,
            f"{left.name} is in {one.unit} and {_said(right)} is in {other.unit}",
            f"compare it with something in {one.unit}",
        )
    if isinstance(right, Name) and right.name == left.name:
        raise ExpressionError(
            right.column, f"{left.name} is compared with itself", "compare it with something else"
        )
    if isinstance(right, Text) and one.values and right.value not in one.values:
        near = difflib.get_close_matches(right.value, one.values, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "it is one of " + ", ".join(one.values)
        raise ExpressionError(right.column, f"{left.name} is never {_said(right)}", hint)
    if isinstance(right, Name) and one.values and other.values and not set(one.values) & set(other.values):
        raise ExpressionError(
            right.column,
            f"{left.name} and {right.name} have no value in common",
            "compare names of one enumeration",
        )


def _check_number(found: Expr, column: int) -> None:
    if type_of(found).kind != "number":
        said = _said(found) if isinstance(found, Name | Text | Truth) else "this"
        raise ExpressionError(
            column, f"{said} is not a number, so it cannot be calculated with", "use numbers only"
        )


def _arithmetic_type(op: str, left: Expr, right: Expr, column: int) -> ExprType:
    one, other = type_of(left), type_of(right)
    optional = one.optional or other.optional
    if op in {"+", "-"}:
        if one.unit and other.unit and one.unit != other.unit:
            raise ExpressionError(
                column,
                f"{one.unit} and {other.unit} cannot be added or subtracted",
                f"make both sides {one.unit}",
            )
        return ExprType("number", one.unit or other.unit, (), optional)
    multiplied = other.unit if op == "*" and not one.unit else ""
    unit = multiplied if other.unit else one.unit
    return ExprType("number", unit, (), optional)


def _refuse_call(function: str, column: int) -> NoReturn:
    if function == "matches":
        raise ExpressionError(
            column, "regular expressions are not in the language", 'list the texts: name in ["a", "b"]'
        )
    if function in _MACROS:
        raise ExpressionError(
            column,
            f"the macro {function}() is not in the language",
            "declare a metric that counts, and compare that",
        )
    if function in _TIMES:
        raise ExpressionError(
            column,
            f"{function}() is not in the language: times are not compared in expressions",
            "use a deadline or a period",
        )
    if function == "has":
        raise ExpressionError(column, "has() is a condition, not a value", "write it alone or joined with &&")
    raise ExpressionError(
        column, f"the function {function}() is not in the language", "compare names and literals only"
    )


_DECIMAL: Final = re.compile(r"-?(?:\d+\.?\d*|\.\d+)")


def _literal(token: Token, *, amounts: bool) -> Number | Text | Truth:
    column, text = _column(token), str(token)
    match token.type:
        case "BOOL_LIT":
            return Truth(text == "true", column)
        case "STRING_LIT":
            return Text(_unquote(text, column), column)
        case "MLSTRING_LIT":
            raise ExpressionError(
                column, "a text in triple quotation marks is not in the language", 'write "text"'
            )
        case "BYTES_LIT":
            raise ExpressionError(column, "bytes are not in the language", 'write a text such as "gold"')
        case "NULL_LIT":
            raise ExpressionError(
                column, "null is not in the language", "ask has(name) whether a value is known"
            )
        case "UINT_LIT":
            raise ExpressionError(column, f"{text} is an unsigned number", f"write {text[:-1]}")
    if _DECIMAL.fullmatch(text) is None:
        if "x" in text.lower():
            raise ExpressionError(column, f"{text} is hexadecimal", "write the number in decimals")
        raise ExpressionError(column, f"{text} has an exponent", "write the number out, such as 0.0000001")
    if len(text.partition(".")[2]) > MAX_DECIMALS:
        raise ExpressionError(column, f"{text} has more than {MAX_DECIMALS} decimals", "round it")
    value = Fraction(text if not text.endswith(".") else text[:-1])
    if not amounts and abs(value) > MAX_NUMBER:
        raise ExpressionError(
            column, f"{text} is beyond {MAX_NUMBER}", "use a larger unit, so that the number is smaller"
        )
    return Number(value, column)


_ESCAPES: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    '"': '"', "'": "'", "\\": "\\", "?": "?", "`": "`",
}  # fmt: skip
_ESCAPE: Final = re.compile(
    r"\\(?:([abfnrtv\"'\\?`])|([0-3][0-7]{2})|[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})"
    r"|U([0-9a-fA-F]{8})|(.|$))",
    re.DOTALL,
)


def _unquote(text: str, column: int) -> str:
    raw = text[0] in "rR"
    body = text[2:-1] if raw else text[1:-1]
    if raw:
        return body

    def replace(found: re.Match[str]) -> str:
        simple, octal, byte, short, long, unknown = found.groups()
        if simple is not None:
            return _ESCAPES[simple]
        if unknown is not None:
            at = column + 1 + found.start()
            raise ExpressionError(at, f"\\{unknown} is not an escape", "write \\\\ for a backslash")
        code = int(octal, 8) if octal else int(byte or short or long, 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise ExpressionError(
                column + 1 + found.start(), f"{found[0]} is no character", "write the character itself"
            )
        return chr(code)

    return _ESCAPE.sub(replace, body)


# Target 1: the matcher ----------------------------------------------------------------------------


def to_condition(expression: Expr) -> Condition:
    """The condition in negation normal form, over fact fields named as in the expression."""
    return _normal(expression, positive=True)


def _normal(expression: Expr, *, positive: bool) -> Condition:
    match expression:
        case Not(operand=operand):
            return _normal(operand, positive=not positive)
        case Junction(op=op, parts=parts):
            normal = [_normal(part, positive=positive) for part in parts]
            return _join("&&" if (op == "&&") == positive else "||", normal)
        case Comparison(op=op, left=left, right=Truth(value=truth)):
            return Compare("==", left.name, truth if (op == "==") == positive else not truth)
        case Comparison(op=op, left=left, right=right):
            value = FieldRef(right.name) if isinstance(right, Name) else right.value
            return Compare(op if positive else _OPPOSITE[op], left.name, value)
        case Membership(subject=subject, choices=choices):
            tests = [Compare("==" if positive else "!=", subject.name, choice.value) for choice in choices]
            return _join("||" if positive else "&&", list(tests))
        case Presence(subject=subject):
            if not subject.type.optional:
                return And(()) if positive else Or(())
            return Known(subject.name, positive)
        case _:
            raise ExpressionError(
                expression.column, "this is an amount, not a condition", "write a comparison"
            )


def _join(op: str, parts: list[Condition]) -> Condition:
    kind = And if op == "&&" else Or
    flat: list[Condition] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, kind) else (part,))
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def bind(condition: Condition, values: Mapping[str, bool | str | int | Fraction]) -> Condition:
    """The condition with the fields in ``values`` replaced by what they hold.

    Parameters keep one value for long spells; a condition bound to them needs fewer fields in each fact.
    Comparisons between two bound fields are decided at once.
    """
    match condition:
        case And(parts=parts) | Or(parts=parts):
            bound = [bind(part, values) for part in parts]
            neutral, decisive = (And(()), Or(())) if isinstance(condition, And) else (Or(()), And(()))
            if decisive in bound:
                return decisive
            return _join(
                "&&" if isinstance(condition, And) else "||", [part for part in bound if part != neutral]
            )
        case Known(field=field, known=known):
            if field not in values:
                return condition
            return And(()) if known else Or(())
        case Compare(op=op, field=field, value=value):
            if isinstance(value, FieldRef) and value.name in values:
                value = _plain(values[value.name])
            if field not in values:
                return Compare(op, field, value)
            if isinstance(value, FieldRef):
                return Compare(_MIRRORED[op], value.name, _plain(values[field]))
            return And(()) if compare(op, _plain(values[field]), value) else Or(())


def _plain(value: bool | str | int | Fraction) -> bool | str | Fraction:
    assert not isinstance(value, float), "numbers are exact"
    return value if isinstance(value, bool | str) else Fraction(value)


def compare(op: CompareOp, one: bool | str | Fraction, other: bool | str | Fraction) -> bool:
    """Decide one comparison between two known values of one kind; only numbers have an order."""
    if op == "==":
        return one == other
    if op == "!=":
        return one != other
    assert isinstance(one, Fraction), "the checker lets only numbers be ordered"
    assert isinstance(other, Fraction), "the checker lets only numbers be ordered"
    match op:
        case "<":
            return one < other
        case "<=":
            return one <= other
        case ">":
            return one > other
        case ">=":
            return one >= other


# Evaluation ---------------------------------------------------------------------------------------


def evaluate(expression: Expr, values: Mapping[str, object]) -> Fraction | str | bool | None:
    """The value of an amount, or whether a condition holds.

    ``values`` gives each name an int or a Fraction, a str or a bool, and ``None`` for an unknown optional
    one. An amount is ``None`` when one of its inputs is unknown, or when it divides by 0. A condition is
    never ``None``.
    """
    match expression:
        case Name(name=name, type=found):
            return _checked(name, found, values[name])
        case Number(value=value) | Text(value=value) | Truth(value=value):
            return value
        case Minus(operand=operand):
            inner = evaluate(operand, values)
            return None if inner is None else -_number(inner)
        case Arithmetic(op=op, left=left, right=right):
            one, other = evaluate(left, values), evaluate(right, values)
            if one is None or other is None:
                return None
            return _calculate(op, _number(one), _number(other))
        case _:
            return _holds(
                to_condition(expression), {node.name: node for node in _name_nodes(expression)}, values
            )


def _calculate(op: str, one: Fraction, other: Fraction) -> Fraction | None:
    match op:
        case "+":
            return one + other
        case "-":
            return one - other
        case "*":
            return one * other
    return None if other == 0 else one / other


def _number(value: Fraction | str | bool) -> Fraction:
    assert isinstance(value, Fraction), "the checker lets only numbers be calculated with"
    return value


def _checked(name: str, found: ExprType, value: object) -> Fraction | str | bool | None:
    if value is None and found.optional:
        return None
    if found.kind == "number" and isinstance(value, int | Fraction) and not isinstance(value, bool):
        return Fraction(value)
    if found.kind == "string" and isinstance(value, str):
        return value
    if found.kind == "bool" and isinstance(value, bool):
        return value
    raise TypeError(f"{name} should be a {found.kind} and is {value!r}")


def _holds(condition: Condition, known: Mapping[str, Name], values: Mapping[str, object]) -> bool:
    def value_of(name: str) -> Fraction | str | bool | None:
        return _checked(name, known[name].type, values[name])

    match condition:
        case And(parts=parts):
            return all(_holds(part, known, values) for part in parts)
        case Or(parts=parts):
            return any(_holds(part, known, values) for part in parts)
        case Known(field=field, known=wanted):
            return (value_of(field) is not None) == wanted
        case Compare(op=op, field=field, value=value):
            one = value_of(field)
            other = value_of(value.name) if isinstance(value, FieldRef) else value
            return one is not None and other is not None and compare(op, one, other)


# Target 2: a function of a fact ---------------------------------------------------------------------

_DECIDE: Final[Mapping[CompareOp, Callable[[Any, Any], bool]]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def decider(condition: Condition) -> Callable[[Mapping[str, Any]], bool]:
    """A function that decides the condition for a fact, as ``evaluate`` does, without interpreting it each time.

    Facts are those of the matcher: a number may also be a quotient ``(top, bottom)`` that need not be reduced.
    """
    match condition:
        case And(parts=parts) | Or(parts=parts):
            tests = [decider(part) for part in parts]
            if len(tests) == 1:
                return tests[0]
            every = all if isinstance(condition, And) else any
            return lambda fact: every([test(fact) for test in tests])
        case Known(field=field, known=known):
            return lambda fact: (fact[field] is not None) == known
        case Compare(op=op, field=field, value=FieldRef(name=other)):
            return _decide_two(_DECIDE[op], field, other)
        case Compare(op=op, field=field, value=Fraction() as value):
            return _decide_number(_DECIDE[op], field, value.numerator, value.denominator)
        case Compare(op=op, field=field, value=value):
            decide = _DECIDE[op]
            return lambda fact: (found := fact[field]) is not None and decide(found, value)


def _decide_number(
    decide: Callable[[Any, Any], bool], field: str, top: int, bottom: int
) -> Callable[[Mapping[str, Any]], bool]:
    def test(fact: Mapping[str, Any]) -> bool:
        found = fact[field]
        if found is None:
            return False
        if found.__class__ is tuple:
            return decide(found[0] * bottom, top * found[1])
        return decide(found * bottom, top)

    return test


def _quotient(number: Any) -> tuple[int, int]:
    return number if number.__class__ is tuple else number.as_integer_ratio()


def _decide_two(
    decide: Callable[[Any, Any], bool], left: str, right: str
) -> Callable[[Mapping[str, Any]], bool]:
    def test(fact: Mapping[str, Any]) -> bool:
        one, other = fact[left], fact[right]
        if one is None or other is None:
            return False
        if one.__class__ is tuple or other.__class__ is tuple:
            (top, bottom), (other_top, other_bottom) = _quotient(one), _quotient(other)
            return decide(top * other_bottom, other_top * bottom)
        return decide(one, other)

    return test


# Target 3: Python source --------------------------------------------------------------------------

_SIMPLE_SOURCE: Final = re.compile(r"[A-Za-z_][\w.]*(?:\[(?:\d+|'\w*'|\"\w*\")\])*|\d+")
_FRACTION_SOURCE: Final = re.compile(r"\(?Fraction\((-?\d+), ?(\d+)\)\)?")


def to_python(expression: Expr, name_to_source: Mapping[str, str]) -> str:
    """A Python expression that decides the condition, or calculates the amount, exactly.

    ``name_to_source`` gives source text for each name; numbers there must be ints or Fractions at run time,
    and an optional name ``None`` when unknown. A comparison with a fraction becomes one of integers: both
    sides are multiplied by its denominator. An amount with decimals needs ``Fraction`` in the namespace; an
    amount that divides is refused, for a quotient in the hot path belongs into a ratio metric.
    """
    for node in _name_nodes(expression):
        if node.name not in name_to_source:
            raise ExpressionError(
                node.column, f"{node.name} is not at hand here", _known_names_of(name_to_source)
            )
    optional = {node.name for node in _name_nodes(expression) if node.type.optional}
    if not isinstance(expression, Name | Number | Text | Truth | Arithmetic | Minus):
        return _condition_source(to_condition(expression), name_to_source, optional)
    source = _amount_source(expression, name_to_source)
    unknown = [f"{_source(name_to_source[name])} is None" for name in sorted(optional)]
    return f"(None if {' or '.join(unknown)} else {source})" if unknown else source


def _known_names_of(name_to_source: Mapping[str, str]) -> str:
    return "use one of " + ", ".join(sorted(name_to_source)) if name_to_source else "use literals only"


def _source(text: str) -> str:
    return text if _SIMPLE_SOURCE.fullmatch(text) else f"({text})"


def _amount_source(expression: Expr, sources: Mapping[str, str]) -> str:
    match expression:
        case Name(name=name):
            return _source(sources[name])
        case Number(value=value):
            return (
                f"({value})"
                if value.denominator == 1
                else f"Fraction({value.numerator}, {value.denominator})"
            )
        case Text(value=text):
            return repr(text)
        case Truth(value=truth):
            return repr(truth)
        case Minus(operand=operand):
            return f"(-{_amount_source(operand, sources)})"
        case Arithmetic(op="/"):
            raise ExpressionError(
                expression.column, "a quotient does not belong here", "declare a ratio metric"
            )
        case Arithmetic(op=op, left=left, right=right):
            return f"({_amount_source(left, sources)} {op} {_amount_source(right, sources)})"
    raise AssertionError("an amount is made of names, literals and arithmetic")


def _condition_source(condition: Condition, sources: Mapping[str, str], optional: set[str]) -> str:
    match condition:
        case And(parts=parts) | Or(parts=parts):
            if not parts:
                return "True" if isinstance(condition, And) else "False"
            exact = _choice_source(condition, sources, optional)
            if exact is not None:
                return exact
            word = " and " if isinstance(condition, And) else " or "
            return "(" + word.join(_condition_source(part, sources, optional) for part in parts) + ")"
        case Known(field=field, known=known):
            return f"{_source(sources[field])} is {'not None' if known else 'None'}"
        case Compare(op=op, field=field, value=value):
            guarded = [
                name
                for name in (field, value.name if isinstance(value, FieldRef) else field)
                if name in optional
            ]
            test = _comparison_source(op, sources[field], value, sources)
            guards = [f"{_source(sources[name])} is not None" for name in dict.fromkeys(guarded)]
            return f"({' and '.join([*guards, test])})" if guards else test


def _choice_source(condition: And | Or, sources: Mapping[str, str], optional: set[str]) -> str | None:
    """``x in ('a', 'b')`` for equalities of one text field, all ored or all negated."""
    wanted = "==" if isinstance(condition, Or) else "!="
    texts: list[str] = []
    fields: set[str] = set()
    for part in condition.parts:
        if not isinstance(part, Compare) or part.op != wanted or not isinstance(part.value, str):
            return None
        texts.append(part.value)
        fields.add(part.field)
    if len(fields) != 1:
        return None
    field = fields.pop()
    source = _source(sources[field])
    test = f"{source} {'in' if wanted == '==' else 'not in'} {tuple(texts)!r}"
    return f"({source} is not None and {test})" if field in optional else test


def _comparison_source(
    op: CompareOp, left: str, value: bool | str | Fraction | FieldRef, sources: Mapping[str, str]
) -> str:
    if isinstance(value, bool):
        wanted = value if op == "==" else not value
        return _source(left) if wanted else f"not {_source(left)}"
    if isinstance(value, str):
        return f"{_source(left)} {op} {value!r}"
    if isinstance(value, FieldRef):
        right = sources[value.name]
        found = _FRACTION_SOURCE.fullmatch(right)
        if found is None:
            return f"{_source(left)} {op} {_source(right)}"
        value = Fraction(int(found[1]), int(found[2]))
    if value.denominator == 1:
        return f"{_source(left)} {op} {value.numerator}"
    return f"{_source(left)} * {value.denominator} {op} {value.numerator}"

"""Loading a rule pack: from a folder of YAML to a checked ``kaohe.core.model.Pack``, or to all of its mistakes.

Theory of operation: the files are read in the order in which they refer to each other (pack, clauses, parameters,
deadlines and metrics, scorecard, rules, coverage). Each part is checked against what was read before it, every mistake
is collected with its file, line and column, and a pack with a mistake is not given out. ``load_pack`` raises the first
mistake; ``check_pack`` gives all of them.

Packs that are loaded together judge the same people on the same clock: they must share zone and currency, and no two
may use one metric's or rule's name, because these names are labels of live figures and decisions. Two versions of one
pack may be loaded together: an event in the log says which of them judges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from kaohe.core.calendars import calendar
from kaohe.core.model import Clause, Deadline, Metric, Pack, Parameter, Value
from kaohe.decisions import Words
from kaohe.errors import PackError, Place, UsageError
from kaohe.packs.appeals import read_appeals
from kaohe.packs.attendance import AttendanceReader
from kaohe.packs.charged_once import check_charged_once
from kaohe.packs.holidays import holidays_file, work_calendars
from kaohe.packs.metrics import MetricReader
from kaohe.packs.names import TIME_UNITS
from kaohe.packs.pay import read_pay, unknown_rules
from kaohe.packs.rules import RuleReader, shown
from kaohe.packs.scorecards import CardReader
from kaohe.packs.source import (
    NO_TEXTS,
    RULES_VARIABLE,
    Fields,
    Node,
    Problems,
    Reader,
    boolean,
    choice,
    day,
    duration,
    kebab,
    month,
    name,
    nearest,
    number,
    read_yaml,
    rules_dir,
    scalar,
    several,
    words,
)
from kaohe.packs.workflow import read_workflow

FILES = (
    "pack.yaml", "clauses.yaml", "parameters.yaml", "attendance.yaml", "metrics.yaml", "rules.yaml", "scorecard.yaml",
    "pay.yaml", "appeals.yaml", "workflow.yaml",
)  # fmt: skip
OPTIONAL_FILES = ("attendance.yaml", "scorecard.yaml", "pay.yaml", "appeals.yaml", "workflow.yaml")
_PART_FILES = {"metrics": "metrics.yaml", "deadlines": "metrics.yaml", "rules": "rules.yaml"}
UNITS = ("ratio", *TIME_UNITS, "points", "score", "count", "days", "minor", "month", "text")
TEXT_UNITS = ("month", "text")
CLAUSE_KINDS = ("M", "R", "S", "P", "W", "D")
NEEDED_CASES = ("holds", "at_limit", "beyond", "steps", "no_data", "late", "corrected", "appealed")
"""What the stories of every clause show, unless the clause says why a case has no meaning for it."""
CASES = (*NEEDED_CASES, "month_end")
"""What the stories of a clause can show, beside ``other``."""
STEP_MS = 300_000
GRACE_MAX_MS = 30 * 86_400_000
"""Closed periods are kept for 40 days; a longer grace would outlive them."""
EVALUATE_MAX_MS = 86_400_000
_NO_WORDS = Words("", "")
_NO_VALUES: tuple[tuple[date, Value], ...] = ()
_VERSION = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}(\.[0-9]{1,4})?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_CLAUSE_ID = re.compile(r"[A-Z]{2,6}-[0-9]{2,3}")


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How a clause is covered: by metrics, rules and deadlines, scorecard, attendance or pay terms.

    ``other`` is the pack that carries the clause out in place of this one, so that nothing is counted in both.
    """

    clause: str
    metrics: tuple[str, ...]
    rules: tuple[str, ...]
    deadlines: tuple[str, ...]
    scorecard: bool
    attendance: bool
    workflow: bool
    pay: bool
    other: str = ""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A pack with what only people look at: its coverage and the warnings."""

    pack: Pack
    coverage: dict[str, Coverage]
    warnings: tuple[PackError, ...]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What ``pack.yaml`` says."""

    name: str
    version: str
    title: Words
    zone: str
    currency: str
    in_force_from: date
    grace_ms: int
    evaluate_ms: int


def pack_names(folder: Path) -> list[str]:
    """The names of all packs in a folder, sorted. UsageError when there is no such folder."""
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder of packs {str(folder)!r}; name one by {RULES_VARIABLE} or --rules"
        )
    return sorted(path.parent.name for path in folder.glob("*/pack.yaml"))


def find_pack(wanted: str, folder: Path) -> Path:
    """The folder of a pack that is given by name or by path. UsageError when there is none."""
    direct = Path(wanted)
    if (direct / "pack.yaml").is_file():
        return direct
    if (folder / wanted / "pack.yaml").is_file():
        return folder / wanted
    if direct.is_dir():
        raise UsageError(f"the folder {wanted!r} holds no pack: it has no pack.yaml")
    raise UsageError(
        f"there is no pack {wanted!r} in {str(folder)!r}; {nearest(wanted, pack_names(folder), 'pack')}"
    )


def load_pack(folder: Path) -> Pack:
    """The checked pack in ``folder``. Raises its first PackError."""
    return load(folder).pack


def load(folder: Path) -> Loaded:
    """The checked pack in ``folder`` with its coverage and warnings. Raises its first PackError."""
    loaded, problems = read_pack(folder)
    if problems.errors:
        raise problems.errors[0]
    assert loaded is not None
    return loaded


def check_pack(folder: Path) -> list[PackError]:
    """Every mistake of the pack in ``folder``, in the order of files; empty when it is right."""
    return read_pack(folder)[1].errors


def load_packs(wanted: Sequence[str], folder: Path | None = None) -> tuple[Pack, ...]:
    """The packs of these names (or paths), checked alone and together. Raises PackError or UsageError."""
    base = folder or rules_dir()
    packs = tuple(load_pack(find_pack(one, base)) for one in wanted)
    for error in check_together(packs):
        raise error
    return packs


def check_together(packs: Iterable[Pack]) -> list[PackError]:
    """What keeps packs that are right alone from being loaded together."""
    found: list[PackError] = []
    known: list[Pack] = []
    for pack in packs:
        place = Place(str(Path(pack.folder) / "pack.yaml"))
        for other in known:
            if pack.key == other.key:
                wrong = f"the pack {pack.name} is loaded twice"
                right = "name it once, or give two versions of it two version numbers"
                found.append(PackError(place, "name", wrong, right))
                continue
            for key in ("zone", "currency"):
                mine, theirs = getattr(pack, key), getattr(other, key)
                if mine != theirs:
                    wrong = f"{pack.name} has {key} {mine}, but {other.name}, loaded with it, has {theirs}"
                    found.append(
                        PackError(place, key, wrong, f"give both the same {key}, or load them apart")
                    )
            if pack.name == other.name:
                continue  # of two versions only one judges, so they may share every name and settle the same pay
            found += _same_pay(pack, other)
            found += _shared_names(pack, other)
        known.append(pack)
    strange = [error for pack in known for error in _points_of_strange_rules(pack, known)]
    return [*found, *strange, *_combined(known), *check_charged_once(known)]


def _same_pay(pack: Pack, other: Pack) -> list[PackError]:
    """What two packs both claim of a person's pay: each part of it comes from one pack alone."""
    mine, theirs = pack.pay, other.pay
    if mine is None or theirs is None:
        return []
    both = f"{pack.name} and {other.name}, loaded together, both"
    found = []
    if mine.pays and theirs.pays:
        right = "let one of them settle pay: a person has one pay base and one pay guard"
        found.append(PackError(mine.place, "base", f"{both} have a pay base", right))
    if mine.bonus_clause and theirs.bonus_clause:
        right = "let one of them do so, or load them apart"
        found.append(PackError(mine.place, "bonus", f"{both} give a bonus by grade", right))
    for whose in sorted({*mine.packs} & {*theirs.packs}):
        right = "let one of them say what these entries are worth, by its `packs`"
        found.append(
            PackError(mine.place, "money.packs", f"{both} make money of the entries of {whose}", right)
        )
    return found


def _points_of_strange_rules(pack: Pack, together: Iterable[Pack]) -> list[PackError]:
    """Lines for rules that there are not, where every pack whose entries are money is there to be looked at."""
    terms = pack.pay
    if terms is None or not terms.money_clause or not set(terms.packs) <= {one.name for one in together}:
        return []
    rules = {rule.id for one in together if one.name in terms.packs for rule in one.rules}
    return [
        PackError(
            terms.place, "money.point_value", f"there is a line for {wrong!r}", nearest(wrong, rules, "rule")
        )
        for wrong in unknown_rules(pack.parameters[terms.point_value], rules)
    ] + [
        PackError(terms.place, f"money.{kind}", f"there is no rule {wrong!r}", nearest(wrong, rules, "rule"))
        for wrong, kind in sorted(terms.components.items())
        if wrong not in rules
    ]


def _combined(packs: list[Pack]) -> list[PackError]:
    """What keeps the scores of packs from being combined: one clause that two of them charge."""
    found: list[PackError] = []
    for pack in packs:
        combined = pack.results.combined
        if combined is None or pack.scorecard is None:
            continue
        shares = pack.parameters[combined.shares].values[-1][1]
        assert isinstance(shares, dict)
        place = pack.scorecard.place
        charging: dict[str, str] = {}
        for other in packs:
            if other.name not in shares:
                continue
            clauses = {rule.clause for rule in other.rules if any(effect.amount for effect in rule.effects)}
            for clause in sorted(clauses):
                first = charging.setdefault(clause, other.name)
                if first != other.name:
                    wrong = f"{first} and {other.name} both give points for the clause {clause}"
                    right = "let one of them do so: nothing is charged twice for one clause"
                    found.append(PackError(place, "combined", wrong, right))
    return found


def _shared_names(pack: Pack, other: Pack) -> list[PackError]:
    found = []
    for metric_name in pack.metrics.keys() & other.metrics.keys():
        metric = pack.metrics[metric_name]
        wrong = f"{pack.name} and {other.name}, loaded together, both declare the metric {metric_name}"
        found.append(PackError(metric.place, f"metrics.{metric_name}", wrong, "rename one of them"))
    theirs = {rule.id for rule in other.rules}
    for rule in pack.rules:
        if rule.id in theirs:
            wrong = f"{pack.name} and {other.name}, loaded together, both have the rule {rule.id}"
            found.append(PackError(rule.place, "id", wrong, "rename one of them"))
    return found


# --- one pack ---------------------------------------------------------------------------------------------------------


def read_pack(folder: Path) -> tuple[Loaded | None, Problems]:
    """The pack in ``folder`` (None when it has a mistake) and everything found wrong with it."""
    problems = Problems()
    try:
        loaded = _read(folder, problems)
    except PackError as error:
        problems.add(error)
        loaded = None
    return (None if problems.errors else loaded), problems


def _read(folder: Path, problems: Problems) -> Loaded | None:
    roots = _read_files(folder, problems)
    head = _head(roots["pack.yaml"], folder, problems)
    clauses = _clauses(roots["clauses.yaml"], problems)
    parameters = _parameters(roots["parameters.yaml"], problems, clauses, head.in_force_from)
    base = MetricReader(head.name, problems, parameters, clauses)
    declared = roots["parameters.yaml"].entries if roots["parameters.yaml"] is not None else {}
    base.broken_parameters = frozenset(declared.keys() - parameters.keys())
    base.calendars = work_calendars(holidays_file(folder), problems)
    attendance = AttendanceReader(base).read(roots["attendance.yaml"])
    base.has_attendance = roots["attendance.yaml"] is not None
    metrics, broken = _metrics(roots["metrics.yaml"], base)
    reader = RuleReader(base, metrics, broken)
    reader.read_grades(roots["scorecard.yaml"])
    cards = CardReader(reader)
    read = cards.read(roots["scorecard.yaml"])
    rules = reader.rules(roots["rules.yaml"])
    cards.check_entries(rules)
    pay = read_pay(roots["pay.yaml"], base, head.name, reader.grades, reader.has_scorecard, reader.nodes)
    appeals = read_appeals(roots["appeals.yaml"], base, rules, all_read=len(rules) == len(reader.nodes))
    workflow = read_workflow(roots["workflow.yaml"], base)
    coverage = _coverage(roots, reader, folder)
    if problems.errors:
        return None
    pack = Pack(
        name=head.name, version=head.version, title=head.title, zone=head.zone, currency=head.currency,
        in_force_from=head.in_force_from, grace_ms=head.grace_ms, evaluate_ms=head.evaluate_ms, clauses=clauses,
        parameters=parameters, metrics=metrics, deadlines=base.deadlines, rules=rules,
        scorecard=read.scorecard, scopes=reader.scopes, attendance=attendance, pay=pay, appeals=appeals,
        workflow=workflow, folder=str(folder), cards=read.cards, results=read.results,
    )  # fmt: skip
    return Loaded(pack=pack, coverage=coverage, warnings=tuple(problems.warnings))


def _read_files(folder: Path, problems: Problems) -> dict[str, Node | None]:
    if not (folder / "pack.yaml").is_file():
        raise PackError(
            Place(str(folder)), "", "the folder holds no pack.yaml", "name a folder of a rule pack"
        )
    for path in sorted(folder.glob("*.y*ml")):
        if path.name not in FILES:
            problems.add(
                PackError(
                    Place(str(path)),
                    "",
                    f"a pack has no file {path.name!r}",
                    nearest(path.name, FILES, "file"),
                )
            )
    roots: dict[str, Node | None] = {}
    for file in FILES:
        path = folder / file
        if not path.is_file():
            if file not in OPTIONAL_FILES:
                problems.add(PackError(Place(str(path)), "", f"the pack lacks {file}", "add the file"))
            roots[file] = None
            continue
        try:
            roots[file] = read_yaml(path, problems)
        except PackError as error:
            problems.add(error)
            roots[file] = None
        if roots[file] is None and file == "pack.yaml" and not problems.errors:
            problems.add(
                PackError(Place(str(path)), "", "the file is empty", "write name, version, title, zone, ...")
            )
    return roots


def _head(root: Node | None, folder: Path, problems: Problems) -> Head:
    if root is None:
        raise problems.errors[0]
    known = ("name", "version", "title", "zone", "currency", "in_force_from", "grace", "evaluate_every")
    fields = Fields(root, problems, known, "a pack")

    def own_name(node: Node) -> str:
        text = kebab(node)
        if text != folder.resolve().name:
            node.fail(
                f"the pack {text!r} lies in the folder {folder.resolve().name!r}", "give both the same name"
            )
        return text

    def every(node: Node) -> int:
        value_ms = duration(STEP_MS, EVALUATE_MAX_MS)(node)
        if value_ms % STEP_MS:
            node.fail(f"{node.text} is not a multiple of 5m", "write 5m, 15m, 1h, ...")
        return value_ms

    return Head(
        name=fields.need("name", own_name, ""),
        version=fields.need("version", _matching(_VERSION, "a version", '"1.0"'), ""),
        title=fields.need("title", words, _NO_WORDS),
        zone=fields.need("zone", time_zone, ""),
        currency=fields.need("currency", _matching(_CURRENCY, "a currency", "CNY (ISO 4217)"), ""),
        in_force_from=fields.need("in_force_from", day, date.max),
        grace_ms=fields.need("grace", duration(0, GRACE_MAX_MS), 0),
        evaluate_ms=fields.need("evaluate_every", every, 0),
    )


def _matching(pattern: re.Pattern[str], what: str, right: str) -> Reader[str]:
    def read(node: Node) -> str:
        text = scalar(node)
        if not pattern.fullmatch(text):
            node.fail(f"{text!r} is not {what}", f"write it as {right}")
        return text

    return read


def time_zone(node: Node) -> str:
    """A time zone of the IANA data base."""
    text = scalar(node)
    try:
        calendar(text)
    except UsageError:
        node.fail(f"there is no time zone {text!r}", "name one of the IANA data base, such as Asia/Shanghai")
    return text


def _mapping(root: Node | None, what: str, problems: Problems) -> list[tuple[Node, Node]]:
    if root is None:
        return []
    if root.kind != "mapping":
        problems.add(
            PackError(root.place, root.path, f"{what} are a mapping, not {root.shown}", "write `name:` lines")
        )
        return []
    return list(root.entries.values())


def _clauses(root: Node | None, problems: Problems) -> dict[str, Clause]:
    found: dict[str, Clause] = {}
    for key, node in _mapping(root, "clauses", problems):
        if not _CLAUSE_ID.fullmatch(key.text):
            problems.add(
                PackError(key.place, key.path, f"{key.text!r} is not a clause id", "write it as LS-01")
            )
        fields = Fields(node, problems, ("kinds", "title", "text", "covered_by", "without"), "a clause")
        clause = Clause(
            id=key.text,
            kinds=fields.need("kinds", several(choice(CLAUSE_KINDS, "kind of clause")), NO_TEXTS),
            title=fields.need("title", words, _NO_WORDS),
            text=fields.need("text", words, _NO_WORDS),
            place=key.place,
            without=fields.take("without", _without, {}),
        )
        found[key.text] = clause
    return found


def _without(node: Node) -> dict[str, str]:
    """The cases that have no meaning for a clause, each with the reason in words."""
    if node.kind != "mapping":
        node.fail(f"cases without meaning are a mapping, not {node.shown}", "write {late: Why it has none.}")
    found: dict[str, str] = {}
    for key, (key_node, reason) in node.entries.items():
        case = choice(NEEDED_CASES, "case that every clause needs")(key_node)
        if reason.kind == "scalar" and not reason.text.strip():
            reason.fail(f"nothing says why {key!r} has no meaning", "give the reason in a sentence")
        found[case] = scalar(reason)
    return found


# --- parameters -------------------------------------------------------------------------------------------------------


def _parameters(
    root: Node | None, problems: Problems, clauses: dict[str, Clause], in_force_from: date
) -> dict[str, Parameter]:
    base = MetricReader("", problems, {}, clauses)
    found: dict[str, Parameter] = {}
    for key, node in _mapping(root, "parameters", problems):
        parameter = _parameter(key, node, base, in_force_from)
        if parameter is not None:
            found[key.text] = parameter
    return found


def _parameter(key: Node, node: Node, base: MetricReader, in_force_from: date) -> Parameter | None:
    problems = base.problems
    known = ("clause", "title", "unit", "min", "max", "choices", "values")
    fields = Fields(node, problems, known, "a parameter")
    own_name = problems.attempt(name, key)
    clause = fields.need("clause", base.clause, "")
    title = fields.need("title", words, _NO_WORDS)
    unit = fields.need("unit", choice(UNITS, "unit"), "")
    low = fields.take("min", number, None)
    high = fields.take("max", number, None)
    choices = fields.take("choices", several(scalar), NO_TEXTS)
    if unit in TEXT_UNITS:
        for bound in ("min", "max"):
            if bound in fields:
                fields.wrong(bound, f"a {unit} has no {bound}", "leave it out")
        if unit == "text" and not choices:
            fields.need("choices", several(scalar), NO_TEXTS)
    elif unit:
        for bound in ("min", "max"):
            fields.need(bound, number, Fraction(0))
        if choices:
            fields.wrong("choices", "a number has bounds, not choices", "leave `choices` out")
        if low is not None and high is not None and low > high:
            fields.wrong("min", f"min {shown(low)} is above max {shown(high)}", "swap them")
    values = fields.need(
        "values", lambda found: _values(found, problems, unit, low, high, choices), _NO_VALUES
    )
    if values and values[0][0] > in_force_from:
        first = fields.at("values")
        first = next(iter(first.entries.values()))[0] if first.entries else first
        fields.problems.add(PackError(
            first.place, first.path,
            f"the first value holds from {values[0][0]}, but the pack is in force from {in_force_from}",
            f"add a value for {in_force_from} or earlier",
        ))  # fmt: skip
    kinds = {_kind(value) for _, value in values}
    if len(kinds) > 1:
        fields.wrong(
            "values", "the parameter is a table on one day and a number on another", "keep to one of them"
        )
    if not fields.ok() or not own_name or not values:
        return None
    return Parameter(
        name=own_name, clause=clause, title=title, kind=kinds.pop(), unit=unit, minimum=low, maximum=high,
        choices=choices, values=values, place=key.place,
    )  # fmt: skip


def _kind(value: Value) -> Literal["number", "text", "table"]:
    return "table" if isinstance(value, dict) else "text" if isinstance(value, str) else "number"


def _values(
    node: Node,
    problems: Problems,
    unit: str,
    low: Fraction | None,
    high: Fraction | None,
    choices: tuple[str, ...],
) -> tuple[tuple[date, Value], ...]:
    if node.kind != "mapping" or not node.entries:
        node.fail(
            f"values are days with what holds from then on, not {node.shown}", "write {2026-01-01: 0.02}"
        )
    found: list[tuple[date, Value]] = []
    before = len(problems.errors)

    def read(value_node: Node) -> Value:
        return _value(value_node, unit, low, high, choices)

    for key, value_node in node.entries.values():
        since = problems.attempt(day, key)
        if since is not None and found and since <= found[-1][0]:
            problems.add(
                PackError(
                    key.place,
                    key.path,
                    f"{since} stands after {found[-1][0]}",
                    "write the days in rising order",
                )
            )
        value = problems.attempt(read, value_node)
        if since is not None and value is not None:
            found.append((since, value))
    if len(problems.errors) > before:
        raise problems.errors[-1]
    return tuple(found)


def _value(
    node: Node, unit: str, low: Fraction | None, high: Fraction | None, choices: tuple[str, ...]
) -> Value:
    if unit == "month":
        return month(node)
    if unit == "text":
        return choice(choices, "choice")(node)
    if node.kind == "mapping":
        if not node.entries:
            node.fail("the table is empty", 'write {urgent: 15, "*": 30}')
        return {word: _bounded(entry, low, high) for word, (_, entry) in node.entries.items()}
    return _bounded(node, low, high)


def _bounded(node: Node, low: Fraction | None, high: Fraction | None) -> Fraction:
    value = number(node)
    if (low is not None and value < low) or (high is not None and value > high):
        node.fail(
            f"{node.text} is outside {shown(low)} to {shown(high)}", "choose a value inside min and max"
        )
    return value


# --- metrics and coverage ---------------------------------------------------------------------------------------------


def _metrics(root: Node | None, base: MetricReader) -> tuple[dict[str, Metric], set[str]]:
    """The metrics that are right, and the names of those that are not."""
    if root is None:
        return {}, set()
    fields = Fields(root, base.problems, ("metrics", "deadlines"), "metrics.yaml")
    deadlines = (
        _mapping(fields.node.get("deadlines"), "deadlines", base.problems) if "deadlines" in fields else []
    )
    base.deadline_names = {key.text for key, _ in deadlines}
    for key, node in deadlines:
        deadline: Deadline | None = base.deadline(key, node)
        if deadline is not None:
            base.deadlines[deadline.name] = deadline
    found: dict[str, Metric] = {}
    broken: set[str] = set()
    for key, node in _mapping(fields.node.get("metrics"), "metrics", base.problems):
        if key.text in ("p", "event", "deadline", "roster"):
            base.problems.add(
                PackError(
                    key.place,
                    key.path,
                    f"{key.text!r} means something else in conditions",
                    "choose another name",
                )
            )
        metric = base.metric(key, node)
        if metric is None:
            broken.add(key.text)
        else:
            found[metric.name] = metric
    return found, broken


def _coverage(roots: Mapping[str, Node | None], reader: RuleReader, folder: Path) -> dict[str, Coverage]:
    has_scorecard = roots["scorecard.yaml"] is not None
    unread = {part for part, file in _PART_FILES.items() if roots[file] is None}
    problems = reader.problems
    found: dict[str, Coverage] = {}
    names = {
        "metrics": (set(reader.metrics) | reader.broken, "metric"),
        "rules": (set(reader.nodes), "rule"),
        "deadlines": (reader.base.deadline_names, "deadline"),
    }
    for key, node in _mapping(roots["clauses.yaml"], "clauses", problems):
        body = node.get("covered_by")
        if body is None:
            if node.kind == "mapping":
                problems.add(
                    PackError(
                        node.place,
                        node.path,
                        "a clause lacks 'covered_by'",
                        "add `covered_by: {metrics: [...], rules: [...]}`",
                    )
                )
            continue
        fields = Fields(
            body,
            problems,
            ("metrics", "rules", "deadlines", "scorecard", "attendance", "pay", "workflow", "pack"),
            "a clause's cover",
        )
        parts = {
            part: fields.take(
                part, several(scalar if part in unread else choice(sorted(known), what)), NO_TEXTS
            )
            for part, (known, what) in names.items()
        }
        scorecard = fields.take("scorecard", boolean, False)
        if scorecard and not has_scorecard:
            fields.wrong("scorecard", "the pack has no scorecard", "add scorecard.yaml, or leave it out")
        attendance = fields.take("attendance", boolean, False)
        if attendance and roots["attendance.yaml"] is None:
            fields.wrong(
                "attendance", "the pack does not judge attendance", "add attendance.yaml, or leave it out"
            )
        pay = fields.take("pay", boolean, False)
        if pay and roots["pay.yaml"] is None:
            fields.wrong("pay", "the pack has no pay terms", "add pay.yaml, or leave it out")
        workflow = fields.take("workflow", boolean, False)
        if workflow and roots["workflow.yaml"] is None:
            fields.wrong("workflow", "the pack has no steps", "add workflow.yaml, or leave it out")
        other = fields.take("pack", partial(_other_pack, clause=key.text, folder=folder), "")
        covered = scorecard or attendance or pay or workflow or any(parts.values())
        if other and covered:
            fields.wrong(
                "pack", f"{key.text} is carried out twice, here and by {other}", "leave one of them out"
            )
        if fields.ok() and not covered and not other:
            problems.add(
                PackError(
                    body.place, body.path, "nothing covers the clause", "name a metric, rule or deadline"
                )
            )
        found[key.text] = Coverage(
            clause=key.text, scorecard=scorecard, attendance=attendance, pay=pay, workflow=workflow,
            metrics=parts["metrics"], rules=parts["rules"], deadlines=parts["deadlines"],
            other=other,
        )  # fmt: skip
    _check_listed(reader, found)
    return found


def _other_pack(node: Node, clause: str, folder: Path) -> str:
    """Another pack, in the folder beside this one, that has the clause too."""
    name = kebab(node)
    beside = folder.resolve().parent / name / "clauses.yaml"
    if name == folder.resolve().name:
        node.fail("the clause is carried out by this pack itself", "name what covers it")
    if not beside.is_file():
        node.fail(f"there is no pack {name!r} beside this one", "name a pack of the same folder")
    root = read_yaml(beside, Problems())
    if root is None or root.get(clause) is None:
        node.fail(f"the pack {name} has no clause {clause}", "name the pack that carries it out")
    return name


def _check_listed(reader: RuleReader, coverage: dict[str, Coverage]) -> None:
    """Every rule stands in the cover of its own clause, so that nothing is charged that no clause shows."""
    for rule_id, node in reader.nodes.items():
        clause = node.get("clause")
        listed = coverage.get(clause.text) if clause is not None else None
        if listed is not None and rule_id not in listed.rules:
            assert clause is not None
            reader.problems.add(
                PackError(
                    clause.place,
                    clause.path,
                    f"the clause {clause.text} does not list the rule {rule_id!r}",
                    "add it to the clause's covered_by in clauses.yaml",
                )
            )


def loaded_packs(wanted: Sequence[str], folder: Path) -> tuple[Loaded, ...]:
    """The named packs (all of ``folder`` when none is named) with their coverage. Raises the first PackError."""
    chosen = list(wanted) or pack_names(folder)
    if not chosen:
        raise UsageError(f"the folder {str(folder)!r} holds no pack")
    return tuple(load(find_pack(one, folder)) for one in chosen)


__all__ = [
    "CASES", "NEEDED_CASES", "Coverage", "Loaded",
    "check_pack", "check_together", "find_pack", "load", "load_pack", "load_packs",
    "loaded_packs", "pack_names", "read_pack", "rules_dir",
]  # fmt: skip

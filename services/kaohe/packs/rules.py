"""From ``rules.yaml`` to ``kaohe.core.model.Rule``.

Theory of operation: a rule has one trigger (a judged period, an event, a deadline, or live watching), a condition and
effects. The trigger and the levels decide which names the condition may use: its scope. Everything that could fail
while judging is refused here instead: names, types, units, a trigger that an effect cannot have, points of the wrong
sign, a limit that can never be reached, and whatever durable-rules cannot carry (``kaohe.core.matcher``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from fractions import Fraction
from typing import Literal, cast

import msgspec

from kaohe.core.expressions import Expr, ExprType, FieldRef, Name, Number, names, to_condition, type_of
from kaohe.core.facts import AROUND_OPENING
from kaohe.core.matcher import check_limits
from kaohe.core.model import (
    CALENDAR_WINDOWS,
    Amount,
    Deadline,
    Effect,
    Metric,
    Parameter,
    Rule,
    Term,
)
from kaohe.decisions import Level, Severity, Words
from kaohe.errors import PackError
from kaohe.packs.metrics import LEVELS, MetricReader, check_table_words
from kaohe.packs.names import (
    ROSTER_SCOPE,
    amount,
    comparisons,
    condition,
    event_fields,
    event_scope,
    metric_names,
    millis,
    opening_names,
    parameter_scope,
)
from kaohe.packs.reported import check_reported, read_reported
from kaohe.packs.source import (
    NO_TEXTS,
    ConsequenceError,
    Fields,
    Node,
    Problems,
    boolean,
    choice,
    duration,
    kebab,
    name,
    nearest,
    scalar,
    several,
    show_ms,
    words,
)

TRIGGERS = ("judged", "on", "deadline", "attendance", "watch")
EFFECTS = ("deduct", "award", "points_by", "alert", "grade", "proposal", "task", "waive", "reverse")
PROPOSALS = (
    "observation", "probation", "transfer", "demotion", "promotion", "dismissal", "pay_rise", "pay_cut", "penalty",
)  # fmt: skip
SEVERITIES = ("info", "medium", "high", "critical")
RULE_OUTCOMES = ("standing", "met", "missed", "late", "cancelled")
HOLD_MAX_MS = 86_400_000
"""The longest hold time of an alert: what must hold for longer than a day is a period's judgement."""
HOLD_STEP_MS = {"agent": 300_000, "group": 60_000}
"""How often live rules are judged; a hold time is a multiple of it."""
TASK_MAX_MS = 366 * 86_400_000
LOOK_BACK_MAX_MS = 92 * 86_400_000
"""The longest time of a deadline whose rules see the days around its opening: twice as many are kept per agent."""
RULES_MAX = 1000
EFFECTS_MAX = 8
_RULE_KEYS = (
    "id", "clause", "title", "level", "judged", "at_close_only", "on", "deadline", "attendance", "watch", "when",
    "then", "explanation", "incident", "evidence", "report",
)  # fmt: skip
_NO_WORDS = Words("", "")
_NO_EFFECTS: tuple[Effect, ...] = ()
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
FRAME_NAMES = ("subject", "period", "points")
"""What an explanation may name beside facts and parameters."""


class Trigger(msgspec.Struct):
    """When a rule is judged: ``kind`` and ``on`` as in the model, and the event whose fields it sees."""

    kind: Literal["event", "deadline", "attendance", "period", "watch"]
    on: str
    event: str = ""


class RuleReader:
    """Reads the rules of one pack."""

    def __init__(self, base: MetricReader, metrics: Mapping[str, Metric], broken: Iterable[str]) -> None:
        self.base = base
        self.pack = base.pack
        self.problems: Problems = base.problems
        self.parameters: Mapping[str, Parameter] = base.parameters
        self.deadlines: Mapping[str, Deadline] = base.deadlines
        self.metrics = metrics
        self.broken = frozenset(broken)
        self.parameter_types = parameter_scope(self.parameters)
        self.scopes: dict[str, dict[str, ExprType]] = {}
        self.nodes: dict[str, Node] = {}
        self.grades: tuple[str, ...] = ()
        self.has_scorecard = False

    # --- rules

    def rules(self, root: Node | None) -> tuple[Rule, ...]:
        """All rules of ``rules.yaml`` that are right."""
        if root is None:
            return ()
        if root.kind != "list":
            self.problems.add(
                PackError(root.place, root.path, f"rules are a list, not {root.shown}", "write `- id: ...`")
            )
            return ()
        if len(root.items) > RULES_MAX:
            self.problems.add(
                PackError(
                    root.place,
                    "",
                    f"{len(root.items)} rules are too many",
                    f"split the pack at {RULES_MAX} rules",
                )
            )
            return ()
        found: list[Rule] = []
        for node in root.items:
            rule = self.rule(node)
            if rule is not None:
                found.append(rule)
        self._check_references(found)
        self._check_together(root, found)
        return tuple(found)

    def rule(self, node: Node) -> Rule | None:
        """One rule; None when it is wrong (the mistakes are noted)."""
        fields = Fields(node, self.problems, _RULE_KEYS, "a rule")
        own_id = fields.need("id", kebab, "")
        if own_id in self.nodes:
            first = self.nodes[own_id].place
            fields.wrong(
                "id",
                f"the rule id {own_id!r} is used twice",
                f"choose another; the first is in line {first.line}",
            )
        elif own_id:
            self.nodes[own_id] = node
        clause = fields.need("clause", self.base.clause, "")
        title = fields.need("title", words, _NO_WORDS)
        levels = fields.need("level", several(choice(LEVELS, "level")), NO_TEXTS)
        trigger = self._trigger(fields)
        at_close_only = fields.take("at_close_only", boolean, False)
        incident = fields.take("incident", name, "")
        evidence = fields.take("evidence", lambda found: self.base.evidence(found, levels), None)
        if trigger is None or not levels or not own_id:
            return None
        self._check_trigger(fields, trigger, at_close_only, incident)
        if trigger.kind == "attendance" and "queue" in levels:
            fields.wrong("level", "an agent's attendance belongs to no queue", "leave the level queue out")
        scope = self.scope(trigger, levels)
        when = fields.need("when", lambda found: self._condition(found, scope, trigger, levels), None)
        effects = fields.need("then", lambda found: self._effects(found, trigger, levels, scope), _NO_EFFECTS)
        explanation = fields.take("explanation", lambda found: self._explanation(found, scope), _NO_WORDS)
        reported = fields.take(
            "report",
            lambda found: read_reported(found, self.problems, scope, self.base.parameter("count")),
            None,
        )
        if reported is not None:
            period = trigger.kind == "period"
            check_reported(fields, effects, period=period, at_close_only=at_close_only)
        if when is None or not effects or not fields.ok():
            return None
        self.scopes[own_id] = scope
        rule = Rule(
            id=own_id, pack=self.pack, clause=clause, title=title, explanation=explanation,
            levels=cast("tuple[Level, ...]", levels), trigger=trigger.kind, on=trigger.on,
            provisional=trigger.kind == "period" and not at_close_only, condition=when, incident=incident,
            effects=effects, evidence=evidence, place=node.place, report=reported,
        )  # fmt: skip
        self._check_carried(fields, rule, scope)
        return rule if fields.ok() else None

    def _trigger(self, fields: Fields) -> Trigger | None:
        said = [key for key in TRIGGERS if key in fields]
        if len(said) != 1:
            if fields.node.kind == "mapping":
                what = "no trigger" if not said else f"{len(said)} triggers ({', '.join(said)})"
                fields.wrong(
                    said[1] if said else "id",
                    f"the rule has {what}",
                    f"give it exactly one of {', '.join(TRIGGERS)}",
                )
            return None
        key = said[0]
        if key == "judged":
            window = fields.need("judged", choice(CALENDAR_WINDOWS, "period"), "")
            return Trigger("period", window) if window else None
        if key == "watch":
            return (
                Trigger("watch", "")
                if fields.need("watch", choice(("live",), "way of watching"), "")
                else None
            )
        if key == "on":
            event = fields.need("on", self._single_event, "")
            return Trigger("event", event, event) if event else None
        if key == "attendance":
            outcome = fields.need("attendance", self.base.attendance_outcome, "")
            return Trigger("attendance", outcome, f"attendance/{outcome}") if outcome else None
        return fields.need("deadline", self._deadline_trigger, None)

    def _single_event(self, node: Node) -> str:
        if node.kind == "list":
            node.fail(
                "a rule is triggered by one event type; rules do not join several events",
                "write one rule for each, or count the events in a metric and judge that",
            )
        return self.base.event(node)

    def _deadline_trigger(self, node: Node) -> Trigger | None:
        fields = Fields(node, self.problems, ("name", "outcome"), "a deadline trigger")
        found = fields.need("name", self.base.deadline_name, "")
        outcome = fields.need("outcome", choice(RULE_OUTCOMES, "outcome"), "")
        self.base.check_standing(fields, found, outcome)
        if not fields.ok():
            raise self.problems.errors[-1]
        deadline = self.deadlines.get(found)
        return Trigger("deadline", f"{found}/{outcome}", deadline.opens) if deadline else None

    def _check_trigger(self, fields: Fields, trigger: Trigger, at_close_only: bool, incident: str) -> None:
        if "evidence" in fields and trigger.event:
            fields.wrong(
                "evidence", "a rule about a single thing rests on the events of this thing", "leave it out"
            )
        if at_close_only and trigger.kind != "period":
            fields.wrong("at_close_only", "only a judged period has a close", "leave it out")
        if not incident:
            return
        if not trigger.event:
            fields.wrong(
                "incident",
                "a rule about a period or a live state has no event to take an incident from",
                "leave it out",
            )
        elif trigger.kind == "attendance":
            fields.wrong(
                "incident", "what attendance is about is known: the shift, leave or month", "leave it out"
            )
        elif incident not in (known := event_fields(trigger.event)) or known[incident].type.kind != "string":
            texts = [one for one, kind in known.items() if kind.type.kind == "string"]
            fields.wrong(
                "incident",
                f"{trigger.event} has no text field {incident!r}",
                nearest(incident, texts, "field"),
            )

    def scope(self, trigger: Trigger, levels: tuple[str, ...]) -> dict[str, ExprType]:
        """The names that a rule of this trigger and these levels may use."""
        scope = dict(self.parameter_types)
        scope.update(ROSTER_SCOPE)
        if trigger.event:
            scope.update(event_scope([trigger.event]))
        if trigger.kind == "deadline":
            scope["deadline.late_ms"] = ExprType("number", "ms")
            if levels == ("agent",) and self._looks_back(trigger):
                for metric in self.metrics.values():
                    if "agent" in metric.levels:
                        scope.update(opening_names(metric))
        for metric in self.metrics.values():
            if set(levels) <= set(metric.levels) and (not trigger.event or levels == ("agent",)):
                windows = (trigger.on,) if trigger.kind == "period" else metric.windows
                scope.update(metric_names(metric, windows))
        return scope

    def _looks_back(self, trigger: Trigger) -> bool:
        """Whether rules about this deadline see the days around its opening: its time is bounded, and not too long."""
        deadline = self.deadlines[trigger.on.partition("/")[0]]
        if deadline.due_field or not deadline.within:
            return False
        within = self.parameters[deadline.within]
        longest = within.maximum or Fraction(0)
        return longest * millis(within.unit) <= LOOK_BACK_MAX_MS

    def _condition(
        self, node: Node, scope: Mapping[str, ExprType], trigger: Trigger, levels: tuple[str, ...]
    ) -> Expr | None:
        if node.text.strip() == "true" and not trigger.event:
            node.fail("a period or a live state is not judged by `true`", "compare a metric with a parameter")
        try:
            found = condition(node, scope)
        except PackError as error:
            raise self._why_unknown(error, trigger, levels) from None
        self._check_reachable(node, found)
        return found

    def _why_unknown(self, error: PackError, trigger: Trigger, levels: tuple[str, ...]) -> PackError:
        """A better reason where a name exists and only this rule cannot use it."""
        match = re.search(r"there is no ([\w.]+) here", error.wrong)
        if not match:
            return error
        head, _, rest = match[1].partition(".")
        if self._is_broken(match[1]):
            return ConsequenceError(error.place, error.path, error.wrong, error.right)
        wrong, right = error.wrong, error.right
        window = rest.removesuffix(".base")
        if head in self.metrics:
            metric = self.metrics[head]
            lacking = [level for level in levels if level not in metric.levels]
            if trigger.event and levels != ("agent",):
                wrong = f"metrics are not at hand when an event is judged at level {', '.join(levels)}"
                right = "use event fields and parameters only, or judge a period or watch live"
            elif lacking:
                wrong = f"the metric {head} is not declared at level {', '.join(lacking)}"
                right = f"add the level in metrics.yaml, or use one of {', '.join(metric.levels)}"
            elif rest.partition(".")[0] in AROUND_OPENING:
                wrong = (
                    f"{match[1]} is the metric around the opening of a deadline, which this rule does not see"
                )
                right = (
                    f"give {head} the window day, and the rule level agent and a deadline without `due` whose time is "
                    f"at most {show_ms(LOOK_BACK_MAX_MS)}"
                )
            elif metric_names(metric, metric.windows).get(match[1]) is not None:
                wrong = f"a rule judged by {trigger.on} sees the window {trigger.on}, not {window}"
                right = f"use {head}.{trigger.on}, or give the rule `watch: live`"
            else:
                wrong = (
                    f"the metric {head} has no window {window!r}"
                    if rest
                    else f"{head} is read through a window"
                )
                usable = [one.partition(".")[2] for one in metric_names(metric, metric.windows)]
                right = f"write {head}. and one of {', '.join(one for one in usable if '.' not in one)}"
        elif head == "p" and rest in self.parameters:
            wrong, right = (
                f"p.{rest} is a table",
                "use it in `points_by:` or `within:`, where a word looks it up",
            )
        elif head == "event" and not trigger.event:
            wrong, right = "there is no event here", "give the rule `on: <event type>`, or use a metric"
        elif head in ("agent", "team", "queue", "site", "first", "second", "other", "events"):
            wrong = f"{match[1]} would join another subject or event; a condition sees one subject"
            right = "declare a metric that counts what you need, and compare that"
        return PackError(error.place, error.path, wrong, right)

    def _is_broken(self, found: str) -> bool:
        """Whether a name stands for a metric or parameter in which a mistake was noted."""
        head, _, rest = found.partition(".")
        return head in self.broken or (head == "p" and rest in self.base.broken_parameters)

    def _check_reachable(self, node: Node, found: Expr) -> None:
        """Refuse a comparison that a metric's own bounds decide for ever."""
        for one in comparisons(to_condition(found)):
            metric = self.metrics.get(one.field.partition(".")[0])
            if metric is None or one.field.endswith((".base", ".vs_previous", ".vs_baseline", ".vs_before")):
                continue
            low, high = bounds_of(metric)
            if isinstance(one.value, FieldRef):
                self._check_bounds(node, one.field, one.value.name, low, high)
            elif isinstance(one.value, Fraction):
                never = (
                    (one.op in (">", "==") and high is not None and one.value > high)
                    or (one.op == ">" and high is not None and one.value >= high)
                    or (one.op in ("<", "==") and one.value < low)
                    or (one.op == "<" and one.value <= low)
                )
                if never:
                    top = shown(high) if high is not None else "any number"
                    node.fail(
                        f"{one.field} {one.op} {shown(one.value)} can never be true",
                        f"{one.field} lies between {shown(low)} and {top}",
                    )

    def _check_bounds(self, node: Node, field: str, other: str, low: Fraction, high: Fraction | None) -> None:
        parameter = self.parameters.get(other[2:]) if other.startswith("p.") else None
        if parameter is None or high is None:
            return
        if parameter.minimum is None or parameter.maximum is None:
            return
        if parameter.minimum < low or parameter.maximum > high:
            node.fail(
                f"{field} lies between {shown(low)} and {shown(high)}, but {other} may be set from "
                f"{shown(parameter.minimum)} to {shown(parameter.maximum)}",
                f"bound {other} by `min: {shown(low)}` and `max: {shown(high)}`",
            )

    def _explanation(self, node: Node, scope: Mapping[str, ExprType]) -> Words:
        found = words(node)
        for key in ("en", "zh"):
            text_node = node.entries[key][1]
            for match in _PLACEHOLDER.finditer(text_node.text):
                if self._is_broken(match[1]):
                    text_node.follows()
                if match[1] not in scope and match[1] not in FRAME_NAMES:
                    text_node.fail(
                        f"the explanation names {{{match[1]}}}, which this rule does not know",
                        nearest(match[1], [*scope, *FRAME_NAMES], "name"),
                    )
        return found

    # --- effects

    def _effects(
        self, node: Node, trigger: Trigger, levels: tuple[str, ...], scope: Mapping[str, ExprType]
    ) -> tuple[Effect, ...]:
        if node.kind != "list" or not node.items:
            node.fail(
                f"`then` is a list of effects, not {node.shown if node.kind != 'list' else 'an empty list'}",
                "write `- deduct: {points: p.points}`",
            )
        if len(node.items) > EFFECTS_MAX:
            node.fail(f"{len(node.items)} effects are too many", f"write at most {EFFECTS_MAX}")
        found: list[Effect] = []
        before = len(self.problems.errors)
        for item in node.items:
            try:
                found.append(self._effect(item, trigger, levels, scope))
            except PackError as error:
                self.problems.add(error)
        if len(self.problems.errors) > before:
            raise self.problems.errors[-1]
        if trigger.kind == "watch" and len(node.items) > 1:
            node.items[1].fail(
                "a live rule gives one alert, which stands until its condition clears it",
                "give the second one a rule of its own",
            )
        return tuple(found)

    def _effect(
        self, node: Node, trigger: Trigger, levels: tuple[str, ...], scope: Mapping[str, ExprType]
    ) -> Effect:
        if node.kind != "mapping" or len(node.entries) != 1:
            node.fail(
                "an effect is one word with its details", f"write one of {', '.join(EFFECTS)} and a colon"
            )
        key = next(iter(node.entries))
        if key not in EFFECTS:
            node.fail(f"there is no effect {key!r}", nearest(key, EFFECTS, "effect"))
        body = node.entries[key][1]
        if trigger.kind == "watch" and key != "alert":
            body.fail(
                f"a live rule cannot give `{key}`: what it saw may be gone a minute later",
                "judge a period or an event, or write an alert (its owner and response say what is to be done)",
            )
        if key in ("deduct", "award"):
            return Effect(
                kind=cast("Literal['deduct']", key), amount=self._amount(body, trigger, levels, scope)
            )
        if key == "points_by":
            return Effect(kind="award", amount=self._table(body, trigger))
        if key == "alert":
            return self._alert(body, trigger, levels, scope)
        if key == "grade":
            return self._grade(body, levels)
        if key == "proposal":
            if levels != ("agent",):
                body.fail("a proposal is about a person", "give the rule `level: [agent]`")
            return Effect(kind="proposal", proposal=choice(PROPOSALS, "proposal")(body))
        if key == "task":
            return self._task(body)
        if key == "reverse":
            return _reverse(body, trigger)
        return self._waive(body, trigger)

    def _amount(
        self, node: Node, trigger: Trigger, levels: tuple[str, ...], scope: Mapping[str, ExprType]
    ) -> Amount:
        known = ("points", "per", "over", "under", "of", "at_most")
        fields = Fields(node, self.problems, known, "points")

        def read(found: Node) -> Expr:
            return self._number(found, trigger, levels, scope)

        points = fields.need("points", lambda found: self._points(read(found), found), None)
        per, of = fields.take("per", read, None), fields.take("of", read, None)
        over, under = fields.take("over", read, None), fields.take("under", read, None)
        at_most = fields.take("at_most", lambda found: self._points(read(found), found), None)
        stepped = [key for key in known[1:] if key in fields]
        if stepped and fields.ok():
            for key in ("per", "of"):
                if key not in fields:
                    fields.wrong(
                        stepped[0],
                        f"points by steps lack {key!r}",
                        f"add `{key}:` or leave {stepped[0]!r} out",
                    )
            if ("over" in fields) == ("under" in fields):
                fields.wrong(
                    stepped[0],
                    "points by steps need exactly one of `over` and `under`",
                    "write `over: p.limit` for what is too much, `under: p.target` for what falls short",
                )
        if not fields.ok():
            raise self.problems.errors[-1]
        limit = over if over is not None else under
        if per is not None and of is not None and limit is not None:
            self._check_steps(fields, per, of, limit)
        self._check_cap(fields, points, at_most)
        if not fields.ok():
            raise self.problems.errors[-1]
        return Amount(
            points=points, per=per, of=of, limit=limit, at_most=at_most,
            direction="" if limit is None else "over" if over is not None else "under",
        )  # fmt: skip

    def _number(
        self, node: Node, trigger: Trigger, levels: tuple[str, ...], scope: Mapping[str, ExprType]
    ) -> Expr:
        try:
            found = amount(node, scope)
        except PackError as error:
            raise self._why_unknown(error, trigger, levels) from None
        if type_of(found).kind != "number":
            node.fail(f"{node.shown} is not a number", "name a number or a metric")
        return found

    def _points(self, found: Expr, node: Node) -> Expr:
        unit = type_of(found).unit
        if unit not in ("", "points"):
            node.fail(f"{node.text} is in {unit}, not in points", "name a parameter with `unit: points`")
        right = "write the points positive; deduct or award gives the sign"
        if isinstance(found, Number) and found.value < 0:
            node.fail(f"{node.text} points are negative", right)
        parameter = self._parameter_of(found)
        if parameter is not None and parameter.minimum is not None and parameter.minimum < 0:
            node.fail(
                f"p.{parameter.name} may be negative (min {shown(parameter.minimum)})",
                f"{right}; set `min: 0`",
            )
        return found

    def _parameter_of(self, found: Expr | None) -> Parameter | None:
        if isinstance(found, Name) and found.name.startswith("p."):
            return self.parameters.get(found.name[2:])
        return None

    def _check_steps(self, fields: Fields, per: Expr, of: Expr, limit: Expr) -> None:
        units = {type_of(one).unit for one in (per, of, limit)} - {""}
        if len(units) > 1:
            fields.wrong(
                "of",
                f"the step, the value and its limit are in {' and '.join(sorted(units))}",
                "name three figures of one unit",
            )
            return
        parameter = self._parameter_of(per)
        if isinstance(per, Number) and per.value <= 0:
            fields.wrong("per", f"a step of {shown(per.value)} is no step", "write a positive number")
        elif parameter is not None and parameter.minimum is not None and parameter.minimum <= 0:
            fields.wrong(
                "per",
                f"the step p.{parameter.name} may be 0 (min {shown(parameter.minimum)})",
                "give the parameter a `min:` above 0",
            )

    def _check_cap(self, fields: Fields, points: Expr | None, at_most: Expr | None) -> None:
        """A cap below one step could never let a step count."""
        parameters = [
            found for found in (self._parameter_of(points), self._parameter_of(at_most)) if found is not None
        ]
        for day in sorted({since for found in parameters for since, _ in found.values}) or [date.min]:
            each, cap = self._value_at(points, day), self._value_at(at_most, day)
            if each is not None and cap is not None and cap < each:
                fields.wrong(
                    "at_most",
                    f"the cap of {shown(cap)} is below one step of {shown(each)} points",
                    "raise the cap or lower the points",
                )
                return

    def _value_at(self, expr: Expr | None, day: date) -> Fraction | None:
        """What a number or a plain parameter is on a day; None for anything else."""
        if isinstance(expr, Number):
            return expr.value
        parameter = self._parameter_of(expr)
        if parameter is None or day < parameter.values[0][0]:
            return None
        value = parameter.value_at(day)
        return value if isinstance(value, Fraction) else None

    def _table(self, node: Node, trigger: Trigger) -> Amount:
        fields = Fields(node, self.problems, ("table", "by"), "points by a table")
        table = fields.need("table", self.base.parameter("points", kinds=("table",)), "")
        by = fields.need("by", scalar, "")
        if not fields.ok():
            raise self.problems.errors[-1]
        known = event_fields(trigger.event) if trigger.event else {}
        field = by.removeprefix("event.")
        if not trigger.event:
            fields.wrong("by", "only an event has a word to look up", "give the rule `on: <event type>`")
        elif not by.startswith("event.") or field not in known or known[field].type.kind != "string":
            texts = [f"event.{one}" for one, kind in known.items() if kind.type.kind == "string"]
            fields.wrong("by", f"{by!r} is not a text field of {trigger.event}", nearest(by, texts, "field"))
        else:
            check_table_words(fields, "by", self.parameters[table], known[field].type.values)
        if not fields.ok():
            raise self.problems.errors[-1]
        return Amount(table=table, by=by)

    def _alert(
        self, node: Node, trigger: Trigger, levels: tuple[str, ...], scope: Mapping[str, ExprType]
    ) -> Effect:
        if trigger.on in ("alert.raised", "alert.ended"):
            node.fail(
                "an alert about an alert would never end", "give it a deadline that opens on alert.raised"
            )
        fields = Fields(node, self.problems, ("for", "clear", "severity", "owner", "response"), "an alert")
        hold_ms = fields.take("for", duration(0, HOLD_MAX_MS), 0)
        clear = fields.take("clear", lambda found: self._condition(found, scope, trigger, levels), None)
        severity = fields.need("severity", choice(SEVERITIES, "severity"), "medium")
        owner = fields.need("owner", name, "")
        response = fields.need("response", words, _NO_WORDS)
        step_ms = HOLD_STEP_MS["agent" if "agent" in levels else "group"]
        if trigger.kind == "watch":
            if "clear" not in fields:
                fields.wrong("severity", "a live alert lacks the condition that ends it", "add `clear:`")
            if hold_ms % step_ms:
                fields.wrong(
                    "for",
                    f"{fields.at('for').text} does not fall on a judgement",
                    f"live rules of this level are judged every {step_ms // 60_000}m; use a multiple of it",
                )
        elif hold_ms:
            fields.wrong("for", "only a live alert waits", "leave `for` out, or give the rule `watch: live`")
        elif "clear" in fields:
            fields.wrong(
                "clear",
                "only a live alert clears by a condition",
                "leave `clear` out, or give the rule `watch: live`",
            )
        if not fields.ok():
            raise self.problems.errors[-1]
        return Effect(kind="alert", hold_ms=hold_ms, clear=clear, severity=cast("Severity", severity), owner=owner,
                      response=response)  # fmt: skip

    def _grade(self, node: Node, levels: tuple[str, ...]) -> Effect:
        fields = Fields(node, self.problems, ("at_most",), "a grade")
        grade = fields.need("at_most", scalar, "")
        if not self.grades and self.has_scorecard:
            node.follows()
        if not self.grades:
            fields.wrong("at_most", "the pack has no scorecard, so there are no grades", "add scorecard.yaml")
        elif grade and grade not in self.grades:
            fields.wrong("at_most", f"there is no grade {grade!r}", f"write one of {', '.join(self.grades)}")
        if levels != ("agent",):
            fields.wrong("at_most", "grades are given to people", "give the rule `level: [agent]`")
        if not fields.ok():
            raise self.problems.errors[-1]
        return Effect(kind="grade", grade_at_most=grade)

    def _task(self, node: Node) -> Effect:
        fields = Fields(node, self.problems, ("title", "owner", "due"), "a task")
        title = fields.need("title", words, _NO_WORDS)
        owner = fields.need("owner", name, "")
        due_ms = fields.need("due", duration(60_000, TASK_MAX_MS), 0)
        if not fields.ok():
            raise self.problems.errors[-1]
        return Effect(kind="task", task=title, owner=owner, due_ms=due_ms)

    def _waive(self, node: Node, trigger: Trigger) -> Effect:
        fields = Fields(node, self.problems, ("rules", "incident"), "a waiver")
        rules = fields.need("rules", several(kebab), NO_TEXTS)
        by = fields.need("incident", scalar, "")
        known = event_fields(trigger.event) if trigger.event else {}
        field = by.removeprefix("event.")
        if not trigger.event:
            fields.wrong("incident", "only an event can waive", "give the rule `on: exemption.granted`")
        elif by and (not by.startswith("event.") or field not in known or known[field].type.kind != "string"):
            texts = [f"event.{one}" for one, kind in known.items() if kind.type.kind == "string"]
            fields.wrong(
                "incident", f"{by!r} is not a text field of {trigger.event}", nearest(by, texts, "field")
            )
        if not fields.ok():
            raise self.problems.errors[-1]
        return Effect(kind="waive", waives=rules, incident=by)

    # --- rules together

    def _check_references(self, rules: list[Rule]) -> None:
        for rule in rules:
            for effect in rule.effects:
                for wanted in effect.waives:
                    if wanted not in self.nodes:
                        node = self.nodes[rule.id]
                        self.problems.add(PackError(
                            node.place, f"{node.path}.then", f"the waived rule {wanted!r} does not exist",
                            nearest(wanted, self.nodes, "rule"),
                        ))  # fmt: skip
        for one in rules:
            for other in rules:
                if one.id < other.id and self._charges_twice(one, other):
                    self.problems.warn(
                        self.nodes[other.id], f"{one.id} and {other.id} both give points for clause {one.clause} "
                        "from the same cause", "see that nobody is charged twice, or merge them",
                    )  # fmt: skip

    def _charges_twice(self, one: Rule, other: Rule) -> bool:
        if one.clause != other.clause or not set(one.levels) & set(other.levels):
            return False
        signs = [{effect.kind for effect in rule.effects if effect.amount} for rule in (one, other)]
        if not signs[0] & signs[1]:
            return False  # what one rule deducts and another awards is not counted twice
        if one.trigger in ("event", "deadline", "attendance"):
            return (one.trigger, one.on) == (other.trigger, other.on)
        return bool(self._metrics_of(one) & self._metrics_of(other))

    def _metrics_of(self, rule: Rule) -> set[str]:
        return {found.partition(".")[0] for found in names_of(rule)} & set(self.metrics)

    def _check_carried(self, fields: Fields, rule: Rule, scope: Mapping[str, ExprType]) -> None:
        """What durable-rules cannot carry: said here, rule by rule, before anything runs."""
        types = {found: scope[found] for found in names(rule.condition)}
        for problem in check_limits([(rule.id, to_condition(rule.condition))], types):
            wrong, _, right = problem.removeprefix(f"rule {rule.id}: ").partition("; ")
            fields.wrong("when", wrong, right or "make the condition smaller")

    def _check_together(self, root: Node, rules: list[Rule]) -> None:
        """What durable-rules cannot carry although it could carry each rule alone."""
        groups: dict[tuple[str, str, str], list[Rule]] = {}
        for rule in rules:
            for level in rule.levels:
                groups.setdefault((level, rule.trigger, rule.on), []).append(rule)
        for (at, trigger, on), group in groups.items():
            types = {found: self.scopes[rule.id][found] for rule in group for found in names(rule.condition)}
            for problem in check_limits([(rule.id, to_condition(rule.condition)) for rule in group], types):
                wrong, _, right = problem.partition("; ")
                judged = " ".join(part for part in (trigger, on) if part)
                self.problems.add(
                    PackError(
                        root.place,
                        root.path,
                        f"at level {at}, {judged}: {wrong}",
                        right or "use fewer rules",
                    )
                )

    # --- the grades

    def read_grades(self, node: Node | None) -> None:
        """Learn the grades' names before the rules are read, for their ``grade`` effects."""
        self.has_scorecard = node is not None
        bands = node.get("bands") if node is not None else None
        parameter = self.parameters.get(bands.text[2:]) if bands is not None else None
        if parameter is not None and parameter.kind == "table":
            table = parameter.values[-1][1]
            assert isinstance(table, dict)
            self.grades = tuple(table)


def _reverse(node: Node, trigger: Trigger) -> Effect:
    """``reverse: appealed``: take back all that an appeal was upheld against."""
    choice(("appealed",), "thing to reverse")(node)
    if trigger.on != "appeal.upheld":
        node.fail("only an appeal that was upheld takes something back", "give the rule `on: appeal.upheld`")
    return Effect(kind="reverse")


def names_of(rule: Rule) -> set[str]:
    """Every name that a rule's condition, amounts and clear conditions look at."""
    found = set(names(rule.condition))
    for effect in rule.effects:
        if effect.clear is not None:
            found |= names(effect.clear)
        if effect.amount is not None:
            parts = (
                effect.amount.points,
                effect.amount.per,
                effect.amount.of,
                effect.amount.limit,
                effect.amount.at_most,
            )
            for part in parts:
                if part is not None:
                    found |= names(part)
            if effect.amount.table:
                found |= {f"p.{effect.amount.table}", effect.amount.by}
    if rule.report is not None:
        found.update(rule.report.figures)
        found.update(f"p.{name}" for name in (rule.report.places,) if name)
    return found


def bounds_of(metric: Metric) -> tuple[Fraction, Fraction | None]:
    """Between which numbers a metric's value lies (no upper bound: None)."""
    if any(term.weight < 0 for term in (*metric.numerator, *metric.denominator)):
        return Fraction(-(10**12)), None
    if metric.unit == "score":
        return Fraction(0), Fraction(100)
    below = metric.denominator
    inside = all(any(_within(term, other) for other in below) for term in metric.numerator)
    return Fraction(0), Fraction(1) if metric.unit == "ratio" and below and inside else None


def _within(term: Term, other: Term) -> bool:
    """Whether everything ``term`` counts is counted by ``other`` too, so that their ratio is at most 1."""
    return other in (term, msgspec.structs.replace(term, where=None))


def shown(value: Fraction | None) -> str:
    """A number as a person writes it."""
    if value is None:
        return "nothing"
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.9f}".rstrip("0").rstrip(".")

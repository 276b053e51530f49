"""Stories: a few events, told in a file of a pack, and the decisions they must give.

Theory of operation: a story runs through the real engine in process (``kaohe.core.replay.Replay``), with its pack
alone, or with those beside it that it names by ``with``. Its events are delivered *in the order in which they stand*:
an event whose time lies before that of an earlier one is late, as it would be in a log. The log's clock moves to the
second of each event that is ahead of it, and to ``until`` at the end. ``repeat`` makes a series: the event's id and
every ``…_id`` field get ``-1``, ``-2``, …, and ``{n}`` in any text is the counter. Agents that ``roster`` names are
enrolled before the first event. The sites that ``zones`` names keep their own clock, as the settings of a deployment
say it; the moments of the story stay on the clock of its pack.

An appeal names what it is against by its id, which nobody can know before the engine has made it. ``against`` and
``reversals`` may therefore say ``@RULE``, ``@RULE INCIDENT`` (the newest entry of the agent by that rule, one with
points before one without) or ``@grade WINDOW PERIOD``; the id is put in when the event is delivered.

What must come is the whole truth about the story's clause: ``expect`` lists the newest revision of every decision of
the clause's rules, ``expect_alerts`` every beginning and end of an alert of the clause's rules, ``expect_grades`` the
newest grade of every subject and period of the scorecard's window and of each window that it names. What is not
listed must not come; a list that is left out is not compared, except ``expect`` and ``expect_rejects`` (events that are
refused), which then are empty. ``expect_metrics`` gives single figures, ``expect_lines`` single lines of scorecards,
``expect_nothing_from`` rules (of any clause) that must be silent.

With pay terms, ``settle`` names months that are settled at the end of the story, each as if it were the first one.
``expect_pay`` then lists every line of everybody's statement (also those that come to 0), ``expect_statements`` figures
of single statements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from kaohe.core.calendars import to_ms
from kaohe.core.engine import Zones
from kaohe.core.model import Pack
from kaohe.core.pay import (
    Charge,
    PayFact,
    charge_of,
    fact_of,
    final_grade,
    labels_of_month,
    people_of,
    settle,
    terms_in_force,
)
from kaohe.core.replay import Replay
from kaohe.decisions import Alert, Decision, Grade, PayLine, Reject, Settlement
from kaohe.errors import KaoheError, PackError
from kaohe.events import DERIVED, PAYLOADS, Envelope, make
from kaohe.packs.load import CASES, check_together, load_pack, pack_names, time_zone
from kaohe.packs.rules import shown
from kaohe.packs.source import (
    NO_TEXTS,
    Fields,
    Node,
    Problems,
    boolean,
    choice,
    duration,
    kebab,
    local_moment,
    month,
    nearest,
    number,
    read_yaml,
    scalar,
    several,
    whole,
)

STORY_CASES = (*CASES, "other")
REPEAT_MAX = 5_000
EVENTS_MAX = 20_000
"""Events of one story, after repetition."""
SOURCE = "story"
GRADE_WORD = "grade"
"""After ``@``: a grade is meant, and no entry of a rule."""
TOLD = tuple(tag for tag in PAYLOADS if tag not in DERIVED)
"""Events that a story can tell: those that the engine itself gives follow from them."""
_STORY_KEYS = (
    "name", "clause", "case", "with", "zones", "roster", "events", "until", "expect", "expect_alerts", "expect_grades",
    "expect_lines", "expect_metrics", "expect_rejects", "expect_nothing_from", "settle", "expect_pay",
    "expect_statements",
)  # fmt: skip
_DECISION_KEYS = (
    "rule", "subject", "level", "period", "points", "status", "kind", "revision", "incident", "proposal", "owner",
    "adjusts_period", "evidence", "evidence_count",
)  # fmt: skip
_ALERT_KEYS = (
    "rule",
    "subject",
    "level",
    "state",
    "severity",
    "incident",
    "at",
    "since",
    "owner",
    "evidence",
)
_LINE_KEYS = ("subject", "level", "window", "period", "item", "share", "contribution", "value", "word")
_REJECT_KEYS = ("code", "reason")
_GRADE_KEYS = (
    "subject",
    "pack",
    "level",
    "window",
    "period",
    "score",
    "grade",
    "previous_grade",
    "status",
    "revision",
)
_METRIC_KEYS = ("metric", "level", "subject", "window", "period", "value", "numerator", "denominator")
_PAY_KEYS = ("subject", "period", "component", "amount_minor", "effective_period", "clause", "rule")
_STATEMENT_KEYS = (
    "subject", "period", "grade", "gross_minor", "base_minor", "fixed_minor", "total_minor", "pay_minor", "held_minor",
    "deductions_minor", "missing",
)  # fmt: skip
_MONEY = tuple(key for key in (*_PAY_KEYS, *_STATEMENT_KEYS) if key.endswith("_minor"))
_NUMBERS = (
    *_MONEY, "missing", "points", "score", "revision", "value", "numerator", "denominator", "share", "contribution",
    "evidence_count",
)  # fmt: skip
_MOMENTS = ("at", "since")

Wanted = Mapping[str, Any]
"""One expectation: the keys that were written, with texts, exact numbers, moments (ms) or None."""

_NO_ROSTER: dict[str, Any] = {}
_NO_ZONES: dict[str, str] = {}
_NO_EVENTS: list[Envelope] = []
_NOTHING: tuple[Wanted, ...] = ()
_ALONE: tuple[Pack, ...] = ()


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """One story as read: its events in order of delivery, and what must come."""

    pack: str
    name: str
    clause: str
    case: str
    events: tuple[Envelope, ...]
    until_ms: int
    expect: tuple[Wanted, ...]
    expect_alerts: tuple[Wanted, ...] | None
    expect_grades: tuple[Wanted, ...] | None
    expect_metrics: tuple[Wanted, ...]
    expect_rejects: tuple[Wanted, ...]
    expect_lines: tuple[Wanted, ...]
    silent: tuple[str, ...]
    settled: tuple[str, ...]
    expect_pay: tuple[Wanted, ...]
    expect_statements: tuple[Wanted, ...]
    place: str
    beside: tuple[Pack, ...] = ()
    zones: dict[str, str] = {}


class StoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a story ended: ``failures`` are sentences, empty when everything came as expected."""

    pack: str
    story: str
    clause: str
    case: str
    place: str
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything came as expected."""
        return not self.failures


def paying(pack: Pack, beside: Sequence[Pack]) -> Pack | None:
    """The pack whose terms pay, among a pack and those beside it; None for none."""
    return next((one for one in (pack, *beside) if one.pay is not None and one.pay.pays), None)


def rule_clauses(pack: Pack) -> dict[str, str]:
    """Everything that makes decisions, with its clause: the rules, what is made of the grades, and the steps."""
    results = pack.results
    made = [one for one in (results.calibration, results.ranking) if one is not None]
    steps = pack.workflow.steps if pack.workflow is not None else ()
    found = {rule.id: rule.clause for rule in (*pack.rules, *results.tallies, *made)}
    return found | {f"step-{step.id}": step.clause for step in steps}


# --- reading ----------------------------------------------------------------------------------------------------------


def load_stories(pack: Pack, problems: Problems | None = None) -> tuple[Story, ...]:
    """All stories of a pack, in the order of files. Raises the first PackError unless ``problems`` collects them."""
    collected = problems if problems is not None else Problems()
    found: list[Story] = []
    known: set[tuple[str, str]] = set()
    beside: dict[str, Pack] = {}
    for path in sorted((Path(pack.folder) / "tests").glob("*.yaml")):
        try:
            root = read_yaml(path, collected)
        except PackError as error:
            collected.add(error)
            continue
        for node in _stories(root, collected):
            story = _Teller(pack, collected, beside).story(node)
            if story is None:
                continue
            if (story.clause, story.name) in known:
                wrong = f"two stories of {story.clause} are named {story.name!r}"
                collected.add(PackError(node.place, node.path, wrong, "rename one of them"))
            known.add((story.clause, story.name))
            found.append(story)
    if problems is None and collected.errors:
        raise collected.errors[0]
    return tuple(found)


def _stories(root: Node | None, problems: Problems) -> list[Node]:
    if root is None:
        return []
    if root.kind != "list":
        problems.add(
            PackError(root.place, root.path, f"stories are a list, not {root.shown}", "write `- name: ...`")
        )
        return []
    return root.items


class _Teller:
    """Reads one story of one pack."""

    def __init__(self, pack: Pack, problems: Problems, known: dict[str, Pack]) -> None:
        self.pack = pack
        self.problems = problems
        self.zone = ZoneInfo(pack.zone)
        self.rules = rule_clauses(pack)
        self.count = 0
        self.beside: dict[str, Pack] = known

    def story(self, node: Node) -> Story | None:
        fields = Fields(node, self.problems, _STORY_KEYS, "a story")
        name = fields.need("name", scalar, "")
        clause = fields.need("clause", choice(sorted(self.pack.clauses), "clause"), "")
        case = fields.need("case", choice(STORY_CASES, "case"), "other")
        beside = fields.take("with", self._packs, _ALONE)
        zones = fields.take("zones", self._zones, _NO_ZONES)
        roster = fields.take("roster", self._roster, _NO_ROSTER)
        events = fields.need("events", self._events, _NO_EVENTS)
        until_ms = fields.need("until", lambda found: to_ms(self._moment(found)), 0)
        expect = fields.take("expect", self._list(_DECISION_KEYS, "an expected decision"), _NOTHING)
        alerts = fields.take("expect_alerts", self._some(_ALERT_KEYS, "an expected alert"), None)
        grades = fields.take("expect_grades", self._some(_GRADE_KEYS, "an expected grade"), None)
        metrics = fields.take("expect_metrics", self._list(_METRIC_KEYS, "an expected figure"), _NOTHING)
        lines = fields.take("expect_lines", self._list(_LINE_KEYS, "an expected line"), _NOTHING)
        rejects = fields.take("expect_rejects", self._list(_REJECT_KEYS, "an expected reject"), _NOTHING)
        silent = fields.take("expect_nothing_from", several(choice(sorted(self.rules), "rule")), NO_TEXTS)
        settled = fields.take("settle", several(month), NO_TEXTS)
        pay = fields.take("expect_pay", self._list(_PAY_KEYS, "an expected line of pay"), _NOTHING)
        statements = fields.take(
            "expect_statements", self._list(_STATEMENT_KEYS, "an expected statement"), _NOTHING
        )
        if settled and paying(self.pack, beside) is None:
            wrong = "the pack has no pay terms, so nothing is settled"
            fields.wrong("settle", wrong, "add pay.yaml with a base, or name a pack that has one by `with`")
        for key in ("expect_pay", "expect_statements"):
            if key in fields and not settled:
                fields.wrong(key, "no month is settled", "name the months by `settle:`")
        if not fields.ok():
            return None
        if case in self.pack.clauses[clause].without:
            fields.wrong("case", f"clauses.yaml says that {case!r} has no meaning for {clause}",
                         "tell another case, or take it out of `without` there")  # fmt: skip
        self._check(fields, clause, case, events, until_ms)
        if not fields.ok():
            return None
        return Story(
            pack=self.pack.name, name=name, clause=clause, case=case,
            events=(*self._enrol(roster, events), *events), until_ms=until_ms, expect=expect, expect_alerts=alerts,
            expect_grades=grades, expect_rejects=rejects, expect_lines=lines, expect_metrics=metrics,
            silent=silent, settled=settled, expect_pay=pay, expect_statements=statements, place=str(node.place),
            beside=beside, zones=zones,
        )  # fmt: skip

    def _check(self, fields: Fields, clause: str, case: str, events: list[Envelope], until_ms: int) -> None:
        latest = 0
        late = False
        for event in events:
            moment_ms = to_ms(event.time)
            late = late or moment_ms < latest
            latest = max(latest, moment_ms)
        if until_ms < latest:
            fields.wrong("until", "the story ends before its last event", "end it after the last event")
        if case == "late" and not late:
            fields.wrong("case", "no event of this story is late: each stands after those before it",
                         "put an event with an earlier time after a later one")  # fmt: skip
        for key in ("expect", "expect_alerts"):
            for item in _items(fields.node.get(key)):
                rule = item.get("rule")
                if rule is not None and self.rules.get(rule.text, clause) != clause:
                    self.problems.add(PackError(
                        rule.place, rule.path, f"the rule {rule.text} belongs to {self.rules[rule.text]}",
                        f"list decisions of {clause}'s rules only, or name the other clause",
                    ))  # fmt: skip

    @staticmethod
    def _zones(node: Node) -> dict[str, str]:
        if node.kind != "mapping":
            node.fail(f"zones are a mapping, not {node.shown}", "write {berlin: Europe/Berlin}")
        return {site: time_zone(zone) for site, (_, zone) in node.entries.items()}

    def _packs(self, node: Node) -> tuple[Pack, ...]:
        """The packs beside this one that the story names; each is read once."""
        folder = Path(self.pack.folder).parent
        for name in several(kebab)(node):
            if name == self.pack.name:
                node.fail(f"{name} is the pack of the story itself", "leave it out")
            if not (folder / name / "pack.yaml").is_file():
                node.fail(
                    f"there is no pack {name} beside {self.pack.name}",
                    nearest(name, pack_names(folder), "pack"),
                )
            if name not in self.beside:
                self.beside[name] = load_pack(folder / name)
        found = tuple(self.beside[name] for name in several(kebab)(node))
        for error in check_together((self.pack, *found)):
            node.fail(f"they cannot be loaded together: {error.wrong}", error.right)
        return found

    def _moment(self, node: Node) -> datetime:
        return local_moment(node).replace(tzinfo=self.zone)

    def _roster(self, node: Node) -> dict[str, Any]:
        if node.kind != "mapping":
            node.fail(f"a roster is a mapping, not {node.shown}", "write {a-17: {team: t-1, site: s-1}}")
        found: dict[str, Any] = {}
        for agent, (_, body) in node.entries.items():
            found[agent] = self._payload(body, "roster.changed", {"agent": agent}, ())
        return found

    @staticmethod
    def _enrol(roster: Mapping[str, Any], events: Sequence[Envelope]) -> list[Envelope]:
        first = events[0].time if events else datetime.now(UTC)
        return [
            make("roster.changed", id=f"roster-{agent}", source=SOURCE, subject=agent, time=first, data=data)
            for agent, data in roster.items()
        ]

    # --- events

    def _events(self, node: Node) -> list[Envelope]:
        if node.kind != "list":
            node.fail(f"events are a list, not {node.shown}", "write `- {at: ..., type: ..., agent: ...}`")
        if not node.items:
            node.fail(
                "the story has no events", "write at least one: even silence begins with somebody at work"
            )
        found: list[Envelope] = []
        for index, item in enumerate(node.items):
            found += self._series(item, index)
            if len(found) > EVENTS_MAX:
                item.fail(f"the story has more than {EVENTS_MAX} events", "tell it with fewer")
        return found

    def _series(self, node: Node, index: int) -> list[Envelope]:
        if node.kind != "mapping":
            node.fail(f"an event is a mapping, not {node.shown}", "write {at: ..., type: ..., agent: ...}")
        kind_node = node.get("type")
        if kind_node is None:
            node.fail("the event has no type", "add `type:`")
        kind = choice(TOLD, "event type")(kind_node)
        own = ("at", "type", "subject", "id", "repeat", "every", "data")
        body = node.get("data")
        fields = Fields(node, self.problems, (*own, *PAYLOADS[kind].__struct_fields__), f"a {kind} event")
        at = fields.need("at", self._moment, datetime.now(UTC))
        repeat = fields.take("repeat", whole(1, REPEAT_MAX), 0)
        every_ms = fields.take("every", duration(1, 86_400_000), 0)
        if (repeat > 0) != (every_ms > 0):
            fields.wrong(
                "repeat" if repeat else "every", "`repeat` and `every` go together", "write both or neither"
            )
        subject = fields.take("subject", scalar, "")
        event_id = fields.take("id", scalar, f"e{index + 1}")
        if not fields.ok():
            raise self.problems.errors[-1]
        found = []
        for number_ in range(1, repeat + 1) if repeat else (0,):
            time = at + timedelta(milliseconds=every_ms * max(0, number_ - 1))
            data = self._payload(body or node, kind, {}, () if body else own, number_)
            self._check_named(node, data)
            found.append(self._event(node, kind, _numbered(event_id, number_), subject, time, data))
        return found

    def _check_named(self, node: Node, data: Any) -> None:
        """Refuse a name that can never stand for an id."""
        for text in _named(data):
            word, _, rest = text[1:].partition(" ")
            if word == GRADE_WORD and len(rest.split()) != 2:
                node.fail(f"{text!r} names no grade", 'write "@grade month 2026-08"')
            if word != GRADE_WORD and word not in self.rules:
                node.fail(f"{text!r} names no rule of the pack", nearest(word, sorted(self.rules), "rule"))

    @staticmethod
    def _event(node: Node, kind: str, event_id: str, subject: str, time: datetime, data: Any) -> Envelope:
        named = (
            subject or data.agent or getattr(data, "department", "") or data.queue or data.team or data.site
        )
        if not named:
            node.fail("the event has no subject", "add `agent:`, or `subject:` for an event without an agent")
        return make(kind, id=event_id, source=SOURCE, subject=named, time=time, data=data)

    def _payload(
        self, node: Node, kind: str, given: Mapping[str, str], skip: Sequence[str], counter: int = 0
    ) -> Any:
        raw: dict[str, Any] = dict(given)
        known = PAYLOADS[kind].__struct_fields__
        for key, (key_node, value) in node.entries.items():
            if key in skip:
                continue
            if key not in known:
                key_node.fail(f"{kind} has no field {key!r}", nearest(key, known, "field"))
            raw[key] = self._plain(value, key, counter)
        try:
            return msgspec.convert(raw, PAYLOADS[kind], strict=False)
        except msgspec.ValidationError as error:
            node.fail(f"the event's data are wrong: {error}", f"look at the fields of {kind} in schemas/")

    def _plain(self, node: Node, key: str, counter: int) -> Any:
        """A field's value as JSON would carry it, numbered where the event is repeated."""
        if node.kind == "list":
            return [self._plain(item, key, counter) for item in node.items]
        text = scalar(node) if node.text else ""
        if not node.quoted and text in ("true", "false"):
            return boolean(node)
        if key.endswith("_at"):
            moment = datetime.fromisoformat(text) if _is_moment(text) else None
            if moment is None:
                node.fail(f"{text!r} is not a moment", "write it as 2026-08-03T09:00")
            return (moment if moment.tzinfo else moment.replace(tzinfo=self.zone)).isoformat()
        if counter:
            text = text.replace("{n}", str(counter)) if "{n}" in text else text
            if key.endswith("_id") and "{n}" not in node.text:
                text = _numbered(text, counter)
        return text

    # --- expectations

    def _list(self, known: tuple[str, ...], what: str) -> Callable[[Node], tuple[Wanted, ...]]:
        def read(node: Node) -> tuple[Wanted, ...]:
            if node.kind != "list":
                node.fail(f"expectations are a list, not {node.shown}", "write [] for nothing")
            return tuple(self._wanted(item, known, what) for item in node.items)

        return read

    def _some(self, known: tuple[str, ...], what: str) -> Callable[[Node], tuple[Wanted, ...] | None]:
        return self._list(known, what)

    def _wanted(self, node: Node, known: tuple[str, ...], what: str) -> Wanted:
        fields = Fields(node, self.problems, known, what)
        wanted: dict[str, Any] = {}
        for key in known:
            if key not in fields:
                continue
            if key in _NUMBERS:
                wanted[key] = fields.need(key, _number_or_null, None)
            elif key in _MOMENTS:
                wanted[key] = to_ms(fields.need(key, self._moment, datetime.now(UTC)))
            elif key == "evidence":
                wanted[key] = list(fields.need(key, _ids, NO_TEXTS))
            elif key == "rule":
                wanted[key] = fields.need(key, choice(sorted(self.rules), "rule"), "")
            elif key == "metric":
                wanted[key] = fields.need(key, choice(sorted(self.pack.metrics), "metric"), "")
            else:
                wanted[key] = fields.need(key, scalar, "")
        ruled = "rule" in known and "component" not in known
        must = (
            "rule" if ruled else next((key for key in ("metric", "code", "item") if key in known), "subject")
        )
        if must not in wanted:
            fields.need(must, scalar, "")
        if not fields.ok():
            raise self.problems.errors[-1]
        return wanted


def _items(node: Node | None) -> list[Node]:
    return node.items if node is not None else []


def _numbered(text: str, counter: int) -> str:
    return f"{text}-{counter}" if counter else text


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _ids(node: Node) -> tuple[str, ...]:
    """Ids of events in their order; ``[]`` for none."""
    return () if node.kind == "list" and not node.items else several(scalar)(node)


def _number_or_null(node: Node) -> Fraction | None:
    if node.kind == "scalar" and node.text in ("null", "~"):
        return None
    return number(node)


# --- running ----------------------------------------------------------------------------------------------------------


def run_story(pack: Pack, story: Story) -> StoryResult:
    """Run a story through the engine with its pack; what is wrong comes back as failures, nothing is raised."""
    try:
        replay = deliver(pack, story)
        failures = _compare(pack, story, replay)
    except KaoheError as error:
        failures = [f"the engine stopped: {error}"]
    return StoryResult(
        pack=pack.name, story=story.name, clause=story.clause, case=story.case, place=story.place,
        failures=tuple(failures),
    )  # fmt: skip


def deliver(pack: Pack, story: Story) -> Replay:
    """The engine after the story's events, its clock at the story's end."""
    zones = Zones(default=pack.zone, sites=story.zones)
    replay = Replay((pack, *story.beside), zones=zones)
    clock_ms = 0
    for event in story.events:
        second_ms = to_ms(event.time) // 1000 * 1000
        if second_ms > clock_ms:
            clock_ms = second_ms
            replay.tick(clock_ms)
        replay.feed(_identified(event, replay))
    replay.tick(max(story.until_ms, clock_ms + 1000))
    replay.finish()
    return replay


def _named(data: Any) -> list[str]:
    """What an event names by ``@`` instead of by its id."""
    texts = [getattr(data, "against", ""), *getattr(data, "reversals", [])]
    return [text for text in texts if text.startswith("@")]


def _identified(event: Envelope, replay: Replay) -> Envelope:
    """The event with ids in the place of names; a name for which nothing came stays, and is refused by the engine."""
    if not _named(event.data):
        return event
    replay.finish()
    own = [one for one in replay.newest_decisions().values() if one.subject == event.data.agent]

    def id_of(text: str) -> str:
        word, _, rest = text[1:].partition(" ")
        if not text.startswith("@"):
            return text
        if word == GRADE_WORD:
            grades = (one for one in replay.grade_list() if one.subject == event.data.agent)
            return next((one.id for one in grades if [one.window, one.period] == rest.split()), text)
        fitting = [one for one in own if one.rule == word and rest in ("", one.incident) and not one.reverses]
        fitting.sort(key=lambda one: bool(Fraction(one.points)))
        return fitting[-1].id if fitting else text

    changed: dict[str, Any] = {}
    if hasattr(event.data, "against"):
        changed["against"] = id_of(event.data.against)
    if hasattr(event.data, "reversals"):
        changed["reversals"] = [id_of(text) for text in event.data.reversals]
    return msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, **changed))


def _compare(pack: Pack, story: Story, replay: Replay) -> list[str]:
    own = {rule for rule, clause in rule_clauses(pack).items() if clause == story.clause}
    decisions = list(replay.newest_decisions().values())
    alerts = replay.alert_list()
    failures = _match(story.expect_rejects, replay.rejects, "reject", _reject_value, _reject_text)
    failures += _match(
        story.expect,
        [one for one in decisions if one.rule in own],
        "decision",
        _decision_value,
        _decision_text,
    )
    if story.expect_alerts is not None:
        chosen = [one for one in alerts if one.rule in own]
        failures += _match(story.expect_alerts, chosen, "alert", _alert_value, _alert_text)
    if story.expect_grades is not None:
        newest = replay.newest_grades()
        main = pack.scorecard.window if pack.scorecard is not None else ""
        windows = {wanted.get("window", main) for wanted in story.expect_grades} | {main}
        others = {one.name for one in story.beside}
        came = [grade for grade in newest.values() if grade.window in windows and grade.pack not in others]
        failures += _match(story.expect_grades, came, "grade", _grade_value, _grade_text)
    failures += _lines(pack, story, replay)
    failures += _figures(story, replay)
    if story.settled:
        failures += _pay(pack, story, replay)
    for rule in story.silent:
        spoken = [_decision_text(one) for one in decisions if one.rule == rule]
        spoken += [_alert_text(one) for one in alerts if one.rule == rule]
        failures += [f"nothing was expected from {rule}, but there came {text}" for text in spoken]
    return failures


def _match(
    wanted: Sequence[Wanted],
    came: Sequence[Any],
    what: str,
    value: Callable[[Any, str], Any],
    text: Callable[[Any], str],
) -> list[str]:
    """Pair expectations with what came; each may be used once. The most precise expectations choose first."""
    left = list(came)
    missing: list[Wanted] = []
    for one in sorted(wanted, key=len, reverse=True):
        fitting = next((found for found in left if all(value(found, key) == one[key] for key in one)), None)
        if fitting is None:
            missing.append(one)
        else:
            left.remove(fitting)
    failures = [f"expected but did not come: {what} {_wanted_text(one)}" for one in missing]
    return failures + [f"came but was not expected: {what} {text(one)}" for one in left]


def _wanted_text(wanted: Wanted) -> str:
    parts = []
    for key, value in wanted.items():
        text = shown(value) if isinstance(value, Fraction) else str(value)
        if key in _MOMENTS:
            text = datetime.fromtimestamp(value / 1000, UTC).isoformat()
        parts.append(f"{key}={text}")
    return ", ".join(parts)


def _decision_value(decision: Decision, key: str) -> Any:
    if key == "points":
        return Fraction(decision.points)
    return getattr(decision, key)


def _decision_text(one: Decision) -> str:
    return (
        f"rule={one.rule}, subject={one.subject}, period={one.period}, points={one.points}, status={one.status}, "
        f"kind={one.kind}, revision={one.revision}, evidence={one.evidence} of {one.evidence_count}: "
        f"{one.explanation.en}"
    )


def _alert_value(alert: Alert, key: str) -> Any:
    if key in _MOMENTS:
        return to_ms(datetime.fromisoformat(getattr(alert, key)))
    return getattr(alert, key)


def _alert_text(one: Alert) -> str:
    return (
        f"rule={one.rule}, subject={one.subject}, level={one.level}, state={one.state}, at={one.at}, "
        f"evidence={one.evidence}: {one.explanation.en}"
    )


def _grade_value(grade: Grade, key: str) -> Any:
    return Fraction(grade.score) if key == "score" else getattr(grade, key)


def _grade_text(one: Grade) -> str:
    return (
        f"subject={one.subject}, period={one.period}, score={one.score}, grade={one.grade}, status={one.status}: "
        f"{one.explanation.en}"
    )


def _reject_value(reject: Reject, key: str) -> Any:
    return getattr(reject, key)


def _reject_text(one: Reject) -> str:
    return f"code={one.code}: {one.reason}"


def _lines(pack: Pack, story: Story, replay: Replay) -> list[str]:
    """Compare the expected lines of scorecards with those of the newest grades; numbers to 1e-6, as they are shown."""
    newest = replay.newest_grades()
    failures = []
    for wanted in story.expect_lines:
        of_card = {"window": pack.scorecard.window if pack.scorecard is not None else ""}
        of_card |= {key: wanted[key] for key in ("subject", "level", "window", "period") if key in wanted}
        fitting = [
            line
            for grade in newest.values()
            if grade.detail is not None and all(getattr(grade, key) == of_card[key] for key in of_card)
            for line in grade.detail.lines
            if line.item == wanted["item"]
        ]
        if len(fitting) != 1:
            said = f"{len(fitting)} lines" if fitting else "no line"
            failures.append(f"{said} for {_wanted_text(wanted)}; name subject, window and period")
            continue
        failures += [
            f"{_wanted_text(wanted)}: {key} is {getattr(fitting[0], key)}"
            for key in ("share", "contribution", "value", "word")
            if key in wanted and not _same_line(wanted[key], getattr(fitting[0], key))
        ]
    return failures


def _same_line(wanted: Any, came: str | None) -> bool:
    if not isinstance(wanted, Fraction) or came is None:
        return bool(wanted == came)
    return abs(Fraction(came.partition(" ")[0]) - wanted) <= Fraction(1, 10**6)


def _pay(pack: Pack, story: Story, replay: Replay) -> list[str]:
    """Settle the story's months and compare lines and statements."""
    statements = [one for period in story.settled for one in _settled(pack, story, replay, period)]
    lines = [(one, line) for one in statements for line in one.lines]
    failures = _match(story.expect_pay, lines, "line of pay", _line_value, _line_text)
    for wanted in story.expect_statements:
        where = {key: value for key, value in wanted.items() if key in ("subject", "period")}
        fitting = [
            one for one in statements if all(_statement_value(one, key) == where[key] for key in where)
        ]
        if len(fitting) != 1:
            said = f"{len(fitting)} statements" if fitting else "no statement"
            failures.append(f"{said} for {_wanted_text(where)}; name subject and period")
            continue
        failures += [
            f"{_wanted_text(where)}: {key} is {_statement_value(fitting[0], key)}, not {_wanted_text({key: value})}"
            for key, value in wanted.items()
            if _statement_value(fitting[0], key) != value
        ]
    return failures


def _settled(pack: Pack, story: Story, replay: Replay, period: str) -> list[Settlement]:
    chosen = paying(pack, story.beside)
    assert chosen is not None, "the reader has refused it"
    terms = terms_in_force(chosen, period, (pack, *story.beside))
    facts: dict[str, list[PayFact]] = {}
    for event in story.events:
        fact = fact_of(event, event.id)
        if fact is not None:
            facts.setdefault(fact.agent, []).append(fact)
    labels = labels_of_month(period)
    charges: dict[str, list[Charge]] = {}
    earlier: dict[str, list[Charge]] = {}
    for decision in replay.newest_decisions().values():
        if decision.status == "final" and decision.level == "agent":
            where = charges if decision.period in labels else earlier
            where.setdefault(decision.subject, []).append(charge_of(decision))
    grades: dict[str, dict[str, Grade]] = {}
    for grade in {one.id: one for one in replay.grade_list()}.values():
        if (grade.period, grade.level) == (period, "agent") and final_grade([grade]) is not None:
            grades.setdefault(grade.pack, {})[grade.subject] = grade
    people = people_of(terms, period, facts, grades.get(terms.grades_pack, {}), charges, earlier, grades)
    return [settle(terms, person, period) for person in people.values()]


def _line_value(of: tuple[Settlement, PayLine], key: str) -> Any:
    statement, line = of
    if key in ("subject", "period"):
        return statement.agent if key == "subject" else statement.period
    return getattr(line, key)


def _line_text(of: tuple[Settlement, PayLine]) -> str:
    statement, line = of
    return (
        f"subject={statement.agent}, period={statement.period}, component={line.component}, "
        f"amount_minor={line.amount_minor}, clause={line.clause}: {line.explanation.en}"
    )


def _statement_value(statement: Settlement, key: str) -> Any:
    if key == "subject":
        return statement.agent
    if key == "missing":
        return len(statement.missing)
    if key in ("held_minor", "deductions_minor"):
        return getattr(statement.guard, key)
    return getattr(statement, key)


def _figures(story: Story, replay: Replay) -> list[str]:
    """Compare the expected figures with the engine's, exactly where the figure is whole and to 1e-9 otherwise."""
    if not story.expect_metrics:
        return []
    values = replay.metrics()
    failures = []
    for wanted in story.expect_metrics:
        where = {key: value for key, value in wanted.items() if key not in _NUMBERS}
        fitting = [one for one in values if all(getattr(one, key) == where[key] for key in where)]
        if len(fitting) != 1:
            said = "no figure" if not fitting else f"{len(fitting)} figures"
            if not fitting and wanted.get("value", 0) is None:
                continue
            failures.append(f"{said} for {_wanted_text(where)}; name level, subject, window and period")
            continue
        failures += [
            f"{_wanted_text(where)}: {key} is {getattr(fitting[0], key)}, not {shown(wanted[key])}"
            for key in ("value", "numerator", "denominator")
            if key in wanted and not _same(wanted[key], getattr(fitting[0], key))
        ]
    return failures


def _same(wanted: Fraction | None, came: float | None) -> bool:
    if wanted is None or came is None:
        return wanted is None and came is None
    return abs(Fraction(came) - wanted) <= Fraction(1, 10**9)

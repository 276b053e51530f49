"""Why something was decided: a decision, an alert or a grade as a sentence, as a tree and as JSON.

Theory of operation: everything that is shown is in the record itself. The tree goes from the clause of the policy down
to the arithmetic: clause → rule → pack version → parameters in force, facts, evidence, arithmetic, revisions. All
functions take the revisions of *one* id (for an alert its states), oldest first, and return something to show; nothing
prints. Texts that come from records are never read as markup.

Beside ids there are *incidents*: an appeal, a complaint, a shift. What was decided about one is a list of entries and
alerts, each with its id. Ids of pay are explained by ``kaohe.explain_pay``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from rich.console import Group
from rich.text import Text
from rich.tree import Tree

from kaohe.core.calendars import calendar, to_ms
from kaohe.core.messages import readable
from kaohe.core.money import money_text
from kaohe.decisions import (
    ALERT_DECODER,
    DECISION_DECODER,
    GRADE_DECODER,
    Alert,
    Decision,
    Grade,
    UsedFact,
    UsedParameter,
    Words,
)
from kaohe.errors import UsageError
from kaohe.events import Envelope
from kaohe.payroll.records import current_revision

if TYPE_CHECKING:
    from kaohe.payroll.ledger import Ledger

Entry = Decision | Alert | Grade
Language = Literal["en", "zh"]

EVIDENCE_SHOWN_MAX = 20
REVISIONS_SHOWN_MAX = 20
LINE_BYTES_MAX = 16 * 1024 * 1024

_FILES = {"d-": "decisions.jsonl", "w-": "alerts.jsonl", "g-": "grades.jsonl"}
_LABELS: dict[str, Words] = {
    "clause": Words("Clause", "条款"),
    "rule": Words("Rule", "规则"),
    "pack": Words("Pack", "规则包"),
    "shadow": Words("a shadow, not in force", "影子版本，未生效"),
    "parameters": Words("Parameters in force", "生效参数"),
    "facts": Words("Facts", "事实"),
    "evidence": Words("Evidence", "依据事件"),
    "of": Words("of", "/"),
    "all of them": Words("all of them", "全部列出"),
    "not in the log": Words("not in the log", "日志中没有"),
    "arithmetic": Words("Arithmetic", "计算"),
    "revisions": Words("Revisions", "修订"),
    "history": Words("History", "经过"),
    "entries": Words("Made of entries", "由条目组成"),
    "formula": Words("Formula", "公式"),
    "response": Words("Response", "应对"),
    "reverses": Words("Reverses", "撤销"),
    "adjusts": Words("Adjusts the closed period", "调整已结周期"),
    "task": Words("Task", "任务"),
    "task_of": Words("Task of", "任务负责人"),
    "due": Words("due", "截止"),
    "proposal": Words("Proposal", "提议"),
    "since": Words("since", "自"),
    "points": Words("points", "分"),
    "no data": Words("no data", "无数据"),
    "none": Words("none", "无"),
    "more": Words("more", "更多"),
    "revision": Words("revision", "修订"),
    "counts": Words("this one counts", "以此为准"),
    "deduct": Words("Deduct", "扣分"),
    "award": Words("Award", "加分"),
    "waive": Words("Waive", "免除"),
    "adjust": Words("Adjust", "调整"),
    "provisional": Words("provisional", "暂定"),
    "final": Words("final", "最终"),
    "withdrawn": Words("withdrawn", "已撤回"),
    "firing": Words("firing", "告警中"),
    "resolved": Words("resolved", "已解除"),
    "score": Words("score", "得分"),
    "grade": Words("grade", "等级"),
    "before": Words("before", "此前"),
    "alert": Words("Alert", "告警"),
    "owner": Words("owner", "负责人"),
}


# --- finding ----------------------------------------------------------------------------------------------------------


def find_in_ledger(database_url: str, entry_id: str) -> list[Entry]:
    """The revisions of an entry in the SQL ledger, oldest first. UsageError when it is not there, LedgerError when
    there is no ledger.
    """
    from kaohe.payroll.ledger import Ledger, shown  # noqa: PLC0415 (a file is explained without any database library)

    with Ledger(database_url) as ledger:
        found = find_entry(ledger, entry_id)
    if not found:
        raise UsageError(
            f"The ledger {shown(database_url)} has no entry '{entry_id}'; ids begin with d- (decisions), w- (alerts), "
            "g- (grades), b- (batches), s- (statements) or p- (entries of pay), or name what was judged: an appeal, "
            "a complaint, a shift."
        )
    return found


def find_entry(ledger: Ledger, entry_id: str) -> list[Entry]:
    """The revisions of a decision, alert or grade, oldest first; nothing where the ledger has none."""
    found: list[Entry] = []
    for questions in (ledger.decisions, ledger.alerts, ledger.grades):
        found.extend(questions(entry_id))
    return found


class Events(msgspec.Struct, frozen=True):
    """The events that an entry rests on, from a recorded log: all of their ids, and those that are in the log."""

    ids: list[str]
    known: dict[str, Envelope]
    zone: str


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about one incident: the entries that count, and the changes of alerts, oldest first."""

    incident: str
    entries: list[Decision]
    alerts: list[Alert]

    @property
    def nothing(self) -> bool:
        """Whether nothing was."""
        return not self.entries and not self.alerts


def about_in_ledger(database_url: str, incident: str) -> About:
    """What the SQL ledger holds about an incident."""
    from kaohe.payroll.ledger import Ledger  # noqa: PLC0415

    with Ledger(database_url) as ledger:
        entries = sorted(ledger.current_entries(incident=incident), key=lambda one: (one.at, one.id))
        alerts = ledger.all_alerts(incident=incident)
    return About(incident=incident, entries=entries, alerts=alerts)


def about_in_folder(folder: Path, incident: str) -> About:
    """What a replay's folder holds about an incident; nothing where the folder lacks the files."""
    revisions: dict[str, list[Decision]] = {}
    alerts: list[Alert] = []
    for name in ("decisions.jsonl", "alerts.jsonl"):
        file = folder / name
        if not file.is_file():
            continue
        for entry in _entries(file, incident):
            if isinstance(entry, Decision) and entry.incident == incident:
                revisions.setdefault(entry.id, []).append(entry)
            elif isinstance(entry, Alert) and entry.incident == incident:
                alerts.append(entry)
    entries = sorted((current_revision(one) for one in revisions.values()), key=lambda one: (one.at, one.id))
    return About(
        incident=incident, entries=entries, alerts=sorted(alerts, key=lambda one: (one.at, one.state))
    )


def about_shown(about: About, language: Language = "en") -> Group:
    """The list for a terminal: for each entry its headline, clause and sentence."""
    parts: list[Text | Tree] = []
    told: list[Decision | Alert] = [*about.entries, *about.alerts]
    for one in sorted(told, key=lambda one: (one.at, one.id)):
        root = Tree(headline(one, language))
        root.add(_line(_label("clause", language), f"{one.clause}, {one.rule}"))
        root.add(Text(sentence(one, language)))
        parts.append(root)
    return Group(Text.assemble((about.incident, "bold")), *parts)


def find_in_file(path: Path, entry_id: str) -> list[Entry]:
    """The revisions of an entry in a JSON-lines file (or in the folder that ``kaohe replay`` wrote), oldest first.

    UsageError when the file cannot be read, when a line is no record, or when the entry is not there.
    """
    file = path / _FILES.get(entry_id[:2], "decisions.jsonl") if path.is_dir() else path
    try:
        found = {_version(entry): entry for entry in _entries(file, entry_id) if entry.id == entry_id}
    except OSError as error:
        raise UsageError(
            f"The file {file} cannot be read ({error.strerror}); give a file of decisions."
        ) from None
    if not found:
        raise UsageError(
            f"The file {file} has no entry '{entry_id}'; each line's \"id\" is the id to ask for."
        )
    return [found[version] for version in sorted(found)]


def _version(entry: Entry) -> tuple[int, str]:
    return (0, entry.state) if isinstance(entry, Alert) else (entry.revision, "")


def _entries(file: Path, named: str) -> Iterator[Entry]:
    """The records of a file that may have to do with an id."""
    wanted = msgspec.json.encode(named)[1:-1]
    with file.open("rb") as lines:
        number = 0
        while line := lines.readline(LINE_BYTES_MAX):
            number += 1
            if wanted in line:  # most lines are not decoded at all
                yield _decode(line, f"{file}:{number}")


def _decode(line: bytes, where: str) -> Entry:
    try:
        fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        if "state" in fields:
            return ALERT_DECODER.decode(line)
        if "score" in fields:
            return GRADE_DECODER.decode(line)
        return DECISION_DECODER.decode(line)
    except msgspec.DecodeError as error:
        raise UsageError(f"{where}: not a decision, an alert or a grade: {error}.") from None


# --- showing ----------------------------------------------------------------------------------------------------------


def current(revisions: Sequence[Entry]) -> Entry:
    """The revision that counts: of an alert the newest state, else the highest final or the highest one."""
    assert revisions, "nothing to explain"
    last = revisions[-1]
    if isinstance(last, Alert):
        return last
    if isinstance(last, Grade):
        return current_revision([entry for entry in revisions if isinstance(entry, Grade)])
    return current_revision([entry for entry in revisions if isinstance(entry, Decision)])


def sentence(entry: Entry, language: Language = "en") -> str:
    """The readable sentence that the decision carries, in English or Chinese."""
    return say(entry.explanation, language)


def explanation(
    revisions: Sequence[Entry], language: Language = "en", clause_title: Words | None = None,
    events: Events | None = None,
) -> Group:  # fmt: skip
    """The whole answer for a terminal: headline, the sentence in both languages, and the tree.

    ``language`` is that of the labels; ``clause_title`` is the policy's own words when the caller has the pack;
    ``events`` are those it rests on when the caller has the log.
    """
    entry = current(revisions)
    return Group(
        headline(entry, language),
        Text(entry.explanation.en),
        Text(entry.explanation.zh),
        tree(revisions, language, clause_title, events),
    )


def headline(entry: Entry, language: Language = "en") -> Text:
    """What was decided about whom, in one line."""
    text = Text()
    if isinstance(entry, Decision):
        style = "bold red" if entry.points.startswith("-") else "bold green"
        bare = entry.kind in ("task", "proposal") and _is_zero(entry.points) and not entry.amount_minor
        worth = "" if bare else " " + _worth(entry, language)
        text.append(_label(entry.kind, language) + worth, style=style)
        about = (entry.period, _state(entry, language), entry.id)
    elif isinstance(entry, Alert):
        style = "bold red" if entry.state == "firing" else "bold green"
        text.append(f"{_label('alert', language)}: {say(entry.title, language)}", style=style)
        about = (entry.severity, f"{_label(entry.state, language)} {entry.at}", entry.id)
    else:
        grade = (
            f"{_label('grade', language)} {entry.grade}, {_label('score', language)} {_minus(entry.score)}"
        )
        if entry.previous_grade and entry.previous_grade != entry.grade:
            grade += f" ({_label('before', language)}: {entry.previous_grade})"
        text.append(grade, style="bold")
        about = (entry.period, _state(entry, language), entry.id)
    text.append(" · ".join(("", entry.subject, *(part for part in about if part))))
    return text


def _pack(entry: Entry, language: Language) -> str:
    named = f"{entry.pack} {entry.pack_version}"
    return f"{named} ({_label('shadow', language)})" if entry.shadow else named


def tree(
    revisions: Sequence[Entry], language: Language = "en", clause_title: Words | None = None,
    events: Events | None = None,
) -> Tree:  # fmt: skip
    """Clause → rule → pack version → parameters, facts, evidence, arithmetic, revisions."""
    entry = current(revisions)
    title = f" {say(clause_title, language)}" if clause_title else ""
    if isinstance(entry, Grade):
        root = Tree(_line(_label("pack", language), _pack(entry, language)))
        root.add(_line(_label("formula", language), entry.formula))
        _add_list(root, _label("entries", language), entry.entries, len(entry.entries), language)
        _add_history(root, revisions, language)
        return root
    root = Tree(_line(_label("clause", language), entry.clause + title))
    rule = root.add(
        _line(_label("rule", language), entry.rule + (f" ({entry.incident})" if entry.incident else ""))
    )
    pack = rule.add(_line(_label("pack", language), _pack(entry, language)))
    _add_parameters(pack, entry.parameters, language)
    _add_facts(pack, entry.facts, language)
    _add_evidence(pack, revisions, language, events)
    if isinstance(entry, Alert):
        pack.add(_line(_label("response", language), say(entry.response, language)))
        if entry.owner:
            pack.add(_line(_label("owner", language), entry.owner))
    else:
        _add_arithmetic(pack, entry, language)
        _add_consequences(pack, entry, language)
    _add_history(pack, revisions, language)
    return root


def as_json(revisions: Sequence[Entry], events: Events | None = None) -> str:
    """The same as data: the revision that counts in full, the history, and the events if they are at hand, as indented
    canonical JSON."""
    entry = current(revisions)
    kind = type(entry).__name__.lower()
    document: dict[str, Any] = {kind: entry, "history": [_moment(revision) for revision in revisions]}
    if events is not None:
        document["events"] = [events.known.get(one, {"id": one}) for one in events.ids]
    encoded = msgspec.json.encode(document, order="deterministic")
    return msgspec.json.format(encoded, indent=2).decode()


def _moment(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Alert):
        return {"state": entry.state, "since": entry.since, "at": entry.at}
    shared = {"revision": entry.revision, "status": entry.status, "at": entry.at}
    if isinstance(entry, Grade):
        return {**shared, "score": entry.score, "grade": entry.grade}
    return {**shared, "points": entry.points, "amount_minor": entry.amount_minor, "currency": entry.currency}


# --- the branches -----------------------------------------------------------------------------------------------------


def _add_parameters(branch: Tree, parameters: Mapping[str, UsedParameter], language: Language) -> None:
    node = branch.add(_title(_label("parameters", language), len(parameters), language))
    for name, used in sorted(parameters.items()):
        note = f"{_label('since', language)} {used.since}, {used.clause}"
        node.add(_value(name, _with_unit(used.value, used.unit), note))


def _with_unit(value: str, unit: str) -> str:
    """The exact value with its unit; of a ratio with what it is in per cent, as sentences tell it."""
    if unit == "ratio":
        return f"{_minus(value)} = {_minus(readable(value, unit, ''))}"
    return f"{_minus(value)} {unit}".strip()


def _add_facts(branch: Tree, facts: Mapping[str, UsedFact], language: Language) -> None:
    node = branch.add(_title(_label("facts", language), len(facts), language))
    for name, fact in sorted(facts.items()):
        value = _label("no data", language) if fact.value is None else _with_unit(fact.value, fact.unit)
        parts = (
            f"{_minus(fact.numerator)} ÷ {_minus(fact.denominator)}"
            if fact.numerator and fact.denominator
            else ""
        )
        node.add(_value(name, value, "; ".join(part for part in (parts, fact.formula) if part)))


def _add_arithmetic(branch: Tree, entry: Decision, language: Language) -> None:
    node = branch.add(_title(_label("arithmetic", language), len(entry.arithmetic), language))
    for step in entry.arithmetic:
        node.add(Text.assemble((step.what, "cyan"), f" = {step.calculation} = ", (step.result, "bold")))


def _add_consequences(branch: Tree, entry: Decision, language: Language) -> None:
    if entry.owner:
        due = f", {_label('due', language)} {entry.due_at}" if entry.due_at else ""
        branch.add(_line(_label("task_of", language), entry.owner + due))
    if entry.proposal:
        branch.add(_line(_label("proposal", language), entry.proposal))
    if entry.reverses:
        branch.add(_line(_label("reverses", language), entry.reverses))
    if entry.adjusts_period:
        branch.add(_line(_label("adjusts", language), entry.adjusts_period))


def _add_list(branch: Tree, label: str, items: Sequence[str], count: int, language: Language) -> None:
    node = branch.add(_title(label, count, language))
    for item in items[:EVIDENCE_SHOWN_MAX]:
        node.add(Text(item))
    more = max(count, len(items)) - min(len(items), EVIDENCE_SHOWN_MAX)
    if more > 0:
        node.add(Text(f"… {more} {_label('more', language)}", style="dim"))


def evidence_of(revisions: Sequence[Entry]) -> tuple[list[str], int]:
    """The ids of the events that the revision that counts rests on, and how many there are.

    Of an alert that is over they are those on which it began. How many there were of an alert is not noted: it names
    the latest.
    """
    entry = current(revisions)
    if isinstance(entry, Decision):
        return entry.evidence, entry.evidence_count
    named = [one.evidence for one in revisions if isinstance(one, Alert) and one.evidence]
    found = named[-1] if named else []
    return found, len(found)


def _add_evidence(
    branch: Tree, revisions: Sequence[Entry], language: Language, events: Events | None
) -> None:
    """The events: with their time, type and fields where the log is at hand; how to find the rest where it is not."""
    ids, count = evidence_of(revisions)
    shown = ids[:EVIDENCE_SHOWN_MAX] if events is None else events.ids
    label, more = _label("evidence", language), max(count, len(ids)) - len(shown)
    if more <= 0:
        node = branch.add(_title(label, len(shown), language))
    else:
        of = f"{len(shown)} {_label('of', language)} {len(shown) + more}"
        node = branch.add(Text.assemble((label, "bold"), f" ({of})"))
    for one in shown:
        node.add(Text(one) if events is None else _event(one, events, language))
    if more > 0:
        how = f"kaohe explain {current(revisions).id} --events LOG"
        text = f"… {more} {_label('more', language)}; {_label('all of them', language)}: {how}"
        node.add(Text(text, style="dim"))


def _event(event_id: str, events: Events, language: Language) -> Text:
    event = events.known.get(event_id)
    if event is None:
        return Text.assemble(event_id, (f"  ({_label('not in the log', language)})", "dim"))
    at = calendar(events.zone).text(to_ms(event.time))
    tag = str(event.__struct_config__.tag)
    fields = [
        f"{name}={value}" for name, value in msgspec.to_builtins(event.data).items() if _says(name, value)
    ]
    return Text.assemble(event_id, f"  {at}  ", (tag, "cyan"), (f"  {', '.join(fields)}", "dim"))


def _says(name: str, value: Any) -> bool:
    """Whether a field is worth a place in a line: not what is empty, and not who the customer is."""
    return name not in ("agent", "team", "site", "customer") and value not in ("", None, [], 0, False)


def _add_history(branch: Tree, revisions: Sequence[Entry], language: Language) -> None:
    counts = current(revisions)
    label = _label("history" if isinstance(counts, Alert) else "revisions", language)
    node = branch.add(_title(label, len(revisions), language))
    hidden = len(revisions) - REVISIONS_SHOWN_MAX
    if hidden > 0:
        node.add(Text(f"… {hidden} {_label('more', language)}", style="dim"))
    for entry in revisions[-REVISIONS_SHOWN_MAX:]:
        if isinstance(entry, Alert):
            node.add(
                _value(entry.at, _label(entry.state, language), f"{_label('since', language)} {entry.since}")
            )
            continue
        worth = (
            _worth(entry, language) if isinstance(entry, Decision) else f"{_minus(entry.score)} {entry.grade}"
        )
        mark = f" ← {_label('counts', language)}" if entry is counts else ""
        node.add(_value(entry.at, worth, _state(entry, language) + mark))


def _state(entry: Decision | Grade, language: Language) -> str:
    return f"{_label(entry.status, language)}, {_label('revision', language)} {entry.revision}"


def _worth(entry: Decision, language: Language) -> str:
    parts = []
    if not _is_zero(entry.points) or not entry.amount_minor:
        parts.append(f"{_minus(entry.points)} {_label('points', language)}")
    if entry.amount_minor:
        parts.append(money_text(entry.amount_minor, entry.currency))
    return ", ".join(parts)


def _is_zero(points: str) -> bool:
    return not points.strip("-0.")


def _minus(number: str) -> str:
    return "−" + number[1:] if number.startswith("-") else number


def _label(name: str, language: Language) -> str:
    words = _LABELS.get(name)
    return say(words, language) if words else name


def say(words: Words, language: Language) -> str:
    """The words in one language."""
    return words.zh if language == "zh" else words.en


def _title(label: str, count: int, language: Language) -> Text:
    return Text.assemble((label, "bold"), f" ({count})" if count else f": {_label('none', language)}")


def _line(label: str, value: str) -> Text:
    return Text.assemble((label, "bold"), " ", value)


def _value(name: str, value: str, note: str) -> Text:
    return Text.assemble((name, "cyan"), " = ", (value, "bold"), (f"  ({note})" if note else "", "dim"))

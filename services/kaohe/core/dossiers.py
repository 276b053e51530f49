"""What is remembered of a person beside the judgements: appeals, interviews, goals, and what they were told when.

Theory of operation. An engine has one dossier for each agent of whom there is anything to remember. An event of these
kinds is refused before it counts when it cannot be carried out (an appeal that nobody filed is accepted, say). What it
means is worked out here and given back as *derived* events, for one pack: an appeal was received in time or is not
heard, was upheld or dismissed; a goal is agreed. Rules and deadlines of the pack say what follows.

An appeal can be filed until the end of the last of so many working days after the agent was told, by the public
calendar that the pack names. The agent was told when the result was announced, else when it became final. What an
accepted appeal is against is kept with it, since an investigation may outlast the memory of a closed period.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import msgspec

from kaohe.core.assessing import Case, Said, check_ruling
from kaohe.core.calendars import Period
from kaohe.core.facts import number_text
from kaohe.core.grading import JOINT, tally_id
from kaohe.core.judge import Judge
from kaohe.core.model import Pack
from kaohe.core.subjects import SEPARATOR, Entry, Subject
from kaohe.decisions import grade_id
from kaohe.errors import EventError
from kaohe.events import (
    AppealDismissed,
    AppealReceived,
    AppealRefused,
    AppealUpheld,
    GoalAgreed,
    Payload,
    Refusal,
)

APPEALS = ("appeal.filed", "appeal.accepted", "appeal.rejected", "appeal.heard", "appeal.decided")
TAGS = (*APPEALS, "result.announced", "interview.held", "goal.proposed", "goal.signed")
"""The events that a dossier remembers."""
GUARDED = frozenset({*APPEALS, "appeal.received", "appeal.refused", "appeal.upheld", "appeal.dismissed"})
"""Events that concern the one pack whose result is appealed against."""
MAX_APPEALS = 64
"""Appeals remembered for each agent; beyond it the oldest one that is settled is forgotten."""
MAX_KEPT = 200
"""Entries kept with an appeal against a grade; those of the smallest ids."""
MAX_NOTES = 64
"""Announcements, interviews and goals remembered for each agent, of each kind; beyond it the oldest is forgotten."""
KEY = "y"

AppealState = Literal["filed", "refused", "accepted", "rejected", "upheld", "dismissed"]
OPEN = ("filed", "accepted")


class Appeal(msgspec.Struct, gc=False):
    """One appeal. ``kept`` are the entries that it may take back, as they were when it was filed."""

    id: str
    against: str
    ground: str
    pack: str
    state: AppealState
    heard: list[str] = []
    kept: list[Entry] = []


class Goal(msgspec.Struct, array_like=True, gc=False):
    """Who has signed a goal; whether it was proposed yet (a signature may arrive first)."""

    proposed: bool = False
    signed: list[str] = []


class Dossier(msgspec.Struct, gc=False):
    """All about one agent. ``told`` is by pack, window and period (ms), ``interviews`` are pack and moment (ms)."""

    appeals: dict[str, Appeal] = {}
    told: dict[str, int] = {}
    interviews: dict[str, tuple[str, int]] = {}
    goals: dict[str, Goal] = {}


class Target(NamedTuple):
    """What an appeal is against: whose result, since when the agent knows it (None: it is not final), what it may
    take back, and whether that was done."""

    pack: str
    told_ms: int | None
    entries: list[Entry]
    taken_back: bool


class Told(NamedTuple):
    """A derived event, or one of these kinds that was found in order, and the pack that it concerns (empty: all)."""

    tag: str
    data: Payload
    pack: str


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(Dossier)


class Dossiers:
    """The dossiers of one partition."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.found: dict[str, Dossier] = {}
        self.touched: set[str] = set()

    # --- before an event counts ---------------------------------------------------------------------------------------

    def check(self, tag: str, data: Any, agent: Subject | None) -> None:
        """EventError when an event of these kinds cannot be carried out."""
        if agent is None:
            raise EventError("invalid", "$.data.agent is missing: the event is about an agent")
        dossier = self.found.get(agent.name, Dossier())
        if tag == "appeal.filed":
            self._check_filed(data, agent, dossier)
        elif tag in APPEALS:
            appeal = dossier.appeals.get(data.appeal_id)
            if appeal is None:
                raise EventError("unknown_appeal", f"{agent.name} has filed no appeal {data.appeal_id!r}")
            must = "filed" if tag in ("appeal.accepted", "appeal.rejected") else "accepted"
            if appeal.state != must:
                raise EventError(
                    "appeal_state",
                    f"the appeal {appeal.id!r} is {appeal.state}; {tag} follows one that is {must}",
                )
            if getattr(data, "by", "") == agent.name and tag != "appeal.heard":
                raise EventError("own_appeal", f"{agent.name} cannot decide about an appeal of their own")
            if tag == "appeal.decided":
                self._check_decided(data, agent, appeal)

    def _check_filed(self, data: Any, agent: Subject, dossier: Dossier) -> None:
        if data.appeal_id in dossier.appeals:
            raise EventError("appeal_state", f"there is an appeal {data.appeal_id!r} already")
        if len(dossier.appeals) >= MAX_APPEALS and all(one.state in OPEN for one in dossier.appeals.values()):
            raise EventError("too_many_appeals", f"{MAX_APPEALS} appeals of {agent.name} are open")
        target = self._target(agent, dossier, data.against)
        if target is None:
            self._check_consequence(agent, data.against)
            raise EventError(
                "unknown_appealed", f"{agent.name} has no decision, grade or interview {data.against!r}"
            )
        if self._terms(target.pack) is None:
            raise EventError("no_appeals", f"the pack {target.pack} knows no appeals")

    def _check_decided(self, data: Any, agent: Subject, appeal: Appeal) -> None:
        pack = self._terms(appeal.pack)
        if pack is None:
            raise EventError("no_appeals", f"the pack {appeal.pack} knows no appeals")
        assert pack.appeals is not None
        missing = [who for who in pack.appeals.hear if who not in appeal.heard]
        if missing:
            raise EventError("not_heard", f"before a decision are to be heard: {', '.join(missing)}")
        kept = {entry.id: entry for entry in appeal.kept}
        for wanted in data.reversals:
            entry = agent.entries.get(wanted)
            if wanted not in kept and (entry is None or entry.status != "final" or entry.kind == "alert"):
                raise EventError("unknown_appealed", f"{agent.name} has no final decision {wanted!r}")
        becomes = data.score is not None or bool(data.grade)
        if becomes:
            self._check_becomes(data, agent, appeal)
        elif data.upheld and appeal.ground == "result" and not data.reversals and appeal.against not in kept:
            raise EventError(
                "nothing_to_correct",
                "$.data.reversals is empty: an appeal against a grade takes back entries or says what it becomes",
            )
        if data.remains is not None:
            wanted = _wanted(data, appeal)
            _check_remains(data, [agent.entries.get(one) or kept[one] for one in wanted])

    def _check_consequence(self, agent: Subject, against: str) -> None:
        """EventError when something follows from grades of the agent: those are to be appealed against."""
        for key in agent.grades:
            pack_name, window, label = key.split("|")
            own_id = grade_id(pack_name, agent.level, agent.name, window, label)
            if pack_name.endswith(JOINT) and own_id == against:
                raise EventError(
                    "follows_from_grade",
                    f"{against} is made of the grades of several packs: appeal against one of them",
                )
        for key, marks in agent.marks.items():
            pack_name, window = key.split("|")
            pack = self.judge.packs.get(f"{pack_name}@{self.judge.active.get(pack_name, '')}")
            for tally in pack.results.tallies if pack is not None else ():
                if (tally.level, tally.window) != (agent.level, window):
                    continue
                for mark in marks:
                    assert pack is not None
                    if tally_id(pack, tally, agent.name, mark.label) == against:
                        own_id = grade_id(pack_name, agent.level, agent.name, window, mark.label)
                        raise EventError(
                            "follows_from_grade",
                            f"{against} follows from the grade {own_id} of {mark.label}: appeal against that",
                        )

    def _check_becomes(self, data: Any, agent: Subject, appeal: Appeal) -> None:
        """EventError unless the result that was appealed against can become what the decision says."""
        if not data.upheld:
            raise EventError("invalid", "$.data: an appeal that is dismissed leaves the result as it is")
        found = graded(agent, appeal.against)
        if found is None:
            raise EventError(
                "unknown_appealed",
                f"{appeal.against} is no grade that is remembered here: name entries to take back",
            )
        pack = self._terms(appeal.pack)
        assert pack is not None
        card = self.judge.grader.card(pack, agent.level, found.window)
        if card is None:
            raise EventError(
                "sum_of_entries",
                f"a score of {pack.name} is the sum of its entries: name those that are to be taken back",
            )
        check_ruling(Said("", data.score, data.grade), Case(pack, card, found))

    def _terms(self, name: str) -> Pack | None:
        """The version of a pack that judges now, if it knows appeals."""
        pack = self.judge.packs.get(f"{name}@{self.judge.active.get(name, '')}")
        return pack if pack is not None and pack.appeals is not None else None

    def _target(self, agent: Subject, dossier: Dossier, against: str) -> Target | None:
        """What ``against`` names among all that is remembered of the agent."""
        entry = agent.entries.get(against)
        if entry is not None and entry.kind != "alert":
            announced_ms = dossier.told.get(f"{entry.pack}|{entry.window}|{entry.label}", 0)
            told_ms = max(announced_ms, entry.at_ms) if entry.status == "final" else None
            return Target(entry.pack, told_ms, [entry], bool(entry.waived_by))
        for key in sorted(agent.grades):
            pack, window, label = key.split("|")
            if grade_id(pack, agent.level, agent.name, window, label) != against:
                continue
            loaded = self.judge.packs.get(f"{pack}@{self.judge.active.get(pack, '')}")
            closed_ms = agent.series.calendar.period(window, label).end_ms + (
                loaded.grace_ms if loaded else 0
            )
            final = agent.grades[key].settled
            entries = [one for one in agent.score_entries(pack, window, label) if one.status == "final"]
            kept = sorted(entries, key=lambda one: one.id)[:MAX_KEPT]
            return Target(pack, max(dossier.told.get(key, 0), closed_ms) if final else None, kept, False)
        if against in dossier.interviews:
            pack, held_ms = dossier.interviews[against]
            return Target(pack, held_ms, [], False)
        return None

    # --- what an event means ------------------------------------------------------------------------------------------

    def take(self, tag: str, data: Any, time_ms: int, agent: Subject) -> list[Told]:
        """Remember an event that ``check`` let pass; what is to be told about it."""
        dossier = self.found.setdefault(agent.name, Dossier())
        self.touched.add(agent.name)
        if tag == "appeal.filed":
            return self._file(data, time_ms, agent, dossier)
        if tag in APPEALS:
            return self._step(tag, data, agent, dossier.appeals[data.appeal_id])
        if tag in ("goal.proposed", "goal.signed"):
            return _sign(tag, data, dossier)
        if tag == "result.announced":
            key = f"{data.pack}|{data.window}|{data.period}"
            dossier.told = _bounded(dossier.told, key, min(time_ms, dossier.told.get(key, time_ms)))
        else:
            pack = data.appraisal_id.partition("/")[0]
            dossier.interviews = _bounded(dossier.interviews, data.interview_id, (pack, time_ms))
        return []

    def _file(self, data: Any, time_ms: int, agent: Subject, dossier: Dossier) -> list[Told]:
        target = self._target(agent, dossier, data.against)
        pack = self._terms(target.pack) if target is not None else None
        assert target is not None
        assert pack is not None
        day = agent.series.calendar.day
        last_day = self._last_day(pack, day(target.told_ms)) if target.told_ms is not None else None
        why: Refusal | None = None
        if target.told_ms is None or last_day is None:
            why = "provisional"
        elif target.taken_back:
            why = "taken_back"
        elif any(one.against == data.against and one.state != "refused" for one in dossier.appeals.values()):
            why = "appealed"
        elif day(time_ms) > last_day:
            why = "late"
        appeal = Appeal(data.appeal_id, data.against, data.ground, pack.name, "refused" if why else "filed")
        if not why:
            appeal.kept = [msgspec.structs.replace(entry) for entry in target.entries]
        if len(dossier.appeals) >= MAX_APPEALS:
            oldest = next(one.id for one in dossier.appeals.values() if one.state not in OPEN)
            del dossier.appeals[oldest]
        dossier.appeals[appeal.id] = appeal
        shown = last_day.isoformat() if last_day is not None else ""
        common = {"agent": agent.name, "appeal_id": appeal.id, "against": appeal.against, "pack": pack.name}
        if why:
            refused = AppealRefused(**common, ground=data.ground, why=why, text=data.text, last_day=shown)
            return [Told("appeal.refused", refused, pack.name)]
        received = AppealReceived(**common, ground=data.ground, text=data.text, last_day=shown)
        return [Told("appeal.filed", data, pack.name), Told("appeal.received", received, pack.name)]

    @staticmethod
    def _last_day(pack: Pack, told: date) -> date:
        assert pack.appeals is not None
        days = pack.parameters[pack.appeals.window].value_at(max(told, pack.in_force_from))
        assert isinstance(days, Fraction), pack.appeals.window
        return pack.appeals.calendar.add_workdays(told, int(days))

    def _step(self, tag: str, data: Any, agent: Subject, appeal: Appeal) -> list[Told]:
        told = [Told(tag, data, appeal.pack)]
        if tag == "appeal.accepted":
            appeal.state = "accepted"
        elif tag == "appeal.rejected":
            appeal.state = "rejected"
        elif tag == "appeal.heard":
            appeal.heard = sorted({*appeal.heard, data.who})
        else:
            told.append(self._decide(data, agent, appeal))
        if appeal.state not in OPEN:
            appeal.kept = []
        return told

    def _decide(self, data: Any, agent: Subject, appeal: Appeal) -> Told:
        common = {
            "agent": agent.name, "appeal_id": appeal.id, "against": appeal.against, "ground": appeal.ground,
            "pack": appeal.pack, "by": data.by, "reason": data.reason,
        }  # fmt: skip
        if not data.upheld:
            appeal.state = "dismissed"
            return Told("appeal.dismissed", AppealDismissed(**common), appeal.pack)
        appeal.state = "upheld"
        wanted = _wanted(data, appeal)
        for entry in appeal.kept:
            if entry.id in wanted and entry.id not in agent.entries:
                agent.put(entry)  # forgotten meanwhile: the ledger has it, and it is taken back all the same
        upheld = AppealUpheld(
            **common, responsible=data.responsible, reversals=wanted, remains=data.remains,
            outcome="upheld" if data.remains is None else "partly", score=data.score, grade=data.grade,
        )  # fmt: skip
        return Told("appeal.upheld", upheld, appeal.pack)

    # --- stored form --------------------------------------------------------------------------------------------------

    def forget(self, name: str) -> None:
        """Forget an agent of whom nothing else is left, unless an appeal is open."""
        dossier = self.found.get(name)
        if dossier is not None and not any(one.state in OPEN for one in dossier.appeals.values()):
            del self.found[name]
            self.touched.add(name)

    def checkpoint(self) -> dict[str, bytes | None]:
        """What changed since the last call, by key; None for what is gone."""
        changed = {
            SEPARATOR.join((KEY, name)): _ENCODER.encode(self.found[name]) if name in self.found else None
            for name in sorted(self.touched)
        }
        self.touched.clear()
        return changed

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Take over what was stored; there must be nothing yet."""
        assert not self.found
        for key in sorted(items):
            kind, _, name = key.partition(SEPARATOR)
            if kind == KEY:
                self.found[name] = _DECODER.decode(items[key])


def graded(agent: Subject, against: str) -> Period | None:
    """The period of the grade with this id, if it is remembered."""
    for key in sorted(agent.grades):
        pack, window, label = key.split("|")
        if grade_id(pack, agent.level, agent.name, window, label) == against:
            return agent.series.calendar.period(window, label)
    return None


def _wanted(data: Any, appeal: Appeal) -> list[str]:
    """What a decision takes back: what the appeal is against, where that is an entry, and what is named beside it."""
    own = [entry.id for entry in appeal.kept if entry.id == appeal.against]
    return list(dict.fromkeys([*own, *data.reversals]))


def _check_remains(data: Any, entries: list[Entry]) -> None:
    """EventError unless a part of one entry, and less than all of it, can remain."""
    if not data.upheld:
        raise EventError("invalid", "$.data.remains: an appeal that is dismissed leaves everything as it is")
    if len(entries) != 1 or not entries[0].worth:
        raise EventError(
            "invalid",
            "$.data.remains: a part remains of one decision with points, and exactly one is to be named",
        )
    remains, whole = Fraction(data.remains, 100), abs(entries[0].worth)
    if remains >= whole:
        raise EventError(
            "invalid",
            f"$.data.remains: {number_text(remains)} of {number_text(whole)} points remain: give back some",
        )


def _sign(tag: str, data: Any, dossier: Dossier) -> list[Told]:
    """A goal is agreed when it was proposed and both have signed, in whatever order these arrive."""
    goal = dossier.goals.get(data.goal_id, Goal())
    before = goal.proposed and len(goal.signed) == 2
    if tag == "goal.proposed":
        goal.proposed = True
    else:
        goal.signed = sorted({*goal.signed, data.who})
    dossier.goals = _bounded(dossier.goals, data.goal_id, goal)
    if before or not goal.proposed or len(goal.signed) < 2:
        return []
    return [Told("goal.agreed", GoalAgreed(agent=data.agent, goal_id=data.goal_id), "")]


def _bounded(notes: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The notes with one more; the oldest goes when there are too many."""
    kept = {name: note for name, note in notes.items() if name != key}
    while len(kept) >= MAX_NOTES:
        del kept[next(iter(kept))]
    return kept | {key: value}

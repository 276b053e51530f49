"""Alerts of teams, queues and sites that nobody takes care of: watched in the group stage, where all of them meet.

Theory of operation. Some alerts of groups begin in the group stage, some in a partition of events (a complaint without
an agent that is not answered), and whoever acknowledges one may be in yet another partition. So partitions report what
happened to alerts of groups together with the counts of the minute: what they raised or ended to the partition of that
group, an acknowledgement to all, since it names the alert alone. Here a deadline that opens on ``alert.raised`` is
opened, met, taken back and missed as in a partition of events, by the same code (``Items``), and its rules judge the
group that the alert is about. An alert that such a deadline gives is not watched in turn.

The moments are those of the events and of the log's clock; what is reported for one minute is taken in the order of
the partitions, and only then the deadlines of that minute are missed, so that the result depends on the log alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, NoReturn

import msgspec

from kaohe.core.calendars import EPOCH
from kaohe.core.counting import Layout
from kaohe.core.evidence import Sightings
from kaohe.core.items import Items, kinds
from kaohe.core.judge import Judge
from kaohe.core.model import Effect, Pack, Rule
from kaohe.core.rulesets import RuleSet
from kaohe.core.subjects import AlertState, Subject
from kaohe.events import ENVELOPES, AlertAcknowledged, AlertEnded, AlertRaised, Envelope

GROUPS = ("queue", "team", "site")
TOLD = ("alert.raised", "alert.ended")
LOG = "alerts"
"""The subject under which alerts of all groups are kept: their ids tell them apart."""


class GroupAlert(msgspec.Struct, array_like=True):
    """What happened to an alert of a group. An acknowledgement says when and by which event; the rest is not known."""

    what: Literal["raised", "ended", "acknowledged"]
    at_ms: int
    alert_id: str
    cause: str
    level: str = ""
    name: str = ""
    pack: str = ""
    rule: str = ""
    severity: Literal["info", "medium", "high", "critical"] = "info"
    owner: str = ""
    incident: str = ""


def escalations(packs: Iterable[Pack]) -> frozenset[str]:
    """The rules (``pack|rule``) that judge what becomes of an alert: what they raise is not watched in turn."""
    found: set[str] = set()
    for pack in packs:
        names = {one.name for one in pack.deadlines.values() if one.opens in TOLD}
        found.update(f"{pack.name}|{rule.id}" for rule in _rules(pack, names))
    return frozenset(found)


def watches_groups(packs: Iterable[Pack]) -> bool:
    """Whether any pack watches what becomes of alerts of groups."""
    return any(
        set(rule.levels) & set(GROUPS)
        for pack in packs
        for rule in _rules(pack, {one.name for one in pack.deadlines.values() if one.opens == TOLD[0]})
    )


def _rules(pack: Pack, deadlines: set[str]) -> list[Rule]:
    return [
        rule for rule in pack.rules if rule.trigger == "deadline" and rule.on.partition("/")[0] in deadlines
    ]


def group_alert(
    subject: Subject, rule: Rule, effect: Effect, state: AlertState, to: str, incident: str, at_ms: int
) -> GroupAlert:  # fmt: skip
    """An alert of a group that began or ended, as it is reported."""
    return GroupAlert(
        "raised" if to == "firing" else "ended", at_ms, state.id, state.id, subject.level, subject.name, rule.pack,
        rule.id, effect.severity, effect.owner, incident,
    )  # fmt: skip


class Escalations:
    """The deadlines of groups' alerts in one partition of the group stage; the host of their items."""

    def __init__(self, judge: Judge, layout: Layout, packs: Sequence[Pack], most: int) -> None:
        self.judge = judge
        self.agents: dict[str, Subject] = {}
        self.sightings: Sightings | None = None
        self.due_ms = 0
        self.watermark_ms = 0
        self.most = most
        self.own = escalations(packs)
        self.kinds = [
            kind for kind in kinds(packs, {}, _rule_sets(layout, packs), {}) if kind.deadline.opens == TOLD[0]
        ]
        self.items = Items(self, self.kinds)
        self._waiting: list[GroupAlert] = []
        judge.on_alert = self._alerted

    def _alerted(
        self, subject: Subject, rule: Rule, effect: Effect, state: AlertState, to: str, incident: str, at_ms: int
    ) -> None:  # fmt: skip
        if f"{rule.pack}|{rule.id}" not in self.own:
            self._waiting.append(group_alert(subject, rule, effect, state, to, incident, at_ms))

    def run(self, now_ms: int) -> None:
        """Let the deadlines be missed that have passed."""
        self.watermark_ms = now_ms
        self.items.miss_before(now_ms)

    def settle(self, now_ms: int) -> None:
        """Take what the judge itself has raised and ended meanwhile."""
        self.watermark_ms = max(self.watermark_ms, now_ms)
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            for alert in waiting:
                self.take(alert)

    def take(self, alert: GroupAlert) -> None:
        """An alert of a group began, ended or was acknowledged."""
        place = tuple(alert.name if level == alert.level else "" for level in GROUPS)
        queue, team, site = place
        data: Any
        if alert.what == "acknowledged":
            data = AlertAcknowledged(alert_id=alert.alert_id, by="-")
        elif alert.what == "ended":
            data = AlertEnded(alert_id=alert.alert_id, pack=alert.pack, rule=alert.rule)
        else:
            data = AlertRaised(
                queue=queue, team=team, site=site, alert_id=alert.alert_id, pack=alert.pack, rule=alert.rule,
                severity=alert.severity, owner=alert.owner, incident=alert.incident,
            )  # fmt: skip
        tag = f"alert.{alert.what}"
        event: Envelope = ENVELOPES[tag](
            id=alert.cause,
            source="kaohe",
            subject=LOG,
            time=EPOCH + timedelta(milliseconds=alert.at_ms),
            data=data,
        )
        for kind in self.kinds:
            if tag == TOLD[0] and self.items.deadlines.has_room():
                self.items.open(kind, event, alert.at_ms, (queue, team, site))
            elif tag in kind.deadline.met_by or tag in kind.deadline.cancelled_by:
                met = tag in kind.deadline.met_by
                self.items.end(kind, event, alert.at_ms, (queue, team, site), met=met)

    # --- what items ask of their host ---------------------------------------------------------------------------------

    def subject(self, names: Mapping[str, str], level: str, time_ms: int) -> Subject | None:
        """The group of a level, made when it is new; None where there is none, or no room for it."""
        name = names[level]
        if not name or ((level, name) not in self.judge.subjects and len(self.judge.subjects) >= self.most):
            return None
        return self.judge.subject(level, name, time_ms)

    def make_agent(self, name: str, _site: str, _time_ms: int) -> NoReturn:
        """An alert of a group has no agent."""
        raise AssertionError(name)

    def count_apart(self, *_: object) -> NoReturn:
        """Nothing counts what becomes of groups' alerts."""
        raise AssertionError


def _rule_sets(layout: Layout, packs: Iterable[Pack]) -> dict[str, list[RuleSet]]:
    """The rules of groups about alerts, by deadline and outcome."""
    found: dict[str, list[RuleSet]] = {}
    for pack in packs:
        own = _rules(pack, {one.name for one in pack.deadlines.values() if one.opens == TOLD[0]})
        for level in GROUPS:
            for on in sorted({rule.on for rule in own if level in rule.levels}):
                rules = tuple(rule for rule in own if rule.on == on and level in rule.levels)
                found.setdefault(f"{pack.name}/{on}", []).append(
                    RuleSet(layout, pack, level, "deadline", on, rules)
                )
    return found

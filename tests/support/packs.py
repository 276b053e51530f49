"""Small rule packs for tests of the core: each says only what its test is about."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from kaohe.core.calendars import to_ms
from kaohe.core.counts import DISTINCT_SLOT, Cell
from kaohe.core.engine import Zones
from kaohe.core.model import Pack
from kaohe.core.replay import Replay
from kaohe.events import PAYLOADS, Envelope, make
from kaohe.packs.load import load_pack

SHANGHAI = ZoneInfo("Asia/Shanghai")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

HEAD = """
name: {name}
version: "{version}"
title: {{en: A pack for a test, zh: 测试}}
zone: {zone}
currency: CNY
in_force_from: {in_force_from}
grace: {grace}
evaluate_every: 15m
"""
CLAUSES = """
CK-01:
  kinds: [M]
  title: {en: A clause, zh: 条款}
  text: {en: Its text., zh: 条文。}
  covered_by: {%s}
"""


def moment(time_ms: int) -> datetime:
    """A moment of log time."""
    return EPOCH + timedelta(milliseconds=time_ms)


def at(text: str, zone: ZoneInfo = SHANGHAI) -> datetime:
    """A local moment (``2026-08-03T09:00``)."""
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def at_ms(text: str, zone: ZoneInfo = SHANGHAI) -> int:
    """A local moment in milliseconds."""
    return to_ms(at(text, zone))


def by_name(cell: Cell, names: dict[int, str]) -> dict[str, Any]:
    """A cell in the form in which all once were stored and reported."""
    return {names[slot]: sorted(value) if slot >= DISTINCT_SLOT else value for slot, value in cell.items()}


def make_pack(
    folder: Path,
    *,
    parameters: str = "",
    metrics: str = "",
    deadlines: str = "",
    rules: str = "",
    scorecard: str = "",
    attendance: str = "",
    name: str = "small",
    version: str = "1.0",
    zone: str = "Asia/Shanghai",
    grace: str = "72h",
    in_force_from: str = "2026-01-01",
) -> Pack:
    """A pack of one clause, through the loader. Each part is YAML, indented as one likes."""
    own = folder / f"v{version}" / name
    own.mkdir(parents=True)
    parts = {key: textwrap.dedent(text) for key, text in (
        ("parameters", parameters), ("metrics", metrics), ("deadlines", deadlines), ("rules", rules),
        ("scorecard", scorecard), ("attendance", attendance),
    )}  # fmt: skip
    head = HEAD.format(name=name, version=version, zone=zone, grace=grace, in_force_from=in_force_from)
    (own / "pack.yaml").write_text(head, encoding="utf-8")
    covered = []
    for key in ("metrics", "deadlines", "rules"):
        names = _names(parts[key], rules=key == "rules")
        if names:
            covered.append(f"{key}: [{', '.join(names)}]")
    covered += [f"{key}: true" for key in ("scorecard", "attendance") if parts[key]]
    (own / "clauses.yaml").write_text(CLAUSES % ", ".join(covered), encoding="utf-8")
    (own / "parameters.yaml").write_text(_with_clause(parts["parameters"]) or "{}\n", encoding="utf-8")
    declared = []
    for key in ("metrics", "deadlines"):
        body = _with_clause(parts[key])
        declared.append(f"{key}:\n{textwrap.indent(body, '  ')}" if body.strip() else f"{key}: {{}}\n")
    (own / "metrics.yaml").write_text("".join(declared), encoding="utf-8")
    (own / "rules.yaml").write_text(_with_clause(parts["rules"]) or "[]\n", encoding="utf-8")
    for key in ("scorecard", "attendance"):
        if parts[key]:
            (own / f"{key}.yaml").write_text("clause: CK-01\n" + parts[key], encoding="utf-8")
    return load_pack(own)


def _names(text: str, *, rules: bool) -> list[str]:
    lines = text.splitlines()
    if rules:
        return [line.removeprefix("- id:").strip() for line in lines if line.startswith("- id:")]
    return [line.split(":", 1)[0] for line in lines if line and line[0].isalpha()]


def _with_clause(text: str) -> str:
    """Every entry gets the one clause and a title."""
    found = []
    for line in text.splitlines():
        found.append(line)
        if line.startswith("- id:"):
            found += ["  clause: CK-01", "  title: {en: A rule, zh: 规则}"]
        elif line and line[0].isalpha():
            assert line.endswith(":"), f"write {line!r} as a block"
            found += ["  clause: CK-01", "  title: {en: An entry, zh: 条目}"]
    return "\n".join(found) + "\n" if text.strip() else ""


class Story:
    """A log told step by step, run through the whole core."""

    def __init__(
        self, *packs: Pack, zones: Zones | None = None, partitions: int = 1, zone: ZoneInfo = SHANGHAI
    ) -> None:
        self.replay = Replay(packs, zones=zones, partitions=partitions)
        self.zone = zone
        self.count = 0

    def event(self, when: str, tag: str, agent: str = "a-1", **fields: Any) -> Envelope:
        """An event of an agent (or of ``subject``), with its own id unless one is given."""
        self.count += 1
        event_id = fields.pop("id", f"e-{self.count}")
        subject = fields.pop("subject", agent)
        data = PAYLOADS[tag](agent=agent, **fields)
        return make(tag, id=event_id, source="test", subject=subject, time=at(when, self.zone), data=data)

    def tell(self, when: str, tag: str, agent: str = "a-1", **fields: Any) -> None:
        """An event that arrives when it happens: the clock goes to its second first."""
        event = self.event(when, tag, agent, **fields)
        self.replay.tick(to_ms(event.time) // 1000 * 1000)
        self.replay.feed(event)

    def late(self, when: str, tag: str, agent: str = "a-1", **fields: Any) -> None:
        """An event that arrives now, whenever it happened."""
        self.replay.feed(self.event(when, tag, agent, **fields))

    def tick(self, when: str) -> None:
        """Move the clock."""
        self.replay.tick(at_ms(when, self.zone))

    def ticks(self, first: str, last: str, every_ms: int = 60_000) -> None:
        """Move the clock in steps."""
        for time_ms in range(at_ms(first, self.zone), at_ms(last, self.zone) + 1, every_ms):
            self.replay.tick(time_ms)

    def decisions(self) -> list[tuple[str, str, str, str]]:
        """The newest revision of every decision: rule, period, points, status; sorted."""
        self.replay.finish()
        newest = self.replay.newest_decisions().values()
        return sorted((one.rule, one.period, one.points, one.status) for one in newest)

    def rejects(self) -> list[str]:
        """The codes of what was refused."""
        return [reject.code for reject in self.replay.rejects]

    def alerts(self) -> list[tuple[str, str, str, str]]:
        """Alerts in order: rule, subject, state, local time of day."""
        self.replay.finish()
        return [(one.rule, one.subject, one.state, one.at[11:16]) for one in self.replay.alert_list()]

    def grades(self) -> list[tuple[str, str, str, str]]:
        """The newest grade of each subject and period: period, score, grade, status."""
        self.replay.finish()
        newest = {one.id: one for one in self.replay.grade_list()}
        return sorted((one.period, one.score, one.grade, one.status) for one in newest.values())

    def figure(
        self, metric: str, window: str, period: str, subject: str = "a-1", level: str = "agent"
    ) -> Any:
        """A metric's value over a calendar period."""
        self.replay.finish()
        found = [
            one.value
            for one in self.replay.metrics()
            if (one.metric, one.window, one.period, one.subject, one.level)
            == (metric, window, period, subject, level)
        ]
        assert len(found) <= 1, found
        return found[0] if found else None

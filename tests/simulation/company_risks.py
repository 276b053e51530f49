"""The independent appraisal's risks (FD-14): satisfaction, complaint handling, training, bottleneck, resources.

What is known changes minute by minute, so each risk is a list of changes (when it shows, what is added) and a walk
along them. Nothing here comes from the engine; figures are those of ``parameters.yaml``.

How the policy was read, where its words leave a choice:

- Queues and sites are looked at by the minute, teams every five; what happened or became known in a minute shows at its
  end. A risk alerts when it has lasted for its time, and ends when what it is about is good again, or when there is
  nothing left to judge; a new month begins with nothing.
- A month is that of the site, for a team that of the company; the month before counts as it is known at the moment.
- The last hour is the sixty minutes before; what began in it counts. Somebody stays ready for calls until another state
  is told, at most for sixteen hours.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from fractions import Fraction
from typing import NamedTuple

from tests.simulation.company_check import COMPANY_ZONE, CONTENT, SITE_ZONES, Company

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
LOOKED_MS = {"team": 5 * MINUTE_MS, "site": MINUTE_MS, "queue": MINUTE_MS}
READY_MS = 16 * HOUR_MS
STATES = ("agent.logged_in", "agent.not_ready", "agent.ready", "agent.logged_out")

Sums = tuple[int, ...]
Changes = dict[int, list[int]]
"""What is added to some sums at which moment."""


class Alert(NamedTuple):
    """A risk that began or ended."""

    rule: str
    level: str
    subject: str
    state: str
    at_ms: int


class Look(NamedTuple):
    """Whether a risk is there, and whether it is over for good."""

    holds: bool
    ends: bool


class Risks:
    """All risks of a company."""

    def __init__(self, company: Company, until_ms: int) -> None:
        self.company = company
        self.until_ms = until_ms
        self.figures = company.figures["front-desk"]
        self.alerts: Counter[Alert] = Counter()
        for level in ("team", "site"):
            self._satisfaction(level)
            self._training(level)
            self._complaints(level)
        for level in ("queue", "site"):
            self._bottlenecks(level)
        self._resources()

    def _figure(self, name: str) -> Fraction:
        return self.figures.on(name, date(2026, 1, 1))

    def _walk(
        self, rule: str, level: str, subject: str, moments: Iterable[tuple[int, Look]], hold_ms: int = 0
    ) -> None:
        """Begin and end the alerts of one risk along what was seen at some moments; in between nothing changes."""
        since_ms: int | None = None
        firing = False
        for at_ms, look in [*moments, (self.until_ms, Look(False, False))]:
            if since_ms is not None and not firing and since_ms + hold_ms < at_ms:
                self.alerts[Alert(rule, level, subject, "firing", since_ms + hold_ms)] += 1
                firing = True
            if at_ms >= self.until_ms:
                return
            if firing:
                if not look.holds and look.ends:
                    self.alerts[Alert(rule, level, subject, "resolved", at_ms)] += 1
                    since_ms, firing = None, False
            elif not look.holds:
                since_ms = None
            elif since_ms is None:
                since_ms = at_ms
            if since_ms is not None and not firing and at_ms - since_ms >= hold_ms:
                self.alerts[Alert(rule, level, subject, "firing", at_ms)] += 1
                firing = True

    # --- by the month -------------------------------------------------------------------------------------------------

    def _by_month(
        self, rule: str, level: str, found: Mapping[str, Mapping[str, Changes]],
        look: Callable[[Sums, Sums], Look], hold_ms: int = 0,
    ) -> None:  # fmt: skip
        """``found`` tells, by subject and month, what changed when; ``look`` sees this month and the one before."""
        for subject, months in found.items():
            zone = SITE_ZONES.get(subject, COMPANY_ZONE)
            changes = {
                (at_ms, label, tuple(sums))
                for label, own in months.items() for at_ms, sums in own.items()
            }  # fmt: skip
            starts = {
                (self.company.zone_end(zone, label) + LOOKED_MS[level], "", (0, 0))
                for label in self.company.months()
            }
            known: dict[str, Sums] = defaultdict(lambda: (0, 0))
            moments: dict[int, Look] = {}
            for at_ms, label, sums in sorted(one for one in changes | starts if one[0] < self.until_ms):
                known[label] = (known[label][0] + sums[0], known[label][1] + sums[1])
                month = self.company.month_of(zone, at_ms - 1)
                moments[at_ms] = look(known[month], known[before(month)])
            self._walk(rule, level, subject, moments.items(), hold_ms)

    def _shares(self, level: str, where: str, good: str) -> dict[str, dict[str, Changes]]:
        """What is known of some answers by the month: how many were good, and how many there were."""
        month = "team_month" if level == "team" else "month"
        query = f"select {level}, {month}, arrived_ms, {good} from event where {where} and {level} != ''"  # noqa: S608
        found: dict[str, dict[str, Changes]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(lambda: [0, 0]))
        )
        for subject, label, arrived_ms, one in self.company.db.execute(query):
            sums = found[subject][label][shows_ms(level, arrived_ms)]
            sums[0] += one
            sums[1] += 1
        return found

    def _satisfaction(self, level: str) -> None:
        """Too few of the month's customers are content, or clearly fewer than in the month before, for an hour."""
        least, target, fall = (
            self._figure(name)
            for name in ("risk_respondents_min", "satisfaction_target", "risk_satisfaction_fall")
        )

        def look(now: Sums, old: Sums) -> Look:
            if now[1] < least:
                return Look(False, ends=True)
            share = Fraction(*now)
            falling = old[0] > 0 and share / Fraction(*old) - 1 < fall
            bad = share < target or falling
            return Look(bad, not bad)

        found = self._shares(level, "type = 'survey.customer'", f"word in {CONTENT}")
        self._by_month("fd-risk-satisfaction", level, found, look, HOUR_MS)

    def _training(self, level: str) -> None:
        """Too few of the month's results are passes."""
        least, target = self._figure("risk_training_results_min"), self._figure("risk_training_pass_target")

        def look(now: Sums, _: Sums) -> Look:
            low = now[1] >= least and Fraction(*now) < target
            return Look(low, not low)

        passed = "coalesce(json_extract(data, '$.passed'), 1)"
        self._by_month(
            "fd-risk-training", level, self._shares(level, "type = 'training.assessed'", passed), look
        )

    def _complaints(self, level: str) -> None:
        """Several complaints of the month were not answered, or not closed, inside their time."""
        most = self._figure("risk_missed_complaints")
        found: dict[str, dict[str, Changes]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(lambda: [0, 0]))
        )
        for what, ends in (
            ("response", "'complaint.responded', 'complaint.resolved', 'complaint.dismissed'"),
            ("resolution", "'complaint.resolved', 'complaint.dismissed'"),
        ):
            limit_ms = int(self._figure(f"complaint_{what}_limit") * HOUR_MS)
            # An answer in time that is told too late takes the miss back.
            query = f"""
                select {level}, at_ms + {limit_ms} as due, (select min(arrived_ms) from event e
                    where e.type in ({ends}) and e.item = o.item and e.at_ms <= o.at_ms + {limit_ms}) as told
                from event o where type = 'complaint.logged' and {level} != '' and due < {self.until_ms}
            """  # noqa: S608 - words of this module
            for subject, due_ms, told_ms in self.company.db.execute(query):
                label = self.company.month_of(SITE_ZONES.get(subject, COMPANY_ZONE), due_ms)
                if told_ms is None or told_ms > due_ms:
                    found[subject][label][shows_ms(level, due_ms)][0] += 1
                    if told_ms is not None:
                        found[subject][label][shows_ms(level, told_ms)][0] -= 1

        def look(now: Sums, _: Sums) -> Look:
            return Look(now[0] >= most, now[0] < most)

        self._by_month("fd-risk-complaint-handling", level, found, look)

    # --- by the hour --------------------------------------------------------------------------------------------------

    def _calls(self, level: str) -> Iterator[tuple[str, int, int, int]]:
        """(subject, when, known when, how long) of each call."""
        lasts = "+".join(
            f"coalesce(json_extract(data, '$.{name}_ms'), 0)" for name in ("talk", "hold", "wrap")
        )
        query = f"""
            select {level}, at_ms, arrived_ms, {lasts} from event where type = 'call.completed' and {level} != ''
        """  # noqa: S608 - words of this module
        yield from self.company.db.execute(query)

    def _add(self, changes: Changes, level: str, at_ms: int, shows: int, sums: Sums) -> None:
        """Let something count from the moment at which it shows until it is more than an hour old."""
        step_ms = LOOKED_MS[level]
        over_ms = (at_ms // step_ms * step_ms + HOUR_MS) // step_ms * step_ms + step_ms
        if shows < over_ms:
            for moment_ms, sign in ((shows, 1), (over_ms, -1)):
                changes[moment_ms] = [
                    old + sign * new for old, new in zip(changes[moment_ms], sums, strict=True)
                ]

    @staticmethod
    def _running(changes: Changes) -> Iterator[tuple[int, list[int]]]:
        sums = [0, 0, 0]
        for at_ms, added in sorted(changes.items()):
            sums = [old + new for old, new in zip(sums, added, strict=True)]
            yield at_ms, sums

    def _bottlenecks(self, level: str) -> None:
        """A reception takes too long, on the average of the last hour, for a quarter of an hour."""
        limit_ms, good_ms, least = (
            self._figure("risk_service_time_limit") * 1000, self._figure("risk_service_time_recovered") * 1000,
            self._figure("risk_served_min"),
        )  # fmt: skip
        found: dict[str, Changes] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
        for subject, at_ms, arrived_ms, lasts_ms in self._calls(level):
            self._add(found[subject], level, at_ms, shows_ms(level, arrived_ms), (lasts_ms, 1, 0))
        for subject, changes in found.items():
            moments = [
                (
                    at_ms,
                    Look(
                        count >= least and busy_ms > limit_ms * count, not count or busy_ms <= good_ms * count
                    ),
                )
                for at_ms, (busy_ms, count, _) in self._running(changes)
            ]
            self._walk("fd-risk-bottleneck", level, subject, moments, 15 * MINUTE_MS)

    def _resources(self) -> None:
        """A team that has customers is busy nearly all of its time, or little of it, for half an hour."""
        least, low, high = (
            self._figure(name)
            for name in ("risk_served_min", "risk_utilisation_lowest", "risk_utilisation_highest")
        )
        found: dict[str, Changes] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
        for team, at_ms, arrived_ms, lasts_ms in self._calls("team"):
            self._add(found[team], "team", at_ms, shows_ms("team", arrived_ms), (lasts_ms, 1, 0))
        for team, at_ms, shows, ready_ms in self._ready():
            self._add(found[team], "team", at_ms, shows, (0, 0, ready_ms))
        for team, changes in found.items():
            moments = []
            for at_ms, (busy_ms, count, ready_ms) in self._running(changes):
                fair = ready_ms > 0 and low * ready_ms <= busy_ms <= high * ready_ms
                moments.append(
                    (
                        at_ms,
                        Look(count >= least and ready_ms > 0 and not fair, not (count and ready_ms) or fair),
                    )
                )
            self._walk("fd-risk-resources", "team", team, moments, 30 * MINUTE_MS)

    def _ready(self) -> Iterator[tuple[str, int, int, int]]:
        """(team, when, shows when, how long) of the time in which people were ready for calls, five minutes each.

        When a state becomes known only later, what was thought before is taken back and put right.
        """
        step_ms = LOOKED_MS["team"]
        query = """
            select agent, at_ms, arrived_ms, type from event where type like 'agent.%'
            and agent in (select agent from event where type = 'agent.ready') order by agent, arrived_ms, pos
        """
        told: dict[str, dict[int, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for agent, at_ms, arrived_ms, kind in self.company.db.execute(query):
            told[agent][shows_ms("team", arrived_ms)].append((at_ms, STATES.index(kind)))
        for agent, versions in told.items():
            lines: list[tuple[int, int]] = []
            before: Mapping[int, int] = {}
            for known_ms, following_ms in zip(versions, [*list(versions)[1:], self.until_ms], strict=True):
                lines = sorted([*lines, *versions[known_ms]])
                now = ready_in(lines, known_ms - 2 * HOUR_MS, step_ms)
                for bucket_ms in now.keys() | before.keys():
                    over_ms, team = bucket_ms + step_ms, self.company.line_at(agent, bucket_ms).team
                    changed_ms = now.get(bucket_ms, 0) - before.get(bucket_ms, 0)
                    if over_ms < known_ms and changed_ms:
                        yield team, bucket_ms, known_ms, changed_ms
                    if known_ms <= over_ms < following_ms and now.get(bucket_ms):
                        yield team, bucket_ms, over_ms, now[bucket_ms]
                before = now


def ready_in(lines: list[tuple[int, int]], from_ms: int, step_ms: int) -> dict[int, int]:
    """For how long somebody was ready for calls in each stretch of ``step_ms``, as far back as ``from_ms``."""
    found: dict[int, int] = defaultdict(int)
    first = bisect_right(lines, (from_ms - READY_MS, 0))
    for index in range(first, len(lines)):
        at_ms, state = lines[index]
        if STATES[state] != "agent.ready":
            continue
        end_ms = min(lines[index + 1][0] if index + 1 < len(lines) else at_ms + READY_MS, at_ms + READY_MS)
        while at_ms < end_ms:
            bucket_ms = at_ms // step_ms * step_ms
            cut_ms = min(end_ms, bucket_ms + step_ms)
            found[bucket_ms] += cut_ms - at_ms
            at_ms = cut_ms
    return found


def shows_ms(level: str, arrived_ms: int) -> int:
    """The moment from which something shows that became known in the minutes before."""
    return (arrived_ms // LOOKED_MS[level] + 1) * LOOKED_MS[level]


def before(month: str) -> str:
    """The month before one."""
    number = int(month[:4]) * 12 + int(month[5:]) - 2
    return f"{number // 12}-{number % 12 + 1:02d}"

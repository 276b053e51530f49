"""The people of a simulated contact centre: sites, teams, skills, rota, and what sort of colleague each one is.

Everything here follows from the seed and the number of agents alone. A site has about 65 agents and four queues of its
own; teams have 12 to 14 agents where the number allows it. Each agent works five days of seven, in an early, middle or
late shift that changes weekly.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import msgspec

SITES = ("shanghai", "chengdu", "wuhan", "xian", "dalian", "hefei")
AGENTS_PER_SITE = 65
TEAM_SIZE = 13


class Service(msgspec.Struct, frozen=True):
    """A kind of request: its queue, its share of the calls, and how long it takes to handle."""

    name: str
    queue: str
    share: float
    talk_s: float
    first_response_min: float


SERVICES = (
    Service("enquiry", "enquiries", 0.50, 170.0, 14.0),
    Service("urgent", "hotline", 0.12, 150.0, 4.0),
    Service("order", "orders", 0.23, 220.0, 25.0),
    Service("repair", "repairs", 0.15, 290.0, 40.0),
)
HOLD_SHARE = 0.18
HOLD_S = 40.0
WRAP_S = 35.0

SHIFT_HOURS = ((8, 16), (10, 18), (13, 21))
OPEN_HOUR = 8
CLOSE_HOUR = 21
SLOT_MINUTES = 15
SLOTS = (CLOSE_HOUR - OPEN_HOUR) * 60 // SLOT_MINUTES


class Person(msgspec.Struct, frozen=True):
    """An agent. The traits are factors around 1: ``pace`` of work, ``care`` (of mistakes: more is worse), ``manners``
    (of angry customers: more is worse), ``punctuality`` (of lateness: more is worse)."""

    index: int
    id: str
    team: str
    site: str
    superior: str
    hired_on: date
    pay_base_minor: int
    skills: tuple[int, ...]
    pace: float
    care: float
    manners: float
    punctuality: float


class Shift(msgspec.Struct):
    """One person's shift on one day, in milliseconds since 1970."""

    person: int
    id: str
    day: date
    starts_ms: int
    ends_ms: int
    cancelled: bool = False


class World(msgspec.Struct, frozen=True):
    """All people and queues. ``queues[i]`` is (queue name, site, service)."""

    people: list[Person]
    queues: list[tuple[str, str, Service]]
    teams: list[tuple[str, str]]
    sites: list[str]


def split(total: int, size: int) -> list[int]:
    """``total`` in parts as even as possible, each as near to ``size`` as it can be."""
    parts = max(1, round(total / size))
    return [total // parts + (1 if part < total % parts else 0) for part in range(parts)]


def make_world(seed: int, agents: int, start: date) -> World:
    """The people and queues for a seed."""
    assert agents >= 1
    rng = Random(f"{seed}/people")
    sizes = split(agents, AGENTS_PER_SITE)
    sites = [SITES[site] if site < len(SITES) else f"site-{site + 1}" for site in range(len(sizes))]
    queues = [(f"{site}-{service.queue}", site, service) for site in sites for service in SERVICES]
    people: list[Person] = []
    teams: list[tuple[str, str]] = []
    width = max(3, len(str(agents)))
    for site, size in enumerate(sizes):
        for members in split(size, TEAM_SIZE):
            team = f"team-{len(teams) + 1:02d}"
            teams.append((team, sites[site]))
            for _ in range(members):
                index = len(people)
                people.append(
                    Person(
                        index=index,
                        id=f"a-{index + 1:0{width}d}",
                        team=team,
                        site=sites[site],
                        superior=f"lead-{team[5:]}",
                        hired_on=start - timedelta(days=rng.randrange(20, 3000)),
                        pay_base_minor=rng.randrange(4500, 9001, 100) * 100,
                        skills=_skills(rng, index, site * len(SERVICES)),
                        pace=min(1.8, max(0.6, rng.lognormvariate(0.0, 0.15))),
                        care=min(4.0, rng.lognormvariate(-0.1, 0.5)),
                        manners=min(4.0, rng.lognormvariate(-0.1, 0.5)),
                        punctuality=min(6.0, rng.lognormvariate(-0.2, 0.7)),
                    )
                )
    return World(people, queues, teams, sites)


def _skills(rng: Random, index: int, first_queue: int) -> tuple[int, ...]:
    """Everybody serves enquiries; the other queues are dealt out in turn, with a few people who know a second one."""
    skills = {0, 1 + index % 3}
    if rng.random() < 0.4:
        skills.add(1 + rng.randrange(3))
    return tuple(first_queue + skill for skill in sorted(skills))


def local_ms(day: date, zone: ZoneInfo, hour: int = 0, minute: int = 0) -> int:
    """A local wall time as milliseconds since 1970."""
    moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
    return (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def shifts_of(world: World, day: date, zone: ZoneInfo) -> list[Shift]:
    """The shifts that the rota plans for ``day``."""
    planned = []
    week = day.toordinal() // 7
    for person in world.people:
        if (day.toordinal() + person.index * 3) % 7 >= 5:
            continue
        begins, ends = SHIFT_HOURS[(person.index // 3 + week) % len(SHIFT_HOURS)]
        planned.append(
            Shift(
                person.index,
                f"{person.id}-{day.isoformat()}",
                day,
                local_ms(day, zone, begins),
                local_ms(day, zone, ends),
            )
        )
    return planned

"""Which packs, zones and engines a process works with: the one place where they are put together."""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kaohe.errors import UsageError
from kaohe.settings import Settings

if TYPE_CHECKING:
    from kaohe.adapters.pseudonyms import Pseudonyms
    from kaohe.core.engine import PartitionEngine, Zones
    from kaohe.core.group import GroupEngine
    from kaohe.core.model import Pack


def chosen_packs(settings: Settings, named: Sequence[str] = ()) -> tuple[Pack, ...]:
    """The packs that judge: those named, else those of the settings."""
    from kaohe.packs.load import load_packs

    return load_packs(list(named) or list(settings.packs), folder_of_packs(settings))


def folder_of_packs(settings: Settings) -> Path:
    """Where packs are found by name."""
    from kaohe.packs.load import rules_dir

    return Path(settings.rules) if settings.rules else rules_dir()


def chosen_zones(settings: Settings, packs: Sequence[Pack]) -> Zones:
    """The zones of sites; every other one keeps the packs' zone."""
    from kaohe.core.engine import Zones

    for site, zone in settings.sites.items():
        zone_named(zone, f"the zone of site {site}")
    return Zones(default=packs[0].zone, sites=dict(settings.sites))


def zone_named(name: str, what: str = "--zone") -> ZoneInfo:
    """A time zone by name; UsageError when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"{what}: {name!r} is no time zone; give one such as Asia/Shanghai.") from None


def chosen_pseudonyms() -> Pseudonyms:
    """How customers' numbers become pseudonyms, by the key of the environment."""
    from kaohe.adapters.pseudonyms import Pseudonyms

    return Pseudonyms.from_environment(os.environ)


def engine_factories(
    settings: Settings, packs: tuple[Pack, ...]
) -> tuple[Callable[[int], PartitionEngine], Callable[[int], GroupEngine]]:
    """What makes the engine of a partition, and that of a partition of groups."""
    from kaohe.core.engine import PartitionEngine
    from kaohe.core.group import GroupEngine

    zones = chosen_zones(settings, packs)

    def make_partition(partition: int) -> PartitionEngine:
        return PartitionEngine(
            packs, zones=zones, partition=partition, group_partitions=settings.group_partitions
        )

    def make_group(partition: int) -> GroupEngine:
        return GroupEngine(packs, zones=zones, partition=partition, source_partitions=settings.partitions)

    return make_partition, make_group

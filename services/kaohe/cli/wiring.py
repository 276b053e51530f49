"""Which packs, zones and engines a process works with: the one place where they are put together."""

# ruff: noqa: PLC0415 - what is heavy is imported by the command that needs it

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kaohe.errors import UsageError
from kaohe.settings import Settings

if TYPE_CHECKING:
    from kaohe.adapters.pseudonyms import Pseudonyms
    from kaohe.core.engine import Zones
    from kaohe.core.model import Pack
    from kaohe.core.shadow import BesideGroup, BesidePartition

logger = logging.getLogger(__name__)


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


def chosen_shadows(settings: Settings, packs: Sequence[Pack], named: Sequence[str] = ()) -> tuple[Pack, ...]:
    """The versions that judge beside ``packs`` without effect: those named, else those of the settings."""
    from kaohe.core.shadow import check_shadows, with_shadows
    from kaohe.packs.load import check_together, load_packs

    wanted = list(named) or list(settings.shadow_packs)
    shadows = load_packs(wanted, folder_of_packs(settings)) if wanted else ()
    check_shadows(packs, shadows)
    for error in check_together(with_shadows(packs, shadows)):
        raise error
    return shadows


def engine_factories(
    settings: Settings,
    packs: tuple[Pack, ...],
    shadows: tuple[Pack, ...] = (),
    on_failure: Callable[[str], None] = logger.error,
) -> tuple[Callable[[int], BesidePartition], Callable[[int], BesideGroup]]:
    """What makes the engine of a partition, and that of a partition of groups, each with the shadows beside it.

    ``on_failure`` is told, in one sentence, why a shadow stopped.
    """
    from kaohe.core.engine import PartitionEngine
    from kaohe.core.group import GroupEngine
    from kaohe.core.shadow import BesideGroup, BesidePartition, ShadowGroup, ShadowPartition

    zones = chosen_zones(settings, packs)

    def make_partition(partition: int) -> BesidePartition:
        options: dict[str, Any] = {
            "zones": zones, "partition": partition, "group_partitions": settings.group_partitions,
        }  # fmt: skip
        shadow = ShadowPartition(packs, shadows, **options) if shadows else None
        return BesidePartition(PartitionEngine(packs, **options), shadow, shadows, on_failure)

    def make_group(partition: int) -> BesideGroup:
        options: dict[str, Any] = {
            "zones": zones, "partition": partition, "source_partitions": settings.partitions,
        }  # fmt: skip
        shadow = ShadowGroup(packs, shadows, **options) if shadows else None
        return BesideGroup(GroupEngine(packs, **options), shadow, shadows, on_failure)

    return make_partition, make_group

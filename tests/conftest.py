"""What holds for every test: the settings of whoever runs it stay outside, and random tests can be repeated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Speed belongs to the machine, so no example fails for being slow. In CI the examples are the same in every run.
settings.register_profile("kaohe", deadline=None, print_blob=True)
settings.register_profile("kaohe-ci", parent=settings.get_profile("kaohe"), derandomize=True)
settings.load_profile("kaohe-ci" if os.environ.get("CI") else "kaohe")

KEPT_PREFIX = "KAOHE_TEST_"

# The quick folders first, so that a mistake shows in seconds and not behind the brokers.
QUICK_FIRST = ("unit", "packs", "replay")
# Where several processes share the tests, a module of these folders stays in one: its recordings are costly to make.
TOGETHER = ("replay", "simulation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests by folder; within a folder they keep their order."""

    def place(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return QUICK_FIRST.index(folder) if folder in QUICK_FIRST else len(QUICK_FIRST)

    items.sort(key=place)
    for item in items:
        if item.path.parent.name in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("KAOHE_") and not name.startswith(KEPT_PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top folder of the repository."""
    return Path(__file__).resolve().parents[1]

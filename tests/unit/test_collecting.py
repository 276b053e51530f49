"""Garbage that refers to itself is looked for rarely, but it is looked for."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest

from kaohe import collecting as module
from kaohe.collecting import collecting_rarely


class Knot:
    """Refers to itself."""

    def __init__(self) -> None:
        self.self = self


def test_afterwards_everything_is_as_it_was_even_after_an_error() -> None:
    before = gc.get_threshold()
    with contextlib.suppress(ZeroDivisionError), collecting_rarely():
        assert gc.get_threshold() == (100_000, 50, 100)
        assert gc.get_freeze_count() > 1_000
        raise ZeroDivisionError
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_a_cycle_is_freed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "YOUNG_OBJECTS", 2_000)
    with collecting_rarely():
        knot = weakref.ref(Knot())
        assert knot() is not None, "not looked for at once"
        kept = [[number] for number in range(3_000)]
        assert knot() is None
        assert len(kept) == 3_000

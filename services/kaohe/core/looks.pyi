from collections.abc import Iterable, Sequence
from typing import Any, final

from kaohe.core.calendars import Period
from kaohe.core.counts import Series
from kaohe.core.subjects import AlertState
from kaohe.core.watching import Watching

MAX_TESTS: int
MAX_TERMS: int
MAX_FACTOR: int

class Look:
    def __init__(
        self,
        windows: Sequence[tuple[str, int]],
        variables: Sequence[tuple[int, bool, tuple[tuple[int, int], ...]]],
        comparisons: Sequence[Any],
        passing: Sequence[Iterable[int]],
        begin: int,
    ) -> None: ...
    def __call__(self, series: Series, periods: tuple[Period, ...], ending: bool, /) -> int: ...
    def judged(
        self, series: Series, periods: tuple[Period, ...], alerts: dict[str, AlertState], bits: dict[str, int]
    ) -> tuple[int, int]: ...

@final
class Glance: ...

def look_at(host: Watching, keys: list[tuple[str, str]], now_ms: int) -> None: ...

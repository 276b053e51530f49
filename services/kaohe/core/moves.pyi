from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias, TypeVar, final

from kaohe.core.calendars import Period
from kaohe.core.counts import Series
from kaohe.core.subjects import Subject

MAX_NUMBERS: int
MAX_TERMS: int
MAX_FACTOR: int

Key: TypeAlias = tuple[str, str]
Term: TypeAlias = tuple[int, ...]
_Turns = TypeVar("_Turns")

class Verdicts:
    def __init__(
        self,
        variables: Sequence[tuple[int, tuple[tuple[int, int], ...]]],
        comparisons: Sequence[tuple[str, Sequence[Term]]],
        rules: Sequence[tuple[Sequence[int], Sequence[tuple[int, int, Sequence[Term], Sequence[Term]]]]],
    ) -> None: ...
    def __call__(self, series: Series, periods: tuple[Period, ...], /) -> bytes | None: ...

@final
class Standing:
    def __init__(self, periods: tuple[Period, ...], verdicts: Verdicts) -> None: ...
    @property
    def periods(self) -> tuple[Period, ...]: ...
    @property
    def verdicts(self) -> Verdicts: ...
    def moved(self, name: str, series: Series) -> list[int] | None: ...
    def forget(self, name: str) -> None: ...

def to_judge(
    waiting: dict[Key, frozenset[Period]],
    subjects: dict[Key, Subject],
    turns_of: Callable[[Subject, frozenset[Period]], tuple[_Turns, tuple[tuple[Standing, int], ...] | None]],
    pack: str,
) -> list[tuple[Key, _Turns]]: ...
def fold(
    opened: set[Key], subjects: dict[Key, Subject], now_ms: int
) -> tuple[
    dict[tuple[str, tuple[Period, ...]], list[Key]], list[tuple[Subject, Collection[Period]]], list[Key]
]: ...
def wait(waiting: dict[Key, frozenset[Period]], keys: list[Key], periods: frozenset[Period]) -> None: ...

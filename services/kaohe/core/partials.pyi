from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from kaohe.core.calendars import Period
from kaohe.core.counts import Cell
from kaohe.core.subjects import Subject

@final
class Writer:
    terms: list[str]
    def __init__(self, names: dict[int, str]) -> None: ...
    def write(self, cell: Cell) -> bytes: ...
    def take(
        self,
        level: str,
        groups: dict[str, dict[int, Cell]],
        before: int,
        bucket_ms: int,
        shares: Sequence[list[Any]],
        targets: Mapping[str, int],
    ) -> None: ...

@final
class Reader:
    def __init__(self, terms: list[str], slots: dict[str, int]) -> None: ...
    def read(self, packed: bytes | dict[str, Any]) -> Cell: ...
    def put(self, groups: list[Any], cells: dict[tuple[str, str, int], Cell]) -> None: ...

def add_up(
    cells: dict[tuple[str, str, int], Cell],
    subjects: dict[tuple[str, str], Subject],
    make: Callable[[str, str, int], Subject | None],
    now_ms: int,
) -> dict[tuple[str, tuple[Period, ...]], list[tuple[str, str]]]: ...
def put_together(
    waiting: list[Any],
    uses: list[Any],
    levels: list[Any],
    change_of: Callable[[], Any],
    sighting_of: Callable[..., Any],
    cut: Callable[[list[Any], int], None],
) -> None: ...
def past_ones(groups: dict[str, dict[int, Any]], before: int) -> list[tuple[str, int, Any]]: ...

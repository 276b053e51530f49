from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, final

from kaohe.core.counts import Cell, Counter, Series
from kaohe.core.deadlines import Deadlines
from kaohe.core.dossiers import Told
from kaohe.core.evidence import Seeing
from kaohe.core.items import Items, Kind
from kaohe.core.judge import Judge
from kaohe.core.records import Output, Record
from kaohe.core.rulesets import RuleSet
from kaohe.core.seen import Seen
from kaohe.core.subjects import Subject
from kaohe.events import Envelope, Payload

GROUP_BUCKET_MS: int
AGENT_BUCKET_MS: int
LATE_MS: int
FUTURE_MS: int
MAX_SHIFT_MS: int
MAX_VALUES: int
MAX_FIELDS: int

def moment_ms(moment: datetime) -> int: ...
def is_pseudonym(word: str) -> bool: ...

@final
class Source:
    fresh: list[str]

    def __init__(self) -> None: ...
    @property
    def ids(self) -> set[str]: ...
    def forget(self, ids: list[str]) -> None: ...

class Ids:
    sources: dict[str, Source]
    fresh: int
    full: int
    minute: int

class Known:
    first_seen_ms: int
    roster_from_ms: int
    team: str
    site: str
    closed_elsewhere: dict[str, str]
    state: str
    state_from_ms: int
    state_since_ms: int

    def __init__(self, key: tuple[str, str], series: Series, first_seen_ms: int) -> None: ...
    @property
    def key(self) -> tuple[str, str]: ...
    @property
    def series(self) -> Series: ...

@final
class Sieve:
    def __init__(
        self, payload: type[Payload], values: Sequence[tuple[tuple[tuple[str, int], ...], int, int]]
    ) -> None: ...
    def __call__(self, data: Any) -> bool: ...

class Route:
    count: Counter | None
    special: Callable[[Envelope, int, Subject | None], None] | None
    seeing: Seeing | None
    sieve: Sieve | None
    rules: list[RuleSet]
    opens: list[Kind]
    meets: list[Kind]
    cancels: list[Kind]

    def __init__(self, tag: str, envelope: type[Envelope], payload: type) -> None: ...
    @property
    def tag(self) -> str: ...
    @property
    def taken(self) -> int: ...
    @property
    def more(self) -> bool: ...
    def settle(self) -> None: ...

class Intake:
    judge: Judge
    items: Items
    deadlines: Deadlines
    now_ms: int | None
    tick_class: type[Envelope]
    due_ms: int
    agents: dict[str, Subject]
    queues: dict[str, dict[int, Cell]]
    teams: dict[str, dict[int, Cell]]
    sites: dict[str, dict[int, Cell]]
    plans: dict[type, Route]
    seen: Seen
    working: set[str]
    state_counts: dict[str, tuple[Counter, ...]]
    agents_own_states: bool
    _waiting: list[tuple[str, Told, int]]

    def apply(self, records: Iterable[Record]) -> list[Output]: ...
    def take(self, event: Envelope) -> None: ...
    def tick(self, time_ms: int) -> None: ...
    def count_apart(
        self,
        counters: tuple[Counter, ...],
        data: Any,
        at_ms: int,
        agent: Subject | None,
        place: tuple[str, str, str],
        weight: int,
    ) -> None: ...
    def accrue(self, now_ms: int) -> None: ...
    def spend(self, agent: Subject, state: str, from_ms: int, to_ms: int, weight: int) -> None: ...

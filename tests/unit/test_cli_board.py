"""The live board and the end of the demonstration, from samples and entries made by hand."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from kaohe import metric_names as names
from kaohe.cli import standing
from kaohe.cli.board import Board, Figures, agent_rows, figures_of
from kaohe.cli.showing import Done, chosen_for_explaining
from kaohe.cli.standing import Month
from kaohe.decisions import Decision, Grade, Words
from kaohe.errors import KaoheError
from kaohe.settings import Settings
from tests.support.ledger_entries import decision as make_decision
from tests.support.ledger_entries import grade as make_grade

ZONE = "Asia/Shanghai"
NOON = datetime(2026, 8, 4, 12, 0, 30, tzinfo=ZoneInfo(ZONE))


def sample(value: float, **labels: str) -> Any:
    """One sample of a scrape."""
    return SimpleNamespace(value=value, labels=labels)


def decision(number: int, rule: str, points: str, **other: Any) -> Decision:
    """A final entry about an agent of the front desk."""
    kind = "award" if float(points) > 0 else "deduct"
    given = {"status": "final", "pack": "front-desk", "subject": "a-001", "window": "month"} | other
    words = Words(f"because of {rule}", "因为")
    return make_decision(id=f"d-{number}", rule=rule, points=points, kind=kind, explanation=words, **given)


def grade(subject: str, score: str, letter: str, **other: Any) -> Grade:
    """A final grade of the front desk."""
    given = {"status": "final", "pack": "front-desk", "period": "2026-08"} | other
    return make_grade(id=f"g-{subject}", subject=subject, score=score, grade=letter, **given)


SAMPLES: dict[str, list[Any]] = {
    names.METRIC_VALUE.name: [
        sample(0.75, level="queue", metric="service_level", window="day", subject="orders"),
        sample(0.5, level="queue", metric="service_level", window="month", subject="orders"),
        sample(0.25, level="queue", metric="service_level", window="rolling_15m", subject="orders"),
        sample(1.0, level="site", metric="service_level", window="day", subject="shanghai"),
        sample(3.0, level="queue", metric="calls_waiting", window="now", subject="orders"),
    ],
    names.ALERT_FIRING.name: [sample(1.0, rule="ck-service-level-low", level="queue", subject="orders")],
    names.ALERTS_FIRING.name: [
        sample(1.0, rule="ck-service-level-low", level="queue"),
        sample(2.0, rule="fd-flow-breach", level="agent"),
    ],
    names.DECISIONS.name: [sample(4.0, stage="events"), sample(1.0, stage="groups")],
    names.EVENTS.name: [sample(90.0), sample(8.0)],
    names.DUPLICATES.name: [sample(2.0)],
    names.WATERMARK.name: [
        sample(NOON.timestamp(), stage="events", partition="0"),
        sample(NOON.timestamp() + 5, stage="events", partition="1"),
        sample(NOON.timestamp() - 30, stage="groups", partition="0"),
        sample(NOON.timestamp() - 30, stage="groups", partition="1"),
    ],
}


def make_board(figures: Figures) -> Board:
    """A board of two partitions that has seen these figures."""
    settings = Settings(partitions=2, group_partitions=2, database_url="sqlite:///none.db")
    board = Board(settings, ZONE, "a simulated month", (date(2026, 8, 1), 31))
    board._figures = figures  # what a scrape would have left
    return board


def text_of(board: Board, width: int) -> list[str]:
    """The lines that a terminal of this width would show."""
    console = Console(width=width, record=True, file=StringIO())
    console.print(board.table())
    return console.export_text().splitlines()


def test_figures_come_from_the_samples_of_queues() -> None:
    figures = figures_of(SAMPLES)
    assert (figures.today, figures.month, figures.waiting) == (
        {"orders": 0.75},
        {"orders": 0.5},
        {"orders": 3.0},
    )
    assert figures.firing == ["service level low (orders)", "flow breach (agents: 2)"]
    assert (figures.decisions, figures.events) == (5, 100)
    assert figures.clock_s == NOON.timestamp() - 30


def test_an_empty_scrape_shows_nothing_and_has_passed_nothing() -> None:
    board = make_board(figures_of({}))
    assert not board.has_passed(datetime(1970, 1, 1, tzinfo=UTC))
    assert not board.ledger_is_complete()
    assert "before the first event" in board.line()
    assert any("starting" in line for line in text_of(board, 80))


def test_a_moment_is_passed_when_every_partition_of_both_stages_has_passed_it() -> None:
    board = make_board(figures_of(SAMPLES))
    assert board.has_passed(NOON)
    assert not board.has_passed(NOON + timedelta(seconds=1))
    figures = figures_of(SAMPLES)
    del figures.clocks_s["groups", "1"]
    assert not make_board(figures).has_passed(NOON)


def test_agents_stand_by_what_was_deducted() -> None:
    entries = [
        decision(1, "r1", "-2", subject="a-001"),
        decision(2, "r2", "-5", subject="a-002"),
        decision(3, "r3", "3", subject="a-002"),
        decision(4, "r1", "-9", subject="a-001", period="2026-07"),
        decision(5, "r1", "-9", subject="orders", level="queue"),
    ]
    rows = agent_rows(
        entries, [grade("a-001", "98", "A"), grade("a-003", "100", "A", period="2026-09")], "2026-08"
    )
    assert list(rows) == ["a-002", "a-001"]
    assert (rows["a-002"].deducted, rows["a-002"].awarded) == (-5, 3)
    assert rows["a-001"].grades["front-desk"].score == "98"


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_board_fits_the_terminal(width: int) -> None:
    board = make_board(figures_of(SAMPLES))
    board.ledger.entries = [decision(1, "r1", "-2")]
    board.ledger.grades = [grade("a-001", "98", "A", status="provisional")]
    lines = text_of(board, width)
    assert max(len(line) for line in lines) <= width
    text = "\n".join(lines)
    for part in (
        "Tue 04 Aug 2026 12:00",
        "orders",
        "75.0%",
        "50.0%",
        "a-001",
        "−2",
        "98 A …",
        "because of r1",
    ):
        assert part in text


def test_explained_are_different_rules_packs_and_people() -> None:
    entries = [
        decision(1, "fd-a", "-9"),
        decision(2, "fd-a", "-8", subject="a-002"),
        decision(3, "fd-b", "-7"),
        decision(4, "ls-a", "-1", pack="logistics-service", subject="a-002"),
        decision(5, "ls-b", "2", pack="logistics-service", subject="a-003"),
        decision(6, "fd-c", "-20", status="provisional"),
    ]
    assert [entry.rule for entry in chosen_for_explaining(entries)] == ["fd-a", "ls-b", "ls-a"]
    assert len(chosen_for_explaining(entries[:2])) == 2
    assert chosen_for_explaining([]) == []


@pytest.mark.parametrize(
    ("first", "days", "closed"),
    [
        (date(2026, 8, 1), 31, date(2026, 9, 4)),
        (date(2026, 8, 1), 3, date(2026, 9, 4)),
        (date(2026, 12, 30), 2, date(2027, 1, 4)),
    ],
)
def test_the_month_closes_after_its_grace(first: date, days: int, closed: date) -> None:
    expected = datetime(closed.year, closed.month, closed.day, 1, tzinfo=ZoneInfo(ZONE))
    assert Month(1, 2, days, first, ZONE).closed_at(timedelta(days=3, hours=1)) == expected


def test_a_month_is_events_with_ticks_between_them() -> None:
    month = Month(1, 2, 1, date(2026, 8, 3), ZONE)
    entries = list(month.entries())
    assert any(entry.subject for entry in entries)
    assert any(not entry.subject for entry in entries)
    assert month.last_at == entries[-1].at


class FakeBoard:
    """A board whose clocks and ledger the test moves."""

    def __init__(self) -> None:
        self.passed: datetime | None = None
        self.complete = False
        self.kept = False
        self.ledger = SimpleNamespace(rows=1)

    def has_passed(self, moment: datetime) -> bool:
        return self.passed is not None and self.passed >= moment

    def keep_figures(self) -> None:
        self.kept = True

    def ledger_is_complete(self) -> bool:
        return self.complete


class FakeFeeder:
    """A feeder that is where the test says."""

    def __init__(self) -> None:
        self.written = threading.Event()
        self.close = threading.Event()
        self.closing = NOON + timedelta(days=30)
        self.month = SimpleNamespace(last_at=NOON)
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive


def test_the_month_is_over_when_all_is_judged_and_the_ledger_is_complete() -> None:
    board, feeder = FakeBoard(), FakeFeeder()
    done = Done(cast(Any, feeder), cast(Any, board))
    assert not done()
    feeder.written.set()
    assert not done()
    assert not feeder.close.is_set(), "the events before the closing tick are not judged yet"
    board.passed = NOON
    assert not done()
    assert feeder.close.is_set()
    assert board.kept
    feeder.alive = False
    board.passed = feeder.closing
    assert not done()
    board.complete = True
    assert done()


def test_a_month_that_does_not_end_is_given_up() -> None:
    done = Done(cast(Any, FakeFeeder()), cast(Any, FakeBoard()), give_up_s=-1.0)
    with pytest.raises(KaoheError, match="was not over"):
        done()


def test_the_packs_are_our_own_wherever_one_stands(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(standing.RULES_VARIABLE, raising=False)
    (tmp_path / "rules").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (standing.own_rules() / "front-desk" / "pack.yaml").is_file()
    monkeypatch.setenv(standing.RULES_VARIABLE, str(tmp_path))
    assert standing.own_rules() == tmp_path

"""What a decision points to: exactly the events that speak for it, bounded, counted, the same in any order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import msgspec.inspect
import pytest

from kaohe.adapters.base import SourceItem
from kaohe.core.calendars import calendar
from kaohe.core.counting import Layout
from kaohe.core.counts import Series
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.evidence import keep, witnesses
from kaohe.core.intake import GROUP_BUCKET_MS
from kaohe.core.model import Pack
from kaohe.core.subjects import MAX_EVIDENCE, Evidence, Sighting, Subject, load, revive, store
from kaohe.decisions import Decision
from kaohe.errors import UsageError
from kaohe.events import PAYLOADS, Envelope
from kaohe.explain_events import events_of
from kaohe.packs.load import load_packs
from tests.support.core_runs import Timed, run_all
from tests.support.packs import SHANGHAI, at_ms, make_pack
from tests.support.packs import Story as PlainStory

SHIPPED = ("contact-centre", "front-desk", "logistics-service", "company-kpi", "full-attendance", "reception")
PARAMETERS = """
limit:
  unit: s
  min: 1
  max: 600
  values: {2026-01-01: 30, 2026-08-15: 60}
share:
  unit: ratio
  min: 0
  max: 1
  values: {2026-01-01: 0.9}
some:
  unit: count
  min: 0
  max: 100
  values: {2026-01-01: 3}
quick:
  unit: h
  min: 1
  max: 100
  values: {2026-01-01: 2}
"""
METRICS = """
satisfied:
  share: {of: survey.customer, where: 'event.satisfaction in ["very_satisfied", "satisfied"]'}
  level: [agent, team]
  windows: [month]
wait:
  mean: {field: wait_ms, of: call.answered}
  level: [agent, team, queue]
  windows: [month, rolling 15m]
handling:
  mean: {field: [talk_ms, hold_ms], of: call.completed}
  level: [agent]
  windows: [month]
level_held:
  service_level: {threshold: p.limit, abandoned: counted}
  level: [agent, queue]
  windows: [month, rolling 15m]
steps:
  ratio: {of: {sum: {field: steps_followed, of: flow.audited}}, to: {sum: {field: steps_checked, of: flow.audited}}}
  level: [agent]
  windows: [month]
costs:
  sum: {field: amount_minor, of: cost.booked}
  level: [agent]
  windows: [month]
errors:
  ratio: {of: error.recorded, to: call.completed}
  level: [agent]
  windows: [month]
answered_in_time:
  ratio:
    of: {deadline: response, outcome: met}
    to: [{deadline: response, outcome: met}, {deadline: response, outcome: missed}]
  level: [agent, team]
  windows: [month]
talking:
  ratio: {of: {sum: {field: talk_ms, of: call.completed}}, to: {sum: {state: logged_in}}}
  level: [agent]
  windows: [month]
"""
DEADLINES = """
response:
  opens: complaint.logged
  key: complaint_id
  met_by: [complaint.responded]
  cancelled_by: [complaint.dismissed]
  within: p.quick
"""
ALERT = """{alert: {
      severity: high, owner: team_leader, response: {en: Look., zh: 查看。}, clear: wait.rolling_15m.base == 0}}"""
TASK = "{task: {title: {en: Talk., zh: 面谈。}, owner: team_leader, due: 1d}}"
DEDUCT = "{deduct: {points: 1}}"


def rule(name: str, when: str, then: str = DEDUCT, **more: str) -> str:
    keys = {"level": "[agent]", "judged": "month"} | more
    if "watch" in keys:
        del keys["judged"]
    lines = [f"- id: {name}", *(f"  {key}: {text}" for key, text in keys.items())]
    return "\n".join([*lines, f"  when: {when}", f"  then: [{then}]", ""])


RULES = "".join((
    rule("dissatisfied", "satisfied.month < p.share", level="[agent, team]"),
    rule("content", "satisfied.month >= p.share", then="{award: {points: 1}}"),
    rule("waits", "wait.month > p.limit", level="[agent, team]"),
    rule("short-waits", "wait.month <= 20", then="{award: {points: 1}}"),
    rule("handles-longer", "handling.month.vs_previous > 0"),
    rule("unheld", "level_held.month < p.share"),
    rule("steps-left-out", "steps.month < p.share"),
    rule("expensive", "costs.month > 0"),
    rule("errs", "errors.month > 0"),
    rule("answers-late", "answered_in_time.month < 1", level="[agent, team]"),
    rule("both-ways", "satisfied.month < p.share || satisfied.month > 0"),
    rule("enough", "satisfied.month.base >= 1"),
    rule("talks", "talking.month > 0 || costs.month > 0", evidence="nothing"),
    rule("own", "costs.month > 0", evidence="{event: flow.audited, where: event.steps_followed < 5}"),
    rule("to-do", "satisfied.month < p.share", TASK, at_close_only="true"),
    rule("uncounted", "satisfied.month < p.share", level="[team]", evidence="meeting.held"),
    rule("queue-waits", "wait.rolling_15m > p.limit", ALERT, level="[queue]", watch="live"),
))  # fmt: skip


class Story(PlainStory):
    """A story whose events need not name what they are about."""

    def event(self, when: str, tag: str, agent: str = "a-1", **fields: Any) -> Envelope:
        for field in msgspec.structs.fields(PAYLOADS[tag]):
            if field.required and field.name not in ("agent", *fields):
                fields[field.name] = "x" if field.type is str else 0
        return super().event(when, tag, agent, **fields)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("pack")
    return make_pack(folder, parameters=PARAMETERS, deadlines=DEADLINES, metrics=METRICS, rules=RULES)


def final(story: Story, name: str, subject: str = "a-1", period: str = "2026-08") -> tuple[list[str], int]:
    """The evidence of the final entry of a rule; none at all when it did not come."""
    story.replay.finish()
    found = [
        (one.evidence, one.evidence_count)
        for one in story.replay.newest_decisions().values()
        if (one.rule, one.subject, one.period, one.status) == (name, subject, period, "final")
    ]
    assert len(found) <= 1, found
    return found[0] if found else ([], 0)


@pytest.fixture(scope="module")
def august(pack: Pack) -> Story:
    """Events of one agent of which some speak for each rule; each id says which."""
    story = Story(pack)
    story.tick("2026-07-06T08:00")
    story.tell("2026-07-06T09:00", "call.completed", id="july", talk_ms=1000)
    for hour, answer in enumerate(("satisfied", "neutral", "very_satisfied", "dissatisfied")):
        story.tell(f"2026-08-03T{9 + hour:02}:00", "survey.customer", id=answer, satisfaction=answer)
    for hour, wait_s in enumerate((31, 10, 400, 30)):
        story.tell(
            f"2026-08-04T{9 + hour:02}:00", "call.answered", id=f"wait-{wait_s}", wait_ms=1000 * wait_s
        )
    # From here on a minute is the limit.
    story.tell("2026-08-20T09:00", "call.answered", id="wait-60-later", wait_ms=60_000)
    story.tell("2026-08-20T10:00", "call.answered", id="wait-61-later", wait_ms=61_000)
    story.tell("2026-08-20T11:00", "call.abandoned", id="gone", wait_ms=3000)
    for hour, talk_ms in enumerate((5000, 9000, 7000)):
        story.tell(f"2026-08-21T{9 + hour:02}:00", "call.completed", id=f"talk-{talk_ms}", talk_ms=talk_ms)
    for hour, followed in enumerate((5, 4, 1)):
        story.tell(f"2026-08-22T{9 + hour:02}:00", "flow.audited", id=f"steps-{followed}", audit_id="f",
                   steps_checked=5, steps_followed=followed)  # fmt: skip
    for hour, amount in enumerate((100, 900, 0)):
        story.tell(f"2026-08-23T{9 + hour:02}:00", "cost.booked", id=f"cost-{amount}", amount_minor=amount)
    story.tell("2026-08-24T09:00", "error.recorded", id="error")
    for key in ("in-time", "missed", "taken-back"):
        story.tell("2026-08-25T09:00", "complaint.logged", id=key, complaint_id=key)
    story.tell("2026-08-25T10:00", "complaint.responded", complaint_id="in-time")
    story.tell("2026-08-25T12:00", "complaint.responded", complaint_id="missed")
    story.late("2026-08-25T10:30", "complaint.responded", complaint_id="taken-back")
    story.tick("2026-09-05T00:00")
    return story


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("dissatisfied", ["neutral", "dissatisfied"]),
        ("waits", ["wait-400", "wait-61-later", "wait-31"]),
        ("handles-longer", ["talk-9000", "talk-7000", "talk-5000"]),
        ("unheld", ["wait-31", "wait-400", "wait-61-later", "gone"]),
        ("steps-left-out", ["steps-1", "steps-4"]),
        ("expensive", ["cost-900", "cost-100"]),
        ("errs", ["error"]),
        ("answers-late", ["missed"]),
        ("both-ways", ["satisfied", "neutral", "very_satisfied", "dissatisfied"]),
        ("enough", ["satisfied", "neutral", "very_satisfied", "dissatisfied"]),
        ("talks", []),
        ("own", ["steps-4", "steps-1"]),
    ],
)
def test_a_decision_names_the_events_that_speak_for_it(august: Story, name: str, ids: list[str]) -> None:
    assert final(august, name) == (ids, len(ids))


def test_what_speaks_for_somebody_is_named_as_well(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-08-03T08:00")
    for minute, wait_s in enumerate((19, 25, 5, 20)):
        story.tell(f"2026-08-03T09:{minute:02}", "call.answered", id=f"wait-{wait_s}", wait_ms=1000 * wait_s)
    story.tell("2026-08-03T10:00", "survey.customer", id="satisfied", satisfaction="satisfied")
    story.tick("2026-09-05T00:00")
    assert final(story, "short-waits") == (["wait-5", "wait-19", "wait-20"], 3)
    assert final(story, "content") == (["satisfied"], 1)


def test_twenty_are_named_and_all_are_counted_and_a_late_one_takes_its_place(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-08-03T08:00")
    for minute in range(57):
        story.tell(
            f"2026-08-03T09:{minute:02}", "survey.customer", id=f"n-{minute:02}", satisfaction="neutral"
        )
    story.late("2026-08-03T09:05", "survey.customer", id="n-04-late", satisfaction="neutral")
    story.tick("2026-09-05T00:00")
    first = [f"n-{minute:02}" for minute in range(19)]
    assert final(story, "dissatisfied") == ([*first[:5], "n-04-late", *first[5:]], 58)
    assert final(story, "to-do") == final(story, "dissatisfied")


def answers(story: Story, count: int) -> list[Envelope]:
    """Events of several agents of one team in one hour, of every kind that is judged."""
    found = []
    for number in range(count):
        when, agent = f"2026-08-03T09:{number % 60:02}", f"a-{number % 7}"
        tag, fields = (
            ("survey.customer", {"satisfaction": "neutral" if number % 3 else "satisfied"}),
            ("call.answered", {"wait_ms": 1000 * (20 + number % 90), "queue": "q-1"}),
            ("complaint.logged", {"complaint_id": f"c-{number}"}),
        )[number % 3 if number % 5 else number % 2]
        found.append(story.event(when, tag, agent, team="t-1", site="s-1", **fields))
        if tag == "complaint.logged" and number % 2:
            found.append(
                story.event("2026-08-03T09:59", "complaint.responded", agent, team="t-1", complaint_id=f"c-{number}")
            )  # fmt: skip
    return found


def told(decisions: Sequence[Decision]) -> dict[str, tuple[str, list[str], int]]:
    newest = {one.id: one for one in decisions if one.status == "final"}
    return {key: (one.points, one.evidence, one.evidence_count) for key, one in newest.items()}


def test_the_order_of_arrival_and_the_number_of_partitions_make_no_difference(pack: Pack) -> None:
    results = []
    for chosen, partitions in ((1, 1), (2, 1), (3, 2), (4, 5)):
        story = Story(pack, partitions=partitions)
        events = answers(story, 150)
        random.Random(chosen).shuffle(events)
        story.tick("2026-08-03T09:59:58")
        for event in events:
            story.replay.feed(event)
        story.tick("2026-09-05T00:00")
        story.replay.finish()
        results.append(told(story.replay.decision_list()))
    assert len(results[0]) > 10
    assert any(count > MAX_EVIDENCE for _, _, count in results[0].values()), "the bound is met"
    assert all(one == results[0] for one in results[1:])


def test_a_successor_goes_on_where_its_predecessor_stopped(pack: Pack) -> None:
    story = Story(pack)
    events = answers(story, 90)
    events.sort(key=lambda one: one.time)
    log: list[Timed] = [("tick", at_ms("2026-08-03T08:59"))]
    for minute in range(60):
        log.append(("tick", at_ms(f"2026-08-03T09:{minute:02}")))
        log += [("event", one) for one in events if one.time.astimezone(SHANGHAI).minute == minute]
    log += [("tick", at_ms("2026-08-03T11:59")), ("tick", at_ms("2026-09-05T00:00"))]
    rng = random.Random(5)
    plain = run_all([pack], log, 2, rng)
    restarted = run_all(
        [pack], log, 2, rng, sizes=lambda: rng.randint(1, 9), restart=lambda: rng.random() < 0.3
    )
    assert {topic: sorted(values) for topic, values in restarted.items()} == {
        topic: sorted(values) for topic, values in plain.items()
    }
    assert any(b'"level":"team"' in one and b'"evidence":["e-' in one for one in plain["decisions"]), (
        "of teams too"
    )


def test_what_is_taken_back_after_it_was_reported_is_evidence_no_more(pack: Pack) -> None:
    story = Story(pack, partitions=3)
    story.tick("2026-08-03T08:00")
    for agent in ("a-1", "a-2", "a-3"):
        story.tell(
            "2026-08-03T09:00", "complaint.logged", agent, id=f"of-{agent}", team="t-1", complaint_id=agent
        )
    story.ticks("2026-08-03T09:01", "2026-08-03T12:00")
    team = [one for one in story.replay.decision_list() if (one.rule, one.subject) == ("answers-late", "t-1")]
    assert (team[-1].evidence, team[-1].evidence_count) == (["of-a-1", "of-a-2", "of-a-3"], 3)
    story.late("2026-08-03T10:00", "complaint.responded", "a-2", team="t-1", complaint_id="a-2")
    story.tick("2026-09-05T00:00")
    assert final(story, "answers-late", "t-1") == (["of-a-1", "of-a-3"], 2)
    assert final(story, "answers-late", "a-2") == ([], 0)


def test_events_that_nothing_counts_can_speak_for_a_group(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-08-03T08:00")
    story.tell("2026-08-03T09:00", "meeting.held", id="meeting", team="t-1")
    story.ticks("2026-08-03T09:01", "2026-08-03T09:10")
    story.tell("2026-08-03T11:00", "survey.customer", team="t-1", satisfaction="neutral")
    story.tick("2026-09-05T00:00")
    assert final(story, "uncounted", "t-1") == (["meeting"], 1)


def test_an_alert_names_the_latest_of_its_window(pack: Pack) -> None:
    story = Story(pack)
    story.tick("2026-08-03T08:00")
    for minute in (0, 20, 21, 22):
        story.tell(
            f"2026-08-03T09:{minute:02}", "call.answered", id=f"at-{minute}", queue="q-1", wait_ms=31_000
        )
    story.ticks("2026-08-03T09:23", "2026-08-03T09:50")
    alerts = [one for one in story.replay.alert_list() if one.rule == "queue-waits"]
    assert [(one.state, one.evidence) for one in alerts] == [
        ("firing", ["at-0"]), ("resolved", []), ("firing", ["at-20"]), ("resolved", []),
    ]  # fmt: skip


def test_what_a_sieve_holds_back_is_seen_by_nobody(pack: Pack) -> None:
    rng, held, seen = random.Random(5), 0, 0
    near = (0, 1, 29_999, 30_000, 30_001, 59_999, 60_000, 60_001, 7_200_000, 7_200_001, 1 << 58, 1 << 70)
    for found in (witnesses(Layout([pack])), witnesses(Layout(load_packs(SHIPPED)))):
        assert found.sieves
        for source, sieve in found.sieves.items():
            payload = PAYLOADS[source]
            fields = msgspec.inspect.type_info(payload).fields  # type: ignore[attr-defined]
            numbers = [one.name for one in fields if isinstance(one.type, msgspec.inspect.IntType)]
            texts: dict[str, Any] = dict.fromkeys([one.name for one in fields if one.required], "x")
            for _ in range(300):
                data = payload(**texts | {name: rng.choice(near) for name in numbers})
                hits = found.seeing[source](data, at_ms(f"2026-{rng.randrange(1, 13):02}-20T10:00"))
                held += not sieve(data)
                seen += hits is not None
                assert sieve(data) or hits is None, (source, data)
    assert held > 100
    assert seen > 100


def test_the_first_of_the_parts_are_the_first_of_the_whole() -> None:
    rng = random.Random(3)
    sightings = [Sighting(rng.randint(0, 9), rng.randint(0, 9), f"e-{number}") for number in range(300)]
    kept: list[Sighting] = []
    for one in sightings:
        keep(kept, one, 20)
    assert kept == sorted(sightings)[:20]


def test_what_was_stored_before_is_still_read(pack: Pack) -> None:
    class Before(msgspec.Struct):
        ids: list[str]
        count: int

    subject = Subject("agent", "a-1", Series(calendar("Asia/Shanghai"), GROUP_BUCKET_MS, ()), 0)
    stored = msgspec.msgpack.decode(store(subject, {}, [], [], live=False))
    position = 6
    assert stored[position] == {}, "evidence"
    old = {"call.answered|2026-08": Before(["e-1"], 7)}
    stored[position] = msgspec.to_builtins(old)
    revive(subject, load(msgspec.msgpack.encode(stored)), {})
    assert subject.evidence == {}
    subject.evidence = {
        "k|month|2026-08": Evidence(2, [Sighting(1, 1, "e-1"), Sighting(2, 2, "x", ("e-2", "e-3"))])
    }
    again = Subject("agent", "a-1", subject.series, 0)
    revive(again, load(store(subject, {}, [], [], live=False)), {})
    assert again.evidence == subject.evidence


def test_an_engine_of_before_is_taken_over(pack: Pack) -> None:
    engine = PartitionEngine([pack], zones=Zones("Asia/Shanghai"))
    engine.tick(at_ms("2026-08-03T09:00"))
    stored = {key: raw for key, raw in engine.checkpoint().items() if raw is not None}
    frame = msgspec.msgpack.decode(stored["frame"])
    stored["frame"] = msgspec.msgpack.encode(frame[:-1])  # as it was before there was anything seen in it
    later = PartitionEngine([pack], zones=Zones("Asia/Shanghai"))
    later.restore(stored)
    assert later.now_ms == engine.now_ms


# --- finding all of them ----------------------------------------------------------------------------------------------


def items(events: Sequence[Envelope]) -> list[SourceItem]:
    return [SourceItem(line=number, event=one, raw=b"") for number, one in enumerate(events)]


def test_all_events_are_found_in_the_log(pack: Pack) -> None:
    story = Story(pack)
    events = [
        story.event(f"2026-08-03T{9 + number // 60:02}:{number % 60:02}", "survey.customer", id=f"n-{number:02}",
                    satisfaction="neutral" if number % 4 else "satisfied")
        for number in range(100)
    ]  # fmt: skip
    for event in events:
        story.replay.tick(int(event.time.timestamp() * 1000))
        story.replay.feed(event)
    story.tick("2026-09-05T00:00")
    revisions = [one for one in story.replay.decision_list() if one.rule == "dissatisfied"]
    assert (len(revisions[-1].evidence), revisions[-1].evidence_count) == (20, 75)
    zones = Zones("Asia/Shanghai")
    found = events_of(revisions, [pack], zones, lambda: items(events))
    assert found.ids == [f"n-{number:02}" for number in range(100) if number % 4]
    assert set(found.known) == set(found.ids)
    with pytest.raises(UsageError, match=r"do not lead to d-.* as it stands: give the log that was judged"):
        events_of(revisions, [pack], zones, lambda: items(events[1:]))

"""``kaohe rules diff``: every change of a pack is said, in words, and nothing is said when nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.core.model import Pack
from kaohe.core.workdays import WorkCalendar
from kaohe.decisions import Words
from kaohe.errors import Place
from kaohe.packs.diff import Change, PackDiff, diff, diff_lines
from kaohe.packs.load import load_pack
from tests.packs.patching import MINIMAL, patched
from tests.support.commands import RULES, Result, kaohe

SCORED = MINIMAL.parent / "scored"


def _changed(patch: str, folder: Path) -> PackDiff:
    return diff(load_pack(MINIMAL), load_pack(patched(patch, folder)))


def _only(found: PackDiff) -> Change:
    assert len(found.changes) == 1, found.changes
    return found.changes[0]


def _text(found: PackDiff, language: Any = "en") -> str:
    return "\n".join(diff_lines(found, language))


@pytest.mark.parametrize("pack", sorted(RULES.glob("*/pack.yaml")), ids=lambda path: path.parent.name)
def test_a_pack_does_not_differ_from_itself(pack: Path) -> None:
    found = diff(load_pack(pack.parent), load_pack(pack.parent))
    assert found.changes == ()
    assert _text(found) == ""


def test_comments_order_and_version_are_no_change_of_policy(tmp_path: Path) -> None:
    patch = 'parameters.yaml\n+# A comment.\npack.yaml\n-version: "1.0"\n+version: "1.1"\n'
    pack = patched(patch, tmp_path)
    lines = (pack / "parameters.yaml").read_text(encoding="utf-8").splitlines()
    (pack / "parameters.yaml").write_text("\n".join(reversed(lines)), encoding="utf-8")
    found = diff(load_pack(MINIMAL), load_pack(pack))
    assert (found.before.version, found.after.version) == ("1.0", "1.1")
    assert found.changes == ()


def test_a_year_of_holidays_that_differs_is_shown_day_by_day_and_no_other(tmp_path: Path) -> None:
    before = load_pack(patched("with attendance\n", tmp_path / "before"))
    after = patched(
        "with attendance\n../holidays.yaml\n+china: {2033: {source: example, holidays: [2033-01-01..2033-01-03]}}\n",
        tmp_path / "after",
    )
    change = _only(diff(before, load_pack(after)))
    assert "2033-01-01, 2033-01-02, 2033-01-03" in _text(diff(before, load_pack(after)))
    assert "2032" not in str(change)


# --- parameters -------------------------------------------------------------------------------------------------------

LIMIT = "limit: {clause: MI-01, title: {en: Limit, zh: 上限}, unit: s, min: 1, max: 600, values: {%s}}"


def _limit(values: str) -> str:
    old = LIMIT % "2026-01-01: 60, 2026-07-01: 45"
    return f"parameters.yaml\n-{old}\n+{LIMIT % values}\n"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("2026-01-01: 60, 2026-07-01: 30", [("2026-07-01", "", "45", "30")]),
        ("2026-01-01: 50, 2026-07-01: 45", [("2026-01-01", "2026-06-30", "60", "50")]),
        ("2026-01-01: 60", [("2026-07-01", "", "45", "60")]),
        ("2026-01-01: 60, 2026-04-01: 45", [("2026-04-01", "2026-06-30", "60", "45")]),
        ("2026-01-01: 60, 2026-07-01: 45, 2027-01-01: 40", [("2027-01-01", "", "45", "40")]),
        (
            "2026-01-01: 55, 2026-09-01: 40",
            [("2026-01-01", "2026-06-30", "60", "55"), ("2026-07-01", "2026-08-31", "45", "55"),
             ("2026-09-01", "", "45", "40")],
        ),
        ("2025-01-01: 60, 2026-07-01: 45", [("2025-01-01", "2025-12-31", None, "60")]),
    ],
)  # fmt: skip
def test_a_parameter_is_compared_by_the_days_on_which_it_differs(
    values: str, expected: list[tuple[str, str, str | None, str | None]], tmp_path: Path
) -> None:
    change = _only(_changed(_limit(values), tmp_path))
    assert (change.part, change.name, change.how, change.clause) == (
        "parameters",
        "limit",
        "changed",
        "MI-01",
    )
    assert [
        (one.since, one.until, one.before and one.before.en, one.after and one.after.en)
        for one in change.details
    ] == expected


def test_a_value_stated_again_changes_the_dates_only(tmp_path: Path) -> None:
    (detail,) = _only(_changed(_limit("2026-01-01: 60, 2026-07-01: 45, 2026-08-01: 45"), tmp_path)).details
    assert detail.what == "dates"
    assert (detail.before, detail.after) == (
        Words("2026-01-01, 2026-07-01", "2026-01-01, 2026-07-01"),
        Words("2026-01-01, 2026-07-01, 2026-08-01", "2026-01-01, 2026-07-01, 2026-08-01"),
    )


def test_a_lower_limit_applies_sooner_and_a_higher_one_later(tmp_path: Path) -> None:
    lower = _text(_changed(_limit("2026-01-01: 60, 2026-07-01: 30"), tmp_path / "lower"))
    assert "from 2026-07-01: 45 -> 30" in lower
    assert "rule mi-wait (Long wait) applies sooner" in lower
    assert "rule mi-wait (Long wait) counts more steps for the same value" in lower
    assert "rule mi-wait-live (Long wait now) clears its alert on another condition" in lower
    higher = _changed(_limit("2026-01-01: 60, 2026-07-01: 50"), tmp_path / "higher")
    assert "rule mi-wait (Long wait) applies later" in _text(higher)
    assert "规则 mi-wait（等待过久）更不容易触发" in _text(higher, "zh")
    assert "自2026-07-01起: 45 -> 50" in _text(higher, "zh")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("2026-01-01: 0.9}", "2026-01-01: 0.95}", "rule mi-wait-live (Long wait now) applies sooner"),
        ("2026-01-01: 0.9}", "2026-01-01: 0.8}", "rule mi-wait-live (Long wait now) applies later"),
        ("max: 20, values: {2026-01-01: 2}", "max: 20, values: {2026-01-01: 3}", "deducts more per step"),
        ("max: 20, values: {2026-01-01: 2}", "max: 20, values: {2026-01-01: 1}", "deducts less per step"),
        ("max: 50, values: {2026-01-01: 20}", "max: 50, values: {2026-01-01: 25}", "deducts up to a higher cap"),
        ("2026-01-01: 10}", "2026-01-01: 20}", "counts larger steps"),
        ("2026-01-01: strict}", "2026-01-01: mild}", "rule mi-wait (Long wait) applies on another condition"),
        ('"2025-12"', '"2025-11"', "metric wait_s (Average wait) is counted by it"),
        ("major: 8", "major: 4", "the time of response (Answered) gets shorter"),
        ("poor: -2", "poor: -4", "gives other points"),
        ("max: 100, values: {2026-01-01: 100}", "max: 100, values: {2026-01-01: 90}", "every score starts lower"),
        ("{A: 90, B: 0}", "{A: 95, B: 0}", "grades begin at other scores"),
        ("{2026-01-01: 120}", "{2026-01-01: 110}", "the highest possible score changes"),
    ],
)  # fmt: skip
def test_what_follows_from_a_figure_is_said(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    pack = patched("", tmp_path)
    file = pack / "parameters.yaml"
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")
    assert sentence in _text(diff(load_pack(MINIMAL), load_pack(pack)))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "values: {2026-01-01: 0.1}",
            "values: {2026-01-01: 0.2}",
            "the share of pay that depends on grades rises",
        ),
        ("{A: 1, B: 0.7}", "{A: 1, B: 0.6}", "performance pay by grade falls"),
        ("values: {2026-01-01: 500}", "values: {2026-01-01: 600}", "what a point is worth in money rises"),
        ('{2026-01-01: "off"}', '{2026-01-01: "on"}', "whether deductions take money changes"),
    ],
)
def test_what_a_figure_does_to_pay_is_said(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    before = load_pack(patched("with pay\n", tmp_path / "old"))
    folder = patched("with pay\n", tmp_path / "new")
    file = folder / "parameters.yaml"
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")
    assert sentence in _text(diff(before, load_pack(folder)))


def test_of_a_table_only_the_words_that_differ_are_shown(tmp_path: Path) -> None:
    pack = patched("", tmp_path)
    file = pack / "parameters.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("major: 8", "major: 4"), encoding="utf-8")
    (detail,) = _only(diff(load_pack(MINIMAL), load_pack(pack))).details
    assert (detail.before, detail.after) == (Words("major: 8", "major: 8"), Words("major: 4", "major: 4"))


# --- rules and the rest -----------------------------------------------------------------------------------------------


def test_a_changed_rule_shows_condition_points_and_words(tmp_path: Path) -> None:
    patch = (
        'rules.yaml\n-  when: wait_s.month > p.limit && p.mode == "strict"\n+  when: wait_s.month > p.limit\n'
        "-    - grade: {at_most: B}\n"
        '-  explanation: {en: "The wait was {wait_s.month}.", zh: "等待{wait_s.month}。"}\n'
        '+  explanation: {en: "The wait: {wait_s.month}.", zh: "等待{wait_s.month}。"}\n'
    )
    change = _only(_changed(patch, tmp_path))
    assert (change.part, change.name, change.how) == ("rules", "mi-wait", "changed")
    what = {one.what: (one.before and one.before.en, one.after and one.after.en) for one in change.details}
    assert what == {
        "when": ('wait_s.month > p.limit && p.mode == "strict"', "wait_s.month > p.limit"),
        "then 2": ("grade at most B", None),
        "explanation": ("The wait was {wait_s.month}.", "The wait: {wait_s.month}."),
    }


def test_rules_that_come_and_go_are_told_whole(tmp_path: Path) -> None:
    before = load_pack(MINIMAL)
    gone = msgspec.structs.replace(before, rules=before.rules[1:])
    for found, how in ((diff(before, gone), "removed"), (diff(gone, before), "added")):
        assert (_only(found).name, _only(found).how) == ("mi-wait", how)
        text = _text(found)
        assert f"rule mi-wait {how}: MI-01 Long wait" in text
        assert "when: " in text
        assert "then 1: deduct p.fine per p.step of wait_s.month over p.limit, at most p.cap" in text
    assert "规则 mi-wait 删除: MI-01 等待过久" in _text(diff(before, gone), "zh")


def test_the_other_language_alone_is_shown_too(tmp_path: Path) -> None:
    patch = "pack.yaml\n-title: {en: Minimal, zh: 最小}\n+title: {en: Minimal, zh: 极小}\n"
    assert "title: Minimal / 最小 -> Minimal / 极小" in _text(_changed(patch, tmp_path))


def _other(value: Any) -> Any:
    """A value of the same kind that says something else."""
    match value:
        case bool():
            return not value
        case int():
            return value + 300_000
        case str():
            return f"{value}x"
        case Fraction():
            return value + 1
        case date():
            return date(2001, 1, 1)
        case Words():
            return Words(value.en, f"{value.zh}。")
    raise NotImplementedError(type(value))


def _variants(thing: Any, skip: tuple[str, ...]) -> list[tuple[str, Any]]:
    """The thing with one plain field changed at a time."""
    found = []
    for field in thing.__struct_fields__:
        value = getattr(thing, field)
        if field not in skip and isinstance(value, bool | int | str | Fraction | date | Words):
            found.append((field, msgspec.structs.replace(thing, **{field: _other(value)})))
    return found


def _packs_with_one_field_changed(pack: Pack) -> list[tuple[str, Pack]]:
    found: list[tuple[str, Pack]] = [
        (field, other) for field, other in _variants(pack, ("name", "version", "folder"))
    ]
    skip = ("name", "id", "pack", "place")
    for part in ("clauses", "parameters", "metrics", "deadlines"):
        things = getattr(pack, part)
        for name, thing in things.items():
            for field, other in _variants(thing, skip):
                changed = msgspec.structs.replace(pack, **{part: things | {name: other}})
                found.append((f"{part}.{name}.{field}", changed))
    for index, rule in enumerate(pack.rules):
        # A live rule is triggered by nothing, and only a period's rule can be provisional.
        unused = {"period": (), "watch": ("on", "provisional")}.get(rule.trigger, ("provisional",))
        others = list(_variants(rule, (*skip, "trigger", *unused)))
        for number, effect in enumerate(rule.effects):
            for field, one in _variants(effect, ("kind",)):
                if _means_something(effect.kind, field):
                    effects = (*rule.effects[:number], one, *rule.effects[number + 1 :])
                    others.append((f"{number}.{field}", msgspec.structs.replace(rule, effects=effects)))
        for field, other in others:
            rules = (*pack.rules[:index], other, *pack.rules[index + 1 :])
            found.append((f"rules.{rule.id}.{field}", msgspec.structs.replace(pack, rules=rules)))
    assert pack.scorecard is not None
    for field, card in _variants(pack.scorecard, skip):
        found.append((f"scorecard.{field}", msgspec.structs.replace(pack, scorecard=card)))
    assert pack.pay is not None
    for field, terms in _variants(pack.pay, skip):
        found.append((f"pay.{field}", msgspec.structs.replace(pack, pay=terms)))
    return found


def _means_something(kind: str, field: str) -> bool:
    used = {
        "alert": ("hold_ms", "severity", "owner", "response"),
        "grade": ("grade_at_most",),
        "proposal": ("proposal",),
        "task": ("owner", "task", "due_ms"),
        "waive": ("incident",),
    }
    return field in used.get(kind, ())


def test_no_field_of_a_pack_can_change_unseen(tmp_path: Path) -> None:
    pack = load_pack(patched("with pay\n", tmp_path))
    variants = _packs_with_one_field_changed(pack)
    assert len(variants) > 100
    unseen = [
        name for name, other in variants if not diff(pack, other).changes or not _text(diff(pack, other))
    ]
    assert unseen == []


def _leaves(thing: Any) -> Iterator[tuple[str, Any]]:
    """The thing with one leaf at a time that says something else, however deep it lies, and the way to it."""
    if isinstance(thing, bool | int | str | Fraction | date | Words):
        yield "", _other(thing)
    elif isinstance(thing, tuple):
        for at, one in enumerate(thing):
            yield from ((f"{at} {way}", (*thing[:at], new, *thing[at + 1 :])) for way, new in _leaves(one))
    elif isinstance(thing, dict):
        for key, one in thing.items():
            yield from ((f"{key} {way}", thing | {key: new}) for way, new in _leaves(one))
    elif isinstance(thing, msgspec.Struct) and not isinstance(thing, WorkCalendar | Place):
        for field in thing.__struct_fields__:
            for way, new in _leaves(getattr(thing, field)) if field not in ("pack", "column") else ():
                yield f"{field} {way}", msgspec.structs.replace(thing, **{field: new})


@pytest.mark.parametrize("folder", [SCORED, RULES / "full-attendance"], ids=["scored", "full-attendance"])
def test_no_part_that_only_some_packs_have_can_change_unseen(folder: Path) -> None:
    pack = load_pack(folder)
    unseen, count = [], 0
    for part in ("attendance", "appeals", "cards", "results"):
        for way, new in _leaves(getattr(pack, part)):
            count += 1
            if not _text(diff(pack, msgspec.structs.replace(pack, **{part: new}))):
                unseen.append(f"{part} {way}")
    assert unseen == []
    assert count > 10


def test_what_a_figure_does_to_a_scorecard_of_dimensions_is_said() -> None:
    pack = load_pack(SCORED)
    for name, sentence in (
        ("weights", "dimensions weigh otherwise (month agent)"),
        ("quota_share", "what follows from grades (quota share) uses it"),
        (
            "handling_limits",
            "the scorecard (efficiency speed scale limits) uses it (month agent)",
        ),
    ):
        parameter = pack.parameters[name]
        day, value = parameter.values[-1]
        other = value + 1 if isinstance(value, Fraction) else dict.fromkeys(value, Fraction(1))
        changed = msgspec.structs.replace(parameter, values=(*parameter.values[:-1], (day, other)))
        found = diff(pack, msgspec.structs.replace(pack, parameters=pack.parameters | {name: changed}))
        assert sentence in _text(found), _text(found)


@pytest.mark.parametrize(
    "folder", [*sorted(RULES.glob("*/pack.yaml")), SCORED / "pack.yaml"], ids=lambda path: path.parent.name
)
def test_something_follows_from_every_figure_of_the_packs_we_ship(folder: Path) -> None:
    """A figure from which nothing follows would be one that the policy states and nobody applies."""
    pack = load_pack(folder.parent)
    for name, parameter in pack.parameters.items():
        day, value = parameter.values[-1]
        match value:
            case Fraction():
                other: Any = value + 1
            case dict():
                other = {word: number + 1 for word, number in value.items()}
            case _:
                other = f"{value}x"
        changed = msgspec.structs.replace(parameter, values=(*parameter.values[:-1], (day, other)))
        found = diff(pack, msgspec.structs.replace(pack, parameters=pack.parameters | {name: changed}))
        (detail,) = _only(found).details
        assert detail.follows, name


# --- the command ------------------------------------------------------------------------------------------------------


def _kaohe(*arguments: str) -> Result:
    return kaohe("rules", "diff", *arguments)


def test_the_command_ends_with_0_for_the_same_and_1_for_another_policy(tmp_path: Path) -> None:
    same = _kaohe("front-desk", str(RULES / "front-desk"))
    assert (same.exit_code, same.stdout, same.stderr) == (0, "", "")
    assert json.loads(_kaohe("front-desk", "front-desk", "--json").stdout)["changes"] == []
    pack = str(patched(_limit("2026-01-01: 60, 2026-07-01: 30"), tmp_path))
    other = _kaohe(str(MINIMAL), pack)
    assert other.exit_code == 1
    assert other.stdout.splitlines()[0] == "--- minimal 1.0  Minimal"
    assert other.stdout.splitlines()[-1] == "1 parameter changed"
    chinese = _kaohe(str(MINIMAL), pack, "--lang", "zh").stdout
    assert "参数 p.limit 修改: MI-01 上限 (s)" in chinese
    assert chinese.splitlines()[-1] == "修改参数 1 项"
    document = _kaohe(str(MINIMAL), pack, "--json")
    assert document.exit_code == 1
    (change,) = json.loads(document.stdout)["changes"]
    assert change["details"][0]["follows"][0] == {
        "en": "rule mi-wait (Long wait) applies sooner",
        "zh": "规则 mi-wait（等待过久）更容易触发",
    }


@pytest.mark.parametrize(
    "arguments", [("front-desk", "front-dask"), ("front-desk",), ("nowhere", "front-desk")]
)
def test_what_cannot_be_read_ends_with_2(arguments: tuple[str, ...]) -> None:
    result = _kaohe(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("kaohe: ")

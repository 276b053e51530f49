"""The arithmetic of scorecards: exact sums, quotas that hold, tie-breaks that do not depend on who came first."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaohe.core.scorecard import (
    Candidate,
    Earned,
    Given,
    Mark,
    calibrate,
    charged,
    combine,
    counted,
    grade_of,
    heard,
    held_in_band,
    lot,
    places,
    rounded,
    shared_out,
    straight,
    weight_mistakes,
    word_of,
    work_out,
)

F = Fraction
BANDS = {"A": F(90), "B": F(75), "C": F(60), "D": F(0)}
BOUNDS = (F(0), F(100))
STEP = F(1, 100)


# --- shares


@pytest.mark.parametrize(
    ("value", "none_at", "full_at", "share"),
    [
        ("0.80", "0.80", "0.95", "0"), ("0.95", "0.80", "0.95", "1"), ("0.875", "0.80", "0.95", "0.5"),
        ("0.10", "0.80", "0.95", "0"), ("1", "0.80", "0.95", "1"),
        ("400", "600", "300", "2/3"), ("700", "600", "300", "0"), ("200", "600", "300", "1"),
    ],
)  # fmt: skip
def test_a_straight_scale_gives_nothing_all_and_what_lies_between(
    value: str, none_at: str, full_at: str, share: str
) -> None:
    assert straight(F(value), F(none_at), F(full_at)) == F(share)


def test_a_word_is_earned_at_its_limit_and_not_below_it() -> None:
    limits = {"excellent": F("0.95"), "good": F("0.9"), "poor": F(0)}
    assert word_of(F("0.95"), limits, "higher") == "excellent"
    assert word_of(F("0.9499"), limits, "higher") == "good"
    assert word_of(F(-1), limits, "higher") == "poor"
    times = {"fast": F(60), "slow": F(180), "late": F(600)}
    assert word_of(F(60), times, "lower") == "fast"
    assert word_of(F(61), times, "lower") == "slow"
    assert word_of(F(601), times, "lower") == "late"


def test_entries_take_an_items_points_down_to_nothing_and_up_to_all() -> None:
    assert charged(F(20), [F(-5), F(-1)]) == F(14, 20)
    assert charged(F(20), [F(-25)]) == 0
    assert charged(F(20), [F(-5), F(9)]) == 1


def test_a_silent_role_leaves_its_weight_to_the_others() -> None:
    weights = {"self": F("0.2"), "superior": F("0.5"), "leader": F("0.3")}
    voices = {"self": [F(1)], "superior": [F("0.8")], "peer": [F(0)]}
    assert heard(voices, weights) == (F("0.2") * 1 + F("0.5") * F("0.8")) / F("0.7")
    assert heard({"peer": [F(1)]}, weights) is None
    assert heard({"peer": [F(1), F("0.5")]}, {"peer": F(1)}) == F("0.75")


# --- the card


shares = st.one_of(st.none(), st.fractions(0, 1, max_denominator=50))


@st.composite
def cards(draw: st.DrawFn) -> tuple[list[Earned], dict[str, Fraction], Fraction]:
    names = [f"d{index}" for index in range(draw(st.integers(1, 5)))]
    raw = [draw(st.integers(1, 40)) for _ in names]
    weights = {name: F(one, sum(raw)) for name, one in zip(names, raw, strict=True)}
    earned = [
        Earned(name, f"{name}-{index}", F(draw(st.integers(1, 70))), draw(shares))
        for name in names
        for index in range(draw(st.integers(1, 4)))
    ]
    return earned, weights, draw(st.fractions(-30, 30, max_denominator=4))


@given(cards())
def test_the_lines_and_the_other_entries_sum_to_the_score_shown(
    card: tuple[list[Earned], dict[str, Fraction], Fraction],
) -> None:
    earned, weights, others = card
    worked = work_out(earned, weights, others, (F(-1000), F(1000)), STEP)
    if worked is None:
        assert all(one.share is None for one in earned)
        return
    assert sum(line.contribution for line in worked.lines) + others == worked.exact
    assert abs(worked.score - worked.exact) <= STEP / 2
    assert sum(line.part for line in worked.lines) == 100
    assert work_out(earned, weights, others, BOUNDS, STEP).score in (worked.score, F(0), F(100))  # type: ignore[union-attr]


@given(cards())
def test_who_earned_everything_has_a_hundred(
    card: tuple[list[Earned], dict[str, Fraction], Fraction],
) -> None:
    earned, weights, _ = card
    full = [Earned(one.dimension, one.item, one.most, F(1)) for one in earned]
    worked = work_out(full, weights, F(0), BOUNDS, STEP)
    assert worked is not None
    assert worked.score == worked.exact == 100


def test_what_has_no_data_leaves_its_weight_to_the_others() -> None:
    weights = {"quality": F("0.6"), "team": F("0.4")}
    earned = [
        Earned("quality", "a", F(30), F("0.5")), Earned("quality", "b", F(70), None), Earned("team", "c", F(1), None),
    ]  # fmt: skip
    worked = work_out(earned, weights, F(0), BOUNDS, STEP)
    assert worked is not None
    assert [line.part for line in worked.lines] == [100, 0, 0]
    assert worked.score == 50


def test_rounding_goes_up_in_the_middle() -> None:
    assert rounded(F("89.995"), STEP) == F("90.00")
    assert rounded(F("89.9949"), STEP) == F("89.99")
    assert rounded(F("-0.005"), STEP) == 0


# --- weights


@given(st.lists(st.integers(0, 100), min_size=2, max_size=6))
def test_weights_hold_only_when_they_sum_to_a_hundred_per_cent(parts: list[int]) -> None:
    weights = {f"d{index}": F(part, 100) for index, part in enumerate(parts)}
    wrong = weight_mistakes(weights, list(weights))
    assert (not wrong) == (sum(parts) == 100)


def test_a_core_weight_may_move_inside_its_band_only() -> None:
    standard = {"quality": F("0.40"), "speed": F("0.25"), "satisfaction": F("0.20"), "team": F("0.15")}
    core = ("quality", "satisfaction")

    def tuned(**moved: str) -> list[tuple[str, str]]:
        weights = standard | {name: F(value) for name, value in moved.items()}
        return weight_mistakes(weights, list(standard), core, standard, F("0.05"))

    assert tuned() == []
    assert tuned(quality="0.45", speed="0.20") == []
    assert tuned(speed="0.05", team="0.35") == []
    assert tuned(quality="0.46", speed="0.19") == [
        ("the core dimension 'quality' weighs 46%", "keep it from 35% to 45%")
    ]
    assert tuned(quality="0.45") == [("the weights sum to 105%", "change them by -5% to sum to 100%")]


# --- grades


def test_a_grade_begins_at_its_lowest_score_and_a_cap_holds_it_down() -> None:
    assert [grade_of(F(score), BANDS) for score in ("90", "89.99", "75", "59.99", "-1")] == list("ABBDD")
    assert grade_of(F(95), BANDS, ["C"]) == "C"
    assert grade_of(F(50), BANDS, ["B"]) == "D"


@given(st.fractions(0, 100, max_denominator=100), st.sampled_from("ABCD"))
def test_a_score_held_in_its_band_earns_its_grade_and_moves_no_further_than_it_must(
    score: Fraction, grade: str
) -> None:
    score = rounded(score, STEP)
    held = held_in_band(score, grade, BANDS, STEP, BOUNDS)
    assert grade_of(held, BANDS) == grade
    if grade_of(score, BANDS) == grade:
        assert held == score
    else:
        nearer = held + (STEP if score > held else -STEP)
        assert grade_of(nearer, BANDS) != grade


# --- quota


@st.composite
def populations(draw: st.DrawFn) -> list[Candidate]:
    count = draw(st.integers(0, 60))
    return [
        Candidate(
            f"a-{index:02d}", f"d-{draw(st.integers(0, 4))}", draw(st.booleans()),
            (F(draw(st.integers(88, 100))), F(draw(st.integers(0, 1)))),
        )
        for index in range(count)
    ]  # fmt: skip


@given(
    populations(),
    st.fractions(0, 1, max_denominator=20),
    st.integers(0, 4),
    st.randoms(use_true_random=False),
)
def test_no_more_than_the_quota_keep_the_best_grade_and_the_order_of_arrival_does_not_matter(
    staff: list[Candidate], share: Fraction, per_department: int, rng: random.Random
) -> None:
    verdicts = shared_out(staff, share, per_department, ("pack", "2026-08"))
    kept = [one for one in staff if one.name in verdicts and verdicts[one.name].kept]
    assert len(kept) <= share * len(staff)
    for department in {one.department for one in staff}:
        assert sum(one.department == department for one in kept) <= per_department
    assert {one.name for one in staff if one.earned} == set(verdicts)
    for one in staff:
        if one.name in verdicts and verdicts[one.name].against == "quota":
            assert len(kept) == places(len(staff), share)
    shuffled = list(staff)
    rng.shuffle(shuffled)
    assert shared_out(shuffled, share, per_department, ("pack", "2026-08")) == verdicts


def test_a_better_score_goes_first_and_a_full_department_is_passed_over() -> None:
    staff = [Candidate(f"a-{n}", "east" if n < 3 else "west", n < 5, (F(100 - n),)) for n in range(20)]
    verdicts = shared_out(staff, F("0.1"), 1, ("pack", "2026-08"))
    assert {name: (one.kept, one.rank, one.against) for name, one in verdicts.items()} == {
        "a-0": (True, 1, ""), "a-1": (False, 2, "department"), "a-2": (False, 3, "department"),
        "a-3": (True, 4, ""), "a-4": (False, 5, "quota"),
    }  # fmt: skip


def test_a_lot_depends_on_period_and_name_alone() -> None:
    assert lot("p", "2026-08", "a-1") == lot("p", "2026-08", "a-1") != lot("p", "2026-09", "a-1")
    assert lot("p", "2026-08", "a-1") != lot("p2", "026-08", "a-1")


# --- calibration


def voices(by: str, *shares: str) -> Given:
    values = [F(share) for share in shares]
    return Given(by, len(values), sum(values, F(0)), sum((value**2 for value in values), F(0)))


def test_an_assessor_is_compared_with_all_the_others() -> None:
    found = calibrate(
        [voices("kind", "0.9", "1"), voices("stern", "0.5", "0.6"), voices("even", "0.7", "0.8"), voices("new", "0")],
        at_least=2, tolerance=F("0.3"), strength=F("0.5"), limit=F("0.1"),
    )  # fmt: skip
    kind, new = found["kind"], found["new"]
    assert (kind.mean, kind.others_mean) == (F("0.95"), F("2.6") / 5)
    assert (kind.spread, kind.beyond) == (F("0.05"), True)
    assert kind.shift == F("-0.1")
    assert found["even"].shift == -F("0.5") * (F("0.75") - F(3) / 5)
    assert (new.shift, new.beyond, new.count) == (F(0), False, 1)


def test_a_lonely_assessor_is_not_shifted() -> None:
    found = calibrate([voices("only", "0.1", "0.2")], 1, F("0.01"), F(1), F(1))
    assert found["only"].others_mean is None
    assert (found["only"].shift, found["only"].beyond) == (F(0), False)


# --- tallies and combination


def test_tallies_count_the_newest_grade_ever_in_the_year_and_in_a_row() -> None:
    marks = [Mark(label, "0", grade) for label, grade in (
        ("2025-11", "D"), ("2025-12", "B"), ("2026-01", "D"), ("2026-02", "C"), ("2026-03", "D"),
    )]  # fmt: skip
    assert counted(marks, "D", "ever") == (3, ["2025-11", "2026-01", "2026-03"])
    assert counted(marks, "D", "year") == (2, ["2026-01", "2026-03"])
    assert counted(marks, "CD", "row") == (3, ["2026-01", "2026-02", "2026-03"])
    assert counted(marks, "C", "ever") == (0, [])
    assert counted([], "D", "ever") == (0, [])


def test_scores_of_several_packs_make_one_stated_sum() -> None:
    shares = {"kpi": F("0.7"), "attendance": F("0.2"), "team": F("0.1")}
    both = combine({"kpi": F(80), "attendance": F(100)}, shares)
    assert both == (F(7, 9) * 80 + F(2, 9) * 100, {"kpi": F(7, 9), "attendance": F(2, 9)})
    assert combine({"other": F(3)}, shares) is None

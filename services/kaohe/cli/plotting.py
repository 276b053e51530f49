"""A comparison as a picture: grades before and after, points by rule, points by person.

matplotlib draws it. It is an extra, since a worker needs none of it; without it there is a plain sentence. The picture
holds no date and no random name, and its letters stay letters, so that the same comparison is the same SVG.
"""

# ruff: noqa: PLC0415 - the extra is imported by the command that needs it

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaohe.errors import UsageError

if TYPE_CHECKING:
    from kaohe.whatif import Comparison

FORMATS = (".svg", ".png", ".pdf")
BARS_MAX = 30
"""A picture shows so many rules and so many people, those that change most."""
_OLD, _MORE, _LESS = "#8a8f98", "#2b7a4b", "#b3372f"
_ROW_INCHES = 0.26
_FIXED_INCHES = 1.3


def check_plot(file: Path) -> None:
    """Say before the work that a plot cannot be drawn: no matplotlib, a strange ending, a folder that is not there."""
    if file.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {file} is no picture; let the name end with {', '.join(FORMATS)}.")
    if not file.resolve().parent.is_dir():
        raise UsageError(f"cannot write {file}: its folder is not there; name a folder that is.")
    try:
        import matplotlib as mpl  # noqa: F401 - whether it is there
    except ImportError:
        raise UsageError("--plot needs matplotlib; install it with: pip install 'kaohe[plot]'.") from None


def draw(found: Comparison, file: Path, title: str) -> None:
    """Draw a comparison into ``file``. UsageError when it cannot be written."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rules = _most([(one.rule, one.points.old, one.points.new) for one in found.rules if one.differs])
    several = len({one.period for one in found.subjects}) > 1
    subjects = _most([
        (f"{one.subject} {one.period}" if several else one.subject, one.points.old, one.points.new)
        for one in found.subjects
        if one.points.old != one.points.new
    ])  # fmt: skip
    heights = [2.2, *(_FIXED_INCHES + _ROW_INCHES * max(1, len(rows)) for rows in (rules, subjects))]
    with (
        mpl.rc_context({"svg.hashsalt": "kaohe", "svg.fonttype": "none", "font.size": 9}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from"
        )  # a reader of SVG brings fonts of its own
        figure = Figure(figsize=(8, sum(heights)), layout="constrained")
        axes = figure.subplots(3, 1, height_ratios=heights)
        figure.suptitle(title)
        _draw_grades(axes[0], found.summary.old_grades, found.summary.new_grades)
        _draw_changes(axes[1], rules, "points by rule")
        _draw_changes(axes[2], subjects, "points by person")
        try:
            _save(figure, file)
        except OSError as error:
            raise UsageError(f"cannot write {file}: {error.strerror}; name another file.") from None


def _save(figure: Any, file: Path) -> None:
    kind = file.suffix.lower()
    dated = {".svg": "Date", ".pdf": "CreationDate"}.get(kind)
    figure.savefig(file, format=kind[1:], metadata={dated: None} if dated else None)


def _most(rows: list[tuple[str, str, str]]) -> list[tuple[str, float, float]]:
    """The rows that change most, the most on top; numbers as floats, for a picture shows no more."""
    found = [(name, _float(old), _float(new)) for name, old, new in rows]
    found.sort(key=lambda row: (-abs(row[2] - row[1]), row[0]))
    return found[:BARS_MAX][::-1]


def _float(text: str) -> float:
    numerator, _, denominator = text.partition(" ")[0].partition("/")
    return float(numerator) / float(denominator or 1)


def _draw_grades(axes: Any, old: dict[str, int], new: dict[str, int]) -> None:
    grades = sorted(old.keys() | new.keys())
    places = range(len(grades))
    axes.bar(
        [place - 0.2 for place in places], [old.get(one, 0) for one in grades], 0.38, color=_OLD, label="old"
    )
    axes.bar(
        [place + 0.2 for place in places],
        [new.get(one, 0) for one in grades],
        0.38,
        color="#31629c",
        label="new",
    )
    axes.set_xticks(list(places), grades)
    axes.set_title("assessments by grade", loc="left")
    if grades:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no grades", ha="center", va="center", transform=axes.transAxes)
    _plain(axes)


def _draw_changes(axes: Any, rows: list[tuple[str, float, float]], title: str) -> None:
    """A line from the old sum to the new one for each row."""
    axes.set_title(title, loc="left")
    for place, (_, old, new) in enumerate(rows):
        colour = _MORE if new > old else _LESS
        axes.plot([old, new], [place, place], color=colour, linewidth=2)
        axes.plot([old], [place], "o", color=_OLD, markersize=5)
        axes.plot([new], [place], "o", color=colour, markersize=5)
    axes.set_yticks(list(range(len(rows))), [name for name, _, _ in rows])
    axes.set_ylim(-0.6, max(1, len(rows)) - 0.4)
    axes.axvline(0, color="#d5d8dc", linewidth=0.8, zorder=0)
    if not rows:
        axes.text(0.5, 0.5, "no difference", ha="center", va="center", transform=axes.transAxes)
    _plain(axes)


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

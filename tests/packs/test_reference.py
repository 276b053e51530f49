"""``docs/packs.md``: its examples are one pack that loads and keeps its stories, and it tells every key there is.

The loader declares its keys where it reads them, in calls of ``Fields``. Reading the reference's own pack goes through
every one of these calls; what they declare and what the examples use is recorded and compared with the tables.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kaohe.core import counts, expressions
from kaohe.core.attendance import OUTCOMES
from kaohe.core.calendars import WINDOWS
from kaohe.events import PAYLOADS
from kaohe.packs import load, metrics, rules, source, story
from kaohe.packs.holidays import CALENDARS
from kaohe.packs.load import read_pack
from kaohe.packs.names import TIME_UNITS
from kaohe.packs.source import Fields, Node, Problems
from kaohe.packs.story import load_stories, run_story

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "packs.md"
READERS = Path(source.__file__).parent
PACK = "help-desk"
STORY_EVENT = "an event of a story"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LABEL = re.compile(r"# ([\w./]+\.yaml)(?:, under (\w+))?\n")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def reference() -> str:
    return REFERENCE.read_text(encoding="utf-8")


def assembled(folder: Path) -> Path:
    """The pack that the examples are, in ``folder/help-desk``."""
    pack = folder / PACK
    texts: dict[str, str] = defaultdict(str)
    parts: dict[str, dict[str, str]] = defaultdict(lambda: defaultdict(str))
    for language, body in _BLOCK.findall(reference()):
        assert language == "yaml", "every fenced example is YAML, and tried"
        label = _LABEL.match(body)
        assert label, f"the example does not say where it belongs:\n{body[:80]}"
        file, part = label[1], label[2]
        if part:
            parts[file][part] += body[label.end() :]
        else:
            texts[file] += body[label.end() :]
    for file, found in parts.items():
        texts[file] += "".join(f"{part}:\n{text}" for part, text in found.items())
    for file, text in texts.items():
        path = pack / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return pack


def tables() -> dict[str, set[str]]:
    """The keys in the first column of each section's table, by the section's heading in small letters."""
    text = reference()
    headings = list(_HEADING.finditer(_without_blocks(text)))
    found: dict[str, set[str]] = {}
    plain = _without_blocks(text)
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        body = plain[heading.end() : following.start() if following else len(plain)]
        rows = [line.split("|")[1] for line in body.splitlines() if line.startswith("| `")]
        found[heading[1].lower()] = {key for row in rows for key in re.findall(r"`([^`]+)`", row)}
    return found


def _without_blocks(text: str) -> str:
    return _BLOCK.sub("", text)


class Declared(NamedTuple):
    """What the loader declared while it read a pack: keys and used keys by what they belong to, and where it did."""

    known: dict[str, set[str]]
    used: dict[str, set[str]]
    places: set[tuple[str, str]]


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declared:
    """Recorded while the reference's own pack and stories are read."""
    record = Declared(defaultdict(set), defaultdict(set), set())
    begin = Fields.__init__

    def recorded(self: Fields, node: Node, problems: Problems, known: Iterable[str], what: str) -> None:
        keys = tuple(known)
        caller = sys._getframe(1).f_code
        record.places.add((Path(caller.co_filename).name, caller.co_name))
        if what.endswith(" event"):
            keys = tuple(
                key
                for key in keys
                if key not in PAYLOADS[what.split()[1]].__struct_fields__ or key == "subject"
            )
            what = STORY_EVENT
        record.known[what].update(keys)
        record.used[what].update(node.entries)
        begin(self, node, problems, keys if what != STORY_EVENT else tuple(known), what)

    monkeypatch.setattr(Fields, "__init__", recorded)
    loaded, problems = read_pack(assembled(tmp_path))
    assert loaded is not None, problems.errors
    load_stories(loaded.pack)
    return record


def test_the_examples_are_a_pack_without_a_mistake_or_a_warning(tmp_path: Path) -> None:
    loaded, problems = read_pack(assembled(tmp_path))
    assert (problems.errors, problems.warnings) == ([], [])
    assert loaded is not None


def test_the_examples_stories_come_as_told(tmp_path: Path) -> None:
    loaded, _ = read_pack(assembled(tmp_path))
    assert loaded is not None
    results = [run_story(loaded.pack, one) for one in load_stories(loaded.pack)]
    assert len(results) == 7
    assert [one.failures for one in results if not one.passed] == []


def test_the_examples_go_through_every_place_where_the_loader_declares_keys(declared: Declared) -> None:
    places = {
        (path.name, function.name)
        for path in READERS.glob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Fields"
    }
    assert len(places) > 20
    assert declared.places == places


def test_every_key_of_the_loader_is_in_the_reference_and_no_other(declared: Declared) -> None:
    told = tables()
    # This one is read without ``Fields``: it stands alone in its braces.
    declared.known["a source"].add("minus")
    differing = {what: keys ^ told.get(what, set()) for what, keys in declared.known.items()}
    assert {what: keys for what, keys in differing.items() if keys} == {}


def test_every_key_is_shown_in_an_example(declared: Declared) -> None:
    # They need a closed period, a second pack, and fines.
    unshowable = {
        "an expected decision": {"adjusts_period"}, "a clause's cover": {"pack"}, "an expected line of pay": {"rule"},
        "a story": {"with"},
    }  # fmt: skip
    unshown = {
        what: keys - declared.used[what] - unshowable.get(what, set())
        for what, keys in declared.known.items()
    }
    assert {what: keys for what, keys in unshown.items() if keys} == {}


def test_every_effect_is_in_the_reference() -> None:
    assert {key for key in tables()["effects"] if key not in rules.PROPOSALS} == set(rules.EFFECTS)


@pytest.mark.parametrize(
    "words",
    [
        load.UNITS, load.CLAUSE_KINDS, load.CASES, story.STORY_CASES, metrics.LEVELS, metrics.OUTCOMES, metrics.STATES,
        metrics.KINDS, rules.PROPOSALS, rules.SEVERITIES, rules.RULE_OUTCOMES, rules.TRIGGERS, rules.FRAME_NAMES,
        TIME_UNITS, WINDOWS, ("counted", "ignored"), load.FILES, tuple(OUTCOMES), CALENDARS,
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_word_that_can_be_chosen_is_in_the_reference(words: tuple[str, ...]) -> None:
    told = {word.strip("{}") for word in re.findall(r"`([^`\n]+)`", _without_blocks(reference()))}
    assert set(words) - told == set()


@pytest.mark.parametrize(
    "bound",
    [
        f"`{source.show_ms(load.STEP_MS)}` to `{source.show_ms(load.EVALUATE_MAX_MS)}`",
        f"duration, 0 to `{source.show_ms(load.GRACE_MAX_MS)}`",
        f"duration, 0 to `{source.show_ms(rules.HOLD_MAX_MS)}`",
        f"`1m` to `{source.show_ms(rules.TASK_MAX_MS)}`",
        f"up to {source.show_ms(counts.MAX_SPAN_MS)};",
        f"at most {rules.EFFECTS_MAX} |",
        f"at most {rules.RULES_MAX}.",
        f"at most {source.DECIMALS_MAX} decimals",
        f"{source.FILE_BYTES_MAX:,} bytes",
        f"{expressions.MAX_TEXT_CHARS} characters",
        f"1 to {story.REPEAT_MAX} |",
        f"at most {story.EVENTS_MAX} |",
    ],
)
def test_every_bound_is_told_as_it_is(bound: str) -> None:
    assert bound in reference()


def refused() -> list[Any]:
    """The rows of the last table: file, what is written, instead of what, and what is said."""
    body = reference().partition("## What is refused")[2]
    rows = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| `")]
    return [
        pytest.param(*(cell.strip("`") for cell in row[:3]), row[3], id=row[1].strip("`")) for row in rows
    ]


@pytest.mark.parametrize(("file", "written", "instead_of", "said"), refused())
def test_what_is_refused_is_refused_with_these_words(
    file: str, written: str, instead_of: str, said: str, tmp_path: Path
) -> None:
    pack = assembled(tmp_path)
    text = (pack / file).read_text(encoding="utf-8")
    assert instead_of in text
    (pack / file).write_text(text.replace(instead_of, written, 1), encoding="utf-8")
    loaded, problems = read_pack(pack)
    if loaded is not None:
        load_stories(loaded.pack, problems)
    assert said in " ".join(str(error) for error in problems.errors)


def examples_of(heading: str) -> list[str]:
    """The examples in the second column of the first table under a heading."""
    table = reference().partition(heading)[2].strip().partition("\n\n")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return [row[-1].strip("`") for row in rows]


def _told_by(pack: Path, instead_of: str, written: str) -> list[str]:
    text = (pack / "rules.yaml").read_text(encoding="utf-8")
    assert instead_of in text
    changed = text.replace(instead_of, written, 1)
    (pack / "rules.yaml").write_text(changed, encoding="utf-8")
    errors = [str(error) for error in read_pack(pack)[1].errors]
    (pack / "rules.yaml").write_text(text, encoding="utf-8")
    return errors


@pytest.mark.parametrize("example", examples_of("## Conditions"))
def test_every_example_of_a_condition_is_one(example: str, tmp_path: Path) -> None:
    instead_of = 'when: "true"' if "event." in example else "when: wait_s.month > p.wait_limit"
    assert _told_by(assembled(tmp_path), instead_of, f"when: '{example}'") == []


def test_the_example_of_an_amount_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"such as\n`([^`]+)`", reference())
    assert _told_by(assembled(tmp_path), "deduct: {points: 2}", f"deduct: {{points: {example}}}") == []

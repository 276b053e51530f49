"""From ``scorecard.yaml`` to ``kaohe.core.model.Scorecard`` and ``Results``.

Theory of operation: the file is one card (the one that entries of single events belong to), in one of two forms. A
card with ``base`` is that base plus the points of the period's entries. A card with ``dimensions`` is a weighted sum of
items. ``further`` lists more cards of the second form for other windows (quarter, year) and for departments. The other
sections say what is made of the grades: ``quota``, ``calibration``, ``tallies``, ``ranking`` and ``combined``.

Everything that could fail while grading is refused here: weights that do not sum to 100 % on some day, a core dimension
outside of its band, scores without a grade, an item that nothing can fill, a rule whose entries would count twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from fractions import Fraction
from typing import Literal, cast

import msgspec

from kaohe.core.model import (
    CALENDAR_WINDOWS,
    Apart,
    Calibration,
    Combined,
    Dimension,
    Item,
    Metric,
    Once,
    Parameter,
    Quota,
    Ranking,
    Results,
    Rule,
    Scale,
    Scorecard,
    Tally,
)
from kaohe.core.scorecard import ranked, weight_mistakes
from kaohe.decisions import Level, Words
from kaohe.errors import PackError
from kaohe.packs.metrics import LEVELS
from kaohe.packs.names import metric_names
from kaohe.packs.rules import PROPOSALS, TASK_MAX_MS, RuleReader, shown
from kaohe.packs.source import (
    NO_TEXTS,
    Fields,
    Node,
    boolean,
    choice,
    duration,
    kebab,
    name,
    nearest,
    number,
    scalar,
    several,
    words,
)

SIMPLE_KEYS = ("clause", "window", "level", "base", "lowest", "highest", "bands", "formula", "words")
CARD_KEYS = (
    "clause", "window", "level", "lowest", "highest", "bands", "formula", "words", "step", "agree", "weights",
    "standard", "band", "dimensions",
)  # fmt: skip
RESULT_KEYS = ("further", "quota", "calibration", "tallies", "ranking", "combined")
ITEM_KINDS = ("metric", "entries", "assessed", "evaluated", "periods")
NO_DATA = ("skip", "none", "full")
CARD_LEVELS = ("agent", "department")
ROLES = {
    "agent": ("self", "peer", "superior", "leader", "department"),
    "department": ("self", "department", "leader"),
}
TIE_BREAKS = ("score", "previous", "seniority")
TALLY_PROPOSALS = (*PROPOSALS, "reward", "review")
CARDS_MAX = 8
DIMENSIONS_MAX = 20
ITEMS_MAX = 40
TALLIES_MAX = 40
_NO_WORDS = Words("", "")
_NO_DIMENSIONS: tuple[Dimension, ...] = ()
_NO_ITEMS: tuple[Item, ...] = ()
_NOTHING_ONCE: tuple[Once, ...] = ()
_NOTHING_APART: tuple[Apart, ...] = ()


class Read(msgspec.Struct, frozen=True):
    """What ``scorecard.yaml`` gave: the main card, the cards made of dimensions, and what is made of the grades."""

    scorecard: Scorecard | None = None
    cards: tuple[Scorecard, ...] = ()
    results: Results = Results()


class CardReader:
    """Reads the scorecards of one pack. Which rules' entries its items name is checked once the rules are read."""

    def __init__(self, reader: RuleReader) -> None:
        self.reader = reader
        self.base = reader.base
        self.problems = reader.problems
        self.parameters: Mapping[str, Parameter] = reader.parameters
        self.metrics: Mapping[str, Metric] = reader.metrics
        self.entries: list[tuple[Node, str, str]] = []
        self.cards: dict[tuple[str, str], Scorecard] = {}
        self.main_window = ""

    def read(self, node: Node | None) -> Read:
        """The whole file; what is wrong is noted and left out."""
        if node is None:
            return Read()
        weighted = node.get("dimensions") is not None
        window = node.get("window")
        self.main_window = window.text if window is not None else ""
        own, what = (CARD_KEYS, "a scorecard of items") if weighted else (SIMPLE_KEYS, "a scorecard")
        fields = Fields(node, self.problems, (*own, *RESULT_KEYS), what)
        self._know_ids(node)
        main = self._weighted(fields) if weighted else self._simple(fields)
        if main is not None and weighted:
            self.cards[main.level, main.window] = main
        fields.take("further", self._further, None)
        if main is None or not fields.ok():
            return Read()
        results = self._results(fields, main)
        if not fields.ok():
            return Read()
        return Read(main, tuple(self.cards.values()), results)

    def _know_ids(self, node: Node) -> None:
        """Learn what can be named like a rule, so that a mistake elsewhere in the file makes no name unknown."""
        tallies = node.get("tallies")
        found = [
            node.get("calibration"),
            node.get("ranking"),
            *(tallies.items if tallies is not None else []),
        ]
        for body in found:
            own = body.get("id") if body is not None else None
            if body is not None and own is not None:
                self.reader.nodes.setdefault(own.text, body)

    # --- cards

    def _simple(self, fields: Fields) -> Scorecard | None:
        clause = fields.need("clause", self.base.clause, "")
        window = fields.need("window", choice(CALENDAR_WINDOWS, "period"), "")
        level = fields.need("level", choice(LEVELS, "level"), "")
        figure = self.base.parameter("points", "score")
        base, lowest, highest = (fields.need(key, figure, "") for key in ("base", "lowest", "highest"))
        bands = fields.need("bands", self.base.parameter("points", "score", kinds=("table",)), "")
        formula = fields.need("formula", words, _NO_WORDS)
        if fields.ok():
            self._check_scores(fields, base, lowest, highest, bands)
        own_words = self._words(fields, bands) if fields.ok() else {}
        if not fields.ok():
            return None
        return Scorecard(
            clause=clause, window=window, level=cast("Level", level), base=base, lowest=lowest, highest=highest,
            bands=bands, formula=formula, place=fields.node.place, words=own_words,
        )  # fmt: skip

    def _further(self, node: Node) -> None:
        if node.kind != "list" or not node.items:
            node.fail(f"further scorecards are a list, not {node.shown}", "write `- window: quarter`")
        if len(node.items) > CARDS_MAX:
            node.fail(f"{len(node.items)} scorecards are too many", f"write at most {CARDS_MAX}")
        for item in node.items:
            fields = Fields(item, self.problems, CARD_KEYS, "a scorecard of items")
            card = self._weighted(fields)
            if card is None:
                raise self.problems.errors[-1]
            if (card.level, card.window) in self.cards:
                item.fail(
                    f"there are two scorecards for each {card.level} and {card.window}", "keep one of them"
                )
            self.cards[card.level, card.window] = card

    def _weighted(self, fields: Fields) -> Scorecard | None:
        clause = fields.need("clause", self.base.clause, "")
        window = fields.need("window", choice(CALENDAR_WINDOWS, "period"), "")
        level = fields.need("level", choice(CARD_LEVELS, "level"), "")
        figure = self.base.parameter("points", "score")
        lowest, highest = (fields.need(key, figure, "") for key in ("lowest", "highest"))
        bands = fields.need("bands", self.base.parameter("points", "score", kinds=("table",)), "")
        formula = fields.need("formula", words, _NO_WORDS)
        step = fields.take("step", self._step, Fraction(1, 100))
        agree = fields.take("agree", boolean, False)
        table = self.base.parameter("ratio", kinds=("table",))
        weights = fields.take("weights", table, "")
        standard = fields.take("standard", table, "")
        band = fields.take("band", self.base.parameter("ratio"), "")
        if not fields.ok():
            return None
        dimensions = fields.need(
            "dimensions", lambda found: self._dimensions(found, level, window), _NO_DIMENSIONS
        )
        if fields.ok():
            self._check_scores(fields, "", lowest, highest, bands)
            self._check_weights(fields, dimensions, weights, standard, band)
        own_words = self._words(fields, bands) if fields.ok() else {}
        if not fields.ok():
            return None
        return Scorecard(
            clause=clause, window=window, level=cast("Level", level), base="", lowest=lowest, highest=highest,
            bands=bands, formula=formula, place=fields.node.place, dimensions=dimensions, weights=weights,
            standard=standard, band=band, step=step, agree=agree, words=own_words,
        )  # fmt: skip

    @staticmethod
    def _step(node: Node) -> Fraction:
        value = number(node)
        if not 0 < value <= 10:
            node.fail(f"{node.text} is no step of a score", "write 0.01, 0.1, 0.5 or 1")
        return value

    def _words(self, fields: Fields, bands: str) -> dict[str, Words]:
        """The names of the grades for people, if they are given: then every grade has one."""
        node = fields.node.get("words")
        if node is None:
            return {}
        grades = self._grades(bands)
        own = Fields(node, self.problems, grades, "the words of the grades")
        found = {grade: own.need(grade, words, _NO_WORDS) for grade in grades}
        if not own.ok():
            fields.take("words", lambda _node: self._stop(), None)
        return found

    def _stop(self) -> None:
        raise self.problems.errors[-1]

    def _grades(self, bands: str) -> list[str]:
        table = self.parameters[bands].values[-1][1]
        assert isinstance(table, dict)
        return ranked(table)

    # --- dimensions and items

    def _dimensions(self, node: Node, level: str, window: str) -> tuple[Dimension, ...]:
        entries = self._named(node, "dimensions", DIMENSIONS_MAX)
        found: list[Dimension] = []
        known: dict[str, Node] = {}
        for key, body in entries:
            fields = Fields(body, self.problems, ("clause", "title", "core", "items"), "a dimension")
            own_name = name(key)
            clause = fields.need("clause", self.base.clause, "")
            title = fields.need("title", words, _NO_WORDS)
            core = fields.take("core", boolean, False)
            items = fields.need("items", lambda it: self._items(it, level, window, known), _NO_ITEMS)
            if not fields.ok():
                raise self.problems.errors[-1]
            found.append(Dimension(name=own_name, clause=clause, title=title, items=items, core=core))
        return tuple(found)

    def _named(self, node: Node, what: str, most: int) -> list[tuple[Node, Node]]:
        if node.kind != "mapping" or not node.entries:
            node.fail(f"{what} are a mapping, not {node.shown}", "write `name:` lines")
        if len(node.entries) > most:
            node.fail(f"{len(node.entries)} {what} are too many", f"write at most {most}")
        return list(node.entries.values())

    def _items(self, node: Node, level: str, window: str, known: dict[str, Node]) -> tuple[Item, ...]:
        found: list[Item] = []
        before = len(self.problems.errors)
        for key, body in self._named(node, "items", ITEMS_MAX):
            if key.text in known:
                key.fail(
                    f"two items of the card are named {key.text!r}",
                    f"rename one; the first is in line {known[key.text].place.line}",
                )
            known[key.text] = key
            item = self._item(key, body, level, window)
            if item is not None:
                found.append(item)
        if len(self.problems.errors) > before:
            raise self.problems.errors[-1]
        return tuple(found)

    def _item(self, key: Node, node: Node, level: str, window: str) -> Item | None:
        said = [kind for kind in ITEM_KINDS if node.get(kind) is not None]
        own = ("clause", "title", "most", "no_data", *ITEM_KINDS, "straight", "graded", "at_least")
        fields = Fields(node, self.problems, own, "an item")
        if len(said) != 1:
            what = (
                f"has {len(said)} sources ({', '.join(said)})"
                if said
                else "says not where its points come from"
            )
            fields.wrong(
                said[1] if said else "most", f"the item {what}", f"give it one of {', '.join(ITEM_KINDS)}"
            )
            return None
        kind = cast("Literal['metric', 'entries', 'assessed', 'evaluated', 'periods']", said[0])
        if level == "department" and kind not in ("assessed", "periods"):
            fields.wrong(
                kind, f"a department has no {kind} of its own", "let people assess it, or use `periods`"
            )
        for scale in ("straight", "graded"):
            if scale in fields and kind != "metric":
                fields.wrong(scale, "only a metric needs a scale", "leave it out")
        item = Item(
            name=name(key),
            clause=fields.need("clause", self.base.clause, ""),
            title=fields.need("title", words, _NO_WORDS),
            most=fields.need("most", self._positive, ""),
            kind=kind,
            at_least=fields.take("at_least", self.base.parameter("count"), ""),
            no_data=cast("Literal['skip', 'none', 'full']", fields.take("no_data", choice(NO_DATA, "choice"), "skip")),
        )  # fmt: skip
        readers: dict[str, Callable[[Fields, Item, str, str], Item]] = {
            "metric": self._metric_item, "entries": self._entries_item, "assessed": self._assessed_item,
            "periods": self._periods_item, "evaluated": self._evaluated_item,
        }  # fmt: skip
        filled = readers[kind](fields, item, level, window)
        return filled if fields.ok() else None

    def _positive(self, node: Node) -> str:
        found = self.base.parameter("points", "score")(node)
        parameter = self.parameters[found]
        if parameter.minimum is None or parameter.minimum <= 0:
            node.fail(
                f"p.{found} may be 0 (min {shown(parameter.minimum)})",
                "an item is worth something: set `min: 1`",
            )
        if parameter.maximum is None or parameter.maximum > 100:
            node.fail(f"p.{found} may be above 100", "points of items go up to 100: set `max: 100`")
        return found

    def _metric_item(self, fields: Fields, item: Item, level: str, window: str) -> Item:
        metric_name = fields.need("metric", choice(sorted(self.metrics), "metric"), "")
        if ("straight" in fields) == ("graded" in fields):
            fields.wrong(
                "metric",
                "a metric needs one scale",
                "add `straight: {none_at, full_at}` or `graded: {limits, shares}`",
            )
        if not fields.ok():
            return item
        metric = self.metrics[metric_name]
        if level not in metric.levels or f"{metric_name}.{window}" not in metric_names(metric, [window]):
            fields.wrong(
                "metric", f"{metric_name} is not counted for each {level} and {window}",
                f"declare it with `level: [{level}]` and `windows: [{window}]`",
            )  # fmt: skip
            return item
        scale = fields.take("straight", lambda node: self._straight(node, metric), None)
        scale = fields.take("graded", lambda node: self._graded(node, metric), scale)
        return msgspec.structs.replace(item, metric=metric_name, scale=scale)

    def _straight(self, node: Node, metric: Metric) -> Scale:
        fields = Fields(node, self.problems, ("none_at", "full_at"), "a straight scale")
        figure = self.base.parameter(metric.unit)
        none_at, full_at = fields.need("none_at", figure, ""), fields.need("full_at", figure, "")
        if fields.ok():
            for day, (low, high) in self._on_each_day(none_at, full_at):
                if low == high:
                    fields.wrong(
                        "full_at", f"on {day} the scale begins and ends at {shown(cast('Fraction', low))}",
                        "let the two differ",
                    )  # fmt: skip
                    break
        if not fields.ok():
            raise self.problems.errors[-1]
        return Scale(none_at=none_at, full_at=full_at)

    def _graded(self, node: Node, metric: Metric) -> Scale:
        fields = Fields(node, self.problems, ("limits", "shares", "better"), "a graded scale")
        limits = fields.need("limits", self.base.parameter(metric.unit, kinds=("table",)), "")
        shares = fields.need("shares", self._shares, "")
        better = fields.need("better", choice(("higher", "lower"), "direction"), "higher")
        if fields.ok():
            for day, (values, table) in self._on_each_day(limits, shares):
                assert isinstance(values, dict)
                assert isinstance(table, dict)
                if set(values) != set(table):
                    odd = min(set(values) ^ set(table))
                    fields.wrong("shares", f"on {day} {odd!r} stands in one of limits and shares only",
                                 "give both tables the same words")  # fmt: skip
                    break
        if not fields.ok():
            raise self.problems.errors[-1]
        return Scale(limits=limits, shares=shares, better=cast("Literal['higher', 'lower']", better))

    def _shares(self, node: Node) -> str:
        """A table of shares from 0 to 1."""
        found = self.base.parameter("ratio", kinds=("table",))(node)
        for since, table in self.parameters[found].values:
            assert isinstance(table, dict)
            for word, value in table.items():
                if not 0 <= value <= 1:
                    node.fail(
                        f"on {since} the share of {word!r} is {shown(value)}", "write shares from 0 to 1"
                    )
        return found

    def _entries_item(self, fields: Fields, item: Item, level: str, window: str) -> Item:
        wanted = fields.need("entries", several(kebab), NO_TEXTS)
        node = fields.at("entries")
        self.entries += [(one, level, window) for one in (node.items if node.kind == "list" else [node])]
        return msgspec.structs.replace(item, rules=wanted)

    def check_entries(self, rules: Iterable[Rule]) -> None:
        """Note the rules that an item names although their entries cannot count in it."""
        known = {rule.id: rule for rule in rules}
        first: dict[str, int] = {}
        for node, level, window in self.entries:
            found = node.text
            if found not in known:
                if found not in self.reader.nodes:
                    self._note(node, f"there is no rule {found!r}", nearest(found, known, "rule"))
                continue
            rule = known[found]
            right = f"name rules that give points to each {level} in a {window}"
            own_window = rule.on if rule.trigger == "period" else self.main_window
            if level not in rule.levels or not any(effect.amount for effect in rule.effects):
                self._note(node, f"the rule {found} gives no points to an {level}", right)
            elif own_window != window:
                self._note(node, f"the entries of {found} belong to a {own_window}, not to a {window}", right)
            elif found in first:
                self._note(node, f"the entries of {found} would count twice",
                           f"name the rule in one item; the first is in line {first[found]}")  # fmt: skip
            first.setdefault(found, node.place.line)

    def _note(self, node: Node, wrong: str, right: str) -> None:
        self.problems.add(PackError(node.place, node.path, wrong, right))

    def _assessed_item(self, fields: Fields, item: Item, level: str, _window: str) -> Item:
        body = fields.at("assessed")
        own = Fields(body, self.problems, ("roles", "words", "required"), "an assessed item")
        roles = own.need("roles", self._shares, "")
        word_shares = own.take("words", self._shares, "")
        required = own.take("required", several(choice(ROLES[level], "role")), NO_TEXTS)
        if own.ok():
            for since, table in self.parameters[roles].values:
                assert isinstance(table, dict)
                for role in table:
                    if role not in ROLES[level]:
                        own.wrong(
                            "roles",
                            f"there is no role {role!r} for an {level}",
                            nearest(role, ROLES[level], "role"),
                        )
                if sum(table.values(), Fraction(0)) != 1:
                    total = sum(table.values(), Fraction(0))
                    own.wrong("roles", f"on {since} the roles' weights sum to {shown(100 * total)}%",
                              "let them sum to 100%")  # fmt: skip
                for role in required:
                    if role not in table:
                        own.wrong(
                            "required", f"on {since} {role!r} has no weight", "name roles that are heard"
                        )
        if not own.ok():
            fields.take("assessed", lambda _node: self._stop(), None)
        return msgspec.structs.replace(item, roles=roles, words=word_shares, required=required)

    def _evaluated_item(self, fields: Fields, item: Item, _level: str, _window: str) -> Item:
        fields.need(
            "evaluated", choice(("quality.evaluated",), "event type with a score and an assessor"), ""
        )
        return item

    def _periods_item(self, fields: Fields, item: Item, level: str, window: str) -> Item:
        found = fields.need("periods", choice(CALENDAR_WINDOWS, "period"), "")
        order = CALENDAR_WINDOWS.index
        if found and order(found) >= order(window):
            fields.wrong("periods", f"a {window} holds no whole {found}", "name a shorter period")
        elif found and (level, found) not in self.cards and (level, found) != ("agent", self.main_window):
            fields.wrong(
                "periods",
                f"there is no scorecard for each {level} and {found} above",
                "add one, and put it first",
            )
        return msgspec.structs.replace(item, window=found)

    # --- checks over days

    def _on_each_day(self, *used: str) -> Iterable[tuple[date, list[object]]]:
        """Each day on which one of the parameters changes, and all their values on it."""
        parameters = [self.parameters[one] for one in used]
        first = max(one.values[0][0] for one in parameters)
        for day in sorted(
            {since for one in parameters for since, _ in one.values if since > first} | {first}
        ):
            yield day, [one.value_at(day) for one in parameters]

    def _check_weights(
        self, fields: Fields, dimensions: tuple[Dimension, ...], weights: str, standard: str, band: str
    ) -> None:
        names = [one.name for one in dimensions]
        core = [one.name for one in dimensions if one.core]
        if not weights:
            if len(dimensions) > 1:
                fields.wrong(
                    "dimensions", f"{len(dimensions)} dimensions have no weights", "add `weights: p.weights`"
                )
            return
        if not (bool(standard) == bool(band) == bool(core)):
            fields.wrong(
                "standard" if standard else "band" if band else "dimensions",
                "core dimensions, their standard weights and their band go together",
                "write `core: true`, `standard:` and `band:`, or none of them",
            )
            return
        used = [weights, standard, band] if standard else [weights]
        for day, values in self._on_each_day(*used):
            tuned = cast("dict[str, Fraction]", values[0])
            usual = cast("dict[str, Fraction]", values[1]) if standard else None
            width = cast("Fraction", values[2]) if standard else Fraction(0)
            found = [("standard", one) for one in weight_mistakes(usual, names)] if usual is not None else []
            found = found or [("weights", one) for one in weight_mistakes(tuned, names, core, usual, width)]
            for key, (wrong, right) in found:
                fields.wrong(key, f"on {day} {wrong}", right)
            if found:
                return

    def _check_scores(self, fields: Fields, base: str, lowest: str, highest: str, bands: str) -> None:
        """On every day on which a figure changes: lowest <= base <= highest, and each score has one grade."""
        for day, (start, low, high, table) in self._on_each_day(base or lowest, lowest, highest, bands):
            assert isinstance(start, Fraction)
            assert isinstance(low, Fraction)
            assert isinstance(high, Fraction)
            assert isinstance(table, dict)
            if not low <= start <= high or low == high:
                what = "base score" if base else "lowest score"
                fields.wrong(
                    "base" if base else "lowest",
                    f"on {day} the {what} {shown(start)} is not between {shown(low)} and {shown(high)}",
                    "order the figures lowest <= base <= highest",
                )
                return
            limits = sorted(table.values())
            if len(set(limits)) != len(limits):
                fields.wrong(
                    "bands",
                    f"on {day} two grades begin at the same score",
                    "give each grade a score of its own",
                )
            elif limits[0] > low:
                fields.wrong(
                    "bands",
                    f"on {day} scores below {shown(limits[0])} have no grade",
                    f"begin the lowest grade at {shown(low)}",
                )
            elif limits[-1] > high:
                fields.wrong(
                    "bands",
                    f"on {day} the best grade begins at {shown(limits[-1])}, which nobody can reach",
                    f"begin it at {shown(high)} or below",
                )

    # --- what is made of the grades

    def _results(self, fields: Fields, main: Scorecard) -> Results:
        return Results(
            quota=fields.take("quota", lambda node: self._quota(node, main), None),
            calibration=fields.take("calibration", self._calibration, None),
            tallies=fields.take("tallies", lambda node: self._tallies(node, main), ()),
            ranking=fields.take("ranking", self._ranking, None),
            combined=fields.take("combined", lambda node: self._combined(node, main), None),
        )

    def _quota(self, node: Node, main: Scorecard) -> Quota:
        keys = ("clause", "grade", "share", "per_department", "tie_break", "formula", "after_told")
        fields = Fields(node, self.problems, keys, "a quota")
        best = self._grades(main.bands)[0]
        after_told = fields.take("after_told", choice(("keep", "redo"), "way to go on"), "redo")
        known = [*TIE_BREAKS, *(f"dimension:{one.name}" for one in main.dimensions)]
        quota = Quota(
            clause=fields.need("clause", self.base.clause, ""),
            grade=fields.need("grade", choice([best], "best grade"), ""),
            share=fields.need("share", self._portion, ""),
            per_department=fields.need("per_department", self.base.parameter("count"), ""),
            tie_break=fields.need("tie_break", several(choice(known, "tie-break")), NO_TEXTS),
            formula=fields.need("formula", words, _NO_WORDS),
            after_told=cast("Literal['keep', 'redo']", after_told),
        )
        if main.level != "agent":
            fields.wrong("grade", "a quota is about people", "give the scorecard `level: agent`")
        if fields.ok() and quota.tie_break[0] != "score":
            fields.wrong("tie_break", "the score does not come first", "begin the list with `score`")
        if not fields.ok():
            raise self.problems.errors[-1]
        return quota

    def _portion(self, node: Node) -> str:
        found = self.base.parameter("ratio")(node)
        parameter = self.parameters[found]
        if (
            parameter.minimum is None
            or parameter.minimum < 0
            or parameter.maximum is None
            or parameter.maximum > 1
        ):
            node.fail(f"p.{found} may lie outside 0 to 1", "bound it by `min: 0` and `max: 1`")
        return found

    def _calibration(self, node: Node) -> Calibration:
        known = (
            "id",
            "clause",
            "title",
            "roles",
            "at_least",
            "tolerance",
            "strength",
            "limit",
            "owner",
            "task",
            "due",
        )
        fields = Fields(node, self.problems, known, "a calibration")
        own = [card for card in self.cards.values() if card.level == "agent"]
        kinds = {item.kind for card in own for dimension in card.dimensions for item in dimension.items}
        heard = [*ROLES["agent"], "evaluated"]
        found = Calibration(
            id=fields.need("id", self._own_id, ""),
            clause=fields.need("clause", self.base.clause, ""),
            title=fields.need("title", words, _NO_WORDS),
            roles=fields.need("roles", several(choice(heard, "role")), NO_TEXTS),
            at_least=fields.need("at_least", self.base.parameter("count"), ""),
            tolerance=fields.need("tolerance", self._portion, ""),
            strength=fields.need("strength", self._portion, ""),
            limit=fields.need("limit", self._portion, ""),
            owner=fields.need("owner", name, ""),
            task=fields.need("task", words, _NO_WORDS),
            due_ms=fields.need("due", duration(60_000, TASK_MAX_MS), 0),
        )
        if fields.ok() and not kinds & {"assessed", "evaluated"}:
            fields.wrong("roles", "nothing on a scorecard of people is assessed", "leave the calibration out")
        if not fields.ok():
            raise self.problems.errors[-1]
        return found

    def _own_id(self, node: Node) -> str:
        found = kebab(node)
        if self.reader.nodes[found].get("id") is not node:
            node.fail(f"the id {found!r} is used twice", "choose another")
        return found

    def _tallies(self, node: Node, main: Scorecard) -> tuple[Tally, ...]:
        if node.kind != "list" or not node.items:
            node.fail(f"tallies are a list, not {node.shown}", "write `- id: ...`")
        if len(node.items) > TALLIES_MAX:
            node.fail(f"{len(node.items)} tallies are too many", f"write at most {TALLIES_MAX}")
        return tuple(self._tally(item, main) for item in node.items)

    def _tally(self, node: Node, main: Scorecard) -> Tally:
        known = (
            "id", "clause", "title", "explanation", "window", "level", "grades", "reaches", "within", "or_more",
            "proposal", "owner",
        )  # fmt: skip
        fields = Fields(node, self.problems, known, "a tally")
        own_id = fields.need("id", self._own_id, "")
        window = fields.take("window", choice(CALENDAR_WINDOWS, "period"), main.window)
        level = fields.take("level", choice(CARD_LEVELS, "level"), str(main.level))
        card = main if (level, window) == (main.level, main.window) else self.cards.get((level, window))
        if card is None:
            fields.wrong(
                "window", f"there is no scorecard for each {level} and {window}", "name a card's window"
            )
        grades = self._grades((card or main).bands)
        within = fields.need("within", choice(("ever", "year", "row"), "span"), "ever")
        tally = Tally(
            id=own_id, window=window, level=cast("Level", level), within=cast("Literal['ever', 'year', 'row']", within),
            clause=fields.need("clause", self.base.clause, ""),
            title=fields.need("title", words, _NO_WORDS),
            explanation=fields.take("explanation", words, _NO_WORDS),
            grades=fields.need("grades", several(choice(grades, "grade")), NO_TEXTS),
            reaches=fields.need("reaches", self._at_least_one, ""),
            or_more=fields.take("or_more", boolean, False),
            proposal=fields.need("proposal", choice(TALLY_PROPOSALS, "proposal"), ""),
            owner=fields.need("owner", name, ""),
        )  # fmt: skip
        if not fields.ok():
            raise self.problems.errors[-1]
        return tally

    def _at_least_one(self, node: Node) -> str:
        found = self.base.parameter("count")(node)
        minimum = self.parameters[found].minimum
        if minimum is None or minimum < 1:
            node.fail(f"p.{found} may be 0", "a grade is counted from 1: set `min: 1`")
        return found

    def _ranking(self, node: Node) -> Ranking:
        fields = Fields(
            node, self.problems, ("id", "clause", "title", "window", "best", "owner"), "a ranking"
        )
        found = Ranking(
            id=fields.need("id", self._own_id, ""),
            clause=fields.need("clause", self.base.clause, ""),
            title=fields.need("title", words, _NO_WORDS),
            window=fields.need("window", choice(CALENDAR_WINDOWS, "period"), ""),
            best=fields.need("best", choice(TALLY_PROPOSALS, "proposal"), ""),
            owner=fields.need("owner", name, ""),
        )
        if fields.ok() and ("department", found.window) not in self.cards:
            fields.wrong(
                "window",
                f"there is no scorecard for each department and {found.window}",
                "add one to `further`",
            )
        if not fields.ok():
            raise self.problems.errors[-1]
        return found

    def _combined(self, node: Node, main: Scorecard) -> Combined:
        fields = Fields(
            node, self.problems, ("clause", "shares", "bands", "formula", "once", "apart"), "a combined score"
        )
        found = Combined(
            clause=fields.need("clause", self.base.clause, ""),
            window=main.window,
            shares=fields.need("shares", self._shares, ""),
            bands=fields.need("bands", self.base.parameter("points", "score", kinds=("table",)), ""),
            formula=fields.need("formula", words, _NO_WORDS),
            once=fields.take("once", several(self._once), _NOTHING_ONCE),
            apart=fields.take("apart", several(self._apart), _NOTHING_APART),
        )
        if fields.ok():
            self._check_shares(fields, found)
            for since, table in self.parameters[found.shares].values:
                assert isinstance(table, dict)
                if sum(table.values(), Fraction(0)) != 1:
                    fields.wrong("shares", f"on {since} the shares do not sum to 100%", "let them sum to 1")
                if self.base.pack not in table:
                    fields.wrong(
                        "shares", f"on {since} {self.base.pack} itself has no share", "add a line for it"
                    )
        if main.level != "agent":
            fields.wrong("shares", "packs are combined for people", "give the scorecard `level: agent`")
        if not fields.ok():
            raise self.problems.errors[-1]
        return found

    def _once(self, node: Node) -> Once:
        fields = Fields(node, self.problems, ("title", "charged_by", "what", "why"), "what is charged once")
        found = Once(
            title=fields.need("title", words, _NO_WORDS),
            charged_by=fields.need("charged_by", several(kebab), NO_TEXTS),
            what=fields.need("what", _by_pack, {}),
            why=fields.need("why", words, _NO_WORDS),
        )
        if fields.ok():
            for whose in sorted({*found.charged_by} ^ found.what.keys()):
                if whose in found.what:
                    fields.wrong("charged_by", f"{whose} has no place in the order", "name it there as well")
                else:
                    fields.wrong(
                        "what", f"{whose} is to charge, and nothing of it is named", f"write {whose}: [...]"
                    )
        if not fields.ok():
            raise self.problems.errors[-1]
        return found

    def _apart(self, node: Node) -> Apart:
        fields = Fields(node, self.problems, ("what", "why"), "what is charged apart")
        found = Apart(what=fields.need("what", _by_pack, {}), why=fields.need("why", words, _NO_WORDS))
        if not fields.ok():
            raise self.problems.errors[-1]
        return found

    def _check_shares(self, fields: Fields, combined: Combined) -> None:
        """Every pack that is named has a share."""
        shared = {pack for _, table in self.parameters[combined.shares].values for pack in table}  # type: ignore[union-attr]
        named = {
            "once": [pack for once in combined.once for pack in once.what],
            "apart": [pack for apart in combined.apart for pack in apart.what],
        }
        for key, packs in named.items():
            for whose in packs:
                if whose not in shared:
                    fields.wrong(key, f"{whose} has no share", nearest(whose, shared, "pack"))


def _by_pack(node: Node) -> dict[str, tuple[str, ...]]:
    """Rules and items by the packs that have them."""
    if node.kind != "mapping" or len(node.entries) < 2:
        node.fail(
            f"what two or more packs look at is named by pack, not {node.shown}",
            "write {one-pack: [item-or-rule], other-pack: [item-or-rule]}",
        )
    return {whose: several(scalar)(body) for whose, (_, body) in node.entries.items()}

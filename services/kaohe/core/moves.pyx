# cython: language_level=3, boundscheck=False, wraparound=False
"""Who moved at a boundary of log time: the loops over all subjects in which for nearly all of them nothing follows.

Theory of operation. At a boundary the open cells of everybody who did anything are folded, and soon after the running
periods are judged of all for whom anything was counted. Of a thousand subjects a few dozen have another outcome than
before (``kaohe.core.outcomes``), so the loops that find these few are here, and what is done with them is not.

The outcomes of a period's rules are worked out as whole numbers, from the counts where they are kept: ``Verdicts`` is
made of tables, as a look is (``kaohe.core.looks``), and the numbers are the same exactly when the outcomes are. Sums
stay below ``2 ** 46`` and factors below ``2 ** 30``, so that a polynomial of 16 terms fits into 128 bits; where a count is
larger there is no answer, and the subject is judged as if something had moved.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcmp

from kaohe.core.counts cimport Cell, Series
from kaohe.core.intake cimport Known
from kaohe.core.polynomials cimport AT_LEAST, AT_MOST, EQUAL, LESS, MORE, OTHER, Op, Term, compares, kaohe_wide, total_of

MAX_NUMBERS = 64
"""Variables, comparisons and numbers in one set of outcomes."""
MAX_TERMS = 16
"""Terms of a polynomial."""
MAX_FACTOR = 1 << 30
"""Factors are smaller."""

cdef enum:
    NUMBERS = 64

cdef int64_t LARGE = (<int64_t>1) << 46

cdef dict OPS = {"<": LESS, "<=": AT_MOST, ">": MORE, ">=": AT_LEAST, "==": EQUAL, "!=": OTHER}

cdef struct Run:
    int first, n           # some of the things that lie one after the other

cdef struct Read:
    int32_t slot
    int64_t weight

cdef struct Variable:
    int period             # which of the periods is read
    Run reads

cdef struct Comparison:
    Op op
    Run terms

cdef struct Steps:
    uint64_t known         # the comparisons that hold where there is data
    int64_t most
    Run top, bottom        # terms


cdef class Verdicts:
    """The outcomes of some rules about one period, as numbers.

    ``variables`` are sums: which of the periods is read, that one or a baseline, and what (slot, weight).
    ``comparisons`` are their operator and terms (factor and two variables or -1), and of each rule there are the sets of
    comparisons (as bits) that make it hold together, and its steps: the comparisons that hold where there is data, the
    most there can be, and the terms of top and bottom.
    """

    cdef int n_variables, n_comparisons, n_rules
    cdef Variable *variables
    cdef Read *reads
    cdef Comparison *comparisons
    cdef Term *terms
    cdef uint64_t *passing
    cdef Run *sets             # of each rule, among those that make rules hold
    cdef Steps *steps
    cdef Run *amounts          # of each rule, among all steps

    def __init__(self, variables, comparisons, rules):
        cdef int at, place = 0
        reads = [read for _, own in variables for read in own]
        terms = [one for _, own in comparisons for one in own]
        passing = [one for own, _ in rules for one in own]
        steps = [one for _, own in rules for one in own]
        terms += [one for _, _, *both in steps for own in both for one in own]
        assert max(len(variables), len(comparisons), len(rules) + len(steps)) <= NUMBERS
        self.n_variables, self.n_comparisons, self.n_rules = len(variables), len(comparisons), len(rules)
        self.variables = <Variable *>PyMem_Malloc((self.n_variables + 1) * sizeof(Variable))
        self.reads = <Read *>PyMem_Malloc((len(reads) + 1) * sizeof(Read))
        self.comparisons = <Comparison *>PyMem_Malloc((self.n_comparisons + 1) * sizeof(Comparison))
        self.terms = <Term *>PyMem_Malloc((len(terms) + 1) * sizeof(Term))
        self.passing = <uint64_t *>PyMem_Malloc((len(passing) + 1) * sizeof(uint64_t))
        self.sets = <Run *>PyMem_Malloc((self.n_rules + 1) * sizeof(Run))
        self.steps = <Steps *>PyMem_Malloc((len(steps) + 1) * sizeof(Steps))
        self.amounts = <Run *>PyMem_Malloc((self.n_rules + 1) * sizeof(Run))
        if (
            self.variables is NULL or self.reads is NULL or self.comparisons is NULL or self.terms is NULL
            or self.passing is NULL or self.sets is NULL or self.steps is NULL or self.amounts is NULL
        ):
            raise MemoryError
        for at, (period, own) in enumerate(variables):
            self.variables[at].period = period
            self.variables[at].reads.first, self.variables[at].reads.n = place, len(own)
            place += len(own)
        for at, (slot, weight) in enumerate(reads):
            self.reads[at].slot, self.reads[at].weight = slot, weight
        for at, (factor, one, other) in enumerate(terms):
            assert abs(factor) < MAX_FACTOR, factor
            self.terms[at].factor, self.terms[at].one, self.terms[at].other = factor, one, other
        place = 0
        for at, (op, own) in enumerate(comparisons):
            self.comparisons[at].op = OPS[op]
            self.comparisons[at].terms.first, self.comparisons[at].terms.n = place, len(own)
            place += len(own)
        for at, (known, most, top, bottom) in enumerate(steps):
            self.steps[at].known, self.steps[at].most = known, most
            self.steps[at].top.first, self.steps[at].top.n = place, len(top)
            self.steps[at].bottom.first, self.steps[at].bottom.n = place + len(top), len(bottom)
            place += len(top) + len(bottom)
        for at, one in enumerate(passing):
            self.passing[at] = one
        self.share(rules)

    def share(self, rules):
        """Note which sets and which steps are those of each rule."""
        cdef int at, first_set = 0, first_steps = 0
        for at, (sets, steps) in enumerate(rules):
            self.sets[at].first, self.sets[at].n = first_set, len(sets)
            self.amounts[at].first, self.amounts[at].n = first_steps, len(steps)
            first_set += len(sets)
            first_steps += len(steps)

    def __dealloc__(self):
        PyMem_Free(self.variables)
        PyMem_Free(self.reads)
        PyMem_Free(self.comparisons)
        PyMem_Free(self.terms)
        PyMem_Free(self.passing)
        PyMem_Free(self.sets)
        PyMem_Free(self.steps)
        PyMem_Free(self.amounts)

    cdef list moved(self, bytes before, bytes now):
        """The rules whose outcomes differ, by their places among the rules."""
        cdef const char *one = before
        cdef const char *other = now
        cdef size_t size, at = 0
        cdef int rule
        cdef list found = []
        for rule in range(self.n_rules):
            size = (1 + self.amounts[rule].n) * sizeof(int64_t)
            if memcmp(one + at, other + at, size) != 0:
                found.append(rule)
            at += size
        return found

    def __call__(self, Series series not None, tuple periods not None):
        """The outcomes of a subject; None where a count is too large to tell."""
        cdef int64_t found[NUMBERS]
        cdef int size = self.tell(series, periods, found)
        return PyBytes_FromStringAndSize(<char *>found, size * sizeof(int64_t)) if size >= 0 else None

    cdef int tell(self, Series series, tuple periods, int64_t *found) except -2:
        """Put the outcomes of a subject there and say how many there are; -1 where a count is too large to tell."""
        cdef int64_t values[NUMBERS]
        cdef uint64_t held = 0
        cdef int at, rule, place = 0
        cdef bint holds
        for at in range(len(periods)):
            if not self.read(series, periods[at], at, values):
                return -1
        for at in range(self.n_comparisons):
            if compares(self.comparisons[at].op, self.total(self.comparisons[at].terms, values)):
                held |= (<uint64_t>1) << at
        for rule in range(self.n_rules):
            holds = False
            for at in range(self.sets[rule].first, self.sets[rule].first + self.sets[rule].n):
                if self.passing[at] & ~held == 0:
                    holds = True
                    break
            found[place] = holds
            place += 1
            for at in range(self.amounts[rule].first, self.amounts[rule].first + self.amounts[rule].n):
                found[place] = self.count(self.steps + at, held, values) if holds else 0
                place += 1
        return place

    cdef bint read(self, Series series, period, int which, int64_t *values) except -1:
        """Read the variables of one of the periods; False where one is too large."""
        cdef Cell folded = series.counts.get(period)
        cdef Cell recent = None
        cdef int at, read
        cdef int64_t count, more, total
        cdef Run reads
        if series.recent.n or series.recent.others is not None:
            for one in series.recent_in:
                if one is period:
                    recent = series.recent
                    break
            else:
                if period in series.recent_in:
                    recent = series.recent
        for at in range(self.n_variables):
            if self.variables[at].period != which:
                continue
            total, reads = 0, self.variables[at].reads
            for read in range(reads.first, reads.first + reads.n):
                count = more = 0
                if folded is not None:
                    if folded.others is not None and self.reads[read].slot in folded.others:
                        return False
                    count = folded.plain(self.reads[read].slot)
                if recent is not None:
                    if recent.others is not None and self.reads[read].slot in recent.others:
                        return False
                    more = recent.plain(self.reads[read].slot)
                if not -LARGE < count < LARGE or not -LARGE < more < LARGE:
                    return False
                # Weights are small, and both counts have 17 bits to spare.
                total += (count + more) * self.reads[read].weight
                if not -LARGE < total < LARGE:
                    return False
            values[at] = total
        return True

    cdef kaohe_wide total(self, Run terms, int64_t *values) noexcept:
        return total_of(self.terms + terms.first, terms.n, values)

    @cython.cdivision(True)
    cdef int64_t count(self, Steps *steps, uint64_t held, int64_t *values) noexcept:
        """How many steps there are: from none to the most."""
        cdef kaohe_wide top, bottom
        if steps.known & ~held:
            return 0
        top, bottom = self.total(steps.top, values), self.total(steps.bottom, values)
        if top <= 0 or bottom <= 0:
            return 0  # the bottom is above 0 where there is data
        top = top // bottom
        return <int64_t>top if top < steps.most else steps.most


@cython.final
cdef class Standing:
    """The outcomes of one running period at the last judgement of each subject, by names.

    ``periods`` is what ``verdicts`` read: the running one and baselines.
    """

    cdef readonly tuple periods
    cdef readonly Verdicts verdicts
    cdef dict known

    def __init__(self, tuple periods not None, Verdicts verdicts not None):
        self.periods, self.verdicts, self.known = periods, verdicts, {}

    def moved(self, str name not None, Series series not None):
        """A subject is judged: the rules whose outcomes are not what they were at the last judgement, by their places;
        None where that cannot be told."""
        before = self.known.get(name)
        now = self.known[name] = self.verdicts(series, self.periods)
        return None if before is None or now is None else self.verdicts.moved(before, now)

    def forget(self, str name not None):
        """What a subject's outcomes were counts no more."""
        self.known.pop(name, None)

    cdef bint stands(self, str name, Series series) except -1:
        """Whether a subject's outcomes are what they were when it was judged last."""
        cdef int64_t found[NUMBERS]
        cdef bytes before = self.known.get(name)
        cdef int size
        if before is None:
            return False
        size = self.verdicts.tell(series, self.periods, found)
        return size >= 0 and memcmp(<const char *>before, found, size * sizeof(int64_t)) == 0


def to_judge(dict waiting not None, dict subjects not None, turns_of, str pack not None):
    """Of the subjects that wait (each with its periods) those of whom anything must be judged, in the order of their
    keys, each with the turns to judge it.

    ``turns_of`` gives for a subject and its periods the turns, and what tells whether anything must be judged: each
    standing with the moment by which it is told whether the pack judges a subject; None where outcomes are not all.
    Both are the same for all of a level and calendar, but for the few of whom another zone has closed periods.
    """
    cdef list found = []
    cdef dict known = {}
    cdef tuple turns, standings
    cdef Known subject
    for key, periods in waiting.items():
        subject = subjects[key]
        if subject.closed_elsewhere:
            turns = turns_of(subject, periods)
        else:
            alike = ((<tuple>key)[0], subject.series.calendar, periods)
            turns = known.get(alike)
            if turns is None:
                turns = known[alike] = turns_of(subject, periods)
        standings = turns[1]
        if standings is None or subject.leaves or not all_stand(subject, (<tuple>key)[1], standings, pack):
            found.append((key, turns[0]))
    found.sort()
    return found


cdef bint all_stand(Known subject, str name, tuple standings, str pack) except -1:
    cdef Standing standing
    cdef int64_t at_ms
    for standing, at_ms in standings:
        if at_ms < subject.roster_from_ms:
            return False
        packs = subject.packs
        if packs and pack not in packs:
            continue
        if not standing.stands(name, subject.series):
            return False
    return True


def fold(set opened not None, dict subjects not None, int64_t now_ms):
    """Fold the open cells of some subjects whose bucket is over.

    By level and the periods that changed the subjects of which these did; those whose cells were of several buckets,
    each with its periods; and those with nothing open any more.
    """
    cdef dict found = {}
    cdef list several = [], folded = [], keys = None
    cdef Known subject
    cdef Series series
    cdef str level = None
    periods = None
    for key in opened:
        subject = subjects[key]
        series = subject.series
        changed = series.fold(now_ms)
        if not series.cells:
            folded.append(key)
        if type(changed) is not tuple:
            several.append((subject, changed))
            continue
        if changed is not periods or (<tuple>key)[0] is not level:
            periods, level = changed, (<tuple>key)[0]
            keys = found.setdefault((level, periods), [])
        keys.append(key)
    return found, several, folded


def wait(dict waiting not None, list keys not None, frozenset periods not None):
    """Let some periods of all these subjects wait, together with those that do already."""
    for key in keys:
        known = waiting.get(key)
        if known is None:
            waiting[key] = periods
        elif known is not periods:
            waiting[key] = known | periods

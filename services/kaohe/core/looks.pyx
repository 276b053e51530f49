# cython: language_level=3, boundscheck=False, wraparound=False
"""What a subject's counts say about many tests at once, for those that are looked at every minute.

Theory of operation. A look is made of tables (``kaohe.core.screens``): windows; variables, each a weighted sum of counts
of a window or the largest of its maxima; comparisons, each a polynomial of at most two variables in a term, compared
with 0; and for each test the sets of comparisons that pass it together. It reads the counts where they are kept, without
making a Python object of any, works out every comparison, and gives a bit for each test.

``look_at`` goes through all that are looked at at a boundary. Most of them have nothing that moves: for these it is all
that is done, and so it is done here. What follows where something moves is plain Python (``kaohe.core.watching``).

A look is a screen: it may let too much through and never too little. Variables stay below ``2 ** 46`` and factors below
``2 ** 30``, so that a polynomial of 16 terms fits into 128 bits; where a count is larger, every test passes.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, int64_t, uint64_t

from kaohe.core.counts cimport Cell, Rolling, Row, Series
from kaohe.core.intake cimport Known
from kaohe.core.polynomials cimport AT_LEAST, AT_MOST, EQUAL, LESS, MORE, OTHER, Term, compares, total_of

MAX_TESTS = 64
"""Comparisons in one look, and alternatives of one of its tests."""
MAX_TERMS = 16
"""Terms of a comparison."""
MAX_FACTOR = 1 << 30
"""Factors in a comparison are smaller."""

cdef enum:
    TESTS = 64
    TERMS = 16

cdef int64_t LARGE = (<int64_t>1) << 46

cdef enum Kind:
    ROLLING, NOW, PERIOD, PREVIOUS

cdef enum Test:
    KNOWN = 100
    UNKNOWN, SEEN, UNSEEN

cdef dict KINDS = {"rolling": ROLLING, "now": NOW, "period": PERIOD, "previous": PREVIOUS}
cdef dict OPS = {
    "<": LESS, "<=": AT_MOST, ">": MORE, ">=": AT_LEAST, "==": EQUAL, "!=": OTHER,
    "known": KNOWN, "unknown": UNKNOWN, "seen": SEEN, "unseen": UNSEEN,
}

cdef struct Window:
    Kind kind
    int64_t argument       # the span of a rolling window in ms, or the place of a period

cdef struct Variable:
    int window
    bint largest
    int first, n           # its reads

cdef struct Read:
    int32_t slot
    int64_t weight

cdef struct Comparison:
    int op                 # of a polynomial, or a test
    int about              # the window or variable of what is known or seen
    int first, n           # its terms


cdef class Look:
    """Tests of a subject's counts: the first ``begin`` ones tell which rules may hold, the others which alerts end."""

    cdef int begin, n_windows, n_variables, n_comparisons, n_tests
    cdef Window *windows
    cdef Variable *variables
    cdef Read *reads
    cdef Comparison *comparisons
    cdef Term *terms
    cdef uint64_t *passing     # the sets of comparisons of all tests, one after the other
    cdef int *ends             # where those of each test end
    cdef object every, all_rules
    cdef object calendar       # of whose periods ``earlier`` has the ones before
    cdef dict earlier

    def __init__(self, windows, variables, comparisons, passing, int begin):
        cdef int at, term, place = 0
        reads = [read for _, _, own in variables for read in own]
        terms = [one for _, own, _ in comparisons for one in own]
        sets = [one for own in passing for one in own]
        assert len(comparisons) <= TESTS, len(comparisons)
        self.begin, self.n_tests = begin, len(passing)
        self.every, self.all_rules = (1 << self.n_tests) - 1, (1 << begin) - 1
        self.earlier = {}
        self.n_windows, self.n_variables, self.n_comparisons = len(windows), len(variables), len(comparisons)
        self.windows = <Window *>PyMem_Malloc((self.n_windows + 1) * sizeof(Window))
        self.variables = <Variable *>PyMem_Malloc((self.n_variables + 1) * sizeof(Variable))
        self.reads = <Read *>PyMem_Malloc((len(reads) + 1) * sizeof(Read))
        self.comparisons = <Comparison *>PyMem_Malloc((self.n_comparisons + 1) * sizeof(Comparison))
        self.terms = <Term *>PyMem_Malloc((len(terms) + 1) * sizeof(Term))
        self.passing = <uint64_t *>PyMem_Malloc((len(sets) + 1) * sizeof(uint64_t))
        self.ends = <int *>PyMem_Malloc((self.n_tests + 1) * sizeof(int))
        if (
            self.windows is NULL or self.variables is NULL or self.reads is NULL or self.comparisons is NULL
            or self.terms is NULL or self.passing is NULL or self.ends is NULL
        ):
            raise MemoryError
        for at, (kind, argument) in enumerate(windows):
            self.windows[at].kind, self.windows[at].argument = KINDS[kind], argument
        for at, (window, largest, own) in enumerate(variables):
            self.variables[at].window, self.variables[at].largest = window, largest
            self.variables[at].first, self.variables[at].n = place, len(own)
            place += len(own)
        for at, (slot, weight) in enumerate(reads):
            self.reads[at].slot, self.reads[at].weight = slot, weight
        place = 0
        for at, (op, own, about) in enumerate(comparisons):
            assert len(own) <= TERMS, own
            self.comparisons[at].op, self.comparisons[at].about = OPS[op], about
            self.comparisons[at].first, self.comparisons[at].n = place, len(own)
            place += len(own)
        for at, (factor, one, other) in enumerate(terms):
            assert abs(factor) < MAX_FACTOR, factor
            self.terms[at].factor, self.terms[at].one, self.terms[at].other = factor, one, other
        for at, one in enumerate(sets):
            self.passing[at] = one
        place = 0
        for at, own in enumerate(passing):
            place += len(own)
            self.ends[at] = place

    def __dealloc__(self):
        PyMem_Free(self.windows)
        PyMem_Free(self.variables)
        PyMem_Free(self.reads)
        PyMem_Free(self.comparisons)
        PyMem_Free(self.terms)
        PyMem_Free(self.passing)
        PyMem_Free(self.ends)

    def __call__(self, Series series not None, tuple periods not None, bint ending):
        """A bit for each test that may be passed; those of ends only if they are asked for. ``periods`` are those of
        the moment looked at."""
        return self.passed(series, periods, ending)

    cdef object passed(self, Series series, tuple periods, bint ending):
        cdef int64_t values[TESTS]
        cdef bint seen[TESTS]
        cdef bint known[TESTS]
        cdef uint64_t found = 0, held = 0
        cdef int at, place = 0, n = self.n_tests if ending else self.begin
        if n > 64 or self.n_variables > TESTS or self.n_windows > TESTS or not self.read(series, periods, values, seen, known):
            return self.every if ending else self.all_rules
        for at in range(self.n_comparisons):
            if self.holds(self.comparisons + at, values, seen, known):
                held |= (<uint64_t>1) << at
        for at in range(n):
            while place < self.ends[at]:
                if self.passing[place] & ~held == 0:
                    found |= (<uint64_t>1) << at
                    break
                place += 1
            place = self.ends[at]
        return found

    cpdef tuple judged(self, Series series, tuple periods, dict alerts, dict bits):
        """Which rules may hold, and which must be judged because an alert may begin, go on waiting, or end."""
        firing = waiting = 0
        for key, state in alerts.items():
            bit = bits.get(key)
            if bit is None:
                continue
            if state.firing:
                firing |= bit
            else:
                waiting |= bit
        found = self.passed(series, periods, firing != 0)
        may_hold = found & self.all_rules
        return may_hold, (may_hold & ~firing) | waiting | (firing & found >> self.begin)

    cdef bint read(self, Series series, tuple periods, int64_t *values, bint *seen, bint *known) except -1:
        """Read all variables; False where one is too large."""
        cdef int at, window
        cdef Variable *variable
        cdef Rolling rolling
        cdef Cell folded, recent
        cdef bint in_recent
        for window in range(self.n_windows):
            rolling = None
            folded = recent = None
            known[window] = True
            if self.windows[window].kind == ROLLING:
                rolling = series.rolling[self.windows[window].argument]
                if rolling.kept.large:
                    return False
            elif self.windows[window].kind == NOW:
                folded, recent = series.all, series.recent
            else:
                period = periods[self.windows[window].argument]
                if self.windows[window].kind == PREVIOUS:
                    period = self.before(series.calendar, period)
                folded = series.counts.get(period)
                in_recent = (series.recent.n or series.recent.others is not None) and period in series.recent_in
                recent = series.recent if in_recent else None
                known[window] = folded is not None or recent is not None
            for at in range(self.n_variables):
                variable = self.variables + at
                if variable.window != window:
                    continue
                if variable.largest:
                    if not self.read_largest(variable, rolling, folded, recent, values + at, seen + at):
                        return False
                elif not self.read_sum(variable, rolling, folded, recent, values + at):
                    return False
        return True

    cdef object before(self, calendar, period):
        """The period before another one: nearly always of those that were asked for last."""
        if calendar is not self.calendar or len(self.earlier) > TESTS:
            self.calendar = calendar
            self.earlier.clear()
        found = self.earlier.get(period)
        if found is None:
            found = self.earlier[period] = calendar.previous(period)
        return found

    cdef bint read_sum(self, Variable *variable, Rolling rolling, Cell folded, Cell recent, int64_t *value) except -1:
        cdef int at, place
        cdef int64_t total = 0, count
        cdef Row row
        cdef int32_t slot
        if folded is not None and folded.others is not None or recent is not None and recent.others is not None:
            # What a sum has beyond 64 bits lies there, besides sets.
            for at in range(variable.first, variable.first + variable.n):
                slot = self.reads[at].slot
                if folded is not None and folded.others is not None and slot in folded.others:
                    return False
                if recent is not None and recent.others is not None and slot in recent.others:
                    return False
        for at in range(variable.first, variable.first + variable.n):
            slot, count = self.reads[at].slot, 0
            if rolling is not None:
                row = rolling.kept
                place = row.place(slot)
                if place < 0:
                    return False
                count = <int64_t>(
                    <uint64_t>row.before(row.n)[place] - <uint64_t>row.before(rolling.first)[place]
                )
            if folded is not None:
                count = folded.plain(slot)
                if not -LARGE < count < LARGE:
                    return False
            if recent is not None:
                count += recent.plain(slot)
            if not -LARGE < count < LARGE:
                return False
            total += count * self.reads[at].weight
        value[0] = total
        return -LARGE < total < LARGE

    cdef bint read_largest(
        self, Variable *variable, Rolling rolling, Cell folded, Cell recent, int64_t *value, bint *seen
    ) except -1:
        cdef int at, which
        cdef int64_t count
        cdef int32_t slot
        seen[0], value[0] = False, 0
        for at in range(variable.first, variable.first + variable.n):
            slot = self.reads[at].slot
            for which in range(3):
                own = None
                if which == 0 and rolling is not None:
                    own = rolling.count(slot, None)
                elif which == 1 and folded is not None:
                    own = folded.count(slot, None)
                elif which == 2 and recent is not None:
                    own = recent.count(slot, None)
                if own is None:
                    continue
                count = own
                if not -LARGE < count < LARGE:
                    return False
                if not seen[0] or count > value[0]:
                    value[0] = count
                seen[0] = True
        return True

    cdef bint holds(self, Comparison *comparison, int64_t *values, bint *seen, bint *known) noexcept:
        cdef int op = comparison.op
        if op == KNOWN or op == UNKNOWN:
            return known[comparison.about] == (op == KNOWN)
        if op == SEEN or op == UNSEEN:
            return seen[comparison.about] == (op == SEEN)
        return compares(op, total_of(self.terms + comparison.first, comparison.n, values))


# --- all that are looked at -------------------------------------------------------------------------------------------


@cython.final
cdef class Glance:
    """What a subject was judged by when it was looked at last. While it is the same nothing can come of a look."""

    cdef int64_t changes, activations, start_ms, before_ms
    cdef object day, team, site, position, packs


def look_at(host, list keys not None, int64_t now_ms):
    """Look at the subjects of these keys, in order, at a boundary of log time; ``host`` is a ``Watching``."""
    cdef dict subjects = host.judge.subjects, glances = host.glances, alerts
    cdef int64_t activations = host.activations
    cdef Known subject
    cdef Series series
    cdef Glance glance
    cdef bint same, known, waits, stays
    calendar = boundary = today = None
    for key in keys:
        subject = subjects[key]
        series, alerts = subject.series, subject.alerts
        series.expire(now_ms)
        if series.calendar is not calendar:
            calendar = series.calendar
            boundary = host.boundary(calendar, now_ms)
            today = boundary.days
        if now_ms >= subject.roster_from_ms:
            team, site, position, packs = subject.team, subject.site, subject.position, subject.packs
        else:
            team, site, position = subject.roster_at(now_ms)
            packs = subject.packs_at(now_ms)
        waits = False
        for state in alerts.values():
            if not state.firing:
                waits = True
        found = glances.get(key)
        known = found is not None
        glance = found if known else Glance.__new__(Glance)
        stays = known and glance.activations == activations and (glance.packs is packs or glance.packs == packs)
        same = stays and glance.changes == series.changes and (
            glance.start_ms == <int64_t>today.start_ms and glance.before_ms == <int64_t>today.before_ms
            and (glance.day is today.day or glance.day == today.day)
            and glance.team == team and glance.site == site and glance.position == position
        )
        if not same or waits:
            if not known:
                glances[key] = glance
            glance.changes, glance.activations = series.changes, activations
            glance.start_ms, glance.before_ms, glance.day = today.start_ms, today.before_ms, today.day
            glance.team, glance.site, glance.position, glance.packs = team, site, position, packs
            watch = boundary.watches.get(key[0]) if not packs else None
            if watch is None:
                watch = host.watch_of(boundary, key[0], packs)
            if alerts:
                may_hold, judged = (<Look>watch.screen).judged(series, boundary.periods, alerts, watch.bits)
            else:
                may_hold = judged = (<Look>watch.screen).passed(series, boundary.periods, False)
            if judged:
                host.judge_watched(subject, watch, now_ms, today.day, may_hold, judged)
            if alerts and not stays:
                host.end_orphans(subject, now_ms, today.day)
        if series.widest is None or series.widest.first == series.kept.n:
            host.let_rest(subject, now_ms, same, waits, <int64_t>today.start_ms == now_ms)

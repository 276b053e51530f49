# cython: language_level=3, boundscheck=False, wraparound=False
"""What is counted about one subject, kept as numbers of the machine: cells, rolling windows, calendar periods, totals.

Theory of operation. A *cell* maps slots (``kaohe.core.counting``) to counts: two short arrays side by side, slots that
rise and their 64-bit counts, so that adding to a count, merging two cells and reading one are a few comparisons of
numbers. What is no such number lies in a small dictionary beside them: sets of hashes, and what a sum has beyond 64
bits (nothing ever wraps). A *counter* is what the events of one type add, as a list of terms that is run through for
each event; conditions are Python code, generated once, that gives one bit for each of them.

Log time is cut into buckets (a minute for groups, five minutes for agents). An event adds to the cell of its bucket,
whatever the order of arrival. At each boundary of log time every cell whose bucket is over is *folded*: into the
calendar periods that contain it, into the rolling windows, and into the total. A late event simply opens the cell of an
old bucket again, which the next fold puts where it belongs; there is no second way of counting.

The rolling windows of a series are stretches of one row of cells, oldest first, that all end with the newest: a window
is the place of its first cell. Beside each cell stands what the sums that rules read were once it was added. A window's
sum is the last of these less the one before its first cell, so that a cell is added once for all windows and leaves them
for nothing. These sums may go around beyond 64 bits: their difference is exact as long as every cell is small, and once
one was not, sums are put together cell by cell. A maximum that leaves is looked for anew among the cells that stay;
whatever no rule reads, distinct sets among it, is put together from the window's cells when it is asked for.

Bounds: rolling windows keep at most ``MAX_SPAN_MS`` of cells; closed periods are dropped by the owner after their
retention. There is no input, output or clock here.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy, memmove

from functools import lru_cache
from hashlib import blake2b
from types import MemberDescriptorType

cdef extern from "structmember.h":
    ctypedef struct PyMemberDef:
        int type
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef *d_member
    int T_OBJECT_EX

cdef extern from *:
    """
    static int kaohe_overflows(int64_t one, int64_t other, int64_t *sum) {
        return __builtin_add_overflow(one, other, sum);
    }
    """
    bint kaohe_overflows(int64_t, int64_t, int64_t *) noexcept nogil

MAX_SLOT = 1_000_000
"""Slots from here on keep the largest value instead of a sum."""
DISTINCT_SLOT = 2_000_000
"""Slots from here on keep a set of hashes."""
DISTINCT_KEPT = 2048
"""How many of the smallest hashes a distinct count keeps: exact up to here, about 2 % standard error beyond."""
MAX_SPAN_MS = 86_400_000
"""The longest rolling window: 24 hours."""

cdef enum:
    FIRST_MAX = 1_000_000
    FIRST_DISTINCT = 2_000_000
    ROOM = 6               # counts for which a new cell has room
    SMALL_BITS = 42        # counts of fewer bits are small; a row holds fewer than 2 ** 21 cells
    HOUR = 3_600_000
    QUARTER_HOUR = 900_000

ctypedef fused Number:
    int32_t
    int64_t

cdef int64_t SMALL = (<int64_t>1) << SMALL_BITS
cdef dict HOWS = {"sum": SUM, "histogram": HISTOGRAM, "max": MAX, "distinct": DISTINCT}


cdef Py_ssize_t place_of(object kind, str name) except -2:
    """Where objects of a class keep a field, in bytes from their beginning; -1 when it must be asked for by its name."""
    descriptor = getattr(kind, name, None)
    if type(descriptor) is not MemberDescriptorType:
        return -1
    cdef PyMemberDef *member = (<PyMemberDescrObject *>descriptor).d_member
    return member.offset if member.type == T_OBJECT_EX else -1


cdef inline int first_from(const Number *rising, int n, Number value) noexcept:
    """The place of the first of some rising numbers that is not below a value."""
    cdef int low = 0, high = n, middle
    while low < high:
        middle = (low + high) >> 1
        if rising[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline void put(tuple row, Py_ssize_t at, object count):
    """Fill a place of a new tuple."""
    Py_INCREF(count)
    PyTuple_SET_ITEM(row, at, count)


cpdef object distinct_hash(str word):
    """A 56-bit hash. A pseudonym is a keyed hash already: its digits serve."""
    cdef uint64_t digits = 0
    cdef int at, letter
    if len(word) >= 18 and word[0] == "c" and word[1] == "-":
        for at in range(2, 16):
            letter = ord(word[at])
            if 48 <= letter <= 57:
                digits = digits << 4 | <uint64_t>(letter - 48)
            elif 97 <= letter <= 102:
                digits = digits << 4 | <uint64_t>(letter - 97 + 10)
            else:
                break
        else:
            return digits
        try:
            return int(word[2:16], 16)
        except ValueError:
            pass
    return int.from_bytes(blake2b(word.encode(), digest_size=7).digest(), "big")


def trim(set hashes not None):
    """Keep a set of hashes bounded: the smallest ``DISTINCT_KEPT + 1`` of a large one.

    One more than is estimated from, so that a set that was cut never looks like an exact one.
    """
    if len(hashes) <= 2 * DISTINCT_KEPT:
        return hashes
    cdef Py_ssize_t n = 0
    cdef int64_t *values = <int64_t *>PyMem_Malloc(len(hashes) * sizeof(int64_t))
    if values is NULL:
        raise MemoryError
    try:
        for hashed in hashes:
            values[n] = hashed
            n += 1
        lowest(values, n, DISTINCT_KEPT + 1)
        return {values[n] for n in range(DISTINCT_KEPT + 1)}
    finally:
        PyMem_Free(values)


cdef void lowest(int64_t *values, Py_ssize_t n, Py_ssize_t most) noexcept:
    """Bring the lowest numbers to the front, in any order. Source: C. A. R. Hoare, "Algorithm 65: FIND" (1961)."""
    cdef Py_ssize_t first = 0, last = n - 1, low, high
    cdef int64_t pivot, other
    while first < last:
        low, high, pivot = first, last, values[(first + last) >> 1]
        while low <= high:
            while values[low] < pivot:
                low += 1
            while values[high] > pivot:
                high -= 1
            if low <= high:
                other = values[low]
                values[low], values[high] = values[high], other
                low, high = low + 1, high - 1
        if most - 1 <= high:
            last = high
        elif most - 1 >= low:
            first = low
        else:
            return


# --- cells ------------------------------------------------------------------------------------------------------------


@cython.final
@cython.no_gc  # sets of numbers make no cycles
@cython.freelist(512)
cdef class Cell:
    """Slot to integer (a sum, a maximum) or to a set of hashes. A count that was touched is there, also when it is 0."""

    def __init__(self, counts=None):
        if counts is not None:
            for slot, value in counts.items():
                if slot >= FIRST_DISTINCT:
                    self.join(slot, value)
                else:
                    self.add(slot, value)

    def __dealloc__(self):
        PyMem_Free(self.values)

    cdef int grow(self, int room) except -1:
        """Make room for so many counts."""
        cdef int64_t *values = <int64_t *>PyMem_Malloc(room * (sizeof(int64_t) + sizeof(int32_t)))
        if values is NULL:
            raise MemoryError
        cdef int32_t *slots = <int32_t *>(values + room)
        if self.n:
            memcpy(values, self.values, self.n * sizeof(int64_t))
            memcpy(slots, self.slots, self.n * sizeof(int32_t))
        PyMem_Free(self.values)
        self.values, self.slots, self.room = values, slots, room
        return 0

    cdef int place(self, int32_t slot) noexcept:
        """Where a slot stands, or would have to."""
        return first_from(self.slots, self.n, slot)

    cdef int insert(self, int at, int32_t slot, int64_t value) except -1:
        """Put a slot that is new to its place."""
        if self.n == self.room:
            self.grow(2 * self.room if self.room else ROOM)
        cdef int behind = self.n - at
        if behind:
            memmove(self.values + at + 1, self.values + at, behind * sizeof(int64_t))
            memmove(self.slots + at + 1, self.slots + at, behind * sizeof(int32_t))
        self.values[at] = value
        self.slots[at] = slot
        self.n += 1
        return 0

    cdef int bump(self, int32_t slot, int64_t value) except -1:
        """Add to a sum, or raise a maximum."""
        cdef int at = self.place(slot)
        if at == self.n or self.slots[at] != slot:
            return self.insert(at, slot, value)
        return self.raise_at(at, value)

    cdef int raise_at(self, int at, int64_t value) except -1:
        cdef int64_t total
        if self.slots[at] >= FIRST_MAX:
            if value > self.values[at]:
                self.values[at] = value
        elif kaohe_overflows(self.values[at], value, &total):
            self.carry(self.slots[at], self.values[at])
            self.values[at] = value
        else:
            self.values[at] = total
        return 0

    cdef int carry(self, int32_t slot, object value) except -1:
        """Put what a sum has beyond 64 bits aside."""
        if self.others is None:
            self.others = {}
        self.others[slot] = self.others.get(slot, 0) + value
        return 0

    cdef int see(self, int32_t slot, object hashed) except -1:
        """Add one hash to a set."""
        if self.others is None:
            self.others = {}
        found = self.others.get(slot)
        if found is None:
            self.others[slot] = {hashed}
        else:
            (<set>found).add(hashed)
        return 0

    cpdef int join(self, int32_t slot, hashes) except -1:
        """Add hashes to a set, which stays bounded. What is given stays as it is."""
        if self.others is None:
            self.others = {}
        found = self.others.get(slot)
        if found is None:
            found = self.others[slot] = set(hashes)
        else:
            (<set>found).update(hashes)
        if len(<set>found) > 2 * <int>DISTINCT_KEPT:
            self.others[slot] = trim(found)
        return 0

    def add(self, int32_t slot, value):
        """Add to a sum (of any size), or raise a maximum."""
        assert 0 <= slot < FIRST_DISTINCT, slot
        if -(1 << 63) <= value < 1 << 63:
            self.bump(slot, value)
        elif slot >= FIRST_MAX:
            raise OverflowError(f"a maximum of {value} is beyond 64 bits")
        else:
            self.bump(slot, 0)
            self.carry(slot, value)

    cpdef int merge(self, Cell cell) except -1:
        """Add a cell to this one. It stays as it is."""
        if cell.n:
            if self.n == 0:
                self.grow(cell.n)
                memcpy(self.values, cell.values, cell.n * sizeof(int64_t))
                memcpy(self.slots, cell.slots, cell.n * sizeof(int32_t))
                self.n = cell.n
            else:
                self.merge_counts(cell)
        if cell.others is not None:
            for slot, value in cell.others.items():
                if slot < FIRST_MAX:
                    self.carry(slot, value)
                else:
                    self.join(slot, value)
        return 0

    cdef int merge_counts(self, Cell cell) except -1:
        cdef int own = 0, new = 0, at = 0, added
        while at < cell.n:
            while own < self.n and self.slots[own] < cell.slots[at]:
                own += 1
            if own == self.n or self.slots[own] != cell.slots[at]:
                new += 1
            else:
                self.raise_at(own, cell.values[at])
            at += 1
        if not new:
            return 0
        if self.n + new > self.room:
            self.grow(self.n + new + ROOM)
        # From behind, so that nothing is overwritten before it was moved; what both have is added up already.
        own, at, added = self.n - 1, cell.n - 1, self.n + new - 1
        while new:
            if own >= 0 and self.slots[own] >= cell.slots[at]:
                if self.slots[own] == cell.slots[at]:
                    at -= 1
                self.slots[added] = self.slots[own]
                self.values[added] = self.values[own]
                own -= 1
            else:
                self.slots[added] = cell.slots[at]
                self.values[added] = cell.values[at]
                self.n += 1
                new -= 1
                at -= 1
            added -= 1
        return 0

    cdef int64_t plain(self, int32_t slot) noexcept:
        """A count without what it has beyond 64 bits; 0 when it is not there."""
        cdef int at = self.place(slot)
        return self.values[at] if at < self.n and self.slots[at] == slot else 0

    cdef object count(self, int32_t slot, object default):
        if slot >= FIRST_DISTINCT:
            return default if self.others is None else self.others.get(slot, default)
        cdef int at = self.place(slot)
        if at == self.n or self.slots[at] != slot:
            return default
        if self.others is not None and slot in self.others:
            return self.values[at] + self.others[slot]
        return self.values[at]

    def get(self, int32_t slot, default=0):
        """The count of a slot."""
        return self.count(slot, default)

    def row(self, tuple slots not None):
        """The sums of some slots; 0 where there is none."""
        cdef Py_ssize_t at, size = len(slots)
        cdef tuple found = PyTuple_New(size)
        for at in range(size):
            put(found, at, self.count(slots[at], 0))
        return found

    def __getitem__(self, int32_t slot):
        found = self.count(slot, None)
        if found is None:
            raise KeyError(slot)
        return found

    def __contains__(self, int32_t slot):
        return self.count(slot, None) is not None

    def __len__(self):
        cdef int sets = 0
        for slot in self.others or ():
            sets += slot >= FIRST_DISTINCT
        return self.n + sets

    def __bool__(self):
        return self.n > 0 or bool(self.others)

    def __iter__(self):
        return iter([slot for slot, _ in self.items()])

    def keys(self):
        """The slots, in order."""
        return [slot for slot, _ in self.items()]

    def items(self):
        """All counts, in the order of their slots."""
        cdef int at
        found = [(self.slots[at], self.count(self.slots[at], None)) for at in range(self.n)]
        if self.others is not None:
            found += [(slot, self.others[slot]) for slot in sorted(self.others) if slot >= FIRST_DISTINCT]
        return found

    def __eq__(self, other):
        return isinstance(other, (Cell, dict)) and dict(self.items()) == dict(other.items())

    def __repr__(self):
        return f"Cell({dict(self.items())})"


def unpack_cell(dict stored not None, dict slots not None):
    """A cell that was stored, or reported, by lasting names, as all once were; a term that no loaded pack has any more
    is forgotten."""
    cdef Cell cell = Cell.__new__(Cell)
    cell.grow(max(len(stored), 1))
    for name, value in stored.items():
        slot = slots.get(name)
        if slot is None:
            continue
        if slot >= FIRST_DISTINCT:
            cell.join(slot, value)
        else:
            cell.add(slot, value)
    return cell


@cython.final
cdef class Joined:
    """Two cells read as one, without putting them together."""

    cdef Cell first, second

    def __init__(self, Cell first not None, Cell second not None):
        self.first = first
        self.second = second

    def get(self, int32_t slot, default=0):
        """The count of one slot in both."""
        one, other = self.first.count(slot, None), self.second.count(slot, None)
        if one is None:
            return default if other is None else other
        if other is None:
            return one
        if slot < FIRST_MAX:
            return one + other
        if slot < FIRST_DISTINCT:
            return max(one, other)
        cdef Cell both = Cell({slot: one})
        both.join(slot, other)
        return both.count(slot, None)

    def row(self, tuple slots not None):
        """The sums of some slots; 0 where there is none."""
        cdef Py_ssize_t at, size = len(slots)
        cdef tuple found = PyTuple_New(size)
        for at in range(size):
            put(found, at, self.first.count(slots[at], 0) + self.second.count(slots[at], 0))
        return found


# --- counting ---------------------------------------------------------------------------------------------------------


@cython.final
cdef class Counter:
    """What the events (or outcomes, or stretches of time) of one source add to the cells of their subjects."""

    def __init__(self, terms, fields, bounds, holds):
        """``terms`` are (how, slot, place of its field or -1, levels, bit of its condition or 0).

        ``bounds`` are those of histograms, upper ones, inclusive. ``holds`` gives the bits of the conditions that hold
        for an event's data and moment; None without conditions.
        """
        cdef int at
        self.fields, self.holds = tuple(fields), holds
        self.n, self.n_bounds = len(terms), len(bounds)
        assert len(fields) <= 64, len(fields)
        self.terms = <Term *>PyMem_Malloc(max(self.n, 1) * sizeof(Term))
        self.bounds = <int64_t *>PyMem_Malloc(max(self.n_bounds, 1) * sizeof(int64_t))
        self.read = <int64_t *>PyMem_Malloc(max(len(fields), 1) * sizeof(int64_t))
        self.places = <Py_ssize_t *>PyMem_Malloc(max(len(fields), 1) * sizeof(Py_ssize_t))
        if self.terms is NULL or self.bounds is NULL or self.read is NULL or self.places is NULL:
            raise MemoryError
        for at, (how, slot, field, levels, condition) in enumerate(terms):
            self.terms[at].how = HOWS[how]
            self.terms[at].slot = slot
            self.terms[at].field = field
            self.terms[at].levels = levels
            self.terms[at].condition = condition
        for at in range(self.n_bounds):
            self.bounds[at] = bounds[at]

    def __dealloc__(self):
        PyMem_Free(self.terms)
        PyMem_Free(self.bounds)
        PyMem_Free(self.read)
        PyMem_Free(self.places)

    def __call__(self, data, int64_t time_ms, Cell agent, Cell queue, Cell team, Cell site not None, int weight):
        """Add one event to the cells of its agent, queue and team, each of which may be None, and of its site."""
        self.count(data, time_ms, agent, queue, team, site, weight)

    cdef int count(self, data, int64_t time_ms, Cell agent, Cell queue, Cell team, Cell site, int weight) except -1:
        cdef uint64_t holds = 0, known = 0
        cdef int64_t value
        cdef int32_t slot
        cdef int at
        cdef Term *term
        if type(data) is not self.kind:
            self.learn(data)
        if self.holds is not None:
            holds = self.holds(data, time_ms)
        for at in range(self.n):
            term = self.terms + at
            if term.condition and not holds & term.condition:
                continue
            if term.how == DISTINCT:
                self.see(term, data, agent, queue, team, site)
                continue
            slot, value = term.slot, weight
            if term.field >= 0:
                # Not sooner: what a condition guards may be unknown where it does not hold.
                if not known >> term.field & 1:
                    self.read[term.field] = self.value(data, term.field)
                    known |= (<uint64_t>1) << term.field
                value = self.read[term.field]
                if term.how == SUM:
                    value *= weight
                elif term.how == HISTOGRAM:
                    slot, value = slot + self.bucket(value), weight
            if agent is not None and term.levels & 1:
                agent.bump(slot, value)
            if queue is not None and term.levels & 2:
                queue.bump(slot, value)
            if team is not None and term.levels & 4:
                team.bump(slot, value)
            if term.levels & 8:
                site.bump(slot, value)
        return 0

    cdef int learn(self, data) except -1:
        """Find out where data of another class keeps the fields."""
        cdef int at
        self.kind = type(data)
        for at in range(len(self.fields)):
            self.places[at] = place_of(self.kind, self.fields[at])
        return 0

    cdef inline object value(self, data, int32_t which):
        return field(data, self.places[which], self.fields[which])

    cdef int see(self, Term *term, data, Cell agent, Cell queue, Cell team, Cell site) except -1:
        cdef str word = self.value(data, term.field)
        if not word:
            return 0
        hashed = distinct_hash(word)
        if agent is not None and term.levels & 1:
            agent.see(term.slot, hashed)
        if queue is not None and term.levels & 2:
            queue.see(term.slot, hashed)
        if team is not None and term.levels & 4:
            team.see(term.slot, hashed)
        if term.levels & 8:
            site.see(term.slot, hashed)
        return 0

    cdef int32_t bucket(self, int64_t value) noexcept:
        """Which bucket of a histogram a value belongs to: the first whose bound is not below it."""
        return first_from(self.bounds, self.n_bounds, value)


# --- rolling windows --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def span_ms(window):
    """The length of ``rolling_15m``, ``rolling_1h`` … in milliseconds."""
    assert window.startswith("rolling_"), window
    last = len(window) - 1
    return int(window[len("rolling_") : last]) * {"m": 60_000, "h": 3_600_000, "d": 86_400_000}[window[last]]


@cython.final
cdef class Row:
    """The cells of all rolling windows of a series, oldest first, with the sums of what rules read."""

    def __init__(self, slots):
        cdef int at
        self.cells = []
        self.width = len(slots)
        self.slots = <int32_t *>PyMem_Malloc((self.width + 1) * sizeof(int32_t))
        self.base = <int64_t *>PyMem_Malloc((self.width + 1) * sizeof(int64_t))
        if self.slots is NULL or self.base is NULL:
            raise MemoryError
        for at in range(self.width):
            self.slots[at] = slots[at]
            self.base[at] = 0

    def __dealloc__(self):
        PyMem_Free(self.slots)
        PyMem_Free(self.base)
        PyMem_Free(self.starts)
        PyMem_Free(self.sums)

    cdef int make_room(self) except -1:
        """Room for one more cell: where cells have left, or twice as much."""
        cdef int64_t *grown
        if self.first and self.first * 2 >= self.room:
            memmove(self.starts, self.starts + self.first, self.n * sizeof(int64_t))
            memmove(self.sums, self.sums + self.first * self.width, self.n * self.width * sizeof(int64_t))
            del self.cells[:self.first]
            self.first = 0
            return 0
        cdef int room = 2 * self.room if self.room else 8
        grown = <int64_t *>PyMem_Realloc(self.starts, room * sizeof(int64_t))
        if grown is NULL:
            raise MemoryError
        self.starts = grown
        grown = <int64_t *>PyMem_Realloc(self.sums, (room * self.width + 1) * sizeof(int64_t))
        if grown is NULL:
            raise MemoryError
        self.sums = grown
        self.room = room
        return 0

    cdef int64_t *before(self, int index) noexcept:
        """The sums before a cell was added."""
        return self.sums + (self.first + index - 1) * self.width if index else self.base

    cdef int insert(self, int64_t start_ms, Cell cell) except -1:
        """Put a cell behind all that began no later; its index. One that came late counts in all sums behind it."""
        cdef int index = self.n, at, place, behind, later
        cdef int64_t value
        cdef int64_t *sums
        if self.first + self.n == self.room:
            self.make_room()
        while index and self.starts[self.first + index - 1] > start_ms:
            index -= 1
        at, behind = self.first + index, self.n - index
        if behind:
            memmove(self.starts + at + 1, self.starts + at, behind * sizeof(int64_t))
            memmove(
                self.sums + (at + 1) * self.width, self.sums + at * self.width, behind * self.width * sizeof(int64_t)
            )
        self.starts[at] = start_ms
        self.cells.insert(at, cell)
        self.n += 1
        assert self.n < 1 << (63 - SMALL_BITS)
        sums = self.before(index)
        for place in range(self.width):
            value = cell.plain(self.slots[place])
            if value >= SMALL or value <= -SMALL or cell.others is not None and self.slots[place] in cell.others:
                self.large = True
            self.sums[at * self.width + place] = around(sums[place], value)
            for later in range(at + 1, at + 1 + behind):
                self.sums[later * self.width + place] = around(self.sums[later * self.width + place], value)
        return index

    cdef int pop(self) except -1:
        """The oldest cell leaves."""
        memcpy(self.base, self.sums + self.first * self.width, self.width * sizeof(int64_t))
        self.cells[self.first] = None
        self.first += 1
        self.n -= 1
        return 0

    cdef int place(self, int32_t slot) noexcept:
        """Which of the sums is that of a slot, or -1."""
        cdef int at = first_from(self.slots, self.width, slot)
        return at if at < self.width and self.slots[at] == slot else -1


cdef inline int64_t around(int64_t one, int64_t other) noexcept:
    """A sum that may go around."""
    return <int64_t>(<uint64_t>one + <uint64_t>other)


@cython.final
cdef class Rolling:
    """One rolling window: the last cells of a row, from ``first`` on, and the maxima among them that rules read."""

    def __init__(self, int64_t span, Row row not None, watched):
        assert 0 < span <= MAX_SPAN_MS
        self.span_ms = span
        self.kept = row
        self.watched = [slot for slot in watched if FIRST_MAX <= slot < FIRST_DISTINCT]
        self.maxima = {}

    @property
    def cells(self):
        """The cells inside, oldest first, each with the start of its bucket in ms."""
        cdef Row row = self.kept
        cdef int at
        return [(row.starts[at], row.cells[at]) for at in range(row.first + self.first, row.first + row.n)]

    cdef int entered(self, Cell cell) except -1:
        """A cell came into the window."""
        for slot in self.watched:
            own = cell.count(slot, None) if slot in self.maxima else None
            if own is not None and (self.maxima[slot] is None or own > self.maxima[slot]):
                self.maxima[slot] = own
        return 0

    cdef int left(self, Cell cell) except -1:
        """A cell left the window: the largest value may have been its own."""
        for slot in self.watched:
            own = cell.count(slot, None) if slot in self.maxima else None
            if own is not None and own == self.maxima[slot]:
                del self.maxima[slot]
        return 0

    def expire(self, int64_t now_ms):
        """Drop the cells that began more than ``span_ms`` ago; whether there were any."""
        return self.drop(now_ms - self.span_ms)

    cdef bint drop(self, int64_t edge) except -1:
        cdef Row row = self.kept
        cdef int first = self.first
        while first < row.n and row.starts[row.first + first] < edge:
            if self.watched:
                self.left(row.cells[row.first + first])
            first += 1
        if first == self.first:
            return False
        self.first = first
        return True

    def get(self, int32_t slot, default=0):
        """The window's count of one slot."""
        return self.count(slot, default)

    cdef object count(self, int32_t slot, object default):
        cdef Row row = self.kept
        cdef int place
        if slot < FIRST_MAX:
            place = row.place(slot)
            if place >= 0 and not row.large:
                return <int64_t>(<uint64_t>row.before(row.n)[place] - <uint64_t>row.before(self.first)[place])
            default = 0 if place >= 0 else default
        elif slot in self.maxima:
            largest = self.maxima[slot]
            return default if largest is None else largest
        found = self.together(slot)
        if slot in self.watched:
            self.maxima[slot] = found
        return default if found is None else found

    def row(self, tuple slots not None):
        """The sums of some slots; 0 where there is none."""
        cdef Py_ssize_t at, size = len(slots)
        cdef tuple found = PyTuple_New(size)
        for at in range(size):
            put(found, at, self.count(slots[at], 0))
        return found

    cdef object together(self, int32_t slot):
        """The count of one slot in all cells; None when it is in none of them."""
        cdef Row row = self.kept
        cdef Cell both = Cell.__new__(Cell)
        cdef int at
        cdef Cell cell
        for at in range(row.first + self.first, row.first + row.n):
            cell = row.cells[at]
            own = cell.count(slot, None)
            if own is None:
                continue
            if slot >= FIRST_DISTINCT:
                both.join(slot, own)
            else:
                both.add(slot, own)
        return both.count(slot, None)

    def counts(self):
        """Everything in the window, for those who want more than a few slots."""
        cdef Cell merged = Cell.__new__(Cell)
        for _, cell in self.cells:
            merged.merge(cell)
        return merged


# --- series -----------------------------------------------------------------------------------------------------------


cdef object latest_calendar = None
cdef int64_t latest_quarter = -1
cdef tuple latest_periods = ()


cdef tuple periods_of(calendar, int64_t moment_ms):
    """The periods of a moment: nearly always those that were asked for last, by another series."""
    global latest_calendar, latest_quarter, latest_periods
    cdef int64_t quarter = moment_ms // QUARTER_HOUR
    if calendar is not latest_calendar or quarter != latest_quarter:
        latest_periods = calendar.periods(moment_ms)
        latest_calendar, latest_quarter = calendar, quarter
    return latest_periods


@cython.final
cdef class Series:
    """All counts of one subject."""

    def __init__(self, calendar, bucket_ms, spans_ms, watched=None):
        """``watched`` gives for a rolling window's span the slots that rules read of it."""
        assert QUARTER_HOUR % bucket_ms == 0, bucket_ms
        read = watched or {}
        self.calendar = calendar
        self.bucket_ms = bucket_ms
        self.cells, self.counts, self.all, self.recent = {}, {}, Cell(), Cell()
        self.recent_in, self.touched, self.stored, self.touched_hours = (), set(), set(), set()
        self.stored_changes = -1
        self.kept = Row(sorted({slot for slots in read.values() for slot in slots if slot < FIRST_MAX}))
        self.rolling = {span: Rolling(span, self.kept, read.get(span, ())) for span in sorted(spans_ms)}
        self.windows = list(self.rolling.values())
        self.widest = self.rolling[max(spans_ms)] if spans_ms else None

    # --- reading --------------------------------------------------------------------------------------------------------

    def period_counts(self, period):
        """The counts of one period, to be read now; None when nothing is known of it."""
        counts = self.counts.get(period)
        if self.recent.n == 0 and self.recent.others is None or period not in self.recent_in:
            return counts
        return self.recent if counts is None else Joined(counts, self.recent)

    def total_counts(self):
        """Everything ever counted, to be read now."""
        return Joined(self.all, self.recent) if self.recent else self.all

    @property
    def periods(self):
        """The counts of every calendar period that is kept."""
        self.settle()
        return self.counts

    @property
    def total(self):
        """Everything ever counted."""
        self.settle()
        return self.all

    @total.setter
    def total(self, Cell cell not None):
        self.all = cell

    @property
    def touched_periods(self):
        """The periods that changed since the owner last cleared this set."""
        self.settle()
        return self.touched

    def period_with_open(self, period):
        """A period's counts with those of the cells that are still open (for rules that judge a single event)."""
        cdef Cell counts = Cell()
        cdef int64_t start_ms = period.start_ms, end_ms = period.end_ms
        folded = self.periods.get(period)
        if folded is not None:
            counts.merge(folded)
        for bucket, cell in self.cells.items():
            if start_ms <= bucket * self.bucket_ms < end_ms:
                counts.merge(cell)
        return counts

    # --- counting -------------------------------------------------------------------------------------------------------

    cpdef Cell cell(self, int64_t moment_ms):
        """The open cell of a moment's bucket."""
        bucket = moment_ms // self.bucket_ms
        found = self.cells.get(bucket)
        if found is None:
            found = self.cells[bucket] = Cell.__new__(Cell)
        return found

    def fold(self, int64_t now_ms):
        """Fold every cell whose bucket is over at ``now_ms``; the periods that changed."""
        cdef int64_t before = now_ms // self.bucket_ms
        over = [bucket for bucket in self.cells if bucket < before]
        if len(over) == 1:
            return self.add(over[0] * self.bucket_ms, self.cells.pop(over[0]), now_ms)
        changed = set()
        for bucket in sorted(over):
            changed.update(self.add(bucket * self.bucket_ms, self.cells.pop(bucket), now_ms))
        return changed

    cpdef tuple add(self, int64_t start_ms, Cell cell, int64_t now_ms):
        """Put a finished cell into periods, rolling windows and total; the periods that changed."""
        cdef tuple periods = periods_of(self.calendar, start_ms)
        self.changes += 1
        if periods is not self.recent_in and periods != self.recent_in:
            self.settle()
            self.recent_in = periods
        self.recent.merge(cell)
        if self.widest is not None and start_ms >= now_ms - self.widest.span_ms:
            self.roll(start_ms, cell, now_ms)
            self.touched_hours.add(start_ms // HOUR)
        return periods

    cdef int settle(self) except -1:
        """Move what was folded lately into its periods. Most cells are never looked at one by one."""
        if not self.recent:
            return 0
        for period in self.recent_in:
            counts = self.counts.get(period)
            if counts is None:
                counts = self.counts[period] = Cell.__new__(Cell)
            (<Cell>counts).merge(self.recent)
            self.touched.add(period)
        self.all.merge(self.recent)
        self.recent = Cell.__new__(Cell)
        return 0

    def move(self, calendar):
        """Keep another calendar from now on: a month that was begun in one zone goes on in the other."""
        self.settle()
        self.calendar = calendar
        self.recent_in = ()
        self.counts = {
            calendar.period(period.window, period.label): counts for period, counts in self.counts.items()
        }
        self.touched = {calendar.period(period.window, period.label) for period in self.touched}

    # --- rolling windows ------------------------------------------------------------------------------------------------

    cdef int roll(self, int64_t start_ms, Cell cell, int64_t now_ms) except -1:
        """Put a finished cell into the rolling windows that it is not too old for, which the widest is."""
        cdef Rolling rolling
        cdef int index
        if len(self.rolling) > 1:
            for rolling in self.windows:
                if start_ms < now_ms - rolling.span_ms:
                    rolling.drop(now_ms - rolling.span_ms)  # so that the cell lies before all that it holds
        index = self.kept.insert(start_ms, cell)
        for rolling in self.windows:
            if index < rolling.first or start_ms < now_ms - rolling.span_ms:
                rolling.first += 1
            elif rolling.watched:
                rolling.entered(cell)
        return 0

    cpdef int expire(self, int64_t now_ms) except -1:
        """Let old cells leave the rolling windows."""
        cdef Rolling rolling
        cdef int gone
        for rolling in self.windows:
            if rolling.drop(now_ms - rolling.span_ms):
                self.changes += 1
        if self.widest is None or not self.widest.first:
            return 0
        gone = self.widest.first
        for rolling in self.windows:
            rolling.first -= gone
        for _ in range(gone):
            self.kept.pop()
        return 0

    @property
    def rolling_is_empty(self):
        """Whether no rolling window holds anything: nothing will change by the passing of time alone."""
        return self.widest is None or self.widest.first == self.kept.n

    # --- stored form ----------------------------------------------------------------------------------------------------

    def changed_hours(self):
        """The rolling cells to store anew, by hour, and the hours that are gone, since this was last asked.

        A day of cells is too much to write each time one of them is added: an hour's cells are stored together.
        """
        if self.widest is None or self.changes == self.stored_changes:
            return {}, set()
        self.stored_changes = self.changes
        hours, kept = {}, set()
        for start_ms, cell in self.widest.cells:
            hour = start_ms // HOUR
            kept.add(hour)
            if hour in self.touched_hours:
                hours.setdefault(hour, []).append((start_ms, cell))
        gone = self.stored - kept
        self.stored = kept
        self.touched_hours.clear()
        return hours, gone

    @property
    def stored_hours(self):
        """The hours of which rolling cells are stored."""
        return frozenset(self.stored)

    def revive_cells(self, hour, cells, int64_t now_ms):
        """Put an hour's rolling cells back; those that have left a window since they were stored stay out of it."""
        self.stored.add(hour)
        for start_ms, cell in cells:
            if self.widest is not None and start_ms >= now_ms - self.widest.span_ms:
                self.roll(start_ms, cell, now_ms)

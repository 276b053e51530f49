# cython: language_level=3, boundscheck=False, wraparound=False
"""What a partition counted for groups, on its way to the group stage and into the counts of these groups.

Theory of operation. A report has one list of *terms*, the lasting names of what is counted in it, and each cell as a
string of bytes: the number of a term in that list, its count, the next number, and so on. So a name is written and read
once for a report and not once for each of a hundred groups, and no object is made of a number on the way. The other
side looks the names up in its own slots: it may have other packs loaded, or other versions of them, and forgets what it
does not know.

Numbers are written seven bits to a byte, lowest first, the top bit set while more follow (LEB128); those that may be
below zero are folded first (0, -1, 1, -2 ... become 0, 1, 2, 3 ...). First comes for how many numbers room is to be
made. Of each count come the number of its term times four plus its form, then by its form: the folded value of 64 bits;
how many hashes a set has, and these in order, of eight bytes each, lowest byte first as on every machine that this runs
on; or the length of a sum beyond 64 bits, and it as a whole number, lowest byte first.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from kaohe.core.counts cimport Cell, Series

from kaohe.core.counts import DISTINCT_SLOT, unpack_cell

cdef enum:
    FIRST_DISTINCT = 2_000_000
    HASH_BYTES = 8
    NUMBER_BYTES = 10      # the most that a number of 64 bits takes
    SITE = 2               # the last position in a place: who has no site is one of all

cdef enum Form:
    COUNT, HASHES, LARGE

assert FIRST_DISTINCT == DISTINCT_SLOT


def past_ones(dict groups not None, int64_t before):
    """Take out what is kept of groups by name and bucket, for all buckets that come before one: name, bucket and what was
    kept, in their order."""
    cdef dict buckets
    cdef list found = []
    for name in sorted(groups):
        buckets = groups[name]
        past = [bucket for bucket in buckets if <int64_t>bucket < before]
        for bucket in sorted(past) if len(past) > 1 else past:
            found.append((name, bucket, buckets.pop(bucket)))
        if not buckets:
            del groups[name]
    return found


@cython.final
cdef class Writer:
    """Writes cells for one report. ``terms`` are the names that were used, in the order of their numbers."""

    cdef dict names, numbers
    cdef readonly list terms
    cdef uint8_t *bytes
    cdef Py_ssize_t n, room

    def __init__(self, dict names not None):
        """``names`` are the lasting names of slots."""
        self.names = names
        self.numbers, self.terms = {}, []

    def __dealloc__(self):
        PyMem_Free(self.bytes)

    cpdef bytes write(self, Cell cell):
        """A cell as bytes."""
        cdef int at
        cdef bint large = False
        cdef dict others = cell.others
        self.n = 0
        self.make_room(NUMBER_BYTES * (2 * cell.n + 1))
        self.put(cell.n)
        if others is not None:
            for slot in others:
                large |= <int32_t>slot < FIRST_DISTINCT
        for at in range(cell.n):
            if large and cell.slots[at] in others:
                self.write_large(cell.slots[at], cell.values[at] + others[cell.slots[at]])
            else:
                self.put(<uint64_t>self.number(cell.slots[at]) << 2 | COUNT)
                self.put(folded(cell.values[at]))
        if others is not None:
            for slot in sorted(others) if len(others) > 1 else others:
                if <int32_t>slot >= FIRST_DISTINCT:
                    self.write_hashes(slot, others[slot])
        return PyBytes_FromStringAndSize(<char *>self.bytes, self.n)

    cdef int write_large(self, int32_t slot, value) except -1:
        """Write a sum of any size; room for the plain counts that may follow is kept."""
        cdef Py_ssize_t left = self.room - self.n
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        self.make_room(left + NUMBER_BYTES + len(raw))
        self.put(<uint64_t>self.number(slot) << 2 | LARGE)
        self.put(len(raw))
        memcpy(self.bytes + self.n, PyBytes_AS_STRING(raw), len(raw))
        self.n += len(raw)
        return 0

    cdef int write_hashes(self, int32_t slot, set hashes) except -1:
        cdef uint64_t hashed
        cdef uint8_t *first
        self.make_room(2 * NUMBER_BYTES + HASH_BYTES * (len(hashes) + 1))
        self.put(<uint64_t>self.number(slot) << 2 | HASHES)
        self.put(len(hashes))
        first = self.bytes + self.n
        for hashed in hashes:
            memcpy(self.bytes + self.n, &hashed, HASH_BYTES)
            self.n += HASH_BYTES
        sort(first, len(hashes))
        return 0

    cdef int32_t number(self, slot) except -1:
        found = self.numbers.get(slot)
        if found is None:
            found = self.numbers[slot] = len(self.terms)
            self.terms.append(self.names[slot])
        return found

    cdef int make_room(self, Py_ssize_t more) except -1:
        cdef uint8_t *grown
        if self.n + more > self.room:
            self.room = 2 * self.room + more
            grown = <uint8_t *>PyMem_Realloc(self.bytes, self.room)
            if grown is NULL:
                raise MemoryError
            self.bytes = grown
        return 0

    cdef inline void put(self, uint64_t number) noexcept:
        while number >= 128:
            self.bytes[self.n] = <uint8_t>(number & 127 | 128)
            self.n += 1
            number >>= 7
        self.bytes[self.n] = <uint8_t>number
        self.n += 1

    def take(self, str level not None, dict groups not None, int64_t before, int64_t bucket_ms, list shares not None,
             targets):
        """Put the cells of all buckets that come before one to the shares of whom they are for, and forget them.

        ``groups`` are the open cells of a level by name and bucket; ``targets`` has the place of the share for each
        name.
        """
        for name, bucket, cell in past_ones(groups, before):
            shown = name or "all"
            share = shares[targets[shown] if len(shares) > 1 else 0]
            (<list>share).append((level, shown, <int64_t>bucket * bucket_ms, self.write(cell)))


cdef inline uint64_t hash_at(const uint8_t *first, Py_ssize_t at) noexcept:
    cdef uint64_t found
    memcpy(&found, first + HASH_BYTES * at, HASH_BYTES)
    return found


cdef void sort(uint8_t *first, Py_ssize_t n) noexcept:
    """Put hashes in order where they lie, which need not be on a boundary of words.

    Source: D. L. Shell, "A high-speed sorting procedure" (1959), with gaps that shrink by 9 in 4.
    """
    cdef Py_ssize_t gap = n, at, behind
    cdef uint64_t moved, other
    while gap > 1:
        gap = gap * 4 // 9
        if gap < 1:
            gap = 1
        for at in range(gap, n):
            moved, behind = hash_at(first, at), at
            while behind >= gap:
                other = hash_at(first, behind - gap)
                if other <= moved:
                    break
                memcpy(first + HASH_BYTES * behind, &other, HASH_BYTES)
                behind -= gap
            memcpy(first + HASH_BYTES * behind, &moved, HASH_BYTES)


cdef inline uint64_t folded(int64_t value) noexcept:
    """A number that may be below zero as one that is not."""
    return <uint64_t>value << 1 ^ <uint64_t>(value >> 63)


cdef inline int64_t unfolded(uint64_t value) noexcept:
    return <int64_t>(value >> 1) ^ -<int64_t>(value & 1)


@cython.final
cdef class Reader:
    """Reads the cells of one report with these terms."""

    cdef dict known
    cdef Py_ssize_t n_terms
    cdef int32_t *slots        # of the terms; -1 where there is none on this side
    cdef const uint8_t *bytes  # what is read now, up to ``end``
    cdef const uint8_t *end

    def __init__(self, list terms not None, dict slots not None):
        """``slots`` are those of this side by their lasting names."""
        cdef Py_ssize_t at
        self.known = slots
        self.n_terms = len(terms)
        self.slots = <int32_t *>PyMem_Malloc((self.n_terms + 1) * sizeof(int32_t))
        if self.slots is NULL:
            raise MemoryError
        for at in range(self.n_terms):
            self.slots[at] = slots.get(terms[at], -1)

    def __dealloc__(self):
        PyMem_Free(self.slots)

    cpdef Cell read(self, packed):
        """A cell; a term that no loaded pack has any more is forgotten. ValueError when the bytes are no cell."""
        cdef Cell cell
        cdef uint64_t number
        cdef int32_t slot
        cdef Form form
        if type(packed) is not bytes:
            return unpack_cell(packed, self.known)  # of a worker from before reports had terms
        self.bytes = <const uint8_t *>PyBytes_AS_STRING(packed)
        self.end = self.bytes + PyBytes_GET_SIZE(packed)
        cell = Cell.__new__(Cell)
        number = self.next_number()
        if number > <uint64_t>PyBytes_GET_SIZE(packed):
            raise ValueError("a cell of a report breaks off")
        cell.grow(max(<int>number, 1))
        while self.bytes < self.end:
            number = self.next_number()
            form = <Form>(number & 3)
            number >>= 2
            if number >= <uint64_t>self.n_terms:
                raise ValueError(f"a cell of a report names term {number} of {self.n_terms}")
            slot = self.slots[number]
            if slot >= 0 and (slot >= FIRST_DISTINCT) != (form == HASHES):
                raise ValueError(f"a cell of a report has form {form} for a term of another one")
            if form == COUNT:
                value = unfolded(self.next_number())
                if slot >= 0:
                    cell.bump(slot, value)
            elif form == HASHES:
                hashes = self.next_hashes()
                if slot >= 0:
                    cell.join(slot, hashes)
            else:
                sum_ = int.from_bytes(self.next_bytes(self.next_number()), "little", signed=True)
                if slot >= 0:
                    cell.add(slot, sum_)
        return cell

    cdef uint64_t next_number(self) except? 0:
        cdef uint64_t number = 0
        cdef int shift = 0
        while self.bytes < self.end and shift < 64:
            number |= <uint64_t>(self.bytes[0] & 127) << shift
            shift += 7
            self.bytes += 1
            if self.bytes[-1] < 128:
                return number
        raise ValueError("a cell of a report breaks off")

    cdef bytes next_bytes(self, uint64_t n):
        if n > <uint64_t>(self.end - self.bytes):
            raise ValueError("a cell of a report breaks off")
        found = PyBytes_FromStringAndSize(<const char *>self.bytes, n)
        self.bytes += n
        return found

    cdef list next_hashes(self):
        cdef uint64_t n = self.next_number(), hashed
        cdef list found = []
        if n > <uint64_t>(self.end - self.bytes) // HASH_BYTES:
            raise ValueError("a cell of a report breaks off")
        for _ in range(n):
            memcpy(&hashed, self.bytes, HASH_BYTES)
            found.append(hashed)
            self.bytes += HASH_BYTES
        return found

    def put(self, list groups not None, dict cells not None):
        """Put the cells of groups to those that are there already, by level, name and start of the bucket."""
        cdef Cell cell
        for level, name, start_ms, packed in groups:
            cell = self.read(packed)
            key = (level, name, start_ms)
            found = cells.get(key)
            if found is None:
                cells[key] = cell
            else:
                (<Cell>found).merge(cell)


def add_up(dict cells not None, dict subjects not None, make, int64_t now_ms):
    """Add cells, by level, name and start of the bucket, to the counts of these groups.

    ``make`` gives the subject for a level, a name and a moment where there is none yet, or None. Comes to the keys of
    the groups by level and the periods that changed.
    """
    cdef Series series
    cdef dict found = {}
    cdef list keys = None
    periods = of_level = None
    for (level, name, start_ms), cell in cells.items():
        key = (level, name)
        subject = subjects.get(key)
        if subject is None:
            subject = make(level, name, start_ms)
            if subject is None:
                continue
        series = subject.series
        changed = series.add(start_ms, cell, now_ms)
        if changed is not periods or level != of_level:
            periods, of_level = changed, level
            keys = found.setdefault((level, periods), [])
        keys.append(key)
    return found


# --- what was seen ----------------------------------------------------------------------------------------------------


def put_together(list waiting not None, list uses not None, list levels not None, change_of, sighting_of, cut):
    """Put what was seen of groups together by group, bucket and witness.

    ``waiting`` are the hits of an event each with its moment, tag, ids, place (queue, team and site) and weight; ``uses``
    the witnesses, ``levels`` of each what is seen by level (its position in a place, and by name and bucket, as long as
    one is), ``change_of`` makes what was seen of a group in a bucket, ``sighting_of`` one thing seen, and ``cut`` keeps
    the first of many.
    """
    cdef dict groups, buckets, changes
    cdef int64_t at_ms, bucket_ms
    cdef Py_ssize_t found, position, bound
    cdef list kept
    for hits, at_ms, tag, ids, place, weight in waiting:
        for found, rank, over in hits:
            use = uses[found]
            one = sighting_of(rank, at_ms, tag, ids)
            for position, groups, bucket_ms in levels[found]:
                name = (<tuple>place)[position]
                if not name:
                    if position < SITE:
                        continue
                    name = "all"
                buckets = groups.get(name)
                if buckets is None:
                    buckets = groups[name] = {}
                bucket = at_ms // bucket_ms
                changes = buckets.get(bucket)
                if changes is None:
                    changes = buckets[bucket] = {}
                change = changes.get(use.key)
                if change is None:
                    change = changes[use.key] = change_of()
                if over or weight < 0:
                    change.take_back(tag)
                    continue
                change.count += 1
                kept, bound = change.kept, use.bound
                kept.append(one)
                if len(kept) > 2 * bound:
                    cut(kept, bound)

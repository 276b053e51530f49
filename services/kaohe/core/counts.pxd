# What other compiled modules may use of ``kaohe.core.counts``; counts.pyx says what it means.

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport int32_t, int64_t, uint64_t


cdef Py_ssize_t place_of(object kind, str name) except -2


cdef inline object field(object owner, Py_ssize_t place, str name):
    """A field of an object; ``place`` is ``place_of`` its class."""
    cdef PyObject *found
    if place >= 0:
        found = (<PyObject **>(<char *><PyObject *>owner + place))[0]
        if found is not NULL:
            return <object>found
    return getattr(owner, name)


cdef inline int set_field(object owner, Py_ssize_t place, str name, object value) except -1:
    """Set a field of an object; ``place`` is ``place_of`` its class."""
    cdef PyObject *before
    cdef PyObject **kept
    if place < 0:
        setattr(owner, name, value)
        return 0
    kept = <PyObject **>(<char *><PyObject *>owner + place)
    before = kept[0]
    Py_INCREF(value)
    kept[0] = <PyObject *>value
    Py_XDECREF(before)
    return 0


cdef class Cell:
    cdef int n, room
    cdef int64_t *values
    cdef int32_t *slots    # in the same block, behind the values
    cdef dict others       # sets of hashes; of a sum, what it has beyond ``values``

    cdef int grow(self, int room) except -1
    cdef int place(self, int32_t slot) noexcept
    cdef int insert(self, int at, int32_t slot, int64_t value) except -1
    cdef int bump(self, int32_t slot, int64_t value) except -1
    cdef int raise_at(self, int at, int64_t value) except -1
    cdef int carry(self, int32_t slot, object value) except -1
    cdef int see(self, int32_t slot, object hashed) except -1
    cpdef int join(self, int32_t slot, hashes) except -1
    cpdef int merge(self, Cell cell) except -1
    cdef int merge_counts(self, Cell cell) except -1
    cdef int64_t plain(self, int32_t slot) noexcept
    cdef object count(self, int32_t slot, object default)


cdef enum How:
    SUM, HISTOGRAM, MAX, DISTINCT


cdef struct Term:
    How how
    int32_t slot           # of a histogram: the first of its slots
    int32_t field          # which of the counter's fields is read, or -1: the weight alone is added
    int32_t levels         # one bit for each of the four cells
    uint64_t condition     # the bit of its condition, or 0


cdef class Counter:
    cdef int n, n_bounds
    cdef Term *terms
    cdef int64_t *bounds
    cdef int64_t *read         # the values of the fields, for one event
    cdef Py_ssize_t *places    # where data of ``kind`` keeps them
    cdef object kind
    cdef tuple fields
    cdef object holds

    cdef int count(self, data, int64_t time_ms, Cell agent, Cell queue, Cell team, Cell site, int weight) except -1
    cdef int learn(self, data) except -1
    cdef object value(self, data, int32_t which)
    cdef int see(self, Term *term, data, Cell agent, Cell queue, Cell team, Cell site) except -1
    cdef int32_t bucket(self, int64_t value) noexcept


cdef class Row:
    cdef int width         # how many sums
    cdef int32_t *slots    # of the sums, rising
    cdef int first, n, room
    cdef int64_t *starts   # when the bucket of each cell began, in ms
    cdef int64_t *sums     # of each cell ``width`` of them, once it was added
    cdef int64_t *base     # the sums before the first cell
    cdef list cells
    cdef bint large        # whether a count was too large for running sums to be exact

    cdef int make_room(self) except -1
    cdef int64_t *before(self, int index) noexcept
    cdef int insert(self, int64_t start_ms, Cell cell) except -1
    cdef int pop(self) except -1
    cdef int place(self, int32_t slot) noexcept


cdef class Rolling:
    cdef readonly int64_t span_ms
    cdef Row kept
    cdef int first
    cdef list watched      # slots of maxima that rules read
    cdef dict maxima       # those of them that were asked for since one left

    cdef int entered(self, Cell cell) except -1
    cdef int left(self, Cell cell) except -1
    cdef bint drop(self, int64_t edge) except -1
    cdef object count(self, int32_t slot, object default)
    cdef object together(self, int32_t slot)


cdef class Series:
    cdef readonly object calendar
    cdef readonly int64_t bucket_ms
    cdef readonly int64_t changes    # a number that differs whenever any counts may
    cdef public dict cells           # the open ones, by the number of their bucket
    cdef readonly dict rolling       # the windows by their span in ms
    cdef list windows                # and in a row
    cdef Rolling widest              # every cell of a shorter window is in it too; None without windows
    cdef Row kept
    cdef dict counts                 # of each calendar period, without what was folded lately
    cdef Cell all, recent            # of all that was folded, without what was folded lately; and that
    cdef tuple recent_in             # the periods of what was folded lately
    cdef set touched, stored, touched_hours
    cdef int64_t stored_changes

    cpdef Cell cell(self, int64_t moment_ms)
    cpdef int expire(self, int64_t now_ms) except -1
    cpdef tuple add(self, int64_t start_ms, Cell cell, int64_t now_ms)
    cdef int settle(self) except -1
    cdef int roll(self, int64_t start_ms, Cell cell, int64_t now_ms) except -1

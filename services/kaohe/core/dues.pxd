# What other compiled modules may use of ``kaohe.core.dues``; dues.pyx says what it means.

from libc.stdint cimport int64_t

from kaohe.core.counts cimport Counter

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(tuple)


cdef inline tuple of_texts(tuple texts):
    """A tuple of texts, which the collector of cycles need not look at even once. Items are made of many."""
    PyObject_GC_UnTrack(texts)
    return texts


cdef class Queue:
    cdef object at
    cdef list front, minutes
    cdef dict later
    cdef int64_t front_minute

    cpdef int add(self, int64_t at_ms, tuple key) except -1
    cpdef tuple first(self)
    cdef int turn(self) except -1


cdef class Due:
    cdef readonly str name, pack_name, version
    cdef readonly int64_t from_ms
    cdef readonly object payload
    cdef public object applies           # a condition, or None
    cdef public list limits              # times in ms by word, and from when they hold, newest first
    cdef public bint opens_plainly, met_plainly
    cdef public Counter opened, met      # what counts the items that are opened and met, or None
    cdef str due_field, word_field
    cdef Py_ssize_t due, word

    cdef bint is_sure(self, data) except -1
    cdef int64_t limit_ms(self, data, int64_t time_ms) except? -1


cdef class Asked:
    cdef readonly Due kind
    cdef str field
    cdef Py_ssize_t place

    cdef str word(self, data)


cdef class Dues:
    cdef readonly dict items
    cdef readonly set touched                           # the chunks with items to be stored again
    cdef readonly dict chunks                           # the ids of the items in each, by its number
    cdef readonly Py_ssize_t most
    cdef readonly Queue open, ended
    cdef object made
    cdef dict kept_ms
    cdef int64_t kept, abandoned
    cdef object newest
    cdef Py_ssize_t together
    cdef Py_ssize_t id, state, due, closed, evidence, chunk    # where an item keeps them

    cpdef int add(self, item) except -1
    cpdef object begin_chunk(self)
    cpdef int put_back(self, item) except -1
    cpdef int note(self, item) except -1
    cpdef int changed(self, item) except -1
    cpdef int queue(self, item) except -1
    cpdef object due_at(self, tuple key)
    cpdef object end_at(self, tuple key)
    cdef bint is_open(self, item) except -1
    cdef int64_t due_of(self, item) except? -1
    cdef int64_t end_ms(self, item) except? -1
    cdef bint begin(self, tuple key, tuple place, int64_t time_ms, int64_t due_ms, data, event_id) except -1
    cdef bint forestall(self, tuple key, tuple place, int64_t time_ms, event_id) except -1
    cdef bint meet(self, item, int64_t time_ms, event_id) except -1
    cdef bint is_over(self, item, int64_t time_ms) except -1

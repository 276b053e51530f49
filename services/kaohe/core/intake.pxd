# What other compiled modules may use of ``kaohe.core.intake``; intake.pyx says what it means.

from libc.stdint cimport int64_t

from kaohe.core.counts cimport Cell, Series


cdef class Known:
    cdef readonly tuple key
    cdef readonly Series series
    cdef public int64_t first_seen_ms, roster_from_ms
    cdef public str team, site
    # By pack, window and label of a period: the version that had closed it in a zone that was left.
    cdef public dict closed_elsewhere
    # The state of work, since when it lasts, and up to when it is counted.
    cdef public str state
    cdef public int64_t state_from_ms, state_since_ms
    # The open cells of its own, of a team and of a site, as long as the number is the intake's.
    cdef int64_t stamp
    cdef str at_team, at_site
    cdef Cell own_cell, team_cell, site_cell

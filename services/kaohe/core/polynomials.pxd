# Polynomials of counts with whole factors, and how they compare with 0: what looks and verdicts are made of.
#
# A term has at most two variables. Variables stay below 2 ** 46 and factors below 2 ** 30, so that a polynomial of 16
# terms fits into 128 bits; whoever reads the variables sees to that.

from libc.stdint cimport int64_t

cdef extern from *:
    """
    typedef __int128 kaohe_wide;
    """
    ctypedef long long kaohe_wide


cdef enum Op:
    LESS, AT_MOST, MORE, AT_LEAST, EQUAL, OTHER

cdef struct Term:
    int64_t factor
    int one, other         # variables, or -1


cdef inline kaohe_wide total_of(const Term *terms, int n, const int64_t *values) noexcept:
    """What a polynomial comes to."""
    cdef kaohe_wide total = 0, part
    cdef int at
    for at in range(n):
        part = terms[at].factor
        if terms[at].one >= 0:
            part *= values[terms[at].one]
        if terms[at].other >= 0:
            part *= values[terms[at].other]
        total += part
    return total


cdef inline bint compares(int op, kaohe_wide total) noexcept:
    """Whether a total compares with 0 in this way."""
    if op == LESS:
        return total < 0
    if op == AT_MOST:
        return total <= 0
    if op == MORE:
        return total > 0
    if op == AT_LEAST:
        return total >= 0
    if op == EQUAL:
        return total == 0
    return total != 0

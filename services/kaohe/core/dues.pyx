# cython: language_level=3, boundscheck=False, wraparound=False
"""Things that must follow within a time, as nearly all of them go: opened by one event, met by another one in time.

Theory of operation. This is the straight way of ``kaohe.core.deadlines`` and ``kaohe.core.items``, which tell what items
are. ``Dues`` holds the items and knows when each of them is missed or forgotten; ``Due`` is what a deadline asks of an
event whose answer nobody judges and only a counter hears of. Whatever else may become of an item (it is missed, late,
taken back, opened again, or stands until something is said) is left to the plain Python of these modules.

Most items are met long before they are due, so a queue keeps no order but among those of the minute that comes next.
Before that it knows only in which minute to look at an item: what its moment is by then, the item itself says.
"""

from libc.stdint cimport int64_t

from kaohe.core.counts cimport Counter, field, place_of, set_field

import heapq

cdef enum:
    MINUTE = 60_000

cdef object push = heapq.heappush, pop = heapq.heappop, heapify = heapq.heapify


cdef class Queue:
    """Items by a moment, earliest first. One that is there no more at its moment is passed over when its turn comes."""

    def __init__(self, at):
        """``at`` tells the moment at which an item stands in the queue now, or None."""
        self.at = at
        self.front, self.minutes, self.later = [], [], {}
        self.front_minute = -1

    cpdef int add(self, int64_t at_ms, tuple key) except -1:
        """Put an item to its moment."""
        cdef int64_t minute = at_ms // MINUTE
        if minute == self.front_minute:
            push(self.front, (at_ms, key))
            return 0
        if minute < self.front_minute:
            # What waits for years may have been the only one, and must not have all others before it kept in order.
            self.later[self.front_minute] = [known for _, known in self.front]
            push(self.minutes, self.front_minute)
            self.front, self.front_minute = [], -1
        known = self.later.get(minute)
        if known is None:
            known = self.later[minute] = []
            push(self.minutes, minute)
        (<list>known).append(key)
        return 0

    cpdef tuple first(self):
        """The earliest moment and its item; None when there is nothing."""
        cdef tuple found
        while True:
            while self.front:
                found = self.front[0]
                if self.at(found[1]) == found[0]:
                    return found
                pop(self.front)
            if not self.minutes:
                return None
            self.turn()

    cdef int turn(self) except -1:
        """Let the next minute come: of what was put there, that is looked at which is still there."""
        cdef int64_t minute = pop(self.minutes)
        self.front_minute = minute
        for key in <list>self.later.pop(minute):
            at_ms = self.at(key)
            if at_ms is not None and <int64_t>at_ms // MINUTE == minute:
                self.front.append((at_ms, key))
        heapify(self.front)
        return 0

    def take(self):
        """The item that ``first`` told, which stands in the queue no more."""
        return pop(self.front)[1]


cdef class Due:
    """What a deadline of one version of a pack asks of events."""

    def __init__(self, str name not None, str pack_name not None, str version not None, int64_t from_ms, payload):
        """``from_ms`` is since when the version is in force, ``payload`` the data of the event that opens."""
        self.name, self.pack_name, self.version, self.from_ms = name, pack_name, version, from_ms
        self.payload, self.limits = payload, []

    def read(self, str due_field not None, str word_field not None):
        """Find out where an opening keeps its due time, and the word that chooses the limit (empty: nowhere)."""
        self.due_field, self.word_field = due_field, word_field
        self.due = place_of(self.payload, due_field) if due_field else -1
        self.word = place_of(self.payload, word_field) if word_field else -1

    cdef bint is_sure(self, data) except -1:
        """Whether an opening surely has a due time: it states none, and there is a limit."""
        return bool(self.limits) and (not self.due_field or field(data, self.due, self.due_field) is None)

    cdef int64_t limit_ms(self, data, int64_t time_ms) except? -1:
        """When an item must be met that ``data`` opens at ``time_ms``."""
        cdef dict limits
        if self.is_sure(data):
            for from_ms, limits in self.limits:
                if time_ms >= <int64_t>from_ms:
                    limit_ms = None
                    if self.word_field:
                        limit_ms = limits.get(str(field(data, self.word, self.word_field)))
                    return time_ms + <int64_t>(limits["*"] if limit_ms is None else limit_ms)
        return self.due_ms(data, time_ms)


cdef class Asked:
    """That an event type opens the items of a deadline, or meets them; ``field`` tells them apart."""

    def __init__(self, Due kind not None, payload, str field not None):
        self.kind, self.field, self.place = kind, field, place_of(payload, field)

    cdef str word(self, data):
        """Which item an event is about."""
        return str(field(data, self.place, self.field))


cdef class Dues:
    """The items of one partition by their ids, and when each of them is missed or forgotten."""

    def __init__(
        self, made, dict kept_ms not None, int64_t kept, int64_t abandoned, Py_ssize_t most, Py_ssize_t together
    ):
        """``made`` is the struct of an item. How long ended ones are kept: by deadline, otherwise, and when missed.
        ``most`` are kept at a time, and ``together`` of them are stored in one chunk."""
        self.made, self.kept_ms, self.kept, self.abandoned, self.most = made, kept_ms, kept, abandoned, most
        self.items, self.touched, self.chunks, self.newest, self.together = {}, set(), {}, 0, together
        self.open, self.ended = Queue(self.due_at), Queue(self.end_at)
        self.id, self.state, self.due = [place_of(made, one) for one in ("id", "state", "due_ms")]
        self.closed, self.evidence = place_of(made, "closed_ms"), place_of(made, "evidence")
        self.chunk = place_of(made, "chunk")

    cpdef int add(self, item) except -1:
        """Add a new item, also in place of one with its id. The caller has asked ``check_room`` before."""
        cdef tuple key = field(item, self.id, "id")
        before = self.items.get(key)
        if before is None:
            own = self.chunks.get(self.newest)
            if own is None or len(<list>own) >= self.together:
                own = self.chunks[self.begin_chunk()]
            (<list>own).append(key)
            set_field(item, self.chunk, "chunk", self.newest)
        else:
            set_field(item, self.chunk, "chunk", field(before, self.chunk, "chunk"))
        self.items[key] = item
        return self.changed(item)

    cpdef object begin_chunk(self):
        """A new chunk, into which further items go; its number."""
        self.newest = self.newest + 1
        self.chunks[self.newest] = []
        return self.newest

    cpdef int put_back(self, item) except -1:
        """Put an item back into the chunk that it was stored in; of the chunks the newest must come last."""
        cdef tuple key = field(item, self.id, "id")
        self.newest = field(item, self.chunk, "chunk")
        own = self.chunks.get(self.newest)
        if own is None:
            own = self.chunks[self.newest] = []
        (<list>own).append(key)
        self.items[key] = item
        return self.queue(item)

    cpdef int changed(self, item) except -1:
        """Note that an item changed."""
        self.queue(item)
        return self.note(item)

    cpdef int note(self, item) except -1:
        """Note that an item is to be stored again, if it is one that is kept."""
        number = field(item, self.chunk, "chunk")
        if number:
            self.touched.add(number)
        return 0

    cpdef int queue(self, item) except -1:
        """Note when the item is missed; or, when it is open no more, when it is to be forgotten."""
        if self.is_open(item):
            self.open.add(self.due_of(item), field(item, self.id, "id"))
        else:
            self.ended.add(self.end_ms(item), field(item, self.id, "id"))
        return 0

    def next_ms(self):
        """The earliest moment at which an item is missed or forgotten: just after its due time."""
        first, ended = self.open.first(), self.ended.first()
        if first is None or (ended is not None and ended[0] < first[0]):
            first = ended
        return None if first is None else first[0] + 1

    cpdef object due_at(self, tuple key):
        """When an item that is open is missed."""
        item = self.items.get(key)
        return field(item, self.due, "due_ms") if item is not None and self.is_open(item) else None

    cpdef object end_at(self, tuple key):
        """When an item that is open no more is forgotten."""
        item = self.items.get(key)
        return self.end_ms(item) if item is not None and not self.is_open(item) else None

    cdef bint is_open(self, item) except -1:
        return <str>field(item, self.state, "state") == "open"

    cdef int64_t due_of(self, item) except? -1:
        return field(item, self.due, "due_ms")

    cdef int64_t end_ms(self, item) except? -1:
        """When an item that is open no more is forgotten."""
        cdef tuple own
        if <str>field(item, self.state, "state") == "missed":
            return self.due_of(item) + self.abandoned
        own = field(item, self.id, "id")
        kept_ms = self.kept_ms.get(own[0]) if self.kept_ms else None
        return <int64_t>field(item, self.closed, "closed_ms") + (self.kept if kept_ms is None else <int64_t>kept_ms)

    # --- the straight way ---------------------------------------------------------------------------------------------

    cdef bint begin(
        self, tuple key, tuple place, int64_t time_ms, int64_t due_ms, data, event_id
    ) except -1:
        """Open an item of which nothing is known, and for which the caller has asked for room."""
        if key in self.items:
            return False
        self.add(self.made(key, "open", place, time_ms, due_ms, 0, data, of_texts((event_id,))))
        return True

    cdef bint forestall(self, tuple key, tuple place, int64_t time_ms, event_id) except -1:
        """Remember what meets an item before it is opened."""
        if len(self.items) >= self.most:
            return False
        now = time_ms
        self.add(self.made(key, "early_met", place, now, now, now, None, of_texts((event_id,))))
        return True

    cdef bint meet(self, item, int64_t time_ms, event_id) except -1:
        """Let an item be met that is open and not overdue."""
        cdef tuple opened_by
        if not self.is_open(item) or time_ms > self.due_of(item):
            return False
        opened_by = field(item, self.evidence, "evidence")
        evidence = of_texts((opened_by[0], event_id) if opened_by else (event_id,))
        set_field(item, self.evidence, "evidence", evidence)
        set_field(item, self.closed, "closed_ms", time_ms)
        set_field(item, self.state, "state", "met")
        self.changed(item)
        return True

    cdef bint is_over(self, item, int64_t time_ms) except -1:
        """Whether an item had ended by then, so that what comes now changes nothing."""
        state = <str>field(item, self.state, "state")
        return state != "open" and state != "missed" and time_ms >= <int64_t>field(item, self.closed, "closed_ms")

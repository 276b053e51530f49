# cython: language_level=3, boundscheck=False, wraparound=False
"""The way of an event into the counts of its partition: admitted once, and added to the cells of whom it concerns.

Theory of operation. ``Intake`` is what a ``PartitionEngine`` is built on: it holds what nearly every event touches (the
log's clock, the ids that were seen, the agents, the open cells of groups) and goes the straight way itself. Whatever is
not straight (an event that is late or of an unknown agent, the first of a group, a boundary of log time, what rules,
deadlines and the engine itself do with an event) it leaves to methods of the engine, which are plain Python.

Fields of events are read where ``msgspec`` keeps them (``counts.field``).
"""

cimport cython
from cpython.datetime cimport (
    datetime, datetime_day, datetime_hour, datetime_microsecond, datetime_minute, datetime_month, datetime_second,
    datetime_tzinfo, datetime_year,
)
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memcmp

from kaohe.core.counts cimport Cell, Counter, Series, field, place_of
from kaohe.core.dues cimport Asked, Due, Dues, of_texts

from datetime import UTC

from msgspec import DecodeError, ValidationError, defstruct

from kaohe.core.calendars import MOMENT_MAX_MS, check_moment, to_ms
from kaohe.errors import EventError
from kaohe.events import DECODER, encode

cdef extern from *:
    """
    static void kaohe_fetch(PyObject *one) {
        __builtin_prefetch(one);
    }
    static void kaohe_fetch_place(PyObject *all, PyObject *one) {
        PySetObject *set = (PySetObject *)all;
        __builtin_prefetch(set->table + (((PyASCIIObject *)one)->hash & set->mask));
    }
    #define kaohe_is_ascii(word) PyUnicode_IS_ASCII(word)
    #define kaohe_letters(word) ((const unsigned char *)PyUnicode_1BYTE_DATA(word))
    """
    bint kaohe_is_ascii(str) noexcept
    const unsigned char *kaohe_letters(str) noexcept
    void kaohe_fetch(PyObject *) noexcept
    void kaohe_fetch_place(PyObject *, PyObject *) noexcept

cdef enum:
    MINUTE = 60_000
    FIVE_MINUTES = 300_000
    LATE = 60_000
    FUTURE = 5_000
    SHIFT = 16 * 3_600_000
    MOST_VALUES = 8
    MOST_FIELDS = 16

GROUP_BUCKET_MS = MINUTE
AGENT_BUCKET_MS = FIVE_MINUTES
"""How finely groups are counted: queues and sites are steered by the minute, teams (and agents) by five."""
LATE_MS = LATE
"""An event this much behind the log's clock came late; it counts all the same, where it belongs."""
FUTURE_MS = FUTURE
"""An event this much ahead of the log's clock is from the future."""
MAX_VALUES = MOST_VALUES
MAX_FIELDS = MOST_FIELDS
"""How many values, and fields in all of them, a sieve looks at."""
MAX_SHIFT_MS = SHIFT
"""A log-in without log-out ends by itself after this long."""

cdef bytes TICK_BEGINS = b'{"type":"clock.tick","id":"', TICK_ENDS = b'Z","specversion":"1.0","data":{}}'
cdef int64_t LARGE = (<int64_t>1) << 58
cdef int64_t LATEST = MOMENT_MAX_MS

StateTime = defstruct("StateTime", [("ms", int)], frozen=True, gc=False)
"""A stretch of time in a state, in the form that counters read."""


cpdef int64_t moment_ms(datetime moment) except? -1:
    """A moment as whole milliseconds since the epoch, as ``to_ms`` has it, from the fields of one in UTC.

    Source of the days since the epoch: H. Hinnant, "chrono-compatible low-level date algorithms" (days_from_civil).
    """
    if datetime_tzinfo(moment) is not UTC:
        return to_ms(moment)
    cdef int64_t month = datetime_month(moment)
    cdef int64_t year = datetime_year(moment) - (month <= 2)
    cdef int64_t era_year = year % 400
    cdef int64_t day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + datetime_day(moment) - 1
    cdef int64_t days = year // 400 * 146_097 + era_year * 365 + era_year // 4 - era_year // 100 + day_of_year - 719_468
    cdef int64_t seconds = datetime_hour(moment) * 3600 + datetime_minute(moment) * 60 + datetime_second(moment)
    return days * 86_400_000 + seconds * 1000 + (datetime_microsecond(moment) + 500) // 1000


cpdef bint is_pseudonym(str word):
    """Whether a customer's name is ``c-`` and 16 to 64 hexadecimal digits in lower case."""
    cdef Py_ssize_t size = len(word), at
    cdef const unsigned char *letters
    if not 18 <= size <= 66 or not kaohe_is_ascii(word):
        return False
    letters = kaohe_letters(word)
    if letters[0] != c"c" or letters[1] != c"-":
        return False
    for at in range(2, size):
        if not (c"0" <= letters[at] <= c"9" or c"a" <= letters[at] <= c"f"):
            return False
    return True


@cython.final
cdef class Source:
    """The ids of one source: all that are remembered, and those of the present part in the order they came."""

    cdef readonly set ids
    cdef public list fresh

    def __init__(self):
        self.ids = set()
        self.fresh = []

    def forget(self, list ids not None):
        """Take ids out. They came long ago: where they lie, and where in the set, is fetched some ids ahead."""
        cdef Py_ssize_t at, size = len(ids)
        for at in range(size):
            if at + 16 < size:
                kaohe_fetch(<PyObject *>ids[at + 16])
            if at + 8 < size:
                kaohe_fetch_place(<PyObject *>self.ids, <PyObject *>ids[at + 8])
            self.ids.discard(ids[at])


cdef class Ids:
    """What is asked at every event of the ids that are remembered.

    ``fresh`` counts those of the present part, which goes on in the minute ``minute`` until there are ``full`` of them.
    """

    cdef public dict sources
    cdef public int64_t fresh, full, minute


cdef class Known:
    """What is asked at every event of the subject that it is about."""

    def __init__(self, tuple key not None, Series series not None, int64_t first_seen_ms):
        self.key, self.series, self.first_seen_ms = key, series, first_seen_ms
        self.roster_from_ms = self.state_from_ms = self.state_since_ms = 0
        self.team = self.site = self.state = ""
        self.closed_elsewhere = {}


@cython.final
cdef class Sieve:
    """Lets an event through that may be seen: one of its values lies within its bounds.

    A value is a sum of whole numbers, fields with their signs. Whatever is no such number is let through.
    """

    cdef int n
    cdef int64_t lowest[MOST_VALUES]
    cdef int64_t highest[MOST_VALUES]
    cdef int ends[MOST_VALUES]        # where the fields of each value end
    cdef Py_ssize_t places[MOST_FIELDS]
    cdef int signs[MOST_FIELDS]
    cdef list names

    def __init__(self, payload, values):
        """``values`` are (fields with their signs, lowest, highest); at most ``MAX_VALUES`` of together ``MAX_FIELDS``."""
        cdef int at, field_at
        fields = [one for own, _, _ in values for one in own]
        assert len(values) <= MOST_VALUES and len(fields) <= MOST_FIELDS, values
        self.n, self.names = len(values), [name for name, _ in fields]
        for field_at, (name, sign) in enumerate(fields):
            self.places[field_at], self.signs[field_at] = place_of(payload, name), 1 if sign > 0 else -1
        field_at = 0
        for at, (own, lowest, highest) in enumerate(values):
            field_at += len(own)
            self.ends[at], self.lowest[at], self.highest[at] = field_at, lowest, highest

    def __call__(self, data):
        """Whether an event with this data is let through."""
        return self.lets(data)

    cdef bint lets(self, data) except -1:
        cdef int at, field_at = 0, overflow = 0
        cdef int64_t total, one
        for at in range(self.n):
            total = 0
            while field_at < self.ends[at]:
                value = field(data, self.places[field_at], <str>self.names[field_at])
                if type(value) is not int:
                    return True
                one = PyLong_AsLongLongAndOverflow(value, &overflow)
                if overflow or not -LARGE < one < LARGE:
                    return True
                total += one * self.signs[field_at]
                field_at += 1
            if self.lowest[at] <= total <= self.highest[at]:
                return True
        return False


cdef class Route:
    """Where an event type keeps its fields, and what is asked of it: counting, checks before it, more after it.

    After the counting come something ``special``, what sees the event, the rules that judge it, and the deadlines that
    it opens, meets and cancels.
    """

    cdef readonly str tag
    cdef public Counter count
    cdef public object special, seeing
    cdef public Sieve sieve          # what is let through to ``seeing``, or None: everything
    cdef public list rules, opens, meets, cancels
    cdef readonly bint more
    cdef bint items
    cdef tuple opening, meeting
    cdef readonly int64_t taken
    cdef object payload
    cdef bint has_customer
    cdef Py_ssize_t id, source, subject, time, data, agent, queue, team, site, customer

    def __init__(self, str tag not None, envelope, payload):
        self.tag, self.payload = tag, payload
        self.has_customer = "customer" in payload.__struct_fields__
        self.id, self.source, self.subject = [place_of(envelope, one) for one in ("id", "source", "subject")]
        self.time, self.data = place_of(envelope, "time"), place_of(envelope, "data")
        self.agent, self.queue = place_of(payload, "agent"), place_of(payload, "queue")
        self.team, self.site = place_of(payload, "team"), place_of(payload, "site")
        self.customer = place_of(payload, "customer") if self.has_customer else -1
        self.rules, self.opens, self.meets, self.cancels = [], [], [], []

    def settle(self):
        """Note what follows the counting, once it is known."""
        self.opening = tuple([Asked(kind, self.payload, kind.deadline.key) for kind in self.opens])
        self.meeting = tuple([Asked(kind, self.payload, kind.deadline.key) for kind in self.meets])
        self.items = bool(self.opens or self.meets or self.cancels)
        self.more = bool(self.seeing or self.rules or self.items or self.special)


@cython.final
cdef class Clock:
    """The last tick that was decoded. Most ticks differ from it in the second alone, and need no decoding.

    This is known of a tick that is encoded exactly as this program encodes it; of its bytes only the digits of its id
    and those of its second may be others.
    """

    cdef bytes known
    cdef Py_ssize_t id, after_id, second
    cdef int64_t minute_ms

    cdef int learn(self, bytes value, event) except -1:
        """Remember a tick's form, if it is the usual one."""
        cdef bytes own = event.id.encode()
        self.known = None
        self.id, self.second = len(TICK_BEGINS), len(value) - len(TICK_ENDS) - 2
        self.after_id = self.id + len(own)
        if (
            encode(event) == value and value.startswith(TICK_BEGINS + own + b'"') and value.endswith(TICK_ENDS)
            and event.time.tzinfo is UTC and event.time.microsecond == 0
        ):
            self.known, self.minute_ms = value, moment_ms(event.time) // MINUTE * MINUTE
        return 0

    cdef int64_t reads(self, value):
        """The moment of a tick that differs from the known one as ticks do; -1 when it must be decoded."""
        cdef const char *known
        cdef const char *own
        cdef Py_ssize_t at, size
        if self.known is None or type(value) is not bytes or len(<bytes>value) != len(self.known):
            return -1
        known, own, size = self.known, <bytes>value, len(self.known)
        if memcmp(own, known, self.id):
            return -1
        for at in range(self.id, self.after_id):
            if own[at] != known[at] and not (48 <= own[at] <= 57 and 48 <= known[at] <= 57):
                return -1
        if memcmp(own + self.after_id, known + self.after_id, self.second - self.after_id):
            return -1
        at = self.second
        if memcmp(own + at + 2, known + at + 2, size - at - 2):
            return -1
        if not (48 <= own[at] <= 53 and 48 <= own[at + 1] <= 57):
            return -1
        return self.minute_ms + ((own[at] - 48) * 10 + own[at + 1] - 48) * 1000


cdef class Intake:
    """What a partition keeps of what nearly every event touches, and the straight way of an event through it."""

    cdef public object judge, now_ms, tick_class, items
    cdef public Dues deadlines
    cdef public int64_t due_ms
    cdef public dict agents, queues, teams, sites, plans
    cdef public Ids seen
    cdef public list _waiting
    # Who is in a state of work, and what counts the time in it (for the agents themselves, if anything is to).
    cdef public set working
    cdef public dict state_counts
    cdef public bint agents_own_states
    # The buckets of the last moment, as keys, and the open cells of groups in them: nearly always those of the next one.
    cdef int64_t minute
    cdef object minute_key, five_minutes_key
    cdef dict queues_now, teams_now, sites_now
    cdef bint staying    # no cell is reported meanwhile
    cdef int64_t stamp   # another number when cells that were at hand may not be the open ones any more
    cdef Clock clock
    cdef type of_records
    cdef Py_ssize_t value

    def __cinit__(self):
        self.due_ms, self.minute = 0, -1
        self.agents, self.queues, self.teams, self.sites = {}, {}, {}, {}
        self.queues_now, self.teams_now, self.sites_now = {}, {}, {}
        self.staying, self.stamp = True, 1
        self.working, self._waiting = set(), []
        self.clock = Clock()

    def apply(self, records):
        """Apply records in the order of their offsets; what is to be sent, in order."""
        cdef int64_t tick_ms
        decode = DECODER.decode
        for record in records:
            if type(record) is not self.of_records:
                self.of_records, self.value = type(record), place_of(type(record), "value")
            value = field(record, self.value, "value")
            try:
                tick_ms = self.clock.reads(value)
                if tick_ms >= 0:
                    self.tick(tick_ms)
                    continue
                event = decode(value)
                if type(event) is self.tick_class:
                    self.clock.learn(value, event)
                self.take(event)
            except (ValidationError, DecodeError, UnicodeDecodeError, RecursionError):
                self._reject_undecodable(record)
            except EventError as error:
                self._reject(record, error)
        return self.judge.take_outputs()

    cpdef int take(self, event) except -1:
        """Admit, count and judge one event, or move the log's clock; EventError when it cannot be used."""
        if type(event) is self.tick_class:
            return self.tick(moment_ms(event.time))
        cdef Route plan = self.plans[type(event)]
        cdef int64_t time_ms = moment_ms(field(event, plan.time, "time"))
        cdef int64_t now_ms = -1 if self.now_ms is None else self.now_ms
        if now_ms < 0 or not now_ms - LATE <= time_ms <= now_ms + FUTURE:
            self.check_time(time_ms, self.now_ms)
        event_id, of = field(event, plan.id, "id"), field(event, plan.source, "source")
        source = self.seen.sources.get(of)
        if source is not None and event_id in (<Source>source).ids:
            self.judge.stats.duplicates += 1
            return 0
        data = field(event, plan.data, "data")
        if type(data) is not plan.payload:  # its fields would be read at the wrong places
            raise TypeError(f"{plan.tag} carries {plan.payload}, not {type(data)}")
        if plan.has_customer:
            customer = field(data, plan.customer, "customer")
            if customer and not is_pseudonym(customer):
                raise EventError(
                    "clear_customer", "$.data.customer is not a pseudonym (c- and 16 to 64 hexadecimal digits)"
                )
        cdef str name = field(data, plan.agent, "agent")
        cdef str queue = field(data, plan.queue, "queue")
        cdef str team = field(data, plan.team, "team"), site = field(data, plan.site, "site")
        cdef Known agent = None
        if name:
            agent = self.agents.get(name)
            if agent is None or name != field(event, plan.subject, "subject"):
                agent = self.new_agent(event, name, time_ms)
            if not team or not site:
                if time_ms >= agent.roster_from_ms:
                    team, site = team or agent.team, site or agent.site
                else:
                    found = agent.roster_at(time_ms)
                    team, site = team or found[0], site or found[1]
        if plan.special is not None:
            self.check(plan, event, time_ms, agent)
        if plan.opening:
            self.check_openings(plan, data, time_ms)
        if plan.count is not None:
            self.add(plan.count, None, data, time_ms, agent, queue, team, site, 1, False)
        if source is None:
            source = self.seen.open(of)
        (<Source>source).ids.add(event_id)
        (<Source>source).fresh.append(event_id)
        self.seen.fresh += 1
        plan.taken += 1
        if plan.more:
            self.follow(plan, event, event_id, data, time_ms, agent, queue, team, site)
        return 0

    cdef int check_openings(self, Route plan, data, int64_t time_ms) except -1:
        """Refuse what opens items that could not be missed, or for which there is no room."""
        cdef Asked asked
        for asked in plan.opening:
            if not asked.kind.is_sure(data):
                asked.kind.check(data, time_ms)
        if len(self.deadlines.items) >= self.deadlines.most:
            self.deadlines.check_room()
        return 0

    cdef int follow(
        self, Route plan, event, event_id, data, int64_t time_ms, Known agent, str queue, str team, str site
    ) except -1:
        """Do what an event asks for beyond being counted."""
        if agent is not None and time_ms < agent.first_seen_ms:
            self._see_early(agent, time_ms)
        if plan.special is not None:
            plan.special(event, time_ms, agent)
        if plan.seeing is not None and (plan.sieve is None or plan.sieve.lets(data)):
            hits = plan.seeing(data, time_ms)
            if hits is not None:
                self.see(hits, time_ms, event_id, agent, (queue, team, site))
        if plan.rules:
            self._judge_all(plan, event, time_ms, team, site)
        if plan.items:
            self.follow_items(plan, event, event_id, data, time_ms, agent, of_texts((queue, team, site)))
            if self._waiting:
                self._tell_waiting()
        return 0

    cdef int follow_items(
        self, Route plan, event, event_id, data, int64_t time_ms, Known agent, tuple place
    ) except -1:
        """Open, meet and take back the items that an event is about."""
        cdef Asked asked
        cdef dict active = self.judge.active
        cdef str subject = field(event, plan.subject, "subject")
        for asked in plan.opening:
            if active[asked.kind.pack_name] == asked.kind.version and time_ms >= asked.kind.from_ms:
                if not self.opens(asked, subject, event_id, data, time_ms, agent, place):
                    self.items.open(asked.kind, event, time_ms, place)
        for asked in plan.meeting:
            if active[asked.kind.pack_name] == asked.kind.version:
                if not self.meets(asked, subject, event_id, data, time_ms, agent, place):
                    self.items.end(asked.kind, event, time_ms, place, met=True)
        for kind in plan.cancels:
            self.items.end(kind, event, time_ms, place, met=False)
        return 0

    cdef bint opens(
        self, Asked asked, str subject, event_id, data, int64_t time_ms, Known agent, tuple place
    ) except -1:
        """Whether an event opened an item the straight way, or none at all."""
        cdef Due kind = asked.kind
        cdef int64_t due_ms
        if kind.applies is not None and not kind.applies(data, time_ms):
            return True
        if not kind.opens_plainly:
            return False
        due_ms = kind.limit_ms(data, time_ms)
        key = of_texts((kind.name, subject, asked.word(data)))
        if not self.deadlines.begin(key, place, time_ms, due_ms, data, event_id):
            return False
        if due_ms < self.due_ms:
            self.due_ms = due_ms + 1
        if kind.opened is not None:
            self.add(kind.opened, None, data, time_ms, agent, place[0], place[1], place[2], 1, True)
        return True

    cdef bint meets(
        self, Asked asked, str subject, event_id, data, int64_t time_ms, Known agent, tuple place
    ) except -1:
        """Whether an event met an item the straight way, came before it, or finds it ended already."""
        cdef Due kind = asked.kind
        if not kind.met_plainly:
            return False
        key = of_texts((kind.name, subject, asked.word(data)))
        item = self.deadlines.items.get(key)
        if item is None:
            return self.deadlines.forestall(key, place, time_ms, event_id)
        if not self.deadlines.meet(item, time_ms, event_id):
            return self.deadlines.is_over(item, time_ms)
        if kind.met is not None:
            opening = item.opening
            if type(opening) is not kind.payload or opening.agent != (agent.key[1] if agent is not None else ""):
                self.items.count(kind, item, "met", time_ms)
            else:
                place = item.place
                self.add(kind.met, None, opening, time_ms, agent, place[0], place[1], place[2], 1, True)
        return True

    cpdef int tick(self, int64_t time_ms) except -1:
        """Move the log's clock. A tick that is not ahead of it changes nothing."""
        if self.now_ms is not None and time_ms <= <int64_t>self.now_ms:
            return 0
        if not 0 <= time_ms < LATEST:
            check_moment(time_ms, "$.time")
        if self.now_ms is None:
            self._begin(time_ms)
        if time_ms >= self.due_ms:
            self.staying = False
            self._advance(time_ms)
            self.look_anew()
            self.staying = True
        if time_ms // MINUTE != self.seen.minute or self.seen.fresh >= self.seen.full:
            self.seen.tick(time_ms // MINUTE)
        self.now_ms = time_ms
        return 0

    def count_apart(self, tuple counters not None, data, int64_t at_ms, Known agent, tuple place not None, int weight):
        """Count something that is no event itself: time in a state, an outcome of a deadline.

        ``place`` is queue, team and site. A group for which there is no room is not counted.
        """
        cdef Counter counter
        queue, team, site = place
        for counter in counters:
            self.add(counter, None, data, at_ms, agent, queue, team, site, weight, True)

    def accrue(self, int64_t now_ms):
        """Count the time that working agents spent in their states up to a boundary."""
        cdef Known agent
        cdef int64_t limit_ms, end_ms
        touched = self.judge.touched
        self.look_anew()
        self.staying = True
        for name in sorted(self.working):
            agent = self.agents[name]
            limit_ms = agent.state_from_ms + SHIFT
            end_ms = min(now_ms, limit_ms)
            if end_ms > agent.state_since_ms:
                self.spend(agent, agent.state, agent.state_since_ms, end_ms, 1)
                agent.state_since_ms = end_ms
            if now_ms >= limit_ms:
                agent.state = ""
                self.working.discard(name)
            touched.add(agent.key)
        self.staying = False

    cpdef int spend(
        self, Known agent, str state, int64_t from_ms, int64_t to_ms, int weight
    ) except -1:
        """Count a stretch of time in a state (none when it is empty), cut at the boundaries of buckets."""
        cdef tuple counts = self.state_counts.get(state)
        cdef int64_t cut_ms
        if counts is None:
            return 0
        cdef Counter first = counts[0], second = counts[1] if len(counts) > 1 else None
        # What no metric counts for the agents themselves does not have them judged every five minutes.
        cdef Known own = agent if self.agents_own_states else None
        while from_ms < to_ms:
            cut_ms = min(to_ms, (from_ms // FIVE_MINUTES + 1) * FIVE_MINUTES)
            team, site = agent.team, agent.site
            if from_ms < agent.roster_from_ms:
                team, site, _ = agent.roster_at(from_ms)
            self.add(first, second, StateTime(cut_ms - from_ms), from_ms, own, "", team, site, weight, True)
            from_ms = cut_ms
        return 0

    cdef int add(
        self, Counter counter, Counter other, data, int64_t at_ms, Known agent, str queue, str team, str site, int weight,
        bint apart
    ) except -1:
        """Add something to the cells of whom it concerns, by one counter or two."""
        cdef Cell own = None, of_queue = None, of_team = None, of_site
        if at_ms // MINUTE != self.minute or self.minute_key is None:
            self.look_anew()
            self.minute = at_ms // MINUTE
            self.minute_key, self.five_minutes_key = self.minute, at_ms // FIVE_MINUTES
        minute, five_minutes = self.minute_key, self.five_minutes_key
        if queue:
            of_queue = self.group_cell("queue", self.queues, self.queues_now, queue, minute, apart)
        if (
            agent is not None and agent.stamp == self.stamp and self.staying
            and team is agent.at_team and site is agent.at_site and not (apart and at_ms < agent.first_seen_ms)
        ):
            own, of_team, of_site = agent.own_cell, agent.team_cell, agent.site_cell
        else:
            if agent is not None:
                own = agent.series.cells.get(five_minutes)
                if own is None or (apart and at_ms < agent.first_seen_ms):
                    own = self.open_cell(agent, at_ms)
            if team:
                of_team = self.group_cell("team", self.teams, self.teams_now, team, five_minutes, apart)
            of_site = self.group_cell("site", self.sites, self.sites_now, site, minute, apart)
            # Where there is no room for a group what is apart has a spare cell: the next one must ask again.
            if agent is not None and self.staying and not apart and team is agent.team and site is agent.site:
                agent.stamp, agent.at_team, agent.at_site = self.stamp, team, site
                agent.own_cell, agent.team_cell, agent.site_cell = own, of_team, of_site
        counter.count(data, at_ms, own, of_queue, of_team, of_site, weight)
        if other is not None:
            other.count(data, at_ms, own, of_queue, of_team, of_site, weight)
        return 0

    cdef Cell open_cell(self, Known agent, int64_t at_ms):
        self.judge.open.add(agent.key)
        if at_ms < agent.first_seen_ms:
            self._see_early(agent, at_ms)
        return agent.series.cell(at_ms)

    cdef Cell group_cell(self, str level, dict groups, dict now, str name, bucket, bint apart):
        """The open cell of a group; of one that cannot be had a spare one where it is no event that counts."""
        found = now.get(name) if self.staying else None
        if found is not None:
            return found
        cells = groups.get(name)
        if cells is None:
            try:
                cells = self.open_group(level, name)
            except EventError:
                if apart:
                    return Cell()
                raise
        found = (<dict>cells).get(bucket)
        if found is None:
            found = (<dict>cells)[bucket] = Cell()
        if self.staying:
            now[name] = found
        return found

    cdef int look_anew(self) except -1:
        """Cells may have been reported, or another minute is asked for."""
        self.stamp += 1
        self.queues_now.clear()
        self.teams_now.clear()
        self.sites_now.clear()
        return 0

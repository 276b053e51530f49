"""How often the interpreter looks for garbage that refers to itself.

Theory of operation. Nearly everything here is freed the moment nobody refers to it. What remains are cycles, of
exceptions and of the event loop, and the search for them walks through all containers: through the state of thousands
of subjects, again and again, to find next to nothing. While events are worked through it is therefore made rare, not
switched off: a cycle is freed later, but it is freed. What was there before (modules, packs, compiled rules) stays for
good and is left out of the search. The state itself is bounded by its own rules and holds no cycles.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 100_000
"""So many more containers than were freed since the last search begin one among the young (the interpreter: 700)."""
MIDDLE_SEARCHES = 50
OLD_SEARCHES = 100
"""So many searches of one generation begin one of the next (the interpreter: 10 and 10)."""


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Search for cycles rarely inside the block; afterwards everything is as it was."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE_SEARCHES, OLD_SEARCHES)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()

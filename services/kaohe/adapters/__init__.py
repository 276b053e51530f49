"""Sources: recorded files of others, logs of our own, and the simulator.

``ADAPTERS`` lists the adapters by the name that ``--adapter`` takes; ``read_files`` reads several files in the order of
the log; ``kaohe.adapters.log_clock`` adds the ticks; ``kaohe.adapters.simulator`` makes events where there are none.
"""

from __future__ import annotations

from kaohe.adapters.anonymous_bank import AnonymousBank
from kaohe.adapters.base import Adapter, SourceItem, read_files
from kaohe.adapters.event_log import EventLog
from kaohe.adapters.log_clock import log_ticks, ticks_after
from kaohe.adapters.pseudonyms import Pseudonyms
from kaohe.errors import UsageError

__all__ = [
    "ADAPTERS", "Adapter", "Pseudonyms", "SourceItem", "adapter_named", "log_ticks", "read_files", "ticks_after",
]  # fmt: skip

ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for adapter in (AnonymousBank(), EventLog())}


def adapter_named(name: str) -> Adapter:
    """The adapter of that name. UsageError names the ones there are."""
    try:
        return ADAPTERS[name]
    except KeyError:
        raise UsageError(
            f"there is no adapter {name!r}; the adapters are {', '.join(sorted(ADAPTERS))}"
        ) from None

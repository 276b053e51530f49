"""Adapter ``events``: Kaohe's own log, one CloudEvents document a line, plain or gzip.

The file is the log, so its order is kept. A customer who is not yet a pseudonym becomes one here, before the event goes
anywhere. A line that is no event of ours becomes a reject with its masked bytes; empty lines are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

from kaohe.adapters.base import SourceItem, read_lines, too_long
from kaohe.adapters.pseudonyms import Pseudonyms
from kaohe.errors import EventError
from kaohe.events import DECODER, Envelope, decode, is_pseudonym
from kaohe.privacy import mask, mask_text


class EventLog:
    """Reads JSON lines of our own events."""

    name = "events"
    in_log_order = True

    def read(
        self,
        path: Path,
        *,
        zone: ZoneInfo,  # noqa: ARG002 - for sources with local times; ours carry their offset
        pseudonyms: Pseudonyms,
    ) -> Iterator[SourceItem]:
        """The file's events and rejects in its own order."""
        for line, raw in read_lines(path):
            if raw is None:
                yield too_long(line)
            elif raw:
                yield self._item(line, raw, pseudonyms)

    def _item(self, line: int, raw: bytes, pseudonyms: Pseudonyms) -> SourceItem:
        try:
            event: Envelope = DECODER.decode(raw)
        except ValueError:  # msgspec's errors, and bytes that are no UTF-8
            code, reason = _why(raw)
            return SourceItem(line, None, mask(raw), code, mask_text(reason))
        customer = getattr(event.data, "customer", "")
        if customer and not is_pseudonym(customer):
            event.data.customer = pseudonyms.of(customer)
        return SourceItem(line, event, b"")


def _why(raw: bytes) -> tuple[str, str]:
    """Code and reason as ``kaohe.events.decode`` states them."""
    try:
        decode(raw)
    except EventError as error:
        return error.code, error.reason
    raise AssertionError("a line that does not decode was decoded")

"""What an engine is fed with and what it gives back: plain records, with no word of Kafka in them.

Theory of operation: the stream layer turns what it fetched into ``Record``, hands a whole batch to an engine, and
sends every ``Output`` the engine returns. A replay does the same from a file. Neither struct knows who is on the
other side, so the core stays pure.
"""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of a partition. ``timestamp_ms`` is the broker's, in Unix milliseconds; rules never read it."""

    offset: int
    value: bytes
    key: bytes | None
    timestamp_ms: int


class Output(msgspec.Struct, frozen=True, gc=False):
    """One record to send.

    ``topic`` is the short name (``decisions``, ``alerts``, ``grades``, ``partials``, ``rejects``). ``partition`` is
    explicit only for reports that go to every partition; otherwise the key decides.
    """

    topic: str
    key: bytes
    value: bytes
    partition: int | None = None

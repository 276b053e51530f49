"""Sends many small records in few large batches, each to an explicit partition.

Theory of operation. A client's ``send`` costs a tenth of a millisecond for every record; a batch builder costs a
microsecond. So records are put into one open batch for each topic and partition, synchronously, and a task sends the
batches. While it is busy the open ones grow. The partition comes from the key by murmur2, as in every Kafka client, or
is given. Order is kept within each partition: there is one open batch, full ones leave before it, and the client has
one request in flight for each partition.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiokafka.partitioner import murmur2

from kaohe.core.records import Output
from kaohe.settings import KafkaSecurity, Settings
from kaohe.stream.topics import OUTPUT_PREFIX

# Batches the broker has not acknowledged yet; beyond it whoever adds waits.
UNACKED_BATCHES_MAX = 256
PRODUCER_BATCH_BYTES = 512 * 1024
PARTITION_CACHE_SIZE = 65_536


def tls_context(security: KafkaSecurity) -> ssl.SSLContext | None:
    """The TLS side of a connection; None when there is none."""
    if not security.uses_tls:
        return None
    context = ssl.create_default_context(cafile=security.cafile or None)
    if security.certfile:
        context.load_cert_chain(security.certfile, security.keyfile or None)
    return context


def aiokafka_config(settings: Settings) -> dict[str, Any]:
    """Addresses, TLS and SASL in the words of aiokafka."""
    security = settings.security
    config: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap,
        "security_protocol": security.protocol,
        "ssl_context": tls_context(security),
    }
    if security.uses_sasl:
        config["sasl_mechanism"] = security.sasl_mechanism
        config["sasl_plain_username"] = security.username
        config["sasl_plain_password"] = security.password
    return config


@functools.lru_cache(maxsize=PARTITION_CACHE_SIZE)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: murmur2 as in the Java client, so that every producer agrees."""
    hashed: int = murmur2(key)
    return (hashed & 0x7FFFFFFF) % partitions


class _OutputBatch:
    """One producer batch on its way, and the future of its acknowledgement."""

    __slots__ = ("acknowledged", "builder", "partition", "topic")

    def __init__(self, builder: Any, topic: str, partition: int) -> None:
        self.builder = builder
        self.topic = topic
        self.partition = partition
        self.acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class OutputSender:
    """Sends outputs in batches, in order within each partition, and knows which are not acknowledged yet.

    ``add`` is synchronous, so that applying a batch and noting its outputs is one step that no checkpoint can fall
    into. A task picks the batches up; until it does, further outputs join them.
    """

    def __init__(
        self, partition_counts: Mapping[str, int], on_failure: Callable[[BaseException], None]
    ) -> None:
        self._counts = partition_counts
        self._on_failure = on_failure
        self._producer: Any = None
        self._full: deque[_OutputBatch] = deque()
        self._open: dict[tuple[str, int], _OutputBatch] = {}
        self._unacked: set[asyncio.Future[None]] = set()
        self._wake = asyncio.Event()

    def connect(self, producer: Any) -> None:
        """Use this aiokafka producer from now on."""
        self._producer = producer

    def add(self, outputs: Iterable[Output]) -> int:
        """Note outputs to be sent; how many there were. Nothing is awaited here."""
        added = 0
        for output in outputs:
            topic = OUTPUT_PREFIX + output.topic
            partition = output.partition
            if partition is None:
                partition = partition_of(output.key, self._counts[topic])
            self.add_record(topic, partition, output.key, output.value)
            added += 1
        return added

    def add_record(self, topic: str, partition: int, key: bytes, value: bytes) -> None:
        """Note one record to be sent. Nothing is awaited here."""
        place = (topic, partition)
        batch = self._open.get(place)
        if batch is None or batch.builder.append(timestamp=None, key=key, value=value) is None:
            if batch is not None:
                self._full.append(batch)
            batch = self._new_batch(place)
            appended = batch.builder.append(timestamp=None, key=key, value=value)
            assert appended is not None, "a first record always fits"
        self._wake.set()

    def _new_batch(self, place: tuple[str, int]) -> _OutputBatch:
        batch = _OutputBatch(self._producer.create_batch(), *place)
        self._open[place] = batch
        self._unacked.add(batch.acknowledged)
        batch.acknowledged.add_done_callback(self._unacked.discard)
        return batch

    async def ebb(self) -> None:
        """Wait while too much is not acknowledged yet."""
        while len(self._unacked) > UNACKED_BATCHES_MAX:
            await asyncio.wait(self._unacked, return_when=asyncio.FIRST_COMPLETED)

    async def acknowledged(self) -> None:
        """Wait until the broker has everything that was added before this call. Raises what sending raised."""
        if self._unacked:
            await asyncio.gather(*self._unacked)

    async def run(self) -> None:
        """Pick batches up and send them, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (batch := self._take()) is not None:
                await self._send(batch)

    def _take(self) -> _OutputBatch | None:
        if self._full:
            return self._full.popleft()
        if self._open:
            return self._open.pop(next(iter(self._open)))
        return None

    async def _send(self, batch: _OutputBatch) -> None:
        try:
            batch.builder.close()
            future = await self._producer.send_batch(batch.builder, batch.topic, partition=batch.partition)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the output is not sent
            self._fail(batch, exc)
            return
        future.add_done_callback(functools.partial(self._sent, batch))

    def _sent(self, batch: _OutputBatch, future: asyncio.Future[Any]) -> None:
        exc = asyncio.CancelledError() if future.cancelled() else future.exception()
        if exc is not None:
            self._fail(batch, exc)
        elif not batch.acknowledged.done():
            batch.acknowledged.set_result(None)

    def _fail(self, batch: _OutputBatch, exc: BaseException) -> None:
        if not batch.acknowledged.done():
            batch.acknowledged.set_exception(exc)
            batch.acknowledged.exception()
            self._on_failure(exc)

"""The stream layer: Faust, Kafka and what stands between them and the pure core."""

from __future__ import annotations

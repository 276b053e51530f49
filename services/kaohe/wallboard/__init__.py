"""The Prometheus exporter: live figures of a worker's engines for wallboards."""

from __future__ import annotations

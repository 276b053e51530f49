"""Kaohe (考核): an event-driven rules engine for contact centres."""

from __future__ import annotations

__version__ = "0.1.0"

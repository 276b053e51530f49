"""The adapters' way to pseudonyms: the key, and a bounded memory of what was asked lately.

The key comes from ``KAOHE_PSEUDONYM_KEY``. Two logs can be joined on a customer only when they were read under the same
key, so a key made up at each start would be useless; without one, a key that is written here for everybody to read is
used, which is good enough for a demonstration and for public research data, and a warning says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from kaohe import privacy
from kaohe.errors import SettingsError
from kaohe.events import is_pseudonym

KEY_VARIABLE = "KAOHE_PSEUDONYM_KEY"
DEMO_KEY = b"kaohe demonstration key"
"""Not a secret: whoever has it can find a customer's number by trying all numbers."""
MIN_KEY_BYTES = 16
MAX_KEY_BYTES = 64
CACHE_LIMIT = 65_536

log = logging.getLogger("kaohe.adapters")


class Pseudonyms:
    """Pseudonyms under one key, with a memory of at most ``CACHE_LIMIT`` customers."""

    def __init__(self, key: bytes = DEMO_KEY, *, warn: bool = False) -> None:
        if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
            raise SettingsError(
                f"{KEY_VARIABLE} has {len(key)} bytes; a key needs {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes"
            )
        self._key = key
        self._warn = warn
        self._known: dict[str, str] = {}

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Pseudonyms:
        """With the key of ``KAOHE_PSEUDONYM_KEY``, or the public one and a warning when it is first used.

        SettingsError for a bad key.
        """
        key = environ.get(KEY_VARIABLE, "")
        return cls(key.encode()) if key else cls(warn=True)

    def of(self, customer: str) -> str:
        """The pseudonym of a customer; a pseudonym stays what it is, and nobody stays nobody."""
        if not customer or is_pseudonym(customer):
            return customer
        known = self._known.get(customer)
        if known is None:
            if self._warn:
                self._warn = False
                log.warning(
                    "%s is not set: customers' pseudonyms are made with the public demonstration key",
                    KEY_VARIABLE,
                )
            if len(self._known) >= CACHE_LIMIT:
                self._known.clear()
            known = self._known[customer] = privacy.pseudonym(customer, self._key)
        return known

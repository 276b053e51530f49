"""Every error Kaohe raises on purpose, in one small hierarchy.

An error is part of the interface: its text says what is wrong, where it is, and what would be right, in one
sentence that a person can act on. The command line prints that sentence and ends with ``exit_code``; it never
prints a traceback for an error of this hierarchy. Anything else that is raised is a defect of Kaohe itself.
"""

from __future__ import annotations

import msgspec


class KaoheError(Exception):
    """Something went wrong that a user can act on.

    ``exit_code`` is what the command line returns: 1 when the work failed, 2 when it was asked for wrongly.
    """

    exit_code = 1


class UsageError(KaoheError):
    """The request itself is wrong: a bad argument, a missing file, an unknown name."""

    exit_code = 2


class SettingsError(UsageError):
    """The configuration (environment or TOML file) cannot be used."""


class BrokerError(KaoheError):
    """The broker is away, or its topics are not as the worker needs them."""


class EventError(KaoheError):
    """A record that cannot be used as an event; it goes to ``kaohe.rejects`` with this reason.

    ``code`` is a short, stable word for counting; the text is for people.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class LedgerError(KaoheError):
    """The ledger refused an entry, or the database is not as it must be."""


class Place(msgspec.Struct, frozen=True):
    """Where in a file something stands. Lines and columns count from 1; 0 means the whole file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        text = self.file
        if self.line:
            text += f":{self.line}"
            if self.column:
                text += f":{self.column}"
        return text


class PackError(UsageError):
    """A rule pack is wrong and does not load.

    ``place`` is file, line and column, ``path`` the way to the value inside the file (``rules[2].then[0]``),
    ``wrong`` what is wrong and ``right`` what would be right.
    """

    def __init__(self, place: Place, path: str, wrong: str, right: str) -> None:
        at = f" ({path})" if path else ""
        super().__init__(f"{place}{at}: {wrong}; {right}")
        self.place = place
        self.path = path
        self.wrong = wrong
        self.right = right


class ExpressionError(KaoheError):
    """A condition or an amount is outside the language. ``column`` counts from 1 inside the expression's text."""

    def __init__(self, column: int, wrong: str, right: str) -> None:
        super().__init__(f"column {column}: {wrong}; {right}")
        self.column = column
        self.wrong = wrong
        self.right = right


class ParameterError(KaoheError):
    """A parameter has no value on the day asked for, or a value outside its bounds."""


class MatcherError(KaoheError):
    """Rules or a fact that the rule engine cannot carry, or an engine that did not answer as it must."""


class StateError(KaoheError):
    """Stored or reported state does not fit this worker: a gap in reports, another partition count, a broken key."""

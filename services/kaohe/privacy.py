"""How customers stay unknown: pseudonyms for what is kept, masks for what is only looked at.

Theory of operation. A customer's number or name never enters the log. ``pseudonym`` turns it into ``c-`` and 32
hexadecimal digits with a keyed BLAKE2b: the same customer gives the same pseudonym under the same key, and without the
key nobody can find the number by trying them all. What is refused cannot be given a pseudonym, because nobody knows
what its parts mean; ``mask`` blanks what may be a customer there, and errs towards blanking too much.

Pure: no clock, no randomness, no input or output.
"""

from __future__ import annotations

import re
from hashlib import blake2b

MASK = b"***"

_CUSTOMER = re.compile(
    rb'("(?:customer(?:_?(?:id|no|number|name|phone))?|caller(?:_?(?:id|number))?'
    rb'|phone(?:_?number)?|mobile|msisdn|tel|e?mail)"\s*:\s*)(?!null\b|"")'
    rb'(?:"(?:[^"\\]|\\.)*+(?:"|\\?$)|[{\[][^}\]]*[}\]]?|[^,}\]\s"]+)',
    re.IGNORECASE | re.DOTALL,
)
"""A JSON member that names a customer, with its value: a text (also one cut off), a number, an object or a list."""

_DIGITS = re.compile(
    # An RFC 3339 day or moment is kept: without it nobody could tell when the refused record was made.
    rb"(?P<keep>(?<!\d)(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?![\d-])"
    rb"(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:[+-]\d\d:\d\d(?!\d))?)?(?!\d))"
    # Seven digits or more, with what people write between the digits of a telephone number; also full-width digits.
    rb"|\+?(?:\d|\xef\xbc[\x90-\x99])(?:[ ().\-/\xa0]{0,3}(?:\d|\xef\xbc[\x90-\x99])){6,}"
)


def mask(raw: bytes) -> bytes:
    """``raw`` with every customer's value and every run of seven digits or more replaced by ``***``."""

    def digits(match: re.Match[bytes]) -> bytes:
        return match.group() if match.group("keep") else MASK

    return _DIGITS.sub(digits, _CUSTOMER.sub(rb'\1"***"', raw))


def mask_text(text: str) -> str:
    """``mask`` for a sentence, such as the reason of a reject."""
    return mask(text.encode(errors="replace")).decode(errors="replace")


def pseudonym(customer: str, key: bytes) -> str:
    """The pseudonym of ``customer`` under ``key`` (1 to 64 bytes): ``c-`` and 32 hexadecimal digits."""
    assert 1 <= len(key) <= 64, len(key)
    return "c-" + blake2b(customer.encode(errors="surrogatepass"), digest_size=16, key=key).hexdigest()

"""Links in text: what a reader, or a program that shows the text, may follow.

The wording of a payload is the model's. A link in it is not wording: it sends
whoever reads it somewhere, and an image link tells that place what it carries.
So the rule on trusted origin looks at links in payload that leaves the house as
it looks at arguments.

Found are addresses with a scheme, ``www.`` names, and names that end in one of
the usual top-level domains or are followed by a path, since mail and chat
programs make links of these. What only a person can put together again
("acme dot com") is not found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from checkrein.lazy import pattern
from checkrein.sanitising import sanitise

_USUAL: Final = (
    "com|net|org|info|biz|edu|gov|mil|int|io|co|ai|app|dev|me|tv|cc|ws|to|ly|gl|gd|gg|sh|so|st|is|it|in|"
    "us|uk|eu|de|fr|nl|be|ch|at|es|pt|se|no|dk|fi|pl|cz|ru|su|ua|cn|jp|kr|tw|hk|sg|au|nz|ca|br|mx|tk|ml|"
    "ga|cf|gq|pw|top|xyz|site|online|store|shop|club|live|link|click|page|web|cloud|news|blog|zip|mov"
)
_LABEL: Final = "[^\\W_](?:[\\w-]*[^\\W_])?"
_LINK: Final = pattern(
    rf"""
      (?<![a-z0-9+.-])[a-z][a-z0-9+.-]*:/{{2}}[^\s<>"]+
    | (?:mailto|tel|data|javascript):[^\s<>"]+
    | (?<![\w@.-])(?:{_LABEL}\.)+(?:
          (?:{_USUAL})(?![\w-])(?:[:/?\#][^\s<>"]*)? | [a-z]{{2,}}/[^\s<>"]*
      )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_DOTS: Final = dict.fromkeys(map(ord, "\u3002\uff0e\uff61\u2024"), ".")  # as IDNA reads them
_CLOSING: Final = ".,;:!?)]}>\"'`*\u201d\u2019\u00bb"


def links_in(text: str) -> Iterator[str]:
    """Yield the links in *text*, as they stand there.

    Example:
        >>> list(links_in("See https://acme.com/a, or acme.com."))
        ['https://acme.com/a', 'acme.com']
    """
    if not text.isascii():  # full-width letters and the like read the same to a program
        text = unicodedata.normalize("NFKC", sanitise(text)[0]).translate(_DOTS)
    for match in _LINK().finditer(text):
        yield match[0].rstrip(_CLOSING)

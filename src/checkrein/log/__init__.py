"""The signed, append-only audit log.

A log is a directory::

    checkpoint                  the published head, a signed note
    tile/<L>/<N>[.p/<W>]        the Merkle tree's hashes
    tile/entries/<N>[.p/<W>]    the entries: JSON, as it was written
    .state/journal              what is durable and not yet published
    .state/lock                 held by the one writer

All but ``.state`` is the static form of C2SP (tlog-tiles, tlog-checkpoint,
signed-note): copy it to any web server, and verifiers that nobody here wrote
will read it. The private key is elsewhere; see `checkrein.log.keys`. There may
be one writer at a time, on one machine, on a local file system.

From low to high: `merkle`, `note`, `checkpoint`, `tiles` compute; `disk`, `journal`,
`keys`, `published`, `groupcommit` keep; `audit` writes; `completeness`, `reading`
and `verify` read. Each module's docstring is the specification of its part.
"""

from checkrein.log.audit import AuditLog, Position
from checkrein.log.note import Signer
from checkrein.log.reading import read_entries
from checkrein.log.verify import Report, verify_log

__all__ = ["AuditLog", "Position", "Report", "Signer", "read_entries", "verify_log"]

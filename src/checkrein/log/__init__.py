"""The signed, append-only audit log.

A log is a directory::

    checkpoint                  the published head, a signed note
    tile/<L>/<N>[.p/<W>]        the Merkle tree's hashes
    tile/entries/<N>[.p/<W>]    the entries: JSON, as it was written
    .state/journal              what is durable and not yet published
    .state/lock                 held by who commits
    .state/publishing           held by who publishes
    .state/witnessed            the head that witnesses cosigned last, a signed note

All but ``.state`` is the static form of C2SP (tlog-tiles, tlog-checkpoint,
signed-note): copy it to any web server, and verifiers that nobody here wrote
will read it. The private key and the writer's own pin are elsewhere; see
`checkrein.log.keys` and `checkrein.log.pins`. Any number of processes of one machine may
write, on a local file system; on Windows one.

From low to high: `merkle`, `note`, `checkpoint`, `tiles` compute; `disk`, `locks`, `journal`,
`keys`, `pins`, `published` keep; `directory` is the `ledgers` of one machine, and `postgres` over
`database` that of several hosts; `groupcommit` is the queue before it, and `audit` what programs
write to; `completeness`, `reading` and `verify`
read. For people who have no log: `tilereader` and `receipt` prove, `bundle` exports,
`standalone` verifies that and imports none of these. `cosignature`, `policy` and
`witness` ask others to vouch for a head, and `witnessing` vouches for others. `publishing`
brings what a head has `proven` to `destinations`: a web root, or with `s3` a bucket. Each
module's docstring is the specification of its part.
"""

from checkrein.log.audit import AuditLog, Position
from checkrein.log.note import Signer
from checkrein.log.reading import read_entries
from checkrein.log.receipt import (
    Receipt,
    prove,
    prove_consistency_between,
    read_receipt,
    verify_consistency,
    verify_receipt,
)
from checkrein.log.verify import Report, verify_log

__all__ = [
    "AuditLog",
    "Position",
    "Receipt",
    "Report",
    "Signer",
    "prove",
    "prove_consistency_between",
    "read_entries",
    "read_receipt",
    "verify_consistency",
    "verify_log",
    "verify_receipt",
]
